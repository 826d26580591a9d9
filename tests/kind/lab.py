"""Requirements of the kind tier on this machine, and its clusters.

The requirements are an engine, programs and images. A cluster contains vmnic's image and simulated hosts.
"""

from __future__ import annotations

import os
import pathlib
from concurrent import futures
from dataclasses import dataclass
from typing import Any

from tests.harness import debian, programs

from .cached import ensure_image, key_of
from .cluster import KindCluster
from .engine import Engine, find_engine
from .guest_images import GuestImages, ensure_guest, ensure_launcher
from .handlers import start_handlers
from .image import IMAGE, build_image, make_base
from .node_image import write_node_image

__all__ = ["Lab", "prepare", "worker_spec"]

_HERE = pathlib.Path(__file__).parent
_NODE_SOURCES = (_HERE / "node_image.py", _HERE / "archive.py", _HERE / "preload.sh", pathlib.Path(debian.__file__))


@dataclass(frozen=True)
class Lab:
    """Prepared requirements."""

    engine: Engine
    cache: pathlib.Path
    programs: programs.Programs
    node_programs: programs.NodePrograms
    node_image: str
    guest_programs: programs.GuestPrograms
    guest_images: GuestImages

    def cluster(self, name: str) -> KindCluster:
        """Return the cluster of a name, which may not exist yet."""
        return KindCluster(name, self.cache / name, self.engine, self.programs, self.node_programs)

    def build_image(self) -> None:
        """Build the project's image."""
        build_image(self.engine, make_base(self.engine, self.cache), self.cache)

    def image_bytes(self) -> int:
        """Return the size of the project's image."""
        return self._bytes(IMAGE)

    def base_bytes(self) -> int:
        """Return the size of its base image."""
        return self._bytes(make_base(self.engine, self.cache))

    def _bytes(self, image: str) -> int:
        return int(self.engine.run("image", "inspect", "--format", "{{.Size}}", image))

    def start(self, name: str) -> KindCluster:
        """Create a cluster with KubeVirt, vmnic's image and simulated hosts. It replaces one of the same name."""
        cluster = self.cluster(name)
        cluster.delete()
        cluster.create(self.node_image)
        cluster.load(IMAGE)
        for number, node in enumerate(cluster.workers, 1):
            cluster.hosts.start(node, worker_spec(number))
        cluster.hosts.start(cluster.control_plane, {"pfs": []})
        cluster.neighbours.start()
        return cluster

    def start_handlers(self, cluster: KindCluster) -> None:
        """Make the workers of a cluster run VMs."""
        start_handlers(cluster, self.guest_programs.manifests, self.guest_images)


def prepare() -> Lab:
    """Install and build what is missing.

    Raises:
        CannotRun: this machine cannot run the tier.
    """
    if os.geteuid() != 0:
        raise debian.CannotRun("it runs nodes in containers, makes file systems and mounts them, which needs root")
    if not pathlib.Path("/dev/fuse").exists():
        raise debian.CannotRun("the simulated hosts are mounted by FUSE, and this kernel has no /dev/fuse")
    cache = programs.cache_directory() / "kind"
    cache.mkdir(parents=True, exist_ok=True)
    debian.install(("debootstrap", "fusermount3"), ("debootstrap", "fuse3", "libfuse3-3"))
    debian.install(("gcc", "cpio", "xz", "depmod", "setcap"), ("gcc", "libc6-dev", "cpio", "xz-utils", "kmod", "libcap2-bin"))
    engine = find_engine(programs.cache_directory())
    built, nodes = programs.ensure(), programs.ensure_node_programs()
    versions = (programs.KUBERNETES, programs.ETCD, programs.KIND)
    # The compiler needs the processor, and the images need packages from the network.
    with futures.ThreadPoolExecutor(1) as pool:
        compiled = pool.submit(programs.ensure_guest_programs)
        node_image = ensure_image(
            engine, "node", key_of(*versions, files=_NODE_SOURCES), cache,
            lambda archive, tag: write_node_image(archive, tag, cache / "debian.tar", built, nodes),
        )  # fmt: skip
        guest = ensure_guest(cache)
    guest_programs = compiled.result()
    guest_images = GuestImages(ensure_launcher(guest_programs, cache), guest)
    return Lab(engine, cache, built, nodes, node_image, guest_programs, guest_images)


def worker_spec(number: int) -> dict[str, Any]:
    """Describe the simulated host of a worker, which has an 82576, and an I350 with the node's address."""
    fast = {"address": "0000:0b:00.0", "profile": "82576", "name": "ens1f0", "mac": f"52:54:00:0b:00:0{number}", "numaNode": 0}
    uplink = {"address": "0000:0c:00.0", "profile": "I350", "name": "ens2f0", "mac": f"52:54:00:0c:00:0{number}"}
    return {"pfs": [fast, uplink | {"addresses": [f"192.0.2.{number}/24"], "defaultRoute": True}]}
