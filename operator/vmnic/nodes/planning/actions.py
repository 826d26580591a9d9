"""Actions that bring a PF from its observed state to its target, in the order the kernel requires."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from ...api.node_state import VFIO, Action, ActionKind, VfSettings
from ..observed import ObservedPf, ObservedVf
from ..state import range_of
from .target import KERNEL, Binding, Target

__all__ = ["NO_DRIVER", "admin_mac", "fold_indexes", "plan_actions", "unfold_indexes", "wrong_driver"]

NO_DRIVER = "none"
"""Stands in place of a driver for a VF that is unbound."""
_MAC_MASK: Final = 2**48 - 1
_SPREAD: Final = 0x9E3779B97F4B
"""An odd number near 2**48 divided by the golden ratio. Multiples of it are far apart."""


def plan_actions(target: Target, observed: ObservedPf) -> tuple[Action, ...]:
    """Return the actions, or none if the PF already matches its target."""
    rules = tuple(_rule_steps(target, observed))
    if target.whole:
        return (*rules, *_whole_steps(observed))
    making, changing = tuple(_count_steps(target, observed)), tuple(_change_steps(target, observed))
    # Without VFs to change, the link comes last as in any other plan.
    early = _is_raised_early(target, observed) and bool(changing)
    raising = (_step(ActionKind.SET_LINK, "up"),) if early else ()
    return (
        *_option_steps(target, observed),
        *rules,
        *making,
        *raising,
        *changing,
        *_link_steps(target, observed, raised=early),
    )


def _option_steps(target: Target, observed: ObservedPf) -> Iterator[Action]:
    """Yield the write of the module options.

    The driver reads them when it is loaded, now or at the next boot.
    """
    if target.options is not None and target.options != observed.module_options:
        yield _step(ActionKind.WRITE_MODULE_OPTIONS, f"{observed.driver} {target.options}".strip())


def _rule_steps(target: Target, observed: ObservedPf) -> Iterator[Action]:
    """Yield the writes of the rules that create VFs at boot.

    They come first, because udev also applies them when a driver is bound.
    """
    if target.udev_rules is None or sorted(target.udev_rules) == sorted(observed.udev_rules):
        return
    wanted = {rule.split()[0]: rule for rule in target.udev_rules}
    for pool in dict.fromkeys(rule.split()[0] for rule in observed.udev_rules):
        if pool not in wanted:
            yield _step(ActionKind.WRITE_UDEV_RULE, pool)
    for pool, rule in wanted.items():
        if [one for one in observed.udev_rules if one.split()[0] == pool] != [rule]:
            yield _step(ActionKind.WRITE_UDEV_RULE, rule)


def _whole_steps(observed: ObservedPf) -> Iterator[Action]:
    """Yield the actions that put the whole PF on vfio-pci.

    Its VFs would disappear with the PF's driver, so they are removed first.
    """
    if observed.driver == VFIO:
        return
    if observed.num_vfs:
        yield _step(ActionKind.SET_NUM_VFS, 0)
    yield _step(ActionKind.BIND_PF, VFIO)


def _count_steps(target: Target, observed: ObservedPf) -> Iterator[Action]:
    """Yield the actions that bring the number of VFs to the target.

    The kernel refuses another number while VFs exist. An old driver creates VFs only when it is loaded.
    """
    if observed.driver == VFIO:
        # The PF was passed to VMs as a whole NIC. VFs need its own driver.
        yield _step(ActionKind.BIND_PF, KERNEL)
    count = _count(target, observed)
    if count == observed.num_vfs:
        return
    autoprobe = _creating_autoprobe(target, observed)
    if autoprobe != observed.autoprobe:
        yield _step(ActionKind.SET_AUTOPROBE, int(autoprobe))
    # `sriov_numvfs` answers ENOENT. The options come first (`_option_steps`), and loading the driver creates the VFs.
    if observed.by_module:
        yield _step(ActionKind.RELOAD_DRIVER, observed.driver)
        return
    for step in [0] * bool(observed.num_vfs) + [count] * bool(count):
        yield _step(ActionKind.SET_NUM_VFS, step)


def _change_steps(target: Target, observed: ObservedPf) -> Iterator[Action]:
    """Yield the actions that give new or differing VFs their attributes and drivers."""
    count = _count(target, observed)
    if count == observed.num_vfs:
        present = {vf.index: vf for vf in observed.vfs}
        yield from _settings_steps(target, observed, present, count)
        yield from _binding_steps(target, count, observed.autoprobe, lambda one: _any_wrong(one, observed, present))
    else:
        yield from _settings_steps(target, observed, None, count)
        # Also if the kernel binds the VFs by itself, because its driver may be loaded late.
        yield from _binding_steps(target, count, _creating_autoprobe(target, observed), lambda _: True)


def _count(target: Target, observed: ObservedPf) -> int:
    return observed.num_vfs if target.num_vfs is None else target.num_vfs


def _creating_autoprobe(target: Target, observed: ObservedPf) -> bool:
    """Return whether kernel drivers may bind VFs while the VFs are created.

    They may not bind VFs that are meant for vfio-pci, nor VFs that do not have their MAC address yet.
    """
    if not target.num_vfs or target.autoprobe is None:
        return observed.autoprobe
    return target.autoprobe and not target.vfio and not any(map(_assigns_macs, target.bindings))


def _is_raised_early(target: Target, observed: ObservedPf) -> bool:
    """Return whether a link that is down must be up before VFs are changed.

    Rates are refused without a link, and a VF's driver learns the MAC address of the VF only from a PF that is up (igbvf).
    """
    if len(observed.ports) > 1:
        return False
    is_down = _is_fresh(target, observed) or observed.up is False
    return is_down and any(_assigns_macs(one) or _sets_rate(one.settings) for one in target.bindings)


def _is_fresh(target: Target, observed: ObservedPf) -> bool:
    """Return whether a driver binds the PF again.

    This creates a link that is down and has the driver's defaults.
    """
    return observed.driver == VFIO or (observed.by_module and _count(target, observed) != observed.num_vfs)


def _sets_rate(settings: VfSettings | None) -> bool:
    return settings is not None and (settings.min_tx_rate_mbps, settings.max_tx_rate_mbps) != (None, None)


def _assigns_macs(binding: Binding) -> bool:
    """Return whether VFs get a MAC address for their kernel driver.

    The driver reads the address only when it binds the VF.
    """
    return binding.driver == KERNEL and binding.settings is not None and binding.settings.mac_prefix is not None


def _settings_steps(
    target: Target, observed: ObservedPf, present: Mapping[int, ObservedVf] | None, count: int
) -> Iterator[Action]:
    """Yield the actions that set attributes of VFs that are new (`present` is None) or differ.

    Attributes of a VF that is held are left alone, because a CNI or libvirt may have set them. A VF whose link needs
    another MAC address is unbound first. If the agent is killed in between, its next plan then still shows that the VF
    needs an address.
    """
    if _leaves_attributes(observed):
        return
    if present is not None:
        misnamed = sorted(index for one in target.bindings for index in _misnamed(one, observed, present))
        if misnamed:
            yield _step(ActionKind.BIND_VFS, f"{fold_indexes(misnamed)} {NO_DRIVER}")
    for binding in target.bindings:
        settings = binding.settings
        if settings is None:
            continue
        if present is None:
            # New VFs have not been observed, so there is nothing to compare their attributes with.
            yield _step(ActionKind.SET_VFS, _range(binding, count))
            continue
        there = [present[index] for index in binding.indexes if index in present]
        wrong = [vf.index for vf in there if not vf.held and _differs(settings, observed, vf)]
        if wrong:
            yield _step(ActionKind.SET_VFS, fold_indexes(wrong))


def _binding_steps(target: Target, count: int, autoprobe: bool, needs: Callable[[Binding], bool]) -> Iterator[Action]:
    """Yield the actions that bind VFs to their drivers, to vfio-pci first.

    On a PF with both kinds of VFs, autoprobe for kernel drivers is enabled only after the VFs for vfio-pci are bound.
    """
    for driver, autoprobes in ((VFIO, False), (KERNEL, True)):
        bindings = [binding for binding in target.bindings if binding.driver == driver and needs(binding)]
        # While autoprobe is 0, the kernel's drivers do not bind adopted VFs either.
        wanted = target.autoprobe if target.autoprobe is not None or not (autoprobes and bindings) else True
        if wanted is autoprobes and autoprobe is not autoprobes:
            yield _step(ActionKind.SET_AUTOPROBE, int(autoprobes))
        for binding in bindings:
            yield _step(ActionKind.BIND_VFS, f"{_range(binding, count)} {driver}".strip())


def _link_steps(target: Target, observed: ObservedPf, *, raised: bool) -> Iterator[Action]:
    """Yield the actions for the link of the PF.

    Another number of VFs resets the channels, so they follow the VFs. Setting a link down is the last action.
    """
    count = _count(target, observed)
    # The values of a function with several ports apply to one of them, and it is unknown which one is meant.
    if len(observed.ports) > 1:
        return
    if _is_fresh(target, observed):
        # The observed link disappears with the driver, so its values say nothing about the next one.
        yield from _fresh_link_steps(target, raised=raised)
        return
    if target.mtu is not None and observed.mtu != target.mtu:
        yield _step(ActionKind.SET_MTU, target.mtu)
    if target.queues is not None and (observed.queues != target.queues or count != observed.num_vfs):
        yield _step(ActionKind.SET_QUEUES, target.queues)
    # None means that the link is in another network namespace, where the agent cannot set it.
    if target.up is not None and observed.up is not None and (observed.up or raised) != target.up:
        yield _step(ActionKind.SET_LINK, "up" if target.up else "down")


def _fresh_link_steps(target: Target, *, raised: bool) -> Iterator[Action]:
    if target.mtu is not None:
        yield _step(ActionKind.SET_MTU, target.mtu)
    if target.queues is not None:
        yield _step(ActionKind.SET_QUEUES, target.queues)
    if target.up is not None and target.up != raised:
        yield _step(ActionKind.SET_LINK, "up" if target.up else "down")


def fold_indexes(indexes: Sequence[int]) -> str:
    """Format ascending indexes as ranges such as `0-2,5`."""
    starts = [index for index in indexes if index - 1 not in indexes]
    ends = [index for index in indexes if index + 1 not in indexes]
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in zip(starts, ends, strict=True))


def unfold_indexes(text: str, count: int) -> list[int]:
    """Parse the output of `fold_indexes`, where an empty string stands for all of `count` VFs."""
    if not text:
        return list(range(count))
    return [index for part in text.split(",") for index in range_of(part)]


def _differs(wanted: VfSettings, pf: ObservedPf, vf: ObservedVf) -> bool:
    """Return whether an attribute differs from the spec.

    One that the driver does not report equals nothing, except that a driver which reports no trust gives none.
    """
    info = vf.attributes
    # Without values to compare, "differs" would give the same plan after each change.
    if info is None:
        return False
    pairs = (
        (wanted.vlan, info.vlan),
        (wanted.vlan_qos, info.qos),
        (wanted.trust, bool(info.trust)),
        (wanted.spoof_check, info.spoof_check),
        # The spec says `Auto`, the kernel `auto`.
        (wanted.link_state, info.link_state.capitalize() if info.link_state is not None else None),
        (wanted.min_tx_rate_mbps, info.min_tx_rate_mbit),
        (wanted.max_tx_rate_mbps, info.max_tx_rate_mbit),
        (admin_mac(wanted.mac_prefix, pf.mac, vf.index) if wanted.mac_prefix else None, info.mac),
    )
    return any(asked is not None and asked != there for asked, there in pairs)


def admin_mac(prefix: str, pf_mac: str, index: int) -> str:
    """Compute a VF's MAC address from the pool's prefix and the PF's permanent address.

    Ports of a NIC have consecutive addresses, so the PF's address is spread before the VF's index is added (Fibonacci
    hashing). The ranges of 256 VFs of PFs whose addresses differ by less than 2**14 then have no address in common.
    """
    own = int(pf_mac.replace(":", "")[:12] or "0", 16)
    first = (own * _SPREAD & _MAC_MASK) >> 24
    tail = f"{(first + index) & 0xFFFFFF:06x}"
    return f"{prefix}:{tail[:2]}:{tail[2:4]}:{tail[4:]}"


def wrong_driver(wanted: str, vf: ObservedVf) -> bool:
    """Return whether a VF needs another driver, where `kernel` accepts any driver except vfio-pci."""
    return vf.driver != VFIO if wanted == VFIO else vf.driver in ("", VFIO)


def _any_wrong(binding: Binding, observed: ObservedPf, present: Mapping[int, ObservedVf]) -> bool:
    wrong = any(index in present and wrong_driver(binding.driver, present[index]) for index in binding.indexes)
    return wrong or bool(_misnamed(binding, observed, present))


def _misnamed(binding: Binding, observed: ObservedPf, present: Mapping[int, ObservedVf]) -> list[int]:
    """Return the VFs on their kernel driver that need another MAC address and are not held."""
    if not _assigns_macs(binding) or binding.settings is None or _leaves_attributes(observed):
        return []
    address = VfSettings(mac_prefix=binding.settings.mac_prefix)
    there = [present[index] for index in binding.indexes if index in present]
    return [vf.index for vf in there if not (vf.held or wrong_driver(KERNEL, vf)) and _differs(address, observed, vf)]


def _leaves_attributes(observed: ObservedPf) -> bool:
    """Return whether attributes of VFs are left alone.

    In switchdev mode another program sets them, and with several ports it is unknown which one a VF belongs to.
    """
    return observed.is_switchdev or len(observed.ports) > 1


def _range(binding: Binding, count: int) -> str:
    """Format the VFs of a binding, as an empty string if it has all VFs of the PF."""
    indexes = binding.indexes
    if (indexes.start, indexes.stop) == (0, count):
        return ""
    return str(indexes.start) if len(indexes) == 1 else f"{indexes.start}-{indexes.stop - 1}"


def _step(kind: ActionKind, value: int | str) -> Action:
    return Action(kind=kind, value=str(value))
