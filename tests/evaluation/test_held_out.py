"""What a classifier is worth: parts joined in order, figures by hand, files that say what they should."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from archive.recordings import Recording
from evaluation.calibration import Thresholds, apply_temperature
from evaluation.fitting import fit_temperature
from evaluation.held_out import (
    Calibration,
    CrossFit,
    HeldOut,
    WindowScores,
    alarm_windows,
    calibrate,
    chosen_windows,
    cross_fit,
    deal_out,
    evaluate,
    fit_rank_thresholds,
    joined_parts,
    judged_entries,
    loudest_windows,
    pool_windows,
    rank_line,
    subset,
    threshold_figures,
    write_embeddings,
)
from evaluation.ranks import rank_groups, rank_probabilities
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


def made_up(count: int = 160, sureness: float = 3.0, seed: int = 0) -> HeldOut:
    rng = np.random.default_rng(seed)
    heard = rng.integers(4, size=count)
    logits = 4 * np.eye(4)[heard] + 1.5 * rng.normal(size=(count, 4)) - 2
    scores = (1 / (1 + np.exp(-sureness * logits))).astype(np.float32)
    return HeldOut(recordings(count), np.eye(4, dtype=np.float32)[heard], windows(list(range(count)), scores), None)


def test_parts_are_joined_so_that_each_window_keeps_its_recording() -> None:
    scores = np.arange(8, dtype=np.float32).reshape(2, 4)
    parts = [
        HeldOut(
            recordings(2, fold),
            np.eye(4, dtype=np.float32)[:2],
            windows([1, 0], scores + fold),
            windows([0], scores[:1]),
        )
        for fold in (0, 1)
    ]
    held_out = joined_parts(parts)
    assert held_out.windows.owner.tolist() == [1, 0, 3, 2]
    assert [held_out.recordings[owner].fold for owner in held_out.windows.owner] == [0, 0, 1, 1]
    assert held_out.windows.scores[2, 0] == 1.0 and held_out.truth.shape == (4, 4)
    assert held_out.silence is not None and held_out.silence.hours == pytest.approx(10 / 3600)


def test_a_recording_ranks_by_the_mean_of_its_windows_and_is_detected_by_the_highest() -> None:
    three = windows([1, 1, 0], np.array([[0.2], [0.6], [0.3]], np.float32))
    assert pool_windows(three, 3)[:, 0].tolist() == pytest.approx([0.3, 0.4, 0.0])
    assert loudest_windows(three, 3)[:, 0].tolist() == pytest.approx([0.3, 0.6, 0.0])


def test_a_classifier_that_is_too_sure_is_cooled_and_the_order_of_its_answers_stays() -> None:
    held_out = made_up(sureness=3.0)
    calibration = calibrate(held_out, FOUR)
    cooled = calibration.applied(held_out)
    assert calibration.temperature > 1.5
    assert (cooled.windows.scores.argmax(axis=1) == held_out.windows.scores.argmax(axis=1)).all()
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


def test_thresholds_of_ranks_move_to_a_file_that_answers_lower() -> None:
    rng = np.random.default_rng(2)
    before = rng.uniform(0.0, 0.6, (200, 4)).astype(np.float32)
    after = 0.8 * before
    limits = {"species": 0.45, "class": 0.7}
    moved, groups = Thresholds(ranks=limits).moved_to(before, after, FOUR).ranks, rank_groups(FOUR)
    for rank, limit in limits.items():
        one, other = (rank_probabilities(scores, groups[rank]).max(axis=1) for scores in (before, after))
        assert (other >= moved[rank]).sum() == (one >= limit).sum() > 0 and moved[rank] < limit
        assert (other >= limit).sum() < (one >= limit).sum()  # negative control: left as it was
    assert Thresholds(ranks=limits).moved_to(before, before, FOUR).ranks == limits


def test_the_line_about_ranks_counts_as_the_thresholds_are_fitted() -> None:
    tit, bird = np.eye(5, dtype=np.float32)[[0, 4]]
    truth = np.stack([tit, bird, np.zeros(5, np.float32), tit])
    heard = np.stack([tit, tit, tit, np.zeros(5, np.float32)]) * np.float32(0.9)
    held_out = HeldOut(recordings(4), truth, windows([0, 1, 2, 3], heard), None)
    calibration = Calibration(1.0, Thresholds(ranks={"species": 0.5}))
    line = rank_line(CrossFit(held_out, np.zeros(4, np.int64), (calibration,)), FIVE)
    assert line.endswith(
        "2 at species (50% right), 1 below a coarser label, 1 none (in-sample: one group of recordings)"
    )


def test_all_files_are_written_and_say_the_same(tmp_path: Path) -> None:
    held_out = made_up()
    calibration = calibrate(held_out, FOUR)
    silence = windows([0, 0], np.array([[0.99, 0.0, 0.0, 0.0], [0.0] * 4], np.float32))
    figures = evaluate(tmp_path, replace(calibration.applied(held_out), silence=silence), calibration, FOUR)
    assert figures["macro_auc_low"] <= figures["macro_auc"] <= figures["macro_auc_high"]
    assert figures["false_alarms_per_hour_at_0.5"] == pytest.approx(360.0)  # one window in ten seconds
    with (tmp_path / "species.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["common_name"] for row in rows} == {"tit", "<b>", "'=frog", ""}
    assert np.mean([float(row["average_precision"]) for row in rows]) == pytest.approx(figures["cmap"], abs=1e-4)
    precisions = [float(row["average_precision"]) for row in rows]
    assert precisions == sorted(precisions)
    taught: dict[str, object] = {"teachers": [{"name": "BirdNET 2.4"}], "trained_on": "ab" * 5}
    write_embeddings(tmp_path / "embeddings.npz", held_out, taught)
    kept = np.load(tmp_path / "embeddings.npz", allow_pickle=False)
    assert json.loads(kept["wild_whisper"].item()) == {"provenance": taught}
    assert kept["embedding"].shape == (160, 2) and kept["recording"][3].endswith("0-3.ogg")
    for name in ("confusion.png", "reliability.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "thresholds.csv").read_text().startswith("label,")
    assert len((tmp_path / "held_out_scores.csv").read_text().splitlines()) == 161


def test_false_alarms_are_counted_at_thresholds_that_were_not_fitted_on_their_sound() -> None:
    held_out = made_up(40)
    truth = held_out.truth.copy()
    truth[[1, 3]] = 0.0
    held_out = replace(held_out, truth=truth, silence=windows([0], np.full((1, 4), 0.5, np.float32), 3600.0))
    shipped = calibrate(held_out, FOUR)
    crossed = cross_fit(held_out, shipped, FOUR)
    scores, limits, hours = alarm_windows(crossed, shipped)
    assert hours == pytest.approx(1 + 10 / 3600) and scores.shape == limits.shape == (3, 4)
    assert (limits[-1] == shipped.thresholds.applied).all(), "noise is other sound"
    for row, recording in enumerate((1, 3)):
        others = calibrate(subset(held_out, crossed.part != crossed.part[recording]), FOUR)
        assert (limits[row] == others.thresholds.applied).all()
    assert alarm_windows(cross_fit(made_up(40), shipped, FOUR), shipped)[2] == 0.0
    assert Calibration(2.0, Thresholds()).applied(made_up(4)).silence is None


def with_noise(held_out: HeldOut, surest: NDArray[np.float64]) -> HeldOut:
    """The same beside noise of 5 s each, in which one species has these logits."""
    scores = np.full((len(surest), 4), 0.01, np.float32)
    scores[:, 2] = 1 / (1 + np.exp(-surest))
    return replace(held_out, silence=windows(list(range(len(surest))), scores, 5.0))


def test_thresholds_for_few_false_alarms_are_fitted_on_noise_and_judged_on_other_noise(tmp_path: Path) -> None:
    held_out = with_noise(made_up(120), np.random.default_rng(0).exponential(1.5, 200) - 1)
    free, quiet = calibrate(held_out, FOUR), calibrate(held_out, FOUR, alarms=20.0)
    assert free.floor == 0 < quiet.floor <= min(quiet.thresholds.applied) and (quiet.alarms, free.alarms) == (20.0, 0)
    assert all(limit >= quiet.floor for limit in quiet.thresholds.ranks.values())
    assert quiet.thresholds.floor == quiet.floor and free.thresholds.floor == Thresholds().floor == 0
    crossed = cross_fit(quiet.applied(held_out), quiet, FOUR)
    scores, limits, hours = alarm_windows(crossed, quiet)
    assert hours == pytest.approx(1000 / 3600)
    silence = quiet.applied(held_out).silence
    assert silence is not None and crossed.silence_part is not None
    for number in range(5):
        mine = crossed.silence_part == number
        noise = held_out.silence
        assert noise is not None
        others = replace(subset(held_out, crossed.part != number), silence=chosen_windows(noise, ~mine))
        expected = calibrate(quiet.applied(others), FOUR, 20.0)
        assert np.allclose(limits[mine], expected.thresholds.applied)
    alarms = (scores >= limits).any(axis=1).sum() / hours
    assert 3 < alarms < 60  # asked for 20
    free_alarms = (silence.scores >= free.thresholds.applied).any(axis=1).sum() / hours
    assert free_alarms > 3 * alarms  # control
    figures = evaluate(tmp_path, quiet.applied(held_out), quiet, FOUR)
    assert figures["false_alarms_per_hour_at_thresholds"] == pytest.approx(alarms)


def test_without_noise_a_limit_on_false_alarms_changes_nothing() -> None:
    held_out = made_up(60)
    assert calibrate(held_out, FOUR, alarms=1.0) == replace(calibrate(held_out, FOUR), alarms=1.0)
    crossed = cross_fit(held_out, calibrate(held_out, FOUR, alarms=1.0), FOUR)
    assert crossed.silence_part is None


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
    held_out = made_up(40)
    held_out = replace(held_out, recordings=[replace(recording, group="one") for recording in held_out.recordings])
    calibration = calibrate(held_out, FOUR)
    figures = evaluate(tmp_path, calibration.applied(held_out), calibration, FOUR)
    assert "cmap" in figures and "cmap_low" not in figures
    assert "no interval" in capsys.readouterr().out


def test_a_figure_and_its_interval_are_of_the_same_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every species is told from every other without a mistake, and noise is taken for all of them."""
    truth = np.concatenate([np.eye(4, dtype=np.float32).repeat(10, axis=0), np.zeros((20, 4), np.float32)])
    scores = np.where(truth > 0, 0.6, 0.1).astype(np.float32)
    scores[40:] = np.random.default_rng(0).uniform(0.2, 0.9, (20, 4))
    held_out = HeldOut(recordings(60), truth, windows(list(range(60)), scores), None)
    figures = evaluate(tmp_path, held_out, calibrate(held_out, FOUR), FOUR)
    assert figures["top1"] == figures["top1_low"] == figures["top1_high"] == 1.0 and figures["rows"] == 40
    for name in ("macro_auc", "cmap"):
        assert figures[f"{name}_low"] < figures[name] < figures[f"{name}_high"] < 1.0, name
    told = capsys.readouterr().out
    assert "60 held-out recordings, 40 of them with a species" in told
    assert "over all recordings" in told and "over those with a species" in told


