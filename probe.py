"""Before any training: which layers of a Whisper encoder tell your animals apart, and what each of them costs.

    python probe.py --data.root recordings/ --encoder.weights openai/whisper-base

Reads    labelled recordings in any layout of archive/layouts.py, or recordings.csv; an encoder of Whisper's shape
Writes   runs/probe/: layers.png, probe.json, features.safetensors, run.json

Each window goes once through the frozen encoder; what is kept of a layer is the mean, deviation and maximum over time
of its layer-normed tokens, averaged over the windows of a recording. On each layer, and on layers 1 to k side by side,
which is what a classifier of that depth can use, a logistic regression is fitted and judged on the fold that it was not
fitted to, all folds in turn. How strongly it is regularised is chosen inside the training folds.
"""

from __future__ import annotations

import runtime.openmp  # pyright: ignore[reportUnusedImport] - it counts when torch is loaded
import runtime.stopping  # noqa: F401  # pyright: ignore[reportUnusedImport] - Ctrl-C counts from here on

from config import ProbeCommand
from runtime.terminal import answer_early

if __name__ == "__main__":
    answer_early(ProbeCommand)  # before torch is imported, which takes seconds

import hashlib
import math
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from tqdm import tqdm

from archive.licences import handed_on, licence_note
from archive.recordings import Recording
from archive.survey import heard_by
from config import SCRATCH, AudioSettings, LabelledSettings, changed_words, sound_words
from data_loader import Context, read_labeled, recording_contexts, truth_table, within_band
from evaluation.metrics import cmap, weighted_cmap
from heads import pool_tokens
from model import Encoder, LogMel
from runtime.files import publish, write_json
from runtime.runs import Run, open_run
from runtime.terminal import command_line, launch, show
from training.checkpoint import (
    load_encoder,
    read_tensors,
    size_of_weights,
    stage_one,
    weights_digest,
    write_tensors,
)
from training.device import autocast, half_precision, prepare_device

BATCH = 16  # contexts that go through the encoder together
STRENGTHS = (10.0, 40.0, 160.0)  # C of the logistic regression, on features whose rows have a mean square of about 1
COMPONENTS = 512  # most dimensions it is fitted in: of more rows, the directions in which they differ most
LEAST_SPREAD = 1e-4  # a feature that hardly varies is not blown up beyond this
CLOSE = 0.005  # cmAP that is not worth another layer
DRAWS = 400  # of the bootstrap
REPEATS = 15  # of each measurement of time
LEAST_RANGE = 0.1  # of the axis of a score
FEATURES = "features.safetensors"


class Fold(NamedTuple):
    """Indices of the recordings to fit on and to judge, and those of a smaller split inside the former."""

    train: NDArray[np.intp]
    valid: NDArray[np.intp]
    inner_train: NDArray[np.intp]
    inner_valid: NDArray[np.intp]  # empty where the training part cannot be divided


@dataclass(frozen=True)
class Labelled:
    """The recordings of a probe, which of them are held out together, and what is in them."""

    rows: Sequence[Recording]
    truth: NDArray[np.bool_]  # (recordings, species)
    main: NDArray[np.int64]  # (recordings,) the first label of each, what the regression is fitted to
    folds: Sequence[Fold]

    @property
    def groups(self) -> NDArray[np.int64]:
        """(recordings,) the number of each one's group."""
        return np.unique([row.group for row in self.rows], return_inverse=True)[1]


class Score(NamedTuple):
    """How well some layers tell the species apart: means over the folds."""

    cmap: float
    top1: float
    answers: list[NDArray[np.float64]]  # for each fold (held-out recordings, species)

    @property
    def figures(self) -> dict[str, float]:
        return {"cmap": self.cmap, "top1": self.top1}


class Gap(NamedTuple):
    """How far a depth is behind the best one, in cmAP of the same recordings."""

    behind: float
    error: float  # standard error of that difference


