"""How long a function that could not be brought back is left alone: a fault that lasts is not met at every look."""

from __future__ import annotations

from ..kube.backoff import growing_pause

__all__ = ["Pauses"]

_BACKOFF_S = (5.0, 300.0)


class Pauses:
    """Remembers failures in a row; a restart of the agent forgets them."""

    def __init__(self) -> None:
        self._failures: dict[str, tuple[int, float]] = {}
        """How many, and until when the function is left alone."""

    def failed(self, address: str, now: float) -> None:
        """Note a failure; each doubles the pause."""
        count, _ = self._failures.get(address, (0, 0.0))
        self._failures[address] = (count + 1, now + growing_pause(count, _BACKOFF_S))

    def forget(self, address: str) -> None:
        """Note that it went well."""
        self._failures.pop(address, None)

    def lasts(self, address: str, now: float) -> bool:
        """Whether the function is to be left alone."""
        return address in self._failures and now < self._failures[address][1]
