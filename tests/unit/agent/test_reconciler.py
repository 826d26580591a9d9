"""The agent's pass, from one state to the next, with every write to the host counted."""

import errno

import msgspec
import pytest

from tests.builders.agent import Node, desired
from tests.builders.host import OTHER_PF, PF, pf, sim_host
from tests.harness.faults import Fault, Killed, When
from vmnic.api.node_state import ApplyState, NodeStatus, VfGroup, VfSettings, wire
from vmnic.api.reasons import PfReason
from vmnic.host.ops import ReadLink, WriteFile, is_write


@pytest.fixture
def node(tmp_path):
    return Node(sim_host(), tmp_path)


async def test_nothing_is_written_without_a_grant(node):
    node.api.ask(desired())
    status = await node.run_pass()
    assert [f"{a.kind} {a.value}" for a in status.plan.actions] == ["SetAutoprobe 0", "SetNumVfs 7", "BindVfs vfio-pci"]
    assert node.written == []


async def test_nothing_is_planned_before_the_first_sync(node):
    node.api.ask(synced=False)
    status = await node.run_pass()
    assert status.plan is None
    assert node.api.state.status.conditions[0].reason == "NotSynced"


async def test_a_grant_is_not_claimed_if_the_spec_is_no_longer_synced(node):
    node.api.ask(desired())
    planned = await node.run_pass()
    node.api.ask(granted := msgspec.structs.replace(desired(), grant=planned.plan.digest))
    seen = node.api.state
    node.api.ask(granted, synced=False)
    await node.agent.run(seen)
    assert (node.written, [one for one in node.api.written if one.pfs[0].apply is not None]) == ([], [])


async def test_a_granted_plan_is_applied_and_read_back(node):
    status = await node.grant_and_run(desired())
    assert (status.num_vfs, status.plan, status.problem) == (7, None, None)
    assert [(part.range, part.driver) for part in status.vfs] == [("0-6", "vfio-pci")]
    assert status.apply.state is ApplyState.APPLIED
    assert node.api.state.status.conditions[0].status == "True"


async def test_a_second_pass_writes_nothing_anywhere(node):
    await node.grant_and_run(desired())
    host_writes, reports = len(node.port.writes), len(node.api.written)
    await node.run_pass()
    assert (len(node.port.writes), len(node.api.written)) == (host_writes, reports)


async def test_a_lagging_watch_causes_no_second_report(node):
    node.api.ask(desired())
    behind = node.api.state
    await node.agent.run(behind)
    reports = len(node.api.written)
    await node.agent.run(behind)
    assert len(node.api.written) == reports


async def test_a_watch_that_lags_at_the_claim_causes_no_second_report(node):
    shown = []
    node.api.when_written = lambda _: shown.append(node.api.state)
    await node.grant_and_run(desired())
    claimed = shown[-1]
    assert claimed.status.pfs[0].apply.state is ApplyState.CLAIMED
    reports = len(node.api.written)
    for state in (claimed, node.api.state, node.api.state):
        await node.agent.run(state)
    assert len(node.api.written) == reports


async def test_a_change_of_the_count_goes_through_zero(node):
    await node.grant_and_run(desired())
    del node.port.log[:]
    status = await node.grant_and_run(desired(num_vfs=3))
    assert status.num_vfs == 3
    assert [write for write in node.written if write.startswith("sriov_numvfs")] == ["sriov_numvfs=0", "sriov_numvfs=3"]


async def test_a_held_vf_blocks_the_plan_and_names_its_holder(node):
    await node.grant_and_run(desired())
    node.holders.names["0000:0b:10.6"] = "pod tenants/virt-launcher-db"
    node.sim.control({"hold": "0000:0b:10.6"})
    node.api.ask(desired(num_vfs=3))
    status = await node.run_pass()
    assert status.plan.disruptive
    assert status.plan.blocked_by == ("pod tenants/virt-launcher-db holds 0000:0b:10.6",)
    node.sim.control({"release": "0000:0b:10.6"})
    node.holders.names.clear()
    assert not (await node.run_pass()).plan.disruptive


