"""How far a score can be believed: a temperature per model, and per species the threshold from which it is reported.

    probabilities = apply_temperature(scores, temperature)
    limits = read_thresholds(Path("thresholds.csv"), model, labels)
    thresholds = carried_over(thresholds, floats, int8)              # for another file of the same network

Reads and writes   thresholds.csv: label, scientific_name, threshold, target, precision_low_95, precision_high_95,
                   n_positive, n_negative, source, model, note

They are fitted in evaluation/fitting.py; here is what scoring needs of them. A threshold belongs to the scores of one
model file and is refused with those of another.
"""

from __future__ import annotations

import csv
import re
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np
from numpy.typing import NDArray

from taxonomy import read_table, repeats

TOO_FEW, NEVER = "too few to say", "never precise enough"
UNVALIDATED, SILENCED = "never validated", "never right: silenced"
STRICT, CAREFUL = 0.9, 0.5  # the lowest thresholds of a species that no, or too few, held-out recordings have
LEVEL = 0.95  # of every interval that is shown, both sides together
MARKS = ("", "yes", "too few", "never")  # whether a species was validated, the best first; blank: nobody can say
COLUMNS = (
    "label",
    "scientific_name",
    "threshold",
    "target",
    "precision_low_95",
    "precision_high_95",
    "n_positive",
    "n_negative",
    "source",
    "model",
    "note",
)
NUMBER = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?", re.IGNORECASE)

Numbers = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Threshold:
    """From which probability on a species is reported: `score >= threshold`.

    best_f1          the threshold of the highest F1; 0.5 where no recording has the species
    f1               F1 there
    precise          the lowest threshold at which precision is at least `wanted`, or None: the note says why
    precision_low    of the precision at `applied` the lower end of its 95 % interval
    recall           share of the recordings with the species that are found at `applied`
    positives        recordings with the species
    negatives        recordings without
    precision_high   the upper end, likewise
    wanted           the precision that `precise` was fitted for
    least            where too little is known of a species: the lowest threshold that is applied, whatever F1 says
    """

    label: str
    best_f1: float
    f1: float
    precise: float | None
    precision_low: float
    recall: float
    positives: int
    negatives: int
    note: str
    precision_high: float = 1.0
    wanted: float = 0.9
    least: float = 0.0

    def __post_init__(self) -> None:
        shares = (self.best_f1, self.f1, self.precise or 0.0, self.precision_low, self.recall, self.precision_high)
        assert self.label, "a threshold without a label; give every species one"
        assert all(0 <= share <= 1 for share in (*shares, self.wanted, self.least)), (
            f"{self}: a number is not between 0 and 1"
        )
        assert self.positives >= 0 <= self.negatives, f"{self}: recordings cannot be fewer than none"

    @property
    def applied(self) -> float:
        """`precise` where there is one, else `best_f1`, or `least` where that is higher."""
        return max(self.best_f1, self.least) if self.precise is None else self.precise

    @property
    def target(self) -> str:
        """What `applied` is."""
        if self.precise is not None:
            return f"precision {self.wanted:g}"
        return "strict" if self.least > self.best_f1 or self.note in (UNVALIDATED, SILENCED) else "best F1"

    @property
    def validated(self) -> str:
        """Whether held-out recordings tell how good the species is detected: yes, too few, never."""
        return "never" if not self.positives else "too few" if self.note == TOO_FEW else "yes"


def apply_temperature(probabilities: Numbers, temperature: float) -> NDArray[np.float64]:
    """Probabilities as they are at this temperature, in the same order: sigmoid(logit(p) / T).

    A 0 or 1 that was rounded counts as the nearest number of its kind that has a finite logit.
    """
    assert temperature > 0 and isfinite(temperature), f"temperature {temperature}; above 0, 1 changes nothing"
    assert ((probabilities >= 0) & (probabilities <= 1)).all(), (
        "below 0, above 1 or NaN; give probabilities, not logits"
    )
    kind = probabilities.dtype.type
    p = probabilities.clip(np.finfo(kind).tiny, np.nextafter(kind(1), kind(0))).astype(np.float64)
    return np.exp(-np.logaddexp(0, (np.log1p(-p) - np.log(p)) / temperature))