def long_recordings(fills: float, sureness: float = 1.0, seed: int = 0) -> HeldOut:
    """300 recordings of 1 to 12 windows, of whose windows the species fills a part; window by window, a classifier that
    knows how probable it is that the species is in it, and says it `sureness` times too surely."""
    rng = np.random.default_rng(seed)
    count = rng.integers(1, 13, 300)
    owner = np.repeat(np.arange(300), count)
    truth = np.eye(4, dtype=np.float32)[rng.integers(4, size=300)]
    starts = count.cumsum() - count
    filled = rng.random(len(owner)) < fills
    filled[starts + rng.integers(count)] = True  # somewhere it is
    here = truth[owner] * filled[:, None]
    logits = 4 * (4 * here + rng.normal(size=here.shape)) - 8 + np.log(here.mean() / (1 - here.mean()))
    scores = (1 / (1 + np.exp(-sureness * logits))).astype(np.float32)
    return HeldOut(recordings(300), truth, windows(owner.tolist(), scores), None)


@pytest.mark.parametrize("fills", [0.35, 0.5, 0.7])
def test_windows_without_the_species_do_not_cool_a_classifier_that_is_right_about_them(fills: float) -> None:
    held_out = long_recordings(fills)
    assert 0.65 < calibrate(held_out, FOUR).temperature < 1.15
    assert 1.9 < calibrate(long_recordings(fills, 3.0), FOUR).temperature < 3.5
    sure = np.clip(held_out.windows.scores.astype(np.float64), 1e-6, 1 - 1e-6)
    over_windows = fit_temperature(np.log(sure / (1 - sure)), held_out.truth[held_out.windows.owner])
    assert over_windows > 1.7, "control: as it was, each window taken for a recording"


