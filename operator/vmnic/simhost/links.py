"""Links of the machine, as rtnetlink and ethtool read and set them.

Measured on igb. A VF's attributes are not set atomically.
"""

from __future__ import annotations

import errno

from ..host.ops import Channels, CheckGateway, LinkInfo, Op, ReadChannels, ReadLinks, SetChannels, SetLink, SetVf, Value, VfInfo
from .kernel import refuse
from .model import Machine, Pf, Vf

__all__ = ["perform_on_links"]

_MTU_BYTES = (68, 9216)
"""Bounds of igb."""
_MAX_VLAN = 4095
_MAX_QOS = 7


def perform_on_links(machine: Machine, op: Op) -> Value:
    """Perform an operation on links.

    Raises:
        OSError: The kernel refuses.
    """
    match op:
        case ReadLinks():
            return tuple(_links(machine))
        case CheckGateway(self_enabled_links):
            return _gateway(machine, self_enabled_links)
        case SetLink():
            _set_link(_pf(machine, op.name), op)
            machine.tell_link("newlink", _pf(machine, op.name))
        case SetVf():
            pf = _pf(machine, op.name)
            _set_vf(pf, op)
            if pf.up:  # netdev_state_change sends no event for a link that is down.
                machine.tell_link("newlink", pf)
        case ReadChannels(name):
            pf = _with_channels(machine, name)
            return Channels(combined=pf.channels, max_combined=pf.max_channels)
        case SetChannels(name, combined):
            pf = _with_channels(machine, name)
            if not 1 <= combined <= pf.max_channels:
                raise refuse(errno.EINVAL)
            pf.channels = combined
        case _:
            raise refuse(errno.ENOSYS)
    return None


def _pf(machine: Machine, name: str) -> Pf:
    """Return the PF of a link, and refuse a VF because its driver supports none of these operations."""
    found = machine.find_link(name)
    if found is None or found.moved:
        raise refuse(errno.ENODEV)
    if isinstance(found, Vf):
        raise refuse(errno.EOPNOTSUPP)
    return found


def _with_channels(machine: Machine, name: str) -> Pf:
    """Return the PF of a link, and refuse one whose driver has no `get_channels` (e1000e, r8169)."""
    pf = _pf(machine, name)
    if not pf.profile.channels:
        raise refuse(errno.EOPNOTSUPP)
    return pf


def _gateway(machine: Machine, self_enabled_links: tuple[str, ...]) -> str:
    """Return whether the gateway answers, which needs a carrier on a port with a default route.

    A route learned from a router advertisement disappears with the carrier of its link.
    """
    learnt = [pf for pf in machine.pfs.values() if pf.learns and pf.address not in self_enabled_links]
    ways = [*(pf for pf in machine.pfs.values() if pf.default_route), *learnt]
    if not ways:
        return ""
    return "reachable" if any(pf.has_carrier for pf in ways) else "unreachable"


def _set_link(pf: Pf, op: SetLink) -> None:
    if op.mtu is not None:
        if not _MTU_BYTES[0] <= op.mtu <= _MTU_BYTES[1]:
            raise refuse(errno.EINVAL)
        pf.mtu = op.mtu
    if op.up is not None:
        pf.up = op.up


def _set_vf(pf: Pf, op: SetVf) -> None:
    """Set attributes one by one in the kernel's order (do_setvfinfo).

    Attributes that were set before a refusal stay set.
    """
    if op.vf >= pf.num_vfs:
        raise refuse(errno.EINVAL)
    attributes = pf.vfs[op.vf].attributes
    if op.mac is not None:
        if int(op.mac.split(":")[0], 16) & 1:
            raise refuse(errno.EINVAL)
        attributes.mac = op.mac
    if op.vlan is not None:
        _check_vlan(op)
        attributes.vlan, attributes.qos = op.vlan, op.qos or 0
    if op.min_tx_rate_mbit is not None or op.max_tx_rate_mbit is not None:
        _check_rate(pf, op)
        attributes.max_tx_rate_mbit = op.max_tx_rate_mbit or 0
    if op.spoof_check is not None:
        attributes.spoof_check = op.spoof_check
    # igb has no `ndo_set_vf_link_state`.
    if op.link_state is not None:
        raise refuse(errno.EOPNOTSUPP)
    if op.trust is not None:
        attributes.trust = op.trust


def _check_vlan(op: SetVf) -> None:
    # igb knows only 802.1Q.
    if op.vlan_protocol == "802.1ad":
        raise refuse(errno.EPROTONOSUPPORT)
    if not 0 <= (op.vlan or 0) <= _MAX_VLAN or not 0 <= (op.qos or 0) <= _MAX_QOS:
        raise refuse(errno.EINVAL)


def _check_rate(pf: Pf, op: SetVf) -> None:
    # Of igb's NICs only the 82576 limits rates.
    if not pf.profile.rate_limit:
        raise refuse(errno.EOPNOTSUPP)
    # igb refuses any minimum, and every rate while the port has no link (`igb_ndo_set_vf_bw`).
    fits = 0 <= (op.max_tx_rate_mbit or 0) <= pf.profile.speed_mbps
    if op.min_tx_rate_mbit or not fits or not (pf.up and pf.cable):
        raise refuse(errno.EINVAL)


def _links(machine: Machine) -> list[LinkInfo]:
    """Return all links, with indexes in the order of functions and uppers."""
    named = [one for one in machine.functions() if one.net_name and not one.moved]
    # Index 1 is the loopback link.
    indexes = {
        name: index for index, name in enumerate([*(one.net_name for one in named), *(u.name for u in machine.uppers)], 2)
    }
    # A bridge or bond is the master of its port. Other uppers name the link below them instead.
    masters = {upper.lower: indexes[upper.name] for upper in machine.uppers if upper.is_master}
    links = [_function_link(one, indexes, masters) for one in named]
    for upper in machine.uppers:
        lower = None if upper.is_master else indexes.get(upper.lower)
        links.append(LinkInfo(index=indexes[upper.name], name=upper.name, kind=upper.kind, up=True, lower=lower))
    return links


def _function_link(one: Pf | Vf, indexes: dict[str, int], masters: dict[str, int]) -> LinkInfo:
    common = {"index": indexes[one.net_name], "name": one.net_name, "mac": one.net_mac, "pci_address": one.address}
    if isinstance(one, Vf):
        return LinkInfo(**common, master=masters.get(one.net_name))  # type: ignore[arg-type]
    return LinkInfo(
        **common,  # type: ignore[arg-type]
        alt_names=one.spec.alt_names,
        mtu=one.mtu,
        up=one.up,
        carrier=one.has_carrier,
        master=masters.get(one.net_name),
        addresses=tuple(one.addresses),
        default_route=one.default_route,
        learnt=("2001:db8::7/64",) if one.learns else (),
        learnt_route=one.learns,
        vfs=tuple(
            VfInfo(
                vf=vf.index,
                mac=vf.attributes.mac,
                vlan=vf.attributes.vlan,
                qos=vf.attributes.qos,
                spoof_check=vf.attributes.spoof_check,
                trust=vf.attributes.trust,
                max_tx_rate_mbit=vf.attributes.max_tx_rate_mbit,
            )
            for vf in one.vfs
        ),
    )
