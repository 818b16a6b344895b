"""Dates as Elasticsearch reads them in a filter: ISO 8601 with missing parts, epoch milliseconds, and date math.

Source: Elasticsearch reference, "Date math" and "Missing date components" of the range query.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Literal

Unit = Literal["y", "M", "w", "d", "h", "m", "s"]

_ISO = re.compile(
    r"(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d)"
    r"(?:[T ](?:(?P<hour>\d\d)(?::(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,9}))?)?)?)?"
    r"(?P<zone>Z|[+-]\d\d:?(?:\d\d)?)?)?)?)?"
)
_EPOCH_MILLISECONDS = re.compile(r"-?\d{5,}(?:\.\d+)?")
_MATH = re.compile(r"(?P<sign>[+-])(?P<count>\d*)(?P<unit>[yMwdhHms])|/(?P<rounding>[yMwdhHms])")
_TICK = timedelta(microseconds=1)


def date_bounds(text: str, now: datetime) -> tuple[datetime, datetime]:
    """The first and the last microsecond that `text` can mean, as naive UTC (so `2024-05` is the hours of its 1st).

    Raises ValueError when Elasticsearch would not read it either.
    """
    text = text.strip()
    if text.startswith("now"):
        earliest = latest = now
        math = text[len("now") :]
    else:
        anchor, _, math = text.partition("||")
        earliest, latest = _anchor_bounds(anchor)
    try:
        return _apply_math(earliest, math, round_up=False), _apply_math(latest, math, round_up=True)
    except OverflowError as exc:
        raise ValueError(f"date out of range: {text!r}") from exc


def _anchor_bounds(text: str) -> tuple[datetime, datetime]:
    if _EPOCH_MILLISECONDS.fullmatch(text):
        moment = datetime(1970, 1, 1) + timedelta(milliseconds=float(text))
        return moment, moment
    match = _ISO.fullmatch(text)
    if match is None:
        raise ValueError(f"not a date: {text!r}")
    part = match.groupdict()
    # Elasticsearch fills a missing month or day with 01 in both bounds, and a missing time with the end of the day.
    earliest = datetime(int(part["year"]), int(part["month"] or 1), int(part["day"] or 1))
    earliest += timedelta(
        hours=int(part["hour"] or 0),
        minutes=int(part["minute"] or 0),
        seconds=int(part["second"] or 0),
        microseconds=int((part["fraction"] or "0").ljust(6, "0")[:6]),
    )
    missing: dict[str, timedelta] = {"hour": timedelta(days=1), "minute": timedelta(hours=1)}
    missing |= {"second": timedelta(minutes=1), "fraction": timedelta(seconds=1)}
    span = next((width for name, width in missing.items() if part[name] is None), _TICK)
    offset = _utc_offset(part["zone"])
    return earliest - offset, earliest + span - _TICK - offset


def _utc_offset(zone: str | None) -> timedelta:
    if zone in (None, "Z"):
        return timedelta(0)
    digits = zone[1:].replace(":", "").ljust(4, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return -offset if zone[0] == "-" else offset


def _apply_math(moment: datetime, math: str, *, round_up: bool) -> datetime:
    position = 0
    while position < len(math):
        match = _MATH.match(math, position)
        if match is None:
            raise ValueError(f"not date math: {math!r}")
        position = match.end()
        if match["rounding"]:
            moment = _floor(moment, match["rounding"])
            if round_up:
                moment = _add(moment, 1, match["rounding"]) - _TICK
        else:
            count = int(match["count"] or 1)
            moment = _add(moment, count if match["sign"] == "+" else -count, match["unit"])
    return moment


def _add(moment: datetime, count: int, unit: str) -> datetime:
    if unit in "yM":
        months = moment.year * 12 + moment.month - 1 + count * (12 if unit == "y" else 1)
        first = moment.replace(year=months // 12, month=months % 12 + 1, day=1)
        following = first.replace(year=(months + 1) // 12, month=(months + 1) % 12 + 1)
        return first.replace(day=min(moment.day, (following - first).days))
    name = {"w": "weeks", "d": "days", "h": "hours", "H": "hours", "m": "minutes", "s": "seconds"}[unit]
    return moment + timedelta(**{name: count})


def _floor(moment: datetime, unit: str) -> datetime:
    if unit == "w":
        moment -= timedelta(days=moment.weekday())
    zeroed = {"microsecond": 0}
    for name, units in (("second", "mhHdwMy"), ("minute", "hHdwMy"), ("hour", "dwMy")):
        if unit in units:
            zeroed[name] = 0
    if unit in "My":
        zeroed["day"] = 1
    if unit == "y":
        zeroed["month"] = 1
    return moment.replace(**zeroed)


def utc_now() -> datetime:
    """The present moment the way Argilla stores it: naive UTC."""
    return datetime.now(timezone.utc).replace(tzinfo=None)
