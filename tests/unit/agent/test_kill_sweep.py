"""The agent killed before, during and after every operation of every kind of change.

Before: the operation never reached the kernel. During: it is in the kernel and ends while the next agent runs. After: it took
effect, but its answer was lost. At every point the next agent converges, touches no foreign PF, reports Ready only when it is
true, and then has nothing to write.
"""

from dataclasses import dataclass, field

import msgspec
import pytest

from tests.builders.agent import Node, desired
from tests.builders.host import OTHER_PF, PF, pf, sim_host
from tests.harness.faults import Fault, Killed, When
from vmnic.api.node_state import ApplyState, PfSpec, VfGroup, VfSettings
from vmnic.api.reasons import PfReason
from vmnic.host.ops import ListDir, ReadFile, ReadLink, ReadLinks, is_write

DEVICES = "/sys/bus/pci/devices"
ROUNDS = 8
"""Number of grants that the slowest case needs, plus two."""


@dataclass(frozen=True)
class Scenario:
    """A host, an optional first spec, and a second spec whose change is killed."""

    asked: PfSpec
    result: tuple
    before: PfSpec | None = None
    host: dict = field(default_factory=dict)
    ends: PfReason | None = None
    prefix: str = ""
    """Prefix of the addresses that links of VFs must have."""


VFIO, KERNEL = ("vfio-pci",), ("igbvf",)
SPLIT = tuple(
    VfGroup(pool=name, resource=f"vmnic.dev/{name}", range=part, driver=driver)
    for name, part, driver in (("a", "0-3", "vfio-pci"), ("b", "4-6", "kernel"))
)
TAGGED = desired(mtu=9000, queues=2, settings=VfSettings(vlan=100, trust=True))
PLAIN = desired(num_vfs=2, driver="kernel")
NAMED = desired(num_vfs=2, driver="kernel", settings=VfSettings(mac_prefix="02:11:22"))
SCENARIOS = {
    "0 to 7": Scenario(asked=TAGGED, result=(VFIO * 7, 9000)),
    "7 to 3": Scenario(before=desired(), asked=desired(num_vfs=3), result=(VFIO * 3, 1500)),
    "another driver": Scenario(before=desired(), asked=desired(driver="kernel"), result=(KERNEL * 7, 1500)),
    "a split": Scenario(before=desired(), asked=desired(groups=SPLIT), result=(VFIO * 4 + KERNEL * 3, 1500)),
    "addresses": Scenario(asked=NAMED, result=(KERNEL * 2, 1500), prefix="02:11:22"),
    "other addresses": Scenario(before=PLAIN, asked=NAMED, result=(KERNEL * 2, 1500), prefix="02:11:22"),
    "adoption": Scenario(host={"vfs": 4}, asked=desired(num_vfs=4, management="Adopt"), result=(VFIO * 4, 1500)),
    "removal": Scenario(before=TAGGED, asked=msgspec.structs.replace(TAGGED, release="Reset"), result=((), 1500)),
    "roll-back": Scenario(
        host={"default_route": True, "cut_by_vfs": True},
        asked=desired(allow_host_used=True, mtu=9000),
        result=((), 1500),
        ends=PfReason.ROLLED_BACK,
    ),
}  # fmt: skip


