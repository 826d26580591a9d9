"""The keys that a replica enqueues when it starts to lead."""

import asyncio
import gc
from datetime import timedelta
from types import SimpleNamespace

import msgspec
import pytest

from tests.builders.fleet import MemoryCluster
from tests.builders.machines import NAMESPACE
from tests.builders.vm import vm
from vmnic.api.vm_state import Restart
from vmnic.controller.caches.keys import pool_key, vm_key
from vmnic.controller.main import Controller, _parse
from vmnic.controller.vms.decision_record import NicDecisionRecord
from vmnic.kube.reflector import ObjectKey
from vmnic.kubevirt.gather import gather_vm_facts
from vmnic.kubevirt.vm import decode_machine
from vmnic.nodes.rollout.ledger import Ledger, PoolLedger
from vmnic.policy.types import Verdict

GONE = ObjectKey(NAMESPACE, "gone")
NOTE = NicDecisionRecord(
    nic="default", policy="all", verdict=Verdict.COMPLIANT, datapath="vhost", reason="", message="",
    pending_restart=False, conflicts_with=(),
)  # fmt: skip


@pytest.fixture
async def leader():
    cluster = MemoryCluster()
    elector = SimpleNamespace(identity="one")
    found = Controller(cluster, cluster, elector, None, namespace="vmnic-system", restart_timeout=timedelta(minutes=1))
    found._leading = True
    return found


def asked(leader):
    leader.ask_for_everything()
    return set(leader._queue.waiting())


async def test_vms_deleted_while_following_are_forgotten(leader):
    restart = Restart(digest="d", policy="all", state="Restarting", instance="old", at="2026-01-01T00:00:00Z")
    leader._machines.notes[GONE] = (NOTE,)
    leader._machines.slots.note(ObjectKey(NAMESPACE, "restarting"), restart)
    assert asked(leader) >= {vm_key(*GONE), vm_key(NAMESPACE, "restarting")}
    for cache in leader.world.reflectors:
        cache.synced.set()
    await leader._reconcile(vm_key(*GONE))
    assert leader._machines.notes == {}


async def test_ledger_entry_of_a_pool_deleted_meanwhile_is_removed(leader):
    await leader._ledger.save(Ledger(pools={"gone": PoolLedger()}))
    assert pool_key("gone") in asked(leader)
    await leader._reconcile(pool_key("gone"))
    assert leader._ledger.current.pools == {}


@pytest.mark.parametrize(("arguments", "mtu"), [([], None), (["--pod-network-mtu", "8901"], 8901)], ids=["not given", "given"])
async def test_the_mtu_of_the_pod_network_reaches_every_decision(arguments, mtu):
    cluster, given = MemoryCluster(), _parse(arguments).pod_network_mtu
    elector = SimpleNamespace(identity="one")
    found = Controller(
        cluster, cluster, elector, None, namespace="x", restart_timeout=timedelta(minutes=1), pod_network_mtu=given
    )
    machine = decode_machine(msgspec.json.encode(vm()))
    facts = gather_vm_facts(found.world.inputs.input_of(machine, NAMESPACE))
    assert (facts.nics[0].network.mtu, found.world.inputs.cluster_facts.pod_network_mtu) == (mtu, mtu)


async def test_queue_makes_way_for_reviews(leader):
    assert not leader._queue._has_urgent_work()
    reviews = leader.reviews(is_authenticated=True)
    reviews.waiting = 1
    assert leader._queue._has_urgent_work()
    reviews.waiting = 0
    assert not leader._queue._has_urgent_work()


async def test_listed_objects_are_not_visited_by_the_collector_again(leader):
    freezing = asyncio.create_task(leader.freeze_caches())
    frozen = gc.get_freeze_count()
    try:
        await asyncio.sleep(0)
        assert gc.get_freeze_count() == frozen
        for cache in leader.world.reflectors:
            cache.synced.set()
        for _ in range(2 * len(leader.world.reflectors)):
            await asyncio.sleep(0)
        assert gc.get_freeze_count() > frozen
        assert not freezing.done()
    finally:
        gc.unfreeze()
        freezing.cancel()
