"""What a change waits for in the kernel, which is a carrier before rates, and drivers of VFs that load late."""

import pytest

from tests.builders.agent import Node, desired
from tests.builders.host import PF, pf, sim_host
from tests.harness.faults import Fault, When
from vmnic.api.node_state import ApplyState, VfGroup, VfSettings
from vmnic.host.ops import LoadModule, ReadFile, ReadLink, ReadLinks, ReadVfs
from vmnic.nodes.planning.actions import admin_mac

RATED = desired(settings=VfSettings(vlan=100, max_tx_rate_mbps=100))
NAMED = VfSettings(mac_prefix="02:11:22")
VFS = "/sys/bus/pci/devices/0000:0b:1"


def after_looks(node, looks, matches, change):
    """Change something in the kernel after the given number of reads."""
    left = iter([*[False] * looks, True])

    def watch(op):
        if matches(op) and next(left, False):
            change()
        return False

    node.port.faults.append(Fault(when=When.ERRNO, matches=watch))


def plug(node, plugged):
    node.sim.control({"set_cable": {"link": "ens11", "plugged": plugged}})


def is_carrier(op):
    return isinstance(op, ReadFile) and op.path.endswith("/carrier")


def is_driver(op):
    return isinstance(op, ReadLink) and op.path.startswith(VFS) and op.path.endswith("/driver")


def links(node):
    """Return the attributes of the PF's VFs, and their links in order."""
    found = {link.pci_address: link for link in node.sim.perform(ReadLinks())}
    return node.sim.perform(ReadVfs(found[PF].name)), [link for address, link in sorted(found.items()) if address != PF]


async def test_a_rate_is_set_on_a_pf_whose_link_was_down(tmp_path):
    node = Node(sim_host(pf(up=False)), tmp_path)
    status = await node.grant_and_run(RATED)
    assert status.apply.state is ApplyState.APPLIED
    assert {vf.max_tx_rate_mbit for vf in links(node)[0]} == {100}


async def test_a_carrier_is_awaited_before_a_rate_is_set(tmp_path):
    node = Node(sim_host(pf(cable=False)), tmp_path)
    after_looks(node, 3, is_carrier, lambda: plug(node, True))
    assert (await node.grant_and_run(RATED)).apply.state is ApplyState.APPLIED


async def test_a_missing_carrier_is_reported_with_its_remedy(tmp_path):
    node = Node(sim_host(pf(cable=False)), tmp_path)
    began = node.clock
    status = await node.grant_and_run(RATED)
    assert status.problem.message.startswith(f"{PF}: SetVfs: ENETDOWN (ens11 has no carrier after 10 s): ")
    assert "connect the port, or leave minTxRateMbps and maxTxRateMbps out" in status.problem.message
    assert round(node.clock - began) == 10


async def test_rates_that_are_already_set_need_no_carrier(tmp_path):
    node = Node(sim_host(pf(cable=False)), tmp_path)
    unlimited = desired(settings=VfSettings(vlan=100, max_tx_rate_mbps=0))
    assert (await node.grant_and_run(unlimited)).apply.state is ApplyState.APPLIED
    assert not any(map(is_carrier, node.port.log))


async def test_vf_links_have_the_addresses_that_a_pool_asks_for(tmp_path):
    node = Node(sim_host(pf(up=False)), tmp_path)
    status = await node.grant_and_run(desired(driver="kernel", settings=NAMED))
    infos, vfs = links(node)
    assert status.apply.state is ApplyState.APPLIED
    assert (
        [vf.mac for vf in vfs]
        == [vf.mac for vf in infos]
        == [admin_mac("02:11:22", "52:54:00:00:0b:01", index) for index in range(7)]
    )


async def test_vf_links_with_a_driver_get_their_new_addresses(tmp_path):
    node = Node(sim_host(), tmp_path)
    await node.grant_and_run(desired(driver="kernel"))
    status = await node.grant_and_run(desired(driver="kernel", settings=NAMED))
    infos, vfs = links(node)
    assert status.apply.state is ApplyState.APPLIED
    assert [vf.mac for vf in vfs] == [vf.mac for vf in infos]
    assert {vf.mac[:8] for vf in vfs} == {"02:11:22"}


async def test_addresses_of_a_returned_whole_pf_use_its_new_link(tmp_path):
    node = Node(sim_host(), tmp_path)
    group = VfGroup(pool="fast", resource="vmnic.dev/fast")
    await node.grant_and_run(desired(num_vfs=0, function="Physical", groups=(group,)))
    assert (await node.grant_and_run(desired(settings=NAMED))).apply.state is ApplyState.APPLIED


@pytest.mark.parametrize("settings", [None, NAMED], ids=["bound by the kernel", "bound after their address is set"])
async def test_a_vf_driver_that_loads_late_is_awaited(tmp_path, settings):
    node = Node(sim_host(modules=("igb",), available_modules=("igbvf",)), tmp_path)
    after_looks(node, 20, is_driver, lambda: node.sim.perform(LoadModule("igbvf")))
    status = await node.grant_and_run(desired(driver="kernel", settings=settings))
    assert (status.apply.state, status.vfs[0].driver) == (ApplyState.APPLIED, "igbvf")


async def test_a_missing_vf_driver_is_reported_with_its_remedy(tmp_path):
    node = Node(sim_host(modules=("igb",)), tmp_path)
    began = node.clock
    status = await node.grant_and_run(desired(driver="kernel"))
    message = f"{PF}: BindVfs kernel: ETIMEDOUT (0000:0b:10.0 did not bind to kernel; it has no driver): "
    assert status.problem.message.startswith(f"{message}load the VF driver")
    assert round(node.clock - began) == 10
