"""The gate: whether an INT8 file answers as the float32 one does, on sound that neither was fitted to.

    judgement = judge(int8, floats, held_out, labels, limits, spared=0, products=24)
    print(judgement.verdict, judgement.text)

A file that is worse than the limits allow, or of which most is float32, is refused; too few windows decide nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from config import GateSettings
from evaluation.calibration import LEVEL
from evaluation.fitting import wilson_interval
from evaluation.metrics import (
    bootstrap_interval,
    class_roc_auc,
    cmap,
    macro_roc_auc,
    weighted_cmap,
    weighted_macro_roc_auc,
)
from runtime.cells import no_formula, write_sheet
from serving.comparison import ComparedWindows, pooled_answers

CHANCE = 0.05  # of a file that is as bad as the gate allows to agree in every window
Verdict = Literal["passed", "refused", "undecided"]


@dataclass(frozen=True)
class Judgement:
    """What the gate says of an INT8 file."""

    figures: Mapping[str, float | str]
    verdict: Verdict
    reasons: Sequence[str]  # why it may not be kept
    text: str  # in a line
    mostly_float: bool  # so that no limit can allow it


def judge(
    int8: NDArray[np.float32],
    floats: NDArray[np.float32],
    held_out: ComparedWindows,
    labels: Sequence[str],
    limits: GateSettings,
    spared: int,
    products: int,
) -> Judgement:
    """Compare the answers of two files (windows, species), of which one has `spared` of its `products` in float32."""
    figures = compare_answers(int8, floats, held_out, labels)
    if 2 * spared >= products:
        reason = f"{spared} of its {products} products would be float32, so it is none"
        return Judgement(figures, "refused", [reason], f"{gate_line(figures)}; {reason}", mostly_float=True)
    verdict, why = decide(figures, limits, len(held_out.owner) if len(held_out.truth) else 0)
    reasons = gate_reasons(figures, limits)
    return Judgement(figures, verdict, reasons, gate_line(figures) + why, mostly_float=False)


def compare_answers(
    int8: NDArray[np.float32], floats: NDArray[np.float32], held_out: ComparedWindows, labels: Sequence[str]
) -> dict[str, float | str]:
    """How far the INT8 file is from the float32 one: in its answers, and in what they are worth. `_low` and `_high` of
    a figure are its 95 % interval: Wilson's of a share of windows, else over groups of recordings that are weighted
    anew, both files with the same weights."""
    change = np.abs(int8 - floats)[held_out.rows]
    same = (int8.argmax(axis=1) == floats.argmax(axis=1))[held_out.rows]
    figures: dict[str, float | str] = {
        "windows": len(same),
        "top1_agreement": float(same.mean()),
        "largest_difference": float(change.max()),
        "median_difference": float(np.median(change.max(axis=1))),
        "most_changed_species": labels[int(change.max(axis=0).argmax())],
    }
    figures |= bounds("top1_agreement", wilson_interval(int(same.sum()), len(same), LEVEL))
    truth = held_out.truth
    if len(truth) and ((truth > 0).any(axis=0) & (truth == 0).any(axis=0)).any():
        figures |= auc_drops(pooled_answers(int8, held_out), pooled_answers(floats, held_out), held_out, labels)
    return figures


def auc_drops(
    int8: NDArray[np.float32], floats: NDArray[np.float32], held_out: ComparedWindows, labels: Sequence[str]
) -> dict[str, float | str]:
    """By what recordings are distinguished worse, of two files' answers (recordings, species)."""
    truth = held_out.truth
    drops = class_roc_auc(truth, floats) - class_roc_auc(truth, int8)
    figures: dict[str, float | str] = {
        "macro_auc_drop": macro_roc_auc(truth, floats) - macro_roc_auc(truth, int8),
        "cmap_drop": cmap(truth, floats) - cmap(truth, int8),
        "worst_species_auc_drop": float(np.nanmax(drops)),
        "worst_species": labels[int(np.nanargmax(drops))],
    }
    if len(set(held_out.groups)) > 1:
        for name, measure in (("macro_auc_drop", weighted_macro_roc_auc), ("cmap_drop", weighted_cmap)):

            def drop(
                weights: NDArray[np.float64], measure: Callable[..., NDArray[np.float64]] = measure
            ) -> NDArray[np.float64]:
                lost: NDArray[np.float64] = measure(truth, floats, weights) - measure(truth, int8, weights)
                return lost

            figures |= bounds(name, bootstrap_interval(drop, held_out.groups))
    return figures


