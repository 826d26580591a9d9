"""One VM and all that belongs to it, as whoever knows it hands it over."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from ..policy.facts import Network
from .vm import Instancetype, Preference, VirtualMachine
from .vmi import VirtualMachineInstance

__all__ = ["MachineInput"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineInput:
    """One VM and what belongs to it; None for what does not exist."""

    machine: VirtualMachine
    instance: VirtualMachineInstance | None = None
    preference: Preference | None = None
    instancetype: Instancetype | None = None
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    find_network: Callable[[str, str], Network | None] = lambda namespace, name: None  # noqa: ARG005 - finds none
    """Looks a NetworkAttachmentDefinition up by namespace and name."""
    find_segment: Callable[[str, str], Iterable[Network]] = lambda namespace, segment: ()  # noqa: ARG005 - finds none
    """Gives the networks of a namespace that carry the label of a segment."""
    physical_resources: Collection[str] = ()
    """Resources of pools of whole NICs: a host device of one is a NIC."""
    default_binding: str = "bridge"
    """How KubeVirt binds the NIC that it adds by itself: `bridge` or `masquerade`, as its resource says."""
    namespace_unknown: str = ""
    """Why the namespace's labels cannot be read; empty: they can."""
    preference_unknown: str = ""
    """Why the preference or the instancetype cannot be read; empty: it can, or there is none."""
    quota: Mapping[str, int] = field(default_factory=dict)
    """What the namespace's quotas leave."""
    quota_unknown: str = ""
    """Why a quota of the namespace cannot be read; empty: all can."""
    is_new: bool = False
    counts_as_running: bool = False
    """Offline only: no VMI is given, and the spec says that it runs."""

    @property
    def autoattach(self) -> bool | None:
        """Whether KubeVirt may add a NIC by itself: what the VM says, else its preference."""
        own = self.machine.spec.template.spec.domain.devices.autoattach_pod_interface
        if own is not None or self.preference is None:
            return own
        return self.preference.spec.devices.preferred_autoattach_pod_interface
