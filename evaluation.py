"""What a trained classifier is worth: its answers on held-out recordings, calibrated, as figures, tables and pictures.

    exam = joined([Exam(valid, truth, windows, None), ...])          # one part per fold
    calibration = calibrate(exam, taxonomy)                          # temperature, thresholds per species and rank
    figures = examine(folder, calibration.applied(exam), calibration, taxonomy)

Writes   held_out_scores.csv, held_out_recordings.csv, embeddings.npz, species.csv, thresholds.csv, confusion.png,
         reliability.png

Labels are given per recording. To rank recordings, the mean over a recording's windows is taken; to fit thresholds,
which a user applies to windows, the highest of them. Intervals come from drawing whole groups of recordings anew.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration import (
    Threshold,
    apply_temperature,
    expected_calibration_error,
    fit_temperature,
    fit_threshold,
    fit_thresholds,
    moved_to,
    reliability_points,
    write_thresholds,
)
from detections import score_columns, write_row, write_scores
from metrics import (
    answers_scorecard,
    bootstrap_interval,
    class_average_precision,
    class_roc_auc,
    cmap,
    false_alarms_per_hour,
    false_positive_severity,
    least_cost_answers,
    macro_roc_auc,
    rank_roc_auc,
    scorecard,
    top1_accuracy,
    undecided,
)
from ranks import deepest_answers, rank_groups, rank_probabilities, rank_truth
from recordings import Recording, write_recordings
from runs import no_formula, publish
from taxonomy import CLASS, FAMILY, Taxonomy, ancestor_matrix, pairwise_distances

PRECISE = 0.9  # precision that thresholds are asked for
FEWEST = 10  # right answers that a threshold is fitted on
MOST_ANSWERS = 20_000_000  # that a temperature is fitted on; of more, every second, third, ...
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
class Exam:
    """Held-out recordings, and what a classifier that never heard them makes of them."""

    recordings: Sequence[Recording]
    truth: NDArray[np.float32]  # (recordings, species)
    windows: WindowScores
    silence: WindowScores | None  # of recordings in which there is no species at all, where such are given


@dataclass(frozen=True)
class Calibration:
    """What is fitted on held-out recordings and travels in the classifier's file."""

    temperature: float
    thresholds: tuple[Threshold, ...]  # one per species
    rank_thresholds: Mapping[str, float]  # by rank: from here on its best taxon is right nine times out of ten

    def applied(self, exam: Exam) -> Exam:
        """The exam with the probabilities as the calibrated classifier gives them."""

        def cooled(windows: WindowScores) -> WindowScores:
            return replace(windows, scores=apply_temperature(windows.scores, self.temperature).astype(np.float32))

        silence = cooled(exam.silence) if exam.silence else None
        return replace(exam, windows=cooled(exam.windows), silence=silence)


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


