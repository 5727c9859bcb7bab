"""How far a score can be believed: a temperature per model, and per species the threshold from which it is reported.

    probabilities = apply_temperature(scores, temperature)
    limits = read_thresholds(Path("thresholds.csv"), model, labels)
    thresholds = thresholds.moved_to(floats, int8, taxonomy)         # for another file of the same network

Reads and writes   thresholds.csv: label, scientific_name, threshold, target, precision_low_95, precision_high_95,
                   n_positive, n_negative, source, model, note

They are fitted in evaluation/fitting.py; here is what scoring needs of them. A threshold belongs to the scores of one
model file and is refused with those of another.
"""

from __future__ import annotations

import csv
import re
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import exp, isfinite
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np
from numpy.typing import NDArray

from evaluation.ranks import rank_groups, rank_probabilities
from runtime.csvs import read_table, repeats
from taxonomy import RANKS, Taxonomy

TOO_FEW, NEVER = "too few to say", "never precise enough"
UNVALIDATED, SILENCED = "never validated", "never right: silenced"
STRICT, CAREFUL = 0.9, 0.5  # the lowest thresholds of a species that no, or too few, held-out recordings have
MOST_SURE = 15.0  # a logit: what is surer than this counts as this sure
LEVEL = 0.95  # of every interval that is shown, both sides together
MARKS = ("", "yes", "too few", "never")  # whether a species was validated, the best first; blank: nobody can say
COLUMNS = (
    *("label", "scientific_name", "threshold", "target", "precision_low_95", "precision_high_95"),
    *("n_positive", "n_negative", "source", "model", "note"),
)
KINDS = {  # of what is stored of a threshold
    "label": "text",
    **dict.fromkeys(("best_f1", "f1", "precise", "precision_low", "recall"), "a number"),
    **dict.fromkeys(("positives", "negatives"), "whole"),
    "note": "text",
    **dict.fromkeys(("precision_high", "wanted", "least"), "a number"),
}
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
        """Whether held-out recordings show how well the species is detected: yes, too few, never."""
        return "never" if not self.positives else "too few" if self.note == TOO_FEW else "yes"


@dataclass(frozen=True)
class Thresholds:
    """All thresholds of a model, as they travel in its file.

    species   one per label, or none
    ranks     rank -> probability from which on its best taxon is reported; a rank without one is never reported
    """

    species: tuple[Threshold, ...] = ()
    ranks: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def applied(self) -> NDArray[np.float32]:
        """(species,) from where on each is reported, in the kind of the scores, as predictor.py compares them."""
        return np.array([threshold.applied for threshold in self.species]).astype(np.float32)

    @property
    def floor(self) -> float:
        """Below which none is, where noise was asked (`noise_floor`); no lower than that where too little is known of
        every species. 0 without any."""
        return min((threshold.least for threshold in self.species), default=0.0)

    def moved_to(self, before: Numbers, after: Numbers, taxonomy: Taxonomy) -> Thresholds:
        """Thresholds that as many windows reach as before in the scores of another file of the same network, as INT8.

        A threshold that does so already stays as it is; another is moved no further than it must be.
        before, after   (windows, species) scores of the same windows by both files
        """
        assert before.shape == after.shape == (len(before), len(taxonomy.labels)), (
            f"scores {before.shape} and {after.shape} of {len(taxonomy.labels)} species; give (windows, species) of "
            "the same"
        )
        species = [moved(*each) for each in zip(self.species, before.T, after.T, strict=True)] if self.species else []
        ranks, groups = dict[str, float](), rank_groups(taxonomy)
        for rank, limit in self.ranks.items():
            surest = [rank_probabilities(scores, groups[rank]).max(axis=1) for scores in (before, after)]
            ranks[rank] = moved_limit(limit, *surest)
        return Thresholds(tuple(species), ranks)

    def differing(self, other: Thresholds) -> int:
        """How many are applied at another probability in other thresholds of the same species and ranks."""
        pairs = zip(self.species, other.species, strict=True)
        species = sum(one.applied != another.applied for one, another in pairs)
        return species + sum(limit != other.ranks[rank] for rank, limit in self.ranks.items())


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


def clipped_logits(probabilities: Numbers) -> NDArray[np.float64]:
    """Logits between -MOST_SURE and MOST_SURE."""
    low = 1 / (1 + exp(MOST_SURE))
    p = probabilities.astype(np.float64).clip(low, 1 - low)
    found: NDArray[np.float64] = np.log(p) - np.log1p(-p)
    return found


def mean_as_logits(probabilities: Numbers) -> NDArray[np.float64]:
    """The probability whose logit is the mean over the first axis: a model that is sure of everything does not outvote
    the others, as it does in the mean of probabilities (docs/systems.md)."""
    found: NDArray[np.float64] = 1 / (1 + np.exp(-clipped_logits(probabilities).mean(axis=0)))
    return found


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


