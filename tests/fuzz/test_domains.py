"""Every libvirt domain of junk is planned, or refused with an error that names it, within bounds."""

import contextlib
import pathlib
from xml.sax.saxutils import escape, quoteattr

from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from tests.builders.decide import collect
from tests.builders.vm import node_state, policy, pool
from vmnic.cli.objects import MalformedObjectError
from vmnic.cli.offline import decide_all
from vmnic.cli.plan import make_plan

from .bounds import within_bounds
from .junk import mutations
from .settings import inputs

FILES = sorted((pathlib.Path(__file__).parents[1] / "unit" / "libvirt" / "domains").glob("*.xml"))
BOMB = '<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {x} "{f"&{y};" * 10}">' for x, y in zip("bcdefghij", "abcdefghi", strict=True)
)
TEXT_JUNK = [
    *(
        BOMB + "]><domain><name>&j;</name></domain>",
        '<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]><domain><name>&x;</name></domain>',
    ),
    *(
        "<domain>" * 5000,
        "<domain>",
        "<a/>",
        "<domain><name>" + "a" * 2**20 + "</name></domain>",
        "<domain " + 'a="b" ' * 9999 + "/>",
    ),
    *(
        "\ufeff<domain/>",
        '<?xml version="1.0" encoding="UTF-16"?><domain/>',
        "<domain xmlns='x'/>",
        "<domain><devices>" + "<interface/>" * 9999,
    ),
]
DATAPATHS = ["emulated", "vhost", "sriov", "passthrough"]


def tree_of(element):
    """Return an element as lists and objects, in which values can be replaced by junk."""
    text = (element.text or "").strip()
    return {
        "tag": element.tag,
        "attributes": dict(element.attrib),
        "text": text,
        "children": [tree_of(one) for one in element if isinstance(one.tag, str)],
    }


def write(tree):
    if not isinstance(tree, dict) or not isinstance(tree.get("tag"), str):
        return escape(str(tree))
    fields = tree.get("attributes")
    attributes = (
        "".join(f" {name}={quoteattr(str(value))}" for name, value in fields.items()) if isinstance(fields, dict) else ""
    )
    children = tree.get("children")
    inside = "".join(write(child) for child in children) if isinstance(children, list) else escape(str(children))
    return f"<{tree['tag']}{attributes}>{escape(str(tree.get('text', '')))}{inside}</{tree['tag']}>"


TREES = [tree_of(etree.parse(file).getroot()) for file in FILES]
POOLS = [pool(), pool("whole", function="Physical"), node_state(), node_state("n2", pool="whole", vfs=0, function="Physical")]


def plan(text):
    policies = [policy(name, datapaths=[name], sriov={"pool": "fast"}, passthrough={"pool": "whole"}) for name in DATAPATHS]
    objects = collect(*policies, *POOLS)
    with contextlib.suppress(MalformedObjectError):
        objects.add_xml(text)
    return make_plan(objects, decide_all(objects, offline=True), [])


@inputs(share=2)
@given(st.one_of(st.sampled_from(TEXT_JUNK), mutations(TREES).map(write)))
def test_a_domain_of_junk_is_planned_or_refused(text):
    within_bounds(lambda: text, plan)
