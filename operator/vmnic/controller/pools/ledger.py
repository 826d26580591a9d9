"""Ledger of grants, a ConfigMap that is written with its resourceVersion *before* any grant.

Budgets are counted from it, so two controllers that both consider themselves leader cannot both spend them: the second write is
a conflict. A grant in a NodeNicState is only ever a copy of an entry here. If a controller dies between the two writes, its
successor copies the grant again.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from ...kube.client import ApiClient, ApiError, ConflictError, NotFoundError
from ...kube.resources import CONFIG_MAPS
from ...nodes.rollout.ledger import Ledger

__all__ = ["LEDGER_NAME", "LedgerStore"]

LEDGER_NAME = "vmnic-ledger"
_DATA_KEY = "ledger.json"


class LedgerStore:
    """Reads and writes the ledger, and keeps what it last read or wrote."""

    def __init__(self, api: ApiClient, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._object: dict[str, Any] | None = None
        self.deciding = asyncio.Lock()
        """Held from reading `current` until the resulting write, because budgets are counted over all pools."""
        self.current = Ledger()

    async def load(self) -> Ledger:
        """Read the ledger again.

        If it does not exist, an empty one is created.

        Raises:
            ApiError: the ledger cannot be read or is malformed. Nothing is granted then.
        """
        found = await self._api.read(CONFIG_MAPS, LEDGER_NAME, self._namespace)
        if found is None:
            found = await self._api.create(CONFIG_MAPS, self._render(Ledger(), None), self._namespace)
        self.current = self._parse(found)
        self._object = found
        return self.current

    async def look(self) -> Ledger:
        """Return the API server's current ledger without storing it.

        Another leader may have written it meanwhile, so budgets are not counted from it.

        Raises:
            ApiError: it cannot be read.
        """
        found = await self._api.read(CONFIG_MAPS, LEDGER_NAME, self._namespace)
        return Ledger() if found is None else self._parse(found)

    async def save(self, ledger: Ledger) -> None:
        """Write the ledger if it has not changed since it was read.

        Raises:
            ConflictError: another client wrote it. It has been read again, and the caller decides again.
            ApiError: it could not be written.
        """
        if self._object is None:
            await self.load()
        assert self._object is not None
        version = self._object["metadata"]["resourceVersion"]
        try:
            self._object = await self._api.replace(CONFIG_MAPS, self._render(ledger, version), LEDGER_NAME, self._namespace)
        # A write whose answer was lost shows here, as a conflict with the next one. Reading tells whether it took effect.
        except ConflictError:
            await self.load()
            raise
        except NotFoundError as error:
            await self.load()
            raise ConflictError(status=409, reason="Conflict", message="the ledger was deleted and is created again") from error
        self.current = ledger

    def _parse(self, found: dict[str, Any]) -> Ledger:
        try:
            return Ledger.parse(json.loads((found.get("data") or {}).get(_DATA_KEY, "{}")))
        except (ValueError, TypeError, KeyError) as error:
            raise ApiError(
                status=0,
                reason="MalformedLedger",
                message=f"ConfigMap {self._namespace}/{LEDGER_NAME}, data.{_DATA_KEY}: {error}; delete the ConfigMap once no "
                "node has a grant, and vmnic creates it again",
            ) from error

    def _render(self, ledger: Ledger, version: str | None) -> dict[str, Any]:
        metadata = {"name": LEDGER_NAME, "namespace": self._namespace}
        if version is not None:
            metadata["resourceVersion"] = version
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": {_DATA_KEY: json.dumps(ledger.render(), sort_keys=True, separators=(",", ":"))},
        }
