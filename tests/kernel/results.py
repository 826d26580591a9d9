"""The host contract's table, with each case on the simulated host and on the kernel."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

__all__ = ["Results"]

_SIMULATED, _KERNEL = "simulated host", "kernel"


class Results:
    """Collects outcomes of contract cases from all workers and prints them at the end."""

    def __init__(self) -> None:
        self._told: list[str] = []
        self._outcomes: dict[str, dict[str, str]] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call":
            self._told += [str(text) for name, text in report.user_properties if name == "told"]
        file, _, rest = report.nodeid.partition("::")
        name, _, case = rest.partition("::")
        if not file.endswith("test_contract.py") or not case or (report.when != "call" and report.passed):
            return
        subject = _SIMULATED if "Simulated" in name else _KERNEL
        word = "passed" if report.passed else "failed"
        self._outcomes.setdefault(_words(case), {})[subject] = f"{word} {report.duration:.1f} s"

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for line in self._told:
            terminalreporter.write_line(line)
        if not self._outcomes or hasattr(terminalreporter.config, "workerinput"):
            return
        table = Table("the host contract", _SIMULATED, _KERNEL, box=None, header_style="bold")
        for case, outcomes in sorted(self._outcomes.items()):
            table.add_row(case, outcomes.get(_SIMULATED, "not run"), outcomes.get(_KERNEL, "not run"))
        both = [one for one in self._outcomes.values() if len(one) == 2 and all("passed" in word for word in one.values())]
        table.add_row(f"{len(both)} of {len(self._outcomes)} cases have the same answers on both", "", "", style="bold")
        Console(width=150).print(table)


def _words(case: str) -> str:
    """Return a test's name as a sentence."""
    return case.removeprefix("test_").replace("_", " ")
