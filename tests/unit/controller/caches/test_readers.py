"""A change of an object enqueues the VMs that read it, and no other VM."""

import pytest

from tests.builders.machines import NAMESPACE, VmScene
from tests.builders.vm import nad, nic, policy
from vmnic.controller.caches.readers import Readers, Thing
from vmnic.kube.reflector import ObjectKey

A, B = ObjectKey("tenants", "a"), ObjectKey("tenants", "b")
ONE, TWO = Thing("networks", "tenants", "one"), Thing("networks", "tenants", "two")


def test_readers_are_removed_with_their_reads():
    readers = Readers()
    readers.note(A, ONE)
    readers.note(B, ONE)
    readers.note(B, TWO)
    readers.forget(B)
    readers.forget(B)
    assert (readers.of([ONE, TWO]), dict(readers._readers)) == ({A}, {ONE: {A}})


def named(name):
    return {"metadata": {"name": name}}


CHANGES = {
    "its network": ("network-attachment-definitions", nad("br", cni="sriov")),
    "its network, unreadable": ("network-attachment-definitions", nad("br") | {"spec": 5}),
    "another network of its segment": ("network-attachment-definitions", nad("more", segment="blue")),
    "its preference": ("virtualmachineclusterpreferences", named("one")),
    "its preference, unreadable": ("virtualmachineclusterpreferences", named("one") | {"spec": 5}),
    "its instancetype": ("virtualmachineinstancetypes", {"metadata": {"name": "one", "namespace": NAMESPACE}}),
}
OTHERS = {
    "a network that nobody reads": ("network-attachment-definitions", nad("other")),
    "a network of another segment": ("network-attachment-definitions", nad("other", segment="red")),
    "the same segment elsewhere": ("network-attachment-definitions", nad("other", segment="blue", namespace="else")),
    "another preference": ("virtualmachineclusterpreferences", named("two")),
    "a preference of another namespace": ("virtualmachinepreferences", {"metadata": {"name": "one", "namespace": "else"}}),
}


async def scene():
    found = VmScene(policy(datapaths=("vhost",)))
    found.put("network-attachment-definitions", nad("br", segment="blue"))
    refers = {
        "preference": {"name": "one"},
        "instancetype": {"name": "one", "kind": "VirtualMachineInstancetype"},
    }
    found.add("web", nic("br", binding="bridge", network="br"), **refers)
    found.add("plain", nic(model="e1000e"))
    for name in ("web", "plain"):
        await found.look(name)
    found.asked_for()
    return found


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_change_of_a_referenced_object_enqueues_its_vm(change):
    found = await scene()
    found.put(*change)
    assert found.asked_for() == ["web"]


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
async def test_change_of_an_unreferenced_object_enqueues_no_vm(change):
    found = await scene()
    found.put(*change)
    assert found.asked_for() == []


async def test_first_network_of_a_name_enqueues_its_reader():
    found = VmScene(policy(datapaths=("vhost",)))
    found.add("web", nic("br", binding="bridge", network="br"))
    await found.look("web")
    found.asked_for()
    found.put("network-attachment-definitions", nad("br"))
    assert found.asked_for() == ["web"]


async def test_deleted_vm_is_no_reader():
    found = await scene()
    found.remove("virtualmachines", "web")
    found.asked_for()
    found.put(*CHANGES["its network"])
    assert found.asked_for() == []
