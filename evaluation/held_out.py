"""What a trained classifier is worth: its answers on held-out recordings, calibrated, as figures, tables and pictures.

    held_out = joined_parts([HeldOut(valid, truth, windows, None), ...])   # one part per fold
    calibration = calibrate(held_out, taxonomy)                      # temperature, thresholds per species and rank
    figures = evaluate(folder, calibration.applied(held_out), calibration, taxonomy)

Writes   held_out_scores.csv, held_out_recordings.csv, embeddings.npz, species.csv, thresholds.csv, confusion.png,
         reliability.png

Labels are given per recording. To rank recordings, the mean over a recording's windows is taken; to fit temperature and
thresholds, which a user applies to windows, the highest of them. Intervals come from weighting groups of recordings
anew. The temperature and the thresholds that ship are fitted on all held-out recordings; how right they are is said of
recordings that they were not fitted on (`cross_fit`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archive.licences import as_facts
from archive.recordings import Recording, write_recordings
from evaluation.calibration import Thresholds, apply_temperature, write_thresholds
from evaluation.fitting import (
    expected_calibration_error,
    fit_temperature,
    fit_threshold,
    fit_thresholds,
    noise_floor,
    reliability_points,
)
from evaluation.metrics import (
    answers_scorecard,
    bootstrap_interval,
    class_average_precision,
    class_roc_auc,
    false_alarms_per_hour,
    false_positive_severity,
    kl_divergence,
    least_cost_answers,
    rank_roc_auc,
    scorecard,
    undecided,
    weighted_cmap,
    weighted_macro_roc_auc,
    weighted_top1_accuracy,
)
from evaluation.ranks import RankAnswer, deepest_answers, rank_groups, rank_probabilities, rank_truth
from runtime.cells import no_formula, open_text, score_columns, write_row, write_scores, write_sheet
from runtime.files import publish
from runtime.terminal import show
from taxonomy import CLASS, FAMILY, Taxonomy, ancestor_matrix, pairwise_distances

HELD_OUT, TRAINING = "held_out_recordings.csv", "training_recordings.csv"  # beside a classifier, for quantize.py
PRECISE = 0.9  # precision that thresholds are asked for
FEWEST = 10  # right answers that a threshold is fitted on
PARTS = 5  # that thresholds are cross-fitted in
NAMED = 60  # species: with more, the picture of confusions has no names
LITTLE = 1e-6  # the least probability that counts as one: keeps logits finite


@dataclass(frozen=True)
class WindowScores:
    """The windows of several recordings, one row each."""

    owner: NDArray[np.int64]  # (windows,) index of the recording
    starts: NDArray[np.float64]  # (windows,) seconds
    ends: NDArray[np.float64]
    scores: NDArray[np.float32]  # (windows, species) probabilities
    embeddings: NDArray[np.float32]  # (windows, width) the mean of the encoder's tokens

    @property
    def hours(self) -> float:
        """Hours of sound scored."""
        return float((self.ends - self.starts).sum()) / 3600


@dataclass(frozen=True)
class HeldOut:
    """Held-out recordings, and what a classifier that was not trained on them makes of them."""

    recordings: Sequence[Recording]
    truth: NDArray[np.float32]  # (recordings, species)
    windows: WindowScores
    silence: WindowScores | None  # of recordings in which there is no species at all, where such are given

    @property
    def groups(self) -> NDArray[np.str_]:
        """(recordings,) what must not be parted."""
        return np.array([recording.group for recording in self.recordings])


@dataclass(frozen=True)
class Calibration:
    """What is fitted on held-out recordings and travels in the classifier's file."""

    temperature: float
    thresholds: Thresholds  # a rank's best taxon is right nine times out of ten from its threshold on
    alarms: float = 0.0  # false alarms an hour that they were fitted for, 0: for precision alone
    floor: float = 0.0  # below which none of them is therefore

    def applied(self, held_out: HeldOut) -> HeldOut:
        """The same with the probabilities as the calibrated classifier gives them."""

        def cooled(windows: WindowScores) -> WindowScores:
            return replace(windows, scores=apply_temperature(windows.scores, self.temperature).astype(np.float32))

        silence = cooled(held_out.silence) if held_out.silence else None
        return replace(held_out, windows=cooled(held_out.windows), silence=silence)