def write_thresholds(
    file: TextIO,
    thresholds: Sequence[Threshold],
    scientific_names: Sequence[str],
    source: str,
    model: str,
    undecided: Collection[str] = (),
) -> None:
    """thresholds.csv, one row per species with the threshold that is `applied`; target says for what it was fitted.

    scientific_names   one per threshold
    source             what they were fitted on, such as "held-out recordings" or "verdicts"
    model              sha256 of the model file whose scores they are of
    undecided          labels of which too little is known: their threshold stays blank, and `read_thresholds` leaves
                       them out
    """
    assert len(scientific_names) == len(thresholds), f"{len(thresholds)} thresholds, {len(scientific_names)} names"
    table = csv.writer(file, lineterminator="\n")
    table.writerow(COLUMNS)
    for threshold, name in zip(thresholds, scientific_names, strict=True):
        bounds = [f"{threshold.precision_low:.4f}", f"{threshold.precision_high:.4f}"]
        counts = [threshold.positives, threshold.negatives]
        cell = "" if threshold.label in undecided else threshold.applied
        table.writerow([threshold.label, name, cell, threshold.target, *bounds, *counts, source, model, threshold.note])


def read_thresholds(path: Path, model: str, labels: Sequence[str]) -> dict[str, float]:
    """Label -> threshold, of a thresholds.csv that may have been edited; only label, threshold and model are read.

    A row with a blank threshold is left out, and so is a species without a row. A blank model is any model: the row
    was written by hand.
    model    sha256 of the model file that is to be used; thresholds of another are refused
    labels   the species it knows
    """
    found: dict[str, float] = {}
    for where, row in read_table(path, ("label", "threshold", "model"), unique="label"):
        label, cell = row["label"], row["threshold"]
        assert row["model"] in ("", model), (
            f"{where}: fitted for the model {row['model'][:12]}, this one is {model[:12]}, whose scores differ; "
            "use that model, or the thresholds.csv beside this one"
        )
        assert label in labels, f"{where}: {label!r} is no label of the model; remove the row or mend the label"
        assert not cell or (NUMBER.fullmatch(cell) and float(cell) <= 1), (
            f"{where}: threshold {cell!r} of {label}; write a number from 0 to 1 with a point, or leave it blank"
        )
        if cell:
            found[label] = float(cell)
    return found


def judged_labels(path: Path) -> set[str]:
    """The species of a thresholds.csv whose threshold was fitted on verdicts: these are validated, where they were
    listened to."""
    rows = (row for _, row in read_table(path, ("label", "threshold", "model"), unique="label"))
    return {
        row["label"] for row in rows if row["threshold"] and row.get("source") == "verdicts" and not row.get("note")
    }


def just_above(scores: Numbers) -> float:
    """A short number that none of some probabilities reaches; 1 where that takes more than four decimals."""
    highest = float(scores.max(initial=0.0))
    return min(1.0, (int(highest * 1e4 + 1e-6) + 1) / 1e4)


def carried_over(thresholds: Sequence[Threshold], before: Numbers, after: Numbers) -> list[Threshold]:
    """Thresholds that report as many windows as before in the scores of another file of the same network, as INT8.

    A threshold that does so already stays as it is; another is moved no further than it must be.
    before, after   (windows, species) scores of the same windows by both files
    """
    assert before.shape == after.shape == (len(before), len(thresholds)), (
        f"scores {before.shape} and {after.shape} for {len(thresholds)} thresholds; give (windows, species) of the same"
    )
    moved: list[Threshold] = []
    for threshold, one, other in zip(thresholds, before.T, after.T, strict=True):
        precise = None if threshold.precise is None else moved_to(threshold.precise, one, other)
        best = moved_to(threshold.best_f1, one, other)
        least = moved_to(threshold.least, one, other) if threshold.least else 0.0
        moved.append(replace(threshold, best_f1=best, precise=precise, least=least))
    return moved


