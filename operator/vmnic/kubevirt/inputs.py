"""One VM and the objects that belong to it, as the caller passes them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from ..checked.printable import cut
from ..policy.facts import Architecture, ClusterFacts, Network
from .vm import Instancetype, Preference, Reference, VirtualMachine
from .vmi import VirtualMachineInstance

__all__ = ["MachineInput", "default_architecture"]

_SHOWN_BYTES = 40
_FALLBACK = Architecture("amd64", "KubeVirt's default")


def default_architecture(cluster: ClusterFacts) -> Architecture:
    """Return the architecture that KubeVirt gives VMs which name none."""
    kubevirt = cluster.kubevirt
    source = "status.defaultArchitecture of the KubeVirt resource"
    if kubevirt.default_architecture:
        return Architecture(cut(kubevirt.default_architecture, _SHOWN_BYTES), source)
    if kubevirt.unreadable:
        text = f"the guest's architecture is unknown, because the KubeVirt resource cannot be read: {kubevirt.unreadable}"
        return Architecture(unknown=text)
    return _FALLBACK


def _not_inferred(word: str, reference: Reference) -> str:
    return f"{word} is inferred from volume {reference.infer_from_volume}, which KubeVirt has not done yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineInput:
    """One VM and the objects that belong to it. None stands for an object that does not exist."""

    machine: VirtualMachine
    instance: VirtualMachineInstance | None = None
    preference: Preference | None = None
    instancetype: Instancetype | None = None
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    find_network: Callable[[str, str], Network | None] = lambda namespace, name: None  # noqa: ARG005 - finds none
    """Finds a NetworkAttachmentDefinition by namespace and name."""
    find_segment: Callable[[str, str], Iterable[Network]] = lambda namespace, segment: ()  # noqa: ARG005 - finds none
    """Returns the networks of a namespace that carry the label of a segment."""
    physical_resources: Collection[str] = ()
    """Resources of pools of whole NICs. A host device with such a resource is a NIC."""
    resources: Collection[str] = ()
    """Resources of all pools."""
    default_binding: str = "bridge"
    """Binding of the NIC that KubeVirt adds by default: `bridge` or `masquerade`, from the KubeVirt resource."""
    default_cpu: str | int | float | None = None
    """CPU request that KubeVirt gives VMs which name neither request nor limit; None if its own default applies."""
    pod_network_mtu: int | None = None
    """MTU of the pod network in bytes; None if unknown."""
    default_architecture: Architecture = _FALLBACK
    """Architecture of the guest if the VM names none."""
    namespace_unknown: str = ""
    """Why the namespace's labels cannot be read; empty if they can be."""
    preference_unknown: str = ""
    """Why the preference cannot be read; empty if it can be, or if there is none."""
    instancetype_unknown: str = ""
    """Why the instancetype cannot be read; empty if it can be, or if there is none."""
    quota: Mapping[str, int] = field(default_factory=dict)
    """What the namespace's quotas leave."""
    quota_unknown: str = ""
    """Why a quota of the namespace cannot be read; empty if all can be."""
    is_new: bool = False
    counts_as_running: bool = False
    """Offline only: no VMI is available, and the spec asks for a running VM."""

    @property
    def unknown_references(self) -> tuple[str, str]:
        """Return why preference and instancetype are unknown. Empty if they are not."""
        spec = self.machine.spec
        preferred, typed = self.preference_unknown, self.instancetype_unknown
        if not preferred and spec.preference is not None and spec.preference.is_inferred:
            preferred = (
                f"preference is inferred from volume {spec.preference.infer_from_volume}, which KubeVirt has not done yet"
            )
        if not typed and spec.instancetype is not None and spec.instancetype.is_inferred:
            typed = (
                f"instancetype is inferred from volume {spec.instancetype.infer_from_volume}, which KubeVirt has not done yet"
            )
        if not preferred and self.preference is None and spec.preference is not None and spec.preference.name:
            preferred = f"preference {spec.preference.name} does not exist, so its NIC model and guest OS are unknown"
        if not typed and self.instancetype is None and spec.instancetype is not None and spec.instancetype.name:
            typed = f"instancetype {spec.instancetype.name} does not exist, so its vCPUs are unknown"
        return preferred, typed

    @property
    def autoattach(self) -> bool | None:
        """Return whether KubeVirt may add a default NIC, from the VM or else from its preference."""
        own = self.machine.spec.template.spec.domain.devices.autoattach_pod_interface
        if own is not None or self.preference is None:
            return own
        return self.preference.spec.devices.preferred_autoattach_pod_interface

    @property
    def virtio_transitional(self) -> bool:
        """Return whether KubeVirt makes virtio devices transitional, by the VM or else by its preference."""
        own = self.machine.spec.template.spec.domain.devices.use_virtio_transitional
        if own is not None or self.preference is None:
            return bool(own)
        return bool(self.preference.spec.devices.preferred_use_virtio_transitional)
