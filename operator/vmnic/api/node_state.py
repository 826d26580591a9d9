"""NodeNicState with one node's NICs, written by machines and read by people.

The controller writes `spec`, the agent writes `status`. Bounds keep 8 PFs of 64 VFs each below 16 kB.
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
# No enum: for one unknown reason of a newer agent, the API server would refuse the agent's whole status.
_Reason = Annotated[str, StringConstraints(max_length=64, pattern=forms.CONDITION)]
_PciId = Annotated[str, StringConstraints(max_length=4, pattern=forms.OPTIONAL_PCI_ID)]
_Digest = Annotated[str, StringConstraints(max_length=64, pattern=forms.DIGEST)]
_AltName = Annotated[str, StringConstraints(max_length=128, pattern=forms.PLAIN)]
_VfCount = Annotated[int, Field(ge=0, le=MOST_VFS)]
_Text = Annotated[str, StringConstraints(max_length=512)]


class VfSettings(ApiModel):
    """Attributes that the agent sets on VFs. An absent attribute is left as it is."""

    vlan: Annotated[int, Field(ge=0, le=4094)] | None = None
    """VLAN ID; 0 removes the VLAN."""
    vlan_qos: Annotated[int, Field(ge=0, le=7)] | None = None
    """802.1p priority; needs a `vlan`."""
    vlan_protocol: Literal["802.1q", "802.1ad"] | None = None
    """Tag protocol; needs a `vlan`."""
    trust: bool | None = None
    """Whether the guest may change its MAC address and use promiscuous mode."""
    spoof_check: bool | None = None
    """Whether the NIC drops frames with another source address."""
    link_state: Literal["Auto", "Enable", "Disable"] | None = None
    """Link state that the guest sees."""
    min_tx_rate_mbps: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Guaranteed transmit rate in Mbit/s. NICs accept rates only while their link has a carrier, so vmnic waits for it."""
    max_tx_rate_mbps: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Highest transmit rate in Mbit/s; 0 for none. Like the other rate, it needs a carrier."""
    mac_prefix: Annotated[str, StringConstraints(max_length=8, pattern=forms.MAC_PREFIX)] | None = None
    """First three bytes of the VFs' MAC addresses, locally administered; the rest is derived from the physical function's MAC
    address. VFs on their kernel driver are bound again, because the driver reads the address only then.
    """


class VfGroup(ApiModel):
    """A pool's share of a physical function."""

    pool: Annotated[str, StringConstraints(max_length=253)]
    """Name of the pool."""
    resource: Annotated[str, StringConstraints(max_length=253)]
    """Extended resource under which the devices are advertised."""
    range: Annotated[str, StringConstraints(max_length=7, pattern=forms.OPTIONAL_INDEX_RANGE)] = ""
    """Indexes of the VFs, for example "0-3"; empty for all."""
    driver: Literal["vfio-pci", "kernel"] = "vfio-pci"
    """Driver of the VFs: `vfio-pci`, or `kernel` for the driver that the kernel chooses."""
    settings: VfSettings | None = None
    """Attributes that the agent sets on the VFs."""
    device_plugin: Literal["Embedded", "None"] = "Embedded"
    """Embedded: the agent advertises the devices to the kubelet. None: another device plugin does."""
    exclude_topology: bool = False
    """Whether the devices are advertised without their NUMA node."""


