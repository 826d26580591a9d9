"""KubeVirt's half on the workers of a kind cluster, its own virt-handler, whose VMs run under QEMU's emulation."""

from __future__ import annotations

import base64
import json
import pathlib
from concurrent import futures
from typing import TYPE_CHECKING, Any

import yaml

from .guest_images import GUEST, LAUNCHER, GuestImages

if TYPE_CHECKING:
    from .cluster import KindCluster

__all__ = ["start_handlers", "stop_handlers"]

_SECRETS = {
    "kubevirt-virt-handler-certs": "handler",
    "kubevirt-virt-handler-server-certs": "handler-node",
    "kubevirt-virt-handler-migration-client-certs": "handler-migration",
    "kubevirt-virt-handler-vsock-client-certs": "handler-vsock",
}
"""Certificates by the secret that virt-handler mounts."""
_HELPERS = {"container-disk": "40M", "guest-console-log": "60M"}
"""Memory of the containers beside a VM. By default, they get so little CPU time that each VM starts 7 seconds later."""
_IMPORT = ("ctr", "-n", "k8s.io", "images", "import", "-")
_NAME_BY_DIGEST = (
    f"ctr -n k8s.io images tag --force {GUEST} "
    f"{GUEST.rpartition(':')[0]}@$(ctr -n k8s.io images ls name=={GUEST} | awk 'NR==2 {{print $3}}')"
)


def start_handlers(cluster: KindCluster, manifests: pathlib.Path, images: GuestImages) -> None:
    """Load the images, install virt-handler, and wait until both workers take VMs."""
    with futures.ThreadPoolExecutor(2) as pool:
        loaded = [pool.submit(_load, cluster, worker, images) for worker in cluster.workers]
    for one in loaded:
        one.result()
    for name, file in _SECRETS.items():
        cluster.api.apply(_secret(cluster.neighbours.pki, name, file))
    cluster.api.merge("KubeVirt", "kubevirt", {"spec": {"configuration": _configuration()}}, "kubevirt")
    documents = yaml.load_all(manifests.read_text(), yaml.CSafeLoader)
    text = yaml.safe_dump_all([_adapt(document) for document in documents if document])
    cluster.kubectl("apply", "--server-side", "-f", "-", input=text)
    cluster.kubectl("rollout", "status", "daemonset/virt-handler", "-n", "kubevirt", "--timeout=180s")


def stop_handlers(cluster: KindCluster) -> None:
    """Remove virt-handler."""
    cluster.kubectl("delete", "daemonset", "virt-handler", "-n", "kubevirt", "--timeout=60s")


def _load(cluster: KindCluster, worker: str, images: GuestImages) -> None:
    for archive in (images.launcher, images.guest):
        cluster.engine.feed(archive, worker, *_IMPORT)
    # The target of a migration names the guest's image by its digest.
    cluster.run_in(worker, "sh", "-c", _NAME_BY_DIGEST)


def _secret(pki: pathlib.Path, name: str, file: str) -> dict[str, Any]:
    data = {f"tls.{part}": base64.b64encode((pki / f"{file}.{part}").read_bytes()).decode() for part in ("crt", "key")}
    meta = {"name": name, "namespace": "kubevirt"}
    return {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": meta, "data": data}


def _configuration() -> dict[str, Any]:
    helpers = [
        {"type": kind, "resources": {"limits": {"cpu": "500m", "memory": memory}, "requests": {"cpu": "1m", "memory": "10M"}}}
        for kind, memory in _HELPERS.items()
    ]
    return {
        "imagePullPolicy": "Never",
        "developerConfiguration": {"useEmulation": True},
        "supportContainerResources": helpers,
    }


def _adapt(document: dict[str, Any]) -> dict[str, Any]:
    """Name the image, ask QEMU's emulation what it can do, and shorten the first probes, which come after 15 seconds."""
    if document["kind"] == "DaemonSet":
        document = json.loads(json.dumps(document).replace('"IMAGE"', f'"{LAUNCHER}"'))
        pod = document["spec"]["template"]["spec"]
        pod.pop("priorityClassName", None)
        # A processor that KVM offers may be one that the emulation does not have, and then no VM could migrate.
        labeller = {one["name"]: one for one in pod["initContainers"][0]["env"]}
        labeller["PREFERRED_VIRTTYPE"]["value"] = "qemu"
        for probe in ("livenessProbe", "readinessProbe"):
            pod["containers"][0][probe]["initialDelaySeconds"] = 1
        pod["containers"][0]["readinessProbe"]["periodSeconds"] = 2
    return document
