"""Hardware that is stuck, lost or unsuitable.

It gives a reason with PF, action, errno and remedy, and no capacity.
"""

import asyncio
import errno

import pytest

from tests.builders.agent import Node, RecordingDevices, desired
from tests.builders.host import OTHER_PF, PF, pf, sim_host
from tests.harness.faults import Fault, When
from vmnic.agent.kubelet.podresources import HoldersUnknownError
from vmnic.api.node_state import ApplyState, VfSettings
from vmnic.api.reasons import PfReason
from vmnic.host.launch import WorkerGoneError
from vmnic.host.ops import (
    ListDir,
    LoadModule,
    PutFile,
    ReadFile,
    ReadLinks,
    SetChannels,
    SetLink,
    SetVf,
    UnloadModule,
    WriteFile,
)
from vmnic.inspection.modules import load_modules, refused_modules
from vmnic.simhost.spec import HostSpec

VIRTFN = "0000:0b:10.0"


@pytest.fixture
def node(tmp_path):
    return Node(sim_host(pf(PF), pf(OTHER_PF)), tmp_path)


def refuse(node, code, kind, *words):
    """Let the kernel refuse the operations of a kind that contain all these words."""
    matches = lambda op: isinstance(op, kind) and all(word in str(op) for word in words)  # noqa: E731
    node.port.faults.append(Fault(when=When.ERRNO, errno=code, matches=matches))


