"""Stage 1: adapt the Whisper encoder to nature sound by masked autoencoding; no labels needed.

    python ssl_mae.py --preset base --data.root recordings/

Reads    a folder of recordings, a Whisper checkpoint
Writes   runs/mae/: encoder.safetensors, metrics.jsonl, curves.png, reconstruction.png, run.json

Most of each window is hidden; the encoder sees the rest, a small decoder reconstructs what is missing, and is thrown
away at the end. How well it does is reported as skill: the share of the error of the best trivial baseline that is
gone. A mean squared error on its own says nothing. With --target embeddings it imitates what another network, its
teacher, makes of the sound, alone or beside that; the projection to the teacher's vectors is thrown away too.
"""

from __future__ import annotations

import runtime.openmp  # pyright: ignore[reportUnusedImport] - it counts when torch is loaded
import runtime.stopping  # noqa: F401  # pyright: ignore[reportUnusedImport] - Ctrl-C counts from here on

from config import PretrainCommand
from runtime.terminal import answer_early

if __name__ == "__main__":
    answer_early(PretrainCommand)  # before torch is imported, which takes seconds

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from tqdm import tqdm

from archive.licences import handed_on, licence_note, teachers_of
from archive.recordings import Recording
from archive.survey import heard_by, marks_in, marks_of, sound_marks
from config import AudioSettings, MaskSettings, changed_words, sound_words
from data_loader import (
    Batch,
    fingerprint,
    of_all,
    read_unlabeled,
    recordings_of,
    segment_loader,
    set_epoch,
    split,
    unlabeled_loader,
    within_band,
)
from loss import imitation_loss, masked_reconstruction_loss
from model import Encoder, ImitatingAutoencoder, Imitator, LogMel, MaskedAutoencoder, token_picture, token_values
from runtime import processes
from runtime.files import publish
from runtime.runs import Run, draw_curves, keep_records, past_starts, peak_memory_mb, read_records, record
from runtime.terminal import command_line, launch, show
from serving.teachers import Teacher, open_teacher, targets_of
from sounds.audio import read_window
from training.augment import augment_batch
from training.checkpoint import load_encoder, save_encoder, stage_one
from training.device import autocast, device_memory_mb, prepare_device
from training.imitation import Imitated, measure_imitation, prepare_imitation
from training.masking import contrast_scores, hide_tokens
from training.optim import cosine_schedule, differential_groups, follow, pull_to_start, update
from training.states import Stateful, StateWriter, TrainingProgress, begun_with, forget, training_run

HELD_OUT_WINDOWS = 256  # windows the skill is measured on
QUIETEST_DEVIATION = 0.05  # a mel bin that hardly moves is not blown up beyond this
PICTURES = 3
SKILLS = (
    *("skill", "skill_over_mean", "held_out_mse"),
    *("cosine", "trivial_cosine", "reconstruction_skill"),  # of an imitation
)


@dataclass(frozen=True)
class Pretraining:
    """All that moves while the autoencoder is trained, and what moves it."""

    model: MaskedAutoencoder | Imitator
    teacher: Encoder | None  # a running mean of the encoder, whose output is the target
    start: Encoder | None  # as it was at the beginning, to which its weights are pulled
    imitated: Imitated | None  # what another network makes of the sound
    trivial: TrivialBaseline
    log_mel: LogMel
    loader: DataLoader[Batch]
    optimizer: AdamW
    schedule: LambdaLR
    generator: torch.Generator
    call: Callable[..., Any]  # the model as all processes call it
    reconstruct: Callable[..., Any]  # the same, compiled where that is asked for
    device: torch.device

    @property
    def parts(self) -> dict[str, Stateful]:
        """What a state holds."""
        parts: dict[str, Stateful] = {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule}
        others: dict[str, Stateful | None] = {"teacher": self.teacher, "start": self.start}
        return parts | {"trivial": self.trivial} | {name: part for name, part in others.items() if part}


