"""Verdicts on windows of an index -> a classifier in seconds, and what to listen to next.

    python refit.py season.index validation.csv
    python report.py season.index/refit/next
    python refit.py season.index validation.csv validation-2.csv

Reads    the index of search.py; validation.csv as the page of report.py hands it out; the ONNX file of the index
Writes   classifier.onnx, or .int8.onnx: that file with a new head, of somebody else's file card.json and labels.csv
         too; thresholds.csv, refit.json, run.json; next/ with the tables of predictor.py

No sound is opened and no network is run: a head is fitted on the embeddings that the index has. What it is worth is
said by windows of recordings that it was not fitted to, where there are five sites or more by windows of other sites,
among what was listened to: that was chosen, so it is no random sample of the season.
"""

from __future__ import annotations

import runtime.openmp  # pyright: ignore[reportUnusedImport] - it counts when torch is loaded
import runtime.stopping  # noqa: F401  # pyright: ignore[reportUnusedImport] - Ctrl-C counts from here on

from config import RefitCommand
from runtime.terminal import answer_early

if __name__ == "__main__":
    answer_early(RefitCommand)  # before what takes seconds to import

import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from archive.index import agree, height, parted
from archive.lineages import label_row, shipped, with_lineages
from evaluation.calibration import write_thresholds
from runtime.cells import no_formula, open_text, plain_path
from runtime.digests import sha256
from runtime.files import read_json, write_json
from runtime.runs import open_run, refuse_others
from runtime.terminal import command_line, launch, show
from serving.detections import Analysed
from serving.foreign import model_digest, open_foreign
from serving.journal import refuse_parts
from serving.model_cards import Card, embeddings_output, read_card, write_card
from serving.new_heads import NewHead, write_foreign_head, write_new_head
from serving.ranked import Like, indexed_recordings, write_ranked_tables
from serving.results import NEEDED, Detected, Results, detected, rows_of
from serving.review import NOTHING, Verdict, is_rank, names_of, plain_label, read_verdicts, settle
from serving.vectors import Store, open_store
from taxonomy import build_taxonomy, key
from training.verdict_head import (
    Judged,
    LabelJudgement,
    LinearHead,
    choose_next,
    fit_verdict_head,
    judge_labels,
    probabilities,
)

CARD = "card.json"  # beside the new file of somebody else's model
BACKGROUND = 500  # windows at most that nobody listened to, which are taken for what an archive mostly holds
MANY_SITES = 5  # from so many on a head is judged by other sites, below by other recordings
AT_A_TIME = 65_536  # windows


class Listened(NamedTuple):
    """What the verdicts say of windows of the index."""

    rows: NDArray[np.intp]  # of the store
    labels: list[str]
    names: dict[str, tuple[str, str]]  # scientific and common name of each label
    present: NDArray[np.bool_]  # (rows, labels)
    known: NDArray[np.bool_]
    strangers: int  # verdicts on windows that the index does not have
    disputed: int  # labels of windows on which verdicts contradict each other; they are not known there


class Said(NamedTuple):
    """Labels of one window, by what the verdicts say of them."""

    there: set[str]
    absent: set[str]
    disputed: set[str]


