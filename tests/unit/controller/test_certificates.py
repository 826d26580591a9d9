import base64
from datetime import UTC, datetime, timedelta

import pytest

from vmnic.controller.admission.certificates import Authorities, Lifetimes, make_authority, merge_bundle, rotate
from vmnic.controller.admission.rotation import _authority

LIFETIMES = Lifetimes(serving=timedelta(days=90))
START = datetime(2026, 1, 1, tzinfo=UTC)


def days(number):
    return START + timedelta(days=number)


@pytest.fixture(scope="module")
def first():
    return rotate(None, [], START, LIFETIMES)


@pytest.fixture(scope="module")
def announced(first):
    return rotate(first, [], days(181), LIFETIMES)


def test_a_young_authority_is_left_alone(first):
    assert rotate(first, [first.current.certificate], days(179), LIFETIMES) is first


def test_an_authority_is_announced_at_half_time_and_signs_two_weeks_later(first, announced):
    both = merge_bundle(first.current.certificate, announced, days(181))
    assert announced.current == first.current
    assert rotate(announced, [both], days(195), LIFETIMES) is announced
    assert rotate(announced, [both], days(197), LIFETIMES) == Authorities(announced.next)


@pytest.mark.parametrize(
    "trusted", [[], [b""], ["both", b""]], ids=["no webhook", "nothing trusted", "one webhook does not trust it"]
)
def test_an_authority_that_is_not_trusted_everywhere_signs_nothing(announced, trusted):
    both = merge_bundle(b"", announced, days(181))
    assert rotate(announced, [both if entry == "both" else entry for entry in trusted], days(197), LIFETIMES) is announced


def test_an_expired_authority_is_replaced_at_once(first, announced):
    assert rotate(first, [], days(361), LIFETIMES).current != first.current
    assert rotate(announced, [], days(361), LIFETIMES) == Authorities(announced.next)


def test_shorter_notice_is_given_where_the_end_is_near(announced):
    both = merge_bundle(b"", announced, days(350))
    late = rotate(Authorities(announced.current), [], days(350), LIFETIMES)
    assert rotate(late, [merge_bundle(both, late, days(350))], days(351), LIFETIMES) == Authorities(late.next)


def test_the_bundle_keeps_what_is_valid_and_drops_the_rest(first, announced):
    both = merge_bundle(b"no certificate\n" + first.current.certificate, announced, days(181))
    assert both == first.current.certificate + announced.next.certificate
    assert merge_bundle(both, announced, days(182)) == both
    assert merge_bundle(both, Authorities(announced.next), days(361)) == announced.next.certificate


@pytest.mark.parametrize(
    "damage",
    [{"tls.key": "bm8ga2V5"}, {"tls.crt": "bm8gY2VydGlmaWNhdGU="}, {"tls.key": "%"}, {"tls.crt": None}],
    ids=["no key", "no certificate", "no base64", "nothing"],
)
def test_an_authority_that_is_damaged_counts_as_none(first, damage):
    data = encoded(first.current)
    assert _authority(data, "tls") == first.current
    assert _authority(data | damage, "tls") is None


def test_an_authority_with_the_key_of_another_counts_as_none(first):
    other = encoded(make_authority(START, LIFETIMES))
    assert _authority(encoded(first.current) | {"tls.key": other["tls.key"]}, "tls") is None


def encoded(authority):
    return {
        f"tls.{name}": base64.b64encode(part).decode()
        for name, part in (("crt", authority.certificate), ("key", authority.key))
    }
