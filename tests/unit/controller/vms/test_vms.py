"""Patches, restarts and records of one VM in the reconciler, also when requests fail."""

from datetime import timedelta

import pytest

from tests.builders.machines import STALE, VmScene
from tests.builders.vm import nic, policy, quota
from vmnic.kube.errors import ApiError, TooManyRequestsError, UnreachableError
from vmnic.kube.reflector import ObjectKey

DENIED = ApiError(status=403, reason="Forbidden", message="admission webhook policy.example denied the request")
AWAY = UnreachableError(status=0, reason="Unreachable", message="away")
BUSY = TooManyRequestsError(status=429, reason="TooManyRequests", message="later")


def scene(*names, existing="Rolling", **options):
    found = VmScene(policy(datapaths=("vhost",), existing=existing), **options)
    for name in names:
        found.add(name, nic(model="e1000e"))
    return found


def model(found, name="web"):
    machine = found.get("virtualmachines", name)
    return machine["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"][0]["model"]


async def test_running_vm_is_recorded_patched_and_restarted():
    found = scene("web")
    assert await found.look("web") is None
    assert found.requests == [("write", "web"), ("patch", "web"), ("restart", "web")]
    assert (model(found), found.state("web")["restart"]["state"]) == ("virtio", "Restarting")
    found.start("web", "new")
    await found.look("web")
    assert (found.state("web")["restart"]["state"], found.machines.slots.in_progress()) == ("Done", [])


@pytest.mark.parametrize("error", [STALE, DENIED, BUSY], ids=["a stale cache", "a denial", "too many requests"])
async def test_vm_whose_patch_fails_is_not_restarted(error):
    found = scene("web")
    found.refusals["patch"] = error
    for _ in range(4):
        assert await found.look("web") is error
    assert ("restart", "web") not in found.requests
    assert "reverts" not in found.state("web")
    found.refusals.clear()
    assert await found.look("web") is None
    assert found.requests[-2:] == [("patch", "web"), ("restart", "web")]


async def test_restart_for_an_obsolete_change_is_not_requested():
    found = scene("web")
    found.refusals["patch"] = BUSY
    await found.look("web")
    found.put("vmnicpolicies", policy(datapaths=("vhost",), action="Audit"))
    assert await found.look("web") is None
    assert ("restart", "web") not in found.requests
    assert (found.state("web").get("restart"), found.machines.slots.in_progress()) == (None, [])


async def test_vm_halted_during_its_restart_releases_its_slot():
    found = scene("a", "b", restart_timeout=timedelta(seconds=-1))
    await found.look("a")
    await found.look("b")
    found.change("a", runStrategy="Halted")
    found.remove("virtualmachineinstances", "a")
    found.asked_for()
    await found.look("a")
    assert (found.state("a").get("restart", {}).get("state"), found.machines.slots.failed("all")) == ("Done", [])
    assert found.asked_for() == ["b"]
    await found.look("b")
    assert found.requests[-1] == ("restart", "b")


async def test_raised_quota_enqueues_the_vms_of_its_namespace():
    found = scene("web")
    found.put("resourcequotas", quota(hard={"requests.memory": "1Gi"}, used={}))
    found.asked_for()
    found.put("resourcequotas", quota(hard={"requests.memory": "1Gi"}, used={"requests.memory": "1Gi"}))
    assert found.asked_for() == []
    found.put("resourcequotas", quota(hard={"requests.memory": "8Gi"}, used={"requests.memory": "1Gi"}))
    assert found.asked_for() == ["web"]
    found.remove("resourcequotas", "q")
    assert found.asked_for() == ["web"]


