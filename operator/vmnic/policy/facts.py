"""What a decision about a VM reads: plain facts, the same for KubeVirt and libvirt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["ClusterFacts", "Datapath", "GuestOs", "Network", "NicFacts", "NicState", "VmFacts"]


class Datapath(StrEnum):
    """How a NIC's packets reach the wire."""

    EMULATED = "emulated"
    VHOST = "vhost"
    SRIOV = "sriov"
    OTHER = "other"
    """A binding plugin or a binding that vmnic does not decide about."""


class GuestOs(StrEnum):
    """What runs in the VM."""

    LINUX = "linux"
    WINDOWS = "windows"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What a NIC is connected to."""

    pod: bool = False
    """The pod network; otherwise a NetworkAttachmentDefinition."""
    namespace: str = ""
    name: str = ""
    resource_name: str = ""
    """The device resource that the NetworkAttachmentDefinition asks for, if any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NicState:
    """A datapath with its settings."""

    datapath: Datapath
    model: str | None = None
    """Absent where the datapath has none (sriov)."""
    queues: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class NicFacts:
    """One NIC as its VM's spec has it, preference applied."""

    name: str
    network: Network
    present: NicState
    index: int | None = None
    """Place in the spec's list; None for the NIC that KubeVirt adds when the lists are empty."""
    explicit_model: str | None = None
    """The model that the spec itself names."""
    spec_mac: str | None = None
    live_mac: str | None = None
    """The running NIC's MAC address."""
    live_model: str | None = None
    """The running NIC's model; None when the VM does not run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VmFacts:
    """One VM."""

    namespace: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    guest_os: GuestOs = GuestOs.UNKNOWN
    guest_os_source: str = ""
    """Where the guest OS was read, in words."""
    nics: tuple[NicFacts, ...] = ()
    running: bool = False
    """It has a VMI (or, offline, counts as running)."""
    is_new: bool = False
    """It is being created: no guest has seen its adapters yet."""
    virtio_queues: int = 1
    """Queues of each virtio NIC: 1, or the number of vCPUs where the VM asks for multiqueue."""
    multiqueue: bool | None = None
    """What the VM itself says; None: nothing."""
    vcpus: int = 1
    memory_bytes: int | None = None
    """Memory of the guest; None: not known."""
    applier: str = ""
    """The manager that applies the VM's NIC list; empty: none."""
    excluded: bool = False
    """A tenant has asked to be left alone."""
    pressure: str = ""
    """`High` or `Low` where a tenant asks for it."""
    problems: tuple[str, ...] = ()
    """What could not be read, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFacts:
    """What holds for all VMs."""

    vhost_net: bool | None = None
    """Whether any node has vhost_net; None (not known) excludes nothing."""
