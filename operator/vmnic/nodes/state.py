"""NodeNicState as frozen structs that the agent, the controller and the CLI share.

The agent's process must stay small, so these are msgspec structs and not the pydantic models of `vmnic.api`, which the CRD
is made from. A test keeps both equal, including bounds. Unknown fields are ignored, because an agent may be older than the
CRD.
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
"""Driver of functions that are passed to VMs."""

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
    """Base of the structs below.

    Names are in camelCase in JSON, and fields that equal their default are omitted.
    """


class ActionKind(StrEnum):
    """Kinds of actions, in the order in which a plan may contain them."""

    BIND_PF = "BindPf"
    """Bind the PF itself to the named driver. With vfio-pci the host loses the PF's link."""
    WRITE_MODULE_OPTIONS = "WriteModuleOptions"
    """Write the driver's `max_vfs` below /etc/modprobe.d, for all functions of that driver; an empty value removes the file."""
    RELOAD_DRIVER = "ReloadDriver"
    """Unload and load the driver, because old drivers create VFs only by `max_vfs` when they are loaded."""
    SET_AUTOPROBE = "SetAutoprobe"
    """Write `sriov_drivers_autoprobe`: 0 keeps kernel drivers from binding a VF that is meant for vfio-pci."""
    SET_NUM_VFS = "SetNumVfs"
    """Write `sriov_numvfs`. The kernel refuses to go from N to M, so 0 is written in between."""
    SET_VFS = "SetVfs"
    """Set the attributes that the spec asks for on the VFs of a range. This comes before the VFs are bound, because a VF's
    driver reads the MAC address only then.
    """
    BIND_VFS = "BindVfs"
    """Bind every VF of a range that has another driver to the named one; `none` unbinds it."""
    SET_MTU = "SetMtu"
    """Set the MTU of the PF, in bytes."""
    SET_QUEUES = "SetQueues"
    """Set the `combined` channels of the PF, because a new number of VFs resets them."""
    SET_LINK = "SetLink"
    """Set the PF's link `up` or `down`. VFs of a PF that is down have no link, and many NICs refuse rates for them, so this
    action may also come earlier.
    """


class Action(_Struct, frozen=True):
    """One action of a plan."""

    kind: ActionKind
    value: Annotated[str, Meta(max_length=256)]


class PfReason(StrEnum):
    """Why a PF is not, or cannot be, as its pool asks."""

    FOREIGN_OWNER = "ForeignOwner"
    """Another program manages the PF's VFs. Take the PF out of the pool, or away from that program."""
    FIRMWARE_SRIOV_OFF = "FirmwareSriovOff"
    """The NIC offers no VFs. Enable SR-IOV in the firmware of the NIC or of the machine."""
    TOO_MANY_VFS = "TooManyVfs"
    """More VFs are asked for than the NIC supports. Lower `numVfs`, or set it to "max"."""
    TOO_FEW_VFS = "TooFewVfs"
    """`management: Adopt` uses existing VFs, and there are fewer than asked for. Create them, or lower `numVfs`."""
    TOO_MANY_QUEUES = "TooManyQueues"
    """More queues are asked for than the NIC has left beside its VFs. Lower `queues`."""
    NO_MMIO_SPACE = "NoMmioSpace"
    """The machine's firmware left no address space for the VFs' registers. Add pci=realloc to the kernel command line."""
    HOST_USED = "HostUsed"
    """The host itself uses the PF: an address, a default route or an upper device. Take the PF out of the pool, or
    set `safety.allowHostUsed: true`.
    """
    IOMMU_OFF = "IommuOff"
    """vfio-pci needs an IOMMU. Enable it in the firmware and with `intel_iommu=on` or `amd_iommu=on`, then reboot."""
    IOMMU_GROUP_SHARED = "IommuGroupShared"
    """Other functions share the IOMMU group, so vfio-pci cannot take a VF. Use a slot with ACS."""
    NO_DRIVER = "NoDriver"
    """No driver is bound to the PF, so the kernel cannot create VFs. Bind the NIC's driver."""
    LINK_ELSEWHERE = "LinkElsewhere"
    """The PF's link is in another network namespace, where it cannot be configured, so its VFs are not advertised.
    Move it back to the host's network namespace, or take the PF out of the pool.
    """
    MODULE_MISSING = "ModuleMissing"
    """A kernel module that VMs need cannot be loaded. Load it, or find out why the kernel refuses it."""
    MODULE_OPTIONS_NEEDED = "ModuleOptionsNeeded"
    """The driver creates VFs only by its parameter `max_vfs`. Set `persistence: ModuleOptions`."""
    DRIVER_IN_USE = "DriverInUse"
    """The driver would have to be reloaded while the host or a VM uses one of its functions. Reboot the
    node, which puts the options in force.
    """
    VANISHED = "Vanished"
    """A PF that belongs to a pool is no longer there. Check the hardware, or take the PF out of the pool."""
    CARRIER_LOST = "CarrierLost"
    """The PF's link has lost its carrier, so its VFs have no network and are no longer advertised. Check the cable, the
    transceiver and the switch port.
    """
    UNREADABLE = "Unreadable"
    """Reading the PF failed, or the node's status could not be read or published, so vmnic draws no conclusion. Read
    the message and the kernel's log; the agent reads again by itself.
    """
    WRITE_STILL_IN_FLIGHT = "WriteStillInFlight"
    """A write of an earlier change has not returned from the kernel, and the PF is left alone until it does. Check the
    kernel's log; if the write never returns, reboot the node.
    """
    PCI_BUS_STUCK = "PciBusStuck"
    """A write did not return from the kernel, so no further PCI write starts on this node. Check the kernel's log;
    usually only a reboot of the node helps.
    """
    APPLY_FAILED = "ApplyFailed"
    """The host refused an action, or the value read back differs from the one written. The message names the action and
    the errno: remove the cause, then change the pool or reboot the node to have it tried again.
    """
    ROLLED_BACK = "RolledBack"
    """The change cut the node off, so the agent rolled it back. Change the pool, or approve the plan to try it again."""


