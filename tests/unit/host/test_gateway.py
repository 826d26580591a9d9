"""Which default route is probed, and what counts as an answer of its gateway."""

import socket
from dataclasses import dataclass, field

import pytest

from vmnic.host.gateway import check_gateway
from vmnic.host.routes import default_hops

FAILED, PROBE, REACHABLE, STALE, NOARP, PERMANENT = 0x20, 0x10, 0x02, 0x04, 0x40, 0x80
STATIC, LEARNT = 4, 9
UPLINK, FAST = 2, 3
"""Indexes of links, one that the host has always used and one that vmnic enabled."""
FAST_PF = "0000:0b:00.0"


class Message(dict):
    def get_attr(self, name):
        return self.get(name)


def way(index=UPLINK, gateway="192.0.2.1", family=socket.AF_INET, proto=STATIC, metric=100):
    found = {"RTA_GATEWAY": gateway, "RTA_OIF": index, "RTA_PRIORITY": metric}
    return Message(family=family, dst_len=0, proto=proto, **found)


def learnt(index=FAST, **changes):
    return way(index, **({"gateway": "fe80::2", "family": socket.AF_INET6, "proto": LEARNT} | changes))


@dataclass
class Kernel:
    """The answers of IPRoute. A probed neighbour answers at once or not at all."""

    routes: list[Message]
    state: int = STALE
    answers: bool = True
    addresses: list[Message] = field(default_factory=list)
    asked: list[tuple[str, int]] = field(default_factory=list)

    def get_routes(self):
        return self.routes

    def get_addr(self, index):
        return [one for one in self.addresses if one["index"] == index]

    def link(self, command, index):
        return [Message(IFLA_PARENT_DEV_NAME=FAST_PF if index == FAST else "0000:01:00.0")]

    def get_neighbours(self, **_):
        return [Message(state=self.state)]

    def neigh(self, command, *, dst, ifindex, family, state):
        assert (command, state) == ("change", PROBE)
        self.asked.append((dst, ifindex))
        self.state = REACHABLE if self.answers else FAILED


@pytest.mark.parametrize(("answers", "word"), [(True, "reachable"), (False, "unreachable")])
def test_a_stale_entry_is_probed_again(answers, word):
    kernel = Kernel([way()], answers=answers)
    assert (check_gateway(kernel, ()), kernel.asked) == (word, [("192.0.2.1", UPLINK)])


@pytest.mark.parametrize("state", [PERMANENT, NOARP])
def test_a_permanent_entry_is_no_answer_and_stays_unchanged(state):
    kernel = Kernel([way()], state=state)
    assert (check_gateway(kernel, ()), kernel.asked) == ("", [])


def test_of_several_routes_the_kernels_choice_is_probed():
    kernel = Kernel([learnt(UPLINK, metric=1), way(gateway="192.0.2.9", metric=300), way(metric=50)])
    check_gateway(kernel, ())
    assert kernel.asked == [("192.0.2.1", UPLINK)]


def test_one_hop_of_a_multipath_route_is_probed():
    hops = [Message(oif=FAST, RTA_GATEWAY="198.51.100.1"), Message(oif=UPLINK, RTA_GATEWAY="192.0.2.1")]
    kernel = Kernel([Message(family=socket.AF_INET, dst_len=0, proto=STATIC, RTA_MULTIPATH=hops)])
    assert [hop.link for hop in default_hops(kernel)] == [FAST, UPLINK]
    assert (check_gateway(kernel, ()), kernel.asked) == ("reachable", [("192.0.2.1", UPLINK)])


def test_a_gateway_may_be_of_another_family_than_its_route():
    via = {"family": socket.AF_INET6, "addr": "fe80::9"}
    kernel = Kernel([Message(family=socket.AF_INET, dst_len=0, proto=STATIC, RTA_OIF=UPLINK, RTA_VIA=via)])
    assert (check_gateway(kernel, ()), kernel.asked) == ("reachable", [("fe80::9", UPLINK)])


def test_a_route_learnt_on_a_link_that_vmnic_enabled_is_ignored():
    kernel = Kernel([learnt()], addresses=[Message(index=FAST, scope=0, IFA_PROTO=2), Message(index=FAST, scope=253)])
    assert (check_gateway(kernel, (FAST_PF,)), kernel.asked) == ("", [])


@pytest.mark.parametrize(
    ("route", "self_enabled_links", "addresses"),
    [
        (learnt(UPLINK), (FAST_PF,), []),
        (learnt(), (), []),
        (learnt(proto=STATIC), (FAST_PF,), []),
        (learnt(), (FAST_PF,), [Message(index=FAST, scope=0)]),
    ],
    ids=["another link's", "the link was up before", "somebody wrote it down", "somebody gave the link an address"],
)
def test_a_route_that_the_host_relies_on_counts_even_if_learnt(route, self_enabled_links, addresses):
    kernel = Kernel([route], addresses=addresses)
    assert check_gateway(kernel, self_enabled_links) == "reachable"
    assert kernel.asked == [("fe80::2", route["RTA_OIF"])]
