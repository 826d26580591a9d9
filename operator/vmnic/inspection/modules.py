"""Loading of kernel modules by `vmnic agent --load-modules`, and the signs that a module is there.

It runs as the init container, which alone has the right to load modules.

The kernel's refusals are written to a file, from which the agent reports them. The node continues with the modules it has.
"""

from __future__ import annotations

import errno
import json
import logging
import pathlib
from collections.abc import Iterable

from ..host.ops import ListDir, LoadModule, Op, Port, ReadFile, Value

__all__ = ["MODULES", "is_shown", "load_modules", "refused_modules", "sign_of"]

_log = logging.getLogger(__name__)

MODULES = ("vhost_net", "tun", "macvtap", "vfio_pci")
"""Modules that the datapaths of VMs need."""
_MISC = ReadFile("/proc/misc")
_DEVICES = {"vhost_net": "vhost-net", "tun": "tun"}
"""Names of the modules' devices in /proc/misc."""
_DIRECTORIES = {"macvtap": ListDir("/sys/class/macvtap"), "vfio_pci": ListDir("/sys/bus/pci/drivers/vfio-pci")}
_FILE = "modules.json"
_MOST_BYTES = 65_536


def sign_of(name: str) -> Op:
    """Return the read that shows whether the function of a module is there, even if it is built in."""
    return _DIRECTORIES.get(name, _MISC)


def is_shown(name: str, answer: Value) -> bool:
    """Return whether an answer to that read shows the function of a module."""
    # Each line has the minor number and the name of a device.
    lines = (line.split() for line in answer.splitlines()) if isinstance(answer, str) else ()
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
        return is_shown(name, port.perform(sign_of(name)))
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
