"""Rotation of the webhook's certificates without a restart.

Every replica reads the shared Secret and gives its TLS server a new serving certificate in time, which takes effect at the next
handshake. The leader makes new authorities, and has the API server trust them before they sign anything. An unusable Secret is
logged once. Replicas without a certificate are not ready until the leader has replaced the Secret's content.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import logging
import pathlib
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from ...json_patch import add
from ...kube.client import ApiClient, ConflictError
from ...kube.errors import ApiError, InvalidError, NotLeadingError
from ...kube.resources import MUTATING_WEBHOOKS, SECRETS
from .certificates import (
    Authorities,
    Authority,
    CertificateError,
    Lifetimes,
    load_serving_certificate,
    merge_bundle,
    rotate,
)
from .client_ca import ClientAuthority, ClientAuthorityError

__all__ = ["AUTHORITY_SECRET", "Certificates", "ClientAuthorityError"]

_log = logging.getLogger(__name__)

AUTHORITY_SECRET = "vmnic-webhook-ca"  # noqa: S105 - the name of an object, not a secret
_WEBHOOK = "vmnic"
_RETRY_S = 2.0
_EXPECTED = (ApiError, NotLeadingError, CertificateError, ClientAuthorityError)


class _Shared(NamedTuple):
    """Content of the Secret."""

    authorities: Authorities | None
    """None if there are no usable ones."""
    version: str
    """The resourceVersion. Empty if there is no Secret."""
    problem: str = ""
    """Why the current authority is unusable."""
    type: str = "kubernetes.io/tls"
    """Type of the Secret, which is immutable."""


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Certificates:
    """Certificates of one replica.

    The webhook's thread keeps the serving certificate fresh, because a TLS context must not change during a handshake. The main
    loop does the leader's part.

    Args:
        reads: A client for the shared Secret, which any replica may create. It is opened in the webhook's thread.
        writes: The leader's client.
        namespace: Namespace of the Secret.
        hosts: Names or addresses under which the API server reaches the webhook.
        lifetimes: Validity of certificates.
        clock: Returns the time in UTC.
        client_ca: File with the authority of the API server's client certificate. None permits any client.

    Raises:
        ClientAuthorityError: the file cannot be used.
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
        client_ca: pathlib.Path | None = None,
    ) -> None:
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        """TLS context of the webhook's server. It stays the same object."""
        self.loaded = asyncio.Event()
        """Set once there is a certificate to serve."""
        self._client_authority = ClientAuthority(client_ca, self.context) if client_ca is not None else None
        self._reads = reads
        self._writes = writes
        self._namespace = namespace
        self._hosts = hosts
        self._lifetimes = lifetimes
        self._clock = clock
        self._signed_by = b""
        self._fresh_until = dt.datetime.min.replace(tzinfo=dt.UTC)

    async def refresh(self) -> None:
        """Load a new serving certificate if the current one is about to expire or has another issuer.

        Raises:
            ApiError: the Secret can neither be read nor created.
            CertificateError: the leader has to replace the authority first.
        """
        shared = await self._read(self._reads)
        if not shared.version:
            shared = await self._create()
        now = self._clock()
        if shared.authorities is None:
            raise CertificateError(self._unusable(shared.problem))
        current = shared.authorities.current
        if current.certificate == self._signed_by and now < self._fresh_until:
            return
        try:
            until = load_serving_certificate(self.context, current, self._hosts, now, self._lifetimes)
        except CertificateError as error:
            raise CertificateError(self._unusable(str(error))) from None
        self._signed_by = current.certificate
        # The last third remains for retries, if the Secret cannot be read.
        self._fresh_until = until - (until - now) / 3
        self.loaded.set()
        _log.info("the webhook serves a new certificate until %s", until.isoformat(timespec="seconds"))

    def _unusable(self, problem: str) -> str:
        return (
            f"the webhook waits for another authority in Secret {self._namespace}/{AUTHORITY_SECRET}: {problem}; "
            f"the leader makes one, unless clocks differ: here it is {self._clock():%Y-%m-%d}"
        )

    async def lead(self) -> None:
        """Rotate authorities and update the bundles that the API server trusts, once.

        Raises:
            ApiError: an object cannot be read or written.
        """
        configuration = await self._writes.read(MUTATING_WEBHOOKS, _WEBHOOK)
        if configuration is None:
            _log.warning("there is no MutatingWebhookConfiguration %s: new VMs are not patched at admission", _WEBHOOK)
        webhooks = [] if configuration is None else configuration.get("webhooks", [])
        found = await self._read(self._writes)
        if found.problem:
            _log.warning("the authority in Secret %s is replaced: %s", AUTHORITY_SECRET, found.problem)
        bundles = [_bundle(webhook) for webhook in webhooks]
        shared = rotate(found.authorities, bundles, self._clock(), self._lifetimes)
        # The Secret comes first: if the process ends between the writes, the next round announces what is stored. In the other
        # order, the API server would trust an authority whose key is lost.
        if shared != found.authorities:
            await self._save(shared, found)
        operations = []
        for index, present in enumerate(bundles):
            wanted = merge_bundle(present, shared, self._clock())
            if wanted != present:
                path = f"/webhooks/{index}/clientConfig/caBundle"
                operations.append(add(path, _encoded(wanted)))
        if operations:
            await self._writes.patch_json(MUTATING_WEBHOOKS, _WEBHOOK, operations)

    async def keep_fresh(self) -> None:
        """Refresh periodically until cancelled.

        Failures are retried.
        """

        async def round_() -> None:
            if self._client_authority is not None:
                self._client_authority.reload()
            await self.refresh()

        await self._repeat(round_)

    async def keep_leading(self) -> None:
        """Perform the leader's part periodically until cancelled.

        Failures are retried.
        """
        await self._repeat(self.lead)

    async def _repeat(self, work: Callable[[], Awaitable[None]]) -> None:
        """Repeat a round until cancelled.

        No exception ends it, because foreign Secrets can cause them. Each is logged once.
        """
        check_s, reported = self._lifetimes.check.total_seconds(), ""
        while True:
            pause_s = check_s
            try:
                await work()
                reported = ""
            except Exception as error:
                pause_s = min(check_s, _RETRY_S)
                message = str(error) or type(error).__name__
                if message != reported:
                    trace = None if isinstance(error, _EXPECTED) else error
                    _log.warning("the webhook's certificates are not up to date: %s", message, exc_info=trace)
                reported = message
            await asyncio.sleep(pause_s)

    async def _create(self) -> _Shared:
        """Create the Secret with a first authority, or read the one that another replica created."""
        made = rotate(None, [], self._clock(), self._lifetimes)
        try:
            await self._reads.create(SECRETS, _secret(made, self._namespace), self._namespace)
        except ConflictError:
            return await self._read(self._reads)
        return _Shared(made, "")

    async def _save(self, shared: Authorities, found: _Shared) -> None:
        body = _secret(shared, self._namespace) | {"type": found.type}
        if not found.version:
            await self._writes.create(SECRETS, body, self._namespace)
            return
        body["metadata"]["resourceVersion"] = found.version
        try:
            await self._writes.replace(SECRETS, body, AUTHORITY_SECRET, self._namespace)
        # A Secret with `immutable: true` can only be deleted.
        except InvalidError as error:
            remedy = f"`kubectl delete secret {AUTHORITY_SECRET} -n {self._namespace}` lets vmnic make it again"
            raise CertificateError(f"{error.message}: {remedy}") from error

    async def _read(self, api: ApiClient) -> _Shared:
        """Read the Secret.

        An unusable authority counts as none.
        """
        found = await api.read(SECRETS, AUTHORITY_SECRET, self._namespace)
        if found is None:
            return _Shared(None, "")
        data, now = found.get("data") or {}, self._clock()
        current, coming = _authority(data, "tls"), _authority(data, "next")
        problem, version = current.problem(now), found["metadata"]["resourceVersion"]
        # A next authority that cannot sign is dropped, and another one is announced in its place.
        shared = None if problem else Authorities(current, None if coming.problem(now) else coming)
        return _Shared(shared, version, problem, found.get("type") or "Opaque")


def _bundle(webhook: dict[str, Any]) -> bytes:
    try:
        return base64.b64decode(webhook["clientConfig"].get("caBundle") or "")
    except ValueError:
        return b""


def _authority(data: dict[str, str], name: str) -> Authority:
    """Decode an authority.

    A part that is missing or not base64 becomes empty, which `Authority.problem` reports.
    """

    def part(key: str) -> bytes:
        try:
            return base64.b64decode(data.get(f"{name}.{key}") or "")
        except (ValueError, TypeError):
            return b""

    return Authority(part("crt"), part("key"))


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
