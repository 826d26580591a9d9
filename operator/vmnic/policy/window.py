"""Maintenance windows, in which VMs may be restarted.

A cron schedule opens the window, and a duration closes it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from ..api.common import seconds_of
from ..api.policy import Window

__all__ = ["WindowError", "is_open"]

_FIELDS = 5
"""Minute to day of the week. With a sixth field the first would be seconds."""


class WindowError(ValueError):
    """A window is malformed. The message names field and remedy."""


def is_open(window: Window | None, now: datetime) -> bool:
    """Return whether VMs may be restarted now. Without a window they always may.

    Only `now` counts, so a clock that jumps opens or closes the window at once, and a missed window is not made up for.

    Raises:
        WindowError: schedule or time zone is malformed.
    """
    if window is None:
        return True
    opened = next(_openings_before(window, now))
    # Adding to a local time counts hours on the clock, which is an hour wrong when summer time begins or ends in the window.
    return now < opened.astimezone(UTC) + timedelta(seconds=seconds_of(window.duration))


def _openings_before(window: Window, now: datetime) -> CronSim:
    try:
        zone = ZoneInfo(window.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        # Opening a directory of zones, such as America, raises an OSError.
        raise WindowError(
            f"enforcement.window.timeZone {window.time_zone!r} is no time zone: say for example UTC or Asia/Tokyo"
        ) from error
    # A window that opens in this minute is already open, hence one minute more.
    moment = now.astimezone(zone).replace(second=0, microsecond=0) + timedelta(minutes=1)
    try:
        if len(window.schedule.split()) > _FIELDS:
            raise CronSimError("Wrong number of fields")
        return CronSim(window.schedule, moment, reverse=True)
    except CronSimError as error:
        raise WindowError(
            f"enforcement.window.schedule {window.schedule!r} is no cron expression of five fields ({error}), as 0 2 * * * is"
        ) from error
