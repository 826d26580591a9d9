"""Starts agents as `vmnic agent` does, without their imports, which take an emulated processor ten seconds each time.

It reads a line for each agent, forks, and answers with the process id. The fork continues where the program is after its
imports.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import vmnic.agent.wiring  # noqa: F401 - what the forks are not to import themselves
from vmnic.agent.main import main as run_agent


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # No process waits for them.
    for line in sys.stdin.buffer:
        pid = os.fork()
        if not pid:
            _become_agent(json.loads(line))
        print(pid, flush=True)


def _become_agent(request: dict[str, Any]) -> None:
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.update(request["env"])
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
        os.dup2(source, descriptor)
    os._exit(run_agent([]))


if __name__ == "__main__":
    main()
