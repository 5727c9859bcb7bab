"""The supervised loop: train, listen to the held-out recordings, keep the best epoch, stop when it no longer helps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import AdamW
from torch.utils.data import DataLoader
from tqdm import tqdm

from augment import augment_batch, augment_mel
from checkpoint import ClassifierFacts, load_classifier, save_classifier
from config import AudioSettings, FinetuneCommand
from data_loader import Batch, recording_windows, set_epoch, truth_table
from detections import score_columns, write_row, write_scores
from device import autocast
from loss import hierarchical_distance_loss, valid_mask
from metrics import scorecard
from model import BirdClefClassifier
from optim import cosine_schedule, differential_groups, update
from recordings import Recording
from runs import Run, draw_curves, peak_memory_mb, publish, record
from taxonomy import Taxonomy, ancestor_matrix, pairwise_distances

VALIDATION_BATCH = 32
CURVES = {"loss": ["loss"], "held-out recordings": ["macro_auc", "cmap", "top1"], "mistakes": ["mistake_distance"]}


@dataclass(frozen=True)
class WindowScores:
    """The windows of several recordings, one row each."""

    owner: NDArray[np.int64]  # (windows,) index of the recording
    starts: NDArray[np.float64]  # (windows,) seconds
    ends: NDArray[np.float64]
    scores: NDArray[np.float32]  # (windows, species) probabilities


def train_classifier(
    model: BirdClefClassifier,
    loader: DataLoader[Batch],
    valid: Sequence[Recording],
    facts: ClassifierFacts,
    config: FinetuneCommand,
    run: Run,
    device: torch.device,
) -> Path:
    """Train; the epoch with the best cmAP on the held-out recordings becomes classifier.safetensors.

    Beside it: metrics.jsonl, curves.png, and held_out_scores.csv with the kept epoch's probabilities for every window
    of the held-out recordings.
    """
    settings, path = config.train, run.folder / "classifier.safetensors"
    taxonomy = facts.taxonomy
    distance_table = pairwise_distances(taxonomy, config.loss.mechanism_penalty)
    distances = torch.from_numpy(distance_table).to(device)
    ancestors = torch.from_numpy(ancestor_matrix(taxonomy)).to(device)
    truth = truth_table(valid, taxonomy.labels)
    groups = differential_groups(
        model, settings.encoder_rate, settings.head_rate, settings.layer_decay, settings.weight_decay
    )
    optimizer = AdamW(groups, betas=(0.9, settings.beta2))
    updates = settings.epochs * math.ceil(len(loader) / settings.accumulate)
    schedule = cosine_schedule(optimizer, updates, settings.warmup)
    generator = torch.Generator().manual_seed(config.run.seed)
    model.encoder.checkpointing = settings.checkpointing
    classify: Callable[[Tensor], Tensor] = torch.compile(model.classify) if settings.compile else model.classify
    best, best_epoch = -1.0, 0
    for epoch in range(1, settings.epochs + 1):
        set_epoch(loader, epoch)
        model.train()
        started, losses = time.time(), list[float]()
        for step, batch in enumerate(tqdm(loader, f"epoch {epoch}/{settings.epochs}", disable=None, leave=False), 1):
            loss = training_loss(model, classify, batch, distances, ancestors, config, generator, device)
            last = step % settings.accumulate == 0 or step == len(loader)
            update(loss, model.parameters(), optimizer, schedule, settings.clip, settings.accumulate, last)
            losses.append(loss.item())
        seconds = time.time() - started
        scores = pool_windows(score_windows(model, valid, facts.audio, device), len(valid))
        card = scorecard(truth, scores, distance_table)
        rate = round(len(losses) * settings.batch_size / seconds, 1)
        loss_mean = float(np.nanmean(losses))
        record(run, epoch=epoch, loss=loss_mean, **card, windows_per_second=rate, memory_mb=peak_memory_mb())
        if card["cmap"] > best:
            best, best_epoch = card["cmap"], epoch
            provenance = facts.provenance | {"epoch": epoch, "held_out": card}
            save_classifier(path, model, ClassifierFacts(facts.size, facts.audio, facts.pooling, taxonomy, provenance))
        if config.patience and epoch - best_epoch >= config.patience:
            print(f"no better cmAP in {config.patience} epochs: stopping")
            break
    assert best_epoch, "no epoch gave finite scores; lower --train.encoder_rate and --train.head_rate"
    draw_curves(run, CURVES)
    kept, _ = load_classifier(path)
    windows = score_windows(kept.to(device), valid, facts.audio, device)
    write_held_out(run.folder / "held_out_scores.csv", windows, valid, taxonomy)
    print(f"kept epoch {best_epoch}: cmAP {best:.3f} on {len(valid)} held-out recordings")
    return path


def training_loss(
    model: BirdClefClassifier,
    classify: Callable[[Tensor], Tensor],
    batch: Batch,
    distances: Tensor,
    ancestors: Tensor,
    config: FinetuneCommand,
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    """The loss of one batch, made harder first."""
    labels = torch.cat([batch.targets, batch.secondary], dim=1).to(device)
    waveforms, labels = augment_batch(batch.waveforms.to(device), labels, config.augment, generator)
    targets, secondary = labels.chunk(2, dim=1)
    mel = augment_mel(model.log_mel(waveforms), config.augment, generator)
    with autocast(device):
        logits = classify(mel)
    background = (secondary > 0.5) & (targets < 0.5)  # there, perhaps inaudible: no loss, but no false alarm either
    present = (targets > 0.5) | background
    return hierarchical_distance_loss(
        logits,
        targets,
        distances,
        alpha=config.loss.alpha,
        mode=config.loss.mode,
        present=present,
        valid=valid_mask(present, ancestors, background),
    )


@torch.inference_mode()
def score_windows(
    model: BirdClefClassifier, recordings: Sequence[Recording], audio: AudioSettings, device: torch.device
) -> WindowScores:
    """The probabilities of every window of some recordings, the windows being those that predictor.py hears."""
    model.eval()
    owner, starts, ends = list[int](), list[float](), list[float]()
    scores, waiting = list[NDArray[np.float32]](), list[NDArray[np.float32]]()
    for index, window in tqdm(recording_windows(recordings, audio), "validating", disable=None, leave=False):
        owner.append(index)
        starts.append(window.start)
        ends.append(window.end)
        waiting.append(window.samples)
        if len(waiting) == VALIDATION_BATCH:
            scores.append(probabilities(model, waiting, device))
            waiting.clear()
    if waiting:
        scores.append(probabilities(model, waiting, device))
    assert scores, "no held-out recording could be read; is the data root still there?"
    return WindowScores(np.array(owner), np.array(starts), np.array(ends), np.concatenate(scores))


def probabilities(
    model: BirdClefClassifier, waveforms: Sequence[NDArray[np.float32]], device: torch.device
) -> NDArray[np.float32]:
    """(windows, species) of a batch of windows, in float32 on any device: the served file must give the same."""
    logits: Tensor = model(torch.from_numpy(np.stack(waveforms)).to(device))
    scores: NDArray[np.float32] = logits.sigmoid().cpu().numpy()
    return scores


def pool_windows(windows: WindowScores, recordings: int) -> NDArray[np.float32]:
    """(recordings, species): the mean of each recording's windows. Labels are given per recording, not per window."""
    total = np.zeros((recordings, windows.scores.shape[1]), np.float64)
    np.add.at(total, windows.owner, windows.scores)
    count = np.bincount(windows.owner, minlength=recordings)
    return (total / np.maximum(count, 1)[:, None]).astype(np.float32)


def write_held_out(path: Path, windows: WindowScores, recordings: Sequence[Recording], taxonomy: Taxonomy) -> None:
    """held_out_scores.csv, in the form of the predictor's scores.csv: quantize.py compares on these windows."""
    with publish(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        write_row(file, score_columns(taxonomy))
        for index, recording in enumerate(recordings):
            mine = windows.owner == index
            starts, ends = windows.starts[mine].tolist(), windows.ends[mine].tolist()
            write_scores(file, str(recording.path.resolve()), starts, ends, windows.scores[mine])


if __name__ == "__main__":
    scores = np.array([[0.2, 0.8], [0.4, 0.6], [0.9, 0.1]], np.float32)
    two_and_one = WindowScores(np.array([0, 0, 1]), np.array([0.0, 5.0, 0.0]), np.array([5.0, 10.0, 5.0]), scores)
    pooled = pool_windows(two_and_one, recordings=2)
    print("windows of two recordings:", scores.tolist(), "-> recordings:", pooled.tolist())
    assert np.allclose(pooled, [[0.3, 0.7], [0.9, 0.1]])
