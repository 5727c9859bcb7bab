"""Effort by cell: hours across midnight and months, what has no clock, and the cell of a detection."""

import pytest

from serving.detections import DETECTION_COLUMNS
from serving.effort import cell_of, hours_of, period, read_effort, without_gaps
from serving.results import Detected


def row(recorded_at: str, seconds: str = "3600", windows: str = "720", site: str = "pond") -> dict[str, str]:
    return {"site": site, "recorded_at": recorded_at, "seconds_analysed": seconds, "windows": windows}


def test_a_recording_across_midnight_counts_in_both_days_by_its_seconds() -> None:
    found = read_effort([row("2026-05-14T23:45:00")], "day")
    assert [(cell, each.seconds, each.windows) for cell, each in found.items()] == [
        (("pond", "2026-05-14"), 900.0, 180.0),
        (("pond", "2026-05-15"), 2700.0, 540.0),
    ]


def test_hours_and_weeks_are_those_of_the_recorders_clock() -> None:
    rows = [row("2026-05-14T05:50:00+02:00", "1200")]
    assert {cell: each.seconds for cell, each in read_effort(rows, "hour").items()} == {
        ("pond", "2026-05-14T05"): 600.0,
        ("pond", "2026-05-14T06"): 600.0,
    }
    assert list(read_effort(rows, "week")) == [("pond", "2026-W20")]
    assert period("2027-01-01T00:00:00", "week") == "2026-W53"


def test_a_date_alone_has_a_day_and_no_hour_and_no_date_has_neither() -> None:
    assert list(read_effort([row("2026-05-14")], "day")) == [("pond", "2026-05-14")]
    assert list(read_effort([row("2026-05-14")], "hour")) == list(read_effort([row("")], "day")) == [("pond", "")]
    assert list(hours_of(row("no time", "60"))) == [("", 60.0)]


def test_what_was_not_analysed_is_no_effort() -> None:
    assert read_effort([row("2026-05-14T05:00:00", "0", "0"), row("2026-05-14T05:00:00", "many")], "day") == {}


def test_a_recording_that_is_silent_for_a_while_has_effort_in_all_its_hours() -> None:
    """An hour of silence before midnight, an hour of sound behind it: what is found there has hours beside it."""
    half = row("2026-05-14T23:00:00") | {"seconds_silent": "3000", "seconds_skipped": "600"}
    assert {cell: (each.seconds, each.windows) for cell, each in read_effort([half], "day").items()} == {
        ("pond", "2026-05-14"): (1800.0, 360.0),
        ("pond", "2026-05-15"): (1800.0, 360.0),
    }


def test_seconds_are_neither_lost_nor_counted_twice() -> None:
    rows = [row(f"2026-05-{day:02}T2{day % 4}:17:00", f"{day * 1000}", "100") for day in range(1, 20)]
    for by in ("hour", "day", "week"):
        found = read_effort(rows, by)
        assert sum(each.seconds for each in found.values()) == pytest.approx(190_000)
        assert sum(each.windows for each in found.values()) == pytest.approx(1900)


def test_a_detection_lies_where_it_was_made_not_where_its_recording_began() -> None:
    cells = {"Site": "pond", "Recorded at": "2026-05-14T23:59:00", "Detected at": "2026-05-15T00:01:00"}
    late = Detected(tuple(cells.get(name, "") for name in DETECTION_COLUMNS), 120, 125, 0.5)
    assert cell_of(late, "day") == ("pond", "2026-05-15") and cell_of(late, "hour") == ("pond", "2026-05-15T00")
    dated = {"Site": "pond", "Recorded at": "2026-05-14"}
    early = Detected(tuple(dated.get(name, "") for name in DETECTION_COLUMNS), 120, 125, 0.5)
    assert cell_of(early, "day") == ("pond", "2026-05-14") and cell_of(early, "hour") == ("pond", "")


def test_days_and_weeks_without_a_recording_are_gaps_and_a_wrong_clock_makes_no_century_of_them() -> None:
    assert without_gaps({"2026-05-01", "2026-05-04"}) == [f"2026-05-0{day}" for day in range(1, 5)]
    assert without_gaps({"2026-W01", "2025-W51"}) == ["2025-W51", "2025-W52", "2026-W01"]
    assert without_gaps({"2026-05-01", "1970-01-01"}) == ["1970-01-01", "2026-05-01"] and without_gaps(set()) == []
