"""ConfigMap that lists the objects which the leader has set aside. `kubectl vmnic status` reads it.

Any client can see that an object does not decode. Only the controller knows which ones exceeded their time budget or raised an
exception.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from ...kube.client import ApiClient
from ...kube.errors import ApiError, NotLeadingError
from ...kube.resources import CONFIG_MAPS
from ...kube.set_aside import SetAside

__all__ = ["REPORT_KEY", "REPORT_NAME", "SetAsideReport"]

_log = logging.getLogger(__name__)

REPORT_NAME = "vmnic-set-aside"
REPORT_KEY = "objects.json"
_MOST = 100
"""Maximum number of objects in the report, at most 900 bytes each. A ConfigMap holds 1 MiB."""
_INTERVAL_S = 5.0


class SetAsideReport:
    """Writes the registry of set-aside objects to the ConfigMap.

    Args:
        registry: The objects.
        api: The leader's client.
        namespace: Namespace of the ConfigMap.
    """

    def __init__(self, registry: SetAside, api: ApiClient, namespace: str) -> None:
        self._registry = registry
        self._api = api
        self._namespace = namespace
        self._written: str | None = None
        """Last written content. None means that the ConfigMap's content is unknown."""

    async def run(self) -> None:
        """Write the report periodically until cancelled, and retry failed writes."""
        while True:
            try:
                await self.write()
            except (ApiError, NotLeadingError) as error:
                _log.warning("ConfigMap %s could not be written: %s", REPORT_NAME, error)
            await asyncio.sleep(_INTERVAL_S)

    async def write(self) -> None:
        """Write the report if it differs from the last one.

        An empty report creates no ConfigMap.

        Raises:
            ApiError: the write failed.
        """
        text = self._render()
        if text == self._written:
            return
        found = await self._api.read(CONFIG_MAPS, REPORT_NAME, self._namespace)
        if found is None and text != "[]":
            await self._api.create(CONFIG_MAPS, self._body(text), self._namespace)
        elif found is not None and (found.get("data") or {}).get(REPORT_KEY) != text:
            body = self._body(text, found["metadata"]["resourceVersion"])
            await self._api.replace(CONFIG_MAPS, body, REPORT_NAME, self._namespace)
        self._written = text

    def _render(self) -> str:
        listed = []
        for one in self._registry.items()[:_MOST]:
            namespace, _, name = one.key.rpartition("/")
            entry = {"kind": one.kind, "namespace": namespace, "name": name, "reason": one.reason.value, "message": one.message}
            listed.append(entry)
        return json.dumps(listed)

    def _body(self, text: str, version: str = "") -> dict[str, Any]:
        meta = {"name": REPORT_NAME, "namespace": self._namespace} | ({"resourceVersion": version} if version else {})
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {REPORT_KEY: text}}
