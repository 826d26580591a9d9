"""A change of datapath loses nothing silently, and the guest's view of it is reported."""

import pytest

from tests.builders.decide import collect, decision
from tests.builders.vm import kubevirt, nad, nic, node_state, policy, pool, vm, vmi
from vmnic.cli.offline import decide_all
from vmnic.policy.guest_view import guest_view, uncarried_settings

CLUSTER = [kubevirt(permitted=["vmnic.dev/whole"]), pool(), pool("whole", function="Physical"), node_state()]
CLUSTER += [node_state("n2"), node_state("n3", pool="whole", vfs=0, function="Physical")]
TARGETS = ["macvtap", "sriov", "passthrough"]


def scene(datapath, *, bridge=None, fast=None, model="virtio", os="linux", accept=(), running=False, more=(), **fields):
    """Return a VM with a NIC on a bridge, and its decision under a policy that wants the datapath."""
    machine = vm(
        "web", nic("data", binding="bridge", network="br", model=model, **fields), *more, os=os,
        run_strategy="Always" if running else "Halted",
    )  # fmt: skip
    networks = [
        nad("br", segment="blue", **(bridge or {})),
        nad("fast", cni="sriov", resource="vmnic.dev/fast", segment="blue", **(fast or {})),
        nad("tap", cni="macvtap", resource="macvtap.network.kubevirt.io/x", segment="blue", **(fast or {})),
    ]
    wanted = policy(datapaths=[datapath], existing="Immediately", passthrough={"pool": "whole"}, accept=list(accept))
    instance = [vmi(macs={"data": "02:00:00:00:00:01"}, models={"data": model})] if running else []
    return decision(machine, wanted, *networks, *CLUSTER, *instance)


def reason(found):
    return found.nics[0].reason.value if found.nics[0].reason is not None else None


CHAINED = {"plugins": [{"type": "bridge"}, {"type": "bandwidth", "ingressRate": 1000}]}


