"""What a classifier is worth: parts joined in order, figures by hand, files that say what they should."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation import (
    Calibration,
    Exam,
    WindowScores,
    calibrate,
    carried_over_ranks,
    examine,
    fit_rank_thresholds,
    joined,
    judged_entries,
    loudest_windows,
    pool_windows,
    rank_line,
    windows_without_species,
)
from ranks import rank_groups, rank_probabilities
from recordings import Recording
from taxonomy import Taxonomy

SPECIES = (("Aves", "Tit"), ("Aves", "Crow"), ("Amphibia", "Frog"), ("Insecta", "Cricket"))
LINEAGES = tuple(("Animalia", "?", name, f"{kin}ales", f"{kin}idae", kin, f"{kin} ficta") for name, kin in SPECIES)
BIRD = ("Animalia", "?", "Aves", "?o", "?f", "?g", "?s")
FOUR = Taxonomy(("t", "c", "f", "k"), tuple(x[-1] for x in LINEAGES), ("tit", "<b>", "=frog", ""), LINEAGES, (7,) * 4)
FIVE = Taxonomy((*FOUR.labels, "aves"), (*FOUR.scientific_names, "Aves"), (*FOUR.common_names, "bird"),
                (*LINEAGES, BIRD), (7, 7, 7, 7, 3))  # fmt: skip


def windows(owner: list[int], scores: NDArray[np.float32], seconds: float = 5.0) -> WindowScores:
    count = len(owner)
    return WindowScores(
        np.array(owner),
        np.zeros(count),
        np.full(count, seconds),
        scores,
        np.array(owner, np.float32)[:, None].repeat(2, axis=1),
    )


def recordings(count: int, fold: int = 0) -> list[Recording]:
    return [Recording(Path(f"{fold}-{n}.ogg"), f"{fold}-{n}.ogg", group=f"{n}", fold=fold) for n in range(count)]


def made_up(count: int = 160, sureness: float = 3.0, seed: int = 0) -> Exam:
    rng = np.random.default_rng(seed)
    heard = rng.integers(4, size=count)
    logits = 4 * np.eye(4)[heard] + 1.5 * rng.normal(size=(count, 4)) - 2
    scores = (1 / (1 + np.exp(-sureness * logits))).astype(np.float32)
    return Exam(recordings(count), np.eye(4, dtype=np.float32)[heard], windows(list(range(count)), scores), None)


def test_parts_are_joined_so_that_each_window_keeps_its_recording() -> None:
    scores = np.arange(8, dtype=np.float32).reshape(2, 4)
    parts = [
        Exam(
            recordings(2, fold),
            np.eye(4, dtype=np.float32)[:2],
            windows([1, 0], scores + fold),
            windows([0], scores[:1]),
        )
        for fold in (0, 1)
    ]
    exam = joined(parts)
    assert exam.windows.owner.tolist() == [1, 0, 3, 2]
    assert [exam.recordings[owner].fold for owner in exam.windows.owner] == [0, 0, 1, 1]
    assert exam.windows.scores[2, 0] == 1.0 and exam.truth.shape == (4, 4)
    assert exam.silence is not None and exam.silence.hours == pytest.approx(10 / 3600)


def test_a_recording_ranks_by_the_mean_of_its_windows_and_is_detected_by_the_highest() -> None:
    three = windows([1, 1, 0], np.array([[0.2], [0.6], [0.3]], np.float32))
    assert pool_windows(three, 3)[:, 0].tolist() == pytest.approx([0.3, 0.4, 0.0])
    assert loudest_windows(three, 3)[:, 0].tolist() == pytest.approx([0.3, 0.6, 0.0])


def test_a_classifier_that_is_too_sure_is_cooled_and_the_order_of_its_answers_stays() -> None:
    exam = made_up(sureness=3.0)
    calibration = calibrate(exam, FOUR)
    cooled = calibration.applied(exam)
    assert calibration.temperature > 1.5
    assert (cooled.windows.scores.argmax(axis=1) == exam.windows.scores.argmax(axis=1)).all()
    assert calibrate(made_up(sureness=0.5), FOUR).temperature < calibration.temperature / 3  # negative control
    again = calibrate(cooled, FOUR)
    assert again.temperature == pytest.approx(1.0, abs=0.02)


def test_rank_thresholds_are_precise_at_the_rank_they_are_for() -> None:
    rng = np.random.default_rng(1)
    heard = rng.integers(4, size=400)
    guess = np.where(heard < 2, rng.integers(2, size=400), heard)  # which bird it is, nobody can tell
    sure = rng.uniform(0.4, 0.9, 400).astype(np.float32)
    scores = np.eye(4, dtype=np.float32)[guess] * sure[:, None] + 0.01
    truth = np.eye(4, dtype=np.float32)[heard]
    found = fit_rank_thresholds(scores, truth, FOUR)
    assert found["class"] < 0.5 and "species" not in found
    right = fit_rank_thresholds(np.eye(4, dtype=np.float32)[heard] * sure[:, None] + 0.01, truth, FOUR)
    assert right["species"] < 0.5  # negative control: it is not the rank that forbids it


def test_a_tit_where_bird_is_written_spoils_no_threshold_and_one_where_nothing_is_does() -> None:
    tit, frog, bird = np.eye(5, dtype=np.float32)[[0, 2, 4]]
    nothing = np.zeros(5, np.float32)
    surely = np.linspace(0.5, 0.9, 80, dtype=np.float32)[:, None]

    def fitted(answer: NDArray[np.float32], *truths: NDArray[np.float32]) -> dict[str, float]:
        return fit_rank_thresholds(answer * surely, np.tile(truths, (40, 1)), FIVE)

    alone = fit_rank_thresholds((tit * surely)[::2], np.tile(tit, (40, 1)), FIVE)
    assert fitted(tit, tit, bird) == alone == dict.fromkeys(("class", "order", "family", "genus", "species"), 0.5)
    assert fitted(frog, frog, bird) == {}, "a frog is wrong where bird is written"
    assert fitted(tit, tit, nothing) == {}, "a tit is wrong where there is nothing"


def test_thresholds_of_ranks_are_carried_over_to_a_file_that_answers_lower() -> None:
    rng = np.random.default_rng(2)
    before = rng.uniform(0.0, 0.6, (200, 4)).astype(np.float32)
    after = 0.8 * before
    limits = {"species": 0.45, "class": 0.7}
    moved, groups = carried_over_ranks(limits, before, after, FOUR), rank_groups(FOUR)
    for rank, limit in limits.items():
        one, other = (rank_probabilities(scores, groups[rank]).max(axis=1) for scores in (before, after))
        assert (other >= moved[rank]).sum() == (one >= limit).sum() > 0 and moved[rank] < limit
        assert (other >= limit).sum() < (one >= limit).sum()  # negative control: left as it was
    assert carried_over_ranks(limits, before, before, FOUR) == limits


def test_the_line_about_ranks_counts_as_the_thresholds_are_fitted() -> None:
    tit, bird = np.eye(5, dtype=np.float32)[[0, 4]]
    truth = np.stack([tit, bird, np.zeros(5, np.float32), tit])
    heard = np.stack([tit, tit, tit, np.zeros(5, np.float32)]) * np.float32(0.9)
    line = rank_line(heard, truth, Calibration(1.0, (), {"species": 0.5}), FIVE)
    assert line.endswith("2 at species (50% right), 1 below a coarser label, 1 none")


def test_all_files_are_written_and_say_the_same(tmp_path: Path) -> None:
    exam = made_up()
    calibration = calibrate(exam, FOUR)
    silence = windows([0, 0], np.array([[0.99, 0.0, 0.0, 0.0], [0.0] * 4], np.float32))
    figures = examine(tmp_path, replace(calibration.applied(exam), silence=silence), calibration, FOUR)
    assert figures["macro_auc_low"] <= figures["macro_auc"] <= figures["macro_auc_high"]
    assert figures["false_alarms_per_hour_at_0.5"] == pytest.approx(360.0)  # one window in ten seconds
    with (tmp_path / "species.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["common_name"] for row in rows} == {"tit", "<b>", "'=frog", ""}
    assert np.mean([float(row["average_precision"]) for row in rows]) == pytest.approx(figures["cmap"], abs=1e-4)
    precisions = [float(row["average_precision"]) for row in rows]
    assert precisions == sorted(precisions)
    kept = np.load(tmp_path / "embeddings.npz", allow_pickle=False)
    assert kept["embedding"].shape == (160, 2) and kept["recording"][3].endswith("0-3.ogg")
    for name in ("confusion.png", "reliability.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "thresholds.csv").read_text().startswith("label,")
    assert len((tmp_path / "held_out_scores.csv").read_text().splitlines()) == 161


def test_what_sounds_like_nothing_is_counted_from_recordings_without_labels_too() -> None:
    exam = made_up(4)
    truth = exam.truth.copy()
    truth[[1, 3]] = 0.0
    empty = windows_without_species(replace(exam, truth=truth))
    assert empty is not None and empty.owner.tolist() == [1, 3]
    assert windows_without_species(exam) is None
    cooled = Calibration(2.0, (), {}).applied(exam)
    assert cooled.silence is None


def test_bird_is_no_mistake_where_a_tit_sings_and_a_tit_none_where_bird_is_written() -> None:
    judged = judged_entries(np.eye(5, dtype=np.float32), FIVE)
    assert judged.tolist() == [
        [True, True, True, True, False],
        [True, True, True, True, False],
        [True, True, True, True, True],
        [True, True, True, True, True],
        [False, False, True, True, True],
    ]


def test_recordings_of_one_group_have_no_interval_and_are_judged_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exam = made_up(40)
    exam = replace(exam, recordings=[replace(recording, group="one") for recording in exam.recordings])
    calibration = calibrate(exam, FOUR)
    figures = examine(tmp_path, calibration.applied(exam), calibration, FOUR)
    assert "cmap" in figures and "cmap_low" not in figures
    assert "no interval" in capsys.readouterr().out
