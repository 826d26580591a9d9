"""The agent's processes killed before, during and after a sample of writes to a real kernel; the unit tier has all of them."""

import pytest

from vmnic.host.ops import ReadLinks
from vmnic.nodes.state import PfReason, VfSettings

from .gate import GATE
from .node import virtual

SETTINGS = {"settings": VfSettings(vlan=100, vlan_qos=3, trust=True), "mtu": 9000, "queues": 2}
CHANGES = {
    "0 to 7": (lambda pf: virtual(pf, 7, **SETTINGS), 7),
    "7 to 3": (lambda pf: virtual(pf, 3, **SETTINGS), 3),
    "removal": (lambda pf: virtual(pf, 3, release="Reset", **SETTINGS), 0),
}
WRITES = {"0 to 7": 33, "7 to 3": 15, "removal": 5}
"""Of an agent that lives."""
POINTS = (
    ("0 to 7", 2, "during"), ("7 to 3", 1, "after"), ("removal", 1, "before"),
    ("0 to 7", 17, "after"), ("7 to 3", 15, "before"), ("removal", 4, "during"),
)  # fmt: skip
"""At which of its change's writes the agent dies; every change begins where the one before it ended."""


class Gated:
    """A node whose agent reaches the kernel through a gate; its second function is somebody else's."""

    def __init__(self, node):
        self.node = node
        self.pf, self.foreign = node.pfs[:2]
        self.change = ""
        self.lies = []
        node.make_foreign(self.foreign)
        self.before = self.look(self.foreign)
        node.api.when_ready = self._check_claim

    def command(self, name, value=None):
        return self.node.guest.control({"gate": {name: value}})

    def start(self):
        self.node.fork_agent(VMNIC_HOST=f"sim:{GATE}", VMNIC_OBSERVE_INTERVAL_S="0.5")

    def look(self, pf):
        """Drivers of a function's VFs, and its link with their attributes."""
        links = self.node.guest.perform(ReadLinks())
        return self.node.drivers(pf), next(link for link in links if link.pci_address == pf)

    @property
    def writes(self):
        return self.command("writes")

    @property
    def is_as_asked(self):
        count = CHANGES[self.change][1]
        drivers, link = self.look(self.pf)
        seen = (drivers, [(vf.vlan, vf.trust) for vf in link.vfs], link.mtu)
        return seen == (["vfio-pci"] * count, [(100, True)] * count, 9000 if count else 1500)

    def _check_claim(self):
        self.lies += [] if self.is_as_asked else [self.change]

    def kill_at(self, change, number, when):
        """Ask for a change, kill the agent at one of its writes, and start the next one."""
        self.change = change
        self.command("keep", {"at": number, "when": when})
        self.node.api.ask(CHANGES[change][0](self.pf))
        assert self.command("await", 60), self.node.log()
        self.node.kill_agent(with_children=when != "during")
        assert not self.node.is_ready()
        if when == "during":
            self.start_beside_the_write()
        else:
            self.command("go_on")
            self.start()

    def start_beside_the_write(self):
        """The child that asked for it lives as long as the write does, and so long the next agent does nothing."""
        written = self.writes
        self.start()
        self.node.wait_for("the next agent waits", self.is_waiting)
        assert (self.writes, self.node.is_ready()) == (written, False)
        self.command("go_on")

    def is_waiting(self):
        problem = self.node.pf(self.pf).problem
        return problem is not None and problem.reason is PfReason.WRITE_STILL_IN_FLIGHT

    def converge(self):
        """Wait for the end of the change, and for two looks more, at which there is nothing to write."""
        self.node.wait_ready()
        self.node.wait_for("it is owned, or given up", lambda: self.node.pf(self.pf).owned == bool(CHANGES[self.change][1]))
        writes, looks = self.writes, self.command("looks")
        self.node.wait_for("it has looked twice more", lambda: self.command("looks") >= looks + 2)
        assert (self.writes, self.is_as_asked, self.lies) == (writes, True, [])


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


class TestKills:
    def test_an_agent_killed_at_a_sample_of_writes_converges(self, gated, record_property):
        more = []
        for change, number, when in POINTS:
            written = len(gated.writes)
            gated.kill_at(change, number, when)
            gated.converge()
            more.append(len(gated.writes) - written - WRITES[change])
            assert gated.look(gated.foreign) == gated.before
        names = (gated.foreign, gated.before[1].name, *gated.node.vfs(gated.foreign))
        assert not [op for op in gated.writes if any(name in op for name in names)]
        assert max(more) <= 2
        record_property(
            "told", f"killed on the kernel at {len(POINTS)} points: all converged, with {more} writes more than unharmed"
        )
