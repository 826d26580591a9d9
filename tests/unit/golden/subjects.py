"""Subjects of the golden files. Each subject returns the text of one file in `files`.

`crds/` and `docs/reference` are golden too: `test_crd.py` and `test_docs.py` compare them with the models.
"""

import asyncio
import contextlib
import importlib
import io
import pathlib
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from unittest import mock

from typer.testing import CliRunner

from tests.builders.agent import Node, desired
from tests.builders.fleet import Fleet
from tests.builders.host import CROWDED_PF, OTHER_PF, PF, contract_host
from tests.builders.machines import VmScene
from tests.builders.vm import nic, policy
from tests.unit.agent.test_kill_sweep import SCENARIOS, Swept
from vmnic.agent.metrics import AGENT_METRICS
from vmnic.api.crd import KINDS, render_crd
from vmnic.api.reasons import NodeReason, PfReason, PoolProblemReason, PoolReason
from vmnic.cli.app import app
from vmnic.controller.metrics import CONTROLLER_METRICS
from vmnic.controller.pools.ledger import LEDGER_NAME
from vmnic.host.ops import is_write
from vmnic.policy.condition_reasons import PolicyReason
from vmnic.policy.problems import ProblemReason
from vmnic.policy.reasons import Reason

ROOT = pathlib.Path(__file__).parents[3]
CASES = ROOT / "tests" / "cases"
PLANS = {
    "examples": ["examples"],
    **{case.name: [f"tests/cases/{case.name}"] for case in sorted(CASES.iterdir()) if case.is_dir()},
    "01-one-vm": ["tests/cases/01-unquoted-scalars/vm.yaml", "tests/cases/01-unquoted-scalars/policy.yaml"],
    "01-one-pool": ["tests/cases/01-unquoted-scalars/pool.yaml"],
    "26-today": [
        f"tests/cases/26-what-a-vf-cannot-carry/{name}"
        for name in ("objects-today.yaml", "campus.net.xml", "office.xml", "router.xml", "free.xml", "filtered.xml")
    ],
    **{
        f"29-{name}": ["tests/cases/29-vf-by-resources/base.yaml", f"tests/cases/29-vf-by-resources/{name}.yaml"]
        for name in ("by-hostdevice", "by-resources")
    },
}
"""Files that are planned together, by the name of the golden file."""


def plan(paths: list[str]) -> str:
    """Plan files offline, and return exit code, errors and the plan."""
    with contextlib.chdir(ROOT):
        flags = [word for path in paths for word in ("-f", path)]
        result = CliRunner().invoke(app, ["plan", "-R", "-o", "json", *flags])
    lines = [f"exit code: {result.exit_code}", *(f"stderr: {line}" for line in result.stderr.splitlines()), result.stdout]
    return "\n".join(lines).rstrip() + "\n"


def help_of(module: str, *arguments: str) -> str:
    """Return the help of one of the container's commands, without its layout."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit), mock.patch.dict("os.environ", {"COLUMNS": "200"}):
        importlib.import_module(module).main([*arguments, "--help"])
    lines = (" ".join(line.split()) for line in text.getvalue().splitlines())
    return "\n".join(re.sub(r"(VMNIC_IDENTITY; default) [^)]*", r"\1 HOST-PID", line) for line in lines) + "\n"


def metrics() -> str:
    """Return the name, type and labels of every metric."""
    found = sorted({(one.name, one.type, ",".join(one.labels)) for one in (*AGENT_METRICS, *CONTROLLER_METRICS)})
    return "".join(f"{name} {kind} {{{labels}}}\n" for name, kind, labels in found)


REASONS = (PfReason, Reason, PoolProblemReason, PoolReason, NodeReason, PolicyReason, ProblemReason)


def reasons() -> str:
    """Return every reason of a NIC, a PF, a pool, a node, a policy and a plan."""
    return "".join(f"{enum.__name__}.{one.value}\n" for enum in REASONS for one in enum)


def columns() -> str:
    """Return the names of every kind and the columns that `kubectl get` prints."""
    found = []
    for kind in KINDS:
        spec = render_crd(kind)["spec"]
        names = [spec["names"]["kind"], spec["names"]["plural"], *spec["names"]["shortNames"]]
        shown = [one["name"] for version in spec["versions"] for one in version.get("additionalPrinterColumns", ())]
        found.append(f"{' '.join(names)}: {', '.join(shown)}\n")
    return "".join(found)


@contextlib.contextmanager
def one_boot():
    """Fix the boot ID of simulated hosts, because digests and journals contain it."""
    with mock.patch("vmnic.simhost.model.uuid.uuid4", return_value="00000000-0000-4000-8000-000000000001"):
        yield


@one_boot()
def digests() -> str:
    """Return the digest of the plan for each PF of the contract's host, for several specs."""
    wishes = [(vfs, driver) for vfs in (1, 7) for driver in ("kernel", "vfio-pci")]

    async def run() -> list[str]:
        found = []
        for address in (PF, OTHER_PF, CROWDED_PF):
            for vfs, driver in wishes:
                with tempfile.TemporaryDirectory() as directory:
                    node = Node(contract_host(), pathlib.Path(directory))
                    node.api.ask(desired(address, num_vfs=vfs, driver=driver))
                    status = await node.agent.run(node.api.state)
                seen = next(one for one in status.pfs if one.pci_address == address)
                text = seen.plan.digest if seen.plan is not None else seen.problem.reason.value
                found.append(f"{address} {vfs} VFs with {driver}: {text}\n")
        return found

    return "".join(asyncio.run(run()))


