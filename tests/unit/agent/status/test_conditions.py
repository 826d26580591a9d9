"""A status that is too large to be shown completely."""

from tests.builders.node import pf_status
from vmnic.agent.status.conditions import fit_status
from vmnic.api.node_state import Condition, NodeStatus

MANY = tuple(pf_status(f"0000:{bus:02x}:00.0") for bus in range(70))
READY = (Condition(type="Ready", status="True", reason="AsDesired", message="x" * 1024),)


def test_pfs_of_pools_stay_if_there_is_no_room_for_all():
    made = fit_status(NodeStatus(pfs=MANY), {MANY[-1].pci_address})
    assert (len(made.pfs), made.pfs[-1]) == (64, MANY[-1])


def test_ready_names_what_is_not_shown():
    (ready,) = fit_status(NodeStatus(pfs=MANY, conditions=READY), ()).conditions
    assert ready.message.endswith("(shortened: pfs has 70 entries, 64 are shown)")
    assert len(ready.message) == 1024
