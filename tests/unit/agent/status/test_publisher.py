"""What is published if the API server refuses a status."""

import msgspec
import pytest

from tests.builders.node import PF, pf_status
from vmnic.agent.status.publisher import Publisher
from vmnic.api.node_state import Apply, Condition, NodeNicState, NodeStatus, ObjectMeta, PfPlan
from vmnic.api.reasons import PfReason
from vmnic.kube.errors import ApiError, InvalidError, UnreachableError

DIGEST = "d" * 32
INVALID = InvalidError(
    status=422, reason="Invalid", message="held[0].by: Too long", causes=("status.pfs[0].held[0].by: Too long",)
)
TOO_LARGE = ApiError(status=500, reason="InternalError", message="etcdserver: request is too large")
READY = (Condition(type="Ready", status="True", reason="AsDesired"),)
ACCEPTED = NodeStatus(observed_generation=3, boot_id="b1", pfs=(pf_status(num_vfs=7),), conditions=READY)
PLANNED = msgspec.structs.replace(
    ACCEPTED,
    observed_generation=4,
    pfs=(pf_status(num_vfs=7, plan=PfPlan(digest=DIGEST), apply=Apply(digest=DIGEST, state="Applied", message="x")),),
)


class Server:
    """An API server that refuses the statuses that `refuses` selects."""

    def __init__(self, refuses, error=INVALID):
        self.refuses, self.error = refuses, error
        self.asked, self.kept = [], []

    async def publish(self, status):
        self.asked.append(status)
        if self.refuses(status):
            raise self.error
        self.kept.append(status)


def publisher(server):
    found = Publisher(server, clock=lambda: server.now)
    server.now = 1000.0
    found.begin(NodeNicState(metadata=ObjectMeta(name="n1"), status=ACCEPTED))
    return found


def is_planned(status):
    return any(pf.plan for pf in status.pfs)


@pytest.mark.parametrize("error", [INVALID, TOO_LARGE], ids=["invalid", "too large"])
async def test_a_refused_status_is_published_without_its_plans(error):
    server = Server(is_planned, error)
    await publisher(server).publish(PLANNED)
    (kept,) = server.kept
    ready = kept.conditions[0]
    assert (ready.status, ready.reason, error.message in ready.message) == ("False", "StatusRefused", True)
    assert (kept.pfs[0].plan, kept.pfs[0].problem.reason, kept.pfs[0].pci_address) == (None, PfReason.UNREADABLE, PF)
    assert (kept.pfs[0].apply.state, kept.observed_generation) == ("Applied", 3)


async def test_a_second_refusal_leaves_only_the_reason():
    server = Server(lambda status: bool(status.pfs))
    await publisher(server).publish(PLANNED)
    assert (server.kept[0].boot_id, server.kept[0].conditions[0].reason) == ("", "StatusRefused")


async def test_a_refused_status_is_published_again_later():
    server = Server(is_planned)
    found = publisher(server)
    for now in (1000.0, 1004.0, 1008.0):
        server.now = now
        await found.publish(PLANNED)
    assert len(server.asked) == 2
    server.now, server.refuses = 2000.0, lambda status: False
    await found.publish(PLANNED)
    assert server.kept[-1] == PLANNED


async def test_an_unreachable_server_is_not_a_refusal():
    server = Server(is_planned, UnreachableError(status=0, reason="Unreachable", message="away"))
    with pytest.raises(UnreachableError):
        await publisher(server).publish(PLANNED)
    assert server.asked == [PLANNED]