class Held(_Struct, frozen=True):
    """A VF that is held."""

    vf: _PciAddress
    """PCI address."""
    by: Annotated[str, Meta(max_length=321)] = ""
    """The holder, as far as the kubelet reports it: `pod namespace/name`, at most 321 characters; empty if unknown."""


class VfRange(_Struct, frozen=True):
    """VFs with consecutive indexes and the same driver."""

    range: Annotated[str, Meta(max_length=7, pattern=forms.whole(forms.INDEX_RANGE))]
    """`0-6` or `3`."""
    driver: _Word = ""
    """Driver bound to them; empty if none is."""


class PfPlan(_Struct, frozen=True):
    """Plan for one physical function, and who blocks it."""

    digest: _Digest
    """Digest of attempt, boot, spec, actions and the observed values that they rely on. It names this plan."""
    actions: Annotated[tuple[Action, ...], Meta(max_length=32)] = ()
    text: _Text = ""
    """The actions in words."""
    disruptive: bool = False
    """Whether the plan removes a VF that is held, or interrupts a link that the host uses."""
    fenced: bool = False
    """Whether the plan removes VFs that a pod could get in the meantime; they are fenced before the first write."""
    blocked_by: Annotated[tuple[_Text, ...], Meta(max_length=64)] = ()
    """Holders that block the plan, in words: `pod tenants/db holds 0000:0b:10.3`."""


class PfProblem(_Struct, frozen=True):
    """Why the physical function is not, or cannot be, as its pool asks."""

    reason: PfReason
    message: _Text


class ApplyState(StrEnum):
    """State of the change that a grant started."""

    CLAIMED = "Claimed"
    APPLYING = "Applying"
    APPLIED = "Applied"
    FAILED = "Failed"
    ROLLED_BACK = "RolledBack"
    REFUSED = "Refused"

    @property
    def is_running(self) -> bool:
        """Return whether the change has started and not ended."""
        return self in (ApplyState.CLAIMED, ApplyState.APPLYING)

    @property
    def has_failed(self) -> bool:
        """Return whether the change ended without success, other than by a refusal."""
        return self in (ApplyState.FAILED, ApplyState.ROLLED_BACK)


class Apply(_Struct, frozen=True):
    """The last change that a grant started."""

    digest: _Digest
    state: ApplyState
    message: _Text = ""


class VfSettings(_Struct, frozen=True):
    """Attributes that the agent sets on VFs. None leaves an attribute as it is."""

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
    """A pool's share of a physical function."""

    pool: _Name
    resource: _Name
    """Extended resource under which the devices are advertised."""
    range: Annotated[str, Meta(max_length=7, pattern=forms.whole(forms.OPTIONAL_INDEX_RANGE))] = ""
    """Indexes such as `0-3`; empty for all."""
    driver: Literal["vfio-pci", "kernel"] = VFIO
    """`vfio-pci`, or `kernel` for the driver that the kernel chooses."""
    settings: VfSettings | None = None
    device_plugin: Literal["Embedded", "None"] = "Embedded"
    exclude_topology: bool = False


