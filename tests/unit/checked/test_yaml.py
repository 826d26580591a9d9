"""YAML is read object by object, and bounded before an object is built."""

import gc
import io
import json
import pathlib
import time

import pytest
from yaml import CSafeLoader

from vmnic.checked import yaml_documents as module
from vmnic.checked.yaml_documents import Document, read_documents
from vmnic.checked.yaml_source import MOST_STRETCH
from vmnic.checked.yaml_tokens import MOST_LEVELS, MOST_NODES, MOST_TEXT


def read(text):
    return list(
        read_documents(
            io.StringIO(text), lambda version, kind: kind.endswith("List") or (kind == "A" and version in ("", "own/v1"))
        )
    )


def value(text):
    (document,) = read(text)
    assert not document.problem, document.problem
    return document.value


def problem(text):
    return read(text)[0].problem


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("a: 1", {"a": 1}),
        ("a: [0x10, 1_000, -3, 1.5, true, No, ~, null, '5', \"6\", x]", {"a": [16, 1000, -3, 1.5, True, False, None, None, "5", "6", "x"]}),
        ("a: 12:34:56:01:02:03", {"a": "12:34:56:01:02:03"}),
        ("a: 2026-01-01T00:00:00Z", {"a": "2026-01-01T00:00:00Z"}),
        ("1: a\ntrue: b", {"1": "a", "true": "b"}),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}", {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}),
        ("a: {<<: [{b: 1}, {b: 2, c: 2}]}", {"a": {"b": 1, "c": 2}}),
        ("a: !!str 5\nb: !!int '5'", {"a": "5", "b": 5}),
        ('{"a": "\\u0041\\n"}', {"a": "A\n"}),
        ("a: |\n  x\n  y\n", {"a": "x\ny\n"}),
        ("\ufeffa: 1", {"a": 1}),
        ("a: " + "x" * 2000, {"a": "x" * 2000}),
    ],
)  # fmt: skip
def test_values_are_as_kubectl_reads_them(text, made):
    assert value(text) == made


