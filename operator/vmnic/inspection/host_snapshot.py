"""The observed state of the host at one time.

A failed read is never treated as absence. A PF that does not answer is reported as unreadable. Each PF is read in its own
session, so a PF that hangs in the kernel does not affect the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field

from ..api.node_state import HostFacts
from ..host.client import HostAccess, OperationTimedOutError, WorkerGoneError
from ..host.ops import LinkInfo, ReadFile, ReadLink
from ..nodes.observed import ObservedPf
from .holder_files import Records, read_records
from .kernel_modules import read_modules
from .networkmanager import Profiles, read_profiles
from .pf_reader import read_pf
from .sysfs import DEVICES, SysfsReader
from .udev_rules import UdevRules, read_udev_rules

__all__ = ["HostSnapshot", "read_snapshot"]

_NoAnswer = OperationTimedOutError | WorkerGoneError | OSError

# Base class of PCI network controllers, which include InfiniBand ports (0x0207).
_NETWORK_CLASS = "0x02"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSnapshot:
    """The observed state of the host."""

    boot_id: str
    host: HostFacts
    pfs: tuple[ObservedPf, ...]
    links: tuple[LinkInfo, ...] = ()
    """Links of the host's network namespace."""
    records: Records = field(default_factory=Records)
    """Holders that files of other programs record."""
    unreadable: dict[str, _NoAnswer] = field(default_factory=dict)
    """PFs that did not answer, by PCI address."""


async def read_snapshot(host: HostAccess, *, leave_out: Collection[str]) -> HostSnapshot:
    """Read everything that decisions need.

    Args:
        host: The node.
        leave_out: PFs with a kernel call that has not returned. A further read would hang too.

    Raises:
        OSError: The host as a whole cannot be read.
        OperationTimedOutError: The host as a whole does not answer.
        WorkerGoneError: The host worker itself ended, not only the child of one PF.
    """
    async with host.session("observe", write=False) as session:
        reader = SysfsReader(session)
        boot_id = await reader.text("/proc/sys/kernel/random/boot_id")
        facts, functions = await _read_host(reader)
        addresses = await _find_pfs(reader, functions)
        links = await reader.links()
        records = await read_records(reader)
        profiles = await read_profiles(reader)
        rules = await read_udev_rules(reader)
    asked = [address for address in addresses if address not in leave_out]
    answers = await asyncio.gather(*(_read_alone(host, address, links, profiles, rules) for address in asked))
    if answers and isinstance(answers[0], WorkerGoneError) and all(isinstance(one, WorkerGoneError) for one in answers):
        raise answers[0]
    return HostSnapshot(
        boot_id=boot_id,
        host=facts,
        pfs=tuple(answer for answer in answers if isinstance(answer, ObservedPf)),
        links=links,
        records=records,
        unreadable={address: one for address, one in zip(asked, answers, strict=True) if not isinstance(one, ObservedPf)},
    )


async def _read_alone(
    host: HostAccess, address: str, links: Sequence[LinkInfo], profiles: Profiles, rules: UdevRules
) -> ObservedPf | _NoAnswer:
    """Read one PF in its own session, so that a hang or the death of its child affects no other PF."""
    try:
        async with host.session(address, write=False) as session:
            return await read_pf(SysfsReader(session), address, links, profiles, rules)
    except (OperationTimedOutError, WorkerGoneError, OSError) as error:
        return error


async def _read_host(reader: SysfsReader) -> tuple[HostFacts, tuple[str, ...]]:
    """Read what the node as a whole offers, and the addresses of all PCI functions."""
    modules = await read_modules(reader)
    listed = await reader.listings([DEVICES])
    facts = HostFacts(
        kernel=await reader.text("/proc/sys/kernel/osrelease"),
        iommu=await _or_unknown(lambda: reader.names("/sys/class/iommu")),
        modules=(*modules.loaded, *modules.built_in),
        modules_unknown=modules.unknown,
    )
    return facts, listed[DEVICES]


async def _or_unknown(read: Callable[[], Awaitable[Sequence[str]]]) -> bool | None:
    try:
        return bool(await read())
    except OSError:
        return None


async def _find_pfs(reader: SysfsReader, addresses: Sequence[str]) -> list[str]:
    """Find the network functions, except VFs, which belong to their PF."""
    kinds = [ReadFile(f"{DEVICES}/{address}/class") for address in addresses]
    parents = [ReadLink(f"{DEVICES}/{address}/physfn") for address in addresses]
    found = await reader.all([*kinds, *parents])
    return [
        address
        for address, kind, parent in zip(addresses, kinds, parents, strict=True)
        if str(found.get(kind) or "").startswith(_NETWORK_CLASS) and found.get(parent) is None
    ]
