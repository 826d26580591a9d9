"""The typed steps from what a function is to what it should be, in the order in which the kernel takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from ..observed import ObservedPf, ObservedVf
from ..state import VFIO, Action, ActionKind, VfSettings, range_of
from .target import KERNEL, Binding, Target

__all__ = ["NO_DRIVER", "admin_mac", "fold_indexes", "plan_actions", "unfold_indexes", "wrong_driver"]

NO_DRIVER = "none"
"""In place of a driver: what a VF has is taken from it."""


def plan_actions(target: Target, observed: ObservedPf) -> tuple[Action, ...]:
    """Give the steps; none where the function is as it should be."""
    if target.whole:
        return tuple(_whole_steps(observed))
    making, changing = tuple(_count_steps(target, observed)), tuple(_change_steps(target, observed))
    early = _is_raised_early(target, observed) and bool(changing)
    raising = (_step(ActionKind.SET_LINK, "up"),) if early else ()
    return (*_option_steps(target, observed), *making, *raising, *changing, *_link_steps(target, observed, raised=early))


def _option_steps(target: Target, observed: ObservedPf) -> Iterator[Action]:
    """What the driver is told when it is loaded, now or at the next boot."""
    if target.options is not None and target.options != observed.module_options:
        yield _step(ActionKind.WRITE_MODULE_OPTIONS, f"{observed.driver} {target.options}".strip())


def _whole_steps(observed: ObservedPf) -> Iterator[Action]:
    """VFs would go with the function's driver, so they go first."""
    if observed.driver == VFIO:
        return
    if observed.num_vfs:
        yield _step(ActionKind.SET_NUM_VFS, 0)
    yield _step(ActionKind.BIND_PF, VFIO)


def _count_steps(target: Target, observed: ObservedPf) -> Iterator[Action]:
    """The kernel refuses another number while there are VFs; an old driver makes them only when it is loaded."""
    if observed.driver == VFIO:
        # It was a whole NIC; VFs need its own driver.
        yield _step(ActionKind.BIND_PF, KERNEL)
    count = _count(target, observed)
    if count == observed.num_vfs:
        return
    autoprobe = _creating_autoprobe(target, observed)
    if autoprobe != observed.autoprobe:
        yield _step(ActionKind.SET_AUTOPROBE, int(autoprobe))
    if observed.by_module:
        yield _step(ActionKind.RELOAD_DRIVER, observed.driver)
        return
    for step in [0] * bool(observed.num_vfs) + [count] * bool(count):
        yield _step(ActionKind.SET_NUM_VFS, step)


def _change_steps(target: Target, observed: ObservedPf) -> Iterator[Action]:
    """Give VFs that are new, or differ, their attributes and drivers."""
    count = _count(target, observed)
    if count == observed.num_vfs:
        present = {vf.index: vf for vf in observed.vfs}
        yield from _settings_steps(target, observed, present, count)
        yield from _binding_steps(target, count, observed.autoprobe, lambda one: _any_wrong(one, observed, present))
    else:
        yield from _settings_steps(target, observed, None, count)
        # Also where the kernel binds them by itself: its driver may come late.
        yield from _binding_steps(target, count, _creating_autoprobe(target, observed), lambda _: True)


def _count(target: Target, observed: ObservedPf) -> int:
    return observed.num_vfs if target.num_vfs is None else target.num_vfs


def _creating_autoprobe(target: Target, observed: ObservedPf) -> bool:
    """Whether kernel drivers may take VFs while they are made: not those for vfio-pci, nor before they have their address."""
    if not target.num_vfs or target.autoprobe is None:
        return observed.autoprobe
    return target.autoprobe and not target.vfio and not any(map(_names_links, target.bindings))


def _is_raised_early(target: Target, observed: ObservedPf) -> bool:
    """Whether a link that is down must be up before VFs are changed.

    Rates are refused without a link, and a VF's driver learns the VF's address from a function that is up (igbvf).
    """
    is_down = _is_fresh(target, observed) or observed.up is False
    return is_down and any(_names_links(one) or _sets_rate(one.settings) for one in target.bindings)


def _is_fresh(target: Target, observed: ObservedPf) -> bool:
    """Whether a driver takes the function anew: that makes a link that is down, with values of its own."""
    return observed.driver == VFIO or (observed.by_module and _count(target, observed) != observed.num_vfs)


def _sets_rate(settings: VfSettings | None) -> bool:
    return settings is not None and (settings.min_tx_rate_mbps, settings.max_tx_rate_mbps) != (None, None)


def _names_links(binding: Binding) -> bool:
    """Whether VFs get an address that their kernel driver is to use: it reads that only when it takes them."""
    return binding.driver == KERNEL and binding.settings is not None and binding.settings.mac_prefix is not None