def refit(config: RefitCommand) -> int:
    """The command; returns the exit code: 2 where some verdicts are on windows that the index does not have."""
    assert len(config.inputs) > 1, (
        "give an index and verdicts; for example: python refit.py season.index validation.csv"
    )
    # what was listened to, of which index
    started = time.perf_counter()
    index, *tables = config.inputs
    store = open_store(index)
    model = model_of(config, store)
    out = folder_of(config, index, model)
    terms = terms_of(index)
    for line in terms.get("licences", []):
        show(str(line))
    recordings = indexed_recordings(index, store)
    listened = read_listened(tables, store, recordings)
    # a head, and how good such heads are where they were not fitted
    group_of, what = groups_of(listened.rows, store, recordings)
    around = background_of(store, listened.rows, config.seed)
    groups, groups_around = (group_of[store.places["recording"][rows]] for rows in (listened.rows, around))
    judged = Judged(store.standard(listened.rows), listened.present, listened.known, groups)
    background = store.standard(around)
    judgements = judge_labels(judged, background, listened.labels, config.precision, groups_around)
    head = fit_verdict_head(judged, background)
    show("\n".join(label_table(judgements, what)))
    # the file that predictor.py takes, and what to listen to next
    with open_run("refit", out, config, out) as run:
        path = write_classifier(config, run.folder, store, model, head, listened, judgements)
        more = config.next > 0 and write_next(config, run.folder / "next", index, store, head, listened, recordings)
        run.facts.update(windows=len(listened.rows), labels=listened.labels, **terms)
    show(f"{len(listened.rows)} windows that were listened to, {time.perf_counter() - started:.1f} s")
    if listened.disputed:
        show(f"{listened.disputed} labels of windows on which verdicts contradict each other are left out")
    if listened.strangers:
        show(f"{listened.strangers} verdicts are on windows that {index} does not have; they were left out")
    show(f"wrote {path}, {run.folder / 'thresholds.csv'}, {run.folder / 'refit.json'}")
    flags = ["--card", path.with_name(CARD), "--thresholds", run.folder / "thresholds.csv"] if card_of(store) else []
    words = [*store.facts["inputs"], "--model", path, *flags]
    show(f"next, or with other recordings: {command_line('predictor.py', *words)}")
    if more:
        show(f"to listen on: {command_line('report.py', run.folder / 'next', '--strategy', 'all')}")
    return 2 if listened.strangers else 0


def model_of(config: RefitCommand, store: Store) -> Path:
    """The file that the index was made with, and no other."""
    known = Path(str(store.facts["model"]))
    path = config.classifier or known
    assert path.is_file() or path == known, (
        f"no file {path}; the index was made with {known}: give that, or leave --classifier out"
    )
    assert path.is_file(), f"the index was made with {path}, which is not there; say with --classifier where it is now"
    index, made = config.inputs[0], known.with_suffix(".onnx")
    words = ["search.py", "index", *store.facts["inputs"], "--model", str(made), "--index", f"{index}-onnx"]
    assert known.suffix != ".xml", (
        f"{index} was made with {known}, and a new head goes into an ONNX file alone; make another index with that: "
        f"{command_line(*words)}"
    )
    assert model_digest(path) == store.facts["model_sha256"], (
        f"{path} is not the file that the index was made with ({known}); its embeddings are others"
    )
    return path


def terms_of(index: Path) -> dict[str, list[Any]]:
    """On what terms the model of an index may be used, as the run that made the index says it; nothing where it says
    nothing."""
    path = index / "run.json"
    said = read_json(path, "make the index anew") if path.is_file() else {}
    return {name: said[name] for name in ("licences", "model_cards") if isinstance(said.get(name), list)}


def folder_of(config: RefitCommand, index: Path, model: Path) -> Path:
    """Where all goes; a folder in which something else lies is refused before anything is written."""
    out = config.out or index / "refit"
    assert out.resolve() != index.resolve(), f"--out {out} is the index itself; give another folder"
    assert out.resolve() != model.resolve().parent, (
        f"--out {out} is the folder of {model}, which made the index and would be written over; give another folder"
    )
    refuse_parts(out)
    refuse_others(out, "refit", ["classifier.onnx", "classifier.int8.onnx", "thresholds.csv"])
    refuse_others(out / "next", "next")
    return out


# --- verdicts -------------------------------------------------------------------------------------------------------


