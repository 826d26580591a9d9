"""The node's network cut off by a change.

The agent alone rolls it back, even if the API server does not answer or an agent was killed.
"""

import contextlib
import signal
import threading

import pytest

from vmnic.host.ops import SetLink

from .node import virtual

GATEWAY = "10.0.3.2"
"""QEMU's end of the first NIC's network, where this machine's loopback, and so the API server, is also reachable."""
ROLLBACK_S = 30


class Cut:
    """A switch port that shuts down while its NIC has VFs, as port security does."""

    def __init__(self, node, pf):
        self._node = node
        self._pf = pf
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow)
        self.cuts = 0
        self._thread.start()

    def _follow(self):
        plugged = True
        while not self._ended.wait(0.1):
            wanted = self._node.count(self._pf) == 0
            if wanted != plugged:
                self._node.guest.monitor.ask("set_link", name="igb1", up=wanted)
                self.cuts += not wanted
                plugged = wanted

    def end(self):
        self._ended.set()
        self._thread.join()


def make_only_way_out(node):
    """Give the first NIC the node's address and default route."""
    name = node.link(node.pfs[0])
    node.guest.perform(SetLink(name=name, up=True))
    node.guest.control({"assign_address": {"link": name, "address": "10.0.3.15/24"}})
    node.guest.run("ip", "route", "add", "default", "via", GATEWAY, "dev", name)


@pytest.fixture
def node(online):
    """A node whose only uplink is the first NIC."""
    online.guest.reset()
    online.fresh()
    make_only_way_out(online)
    yield online
    online.stop_agent()
    online.guest.reset()


def wish(node):
    return virtual(node.pfs[0], 2, allow_host_used=True, rollback_timeout_s=ROLLBACK_S)


def run_into_the_cut(node):
    """Grant the change, and wait until the network is cut."""
    pf = node.pfs[0]
    node.api.granting = False
    node.start_agent(KUBERNETES_SERVICE_HOST=GATEWAY)
    node.api.ask(wish(node))
    node.wait_for("a plan is told", lambda: node.pf(pf) is not None and node.pf(pf).plan)
    assert node.pf(pf).plan.disruptive
    cut = Cut(node, pf)
    node.api.grant(pf)
    node.wait_for("the network is cut", lambda: cut.cuts)
    return cut


def assert_rolled_back(node, cut):
    pf = node.pfs[0]
    try:
        node.wait_for("the function is as before", lambda: node.count(pf) == 0, ROLLBACK_S + 60)
        node.wait_for("it is told", lambda: node.conditions().get("RolledBack") == ("True", "RolledBack"))
    finally:
        cut.end()
    assert node.pf(pf).apply.state == "RolledBack"
    assert cut.cuts == 1
    runs = node.runs()
    node.look_again()
    assert (node.runs(), node.count(pf)) == (runs, 0)
    assert "RolledBack" in str(node.pf(pf).problem)


class TestCut:
    @pytest.mark.parametrize("api", ["there", "away"])
    def test_a_change_that_cuts_the_network_is_rolled_back_once(self, node, api):
        with contextlib.ExitStack() as stack:
            cut = run_into_the_cut(node)
            if api == "away":
                stack.enter_context(node.api.away())
                node.wait_for("the function is as before", lambda: node.count(node.pfs[0]) == 0, ROLLBACK_S + 60)
        assert_rolled_back(node, cut)

    def test_an_agent_killed_meanwhile_rolls_back_at_its_restart(self, node):
        cut = run_into_the_cut(node)
        node.stop_agent(signal.SIGKILL)
        node.start_agent(KUBERNETES_SERVICE_HOST=GATEWAY)
        assert_rolled_back(node, cut)
