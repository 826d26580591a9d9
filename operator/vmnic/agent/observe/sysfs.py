"""Reads of one session in the agent's words; what is absent is told apart from what cannot be read."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from typing import cast

from ...host.client import Session
from ...host.ops import LinkInfo, ListDir, Op, ReadFile, ReadLink, ReadLinks, Value

__all__ = ["DEVICES", "PCI_ADDRESS", "SysfsReader", "is_absent"]

DEVICES = "/sys/bus/pci/devices"
PCI_ADDRESS = re.compile(r"^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$")
"""A name below which the kernel, or another program, keeps something about a PCI function."""
_READ_S = 5.0
"""A sysfs read takes microseconds; one that takes this long is stuck."""


_ABSENT = (errno.ENOENT, errno.EINVAL, errno.ENODEV, errno.EOPNOTSUPP)
"""Nothing is there, or the device says that it has no such thing; anything else is a read that failed."""


def is_absent(error: OSError) -> bool:
    """Return whether an error says that nothing is there; any other is a read that failed."""
    return error.errno in _ABSENT


class SysfsReader:
    """Reads of one session, in words of this module."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def all(self, ops: Sequence[Op]) -> dict[Op, Value]:
        """Perform many reads in one journey; what is absent, or what a device does not answer, is None."""
        answers = await self._session.perform_all(ops, deadline_s=_READ_S)
        for answer in answers:
            if isinstance(answer, OSError) and not is_absent(answer):
                raise answer
        return {op: None if isinstance(answer, OSError) else answer for op, answer in zip(ops, answers, strict=True)}

    async def attempt(self, ops: Sequence[Op]) -> list[Value | OSError]:
        """Perform many reads in one journey; what failed is a value."""
        return await self._session.perform_all(ops, deadline_s=_READ_S)

    async def text(self, path: str) -> str:
        """Read a file."""
        return str(await self._session.perform(ReadFile(path), deadline_s=_READ_S)).strip()

    async def optional_text(self, path: str) -> str | None:
        """Read a file that need not exist, or that a device may not answer (EINVAL)."""
        try:
            return await self.text(path)
        except OSError as error:
            if is_absent(error):
                return None
            raise

    async def names(self, path: str) -> tuple[str, ...]:
        """List a directory; an absent one is empty."""
        try:
            return cast("tuple[str, ...]", await self._session.perform(ListDir(path), deadline_s=_READ_S))
        except FileNotFoundError:
            return ()

    async def listings(self, paths: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """List directories in one journey; an absent one is empty."""
        found = await self.all([ListDir(path) for path in paths])
        return {path: cast("tuple[str, ...]", found[ListDir(path)] or ()) for path in paths}

    async def link_names(self, paths: Sequence[str]) -> list[str]:
        """Give the last parts of symbolic links' targets; empty where there is none."""
        found = await self.all([ReadLink(path) for path in paths])
        return [str(found[ReadLink(path)] or "").rsplit("/", 1)[-1] for path in paths]

    async def links(self) -> tuple[LinkInfo, ...]:
        """Dump the network links."""
        return cast("tuple[LinkInfo, ...]", await self._session.perform(ReadLinks(), deadline_s=_READ_S))