async def test_leader_requests_a_restart_that_an_earlier_one_recorded():
    found = scene("web", restart_timeout=timedelta(seconds=-1))
    found.refusals["restart"] = AWAY
    assert await found.look("web") is AWAY
    found.refusals.clear()
    found.lead_anew()
    await found.look("web")
    assert (found.requests[-2:], found.state("web")["restart"]["state"]) == (
        [("restart", "web"), ("write", "web")],
        "Restarting",
    )
    await found.look("web")
    assert found.machines.slots.failed("all") == [ObjectKey("tenants", "web")]


async def test_change_reverted_twice_is_suspended():
    found = scene("web", existing="Immediately")
    for _ in range(2):
        await found.look("web")
        found.put("virtualmachines", found.get("virtualmachines", "web") | {"spec": SPEC})
    await found.look("web")
    assert (found.requests.count(("patch", "web")), found.note("web").reason) == (2, "OwnedByGit")


SPEC = {
    "runStrategy": "Always",
    "template": {
        "metadata": {"annotations": {"vm.kubevirt.io/os": "linux"}},
        "spec": {
            "domain": {"devices": {"interfaces": [{"name": "default", "masquerade": {}, "model": "e1000e"}]}},
            "networks": [{"name": "default", "pod": {}}],
        },
    },
}


@pytest.mark.parametrize("existing", ["Rolling", "Immediately"])
async def test_permanently_refused_patch_is_reported(existing):
    found = scene("web", existing=existing)
    found.refusals["patch"] = DENIED
    assert await found.look("web") is DENIED
    (nic_state,) = found.state("web")["nics"]
    assert (nic_state["reason"], "denied the request" in nic_state["message"]) == ("PatchRefused", True)
    assert (found.note("web").verdict, found.note("web").reason) == ("Blocked", "PatchRefused")
    written = found.requests.count(("write", "web"))
    await found.look("web")
    if existing == "Immediately":
        assert found.requests.count(("write", "web")) == written
    found.refusals.clear()
    await found.look("web")
    assert (model(found), found.note("web").reason) == ("virtio", "")


async def test_field_that_another_webhook_changes_is_named():
    found = scene("web", existing="Immediately")
    field = "of a VM the controller changes NICs only: spec.template.spec.domain.devices.autoattachGraphicsDevice differs"
    policy = "ValidatingAdmissionPolicy 'vmnic-controller' with binding 'vmnic-controller' denied request"
    found.refusals["patch"] = ApiError(status=403, reason="Forbidden", message=f"virtualmachines {'x' * 63} {policy}: {field}")
    await found.look("web")
    (nic_state,) = found.state("web")["nics"]
    assert nic_state["reason"] == "PatchRefused"
    assert nic_state["message"].startswith(f"refused: {field} (another webhook changes it")


async def test_stale_cache_is_no_refusal_and_an_invalid_patch_is():
    found = scene("web", existing="Immediately")
    found.refusals["patch"] = [STALE, STALE]
    await found.look("web")
    assert found.state("web") == {}
    await found.look("web")
    assert found.note("web").reason == "PatchRefused"


async def test_vm_whose_patch_is_refused_passes_its_slot_on():
    found = scene("a", "b")
    await found.look("a")
    await found.look("b")
    assert found.note("b").reason == "WaitsForWindow"
    found = scene("a", "b")
    found.refusals["patch"] = [DENIED]
    await found.look("a")
    assert found.machines.slots.in_progress() == []
    await found.look("b")
    assert found.requests[-2:] == [("patch", "b"), ("restart", "b")]


async def test_refusal_stays_in_the_state_while_it_is_repeated():
    found = scene("web")
    found.refusals["patch"] = DENIED
    await found.look("web")
    states = []
    put = found.put
    found.put = lambda plural, *bodies: (states.extend(bodies if plural == "vmnicstates" else ()), put(plural, *bodies))
    for _ in range(3):
        await found.look("web")
    assert {body["status"]["nics"][0].get("reason") for body in states} <= {"PatchRefused"}
    found.refusals.clear()
    await found.look("web")
    await found.look("web")
    assert found.state("web")["nics"][0].get("reason") is None