def joined(exams: Sequence[Exam]) -> Exam:
    """The parts of a cross-validation as one exam: every recording judged by the model that never heard it."""
    offsets = np.cumsum([0, *(len(exam.recordings) for exam in exams)])
    silences = [exam.silence for exam in exams if exam.silence]
    return Exam(
        [recording for exam in exams for recording in exam.recordings],
        np.concatenate([exam.truth for exam in exams]),
        stacked([exam.windows for exam in exams], offsets),
        stacked(silences, np.zeros(len(silences), np.int64)) if silences else None,
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


def calibrate(exam: Exam, taxonomy: Taxonomy) -> Calibration:
    """Fit the temperature on windows, then thresholds on recordings: per species, and per rank."""
    sure = np.clip(exam.windows.scores.astype(np.float64), LITTLE, 1 - LITTLE)
    judged = judged_entries(exam.truth, taxonomy)
    counted = judged[exam.windows.owner]
    logits, heard = np.log(sure / (1 - sure))[counted], exam.truth[exam.windows.owner][counted]
    thinning = 1 + len(logits) // MOST_ANSWERS
    temperature = fit_temperature(logits[::thinning], heard[::thinning])
    cooled = Calibration(temperature, (), {}).applied(exam)
    highest = loudest_windows(cooled.windows, len(exam.recordings))
    thresholds = tuple(fit_thresholds(highest, exam.truth, taxonomy.labels, PRECISE, FEWEST, judged))
    return Calibration(temperature, thresholds, fit_rank_thresholds(highest, exam.truth, taxonomy))


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


def carried_over_ranks(
    limits: Mapping[str, float], before: NDArray[np.float32], after: NDArray[np.float32], taxonomy: Taxonomy
) -> dict[str, float]:
    """Thresholds of ranks for another file of the same classifier: of each rank as many of the windows reach them.

    limits         by rank
    before, after  (windows, species) probabilities, of the file they were fitted for and of the other
    """
    groups = rank_groups(taxonomy)
    surest = {rank: [rank_probabilities(one, groups[rank]).max(axis=1) for one in (before, after)] for rank in limits}
    return {rank: moved_to(limit, *surest[rank]) for rank, limit in limits.items()}


def best_taxa(
    scores: NDArray[np.float32], truth: NDArray[np.float32], groups: Mapping[str, NDArray[np.int64]], rank: str
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Of each recording's best taxon at a rank: how probable it is, whether it is there, and whether anybody can say:
    where somebody wrote "bird", a tit is neither right nor wrong; where there is nothing, it is wrong."""
    told = rank_probabilities(scores, groups[rank])
    best = told.argmax(axis=1)
    right = rank_truth(truth, groups[rank])[np.arange(len(best)), best]
    perhaps = (undecided(truth > 0, groups, rank) & (groups[rank] == best[:, None])).any(axis=1)
    return told.max(axis=1), right, right | ~perhaps


def examine(folder: Path, exam: Exam, calibration: Calibration, taxonomy: Taxonomy) -> dict[str, float]:
    """Everything about a calibrated exam: printed, and as files in a folder; returns the figures."""
    truth, windows, count = exam.truth, exam.windows, len(exam.recordings)
    scores, highest = pool_windows(windows, count), loudest_windows(windows, count)
    distances, labelled = pairwise_distances(taxonomy), np.flatnonzero(truth.any(axis=1))
    groups = np.array([recording.group for recording in exam.recordings])
    figures = scorecard(truth, scores, distances)
    careful = answers_scorecard(truth[labelled], least_cost_answers(scores[labelled], distances), distances)
    judged = judged_entries(truth, taxonomy)
    counted = judged[windows.owner]
    severity, number = false_positive_severity(truth, scores, distances, 0.5, judged)
    figures |= {
        "least_cost_distance": careful["mistake_distance"],
        "false_positive_severity": severity,
        "false_positives_per_recording": number,
        "temperature": calibration.temperature,
        "calibration_error": expected_calibration_error(windows.scores[counted], truth[windows.owner][counted]),
    }
    figures |= {f"auc_{rank}": area for rank, area in rank_roc_auc(truth, scores, rank_groups(taxonomy)).items()}
    print(f"{count} held-out recordings, {len(windows.owner)} windows, {truth.shape[1]} species")
    for name, statistic in (("macro_auc", macro_roc_auc), ("cmap", cmap), ("top1", top1_accuracy)):
        if len(np.unique(groups[labelled])) == 1:
            print(f"  {name:20} {figures[name]:.3f}  (one group of recordings: no interval)")
            continue
        low, high = bootstrap_interval(statistic, truth[labelled], scores[labelled], groups[labelled])
        figures |= {f"{name}_low": low, f"{name}_high": high}
        print(f"  {name:20} {figures[name]:.3f}  [{low:.3f}, {high:.3f}]")
    areas = [f"{rank} {figures[f'auc_{rank}']:.3f}" for rank in rank_groups(taxonomy)]
    print(f"  AUC by rank          {', '.join(areas)}")
    print(
        f"  taxonomic distance   {figures['mistake_distance']:.3f} of the best answer, "
        f"{figures['least_cost_distance']:.3f} of the least costly one; {severity:.3f} of the false alarms at recall .5"
    )
    print(f"  calibration          temperature {calibration.temperature:.2f}, error {figures['calibration_error']:.3f}")
    print(f"  {rank_line(highest, truth, calibration, taxonomy)}")
    limits = np.array([limit.best_f1 if limit.precise is None else limit.precise for limit in calibration.thresholds])
    empty = windows_without_species(exam)
    if empty is not None:
        for name, limit in (("0.5", np.float64(0.5)), ("thresholds", limits)):
            alarms = false_alarms_per_hour(empty.scores, limit, empty.hours)
            figures[f"false_alarms_per_hour_at_{name}"] = alarms
            print(f"  false alarms         {alarms:.1f} per hour at {name}, on {empty.hours:.2f} h without any species")
    precise = sum(limit.precise is not None for limit in calibration.thresholds)
    few = sum("few" in limit.note for limit in calibration.thresholds)
    print(f"  thresholds           precision {PRECISE:g} reached by {precise} species, too few to say for {few}")
    write_held_out(folder, exam, taxonomy)
    write_embeddings(folder / "embeddings.npz", exam)
    write_species(folder / "species.csv", exam, scores, calibration, taxonomy)
    with publish(folder / "thresholds.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        write_thresholds(
            file, calibration.thresholds, taxonomy.scientific_names, source="held-out recordings", model=""
        )
    draw_confusion(folder / "confusion.png", scores[labelled], truth[labelled], taxonomy)
    draw_reliability(
        folder / "reliability.png", windows.scores[counted], truth[windows.owner][counted], calibration.temperature
    )
    return figures


def windows_without_species(exam: Exam) -> WindowScores | None:
    """The windows in which any detection is a false alarm: of noise, and of held-out recordings without a label."""
    own = exam.windows
    deaf = exam.truth[own.owner].max(axis=1) == 0
    empty = WindowScores(own.owner[deaf], own.starts[deaf], own.ends[deaf], own.scores[deaf], own.embeddings[deaf])
    parts = [part for part in (exam.silence, empty) if part is not None and len(part.owner)]
    return stacked(parts, np.zeros(len(parts), np.int64)) if parts else None


def rank_line(
    highest: NDArray[np.float32], truth: NDArray[np.float32], calibration: Calibration, taxonomy: Taxonomy
) -> str:
    """How many recordings are answered at which rank, and how often rightly, as far as that can be said."""
    answers = deepest_answers(highest, taxonomy, calibration.rank_thresholds)
    groups, said, unsaid = rank_groups(taxonomy), list[str](), 0
    for rank in reversed(groups):
        mine = [row for row, answer in enumerate(answers) if answer is not None and answer.rank == rank]
        if mine:
            _, right, judged = best_taxa(highest[mine], truth[mine], groups, rank)
            unsaid += int((~judged).sum())
            if judged.any():
                said.append(f"{judged.sum()} at {rank} ({right[judged].mean():.0%} right)")
    said += [f"{unsaid} below a coarser label"] if unsaid else []
    silent = sum(answer is None for answer in answers)
    return f"answers by rank      {', '.join([*said, f'{silent} none'])}"


def write_held_out(folder: Path, exam: Exam, taxonomy: Taxonomy) -> None:
    """held_out_scores.csv, in the form of the predictor's scores.csv, and held_out_recordings.csv, a table of
    recordings: what quantize.py compares on."""
    windows = exam.windows
    rows = [replace(recording, path=recording.path.absolute()) for recording in exam.recordings]
    write_recordings(folder / "held_out_recordings.csv", rows)
    path = folder / "held_out_scores.csv"
    with publish(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        write_row(file, score_columns(taxonomy))
        for index, recording in enumerate(exam.recordings):
            mine = windows.owner == index
            starts, ends = windows.starts[mine].tolist(), windows.ends[mine].tolist()
            write_scores(file, str(recording.path.resolve()), starts, ends, windows.scores[mine])


def write_embeddings(path: Path, exam: Exam) -> None:
    """embeddings.npz: embedding (windows, width), and the recording, start, end and fold of each window.

    Each fold has an encoder of its own: compare embeddings within a fold only."""
    windows = exam.windows
    owners: list[int] = windows.owner.tolist()
    rows = [exam.recordings[index] for index in owners]
    with publish(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            embedding=windows.embeddings,
            recording=np.array([str(row.path.resolve()) for row in rows]),
            start=windows.starts,
            end=windows.ends,
            fold=np.array([row.fold for row in rows]),
        )


def write_species(
    path: Path, exam: Exam, scores: NDArray[np.float32], calibration: Calibration, taxonomy: Taxonomy
) -> None:
    """species.csv: how well each species is known, those known least first."""
    areas, precisions = class_roc_auc(exam.truth, scores), class_average_precision(exam.truth, scores)
    groups = [recording.group for recording in exam.recordings]
    rows: list[tuple[float, list[str]]] = []
    for column, limit in enumerate(calibration.thresholds):
        mine = np.flatnonzero(exam.truth[:, column])
        lineage = taxonomy.lineages[column]
        cells = [
            taxonomy.labels[column],
            taxonomy.scientific_names[column],
            taxonomy.common_names[column],
            lineage[CLASS],
            lineage[FAMILY],
            str(len(mine)),
            str(len({groups[row] for row in mine})),
            number(areas[column]),
            number(precisions[column]),
            number(limit.best_f1),
            number(limit.f1),
            number(limit.precise),
            number(limit.recall if limit.precise is not None else None),
            limit.note,
        ]
        rows.append((float(np.nan_to_num(precisions[column], nan=-1.0)), cells))
    header = (
        "label,scientific_name,common_name,class,family,recordings,groups,auc,average_precision,best_f1_threshold,f1,"
        f"precision_{PRECISE:g}_threshold,recall_there,note"
    )
    with publish(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header.split(","))
        table.writerows([no_formula(cell) for cell in cells] for _, cells in sorted(rows, key=lambda row: row[0]))


def number(value: float | None) -> str:
    """Four decimals, nothing for what is not known."""
    return "" if value is None or not np.isfinite(value) else f"{value:.4f}"


def draw_confusion(path: Path, scores: NDArray[np.float32], truth: NDArray[np.float32], taxonomy: Taxonomy) -> None:
    """confusion.png: what was heard against what was answered, species in the order of their lineage.

    Lines part families, strong lines classes: mistakes near the diagonal are between relatives."""
    from matplotlib.figure import Figure  # slow to import, and only drawn once

    lineages = taxonomy.lineages
    order = sorted(range(len(lineages)), key=lambda column: lineages[column])
    heard, answer = truth[:, order], scores[:, order].argmax(axis=1)
    table = np.zeros((len(order), len(order)))
    for row, column in zip(*np.nonzero(heard), strict=True):
        table[column, answer[row]] += 1
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    size = float(np.clip(0.22 * len(order) + 3, 6, 16))
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, shrink=0.6, ticks=np.sqrt([0, 0.05, 0.2, 0.5, 1]).tolist())
    bar.ax.set_yticklabels(["0", "5 %", "20 %", "50 %", "100 %"])
    bar.set_label("share of the recordings of a species")
    for place, (one, other) in enumerate(pairwise(order)):
        ranks = [lineages[one][: rank + 1] != lineages[other][: rank + 1] for rank in (CLASS, FAMILY)]
        if ranks[1]:
            colour, width = ("0.3", 1.2) if ranks[0] else ("0.8", 0.5)
            axes.axhline(place + 0.5, color=colour, linewidth=width)
            axes.axvline(place + 0.5, color=colour, linewidth=width)
    if len(order) <= NAMED:
        names = [taxonomy.common_names[column] or taxonomy.labels[column] for column in order]
        axes.set_xticks(range(len(order)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(order)), names, fontsize=7)
    axes.set_xlabel("answered")
    axes.set_ylabel("heard")
    axes.set_title("Who is taken for whom; strong lines part classes, fine ones families")
    with publish(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def draw_reliability(path: Path, scores: NDArray[np.float32], truth: NDArray[np.float32], temperature: float) -> None:
    """reliability.png: whether what is given a probability of .8 is true eight times out of ten, before and after.

    scores, truth   (answers,) those that can be right or wrong
    """
    from matplotlib.figure import Figure  # slow to import, and only drawn once

    raw = apply_temperature(scores, 1 / temperature)
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    left.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, values, colour in (("as trained", raw, "0.55"), (f"temperature {temperature:.2f}", scores, "C0")):
        means, shares, counts = reliability_points(values, truth, 10)
        error = expected_calibration_error(values, truth)
        left.plot(means, shares, "o-", color=colour, label=f"{name}, error {error:.3f}")
        right.step(means, counts, where="mid", color=colour, label=name)
    left.set_xlabel("probability given")
    left.set_ylabel("share that was true")
    left.legend()
    right.set_yscale("log")
    right.set_xlabel("probability given")
    right.set_ylabel("answers (windows x species)")
    with publish(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    animals = [("Aves", "Tit"), ("Aves", "Crow"), ("Amphibia", "Frog"), ("Insecta", "Cricket")]
    lineages = tuple(("Animalia", "?", name, f"{kin}ales", f"{kin}idae", kin, f"{kin} ficta") for name, kin in animals)
    names = tuple(lineage[-1] for lineage in lineages)
    four = Taxonomy(("t", "c", "f", "k"), names, ("tit", "crow", "frog", "cricket"), lineages, (7,) * 4)
    heard = rng.integers(4, size=120)
    logits = 4 * np.eye(4)[heard] + 2 * rng.normal(size=(120, 4)) - 2
    scores = (1 / (1 + np.exp(-3 * logits))).astype(np.float32)  # three times too sure
    rows = [Recording(Path(f"{index}.ogg"), f"{index}.ogg", group=str(index)) for index in range(120)]
    windows = WindowScores(np.arange(120), np.zeros(120), np.full(120, 5.0), scores, np.zeros((120, 2), np.float32))
    exam = Exam(rows, np.eye(4, dtype=np.float32)[heard], windows, None)
    calibration = calibrate(exam, four)
    with tempfile.TemporaryDirectory() as place:
        figures = examine(Path(place), calibration.applied(exam), calibration, four)
        print("wrote", ", ".join(sorted(path.name for path in Path(place).iterdir())))
    assert calibration.temperature > 1.5, "a classifier that is too sure is cooled"
    assert figures["calibration_error"] < expected_calibration_error(scores, exam.truth)
