"""The controller reads the ControllerRevisions that VMs name, each once."""

import msgspec
import pytest

from tests.builders.machines import NAMESPACE, VmScene
from tests.builders.vm import instancetype, node, node_state, policy, pool, preference, revision
from vmnic.controller.admission.reviews import Reviews
from vmnic.controller.caches.revisions import RevisionCache
from vmnic.kube.errors import ApiError, BadNameError, UnreachableError
from vmnic.kube.reflector import ObjectKey
from vmnic.kube.set_aside import SetAside
from vmnic.kube.time_budget import Subject
from vmnic.kubevirt.revisions import Revision

KEY = ObjectKey(NAMESPACE, "kept")
KEPT = revision("kept", preference(model="e1000e"))
REFERENCE = {"kind": "VirtualMachinePreference", "name": "linux", "revisionName": "kept"}
AWAY = UnreachableError(status=0, reason="Unreachable", message="away")
FORBIDDEN = ApiError(status=403, reason="Forbidden", message="controllerrevisions is forbidden")


def scene(*, kept=KEPT, **rule):
    found = VmScene(policy(**({"datapaths": ("vhost",), "existing": "Immediately"} | rule)))
    found.put("virtualmachinepreferences", preference(model="virtio"))
    if kept:
        found.bodies["controllerrevisions", NAMESPACE, "kept"] = kept
    found.add("web", preference=REFERENCE)
    return found


def reads(found):
    return [name for verb, name in found.requests if verb == "read"]


async def test_a_vm_is_decided_with_its_kept_preference():
    found = scene()
    for _ in range(3):
        await found.look("web")
    assert (("patch", "web") in found.requests, reads(found)) == (True, ["kept"])


async def test_without_a_policy_no_revision_is_read():
    found = scene()
    found.remove("vmnicpolicies", "all", "")
    await found.look("web")
    assert reads(found) == []


@pytest.mark.parametrize(
    ("kept", "refusal", "words"),
    [
        (None, None, "kept does not exist"),
        (KEPT, FORBIDDEN, "kept cannot be read: controllerrevisions is forbidden"),
        (KEPT, BadNameError("a name", ".."), "kept cannot be read: '..' is not a name"),
        (KEPT | {"metadata": {"name": "kept"}}, None, "kept contains no preference or instancetype"),
        (KEPT | {"data": KEPT["data"] | {"spec": 5}}, None, "kept cannot be read: Expected `object`"),
        ("no object", None, "kept cannot be read: Expected `object`"),
    ],
    ids=["missing", "forbidden", "a bad name", "of another program", "malformed", "no object"],
)
async def test_a_revision_that_cannot_be_read_holds_its_vm(kept, refusal, words):
    found = scene(kept=kept)
    found.refusals["read"] = refusal
    await found.look("web")
    note = found.note("web")
    assert (note.reason, ("patch", "web") in found.requests) == ("PreferenceUnknown", False)
    assert words in note.message
    # It is looked for again, also by itself.
    assert found.asked_for() == ["web"]


async def test_a_vm_waits_while_the_api_server_does_not_answer():
    found = scene()
    found.refusals["read"] = [AWAY]
    assert await found.look("web") is AWAY
    assert found.get("vmnicstates", "web") is None
    await found.look("web")
    assert ("patch", "web") in found.requests


async def test_only_malformed_revisions_are_set_aside():
    found = scene(kept=KEPT | {"data": KEPT["data"] | {"spec": 5}})
    await found.look("web")
    assert [(one.kind, one.key) for one in found.world.set_aside.items()] == [("ControllerRevision", "tenants/kept")]


class Api:
    """ControllerRevisions that are equal but for their names."""

    def __init__(self):
        self.asked = []
        self.body = KEPT

    async def read(self, resource, name, namespace=""):
        self.asked.append(name)
        return self.body


def cache(*, named=(), changes=None):
    api, clock = Api(), [0.0]
    changed = (lambda _: None) if changes is None else changes.append
    return api, clock, RevisionCache(api, SetAside(), lambda key: key.name in named, changed, lambda: clock[0])


