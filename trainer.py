"""The supervised loop: fit the head, train all weights, score the held-out recordings, keep what is to be kept."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from tqdm import tqdm

from archive.recordings import Recording
from config import SIZES, AudioSettings, FinetuneCommand, FinetuneSettings, HeadSettings
from data_loader import Batch, Context, kept_beside, of_all, recording_contexts, recordings_of, set_epoch, truth_table
from encoders import PictureEncoder
from evaluation.held_out import WindowScores, pool_windows
from evaluation.metrics import scorecard
from model import BirdClefClassifier, Encoder
from runtime import processes
from runtime.runs import Run, draw_curves, keep_records, peak_memory_mb, record
from runtime.terminal import show
from taxonomy import Taxonomy, pairwise_distances
from training.device import autocast
from training.frozen import fit_head
from training.objective import LossInputs, augmented, label_loss
from training.optim import between, cosine_schedule, differential_groups, follow, update
from training.states import Stateful, StateWriter, TrainingProgress

VALIDATION_BATCH = 32
STANDARD_DRAWS = 900_000  # epoch of the windows that the pictures are standardised by
SMALLEST_DEVIATION = 1e-4  # of a channel that hardly varies
CURVES = {"loss": ["loss"], "held-out recordings": ["macro_auc", "cmap", "top1"], "mistakes": ["mistake_distance"]}


class Trained(NamedTuple):
    """The network of the epoch that was chosen, and what it makes of the held-out recordings."""

    model: BirdClefClassifier
    epoch: int  # 0: only the head was fitted
    windows: WindowScores  # of the held-out recordings


def train_classifier(
    model: BirdClefClassifier,
    loader: DataLoader[Batch],
    inputs: LossInputs,
    valid: Sequence[Recording],
    taxonomy: Taxonomy,
    config: FinetuneCommand,
    run: Run,
    device: torch.device,
    data: str = "",
) -> Trained:
    """Fit the head on features of the frozen encoder, then train all weights.

    Writes metrics.jsonl, curves.png and, until the run is done, states from which it can be resumed; the network is
    returned, to be saved once it is calibrated.

    data     fingerprint of what is learnt from and validated on
    """
    settings = config.train
    resumed = any((run.folder / "states").glob("state-*.pt"))
    if isinstance(model.encoder, PictureEncoder) and not resumed:
        fit_standard(model, model.encoder, loader, device)
    if settings.head_first(config.encoder.weights) and not resumed:
        fit_head(model, loader, inputs, config, device)
    loop = prepare_finetuning(model, loader, config, run, device, data)
    progress = loop.writer.restore()
    keep_records(run.folder, progress.records)
    validation = Validation(
        valid,
        truth_table(valid, taxonomy.labels, config.audio),
        pairwise_distances(taxonomy, config.loss.mechanism_penalty),
        kept_beside(loader, valid, config.audio, config.data),
    )
    # the head alone is epoch 0; then epoch by epoch
    epochs = 0 if settings.frozen else settings.epochs_for(len(loader))
    with loop.writer.listening(progress):
        if not epochs and progress.best == -math.inf:
            validate_epoch(loop, progress, validation, config, run, {})
        for _ in range(progress.epoch, epochs + 1):
            if out_of_patience(progress, settings):
                show(f"no better {settings.choose} in {settings.patience} epochs: stopping")
                progress.epoch = epochs + 1
                break
            measured = train_epoch(loop, progress, inputs, config, epochs)
            if progress.epoch % settings.validate_every and progress.epoch < epochs:
                record(run, epoch=progress.epoch, **measured)
                progress.next_epoch()
                continue
            validate_epoch(loop, progress, validation, config, run, measured)
        assert progress.best > -math.inf, (
            "no epoch gave finite scores; lower --train.encoder_rate and --train.head_rate"
        )
        loop.writer.save(progress)  # of several folds this one is done
    draw_curves(run, CURVES)
    # what the chosen weights make of the held-out recordings
    best = loop.best.to(device)
    windows = score_windows(best, valid, config.audio, device)
    card = scorecard(validation.truth, pool_windows(windows, len(valid)), validation.distances)
    what = f"epoch {progress.best_epoch}" if epochs else "the frozen encoder with its head"
    show(f"kept {what}: cmAP {card['cmap']:.3f}, top-1 {card['top1']:.3f} on {len(valid)} recordings")
    return Trained(best, progress.best_epoch, windows)


def out_of_patience(progress: TrainingProgress, settings: FinetuneSettings) -> bool:
    """Whether the epoch before this one was validated, and the best one is too long ago. It is asked where an epoch
    begins, so that a run which was killed in between stops where it would have stopped."""
    last = progress.epoch - 1
    validated = last > 0 and last % settings.validate_every == 0
    return settings.patience > 0 and validated and last - progress.best_epoch >= settings.patience


@torch.no_grad()
def fit_standard(
    model: BirdClefClassifier, encoder: PictureEncoder, loader: DataLoader[Batch], device: torch.device
) -> None:
    """Mean and deviation of each channel of the pictures, over one pass of training windows as they are, without
    augmentation; they stay as they are from then on, and travel in the classifier's file."""
    count, sums, squares = 0, torch.zeros(()), torch.zeros(())
    set_epoch(loader, STANDARD_DRAWS)
    for batch in tqdm(loader, "level of the training windows", disable=processes.no_bar(), leave=False):
        pictures = encoder.picture(model.log_mel(batch.waveforms.to(device))).double()
        count += pictures.numel() // pictures.shape[1]
        sums = sums + pictures.sum(dim=(0, 2, 3)).cpu()
        squares = squares + pictures.square().sum(dim=(0, 2, 3)).cpu()
    mean = sums / count
    deviation = (squares / count - mean.square()).clamp(min=SMALLEST_DEVIATION**2).sqrt()
    encoder.mean.copy_(mean[:, None, None])
    encoder.deviation.copy_(deviation[:, None, None])
    parts = [f"mean {float(at):.3f}, deviation {float(by):.3f}" for at, by in zip(mean, deviation, strict=True)]
    show(f"pictures of the training windows: {'; '.join(parts)}")


