"""Names of VMs and NICs in tables and in Markdown."""

from __future__ import annotations

from .schema import NicShape, Plan, VmPlan

__all__ = ["guest_lines", "shape_words", "vm_name"]


def vm_name(vm: VmPlan) -> str:
    """Return namespace and name. A libvirt domain has no namespace."""
    return "/".join(filter(None, (vm["namespace"], vm["name"])))


def shape_words(shape: NicShape) -> str:
    """Describe datapath, model and queues."""
    queues = f", {shape['queues']} queues" if shape["queues"] > 1 else ""
    return f"{shape['datapath']} ({shape['model']}{queues})" if "model" in shape else shape["datapath"]


def guest_lines(plan: Plan) -> list[tuple[str, str]]:
    """Return each command that is to be run in a guest, with the name of its VM."""
    return [(vm_name(vm), command) for vm in plan["vms"] for command in vm["guestCommands"]]
