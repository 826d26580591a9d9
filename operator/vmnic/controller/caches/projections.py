"""Cached projections of Kubernetes' and vmnic's objects, reduced to the fields that decisions read."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypeVar

import msgspec
from pydantic import ValidationError

from ...api.common import first_error
from ...api.policy import VmNicPolicy
from ...api.pool import SriovNetworkPool
from ...kubevirt.networks import decode_network
from ...nodes.pools.networks import OwnNetwork, decode_own_network
from ...nodes.rollout.ledger import CORDONED
from ...policy.capacity import Taint
from ...policy.facts import Network

__all__ = [
    "LOST_AFTER",
    "LabelledObject",
    "Nad",
    "NodeObject",
    "WebhookConfiguration",
    "decode_labelled",
    "decode_nad",
    "decode_node",
    "decode_policy",
    "decode_pool",
    "decode_webhooks",
    "salvage_node",
]


M = TypeVar("M", SriovNetworkPool, VmNicPolicy)

LOST_AFTER = timedelta(minutes=10)
"""A node that has not been ready for this long no longer holds anything up."""


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    uid: str = ""
    labels: dict[str, str] = {}
    deletion_timestamp: str | None = None


class LabelledObject(msgspec.Struct, frozen=True):
    """The parts of a Namespace that decisions read."""

    metadata: _Meta


class Nad(msgspec.Struct, frozen=True):
    """A NetworkAttachmentDefinition, as VMs and as pools read it."""

    network: Network
    own: OwnNetwork | None = None
    """None if it belongs to no pool."""


class _Named(msgspec.Struct, frozen=True):
    name: str


class _NodeNotes(msgspec.Struct, frozen=True):
    cordoned: str = msgspec.field(default="", name=CORDONED)


class _NodeMeta(_Meta, frozen=True, rename="camel"):
    resource_version: str = ""
    annotations: _NodeNotes = _NodeNotes()


class _NodeSpec(msgspec.Struct, frozen=True):
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class _NodeCondition(msgspec.Struct, frozen=True, rename="camel"):
    type: str
    status: str = ""
    last_transition_time: str | None = ""


class _NodeStatus(msgspec.Struct, frozen=True):
    allocatable: dict[str, str | int] = {}
    conditions: tuple[_NodeCondition, ...] = ()


class NodeObject(msgspec.Struct, frozen=True):
    """The parts of a Node that decisions read."""

    metadata: _NodeMeta
    spec: _NodeSpec = _NodeSpec()
    status: _NodeStatus = _NodeStatus()

    @property
    def ready(self) -> bool:
        """Return whether the node is ready.

        A node without a Ready condition counts as ready.
        """
        return not any(one.type == _READY and one.status != "True" for one in self.status.conditions)

    def is_lost(self, now: datetime) -> bool:
        """Return whether the node has not been ready for so long that it no longer holds anything up."""
        down = [one for one in self.status.conditions if one.type == _READY and one.status != "True"]
        moments = (_moment(one.last_transition_time) for one in down)
        # A node whose time cannot be read is waited for.
        return any(now - moment > LOST_AFTER for moment in moments if moment is not None)

    def out_of_service(self) -> NodeObject:
        """Return the node as not ready since an unknown time, so that it is still waited for."""
        down = _NodeCondition(type=_READY, status="Unknown", last_transition_time="")
        return msgspec.structs.replace(self, status=_NodeStatus({}, (down,)))

    @property
    def cordoned_by_us(self) -> bool:
        """Return whether vmnic cordoned the node.

        An administrator's own cordon lacks the annotation.
        """
        return self.spec.unschedulable and bool(self.metadata.annotations.cordoned)


def _moment(text: str | None) -> datetime | None:
    """Parse an API timestamp.

    Return None if it is malformed or has no time zone.
    """
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


class _Webhook(msgspec.Struct, frozen=True):
    name: str = ""


class WebhookConfiguration(msgspec.Struct, frozen=True):
    """The names in a MutatingWebhookConfiguration."""

    metadata: _Meta
    webhooks: list[_Webhook] = []

    @property
    def names(self) -> tuple[str, ...]:
        """Return its own name and those of its webhooks."""
        return (self.metadata.name, *(webhook.name for webhook in self.webhooks))


_node_decoder = msgspec.json.Decoder(NodeObject)
_READY = "Ready"
# KubeVirt's own devices kvm, tun and vhost-net, which are no NICs.
_PLATFORM = ("devices.kubevirt.io/",)


def decode_node(raw: msgspec.Raw) -> NodeObject:
    """Decode a node, keeping only device resources of other operators and the Ready condition.

    Everything else in a node's status changes all the time.
    """
    node = _node_decoder.decode(raw)
    # Kubernetes' own resources, such as cpu and memory, have no slash in their names.
    devices = {name: count for name, count in node.status.allocatable.items() if "/" in name and not name.startswith(_PLATFORM)}
    ready = tuple(one for one in node.status.conditions if one.type == _READY)
    # With it, each write of the kubelet would be a change. A drain reads the version from the API server.
    meta = msgspec.structs.replace(node.metadata, resource_version="")
    return msgspec.structs.replace(node, metadata=meta, status=_NodeStatus(devices, ready))


def decode_pool(raw: msgspec.Raw) -> SriovNetworkPool:
    """Decode a pool.

    Fields of a newer version of the kind are ignored.

    Raises:
        ValueError: this build cannot read it. The message names the field.
    """
    return _decode(SriovNetworkPool, raw)


def decode_policy(raw: msgspec.Raw) -> VmNicPolicy:
    """Decode a policy.

    Fields of a newer version of the kind are ignored.

    Raises:
        ValueError: this build cannot read it. The message names the field.
    """
    return _decode(VmNicPolicy, raw)


def _decode(kind: type[M], raw: msgspec.Raw) -> M:
    try:
        return kind.model_validate_json(bytes(raw), extra="ignore")
    except ValidationError as error:
        raise ValueError(first_error(error)) from error


class _Salvaged(msgspec.Struct, frozen=True):
    metadata: _Named


_salvage_decoder = msgspec.json.Decoder(_Salvaged)


def salvage_node(raw: msgspec.Raw) -> NodeObject:
    """Decode only the name of a Node that is otherwise malformed."""
    return NodeObject(metadata=_NodeMeta(name=_salvage_decoder.decode(raw).metadata.name))


def decode_nad(raw: bytes | msgspec.Raw) -> Nad:
    """Decode a NetworkAttachmentDefinition.

    Raises:
        msgspec.ValidationError: a field has the wrong type.
    """
    return Nad(network=decode_network(raw), own=decode_own_network(raw))


decode_labelled = msgspec.json.Decoder(LabelledObject).decode
decode_webhooks = msgspec.json.Decoder(WebhookConfiguration).decode
