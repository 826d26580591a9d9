"""`kubectl vmnic plan` on files of junk.

It plans or refuses with exit code 2, and prints nothing that a terminal interprets.
"""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from vmnic.cli.app import app

from .bounds import within_bounds
from .junk import NUMBERS, TEXTS, Deep, dump, mutations
from .scene import OBJECTS
from .settings import inputs

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
BOMB = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [*{before}, *{before}, *{before}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
YAML_JUNK = [
    *(
        BOMB,
        "a: &a {b: *a}",
        "? [a]: b",
        "a: 1\na: 2",
        "!!python/object:os.system x",
        "%YAML 9.9\n---\nx",
        "a:\n\t- b",
        "\ufeffa: b",
    ),
    *(
        "[" * 5000,
        "{" * 5000,
        "- " * 5000,
        "a: " * 5000,
        "&a " * 500,
        "---\n" * 5000,
        "x: 1:1:1:1",
        "2026-99-99",
        "x: " + "9" * 5000,
    ),
    *(
        "<<: *x",
        "a: &a {b: c}\n" + "".join(f"m{n}: &m{n} {{<<: [*{'a' if not n else f'm{n - 1}'}]}}\n" for n in range(200)),
        "'",
        '"\\ud800"',
        "\x00",
    ),
]
_files = st.one_of(
    mutations(list(OBJECTS.values())).map(dump),
    st.sampled_from(YAML_JUNK).map(lambda text: text.encode("utf-8", "replace")),
    st.lists(st.sampled_from([*map(str, NUMBERS), *TEXTS]), max_size=5).map(
        lambda parts: "\n".join(parts).encode("utf-8", "replace")
    ),
    st.builds(lambda levels: dump(Deep(levels)), st.integers(1, 50_000)),
)
OTHERS = [
    dump(body)
    for plural, body in OBJECTS.items()
    if plural in ("virtualmachines", "vmnicpolicies", "sriovnetworkpools", "nodenicstates")
]


@pytest.mark.parametrize("output", ["table", "json", "yaml", "markdown", "html"])
def test_a_plan_of_junk_succeeds_or_is_refused(output, tmp_path):
    file, others = tmp_path / "junk.yaml", tmp_path / "others.yaml"
    others.write_bytes(b"\n---\n".join(OTHERS))
    runner = CliRunner()

    def plan(text):
        file.write_bytes(text)
        return runner.invoke(app, ["plan", "-f", str(file), "-f", str(others), "-o", output])

    @inputs(share=8)
    @given(_files)
    def plans(text):
        done = within_bounds(lambda: text, plan)
        assert done.exit_code in (0, 1, 2), done.exception
        assert not CONTROL.search(done.output)

    plans()
