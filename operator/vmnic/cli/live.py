"""Reader of objects from the cluster of the user's kubeconfig."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ..api.common import GROUP
from ..checked.documents import read_json
from ..kube.client import ApiClient
from ..kube.connection import kubeconfig_connection
from ..kube.errors import ApiError, NotFoundError
from ..kube.resources import (
    CLUSTER_INSTANCETYPES,
    CLUSTER_PREFERENCES,
    CONFIG_MAPS,
    CONTROLLER_REVISIONS,
    DAEMON_SETS,
    DEFINITIONS,
    INSTANCETYPES,
    KUBEVIRTS,
    MUTATING_WEBHOOKS,
    NAMESPACES,
    NETWORKS,
    NODE_NIC_STATES,
    NODES,
    POLICIES,
    POOLS,
    PREFERENCES,
    RESOURCE_QUOTAS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINE_POOLS,
    VIRTUAL_MACHINES,
    Resource,
)
from ..kubevirt.revisions import OBJECT_KIND
from .objects import MalformedObjectError, Objects
from .set_aside import SetAside, set_aside, try_object
from .setup import Setup

__all__ = [
    "NODE_KINDS",
    "VM_KINDS",
    "annotate_state",
    "decode_object",
    "load_live",
    "patch_machine",
    "read_cluster",
    "read_published",
    "read_setup",
    "refusal",
]

NODE_KINDS = (POOLS, NODE_NIC_STATES, NODES)
_FORBIDDEN = 403
_MOST_BYTES = 4 * 2**20
"""Maximum size of one object. etcd stores 1.5 MB."""
_MOST_LEVELS = 100
# No blank is expected after the colon, because the API server writes none.
_NAMED = re.compile(rb'"(name|namespace)":"([a-z0-9.-]{1,253})"')
_NAMESPACE = "vmnic-system"
_PUBLISHED = "vmnic-set-aside"
"""ConfigMap in which the leading controller lists objects that it has set aside."""
_PUBLISHED_KEY = "objects.json"
_MOST_PUBLISHED = 100
VM_KINDS = (
    *(POLICIES, VIRTUAL_MACHINES, VIRTUAL_MACHINE_INSTANCES, VIRTUAL_MACHINE_POOLS, NAMESPACES, NETWORKS),
    *(PREFERENCES, CLUSTER_PREFERENCES, INSTANCETYPES, CLUSTER_INSTANCETYPES, CONTROLLER_REVISIONS),
    *(KUBEVIRTS, RESOURCE_QUOTAS, MUTATING_WEBHOOKS),
)
_SELECTORS = {CONTROLLER_REVISIONS: {"labelSelector": OBJECT_KIND}}
"""Which objects of a kind are read. Most ControllerRevisions belong to DaemonSets and StatefulSets."""
_ESSENTIAL = (POOLS, NODE_NIC_STATES, POLICIES, VIRTUAL_MACHINES, VIRTUAL_MACHINE_INSTANCES)
"""Kinds without which a command has nothing to say. Tenants often may not read the others, which then count as unknown."""
_OPTIONAL = (VIRTUAL_MACHINE_POOLS,)
"""Kinds that a cluster with all operators may lack. Old versions of KubeVirt have no pools."""


async def patch_machine(kubeconfig: str | None, namespace: str, name: str, patch: list[dict[str, Any]]) -> None:
    """Patch a VirtualMachine as the user.

    Raises:
        ConnectionFileError: there is no usable kubeconfig.
        ApiError: the API server refuses or does not answer.
    """
    async with ApiClient(kubeconfig_connection(kubeconfig), field_manager="kubectl-vmnic") as api:
        await api.patch_json(VIRTUAL_MACHINES, name, patch, namespace)


async def annotate_state(kubeconfig: str | None, node: str, name: str, value: str) -> None:
    """Write an annotation of a NodeNicState as the user.

    Raises:
        ConnectionFileError: there is no usable kubeconfig.
        ApiError: the API server refuses or does not answer.
    """
    async with ApiClient(kubeconfig_connection(kubeconfig), field_manager="kubectl-vmnic") as api:
        await api.patch_merge(NODE_NIC_STATES, node, {"metadata": {"annotations": {name: value}}})


async def read_cluster(kubeconfig: str | None, kinds: tuple[Resource, ...]) -> tuple[Objects, list[str]]:
    """Read all objects of some kinds.

    An object that cannot be read is set aside. A kind that the user may not read is recorded in the result.

    Returns:
        The objects, and descriptions of kinds that the cluster does not have.

    Raises:
        ConnectionFileError: there is no usable kubeconfig.
        ApiError: the API server refuses an essential kind, or does not answer.
    """
    # The server may be newer than this program, so fields that it knows in addition are no fault.
    objects, problems = Objects(of_server=True), []
    async with ApiClient(kubeconfig_connection(kubeconfig), field_manager="kubectl-vmnic") as api:
        for kind in kinds:
            try:
                async for page, _ in api.list_pages(kind, selectors=_SELECTORS.get(kind)):
                    for raw in page:
                        _take_raw(objects, kind.kind, raw)
            except NotFoundError:
                # A cluster without KubeVirt or Multus lacks these kinds, and the rest can still be planned.
                if kind not in _OPTIONAL:
                    problems.append(f"the cluster has no {kind.plural}.{kind.group}: is its operator installed?")
            except ApiError as error:
                if error.status != _FORBIDDEN or kind in _ESSENTIAL:
                    raise
                objects.refused[kind.kind] = refusal(kind)
    return objects, problems


def refusal(kind: Resource) -> str:
    """Describe that the user may not read a kind."""
    return f"you may not read {kind.plural}, so what depends on them is not known"


def load_live(objects: Objects, one: dict[str, Any]) -> None:
    """Add one object. One that cannot be used is set aside."""
    try:
        objects.add(one)
    except MalformedObjectError as error:
        objects.set_aside.append(set_aside(error.kind, error.key, error.message))


def _take_raw(objects: Objects, kind: str, raw: msgspec.Raw) -> None:
    try:
        one = decode_object(kind, raw)
    except MalformedObjectError as error:
        objects.set_aside.append(set_aside(error.kind, error.key, error.message))
    else:
        load_live(objects, one)


def decode_object(kind: str, raw: msgspec.Raw | bytes) -> dict[str, Any]:
    """Parse an object from the API server, within bounds.

    Raises:
        MalformedObjectError: it exceeds a bound, or has no name.
    """
    data = bytes(raw)
    try:
        one: dict[str, Any] = read_json(data, dict[str, Any], max_bytes=_MOST_BYTES, max_depth=_MOST_LEVELS)
    except Exception as error:
        # An object of a tenant must not end the command of an administrator, whichever exception it raises.
        raise MalformedObjectError(kind, _key_in(data), f"it cannot be read: {error}") from error
    if not isinstance(one.get("metadata"), dict) or not isinstance(one["metadata"].get("name"), str):
        raise MalformedObjectError(kind, ("", ""), "metadata.name is missing")
    # The API server omits the kind of built-in objects in a list.
    return one | {"kind": kind}


def _key_in(data: bytes) -> tuple[str, str]:
    """Find the namespace and name of an object that is not parsed.

    The API server writes metadata near the beginning.
    """
    start = max(data.find(b'"metadata":'), 0)
    found: dict[str, str] = {}
    for word, value in _NAMED.findall(data, start, start + 2**16):
        # The first match is the object's own: owner references follow its name, and quotes in annotations are escaped.
        found.setdefault(word.decode(), value.decode())
    return found.get("namespace", ""), found.get("name", "")


class _Published(msgspec.Struct, frozen=True):
    kind: str
    name: str
    reason: str
    message: str
    namespace: str = ""


async def read_published(kubeconfig: str | None) -> tuple[list[SetAside], str]:
    """Read what the leading controller has set aside.

    Returns:
        The objects, and why the list cannot be read; empty if it can be.

    Raises:
        ConnectionFileError: there is no usable kubeconfig.
        UnreachableError: the API server does not answer.
    """
    async with ApiClient(kubeconfig_connection(kubeconfig), field_manager="kubectl-vmnic") as api:
        try:
            found = await api.read(CONFIG_MAPS, _PUBLISHED, _NAMESPACE)
        except ApiError as error:
            if error.status != _FORBIDDEN:
                raise
            # A user without rights in vmnic's namespace still gets the rest of the status.
            return [], f"you may not read ConfigMap {_NAMESPACE}/{_PUBLISHED}, so what the controller set aside is not known"
    return ([], "") if found is None else published_in(found)


def published_in(config_map: Mapping[str, Any]) -> tuple[list[SetAside], str]:
    """Read the list of set-aside objects in the controller's ConfigMap.

    Returns:
        The objects, and why the list cannot be read; empty if it can be.
    """
    try:
        text = (config_map.get("data") or {}).get(_PUBLISHED_KEY, "[]")
        entries = read_json(text, list[_Published], max_bytes=2**20, max_depth=4)
    except Exception as error:
        return [], f"ConfigMap {_NAMESPACE}/{_PUBLISHED} cannot be read: {error}"
    return [
        SetAside(kind=one.kind, namespace=one.namespace, name=one.name, reason=one.reason, message=one.message)
        for one in entries[:_MOST_PUBLISHED]
    ], ""


async def read_setup(kubeconfig: str | None) -> Setup:
    """Read what is installed. Refused reads are described in the result.

    Raises:
        ConnectionFileError: there is no usable kubeconfig.
        UnreachableError: the API server does not answer.
    """
    found: dict[str, Any] = {}
    refusals = []
    async with ApiClient(kubeconfig_connection(kubeconfig), field_manager="kubectl-vmnic") as api:
        for name, resource, read in (
            ("daemons", DAEMON_SETS, _read_daemons),
            ("definitions", DEFINITIONS, _read_definitions),
            ("webhook", MUTATING_WEBHOOKS, _read_webhook),
        ):
            try:
                found[name] = await read(api)
            except ApiError as error:
                if error.status != _FORBIDDEN:
                    raise
                # The field stays None, which means unknown, and the other checks go on.
                refusals.append(refusal(resource))
    return Setup(**found, refusals=tuple(refusals))


class _Container(msgspec.Struct, frozen=True):
    image: str = ""


class _PodSpec(msgspec.Struct, frozen=True, rename="camel"):
    containers: tuple[_Container, ...] = ()
    init_containers: tuple[_Container, ...] = ()


class _Template(msgspec.Struct, frozen=True):
    spec: _PodSpec = _PodSpec()


class _DaemonSpec(msgspec.Struct, frozen=True):
    template: _Template = _Template()


class _Name(msgspec.Struct, frozen=True):
    name: str


class _DaemonSet(msgspec.Struct, frozen=True):
    metadata: _Name
    spec: _DaemonSpec = _DaemonSpec()


async def _read_daemons(api: ApiClient) -> tuple[str, ...]:
    names: list[str] = []
    async for page, _ in api.list_pages(DAEMON_SETS):
        for raw in page:
            # Most DaemonSets belong to other programs, so one that cannot be read is not reported.
            names += try_object([], "DaemonSet", ("", ""), _words_of_daemon, raw) or ()
    return tuple(names)


def _words_of_daemon(raw: msgspec.Raw) -> list[str]:
    """Return name and images of a DaemonSet."""
    one = read_json(bytes(raw), _DaemonSet, max_bytes=_MOST_BYTES, max_depth=_MOST_LEVELS)
    pod = one.spec.template.spec
    return [one.metadata.name, *(container.image for container in (*pod.containers, *pod.init_containers))]


async def _read_definitions(api: ApiClient) -> dict[str, Any]:
    found = {}
    async for page, _ in api.list_pages(DEFINITIONS):
        for raw in page:
            one = try_object([], "CustomResourceDefinition", ("", ""), decode_object, "CustomResourceDefinition", raw)
            if one is not None and one["spec"]["group"] == GROUP:
                found[one["metadata"]["name"]] = one
    return found


async def _read_webhook(api: ApiClient) -> dict[str, Any]:
    return await api.read(MUTATING_WEBHOOKS, "vmnic") or {}
