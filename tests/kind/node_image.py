"""The image of kind's nodes, made without a registry.

It consists of Debian trixie, kind's own files, and programs built from Go modules. The steps are those of kind's base image and
of `kind build node-image`, in the same order. The pod network uses containerd's ptp and host-local plugins; `cluster.py` sets
the routes between nodes.
"""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import subprocess

from tests.harness.debian import make_tree
from tests.harness.programs import ETCD, KUBERNETES, NodePrograms, Programs

from .archive import write_image

__all__ = ["ETCD_TAG", "unpack_debian", "write_node_image"]

ETCD_TAG = f"{ETCD}-0"
_PAUSE = "3.10.2"
"""Version that kubeadm of this Kubernetes names."""
_REGISTRY = "registry.k8s.io"
_PACKAGES = (
    "systemd", "systemd-sysv", "containerd", "runc", "containernetworking-plugins", "iptables", "nftables", "conntrack",
    "iproute2", "ethtool", "kmod", "procps", "jq", "ca-certificates", "libxtables12",
)  # fmt: skip
_NETWORK = {
    "cniVersion": "0.4.0",
    "name": "pods",
    "plugins": [
        {
            "type": "ptp",
            "ipMasq": True,
            "mtu": 1500,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "{{.PodCIDR}}"}]], "routes": [{"dst": "0.0.0.0/0"}]},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}


