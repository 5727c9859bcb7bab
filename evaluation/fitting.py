"""What held-out recordings or verdicts show of a model's scores: its temperature, its thresholds, how far off it is.

    temperature = fit_temperature(logits, truth)                     # of each recording's highest window
    probabilities = apply_temperature(scores, temperature)
    thresholds = fit_thresholds(probabilities, truth, labels, wanted=0.9)

Fit on held-out recordings, one row each: windows of one recording are no independent evidence, and training recordings
flatter. Precision depends on how common a species is: on a new site fit again, from detections that were listened to.
What is fitted says nothing of how well it fits: judge it by recordings that it was not fitted on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import exp, log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.calibration import (
    CAREFUL,
    LEVEL,
    NEVER,
    STRICT,
    TOO_FEW,
    UNVALIDATED,
    Threshold,
    apply_temperature,
    clipped_logits,
    just_above,
)

COLDEST, HOTTEST = 0.05, 20.0  # temperatures
TAIL = 0.25  # the highest windows of noise, whose logits are taken to fall off exponentially
FEWEST_WINDOWS = 20  # of noise that a floor is fitted on
HIGHEST_FLOOR = 0.9999  # what is surer is reported whatever the noise says
CONFIDENCE = 0.9  # one-sided: of a hundred thresholds named beforehand ten are less precise than their bound says

Numbers = NDArray[np.floating[Any]]
Truth = NDArray[np.bool_ | np.number[Any]]


def fit_temperature(logits: Numbers, truth: Truth) -> float:
    """The temperature T at which the binary cross-entropy of logits / T is least: above 1 the model was too sure.

    logits    any shape; all entries count alike. Leave out what is not judged: logits[valid], truth[valid]. What is
              labelled is a recording, so give one row a recording, that of its highest window. Windows are none: where
              a species fills 70 to 35 in 100 of them, the others count against the model that is rightly silent.
              Simulated, 600 recordings of 1 to 24 windows that are perfectly calibrated: T is 2.2 to 3.0 over windows
              and .7 to .8 over highest ones (1 to 6 windows: 2.2 to 2.9 and .8 to .9); three times too sure: 6.7 to
              9.1 and 2.2 to 2.4. The mean over windows gives .5 to .9, 1 - prod(1 - p) .7: both lean further
    returns   T between 0.05 and 20, sought over log T; 1 where truth is all 0 or all 1, which says nothing of T. One
              of the bounds: the logits part the truth without a mistake (too few recordings), or not at all
    source    Guo et al., ICML 2017, https://arxiv.org/abs/1706.04599
    """
    assert logits.shape == truth.shape and truth.size, f"logits {logits.shape}, truth {truth.shape}; one for each"
    z, present = logits.astype(np.float64), truth > 0
    assert np.isfinite(z).all(), "logits hold NaN or infinity; mend the model first"
    if present.all() or not present.any():
        return 1.0
    pull = z[present].sum()

    def cost(log_temperature: float) -> float:
        warmth = exp(-log_temperature)
        return float(np.logaddexp(0, z * warmth).sum() - pull * warmth)

    # one valley lies between: the cost is convex in 1 / T
    from scipy.optimize import minimize_scalar  # slow to import, as all of this room's libraries

    found = minimize_scalar(cost, bounds=(log(COLDEST), log(HOTTEST)), method="bounded", options={"xatol": 1e-5})
    return exp(float(found.x))


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
    index = np.minimum((p * bins).astype(np.int64), bins - 1)
    count = np.bincount(index, minlength=bins)
    held = count > 0
    mean = np.bincount(index, p, bins)[held] / count[held]
    share = np.bincount(index, (truth > 0).ravel().astype(np.float64), bins)[held] / count[held]
    return mean, share, count[held].astype(np.int64)


def fit_thresholds(
    scores: Numbers,
    truth: Truth,
    labels: Sequence[str],
    wanted: float = 0.9,
    least: int = 10,
    valid: NDArray[np.bool_] | None = None,
    floor: float = 0.0,
) -> list[Threshold]:
    """For each species the threshold of the best F1, and the lowest that is precise enough for sure.

    For sure: the one-sided 90 % Wilson bound of the precision among what is reported reaches `wanted`. That takes 15
    recordings without a single mistake for 0.9. Thresholds lie midway between two neighbouring scores, rounded to as
    few decimals as still part them; below the lowest score nothing is known, so there it is the score itself.
    The lowest of many thresholds is a lucky one: simulated with a calibrated model, precision was below 0.9 for 9 of
    100 species with 170 positive recordings and for 30 of 100 with 75, seldom below 0.86.
    Where too few recordings have a species to be sure, its threshold is strict: the lowest at which the wanted share of
    what is reported is right, 0.5 at least; without any, none of the recordings reaches it, and 0.9 at least.
    scores   (recordings, species) probabilities of held-out recordings
    truth    (recordings, species) what is there
    least    recordings with the species below which the note says "too few to say"
    valid    (recordings, species) False for what is not judged, such as secondary labels
    floor    no threshold is lower (`noise_floor`); precision and recall are those at what is applied
    """
    assert scores.ndim == 2 and scores.shape == truth.shape == (len(scores), len(labels)), (
        f"scores {scores.shape}, truth {truth.shape}, {len(labels)} labels; give (recordings, species) of the same"
    )
    assert ((scores >= 0) & (scores <= 1)).all(), "scores below 0, above 1 or NaN; give probabilities, not logits"
    assert 0 < wanted < 1, f"wanted precision {wanted}; choose between 0 and 1, such as 0.9"
    judged = np.ones(truth.shape, np.bool_) if valid is None else valid
    assert judged.shape == truth.shape, f"valid {judged.shape}, truth {truth.shape}; give one for each"
    return [
        fit_threshold(scores[judged[:, index], index], truth[judged[:, index], index] > 0, label, wanted, least, floor)
        for index, label in enumerate(labels)
    ]


def fit_threshold(
    scores: Numbers, present: NDArray[np.bool_], label: str, wanted: float, least: int, floor: float = 0.0
) -> Threshold:
    """One species; scores and present (recordings,)."""
    from scipy.special import ndtri
    from sklearn.metrics import confusion_matrix_at_thresholds

    positives, negatives = int(present.sum()), int((~present).sum())
    if not positives:
        strict = max(STRICT, just_above(scores), floor)
        return Threshold(label, 0.5, 0.0, None, 0.0, 0.0, 0, negatives, UNVALIDATED, wanted=wanted, least=strict)
    _, misses, _, hits, levels = confusion_matrix_at_thresholds(present, scores)
    reported = hits + misses  # at each level, the highest first, taken as the threshold
    f1 = 2 * hits / (reported + positives)
    best = int(np.argmax(f1))  # of equals the highest threshold
    # the Wilson bound of a share reaches what is wanted where the score test that it inverts rejects less
    margin = ndtri(CONFIDENCE) * sqrt(wanted * (1 - wanted))
    enough = np.flatnonzero((hits / reported - wanted) * np.sqrt(reported) >= margin)
    precise = int(enough[-1]) if enough.size and positives >= least else None
    strict = 0.0
    if positives < least:
        right = np.flatnonzero(hits >= wanted * reported)
        strict = max(CAREFUL, parting(levels, int(right[-1])) if right.size else just_above(scores))
    fitted = Threshold(
        label,
        best_f1=parting(levels, best),
        f1=float(f1[best]),
        precise=None if precise is None else max(parting(levels, precise), floor),
        precision_low=0.0,
        recall=0.0,
        positives=positives,
        negatives=negatives,
        note=TOO_FEW if positives < least else NEVER if precise is None else "",
        wanted=wanted,
        least=max(strict, floor),
    )
    above = scores >= scores.dtype.type(fitted.applied)  # as predictor.py compares them
    found = int(present[above].sum())
    low, high = wilson_interval(found, int(above.sum()), LEVEL)
    return replace(fitted, precision_low=low, precision_high=high, recall=found / positives)


def noise_floor(scores: Numbers, hours: float, wanted: float) -> float:
    """The probability that the surest species of a window reaches `wanted` times an hour in sound without any.

    What is rarer than the highest quarter of the windows is extrapolated: their logits are taken to fall off
    exponentially, as the peaks over a threshold of most distributions do, so that one alarm an hour can be asked for
    of minutes of noise. One number for all species: floors of their own, fitted on 35 windows of noise, took back 3 of
    104 false alarms an hour in other noise, a common one 74 (LOG.md).
    scores   (windows, species) probabilities
    hours    of sound that the windows are of
    returns  0 where there are fewer than 20 windows: too few to say
    source   Pickands 1975, https://doi.org/10.1214/aos/1176343003
    """
    assert wanted > 0 and hours >= 0, f"{wanted} false alarms an hour, of {hours} h; more than none"
    if len(scores) < FEWEST_WINDOWS:
        return 0.0
    highest = np.sort(clipped_logits(scores.max(axis=1)))
    share = wanted * hours / len(highest)  # of the windows that may reach it
    if share >= TAIL:
        return probability_of(float(np.quantile(highest, max(0.0, 1 - share))))
    start = float(np.quantile(highest, 1 - TAIL))
    scale = float((highest[highest > start] - start).mean()) if highest[-1] > start else 0.0
    return min(probability_of(start + scale * log(TAIL / share)), HIGHEST_FLOOR)


def probability_of(logit: float) -> float:
    return 1 / (1 + exp(-logit))


def parting(levels: Numbers, index: int) -> float:
    """A short number that levels[index] reaches and the next lower level does not, near the middle of the two.

    levels   (levels,) different scores, the highest first
    """
    upper = levels[index]
    if index + 1 == len(levels):
        return float(upper)
    lower, kind = levels[index + 1], levels.dtype.type
    middle = (float(lower) + float(upper)) / 2
    short = (round(middle, digits) for digits in range(1, 18))
    # compared in the kind of the scores: a float32 score is compared with a threshold that was rounded to float32
    return next((number for number in short if lower < kind(number) <= upper), float(upper))


def wilson_interval(hits: int, trials: int, confidence: float = LEVEL) -> tuple[float, float]:
    """Where the true share lies, from `hits` of `trials`; (0, 1) without trials.

    confidence   of both sides together: 0.95 is z = 1.960, five in two hundred left out below and as many above. The
                 one-sided 90 % bound, by which `fit_threshold` decides, is the lower end at 0.8, z = 1.282
    source       Wilson 1927; Newcombe, Statistics in Medicine 17, 1998, pages 857-872, whose examples the tests hold
    """
    assert 0 <= hits <= trials, f"{hits} hits of {trials} trials; count again"
    assert 0 < confidence < 1, f"confidence {confidence}; choose between 0 and 1, such as 0.9"
    if not trials:
        return 0.0, 1.0
    from scipy.stats import binomtest

    bounds = binomtest(hits, trials).proportion_ci(confidence, "wilson")
    return float(bounds.low), float(bounds.high)


if __name__ == "__main__":
    generator = np.random.default_rng(0)
    honest = generator.normal(size=(600, 3)) * np.array([5, 1, 5]) - np.array([2, 1, 14])
    present = generator.random(honest.shape) < 1 / (1 + np.exp(-honest))
    logits = 3 * honest  # of a model that is three times too sure
    sure = 1 / (1 + np.exp(-logits))
    temperature = fit_temperature(logits, present)
    calm = apply_temperature(sure, temperature)
    before, after = expected_calibration_error(sure, present), expected_calibration_error(calm, present)
    print(f"temperature {temperature:.2f}; off by {before:.3f} on average, {after:.3f} with it")
    thresholds = fit_thresholds(calm, present, ["clear", "vague", "rare"])
    for threshold in thresholds:
        print(f"{threshold.label:6} from {threshold.applied} on; {threshold.positives} recordings {threshold.note}")
    assert 2.5 < temperature < 3.5 and after < before / 2, "the temperature was not found"
    assert [threshold.note for threshold in thresholds] == ["", NEVER, TOO_FEW], "what is said of whom has changed"
