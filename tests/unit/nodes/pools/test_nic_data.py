"""Effect of NIC data on pools: names of models, numbers of VFs, NICs without SR-IOV."""

import msgspec
import pytest

from tests.builders.node import pf_spec, pf_status, pool
from vmnic.api.node_state import NodeNicState, NodeSpec, NodeStatus, ObjectMeta, PfSpec, VfRange
from vmnic.nodes.pools.match import matching_pfs
from vmnic.nodes.pools.merge import merge_pools
from vmnic.nodes.pools.nic_data import find_nic_data_problems
from vmnic.nodes.pools.shares import pool_shares
from vmnic.nodes.vf_limits import count_other_ports, possible_vfs

PORTS = tuple(f"0000:3b:00.{port}" for port in range(4))


def x710(address, **changes):
    return pf_status(address, **({"device": "1572", "model": "X710", "driver": "i40e", "total_vfs": 64} | changes))


def problems(**spec):
    return [(one.reason, one.message) for one in find_nic_data_problems(pool(**spec))]


@pytest.mark.parametrize(
    ("selector", "words"),
    [
        ({"models": ["X710-T4L"]}, "no X710-T4L (near: X710): correct the name"),
        ({"models": ["82576", "i350"]}, "no i350 (near: I350)"),
        ({"models": ["zzz"]}, "no zzz: correct the name, or add it to the NIC data"),
        ({"models": ["a1!", "b2!", "c3!", "d4!"]}, "no a1!, b2!, c3! and 1 more"),
    ],
)
def test_an_unknown_model_is_named_with_those_near_it(selector, words):
    ((reason, message),) = problems(nicSelector=selector, numVfs=2)
    assert (reason, words in message) == ("UnknownModel", True), message


@pytest.mark.parametrize("models", [["82576"], ["X520"], ["82599", "I350"], []])
def test_known_models_and_aliases_are_no_problem(models):
    assert problems(nicSelector={"models": models, "pfNames": ["ens*"]}, numVfs=7) == []


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"nicSelector": {"models": ["82576"]}, "numVfs": 8}, "numVfs is 8, but the NIC data allow fewer VFs (82576 7)"),
        ({"nicSelector": {"models": ["X540", "82576"]}, "numVfs": 64}, "(X540 63, 82576 7)"),
        ({"nicSelector": {"vendors": ["8086"], "devices": ["1528"]}, "numVfs": 64}, "(X540 63)"),
        ({"nicSelector": {"models": ["X710"]}, "numVfs": 129}, "(X710 128)"),
        ({"nicSelector": {"models": ["82574L"]}, "numVfs": "max"}, "82574L has no SR-IOV"),
    ],
)
def test_more_vfs_than_the_nic_data_allow_are_told_without_nodes(spec, words):
    ((reason, message),) = problems(**spec)
    assert (reason, words in message) == ("TooManyVfs", True), message


@pytest.mark.parametrize(
    "spec",
    [
        {"nicSelector": {"models": ["82576"]}, "numVfs": "max"},
        {"nicSelector": {"models": ["82576"]}, "numVfs": "50%"},
        {"nicSelector": {"models": ["BCM57414"]}, "numVfs": 200},
        {"nicSelector": {"pfNames": ["ens1f0"]}, "numVfs": 256},
        {"nicSelector": {"models": ["82574L"]}, "numVfs": None, "function": "Physical"},
        {"nicSelector": {"models": ["82576"]}, "numVfs": 8, "management": "Adopt"},
    ],
)
def test_numbers_that_the_nic_data_allow_are_no_problem(spec):
    assert problems(**spec) == []


@pytest.mark.parametrize(
    ("selector", "refused"),
    [
        ({"models": ["X710"]}, True),
        ({"drivers": ["ice"]}, True),
        ({"drivers": ["unheard_of"]}, True),
        ({"models": ["82576"]}, False),
        ({"models": ["ConnectX-3"]}, False),
        ({"drivers": ["ixgbe"]}, False),
        ({"pfNames": ["ens1f0"]}, False),
    ],
)
def test_module_options_need_a_parameter_in_the_nic_data(selector, refused):
    found = problems(nicSelector=selector, numVfs=2, persistence="ModuleOptions")
    assert [reason for reason, _ in found] == ["ModuleOptionsUnsupported"] * refused
    assert all("set persistence: Agent" in message for _, message in found)


@pytest.mark.parametrize(
    ("pf", "ports", "wanted", "count"),
    [
        (pf_status(total_vfs=8), 1, "max", 7),
        (pf_status(total_vfs=5), 1, "max", 5),
        (pf_status(total_vfs=8), 1, "50%", 3),
        (pf_status(device="ffff", total_vfs=300), 1, "max", 256),
        (x710(PORTS[0]), 1, "max", 64),
        (x710(PORTS[0], total_vfs=128), 2, "max", 64),
        (x710(PORTS[0]), 4, "max", 32),
        (x710(PORTS[0]), 4, "50%", 16),
        (x710(PORTS[0]), 4, 40, 40),
        (pf_status(device="1592", total_vfs=0), 1, "max", 256),
        (pf_status(device="10c9", total_vfs=0), 1, "10%", 1),
        (pf_status(device="10c9", total_vfs=0), 1, 0, 0),
        (pf_status(device="ffff", total_vfs=0), 1, "max", 1),
    ],
)
def test_max_and_percentages_count_what_kernel_and_data_allow(pf, ports, wanted, count):
    pfs = [pf, *(msgspec.structs.replace(pf, pci_address=address) for address in PORTS[1:ports])]
    selector = {"pciAddresses": [pf.pci_address]}
    (spec,) = merge_pools([pool(nicSelector=selector, numVfs=wanted)], {}, pfs).pfs
    assert spec.num_vfs == count


