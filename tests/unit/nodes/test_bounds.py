"""Every status of an agent is made to fit its bounds, and omitted values are reported."""

import msgspec
import pytest

from tests.builders.node import PF, pf_status
from vmnic.api.node_state import Action, Apply, Condition, Held, HostFacts, NodeStatus, PfPlan, PfProblem, VfRange, wire
from vmnic.nodes.bounds import fit
from vmnic.nodes.state import decode_node_state

DIGEST = "d" * 32
LONG = "x" * 5000
HUGE = NodeStatus(
    observed_generation=2**60,
    boot_id="UPPER",
    host=HostFacts(kernel=LONG, modules=("m" * 99,) * 99, refused=(LONG,) * 99),
    pfs=(
        pf_status(
            name=LONG,
            alt_names=(LONG,) * 99,
            vendor="0x8086",
            driver="a\nb",
            numa_node=-1,
            mtu=2**40,
            total_vfs=2048,
            vf_stride=-2,
            first_vf="10000:0b:10.0",
            vfs=tuple(VfRange(range=str(index), driver=LONG) for index in range(300)),
            held=(Held(vf="zz"), *(Held(vf="0000:0b:10.0", by=LONG) for _ in range(300))),
            host_use=(LONG,) * 99,
            plan=PfPlan(digest=DIGEST, text=LONG, actions=(Action(kind="SetMtu", value=LONG),) * 99, blocked_by=(LONG,) * 99),
            problem=PfProblem(reason="HostUsed", message=LONG),
            apply=Apply(digest=DIGEST, state="Failed", message="\ud800" + LONG),
        ),
    )
    * 80,
    conditions=(Condition(type="Ready", status="True", reason="X", message=LONG, last_transition_time="yesterday"),) * 99,
)


def read_back(status):
    return decode_node_state(msgspec.json.encode({"metadata": {"name": "n1"}, "status": wire(status)}))


def test_a_status_beyond_every_bound_is_shortened_to_fit():
    made, _ = fit(HUGE)
    found = read_back(msgspec.structs.replace(made, pfs=made.pfs[:1]))
    assert (found.unreadable, found.status.pfs[0]) == ("", made.pfs[0])
    assert (len(made.pfs), made.pfs[0].total_vfs, made.pfs[0].vendor, made.pfs[0].driver) == (64, 1024, "", "a?b")


@pytest.mark.parametrize(
    "note",
    [
        "pfs has 80 entries, 64 are shown",
        f"pfs[{PF}].held has 301 entries, 255 are shown",
        f"pfs[{PF}].totalVfs is 2048, 1024 is shown",
        f"pfs[{PF}].vendor is not shown as it is",
        "bootID is not shown as it is",
    ],
)
def test_omitted_values_are_reported(note):
    assert note in fit(HUGE)[1]


def test_a_status_that_fits_is_unchanged():
    status = NodeStatus(boot_id="b1", pfs=(pf_status(num_vfs=7),))
    made, notes = fit(status)
    assert (made, notes) == (status, ())


def test_the_longest_pod_name_is_not_cut():
    held = Held(vf="0000:0b:10.0", by=f"pod {'n' * 63}/{'p' * 253}")
    assert fit(held) == (held, ())


def test_a_required_field_that_cannot_fit_is_an_error():
    with pytest.raises(ValueError, match="no form that fits"):
        fit(Held(vf="zz"))
