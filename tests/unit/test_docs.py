"""The documentation matches the code."""

import importlib.util
import pathlib
import re
import shlex
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner

from docs import make_pictures
from tests.harness.pages import Step, read_steps
from vmnic.api.reasons import NodeReason, PoolReason
from vmnic.cli.app import app
from vmnic.policy.condition_reasons import PolicyReason
from vmnic.policy.facts import Datapath

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reference():
    return loaded("make_reference")


def test_the_reference_matches_the_models():
    pages = reference().render_pages()
    assert {path.name: path.read_text() for path in (ROOT / "docs" / "reference").iterdir()} == pages, "run `make docs`"


def test_the_pictures_match_the_tutorial():
    pictures = make_pictures.render_pictures()
    assert {path.name: path.read_text() for path in make_pictures.PICTURES.iterdir()} == pictures, "run `make docs`"


def test_every_datapath_has_a_path_in_the_picture():
    assert set(make_pictures.PATHS) == set(Datapath) - {Datapath.OTHER}


@pytest.mark.parametrize("path", sorted(make_pictures.PICTURES.iterdir()), ids=lambda path: path.name)
def test_a_picture_is_small_titled_and_has_a_background(path):
    text = path.read_text()
    root = ET.fromstring(text)
    parts = [part.tag.rpartition("}")[2] for part in root]
    assert len(text) < 30_000
    assert parts[:3] == ["title", "style", "rect"]
    assert {"text", "image", "script"} & {element.tag.rpartition("}")[2] for element in root.iter()} == {"text"}


def test_the_changelog_has_every_fragment():
    assert (ROOT / "CHANGELOG.md").read_text() == loaded("make_changelog").render_changelog(), "run `make changelog`"


@pytest.mark.parametrize("enum", reference().REASONS.values())
def test_every_reason_has_a_cause_and_a_remedy(enum):
    docs = reference().member_docs(enum)
    assert set(docs) == {member.value for member in enum}
    assert [reason for reason, text in docs.items() if not all(reference().cause_and_remedy(text))] == []


@pytest.mark.parametrize(
    ("page", "enum"), [("sriovnetworkpool", PoolReason), ("vmnicpolicy", PolicyReason), ("nodenicstate", NodeReason)]
)
def test_every_condition_reason_is_on_its_kinds_page(page, enum):
    text = (ROOT / "docs" / "kinds" / f"{page}.md").read_text()
    assert [reason for reason in enum if reason not in text] == []


def anchors(page):
    """Return the anchors that GitHub creates for a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page):
    targets = [(page.parent / path, anchor) for path, anchor in re.findall(r"\]\(([^)#:]+)#?([^)]*)\)", page.read_text())]
    assert [str(path) for path, _ in targets if not path.exists()] == []
    assert [anchor for path, anchor in targets if anchor and anchor not in anchors(path)] == []


def test_every_named_make_target_exists():
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for page in PAGES for target in re.findall(r"`?make ([a-z][a-z-]+)", page.read_text())}
    assert named - known <= {"sure", "it", "them", "progress"}


@pytest.mark.parametrize(
    ("shown", "output", "true"),
    [
        ((), "whatever\n", True),
        (("NAME  AGE", "fast  …"), "NAME   AGE\nfast   3m\n", True),
        (("NAME", "…", "last"), "NAME\none\ntwo\nlast\n", True),
        (("NAME",), "NAME\nfast\n", False),
        (("a.c",), "abc\n", False),
    ],
    ids=["nothing is shown", "columns", "lines left out", "one line too few", "no pattern"],
)
def test_an_output_matches_the_lines_that_a_page_shows(shown, output, true):
    assert Step("command", 0, shown).is_shown_by(output) is true


BLOCK = re.compile(r"(?:<!-- (?:not run|run by): ([^>]+) -->\n)?```(sh|console)\n(.*?)```", re.DOTALL)
KINDS = {path.name for path in (ROOT / "docs" / "kinds").iterdir()}
OFFLINE = ("maintenance.md", "paths.md")
"""Pages whose commands read files only, so this tier runs them."""
RUN = {"README.md", "tutorial.md", "troubleshooting.md", "gitops.md", *OFFLINE, *KINDS}
"""Pages whose console blocks the cluster tier runs (`tests/cluster/test_docs.py`). `docs/reference` repeats `docs/kinds`."""


@pytest.mark.parametrize("page", OFFLINE)
def test_commands_on_files_print_what_their_page_shows(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    steps = list(read_steps(ROOT / "docs" / page))
    for step in steps:
        done = CliRunner().invoke(app, shlex.split(step.command.removeprefix("kubectl vmnic ")))
        assert (done.exit_code, step.is_shown_by(done.stdout)) == (step.code, True), done.output
    assert steps


def test_the_picture_of_a_path_is_what_the_command_prints(monkeypatch):
    monkeypatch.chdir(ROOT)
    done = CliRunner().invoke(app, shlex.split("path vm db -n tenants -f examples -R -o svg"))
    assert done.stdout == (make_pictures.PICTURES / "path.svg").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_block_is_run_or_explains_why_not(page):
    for reason, kind, text in BLOCK.findall(page.read_text()):
        lines = [line.split("#")[0].strip() for line in text.splitlines() if line.strip()]
        only_make = all(line.startswith("make ") for line in lines)
        assert reason or only_make or (kind == "console" and page.name in RUN), f"{page.name}:\n{text}"


def test_each_security_promise_names_existing_tests():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text())
    missing = [f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / path).read_text()]
    assert (missing, len(named) > 40) == ([], True)
