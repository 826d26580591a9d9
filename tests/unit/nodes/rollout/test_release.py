"""PFs that no pool asks for are released, and removed from the spec once their agent confirms it."""

import msgspec
import pytest

from tests.builders.node import pool, view
from vmnic.api.node_state import ApplyState, blocker_id
from vmnic.api.reasons import PfReason
from vmnic.nodes.rollout.release import ABANDON, begin_release, released_pfs

SOFT = [("pod a/b", "0000:0b:10.0")]
LOSES = "pod a/b loses its link for seconds"


def released(state_view, *pools):
    return [pf.release for pf in released_pfs(state_view.state, pools, ())]


def abandoned():
    gone = pool()
    return gone.model_copy(update={"metadata": gone.metadata.model_copy(update={"annotations": {ABANDON: ""}})})


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({"owned": True}, ["Reset"]),
        ({"owned": True, "release": "Retain"}, ["Retain"]),
        ({"owned": False}, []),
        ({"owned": False, "generation": 2, "seen": 1}, ["Reset"]),
        ({"owned": False, "apply": ("d1", ApplyState.CLAIMED)}, ["Reset"]),
        ({"owned": True, "problem": PfReason.VANISHED}, []),
    ],
    ids=[
        "vmnic has changed it", "it is being released", "it is as it was", "the agent has not answered yet",
        "a run has begun", "it is not there any more",
    ],
)  # fmt: skip
def test_a_pf_is_being_released_while_the_agent_owns_it(changes, left):
    assert released(view("n1", **changes), pool()) == left


@pytest.mark.parametrize(
    ("pools", "left"),
    [((pool(removal="Retain"),), ["Retain"]), ((), []), ((abandoned(),), []), ((pool("other"),), [])],
    ids=["Retain", "the pool is gone altogether", "the pool lets go", "another pool is there"],
)
def test_the_pool_decides_how_a_pf_is_released(pools, left):
    assert released(view("n1", owned=True), *pools) == left


def test_a_pf_that_another_pool_asks_for_is_not_released():
    state = view("n1", owned=True).state
    assert released_pfs(state, [pool()], {state.spec.pfs[0].pci_address}) == ()


def test_a_release_removes_the_grant():
    (spec,) = released_pfs(view("n1", owned=True, grant="d1").state, [pool()], ())
    assert spec.grant is None


@pytest.mark.parametrize(
    ("changes", "grants"),
    [
        ({"release": "Reset"}, ["d1"]),
        ({}, [None]),
        ({"release": "Reset", "generation": 2, "seen": 1}, [None]),
        ({"release": "Reset", "blocked": [("db", "0000:0b:10.0")]}, [None]),
        ({"release": "Reset", "soft": SOFT}, [None]),
        ({"release": "Reset", "soft": SOFT, "approved": f"d1:{blocker_id(LOSES)}"}, ["d1"]),
        ({"release": "Reset", "problem": PfReason.APPLY_FAILED}, [None]),
        ({"owned": False}, []),
    ],
    ids=[
        "nobody is disturbed",
        "it does not know yet",
        "its plan is an old one",
        "a VF is held",
        "a link would drop",
        "that is approved",
        "it went wrong",
        "all is done",
    ],
)
def test_without_a_controller_only_harmless_releases_are_granted(changes, grants):
    state = view("n1", **({"owned": True} | changes)).state
    assert [pf.grant for pf in begin_release(state, [pool()]).pfs] == grants


def test_an_unreadable_state_has_released_nothing():
    state = msgspec.structs.replace(view("n1", owned=False).state, unreadable="numVfs is too large")
    assert [pf.release for pf in released_pfs(state, [pool()], ())] == ["Reset"]
    assert [pf.release for pf in begin_release(state, [pool()]).pfs] == ["Reset"]