class PfSpec(ApiModel):
    """Spec of one physical function, merged from all pools."""

    pci_address: PciAddress
    """PCI address of the physical function."""
    pool: Annotated[str, StringConstraints(max_length=253)]
    """Oldest pool that has a share of it. Its rollout decides when the function changes."""
    num_vfs: Annotated[int, Field(ge=0, le=256)] = 0
    """Number of VFs."""
    function: Literal["Virtual", "Physical"] = "Virtual"
    """Virtual: VFs. Physical: the whole function on vfio-pci."""
    management: Literal["Managed", "Adopt"] = "Managed"
    """Managed: vmnic creates the VFs. Adopt: the number of VFs is not written, and nothing is reset."""
    persistence: Literal["Agent", "ModuleOptions"] = "Agent"
    """ModuleOptions: the number of VFs is also written to /etc/modprobe.d."""
    mtu: Annotated[int, Field(ge=576, le=9216)] | None = None
    """MTU in bytes; absent leaves it as it is."""
    queues: Annotated[int, Field(ge=1, le=256)] | None = None
    """`combined` channels of the function; absent leaves them as they are."""
    groups: Annotated[list[VfGroup], Field(max_length=16, json_schema_extra=map_list("pool"))] = []
    """Pool shares of the function."""
    allow_host_used: bool = False
    """Whether the function may be changed although the host itself uses it."""
    rollback_timeout_s: Annotated[int, Field(ge=1, le=3600)] = 60
    """Seconds within which the node must be reachable again after a change; otherwise the change is rolled back."""
    release: Literal["", "Reset", "Retain"] = ""
    """Set if no pool asks for the function any more. Reset: the agent restores the original values. Retain: it leaves them."""
    grant: _Digest | None = None
    """Digest of the plan that the agent may carry out. Nothing else allows a change of the host."""


class HostSpec(ApiModel):
    """Requirements for the node besides its NICs."""

    modules: Annotated[list[_Short], Field(max_length=32)] = []
    """Kernel modules that must be loaded; the agent's init container loads them, and a missing one is reported."""


class NodeSpec(ApiModel):
    """Spec of the node, written by the controller."""

    synced: bool = False
    """False until the controller has decided; the agent changes nothing until then."""
    host: HostSpec = HostSpec()
    """Requirements for the node besides its NICs."""
    pfs: Annotated[
        list[PfSpec],
        Field(max_length=64, json_schema_extra=map_list("pciAddress")),
    ] = []
    """Physical functions that pools ask for."""


class Action(ApiModel):
    """One action of a plan."""

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
    """Kind of the action."""
    # Every second of 63 VFs takes 87 characters. One value that is too long would make the API server refuse the whole status.
    value: Annotated[str, StringConstraints(max_length=256)]
    """Value that is written."""


class PfPlan(ApiModel):
    """Plan for one physical function, and who blocks it."""

    digest: _Digest
    """Digest of attempt, boot, spec, actions and the observed values that they rely on. It names the plan."""
    actions: Annotated[list[Action], Field(max_length=32)] = []
    """The actions in order."""
    text: _Text = ""
    """The actions in words."""
    disruptive: bool = False
    """Whether the plan removes a VF that is held, or interrupts a link that the host uses."""
    fenced: bool = False
    """Whether the plan removes VFs that a pod could get in the meantime; they are fenced before the first write."""
    blocked_by: Annotated[list[_Text], Field(max_length=64)] = []
    """Holders that block the plan."""


class PfProblem(ApiModel):
    """Why the physical function is not, or cannot be, as its pool asks."""

    reason: _Reason
    """Reason in CamelCase, for programs."""
    message: _Text
    """What is wrong, and what to do."""


class Apply(ApiModel):
    """The last change that a grant started."""

    digest: _Digest
    """Digest of the granted plan."""
    state: Literal["Claimed", "Applying", "Applied", "Failed", "RolledBack", "Refused"]
    """State of the change."""
    message: _Text = ""
    """What went wrong."""


class VfRange(ApiModel):
    """VFs with consecutive indexes and the same driver."""

    range: Annotated[str, StringConstraints(max_length=7, pattern=forms.INDEX_RANGE)]
    """Indexes, for example "0-6"."""
    driver: _Short = ""
    """Driver bound to them; empty if none is."""


class Held(ApiModel):
    """A VF that is held."""

    vf: PciAddress
    """PCI address of the VF."""
    # `pod `, a namespace of 63 characters, a slash and a name of 253.
    by: Annotated[str, StringConstraints(max_length=321)] = ""
    """Holder, as far as known."""


