"""Devices of the cluster and the VMs that hold them, kept up to date with the caches.

They are computed on demand. A VM that cannot be read, or whose facts cannot be gathered, keeps the devices that it was last
known to have: they are not free.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from ...kube.reflector import ObjectKey
from ...kube.set_aside import SetAside, SetAsideReason
from ...kube.time_budget import OverBudgetError, Subject, time_budget, uncharged
from ...kubevirt.assignment import parse_record
from ...kubevirt.pools import NodeInput, node_devices
from ...kubevirt.vm import VirtualMachine
from ...policy.capacity import Capacity, Claim, claim_of, count_capacity
from ...policy.facts import PoolFacts, VmFacts

__all__ = ["CapacityCache", "recorded_claim"]

_CLAIM_S = 0.05
"""CPU budget for the facts of one VM. They normally take less than a millisecond."""


class CapacityCache:
    """Devices of the cluster.

    Args:
        nodes: Returns all nodes.
        pools: Returns the facts of the pools.
        gather: Returns the facts of a VM, or None if it is gone.
        find: Returns a VM, or None if it is gone.
        named: Returns the resources of other operators that policies name.
        has_type_devices: Returns whether the instancetype of a VM lists devices, as far as is known.
        set_aside: Registry for VMs whose facts cannot be gathered.
    """

    def __init__(
        self,
        nodes: Callable[[], Iterable[NodeInput]],
        pools: Callable[[], Mapping[str, PoolFacts]],
        gather: Callable[[ObjectKey], VmFacts | None],
        find: Callable[[ObjectKey], VirtualMachine | None],
        named: Callable[[], Iterable[str]],
        has_type_devices: Callable[[ObjectKey, VirtualMachine], bool],
        set_aside: SetAside,
    ) -> None:
        self._nodes = nodes
        self._pools = pools
        self._gather = gather
        self._find = find
        self._named = named
        self._has_type_devices = has_type_devices
        self._set_aside = set_aside
        self._claims: dict[ObjectKey, Claim | None] = {}
        """Devices of VMs that have a VF or a host device. None if the VM has no known claim."""
        self._stale: set[ObjectKey] = set()
        """VMs that have changed since their claim was read."""
        self._capacity: Capacity | None = None

    def update_vm(self, key: ObjectKey, machine: VirtualMachine | None) -> bool:
        """Mark the claim of a VM as stale after the VM or its instance has changed.

        Only VMs that may have devices are tracked, which is quick to check.

        Returns:
            Whether the VM has or had devices.
        """
        has_any = machine is not None and self._may_have_devices(key, machine)
        # A VM that has given its devices back is still in `_claims`, and its claim has to go.
        if not has_any and key not in self._claims:
            return False
        self._capacity = None
        if machine is None:
            self._claims.pop(key, None)
            self._stale.discard(key)
        else:
            self._claims.setdefault(key, None)
            self._stale.add(key)
        return True

    def _may_have_devices(self, key: ObjectKey, machine: VirtualMachine) -> bool:
        domain = machine.spec.template.spec.domain
        devices, resources = domain.devices, domain.resources
        return (
            bool(devices.host_devices or devices.gpus)
            or any(interface.sriov is not None for interface in devices.interfaces)
            or (resources is not None and bool(resources.devices))
            or self._has_type_devices(key, machine)
        )

    def hold(self, key: ObjectKey, last: VirtualMachine | None) -> None:
        """Keep the claim of a VM that cannot be read now.

        `last` is its last readable version.
        """
        self._claims[key] = self._claims.get(key) or _claim_in_time(key, last)
        self._stale.discard(key)
        self._capacity = None

    def invalidate_facts_of(self, keys: Iterable[ObjectKey]) -> None:
        """Mark claims as stale after an object that VMs refer to has changed.

        With it, the device that a NIC takes may have changed too.
        """
        stale = self._claims.keys() & keys
        if stale:
            self._stale |= stale
            self._capacity = None

    def invalidate_claims(self) -> None:
        """Mark all claims as stale after a pool has changed, because pools determine which devices count."""
        self._stale |= self._claims.keys()
        self._capacity = None

    def invalidate_nodes(self) -> None:
        """Discard the computed capacity after a pool or a node has changed."""
        self._capacity = None

    def claim(self, key: ObjectKey) -> Claim | None:
        """Return the devices that a VM holds and asks for, or None if there are none or they are unknown."""
        if key in self._stale:
            self._read_claims()
        return self._claims.get(key)

    @property
    def claims(self) -> list[Claim]:
        """Return the claims that the capacity counts."""
        return [claim for claim in self._claims.values() if claim is not None]

    @property
    def capacity(self) -> Capacity:
        """Return the capacity that is left."""
        if self._capacity is None:
            with uncharged():
                self._capacity = self._count()
        return self._capacity

    def _count(self) -> Capacity:
        self._read_claims()
        return count_capacity(node_devices(self._nodes(), self._pools(), self._named()), self.claims)

    def _read_claims(self) -> None:
        # Emptied first, so that a VM that cannot be evaluated costs its budget once per change, and not with each count.
        stale, self._stale = self._stale, set()
        for key in stale:
            self._claims[key] = self._read_claim(key)

    def _read_claim(self, key: ObjectKey) -> Claim | None:
        """Read one VM's claim once.

        A VM that cannot be evaluated keeps its claim, or else the one in its annotation.
        """
        name = "/".join(key)
        try:
            with time_budget(_CLAIM_S, Subject("VirtualMachine", name)):
                facts = self._gather(key)
                claim = claim_of(facts) if facts is not None else None
        except OverBudgetError as error:
            # The entry is withdrawn when the VM changes (`ClusterCache._machine_changed`).
            self._set_aside.add("VirtualMachine", name, SetAsideReason.TIME, str(error))
        except Exception as error:
            self._set_aside.add("VirtualMachine", name, SetAsideReason.EXCEPTION, str(error), error)
        else:
            return claim
        return self._claims.get(key) or _claim_in_time(key, self._find(key))


def _claim_in_time(key: ObjectKey, machine: VirtualMachine | None) -> Claim | None:
    """Return the claim in a VM's annotation, within the budget for one VM.

    The result is None if there is none or time runs out.
    """
    with contextlib.suppress(OverBudgetError), time_budget(_CLAIM_S, Subject("VirtualMachine", "/".join(key))):
        return recorded_claim(key, machine)
    return None


def recorded_claim(key: ObjectKey, machine: VirtualMachine | None) -> Claim | None:
    """Return the devices that a VM's annotation `vmnic.dev/assigned` names.

    The result is None if it names none that can be read.
    """
    notes = machine.metadata.annotations if machine is not None else None
    record = parse_record(notes.assigned) if notes is not None else None
    if machine is None or record is None:
        return None
    wanted = Counter(nic.resource for nic in record.nics.values() if nic.resource)
    created = machine.metadata.creation_timestamp
    vm = VmFacts(namespace=key.namespace, name=key.name, created=created, halted=machine.halted)
    return Claim(vm=vm, wanted=wanted) if wanted else None
