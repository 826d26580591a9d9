"""The commands of the page about records of hosts run as it shows them, without a cluster."""

import os
import pathlib
import shlex
import subprocess
import sys

import pytest

from tests.harness.pages import read_steps
from vmnic.records.document import read_record_file

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "hosts.md"
RECORD = ROOT / "tests" / "hosts" / "x710-two-pools.yaml"
KUBECTL = f"""#!/bin/sh
case "$*" in
"vmnic "*) shift; exec {shlex.quote(sys.executable)} -c "from vmnic.cli import main; main()" "$@" ;;
"get pods "*) echo '{{"items": [{{"metadata": {{"namespace": "vmnic-agents", "name": "vmnic-agent-x"}}}}]}}' ;;
"exec -n vmnic-agents vmnic-agent-x "*"vmnic host record"*) cat {shlex.quote(str(RECORD))} ;;
*) exit 1 ;;
esac
"""
"""kubectl with its plugin, and the agent of one node."""
VMNIC = f"""#!/bin/sh
exec {shlex.quote(sys.executable)} -m vmnic "$@"
"""


@pytest.fixture
def directory(tmp_path):
    """Return a directory that looks like a checkout, with the programs that the page runs."""
    for name in ("examples", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "bin").mkdir()
    for name, text in (("kubectl", KUBECTL), ("vmnic", VMNIC)):
        program = tmp_path / "bin" / name
        program.write_text(text)
        program.chmod(0o755)
    return tmp_path


def test_every_command_about_records_runs_as_shown(directory):
    env = os.environ | {
        "PATH": f"{directory / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "operator"),
        "KUBECONFIG": str(directory / "none"),
    }
    steps = list(read_steps(PAGE))
    for step in steps:
        done = subprocess.run(
            ["bash", "-c", step.command], env=env, cwd=directory, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == step.code, f"{step.command}\n{done.stdout}{done.stderr}"
        assert step.is_shown_by(done.stdout), f"{step.command} prints something else:\n{done.stdout}"
    assert len(steps) > 7
    assert read_record_file(directory / "n1.yaml") == read_record_file(RECORD)
    assert read_record_file(directory / "this-host.yaml").metadata.name
    assert read_record_file(directory / "report.yaml").metadata.name == "node1"
