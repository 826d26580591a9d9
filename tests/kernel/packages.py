"""Debian packages of the kernel tier, some of which are installed and most of which are unpacked into the lab.

libvirt and similar packages would start services on the machine that runs the tests, so their files only overlay the guest's
root.
"""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import tempfile

from tests.harness.debian import CannotRun, apt, mirror

__all__ = ["fetch_kernel", "install_programs", "unpack_headers", "unpack_tools"]

KERNEL = "6.12.95+deb12-amd64"
"""Newest tested kernel of bookworm-backports. If the archive has only a newer one, that is used."""
SUITE = "bookworm-backports"
_PROGRAMS = ("cpio", "zstd", "xz-utils", "busybox-static", "kmod", "iproute2", "util-linux", "gcc", "make")
_TOOLS = ("libvirt-daemon", "libvirt-daemon-driver-qemu", "libvirt-clients", "runc", "apparmor", "ethtool", "udev")
_SOURCE = pathlib.Path("/etc/apt/sources.list.d/vmnic-backports.sources")
_MERGED = ("bin", "sbin", "lib", "lib64")
"""Directories that Debian 12 has below /usr, with links in their old places."""


def install_programs() -> None:
    """Install the programs that the tests themselves start.

    Raises:
        CannotRun: The packages are not available.
    """
    needed = ("qemu-system-x86_64", "cpio", "zstd", "xz", "busybox", "depmod", "ip", "unshare", "gcc", "make")
    if all(shutil.which(name) for name in needed):
        return
    print("installing QEMU and tools from Debian's packages …", flush=True)
    _use_backports()
    apt("install", "-y", "--no-install-recommends", *_PROGRAMS)
    apt("install", "-y", "--no-install-recommends", "-t", SUITE, "qemu-system-x86")


def unpack_tools(directory: pathlib.Path) -> pathlib.Path:
    """Unpack the programs that only the guest starts, with the dependencies that this machine lacks, and return the tree."""
    tree, stamp = directory / "tools", directory / "tools.stamp"
    if stamp.exists() and stamp.read_text() == " ".join(_TOOLS):
        return tree
    print("fetching libvirt, runc and AppArmor's parser (15 MB) …", flush=True)
    _use_backports()
    shutil.rmtree(tree, ignore_errors=True)
    for name in _MERGED:
        (tree / "usr" / name).mkdir(parents=True)
        (tree / name).symlink_to(f"usr/{name}")
    with tempfile.TemporaryDirectory(dir=directory) as work:
        (pathlib.Path(work) / "partial").mkdir()
        apt(
            "install", "-y", "--download-only", "--no-install-recommends", "-t", SUITE, "-o", f"Dir::Cache::archives={work}",
            "-o", "APT::Sandbox::User=root", *_TOOLS,
        )  # fmt: skip
        for deb in sorted(pathlib.Path(work).glob("*.deb")):
            packed = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(deb)], capture_output=True, check=True).stdout
            subprocess.run(["tar", "-x", "--keep-directory-symlink", "-C", str(tree)], input=packed, check=True)
    stamp.write_text(" ".join(_TOOLS))
    return tree


def fetch_kernel(directory: pathlib.Path) -> str:
    """Unpack a stock kernel once and return its release."""
    stamp = directory / "release"
    if stamp.exists():
        return stamp.read_text()
    print("fetching a Debian kernel (100 MB) …", flush=True)
    _use_backports()
    package = _kernel_package()
    shutil.rmtree(directory / "kernel", ignore_errors=True)
    _unpack(directory / "kernel", package)
    release = package.removeprefix("linux-image-")
    subprocess.run(["depmod", "-b", str(directory / "kernel"), release], check=True)
    stamp.write_text(release)
    return release


def unpack_headers(directory: pathlib.Path, release: str) -> pathlib.Path:
    """Unpack the headers for building modules and return their directory.

    The kernel on which their packages depend is left out.
    """
    _use_backports()
    version = release.removesuffix("-amd64")
    _unpack(directory, f"linux-headers-{release}", f"linux-headers-{version}-common", f"linux-kbuild-{version}")
    headers = directory / "usr" / "src" / f"linux-headers-{release}"
    makefile = headers / "Makefile"
    makefile.write_text(makefile.read_text().replace("include /", f"include {directory}/"))
    return headers


def _unpack(directory: pathlib.Path, *packages: str) -> None:
    with tempfile.TemporaryDirectory(dir=directory.parent) as work:
        # apt drops privileges for a download, but the directory belongs to root.
        subprocess.run(
            ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", "-t", SUITE, *packages], cwd=work, check=True
        )
        for deb in pathlib.Path(work).glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(deb), str(directory)], check=True)


def _kernel_package() -> str:
    found = subprocess.run(
        ["apt-cache", "pkgnames", "linux-image-6."], capture_output=True, text=True, check=True
    ).stdout.split()
    stock = sorted(name for name in found if name.endswith("+deb12-amd64") and "-rt-" not in name and "cloud" not in name)
    if f"linux-image-{KERNEL}" in stock:
        return f"linux-image-{KERNEL}"
    if not stock:
        raise CannotRun("the archive has no stock kernel of bookworm-backports")
    return max(stock, key=lambda name: [int(part) for part in name.split("-")[2].split("+")[0].split(".")])


def _use_backports() -> None:
    """Add Debian's own backports to the sources of the machine."""
    if SUITE not in subprocess.run(["apt-cache", "policy"], capture_output=True, text=True, check=False).stdout:
        _SOURCE.write_text(
            f"Types: deb\nURIs: {mirror()}\nSuites: {SUITE}\nComponents: main\n"
            "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        )
    apt("update")
