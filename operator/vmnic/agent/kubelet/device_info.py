"""Device-info files, from which Multus tells CNI plugins and KubeVirt about a pod's devices.

The network plumbing specification defines them.
"""

from __future__ import annotations

import logging
import pathlib
import re

from .allocation import render_device_info
from .devices import Device

__all__ = ["DeviceInfoFiles"]

_log = logging.getLogger(__name__)
_ADDRESS = r"([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])"


class DeviceInfoFiles:
    """The device-info files of one node, named `RESOURCE-ADDRESS-device.json` with dashes for slashes."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory

    def write(self, resource: str, device: Device) -> None:
        """Write the file of a device.

        A failure is only logged, so that it never refuses a pod.
        """
        path = self._directory / f"{_prefix(resource)}{device.address}-device.json"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            path.write_text(render_device_info(device))
        except OSError as error:
            _log.error("%s: %s: mount the directory of device-info files for the agent", path, error.strerror)

    def keep(self, resource: str, addresses: set[str]) -> None:
        """Remove the files of a resource's other devices, including those that an earlier agent wrote."""
        # The glob alone would also match files of a resource whose name goes on after a dash.
        ours = re.compile(re.escape(_prefix(resource)) + _ADDRESS + r"-device\.json")
        try:
            for path in self._directory.glob(f"{_prefix(resource)}*-device.json"):
                match = ours.fullmatch(path.name)
                if match is not None and match[1] not in addresses:
                    path.unlink(missing_ok=True)
        except OSError as error:
            _log.error("%s: %s: device-info files of withdrawn devices stay", self._directory, error.strerror)


def _prefix(resource: str) -> str:
    return f"{resource.replace('/', '-')}-"
