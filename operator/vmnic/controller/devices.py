"""Which devices there are and who has them: kept up to date with the caches, and worked out only when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ..kube.reflector import ObjectKey
from ..kubevirt.pools import NodeInput, node_devices
from ..kubevirt.projection import Machine
from ..policy.capacity import Capacity, Claim, claim_of, count_capacity
from ..policy.facts import PoolFacts, VmFacts

__all__ = ["Devices"]


class Devices:
    """The devices of the cluster.

    Args:
        nodes: Gives all nodes.
        pools: Gives what VMs have to know of the pools.
        gather: Reads the facts of a VM; None if it is gone.
        named: Gives the resources of other operators that policies name.
    """

    def __init__(
        self,
        nodes: Callable[[], Iterable[NodeInput]],
        pools: Callable[[], Mapping[str, PoolFacts]],
        gather: Callable[[ObjectKey], VmFacts | None],
        named: Callable[[], Iterable[str]],
    ) -> None:
        self._nodes = nodes
        self._pools = pools
        self._gather = gather
        self._named = named
        self._claimants: dict[ObjectKey, Claim | None] = {}
        """VMs with a VF or a host device; None: to be read anew."""
        self._capacity: Capacity | None = None

    def note_machine(self, key: ObjectKey, machine: Machine | None) -> None:
        """A VM or its instance has changed: whether it may have devices is quick to see."""
        devices = machine.spec.template.spec.domain.devices if machine is not None else None
        has_any = devices is not None and (
            bool(devices.host_devices) or any(interface.sriov is not None for interface in devices.interfaces)
        )
        if has_any or key in self._claimants:
            self._capacity = None
            if machine is None:
                self._claimants.pop(key, None)
            else:
                self._claimants[key] = None

    def note_networks(self) -> None:
        """A network has changed: which device a NIC takes may have."""
        self._claimants = dict.fromkeys(self._claimants)
        self._capacity = None

    def note_nodes(self) -> None:
        """A pool or a node has changed."""
        self._capacity = None

    def claim(self, key: ObjectKey) -> Claim | None:
        """Say what a VM holds and asks for; None if nothing, or if it is not known."""
        if key in self._claimants and self._claimants[key] is None:
            self._read_claims()
        return self._claimants.get(key)

    @property
    def capacity(self) -> Capacity:
        """What is left."""
        if self._capacity is None:
            self._read_claims()
            claims = [claim for claim in self._claimants.values() if claim is not None]
            self._capacity = count_capacity(node_devices(self._nodes(), self._pools(), self._named()), claims)
        return self._capacity

    def _read_claims(self) -> None:
        for key, claim in self._claimants.items():
            if claim is None:
                facts = self._gather(key)
                self._claimants[key] = claim_of(facts) if facts is not None else None
