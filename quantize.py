"""Stage 3: one ONNX file that takes waveforms and gives probabilities, its matrix products in INT8, for a plain CPU.

    python quantize.py --classifier runs/finetune/classifier.safetensors

Reads    classifier.safetensors, and the recordings that training_recordings.csv and held_out_recordings.csv beside it
         name
Writes   runs/quantize/: classifier.onnx (float32), classifier.int8.onnx, quantize.json, quantize.png, species.csv,
         run.json

Before: on training windows, outlier channels are smoothed, and what INT8 would cost each product is measured in the
logits; the costliest get weights of 8 bits, then stay in float32, until all together cost no more than --max_error.
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

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from archive.recordings import read_recordings
from config import size_in_words
from evaluation.held_out import HELD_OUT
from model import BirdClefClassifier
from runtime.digests import beside
from runtime.files import write_json
from runtime.runs import open_run, peak_memory_mb
from runtime.terminal import command_line, launch, show
from serving import scorer as scoring
from serving.budget import Fit, fit_budget, probed_depths
from serving.card import draw_card
from serving.comparison import ComparedWindows, read_windows, scanned_contexts
from serving.costs import Measured, measure_files
from serving.export import Recipe, write_float, write_int8
from serving.gate import Judgement, enough_windows, judge, write_changes
from serving.sensitivity import ProductCost, choose, combined_error, input_channels, product_costs, smoothing
from training.checkpoint import ClassifierFacts, licence_note, load_classifier, teachers_of
from training.device import available_cores

FLOAT_TOLERANCE = 1e-4
SHOWN = 8  # products named in the table
Scores = NDArray[np.float32]  # (windows, species), of all contexts


@dataclass(frozen=True)
class Compared:
    """What is known of the classifier, but for its weights, and what its files are compared on."""

    path: Path
    facts: ClassifierFacts
    depths: Mapping[int, float]  # cmAP by depth, where probe.py was asked
    held_out: ComparedWindows
    verified: bool  # whether there are enough held-out windows to judge a file by


def quantize(config: QuantizeCommand) -> int:
    """The whole of stage 3; returns the exit code."""
    torch.manual_seed(0)
    torch.set_num_threads(config.run.threads or available_cores())
    model, trained = open_trained(config)
    scanned, origin = scanned_contexts(config.classifier, trained.facts, trained.held_out)
    licence = licence_note(teachers_of(trained.facts.provenance))
    with open_run("quantize", config.run.root, config) as run:
        # write float32, held against the trained network
        float_path, int8_path = run.folder / "classifier.onnx", run.folder / "classifier.int8.onnx"
        floats, largest = write_float_file(model, trained, float_path)
        refuse_broken_cpu()
        # measure what INT8 costs each product, and choose its form
        origin, windows = f"{len(scanned)} {origin}", model.windows
        recipe, costs = choose_recipe(model, torch.from_numpy(scanned), config.max_error)
        del model, scanned  # its weights are most of the memory that the rest would need
        show(f"what INT8 costs each product, on {origin}:")
        print_costs(costs, recipe)
        # write INT8, and hold it against float32
        write_int8(float_path, int8_path, trained.facts, trained.verified, recipe)
        int8 = file_scores(int8_path, trained.held_out.contexts)
        labels, spared = trained.facts.taxonomy.labels, len(recipe.spared)
        judgement = judge(int8, floats, trained.held_out, labels, config.gate, spared, len(costs))
        show(f"gate {judgement.verdict}: {judgement.text}")
        refused = judgement.verdict == "refused" and (judgement.mostly_float or not config.gate.allow_worse)
        moved = move_thresholds(trained, floats, int8, float_path, int8_path, recipe)
        write_changes(run.folder / "species.csv", int8, floats, trained.held_out, labels)
        # measure both, and hold them against the budget
        samples = trained.held_out.contexts.shape[1]
        measured = measure_files(config.classifier, float_path, int8_path, samples, windows)
        fit = fit_budget(measured.speeds, trained.facts, config.budget, refused, trained.depths)
        # report
        card = {
            **trained_facts(trained, largest),
            **recipe_facts(recipe, costs, origin),
            **judgement_facts(judgement, measured, moved),
            **cost_facts(measured, fit),
            "peak_memory_mb": peak_memory_mb(),
        }
        write_json(run.folder / "quantize.json", card)
        answers = floats[trained.held_out.rows], int8[trained.held_out.rows]
        title = card_title(judgement, len(costs) - spared, len(costs), licence)
        draw_card(run.folder / "quantize.png", costs, recipe, measured.parts, answers, title)
        if refused:
            set_aside(int8_path, float_path, judgement.reasons)
    if licence:
        show(licence)
    show(f"wrote {int8_path}; {next_command(config.classifier, int8_path)}")
    return 0


def open_trained(config: QuantizeCommand) -> tuple[BirdClefClassifier, Compared]:
    """The classifier, and the windows on which its files are compared."""
    folds = sorted(config.classifier.parent.glob("fold-*/classifier.safetensors"))
    assert config.classifier.is_file() or not folds, (
        f"{config.classifier} is not there, but one for each of {len(folds)} folds; for example --classifier {folds[0]}"
    )
    assert config.max_error >= 0, f"--max_error {config.max_error}: a share of the logits' spread, 0 or more"
    model, facts = load_classifier(config.classifier)
    show(f"classifier {config.classifier}: {size_in_words(facts.size, facts.encoder.layers)}")
    depths = probed_depths(config.run.root / "probe" / "probe.json", facts)  # refused now rather than at the end
    held_out = read_windows(config.classifier.with_name(HELD_OUT), facts, config.max_windows)
    if len(held_out.truth):
        show(f"comparing on {len(held_out.owner)} held-out windows of {len(held_out.truth)} recordings")
    else:
        show("no held-out recordings can be read: comparing on noise, and marking the files as unverified")
    enough = len(held_out.owner) >= enough_windows(config.gate.min_agreement)
    return model, Compared(config.classifier, facts, depths, held_out, len(held_out.truth) > 0 and enough)


def write_float_file(model: BirdClefClassifier, trained: Compared, path: Path) -> tuple[Scores, float]:
    """The float32 file, which must answer as the network does: its answers, and by how much they differ at most."""
    contexts = trained.held_out.contexts
    write_float(model, trained.facts, path, len(trained.held_out.truth) > 0)
    expected, floats = network_scores(model, contexts), file_scores(path, contexts)
    largest = float(np.abs(floats - expected).max())
    assert largest <= FLOAT_TOLERANCE, f"{path} differs from the trained network by {largest:.1e}: do not deploy it"
    return floats, largest


def refuse_broken_cpu() -> None:
    """An INT8 file is judged by its answers, so this CPU has to give the right ones."""
    wrong = scoring.int8_fault()
    assert not wrong, f"INT8 cannot be judged on this CPU ({scoring.cpu_name()}): {wrong}; quantise on another"


def choose_recipe(model: BirdClefClassifier, waveforms: torch.Tensor, limit: float) -> tuple[Recipe, list[ProductCost]]:
    """What becomes of each product, and what INT8 would cost it, the costliest first."""
    channels = input_channels(model, waveforms)
    scales = smoothing(model, channels)
    costs = product_costs(model, waveforms, channels, scales)
    eight, spared = choose(costs, limit)
    factors = {cost.name: scales[cost.name].numpy() for cost in costs if cost.smoothed}
    return Recipe(spared, eight, factors, {name: own.mean.numpy() for name, own in channels.items()}), costs


@torch.inference_mode()
def network_scores(model: BirdClefClassifier, contexts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Answers of the trained network: (windows, species)."""
    starts = tqdm(range(0, len(contexts), 16), "trained network", disable=None, leave=False)
    batches = (torch.from_numpy(contexts[start : start + 16]) for start in starts)
    scores: NDArray[np.float32] = torch.cat([model(batch).sigmoid() for batch in batches]).numpy()
    return scores


