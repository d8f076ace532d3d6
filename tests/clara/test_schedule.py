from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clara.errors import InvalidSettings
from clara.schedule import Schedule, schedule

MINUTE = timedelta(minutes=1)
BERLIN = "Europe/Berlin"

CHANGES = {
    "UTC": ["2026-03-29T01:00"],
    BERLIN: ["2026-03-29T01:00", "2026-10-25T01:00"],
    "America/New_York": ["2026-03-08T07:00", "2026-11-01T06:00"],
    "Australia/Lord_Howe": ["2026-04-04T15:00", "2026-10-03T15:30"],  # by half an hour
    "Antarctica/Troll": ["2026-03-29T01:00", "2026-10-25T01:00"],  # by two hours
    "Pacific/Apia": ["2011-12-30T10:00"],  # a whole day was left out
    "Asia/Kolkata": ["2026-03-29T01:00"],
}
"""Moments (UTC) at which clocks are changed."""


def made(expression: str, zone: str = "UTC") -> Schedule:
    found = schedule(expression, zone)
    assert found
    return found


def at(moment: str) -> datetime:
    return datetime.fromisoformat(moment).replace(tzinfo=UTC)


def due_between(night: Schedule, start: datetime, end: datetime) -> list[datetime]:
    return list(takewhile(lambda due: due <= end, night.due_after(start)))


zones = st.sampled_from(sorted(CHANGES))


@st.composite
def near_a_change(draw: st.DrawFn, zone: str) -> datetime:
    """A moment within two days of one at which the zone's clocks are changed."""
    change = at(draw(st.sampled_from(CHANGES[zone])))
    return change + timedelta(seconds=draw(st.integers(-2 * 86400, 2 * 86400)))


def numbers(most: int) -> st.SearchStrategy[set[int]]:
    return st.sets(st.integers(0, most), min_size=1, max_size=3)


times = st.tuples(numbers(59), numbers(23))
expressions = st.one_of(
    times.map(lambda t: f"{','.join(map(str, t[0]))} {','.join(map(str, t[1]))} * * *"),
    st.sampled_from(
        ["* * * * *", "*/7 * * * *", "30 1-3 * * *", "0 */2 * * *", "15 2 * * 0", "0 0 1,30 * *"]
    ),
)


def by_the_clock(
    minutes: set[int], hours: set[int], zone: str, start: datetime, end: datetime
) -> list[datetime]:
    """The slow way: look at a wall clock every minute, and at what it jumps over."""
    due, told = [], (start - MINUTE).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    moment = start
    while moment <= end:
        wall = moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        shown = [told + step * MINUTE for step in range(1, (wall - told) // MINUTE + 1)]
        if any(local.minute in minutes and local.hour in hours for local in shown):
            due.append(moment)
        told = max(told, wall)
        moment += MINUTE
    return due


@given(data=st.data(), zone=zones, chosen=times)
def test_ticks_are_those_of_somebody_who_watches_the_clock(
    data: st.DataObject, zone: str, chosen: tuple[set[int], set[int]]
) -> None:
    minutes, hours = chosen
    start = (data.draw(near_a_change(zone)) - timedelta(hours=3)).replace(second=0)
    end = start + timedelta(hours=30)
    expression = f"{','.join(map(str, minutes))} {','.join(map(str, hours))} * * *"
    watched = by_the_clock(minutes, hours, zone, start - timedelta(hours=4), end)
    assert due_between(made(expression, zone), start - MINUTE, end) == [
        moment for moment in watched if moment >= start
    ]


@given(data=st.data(), zone=zones, expression=expressions)
def test_ticks_grow_and_no_local_minute_has_two(
    data: st.DataObject, zone: str, expression: str
) -> None:
    start = data.draw(near_a_change(zone))
    ticks = list(islice(made(expression, zone).due_after(start), 150))
    assert all(one < other for one, other in pairwise([start, *ticks]))
    local = [tick.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for tick in ticks]
    assert len(set(local)) == len(local)


@given(data=st.data(), zone=zones, expression=expressions)
def test_no_tick_is_lost_whenever_somebody_looks(
    data: st.DataObject, zone: str, expression: str
) -> None:
    night = made(expression, zone)
    looks = sorted(data.draw(st.lists(near_a_change(zone), min_size=2, max_size=6)))
    seen = night.last_due(looks[0])
    assert seen
    for look in looks[1:]:
        passed = due_between(night, seen, look)
        newest = night.last_due(look)
        assert newest == (passed[-1] if passed else seen)
        assert newest <= look
        seen = newest


def test_a_tick_that_is_left_out_comes_when_the_clock_jumps() -> None:
    night = made("30 2 * * *", BERLIN)
    assert list(islice(night.due_after(at("2026-03-28T12:00")), 2)) == [
        at("2026-03-29T01:00"),  # 03:00, where the clock was put forward
        at("2026-03-30T00:30"),
    ]


def test_a_tick_that_happens_twice_counts_at_its_first_time() -> None:
    night = made("30 2 * * *", BERLIN)
    assert list(islice(night.due_after(at("2026-10-24T12:00")), 2)) == [
        at("2026-10-25T00:30"),
        at("2026-10-26T01:30"),
    ]
    assert night.last_due(at("2026-10-25T01:15")) == at("2026-10-25T00:30")


def test_a_tick_is_due_in_its_own_minute_and_not_before() -> None:
    night = made("0 2 * * *")
    assert night.last_due(at("2026-11-23T02:00")) == at("2026-11-23T02:00")
    assert night.last_due(at("2026-11-23T01:59:59.999999")) == at("2026-11-22T02:00")
    assert next(night.due_after(at("2026-11-23T02:00"))) == at("2026-11-24T02:00")


def test_an_empty_expression_is_never() -> None:
    assert schedule("  ", "UTC") is None


def test_white_space_makes_no_other_schedule() -> None:
    assert made(" 0  2 * * * ").name == made("0 2 * * *").name == "0 2 * * * UTC"


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("0 2 * *", "4 fields"),
        ("0 0 2 * * *", "6 fields"),
        ("60 2 * * *", "minute"),
        ("0 2 * * DAY", "day-of-week"),
        ("0 2 30 2 *", "day-of-month"),
        ("0 2 */20 * 1L", "no such minute"),
    ],
)
def test_an_expression_that_cannot_be_is_refused_by_name(expression: str, why: str) -> None:
    with pytest.raises(InvalidSettings, match=why) as caught:
        schedule(expression, "UTC")
    assert caught.value.field == "CLARA_NIGHTLY"


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "Europe", "../../etc/passwd", "/etc/passwd"])
def test_a_zone_that_is_none_is_refused_by_name(zone: str) -> None:
    with pytest.raises(InvalidSettings, match="time zone") as caught:
        schedule("0 2 * * *", zone)
    assert caught.value.field == "CLARA_NIGHTLY_ZONE"
