"""How often a VM moves for one pool edit, for any order of plans and any holders of VFs."""

import asyncio
from collections import Counter

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.fleet import Fleet
from vmnic.controller.pools.drain import Drainer, DrainSimulation
from vmnic.nodes.rollout.ledger import EntryState

NODES = 5
TURNS = 600


class Spread(DrainSimulation):
    """Matches a node's VMs to free VFs of the fleet."""

    def __init__(self, moves):
        super().__init__({}, None)
        self._moves = moves

    def blocking_reason(self, node, holders):
        return "" if any(one not in self._closed for one in self._moves.places(node)) else "no place"


class Moves:
    """VMs on a fleet of nodes, and a scheduler that prefers nodes without VMs.

    If several nodes are drained at a time, it chooses nodes that are done, as the matching did. vmnic has no influence on that.
    """

    def __init__(self, homes, delays, unavailable):
        rollout = {"disruption": "Drain", "maxUnavailable": unavailable, "maxConcurrent": 2, "drainTimeout": "60s"}
        self.fleet = Fleet(NODES, rollout=rollout)
        self._rollout, self._delays, self._homes = rollout, delays, homes
        self.where, self.moves, self.early = {}, Counter(), []
        self.fleet.cluster.evicted = self._evict
        self.replica = self.fleet.replica(self._drainer)

    async def _prove(self):
        """Mark the generation as proven, as if its first node had already changed alone."""
        part = msgspec.structs.replace(self.replica.ledger.current.of("fast"), proven_generation=2)
        await self.replica.ledger.save(self.replica.ledger.current.with_pool("fast", part))

    def _drainer(self, world, api):
        drainer = Drainer(world, api)
        drainer.simulation = lambda: Spread(self)
        return drainer

    def places(self, node):
        """Return the nodes to which a VM of another node may move, those without VMs first."""
        fleet = self.fleet
        cordoned = {name for name in fleet.names if fleet.cluster.get("nodes", name)["spec"].get("unschedulable")}
        names = [name for name in fleet.names if name not in cordoned | {node}]
        fitting = [name for name in names if fleet.agents[name].num_vfs and fleet.agents[name].running is None]
        several = len(fleet.cordoned_by_us()) > 1
        return sorted(fitting, key=lambda one: (several and fleet.agents[one].num_vfs != 3, fleet.agents[one].holder, one))

    def _evict(self, node):
        self._note_early(node)
        for machine in [one for one, home in self.where.items() if home == node]:
            self.where[machine] = self.places(node)[0]
            self.moves[machine] += 1
        self._hold()

    def _note_early(self, node):
        """Record a drained node if an undrained node without VMs still has a change to make."""
        drained = self.fleet.cordoned_by_us()
        free = [one for name, one in self.fleet.agents.items() if not one.holder and one.num_vfs != 3 and name not in drained]
        self.early += [node for _ in free]

    def _hold(self):
        for name, agent in self.fleet.agents.items():
            agent.holder = name in self.where.values()

    async def run(self):
        """Edit the pool, let each node answer after its delay, and return whether all nodes match the spec."""
        fleet = self.fleet
        await self.replica.ledger.load()
        assert await fleet.run(self.replica, turns=60, until=lambda: fleet.settled(7))
        self.where = {f"vm-{name}": name for number, name in enumerate(fleet.names) if number in self._homes}
        self._hold()
        for agent in fleet.agents.values():
            agent.step()
        fleet.edit(numVfs=3, rollout=self._rollout)
        await self._prove()
        for turn in range(TURNS):
            for number, agent in enumerate(fleet.agents.values()):
                if turn >= self._delays[number]:
                    agent.step()
            self.replica.hear()
            await self.replica.work()
            fleet.now += 1
            if fleet.settled(3) and not fleet.cordoned_by_us():
                return True
        return False


def play(homes, delays, unavailable):
    moves = Moves(homes, delays, unavailable)
    return asyncio.run(moves.run()), moves


delays = st.lists(st.integers(0, 29), min_size=NODES, max_size=NODES)


@settings(max_examples=100)
@given(st.sets(st.integers(0, NODES - 1), max_size=NODES - 1), delays, st.integers(1, 3))
def test_vm_moves_once_for_any_order_of_answers(homes, delays, unavailable):
    done, moves = play(homes, delays, unavailable)
    assert (done, moves.early) == (True, [])
    assert moves.moves == {f"vm-n{number:04}": 1 for number in homes}


@settings(max_examples=25)
@given(delays, st.integers(1, 3))
def test_one_vm_moves_twice_if_every_node_is_held(delays, unavailable):
    done, moves = play(set(range(NODES)), delays, unavailable)
    assert (done, max(moves.moves.values()), moves.moves.total()) == (True, 2, NODES + 1)


@settings(max_examples=25)
@given(st.sets(st.integers(0, NODES - 2), min_size=1, max_size=NODES - 2), st.integers(0, NODES - 1))
def test_node_that_never_answers_is_not_waited_for(homes, silent):
    delays = [TURNS if number == silent else 0 for number in range(NODES)]
    moves = Moves(homes - {silent}, delays, 1)
    asyncio.run(moves.run())
    left = {agent.name for agent in moves.fleet.agents.values() if agent.num_vfs != 3}
    assert (left, set(moves.moves.values()) <= {1}) == ({f"n{silent:04}"}, True)
    entries = moves.replica.ledger.current.of("fast").entries
    assert all(entry.state is not EntryState.DRAINING for entry in entries.values())


async def test_no_vm_is_evicted_while_plans_for_an_edit_are_awaited():
    rollout = {"disruption": "Drain", "drainTimeout": "10m"}
    fleet, asked = Fleet(2, rollout=rollout), []
    replica = fleet.replica()
    await replica.ledger.load()
    assert await fleet.run(replica, turns=40, until=lambda: fleet.settled(7))
    held, silent = fleet.agents.values()
    held.holder, fleet.cluster.evicted = True, asked.append
    fleet.edit(numVfs=5, rollout=rollout)
    assert await fleet.run(replica, turns=60, until=lambda: bool(asked))
    asked.clear()
    silent.step = lambda: None
    fleet.edit(numVfs=3, rollout=rollout)
    assert not await fleet.run(replica, turns=29, until=lambda: bool(asked))
    assert await fleet.run(replica, turns=10, until=lambda: bool(asked))