def pretrain(config: PretrainCommand) -> int:
    """The whole of stage 1; returns the exit code."""
    given = config
    if config.run.resume:  # before all recordings are looked at
        past_starts(config.run.resume, "mae", config)
        config = replace(config, encoder=replace(config.encoder, weights=begun_with(config.run.resume, config)))
    device = prepare_device(config.run)
    encoder = load_encoder(config.encoder, config.audio)
    rows = within_band(read_unlabeled(config.data, heard_by(config.audio)), config.audio)
    train, held_out = split(rows, config.data)
    teacher = open_teacher(config.teacher, config.imitation, [*train, *held_out]) if config.teacher else None
    before = stage_one(config.encoder.weights)
    teachers, heard = handed_on(before, Path(config.encoder.weights).name), marks_of(before)
    if teacher:
        teachers += [*teachers_of(teacher.provenance), teacher.facts]
        heard += marks_of(teacher.provenance)
    for marks in heard:  # before hours of training
        marks_in(marks)
    if teachers:
        show(licence_note(teachers))
    imitated = ask_teacher(teacher, train, held_out, config) if teacher else None
    loop = prepare_pretraining(encoder, train, config, device, imitated)
    epochs = config.train.epochs_for(len(loop.loader))
    with training_run("mae", given, config.encoder.weights) as run:
        data = fingerprint(train, held_out) + (imitated.digest if imitated else "")
        writer = StateWriter(run.folder / "states", loop.parts, loop.generator, config.run.save_minutes, data)
        progress = writer.restore()
        keep_records(run.folder, progress.records)
        reconstructs = isinstance(loop.model, MaskedAutoencoder)
        windows = held_out_windows(held_out, config.audio) if reconstructs else np.zeros((0, 0), np.float32)
        with writer.listening(progress):
            for epoch in range(progress.epoch, epochs + 1):
                measured = pretrain_epoch(loop, writer, progress, config, f"epoch {epoch}/{epochs}")
                with writer.guarding(progress):
                    evaluate_epoch(loop, windows, config, run, epoch, measured)
                    progress.next_epoch()
            with writer.guarding(progress):
                path, skill = save_pretrained(encoder, train, config, run, epochs, teachers, heard)
    forget(writer.folder)  # only now: a run that is not marked as finished may be resumed
    show(f"skill {skill:.3f}: " + (imitation_verdict(skill) if imitated else skill_in_words(skill)))
    show(f"wrote {path}; {next_step(config, path, any(row.labels for row in (*train, *held_out)))}")
    return 0


def ask_teacher(
    teacher: Teacher, train: Sequence[Recording], held_out: Sequence[Recording], config: PretrainCommand
) -> Imitated:
    """What a teacher makes of the recordings: of those that train of all windows, of the others for as many recordings
    as the skill is measured on."""
    known = [recording for recording in held_out if teacher.knows(recording)] or held_out
    chosen: list[int] = np.random.default_rng(0).permutation(len(known))[:HELD_OUT_WINDOWS].tolist()
    ours, theirs = targets_of(teacher, train), targets_of(teacher, [known[index] for index in sorted(chosen)])
    show(
        f"to be imitated: {teacher.facts['name']}, {ours.vectors.shape[1]:,} values of {len(ours.rows):,} windows of "
        f"{teacher.seconds:g} s; {len(theirs.rows):,} held out"
    )
    both = (ours.rows, ours.vectors, theirs.rows, theirs.vectors)
    return prepare_imitation(*both, teacher.seconds, config.data, config.audio)


