"""Log lines are JSON objects, and what they are about always has the same keys."""

import ast
import json
import logging
import pathlib

import vmnic
from vmnic.logs import setup_logging

KEYS = {"pool", "policy", "vm", "node", "pf", "resource", "kind", "object"}


def test_a_line_has_the_keys_of_its_subject(capsys):
    before = logging.getLogger().handlers[:]
    setup_logging("info", node="n1")
    logging.getLogger("vmnic.test").warning("%s is given up", "it", extra={"pf": "0000:0b:00.0"})
    logging.getLogger().handlers[:] = before
    line = json.loads(capsys.readouterr().err)
    assert {name: line[name] for name in ("level", "message", "node", "pf")} == {
        "level": "warning", "message": "it is given up", "node": "n1", "pf": "0000:0b:00.0",
    }  # fmt: skip


def test_no_other_keys_are_used():
    used = set()
    for path in pathlib.Path(vmnic.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.keyword) and call.arg == "extra" and isinstance(call.value, ast.Dict):
                used |= {key.value for key in call.value.keys}
    assert used - KEYS == set()
    assert {"pf", "vm", "pool"} <= used
