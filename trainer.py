"""The supervised loop: train, listen to the held-out recordings, keep the best epoch, stop when it no longer helps."""

from __future__ import annotations

import copy
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW
from torch.utils.data import DataLoader
from tqdm import tqdm

import processes
from augment import augment_batch, augment_mel
from checkpoint import ClassifierFacts, load_classifier, save_classifier
from config import AudioSettings, FinetuneCommand, LossSettings
from data_loader import (
    Batch,
    Context,
    kept_beside,
    of_all,
    recording_contexts,
    recordings_of,
    set_epoch,
    truth_table,
)
from device import autocast
from evaluation import WindowScores, pool_windows
from loss import WEIGHED_BY_DISTANCE, class_weight_vector, classification_loss, distance_weights, valid_mask
from metrics import scorecard
from model import BirdClefClassifier
from optim import cosine_schedule, differential_groups, follow, update
from recordings import Recording
from runs import Run, draw_curves, keep_records, peak_memory_mb, record
from states import Keeper, Stateful
from taxonomy import Taxonomy, ancestor_matrix, pairwise_distances

VALIDATION_BATCH = 32
CURVES = {"loss": ["loss"], "held-out recordings": ["macro_auc", "cmap", "top1"], "mistakes": ["mistake_distance"]}


@dataclass(frozen=True)
class Lesson:
    """What the loss needs to know beside the batch; the same in every step."""

    loss: LossSettings
    distances: Tensor  # (species, species)
    ancestors: Tensor  # (species, species) bool
    class_weights: Tensor | None = None  # (species,)
    backgrounds: Tensor | None = None  # (count, samples) sound without animals to put under the windows


def train_classifier(
    model: BirdClefClassifier,
    loader: DataLoader[Batch],
    lesson: Lesson,
    valid: Sequence[Recording],
    facts: ClassifierFacts,
    config: FinetuneCommand,
    run: Run,
    device: torch.device,
    data: str = "",
) -> WindowScores:
    """Train; the epoch that is best on the held-out recordings becomes classifier.safetensors.

    Beside it: metrics.jsonl, curves.png and, until the run is done, states from which it can be resumed.

    data     fingerprint of what is learnt from and judged by

    returns  what the kept weights make of every window of the held-out recordings
    """
    settings, path = config.train, run.folder / "classifier.safetensors"
    truth = truth_table(valid, facts.taxonomy.labels, facts.audio)
    distances = pairwise_distances(facts.taxonomy, config.loss.mechanism_penalty)
    average = copy.deepcopy(model) if settings.ema else model
    for network in {id(one): one for one in (model, average)}.values() if settings.shard else ():
        processes.divide(network, network.encoder.whisper.layers, "judge", "answers")
    groups = differential_groups(
        model, settings.encoder_rate, settings.head_rate, settings.layer_decay, settings.weight_decay
    )
    optimizer = AdamW(groups, betas=(0.9, settings.beta2))
    updates = settings.epochs * math.ceil(len(loader) / settings.accumulate)
    schedule = cosine_schedule(optimizer, updates, settings.warmup)
    generator = torch.Generator().manual_seed(config.run.seed)
    model.encoder.checkpointing = settings.checkpointing
    learning = [parameter for parameter in model.encoder.parameters() if parameter.requires_grad]
    parts: dict[str, Stateful] = {"model": model, "optimizer": optimizer, "schedule": schedule}
    parts |= {"average": average} if settings.ema else {}
    keeper = Keeper(run.folder / "states", parts, generator, config.run.save_minutes, data)
    processes.spread(config.run.seed)
    progress = keeper.restore()
    kept_waveforms = kept_beside(loader, valid, facts.audio, config.data)
    keep_records(run.folder, progress.records)
    for epoch in range(progress.epoch, settings.epochs + 1):
        set_epoch(loader, epoch, progress.step)
        model.train()
        for parameter in learning:
            parameter.requires_grad_(epoch > settings.head_epochs)
        call = processes.parallel(model, "judge", unused=True)
        judge: Callable[[Tensor], tuple[Tensor, Tensor]] = torch.compile(call) if settings.compile else call
        started, before = time.time(), progress.step
        bar = tqdm(loader, f"epoch {epoch}/{settings.epochs}", initial=before, disable=processes.no_bar(), leave=False)
        with keeper.listening():
            for step, batch in enumerate(bar if before < len(loader) else (), before + 1):
                last = step % settings.accumulate == 0 or step == len(loader)
                with processes.no_exchange(call, model, last):
                    loss = training_loss(model, judge, of_all(batch, device), lesson, config, generator)
                    norm = update(
                        loss * processes.count(),  # whose mean over the processes is taken
                        model.parameters(),
                        optimizer,
                        schedule,
                        settings.clip,
                        settings.accumulate,
                        last,
                    )
                if last and settings.ema:
                    progress.moved += 1
                    follow(average, model, settings.ema, progress.moved)
                progress.step = step
                progress.losses.append(loss.item())
                if last:
                    progress.watch(norm, partial(recordings_of, loader, step, settings.accumulate))
                    keeper.keep_if_due(progress)
        rate = round((progress.step - before) * settings.batch_size / (time.time() - started), 1)
        mean = float(np.nanmean(progress.losses))
        told = {"windows_per_second": rate, "memory_mb": peak_memory_mb()}
        if epoch % settings.validate_every and epoch < settings.epochs:
            record(run, epoch=epoch, loss=mean, **told)
            progress.next_epoch()
            continue
        with keeper.guarding(progress):
            windows = score_windows(average, valid, facts.audio, device, kept_waveforms)
            card = scorecard(truth, pool_windows(windows, len(valid)), distances)
            record(run, epoch=epoch, loss=mean, **card, **told)
            progress.next_epoch()
            value = float(epoch) if settings.choose == "last" else card[settings.choose]
            (value,) = processes.summed(value if processes.rank() == 0 else 0.0)  # one judges
            if value > progress.best:
                progress.best, progress.best_epoch = value, epoch
                provenance = facts.provenance | {"epoch": epoch, "held_out": card}
                save_classifier(path, average, replace(facts, provenance=provenance))
        if settings.patience and epoch - progress.best_epoch >= settings.patience:
            print(f"no better {settings.choose} in {settings.patience} epochs: stopping")
            progress.epoch = settings.epochs + 1
            break
    assert progress.best_epoch, "no epoch gave finite scores; lower --train.encoder_rate and --train.head_rate"
    keeper.keep(progress)  # of several folds this one is done
    processes.wait()  # for the file
    draw_curves(run, CURVES)
    kept, _ = load_classifier(path)
    kept.temperature.fill_(1.0)  # of a resumed run it may be fitted already
    windows = score_windows(kept.to(device), valid, facts.audio, device)
    card = scorecard(truth, pool_windows(windows, len(valid)), distances)
    quality = f"cmAP {card['cmap']:.3f}, top-1 {card['top1']:.3f}"
    print(f"kept epoch {progress.best_epoch}: {quality} on {len(valid)} recordings")
    return windows


