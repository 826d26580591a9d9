"""JSON Patch operations and escaped paths."""

import jsonpatch
import pytest

from vmnic.json_patch import add, check, pointer, remove, replace


@pytest.mark.parametrize("name", ["vmnic.dev/assigned", "a~b", "~1", "plain"])
def test_a_pointer_leads_to_the_name_that_it_was_made_from(name):
    document = {"metadata": {"annotations": {name: "old", "other": ""}}}
    path = pointer("metadata", "annotations", name)
    changed = jsonpatch.apply_patch(document, [check(path, "old"), replace(path, "new")])
    assert changed["metadata"]["annotations"] == {name: "new", "other": ""}
    assert jsonpatch.apply_patch(document, [remove(path)])["metadata"]["annotations"] == {"other": ""}


def test_a_value_is_appended_and_inserted():
    assert jsonpatch.apply_patch({"a": [1]}, [add("/a/-", 3), add(pointer("a", 1), 2)]) == {"a": [1, 2, 3]}
