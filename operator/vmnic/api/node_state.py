"""NodeNicState: one node's NICs, written by machines and read by people.

`spec` is the controller's, `status` the agent's. Bounded so that 8 physical functions of 64 VFs stay below 16 kB.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from ..checked import forms
from ..checked.devices import MOST_VFS
from .common import ApiModel, Condition, Generation, Metadata, PciAddress, map_list

__all__ = ["NodeNicState", "NodeSpec", "NodeStatus", "PfSpec", "PfStatus", "VfGroup", "VfSettings"]

_Short = Annotated[str, StringConstraints(max_length=64, pattern=forms.PLAIN)]
_Reason = Annotated[str, StringConstraints(max_length=64, pattern=forms.CONDITION)]
_PciId = Annotated[str, StringConstraints(max_length=4, pattern=forms.OPTIONAL_PCI_ID)]
_Digest = Annotated[str, StringConstraints(max_length=64, pattern=forms.DIGEST)]
_AltName = Annotated[str, StringConstraints(max_length=128, pattern=forms.PLAIN)]
_VfCount = Annotated[int, Field(ge=0, le=MOST_VFS)]
_Text = Annotated[str, StringConstraints(max_length=512)]


class VfSettings(ApiModel):
    """Attributes that the agent sets on VFs; an absent one is left as it is."""

    vlan: Annotated[int, Field(ge=0, le=4094)] | None = None
    """VLAN id; 0 takes it away."""
    vlan_qos: Annotated[int, Field(ge=0, le=7)] | None = None
    """802.1p priority; needs a `vlan`."""
    vlan_protocol: Literal["802.1q", "802.1ad"] | None = None
    """Tag protocol; needs a `vlan`."""
    trust: bool | None = None
    """Whether the guest may change its MAC address and use promiscuous mode."""
    spoof_check: bool | None = None
    """Whether the NIC drops frames with another source address."""
    link_state: Literal["Auto", "Enable", "Disable"] | None = None
    """What the guest sees of the link."""
    min_tx_rate_mbps: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Guaranteed transmit rate in Mbit/s. NICs take rates only while their link has a carrier: it is waited for."""
    max_tx_rate_mbps: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Highest transmit rate in Mbit/s; 0: none. As for the other rate, a carrier is needed."""
    mac_prefix: Annotated[str, StringConstraints(max_length=8, pattern=forms.MAC_PREFIX)] | None = None
    """First three bytes of the VFs' addresses, locally administered; the rest follows from the function's own address. VFs on
    their kernel driver get it anew, as it reads the address only then."""


class VfGroup(ApiModel):
    """What one pool gets of a function."""

    pool: Annotated[str, StringConstraints(max_length=253)]
    """The pool."""
    resource: Annotated[str, StringConstraints(max_length=253)]
    """Extended resource that stands for the devices."""
    range: Annotated[str, StringConstraints(max_length=7, pattern=forms.OPTIONAL_INDEX_RANGE)] = ""
    """Indexes of the VFs, for example "0-3"; empty: all."""
    driver: Literal["vfio-pci", "kernel"] = "vfio-pci"
    """What drives the VFs."""
    settings: VfSettings | None = None
    """Attributes that the agent sets."""
    device_plugin: Literal["Embedded", "None"] = "Embedded"
    """Whether the agent offers the devices to the kubelet."""
    exclude_topology: bool = False
    """Whether the kubelet is told no NUMA node."""


class PfSpec(ApiModel):
    """What one physical function should be; merged from all pools."""

    pci_address: PciAddress
    """PCI address of the physical function."""
    pool: Annotated[str, StringConstraints(max_length=253)]
    """The oldest pool that has a part of it: its rollout decides when the function changes."""
    num_vfs: Annotated[int, Field(ge=0, le=256)] = 0
    """Number of VFs."""
    function: Literal["Virtual", "Physical"] = "Virtual"
    """Virtual: VFs. Physical: the whole function on vfio-pci."""
    management: Literal["Managed", "Adopt"] = "Managed"
    """Adopt: the number of VFs is not written, and nothing is reset."""
    persistence: Literal["Agent", "ModuleOptions"] = "Agent"
    """ModuleOptions: the number of VFs also stands in /etc/modprobe.d."""
    mtu: Annotated[int, Field(ge=576, le=9216)] | None = None
    """MTU in bytes; absent leaves it as it is."""
    queues: Annotated[int, Field(ge=1, le=256)] | None = None
    """`combined` channels of the function; absent leaves them as they are."""
    groups: Annotated[list[VfGroup], Field(max_length=16, json_schema_extra=map_list("pool"))] = []
    """What each pool gets of the function."""
    allow_host_used: bool = False
    """Whether the function may be changed although the host itself uses it."""
    rollback_timeout_s: Annotated[int, Field(ge=1, le=3600)] = 60
    """Seconds within which the node must be reachable again after a change; otherwise it is undone."""
    release: Literal["", "Reset", "Retain"] = ""
    """Set where no pool asks for the function any more: the agent puts back what it was, or leaves it."""
    grant: _Digest | None = None
    """Digest of the plan that the agent may carry out. Nothing else allows a change of the host."""


class HostSpec(ApiModel):
    """What the node must have besides its NICs."""

    modules: Annotated[list[_Short], Field(max_length=32)] = []
    """Kernel modules that must be there; the agent's init container loads them, and a missing one is reported."""


