"""Decoding of NodeNicStates, and helpers to read their ranges of VFs."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import msgspec

from ..api.node_state import NodeNicState, NodeSpec, NodeStatus, ObjectMeta, PfSpec, VfGroup, VfRange
from ..checked.devices import read_vf_range

__all__ = ["decode_node_state", "decode_own_state", "group_of", "indexes_of", "range_of"]


def group_of(spec: PfSpec, pool: str) -> VfGroup | None:
    """Return a pool's share of a PF, or None if it has none."""
    return next((group for group in spec.groups if group.pool == pool), None)


def indexes_of(spec: PfSpec, group: VfGroup) -> range:
    """Return the indexes of the VFs of a group."""
    return range_of(group.range) if group.range else range(spec.num_vfs)


@functools.lru_cache(maxsize=1024)
def range_of(text: str) -> range:
    """Parse a range of VF indexes such as `0-6` or `3`, and return an empty range if it is malformed."""
    return read_vf_range(text) or range(0)


class _Report(msgspec.Struct, frozen=True):
    """A NodeNicState without its spec."""

    metadata: ObjectMeta
    status: NodeStatus = NodeStatus()


class _Orders(msgspec.Struct, frozen=True):
    """A NodeNicState without its status."""

    metadata: ObjectMeta
    spec: NodeSpec = NodeSpec()


_FAULT_CHARS = 256
_decoder = msgspec.json.Decoder(NodeNicState)
_report_decoder = msgspec.json.Decoder(_Report)
_orders_decoder = msgspec.json.Decoder(_Orders)


def decode_node_state(raw: bytes | msgspec.Raw) -> NodeNicState:
    """Decode a NodeNicState.

    A status that is out of bounds, or that contains values of a newer version, is set aside, and `unreadable` says why.

    Raises:
        ValueError: Metadata or spec cannot be decoded. The message contains the path.
    """
    try:
        found = _decoder.decode(raw)
        fault = _find_fault(found.status)
    except (ValueError, RecursionError) as error:
        # The first pass does not say whether spec or status is wrong. If the spec decodes alone, the status was wrong.
        found, fault = _decode_orders(raw), str(error)
    # The decoder also fills `unreadable` from JSON. A fault counts only if it was found here.
    if fault or found.unreadable or found.spec_unreadable:
        return NodeNicState(
            metadata=found.metadata,
            spec=found.spec,
            status=NodeStatus() if fault else found.status,
            unreadable=fault[:_FAULT_CHARS],
        )
    return found


def decode_own_state(raw: bytes | msgspec.Raw) -> NodeNicState:
    """Decode the agent's own NodeNicState, also if its spec is malformed.

    A malformed spec is replaced by an empty one, which asks for nothing, and `spec_unreadable` says why.

    Raises:
        ValueError: Neither spec nor status can be decoded. The message contains the path.
    """
    try:
        return decode_node_state(raw)
    except ValueError as error:
        # The agent goes on with an empty spec, which is not synced: it writes nothing to the host and publishes the fault.
        found = _report_decoder.decode(raw)
        return NodeNicState(metadata=found.metadata, status=found.status, spec_unreadable=str(error)[:_FAULT_CHARS])


def _decode_orders(raw: bytes | msgspec.Raw) -> NodeNicState:
    try:
        orders = _orders_decoder.decode(raw)
    except RecursionError as error:
        raise ValueError("a NodeNicState is nested too deeply") from error
    return NodeNicState(metadata=orders.metadata, spec=orders.spec)


def _find_fault(status: NodeStatus) -> str:
    """Describe a fault that the bounds of single fields cannot express.

    Returns:
        An empty string if there is none.
    """
    addresses = {pf.pci_address for pf in status.pfs}
    if len(addresses) < len(status.pfs):
        return "two entries of status.pfs have one pciAddress"
    # A VF that an agent lists twice would be given to two VMs.
    if any(len(set(pf.vf_addresses)) < len(pf.vf_addresses) for pf in status.pfs):
        return "status.pfs[].vfAddresses has an address twice"
    faults = (_find_range_fault(pf.vfs) for pf in status.pfs)
    return next(filter(None, faults), "")


def _find_range_fault(parts: Iterable[VfRange]) -> str:
    """Describe the first range that is malformed or out of order.

    Returns:
        An empty string if there is none.
    """
    end = 0
    for part in parts:
        indexes = range_of(part.range)
        # Overlapping ranges would let an agent count one VF several times (`_count_vfio` in pools/shares.py).
        if not indexes or indexes.start < end:
            return f"status.pfs[].vfs[].range: {part.range} is reversed, or does not come after the range before it"
        end = indexes.stop
    return ""
