"""Input and result of a check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..facts import ClusterFacts, Datapath, Network, NicFacts, PoolFacts, VmFacts
from ..reasons import Reason
from ..rules import Rule

__all__ = ["Check", "CheckInput", "Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a candidate is excluded."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckInput:
    """One question to the checks, whether this NIC can have this datapath."""

    vm: VmFacts
    nic: NicFacts
    cluster: ClusterFacts
    rule: Rule
    effective_rule: Rule
    """The rule whose VM-wide settings apply."""
    datapath: Datapath
    target: Network | None
    """The network that offers the datapath, or None."""
    resource: str = ""
    """The device resource that the datapath takes; empty if it takes none."""

    @property
    def pool(self) -> PoolFacts | None:
        """Return the pool of the resource, or None if another operator provides the resource."""
        return self.cluster.resources.get(self.resource)

    @property
    def is_current(self) -> bool:
        """Return whether the NIC already has this datapath and resource."""
        present = self.nic.present
        return present.datapath is self.datapath and present.resource == self.resource

    @property
    def moves(self) -> bool:
        """Return whether the NIC gets another binding or network, not only another model."""
        plain = (Datapath.EMULATED, Datapath.VIRTIO, Datapath.VHOST)
        return not self.is_current and not (self.datapath in plain and self.nic.present.datapath in plain)

    def accepts(self, word: str) -> bool:
        """Return whether the policy, or the administrator of one of the networks, accepts a reason."""
        new = self.target.accepts if self.target is not None else ()
        return word in (*self.rule.accepts, *self.nic.network.accepts, *new)


Check = Callable[[CheckInput], Finding | None]
"""A check never raises, and it does not rely on another check having run."""
