"""Maintenance windows depend only on the clock."""

from datetime import UTC, datetime

import pytest

from vmnic.api.policy import Window
from vmnic.policy.window import WindowError, is_open

NIGHT = Window(schedule="0 2 * * *", duration="4h")
TOKYO = Window(schedule="0 2 * * *", duration="90m", time_zone="Asia/Tokyo")


def at(hour, minute=0, second=0, day=15):
    return datetime(2026, 3, day, hour, minute, second, tzinfo=UTC)


@pytest.mark.parametrize(
    ("window", "now", "open_"),
    [
        (None, at(12), True),
        (NIGHT, at(1, 59, 59), False),
        (NIGHT, at(2), True),
        (NIGHT, at(5, 59, 59), True),
        (NIGHT, at(6), False),
        (TOKYO, at(17), True),
        (TOKYO, at(18, 30), False),
        (TOKYO, at(2), False),
        (Window(schedule="0 22 * * *", duration="4h"), at(1), True),
    ],
    ids=["none", "before", "it opens", "still", "it has closed", "there", "there, closed", "not here", "over midnight"],
)
def test_a_window_opens_on_schedule_and_stays_for_its_duration(window, now, open_):
    assert is_open(window, now) is open_


@pytest.mark.parametrize(
    "window",
    [
        Window(schedule="never, ever"),
        Window(schedule="0 0 2 * * *"),
        Window(schedule="0 2 * * *", time_zone="Nowhere"),
        Window(schedule="0 2 * * *", time_zone="America"),
    ],
    ids=["schedule", "seconds", "zone", "a directory of zones"],
)
def test_the_error_of_a_malformed_window_names_its_field(window):
    with pytest.raises(WindowError, match=r"enforcement\.window\.(schedule|timeZone)"):
        is_open(window, at(1))
