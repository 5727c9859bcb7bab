"""Verdicts of people who listened -> a threshold per species, and a table of windows to train on.

    verdicts, strangers = read_verdicts(Path("validation.csv"), results)
    settled, disputed = settle(verdicts)
    thresholds = verdict_thresholds(settled, results.detections, wanted=0.9)
    rows, undecided = training_rows(settled, results.detections, find)

Reads    validation.csv, as the page of report.py hands it out; recordings.csv of a training, for its rows to go on
Writes   recordings.csv and taxonomy.csv, which main.py takes

A threshold is the lowest at which the wanted share of all detections is right, by a logistic regression of verdict on
logit; under 20 verdicts, or with Yes alone, nothing is said. Twenty times No and never Yes silence a species: its
threshold is above all its scores.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from archive.lineages import label_row, shipped, with_lineages
from archive.recordings import Recording, read_recordings, write_recordings
from evaluation.calibration import LEVEL, NEVER, SILENCED, TOO_FEW, Threshold, just_above
from runtime.cells import no_formula, write_sheet
from runtime.csvs import read_table
from serving.results import NEEDED, Detected, Results, detected, hidden, read_results, rows_of
from taxonomy import RANKS, key

ADDED = ("validation", "Verdict", "True species", "Reviewer", "Judged at", "Drawn")  # to the columns of detections.csv
RANDOM = ("even", "random", "all", "plan")  # ways of drawing that make a random sample of each tenth of the scale
RANKED, QUIET = "ranked", ", without voices"  # two that do not
LEAST = 20  # verdicts, of both kinds together, before anything is said
NOTHING = "nothing"  # in place of a species: there is no animal in it
MILD = 100.0  # the penalty's inverse: enough where a score parts yes and no without a mistake, nothing elsewhere


@dataclass(frozen=True)
class Verdict:
    """What somebody who listened says of a detection."""

    detected: Detected
    answer: str  # yes, no, unsure
    species: str  # what it really is, as the reviewer wrote it, or NOTHING; mostly blank
    reviewer: str
    drawn: str = ""  # how its window was drawn; blank where the table does not say


def read_verdicts(path: Path, results: Results) -> tuple[list[Verdict], int]:
    """The rows that somebody judged, and how many rows are of no detection of these results.

    A table of birdnetTools, with 1 and 0 in a column `validation`, will do as well; so will one whose recordings were
    hidden, as long as detections.csv is the one that its page was made of.
    """
    assert path.is_file(), f"no {path}; name the validation.csv that the page hands out (its button `Save`)"
    known = {identity(d): d for d in results.detections}
    pairs = zip(hidden(results).detections, results.detections, strict=True)
    numbered = {(identity(other), other.confidence): d for other, d in pairs}
    verdicts, strangers = list[Verdict](), 0
    for where, row in rows_of(path, NEEDED):
        answer = row.get("Verdict", "") or answer_of(where, row.get("validation", ""))
        if not answer:
            continue
        assert answer in ("yes", "no", "unsure"), f"{where}: the verdict {answer!r} is none of yes, no, unsure"
        judged = detected(where, row)
        d = known.get(identity(judged)) or numbered.get((identity(judged), judged.confidence))
        if d is None:
            strangers += 1
        else:
            species = plain_label(row.get("True species", ""))
            species = NOTHING if key(species) == NOTHING else species
            reviewer, drawn = (plain_label(row.get(name, "")) for name in ("Reviewer", "Drawn"))
            verdicts.append(Verdict(d, answer, species, reviewer, drawn))
    return verdicts, strangers


def answer_of(where: str, cell: str) -> str:
    """A cell of birdnetTools, as R or pandas may have saved it: nothing where nobody judged."""
    text = cell.strip().casefold()
    answer = {"1": "yes", "1.0": "yes", "true": "yes", "0": "no", "0.0": "no", "false": "no"}.get(text, "")
    assert answer or text in ("", "na", "nan"), f"{where}: validation {cell!r} is none of 1, 0 and nothing"
    return answer


def settle(verdicts: Sequence[Verdict]) -> tuple[dict[Detected, Verdict], list[Detected]]:
    """Per detection the one verdict, yes or no, that nobody contradicts; and what reviewers disagree on."""
    said: defaultdict[Detected, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.answer != "unsure":
            said[verdict.detected].append(verdict)
    disputed = [d for d, answers in said.items() if len({verdict.answer for verdict in answers}) > 1]
    for d in disputed:
        del said[d]
    settled: dict[Detected, Verdict] = {}
    for d, answers in said.items():
        species = {key(verdict.species): verdict.species for verdict in reversed(answers) if verdict.species}
        settled[d] = replace(answers[0], species=next(iter(species.values())) if len(species) == 1 else "")
    return settled, disputed


def verdict_thresholds(
    settled: Mapping[Detected, Verdict], detections: Sequence[Detected], wanted: float
) -> list[Threshold]:
    """One per species that was judged; a note says where nothing can be said. Answers above species have none."""
    judged: defaultdict[str, list[Verdict]] = defaultdict(list)
    for d, verdict in settled.items():
        if not is_rank(d.label):
            judged[d.label].append(verdict)
    return [
        verdict_threshold(label, judged[label], [d.confidence for d in detections if d.label == label], wanted)
        for label in sorted(judged)
    ]


def verdict_threshold(label: str, judged: Sequence[Verdict], found: Sequence[float], wanted: float) -> Threshold:
    """The lowest threshold at which the wanted share of all detections of a species is right, as the verdicts have it.

    judged    any sample of the detections, such as as many from each tenth of the scale
    found     the confidence of all detections: what a sample drawn evenly has too few or too many of counts as it does
              there
    source    the fit of Wood & Kahl 2024, https://doi.org/10.1007/s10336-024-02144-5; the precision above a threshold
              as its mean over the detections, Tseng et al. 2025, https://doi.org/10.1007/s10336-025-02260-w
    """
    from sklearn.linear_model import LogisticRegression  # slow to import, and the page does without

    from evaluation.fitting import fit_thresholds, parting, wilson_interval  # likewise

    scores = np.array([verdict.detected.confidence for verdict in judged])
    right = np.array([verdict.answer == "yes" for verdict in judged])
    plainly = fit_thresholds(scores[:, None], right[:, None], [label], wanted, least=0)[0]  # for its best F1
    silenced = len(judged) >= LEAST and not right.any()
    few = len(judged) < LEAST or bool(right.all())
    precise = None
    if not few and not silenced:
        everything = np.array(found)
        levels, counts = np.unique(everything[everything >= scores.min()], return_counts=True)  # below, nobody listened
        levels, counts = levels[::-1], counts[::-1]
        curve = LogisticRegression(C=MILD).fit(logit(scores)[:, None], right)
        chances = curve.predict_proba(logit(levels)[:, None])[:, 1]
        enough = np.flatnonzero((chances * counts).cumsum() / counts.cumsum() >= wanted)
        precise = parting(levels, int(enough[-1])) if enough.size else None
    note = TOO_FEW if few else SILENCED if silenced else NEVER if precise is None else ""
    least = just_above(np.array([*found, *scores])) if silenced else 0.0
    threshold = replace(plainly, precise=precise, note=note, least=least)
    above = scores >= (0.0 if few or silenced else threshold.applied)
    hits, trials = int(right[above].sum()), int(above.sum())
    low, high = wilson_interval(hits, trials, LEVEL)
    return replace(threshold, precision_low=low, precision_high=high, recall=hits / max(1, int(right.sum())))


def training_rows(
    settled: Mapping[Detected, Verdict], detections: Sequence[Detected], find: Callable[[str], Path | None]
) -> tuple[list[Recording], dict[str, int]]:
    """A labelled segment for each window of which it is known what is in it, and how many windows were left out, why.

    Confirmed: the species confirmed in it, and those that a reviewer named instead of a denied one. Denied: a hard
    negative, listened to and without any species, where all detections of the window are denied or a reviewer wrote
    that there is nothing. Where another detection of the window is unjudged it is left out: it may be right.
    """
    label_of = {key(name): plain_label(d.label) for d in reversed(detections) for name in names_of(d) if name}
    windows: defaultdict[tuple[str, float, float, str], list[Detected]] = defaultdict(list)
    for d in detections:
        windows[d.window].append(d)
    rows: list[Recording] = []
    left_out = {"undecided": 0, "missing": 0}
    for together in windows.values():
        judged = [settled[d] for d in together if d in settled]
        if not judged:
            continue
        # what the verdicts say of this window
        present = [plain_label(v.detected.label) for v in judged if v.answer == "yes" and not is_rank(v.detected.label)]
        named = [v.species for v in judged if v.answer == "no" and v.species and v.species != NOTHING]
        present += [label_of.setdefault(key(name), name) for name in named]  # of two spellings the first
        denied = [plain_label(v.detected.label) for v in judged if v.answer == "no"]
        empty = len(denied) == len(together) or (len(denied) == len(judged) and NOTHING in {v.species for v in judged})
        # what is not certain, or has no sound, is left out
        if not present and not empty:
            left_out["undecided"] += 1
            continue
        path, first = find(together[0].file), together[0]
        if path is None:
            left_out["missing"] += 1
            continue
        rows.append(
            Recording(
                path.resolve(),
                path.name,
                tuple(dict.fromkeys(present)),
                start=first.start,
                end=first.end,
                listened=not present,
                absent=tuple(label for label in dict.fromkeys(denied) if label not in present and not is_rank(label)),
                source="verdicts",
                site=plain_label(first.cell("Site")),
                recorded_at=plain_label(first.cell("Recorded at")),
            )
        )
    return named_below_root(rows), left_out


def named_below_root(rows: Sequence[Recording]) -> list[Recording]:
    """Rows whose names lead from the folder that all of them are in."""
    if not rows:
        return []
    root = os.path.commonpath([row.path.parent for row in rows])
    return [replace(row, name=row.path.relative_to(root).as_posix()) for row in rows]


def write_training(
    folder: Path, rows: Sequence[Recording], detections: Sequence[Detected], training: Path | None
) -> None:
    """recordings.csv and taxonomy.csv.

    training   a recordings.csv whose rows go first, with the taxonomy.csv beside it, but for those of earlier verdicts
               on the same windows. Where it has folds, a recording it knows keeps its own, and others are dealt out by
               their site
    """
    judged = {(row.path.resolve(), row.start, row.end) for row in rows}
    before = [
        row
        for row in (read_recordings(training) if training else [])
        if row.source != "verdicts" or (row.path.resolve(), row.start, row.end) not in judged
    ]
    lineages = read_table(training.with_name("taxonomy.csv"), ("primary_label",)) if training and before else []
    known = {row["primary_label"] for _, row in lineages}
    names = {plain_label(d.label): (d.cell("Scientific name"), d.cell("Common name")) for d in detections}
    new = dict.fromkeys(label for row in rows for label in row.labels if label not in known)
    added = [("", label_row(label, *map(plain_label, names.get(label, ("", ""))))) for label in new]
    lineages += with_lineages(added, [shipped()])[0]
    folds = max((row.fold for row in before), default=-1) + 1
    of_recording = {row.path.resolve(): (row.group, row.fold) for row in before}
    if folds:
        rows = [
            replace(row, group=group, fold=fold)
            for row in rows
            for group, fold in [group_and_fold(row, of_recording, folds)]
        ]
    write_recordings(folder / "recordings.csv", [*before, *rows])
    columns = list(dict.fromkeys(column for _, row in lineages for column in row))
    taxa = [[row.get(column, "") for column in columns] for _, row in lineages]
    write_sheet(folder / "taxonomy.csv", [columns or ["primary_label", "scientific_name"], *taxa])


def group_and_fold(row: Recording, of_recording: Mapping[Path, tuple[str, int]], folds: int) -> tuple[str, int]:
    """Group and fold of a window: those of its recording, or one fold for all recordings of a site."""
    group = f"verdicts at {row.site or row.name}"
    return of_recording.get(row.path, (group, zlib.crc32(group.encode()) % folds))


def undecided_labels(thresholds: Collection[Threshold]) -> list[str]:
    """The labels of which too little is known for a threshold."""
    return [threshold.label for threshold in thresholds if threshold.note == TOO_FEW]


def identity(d: Detected) -> tuple[str, float, float, str, str]:
    """What makes a detection the same in two tables, whatever a spreadsheet did to its numbers."""
    return no_formula(d.file), d.start, d.end, no_formula(d.label), no_formula(d.cell("Channel"))


def names_of(d: Detected) -> tuple[str, str, str]:
    return d.cell("Common name"), d.cell("Scientific name"), d.label


def is_rank(label: str) -> bool:
    """Whether an answer is a taxon above the labels, as `genus Rana` is."""
    rank, blank, name = label.partition(" ")
    return bool(blank and name) and rank in RANKS


def plain_label(text: str) -> str:
    """A cell on one line, without what parts lists or begins a formula."""
    return " ".join(text.replace(";", ",").split()).lstrip("=+-@'")


def logit(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """log(p / (1 - p)) of confidences with four decimals, whose 0 and 1 are rounded."""
    p = shares.clip(5e-5, 1 - 5e-5)
    return np.asarray(np.log(p) - np.log1p(-p))


if __name__ == "__main__":
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary_folder:
        folder = Path(temporary_folder)
        (folder / "pond.wav").touch()
        lines = ["Start (s),End (s),Scientific name,Common name,Confidence,File,validation"]
        for number, confidence in enumerate(generator.uniform(0.1, 1.0, 200)):
            right = int(generator.random() < confidence)  # a score that can be believed
            lines.append(f"{5 * number},{5 * number + 5},Rana ficta,pretend frog,{confidence:.4f},pond.wav,{right}")
        (folder / "detections.csv").write_text("\n".join(lines) + "\n")
        results = read_results(folder)
        settled = settle(read_verdicts(folder / "detections.csv", results)[0])[0]
        threshold = verdict_thresholds(settled, results.detections, 0.9)[0]
        table, _ = training_rows(settled, results.detections, lambda name: folder / name)
    print(f"90 % of the frogs are right from {threshold.applied} on; {len(table)} windows to train on")
    assert 0.7 < threshold.applied < 0.9, "from 0.8 to 1 every tenth of the honest scores is wrong"