def bounds(name: str, interval: tuple[float, float]) -> dict[str, float | str]:
    """The ends of an interval beside a figure."""
    return {f"{name}_low": interval[0], f"{name}_high": interval[1]}


def enough_windows(agreement: float) -> int:
    """How many windows can decide: in fewer, a file that agrees in no more than this share of all windows would agree
    in every one more often than one time in twenty. .98 ** 149 is below .05, so 149 for 98 %."""
    return math.ceil(math.log(CHANCE) / math.log(agreement)) if 0 < agreement < 1 else 1


def gate_reasons(figures: Mapping[str, float | str], limits: GateSettings) -> list[str]:
    """Why an INT8 file may not be kept; nothing where it may."""
    found: list[str] = []
    if float(figures["top1_agreement"]) < limits.min_agreement:
        found.append(f"another best species in {100 * (1 - float(figures['top1_agreement'])):.1f} % of the windows")
    if float(figures.get("macro_auc_drop", 0.0)) > limits.max_auc_drop:
        found.append(f"macro AUC lower by {float(figures['macro_auc_drop']):.4f}")
    return found


def decide(figures: Mapping[str, float | str], limits: GateSettings, windows: int) -> tuple[Verdict, str]:
    """Whether an INT8 file may be kept, and what is to be said of it. In too few held-out windows it is refused only if
    it is certain to be worse than allowed, on noise never."""
    enough = enough_windows(limits.min_agreement)
    if windows >= enough:
        broken = gate_reasons(figures, limits)
        return ("refused" if broken else "passed"), "".join(f"; {reason}" for reason in broken)
    if windows and float(figures["top1_agreement_high"]) < limits.min_agreement:
        return "refused", "; too few windows to judge what is good, and enough for this"
    return "undecided", (
        f"; {enough} held-out windows are needed to tell {100 * limits.min_agreement:g} % from less, so neither "
        "agreement nor AUC can be judged: the file is kept as unverified"
    )


def gate_line(figures: Mapping[str, float | str]) -> str:
    """The comparison in a line, with 95 % intervals."""
    same, low, high = (f"{100 * float(figures[f'top1_agreement{end}']):.1f}" for end in ("", "_low", "_high"))
    text = f"same best species in {same} % [95 %: {low}, {high}] of {figures['windows']} windows"
    text += f", largest change {float(figures['largest_difference']):.4f} ({figures['most_changed_species']})"
    if "macro_auc_drop" not in figures:
        return text + "; no species is in some of these recordings and not in others, so AUC says nothing"
    for name, words in (("macro_auc_drop", "macro AUC"), ("cmap_drop", "cmAP")):
        text += f", {words} {-float(figures[name]):+.4f}"
        if f"{name}_low" in figures:
            text += f" [95 %: {-float(figures[f'{name}_high']):+.4f}, {-float(figures[f'{name}_low']):+.4f}]"
    return text


def write_changes(
    path: Path, int8: NDArray[np.float32], floats: NDArray[np.float32], held_out: ComparedWindows, labels: Sequence[str]
) -> None:
    """What INT8 changes for each species: its probabilities, and its AUC where some recordings have it and some not."""
    change = np.abs(int8 - floats)[held_out.rows]
    columns = [[f"{value:.6f}" for value in figures] for figures in (change.max(axis=0), change.mean(axis=0))]
    if len(held_out.truth):
        areas = [class_roc_auc(held_out.truth, pooled_answers(scores, held_out)) for scores in (floats, int8)]
        columns += [["" if np.isnan(area) else f"{area:.6f}" for area in column] for column in areas]
    header = ["label", "largest_change", "mean_change", "auc_float32", "auc_int8"][: 1 + len(columns)]
    rows = ([no_formula(label), *cells] for label, *cells in zip(labels, *columns, strict=True))
    write_sheet(path, [header, *rows])


if __name__ == "__main__":
    truth = np.eye(4, dtype=np.float32)[np.arange(200) % 4]
    rows = np.arange(200)
    held_out = ComparedWindows(np.zeros((200, 1), np.float32), rows, rows, truth, rows.astype(np.str_))
    floats = (0.2 + 0.6 * truth).astype(np.float32)
    spoiled = floats.copy()
    spoiled[:20] = floats[1:21]  # each tenth window gets its neighbour's answer
    for name, int8 in (("the same", floats), ("spoiled", spoiled)):
        judgement = judge(int8, floats, held_out, tuple("abcd"), GateSettings(), spared=0, products=24)
        print(f"{name}: {judgement.verdict}: {judgement.text}")
        assert judgement.verdict == ("passed" if name == "the same" else "refused")
