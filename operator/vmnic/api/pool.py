"""SriovNetworkPool, which selects NIC hardware and its preparation."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, StrictInt, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from ..checked import forms
from ..checked.documents import check_depth
from .common import (
    PERCENT,
    ApiModel,
    Condition,
    Count,
    Duration,
    Generation,
    IntOrPercent,
    LabelSelector,
    Metadata,
    PciAddress,
    Problem,
)
from .keywords import cel, map_list

__all__ = [
    "MOST_ASKED_VFS",
    "NicSelector",
    "NodeCounts",
    "PoolNetwork",
    "PoolProblem",
    "PoolSpec",
    "PoolStatus",
    "Rollout",
    "Safety",
    "SriovNetworkPool",
    "VfCounts",
]

_HexId = Annotated[str, StringConstraints(max_length=4, pattern=r"^[0-9a-f]{4}$")]
_RESOURCE = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$"
_Word = Annotated[str, StringConstraints(min_length=1, max_length=64)]

_NUM_VFS = 'numVfs is a number from 0 to 256, a share of the NIC\'s VFs such as "50%", or "max"'
MOST_ASKED_VFS = 256


def _check_num_vfs(value: int | str) -> int | str:
    """Repeat the CEL rule, which is not evaluated offline."""
    fits = value == "max" or PERCENT.fullmatch(value) is not None if isinstance(value, str) else 0 <= value <= MOST_ASKED_VFS
    if not fits:
        raise ValueError(_NUM_VFS)
    return value


NumVfs = Annotated[
    StrictInt | str,
    AfterValidator(_check_num_vfs),
    Field(
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            "x-kubernetes-validations": [
                cel(
                    f"type(self) == int ? self >= 0 && self <= {MOST_ASKED_VFS} : "
                    f"self == 'max' || self.matches('^{PERCENT.pattern}$')",
                    _NUM_VFS,
                )
            ],
        }
    ),
]


_NOTHING_SELECTED = 'nicSelector must not be empty: give at least one field, for example models: ["82576"]'


class NicSelector(ApiModel):
    """Which physical functions belong to the pool. Every given field must match.

    The items of a list are alternatives.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                cel(
                    # The API server fills in the lists' defaults before it evaluates rules, so they need no `has()`.
                    "size(self.models) + size(self.vendors) + size(self.devices) + size(self.drivers)"
                    " + size(self.pfNames) + size(self.pciAddresses) + size(self.numaNodes) > 0"
                    " || has(self.minLinkSpeedMbps)",
                    _NOTHING_SELECTED,
                )
            ]
        }
    )

    models: Annotated[list[_Word], Field(max_length=32)] = []
    """Names or aliases of NIC models from vmnic's NIC data, for example "82576" or "I350". An unknown name is a problem of the
    pool (`UnknownModel`).
    """
    vendors: Annotated[list[_HexId], Field(max_length=32)] = []
    """PCI vendor IDs in hexadecimal, for example "8086"."""
    devices: Annotated[list[_HexId], Field(max_length=32)] = []
    """PCI device IDs of the physical function, for example "10c9"."""
    drivers: Annotated[list[_Word], Field(max_length=32)] = []
    """Kernel drivers of the physical function, for example igb."""
    pf_names: Annotated[list[_Word], Field(max_length=MOST_RESOURCES)] = []
    """Globs on interface names, for example "ens1f*". Alternative names count too."""
    pci_addresses: Annotated[list[PciAddress], Field(max_length=64)] = []
    """Full PCI addresses, for example "0000:0b:00.0"."""
    numa_nodes: Annotated[list[Annotated[int, Field(ge=0, le=1023)]], Field(max_length=32)] = []
    """NUMA nodes of the NIC."""
    min_link_speed_mbps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Lowest link speed in Mbit/s. A link that is down has no speed and does not match. The speed is ignored for a function
    that is already in the pool, because links go down.
    """

    @model_validator(mode="after")
    def _not_empty(self) -> NicSelector:
        """Repeat the CEL rule, which is not evaluated offline.

        It also finds a selector whose only field is unknown to this version.
        """
        if not any(getattr(self, name) for name in NicSelector.model_fields):
            raise ValueError(_NOTHING_SELECTED)
        return self


_VF_RANGE = "vfRange is the index of a VF, or the first and the last one such as 0-3"


def _check_vf_range(value: str) -> str:
    """Repeat the CEL rule, which is not evaluated offline."""
    first, _, last = value.partition("-")
    if last and int(first) > int(last):
        raise ValueError(_VF_RANGE)
    return value


VfRangeText = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{1,3}(-[0-9]{1,3})?$", max_length=7),
    AfterValidator(_check_vf_range),
    Field(
        json_schema_extra={
            "x-kubernetes-validations": [
                cel("!self.contains('-') || int(self.split('-')[0]) <= int(self.split('-')[1])", _VF_RANGE)
            ]
        }
    ),
]
_ONLY_VIRTUAL = "vfRange, vf, queues, mtu, management and persistence need function: Virtual"
_VFS_OF_VIRTUAL = "numVfs is needed with function: Virtual and refused with function: Physical"


class Rollout(ApiModel):
    """Limits for a change that is brought to the pool's nodes."""

    max_unavailable: IntOrPercent = 1
    """Most nodes that may be out of service for disruptive changes: a number, or a percentage of the pool's nodes (rounded up).
    A node that is already down or cordoned counts.
    """
    max_concurrent: IntOrPercent = "10%"
    """Most nodes that change at the same time: a number, or a percentage of the pool's nodes (rounded up). The first node
    of a new generation always changes alone.
    """
    max_failures: Annotated[int, Field(ge=1, le=1000)] = 1
    """Number of failed nodes at which no further node starts."""
    disruption: Literal["WhenFree", "Drain", "Manual"] = "WhenFree"
    """What happens if VMs hold VFs that would disappear. WhenFree: the node waits until no VM holds them. Drain: the VMs are
    migrated away. Manual: like Drain, but only after a person has approved the node's plan (`kubectl vmnic approve`).
    """
    drain_timeout: Duration = "30m"
    """Time that VMs have to leave. After that the node is left as it was found."""
    paused: bool = False
    """True: no node starts. Changes that are already running continue."""


