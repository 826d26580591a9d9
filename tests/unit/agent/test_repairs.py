"""A granted spec is restored without the controller, even if the first attempt fails. Repeated failures increase the delay."""

import errno

import pytest

from tests.builders.agent import Node, desired
from tests.builders.host import PF, sim_host
from tests.harness.faults import Fault, When
from vmnic.api.reasons import PfReason
from vmnic.host.ops import ReadFile, ReadLink, SetLink, WriteFile

NUM_VFS = f"/sys/bus/pci/devices/{PF}/sriov_numvfs"


@pytest.fixture
def node(tmp_path):
    return Node(sim_host(), tmp_path)


def refuse(node, name, times=1):
    """Let the kernel refuse the next writes to a file."""
    left = iter(range(times))
    matches = lambda op: isinstance(op, WriteFile) and op.path.endswith(name) and next(left, None) is not None  # noqa: E731
    node.port.faults.append(Fault(when=When.ERRNO, errno=errno.EIO, matches=matches))


def reboot(node):
    node.sim.control({"reboot": None})
    node.restart_agent()


async def test_a_boot_without_the_controller_survives_a_failed_write(node):
    await node.grant_and_run(desired())
    reboot(node)
    node.api.away = True
    refuse(node, "sriov_numvfs")
    await node.agent.reconcile_offline()
    assert node.sim.perform(ReadFile(NUM_VFS)) == "0"
    await node.agent.reconcile_offline()
    assert node.sim.perform(ReadFile(NUM_VFS)) == "0", "it is left alone for a moment"
    node.clock += 10
    await node.agent.reconcile_offline()
    assert node.sim.perform(ReadFile(NUM_VFS)) == "7"


async def test_a_manual_change_during_a_repair_is_reverted_too(node):
    await node.grant_and_run(desired(mtu=9000))
    node.sim.perform(WriteFile("/sys/bus/pci/drivers/vfio-pci/unbind", "0000:0b:10.2"))
    meddled = []

    def meddle(op):
        if isinstance(op, WriteFile) and op.path.endswith("drivers_probe") and not meddled:
            meddled.append(node.sim.perform(SetLink(name="ens11", mtu=1500)))
        return False

    node.port.faults.append(Fault(when=When.BEFORE, matches=meddle))
    assert (await node.run_pass()).problem.reason is PfReason.APPLY_FAILED
    node.clock += 10
    status = await node.run_pass()
    assert (status.mtu, status.plan, status.problem) == (9000, None, None)


async def test_a_failing_repair_backs_off_until_it_is_granted(node):
    await node.grant_and_run(desired())
    refuse(node, "drivers_probe", 1000)
    node.sim.perform(WriteFile("/sys/bus/pci/drivers/vfio-pci/unbind", "0000:0b:10.2"))
    del node.port.log[:]
    for _ in range(720):
        node.clock += 5
        status = await node.run_pass()
    probes = [one for one in node.written if one.startswith("drivers_probe")]
    assert 10 < len(probes) < 25, "in an hour"
    node.port.faults.clear()
    node.api.ask(desired(grant=status.plan.digest))
    assert (await node.run_pass()).plan is None


async def test_a_spec_reached_after_a_failure_is_restored_at_boot(node):
    refuse(node, "drivers_probe")
    assert (await node.grant_and_run(desired())).problem.reason is PfReason.APPLY_FAILED
    for index in range(7):
        vf = node.sim.perform(ReadLink(f"/sys/bus/pci/devices/{PF}/virtfn{index}")).rsplit("/", 1)[-1]
        node.sim.perform(WriteFile(f"/sys/bus/pci/devices/{vf}/driver_override", "vfio-pci"))
        node.sim.perform(WriteFile("/sys/bus/pci/drivers_probe", vf))
    assert (await node.run_pass()).problem is None
    reboot(node)
    node.api.away = True
    await node.agent.reconcile_offline()
    assert node.sim.perform(ReadFile(NUM_VFS)) == "7"


async def test_a_failed_change_does_not_return_to_the_spec_before(node):
    await node.grant_and_run(desired())
    refuse(node, "drivers_probe", 1000)
    await node.grant_and_run(desired(num_vfs=3))
    node.port.faults.clear()
    node.api.ask(desired())
    node.clock += 1000
    status = await node.run_pass()
    assert (status.num_vfs, status.plan.actions[-1].value) == (3, "vfio-pci")
