"""Registration of one resource with the kubelet.

A registration serves on a new socket, registers, and stays while the kubelet watches. The kubelet connects back while it
handles the registration, so the plugin serves first. If a watch ends while a newer one of the same resource is open, the
kubelet drops the newer one. So a resource is registered again only after its watch has ended. A kubelet that starts removes
every socket in the directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import pathlib
import time
from collections.abc import Awaitable

from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.server import Server

from .api import KUBELET_SOCKET, REGISTER, VERSION, plugin_classes
from .device_info import DeviceInfoFiles
from .inventory import Inventory
from .service import Service
from .socket_watch import DirectoryWatch

__all__ = ["Endpoint", "is_socket_name", "socket_name"]

_log = logging.getLogger(__name__)

_REGISTER_S = 10.0
"""The kubelet stops connecting back after 10 s."""
_LOOK_S = 1.0
"""Interval between checks of the sockets, where inotify reports nothing."""
_SETTLE_S = 0.05
"""The kubelet answers some milliseconds after its socket exists."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
# sun_path has 108 bytes with the final zero (unix(7)).
_PATH_BYTES = 107
"""Maximum length of a Unix socket's path."""
_PREFIX, _SUFFIX = "vmnic-", ".sock"


def socket_name(directory: pathlib.Path, resource: str) -> str:
    """Return the socket name of a resource.

    It is readable as far as the path has room, and a hash makes it unique.
    """
    digest = hashlib.sha256(resource.encode()).hexdigest()[:8]
    room = _PATH_BYTES - len(bytes(directory)) - len(f"/{_PREFIX}-{digest}{_SUFFIX}")
    readable = resource.rpartition("/")[2][: max(room, 0)]
    return f"{_PREFIX}{readable}-{digest}{_SUFFIX}"


def is_socket_name(name: str) -> bool:
    """Return whether a socket in the kubelet's directory belongs to a vmnic agent."""
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


class Endpoint:
    """Keeps one resource registered with the kubelet.

    Args:
        resource: Name of the resource.
        directory: The kubelet's directory of device plugins.
        inventory: The devices.
        files: The device-info files.
        watch: Reports when the kubelet's socket appears or disappears.
    """

    def __init__(
        self, resource: str, directory: pathlib.Path, inventory: Inventory, files: DeviceInfoFiles, watch: DirectoryWatch
    ) -> None:
        self._resource = resource
        self._kubelet = directory / KUBELET_SOCKET
        self._path = directory / socket_name(directory, resource)
        self._inventory = inventory
        self._files = files
        self._watch = watch
        self._service: Service | None = None
        self._said = ""

    @property
    def has_unsent_update(self) -> bool:
        """Return whether the kubelet watches and has not been sent the newest list."""
        return self._service is not None and self._service.has_unsent_update

    async def run(self) -> None:
        """Register, and register again whenever the kubelet stops watching, until cancelled."""
        pause = _FIRST_PAUSE_S
        while True:
            kubelet = _identity(self._kubelet)
            if kubelet is None:
                self._say("no kubelet answers at %s", self._kubelet)
                await self._first_of(self._watch.changed(), limit_s=_LOOK_S)
                await asyncio.sleep(_SETTLE_S if _identity(self._kubelet) else 0)
                continue
            began = time.monotonic()
            try:
                await self._stay(kubelet)
            except Exception as error:
                # The libraries below raise many kinds of errors. The resource must be registered again after any of them.
                self._say("cannot register at %s: %s", self._kubelet, str(error) or type(error).__name__)
            # A registration that lasted was no failure, so it does not lengthen the pause.
            pause = _FIRST_PAUSE_S if time.monotonic() - began > _LONGEST_PAUSE_S else min(2 * pause, _LONGEST_PAUSE_S)
            # A kubelet that has just started needs no pause: the registration ended because of the restart.
            if _identity(self._kubelet) == kubelet:
                await self._first_of(self._watch.changed(), limit_s=pause)
            await asyncio.sleep(_SETTLE_S)

    async def _stay(self, kubelet: tuple[int, int]) -> None:
        """Serve, register and stay as long as this kubelet watches."""
        service = Service(self._resource, self._inventory, self._files)
        server = Server([service])
        await server.start(path=str(self._path))
        own = _identity(self._path)
        self._service = service
        try:
            async with asyncio.timeout(_REGISTER_S):
                await self._register(service)
                await service.opened.wait()
            self._said = ""
            _log.info("%s is registered with the kubelet", self._resource, extra={"resource": self._resource})
            while not service.closed.is_set() and (_identity(self._kubelet), _identity(self._path)) == (kubelet, own):
                await self._first_of(service.closed.wait(), self._watch.changed(), limit_s=_LOOK_S)
        finally:
            self._service = None
            service.stop()
            await _close(server, service)
            # A newer agent may already serve under the same name.
            if own is not None and _identity(self._path) == own:
                self._path.unlink(missing_ok=True)

    async def _register(self, service: Service) -> None:
        classes = plugin_classes()
        request = classes["RegisterRequest"](
            version=VERSION, endpoint=self._path.name, resource_name=self._resource, options=service.make_options()
        )
        async with Channel(path=str(self._kubelet)) as channel:
            register = UnaryUnaryMethod(channel, REGISTER, classes["RegisterRequest"], classes["Empty"])
            await register(request)

    async def _first_of(self, *waits: Awaitable[object], limit_s: float) -> None:
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        try:
            await asyncio.wait(tasks, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    def _say(self, text: str, *values: object) -> None:
        """Log what prevents the registration, unless it was logged last."""
        message = text % values
        if message != self._said:
            self._said = message
            _log.warning("%s: %s", self._resource, message, extra={"resource": self._resource})


async def _close(server: Server, service: Service) -> None:
    """Let the streams end by themselves before the server closes.

    If the server only closes, the kubelet keeps a dead stream.
    """
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                if service.opened.is_set():
                    await service.closed.wait()
    finally:
        server.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LOOK_S):
            await server.wait_closed()


def _identity(path: pathlib.Path) -> tuple[int, int] | None:
    """Return inode and change time of a socket, which differ for a later one of the same name.

    Returns:
        None if the socket does not exist.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    # The file system may give a new socket the inode of the old one.
    return found.st_ino, found.st_ctime_ns
