"""A change that interrupts links of VFs runs only if a person has approved what holders lose."""

import msgspec
import pytest

from tests.builders.agent import Node, desired
from tests.builders.host import sim_host
from tests.harness.faults import Fault, Killed, When
from vmnic.agent.kubelet.podresources import HoldersUnknownError
from vmnic.api.node_state import Annotations, ApplyState
from vmnic.cli.approve import approve_plans
from vmnic.host.ops import SetLink

DB, WEB = "pod tenants/db", "pod tenants/web"
LOSES = "pod tenants/db loses its link for seconds"


@pytest.fixture
async def node(tmp_path):
    """Return a node with VFs of which a pod holds two."""
    node = Node(sim_host(), tmp_path)
    await node.grant_and_run(desired())
    node.holders.names |= {"0000:0b:10.0": DB, "0000:0b:10.2": DB}
    return node


def approve(node, value=None):
    value = approve_plans(node.api.state, None).value if value is None else value
    meta = msgspec.structs.replace(node.api.state.metadata, annotations=Annotations(approved=value))
    node.api.state = msgspec.structs.replace(node.api.state, metadata=meta)


async def grant(node, spec, *, approved=None):
    """Ask, plan, approve and grant, and return the plan."""
    node.api.ask(spec)
    plan = (await node.run_pass()).plan
    approve(node, approved)
    node.api.ask(msgspec.structs.replace(spec, grant=plan.digest))
    return plan


@pytest.mark.parametrize("changes", [{"mtu": 9000}, {"queues": 1}], ids=["MTU", "queues"])
async def test_holders_of_vfs_that_stay_are_soft_blockers(node, changes):
    node.api.ask(desired(**changes))
    plan = (await node.run_pass()).plan
    assert (plan.disruptive, plan.fenced, plan.hard, plan.soft) == (True, False, (), (LOSES,))


async def test_an_approved_interruption_runs_without_a_fence(node):
    await grant(node, desired(mtu=9000))
    node.fence.ever.clear()
    status = await node.run_pass()
    assert (status.apply.state, status.mtu, status.plan, node.fence.ever) == (ApplyState.APPLIED, 9000, None, set())


async def test_an_unapproved_interruption_does_not_run(node):
    await grant(node, desired(mtu=9000), approved="")
    status = await node.run_pass()
    assert (status.mtu, status.plan.soft) == (1500, (LOSES,))


@pytest.mark.parametrize(
    ("late", "refused"),
    [
        ({"0000:0b:10.4": WEB}, "pod tenants/web loses its link for seconds"),
        ({"0000:0b:10.4": DB}, ""),
    ],
    ids=["another pod", "another VF of the same pod"],
)
async def test_a_holder_that_comes_after_the_approval_refuses(node, late, refused):
    await grant(node, desired(mtu=9000))
    node.api.before_claim = lambda: node.holders.names.update(late)
    status = await node.run_pass()
    state = ApplyState.REFUSED if refused else ApplyState.APPLIED
    assert (status.apply.state, status.apply.message, status.mtu) == (state, refused, 1500 if refused else 9000)


async def test_a_holder_that_leaves_after_the_approval_is_fine(node):
    await grant(node, desired(mtu=9000))
    node.holders.names.clear()
    assert (await node.run_pass()).apply.state is ApplyState.APPLIED


async def test_a_holder_of_a_harmless_change_refuses_it(tmp_path):
    node = Node(sim_host(), tmp_path)
    await node.grant_and_run(desired())
    node.api.before_claim = lambda: node.holders.names.update({"0000:0b:10.0": DB})
    status = await node.grant_and_run(desired(mtu=9000))
    assert (status.apply.state, status.apply.message) == (ApplyState.REFUSED, LOSES)


async def test_an_approval_withdrawn_before_the_claim_starts_nothing(node):
    await grant(node, desired(mtu=9000))
    seen = node.api.state
    approve(node, "")
    status = (await node.agent.run(seen)).pfs[0]
    assert (status.mtu, status.plan.soft) == (1500, (LOSES,))


async def test_an_approval_does_not_cover_a_vf_that_would_go(node):
    await grant(node, desired(num_vfs=3))
    status = await node.run_pass()
    assert (status.num_vfs, status.plan.hard) == (7, ("pod tenants/db holds 0000:0b:10.0", "pod tenants/db holds 0000:0b:10.2"))


async def test_an_interrupted_change_completes_beside_approved_holders(node):
    await grant(node, desired(mtu=9000, queues=1))
    node.port.faults.append(Fault(when=When.AFTER, matches=lambda op: isinstance(op, SetLink)))
    with pytest.raises(Killed):
        await node.run_pass()
    node.port.faults.clear()
    node.restart_agent()
    status = await node.run_pass()
    assert (status.mtu, status.queues, status.apply.state) == (9000, 1, ApplyState.APPLIED)


async def test_drift_is_not_repaired_under_a_holder(node):
    await grant(node, desired(mtu=9000))
    await node.run_pass()
    approve(node, "")
    node.sim.perform(SetLink(name=(await node.run_pass()).name, mtu=1500))
    assert ((await node.run_pass()).mtu, (await node.run_pass()).plan.soft) == (1500, (LOSES,))
    node.holders.names.clear()
    assert (await node.run_pass()).mtu == 9000


async def test_links_are_not_interrupted_while_holders_are_unknown(node, monkeypatch):
    async def fail():
        raise HoldersUnknownError("the kubelet does not answer")

    node.holders.names.clear()
    node.api.ask(desired(mtu=9000))
    plan = (await node.run_pass()).plan
    node.api.ask(desired(mtu=9000, grant=plan.digest))
    monkeypatch.setattr(node.holders, "read", fail)
    assert (await node.run_pass()).mtu == 1500
