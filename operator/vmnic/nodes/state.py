"""A NodeNicState as frozen structs that the agent, the controller and the CLI share.

The agent's process must stay small, so these are msgspec structs and not the pydantic models of `vmnic.api`, from which
the CRD is made; a test holds both equal, bounds included. Unknown fields are ignored: an agent may be older than the CRD.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from ..checked import forms
from ..checked.devices import MOST_VFS, read_vf_range

__all__ = [
    "APPROVED",
    "VFIO",
    "Action",
    "ActionKind",
    "Annotations",
    "Apply",
    "ApplyState",
    "Condition",
    "Held",
    "HostFacts",
    "HostSpec",
    "NodeNicState",
    "NodeSpec",
    "NodeStatus",
    "ObjectMeta",
    "PfPlan",
    "PfProblem",
    "PfReason",
    "PfSpec",
    "PfStatus",
    "VfGroup",
    "VfRange",
    "VfSettings",
    "decode_node_state",
    "decode_own_state",
    "group_of",
    "indexes_of",
    "range_of",
    "wire",
]


APPROVED = "vmnic.dev/approved"
VFIO: Final = "vfio-pci"
"""The driver of functions that VMs get."""

_Text = Annotated[str, Meta(max_length=512)]
_Name = Annotated[str, Meta(max_length=253)]
_Word = Annotated[str, Meta(max_length=64, pattern=forms.whole(forms.PLAIN))]
_PciAddress = Annotated[str, Meta(max_length=12, pattern=forms.whole(forms.PCI_ADDRESS))]
_PciId = Annotated[str, Meta(max_length=4, pattern=forms.whole(forms.OPTIONAL_PCI_ID))]
_Digest = Annotated[str, Meta(max_length=64, pattern=forms.whole(forms.DIGEST))]
_Generation = Annotated[int, Meta(ge=0, le=forms.LARGEST_GENERATION)]
_VfCount = Annotated[int, Meta(ge=0, le=MOST_VFS)]
_AskedVfs = Annotated[int, Meta(ge=0, le=256)]
_Rate = Annotated[int, Meta(ge=0, le=1_000_000)]
_Modules = Annotated[tuple[_Word, ...], Meta(max_length=32)]


class _Struct(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Camel case on the wire; what equals its default is left out."""


class ActionKind(StrEnum):
    """The typed steps of a plan, in the order in which they may occur."""

    BIND_PF = "BindPf"
    """Give the function itself the driver named; the host loses its link."""
    WRITE_MODULE_OPTIONS = "WriteModuleOptions"
    """Write the driver's `max_vfs` below /etc/modprobe.d, for every function of that driver; empty removes the file."""
    RELOAD_DRIVER = "ReloadDriver"
    """Unload and load the driver: old ones make VFs only by `max_vfs`, at that moment."""
    SET_AUTOPROBE = "SetAutoprobe"
    """Write `sriov_drivers_autoprobe`: 0 so that no kernel driver takes a VF that is meant for vfio-pci."""
    SET_NUM_VFS = "SetNumVfs"
    """Write `sriov_numvfs`; the kernel refuses N to M, so 0 comes between."""
    SET_VFS = "SetVfs"
    """Give the VFs of a range the attributes that the spec asks for; before they are bound, as a driver reads its
    MAC address only then."""
    BIND_VFS = "BindVfs"
    """Give every VF of a range that has another driver the one named; `none` takes what it has."""
    SET_MTU = "SetMtu"
    """Set the MTU of the physical function, in bytes."""
    SET_QUEUES = "SetQueues"
    """Set the `combined` channels of the physical function; another number of VFs has reset them."""
    SET_LINK = "SetLink"
    """Switch the function's link `up` or `down`; VFs of a function that is down have no link, and many NICs take no rate
    for them, so it may be up before."""


class Action(_Struct, frozen=True):
    """One step of a plan."""

    kind: ActionKind
    value: Annotated[str, Meta(max_length=256)]


