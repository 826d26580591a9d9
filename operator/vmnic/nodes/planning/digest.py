"""Digest that names a plan. A grant is a digest, so it allows one plan on one observed state, once."""

from __future__ import annotations

import hashlib
import json

import msgspec

from ...api.node_state import Action, PfSpec
from ..observed import ObservedPf

__all__ = ["digest_of", "same_desired"]

_LENGTH = 32
"""Hexadecimal digits. 128 bits rule out accidental collisions and are short enough to read aloud."""


def digest_of(desired: PfSpec, observed: ObservedPf, actions: tuple[Action, ...], *, boot_id: str, attempt: int) -> str:
    """Compute the digest of attempt, boot, spec, actions and the observed values that they rely on.

    Messages, holders, generations and times are left out, because they may change without changing what would be written.
    """
    parts = {
        "attempt": attempt,
        "boot": boot_id,
        "desired": _desired(desired),
        "actions": [[action.kind.value, action.value] for action in actions],
        "observed": [
            observed.driver,
            observed.total_vfs,
            observed.num_vfs,
            observed.autoprobe,
            observed.mtu,
            observed.queues,
            observed.up,
            observed.module_options,
            # Only whether the host uses the PF matters. The words name addresses and routes, which change by themselves.
            bool(observed.host_use),
            [[vf.index, vf.pci_address, vf.driver] for vf in observed.vfs],
            *observed.udev_rules,
        ],
    }
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def same_desired(one: PfSpec, other: PfSpec) -> bool:
    """Return whether two specs ask the same of a PF, apart from pool and grant."""
    return _desired(one) == _desired(other)


def _desired(spec: PfSpec) -> list[object]:
    # Pool, resource and device plugin change what the kubelet sees, not what is written to the host. Attributes that are None
    # are omitted, so an attribute of a newer version leaves the digests of other plans as they are.
    groups = [[group.range, group.driver, msgspec.to_builtins(group.settings)] for group in spec.groups]
    return [
        spec.function,
        spec.management,
        spec.persistence,
        spec.num_vfs,
        spec.mtu,
        spec.queues,
        spec.allow_host_used,
        spec.release,
        groups,
    ]
