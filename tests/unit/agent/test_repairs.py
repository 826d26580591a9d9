"""What was granted is brought back by the node alone, also where the first try fails; what fails for good is left alone longer."""

import errno

import pytest

from tests.builders.agent import Node, desired
from tests.builders.host import PF, sim_host
from vmnic.host.faults import Fault, When
from vmnic.host.ops import ReadFile, ReadLink, SetLink, WriteFile
from vmnic.nodes.state import PfReason

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


async def test_a_node_without_the_controller_boots_to_the_granted_state_though_a_write_fails_once(node):
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


async def test_a_second_change_by_hand_in_the_middle_of_a_repair_is_put_back_too(node):
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


async def test_a_repair_that_fails_each_time_is_tried_ever_more_seldom_and_at_once_when_granted(node):
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


async def test_what_heals_by_itself_after_a_failure_is_brought_back_after_a_reboot(node):
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


async def test_what_failed_on_the_way_to_something_else_does_not_go_back_to_what_was_granted_before(node):
    await node.grant_and_run(desired())
    refuse(node, "drivers_probe", 1000)
    await node.grant_and_run(desired(num_vfs=3))
    node.port.faults.clear()
    node.api.ask(desired())
    node.clock += 1000
    status = await node.run_pass()
    assert (status.num_vfs, status.plan.actions[-1].value) == (3, "vfio-pci")
