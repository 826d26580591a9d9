"""Facts of a VM from a domain's XML.

They have the same form as facts of a KubeVirt VM, so that the same engine decides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NoReturn

from lxml import etree

from ..checked.printable import cut
from ..checked.quantities import LARGEST, read_integer
from ..policy.facts import (
    Architecture,
    Datapath,
    DeviceRequests,
    GuestOs,
    Network,
    NicFacts,
    NicState,
    Platform,
    VmFacts,
)
from ..policy.problems import VmProblem
from ..policy.reasons import Reason
from .carried import SHARED_BANDWIDTH, interface_settings
from .domain import Domain, DomainError
from .network import LibvirtNetwork, add_inherited, find_fault, network_of

__all__ = ["gather_domain", "named_addresses"]

_PAIR = (Reason.FAILOVER_PAIR, "its <teaming> makes it half of a pair that the guest takes for one NIC: remove the element")
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
_VIRTIO_BY_DEFAULT = ("s390", "s390x")
"""Architectures on which libvirt's default model is virtio on every machine type."""
_VIRTIO_ON_VIRT = re.compile(r"(arm|aarch64|riscv|loongarch).*", re.ASCII)
"""Architectures on which libvirt's default model is virtio for the machine type `virt`, which is their default too."""
_ARM = ("arm", "aarch64")
_VIRTIO = ("virtio", "virtio-transitional", "virtio-non-transitional")
_PLAIN = ("network", "bridge", "ethernet")
_SHOWN_BYTES = 40
_LARGEST_MTU = 65535
_MOST_QUEUES = 256
"""The kernel's limit for a tap device (MAX_TAP_QUEUES)."""
_MOST_VCPUS = 2**16 - 1
_PCI = {"domain": 2**32 - 1, "bus": 255, "slot": 31, "function": 7}
_HEXADECIMAL = re.compile(r"0[xX][0-9a-fA-F]{1,8}", re.ASCII)
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


def named_addresses(domain: Domain) -> tuple[str, ...]:
    """Return the PCI addresses of the host that a domain names, as interfaces or as any other devices."""
    return tuple(filter(None, map(_pci_address, _host_devices(domain))))


def _host_devices(domain: Domain) -> Iterator[etree._Element]:
    for element in domain.root.iterfind("devices/*"):
        if element.get("type") == ("pci" if element.tag == "hostdev" else "hostdev"):
            yield element


def gather_domain(
    domain: Domain,
    owners: Mapping[str, str] | None = None,
    networks: Mapping[str, LibvirtNetwork] | None = None,
    twice: Mapping[str, str] | None = None,
) -> VmFacts:
    """Read the facts of one domain.

    Args:
        domain: The domain.
        owners: Resource of the pool that has a PCI function, by its address.
        networks: libvirt's networks by name. A NIC on another network stays as it is.
        twice: Another domain that names the same PCI function of the host, by its address.

    Raises:
        DomainError: a number in it is malformed; the message names domain, line and element.
    """
    try:
        return _facts(domain, owners or {}, networks or {}, twice or {})
    except DomainError as error:
        raise DomainError(f"domain {domain.name}, {error}") from error


def _facts(
    domain: Domain, owners: Mapping[str, str], networks: Mapping[str, LibvirtNetwork], twice: Mapping[str, str]
) -> VmFacts:
    guest_os, source = _guest_os(domain)
    vcpus = _vcpus(domain)
    default = _default_model(domain)
    # What networks set for their NICs is added to a copy, because the domain's own XML does not have it.
    elements = list((domain.copied() if networks else domain).nics())
    nics = tuple(_nic(name, element, owners, networks, default) for name, element in elements)
    addresses = named_addresses(domain)
    shared = next(
        (
            f"domain {cut(twice[one], _SHOWN_BYTES)} names {one} too: give one of them another device"
            for one in addresses
            if one in twice
        ),
        "",
    )
    if shared:
        nics = tuple(replace(nic, stays=(Reason.ADDRESS_TWICE, shared)) for nic in nics)
    # The elements are kept, because lxml may give the id of one that is gone to another.
    own = [element for _, element in domain.nics()]
    known = set(map(id, own))
    others = [owners.get(_pci_address(one), "") for one in _host_devices(domain) if id(one) not in known]
    return VmFacts(
        namespace="",
        name=domain.name,
        platform=Platform.LIBVIRT,
        guest_os=guest_os,
        guest_os_source=source,
        architecture=_architecture(domain),
        nics=nics,
        # Only the XML of a running domain carries an id.
        running=domain.root.get("id") is not None,
        vcpus=vcpus,
        memory_bytes=_memory_bytes(domain),
        problems=(VmProblem(Reason.ADDRESS_TWICE, shared),) if shared else (),
        requests=DeviceRequests(others=Counter(filter(None, others))),
        virtio_queues=max((nic.present.queues for nic in nics), default=1),
    )