@dataclass
class Finetuning:
    """All that moves while all weights are trained."""

    model: BirdClefClassifier
    average: BirdClefClassifier  # the running mean of its weights, or the model itself
    start: BirdClefClassifier | None  # as it was before, where what is kept lies between both
    kept: BirdClefClassifier  # what is validated: the average, or what lies between it and the start
    best: BirdClefClassifier  # as it was in the best epoch so far; whole in each process, in main memory
    loader: DataLoader[Batch]
    optimizer: AdamW
    schedule: LambdaLR
    generator: torch.Generator
    writer: StateWriter
    context_logits: Callable[[Tensor], Any]  # the model as all processes call it
    device: torch.device


@dataclass(frozen=True)
class Validation:
    """The held-out recordings, and what their scores are compared with."""

    recordings: Sequence[Recording]
    truth: NDArray[np.float32]  # (recordings, species)
    distances: NDArray[np.float32]  # (species, species)
    kept: Mapping[Path, Path]  # waveforms that need not be decoded again


def prepare_finetuning(
    model: BirdClefClassifier,
    loader: DataLoader[Batch],
    config: FinetuneCommand,
    run: Run,
    device: torch.device,
    data: str,
) -> Finetuning:
    """Optimiser, schedule, running mean, and the writer of their states."""
    settings = config.train
    assert processes.count() == 1 or not any(True for _ in model.log_mel.parameters()), (
        "--audio.compression pcen_trained trains in one process; give pcen, or start one"
    )
    model.encoder.checkpointing = settings.checkpointing
    best = copy.deepcopy(model).cpu()
    average = copy.deepcopy(model) if settings.ema else model
    blend = settings.blend < 1 and settings.head_first(config.encoder.weights) and not settings.frozen
    start, kept = (copy.deepcopy(model), copy.deepcopy(model)) if blend else (None, average)
    method = "context_and_moment_logits" if config.loss.moments else "context_logits"
    networks = {id(network): network for network in (model, average, start, kept) if network is not None}
    for network in networks.values() if settings.shard else ():
        processes.divide(network, network.whisper_encoder.whisper.layers, method, "answers")
    groups = differential_groups(
        model, settings.encoder_rate, settings.head_rate, settings.layer_decay, settings.weight_decay
    )
    optimizer = AdamW(groups, betas=(0.9, settings.beta2))
    updates = settings.epochs_for(len(loader)) * math.ceil(len(loader) / settings.accumulate)
    schedule = cosine_schedule(optimizer, updates, settings.warmup)
    generator = torch.Generator().manual_seed(config.run.seed)
    parts: dict[str, Stateful] = {"model": model, "best": best, "optimizer": optimizer, "schedule": schedule}
    parts |= {"average": average} if settings.ema else {}
    parts |= {"start": start} if start is not None else {}
    writer = StateWriter(run.folder / "states", parts, generator, config.run.save_minutes, data)
    processes.spread_seed(config.run.seed)
    call = processes.parallel(model, method, unused=True)  # the encoder's final norm has no part in the answer
    called = torch.compile(call) if settings.compile else call
    return Finetuning(model, average, start, kept, best, loader, optimizer, schedule, generator, writer, called, device)