@one_boot()
def sweep(name: str) -> str:
    """Return the operations, journals and digests of one scenario of the kill sweep without a kill."""

    async def run(directory: pathlib.Path) -> str:
        swept = Swept(SCENARIOS[name], directory)
        await swept.set_up()
        node, journals, counts = swept.node, [], Counter()
        perform, file = node.port.perform, directory / "journal.json"

        def watched(op):
            text = file.read_text() if file.exists() else ""
            if text and text not in journals[-1:]:
                journals.append(text)
            counts[f"{'write' if is_write(op) else 'read'} {type(op).__name__}"] += 1
            return perform(op)

        node.port.perform = watched
        await swept.converge()
        claimed = dict.fromkeys(one.pfs[0].plan.digest for one in node.api.written if one.pfs[0].plan is not None)
        statuses = [f"status written {len(node.api.written)} times"]
        operations = [f"{count:4} {op}" for op, count in sorted(counts.items())]
        return "\n".join([*statuses, *(f"digest {one}" for one in claimed), *operations, *journals, file.read_text()]) + "\n"

    with tempfile.TemporaryDirectory() as directory:
        return asyncio.run(run(pathlib.Path(directory) / "node"))


def rollout() -> str:
    """Return the ledgers that a pool's rollout over three nodes writes, and the number of writes by kind."""
    rules = {"disruption": "Drain", "maxUnavailable": 1, "maxConcurrent": 2, "drainTimeout": "20s"}
    fleet, ledgers = Fleet(3, rollout=rules), []
    put = fleet.cluster.put

    def watched(plural, body, namespace=""):
        if body["metadata"]["name"] == LEDGER_NAME:
            ledgers.append(body["data"]["ledger.json"])
        return put(plural, body, namespace)

    fleet.cluster.put = watched
    asyncio.run(fleet.run(fleet.replica(), turns=60, until=lambda: fleet.settled(7)))
    fleet.agents["n0001"].holder = True
    fleet.edit(numVfs=3, rollout=rules)
    asyncio.run(fleet.run(fleet.replica(), turns=120, until=lambda: fleet.settled(3)))
    counts = Counter(plural for plural, _, _ in fleet.cluster.changes)
    assert fleet.settled(3)
    return "\n".join([*(f"{count:4} {plural}" for plural, count in sorted(counts.items())), *ledgers]) + "\n"


def requests() -> str:
    """Return the requests that each mode of changing VMs needs."""
    found = []

    async def run(existing: str) -> None:
        scene = VmScene(policy(datapaths=("vhost",), existing=existing))
        for name in ("a", "b"):
            scene.add(name, nic(model="e1000e"))
        for name in ("a", "b", "a"):
            await scene.look(name)
        scene.start("a", "new")
        await scene.look("a")
        await scene.look("b")
        found.append(f"{existing}: {' '.join(f'{verb}/{name}' for verb, name in scene.requests)}\n")

    for existing in ("Leave", "WhenStopped", "Immediately", "Rolling"):
        asyncio.run(run(existing))
    return "".join(found)


SUBJECTS: dict[str, Callable[[], str]] = {
    **{f"plan/{name}.txt": lambda paths=paths: plan(paths) for name, paths in PLANS.items()},
    "help/vmnic.txt": lambda: help_of("vmnic.__main__"),
    **{f"help/{name}.txt": lambda name=name: help_of(f"vmnic.{name}.main") for name in ("controller", "agent", "simhost")},
    "names/metrics.txt": metrics,
    "names/reasons.txt": reasons,
    "names/columns.txt": columns,
    "digests.txt": digests,
    **{f"sweep/{name.replace(' ', '-')}.txt": lambda name=name: sweep(name) for name in SCENARIOS},
    "rollout.txt": rollout,
    "requests.txt": requests,
}
