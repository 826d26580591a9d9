"""NetworkAttachmentDefinitions become networks: which CNI plugin, which device, which segment, IPAM and MTU."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from ..nodes.networks import RESOURCE, SEGMENT_LABEL
from ..policy.facts import Network
from . import projection

__all__ = ["decode_network", "original_network", "read_network"]

_ACCEPT = "vmnic.dev/accept"


class _Meta(msgspec.Struct, frozen=True):
    name: str
    namespace: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class _Spec(msgspec.Struct, frozen=True):
    config: str = ""


class _Definition(msgspec.Struct, frozen=True):
    metadata: _Meta
    spec: _Spec = _Spec()


_decoder = msgspec.json.Decoder(_Definition)


def decode_network(raw: bytes | msgspec.Raw) -> Network:
    """Read a NetworkAttachmentDefinition.

    Raises:
        msgspec.ValidationError: a field has the wrong type.
    """
    return _network(_decoder.decode(raw))


def read_network(document: dict[str, Any]) -> Network:
    """Read a NetworkAttachmentDefinition that is parsed already.

    Raises:
        msgspec.ValidationError: a field has the wrong type.
    """
    return _network(msgspec.convert(document, _Definition))


def _network(definition: _Definition) -> Network:
    meta = definition.metadata
    plugin = _main_plugin(definition.spec.config)
    mtu, ipam, kind = plugin.get("mtu"), plugin.get("ipam"), plugin.get("type")
    return Network(
        namespace=meta.namespace,
        name=meta.name,
        cni_type=kind if isinstance(kind, str) else "",
        resource_name=meta.annotations.get(RESOURCE, ""),
        segment=meta.labels.get(SEGMENT_LABEL, ""),
        mtu=mtu if isinstance(mtu, int) and mtu > 0 else None,
        ipam=json.dumps(ipam, sort_keys=True) if ipam else "",
        accepts=tuple(word.strip() for word in meta.annotations.get(_ACCEPT, "").split(",") if word.strip()),
    )


def _main_plugin(config: str) -> dict[str, Any]:
    """The plugin that makes the interface: the first of a list. What cannot be read (the CNI would fail too) is empty."""
    try:
        parsed = json.loads(config)
    except ValueError:
        return {}
    if isinstance(parsed, dict) and isinstance(parsed.get("plugins"), list):
        parsed = next(iter(parsed["plugins"]), {})
    return parsed if isinstance(parsed, dict) else {}


def original_network(was: dict[str, Any]) -> projection.Network | None:
    """Read the entry of `networks` that a record keeps; None if it keeps none that can be read."""
    try:
        return msgspec.convert(was.get("network"), projection.Network)
    except msgspec.ValidationError:
        return None