async def test_a_vf_taken_before_the_first_write_refuses_the_change(node):
    await node.grant_and_run(desired())
    node.api.before_claim = lambda: node.sim.control({"hold": "0000:0b:10.0"})
    status = await node.grant_and_run(desired(num_vfs=3))
    assert status.apply.state is ApplyState.REFUSED
    assert status.num_vfs == 7


async def test_a_grant_revoked_during_the_claim_starts_nothing(node):
    node.api.before_claim = lambda: node.api.ask(desired())
    await node.grant_and_run(desired())
    assert node.written == []


async def test_a_used_grant_cannot_be_used_again(node):
    await node.grant_and_run(desired())
    spec = node.api.state.spec.pfs[0]
    await node.grant_and_run(desired(num_vfs=0))
    del node.port.log[:]
    node.api.ask(spec)
    status = await node.run_pass()
    assert status.plan is not None
    assert node.written == []


async def test_a_reboot_is_repaired_without_a_new_grant(node):
    await node.grant_and_run(desired())
    node.sim.control({"reboot": None})
    status = await node.run_pass()
    assert (status.num_vfs, status.plan) == (7, None)


async def test_no_change_starts_without_the_api_server(node):
    node.api.ask(desired())
    digest = (await node.run_pass()).plan.digest
    node.api.ask(desired(grant=digest))
    state, node.api.away = node.api.state, True
    with pytest.raises(Exception, match="away"):
        await node.agent.run(state)
    assert node.written == []


@pytest.mark.parametrize(
    ("host", "reason", "remedy"),
    [
        (sim_host(iommu=False), PfReason.IOMMU_OFF, "intel_iommu=on"),
        (sim_host(pf(shares_iommu_group=True)), PfReason.IOMMU_GROUP_SHARED, "ACS"),
        (sim_host(pf(addresses=("192.0.2.1/24",))), PfReason.HOST_USED, "exclude it"),
        (sim_host(pf(default_route=True)), PfReason.HOST_USED, "default route"),
    ],
    ids=["no IOMMU", "a shared IOMMU group", "the node's address", "the default route"],
)
async def test_an_unsuitable_pf_has_a_reason_and_a_remedy(tmp_path, host, reason, remedy):
    node = Node(host, tmp_path)
    node.api.ask(desired())
    status = await node.run_pass()
    assert status.problem.reason is reason
    assert remedy in status.problem.message
    assert status.plan is None


async def test_more_vfs_than_the_nic_supports_are_refused(node):
    node.api.ask(desired(num_vfs=8))
    assert (await node.run_pass()).problem.reason is PfReason.TOO_MANY_VFS


async def test_a_refused_write_fails_the_change_with_action_and_errno(node):
    node.port.faults.append(
        Fault(when=When.ERRNO, errno=errno.EIO, matches=lambda op: isinstance(op, WriteFile) and "numvfs" in op.path)
    )
    status = await node.grant_and_run(desired())
    assert status.apply.state is ApplyState.FAILED
    assert "SetNumVfs 7: EIO" in status.problem.message
    node.port.faults.clear()
    del node.port.log[:]
    await node.run_pass()
    assert node.written == []


async def test_a_hung_write_stops_every_further_write(node):
    node.port.faults.append(Fault(when=When.HANG, matches=lambda op: isinstance(op, WriteFile) and "numvfs" in op.path))
    status = await node.grant_and_run(desired())
    assert status.problem.reason is PfReason.PCI_BUS_STUCK
    del node.port.log[:]
    await node.run_pass()
    assert not [op for op in node.port.log if PF in getattr(op, "path", "") and "numvfs" in op.path]


async def test_an_earlier_agents_write_is_awaited_without_new_reports(node):
    node.host.in_flight = True
    status = await node.grant_and_run(desired())
    assert (status.apply.state, status.problem.reason) == (ApplyState.REFUSED, PfReason.WRITE_STILL_IN_FLIGHT)
    reports = len(node.api.written)
    await node.run_pass()
    assert (len(node.api.written), node.written) == (reports, [])
    node.host.in_flight = False
    assert (await node.run_pass()).problem is None