@pytest.mark.parametrize("datapath", TARGETS)
@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"macspoofchk": True}, "macspoofchk"),
        ({"portIsolation": True}, "portIsolation"),
        ({"vlanTrunk": [{"minID": 10, "maxID": 20}]}, "vlanTrunk"),
        (CHAINED, "bandwidth"),
        ({"plugins": [{"type": "bridge"}, {"type": "firewall"}]}, "firewall"),
        ({"aKeyOfANewPlugin": 1}, "aKeyOfANewPlugin"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_property_of_the_network_is_not_lost_silently(config, name, datapath):
    found = scene(datapath, bridge=config)
    assert (reason(found), name in found.nics[0].message) == ("PropertyNotCarried", True)
    assert reason(scene(datapath, bridge=config, accept=[f"PropertyNotCarried/{name}"])) is None


@pytest.mark.parametrize(
    "config",
    [
        {"macspoofchk": False}, {"portIsolation": False}, {"vlanTrunk": []}, {"mtu": 1500}, {"vlan": 7}, {"bridge": "br7"},
        {"plugins": [{"type": "bridge"}, {"type": "bandwidth", "capabilities": {"bandwidth": True}}]},
        {"plugins": [{"type": "bridge"}, {"type": "portmap", "capabilities": {"portMappings": True}}]},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("datapath", TARGETS)
def test_a_default_or_a_source_is_no_property(config, datapath):
    assert reason(scene(datapath, bridge=config)) is None


def test_spoof_checks_are_carried_by_a_vf_with_spoof_check():
    bridge = {"macspoofchk": True}
    assert reason(scene("sriov", bridge=bridge, fast={"spoofchk": "on"})) is None
    assert reason(scene("sriov", bridge=bridge, fast={"spoofchk": "off"})) == "PropertyNotCarried"


def test_spoof_check_of_a_vf_is_carried_by_a_bridge_that_has_it():
    wanted = policy(datapaths=["vhost"], existing="Immediately")
    machine = vm("web", nic("data", binding="sriov", network="fast"), run_strategy="Halted")
    vf = nad("fast", cni="sriov", resource="vmnic.dev/fast", segment="blue", spoofchk="on")
    for checks, expected in ((True, None), (False, "PropertyNotCarried")):
        assert reason(decision(machine, wanted, vf, nad("br", segment="blue", macspoofchk=checks), *CLUSTER)) == expected


def test_a_message_names_few_of_many_properties():
    found = scene("sriov", bridge={f"key{index}": True for index in range(1000)})
    assert "and 992 more" in found.nics[0].message
    assert len(found.nics[0].message) < 500


def test_an_equal_property_of_the_target_is_carried():
    assert reason(scene("macvtap", bridge={"promiscMode": True}, fast={"promiscMode": True})) is None


@pytest.mark.parametrize(
    ("fields", "lost_on", "told_on"),
    [
        ({"bootOrder": 1}, ["passthrough"], []),
        ({"dhcpOptions": {"bootFileName": "x"}}, TARGETS, []),
        ({"state": "down"}, ["sriov", "passthrough"], []),
        ({"state": "up"}, [], []),
        ({"acpiIndex": 101}, [], ["sriov", "passthrough"]),
        ({"pciAddress": "0000:05:00.0"}, [], ["passthrough"]),
        ({"ports": [{"port": 22}]}, [], TARGETS),
        ({"macAddress": "02:00:00:00:00:01"}, [], ["passthrough"]),
        ({"tag": "role"}, [], []),
    ],
    ids="-".join,
)
@pytest.mark.parametrize("datapath", TARGETS)
def test_each_setting_is_carried_reported_or_excludes(fields, lost_on, told_on, datapath):
    found = scene(datapath, **fields)
    assert reason(found) == ("PropertyNotCarried" if datapath in lost_on else None)
    assert uncarried_settings(found.nics[0]) == (tuple(fields) if datapath in told_on else ())


def test_another_boot_order_is_reported_only():
    first = nic("first", bootOrder=1)
    found = scene("passthrough", bootOrder=2, more=[first])
    assert (reason(found), uncarried_settings(found.nics[0])) == (None, ("bootOrder",))


@pytest.mark.parametrize("datapath", TARGETS)
def test_an_address_by_ipam_is_not_lost_silently(datapath):
    ipam = {"ipam": {"type": "host-local", "subnet": "192.0.2.0/24"}}
    assert reason(scene(datapath, bridge=ipam, fast=ipam)) == "IpamNotCarried"
    assert reason(scene(datapath, bridge=ipam, fast=ipam, accept=["IpamNotCarried"])) is None


@pytest.mark.parametrize(
    ("model", "datapath", "mtu", "os", "expected"),
    [
        ("e1000e", "vhost", 8901, "linux", (1500, 8901)),
        ("e1000e", "vhost", 8901, "windows", (1500, 8901)),
        ("virtio", "emulated", 9000, "linux", (9000, 1500)),
        ("e1000e", "macvtap", 9000, "linux", (1500, 9000)),
        ("virtio", "sriov", 9000, "linux", (9000, 1500)),
        ("virtio", "passthrough", 9000, "linux", (9000, 1500)),
        ("e1000e", "sriov", 9000, "linux", (1500, 1500)),
        ("e1000e", "vhost", 1500, "linux", (1500, 1500)),
        ("e1000e", "vhost", None, "linux", None),
    ],
)
def test_a_change_of_the_guests_mtu_needs_acceptance(model, datapath, mtu, os, expected):
    config = {"mtu": mtu} if mtu else {}
    # The pool's MTU counts for its networks, so that MtuDiffers does not come first.
    asked = {"bridge": config, "fast": config, "model": model, "os": os}
    found = scene(datapath, **asked)
    differs = expected is not None and expected[0] != expected[1]
    assert reason(found) == ("GuestMtuChanges" if differs else None)
    accepted = scene(datapath, **asked, accept=["GuestMtuChanges"])
    assert (reason(accepted), guest_view(accepted, accepted.nics[0]).mtu) == (None, expected)


@pytest.mark.parametrize(("model", "datapath"), [("virtio", "sriov"), ("e1000e", "vhost"), ("virtio", "emulated")])
def test_the_remedy_is_an_mtu_that_both_datapaths_have(model, datapath):
    found = scene(datapath, bridge={"mtu": 9000}, fast={"mtu": 9000}, model=model)
    assert "make the network's mtu 1500" in found.nics[0].message


def test_a_whole_nic_without_a_record_has_an_unknown_network():
    machine = vm("web", run_strategy="Halted")
    machine["spec"]["template"]["spec"]["domain"]["devices"]["hostDevices"] = [
        {"name": "data", "deviceName": "vmnic.dev/whole"}
    ]
    found = decision(machine, policy(datapaths=["vhost"], existing="Immediately"), *CLUSTER)
    assert found.nics[1].message == "the network that NIC data used before passthrough is unknown"


def test_dhcp_of_kubevirt_tells_linux_guests_the_mtu():
    ipam = {"type": "host-local", "subnet": "192.0.2.0/24"}
    assert reason(scene("vhost", bridge={"mtu": 9000, "ipam": ipam}, model="e1000e")) is None
    assert reason(scene("vhost", bridge={"mtu": 9000, "ipam": ipam}, model="e1000e", os="windows")) == "GuestMtuChanges"


@pytest.mark.parametrize(
    ("model", "datapath", "running", "expected"),
    [
        ("e1000e", "vhost", True, ("New", "Same", "LostAtRestart")),
        ("e1000e", "vhost", False, ("New", "Same", "Kept")),
        ("virtio", "macvtap", True, ("Same", "Same", "LostAtRestart")),
        ("virtio", "sriov", False, ("New", "MayChange", "LostDuringMigration")),
        ("virtio", "passthrough", False, ("New", "MayChange", "Kept")),
        ("rtl8139", "vhost", False, ("New", "MayChange", "Kept")),
        ("virtio", "vhost", True, ("Same", "Same", "Kept")),
    ],
)
def test_the_guests_view_of_a_change(model, datapath, running, expected):
    found = scene(datapath, model=model, running=running, macAddress="02:00:00:00:00:01")
    view = guest_view(found, found.nics[0])
    assert (view.adapter, view.interface_name, view.link) == expected


@pytest.mark.parametrize(("model", "expected"), [("virtio", "Same"), ("virtio-transitional", "MayChange")])
def test_a_transitional_device_leaves_its_pci_slot(model, expected):
    objects = collect(policy(datapaths=["emulated"], existing="Immediately", selector={"networks": ["*"]}))
    nic_of = f"<interface type='bridge'><source bridge='br0'/><model type='{model}'/></interface>"
    system = "<o:os id='http://debian.org/debian/12'/>"
    label = f"<o:libosinfo xmlns:o='http://libosinfo.org/xmlns/libvirt/domain/1.0'>{system}</o:libosinfo>"
    objects.add_xml(f"<domain type='kvm'><name>d</name><metadata>{label}</metadata><devices>{nic_of}</devices></domain>")
    (found,) = decide_all(objects, offline=True).vms
    assert (found.nics[0].wanted.model, guest_view(found, found.nics[0]).interface_name) == ("e1000e", expected)


def test_nics_behind_a_removed_one_move_up_a_slot():
    after = nic("after", macAddress="02:00:00:00:00:02")
    fixed = nic("fixed", pciAddress="0000:08:00.0")
    found = scene("passthrough", more=[after, fixed])
    assert [guest_view(found, one).interface_name for one in found.nics] == ["MayChange", "MayChange", "Same"]


@pytest.mark.parametrize(
    ("model", "datapath", "fields", "expected"),
    [
        ("virtio", "passthrough", {"pciAddress": "0000:08:00.0"}, "MayChange"),
        ("virtio", "sriov", {"pciAddress": "0000:08:00.0"}, "Same"),
        ("virtio", "sriov", {"pciAddress": "0000:08:00.0", "acpiIndex": 7}, "MayChange"),
        ("rtl8139", "vhost", {"acpiIndex": 7}, "Same"),
    ],
)
def test_a_slot_or_index_keeps_the_name_if_it_is_carried(model, datapath, fields, expected):
    found = scene(datapath, model=model, **fields)
    assert guest_view(found, found.nics[0]).interface_name == expected


def test_a_vf_moves_with_an_interface_that_joins_it():
    host, fixed = (nic(name, binding="sriov", network="other", **more) for name, more in VFS.items())
    data = nic("data", binding="bridge", network="br")
    networks = [nad("br", segment="blue"), nad("fast", cni="sriov", resource="vmnic.dev/fast", segment="blue")]
    wanted = policy(datapaths=["sriov"], existing="Immediately", selector={"networks": ["tenants/br"]})
    machine = vm("web", host, fixed, data, run_strategy="Halted")
    found = decision(machine, wanted, *networks, nad("other", cni="sriov", resource="vmnic.dev/fast"), *CLUSTER)
    assert [guest_view(found, one).interface_name for one in found.nics] == ["MayChange", "Same", "MayChange"]


VFS = {"host": {}, "fixed": {"pciAddress": "0000:08:00.0"}}