def kubectl_table():
    """Return YAML texts and what sigs.k8s.io/yaml v1.6.0 (`YAMLToJSON`) makes of each: JSON, or None for an error."""
    lines = pathlib.Path(__file__).with_name("kubectl_yaml.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def as_api_server(number):
    """Return an integer of JSON as the API server reads it, where one beyond 64 bits is a float."""
    return int(number) if -(2**63) <= int(number) < 2**63 else float(number)


def test_every_scalar_and_key_is_read_as_kubectl_reads_it():
    table = kubectl_table()
    assert len(table) > 500
    differences = []
    for text, expected in table:
        (found,) = list(read_documents(io.StringIO(text, newline=None), lambda *_: True)) or [Document(line=1)]
        wanted = json.dumps(json.loads(expected, parse_int=as_api_server), sort_keys=True) if expected else "a problem"
        made = "a problem" if found.problem else json.dumps(found.value, sort_keys=True)
        differences += [(text, made, wanted)] if made != wanted else []
    assert differences == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: A\na: " + "[" * 150 + "]" * 150, f"more than {MOST_LEVELS} levels"),
        ("[" * 100_000, "levels are not read, nor is the rest"),
        ("{" * 100_000, "levels are not read, nor is the rest"),
        ("- " * 50_000, "levels are not read, nor is the rest"),
        ("a: [" + "1," * MOST_NODES + "]", f"more than {MOST_NODES} values"),
        ("a: &x " + "x" * (MOST_TEXT // 4) + "\nb: [*x,*x,*x,*x]", f"more than {MOST_TEXT} characters"),
        ("a: " + "x" * (MOST_STRETCH + 2**17), f"more than {MOST_STRETCH} characters"),
        ("".join(f"%TAG !a{number}! tag:x\n" for number in range(20_000)) + "--- a", "directives"),
        ("a: " + "9" * 5000, "a number of 5000 characters"),
        ("a: &x [*x]", "the alias *x stands for itself"),
        ("a: *x", "the alias *x stands for nothing"),
        ("a: !!int x", "x is not of the type int"),
        ("a: !!binary x", "!!binary without valid base64"),
        ("a: .inf", ".inf is a number that JSON does not have: quote it"),
        ("~: b", "a key must be text: quote ~"),
        ("? [a]\n: b", "a key must be text"),
        ("a: {<<: 5}", "<< takes a map"),
        ("a: \x00", "unacceptable character"),
        ("a: [", "did not find expected node content"),
    ],
)
def test_oversized_or_malformed_yaml_is_a_problem(text, words):
    assert words in problem(text)


def bomb(base, step):
    """Return nine levels of nine aliases each."""
    return f"kind: A\na0: &a0 {base}\n" + "".join(
        f"a{level}: &a{level} {step.format(','.join([f'*a{level - 1}'] * 9))}\n" for level in range(1, 10)
    )


@pytest.mark.parametrize("kind", ["A", "Skipped"])
@pytest.mark.parametrize("text", [bomb("[x]", "[{}]"), bomb("{a: 1}", "{{<<: [{}]}}")], ids=["aliases", "merge keys"])
def test_an_alias_counts_as_all_nodes_that_it_stands_for(text, kind):
    assert "an alias counts" in problem(text.replace("kind: A", f"kind: {kind}"))


@pytest.mark.parametrize("bad", ["b: [", "b: *x", "b: " + "[" * 150 + "]" * 150, "b: " + "[" * 5000, "b: !!int y"])
def test_a_malformed_document_does_not_affect_the_others(bad):
    first, second, third = read(f"kind: A\n---\nkind: A\nmetadata: {{name: n, namespace: s}}\n{bad}\n--- # c\nkind: A\nc: 1\n")
    assert (first.value, third.value) == ({"kind": "A"}, {"kind": "A", "c": 1})
    assert (bool(second.problem), second.kind, second.value) == (True, "A", None)


def test_a_problem_names_the_object_and_its_line():
    _, found = read("kind: A\n---\n# comment\nkind: A\nmetadata:\n  name: n\n  namespace: s\nb: *x\n")
    assert (found.line, found.kind, found.name) == (4, "A", "s/n")


def test_the_items_of_a_list_are_separate_objects():
    text = "items:\n- kind: A\n  b: &b {c: 1}\n- kind: B\n- kind: A\n  d: [*x]\n- kind: A\n  e: *b\nkind: List\n"
    found = read(text)
    assert [(one.line, one.value, one.skipped, bool(one.problem)) for one in found] == [
        (2, {"kind": "A", "b": {"c": 1}}, False, False),
        (4, None, True, False),
        (5, None, False, True),
        (7, {"kind": "A", "e": {"c": 1}}, False, False),
    ]


def test_a_list_may_be_larger_than_an_object():
    items = "".join(f"- {{kind: A, a: [{'1,' * 1000}]}}\n" for _ in range(250))
    assert [one.problem for one in read(f"items:\n{items}kind: List\n")] == [""] * 250


def test_directives_and_boms_stay_with_their_document():
    text = "%YAML 1.1\n---\nkind: A\n...\n%YAML 1.1\n---\nkind: A\nb: 1\n---\n\ufeffkind: A\n\ufeff---\nkind: A\n"
    assert [(one.kind, one.problem) for one in read(text)] == [("A", "")] * 4


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffkind: A\n---\n\ufeffkind: A\n",
        "\ufeff---\nkind: A\n\ufeff---\nkind: A\n",
        "\ufeff# c\n\ufeffkind: A\n--- # c\n\n\ufeff# c\n\ufeffkind: A\n",
        '\ufeff{"kind": "A"}\n\ufeff{"kind": "A"}\n',
        '{"kind": "A"}{"kind": "A"}',
        '{\n"kind": "A"\n}{\n"kind":"A"\n}\n',
        '{"kind": "A"}' + "\n" * 200_000 + '{"kind": "A"}',
        '{"kind": "A"}\n---\nkind: A\n',
        "kind: A\n...\n---\nkind: A\n...\n",
    ],
    ids=["marks", "marks before markers", "comments", "JSON", "JSON without a line end", "indented JSON", "blank lines", "both", "ends"],
)  # fmt: skip
def test_documents_of_joined_files_are_separate(text):
    assert [(one.value, one.problem) for one in read(text)] == [({"kind": "A"}, "")] * 2


def test_a_fault_after_json_objects_has_its_line():
    first, second, third = read('{"kind": "A"}\n{"kind": "A"}\n\n{"kind": "A", "b": [}\n')
    assert (first.problem, second.problem, bool(third.problem), third.line) == ("", "", True, 4)


