"""Names of VMs and NICs in tables and in Markdown."""

from __future__ import annotations

from ..policy.guest_view import GuestView, describe_view
from ..policy.paths import LayerKind, Place
from .path_schema import PathDocument, PathEntry
from .schema import NicPlan, NicShape, Plan, PoolNode, VmPlan

__all__ = [
    "LAYER_STATES",
    "LAYER_WORDS",
    "PLACE_WORDS",
    "guest_lines",
    "guest_words",
    "path_title",
    "pool_words",
    "shape_words",
    "vm_name",
]

PLACE_WORDS = {Place.GUEST: "guest", Place.QEMU: "QEMU", Place.HOST_KERNEL: "host kernel", Place.NIC: "NIC of the node"}
LAYER_WORDS = {
    LayerKind.DRIVER: "driver",
    LayerKind.EMULATION: "emulation",
    LayerKind.BACKEND: "backend",
    LayerKind.VHOST: "vhost",
    LayerKind.TAP: "tap",
    LayerKind.BINDING: "pod",
    LayerKind.NETWORK: "network",
    LayerKind.HOST_DRIVER: "driver",
    LayerKind.FUNCTION: "function",
    LayerKind.PORT: "port",
}
LAYER_STATES = {"Used": "", "LeftOut": "left out", "Unknown": "not known"}
"""What is shown in place of the name of a layer; empty for the name."""


def vm_name(vm: VmPlan) -> str:
    """Return namespace and name. A libvirt domain has no namespace, and a pool of VMs is named as such."""
    name = "/".join(filter(None, (vm["namespace"], vm["name"])))
    return f"VirtualMachinePool {name}" if vm["kind"] == "VirtualMachinePool" else name


def pool_words(node: PoolNode) -> str:
    """Describe what a pool would do to a PF, or the reason why it cannot."""
    return node["problem"]["reason"] if node["problem"] is not None else ", ".join(node["actions"])


def guest_words(nic: NicPlan) -> str:
    """Describe what changes for the guest, or return an empty text."""
    guest = nic["guest"]
    mtu, static, queues = guest["mtu"], guest.get("staticMtu"), guest["queues"]
    return describe_view(
        GuestView(
            mtu=None if mtu is None else (mtu["from"], mtu["to"]),
            static_mtu=None if static is None else (static["from"], static["to"]),
            adapter=guest["adapter"],
            interface_name=guest["interfaceName"],
            queues=(queues["from"], queues["to"]),
            link=guest["link"],
        )
    )


def shape_words(shape: NicShape | PathEntry) -> str:
    """Describe datapath, model and queues."""
    queues = f", {shape['queues']} queues" if shape["queues"] > 1 else ""
    return f"{shape['datapath']} ({shape['model']}{queues})" if "model" in shape else shape["datapath"]


def guest_lines(plan: Plan) -> list[tuple[str, str]]:
    """Return each command that is to be run in a guest, with the name of its VM."""
    return [(vm_name(vm), command) for vm in plan["vms"] for command in vm["guestCommands"]]


def path_title(document: PathDocument) -> str:
    """Return what a Path is about, in words."""
    vm = document["vm"]
    name = "/".join(filter(None, (vm["namespace"], vm["name"])))
    node = f", on node {vm['node']}" if vm["node"] else ""
    return f"{'Domain' if vm['kind'] == 'Domain' else 'VM'} {name}, guest {vm['guestOS']}{node}"
