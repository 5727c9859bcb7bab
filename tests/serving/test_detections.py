"""What counts as a detection, at which rank, and which windows belong together: numbers that can be checked by hand."""

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from runtime.cells import plain_path, seconds, write_scores
from serving.detections import (
    KERNEL,
    Choices,
    Detection,
    Scored,
    averaged_shifts,
    clock_text,
    clock_time,
    detect,
    detection_lines,
    join,
    smoothed,
    weighted_by_file,
)
from taxonomy import Taxonomy

RANKS = ("Animalia", "Chordata", "Amphibia", "Anura", "Fictidae", "Rana")
THREE = Taxonomy(
    ("126247", "126248", "greani1"),
    ("Rana ficta", "Rana falsa", "Ara ficta"),
    ("frog", "toad", "great ani"),
    (
        (*RANKS, "Rana ficta"),
        (*RANKS, "Rana falsa"),
        ("Animalia", "Chordata", "Aves", "Ficti", "F", "Ara", "Ara ficta"),
    ),
    (7, 7, 7),
)
ALL = Choices(np.full(3, 0.25, np.float32), np.ones(3, np.bool_))


def scored(*rows: tuple[float, float, float]) -> Scored:
    starts = [5.0 * i for i in range(len(rows))]
    ends = [min(5.0 * i + 5.0, 7.3) for i in range(len(rows))]
    return Scored(starts, ends, np.array(rows, np.float32).reshape(-1, 3), np.zeros((len(rows), 0), np.float32))


def test_a_probability_at_the_threshold_is_a_detection_and_a_lower_one_is_none() -> None:
    found = detect(scored((0.9, 0.1, 0.1), (0.2499, 0.25, 0.1)), THREE, ALL)
    assert [(d.start, d.end, d.label, d.threshold) for d in found] == [
        (0.0, 5.0, "126247", 0.25),
        (5.0, 7.3, "126248", 0.25),
    ]


def test_the_surest_species_of_a_window_comes_first_with_those_behind_it() -> None:
    found = detect(scored((0.3, 0.8, 0.1)), THREE, ALL)
    assert [d.label for d in found] == ["126248", "126247"]
    assert [d.runners_up for d in found] == ["126247 0.30, greani1 0.10", "126248 0.80, greani1 0.10"]


def test_every_species_has_its_own_threshold() -> None:
    choices = replace(ALL, thresholds=np.array([0.9, 0.2, 0.5], np.float32))
    assert [d.label for d in detect(scored((0.8, 0.3, 0.5)), THREE, choices)] == ["greani1", "126248"]


def test_a_species_that_is_not_wanted_is_neither_found_nor_named() -> None:
    found = detect(scored((0.9, 0.8, 0.7)), THREE, replace(ALL, wanted=np.array([False, True, True])))
    assert [d.label for d in found] == ["126248", "greani1"] and "126247" not in found[0].runners_up


def test_the_surest_few_are_kept_on_request() -> None:
    choices = Choices(np.zeros(3, np.float32), np.ones(3, np.bool_), top=1)
    assert [d.label for d in detect(scored((0.01, 0.02, 0.0), (0.0, 0.0, 0.1)), THREE, choices)] == [
        "126248",
        "greani1",
    ]


def test_where_no_species_is_sure_the_genus_answers_and_only_there() -> None:
    choices = replace(ALL, thresholds=np.full(3, 0.6, np.float32), ranks={"genus": 0.6, "class": 0.6})
    found = detect(scored((0.5, 0.5, 0.1), (0.9, 0.5, 0.1), (0.2, 0.1, 0.1)), THREE, choices)
    assert [(d.start, d.label) for d in found] == [(0.0, "genus Rana"), (5.0, "126247")]
    assert found[0].confidence == pytest.approx(0.75) and found[0].threshold == 0.6  # 1 - 0.5 * 0.5
    assert found[0].scientific_name == "Rana" and found[0].runners_up == "126247 0.50, 126248 0.50"
    assert not detect(scored((0.5, 0.5, 0.1)), THREE, replace(choices, ranks={}))  # negative control


def test_a_species_below_its_own_threshold_leaves_the_answer_to_its_genus() -> None:
    choices = replace(ALL, thresholds=np.full(3, 0.8, np.float32), ranks={"genus": 0.6, "species": 0.65})
    (found,) = detect(scored((0.7, 0.3, 0.0)), THREE, choices)
    assert found.label == "genus Rana" and found.confidence == pytest.approx(0.79)  # 1 - 0.3 * 0.7
    assert [found] == detect(scored((0.7, 0.3, 0.0)), THREE, replace(choices, ranks={"genus": 0.6}))
    assert not detect(scored((0.7, 0.3, 0.0)), THREE, replace(choices, ranks={"species": 0.65}))  # negative control


def test_a_detection_knows_its_clock_time_where_the_recording_does() -> None:
    rows = scored((0.9, 0.0, 0.0), (0.9, 0.0, 0.0))
    assert [d.detected_at for d in detect(rows, THREE, ALL, "2026-05-14T23:59:58+02:00")] == [
        "2026-05-14T23:59:58+02:00",
        "2026-05-15T00:00:03+02:00",
    ]
    assert clock_time("2026-05-14", 5.0) == "" == clock_time("", 5.0)  # a date alone is no time
    assert clock_time("2026-05-14T05:30:00", 2.5) == "2026-05-14T05:30:02.500"


