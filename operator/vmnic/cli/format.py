"""Names of VMs and NICs in tables and in Markdown."""

from __future__ import annotations

from ..policy.guest_view import GuestView, describe_view
from .schema import NicPlan, NicShape, Plan, PoolNode, VmPlan

__all__ = ["guest_lines", "guest_words", "pool_words", "shape_words", "vm_name"]


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


def shape_words(shape: NicShape) -> str:
    """Describe datapath, model and queues."""
    queues = f", {shape['queues']} queues" if shape["queues"] > 1 else ""
    return f"{shape['datapath']} ({shape['model']}{queues})" if "model" in shape else shape["datapath"]


def guest_lines(plan: Plan) -> list[tuple[str, str]]:
    """Return each command that is to be run in a guest, with the name of its VM."""
    return [(vm_name(vm), command) for vm in plan["vms"] for command in vm["guestCommands"]]
