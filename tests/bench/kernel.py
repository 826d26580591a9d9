"""Speed on a real driver: 82576 NICs in QEMU, the agent beside a bare shell script that makes the same writes."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import pathlib
import statistics
import tempfile
import time

from rich.table import Table

from tests.kernel.api import NodeApi
from tests.kernel.conftest import running
from tests.kernel.machine import Machine
from tests.kernel.node import Node, virtual

__all__ = ["measure"]

_ROUNDS = 3
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


def measure(table: Table) -> None:
    """Add the rows of this part."""
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        machine = Machine(directory=pathlib.Path(directory), nics=4, online=True, memory_mib=1024)
        (machine.keep / "state").mkdir(parents=True)
        api = stack.enter_context(contextlib.closing(NodeApi(machine.keep / "account")))
        node = Node(stack.enter_context(running(machine)), machine, api)
        api.start()
        for count, aim in ((1, "1.3"), (4, "1.0")):
            _compare(node, table, node.pfs[:count], aim)
        _at_rest(node, table)
        _from_exec(node, table)


def _compare(node: Node, table: Table, pfs: list[str], aim: str) -> None:
    """A running agent, from the wish to all VFs on vfio-pci and told, against the script."""
    floors, figures, runs = [], [], []
    for _ in range(_ROUNDS):
        node.guest.reset()
        floors.append(_script(node, pfs))
        node.guest.reset()
        node.fresh()
        node.start_agent()
        node.wait_ready()
        figures.append(node.settle(*(virtual(pf) for pf in pfs)))
        runs.append(_longest_run(node))
        node.stop_agent()
    floor, figure, run = (statistics.median(one) for one in (floors, figures, runs))
    table.add_row(
        f"7 VFs to vfio-pci on {len(pfs)} igb, running agent: the run (asked to Ready)", f"{run:.2f} s ({figure:.2f} s)",
        f"serial shell script, same writes {floor:.2f} s", f"{run / floor:.2f} times (aim ≤ {aim})",
    )  # fmt: skip


def _script(node: Node, pfs: list[str]) -> float:
    began = time.monotonic()
    node.guest.run("bash", "-c", _SCRIPT, "script", *pfs)
    return time.monotonic() - began


def _longest_run(node: Node) -> float:
    """Seconds from the first run's beginning to the last one's end, as the agent's log has them."""
    moments = [_seconds(line) for line in node.log().splitlines() if '"message": "0000:' in line]
    return max(moments) - min(moments)


def _seconds(line: str) -> float:
    return dt.datetime.fromisoformat(json.loads(line)["time"]).timestamp()


def _at_rest(node: Node, table: Table) -> None:
    """Further passes over four functions as desired."""
    node.guest.reset()
    node.fresh()
    node.start_agent()
    node.settle(*(virtual(pf) for pf in node.pfs))
    runs, cpu, began = node.runs(), node.cpu_s(), time.monotonic()
    node.look_again()
    took = time.monotonic() - began
    table.add_row(
        "passes over 28 VFs as desired: writes; CPU of the agent, one pass each 2 s", f"{node.runs() - runs}",
        "", f"{(node.cpu_s() - cpu) / took * 100:.0f} % of an emulated core (aim 0 writes)",
    )  # fmt: skip
    node.stop_agent()


def _from_exec(node: Node, table: Table) -> None:
    """From exec to settled, the start of Python included."""
    node.guest.reset()
    floor = _script(node, node.pfs[:1])
    node.guest.reset()
    node.fresh()
    node.api.ask(virtual(node.pfs[0]))
    began = time.monotonic()
    node.start_agent()
    node.wait_ready()
    figure = time.monotonic() - began
    table.add_row("7 VFs from the agent's exec to settled", f"{figure:.1f} s", f"shell script {floor:.1f} s", "aim ≤ 3 times")
    node.stop_agent()
