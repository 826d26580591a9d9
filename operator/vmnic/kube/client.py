"""API client with typed errors, JSON Patch, chunked lists, watches, and a guard on every write.

`kubernetes.aio` takes 80 MB of memory, while the agent may use 64 MB, and it decodes whole lists. So requests are made with
aiohttp, and objects of lists and watches stay undecoded.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self, TypeVar

import aiohttp
import msgspec

from ..checked.documents import prune
from ..checked.quantities import read_integer
from .connection import Connection
from .errors import ApiError, ConflictError, NotFoundError, NotLeadingError, UnreachableError, error_for
from .resources import Resource
from .write_rate import WriteRate

__all__ = ["ApiClient", "ApiError", "ConflictError", "NotFoundError", "NotLeadingError", "WatchEvent"]

T = TypeVar("T")

_JSON_PATCH = "application/json-patch+json"
_MERGE_PATCH = "application/merge-patch+json"
_CONNECTIONS = 20
"""Concurrent requests: the controller's workers, Events and reports. Watches have connections of their own."""
_CHUNK = 500
"""Objects per page, the same as in client-go."""
_OVERLOADED = (0, 429, 503, 504)
"""HTTP statuses of a server that cannot keep up. 0 means that it did not answer."""


class _Page(msgspec.Struct):
    items: list[msgspec.Raw] = []
    metadata: dict[str, Any] = {}


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class WatchEvent(NamedTuple):
    """One event of a watch."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    raw: msgspec.Raw


_page_decoder = msgspec.json.Decoder(_Page)
_event_decoder = msgspec.json.Decoder(_Event)


class ApiClient:
    """Sends requests to one API server as one field manager.

    Args:
        connection: Address and credentials.
        field_manager: Name that the server records as the writer of fields.
        timeout_s: Maximum wait for an answer, in seconds.
        writes_per_s: Initial rate limit for writes, which adapts to the server's answers. None means no limit.
        guard: Returns the seconds in which this process may still write, or None if it may not. It is called before every write
            and bounds the write's timeout. A leader's client uses a lease's `seconds_left`.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        field_manager: str,
        timeout_s: float = 10.0,
        writes_per_s: float | None = None,
        guard: Callable[[], float | None] | None = None,
    ) -> None:
        self.connection = connection
        self.writes: Counter[str] = Counter()
        """Number of writes sent, by verb and kind."""
        self._manager = field_manager
        self._timeout_s = timeout_s
        self._guard = guard
        self._rate = WriteRate(writes_per_s, time.monotonic) if writes_per_s is not None else None
        self._session: aiohttp.ClientSession | None = None
        self._watches: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self.connection.tls, limit=_CONNECTIONS))
        # A session of its own: the controller's 16 watches would use up the limit on connections, and no request could be sent.
        self._watches = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self.connection.tls, limit=0), read_bufsize=2**20
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in (self._session, self._watches):
            if session is not None:
                await session.close()

    async def read(self, resource: Resource, name: str, namespace: str = "") -> dict[str, Any] | None:
        """Return one object, or None if it does not exist.

        Raises:
            ApiError: the server refused or did not answer.
        """
        try:
            answer: dict[str, Any] = await self._request("GET", resource.path(namespace, name))
        except NotFoundError:
            return None
        return answer

    async def create(
        self, resource: Resource, body: Mapping[str, Any], namespace: str = "", *, name: str = "", subresource: str = ""
    ) -> dict[str, Any]:
        """Create an object, or a subresource of a named object, such as a pod's eviction.

        Raises:
            ConflictError: it exists already.
        """
        path = resource.path(namespace, name, subresource) if name else resource.collection_path(namespace)
        return await self._write("POST", resource, path, body)

    async def replace(
        self, resource: Resource, body: Mapping[str, Any], name: str, namespace: str = "", *, subresource: str = ""
    ) -> dict[str, Any]:
        """Replace an object, or call its subresource with PUT.

        If `metadata.resourceVersion` is set, it must be the current one.

        Raises:
            ConflictError: the object has changed since it was read.
        """
        return await self._write("PUT", resource, resource.path(namespace, name, subresource), body)

    async def delete(self, resource: Resource, name: str, namespace: str = "") -> None:
        """Delete an object.

        One that does not exist is no error.

        Raises:
            ApiError: the server refused or did not answer.
        """
        try:
            await self._write("DELETE", resource, resource.path(namespace, name), None)
        except NotFoundError:
            return

    async def patch_json(
        self,
        resource: Resource,
        name: str,
        operations: Sequence[Mapping[str, Any]],
        namespace: str = "",
        *,
        subresource: str = "",
    ) -> dict[str, Any]:
        """Apply a JSON Patch.

        Raises:
            InvalidError: a `test` operation failed, or the result violates a rule.
        """
        path = resource.path(namespace, name, subresource)
        return await self._write("PATCH", resource, path, operations, content_type=_JSON_PATCH)

    async def patch_merge(
        self, resource: Resource, name: str, body: Mapping[str, Any], namespace: str = "", *, subresource: str = ""
    ) -> dict[str, Any]:
        """Apply a JSON merge patch.

        If it contains `metadata.resourceVersion`, that must be the current one.

        Raises:
            ConflictError: the object has changed since it was read.
        """
        path = resource.path(namespace, name, subresource)
        return await self._write("PATCH", resource, path, body, content_type=_MERGE_PATCH)

    async def list_pages(
        self, resource: Resource, namespace: str = "", *, selectors: Mapping[str, str] | None = None
    ) -> AsyncIterator[tuple[list[msgspec.Raw], str]]:
        """Yield the objects page by page, undecoded, with the resourceVersion of the list.

        Raises:
            GoneError: the list took too long. The caller starts again.
        """
        parameters = {"limit": str(_CHUNK), **(selectors or {})}
        while True:
            raw = await self._request("GET", resource.collection_path(namespace), parameters=parameters, decode=False)
            page = await _decode(_page_decoder, raw)
            yield page.items, page.metadata.get("resourceVersion", "")
            if not page.metadata.get("continue"):
                return
            parameters["continue"] = page.metadata["continue"]

    async def watch(
        self,
        resource: Resource,
        version: str,
        *,
        selectors: Mapping[str, str] | None = None,
        lasts_s: int,
        silent_s: float,
    ) -> AsyncIterator[WatchEvent]:
        """Yield changes since a resourceVersion until the server ends the watch.

        Args:
            resource: The kind.
            version: The resourceVersion to continue from.
            selectors: `fieldSelector`, `labelSelector`.
            lasts_s: How long the server is asked to keep the watch, in seconds.
            silent_s: Silence in seconds after which the connection counts as dead. Bookmarks come every minute.

        Raises:
            GoneError: the version is too old.
            UnreachableError: the connection broke or fell silent.
        """
        assert self._watches is not None
        parameters = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(lasts_s),
            **(selectors or {}),
        }
        # No total limit, because a healthy watch lasts for minutes. `sock_read` finds a connection whose other end is gone.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout_s, sock_read=silent_s)
        url = self.connection.server + resource.collection_path()
        try:
            async with self._watches.get(url, params=parameters, headers=self._headers(), timeout=timeout) as response:
                if response.status >= 300:
                    raise error_for(response.status, _decoded(await response.read()), response.headers.get("Retry-After"))
                async for line in _lines(response.content):
                    event = await _decode(_event_decoder, line)
                    # An expired version is an event if the server has already answered 200, and the HTTP status 410 otherwise.
                    if event.type == "ERROR":
                        raise _watch_error(_decoded(bytes(event.object)))
                    yield WatchEvent(event.type, event.object)  # type: ignore[arg-type]  # the server's words
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(self.connection, error) from error

    async def _write(
        self,
        verb: str,
        resource: Resource,
        path: str,
        body: object,
        *,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        if self._rate is not None:
            await asyncio.sleep(self._rate.reserve())
        timeout_s = self._timeout_s
        # Asked after the wait for the rate limit, because the lease may run out meanwhile.
        if self._guard is not None:
            left_s = self._guard()
            if left_s is None or left_s <= 0:
                raise NotLeadingError(f"{verb} {path}: the lease has run out")
            timeout_s = min(timeout_s, left_s)
        kind = f"{verb} {resource.plural}"
        self.writes[kind] += 1
        parameters = {"fieldManager": self._manager}
        started = time.monotonic()
        try:
            answer: dict[str, Any] = await self._request(
                verb, path, parameters=parameters, body=body, content_type=content_type, timeout_s=timeout_s
            )
        except ApiError as error:
            # An eviction gets 429 if a PodDisruptionBudget forbids it, which says nothing about the server.
            if self._rate is not None and error.status in _OVERLOADED and not path.endswith("/eviction"):
                self._rate.record_refusal(error.retry_after_s)
            raise
        if self._rate is not None:
            self._rate.record_answer(kind, time.monotonic() - started)
        return answer

    async def _request(
        self,
        verb: str,
        path: str,
        *,
        parameters: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
        timeout_s: float | None = None,
        decode: bool = True,
    ) -> Any:
        assert self._session is not None, "use the client as a context manager"
        data = None if body is None else msgspec.json.encode(body)
        timeout = aiohttp.ClientTimeout(total=timeout_s or self._timeout_s)
        try:
            async with self._session.request(
                verb,
                self.connection.server + path,
                params=parameters,
                data=data,
                timeout=timeout,
                headers=self._headers() | {"Content-Type": content_type},
            ) as response:
                raw = await response.read()
                if response.status >= 300:
                    raise error_for(response.status, _decoded(raw), response.headers.get("Retry-After"))
                return (_decoded(raw) if raw else {}) if decode else raw
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(self.connection, error) from error

    def _headers(self) -> dict[str, str]:
        token = self.connection.token()
        # KubeVirt's subresources answer in no declared format, and require that any format is accepted.
        return {"Accept": "application/json, */*"} | ({"Authorization": f"Bearer {token}"} if token else {})


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Split a stream into lines of any length. aiohttp's own reader refuses long ones."""
    rest = b""
    async for chunk in stream.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield line


async def _decode(decoder: msgspec.json.Decoder[T], raw: bytes) -> T:
    """Decode a page or an event.

    If an object in it is nested too deeply, that is pruned in another thread.
    """
    try:
        return decoder.decode(raw)
    except RecursionError:
        # In a thread, because pruning 1 MB of brackets takes about a second.
        return decoder.decode(await asyncio.to_thread(prune, raw))


def _decoded(raw: bytes) -> Any:
    """Decode an answer, or return its text if it is not JSON."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Proxies and aggregated API servers also answer in plain text or HTML.
        return raw.decode(errors="replace")


def _watch_error(status: Any) -> ApiError:
    """Return the error for an ERROR event, which contains a Status."""
    code = read_integer(status.get("code"), 100, 599) if isinstance(status, dict) else None
    return error_for(code or 500, status)


def _unreachable(connection: Connection, error: BaseException) -> UnreachableError:
    text = str(error) or type(error).__name__
    return UnreachableError(status=0, reason="Unreachable", message=f"{connection.server}: {text}")
