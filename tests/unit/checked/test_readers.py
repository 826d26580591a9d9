"""Checked readers apply their bounds before any arithmetic, and are fast at their bounds."""

import contextlib
import time

import pytest

from vmnic.checked.devices import is_pci_address, read_vf_range
from vmnic.checked.documents import BoundError, check_depth, check_json, read_json
from vmnic.checked.quantities import LARGEST, read_integer, read_quantity

BOUND_S = 0.05
"""Longest time for a reader at its bound, in seconds."""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1Gi", 2**30),
        ("1.5G", 1_500_000_000),
        ("1500m", 2),
        ("1E", 10**18),
        ("12E3", 12_000),
        (".5Gi", 2**29),
        ("5.", 5),
        ("1e-5", 1),
        ("-1", -1),
        (" 7 ", 7),
        (12, 12),
        ("1e3000000", LARGEST),
        ("9e999999999999999999", LARGEST),
        ("-9e99", -LARGEST),
        (2**70, LARGEST),
        ("1e1000000Ki", None),
        ("1" * 65, None),
        ("e3", None),
        ("", None),
        ("१", None),
        ("NaN", None),
        ("Infinity", None),
        ("1_000", None),
        (True, None),
        (1.5, 2),
        ([], None),
    ],
)
def test_quantities_are_parsed_as_kubernetes_parses_them(text, value):
    assert read_quantity(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("-3", None), ("12", 12), ("13", None), ("9" * 21, None), (5, 5), (True, None), ("1.0", None), ("٣", None)],
)
def test_integers_are_bounded(text, value):
    assert read_integer(text, 0, 12) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("0-6", range(7)), ("3", range(3, 4)), ("6-0", None), ("0-30000000", None), ("-3", None), ("x", None), ("0-1024", None)],
)
def test_vf_ranges_are_bounded(text, value):
    assert read_vf_range(text) == value


@pytest.mark.parametrize(
    ("text", "valid"),
    [("0000:3b:00.2", True), ("zz", False), ("0000:3b:00.8", False), ("0000:3b:20.0", False), ("0000:3b:00.2\n", False)],
)
def test_only_full_pci_addresses_are_accepted(text, valid):
    assert is_pci_address(text) is valid


@pytest.mark.parametrize("text", ["[" * 33, "{" * 33, '[{"a":' * 17])
def test_deep_json_is_refused_before_it_is_parsed(text):
    with pytest.raises(BoundError, match="levels"):
        read_json(text, object, max_bytes=1000)


def test_brackets_in_strings_do_not_count_as_levels():
    assert read_json('["[[[[\\"[[["]', list[str], max_bytes=100, max_depth=2) == ['[[[["[[[']


def test_long_json_is_refused_before_it_is_parsed():
    with pytest.raises(BoundError, match="at most 10"):
        read_json('"0123456789"', str, max_bytes=10)


def test_the_depth_check_of_parsed_values_does_not_recurse():
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(BoundError, match="levels"):
        check_depth(deep, 8)


def seconds(call, *args, **more):
    started = time.perf_counter()
    with contextlib.suppress(ValueError):
        call(*args, **more)
    return time.perf_counter() - started


@pytest.mark.parametrize(
    ("call", "args"),
    [
        (read_quantity, ("9" * 58 + "e99999",)),
        (read_quantity, ("0." + "0" * 56 + "1Ei",)),
        (read_integer, ("9" * 20, 0, LARGEST)),
        (read_vf_range, ("0-1023",)),
        (check_depth, ([[{}]] * 60_000, 8)),
    ],
    ids=["large quantity", "small quantity", "integer", "range", "wide value"],
)
def test_a_reader_at_its_bound_is_fast(call, args):
    assert min(seconds(call, *args) for _ in range(3)) <= BOUND_S


@pytest.mark.parametrize(
    "text", [b"[" * 2**18, b"[{}," * 2**16, b'["\\"[",' * 2**15, b'"' * 2**18, b"\\" * 2**18, b"[" * 40 + b'"' + b'\\"' * 2**17]
)
def test_json_at_its_bound_is_fast(text):
    took = min(seconds(check_json, text, max_bytes=2**18, max_depth=32) for _ in range(3))
    assert took <= BOUND_S
