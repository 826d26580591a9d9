"""Check that a change of datapath loses nothing that protects, limits or places a NIC."""

from __future__ import annotations

from collections.abc import Iterator

from ..facts import Datapath
from ..reasons import Reason
from .check_input import CheckInput, Finding

__all__ = ["property_not_carried"]

_SPOOF_CHECKS = frozenset({"macspoofchk", "spoofchk"})
"""Names of one property in two CNI plugins: frames with another source address are dropped."""


def property_not_carried(question: CheckInput) -> Finding | None:
    """Exclude a datapath that loses a property of the NIC or of its network.

    A property that the administrator of the policy or of a network accepts to lose does not count.
    """
    if not question.moves:
        return None
    lost = [name for name in dict.fromkeys(_lost(question)) if not question.accepts(f"{Reason.PROPERTY_NOT_CARRIED}/{name}")]
    if not lost:
        return None
    accept = ", ".join(f"{Reason.PROPERTY_NOT_CARRIED}/{name}" for name in lost)
    text = f"{question.datapath} does not carry {', '.join(lost)} of NIC {question.nic.name}: remove it, or accept {accept}"
    return Finding(Reason.PROPERTY_NOT_CARRIED, text)


def _lost(question: CheckInput) -> Iterator[str]:
    yield from (one.name for one in question.nic.settings.values() if question.datapath in one.lost_on)
    target = question.target.properties if question.target is not None else {}
    for name, value in question.nic.network.properties.items():
        if target.get(name) != value and not (name in _SPOOF_CHECKS and _checks_spoofing(question)):
            yield name


def _checks_spoofing(question: CheckInput) -> bool:
    """Return whether the new VF is known to drop frames with another source address."""
    if question.datapath is not Datapath.SRIOV or question.target is None:
        return False
    pool = question.pool
    return "spoofchk" in question.target.properties or (pool is not None and pool.spoof_check is True)