class NodeSpec(ApiModel):
    """What is asked of the node; written by the controller."""

    synced: bool = False
    """False: the controller has not decided yet, the agent changes nothing."""
    host: HostSpec = HostSpec()
    """What the node must have besides its NICs."""
    pfs: Annotated[
        list[PfSpec],
        Field(max_length=64, json_schema_extra=map_list("pciAddress")),
    ] = []
    """Physical functions that pools ask for."""


class Action(ApiModel):
    """One step of a plan."""

    kind: Literal[
        "BindPf",
        "WriteModuleOptions",
        "ReloadDriver",
        "SetAutoprobe",
        "SetNumVfs",
        "SetVfs",
        "BindVfs",
        "SetMtu",
        "SetQueues",
        "SetLink",
    ]
    """What is written."""
    value: Annotated[str, StringConstraints(max_length=256)]
    """The value written."""


class PfPlan(ApiModel):
    """What is to be done to one physical function, and whether it may."""

    digest: _Digest
    """Names the plan: attempt, boot, desired spec, actions and the observed values that they rely on."""
    actions: Annotated[list[Action], Field(max_length=32)] = []
    """The steps in order."""
    text: _Text = ""
    """The steps in words."""
    disruptive: bool = False
    """A VF that would go is held, or the host uses the function."""
    fenced: bool = False
    """VFs that a pod could get in the meantime would go: they are fenced before the first write."""
    blocked_by: Annotated[list[_Text], Field(max_length=64)] = []
    """Who stands in the way."""


class PfProblem(ApiModel):
    """Why the function cannot be made what the pool asks, or is not."""

    reason: _Reason
    """A word for programs."""
    message: _Text
    """What is wrong and what to do."""


class Apply(ApiModel):
    """The last run that a grant started."""

    digest: _Digest
    """The plan that was granted."""
    state: Literal["Claimed", "Applying", "Applied", "Failed", "RolledBack", "Refused"]
    """How far the run is."""
    message: _Text = ""
    """What went wrong."""


class VfRange(ApiModel):
    """VFs with consecutive indexes and the same driver."""

    range: Annotated[str, StringConstraints(max_length=7, pattern=forms.INDEX_RANGE)]
    """Indexes, for example "0-6"."""
    driver: _Short = ""
    """Driver bound to them; empty means none."""


class Held(ApiModel):
    """A VF that somebody holds open."""

    vf: PciAddress
    """PCI address of the VF."""
    by: Annotated[str, StringConstraints(max_length=321)] = ""
    """Who holds it, as far as known."""


