"""Devices that a VM asks for in other ways than by its NICs.

KubeVirt adds up the devices of NICs, host devices and GPUs for the VM's pod. A quantity in the VM's `resources` overwrites the
sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..checked.quantities import is_whole, read_quantity
from ..policy.facts import Datapath, DeviceRequests, NicFacts
from .inputs import MachineInput
from .vm import HostDevice, Resources
from .vmi import VirtualMachineInstance

__all__ = ["find_bad_quantity", "read_live_requests", "read_requests"]


def read_requests(given: MachineInput, nics: tuple[NicFacts, ...]) -> DeviceRequests:
    """Return what the spec asks for, with the host devices and GPUs of the instancetype."""
    domain = given.machine.spec.template.spec.domain
    devices = [*domain.devices.host_devices, *domain.devices.gpus]
    if given.instancetype is not None:
        # KubeVirt accepts no VM that has such a list beside that of its instancetype.
        devices += [*given.instancetype.spec.host_devices, *given.instancetype.spec.gpus]
    whole = {nic.name for nic in nics if nic.present.datapath is Datapath.PASSTHROUGH}
    return _requests(given, nics, domain.resources, (one for one in devices if one.name not in whole))


def read_live_requests(
    given: MachineInput, instance: VirtualMachineInstance | None, nics: tuple[NicFacts, ...]
) -> DeviceRequests:
    """Return what the running instance asked for. Nothing if the VM does not run."""
    if instance is None:
        return DeviceRequests()
    domain = instance.spec.domain
    whole = {nic.name for nic in nics if nic.live is not None and nic.live.datapath is Datapath.PASSTHROUGH}
    devices = (one for one in (*domain.devices.host_devices, *domain.devices.gpus) if one.name not in whole)
    return _requests(given, nics, domain.resources, devices)


def _requests(
    given: MachineInput, nics: tuple[NicFacts, ...], resources: Resources | None, devices: Iterable[HostDevice]
) -> DeviceRequests:
    # Only resources that a NIC may take matter. The number of other devices, such as accelerators, is not known.
    possible = {network.resource_name for nic in nics for network in (nic.network, *nic.equivalents)}
    possible |= {nic.present.resource for nic in nics}
    others = Counter(one.device_name for one in devices if one.device_name in possible or one.device_name in given.resources)
    fixed = {}
    for name in resources.devices if resources is not None else ():
        quantity = read_quantity(resources.named(name)) if resources is not None else None
        if quantity is not None and (name in possible or name in given.resources):
            fixed[name] = max(quantity, 0)
    return DeviceRequests(others=others, fixed=fixed)


def find_bad_quantity(resources: Resources | None) -> str:
    """Return which device quantity in a VM's `resources` Kubernetes refuses. Empty if it refuses none."""
    for name in resources.devices if resources is not None else ():
        found = [one[name] for one in (resources.requests, resources.limits) if one and name in one] if resources else []
        if not all(map(is_whole, found)):
            return f"spec.template.spec.domain.resources: the quantity of {name[:253]!r} is not a whole number: write one"
    return ""
