"""Reconciler of one node, which maintains the spec of its NodeNicState.

The spec merges what all pools ask of the node, and contains the grants in the ledger.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from ...api.node_state import HostSpec, NodeNicState, NodeSpec, PfSpec, wire
from ...api.pool import SriovNetworkPool
from ...json_patch import add, check
from ...kube.client import ApiClient, ConflictError
from ...kube.reflector import ObjectKey
from ...kube.resources import NODE_NIC_STATES
from ...nodes.pools.merge import merge_pools
from ...nodes.rollout.ledger import Ledger
from ...nodes.rollout.release import released_pfs
from ..caches.cluster_cache import ClusterCache
from ..caches.projections import NodeObject
from .drain import Drainer
from .ledger import LedgerStore

__all__ = ["NodeReconciler", "plan_node_spec", "without_grants"]

_MODULES = ("vhost_net", "tun", "macvtap")
"""Kernel modules that the datapaths of VMs need on any node."""


class NodeReconciler:
    """Keeps one NodeNicState per Node."""

    def __init__(self, world: ClusterCache, api: ApiClient, ledger: LedgerStore, drainer: Drainer) -> None:
        self._world = world
        self._api = api
        self._ledger = ledger
        self._drainer = drainer

    async def reconcile(self, name: str) -> None:
        """Create the node's NodeNicState, or bring its spec up to date.

        Raises:
            ApiError: a write failed. The queue retries.
        """
        node = self._world.nodes.items.get(ObjectKey("", name))
        if node is None or node.metadata.deletion_timestamp:
            return
        await self._give_back(node)
        state = self._world.node_states.items.get(ObjectKey("", name))
        # A malformed one is missing here too. Creating it is a conflict then, and it stays as it is.
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
        if desired == state.spec:
            return
        new = {pf.grant for pf in desired.pfs if pf.grant} - {pf.grant for pf in state.spec.pfs}
        # If this leader is deposed, its memory may hold a grant that its successor has revoked.
        if new and not new <= set((await self._ledger.look()).granted(name).values()):
            async with self._ledger.deciding:
                await self._ledger.load()
            raise ConflictError(status=409, reason="Conflict", message=f"node {name}: its grant was revoked")
        await self._write(state, desired)

    async def _give_back(self, node: NodeObject) -> None:
        """Uncordon a node that the ledger does not list as cordoned.

        A leader may have cordoned it while it was being deposed.
        """
        name = node.metadata.name
        # Memory first, so that the ledger is read only for a node that looks forgotten.
        unknown = bool(node.metadata.annotations.cordoned) and not self._ledger.current.cordons(name)
        if unknown and not (await self._ledger.look()).cordons(name):
            await self._drainer.uncordon(name)

    async def _create(self, node: NodeObject) -> None:
        # The garbage collector of Kubernetes deletes the object with its Node. The controller has no right to do so.
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
            return  # It exists already, and its watch event is on the way.

    async def _write(self, state: NodeNicState, desired: NodeSpec) -> None:
        """Write the spec only over the version that was decided on.

        A later status may make a grant stale.
        """
        await self._api.patch_json(
            NODE_NIC_STATES,
            state.metadata.name,
            [
                check("/metadata/resourceVersion", state.metadata.resource_version),
                add("/spec", wire(desired)),
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
    """Return the spec that a node should have.

    It contains all pools merged, what unreadable pools asked before, functions that are released, and the grants.
    """
    if not state.status.boot_id:
        return state.spec  # The agent has not read the host yet, so there is nothing to decide on.
    merged = {pf.pci_address: pf for pf in merge_pools(pools, labels, state.status.pfs, state.spec.pfs, unreadable_pools).pfs}
    merged |= {pf.pci_address: pf for pf in released_pfs(state, pools, merged.keys())}
    granted = ledger.granted(state.metadata.name)
    spec = NodeSpec(
        synced=True,
        host=HostSpec(modules=_MODULES),
        pfs=tuple(_with_grant(merged[address], granted.get(address)) for address in sorted(merged)),
    )
    return state.spec if spec == _without(_spent_grants(state), state.spec) else spec


def without_grants(spec: NodeSpec) -> NodeSpec:
    """Return a spec without its grants."""
    return _without({pf.grant for pf in spec.pfs}, spec)


def _spent_grants(state: NodeNicState) -> set[str | None]:
    """Return the grants whose change has ended.

    They permit nothing more, because every end raises the attempt number that is part of a digest. So removing them is not
    worth a write of its own.
    """
    found = {pf.pci_address: pf for pf in state.status.pfs}
    return {
        spec.grant
        for spec in state.spec.pfs
        if (pf := found.get(spec.pci_address)) is not None
        and (pf.plan is None or pf.plan.digest != spec.grant)
        and pf.apply is not None
        and pf.apply.digest == spec.grant
        and not pf.apply.state.is_running
    }


def _without(grants: Collection[str | None], spec: NodeSpec) -> NodeSpec:
    pfs = tuple(_with_grant(pf, None) if pf.grant in grants else pf for pf in spec.pfs)
    return msgspec.structs.replace(spec, pfs=pfs)


def _with_grant(pf: PfSpec, digest: str | None) -> PfSpec:
    return msgspec.structs.replace(pf, grant=digest)
