"""A Linux guest in QEMU with emulated 82576 NICs: a stock Debian kernel, this machine's file system read-only beneath it.

Everything comes from Debian's packages and is kept in the cache. KVM is not used: emulation is fast enough everywhere.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from tests.harness.programs import cache_directory

KERNEL = "6.12.95+deb12-amd64"
"""Newest kernel of bookworm-backports that was tried; where the archive has only a newer one, that is taken."""
PACKAGES = ("cpio", "zstd", "xz-utils", "busybox-static", "kmod", "iproute2")
SUITE = "bookworm-backports"
_SOURCE = pathlib.Path("/etc/apt/sources.list.d/vmnic-backports.sources")
_INITRD_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_console")
ROOT = pathlib.Path(__file__).parents[2]
NICS = 2


class CannotRun(Exception):
    """This machine cannot run the tier; the message says why."""


class Lab:
    """The guest's kernel and initial file system."""

    def __init__(self, directory: pathlib.Path, release: str) -> None:
        self.directory = directory
        self.release = release

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
    """Install what is missing and give the lab.

    Raises:
        CannotRun: no root, or no Debian packages.
    """
    if os.geteuid() != 0:
        raise CannotRun("it installs QEMU and mounts file systems, which needs root")
    if shutil.which("apt-get") is None:
        raise CannotRun("it takes QEMU and a kernel from Debian's packages, and there is no apt-get")
    _install_packages()
    directory = cache_directory() / "kernel-lab"
    directory.mkdir(parents=True, exist_ok=True)
    release = _fetch_kernel(directory)
    lab = Lab(directory, release)
    _make_initrd(lab)
    return lab


def _install_packages() -> None:
    if all(shutil.which(name) for name in ("qemu-system-x86_64", "cpio", "zstd", "xz", "busybox", "depmod", "ip")):
        return
    print("installing QEMU and tools from Debian's packages …", flush=True)
    _use_backports()
    _apt("install", "-y", "--no-install-recommends", *PACKAGES)
    _apt("install", "-y", "--no-install-recommends", "-t", SUITE, "qemu-system-x86")


