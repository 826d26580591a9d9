"""Keeps the webhook's certificates fresh without a restart.

Every replica looks at the shared Secret and gives its TLS server a new serving certificate in time, which counts from the next
handshake on. The leader makes new authorities, and tells the API server whom to trust before anything is signed with them.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import logging
import ssl
from collections.abc import Callable
from typing import Any

from ...kube.client import ApiClient, ConflictError
from ...kube.errors import ApiError, NotLeadingError
from ...kube.resources import MUTATING_WEBHOOKS, SECRETS
from .certificates import Authorities, Authority, Lifetimes, load_serving_certificate, merge_bundle, rotate

__all__ = ["AUTHORITY_SECRET", "Certificates"]

_log = logging.getLogger(__name__)

AUTHORITY_SECRET = "vmnic-webhook-ca"  # noqa: S105 - the name of an object, not a secret
_WEBHOOK = "vmnic"


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Certificates:
    """The certificates of one replica.

    Args:
        reads: A client for the shared Secret, which any replica may make.
        writes: The leader's client.
        namespace: Where the Secret is.
        hosts: Names or addresses that the API server reaches the webhook by.
        lifetimes: How long certificates live.
        clock: Gives the time in UTC.
    """

    def __init__(
        self,
        reads: ApiClient,
        writes: ApiClient,
        namespace: str,
        hosts: tuple[str, ...],
        *,
        lifetimes: Lifetimes,
        clock: Callable[[], dt.datetime] = _now,
    ) -> None:
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        """What the webhook's server uses; it stays the same object."""
        self.loaded = asyncio.Event()
        """There is a certificate to serve."""
        self._reads = reads
        self._writes = writes
        self._namespace = namespace
        self._hosts = hosts
        self._lifetimes = lifetimes
        self._clock = clock
        self._signed_by = b""
        self._fresh_until = dt.datetime.min.replace(tzinfo=dt.UTC)

    async def refresh(self) -> None:
        """Serve a certificate that the current authority has signed and that is not about to expire.

        Raises:
            ApiError: the Secret can neither be read nor made.
        """
        shared, _ = await self._read()
        if shared is None:
            shared = await self._create()
        now = self._clock()
        if shared.current.certificate == self._signed_by and now < self._fresh_until:
            return
        until = load_serving_certificate(self.context, shared.current, self._hosts, now, self._lifetimes)
        self._signed_by = shared.current.certificate
        self._fresh_until = until - (until - now) / 3
        self.loaded.set()
        _log.info("the webhook serves a new certificate until %s", until.isoformat(timespec="seconds"))

    async def lead(self) -> None:
        """Rotate authorities and tell the API server whom to trust, once.

        Raises:
            ApiError: an object cannot be read or written.
        """
        configuration = await self._writes.read(MUTATING_WEBHOOKS, _WEBHOOK)
        if configuration is None:
            _log.warning("MutatingWebhookConfiguration %s is not there: new VMs are not patched at admission", _WEBHOOK)
        webhooks = [] if configuration is None else configuration.get("webhooks", [])
        found, version = await self._read()
        shared = rotate(found, [_bundle(webhook) for webhook in webhooks], self._clock(), self._lifetimes)
        if shared != found:
            await self._save(shared, version)
        operations = []
        for index, webhook in enumerate(webhooks):
            present = _bundle(webhook)
            wanted = merge_bundle(present, shared, self._clock())
            if wanted != present:
                path = f"/webhooks/{index}/clientConfig/caBundle"
                operations.append({"op": "add", "path": path, "value": _encoded(wanted)})
        if operations:
            await self._writes.patch_json(MUTATING_WEBHOOKS, _WEBHOOK, operations)

    async def keep_fresh(self) -> None:
        """Refresh for ever; what fails is tried again."""
        await self._repeat(self.refresh)

    async def keep_leading(self) -> None:
        """Lead for ever; what fails is tried again."""
        await self._repeat(self.lead)

    async def _repeat(self, work: Callable[[], Any]) -> None:
        while True:
            try:
                await work()
            except (ApiError, NotLeadingError) as error:
                _log.warning("the webhook's certificates could not be looked after: %s", error)
            await asyncio.sleep(self._lifetimes.check.total_seconds())

    async def _create(self) -> Authorities:
        """Make the first authority, or find that another replica has."""
        made = rotate(None, [], self._clock(), self._lifetimes)
        try:
            await self._reads.create(SECRETS, _secret(made, self._namespace), self._namespace)
        except ConflictError:
            found, _ = await self._read()
            return found or made
        return made

    async def _save(self, shared: Authorities, version: str) -> None:
        body = _secret(shared, self._namespace)
        if not version:
            await self._writes.create(SECRETS, body, self._namespace)
            return
        body["metadata"]["resourceVersion"] = version
        await self._writes.replace(SECRETS, body, AUTHORITY_SECRET, self._namespace)

    async def _read(self) -> tuple[Authorities | None, str]:
        """Give what is shared, and the version that it was read at; a Secret that cannot be understood is made anew."""
        found = await self._reads.read(SECRETS, AUTHORITY_SECRET, self._namespace)
        if found is None:
            return None, ""
        data = found.get("data") or {}
        current, coming = _authority(data, "tls"), _authority(data, "next")
        return None if current is None else Authorities(current, coming), found["metadata"]["resourceVersion"]


def _bundle(webhook: dict[str, Any]) -> bytes:
    try:
        return base64.b64decode(webhook["clientConfig"].get("caBundle") or "")
    except ValueError:
        return b""


def _authority(data: dict[str, str], name: str) -> Authority | None:
    try:
        authority = Authority(base64.b64decode(data[f"{name}.crt"]), base64.b64decode(data[f"{name}.key"]))
        return authority if authority.is_whole else None
    except (KeyError, ValueError, TypeError):
        return None


def _secret(shared: Authorities, namespace: str) -> dict[str, Any]:
    data = {"tls.crt": _encoded(shared.current.certificate), "tls.key": _encoded(shared.current.key)}
    if shared.next is not None:
        data |= {"next.crt": _encoded(shared.next.certificate), "next.key": _encoded(shared.next.key)}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": AUTHORITY_SECRET, "namespace": namespace},
        "type": "kubernetes.io/tls",
        "data": data,
    }


def _encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