def file_scores(path: Path, contexts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Answers of a served file: (windows, species)."""
    shown = tqdm(contexts, path.name, unit="context", disable=None, leave=False)
    return scoring.score(scoring.open_scorer(path), shown)


def move_thresholds(
    trained: Compared, floats: Scores, int8: Scores, float_path: Path, int8_path: Path, recipe: Recipe
) -> int:
    """Write the INT8 file again with thresholds of its own, where it needs some; returns how many."""
    if not trained.verified:
        return 0
    facts, rows = trained.facts, trained.held_out.rows
    thresholds = facts.thresholds.moved_to(floats[rows], int8[rows], facts.taxonomy)
    moved = facts.thresholds.differing(thresholds)
    if moved:
        show(f"{moved} thresholds are moved, so that INT8 reports as many of these windows as float32 does")
        write_int8(float_path, int8_path, replace(facts, thresholds=thresholds), trained.verified, recipe)
    return moved


def trained_facts(trained: Compared, largest_difference: float) -> dict[str, object]:
    """Of quantize.json: the classifier, and what it was compared on."""
    return {
        "classifier": str(trained.path),
        "size": trained.facts.size,
        "depth": trained.facts.encoder.layers,
        "verified": trained.verified,
        "windows": len(trained.held_out.owner),
        "largest_float_difference": largest_difference,
        "teachers": teachers_of(trained.facts.provenance),
        "licence_note": licence_note(teachers_of(trained.facts.provenance)),
    }


def recipe_facts(recipe: Recipe, costs: Sequence[ProductCost], origin: str) -> dict[str, object]:
    """Of quantize.json: what became of each product."""
    return {
        "products_judged_on": origin,
        "products": [asdict(cost) for cost in costs],
        "eight_bits": recipe.eight,
        "kept_in_float32": recipe.spared,
    }


def judgement_facts(judgement: Judgement, measured: Measured, moved: int) -> dict[str, object]:
    """Of quantize.json: what the INT8 file is worth."""
    speed = measured.speeds["ONNX INT8", measured.threads]
    cost = {"megabytes": measured.megabytes["ONNX INT8"], "milliseconds_per_window": speed.milliseconds_per_window}
    return {"gate": judgement.verdict, "int8": {**judgement.figures, **cost}, "thresholds_moved": moved}


def cost_facts(measured: Measured, fit: Fit) -> dict[str, object]:
    """Of quantize.json: what serving takes, and whether that fits."""
    return {
        "megabytes": measured.megabytes,
        "speed": {f"{name}, {threads} threads": asdict(speed) for (name, threads), speed in measured.speeds.items()},
        "front_end_milliseconds": measured.front_end,
        "milliseconds_of_a_context_by_part": measured.parts,
        "cpu": scoring.cpu_name(),
        "fits_budget": fit.fits,
        "served_as": fit.served_as,
        "budget": fit.words,
        "largest_size_that_fits": fit.largest,
        "expected_times_real_time": fit.rates,
    }


def card_title(judgement: Judgement, int8: int, products: int, licence: str) -> str:
    """The heading of quantize.png; below it what the licence of a teacher asks for."""
    figures = judgement.figures
    agreed = f"{100 * float(figures['top1_agreement']):.1f} % of {figures['windows']} windows"
    heading = f"gate {judgement.verdict}: same best species in {agreed}; {int8} of {products} products in INT8"
    return f"{heading}\n{licence}" if licence else heading


def set_aside(int8_path: Path, float_path: Path, reasons: Sequence[str]) -> None:
    """Move a refused file out of the way, and end with what can be done."""
    aside = int8_path.with_name("refused")
    aside.mkdir()
    for path in filter(None, (beside(int8_path), int8_path)):
        path.rename(aside / path.name)
    raise AssertionError(
        f"no INT8 file: {'; '.join(reasons)}; kept the float32 file {float_path} (--model takes it); try "
        "another --max_error, or allow more: --gate.min_agreement, --gate.max_auc_drop, --gate.allow_worse"
    )


def next_command(classifier: Path, model: Path) -> str:
    """How to use the model, as a command that can be copied: with a recording of which it is known that it is there."""
    table = classifier.with_name("held_out_recordings.csv")
    rows = read_recordings(table) if table.is_file() else []
    present = next((row.path for row in rows if row.path.is_file()), None)
    if present is None:
        return f"next: predictor.py with your recordings and --model {model}"
    return f"next, or with recordings of your own: {command_line('predictor.py', present, '--model', model)}"


def print_costs(costs: Sequence[ProductCost], recipe: Recipe) -> None:
    """The costliest products, as a table, and all that are not INT8 of 7 bits."""
    show(f"{'product':30}{'logits moved, 7 bits':>21}{'8 bits':>9}{'loudest / median':>18}")
    for cost in costs[:SHOWN]:
        show(f"{cost.name:30}{100 * cost.error:19.2f} %{100 * cost.error_8_bits:7.2f} %{cost.outlier:18.1f}")
    if len(costs) > SHOWN:
        show(f"... and {len(costs) - SHOWN} cheaper ones")
    left = {cost.name: cost.error_8_bits if cost.name in recipe.eight else cost.error for cost in costs}
    rest = 100 * combined_error(error for name, error in left.items() if name not in recipe.spared)
    show(f"all INT8 products together: {rest:.1f} % of the logits' spread")
    if recipe.eight:
        show(f"weights of 8 bits, slower on a CPU without VNNI: {', '.join(sorted(recipe.eight))}")
    for name, reason in recipe.spared.items():
        show(f"{name} stays in float32: {reason}")


if __name__ == "__main__":
    launch(quantize, QuantizeCommand)
