"""Drivers that create VFs only at load time.

The agent writes options to disk and reloads the driver, but never while one of its PFs is in use.
"""

from dataclasses import replace

import pytest

from tests.builders.agent import Node, desired
from tests.builders.host import OTHER_PF, PF, pf, sim_host
from tests.builders.node import observed
from vmnic.api.reasons import PfReason
from vmnic.checked.data_files import DataFileError
from vmnic.nodes.nics import nic_files
from vmnic.nodes.observed import ObservedVf
from vmnic.nodes.planning.drivers import gather_driver

OLD = """
- {model: 82576-old, vendor: "8086", pf: ["10e6"], vf: ["10ca"], driver: igb, vfDriver: igbvf, maxVfs: 7, vfGuests: [linux], parameter: max_vfs, countBy: parameter}
"""
CONF = "/etc/modprobe.d/vmnic-igb.conf"
TWO_OLD_PORTS = (pf(profile="82576-old"), pf(OTHER_PF, profile="82576-old"))


@pytest.fixture(autouse=True)
def old_models(tmp_path):
    (tmp_path / "nics.yaml").write_text(OLD)
    nic_files.add(tmp_path / "nics.yaml")
    yield
    nic_files.reset()


def asked(address=PF, num_vfs=7, **changes):
    return desired(address, num_vfs=num_vfs, persistence="ModuleOptions", **changes)


async def test_vfs_of_an_old_driver_are_created_by_its_options(tmp_path):
    node = Node(sim_host(pf(profile="82576-old")), tmp_path)
    status = await node.grant_and_run(asked())
    assert (status.num_vfs, status.plan, status.problem) == (7, None, None)
    assert node.sim.file(CONF) == "options igb max_vfs=7\n"
    assert [(part.range, part.driver) for part in status.vfs] == [("0-6", "vfio-pci")]


async def test_vfs_exist_after_a_reboot_before_the_agent_starts(tmp_path):
    node = Node(sim_host(pf(profile="82576-old")), tmp_path)
    await node.grant_and_run(asked())
    node.sim.control({"reboot": None})
    seen = await node.run_pass()
    assert (seen.num_vfs, seen.plan) == (7, None)
    assert not any("UnloadModule" in str(op) for op in node.port.log[-40:])


async def test_a_released_pool_removes_options_and_reloads_the_driver(tmp_path):
    node = Node(sim_host(pf(profile="82576-old")), tmp_path)
    await node.grant_and_run(asked())
    status = await node.grant_and_run(asked(release="Reset"))
    assert (status.num_vfs, status.owned, node.sim.file(CONF)) == (0, False, "")


async def test_a_driver_with_numvfs_gets_options_and_no_reload(tmp_path):
    node = Node(sim_host(), tmp_path)
    status = await node.grant_and_run(asked())
    assert (status.num_vfs, node.sim.file(CONF)) == (7, "options igb max_vfs=7\n")
    assert "UnloadModule" not in str(node.port.log)


async def test_a_mlx4_nic_gets_vfs_by_its_own_parameter(tmp_path):
    node = Node(sim_host(pf(profile="ConnectX-3")), tmp_path)
    status = await node.grant_and_run(asked(num_vfs=4))
    assert (status.num_vfs, status.plan, status.problem) == (4, None, None)
    assert node.sim.file("/etc/modprobe.d/vmnic-mlx4_core.conf") == "options mlx4_core num_vfs=4\n"
    assert "UnloadModule" in str(node.port.log)


async def test_a_driver_without_a_parameter_gets_no_options(tmp_path):
    node = Node(sim_host(pf(profile="X710")), tmp_path)
    node.api.ask(asked())
    status = await node.run_pass()
    assert (status.problem.reason, status.plan) == (PfReason.MODULE_OPTIONS_UNSUPPORTED, None)
    assert status.problem.message.startswith("i40e, the driver of ens11")
    assert "persistence: Agent" in status.problem.message


async def test_a_reload_spares_a_port_without_sriov_of_the_driver(tmp_path):
    (tmp_path / "nics.yaml").write_text(OLD + '- {model: plain, vendor: "8086", pf: ["10c9"], driver: igb}\n')
    nic_files.add(tmp_path / "nics.yaml")
    node = Node(sim_host(pf(profile="82576-old"), pf(OTHER_PF, sriov_off=True)), tmp_path)
    node.api.ask(asked())
    problem = (await node.run_pass()).problem
    assert (problem.reason, f"{OTHER_PF} belongs to no pool" in problem.message) == (PfReason.DRIVER_IN_USE, True)


