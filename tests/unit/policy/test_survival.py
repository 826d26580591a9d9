"""After the loss of a node, its VMs are matched with the devices of the others."""

import random

import pytest

from vmnic.kube.time_budget import time_budget
from vmnic.policy.capacity import Claim, NodeDevices, Taint, count_capacity
from vmnic.policy.facts import GuestOs, VmFacts
from vmnic.policy.relocation import find_unplaceable
from vmnic.policy.survival import Loss, assess_losses, find_residents, settle


def claim(name, node, *, selector=None, os=GuestOs.LINUX, **devices):
    vm = VmFacts(namespace="t", name=name, node=node, started=bool(node), node_selector=selector or {}, guest_os=os)
    return Claim(vm=vm, held=devices if node else {}, wanted=devices)


def losses_of(nodes, claims, **options):
    residents = find_residents(claims, count_capacity(nodes, claims))
    return {one.loss.node: one for one in assess_losses(residents, [Loss(node=name) for name in nodes], **options)}


def answers(nodes, claims, **options):
    return {name: one.survives for name, one in losses_of(nodes, claims, **options).items()}


def random_scene(rng):
    nodes = {
        f"n{number}": NodeDevices(
            labels={"rack": rng.choice("ab")},
            usable=rng.random() < 0.9,
            taints=(Taint("x", "", "NoSchedule"),) if rng.random() < 0.1 else (),
            total={"fast": rng.randrange(5), "slow": rng.randrange(3)},
            linux_only=frozenset({"fast"}) if rng.random() < 0.1 else frozenset(),
        )
        for number in range(rng.randrange(1, 7))
    }
    claims = []
    for name, node in nodes.items():
        left = dict(node.total)
        for number in range(4):
            need = rng.choice([{"fast": 1}, {"fast": 2}, {"slow": 1}, {"fast": 1, "slow": 1}])
            if rng.random() < 0.6 and all(left[one] >= count for one, count in need.items()):
                left = {one: count - need.get(one, 0) for one, count in left.items()}
                selector = {"rack": rng.choice("ab")} if rng.random() < 0.2 else {}
                os = rng.choice([GuestOs.LINUX, GuestOs.LINUX, GuestOs.WINDOWS])
                claims.append(claim(f"{name}-{number}", name, selector=selector, os=os, **need))
    return nodes, claims


@pytest.mark.parametrize("seed", range(300))
def test_shortcuts_give_the_answer_of_the_matching(seed):
    nodes, claims = random_scene(random.Random(seed))
    capacity = count_capacity(nodes, claims)
    expected = {
        name: not find_unplaceable([one for one in claims if one.vm.node == name], capacity, leaving={name}) for name in nodes
    }
    assert answers(nodes, claims) == expected


def test_the_bound_over_all_losses_makes_the_rest_unknown():
    nodes = {f"n{number}": NodeDevices(labels={"x": "1"}, total={"fast": 1}) for number in range(4)}
    claims = [claim(f"v{number}", f"n{number}", selector={"x": "1"}, fast=1) for number in range(3)]
    assert answers(nodes, claims, most_visits=1) == {"n0": True, "n1": None, "n2": None, "n3": True}


@pytest.mark.parametrize("both", [False, True], ids=["one resource", "two resources"])
def test_a_large_cluster_is_assessed_quickly(both):
    more = {"slow": 1} if both else {}
    nodes = {f"n{number}": NodeDevices(total={"fast": 8, "slow": 8}) for number in range(1000)}
    claims = [claim(f"v{node}-{number}", f"n{node}", fast=1, **more) for node in range(1000) for number in range(7)]
    capacity = count_capacity(nodes, claims)
    with time_budget(0.5):
        residents = find_residents(claims, capacity)
        found = list(assess_losses(residents, [Loss(node=name) for name in nodes], most_visits=50_000))
    assert {one.survives for one in found} == {True}


def test_mixed_needs_are_matched_with_few_nodes():
    nodes = {f"n{number}": NodeDevices(total={"fast": 8, "slow": 8}) for number in range(300)}
    claims = [claim(f"v{node}-{number}", f"n{node}", fast=1, **({"slow": 1} if number else {})) for node in range(300) for number in range(4)]  # fmt: skip
    assert set(answers(nodes, claims, most_visits=50_000).values()) == {True}


def test_waiting_vms_take_what_running_ones_leave():
    nodes = {"n1": NodeDevices(total={"fast": 2}), "n2": NodeDevices(total={"fast": 1})}
    residents = settle(nodes, [claim("a", "n1", fast=1), claim("b", "", fast=1), claim("c", "", fast=1)])
    assert {one.loss.node: one.survives for one in assess_losses(residents, [Loss(node="n1"), Loss(node="n2")])} == {
        "n1": False, "n2": False,
    }  # fmt: skip
    assert (residents.unplaced, len(residents.waiting)) == ((), 2)


def test_a_resource_without_a_known_bound_limits_no_waiting_vm():
    residents = settle({"n1": NodeDevices(total={"fast": 1})}, [claim("a", "", other=1)])
    assert (residents.unplaced, residents.waiting) == ((), ())
