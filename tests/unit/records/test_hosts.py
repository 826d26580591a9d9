"""What pools would do on recorded hosts, by the readers and the planner of the agent."""

import pathlib

import pytest
import yaml

from vmnic.api.pool import SriovNetworkPool
from vmnic.cli.objects import Objects
from vmnic.cli.offline import decide_all
from vmnic.cli.plan import make_plan
from vmnic.cli.recorded import plan_recorded
from vmnic.nodes.pools.shares import pool_shares
from vmnic.records.document import read_record_file

HOSTS = pathlib.Path(__file__).parents[2] / "hosts"
VFIO = "bind the VFs to vfio-pci"
KEEP_OFF = "keep kernel drivers off new VFs"
ON_TOP = [
    "pod tenants/virt-launcher-db holds enp3s0Mvp19",
    "unicast address 02:00:00:aa:00:19 on enp3s0 (a macvlan of a pod?)",
]


def collect(host, spec):
    """Return a pool and the record of a host."""
    objects = Objects()
    document = {"apiVersion": "vmnic.dev/v1alpha1", "kind": "SriovNetworkPool", "metadata": {"name": "p"}}
    objects.pools["p"] = SriovNetworkPool.model_validate(document | {"spec": yaml.safe_load(spec)})
    objects.host_records[host] = read_record_file(HOSTS / f"{host}.yaml")
    return objects


def plan(host, spec):
    """Return actions, disruptive, blockers and reason of the problem, by PCI address, and the reasons of all problems."""
    recorded = plan_recorded(collect(host, spec))
    made = make_plan(recorded.objects, decide_all(recorded.objects, offline=True), [], recorded)
    assert not recorded.set_aside
    rows = {
        row["pf"]: (
            row["actions"],
            row["disruptive"],
            row["blockedBy"],
            row["problem"]["reason"] if row["problem"] is not None else None,
        )
        for row in made["pools"][0]["nodes"]
    }
    unsaid = ("CapacityPlanned", "CapacityUnknown", "Unknown")
    return rows, {one["reason"] for one in made["problems"] if one["reason"] not in unsaid}


def does(*actions):
    return list(actions), False, [], None


def disturbs(*actions, holders):
    return list(actions), True, holders, None


def fails(reason):
    return [], False, [], reason


