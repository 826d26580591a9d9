"""States of nodes, from the cluster and from HostRecords in files."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from ..api.node_state import NodeNicState
from ..kube.connection import ConnectionFileError
from ..kube.errors import ApiError
from ..records.record import HostRecord
from . import live
from .common import read_live, warn_set_aside
from .objects import Objects
from .recorded import add_host_files, plan_recorded
from .set_aside import SetAside
from .terminal import warn

__all__ = ["FoundStates", "read_states"]


@dataclass(frozen=True, kw_only=True)
class FoundStates:
    """States of the nodes that were asked for."""

    states: list[NodeNicState]
    records: dict[str, HostRecord] = field(default_factory=dict)
    """Records in the given files by node."""
    from_records: frozenset[str] = frozenset()
    """Nodes whose state was made from their record."""
    set_aside: list[SetAside] = field(default_factory=list)
    """Objects of the cluster that cannot be read."""
    errors: list[str] = field(default_factory=list)
    """What is wrong with the given files, in words."""


def read_states(kubeconfig: str | None, name: str | None, hosts: list[str]) -> FoundStates:
    """Read the states of nodes.

    An API server that does not answer ends the command, unless hosts are given.

    Args:
        kubeconfig: Path of a kubeconfig; None for kubectl's.
        name: Name of a node; None for all, or for those of the given hosts.
        hosts: Files or directories of HostRecords. A record stands for the state of a node that the cluster does not have.
    """
    given = Objects()
    add_host_files(given, hosts, recursive=False)
    recorded = plan_recorded(given)
    there = _read_cluster(kubeconfig) if hosts else read_live(kubeconfig, live.NODE_KINDS)[0]
    warn_set_aside(there.set_aside)
    states = {**recorded.objects.node_states, **there.node_states}
    names = {name} if name is not None else {*given.host_records} if hosts else {*states}
    errors = [one.sentence for one in (*given.set_aside, *recorded.set_aside)]
    if hosts and name is not None and name in states and name not in given.host_records:
        errors.append(f"node {name}: no given HostRecord has this name: correct its metadata.name, or give another file")
    return FoundStates(
        states=[states[one] for one in sorted(names & states.keys())],
        records=given.host_records,
        from_records=frozenset(recorded.objects.node_states.keys() - there.node_states.keys()),
        set_aside=there.set_aside,
        errors=errors,
    )


def _read_cluster(kubeconfig: str | None) -> Objects:
    """Read the states in the cluster, if there is one."""
    try:
        return asyncio.run(live.read_cluster(kubeconfig, live.NODE_KINDS))[0]
    except (ConnectionFileError, ApiError) as error:
        warn(f"only the given HostRecords are shown: {error}")
        return Objects()
