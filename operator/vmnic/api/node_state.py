"""NodeNicState with one node's NICs, written by machines and read by people.

The controller writes `spec`, the agent writes `status`. Bounds keep 8 PFs of 64 VFs each below 16 kB. The agent's process
must stay small, so these are msgspec structs and not pydantic models. Unknown fields are ignored, because an agent may be
older than the CRD.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Meta

from ..checked import forms
from ..checked.devices import MOST_VFS
from .keywords import map_list
from .reasons import PfReason

__all__ = [
    "APPROVED",
    "APPROVED_CHARS",
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
    "PfSpec",
    "PfStatus",
    "VfGroup",
    "VfRange",
    "VfSettings",
    "blocker_id",
    "wire",
]


APPROVED = "vmnic.dev/approved"
VFIO: Final = "vfio-pci"
"""Driver of functions that are passed to VMs."""

_Text = Annotated[str, Meta(max_length=512)]
_Name = Annotated[str, Meta(max_length=253)]
_Word = Annotated[str, Meta(max_length=64, pattern=forms.anchored(forms.PLAIN))]
_PciAddress = Annotated[str, Meta(max_length=12, pattern=forms.anchored(forms.PCI_ADDRESS))]
_PciId = Annotated[str, Meta(max_length=4, pattern=forms.anchored(forms.OPTIONAL_PCI_ID))]
_Digest = Annotated[str, Meta(max_length=64, pattern=forms.anchored(forms.DIGEST))]
_Generation = Annotated[int, Meta(ge=0, le=forms.LARGEST_GENERATION)]
_VfCount = Annotated[int, Meta(ge=0, le=MOST_VFS)]
_AskedVfs = Annotated[int, Meta(ge=0, le=256)]
_Rate = Annotated[int, Meta(ge=0, le=1_000_000)]
# No enum in the CRD: for one unknown reason of a newer agent, the API server would refuse the agent's whole status.
_OPEN_REASON = {"type": "string", "maxLength": 64, "pattern": forms.CONDITION, "enum": None}
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
    """Write the driver's parameter for VFs below /etc/modprobe.d, for all its functions; an empty value removes the file."""
    WRITE_UDEV_RULE = "WriteUdevRule"
    """Write the function's rule into the pool's file below /etc/udev/rules.d: pool, driver, number of VFs, and 0 if no driver
    may bind them. A pool alone removes the rule.
    """
    RELOAD_DRIVER = "ReloadDriver"
    """Unload and load the driver, because old drivers create VFs only by a parameter when they are loaded."""
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
    """Kind of the action."""
    value: Annotated[str, Meta(max_length=256)]
    """Value that is written."""


class Held(_Struct, frozen=True):
    """A VF that is held."""

    vf: _PciAddress
    """PCI address of the VF."""
    by: Annotated[str, Meta(max_length=321)] = ""
    """Holder, as far as known."""


class VfRange(_Struct, frozen=True):
    """VFs with consecutive indexes and the same driver."""

    range: Annotated[str, Meta(max_length=7, pattern=forms.anchored(forms.INDEX_RANGE))]
    """Indexes, for example "0-6"."""
    driver: _Word = ""
    """Driver bound to them; empty if none is."""


