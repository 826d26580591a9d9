"""One node: its NodeNicState exists, and its spec says what all pools together ask, with the grants that the ledger holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from ...api.pool import SriovNetworkPool
from ...kube.client import ApiClient, ConflictError
from ...kube.reflector import ObjectKey
from ...kube.resources import NODE_NIC_STATES
from ...nodes.budget import Ledger
from ...nodes.merge import merge_pools
from ...nodes.state import NodeNicState, NodeSpec, PfSpec, wire
from ..ledger import LedgerStore
from ..objects import NodeObject
from ..world import World

__all__ = ["NodeReconciler", "plan_node_spec"]


class NodeReconciler:
    """Keeps one NodeNicState per Node."""

    def __init__(self, world: World, api: ApiClient, ledger: LedgerStore) -> None:
        self._world = world
        self._api = api
        self._ledger = ledger

    async def reconcile(self, name: str) -> None:
        """Make the node's NodeNicState, or bring its spec up to date.

        Raises:
            ApiError: a write failed; the queue tries again.
        """
        node = self._world.nodes.items.get(ObjectKey("", name))
        if node is None or node.metadata.deletion_timestamp:
            return
        state = self._world.node_states.items.get(ObjectKey("", name))
        if state is None:
            await self._create(node)
            return
        desired = plan_node_spec(
            node.metadata.labels,
            state,
            pools=tuple(self._world.pools.items.values()),
            unreadable_pools={key.name for key in self._world.pools.malformed},
            ledger=self._ledger.current,
        )
        if desired != state.spec:
            await self._write(state, desired)

    async def _create(self, node: NodeObject) -> None:
        owner = {"apiVersion": "v1", "kind": "Node", "name": node.metadata.name, "uid": node.metadata.uid}
        body = {
            "apiVersion": "vmnic.dev/v1alpha1",
            "kind": "NodeNicState",
            "metadata": {"name": node.metadata.name, "ownerReferences": [owner]},
            "spec": wire(NodeSpec()),
        }
        try:
            await self._api.create(NODE_NIC_STATES, body)
        except ConflictError:
            return  # There already; its event is on the way.

    async def _write(self, state: NodeNicState, desired: NodeSpec) -> None:
        """Write the spec only over the object that was decided on: a later status may make a grant stale."""
        await self._api.patch_json(
            NODE_NIC_STATES,
            state.metadata.name,
            [
                {"op": "test", "path": "/metadata/resourceVersion", "value": state.metadata.resource_version},
                {"op": "add", "path": "/spec", "value": wire(desired)},
            ],
        )


def plan_node_spec(
    labels: Mapping[str, str],
    state: NodeNicState,
    *,
    pools: Sequence[SriovNetworkPool],
    unreadable_pools: Collection[str],
    ledger: Ledger,
) -> NodeSpec:
    """Say what a node should be: all pools merged, what unreadable pools asked before, and the ledger's grants."""
    if not state.status.boot_id:
        return state.spec  # The agent has not looked at the host yet; nothing is known to decide on.
    merged = {pf.pci_address: pf for pf in merge_pools(pools, labels, state.status.pfs).pfs}
    for pf in state.spec.pfs:
        if pf.pool in unreadable_pools:
            merged.setdefault(pf.pci_address, pf)
    granted = ledger.granted(state.metadata.name)
    return NodeSpec(
        synced=True,
        pfs=tuple(_with_grant(merged[address], granted.get(address)) for address in sorted(merged)),
    )


def _with_grant(pf: PfSpec, digest: str | None) -> PfSpec:
    return msgspec.structs.replace(pf, grant=digest)