PLANS = [
    ("representors", "{nicSelector: {models: [ConnectX-5]}, numVfs: 4}", {"0000:0b:00.0": fails("HostUsed")}),
    (
        "representors",
        "{nicSelector: {pfNames: [ens8f1]}, numVfs: 4, safety: {allowHostUsed: true}}",
        {
            "0000:0b:00.0": disturbs(
                *(KEEP_OFF, "remove all VFs", "create 4 VFs", VFIO),
                holders=["the host (place in ovs-system on representor eth8) holds 0000:0b:00.3"],
            )
        },
    ),
    (
        "representors",
        "{nicSelector: {pfNames: [ens8f1]}, numVfs: 2, vf: {trust: true}, safety: {allowHostUsed: true}}",
        {"0000:0b:00.0": fails("SwitchdevMode")},
    ),
    ("representors", "{nicSelector: {pfNames: [eth8]}, numVfs: 2}", {}),
    (
        "links-too-long",
        '{nicSelector: {models: ["82576"]}, numVfs: 2, vf: {trust: true}}',
        {
            "0000:0b:00.0": fails("Unreadable"),
            "0000:0c:00.0": does(KEEP_OFF, "create 2 VFs", "set the attributes of the VFs", VFIO),
        },
    ),
    (
        "macvtap-in-pod",
        "{nicSelector: {pfNames: [enp3s0]}, numVfs: 7}",
        {
            "0000:0b:00.0": disturbs(
                *(KEEP_OFF, "create 7 VFs", VFIO), holders=[f"{ON_TOP[0]} and loses its link for seconds", *ON_TOP[1:]]
            )
        },
    ),
    (
        "macvtap-in-pod",
        "{nicSelector: {pfNames: [enp3s0]}, function: Physical}",
        {"0000:0b:00.0": disturbs("bind the whole NIC to vfio-pci", holders=ON_TOP)},
    ),
    (
        "connectx-3",
        "{nicSelector: {pfNames: [ens5d1]}, numVfs: 4, mtu: 9000, safety: {allowHostUsed: true}}",
        {"0000:41:00.0": fails("SeveralPorts")},
    ),
    ("bnxt", '{nicSelector: {vendors: ["14e4"]}, numVfs: 2, vf: {trust: false}, vfDriver: kernel}', {}),
    (
        "mlx5-switchdev-bond",
        '{nicSelector: {pfNames: ["ens3f0*"]}, numVfs: 2, vf: {spoofCheck: true}, safety: {allowHostUsed: true}}',
        {"0000:3b:00.0": fails("SwitchdevMode")},
    ),
    (
        "sriov-off-in-firmware",
        "{nicSelector: {models: [E810, ConnectX-5]}, numVfs: 7}",
        {"0000:0b:00.0": fails("FirmwareSriovOff"), "0000:0c:00.0": fails("FirmwareSriovOff")},
    ),
    (
        "sriov-off-in-firmware",
        '{nicSelector: {pciAddresses: ["0000:0b:00.0"]}, numVfs: 7}',
        {"0000:0b:00.0": fails("FirmwareSriovOff")},
    ),
    (
        "sriov-off-in-firmware",
        "{nicSelector: {pfNames: [ens1f0]}, function: Physical}",
        {"0000:0b:00.0": does("bind the whole NIC to vfio-pci")},
    ),
    (
        "bridge-in-group",
        '{nicSelector: {models: ["82576"]}, function: Physical}',
        {"0000:0b:00.0": does("bind the whole NIC to vfio-pci")},
    ),
    ("bridge-in-group", '{nicSelector: {models: ["82576"]}, numVfs: 2}', {"0000:0b:00.0": fails("IommuGroupShared")}),
    (
        "quad-port",
        "{nicSelector: {pfNames: [eno4]}, numVfs: 2, vfDriver: kernel}",
        {"0000:89:00.3": does("create 2 VFs", "bind the VFs to their kernel driver")},
    ),
    (
        "links-too-long",
        '{nicSelector: {models: ["82576"]}, numVfs: 7}',
        {
            "0000:0b:00.0": does(KEEP_OFF, "remove all VFs", "create 7 VFs", VFIO),
            "0000:0c:00.0": does(KEEP_OFF, "create 7 VFs", VFIO),
        },
    ),
    (
        "host-bond-on-vf",
        '{nicSelector: {models: ["82576"]}, numVfs: 7, management: Adopt, vfRange: 1-6}',
        {"0000:0b:00.0": does("bind VFs 1-6 to vfio-pci")},
    ),
    (
        "host-bond-on-vf",
        '{nicSelector: {models: ["82576"]}, numVfs: 4}',
        {
            "0000:0b:00.0": disturbs(
                *(KEEP_OFF, "remove all VFs", "create 4 VFs", VFIO), holders=["the host (place in bond0) holds 0000:0b:10.0"]
            )
        },
    ),
    ("ranges-and-buses", "{nicSelector: {models: [X710]}, numVfs: 30, vfRange: 0-30}", {"0000:0b:00.0": fails("TooManyVfs")}),
    (
        "ranges-and-buses",
        "{nicSelector: {models: [X540]}, numVfs: 63}",
        {"0000:5e:1f.1": does(KEEP_OFF, "create 63 VFs", VFIO)},
    ),
    (
        "built-in-modules",
        '{nicSelector: {models: ["82576"]}, numVfs: 7}',
        {"0000:0b:00.0": does(KEEP_OFF, "create 7 VFs", VFIO)},
    ),
    ("mlx5-switchdev-bond", '{nodeSelector: {rack: a}, nicSelector: {models: ["ConnectX-6 Dx"]}, numVfs: 2}', {}),
    ("mlx5-switchdev-bond", '{nodeSelector: {rack: b}, nicSelector: {models: ["ConnectX-6 Dx"]}, numVfs: 4}', {}),
    (
        "mlx5-switchdev-bond",
        '{nodeSelector: {rack: a}, nicSelector: {models: ["ConnectX-6 Dx"]}, numVfs: 4}',
        {"0000:3b:00.0": fails("HostUsed"), "0000:3b:00.1": fails("HostUsed")},
    ),
    ("connectx-3", "{nicSelector: {models: [ConnectX-3]}, numVfs: 4}", {"0000:41:00.0": fails("HostUsed")}),
    (
        "connectx-3",
        "{nicSelector: {pfNames: [ens5d1]}, numVfs: 4, safety: {allowHostUsed: true}}",
        {"0000:41:00.0": fails("ModuleOptionsNeeded")},
    ),
    (
        "e810-quad-port",
        "{nicSelector: {models: [E810]}, numVfs: 8, queues: 16}",
        {
            "0000:17:00.0": fails("HostUsed"),
            **{f"0000:17:00.{number}": does(KEEP_OFF, "create 8 VFs", VFIO, "set 16 queues") for number in (1, 2, 3)},
        },
    ),
    (
        "x710-two-pools",
        "{nicSelector: {models: [X710]}, numVfs: 8}",
        {
            "0000:65:00.0": disturbs(
                *("remove all VFs", "create 8 VFs", VFIO), holders=["pod tenants/virt-launcher-mail holds 0000:65:02.1"]
            ),
            "0000:65:00.1": does(KEEP_OFF, "create 8 VFs", VFIO),
        },
    ),
    ("x710-two-pools", "{nicSelector: {pfNames: [ens7f0]}, numVfs: 4}", {}),
    (
        "x710-two-pools",
        "{nicSelector: {pfNames: [ens7f0]}, numVfs: 4, mtu: 9000}",
        {
            "0000:65:00.0": disturbs(
                "set the MTU to 9000", holders=["pod tenants/virt-launcher-mail loses its link for seconds"]
            )
        },
    ),
    (
        "owned-by-others",
        "{nicSelector: {models: [X710]}, numVfs: 4}",
        {
            **{f"0000:65:00.{number}": fails("ForeignOwner") for number in (0, 1, 2)},
            "0000:65:00.3": does("create 4 VFs", VFIO),
        },
    ),
    (
        "bnxt",
        '{nicSelector: {vendors: ["14e4"]}, numVfs: 2, vf: {trust: true}}',
        {"0000:af:00.0": does("set the attributes of VFs 0-1", KEEP_OFF, VFIO)},
    ),
    (
        "infiniband-and-ethernet",
        "{nicSelector: {pfNames: [ens4f1]}, numVfs: 7}",
        {"0000:0b:00.1": does(KEEP_OFF, "create 7 VFs", VFIO)},
    ),
    (
        "infiniband-pf",
        "{nicSelector: {models: [ConnectX-6]}, function: Physical}",
        {"0000:0b:00.0": does("bind the whole NIC to vfio-pci")},
    ),
    ("s390x-pci-domains", "{nicSelector: {models: [ConnectX-5]}, numVfs: 3}", {"0100:00:00.0": does(KEEP_OFF, VFIO)}),
    (
        "amd-groups-with-bridges",
        '{nicSelector: {models: ["82576"]}, function: Physical}',
        {"0000:05:00.0": does("bind the whole NIC to vfio-pci"), "0000:06:00.0": fails("IommuGroupShared")},
    ),
    (
        "desktop-without-sriov",
        '{nicSelector: {devices: ["105e", "15f3"]}, function: Physical}',
        {"0000:04:00.0": fails("HostUsed"), "0000:05:00.0": does("bind the whole NIC to vfio-pci")},
    ),
    ("desktop-without-sriov", '{nicSelector: {devices: ["15f3"]}, numVfs: 2}', {}),
    (
        "vfs-at-boot",
        '{nicSelector: {models: ["82576"]}, numVfs: 3, vfRange: 0-0}',
        {"0000:0b:00.0": does("write the module options igb", KEEP_OFF, "bind VFs 0 to vfio-pci")},
    ),
    (
        "vfs-at-boot",
        '{nicSelector: {models: ["82576"]}, numVfs: 7}',
        {
            "0000:0b:00.0": disturbs(
                *("write the module options igb", KEEP_OFF, "remove all VFs", "create 7 VFs", VFIO),
                holders=[
                    "the host (address 198.51.100.9/24) holds 0000:0b:10.2",
                    "pod edge/router-0 holds 0000:0b:10.4",
                ],
            )
        },
    ),
    ("ubuntu-built-in", "{nicSelector: {models: [X710]}, numVfs: 8}", {"0000:65:00.0": fails("ModuleMissing")}),
    (
        "ubuntu-built-in",
        "{nicSelector: {models: [X710]}, numVfs: 8, vfDriver: kernel}",
        {"0000:65:00.0": does("create 8 VFs", "bind the VFs to their kernel driver")},
    ),
    ("many-vfs", "{nicSelector: {models: [ConnectX-7]}, numVfs: 128}", {"0000:d8:00.0": fails("TooManyVfs")}),
    (
        "many-vfs",
        "{nicSelector: {models: [ConnectX-7]}, numVfs: 64}",
        {
            "0000:d8:00.0": disturbs(
                *("remove all VFs", "create 64 VFs", VFIO), holders=["pod tenants/virt-launcher-db holds 0000:d9:1a.7"]
            )
        },
    ),
    (
        "half-known",
        "{nodeSelector: {rack: a}, nicSelector: {models: [X710]}, numVfs: 4}",
        {
            "0000:65:00.0": disturbs(
                *(KEEP_OFF, "remove all VFs", "create 4 VFs", VFIO),
                holders=[
                    f"an unknown process (0000:65:02.{number} is not in pciDevices) holds 0000:65:02.{number}"
                    for number in (0, 1)
                ],
            ),
            "0000:65:00.1": fails("Unreadable"),
            "0000:66:00.0": fails("Unreadable"),
        },
    ),
]


