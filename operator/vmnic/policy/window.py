"""When VMs may be restarted: a cron schedule that opens a window, and how long it stays open."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from ..api.common import seconds_of
from ..api.policy import Window

__all__ = ["WindowError", "is_open"]

_FIELDS = 5
"""Minute to day of the week; with a sixth the first would be a second."""


class WindowError(ValueError):
    """A window cannot be understood; the message names field and remedy."""


def is_open(window: Window | None, now: datetime) -> bool:
    """Tell whether VMs may be restarted now; without a window always.

    It only looks at `now`, so a clock that jumps opens or closes the window at once and nothing is made up for.

    Raises:
        WindowError: schedule or time zone is none.
    """
    if window is None:
        return True
    opened = next(_openings_before(window, now))
    return now < opened.astimezone(UTC) + timedelta(seconds=seconds_of(window.duration))


def _openings_before(window: Window, now: datetime) -> CronSim:
    try:
        zone = ZoneInfo(window.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        # A directory of zones, such as America, is an OSError.
        raise WindowError(
            f"enforcement.window.timeZone {window.time_zone!r} is no time zone: say for example UTC or Asia/Tokyo"
        ) from error
    # The moment itself belongs to the window.
    moment = now.astimezone(zone).replace(second=0, microsecond=0) + timedelta(minutes=1)
    try:
        if len(window.schedule.split()) > _FIELDS:
            raise CronSimError("Wrong number of fields")
        return CronSim(window.schedule, moment, reverse=True)
    except CronSimError as error:
        raise WindowError(
            f"enforcement.window.schedule {window.schedule!r} is no cron expression of five fields ({error}), as 0 2 * * * is"
        ) from error