class Safety(ApiModel):
    """Protection of a node from its own change."""

    rollback_timeout: Duration = "60s"
    """How long the API server and the default gateway may be unreachable after a change, if they were reachable before.
    After that the node rolls the change back by itself.
    """
    allow_host_used: bool = False
    """Whether functions may be changed that the host itself uses: an address, a route or an upper device."""


_IPAM_LEVELS = 8
_IPAM_BYTES = 4096
_IPAM_BOUNDS = f"ipam has at most {_IPAM_LEVELS} levels and {_IPAM_BYTES} bytes"


def _check_ipam(value: dict[str, Any]) -> dict[str, Any]:
    """Check the bounds that a schema cannot express.

    They matter because the value goes into networks of every namespace.
    """
    check_depth(value, _IPAM_LEVELS)
    if len(json.dumps(value)) > _IPAM_BYTES:
        raise ValueError(_IPAM_BOUNDS)
    return value


Ipam = Annotated[
    dict[str, Any],
    # Each IPAM plugin has fields of its own, and without this keyword the API server would prune them.
    Field(max_length=32, json_schema_extra={"x-kubernetes-preserve-unknown-fields": True}),
    AfterValidator(_check_ipam),
]


class PoolNetwork(ApiModel):
    """A NetworkAttachmentDefinition that vmnic maintains in selected namespaces."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                cel("self.vlan > 0 || self.vlanQos == 0", "vlanQos needs a vlan: sriov-cni refuses one without the other")
            ]
        }
    )

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)]
    """Name of the NetworkAttachmentDefinition. An existing one that does not belong to the pool is left alone (`NadExists`)."""
    namespace_selector: LabelSelector = LabelSelector()
    """Namespaces that get it, including those created later. An empty selector selects every namespace."""
    segment: Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$", max_length=63)] = ""
    """Layer-2 network: value of the label `vmnic.dev/segment`. Networks of one segment are interchangeable."""
    vlan: Annotated[int, Field(ge=0, le=4094)] = 0
    """VLAN ID; 0 for none. 0 is written too, because a VF would otherwise keep an older VLAN."""
    vlan_qos: Annotated[int, Field(ge=0, le=7)] = 0
    """802.1p priority; needs a `vlan`."""
    trust: bool = False
    """Whether the guest may change its MAC address and use promiscuous mode."""
    spoof_check: bool = True
    """Whether the NIC drops frames with another source address."""
    link_state: Literal["Auto", "Enable", "Disable"] = "Auto"
    """Link state that the guest sees."""
    min_tx_rate_mbps: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Guaranteed transmit rate in Mbit/s; absent leaves it as it is, because many NICs do not support it."""
    max_tx_rate_mbps: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Highest transmit rate in Mbit/s; 0 for none. Absent leaves it as it is."""
    ipam: Ipam = {}
    """IPAM configuration of the CNI, passed on unchanged. Empty: the guest gets its addresses elsewhere."""


_VIRTUAL_NETWORKS = "networks need function: Virtual and no vf: sriov-cni sets the attributes of their VFs"
MOST_RESOURCES = 64
"""Most resources that one pool may have."""

_VLAN_FIRST = "vf.vlanQos and vf.vlanProtocol need a vf.vlan: the kernel sets them together"


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


def _names_no_vlan(vf: VfSettings) -> bool:
    """Return whether a field is given that has no meaning without a VLAN."""
    if vf.vlan is None:
        return vf.vlan_qos is not None or vf.vlan_protocol is not None
    # VLAN 0 removes the tag, and with it the place of the priority.
    return vf.vlan == 0 and bool(vf.vlan_qos)


class PoolSpec(ApiModel):
    """Which hardware is prepared, and how."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                cel(
                    # Rules with `oldSelf` are evaluated only on updates. The first line refuses to add or remove the field.
                    "has(self.resourceName) == has(oldSelf.resourceName)"
                    " && (!has(self.resourceName) || self.resourceName == oldSelf.resourceName)",
                    "resourceName is immutable, because networks and VMs refer to it: create a new pool instead",
                    fieldPath=".resourceName",
                    reason="FieldValueForbidden",
                ),
                cel(
                    # Comparing two values of unknown length would exceed the API server's budget for rules.
                    "(self.function == 'Physical') == (oldSelf.function == 'Physical')",
                    "function is immutable: create a new pool instead",
                    fieldPath=".function",
                    reason="FieldValueForbidden",
                ),
                cel("has(self.numVfs) == (self.function == 'Virtual')", _VFS_OF_VIRTUAL),
                cel(
                    "self.function == 'Virtual' || (!has(self.vfRange) && !has(self.vf) && !has(self.queues) && !has(self.mtu)"
                    " && self.management == 'Managed' && self.persistence == 'Agent')",
                    _ONLY_VIRTUAL,
                ),
                cel(
                    "!has(self.vf) || (has(self.vf.vlan) ? self.vf.vlan > 0 || !has(self.vf.vlanQos) || self.vf.vlanQos == 0"
                    " : !has(self.vf.vlanQos) && !has(self.vf.vlanProtocol))",
                    _VLAN_FIRST,
                ),
                cel(
                    "size(self.networks) == 0 || (self.function == 'Virtual' && !has(self.vf))",
                    _VIRTUAL_NETWORKS,
                ),
            ]
        }
    )

    node_selector: Annotated[dict[str, Annotated[str, StringConstraints(max_length=63)]], Field(max_length=64)] = {}
    """Labels that a node must have; empty selects every node."""
    nic_selector: NicSelector
    """Which physical functions belong to the pool."""
    function: Literal["Virtual", "Physical"] = "Virtual"
    """Virtual: the NIC's VFs. Physical: the whole NIC on vfio-pci, for the datapath `passthrough`; the host loses it.
    Immutable.
    """
    # No default: the API server would fill it in, and the rule could not tell a whole NIC from one with VFs.
    num_vfs: NumVfs | None = None
    """Number of VFs of each physical function, required with `function: Virtual` and forbidden otherwise: a number, a
    percentage of what the NIC supports such as "50%" (rounded down), or "max".
    """
    vf_driver: Literal["vfio-pci", "kernel"] = "vfio-pci"
    """Driver of the VFs: `vfio-pci` for VMs, `kernel` for the NIC's own VF driver."""
    management: Literal["Managed", "Adopt"] = "Managed"
    """Managed: vmnic creates the VFs. Adopt: the VFs exist already; their number is never written, and nothing is reset."""
    vf_range: VfRangeText | None = None
    """VFs of each physical function that belong to the pool, for example "0-3"; absent for all. Pools that share a
    function must agree on numVfs, mtu, queues, management and persistence.
    """
    mtu: Annotated[int, Field(ge=576, le=9216)] | None = None
    """MTU of the physical function in bytes; absent leaves it as it is."""
    queues: Annotated[int, Field(ge=1, le=256)] | None = None
    """`combined` channels of the physical function; absent leaves them as they are."""
    persistence: Literal["Agent", "ModuleOptions", "Udev"] = "Agent"
    """Agent: the agent creates the VFs after each boot. ModuleOptions: the number is also written to /etc/modprobe.d as the
    driver's parameter (`max_vfs`, `num_vfs`), so that the VFs exist before the agent starts. Only for drivers whose parameter
    the NIC data name (igb, ixgbe, mlx4_core). Udev: the number is also written to /etc/udev/rules.d, so that the VFs exist as
    soon as the driver has made the link; the agent binds them.
    """
    vf: VfSettings | None = None
    """Attributes that the agent sets on the pool's VFs. Meant for libvirt; in Kubernetes sriov-cni sets them. An
    attribute that is removed here stays on existing VFs. To reset it, first ask for the kernel's default (vlan: 0, trust:
    false, spoofCheck: true, linkState: Auto, rates 0), or have the VFs created again.
    """
    removal: Literal["Reset", "Retain"] = "Reset"
    """Applies when the pool is deleted or a node leaves it. Reset: the original values are restored. Retain: everything
    stays.
    """
    device_plugin: Literal["Embedded", "None"] = "Embedded"
    """Embedded: the agent advertises the devices to the kubelet. None: another device plugin does."""
    resource_per_pf: Annotated[bool, Field(alias="resourcePerPF")] = False
    """One resource for each physical function, named after it, for guest bonds over two of them."""
    exclude_topology: bool = False
    """Whether the devices are advertised without their NUMA node."""
    safety: Safety = Safety()
    """Protection of a node from its own change."""
    resource_name: Annotated[str, StringConstraints(pattern=_RESOURCE, max_length=127)] | None = None
    """Extended resource under which the pool's VFs are advertised, for example vmnic.dev/tenant-fast. The default is vmnic.dev/
    and the pool's name. Immutable.
    """
    reserve_for_migration: Annotated[int, Field(ge=0, le=100_000)] = 0
    """VFs of the pool that new assignments leave free, so that VMs can be migrated. Advisory: any pod can still take them."""
    networks: Annotated[list[PoolNetwork], Field(max_length=32, json_schema_extra=map_list("name"))] = []
    """NetworkAttachmentDefinitions for sriov-cni that vmnic maintains for the pool's VFs, and removes with the pool unless VMs
    refer to them.
    """
    rollout: Rollout = Rollout()
    """Limits for a change that is brought to the pool's nodes."""

    @model_validator(mode="after")
    def _vfs_of_virtual(self) -> PoolSpec:
        """Repeat the CEL rules, which are not evaluated offline."""
        if (self.num_vfs is None) == (self.function == "Virtual"):
            raise ValueError(_VFS_OF_VIRTUAL)
        given = (self.vf_range, self.vf, self.queues, self.mtu)
        plain = self.management == "Managed" and self.persistence == "Agent"
        if self.function == "Physical" and (any(one is not None for one in given) or not plain):
            raise ValueError(_ONLY_VIRTUAL)
        if self.networks and (self.function == "Physical" or self.vf is not None):
            raise ValueError(_VIRTUAL_NETWORKS)
        if self.vf is not None and _names_no_vlan(self.vf):
            raise ValueError(_VLAN_FIRST)
        return self


