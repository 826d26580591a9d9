"""A small synchronous API client for tests, and the only function with which tests wait."""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import urllib3
import yaml

PLURALS = {
    "SriovNetworkPool": ("vmnic.dev/v1alpha1", "sriovnetworkpools", False),
    "VmNicPolicy": ("vmnic.dev/v1alpha1", "vmnicpolicies", False),
    "NodeNicState": ("vmnic.dev/v1alpha1", "nodenicstates", False),
    "VmNicState": ("vmnic.dev/v1alpha1", "vmnicstates", True),
    "VirtualMachine": ("kubevirt.io/v1", "virtualmachines", True),
    "VirtualMachineInstanceMigration": ("kubevirt.io/v1", "virtualmachineinstancemigrations", True),
    "VirtualMachineInstance": ("kubevirt.io/v1", "virtualmachineinstances", True),
    "KubeVirt": ("kubevirt.io/v1", "kubevirts", True),
    "VirtualMachinePreference": ("instancetype.kubevirt.io/v1beta1", "virtualmachinepreferences", True),
    "VirtualMachineClusterPreference": ("instancetype.kubevirt.io/v1beta1", "virtualmachineclusterpreferences", False),
    "VirtualMachineInstancetype": ("instancetype.kubevirt.io/v1beta1", "virtualmachineinstancetypes", True),
    "VirtualMachineClusterInstancetype": ("instancetype.kubevirt.io/v1beta1", "virtualmachineclusterinstancetypes", False),
    "NetworkAttachmentDefinition": ("k8s.cni.cncf.io/v1", "network-attachment-definitions", True),
    "CustomResourceDefinition": ("apiextensions.k8s.io/v1", "customresourcedefinitions", False),
    "APIService": ("apiregistration.k8s.io/v1", "apiservices", False),
    "ClusterRole": ("rbac.authorization.k8s.io/v1", "clusterroles", False),
    "ClusterRoleBinding": ("rbac.authorization.k8s.io/v1", "clusterrolebindings", False),
    "Role": ("rbac.authorization.k8s.io/v1", "roles", True),
    "RoleBinding": ("rbac.authorization.k8s.io/v1", "rolebindings", True),
    "MutatingWebhookConfiguration": ("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations", False),
    "ValidatingWebhookConfiguration": ("admissionregistration.k8s.io/v1", "validatingwebhookconfigurations", False),
    "Lease": ("coordination.k8s.io/v1", "leases", True),
    "Namespace": ("v1", "namespaces", False),
    "Node": ("v1", "nodes", False),
    "Pod": ("v1", "pods", True),
    "PodDisruptionBudget": ("policy/v1", "poddisruptionbudgets", True),
    "ConfigMap": ("v1", "configmaps", True),
    "Secret": ("v1", "secrets", True),
    "Service": ("v1", "services", True),
    "ServiceAccount": ("v1", "serviceaccounts", True),
    "ResourceQuota": ("v1", "resourcequotas", True),
    "Event": ("v1", "events", True),
}
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"


class ApiFailure(Exception):
    """The API server refused a request."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(f"{status}: {body.get('message') or body}")
        self.status = status
        self.body = body


class Api:
    """Requests with one token."""

    def __init__(self, server: str, ca: pathlib.Path, token: str) -> None:
        self.server = server
        self._pool = urllib3.PoolManager(ca_certs=str(ca), retries=False, timeout=30, maxsize=8)
        self._headers = {"Authorization": f"Bearer {token}"}

    def request(self, verb: str, path: str, body: object = None, content_type: str = "application/json", **headers: str) -> Any:
        """Send one request and return the decoded answer."""
        data = None if body is None else json.dumps(body).encode()
        answer = self._pool.request(
            verb, self.server + path, body=data, headers=self._headers | {"Content-Type": content_type} | headers
        )
        try:
            decoded = json.loads(answer.data) if answer.data else {}
        except ValueError:
            decoded = {"message": answer.data.decode(errors="replace")}
        if answer.status >= 300:
            raise ApiFailure(answer.status, decoded)
        return decoded

    def get(self, kind: str, name: str, namespace: str = "") -> dict[str, Any] | None:
        """Return an object, or None if it does not exist."""
        try:
            return self.request("GET", path_of(kind, namespace, name))
        except ApiFailure as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind: str, namespace: str = "", query: str = "") -> list[dict[str, Any]]:
        """Return all objects of a kind."""
        return self.request("GET", path_of(kind, namespace) + query)["items"]

    def create(self, body: dict[str, Any], query: str = "") -> dict[str, Any]:
        """Create an object."""
        return self.request("POST", path_of(body["kind"], body["metadata"].get("namespace", "")) + query, body)

    def apply(self, body: dict[str, Any]) -> dict[str, Any]:
        """Apply an object server-side as `kubectl` does."""
        meta = body["metadata"]
        path = path_of(body["kind"], meta.get("namespace", ""), meta["name"])
        return self.request("PATCH", f"{path}?fieldManager=test&force=true", body, _APPLY)

    def apply_files(self, *paths: pathlib.Path) -> None:
        """Apply every document of some YAML files."""
        for path in paths:
            for document in yaml.load_all(path.read_text(), yaml.CSafeLoader):
                if document:
                    self.apply(document)

    def merge(
        self, kind: str, name: str, body: dict[str, Any], namespace: str = "", sub: str = "", **headers: str
    ) -> dict[str, Any]:
        """Apply a merge patch."""
        return self.request("PATCH", path_of(kind, namespace, name, sub), body, _MERGE, **headers)

    def patch(self, kind: str, name: str, operations: Any, namespace: str = "", query: str = "") -> dict[str, Any]:
        """Apply a JSON Patch."""
        return self.request("PATCH", path_of(kind, namespace, name) + query, operations, _JSON_PATCH)

    def delete(self, kind: str, name: str, namespace: str = "", query: str = "") -> None:
        """Delete an object.

        One that does not exist is no error.
        """
        try:
            self.request("DELETE", path_of(kind, namespace, name) + query)
        except ApiFailure as error:
            if error.status != 404:
                raise


def path_of(kind: str, namespace: str = "", name: str = "", sub: str = "") -> str:
    """Return the URL path of an object or a collection."""
    version, plural, namespaced = PLURALS[kind]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    parts = [root, *(["namespaces", namespace] if namespaced and namespace else []), plural, name, sub]
    return "/".join(part for part in parts if part)


def wait_for(what: str, look: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """Call `look` until its result is true, and return that.

    On timeout, fail with what was awaited and the last result.
    """
    deadline = time.monotonic() + timeout_s
    seen: Any = None
    while time.monotonic() < deadline:
        try:
            seen = look()
        except (ApiFailure, urllib3.exceptions.HTTPError) as error:
            seen = error
        else:
            if seen:
                return seen
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {timeout_s:g} s; last seen: {seen!r}")
