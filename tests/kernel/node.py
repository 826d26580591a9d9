"""A node in a guest, which runs the agent as it ships, with an API server instead of a cluster."""

from __future__ import annotations

import json
import pathlib
import shutil
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.harness.api import wait_for
from vmnic.api.node_state import PfSpec, PfStatus, VfGroup, VfSettings
from vmnic.host.ops import ListDir, ReadFile, ReadLink, SetVf, WriteFile

from .api import NODE, NodeApi
from .machine import Machine
from .remote import RemoteHost

__all__ = ["DEVICES", "Node", "virtual"]

DEVICES = "/sys/bus/pci/devices"
PROGRAM = str(pathlib.Path(sys.executable).with_name("vmnic"))
_PATIENCE_S = 120


class Node:
    """The guest, its agent and its API server."""

    def __init__(self, guest: RemoteHost, machine: Machine, api: NodeApi) -> None:
        self.guest = guest
        self.machine = machine
        self.api = api
        self.pid = 0

    @property
    def pfs(self) -> list[str]:
        return self.guest.pfs

    def environment(self, host: str = "10.0.2.2") -> dict[str, str]:
        """Return the environment of the agent's pod."""
        return {
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": str(self.api.port),
            "VMNIC_SERVICE_ACCOUNT_DIR": "/keep/account",
            "VMNIC_NODE": NODE,
            "VMNIC_STATE_DIR": "/keep/state",
            "VMNIC_OBSERVE_INTERVAL_S": "2",
        }

    def start_agent(self, **environment: str) -> None:
        """Start `vmnic agent` with its log in /keep."""
        env = self.environment() | environment
        self.pid = self.guest.start_program([PROGRAM, "agent"], log="/keep/agent.log", env=env)

    def stop_agent(self, number: int = signal.SIGTERM) -> int:
        """End the agent and return its exit code."""
        self.guest.signal(self.pid, number)
        return int(self.guest.control({"wait": self.pid}))

    def fork_agent(self, **environment: str) -> None:
        """Start an agent that has done its imports, in its own process group. Only `kill_agent` ends it."""
        self.pid = self.guest.control({"fork": {"log": "/keep/agent.log", "env": self.environment() | environment}})

    def kill_agent(self, *, with_children: bool) -> None:
        """Kill a forked agent and its worker, and optionally the worker's children.

        A child in the kernel outlives the others.
        """
        worker = self.guest.perform(ReadFile(f"/proc/{self.pid}/task/{self.pid}/children")).split()[0]
        self.guest.run("kill", "-KILL", "--", *([f"-{self.pid}"] if with_children else [str(self.pid), worker]))

    def make_foreign(self, pf: str) -> None:
        """Give a PF VFs and a VLAN, as another program would."""
        self.guest.perform(WriteFile(f"{DEVICES}/{pf}/sriov_numvfs", "2"))
        self.guest.perform(SetVf(name=self.link(pf), vf=1, vlan=7))

    def log(self) -> str:
        path = self.machine.keep / "agent.log"
        return path.read_text() if path.exists() else ""

    def pf(self, address: str) -> PfStatus | None:
        return next((pf for pf in self.api.state().status.pfs if pf.pci_address == address), None)

    def conditions(self) -> dict[str, tuple[str, str]]:
        return {one.type: (one.status, one.reason) for one in self.api.state().status.conditions}

    def wait_for(self, what: str, condition: Callable[[], Any], timeout_s: float = _PATIENCE_S) -> Any:
        """Wait for a condition. A failure shows the agent's status and log."""
        try:
            return wait_for(what, condition, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.api.state().status}\n{self.log()[-4000:]}") from error

    def settle(self, *pfs: PfSpec, modules: tuple[str, ...] = ()) -> float:
        """Ask for PFs, wait until the node is as asked, and return the seconds that it took."""
        began = time.monotonic()
        self.api.ask(*pfs, modules=modules)
        self.wait_ready()
        return time.monotonic() - began

    def wait_ready(self) -> None:
        self.wait_for("the node is as desired", self.is_ready)

    def is_ready(self) -> bool:
        state = self.api.state()
        current = state.status.observed_generation == state.metadata.generation
        return current and self.conditions().get("Ready") == ("True", "AsDesired")

    def read(self, path: str) -> str:
        return str(self.guest.perform(ReadFile(path)))

    def count(self, pf: str) -> int:
        return int(self.read(f"{DEVICES}/{pf}/sriov_numvfs"))

    def vfs(self, pf: str) -> list[str]:
        names = [name for name in self.guest.perform(ListDir(f"{DEVICES}/{pf}")) if name.startswith("virtfn")]
        ordered = sorted(names, key=lambda name: int(name.removeprefix("virtfn")))
        return [self.guest.perform(ReadLink(f"{DEVICES}/{pf}/{name}")).rsplit("/", 1)[-1] for name in ordered]

    def driver(self, address: str) -> str:
        try:
            return str(self.guest.perform(ReadLink(f"{DEVICES}/{address}/driver"))).rsplit("/", 1)[-1]
        except FileNotFoundError:
            return ""

    def drivers(self, pf: str) -> list[str]:
        """Return the drivers of a PF's VFs, in order."""
        return [self.driver(vf) for vf in self.vfs(pf)]

    def link(self, pf: str) -> str:
        return str(self.guest.perform(ListDir(f"{DEVICES}/{pf}/net"))[0])

    def is_running(self, pf: str) -> bool:
        """Return whether the journal has a change of a PF that runs."""
        path = self.machine.keep / "state" / "journal.json"
        return path.exists() and bool(json.loads(path.read_text())["pfs"].get(pf, {}).get("running"))

    def runs(self) -> int:
        """Return how many starts and ends of changes the agent's log has. Without a change nothing is written to the host."""
        return self.log().count('"message": "0000:')

    def look_again(self) -> None:
        """Wait until the agent has observed the host again, which its worker's wakeups for several sessions show."""
        before = self._wakes()
        self.wait_for("the agent has looked again", lambda: self._wakes() >= before + 3 * (len(self.pfs) + 1))

    def _wakes(self) -> int:
        children = self.guest.perform(ReadFile(f"/proc/{self.pid}/task/{self.pid}/children")).split()
        status = self.guest.perform(ReadFile(f"/proc/{children[0]}/status"))
        return int(next(line for line in status.splitlines() if line.startswith("voluntary")).split()[1])

    def cpu_s(self) -> float:
        """Return the processor time of the agent, its worker and their ended children, in seconds."""
        children = self.guest.perform(ReadFile(f"/proc/{self.pid}/task/{self.pid}/children")).split()
        fields = [self.guest.perform(ReadFile(f"/proc/{pid}/stat")).rsplit(") ", 1)[1].split() for pid in (self.pid, *children)]
        return sum(int(field) for one in fields for field in one[11:15]) / 100

    def fresh(self) -> None:
        """Remove the agent's state, so that the next agent finds a new node."""
        self.api.granting = True
        self.api.forget()
        shutil.rmtree(self.machine.keep / "state", ignore_errors=True)
        (self.machine.keep / "state").mkdir()
        (self.machine.keep / "agent.log").write_text("")

    def clear(self) -> None:
        """Release all PFs and restore the machine."""
        self.guest.control({"let_go": None})
        self.api.granting = True
        owned = [pf.pci_address for pf in self.api.state().status.pfs if pf.owned]
        self.settle(*(virtual(pf, release="Reset") for pf in owned))
        self.wait_for("all is given up", lambda: not any(pf.owned for pf in self.api.state().status.pfs))
        self.api.ask()
        self.guest.reset()


def virtual(
    pf: str, num_vfs: int = 7, *, driver: str = "vfio-pci", settings: VfSettings | None = None, **changes: Any
) -> PfSpec:
    """Return a pool's spec of one PF."""
    group = VfGroup(pool="fast", resource="vmnic.dev/fast", driver=driver, settings=settings)
    return PfSpec(pci_address=pf, pool="fast", num_vfs=num_vfs, **({"groups": (group,)} | changes))
