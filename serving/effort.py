"""How much was analysed where and when, and what was detected there: the cells that are counted.

    effort = read_effort(results.files, by="day")          # (site, period) -> seconds and windows
    place = cell_of(results.detections[0], by="day")       # ("pond", "2026-05-14")

Reads    nothing: rows of files.csv and detections.csv as serving.results has them

A period is an hour, a day or a week as the recorder's clock has it: 2026-05-14T05, 2026-05-14, 2026-W20. A recording
across midnight counts in both days, by its seconds. Where no clock is known the period is blank.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from archive.index import iso_time
from archive.recordings import is_number
from config import Period
from serving.results import SITE, Detected

LONGEST_SECONDS = 7 * 86_400  # of a recording, in the count of hours
MOST = 1_100  # days or weeks in a picture
DAY, HOUR = 10, 13  # characters of an ISO time

Cell = tuple[str, str]  # site, period


@dataclass
class Effort:
    """What was analysed in a cell."""

    seconds: float = 0.0
    windows: float = 0.0


def read_effort(files: Sequence[Mapping[str, str]], by: Period) -> dict[Cell, Effort]:
    """Seconds and windows of each cell, in their order; the windows of a recording are spread over its seconds."""
    found: dict[Cell, Effort] = {}
    for row in files:
        seconds, windows = number_in_cell(row.get("seconds_analysed", "")), number_in_cell(row.get("windows", ""))
        for moment, here in hours_of(row):
            effort = found.setdefault((row.get("site", ""), period(moment, by)), Effort())
            effort.seconds += here
            effort.windows += windows * here / seconds if seconds else 0.0
    return dict(sorted(found.items()))


def cell_of(d: Detected, by: Period) -> Cell:
    """Where and when a detection was made."""
    return d.cells[SITE], period(d.cell("Detected at") or d.cell("Recorded at")[:DAY], by)


def period(moment: str, by: Period) -> str:
    """The period of an ISO time; blank where it says too little: a date alone has no hour."""
    if not re.match(r"\d{4}-\d\d-\d\d", moment):
        return ""
    if by == "hour":
        return moment[:HOUR].replace(" ", "T") if re.match(r".{10}[T ]\d\d", moment) else ""
    if by == "day":
        return moment[:DAY]
    day = iso_time(moment[:DAY])
    year, week, _ = date.fromisoformat(day).isocalendar() if day else (0, 0, 0)
    return f"{year}-W{week:02}" if day else ""


def last_day(period: str) -> str:
    """The day on which a period ends, ISO 8601: of a week its Sunday."""
    week = re.fullmatch(r"(\d{4})-W(\d\d)", period)
    return date.fromisocalendar(int(week[1]), int(week[2]), 7).isoformat() if week else period[:DAY]


def without_gaps(periods: Collection[str]) -> list[str]:
    """All days, or all weeks, from the first to the last of some: one without a recording is a gap to be seen.

    Where a wrong clock would make more than MOST of them, those that there are.
    """
    ends = sorted({last_day(name) for name in periods})
    if not ends:
        return []
    by: Period = "week" if "W" in min(periods) else "day"
    first, step = date.fromisoformat(ends[0]), 7 if by == "week" else 1
    count = (date.fromisoformat(ends[-1]) - first).days // step + 1
    every = (first + timedelta(days=step * number) for number in range(count))
    return [period(day.isoformat(), by) for day in every] if count <= MOST else sorted(periods)


def hours_of(row: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    """The hours in which a recording was made, ISO 8601, each with the seconds analysed in it.

    A recording whose beginning is not known is one of no time, one of which the date is known lies in that day. What
    was not analysed, without sound or with voices, is taken to lie everywhere in it: no table says where it is.
    """
    begin = iso_time(row.get("recorded_at", "")[:DAY], row.get("recorded_at", "")[11:19])
    analysed = number_in_cell(row.get("seconds_analysed", ""))
    left = min(seconds_read(row), LONGEST_SECONDS) if analysed > 0 else 0.0
    part = analysed / max(seconds_read(row), 1e-9)
    if "T" not in begin:
        if left > 0:
            yield begin, left * part
        return
    now = datetime.fromisoformat(begin)
    while left > 0:
        until = now.replace(minute=0, second=0) + timedelta(hours=1)
        here = min(left, (until - now).total_seconds())
        yield now.isoformat()[:HOUR], here * part
        now, left = until, left - here


def seconds_read(row: Mapping[str, str]) -> float:
    """Of a recording, scored or not."""
    return sum(number_in_cell(row.get(f"seconds_{name}", "")) for name in ("analysed", "silent", "skipped"))


def number_in_cell(cell: str) -> float:
    """A number; what is none counts as nothing."""
    return float(cell) if is_number(cell) else 0.0


if __name__ == "__main__":
    night = {"site": "pond", "recorded_at": "2026-05-14T23:30:00", "seconds_analysed": "3600", "windows": "720"}
    efforts = read_effort([night, {"site": "pond", "seconds_analysed": "60", "windows": "12"}], "day")
    for (site, when), effort in efforts.items():
        print(f"{site} {when or 'some time':10} {effort.seconds / 3600:.2f} h, {effort.windows:g} windows")
    assert efforts["pond", "2026-05-14"].windows == efforts["pond", "2026-05-15"].windows == 360
