"""Number of queues of a VM's virtio NICs.

On KubeVirt one number applies to the whole VM, because it has a single switch.
"""

from __future__ import annotations

from dataclasses import dataclass

from .checks import Finding
from .facts import Platform, VmFacts
from .reasons import Reason
from .rules import Rule

__all__ = ["QueueChoice", "choose_queues", "pressure_on"]

_TAP_QUEUES = 256
"""Limit of the kernel and of KubeVirt for a tap device."""
_QUEUE_BYTES = 100 * 2**20
"""Guest memory that a queue of a NIC may take: 80 queues took 7.2 GB of an 8 GB Windows guest (KubeVirt #18012)."""


@dataclass(frozen=True, slots=True)
class QueueChoice:
    """Queues for each virtio NIC (None leaves them as they are).

    The finding says why they are fewer than requested, or what is wrong with those that the VM has.
    """

    queues: int | None
    finding: Finding | None = None


def pressure_on(vm: VmFacts, rule: Rule) -> str:
    """Return the network pressure that applies to a VM.

    The tenant's value counts if the rule allows it.
    """
    return vm.pressure if rule.honours_pressure and vm.pressure else rule.pressure


def choose_queues(vm: VmFacts, rule: Rule, virtio_nics: int) -> QueueChoice:
    """Choose the queues of a VM's virtio NICs.

    Args:
        vm: The VM.
        rule: The highest rule that selects any of its NICs.
        virtio_nics: Number of virtio NICs that it will have.
    """
    unknown = _unknown_input(vm, rule)
    if unknown:
        return QueueChoice(None, Finding(Reason.PREFERENCE_UNKNOWN, unknown))
    if rule.multiqueue == "Never":
        return QueueChoice(1)
    asked = rule.multiqueue == "Always" or pressure_on(vm, rule) == "High"
    if not asked or vm.vcpus < 2 or not virtio_nics:
        return QueueChoice(None, _excess(vm, rule, vm.virtio_queues, virtio_nics))
    wanted = min(vm.vcpus, _TAP_QUEUES)
    if vm.platform is Platform.LIBVIRT:
        # On libvirt each NIC has its own number of queues, so the cap needs no hook.
        wanted = min(wanted, rule.max_queues)
    finding = _excess(vm, rule, wanted, virtio_nics)
    # A VM that has these queues keeps them, even if a lower maxQueues or less memory would refuse them today.
    return QueueChoice(wanted if finding is None or vm.virtio_queues == wanted else None, finding)


def _excess(vm: VmFacts, rule: Rule, queues: int, virtio_nics: int) -> Finding | None:
    """Return why a VM should not have as many queues on each of its virtio NICs."""
    if queues < 2 or not virtio_nics:
        return None
    # KubeVirt always gives as many queues as vCPUs. Only a hook sidecar could set a smaller number.
    if vm.platform is Platform.KUBEVIRT and queues > rule.max_queues:
        text = f"{vm.vcpus} vCPUs mean as many queues, but multiqueue.maxQueues is {rule.max_queues}"
        return Finding(Reason.QUEUE_CAP_NEEDS_HOOK, text)
    need = queues * virtio_nics * _QUEUE_BYTES
    if vm.memory_bytes is not None and need > vm.memory_bytes / 2:
        text = f"{queues} queues on {virtio_nics} NICs may take {need >> 20} MiB of the guest's {vm.memory_bytes >> 20} MiB"
        return Finding(Reason.GUEST_MEMORY_TOO_SMALL, text)
    return None


def _unknown_input(vm: VmFacts, rule: Rule) -> str:
    """Return why the queues that the VM has, or that it would get, are unknown.

    Empty if they are known, or stay as they are.
    """
    is_off = rule.multiqueue == "Never"
    if not is_off and rule.multiqueue != "Always" and pressure_on(vm, rule) != "High":
        return ""
    # Without multiqueue each NIC has one queue for any number of vCPUs.
    counts_vcpus = not is_off or vm.multiqueue is True
    if vm.instancetype_unknown and counts_vcpus:
        return vm.instancetype_unknown
    return vm.preference_unknown if vm.multiqueue is None and vm.vcpus > 1 else ""
