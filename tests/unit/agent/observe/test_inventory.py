"""NICs of all kinds: without SR-IOV, with SR-IOV switched off, and with up to eight functions."""

import errno

import msgspec
import pytest

from tests.builders.agent import Node, desired
from tests.builders.host import OTHER_PF, PF, pf, sim_host
from tests.harness.faults import Fault, When
from vmnic.api.node_state import ApplyState, VfGroup
from vmnic.api.reasons import PfReason
from vmnic.host.ops import ReadFile
from vmnic.inspection.host_snapshot import read_snapshot
from vmnic.nodes.nics import nic_files
from vmnic.simhost.spec import profiles

PLAIN = [name for name, profile in profiles().items() if not profile.capability_vfs]
WHOLE = (VfGroup(pool="whole", resource="vmnic.dev/whole"),)


def whole(address=PF, **changes):
    return desired(address, num_vfs=0, function="Physical", groups=WHOLE, **changes)


@pytest.mark.parametrize("profile", PLAIN)
async def test_a_nic_without_sriov_is_listed(tmp_path, profile):
    node = Node(sim_host(pf(profile=profile)), tmp_path)
    status = await node.run_pass()
    assert (status.name, status.model, status.total_vfs, status.problem) == ("ens11", profile, 0, None)
    assert (status.driver, status.queues) == (profiles()[profile].driver, None)


@pytest.mark.parametrize("profile", PLAIN)
async def test_a_nic_without_sriov_is_passed_on_and_released(tmp_path, profile):
    node = Node(sim_host(pf(profile=profile)), tmp_path)
    taken = await node.grant_and_run(whole())
    assert (taken.apply.state, taken.driver, taken.plan, taken.problem) == (ApplyState.APPLIED, "vfio-pci", None, None)
    given_back = await node.grant_and_run(whole(release="Reset"))
    assert (given_back.driver, given_back.owned) == (profiles()[profile].driver, False)
    assert not any("sriov" in write for write in node.written)


async def test_a_plain_nic_that_the_host_uses_is_not_taken(tmp_path):
    node = Node(sim_host(pf(profile="RTL8125", default_route=True)), tmp_path)
    node.api.ask(whole())
    assert (await node.run_pass()).problem.reason is PfReason.HOST_USED


async def test_vfs_are_no_nics_of_their_own(tmp_path):
    node = Node(sim_host(pf(vfs=7), pf(OTHER_PF, profile="82574L")), tmp_path)
    assert [one.pci_address for one in (await node.agent.run(node.api.state)).pfs] == [PF, OTHER_PF]


@pytest.mark.parametrize(
    ("profile", "off", "reason", "words"),
    [
        ("ConnectX-6 Dx", True, PfReason.FIRMWARE_SRIOV_OFF, "model ConnectX-6 Dx, offers no VFs: set SRIOV_EN=1 and NUM_OF_VFS with mlxconfig"),
        ("ConnectX-3", True, PfReason.FIRMWARE_SRIOV_OFF, "mlxconfig"),
        ("E810", True, PfReason.FIRMWARE_SRIOV_OFF, "model E810, offers no VFs: enable SR-IOV in the machine's BIOS"),
        ("82574L", False, PfReason.TOO_MANY_VFS, "model 82574L, has no SR-IOV: choose another NIC"),
        ("RTL8125", False, PfReason.TOO_MANY_VFS, "function: Physical"),
    ],
)  # fmt: skip
async def test_vfs_of_a_nic_that_offers_none_name_the_remedy(tmp_path, profile, off, reason, words):
    node = Node(sim_host(pf(profile=profile, sriov_off=off)), tmp_path)
    node.api.ask(desired())
    status = await node.run_pass()
    assert (status.problem.reason, status.plan) == (reason, None)
    assert words in status.problem.message, status.problem.message


async def test_a_nic_with_sriov_off_can_be_passed_on_whole(tmp_path):
    node = Node(sim_host(pf(profile="E810", sriov_off=True)), tmp_path)
    assert (await node.grant_and_run(whole())).driver == "vfio-pci"


