"""A mutating webhook of a test, which runs beside vmnic's."""

from __future__ import annotations

import base64
import json
import pathlib
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .cluster import Cluster


class TestWebhook:
    """Serves one webhook on VirtualMachines.

    The answer is a JSON Patch of the object, or none.
    """

    __test__ = False

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        answer: Callable[[dict[str, Any]], list[dict[str, Any]]],
        operation: str = "CREATE",
    ) -> None:
        self._cluster = cluster
        self._name = name
        self.seen = 0
        pki: pathlib.Path = cluster.plane.pki
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["request"]
                outer.seen += 1
                response: dict[str, Any] = {"uid": request["uid"], "allowed": True}
                patch = answer(request["object"])
                if patch:
                    response |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(patch).encode()).decode()}
                review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
                body = json.dumps(review).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki / "server.crt", pki / "server.key")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        bundle = base64.b64encode((pki / "ca.crt").read_bytes()).decode()
        rule = {
            "apiGroups": ["kubevirt.io"],
            "apiVersions": ["v1"],
            "resources": ["virtualmachines"],
            "operations": [operation],
        }
        webhook = {
            "name": f"{name}.test.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None", "rules": [rule],
            "clientConfig": {"url": f"https://127.0.0.1:{self._server.server_port}/", "caBundle": bundle},
        }  # fmt: skip
        kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration"}
        cluster.api.create({**kind, "metadata": {"name": name}, "webhooks": [webhook]})

    def close(self) -> None:
        """Remove the webhook."""
        self._cluster.api.delete("MutatingWebhookConfiguration", self._name)
        self._server.shutdown()
        self._server.server_close()
