"""Lines of vmnic's own files below `/etc/udev/rules.d`.

They let udev create the VFs of a PF as soon as it has its link. A rule is named by its pool, driver, number of VFs and
autoprobe, for example `fast igb 7 0`. The last part is absent if kernel drivers may bind the VFs.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

__all__ = ["ANY_DRIVER", "RULES", "file_of", "find_rules", "pool_of", "replace_rule", "rule_of"]

RULES = "/etc/udev/rules.d"
ANY_DRIVER = "?*"
"""Matches every driver. It stands in the rule of a PF whose own driver was not bound when the rule was made."""
_NAME = re.compile(r"70-vmnic-([a-z0-9.-]+)\.rules", re.ASCII)
_RULE = re.compile(
    r'SUBSYSTEM=="net", ACTION=="add", KERNELS=="([^"]*)", DRIVERS=="([^"]*)", '
    r'(?:ATTR\{device/sriov_drivers_autoprobe\}="(0)", )?ATTR\{device/sriov_numvfs\}="([0-9]{1,4})"',
    re.ASCII,
)


def file_of(pool: str) -> str:
    """Return the path of a pool's file.

    Raises:
        OSError: No pool has this name, which comes from another machine and would lead elsewhere.
    """
    name = f"70-vmnic-{pool}.rules"
    if pool_of(name) != pool:
        raise OSError(errno.EINVAL, f"{pool!r} is no name of a pool")
    return f"{RULES}/{name}"


def pool_of(name: str) -> str:
    """Return the pool whose file has this name, or an empty string if it is no file of vmnic."""
    match = _NAME.fullmatch(name)
    return match[1] if match is not None else ""


def rule_of(pool: str, driver: str, count: int, *, autoprobe: bool) -> str:
    """Return the name of a rule."""
    return f"{pool} {driver} {count}{'' if autoprobe else ' 0'}"


def find_rules(pool: str, text: str, address: str) -> Iterator[str]:
    """Yield the names of the rules for a PF in a pool's file.

    A line that a person has changed has a name that no rule has.
    """
    for line in text.splitlines():
        if _is_for(line, address):
            match = _RULE.fullmatch(line)
            yield f"{pool} changed" if match is None else rule_of(pool, match[2], int(match[4]), autoprobe=match[3] is None)


def replace_rule(text: str, address: str, pool: str, rule: str) -> str:
    """Return the content of a pool's file with another rule for a PF, or without one.

    Args:
        text: The present content.
        address: PCI address of the PF.
        pool: Name of the pool.
        rule: Driver, number of VFs and autoprobe; empty for no rule.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#") and not _is_for(line, address)]
    if rule:
        lines.append(_render(address, rule))
    # A file without rules is removed.
    return "".join(f"{line}\n" for line in (f"# vmnic writes this file for the pool {pool}.", *sorted(lines))) if lines else ""


def _render(address: str, rule: str) -> str:
    driver, count, *autoprobe = rule.split()
    # The kernel binds VFs while they are created, so autoprobe comes first (sriov_enable in drivers/pci/iov.c).
    first = 'ATTR{device/sriov_drivers_autoprobe}="0", ' if autoprobe else ""
    match = f'SUBSYSTEM=="net", ACTION=="add", KERNELS=="{address}", DRIVERS=="{driver}"'
    return f'{match}, {first}ATTR{{device/sriov_numvfs}}="{count}"'


def _is_for(line: str, address: str) -> bool:
    return not line.startswith("#") and f'"{address}"' in line
