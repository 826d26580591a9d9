"""The agent's processes killed before, during and after a sample of writes to a real kernel.

The unit tier covers all writes.
"""

import pytest

from vmnic.api.node_state import VfGroup, VfSettings
from vmnic.api.reasons import PfReason
from vmnic.host.ops import ReadLinks, ReadVfs

from .gate import GATE
from .node import virtual
from .test_cut import Cut, make_only_way_out

SETTINGS = {"settings": VfSettings(vlan=100, vlan_qos=3, trust=True), "mtu": 9000, "queues": 2}
VFIO, KERNEL = "vfio-pci", "igbvf"
SPLIT = tuple(
    VfGroup(pool=name, resource=f"vmnic.dev/{name}", range=part, driver=driver, settings=SETTINGS["settings"])
    for name, part, driver in (("a", "0", "vfio-pci"), ("b", "1-2", "kernel"))
)
CHANGES = {
    "0 to 7": (lambda pf: virtual(pf, 7, **SETTINGS), [VFIO] * 7),
    "7 to 3": (lambda pf: virtual(pf, 3, **SETTINGS), [VFIO] * 3),
    "another driver": (lambda pf: virtual(pf, 3, driver="kernel", **SETTINGS), [KERNEL] * 3),
    "a split": (lambda pf: virtual(pf, 3, groups=SPLIT, mtu=9000, queues=2), [VFIO, KERNEL, KERNEL]),
    "removal": (lambda pf: virtual(pf, 3, release="Reset", **SETTINGS), []),
    "adoption": (lambda pf: virtual(pf, 2, management="Adopt", **SETTINGS), [VFIO] * 2),
}
POINTS = (
    ("0 to 7", 2, "during", 33), ("7 to 3", 1, "after", 15), ("removal", 1, "before", 5),
    ("0 to 7", 17, "after", 33), ("7 to 3", 15, "before", 15), ("another driver", 6, "during", 10), ("a split", 2, "after", 3),
    ("removal", 4, "during", 4), ("adoption", 7, "before", 12),
)  # fmt: skip
"""The write of each change at which the agent dies, and the number of writes of an agent that lives.

Each change starts where the one before ended. Another program creates the VFs to adopt in between.
"""
UNDOING = 7
"""The write with which the rollback of a change that cut the network starts, by removing its VFs."""


class Gated:
    """A node whose agent reaches the kernel through a gate. Its second PF belongs to another program."""

    def __init__(self, node):
        self.node = node
        self.pf, self.foreign = node.pfs[:2]
        self.change = ""
        self.lies = []
        node.make_foreign(self.foreign)
        self.before = self.look(self.foreign)
        node.api.when_ready = self._check_claim
        self.command("go_on")  # The first command creates the gate.

    def command(self, name, value=None):
        return self.node.guest.control({"gate": {name: value}})

    def start(self):
        self.node.fork_agent(VMNIC_HOST=f"sim:{GATE}", VMNIC_OBSERVE_INTERVAL_S="0.5")

    def look(self, pf):
        """Return the drivers of a PF's VFs, and its link."""
        links = self.node.guest.perform(ReadLinks())
        return self.node.drivers(pf), next(link for link in links if link.pci_address == pf)

    @property
    def writes(self):
        return self.command("writes")

    @property
    def is_as_asked(self):
        wanted = CHANGES[self.change][1]
        drivers, link = self.look(self.pf)
        seen = (drivers, [(vf.vlan, vf.trust) for vf in self.node.guest.perform(ReadVfs(link.name))], link.mtu)
        return seen == (wanted, [(100, True)] * len(wanted), 9000 if wanted else 1500)

    def _check_claim(self):
        self.lies += [] if self.is_as_asked else [self.change]

    def kill_at(self, change, number, when):
        """Ask for a change, kill the agent at one of its writes, and start the next one."""
        self.change = change
        if change == "adoption":
            self.node.make_foreign(self.pf)
        self.command("keep", {"at": number, "when": when})
        self.node.api.ask(CHANGES[change][0](self.pf))
        self.kill_there(when)

    def kill_there(self, when, within_s=60):
        """Kill the agent at the held write."""
        assert self.command("await", within_s), self.node.log()
        self.node.kill_agent(with_children=when != "during")
        assert not self.node.is_ready()
        if when == "during":
            self.start_beside_the_write()
        else:
            self.command("go_on")
            self.start()

    def start_beside_the_write(self):
        """Start the next agent beside the write, and check that it does nothing until the write's child has ended."""
        written = self.writes
        self.start()
        self.node.wait_for("the next agent waits", self.is_waiting)
        assert (self.writes, self.node.is_ready()) == (written, False)
        self.command("go_on")

    def is_waiting(self):
        problem = self.node.pf(self.pf).problem
        return problem is not None and problem.reason is PfReason.WRITE_STILL_IN_FLIGHT

    def converge(self):
        """Wait for the end of the change, and check that nothing follows."""
        self.node.wait_ready()
        self.node.wait_for("it is owned, or given up", lambda: self.node.pf(self.pf).owned == bool(CHANGES[self.change][1]))
        self.assert_at_rest()
        assert (self.is_as_asked, self.lies) == (True, [])

    def assert_at_rest(self):
        """Wait for two more observations, and check that nothing is written."""
        writes, looks = self.writes, self.command("looks")
        self.node.wait_for("it has looked twice more", lambda: self.command("looks") >= looks + 2)
        assert self.writes == writes


@pytest.fixture
def gated(online):
    online.guest.reset()
    online.fresh()
    gated = Gated(online)
    gated.start()
    yield gated
    online.api.when_ready = lambda: None
    online.kill_agent(with_children=True)
    gated.command("go_on")
    online.guest.reset()


def assert_foreign_untouched(gated):
    assert gated.look(gated.foreign) == gated.before
    names = (gated.foreign, gated.before[1].name, *gated.node.vfs(gated.foreign))
    assert not [op for op in gated.writes if any(name in op for name in names)]


class TestKills:
    def test_an_agent_killed_at_a_sample_of_writes_converges(self, gated, record_property):
        more = []
        for change, number, when, unharmed in POINTS:
            written = len(gated.writes)
            gated.kill_at(change, number, when)
            gated.converge()
            more.append(len(gated.writes) - written - unharmed)
            assert_foreign_untouched(gated)
        assert max(more) <= 2
        record_property(
            "told", f"killed on the kernel at {len(POINTS)} points: all converged, with {more} writes more than unharmed"
        )

    def test_an_agent_killed_during_a_rollback_completes_it(self, gated):
        node, pf = gated.node, gated.pf
        make_only_way_out(node)
        node.wait_for("its cable is seen", lambda: gated.look(pf)[1].carrier)
        before = gated.look(pf)
        node.api.granting = False
        node.api.ask(virtual(pf, 2, allow_host_used=True, rollback_timeout_s=5))
        node.wait_for("a disruptive plan is told", lambda: node.pf(pf) and node.pf(pf).plan and node.pf(pf).plan.disruptive)
        cut = Cut(node, pf)
        try:
            gated.command("keep", {"at": UNDOING, "when": "after"})
            node.api.grant(pf)
            gated.kill_there("after", within_s=120)
            node.wait_for("it is told", lambda: node.conditions().get("RolledBack") == ("True", "RolledBack"))
        finally:
            cut.end()
        gated.assert_at_rest()
        node.wait_for("all is as before", lambda: gated.look(pf) == before)
        assert (node.is_ready(), cut.cuts) == (False, 1)
        assert_foreign_untouched(gated)