async def test_a_missing_revision_is_read_again_after_a_pause():
    changes = []
    api, clock, found = cache(changes=changes)
    api.body = None
    assert [await found.load([KEY]), await found.load([KEY]), len(api.asked)] == [60.0, 60.0, 1]
    clock[0], api.body = 60.0, KEPT
    assert (await found.load([KEY]), found.find(KEY).data.spec.devices.preferred_interface_model) == (None, "e1000e")
    assert changes == [KEY, KEY]


async def test_equal_revisions_are_kept_once():
    _, _, found = cache()
    await found.load([KEY, ObjectKey(NAMESPACE, "other")])
    assert found.find(KEY) is found.find(ObjectKey(NAMESPACE, "other"))


async def test_revisions_that_no_vm_names_are_forgotten():
    _, _, found = cache(named=("kept",))
    await found.load([KEY])
    await found.load(ObjectKey(NAMESPACE, f"other{number}") for number in range(1000))
    assert [isinstance(found.find(KEY), Revision), len(found._entries), len(found._equal)] == [True, 1, 1]


def review(machine, kind="virtualmachineinstance"):
    body = machine if kind == "virtualmachine" else {"metadata": {"name": "web", "namespace": NAMESPACE, "ownerReferences": [{"kind": "VirtualMachine", "name": "web"}]}, "spec": {"domain": {"devices": {"interfaces": [{"name": "default", "model": "e1000e"}]}}}}  # fmt: skip
    return msgspec.json.encode({"request": {"uid": "u", "namespace": NAMESPACE, "object": body}})


@pytest.mark.parametrize("kind", ["virtualmachine", "virtualmachineinstance"])
@pytest.mark.parametrize(("refusal", "patched"), [(None, True), (AWAY, False)], ids=["read", "not read"])
async def test_an_admission_review_reads_the_revision(kind, refusal, patched):
    found = scene(action="Admit" if kind == "virtualmachineinstance" else "Patch", existing="Immediately")
    found.refusals["read"] = refusal
    reviews = Reviews(found.world, SetAside(), is_authenticated=True)
    raw = review(found.get("virtualmachines", "web"), kind)
    answer = await reviews.answer(kind, "u", Subject("VirtualMachine", "tenants/web"), raw)
    assert ("patch" in answer.review["response"], reads(found)) == (patched, ["kept"])


async def test_vfs_asked_for_in_other_ways_are_counted():
    found = VmScene(policy(datapaths=("vhost",)))
    found.put("sriovnetworkpools", pool())
    found.put("nodes", node("n1"))
    found.put("nodenicstates", node_state())
    for name, field in (("limited", "resources"), ("gpu", "gpus"), ("device", "hostDevices")):
        found.add(name, uid=None)
        body = found.get("virtualmachines", name)
        domain = body["spec"]["template"]["spec"]["domain"]
        if field == "resources":
            domain["resources"] = {"limits": {"vmnic.dev/fast": "2"}}
        else:
            domain["devices"][field] = [{"name": "d", "deviceName": "vmnic.dev/fast"}]
        found.put("virtualmachines", body)
    assert found.world.devices.capacity.assigned["vmnic.dev/fast"] == 4


async def test_a_new_pool_makes_devices_count():
    found = VmScene(policy(datapaths=("vhost",)))
    found.add("web", uid=None)
    body = found.get("virtualmachines", "web")
    body["spec"]["template"]["spec"]["domain"]["resources"] = {"limits": {"vmnic.dev/fast": "2"}}
    found.put("virtualmachines", body)
    assert "vmnic.dev/fast" not in found.world.devices.capacity.assigned
    found.put("sriovnetworkpools", pool())
    assert found.world.devices.capacity.assigned["vmnic.dev/fast"] == 2


async def test_an_instancetypes_devices_are_counted():
    found = VmScene(policy(datapaths=("vhost",)))
    found.put("sriovnetworkpools", pool())
    kind = instancetype("vf", hostDevices=[{"name": "d", "deviceName": "vmnic.dev/fast"}])
    reference = {"kind": "VirtualMachineInstancetype", "name": "vf"}
    found.add("before", uid=None, instancetype=reference)
    await found.look("before")
    found.put("virtualmachineinstancetypes", kind)
    found.add("after", uid=None, instancetype=reference)
    assert found.world.devices.capacity.assigned["vmnic.dev/fast"] == 2
    found.put("virtualmachineinstancetypes", instancetype("vf"))
    assert "vmnic.dev/fast" not in found.world.devices.capacity.assigned
