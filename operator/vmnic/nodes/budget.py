"""How many nodes may change at a time: the ledger of grants, and who is next. Pure.

An entry counts until its run has ended, or until the agent has confirmed that it no longer sees the grant: a grant that
was merely taken back may just be being claimed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from ..api.pool import SriovNetworkPool
from .state import ApplyState, NodeNicState, PfReason, PfStatus

__all__ = ["Entry", "EntryState", "Grant", "Ledger", "NodeView", "PoolLedger", "choose_grants", "settle_ledger"]

_ENDED = (ApplyState.APPLIED, ApplyState.FAILED, ApplyState.REFUSED)


class EntryState(StrEnum):
    """What a node's entry stands for."""

    GRANTED = "Granted"
    """Its plans are granted; counts."""
    REVOKED = "Revoked"
    """The grant is taken back and the agent has not confirmed it yet; counts."""
    FAILED = "Failed"
    """Its run failed; does not count as running, but towards `maxFailures`."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One node of one pool."""

    generation: int
    """The pool's generation at the grant."""
    boot_id: str
    digests: dict[str, str]
    """Granted plan by PCI address."""
    state: EntryState = EntryState.GRANTED


class PoolLedger(msgspec.Struct, frozen=True, kw_only=True):
    """What is granted for one pool."""

    proven_generation: int = 0
    """The newest generation that a first node has been brought to."""
    entries: dict[str, Entry] = {}
    """By node."""

    def running(self) -> int:
        """How many nodes count against the budget."""
        return sum(entry.state is not EntryState.FAILED for entry in self.entries.values())

    def failed(self) -> int:
        """How many nodes have failed."""
        return sum(entry.state is EntryState.FAILED for entry in self.entries.values())


class Ledger(msgspec.Struct, frozen=True):
    """All grants, by pool."""

    pools: dict[str, PoolLedger] = {}

    @classmethod
    def parse(cls, stored: Any) -> Ledger:
        """Read what `render` gave.

        Raises:
            msgspec.ValidationError: it is no ledger; a ValueError.
        """
        return msgspec.convert(stored, cls)

    def render(self) -> Any:
        """Give the JSON-able form."""
        return msgspec.to_builtins(self)

    def of(self, pool: str) -> PoolLedger:
        """Give a pool's part, empty if there is none."""
        return self.pools.get(pool, PoolLedger())

    def granted(self, node: str) -> dict[str, str]:
        """Give the granted digests of a node by PCI address."""
        return {
            address: digest
            for part in self.pools.values()
            if (entry := part.entries.get(node)) is not None and entry.state is EntryState.GRANTED
            for address, digest in entry.digests.items()
        }

    def with_pool(self, pool: str, part: PoolLedger | None) -> Ledger:
        """Replace a pool's part; None removes it."""
        rest = {name: other for name, other in self.pools.items() if name != pool}
        return Ledger(rest if part is None else rest | {pool: part})


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """One node as the rollout sees it."""

    name: str
    state: NodeNicState
    current: bool
    """Whether its spec already says what the pools ask now; a plan for an older spec is not granted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One node that may start."""

    node: str
    boot_id: str
    digests: dict[str, str]


def settle_ledger(part: PoolLedger, pool: SriovNetworkPool, nodes: Iterable[NodeView]) -> PoolLedger:
    """Give slots back whose run has ended, remember failures, and note when a generation has proven itself."""
    views = {view.name: view for view in nodes}
    proven = part.proven_generation
    entries: dict[str, Entry] = {}
    for node, entry in part.entries.items():
        settled, applied = _settle(entry, pool, views.get(node))
        if applied:
            proven = max(proven, entry.generation)
        if settled is not None:
            entries[node] = settled
    return PoolLedger(proven_generation=proven, entries=entries)


def _settle(entry: Entry, pool: SriovNetworkPool, view: NodeView | None) -> tuple[Entry | None, bool]:
    """Give what remains of an entry, and whether its run ended well."""
    if view is None:
        return None, False
    status = view.state.status
    if entry.state is EntryState.FAILED:
        again = entry.generation < pool.metadata.generation or entry.boot_id != status.boot_id
        return (None if again else entry), False
    pfs = {pf.pci_address: pf for pf in status.pfs}
    runs = [_run(digest, pfs.get(address)) for address, digest in entry.digests.items()]
    if all(run in _ENDED for run in runs):
        if ApplyState.FAILED in runs:
            return msgspec.structs.replace(entry, state=EntryState.FAILED), False
        return None, ApplyState.APPLIED in runs
    if any(run in (ApplyState.CLAIMED, ApplyState.APPLYING) for run in runs) or not _unused(entry, pfs):
        return entry, False
    confirmed = _confirmed(view.state) and not any(pf.grant in entry.digests.values() for pf in view.state.spec.pfs)
    if entry.state is EntryState.REVOKED and confirmed:
        return None, False
    return msgspec.structs.replace(entry, state=EntryState.REVOKED), False


def _run(digest: str, pf: PfStatus | None) -> ApplyState | None:
    """How far the run of a granted digest is; None if it has not begun."""
    if pf is None or pf.apply is None or pf.apply.digest != digest:
        return None
    return pf.apply.state


def _unused(entry: Entry, pfs: Mapping[str, PfStatus]) -> bool:
    """Whether no function of the entry has the granted plan any more and none has begun it."""
    for address, digest in entry.digests.items():
        pf = pfs.get(address)
        if pf is not None and pf.plan is not None and pf.plan.digest == digest:
            return False
    return True


def _confirmed(state: NodeNicState) -> bool:
    return state.status.observed_generation >= state.metadata.generation


def choose_grants(part: PoolLedger, pool: SriovNetworkPool, nodes: Iterable[NodeView], *, matched: int) -> tuple[Grant, ...]:
    """Say which nodes may start now.

    Args:
        part: The pool's part of the ledger, settled.
        pool: The pool.
        nodes: Its nodes.
        matched: How many nodes the pool has, of which a percentage is a share.
    """
    rollout = pool.spec.rollout
    if rollout.paused or part.failed() >= rollout.max_failures:
        return ()
    allowed = _resolve(rollout.max_concurrent, matched)
    if part.proven_generation < pool.metadata.generation:
        allowed = 1  # The first node of a generation goes alone.
    free = allowed - part.running()
    if free <= 0:
        return ()
    waiting = (
        _grant(view, pool.metadata.name) for view in sorted(nodes, key=lambda view: view.name) if view.name not in part.entries
    )
    return tuple(grant for grant in waiting if grant is not None)[:free]


def _grant(view: NodeView, pool: str) -> Grant | None:
    """Collect the plans of a node that may be granted; None if there are none."""
    state = view.state
    if not view.current or not state.spec.synced or not _confirmed(state):
        return None
    mine = {pf.pci_address for pf in state.spec.pfs if pf.pool == pool}
    digests = {
        pf.pci_address: pf.plan.digest
        for pf in state.status.pfs
        if pf.pci_address in mine and pf.plan is not None and not pf.plan.disruptive and _may_start(pf)
    }
    return Grant(node=view.name, boot_id=state.status.boot_id, digests=digests) if digests else None


def _may_start(pf: PfStatus) -> bool:
    """A function that is stuck is not started; one that failed may be tried again, its entry says when."""
    return pf.problem is None or pf.problem.reason is PfReason.APPLY_FAILED


def _resolve(limit: int | str, nodes: int) -> int:
    """Turn a number or a share into nodes: rounded up, at least one."""
    if isinstance(limit, int):
        return limit
    return max(1, math.ceil(nodes * int(limit.removesuffix("%")) / 100))
