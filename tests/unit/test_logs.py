"""Log lines are JSON objects, and their subject always has the same keys."""

import ast
import json
import logging
import pathlib

import pytest

import vmnic
from vmnic.logs import _JsonFormatter, setup_logging

KEYS = {"pool", "policy", "vm", "node", "pf", "resource", "kind", "object"}


def test_a_log_line_has_the_keys_of_its_subject(capsys):
    before = logging.getLogger().handlers[:]
    setup_logging("info", node="n1")
    logging.getLogger("vmnic.test").warning("%s is released", "it", extra={"pf": "0000:0b:00.0"})
    logging.getLogger().handlers[:] = before
    line = json.loads(capsys.readouterr().err)
    assert {name: line[name] for name in ("level", "message", "node", "pf")} == {
        "level": "warning", "message": "it is released", "node": "n1", "pf": "0000:0b:00.0",
    }  # fmt: skip


HOSTILE = "a\nb\r\x1b[31m\x7f\x9b\u202e\u2028\udc80\x00"


class Odd:
    def __str__(self):
        return HOSTILE


def line_of(message, *args, exc_info=None, **more):
    """Return the line of a record, because pytest's own handlers fail on lone surrogates."""
    record = logging.LogRecord("vmnic", logging.ERROR, "", 0, message, args, exc_info)
    vars(record).update(more)
    return _JsonFormatter({"node": "n1"}).format(record)


@pytest.mark.parametrize("value", [HOSTILE, [HOSTILE], {HOSTILE: HOSTILE}, Odd()], ids=["text", "list", "map", "object"])
def test_foreign_text_stays_in_one_line_of_ascii(value):
    text = line_of("%s %s", 1, value, pf=value, vm=None)
    assert (text.isascii(), text.isprintable(), json.loads(text)["vm"]) == (True, True, None)


def test_a_foreign_error_stays_in_one_line():
    error = ValueError(HOSTILE * 10_000)
    text = line_of("failed", exc_info=(ValueError, error, None))
    assert (text.isprintable(), len(text) < 60_000, "ValueError" in json.loads(text)["exception"]) == (True, True, True)


def test_a_long_message_is_cut():
    assert len(json.loads(line_of("%s", "x" * 10**6))["message"].encode()) == 8192


def test_no_other_keys_are_used():
    used = set()
    for path in pathlib.Path(vmnic.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.keyword) and call.arg == "extra" and isinstance(call.value, ast.Dict):
                used |= {key.value for key in call.value.keys}
    assert used - KEYS == set()
    assert {"pf", "vm", "pool"} <= used