class Findings(NamedTuple):
    """What was found of each depth."""

    depths: Sequence[int]
    alone: Sequence[Score]  # of that layer by itself
    mixed: Sequence[Score]  # of layers 1 to that one, side by side
    gaps: Sequence[Gap]
    costs: dict[int, list[float]]  # by number of threads, seconds until a window has passed layer 1, 2, ...
    best: int  # the depth that is recommended

    def facts(self) -> dict[str, object]:
        """As probe.json has them."""
        depths, mixed = self.depths, zip(self.depths, self.mixed, self.gaps, strict=True)
        return {
            "depths": depths,
            "alone": [{"layer": depth, **score.figures} for depth, score in zip(depths, self.alone, strict=True)],
            "layers_1_to": [{"depth": depth, **score.figures, **gap._asdict()} for depth, score, gap in mixed],
            "milliseconds_per_window": {
                in_threads(count): [round(1000 * seconds, 3) for seconds in times]
                for count, times in self.costs.items()
            },
            "recommended_depth": self.best,
        }


def probe(config: ProbeCommand) -> int:
    """The whole command; returns the exit code."""
    device = prepare_device(config.run)
    taxonomy, rows = read_labeled(config.data, heard_by(config.audio))
    rows = within_band(rows, config.audio)
    rows = drawn([row for row in rows if row.labels], config.recordings, config.run.seed)
    split_into_folds(rows, taxonomy.labels, config.data)  # refused before anything is downloaded
    size = size_of_weights(config.encoder.weights) or config.encoder.size
    encoder = load_encoder(replace(config.encoder, size=size), config.audio).to(device).eval()
    teachers = handed_on(stage_one(config.encoder.weights), Path(config.encoder.weights).name)
    if note := licence_note(teachers):
        show(note)
    with open_run("probe", config.run.root, config) as run:
        features, counts = all_features(encoder, rows, config, device, run)
        readable = [index for index, count in enumerate(counts) if count]
        if len(readable) < len(rows):
            show(f"{len(rows) - len(readable)} recordings could not be read and are left out")
        rows, features = [rows[index] for index in readable], features[readable]
        folds = split_into_folds(rows, taxonomy.labels, config.data)
        truth = truth_table(rows, taxonomy.labels, config.audio) > 0
        main = np.array([taxonomy.labels.index(row.labels[0]) for row in rows])
        labelled = Labelled(rows, truth, main, folds)
        depths = depths_of(encoder.size.layers)
        alone, mixed = judge_layers(features, depths, labelled)
        gaps = gaps_to_best(mixed, labelled)
        costs = {count: layer_times(encoder, config.audio, device, count) for count in threads_of(device)}
        found = Findings(depths, alone, mixed, gaps, costs, recommended(mixed, gaps, depths))
        show("\n".join(layer_table(found)))
        what = f"{len(rows)} recordings of {len(taxonomy.labels)} species, {len(folds)} folds"
        draw_layers(run.folder / "layers.png", f"{config.encoder.weights}: {what}", found)
        card = {
            "weights": config.encoder.weights,
            "size": size,
            "layers": encoder.size.layers,
            "pool": encoder.size.pool,
            "recordings": len(rows),
            "windows": int(sum(counts)),
            "species": len(taxonomy.labels),
            "folds": len(folds),
            "teachers": teachers,
        }
        found_flags = ["--encoder.depth", str(found.best)]
        found_flags += ["--encoder.pool", str(encoder.size.pool)] if encoder.size.pool > 1 else []
        write_json(run.folder / "probe.json", card | found.facts() | {"flags": " ".join(found_flags)})
        best = mixed[depths.index(found.best)]
        run.facts["scores"] = {"cmap": best.cmap, "top1": best.top1}
    show(layers_in_words(found))
    usual = ProbeCommand.defaults(config.preset, config.sound)
    usual_data = replace(usual.data, root=config.data.root)  # which is said in any case
    heard = [*sound_words(config.sound), *changed_words("data", config.data, usual_data)]
    heard += changed_words("audio", config.audio, usual.audio)
    words = ["--preset", size, "--data.root", str(config.data.root), *heard]
    words += ["--encoder.weights", config.encoder.weights, *found_flags]
    show(f"wrote {run.folder / 'layers.png'}; next: {command_line('main.py', *words)}")
    return 0


def drawn(rows: Sequence[Recording], most: int, seed: int) -> list[Recording]:
    """At most so many recordings, in their order; the species take turns, so that the rare ones are all there."""
    if len(rows) <= most:
        return list(rows)
    turn: dict[str, int] = {}
    turns: list[tuple[int, int]] = []
    order: list[int] = np.random.default_rng(seed).permutation(len(rows)).tolist()
    for index in order:
        label = rows[index].labels[0]
        turns.append((turn.setdefault(label, 0), index))
        turn[label] += 1
    kept = sorted(index for _, index in sorted(turns)[:most])
    show(f"{most} of {len(rows)} recordings are drawn (--recordings)")
    return [rows[index] for index in kept]


