"""Sharing of equal parts among VMs."""

import json

import msgspec
import pytest

from tests.builders.vm import nic, vm, vmi
from vmnic.controller.caches import shared_parts as module
from vmnic.controller.caches.shared_parts import SharedParts, decode_shared_instance, decode_shared_machine
from vmnic.kubevirt.vm import decode_machine
from vmnic.kubevirt.vmi import decode_instance


def raw(body):
    return json.dumps(body).encode()


def test_vms_of_one_template_share_their_spec():
    one, other = (decode_shared_machine(raw(vm(name, nic(model="virtio")))) for name in ("a", "b"))
    assert one.spec is other.spec
    assert (one.metadata.name, other.metadata.name) == ("a", "b")


def test_vms_that_differ_in_an_address_share_the_rest():
    macs = ("02:00:00:00:00:01", "02:00:00:00:00:02")
    one, other = (decode_shared_machine(raw(vm(mac, nic(macAddress=mac)))).spec.template for mac in macs)
    assert one.spec.networks is other.spec.networks
    assert one.spec.domain.cpu is other.spec.domain.cpu
    assert [each.spec.domain.devices.interfaces[0].mac_address for each in (one, other)] == list(macs)


def test_instances_of_one_template_share_their_spec():
    one, other = (decode_shared_instance(raw(vmi(name, models={"default": "virtio"}))) for name in ("a", "b"))
    assert one.spec is other.spec


EMPTY = {"cpu": {}, "memory": {}, "resources": {}, "features": {}, "devices": {"interfaces": [{"name": "a", "bridge": {}}]}}


@pytest.mark.parametrize(
    "body",
    [
        vm("a", nic(), nic("b", binding="sriov", network="n", model="e1000e")),
        vm("a", labels={"os": "linux"}, annotations={"vmnic.dev/exclude": "true"}),
        {"metadata": {"name": "a"}, "spec": {}},
        {"metadata": {"name": "a"}, "spec": {"template": {"metadata": {}, "spec": {"domain": EMPTY, "affinity": {}}}}},
        {"metadata": {"name": "a"}, "spec": {"template": {"spec": {"domain": {"memory": {"guest": 1}}}}}},
        {"metadata": {"name": "a"}, "spec": {"template": {"spec": {"domain": {"memory": {"guest": "1"}}}}}},
        {"metadata": {"name": "a"}, "spec": {"template": {"spec": {"nodeSelector": {}, "volumes": [], "networks": []}}}},
    ],
)
def test_shared_vm_equals_the_vm_itself(body):
    for _ in range(2):
        assert decode_shared_machine(raw(body)) == decode_machine(raw(body))
        shared = decode_shared_machine(raw(body)).spec.template
        alone = decode_machine(raw(body)).spec.template
        for place in ("metadata", "spec.domain.cpu", "spec.domain.memory", "spec.domain.features", "spec.node_selector"):
            assert type(_find(shared, place)) is type(_find(alone, place))


def _find(part, place):
    for name in place.split("."):
        part = getattr(part, name)
    return part


@pytest.mark.parametrize("body", [vmi("a", macs={"default": "02:00:00:00:00:01"}, guest="fedora"), {"metadata": {"name": "a"}}])
def test_shared_instance_equals_the_instance_itself(body):
    for _ in range(2):
        assert decode_shared_instance(raw(body)) == decode_instance(raw(body))


def test_number_of_remembered_parts_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "_MOST", 3)
    parts = SharedParts()
    found = [parts.share((number,)) for number in range(10)]
    assert (found, len(parts._parts)) == ([(number,) for number in range(10)], 2)


def test_long_part_is_not_remembered():
    parts = SharedParts()
    long = ("x" * 5000,)
    assert parts.share(long) is long
    assert not parts._parts


def test_integer_that_cannot_be_encoded_is_kept():
    part = {"x": 2**70}
    assert SharedParts().share(part) is part


def test_malformed_vm_is_still_refused():
    with pytest.raises(msgspec.ValidationError):
        decode_shared_machine(b'{"metadata": {"name": 5}, "spec": {}}')
