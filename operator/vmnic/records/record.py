"""HostRecord, what vmnic sees of a host, as a document that people and programs write.

No field is the result of a decision. Each field has one meaning of absence, which its docstring gives: unknown, or that the
kernel has no such thing.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from ..checked import forms
from ..checked.devices import MOST_VFS

__all__ = [
    "GROUP",
    "RECORD_VERSION",
    "HostPart",
    "HostRecord",
    "IommuGroup",
    "LinkChannels",
    "LinkRecord",
    "LinkVf",
    "Metadata",
    "Modules",
    "OwnerRecords",
    "PciDevice",
    "RecordError",
    "RecordedHolder",
    "Sriov",
    "record_schema",
    "to_record",
]

GROUP: Final = "cli.vmnic.dev"
RECORD_VERSION: Final = "cli.vmnic.dev/v1alpha1"
_SCHEMA: Final = "docs/reference/hostrecord.schema.json"

_PciAddress = Annotated[str, Meta(max_length=12, pattern=forms.anchored(forms.PCI_ADDRESS))]
_PciId = Annotated[str, Meta(pattern=r"^[0-9a-f]{4}\Z")]
_Class = Annotated[str, Meta(pattern=r"^[0-9a-f]{6}\Z")]
_LinkName = Annotated[str, Meta(min_length=1, max_length=15, pattern=forms.anchored(forms.LINK_NAME))]
_AltName = Annotated[str, Meta(min_length=1, max_length=128, pattern=forms.anchored(forms.PLAIN))]
_Word = Annotated[str, Meta(max_length=64, pattern=forms.anchored(forms.PLAIN))]
_Text = Annotated[str, Meta(max_length=512, pattern=forms.anchored(forms.PLAIN))]
_Mac = Annotated[str, Meta(pattern=r"^[0-9a-f]{2}(:[0-9a-f]{2}){0,31}\Z")]
_Filter = Annotated[str, Meta(pattern=r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")]
_Ip = Annotated[str, Meta(max_length=64, pattern=r"^[0-9a-f:.]+/[0-9]{1,3}\Z")]
_Index = Annotated[int, Meta(ge=1, le=2**31 - 1)]
_Number = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_Count = Annotated[int, Meta(ge=0, le=MOST_VFS)]
_Group = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_Modules = Annotated[tuple[_Word, ...], Meta(max_length=1024)]
_Region = Annotated[str, Meta(max_length=128, pattern=r"^[0-9a-f]{1,16}-[0-9a-f]{1,16} [a-z][a-z-]*\Z")]
_Pool = Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?\Z")]
_OWN_RULE: Final = forms.PCI_ADDRESS.removesuffix("$") + r" (changed|[A-Za-z0-9_?*.-]+ [0-9]{1,4}( 0)?)\Z"
_OwnRule = Annotated[str, Meta(max_length=96, pattern=_OWN_RULE)]
_Errno = Annotated[str, Meta(pattern=r"^E[A-Z0-9]{1,30}\Z")]


class RecordError(ValueError):
    """A record cannot be used. The message has the path in the document, the fault and what to do."""

    def __init__(self, path: str, fault: str, remedy: str) -> None:
        super().__init__(f"{path}: {fault}: {remedy}")


class _Struct(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """Base of the structs below.

    Names are in camelCase in documents. A field that says the same as its absence is left out.
    """


class Metadata(_Struct, frozen=True, kw_only=True):
    """Name and labels of the node."""

    name: Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?\Z")]
    """Name of the node."""
    labels: Annotated[dict[_AltName, _Text], Meta(max_length=512)] | None = None
    """Labels of the Node; absent if unknown, and then every nodeSelector matches."""


class Modules(_Struct, frozen=True, kw_only=True):
    """Kernel modules. An absent list is unknown, an empty one says that there are none."""

    loaded: _Modules | None = None
    """Modules that are loaded."""
    built_in: _Modules | None = None
    """Modules that the kernel has built in."""
    available: _Modules | None = None
    """Modules that can be loaded besides."""
    refused: Annotated[tuple[_Text, ...], Meta(max_length=64)] | None = None
    """Modules that the kernel refused to load, each with its answer."""


class HostPart(_Struct, frozen=True, kw_only=True):
    """The machine as a whole. Each field is unknown if it is absent."""

    kernel: Annotated[str, Meta(max_length=128, pattern=forms.anchored(forms.PLAIN))] | None = None
    """Release of the running kernel."""
    architecture: _Word | None = None
    """Architecture of the kernel, as `uname -m` prints it."""
    iommu: bool | None = None
    """Whether an IOMMU is on."""
    boot_id: Annotated[str, Meta(max_length=64, pattern=forms.anchored(forms.BOOT_ID))] | None = msgspec.field(
        default=None, name="bootID"
    )
    """The kernel's boot ID."""
    modules: Modules = Modules()
    """Kernel modules that datapaths and NICs need."""


