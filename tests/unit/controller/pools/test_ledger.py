"""The ledger's ConfigMap when it is deleted, unreachable or malformed."""

import asyncio
import dataclasses
import json
from datetime import timedelta

import msgspec
import pytest
from msgspec.structs import replace

from tests.builders.fleet import Fleet, MemoryCluster
from tests.builders.node import pf_spec, pf_status, pool, view
from vmnic.api.node_state import PfPlan
from vmnic.controller import main
from vmnic.controller.admission.certificates import Lifetimes
from vmnic.controller.admission.rotation import Certificates
from vmnic.controller.pools.ledger import LEDGER_NAME, LedgerStore
from vmnic.kube.errors import ConflictError, NotFoundError, NotLeadingError
from vmnic.nodes.rollout.budget import entries_of, fitting, select_non_disruptive
from vmnic.nodes.rollout.ledger import Entry, EntryState, Ledger, PoolLedger

KEY = ("configmaps", "vmnic-system", LEDGER_NAME)


class Cluster(MemoryCluster):
    async def replace(self, resource, body, name, namespace="", *, subresource=""):
        if self.get(resource.plural, name, namespace) is None:
            raise NotFoundError(status=404, reason="NotFound", message="gone")
        return await super().replace(resource, body, name, namespace)


async def test_deleted_ledger_is_created_again_before_deciding():
    cluster = Cluster()
    store = LedgerStore(cluster, "vmnic-system")
    old, new = Ledger({"fast": PoolLedger(proven_generation=1)}), Ledger({"fast": PoolLedger(proven_generation=2)})
    await store.save(old)
    del cluster.objects[KEY]
    with pytest.raises(ConflictError):
        await store.save(new)
    assert store.current == Ledger()
    await store.save(new)
    assert await LedgerStore(cluster, "vmnic-system").load() == new


CONFIG_MAP = 1024 * 1024
"""Maximum size of a ConfigMap that the API server accepts, in bytes."""
POOLS = [f"pool-{number}" for number in range(5)]


def nodes_of(name, *, count, functions):
    """Return nodes with long names and harmless plans for this number of a pool's functions."""
    pfs = [f"0000:{number:02x}:00.0" for number in range(functions)]
    specs = tuple(pf_spec(address, pool=name) for address in pfs)
    plans = tuple(pf_status(address, plan=PfPlan(digest="d" * 32)) for address in pfs)
    for number in range(count):
        one = view(f"worker-{number:05}.cluster.example.com", boot="b" * 36)
        spec, status = replace(one.state.spec, pfs=specs), replace(one.state.status, pfs=plans)
        yield msgspec.structs.replace(one.state, spec=spec, status=status), one


def start_all(functions):
    """Start all eligible changes of five pools with 5,000 nodes in all.

    Return the ledger and the number left out.
    """
    ledger, left = Ledger(), 0
    for name in POOLS:
        wanted = pool(name, rollout={"maxConcurrent": "100%"})
        views = [dataclasses.replace(one, state=state) for state, one in nodes_of(name, count=1000, functions=functions)]
        part = PoolLedger(proven_generation=1)
        starts = select_non_disruptive(ledger.with_pool(name, part), wanted, views)
        fits = fitting(ledger, starts)
        made = entries_of(fits, wanted, disruptive=False, now=1_700_000_000)
        ledger, left = ledger.with_pool(name, replace(part, entries=made)), left + len(starts) - len(fits)
    return ledger, left


def grown(ledger):
    """Return the ledger with every entry at its maximum size."""
    most = {"state": EntryState.RESTING, "cordoned": True, "disruptive": True, "silent": True, "until": 2_000_000_000}
    return Ledger(
        {
            name: replace(part, entries={node: replace(entry, **most) for node, entry in part.entries.items()})
            for name, part in ledger.pools.items()
        }
    )


@pytest.mark.parametrize("functions", [1, 2, 8, 64])
async def test_ledger_of_a_large_fleet_fits_its_config_map(functions):
    ledger, left = start_all(functions)
    store = LedgerStore(Cluster(), "vmnic-system")
    for one in (ledger, grown(ledger)):
        await store.save(one)
        (stored,) = store._object["data"].values()
        assert (len(stored) < CONFIG_MAP, Ledger.parse(json.loads(stored)) == one) == (True, True)
    started = sum(part.running() for part in ledger.pools.values())
    assert (started + left, left > 0, started >= 100) == (5000, True, True)


async def test_nodes_wait_and_are_counted_while_the_ledger_is_full():
    fleet = Fleet(3, rollout={"maxConcurrent": "100%"})
    replica = fleet.replica()
    await replica.ledger.load()
    digests = {f"0000:{number:02x}:00.0": "d" * 32 for number in range(64)}
    entry = Entry(generation=1, boot_id="b", digests=digests)
    big = PoolLedger(entries={f"n{number}": entry for number in range(300)})
    await replica.ledger.save(Ledger({"big": big}))
    assert not await fleet.run(replica, turns=10, until=lambda: fleet.settled(7))
    problems = fleet.cluster.get("sriovnetworkpools", "fast")["status"]["problems"]
    assert [(one["reason"], one["message"][:12]) for one in problems] == [("LedgerFull", "1 nodes wait")]
    assert replica.ledger.current.of("big") == big
    await replica.ledger.save(Ledger())
    assert await fleet.run(replica, turns=30, until=lambda: fleet.settled(7))


async def test_deleted_pool_leaves_nothing_in_memory():
    fleet = Fleet(1)
    replica = fleet.replica()
    await replica.ledger.load()
    assert await fleet.run(replica, turns=20, until=lambda: fleet.settled(7))
    rollouts = replica._pools._rollouts
    assert await fleet.run(replica, turns=3, until=lambda: "fast" in rollouts._told)
    await replica.ledger.save(Ledger())
    await rollouts.forget("fast")
    assert (rollouts._memories, rollouts._told) == ({}, {})


async def test_new_leader_waits_for_a_missing_or_malformed_ledger(monkeypatch):
    monkeypatch.setattr(main, "_LEDGER_FIRST_S", 0.0)
    cluster = Cluster()
    cluster.put("configmaps", {"metadata": {"name": LEDGER_NAME}, "data": {"ledger.json": "[]"}}, "vmnic-system")
    faults = iter(["before"])
    cluster.fault = lambda verb, plural: next(faults, None)
    store = LedgerStore(cluster, "vmnic-system")
    waiting = asyncio.create_task(main._load_ledger(store))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    del cluster.objects[KEY]
    await waiting
    assert store.current == Ledger()


async def test_leader_that_loses_its_lease_in_certificates_follows():
    looks, again = [], asyncio.Event()

    class Guarded:
        async def read(self, resource, name, namespace=""):
            looks.append(name)
            if len(looks) > 1:
                again.set()
            raise NotLeadingError("the lease has run out")

    lifetimes = Lifetimes(serving=timedelta(0))
    task = asyncio.create_task(Certificates(Guarded(), Guarded(), "vmnic-system", (), lifetimes=lifetimes).keep_leading())
    await asyncio.wait_for(asyncio.wait({task, asyncio.create_task(again.wait())}, return_when="FIRST_COMPLETED"), 10)
    assert not task.done()
    task.cancel()
