"""A policy's status, summed up from what was decided."""

from datetime import timedelta

import msgspec

from tests.builders.vm import policy
from vmnic.api.policy import VmNicPolicy
from vmnic.controller.reconcile.machines import MachineReconciler, NicNote
from vmnic.controller.reconcile.policies import PolicyReconciler, summarise_policy
from vmnic.controller.world import World
from vmnic.kube.reflector import ObjectKey
from vmnic.policy.decision import Verdict


def note(verdict=Verdict.COMPLIANT, *, policy="all", datapath="vhost", reason="", restart=False, conflicts=()):
    return NicNote(
        nic="default", policy=policy, verdict=verdict, datapath=datapath, reason=reason, message="why",
        pending_restart=restart, conflicts_with=conflicts,
    )  # fmt: skip


def summary(**vms):
    notes = {ObjectKey("tenants", name): tuple(found) for name, found in vms.items()}
    return summarise_policy(VmNicPolicy.model_validate(policy()), notes)


def conditions(status):
    return {one.type: one.status for one in status.conditions}


def test_vms_are_counted_by_what_is_the_matter():
    status = summary(
        ok=[note()], change=[note(), note(Verdict.CHANGE, datapath="emulated")], blocked=[note(Verdict.BLOCKED, reason="GuestOsUnknown")],
        restart=[note(restart=True)], fought=[note(conflicts=("b",))], other=[note(policy="other")],
    )  # fmt: skip
    vms = status.vms
    assert (vms.matched, vms.compliant, vms.to_change, vms.blocked, vms.pending_restart, vms.conflicting) == (5, 3, 1, 1, 1, 1)
    assert status.nics_by_datapath == {"emulated": 1, "vhost": 5}
    assert conditions(status) == {
        "Ready": "True",
        "Compliant": "False",
        "Conflict": "True",
        "Reconciling": "False",
        "Stalled": "False",
    }


def test_all_compliant_is_said():
    assert conditions(summary(a=[note()]))["Compliant"] == "True"
    assert conditions(summary())["Compliant"] == "True"


def test_at_most_ten_problems_are_told_in_a_stable_order():
    vms = {f"v{number:02}": [note(Verdict.BLOCKED, reason="GuestOsUnknown")] for number in range(20, 0, -1)}
    assert [problem.vm for problem in summary(**vms).problems] == [f"tenants/v{number:02}" for number in range(1, 11)]


def test_a_conflict_names_the_other_policy_and_the_remedy():
    problem = summary(a=[note(conflicts=("b",))]).problems[0]
    assert (problem.reason, "spec.priority" in problem.message) == ("Conflict", True)


class Recorder:
    """Keeps the status that is written and the Events that are told."""

    def __init__(self):
        self.status, self.told = {}, []

    async def patch_json(self, _resource, _name, body, **_more):
        self.status = body[0]["value"]

    def tell(self, subject, kind, reason, action, _note):
        self.told.append((subject.kind, subject.uid, kind, reason, action))


async def test_what_is_new_about_a_policy_is_told_as_an_event_of_it_and_once():
    seen, settle = Recorder(), timedelta(minutes=10)
    world = World(seen, lambda *_: None)
    for reflector in world.reflectors:
        reflector.synced.set()
    machines = MachineReconciler(world, seen, lambda *_: None, seen, comes_back=settle)
    reconciler = PolicyReconciler(world, seen, machines, lambda *_: None, seen)
    for found in (note(), note(Verdict.CHANGE), note(Verdict.BLOCKED), note(conflicts=("b",))):
        body = policy() | {"metadata": {"name": "all", "uid": "u1", "generation": 1}, "status": seen.status}
        world.policies._store(msgspec.Raw(msgspec.json.encode(body)))
        machines.notes[ObjectKey("tenants", "web")] = (found,)
        await reconciler.reconcile("all")
    assert [(kind, reason) for *_, kind, reason, _ in seen.told] == [
        ("Normal", "AllCompliant"), ("Normal", "NotCompliant"), ("Warning", "Conflict"), ("Normal", "AllCompliant"),
    ]  # fmt: skip
    assert {told[:2] + told[-1:] for told in seen.told} == {("VmNicPolicy", "u1", "Evaluate")}
