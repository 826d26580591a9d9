"""A lying agent holds up other nodes no longer than a broken node does, and is named."""

from collections import Counter

import msgspec
import pytest

from tests.builders.fleet import Agent, Fleet
from tests.builders.node import PF, pf_status
from vmnic.api.node_state import Apply, ApplyState, Held, HostFacts, NodeNicState, NodeStatus, PfPlan, PfProblem, wire
from vmnic.api.reasons import PfReason

LIAR = "n0000"
"""First by name, so that it is chosen first and changes alone."""
FAST = {"disruption": "Drain", "drainTimeout": "20s", "maxConcurrent": 1, "maxUnavailable": 1}
BOUND = 20 + 60
"""Maximum duration of a change in seconds: drainTimeout plus rollbackTimeout."""


def digest(number):
    return f"{number:032x}"


def plan(number, **changes):
    return PfPlan(**({"digest": digest(number), "text": "nothing", "fenced": True} | changes))


def run(state, grant):
    return Apply(digest=grant, state=state) if grant else None


FOREIGN = tuple(Held(vf=f"0000:0b:1{number // 8}.{number % 8}", by=f"pod kube-system/dns-{number}") for number in range(63))
BLOCKED = {"disruptive": True, "blocked_by": tuple(f"{one.by} holds {one.vf}" for one in FOREIGN[:20])}
LIES = {
    "plans and never claims": lambda n, grant: {"plan": plan(1)},
    "claims for ever": lambda n, grant: {"plan": plan(1), "apply": run(ApplyState.CLAIMED, grant)},
    "applies for ever": lambda n, grant: {"plan": None if grant else plan(1), "apply": run(ApplyState.APPLYING, grant)},
    "another digest each time": lambda n, grant: {"plan": plan(n), "attempt": n},
    "a plan every other time": lambda n, grant: {"plan": plan(n) if n % 2 else None},
    "done, and another plan": lambda n, grant: {"plan": plan(n), "apply": run(ApplyState.APPLIED, grant)},
    "refuses": lambda n, grant: {"plan": plan(n), "apply": run(ApplyState.REFUSED, grant)},
    "fails and reboots": lambda n, grant: {"plan": plan(n), "apply": run(ApplyState.FAILED, grant), "boot": f"b{n}"},
    "reboots for ever": lambda n, grant: {"plan": plan(1), "boot": f"b{n}", "apply": run(ApplyState.CLAIMED, grant)},
    "silent": lambda n, grant: {"plan": plan(1), "generation": 0},
    "silent now and then": lambda n, grant: {"plan": plan(1), "generation": 0 if n % 3 else (1 << 53) - 1},
    "of the future": lambda n, grant: {"plan": plan(n), "generation": (1 << 53) - 1},
    "foreign pods hold all": lambda n, grant: {"plan": plan(1, **BLOCKED), "held": FOREIGN},
    "held now and then": lambda n, grant: {"plan": plan(n, **(BLOCKED if n % 2 else {})), "held": FOREIGN if n % 2 else ()},
    "no function at all": lambda n, grant: None,
    "a function now and then": lambda n, grant: {"plan": plan(1)} if n % 2 else None,
    "a problem now and then": lambda n, grant: {
        "plan": plan(n), "problem": PfProblem(reason=PfReason.APPLY_FAILED, message="x" * 512) if n % 2 else None,
    },
}  # fmt: skip


class Liar(Agent):
    """Publishes a different lie in every pass."""

    lie = None

    def step(self):
        """Publish one more lie."""
        self.looks = getattr(self, "looks", 0) + 1
        raw = self._cluster.get("nodenicstates", self.name)
        if raw is None:
            return
        state = msgspec.convert(raw, NodeNicState)
        grant = next((pf.grant for pf in state.spec.pfs), None)
        told = self.lie(self.looks, grant)
        self._tell(state, dict(told) if told is not None else None)

    def _tell(self, state, told):
        pfs, boot, generation = (), "b1", state.metadata.generation
        if told is not None:
            boot, generation = told.pop("boot", boot), told.pop("generation", generation)
            pfs = (pf_status(PF, owned=True, num_vfs=7, **told),)
        host = HostFacts(iommu=True, modules=("vfio_pci",))
        status = NodeStatus(observed_generation=generation, boot_id=boot, host=host, pfs=pfs)
        raw = self._cluster.get("nodenicstates", self.name)
        self._cluster.put("nodenicstates", raw | {"status": wire(status)})


async def fleet_with(lie, **rollout):
    """Return a fleet of four ready nodes, one of which starts to lie when the pool is edited.

    VMs hold two of the others.
    """
    fleet = Fleet(4, nodeSelector={"in": "yes"}, rollout=FAST | rollout)
    for name in fleet.names:
        label(fleet, name, "yes")
    replica = fleet.replica()
    await replica.ledger.load()
    assert await fleet.run(replica, turns=60, until=lambda: fleet.settled(7))
    liar = Liar(fleet.cluster, LIAR, fleet.rng)
    liar.lie = lie
    fleet.agents[LIAR] = liar
    for name in fleet.names[2:]:
        fleet.agents[name].holder = True
    fleet.edit(numVfs=3, nodeSelector={"in": "yes"}, rollout=FAST | rollout)
    return fleet, replica


def label(fleet, name, value):
    node = fleet.cluster.get("nodes", name)
    fleet.cluster.put("nodes", node | {"metadata": node["metadata"] | {"labels": {"in": value}}})


def others_done(fleet):
    return all(agent.num_vfs == 3 and agent.running is None for name, agent in fleet.agents.items() if name != LIAR)


def status(fleet):
    return fleet.cluster.get("sriovnetworkpools", "fast")["status"]


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_other_nodes_finish_while_an_agent_lies(lie):
    fleet, replica = await fleet_with(lie, maxFailures=2)
    assert await fleet.run(replica, turns=6 * BOUND, until=lambda: others_done(fleet))
    assert fleet.cordoned_by_us() <= {LIAR}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_lying_agent_is_named_or_stops_nothing(lie):
    fleet, replica = await fleet_with(lie, maxFailures=1)
    named = lambda: any(one.get("node") == LIAR for one in status(fleet).get("problems", []))  # noqa: E731
    assert await fleet.run(replica, turns=6 * BOUND, until=lambda: others_done(fleet) or named())
    label(fleet, LIAR, "no")
    assert await fleet.run(replica, turns=6 * BOUND, until=lambda: others_done(fleet))


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_lying_agent_is_granted_changes_ever_less_often(lie):
    fleet, replica = await fleet_with(lie, maxFailures=2)
    await fleet.run(replica, turns=6 * BOUND, until=lambda: others_done(fleet))
    await fleet.run(replica, turns=200)
    asked = Counter()
    fleet.cluster.fault = lambda verb, plural: asked.update([plural] if verb != "GET" else [])
    await fleet.run(replica, turns=600)
    # Each report may change the pool's status and the node's functions, but nothing more.
    assert (asked["configmaps"] + asked["nodes"] <= 60, asked["evictions"]) == (True, 0)