def read_listened(tables: Sequence[Path], store: Store, recordings: Sequence[Analysed]) -> Listened:
    """The windows of the index that somebody judged.

    Errors: no verdict on a window of it, or no label with a Yes and a No.
    """
    verdicts: list[Verdict] = []
    found: list[int | None] = []  # the row of each one's window
    row_of = row_finder(store, len(recordings))
    for path in tables:
        assert path.is_file(), f"no {path}; name the validation.csv that the page hands out (its button `Save`)"
        detections = tuple(detected(where, row) for where, row in rows_of(path, NEEDED))
        own = read_verdicts(path, Results(path.parent, detections, (), {}, ""))[0]
        own = [verdict for verdict in own if verdict.answer != "unsure"]
        meant = recording_finder(recordings, {d.file for d in detections})
        verdicts += own
        found += [row_of(verdict.detected, meant(verdict.detected)) for verdict in own]
    assert verdicts, f"no verdict in {', '.join(map(str, tables))}"
    label_of = first_spellings(verdicts)
    first: dict[tuple[int, str], Detected] = {}  # one for all that is said of a label in a window, in whatever table
    where: dict[Detected, tuple[int, str]] = {}
    placed: list[Verdict] = []
    for verdict, row in zip(verdicts, found, strict=True):
        label = label_of[key(plain_label(verdict.detected.label))]
        if row is not None:
            d = first.setdefault((row, label), verdict.detected)
            where[d] = row, label
            placed.append(replace(verdict, detected=d))
    strangers = len(verdicts) - len(placed)
    assert placed, f"none of {strangers} verdicts is on a window of the index; were they given on other recordings?"
    settled, disputed = settle(placed)
    said = {row: Said(set(), set(), set()) for row, _ in where.values()}
    for d in disputed:
        said[where[d][0]].disputed.add(where[d][1])
    for d, verdict in settled.items():
        row, label = where[d]
        (said[row].there if verdict.answer == "yes" else said[row].absent).add(label)
        if verdict.answer == "no" and verdict.species:
            said[row].there.add(label_of[key(verdict.species)])
    names = {
        label: (plain_label(d.cell("Scientific name")), plain_label(d.cell("Common name")))
        for d, (_, label) in reversed(where.items())
    }
    return listened_of({row: undisputed(one) for row, one in said.items()}, names, strangers)


