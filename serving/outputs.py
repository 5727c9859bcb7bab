"""All files of a folder of results, as the flags ask for them: tables of detections, scores, submission, embeddings.

    written = write_outputs(folder, entries, journal, scorer, sound, tables, totals)

Everything is read back from the journal, recording by recording, so a run that was cut off and one that was not write
the same bytes.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from config import AudioSettings, PredictCommand, TableKind
from evaluation.calibration import Thresholds
from runtime.cells import no_formula, open_text, plain_path, score_columns, write_row, write_scores
from runtime.terminal import show
from serving.contexts import SoundSettings
from serving.detections import Analysed, Scored, TableFacts, join
from serving.embeddings import Embedded, write_vectors
from serving.inputs import Entry
from serving.journal import Journal, open_journal
from serving.scorer import Scorer
from serving.submission import read_sample, write_submission
from serving.tables import write_tables
from serving.tallies import Totals
from taxonomy import Taxonomy

KINDS = {"csv": "csv", "table": "raven", "audacity": "audacity", "kaleidoscope": "kaleidoscope", "parquet": "parquet"}


@dataclass(frozen=True)
class TableSettings:
    """What is written; the flags of these names say more."""

    rtype: tuple[TableKind, ...] = PredictCommand.rtype
    split_tables: bool = PredictCommand.split_tables
    bom: bool = PredictCommand.bom
    merge_gap: float | None = PredictCommand.merge_gap
    scores: bool = PredictCommand.scores
    submission: Path | None = PredictCommand.submission
    embeddings: Path | None = PredictCommand.embeddings

    def __post_init__(self) -> None:
        assert self.merge_gap is None or self.merge_gap >= 0, f"--merge_gap {self.merge_gap}: give seconds"
        assert not self.split_tables or "table" in self.rtype, "--split_tables parts Raven's: add table to --rtype"

    @property
    def arrays(self) -> bool:
        """Whether more than detections is asked for."""
        return bool(self.scores or self.submission or self.embeddings)


def write_outputs(
    folder: Path,
    entries: Sequence[Entry],
    journal: Journal,
    scorer: Scorer,
    sound: SoundSettings,
    tables: TableSettings,
    totals: Totals,
) -> list[Path]:
    """Write everything that is asked for, counting recordings in `totals`; returns what was written."""

    def counted() -> Iterator[Analysed]:
        for analysed in journal.recall(entries):
            totals.add(analysed)
            events = () if tables.merge_gap is None else tuple(join(analysed.found, tables.merge_gap))
            yield replace(analysed, events=events)

    audio = scorer.audio
    band = audio.top_hz, audio.lowest_hz
    facts = TableFacts(scorer.path.name, audio.window_seconds, sound.overlap, *band, scorer.unfamiliar, sound.voices)
    kinds, events = [KINDS[kind] for kind in tables.rtype], tables.merge_gap is not None
    written = write_tables(folder, counted(), facts, kinds, events, tables.split_tables, tables.bom)
    check_ledger(folder / "files.csv", entries)
    by_channel = sound.channel == "each"  # else all windows are of one, or of the mean
    if tables.scores:
        written.append(write_all_scores(folder / "scores.csv", entries, journal, scorer, by_channel))
    if tables.submission:
        written.append(fill_submission(folder / "submission.csv", tables.submission, entries, journal, scorer))
    if tables.embeddings:
        scored = ((entry, part) for entry, part in scored_parts(entries, journal) if len(part.starts))
        vectors = (
            Embedded(str(entry.path), part.starts, part.ends, part.embeddings, part.channel) for entry, part in scored
        )
        name = scorer.card.get("name") or scorer.path.name  # of several models the first one's vectors are kept
        write_vectors(tables.embeddings, vectors, name, by_channel, scorer.provenance)
        written.append(tables.embeddings)
    return written


def check_ledger(files: Path, entries: Sequence[Entry]) -> None:
    """Refuse to end unless files.csv has one row for every recording, in their order: none is lost, none twice."""
    with files.open(encoding="utf-8-sig", newline="") as file:
        names = (row["file"] for row in csv.DictReader(file))
        last: Path | None = None
        for entry, name in zip_longest(entries, names):
            due = None
            if entry:
                due = no_formula(plain_path(str(entry.path))).encode("utf-8", "backslashreplace").decode()
            assert entry and due == name and (last is None or last < entry.path), (
                f"{files} should name {due or 'nothing more'} where it names {name or 'nothing'}; was something "
                "removed from its folder .parts meanwhile? the same command once more mends that"
            )
            last = entry.path


def scored_parts(entries: Sequence[Entry], journal: Journal) -> Iterator[tuple[Entry, Scored]]:
    """Every channel of every recording."""
    return ((entry, part) for entry, scored in journal.recall_arrays(entries) for part in scored)


def write_all_scores(path: Path, entries: Sequence[Entry], journal: Journal, scorer: Scorer, by_channel: bool) -> Path:
    """scores.csv: the probability of every species in every window, and how unfamiliar it is where the model tells."""
    with open_text(path) as file:
        write_row(file, score_columns(scorer.taxonomy.labels, by_channel, scorer.unfamiliar))
        for entry, part in scored_parts(entries, journal):
            channel, strange = part.channel if by_channel else None, part.unfamiliar if scorer.unfamiliar else None
            write_scores(file, str(entry.path), part.starts, part.ends, part.probabilities, channel, strange)
    return path


def fill_submission(path: Path, sample: Path, entries: Sequence[Entry], journal: Journal, scorer: Scorer) -> Path:
    """submission.csv, like a sample of BirdCLEF's; prints what the two do not share."""
    rows = ((str(entry.path), scored[0].probabilities) for entry, scored in journal.recall_arrays(entries) if scored)
    report = write_submission(path, read_sample(sample), rows, scorer.taxonomy.labels)
    show(
        f"submission: {report.rows} rows, {report.filled_rows} of them without scores; {len(report.filled_labels)} "
        f"labels that the model lacks; {len(report.unasked)} scored windows that it does not ask for"
    )
    return path


if __name__ == "__main__":
    names = Taxonomy(("41",), ("Rana ficta",), ("frog",), (("a", "b", "c", "d", "e", "f", "g"),), (7,))
    scorer = Scorer(
        lambda _: {}, Path("toy"), AudioSettings(), names, "float32", True, "", Thresholds(), 1, "not asked"
    )
    entry = Entry(Path("pond/dawn.wav"))
    dawn = Analysed("pond/dawn.wav", "pond", "", 32_000, 1, 5.0, 5.0, 1, "ok", "", 0, 0)
    window = Scored([0.0], [5.0], np.array([[0.75]], np.float32), np.zeros((1, 0), np.float32))
    with tempfile.TemporaryDirectory() as folder, open_journal(Path(folder), {}, arrays=True) as journal:
        journal.save(entry, dawn, [window])
        settings, totals = TableSettings(rtype=("csv",), scores=True), Totals()
        written = write_outputs(Path(folder), [entry], journal, scorer, SoundSettings(), settings, totals)
        print(*(path.name for path in written), (Path(folder) / "scores.csv").read_text(), sep="\n", end="")
        assert (Path(folder) / "scores.csv").read_text().splitlines()[1] == "pond/dawn.wav,0,5,0.75"
    assert totals.statuses["ok"] == 1