class PfPlan(_Struct, frozen=True):
    """Plan for one physical function, and who blocks it."""

    digest: _Digest
    """Digest of attempt, boot, spec, actions and the observed values that they rely on. It names the plan."""
    actions: Annotated[tuple[Action, ...], Meta(max_length=32)] = ()
    """The actions in order."""
    text: _Text = ""
    """The actions in words."""
    disruptive: bool = False
    """Whether the plan removes a VF that is held, or interrupts a link that the host uses."""
    fenced: bool = False
    """Whether the plan removes VFs that a pod could get in the meantime; they are fenced before the first write."""
    blocked_by: Annotated[tuple[_Text, ...], Meta(max_length=64)] = ()
    """Who blocks the plan. Hard blockers come first: they would lose their device."""
    soft_blockers: Annotated[int, Meta(ge=0, le=64)] = 0
    """Number of soft blockers, which are the last of `blockedBy`. Their link only drops for seconds, or their address is
    unexplained. A person may approve them.
    """

    @property
    def hard(self) -> tuple[str, ...]:
        """Return the blockers that no approval removes, because they would lose their device."""
        return self.blocked_by[: max(len(self.blocked_by) - self.soft_blockers, 0)]

    @property
    def soft(self) -> tuple[str, ...]:
        """Return the blockers that a person may approve."""
        return self.blocked_by[len(self.hard) :]

    def unapproved(self, approved: Collection[str]) -> tuple[str, ...]:
        """Return the blockers that remain if those with these IDs are approved. Hard ones always remain."""
        return (*self.hard, *(text for text in self.soft if blocker_id(text) not in approved))


class PfProblem(_Struct, frozen=True):
    """Why the physical function is not, or cannot be, as its pool asks."""

    reason: Annotated[PfReason, Meta(extra_json_schema=_OPEN_REASON)]
    """Reason in CamelCase, for programs."""
    message: _Text
    """What is wrong, and what to do."""


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
    """Digest of the granted plan."""
    state: ApplyState
    """State of the change."""
    message: _Text = ""
    """What went wrong."""


class VfSettings(_Struct, frozen=True):
    """Attributes that the agent sets on VFs. An absent attribute is left as it is."""

    vlan: Annotated[int, Meta(ge=0, le=4094)] | None = None
    """VLAN ID; 0 removes the VLAN."""
    vlan_qos: Annotated[int, Meta(ge=0, le=7)] | None = None
    """802.1p priority; needs a `vlan`."""
    vlan_protocol: Literal["802.1q", "802.1ad"] | None = None
    """Tag protocol; needs a `vlan`."""
    trust: bool | None = None
    """Whether the guest may change its MAC address and use promiscuous mode."""
    spoof_check: bool | None = None
    """Whether the NIC drops frames with another source address."""
    link_state: Literal["Auto", "Enable", "Disable"] | None = None
    """Link state that the guest sees."""
    min_tx_rate_mbps: _Rate | None = None
    """Guaranteed transmit rate in Mbit/s. NICs accept rates only while their link has a carrier, so vmnic waits for it."""
    max_tx_rate_mbps: _Rate | None = None
    """Highest transmit rate in Mbit/s; 0 for none. Like the other rate, it needs a carrier."""
    mac_prefix: Annotated[str, Meta(max_length=8, pattern=forms.anchored(forms.MAC_PREFIX))] | None = None
    """First three bytes of the VFs' MAC addresses, locally administered; the rest is derived from the physical function's MAC
    address. VFs on their kernel driver are bound again, because the driver reads the address only then.
    """


class VfGroup(_Struct, frozen=True):
    """A pool's share of a physical function."""

    pool: _Name
    """Name of the pool."""
    resource: _Name
    """Extended resource under which the devices are advertised."""
    range: Annotated[str, Meta(max_length=7, pattern=forms.anchored(forms.OPTIONAL_INDEX_RANGE))] = ""
    """Indexes of the VFs, for example "0-3"; empty for all."""
    driver: Literal["vfio-pci", "kernel"] = VFIO
    """Driver of the VFs: `vfio-pci`, or `kernel` for the driver that the kernel chooses."""
    settings: VfSettings | None = None
    """Attributes that the agent sets on the VFs."""
    device_plugin: Literal["Embedded", "None"] = "Embedded"
    """Embedded: the agent advertises the devices to the kubelet. None: another device plugin does."""
    exclude_topology: bool = False
    """Whether the devices are advertised without their NUMA node."""


