"""Counting of free devices: in use, assigned, starting, stopped, and assigned twice."""

from vmnic.policy.capacity import Claim, NodeDevices, can_drive, count_capacity
from vmnic.policy.facts import GuestOs, VmFacts


def node(total, held=0, **options):
    return NodeDevices(total={"r": total}, held={"r": held}, **options)


def claim(name, *, node="", wanted=1, of=None, halted=False, created="1"):
    vm = VmFacts(namespace="a", name=name, node=node, running=not halted, started=bool(node), halted=halted, created=created)
    return Claim(vm=vm, held={"r": wanted} if node else {}, wanted={"r": wanted}, of={} if of is None else {"r": of})


def left(nodes, *claims):
    found = count_capacity(nodes, claims)
    return dict(found.free["r"]), found


def test_a_device_in_use_is_counted_once():
    assert left({"n1": node(7, held=2)}, claim("x", node="n1"))[0] == {"n1": 5}
    assert left({"n1": node(7, held=0)}, claim("x", node="n1"))[0] == {"n1": 6}


def test_a_starting_vm_may_be_the_unknown_holder():
    free, found = left({"n1": node(1, held=1)}, claim("x", of=1))
    assert (free, found.overshot) == ({"n1": 0}, frozenset())


def test_a_stopped_vm_holds_no_device_but_its_claim_is_counted():
    free, found = left({"n1": node(1)}, claim("x", halted=True))
    assert (free, found.idle, found.assigned) == ({"n1": 1}, {"r": 1}, {"r": 1})


def test_the_youngest_vm_gives_back_a_device_assigned_twice():
    free, found = left({"n1": node(1)}, claim("young", of=1, created="2"), claim("old", of=1, created="1"))
    assert (free, found.overshot) == ({"n1": 0}, {("a", "young")})


def test_lost_capacity_or_foreign_claims_make_no_vm_give_back():
    assert not left({"n1": node(1)}, claim("a", of=2), claim("b", of=2, created="2"))[1].overshot
    assert not left({"n1": node(1)}, claim("a"), claim("b", created="2"))[1].overshot
    assert not left({"n1": node(1)}, claim("a", node="n1"), claim("b", node="n1", of=1))[1].overshot


def test_a_claim_that_fits_on_no_node_is_subtracted_anyway():
    assert left({"n1": node(1), "n2": node(1)}, claim("x", wanted=2))[0] == {"n1": 0, "n2": 0}


def test_a_device_being_released_is_reserved_for_a_waiting_vm():
    leaving = Claim(vm=claim("old", node="n1").vm, held={"r": 1}, wanted={})
    free, found = left({"n1": node(1, held=1)}, leaving, claim("x", of=1, created="2"))
    assert (free, found.overshot) == ({"n1": 0}, frozenset())
    assert left({"n1": node(1, held=1)}, leaving)[0] == {"n1": 0}


def test_no_vm_gives_back_while_a_node_is_unknown():
    nodes = {"n1": node(1), "n2": node(0, unknown=frozenset("r"))}
    claims = [claim("young", of=1, created="2"), claim("old", of=1, created="1")]
    assert left(nodes, *claims)[1].overshot == frozenset()


def test_an_unknown_guest_has_no_linux_only_driver():
    only = node(1, linux_only=frozenset("r"))
    guests = {one: can_drive(VmFacts(namespace="a", name="x", guest_os=one), only, ["r"]) for one in GuestOs}
    assert guests == {GuestOs.LINUX: True, GuestOs.WINDOWS: False, GuestOs.UNKNOWN: False}