def first_spellings(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """The label that each name stands for, by what its spellings have in common: of several the one that came first."""
    labels = [plain_label(verdict.detected.label) for verdict in verdicts]
    found = {key(NOTHING): NOTHING}
    for label in labels:
        found.setdefault(key(label), label)
    for verdict, label in zip(verdicts, labels, strict=True):
        for name in filter(None, names_of(verdict.detected)):
            found.setdefault(key(name), found[key(label)])
    for verdict in verdicts:
        found.setdefault(key(verdict.species), verdict.species)
    return found


def undisputed(said: Said) -> Said:
    """The same, without what is contradicted: a label that is there and is not, or is there where nothing is."""
    disputed = said.disputed | (said.there & said.absent)
    if NOTHING in said.there and len(said.there) > 1:
        disputed |= said.there
    return Said(said.there - disputed, said.absent - disputed, disputed)


def listened_of(said: dict[int, Said], spelled: Mapping[str, tuple[str, str]], strangers: int) -> Listened:
    """What is known of each label in each window: a window in which another species was confirmed counts as a No."""
    rows = sorted(said)
    every = sorted({label for one in said.values() for label in one.there | one.absent if not is_rank(label)})
    every = [label for label in every if label != NOTHING]
    present = np.array([[label in said[row].there for label in every] for row in rows])
    other = {row: any(not is_rank(label) for label in said[row].there) for row in rows}  # a genus confirmed is no other
    disputed = np.array([[label in said[row].disputed for label in every] for row in rows])
    absent = np.array([[label in said[row].absent or other[row] for label in every] for row in rows])
    absent &= ~present & ~disputed
    both: NDArray[np.bool_] = np.logical_and(present.any(axis=0), absent.any(axis=0))
    lacking = [label for label, enough in zip(every, both, strict=True) if not enough]
    assert both.any(), f"no label has a Yes and a No ({', '.join(lacking)}); a head needs both, so listen to more"
    if lacking:
        show(f"without a Yes or without a No, so without a head: {', '.join(lacking)}")
    labels = [label for label, enough in zip(every, both, strict=True) if enough]
    names = {label: spelled.get(label, ("", "")) for label in labels}
    known = (present | absent)[:, both]
    contradicted = sum(len(one.disputed) for one in said.values())
    return Listened(np.array(rows), labels, names, present[:, both], known, strangers, contradicted)


def recording_finder(recordings: Sequence[Analysed], written: Set[str]) -> Callable[[Detected], int | None]:
    """A function from a judged detection to the number of its recording: of those with the same file name, and at the
    same site where both tell, the one whose folders are the same as far up as both go; an only one may have been moved.

    written   what a table calls its recordings, all of them: where it speaks of siteA/0500.wav and siteB/0500.wav, the
              0500.wav of the index is one of them alone, again the one that fits furthest up
    """
    number_of = {plain_path(recording.file): number for number, recording in enumerate(recordings)}
    folders = {name: parted(name)[:-1] for name in {*number_of, *written}}
    ours, theirs = by_file_name(number_of), by_file_name(written)

    def fit(d: Detected) -> str | None:
        site = plain_label(d.cell("Site"))
        same = [
            name
            for name in ours.get(Path(d.file).name, [])
            if not site or plain_label(recordings[number_of[name]].site) in ("", site)
        ]
        best = furthest(folders[d.file], {name: folders[name] for name in same})
        sure = len(same) == 1 or (len(best) == 1 and agree(folders[d.file], folders[best[0]]))
        return best[0] if sure else None

    def find(d: Detected) -> int | None:
        name = d.file if d.file in number_of else fit(d)
        if name is None:
            return None
        rivals = furthest(folders[name], {other: folders[other] for other in theirs[Path(d.file).name]})
        ours_too = d.file in rivals and all(agree(folders[d.file], folders[rival]) for rival in rivals)
        return number_of[name] if ours_too else None

    return find


def by_file_name(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(Path(name).name, []).append(name)
    return found


def furthest(own: Sequence[str], others: Mapping[str, Sequence[str]]) -> list[str]:
    """Those of other paths to a file that are the same as this one furthest up, all that are alike in it."""
    heights = {name: height(own, folders) for name, folders in others.items()}
    highest = max(heights.values(), default=0)
    return [name for name, found in heights.items() if found == highest]


def row_finder(store: Store, recordings: int) -> Callable[[Detected, int | None], int | None]:
    """A function from a judged detection and the number of its recording to the row of its window: the one that shares
    most with it, half of it at least."""
    order = np.lexsort((store.places["start"], store.places["recording"]))
    first = np.searchsorted(store.places["recording"][order], np.arange(recordings + 1))

    def find(d: Detected, number: int | None) -> int | None:
        if number is None:
            return None
        rows = order[first[number] : first[number + 1]]
        channel = d.cell("Channel")
        if channel.isdecimal():
            rows = rows[store.places["channel"][rows] == int(channel)]
        starts, ends = store.places["start"][rows], store.places["end"][rows]
        shared = np.minimum(ends, d.end) - np.maximum(starts, d.start)
        best = int(np.argmax(shared)) if len(rows) else 0
        enough = len(rows) and shared[best] >= 0.5 * (ends[best] - starts[best])
        return int(rows[best]) if enough else None

    return find


# --- what is fitted and judged --------------------------------------------------------------------------------------


def groups_of(
    listened: NDArray[np.intp], store: Store, recordings: Sequence[Analysed]
) -> tuple[NDArray[np.int64], str]:
    """(recordings,) what is alike stays together when a head is judged, and what that is: sites, or recordings."""
    sites = [recording.site for recording in recordings]
    if len({sites[int(number)] for number in store.places["recording"][listened]}) >= MANY_SITES:
        return np.unique(sites, return_inverse=True)[1].astype(np.int64), "sites"
    return np.arange(len(recordings)), "recordings"


def background_of(store: Store, listened: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
    """(windows,) rows of windows that nobody listened to, drawn at random."""
    free = np.setdiff1d(np.arange(len(store.vectors)), listened)
    return np.sort(np.random.default_rng(seed).choice(free, min(BACKGROUND, len(free)), replace=False))


def label_table(judgements: Sequence[LabelJudgement], what: str) -> list[str]:
    """What each label is worth, as lines."""
    lines = [f"judged by other {what} than the head was fitted to, among what was listened to:"]
    lines.append(f"{'label':30}{'yes':>6}{'no':>6}{'average precision':>28}{'AUC':>7}{'threshold':>11}")
    for found in judgements:
        said = "cannot be said: too few"
        if np.isfinite(found.precision):
            said = f"{found.precision:.3f} [{found.interval[0]:.3f}, {found.interval[1]:.3f}]"
        area = f"{found.auc:.3f}" if np.isfinite(found.auc) else "-"
        threshold = f"{found.threshold.applied:.3f}"
        lines.append(f"{found.label[:29]:30}{found.yes:6}{found.no:6}{said:>28}{area:>7}{threshold:>11}")
    return lines


# --- what is written ------------------------------------------------------------------------------------------------


def write_classifier(
    config: RefitCommand,
    folder: Path,
    store: Store,
    model: Path,
    head: LinearHead,
    listened: Listened,
    judgements: Sequence[LabelJudgement],
) -> Path:
    """The ONNX file with the new head, thresholds.csv and refit.json; of somebody else's file its new card too."""
    rows = [("", label_row(label, *listened.names[label])) for label in listened.labels]
    taxonomy = build_taxonomy(with_lineages(rows, [shipped()])[0])
    path = folder / ("classifier.int8.onnx" if ".int8" in model.name else "classifier.onnx")
    thresholds = [judgement.threshold for judgement in judgements]
    # what is said of each label
    figures = [
        {
            "label": found.label,
            "yes": found.yes,
            "no": found.no,
            "average_precision": found.precision if np.isfinite(found.precision) else None,
            "interval_95": found.interval,
            "auc": found.auc if np.isfinite(found.auc) else None,
            "threshold": found.threshold.applied,
        }
        for found in judgements
    ]
    said = {"refit": {"verdicts": [str(path) for path in config.inputs[1:]], "windows": len(listened.rows)}}
    # the head into the file, by whoever that is
    new = NewHead(store.mean, store.deviation, head.weights, head.bias)
    card = card_of(store)
    if card:
        assert not config.beside, f"--beside: {model} is a file of somebody else; its labels stay in its own tables"
        output = embeddings_output(open_foreign(model), card.facts, "", card.path)
        write_foreign_head(model, path, new, output)
        write_card(path.with_name(CARD), card, taxonomy, output)
        labels = taxonomy.labels
    else:
        labels = write_new_head(model, path, new, taxonomy, thresholds, config.beside, said).labels
    # its thresholds and figures beside it
    names = [no_formula(name) for name in taxonomy.scientific_names]
    with open_text(folder / "thresholds.csv") as file:
        plain = [replace(threshold, label=no_formula(threshold.label)) for threshold in thresholds]
        write_thresholds(file, plain, names, "verdicts", sha256(path))
    write_json(folder / "refit.json", {"model": str(model), "labels": labels, "judged": figures, **said["refit"]})
    return path


def card_of(store: Store) -> Card | None:
    """The card that an index of somebody else's file was made with."""
    said: object = store.facts.get("card")
    given = cast(dict[str, str], said) if isinstance(said, dict) else {}
    card = read_card(given["card"]) if given.get("card") else None
    assert card is None or card.sha256 == given.get("card_sha256"), (
        f"{card.path if card else ''} was changed since the index was made; make the index anew"
    )
    return card


def write_next(
    config: RefitCommand,
    folder: Path,
    index: Path,
    store: Store,
    head: LinearHead,
    listened: Listened,
    recordings: Sequence[Analysed],
) -> bool:
    """The tables of the windows that are worth listening to next, the least certain first; whether there are any.

    Where none is left, those of an earlier round are removed.
    """
    count = len(store.vectors)
    parts = [np.arange(first, min(first + AT_A_TIME, count)) for first in range(0, count, AT_A_TIME)]
    logits = np.concatenate([head.logits(store.standard(rows)) for rows in parts])
    done = np.zeros(count, np.bool_)
    done[listened.rows] = True
    names = {name: number for number, name in enumerate(dict.fromkeys(recording.site for recording in recordings))}
    number_of = np.array([names[recording.site] for recording in recordings])
    sites = number_of[store.places["recording"]]
    chosen = choose_next(logits, store.vectors, sites, done, config.next)
    if not chosen:
        show("every window of the index was listened to: there is nothing to listen to next")
        for name in ("detections.csv", "files.csv", "run.json"):
            (folder / name).unlink(missing_ok=True)
        return False
    rows, labels = np.array([row for row, _ in chosen]), [label for _, label in chosen]
    likes = [Like(name, *listened.names[name]) for name in (listened.labels[label] for label in labels)]
    with open_run("next", folder, config, folder) as run:
        run.facts["index"] = str(index.resolve())
        run.facts.update({name: store.facts[name] for name in ("working_directory", "inputs", "model_sha256")})
        run.facts.update(terms_of(index))
        run.facts["band_hz"] = [store.facts["lowest_hz"], store.facts["top_hz"]]
        run.facts["settings"] = asdict(config) | {"time_expansion": store.facts["time_expansion"]}
        write_ranked_tables(folder, index, store, rows, probabilities(logits[rows, labels]), likes, {"csv"})
    return True


if __name__ == "__main__":
    launch(refit, RefitCommand)
