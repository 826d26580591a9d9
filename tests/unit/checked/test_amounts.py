"""Numbers written as a number or as a percentage, and times."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from vmnic.checked.amounts import resolve_percentage
from vmnic.checked.moments import format_time


@pytest.mark.parametrize(
    ("wanted", "total", "up", "down"),
    [(3, 20, 3, 3), ("10%", 20, 2, 2), ("11%", 20, 3, 2), ("1%", 20, 1, 0), ("100%", 7, 7, 7), ("0%", 7, 0, 0)],
)
def test_a_percentage_is_rounded_up_or_down(wanted, total, up, down):
    found = [resolve_percentage(wanted, total, round_up=way) for way in (True, False)]
    assert found == [up, down]


def test_a_time_is_written_in_utc_and_whole_seconds():
    moment = datetime(2026, 1, 1, 2, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=2)))
    assert format_time(moment) == format_time(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00Z"
