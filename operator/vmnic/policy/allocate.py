"""Second phase of a decision, which allocates scarce devices to VMs.

VMs are served by policy priority, then age, then name, so that every process computes the same result. A device that a VM
already has is never given to another VM.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from .capacity import Capacity, can_drive, may_use
from .checks import Finding
from .facts import ClusterFacts, Datapath, GuestOs, VmFacts
from .reasons import Reason
from .types import Candidate, Choices, NicCandidates, NicKey, VmCandidates, first_accepted

__all__ = ["allocate"]


def allocate(
    found: Iterable[VmCandidates], cluster: ClusterFacts, capacity: Capacity | None = None, granted: Choices | None = None
) -> Choices:
    """Choose candidates for all VMs that want devices.

    Args:
        found: VMs. Those that want no device are skipped.
        cluster: Pools, for their migration reserves.
        capacity: Free devices; None if no resource has a known bound.
        granted: Choices of an earlier call that the VMs' specs do not contain yet. They stand.
    """
    book = _Book(cluster, capacity or Capacity())
    earlier = granted or {}
    ordered = sorted(found, key=_turn)
    choices: dict[NicKey, tuple[Candidate, ...]] = {}
    fresh = []
    # Patches with these choices are on their way, so they come off first, regardless of priority.
    for one in ordered:
        standing = _standing(one, earlier)
        if standing:
            choices |= standing
            book.keep(one, standing.values())
        else:
            fresh.append(one)
    for one in fresh:
        key = (one.vm.namespace, one.vm.name)
        # A VM that has to give a device back gets no other one until it has done so.
        made = _reassign_loser(one) if key in book.capacity.overshot else book.choose(one) if one.claims else {}
        choices |= {(*key, name): candidates for name, candidates in made.items()}
    return choices


def _standing(found: VmCandidates, earlier: Choices) -> dict[NicKey, tuple[Candidate, ...]]:
    """Return the choices of an earlier call for the VM if they include a new device."""
    # Once the VM's spec has the device, the NIC no longer claims, and `count_capacity` counts it instead.
    keys = [(found.vm.namespace, found.vm.name, nic.nic.name) for nic in found.nics if nic.claims]
    made = {key: earlier[key] for key in keys if key in earlier}
    given = (first_accepted(one) for one in made.values())
    return made if any(one is not None and one.resource and not one.is_current for one in given) else {}


def _turn(found: VmCandidates) -> tuple[int, str, str, str]:
    """Return the sort key of a VM.

    Highest priority first, then the oldest VM, then by namespace and name.
    """
    priority = max((nic.rule.priority for nic in found.nics if nic.rule is not None), default=0)
    return (-priority, found.vm.created, found.vm.namespace, found.vm.name)


def _reassign_loser(found: VmCandidates) -> dict[str, tuple[Candidate, ...]]:
    """Choose the next candidate without a device for a VM whose device another VM was assigned too."""
    text = "an older VM was assigned the last VF at the same time"
    # Devices of other resources are excluded too: nothing has checked their capacity for this VM.
    lost = Finding(Reason.NO_FREE_VF, text)
    return {
        nic.nic.name: tuple(
            replace(one, finding=lost) if one.resource and one.finding is None else one for one in nic.candidates
        )
        for nic in found.nics
        if nic.claims or any(one.is_current and one.resource for one in nic.candidates)
    }


class _Book:
    """Free devices, counted down while they are allocated."""

    def __init__(self, cluster: ClusterFacts, capacity: Capacity) -> None:
        self._cluster = cluster
        self.capacity = capacity
        self._free = {resource: dict(nodes) for resource, nodes in capacity.free.items()}
        self._idle = dict(capacity.idle)

    def choose(self, found: VmCandidates) -> dict[str, tuple[Candidate, ...]]:
        """Choose candidates for the NICs of one VM, in their order.

        All devices of the VM must fit on one node. A NIC that gives up its device for a better candidate frees room, so the
        choice is repeated until no further NIC gives up its device.
        """
        kept = {nic.nic.name for nic in found.nics if nic.nic.present.datapath.needs_device}
        while True:
            made, taken, nodes = self._try(found, kept)
            chosen = {nic.nic.name: first_accepted(made.get(nic.nic.name, nic.candidates)) for nic in found.nics}
            leaving = {name for name in kept if (pick := chosen[name]) is not None and not pick.is_current}
            if not leaving:
                self._take(found.vm, taken, nodes)
                return made
            # Each round takes a NIC out of `kept`, so the loop ends.
            kept -= leaving

    def _try(self, found: VmCandidates, kept: set[str]) -> tuple[dict[str, tuple[Candidate, ...]], Counter[str], list[str]]:
        """Try one choice in which the NICs of `kept` keep their devices.

        Returns:
            The judged candidates by NIC, the devices that the choice takes, and the nodes on which it fits.
        """
        staying = set(kept)
        taken: Counter[str] = Counter()
        made = {}
        for nic in found.nics:
            if not nic.claims:
                continue
            # The device that this NIC would give up does not limit its nodes.
            has = _devices_of(found, staying - {nic.nic.name})
            told: list[Candidate] = []
            for candidate in nic.candidates:
                one = self._pick(found, nic, candidate, has, taken)
                told.append(one)
                if one.finding is None:
                    if one.resource and not one.is_current:
                        taken[one.resource] += 1
                        staying.discard(nic.nic.name)
                    break
            made[nic.nic.name] = (*told, *nic.candidates[len(told) :])
        nics = _devices_of(found, staying) + taken
        return made, _unfixed(found.vm, taken), self._places(found.vm, nics, taken)

    def _pick(
        self, found: VmCandidates, nic: NicCandidates, one: Candidate, has: Mapping[str, int], taken: Counter[str]
    ) -> Candidate:
        """Choose among the resources that a candidate may take, and judge it.

        Args:
            found: The VM.
            nic: The NIC.
            one: The candidate.
            has: Devices that other NICs of the VM keep, by resource.
            taken: Devices that other NICs of the VM have taken.
        """
        if one.finding is not None or not one.resource or one.is_current:
            return one
        spreads = nic.rule is not None and nic.rule.spreads and one.datapath is Datapath.SRIOV
        used = {resource for resource, count in (Counter(has) + taken).items() if count} if spreads else set()
        offers = [offer for offer in (one, *one.options) if offer.resource not in used]
        if not offers:
            return replace(one, finding=self._find_crowding(one, len(used)))
        if len(offers) > 1:
            room = {one.resource: self._room(found, one, offers, has, taken, spreads=spreads) for one in offers}
            offers = sorted(offers, key=lambda offer: (-room[offer.resource], offer.resource))
        judged = [replace(offer, options=(), finding=finding) for offer, finding in self._refusals(found, offers, has, taken)]
        chosen = next((offer for offer in judged if offer.finding is None), judged[0])
        short = chosen.finding is not None and chosen.finding.reason is Reason.NO_FREE_VF
        return replace(chosen, finding=self._find_crowding(one, len(used))) if short and used else chosen

    def _refusals(
        self, found: VmCandidates, offers: Iterable[Candidate], has: Mapping[str, int], taken: Counter[str]
    ) -> Iterator[tuple[Candidate, Finding | None]]:
        """Yield offers with the reason against each, up to the first one without any."""
        for offer in offers:
            finding = self._refusal(found, offer, has, taken)
            yield offer, finding
            if finding is None:
                return

    def _room(
        self,
        found: VmCandidates,
        offer: Candidate,
        offers: Iterable[Candidate],
        has: Mapping[str, int],
        taken: Counter[str],
        *,
        spreads: bool,
    ) -> int:
        """Return how many devices the other NICs of the VM would find on the best node if this offer is taken.

        More than the VM has NICs do not count, so that it does not take the emptiest node without need.
        """
        wanted = taken + Counter((offer.resource,))
        most = sum(nic.claims for nic in found.nics)
        best = 0
        for node in self._places(found.vm, Counter(has) + wanted, wanted):
            left = {one.resource: self._free.get(one.resource, {}).get(node, 0) - wanted[one.resource] for one in offers}
            room = sum(count > 0 for count in left.values()) if spreads else sum(max(count, 0) for count in left.values())
            if spreads and left[offer.resource] > 0:
                room -= 1
            best = max(best, 1 + min(room, most))
        return best

    def _find_crowding(self, one: Candidate, used: int) -> Finding:
        """Describe that the VFs of a VM cannot come from different functions."""
        pool = self._cluster.resources.get(one.resource)
        if pool is None or not pool.per_pf:
            name = f"pool {pool.name}" if pool is not None else one.resource
            text = f"sriov.spread is PerPf, and {name} has one resource for all functions: set resourcePerPF in a new pool"
        else:
            where = f"has free VFs on {used + 1} functions of pool {pool.name}"
            text = f"sriov.spread is PerPf, and no node that the VM can run on {where}"
        return Finding(Reason.NO_FREE_VF, text)

    def _places(self, vm: VmFacts, nics: Mapping[str, int], taken: Mapping[str, int]) -> list[str]:
        """Return the nodes on which a VM could start, and whose devices its guest can drive.

        Args:
            vm: The VM.
            nics: Devices that its NICs would then have, by resource.
            taken: Those of them that it does not have yet.
        """
        return [name for name in self._having(vm, nics, taken) if can_drive(vm, self.capacity.nodes[name], taken)]

    def _having(self, vm: VmFacts, nics: Mapping[str, int], taken: Mapping[str, int]) -> list[str]:
        """Return the nodes that the VM may use and that have all its devices."""
        needed = self._bounded(vm.requests.count(nics))
        fresh = self._bounded(_unfixed(vm, taken))
        found = []
        for name, node in self.capacity.nodes.items():
            # The devices that the VM has already are not among the free ones of its node. A VM that waits for its start has
            # them on a node that is not known.
            has_some = name == vm.node if vm.started else not vm.halted
            if (
                node.usable
                and may_use(vm, node)
                and all(node.total.get(one, 0) >= count for one, count in needed.items())
                and self._has_free(name, fresh if has_some else needed)
            ):
                found.append(name)
        return found

    def _has_free(self, node: str, devices: Mapping[str, int]) -> bool:
        return all(self._free[one].get(node, 0) >= count for one, count in devices.items())

    def _bounded(self, devices: Mapping[str, int]) -> dict[str, int]:
        return {resource: count for resource, count in devices.items() if resource in self._free}

    def keep(self, found: VmCandidates, made: Iterable[tuple[Candidate, ...]]) -> None:
        """Subtract devices that an earlier call granted to a VM."""
        chosen = [first_accepted(one) for one in made]
        taken = Counter(one.resource for one in chosen if one is not None and one.resource and not one.is_current)
        self._take(found.vm, _unfixed(found.vm, taken), self._places(found.vm, taken, taken))

    def _refusal(self, found: VmCandidates, one: Candidate, has: Mapping[str, int], taken: Counter[str]) -> Finding | None:
        """Return why a device cannot be allocated.

        None if it can be, or if the resource has no known bound.

        Args:
            found: The VM.
            one: The candidate that takes the device.
            has: Devices that other NICs of the VM keep, by resource.
            taken: Devices that other NICs of the VM have taken.
        """
        vm, resource = found.vm, one.resource
        if not resource or one.is_current:
            return None
        wanted = taken + Counter((resource,))
        nics = Counter(has) + wanted
        if vm.requests.exceeds(resource, nics):
            return _find_excess(vm, resource)
        if resource not in self._free:
            return None
        places = self._places(vm, nics, wanted)
        if not places:
            return self._find_shortage(vm, resource, nics, wanted)
        return self._find_reserve(vm, resource, _unfixed(vm, wanted)) or self._find_immobility(found, nics, places)

    def _find_reserve(self, vm: VmFacts, resource: str, wanted: Mapping[str, int]) -> Finding | None:
        """Return for what the free devices are kept, if the VM's pod would get more than now."""
        if not wanted[resource]:
            return None
        # A VM that runs may take devices of stopped VMs, which hold none. Only stopped VMs respect each other's.
        left = sum(self._free[resource].values()) - wanted[resource]
        if vm.halted and left < self._idle.get(resource, 0):
            text = f"the free VFs of {resource} are reserved for stopped VMs that were assigned them before"
            return Finding(Reason.NO_FREE_VF, text)
        pool = self._cluster.resources.get(resource)
        # The reserve is one number for all resources of a pool.
        others = [name for name in pool.resource_names if name != resource] if pool is not None else []
        rest = sum(sum(self._free.get(name, {}).values()) - wanted.get(name, 0) for name in others)
        if pool is not None and left + rest < pool.reserve:
            text = f"pool {pool.name} keeps {pool.reserve} VFs free for migrations"
            return Finding(Reason.NO_MIGRATION_RESERVE, text)
        return None

    def _find_immobility(self, found: VmCandidates, nics: Mapping[str, int], places: list[str]) -> Finding | None:
        """Return why a VM that must stay migratable could not migrate with the devices that it would have.

        Args:
            found: The VM.
            nics: Devices that its NICs would have, by resource.
            places: Nodes on which it could start.
        """
        vm, rule = found.vm, found.effective_rule
        if rule is None or rule.live_migration != "Required":
            return None
        # The target pod of a migration needs all its VFs while the source pod still holds its own.
        needed = self._bounded(vm.requests.count(nics))
        roomy = (
            name
            for name, node in self.capacity.nodes.items()
            if node.usable and may_use(vm, node) and self._has_free(name, needed) and can_drive(vm, node, needed)
        )
        # One of two is another node than the one where the VM starts.
        targets = tuple(itertools.islice(roomy, 2))
        if any(source != target for source in places for target in targets):
            return None
        devices = " and ".join(f"{count} free {_vfs(count)} of {resource}" for resource, count in sorted(needed.items()))
        text = f"liveMigration is Required, and no other node has {devices}, which a migration of the VM would need"
        return Finding(Reason.BLOCKS_MIGRATION, text)

    def _find_shortage(self, vm: VmFacts, resource: str, nics: Mapping[str, int], wanted: Counter[str]) -> Finding:
        """Describe why no node has the devices that a VM wants."""
        if self._having(vm, nics, wanted):
            text = f"the free VFs of {resource} are on nodes whose VFs only Linux guests can drive"
            is_windows = vm.guest_os is GuestOs.WINDOWS
            return Finding(Reason.GUEST_LACKS_VF_DRIVER if is_windows else Reason.GUEST_OS_UNKNOWN, text)
        total = self.capacity.total.get(resource, 0)
        # A VM that runs keeps what it has on its node.
        need = vm.requests.count(nics)[resource] if vm.halted and not vm.started else wanted[resource]
        text = f"no node that the VM can run on has {need} free {_vfs(need)} of {resource} ({total} in total)"
        unread = sorted(name for name, node in self.capacity.nodes.items() if resource in node.unknown)
        more = f"; the NodeNicState of {', '.join(unread[:3])} cannot be read" if unread else ""
        return Finding(Reason.NO_FREE_VF, text + more)

    def _take(self, vm: VmFacts, taken: Counter[str], nodes: list[str]) -> None:
        """Subtract allocated devices from the fitting node with the fewest free ones.

        That keeps large blocks free on other nodes.
        """
        bounded = {resource: count for resource, count in taken.items() if resource in self._free}
        if not bounded:
            return
        if vm.halted:
            # A stopped VM holds no device until it starts. Its devices are reserved only against other stopped VMs.
            for resource, count in bounded.items():
                self._idle[resource] = self._idle.get(resource, 0) + count
            return
        # A choice that stands may fit on no node by now. Then there is nothing left to subtract it from.
        if not nodes:
            return
        best = min(nodes, key=lambda name: (sum(self._free[resource][name] for resource in bounded), name))
        for resource, count in bounded.items():
            self._free[resource][best] -= count


def _devices_of(found: VmCandidates, names: set[str]) -> Counter[str]:
    """Return the devices of some NICs of a VM, by resource."""
    return Counter(nic.nic.present.resource for nic in found.nics if nic.nic.name in names)


def _unfixed(vm: VmFacts, taken: Mapping[str, int]) -> Counter[str]:
    """Return the devices that the VM's pod would get in addition.

    Where the VM's `resources` name the quantity, its pod gets that in any case.
    """
    return Counter({resource: 0 if resource in vm.requests.fixed else count for resource, count in taken.items()})


def _find_excess(vm: VmFacts, resource: str) -> Finding:
    others = vm.requests.others.get(resource, 0)
    beside = f", beside {others} host {'device' if others == 1 else 'devices'}" if others else ""
    text = (
        f"the VM's resources name {vm.requests.fixed[resource]} {resource}, and its pod gets no more"
        f"{beside}: raise the number in spec.template.spec.domain.resources, or remove it"
    )
    return Finding(Reason.PROPERTY_NOT_CARRIED, text)


def _vfs(count: int) -> str:
    return "VF" if count == 1 else "VFs"