def _use_backports() -> None:
    """Add Debian's own backports beside the sources that the machine has."""
    if SUITE not in subprocess.run(["apt-cache", "policy"], capture_output=True, text=True, check=False).stdout:
        _SOURCE.write_text(
            f"Types: deb\nURIs: {_mirror()}\nSuites: {SUITE}\nComponents: main\n"
            "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        )
    _apt("update")


def _mirror() -> str:
    """Give the address of the archive that this machine takes bookworm from."""
    files = [
        *pathlib.Path("/etc/apt/sources.list.d").glob("*.sources"),
        *pathlib.Path("/etc/apt/sources.list.d").glob("*.list"),
    ]
    for path in [*files, pathlib.Path("/etc/apt/sources.list")]:
        text = path.read_text() if path.exists() else ""
        for line in text.splitlines():
            words = line.split()
            address = words[1] if words[:1] in (["URIs:"], ["deb"]) and len(words) > 1 else ""
            if address.rstrip("/").endswith("/debian"):
                return address
    raise CannotRun("no Debian archive is among this machine's package sources")


def _apt(*arguments: str) -> None:
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(["apt-get", "-qq", *arguments], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotRun(f"apt-get {' '.join(arguments[:2])} failed: {done.stderr.strip()[-400:]}")


def _fetch_kernel(directory: pathlib.Path) -> str:
    """Unpack a stock kernel once and give its release."""
    stamp = directory / "release"
    if stamp.exists():
        return stamp.read_text()
    print("fetching a Debian kernel (100 MB) …", flush=True)
    _use_backports()
    package = _kernel_package()
    with tempfile.TemporaryDirectory(dir=directory) as work:
        # apt drops privileges for a download, and the directory is root's.
        subprocess.run(
            ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", "-t", SUITE, package], cwd=work, check=True
        )
        deb = next(pathlib.Path(work).glob("*.deb"))
        shutil.rmtree(directory / "kernel", ignore_errors=True)
        subprocess.run(["dpkg", "-x", str(deb), str(directory / "kernel")], check=True)
    release = package.removeprefix("linux-image-")
    subprocess.run(["depmod", "-b", str(directory / "kernel"), release], check=True)
    stamp.write_text(release)
    return release


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


def _make_initrd(lab: Lab) -> None:
    """Pack busybox, the modules for the file systems, and an init that hands over to `guest.sh`."""
    if lab.initrd.exists() and lab.initrd.stat().st_mtime > pathlib.Path(__file__).stat().st_mtime:
        return
    with tempfile.TemporaryDirectory(dir=lab.directory) as work:
        tree = pathlib.Path(work)
        for name in ("bin", "proc", "sys", "dev", "ro", "rw", "new", "mod"):
            (tree / name).mkdir()
        shutil.copy(shutil.which("busybox") or "/bin/busybox", tree / "bin" / "busybox")
        order = _copy_modules(lab, tree / "mod")
        (tree / "init").write_text(_INIT.format(modules=" ".join(order), release=lab.release))
        (tree / "init").chmod(0o755)
        packing = f"cd {tree} && find . | cpio -o -H newc --quiet | zstd -q -3 > {lab.initrd}.new"
        subprocess.run(["bash", "-o", "pipefail", "-c", packing], check=True)
        pathlib.Path(f"{lab.initrd}.new").rename(lab.initrd)


def _copy_modules(lab: Lab, target: pathlib.Path) -> list[str]:
    """Copy modules with what they depend on, unpacked; give their names in loading order."""
    order: list[str] = []
    for module in _INITRD_MODULES:
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
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for name in {modules}; do insmod /mod/$name || echo "vmnic-lab: $name does not load"; done
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose root /ro || fail "no root file system"
mount -t tmpfs -o size=256m tmpfs /rw; mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/ro,upperdir=/rw/upper,workdir=/rw/work overlay /new || fail "no overlay"
mkdir -p /new/lib/modules/{release}
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose modules /new/lib/modules/{release} || fail "no modules"
for name in dev proc sys; do mount --move /$name /new/$name; done
program=$(sed -n 's/.*vmnic\\.guest=\\([^ ]*\\).*/\\1/p' /new/proc/cmdline)
exec switch_root /new /bin/bash "$program"
"""


@contextlib.contextmanager
def booted(lab: Lab, socket: pathlib.Path, log: pathlib.Path) -> Iterator[subprocess.Popen[bytes]]:
    """Boot the guest; it serves its host at the socket until it is killed."""
    with log.open("wb") as output:
        guest = subprocess.Popen(_command(lab, socket), stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            yield guest
        finally:
            guest.kill()
            guest.wait()


def _command(lab: Lab, socket: pathlib.Path) -> list[str]:
    append = (
        "console=ttyS0 quiet panic=-1 net.ifnames=0 intel_iommu=on iommu=nopt no_timer_check mitigations=off "
        f"vmnic.guest={ROOT}/tests/kernel/guest.sh vmnic.python={sys.executable} vmnic.root={ROOT}"
    )
    nics = [
        word
        for number in range(1, NICS + 1)
        for word in (
            "-device", f"pcie-root-port,id=rp{number},chassis={number},slot={number},bus=pcie.0",
            "-netdev", f"user,id=n{number},restrict=on",
            "-device", f"igb,bus=rp{number},netdev=n{number},mac=52:54:00:00:0{number}:00",
        )
    ]  # fmt: skip
    shares = [
        word
        for tag, path in (("root", "/"), ("modules", str(lab.modules)))
        for word in (
            "-fsdev", f"local,id={tag},path={path},security_model=none,readonly=on,multidevs=remap",
            "-device", f"virtio-9p-pci,bus=pcie.0,fsdev={tag},mount_tag={tag}",
        )
    ]  # fmt: skip
    return [
        "qemu-system-x86_64", "-machine", "q35,kernel-irqchip=split", "-accel", "tcg,thread=single", "-cpu", "max",
        "-smp", "2", "-m", "768", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-serial", "stdio", "-monitor", "none", "-device", "intel-iommu,intremap=on,caching-mode=on,device-iotlb=on",
        "-kernel", str(lab.kernel), "-initrd", str(lab.initrd), "-append", append,
        "-device", "virtio-serial-pci,bus=pcie.0", "-chardev", f"socket,id=host,path={socket},server=on,wait=off",
        "-device", "virtserialport,chardev=host,name=vmnic", *shares, *nics,
    ]  # fmt: skip