def train_epoch(
    loop: Finetuning, progress: TrainingProgress, inputs: LossInputs, config: FinetuneCommand, epochs: int
) -> dict[str, float]:
    """The rest of an epoch; returns what is recorded of it."""
    settings, loader, model = config.train, loop.loader, loop.model
    set_epoch(loader, progress.epoch, progress.step)
    model.train()
    started, before = time.time(), progress.step
    first_plain = round((1 - settings.swa) * epochs * math.ceil(len(loader) / settings.accumulate))
    title = f"epoch {progress.epoch}/{epochs}"
    bar = tqdm(loader, title, initial=before, disable=processes.no_bar(), leave=False)
    for step, batch in enumerate(bar if before < len(loader) else (), before + 1):
        last = step % settings.accumulate == 0 or step == len(loader)
        with processes.no_exchange(loop.context_logits, model, last):
            loss = training_loss(loop, of_all(batch, loop.device), inputs, config)
            norm = update(
                loss * processes.count(),  # whose mean over the processes is taken
                model.parameters(),
                loop.optimizer,
                loop.schedule,
                settings.clip,
                settings.accumulate,
                last,
            )
        if last and settings.ema:
            progress.moved += 1
            plain = max(0, progress.moved - first_plain)
            follow(loop.average, model, settings.ema, progress.moved, plain)
        progress.step = step
        progress.pending.append(loss.detach())
        if last:
            progress.watch(norm, partial(recordings_of, loader, step, settings.accumulate))
            loop.writer.save_if_due(progress)
    progress.fetch()
    rate = round((progress.step - before) * settings.batch_size / (time.time() - started), 1)
    return {"loss": float(np.nanmean(progress.losses)), "windows_per_second": rate, "memory_mb": peak_memory_mb()}


def validate_epoch(
    loop: Finetuning,
    progress: TrainingProgress,
    validation: Validation,
    config: FinetuneCommand,
    run: Run,
    measured: Mapping[str, float],
) -> None:
    """Score the held-out recordings, record it, and copy the weights where they are the best so far; counts one epoch
    on. Of a frozen encoder's head alone it is epoch 0."""
    epoch = progress.epoch if measured else 0
    with loop.writer.guarding(progress):
        count = len(validation.recordings)
        if loop.start is not None:
            between(loop.kept, loop.start, loop.average, config.train.blend)
        windows = score_windows(loop.kept, validation.recordings, config.audio, loop.device, validation.kept)
        card = scorecard(validation.truth, pool_windows(windows, count), validation.distances)
        record(run, epoch=epoch, **measured, **card)
        progress.next_epoch()
        choose = config.train.choose
        assert choose in ("last", *card), f"{choose} is not defined on these recordings; add --train.choose last"
        value = float(epoch) if choose == "last" else card[choose]
        (value,) = processes.summed(value if processes.rank() == 0 else 0.0)  # one decides
        if value > progress.best:
            progress.best, progress.best_epoch = value, epoch
            loop.best.load_state_dict(processes.whole(loop.kept.state_dict()))