def prepare_lesson(
    taxonomy: Taxonomy,
    train: Sequence[Recording],
    settings: LossSettings,
    backgrounds: Tensor | None,
    device: torch.device,
) -> Lesson:
    """Distances, ancestors, class weights and backgrounds on the device."""
    table = pairwise_distances(taxonomy, settings.mechanism_penalty)
    if settings.shuffle:
        order = np.random.default_rng(0).permutation(len(table))
        table = table[order][:, order]
    counts = Counter(label for row in train for label in row.labels[:1])
    weights = class_weight_vector(torch.tensor([counts[label] for label in taxonomy.labels]), settings.class_weights)
    return Lesson(
        settings,
        torch.from_numpy(table).to(device),
        torch.from_numpy(ancestor_matrix(taxonomy)).to(device),
        None if weights is None else weights.to(device),
        None if backgrounds is None else backgrounds.to(device),
    )


def training_loss(
    model: BirdClefClassifier,
    judge: Callable[[Tensor], tuple[Tensor, Tensor]],
    batch: Batch,
    lesson: Lesson,
    config: FinetuneCommand,
    generator: torch.Generator,
) -> Tensor:
    """The loss of one batch, made harder first; of several processes each judges its part of it."""
    labels = torch.cat([batch.targets, batch.secondary], dim=1)
    waveforms, labels = augment_batch(batch.waveforms, labels, config.augment, generator, lesson.backgrounds)
    targets, secondary = labels.chunk(2, dim=1)
    mel = augment_mel(model.log_mel(waveforms), config.augment, generator)
    with autocast(mel.device):
        voices, loudest = (processes.joined(told, len(mel)) for told in judge(processes.part(mel)))
    costs = [cost(logits, targets, secondary, lesson) for logits in voices.unbind(dim=1)]
    loss, share = torch.stack(costs).mean(), lesson.loss.moments
    return (1 - share) * loss + share * cost(loudest, targets, secondary, lesson) if share else loss


