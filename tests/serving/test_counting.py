"""Cells and strata of a species, what is said of them, and what a plan asks for."""

import numpy as np
import pytest

from serving.counting import (
    ALL_SITES,
    LEAST,
    drawn_windows,
    planned,
    species_rows,
    strata_of,
    stratum,
)
from serving.detections import DETECTION_COLUMNS
from serving.effort import Cell, Effort
from serving.results import Detected
from serving.review import Verdict

EFFORT: dict[Cell, Effort] = {
    ("pond", "2026-05-14"): Effort(3600.0, 720.0),
    ("pond", "2026-05-15"): Effort(3600.0, 720.0),
    ("wood", "2026-05-14"): Effort(1800.0, 360.0),
}


def frog(confidence: float, number: int, site: str = "pond", day: int = 14) -> Detected:
    cells = {"Species code": "frog", "Site": site, "Detected at": f"2026-05-{day}T05:00:00", "File": "a.wav"}
    return Detected(
        tuple(cells.get(name, "") for name in DETECTION_COLUMNS), 5.0 * number, 5.0 * number + 5, confidence
    )


def judged(found: list[Detected], answer: str) -> dict[Detected, Verdict]:
    return {d: Verdict(d, answer, "", "Ada") for d in found}


def test_strata_are_tenths_and_a_window_without_a_detection_is_in_none_of_them() -> None:
    assert [stratum(frog(share, 0)) for share in (0.05, 0.1, 0.3, 0.99, 1.0, 0.0)] == [0, 1, 3, 9, 9, -1]


def test_windows_are_counted_where_they_are_and_days_without_any_are_there_too() -> None:
    found = [frog(0.55, 0), frog(0.56, 1), frog(0.95, 2, "wood")]
    species = strata_of(found, judged(found[:1], "yes"), EFFORT, "day")
    assert species.cells == tuple(EFFORT) and species.detections.tolist() == [2, 0, 1]
    assert species.strata.windows.tolist() == [[2, 0], [0, 0], [0, 1]]
    assert species.strata.yes.tolist() == [[1, 0], [0, 0], [0, 0]] and not species.missed


def test_what_was_listened_to_below_brings_all_windows_in() -> None:
    found = [frog(0.55, 0), frog(0.0, 1)]
    species = strata_of(found, judged(found[1:], "no"), EFFORT, "day")
    assert species.missed and species.strata.windows.tolist() == [[719, 1], [720, 0], [360, 0]]
    assert species.strata.no.tolist() == [[1, 0], [0, 0], [0, 0]]


def test_a_season_whose_detections_were_all_listened_to_is_known() -> None:
    found = [frog(0.15 + 0.05 * number, number, "pond", 14 + number // 10) for number in range(16)]
    verdicts = judged(found[:6], "yes") | judged(found[6:], "no")
    cells, sites = species_rows(strata_of(found, verdicts, EFFORT, "day"), EFFORT, 0, "frog")
    rows = {(row.site, row.period): row for row in cells}
    assert rows["pond", "2026-05-14"].density == pytest.approx((6 / 720,) * 3)
    assert rows["pond", "2026-05-14"].presence == (1.0, 1.0, 1.0)
    assert rows["pond", "2026-05-15"].presence == rows["wood", "2026-05-14"].presence == (0.0, 0.0, 0.0)
    assert [row.site for row in sites] == ["pond", "wood", ALL_SITES]
    whole = sites[-1]
    assert whole.density == pytest.approx((6 / 1800,) * 3) and whole.presence == pytest.approx((1 / 3,) * 3)
    assert (whole.hours, whole.windows, whole.detections, whole.listened) == (2.5, 1800, 16, 16)
    assert whole.counted == "detections"


def test_with_too_few_verdicts_nothing_is_said() -> None:
    found = [frog(0.15 + 0.05 * number, number) for number in range(16)]
    few = strata_of(found, judged(found[: LEAST - 1], "yes"), EFFORT, "day")
    assert {(row.density, row.counted) for row in species_rows(few, EFFORT, 0, "frog")[0]} == {
        (None, f"{LEAST - 1} verdicts, {LEAST} are needed")
    }
    enough = strata_of(found, judged(found[:LEAST], "yes"), EFFORT, "day")
    assert species_rows(enough, EFFORT, 0, "frog")[1][-1].density is not None


def test_without_effort_there_are_detections_and_their_share_alone() -> None:
    found = [frog(0.95, number) for number in range(20)]
    cells, _ = species_rows(strata_of(found, judged(found, "yes"), {}, "day"), {}, 0, "frog")
    assert [(row.hours, row.windows, row.density) for row in cells] == [(0.0, 20, (1.0, 1.0, 1.0))]


def test_a_plan_asks_for_more_where_more_is_undecided_and_for_narrower_intervals() -> None:
    found = [frog(0.55, number) for number in range(500)] + [frog(0.95, number) for number in range(500, 1000)]
    species = strata_of(found, {}, EFFORT, "day")
    wide, narrow = planned(species, 0.2), planned(species, 0.1)
    assert wide[0] > wide[1] and 3 < narrow.sum() / wide.sum() < 4.5
    sharper = planned(strata_of(found, judged(found[:40], "yes"), EFFORT, "day"), 0.1)
    assert sharper[0] < narrow[0] - 40, "forty times Yes: little is undecided there"


def test_a_plan_gives_the_width_that_was_wished() -> None:
    """Listened to as planned, the interval is about so wide."""
    generator = np.random.default_rng(0)
    found = [frog(float(share), number) for number, share in enumerate(generator.uniform(0.1, 1, 3000))]
    species = strata_of(found, {}, EFFORT, "day")
    wanted = dict(enumerate(map(int, planned(species, 0.1)), 1))
    chosen = [found[index] for index in drawn_windows(found, {}, wanted, generator)]
    verdicts = {d: Verdict(d, "yes" if generator.random() < d.confidence else "no", "", "") for d in chosen}
    assert len(verdicts) == sum(wanted.values())
    rows = species_rows(strata_of(found, verdicts, {}, "day"), {}, 0, "frog")[1]
    density = rows[-1].density
    assert density is not None and 0.06 < density[2] - density[1] < 0.12


def test_only_what_nobody_listened_to_is_drawn() -> None:
    found = [frog(0.55, number) for number in range(10)] + [frog(0.95, 10)]
    drawn = drawn_windows(found, set(found[:8]), {5: 4, 9: 4}, np.random.default_rng(0))
    assert drawn == [10, 8, 9] or drawn == [10, 9, 8]
