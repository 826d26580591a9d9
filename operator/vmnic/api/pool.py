"""SriovNetworkPool: which NIC hardware is prepared, and how."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from .common import ApiModel, Condition, IntOrPercent, Metadata, PciAddress, Problem, cel, map_list

__all__ = [
    "NicSelector",
    "NodeCounts",
    "PoolProblem",
    "PoolSpec",
    "PoolStatus",
    "Rollout",
    "SriovNetworkPool",
    "VfCounts",
]

_HexId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{4}$")]
_RESOURCE = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$"
_Word = Annotated[str, StringConstraints(min_length=1, max_length=64)]

NumVfs = Annotated[
    int | str,
    Field(
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            "x-kubernetes-validations": [
                cel(
                    "type(self) == int ? self >= 0 && self <= 256 : self == 'max' || self.matches('^([1-9][0-9]?|100)%$')",
                    'numVfs is a number from 0 to 256, a share of the NIC\'s VFs such as "50%", or "max"',
                )
            ],
        }
    ),
]


class NicSelector(ApiModel):
    """Which physical functions belong: every given field must match, the items of a list are alternatives."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                cel(
                    "size(self.models) + size(self.vendors) + size(self.devices) + size(self.drivers)"
                    " + size(self.pfNames) + size(self.pciAddresses) + size(self.numaNodes) > 0"
                    " || has(self.minLinkSpeedMbps)",
                    'nicSelector must not be empty: give at least one field, for example models: ["82576"]',
                )
            ]
        }
    )

    models: Annotated[list[_Word], Field(max_length=32)] = []
    """Names of NIC models from vmnic's NIC data, for example "82576" or "I350"."""
    vendors: Annotated[list[_HexId], Field(max_length=32)] = []
    """PCI vendor ids in hexadecimal, for example "8086"."""
    devices: Annotated[list[_HexId], Field(max_length=32)] = []
    """PCI device ids of the physical function, for example "10c9"."""
    drivers: Annotated[list[_Word], Field(max_length=32)] = []
    """Kernel drivers of the physical function, for example igb."""
    pf_names: Annotated[list[_Word], Field(max_length=64)] = []
    """Globs on interface names, for example "ens1f*"; alternative names count."""
    pci_addresses: Annotated[list[PciAddress], Field(max_length=64)] = []
    """Full PCI addresses, for example "0000:0b:00.0"."""
    numa_nodes: Annotated[list[Annotated[int, Field(ge=0, le=1023)]], Field(max_length=32)] = []
    """NUMA nodes of the NIC."""
    min_link_speed_mbps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """The least link speed in Mbit/s; a link that is down has none and does not match."""


_VFS_OF_VIRTUAL = "numVfs is needed with function: Virtual and refused with function: Physical"


class Rollout(ApiModel):
    """How fast a change goes through the cluster."""

    max_concurrent: IntOrPercent = "10%"
    """How many nodes change at a time: a number, or a share of the pool's nodes (rounded up). The first node of a new
    generation always goes alone."""
    max_failures: Annotated[int, Field(ge=1, le=1000)] = 1
    """After so many failed nodes no further node is started."""
    paused: bool = False
    """True: no node is started; what runs already is finished."""


class PoolSpec(ApiModel):
    """Which hardware is prepared, and how."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                cel(
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
            ]
        }
    )

    node_selector: Annotated[dict[str, Annotated[str, StringConstraints(max_length=63)]], Field(max_length=64)] = {}
    """Labels that a node must have; empty selects every node."""
    nic_selector: NicSelector
    """Which physical functions belong to the pool."""
    function: Literal["Virtual", "Physical"] = "Virtual"
    """Virtual: the NIC's VFs. Physical: the whole NIC on vfio-pci, for the datapath `passthrough`; the host loses it.
    Immutable."""
    num_vfs: NumVfs | None = None
    """Only with `function: Virtual`, and then needed. VFs of each physical function: a number, a share of what the NIC
    supports such as "50%" (rounded down), or "max"."""
    vf_driver: Literal["vfio-pci", "kernel"] = "vfio-pci"
    """What drives the VFs: `vfio-pci` for VMs, `kernel` for the NIC's own VF driver."""
    mtu: Annotated[int, Field(ge=576, le=9216)] | None = None
    """MTU of the physical function in bytes; absent leaves it as it is."""
    resource_name: Annotated[str, StringConstraints(pattern=_RESOURCE, max_length=127)] | None = None
    """Extended resource that stands for the pool's VFs, for example vmnic.dev/tenant-fast. Default vmnic.dev/ and the
    pool's name. Immutable."""
    reserve_for_migration: Annotated[int, Field(ge=0, le=100_000)] = 0
    """VFs of the pool that new assignments leave free, so that VMs can be migrated. Advisory: any pod can still take them."""
    rollout: Rollout = Rollout()
    """How fast a change goes through the cluster."""

    @model_validator(mode="after")
    def _vfs_of_virtual(self) -> PoolSpec:
        """Offline nobody evaluates the CEL rule, so it is said again."""
        if (self.num_vfs is None) == (self.function == "Virtual"):
            raise ValueError(_VFS_OF_VIRTUAL)
        return self


class NodeCounts(ApiModel):
    """Nodes of the pool by state."""

    matched: int = 0
    """Nodes with at least one physical function of the pool."""
    ready: int = 0
    """Nodes that are as the pool asks."""
    updating: int = 0
    """Nodes that have a grant and are not done."""
    waiting: int = 0
    """Nodes that wait for their turn or for VMs to let go of VFs."""
    failed: int = 0
    """Nodes whose change failed or was refused."""
    summary: Annotated[str, StringConstraints(max_length=32)] = "0/0"
    """Ready of matched."""


class VfCounts(ApiModel):
    """VFs of the pool over all nodes."""

    desired: int = 0
    """VFs that the pool asks for."""
    configured: int = 0
    """VFs that exist."""
    in_use: int = 0
    """VFs that a VM or another program holds."""
    assigned: int = 0
    """VFs that the specs of VMs ask for, also of those that are stopped."""
    reserved: int = 0
    """VFs that new assignments leave free (`reserveForMigration`)."""
    free: int = 0
    """VFs that exist and that nobody holds or is about to hold."""


class PoolProblem(Problem):
    """One thing about a physical function that a person may want to act on."""

    node: Annotated[str, StringConstraints(max_length=253)] = ""
    """Name of the node."""
    pf: Annotated[str, StringConstraints(max_length=64)] = ""
    """PCI address of the physical function."""


class PoolStatus(ApiModel):
    """How far the pool is."""

    observed_generation: int = 0
    """The `metadata.generation` that this status speaks of."""
    resource_names: Annotated[list[Annotated[str, StringConstraints(max_length=253)]], Field(max_length=64)] = []
    """Extended resources that stand for the pool's VFs."""
    conditions: Annotated[
        list[Condition],
        Field(max_length=16, json_schema_extra=map_list("type")),
    ] = []
    """Ready, UpToDate, Reconciling, Stalled, Conflict."""
    problems: Annotated[list[PoolProblem], Field(max_length=10)] = []
    """The first ten things that a person may want to act on."""
    nodes: NodeCounts = NodeCounts()
    """Nodes by state."""
    vfs: VfCounts = VfCounts()
    """VFs over all nodes."""


class SriovNetworkPool(ApiModel):
    """A set of physical NICs over the cluster's nodes whose virtual functions (VFs) are prepared in one way."""

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
        """The extended resource of the pool, with the default filled in."""
        return self.spec.resource_name or f"vmnic.dev/{self.metadata.name}"
