"""Stage 3: one ONNX file that takes waveforms and gives probabilities, its matrix products in INT8, for a plain CPU.

    python quantize.py --classifier runs/finetune/classifier.safetensors
    python quantize.py --encoder openai/whisper-base            # an encoder.onnx for search.py, without any labels

Reads    classifier.safetensors, and the recordings that training_recordings.csv and held_out_recordings.csv beside it
         name
Writes   runs/quantize/: classifier.onnx (float32), classifier.int8.onnx, quantize.json, quantize.png, species.csv,
         run.json; with --export openvino also classifier.xml and classifier.bin

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

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from archive.licences import handed_on, licence_note, teachers_of
from archive.recordings import read_recordings
from config import SCRATCH, AudioSettings, EncoderSettings, HeadSettings
from evaluation.blending import beyond_rounding
from evaluation.familiarity import FEWEST, Familiarity, fit_familiarity
from evaluation.held_out import HELD_OUT
from model import BirdClefClassifier
from runtime.digests import beside
from runtime.files import write_json
from runtime.runs import open_run, peak_memory_mb
from runtime.terminal import command_line, launch, show
from serving import scorer as scoring
from serving.budget import Fit, fit_budget, probed_depths
from serving.card import draw_card
from serving.comparison import (
    ComparedWindows,
    OutOfFold,
    out_of_fold,
    present_rows,
    read_windows,
    scanned_contexts,
    training_windows,
    windows_of,
)
from serving.convolutions import ProductCounts, restate_facts, spared_products, write_int8_convolutions
from serving.costs import Measured, measure_files
from serving.ensemble import blend_members, common_facts, joined_recipes, write_ensemble
from serving.export import Recipe, network_facts, write_float, write_int8, write_openvino
from serving.gate import Judgement, enough_windows, judge, write_changes
from serving.sensitivity import ProductCost, choose, combined_error, input_channels, product_costs, smoothing
from taxonomy import Taxonomy
from training.checkpoint import (
    ClassifierFacts,
    encoder_audio,
    load_classifier,
    load_encoder,
    size_of_weights,
    stage_one,
    weights_digest,
)
from training.device import available_cores

CLASSIFIER = Path("runs/finetune/classifier.safetensors")
FLOAT_TOLERANCE = 1e-4
NO_SPECIES = Taxonomy((), (), (), (), ())
SHOWN = 8  # products named in the table
Scores = NDArray[np.float32]  # (windows, species), of all contexts
EncoderKey = tuple[str, int, AudioSettings]


@dataclass(frozen=True)
class Compared:
    """What is known of the classifier, but for its weights, and what its files are compared on."""

    path: Path
    facts: ClassifierFacts
    depths: Mapping[int, float]  # cmAP by depth, where probe.py was asked
    held_out: ComparedWindows
    verified: bool  # whether there are enough held-out windows to judge a file by
    unheard: OutOfFold | None = None  # of an ensemble: which member answers for which recording


class Choice(NamedTuple):
    """What becomes of the products of an encoder, and what that was chosen by."""

    recipe: Recipe
    costs: Sequence[ProductCost]
    origin: str  # of the sound that they were judged on
    path: Path  # of the classifier whose sound that is


@dataclass(frozen=True)
class Files:
    """What was written, of one classifier or of several that were blended."""

    trained: Compared
    float_path: Path
    int8_path: Path
    floats: Scores  # what the float32 file answers to all contexts
    largest: float  # how far that is from the trained network
    recipe: Recipe  # of several classifiers: layers count on from one to the next
    costs: Sequence[ProductCost]
    origin: str  # of the sound that the products were judged on
    rewrite: Callable[[ClassifierFacts], None]  # writes the INT8 file again, with other facts
    count: ProductCounts  # of its products, and of those in float32
    facts: Mapping[str, object] = field(default_factory=dict[str, object])  # of quantize.json: how they were blended
    members: int = 1


def quantize(config: QuantizeCommand) -> int:
    """The whole of stage 3; returns the exit code."""
    torch.manual_seed(0)
    torch.set_num_threads(config.run.threads or available_cores())
    if config.encoder:
        return write_embedder(config)
    paths = config.classifier or (CLASSIFIER,)
    assert config.max_error >= 0, f"--max_error {config.max_error}: a share of the logits' spread, 0 or more"
    for path in paths:
        refuse_missing(path)
    if config.export == "openvino":
        scoring.require_openvino("--export openvino", "leave the flag out")
    model, trained = open_trained(paths[0], config) if len(paths) == 1 else (None, open_members(paths, config))
    with open_run("quantize", config.run.root, config) as run:
        if model is None:
            files = write_blended(trained, paths, run.folder, config)
        else:
            files = write_files(model, trained, run.folder / "classifier", config.max_error, most=config.max_windows)
            del model  # its weights are most of the memory that the rest would need
        if config.export == "openvino":
            files = replace(files, facts={**files.facts, "openvino": write_second_form(files)})
        int8_path, licence = files.int8_path, report_int8(files, run.folder, config)
    if licence:
        show(licence)
    show(f"wrote {int8_path}; {next_command(paths[0], int8_path)}")
    return 0


def report_int8(files: Files, folder: Path, config: QuantizeCommand) -> str:
    """Hold the INT8 file against the float32 one, measure both, write the card; returns what a licence asks for.

    Errors: a file that the gate refuses is set aside, and the command ends with what can be done.
    """
    trained, recipe, costs, floats, count = files.trained, files.recipe, files.costs, files.floats, files.count
    # hold INT8 against float32
    int8 = file_scores(files.int8_path, trained.held_out.contexts)
    labels = trained.facts.taxonomy.labels
    judgement = judge(int8, floats, trained.held_out, labels, config.gate, count.spared, count.products)
    show(f"gate {judgement.verdict}: {judgement.text}")
    refused = judgement.verdict == "refused" and (judgement.mostly_float or not config.gate.allow_worse)
    moved = move_thresholds(files, int8)
    write_changes(folder / "species.csv", int8, floats, trained.held_out, labels)
    # measure both, and hold them against the budget
    audio, samples = trained.facts.audio, trained.held_out.contexts.shape[1]
    windows = round(audio.context_seconds / audio.window_seconds)
    network = trained.path if files.members == 1 else None
    measured = measure_files(network, files.float_path, files.int8_path, samples, windows)
    fit = fit_budget(measured.speeds, trained.facts, config.budget, refused, trained.depths, files.members)
    # the card
    card = {
        **trained_facts(trained, files.largest, files.members),
        **files.facts,
        **recipe_facts(recipe, costs, files.origin),
        **judgement_facts(judgement, measured, moved),
        **cost_facts(measured, fit),
        "peak_memory_mb": peak_memory_mb(),
    }
    write_json(folder / "quantize.json", card)
    answers, licence = (floats[trained.held_out.rows], int8[trained.held_out.rows]), card["licence_note"]
    assert isinstance(licence, str), "a licence is a text"
    title = card_title(judgement, count.products - count.spared, count.products, licence)
    draw_card(folder / "quantize.png", costs, recipe, measured.parts, answers, title)
    if refused:
        set_aside(files.int8_path, files.float_path, judgement.reasons)
    return licence


def write_embedder(config: QuantizeCommand) -> int:
    """An encoder that knows no species -> an ONNX file that embeds: the mean over time and layers of its tokens, each
    normalised first.

    In float32: what INT8 costs is measured in a classifier's answers, and there are none.
    """
    size = size_of_weights(config.encoder)
    assert size, f"no encoder at {config.encoder}; --encoder takes openai/whisper-base, a folder, encoder.safetensors"
    audio = encoder_audio(config.encoder)
    layers = load_encoder(EncoderSettings(size, config.encoder), audio).size.layers
    depth = config.depth or -(-layers // 2)
    assert depth <= layers, f"--depth {depth}: {config.encoder} has {layers} layers"
    encoder, head = load_encoder(EncoderSettings(size, config.encoder, depth), audio), HeadSettings(layers=depth)
    model = BirdClefClassifier(encoder, audio, 1, head).eval()
    teachers = handed_on(stage_one(config.encoder), Path(config.encoder).name)
    facts = ClassifierFacts(
        size, audio, head, NO_SPECIES, {"encoder": config.encoder, "teachers": teachers}, depth=depth
    )
    noise = np.random.default_rng(0).normal(0, 0.1, (2, model.log_mel.samples)).astype(np.float32)
    with open_run("quantize", config.run.root, config) as run, torch.inference_mode():
        path = run.folder / "encoder.onnx"
        write_float(model, facts, path, verified=False)
        scorer = scoring.open_scorer(path, threads=1)
        found = np.concatenate([answer.embeddings for answer in scoring.answers_of(scorer, noise)])
        largest = float(np.abs(found - model.answers(torch.from_numpy(noise))[1].numpy()).max())
        assert largest <= FLOAT_TOLERANCE, f"{path} differs from the encoder by {largest:.1e}: do not use it"
        run.facts.update(encoder=config.encoder, depth=depth, width=found.shape[1], largest_difference=largest)
    if note := licence_note(teachers):
        show(note)
    words = command_line("search.py", "index", "RECORDINGS", "--model", path)
    show(f"wrote {path} ({found.shape[1]} values a window); next: {words}")
    return 0


def write_second_form(files: Files) -> dict[str, object]:
    """The float32 file as OpenVINO keeps it, held against the ONNX file; what quantize.json says of it."""
    path = files.float_path.with_suffix(".xml")
    write_openvino(files.float_path, path)
    scorer = scoring.open_scorer(path)
    largest = float(np.abs(scoring.score(scorer, files.trained.held_out.contexts) - files.floats).max())
    limit = scoring.TOLERANCE[scorer.engine]
    assert largest <= limit, f"{path} differs from {files.float_path} by {largest:.1e}: do not deploy it"
    show(f"wrote {path} and {path.with_suffix('.bin').name}: at most {largest:.1e} from ONNX, {scorer.engine}")
    return {"file": path.name, "engine": scorer.engine, "largest_difference": largest, "tolerance": limit}


def refuse_missing(path: Path) -> None:
    """A classifier that is not there, with those of its folds, if they are."""
    folds = sorted(path.parent.glob("fold-*/classifier.safetensors"))
    assert path.is_file() or not folds, (
        f"{path} is not there, but one for each of {len(folds)} folds; for example --classifier {folds[0]}, or all of "
        "them, which makes an ensemble"
    )


def open_trained(path: Path, config: QuantizeCommand) -> tuple[BirdClefClassifier, Compared]:
    """The classifier, and the windows on which its files are compared."""
    model, facts = load_classifier(path)
    show(f"classifier {path}: {facts.words}")
    depths = probed_depths(config.run.root / "probe" / "probe.json", facts)  # refused now rather than at the end
    held_out = read_windows(path.with_name(HELD_OUT), facts, config.max_windows)
    if len(held_out.truth):
        show(f"comparing on {len(held_out.owner)} held-out windows of {len(held_out.truth)} recordings")
    else:
        show("no held-out recordings can be read: comparing on noise, and marking the files as unverified")
    enough = len(held_out.owner) >= enough_windows(config.gate.min_agreement)
    return model, Compared(path, facts, depths, held_out, len(held_out.truth) > 0 and enough)


def write_files(
    model: BirdClefClassifier,
    trained: Compared,
    name: Path,
    limit: float,
    known: Choice | None = None,
    most: int = 0,
) -> Files:
    """Both files of one classifier, as NAME.onnx and NAME.int8.onnx.

    limit   how far INT8 may move the logits
    known   the recipe of a classifier with the same encoder, and what it was chosen by
    most    training windows from which it is learnt what is familiar; 0: the files will not tell
    """
    float_path, int8_path = name.with_suffix(".onnx"), name.with_suffix(".int8.onnx")
    # write float32, held against the trained network
    floats, largest = write_float_file(model, trained, float_path, most)
    refuse_broken_cpu()
    if trained.facts.picture:
        return write_picture_files(trained, float_path, int8_path, floats, largest, known)
    # measure what INT8 costs each product, and choose its form
    if known is None:
        scanned, origin = scanned_contexts(trained.path, trained.facts, trained.held_out)
        origin = f"{len(scanned)} {origin}"
        known = Choice(*choose_recipe(model, torch.from_numpy(scanned), limit), origin, trained.path)
        show(f"what INT8 costs each product, on {origin}:")
        print_costs(known.costs, known.recipe)
    # write INT8
    recipe = known.recipe

    def rewrite(facts: ClassifierFacts) -> None:
        write_int8(float_path, int8_path, facts, trained.verified, recipe)

    rewrite(trained.facts)
    count = ProductCounts(len(known.costs), len(recipe.spared))
    return Files(trained, float_path, int8_path, floats, largest, recipe, known.costs, known.origin, rewrite, count)


def write_picture_files(
    trained: Compared, float_path: Path, int8_path: Path, floats: Scores, largest: float, known: Choice | None
) -> Files:
    """The INT8 file of a network for pictures, whose products have fixed scales and are judged together by the gate.

    known   of a classifier with the same encoder: the same sound gives the same scales, so that both can share it
    """
    scanned, origin = scanned_contexts(known.path if known else trained.path, trained.facts, trained.held_out)
    origin = f"{len(scanned)} {origin}"
    count = write_int8_convolutions(float_path, int8_path, trained.facts, trained.verified, scanned)
    show(f"{count.products - count.spared} of {count.products} products in INT8, their scales from {origin}")

    def rewrite(facts: ClassifierFacts) -> None:
        restate_facts(int8_path, facts, trained.verified, count)

    recipe = Recipe(spared_products(float_path))
    return Files(trained, float_path, int8_path, floats, largest, recipe, [], origin, rewrite, count)


def open_members(paths: Sequence[Path], config: QuantizeCommand) -> Compared:
    """What the members of an ensemble have in common, and recordings held out of all, or of a fold of each network."""
    members = [load_classifier(path)[1] for path in paths]
    facts = common_facts(paths, members)
    unheard = out_of_fold(paths, [(network_facts(member), member.head, member.audio) for member in members])
    rows = unheard.rows or present_rows(paths[0].with_name(HELD_OUT))
    held_out = windows_of(rows, facts, config.max_windows)
    judged, networks = bool(unheard.rows) and len(held_out.truth) > 0, len(set(unheard.group))
    assert (judged and networks > 1) or config.blend.of != "ranks", (
        "--blend.of ranks needs two networks, and recordings that were held out of both; blend logits"
    )
    if not judged:
        show(
            f"{len(paths)} members; no recording was held out of all of them: weights are equal, thresholds the mean "
            "of theirs, and nobody can say what the ensemble is worth"
        )
    elif unheard.has_folds:
        show(
            f"{len(paths)} members, folds of {networks} {'network' if networks == 1 else 'networks'}; "
            f"{len(held_out.truth)} recordings were held out of one fold of each"
        )
    else:
        show(f"{len(paths)} members; {len(held_out.truth)} recordings were held out of all of them")
    enough = len(held_out.owner) >= enough_windows(config.gate.min_agreement)
    return Compared(paths[0], facts, {}, held_out, judged and enough and not unheard.has_folds, unheard)


def write_blended(ensemble: Compared, paths: Sequence[Path], folder: Path, config: QuantizeCommand) -> Files:
    """Both files of an ensemble; those of its members stay below /tmp."""
    below = SCRATCH / "ensembles"
    below.mkdir(parents=True, exist_ok=True)
    own_folder = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=below))  # two commands may run at once
    members, own = write_members(ensemble, paths, own_folder, config.max_error)
    # how their answers are blended
    assert ensemble.unheard is not None, "an ensemble has been opened as one"
    answers = np.stack([files.floats for files in members])
    blend, facts, line = blend_members(answers, ensemble.held_out, ensemble.unheard, ensemble.facts, config.blend)
    show(line)
    show("an ensemble does not tell how unfamiliar a window is; its members by themselves do")
    # one file of all, held against its members
    trained = replace(ensemble, facts=facts)
    recipe, costs = joined_recipes([files.recipe for files in own], [files.costs for files in own])
    count = ProductCounts(*(sum(numbers) for numbers in zip(*(files.count for files in own), strict=True)))
    int8 = {"products": count.products, "eight_bits": sorted(recipe.eight), "kept_in_float32": dict(recipe.spared)}
    float_path, int8_path = folder / "classifier.onnx", folder / "classifier.int8.onnx"

    def rewrite(facts: ClassifierFacts) -> None:
        parts = [files.int8_path for files in members]
        write_ensemble(parts, int8_path, facts, blend, "int8", trained.verified, int8)

    write_ensemble([files.float_path for files in members], float_path, facts, blend, "float32", trained.verified)
    rewrite(facts)
    floats = file_scores(float_path, trained.held_out.contexts)
    largest = beyond_rounding(floats, blend, answers)
    assert largest <= FLOAT_TOLERANCE, f"{float_path} differs from its members by {largest:.1e}: do not deploy it"
    words = scoring.ensemble_in_words([files.trained.facts.words for files in members], len(members))
    said = {
        "encoder": words,
        "members": [str(path) for path in paths],
        "blend": blend.of,
        "weights": blend.weights,
        "worth": line,
    }
    return Files(
        trained,
        float_path,
        int8_path,
        floats,
        max(largest, *(files.largest for files in members)),
        recipe,
        costs,
        members[0].origin,
        rewrite,
        count,
        said,
        len(members),
    )


def write_members(
    ensemble: Compared, paths: Sequence[Path], folder: Path, limit: float
) -> tuple[list[Files], list[Files]]:
    """Both files of each member, and those of them that have an encoder of their own: what INT8 costs is asked once for
    encoders that are the same, which are there once in the ensemble."""
    known, members, own = dict[EncoderKey, Choice](), list[Files](), list[Files]()
    for number, path in enumerate(paths, 1):
        model, facts = load_classifier(path)
        show(f"member {number}, {path}: {facts.words}")
        key, trained = encoder_key(model, facts), replace(ensemble, path=path, facts=facts)
        files = write_files(model, trained, folder / f"member-{number}", limit, known.get(key))
        own += [] if key in known else [files]
        known.setdefault(key, Choice(files.recipe, list(files.costs), files.origin, path))
        members.append(files)
    return members, own


def encoder_key(model: BirdClefClassifier, facts: ClassifierFacts) -> EncoderKey:
    """What makes of two members' encoders one: weights, and the front end that they are given sound by."""
    weights = {f"encoder.{name}": tensor for name, tensor in model.encoder.state_dict().items()}
    front = {f"front end.{name}": tensor for name, tensor in model.log_mel.state_dict().items()}
    return weights_digest({**weights, **front}), facts.pool, facts.audio


