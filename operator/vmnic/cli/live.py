"""Reads objects from the cluster that the user's kubeconfig names."""

from __future__ import annotations

from typing import Any

import msgspec

from ..kube.client import ApiClient
from ..kube.connection import kubeconfig_connection
from ..kube.errors import NotFoundError
from ..kube.resources import (
    CLUSTER_INSTANCETYPES,
    CLUSTER_PREFERENCES,
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

__all__ = ["NODE_KINDS", "VM_KINDS", "annotate_state", "patch_machine", "read_cluster"]

NODE_KINDS = (POOLS, NODE_NIC_STATES, NODES)
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
    objects, problems = Objects(), []
    async with ApiClient(kubeconfig_connection(kubeconfig), field_manager="kubectl-vmnic") as api:
        for kind in kinds:
            try:
                async for page, _ in api.list_pages(kind):
                    for raw in page:
                        try:
                            objects.add(msgspec.json.decode(raw) | {"kind": kind.kind})
                        except MalformedObjectError as error:
                            problems.append(str(error))
            except NotFoundError:
                problems.append(f"the cluster has no {kind.plural}.{kind.group}: is its operator installed?")
    return objects, problems
