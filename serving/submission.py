"""BirdCLEF's submission: a row for each window of each soundscape, in the layout of the sample."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.cells import open_text
from runtime.csvs import delimiter, read_table

STEP_SECONDS = 5  # of BirdCLEF's rows


@dataclass(frozen=True)
class Sample:
    """The file that says what a submission looks like."""

    header: str  # as it stands there, with its line end
    labels: tuple[str, ...]
    row_ids: tuple[str, ...]


@dataclass(frozen=True)
class SubmissionReport:
    """What there is to say about a submission."""

    rows: int
    filled_rows: int  # nobody scored them
    filled_labels: tuple[str, ...]  # the model lacks them
    unasked: tuple[str, ...]  # row ids that were scored and are not in the sample


def read_sample(path: Path) -> Sample:
    """The header and the row ids of a sample_submission.csv.

    Errors: a table that is not in UTF-8, has no row_id in front or the same row or label twice is refused.
    """
    rows = [row for _, row in read_table(path, ("row_id",), unique="row_id")]
    first, *labels = rows[0]
    assert first == "row_id" and labels, f"{path} has the columns {first}, {labels[:3]}; wanted row_id, then labels"
    assert delimiter(path.read_text(encoding="utf-8-sig")) == ",", (
        f"{path}: no columns parted by commas; take the original"
    )
    header = path.read_bytes().partition(b"\n")[0].decode() + "\n"
    return Sample(header, tuple(labels), tuple(row["row_id"] for row in rows))


def write_submission(
    path: Path, sample: Sample, scores: Iterable[tuple[str, NDArray[np.float32]]], labels: Sequence[str]
) -> SubmissionReport:
    """The probabilities of soundscapes in the layout of BirdCLEF: row_id is <stem>_<second in which the window ends>.

    scores         (file, (windows, labels) probabilities), the windows ending at 5, 10, ... seconds
    labels         of the columns of `scores`

    The rows are the sample's in its order. Where it speaks of none of these soundscapes, as the public one does, they
    are all windows in the order of `scores`. What the model does not know gets 1 / labels: a label that it lacks, a row
    that nobody scored, a window whose numbers are not all finite.
    """
    column_of = {label: column for column, label in enumerate(labels)}
    shared = [column for column, label in enumerate(sample.labels) if label in column_of]
    assert shared, f"none of the model's labels ({', '.join(labels[:3])}, ...) is in the sample; take the right model"
    source = [column_of[sample.labels[column]] for column in shared]
    # every window under its name
    scored: dict[str, NDArray[np.float32]] = {}
    stems: set[str] = set()
    for file, windows in scores:
        stem = Path(file).stem
        assert stem not in stems, f"two recordings are called {stem}; their rows would have the same names, rename one"
        assert windows.shape == (len(windows), len(labels)), f"{file}: {windows.shape} scores of {len(labels)} labels"
        stems.add(stem)
        scored |= {f"{stem}_{STEP_SECONDS * number}": row for number, row in enumerate(windows, 1)}
    # the rows that are wanted, and those that are known
    asked = {row_id.rpartition("_")[0] for row_id in sample.row_ids}
    row_ids = tuple(scored) if scored and asked.isdisjoint(stems) else sample.row_ids
    known = [row_id for row_id in row_ids if row_id in scored and bool(np.isfinite(scored[row_id]).all())]
    row_of = {row_id: scored[row_id][source] for row_id in known}
    # write them in the sample's form
    with open_text(path) as text:
        text.write(sample.header)
        table = csv.writer(text, lineterminator="\r\n" if sample.header.endswith("\r\n") else "\n")
        for row_id in row_ids:
            values = np.full(len(sample.labels), 1 / len(sample.labels), np.float32)
            if row_id in row_of:
                values[shared] = row_of[row_id]
            table.writerow([row_id, *(f"{value:.9g}" for value in values)])
    lacking = tuple(label for label in sample.labels if label not in column_of)
    written = set(row_ids)
    unasked = tuple(row_id for row_id in scored if row_id not in written)
    return SubmissionReport(len(row_ids), len(row_ids) - len(known), lacking, unasked)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sample, path = Path(folder) / "sample_submission.csv", Path(folder) / "submission.csv"
        sample.write_text("row_id,frog,owl\npond_5,0.5,0.5\npond_10,0.5,0.5\n")
        scores = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
        report = write_submission(path, read_sample(sample), [("pond.ogg", scores)], ("frog", "owl"))
        print(path.read_text(), end="")
    assert report.rows == 2 and report.filled_rows == 0
