"""Structure-aware junk.

Values of valid documents are replaced, nested, repeated or removed.
"""

import json

from hypothesis import strategies as st


class Deep:
    """Nested lists or objects, deeper than Python can recurse. Only `dump` can write them."""

    def __init__(self, levels, opener="[", closer="]"):
        self.levels, self.opener, self.closer = levels, opener, closer

    def __repr__(self):
        return f"Deep({self.levels}, {self.opener!r})"


def _brief(kind):
    """Return a type whose values print only their beginning."""
    return type(
        kind.__name__,
        (kind,),
        {"__repr__": lambda self: f"{kind.__repr__(self)[:60]}…" if len(self) > 200 else kind.__repr__(self)},
    )


Text, Items, Fields = _brief(str), _brief(list), _brief(dict)

NUMBERS = [
    *(
        "1e3000000",
        "9e999999999999999999",
        "1e1000000Ki",
        "1e-3000000",
        "9" * 5000,
        "-1",
        "0",
        "0.0000001",
        "1_000",
        "١٢",
        "NaN",
        "1e",
    ),
    *(2**31, 2**53, 2**62, 2**63 - 1, 2**64, -(2**63), -1, 0, 10**400, 3 * 10**7, 1.5, 1e308, True),
]
TEXTS = [
    *(
        "",
        " ",
        "x",
        "zz",
        "-3",
        "6-0",
        "0-30000000",
        "0000:3b:00.0",
        "0000:ff:1f.7",
        "ffff:ff:ff.7",
        "default",
        "vmnic.dev/fast",
    ),
    *("../../../../apis/x", "x?dryRun=All&y=", "%2e%2e", "a/b/c", "a" * 300, "a" * 70_000, "*a" * 100, "[" * 250, "(a+)+$"),
    *(
        "[" * 5000,
        '{"a":' * 2000,
        "{",
        "[]",
        "null",
        '{"plugins": [5]}',
        '{"nics": {"default": {"datapath": "sriov", "was": 5}}}',
    ),
    *('{"nics": {"default": {"datapath": "vhost", "was": {"interface": 5, "network": [1]}}}}', '{"multiqueue": {"was": null}}'),
    *(
        "\x1b]8;;http://e\x07x\x1b]8;;\x07",
        "\x1b[2J",
        "\x9b31m",
        "\u202e",
        "\u2028",
        "a\nb",
        "\x00",
        "\x7f",
        "\ud800",
        "\ufeff",
    ),
    *("[/foo]", "[bold red]well[/]", "[link=http://e]x[/link]", ":smile:", "| a |\n# h", "<script>", "`x`", "@all", "![x](y)"),
    *("0 2 30 2 *", "*/0 * * * *", "9" * 100 + " * * * *", "../../etc/passwd", "999999h", "0s", "101%", "2026-99-99T99:99:99Z"),
    *("pod kube-system/coredns-abc", "pod a/../../x", "pod /", "pod x", "domain d", "Virtual", "sriov", "true", "High"),
]
SHAPES = [None, False, [], {}, [[]], [None], {"": None}, Items(["x"] * 10_000), Fields({str(n): n for n in range(5000)})]
NESTED = [Deep(50), Deep(500), Deep(2000), Deep(20_000), Deep(2000, '{"a":', "}")]

LARGEST_BYTES = 3 * 2**20
"""Largest document. The API server accepts no larger request (its `MaxRequestBodyBytes`), and etcd holds half of that."""

NUMBERS = [Text(one) if isinstance(one, str) else one for one in NUMBERS]
TEXTS = [Text(one) for one in TEXTS]

atoms = st.one_of(st.sampled_from(NUMBERS), st.sampled_from(TEXTS), st.sampled_from(SHAPES), st.sampled_from(NESTED))


def places(document, at=()):
    """Return the paths of all values of a document."""
    found = [at]
    if isinstance(document, dict):
        for key, value in document.items():
            found += places(value, (*at, key))
    elif isinstance(document, list):
        for number, value in enumerate(document):
            found += places(value, (*at, number))
    return found


@st.composite
def mutations(draw, documents):
    """Return a strategy for one of the documents with one to three changed values."""
    document = draw(st.sampled_from(documents))
    for _ in range(draw(st.integers(1, 3))):
        changed = _change(draw, document, draw(st.sampled_from(places(document))))
        if len(dump(changed)) > LARGEST_BYTES:
            break
        document = changed
    return document


def _change(draw, document, path):
    if not path:
        how = draw(st.sampled_from(["replace", *["keep"] * 9]))
        return draw(atoms) if how == "replace" else document
    head, *rest = path
    if rest:
        return _with(document, head, _change(draw, document[head], tuple(rest)))
    match draw(st.sampled_from(["replace"] * 5 + ["remove", "repeat", "wrap", "rename", "swap"])):
        case "replace":
            return _with(document, head, draw(atoms))
        case "remove":
            return _without(document, head)
        case "repeat":
            return _with(document, head, Items([document[head]] * draw(st.sampled_from([2, 70, 300]))))
        case "wrap":
            return _with(document, head, draw(st.sampled_from([[document[head]], {"a": document[head]}])))
        case "rename" if isinstance(document, dict):
            return _without(document, head) | {draw(st.sampled_from(TEXTS)): document[head]}
    return _with(document, head, str(document[head]) if not isinstance(document[head], str) else len(document[head]))


def _with(document, key, value):
    if isinstance(document, dict):
        return document | {key: value}
    return [*document[:key], value, *document[key + 1 :]]


def _without(document, key):
    if isinstance(document, dict):
        return {name: value for name, value in document.items() if name != key}
    return [*document[:key], *document[key + 1 :]]


def dump(document):
    """Write a document as JSON, including nested values of any depth."""
    nested = []

    def mark(value):
        nested.append(value)
        return "\ufdd0"

    pieces = json.dumps(document, default=mark, ensure_ascii=False).split('"\ufdd0"')
    written = [value.opener * value.levels + "null" + value.closer * value.levels for value in nested]
    return "".join(part for pair in zip(pieces, [*written, ""], strict=True) for part in pair).encode("utf-8", "replace")