@pytest.mark.parametrize("management", ["Managed", "Adopt"])
async def test_no_vfs_asked_for_is_no_problem(tmp_path, management):
    node = Node(sim_host(pf(profile="82574L")), tmp_path)
    node.api.ask(desired(num_vfs=0, management=management))
    assert (await node.run_pass()).problem is None


async def test_adopting_from_a_nic_with_sriov_off_names_it(tmp_path):
    node = Node(sim_host(pf(profile="E810", sriov_off=True)), tmp_path)
    node.api.ask(desired(management="Adopt"))
    assert (await node.run_pass()).problem.reason is PfReason.FIRMWARE_SRIOV_OFF


async def test_an_unreadable_total_is_not_the_absence_of_sriov(tmp_path):
    node = Node(sim_host(), tmp_path)
    await node.run_pass()
    matches = lambda op: isinstance(op, ReadFile) and "sriov_totalvfs" in op.path  # noqa: E731
    node.port.faults.append(Fault(when=When.ERRNO, errno=errno.EIO, matches=matches))
    node.api.ask(desired())
    assert (await node.run_pass()).problem.reason is PfReason.UNREADABLE


async def test_a_nic_that_goes_while_it_is_read_does_not_lack_sriov(tmp_path):
    node = Node(sim_host(pf(), pf(OTHER_PF)), tmp_path)
    reads = []

    def is_second_look(op):
        """Match the second read of the vendor, and let the number of VFs vanish with it."""
        reads.extend([op] * (isinstance(op, ReadFile) and op.path.endswith(f"{PF}/vendor")))
        return isinstance(op, ReadFile) and op.path.startswith(f"/sys/bus/pci/devices/{PF}/") and (
            op.path.endswith("sriov_totalvfs") or (op.path.endswith("/vendor") and len(reads) > 1)
        )  # fmt: skip

    node.port.faults.append(Fault(when=When.ERRNO, errno=errno.ENOENT, matches=is_second_look))
    seen = await read_snapshot(node.host, leave_out=())
    assert ([one.pci_address for one in seen.pfs], list(seen.unreadable)) == ([OTHER_PF], [PF])


@pytest.mark.parametrize("function", range(8))
async def test_a_port_with_any_function_number_gets_vfs(tmp_path, function):
    address = f"0000:89:00.{function}"
    node = Node(sim_host(pf(address)), tmp_path)
    status = await node.grant_and_run(desired(address, num_vfs=2, driver="kernel"))
    assert (status.pci_address, status.num_vfs, status.apply.state) == (address, 2, ApplyState.APPLIED)


async def test_four_ports_of_one_nic_get_vfs(tmp_path):
    ports = [f"0000:89:00.{port}" for port in range(4)]
    node = Node(sim_host(*(pf(one, profile="I350", name=f"eno{one[-1]}") for one in ports)), tmp_path)
    wanted = [desired(one, num_vfs=3) for one in ports]
    node.api.ask(*wanted)
    planned = (await node.agent.run(node.api.state)).pfs
    granted = [msgspec.structs.replace(one, grant=pf.plan.digest) for one, pf in zip(wanted, planned, strict=True)]
    node.api.ask(*granted)
    assert [one.num_vfs for one in (await node.agent.run(node.api.state)).pfs] == [3] * 4


async def test_ports_share_the_number_of_their_device(tmp_path):
    (tmp_path / "nics.yaml").write_text(
        '- {model: X, vendor: "8086", pf: ["1572"], vf: ["154c"], driver: i40e, maxVfs: 80, maxVfsPer: Device}'
    )
    nic_files.add(tmp_path / "nics.yaml")
    ports = ("0000:3b:00.0", "0000:3b:00.1")
    node = Node(sim_host(*(pf(one, profile="X710", name=f"a{one[-1]}") for one in ports)), tmp_path)
    node.api.ask(*(desired(one, num_vfs=60) for one in ports))
    first, second = (await node.agent.run(node.api.state)).pfs
    nic_files.reset()
    assert (first.problem, "create 60 VFs" in first.plan.text) == (None, True)
    assert "supports 20 VFs (maxVfs of X in the NIC data is 80 for all ports together)" in second.problem.message
