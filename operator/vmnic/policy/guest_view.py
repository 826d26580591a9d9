"""What the guest sees of a NIC, before and after a change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .facts import Datapath, GuestOs, NicState, Platform, VmFacts
from .guest_mtu import guest_mtu, static_mtu
from .types import NicDecision, Verdict, VmDecision

__all__ = ["GuestView", "describe_view", "guest_view", "uncarried_settings"]

_LEGACY_PCI = frozenset({"e1000", "rtl8139", "ne2k_pci", "pcnet", "virtio-transitional"})
"""Models that are PCI and not PCI Express devices, so libvirt puts them behind another bridge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestView:
    """What the guest sees of a NIC."""

    mtu: tuple[int, int] | None
    """MTU in bytes before and after; None if either is unknown."""
    static_mtu: tuple[int, int] | None = None
    """The same for a guest with static configuration, on the pod network, if it changes and its MTU is known."""
    adapter: Literal["Same", "New"]
    """New: the guest needs another driver, and Windows treats the NIC as another adapter."""
    interface_name: Literal["Same", "MayChange"]
    """MayChange: the NIC gets another PCI slot, so predictable names of Linux change."""
    queues: tuple[int, int]
    """Number of queues before and after."""
    link: Literal["Kept", "LostAtRestart", "LostDuringMigration"]
    """When the guest loses the link because of the datapath or of the change."""


def guest_view(decision: VmDecision, nic: NicDecision) -> GuestView:
    """Describe what the guest sees of a NIC if the decision is carried out."""
    vm, facts, wanted = decision.vm, nic.nic, nic.wanted
    before = guest_mtu(vm, facts, facts.present, facts.network)
    after = guest_mtu(vm, facts, wanted, nic.network or facts.network)
    changes = nic.verdict is Verdict.CHANGE
    is_new = changes and _driver_of(facts.present) != _driver_of(wanted)
    queues = (facts.present.queues, _queues_after(decision, nic))
    if changes and wanted.datapath is Datapath.SRIOV and vm.platform is Platform.KUBEVIRT:
        link: Literal["Kept", "LostAtRestart", "LostDuringMigration"] = "LostDuringMigration"
    else:
        link = "LostAtRestart" if changes and vm.running else "Kept"
    return GuestView(
        mtu=None if before is None or after is None or (facts.network.pod and not facts.network.mtu) else (before, after),
        static_mtu=_static_mtu(nic),
        adapter="New" if is_new else "Same",
        interface_name="MayChange" if _name_moves(decision, nic) or (is_new and vm.guest_os is not GuestOs.LINUX) else "Same",
        queues=queues,
        link=link,
    )


def _static_mtu(nic: NicDecision) -> tuple[int, int] | None:
    """Return the MTU of a guest with static configuration before and after a change on the pod network.

    KubeVirt's DHCP tells the others.
    """
    facts, network = nic.nic, nic.nic.network
    if not network.pod or network.mtu is None or nic.verdict is not Verdict.CHANGE:
        return None
    if not (facts.present.datapath.is_bridged and nic.wanted.datapath.is_bridged):
        return None
    before, after = static_mtu(facts.present, network), static_mtu(nic.wanted, network)
    return (before, after) if before is not None and after is not None and before != after else None


def describe_view(view: GuestView) -> str:
    """Describe what changes for the guest, or return an empty text."""
    mtu, static, queues = view.mtu, view.static_mtu, view.queues
    lost = {"Kept": "", "LostAtRestart": "no link during the restart", "LostDuringMigration": "no link during migrations"}
    words = (
        f"MTU {mtu[0]} to {mtu[1]}" if mtu is not None and mtu[0] != mtu[1] else "",
        f"with static configuration MTU {static[0]} to {static[1]}" if static is not None and static != mtu else "",
        "new adapter" if view.adapter == "New" else "",
        "interface name may change" if view.interface_name == "MayChange" else "",
        f"{queues[0]} to {queues[1]} queues" if queues[0] != queues[1] else "",
        lost[view.link],
    )
    return ", ".join(filter(None, words))


def uncarried_settings(nic: NicDecision) -> tuple[str, ...]:
    """Return the names of settings that the new datapath does not carry, and that do not exclude it."""
    if nic.verdict is not Verdict.CHANGE or nic.wanted.datapath is nic.nic.present.datapath:
        return ()
    told = tuple(name for name, one in nic.nic.settings.items() if nic.wanted.datapath in one.told_on)
    return (*told, *nic.nic.network.vouched) if nic.wanted.datapath is Datapath.PASSTHROUGH else told


def _queues_after(decision: VmDecision, nic: NicDecision) -> int:
    """Return the number of queues that a NIC will have.

    KubeVirt has one switch for the VM, so the change of one NIC changes all virtio NICs.
    """
    if decision.vm.platform is Platform.LIBVIRT or not nic.wanted.uses_switch:
        return nic.wanted.queues
    switched = (one.wanted.queues for one in decision.nics if one.verdict is Verdict.CHANGE and one.wanted.has_queues)
    return next((queues for queues in switched if queues != decision.vm.virtio_queues), nic.wanted.queues)


def _driver_of(state: NicState) -> str:
    """Return what distinguishes the drivers that a guest needs."""
    if state.datapath.needs_device:
        return f"{state.datapath} {state.resource}"
    return "virtio" if (state.model or "").startswith("virtio") else state.model or ""


def _name_moves(decision: VmDecision, nic: NicDecision) -> bool:
    """Return whether a Linux guest may rename a NIC, because its PCI slot or its ACPI index changes.

    libvirt numbers the devices without an address in their order, and host devices come after all interfaces.
    """
    # Linux prefers the index to the slot. Host devices have none, even if the VM's spec names one.
    indexed = [not state.datapath.needs_device for state in (nic.nic.present, nic.wanted)]
    if "acpiIndex" in nic.nic.settings and any(indexed):
        return not all(indexed)
    if nic.nic.has_fixed_slot and "pciAddress" not in uncarried_settings(nic):
        return False
    position = decision.nics.index(nic)
    before = decision.nics if nic.nic.present.datapath.needs_device else decision.nics[: position + 1]
    return any(_class_changes(decision.vm, one) for one in before)


def _class_changes(vm: VmFacts, nic: NicDecision) -> bool:
    return nic.verdict is Verdict.CHANGE and _slot_class(vm, nic.nic.present) != _slot_class(vm, nic.wanted)


def _slot_class(vm: VmFacts, state: NicState) -> str:
    if state.datapath.needs_device:
        return "host device"
    model = "virtio-transitional" if vm.virtio_transitional and state.model == "virtio" else state.model
    return "PCI" if model in _LEGACY_PCI else "PCI Express"