class Sriov(_Struct, frozen=True, kw_only=True):
    """The kernel's `sriov_*` files of a function. Each field is unknown if it is absent."""

    total_vfs: _Count | None = None
    """Number of VFs that the function and its driver support."""
    num_vfs: _Count | None = None
    """Number of VFs that exist."""
    drivers_autoprobe: bool | None = None
    """Whether kernel drivers take new VFs."""
    offset: Annotated[int, Meta(ge=0, le=65_535)] | None = None
    """Distance of the first VF's routing ID from the function's own."""
    stride: Annotated[int, Meta(ge=0, le=65_535)] | None = None
    """Distance between the routing IDs of two VFs."""
    vf_device: _PciId | None = None
    """PCI device ID of the VFs."""


class PciDevice(_Struct, frozen=True, kw_only=True):
    """A network function, or another function in its IOMMU group."""

    address: _PciAddress
    """PCI address."""
    vendor: _PciId
    """PCI vendor ID."""
    device: _PciId
    """PCI device ID."""
    class_: _Class = msgspec.field(name="class")
    """PCI class, six hexadecimal digits."""
    driver: _Word | None = None
    """Driver; empty if none is bound, absent if unknown."""
    numa_node: Annotated[int, Meta(ge=-1, le=1023)] | None = None
    """NUMA node, -1 if the machine has none; absent if unknown."""
    iommu_group: _Group | None = None
    """Number of its IOMMU group; absent if it is in none."""
    physical_function: _PciAddress | None = None
    """Address of its PF; absent if it is no VF."""
    held: bool | None = None
    """Whether a process has its VFIO device open; absent if unknown, or if vfio-pci does not drive it."""
    unassigned_vf_space: bool = False
    """Whether the firmware left a register window of the VFs without an address."""
    vfio_device: _Word | None = None
    """Name below /dev/vfio/devices; absent if the kernel creates none."""
    sriov: Sriov | None = None
    """The kernel's `sriov_*` files; absent if it shows none."""
    virtual_functions: Annotated[tuple[_PciAddress, ...], Meta(max_length=MOST_VFS)] | None = None
    """Addresses of its VFs, by index; unknown as far as they are fewer than `sriov.numVfs`."""
    eswitch_mode: _Word | None = None
    """Mode of its switch, such as legacy or switchdev; absent if unknown."""


class LinkChannels(_Struct, frozen=True, kw_only=True):
    """Queue channels of a link."""

    combined: _Number
    """Channels that are in use."""
    max_combined: _Number
    """Most channels that may be in use."""


class LinkVf(_Struct, frozen=True, kw_only=True):
    """Attributes of a VF as its PF's driver reports them. One that it does not report is absent."""

    index: _Count
    """Index of the VF, from 0."""
    mac: _Mac | None = None
    """MAC address."""
    vlan: Annotated[int, Meta(ge=0, le=4095)] | None = None
    """VLAN ID; 0 for none."""
    vlan_qos: Annotated[int, Meta(ge=0, le=7)] | None = None
    """802.1p priority."""
    vlan_protocol: Literal["802.1q", "802.1ad"] | None = None
    """Tag protocol of the VLAN."""
    link_state: Literal["auto", "enable", "disable"] | None = None
    """Link state that the guest sees."""
    trust: bool | None = None
    """Whether the guest may change its MAC address and use promiscuous mode."""
    spoof_check: bool | None = None
    """Whether the NIC drops frames with another source address."""
    min_tx_rate_mbps: _Number | None = None
    """Guaranteed transmit rate in Mbit/s; 0 for none."""
    max_tx_rate_mbps: _Number | None = None
    """Highest transmit rate in Mbit/s; 0 for none."""


