"""Rules with which udev creates VFs at boot, before the agent starts."""

import errno
from dataclasses import replace

import msgspec
import pytest

from tests.builders.agent import Node, desired
from tests.builders.host import OTHER_PF, PF, pf, sim_host
from tests.builders.node import observed, pf_spec
from tests.harness.faults import Fault, When
from vmnic.api.node_state import VfGroup, VfSettings
from vmnic.api.reasons import PfReason
from vmnic.host.ops import ListDir, PutFile, ReadFile
from vmnic.nodes.planning.actions import plan_actions
from vmnic.nodes.planning.drivers import gather_driver
from vmnic.nodes.planning.target import original_of, target_of, target_of_original

FILE = "/etc/udev/rules.d/70-vmnic-fast.rules"
HEAD = "# vmnic writes this file for the pool fast.\n"
THIRD = "0000:0d:00.0"


def rule(address=PF, count=7, *, driver="igb", autoprobe='ATTR{device/sriov_drivers_autoprobe}="0", '):
    match = f'SUBSYSTEM=="net", ACTION=="add", KERNELS=="{address}", DRIVERS=="{driver}", '
    return f'{match}{autoprobe}ATTR{{device/sriov_numvfs}}="{count}"\n'


def asked(address=PF, **changes):
    return desired(address, persistence="Udev", **changes)


@pytest.fixture
def node(tmp_path):
    return Node(sim_host(pf(), pf(OTHER_PF)), tmp_path)


async def run_all(node, *specs):
    """Grant every plan, and return the status by address."""
    node.api.ask(*specs)
    plans = {one.pci_address: one.plan for one in (await node.agent.run(node.api.state)).pfs}
    grants = {address: plan.digest for address, plan in plans.items() if plan is not None}
    node.api.ask(*(msgspec.structs.replace(one, grant=grants.get(one.pci_address)) for one in specs))
    return {one.pci_address: one for one in (await node.agent.run(node.api.state)).pfs}


async def test_a_pool_for_vms_has_a_rule_that_keeps_drivers_off(node):
    status = await node.grant_and_run(asked())
    assert (node.sim.file(FILE), status.num_vfs, status.plan, status.problem) == (HEAD + rule(), 7, None, None)


async def test_a_pool_for_pods_leaves_binding_to_the_kernel(node):
    await node.grant_and_run(asked(driver="kernel"))
    assert node.sim.file(FILE) == HEAD + rule(autoprobe="")


async def test_vfs_exist_after_a_reboot_before_the_agent_starts(node):
    await node.grant_and_run(asked())
    node.sim.control({"reboot": None})
    path = f"/sys/bus/pci/devices/{PF}"
    assert (node.sim.perform(ReadFile(f"{path}/sriov_numvfs")), node.sim.perform(ReadFile(f"{path}/sriov_drivers_autoprobe"))) == (
        "7", "0",
    )  # fmt: skip
    assert "driver" not in node.sim.perform(ListDir(f"{path}/virtfn0"))
    del node.port.log[:]
    status = await node.run_pass()
    assert ([(part.range, part.driver) for part in status.vfs], status.plan) == ([("0-6", "vfio-pci")], None)
    assert not [one for one in node.written if "numvfs" in one or "rules" in one]


async def test_a_nic_that_is_plugged_in_again_has_its_vfs(node):
    await node.grant_and_run(asked())
    node.sim.control({"remove_device": PF})
    node.sim.control({"add_device": PF})
    assert node.sim.perform(ReadFile(f"/sys/bus/pci/devices/{PF}/sriov_numvfs")) == "7"


async def test_no_name_of_a_pool_leads_to_another_file(node):
    status = await node.grant_and_run(msgspec.structs.replace(asked(), pool="../../tmp/x"))
    assert "EINVAL" in status.problem.message
    assert not [op for op in node.port.writes if isinstance(op, PutFile)]


async def test_another_number_of_vfs_replaces_the_rule(node):
    await node.grant_and_run(asked())
    await node.grant_and_run(asked(num_vfs=3))
    assert node.sim.file(FILE) == HEAD + rule(count=3)