def training_loss(loop: Finetuning, batch: Batch, inputs: LossInputs, config: FinetuneCommand) -> Tensor:
    """The loss of one batch, made harder first; of several processes each computes the answers to its part of it."""
    batch, mel = augmented(batch, loop.model.log_mel, config.augment, inputs, loop.generator)
    with autocast(mel.device):
        answers = loop.context_logits(processes.part(mel))
    if not inputs.loss.moments:
        return label_loss(processes.joined(answers, len(mel)), batch.targets, batch.secondary, inputs)
    whole, moment = (processes.joined(logits, len(mel)) for logits in answers)
    first, second = (label_loss(logits, batch.targets, batch.secondary, inputs) for logits in (whole, moment))
    return (1 - inputs.loss.moments) * first + inputs.loss.moments * second


@torch.no_grad()
def score_windows(
    model: BirdClefClassifier,
    recordings: Sequence[Recording],
    audio: AudioSettings,
    device: torch.device,
    kept: Mapping[Path, Path] | None = None,
) -> WindowScores:
    """The probabilities of every window of some recordings, the windows being those that predictor.py scores; each
    process scores its part of the recordings, and all have the answers.

    kept   where the waveforms of recordings are kept: quicker, within a step of int16; by default they are decoded
    """
    model.eval()
    own = processes.span(len(recordings))
    contexts = recording_contexts(recordings[own], audio, kept)
    bar = iter(tqdm(contexts, "validating", disable=processes.no_bar(), leave=False))
    batches = iter(lambda: list(islice(bar, VALIDATION_BATCH)), [])
    times, answers = list[Tensor](), list[tuple[Tensor, Tensor]]()
    for batch in processes.in_step(batches):
        scores, embeddings = context_answers(model, batch or [silent(audio)], device)
        if batch:
            rows = [(own.start + context.owner, *window) for context in batch for window in context.windows]
            times.append(torch.tensor(rows, dtype=torch.float64))
            answers.append((scores, embeddings))
        elif not answers:  # of a process that has scored nothing
            answers.append((scores[:0], embeddings[:0]))
    assert answers, "no held-out recording could be read; is the data root still there?"
    probabilities, features = (processes.gathered(torch.cat(parts)).numpy() for parts in zip(*answers, strict=True))
    owner, starts, ends = processes.gathered(torch.cat([torch.zeros(0, 3, dtype=torch.float64), *times])).T.numpy()
    return WindowScores(owner.astype(np.int64), starts, ends, probabilities, features)


def silent(audio: AudioSettings) -> Context:
    """What a process asks about when it has nothing left to ask."""
    samples = np.zeros(round(audio.context_seconds * audio.sample_rate), np.float32)
    return Context(0, samples, (0,), ((0.0, audio.window_seconds),))


def context_answers(
    model: BirdClefClassifier, contexts: Sequence[Context], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Probabilities (windows, species) and embeddings (windows, width) of the windows wanted of some contexts, in
    float32 on any device: the served file must give the same."""
    waveforms = torch.from_numpy(np.stack([context.samples for context in contexts])).to(device)
    logits, embeddings = model.answers(waveforms)
    rows = [number * model.windows + row for number, context in enumerate(contexts) for row in context.rows]
    return logits.sigmoid().cpu()[rows], embeddings.cpu()[rows]


if __name__ == "__main__":
    audio = AudioSettings()
    network = BirdClefClassifier(Encoder(SIZES["demo"]), audio, 3, HeadSettings())
    contexts = [Context(0, np.zeros(80_000, np.float32), (0,), ((0.0, 5.0),)), silent(audio)]
    scores, vectors = context_answers(network.eval(), contexts, torch.device("cpu"))
    print("an untrained classifier gives each of three species", [round(float(p), 3) for p in scores[0]])
    assert scores.shape == (2, 3) and vectors.shape == (2, 96) and torch.allclose(scores[0], scores[1])
