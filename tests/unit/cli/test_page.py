"""`kubectl vmnic plan -o html`: one page that needs nothing else."""

import html
import html.parser
import re

import pytest
import yaml
from lxml import etree
from lxml import html as lxml_html
from typer.testing import CliRunner

from tests.builders.vm import nad, nic, node_state, policy, pool, vm
from vmnic.cli.app import app
from vmnic.cli.svg import escape_text

HOSTILE = (
    "</title></td></svg></style><script>alert(1)</script><img src=http://evil.example onerror=alert(2)>"
    "\"' onload='alert(3)' x=\" &lt;b&gt; <!-- ]]> <![CDATA[ javascript:alert(4) é \x1b[31m\u202e"
)
TAGS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "h1",
        "h2",
        "p",
        "code",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    ),
    *("figure", "figcaption", "svg", "rect", "text", "path", "g"),
}
ATTRIBUTES = {
    *("lang", "charset", "http-equiv", "content", "name", "scope", "class", "xmlns", "xml:space", "role", "viewbox", "width"),
    *("height", "x", "y", "rx", "d", "fill", "stroke", "stroke-width", "stroke-dasharray", "transform"),
}


class Reader(html.parser.HTMLParser):
    """Collects tags, attributes and text as a browser's parser would."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.cells, self.odd = set(), set(), [""], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}
        self.cells.append("")

    def handle_data(self, data):
        self.cells[-1] += data

    def handle_comment(self, data):
        self.odd.append(data)

    handle_pi = unknown_decl = handle_comment


def page(*objects):
    done = CliRunner().invoke(app, ["plan", "-f", "-", "-o", "html", "--fail-on", "never"], input=yaml.safe_dump_all(objects))
    assert done.exit_code in (0, 2), done.stderr
    return done.stdout


def scene(word=""):
    """Return objects whose names, sources and messages contain a word."""
    state = node_state(held=[1])
    pf = state["status"]["pfs"][0]
    pf["held"] = [{"vf": "0000:0b:10.2", "by": f"pod a/b {word}"[:321]}]
    pf["problem"] = {"reason": "ForeignOwner", "message": f"NetworkManager {word}"}
    machine = vm(
        "web",
        nic(model="e1000e"),
        nic(f"data{word}", binding="bridge", network="br"),
        nic("vf", binding="sriov", network="fast"),
    )
    odd = vm(f"odd{word}", nic(model=f"model{word}"), namespace=f"tenants{word}")
    networks = [nad("br", cni=f"bridge{word}"), nad("fast", cni="sriov", resource=f"vmnic.dev/fast{word}")]
    return [
        machine,
        odd,
        *networks,
        pool(num_vfs=3),
        state,
        policy(),
        policy("vf", selector={"networks": ["fast"]}, datapaths=["sriov"]),
    ]


DOMAIN = "<domain><name>{0}</name><vcpu>1</vcpu><devices><interface type='bridge'><source bridge='{0}'/><model type='{0}'/></interface></devices></domain>"


def test_the_page_has_decisions_capacity_and_pictures():
    made = page(*scene())
    reader = Reader(made)
    captions = [one.text for one in lxml_html.fromstring(made).iter("caption")]
    assert captions == ["Problems", "Decisions", "Datapaths that are excluded", "Pools", "Capacity"]
    assert made.count("<svg") == 2
    assert {"vhost-net", "tenants/web"} <= {cell.strip() for cell in reader.cells}


def test_the_page_refers_to_nothing_outside():
    made = page(*scene(HOSTILE))
    assert made.isascii()
    root = lxml_html.fromstring(made)
    # A namespace is a name, and no browser loads it.
    assert [
        one
        for element in root.iter(etree.Element)
        for one in element.attrib.values()
        if ":" in one.replace("http://www.w3.org/2000/svg", "") and "default-src 'none'" not in one
    ] == []
    styles = "".join(one.text or "" for one in root.iter("style"))
    assert not re.search(r"url|@import|expression", styles)
    assert "default-src 'none'" in made


@pytest.mark.parametrize("word", [HOSTILE, "<b>", "a&amp;b", "'", '"', "</text>", "]]>", "é"])
def test_hostile_names_stay_text(word):
    plain, made = Reader(page(*scene())), Reader(page(*scene(word)))
    assert (made.tags - TAGS, made.attributes - ATTRIBUTES, made.odd) == (set(), set(), [])
    assert made.tags <= plain.tags
    root = lxml_html.fromstring(page(*scene(word)))
    assert {element.tag for element in root.iter(etree.Element)} <= TAGS
    assert any(f"data{word}"[:20] in cell for cell in made.cells)


@pytest.mark.parametrize("word", [HOSTILE.replace("\x1b", ""), "</text><script>"])
def test_hostile_names_of_a_domain_stay_text(word, tmp_path):
    (tmp_path / "d.xml").write_text(DOMAIN.format(html.escape(word)))
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(policy()))
    for arguments in (["plan", "-f", str(tmp_path), "-o", "html"], ["path", "domain", word, "-f", str(tmp_path), "-o", "svg"]):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code in (0, 1), done.stderr
        made = Reader(done.stdout)
        assert (made.tags - TAGS, made.attributes - ATTRIBUTES, made.odd) == (set(), set(), [])
        if arguments[0] == "path":
            # An SVG is XML, which a stricter parser reads.
            tags = {etree.QName(one).localname for one in etree.fromstring(done.stdout.encode()).iter(etree.Element)}
            assert tags <= TAGS
            assert any(word[:10] in cell for cell in made.cells)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<b>&", "&lt;b&gt;&amp;"),
        ("'\"", "&#x27;&quot;"),
        ("é…", "&#233;&#8230;"),
        ("a\nb\x1b\udc80", "a\\nb\\x1b?"),
        ("x" * 2000, "x" * 1021 + "&#8230;"),
    ],
    ids=["markup", "quotes", "not ASCII", "not printable", "long"],
)
def test_text_is_escaped(text, shown):
    assert escape_text(text) == shown


def test_an_empty_plan_is_a_page_without_tables():
    assert {"table", "svg"}.isdisjoint(Reader(page()).tags)
