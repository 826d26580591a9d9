"""What the models of a pool refuse by themselves, as offline nobody evaluates the rules of the CRD."""

import pytest
from pydantic import ValidationError

from tests.builders.node import pool


@pytest.mark.parametrize(
    "vf",
    [{"vlanQos": 3}, {"vlanQos": 0}, {"vlan": 0, "vlanQos": 3}, {"vlanProtocol": "802.1ad"}],
    ids=["a priority", "the least priority", "a priority and no VLAN", "a protocol"],
)
def test_what_means_nothing_without_a_vlan_is_refused(vf):
    with pytest.raises(ValidationError, match=r"vf.vlanQos and vf.vlanProtocol need a vf.vlan"):
        pool(vf=vf)


@pytest.mark.parametrize("vf", [{"vlan": 0}, {"vlan": 0, "vlanQos": 0}, {"vlan": 5, "vlanQos": 3, "vlanProtocol": "802.1ad"}])
def test_a_vlan_is_taken_with_and_without_them(vf):
    assert pool(vf=vf).spec.vf is not None
