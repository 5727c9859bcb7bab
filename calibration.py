"""How far a score can be believed: one temperature per model, and per species the threshold a wanted precision needs.

    temperature = fit_temperature(held_out_logits, truth)
    probabilities = apply_temperature(scores, temperature)
    thresholds = fit_thresholds(probabilities, truth, labels, wanted=0.9)

Reads and writes   thresholds.csv: label, scientific_name, threshold, target, precision_low, precision_high, n_positive,
                   n_negative, source, model, note

Fit on held-out recordings, one row each: windows of one recording are no independent evidence, and training recordings
flatter. Precision depends on how common a species is: on a new site fit again, from detections that were listened to.
A threshold belongs to the scores of one model file and is refused with those of another.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from math import exp, isfinite, log, sqrt
from pathlib import Path
from statistics import NormalDist
from typing import Any, TextIO, cast

import numpy as np
from numpy.typing import NDArray

from metrics import counts_by_score
from taxonomy import read_table, repeats

COLDEST, HOTTEST = 0.05, 20.0  # temperatures
CONFIDENCE = 0.9  # one-sided: of a hundred thresholds named beforehand ten are less precise than their bound says
TOO_FEW, NEVER = "too few to say", "never precise enough"
COLUMNS = (
    "label",
    "scientific_name",
    "threshold",
    "target",
    "precision_low",
    "precision_high",
    "n_positive",
    "n_negative",
    "source",
    "model",
    "note",
)
NUMBER = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?", re.IGNORECASE)

Numbers = NDArray[np.floating[Any]]
Truth = NDArray[np.bool_ | np.number[Any]]


@dataclass(frozen=True)
class Threshold:
    """From which probability on a species is reported: `score >= threshold`.

    best_f1          the threshold of the highest F1; 0.5 where no recording has the species
    f1               F1 there
    precise          the lowest threshold at which precision is at least `wanted`, or None: the note says why
    precision_low    one-sided 90 % bound of the precision at `applied`
    recall           share of the recordings with the species that are found at `applied`
    positives        recordings with the species
    negatives        recordings without
    precision_high   the bound from above, likewise
    wanted           the precision that `precise` was fitted for
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

    def __post_init__(self) -> None:
        shares = (self.best_f1, self.f1, self.precise or 0.0, self.precision_low, self.recall, self.precision_high)
        assert self.label, "a threshold without a label; give every species one"
        assert all(0 <= share <= 1 for share in (*shares, self.wanted)), f"{self}: a number is not between 0 and 1"
        assert self.positives >= 0 <= self.negatives, f"{self}: recordings cannot be fewer than none"

    @property
    def applied(self) -> float:
        """`precise` where there is one, else `best_f1`."""
        return self.best_f1 if self.precise is None else self.precise