class PfReason(StrEnum):
    """Why a physical function cannot be made what the pool asks, or is not."""

    FOREIGN_OWNER = "ForeignOwner"
    """Another program manages the function's VFs. Take it out of the pool, or away from that program."""
    FIRMWARE_SRIOV_OFF = "FirmwareSriovOff"
    """The NIC offers no VFs at all. Switch SR-IOV on in its firmware or in the machine's."""
    TOO_MANY_VFS = "TooManyVfs"
    """More VFs are asked than the NIC supports. Lower `numVfs`, or say "max"."""
    TOO_FEW_VFS = "TooFewVfs"
    """`management: Adopt` takes VFs that exist, and there are fewer. Create them, or lower `numVfs`."""
    TOO_MANY_QUEUES = "TooManyQueues"
    """More queues are asked than the NIC has left beside its VFs. Lower `queues`."""
    NO_MMIO_SPACE = "NoMmioSpace"
    """The machine's firmware left no room for the VFs' registers. Add pci=realloc to the kernel's command line."""
    HOST_USED = "HostUsed"
    """The host itself uses the function: an address, a default route, an upper device. Take it out of the pool, or
    say `safety.allowHostUsed`."""
    IOMMU_OFF = "IommuOff"
    """vfio-pci needs an IOMMU. Switch it on in the firmware and with `intel_iommu=on` or `amd_iommu=on`,
    then reboot."""
    IOMMU_GROUP_SHARED = "IommuGroupShared"
    """Other functions share the IOMMU group, so vfio-pci cannot take a VF. Use a slot with ACS."""
    NO_DRIVER = "NoDriver"
    """No driver is bound to the function, so the kernel cannot create VFs. Bind its driver."""
    LINK_ELSEWHERE = "LinkElsewhere"
    """The function's link is in another network namespace, where nothing of it can be set, so its VFs are not handed out.
    Bring it back to the host's, or take the function out of the pool."""
    MODULE_MISSING = "ModuleMissing"
    """A kernel module that VMs need cannot be loaded. Load it, or look why the kernel refuses it."""
    MODULE_OPTIONS_NEEDED = "ModuleOptionsNeeded"
    """The driver makes VFs only by its parameter `max_vfs`. Say `persistence: ModuleOptions`."""
    DRIVER_IN_USE = "DriverInUse"
    """The driver would have to be loaded anew while the host or a VM uses one of its functions. Restart the
    node: the options are in force then."""
    VANISHED = "Vanished"
    """A function that belongs to a pool is no longer there. Look at the hardware, or take it out of the pool."""
    CARRIER_LOST = "CarrierLost"
    """The function's link had a carrier and has none any more, so its VFs reach nobody and are no longer handed out. Look at
    the cable, the transceiver and the switch's port."""
    UNREADABLE = "Unreadable"
    """A read of this function failed, or the node's status could not be read or published; nothing is concluded from that. Read
    the message and the kernel's log; the agent looks again by itself."""
    WRITE_STILL_IN_FLIGHT = "WriteStillInFlight"
    """A write of an earlier run has not returned from the kernel; the function is left alone until it does. Look at the
    kernel's log; if it never returns, restart the node."""
    PCI_BUS_STUCK = "PciBusStuck"
    """A write did not return from the kernel, so no further PCI write is started on this node. Look at the
    kernel's log; most often only a restart of the node helps."""
    APPLY_FAILED = "ApplyFailed"
    """The host refused a step, or was not as written when read back. The message names the step and the errno:
    remove its cause, then change the pool or restart the node to have it tried again."""
    ROLLED_BACK = "RolledBack"
    """The node was cut off by the change and undid it. Change the pool, or approve the plan to try it again."""


class Held(_Struct, frozen=True):
    """A VF that somebody holds open."""

    vf: _PciAddress
    """PCI address."""
    by: Annotated[str, Meta(max_length=321)] = ""
    """Who, as far as the kubelet reports: `pod namespace/name`, at most 321 characters; empty when unknown."""


class VfRange(_Struct, frozen=True):
    """VFs with consecutive indexes and the same driver."""

    range: Annotated[str, Meta(max_length=7, pattern=forms.whole(forms.INDEX_RANGE))]
    """`0-6` or `3`."""
    driver: _Word = ""
    """Empty: none bound."""


