"""A change that cuts the node off is rolled back without the controller, and is not retried without a new grant."""

import errno

import msgspec
import pytest

from tests.builders.agent import Node, desired
from tests.builders.host import PF, pf, sim_host
from tests.builders.node import pool
from tests.harness.faults import Fault, Killed, When
from vmnic.agent.journal import JournalStore
from vmnic.api.node_state import ApplyState, VfSettings
from vmnic.api.reasons import PfReason
from vmnic.host.ops import CheckGateway, ReadFile, ReadLinks, ReadVfs, SetLink, WriteFile
from vmnic.nodes.rollout.ledger import Entry, NodeView, PoolLedger
from vmnic.nodes.rollout.progress import advance_ledger, is_stopped

UPLINK = desired(allow_host_used=True, rollback_timeout_s=30)


@pytest.fixture
def node(tmp_path):
    """A node whose only uplink loses its carrier as soon as it has VFs."""
    return Node(sim_host(pf(default_route=True, cut_by_vfs=True)), tmp_path)


def num_vfs(node):
    """Read the number of VFs from the simulated host."""
    return int(node.sim.perform(ReadFile(f"/sys/bus/pci/devices/{PF}/sriov_numvfs")))


async def granted(node, spec=UPLINK):
    node.api.ask(spec)
    plan = (await node.run_pass()).plan
    node.api.ask(msgspec.structs.replace(spec, grant=plan.digest))
    return plan


async def test_the_change_is_rolled_back_in_time_and_reported(node):
    began = node.clock
    status = await node.grant_and_run(UPLINK)
    assert (status.num_vfs, status.apply.state, status.problem.reason) == (0, ApplyState.ROLLED_BACK, PfReason.ROLLED_BACK)
    assert node.clock - began <= 31
    assert "gateway" in status.problem.message
    told = {one.type: one.status for one in node.api.state.status.conditions}
    assert (told["RolledBack"], told["Ready"]) == ("True", "False")


async def test_the_same_spec_is_not_retried_without_a_grant(node):
    await node.grant_and_run(UPLINK)
    del node.port.log[:]
    for _ in range(3):
        status = await node.run_pass()
    assert (node.port.writes, status.problem.reason, status.plan.digest != status.apply.digest) == (
        [],
        PfReason.ROLLED_BACK,
        True,
    )


async def test_a_new_grant_retries_the_change(node):
    status = await node.grant_and_run(UPLINK)
    node.sim.control({"heal": "ens11"})
    node.api.ask(msgspec.structs.replace(UPLINK, grant=status.plan.digest))
    status = await node.run_pass()
    assert (status.num_vfs, status.apply.state, status.problem) == (7, ApplyState.APPLIED, None)


async def test_another_spec_is_planned_without_the_old_problem(node):
    await node.grant_and_run(UPLINK)
    node.api.ask(msgspec.structs.replace(UPLINK, num_vfs=3))
    status = await node.run_pass()
    assert (status.problem, status.plan.actions[-1].value) == (None, "vfio-pci")


async def test_an_agent_killed_while_it_waits_rolls_back_at_restart(node):
    await granted(node)
    node.port.faults.append(Fault(when=When.BEFORE, matches=lambda op: isinstance(op, CheckGateway) and node.clock > 1010))
    with pytest.raises(Killed):
        await node.run_pass()
    assert num_vfs(node) == 7
    node.port.faults.clear()
    node.restart_agent()
    status = await node.run_pass()
    assert (status.num_vfs, status.apply.state) == (0, ApplyState.ROLLED_BACK)


async def test_a_rollback_needs_no_api_server(node):
    await granted(node)
    node.port.faults.append(Fault(when=When.AFTER, matches=lambda op: isinstance(op, WriteFile) and "numvfs" in op.path))
    with pytest.raises(Killed):
        await node.run_pass()
    node.port.faults.clear()
    node.restart_agent()
    node.api.away = True
    await node.agent.reconcile_offline()
    assert num_vfs(node) == 0
    node.api.away = False
    assert (await node.run_pass()).problem.reason is PfReason.ROLLED_BACK


async def test_a_target_that_was_unreachable_before_is_not_awaited(tmp_path):
    node = Node(sim_host(pf(default_route=True, cable=False)), tmp_path)
    status = await node.grant_and_run(UPLINK)
    assert (status.apply.state, status.num_vfs) == (ApplyState.APPLIED, 7)


async def test_a_rollback_does_not_wait_in_the_kernel_for_a_held_vf(node):
    await granted(node)
    held = []

    def start_a_vm(op):
        if isinstance(op, CheckGateway) and num_vfs(node) == 7 and not held:
            held.append(node.sim.control({"hold": "0000:0b:10.0"}))
        return False

    node.port.faults.append(Fault(when=When.BEFORE, matches=start_a_vm))
    status = await node.run_pass()
    assert (status.problem.reason, status.num_vfs) == (PfReason.APPLY_FAILED, 7)
    assert "cannot be undone yet: 0000:0b:10.0 is held" in status.problem.message
    node.port.faults.clear()
    node.sim.control({"release": "0000:0b:10.0"})
    status = await node.run_pass()
    assert (status.apply.state, status.num_vfs) == (ApplyState.ROLLED_BACK, 0)


async def test_a_failed_rollback_is_retried_and_never_ready_meanwhile(node):
    await granted(node)
    removal = lambda op: isinstance(op, WriteFile) and "numvfs" in op.path and op.text == "0"  # noqa: E731
    node.port.faults.append(Fault(when=When.ERRNO, errno=errno.EIO, matches=removal))
    for _ in range(2):
        status = await node.run_pass()
        assert (status.problem.reason, node.api.state.status.conditions[0].status) == (PfReason.APPLY_FAILED, "False")
    node.port.faults.clear()
    assert (await node.run_pass()).apply.state is ApplyState.ROLLED_BACK


