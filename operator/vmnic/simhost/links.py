"""Links of the machine, as rtnetlink and ethtool read and set them.

Measured on igb. A VF's attributes are not set atomically.
"""

from __future__ import annotations

import errno

from ..host.ops import (
    Channels,
    CheckGateway,
    LinkInfo,
    Op,
    ReadChannels,
    ReadEswitchMode,
    ReadLinks,
    ReadUnicast,
    ReadVfs,
    SetChannels,
    SetLink,
    SetVf,
    Value,
    VfInfo,
    is_write,
)
from .kernel import refuse
from .model import DEFAULT_MTU, PASSTHRU, Machine, Pf, Port, Upper, Vf

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
    if is_write(op):
        _write(machine, op)
        return None
    return _read(machine, op)


def _read(machine: Machine, op: Op) -> Value:
    match op:
        case ReadLinks():
            links = tuple(_links(machine))
            machine.restore_vf_links()
            return links
        case ReadVfs(name):
            found = machine.find_link(name)
            return _vfs(found) if isinstance(found, Pf) and not found.moved else _no_vfs(machine, name)
        case ReadUnicast(name):
            return _unicast(machine, name)
        case ReadEswitchMode(pci_address):
            return _eswitch_mode(machine, pci_address)
        case CheckGateway(self_enabled_links):
            return _gateway(machine, self_enabled_links)
        case ReadChannels(name):
            pf = _with_channels(machine, name)
            return Channels(combined=pf.channels, max_combined=pf.max_channels)
    raise refuse(errno.ENOSYS)


def _write(machine: Machine, op: Op) -> None:
    match op:
        case SetLink() if (port := machine.find_port(op.name)) is not None:
            _set_link(port, op)
        case SetLink() if op.up is not None and (upper := _upper(machine, op.name)) is not None:
            upper.up = op.up
        case SetLink() if op.up is not None and isinstance(vf := machine.find_link(op.name), Vf) and not vf.moved:
            vf.up = op.up
            machine.tell_link("newlink", vf)
        case SetLink():
            pf = _pf(machine, op.name)
            mtu = pf.mtu
            _set_link(pf, op)
            machine.tell_link("newlink", pf)
            if pf.mtu != mtu:
                machine.cut_vf_links(pf, "mtu")
        case SetVf():
            pf = _pf(machine, op.name)
            _set_vf(pf, op)
            if pf.up:  # netdev_state_change sends no event for a link that is down.
                machine.tell_link("newlink", pf)
        case SetChannels(name, combined):
            pf = _with_channels(machine, name)
            if not 1 <= combined <= pf.max_channels:
                raise refuse(errno.EINVAL)
            pf.channels = combined
            machine.cut_vf_links(pf, "queues")
        case _:
            raise refuse(errno.ENOSYS)


def _pf(machine: Machine, name: str) -> Pf:
    """Return the PF of a link, and refuse a VF because its driver supports none of these operations."""
    if machine.find_port(name) is not None:
        raise refuse(errno.EOPNOTSUPP)
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


def _upper(machine: Machine, name: str) -> Upper | None:
    return next((upper for upper in machine.uppers if upper.name == name and not upper.moved), None)


def _gateway(machine: Machine, self_enabled_links: tuple[str, ...]) -> str:
    """Return whether the gateway answers, which needs a carrier on a port with a default route.

    A route learned from a router advertisement disappears with the carrier of its link.
    """
    learnt = [pf for pf in machine.pfs.values() if pf.learns and pf.address not in self_enabled_links]
    ways = [*(pf for pf in machine.pfs.values() if pf.default_route), *learnt]
    if not ways:
        return ""
    return "reachable" if any(pf.has_carrier for pf in ways) else "unreachable"


def _set_link(pf: Pf | Port, op: SetLink) -> None:
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
    if not pf.spec.reports_flags and (op.spoof_check, op.trust) != (None, None):
        raise refuse(errno.EOPNOTSUPP)
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


def _vfs(pf: Pf) -> tuple[VfInfo, ...]:
    flags = pf.spec.reports_flags
    return tuple(
        VfInfo(
            vf=vf.index,
            mac=vf.attributes.mac,
            vlan=vf.attributes.vlan,
            qos=vf.attributes.qos,
            vlan_protocol="802.1q",
            spoof_check=vf.attributes.spoof_check if flags else None,
            trust=vf.attributes.trust if flags else None,
            # The kernel fills in these before it asks the driver (rtnl_fill_vfinfo).
            link_state="auto",
            min_tx_rate_mbit=0,
            max_tx_rate_mbit=vf.attributes.max_tx_rate_mbit,
        )
        for vf in pf.vfs
    )


