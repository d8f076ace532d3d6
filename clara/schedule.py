"""When a cron expression is due in a time zone: arithmetic, without a clock of its own.

An expression speaks of local minutes. Each is due once: one that happens twice, when clocks are put
back, at its first time; one that is left out, when they are put forward, at the minute they jump
to. So instants grow with local minutes, and none is lost or doubled by the change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from clara.errors import InvalidSettings

MINUTE = timedelta(minutes=1)
FIELDS = 5
"""Of an expression: minute, hour, day of the month, month, day of the week."""

_SOME_DAY = datetime(2024, 1, 1)


@dataclass(frozen=True)
class Schedule:
    """A cron expression in a time zone; both are right."""

    expression: str
    zone: ZoneInfo

    @property
    def name(self) -> str:
        """What tells it from other schedules: `0 2 * * * Europe/Berlin`."""
        return f"{self.expression} {self.zone.key}"

    def last_due(self, now: datetime) -> datetime | None:
        """The newest moment (UTC) that is not later than `now`; None where none was in 50 years."""
        wall = now.astimezone(self.zone)
        local = wall.replace(tzinfo=None, second=0, microsecond=0)
        # in a repeated hour, minutes that are to come once more have been due already
        start = local + max(_repeated(wall), timedelta()) + MINUTE
        for tick in CronSim(self.expression, start, reverse=True):
            if (due := self._instant(tick)) <= now:
                return due
        return None

    def due_after(self, moment: datetime) -> Iterator[datetime]:
        """Every moment (UTC) later than `moment`, in order, without an end."""
        start = moment.astimezone(self.zone).replace(tzinfo=None, second=0, microsecond=0)
        last = moment
        for tick in CronSim(self.expression, start):
            if (due := self._instant(tick)) > last:
                yield due
                last = due

    def _instant(self, tick: datetime) -> datetime:
        """When a local minute is due, in UTC."""
        while True:
            due = tick.replace(tzinfo=self.zone, fold=0).astimezone(UTC)
            if due.astimezone(self.zone).replace(tzinfo=None) == tick:
                return due
            tick += MINUTE  # it is left out


def schedule(expression: str, zone: str) -> Schedule | None:
    """The schedule of two settings; None where the expression is empty.

    Raises:
        InvalidSettings: the expression or the zone is none, or no such minute ever comes.
    """
    known = _zone(zone)
    fields = expression.split()
    return _checked(Schedule(" ".join(fields), known), len(fields)) if fields else None


def _checked(found: Schedule, fields: int) -> Schedule:
    if fields != FIELDS:
        raise _unreadable(found.expression, f"it has {fields} fields")
    try:
        ticks = CronSim(found.expression, _SOME_DAY)
    except CronSimError as error:
        raise _unreadable(found.expression, str(error)) from error
    if next(ticks, None) is None:
        raise _unreadable(found.expression, "no such minute ever comes")
    return found


def _zone(named: str) -> ZoneInfo:
    try:
        return ZoneInfo(named)
    except (KeyError, ValueError, OSError) as error:
        raise InvalidSettings(
            f"no time zone is named {named!r}",
            field="CLARA_NIGHTLY_ZONE",
            remedy="Name one of the IANA database, such as `UTC` or `Europe/Berlin`.",
        ) from error


def _unreadable(expression: str, why: str) -> InvalidSettings:
    return InvalidSettings(
        f"{expression!r} is no cron expression: {why}",
        field="CLARA_NIGHTLY",
        limit=FIELDS,
        remedy="Give minute, hour, day of the month, month and day of the week, such as "
        "`0 2 * * *` for two o'clock every night; or leave it empty for never.",
    )


def _repeated(wall: datetime) -> timedelta:
    """How much time comes twice, where this is its second time or its first; else nothing."""
    first, second = (wall.replace(fold=fold).utcoffset() for fold in (0, 1))
    return first - second if first is not None and second is not None else timedelta()
