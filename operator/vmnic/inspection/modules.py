"""Kernel modules that the datapaths of VMs need: which are there, and the loading of the others.

`vmnic agent --load-modules` runs as the init container, which alone has the right to load modules. The kernel's refusals are
written to a file, from which the agent reports them. The node continues with the modules it has.
"""

from __future__ import annotations

import errno
import json
import logging
import pathlib
from collections.abc import Iterable
from dataclasses import dataclass

from ..host.ops import ListDir, LoadModule, Op, Port, ReadFile, Value
from .sysfs import SysfsReader, is_absent

__all__ = ["MODULES", "KernelModules", "load_modules", "read_modules", "refused_modules"]

_log = logging.getLogger(__name__)

MODULES = ("vhost_net", "tun", "macvtap", "vfio_pci")
"""Modules that the datapaths of VMs need."""
_MISC = ReadFile("/proc/misc")
_DEVICES = {"vhost_net": "vhost-net", "tun": "tun"}
"""Names of the modules' devices in /proc/misc."""
_DIRECTORIES = {"macvtap": ListDir("/sys/class/macvtap"), "vfio_pci": ListDir("/sys/bus/pci/drivers/vfio-pci")}
_FILE = "modules.json"
_MOST_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelModules:
    """Modules that the datapaths of VMs need, as the kernel shows them."""

    loaded: tuple[str, ...] = ()
    """Those in /sys/module, where some that are built in are too."""
    built_in: tuple[str, ...] = ()
    """Those that are not in /sys/module and whose function is there. One without parameters has no entry if it is built in."""
    unknown: tuple[str, ...] = ()
    """Those that are not in /sys/module and whose function cannot be read."""


async def read_modules(reader: SysfsReader) -> KernelModules:
    """Read which modules are there.

    Raises:
        OSError: /sys/module cannot be read.
    """
    listed = await reader.listings([f"/sys/module/{name}" for name in MODULES])
    # The directory of a module that is present is never empty.
    loaded = tuple(name for name in MODULES if listed[f"/sys/module/{name}"])
    left = [name for name in MODULES if name not in loaded]
    if not left:
        return KernelModules(loaded=loaded)
    answers = dict(zip(left, await reader.attempt([_sign(name) for name in left]), strict=True))
    found = {name: _shows(name, answer) for name, answer in answers.items()}
    return KernelModules(
        loaded=loaded,
        built_in=tuple(name for name in left if found[name]),
        unknown=tuple(name for name in left if found[name] is None),
    )


def _sign(name: str) -> Op:
    """Return the read that shows whether the function of a module is there, even if it is built in."""
    return _DIRECTORIES.get(name, _MISC)


def _shows(name: str, answer: Value | OSError) -> bool | None:
    """Return whether the function of a module is there, or None if that could not be read."""
    if isinstance(answer, OSError):
        return False if is_absent(answer) else None
    lines = (line.split() for line in answer.splitlines()) if isinstance(answer, str) else ()
    # Each line has the minor number and the name of a device.
    return name in _DIRECTORIES or any(line[1:] == [_DEVICES.get(name)] for line in lines)


def load_modules(port: Port, names: Iterable[str], state_dir: pathlib.Path) -> None:
    """Load modules and write the kernel's refusals to a file."""
    refused = []
    for name in names:
        try:
            port.perform(LoadModule(name))
        except OSError as error:
            # modprobe knows what is built in only from files that a kernel may come without.
            if _is_there(port, name):
                continue
            code = errno.errorcode.get(error.errno or 0, str(error.errno))
            refused.append(f"{name}: {code} ({error.strerror})"[:256])
            _log.warning("module %s", refused[-1])
    state_dir.mkdir(parents=True, exist_ok=True)
    (state_dir / _FILE).write_text(json.dumps(refused))


def _is_there(port: Port, name: str) -> bool:
    try:
        return bool(_shows(name, port.perform(_sign(name))))
    except OSError:
        return False


def refused_modules(state_dir: pathlib.Path) -> tuple[str, ...]:
    """Return the modules that could not be loaded, each with the kernel's answer."""
    try:
        with (state_dir / _FILE).open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
        found = json.loads(raw) if len(raw) <= _MOST_BYTES else []
    # The overlay no-modules has no init container, so there may be no file.
    except (OSError, ValueError, RecursionError):
        return ()
    return tuple(one for one in found if isinstance(one, str)) if isinstance(found, list) else ()