def write_float_file(model: BirdClefClassifier, trained: Compared, path: Path, most: int) -> tuple[Scores, float]:
    """The float32 file, which must answer as the network does: its answers, and by how much they differ at most."""
    contexts = trained.held_out.contexts
    expected, vectors = network_answers(model, contexts)
    familiarity = what_is_familiar(model, trained, vectors, most) if most else None
    write_float(model, trained.facts, path, len(trained.held_out.truth) > 0, familiarity)
    floats = file_scores(path, contexts)
    largest = float(np.abs(floats - expected).max())
    assert largest <= FLOAT_TOLERANCE, f"{path} differs from the trained network by {largest:.1e}: do not deploy it"
    return floats, largest


def what_is_familiar(
    model: BirdClefClassifier, trained: Compared, vectors: NDArray[np.float32], most: int
) -> Familiarity | None:
    """What is learnt of the training windows, so that the files can tell how unlike them a window is; None where the
    recordings do not suffice, which is said.

    vectors   (windows of all contexts, width) embeddings of those on which the files are compared
    """
    held_out, found = trained.held_out, list[NDArray[np.float32]]()
    known = held_out.truth[held_out.owner].any(axis=1) if len(held_out.truth) else np.zeros(0, np.bool_)
    species = list[int]()
    windows = training_windows(trained.path, trained.facts, most if known.sum() >= FEWEST else 0)
    for samples, rows, one in tqdm(windows, "training windows", disable=None, leave=False):
        found.append(network_answers(model, samples[None])[1][list(rows)])
        species += [one] * len(rows)
    if len(set(species)) < 2:
        show("too few recordings are there to learn what is familiar: the files do not tell how unfamiliar a window is")
        return None
    familiarity = fit_familiarity(np.concatenate(found), np.array(species), vectors[held_out.rows][known])
    show(
        f"how unfamiliar a window is: learnt from {len(species)} training windows of {len(set(species))} species, as a "
        f"share of {int(known.sum())} held-out ones"
    )
    return familiarity


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
def network_answers(
    model: BirdClefClassifier, contexts: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of the trained network: probabilities (windows, species) and embeddings (windows, width)."""
    starts = tqdm(range(0, len(contexts), 16), "trained network", disable=len(contexts) == 1 or None, leave=False)
    answers = [model.answers(torch.from_numpy(contexts[start : start + 16])) for start in starts]
    logits, vectors = (torch.cat(part) for part in zip(*answers, strict=True))
    return logits.sigmoid().numpy(), vectors.numpy()


def file_scores(path: Path, contexts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Answers of a served file: (windows, species)."""
    shown = tqdm(contexts, path.name, unit="context", disable=None, leave=False)
    return scoring.score(scoring.open_scorer(path), shown)


def move_thresholds(files: Files, int8: Scores) -> int:
    """Write the INT8 file again with thresholds of its own, where it needs some; returns how many."""
    trained = files.trained
    if not trained.verified:
        return 0
    facts, rows = trained.facts, trained.held_out.rows
    thresholds = facts.thresholds.moved_to(files.floats[rows], int8[rows], facts.taxonomy)
    moved = facts.thresholds.differing(thresholds)
    if moved:
        show(f"{moved} thresholds are moved, so that INT8 reports as many of these windows as float32 does")
        files.rewrite(replace(facts, thresholds=thresholds))
    return moved


def trained_facts(trained: Compared, largest_difference: float, members: int) -> dict[str, object]:
    """Of quantize.json: the classifier, or the first of several, and what it was compared on."""
    return {
        "classifier": str(trained.path),
        **({} if members > 1 else network_facts(trained.facts)),
        "encoder": trained.facts.words,
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
