"""Restart slots, namespaces, windows, and a VM that does not come back."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from tests.builders.vm import policy, vm, vmi
from vmnic.api.policy import VmNicPolicy
from vmnic.controller.vms.restart_budget import RestartBudget, advance_restart, mark_started
from vmnic.kube.reflector import ObjectKey
from vmnic.kubevirt.vm import VirtualMachine
from vmnic.kubevirt.vmi import VirtualMachineInstance
from vmnic.policy.rules import rules_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TEN = timedelta(minutes=10)
CLOSED = {"schedule": "0 0 1 1 *", "duration": "1m"}


def rule(**enforcement):
    body = policy("all")
    body["spec"]["enforcement"] = {"action": "Patch", "existingVMs": "Rolling", **enforcement}
    return rules_of([VmNicPolicy.model_validate(body)])[0]


def restart(instance="old"):
    return mark_started("d", "all", instance, NOW)


def key(name, namespace="a"):
    return ObjectKey(namespace, name)


def refusals(own, in_progress, matched=None):
    slots = RestartBudget()
    for one in in_progress:
        slots.note(one, restart())
    return slots.blocking_reason(key("next"), own, None, matched or {"a": 10, "b": 10})


@pytest.mark.parametrize(
    ("own", "in_progress", "word"),
    [
        (rule(), [], ""),
        (rule(), [key("x")], "maxUnavailable"),
        (rule(maxUnavailable=2), [key("x")], ""),
        (rule(maxUnavailable="10%"), [key("x")], ""),
        (rule(maxUnavailable="10%"), [key("x"), key("y")], "maxUnavailable"),
        (rule(maxUnavailable="11%"), [key("x"), key("y")], ""),
        (rule(maxUnavailable=5, maxUnavailablePerNamespace=1), [key("x", "b")], ""),
        (rule(maxUnavailable=5, maxUnavailablePerNamespace=1), [key("x")], "maxUnavailablePerNamespace"),
        (rule(window=CLOSED), [], "window is closed"),
        (rule(window={"schedule": "every night"}), [], "no cron expression"),
        (rule(window={"schedule": "0 2 * * *", "timeZone": "Mars/Base"}), [], "no time zone"),
    ],
    ids=["alone", "one at a time", "two at a time", "a share", "a share is full", "a share is rounded up", "another namespace", "the same namespace", "closed", "no cron", "no zone"],
)  # fmt: skip
def test_slot_is_given_within_the_limits(own, in_progress, word):
    found = refusals(own, in_progress)
    assert word in found
    assert bool(word) == bool(found)


def instance(uid, phase="Running"):
    body = vmi("web", phase=phase)
    body["metadata"]["uid"] = uid
    return msgspec.convert(body, VirtualMachineInstance)


def after(minutes, live, before=None, **options):
    machine = msgspec.convert(vm(**options), VirtualMachine)
    return advance_restart(before or restart(), machine, live, now=NOW + timedelta(minutes=minutes), restart_timeout=TEN)


@pytest.mark.parametrize(
    ("live", "minutes", "state"),
    [
        (instance("old"), 1, "Restarting"),
        (None, 1, "Restarting"),
        (instance("new", "Scheduling"), 1, "Restarting"),
        (instance("new"), 1, "Done"),
        (None, 11, "Failed"),
        (instance("old"), 11, "Failed"),
    ],
    ids=["not stopped yet", "stopped", "starting", "it runs", "it did not come back", "it was not stopped"],
)
def test_restart_is_done_once_another_instance_runs(live, minutes, state):
    assert after(minutes, live).state == state


@pytest.mark.parametrize(
    ("strategy", "live", "minutes", "state"),
    [
        ("Halted", None, 1, "Done"),
        ("Halted", instance("old"), 11, "Failed"),
        ("Manual", None, 1, "Restarting"),
        ("Manual", None, 11, "Done"),
        ("Manual", instance("new", "Scheduling"), 11, "Failed"),
        ("RerunOnFailure", None, 11, "Done"),
    ],
    ids=["halted", "halted and not stopped", "by hand", "left stopped", "it cannot start", "rerun only on failure"],
)
def test_vm_stopped_by_its_owner_holds_up_no_other(strategy, live, minutes, state):
    assert after(minutes, live, run_strategy=strategy).state == state


def test_vm_that_did_not_come_back_stops_the_rollout():
    slots, late = RestartBudget(), after(60, None)
    slots.note(key("lost"), late)
    assert "a/lost did not come back" in slots.blocking_reason(key("next"), rule(maxUnavailable=5), None, {"a": 10})
    assert slots.failed("all") == [key("lost")]
    assert slots.note(key("lost"), after(60, instance("new"), late))
    assert (slots.blocking_reason(key("next"), rule(), None, {"a": 10}), slots.failed("all")) == ("", [])


def test_free_slot_goes_to_the_next_vm_by_name():
    slots = RestartBudget()
    slots.note(key("busy"), restart())
    for name in ("z", "b", "y"):
        slots.wait("all", key(name))
    assert slots.next_waiting("all", 2) == [key("b"), key("y")]
