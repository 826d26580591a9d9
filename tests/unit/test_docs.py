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
def test_every_reason_has_a_meaning(enum):
    assert set(reference().member_docs(enum)) == {member.value for member in enum}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page):
    targets = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_make_target_that_is_named_exists():
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for page in PAGES for target in re.findall(r"`?make ([a-z][a-z-]+)", page.read_text())}
    assert named - known <= {"sure", "it", "them", "progress"}