class PfSpec(_Struct, frozen=True):
    """Spec of one physical function, merged from all pools."""

    pci_address: _PciAddress
    """PCI address of the physical function."""
    pool: _Name
    """Oldest pool that has a share of it. Its rollout decides when the function changes."""
    num_vfs: _AskedVfs = 0
    """Number of VFs."""
    function: Literal["Virtual", "Physical"] = "Virtual"
    """Virtual: VFs. Physical: the whole function on vfio-pci."""
    management: Literal["Managed", "Adopt"] = "Managed"
    """Managed: vmnic creates the VFs. Adopt: the number of VFs is not written, and nothing is reset."""
    persistence: Literal["Agent", "ModuleOptions", "Udev"] = "Agent"
    """ModuleOptions: the number of VFs is also written to /etc/modprobe.d. Udev: to /etc/udev/rules.d."""
    mtu: Annotated[int, Meta(ge=576, le=9216)] | None = None
    """MTU in bytes; absent leaves it as it is."""
    queues: Annotated[int, Meta(ge=1, le=256)] | None = None
    """`combined` channels of the function; absent leaves them as they are."""
    groups: Annotated[tuple[VfGroup, ...], Meta(max_length=16, extra_json_schema=map_list("pool"))] = ()
    """Pool shares of the function."""
    allow_host_used: bool = False
    """Whether the function may be changed although the host itself uses it."""
    rollback_timeout_s: Annotated[int, Meta(ge=1, le=3600)] = 60
    """Seconds within which the node must be reachable again after a change; otherwise the change is rolled back."""
    release: Literal["", "Reset", "Retain"] = ""
    """Set if no pool asks for the function any more. Reset: the agent restores the original values. Retain: it leaves them."""
    grant: _Digest | None = None
    """Digest of the plan that the agent may carry out. Nothing else allows a change of the host."""

    @property
    def vfio(self) -> bool:
        """Return whether vfio-pci is to drive the PF or any of its VFs."""
        return self.function == "Physical" or any(group.driver == VFIO for group in self.groups)


