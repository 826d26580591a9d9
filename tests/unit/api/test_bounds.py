"""Every field of every kind has bounds."""

import pytest
from pydantic import ValidationError

from tests.builders.node import pool
from tests.unit.api.test_crd import fields_of
from vmnic.api.crd import KINDS

NEEDED = {"integer": {"minimum", "maximum"}, "array": {"maxItems"}, "number": {"minimum", "maximum"}}


def lacks_bounds(node):
    kind = node.get("type")
    if kind == "string":
        return not {"maxLength", "enum"} & node.keys()
    if kind == "object" and "properties" not in node:
        return "maxProperties" not in node
    return not NEEDED.get(kind, set()) <= node.keys()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_field_has_bounds(kind):
    assert [path for path, node in fields_of(kind) if lacks_bounds(node)] == []


def test_ipam_that_is_nested_too_deeply_is_refused():
    ipam: dict = {}
    for _ in range(20):
        ipam = {"a": ipam}
    with pytest.raises(ValidationError, match="ipam"):
        pool(networks=[{"name": "a", "ipam": ipam}])
