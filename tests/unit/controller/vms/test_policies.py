"""A policy's status, summed up from the decisions about the VMs."""

from datetime import timedelta
from types import SimpleNamespace

import msgspec

from tests.builders.fleet import MemoryCluster
from tests.builders.machines import VmScene
from tests.builders.vm import nic, policy
from vmnic.controller.caches.cluster_cache import ClusterCache
from vmnic.controller.vms.decision_record import NicDecisionRecord
from vmnic.controller.vms.policies import PolicyReconciler
from vmnic.kube.reflector import ObjectKey
from vmnic.policy.checks import Finding
from vmnic.policy.reasons import Reason
from vmnic.policy.types import Verdict


def note(verdict=Verdict.COMPLIANT, *, policy="all", datapath="vhost", reason="", restart=False, conflicts=(), warnings=()):
    return NicDecisionRecord(
        nic="default", policy=policy, verdict=verdict, datapath=datapath, reason=reason, message="why",
        pending_restart=restart, conflicts_with=conflicts, warnings=tuple(warnings),
    )  # fmt: skip


class Rig:
    """The reconciler over an API server that is a dictionary."""

    def __init__(self, body, notes=(), lost=()):
        self.cluster = MemoryCluster()
        self.told = []
        self.world = ClusterCache(self.cluster, lambda key, after_s=0.0: None)
        for reflector in self.world.reflectors:
            reflector.synced.set()
        slots = SimpleNamespace(next_waiting=lambda *_: [], in_progress=list, failed=lambda _: list(lost))
        self.machines = SimpleNamespace(slots=slots, notes={})
        for name, own in notes:
            self.note(name, *own)
        self._reconciler = PolicyReconciler(self.world, self.cluster, self.machines, lambda *_: None, self)
        self.apply(body)

    def tell(self, subject, kind, reason, action, _note):
        """Record an Event."""
        assert (subject.kind, subject.name, subject.uid, action) == ("VmNicPolicy", "all", "u1", "Evaluate")
        self.told.append((kind, reason))

    def note(self, name, *notes):
        self.machines.notes[ObjectKey("tenants", name)] = notes

    def apply(self, body):
        body["metadata"]["uid"] = "u1"
        self.cluster.put("vmnicpolicies", (self.cluster.get("vmnicpolicies", body["metadata"]["name"]) or {}) | body)

    async def status(self):
        """Deliver changes, reconcile, and return the resulting status."""
        self.world.policies._store(msgspec.Raw(msgspec.json.encode(self.cluster.get("vmnicpolicies", "all"))))
        await self._reconciler.reconcile("all")
        return self.cluster.get("vmnicpolicies", "all").get("status", {})

    async def writes(self):
        before = len(self.cluster.changes)
        await self.status()
        return len(self.cluster.changes) - before


async def summary(**vms):
    return await Rig(policy(), vms.items()).status()


def conditions(status):
    return {one["type"]: one["status"] for one in status["conditions"]}


async def test_vms_are_counted_by_verdict():
    status = await summary(
        ok=[note()], change=[note(), note(Verdict.CHANGE, datapath="emulated")], blocked=[note(Verdict.BLOCKED, reason="GuestOsUnknown")],
        restart=[note(restart=True)], fought=[note(conflicts=("b",))], other=[note(policy="other")],
    )  # fmt: skip
    counts = {"matched": 5, "compliant": 3, "toChange": 1, "blocked": 1, "pendingRestart": 1, "conflicting": 1, "atRisk": 0}
    assert (status["vms"], status["nicsByDatapath"]) == (counts, {"emulated": 1, "vhost": 5})
    assert conditions(status) == {
        "Ready": "True",
        "Compliant": "False",
        "Conflict": "True",
        "Reconciling": "False",
        "Stalled": "False",
    }


async def test_all_compliant_is_reported():
    assert conditions(await summary(a=[note()]))["Compliant"] == "True"
    assert conditions(await summary())["Compliant"] == "True"


async def test_at_most_ten_problems_are_reported_in_a_stable_order():
    vms = {f"v{number:02}": [note(Verdict.BLOCKED, reason="GuestOsUnknown")] for number in range(20, 0, -1)}
    told = [problem["vm"] for problem in (await summary(**vms))["problems"]]
    assert told == [f"tenants/v{number:02}" for number in range(1, 11)]


