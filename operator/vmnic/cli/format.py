"""Names of VMs and NICs in tables and in Markdown."""

from __future__ import annotations

from .schema import NicShape, VmPlan

__all__ = ["shape_words", "vm_name"]


def vm_name(vm: VmPlan) -> str:
    """Return namespace and name. A libvirt domain has no namespace, and a pool of VMs is named as such."""
    name = "/".join(filter(None, (vm["namespace"], vm["name"])))
    return f"VirtualMachinePool {name}" if vm["kind"] == "VirtualMachinePool" else name


def shape_words(shape: NicShape) -> str:
    """Describe datapath, model and queues."""
    queues = f", {shape['queues']} queues" if shape["queues"] > 1 else ""
    return f"{shape['datapath']} ({shape['model']}{queues})" if "model" in shape else shape["datapath"]
