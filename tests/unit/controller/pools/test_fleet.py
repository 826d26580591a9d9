"""A thousand nodes under random faults never exceed the limits, as an outside observer counts them."""

import pytest

from tests.builders.fleet import Fleet
from vmnic.nodes.rollout.ledger import CORDONED

DRAIN = {"disruption": "Drain", "maxUnavailable": 3, "maxConcurrent": 20, "maxFailures": 1000, "drainTimeout": "20s"}


class Observer:
    """Checks the invariants after every event."""

    def __init__(self, fleet, replicas, *, concurrent, unavailable):
        self._fleet, self._replicas, self._concurrent, self._unavailable = fleet, replicas, concurrent, unavailable
        self._before = set()
        self.most, self.most_cordoned, self.looks = 0, 0, 0

    def look(self):
        fleet = self._fleet
        ours, running = fleet.cordoned_by_us(), fleet.running()
        assert len(ours) <= self._unavailable
        assert len(running - ours) <= self._concurrent
        assert all(fleet.cluster.get("nodes", name)["spec"].get("unschedulable") for name in fleet.admins)
        self._look_at_drains()
        self.most, self.most_cordoned = max(self.most, len(running)), max(self.most_cordoned, len(ours))
        self.looks += 1

    def _look_at_drains(self):
        """Check that a node which starts to drain is within the limit.

        A node that was already out of service always is. One that left service is counted once the caches have it.
        """
        fleet, draining = self._fleet, self._fleet.draining()
        for name in draining - self._before:
            if name not in fleet.admins:
                others = {one for one in fleet.names if one in fleet.admins or not fleet.is_ready(one)}
                heard = {one for one in others if all(replica.has_heard_of_outage(one) for replica in self._replicas)}
                assert len(heard | draining) <= self._unavailable
        self._before = draining


def strike(fleet, rng, rollout):
    """Inject one random fault."""
    name = rng.choice(fleet.names)
    agent = fleet.agents[name]
    what = rng.choice(["take", "take", "leave", "down", "up", "up", "cordon", "uncordon", "reboot", "edit"])
    down = [one for one in fleet.names if not fleet.is_ready(one)] if what in ("down", "up") else []
    if what == "take" and agent.num_vfs and agent.running is None:
        agent.holder = True
    elif what == "leave":
        agent.holder = False
    elif what == "down" and len(down) < 2:
        fleet.set_ready(name, ready=False)
    elif what == "up" and down:
        fleet.set_ready(min(down), ready=True)
    elif what == "cordon" and not fleet.admins:
        fleet.admin_cordons(name)
    elif what == "uncordon" and fleet.admins:
        fleet.admin_uncordons(min(fleet.admins))
    elif what == "reboot" and not agent.holder:
        agent.boot, agent.running, agent.apply = agent.boot + 1, None, None
    elif what == "edit" and rng.random() < 0.01:
        fleet.edit(numVfs=rng.choice([3, 5, 7]), rollout=rollout)


def later(fleet, observer):
    """Let time pass, and count the cordoned nodes."""
    observer.look()
    fleet.now += 4
    return len(fleet.cordoned_by_us())


def in_service(fleet):
    """Bring every node back that is down or cordoned by an administrator."""
    for name in fleet.agents:
        fleet.set_ready(name, ready=True)
    for name in list(fleet.admins):
        fleet.admin_uncordons(name)


def calm(fleet, rollout):
    """Repair every fault."""
    fleet.cluster.fault = lambda verb, plural: None
    for agent in fleet.agents.values():
        agent.bad, agent.holder = 0.0, False
    in_service(fleet)
    fleet.edit(numVfs=4, rollout=rollout)


