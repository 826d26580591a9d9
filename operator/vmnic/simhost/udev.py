"""Rules of udev that write attributes of PFs, as systemd-udevd applies them at boot."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection
from fnmatch import fnmatchcase

from .kernel import Kernel
from .model import Machine, Pf

__all__ = ["apply_rules"]

_DIRECTORY = "/etc/udev/rules.d/"
_PART = re.compile(r'([A-Z]+)(?:\{([^}]*)\})?\s*(==|=)\s*"([^"]*)"')


def apply_rules(machine: Machine, kernel: Kernel, addresses: Collection[str]) -> None:
    """Apply all rules to the links of these PFs, in the order of the files' names and their lines."""
    lines = [
        line
        for path, text in sorted(machine.files.items())
        if path.startswith(_DIRECTORY) and path.endswith(".rules")
        for line in text.splitlines()
        if not line.startswith("#")
    ]
    for pf in [pf for pf in machine.pfs.values() if pf.net_name and pf.address in addresses]:
        for parts in (_PART.findall(line) for line in lines):
            if parts and all(_matches(pf, key, value) for key, _, operator, value in parts if operator == "=="):
                for _, attribute, operator, value in parts:
                    if operator == "=":
                        _write(kernel, pf, attribute, value)


def _matches(pf: Pf, key: str, value: str) -> bool:
    """Return whether the link of a PF meets a condition.

    Conditions on anything else are not met.
    """
    facts = {"SUBSYSTEM": "net", "ACTION": "add", "KERNEL": pf.net_name, "KERNELS": pf.address, "DRIVERS": pf.driver}
    return key in facts and fnmatchcase(facts[key], value)


def _write(kernel: Kernel, pf: Pf, attribute: str, value: str) -> None:
    writes = {"device/sriov_drivers_autoprobe": kernel.write_autoprobe, "device/sriov_numvfs": kernel.write_num_vfs}
    # udevd logs what the kernel refuses, and goes on.
    with contextlib.suppress(OSError):
        for _ in writes[attribute](pf, value) if attribute in writes else ():
            pass