def _architecture(domain: Domain) -> Architecture:
    """Return the guest's architecture.

    libvirt writes it to every domain that is defined. Without it, a file does not say on which host it is to run.
    """
    name = _os_type(domain, "arch")
    return Architecture(name, "<os><type arch>") if name else Architecture()


def _default_model(domain: Domain) -> str:
    """Return the model that libvirt gives an interface without one.

    It follows qemuDomainDefaultNetModel in libvirt's src/qemu/qemu_postparse.c. Without a machine type libvirt takes `virt`
    where QEMU has it.
    """
    arch, machine = _os_type(domain, "arch"), _os_type(domain, "machine") or "virt"
    is_virt = machine == "virt" or machine.startswith("virt-")
    if arch in _VIRTIO_BY_DEFAULT or (is_virt and _VIRTIO_ON_VIRT.fullmatch(arch)):
        return "virtio"
    if arch.startswith(_ARM):
        return "smc91c111" if machine == "versatilepb" else "lan9118"
    return "rtl8139"


def _os_type(domain: Domain, name: str) -> str:
    element = domain.root.find("os/type")
    return cut(element.get(name, ""), _SHOWN_BYTES) if element is not None else ""


def _nic(
    name: str,
    element: etree._Element,
    owners: Mapping[str, str],
    networks: Mapping[str, LibvirtNetwork],
    default_model: str,
) -> NicFacts:
    mac = element.find("mac")
    unknown, network = find_fault(element, networks), network_of(element, networks)
    present = NicState(datapath=Datapath.OTHER) if unknown is not None else _present(element, owners, default_model, network)
    if network is not None:
        add_inherited(element, network)
    is_limited = network is not None and network.has_bandwidth
    return NicFacts(
        name=name,
        # The resource of a VF that a network of libvirt gives is not known, so the NIC keeps it.
        network=Network(
            name=_source_name(element), mtu=_mtu(element), known=network is None or present.datapath is not Datapath.SRIOV
        ),
        present=present,
        stays=unknown or (_PAIR if element.find("teaming") is not None else None),
        binding=element.get("type", ""),
        explicit_model=_attribute(element, "model", "type") or None,
        settings={**interface_settings(element), **({SHARED_BANDWIDTH.name: SHARED_BANDWIDTH} if is_limited else {})},
        has_fixed_slot=_attribute(element, "address", "type") == "pci",
        spec_mac=mac.get("address") if mac is not None else None,
    )


def _present(
    element: etree._Element, owners: Mapping[str, str], default_model: str, network: LibvirtNetwork | None
) -> NicState:
    kind = element.get("type", "")
    if element.tag == "hostdev":
        return NicState(datapath=Datapath.PASSTHROUGH, resource=owners.get(_pci_address(element), ""))
    if kind == "hostdev":
        return NicState(datapath=Datapath.SRIOV, resource=owners.get(_pci_address(element), ""))
    given = network.datapath if network is not None else None
    if given is Datapath.SRIOV:
        return NicState(datapath=Datapath.SRIOV)
    model = _attribute(element, "model", "type") or default_model
    queues = _queues(element)
    if kind == "direct" or given is Datapath.MACVTAP:
        return NicState(datapath=Datapath.MACVTAP, model=model, queues=queues)
    if kind not in _PLAIN:
        return NicState(datapath=Datapath.OTHER, model=model)
    if model not in _VIRTIO:
        return NicState(datapath=Datapath.EMULATED, model=model)
    # Without a name of the driver, libvirt uses vhost if the host has it.
    if _attribute(element, "driver", "name") == "qemu":
        return NicState(datapath=Datapath.VIRTIO, model=model)
    return NicState(datapath=Datapath.VHOST, model=model, queues=queues)


