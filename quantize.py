"""Stage 3: one ONNX file that takes waveforms and gives probabilities, its matrix products in INT8, for a plain CPU.

    python quantize.py --classifier runs/finetune/classifier.safetensors

Reads    classifier.safetensors, and the recordings that training_recordings.csv and held_out_recordings.csv beside it
         name
Writes   runs/quantize/: classifier.onnx (float32), classifier.int8.onnx, quantize.json, quantize.png, species.csv,
         run.json

Before: on training windows, outlier channels are smoothed, and what INT8 would cost each product is measured in the
logits; the dearest get weights of 8 bits, then stay in float32, until all together cost no more than --max_error.
After: both files are run on the held-out windows. A float32 file that differs from the trained network is an error; an
INT8 file that is worse than --gate allows, or of which most is float32, is refused. Too few windows decide nothing.
"""

from __future__ import annotations

import runtime.openmp  # pyright: ignore[reportUnusedImport] - it counts when torch is loaded
import runtime.stopping  # noqa: F401  # pyright: ignore[reportUnusedImport] - Ctrl-C counts from here on

from config import QuantizeCommand
from runtime.terminal import answer_early

if __name__ == "__main__":
    answer_early(QuantizeCommand)  # before torch is imported, which takes seconds

import csv
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from archive.recordings import read_recordings
from config import BudgetSettings, GateSettings, size_in_words
from data_loader import recording_contexts, truth_table
from evaluation.calibration import LEVEL
from evaluation.fitting import wilson_interval
from evaluation.held_out import HELD_OUT, TRAINING, WindowScores, pool_windows
from evaluation.metrics import (
    bootstrap_interval,
    class_roc_auc,
    cmap,
    macro_roc_auc,
    weighted_cmap,
    weighted_macro_roc_auc,
)
from model import BirdClefClassifier
from runtime.cells import no_formula
from runtime.digests import beside
from runtime.files import publish, read_json, write_json
from runtime.runs import open_run, peak_memory_mb
from runtime.terminal import command_line, launch
from serving import scorer as scoring
from serving.export import Recipe, front_end, write_float, write_int8
from serving.sensitivity import PRODUCTS, ProductCost, choose, input_channels, product_costs, smoothing, together
from serving.speed import (
    Speed,
    deepest_that_fits,
    fits,
    in_fresh_process,
    largest_that_fits,
    measure,
    time_by_part,
    time_graph,
)
from training.checkpoint import ClassifierFacts, load_classifier
from training.device import available_cores

FLOAT_TOLERANCE = 1e-4
SCANNED = 32  # contexts in which outliers are looked for and the cost of each product is measured
SHOWN = 8  # products named in the table
BYTES_EACH = {"ONNX INT8": 1.3, "ONNX float32": 6.0, "OpenVINO": 10.0}  # peak memory, of a weight
CHANCE = 0.05  # of a file that is as bad as the gate allows to agree in every window
Verdict = Literal["passed", "refused", "undecided"]


@dataclass(frozen=True)
class HeldOut:
    """What the files are compared on."""

    contexts: NDArray[np.float32]  # (contexts, samples)
    rows: NDArray[np.int64]  # (windows,) which of the answers to the contexts are of new windows
    owner: NDArray[np.int64]  # (windows,) index of the recording
    truth: NDArray[np.float32]  # (recordings, species)
    groups: NDArray[np.str_]  # (recordings,) what is alike