class LinkRecord(_Struct, frozen=True, kw_only=True):
    """One link of the host's network namespace."""

    index: _Index
    """Index of the link."""
    name: _LinkName
    """Name of the link."""
    type: Literal["ether", "infiniband"] | Annotated[int, Meta(ge=0, le=65_535)] | None = None
    """Type of the link, `ether`, `infiniband` or the kernel's number (ARPHRD_…); absent if unknown."""
    kind: _Word = ""
    """Kind of a virtual link, such as bridge or vlan; absent for a NIC."""
    lower: _Index | _LinkName | None = None
    """The link below it, by index or name; absent for none."""
    master: _Index | _LinkName | None = None
    """The bridge, bond or switch that it is a port of, by index or name; absent for none."""
    parent: _PciAddress | None = None
    """PCI function that it belongs to; absent for none."""
    phys_port_name: _Word = ""
    """Name of its port, such as p0 or pf0vf1; absent for none."""
    phys_switch_id: _Word = ""
    """ID of the switch that it is a port of; absent for none."""
    dev_port: _Number = 0
    """Number of its port among the links of the function; absent for the first."""
    alt_names: Annotated[tuple[_AltName, ...], Meta(max_length=64)] = ()
    """Alternative names."""
    addresses: Annotated[tuple[_Ip, ...], Meta(max_length=1024)] = ()
    """IP addresses with prefix length, except link-local ones."""
    learned_addresses: Annotated[tuple[_Ip, ...], Meta(max_length=1024)] = ()
    """Addresses that the kernel made from router advertisements."""
    unicast_addresses: Annotated[tuple[_Filter, ...], Meta(max_length=4096)] = ()
    """Entries of its unicast filter, besides its own address."""
    default_route: bool = False
    """Whether a default route uses it."""
    learned_default_route: bool = False
    """Whether the kernel learned a default route from a router advertisement."""
    promiscuity: _Number = 0
    """How many users have set it to promiscuous mode."""
    mac: _Mac | None = None
    """Present hardware address; absent if unknown."""
    permanent_mac: _Mac | None = None
    """Hardware address that the NIC was made with; absent if unknown."""
    mtu: _Number | None = None
    """MTU in bytes; absent if unknown."""
    up: bool | None = None
    """Whether it is switched on; absent if unknown."""
    carrier: bool | None = None
    """Whether it has a carrier; absent if unknown."""
    speed_mbps: _Number | None = None
    """Speed in Mbit/s; absent if unknown."""
    channels: LinkChannels | None = None
    """Queue channels; absent if unknown, or if its driver has none to set."""
    vfs: Annotated[tuple[LinkVf, ...], Meta(max_length=MOST_VFS)] = ()
    """Attributes of the function's VFs, as far as its driver reports them."""


class IommuGroup(_Struct, frozen=True, kw_only=True):
    """One IOMMU group with all its functions."""

    id: _Group
    """Number of the group."""
    devices: Annotated[tuple[_PciAddress, ...], Meta(min_length=1, max_length=4096)]
    """PCI functions in it. One that is not in `pciDevices` counts as an obstacle."""
    reserved_regions: Annotated[tuple[_Region, ...], Meta(max_length=256)] | None = None
    """Reserved regions, each `START-END TYPE` with the kernel's word for the type; absent if unknown."""


class RecordedHolder(_Struct, frozen=True, kw_only=True):
    """A device that a pod or a domain has."""

    device: Annotated[str, Meta(min_length=1, max_length=128, pattern=forms.anchored(forms.PLAIN))]
    """PCI address, number of an IOMMU group, or device ID of a macvtap."""
    resource: Annotated[str, Meta(max_length=317, pattern=forms.anchored(forms.PLAIN))] = ""
    """Resource that the pod has the device from; absent for none."""
    by: Annotated[str, Meta(min_length=1, max_length=321, pattern=forms.anchored(forms.PLAIN))]
    """Holder, such as `pod NAMESPACE/NAME` or `domain NAME`."""


