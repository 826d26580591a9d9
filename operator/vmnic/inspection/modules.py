"""Loading of kernel modules by `vmnic agent --load-modules`.

It runs as the init container, which alone has the right to load modules.

The kernel's refusals are written to a file, from which the agent reports them. The node continues with the modules it has.
"""

from __future__ import annotations

import errno
import json
import logging
import pathlib
from collections.abc import Iterable

from ..host.ops import LoadModule, Port

__all__ = ["MODULES", "load_modules", "refused_modules"]

_log = logging.getLogger(__name__)

MODULES = ("vhost_net", "tun", "macvtap", "vfio_pci")
"""Modules that the datapaths of VMs need."""
_FILE = "modules.json"
_MOST_BYTES = 65_536


def load_modules(port: Port, names: Iterable[str], state_dir: pathlib.Path) -> None:
    """Load modules and write the kernel's refusals to a file."""
    refused = []
    for name in names:
        try:
            port.perform(LoadModule(name))
        except OSError as error:
            code = errno.errorcode.get(error.errno or 0, str(error.errno))
            refused.append(f"{name}: {code} ({error.strerror})"[:256])
            _log.warning("module %s", refused[-1])
    state_dir.mkdir(parents=True, exist_ok=True)
    (state_dir / _FILE).write_text(json.dumps(refused))


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
