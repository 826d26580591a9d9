"""Foreign text is converted to text that can be printed and encoded."""

import pytest

from vmnic.checked.printable import cut, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain äöü 日本 ✓", "plain äöü 日本 ✓"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x00\x1b[1m\x7f\x9b", "\\x00\\x1b[1m\\x7f\\x9b"),
        ("\u202e\u2066\u200f\ufeff", "\\u202e\\u2066\\u200f\\ufeff"),
        ("\u2028\u2029\x85", "\\u2028\\u2029\\x85"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
    ],
)
def test_unprintable_characters_become_escape_sequences(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize(("text", "shown"), [("abc", "abc"), ("abcdefgh", "abc…"), ("ääää", "ä…"), ("\ud800", "?")])
def test_text_is_cut_to_bytes_at_a_character_boundary(text, shown):
    assert cut(text, 6) == shown
    assert len(cut(text, 6).encode()) <= 6
