"""The emulated machine, with PCI Express, an IOMMU, 82576 NICs, and this machine's file system read-only below its own.

KVM is not used, because emulation is fast enough everywhere.
"""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from .lab import ROOT, Lab

__all__ = ["Machine", "booted", "nic"]

_FAR_MIB = 64
"""Memory of the second NUMA node, in MiB."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The parts of a guest. Its files are in `directory`, and `keep` in it is `/keep` in the guest."""

    directory: pathlib.Path
    nics: int = 2
    """Number of 82576 NICs with a root port each, so that every VF has its own IOMMU group."""
    crowded: bool = False
    """Whether there is one more NIC, on a second NUMA node. It is below a port without ACS and shares a group with it."""
    iommu: bool = True
    online: bool = False
    """Whether another NIC reaches this machine's loopback at 10.0.2.2. Otherwise the guest has a multi-queue NIC."""
    plain: bool = False
    """Whether there are two NICs without SR-IOV, an e1000e and, behind a bridge to PCI, an e1000."""
    memory_mib: int = 768
    parallel: bool = False
    """Whether both processors run in parallel. QEMU aborted then once in 26 boots, so this is for measurements only."""

    @property
    def keep(self) -> pathlib.Path:
        return self.directory / "keep"

    @property
    def port(self) -> pathlib.Path:
        """Socket of the program in the guest."""
        return self.directory / "port.sock"

    @property
    def qmp(self) -> pathlib.Path:
        """Socket of QEMU's monitor."""
        return self.directory / "qmp.sock"

    @property
    def log(self) -> pathlib.Path:
        """Output of the guest's console."""
        return self.directory / "console.log"


@contextlib.contextmanager
def booted(lab: Lab, machine: Machine) -> Iterator[subprocess.Popen[bytes]]:
    """Boot a guest, which serves its host on the port until the block ends."""
    machine.keep.mkdir(parents=True, exist_ok=True)
    for socket in (machine.port, machine.qmp):
        socket.unlink(missing_ok=True)
    # Without the online network, the guest's multi-queue NIC needs a tap device, which is hidden in a network namespace.
    apart = [] if machine.online else ["unshare", "--net", "--"]
    with machine.log.open("wb") as output:
        guest = subprocess.Popen([*apart, *_command(lab, machine)], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            yield guest
        finally:
            guest.kill()
            guest.wait()


def _command(lab: Lab, machine: Machine) -> list[str]:
    append = (
        "console=ttyS0 quiet panic=-1 net.ifnames=0 iommu=nopt no_timer_check mitigations=off "
        f"vmnic.guest={ROOT}/tests/kernel/guest.sh vmnic.python={sys.executable} vmnic.root={ROOT}"
    )
    iommu = ["-device", "intel-iommu,intremap=on,caching-mode=on,device-iotlb=on"]
    return [
        "qemu-system-x86_64", "-machine", "q35,kernel-irqchip=split",
        "-accel", f"tcg,thread={'multi' if machine.parallel else 'single'}", "-cpu", "max",
        "-smp", "2", "-m", str(machine.memory_mib), "-nodefaults", "-no-user-config", "-display", "none",
        "-serial", "stdio", "-monitor", "none", *(iommu if machine.iommu else []),
        "-qmp", f"unix:{machine.qmp},server=on,wait=off",
        "-kernel", str(lab.kernel), "-initrd", str(lab.initrd),
        "-append", append + (" intel_iommu=on" if machine.iommu else ""),
        "-device", "virtio-serial-pci,bus=pcie.0", "-chardev", f"socket,id=host,path={machine.port},server=on,wait=off",
        "-device", "virtserialport,chardev=host,name=vmnic",
        *_shares(lab, machine), *(_second_node(machine) if machine.crowded else ()), *_nics(machine),
        *(_plain_nics() if machine.plain else ()),
    ]  # fmt: skip


def _shares(lab: Lab, machine: Machine) -> Iterator[str]:
    places = {"root": "/", "tools": lab.tools, "modules": lab.modules, "keep": machine.keep}
    for tag, path in places.items():
        access = "" if tag == "keep" else ",readonly=on"
        yield from ("-fsdev", f"local,id={tag},path={path},security_model=none,multidevs=remap{access}")
        yield from ("-device", f"virtio-9p-pci,bus=pcie.0,fsdev={tag},mount_tag={tag}")


def _second_node(machine: Machine) -> Iterator[str]:
    """Yield a NUMA node with a PCI bus. Linux ignores a node without memory."""
    for node, mebibytes in enumerate((machine.memory_mib - _FAR_MIB, _FAR_MIB)):
        yield from ("-object", f"memory-backend-ram,id=memory{node},size={mebibytes}M")
        yield from ("-numa", f"node,nodeid={node},memdev=memory{node}" + (",cpus=0-1" if node == 0 else ""))
    yield from ("-device", "pxb-pcie,id=far,bus_nr=128,numa_node=1,bus=pcie.0")


def _plain_nics() -> Iterator[str]:
    """Yield the NICs without SR-IOV. The bridge and the NIC behind it share an IOMMU group."""
    for number in (8, 9):
        yield from ("-device", f"pcie-root-port,id=rp{number},chassis={number},slot={number},bus=pcie.0")
        yield from ("-netdev", f"user,id=n{number},net=10.0.{number + 2}.0/24,ipv6=off")
    yield from ("-device", "e1000e,bus=rp8,netdev=n8,mac=52:54:00:00:08:00")
    yield from ("-device", "pcie-pci-bridge,id=pci9,bus=rp9")
    yield from ("-device", "e1000,bus=pci9,addr=1,netdev=n9,mac=52:54:00:00:09:00")


def nic(number: int) -> dict[str, str]:
    """Return the place and the MAC address of the n-th 82576."""
    return {"bus": f"rp{number}", "netdev": f"n{number}", "mac": f"52:54:00:00:0{number}:00"}


def _nics(machine: Machine) -> Iterator[str]:
    """Yield the NICs, each igb in a slot behind its own port.

    Only the online guest's user networks reach the outside.
    """
    for number in range(1, machine.nics + 1 + machine.crowded):
        place = "far,disable-acs=on" if number > machine.nics else "pcie.0"
        yield from ("-device", f"pcie-root-port,id=rp{number},chassis={number},slot={number},bus={place}")
        restrict = "" if machine.online else ",restrict=on"
        # The network of the last one has a router that sends advertisements.
        quiet = "" if number == machine.nics else ",ipv6=off"
        yield from ("-netdev", f"user,id=n{number},net=10.0.{number + 2}.0/24{restrict}{quiet}")
        yield from ("-device", ",".join(["igb", f"id=igb{number}", *(f"{key}={value}" for key, value in nic(number).items())]))
    if machine.online:
        yield from ("-netdev", "user,id=out", "-device", "virtio-net-pci,bus=pcie.0,netdev=out,mac=52:54:00:00:ff:01")
    else:
        yield from ("-netdev", "tap,id=mq,queues=4,vhost=off,script=no,downscript=no")
        yield from ("-device", "virtio-net-pci,bus=pcie.0,netdev=mq,mq=on,vectors=10,mac=52:54:00:00:ff:02")
