"""The watchdog, in a process of its own for every kind of stall."""

import contextlib
import pathlib
import signal
import subprocess
import sys

import pytest

from vmnic.controller.process.watchdog import StateDirectoryError, Watchdog
from vmnic.kube.time_budget import Subject

WEB = Subject("VirtualMachine", "tenants/web")
PROGRAM = """
import asyncio, pathlib, sys, time
from vmnic.controller.process.watchdog import Watchdog
from vmnic.kube.loops import run_in_thread
from vmnic.kube.tasks import run_together
from vmnic.kube.time_budget import Subject, time_budget

watchdog = Watchdog(pathlib.Path(sys.argv[1]), 0.5)

async def decide():
    await asyncio.sleep(0.1)
    with time_budget(100, Subject("VirtualMachine", "tenants/web")):
        exec(sys.argv[2])
    sys.exit(3)

asyncio.run(run_together(watchdog.beat(), run_in_thread(watchdog.watch, "watch"), decide()))
"""


def blamed(directory):
    """Return the object that the next run reads."""
    with contextlib.closing(Watchdog(directory, 1)) as watchdog:
        return watchdog.blamed


def run(directory, decision):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(directory), decision], check=False, capture_output=True
    ).returncode


@pytest.mark.parametrize(
    ("decision", "code"),
    [("time.sleep(100)", 70), ("sum(range(10**12))", -signal.SIGPROF), ("while True: pass", 70)],
    ids=["waits", "C code holds the interpreter's lock", "busy loop that no timer ends"],
)
def test_stalled_loop_ends_the_process(tmp_path, caplog, decision, code):
    assert run(tmp_path, decision) in {code, -signal.SIGPROF}
    assert (blamed(tmp_path), len(caplog.records)) == (WEB, 1)
    assert (blamed(tmp_path), len(caplog.records)) == (None, 1)


@pytest.mark.parametrize("decision", ["pass", "import os; os._exit(9)"], ids=["normal", "killed"])
def test_any_other_end_sets_nothing_aside(tmp_path, decision):
    assert run(tmp_path, decision) in (3, 9)
    assert blamed(tmp_path) is None


def test_stall_outside_a_decision_blames_no_object(tmp_path):
    with contextlib.closing(Watchdog(tmp_path, 1)) as watchdog:
        watchdog.note(WEB)
        watchdog.note(None)
    (tmp_path / "stalled").write_text("Thread 0x1 (most recent call first):")
    assert blamed(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"VirtualMachine", b"\n", b"\nname", b"{" * 2000])
def test_damaged_file_blames_no_object(tmp_path, content):
    (tmp_path / "subject").write_bytes(content)
    (tmp_path / "stalled").write_bytes(b"\xff dump")
    assert blamed(tmp_path) is None


def test_unusable_state_directory_is_named():
    with pytest.raises(StateDirectoryError, match=r"/dev/null.*--state-directory"):
        Watchdog(pathlib.Path("/dev/null/state"), 1)
