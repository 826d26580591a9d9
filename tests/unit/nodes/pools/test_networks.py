"""Networks of a pool in the form that sriov-cni reads."""

import json

import msgspec
import pytest
from pydantic import ValidationError

from tests.builders.node import pool
from vmnic.nodes.pools.networks import decode_own_network, render_network
from vmnic.nodes.pools.resources import network_name

PLAIN = {
    "cniVersion": "1.0.0", "name": "fast", "type": "sriov", "vlan": 0, "vlanQoS": 0, "trust": "off", "spoofchk": "on",
    "link_state": "auto", "ipam": {},
}  # fmt: skip


def rendered(owner=None, **fields):
    wanted = owner or pool(networks=[{"name": "fast"} | fields])
    return render_network(wanted, wanted.spec.networks[0])


@pytest.mark.parametrize(
    ("fields", "written"),
    [
        ({}, {}),
        ({"vlan": 100, "vlanQos": 3}, {"vlan": 100, "vlanQoS": 3}),
        ({"trust": True, "spoofCheck": False}, {"trust": "on", "spoofchk": "off"}),
        ({"linkState": "Enable"}, {"link_state": "enable"}),
        ({"minTxRateMbps": 10, "maxTxRateMbps": 0}, {"min_tx_rate": 10, "max_tx_rate": 0}),
        ({"ipam": {"type": "host-local"}}, {"ipam": {"type": "host-local"}}),
    ],
    ids=["defaults, the VLAN explicit", "VLAN", "trust and spoof check", "link state", "rates", "ipam"],
)
def test_every_field_is_in_the_cni_configuration(fields, written):
    assert json.loads(rendered(**fields).spec.config) == PLAIN | written


def test_a_network_names_resource_pool_and_segment():
    made = rendered(pool(resourceName="a.b/c", networks=[{"name": "fast", "segment": "blue"}])).metadata
    assert made.annotations == {"k8s.v1.cni.cncf.io/resourceName": "a.b/c", "vmnic.dev/pool-uid": "uid-fast"}
    assert made.labels == {"vmnic.dev/pool": "fast", "app.kubernetes.io/managed-by": "vmnic", "vmnic.dev/segment": "blue"}


def test_each_resource_has_a_network_of_the_same_segment():
    owner = pool(resourcePerPF=True, networks=[{"name": "blue-fast", "segment": "blue", "vlan": 5}])
    (entry,) = owner.spec.networks
    made = render_network(owner, entry, "vmnic.dev/fast-ens1f0")
    assert network_name(owner, entry, "vmnic.dev/fast-ens1f0") == "blue-fast-ens1f0"
    assert made.metadata.annotations["k8s.v1.cni.cncf.io/resourceName"] == "vmnic.dev/fast-ens1f0"
    assert made.metadata.labels["vmnic.dev/segment"] == "blue"
    assert (json.loads(made.spec.config)["name"], json.loads(made.spec.config)["vlan"]) == ("blue-fast-ens1f0", 5)


@pytest.mark.parametrize(
    ("meta", "owner"),
    [
        ({"labels": {"vmnic.dev/pool": "fast"}}, ""),
        ({"annotations": {"vmnic.dev/pool-uid": ""}}, ""),
        ({"annotations": {"vmnic.dev/pool-uid": "uid-fast"}}, "uid-fast"),
    ],
    ids=["a label", "an empty annotation", "the annotation"],
)
def test_only_the_annotation_marks_a_network_as_the_pools(meta, owner):
    found = decode_own_network(json.dumps({"metadata": {"name": "fast", **meta}, "spec": {"config": "{}"}}).encode())
    assert (found.pool_uid if found is not None else "") == owner


def changed(network, **meta):
    return msgspec.structs.replace(network, metadata=msgspec.structs.replace(network.metadata, **meta))


@pytest.mark.parametrize(
    ("here", "same"),
    [
        (rendered(), True),
        (changed(rendered(), labels=rendered().metadata.labels | {"team": "a"}), True),
        (changed(rendered(), annotations={}), False),
        (rendered(segment="blue"), False),
        (rendered(vlan=5), False),
    ],
    ids=["it is", "labels of others", "the resource is missing", "another segment", "another configuration"],
)
def test_only_vmnics_fields_of_a_network_are_compared(here, same):
    assert here.covers(rendered()) is same


@pytest.mark.parametrize(
    "spec",
    [{"vf": {"vlan": 1}}, {"function": "Physical", "numVfs": None}],
    ids=["attributes set by the agent", "whole NICs"],
)
def test_networks_need_vfs_without_attributes(spec):
    with pytest.raises(ValidationError, match="networks need"):
        pool(networks=[{"name": "fast"}], **spec)