@pytest.mark.parametrize(
    "after", [{"release": "Reset"}, {"persistence": "Agent"}], ids=["the pool is deleted", "another persistence"]
)
async def test_the_rule_goes_with_what_asked_for_it(node, after):
    await node.grant_and_run(asked())
    await node.grant_and_run(msgspec.structs.replace(asked(), **after))
    assert node.sim.file(FILE) == ""


async def test_the_functions_of_a_pool_share_its_file(node):
    await run_all(node, asked(), asked(OTHER_PF))
    assert node.sim.file(FILE) == HEAD + rule() + rule(OTHER_PF)
    found = await run_all(node, asked(release="Reset"), asked(OTHER_PF))
    assert node.sim.file(FILE) == HEAD + rule(OTHER_PF)
    assert found[OTHER_PF].problem is None


async def test_a_function_that_changes_its_pool_changes_its_file(node):
    await node.grant_and_run(asked())
    group = VfGroup(pool="slow", resource="vmnic.dev/slow")
    await node.grant_and_run(msgspec.structs.replace(asked(), pool="slow", groups=(group,), mtu=9000))
    assert node.sim.file(FILE) == ""
    assert rule() in node.sim.file("/etc/udev/rules.d/70-vmnic-slow.rules")


@pytest.mark.parametrize("text", [rule(count=2), rule().replace("\n", ', NAME="x"\n'), rule() + rule()])
async def test_a_rule_that_a_person_changed_is_written_again(node, text):
    await node.grant_and_run(asked())
    node.sim.control({"put_file": {"path": FILE, "text": text}})
    await node.run_pass()
    assert node.sim.file(FILE) == HEAD + rule()


async def test_a_rule_for_another_function_stays_in_the_file(node):
    node.sim.control({"put_file": {"path": FILE, "text": rule(THIRD)}})
    await node.grant_and_run(asked())
    assert node.sim.file(FILE) == HEAD + rule() + rule(THIRD)


async def test_without_the_overlay_the_message_names_it(node):
    node.port.faults.append(Fault(when=When.ERRNO, errno=errno.ENOENT, matches=lambda op: isinstance(op, PutFile)))
    status = await node.grant_and_run(asked())
    assert "use the overlay udev-rules" in status.problem.message


async def test_adopted_vfs_get_no_rule(node):
    await node.grant_and_run(desired())
    node.api.ask(asked(management="Adopt"))
    assert (await node.run_pass()).plan is None


def steps_of(spec, seen):
    driver = gather_driver(seen, [seen], [spec], {})
    return [
        action.value for action in plan_actions(target_of(spec, "", driver.udev_rules), seen) if action.kind == "WriteUdevRule"
    ]


def udev(**changes):
    return pf_spec(persistence="Udev", **changes)


@pytest.mark.parametrize(
    ("spec", "seen", "values"),
    [
        (udev(), observed(), ["fast igb 7 0"]),
        (udev(driver="kernel"), observed(), ["fast igb 7"]),
        (udev(num_vfs=0), observed(udev_rules=("fast igb 7 0",)), ["fast"]),
        (udev(), replace(observed(), driver="vfio-pci"), ["fast ?* 7 0"]),
        (udev(), observed(udev_rules=("fast ?* 7 0",)), []),
        (udev(), observed(udev_rules=("old igb 7 0", "fast igb 7 0")), ["old"]),
        (pf_spec(), observed(), []),
        (pf_spec(function="Physical", num_vfs=0), observed(udev_rules=("fast igb 7 0",)), ["fast"]),
    ],
    ids=["for VMs", "for pods", "no VFs", "a whole NIC before", "its rule", "of two pools", "by the agent", "a whole NIC"],
)
def test_a_function_has_the_rule_of_its_pool(spec, seen, values):
    assert steps_of(spec, seen) == values


def test_vfs_with_addresses_of_the_pool_are_bound_by_the_agent():
    settings = VfSettings(mac_prefix="02:aa:bb")
    group = VfGroup(pool="fast", resource="vmnic.dev/fast", driver="kernel", settings=settings)
    assert steps_of(udev(groups=(group,)), observed()) == ["fast igb 7 0"]


