"""The layers between a guest's driver and the physical port."""

from dataclasses import replace

import pytest

from vmnic.policy.facts import (
    ClusterFacts,
    Datapath,
    GuestOs,
    KubeVirtFacts,
    Network,
    NicFacts,
    NicState,
    Platform,
    PoolFacts,
    VmFacts,
)
from vmnic.policy.paths import LayerKind, LayerState, Port, path_of

FAST = PoolFacts(name="fast", resource_name="vmnic.dev/fast")
CLUSTER = ClusterFacts(vhost_net=True, pools={"fast": FAST}, resources={"vmnic.dev/fast": FAST})
PORTS = {"vmnic.dev/fast": (Port(name="ens1f0 (I350)", node="n1", guest_driver="igbvf"),)}
POD, BLUE = Network(pod=True), Network(namespace="tenants", name="blue", cni_type="bridge")


def layers(
    datapath, model=None, *, system=GuestOs.LINUX, platform=Platform.KUBEVIRT, network=POD, binding="masquerade", queues=1,
    resource="", cluster=CLUSTER, ports=None,
):  # fmt: skip
    vm = VmFacts(namespace="tenants", name="web", platform=platform, guest_os=system)
    state = NicState(datapath=datapath, model=model, queues=queues, resource=resource)
    return path_of(vm, NicFacts(name="net", network=network, present=state, binding=binding), cluster, ports)


def words(found):
    """Return each layer in short: its name, `-` if it is left out, `?` if it is unknown."""
    marks = {LayerState.USED: "", LayerState.LEFT_OUT: "-", LayerState.UNKNOWN: "?"}
    return [f"{one.kind.value} {marks[one.state] or one.name}" for one in found]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (
            {"datapath": Datapath.EMULATED, "model": "e1000e"},
            ("Driver e1000e, Emulation e1000e, Backend QEMU, Tap tap, Binding bridge, NAT, Network pod network,"
            " HostDriver NIC driver, Port ?"),
        ),
        (
            {"datapath": Datapath.VHOST, "model": "virtio", "network": BLUE, "binding": "bridge"},
            ("Driver virtio_net, Emulation -, Backend -, Vhost vhost-net, Tap tap, Binding bridge, Network tenants/blue,"
            " HostDriver NIC driver, Port ?"),
        ),
        (
            {"datapath": Datapath.MACVTAP, "model": "virtio", "network": BLUE, "binding": "macvtap"},
            ("Driver virtio_net, Emulation -, Backend -, Vhost vhost-net, Tap macvtap, Binding -, Network -,"
            " HostDriver NIC driver, Port ?"),
        ),
        (
            {"datapath": Datapath.MACVTAP, "model": "e1000e", "network": BLUE, "binding": "macvtap"},
            "Driver e1000e, Emulation e1000e, Backend QEMU, Tap macvtap, Binding -, Network -, HostDriver NIC driver, Port ?",
        ),
        (
            {"datapath": Datapath.SRIOV, "resource": "vmnic.dev/fast", "network": BLUE, "binding": "sriov", "ports": PORTS},
            ("Driver igbvf, Emulation -, Backend -, Tap -, Binding -, Network -, HostDriver -, Function VF of pool fast,"
            " Port ens1f0 (I350) on n1"),
        ),
        (
            {"datapath": Datapath.PASSTHROUGH, "resource": "other/nic", "network": Network(known=False), "binding": ""},
            ("Driver driver of the PF, Emulation -, Backend -, Tap -, Binding -, Network -, HostDriver -,"
            " Function PF of other/nic, Port ?"),
        ),
        (
            {"datapath": Datapath.VIRTIO, "model": "virtio", "platform": Platform.LIBVIRT, "network": Network(name="br0")},
            "Driver virtio_net, Emulation -, Backend QEMU, Tap tap, Network br0, HostDriver NIC driver, Port ?",
        ),
        (
            {"datapath": Datapath.MACVTAP, "model": "virtio", "platform": Platform.LIBVIRT, "network": Network(name="eth1")},
            ("Driver virtio_net, Emulation -, Backend -, Vhost vhost-net, Tap macvtap, Network -, HostDriver NIC driver,"
            " Port eth1"),
        ),
        (
            {"datapath": Datapath.OTHER, "binding": "passt"},
            "Driver ?, Emulation ?, Backend ?, Tap ?, Binding ?, Network ?, HostDriver ?, Port ?",
        ),
    ],
    ids=[
        "emulated", "vhost", "macvtap", "macvtap with an emulated model", "VF", "whole NIC of another operator",
        "virtio in QEMU", "macvtap of a domain", "a binding that vmnic does not handle",
    ],
)  # fmt: skip
def test_a_datapath_uses_and_leaves_out_layers(given, shown):
    assert ", ".join(words(layers(**given))) == shown


