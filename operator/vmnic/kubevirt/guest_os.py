"""Guest OS of a VM.

Sources are read in the order of their reliability, first the guest itself, last a hint in the spec.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..policy.facts import GuestOs
from .vm import Preference, VirtualMachine
from .vmi import VirtualMachineInstance

__all__ = ["OS_ANNOTATION", "read_guest_os"]

OS_ANNOTATION = "vm.kubevirt.io/os"
_OS_TYPE = "instancetype.kubevirt.io/os-type"
_TEMPLATE_LABEL = "os.template.kubevirt.io/"
_OLD_LABEL = "kubevirt.io/os"

_KNOWN = {"linux": GuestOs.LINUX, "windows": GuestOs.WINDOWS}
_LINUX_NAMES = (
    "linux", "rhel", "centos", "fedora", "ubuntu", "debian", "opensuse", "sles", "alpine", "cirros", "almalinux", "rocky",
    "ol", "amzn", "arch",
)  # fmt: skip
"""Prefixes of the names of Linux systems in os-release and osinfo."""


def read_guest_os(
    machine: VirtualMachine, instance: VirtualMachineInstance | None, preference: Preference | None
) -> tuple[GuestOs, str]:
    """Return the guest OS of a VM and where it was read from."""
    for name, source in _names(machine, instance, preference):
        found = _guest(name)
        # A name that vmnic does not know says nothing, so the next source is asked.
        if found is not GuestOs.UNKNOWN:
            return found, source
    if machine.spec.template.spec.domain.features is not None and machine.spec.template.spec.domain.features.hyperv is not None:
        # Only a hint, so it comes last: Linux runs with Hyper-V features too.
        return GuestOs.WINDOWS, "domain.features.hyperv"
    return GuestOs.UNKNOWN, ""


def _names(
    machine: VirtualMachine, instance: VirtualMachineInstance | None, preference: Preference | None
) -> list[tuple[str, str]]:
    """Return every name that a source contains, with the source, the most reliable first."""
    found = []
    if instance is not None:
        info = instance.status.guest_os_info
        found += [(info.id, "guest agent"), (info.name, "guest agent")]
    if preference is not None:
        found.append((preference.metadata.labels.get(_OS_TYPE, ""), "preference"))
        found.append((preference.spec.annotations.get(OS_ANNOTATION, ""), "preference"))
    template = machine.spec.template.metadata
    if template is not None:
        found.append((template.annotations.get(OS_ANNOTATION, ""), f"annotation {OS_ANNOTATION}"))
    if instance is not None:
        found.append((instance.metadata.annotations.get(OS_ANNOTATION, ""), f"annotation {OS_ANNOTATION}"))
    labels: Mapping[str, str] = machine.metadata.labels
    found += [
        (key.removeprefix(_TEMPLATE_LABEL), f"label {key}")
        for key, value in sorted(labels.items())
        if key.startswith(_TEMPLATE_LABEL) and value == "true"
    ]
    found.append((labels.get(_OLD_LABEL, ""), f"label {_OLD_LABEL}"))
    return found


def _guest(name: str) -> GuestOs:
    """Parse a system's name, such as `mswindows`, `windows10`, `win2k19`, `rhel9` or `linux`."""
    word = name.lower()
    if word in _KNOWN:
        return _KNOWN[word]
    if word.startswith(("win", "mswin", "microsoft windows")):
        return GuestOs.WINDOWS
    return GuestOs.LINUX if word.startswith(_LINUX_NAMES) else GuestOs.UNKNOWN
