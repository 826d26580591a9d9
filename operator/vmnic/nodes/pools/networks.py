"""NetworkAttachmentDefinitions of a pool, in the form that sriov-cni and Multus read."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from ...api.pool import PoolNetwork, SriovNetworkPool
from .resources import network_name

__all__ = [
    "POOL_LABEL",
    "POOL_UID",
    "RESOURCE",
    "SEGMENT_LABEL",
    "OwnNetwork",
    "decode_own_network",
    "render_network",
]

POOL_UID = "vmnic.dev/pool-uid"
"""Annotation with the pool's UID, which marks a NetworkAttachmentDefinition as the pool's. An admission policy allows only
the controller to set it, and the controller never writes an object without it.
"""
POOL_LABEL = "vmnic.dev/pool"
"""Label with the pool's name, so that people can select by it. It proves nothing, because every user may write labels."""
SEGMENT_LABEL = "vmnic.dev/segment"
RESOURCE = "k8s.v1.cni.cncf.io/resourceName"
_ON = {True: "on", False: "off"}


class _Meta(msgspec.Struct, frozen=True):
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class _Spec(msgspec.Struct, frozen=True):
    config: str = ""


class OwnNetwork(msgspec.Struct, frozen=True):
    """The compared fields of a NetworkAttachmentDefinition that belongs to a pool."""

    metadata: _Meta
    spec: _Spec = _Spec()

    @property
    def pool_uid(self) -> str:
        """Return the UID of the pool that it belongs to, or an empty string if it belongs to none."""
        return self.metadata.annotations.get(POOL_UID, "")

    def covers(self, wanted: OwnNetwork) -> bool:
        """Return whether it contains everything wanted, where other labels and annotations are allowed."""
        here, there = self.metadata, wanted.metadata
        same = there.labels.items() <= here.labels.items() and there.annotations.items() <= here.annotations.items()
        # Other labels may stay, but not a segment that the pool no longer names: networks of one segment are interchangeable.
        segment = here.labels.get(SEGMENT_LABEL) == there.labels.get(SEGMENT_LABEL)
        return same and segment and self.spec == wanted.spec


def render_network(pool: SriovNetworkPool, network: PoolNetwork, resource: str = "") -> OwnNetwork:
    """Build the network's object for sriov-cni (its README, "Configuration reference").

    Args:
        pool: The pool.
        network: The entry of `spec.networks`.
        resource: The resource whose VFs it gives, if the pool has one for each PF.
    """
    resource = resource or pool.resource_name
    labels = {POOL_LABEL: pool.metadata.name, "app.kubernetes.io/managed-by": "vmnic"}
    if network.segment:
        labels[SEGMENT_LABEL] = network.segment
    config: dict[str, Any] = {
        "cniVersion": "1.0.0",
        "name": network_name(pool, network, resource),
        "type": "sriov",
        # Without a VLAN in the configuration a VF keeps its previous one.
        "vlan": network.vlan,
        "vlanQoS": network.vlan_qos,
        "trust": _ON[network.trust],
        "spoofchk": _ON[network.spoof_check],
        "link_state": network.link_state.lower(),
        "ipam": network.ipam,
    }
    # Many NICs do not support rates, so an absent rate is not written as 0.
    rates = {"min_tx_rate": network.min_tx_rate_mbps, "max_tx_rate": network.max_tx_rate_mbps}
    config |= {key: rate for key, rate in rates.items() if rate is not None}
    meta = _Meta(labels=labels, annotations={RESOURCE: resource, POOL_UID: pool.metadata.uid})
    return OwnNetwork(metadata=meta, spec=_Spec(config=json.dumps(config)))


_decoder = msgspec.json.Decoder(OwnNetwork)


def decode_own_network(raw: bytes | msgspec.Raw) -> OwnNetwork | None:
    """Decode the compared fields of a NetworkAttachmentDefinition.

    Returns:
        None if it belongs to no pool.

    Raises:
        msgspec.ValidationError: A field has the wrong type.
    """
    found = _decoder.decode(raw)
    return found if found.pool_uid else None