@pytest.mark.parametrize("datapath", Datapath)
@pytest.mark.parametrize("platform", Platform)
@pytest.mark.parametrize("system", GuestOs)
def test_every_path_leads_from_the_guest_to_a_port(datapath, platform, system):
    model = None if datapath.needs_device else "e1000e" if datapath is Datapath.EMULATED else "virtio"
    found = layers(datapath, model, platform=platform, system=system)
    order = list(LayerKind)
    kinds = [one.kind for one in found]
    assert (kinds[0], kinds[-1]) == (LayerKind.DRIVER, LayerKind.PORT)
    assert kinds == sorted(set(kinds), key=order.index)
    for one in found:
        assert bool(one.name) == (one.state is LayerState.USED)
        assert bool(one.text) or one.state is not LayerState.UNKNOWN


@pytest.mark.parametrize(
    ("model", "system", "driver"),
    [
        ("virtio", GuestOs.WINDOWS, "NetKVM"),
        ("virtio-transitional", GuestOs.LINUX, "virtio_net"),
        ("virtio", GuestOs.UNKNOWN, "virtio driver"),
        ("rtl8139", GuestOs.LINUX, "8139cp"),
        ("e1000e", GuestOs.WINDOWS, "e1000e driver"),
    ],
)
def test_the_driver_has_the_name_that_the_guest_gives_it(model, system, driver):
    datapath = Datapath.VHOST if model.startswith("virtio") else Datapath.EMULATED
    assert layers(datapath, model, system=system)[0].name == driver


def test_a_windows_guest_gets_no_linux_driver_of_a_vf():
    given = {"resource": "vmnic.dev/fast", "ports": PORTS, "system": GuestOs.WINDOWS}
    assert layers(Datapath.SRIOV, **given)[0].name == "driver of the VF"


def test_ports_of_several_nodes_and_drivers_are_listed():
    several = [Port(name=f"p{number}", node=f"n{number % 2}", guest_driver=f"d{number}") for number in range(5)]
    found = layers(Datapath.SRIOV, resource="r", ports={"r": tuple(several)})
    assert (found[0].name, found[-1].name) == ("driver of the VF", "p0 or p1 or p2 and 2 more")
    assert "2 nodes" in found[-1].text


@pytest.mark.parametrize(("vhost_net", "state"), [(True, "Used"), (None, "Used"), (False, "Unknown")])
def test_vhost_is_unknown_if_no_node_has_its_module(vhost_net, state):
    found = {one.kind: one.state for one in layers(Datapath.VHOST, "virtio", cluster=ClusterFacts(vhost_net=vhost_net))}
    assert found[LayerKind.VHOST] == state
    assert (found[LayerKind.BACKEND] is LayerState.UNKNOWN) == (state == "Unknown")


def test_each_queue_has_a_thread():
    texts = {one.kind: one.text for one in layers(Datapath.VHOST, "virtio", queues=4)}
    assert texts[LayerKind.VHOST].startswith("4 threads")


@pytest.mark.parametrize(
    "network",
    [Network(known=False), Network(namespace="a", name="b", known=False), Network(namespace="a", name="b", unreadable="no")],
)
def test_a_network_that_cannot_be_read_is_unknown(network):
    found = {one.kind: one.state for one in layers(Datapath.VHOST, "virtio", network=network, binding="bridge")}
    assert found[LayerKind.NETWORK] is LayerState.UNKNOWN


def test_a_model_of_an_unknown_preference_is_unknown():
    vm = VmFacts(namespace="tenants", name="web", guest_os=GuestOs.LINUX, preference_unknown="it cannot be read")
    guessed = NicFacts(name="net", network=POD, present=NicState(datapath=Datapath.VHOST, model="virtio"), binding="bridge")
    unknown = {one.kind for one in path_of(vm, guessed, CLUSTER) if one.text == "it cannot be read"}
    assert unknown == {LayerKind.DRIVER, LayerKind.EMULATION, LayerKind.BACKEND, LayerKind.VHOST}
    named = replace(guessed, explicit_model="virtio")
    assert words(path_of(vm, named, CLUSTER)) == words(layers(Datapath.VHOST, "virtio", binding="bridge"))


def test_the_binding_of_an_added_nic_needs_a_readable_kubevirt():
    cluster = ClusterFacts(kubevirt=KubeVirtFacts(unreadable="it cannot be read"))
    found = {one.kind: one for one in layers(Datapath.VHOST, "virtio", cluster=cluster)}
    assert (found[LayerKind.BINDING].state, found[LayerKind.BINDING].text) == (LayerState.UNKNOWN, "it cannot be read")