@pytest.mark.parametrize(("host", "spec", "expected"), PLANS, ids=[f"{host} {spec}" for host, spec, _ in PLANS])
def test_pools_on_recorded_hosts(host, spec, expected):
    assert plan(host, spec) == (expected, {reason for *_, reason in expected.values()} - {None})


@pytest.mark.parametrize(
    ("host", "selector", "rows", "reasons"),
    [
        ("infiniband-pf", "{models: [ConnectX-6]}", {}, {"LinkTypeDiffers"}),
        ("infiniband-and-ethernet", '{pciAddresses: ["0000:0b:00.0"]}', {}, {"LinkTypeDiffers"}),
        (
            "infiniband-and-ethernet",
            "{models: [ConnectX-6]}",
            {"0000:0b:00.1": does(KEEP_OFF, "create 7 VFs", VFIO)},
            set(),
        ),
        ("x710-two-pools", "{models: [X71O]}", {}, {"UnknownModel"}),
    ],
)
def test_functions_that_a_pool_does_not_take(host, selector, rows, reasons):
    assert plan(host, f"{{nicSelector: {selector}, numVfs: 7}}") == (rows, reasons)


def test_each_recorded_host_is_planned():
    planned = {host for host, _, _ in PLANS}
    assert {path.stem for path in HOSTS.glob("*.yaml")} == planned


@pytest.mark.parametrize(
    ("host", "selector", "first", "last"),
    [
        ("x710-two-pools", "{pfNames: [ens7f0]}", "0000:65:02.0", "0000:65:02.7"),
        ("ranges-and-buses", "{models: [X540]}", "0000:5f:0f.1", "0000:5f:10.7"),
    ],
)
def test_the_state_after_a_plan_has_the_new_vfs(host, selector, first, last):
    objects = collect(host, f"{{nicSelector: {selector}, numVfs: 8}}")
    state = plan_recorded(objects).objects.node_states[host]
    (share,) = pool_shares(state, "p")
    assert (share.ready, share.held) == (8, ())
    assert (share.addresses[0], share.addresses[-1]) == (first, last)


def test_the_state_after_a_refused_plan_is_as_before():
    objects = collect("ubuntu-built-in", "{nicSelector: {models: [X710]}, numVfs: 8}")
    state = plan_recorded(objects).objects.node_states["ubuntu-built-in"]
    assert [share.ready for share in pool_shares(state, "p")] == [0]