class PfPlan(_Struct, frozen=True):
    """What is to be done to one physical function, and whether it may."""

    digest: _Digest
    """Names this plan: attempt, boot, desired spec, actions and the observed values that they rely on."""
    actions: Annotated[tuple[Action, ...], Meta(max_length=32)] = ()
    text: _Text = ""
    """The actions in words."""
    disruptive: bool = False
    """A VF that would go is held, or the host uses the function."""
    fenced: bool = False
    """VFs that a pod could get in the meantime would go: they are fenced before the first write."""
    blocked_by: Annotated[tuple[_Text, ...], Meta(max_length=64)] = ()
    """Who stands in the way, in words: `pod tenants/db holds 0000:0b:10.3`."""


class PfProblem(_Struct, frozen=True):
    """Why the function cannot be made what the pool asks, or is not."""

    reason: PfReason
    message: _Text


class ApplyState(StrEnum):
    """How far the run is that a grant started."""

    CLAIMED = "Claimed"
    APPLYING = "Applying"
    APPLIED = "Applied"
    FAILED = "Failed"
    ROLLED_BACK = "RolledBack"
    REFUSED = "Refused"


class Apply(_Struct, frozen=True):
    """The last run that a grant started."""

    digest: _Digest
    state: ApplyState
    message: _Text = ""


class VfSettings(_Struct, frozen=True):
    """Attributes that the agent sets on VFs; None leaves one as it is."""

    vlan: Annotated[int, Meta(ge=0, le=4094)] | None = None
    vlan_qos: Annotated[int, Meta(ge=0, le=7)] | None = None
    vlan_protocol: Literal["802.1q", "802.1ad"] | None = None
    trust: bool | None = None
    spoof_check: bool | None = None
    link_state: Literal["Auto", "Enable", "Disable"] | None = None
    min_tx_rate_mbps: _Rate | None = None
    max_tx_rate_mbps: _Rate | None = None
    mac_prefix: Annotated[str, Meta(max_length=8, pattern=forms.whole(forms.MAC_PREFIX))] | None = None


class VfGroup(_Struct, frozen=True):
    """What one pool gets of a function: some of its VFs, or the whole of it."""

    pool: _Name
    resource: _Name
    """Extended resource that stands for them."""
    range: Annotated[str, Meta(max_length=7, pattern=forms.whole(forms.OPTIONAL_INDEX_RANGE))] = ""
    """Indexes such as `0-3`; empty: all."""
    driver: Literal["vfio-pci", "kernel"] = VFIO
    """`vfio-pci`, or `kernel` for the kernel's own choice."""
    settings: VfSettings | None = None
    device_plugin: Literal["Embedded", "None"] = "Embedded"
    exclude_topology: bool = False


class PfSpec(_Struct, frozen=True):
    """What one physical function should be; merged from all pools by the controller."""

    pci_address: _PciAddress
    pool: _Name
    """The oldest pool that has a part of it: its rollout decides when the function changes."""
    num_vfs: _AskedVfs = 0
    function: Literal["Virtual", "Physical"] = "Virtual"
    management: Literal["Managed", "Adopt"] = "Managed"
    persistence: Literal["Agent", "ModuleOptions"] = "Agent"
    mtu: Annotated[int, Meta(ge=576, le=9216)] | None = None
    queues: Annotated[int, Meta(ge=1, le=256)] | None = None
    groups: Annotated[tuple[VfGroup, ...], Meta(max_length=16)] = ()
    allow_host_used: bool = False
    rollback_timeout_s: Annotated[int, Meta(ge=1, le=3600)] = 60
    release: Literal["", "Reset", "Retain"] = ""
    """`Reset` or `Retain`: no pool asks for it any more, and the agent gives it up in this way."""
    grant: _Digest | None = None
    """Digest of the plan that the agent may carry out."""

    @property
    def vfio(self) -> bool:
        """Whether anything of it is to be driven by vfio-pci."""
        return self.function == "Physical" or any(group.driver == VFIO for group in self.groups)


