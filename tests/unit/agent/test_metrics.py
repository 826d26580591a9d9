"""The metrics that an agent serves are those that are documented, and each change is counted by its outcome."""

import pytest

from tests.builders.metrics import differences, value
from vmnic.agent.metrics import AGENT_METRICS, AgentMetrics
from vmnic.api.node_state import Apply, ApplyState, NodeStatus, PfProblem, PfStatus, VfRange
from vmnic.api.reasons import PfReason
from vmnic.host.client import LocalHost, OperationTimedOutError
from vmnic.host.ops import ReadFile
from vmnic.host.ports import StillBlocked


def status(**fields):
    return NodeStatus(pfs=(PfStatus(pci_address="0000:0b:00.0", **fields),))


def scraped(*statuses):
    metrics = AgentMetrics({"PATCH nodenicstates": 1})
    for one in statuses:
        metrics.found(one)
    return metrics.render().decode()


def test_served_metrics_are_those_documented():
    assert differences(scraped(status()), AGENT_METRICS) == []


@pytest.mark.parametrize(
    ("after", "outcome"),
    [
        ({"apply": Apply(digest="a", state=ApplyState.APPLIED)}, "Applied"),
        ({"apply": Apply(digest="a", state=ApplyState.REFUSED)}, "Refused"),
        ({"problem": PfProblem(PfReason.ROLLED_BACK, "")}, "RolledBack"),
        ({"problem": PfProblem(PfReason.APPLY_FAILED, "")}, "Failed"),
        ({}, "Applied"),
    ],
)  # fmt: skip
def test_a_change_is_counted_when_the_attempt_rises(after, outcome):
    text = scraped(status(attempt=1), status(attempt=2, **after), status(attempt=2, **after))
    assert value(text, "vmnic_agent_runs_total", outcome=outcome) == 1


def test_changes_before_the_start_are_not_counted():
    assert "vmnic_agent_runs_total{" not in scraped(status(attempt=7))


def test_vfs_are_counted_by_state():
    text = scraped(status(total_vfs=7, num_vfs=4, vfs=(VfRange("0-2", driver="vfio-pci"), VfRange("3", driver="igbvf"))))
    counts = {state: value(text, "vmnic_agent_vfs", state=state) for state in ("possible", "configured", "vfio", "in_use")}
    assert counts == {"possible": 7, "configured": 4, "vfio": 3, "in_use": 0}


class Port:
    def __init__(self, *answers):
        self.answers = list(answers)

    def perform(self, op):
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


async def test_host_operations_are_counted_by_outcome():
    metrics = AgentMetrics({})
    host = metrics.counted_host(LocalHost(Port("7", OSError(2, "no such file"), StillBlocked())))
    async with host.session("0000:0b:00.0", write=False) as session:
        await session.perform(ReadFile("/a"), deadline_s=1)
        with pytest.raises(OSError, match="no such file"):
            await session.perform(ReadFile("/a"), deadline_s=1)
        with pytest.raises(OperationTimedOutError):
            await session.perform(ReadFile("/a"), deadline_s=1)
    text = metrics.render().decode()
    name = "vmnic_agent_host_operations_total"
    counts = [value(text, name, operation="ReadFile", outcome=outcome) for outcome in ("done", "refused", "late")]
    assert counts == [1, 1, 1]