def test_ports_of_other_devices_share_nothing():
    others = (x710("0000:3b:01.1"), x710("0001:3b:00.1"), pf_status(PORTS[1], vendor="15b3"))
    assert possible_vfs(x710(PORTS[0], total_vfs=128), [x710(PORTS[0]), *others]) == 128


@pytest.mark.parametrize(
    ("spec", "there", "first", "last"),
    [
        (None, 20, 20, 20),
        (PfSpec(pci_address="", pool="p", num_vfs=50), 20, 50, 20),
        (PfSpec(pci_address="", pool="p", num_vfs=5), 20, 5, 5),
        (PfSpec(pci_address="", pool="p", num_vfs=5, release="Reset"), 20, 20, 20),
        (PfSpec(pci_address="", pool="p", num_vfs=5, management="Adopt"), 20, 20, 20),
    ],
)
def test_an_earlier_port_counts_with_what_it_asks_for(spec, there, first, last):
    ports = [x710(PORTS[0], num_vfs=there), x710(PORTS[1], num_vfs=there)]
    wanted = {} if spec is None else dict.fromkeys(PORTS, spec)
    assert count_other_ports(ports[1], ports, wanted) == first
    assert count_other_ports(ports[0], ports, wanted) == last


def test_ports_together_have_no_more_ready_vfs_than_their_device():
    vfs = (VfRange(range="0-63", driver="vfio-pci"),)
    pfs = tuple(x710(address, num_vfs=64, vfs=vfs) for address in PORTS)
    specs = tuple(pf_spec(address, num_vfs=64) for address in PORTS)
    state = NodeNicState(metadata=ObjectMeta(name="n1"), spec=NodeSpec(pfs=specs), status=NodeStatus(pfs=pfs))
    assert [part.ready for part in pool_shares(state, "fast")] == [64, 64, 0, 0]


OFF = {
    "ConnectX with SR-IOV off": pf_status(vendor="15b3", device="101d", driver="mlx5_core", total_vfs=0),
    "82574L": pf_status(device="10d3", driver="e1000e", total_vfs=0, alt_names=("enp11s0",)),
    "unknown": pf_status(device="ffff", driver="igb", total_vfs=0),
}


@pytest.mark.parametrize(
    ("nic", "selector", "taken"),
    [
        ("ConnectX with SR-IOV off", {"models": ["ConnectX-6 Dx"]}, True),
        ("ConnectX with SR-IOV off", {"pfNames": ["ens*"]}, True),
        ("ConnectX with SR-IOV off", {"drivers": ["mlx5_core"]}, True),
        ("82574L", {"models": ["82574L"]}, False),
        ("82574L", {"vendors": ["8086"]}, False),
        ("82574L", {"pfNames": ["ens*"]}, False),
        ("82574L", {"pfNames": ["ens1f0"]}, True),
        ("82574L", {"pfNames": ["enp11s0"]}, True),
        ("82574L", {"pciAddresses": ["0000:0b:00.0"]}, True),
        ("unknown", {"drivers": ["igb"]}, False),
        ("unknown", {"pfNames": ["ens1f?"]}, False),
        ("unknown", {"pciAddresses": ["0000:0b:00.0"]}, True),
    ],
)
def test_a_pool_of_vfs_takes_a_nic_without_sriov_only_if_meant(nic, selector, taken):
    assert bool(matching_pfs(pool(nicSelector=selector), {}, [OFF[nic]], ())) is taken


@pytest.mark.parametrize("nic", OFF)
def test_a_pool_of_whole_nics_takes_any(nic):
    asked = pool(nicSelector={"vendors": ["8086", "15b3"]}, function="Physical", numVfs=None)
    assert matching_pfs(asked, {}, [OFF[nic]], ())


def test_a_nic_whose_sriov_was_switched_off_stays_in_its_pool():
    asked = pool(nicSelector={"drivers": ["igb"]})
    assert matching_pfs(asked, {}, [OFF["unknown"]], [pf_spec()])


def test_an_alias_selects_the_model():
    nic = pf_status(device="10fb", model="82599", driver="ixgbe")
    assert matching_pfs(pool(nicSelector={"models": ["X520"]}), {}, [nic], ())


def test_a_model_that_only_the_agent_knows_is_selected_by_name():
    nic = pf_status(device="ffff", model="House NIC", driver="x")
    assert matching_pfs(pool(nicSelector={"models": ["House NIC"]}), {}, [nic], ())