def moved(threshold: Threshold, before: Numbers, after: Numbers) -> Threshold:
    """The threshold of a species for other scores of it, (windows,) each."""
    precise = None if threshold.precise is None else moved_limit(threshold.precise, before, after)
    best = moved_limit(threshold.best_f1, before, after)
    least = moved_limit(threshold.least, before, after) if threshold.least else 0.0
    return replace(threshold, best_f1=best, precise=precise, least=least)


def moved_limit(limit: float, before: Numbers, after: Numbers) -> float:
    """The number nearest to `limit` that as many of the scores reach after as reached it before."""
    count, falling, kind = int((before >= limit).sum()), np.sort(after)[::-1], after.dtype.type
    highest = float(falling[count - 1]) if count else 1.0  # above it too few
    lowest = float(falling[count]) if count < len(falling) else -1.0  # at it and below it too many
    if lowest >= highest:  # equal scores cannot be parted
        return limit
    # the next in the kind of the scores: a float32 score is compared with a threshold that was rounded to float32
    return min(max(limit, float(np.nextafter(kind(lowest), kind(2)))), highest)


def thresholds_to_json(thresholds: Thresholds) -> dict[str, object]:
    """The facts of a model file that `thresholds_from_json` reads back."""
    species = [asdict(threshold) for threshold in thresholds.species]
    return {"thresholds": species, "rank_thresholds": dict(thresholds.ranks)}


def thresholds_from_json(facts: Mapping[str, object], labels: Sequence[str], path: Path) -> Thresholds:
    """The thresholds among the facts of a model file; none where there are none. What is damaged or foreign is refused.

    labels   of the species that the model knows
    path     of the file, for the message
    """
    stored, ranks = facts.get("thresholds", []), facts.get("rank_thresholds", {})
    assert isinstance(stored, list), f"{path}: stored thresholds are {stored!r}, not a list; make the model file again"
    species = tuple(threshold_from_json(item, path) for item in cast(list[object], stored))
    found = [threshold.label for threshold in species]
    assert not repeats(found), f"{path}: thresholds name a label twice in {found}; make the model file again"
    assert not species or found == list(labels), (
        f"{path}: its thresholds are of other labels than its answers; make the model file again"
    )
    limits: dict[str, Any] = cast(dict[str, Any], ranks) if isinstance(ranks, dict) else {"": ranks}
    known = all(rank in RANKS and is_json_number(limit) and 0 <= limit <= 1 for rank, limit in limits.items())
    assert known, f"{path}: {str(limits)[:60]} are no thresholds of ranks; make the model file again"
    return Thresholds(species, limits)


def threshold_from_json(stored: object, path: Path) -> Threshold:
    """One species' threshold; every number and text must be there, but for what an earlier version did not write."""
    assert isinstance(stored, dict), f"{path}: a stored threshold is {stored!r}; make the model file again"
    item: dict[str, Any] = {"least": 0.0}  # an earlier version wrote none
    item |= cast(dict[str, Any], stored)
    for name, meaning in KINDS.items():
        value: Any = item.get(name)
        if name == "precise" and "precise" in item and value is None:
            continue
        right = {"text": isinstance(value, str), "a number": is_json_number(value), "whole": is_json_whole(value)}[
            meaning
        ]
        assert right, f"{path}: stored {name} is {value!r}, not {meaning}; make the model file again"
        item[name] = {"text": str, "a number": float, "whole": int}[meaning](value)
    return Threshold(**{name: item[name] for name in KINDS})


def is_json_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_json_whole(value: object) -> bool:
    return is_json_number(value) and float(cast(float, value)).is_integer()


if __name__ == "__main__":
    sure = np.array([0.999, 0.9, 0.5, 0.1])
    calm = apply_temperature(sure, 3.0)
    print("three times too sure:", *(f"{one:.3f} -> {other:.3f}" for one, other in zip(sure, calm, strict=True)))
    tit = Threshold("greti", 0.4, 0.8, 0.6, 0.91, 0.7, 40, 200, "")
    frog = Threshold("frog", 0.5, 0.9, None, 0.6, 0.9, 4, 236, TOO_FEW)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "thresholds.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            write_thresholds(file, (tit, frog), ["Parus major", "Rana"], "held-out recordings", "")
        assert read_thresholds(path, "any", ["greti", "frog"]) == {"greti": 0.6, "frog": 0.5}
    every = Thresholds((tit, frog), {"species": 0.8})
    assert thresholds_from_json(thresholds_to_json(every), ("greti", "frog"), Path("a model")) == every
    assert (np.diff(calm) < 0).all()