class PfStatus(ApiModel):
    """What one physical function is."""

    pci_address: PciAddress
    """PCI address."""
    name: Annotated[str, StringConstraints(max_length=64, pattern=forms.LINK_NAME)] = ""
    """Interface name."""
    alt_names: Annotated[
        list[Annotated[str, StringConstraints(max_length=128, pattern=forms.PLAIN)]], Field(max_length=16)
    ] = []
    """Alternative interface names."""
    vendor: _PciId = ""
    """PCI vendor id."""
    device: _PciId = ""
    """PCI device id."""
    model: _Short = ""
    """Model name from vmnic's NIC data; empty for an unknown NIC."""
    driver: _Short = ""
    """Kernel driver; empty means none."""
    numa_node: Annotated[int, Field(ge=0, le=1023)] | None = None
    """NUMA node; absent where the machine has none."""
    link_speed_mbps: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    """Link speed in Mbit/s; absent while the link is down."""
    mtu: Annotated[int, Field(ge=0, le=65_536)] | None = None
    """MTU in bytes."""
    queues: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """`combined` channels of the function; absent where it has none to set."""
    total_vfs: _VfCount = 0
    """VFs that the NIC and its driver support."""
    num_vfs: _VfCount = 0
    """VFs that exist."""
    first_vf: Annotated[str, StringConstraints(max_length=12, pattern=forms.OPTIONAL_PCI_ADDRESS)] = ""
    """PCI address of the first VF; empty: there is none."""
    vf_stride: Annotated[int, Field(ge=0, le=65_535)] = 0
    """By how much the routing id of a VF is above that of the VF before it."""
    vfs: Annotated[list[VfRange], Field(max_length=256)] = []
    """VFs by driver."""
    held: Annotated[list[Held], Field(max_length=256)] = []
    """VFs that somebody holds open."""
    host_use: Annotated[list[_Text], Field(max_length=16)] = []
    """What the host itself uses the function for."""
    owned: bool = False
    """Whether vmnic has changed it and keeps its original values."""
    attempt: Annotated[int, Field(ge=0, le=forms.LARGEST_COUNT)] = 0
    """Rises after every end of a run."""
    plan: PfPlan | None = None
    """What is to be done; absent means nothing."""
    problem: PfProblem | None = None
    """Why the function cannot be made what is asked, or is not."""
    apply: Apply | None = None
    """The last run that a grant started."""


class HostFacts(ApiModel):
    """What the node as a whole offers."""

    kernel: Annotated[str, StringConstraints(max_length=128, pattern=forms.PLAIN)] = ""
    """Release of the running kernel."""
    iommu: bool | None = None
    """Whether an IOMMU is on; absent when unknown."""
    modules: Annotated[list[_Short], Field(max_length=32)] = []
    """Kernel modules that datapaths need and that are there."""
    refused: Annotated[list[_Text], Field(max_length=32)] = []
    """Modules that could not be loaded, each with the kernel's answer."""


class NodeStatus(ApiModel):
    """What the agent found and did."""

    observed_generation: Generation = 0
    """The `metadata.generation` that this status speaks of."""
    boot_id: Annotated[str, Field(alias="bootID"), StringConstraints(max_length=64, pattern=forms.BOOT_ID)] = ""
    """The kernel's boot id: tells a reboot from a restart of the agent."""
    host: HostFacts = HostFacts()
    """What the node as a whole offers."""
    pfs: Annotated[
        list[PfStatus],
        Field(max_length=64, json_schema_extra=map_list("pciAddress")),
    ] = []
    """The node's physical functions that support SR-IOV."""
    conditions: Annotated[
        list[Condition],
        Field(max_length=16, json_schema_extra=map_list("type")),
    ] = []
    """Ready, Degraded, Blocked, RolledBack, Fenced."""


class NodeNicState(ApiModel):
    """One node's NICs: what they should be, what they are, and what is planned."""

    model_config = ConfigDict(alias_generator=to_camel, extra="ignore")

    PLURAL: ClassVar[str] = "nodenicstates"
    SHORT: ClassVar[list[str]] = ["nns"]
    COLUMNS: ClassVar[list[dict[str, Any]]] = [
        {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
        {"name": "Reason", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].reason'},
        {"name": "IOMMU", "type": "boolean", "jsonPath": ".status.host.iommu"},
        {"name": "Message", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].message'},
        {"name": "Kernel", "type": "string", "jsonPath": ".status.host.kernel", "priority": 1},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]

    metadata: Metadata
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()