class PfStatus(_Struct, frozen=True):
    """Observed state of one physical function."""

    pci_address: _PciAddress
    """PCI address."""
    name: Annotated[str, Meta(max_length=64, pattern=forms.anchored(forms.LINK_NAME))] = ""
    """Interface name."""
    alt_names: Annotated[
        tuple[Annotated[str, Meta(max_length=128, pattern=forms.anchored(forms.PLAIN))], ...], Meta(max_length=16)
    ] = ()
    """Alternative interface names."""
    vendor: _PciId = ""
    """PCI vendor ID."""
    device: _PciId = ""
    """PCI device ID."""
    model: _Word = ""
    """Model name from vmnic's NIC data; empty for an unknown NIC."""
    driver: _Word = ""
    """Kernel driver; empty if none is bound."""
    numa_node: Annotated[int, Meta(ge=0, le=1023)] | None = None
    """NUMA node; absent if the machine has none."""
    iommu_group: Annotated[int, Meta(ge=0, le=forms.LARGEST_COUNT)] | None = None
    """Number of its IOMMU group; absent without an IOMMU. Whole functions of one group and pool are one device."""
    link_speed_mbps: Annotated[int, Meta(ge=0, le=10_000_000)] | None = None
    """Link speed in Mbit/s; absent while the link is down."""
    link_type: Annotated[str, Meta(max_length=16, pattern=forms.anchored(forms.PLAIN))] = ""
    """Hardware type of the link: "infiniband" or a number of the kernel; empty for Ethernet and if it is unknown."""
    eswitch_mode: Annotated[str, Meta(max_length=32, pattern=forms.anchored(forms.PLAIN))] = ""
    """Mode of the e-switch, for example "switchdev"; empty for legacy mode and if there is none."""
    several_ports: bool = False
    """Whether the function has several ports."""
    mtu: Annotated[int, Meta(ge=0, le=65_536)] | None = None
    """MTU in bytes."""
    queues: Annotated[int, Meta(ge=0, le=65_535)] | None = None
    """Number of `combined` channels; absent if they cannot be set."""
    total_vfs: _VfCount = 0
    """Number of VFs that the kernel allows; 0 for a NIC without SR-IOV, or whose firmware has switched it off."""
    num_vfs: _VfCount = 0
    """Number of VFs that exist."""
    first_vf: Annotated[str, Meta(max_length=12, pattern=forms.anchored(forms.OPTIONAL_PCI_ADDRESS))] = ""
    """PCI address of the first VF; empty if there is none."""
    vf_stride: Annotated[int, Meta(ge=0, le=65_535)] = 0
    """Difference between the routing IDs of two consecutive VFs."""
    vf_addresses: Annotated[tuple[_PciAddress, ...], Meta(max_length=MOST_VFS)] = ()
    """PCI addresses of the VFs by index, only where `firstVf` and `vfStride` do not give them."""
    vfs: Annotated[tuple[VfRange, ...], Meta(max_length=256)] = ()
    """VFs by driver."""
    held: Annotated[tuple[Held, ...], Meta(max_length=256)] = ()
    """VFs that are held."""
    host_use: Annotated[tuple[_Text, ...], Meta(max_length=16)] = ()
    """Uses of the function by the host itself."""
    outside_use: Annotated[tuple[_Text, ...], Meta(max_length=16)] = ()
    """Uses of the function's link from other network namespaces, such as macvtaps of pods."""
    owned: bool = False
    """Whether vmnic has changed it and keeps its original values."""
    attempt: Annotated[int, Meta(ge=0, le=forms.LARGEST_COUNT)] = 0
    """Number of changes that have ended."""
    plan: PfPlan | None = None
    """Plan to carry out; absent if nothing is to be done."""
    problem: PfProblem | None = None
    """Why the function is not, or cannot be, as its pool asks."""
    apply: Apply | None = None
    """The last change that a grant started."""


class HostFacts(_Struct, frozen=True):
    """Facts about the node as a whole."""

    kernel: Annotated[str, Meta(max_length=128, pattern=forms.anchored(forms.PLAIN))] = ""
    """Release of the running kernel."""
    iommu: bool | None = None
    """Whether an IOMMU is on; absent if unknown."""
    modules: _Modules = ()
    """Kernel modules that datapaths need and that are loaded or built in."""
    modules_unknown: _Modules = ()
    """Kernel modules that datapaths need and that may be there or not, because the kernel's files could not be read."""
    refused: Annotated[tuple[_Text, ...], Meta(max_length=32)] = ()
    """Modules that could not be loaded, each with the kernel's error."""


class Condition(_Struct, frozen=True):
    """One observation of an object's state, as in every Kubernetes API."""

    type: Annotated[str, Meta(max_length=64, pattern=forms.anchored(forms.CONDITION))]
    """Type of the condition, for example Ready."""
    status: Literal["True", "False", "Unknown"]
    """Whether the condition holds."""
    reason: Annotated[str, Meta(max_length=128, pattern=forms.anchored(forms.REASON))]
    """Reason in CamelCase, for programs."""
    message: Annotated[str, Meta(max_length=1024)] = ""
    """Message for people."""
    observed_generation: _Generation = 0
    """The `metadata.generation` that the condition refers to."""
    last_transition_time: Annotated[str, Meta(max_length=20, pattern=forms.anchored(forms.TIME))] = ""
    """Time at which `status` last changed (RFC 3339)."""


class HostSpec(_Struct, frozen=True):
    """Requirements for the node besides its NICs."""

    modules: _Modules = ()
    """Kernel modules that must be loaded; the agent's init container loads them, and a missing one is reported."""


