"""The documentation says what the code does."""

import importlib.util
import pathlib
import re

import pytest

from vmnic.nodes.state import PfReason
from vmnic.policy.reasons import Reason

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def reference():
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_models_say():
    pages = reference().render_pages()
    assert {path.name: path.read_text() for path in (ROOT / "docs" / "reference").iterdir()} == pages, "run `make docs`"


@pytest.mark.parametrize("enum", [Reason, PfReason])
def test_every_reason_has_a_cause_and_a_remedy(enum):
    docs = reference().member_docs(enum)
    assert set(docs) == {member.value for member in enum}
    assert [reason for reason, text in docs.items() if not all(reference().cause_and_remedy(text))] == []


def test_every_reason_of_a_pools_problem_has_a_cause_and_a_remedy():
    code = "".join(path.read_text() for path in (ROOT / "operator" / "vmnic").rglob("*.py"))
    given = set(re.findall(r'PoolProblem\([^()]*reason="(\w+)"', code))
    assert given - reference().POOL_REASONS.keys() == set()
    assert len(given) > 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page):
    targets = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_make_target_that_is_named_exists():
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for page in PAGES for target in re.findall(r"`?make ([a-z][a-z-]+)", page.read_text())}
    assert named - known <= {"sure", "it", "them", "progress"}


BLOCK = re.compile(r"(?:<!-- (?:not run|run by): ([^>]+) -->\n)?```(sh|console)\n(.*?)```", re.DOTALL)
RUN = {"tutorial.md", "troubleshooting.md", "gitops.md"}
"""Pages whose console blocks the cluster tier runs (`tests/cluster/test_docs.py`)."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_block_is_run_or_says_why_not(page):
    for reason, kind, text in BLOCK.findall(page.read_text()):
        lines = [line.split("#")[0].strip() for line in text.splitlines() if line.strip()]
        only_make = all(line.startswith("make ") for line in lines)
        assert reason or only_make or (kind == "console" and page.name in RUN), f"{page.name}:\n{text}"