async def storm(fleet, replicas, observer, rollout, *, turns):
    """Inject faults at random.

    Replicas miss changes and crash, and requests fail before and after their effect.
    """
    rng = fleet.rng
    fleet.cluster.fault = lambda verb, plural: rng.choice(["before", "after"]) if rng.random() < 0.02 else None
    for turn in range(turns):
        for _ in range(rng.randrange(len(fleet.names) // 20)):
            strike(fleet, rng, rollout)
        for agent in fleet.agents.values():
            if fleet.is_ready(agent.name) and rng.random() < 0.7:
                agent.step()
        observer.look()
        for number in range(len(replicas)):
            if rng.random() < 0.03 or turn == 0:
                replicas[number] = fleet.replica()
                await loaded(replicas[number])
            replicas[number].hear(rng.randrange(1, 2000))
            await replicas[number].work(rng.randrange(1, 600))
            observer.look()
        fleet.now += 1


async def loaded(replica):
    while True:
        try:
            await replica.ledger.load()
        except Exception:
            continue
        return


async def test_thousand_nodes_under_faults_keep_limits_and_converge():
    rollout = DRAIN | {"maxConcurrent": "8%"}
    fleet = Fleet(1000, seed=7, rollout=rollout)
    replicas = [fleet.replica()]
    observer = Observer(fleet, replicas, concurrent=80, unavailable=3)
    await replicas[0].ledger.load()
    assert await fleet.run(*replicas, turns=100, until=lambda: fleet.settled(7))
    for number, agent in enumerate(fleet.agents.values()):
        agent.bad, agent.holder = 0.02, number % 4 == 0
    fleet.edit(numVfs=5, rollout=rollout)
    await storm(fleet, replicas, observer, rollout, turns=40)
    # Free nodes go first, so drains start only when the faults are over, and none starts while three nodes are out of service.
    in_service(fleet)
    fleet.edit(numVfs=2, rollout=rollout)
    assert await fleet.run(*replicas, turns=200, until=lambda: later(fleet, observer) == 3)
    calm(fleet, rollout)
    assert await fleet.run(*replicas, turns=300, until=lambda: fleet.settled(4) and not fleet.cordoned_by_us())
    print(f"1,000 nodes: {observer.looks} looks, at most {observer.most} running, {observer.most_cordoned} cordoned")
    assert observer.most_cordoned == 3


@pytest.mark.parametrize("seed", range(15))
async def test_two_concurrent_leaders_cannot_both_spend_the_budget(seed):
    rollout = DRAIN | {"maxConcurrent": 3, "maxUnavailable": 1}
    fleet = Fleet(20, seed=seed, rollout=rollout)
    replicas = [fleet.replica(), fleet.replica()]
    observer = Observer(fleet, replicas, concurrent=3, unavailable=1)
    await storm(fleet, replicas, observer, rollout, turns=60)
    calm(fleet, rollout)
    assert await fleet.run(*replicas, turns=200, until=lambda: fleet.settled(4) and not fleet.cordoned_by_us())


async def test_cordon_removed_by_an_administrator_during_a_drain():
    fleet = Fleet(1, rollout=DRAIN | {"drainTimeout": "1h"})
    replica = fleet.replica()
    await replica.ledger.load()
    assert await fleet.run(replica, turns=30, until=lambda: fleet.settled(7))
    name, agent = next(iter(fleet.agents.items()))
    agent.holder, fleet.cluster.evicted = True, lambda pod: None
    fleet.admin_cordons(name)
    fleet.edit(numVfs=3, rollout=DRAIN | {"drainTimeout": "1h"})
    assert await fleet.run(replica, turns=30, until=lambda: fleet.draining() == {name})
    fleet.admin_uncordons(name)
    assert await fleet.run(replica, turns=30, until=lambda: fleet.cordoned_by_us() == {name})
    agent.holder = False
    assert await fleet.run(replica, turns=30, until=lambda: fleet.settled(3) and not fleet.cordoned_by_us())


async def test_cordon_without_ledger_entry_is_removed():
    fleet = Fleet(1, rollout=DRAIN)
    replica = fleet.replica()
    await replica.ledger.load()
    (name,) = fleet.names
    body = fleet.cluster.get("nodes", name)
    note = {"annotations": {CORDONED: "fast"}}
    fleet.cluster.put("nodes", body | {"metadata": body["metadata"] | note, "spec": {"unschedulable": True}})
    assert await fleet.run(replica, turns=5, until=lambda: not fleet.cordoned_by_us())