class NodeCounts(ApiModel):
    """Nodes of the pool by state."""

    matched: Count = 0
    """Nodes with at least one physical function of the pool, including nodes that are releasing one."""
    ready: Count = 0
    """Nodes that match the pool."""
    updating: Count = 0
    """Nodes with a granted plan that is not finished."""
    waiting: Count = 0
    """Nodes that wait for their turn, or for VMs to release VFs."""
    failed: Count = 0
    """Nodes whose change failed or was refused."""
    # A printer column reads one path, so `READY/MATCHED` has to be a field of its own.
    summary: Annotated[str, StringConstraints(max_length=32)] = "0/0"
    """Ready nodes of matched nodes, for example "3/4"."""


class VfCounts(ApiModel):
    """VFs of the pool on all nodes."""

    desired: Count = 0
    """VFs that the pool asks for."""
    configured: Count = 0
    """VFs of the pool that exist, including VFs that are no longer asked for and that VMs still hold."""
    in_use: Count = 0
    """VFs of the pool that a VM or another program holds, including VFs that are no longer asked for."""
    assigned: Count = 0
    """VFs that the specs of VMs ask for, including stopped VMs."""
    reserved: Count = 0
    """VFs that new assignments leave free (`reserveForMigration`)."""
    free: Count = 0
    """VFs that exist and that no VM or other program holds or is about to hold."""


