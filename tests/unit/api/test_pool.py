"""Fields that the models of a pool refuse, because the CRD's rules are not evaluated offline."""

import pytest
from pydantic import ValidationError

from tests.builders.node import pool


@pytest.mark.parametrize(
    "vf",
    [{"vlanQos": 3}, {"vlanQos": 0}, {"vlan": 0, "vlanQos": 3}, {"vlanProtocol": "802.1ad"}],
    ids=["a priority", "the least priority", "a priority and no VLAN", "a protocol"],
)
def test_fields_that_need_a_vlan_are_refused_without_one(vf):
    with pytest.raises(ValidationError, match=r"vf.vlanQos and vf.vlanProtocol need a vf.vlan"):
        pool(vf=vf)


@pytest.mark.parametrize("vf", [{"vlan": 0}, {"vlan": 0, "vlanQos": 0}, {"vlan": 5, "vlanQos": 3, "vlanProtocol": "802.1ad"}])
def test_a_vlan_is_accepted_with_and_without_these_fields(vf):
    assert pool(vf=vf).spec.vf is not None