class PfStatus(ApiModel):
    """Observed state of one physical function."""

    pci_address: PciAddress
    """PCI address."""
    name: Annotated[str, StringConstraints(max_length=64, pattern=forms.LINK_NAME)] = ""
    """Interface name."""
    alt_names: Annotated[
        list[Annotated[str, StringConstraints(max_length=128, pattern=forms.PLAIN)]], Field(max_length=16)
    ] = []
    """Alternative interface names."""
    vendor: _PciId = ""
    """PCI vendor ID."""
    device: _PciId = ""
    """PCI device ID."""
    model: _Short = ""
    """Model name from vmnic's NIC data; empty for an unknown NIC."""
    driver: _Short = ""
    """Kernel driver; empty if none is bound."""
    numa_node: Annotated[int, Field(ge=0, le=1023)] | None = None
    """NUMA node; absent if the machine has none."""
    link_speed_mbps: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    """Link speed in Mbit/s; absent while the link is down."""
    mtu: Annotated[int, Field(ge=0, le=65_536)] | None = None
    """MTU in bytes."""
    queues: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """Number of `combined` channels; absent if they cannot be set."""
    total_vfs: _VfCount = 0
    """Number of VFs that the NIC and its driver support."""
    num_vfs: _VfCount = 0
    """Number of VFs that exist."""
    first_vf: Annotated[str, StringConstraints(max_length=12, pattern=forms.OPTIONAL_PCI_ADDRESS)] = ""
    """PCI address of the first VF; empty if there is none."""
    vf_stride: Annotated[int, Field(ge=0, le=65_535)] = 0
    """Difference between the routing IDs of two consecutive VFs."""
    vfs: Annotated[list[VfRange], Field(max_length=256)] = []
    """VFs by driver."""
    held: Annotated[list[Held], Field(max_length=256)] = []
    """VFs that are held."""
    host_use: Annotated[list[_Text], Field(max_length=16)] = []
    """Uses of the function by the host itself."""
    owned: bool = False
    """Whether vmnic has changed it and keeps its original values."""
    attempt: Annotated[int, Field(ge=0, le=forms.LARGEST_COUNT)] = 0
    """Number of changes that have ended."""
    plan: PfPlan | None = None
    """Plan to carry out; absent if nothing is to be done."""
    problem: PfProblem | None = None
    """Why the function is not, or cannot be, as its pool asks."""
    apply: Apply | None = None
    """The last change that a grant started."""


class HostFacts(ApiModel):
    """Facts about the node as a whole."""

    kernel: Annotated[str, StringConstraints(max_length=128, pattern=forms.PLAIN)] = ""
    """Release of the running kernel."""
    iommu: bool | None = None
    """Whether an IOMMU is on; absent if unknown."""
    modules: Annotated[list[_Short], Field(max_length=32)] = []
    """Kernel modules that datapaths need and that are loaded or built in."""
    refused: Annotated[list[_Text], Field(max_length=32)] = []
    """Modules that could not be loaded, each with the kernel's error."""


class NodeStatus(ApiModel):
    """Observed state of the node and the agent's actions there."""

    observed_generation: Generation = 0
    """The `metadata.generation` that this status refers to."""
    # The alias generator would make it bootId. Kubernetes writes bootID, as in the nodeInfo of a Node.
    boot_id: Annotated[str, Field(alias="bootID"), StringConstraints(max_length=64, pattern=forms.BOOT_ID)] = ""
    """The kernel's boot ID, which distinguishes a reboot from a restart of the agent."""
    host: HostFacts = HostFacts()
    """Facts about the node as a whole."""
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
    """Spec, observed state and plans of one node's NICs."""

    model_config = ConfigDict(alias_generator=to_camel, extra="ignore")

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

    metadata: Metadata
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()
