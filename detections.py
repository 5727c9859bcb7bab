"""Scored windows -> tables that other programs open.

    with open_tables(folder, facts, scores=True) as tables:
        write_recording(tables, scored)                  # rows appear as each recording is done

detections.csv starts with BirdNET's six columns; files.csv has a row for every input, so that "nothing heard" and "not
analysed" differ; scores.csv holds every probability. No torch.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from audio import Outcome
from runs import publish
from taxonomy import Taxonomy

DETECTION_COLUMNS = (
    "Start (s)",
    "End (s)",
    "Scientific name",
    "Common name",
    "Confidence",
    "File",
    "Species code",
    "Model",
    "Window (s)",
    "Overlap (s)",
    "Min conf",
)
FILE_COLUMNS = (
    "file",
    "sample_rate",
    "channels",
    "seconds_analysed",
    "windows",
    "detections",
    "status",
    "reason",
)


@dataclass(frozen=True)
class Scored:
    """One recording after scoring."""

    file: str
    outcome: Outcome
    starts: Sequence[float]  # seconds
    ends: Sequence[float]
    probabilities: NDArray[np.float32]  # (windows, species)


@dataclass(frozen=True)
class Detection:
    """One species in one window."""

    file: str
    start: float
    end: float
    label: str
    scientific_name: str
    common_name: str
    confidence: float


@dataclass(frozen=True)
class TableFacts:
    """What every row of a set of tables shares."""

    taxonomy: Taxonomy
    model: str
    window_seconds: float
    overlap: float
    min_conf: float


@dataclass(frozen=True)
class Tables:
    """Open tables, filled recording by recording."""

    facts: TableFacts
    detections: TextIO
    files: TextIO
    scores: TextIO | None


@contextmanager
def open_tables(folder: Path, facts: TableFacts, scores: bool) -> Generator[Tables]:
    """detections.csv, files.csv and on request scores.csv; they take their names when the block ends well."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ["detections.csv", "files.csv", *(["scores.csv"] if scores else [])]
    with ExitStack() as stack:
        paths = [stack.enter_context(publish(folder / name)) for name in names]
        opened = [stack.enter_context(path.open("w", encoding="utf-8", newline="")) for path in paths]
        write_row(opened[0], DETECTION_COLUMNS)
        write_row(opened[1], FILE_COLUMNS)
        if scores:
            write_row(opened[2], score_columns(facts.taxonomy))
        yield Tables(facts, opened[0], opened[1], opened[2] if scores else None)


def write_recording(tables: Tables, scored: Scored) -> list[Detection]:
    """Append all rows of one recording and hand back its detections."""
    facts = tables.facts
    found = detect(scored, facts.taxonomy, facts.min_conf)
    for detection in found:
        write_row(
            tables.detections,
            [
                seconds(detection.start),
                seconds(detection.end),
                detection.scientific_name,
                detection.common_name,
                f"{detection.confidence:.4f}",
                plain_path(detection.file),
                detection.label,
                facts.model,
                seconds(facts.window_seconds),
                seconds(facts.overlap),
                f"{facts.min_conf:g}",
            ],
        )
    outcome = scored.outcome
    write_row(
        tables.files,
        [
            plain_path(scored.file),
            str(outcome.sample_rate),
            str(outcome.channels),
            seconds(outcome.seconds),
            str(len(scored.starts)),
            str(len(found)),
            outcome.status,
            outcome.reason,
        ],
    )
    if tables.scores is not None:
        write_scores(tables.scores, scored.file, scored.starts, scored.ends, scored.probabilities)
    for file in (tables.detections, tables.files, tables.scores):
        if file is not None:
            file.flush()
    return found


def detect(scored: Scored, taxonomy: Taxonomy, min_conf: float) -> list[Detection]:
    """Everything at or above a probability, in the order of time, the surest first."""
    found: list[Detection] = []
    for row, (start, end) in enumerate(zip(scored.starts, scored.ends, strict=True)):
        for column in map(int, np.argsort(-scored.probabilities[row], kind="stable")):
            confidence = float(scored.probabilities[row, column])
            if confidence < min_conf:
                break
            found.append(
                Detection(
                    scored.file,
                    start,
                    end,
                    taxonomy.labels[column],
                    taxonomy.scientific_names[column],
                    taxonomy.common_names[column],
                    confidence,
                )
            )
    return found


def score_columns(taxonomy: Taxonomy) -> list[str]:
    """Header of a table of scores."""
    return ["file", "start", "end", *taxonomy.labels]


def write_scores(
    file: TextIO, name: str, starts: Sequence[float], ends: Sequence[float], probabilities: NDArray[np.float32]
) -> None:
    """One row per window: file, start, end, and the probability of each species with six digits that count."""
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
        cells = [f"{probability:.6g}" for probability in probabilities[row]]
        write_row(file, [plain_path(name), seconds(start), seconds(end), *cells])


def write_row(file: TextIO, cells: Sequence[str]) -> None:
    """A row of a csv file, quoted where it must be."""
    csv.writer(file, lineterminator="\n").writerow(cells)


def seconds(value: float) -> str:
    """Seconds to at most four decimals: 5, 2.5, 0.0625."""
    return f"{value:.4f}".rstrip("0").rstrip(".")


def plain_path(path: str) -> str:
    """A path that no spreadsheet takes for a formula."""
    return f"./{path}" if path.startswith(("=", "+", "-", "@", "\t", "\r")) else path


def listing(found: Sequence[Detection], limit: int) -> list[str]:
    """Detections as lines for a terminal, at most `limit` of them."""
    lines = [
        f"{clock(d.start):>9} - {clock(d.end):<9} {d.confidence:5.2f}  {d.common_name} ({d.scientific_name})"
        for d in found[:limit]
    ]
    return lines + ([f"... and {len(found) - limit} more"] if len(found) > limit else [])


def clock(value: float) -> str:
    """Seconds as people read them: 75 -> 1:15.0."""
    tenths = round(value * 10)
    hours, minutes = tenths // 36_000, tenths // 600 % 60
    tail = f"{tenths % 600 / 10:04.1f}"
    return f"{hours}:{minutes:02d}:{tail}" if hours else f"{minutes}:{tail}"


if __name__ == "__main__":
    ranks = ("Animalia", "Chordata", "Amphibia", "Anura", "Fictidae", "Rana", "Rana ficta")
    frog = Taxonomy(("41",), ("Rana ficta",), ('the "pretend", frog',), (ranks,), (7,))
    facts = TableFacts(frog, "toy", 5.0, 0.0, 0.5)
    outcome = Outcome("ok", "", 10.0, 32_000, 1)
    scored = Scored("=pond.ogg", outcome, [0.0, 5.0], [5.0, 10.0], np.array([[0.9], [0.1]], np.float32))
    with tempfile.TemporaryDirectory() as place:
        with open_tables(Path(place), facts, scores=True) as tables:
            print("\n".join(listing(write_recording(tables, scored), limit=10)))
        with (Path(place) / "detections.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    print(rows[0])
    assert rows[0]["Common name"] == 'the "pretend", frog' and rows[0]["File"] == "./=pond.ogg" and len(rows) == 1