def split_into_folds(rows: Sequence[Recording], labels: Sequence[str], data: LabelledSettings) -> list[Fold]:
    """Every fold held out in turn, and inside what is left the next one for the choice of the strength.

    A fold in which every group alone has a label is never held out: there would be nothing to learn the label from.
    Errors: too few recordings to hold any out, or species to tell apart, are refused in one line.
    """
    assert len({row.labels[0] for row in rows}) > 1, (
        f"there is one species alone, {rows[0].labels[0]}: nothing to tell apart; lower --data.min_recordings, or "
        "point --data.root at recordings of several"
    )
    # which folds can be held out: no group in two of them, no species without recordings to learn from
    folds: dict[str, set[int]] = {}
    groups: dict[str, set[str]] = {}
    for row in rows:
        folds.setdefault(row.group, set()).add(row.fold)
        groups.setdefault(row.labels[0], set()).add(row.group)
    torn = sorted(group for group, found in folds.items() if len(found) > 1)
    assert not torn, f"{len(torn)} groups stand in several folds, {torn[:3]} among them: scores would be too good"
    needed = {next(iter(own)) for own in groups.values() if len(own) == 1}
    fold_of = np.array([row.fold for row in rows])
    free = sorted({row.fold for row in rows if row.group not in needed})
    lonely = [label for label in labels if len(groups.get(label, ())) == 1]
    assert free and len(set(fold_of.tolist())) > 1, (
        f"{len(rows)} recordings in {len(folds)} groups cannot be divided into {data.folds} folds so that each species "
        "is present on both sides; record more, or lower --data.folds"
    )
    # each of them in turn; of the others one chooses how strongly the head is held back
    found: list[Fold] = []
    main, every = [row.labels[0] for row in rows], [row.labels for row in rows]
    for index, fold in enumerate(free):
        train, valid = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        inner = free[(index + 1) % len(free)]
        one, other = np.flatnonzero((fold_of != fold) & (fold_of != inner)), np.flatnonzero(fold_of == inner)
        sides = [{main[index] for index in side.tolist()} for side in (one, other)]
        usable = inner != fold and len(sides[0]) > 1 and bool(sides[0] & sides[1])
        trained = {main[index] for index in train.tolist()}
        if len(trained) > 1 and any(trained.intersection(every[index]) for index in valid.tolist()):
            found.append(Fold(train, valid, one, other if usable else other[:0]))
    assert found, (
        f"in {len(rows)} recordings no species is present on both sides of any of {len(free)} folds; record more, or "
        "lower --data.folds"
    )
    if lonely:
        show(
            f"{len(lonely)} of {len(groups)} species are in one group of recordings alone and cannot be judged: "
            f"{', '.join(lonely[:8])}{' ...' if len(lonely) > 8 else ''}"
        )
    return found


def depths_of(layers: int) -> list[int]:
    """The layers that are looked at: all of a small encoder; of a large one every second and fourth further up."""
    return [k for k in range(1, layers + 1) if k <= 8 or k == layers or k % (2 if k <= 16 else 4) == 0]


def all_features(
    encoder: Encoder, rows: Sequence[Recording], config: ProbeCommand, device: torch.device, run: Run
) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """(recordings, layers, 3 * width) and how many windows of each; from the last run where that looked at the same."""
    seen = [(row.path, stamp(row.path), row.start, row.end, row.keep, row.alive) for row in rows]
    made_of = (
        weights_digest(encoder.whisper.state_dict()),
        encoder.size.pool,
        asdict(config.audio),
        config.windows,
        half_precision(device),
        seen,
    )
    name = hashlib.sha256(repr(made_of).encode("utf-8", "surrogateescape")).hexdigest()
    last, path = config.run.root / "probe" / FEATURES, run.folder / FEATURES
    tensors: dict[str, Tensor] = {}
    if last.is_file():
        found, facts = read_tensors(last, "features", f"delete {last}")
        tensors = found if facts["made_of"] == name else {}
    if tensors:
        show(f"features of {len(rows)} recordings: {last}")
    else:
        means, counts = pooled_features(
            encoder, rows, config.audio, config.windows, device, SCRATCH / "features" / f"probe-{name[:24]}.safetensors"
        )
        tensors = {"means": torch.from_numpy(means), "counts": torch.from_numpy(counts)}
    write_tensors(path, tensors, {"kind": "features", "made_of": name})
    return tensors["means"].numpy(), tensors["counts"].numpy()


