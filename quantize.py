"""Stage 3: one ONNX file that takes waveforms and gives probabilities, its matrix products in INT8, for a plain CPU.

    python quantize.py --classifier runs/finetune/classifier.safetensors

Reads    classifier.safetensors, and the held-out recordings that held_out_recordings.csv beside it names
Writes   runs/quantize/: classifier.onnx (float32), classifier.int8.onnx, quantize.json, species.csv, run.json

Before: what INT8 would cost each product; the dearest stay in float32. After: both files are run on the held-out
windows. A float32 file that differs from the trained network is an error; an INT8 file that is worse than --gate allows
gets more of its products back in float32, and is refused when that does not help.
"""

from __future__ import annotations

import openmp  # noqa: F401  # pyright: ignore[reportUnusedImport] - it counts when torch is loaded
import stopping  # noqa: F401  # pyright: ignore[reportUnusedImport] - Ctrl-C counts from here on

from config import QuantizeCommand
from runs import answer_early

if __name__ == "__main__":
    answer_early(QuantizeCommand)  # before torch is imported, which takes seconds

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

import scorer as scoring
from calibration import carried_over
from checkpoint import ClassifierFacts, load_classifier
from config import GateSettings, size_in_words
from data_loader import recording_contexts, truth_table
from device import available_cores
from evaluation import WindowScores, carried_over_ranks, pool_windows
from export import front_end, write_float, write_int8
from metrics import class_roc_auc, cmap, macro_roc_auc
from model import BirdClefClassifier
from recordings import read_recordings
from runs import command_line, launch, no_formula, open_run, peak_memory_mb, publish, write_json
from seals import beside
from sensitivity import ProductCost, product_costs
from speed import Speed, fits, in_fresh_process, largest_that_fits, measure, time_graph

FLOAT_TOLERANCE = 1e-4
SCANNED = 32  # contexts in which the cost of each product is measured
SHOWN = 8  # products named in the table


@dataclass(frozen=True)
class HeldOut:
    """What the files are compared on."""

    contexts: NDArray[np.float32]  # (contexts, samples)
    rows: NDArray[np.int64]  # (windows,) which of the answers to the contexts are of new windows
    owner: NDArray[np.int64]  # (windows,) index of the recording
    truth: NDArray[np.float32]  # (recordings, species)


