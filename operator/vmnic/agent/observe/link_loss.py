"""Which functions have lost their carrier: they had it, and it has been away for longer than a driver's reset takes it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ...nodes.observed import ObservedPf

__all__ = ["LinkLossTracker"]

_RESET_S = 4.0
"""A link flaps when VFs are made, for a second or two."""


class LinkLossTracker:
    """Remembers who had a carrier; a port that never had one is nobody's loss."""

    def __init__(self) -> None:
        self._had: set[str] = set()
        self._without: dict[str, float] = {}
        """Since when."""

    def see(self, pfs: Iterable[ObservedPf], told: Collection[str], now: float) -> frozenset[str]:
        """Take in a look and give the functions whose carrier is lost.

        Args:
            pfs: The functions that were looked at; of others it stays as it was.
            told: Those whose loss the node's status tells, as an agent before this one may have found it.
            now: Seconds since boot.
        """
        self._without = {address: float("-inf") for address in told if address not in self._had} | self._without
        for pf in pfs:
            if pf.carrier:
                self._had.add(pf.pci_address)
            if pf.carrier or not pf.up:
                self._without.pop(pf.pci_address, None)
            elif pf.pci_address in self._had:
                self._without.setdefault(pf.pci_address, now)
        return frozenset(address for address, since in self._without.items() if now - since >= _RESET_S)
