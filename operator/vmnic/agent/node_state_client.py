"""The agent's side of its NodeNicState: reads it live, claims a grant, publishes its status. Nothing else is ever written."""

from __future__ import annotations

from typing import Protocol

import msgspec

from ..kube.client import ApiClient
from ..kube.errors import ApiError, ConflictError, InvalidError
from ..kube.resources import NODE_NIC_STATES
from ..nodes.state import NodeNicState, NodeStatus, decode_node_state, wire

__all__ = ["ApiNodeStateClient", "NodeStateClient"]


class NodeStateClient(Protocol):
    """Where the agent reads its orders and reports."""

    async def read(self) -> NodeNicState | None:
        """Read the object live.

        Raises:
            ApiError: the API server did not answer, or with what cannot be understood.
        """
        ...

    async def publish(self, status: NodeStatus) -> None:
        """Write the status.

        Raises:
            ApiError: the API server did not take it.
        """
        ...

    async def claim(self, over: NodeNicState, status: NodeStatus) -> bool:
        """Write the status only over this very version of the object; False if it has changed since.

        Raises:
            ApiError: the API server did not answer; whether the claim stands is unknown, so nothing may start.
        """
        ...


class ApiNodeStateClient:
    """Reports to the API server."""

    def __init__(self, api: ApiClient, node: str) -> None:
        self._api = api
        self._node = node

    async def read(self) -> NodeNicState | None:
        """Read the object live; see `Reporter`."""
        found = await self._api.read(NODE_NIC_STATES, self._node)
        try:
            return None if found is None else decode_node_state(msgspec.json.encode(found))
        except msgspec.ValidationError as error:
            raise ApiError(status=0, reason="Malformed", message=f"NodeNicState {self._node}: {error}") from error

    async def publish(self, status: NodeStatus) -> None:
        """Write the status; see `Reporter`."""
        await self._patch([{"op": "add", "path": "/status", "value": wire(status)}])

    async def claim(self, over: NodeNicState, status: NodeStatus) -> bool:
        """Write the status over one version of the object; see `Reporter`."""
        try:
            await self._patch(
                [
                    {"op": "test", "path": "/metadata/resourceVersion", "value": over.metadata.resource_version},
                    {"op": "add", "path": "/status", "value": wire(status)},
                ]
            )
        except (ConflictError, InvalidError):
            return False
        return True

    async def _patch(self, operations: list[dict[str, object]]) -> None:
        await self._api.patch_json(NODE_NIC_STATES, self._node, operations, subresource="status")
