"""KubeVirt's own CRDs, admission (`virt-api`) and `virt-controller` on a test control plane."""

from __future__ import annotations

import base64
import os
import pathlib
from typing import Any, Protocol

import urllib3
import yaml

from .api import Api, ApiFailure, wait_for
from .processes import Processes, free_port
from .programs import Programs

_NETWORKS_CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "network-attachment-definitions.k8s.cni.cncf.io"},
    "spec": {
        "group": "k8s.cni.cncf.io",
        "scope": "Namespaced",
        "names": {
            "kind": "NetworkAttachmentDefinition",
            "plural": "network-attachment-definitions",
            "singular": "network-attachment-definition",
            "shortNames": ["net-attach-def"],
        },
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


class Plane(Protocol):
    """The control plane on which KubeVirt is installed."""

    directory: pathlib.Path
    """Directory of the kubeconfigs `virt-api.kubeconfig` and `virt-controller.kubeconfig`."""
    pki: pathlib.Path
    processes: Processes
    programs: Programs

    @property
    def api(self) -> Api:
        """Return the API client of an administrator."""
        ...


class KubeVirt:
    """KubeVirt without its node components, which the node player plays.

    Args:
        plane: The control plane.
        address: Address at which the API server reaches this machine.
        launcher: Image of the pods of VMs. By default, no node has it.
    """

    def __init__(self, plane: Plane, *, address: str = "127.0.0.1", launcher: str = "launcher.invalid/virt-launcher") -> None:
        self._plane = plane
        self._address = address
        self._launcher = launcher
        self._api = plane.api
        self._manifests = plane.programs.manifests
        self._http = urllib3.PoolManager(ca_certs=str(plane.pki / "ca.crt"), retries=False, timeout=2)

    def start(self) -> None:
        """Install and start everything, and wait until VMs are validated."""
        self._create_crds()
        self._create_objects()
        port = self._start_virt_api()
        self._register_webhooks(port)
        self._register_apis(port)
        self._start_virt_controller()

    def _documents(self, name: str) -> list[dict[str, Any]]:
        return [document for document in yaml.load_all((self._manifests / name).read_text(), yaml.CSafeLoader) if document]

    def _create_crds(self) -> None:
        definitions = [_NETWORKS_CRD]
        for path in sorted((self._manifests / "crds").iterdir()):
            definitions.append(yaml.load(path.read_text(), yaml.CSafeLoader))
        for definition in definitions:
            self._api.create(definition)
        names = {definition["metadata"]["name"] for definition in definitions}
        wait_for("KubeVirt's CRDs are served", lambda: names <= self._established())

    def _established(self) -> set[str]:
        return {
            crd["metadata"]["name"]
            for crd in self._api.list("CustomResourceDefinition")
            if any(c["type"] == "Established" and c["status"] == "True" for c in (crd["status"].get("conditions") or []))
        }

    def _create_objects(self) -> None:
        self._api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kubevirt"}})
        for document in self._documents("rbac.yaml"):
            try:
                self._api.create(document)
            except ApiFailure as error:
                if error.status != 409:
                    raise
        authority = (self._plane.pki / "ca.crt").read_text()
        for name in ("kubevirt-ca", "kubevirt-export-ca", "kubevirt-backup-ca"):
            meta = {"name": name, "namespace": "kubevirt"}
            self._api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"ca-bundle": authority}})
        whole = {"pciVendorSelector": "8086:10fb", "resourceName": "vmnic.dev/whole", "externalResourceProvider": True}
        gates = {
            "developerConfiguration": {"featureGates": ["HostDevices"]},
            "network": {"binding": {"macvtap": {"domainAttachmentType": "tap"}}},
            "permittedHostDevices": {"pciHostDevices": [whole]},
        }
        meta = {"name": "kubevirt", "namespace": "kubevirt"}
        self._api.create(
            {"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "metadata": meta, "spec": {"configuration": gates}}
        )
        # Without a default architecture, virt-api refuses every VMI.
        status = {"status": {"phase": "Deployed", "defaultArchitecture": "amd64"}}
        self._api.merge("KubeVirt", "kubevirt", status, "kubevirt", "status")

    def restart_virt_api(self) -> None:
        """Start virt-api again on its old port after it was killed."""
        self._start_virt_api(self._virt_api_port)

    def _start_virt_api(self, port: int = 0) -> int:
        port, pki = port or free_port(), self._plane.pki
        self._virt_api_port = port
        self._plane.processes.start(
            "virt-api",
            [
                self._plane.programs.virt_api, "--kubeconfig", self._plane.directory / "virt-api.kubeconfig",
                "--listen", self._address, "--port", port, "--tls-cert-file", pki / "server.crt",
                "--tls-key-file", pki / "server.key", "--handler-cert-file", pki / "handler.crt",
                "--handler-key-file", pki / "handler.key", "-v", "2",
            ],
            env=_plain_environment(),
        )  # fmt: skip
        wait_for("virt-api answers", lambda: self._get(f"https://{self._address}:{port}/healthz"), 60)
        return port

    def _register_webhooks(self, port: int) -> None:
        bundle = base64.b64encode((self._plane.pki / "ca.crt").read_bytes()).decode()
        for document in self._documents("webhooks.yaml"):
            for webhook in document["webhooks"]:
                path = webhook["clientConfig"]["service"]["path"]
                webhook["clientConfig"] = {"url": f"https://{self._address}:{port}{path}", "caBundle": bundle}
            self._api.create(document)

    def _register_apis(self, port: int) -> None:
        """Register KubeVirt's APIs at an ExternalName Service without endpoints.

        It makes the aggregator dial that name.
        """
        spec = {"type": "ExternalName", "externalName": "localhost" if self._address == "127.0.0.1" else self._address}
        meta = {"name": "virt-api", "namespace": "kubevirt"}
        self._api.create({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
        bundle = base64.b64encode((self._plane.pki / "ca.crt").read_bytes()).decode()
        for document in self._documents("apiservices.yaml"):
            document.pop("status", None)
            document["spec"]["service"]["port"] = port
            document["spec"]["caBundle"] = bundle
            self._api.create(document)

    def _start_virt_controller(self) -> None:
        port, pki = free_port(), self._plane.pki
        self._plane.processes.start(
            "virt-controller",
            [
                self._plane.programs.virt_controller, "--kubeconfig", self._plane.directory / "virt-controller.kubeconfig",
                "--listen", "127.0.0.1", "--port", port, "--prom-cert-file", pki / "server.crt",
                "--prom-key-file", pki / "server.key", "--launcher-image", self._launcher,
                "--exporter-image", "launcher.invalid/virt-exportserver", "--leader-elect-retry-period", "500ms", "-v", "2",
            ],
            env=_plain_environment(),
        )  # fmt: skip
        wait_for("virt-controller leads", lambda: b'"true"' in self._get(f"https://127.0.0.1:{port}/leader"), 60)

    def _get(self, url: str) -> bytes:
        answer = self._http.request("GET", url)
        return answer.data if answer.status == 200 else b""


def _plain_environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
