"""NIC data in offline plans, and NICs without SR-IOV in tables."""

import pytest

from tests.builders.decide import collect
from tests.builders.vm import node_state, pool
from vmnic.api.node_state import NodeNicState, NodeStatus, ObjectMeta, PfStatus
from vmnic.cli.offline import decide_all
from vmnic.cli.plan import make_plan
from vmnic.cli.render import show_nodes


def problems(*objects):
    found = collect(*objects)
    made = make_plan(found, decide_all(found, offline=True), [])
    return [one for one in made["problems"] if one["reason"] != "CapacityUnknown"], made


def told(*objects):
    return [(one["object"], one["reason"]) for one in problems(*objects)[0]]


def reported(pf):
    """Return a NodeNicState for which the controller has decided nothing yet."""
    state = node_state(vfs=0, modules=("vhost_net", "vfio_pci"))
    state["spec"] = {}
    state["status"]["pfs"] = [state["status"]["pfs"][0] | pf]
    return state


@pytest.mark.parametrize(
    ("asked", "reason", "words"),
    [
        (pool(models=["X71O"]), "UnknownModel", "no X71O"),
        (pool(models=["82576"], num_vfs=8), "TooManyVfs", "82576 7"),
        (pool(models=["X540"], num_vfs=64), "TooManyVfs", "X540 63"),
        (pool(models=["X710"], persistence="ModuleOptions"), "ModuleOptionsUnsupported", "persistence: Agent"),
        (pool(models=["I210"]), "TooManyVfs", "I210 has no SR-IOV"),
    ],
)
def test_a_pull_request_without_states_of_nodes_is_checked(asked, reason, words):
    ((problem,), _) = problems(asked)
    assert (problem["object"], problem["reason"]) == ("SriovNetworkPool/fast", reason)
    assert words in problem["message"]


OFF = {"vendor": "15b3", "device": "101d", "model": "ConnectX-6 Dx", "driver": "mlx5_core", "totalVfs": 0}


@pytest.mark.parametrize(
    "selector", [{"models": ["ConnectX-6 Dx"]}, {"pfNames": ["ens1f0"]}, {"pciAddresses": ["0000:0b:00.0"]}]
)
@pytest.mark.parametrize("num_vfs", [4, "max", "10%"])
def test_sriov_that_firmware_switched_off_is_told_offline(selector, num_vfs):
    ((problem,), made) = problems(pool(nicSelector=selector, num_vfs=num_vfs), reported(OFF))
    assert (problem["object"], problem["reason"]) == ("SriovNetworkPool/fast", "FirmwareSriovOff")
    assert problem["message"].startswith("n1: ens1f0 (0000:0b:00.0), model ConnectX-6 Dx, offers no VFs: set SRIOV_EN=1")
    (row,) = made["pools"][0]["nodes"]
    assert (row["actions"], row["problem"]["reason"]) == ([], "FirmwareSriovOff")


def test_a_nic_without_sriov_can_be_passed_on_offline():
    plain = {"device": "10d3", "model": "82574L", "driver": "e1000e", "totalVfs": 0}
    found, made = problems(pool(models=["82574L"], function="Physical"), reported(plain))
    assert (found, made["pools"][0]["nodes"][0]["actions"]) == ([], ["bind the whole NIC to vfio-pci"])


def test_the_problem_of_a_node_is_not_repeated_for_its_pool():
    assert told(pool(num_vfs=8), reported({})) == [("SriovNetworkPool/fast", "TooManyVfs")]


def test_ports_share_the_number_of_their_device_offline():
    one = {"device": "1572", "model": "X710", "driver": "i40e", "totalVfs": 128}
    state = reported(one)
    first = state["status"]["pfs"][0]
    state["status"]["pfs"] += [first | {"pciAddress": "0000:0b:00.1", "name": "ens1f1"}]
    ((problem,), made) = problems(pool(models=["X710"], num_vfs=100), state)
    assert (problem["reason"], "supports 28 VFs" in problem["message"]) == ("TooManyVfs", True)
    assert [row["pf"] for row in made["pools"][0]["nodes"] if row["actions"]] == ["0000:0b:00.0"]
    assert told(pool(models=["X710"], num_vfs="max"), state) == []


def test_a_driver_that_counts_by_parameter_needs_module_options():
    old = {"vendor": "15b3", "device": "1003", "model": "ConnectX-3", "driver": "mlx4_core"}
    assert told(pool(models=["ConnectX-3"]), reported(old)) == [("SriovNetworkPool/fast", "ModuleOptionsNeeded")]


def test_nodes_shows_nics_without_sriov_and_the_least_number(capsys):
    pfs = (
        PfStatus(pci_address="0000:0b:00.0", name="ens1f0", vendor="8086", device="10c9", model="82576", total_vfs=8),
        PfStatus(pci_address="0000:0c:00.0", name="eno1", vendor="8086", device="10d3", model="82574L", driver="e1000e"),
    )
    show_nodes([NodeNicState(metadata=ObjectMeta(name="n1"), status=NodeStatus(pfs=pfs))])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[1:5] for row in rows] == [
        ["0000:0b:00.0", "ens1f0", "82576", "0/7"], ["0000:0c:00.0", "eno1", "82574L", "none"],
    ]  # fmt: skip