def column(*values: float, without: Sequence[int] = ()) -> Scored:
    """One species in windows of 5 s, some of which were left out."""
    kept = [number for number in range(len(values)) if number not in without]
    rows = np.array([[values[number]] for number in kept], np.float32).reshape(-1, 1)
    starts = [5.0 * number for number in kept]
    return Scored(starts, [start + 5 for start in starts], rows, np.zeros((len(kept), 0), np.float32))


def test_neighbours_are_averaged_and_the_ends_lose_nothing() -> None:
    one = smoothed(column(0, 0, 0, 0, 1, 0, 0, 0, 0), 5.0).probabilities
    np.testing.assert_allclose(one[2:7, 0], KERNEL, atol=1e-6)
    np.testing.assert_allclose(smoothed(column(*[0.3] * 7), 5.0).probabilities, 0.3, atol=1e-6)
    two = smoothed(column(0.6, 0.2), 5.0).probabilities
    np.testing.assert_allclose(two[0], (0.4 * 0.6 + 0.2 * 0.2) / 0.6, atol=1e-6)
    for count in (0, 1):
        assert smoothed(column(*[0.5] * count), 5.0).probabilities.shape == (count, 1)


def test_windows_beside_one_that_was_left_out_are_no_neighbours() -> None:
    """A silent hour between two calls moves them together in the table, and not in time."""
    far = smoothed(column(0.8, 0, 0, 0, 0.2, without=(1, 2, 3)), 5.0).probabilities
    np.testing.assert_allclose(far[:, 0], [0.8, 0.2], atol=1e-6)
    near = smoothed(column(0.8, 0, 0.2, without=(1,)), 5.0).probabilities
    np.testing.assert_allclose(near[:, 0], np.array([0.34, 0.16]) / 0.5, atol=1e-6)
    base, shifted = column(0.4, 0, 0.2, without=(1,)), column(0.9, 0.5, without=(0,))
    values = averaged_shifts(base, shifted, 5.0).probabilities[:, 0]
    np.testing.assert_allclose(values, [0.4, (0.4 + 0.5) / 3], atol=1e-6)


def test_a_recording_with_a_sure_window_lifts_its_others_above_those_of_one_without() -> None:
    weighted = weighted_by_file(np.array([[0.9, 0.2], [0.5, 0.1]], np.float32))
    np.testing.assert_allclose(weighted, [[0.81, 0.04], [0.45, 0.02]], atol=1e-6)
    assert weighted_by_file(np.zeros((0, 2), np.float32)).shape == (0, 2)


def test_shifted_windows_count_half() -> None:
    base, shifted = column(0.4, 0.8, 0.2), column(0.1, 0.5)
    values = averaged_shifts(base, shifted, 5.0).probabilities[:, 0]
    np.testing.assert_allclose(values, [(0.8 + 0.1) / 3, (1.6 + 0.1 + 0.5) / 4, (0.4 + 0.5) / 3], atol=1e-6)
    np.testing.assert_array_equal(averaged_shifts(base, column(), 5.0).probabilities, base.probabilities)


def test_windows_of_a_species_and_channel_join_as_far_as_the_gap_allows() -> None:
    frog = Detection(0.0, 5.0, "41", "Rana ficta", "frog", 0.5, 0.25)
    later = [replace(frog, start=s, end=s + 5.0, confidence=c) for s, c in ((5.0, 0.9), (13.0, 0.4), (30.0, 0.3))]
    other = [replace(frog, label="42"), replace(frog, start=5.0, end=10.0, channel=2)]
    events = join([*later, frog, *other], gap=3.0)
    told = sorted((e.label, e.channel, e.start, e.end, e.windows, round(e.confidence, 3)) for e in events)
    assert told == [
        ("41", 0, 0.0, 18.0, 3, 0.9),
        ("41", 0, 30.0, 35.0, 1, 0.3),
        ("41", 2, 5.0, 10.0, 1, 0.5),
        ("42", 0, 0.0, 5.0, 1, 0.5),
    ]
    assert [e.mean_confidence for e in events if e.windows == 3] == [pytest.approx(0.6)]
    assert len(join([frog, *later], gap=2.9)) == 3 and len(join([frog, *later], gap=0.0)) == 3  # negative controls


@pytest.mark.parametrize("name", ["=cmd.wav", "+1.wav", "-x.wav", "@a.wav", "\n.wav"])
def test_no_path_is_taken_for_a_formula(name: str) -> None:
    assert plain_path(name) == f"./{name}" and plain_path(f"a/{name}") == f"a/{name}"


def test_scores_are_written_with_six_digits() -> None:
    file = io.StringIO(newline="")
    one = scored((0.1234567, 1e-7, 1.0))
    write_scores(file, "=a.wav", one.starts, one.ends, one.probabilities)
    assert file.getvalue() == "./=a.wav,0,5,0.123457,1e-07,1\n"


def test_seconds_and_clocks_are_written_as_people_read_them() -> None:
    assert [seconds(x) for x in (5.0, 2.5, 0.0625, 606.7000000000694, 100.0)] == ["5", "2.5", "0.0625", "606.7", "100"]
    assert [clock_text(x) for x in (0.0, 75.0, 59.99, 3725.25)] == ["0:00.0", "1:15.0", "1:00.0", "1:02:05.2"]


def test_a_long_listing_says_what_it_leaves_out() -> None:
    one = Detection(0.0, 5.0, "x", "Rana ficta", "frog", 0.9, 0.25)
    lines = detection_lines([one] * 12, limit=10)
    assert len(lines) == 11 and lines[-1] == "... and 2 more" and "frog (Rana ficta)" in lines[0]
