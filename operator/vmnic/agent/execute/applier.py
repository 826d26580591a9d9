"""Execution of a plan's actions on one PF.

The applier decides nothing. The plan sets the order of the actions.

Every write has a deadline. A write to `sriov_numvfs` may take seconds. Some drivers create fewer VFs than asked and the kernel
still answers success, so the applier waits for the VFs to appear. It also waits for a carrier before it sets rates, and for the
VF driver that udev may still have to load.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Iterator, Sequence

from ...api.node_state import VFIO, Action, ActionKind, VfSettings
from ...host.client import Session
from ...host.ops import LinkInfo, LoadModule, Op, PutFile, SetChannels, SetLink, SetVf, UnloadModule, VfInfo, WriteFile
from ...inspection.errno_hints import describe_errno
from ...inspection.function_links import find_function_links
from ...inspection.sysfs import DEVICES, SysfsReader
from ...nodes.observed import ObservedPf
from ...nodes.planning.actions import NO_DRIVER, admin_mac, unfold_indexes
from ...nodes.planning.target import KERNEL, Binding
from ...nodes.udev_rules import file_of, replace_rule

__all__ = ["Applier", "ApplyError"]

_WRITE_S = 30.0
_NUM_VFS_S = 120.0
"""64 VFs of an i40e take 22 s, 125 VFs of a ConnectX-6 take 65 s."""
_VFS_APPEAR_S = 30.0
_CARRIER_S = 10.0
"""Twisted-pair links negotiate a speed within four seconds."""
_DRIVER_S = 10.0
"""udev may be busy when it has to load the driver for VFs."""
_POLL_S = 0.05
_SEVERAL = 2

Sleep = Callable[[float], Awaitable[None]]


class ApplyError(Exception):
    """The host refused an action. The message names PF, action and errno."""


class Applier:
    """Applies actions to one PF through a write session.

    Args:
        session: The write session.
        pf: The PF as observed when the actions were planned.
        bindings: Attributes and drivers of its VFs, to which the actions refer.
        pci: Lock held while VFs are created or removed, because the kernel does that for one PF at a time, and while a file of
            several PFs is written.
        is_stuck: Returns whether a write on this node has not returned. No further write starts then.
        sleep: Sleeps between polls.
    """

    def __init__(
        self,
        session: Session,
        pf: ObservedPf,
        bindings: Sequence[Binding],
        *,
        pci: asyncio.Lock,
        is_stuck: Callable[[], bool],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._pci = pci
        self._is_stuck = is_stuck
        self._session = session
        self._reader = SysfsReader(session)
        self._pf = pf.pci_address
        self._name = pf.name
        self._bindings = bindings
        self._path = f"{DEVICES}/{pf.pci_address}"
        self._sleep = sleep

    async def apply(self, actions: tuple[Action, ...]) -> None:
        """Execute the actions in order.

        Raises:
            ApplyError: The host refused an action. The actions after it were not tried.
            OperationTimedOutError: The kernel did not answer.
        """
        for action in actions:
            try:
                await self._apply_one(action)
            except OSError as error:
                step = f"{action.kind} {action.value}".strip()
                raise ApplyError(f"{self._pf}: {step}: {describe_errno(error, action.kind)}") from error

    async def _apply_one(self, action: Action) -> None:
        match action.kind:
            case ActionKind.SET_AUTOPROBE:
                await self._write(WriteFile(f"{self._path}/sriov_drivers_autoprobe", action.value))
            case ActionKind.SET_NUM_VFS:
                async with self._pci:
                    await self._write(WriteFile(f"{self._path}/sriov_numvfs", action.value), deadline_s=_NUM_VFS_S)
                await self._await_vfs(int(action.value))
            case ActionKind.BIND_VFS:
                which, _, driver = action.value.rpartition(" ")
                # An earlier action of the plan may have created the VFs, so their addresses are read only now.
                addresses = await self._vf_addresses()
                await self._bind([addresses[index] for index in unfold_indexes(which, len(addresses))], driver)
            case ActionKind.SET_VFS:
                await self._set_vfs(action.value)
            case ActionKind.BIND_PF:
                await self._bind([self._pf], action.value)
            case ActionKind.SET_MTU | ActionKind.SET_QUEUES | ActionKind.SET_LINK:
                await self._change_link(action)
            case ActionKind.WRITE_MODULE_OPTIONS | ActionKind.RELOAD_DRIVER:
                await self._change_driver(action)
            case ActionKind.WRITE_UDEV_RULE:
                await self._write_rule(action.value)

    async def _write_rule(self, value: str) -> None:
        """Write or remove the PF's line in a pool's file."""
        pool, _, rule = value.partition(" ")
        # The file has a line for each PF of the pool, and PFs are changed in parallel.
        async with self._pci:
            text = await self._reader.optional_text(file_of(pool)) or ""
            await self._write(PutFile(file_of(pool), replace_rule(text, self._pf, pool, rule)))

    async def _change_driver(self, action: Action) -> None:
        if action.kind is ActionKind.RELOAD_DRIVER:
            # Both calls remove or create the VFs of all PFs of the driver, which takes as long as writes of sriov_numvfs.
            # They need no lock, because changes that reload a driver run alone.
            await self._write(UnloadModule(action.value), deadline_s=_NUM_VFS_S)
            await self._write(LoadModule(action.value), deadline_s=_NUM_VFS_S)
            return
        driver, _, options = action.value.partition(" ")
        text = f"options {driver} {options}\n" if options else ""
        await self._write(PutFile(f"/etc/modprobe.d/vmnic-{driver}.conf", text))

    async def _change_link(self, action: Action) -> None:
        name = await self._link()
        match action.kind:
            case ActionKind.SET_MTU:
                await self._write(SetLink(name=name, mtu=int(action.value)))
            case ActionKind.SET_QUEUES:
                await self._write(SetChannels(name, int(action.value)))
            case _:
                await self._write(SetLink(name=name, up=action.value == "up"))

    async def _link(self) -> str:
        """Return the present name of the PF's link.

        A reloaded driver may create the link under another name.
        """
        names = await self._reader.names(f"{self._path}/net")
        # With one link there is nothing to choose. Otherwise the dump tells the port and the representors apart.
        return next(iter(names), self._name) if len(names) < _SEVERAL else (await self._own_link()).name

    async def _set_vfs(self, which: str) -> None:
        """Set the attributes of a range of VFs.

        Each attribute is a write of its own. If the kernel gets several at once and refuses one, it has already set the ones
        before.
        """
        link = await self._own_link()
        present = {vf.vf: vf for vf in await self._reader.vfs(link.name)}
        asked = {
            # A plan sets attributes only of VFs whose binding has settings, so there always is one.
            index: next(one.settings for one in self._bindings if one.settings is not None and index in one.indexes)
            for index in unfold_indexes(which, len(await self._vf_addresses()))
        }
        for index, settings in asked.items():
            for op in _attribute_ops(link.name, index, settings, link.own_mac, present.get(index)):
                await self._write(op)
        # Rates come last, because only they need a carrier. The other attributes are set even if none comes.
        rates = [op for index, one in asked.items() for op in _rate_ops(link.name, index, one, present.get(index))]
        if rates:
            await self._await_carrier(link.name)
        for op in rates:
            await self._write(op)

    async def _own_link(self) -> LinkInfo:
        """Read the PF's link as it is now."""
        names = await self._reader.names(f"{self._path}/net")
        link = find_function_links(self._pf, names, await self._reader.links()).uplink
        if link is None:
            raise OSError(errno.ENODEV, "its link is not there")
        return link

    async def _await_carrier(self, name: str) -> None:
        """Wait until the link has a carrier.

        Drivers refuse rates without one, and creating VFs interrupts the carrier for a while (igb).
        """

        async def has_carrier() -> bool:
            # The kernel answers EINVAL for a link that is down, which reads as None here.
            return await self._reader.optional_text(f"/sys/class/net/{name}/carrier") == "1"

        if not await self._comes(has_carrier, _CARRIER_S):
            raise OSError(errno.ENETDOWN, f"{name} has no carrier after {_CARRIER_S:g} s")

    async def _comes(self, is_so: Callable[[], Awaitable[bool]], seconds: float) -> bool:
        """Poll a condition and return whether it became true within the given seconds."""
        for _ in range(round(seconds / _POLL_S)):
            if await is_so():
                return True
            await self._sleep(_POLL_S)
        return False

    async def _write(self, op: Op, *, deadline_s: float = _WRITE_S) -> None:
        # Asked before each write, because a parallel change may get stuck at any moment.
        if self._is_stuck():
            raise ApplyError(f"{self._pf}: another write on this node has not returned from the kernel; {op} was not started")
        await self._session.perform(op, deadline_s=deadline_s)

    async def _await_vfs(self, count: int) -> None:
        """Wait until the given number of VFs exists."""

        async def are_there() -> bool:
            return len(await self._virtfns()) == count

        if not await self._comes(are_there, _VFS_APPEAR_S):
            present = len(await self._virtfns())
            raise OSError(errno.ETIMEDOUT, f"{present} of {count} VFs appeared within {_VFS_APPEAR_S:g} s")

    async def _virtfns(self) -> list[str]:
        """Return the names of the `virtfn` links to the VFs, in order of index."""
        entries = [entry for entry in await self._reader.names(self._path) if entry.startswith("virtfn")]
        return sorted(entries, key=lambda entry: int(entry.removeprefix("virtfn")))

    async def _vf_addresses(self) -> list[str]:
        return await self._reader.link_names([f"{self._path}/{entry}" for entry in await self._virtfns()])

    async def _bind(self, addresses: Sequence[str], driver: str) -> None:
        """Bind functions to a driver.

        `kernel` clears `driver_override`, so that the kernel chooses. `none` leaves the functions without a driver.

        A probe reports success even if no driver takes the function, so the driver links are read back.
        """
        present = await self._drivers(addresses)
        wrong = [address for address in addresses if not _suits(present[address], driver)]
        for address in wrong:
            # The override precedes the unbind, so that no probe in between binds another driver. A newline clears it.
            if driver != NO_DRIVER:
                override = "\n" if driver == KERNEL else driver
                await self._write(WriteFile(f"{DEVICES}/{address}/driver_override", override))
            if present[address]:
                await self._write(WriteFile(f"/sys/bus/pci/drivers/{present[address]}/unbind", address))
            if driver != NO_DRIVER:
                # drivers_probe lets the kernel choose the driver. `bind` would need its name, which is unknown for `kernel`.
                await self._write(WriteFile("/sys/bus/pci/drivers_probe", address))
        if wrong:
            await self._await_driver(wrong, driver)

    async def _await_driver(self, addresses: Sequence[str], driver: str) -> None:
        """Read back which driver each function is bound to.

        udev often loads a kernel driver only when it receives the event of the first VF, so a kernel driver is waited for.
        """

        async def other() -> tuple[str, str] | None:
            found = (await self._drivers(addresses)).items()
            return next(((address, bound) for address, bound in found if not _suits(bound, driver)), None)

        async def is_bound() -> bool:
            return await other() is None

        # vfio-pci binds during the probe or not at all: preflight ensures that its module is loaded.
        if driver == KERNEL and await self._comes(is_bound, _DRIVER_S):
            return
        if (wrong := await other()) is not None:
            code = errno.ETIMEDOUT if driver == KERNEL else errno.ENODEV
            raise OSError(code, f"{wrong[0]} did not bind to {driver}; it has {wrong[1] or 'no driver'}")

    async def _drivers(self, addresses: Sequence[str]) -> dict[str, str]:
        names = await self._reader.link_names([f"{DEVICES}/{address}/driver" for address in addresses])
        return dict(zip(addresses, names, strict=True))


