"""Detection of PFs that lost link.

A loss shorter than a driver reset (4 s) is ignored.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ...nodes.observed import ObservedPf

__all__ = ["LinkLossTracker"]

_RESET_S = 4.0
"""A link flaps for a second or two when VFs are created."""


class LinkLossTracker:
    """Tracks which PFs had a carrier. A port that never had one has not lost it."""

    def __init__(self) -> None:
        self._had: set[str] = set()
        self._without: dict[str, float] = {}
        """Start of the loss, by PCI address."""

    def see(self, pfs: Iterable[ObservedPf], reported: Collection[str], now: float) -> frozenset[str]:
        """Record an observation and return the PFs that have lost link.

        Args:
            pfs: The observed PFs. The state of others stays as it was.
            reported: PFs whose loss the node's status already reports, possibly from an earlier agent.
            now: Seconds since boot.
        """
        # A loss that is reported already has lasted long enough, so a restarted agent does not wait again.
        self._without = {address: float("-inf") for address in reported if address not in self._had} | self._without
        for pf in pfs:
            if pf.carrier:
                self._had.add(pf.pci_address)
            # A link that was set down has no carrier either, but nothing is wrong with its cable.
            if pf.carrier or not pf.up:
                self._without.pop(pf.pci_address, None)
            elif pf.carrier is False and pf.pci_address in self._had:
                self._without.setdefault(pf.pci_address, now)
        return frozenset(address for address, since in self._without.items() if now - since >= _RESET_S)