def cost(logits: Tensor, targets: Tensor, secondary: Tensor, lesson: Lesson) -> Tensor:
    """What a batch of answers costs: (batch, species) logits, targets, background species -> ()."""
    settings = lesson.loss
    background = (secondary > 0.5) & (targets < 0.5)  # there, perhaps inaudible: no loss, but no false alarm either
    present = (targets > 0.5) | background
    valid, weights = valid_mask(present, lesson.ancestors, background), None
    if settings.ancestors == "flat":
        valid = ~background
    if settings.ancestors == "imply":
        implied = (present.float() @ lesson.ancestors.T.float() > 0) & ~background
        targets, present, valid = torch.maximum(targets, implied.float()), present | implied, valid | implied
    if settings.alpha and settings.kind in WEIGHED_BY_DISTANCE:
        weights = distance_weights(
            logits, targets, lesson.distances, alpha=settings.alpha, mode=settings.mode, present=present, valid=valid
        )
    return classification_loss(
        logits,
        targets,
        kind=settings.kind,
        valid=valid,
        absent_weights=weights,
        class_weights=lesson.class_weights,
        smoothing=settings.smoothing,
    )


@torch.no_grad()
def score_windows(
    model: BirdClefClassifier,
    recordings: Sequence[Recording],
    audio: AudioSettings,
    device: torch.device,
    kept: Mapping[Path, Path] | None = None,
) -> WindowScores:
    """The probabilities of every window of some recordings, the windows being those that predictor.py hears; each
    process listens to its part of the recordings, and all have the answers.

    kept   where the waveforms of recordings are kept: quicker, within a step of int16; by default they are decoded
    """
    model.eval()
    mine = processes.span(len(recordings))
    contexts_of_mine = recording_contexts(recordings[mine], audio, kept)
    heard = iter(tqdm(contexts_of_mine, "validating", disable=processes.no_bar(), leave=False))
    batches = iter(lambda: list(islice(heard, VALIDATION_BATCH)), [])
    times, answers = list[Tensor](), list[tuple[Tensor, Tensor]]()
    for contexts in processes.in_step(batches):
        scores, embeddings = judged(model, contexts or [silent(audio)], device)
        if contexts:
            rows = [(mine.start + context.owner, *window) for context in contexts for window in context.windows]
            times.append(torch.tensor(rows, dtype=torch.float64))
            answers.append((scores, embeddings))
        elif not answers:  # of a process that has heard nothing
            answers.append((scores[:0], embeddings[:0]))
    assert answers, "no held-out recording could be read; is the data root still there?"
    probabilities, features = (processes.gathered(torch.cat(parts)).numpy() for parts in zip(*answers, strict=True))
    owner, starts, ends = processes.gathered(torch.cat([torch.zeros(0, 3, dtype=torch.float64), *times])).T.numpy()
    return WindowScores(owner.astype(np.int64), starts, ends, probabilities, features)


def silent(audio: AudioSettings) -> Context:
    """What a process asks about when it has nothing left to ask."""
    samples = np.zeros(round(audio.context_seconds * audio.sample_rate), np.float32)
    return Context(0, samples, 0, ((0.0, audio.window_seconds),))


def judged(model: BirdClefClassifier, contexts: Sequence[Context], device: torch.device) -> tuple[Tensor, Tensor]:
    """Probabilities (windows, species) and embeddings (windows, width) of the windows wanted of some contexts, in
    float32 on any device: the served file must give the same."""
    waveforms = torch.from_numpy(np.stack([context.samples for context in contexts])).to(device)
    logits, embeddings = model.answers(waveforms)
    rows = [
        number * model.windows + context.first + which
        for number, context in enumerate(contexts)
        for which in range(len(context.windows))
    ]
    return logits.sigmoid().cpu()[rows], embeddings.cpu()[rows]


if __name__ == "__main__":
    heard = torch.tensor([[1.0, 0.0, 0.0]])
    lesson = Lesson(LossSettings(alpha=4.0), torch.tensor([[0.0, 0.2, 1.0]] * 3), torch.zeros(3, 3, dtype=torch.bool))
    logits = torch.zeros(1, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(cost(logits, heard, torch.zeros(1, 3), lesson), logits)
    print("a tit sings; the push on tit, crow and cricket:", [round(float(push), 3) for push in gradient[0]])
    assert gradient[0, 0] < 0 < gradient[0, 1] < gradient[0, 2], "a cricket is the worse mistake"
