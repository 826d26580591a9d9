"""Reads objects from the cluster that the user's kubeconfig names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from ..api.common import GROUP
from ..kube.client import ApiClient
from ..kube.connection import kubeconfig_connection
from ..kube.errors import ApiError, NotFoundError
from ..kube.resources import (
    CLUSTER_INSTANCETYPES,
    CLUSTER_PREFERENCES,
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
    VIRTUAL_MACHINES,
    Resource,
)
from .objects import MalformedObjectError, Objects
from .setup import Setup

__all__ = ["NODE_KINDS", "VM_KINDS", "annotate_state", "patch_machine", "read_cluster", "read_setup", "take_in"]

NODE_KINDS = (POOLS, NODE_NIC_STATES, NODES)
_FORBIDDEN = 403
VM_KINDS = (
    *(POLICIES, VIRTUAL_MACHINES, VIRTUAL_MACHINE_INSTANCES, NAMESPACES, NETWORKS),
    *(PREFERENCES, CLUSTER_PREFERENCES, INSTANCETYPES, CLUSTER_INSTANCETYPES),
    *(KUBEVIRTS, RESOURCE_QUOTAS, MUTATING_WEBHOOKS),
)


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
    """Read all objects of some kinds; an object that cannot be read, and a kind that is not there, is told in words.

    Raises:
        ConnectionFileError: there is no usable kubeconfig.
        ApiError: the API server refuses or does not answer.
    """
    objects, problems = Objects(of_server=True), []
    async with ApiClient(kubeconfig_connection(kubeconfig), field_manager="kubectl-vmnic") as api:
        for kind in kinds:
            try:
                async for page, _ in api.list_pages(kind):
                    problems += take_in(objects, (msgspec.json.decode(raw) | {"kind": kind.kind} for raw in page))
            except NotFoundError:
                problems.append(f"the cluster has no {kind.plural}.{kind.group}: is its operator installed?")
    return objects, problems


def take_in(objects: Objects, found: Iterable[dict[str, Any]]) -> list[str]:
    """Take objects in, and tell in words which cannot be read."""
    problems = []
    for one in found:
        try:
            objects.add(one)
        except MalformedObjectError as error:
            problems.append(str(error))
    return problems


async def read_setup(kubeconfig: str | None) -> Setup:
    """Read what is installed; what the user may not read is told in words.

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
                refusals.append(f"you may not read {resource.plural}, so nothing is said about them")
    return Setup(**found, refusals=tuple(refusals))


async def _read_daemons(api: ApiClient) -> tuple[str, ...]:
    names = []
    async for page, _ in api.list_pages(DAEMON_SETS):
        for raw in page:
            one = msgspec.json.decode(raw)
            pod = one["spec"]["template"]["spec"]
            containers = [*pod.get("containers", ()), *pod.get("initContainers", ())]
            names += [one["metadata"]["name"], *(container.get("image", "") for container in containers)]
    return tuple(names)


async def _read_definitions(api: ApiClient) -> dict[str, Any]:
    found = {}
    async for page, _ in api.list_pages(DEFINITIONS):
        for raw in page:
            one = msgspec.json.decode(raw)
            if one["spec"]["group"] == GROUP:
                found[one["metadata"]["name"]] = one
    return found


async def _read_webhook(api: ApiClient) -> dict[str, Any]:
    return await api.read(MUTATING_WEBHOOKS, "vmnic") or {}