def prepare_pretraining(
    encoder: Encoder,
    train: Sequence[Recording],
    config: PretrainCommand,
    device: torch.device,
    imitated: Imitated | None,
) -> Pretraining:
    """Networks, batches, optimiser and schedule, before anything is learnt."""
    settings = config.train
    encoder.checkpointing = settings.checkpointing
    teacher = copy.deepcopy(encoder).eval().requires_grad_(False).to(device) if config.target == "teacher" else None
    start = copy.deepcopy(encoder).requires_grad_(False).to(device) if config.pulled else None
    model = network_for(encoder, config, imitated).to(device)
    method = "both" if isinstance(model, ImitatingAutoencoder) else "forward"
    if settings.shard:
        decoder = [*model.layers] if isinstance(model, MaskedAutoencoder) else list[nn.Module]()
        processes.divide(model, [*encoder.whisper.layers, *decoder], *(["both"] if method == "both" else []))
        if teacher:
            processes.divide(teacher, teacher.whisper.layers, "layer_states")
        if start:
            processes.divide(start, start.whisper.layers)
    call = processes.parallel(model, method, unused=isinstance(model, Imitator))  # the encoder's final norm has no part
    reconstruct: Callable[..., Any] = torch.compile(call) if settings.compile else call
    log_mel = LogMel(config.audio, encoder.size.mels).to(device)
    of_windows = (config.data, config.audio, settings.batch_size, config.run.seed)
    loader = segment_loader(imitated.rows, *of_windows) if imitated else unlabeled_loader(train, *of_windows)
    rates = (settings.encoder_rate, settings.head_rate, settings.layer_decay)
    groups = differential_groups(model, *rates, settings.weight_decay, config.pulled)
    optimizer = AdamW(groups, betas=(0.9, settings.beta2))
    updates = settings.epochs_for(len(loader)) * math.ceil(len(loader) / settings.accumulate)
    schedule = cosine_schedule(optimizer, updates, settings.warmup)
    if start:
        pull_to_start(optimizer, schedule, encoder, start, config.pull)
    generator = torch.Generator().manual_seed(config.run.seed)
    processes.spread_seed(config.run.seed)
    trivial = TrivialBaseline()
    moving = (optimizer, schedule, generator)
    return Pretraining(model, teacher, start, imitated, trivial, log_mel, loader, *moving, call, reconstruct, device)


def network_for(encoder: Encoder, config: PretrainCommand, imitated: Imitated | None) -> MaskedAutoencoder | Imitator:
    """The encoder with what is put behind it for a while."""
    if imitated is None:
        return MaskedAutoencoder(encoder, encoder.size.width if config.target == "teacher" else 0)
    kind = ImitatingAutoencoder if config.imitation.reconstruction else Imitator
    return kind(encoder, imitated.vectors.shape[1])


def pretrain_epoch(
    loop: Pretraining, writer: StateWriter, progress: TrainingProgress, config: PretrainCommand, title: str
) -> dict[str, float]:
    """The rest of an epoch; returns what is recorded of it."""
    settings, loader, model = config.train, loop.loader, loop.model
    set_epoch(loader, progress.epoch, progress.step)
    model.train()
    started, before = time.time(), progress.step
    bar = tqdm(loader, title, initial=before, disable=processes.no_bar(), leave=False)
    for step, batch in enumerate(bar if before < len(loader) else (), before + 1):
        last = step % settings.accumulate == 0 or step == len(loader)
        with processes.no_exchange(loop.call, model, last):
            loss = pretraining_loss(loop, of_all(batch, loop.device), config)
            norm = update(
                loss * processes.count(),  # whose mean over the processes is taken
                model.parameters(),
                loop.optimizer,
                loop.schedule,
                settings.clip,
                settings.accumulate,
                last,
            )
        if loop.teacher and last:
            progress.moved += 1
            follow(loop.teacher, model.encoder, config.teacher_decay, progress.moved)
        progress.step = step
        progress.pending.append(loss.detach() * processes.count())
        if last:
            progress.watch(norm, partial(recordings_of, loader, step, settings.accumulate))
            writer.save_if_due(progress)
    progress.fetch()
    rate = (progress.step - before) * settings.batch_size / (time.time() - started)
    return {"loss": float(np.nanmean(progress.losses)), "windows_per_second": round(rate, 1)}


