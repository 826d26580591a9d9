"""A domain's XML becomes the facts of one VM: the same that KubeVirt's objects become, for the same engine."""

from __future__ import annotations

from collections.abc import Mapping

from lxml import etree

from ..policy.facts import Datapath, GuestOs, Network, NicFacts, NicState, Platform, VmFacts
from .domain import Domain, DomainError

__all__ = ["gather_domain", "pci_address"]

_LIBOSINFO = "{http://libosinfo.org/xmlns/libvirt/domain/1.0}os"
_LINUX = (
    "linux",
    "ubuntu",
    "debian",
    "redhat",
    "fedora",
    "centos",
    "suse",
    "rocky",
    "alma",
    "alpine",
    "oracle",
    "arch",
    "gentoo",
)
_DEFAULT_MODEL = "rtl8139"
"""What libvirt gives an interface without a model on x86."""
_VIRTIO = ("virtio", "virtio-transitional", "virtio-non-transitional")
_PLAIN = ("network", "bridge", "ethernet")
_UNITS = {
    "b": 1,
    "bytes": 1,
    "KB": 1000,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "k": 2**10,
    "KiB": 2**10,
    "M": 2**20,
    "MiB": 2**20,
    "G": 2**30,
    "GiB": 2**30,
    "T": 2**40,
    "TiB": 2**40,
}


def gather_domain(domain: Domain, owners: Mapping[str, str] | None = None) -> VmFacts:
    """Read the facts of one domain.

    Args:
        domain: The domain.
        owners: Resource of the pool that has a PCI function, by its address.

    Raises:
        DomainError: a number in it is none; the message names line and attribute.
    """
    guest_os, source = _guest_os(domain)
    vcpus = _vcpus(domain)
    nics = tuple(_nic(name, element, owners or {}) for name, element in domain.nics())
    return VmFacts(
        namespace="",
        name=domain.name,
        platform=Platform.LIBVIRT,
        guest_os=guest_os,
        guest_os_source=source,
        nics=nics,
        # Only the XML of a running domain carries an id.
        running=domain.root.get("id") is not None,
        vcpus=vcpus,
        memory_bytes=_memory_bytes(domain),
        virtio_queues=max((nic.present.queues for nic in nics), default=1),
    )


def _nic(name: str, element: etree._Element, owners: Mapping[str, str]) -> NicFacts:
    mac = element.find("mac")
    return NicFacts(
        name=name,
        network=Network(name=_source_name(element)),
        present=_present(element, owners),
        binding=element.get("type", ""),
        explicit_model=_attribute(element, "model", "type") or None,
        spec_mac=mac.get("address") if mac is not None else None,
    )


def _present(element: etree._Element, owners: Mapping[str, str]) -> NicState:
    kind = element.get("type", "")
    if element.tag == "hostdev":
        return NicState(datapath=Datapath.PASSTHROUGH, resource=owners.get(pci_address(element), ""))
    if kind == "hostdev":
        return NicState(datapath=Datapath.SRIOV, resource=owners.get(pci_address(element), ""))
    model = _attribute(element, "model", "type") or _DEFAULT_MODEL
    queues = _number(element.find("driver"), "queues", "1", base=10) or 1
    if kind == "direct":
        return NicState(datapath=Datapath.MACVTAP, model=model, queues=queues)
    if kind not in _PLAIN:
        return NicState(datapath=Datapath.OTHER, model=model)
    if model not in _VIRTIO:
        return NicState(datapath=Datapath.EMULATED, model=model)
    if _attribute(element, "driver", "name") == "qemu":
        return NicState(datapath=Datapath.VIRTIO, model=model)
    return NicState(datapath=Datapath.VHOST, model=model, queues=queues)


def pci_address(element: etree._Element) -> str:
    """Give the host's PCI address that an interface or hostdev names; empty if none."""
    address = element.find("source/address")
    if address is None or address.get("bus") is None:
        return ""
    domain, bus, slot, function = (_number(address, part, "0", base=0) for part in ("domain", "bus", "slot", "function"))
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function}"


def _number(element: etree._Element | None, name: str, default: str, *, base: int) -> int:
    """Read a number as libvirt does; of base 0, `0x` stands before a hexadecimal one."""
    if element is None:
        return int(default)
    text = element.get(name, default)
    try:
        number = int(text, base)
    except ValueError:
        number = -1
    if number < 0:
        raise DomainError(f"line {element.sourceline}: <{element.tag} {name}={text!r}> is no number")
    return number


def _source_name(element: etree._Element) -> str:
    source = element.find("source")
    if source is None:
        return ""
    return next((str(source.get(key)) for key in ("network", "bridge", "dev") if source.get(key)), "")


def _attribute(element: etree._Element, child: str, name: str) -> str:
    found = element.find(child)
    return found.get(name, "") if found is not None else ""


def _guest_os(domain: Domain) -> tuple[GuestOs, str]:
    """Libosinfo's id is what virt-install and virt-manager write; Hyper-V enlightenments are a hint."""
    for element in domain.root.iterfind(f"metadata//{_LIBOSINFO}"):
        name = element.get("id", "").lower()
        if "microsoft" in name:
            return GuestOs.WINDOWS, "libosinfo metadata"
        if any(word in name for word in _LINUX):
            return GuestOs.LINUX, "libosinfo metadata"
    if domain.root.find("features/hyperv") is not None:
        return GuestOs.WINDOWS, "features/hyperv"
    return GuestOs.UNKNOWN, ""


def _vcpus(domain: Domain) -> int:
    element = domain.root.find("vcpu")
    text = (element.get("current") or element.text or "1") if element is not None else "1"
    return int(text) if text.strip().isdecimal() else 1


def _memory_bytes(domain: Domain) -> int | None:
    element = domain.root.find("memory")
    if element is None or not (element.text or "").strip().isdecimal():
        return None
    return int(str(element.text)) * _UNITS.get(element.get("unit", "KiB"), 1024)
