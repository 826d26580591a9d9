"""An API server for one kind, for agents in guests. It keeps NodeNicStates, and grants plans as the controller does.

It runs in a thread here and serves TLS at a loopback port. An online guest reaches it at 10.0.2.2.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import pathlib
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jsonpatch
import msgspec
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.harness.certificates import _builder, _name
from tests.harness.processes import free_port
from vmnic.api.node_state import APPROVED, HostSpec, NodeNicState, NodeSpec, PfSpec, wire
from vmnic.cli.approve import approve_plans

__all__ = ["NODE", "NodeApi"]

NODE = "n1"
_HOSTS = ("127.0.0.1", *(f"10.0.{number}.2" for number in range(2, 9)))
"""Every QEMU user network maps its address 2 to this machine."""


class NodeApi:
    """The API server, which can stop and start again at the same port."""

    def __init__(self, directory: pathlib.Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self.granting = True
        """Whether every harmless plan is granted as soon as it is reported."""
        self.writes = 0
        """Number of statuses written."""
        self.claims: list[str] = []
        """States of changes in the order in which they were reported."""
        self.when_ready: Callable[[], object] = lambda: None
        """Called when the present spec is reported as applied, before the report is answered."""
        self._object: dict[str, Any] = {}
        self._version = 1
        self._watchers: list[asyncio.Queue[str | None]] = []
        self._loop = asyncio.new_event_loop()
        self._tls = _write_pki(directory)
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._runner: web.AppRunner | None = None
        self.ask()

    def ask(self, *pfs: PfSpec, synced: bool = True, modules: tuple[str, ...] = ()) -> None:
        """Write the spec. Earlier grants are dropped."""
        # The spec as it is decoded from JSON, because a grant compares it with itself.
        spec = json.loads(json.dumps(wire(NodeSpec(synced=synced, pfs=pfs, host=HostSpec(modules=modules)))))
        self._call(self._ask(spec))

    def forget(self) -> None:
        """Drop the status and ask for nothing, as for a new node."""
        self._object.pop("status", None)
        self.ask()

    def grant(self, pf: str) -> None:
        """Grant the plan that is reported for a PF, even if it is disruptive."""
        self._call(self._grant_one(pf))

    def approve(self) -> None:
        """Approve all reported plans, as `kubectl vmnic approve` does."""
        self._call(self._annotate({APPROVED: approve_plans(self.state(), None).value}))

    def state(self) -> NodeNicState:
        """Return the present object."""
        return msgspec.convert(json.loads(json.dumps(self._object)), NodeNicState)

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Stop the server until the block ends."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def start(self) -> None:
        self._call(self._start())

    def stop(self) -> None:
        self._call(self._stop())

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    async def _ask(self, spec: dict[str, Any]) -> None:
        generation = self._object.get("metadata", {}).get("generation", 0) + 1
        meta = {"name": NODE, "uid": "1", "generation": generation}
        self._store({"metadata": meta, "spec": spec, "status": self._object.get("status", {})})

    async def _grant_one(self, address: str) -> None:
        self._grant(lambda pf: pf["pciAddress"] == address)

    async def _annotate(self, annotations: dict[str, str]) -> None:
        self._store(self._object | {"metadata": self._object["metadata"] | {"annotations": annotations}})

    def _store(self, body: dict[str, Any]) -> None:
        self._version += 1
        fixed = {"apiVersion": "vmnic.dev/v1alpha1", "kind": "NodeNicState"}
        kind = "MODIFIED" if self._object else "ADDED"
        self._object = fixed | body | {"metadata": body["metadata"] | {"resourceVersion": str(self._version)}}
        line = json.dumps({"type": kind, "object": self._object})
        for queue in self._watchers:
            queue.put_nowait(line)

    def _grant(self, which: Any) -> None:
        """Write digests of reported plans into the spec."""
        plans = {pf["pciAddress"]: pf["plan"] for pf in self._object["status"].get("pfs", []) if pf.get("plan")}
        spec = json.loads(json.dumps(self._object["spec"]))
        for pf in spec.get("pfs", []):
            plan = plans.get(pf["pciAddress"])
            if plan is not None and which(pf):
                pf["grant"] = plan["digest"]
        if spec != self._object["spec"]:
            meta = self._object["metadata"]
            self._store(self._object | {"spec": spec, "metadata": meta | {"generation": meta["generation"] + 1}})

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/apis/vmnic.dev/v1alpha1/nodenicstates{rest:.*}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls, reuse_address=True).start()

    async def _stop(self) -> None:
        for queue in self._watchers:
            queue.put_nowait(None)
        self._watchers = []
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        rest = request.match_info["rest"]
        if request.query.get("watch"):
            return await self._watch(request)
        if request.method == "GET":
            listed = {"metadata": {"resourceVersion": str(self._version)}, "items": [self._object]}
            return web.json_response(self._object if rest else listed)
        if request.method == "PATCH" and rest == f"/{NODE}/status":
            return self._patch(await request.json())
        return web.json_response({"kind": "Status", "code": 405, "message": "not served"}, status=405)

    def _patch(self, operations: list[dict[str, Any]]) -> web.Response:
        """Apply a patch to the status only, as the subresource does.

        A `test` that fails gives 422, as the API server answers.
        """
        try:
            patched = jsonpatch.apply_patch(self._object, operations)
        except jsonpatch.JsonPatchException as error:
            return web.json_response({"kind": "Status", "code": 422, "reason": "Invalid", "message": str(error)}, status=422)
        self.writes += 1
        if _is_ready(patched):
            self.when_ready()
        self._store(self._object | {"status": patched.get("status", {})})
        for pf in patched.get("status", {}).get("pfs", []):
            if pf.get("apply") and (not self.claims or self.claims[-1] != pf["apply"]["state"]):
                self.claims.append(pf["apply"]["state"])
        if self.granting:
            harmless = {pf["pciAddress"] for pf in self._object["status"]["pfs"] if pf.get("plan") and _is_harmless(pf)}
            self._grant(lambda pf: pf["pciAddress"] in harmless)
        return web.json_response(self._object)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        if int(request.query.get("resourceVersion") or 0) < self._version:
            queue.put_nowait(json.dumps({"type": "MODIFIED", "object": self._object}))
        self._watchers.append(queue)
        with contextlib.suppress(ConnectionError):  # The agent may have been killed.
            while (line := await queue.get()) is not None:
                await response.write(line.encode() + b"\n")
        return response


def _is_harmless(pf: dict[str, Any]) -> bool:
    """Return whether a plan is not disruptive and its PF has no problem.

    Otherwise the controller waits for a person.
    """
    return not pf["plan"].get("disruptive") and not pf.get("problem")


def _is_ready(body: dict[str, Any]) -> bool:
    status = body.get("status", {})
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", []))
    return ready and status.get("observedGeneration") == body["metadata"]["generation"]


def _write_pki(directory: pathlib.Path) -> ssl.SSLContext:
    """Write the files of a pod's service account, and return the server's TLS context."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("guest-api")
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host)) for host in _HOSTS])
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = _builder(name, name, key.public_key()).add_extension(x509.BasicConstraints(True, None), True)
    made = builder.add_extension(names, False).add_extension(usage, True).sign(key, hashes.SHA256())
    (directory / "ca.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (directory / "token").write_text("token")
    private = directory.parent / "api.key"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(directory / "ca.crt", private)
    return tls
