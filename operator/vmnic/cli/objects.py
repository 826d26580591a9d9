"""Parsed objects from which a plan is made. Other modules read them from files or the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from ..api.common import GROUP
from ..api.node_state import NodeNicState
from ..api.policy import VmNicPolicy
from ..api.pool import SriovNetworkPool
from ..checked.documents import BoundError
from ..checked.quantities import read_quantity
from ..kubevirt.configuration import KubeVirt, is_injector
from ..kubevirt.eviction import EvictionInput, read_eviction
from ..kubevirt.images import Disks, Image
from ..kubevirt.networks import read_network
from ..kubevirt.revisions import Revision, read_revision
from ..kubevirt.vm import Instancetype, Preference, Quota, VirtualMachine, decode_machine
from ..kubevirt.vmi import VirtualMachineInstance
from ..libvirt.domain import Domain, DomainError, read_tree, to_domain
from ..libvirt.gather import gather_domain
from ..libvirt.network import LibvirtNetwork, read_libvirt_network
from ..nodes.observed import observed_of
from ..nodes.pools.shares import count_vfs, pool_shares
from ..policy.capacity import Taint
from ..policy.facts import Network
from ..records.record import GROUP as RECORD_GROUP
from ..records.record import HostRecord, to_record
from .set_aside import DuplicateError, SetAside, reason_of

__all__ = ["UNMANAGED", "MalformedObjectError", "Node", "Objects", "shown_name"]


K = TypeVar("K")
V = TypeVar("V")
M = TypeVar("M", SriovNetworkPool, VmNicPolicy)

_KUBEVIRT: Final = "kubevirt.io"
_INSTANCETYPES: Final = "instancetype.kubevirt.io"
_GROUPS: Final = {
    "VirtualMachine": _KUBEVIRT,
    "VirtualMachineInstance": _KUBEVIRT,
    "VirtualMachinePool": "pool.kubevirt.io",
    "VirtualMachinePreference": _INSTANCETYPES,
    "VirtualMachineClusterPreference": _INSTANCETYPES,
    "VirtualMachineInstancetype": _INSTANCETYPES,
    "VirtualMachineClusterInstancetype": _INSTANCETYPES,
    "NetworkAttachmentDefinition": "k8s.cni.cncf.io",
    "ResourceQuota": "",
    "ControllerRevision": "apps",
    "DataSource": "cdi.kubevirt.io",
    "DataVolume": "cdi.kubevirt.io",
    "PersistentVolumeClaim": "",
    "KubeVirt": _KUBEVIRT,
    "MutatingWebhookConfiguration": "admissionregistration.k8s.io",
    "Namespace": "",
    "Node": "",
    "VmNicPolicy": GROUP,
    "SriovNetworkPool": GROUP,
    "NodeNicState": GROUP,
    "HostRecord": RECORD_GROUP,
    "VirtualMachineInstanceReplicaSet": _KUBEVIRT,
    "VirtualMachineClone": "clone.kubevirt.io",
    "KubevirtMachine": "infrastructure.cluster.x-k8s.io",
    "KubevirtMachineTemplate": "infrastructure.cluster.x-k8s.io",
    "VirtualMachineTemplateVersion": "harvesterhci.io",
}
"""API group of each kind that is read. Other operators have kinds of the same names."""
_DECIDED_LATER: Final = "the plan does not show the VirtualMachines that it creates: each is decided when it is created"
UNMANAGED: Final = {
    "VirtualMachineInstance": "no VirtualMachine owns it, so its NICs stay as they are: use a VirtualMachine",
    "VirtualMachineInstanceReplicaSet": "no VirtualMachine owns its instances, so their NICs stay as they are:"
    " use a VirtualMachinePool",
    "VirtualMachineClone": _DECIDED_LATER,
    "KubevirtMachine": _DECIDED_LATER,
    "KubevirtMachineTemplate": _DECIDED_LATER,
    "VirtualMachineTemplateVersion": _DECIDED_LATER,
}
"""Kinds whose VMs the plan does not show, and why."""
_SERVER_FIELDS: Final = ("uid", "resourceVersion", "creationTimestamp")
"""Metadata that only the API server writes. In a file an unquoted one may look like a number, such as `0e-1`."""
_TEMPLATE: Final = "virtualMachineTemplate"


class MalformedObjectError(Exception):
    """An object cannot be read. The message names object and field.

    Args:
        kind: Its kind, as far as known.
        key: Its namespace and name, as far as known.
        message: Field and remedy.
    """

    def __init__(self, kind: str, key: tuple[str, str], message: str) -> None:
        self.kind, self.key, self.message = kind, key, message
        name = "/".join(filter(None, key))
        super().__init__(": ".join(filter(None, (f"{kind} {name}".strip(), message))))


class _NodeMeta(msgspec.Struct, frozen=True):
    name: str
    labels: dict[str, str] = {}


class _Labelled(msgspec.Struct, frozen=True):
    metadata: _NodeMeta


class _NodeSpec(msgspec.Struct, frozen=True):
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class _NodeStatus(msgspec.Struct, frozen=True):
    allocatable: dict[str, str | int | float] = {}


class Node(msgspec.Struct, frozen=True):
    """The fields of a Node that decisions read."""

    metadata: _NodeMeta
    spec: _NodeSpec = _NodeSpec()
    status: _NodeStatus = _NodeStatus()

    @property
    def devices(self) -> dict[str, int]:
        """Return its allocatable extended resources."""
        # Extended resources have a domain in their names. `cpu` and `memory` have none.
        return {name: read_quantity(count) or 0 for name, count in self.status.allocatable.items() if "/" in name}


@dataclass
class Objects:
    """Objects by kind and (namespace, name)."""

    of_server: bool = False
    """Whether the objects come from the API server. Then fields that this build does not know are ignored, not refused."""
    machines: dict[tuple[str, str], VirtualMachine] = field(default_factory=dict)
    vm_pools: dict[tuple[str, str], VirtualMachine] = field(default_factory=dict)
    """The VM that a VirtualMachinePool would create next."""
    unmanaged: dict[tuple[str, str, str], None] = field(default_factory=dict)
    """Kind, namespace and name of other owners of VMs, and of instances that no VM owns."""
    instances: dict[tuple[str, str], VirtualMachineInstance] = field(default_factory=dict)
    evictions: dict[tuple[str, str], EvictionInput] = field(default_factory=dict)
    """What decides about the eviction of the instances."""
    preferences: dict[tuple[str, str], Preference] = field(default_factory=dict)
    instancetypes: dict[tuple[str, str], Instancetype] = field(default_factory=dict)
    revisions: dict[tuple[str, str], Revision] = field(default_factory=dict)
    """ControllerRevisions that contain preferences or instancetypes."""
    networks: dict[tuple[str, str], Network] = field(default_factory=dict)
    quotas: dict[tuple[str, str], Quota] = field(default_factory=dict)
    kubevirts: dict[tuple[str, str], KubeVirt] = field(default_factory=dict)
    disks: dict[tuple[str, str], Disks] = field(default_factory=dict)
    """Disks by VM."""
    images: dict[tuple[str, str, str], Image] = field(default_factory=dict)
    """Images of disks by kind, namespace and name."""
    domains: dict[tuple[str, str], Domain] = field(default_factory=dict)
    """libvirt domains. Their namespace is empty."""
    directories: dict[str, str] = field(default_factory=dict)
    """Name of the directory of the file that a libvirt domain comes from, by domain."""
    libvirt_networks: dict[str, LibvirtNetwork] = field(default_factory=dict)
    """libvirt's networks by name."""
    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)
    """Labels by namespace."""
    nodes: dict[str, Node] = field(default_factory=dict)
    policies: dict[str, VmNicPolicy] = field(default_factory=dict)
    pools: dict[str, SriovNetworkPool] = field(default_factory=dict)
    node_states: dict[str, NodeNicState] = field(default_factory=dict)
    host_records: dict[str, HostRecord] = field(default_factory=dict)
    """Recorded hosts by node. Each stands for the NodeNicState of that node."""
    injector: bool = False
    """Whether the webhook of network-resources-injector is among the objects."""
    refused: dict[str, str] = field(default_factory=dict)
    """Kinds that the user may not read, each with a sentence that says so. Nothing is concluded from their absence."""
    skipped: int = 0
    """Number of objects of other kinds."""
    set_aside: list[SetAside] = field(default_factory=list)
    """Objects that cannot be read."""
    _generated: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """Number of objects by kind, namespace and `generateName`."""

    def segment(self, namespace: str, segment: str) -> Iterable[Network]:
        """Return the networks of a namespace that carry the label of a segment."""
        return [one for (where, _), one in self.networks.items() if where == namespace and one.segment == segment]

    def find_image(self, kind: str, namespace: str, name: str) -> Image | str:
        """Return an image of a disk, or why there is none."""
        found = self.images.get((kind, namespace, name))
        return found or self.unreadable(kind, namespace, name) or f"{kind} {namespace}/{name} is not given"

    def unreadable(self, kind: str, namespace: str, name: str = "") -> str:
        """Return why an object, or without a name any object of the namespace, cannot be read.

        Empty if it can be read, or is not among the objects.
        """
        if kind in self.refused:
            return self.refused[kind]
        return next(
            (
                f"{one.kind} {one.name} cannot be read: {one.message}"
                for one in self.set_aside
                if one.kind == kind and one.namespace == namespace and name in ("", one.name)
            ),
            "",
        )

    def add_xml(self, text: str, directory: str = "") -> None:
        """Add the XML of a libvirt domain or network.

        Args:
            text: The XML.
            directory: Name of the directory of its file, which may be that of a node.

        Raises:
            MalformedObjectError: it cannot be read, or the same domain or network was added before.
        """
        name = ""
        try:
            tree = read_tree(text)
            if tree.getroot().tag == "network":
                network = read_libvirt_network(tree.getroot())
                _put(self.libvirt_networks, network.name, network)
                return
            domain = to_domain(text, tree)
            name = domain.name
            gather_domain(domain)  # Malformed parts are reported here, where the file is known.
            _put(self.domains, ("", name), domain)
            self.directories[name] = directory
        except (DomainError, DuplicateError) as error:
            raise MalformedObjectError("", ("", ""), str(error)) from error
        except Exception as error:
            raise MalformedObjectError("domain", ("", name), reason_of(error)) from error

    def takes(self, api_version: str, kind: str) -> bool:
        """Return whether objects of a kind are used. A List may hold some."""
        group, _, _ = api_version.rpartition("/")
        # Whether an object without an API version is KubeVirt's is unknown, so it is not skipped.
        return kind.endswith("List") or (kind in _GROUPS and (not api_version or group == _GROUPS[kind]))

    def add(self, raw: Any) -> None:
        """Add one object.

        Raises:
            MalformedObjectError: it cannot be read, or the same object was added before.
        """
        if not isinstance(raw, dict):
            raise MalformedObjectError("", ("", ""), "not a Kubernetes object")
        kind = raw["kind"] if isinstance(raw.get("kind"), str) else ""
        if kind.endswith("List") and isinstance(raw.get("items"), list):
            # `kubectl get -o yaml` prints a List.
            for item in raw["items"]:
                self.add(item)
            return
        version = raw["apiVersion"] if isinstance(raw.get("apiVersion"), str) else ""
        take = self._takers().get(kind) if self.takes(version, kind) else None
        if take is None:
            self.skipped += 1
            return
        raw = raw if self.of_server else _normalized(raw)
        meta = raw.get("metadata")
        named = meta if isinstance(meta, dict) else {}
        key = (_text(named, "namespace"), _text(named, "name"))
        for field_name in ("name", "namespace", "generateName"):
            if not isinstance(named.get(field_name, ""), str):
                raise MalformedObjectError(kind, key, f"metadata.{field_name} is not text: quote it")
        prefix = _text(named, "generateName")
        if not key[1] and not prefix:
            raise MalformedObjectError(kind, ("", ""), "metadata.name is missing")
        if not key[1]:
            raw = raw | {"metadata": named | {"name": self._generate(kind, key[0], prefix)}}
            key = (key[0], f"{prefix}*")
        try:
            take(raw)
        except Exception as error:
            # Any fault of one object, wherever it shows, affects only that object.
            raise MalformedObjectError(kind, key, reason_of(error)) from error

    def _generate(self, kind: str, namespace: str, prefix: str) -> str:
        """Return a name of its own for an object whose name the API server will generate.

        `shown_name` shortens it.
        """
        key = (kind, namespace, prefix)
        number = self._generated[key] = self._generated.get(key, 0) + 1
        return f"{prefix}*{number}"

    def overlaid(self, other: Objects) -> Objects:
        """Return these objects with those of another collection added. The other collection wins."""
        merged = Objects(skipped=other.skipped, injector=self.injector or other.injector)
        merged.set_aside = [*self.set_aside, *other.set_aside]
        for name, theirs in vars(other).items():
            # Each dictionary is one collection by key, so no kind is forgotten.
            if isinstance(theirs, dict):
                setattr(merged, name, {**getattr(self, name), **theirs})
        for key in self.machines.keys() & other.machines.keys():
            # Applying a manifest without an architecture keeps the one that KubeVirt has written.
            merged.machines[key] = _with_architecture(other.machines[key], self.machines[key].spec.template.spec.architecture)
        return merged

    def _takers(self) -> dict[str, Callable[[dict[str, Any]], None]]:
        return {
            "VirtualMachine": self._take_machine,
            "VirtualMachinePool": lambda raw: _put(self.vm_pools, _key(raw), _machine_of_pool(raw)),
            "VirtualMachineInstance": self._put_instance,
            "VirtualMachinePreference": lambda raw: _put(self.preferences, _key(raw), msgspec.convert(raw, Preference)),
            "VirtualMachineClusterPreference": lambda raw: _put(
                self.preferences, ("", raw["metadata"]["name"]), msgspec.convert(raw, Preference)
            ),
            "VirtualMachineInstancetype": lambda raw: _put(self.instancetypes, _key(raw), msgspec.convert(raw, Instancetype)),
            "VirtualMachineClusterInstancetype": lambda raw: _put(
                self.instancetypes, ("", raw["metadata"]["name"]), msgspec.convert(raw, Instancetype)
            ),
            "ControllerRevision": self._take_revision,
            "NetworkAttachmentDefinition": lambda raw: _put(self.networks, _key(raw), read_network(_placed(raw))),
            "ResourceQuota": lambda raw: _put(self.quotas, _key(raw), msgspec.convert(raw, Quota)),
            "DataSource": self._take_image,
            "DataVolume": self._take_image,
            "PersistentVolumeClaim": self._take_image,
            "KubeVirt": lambda raw: _put(self.kubevirts, _key(raw), msgspec.convert(raw, KubeVirt)),
            "MutatingWebhookConfiguration": self._look_for_injector,
            "Namespace": lambda raw: _put(self.namespaces, raw["metadata"]["name"], _labels(raw)),
            "Node": lambda raw: _put(self.nodes, raw["metadata"]["name"], msgspec.convert(raw, Node)),
            "VmNicPolicy": lambda raw: _put(self.policies, raw["metadata"]["name"], self._parsed(VmNicPolicy, raw)),
            "SriovNetworkPool": lambda raw: _put(self.pools, raw["metadata"]["name"], self._parsed(SriovNetworkPool, raw)),
            "NodeNicState": lambda raw: _put(self.node_states, raw["metadata"]["name"], _checked_state(raw)),
            "HostRecord": lambda raw: _put(self.host_records, raw["metadata"]["name"], to_record(raw)),
            **dict.fromkeys(UNMANAGED.keys() - {"VirtualMachineInstance"}, self._put_unmanaged),
        }

    def _put_instance(self, raw: dict[str, Any]) -> None:
        instance = msgspec.convert(raw, VirtualMachineInstance)
        self.evictions.setdefault(_key(raw), read_eviction(_placed(raw)))
        _put(self.instances, _key(raw), instance)
        owners = raw["metadata"].get("ownerReferences") or []
        if not any(isinstance(one, dict) and one.get("kind") == "VirtualMachine" for one in owners):
            self._put_unmanaged(raw)

    def _put_unmanaged(self, raw: dict[str, Any]) -> None:
        self.unmanaged[raw["kind"], *_key(raw)] = None

    def _parsed(self, kind: type[M], raw: dict[str, Any]) -> M:
        return kind.model_validate(raw, extra="ignore" if self.of_server else None)

    def _take_machine(self, raw: dict[str, Any]) -> None:
        # The VM is encoded again, because its applier is read from the unparsed managed fields.
        _put(self.machines, _key(raw), decode_machine(msgspec.json.encode(_placed(raw))))
        self.disks[_key(raw)] = msgspec.convert(raw, Disks)

    def _take_image(self, raw: dict[str, Any]) -> None:
        _put(self.images, (raw["kind"], *_key(raw)), msgspec.convert(raw, Image))

    def _take_revision(self, raw: dict[str, Any]) -> None:
        revision = read_revision(raw)
        if revision is None:
            self.skipped += 1
        else:
            _put(self.revisions, _key(raw), revision)

    def _look_for_injector(self, raw: dict[str, Any]) -> None:
        names = [raw["metadata"]["name"], *(str(one.get("name", "")) for one in raw.get("webhooks") or [])]
        self.injector = self.injector or is_injector(names)


