"""A driver may create fewer VFs than asked while the kernel reports success, so the agent counts them."""

from tests.builders.agent import Node, desired
from tests.builders.host import PF, sim_host
from vmnic.api.node_state import ApplyState
from vmnic.host.ops import WriteFile


class StingyHost:
    """A simulated host whose driver creates five VFs at most."""

    def __init__(self, sim):
        self._sim = sim

    def perform(self, op):
        too_many = isinstance(op, WriteFile) and op.path.endswith("sriov_numvfs") and int(op.text) > 5
        return self._sim.perform(WriteFile(op.path, "5") if too_many else op)


async def test_fewer_vfs_than_asked_are_reported_with_a_remedy(tmp_path):
    status = await Node(StingyHost(sim_host()), tmp_path).grant_and_run(desired())
    assert (status.apply.state, status.num_vfs) == (ApplyState.FAILED, 5)
    assert status.problem.message.startswith(f"{PF}: SetNumVfs 7: ETIMEDOUT")
    assert "the driver created fewer VFs than requested" in status.problem.message
