"""Rules of udev that create VFs, by vmnic or by another owner.

See udev(7). A rule of another owner applies to every PF that none of its conditions excludes, because a condition that is not
understood here excludes no PF. So vmnic never takes over VFs that another program creates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from ..host.ops import ListDir, ReadFile, Value
from ..nodes.udev_rules import RULES, find_rules, pool_of
from .errno_hints import errno_name
from .networkmanager import Port
from .sysfs import SysfsReader, is_absent

__all__ = ["UdevRules", "find_rule_owner", "own_rules", "read_udev_rules"]

_MOST_FILES = 256
_FILE_CHARS = 65_536
_NUM_VFS = "sriov_numvfs"
_PART = re.compile(r'([A-Z_]{1,32})(?:\{([^{}"]{1,128})\})?\s{0,8}(==|!=|\+=|-=|:=|=)\s{0,8}[a-z]?"([^"]{0,4096})"', re.ASCII)
_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.ASCII)
_LINK = re.compile(r"/sys/class/net/([^/\s$%'\"]{1,64})/")


@dataclass(frozen=True, slots=True)
class UdevRules:
    """The rules of a node that create VFs."""

    own: Mapping[str, str] = field(default_factory=dict)
    """Content of vmnic's files, by pool."""
    foreign: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Lines of other files that write the number of VFs, by path."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Why a file or the directory could not be read, by path."""


async def read_udev_rules(reader: SysfsReader) -> UdevRules:
    """Read all rules of the node's administrator. Without the overlay `udev-rules` there are none to see."""
    (listed,) = await reader.attempt([ListDir(RULES)])
    if isinstance(listed, OSError):
        return UdevRules(unreadable={} if is_absent(listed) else {RULES: errno_name(listed)})
    names = [str(name) for name in listed if str(name).endswith(".rules")] if isinstance(listed, tuple) else []
    own: dict[str, str] = {}
    foreign: dict[str, tuple[str, ...]] = {}
    unreadable = {RULES: f"more than {_MOST_FILES} files"} if len(names) > _MOST_FILES else {}
    names = names[:_MOST_FILES]
    for name, text in zip(names, await reader.attempt([ReadFile(f"{RULES}/{name}") for name in names]), strict=True):
        path = f"{RULES}/{name}"
        fault = _fault(text)
        if fault:
            unreadable[path] = fault
        elif isinstance(text, str) and pool_of(name):
            own[pool_of(name)] = text
        elif isinstance(text, str) and (lines := tuple(_making(text))):
            foreign[path] = lines
    return UdevRules(own=own, foreign=foreign, unreadable=unreadable)


def _fault(answer: Value | OSError) -> str:
    if isinstance(answer, OSError):
        return "" if is_absent(answer) else errno_name(answer)
    return f"more than {_FILE_CHARS} characters" if isinstance(answer, str) and len(answer) > _FILE_CHARS else ""


def _making(text: str) -> Iterator[str]:
    """Yield the rules that write the number of VFs."""
    for line in text.replace("\\\n", "").splitlines():
        if _NUM_VFS in line and not line.lstrip().startswith("#"):
            yield line


def own_rules(rules: UdevRules, address: str) -> tuple[str, ...]:
    """Return the names of vmnic's rules for a PF."""
    return tuple(name for pool in sorted(rules.own) for name in find_rules(pool, rules.own[pool], address))


def find_rule_owner(rules: UdevRules, port: Port) -> tuple[str, str]:
    """Return the file of another owner that creates VFs of a PF, and what could not be read about that."""
    found = next((path for path, lines in sorted(rules.foreign.items()) if any(_may_apply(line, port) for line in lines)), "")
    unknown = next((f"{path}: {why}" for path, why in sorted(rules.unreadable.items())), "")
    return found, f"udev rules cannot be read ({unknown})" if unknown else ""


def _may_apply(line: str, port: Port) -> bool:
    """Return whether no condition of a rule excludes a PF."""
    for key, attribute, operator, value in _PART.findall(line):
        if operator in ("==", "!="):
            fact = _fact(key, attribute, value, port)
            matches = any(fnmatchcase(fact, pattern) for pattern in value.split("|"))
            if fact and matches != (operator == "=="):
                return False
        # A command may name the PF by its address or its link.
        elif key == "RUN" and _names_other(value, port):
            return False
    return True


def _fact(key: str, attribute: str, value: str, port: Port) -> str:
    """Return the PF's value that a condition compares, or an empty string if it is unknown."""
    if key in ("KERNEL", "KERNELS"):
        return port.pci_address if ":" in value else port.name if key == "KERNEL" else ""
    if key in ("DRIVER", "DRIVERS"):
        return port.driver
    known = {
        ("ENV", "ID_NET_DRIVER"): port.driver,
        ("ENV", "PCI_SLOT_NAME"): port.pci_address,
        ("ENV", "ID_PATH"): f"pci-{port.pci_address}",
        ("ATTR", "address"): port.mac,
        ("ATTRS", "address"): port.mac,
    }
    return known.get((key, attribute), "")


def _names_other(command: str, port: Port) -> bool:
    """Return whether a command names PFs or links, and none of them is this PF."""
    named = {*_ADDRESS.findall(command), *_LINK.findall(command)}
    return bool(named) and not named & {port.pci_address, port.name}