class PfStatus(_Struct, frozen=True):
    """What one physical function is; written by the agent."""

    pci_address: _PciAddress
    name: Annotated[str, Meta(max_length=64, pattern=forms.whole(forms.LINK_NAME))] = ""
    alt_names: Annotated[
        tuple[Annotated[str, Meta(max_length=128, pattern=forms.whole(forms.PLAIN))], ...], Meta(max_length=16)
    ] = ()
    vendor: _PciId = ""
    device: _PciId = ""
    model: _Word = ""
    driver: _Word = ""
    numa_node: Annotated[int, Meta(ge=0, le=1023)] | None = None
    link_speed_mbps: Annotated[int, Meta(ge=0, le=10_000_000)] | None = None
    mtu: Annotated[int, Meta(ge=0, le=65_536)] | None = None
    queues: Annotated[int, Meta(ge=0, le=65_535)] | None = None
    total_vfs: _VfCount = 0
    num_vfs: _VfCount = 0
    first_vf: Annotated[str, Meta(max_length=12, pattern=forms.whole(forms.OPTIONAL_PCI_ADDRESS))] = ""
    """PCI address of its first VF; empty: it has none."""
    vf_stride: Annotated[int, Meta(ge=0, le=65_535)] = 0
    """By how much the routing id of a VF is above that of the VF before it."""
    vfs: Annotated[tuple[VfRange, ...], Meta(max_length=256)] = ()
    held: Annotated[tuple[Held, ...], Meta(max_length=256)] = ()
    host_use: Annotated[tuple[_Text, ...], Meta(max_length=16)] = ()
    """What the host itself uses the function for, in words; empty: nothing."""
    owned: bool = False
    """Whether vmnic has changed it (journaled with its original values)."""
    attempt: Annotated[int, Meta(ge=0, le=forms.LARGEST_COUNT)] = 0
    """Rises after every end of a run."""
    plan: PfPlan | None = None
    """None: nothing is to be done."""
    problem: PfProblem | None = None
    apply: Apply | None = None


class HostFacts(_Struct, frozen=True):
    """What the node as a whole offers."""

    kernel: Annotated[str, Meta(max_length=128, pattern=forms.whole(forms.PLAIN))] = ""
    iommu: bool | None = None
    """None: could not be read."""
    modules: _Modules = ()
    """Of the modules that datapaths need (vhost_net, tun, macvtap, vfio_pci), those that are loaded or built in."""
    refused: Annotated[tuple[_Text, ...], Meta(max_length=32)] = ()
    """Modules that the init container could not load, each with the kernel's answer."""


class Condition(_Struct, frozen=True):
    """A Kubernetes condition."""

    type: Annotated[str, Meta(max_length=64, pattern=forms.whole(forms.CONDITION))]
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Meta(max_length=128, pattern=forms.whole(forms.REASON))]
    message: Annotated[str, Meta(max_length=1024)] = ""
    observed_generation: _Generation = 0
    last_transition_time: Annotated[str, Meta(max_length=20, pattern=forms.whole(forms.TIME))] = ""


class HostSpec(_Struct, frozen=True):
    """What a node must have besides its NICs."""

    modules: _Modules = ()
    """Kernel modules that must be there; the agent's init container loads them."""


class NodeSpec(_Struct, frozen=True):
    """What the controller asks of a node."""

    synced: bool = False
    """False: the agent changes nothing."""
    host: HostSpec = HostSpec()
    pfs: Annotated[tuple[PfSpec, ...], Meta(max_length=64)] = ()


class NodeStatus(_Struct, frozen=True):
    """What the agent found and did."""

    observed_generation: _Generation = 0
    boot_id: Annotated[str, Meta(max_length=64, pattern=forms.whole(forms.BOOT_ID))] = msgspec.field(default="", name="bootID")
    host: HostFacts = HostFacts()
    pfs: Annotated[tuple[PfStatus, ...], Meta(max_length=64)] = ()
    conditions: Annotated[tuple[Condition, ...], Meta(max_length=16)] = ()


class Annotations(_Struct, frozen=True):
    """Annotations that people write on a NodeNicState."""

    approved: str = msgspec.field(default="", name=APPROVED)
    """Digests of plans that a person has approved, with commas between (`kubectl vmnic approve`)."""


_APPROVED_CHARS = 8192


class ObjectMeta(_Struct, frozen=True):
    """The parts of the metadata that are used."""

    name: str
    annotations: Annotations = Annotations()
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    deletion_timestamp: str | None = None


