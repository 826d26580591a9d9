"""Which spec is in force. A spec that has not been applied is not advertised."""

import msgspec
import pytest

from tests.builders.agent import desired
from tests.builders.devices import observed
from tests.builders.host import PF
from vmnic.agent.journal import Intent, Journal, PfRecord
from vmnic.agent.kubelet.advertised import advertised_devices
from vmnic.api.node_state import NodeSpec, PfPlan
from vmnic.nodes.planning.plan import Planned
from vmnic.nodes.planning.target import original_of

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


def test_a_running_change_makes_all_devices_unusable():
    record = PfRecord(original=ORIGINAL, granted=OLD, running=RUNNING)
    assert offered(NEW, record) == [(OLD, f"{PF} is being changed")]
    assert offered(NEW, PfRecord(original=ORIGINAL, running=RUNNING)) == [(NEW, f"{PF} is being changed")]
    assert offered(NEW, record, Planned()) == [(NEW, f"{PF} is being changed")]


def test_a_released_pf_offers_no_new_devices():
    given_up = msgspec.structs.replace(NEW, release="Reset")
    assert offered(given_up, PfRecord(original=ORIGINAL, granted=OLD)) == [(OLD, f"{PF} is being released")]
    assert offered(given_up, PfRecord(), Planned()) == []


def test_a_missing_pf_is_distinguished_from_an_unreadable_one():
    record = PfRecord(original=ORIGINAL, granted=OLD)
    assert offered(NEW, record, there=False) == [(OLD, f"{PF} is not on the bus")]
    assert offered(NEW, record, there=False, unreadable={PF}) == [(OLD, f"{PF} does not answer")]


def test_granted_devices_stay_advertised_before_the_first_sync():
    assert offered(None, PfRecord(original=ORIGINAL, granted=OLD), synced=False) == [(OLD, "")]


@pytest.mark.parametrize("synced", [True, False])
def test_a_pf_with_its_link_in_another_netns_offers_nothing(synced):
    asked, fault = (NEW if synced else None), f"the link of {PF} is in another network namespace"
    assert offered(asked, PfRecord(original=ORIGINAL, granted=OLD), synced=synced, link_elsewhere=True) == [(OLD, fault)]
