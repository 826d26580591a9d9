"""The grant protocol with real reconcilers and a real agent, under API server failures.

Before every write to the host, the test checks that the API server has a live claim of a grant that the ledger holds.
"""

import msgspec
import pytest

from tests.builders.agent import Node
from tests.builders.fleet import Fleet
from tests.builders.host import PF, sim_host
from vmnic.api.node_state import ApplyState, NodeNicState, wire
from vmnic.controller.caches.keys import node_key
from vmnic.host.ops import is_write
from vmnic.kube.errors import UnreachableError
from vmnic.kube.resources import NODE_NIC_STATES
from vmnic.nodes.rollout.ledger import EntryState

NAME = "n0000"
VF = "0000:0b:10.0"


class ClusterReporter:
    """The agent's access to the same API server."""

    def __init__(self, cluster):
        self._cluster = cluster
        self.before_claim = lambda: None

    async def read(self):
        found = await self._cluster.read(NODE_NIC_STATES, NAME)
        return found and msgspec.convert(found, NodeNicState)

    async def publish(self, status):
        await self._cluster._request("PATCH", "nodenicstates", lambda: self._write(status))

    async def claim(self, over, status):
        self.before_claim()
        if self._cluster.get("nodenicstates", NAME)["metadata"]["resourceVersion"] != over.metadata.resource_version:
            return False
        await self.publish(status)
        return True

    def _write(self, status):
        self._cluster.put("nodenicstates", self._cluster.get("nodenicstates", NAME) | {"status": wire(status)})


class Duel:
    """One node with its real agent, one controller, and an outside observer."""

    def __init__(self, directory):
        self.fleet = Fleet(1, rollout={"maxFailures": 1000})
        self.cluster = self.fleet.cluster
        self.replica = self.fleet.replica()
        self.node = Node(sim_host(), directory)
        self.node.api = ClusterReporter(self.cluster)
        self.node.restart_agent()
        self.unclaimed = []
        perform = self.node.port.perform
        self.node.port.perform = lambda op: (self._check(op), perform(op))[1]

    def _check(self, op):
        """Check the claim of a write.

        Restoring an earlier grant needs no claim, but these tests never do that.
        """
        status = (self.cluster.get("nodenicstates", NAME) or {}).get("status", {})
        pf = next((one for one in status.get("pfs", []) if one["pciAddress"] == PF), {})
        apply = pf.get("apply", {})
        entry = self.fleet.ledger().of("fast").entries.get(NAME)
        claimed = apply.get("state") == ApplyState.CLAIMED and entry is not None and apply["digest"] in entry.digests.values()
        if is_write(op) and not claimed:
            self.unclaimed.append(op)

    async def agent(self):
        raw = self.cluster.get("nodenicstates", NAME)
        if raw is None:
            return
        try:
            await self.node.agent.run(msgspec.convert(raw, NodeNicState))
        except UnreachableError:
            return

    async def controller(self):
        self.replica.hear()
        await self.replica.work()

    async def turns(self, count):
        for _ in range(count):
            await self.controller()
            await self.agent()
            self.fleet.now += 1

    async def until(self, condition, turns=60):
        for _ in range(turns):
            await self.turns(1)
            if condition():
                return True
        return False

    def settled(self, count):
        status = (self.cluster.get("nodenicstates", NAME) or {}).get("status", {})
        return [(one.get("numVfs", 0), "plan" in one) for one in status.get("pfs", [])] == [(count, False)]

    def plan(self):
        return self.cluster.get("nodenicstates", NAME)["status"]["pfs"][0].get("plan")

    def grant_by_hand(self, digest):
        raw = self.cluster.get("nodenicstates", NAME)
        pfs = [one | {"grant": digest} for one in raw["spec"]["pfs"]]
        self.cluster.put("nodenicstates", raw | {"spec": raw["spec"] | {"pfs": pfs}})


@pytest.fixture
async def duel(tmp_path):
    made = Duel(tmp_path)
    await made.replica.ledger.load()
    return made


