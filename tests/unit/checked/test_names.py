"""Names of Kubernetes objects in foreign text."""

import time

import pytest

from vmnic.checked.names import is_label_name, is_subdomain_name

BOUND_S = 0.05
"""Longest time for a reader at its bound, in seconds."""


@pytest.mark.parametrize(
    ("text", "label", "subdomain"),
    [
        ("a", True, True),
        ("kube-system", True, True),
        ("a.b-c.d", False, True),
        ("n" * 63, True, True),
        ("n" * 64, False, True),
        ("n" * 253, False, True),
        ("n" * 254, False, False),
        ("", False, False),
        ("-a", False, False),
        ("a-", False, False),
        ("A", False, False),
        ("a..b", False, False),
        ("..", False, False),
        ("a/b", False, False),
        ("a?b", False, False),
        ("a%2fb", False, False),
        ("a\n", False, False),
        ("\u0661", False, False),
    ],
)
def test_names_match_those_that_kubernetes_accepts(text, label, subdomain):
    assert (is_label_name(text), is_subdomain_name(text)) == (label, subdomain)


@pytest.mark.parametrize("text", ["a" * 252 + "!", "a." * 126 + "!", "a-" * 126 + "!", "a" * 10_000_000])
def test_a_name_at_its_bound_is_checked_in_time(text):
    started = time.perf_counter()
    assert not is_label_name(text)
    assert not is_subdomain_name(text)
    assert time.perf_counter() - started < BOUND_S