class PfSpec(_Struct, frozen=True):
    """Spec of one physical function, merged from all pools by the controller."""

    pci_address: _PciAddress
    pool: _Name
    """Oldest pool that has a share of it. Its rollout decides when the function changes."""
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
    """`Reset` or `Retain` if no pool asks for it any more; the agent then releases it in this way."""
    grant: _Digest | None = None
    """Digest of the plan that the agent may carry out."""

    @property
    def vfio(self) -> bool:
        """Return whether vfio-pci is to drive the PF or any of its VFs."""
        return self.function == "Physical" or any(group.driver == VFIO for group in self.groups)


class PfStatus(_Struct, frozen=True):
    """Observed state of one physical function, written by the agent."""

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
    """PCI address of the first VF; empty if there is none."""
    vf_stride: Annotated[int, Meta(ge=0, le=65_535)] = 0
    """Difference between the routing IDs of two consecutive VFs."""
    vfs: Annotated[tuple[VfRange, ...], Meta(max_length=256)] = ()
    held: Annotated[tuple[Held, ...], Meta(max_length=256)] = ()
    host_use: Annotated[tuple[_Text, ...], Meta(max_length=16)] = ()
    """Uses of the function by the host itself, in words; empty if there are none."""
    owned: bool = False
    """Whether vmnic has changed it (its original values are in the journal)."""
    attempt: Annotated[int, Meta(ge=0, le=forms.LARGEST_COUNT)] = 0
    """Number of changes that have ended."""
    plan: PfPlan | None = None
    """None if nothing is to be done."""
    problem: PfProblem | None = None
    apply: Apply | None = None


class HostFacts(_Struct, frozen=True):
    """Facts about the node as a whole."""

    kernel: Annotated[str, Meta(max_length=128, pattern=forms.whole(forms.PLAIN))] = ""
    iommu: bool | None = None
    """None if it could not be read."""
    modules: _Modules = ()
    """Modules among those that datapaths need (vhost_net, tun, macvtap, vfio_pci) that are loaded or built in."""
    refused: Annotated[tuple[_Text, ...], Meta(max_length=32)] = ()
    """Modules that the init container could not load, each with the kernel's error."""


class Condition(_Struct, frozen=True):
    """A Kubernetes condition."""

    type: Annotated[str, Meta(max_length=64, pattern=forms.whole(forms.CONDITION))]
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Meta(max_length=128, pattern=forms.whole(forms.REASON))]
    message: Annotated[str, Meta(max_length=1024)] = ""
    observed_generation: _Generation = 0
    last_transition_time: Annotated[str, Meta(max_length=20, pattern=forms.whole(forms.TIME))] = ""


class HostSpec(_Struct, frozen=True):
    """Requirements for the node besides its NICs."""

    modules: _Modules = ()
    """Kernel modules that must be loaded; the agent's init container loads them."""


class NodeSpec(_Struct, frozen=True):
    """Spec of a node, written by the controller."""

    synced: bool = False
    """While False, the agent changes nothing."""
    host: HostSpec = HostSpec()
    pfs: Annotated[tuple[PfSpec, ...], Meta(max_length=64)] = ()


class NodeStatus(_Struct, frozen=True):
    """Observed state of a node and the agent's actions there."""

    observed_generation: _Generation = 0
    boot_id: Annotated[str, Meta(max_length=64, pattern=forms.whole(forms.BOOT_ID))] = msgspec.field(default="", name="bootID")
    host: HostFacts = HostFacts()
    pfs: Annotated[tuple[PfStatus, ...], Meta(max_length=64)] = ()
    conditions: Annotated[tuple[Condition, ...], Meta(max_length=16)] = ()


class Annotations(_Struct, frozen=True):
    """Annotations that people write on a NodeNicState."""

    approved: str = msgspec.field(default="", name=APPROVED)
    """Digests of plans that a person has approved, separated by commas (`kubectl vmnic approve`)."""


# Annotations of an object may have 256 KiB together. A digest has 32 characters, so the bound has room for 248 plans.
_APPROVED_CHARS = 8192