def fit_temperature(logits: Numbers, truth: Truth) -> float:
    """The temperature T at which the binary cross-entropy of logits / T is least: above 1 the model was too sure.

    logits    any shape; all entries count alike. Leave out what is not judged: logits[valid], truth[valid]
    returns   T between 0.05 and 20, by golden section over log T; 1 where truth is all 0 or all 1, which says nothing
              of T. One of the bounds: the logits part the truth without a mistake (too few recordings), or not at all
    source    Guo et al., ICML 2017, https://arxiv.org/abs/1706.04599
    """
    assert logits.shape == truth.shape and truth.size, f"logits {logits.shape}, truth {truth.shape}; one for each"
    z, heard = logits.astype(np.float64), truth > 0
    assert np.isfinite(z).all(), "logits hold NaN or infinity; mend the model first"
    if heard.all() or not heard.any():
        return 1.0
    pull = z[heard].sum()

    def cost(log_temperature: float) -> float:
        warmth = exp(-log_temperature)
        return float(np.logaddexp(0, z * warmth).sum() - pull * warmth)

    low, high = log(COLDEST), log(HOTTEST)  # one valley lies between: the cost is convex in 1 / T
    golden = (sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    left_cost, right_cost = cost(left), cost(right)
    while high - low > 1e-4:
        if left_cost <= right_cost:
            high, right, right_cost = right, left, left_cost
            left = high - golden * (high - low)
            left_cost = cost(left)
        else:
            low, left, left_cost = left, right, right_cost
            right = low + golden * (high - low)
            right_cost = cost(right)
    return exp((low + high) / 2)


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


def expected_calibration_error(scores: Numbers, truth: Truth, bins: int = 15) -> float:
    """How far probabilities and shares lie apart: |mean score - share true| of each bin, weighted by its entries.

    Most entries of many species are sure absences, which make this small: look at `reliability_points` as well.
    scores   probabilities, any shape; all entries count alike
    source   Guo et al., ICML 2017, https://arxiv.org/abs/1706.04599
    """
    mean, share, count = reliability_points(scores, truth, bins)
    return float((count * np.abs(mean - share)).sum() / count.sum())


def reliability_points(
    scores: Numbers, truth: Truth, bins: int = 15
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """The reliability diagram: mean score, share true and count of every bin that holds something.

    scores   probabilities, any shape; all entries count alike. Leave out what is not judged: scores[valid], ...
    bins     of equal width; one holds its lower edge, the last one 1 as well
    """
    assert scores.shape == truth.shape and truth.size, f"scores {scores.shape}, truth {truth.shape}; one for each"
    assert ((scores >= 0) & (scores <= 1)).all(), "scores below 0, above 1 or NaN; give probabilities, not logits"
    assert bins > 0, f"{bins} bins; choose at least 1"
    p = scores.astype(np.float64).ravel()
    place = np.minimum((p * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    held = count > 0
    mean = np.bincount(place, p, bins)[held] / count[held]
    share = np.bincount(place, (truth > 0).ravel().astype(np.float64), bins)[held] / count[held]
    return mean, share, count[held].astype(np.int64)


def fit_thresholds(
    scores: Numbers,
    truth: Truth,
    labels: Sequence[str],
    wanted: float = 0.9,
    least: int = 10,
    valid: NDArray[np.bool_] | None = None,
) -> list[Threshold]:
    """For each species the threshold of the best F1, and the lowest that is precise enough for sure.

    For sure: the one-sided 90 % Wilson bound of the precision among what is reported reaches `wanted`. That takes 15
    recordings without a single mistake for 0.9. Thresholds lie midway between two neighbouring scores, rounded to as
    few decimals as still part them; below the lowest score nothing is known, so there it is the score itself.
    The lowest of many thresholds is a lucky one: simulated with a calibrated model, precision was below 0.9 for 9 of
    100 species with 170 positive recordings and for 30 of 100 with 75, seldom below 0.86.
    scores   (recordings, species) probabilities of held-out recordings
    truth    (recordings, species) what is heard there
    least    recordings with the species below which the note says "too few to say"
    valid    (recordings, species) False for what is not judged, such as secondary labels
    """
    assert scores.ndim == 2 and scores.shape == truth.shape == (len(scores), len(labels)), (
        f"scores {scores.shape}, truth {truth.shape}, {len(labels)} labels; give (recordings, species) of the same"
    )
    assert ((scores >= 0) & (scores <= 1)).all(), "scores below 0, above 1 or NaN; give probabilities, not logits"
    assert 0 < wanted < 1, f"wanted precision {wanted}; choose between 0 and 1, such as 0.9"
    judged = np.ones(truth.shape, np.bool_) if valid is None else valid
    assert judged.shape == truth.shape, f"valid {judged.shape}, truth {truth.shape}; give one for each"
    return [
        fit_threshold(scores[judged[:, place], place], truth[judged[:, place], place] > 0, label, wanted, least)
        for place, label in enumerate(labels)
    ]


def fit_threshold(scores: Numbers, heard: NDArray[np.bool_], label: str, wanted: float, least: int) -> Threshold:
    """One species; scores and heard (recordings,)."""
    positives, negatives = int(heard.sum()), int((~heard).sum())
    if not positives:
        return Threshold(label, 0.5, 0.0, None, 0.0, 0.0, 0, negatives, TOO_FEW, wanted=wanted)
    levels = np.unique(scores)[::-1]
    hits, misses = counts_by_score(heard, scores)
    found, reported = hits.cumsum(), (hits + misses).cumsum()  # at each level, taken as the threshold
    lowest, highest = wilson_bounds(found, reported, 2 * CONFIDENCE - 1)
    f1 = 2 * found / (reported + positives)
    best = int(np.argmax(f1))  # of equals the highest threshold
    enough = np.flatnonzero(lowest >= wanted)
    precise = int(enough[-1]) if enough.size and positives >= least else None
    applied = best if precise is None else precise
    return Threshold(
        label,
        best_f1=parting(levels, best),
        f1=float(f1[best]),
        precise=None if precise is None else parting(levels, precise),
        precision_low=float(lowest[applied]),
        recall=float(found[applied] / positives),
        positives=positives,
        negatives=negatives,
        note=TOO_FEW if positives < least else NEVER if precise is None else "",
        precision_high=float(highest[applied]),
        wanted=wanted,
    )


def parting(levels: Numbers, place: int) -> float:
    """A short number that levels[place] reaches and the next lower level does not, near the middle of the two.

    levels   (levels,) different scores, the highest first
    """
    upper = levels[place]
    if place + 1 == len(levels):
        return float(upper)
    lower, kind = levels[place + 1], levels.dtype.type
    middle = (float(lower) + float(upper)) / 2
    short = (round(middle, digits) for digits in range(1, 18))
    # compared in the kind of the scores: a float32 score is compared with a threshold that was rounded to float32
    return next((number for number in short if lower < kind(number) <= upper), float(upper))


def wilson_interval(hits: int, trials: int, confidence: float = 0.9) -> tuple[float, float]:
    """Where the true share lies, from `hits` of `trials`; (0, 1) without trials.

    confidence   of both sides together: 0.9 is z = 1.645, five in a hundred left out below and five above. The
                 one-sided 90 % bound is the lower end at 0.8, z = 1.282
    source       Wilson 1927; Newcombe, Statistics in Medicine 17, 1998, pages 857-872, whose examples the tests hold
    """
    assert 0 <= hits <= trials, f"{hits} hits of {trials} trials; count again"
    low, high = wilson_bounds(np.array([hits]), np.array([trials]), confidence)
    return float(low[0]), float(high[0])


def wilson_bounds(
    hits: NDArray[np.integer[Any]], trials: NDArray[np.integer[Any]], confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`wilson_interval` of many at once."""
    assert 0 < confidence < 1, f"confidence {confidence}; choose between 0 and 1, such as 0.9"
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    n = np.maximum(trials, 1)
    share = hits / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    low, high = np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)
    return np.where(trials > 0, low, 0.0), np.where(trials > 0, high, 1.0)


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
        target = "best F1" if threshold.precise is None else f"precision {threshold.wanted:g}"
        bounds = [f"{threshold.precision_low:.4f}", f"{threshold.precision_high:.4f}"]
        counts = [threshold.positives, threshold.negatives]
        cell = "" if threshold.label in undecided else threshold.applied
        table.writerow([threshold.label, name, cell, target, *bounds, *counts, source, model, threshold.note])


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
        moved.append(replace(threshold, best_f1=moved_to(threshold.best_f1, one, other), precise=precise))
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
    generator = np.random.default_rng(0)
    labels = ["clear", "vague", "rare"]
    honest = generator.normal(size=(600, 3)) * np.array([5, 1, 5]) - np.array([2, 1, 14])
    heard = generator.random(honest.shape) < 1 / (1 + np.exp(-honest))
    logits = 3 * honest  # a model with a good ear and too loud a voice
    shouted = 1 / (1 + np.exp(-logits))
    temperature = fit_temperature(logits, heard)
    calm = apply_temperature(shouted, temperature)
    before, after = expected_calibration_error(shouted, heard), expected_calibration_error(calm, heard)
    print(f"temperature {temperature:.2f}; off by {before:.3f} on average, {after:.3f} with it")
    thresholds = fit_thresholds(calm, heard, labels)
    for threshold in thresholds:
        said = threshold.note or f"precision {threshold.precision_low:.2f} to {threshold.precision_high:.2f}"
        print(f"{threshold.label:6} from {threshold.applied:<5}", f"{threshold.positives:4} recordings:", said)
    assert 2.5 < temperature < 3.5 and after < before / 2, "the shouting went unnoticed"
    assert [threshold.note for threshold in thresholds] == ["", NEVER, TOO_FEW], "what is said of whom has changed"
    assert from_json(to_json(thresholds)) == thresholds
