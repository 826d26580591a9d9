"""Parallel changes on one node. The kernel changes the VFs of one PF at a time, and a stuck write stops the others."""

import asyncio
import contextlib

import msgspec

from tests.builders.agent import LockableHost, Node, desired
from tests.builders.host import OTHER_PF, PF, pf, sim_host
from tests.harness.faults import Fault, When
from vmnic.api.reasons import PfReason
from vmnic.host.ops import WriteFile


def makes_vfs(op):
    return isinstance(op, WriteFile) and op.path.endswith("sriov_numvfs")


class CountingHost(LockableHost):
    """Lets other tasks run while VFs are created, and counts how many create them at a time."""

    now = most = 0

    @contextlib.asynccontextmanager
    async def session(self, pf, *, write):
        async with super().session(pf, write=write) as session:
            perform = session.perform

            async def counted(op, *, deadline_s):
                self.now += makes_vfs(op)
                self.most = max(self.most, self.now)
                for _ in range(20 * makes_vfs(op)):
                    await asyncio.sleep(0)
                self.now -= makes_vfs(op)
                return await perform(op, deadline_s=deadline_s)

            session.perform = counted
            yield session


async def run_both(node):
    """Grant the changes of both PFs and execute them in one pass."""
    specs = [desired(PF), desired(OTHER_PF)]
    node.api.ask(*specs)
    plans = [one.plan.digest for one in (await node.agent.run(node.api.state)).pfs]
    node.api.ask(*(msgspec.structs.replace(spec, grant=digest) for spec, digest in zip(specs, plans, strict=True)))
    return (await node.agent.run(node.api.state)).pfs


async def test_vfs_are_created_on_one_pf_at_a_time(tmp_path):
    node = Node(sim_host(pf(PF), pf(OTHER_PF)), tmp_path)
    node.host = CountingHost(node.port)
    node.restart_agent()
    assert [one.num_vfs for one in await run_both(node)] == [7, 7]
    assert node.host.most == 1


async def test_a_hung_write_stops_the_next_write_of_a_parallel_change(tmp_path):
    node = Node(sim_host(pf(PF), pf(OTHER_PF)), tmp_path)
    node.host = CountingHost(node.port)
    node.restart_agent()
    node.port.faults.append(Fault(when=When.HANG, matches=lambda op: makes_vfs(op) and PF in op.path))
    stuck, other = await run_both(node)
    assert (stuck.problem.reason, other.problem.reason, other.num_vfs) == (PfReason.PCI_BUS_STUCK, PfReason.PCI_BUS_STUCK, 0)
    assert "was not started" in other.apply.message
    assert [op.path.rsplit("/", 1)[-1] for op in node.port.writes if OTHER_PF in op.path] == ["sriov_drivers_autoprobe"]