def pretraining_loss(loop: Pretraining, batch: Batch, config: PretrainCommand) -> Tensor:
    """The loss of one batch, of which each process has its part; the trivial baseline learns from it too."""
    mel = input_picture(loop.log_mel, batch, config, loop.generator)
    share = processes.share(len(mel))
    wanted = [processes.part(rows) for rows in loop.imitated.wanted(batch, mel.shape[2] // 2)] if loop.imitated else []
    # imitation alone, nothing hidden
    if isinstance(loop.model, Imitator):
        vectors, inside = wanted
        with autocast(loop.device):
            answer = loop.reconstruct(processes.part(mel), inside)
        return share * imitation_loss(answer, vectors)
    # masked reconstruction, alone or beside an imitation
    hidden = draw_mask(mel, config.mask, loop.generator)
    mel, hidden = processes.part(mel), processes.part(hidden)
    target = target_of(mel, hidden, loop.teacher)
    loop.trivial.fit(target, hidden, share)
    with autocast(loop.device):
        answers = loop.reconstruct(mel, hidden, *wanted[1:])
    if not wanted:
        return share * masked_reconstruction_loss(answers, target, hidden)
    reconstruction, vectors = answers
    masked = masked_reconstruction_loss(reconstruction, target, hidden)
    return share * (imitation_loss(vectors, wanted[0]) + config.imitation.reconstruction * masked)


def evaluate_epoch(
    loop: Pretraining,
    windows: NDArray[np.float32],
    config: PretrainCommand,
    run: Run,
    epoch: int,
    measured: Mapping[str, float],
) -> None:
    """Skill on the held-out windows: recorded, and drawn."""
    model, teacher, log_mel, device = loop.model, loop.teacher, loop.log_mel, loop.device
    skills: dict[str, float] = {}
    if isinstance(model, MaskedAutoencoder):
        skills = measure_skill(model, teacher, log_mel, windows, loop.trivial, config.mask, device)
    if loop.imitated:
        reconstructed = {"reconstruction_skill": skills["skill"]} if skills else {}
        skills = skills_of_imitation(loop, config) | reconstructed
    record(
        run,
        epoch=epoch,
        loss=measured["loss"],
        **skills,
        windows_per_second=measured["windows_per_second"],
        memory_mb=device_memory_mb(device) or peak_memory_mb(),
    )
    processes.wait()  # for the record
    shown = ["skill", "cosine", "trivial_cosine"] if loop.imitated else ["skill", "skill_over_mean"]
    draw_curves(run, {"loss": ["loss"], "skill on held-out recordings": shown})
    if isinstance(model, MaskedAutoencoder):
        draw_reconstruction(run, model, teacher, log_mel, windows, config.mask, device)


def skills_of_imitation(loop: Pretraining, config: PretrainCommand) -> dict[str, float]:
    """How near the student comes to its teacher on held-out windows, of which it sees as much as in training."""
    model, imitated = loop.model.eval(), loop.imitated
    assert imitated is not None and isinstance(model, Imitator | ImitatingAutoencoder), "nothing is imitated"
    generator = torch.Generator().manual_seed(0)

    def predict(mel: Tensor, inside: Tensor) -> Tensor:
        if isinstance(model, ImitatingAutoencoder):
            return model.both(mel, draw_mask(mel, config.mask, generator), inside)[1]
        vectors: Tensor = model(mel, inside)
        return vectors

    return measure_imitation(predict, loop.log_mel, imitated, loop.device)


def save_pretrained(
    encoder: Encoder,
    train: Sequence[Recording],
    config: PretrainCommand,
    run: Run,
    epochs: int,
    teachers: Sequence[dict[str, str]],
    heard: Sequence[str],
) -> tuple[Path, float]:
    """encoder.safetensors with where it comes from; its path, and its skill after the last epoch.

    heard   marks of what the weights it began with, and its teacher, were trained on
    """
    skills = {name: float(value) for name, value in read_records(run.folder)[-1].items() if name in SKILLS}
    provenance: dict[str, object] = {
        "run": run.folder.name,
        "data": str(config.data.root.resolve()),
        "start": config.encoder.weights,
        "held_out_fold": config.data.valid_fold,
        # main.py must not hold these out
        "trained_on": sound_marks([row.path for row in train], heard_by(config.audio), heard),
        "epochs": epochs,
        "sound": config.sound,
        "teachers": list(teachers),
        **skills,
    }
    path = run.folder / "encoder.safetensors"
    save_encoder(path, encoder, config.encoder.size, config.audio, provenance)
    return path, skills["skill"]


def next_step(config: PretrainCommand, encoder: Path, labelled: bool) -> str:
    """What to do with the encoder: a command that can be copied, where the recordings are such that it can be run."""
    usual = PretrainCommand.defaults(config.preset, config.sound)
    words = [*sound_words(config.sound), *changed_words("data", config.data, usual.data)]
    words += changed_words("audio", config.audio, usual.audio)
    words += ["--encoder.weights", str(encoder)]
    words += ["--encoder.depth", str(config.encoder.depth)] if config.encoder.depth else []
    if labelled:
        return f"next: {command_line('main.py', '--preset', config.preset, *words)}"
    return f"next: main.py with labelled recordings and --encoder.weights {encoder}"


def input_picture(log_mel: LogMel, batch: Batch, config: PretrainCommand, generator: torch.Generator) -> Tensor:
    """What the autoencoder sees of a batch: (batch, mels, frames), louder or softer, some windows mixed."""
    waveforms, settings = batch.waveforms, config.augment
    if config.target == "embeddings":  # of which the teacher knows nothing
        settings = replace(settings, mixup=0.0, roll=0.0, splice=0.0)
    mixed, _ = augment_batch(waveforms, waveforms.new_zeros(len(waveforms), 1), settings, generator)
    mel: Tensor = log_mel(mixed)
    if config.mask.shuffle:
        mel = mel[:, :, torch.randperm(mel.shape[2], generator=generator).to(mel.device)]
    return mel


class TrivialBaseline:
    """What needs no learning: the mean of the visible tokens, or a line between them.

    The line is drawn between the nearest visible tokens on either side and multiplied by the one number that suited
    the training windows best; without it, it is worse than the mean.
    """

    def __init__(self) -> None:
        self.sums = torch.tensor([0.0, 1e-9], dtype=torch.float64)  # of this process: line x truth, line²

    def fit(self, target: Tensor, hidden: Tensor, share: float = 1.0) -> None:
        """Learn the one number from a training batch, of which this process may have a share, or nothing. Nothing is
        asked back from the device."""
        line = torch.where(hidden[..., None], fill_hidden(target, hidden), 0.0)
        batch = torch.stack([(line * target).sum(), line.square().sum()]).double() * float(share > 0)
        self.sums = self.sums.to(batch.device) + batch

    def state_dict(self) -> dict[str, Tensor]:
        """The sums of all processes; they must ask together."""
        own = [float(value) for value in self.sums.cpu()]
        return {"sums": torch.tensor(processes.summed(*own), dtype=torch.float64)}

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """One process goes on with the sums of all."""
        self.sums = state_dict["sums"] * float(processes.rank() == 0)

    def errors(self, target: Tensor, hidden: Tensor) -> tuple[float, float]:
        """Sums of squared error over the hidden tokens: of the mean, of the line."""
        truth = target[hidden]
        product, square = (float(value) for value in self.state_dict()["sums"])
        line = fill_hidden(target, hidden)[hidden] * (product / square)
        return float(truth.square().sum()), float((truth - line).square().sum())


@torch.no_grad()
def target_of(mel: Tensor, hidden: Tensor, teacher: Encoder | None) -> Tensor:
    """What is to be reconstructed: (batch, tokens, values), of the log-mel picture or of the teacher's output."""
    if teacher is None:
        return token_values(normalised(mel, hidden.repeat_interleave(2, dim=1)))
    return normalised(teacher_output(teacher, mel), hidden).transpose(1, 2)


def teacher_output(teacher: Encoder, mel: Tensor) -> Tensor:
    """The mean of all layers of the teacher, each normalised, nothing hidden: (batch, width, tokens).

    source    https://arxiv.org/abs/2202.03555 (data2vec), section 3.3
    """
    with autocast(mel.device):
        states = teacher.layer_states(mel)
    layers = [functional.layer_norm(layer.float(), layer.shape[2:]) for layer in states]
    return torch.stack(layers).mean(dim=0).transpose(1, 2)


def normalised(picture: Tensor, hidden: Tensor) -> Tensor:
    """(batch, rows, columns) with each row in units of its own spread; hidden (batch, columns) bool.

    Centred on the mean of the columns that can be seen: a mean over all of them would depend on the hidden ones.
    """
    mean, spread = measures(picture, hidden)
    return (picture - mean) / spread


def measures(picture: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """What a picture is normalised by: mean of the visible columns and deviation of all, (batch, rows, 1) each."""
    seen = (~hidden)[:, None].to(picture.dtype)
    mean = (picture * seen).sum(dim=2, keepdim=True) / seen.sum(dim=2, keepdim=True)
    return mean, picture.std(dim=2, keepdim=True).clamp(min=QUIETEST_DEVIATION)


def fill_hidden(values: Tensor, hidden: Tensor) -> Tensor:
    """Hidden tokens replaced by a straight line between their visible neighbours: (batch, tokens, values)."""
    tokens = hidden.shape[1]
    position = torch.arange(tokens, device=hidden.device).expand_as(hidden)
    left = torch.where(hidden, -1, position).cummax(dim=1).values
    right = torch.where(hidden, tokens, position).flip(1).cummin(dim=1).values.flip(1)
    left, right = torch.where(left < 0, right, left), torch.where(right >= tokens, left, right)
    share = ((position - left) / (right - left).clamp(min=1))[..., None]
    near = values.gather(1, left[..., None].expand_as(values))
    far = values.gather(1, right[..., None].expand_as(values))
    return near + share * (far - near)


@torch.no_grad()
def measure_skill(
    model: MaskedAutoencoder,
    teacher: Encoder | None,
    log_mel: LogMel,
    windows: NDArray[np.float32],
    trivial: TrivialBaseline,
    mask: MaskSettings,
    device: torch.device,
) -> dict[str, float]:
    """Share of the best trivial baseline's error that the network takes away, on held-out windows and fixed masks.

    windows  (windows, samples)
    returns  skill (against the better of mean and line), skill_over_mean, held_out_mse. 0 is worthless, 1 is perfect.
    """
    model.eval()
    generator = torch.Generator().manual_seed(0)
    ours = mean = line = 0.0
    count = 0
    for start in range(0, len(windows), 32):
        mel = log_mel(torch.from_numpy(windows[start : start + 32]).to(device))
        hidden = draw_mask(mel, mask, generator)
        target = target_of(mel, hidden, teacher)
        with autocast(device):
            reconstruction = model(mel, hidden)
        ours += float((reconstruction.float() - target)[hidden].square().sum())
        count += target[hidden].numel()
        of_mean, of_line = trivial.errors(target, hidden)
        mean, line = mean + of_mean, line + of_line
    return {"skill": 1 - ours / min(mean, line), "skill_over_mean": 1 - ours / mean, "held_out_mse": ours / count}


def draw_mask(mel: Tensor, mask: MaskSettings, generator: torch.Generator) -> Tensor:
    """A mask for a batch of log-mel pictures: (batch, tokens) bool."""
    scores = contrast_scores(mel) if mask.strategy == "energy" else None
    hidden = hide_tokens(len(mel), mel.shape[2] // 2, mask.ratio, mask.strategy, generator, scores)
    return hidden.to(mel.device, non_blocking=True)


def held_out_windows(recordings: Sequence[Recording], audio: AudioSettings) -> NDArray[np.float32]:
    """The same windows in every epoch and run: one from the middle of each recording, (windows, samples)."""
    chosen: list[int] = np.random.default_rng(0).permutation(len(recordings))[:HELD_OUT_WINDOWS].tolist()
    windows: list[NDArray[np.float32]] = []
    for recording in (recordings[index] for index in sorted(chosen)):
        start = max(0.0, (recording.seconds - audio.context_seconds) / 2)
        samples = read_window(recording.path, start, audio.context_seconds, audio.sample_rate)
        if len(samples):
            windows.append(samples)
    assert windows, "no held-out recording can be read; choose another --data.valid_fold"
    return np.stack(windows)


def skill_in_words(skill: float) -> str:
    """What a skill means, in words."""
    if skill <= 0.0:
        return (
            "no better than a trivial baseline; the encoder has not learnt from context yet (more epochs, more sound)"
        )
    return f"{100 * skill:.1f} % of the error of the best trivial baseline is gone"


def imitation_verdict(skill: float) -> str:
    """What the skill of an imitation means, in words."""
    if skill <= 0.0:
        return "no nearer to the teacher than one vector for all sound; more epochs, or more sound"
    return f"{100 * skill:.1f} % of the way to the teacher from the best single vector"


@torch.no_grad()
def draw_reconstruction(
    run: Run,
    model: MaskedAutoencoder,
    teacher: Encoder | None,
    log_mel: LogMel,
    windows: NDArray[np.float32],
    mask: MaskSettings,
    device: torch.device,
) -> Path:
    """reconstruction.png: a few held-out windows, what the encoder saw of them, and their reconstruction; with a
    teacher, its output in place of the log-mel picture."""
    from matplotlib.figure import Figure  # slow to import, and only drawn once

    model.eval()
    mel = log_mel(torch.from_numpy(windows[:: max(1, len(windows) // PICTURES)][:PICTURES]).to(device))
    hidden = draw_mask(mel, mask, torch.Generator().manual_seed(0))
    reconstruction = model(mel, hidden).float()
    picture = mel if teacher is None else teacher_output(teacher, mel)
    covered = hidden.repeat_interleave(2, dim=1) if teacher is None else hidden
    mean, spread = measures(picture, covered)
    values = token_picture(reconstruction) if teacher is None else reconstruction.transpose(1, 2)
    values = values * spread + mean
    seen = ~covered[:, None]
    figure = Figure(figsize=(13, 2.4 * len(mel)), layout="constrained")
    for row, whole in enumerate(picture):
        low, high = float(whole.min()), float(whole.max())
        shown = {
            "held-out window": whole,
            "what the encoder saw": torch.where(seen[row], whole, low),
            "what was reconstructed": torch.where(seen[row], whole, values[row]),
        }
        for column, (title, part) in enumerate(shown.items()):
            axes = figure.add_subplot(len(mel), 3, 3 * row + column + 1)
            axes.imshow(
                part.cpu().numpy(),
                origin="lower",
                aspect="auto",
                vmin=low,
                vmax=high,
                cmap="magma",
                extent=(0, mel.shape[2] * log_mel.hop_seconds, 0, len(whole)),
            )
            axes.set_ylabel(("dimension" if teacher else "mel bin") if column == 0 else "")
            axes.set_xlabel("seconds" if row == len(mel) - 1 else "")
            if row == 0:
                axes.set_title(title)
    path = run.folder / "reconstruction.png"
    with publish(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    return path


if __name__ == "__main__":
    launch(pretrain, PretrainCommand)