def _with_architecture(machine: VirtualMachine, architecture: str) -> VirtualMachine:
    template = machine.spec.template
    spec = msgspec.structs.replace(template.spec, architecture=template.spec.architecture or architecture)
    template = msgspec.structs.replace(template, spec=spec)
    return msgspec.structs.replace(machine, spec=msgspec.structs.replace(machine.spec, template=template))


def _checked_state(raw: dict[str, Any]) -> NodeNicState:
    """Decode a node's state and derive all values that decisions and tables need.

    An error in any of them shows here.
    """
    state = msgspec.convert(raw, NodeNicState)
    for pool in {pf.pool for pf in state.spec.pfs} | {group.pool for pf in state.spec.pfs for group in pf.groups}:
        count_vfs(state, pool)
        list(pool_shares(state, pool))
    for pf in state.status.pfs:
        observed_of(pf)
    return state


def shown_name(name: str) -> str:
    """Return the name of an object, or `PREFIX*` if the API server will generate it."""
    prefix, star, number = name.rpartition("*")
    return f"{prefix}*" if star and number.isdecimal() else name


def _machine_of_pool(raw: dict[str, Any]) -> VirtualMachine:
    """Return a VM as a VirtualMachinePool would create it."""
    spec = raw.get("spec")
    template = spec.get(_TEMPLATE) if isinstance(spec, dict) else None
    if not isinstance(template, dict):
        raise BoundError(f"spec.{_TEMPLATE} is missing")
    namespace, name = _key(raw)
    meta = template.get("metadata") or {}
    made = template | {"metadata": meta | {"namespace": namespace, "name": f"{name}-*"}}
    try:
        return decode_machine(msgspec.json.encode(made))
    except msgspec.ValidationError as error:
        raise msgspec.ValidationError(str(error).replace("`$", f"`$.spec.{_TEMPLATE}")) from error