class OwnerRecords(_Struct, frozen=True, kw_only=True):
    """What other programs and vmnic itself have written about functions.

    A map that is absent is empty.
    """

    module_options: Annotated[dict[_Word, _Text], Meta(max_length=256)] = {}
    """Options in vmnic's file below /etc/modprobe.d, by driver."""
    foreign: Annotated[dict[_PciAddress, Literal["sriov-network-operator", "NetworkManager"]], Meta(max_length=1024)] = {}
    """Other program that manages a function, by PCI address."""
    udev_rules: Annotated[dict[_Text, _PciAddress], Meta(max_length=1024)] = {}
    """PCI address that a file of udev rules creates VFs for, by path, except vmnic's own files."""
    own_udev_rules: Annotated[dict[_Pool, Annotated[tuple[_OwnRule, ...], Meta(max_length=1024)]], Meta(max_length=256)] = {}
    """vmnic's own rules that create VFs, by pool: `ADDRESS DRIVER COUNT`, then ` 0` if kernel drivers may not bind the VFs,
    or `ADDRESS changed` for a rule that a person has changed.
    """


class HostRecord(_Struct, frozen=True, kw_only=True):
    """What vmnic sees of a host."""

    api_version: Literal["cli.vmnic.dev/v1alpha1"]
    kind: Literal["HostRecord"]
    metadata: Metadata
    """Name and labels of the node."""
    host: HostPart = HostPart()
    """The machine as a whole."""
    pci_devices: Annotated[tuple[PciDevice, ...], Meta(max_length=16_384)] = ()
    """Network functions, and the other functions in their IOMMU groups."""
    links: Annotated[tuple[LinkRecord, ...], Meta(max_length=16_384)] = ()
    """Links of the host's network namespace."""
    iommu_groups: Annotated[tuple[IommuGroup, ...], Meta(max_length=16_384)] = ()
    """IOMMU groups of the functions."""
    holders: Annotated[tuple[RecordedHolder, ...], Meta(max_length=16_384)] = ()
    """Devices that pods and domains have."""
    owners: OwnerRecords = OwnerRecords()
    """What programs have written about functions."""
    errors: Annotated[dict[_Text, _Errno], Meta(max_length=1024)] = {}
    """What the kernel refused, as the name of its errno: `links`, `vfs:LINK`, `device:ADDRESS`, `eswitch:ADDRESS`,
    `unicast:LINK` or `group:ID`.
    """

    def device_at(self, address: str) -> PciDevice | None:
        """Return the function with a PCI address."""
        return next((one for one in self.pci_devices if one.address == address), None)


_AT = re.compile(r"(.*?)(?: - at `\$\.?(.*?)`)?", re.DOTALL)
_UNKNOWN_FIELD = "Object contains unknown field"
_ERRORS_OF: Final = ("vfs", "device", "eswitch", "unicast", "group")


def to_record(value: Any) -> HostRecord:
    """Convert a parsed document to a record.

    Raises:
        RecordError: A field is unknown or has a wrong value, or two fields contradict each other.
    """
    try:
        record = msgspec.convert(value, HostRecord)
    except msgspec.ValidationError as error:
        found = _AT.fullmatch(str(error))
        fault, path = found.groups("") if found is not None else (str(error), "")
        quote = "Expected `str`, got `int`" in fault or "got `float`" in fault
        remedy = (
            "correct its name, or remove it"
            if fault.startswith(_UNKNOWN_FIELD)
            else "quote it, so that YAML takes it for text"
            if quote
            else "correct it"
        )
        raise RecordError(path or "the document", fault, f"{remedy} ({_SCHEMA} has all fields)") from error
    for contradiction in _contradictions(record):
        raise contradiction
    return record


def record_schema() -> dict[str, Any]:
    """Return the JSON Schema of a record."""
    schema: dict[str, Any] = _with_ends(msgspec.json.schema(HostRecord))
    return schema


def _with_ends(value: Any) -> Any:
    """Write the end of each pattern as JSON Schema does, and not as Python."""
    if isinstance(value, dict):
        return {key: one.replace(r"\Z", "$") if key == "pattern" else _with_ends(one) for key, one in value.items()}
    return [_with_ends(one) for one in value] if isinstance(value, list) else value