def quantize(config: QuantizeCommand) -> int:
    """The whole of stage 3; returns the exit code."""
    torch.manual_seed(0)
    torch.set_num_threads(config.run.threads or available_cores())
    folds = sorted(config.classifier.parent.glob("fold-*/classifier.safetensors"))
    assert config.classifier.is_file() or not folds, (
        f"{config.classifier} is not there, but one for each of {len(folds)} folds; for example --classifier {folds[0]}"
    )
    assert config.max_error >= 0, f"--max_error {config.max_error}: a share of the logits' spread, 0 or more"
    model, facts = load_classifier(config.classifier)
    print(f"classifier {config.classifier}: {size_in_words(facts.size, facts.encoder.layers)}")
    depths = probed_depths(config.run.root / "probe" / "probe.json", facts)  # refused now rather than at the end
    held_out = read_windows(config.classifier.with_name(HELD_OUT), facts, config.max_windows)
    scanned, source = scanned_contexts(config.classifier, facts, held_out)
    if len(held_out.truth):
        print(f"comparing on {len(held_out.owner)} held-out windows of {len(held_out.truth)} recordings")
    else:
        print("no held-out recordings can be read: comparing on noise, and marking the files as unverified")
    enough = enough_windows(config.gate.min_agreement)
    verified = len(held_out.truth) > 0 and len(held_out.owner) >= enough
    with open_run("quantize", config.run.root, config) as run:
        float_path, int8_path = run.folder / "classifier.onnx", run.folder / "classifier.int8.onnx"
        write_float(model, facts, float_path, len(held_out.truth) > 0)
        trained, floats = network_scores(model, held_out.contexts), file_scores(float_path, held_out.contexts)
        largest = float(np.abs(floats - trained).max())
        assert largest <= FLOAT_TOLERANCE, (
            f"{float_path} differs from the trained network by {largest:.1e}: do not deploy it"
        )
        wrong = scoring.int8_fault()
        assert not wrong, f"INT8 cannot be judged on this CPU ({scoring.cpu_name()}): {wrong}; quantise on another"
        source = f"{len(scanned)} {source}"
        recipe, costs = find_recipe(model, torch.from_numpy(scanned), config.max_error)
        windows = model.windows
        del model, scanned  # its weights are most of the memory that the rest would need
        print(f"what INT8 costs each product, on {source}:")
        print_costs(costs, recipe)
        write_int8(float_path, int8_path, facts, verified, recipe)
        int8 = file_scores(int8_path, held_out.contexts)
        gate = compare(int8, floats, held_out, facts.taxonomy.labels)
        broken = gate_reasons(gate, config.gate)
        verdict, why = judged(gate, config.gate, len(held_out.owner) if len(held_out.truth) else 0)
        mostly_float = 2 * len(recipe.spared) >= len(costs)
        if mostly_float:
            few = f"{len(recipe.spared)} of its {len(costs)} products would be float32, so it is none"
            broken, verdict, why = [few], "refused", f"; {few}"
        print(f"gate {verdict}: {gate_line(gate)}{why}")
        thresholds = facts.thresholds
        if verified:
            thresholds = thresholds.moved_to(floats[held_out.rows], int8[held_out.rows], facts.taxonomy)
        moved = facts.thresholds.differing(thresholds)
        if moved:
            print(f"{moved} thresholds are moved, so that INT8 reports as many of these windows as float32 does")
            write_int8(float_path, int8_path, replace(facts, thresholds=thresholds), verified, recipe)
        write_species(run.folder / "species.csv", int8, floats, held_out, facts.taxonomy.labels)
        speeds = measure_all(config.classifier, float_path, int8_path)
        print(scoring.cpu_name())
        files = {"torch float32": config.classifier, "ONNX float32": float_path, "ONNX INT8": int8_path}
        files |= {"OpenVINO": float_path} if scoring.openvino_may_be_quicker() else {}
        print_speeds(speeds, files)
        hearing = time_graph(front_end(float_path), held_out.contexts.shape[1]) / windows
        share = hearing / speeds["ONNX INT8", 1].milliseconds_per_window
        print(f"of which the front end takes {hearing:.2f} ms, {100 * share:.0f} % of an INT8 window on one thread")
        threads = max(threads for _, threads in speeds)
        refused = verdict == "refused" and (mostly_float or not config.gate.allow_worse)
        served_as = quickest_way(speeds, threads, refused)
        chosen = speeds[served_as, threads]
        fitting, words = fits(chosen, **asdict(config.budget))
        budget = asdict(config.budget) | {"context_seconds": facts.audio.context_seconds}
        best, rates = largest_that_fits(
            chosen, facts.size, depth=facts.depth, bytes_each=BYTES_EACH[served_as], **budget
        )
        print(f"as {served_as}{', as INT8 is refused' if refused else ''}: {words}")
        advice = "" if fitting else smaller_one(chosen, served_as, threads, facts, config.budget, depths)
        if advice:
            print(advice)
        print(f"largest size that would fit, estimated from this one: {best or 'none'}")
        parts = {
            name: time_by_part(path, held_out.contexts.shape[1])
            for name, path in (("float32", float_path), ("INT8", int8_path))
        }
        card = {
            "classifier": str(config.classifier),
            "size": facts.size,
            "depth": facts.encoder.layers,
            "verified": verified,
            "windows": len(held_out.owner),
            "largest_float_difference": largest,
            "products_judged_on": source,
            "products": [asdict(cost) for cost in costs],
            "eight_bits": recipe.eight,
            "kept_in_float32": recipe.spared,
            "gate": verdict,
            "int8": gate
            | {"megabytes": megabytes(int8_path)}
            | {"milliseconds_per_window": speeds["ONNX INT8", threads].milliseconds_per_window},
            "thresholds_moved": moved,
            "megabytes": {name: megabytes(path) for name, path in files.items()},
            "speed": {f"{name}, {count} threads": asdict(speed) for (name, count), speed in speeds.items()},
            "front_end_milliseconds": hearing,
            "milliseconds_of_a_context_by_part": parts,
            "cpu": scoring.cpu_name(),
            "fits_budget": fitting,
            "served_as": served_as,
            "budget": "; ".join(filter(None, (words, advice))),
            "largest_size_that_fits": best,
            "expected_times_real_time": rates,
            "peak_memory_mb": peak_memory_mb(),
        }
        write_json(run.folder / "quantize.json", card)
        agreed = f"{100 * float(gate['top1_agreement']):.1f} % of {gate['windows']} windows"
        title = f"gate {verdict}: same best species in {agreed}"
        title += f"; {len(costs) - len(recipe.spared)} of {len(costs)} products in INT8"
        answers = floats[held_out.rows], int8[held_out.rows]
        draw_card(run.folder / "quantize.png", costs, recipe, parts, answers, title)
        if refused:
            (run.folder / "refused").mkdir()
            for path in filter(None, (beside(int8_path), int8_path)):
                path.rename(run.folder / "refused" / path.name)
            raise AssertionError(
                f"no INT8 file: {'; '.join(broken)}; kept the float32 file {float_path} (--model takes it); try "
                "another --max_error, or allow more: --gate.min_agreement, --gate.max_auc_drop, --gate.allow_worse"
            )
    print(f"wrote {int8_path}; {next_step(config.classifier, int8_path)}")
    return 0