def test_many_json_objects_in_a_row_are_read():
    assert len(read('{"kind":"A"}' * 20_000)) == 20_000


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ('{"a": "\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        ('{"a": "\\\\ud83d\\\\ude00"}', {"a": "\\ud83d\\ude00"}),
        ('{"a":"\\/"}', {"a": "/"}),
    ],
    ids=["a character beyond 16 bits", "a backslash", "a slash"],
)
def test_json_may_escape_what_yaml_cannot(text, made):
    assert value(text) == made


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("kind: B\nkind: A\n", [("A", False)]),
        ("kind: A\nkind: B\n", [("B", True)]),
        ("kind: A\n<<: {kind: B}\n", [("B", True)]),
        ("<<: {kind: B}\nkind: A\n", [("A", False)]),
        ("apiVersion: own/v1\nkind: A\n", [("A", False)]),
        ("apiVersion: other/v1\nkind: A\n", [("A.other", True)]),
        ("apiVersion: other/v1\napiVersion: own/v1\nkind: A\n", [("A", False)]),
        ("apiVersion: other/v1\nkind: AList\nitems: [{b: 1}]\n", [("A.other", True)]),
    ],
)
def test_the_last_kind_and_group_decide(text, found):
    assert [(one.kind, one.skipped) for one in read(text)] == found
    assert all(one.skipped or one.value["kind"] == "A" for one in read(text))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("kind: AList\napiVersion: own/v1\nitems: [{b: 1}]\n", [{"kind": "A", "apiVersion": "own/v1", "b": 1}]),
        ("items: [{b: 1}]\nkind: AList\napiVersion: own/v1\n", [{"kind": "A", "apiVersion": "own/v1", "b": 1}]),
        ("kind: A\nitems: [{kind: A, b: 1}]\n", [{"kind": "A", "b": 1}]),
        ("kind: Other\nitems: [{kind: A, b: 1}]\n", [{"kind": "A", "b": 1}]),
        ("kind: AList\nitems: []\n", []),
        ("kind: A\nitems: b\n", [{"kind": "A", "items": "b"}]),
    ],
)  # fmt: skip
def test_an_object_with_items_is_a_list_whatever_its_kind(text, values):
    assert [(one.value, one.problem) for one in read(text)] == [(one, "") for one in values]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("items: [{kind: A}]\n", "add `kind: List`"),
        ("kind: A\nmetadata: {name: n}\nitems: [{kind: A}]\n", "remove `items`"),
        ("kind: A\nmetadata: {name: n}\nspec: {b: 1}\nitems: []\n", "remove `items`"),
    ],
)
def test_items_of_what_is_no_list_are_a_problem(text, words):
    (found,) = read(text)
    assert (found.value, words in found.problem) == (None, True)


@pytest.mark.parametrize(
    "text", ["kind: Other\nitems: [a, b]\n", "kind: Other\nitems: [{a: b}]\n", "kind: Other\nitems: [{kind: C}]\n"]
)
def test_items_of_another_program_are_skipped_with_it(text):
    assert [(one.kind, one.skipped) for one in read(text)] == [("Other", True)]


def test_a_skipped_object_is_not_built(monkeypatch):
    made = []
    monkeypatch.setattr(module, "make_value", made.append)
    assert [one.skipped for one in read("kind: B\na: !Ref x\n")] == [True]
    assert made == []


def test_ordinary_manifests_read_as_pyyaml_reads_them():
    for path in (pathlib.Path(__file__).parents[3] / "examples").rglob("*.yaml"):
        loader = CSafeLoader(path.read_text())
        expected = []
        while loader.check_data():
            expected.append(loader.get_data())
        with path.open() as stream:
            assert [one.value for one in read_documents(stream, lambda *_: True)] == expected


BOUND_S = 0.05


class Timed(module.CParser):
    """Records the longest call of the C parser, in seconds."""

    longest = 0.0

    def get_event(self):
        started = time.thread_time()
        try:
            return super().get_event()
        finally:
            Timed.longest = max(Timed.longest, time.thread_time() - started)


@pytest.fixture
def no_collection():
    """Disable Python's garbage collector, which may run in any call and whose time is not the parser's."""
    gc.disable()
    yield
    gc.enable()


LARGE = MOST_STRETCH - 2**17


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "x" * LARGE,
        "a: " + "x " * (LARGE // 2),
        'a: "' + "\\x41" * (LARGE // 4) + '"',
        "a: |\n" + "  x\n" * (LARGE // 4),
        "a: >\n" + "  x\n" * (LARGE // 4),
        "\n" * LARGE,
        "#\n" * (LARGE // 2),
        " " * LARGE + "a",
        "!<" + "a" * LARGE + "> b",
        "&" + "a" * LARGE + " b",
        "[" * 100_000,
        "- " * 100_000,
        "".join(f"- &a{number} x\n" for number in range(50_000)),
        "".join(f"%TAG !a{number}! tag:x\n" for number in range(20_000)),
        "a: " + "\n" * LARGE + "b",
    ],
    ids=["plain", "words", "escapes", "literal", "folded", "blank lines", "comments", "blanks", "tag", "anchor", "brackets", "dashes",
         "anchors", "directives", "blank lines in text"],
)  # fmt: skip
def test_every_call_of_the_parser_is_short(monkeypatch, no_collection, text):
    monkeypatch.setattr(module, "CParser", Timed)
    longest = []
    for _ in range(3):
        Timed.longest = 0.0
        read(text)
        longest.append(Timed.longest)
    assert 0 < min(longest) <= BOUND_S