class PoolProblem(Problem):
    """A problem with a physical function that may need action by a person."""

    node: Annotated[str, StringConstraints(max_length=253)] = ""
    """Name of the node."""
    pf: Annotated[str, StringConstraints(max_length=64)] = ""
    """PCI address of the physical function."""


class PoolStatus(ApiModel):
    """Progress of the pool."""

    observed_generation: Generation = 0
    """The `metadata.generation` that this status refers to."""
    resource_names: Annotated[list[Annotated[str, StringConstraints(max_length=253)]], Field(max_length=64)] = []
    """Extended resources under which the pool's VFs are advertised."""
    conditions: Annotated[
        list[Condition],
        Field(max_length=16, json_schema_extra=map_list("type")),
    ] = []
    """Ready, UpToDate, Reconciling, Stalled, Conflict."""
    problems: Annotated[list[PoolProblem], Field(max_length=10)] = []
    """The first ten problems that may need action by a person."""
    nodes: NodeCounts = NodeCounts()
    """Nodes by state."""
    vfs: VfCounts = VfCounts()
    """VFs on all nodes."""


class SriovNetworkPool(ApiModel):
    """A set of physical NICs on cluster nodes whose virtual functions (VFs) are prepared in the same way."""

    model_config = ConfigDict(alias_generator=to_camel, extra="ignore")

    PLURAL: ClassVar[str] = "sriovnetworkpools"
    SHORT: ClassVar[list[str]] = ["snp"]
    COLUMNS: ClassVar[list[dict[str, Any]]] = [
        {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
        {"name": "Reason", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].reason'},
        {"name": "Nodes", "type": "string", "jsonPath": ".status.nodes.summary"},
        {"name": "VFs", "type": "integer", "jsonPath": ".status.vfs.configured"},
        {"name": "In use", "type": "integer", "jsonPath": ".status.vfs.inUse"},
        {"name": "Waiting", "type": "integer", "jsonPath": ".status.nodes.waiting", "priority": 1},
        {"name": "Failed", "type": "integer", "jsonPath": ".status.nodes.failed", "priority": 1},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]

    metadata: Metadata
    spec: PoolSpec
    status: PoolStatus = PoolStatus()

    @property
    def resource_name(self) -> str:
        """Return the extended resource of the pool, with the default filled in."""
        return self.spec.resource_name or f"vmnic.dev/{self.metadata.name}"