async def test_a_change_is_not_repeated_while_its_rollback_is_pending(node):
    await granted(node, msgspec.structs.replace(UPLINK, mtu=9000))
    node.port.faults.append(
        Fault(when=When.ERRNO, errno=errno.EIO, matches=lambda op: isinstance(op, SetLink) and op.mtu == 1500)
    )
    for _ in range(3):
        status = await node.run_pass()
        assert (num_vfs(node), status.plan is None, status.problem.reason) == (0, False, PfReason.APPLY_FAILED)
    assert sum("numvfs=7" in one for one in node.written) == 1


@pytest.fixture
async def stranded(node):
    """Return a node whose rollback failed, and that is now reachable again by itself with the change in place."""
    await granted(node)
    removal = lambda op: isinstance(op, WriteFile) and "numvfs" in op.path and op.text == "0"  # noqa: E731
    node.port.faults.append(Fault(when=When.ERRNO, errno=errno.EIO, matches=removal))
    await node.run_pass()
    node.sim.control({"heal": "ens11"})
    node.restart_agent()
    return node


async def test_a_failed_rollback_fails_even_if_the_node_heals(stranded):
    status = await stranded.run_pass()
    assert (status.num_vfs, status.plan, status.apply.state) == (7, None, ApplyState.FAILED)
    view = NodeView(name="n1", state=stranded.api.state, current=True)
    started = Entry(generation=1, boot_id=view.state.status.boot_id, digests={PF: status.apply.digest})
    part = PoolLedger(entries={"n1": started})
    for _ in range(3):
        part = advance_ledger(part, pool(), [view], now=0)
        assert is_stopped(pool(), part)


@pytest.mark.parametrize("restarted", [False, True], ids=["the agent alone", "the whole node"])
async def test_a_pending_rollback_runs_as_soon_as_it_can(stranded, restarted):
    stranded.port.faults.clear()
    if restarted:
        stranded.sim.control({"reboot": None})
    status = await stranded.run_pass()
    assert (status.num_vfs, status.apply.state) == (0, ApplyState.ROLLED_BACK)
    assert (status.problem.reason, status.plan is None) == (PfReason.ROLLED_BACK, False)


async def test_a_granted_spec_that_cuts_the_node_off_is_not_restored(tmp_path):
    node = Node(sim_host(pf(default_route=True)), tmp_path)
    await node.grant_and_run(UPLINK)
    node.sim.control({"reboot": None})
    node.sim.control({"break_port": {"link": "ens11"}})
    assert (await node.run_pass()).apply.state is ApplyState.ROLLED_BACK
    del node.port.log[:]
    status = await node.run_pass()
    assert (status.num_vfs, status.problem.reason, node.port.writes) == (0, PfReason.ROLLED_BACK, [])


async def test_the_rollback_timeout_starts_after_the_last_write(node):
    slow = Fault(
        when=When.BEFORE, matches=lambda op: isinstance(op, WriteFile) and "numvfs" in op.path and pass_time(node, 120)
    )
    node.port.faults.append(slow)
    began = node.clock
    status = await node.grant_and_run(UPLINK)
    assert status.apply.state is ApplyState.ROLLED_BACK
    assert node.clock - began >= 120 + UPLINK.rollback_timeout_s


def pass_time(node, seconds):
    """Let an operation take the given seconds."""
    node.clock += seconds
    return False


async def test_a_rollback_restores_attributes_of_vfs(tmp_path):
    tagged = msgspec.structs.replace(desired(settings=VfSettings(vlan=100)), allow_host_used=True)
    node = Node(sim_host(pf(default_route=True)), tmp_path)
    await node.grant_and_run(tagged)
    node.sim.control({"break_port": {"link": "ens11", "works_with": 7}})
    status = await node.grant_and_run(msgspec.structs.replace(tagged, num_vfs=3))
    assert (status.apply.state, status.num_vfs) == (ApplyState.ROLLED_BACK, 7)
    assert {vf.vlan for vf in node.sim.perform(ReadVfs("ens11"))} == {100}


async def test_a_pf_that_the_host_started_to_use_is_left_alone(tmp_path):
    node = Node(sim_host(), tmp_path)
    await granted(node)
    node.api.before_claim = lambda: node.sim.control({"assign_address": {"link": "ens11", "address": "192.0.2.9/24"}})
    status = await node.run_pass()
    assert (status.apply.state, status.num_vfs) == (ApplyState.REFUSED, 0)


async def test_a_change_with_a_timed_out_read_is_rolled_back_too(node):
    await granted(node)
    hangs = iter([True])
    cut = Fault(when=When.HANG, matches=lambda op: isinstance(op, ReadLinks) and num_vfs(node) == 7 and next(hangs, False))
    node.port.faults.append(cut)
    await node.run_pass()
    record = JournalStore(node.directory).load().of(PF)
    assert (num_vfs(node), record.running, record.apply.state) == (0, None, ApplyState.ROLLED_BACK)


async def test_a_route_learnt_on_a_link_enabled_by_vmnic_may_disappear(tmp_path):
    node = Node(sim_host(pf(up=False, router=True)), tmp_path)
    await node.grant_and_run(desired(num_vfs=2))
    node.sim.control({"break_port": {"link": "ens11", "works_with": 2}})
    status = await node.grant_and_run(desired(num_vfs=3))
    assert (status.apply.state, status.num_vfs) == (ApplyState.APPLIED, 3)


async def test_a_route_learnt_on_the_hosts_own_link_must_return(tmp_path):
    node = Node(sim_host(pf(router=True, cut_by_vfs=True)), tmp_path)
    assert (await node.grant_and_run(UPLINK)).apply.state is ApplyState.ROLLED_BACK