def next_step(classifier: Path, model: Path) -> str:
    """How to use the model, as a command that can be copied: with a recording of which it is known that it is there."""
    table = classifier.with_name("held_out_recordings.csv")
    rows = read_recordings(table) if table.is_file() else []
    there = next((row.path for row in rows if row.path.is_file()), None)
    if there is None:
        return f"next: predictor.py with your recordings and --model {model}"
    return f"next, or with recordings of your own: {command_line('predictor.py', there, '--model', model)}"


def read_windows(table: Path, facts: ClassifierFacts, most: int, most_of_each: int = 0) -> HeldOut:
    """About `most` windows of the recordings that a table beside a classifier names, as training judged them, as far as
    they are still there; else noise, and no truth.

    most_of_each   contexts of each recording at most; 0 is all
    """
    labels, audio = facts.taxonomy.labels, facts.audio
    windows = round(audio.context_seconds / audio.window_seconds)
    listed = [row for row in read_recordings(table) if row.path.is_file()] if table.is_file() else []
    order: list[int] = np.random.default_rng(0).permutation(len(listed)).tolist()  # tables are often sorted by species
    contexts, rows, owner, kept = list[NDArray[np.float32]](), list[int](), list[int](), dict[int, int]()
    taken = Counter[int]()
    for heard in recording_contexts([listed[index] for index in order], audio):
        if len(owner) >= most:
            break
        taken[heard.owner] += 1
        if most_of_each and taken[heard.owner] > most_of_each:
            continue
        rows += [len(contexts) * windows + row for row in heard.rows]
        owner += [kept.setdefault(heard.owner, len(kept))] * len(heard.windows)
        contexts.append(heard.samples)
    if not contexts:
        samples = round(audio.context_seconds * audio.sample_rate)
        noise = np.random.default_rng(0).normal(0, 0.1, (SCANNED, samples)).astype(np.float32)
        every, nothing = np.arange(SCANNED * windows), np.zeros((0, len(labels)), np.float32)
        return HeldOut(noise, every, np.zeros(len(every), np.int64), nothing, np.zeros(0, np.str_))
    used = [listed[order[index]] for index in kept]
    truth = truth_table(listed, labels, audio)[[order[index] for index in kept]]
    groups = np.array([row.group or str(row.path) for row in used])
    return HeldOut(np.stack(contexts), np.array(rows), np.array(owner), truth, groups)