async def test_drift_is_restored_once_an_earlier_write_returns(node):
    await node.grant_and_run(desired())
    node.sim.control({"reboot": None})
    node.host.in_flight = True
    status = await node.run_pass()
    assert status.problem.reason is PfReason.WRITE_STILL_IN_FLIGHT
    reports = len(node.api.written)
    await node.run_pass()
    assert len(node.api.written) == reports
    node.host.in_flight = False
    assert (await node.run_pass()).num_vfs == 7


async def test_a_damaged_journal_stops_every_write(node):
    node.api.ask(desired())
    digest = (await node.run_pass()).plan.digest
    (node.directory / "journal.json").write_text('{"version": 1, "pfs":')
    node.api.ask(desired(grant=digest))
    await node.run_pass()
    assert node.written == []
    assert "damaged" in node.api.state.status.conditions[0].message


async def test_a_newer_journal_stops_every_write(node):
    (node.directory / "journal.json").write_text('{"version": 2, "pfs": {}}')
    await node.grant_and_run(desired())
    assert node.written == []
    assert "upgrade the agent" in node.api.state.status.conditions[0].message


async def test_a_full_disk_stops_every_write_and_is_reported(node):
    node.api.ask(desired())
    digest = (await node.run_pass()).plan.digest
    (node.directory / "journal.new").symlink_to("/dev/full")
    node.api.ask(desired(grant=digest))
    await node.run_pass()
    assert node.written == []
    assert "free the state directory" in node.api.state.status.conditions[0].message
    (node.directory / "journal.new").unlink()
    assert (await node.run_pass()).num_vfs == 7


async def test_a_boot_restores_the_granted_spec_without_the_controller(node):
    await node.grant_and_run(desired(mtu=9000))
    node.sim.control({"reboot": None})
    node.restart_agent()
    node.api.away = True
    await node.agent.reconcile_offline()
    node.api.away = False
    status = await node.run_pass()
    assert (status.num_vfs, status.mtu, status.plan) == (7, 9000, None)


async def test_a_spec_without_a_pool_is_not_restored_at_boot(node):
    await node.grant_and_run(desired())
    node.api.ask()
    await node.agent.run(node.api.state)
    node.sim.control({"reboot": None})
    del node.port.log[:]
    node.api.away = True
    await node.agent.reconcile_offline()
    assert node.port.writes == []


async def test_an_earlier_agents_write_blocks_changes_of_every_pf(tmp_path):
    node = Node(sim_host(pf(PF), pf(OTHER_PF)), tmp_path)
    await node.grant_and_run(desired())
    node.host.in_flight = True
    node.restart_agent()
    node.api.ask(desired(), desired(OTHER_PF))
    digest = (await node.agent.run(node.api.state)).pfs[1].plan.digest
    node.api.ask(desired(), desired(OTHER_PF, grant=digest))
    del node.port.log[:]
    other = (await node.agent.run(node.api.state)).pfs[1]
    assert (node.port.writes, other.problem.reason) == ([], PfReason.WRITE_STILL_IN_FLIGHT)


async def test_every_published_status_fits_the_crd(tmp_path):
    ports = [pf(f"0000:{bus:02x}:00.0", addresses=tuple(f"192.0.2.{n}/32" for n in range(1, 99))) for bus in (0x0B, 0x0C)]
    node = Node(sim_host(*ports), tmp_path)
    node.refused = tuple(f"module{n}: EKEYREJECTED (Key was rejected by service)" for n in range(12))
    node.restart_agent()
    groups = tuple(VfGroup(pool=f"pool-{n}", resource=f"vmnic.dev/pool-{n}", range=str(n)) for n in range(7))
    node.api.ask(desired(groups=groups), desired(OTHER_PF, groups=groups, allow_host_used=True, mtu=9000, queues=2))
    status = await node.agent.run(node.api.state)
    assert msgspec.convert(wire(status), NodeStatus) == status
    assert [one.problem.reason if one.problem else None for one in status.pfs] == [PfReason.HOST_USED, None]