def failing(at, when):
    """Fail one request, counted from now."""
    count = iter(range(10_000))
    return lambda verb, plural: when if next(count) == at else None


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(24))
async def test_api_server_failure_at_any_step_starts_nothing_unclaimed(duel, at, when):
    duel.cluster.fault = failing(at, when)
    for _ in range(20):
        try:
            await duel.replica.ledger.load()
        except UnreachableError:
            continue
        break
    assert await duel.until(lambda: duel.settled(7))
    duel.fleet.edit(numVfs=3)
    assert await duel.until(lambda: duel.settled(3))
    assert duel.unclaimed == []


@pytest.mark.parametrize(
    ("digest", "goes"),
    [("f" * 32, True), ("other", True), ("used", False)],
    ids=["foreign", "of another spec", "used up, worth no write"],
)
async def test_grant_missing_from_the_ledger_starts_nothing(duel, digest, goes):
    assert await duel.until(lambda: duel.settled(7))
    used = duel.cluster.get("nodenicstates", NAME)["spec"]["pfs"][0]["grant"]
    duel.fleet.edit(numVfs=3, rollout={"paused": True})
    await duel.turns(2)
    other = duel.plan()["digest"]
    duel.fleet.edit(numVfs=5, rollout={"paused": True})
    await duel.turns(2)
    del duel.node.port.log[:]
    duel.grant_by_hand({"used": used, "other": other}.get(digest, digest))
    await duel.agent()
    assert duel.node.port.writes == []
    await duel.turns(2)
    assert duel.node.port.writes == []
    assert ("grant" not in duel.cluster.get("nodenicstates", NAME)["spec"]["pfs"][0]) is goes


async def test_vm_that_comes_after_the_grant_keeps_its_vf(duel):
    assert await duel.until(lambda: duel.settled(7))
    duel.fleet.edit(numVfs=3)
    await duel.controller()
    await duel.agent()
    await duel.controller()
    assert duel.fleet.ledger().granted(NAME) == {PF: duel.plan()["digest"]}
    duel.node.sim.control({"hold": VF})
    duel.node.holders.names[VF] = "pod tenants/db"
    await duel.turns(6)
    assert (duel.fleet.ledger().of("fast").entries, list(duel.plan()["blockedBy"])) == ({}, [f"pod tenants/db holds {VF}"])
    duel.node.sim.control({"release": VF})
    duel.node.holders.names.clear()
    assert await duel.until(lambda: duel.settled(3))
    assert duel.unclaimed == []


async def test_grant_revoked_during_the_claim_starts_nothing(duel):
    duel.node.api.before_claim = lambda: duel.grant_by_hand(None)
    await duel.turns(8)
    assert duel.node.port.writes == []
    duel.node.api.before_claim = lambda: None
    assert await duel.until(lambda: duel.settled(7))
    assert duel.unclaimed == []


async def test_deposed_leader_copies_no_revoked_grant(duel):
    # The agent has planned and the controller has written its ledger, but the spec has no grant yet.
    while not duel.fleet.ledger().granted(NAME):
        await duel.agent()
        duel.replica.hear()
        await duel.replica.work(1)
    old = duel.fleet.replica()
    await old.ledger.load()
    part = msgspec.structs.replace(duel.replica.ledger.current.of("fast"), entries={})
    await duel.replica.ledger.save(duel.replica.ledger.current.with_pool("fast", part))
    old.hear()
    old.queue = {node_key(NAME): None}
    await old.work()
    assert "grant" not in duel.cluster.get("nodenicstates", NAME)["spec"]["pfs"][0]
    assert old.ledger.current.of("fast").entries == {}


async def test_failed_node_stops_the_rollout_until_approval(duel):
    duel.fleet.edit(rollout={"maxFailures": 1})
    failing_write = duel.node.port.perform
    broken = {"on": True}

    def perform(op):
        if broken["on"] and is_write(op) and "sriov_numvfs" in str(getattr(op, "path", "")):
            raise OSError(12, "Cannot allocate memory")
        return failing_write(op)

    duel.node.port.perform = perform
    await duel.turns(10)
    broken["on"] = False
    await duel.turns(10)
    assert duel.fleet.ledger().of("fast").entries[NAME].state is EntryState.FAILED
    raw = duel.cluster.get("nodenicstates", NAME)
    note = {"annotations": {"vmnic.dev/approved": duel.plan()["digest"]}}
    duel.cluster.put("nodenicstates", raw | {"metadata": raw["metadata"] | note})
    assert await duel.until(lambda: duel.settled(7))
