"""Names of the pods in which VMs run.

An agent names the holders of devices in text of its own, which is compared with these names.
"""

from __future__ import annotations

from ..api.node_state import Held
from ..checked.names import is_label_name, is_subdomain_name

__all__ = ["base_of_pod", "launcher_base", "pod_of"]

_POD = "pod "
_GENERATED, _RANDOM = 58, 5
"""Length of a generated name's prefix, and of the suffix that the API server adds (apiserver/pkg/storage/names)."""


def pod_of(held: Held) -> tuple[str, str] | None:
    """Return namespace and name of the pod that holds a device, or None if the text names no pod."""
    if not held.by.startswith(_POD):
        return None
    namespace, _, name = held.by.removeprefix(_POD).partition("/")
    return (namespace, name) if is_label_name(namespace) and is_subdomain_name(name) else None


def launcher_base(instance: str) -> str:
    """Return the prefix of the name of an instance's launcher.

    A long one is cut before the random suffix.
    """
    return f"virt-launcher-{instance}-"[:_GENERATED]


def base_of_pod(pod: str) -> str:
    """Return a pod's generated name without its random suffix."""
    return pod[:-_RANDOM]
