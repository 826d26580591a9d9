"""Check that a change of datapath loses nothing that protects, limits or places a NIC."""

from __future__ import annotations

from collections.abc import Iterator

from ..facts import Datapath
from ..reasons import Reason
from .check_input import CheckInput, Finding

__all__ = ["property_not_carried"]

_SPOOF_CHECKS = frozenset({"macspoofchk", "spoofchk"})
"""Names of one property in two CNI plugins: frames with another source address are dropped."""
_SHOWN_NAMES = 8


def property_not_carried(question: CheckInput) -> Finding | None:
    """Exclude a datapath that loses a property of the NIC or of its network.

    A property that the administrator of the policy or of a network accepts to lose does not count.
    """
    if question.is_current:
        return None
    lost = [name for name in dict.fromkeys(_lost(question)) if not question.accepts(f"{Reason.PROPERTY_NOT_CARRIED}/{name}")]
    if not lost:
        return None
    more = f" and {len(lost) - _SHOWN_NAMES} more" if len(lost) > _SHOWN_NAMES else ""
    names = ", ".join(lost[:_SHOWN_NAMES]) + more
    accept = ", ".join(f"{Reason.PROPERTY_NOT_CARRIED}/{name}" for name in lost[:_SHOWN_NAMES]) + more
    text = f"{question.datapath} does not carry {names} of NIC {question.nic.name}: remove it, or accept {accept}"
    return Finding(Reason.PROPERTY_NOT_CARRIED, text)


def _lost(question: CheckInput) -> Iterator[str]:
    yield from (one.name for one in question.nic.settings.values() if question.datapath in one.lost_on)
    target = question.target.properties if question.target is not None else {}
    for name, value in question.nic.network.properties.items():
        if target.get(name) != value and not (name in _SPOOF_CHECKS and _checks_spoofing(question)):
            yield name


def _checks_spoofing(question: CheckInput) -> bool:
    """Return whether the new VF or bridge port is known to drop frames with another source address."""
    target, pool = question.target, question.pool
    if target is None:
        return False
    if question.datapath is Datapath.SRIOV:
        return "spoofchk" in target.properties or (pool is not None and pool.spoof_check is True)
    return question.datapath.is_bridged and "macspoofchk" in target.properties