class NodeNicState(_Struct, frozen=True):
    """One node's NICs: what they should be and what they are."""

    metadata: ObjectMeta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()
    unreadable: str = ""
    """Why the status could not be read, which is then empty; never on the wire. It is set aside, not absent."""
    spec_unreadable: str = ""
    """Likewise of the spec; only the agent reads on without it."""

    @property
    def approved(self) -> frozenset[str]:
        """Digests of plans that a person has approved; a list of more than 8 kB approves nothing."""
        digests = self.metadata.annotations.approved
        return frozenset(filter(None, digests.split(","))) if len(digests) <= _APPROVED_CHARS else frozenset()


def group_of(spec: PfSpec, pool: str) -> VfGroup | None:
    """Give a pool's part of a function; None if it has none."""
    return next((group for group in spec.groups if group.pool == pool), None)


def indexes_of(spec: PfSpec, group: VfGroup) -> range:
    """Give the indexes of the VFs of a group."""
    return range_of(group.range) if group.range else range(spec.num_vfs)


@functools.lru_cache(maxsize=1024)
def range_of(text: str) -> range:
    """Read a range of VF indexes as it is written everywhere: `0-6`, or `3` for one; empty where it is no range."""
    return read_vf_range(text) or range(0)


class _Report(_Struct, frozen=True):
    """A NodeNicState without its spec."""

    metadata: ObjectMeta
    status: NodeStatus = NodeStatus()


class _Orders(_Struct, frozen=True):
    """A NodeNicState without its status."""

    metadata: ObjectMeta
    spec: NodeSpec = NodeSpec()


_FAULT_CHARS = 256
_decoder = msgspec.json.Decoder(NodeNicState)
_report_decoder = msgspec.json.Decoder(_Report)
_orders_decoder = msgspec.json.Decoder(_Orders)


def decode_node_state(raw: bytes | msgspec.Raw) -> NodeNicState:
    """Parse one NodeNicState.

    A status that is out of bounds, or has words of a newer version, is set aside: `unreadable` says why.

    Raises:
        ValueError: the rest cannot be read; the message has the path.
    """
    try:
        found = _decoder.decode(raw)
        fault = _find_fault(found.status)
    except (ValueError, RecursionError) as error:
        found, fault = _decode_orders(raw), str(error)
    if fault or found.unreadable or found.spec_unreadable:
        return NodeNicState(
            metadata=found.metadata,
            spec=found.spec,
            status=NodeStatus() if fault else found.status,
            unreadable=fault[:_FAULT_CHARS],
        )
    return found


def decode_own_state(raw: bytes | msgspec.Raw) -> NodeNicState:
    """Parse the agent's own NodeNicState; a spec that cannot be read asks nothing, and `spec_unreadable` says why.

    Raises:
        ValueError: neither spec nor status can be read; the message has the path.
    """
    try:
        return decode_node_state(raw)
    except ValueError as error:
        found = _report_decoder.decode(raw)
        return NodeNicState(metadata=found.metadata, status=found.status, spec_unreadable=str(error)[:_FAULT_CHARS])


def _decode_orders(raw: bytes | msgspec.Raw) -> NodeNicState:
    try:
        orders = _orders_decoder.decode(raw)
    except RecursionError as error:
        raise ValueError("a NodeNicState is nested too deeply") from error
    return NodeNicState(metadata=orders.metadata, spec=orders.spec)


def _find_fault(status: NodeStatus) -> str:
    """Describe what the bounds of single fields cannot express; empty: nothing."""
    addresses = {pf.pci_address for pf in status.pfs}
    if len(addresses) < len(status.pfs):
        return "two entries of status.pfs have one pciAddress"
    faults = (_find_range_fault(pf.vfs) for pf in status.pfs)
    return next(filter(None, faults), "")


def _find_range_fault(parts: Iterable[VfRange]) -> str:
    """Describe the first range that is none, or does not come after the one before it; empty: nothing."""
    end = 0
    for part in parts:
        indexes = range_of(part.range)
        if not indexes or indexes.start < end:
            return f"status.pfs[].vfs[].range: {part.range} is reversed, or does not come after the range before it"
        end = indexes.stop
    return ""


def wire(struct: msgspec.Struct) -> Any:
    """Return the JSON-able form of a struct of this module."""
    return msgspec.to_builtins(struct)
