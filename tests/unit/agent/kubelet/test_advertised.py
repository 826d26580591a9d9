"""Which spec is in force: what has not been applied is not offered."""

import msgspec
import pytest

from tests.builders.agent import desired
from tests.builders.devices import observed
from tests.builders.host import PF
from vmnic.agent.journal import Intent, Journal, PfRecord
from vmnic.agent.kubelet.advertised import advertised_devices
from vmnic.nodes.planning.plan import Planned
from vmnic.nodes.planning.target import original_of
from vmnic.nodes.state import NodeSpec, PfPlan

OLD, NEW = desired(num_vfs=7), desired(num_vfs=3)
PENDING = Planned(plan=PfPlan(digest="d"))
ORIGINAL = original_of(observed())
RUNNING = Intent(digest="d", desired=NEW, before=ORIGINAL)


def offered(asked, record, planned=PENDING, *, there=True, synced=True, unreadable=(), **changes):
    seen = {PF: observed(**changes)} if there else {}
    spec = NodeSpec(synced=synced, pfs=(asked,) if asked else ())
    return [
        (one.spec, one.fault) for one in advertised_devices(spec, seen, {PF: planned}, Journal(pfs={PF: record}), unreadable)
    ]


@pytest.mark.parametrize(
    ("record", "planned", "expected"),
    [
        pytest.param(PfRecord(), PENDING, [], id="nothing before the first apply"),
        pytest.param(PfRecord(), Planned(), [(NEW, "")], id="what is as asked, also without a run"),
        pytest.param(
            PfRecord(original=ORIGINAL, granted=OLD), PENDING, [(OLD, "")], id="the last granted until the next is applied"
        ),
        pytest.param(PfRecord(original=ORIGINAL), PENDING, [(NEW, "")], id="what a failed run has left"),
    ],
)
def test_the_spec_in_force(record, planned, expected):
    assert offered(NEW, record, planned) == expected


def test_an_unfinished_run_takes_everything_out_of_use():
    record = PfRecord(original=ORIGINAL, granted=OLD, running=RUNNING)
    assert offered(NEW, record) == [(OLD, f"{PF} is being changed")]
    assert offered(NEW, PfRecord(original=ORIGINAL, running=RUNNING)) == [(NEW, f"{PF} is being changed")]
    assert offered(NEW, record, Planned()) == [(NEW, f"{PF} is being changed")]


def test_a_released_function_offers_nothing_new():
    given_up = msgspec.structs.replace(NEW, release="Reset")
    assert offered(given_up, PfRecord(original=ORIGINAL, granted=OLD)) == [(OLD, f"{PF} is being given up")]
    assert offered(given_up, PfRecord(), Planned()) == []


def test_a_function_that_is_not_there_is_told_from_one_that_does_not_answer():
    record = PfRecord(original=ORIGINAL, granted=OLD)
    assert offered(NEW, record, there=False) == [(OLD, f"{PF} is not on the bus")]
    assert offered(NEW, record, there=False, unreadable={PF}) == [(OLD, f"{PF} does not answer")]


def test_what_was_granted_stays_offered_before_the_controller_has_decided():
    assert offered(None, PfRecord(original=ORIGINAL, granted=OLD), synced=False) == [(OLD, "")]


@pytest.mark.parametrize("synced", [True, False])
def test_a_function_whose_link_is_in_another_namespace_is_not_handed_out(synced):
    asked, fault = (NEW if synced else None), f"the link of {PF} is in another network namespace"
    assert offered(asked, PfRecord(original=ORIGINAL, granted=OLD), synced=synced, link_elsewhere=True) == [(OLD, fault)]