def moved_to(limit: float, before: Numbers, after: Numbers) -> float:
    """The number nearest to `limit` that as many of the scores reach after as reached it before."""
    count, falling, kind = int((before >= limit).sum()), np.sort(after)[::-1], after.dtype.type
    highest = float(falling[count - 1]) if count else 1.0  # above it too few
    lowest = float(falling[count]) if count < len(falling) else -1.0  # at it and below it too many
    if lowest >= highest:  # equal scores cannot be parted
        return limit
    # the next in the kind of the scores: a float32 score is compared with a threshold that was rounded to float32
    return min(max(limit, float(np.nextafter(kind(lowest), kind(2)))), highest)


def to_json(thresholds: Sequence[Threshold]) -> list[dict[str, object]]:
    """Plain lists that travel in a model file; `from_json` reads them back."""
    return [asdict(threshold) for threshold in thresholds]


def from_json(stored: object) -> list[Threshold]:
    """The thresholds that `to_json` wrote; what is damaged or foreign is refused."""
    assert isinstance(stored, list), f"stored thresholds are {stored!r}, not a list; make the model file again"
    thresholds = [from_item(item) for item in cast(list[object], stored)]
    labels = [threshold.label for threshold in thresholds]
    assert not repeats(labels), f"stored thresholds name a label twice in {labels}; make the model file again"
    return thresholds


def from_item(stored: object) -> Threshold:
    assert isinstance(stored, dict), f"a stored threshold is {stored!r}; make the model file again"
    item = cast(dict[str, object], stored)
    return Threshold(
        text(item, "label"),
        number(item, "best_f1"),
        number(item, "f1"),
        None if item.get("precise", "") is None else number(item, "precise"),
        number(item, "precision_low"),
        number(item, "recall"),
        whole(item, "positives"),
        whole(item, "negatives"),
        text(item, "note"),
        number(item, "precision_high"),
        number(item, "wanted"),
        number({"least": 0.0} | item, "least"),  # of an earlier version
    )


def text(item: dict[str, object], name: str) -> str:
    value = item.get(name)
    assert isinstance(value, str), f"stored {name} is {value!r}, not text; make the model file again"
    return value


def number(item: dict[str, object], name: str) -> float:
    value = item.get(name)
    assert isinstance(value, int | float) and not isinstance(value, bool), (
        f"stored {name} is {value!r}, not a number; make the model file again"
    )
    return float(value)


def whole(item: dict[str, object], name: str) -> int:
    value = number(item, name)
    assert value.is_integer(), f"stored {name} is {value}, not whole; make the model file again"
    return int(value)


if __name__ == "__main__":
    shouted = np.array([0.999, 0.9, 0.5, 0.1])
    calm = apply_temperature(shouted, 3.0)
    print("three times too sure:", *(f"{one:.3f} -> {other:.3f}" for one, other in zip(shouted, calm, strict=True)))
    thresholds = [
        Threshold("greti", 0.4, 0.8, 0.6, 0.91, 0.7, 40, 200, ""),
        Threshold("frog", 0.5, 0.9, None, 0.6, 0.9, 4, 236, TOO_FEW),
    ]
    before = np.random.default_rng(0).uniform(size=(200, 2))
    moved = carried_over(thresholds, before, before - 0.05)
    for threshold, other in zip(thresholds, moved, strict=True):
        print(f"{threshold.label:6} from {threshold.applied} on, {other.applied:.3f} where all scores are .05 lower")
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "thresholds.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            write_thresholds(file, thresholds, ["Parus major", "Rana"], "held-out recordings", "")
        assert read_thresholds(path, "any", ["greti", "frog"]) == {"greti": 0.6, "frog": 0.5}
    assert (np.diff(calm) < 0).all() and moved[0].applied < 0.6
    assert from_json(to_json(thresholds)) == thresholds