class ObjectMeta(_Struct, frozen=True):
    """The parts of the metadata that vmnic uses."""

    name: str
    annotations: Annotations = Annotations()
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    deletion_timestamp: str | None = None


class NodeNicState(_Struct, frozen=True):
    """Spec and observed state of one node's NICs."""

    metadata: ObjectMeta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()
    unreadable: str = ""
    """Why the status could not be decoded. The status is then empty: it is set aside, not absent.

    Never present in JSON.
    """
    spec_unreadable: str = ""
    """Why the spec could not be decoded. Only the agent continues without a spec.

    Never present in JSON.
    """

    @property
    def approved(self) -> frozenset[str]:
        """Return the digests of plans that a person has approved.

        A list of more than 8 kB approves nothing.
        """
        digests = self.metadata.annotations.approved
        return frozenset(filter(None, digests.split(","))) if len(digests) <= _APPROVED_CHARS else frozenset()


def group_of(spec: PfSpec, pool: str) -> VfGroup | None:
    """Return a pool's share of a PF, or None if it has none."""
    return next((group for group in spec.groups if group.pool == pool), None)


def indexes_of(spec: PfSpec, group: VfGroup) -> range:
    """Return the indexes of the VFs of a group."""
    return range_of(group.range) if group.range else range(spec.num_vfs)


@functools.lru_cache(maxsize=1024)
def range_of(text: str) -> range:
    """Parse a range of VF indexes such as `0-6` or `3`, and return an empty range if it is malformed."""
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
    """Decode a NodeNicState.

    A status that is out of bounds, or that contains values of a newer version, is set aside, and `unreadable` says why.

    Raises:
        ValueError: Metadata or spec cannot be decoded. The message contains the path.
    """
    try:
        found = _decoder.decode(raw)
        fault = _find_fault(found.status)
    except (ValueError, RecursionError) as error:
        # The first pass does not say whether spec or status is wrong. If the spec decodes alone, the status was wrong.
        found, fault = _decode_orders(raw), str(error)
    # The decoder also fills `unreadable` from JSON. A fault counts only if it was found here.
    if fault or found.unreadable or found.spec_unreadable:
        return NodeNicState(
            metadata=found.metadata,
            spec=found.spec,
            status=NodeStatus() if fault else found.status,
            unreadable=fault[:_FAULT_CHARS],
        )
    return found


def decode_own_state(raw: bytes | msgspec.Raw) -> NodeNicState:
    """Decode the agent's own NodeNicState, also if its spec is malformed.

    A malformed spec is replaced by an empty one, which asks for nothing, and `spec_unreadable` says why.

    Raises:
        ValueError: Neither spec nor status can be decoded. The message contains the path.
    """
    try:
        return decode_node_state(raw)
    except ValueError as error:
        # The agent goes on with an empty spec, which is not synced: it writes nothing to the host and publishes the fault.
        found = _report_decoder.decode(raw)
        return NodeNicState(metadata=found.metadata, status=found.status, spec_unreadable=str(error)[:_FAULT_CHARS])


def _decode_orders(raw: bytes | msgspec.Raw) -> NodeNicState:
    try:
        orders = _orders_decoder.decode(raw)
    except RecursionError as error:
        raise ValueError("a NodeNicState is nested too deeply") from error
    return NodeNicState(metadata=orders.metadata, spec=orders.spec)


def _find_fault(status: NodeStatus) -> str:
    """Describe a fault that the bounds of single fields cannot express.

    Returns:
        An empty string if there is none.
    """
    addresses = {pf.pci_address for pf in status.pfs}
    if len(addresses) < len(status.pfs):
        return "two entries of status.pfs have one pciAddress"
    faults = (_find_range_fault(pf.vfs) for pf in status.pfs)
    return next(filter(None, faults), "")


def _find_range_fault(parts: Iterable[VfRange]) -> str:
    """Describe the first range that is malformed or out of order.

    Returns:
        An empty string if there is none.
    """
    end = 0
    for part in parts:
        indexes = range_of(part.range)
        # Overlapping ranges would let an agent count one VF several times (`_count_vfio` in pools/shares.py).
        if not indexes or indexes.start < end:
            return f"status.pfs[].vfs[].range: {part.range} is reversed, or does not come after the range before it"
        end = indexes.stop
    return ""


def wire(struct: msgspec.Struct) -> Any:
    """Return the JSON-compatible form of a struct of this module."""
    return msgspec.to_builtins(struct)