def write_node_image(archive: pathlib.Path, tag: str, debian: pathlib.Path, programs: Programs, nodes: NodePrograms) -> None:
    """Build the image and write it as an archive.

    Args:
        archive: File to write.
        tag: Name of the image.
        debian: Archive of the Debian tree, created if it is missing.
        programs: The control plane's programs.
        nodes: kind's files and the nodes' programs.
    """
    work = archive.with_suffix(".work")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    root = work / "root"
    unpack_debian(debian, root)
    _install_kind(root, programs, nodes)
    _configure(root)
    _write_images(root, work, programs, nodes)
    here = pathlib.Path(__file__).parent
    subprocess.run(["unshare", "-m", "--propagation", "private", "bash", str(here / "preload.sh"), str(root)], check=True)
    shutil.rmtree(root / "kind" / "preload")
    write_image(
        archive, tag, root,
        Entrypoint=["/usr/local/bin/entrypoint", "/sbin/init"], StopSignal="SIGRTMIN+3",
        Env=["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "container=docker"],
    )  # fmt: skip
    shutil.rmtree(work)


def unpack_debian(debian: pathlib.Path, root: pathlib.Path) -> None:
    """Unpack the Debian tree of the nodes, or make and keep it."""
    if not debian.exists():
        make_tree("trixie", _PACKAGES, root)
        subprocess.run(["tar", "-C", str(root), "-cf", f"{debian}.new", "."], check=True)
        pathlib.Path(f"{debian}.new").rename(debian)
        return
    root.mkdir()
    subprocess.run(["tar", "-C", str(root), "-xpf", str(debian)], check=True)


def _install_kind(root: pathlib.Path, programs: Programs, nodes: NodePrograms) -> None:
    subprocess.run(["cp", "-r", f"{nodes.kind_files}/.", str(root)], check=True)
    for path in [*(root / "usr/local/bin").iterdir(), *(root / "kind/bin").iterdir()]:
        path.chmod(0o755)
    for path in (nodes.kubernetes / "kubelet", nodes.kubernetes / "kubeadm", programs.kubectl):
        _install(path, root / "usr/bin")
    for name in ("containerd", "ctr", "containerd-shim-runc-v2"):
        (root / "usr/local/bin" / name).symlink_to(f"/usr/bin/{name}")
    for name in ("opt/cni", "etc/kubernetes/manifests", "etc/cni/net.d"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "opt/cni/bin").symlink_to("/usr/lib/cni")
    (root / "kind/version").write_text(f"v{KUBERNETES}")


def _configure(root: pathlib.Path) -> None:
    """Reduce systemd to what a node needs, and configure containerd."""
    for pattern in (
        "usr/lib/systemd/system/multi-user.target.wants/*",
        "usr/lib/systemd/system/local-fs.target.wants/*",
        "usr/lib/systemd/system/basic.target.wants/*",
        "usr/lib/systemd/system/sockets.target.wants/*udev*",
        "usr/lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service",
        "etc/systemd/system/*.wants/*",
    ):
        for path in root.glob(pattern):
            path.unlink()
    _append(root / "etc/systemd/journald.conf", "[Journal]\nReadKMsg=no\n")
    _chroot(root, "systemctl", "-q", "enable", "kubelet", "containerd", "undo-mount-hacks")
    _chroot(root, "systemctl", "-q", "mask", "systemd-binfmt")
    base = json.loads(_chroot(root, "/usr/local/bin/ctr", "oci", "spec"))
    base["process"].pop("rlimits", None)
    hooks = base.setdefault("hooks", {}).setdefault("createContainer", [])
    hooks.append({"path": "/kind/bin/mount-product-files.sh"})
    (root / "etc/containerd/cri-base.json").write_text(json.dumps(base))
    configuration = root / "etc/containerd/config.toml"
    # Without CAP_SYS_RESOURCE no process may lower its OOM score, and every sandbox would fail.
    text = configuration.read_text().replace("restrict_oom_score_adj = false", "restrict_oom_score_adj = true")
    text = re.sub(r'pause:[\d.]+"', f'pause:{_PAUSE}"', text)
    configuration.write_text(f'{text}\n[plugins."io.containerd.grpc.v1.cri".cni]\n  conf_template = "/etc/cni/pods.tmpl"\n')
    (root / "etc/cni/pods.tmpl").write_text(json.dumps(_NETWORK))


def _write_images(root: pathlib.Path, work: pathlib.Path, programs: Programs, nodes: NodePrograms) -> None:
    """Write the images that kubeadm runs into the node's tree."""
    (root / "kind/preload").mkdir()
    for path, tag in (
        (programs.kube_apiserver, f"kube-apiserver:v{KUBERNETES}"),
        (programs.kube_controller_manager, f"kube-controller-manager:v{KUBERNETES}"),
        (nodes.kubernetes / "kube-scheduler", f"kube-scheduler:v{KUBERNETES}"),
        (programs.etcd, f"etcd:{ETCD_TAG}"),
    ):
        tree = _empty(work / "image")
        _install(path, tree / "usr/local/bin")
        write_image(root / "kind/preload" / f"{path.name}.tar", f"{_REGISTRY}/{tag}", tree)
    tree = _empty(work / "image")
    _install(nodes.pause, tree)
    write_image(root / "kind/preload/pause.tar", f"{_REGISTRY}/pause:{_PAUSE}", tree, Entrypoint=["/pause"])
    tree = _empty(work / "image")
    _install(nodes.kubernetes / "kube-proxy", tree / "usr/local/bin")
    _copy_packet_filters(root, tree)
    write_image(root / "kind/preload/kube-proxy.tar", f"{_REGISTRY}/kube-proxy:v{KUBERNETES}", tree)


def _copy_packet_filters(root: pathlib.Path, tree: pathlib.Path) -> None:
    """Copy nft, conntrack and iptables with every plugin and all their libraries into kube-proxy's image.

    iptables-restore fails completely if one plugin cannot be loaded.
    """
    libraries = "usr/lib/x86_64-linux-gnu"
    programs = [f"/usr/sbin/{name}" for name in ("nft", "conntrack", "xtables-nft-multi")]
    for name in ("usr/sbin", libraries, "usr/lib64", "run"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    for name in ("lib", "lib64"):
        (tree / name).symlink_to(f"usr/{name}")
    shutil.copytree(root / libraries / "xtables", tree / libraries / "xtables")
    plugins = [f"/{libraries}/xtables/{path.name}" for path in (root / libraries / "xtables").glob("*.so")]
    needed = set(re.findall(r"(/lib\S+\.so\S*) \(", _chroot(root, "ldd", *programs, *plugins)))
    for path in programs:
        _install(root / path.lstrip("/"), tree / "usr/sbin")
    for path in needed:
        shutil.copy((root / path.lstrip("/")).resolve(), tree / "usr" / path.lstrip("/"))
    for name in (f"{family}{suffix}" for family in ("iptables", "ip6tables") for suffix in ("", "-save", "-restore")):
        (tree / "usr/sbin" / name).symlink_to("xtables-nft-multi")


def _empty(tree: pathlib.Path) -> pathlib.Path:
    shutil.rmtree(tree, ignore_errors=True)
    (tree / "tmp").mkdir(parents=True)
    return tree


def _install(path: pathlib.Path, directory: pathlib.Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, directory / path.name)
    (directory / path.name).chmod(0o755)


def _append(path: pathlib.Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def _chroot(root: pathlib.Path, *command: str) -> str:
    return subprocess.run(["chroot", str(root), *command], check=True, capture_output=True, text=True).stdout