def stamp(path: Path) -> tuple[int, int]:
    """Size and time of change of a file: another recording under the same name is another one."""
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns


@dataclass
class Pooled:
    """What each layer makes of each recording: sums while it is being read, then its mean."""

    means: NDArray[np.float16]  # (recordings, layers, 3 * width) over the windows of a recording
    counts: NDArray[np.int64]  # (recordings,) windows, 0 for what cannot be read
    sums: dict[int, NDArray[np.float32]]  # by index, of the recordings that are not yet finished

    def add(self, index: int, windows: NDArray[np.float32]) -> None:
        """Windows of a recording, (windows, layers, 3 * width)."""
        total = windows.sum(axis=0)
        self.sums[index] = self.sums[index] + total if index in self.sums else total
        self.counts[index] += len(windows)

    def finish(self, before: int) -> None:
        """No more windows will come of the recordings before this one."""
        for index in [index for index in self.sums if index < before]:
            self.means[index] = self.sums.pop(index) / self.counts[index]


@torch.inference_mode()
def pooled_features(
    encoder: Encoder,
    rows: Sequence[Recording],
    audio: AudioSettings,
    windows: int,
    device: torch.device,
    begun: Path | None = None,
) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """What each layer makes of each recording, (recordings, layers, 3 * width): the mean over its windows of their
    pooled tokens. And how many windows that were, 0 for what cannot be read.

    begun   where those of the first recordings are kept when this is stopped, and taken from the next time
    """
    log_mel = LogMel(audio, encoder.size.mels).to(device)
    per_context = round(audio.context_seconds / audio.window_seconds)
    shape = len(rows), encoder.size.layers, 3 * encoder.size.width
    pooled = Pooled(np.zeros(shape, np.float16), np.zeros(len(rows), np.int64), {})
    done = 0  # recordings that no later batch adds to
    if begun and begun.is_file():
        kept = read_tensors(begun, "features", f"delete {begun}")[0]
        done = len(kept["counts"])
        pooled.means[:done], pooled.counts[:done] = kept["means"].numpy(), kept["counts"].numpy()
        show(f"{done} of {len(rows)} recordings have their features from a run that was stopped")
    # contexts of all recordings in their order, a batch at a time
    waiting: list[tuple[int, Context]] = []
    first = done
    bar = tqdm(rows[first:], "features", len(rows), unit="recording", disable=None, leave=False, initial=first)
    try:
        for index, row in enumerate(bar, first):
            expected = math.ceil(sum(end - start for start, end in row.usable) / audio.context_seconds)
            for context in spread_evenly(recording_contexts([row], audio), expected, max(1, windows // per_context)):
                waiting.append((index, context))
                if len(waiting) == BATCH:
                    add_batch(pooled, waiting, encoder, log_mel, per_context, device)
                    done, waiting = min(pooled.sums, default=index), []
    except KeyboardInterrupt as stop:
        if begun and done:
            begun.parent.mkdir(parents=True, exist_ok=True)
            kept = {"means": torch.from_numpy(pooled.means[:done]), "counts": torch.from_numpy(pooled.counts[:done])}
            write_tensors(begun, kept, {"kind": "features", "made_of": begun.stem})
            stop.args = (f"the features of {done} of {len(rows)} recordings are kept: the same command goes on",)
        raise
    # the rest, which fills no batch
    if waiting:
        add_batch(pooled, waiting, encoder, log_mel, per_context, device)
    pooled.finish(len(rows))
    if begun:
        begun.unlink(missing_ok=True)
    return pooled.means, pooled.counts


def add_batch(
    pooled: Pooled,
    batch: Sequence[tuple[int, Context]],
    encoder: Encoder,
    log_mel: LogMel,
    windows: int,
    device: torch.device,
) -> None:
    """What all layers make of some contexts, each with the index of its recording and as many windows."""
    sound = torch.from_numpy(np.stack([context.samples for _, context in batch])).to(device)
    with autocast(device):
        states = encoder.layer_states(log_mel(sound))
    layers = [pool_tokens(state.reshape(-1, state.shape[1] // windows, state.shape[2])) for state in states]
    summaries = torch.stack(layers, 1).unflatten(0, (len(batch), windows)).cpu().numpy()
    for (index, context), values in zip(batch, summaries, strict=True):
        pooled.add(index, values[list(context.rows)])
    pooled.finish(batch[-1][0])


def spread_evenly(contexts: Iterable[Context], expected: int, most: int) -> Iterator[Context]:
    """About `most` of them, evenly; one at least where there is one."""
    step = max(1, math.ceil(expected / most))
    first: list[Context] = []
    taken = 0
    for number, context in enumerate(contexts):
        if number % step == step // 2 and taken < most:
            taken += 1
            yield context
        elif not first:
            first.append(context)
    if not taken:
        yield from first


def judge_layers(
    features: NDArray[np.float16], depths: Sequence[int], labelled: Labelled
) -> tuple[list[Score], list[Score]]:
    """Each of the layers alone, and layers 1 to each of them side by side.

    A regression with an L2 penalty needs of its features only their inner products, and those of layers side by side
    are sums; so the cost does not grow with the number of layers.
    features  (recordings, layers, values)
    """
    alone: list[list[NDArray[np.float64]]] = [[] for _ in depths]
    mixed: list[list[NDArray[np.float64]]] = [[] for _ in depths]
    species, layers = labelled.truth.shape[1], features.shape[1]
    fits = len(labelled.folds) * (len(STRENGTHS) + 2 * len(depths))
    bar: tqdm[None] = tqdm(total=fits, desc="regressions", disable=None, leave=False)
    with bar:
        for fold in labelled.folds:
            each = [inner_products(features[:, layer].astype(np.float32), fold.train) for layer in range(layers)]
            strength = chosen_strength(np.mean(each, axis=0), fold, labelled.main, species)
            bar.update(len(STRENGTHS))
            for index, depth in enumerate(depths):
                for made, products in ((alone, each[depth - 1]), (mixed, np.mean(each[:depth], axis=0))):
                    inside, outside = coordinates(products, fold.train, fold.valid)
                    made[index].append(regression(inside, labelled.main[fold.train], outside, species, strength))
                    bar.update()
    return [scored(each, labelled) for each in alone], [scored(each, labelled) for each in mixed]


def inner_products(features: NDArray[np.float32], train: NDArray[np.intp]) -> NDArray[np.float32]:
    """(recordings, recordings) products of the rows, standardised by those that are fitted to, over their length."""
    fitted = features[train]
    standard = (features - fitted.mean(axis=0)) / np.maximum(fitted.std(axis=0), LEAST_SPREAD)
    products: NDArray[np.float32] = standard @ standard.T / features.shape[1]
    return products


def chosen_strength(products: NDArray[np.float32], fold: Fold, main: NDArray[np.int64], species: int) -> float:
    """How strongly the regressions of a fold are regularised, the same for all layers: what is best inside its training
    part, on all layers side by side."""
    if not len(fold.inner_valid):
        return STRENGTHS[len(STRENGTHS) // 2]
    inside, outside = coordinates(products, fold.inner_train, fold.inner_valid)
    trained = np.unique(main[fold.inner_train])
    truth = main[fold.inner_valid, None] == trained
    tried = [regression(inside, main[fold.inner_train], outside, species, strength) for strength in STRENGTHS]
    return STRENGTHS[int(np.argmax([cmap(truth, answers[:, trained]) for answers in tried]))]


def coordinates(
    products: NDArray[np.float32], train: NDArray[np.intp], valid: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows with these inner products, in as few dimensions as the training rows span: (train, dims), (valid, dims)."""
    values, vectors = np.linalg.eigh(products[np.ix_(train, train)].astype(np.float64))
    kept = np.flatnonzero(values > 1e-6 * values[-1])[-COMPONENTS:]
    roots = np.sqrt(values[kept])
    return vectors[:, kept] * roots, products[np.ix_(valid, train)] @ (vectors[:, kept] / roots)


def regression(
    inside: NDArray[np.float64], main: NDArray[np.int64], outside: NDArray[np.float64], species: int, strength: float
) -> NDArray[np.float64]:
    """(rows, species) probabilities of a logistic regression for the rows that it was not fitted to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are many species for so few recordings is known
        fitted = LogisticRegression(C=strength, max_iter=300, tol=1e-3).fit(inside, main)
    answers = np.zeros((len(outside), species))
    answers[:, np.unique(main)] = fitted.predict_proba(outside)
    return answers


def scored(answers: list[NDArray[np.float64]], labelled: Labelled) -> Score:
    """cmAP and top-1 of each fold, of the species that it was trained on, and their means."""
    found: list[tuple[float, float]] = []
    for fold, scores in zip(labelled.folds, answers, strict=True):
        truth, trained = judged(fold, labelled)
        right = truth[np.arange(len(truth)), scores[:, trained].argmax(axis=1)]
        found.append((cmap(truth, scores[:, trained]), float(right[truth.any(axis=1)].mean())))
    means = np.mean(found, axis=0)
    return Score(float(means[0]), float(means[1]), answers)


def judged(fold: Fold, labelled: Labelled) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """What there is to be found in a fold: the truth (recordings, trained species), and which species those are."""
    trained = np.unique(labelled.main[fold.train])
    return labelled.truth[np.ix_(fold.valid, trained)], trained


def gaps_to_best(mixed: Sequence[Score], labelled: Labelled) -> list[Gap]:
    """How far each depth is behind the best, and the standard error of that: a Bayesian bootstrap over groups of
    recordings, in which all depths see the same weights.

    source    Rubin 1981, The Bayesian Bootstrap, https://doi.org/10.1214/aos/1176345338
    """
    groups = labelled.groups
    weights = np.random.default_rng(0).exponential(size=(groups.max() + 1, DRAWS))[groups]
    best = max(range(len(mixed)), key=lambda index: mixed[index].cmap)
    draws: list[NDArray[np.float64]] = []
    for score in mixed:
        each: list[NDArray[np.float64]] = []
        for fold, scores in zip(labelled.folds, score.answers, strict=True):
            truth, trained = judged(fold, labelled)
            each.append(weighted_cmap(truth, scores[:, trained], weights[fold.valid]))
        draws.append(np.mean(each, axis=0))
    return [
        Gap(mixed[best].cmap - score.cmap, float((draws[best] - draw).std()))
        for score, draw in zip(mixed, draws, strict=True)
    ]


def recommended(mixed: Sequence[Score], gaps: Sequence[Gap], depths: Sequence[int]) -> int:
    """The smallest depth that is as good as the best: within .005 in cmAP, or within one standard error."""
    assert len(mixed) == len(gaps) == len(depths), "one score and one gap for each depth"
    return next(depth for depth, gap in zip(depths, gaps, strict=True) if gap.behind <= max(CLOSE, gap.error))


def threads_of(device: torch.device) -> list[int]:
    """With how many threads time is measured: one, and as many as the run has."""
    return sorted({1, torch.get_num_threads()}) if device.type == "cpu" else [torch.get_num_threads()]


@torch.inference_mode()
def layer_times(encoder: Encoder, audio: AudioSettings, device: torch.device, threads: int) -> list[float]:
    """Seconds until a window has passed layer 1, 2, ...: the median over repeats, one context at a time."""
    log_mel = LogMel(audio, encoder.size.mels).to(device)
    sound = 0.1 * torch.randn(1, log_mel.samples, generator=torch.Generator().manual_seed(0)).to(device)
    before, clock = torch.get_num_threads(), list[float]()

    def note(_layer: nn.Module, _given: object, _made: object) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()
        clock.append(time.perf_counter())

    hooks = [layer.register_forward_hook(note) for layer in encoder.whisper.layers]
    runs: list[list[float]] = []
    try:
        torch.set_num_threads(threads)
        for _ in range(REPEATS + 2):  # the first ones warm up
            clock.clear()
            begun = time.perf_counter()
            with autocast(device):
                encoder.layer_states(log_mel(sound))
            runs.append([passed - begun for passed in clock])
    finally:
        torch.set_num_threads(before)
        for hook in hooks:
            hook.remove()
    windows = audio.context_seconds / audio.window_seconds
    times: list[float] = (np.median(runs[2:], axis=0) / windows).tolist()
    return times


def in_threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def layer_table(found: Findings) -> list[str]:
    """The lines of the printed table."""
    threads = "".join(f"{in_threads(count):>12}" for count in found.costs)
    spans = f"{'this layer alone':^16}  {'layers 1 to this, side by side':^36}"
    lines = [
        f"{'':>6}  {spans}  {'milliseconds a window':^{12 * len(found.costs)}}",
        f"{'layer':>6}  {'cmAP':>8}{'top-1':>8}  {'cmAP':>8}{'top-1':>8}{'behind the best':>20}  {threads}{'share':>9}",
    ]
    for depth, one, many, gap in zip(found.depths, found.alone, found.mixed, found.gaps, strict=True):
        spent = "".join(f"{1000 * times[depth - 1]:12.1f}" for times in found.costs.values())
        behind = f"{gap.behind:.3f} ± {gap.error:.3f}" if gap.behind > 0 else "the best"
        lines.append(
            f"{depth:6}  {one.cmap:8.3f}{one.top1:8.3f}  {many.cmap:8.3f}{many.top1:8.3f}{behind:>20}"
            f"  {spent}{share_of_time(found, depth):9.0%}"
        )
    return lines


def share_of_time(found: Findings, depth: int) -> float:
    """How much of the whole encoder's time the lowest layers take."""
    return float(np.mean([times[depth - 1] / times[-1] for times in found.costs.values()]))


def layers_in_words(found: Findings) -> str:
    """What the figures say, in words."""
    index, depths, alone, mixed = found.depths.index(found.best), found.depths, found.alone, found.mixed
    single = max(range(len(depths)), key=lambda at: alone[at].cmap)
    top = depths[max(range(len(depths)), key=lambda at: mixed[at].cmap)]
    gap = found.gaps[index]
    behind = f"{gap.behind:.3f} (± {gap.error:.3f}) behind depth {top}, the best"
    return (
        f"layer {depths[single]} is the best single layer (cmAP {alone[single].cmap:.3f}). Recommended: "
        f"--encoder.depth {found.best}: layers 1 to {found.best} side by side have cmAP {mixed[index].cmap:.3f} and "
        f"top-1 {mixed[index].top1:.3f}, {behind if top != found.best else 'the best of all depths'}, for "
        f"{share_of_time(found, found.best):.0%} of the encoder's time"
    )


def draw_layers(path: Path, title: str, found: Findings) -> None:
    """layers.png: cmAP and top-1 by layer, alone and with all below it, and what a window costs down to each."""
    from matplotlib.figure import Figure  # slow to import, and only drawn once

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    figure.suptitle(title if len(title) < 120 else f"...{title[-117:]}", fontsize=11)
    depths, best = found.depths, found.best
    for column, (name, of) in enumerate((("cmAP", 0), ("top-1 accuracy", 1)), 1):
        axes = figure.add_subplot(1, 3, column)
        mixed, alone = ([score[:2][of] for score in scores] for scores in (found.mixed, found.alone))
        axes.plot(depths, mixed, "o-", color="#0b6e4f", label="layers 1 to this, side by side")
        axes.plot(depths, alone, "s--", color="#c1666b", label="this layer alone")
        axes.axvline(best, color="0.6", linewidth=8, alpha=0.3, zorder=0, label=f"recommended: depth {best}")
        axes.set_title(f"{name}, mean of the held-out folds", fontsize=10)
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, high - LEAST_RANGE), high)  # what differs by chance shall not look like a cliff
        if column == 1:
            axes.legend(fontsize=8, loc="best")
    axes = figure.add_subplot(1, 3, 3)
    for (count, times), color in zip(found.costs.items(), ("#33658a", "#f6ae2d"), strict=False):
        milliseconds = [1000 * seconds for seconds in times]
        axes.plot(range(1, len(times) + 1), milliseconds, "o-", color=color, label=in_threads(count))
    axes.axvline(best, color="0.6", linewidth=8, alpha=0.3, zorder=0)
    axes.set_title("milliseconds a window, down to this layer", fontsize=10)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, loc="upper left")
    for axes in figure.axes:
        axes.set_xlabel("layer")
        axes.set_xticks(depths if len(depths) <= 12 else depths[::2])
        axes.grid(axis="y", alpha=0.3)
    with publish(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


if __name__ == "__main__":
    launch(probe, ProbeCommand)
