"""Speed on a real driver: 82576 NICs in QEMU, the agent beside a shell script that makes the same writes.

The agent is stopped (SIGSTOP) while the script runs, so that each has the guest to itself.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import pathlib
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.table import Table

from tests.kernel.api import NodeApi
from tests.kernel.conftest import running
from tests.kernel.machine import Machine
from tests.kernel.node import DEVICES, Node, virtual
from vmnic.host.ops import Op, SetLink, WriteFile

__all__ = ["measure"]

Say = Callable[[str], None]

_ROUNDS = 3
_TICK_S = 20.0
_ASK_S = 2.0
_REST_S = 30.0
_METRICS = "127.0.0.1:9417"
_AS_SHIPPED = {"VMNIC_OBSERVE_INTERVAL_S": "4"}
_WRITES = ("WriteFile", "PutFile", "SetLink", "SetVf", "SetChannels", "LoadModule", "UnloadModule")
_SCRIPT = """
for pf in "$@"; do
  path=/sys/bus/pci/devices/$pf
  echo 0 > $path/sriov_drivers_autoprobe
  echo 7 > $path/sriov_numvfs
  for vf in 0 1 2 3 4 5 6; do
    address=$(readlink $path/virtfn$vf); address=${address##*/}
    echo vfio-pci > /sys/bus/pci/devices/$address/driver_override
    echo $address > /sys/bus/pci/drivers_probe
  done
  ip link set "$(ls $path/net)" up
done
"""


@dataclass(frozen=True)
class _Round:
    """Durations of one comparison, in seconds."""

    script: float
    asked: float
    """From the request to the status that reports it as fulfilled."""
    run: float
    """The part of it that is the run: claimed, written, read back and probed."""


def measure(table: Table, say: Say) -> None:
    """Add the rows of this part."""
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        machine = Machine(directory=pathlib.Path(directory), nics=4, online=True, memory_mib=1024, parallel=True)
        (machine.keep / "state").mkdir(parents=True)
        api = stack.enter_context(contextlib.closing(NodeApi(machine.keep / "account")))
        with _telling(say, "a guest with 4 igb boots"):
            guest = stack.enter_context(running(machine))
        node = Node(guest, machine, api)
        api.start()
        with _telling(say, "the agent starts for the first time"):
            node.start_agent(**_AS_SHIPPED)
            node.wait_ready()
            node.stop_agent()
        with _telling(say, "from the agent's exec"):
            _from_exec(node, table)
        node.start_agent(VMNIC_METRICS_ADDRESS=_METRICS, **_AS_SHIPPED)
        node.wait_ready()
        for count, aim in ((1, "1.3"), (4, "1.0")):
            with _telling(say, f"a running agent, {count} igb"):
                _compare(node, table, node.pfs[:count], aim)
        with _telling(say, "passes at rest"):
            _at_rest(node, table)
        with _telling(say, "changes by hand"):
            _by_hand(node, table)
        node.stop_agent()


@contextlib.contextmanager
def _telling(say: Say, what: str) -> Iterator[None]:
    """Report what runs, and from time to time that it still does."""
    ended, began = threading.Event(), time.monotonic()

    def tell() -> None:
        while not ended.wait(_TICK_S):
            say(f"{what}: {time.monotonic() - began:.0f} s")

    say(what)
    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _compare(node: Node, table: Table, pfs: list[str], aim: str) -> None:
    """Compare a running agent, from the request to all VFs on vfio-pci and reported, with the script."""
    rounds = [_round(node, pfs) for _ in range(_ROUNDS)]
    script, asked, run = (statistics.median(getattr(one, field) for one in rounds) for field in ("script", "asked", "run"))
    what, floor = f"7 VFs to vfio-pci on {len(pfs)} igb, running agent", f"serial shell script, same writes {script:.2f} s"
    table.add_row(f"{what}: its runs", f"{run:.2f} s", floor, f"{run / script:.2f} times (aim ≤ {aim})")
    table.add_row(f"{what}: asked to told", f"{asked:.2f} s", floor, f"{asked / script:.2f} times")


def _round(node: Node, pfs: list[str]) -> _Round:
    node.guest.signal(node.pid, signal.SIGSTOP)
    script = _script(node, pfs)
    node.guest.reset()
    node.guest.signal(node.pid, signal.SIGCONT)
    _await_passes(node, 2)
    known = len(node.log())
    asked = node.settle(*(virtual(pf) for pf in pfs))
    run = _seconds_of_runs(node.log()[known:])
    node.clear()
    return _Round(script, asked, run)


def _script(node: Node, pfs: list[str]) -> float:
    began = time.monotonic()
    node.guest.run("bash", "-c", _SCRIPT, "script", *pfs)
    return time.monotonic() - began


def _seconds_of_runs(log: str) -> float:
    """Return the time from the start of the first run to the end of the last, from the agent's log."""
    moments = _moments(log)
    return (max(moments) - min(moments)).total_seconds()


def _at_rest(node: Node, table: Table) -> None:
    """Measure further passes over four functions that match their spec."""
    node.settle(*(virtual(pf) for pf in node.pfs))
    before = _await_passes(node, 2)
    cpu = node.cpu_s()
    time.sleep(_REST_S)  # Reading metrics would take processor time too.
    cpu = node.cpu_s() - cpu
    after = _metrics(node)
    cpu_ms = cpu / (after["passes"] - before["passes"]) * 1000
    writes = after["writes"] - before["writes"]
    what = f"a second pass over {len(node.pfs)} igb with 7 VFs each"
    table.add_row(what, f"{writes:.0f} writes, {cpu_ms:.0f} ms CPU", "", "aim 0 writes")
    node.clear()


def _by_hand(node: Node, table: Table) -> None:
    """Measure the time from another program's change to start and end of the run that reverts it."""
    pf = node.pfs[0]
    node.settle(virtual(pf, mtu=9000))
    vf = node.vfs(pf)[1]
    changes = {
        "of the MTU": SetLink(name=node.link(pf), mtu=1500),
        "of a VF's driver": WriteFile("/sys/bus/pci/drivers/vfio-pci/unbind", vf),
        "of which the kernel says nothing": WriteFile(f"{DEVICES}/{pf}/sriov_drivers_autoprobe", "1"),
    }
    for what, change in changes.items():
        seen, mended = zip(*(_mended(node, change) for _ in range(_ROUNDS)), strict=True)
        text = f"{statistics.median(seen):.1f} s, put back {statistics.median(mended):.1f} s"
        table.add_row(f"a change by hand {what}, seen after", text, "", f"slowest {max(seen):.1f} s (aim ≤ 5)")
    node.clear()


def _mended(node: Node, change: Op) -> tuple[float, float]:
    """Return the seconds until the agent began to revert a change, and until it had, by the guest's clock."""
    known, runs = len(node.log()), node.runs()
    began = dt.datetime.fromisoformat(node.guest.run("date", "--utc", "+%Y-%m-%dT%H:%M:%S.%3NZ").strip())
    node.guest.perform(change)
    node.wait_for("it is put back", lambda: node.runs() >= runs + 2)
    first, *_, last = _moments(node.log()[known:])
    return (first - began).total_seconds(), (last - began).total_seconds()


def _moments(log: str) -> list[dt.datetime]:
    """Return the times at which the agent's log reports the start or end of a run."""
    return [dt.datetime.fromisoformat(json.loads(line)["time"]) for line in log.splitlines() if '"message": "0000:' in line]


def _await_passes(node: Node, count: int) -> dict[str, float]:
    """Wait for further passes.

    It asks rarely, because every question in the guest takes time from the agent.
    """
    before = _metrics(node)["passes"]
    while (now := _metrics(node))["passes"] < before + count:
        time.sleep(_ASK_S)
    return now


def _metrics(node: Node) -> dict[str, float]:
    """Return the passes that the agent has made, and its writes to the host."""
    address, _, port = _METRICS.partition(":")
    request = f"exec 3<>/dev/tcp/{address}/{port}; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
    lines = [line.rpartition(" ") for line in node.guest.run("bash", "-c", request).splitlines()]
    made = [(name, float(value)) for name, _, value in lines if name.startswith("vmnic_agent_") and "_created" not in name]
    operations = tuple(f'vmnic_agent_host_operations_total{{operation="{write}"' for write in _WRITES)
    return {
        "passes": sum(value for name, value in made if name.startswith("vmnic_agent_pass_seconds_count")),
        "writes": sum(value for name, value in made if name.startswith(operations)),
    }


def _from_exec(node: Node, table: Table) -> None:
    """Measure from exec to settled, including the start of Python."""
    floors, figures = [], []
    for _ in range(_ROUNDS):
        node.guest.reset()
        floors.append(_script(node, node.pfs[:1]))
        node.guest.reset()
        node.fresh()
        node.api.ask(virtual(node.pfs[0]))
        began = time.monotonic()
        node.start_agent(**_AS_SHIPPED)
        node.wait_ready()
        figures.append(time.monotonic() - began)
        node.stop_agent()
    node.guest.reset()
    node.fresh()
    floor, figure, imports = (statistics.median(one) for one in (floors, figures, [_imports(node) for _ in range(_ROUNDS)]))
    table.add_row(
        f"7 VFs to vfio-pci on 1 igb, from the agent's exec to told; of it {imports:.1f} s of imports", f"{figure:.1f} s",
        f"serial shell script, same writes {floor:.2f} s", f"{figure / floor:.1f} times (aim ≤ 3)",
    )  # fmt: skip


def _imports(node: Node) -> float:
    """Return Python's time to load the agent's two programs.

    They load one after the other, as on one emulated processor.
    """
    began = time.monotonic()
    for modules in ("vmnic.agent.wiring", "vmnic.host.worker, pyroute2"):
        node.guest.run(sys.executable, "-c", f"import {modules}")
    return time.monotonic() - began
