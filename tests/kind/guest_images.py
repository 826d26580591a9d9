"""Images that a node needs to run VMs: KubeVirt's programs with libvirt and QEMU, and a small Linux guest.

Both are made without a registry, from Debian packages and from programs built from KubeVirt's Go module.
"""

from __future__ import annotations

import fcntl
import os
import pathlib
import re
import shutil
import subprocess
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from tests.harness import debian
from tests.harness.programs import KUBEVIRT, GuestPrograms, cache_directory
from tests.kernel.lab import Lab, copy_modules
from tests.kernel.packages import fetch_kernel

from .archive import write_image
from .cached import ensure_archive, key_of
from .node_image import unpack_debian

__all__ = ["GUEST", "LAUNCHER", "GuestImages", "ensure_guest", "ensure_launcher"]

LAUNCHER = f"localhost/vmnic-test/launcher:{KUBEVIRT}"
"""Image of virt-handler and virt-launcher."""
GUEST = "localhost/vmnic-test/guest:1"
"""Image with the kernel and the initial file system of a guest."""
_HERE = pathlib.Path(__file__).parent
_SCRIPTS = _HERE / "guest"
_PACKAGES = (
    "libvirt-daemon-driver-qemu", "libvirt-daemon-log", "libvirt-clients", "qemu-system-x86", "qemu-utils", "seabios",
    "busybox-static",
)  # fmt: skip
_UNPACKED = ("libvirt-daemon", "qemu-guest-agent")
"""Packages of which only one program is needed. Installed, they would start services."""
_MODULES = ("virtio_pci", "virtio_net", "e1000e", "virtio_console")
_COMMANDS = (
    "sh", "mount", "ip", "insmod", "cat", "sleep", "udhcpc", "httpd", "ping", "readlink", "basename", "uname", "head", "tail",
    "cut", "sed", "awk", "grep", "mkdir", "ls", "nproc", "poweroff",
)  # fmt: skip
_LARGEST_CHECKSUM = 0x7FFFFFFF
_OWNER = 107
"""User and group as which KubeVirt runs QEMU."""


@dataclass(frozen=True)
class GuestImages:
    """Archives of the images."""

    launcher: pathlib.Path
    guest: pathlib.Path


def ensure_launcher(programs: GuestPrograms, cache: pathlib.Path) -> pathlib.Path:
    """Return the archive of the image with KubeVirt's programs, making it if it is missing.

    Raises:
        CannotRun: a package is not available.
    """
    return ensure_archive("launcher", _key(), cache, lambda archive: _write_launcher(archive, programs, cache))


def ensure_guest(cache: pathlib.Path) -> pathlib.Path:
    """Return the archive of the guest's image, making it if it is missing.

    Raises:
        CannotRun: a package is not available.
    """
    return ensure_archive("guest", _key(), cache, lambda archive: _write_guest(archive, cache))


def _key() -> str:
    sources = [pathlib.Path(__file__), _HERE / "archive.py", *_SCRIPTS.glob("*.sh")]
    return key_of(*_PACKAGES, *_UNPACKED, *_MODULES, KUBEVIRT, files=sources)


def _unpack_tree(cache: pathlib.Path, tree: pathlib.Path) -> None:
    """Unpack a Debian with libvirt and QEMU, which is the nodes' Debian with more packages."""
    shutil.rmtree(tree, ignore_errors=True)
    packed = cache / f"debian-guests-{key_of(*_PACKAGES, *_UNPACKED)}.tar"
    if packed.exists():
        _extract(packed, tree)
        return
    unpack_debian(cache / "debian.tar", tree)
    shutil.copy("/etc/resolv.conf", tree / "etc" / "resolv.conf")
    policy = tree / "usr" / "sbin" / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    _apt(tree, "update")
    _apt(tree, "install", "-y", "--no-install-recommends", *_PACKAGES)
    (tree / "debs").mkdir()
    _apt(tree, "download", *_UNPACKED, directory="/debs")
    for deb in sorted((tree / "debs").iterdir()):
        subprocess.run(["dpkg-deb", "-x", str(deb), str(tree / "unpacked")], check=True)
    shutil.rmtree(tree / "debs")
    for pattern in (
        "var/cache/apt/*", "var/lib/apt/lists/*", "var/lib/dpkg/info", "usr/share/doc", "usr/share/man", "usr/share/locale",
        "usr/lib/systemd", "usr/lib/cni", "usr/bin/containerd*", "usr/bin/ctr", "usr/sbin/runc", "usr/share/zoneinfo",
        "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/x86_64-linux-gnu/systemd", "usr/bin/perl*", "usr/share/perl*",
        "usr/lib/x86_64-linux-gnu/perl*", "usr/bin/qemu-system-i386", "usr/bin/qemu-system-x86_64-microvm",
        "usr/bin/qemu-storage-daemon", "usr/bin/qemu-nbd", "usr/bin/qemu-io",
    ):  # fmt: skip
        for path in tree.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    subprocess.run(["tar", "-C", str(tree), "-cf", f"{packed}.new", "."], check=True)
    pathlib.Path(f"{packed}.new").rename(packed)


def _apt(tree: pathlib.Path, *arguments: str, directory: str = "/") -> None:
    words = ("apt-get", "-qq", "-o", "APT::Sandbox::User=root", *arguments)
    command = ["chroot", str(tree), "sh", "-c", f'cd {directory} && exec "$@"', "sh", *words]
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise debian.CannotRun(f"apt-get {' '.join(arguments[:2])} failed in the guests' Debian: {done.stderr.strip()[-400:]}")


def _extract(archive: pathlib.Path, tree: pathlib.Path) -> None:
    tree.mkdir(parents=True)
    subprocess.run(["tar", "-C", str(tree), "-xpf", str(archive)], check=True)


