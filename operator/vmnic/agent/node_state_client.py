"""Client of the agent's own NodeNicState.

It reads the object live, claims a grant and publishes the status.

The agent writes nothing else to the API server.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from ..api.node_state import NodeNicState, NodeStatus, wire
from ..json_patch import add, check
from ..kube.client import ApiClient
from ..kube.errors import ApiError, ConflictError, InvalidError
from ..kube.resources import NODE_NIC_STATES
from ..nodes.state import decode_node_state

__all__ = ["ApiNodeStateClient", "NodeStateClient"]


class NodeStateClient(Protocol):
    """Reads the spec of this node and publishes its status."""

    async def read(self) -> NodeNicState | None:
        """Read the object live.

        Raises:
            ApiError: The API server did not answer, or its answer cannot be decoded.
        """
        ...

    async def publish(self, status: NodeStatus) -> None:
        """Write the status.

        Raises:
            ApiError: The API server did not accept it.
        """
        ...

    async def claim(self, over: NodeNicState, status: NodeStatus) -> bool:
        """Write the status only over exactly this version of the object.

        Returns:
            False if the object has changed since.

        Raises:
            ApiError: The API server did not answer. It is unknown whether the claim was written, so nothing may start.
        """
        ...


class ApiNodeStateClient:
    """Implementation of `NodeStateClient` that talks to the API server."""

    def __init__(self, api: ApiClient, node: str) -> None:
        self._api = api
        self._node = node

    async def read(self) -> NodeNicState | None:
        """Read the object live (see `NodeStateClient`)."""
        found = await self._api.read(NODE_NIC_STATES, self._node)
        try:
            return None if found is None else decode_node_state(msgspec.json.encode(found))
        except msgspec.ValidationError as error:
            raise ApiError(status=0, reason="Malformed", message=f"NodeNicState {self._node}: {error}") from error

    async def publish(self, status: NodeStatus) -> None:
        """Write the status (see `NodeStateClient`)."""
        # `add` also replaces (RFC 6902). `replace` would fail on an object that has no status yet.
        await self._patch([add("/status", wire(status))])

    async def claim(self, over: NodeNicState, status: NodeStatus) -> bool:
        """Write the status over one version of the object (see `NodeStateClient`)."""
        try:
            await self._patch(
                [
                    check("/metadata/resourceVersion", over.metadata.resource_version),
                    add("/status", wire(status)),
                ]
            )
        # The API server answers a `test` that fails with 422, and 409 if concurrent writes prevented the patch.
        except (ConflictError, InvalidError):
            return False
        return True

    async def _patch(self, operations: list[dict[str, object]]) -> None:
        await self._api.patch_json(NODE_NIC_STATES, self._node, operations, subresource="status")