class Swept:
    """One node of the sweep, with a second PF that vmnic must not touch."""

    def __init__(self, scenario, directory):
        directory.mkdir()
        self.scenario = scenario
        self.node = Node(sim_host(pf(PF, **scenario.host), pf(OTHER_PF, vfs=2)), directory)
        self.lies = []
        self.node.api.when_written = self._check_claim

    async def set_up(self):
        if self.scenario.before is not None:
            await self.node.grant_and_run(self.scenario.before)
        self.foreign = self._look(OTHER_PF)
        del self.node.port.log[:]

    async def step(self):
        """Ask and grant the plan, as the controller and a person who approves do."""
        self.node.api.ask(self.scenario.asked)
        seen = await self.node.run_pass()
        if seen.plan is not None and (seen.problem is None or seen.problem.reason is not PfReason.ROLLED_BACK):
            self.node.api.ask(msgspec.structs.replace(self.scenario.asked, grant=seen.plan.digest))
            seen = await self.node.run_pass()
        return seen

    async def converge(self):
        for _ in range(ROUNDS):
            seen = await self.step()
            reason = seen.problem.reason if seen.problem is not None else None
            if self.is_done and reason is self.scenario.ends and (seen.plan is None or reason is PfReason.ROLLED_BACK):
                return
        raise AssertionError(f"after {ROUNDS} rounds: {seen.plan} {seen.problem} {self._look(PF)}")

    @property
    def is_done(self):
        return self._look(PF) == self.scenario.result and self._is_named

    @property
    def _is_named(self):
        """Return whether the links of VFs have the addresses, and not only the PF's records of them."""
        vfs = [link for link in self.node.sim.perform(ReadLinks()) if link.pci_address.startswith("0000:0b:1")]
        return all(vf.mac.startswith(self.scenario.prefix) for vf in vfs)

    @property
    def is_foreign_untouched(self):
        return self._look(OTHER_PF) == self.foreign and not any(
            OTHER_PF in str(op) or "ens12" in str(op) for op in self.node.port.writes
        )

    @property
    def is_last_claim_answered(self):
        """Return whether the last claim has ended, which the controller's ledger waits for."""
        runs = [status.pfs[0].apply for status in self.node.api.written if status.pfs[0].apply is not None]
        claimed = [run.digest for run in runs if run.state is ApplyState.CLAIMED]
        return runs[-1].digest == claimed[-1] and runs[-1].state not in (ApplyState.CLAIMED, ApplyState.APPLYING)

    def _look(self, address):
        """Return the drivers of the VFs and the PF's MTU, read from the simulated host."""
        names = [name for name in self.node.sim.perform(ListDir(f"{DEVICES}/{address}")) if name.startswith("virtfn")]
        drivers = tuple(self._driver(f"{DEVICES}/{address}/{name}") for name in sorted(names))
        link = self.node.sim.perform(ListDir(f"{DEVICES}/{address}/net"))[0]
        return drivers, int(self.node.sim.perform(ReadFile(f"/sys/class/net/{link}/mtu")))

    def _driver(self, path):
        try:
            return self.node.sim.perform(ReadLink(f"{path}/driver")).rsplit("/", 1)[-1]
        except FileNotFoundError:
            return ""

    def _check_claim(self, status):
        """Record a status that is Ready too early.

        Ready is false until the PF is as asked, and always if the change is rolled back.
        """
        ready = status.conditions[0].status == "True"
        is_asked = msgspec.structs.replace(self.node.api.state.spec.pfs[0], grant=None) == self.scenario.asked
        if ready and is_asked and not (self.is_done and self.scenario.ends is None):
            self.lies.append(status)


async def operations(scenario, directory):
    """Return the operations of a change, each with the state that survives the agent then: host, journal, API object."""
    swept = Swept(scenario, directory)
    await swept.set_up()
    node, found = swept.node, []
    perform = node.port.perform

    def watched(op):
        found.append(
            (
                op,
                (
                    node.sim.writes,
                    (directory / "journal.json").exists() and (directory / "journal.json").read_bytes(),
                    len(node.api.written),
                ),
            )
        )
        return perform(op)

    node.port.perform = watched
    await swept.converge()
    return found


def faults(operations):
    """Yield faults before, during and after every operation.

    A kill before an operation is only tested if the surviving state has changed since the operation before.
    """
    last = None
    for number, (op, outlives) in enumerate(operations, 1):
        if is_write(op) or outlives != last:
            yield Fault(when=When.BEFORE, at=number)
        last = outlives
        if is_write(op):
            yield from (Fault(when=when, at=number) for when in (When.DURING, When.AFTER))


async def killed(swept, fault):
    """Run until the fault takes effect, and start the agent again."""
    swept.node.port.faults.append(fault)
    with pytest.raises(Killed):
        await swept.converge()
    swept.node.port.faults.clear()
    swept.node.restart_agent()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SCENARIOS)
async def test_an_agent_killed_at_any_point_converges(tmp_path, name, told):
    scenario, points, writes = SCENARIOS[name], 0, []
    found = await operations(scenario, tmp_path / "count")
    for fault in faults(found):
        points += 1
        swept = Swept(scenario, tmp_path / f"{points}")
        await swept.set_up()
        await killed(swept, fault)
        if swept.node.port.in_flight:
            done = len(swept.node.port.writes)
            await swept.step()
            assert len(swept.node.port.writes) == done, "nothing is written beside a write in flight"
            swept.node.port.finish()
        await swept.converge()
        assert (swept.is_done, swept.is_foreign_untouched, swept.lies) == (True, True, [])
        assert swept.is_last_claim_answered
        writes.append(len(swept.node.port.writes))
        await swept.node.run_pass()
        assert len(swept.node.port.writes) == writes[-1], "the next pass writes nothing"
    plain = sum(is_write(op) for op, _ in found)
    told(
        f"kill sweep, {name}: {len(found)} operations, {points} different points to die at, all converged; "
        f"{plain} writes unharmed, at most {max(writes)} with the kill"
    )