def _no_vfs(machine: Machine, name: str) -> tuple[VfInfo, ...]:
    """Return that a link has no VFs, and refuse a name that no link has."""
    if all(link.name != name for link in _links(machine)):
        raise refuse(errno.ENODEV)
    return ()


def _unicast(machine: Machine, name: str) -> tuple[str, ...]:
    """Return the unicast filter of a link.

    It has the addresses of virtual links on top of the link, also of those in another network namespace (macvlan_open).
    """
    if all(link.name != name for link in _links(machine)):
        raise refuse(errno.ENODEV)
    found = machine.find_link(name)
    added = found.unicast if isinstance(found, Pf) else []
    above = [upper.mac for upper in machine.uppers if upper.lower == name and upper.up and _filters(upper)]
    return tuple(sorted({*added, *above}))


def _filters(upper: Upper) -> bool:
    """Return whether a virtual link enters its address into the filter below it.

    A bridge or bond receives by other means, and a macvlan in passthru mode makes the link promiscuous.
    """
    return upper.kind.startswith("macv") and upper.mode != PASSTHRU


def _eswitch_mode(machine: Machine, address: str) -> str:
    found = machine.find(address)
    # A driver without an e-switch is not registered at devlink, like igb.
    if not isinstance(found, Pf) or not found.driver or not found.spec.eswitch:
        raise refuse(errno.ENODEV)
    return found.spec.eswitch


def _links(machine: Machine) -> list[LinkInfo]:
    """Return all links, with indexes in the order of functions and uppers.

    The further links of a PF come before its own, because the dump is in no useful order on kernels before 6.8: there it
    follows a hash of the index (rtnl_dump_ifinfo).
    """
    named = [one for one in machine.functions() if one.net_name and not one.moved]
    ports = [(pf, port) for pf in machine.pfs.values() for port in pf.ports]
    uppers = [upper for upper in machine.uppers if not upper.moved]
    # Index 1 is the loopback link.
    names = [*(one.net_name for one in named), *(upper.name for upper in uppers), *(port.name for _, port in ports)]
    indexes = {name: index for index, name in enumerate(names, 2)}
    # A bridge or bond is the master of its port. Other uppers name the link below them instead.
    masters = {upper.lower: indexes[upper.name] for upper in uppers if upper.is_master}
    links = [_port_link(pf, port, indexes, masters) for pf, port in ports]
    links += [_function_link(machine, one, indexes, masters) for one in named]
    for upper in uppers:
        lower = None if upper.is_master else indexes.get(upper.lower)
        index = indexes[upper.name]
        links.append(
            LinkInfo(
                index=index,
                name=upper.name,
                type="ether",
                kind=upper.kind,
                mac=upper.mac,
                up=upper.up,
                carrier=upper.up,
                lower=lower,
            )
        )
    return links


def _port_link(pf: Pf, port: Port, indexes: dict[str, int], masters: dict[str, int]) -> LinkInfo:
    return LinkInfo(
        index=indexes[port.name],
        name=port.name,
        type=pf.spec.link_type,
        mac=port.mac,
        mtu=port.mtu,
        up=port.up,
        carrier=port.up,
        phys_port_name=port.phys_port_name,
        pci_address=pf.address,
        master=masters.get(port.name),
        addresses=tuple(port.addresses),
        promiscuity=int(port.name in masters),
    )


def _function_link(machine: Machine, one: Pf | Vf, indexes: dict[str, int], masters: dict[str, int]) -> LinkInfo:
    passed = any(upper.lower == one.net_name and upper.mode == PASSTHRU for upper in machine.uppers)
    common = {
        "index": indexes[one.net_name],
        "name": one.net_name,
        "mac": one.net_mac,
        "pci_address": one.address,
        "master": masters.get(one.net_name),
    }
    if isinstance(one, Vf):
        return LinkInfo(
            **common,  # type: ignore[arg-type]
            type="ether",
            mtu=DEFAULT_MTU,
            up=one.up,
            carrier=machine.has_vf_carrier(one),
            promiscuity=(one.net_name in masters) + passed,
        )
    return LinkInfo(
        **common,  # type: ignore[arg-type]
        type=one.spec.link_type,
        permanent_mac=one.spec.mac,
        alt_names=one.spec.alt_names,
        mtu=one.mtu,
        up=one.up,
        carrier=one.has_carrier,
        # A port of a bridge is promiscuous (br_port_set_promisc), and so is the link below a passthru mode.
        promiscuity=(one.net_name in masters) + passed + one.promiscuous,
        phys_port_name=one.spec.phys_port_name,
        addresses=tuple(one.addresses),
        default_route=one.default_route,
        learnt=("2001:db8::7/64",) if one.learns else (),
        learnt_route=one.learns,
    )