def _contradictions(record: HostRecord) -> Iterator[RecordError]:
    """Yield what cannot be true together."""
    devices = {one.address: one for one in record.pci_devices}
    yield from _repeated("pciDevices", "address", [one.address for one in record.pci_devices])
    yield from _repeated("links", "index", [one.index for one in record.links])
    yield from _repeated("links", "name", [one.name for one in record.links])
    yield from _repeated("iommuGroups", "id", [one.id for one in record.iommu_groups])
    for number, device in enumerate(record.pci_devices):
        yield from _of_device(f"pciDevices[{number}]", device, devices, record)
    yield from _of_addresses(record)
    yield from _of_links(record, devices)
    yield from _of_groups(record, devices)
    yield from _of_errors(record, devices)
    twice = set(record.host.modules.loaded or ()) & set(record.host.modules.built_in or ())
    for name in sorted(twice):
        yield RecordError("host.modules", f"{name} is both in loaded and in builtIn", "remove it from one of them")


def _repeated(where: str, field: str, values: list[Any]) -> Iterator[RecordError]:
    seen: dict[Any, int] = {}
    for number, value in enumerate(values):
        first = seen.setdefault(value, number)
        if first != number:
            fault = f"{value} is also the {field} of {where}[{first}]"
            yield RecordError(f"{where}[{number}].{field}", fault, "remove one of them, or correct it")


def _of_device(where: str, device: PciDevice, devices: Mapping[str, PciDevice], record: HostRecord) -> Iterator[RecordError]:
    """Yield contradictions within a function, and between it and its PF."""
    sriov, found = device.sriov, device.virtual_functions or ()
    if sriov is None and found:
        fault = "the function has VFs, but no sriov block"
        yield RecordError(f"{where}.virtualFunctions", fault, "add sriov, or remove the addresses")
    if sriov is not None and sriov.num_vfs is not None:
        if len(found) > sriov.num_vfs:
            fault = f"{len(found)} addresses are given, but sriov.numVfs is {sriov.num_vfs}"
            yield RecordError(f"{where}.virtualFunctions", fault, "remove addresses, or raise numVfs")
        if sriov.total_vfs is not None and sriov.num_vfs > sriov.total_vfs:
            fault = f"{sriov.num_vfs} is more than totalVfs, which is {sriov.total_vfs}"
            yield RecordError(f"{where}.sriov.numVfs", fault, "correct one of them")
    if device.iommu_group is not None and record.host.iommu is False:
        fault = "the function is in an IOMMU group, but host.iommu is false"
        yield RecordError(f"{where}.iommuGroup", fault, "remove it, or set host.iommu: true")
    if device.physical_function is None:
        return
    of = devices.get(device.physical_function)
    if of is None:
        fault = f"{device.physical_function} is no device in pciDevices"
        yield RecordError(f"{where}.physicalFunction", fault, "add it, or correct the address")
    elif of.physical_function is not None:
        fault = f"{of.address} is a VF itself"
        yield RecordError(f"{where}.physicalFunction", fault, "name its PF")
    elif of.virtual_functions is not None and device.address not in of.virtual_functions and _is_complete(of):
        fault = f"{of.address} does not list {device.address} in virtualFunctions"
        yield RecordError(f"{where}.physicalFunction", fault, "add it there, or remove it here")


def _is_complete(device: PciDevice) -> bool:
    """Return whether the addresses of all VFs are known."""
    count = device.sriov.num_vfs if device.sriov is not None else 0
    return count is not None and len(device.virtual_functions or ()) >= count


def _of_addresses(record: HostRecord) -> Iterator[RecordError]:
    """Yield VFs that belong to two functions, or to another one than they say."""
    owners: dict[str, str] = {}
    devices = {one.address: one for one in record.pci_devices}
    for number, device in enumerate(record.pci_devices):
        for index, address in enumerate(device.virtual_functions or ()):
            where = f"pciDevices[{number}].virtualFunctions[{index}]"
            if address in owners or address == device.address:
                fault = (
                    f"{address} is given twice" if owners.get(address) == device.address else f"{address} is not only its VF"
                )
                yield RecordError(where, fault, "remove it, or correct the address")
            owners[address] = device.address
            vf = devices.get(address)
            if vf is not None and vf.physical_function != device.address:
                fault = f"{address} has another physicalFunction ({vf.physical_function or 'none'})"
                yield RecordError(where, fault, f"set physicalFunction: {device.address} there, or remove it here")