def quantize(config: QuantizeCommand) -> int:
    """The whole of stage 3; returns the exit code."""
    torch.manual_seed(0)
    torch.set_num_threads(config.run.threads or available_cores())
    folds = sorted(config.classifier.parent.glob("fold-*/classifier.safetensors"))
    assert config.classifier.is_file() or not folds, (
        f"{config.classifier} is not there, but one for each of {len(folds)} folds; for example --classifier {folds[0]}"
    )
    model, facts = load_classifier(config.classifier)
    print(f"classifier {config.classifier}: {size_in_words(facts.size, facts.encoder.layers)}")
    held_out = read_held_out(config.classifier, facts, config.max_windows)
    verified = len(held_out.truth) > 0
    if verified:
        print(f"comparing on {len(held_out.owner)} held-out windows of {len(held_out.truth)} recordings")
    else:
        print("no held-out recordings can be read: comparing on noise, and marking the files as unverified")
    with open_run("quantize", config.run.root, config) as run:
        float_path, int8_path = run.folder / "classifier.onnx", run.folder / "classifier.int8.onnx"
        write_float(model, facts, float_path, verified)
        trained, floats = network_scores(model, held_out.contexts), file_scores(float_path, held_out.contexts)
        largest = float(np.abs(floats - trained).max())
        assert largest <= FLOAT_TOLERANCE, (
            f"{float_path} differs from the trained network by {largest:.1e}: do not deploy it"
        )
        wrong = scoring.int8_fault()
        assert not wrong, f"INT8 cannot be judged on this CPU ({scoring.cpu_name()}): {wrong}; quantise on another"
        costs = product_costs(model, torch.from_numpy(held_out.contexts[:SCANNED]))
        windows = model.windows
        del model  # its weights are most of the memory that the rest would need
        print_costs(costs, config.max_error)
        spared = [cost.name for cost in costs if cost.error > config.max_error]
        while True:
            write_int8(float_path, int8_path, facts, verified, spared)
            int8 = file_scores(int8_path, held_out.contexts)
            gate = compare(int8, floats, held_out, facts.taxonomy.labels)
            broken = gate_reasons(gate, config.gate)
            print(f"INT8 with {len(spared)} of {len(costs)} products in float32: {gate_line(gate)}")
            if not broken or len(spared) == len(costs) or config.gate.allow_worse:
                break
            spared = [cost.name for cost in costs[: max(1, 2 * len(spared))]]  # twice as many each time, dearest first
        served = with_thresholds_of(facts, floats[held_out.rows], int8[held_out.rows]) if verified else facts
        moved = sum(
            one.applied != other.applied for one, other in zip(facts.thresholds, served.thresholds, strict=True)
        )
        moved += sum(limit != served.rank_thresholds[rank] for rank, limit in facts.rank_thresholds.items())
        if moved:
            print(f"{moved} thresholds are moved, so that INT8 reports as many of these windows as float32 does")
            write_int8(float_path, int8_path, served, verified, spared)
        write_species(run.folder / "species.csv", int8, floats, held_out, facts.taxonomy.labels)
        speeds = measure_all(config.classifier, float_path, int8_path)
        print(scoring.cpu_name())
        files = {"torch float32": config.classifier, "ONNX float32": float_path, "ONNX INT8": int8_path}
        print_speeds(speeds, files)
        hearing = time_graph(front_end(float_path), held_out.contexts.shape[1]) / windows
        share = hearing / speeds["ONNX INT8", 1].milliseconds_per_window
        print(f"of which the front end takes {hearing:.2f} ms, {100 * share:.0f} % of an INT8 window on one thread")
        threads = max(threads for _, threads in speeds)
        refused = bool(broken) and not config.gate.allow_worse
        fitting, words = fits(speeds["ONNX float32" if refused else "ONNX INT8", threads], **asdict(config.budget))
        budget = asdict(config.budget) | {"context_seconds": facts.audio.context_seconds}
        best, rates = largest_that_fits(speeds["ONNX INT8", threads], facts.size, depth=facts.depth, **budget)
        print(f"the float32 file, as INT8 is refused: {words}" if refused else words)
        print(f"largest size that would fit, estimated from this one: {best or 'none'}")
        card = {
            "classifier": str(config.classifier),
            "size": facts.size,
            "depth": facts.encoder.layers,
            "verified": verified,
            "windows": len(held_out.owner),
            "largest_float_difference": largest,
            "products": [asdict(cost) for cost in costs],
            "kept_in_float32": spared,
            "int8": gate
            | {"megabytes": megabytes(int8_path)}
            | {"milliseconds_per_window": speeds["ONNX INT8", threads].milliseconds_per_window},
            "thresholds_moved": moved,
            "megabytes": {name: megabytes(path) for name, path in files.items()},
            "speed": {f"{name}, {count} threads": asdict(speed) for (name, count), speed in speeds.items()},
            "front_end_milliseconds": hearing,
            "cpu": scoring.cpu_name(),
            "fits_budget": fitting,
            "budget": words,
            "largest_size_that_fits": best,
            "expected_times_real_time": rates,
            "peak_memory_mb": peak_memory_mb(),
        }
        write_json(run.folder / "quantize.json", card)
        if refused:
            (run.folder / "refused").mkdir()
            for path in filter(None, (beside(int8_path), int8_path)):
                path.rename(run.folder / "refused" / path.name)
            raise AssertionError(
                f"INT8 is worse than allowed ({'; '.join(broken)}); kept the float32 file {float_path} (--model takes "
                "it); allow more with --gate.min_agreement, --gate.max_auc_drop or --gate.allow_worse"
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


def read_held_out(classifier: Path, facts: ClassifierFacts, most: int) -> HeldOut:
    """About `most` windows of the recordings named beside a classifier, as training judged them, as far as they are
    still there; else noise, and no truth."""
    path, labels, audio = classifier.with_name("held_out_recordings.csv"), facts.taxonomy.labels, facts.audio
    windows = round(audio.context_seconds / audio.window_seconds)
    listed = [row for row in read_recordings(path) if row.path.is_file()] if path.is_file() else []
    order: list[int] = np.random.default_rng(0).permutation(len(listed)).tolist()  # tables are often sorted by species
    contexts, rows, owner, kept = list[NDArray[np.float32]](), list[int](), list[int](), dict[int, int]()
    for heard in recording_contexts([listed[index] for index in order], audio):
        if len(owner) >= most:
            break
        first = len(contexts) * windows + heard.first
        rows += range(first, first + len(heard.windows))
        owner += [kept.setdefault(heard.owner, len(kept))] * len(heard.windows)
        contexts.append(heard.samples)
    if not contexts:
        samples = round(audio.context_seconds * audio.sample_rate)
        noise = np.random.default_rng(0).normal(0, 0.1, (SCANNED, samples)).astype(np.float32)
        every = np.arange(SCANNED * windows)
        return HeldOut(noise, every, np.zeros(len(every), np.int64), np.zeros((0, len(labels)), np.float32))
    truth = truth_table(listed, labels, audio)[[order[index] for index in kept]]
    return HeldOut(np.stack(contexts), np.array(rows), np.array(owner), truth)


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


def with_thresholds_of(
    facts: ClassifierFacts, floats: NDArray[np.float32], int8: NDArray[np.float32]
) -> ClassifierFacts:
    """The facts of a file that answers like `int8`, (windows, species), where the float32 file answers like `floats`:
    the same but for thresholds of species and ranks, which as many of these windows reach."""
    limits = carried_over(facts.thresholds, floats, int8) if facts.thresholds else ()
    ranks = carried_over_ranks(facts.rank_thresholds, floats, int8, facts.taxonomy)
    return replace(facts, thresholds=tuple(limits), rank_thresholds=ranks)


def compare(
    int8: NDArray[np.float32], floats: NDArray[np.float32], held_out: HeldOut, labels: Sequence[str]
) -> dict[str, float | str]:
    """How far the INT8 file is from the float32 one: in its answers, and in what they are worth."""
    change = np.abs(int8 - floats)[held_out.rows]
    figures: dict[str, float | str] = {
        "top1_agreement": float((int8.argmax(axis=1) == floats.argmax(axis=1))[held_out.rows].mean()),
        "largest_difference": float(change.max()),
        "median_difference": float(np.median(change.max(axis=1))),
        "most_changed_species": labels[int(change.max(axis=0).argmax())],
    }
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
    return figures


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


def gate_reasons(gate: Mapping[str, float | str], limits: GateSettings) -> list[str]:
    """Why an INT8 file may not be kept; nothing where it may."""
    found: list[str] = []
    if float(gate["top1_agreement"]) < limits.min_agreement:
        found.append(f"another best species in {100 * (1 - float(gate['top1_agreement'])):.1f} % of the windows")
    if float(gate.get("macro_auc_drop", 0.0)) > limits.max_auc_drop:
        found.append(f"macro AUC lower by {float(gate['macro_auc_drop']):.4f}")
    return found


def gate_line(gate: Mapping[str, float | str]) -> str:
    """The comparison in a line."""
    text = f"same best species in {100 * float(gate['top1_agreement']):.1f} % of the windows, largest change "
    text += f"{float(gate['largest_difference']):.4f} ({gate['most_changed_species']})"
    if "macro_auc_drop" in gate:
        text += f", macro AUC {-float(gate['macro_auc_drop']):+.4f}, cmAP {-float(gate['cmap_drop']):+.4f}"
    else:
        text += "; no species is in some of these recordings and not in others, so AUC says nothing"
    return text


def print_costs(costs: Sequence[ProductCost], limit: float) -> None:
    """The dearest products, as a table."""
    print(f"{'product':34}{'error in INT8':>14}{'largest / usual':>17}")
    for cost in costs[:SHOWN]:
        kept = "   stays in float32" if cost.error > limit else ""
        print(f"{cost.name:34}{cost.error:14.5f}{cost.outlier:17.1f}{kept}")
    if len(costs) > SHOWN:
        print(f"... and {len(costs) - SHOWN} cheaper ones")


def measure_all(classifier: Path, float_path: Path, int8_path: Path) -> dict[tuple[str, int], Speed]:
    """The trained network and both files, with one thread and two."""
    found: dict[tuple[str, int], Speed] = {}
    place = str(classifier.resolve())
    for threads in sorted({1, min(2, available_cores())}):
        program = f"import quantize; quantize.report_network({place!r}, {threads}, started)"
        found["torch float32", threads] = in_fresh_process(f"import time; started = time.time(); {program}")
        found["ONNX float32", threads] = measure(float_path, threads)
        found["ONNX INT8", threads] = measure(int8_path, threads)
    return found


def report_network(classifier: str, threads: int, started: float) -> None:
    """In a fresh process: what the trained network takes."""
    from speed import report

    torch.set_num_threads(threads)
    model, facts = load_classifier(Path(classifier))
    noise = 0.1 * torch.randn(1, model.log_mel.samples)

    def answer() -> object:
        with torch.inference_mode():
            return model(noise)

    report(answer, model.windows, facts.audio.window_seconds, started)


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
