"""The devices of the cluster and the VMs that have them, kept up to date with the caches and computed on demand.

A VM that cannot be read, or whose facts cannot be gathered, keeps what it was last known to have: its devices are not free.
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
"""CPU time for the facts of one VM, which take less than a millisecond."""


class CapacityCache:
    """The devices of the cluster.

    Args:
        nodes: Gives all nodes.
        pools: Gives what VMs have to know of the pools.
        gather: Reads the facts of a VM; None if it is gone.
        find: Finds a VM; None if it is gone.
        named: Gives the resources of other operators that policies name.
        set_aside: Where VMs are shown whose facts cannot be gathered.
    """

    def __init__(
        self,
        nodes: Callable[[], Iterable[NodeInput]],
        pools: Callable[[], Mapping[str, PoolFacts]],
        gather: Callable[[ObjectKey], VmFacts | None],
        find: Callable[[ObjectKey], VirtualMachine | None],
        named: Callable[[], Iterable[str]],
        set_aside: SetAside,
    ) -> None:
        self._nodes = nodes
        self._pools = pools
        self._gather = gather
        self._find = find
        self._named = named
        self._set_aside = set_aside
        self._claims: dict[ObjectKey, Claim | None] = {}
        """What VMs with a VF or a host device have; None: nothing that is known."""
        self._stale: set[ObjectKey] = set()
        """VMs that have changed since what they have was read."""
        self._capacity: Capacity | None = None

    def update_vm(self, key: ObjectKey, machine: VirtualMachine | None) -> None:
        """A VM or its instance has changed: whether it may have devices is quick to see."""
        devices = machine.spec.template.spec.domain.devices if machine is not None else None
        has_any = devices is not None and (
            bool(devices.host_devices) or any(interface.sriov is not None for interface in devices.interfaces)
        )
        if has_any or key in self._claims:
            self._capacity = None
            if machine is None:
                self._claims.pop(key, None)
                self._stale.discard(key)
            else:
                self._claims.setdefault(key, None)
                self._stale.add(key)

    def hold(self, key: ObjectKey, last: VirtualMachine | None) -> None:
        """Keep what a VM has that cannot be read now; `last` is what could last be read of it."""
        self._claims[key] = self._claims.get(key) or _claim_in_time(key, last)
        self._stale.discard(key)
        self._capacity = None

    def invalidate_facts_of(self, keys: Iterable[ObjectKey]) -> None:
        """Something that VMs refer to has changed: which device a NIC takes may have."""
        stale = self._claims.keys() & keys
        if stale:
            self._stale |= stale
            self._capacity = None

    def invalidate_nodes(self) -> None:
        """A pool or a node has changed."""
        self._capacity = None

    def claim(self, key: ObjectKey) -> Claim | None:
        """Say what a VM holds and asks for; None if nothing, or if it is not known."""
        if key in self._stale:
            self._read_claims()
        return self._claims.get(key)

    @property
    def capacity(self) -> Capacity:
        """What is left."""
        if self._capacity is None:
            with uncharged():
                self._capacity = self._count()
        return self._capacity

    def _count(self) -> Capacity:
        self._read_claims()
        claims = [claim for claim in self._claims.values() if claim is not None]
        return count_capacity(node_devices(self._nodes(), self._pools(), self._named()), claims)

    def _read_claims(self) -> None:
        stale, self._stale = self._stale, set()
        for key in stale:
            self._claims[key] = self._read_claim(key)

    def _read_claim(self, key: ObjectKey) -> Claim | None:
        """Read what one VM has, once; a VM that cannot be evaluated keeps what it had, else has what its record says."""
        name = "/".join(key)
        try:
            with time_budget(_CLAIM_S, Subject("VirtualMachine", name)):
                facts = self._gather(key)
                claim = claim_of(facts) if facts is not None else None
        except OverBudgetError as error:
            self._set_aside.add("VirtualMachine", name, SetAsideReason.TIME, str(error))
        except Exception as error:
            self._set_aside.add("VirtualMachine", name, SetAsideReason.EXCEPTION, str(error), error)
        else:
            return claim
        return self._claims.get(key) or _claim_in_time(key, self._find(key))


def _claim_in_time(key: ObjectKey, machine: VirtualMachine | None) -> Claim | None:
    """Return what a VM's record says, within the time for one VM; None if it says nothing, or not in time."""
    with contextlib.suppress(OverBudgetError), time_budget(_CLAIM_S, Subject("VirtualMachine", "/".join(key))):
        return recorded_claim(key, machine)
    return None


def recorded_claim(key: ObjectKey, machine: VirtualMachine | None) -> Claim | None:
    """Return the devices that a VM's annotation `vmnic.dev/assigned` names; None if it names none that can be read."""
    notes = machine.metadata.annotations if machine is not None else None
    record = parse_record(notes.assigned) if notes is not None else None
    if machine is None or record is None:
        return None
    wanted = Counter(nic.resource for nic in record.nics.values() if nic.resource)
    created = machine.metadata.creation_timestamp
    vm = VmFacts(namespace=key.namespace, name=key.name, created=created, halted=machine.halted)
    return Claim(vm=vm, wanted=wanted) if wanted else None