def _settings_steps(
    target: Target, observed: ObservedPf, present: Mapping[int, ObservedVf] | None, count: int
) -> Iterator[Action]:
    """Set attributes of VFs that are new (`present` is None) or differ.

    Those of a VF that somebody holds are not vmnic's, as a CNI or libvirt may have set them. A VF whose link is to have another
    address loses its driver first, so that whoever goes on after a kill sees that it needs one.
    """
    if present is not None:
        misnamed = sorted(index for one in target.bindings for index in _misnamed(one, observed, present))
        if misnamed:
            yield _step(ActionKind.BIND_VFS, f"{fold_indexes(misnamed)} {NO_DRIVER}")
    for binding in target.bindings:
        settings = binding.settings
        if settings is None:
            continue
        if present is None:
            yield _step(ActionKind.SET_VFS, _range(binding, count))
            continue
        there = [present[index] for index in binding.indexes if index in present]
        wrong = [vf.index for vf in there if not vf.held and _differs(settings, observed, vf)]
        if wrong:
            yield _step(ActionKind.SET_VFS, fold_indexes(wrong))


def _binding_steps(target: Target, count: int, autoprobe: bool, needs: Callable[[Binding], bool]) -> Iterator[Action]:
    """Give VFs their drivers, vfio-pci's first: where a function has both sorts, the kernel's are let in only after them."""
    for driver, lets in ((VFIO, False), (KERNEL, True)):
        bindings = [binding for binding in target.bindings if binding.driver == driver and needs(binding)]
        # The kernel lets no driver of its own take adopted VFs either while it is 0.
        wanted = target.autoprobe if target.autoprobe is not None or not (lets and bindings) else True
        if wanted is lets and autoprobe is not lets:
            yield _step(ActionKind.SET_AUTOPROBE, int(lets))
        for binding in bindings:
            yield _step(ActionKind.BIND_VFS, f"{_range(binding, count)} {driver}".strip())


def _link_steps(target: Target, observed: ObservedPf, *, raised: bool) -> Iterator[Action]:
    """Another number of VFs resets the channels, so they come last; a link is switched down last of all."""
    count = _count(target, observed)
    if _is_fresh(target, observed):
        yield from _fresh_link_steps(target, raised=raised)
        return
    if target.mtu is not None and observed.mtu != target.mtu:
        yield _step(ActionKind.SET_MTU, target.mtu)
    if target.queues is not None and (observed.queues != target.queues or count != observed.num_vfs):
        yield _step(ActionKind.SET_QUEUES, target.queues)
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
    """Write ascending indexes as ranges: `0-2,5`."""
    starts = [index for index in indexes if index - 1 not in indexes]
    ends = [index for index in indexes if index + 1 not in indexes]
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in zip(starts, ends, strict=True))


def unfold_indexes(text: str, count: int) -> list[int]:
    """Read what `fold_indexes` wrote; empty: all of `count`."""
    if not text:
        return list(range(count))
    return [index for part in text.split(",") for index in range_of(part)]


def _differs(wanted: VfSettings, pf: ObservedPf, vf: ObservedVf) -> bool:
    """Whether an attribute that can be read back is not as asked."""
    info = vf.attributes
    if info is None:
        return False
    pairs = (
        (wanted.vlan, info.vlan),
        (wanted.vlan_qos, info.qos),
        (wanted.trust, info.trust),
        (wanted.spoof_check, info.spoof_check),
        (wanted.link_state, info.link_state.capitalize()),
        (wanted.min_tx_rate_mbps, info.min_tx_rate_mbit),
        (wanted.max_tx_rate_mbps, info.max_tx_rate_mbit),
        (admin_mac(wanted.mac_prefix, pf.mac, vf.index) if wanted.mac_prefix else None, info.mac),
    )
    return any(asked is not None and asked != there for asked, there in pairs)


def admin_mac(prefix: str, pf_mac: str, index: int) -> str:
    """Make a VF's address from the pool's prefix and the function's own address, so that no other node makes the same.

    The last three bytes are the function's own last three plus the VF's index and one.
    """
    own = int(pf_mac.replace(":", "")[-6:] or "0", 16)
    tail = f"{(own + index + 1) & 0xFFFFFF:06x}"
    return f"{prefix}:{tail[:2]}:{tail[2:4]}:{tail[4:]}"


def wrong_driver(wanted: str, vf: ObservedVf) -> bool:
    """`kernel` means any driver of the kernel's own but vfio-pci."""
    return vf.driver != VFIO if wanted == VFIO else vf.driver in ("", VFIO)


def _any_wrong(binding: Binding, observed: ObservedPf, present: Mapping[int, ObservedVf]) -> bool:
    wrong = any(index in present and wrong_driver(binding.driver, present[index]) for index in binding.indexes)
    return wrong or bool(_misnamed(binding, observed, present))


def _misnamed(binding: Binding, observed: ObservedPf, present: Mapping[int, ObservedVf]) -> list[int]:
    """VFs on their kernel driver, held by nobody, that are to have another address."""
    if not _names_links(binding) or binding.settings is None:
        return []
    address = VfSettings(mac_prefix=binding.settings.mac_prefix)
    there = [present[index] for index in binding.indexes if index in present]
    return [vf.index for vf in there if not (vf.held or wrong_driver(KERNEL, vf)) and _differs(address, observed, vf)]


def _range(binding: Binding, count: int) -> str:
    """Name the VFs of a binding; empty: all."""
    indexes = binding.indexes
    if (indexes.start, indexes.stop) == (0, count):
        return ""
    return str(indexes.start) if len(indexes) == 1 else f"{indexes.start}-{indexes.stop - 1}"


def _step(kind: ActionKind, value: int | str) -> Action:
    return Action(kind=kind, value=str(value))