def test_a_rollback_restores_the_rule():
    before = original_of(observed(num_vfs=3, udev_rules=("fast igb 3 0",)))
    (step, *_) = plan_actions(target_of_original(before), observed(num_vfs=3, udev_rules=("fast igb 7 0",)))
    assert (step.kind, step.value) == ("WriteUdevRule", "fast igb 3 0")


ANOTHER = "/etc/udev/rules.d/60-nics.rules"


@pytest.mark.parametrize(
    ("line", "claims"),
    [
        ('ACTION=="add", SUBSYSTEM=="net", ENV{ID_NET_DRIVER}=="igb", ATTR{device/sriov_numvfs}="4"', True),
        ('ACTION=="add", SUBSYSTEM=="net", ENV{ID_NET_DRIVER}=="ice", ATTR{device/sriov_numvfs}="4"', False),
        ('ACTION=="add", SUBSYSTEM=="net", DRIVERS=="i40e|igb", ATTR{device/sriov_numvfs}="4"', True),
        ('SUBSYSTEM=="net", KERNEL=="ens1?", ATTR{device/sriov_numvfs}="4"', True),
        ('SUBSYSTEM=="net", KERNEL=="ens2", ATTR{device/sriov_numvfs}="4"', False),
        ('SUBSYSTEM=="net", KERNEL!="ens11", ATTR{device/sriov_numvfs}="4"', False),
        ('SUBSYSTEM=="pci", KERNEL=="0000:0b:00.0", ATTR{sriov_numvfs}="4"', True),
        ('SUBSYSTEM=="net", KERNELS=="0000:0c:00.0", ATTR{device/sriov_numvfs}="4"', False),
        ('SUBSYSTEM=="net", ENV{ID_PATH}=="pci-0000:0b:00.0", ATTR{device/sriov_numvfs}="4"', True),
        ('SUBSYSTEM=="net", ATTR{address}=="52:54:00:00:0b:01", \\\n  ATTR{device/sriov_numvfs}="4"', True),
        ('SUBSYSTEM=="net", TAG=="anything", ATTR{device/sriov_numvfs}="4"', True),
        ("RUN+=\"/bin/sh -c 'echo 4 > /sys/class/net/ens11/device/sriov_numvfs'\"", True),
        ("RUN+=\"/bin/sh -c 'echo 4 > /sys/class/net/ens2/device/sriov_numvfs'\"", False),
        ("RUN+=\"/bin/sh -c 'echo 4 > /sys/bus/pci/devices/0000:0c:00.0/sriov_numvfs'\"", False),
        ('# SUBSYSTEM=="net", ATTR{device/sriov_numvfs}="4"', False),
        ('SUBSYSTEM=="net", KERNELS=="0000:0b:00.0", NAME="lan0"', False),
    ],
)
async def test_a_rule_of_another_owner_claims_its_functions(node, line, claims):
    # Written by an administrator after the boot, so no VF exists yet.
    node.sim.control({"put_file": {"path": ANOTHER, "text": line + "\n"}})
    node.api.ask(desired())
    problem = (await node.run_pass()).problem
    assert (problem and problem.reason) == (PfReason.FOREIGN_OWNER if claims else None)
    assert not claims or ANOTHER in problem.message


async def test_a_file_that_cannot_be_read_may_claim_any_function(node):
    node.sim.control({"put_file": {"path": ANOTHER, "text": "x"}})
    node.port.faults.append(Fault(when=When.ERRNO, errno=errno.EACCES, matches=lambda op: op == ReadFile(ANOTHER)))
    node.api.ask(desired())
    problem = (await node.run_pass()).problem
    assert (problem.reason, f"{ANOTHER}: EACCES" in problem.message) == (PfReason.FOREIGN_OWNER, True)


async def test_a_file_that_only_looks_like_vmnics_is_anothers(node):
    node.sim.control({"put_file": {"path": "/etc/udev/rules.d/70-vmnic-a b.rules", "text": rule()}})
    node.api.ask(desired())
    assert (await node.run_pass()).problem.reason is PfReason.FOREIGN_OWNER