@dataclass(frozen=True)
class CrossFit:
    """Every held-out recording as it is answered by a temperature and thresholds fitted on recordings of other groups.

    Where all are of one group there are no others: then `parts` is 1, and everything was fitted on what it answers."""

    held_out: HeldOut  # at the temperature of its part; silence that nothing was fitted on at the one that ships
    part: NDArray[np.int64]  # (recordings,)
    calibrations: tuple[Calibration, ...]  # by part
    silence_part: NDArray[np.int64] | None = None  # (windows of silence,) where thresholds were fitted on it too

    @property
    def said(self) -> str:
        """What its figures are called."""
        return "cross-fitted" if len(self.calibrations) > 1 else "in-sample: one group of recordings"

    def thresholds(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(recordings, species) from where on each is reported, and whether that is for the precision wanted."""
        limits = np.array([fitted.thresholds.applied for fitted in self.calibrations])
        precise = [[limit.precise is not None for limit in fitted.thresholds.species] for fitted in self.calibrations]
        return limits[self.part], np.array(precise)[self.part]

    def rank_answers(self, taxonomy: Taxonomy) -> list[RankAnswer | None]:
        """The answer to each recording at the deepest rank that is sure enough."""
        highest = loudest_windows(self.held_out.windows, len(self.part))
        answers: list[RankAnswer | None] = [None] * len(self.part)
        for number, fitted in enumerate(self.calibrations):
            rows = np.flatnonzero(self.part == number)
            found = deepest_answers(highest[rows], taxonomy, fitted.thresholds.ranks)
            for row, answer in zip(rows, found, strict=True):
                answers[row] = answer
        return answers


def pool_windows(windows: WindowScores, recordings: int) -> NDArray[np.float32]:
    """(recordings, species): the mean of each recording's windows. Labels are given per recording, not per window."""
    total = np.zeros((recordings, windows.scores.shape[1]), np.float64)
    np.add.at(total, windows.owner, windows.scores)
    count = np.bincount(windows.owner, minlength=recordings)
    return (total / np.maximum(count, 1)[:, None]).astype(np.float32)


def loudest_windows(windows: WindowScores, recordings: int) -> NDArray[np.float32]:
    """(recordings, species): the highest of each recording's windows: whether a threshold is reached anywhere in it."""
    highest = np.zeros((recordings, windows.scores.shape[1]), np.float32)
    np.maximum.at(highest, windows.owner, windows.scores)
    return highest


def joined_parts(parts: Sequence[HeldOut]) -> HeldOut:
    """The parts of a cross-validation as one: every recording judged by the model that was not trained on it."""
    offsets = np.cumsum([0, *(len(part.recordings) for part in parts)])
    silences = [part.silence for part in parts if part.silence]
    return HeldOut(
        [recording for part in parts for recording in part.recordings],
        np.concatenate([part.truth for part in parts]),
        stacked([part.windows for part in parts], offsets),
        stacked(silences, np.zeros(len(silences), np.int64)) if silences else None,
    )


def subset(held_out: HeldOut, chosen: NDArray[np.bool_]) -> HeldOut:
    """Some of the recordings, and their windows; chosen (recordings,)."""
    own, index = held_out.windows, chosen.cumsum() - 1
    kept = chosen[own.owner]
    return HeldOut(
        [recording for recording, wanted in zip(held_out.recordings, chosen, strict=True) if wanted],
        held_out.truth[chosen],
        WindowScores(index[own.owner[kept]], own.starts[kept], own.ends[kept], own.scores[kept], own.embeddings[kept]),
        held_out.silence,
    )


def stacked(parts: Sequence[WindowScores], offsets: NDArray[np.int64]) -> WindowScores:
    """Windows of several parts below each other, the recordings of each counted on from an offset."""
    return WindowScores(
        np.concatenate([part.owner + offset for part, offset in zip(parts, offsets, strict=False)]),
        np.concatenate([part.starts for part in parts]),
        np.concatenate([part.ends for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.embeddings for part in parts]),
    )


def calibrate(held_out: HeldOut, taxonomy: Taxonomy, alarms: float = 0.0) -> Calibration:
    """Fit temperature and thresholds, those per species and those per rank, on the highest window of each recording.

    alarms   false alarms an hour that thresholds may give in windows without any species; 0: no matter how many
    """
    highest = loudest_windows(held_out.windows, len(held_out.recordings))
    empty, hours = windows_of_nothing(held_out)
    return calibrate_highest(highest, held_out.truth, taxonomy, alarms, empty, hours)


def calibrate_highest(
    highest: NDArray[np.float32],
    truth: NDArray[np.float32],
    taxonomy: Taxonomy,
    alarms: float = 0.0,
    empty: NDArray[np.float32] | None = None,
    hours: float = 0.0,
    lowest: float = 0.0,
) -> Calibration:
    """The same; (recordings, species) probabilities of the highest windows, and what is there; empty (windows, species)
    and hours of windows without any species; no threshold is below `lowest`, whatever these say."""
    judged = judged_entries(truth, taxonomy)
    sure = np.clip(highest[judged].astype(np.float64), LITTLE, 1 - LITTLE)
    temperature = fit_temperature(np.log(sure / (1 - sure)), truth[judged])
    calm = apply_temperature(highest, temperature).astype(np.float32)
    floor = lowest
    if alarms and empty is not None and len(empty):
        floor = max(floor, noise_floor(apply_temperature(empty, temperature), hours, alarms))
    species = fit_thresholds(calm, truth, taxonomy.labels, PRECISE, FEWEST, judged, floor)
    ranks = {rank: max(limit, floor) for rank, limit in fit_rank_thresholds(calm, truth, taxonomy).items()}
    return Calibration(temperature, Thresholds(tuple(species), ranks), alarms, floor)


def windows_of_nothing(held_out: HeldOut) -> tuple[NDArray[np.float32], float]:
    """(windows, species) of recordings without any species, and their hours."""
    own, noise = held_out.windows, held_out.silence
    empty = held_out.truth[own.owner].max(axis=1) == 0
    hours = float((own.ends - own.starts)[empty].sum()) / 3600
    if noise is None:
        return own.scores[empty], hours
    return np.concatenate([own.scores[empty], noise.scores]), hours + noise.hours


def cross_fit(held_out: HeldOut, calibration: Calibration, taxonomy: Taxonomy, parts: int = PARTS) -> CrossFit:
    """Fit temperature and thresholds anew for each part of the recordings on the others; groups stay whole. Silence is
    parted in the same way where thresholds are fitted on it.

    held_out      calibrated
    calibration   what was fitted on all of it; alone where all recordings are of one group
    """
    groups, silence = held_out.groups, held_out.silence
    count = min(parts, len(np.unique(groups)))
    if count == 1:
        return CrossFit(held_out, np.zeros(len(groups), np.int64), (calibration,))
    part = deal_out(groups, held_out.truth, count)
    silence_part = silence.owner % count if silence and calibration.floor else None
    fitted = list[Calibration]()
    for number in range(count):
        others = subset(held_out, part != number)
        if silence and silence_part is not None:
            others = replace(others, silence=chosen_windows(silence, silence_part != number))
        fitted.append(calibrate(others, taxonomy, calibration.alarms))
    scores = held_out.windows.scores.copy()
    calm = silence.scores.copy() if silence else None
    for number, one in enumerate(fitted):
        own = part[held_out.windows.owner] == number
        scores[own] = apply_temperature(scores[own], one.temperature)
        if calm is not None and silence_part is not None:
            quiet = silence_part == number
            calm[quiet] = apply_temperature(calm[quiet], one.temperature)
    if silence and calm is not None:
        silence = replace(silence, scores=calm)
    crossed = replace(held_out, windows=replace(held_out.windows, scores=scores), silence=silence)
    return CrossFit(crossed, part, tuple(fitted), silence_part)


def chosen_windows(windows: WindowScores, chosen: NDArray[np.bool_]) -> WindowScores:
    """Some of them; chosen (windows,)."""
    return WindowScores(*(getattr(windows, field.name)[chosen] for field in fields(windows)))


def deal_out(groups: NDArray[np.str_], truth: NDArray[np.float32], parts: int) -> NDArray[np.int64]:
    """(recordings,) a part for each: groups stay whole, those with the same first species go to the parts in turn."""
    names, first, member = np.unique(groups, return_index=True, return_inverse=True)
    species = np.where(truth[first].any(axis=1), truth[first].argmax(axis=1), -1)
    part_of_group = np.empty(len(names), np.int64)
    part_of_group[np.lexsort((np.arange(len(names)), species))] = np.arange(len(names)) % parts
    return part_of_group[member]


def judged_entries(truth: NDArray[np.float32], taxonomy: Taxonomy) -> NDArray[np.bool_]:
    """(recordings, species) bool: what can be right or wrong. Where a tit sings, "bird" is no mistake; where somebody
    wrote "bird", a tit may be right."""
    above = ancestor_matrix(taxonomy).astype(np.float32)
    related: NDArray[np.bool_] = (truth @ above.T + truth @ above) > 0
    return ~related | (truth > 0)


def fit_rank_thresholds(
    scores: NDArray[np.float32], truth: NDArray[np.float32], taxonomy: Taxonomy
) -> dict[str, float]:
    """By rank: the lowest probability from which on its best taxon is right nine times out of ten; ranks that never
    get there have none."""
    found: dict[str, float] = {}
    groups = rank_groups(taxonomy)
    for rank, group in groups.items():
        if (group >= 0).any():
            surest, right, judged = best_taxa(scores, truth, groups, rank)
            limit = fit_threshold(surest[judged], right[judged], rank, PRECISE, FEWEST).precise
            if limit is not None:
                found[rank] = limit
    return found


def best_taxa(
    scores: NDArray[np.float32], truth: NDArray[np.float32], groups: Mapping[str, NDArray[np.int64]], rank: str
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Of each recording's best taxon at a rank: how probable it is, whether it is there, and whether anybody can say:
    where somebody wrote "bird", a tit is neither right nor wrong; where there is nothing, it is wrong."""
    probabilities = rank_probabilities(scores, groups[rank])
    best = probabilities.argmax(axis=1)
    right = rank_truth(truth, groups[rank])[np.arange(len(best)), best]
    perhaps = (undecided(truth > 0, groups, rank) & (groups[rank] == best[:, None])).any(axis=1)
    return probabilities.max(axis=1), right, right | ~perhaps


def recording_scorecard(held_out: HeldOut, taxonomy: Taxonomy) -> dict[str, float]:
    """`metrics.scorecard` of held-out recordings, each scored as its pooled windows."""
    scores = pool_windows(held_out.windows, len(held_out.recordings))
    return scorecard(held_out.truth, scores, pairwise_distances(taxonomy))


def evaluate(folder: Path, held_out: HeldOut, calibration: Calibration, taxonomy: Taxonomy) -> dict[str, float]:
    """Everything about calibrated held-out recordings: printed, and as files in a folder; returns the figures.

    What is not defined is left out: macro_auc where no species is both present and absent, a rank of one taxon."""
    truth, windows, count = held_out.truth, held_out.windows, len(held_out.recordings)
    # the figures
    scores = pool_windows(windows, count)
    crossed = cross_fit(held_out, calibration, taxonomy)
    distances, labelled = pairwise_distances(taxonomy), np.flatnonzero(truth.any(axis=1))
    figures = scorecard(truth, scores, distances)
    careful = answers_scorecard(truth[labelled], least_cost_answers(scores[labelled], distances), distances)
    judged = judged_entries(truth, taxonomy)
    severity, number = false_positive_severity(truth, scores, distances, 0.5, judged)
    calm = loudest_windows(crossed.held_out.windows, count)[judged]
    figures |= {
        "kl_divergence": kl_divergence(truth, scores),
        "least_cost_distance": careful["mistake_distance"],
        "false_positive_severity": severity,
        "false_positives_per_recording": number,
        "temperature": calibration.temperature,
        "calibration_error": expected_calibration_error(calm, truth[judged]),
    }
    areas = rank_roc_auc(truth, scores, rank_groups(taxonomy))
    figures |= {f"auc_{rank}": area for rank, area in areas.items() if np.isfinite(area)}
    figures |= intervals(truth, scores, held_out.groups, "macro_auc" in figures)
    # in words
    show(
        f"{count} held-out recordings, {len(labelled)} of them with a species, {len(windows.owner)} windows, "
        f"{truth.shape[1]} species"
    )
    for name, rows in (("macro_auc", "all recordings"), ("cmap", "all recordings"), ("top1", "those with a species")):
        show(f"  {figure_line(name, figures, rows)}")
    if ranked := [f"{rank} {areas[rank]:.3f}" for rank in areas if np.isfinite(areas[rank])]:
        show(f"  AUC by rank          {', '.join(ranked)}")
    show(
        f"  taxonomic distance   {figures['mistake_distance']:.3f} of the best answer, "
        f"{figures['least_cost_distance']:.3f} of the least costly one; {severity:.3f} of the false alarms at recall .5"
    )
    show(
        f"  calibration          temperature {calibration.temperature:.2f}; error {figures['calibration_error']:.3f} "
        f"of the highest window ({crossed.said})"
    )
    show(f"  {rank_line(crossed, taxonomy)}")
    figures |= threshold_figures(crossed, judged)
    show("\n".join(f"  {line}" for line in threshold_lines(figures, crossed, calibration)))
    figures |= alarm_figures(crossed, calibration)
    # as files
    write_held_out(folder, held_out, taxonomy)
    write_species(folder / "species.csv", held_out, scores, calibration, crossed, taxonomy)
    with open_text(folder / "thresholds.csv") as file:
        write_thresholds(
            file, calibration.thresholds.species, taxonomy.scientific_names, source="held-out recordings", model=""
        )
    draw_confusion(folder / "confusion.png", scores[labelled], truth[labelled], taxonomy)
    raw = apply_temperature(loudest_windows(windows, count)[judged], 1 / calibration.temperature)
    draw_reliability(folder / "reliability.png", raw, calm, truth[judged], crossed.said)
    return figures


def intervals(
    truth: NDArray[np.float32], scores: NDArray[np.float32], groups: NDArray[np.str_], ranked: bool
) -> dict[str, float]:
    """Both ends of the interval of each figure, over the rows that the figure is of: macro_auc (where it is defined:
    `ranked`) and cmap over all, top1 over those with a label. None where these are of one group."""
    labelled = truth.any(axis=1)
    found: dict[str, float] = {}
    for name, statistic, rows in (
        ("macro_auc", weighted_macro_roc_auc, np.full(len(truth), ranked)),
        ("cmap", weighted_cmap, np.full(len(truth), True)),
        ("top1", weighted_top1_accuracy, labelled),
    ):
        if len(np.unique(groups[rows])) > 1:
            low, high = bootstrap_interval(partial(statistic, truth[rows], scores[rows]), groups[rows])
            found |= {f"{name}_low": low, f"{name}_high": high}
    return found


def figure_line(name: str, figures: Mapping[str, float], rows: str) -> str:
    """A figure with its interval and the rows that both are of, or why there is none."""
    if name not in figures:
        return f"{name:20} not defined: no species is both present and absent; --data.no_call brings recordings without"
    low, high = figures.get(f"{name}_low"), figures.get(f"{name}_high")
    interval = "(one group of recordings: no interval)" if low is None else f"[95 %: {low:.3f}, {high:.3f}]"
    return f"{name:20} {figures[name]:.3f}  {interval}  over {rows}"


def threshold_figures(crossed: CrossFit, judged: NDArray[np.bool_]) -> dict[str, float]:
    """How right the thresholds are, over recordings x species: of what they report the share that is there
    (threshold_precision) and of what is there the share they report (threshold_recall); and the first of those alone
    that are for the precision wanted (precise_precision), with the number they report. Left out where none is."""
    highest, present = loudest_windows(crossed.held_out.windows, len(crossed.part)), crossed.held_out.truth > 0
    limits, precise = crossed.thresholds()
    reported = (highest >= limits) & judged
    found: dict[str, float] = {"precise_reported": float((reported & precise).sum())}
    for name, hits, of in (
        ("threshold_precision", present, reported),
        ("threshold_recall", reported, present),
        ("precise_precision", present, reported & precise),
    ):
        if of.any():
            found[name] = float(hits[of].mean())
    return found


def threshold_lines(figures: Mapping[str, float], crossed: CrossFit, calibration: Calibration) -> list[str]:
    """For how many species there is a threshold of the precision wanted; how right these are, and all of them."""
    marks = [limit.validated for limit in calibration.thresholds.species]
    few, never = marks.count("too few"), marks.count("never")
    precise = sum(limit.precise is not None for limit in calibration.thresholds.species)
    lines = [f"thresholds           precision {PRECISE:g} reached by {precise} species, too few to say for {few}"]
    if calibration.floor:
        lines.append(f"  none below           {calibration.floor:.3f}, for {calibration.alarms:g} false alarms an hour")
    if few or never:
        lines[0] += f", {never} never validated: strict ones for these, and a mark in every table"
    if "precise_precision" in figures:
        right = f"{figures['precise_precision']:.0%} of {figures['precise_reported']:.0f} right"
        lines.append(f"  of that precision  {right} ({crossed.said})")
    if "threshold_precision" in figures:
        right = f"{figures['threshold_precision']:.0%} right, {figures['threshold_recall']:.0%} found"
        lines.append(f"  of all species     {right} ({crossed.said})")
    return lines


def alarm_figures(crossed: CrossFit, calibration: Calibration) -> dict[str, float]:
    """False alarms an hour where there is sound without any species: printed, and returned."""
    figures: dict[str, float] = {}
    empty, limits, hours = alarm_windows(crossed, calibration)
    for name, limit in (("0.5", 0.5), ("thresholds", limits)) if hours else ():
        figures[f"false_alarms_per_hour_at_{name}"] = alarms = false_alarms_per_hour(empty, limit, hours)
        fitted = f" ({crossed.said})" if name == "thresholds" and calibration.floor else ""
        show(f"  false alarms         {alarms:.1f} per hour at {name}{fitted}, on {hours:.2f} h without any species")
    return figures


def alarm_windows(
    crossed: CrossFit, calibration: Calibration
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """The windows in which any detection is a false alarm: scores and thresholds (windows, species), and their hours.

    Held-out recordings without a label meet thresholds that were fitted on the others, and so does noise, if any was
    fitted on it; else it meets those that ship."""
    own, noise = crossed.held_out.windows, crossed.held_out.silence
    empty = crossed.held_out.truth[own.owner].max(axis=1) == 0
    limits = crossed.thresholds()[0][own.owner[empty]]
    scores, hours = windows_of_nothing(crossed.held_out)
    if noise is not None:
        met = np.broadcast_to(calibration.thresholds.applied, noise.scores.shape)
        if crossed.silence_part is not None:
            met = np.array([fitted.thresholds.applied for fitted in crossed.calibrations])[crossed.silence_part]
        limits = np.concatenate([limits, met])
    return scores, limits, hours


def rank_line(crossed: CrossFit, taxonomy: Taxonomy) -> str:
    """How many recordings are answered at which rank, and how often rightly, as far as that can be said."""
    answers = crossed.rank_answers(taxonomy)
    highest, truth = loudest_windows(crossed.held_out.windows, len(answers)), crossed.held_out.truth
    groups, said, unsaid = rank_groups(taxonomy), list[str](), 0
    for rank in reversed(groups):
        answered = [row for row, answer in enumerate(answers) if answer is not None and answer.rank == rank]
        if answered:
            _, right, judged = best_taxa(highest[answered], truth[answered], groups, rank)
            unsaid += int((~judged).sum())
            if judged.any():
                said.append(f"{judged.sum()} at {rank} ({right[judged].mean():.0%} right)")
    said += [f"{unsaid} below a coarser label"] if unsaid else []
    silent = sum(answer is None for answer in answers)
    return f"answers by rank      {', '.join([*said, f'{silent} none'])} ({crossed.said})"


def write_held_out(folder: Path, held_out: HeldOut, taxonomy: Taxonomy) -> None:
    """held_out_scores.csv, in the form of the predictor's scores.csv, and held_out_recordings.csv, a table of
    recordings: what quantize.py compares on."""
    windows = held_out.windows
    rows = [replace(recording, path=recording.path.absolute()) for recording in held_out.recordings]
    write_recordings(folder / HELD_OUT, rows)
    with open_text(folder / "held_out_scores.csv") as file:
        write_row(file, score_columns(taxonomy.labels))
        for index, recording in enumerate(held_out.recordings):
            own = windows.owner == index
            starts, ends = windows.starts[own].tolist(), windows.ends[own].tolist()
            write_scores(file, str(recording.path.resolve()), starts, ends, windows.scores[own])


def write_trained(folder: Path, recordings: Sequence[Recording]) -> None:
    """training_recordings.csv: what a classifier was trained on, and quantize.py looks for outlier channels in."""
    write_recordings(
        folder / TRAINING, [replace(recording, path=recording.path.absolute()) for recording in recordings]
    )


def write_embeddings(path: Path, held_out: HeldOut, provenance: Mapping[str, object]) -> None:
    """embeddings.npz: embedding (windows, width), and the recording, start, end and fold of each window; what the
    classifiers say of their provenance, as JSON.

    Each fold has an encoder of its own: compare embeddings within a fold only."""
    windows = held_out.windows
    owners: list[int] = windows.owner.tolist()
    rows = [held_out.recordings[index] for index in owners]
    with publish(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            embedding=windows.embeddings,
            recording=np.array([str(row.path.resolve()) for row in rows]),
            start=windows.starts,
            end=windows.ends,
            fold=np.array([row.fold for row in rows]),
            **{name: np.array(text) for name, text in as_facts(provenance).items()},
        )


def write_species(
    path: Path,
    held_out: HeldOut,
    scores: NDArray[np.float32],
    calibration: Calibration,
    crossed: CrossFit,
    taxonomy: Taxonomy,
) -> None:
    """species.csv: how well each species is known, those known least first.

    f1 and recall_there are of the recordings that the thresholds were fitted on (in-sample); precision_cross_fitted and
    recall_cross_fitted are of the threshold that is applied, fitted on others."""
    # what each species is worth, and what its threshold reports in groups it was not fitted on
    areas, precisions = class_roc_auc(held_out.truth, scores), class_average_precision(held_out.truth, scores)
    groups = [recording.group for recording in held_out.recordings]
    judged, highest = judged_entries(held_out.truth, taxonomy), loudest_windows(crossed.held_out.windows, len(groups))
    reported = (highest >= crossed.thresholds()[0]) & judged
    honest = len(crossed.calibrations) > 1
    # a row each
    rows: list[tuple[float, list[str]]] = []
    for column, limit in enumerate(calibration.thresholds.species):
        present = np.flatnonzero(held_out.truth[:, column])
        lineage = taxonomy.lineages[column]
        cells = [
            taxonomy.labels[column],
            taxonomy.scientific_names[column],
            taxonomy.common_names[column],
            lineage[CLASS],
            lineage[FAMILY],
            str(len(present)),
            str(len({groups[row] for row in present})),
            four_decimals(areas[column]),
            four_decimals(precisions[column]),
            four_decimals(limit.best_f1),
            four_decimals(limit.f1),
            four_decimals(limit.precise),
            four_decimals(limit.recall if limit.precise is not None else None),
            four_decimals(share_of(held_out.truth[:, column] > 0, reported[:, column] & honest)),
            four_decimals(share_of(reported[:, column], (held_out.truth[:, column] > 0) & honest)),
            limit.note,
        ]
        rows.append((float(np.nan_to_num(precisions[column], nan=-1.0)), cells))
    header = (
        "label,scientific_name,common_name,class,family,recordings,groups,auc,average_precision,best_f1_threshold,f1,"
        f"precision_{PRECISE:g}_threshold,recall_there,precision_cross_fitted,recall_cross_fitted,note"
    )
    ordered = ([no_formula(cell) for cell in cells] for _, cells in sorted(rows, key=lambda row: row[0]))
    write_sheet(path, [header.split(","), *ordered])


def share_of(hits: NDArray[np.bool_], of: NDArray[np.bool_]) -> float | None:
    """How many of some are hits; None of none."""
    return float(hits[of].mean()) if of.any() else None


def four_decimals(value: float | None) -> str:
    """Four decimals, nothing for what is not known."""
    return "" if value is None or not np.isfinite(value) else f"{value:.4f}"


def draw_confusion(path: Path, scores: NDArray[np.float32], truth: NDArray[np.float32], taxonomy: Taxonomy) -> None:
    """confusion.png: labels against answers, species in the order of their lineage.

    Lines part families, strong lines classes: mistakes near the diagonal are between relatives."""
    from matplotlib.figure import Figure  # slow to import, and only drawn once

    lineages = taxonomy.lineages
    order = sorted(range(len(lineages)), key=lambda column: lineages[column])
    present, answer = truth[:, order], scores[:, order].argmax(axis=1)
    table = np.zeros((len(order), len(order)))
    for row, column in zip(*np.nonzero(present), strict=True):
        table[column, answer[row]] += 1
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    size = float(np.clip(0.22 * len(order) + 3, 6, 16))
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, shrink=0.6, ticks=np.sqrt([0, 0.05, 0.2, 0.5, 1]).tolist())
    bar.ax.set_yticklabels(["0", "5 %", "20 %", "50 %", "100 %"])
    bar.set_label("share of the recordings of a species")
    for index, (one, other) in enumerate(pairwise(order)):
        ranks = [lineages[one][: rank + 1] != lineages[other][: rank + 1] for rank in (CLASS, FAMILY)]
        if ranks[1]:
            colour, width = ("0.3", 1.2) if ranks[0] else ("0.8", 0.5)
            axes.axhline(index + 0.5, color=colour, linewidth=width)
            axes.axvline(index + 0.5, color=colour, linewidth=width)
    if len(order) <= NAMED:
        names = [taxonomy.common_names[column] or taxonomy.labels[column] for column in order]
        axes.set_xticks(range(len(order)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(order)), names, fontsize=7)
    axes.set_xlabel("answered")
    axes.set_ylabel("labelled")
    axes.set_title("Who is taken for whom\n(strong lines part classes, fine ones families)", fontsize="medium")
    with publish(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def draw_reliability(
    path: Path, raw: NDArray[np.floating[Any]], calm: NDArray[np.floating[Any]], truth: NDArray[np.float32], how: str
) -> None:
    """reliability.png: whether what is given a probability of .8 is true eight times out of ten, before and after.

    raw, calm, truth   (answers,) those that can be right or wrong, of each recording's highest window; with the
                       temperature and without
    how                the temperature was fitted: the legend says it
    """
    from matplotlib.figure import Figure  # slow to import, and only drawn once

    figure = Figure(figsize=(9, 4.4), layout="constrained")
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    left.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, values, colour in (("as trained", raw, "0.55"), (f"with its temperature, {how}", calm, "C0")):
        means, shares, counts = reliability_points(values, truth, 10)
        error = expected_calibration_error(values, truth)
        left.plot(means, shares, "o-", color=colour, label=f"{name}, error {error:.3f}")
        right.step(means, counts, where="mid", color=colour, label=name)
    left.set_xlabel("probability given")
    left.set_ylabel("share that was true")
    left.legend()
    right.set_yscale("log")
    right.set_xlabel("probability given")
    right.set_ylabel("answers (recordings x species)")
    with publish(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    animals = [("Aves", "Tit"), ("Aves", "Crow"), ("Amphibia", "Frog"), ("Insecta", "Cricket")]
    lineages = tuple(("Animalia", "?", name, f"{kin}ales", f"{kin}idae", kin, f"{kin} ficta") for name, kin in animals)
    names = tuple(lineage[-1] for lineage in lineages)
    four = Taxonomy(("t", "c", "f", "k"), names, ("tit", "crow", "frog", "cricket"), lineages, (7,) * 4)
    species = rng.integers(4, size=120)
    logits = 4 * np.eye(4)[species] + 2 * rng.normal(size=(120, 4)) - 2
    scores = (1 / (1 + np.exp(-3 * logits))).astype(np.float32)  # three times too sure
    rows = [Recording(Path(f"{index}.ogg"), f"{index}.ogg", group=str(index)) for index in range(120)]
    windows = WindowScores(np.arange(120), np.zeros(120), np.full(120, 5.0), scores, np.zeros((120, 2), np.float32))
    held_out = HeldOut(rows, np.eye(4, dtype=np.float32)[species], windows, None)
    calibration = calibrate(held_out, four)
    with tempfile.TemporaryDirectory() as folder:
        figures = evaluate(Path(folder), calibration.applied(held_out), calibration, four)
        print("wrote", ", ".join(sorted(path.name for path in Path(folder).iterdir())))
    assert calibration.temperature > 1.5, "a classifier that is too sure is cooled"
    assert figures["calibration_error"] < expected_calibration_error(scores, held_out.truth)
