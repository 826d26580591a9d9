"""Planted faults.

The inputs of `make test` find one of each kind in every reader and every decoder.
"""

import json
import re
from decimal import Decimal, InvalidOperation

import msgspec
import pytest

from vmnic.checked.documents import check_json

from .junk import places
from .test_readers import DECODERS, READERS, SEEDS, feed_decoder, feed_reader


def quantity_without_bounds(text):
    try:
        number = Decimal(str(text))
        # vmnic's own fault took minutes here, in one call that cannot be interrupted.
        return int(number) if number.adjusted() < 10_000 else None
    except (InvalidOperation, ValueError, OverflowError):
        return None


def depth_by_recursion(value, level=0):
    if level > 32:
        raise ValueError
    for one in value if isinstance(value, list) else ():
        depth_by_recursion(one, level)


BROKEN = {
    "quantity": quantity_without_bounds,
    "integer": lambda value: int(value) if str(value).isdecimal() else None,
    "VF range": lambda text: range(int(str(text).partition("-")[0]), int(str(text).partition("-")[2]) + 1),
    "PCI address": lambda text: text if len(str(text)) == 12 else None,
    "depth": depth_by_recursion,
    "JSON": lambda value: json.loads("[" * 2000 if value.__class__.__name__ == "Deep" else "1"),
    "JSON text": lambda value: json.loads(str(value)),
}
"""Readers written without care. The first three were faults of vmnic itself."""


@pytest.mark.parametrize("name", BROKEN)
def test_a_careless_reader_is_found(name, monkeypatch):
    monkeypatch.setitem(READERS, name, (BROKEN[name], READERS[name][1]))
    with pytest.raises((AssertionError, RecursionError, ExceptionGroup)):
        feed_reader(name)


def has_large_number(name, raw):
    return re.search(rb"[0-9]{16}", raw) is not None


def is_deep(name, raw):
    try:
        check_json(raw, max_bytes=2**30, max_depth=100)
    except ValueError:
        return True
    return False


def has_a_wrong_type(name, raw):
    document, seed = msgspec.json.decode(raw), SEEDS[name]
    for path in places(seed):
        found, wanted = document, seed
        for key in path:
            if not isinstance(found, dict | list) or (isinstance(found, dict) and key not in found):
                return False
            found, wanted = found[key], wanted[key]
        if type(found) is not type(wanted):
            return True
    return False


@pytest.mark.parametrize("fault", [has_large_number, is_deep, has_a_wrong_type], ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("name", DECODERS)
def test_a_careless_decoder_is_found(name, fault, monkeypatch):
    def trips(raw):
        if fault(name, bytes(raw)):
            raise AttributeError

    monkeypatch.setitem(DECODERS, name, trips)
    with pytest.raises(AttributeError):
        feed_decoder(name)
