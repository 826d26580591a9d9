"""Decoder of NetworkAttachmentDefinitions.

It provides CNI plugin, device resource, segment, IPAM and MTU.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

import msgspec

from ..checked import forms
from ..checked.documents import read_json
from ..checked.printable import cut
from ..checked.quantities import read_integer
from ..nodes.pools.networks import RESOURCE, SEGMENT_LABEL
from ..policy.facts import Network
from ..policy.sentences import join_sentences
from . import vm as projection
from .carried import CNI_VOUCHED, network_properties

__all__ = ["decode_network", "original_interface", "original_network", "read_network"]

T = TypeVar("T")
_ACCEPT = "vmnic.dev/accept"
_ACCEPT_CHARS = 4096
_ACCEPTABLE = re.compile(forms.anchored(forms.ACCEPTABLE))
_WORD_BYTES = 64
_SHOWN_WORDS = 4
_CONFIG_BYTES = 2**16
"""CNI configurations have some hundred bytes."""
_LARGEST_MTU = 65535
"""Only loopback has a larger MTU."""
_REASON_CHARS = 200


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
    """Read a NetworkAttachmentDefinition that is already parsed.

    Raises:
        msgspec.ValidationError: a field has the wrong type.
    """
    return _network(msgspec.convert(document, _Definition))


def _network(definition: _Definition) -> Network:
    meta, unreadable = definition.metadata, ""
    try:
        plugin, *chained = _plugins(definition.spec.config)
    except ValueError as error:
        plugin, chained, unreadable = {}, [], f"spec.config: {error}"[:_REASON_CHARS]
    # An MTU of 0 counts as none: CNI plugins then leave the kernel's default.
    if not unreadable and plugin.get("mtu") and read_integer(plugin["mtu"], 1, _LARGEST_MTU) is None:
        unreadable = f"spec.config: mtu must be a number of at most {_LARGEST_MTU}"
    accepts, accept_fault = _accepted(meta.annotations.get(_ACCEPT, ""))
    mtu, ipam, kind = read_integer(plugin.get("mtu"), 1, _LARGEST_MTU), plugin.get("ipam"), plugin.get("type")
    return Network(
        namespace=meta.namespace,
        name=meta.name,
        cni_type=kind if isinstance(kind, str) else "",
        resource_name=meta.annotations.get(RESOURCE, ""),
        segment=meta.labels.get(SEGMENT_LABEL, ""),
        mtu=mtu,
        ipam=json.dumps(ipam, sort_keys=True) if ipam else "",
        properties=network_properties(plugin, chained),
        vouched=tuple(key for key in CNI_VOUCHED if plugin.get(key)),
        accepts=accepts,
        accept_fault=accept_fault,
        unreadable=unreadable,
    )


def _accepted(text: str) -> tuple[tuple[str, ...], str]:
    """Return the reasons that an annotation accepts, and what is wrong with it."""
    # The last word of a text that is too long is cut, and might accept another property than the one that is meant.
    kept = text if len(text) <= _ACCEPT_CHARS else text[:_ACCEPT_CHARS].rpartition(",")[0]
    words = [word.strip() for word in kept.split(",") if word.strip()]
    accepted = tuple(word for word in words if _ACCEPTABLE.fullmatch(word))
    others = [repr(cut(word, _WORD_BYTES)) for word in dict.fromkeys(words) if not _ACCEPTABLE.fullmatch(word)]
    shown = ", ".join(others[:_SHOWN_WORDS]) + (f" and {len(others) - _SHOWN_WORDS} more" if len(others) > _SHOWN_WORDS else "")
    bad = f"annotation {_ACCEPT} cannot accept {shown}: write {forms.ACCEPTABLE_WORDS}" if others else ""
    long = f"annotation {_ACCEPT} has {len(text)} characters, of which the first {_ACCEPT_CHARS} count: shorten it"
    return accepted, join_sentences(bad, long if kept != text else "")


def _plugins(config: str) -> list[dict[str, Any]]:
    """Return the plugins, of which the first creates the interface and the others are chained.

    An empty configuration has none. Multus then reads the configuration from a file on the node, which vmnic does not read.

    Raises:
        ValueError: the configuration is not a JSON object, exceeds a bound, or has a plugin without a type.
    """
    if not config.strip():
        return [{}]
    parsed = read_json(config, dict[str, Any], max_bytes=_CONFIG_BYTES)
    plugins = parsed.get("plugins", [parsed])
    if not isinstance(plugins, list) or not plugins:
        raise ValueError("`plugins` must be a list with at least one plugin")
    if not all(isinstance(one, dict) for one in plugins):
        raise ValueError("an entry of `plugins` is not an object")
    # Nothing shows what such a plugin protects or limits, and CNI refuses it.
    if not all(isinstance(one.get("type"), str) and one["type"] for one in plugins):
        raise ValueError("a CNI plugin has no `type`")
    return plugins


def original_network(was: dict[str, Any]) -> projection.Network | None:
    """Return the entry of `networks` in a record, or None if there is none that can be read."""
    return _original(was, "network", projection.Network)


def original_interface(was: dict[str, Any]) -> projection.Interface | None:
    """Return the entry of `interfaces` in a record, or None if there is none that can be read."""
    return _original(was, "interface", projection.Interface)


def _original(was: dict[str, Any], field: str, kind: type[T]) -> T | None:
    try:
        return msgspec.convert(was.get(field), kind)
    except msgspec.ValidationError:
        return None
