"""Input of a decision about a VM, the same for KubeVirt and libvirt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ..api.common import LabelSelector
from .problems import VmProblem
from .reasons import Reason

__all__ = [
    "INJECTION_GATE",
    "Architecture",
    "Assignment",
    "ClusterFacts",
    "Datapath",
    "DeviceRequests",
    "GuestOs",
    "KubeVirtFacts",
    "Network",
    "NicFacts",
    "NicSetting",
    "NicState",
    "Platform",
    "PoolFacts",
    "Toleration",
    "VmFacts",
]

INJECTION_GATE = "ExternalNetResourceInjection"
"""KubeVirt's gate that leaves it to network-resources-injector to add the device of a network to a VM's pod."""


class Platform(StrEnum):
    """The virtualization platform of a VM."""

    KUBEVIRT = "KubeVirt"
    LIBVIRT = "Libvirt"


class Datapath(StrEnum):
    """How packets reach a NIC of a VM."""

    EMULATED = "emulated"
    VIRTIO = "virtio"
    """Backend in QEMU. On KubeVirt it is the same setting as vhost and is not used."""
    VHOST = "vhost"
    MACVTAP = "macvtap"
    SRIOV = "sriov"
    PASSTHROUGH = "passthrough"
    OTHER = "other"
    """A binding or device that vmnic does not handle."""

    @property
    def needs_device(self) -> bool:
        """Return whether a NIC with it takes a VF or a whole NIC of a node."""
        return self in (Datapath.SRIOV, Datapath.PASSTHROUGH)

    @property
    def is_bridged(self) -> bool:
        """Return whether packets pass a tap device and a bridge or masquerading of the host."""
        return self in (Datapath.EMULATED, Datapath.VIRTIO, Datapath.VHOST)


class GuestOs(StrEnum):
    """Operating system of the guest."""

    LINUX = "linux"
    WINDOWS = "windows"
    UNKNOWN = "unknown"


_X86 = ("amd64", "x86_64", "i686", "i586", "i486", "i386")
"""Names of x86 in Kubernetes and libvirt."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """CPU architecture of a guest."""

    name: str = ""
    """In the platform's words, such as `arm64` in KubeVirt and `aarch64` in libvirt; empty if unknown."""
    source: str = ""
    """Where it was read from."""
    unknown: str = ""
    """Why it is unknown and decides; empty if it is known, or if nothing says that it is not x86."""

    @property
    def is_other(self) -> bool:
        """Return whether it is known not to be x86."""
        return bool(self.name) and self.name not in _X86


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The network that a NIC is connected to."""

    pod: bool = False
    """Whether it is the pod network or the network that replaces it, as opposed to a secondary network."""
    namespace: str = ""
    name: str = ""
    known: bool = True
    """Whether the NetworkAttachmentDefinition exists."""
    cni_type: str = ""
    """Type of its CNI plugin, such as bridge, macvtap or sriov."""
    resource_name: str = ""
    """The device resource that it asks for; empty if none."""
    segment: str = ""
    """Networks with the same segment are the same layer-2 network."""
    mtu: int | None = None
    """Configured MTU in bytes."""
    ipam: str = ""
    """IP address management as canonical JSON; empty if none."""
    properties: Mapping[str, str] = field(default_factory=dict)
    """What its configuration protects or limits besides IPAM and MTU, by name, each as canonical JSON."""
    vouched: tuple[str, ...] = ()
    """Settings that a whole NIC would not have, and that the policy which names its pool vouches for, such as `vlan`."""
    accepts: tuple[str, ...] = ()
    """Reasons that the administrator of the network accepts."""
    accept_fault: str = ""
    """Which part of the annotation vmnic.dev/accept has no effect, and what to write; empty if all has."""
    unreadable: str = ""
    """Why its NetworkAttachmentDefinition cannot be read; empty if it can be. The other fields then hold what could be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NicState:
    """A datapath with its settings."""

    datapath: Datapath
    model: str | None = None
    """None for datapaths without a model (sriov, passthrough)."""
    queues: int = 1
    resource: str = ""
    """The device resource of sriov and passthrough."""

    @property
    def has_queues(self) -> bool:
        """Return whether the tap device of the NIC may have several queues.

        Only virtio drivers use more than one.
        """
        return self.datapath in (Datapath.VHOST, Datapath.MACVTAP) and (self.model or "").startswith("virtio")

    @property
    def uses_switch(self) -> bool:
        """Return whether KubeVirt's VM-wide multiqueue switch applies to the NIC, with any binding."""
        return not self.datapath.needs_device and (self.model or "").startswith("virtio")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """vmnic's decision about one NIC, as stored in the VM's annotation `vmnic.dev/assigned`."""

    datapath: Datapath
    resource: str = ""
    of: int | None = None
    """Total number of devices of the resource at the time of the assignment. If there are fewer now, capacity was lost and the
    VM
    keeps its device.
    """
    model: str | None = None
    network: str = ""
    """The chosen network as `namespace/name`; empty if it did not change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NicSetting:
    """A setting of a NIC besides its datapath, and the datapaths that do not carry it."""

    name: str
    lost_on: frozenset[Datapath] = frozenset()
    """Datapaths that must not be chosen, because the NIC would lose the setting."""
    told_on: frozenset[Datapath] = frozenset()
    """Datapaths with which the loss is reported and accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NicFacts:
    """One NIC of a VM's spec, with the VM's preference applied."""

    name: str
    network: Network
    present: NicState
    equivalents: tuple[Network, ...] = ()
    """Networks of the same segment, sorted by name, including the present one."""
    index: int | None = None
    """Position in the spec's list of interfaces or of host devices. None for the NIC that KubeVirt adds if both lists are
    empty."""
    binding: str = ""
    """Binding of the interface: bridge, masquerade, sriov or the name of a plugin."""
    explicit_model: str | None = None
    """The model that the spec itself names."""
    state: str = ""
    """`state` of the interface in the spec: `up`, `down`, `absent` or empty."""
    settings: Mapping[str, NicSetting] = field(default_factory=dict)
    """Settings that differ from their default, by name."""
    stays: tuple[Reason, str] | None = None
    """Why the NIC stays as it is even if a policy selects it; None if it may change."""
    has_fixed_slot: bool = False
    """Whether the spec names its PCI address."""
    spec_mac: str | None = None
    live_mac: str | None = None
    """MAC address of the running NIC."""
    live_queues: int | None = None
    """Queues of the running NIC, as KubeVirt reports them; None if it reports none."""
    live: NicState | None = None
    """State of the running NIC; None if the VM does not run."""

    @property
    def lacks_binding(self) -> bool:
        """Return whether it is an interface that names no binding. A whole NIC needs none."""
        return not self.binding and self.present.datapath is not Datapath.PASSTHROUGH


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRequests:
    """Devices that a VM asks for in other ways than by its NICs."""

    others: Mapping[str, int] = field(default_factory=dict)
    """Number of host devices and GPUs that are no NICs, by resource."""
    fixed: Mapping[str, int] = field(default_factory=dict)
    """Quantities that the VM's `resources` name, by resource. KubeVirt lets them overwrite its own count."""

    def count(self, nics: Mapping[str, int]) -> Counter[str]:
        """Return the devices that the VM's pod gets, by resource, if its NICs take these."""
        found = Counter(nics) + Counter(self.others)
        found.update({resource: count - found[resource] for resource, count in self.fixed.items()})
        return +found

    def exceeds(self, resource: str, nics: Mapping[str, int]) -> bool:
        """Return whether NICs and other devices need more of a resource than `resources` name."""
        needed = nics.get(resource, 0) + self.others.get(resource, 0)
        return resource in self.fixed and needed > self.fixed[resource]


