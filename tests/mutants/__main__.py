"""`make mutants`: plant each fault in a copy of the tree, and have its tests notice it; exit code 1 if one survives."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from rich.console import Console

from .table import MUTANTS, Mutant

ROOT = pathlib.Path(__file__).parents[2]
COPIED = ("operator", "tests", "docs", "crds", "deploy", "examples", "pyproject.toml", "changelog.d")


def main(words: list[str]) -> int:
    """Plant the faults whose description has one of the words, or all."""
    chosen = [one for one in MUTANTS if not words or any(word in one.what for word in words)]
    survived = []
    with tempfile.TemporaryDirectory() as directory:
        tree = pathlib.Path(directory)
        for name in COPIED:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, tree / name)
        for mutant in chosen:
            word = outcome(tree, mutant)
            if word != "killed":
                survived.append(mutant)
            CONSOLE.print(f"{word:9}{mutant.what} ({mutant.file})", highlight=False)
    CONSOLE.print(f"{len(chosen) - len(survived)} of {len(chosen)} mutants were killed")
    return 1 if survived else 0


def outcome(tree: pathlib.Path, mutant: Mutant) -> str:
    """Tell whether a fault is noticed: `killed`, `SURVIVED`, or `STALE` if its text is not there once."""
    path = tree / "operator" / "vmnic" / mutant.file
    original = path.read_text()
    if original.count(mutant.before) != 1:
        return "STALE"
    path.write_text(original.replace(mutant.before, mutant.after))
    try:
        done = subprocess.run(
            list(command(mutant)), cwd=tree, capture_output=True, text=True, env=environment(tree), check=False
        )
    finally:
        path.write_text(original)
    # 1: tests ran and failed; anything else (a file that is missing, a crash of pytest) is no proof.
    return {0: "SURVIVED", 1: "killed"}.get(done.returncode, "BROKEN")


def command(mutant: Mutant) -> Iterator[str]:
    yield from (sys.executable, "-m", "pytest", "-x")
    yield from (f"tests/unit/{name}" for name in mutant.tests.split())


def environment(tree: pathlib.Path) -> dict[str, str]:
    """Have the copy imported, not the installed tree."""
    return os.environ | {"PYTHONPATH": str(tree / "operator"), "PYTHONDONTWRITEBYTECODE": "1"}


CONSOLE = Console(soft_wrap=True)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