def _pci_address(element: etree._Element) -> str:
    """Return the host PCI address of an interface or hostdev, or an empty string."""
    address = element.find("source/address")
    if address is None or address.get("bus") is None:
        return ""
    domain, bus, slot, function = (_pci_number(address, part, most) for part, most in _PCI.items())
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function}"


def _queues(element: etree._Element) -> int:
    driver = element.find("driver")
    if driver is None or driver.get("queues") is None:
        return 1
    queues = read_integer(driver.get("queues"), 0, _MOST_QUEUES)
    return (queues if queues is not None else _refuse(driver, "queues", _MOST_QUEUES)) or 1


def _pci_number(address: etree._Element, name: str, most: int) -> int:
    """Read a part of a PCI address as libvirt does. `0x` marks a hexadecimal number."""
    text = address.get(name, "0").strip()
    if _HEXADECIMAL.fullmatch(text):
        number: int | None = int(text, 16)
    else:
        # libvirt would read a number with a leading zero as octal, so it is refused instead of misread.
        number = read_integer(text, 0, most) if text == "0" or not text.startswith("0") else None
    return number if number is not None and number <= most else _refuse(address, name, most)


def _refuse(element: etree._Element, name: str, most: int) -> NoReturn:
    """Refuse a number of an attribute, or of an element's text if no name is given."""
    text = cut(element.get(name, "") if name else (element.text or "").strip(), _SHOWN_BYTES)
    what = f"<{element.tag} {name}={text!r}>" if name else f"<{element.tag}>{text}</{element.tag}>"
    raise DomainError(f"line {element.sourceline}: {what} is not a number from 0 to {most}: correct it with `virsh edit`")


def _mtu(element: etree._Element) -> int | None:
    """Return the MTU that libvirt sets on the tap device, or None if the XML names none."""
    mtu = element.find("mtu")
    if mtu is None or mtu.get("size") is None:
        return None
    size = read_integer(mtu.get("size"), 1, _LARGEST_MTU)
    return size if size is not None else _refuse(mtu, "size", _LARGEST_MTU)


def _source_name(element: etree._Element) -> str:
    source = element.find("source")
    if source is None:
        return ""
    return next((str(source.get(key)) for key in ("network", "bridge", "dev") if source.get(key)), "")


def _attribute(element: etree._Element, child: str, name: str) -> str:
    found = element.find(child)
    return found.get(name, "") if found is not None else ""


def _guest_os(domain: Domain) -> tuple[GuestOs, str]:
    """Read the guest OS.

    virt-install and virt-manager write the ID of libosinfo. Hyper-V enlightenments are only a hint.
    """
    for element in domain.root.iterfind(f"metadata//{_LIBOSINFO}"):
        name = element.get("id", "").lower()
        if "microsoft" in name:
            return GuestOs.WINDOWS, "libosinfo metadata"
        # The ID is a URL, such as http://ubuntu.com/ubuntu/22.04.
        if any(word in name for word in _LINUX):
            return GuestOs.LINUX, "libosinfo metadata"
    if domain.root.find("features/hyperv") is not None:
        return GuestOs.WINDOWS, "features/hyperv"
    return GuestOs.UNKNOWN, ""


def _vcpus(domain: Domain) -> int:
    element = domain.root.find("vcpu")
    if element is None:
        return 1
    # `current` is the number of vCPUs that are on, the text is their maximum.
    name = "current" if element.get("current") else ""
    vcpus = read_integer(element.get("current") or element.text or "1", 1, _MOST_VCPUS)
    return vcpus if vcpus is not None else _refuse(element, name, _MOST_VCPUS)


def _memory_bytes(domain: Domain) -> int | None:
    """Read the guest's memory in bytes. None if it is absent or its unit is unknown."""
    element = domain.root.find("memory")
    unit = _UNITS.get(element.get("unit", "KiB")) if element is not None else None
    if element is None or not (element.text or "").strip() or unit is None:
        return None
    memory = read_integer(element.text, 0, LARGEST)
    return min(memory * unit, LARGEST) if memory is not None else _refuse(element, "", LARGEST)
