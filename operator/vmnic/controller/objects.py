"""What the controller keeps of Kubernetes' own objects and of ours: only what decisions read."""

from __future__ import annotations

import msgspec

from ..api.policy import VmNicPolicy
from ..api.pool import SriovNetworkPool

__all__ = [
    "LabelledObject",
    "NodeObject",
    "WebhookConfiguration",
    "decode_labelled",
    "decode_node",
    "decode_policy",
    "decode_pool",
    "decode_webhooks",
]


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    uid: str = ""
    labels: dict[str, str] = {}
    deletion_timestamp: str | None = None


class LabelledObject(msgspec.Struct, frozen=True):
    """The parts of a Namespace that decisions read."""

    metadata: _Meta


class _NodeSpec(msgspec.Struct, frozen=True):
    unschedulable: bool = False


class _NodeStatus(msgspec.Struct, frozen=True):
    allocatable: dict[str, str | int] = {}


class NodeObject(msgspec.Struct, frozen=True):
    """The parts of a Node that decisions read."""

    metadata: _Meta
    spec: _NodeSpec = _NodeSpec()
    status: _NodeStatus = _NodeStatus()


class _Webhook(msgspec.Struct, frozen=True):
    name: str = ""


class WebhookConfiguration(msgspec.Struct, frozen=True):
    """A MutatingWebhookConfiguration: whose webhooks there are."""

    metadata: _Meta
    webhooks: list[_Webhook] = []


_node_decoder = msgspec.json.Decoder(NodeObject)
_PLATFORM = ("devices.kubevirt.io/",)


def decode_node(raw: msgspec.Raw) -> NodeObject:
    """Of what a node has, only devices of other operators are kept: all else changes all the time."""
    node = _node_decoder.decode(raw)
    devices = {name: count for name, count in node.status.allocatable.items() if "/" in name and not name.startswith(_PLATFORM)}
    return msgspec.structs.replace(node, status=_NodeStatus(devices))


def decode_pool(raw: msgspec.Raw) -> SriovNetworkPool:
    """Read a pool."""
    return SriovNetworkPool.model_validate_json(bytes(raw))


def decode_policy(raw: msgspec.Raw) -> VmNicPolicy:
    """Read a policy."""
    return VmNicPolicy.model_validate_json(bytes(raw))


decode_labelled = msgspec.json.Decoder(LabelledObject).decode
decode_webhooks = msgspec.json.Decoder(WebhookConfiguration).decode