def test_no_recording_is_judged_by_a_threshold_that_knows_its_group() -> None:
    held_out = made_up(100)
    held_out = replace(
        held_out, recordings=[replace(one, group=f"{n // 2}") for n, one in enumerate(held_out.recordings)]
    )
    crossed = cross_fit(held_out, calibrate(held_out, FOUR), FOUR)
    assert len(crossed.calibrations) == 5 and (crossed.part[::2] == crossed.part[1::2]).all()
    mine = crossed.part == 2
    truth = held_out.truth.copy()
    truth[mine] = np.roll(truth[mine], 1, axis=1)
    scores = held_out.windows.scores
    lied_to = calibrate(subset(replace(held_out, truth=truth), ~mine), FOUR)
    assert lied_to == crossed.calibrations[2], "what is wrong in a part alone changes nothing of what judges it"
    again = apply_temperature(scores[mine], lied_to.temperature).astype(np.float32)
    assert (crossed.held_out.windows.scores[mine] == again).all()
    assert calibrate(replace(held_out, truth=truth), FOUR).temperature != pytest.approx(lied_to.temperature, abs=0.05)


def test_thresholds_fitted_to_luck_are_found_out() -> None:
    """Scores that say nothing: the best thresholds look good on what they were fitted on, and are not."""
    rng = np.random.default_rng(0)
    truth = np.eye(4, dtype=np.float32)[rng.integers(4, size=60)]
    held_out = HeldOut(recordings(60), truth, windows(list(range(60)), rng.uniform(0, 1, (60, 4)).astype("f4")), None)
    shipped, judged = calibrate(held_out, FOUR), np.ones((60, 4), np.bool_)
    calm = shipped.applied(held_out)
    honest = threshold_figures(cross_fit(calm, shipped, FOUR), judged)
    flattered = threshold_figures(CrossFit(calm, np.zeros(60, np.int64), (shipped,)), judged)
    assert honest["threshold_precision"] < 0.3 < 0.31 < flattered["threshold_precision"]
    assert honest["threshold_recall"] < flattered["threshold_recall"]