def _write_launcher(archive: pathlib.Path, programs: GuestPrograms, cache: pathlib.Path) -> None:
    """Write the image of virt-handler and virt-launcher, with the files that KubeVirt's own image has in the same places."""
    tree = archive.with_suffix(".tree")
    _unpack_tree(cache, tree)
    for program in programs.directory.iterdir():
        _install(program, tree / "usr" / "bin")
    subprocess.run(["setcap", "cap_net_bind_service=ep", str(tree / "usr/bin/virt-launcher-monitor")], check=True)
    # virt-handler opens containers as /proc/PID/root/var/run, where an absolute link would lead out of the container.
    (tree / "var" / "run").unlink()
    (tree / "var" / "run").symlink_to("../run")
    for file, line in (("passwd", f"qemu:x:{_OWNER}:{_OWNER}::/:/bin/sh"), ("group", f"qemu:x:{_OWNER}:")):
        with (tree / "etc" / file).open("a") as users:
            users.write(f"{line}\n")
    # Debian has one daemon for all drivers. virt-handler finds it by the name that it has elsewhere.
    _install(tree / "unpacked" / "usr" / "sbin" / "libvirtd", tree / "usr" / "libexec", "virtqemud")
    _install(_SCRIPTS / "virtqemud.sh", tree / "usr" / "sbin", "virtqemud")
    libvirt = tree / "etc" / "libvirt"
    (libvirt / "hooks").mkdir(exist_ok=True)
    (libvirt / "libvirtd.conf").write_text('auth_unix_ro = "none"\nauth_unix_rw = "none"\n')
    (libvirt / "virtqemud.conf").write_text('listen_tls = 0\nlisten_tcp = 0\nlog_outputs = "1:stderr"\n')
    (libvirt / "qemu.conf").write_text(
        'security_driver = "none"\nstdio_handler = "logd"\nuser = "qemu"\ngroup = "qemu"\ndynamic_ownership = 1\n'
        "remember_owner = 0\nnamespaces = []\ncgroup_controllers = []\n"
    )
    (libvirt / "qemu.conf").chmod(0o644)
    for name in ("var/log/libvirt/qemu", "var/lib/libvirt/qemu"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    shutil.rmtree(tree / "unpacked")
    write_image(archive, LAUNCHER, tree)
    shutil.rmtree(tree)


def _write_guest(archive: pathlib.Path, cache: pathlib.Path) -> None:
    """Write the image of the guest, whose parts KubeVirt boots without a disk."""
    directory = cache_directory() / "kernel-lab"
    directory.mkdir(exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lab = Lab(directory, fetch_kernel(directory), directory / "tools")
    tree, root = archive.with_suffix(".tree"), archive.with_suffix(".root")
    _unpack_tree(cache, tree)
    shutil.rmtree(root, ignore_errors=True)
    for name in ("bin", "proc", "sys", "dev", "etc", "tmp", "var/run", "var/log", "www/cgi-bin", "modules"):
        (root / name).mkdir(parents=True)
    _install(tree / "usr" / "bin" / "busybox", root / "bin")
    for name in _COMMANDS:
        (root / "bin" / name).symlink_to("busybox")
    _copy_with_libraries(tree, root, ("/usr/sbin/ethtool", "/unpacked/usr/sbin/qemu-ga"))
    order = copy_modules(lab, _MODULES, root / "modules")
    (root / "modules" / "order").write_text("\n".join(order) + "\n")
    for script, directory in (("init", ""), ("dhcp", "etc"), ("report", "bin"), ("queues", "www/cgi-bin")):
        _install(_SCRIPTS / f"{script}.sh", root / directory, script)
    boot = tree.with_suffix(".image") / "boot"
    shutil.rmtree(boot.parent, ignore_errors=True)
    boot.mkdir(parents=True)
    packing = (
        f"cd {root} && find . -exec touch -h -d @0 {{}} + && find . | LC_ALL=C sort | cpio -o -H newc --quiet --reproducible"
        f" | gzip -9n >{boot}/initrd"
    )
    subprocess.run(["bash", "-o", "pipefail", "-c", packing], check=True)
    shutil.copy(lab.kernel, boot / "vmlinuz")
    for path in boot.iterdir():
        _pad(path)
        os.utime(path, (0, 0))
        path.chmod(0o644)
        os.chown(path, _OWNER, _OWNER)
    write_image(archive, GUEST, boot.parent)
    for directory in (tree, root, boot.parent):
        shutil.rmtree(directory)


def _pad(path: pathlib.Path) -> None:
    """Append zeros until the file's checksum is small.

    virt-handler reports a CRC-32 in a field of signed 32 bits. The API server refuses its whole status if the number is larger.
    """
    data = path.read_bytes()
    while zlib.crc32(data) > _LARGEST_CHECKSUM:
        data += bytes(4)
    path.write_bytes(data)


def _copy_with_libraries(tree: pathlib.Path, root: pathlib.Path, programs: Sequence[str]) -> None:
    shown = subprocess.run(["chroot", str(tree), "ldd", *programs], check=True, capture_output=True, text=True).stdout
    for program in programs:
        _install(tree / program.lstrip("/"), root / "bin")
    for library in set(re.findall(r"(/lib\S+\.so\S*) \(", shown)):
        _install(
            (tree / library.lstrip("/")).resolve(), root / library.rpartition("/")[0].lstrip("/"), library.rpartition("/")[2]
        )


def _install(path: pathlib.Path, directory: pathlib.Path, name: str = "") -> None:
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, directory / (name or path.name))
    (directory / (name or path.name)).chmod(0o755)
