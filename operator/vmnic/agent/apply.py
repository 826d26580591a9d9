"""Carries out a plan's actions on one physical function. It decides nothing: the order is the plan's.

Every write has a deadline. `sriov_numvfs` may take seconds; the kernel answers before the VFs are all there only if a driver
made fewer, so they are waited for.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable

from ..host.client import Session
from ..host.ops import Op, SetLink, WriteFile
from ..nodes.state import Action, ActionKind
from .observe import DEVICES, Reader

__all__ = ["Applier", "ApplyError"]

_WRITE_S = 30.0
_NUM_VFS_S = 120.0
"""64 VFs of an i40e take 22 s, 125 of a ConnectX-6 65 s."""
_VFS_APPEAR_S = 30.0
_POLL_S = 0.05

Sleep = Callable[[float], Awaitable[None]]


class ApplyError(Exception):
    """The host refused an action; the message names PF, action and errno."""


class Applier:
    """Applies actions to one PF through a write session."""

    def __init__(self, session: Session, pf: str, name: str, *, sleep: Sleep = asyncio.sleep) -> None:
        self._session = session
        self._reader = Reader(session)
        self._pf = pf
        self._name = name
        self._path = f"{DEVICES}/{pf}"
        self._sleep = sleep

    async def apply(self, actions: tuple[Action, ...]) -> None:
        """Carry out the actions in order.

        Raises:
            ApplyError: the host refused one; those after it were not tried.
            OperationTimedOutError: the kernel did not answer.
        """
        for action in actions:
            try:
                await self._apply_one(action)
            except OSError as error:
                code = errno.errorcode.get(error.errno or 0, str(error.errno))
                raise ApplyError(f"{self._pf}: {action.kind} {action.value}: {code} ({error.strerror})") from error

    async def _apply_one(self, action: Action) -> None:
        match action.kind:
            case ActionKind.SET_AUTOPROBE:
                await self._write(WriteFile(f"{self._path}/sriov_drivers_autoprobe", action.value))
            case ActionKind.SET_NUM_VFS:
                await self._write(WriteFile(f"{self._path}/sriov_numvfs", action.value), deadline_s=_NUM_VFS_S)
                await self._await_vfs(int(action.value))
            case ActionKind.BIND_VFS:
                for address in await self._vf_addresses():
                    await self._bind(address, action.value)
            case ActionKind.BIND_PF:
                await self._bind(self._pf, action.value)
            case ActionKind.SET_MTU:
                await self._write(SetLink(name=self._name, mtu=int(action.value)))

    async def _write(self, op: Op, *, deadline_s: float = _WRITE_S) -> None:
        await self._session.perform(op, deadline_s=deadline_s)

    async def _await_vfs(self, count: int) -> None:
        """Wait until as many VFs are there."""
        for _ in range(round(_VFS_APPEAR_S / _POLL_S)):
            present = len(await self._vf_addresses())
            if present == count:
                return
            await self._sleep(_POLL_S)
        raise OSError(errno.ETIMEDOUT, f"{present} of {count} VFs appeared within {_VFS_APPEAR_S:g} s")

    async def _vf_addresses(self) -> list[str]:
        entries = [entry for entry in await self._reader.names(self._path) if entry.startswith("virtfn")]
        ordered = sorted(entries, key=lambda entry: int(entry.removeprefix("virtfn")))
        return [await self._reader.link_name(f"{self._path}/{entry}") for entry in ordered]

    async def _bind(self, address: str, driver: str) -> None:
        """Give one function its driver; `kernel` clears the override, so that the kernel chooses.

        A probe succeeds without doing anything where no driver takes the function, so the link is read back.
        """
        present = await self._reader.link_name(f"{DEVICES}/{address}/driver")
        if present == driver or (driver == "kernel" and present not in ("", "vfio-pci")):
            return
        override = "\n" if driver == "kernel" else driver
        await self._write(WriteFile(f"{DEVICES}/{address}/driver_override", override))
        if present:
            await self._write(WriteFile(f"/sys/bus/pci/drivers/{present}/unbind", address))
        await self._write(WriteFile("/sys/bus/pci/drivers_probe", address))
        bound = await self._reader.link_name(f"{DEVICES}/{address}/driver")
        if not bound or (driver != "kernel" and bound != driver):
            raise OSError(errno.ENODEV, f"{driver} did not take {address}; it has {bound or 'no driver'}")