def test_groups_are_dealt_out_whole_and_species_by_species() -> None:
    truth = np.eye(4, dtype=np.float32)[np.arange(40) // 10]
    part = deal_out(np.array([f"{row // 2}" for row in range(40)]), truth, 5)
    assert (part[::2] == part[1::2]).all()
    for species in range(4):
        assert sorted(part[truth[:, species] > 0].tolist()) == sorted([0, 1, 2, 3, 4] * 2)


ONE = Taxonomy(("t",), (LINEAGES[0][-1],), ("tit",), LINEAGES[:1], (7,))


def test_one_species_is_judged_against_what_is_not_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    truth = (np.arange(60) < 30).astype(np.float32)[:, None]
    scores = (1 / (1 + np.exp(4 - 6 * truth - rng.normal(size=truth.shape)))).astype(np.float32)
    held_out = HeldOut(recordings(60), truth, windows(list(range(60)), scores), None)
    calibration = calibrate(held_out, ONE)
    figures = evaluate(tmp_path, calibration.applied(held_out), calibration, ONE)
    assert calibration.thresholds.species[0].precise is not None and figures["precise_precision"] >= 0.9
    assert figures["macro_auc_low"] <= figures["macro_auc"] <= figures["macro_auc_high"] and figures["top1"] == 1.0
    assert figures["false_alarms_per_hour_at_thresholds"] >= 0
    assert "nan" not in capsys.readouterr().out and np.isfinite(list(figures.values())).all()


def test_one_species_and_nothing_else_has_no_roc_curve_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = np.linspace(0.1, 0.9, 20, dtype=np.float32)[:, None]
    held_out = HeldOut(recordings(20), np.ones((20, 1), np.float32), windows(list(range(20)), scores), None)
    calibration = calibrate(held_out, ONE)
    figures = evaluate(tmp_path, calibration.applied(held_out), calibration, ONE)
    assert (
        "macro_auc" not in figures and figures["cmap"] == pytest.approx(1) and np.isfinite(list(figures.values())).all()
    )
    told = capsys.readouterr().out
    assert "nan" not in told and "AUC by rank" not in told
    assert "not defined: no species is both present and absent; --data.no_call" in told


def test_a_rank_of_one_taxon_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    birds = Taxonomy(FOUR.labels[:2], FOUR.scientific_names[:2], FOUR.common_names[:2], LINEAGES[:2], (7, 7))
    held_out = made_up(40)
    chosen = held_out.truth[:, :2].max(axis=1) > 0
    held_out = subset(held_out, chosen)
    scores = np.ascontiguousarray(held_out.windows.scores[:, :2])
    held_out = replace(held_out, truth=held_out.truth[:, :2], windows=replace(held_out.windows, scores=scores))
    calibration = calibrate(held_out, birds)
    figures = evaluate(tmp_path, calibration.applied(held_out), calibration, birds)
    assert "auc_class" not in figures and "auc_order" in figures
    told = capsys.readouterr().out
    assert "AUC by rank          order" in told and "nan" not in told
