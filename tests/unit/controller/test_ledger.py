"""The ledger's ConfigMap when it is deleted, away or no ledger."""

import asyncio
from datetime import timedelta

import pytest

from tests.builders.fleet import MemoryCluster
from vmnic.controller import main
from vmnic.controller.admission.certificates import Lifetimes
from vmnic.controller.admission.rotation import Certificates
from vmnic.controller.ledger import LEDGER_NAME, LedgerStore
from vmnic.kube.errors import ConflictError, NotFoundError, NotLeadingError
from vmnic.nodes.ledger import Ledger, PoolLedger

KEY = ("configmaps", "vmnic-system", LEDGER_NAME)


class Cluster(MemoryCluster):
    async def replace(self, resource, body, name, namespace="", *, subresource=""):
        if self.get(resource.plural, name, namespace) is None:
            raise NotFoundError(status=404, reason="NotFound", message="gone")
        return await super().replace(resource, body, name, namespace)


async def test_a_ledger_that_was_deleted_is_decided_on_anew():
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


async def test_a_new_leader_waits_for_a_ledger_that_is_away_or_none(monkeypatch):
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


async def test_a_leader_whose_lease_runs_out_amid_its_certificates_goes_on_following():
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
