"""The controller with a fault: `python -m tests.harness.stall controller …`.

Some decisions do not end.

A VM whose name begins with `busy` is decided in a loop of Python code, without a wait, for 30 s. One whose name begins with
`stuck` is decided in C code that holds the interpreter's lock. At admission, it is decided like any other VM.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from vmnic.__main__ import main
from vmnic.controller.vms import reconciler as machines
from vmnic.kubevirt import admission
from vmnic.policy.evaluate import evaluate_vm

_BUSY_S = 30.0


def _busy(facts: Any, *rest: Any) -> Any:
    end = time.monotonic() + _BUSY_S
    while facts.name.startswith("busy") and time.monotonic() < end:
        pass
    return evaluate_vm(facts, *rest)


def _stuck(facts: Any, *rest: Any) -> Any:
    if facts.name.startswith("stuck"):
        sum(range(10**13))
    return _busy(facts, *rest)


def _plant(module: Any, name: str, fault: Any) -> None:
    """Replace a function of a module, which must exist."""
    assert callable(getattr(module, name))
    setattr(module, name, fault)


if __name__ == "__main__":
    _plant(admission, "evaluate_vm", _busy)
    _plant(machines, "evaluate_vm", _stuck)
    sys.exit(main(sys.argv[1:]))
