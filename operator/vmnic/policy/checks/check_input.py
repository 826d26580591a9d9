"""What a check is asked and what it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..facts import ClusterFacts, Datapath, Network, NicFacts, PoolFacts, VmFacts
from ..reasons import Reason
from ..rules import Rule

__all__ = ["Check", "CheckInput", "Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a candidate falls out."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckInput:
    """Could this NIC have this datapath?"""

    vm: VmFacts
    nic: NicFacts
    cluster: ClusterFacts
    rule: Rule
    effective_rule: Rule
    """The rule whose settings of the whole VM hold."""
    datapath: Datapath
    target: Network | None
    """The network that offers it; None: none does."""
    resource: str = ""
    """The device that it takes; empty: none."""

    @property
    def pool(self) -> PoolFacts | None:
        """The pool of the device; None for another operator's."""
        return self.cluster.resources.get(self.resource)

    @property
    def is_current(self) -> bool:
        """Whether the NIC has it already."""
        present = self.nic.present
        return present.datapath is self.datapath and present.resource == self.resource

    @property
    def moves(self) -> bool:
        """Whether the NIC gets another binding or network, not only another model."""
        plain = (Datapath.EMULATED, Datapath.VIRTIO, Datapath.VHOST)
        return not self.is_current and not (self.datapath in plain and self.nic.present.datapath in plain)


Check = Callable[[CheckInput], Finding | None]
"""A check never raises and relies on no other having run."""