@dataclass(frozen=True, slots=True)
class Toleration:
    """A toleration of a VM's pod."""

    key: str = ""
    """Empty for every key."""
    operator: str = ""
    """`Exists` or `Equal`, which an empty operator means too."""
    value: str = ""
    effect: str = ""
    """Empty for every effect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VmFacts:
    """One VM."""

    namespace: str
    name: str
    platform: Platform = Platform.KUBEVIRT
    created: str = ""
    """Creation time as RFC 3339 in UTC."""
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    guest_os: GuestOs = GuestOs.UNKNOWN
    guest_os_source: str = ""
    """Where the guest OS was read from."""
    architecture: Architecture = Architecture()
    nics: tuple[NicFacts, ...] = ()
    running: bool = False
    """Whether it has a VMI or, offline, counts as running."""
    assumed_running: bool = False
    """Whether it counts as running although no VMI is given, so nothing is known about its running NICs."""
    started: bool = False
    """Whether its VMI has a node and thus holds its devices there."""
    halted: bool = False
    """Whether its spec asks for a stopped VM."""
    node: str = ""
    """The node on which it runs."""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    node_terms: tuple[LabelSelector, ...] = ()
    """Alternatives of its required node affinity; empty if it allows any node."""
    tolerations: tuple[Toleration, ...] = ()
    is_new: bool = False
    """Whether it is being created. No guest has seen its NICs yet."""
    virtio_queues: int = 1
    """Queues of each virtio NIC: 1, or the number of vCPUs if the VM asks for multiqueue."""
    multiqueue: bool | None = None
    """`networkInterfaceMultiqueue` of the VM itself; None if not set."""
    vcpus: int = 1
    memory_bytes: int | None = None
    """Memory of the guest; None if unknown."""
    overcommit: str = ""
    """The setting that gives the guest more memory than its pod has; empty if there is none."""
    has_hotplug_volume: bool = False
    """Whether its spec has a hotpluggable volume."""
    has_vfio: bool = False
    """Whether its spec already has a device on vfio-pci."""
    requests: DeviceRequests = DeviceRequests()
    """Devices that its spec asks for besides its NICs."""
    live_requests: DeviceRequests = DeviceRequests()
    """Devices that its running instance asked for besides its NICs."""
    instancetype_host_devices: bool = False
    """Whether its instancetype lists host devices."""
    autoattach: bool | None = None
    """`autoattachPodInterface` of the VM or of its preference."""
    virtio_transitional: bool = False
    """Whether KubeVirt makes the VM's virtio devices transitional, for old guests."""
    eviction_strategy: str = ""
    """The VM's own strategy; empty if the cluster's applies."""
    quota: Mapping[str, int] = field(default_factory=dict)
    """What the namespace's quotas leave: bytes of `memory`, and devices by resource. Absent if there is no bound."""
    applier: str = ""
    """The field manager that applies the VM's NIC list; empty if there is none."""
    excluded: bool = False
    """Whether the tenant excludes the VM from vmnic."""
    never_restart: bool = False
    """Whether the tenant forbids restarts."""
    pressure: str = ""
    """`High` or `Low` if the tenant requests it."""
    assigned: Mapping[str, Assignment] = field(default_factory=dict)
    """vmnic's assignments by NIC name."""
    record: str | None = None
    """The raw annotation `vmnic.dev/assigned`; None if there is none."""
    record_fault: str = ""
    """Why the record cannot be read or written; empty if it can be."""
    annotated: bool = True
    """Whether the VM has any annotation."""
    version: str = ""
    """Its resourceVersion; empty while it is being created, and offline."""
    preference_unknown: str = ""
    """Why the VM's preference cannot be read; empty if it can be, or if there is none."""
    instancetype_unknown: str = ""
    """Why the VM's instancetype cannot be read; empty if it can be, or if there is none."""
    unknown: str = ""
    """Why an input for all of its NICs cannot be read or exceeds a bound; empty if there is no such fault."""
    quota_unknown: str = ""
    """Why a quota of the namespace cannot be read; empty if all can be."""
    problems: tuple[VmProblem, ...] = ()
    """What a person may want to correct."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFacts:
    """The properties of one pool that matter to VMs."""

    name: str
    resource_name: str
    physical: bool = False
    mtu: int | None = None
    """MTU that the pool sets, in bytes."""
    spoof_check: bool | None = None
    """Whether the pool sets spoof checking on its VFs; None if it leaves that as it is."""
    reserve: int = 0
    """VFs that new assignments leave free."""
    linux_only: tuple[str, ...] = ()
    """NIC models whose VFs have no Windows driver, if all nodes of the pool have such models."""
    linux_only_nodes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """NIC models whose VFs have no Windows driver, by node. A node's entry applies to the VMs that run there."""
    blocker: str = ""
    """Why none of its functions can be used; empty if they can be, as far as is known."""
    uplinks: tuple[str, ...] = ()
    """Link names of its PFs on the known nodes."""
    per_pf: tuple[str, ...] = ()
    """Its resources, if it has one for each PF."""

    @property
    def resource_names(self) -> tuple[str, ...]:
        """Return all its resources."""
        return self.per_pf or (self.resource_name,)


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeVirtFacts:
    """Settings of KubeVirt's own configuration."""

    is_given: bool = False
    """Whether there is a KubeVirt resource. Without one, the other fields are KubeVirt's defaults."""
    version: tuple[int, int] | None = None
    """The version that runs; None if the resource names none."""
    highest_version: tuple[int, int] | None = None
    """The higher one of the version that runs and the version that is being installed; None if the resource names none."""
    default_architecture: str = ""
    """Architecture of VMs that name none; empty if unknown."""
    gates: frozenset[str] = frozenset()
    """Enabled feature gates. Gates that are always on are not listed."""
    plugins: frozenset[str] = frozenset()
    """Registered network binding plugins."""
    default_binding: str = "bridge"
    """Binding of the NIC that KubeVirt adds to a VM by default."""
    permitted: Mapping[str, bool] = field(default_factory=dict)
    """Permitted host devices: resource name, and whether another program provides the resource."""
    memory_overcommit: bool = False
    cpu_request: str | int | float | None = None
    """CPU request of VMs that name neither request nor limit; None if KubeVirt's own default applies."""
    eviction_strategy: str = ""
    injector: bool | None = None
    """Whether network-resources-injector is installed; None if unknown."""
    unreadable: str = ""
    """Why the KubeVirt resource cannot be read; empty if it can be. The other fields are then KubeVirt's defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFacts:
    """Facts that apply to all VMs."""

    vhost_net: bool | None = None
    """Whether any node has vhost_net. None (unknown) excludes nothing."""
    pools: Mapping[str, PoolFacts] = field(default_factory=dict)
    """Pools by name."""
    resources: Mapping[str, PoolFacts] = field(default_factory=dict)
    """The same pools by each of their resources."""
    kubevirt: KubeVirtFacts = KubeVirtFacts()
    pod_network_mtu: int | None = None
    """MTU of the pod network in bytes; None if unknown."""