async def test_a_reload_restores_link_state_and_values(tmp_path):
    node = Node(sim_host(pf(profile="82576-old")), tmp_path)
    await node.grant_and_run(asked(num_vfs=3, mtu=9000))
    status = await node.grant_and_run(asked(num_vfs=5, mtu=9000))
    assert (status.num_vfs, status.mtu, status.apply.state, status.plan) == (5, 9000, "Applied", None)


async def test_an_old_driver_without_options_names_the_needed_setting(tmp_path):
    node = Node(sim_host(pf(profile="82576-old")), tmp_path)
    node.api.ask(desired())
    status = await node.run_pass()
    assert status.problem.reason is PfReason.MODULE_OPTIONS_NEEDED
    assert "persistence: ModuleOptions" in status.problem.message


@pytest.mark.parametrize(
    ("other", "spec", "words"),
    [
        ({"addresses": ("192.0.2.1/24",)}, asked(OTHER_PF), "address 192.0.2.1/24"),
        ({}, None, "belongs to no pool"),
        ({}, asked(OTHER_PF, num_vfs=3), "3 VFs"),
    ],
    ids=["the host uses the other port", "the other port is in no pool", "the other port wants another number"],
)
async def test_an_old_driver_in_use_on_its_other_port_is_not_reloaded(tmp_path, other, spec, words):
    node = Node(sim_host(pf(profile="82576-old"), pf(OTHER_PF, profile="82576-old", **other)), tmp_path)
    node.api.ask(*(one for one in (asked(), spec) if one is not None))
    status = await node.run_pass()
    assert (status.problem.reason, status.plan) == (PfReason.DRIVER_IN_USE, None)
    assert words in status.problem.message


async def test_two_ports_of_an_old_driver_become_ready_with_one_reload(tmp_path):
    node = Node(sim_host(*TWO_OLD_PORTS), tmp_path)
    specs = [asked(), asked(OTHER_PF)]
    for _ in range(3):
        node.api.ask(*specs)
        plans = {one.pci_address: one.plan for one in (await node.agent.run(node.api.state)).pfs}
        granted = [asked(one.pci_address, grant=plans[one.pci_address] and plans[one.pci_address].digest) for one in specs]
        node.api.ask(*granted)
        seen = (await node.agent.run(node.api.state)).pfs
    assert [(one.num_vfs, one.plan, one.problem) for one in seen] == [(7, None, None)] * 2
    assert sum("UnloadModule" in str(op) for op in node.port.writes) == 1
    assert (node.fence.ever, node.fence.closed) == ({PF, OTHER_PF}, set())


async def test_a_holder_at_the_last_moment_prevents_the_reload(tmp_path):
    node = Node(sim_host(*TWO_OLD_PORTS), tmp_path)
    node.api.ask(asked(num_vfs=0), asked(OTHER_PF, num_vfs=0))
    node.api.before_claim = lambda: node.sim.control({"assign_address": {"link": "ens12", "address": "192.0.2.1/24"}})
    node.api.ask(asked(), asked(OTHER_PF))
    digest = (await node.run_pass()).plan.digest
    node.api.ask(asked(grant=digest), asked(OTHER_PF))
    status = await node.run_pass()
    assert (status.apply.state, status.num_vfs) == ("Refused", 0)
    assert "UnloadModule" not in str(node.port.log)


def test_malformed_nic_data_is_refused_with_its_field(tmp_path):
    (tmp_path / "bad.yaml").write_text("- {model: 1}")
    with pytest.raises(DataFileError, match="model"):
        nic_files.add(tmp_path / "bad.yaml")


def test_a_port_that_could_not_be_read_keeps_its_driver():
    seen = observed(driver_functions=(PF, "0000:05:00.0"))
    assert gather_driver(seen, [seen], [asked()], {}).in_use == ("0000:05:00.0 uses this driver too, and was not read",)


def test_own_vfs_on_the_same_driver_do_not_prevent_a_reload():
    vfs = (ObservedVf(index=0, pci_address="0000:0b:10.0", driver="igb"),)
    seen = replace(observed(driver_functions=(PF, "0000:0b:10.0")), num_vfs=1, vfs=vfs)
    assert gather_driver(seen, [seen], [asked()], {}).in_use == ()


def test_a_macvtap_on_another_port_keeps_the_driver_loaded():
    own = observed(macvtaps=("pod a/own holds ens1f0Mvp0",))
    other = replace(own, pci_address=OTHER_PF, macvtaps=("pod a/other holds ens1f1Mvp0",))
    wanted = [asked(), asked(OTHER_PF)]
    assert gather_driver(own, (own, other), wanted, {}).in_use == (f"{OTHER_PF}: pod a/other holds ens1f1Mvp0",)
