"""What decides about the eviction of a running VM, from its VirtualMachineInstance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from ..checked.printable import cut
from ..policy.capacity import Claim, claim_of
from ..policy.eviction import EvictedVm
from ..policy.facts import Datapath, KubeVirtFacts, VmFacts
from .vm import Part, VirtualMachine, decode_machine

__all__ = ["EvictionInput", "gather_evicted", "read_eviction"]

_MIGRATABLE = "LiveMigratable"
_MOST_BYTES = 200


class _Condition(Part, frozen=True, kw_only=True):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class _Status(Part, frozen=True, kw_only=True):
    conditions: tuple[_Condition, ...] = ()


class _Instance(Part, frozen=True, kw_only=True):
    status: _Status = _Status()


@dataclass(frozen=True, slots=True, kw_only=True)
class EvictionInput:
    """A running VM as its VirtualMachineInstance describes it."""

    machine: VirtualMachine
    """A VM whose template is the spec of the instance. The VM's own template may have changed since the start."""
    migratable: bool | None
    """KubeVirt's condition LiveMigratable; None if there is none."""
    message: str
    """Reason and message of the condition."""
    has_owner: bool
    """Whether another object owns the instance, and may create it again."""


def read_eviction(raw: dict[str, Any]) -> EvictionInput:
    """Read a VirtualMachineInstance.

    Raises:
        msgspec.ValidationError: a field has the wrong type.
    """
    meta = {key: raw["metadata"][key] for key in ("name", "namespace", "labels", "creationTimestamp") if key in raw["metadata"]}
    made = {"metadata": meta, "spec": {"template": {"spec": raw.get("spec") or {}}}}
    conditions = msgspec.convert(raw, _Instance).status.conditions
    found = next((one for one in conditions if one.type == _MIGRATABLE), None)
    known = found is not None and found.status in ("True", "False")
    return EvictionInput(
        machine=decode_machine(msgspec.json.encode(made)),
        migratable=found.status == "True" if found is not None and known else None,
        message=cut(": ".join(filter(None, (found.reason, found.message))), _MOST_BYTES) if found is not None else "",
        has_owner=bool(raw["metadata"].get("ownerReferences")),
    )


def gather_evicted(given: EvictionInput, vm: VmFacts, owner: VirtualMachine | None, kubevirt: KubeVirtFacts) -> EvictedVm:
    """Collect what decides about the eviction of a VM.

    Args:
        given: The instance.
        vm: Facts of a VM with the spec of the instance.
        owner: The VM that owns the instance; None if there is none, or it is not known.
        kubevirt: The cluster's settings.
    """
    own = given.machine.spec.template.spec.eviction_strategy or ""
    migratable, message = _migratability(given, vm)
    return EvictedVm(
        claim=claim_of(vm) or Claim(vm=vm),
        strategy=own or kubevirt.eviction_strategy,
        strategy_unknown="" if own else _strategy_unknown(kubevirt),
        migratable=migratable,
        migratable_message=message,
        placement_unknown=vm.unknown,
        vf_nics=tuple(cut(nic.name, _MOST_BYTES) for nic in vm.nics if (nic.live or nic.present).datapath is Datapath.SRIOV),
        starts_again=_starts_again(given, owner),
    )


def _strategy_unknown(kubevirt: KubeVirtFacts) -> str:
    """Return why the cluster's eviction strategy is unknown. Empty if it is known."""
    if kubevirt.unreadable:
        return f"it has no evictionStrategy, and the KubeVirt resource with the cluster's cannot be read: {kubevirt.unreadable}"
    if not kubevirt.is_given:
        return "it has no evictionStrategy, and the KubeVirt resource with the cluster's is not given"
    return ""


def _migratability(given: EvictionInput, vm: VmFacts) -> tuple[bool | None, str]:
    """Return whether a VM can migrate, and why not or why that is unknown."""
    if given.migratable is not None:
        return given.migratable, "" if given.migratable else f"it cannot migrate ({given.message or _MIGRATABLE})"
    devices = given.machine.spec.template.spec.domain.devices
    whole = [nic.name for nic in vm.nics if (nic.live or nic.present).datapath is Datapath.PASSTHROUGH]
    names = whole or [one.name for one in (*devices.host_devices, *devices.gpus)]
    if names:
        return False, f"it cannot migrate with host device {cut(names[0], _MOST_BYTES)}"
    disk = next((one for one in given.machine.spec.template.spec.volumes if one.host_disk and not one.host_disk.shared), None)
    if disk is not None:
        return False, f"it cannot migrate with host disk {cut(disk.name, _MOST_BYTES)}"
    if given.message:
        return None, f"whether it can migrate is not known ({given.message})"
    return None, f"its VirtualMachineInstance has no condition {_MIGRATABLE}, so whether it can migrate is not known"


def _starts_again(given: EvictionInput, owner: VirtualMachine | None) -> bool | None:
    """Return whether KubeVirt starts a VM again after its pod was evicted. None if unknown."""
    if owner is None:
        return None if given.has_owner else False
    if owner.always_runs:
        return True
    # The shutdown may count as a success or as a failure, and KubeVirt restarts only after a failure.
    return None if owner.spec.run_strategy == "RerunOnFailure" else False