def _suits(driver: str, wanted: str) -> bool:
    """Return whether a driver is the wanted one.

    `kernel` accepts any driver except vfio-pci. `none` accepts only no driver.
    """
    if wanted == NO_DRIVER:
        return not driver
    return driver == wanted or (wanted == KERNEL and driver not in ("", VFIO))


def _attribute_ops(name: str, vf: int, wanted: VfSettings, pf_mac: str, present: VfInfo | None) -> Iterator[SetVf]:
    """Yield one operation per attribute, so that a refusal names the attribute."""
    if wanted.mac_prefix is not None:
        yield SetVf(name=name, vf=vf, mac=admin_mac(wanted.mac_prefix, pf_mac, vf))
    if wanted.vlan is not None:
        yield SetVf(name=name, vf=vf, vlan=wanted.vlan, qos=wanted.vlan_qos, vlan_protocol=wanted.vlan_protocol)
    if wanted.spoof_check is not None:
        yield SetVf(name=name, vf=vf, spoof_check=wanted.spoof_check)
    # A driver that reports no trust has none to take away, and would refuse (EOPNOTSUPP).
    if wanted.trust or (wanted.trust is False and present is not None and present.trust is not None):
        yield SetVf(name=name, vf=vf, trust=wanted.trust)
    if wanted.link_state is not None:
        yield SetVf(name=name, vf=vf, link_state=wanted.link_state.lower())  # type: ignore[arg-type]


def _rate_ops(name: str, vf: int, wanted: VfSettings, present: VfInfo | None) -> Iterator[SetVf]:
    """Yield the operation that sets both rates, unless the VF has them already.

    The kernel takes both rates together. A VF that has its rates already needs no carrier.
    """
    if wanted.min_tx_rate_mbps is None and wanted.max_tx_rate_mbps is None:
        return
    rates = (wanted.min_tx_rate_mbps or 0, wanted.max_tx_rate_mbps or 0)
    if present is None or rates != (present.min_tx_rate_mbit, present.max_tx_rate_mbit):
        yield SetVf(name=name, vf=vf, min_tx_rate_mbit=rates[0], max_tx_rate_mbit=rates[1])