def scanned_contexts(classifier: Path, facts: ClassifierFacts, held_out: HeldOut) -> tuple[NDArray[np.float32], str]:
    """Contexts (contexts, samples) on which products are judged, and what they are: of training, so that the held-out
    ones judge a file that was not fitted to them; where training's table is missing, held-out ones all the same."""
    windows = round(facts.audio.context_seconds / facts.audio.window_seconds)
    training = read_windows(classifier.with_name(TRAINING), facts, SCANNED * windows, most_of_each=1)
    if len(training.truth):
        return training.contexts[:SCANNED], "training contexts"
    source = "held-out contexts, which judge the file too" if len(held_out.truth) else "contexts of noise"
    return held_out.contexts[:SCANNED], source


def find_recipe(model: BirdClefClassifier, waveforms: torch.Tensor, limit: float) -> tuple[Recipe, list[ProductCost]]:
    """What becomes of each product, and what INT8 would cost it, the dearest first."""
    channels = input_channels(model, waveforms)
    scales = smoothing(model, channels)
    costs = product_costs(model, waveforms, channels, scales)
    eight, spared = choose(costs, limit)
    factors = {cost.name: scales[cost.name].numpy() for cost in costs if cost.smoothed}
    return Recipe(spared, eight, factors, {name: own.mean.numpy() for name, own in channels.items()}), costs


