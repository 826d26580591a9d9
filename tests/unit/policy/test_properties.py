"""Properties that hold for any VM, any policies and any cluster."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.decide import apply_patches, decide, decision, patches
from tests.builders.scene import scene
from tests.builders.vm import kubevirt, nad, nic, node_state, policy, pool, vm
from vmnic.policy.types import Action, Verdict

SEEDS = st.integers(0, 2**32)


@given(seed=SEEDS)
def test_a_decision_does_not_depend_on_the_order_of_objects(seed):
    documents = scene(seed)
    shuffled = random.Random(seed).sample(documents, len(documents))
    assert decision(*shuffled) == decision(*documents)


@given(seed=SEEDS)
def test_every_verdict_has_a_reason_and_a_message(seed):
    for one in decision(*scene(seed)).nics:
        assert (one.verdict is Verdict.NOT_SELECTED) == (one.policy is None)
        assert (one.verdict is Verdict.CHANGE) == (one.action is not None)
        assert one.wanted == one.nic.present or one.verdict in (Verdict.CHANGE, Verdict.BLOCKED)
        assert one.verdict is not Verdict.BLOCKED or (one.reason and one.message)
        assert sum(candidate.finding is None for candidate in one.candidates) <= 1
        assert all(candidate.finding.message for candidate in one.candidates if candidate.finding)


@given(seed=SEEDS)
def test_a_decision_on_its_own_result_changes_nothing(seed):
    documents = scene(seed)
    before = decision(*documents)
    after = apply_patches(documents)
    again = decision(*after)
    assert patches(*after)["web"] == []
    changed = {one.nic.name: one.wanted for one in before.nics if one.action is Action.PATCH}
    for one in again.nics:
        if one.nic.name in changed:
            assert (one.verdict, one.nic.present) == (Verdict.COMPLIANT, changed[one.nic.name])


FAST = nad("fast", cni="sriov", resource="vmnic.dev/fast", segment="blue")
BRIDGE = nad("br", segment="blue")
RULE = policy(datapaths=["sriov", "vhost"], existing="Immediately")


def _vms(wishes):
    """Return VMs, each with a number of NICs that want a VF."""
    machines = []
    for number, count in enumerate(wishes):
        nics = [nic(f"n{i}", binding="bridge", network="br") for i in range(count)]
        machines.append(vm(f"v{number}", *nics))
        machines[-1]["metadata"]["creationTimestamp"] = f"2026-01-01T00:00:{number:02}Z"
    return machines


def _cluster(counts):
    return [RULE, FAST, BRIDGE, kubevirt(), pool(), *(node_state(f"n{i}", vfs=count) for i, count in enumerate(counts))]


def _with_vfs(documents):
    """Return the NICs that have a VF, by VM."""
    return {
        one["metadata"]["name"]: {
            nic["name"] for nic in one["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"] if "sriov" in nic
        }
        for one in documents
        if one["kind"] == "VirtualMachine"
    }


WISHES = st.lists(st.integers(1, 3), min_size=1, max_size=6)
COUNTS = st.lists(st.integers(0, 4), min_size=1, max_size=3)


@settings(max_examples=60)
@given(wishes=WISHES, counts=COUNTS)
def test_vfs_are_not_overcommitted_and_a_vms_fit_on_one_node(wishes, counts):
    given_vfs = _with_vfs(apply_patches([*_vms(wishes), *_cluster(counts)]))
    assert sum(map(len, given_vfs.values())) <= sum(counts)
    assert all(len(nics) <= max(counts) for nics in given_vfs.values())


@settings(max_examples=60)
@given(wishes=WISHES, counts=COUNTS, extra=st.integers(0, 4))
def test_a_change_of_capacity_takes_no_vf_from_a_vm(wishes, counts, extra):
    documents = apply_patches([*_vms(wishes), *_cluster(counts)])
    before = _with_vfs(documents)
    machines = [one for one in documents if one["kind"] == "VirtualMachine"]
    for other in ([*counts, extra], counts[:-1] or [0]):
        after = _with_vfs(apply_patches([*machines, *_cluster(other)]))
        assert all(before[name] <= after[name] for name in before)


@settings(max_examples=60)
@given(wishes=WISHES, counts=COUNTS)
def test_the_oldest_vm_is_served_first(wishes, counts):
    order = [
        one.vm.name
        for one in decide(*_vms(wishes), *_cluster(counts)).vms
        if any(nic.wanted.datapath == "sriov" for nic in one.nics)
    ]
    if max(counts) >= wishes[0]:
        assert "v0" in order