FIRMWARE = (errno.EIO, WriteFile, "sriov_numvfs")
REFUSALS = {
    "a firmware error": (FIRMWARE, {}, "SetNumVfs 7: EIO", "update the firmware"),
    "a read-only sysfs": ((errno.EROFS, WriteFile, "autoprobe"), {}, "SetAutoprobe 0: EROFS", "mount it writable"),
    "an AppArmor profile": ((errno.EACCES, WriteFile, "numvfs"), {}, "SetNumVfs 7: EACCES", "apparmor-unconfined"),
    "no capability": ((errno.EPERM, SetLink), {"mtu": 9000}, "SetMtu 9000: EPERM", "as the manifests do"),
    "no room": ((errno.ENOMEM, WriteFile, "numvfs"), {}, "SetNumVfs 7: ENOMEM", "pci=realloc"),
    "VFs of another program": ((errno.EBUSY, WriteFile, "numvfs"), {}, "SetNumVfs 7: EBUSY", "remove the function from"),
    "an old driver": ((errno.ENOENT, WriteFile, "numvfs"), {}, "SetNumVfs 7: ENOENT", "persistence: ModuleOptions"),
    "an MTU too large": ((errno.EINVAL, SetLink), {"mtu": 9000}, "SetMtu 9000: EINVAL", "lower spec.mtu"),
    "queues too many": ((errno.EINVAL, SetChannels), {"queues": 1}, "SetQueues 1: EINVAL", "lower spec.queues"),
    "an unknown attribute": (
        (errno.EOPNOTSUPP, SetVf), {"settings": VfSettings(trust=True)}, "SetVfs: EOPNOTSUPP", "leave it out of spec.vf",
    ),
    "a link that has gone": ((errno.ENODEV, SetLink), {"mtu": 9000}, "SetMtu 9000: ENODEV", "check the hardware"),
    "a full disk": (
        (errno.ENOSPC, PutFile), {"persistence": "ModuleOptions"}, "WriteModuleOptions igb max_vfs=7: ENOSPC", "free it",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("fault", "changes", "step", "remedy"), REFUSALS.values(), ids=REFUSALS)
async def test_a_refusal_is_reported_with_action_errno_and_remedy(node, fault, changes, step, remedy):
    refuse(node, *fault)
    status = await node.grant_and_run(desired(**changes))
    assert status.apply.state is ApplyState.FAILED
    assert status.problem.reason in (PfReason.APPLY_FAILED, PfReason.NO_MMIO_SPACE)
    assert status.problem.message.startswith(f"{PF}: {step}")
    assert remedy in status.problem.message
    assert "Traceback" not in status.problem.message


async def test_a_failed_change_is_not_repeated_without_a_grant(node):
    refuse(node, *FIRMWARE)
    await node.grant_and_run(desired())
    node.port.faults.clear()
    del node.port.log[:]
    await node.run_pass()
    assert node.port.writes == []


async def test_a_driver_that_does_not_bind_a_vf_is_reported(node):
    refuse(node, errno.ENODEV, WriteFile, "drivers_probe", VIRTFN)
    status = await node.grant_and_run(desired())
    assert "BindVfs vfio-pci: ENODEV" in status.problem.message


@pytest.mark.parametrize(
    ("spec", "reason", "remedy"),
    [
        (HostSpec(pfs=(pf(no_vf_space=True),)), PfReason.NO_MMIO_SPACE, "pci=realloc"),
        (HostSpec(pfs=(pf(),), iommu=False), PfReason.IOMMU_OFF, "intel_iommu=on"),
        (HostSpec(pfs=(pf(),), modules=("igb",)), PfReason.MODULE_MISSING, "modules-load.d"),
    ],
    ids=["no MMIO room", "no IOMMU", "no vfio-pci"],
)
async def test_what_the_machine_lacks_is_found_before_any_write(tmp_path, spec, reason, remedy):
    node = Node(sim_host(*spec.pfs, iommu=spec.iommu, modules=spec.modules), tmp_path)
    node.api.ask(desired())
    status = await node.run_pass()
    assert (status.problem.reason, status.plan, node.written) == (reason, None, [])
    assert remedy in status.problem.message


async def test_a_module_refused_by_secure_boot_is_named_with_its_errno(node, tmp_path):
    refuse(node, errno.EKEYREJECTED, LoadModule)
    load_modules(node.port, ["sctp"], tmp_path)
    node.refused = refused_modules(tmp_path)
    node.restart_agent()
    node.api.ask(desired(), modules=("vhost_net", "tun", "sctp"))
    await node.run_pass()
    degraded = next(one for one in node.api.state.status.conditions if one.type == "Degraded")
    assert (degraded.status, degraded.reason) == ("True", "ModuleMissing")
    assert "sctp: EKEYREJECTED" in degraded.message


async def test_a_hung_write_stops_writes_while_other_pfs_are_observed(node):
    node.port.faults.append(
        Fault(when=When.HANG, matches=lambda op: isinstance(op, WriteFile) and f"{PF}/sriov_numvfs" in op.path)
    )
    node.api.ask(desired(), desired(OTHER_PF))
    plans = [one.plan.digest for one in (await node.agent.run(node.api.state)).pfs]
    node.api.ask(desired(grant=plans[0]))
    await node.run_pass()
    node.api.ask(desired(), desired(OTHER_PF, grant=plans[1]))
    del node.port.log[:]
    stuck, other = (await node.agent.run(node.api.state)).pfs
    assert (stuck.problem.reason, other.problem.reason) == (PfReason.PCI_BUS_STUCK,) * 2
    assert stuck.problem.message.startswith(
        f"{PF}: WriteFile(path='/sys/bus/pci/devices/{PF}/sriov_numvfs', text='7') did not return"
    )
    assert "or reboot the node" in stuck.problem.message
    assert f"answered a write to {PF}" in other.problem.message
    assert (other.total_vfs, other.num_vfs) == (7, 0)
    assert node.port.writes == []
    assert f"{PF}/sriov_numvfs" not in str(node.port.log)


async def test_a_hung_read_makes_only_its_pf_unreadable(node):
    await node.grant_and_run(desired())
    hang = Fault(when=When.HANG, matches=lambda op: isinstance(op, ReadFile) and f"{PF}/sriov_numvfs" in op.path)
    node.port.faults.append(hang)
    first, other = (await node.agent.run(node.api.state)).pfs
    assert (first.problem.reason, first.num_vfs) == (PfReason.UNREADABLE, 7)
    assert (other.problem, other.total_vfs) == (None, 7)


async def test_a_hung_dump_of_links_is_tried_once_and_reported(node):
    hang = Fault(when=When.HANG, matches=lambda op: isinstance(op, ReadLinks))
    node.api.ask(desired())
    plan = (await node.run_pass()).plan
    # The hang starts with the claim, which stays the API's last state until the host can be read again.
    node.api.when_written = lambda _: node.port.faults.append(hang)
    node.api.ask(desired(grant=plan.digest))
    status = await node.run_pass()
    assert (status.num_vfs, status.apply.state) == (0, ApplyState.FAILED)
    ready = node.api.state.status.conditions[0]
    assert (ready.status, "the kernel does not answer: ReadLinks" in ready.message) == ("False", True)
    del node.port.log[:]
    await node.run_pass()
    assert node.port.log == []
    node.port.faults.clear()
    node.agent._looker._hung.returned.set_result(None)
    node.agent._runner.calls.silent[PF].set_result(None)
    assert (await node.run_pass()).problem.reason is PfReason.APPLY_FAILED


UNREADABLE_HOST = {
    "the list of devices": lambda op: isinstance(op, ListDir) and op.path == "/sys/bus/pci/devices",
    "the boot id": lambda op: isinstance(op, ReadFile) and op.path.endswith("boot_id"),
    "links": lambda op: isinstance(op, ReadLinks),
}


@pytest.mark.parametrize("reads", UNREADABLE_HOST.values(), ids=UNREADABLE_HOST)
async def test_an_unreadable_host_is_reported_and_offers_no_devices(node, reads):
    node.devices = RecordingDevices()
    node.restart_agent()
    await node.grant_and_run(desired())
    assert node.devices.faults == {PF: ""}
    node.port.faults.append(Fault(when=When.ERRNO, errno=errno.EACCES, matches=reads))
    with pytest.raises(PermissionError):
        await node.run_pass()
    ready = node.api.state.status.conditions[0]
    assert (ready.status, ready.message.startswith("the host cannot be read: EACCES")) == ("False", True)
    assert "mount the host's /sys" in ready.message
    assert node.devices.faults == {PF: f"{PF} does not answer"}
    node.port.faults.clear()
    await node.run_pass()
    assert (node.api.state.status.conditions[0].status, node.devices.faults) == ("True", {PF: ""})


async def test_a_worker_that_is_gone_is_reported(node):
    await node.grant_and_run(desired())
    node.host.dead = "observe"
    with pytest.raises(WorkerGoneError):
        await node.run_pass()
    assert "the session's child for observe ended" in node.api.state.status.conditions[0].message


async def test_a_pf_lost_during_another_change_is_withdrawn_at_once(node, monkeypatch):
    monkeypatch.setattr("vmnic.agent.reconciler._IDLE_REFRESH_S", 0.01)
    node.devices = RecordingDevices()
    node.restart_agent()
    node.api.ask(desired(), desired(OTHER_PF))
    plans = [one.plan.digest for one in (await node.agent.run(node.api.state)).pfs]
    node.api.ask(desired(), desired(OTHER_PF, grant=plans[1]))
    await node.agent.run(node.api.state)
    node.api.ask(desired(grant=plans[0]), desired(OTHER_PF))
    node.host.gate = asyncio.Event()
    running = asyncio.create_task(node.agent.run(node.api.state))
    await wait_until(lambda: node.api.state.status.pfs[0].apply is not None)
    reports = len(node.api.written)
    await wait_until(lambda: node.devices.faults == {OTHER_PF: ""})
    assert len(node.api.written) == reports, "nothing has changed that is worth a report"
    node.sim.control({"remove_device": OTHER_PF})
    await wait_until(lambda: node.api.state.status.pfs[1].problem is not None)
    first, second = node.api.state.status.pfs
    assert (first.apply.state, second.problem.reason) == (ApplyState.CLAIMED, PfReason.VANISHED)
    assert node.devices.faults == {OTHER_PF: f"{OTHER_PF} is not on the bus"}
    assert not running.done()
    node.host.gate.set()
    first, second = (await running).pfs
    assert (first.num_vfs, first.apply.state, second.problem.reason) == (7, ApplyState.APPLIED, PfReason.VANISHED)


async def wait_until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_child_that_dies_makes_only_its_pf_unreadable(node):
    await node.run_pass()
    node.host.dead = PF
    first, other = (await node.agent.run(node.api.state)).pfs
    assert (first.problem.reason, other.problem) == (PfReason.UNREADABLE, None)


async def test_unknown_holders_are_reported_if_a_plan_needs_them(node):
    await node.grant_and_run(desired())
    node.holders.read = _no_kubelet
    node.api.ask(desired(num_vfs=3))
    plan = (await node.run_pass()).plan
    node.api.ask(desired(num_vfs=3, grant=plan.digest))
    assert (await node.run_pass()).num_vfs == 7
    assert "the kubelet does not tell; VFs are not changed meanwhile" in node.api.state.status.conditions[0].message


async def _no_kubelet():
    raise HoldersUnknownError("the kubelet does not tell")


async def test_a_vanished_pf_keeps_its_facts_but_has_no_capacity(node):
    await node.grant_and_run(desired())
    node.sim.control({"remove_device": PF})
    status = await node.run_pass()
    assert (status.problem.reason, status.num_vfs, status.name) == (PfReason.VANISHED, 0, "ens11")
    assert node.api.state.status.conditions[0].status == "False"


async def test_a_pf_that_vanishes_during_its_change_fails_the_change(node):
    gone = []

    def vanish(op):
        if isinstance(op, WriteFile) and op.path == "/sys/bus/pci/drivers_probe" and not gone:
            gone.append(PF)
            node.sim.control({"remove_device": PF})
        return False

    node.port.faults.append(Fault(when=When.BEFORE, matches=vanish))
    status = await node.grant_and_run(desired())
    assert (status.problem.reason, status.apply.state) == (PfReason.VANISHED, ApplyState.FAILED)


async def test_a_pf_is_restored_after_a_reboot(node):
    await node.grant_and_run(desired())
    node.sim.control({"reboot": None})
    status = await node.run_pass()
    assert (status.num_vfs, status.problem) == (7, None)


async def test_a_vf_that_lost_its_driver_gets_it_back(node):
    await node.grant_and_run(desired())
    node.sim.perform(WriteFile("/sys/bus/pci/drivers/vfio-pci/unbind", VIRTFN))
    status = await node.run_pass()
    assert [(part.range, part.driver) for part in status.vfs] == [("0-6", "vfio-pci")]
    assert status.apply.state is ApplyState.APPLIED


async def test_a_renamed_link_still_belongs_to_the_same_pf(node):
    await node.grant_and_run(desired(mtu=9000))
    node.sim.control({"rename_link": {"link": "ens11", "name": "ens11np0"}})
    node.sim.perform(SetLink(name="ens11np0", mtu=1500))
    status = await node.run_pass()
    assert (status.name, status.mtu, status.num_vfs, status.plan) == ("ens11np0", 9000, 7, None)


def pull(node, *, plugged):
    node.sim.control({"set_cable": {"link": "ens11", "plugged": plugged}})


async def test_a_lost_carrier_is_reported_after_a_moment_and_a_restart(node):
    node.devices = RecordingDevices()
    node.restart_agent()
    await node.grant_and_run(desired())
    pull(node, plugged=False)
    assert (await node.run_pass()).problem is None, "a reset takes it away for a moment, too"
    node.clock += 5
    status = await node.run_pass()
    assert (status.problem.reason, node.devices.faults) == (PfReason.CARRIER_LOST, {PF: "no carrier"})
    assert status.problem.message == f"ens11 ({PF}) has lost its carrier: check the cable, the transceiver and the switch port"
    assert node.api.state.status.conditions[0].status == "False"
    node.restart_agent()
    assert (await node.run_pass()).problem.reason is PfReason.CARRIER_LOST
    pull(node, plugged=True)
    assert ((await node.run_pass()).problem, node.devices.faults) == (None, {PF: ""})


async def test_a_port_that_never_had_a_carrier_has_not_lost_it(node):
    pull(node, plugged=False)
    await node.grant_and_run(desired())
    node.clock += 100
    assert (await node.run_pass()).problem is None


async def test_a_link_in_another_netns_keeps_its_vfs_and_is_reported(node):
    await node.grant_and_run(desired(mtu=9000))
    node.sim.control({"move_link": "ens11"})
    status = await node.run_pass()
    assert (status.num_vfs, status.problem.reason) == (7, PfReason.LINK_ELSEWHERE)


async def test_a_link_in_another_netns_is_withdrawn_without_a_plan(node):
    node.devices = RecordingDevices()
    node.restart_agent()
    await node.grant_and_run(desired())
    node.sim.control({"move_link": "ens11"})
    status = await node.run_pass()
    assert (status.problem.reason, status.problem.message.startswith(f"the link of {PF} is in another network namespace")) == (
        PfReason.LINK_ELSEWHERE, True,
    )  # fmt: skip
    assert node.api.state.status.conditions[0].status == "False"
    assert node.devices.faults == {PF: f"the link of {PF} is in another network namespace"}


async def test_a_driver_that_needs_no_reload_is_never_unloaded(node):
    await node.grant_and_run(desired(persistence="ModuleOptions"))
    assert not any(isinstance(op, UnloadModule) for op in node.port.log)