def _normalized(value: Any) -> Any:
    """Return a value of a file without null fields.

    A null is an absent field in Kubernetes, and tools write `creationTimestamp: null`. Metadata of the API server that is no
    text is left out too.
    """
    if isinstance(value, list):
        return [_normalized(one) for one in value]
    if not isinstance(value, dict):
        return value
    made = {key: _normalized(one) for key, one in value.items() if one is not None}
    if isinstance(made.get("metadata"), dict):
        made["metadata"] = {
            key: one for key, one in made["metadata"].items() if key not in _SERVER_FIELDS or isinstance(one, str)
        }
    return made


def _text(values: Mapping[str, Any], key: str) -> str:
    return values[key] if isinstance(values.get(key), str) else ""


def _key(raw: dict[str, Any]) -> tuple[str, str]:
    return (raw["metadata"].get("namespace") or "default", raw["metadata"]["name"])


def _placed(raw: dict[str, Any]) -> dict[str, Any]:
    """Set the namespace of an object without one to `default`, as kubectl does."""
    return raw | {"metadata": raw["metadata"] | {"namespace": _key(raw)[0]}}


def _labels(raw: dict[str, Any]) -> dict[str, str]:
    """Return the labels of an object.

    A namespace has its own name as a label, even if the API server has not added it yet.
    """
    labels = dict(msgspec.convert(raw, _Labelled).metadata.labels)
    if raw["kind"] == "Namespace":
        # Selectors of policies often name a namespace by this label.
        labels.setdefault("kubernetes.io/metadata.name", raw["metadata"]["name"])
    return labels


def _put(collection: dict[K, V], key: K, value: V) -> None:
    if key in collection:
        raise DuplicateError("the same object is given twice: remove one of them")
    collection[key] = value