async def test_the_longest_list_of_vfs_fits_the_crd(tmp_path):
    node = Node(sim_host(pf(profile="X540")), tmp_path)
    settings = VfSettings(vlan=5)
    await node.grant_and_run(desired(num_vfs=63, settings=settings))
    for index in range(0, 63, 2):
        node.sim.control({"hold": node.sim.perform(ReadLink(f"/sys/bus/pci/devices/{PF}/virtfn{index}")).rpartition("/")[2]})
    node.api.ask(desired(num_vfs=63, settings=VfSettings(vlan=6)))
    status = await node.agent.run(node.api.state)
    assert msgspec.convert(wire(status), NodeStatus) == status
    assert len(status.pfs[0].plan.actions[0].value) > 64


async def test_an_agent_restart_is_distinguished_from_a_reboot(node):
    boot = node.api.state.status.boot_id
    await node.grant_and_run(desired())
    first = node.api.state.status.boot_id
    node.restart_agent()
    await node.run_pass()
    again = node.api.state.status.boot_id
    node.sim.control({"reboot": None})
    await node.run_pass()
    assert (boot, again == first, node.api.state.status.boot_id == first) == ("", True, False)


@pytest.mark.parametrize(
    ("path", "text"),
    [("/sys/bus/pci/drivers/vfio-pci/unbind", "0000:0b:10.2"), (f"/sys/bus/pci/devices/{PF}/sriov_numvfs", "0")],
    ids=["a VF unbound", "all VFs removed"],
)
async def test_a_manual_change_is_reverted_unless_a_vf_is_held(node, path, text):
    await node.grant_and_run(desired())
    node.sim.perform(WriteFile(path, text))
    assert (await node.run_pass()).plan is None
    node.sim.control({"hold": "0000:0b:10.4"})
    node.sim.perform(WriteFile(f"/sys/bus/pci/devices/{PF}/sriov_drivers_autoprobe", "1"))
    writes = len(node.port.writes)
    node.api.ask(desired(num_vfs=3))
    status = await node.run_pass()
    assert (len(node.port.writes), status.plan.disruptive) == (writes, True)


def claimed(node):
    """Return the digest that the agent claimed last, for whose end the ledger waits."""
    runs = [status.pfs[0].apply for status in node.api.written if status.pfs[0].apply]
    return next(run.digest for run in reversed(runs) if run.state is ApplyState.CLAIMED)


async def interrupted(node, at_write):
    """Kill the agent at a write to the host, and start it again."""
    writes = [0]

    def nth(op):
        writes[0] += is_write(op)
        return is_write(op) and writes[0] == at_write

    node.port.faults.append(Fault(when=When.AFTER, matches=nth))
    with pytest.raises(Killed):
        await node.grant_and_run(desired())
    node.port.faults.clear()
    node.restart_agent()


async def test_an_interrupted_change_with_another_spec_is_refused(node):
    await interrupted(node, 2)
    node.api.ask(desired(num_vfs=2))
    status = await node.run_pass()
    assert (status.apply.state, status.apply.digest, status.num_vfs) == (ApplyState.REFUSED, claimed(node), 7)
    assert status.plan is not None


async def test_an_interrupted_change_that_is_now_impossible_fails(node):
    await interrupted(node, 2)
    node.sim.control({"assign_address": {"link": "ens11", "address": "192.0.2.1/24"}})
    status = await node.run_pass()
    assert (status.apply.state, status.problem.reason) == (ApplyState.FAILED, PfReason.HOST_USED)


async def test_use_learnt_on_a_link_enabled_by_vmnic_does_not_count(tmp_path):
    node = Node(sim_host(pf(up=False, router=True)), tmp_path)
    await node.grant_and_run(desired(num_vfs=3))
    status = await node.grant_and_run(desired(num_vfs=5))
    assert (status.num_vfs, status.problem, status.plan) == (5, None, None)


async def test_use_learnt_on_a_link_that_was_up_counts(tmp_path):
    node = Node(sim_host(pf(router=True)), tmp_path)
    node.api.ask(desired())
    status = await node.run_pass()
    assert status.problem is not None
    assert "address 2001:db8::7/64; default route" in status.problem.message


async def test_an_owned_pf_without_a_pool_is_reported(node):
    await node.grant_and_run(desired())
    node.api.ask()
    status = await node.run_pass()
    ready = node.api.state.status.conditions[0]
    assert (status.owned, ready.status) == (True, "True")
    assert f"no pool selects {PF} any more" in ready.message