def _of_links(record: HostRecord, devices: Mapping[str, PciDevice]) -> Iterator[RecordError]:
    """Yield links that belong to nothing, or to a function that has none."""
    known: set[int | str] = {one.index for one in record.links} | {one.name for one in record.links}
    for number, link in enumerate(record.links):
        where = f"links[{number}]"
        if link.parent is not None and link.parent not in devices:
            yield RecordError(f"{where}.parent", f"{link.parent} is no device in pciDevices", "add it, or correct the address")
        elif link.parent is not None and devices[link.parent].driver in ("", "vfio-pci"):
            driver = devices[link.parent].driver or "no driver"
            yield RecordError(f"{where}.parent", f"{link.parent} has {driver}, so it has no link", "correct one of them")
        if link.master is not None and link.master not in known:
            yield RecordError(f"{where}.master", f"{link.master} is no link", "add it to links, or correct it")
        # An index may be that of a link in another network namespace.
        if isinstance(link.lower, str) and link.lower not in known:
            yield RecordError(f"{where}.lower", f"{link.lower} is no link", "add it to links, or correct it")
        for field, other in (("master", link.master), ("lower", link.lower)):
            if other in (link.index, link.name):
                yield RecordError(f"{where}.{field}", "it names the link itself", "correct it")
        yield from _of_link_vfs(where, link, devices)


def _of_link_vfs(where: str, link: LinkRecord, devices: Mapping[str, PciDevice]) -> Iterator[RecordError]:
    yield from _repeated(f"{where}.vfs", "index", [one.index for one in link.vfs])
    device = devices.get(link.parent or "")
    sriov = device.sriov if device is not None else None
    if link.vfs and sriov is None:
        fault = "VFs are described, but the link belongs to no function with a sriov block"
        yield RecordError(f"{where}.vfs", fault, "remove them, or add sriov to the function")
    elif sriov is not None and sriov.num_vfs is not None:
        for number, one in enumerate(link.vfs):
            if one.index >= sriov.num_vfs:
                fault = f"VF {one.index} does not exist: sriov.numVfs is {sriov.num_vfs}"
                yield RecordError(f"{where}.vfs[{number}].index", fault, "remove it, or raise numVfs")


def _of_groups(record: HostRecord, devices: Mapping[str, PciDevice]) -> Iterator[RecordError]:
    """Yield functions whose IOMMU group is unclear."""
    groups: dict[str, int] = {}
    for number, group in enumerate(record.iommu_groups):
        for index, address in enumerate(group.devices):
            where = f"iommuGroups[{number}].devices[{index}]"
            if address in groups:
                yield RecordError(where, f"{address} is also in group {groups[address]}", "remove it from one of them")
            groups[address] = group.id
            device = devices.get(address)
            if device is not None and device.iommu_group != group.id:
                there = "none" if device.iommu_group is None else str(device.iommu_group)
                fault = f"{address} has another iommuGroup ({there})"
                yield RecordError(where, fault, f"set iommuGroup: {group.id} there, or remove it here")
    described = {group.id for group in record.iommu_groups}
    for number, device in enumerate(record.pci_devices):
        if device.iommu_group in described and device.address not in groups:
            fault = f"group {device.iommu_group} in iommuGroups does not contain {device.address}"
            yield RecordError(f"pciDevices[{number}].iommuGroup", fault, "add it there, or correct the number")


def _of_errors(record: HostRecord, devices: Mapping[str, PciDevice]) -> Iterator[RecordError]:
    names = {one.name for one in record.links}
    groups = {str(one.iommu_group) for one in record.pci_devices} | {str(one.id) for one in record.iommu_groups}
    known = {"device": devices.keys(), "eswitch": devices.keys(), "vfs": names, "unicast": names, "group": groups}
    for read, code in record.errors.items():
        what, _, which = read.partition(":")
        where = f"errors.{read}"
        if read != "links" and what not in _ERRORS_OF:
            words = ", ".join(f"{one}:…" for one in _ERRORS_OF)
            yield RecordError(where, "no read has this name", f"use links, {words}")
        elif read != "links" and which not in known[what]:
            yield RecordError(where, f"{which or 'an empty name'} is not in the record", "add it, or correct the name")
        if not hasattr(errno, code):
            yield RecordError(where, f"{code} is no errno", "use the kernel's name of it, such as EMSGSIZE")
