"""The guest's kernel, tools and initial file system, kept in the cache. All of them come from Debian's packages."""

from __future__ import annotations

import compileall
import fcntl
import os
import pathlib
import shutil
import subprocess
import tempfile
from dataclasses import dataclass

from tests.harness.debian import CannotRun
from tests.harness.programs import cache_directory

from .module import make_modules
from .packages import fetch_kernel, install_programs, unpack_tools

__all__ = ["ROOT", "Lab", "copy_modules", "pack_initrd", "prepare"]

ROOT = pathlib.Path(__file__).parents[2]
_INITRD_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_console")


@dataclass(frozen=True)
class Lab:
    """The parts of a guest."""

    directory: pathlib.Path
    release: str
    tools: pathlib.Path
    """Overlays the guest's root with libvirt and other programs that this machine need not have."""

    @property
    def kernel(self) -> pathlib.Path:
        return self.directory / "kernel" / "boot" / f"vmlinuz-{self.release}"

    @property
    def modules(self) -> pathlib.Path:
        return self.directory / "kernel" / "lib" / "modules" / self.release

    @property
    def initrd(self) -> pathlib.Path:
        return self.directory / "initrd.img"


def prepare() -> Lab:
    """Install what is missing and return the lab.

    Raises:
        CannotRun: The user is not root, or there are no Debian packages.
    """
    if os.geteuid() != 0:
        raise CannotRun("it installs QEMU and mounts file systems, which needs root")
    if shutil.which("apt-get") is None:
        raise CannotRun("it takes QEMU and a kernel from Debian's packages, and there is no apt-get")
    directory = cache_directory() / "kernel-lab"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        install_programs()
        lab = Lab(directory, fetch_kernel(directory), unpack_tools(directory))
        _make_initrd(lab)
        make_modules(directory, lab.release)
        # The guest's root is read-only. What is not compiled now would be compiled at every start of a program.
        compileall.compile_dir(ROOT / "operator", quiet=2)
        compileall.compile_dir(ROOT / "tests" / "kernel", quiet=2)
    return lab


def _make_initrd(lab: Lab) -> None:
    """Pack busybox, the modules for the file systems, and an init that starts `guest.sh`."""
    if lab.initrd.exists() and lab.initrd.stat().st_mtime > pathlib.Path(__file__).stat().st_mtime:
        return
    with tempfile.TemporaryDirectory(dir=lab.directory) as work:
        tree = pathlib.Path(work)
        for name in ("bin", "proc", "sys", "dev", "ro", "tools", "rw", "new", "mod"):
            (tree / name).mkdir()
        shutil.copy(shutil.which("busybox") or "/bin/busybox", tree / "bin" / "busybox")
        order = copy_modules(lab, _INITRD_MODULES, tree / "mod")
        (tree / "init").write_text(_INIT.format(modules=" ".join(order), release=lab.release))
        (tree / "init").chmod(0o755)
        pack_initrd(tree, lab.initrd)


def pack_initrd(tree: pathlib.Path, target: pathlib.Path) -> None:
    """Pack a tree as an initial file system."""
    packing = f"cd {tree} && find . | cpio -o -H newc --quiet | zstd -q -3 > {target}.new"
    subprocess.run(["bash", "-o", "pipefail", "-c", packing], check=True)
    pathlib.Path(f"{target}.new").rename(target)


def copy_modules(lab: Lab, modules: tuple[str, ...], target: pathlib.Path) -> list[str]:
    """Copy modules with their dependencies, decompressed, and return their names in loading order."""
    order: list[str] = []
    for module in modules:
        shown = subprocess.run(
            ["modprobe", "-d", str(lab.directory / "kernel"), "-S", lab.release, "--show-depends", module],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for line in shown.splitlines():
            words = line.split()
            if words[0] != "insmod":
                continue
            source = pathlib.Path(words[1])
            name = source.name.removesuffix(".xz")
            if name not in order:
                order.append(name)
                raw = (
                    subprocess.run(["xz", "-dc", str(source)], capture_output=True, check=True).stdout
                    if source.suffix == ".xz"
                    else source.read_bytes()
                )
                (target / name).write_bytes(raw)
    return order


_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin; export PATH=/bin
fail() {{ echo "vmnic-lab: $1"; echo o > /proc/sysrq-trigger; sleep 30; }}
share() {{ mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,$3 $1 $2 || fail "no share $1"; }}
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for name in {modules}; do insmod /mod/$name || echo "vmnic-lab: $name does not load"; done
share root /ro ro,cache=loose
share tools /tools ro,cache=loose
mount -t tmpfs -o size=256m tmpfs /rw; mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/tools:/ro,upperdir=/rw/upper,workdir=/rw/work overlay /new || fail "no overlay"
mkdir -p /new/lib/modules/{release} /new/keep
share modules /new/lib/modules/{release} ro,cache=loose
share keep /new/keep rw
for name in dev proc sys; do mount --move /$name /new/$name; done
program=$(sed -n 's/.*vmnic\\.guest=\\([^ ]*\\).*/\\1/p' /new/proc/cmdline)
exec switch_root /new /bin/bash "$program"
"""
