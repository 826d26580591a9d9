"""The commands of docs/maintenance.md, which need no cluster."""

import pathlib
import subprocess
import sys

import pytest

from tests.harness.pages import read_steps

ROOT = pathlib.Path(__file__).parents[3]
PROGRAM = str(pathlib.Path(sys.executable).with_name("kubectl-vmnic"))


@pytest.mark.parametrize("step", list(read_steps(ROOT / "docs" / "maintenance.md")), ids=lambda step: step.command)
def test_command_runs_and_prints_what_the_page_shows(step):
    words = step.command.removeprefix("kubectl vmnic ").split()
    done = subprocess.run([PROGRAM, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == step.code, done.stderr
    assert step.is_shown_by(done.stdout), done.stdout