@torch.inference_mode()
def network_scores(model: BirdClefClassifier, contexts: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the trained network itself says: (windows, species)."""
    starts = tqdm(range(0, len(contexts), 16), "trained network", disable=None, leave=False)
    batches = (torch.from_numpy(contexts[start : start + 16]) for start in starts)
    scores: NDArray[np.float32] = torch.cat([model(batch).sigmoid() for batch in batches]).numpy()
    return scores


def file_scores(path: Path, contexts: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a served file says: (windows, species)."""
    heard = tqdm(contexts, path.name, unit="context", disable=None, leave=False)
    return scoring.score(scoring.open_scorer(path), heard)


def compare(
    int8: NDArray[np.float32], floats: NDArray[np.float32], held_out: HeldOut, labels: Sequence[str]
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
        one, other = (pooled(scores, held_out) for scores in (int8, floats))
        drops = class_roc_auc(truth, other) - class_roc_auc(truth, one)
        figures |= {
            "macro_auc_drop": macro_roc_auc(truth, other) - macro_roc_auc(truth, one),
            "cmap_drop": cmap(truth, other) - cmap(truth, one),
            "worst_species_auc_drop": float(np.nanmax(drops)),
            "worst_species": labels[int(np.nanargmax(drops))],
        }
        if len(set(held_out.groups)) > 1:
            for name, measure in (("macro_auc_drop", weighted_macro_roc_auc), ("cmap_drop", weighted_cmap)):

                def drop(
                    weights: NDArray[np.float64], measure: Callable[..., NDArray[np.float64]] = measure
                ) -> NDArray[np.float64]:
                    lost: NDArray[np.float64] = measure(truth, other, weights) - measure(truth, one, weights)
                    return lost

                figures |= bounds(name, bootstrap_interval(drop, held_out.groups))
    return figures


def bounds(name: str, interval: tuple[float, float]) -> dict[str, float | str]:
    """The ends of an interval beside a figure."""
    return {f"{name}_low": interval[0], f"{name}_high": interval[1]}


def write_species(
    path: Path,
    int8: NDArray[np.float32],
    floats: NDArray[np.float32],
    held_out: HeldOut,
    labels: Sequence[str],
) -> None:
    """What INT8 changes for each species: its probabilities, and its AUC where some recordings have it and some not."""
    change = np.abs(int8 - floats)[held_out.rows]
    columns = [[f"{value:.6f}" for value in figures] for figures in (change.max(axis=0), change.mean(axis=0))]
    if len(held_out.truth):
        areas = [class_roc_auc(held_out.truth, pooled(scores, held_out)) for scores in (floats, int8)]
        columns += [["" if np.isnan(area) else f"{area:.6f}" for area in column] for column in areas]
    with publish(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["label", "largest_change", "mean_change", "auc_float32", "auc_int8"][: 1 + len(columns)])
        writer.writerows([no_formula(label), *cells] for label, *cells in zip(labels, *columns, strict=True))


def pooled(scores: NDArray[np.float32], held_out: HeldOut) -> NDArray[np.float32]:
    """(recordings, species) of the answers to all contexts."""
    mine, times = scores[held_out.rows], np.zeros(len(held_out.rows))
    return pool_windows(WindowScores(held_out.owner, times, times, mine, mine[:, :0]), len(held_out.truth))


def enough_windows(agreement: float) -> int:
    """How many windows can decide: in fewer, a file that agrees in no more than this share of all windows would agree
    in every one more often than one time in twenty. .98 ** 149 is below .05, so 149 for 98 %."""
    return math.ceil(math.log(CHANCE) / math.log(agreement)) if 0 < agreement < 1 else 1


def gate_reasons(gate: Mapping[str, float | str], limits: GateSettings) -> list[str]:
    """Why an INT8 file may not be kept; nothing where it may."""
    found: list[str] = []
    if float(gate["top1_agreement"]) < limits.min_agreement:
        found.append(f"another best species in {100 * (1 - float(gate['top1_agreement'])):.1f} % of the windows")
    if float(gate.get("macro_auc_drop", 0.0)) > limits.max_auc_drop:
        found.append(f"macro AUC lower by {float(gate['macro_auc_drop']):.4f}")
    return found


def judged(gate: Mapping[str, float | str], limits: GateSettings, windows: int) -> tuple[Verdict, str]:
    """Whether an INT8 file may be kept, and what is to be said of it. In too few held-out windows it is refused only if
    it is certain to be worse than allowed, on noise never."""
    enough = enough_windows(limits.min_agreement)
    if windows >= enough:
        broken = gate_reasons(gate, limits)
        return ("refused" if broken else "passed"), "".join(f"; {reason}" for reason in broken)
    if windows and float(gate["top1_agreement_high"]) < limits.min_agreement:
        return "refused", "; too few windows to judge what is good, and enough for this"
    return "undecided", (
        f"; {enough} held-out windows are needed to tell {100 * limits.min_agreement:g} % from less, so neither "
        "agreement nor AUC can be judged: the file is kept as unverified"
    )


def gate_line(gate: Mapping[str, float | str]) -> str:
    """The comparison in a line, with 95 % intervals."""
    same, low, high = (f"{100 * float(gate[f'top1_agreement{end}']):.1f}" for end in ("", "_low", "_high"))
    text = f"same best species in {same} % [95 %: {low}, {high}] of {gate['windows']} windows"
    text += f", largest change {float(gate['largest_difference']):.4f} ({gate['most_changed_species']})"
    if "macro_auc_drop" not in gate:
        return text + "; no species is in some of these recordings and not in others, so AUC says nothing"
    for name, words in (("macro_auc_drop", "macro AUC"), ("cmap_drop", "cmAP")):
        text += f", {words} {-float(gate[name]):+.4f}"
        if f"{name}_low" in gate:
            text += f" [95 %: {-float(gate[f'{name}_high']):+.4f}, {-float(gate[f'{name}_low']):+.4f}]"
    return text


def print_costs(costs: Sequence[ProductCost], recipe: Recipe) -> None:
    """The dearest products, as a table, and all that are not INT8 of 7 bits."""
    print(f"{'product':30}{'logits moved, 7 bits':>21}{'8 bits':>9}{'loudest / median':>18}")
    for cost in costs[:SHOWN]:
        print(f"{cost.name:30}{100 * cost.error:19.2f} %{100 * cost.error_8_bits:7.2f} %{cost.outlier:18.1f}")
    if len(costs) > SHOWN:
        print(f"... and {len(costs) - SHOWN} cheaper ones")
    left = {cost.name: cost.error_8_bits if cost.name in recipe.eight else cost.error for cost in costs}
    rest = 100 * together(error for name, error in left.items() if name not in recipe.spared)
    print(f"all INT8 products together: {rest:.1f} % of the logits' spread")
    if recipe.eight:
        print(f"weights of 8 bits, slower on a CPU without VNNI: {', '.join(sorted(recipe.eight))}")
    for name, reason in recipe.spared.items():
        print(f"{name} stays in float32: {reason}")


def draw_card(
    path: Path,
    costs: Sequence[ProductCost],
    recipe: Recipe,
    parts: Mapping[str, Mapping[str, float]],
    scores: tuple[NDArray[np.float32], NDArray[np.float32]],
    title: str,
) -> None:
    """quantize.png: what each product costs, where the time goes, how the two files agree.

    scores   of the float32 and the INT8 file, (windows, species) each
    """
    from matplotlib.figure import Figure  # slow to import, and only drawn once

    figure = Figure(figsize=(15, 4.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.25, 1.1, 1])
    layers = 1 + max(int(cost.name.split(".")[1]) for cost in costs)
    table = np.zeros((layers, len(PRODUCTS)))
    for cost in costs:
        _, layer, product = cost.name.split(".", 2)
        row, column = int(layer), PRODUCTS.index(product)
        table[row, column] = 100 * (cost.error_8_bits if cost.name in recipe.eight else cost.error)
        if layers <= 12 or cost.name in recipe.spared:
            mark = (
                "float32"
                if cost.name in recipe.spared
                else f"{table[row, column]:.1f}{' *' if cost.name in recipe.eight else ''}"
            )
            left.text(column, row, mark, ha="center", va="center", fontsize=8)
    image = left.imshow(table, cmap="Oranges", vmin=0, vmax=1.5 * table.max(), aspect="auto")
    figure.colorbar(image, ax=left, label="% of the logits' spread")
    left.set_xticks(range(len(PRODUCTS)), [name.removeprefix("self_attn.") for name in PRODUCTS])
    if layers <= 12:
        left.set_yticks(range(layers))
    left.set_ylabel("layer")
    left.set_title("what INT8 moves the logits by" + (" (* weights of 8 bits)" if recipe.eight else ""))
    names = [part for part in next(iter(parts.values())) if any(times[part] > 0 for times in parts.values())]
    for offset, (name, times) in zip((-0.2, 0.2), parts.items(), strict=True):
        bars = middle.barh(
            [place + offset for place in range(len(names))], [times[part] for part in names], 0.4, label=name
        )
        middle.bar_label(bars, fmt="%.2f", fontsize=7, padding=2)
    middle.set_yticks(range(len(names)), names)
    middle.invert_yaxis()
    middle.margins(x=0.15)
    middle.set_xlabel("ms of a context, one thread")
    middle.legend()
    middle.set_title("where the time goes")
    floats, int8 = scores
    other = floats.argmax(axis=1) != int8.argmax(axis=1)
    best = np.arange(len(floats)), floats.argmax(axis=1)
    right.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    right.plot(
        floats[best][~other],
        int8[best][~other],
        ".",
        markersize=4,
        label=f"{(~other).sum()} windows, same best species",
    )
    right.plot(
        floats[best][other], int8[best][other], "x", color="tab:red", label=f"{other.sum()} windows, another one"
    )
    right.set_xlabel("float32: probability of its best species")
    right.set_ylabel("INT8: probability of the same species")
    right.legend(fontsize=8)
    right.set_title("how the two files agree")
    figure.suptitle(title)
    with publish(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def measure_all(classifier: Path, float_path: Path, int8_path: Path) -> dict[tuple[str, int], Speed]:
    """The trained network and both files, with one thread and two."""
    found: dict[tuple[str, int], Speed] = {}
    place = str(classifier.resolve())
    for threads in sorted({1, min(2, available_cores())}):
        program = f"import quantize; quantize.report_network({place!r}, {threads}, started)"
        found["torch float32", threads] = in_fresh_process(f"import time; started = time.time(); {program}")
        found["ONNX float32", threads] = measure(float_path, threads)
        found["ONNX INT8", threads] = measure(int8_path, threads)
        if scoring.openvino_may_be_quicker():
            found["OpenVINO", threads] = measure(float_path, threads, "openvino")
    return found


def report_network(classifier: str, threads: int, started: float) -> None:
    """In a fresh process: what the trained network takes."""
    from serving.speed import report

    torch.set_num_threads(threads)
    model, facts = load_classifier(Path(classifier))
    noise = 0.1 * torch.randn(1, model.log_mel.samples)

    def answer() -> object:
        with torch.inference_mode():
            return model(noise)

    report(answer, model.windows, facts.audio.window_seconds, started)


def quickest_way(speeds: Mapping[tuple[str, int], Speed], threads: int, refused: bool) -> str:
    """How predictor.py should serve it: ONNX Runtime with the file that was kept, unless OpenVINO is clearly quicker,
    by the same rule as its --engine auto."""
    ours = "ONNX float32" if refused else "ONNX INT8"
    other = speeds.get(("OpenVINO", threads))
    quicker = other and other.milliseconds_per_window < scoring.FASTER * speeds[ours, threads].milliseconds_per_window
    return "OpenVINO" if quicker else ours


def probed_depths(path: Path, facts: ClassifierFacts) -> dict[int, float]:
    """Depth -> cmAP of the layers down to it, as probe.py found it for the encoder of a classifier; empty where it was
    not asked."""
    card = read_json(path, "`python probe.py` writes it anew") if path.is_file() else {}
    if card.get("size") != facts.size or card.get("weights") != facts.provenance.get("encoder"):
        return {}
    return {int(one["depth"]): float(one["cmap"]) for one in card["layers_1_to"]}


def smaller_one(
    speed: Speed,
    served_as: str,
    threads: int,
    facts: ClassifierFacts,
    budget: BudgetSettings,
    depths: Mapping[int, float],
) -> str:
    """Which depth would fit where an encoder does not, in a sentence: the best that probe.py has judged, else the
    deepest.

    depths   what probe.py says: cmAP by depth
    """
    needed = facts.audio.context_seconds, facts.depth, BYTES_EACH[served_as]
    deepest = deepest_that_fits(speed, facts.size, budget.minutes, budget.audio_hours, budget.memory_gb, *needed)
    within = f"{budget.minutes:g} minutes and {budget.memory_gb:g} GB on {threads} core{'s' if threads > 1 else ''}"
    text = f"{size_in_words(facts.size, facts.encoder.layers)} does not fit {within}; "
    if not deepest:
        return f"{text}no depth of it would"
    judged = {depth: value for depth, value in depths.items() if depth <= deepest}
    if not judged:
        return f"{text}depth {deepest} would; `python probe.py` says at what cmAP"
    depth = max(judged, key=lambda depth: (judged[depth], -depth))
    most = max(depths)
    return f"{text}depth {depth} would, at cmAP {judged[depth]:.3f} (probe.py; {depths[most]:.3f} at depth {most})"


def print_speeds(speeds: Mapping[tuple[str, int], Speed], paths: Mapping[str, Path]) -> None:
    """What each costs, as a table."""
    print(f"{'':16}{'threads':>8}{'MB':>9}{'ms/window':>11}{'x real time':>13}{'memory MB':>11}{'start s':>9}")
    for (name, threads), speed in speeds.items():
        size = f"{megabytes(paths[name]):.2f}" if name in paths else ""
        print(
            f"{name:16}{threads:8}{size:>9}{speed.milliseconds_per_window:11.2f}{speed.times_real_time:13.0f}"
            f"{speed.peak_memory_mb:11}{speed.start_seconds:9.2f}"
        )


def megabytes(path: Path) -> float:
    """Of a file, and of what lies beside it for want of room."""
    weights = beside(path)
    return round((path.stat().st_size + (weights.stat().st_size if weights else 0)) / 1e6, 2)


if __name__ == "__main__":
    launch(quantize, QuantizeCommand)
