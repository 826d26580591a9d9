"""Schema of a Path as `kubectl vmnic path -o json` prints it.

`docs/reference/path.schema.json` is generated from it.
"""

from __future__ import annotations

from typing import Literal, NotRequired

# pydantic generates the JSON Schema, and before Python 3.12 it accepts only this TypedDict.
from typing_extensions import TypedDict

__all__ = ["LayerEntry", "NicPaths", "PathDocument", "PathEntry", "PathVm", "StateName"]

StateName = Literal["Running", "Spec", "Wanted"]


class LayerEntry(TypedDict):
    """One layer between the guest's driver and the physical port."""

    kind: Literal["Driver", "Emulation", "Backend", "Vhost", "Tap", "Binding", "Network", "HostDriver", "Function", "Port"]
    where: Literal["Guest", "Qemu", "HostKernel", "Nic"]
    state: Literal["Used", "LeftOut", "Unknown"]
    name: str
    text: str


class PathEntry(TypedDict):
    """The path of a NIC in one or more of its states.

    Running is the NIC of the running VM, Spec the one of its next start, Wanted the one that a policy asks for.
    """

    states: list[StateName]
    datapath: str
    model: NotRequired[str]
    queues: int
    layers: list[LayerEntry]


class NicPaths(TypedDict):
    """One NIC."""

    name: str
    paths: list[PathEntry]


class PathVm(TypedDict):
    """The VM whose NICs are shown."""

    kind: Literal["VirtualMachine", "Domain"]
    namespace: str
    name: str
    guestOS: Literal["linux", "windows", "unknown"]
    node: str


class PathDocument(TypedDict):
    """The way of a packet from each NIC of a VM."""

    apiVersion: Literal["cli.vmnic.dev/v1alpha1"]
    kind: Literal["Path"]
    vm: PathVm
    nics: list[NicPaths]
