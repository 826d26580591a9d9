"""A policy's status, summed up from what was decided."""

from tests.builders.vm import policy
from vmnic.api.policy import VmNicPolicy
from vmnic.controller.reconcile.machines import NicNote
from vmnic.controller.reconcile.policies import summarise_policy
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
