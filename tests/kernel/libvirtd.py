"""libvirtd in the emulated machine, and domains that it runs."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

from .node import Node

__all__ = ["defined", "libvirtd", "virsh"]

_QEMU = """
user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
remember_owner = 0
"""


_USERS = """
getent group kvm >/dev/null || echo kvm:x:64054: >> /etc/group
getent group libvirt-qemu >/dev/null || echo libvirt-qemu:x:64055: >> /etc/group
getent passwd libvirt-qemu >/dev/null || echo libvirt-qemu:x:64055:64054::/var/lib/libvirt:/usr/sbin/nologin >> /etc/passwd
mkdir -p /etc/libvirt /var/log/libvirt/qemu
cp /keep/qemu.conf /etc/libvirt/qemu.conf
"""
"""What the packages would do when they are installed."""


@contextlib.contextmanager
def libvirtd(node: Node) -> Iterator[None]:
    """Run libvirtd, with the bridge br7 and the modules that domains need."""
    guest = node.guest
    (node.machine.keep / "qemu.conf").write_text(_QEMU)
    guest.run("modprobe", "-a", "kvm_amd", "vhost_net", "macvtap", "tun", "vfio_pci")
    guest.run("bash", "-c", _USERS)
    guest.run("ip", "link", "add", "br7", "up", "type", "bridge", "vlan_filtering", "1")
    pid = guest.start_program(["libvirtd"], log="/keep/libvirtd.log")
    node.wait_for("libvirtd answers", lambda: virsh(node, "uri", check=False)[0] == 0)
    yield
    guest.signal(pid, signal.SIGTERM)
    guest.control({"wait": pid})
    guest.run("ip", "link", "delete", "br7")


def virsh(node: Node, *words: str, check: bool = True) -> tuple[int, str]:
    """Run virsh and return its exit code and output."""
    code, text = node.guest.try_run("virsh", "-c", "qemu:///system", *words)
    assert not check or code == 0, f"{text}\n{(node.machine.keep / 'libvirtd.log').read_text()[-2000:]}"
    return code, text


@contextlib.contextmanager
def defined(node: Node, name: str, xml: str) -> Iterator[str]:
    """Run a domain and yield its QEMU's process id."""
    (node.machine.keep / f"{name}.xml").write_text(xml)
    virsh(node, "define", f"/keep/{name}.xml")
    try:
        virsh(node, "start", name)
        yield node.read(f"/run/libvirt/qemu/{name}.pid").strip()
    finally:
        virsh(node, "destroy", name, check=False)
        virsh(node, "undefine", name)