async def test_conflict_names_the_other_policy_and_the_remedy():
    problem = (await summary(a=[note(conflicts=("b",))]))["problems"][0]
    assert (problem["reason"], "spec.priority" in problem["message"]) == ("Conflict", True)


async def test_failure_at_the_next_start_is_a_problem_of_the_policy():
    found = Finding(Reason.NET_RESOURCE_INJECTOR_MISSING, "no device")
    status = await summary(a=[note(datapath="sriov", warnings=[found]), note()], b=[note()])
    problem = {"vm": "tenants/a", "nic": "default", "reason": "NetResourceInjectorMissing", "message": "no device"}
    assert (status["problems"], status["vms"]["atRisk"], status["vms"]["compliant"]) == ([problem], 1, 2)
    compliant = next(one for one in status["conditions"] if one["type"] == "Compliant")
    assert (compliant["status"], "1 keep a datapath" in compliant["message"]) == ("True", True)


async def test_vm_that_did_not_come_back_is_named():
    status = await Rig(policy(), lost=[ObjectKey("tenants", "web")]).status()
    assert (conditions(status)["Stalled"], "tenants/web" in str(status["conditions"])) == ("True", True)


async def test_unchanged_status_is_written_once():
    rig = Rig(policy(), [("a", [note()])])
    assert (await rig.writes(), await rig.writes(), rig.told) == (1, 0, [("Normal", "AllCompliant")])


async def test_change_of_a_policy_condition_emits_one_event():
    rig = Rig(policy())
    for found in (note(), note(Verdict.CHANGE), note(Verdict.BLOCKED), note(conflicts=("b",)), note()):
        rig.note("web", found)
        await rig.status()
    assert rig.told == [
        ("Normal", "AllCompliant"), ("Normal", "NotCompliant"), ("Warning", "Conflict"), ("Normal", "AllCompliant"),
    ]  # fmt: skip


async def test_field_of_a_newer_policy_takes_nothing_away():
    body = policy()
    body["spec"]["enforcement"]["speed"] = "High"
    assert conditions(await Rig(body, [("a", [note()])]).status())["Ready"] == "True"


async def test_unreadable_policy_reports_that_once():
    rig = Rig(policy(), [("a", [note()])])
    await rig.status()
    rig.apply(policy(datapaths=["dpdk"]))
    status = await rig.status()
    told = {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}
    assert told == {
        "Ready": ("False", "UnsupportedSpec"),
        "Reconciling": ("False", "Settled"),
        "Stalled": ("True", "UnsupportedSpec"),
    }
    assert "spec.datapaths.0: Input should be 'auto'" in status["conditions"][0]["message"]
    assert (status["observedGeneration"], status["vms"]["matched"], await rig.writes()) == (2, 1, 0)
    rig.apply(policy())
    assert conditions(await rig.status())["Stalled"] == "False"
    assert [reason for _, reason in rig.told] == ["AllCompliant", "UnsupportedSpec", "AllCompliant"]


async def test_vms_that_wait_are_enqueued_and_a_lost_one_stalls_policy():
    scene = VmScene(policy(datapaths=("vhost",), existing="Rolling"), restart_timeout=timedelta(seconds=-1))
    for name in ("a", "b"):
        scene.add(name, nic(model="e1000e"))
        await scene.look(name)
    scene.remove("virtualmachineinstances", "a")
    await scene.look("a")
    scene.asked_for()
    await scene.policies.reconcile("all")
    assert scene.asked_for() == ["b", "a"]
    (stalled,) = (one for one in scene.get("vmnicpolicies", "all", "")["status"]["conditions"] if one["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "VmDidNotComeBack")


async def test_policy_reports_a_cluster_without_kubevirt():
    rig = Rig(policy())
    rig.world.machines.absent = True
    (ready,) = [one for one in (await rig.status())["conditions"] if one["type"] == "Ready"]
    assert (ready["status"], ready["reason"], "install KubeVirt" in ready["message"]) == ("False", "KubeVirtAbsent", True)