class NodeSpec(_Struct, frozen=True):
    """Spec of the node, written by the controller."""

    synced: bool = False
    """False until the controller has decided; the agent changes nothing until then."""
    host: HostSpec = HostSpec()
    """Requirements for the node besides its NICs."""
    pfs: Annotated[tuple[PfSpec, ...], Meta(max_length=64, extra_json_schema=map_list("pciAddress"))] = ()
    """Physical functions that pools ask for."""


class NodeStatus(_Struct, frozen=True):
    """Observed state of the node and the agent's actions there."""

    observed_generation: _Generation = 0
    """The `metadata.generation` that this status refers to."""
    boot_id: Annotated[str, Meta(max_length=64, pattern=forms.anchored(forms.BOOT_ID))] = msgspec.field(
        default="", name="bootID"
    )
    """The kernel's boot ID, which distinguishes a reboot from a restart of the agent."""
    host: HostFacts = HostFacts()
    """Facts about the node as a whole."""
    pfs: Annotated[tuple[PfStatus, ...], Meta(max_length=64, extra_json_schema=map_list("pciAddress"))] = ()
    """The node's network functions, except VFs."""
    conditions: Annotated[tuple[Condition, ...], Meta(max_length=16, extra_json_schema=map_list("type"))] = ()
    """Ready, Degraded, Blocked, RolledBack, Fenced."""


class Annotations(_Struct, frozen=True):
    """Annotations that people write on a NodeNicState."""

    approved: str = msgspec.field(default="", name=APPROVED)
    """Digests of plans that a person has approved, separated by commas (`kubectl vmnic approve`).

    Each is followed by the IDs of the soft blockers that the person saw: `DIGEST:ID:ID`.
    """


APPROVED_CHARS = 8192
"""Longest list of approvals that counts. A digest has 32 characters and a plan at most 21 soft blockers, so it has room for 248
plans without such blockers, and for 36 with as many as possible.
"""
_BLOCKER_ID_CHARS = 8


def blocker_id(text: str) -> str:
    """Return the ID of a soft blocker, which stands for its words in an approval."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:_BLOCKER_ID_CHARS]


class ObjectMeta(_Struct, frozen=True):
    """The parts of the metadata that vmnic uses."""

    name: str
    annotations: Annotations = Annotations()
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    deletion_timestamp: str | None = None


class NodeNicState(_Struct, frozen=True):
    """Spec, observed state and plans of one node's NICs."""

    PLURAL: ClassVar[str] = "nodenicstates"
    # Not nns: that is the short name of NodeNetworkState (kubernetes-nmstate), and both together would make kubectl ambiguous.
    SHORT: ClassVar[list[str]] = ["nicst"]
    COLUMNS: ClassVar[list[dict[str, Any]]] = [
        {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
        {"name": "Reason", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].reason'},
        {"name": "IOMMU", "type": "boolean", "jsonPath": ".status.host.iommu"},
        {"name": "Message", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].message'},
        {"name": "Kernel", "type": "string", "jsonPath": ".status.host.kernel", "priority": 1},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]

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
    def approvals(self) -> dict[str, frozenset[str]]:
        """Return the IDs of the soft blockers that a person has approved, by the digest of the approved plan.

        A list of more than 8 kB approves nothing.
        """
        text = self.metadata.annotations.approved
        items = (item.split(":") for item in text.split(",") if item) if len(text) <= APPROVED_CHARS else ()
        return {digest: frozenset(ids) for digest, *ids in items}

    @property
    def approved(self) -> frozenset[str]:
        """Return the digests of plans that a person has approved."""
        return frozenset(self.approvals)

    def unapproved_blockers(self, plan: PfPlan) -> tuple[str, ...]:
        """Return what still blocks a plan after all that a person has approved."""
        return plan.unapproved(self.approvals.get(plan.digest, frozenset())) if plan.blocked_by else ()


def wire(struct: msgspec.Struct) -> Any:
    """Return the JSON-compatible form of a struct of this module."""
    return msgspec.to_builtins(struct)
