"""Reads of one session, which distinguish an absent file from a failed read."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from typing import cast

from ..host.client import Session
from ..host.ops import LinkInfo, ListDir, Op, ReadFile, ReadLink, ReadLinks, ReadVfs, Value, VfInfo

__all__ = ["DEVICES", "PCI_ADDRESS", "SysfsReader", "is_absent"]

DEVICES = "/sys/bus/pci/devices"
PCI_ADDRESS = re.compile(r"^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$")
"""Name of a PCI function in sysfs and in the files of other programs."""
_READ_S = 5.0
"""A sysfs read takes microseconds. One that takes this many seconds is stuck."""


_ABSENT = (errno.ENOENT, errno.EINVAL, errno.ENODEV, errno.EOPNOTSUPP)
"""The file does not exist, or the device does not support the attribute. Any other errno is a failed read."""


def is_absent(error: OSError) -> bool:
    """Return whether an error means absence rather than a failed read."""
    return error.errno in _ABSENT


class SysfsReader:
    """Typed reads over one session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def all(self, ops: Sequence[Op]) -> dict[Op, Value]:
        """Perform many reads in one round trip. An absent or unsupported file gives None."""
        answers = await self._session.perform_all(ops, deadline_s=_READ_S)
        # One failed read fails all: a plan must not rely on a device that was read in part.
        for answer in answers:
            if isinstance(answer, OSError) and not is_absent(answer):
                raise answer
        return {op: None if isinstance(answer, OSError) else answer for op, answer in zip(ops, answers, strict=True)}

    async def attempt(self, ops: Sequence[Op]) -> list[Value | OSError]:
        """Perform many reads in one round trip, with failures as values."""
        return await self._session.perform_all(ops, deadline_s=_READ_S)

    async def text(self, path: str) -> str:
        """Read a file."""
        return str(await self._session.perform(ReadFile(path), deadline_s=_READ_S)).strip()

    async def optional_text(self, path: str) -> str | None:
        """Read a file that may be absent, or that a device may not support (EINVAL)."""
        try:
            return await self.text(path)
        except OSError as error:
            if is_absent(error):
                return None
            raise

    async def names(self, path: str) -> tuple[str, ...]:
        """List a directory, which is empty if it does not exist."""
        try:
            return cast("tuple[str, ...]", await self._session.perform(ListDir(path), deadline_s=_READ_S))
        except FileNotFoundError:
            return ()

    async def listings(self, paths: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """List directories in one round trip. One that does not exist is empty."""
        found = await self.all([ListDir(path) for path in paths])
        return {path: cast("tuple[str, ...]", found[ListDir(path)] or ()) for path in paths}

    async def link_names(self, paths: Sequence[str]) -> list[str]:
        """Return the last parts of the targets of symbolic links, or empty strings where there is no link."""
        found = await self.all([ReadLink(path) for path in paths])
        return [str(found[ReadLink(path)] or "").rsplit("/", 1)[-1] for path in paths]

    async def links(self) -> tuple[LinkInfo, ...]:
        """Dump the network links."""
        return cast("tuple[LinkInfo, ...]", await self._session.perform(ReadLinks(), deadline_s=_READ_S))

    async def vfs(self, name: str) -> tuple[VfInfo, ...]:
        """Read the attributes of the VFs of a PF by the name of its link, or none if they cannot be read."""
        answers = await self.attempt([ReadVfs(name)])
        return cast("tuple[VfInfo, ...]", answers[0]) if isinstance(answers[0], tuple) else ()
