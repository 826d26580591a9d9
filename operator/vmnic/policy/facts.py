"""What a decision about a VM reads: plain facts, the same for KubeVirt and libvirt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ..api.common import LabelSelector

__all__ = [
    "Assignment",
    "ClusterFacts",
    "Datapath",
    "GuestOs",
    "KubeVirtFacts",
    "Network",
    "NicFacts",
    "NicState",
    "Platform",
    "PoolFacts",
    "VmFacts",
]


class Platform(StrEnum):
    """Where a VM runs."""

    KUBEVIRT = "KubeVirt"
    LIBVIRT = "Libvirt"


class Datapath(StrEnum):
    """How a NIC's packets reach the wire."""

    EMULATED = "emulated"
    VIRTIO = "virtio"
    """Backend in QEMU; on KubeVirt it cannot be told from vhost and is not used."""
    VHOST = "vhost"
    MACVTAP = "macvtap"
    SRIOV = "sriov"
    PASSTHROUGH = "passthrough"
    OTHER = "other"
    """A binding or a device that vmnic does not decide about."""


class GuestOs(StrEnum):
    """What runs in the VM."""

    LINUX = "linux"
    WINDOWS = "windows"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What a NIC is connected to."""

    pod: bool = False
    """The pod network, or the network that stands in its place; otherwise a secondary network."""
    namespace: str = ""
    name: str = ""
    known: bool = True
    """Whether the NetworkAttachmentDefinition is there."""
    cni_type: str = ""
    """The type of its CNI plugin: bridge, macvtap, sriov …"""
    resource_name: str = ""
    """The device resource that it asks for, if any."""
    segment: str = ""
    """Networks of one segment are the same layer-2 network."""
    mtu: int | None = None
    """What its configuration says, in bytes."""
    ipam: str = ""
    """Its IP address management, as canonical JSON; empty: none."""
    accepts: tuple[str, ...] = ()
    """Reasons that its administrator accepts."""
    unreadable: str = ""
    """Why its NetworkAttachmentDefinition cannot be read; empty: it can. The other fields then hold what could be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NicState:
    """A datapath with its settings."""

    datapath: Datapath
    model: str | None = None
    """Absent where the datapath has none (sriov, passthrough)."""
    queues: int = 1
    resource: str = ""
    """The device resource of sriov and passthrough."""

    @property
    def has_queues(self) -> bool:
        """Whether its tap device may have several queues: only virtio's driver uses them."""
        return self.datapath in (Datapath.VHOST, Datapath.MACVTAP) and (self.model or "").startswith("virtio")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What vmnic has made of a NIC, as the VM's annotation `vmnic.dev/assigned` keeps it."""

    datapath: Datapath
    resource: str = ""
    of: int | None = None
    """How many devices of the resource there were; with fewer, capacity was lost, and that takes nothing from anybody."""
    model: str | None = None
    network: str = ""
    """The network that was chosen, `namespace/name`; empty: as before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NicFacts:
    """One NIC as its VM's spec has it, preference applied."""

    name: str
    network: Network
    present: NicState
    equivalents: tuple[Network, ...] = ()
    """Networks of the same segment, the first by name first; the present one is among them."""
    index: int | None = None
    """Place in the spec's list of interfaces, or of host devices; None for the NIC that KubeVirt adds when both lists are
    empty."""
    binding: str = ""
    """How the interface is bound: bridge, masquerade, sriov, a plugin's name."""
    explicit_model: str | None = None
    """The model that the spec itself names."""
    state: str = ""
    """`up`, `down`, `absent` or nothing, as the spec says."""
    spec_mac: str | None = None
    live_mac: str | None = None
    """The running NIC's MAC address."""
    live: NicState | None = None
    """What the running NIC is; None when the VM does not run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VmFacts:
    """One VM."""

    namespace: str
    name: str
    platform: Platform = Platform.KUBEVIRT
    created: str = ""
    """When, as RFC 3339 in UTC."""
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    guest_os: GuestOs = GuestOs.UNKNOWN
    guest_os_source: str = ""
    """Where the guest OS was read, in words."""
    nics: tuple[NicFacts, ...] = ()
    running: bool = False
    """It has a VMI (or, offline, counts as running)."""
    started: bool = False
    """Its VMI has a node: what it holds there is its own."""
    halted: bool = False
    """Its spec wants it stopped."""
    node: str = ""
    """Where it runs."""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    node_terms: tuple[LabelSelector, ...] = ()
    """Alternatives of its required node affinity; empty: any node."""
    is_new: bool = False
    """It is being created: no guest has seen its adapters yet."""
    virtio_queues: int = 1
    """Queues of each virtio NIC: 1, or the number of vCPUs where the VM asks for multiqueue."""
    multiqueue: bool | None = None
    """What the VM itself says; None: nothing."""
    vcpus: int = 1
    memory_bytes: int | None = None
    """Memory of the guest; None: not known."""
    overcommit: str = ""
    """What promises the guest more memory than its pod has, in words; empty: nothing."""
    has_vfio: bool = False
    """Its spec has a device on vfio-pci already."""
    instancetype_host_devices: bool = False
    """Its instancetype lists host devices."""
    autoattach: bool | None = None
    """`autoattachPodInterface`, the VM's own or its preference's."""
    eviction_strategy: str = ""
    """Its own; empty: the cluster's."""
    quota: Mapping[str, int] = field(default_factory=dict)
    """What the namespace's quotas leave: bytes of `memory`, and devices by resource; absent: no bound."""
    applier: str = ""
    """The manager that applies the VM's NIC list; empty: none."""
    excluded: bool = False
    """A tenant has asked to be left alone."""
    never_restart: bool = False
    """A tenant has asked not to be restarted."""
    pressure: str = ""
    """`High` or `Low` where a tenant asks for it."""
    assigned: Mapping[str, Assignment] = field(default_factory=dict)
    """What vmnic has made of its NICs, by their names."""
    record: str | None = None
    """The annotation `vmnic.dev/assigned` as it is; None: there is none."""
    record_fault: str = ""
    """Why the record cannot be read, or could not be written, in words; empty: it can."""
    annotated: bool = True
    """Whether the VM has any annotation."""
    version: str = ""
    """Its resourceVersion; empty while it is being created, and offline."""
    preference_unknown: str = ""
    """Why the VM's preference or instancetype cannot be read; empty: it can, or there is none."""
    unknown: str = ""
    """Why something that decides about all of its NICs cannot be read, or exceeds a bound; empty: everything can."""
    quota_unknown: str = ""
    """Why a quota of the namespace cannot be read; empty: all can."""
    problems: tuple[str, ...] = ()
    """What could not be read, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFacts:
    """One pool, as far as VMs are concerned."""

    name: str
    resource_name: str
    physical: bool = False
    mtu: int | None = None
    """What the pool sets, in bytes."""
    reserve: int = 0
    """VFs that new assignments leave free."""
    linux_only: tuple[str, ...] = ()
    """NIC models whose VFs have no driver for Windows, where that holds for all nodes of the pool."""
    linux_only_nodes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Such models by node: a node's word counts for its own VMs."""
    blocker: str = ""
    """Why none of its functions can be used, in words; empty: they can, as far as is known."""
    uplinks: tuple[str, ...] = ()
    """Names of its physical functions' links on the nodes that are known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeVirtFacts:
    """What KubeVirt's own configuration allows."""

    version: tuple[int, int] = (1, 8)
    gates: frozenset[str] = frozenset()
    """Feature gates that are on by name; those that are always on are not listed."""
    plugins: frozenset[str] = frozenset()
    """Registered network binding plugins."""
    default_binding: str = "bridge"
    """How KubeVirt binds the NIC that it adds to a VM by itself."""
    permitted: Mapping[str, bool] = field(default_factory=dict)
    """Permitted host devices: resource name, and whether another program provides it."""
    memory_overcommit: bool = False
    eviction_strategy: str = ""
    injector: bool | None = None
    """Whether network-resources-injector is there; None: not known."""
    unreadable: str = ""
    """Why the KubeVirt resource cannot be read; empty: it can. The other fields are then KubeVirt's defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFacts:
    """What holds for all VMs."""

    vhost_net: bool | None = None
    """Whether any node has vhost_net; None (not known) excludes nothing."""
    pools: Mapping[str, PoolFacts] = field(default_factory=dict)
    """By name."""
    resources: Mapping[str, PoolFacts] = field(default_factory=dict)
    """The same by resource name."""
    kubevirt: KubeVirtFacts = KubeVirtFacts()
