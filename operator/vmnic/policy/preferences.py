"""Candidates of a NIC.

The datapaths that a rule names, in order, and the network that offers each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from .checks import CheckInput, Finding, first_finding, start_warnings
from .facts import ClusterFacts, Datapath, GuestOs, Network, NicFacts, Platform, VmFacts
from .queues import pressure_on
from .reasons import Reason
from .rules import Rule
from .types import Candidate

__all__ = ["evaluate_nic", "judge_present", "keeps_current"]

_NO_BRIDGES = ("macvtap", "sriov", "ib-sriov", "host-device")
"""CNI plugins whose networks an emulated or virtio NIC cannot use."""
_WINDOWS = Finding(
    Reason.VIRTIO_NOT_CHOSEN_FOR_WINDOWS,
    "auto keeps Windows off virtio, which has shown brief disconnects: name vhost in spec.datapaths to have it",
)


def keeps_current(vm: VmFacts, rule: Rule) -> bool:
    """Return whether `auto` leaves a NIC as it is if no candidate is accepted."""
    return not rule.datapaths and vm.guest_os is GuestOs.WINDOWS and pressure_on(vm, rule) == "High"


def evaluate_nic(vm: VmFacts, nic: NicFacts, rule: Rule, effective_rule: Rule, cluster: ClusterFacts) -> tuple[Candidate, ...]:
    """Return each datapath that the rule names for the NIC, with its first finding if there is one."""
    chain = rule.datapaths or _auto(vm, rule, effective_rule)
    if vm.platform is Platform.KUBEVIRT:
        # KubeVirt has one setting for virtio and vhost.
        chain = tuple(dict.fromkeys(Datapath.VHOST if one is Datapath.VIRTIO else one for one in chain))
    found = tuple(_candidate(_Asked(vm, nic, rule, effective_rule, cluster), datapath) for datapath in chain)
    if not rule.datapaths and vm.guest_os is GuestOs.WINDOWS:
        return (*found, Candidate(datapath=Datapath.VHOST, finding=_WINDOWS))
    return found


def judge_present(
    vm: VmFacts, nic: NicFacts, rule: Rule, effective_rule: Rule, cluster: ClusterFacts
) -> tuple[Finding | None, tuple[Finding, ...]]:
    """Check the datapath that a NIC has, whether or not the rule names it.

    Returns:
        Why it would be excluded as a candidate, and what fails at the next start with it.
    """
    if nic.present.datapath is Datapath.OTHER:
        return None, ()
    question = CheckInput(
        vm=vm, nic=nic, cluster=cluster, rule=rule, effective_rule=effective_rule,
        datapath=nic.present.datapath, target=nic.network, resource=nic.present.resource,
    )  # fmt: skip
    return first_finding(question), start_warnings(question)


def _auto(vm: VmFacts, rule: Rule, effective_rule: Rule) -> tuple[Datapath, ...]:
    """Return the datapaths of `auto`.

    For Windows vhost is added by the caller for display only, never chosen.
    """
    high = pressure_on(vm, rule) == "High"
    match vm.guest_os:
        case GuestOs.WINDOWS if high:
            return (Datapath.SRIOV, Datapath.PASSTHROUGH) if rule.passthrough_pool else (Datapath.SRIOV,)
        case GuestOs.WINDOWS:
            return (Datapath.EMULATED,)
        case GuestOs.LINUX if high:
            # KubeVirt migrates a VM with a VF by detaching it, but it cannot migrate a VM with macvtap.
            macvtap = (Datapath.MACVTAP,) if effective_rule.live_migration == "NotNeeded" else ()
            return (Datapath.SRIOV, *macvtap, Datapath.VHOST)
        case GuestOs.LINUX:
            return (Datapath.VHOST,)
        case GuestOs.UNKNOWN:
            return ()


@dataclass(frozen=True, slots=True)
class _Asked:
    vm: VmFacts
    nic: NicFacts
    rule: Rule
    effective_rule: Rule
    cluster: ClusterFacts


def _candidate(asked: _Asked, datapath: Datapath) -> Candidate:
    nic = asked.nic
    target: Network | None = nic.network
    match datapath:
        case Datapath.SRIOV:
            return _first_of([_judged(asked, datapath, network, name) for network, name in _vf_sources(asked)])
        case Datapath.PASSTHROUGH:
            names = _resources_of(asked.rule.passthrough_pool, asked.cluster)
            is_there = nic.present.datapath is datapath and nic.present.resource in names
            kept = (nic.present.resource,) if is_there else names
            return _first_of([_judged(asked, datapath, None, name) for name in kept])
        # A NIC that has macvtap stays on its network, even if another macvtap network comes first by name.
        case Datapath.MACVTAP if nic.present.datapath is not Datapath.MACVTAP:
            target = _macvtap_source(asked)
        # Emulated and virtio NICs use the same bridge, so only a NIC with another binding has to look for one.
        case _ if not nic.present.datapath.is_bridged and datapath.is_bridged:
            target = _bridge(asked)
    return _judged(asked, datapath, target, "")


def _first_of(judged: list[Candidate]) -> Candidate:
    """Return the first candidate that nothing excludes, with the others as its options."""
    usable = [one for one in judged if one.finding is None]
    return replace(usable[0], options=tuple(usable[1:])) if usable else judged[0]


def _judged(asked: _Asked, datapath: Datapath, target: Network | None, resource: str) -> Candidate:
    question = CheckInput(
        vm=asked.vm, nic=asked.nic, cluster=asked.cluster, rule=asked.rule, effective_rule=asked.effective_rule,
        datapath=datapath, target=target, resource=resource,
    )  # fmt: skip
    return Candidate(
        datapath=datapath, finding=first_finding(question), network=target, resource=resource, is_current=question.is_current
    )


def _resources_of(pool: str, cluster: ClusterFacts) -> tuple[str, ...]:
    """Return the device resources of a pool, or its default name if the pool does not exist."""
    known = cluster.pools.get(pool)
    # With the default name the candidate is still reported, and `pool_not_ready` names the pool that does not exist.
    return known.resource_names if known is not None else (f"vmnic.dev/{pool}",)


def _vf_sources(asked: _Asked) -> list[tuple[Network | None, str]]:
    """Return the networks whose VFs the NIC could get, and their resources, all of one pool.

    The present network is kept if it fits.
    """
    rule, nic, cluster = asked.rule, asked.nic, asked.cluster
    named: tuple[str, ...] = (rule.sriov_resource,) if rule.sriov_resource else ()
    named = named or (_resources_of(rule.sriov_pool, cluster) if rule.sriov_pool else ())
    # Without its network the NIC's present resource is unknown. That is no reason to give it another one.
    if nic.present.datapath is Datapath.SRIOV and (not named or nic.present.resource in named or not nic.network.known):
        return [(nic.network, nic.present.resource)]
    if asked.vm.platform is Platform.LIBVIRT:
        # libvirt has no network objects. A rule that names the pool vouches for the segment.
        return [(Network(resource_name=name) if rule.sriov_pool else None, name) for name in named or ("",)]
    # Resources of other operators do not count unless a policy names them: vmnic knows only what pools have prepared.
    allowed = set(named) or {name for pool in cluster.pools.values() if not pool.physical for name in pool.resource_names}
    found: dict[str, Network] = {}
    for network in nic.equivalents:
        if network.resource_name in allowed:
            found.setdefault(network.resource_name, network)
    if not found:
        return [(None, named[0] if named else "")]
    pool = cluster.resources.get(next(iter(found)))
    of_one = (name for name in found if pool is None or name in pool.resource_names)
    return [(found[name], name) for name in of_one]


def _macvtap_source(asked: _Asked) -> Network | None:
    """Return the macvtap network of the NIC's segment, or on libvirt the uplink of the rule's pool."""
    if asked.vm.platform is Platform.LIBVIRT:
        pool = asked.cluster.pools.get(asked.rule.sriov_pool)
        return Network(name=pool.uplinks[0]) if pool is not None and pool.uplinks else None
    return next((network for network in asked.nic.equivalents if network.cni_type == "macvtap"), None)


def _bridge(asked: _Asked) -> Network | None:
    """Return the first network of the segment that an emulated or virtio NIC can use."""
    if asked.vm.platform is Platform.LIBVIRT:
        return None
    return next(_bridges(asked.nic.equivalents, asked.cluster), None)


def _bridges(networks: Iterable[Network], cluster: ClusterFacts) -> Iterator[Network]:
    # A VF network may use any CNI plugin, so a pool's resource also marks it.
    return (one for one in networks if one.cni_type not in _NO_BRIDGES and one.resource_name not in cluster.resources)
