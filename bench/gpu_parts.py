"""The parts of bench.gpu, each a process of its own: what they run, and the tables they write.

    python -m bench.gpu_parts table demo gpu-pack /tmp/scratch results

Flags of main.py and ssl_mae.py stand at the top, in this place alone. An arm with a flag that main.py does not have is
left out, and the table says so.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional
from torch.optim import AdamW

from bench.arms import Arm, difference, held_out, is_finished
from bench.baseline import MIN_RECORDINGS
from config import SIZES, AudioSettings, DataSettings, EncoderSettings, FinetuneCommand, Preset, PretrainCommand
from data_loader import Context, read_labeled, read_noise, recording_contexts, split, truth_table
from evaluation.held_out import WindowScores, pool_windows
from evaluation.metrics import cmap, macro_roc_auc, top1_accuracy
from loss import classification_loss, masked_reconstruction_loss
from model import BirdClefClassifier, Encoder, LogMel, MaskedAutoencoder
from runtime.runs import peak_memory_mb, read_records
from ssl_mae import draw_mask, target_of
from training.augment import augment_batch
from training.checkpoint import load_encoder
from training.device import autocast, available_cores, device_memory_mb, half_precision
from training.optim import cosine_schedule, differential_groups, update

Table = NDArray[np.float32]
AUDIO = AudioSettings()

DEPTH = "3"  # of the encoder, where it is cut
FROZEN = "frozen, head alone"
ARMS = (
    Arm(FROZEN, ("--train.frozen",)),  # what the others are compared with
    Arm("fine-tuned, defaults", ()),
    Arm(f"fine-tuned, lowest {DEPTH} layers", ("--encoder.depth", DEPTH)),
    Arm("fine-tuned, all layers", ("--encoder.depth", "0")),
    Arm("fine-tuned, not blended", ("--train.blend", "1")),
    Arm("fine-tuned, 8 epochs", ("--train.epochs", "8")),
    Arm("fine-tuned, 20 epochs, not blended", ("--train.epochs", "20", "--train.blend", "1")),
    Arm("fine-tuned, 20 epochs", ("--train.epochs", "20")),
    Arm("fine-tuned, rate 2e-4", ("--train.encoder_rate", "2e-4")),
    Arm("fine-tuned, no mixup", ("--augment.mixup", "0")),
    Arm("fine-tuned, no stripes", ("--augment.mask", "0")),
    Arm("fine-tuned, no mixup, no stripes", ("--augment.mixup", "0", "--augment.mask", "0")),
    Arm("fine-tuned, plain BCE (alpha 0)", ("--loss.alpha", "0")),
    Arm("fine-tuned, alpha 4", ("--loss.alpha", "4")),
    Arm("fine-tuned, alpha 4, shuffled tree", ("--loss.alpha", "4", "--loss.shuffle")),
    Arm("fine-tuned, ancestors ignored", ("--loss.ancestors", "ignore")),
    Arm("fine-tuned, attention head", ("--head.pooling", "attention")),
    Arm("frozen, attention head", ("--train.frozen", "--head.pooling", "attention")),
    Arm("fine-tuned, last layer only", ("--head.layers", "1")),
    Arm("fine-tuned, no-call recordings", ("--data.no_call", "{noise_seen}")),
    Arm("frozen, no-call recordings", ("--train.frozen", "--data.no_call", "{noise_seen}")),
    Arm("fine-tuned, no EMA", ("--train.ema", "0")),
    Arm("fine-tuned, no roll", ("--augment.roll", "0")),
    Arm("fine-tuned, no short calls left alone", ("--augment.isolate", "0")),
    Arm("fine-tuned, random filters", ("--augment.filter", "0.5")),
    Arm("fine-tuned, no head first", ("--train.head_updates", "0", "--train.blend", "1", "--train.epochs", "8")),
    Arm("fine-tuned, no balance", ("--data.balance", "0")),
    Arm("fine-tuned, focal", ("--loss.kind", "focal")),
)
BIRDNET = (  # its model is CC BY-NC-SA 4.0: what comes of it stays in the results
    *("--target", "embeddings", "--teacher", "{teacher}", "--imitation.name", "BirdNET 2.4"),
    *("--imitation.license", "CC BY-NC-SA 4.0", "--train.encoder_rate", "1e-4", "--train.head_rate", "1e-3"),
    *("--train.warmup", "0.1", "--pull", "0", "--train.epochs", "6"),
)
STAGE_ONE = (  # what matters most first: what a call has no time for is left out
    Arm("span masks, pulled back", ("--mask.strategy", "span", "--pull", "0.01")),
    Arm("span masks, pulled back, time-shuffled", ("--mask.strategy", "span", "--pull", "0.01", "--mask.shuffle")),
    Arm("imitates BirdNET 2.4", BIRDNET),
    Arm(
        "imitates BirdNET 2.4 beside span masks",
        (*BIRDNET, "--mask.strategy", "span", "--imitation.reconstruction", "1"),
    ),
    Arm("span masks", ("--mask.strategy", "span", "--pull", "0")),
    Arm("span masks, a running mean's targets", ("--mask.strategy", "span", "--pull", "0", "--target", "teacher")),
    Arm("energy masks", ("--mask.strategy", "energy", "--pull", "0")),
    Arm("block masks", ("--mask.strategy", "block", "--pull", "0")),
    Arm("energy masks, all layers", ("--mask.strategy", "energy", "--encoder.depth", "0", "--pull", "0")),
)
AFTER = tuple(f"fine-tuned after {arm.name}" for arm in STAGE_ONE)
SHARED = ("--data.workers", "0", "--run.threads", "1")
FINETUNE = (
    *SHARED,
    "--data.min_recordings",
    str(MIN_RECORDINGS),
    "--loss.ancestors",
    "flat",
    "--data.noise",
    "{noise_unseen}",
)
PRETRAIN = (*SHARED, "--train.batch_size", "16", "--train.encoder_rate", "5e-5")
TEACHER = "birdnet.npz"  # in the pack: what that network makes of its recordings
BEFORE = "before"  # stage 1
PROBE_C = 0.01  # of the logistic regression on frozen features, as in bench.verdict


@dataclass(frozen=True)
class Size:
    """How large a trial is."""

    preset: Preset
    weights: str  # folder in the pack, or random
    seeds: tuple[int, ...]
    folds: tuple[int, ...]
    at_once: int  # runs side by side
    finetune: tuple[str, ...]  # more flags of main.py
    pretrain: tuple[str, ...]  # more flags of ssl_mae.py
    steps: tuple[Preset, ...]  # whose training steps are timed
    product: int  # rows of the matrix product that measures the peak


TRIALS = {
    "base": Size(
        *("base", "whisper-base", (0, 1, 2), (0, 1, 2, 3), 14),
        finetune=(),
        pretrain=("--train.epochs", "12", "--encoder.depth", "4"),
        steps=("base", "large-v3"),
        product=8192,
    ),
    "demo": Size(
        *("demo", "random", (0,), (0, 1), 2),
        finetune=("--train.epochs", "1"),
        pretrain=("--train.epochs", "1"),
        steps=("demo",),
        product=512,
    ),
}


@dataclass(frozen=True)
class Trial:
    """One call: its size, and where things are."""

    size: Size
    pack: Path
    scratch: Path
    out: Path

    @property
    def data(self) -> DataSettings:
        return DataSettings(self.pack / "animals", min_recordings=MIN_RECORDINGS)

    @property
    def weights(self) -> str:
        return "random" if self.size.weights == "random" else str(self.pack / self.size.weights)

    def flags(self, seed: int, place: Path) -> tuple[str, ...]:
        """What every run of a command is given."""
        start = ("--preset", self.size.preset, "--encoder.weights", self.weights)
        return (*start, "--data.root", str(self.data.root), "--run.seed", str(seed), "--run.root", str(place))

    def place(self, name: str, seed: int) -> Path:
        """Where the runs of an arm with a seed are."""
        return self.scratch / f"{''.join(letter if letter.isalnum() else '-' for letter in name)}-{seed}"


def prepare(trial: Trial) -> None:
    """Say what machine this is, and examine every recording once, so that the runs need not."""
    device = the_device()
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    lines = [f"{name}, {available_cores()} cores, torch {torch.__version__}, Python {sys.version.split()[0]}"]
    lines += [f"{library} {number}" for library, number in versions().items()]
    (trial.out / "steps.txt").write_text(", ".join(lines) + "\n", encoding="utf-8")
    read_labeled(trial.data)
    for number, path in enumerate(sorted(path for path in (trial.pack / "noise").rglob("*") if path.is_file())):
        half = trial.scratch / ("noise-unseen" if number % 2 else "noise-seen")
        half.mkdir(exist_ok=True)
        shutil.copyfile(path, half / path.name)
    for name in ("noise-seen", "noise-unseen"):
        read_noise(trial.scratch / name, DataSettings(trial.scratch / name))


def versions() -> dict[str, str]:
    """Of the libraries that may differ from requirements.txt there."""
    return {name: version(name) for name in ("numpy", "scikit-learn", "transformers", "huggingface_hub")}


# ---- training steps


def steps(trial: Trial) -> None:
    """Whole training steps of both stages with random weights and the batch of the presets: steps.txt, profile.txt."""
    device = the_device()
    peak = matrix_peak(device, trial.size.product)
    add(trial.out / "steps.txt", f"matrix products of {trial.size.product} rows reach {peak / 1e12:.2f} TFLOP/s")
    columns = f"{'':12}{'stage':>6}{'batch':>12}{'checkpointing':>15}{'windows/s':>11}{'of peak':>9}{'MB':>8}"
    add(trial.out / "steps.txt", columns)
    for preset in trial.size.steps:
        encoder = Encoder(SIZES[preset], AUDIO).to(device)  # one for all: random weights of large-v3 take seconds
        for stage, make, work in ((1, stage_one_step, stage_one_work), (2, stage_two_step, stage_two_work)):
            step, batch, accumulated = make(preset, encoder, device)
            for checkpointing in (False, True):
                encoder.checkpointing = checkpointing
                row = f"{preset:12}{stage:6}{batch:>6} x {accumulated:<3}{checkpointing!s:>15}"
                try:
                    seconds, memory = timed(step, device)
                except torch.OutOfMemoryError:
                    add(trial.out / "steps.txt", f"{row}  does not fit the memory")
                    continue
                rate = batch * accumulated / seconds
                add(trial.out / "steps.txt", f"{row}{rate:11.1f}{rate * work(preset) / peak:9.1%}{memory:8}")
                if not checkpointing:
                    profile(step, device, f"{preset}, stage {stage}", trial.out / "profile.txt")
            del step


def timed(step: Callable[[], None], device: torch.device, repeats: int = 5) -> tuple[float, int]:
    """Seconds of a step, the median of some after two that warm up, and the largest memory until then, MB."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    times: list[float] = []
    for _ in range(2 + repeats):
        started = time.perf_counter()
        step()
        synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:]), device_memory_mb(device) or peak_memory_mb()


def stage_one_step(preset: Preset, encoder: Encoder, device: torch.device) -> tuple[Callable[[], None], int, int]:
    """An update of ssl_mae.py: front end, energy mask, forward, backward, optimizer; no augmentation.

    returns  the update, its batch size, and how many batches it adds up
    """
    config = PretrainCommand.defaults(preset)
    settings = config.train
    model = MaskedAutoencoder(encoder).to(device)
    log_mel = LogMel(AUDIO, encoder.size.mels).to(device)
    generator = torch.Generator().manual_seed(0)
    groups = differential_groups(model, settings.encoder_rate, settings.head_rate, settings.layer_decay, 0.05)
    optimizer = AdamW(groups, betas=(0.9, settings.beta2))
    schedule = cosine_schedule(optimizer, 100, settings.warmup)
    waveforms = noise(settings.batch_size, device)

    def step() -> None:
        for part in range(settings.accumulate):
            mel = log_mel(waveforms)
            hidden = draw_mask(mel, config.mask, generator)
            target = target_of(mel, hidden, None)
            with autocast(device):
                painted = model(mel, hidden)
            loss = masked_reconstruction_loss(painted, target, hidden)
            last = part == settings.accumulate - 1
            update(loss, model.parameters(), optimizer, schedule, settings.clip, settings.accumulate, last)

    return step, settings.batch_size, settings.accumulate


def stage_two_step(preset: Preset, encoder: Encoder, device: torch.device) -> tuple[Callable[[], None], int, int]:
    """An update of main.py with everything learning: augmentation of the waveforms, front end, forward, backward,
    optimizer; binary cross-entropy without distances."""
    config = FinetuneCommand.defaults(preset)
    settings, species = config.train, 30
    model = BirdClefClassifier(encoder, AUDIO, species, config.head).to(device).train()
    generator = torch.Generator().manual_seed(0)
    groups = differential_groups(model, settings.encoder_rate, settings.head_rate, settings.layer_decay, 0.02)
    optimizer = AdamW(groups, betas=(0.9, settings.beta2))
    schedule = cosine_schedule(optimizer, 100, settings.warmup)
    waveforms = noise(settings.batch_size, device)
    labels = torch.eye(species, device=device)[torch.arange(settings.batch_size, device=device) % species]

    def step() -> None:
        for part in range(settings.accumulate):
            mixed, targets = augment_batch(waveforms, labels, config.augment, generator)
            with autocast(device):
                logits = model(mixed)
            loss = classification_loss(logits.float(), targets, kind="bce")
            last = part == settings.accumulate - 1
            update(loss, model.parameters(), optimizer, schedule, settings.clip, settings.accumulate, last)

    return step, settings.batch_size, settings.accumulate


def stage_one_work(preset: Preset) -> float:
    """Floating-point operations of a window, forward and backward (three times forward)."""
    size, tokens = SIZES[preset], token_count()
    visible = tokens - round(0.65 * tokens)
    behind = size.decoder_layers * (24 * tokens * size.decoder_width**2 + 4 * tokens**2 * size.decoder_width)
    ends = 2 * visible * size.width * size.decoder_width + 4 * tokens * size.decoder_width * size.mels
    return encoder_work(preset, visible) + 3.0 * (behind + ends)


def stage_two_work(preset: Preset) -> float:
    """The same of stage 2; the head counts nothing."""
    return encoder_work(preset, token_count())


def encoder_work(preset: Preset, visible: int) -> float:
    """The same of the encoder, its layers on the visible tokens alone."""
    size, tokens = SIZES[preset], token_count()
    stem = 2 * 3 * size.width * (2 * tokens * size.mels + tokens * size.width)
    layers = size.layers * (24 * visible * size.width**2 + 4 * visible**2 * size.width)
    return 3.0 * (stem + layers)


def token_count() -> int:
    """Tokens of a window: 20 ms each."""
    return round(AUDIO.context_seconds * 50)


def noise(batch: int, device: torch.device) -> Tensor:
    """(batch, samples) of white noise."""
    samples = round(AUDIO.context_seconds * AUDIO.sample_rate)
    return 0.1 * torch.randn(batch, samples, device=device)


def matrix_peak(device: torch.device, rows: int) -> float:
    """Operations a second of a large matrix product on random numbers, the best of ten times ten, in the precision that
    training has on that device: bfloat16 on a GPU."""
    kind = torch.bfloat16 if half_precision(device) else torch.float32
    one, other = (torch.randn(rows, rows, device=device).to(kind) for _ in range(2))
    best = 0.0
    for _ in range(10):
        synchronize(device)
        started = time.perf_counter()
        for _ in range(10):
            torch.matmul(one, other)
        synchronize(device)
        best = max(best, 10 * 2 * rows**3 / (time.perf_counter() - started))
    return best


def profile(step: Callable[[], None], device: torch.device, title: str, path: Path) -> None:
    """The operations that take most time of one step."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if device.type == "cuda" else []
    with torch.profiler.profile(activities=kinds) as seen:
        step()
        synchronize(device)
    order = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    add(path, f"{title}\n{seen.key_averages().table(sort_by=order, row_limit=20, max_name_column_width=60)}")


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


# ---- the table of arms


def table(trial: Trial) -> None:
    """Every arm with every seed, one seed after the other; the table is written anew after each run."""
    arms = [arm for arm in ARMS if offered(arm.flags)]
    for arm in ARMS:
        if arm not in arms:
            add(trial.out / "failed.txt", f"{arm.name}: left out, main.py does not have all of {' '.join(arm.flags)}")
    jobs = [finetune_job(trial, arm, seed) for seed in trial.size.seeds for arm in arms]
    tasks = [Task(partial(run_job, trial, job, partial(write_scores, trial))) for job in jobs]
    run_tasks(tasks, trial.size.at_once)
    write_scores(trial, every=0.0)


def offered(flags: Sequence[str]) -> bool:
    """Whether main.py has these flags."""
    defaults: Any = FinetuneCommand.defaults("base")
    for flag in flags:
        section, _, name = flag.removeprefix("--").partition(".")
        if flag.startswith("--") and not hasattr(getattr(defaults, section, None), name):
            return False
    return True


@dataclass(frozen=True)
class Job:
    """A command to run, and the file that shows that it has ended well."""

    name: str
    words: tuple[str, ...]
    place: Path
    kind: str  # of the run: finetune or mae


def finetune_job(trial: Trial, arm: Arm, seed: int) -> Job:
    """main.py in one way, a model for every fold."""
    place = trial.place(arm.name, seed)
    folds = ("--train.folds", *map(str, trial.size.folds))
    given = (*FINETUNE, *trial.size.finetune, *arm.flags, *folds)
    halves = {"{noise_seen}": str(trial.scratch / "noise-seen"), "{noise_unseen}": str(trial.scratch / "noise-unseen")}
    words = ("main.py", *trial.flags(seed, place), *(halves.get(word, word) for word in given))
    return Job(f"{arm.name}, seed {seed}", words, place, "finetune")


def run_job(trial: Trial, job: Job, after: Callable[[], None]) -> None:
    """In a process of its own; `after` is called when it has ended, of one job at a time."""
    started = time.monotonic()
    job.place.mkdir(parents=True, exist_ok=True)
    printed = job.place / "printed.txt"
    with printed.open("wb") as file:
        code = subprocess.call([sys.executable, *job.words], stdout=file, stderr=subprocess.STDOUT)
    with _writing:
        print(f"{job.name}: left with {code} after {time.monotonic() - started:.0f} s", flush=True)
        if not is_finished(job.place / job.kind):
            tail = printed.read_text(encoding="utf-8", errors="replace")[-1500:]
            add(trial.out / "failed.txt", f"{job.name}: {' '.join(job.words)}\n{tail}")
        after()


@dataclass(frozen=True, eq=False)
class Task:
    """A piece of work, which is begun when all that it needs have ended."""

    work: Callable[[], None]
    needs: tuple[Task, ...] = ()


def run_tasks(tasks: Sequence[Task], at_once: int) -> None:
    """Some at once; what is begun next is always the first in the order of the list that may be begun."""
    waiting, ended, turn = list(tasks), set[Task](), threading.Condition()

    def begin() -> Task:
        with turn:
            while True:
                for task in waiting:
                    if ended.issuperset(task.needs):
                        waiting.remove(task)
                        return task
                turn.wait()

    def run_next() -> None:
        task = begin()
        try:
            task.work()
        finally:  # an error is raised when the others are done
            with turn:
                ended.add(task)
                turn.notify_all()

    with ThreadPoolExecutor(at_once) as pool:
        for done in [pool.submit(run_next) for _ in tasks]:
            done.result()


def write_scores(trial: Trial, every: float = 30.0) -> None:
    """scores.npz and runs.json of all runs that are done, and table.txt made of them; not more often than every so many
    seconds, because a hundred runs end in a few minutes."""
    if not _known:
        with redirect_stdout(None):
            taxonomy, recordings = read_labeled(trial.data)
        _paths[:] = [str(recording.path.resolve()) for recording in recordings]
        _known.update(
            truth=truth_table(recordings, taxonomy.labels, AUDIO),
            names=np.array([recording.name for recording in recordings]),
            labels=np.array(taxonomy.labels),
            folds=np.array([recording.fold for recording in recordings]),
            groups=np.array([recording.group for recording in recordings]),
        )
    if time.monotonic() - _written["last"] < every:
        return
    for name in (*(arm.name for arm in ARMS), *AFTER):
        for seed in trial.size.seeds:
            run, key = trial.place(name, seed) / "finetune", f"{name}|{seed}"
            if key not in _known and is_finished(run):
                _known[key] = held_out(run / "held_out_scores.csv", _paths, tuple(_known["labels"].tolist()))
                _figures[key] = json.loads((run / "run.json").read_text(encoding="utf-8"))["scores"]
    np.savez_compressed(trial.out / "scores.npz", allow_pickle=False, **_known)
    (trial.out / "runs.json").write_text(json.dumps(_figures), encoding="utf-8")
    (trial.out / "table.txt").write_text("\n".join(table_lines(_known, alarms=_figures)) + "\n", encoding="utf-8")
    _written["last"] = time.monotonic()


_writing = threading.Lock()  # held by who writes to the files of results
_known: dict[str, NDArray[Any]] = {}  # what scores.npz holds
_figures: dict[str, dict[str, float]] = {}  # what main.py says of each run
_paths: list[str] = []
_written = {"last": -1e9}


def table_lines(
    arrays: dict[str, NDArray[Any]], intervals: bool = False, alarms: Mapping[str, Mapping[str, float]] | None = None
) -> list[str]:
    """The table: figures out of fold, mean over the seeds and their deviation; the arms in their own order, whichever
    ended first.

    intervals   also the difference in cmAP to the frozen arm with its 95 % interval, over seeds that both have
    alarms      what main.py says of each run: its false alarms per hour at the fitted thresholds
    """
    truth, folds = arrays["truth"], arrays["folds"]
    runs: dict[str, dict[str, Table]] = {}
    for name, scores in arrays.items():
        arm, bar, seed = name.partition("|")
        if bar:
            runs.setdefault(arm, {})[seed] = scores
    order, first = [*(arm.name for arm in ARMS), *AFTER], runs.get(FROZEN, {})
    runs = {arm: runs[arm] for arm in dict.fromkeys([*order, *runs]) if arm in runs}
    lines = [f"{'':40}{'seeds':>6}{'macro AUC':>16}{'cmAP at once':>16}{'mean of folds':>16}{'top-1':>16}  alarms/h"]
    if intervals:
        lines[0] += f"   cmAP minus that of {FROZEN!r}{'' if first else ', which has not been run to its end'}"
    for arm, seeds in runs.items():
        values = np.array([figures(truth, folds, scores) for scores in seeds.values()])
        cells = "".join(
            f"{mean:9.3f} ±{spread:5.3f}" for mean, spread in zip(values.mean(0), values.std(0), strict=True)
        )
        text = f"{arm:40}{len(seeds):6}{cells}"
        each = [(alarms or {}).get(f"{arm}|{seed}", {}).get("false_alarms_per_hour_at_thresholds") for seed in seeds]
        counted = [value for value in each if value is not None]
        text += f"{np.mean(counted):10.1f}" if counted else f"{'':10}"
        both = sorted(set(seeds) & set(first))
        if intervals and both and seeds is not first:
            pairs = [seeds[one] for one in both], [first[one] for one in both]
            low, middle, high = difference(truth, *pairs, arrays["groups"])
            text += f"   {middle:+.3f} [{low:+.3f}, {high:+.3f}]"
        lines.append(text)
    return lines


def figures(truth: Table, folds: NDArray[np.int64], scores: Table) -> tuple[float, float, float, float]:
    """Macro AUC, cmAP at once, cmAP as mean of folds, top-1: over the recordings that have scores."""
    rows = np.flatnonzero(~np.isnan(scores[:, 0]))
    truth, folds, scores = truth[rows], folds[rows], scores[rows]
    each = [cmap(truth[folds == fold], scores[folds == fold]) for fold in np.unique(folds)]
    return macro_roc_auc(truth, scores), cmap(truth, scores), float(np.mean(each)), top1_accuracy(truth, scores)


def print_table(results: Path) -> None:
    """What `run` found, with paired intervals; a minute."""
    path = results / "scores.npz"
    assert path.is_file(), f"no scores.npz in {results}; `python -m bench.gpu run --out {results}` writes it"
    with np.load(path) as kept:
        about = results / "runs.json"
        alarms = json.loads(about.read_text(encoding="utf-8")) if about.is_file() else None
        print("\n".join(table_lines({name: kept[name] for name in kept.files}, intervals=True, alarms=alarms)))


# ---- stage 1 and its verdict


class Adapted(NamedTuple):
    """One run of stage 1."""

    arm: Arm
    seed: int
    fold: int  # held out from it


@dataclass(frozen=True)
class Probes:
    """What the features of an encoder are judged with, and what was found."""

    contexts: Sequence[Context]
    truth: Table  # (recordings, species)
    labels: NDArray[np.int64]  # (recordings,)
    folds: NDArray[np.int64]  # (recordings,)
    pool: ProcessPoolExecutor  # of regressions
    device: threading.Lock  # one encoder at a time
    values: dict[tuple[str, str], list[tuple[float, float]]]  # layers, and after what -> cmAP and top-1 by fold


def stage_one(trial: Trial) -> None:
    """Adapt the encoder in every way with each fold held out, then judge it: frozen layer by layer, and fine-tuned."""
    places = {
        Adapted(arm, seed, fold): trial.place(f"{arm.name} {fold}", seed)
        for seed in trial.size.seeds
        for arm in STAGE_ONE
        if "{teacher}" not in arm.flags or (trial.pack / TEACHER).is_file()
        for fold in trial.size.folds
    }
    spawned = multiprocessing.get_context("spawn")  # a fork of a process that has used CUDA would not live
    with ProcessPoolExecutor(available_cores(), spawned) as pool:
        run_tasks(stage_one_tasks(trial, places, read_probes(trial, pool)), trial.size.at_once)
    write_scores(trial, every=0.0)


def stage_one_tasks(trial: Trial, places: Mapping[Adapted, Path], probes: Probes) -> list[Task]:
    """Seed by seed and arm by arm an arm is adapted, probed and fine-tuned before the next one is begun, but for what
    is free meanwhile: a call that is cut off leaves whole rows, of the first arms."""
    tell = partial(write_stage_one, trial, places, probes)
    tasks = [Task(partial(probe_before, trial, probes, tell))]
    for seed in trial.size.seeds:
        for arm, name in zip(STAGE_ONE, AFTER, strict=True):
            mine = {run: place for run, place in places.items() if (run.arm, run.seed) == (arm, seed)}
            jobs = [stage_one_job(trial, run, place) for run, place in mine.items()]
            adapted = tuple(Task(partial(run_job, trial, job, tell)) for job in jobs)
            if adapted:
                tasks += adapted
                tasks.append(Task(partial(probe_arm, trial, probes, mine, tell), adapted))
                tasks.append(Task(partial(finetune_after, trial, name, seed, mine), adapted))
    return tasks


def finetune_after(trial: Trial, name: str, seed: int, places: Mapping[Adapted, Path]) -> None:
    """main.py on the encoders of one arm and seed, where all of them are there."""
    if all(is_finished(place / "mae") for place in places.values()):
        arm = next(iter(places)).arm
        pattern = trial.place(f"{arm.name} FOLD", seed).name.replace("FOLD", "{fold}")  # main.py fills it in
        weights = trial.scratch / pattern / "mae" / "encoder.safetensors"
        job = finetune_job(trial, Arm(name, ("--encoder.weights", str(weights))), seed)
        run_job(trial, job, partial(write_scores, trial))


def stage_one_job(trial: Trial, run: Adapted, place: Path) -> Job:
    """ssl_mae.py in one way, with one fold held out."""
    own = [str(trial.pack / TEACHER) if word == "{teacher}" else word for word in run.arm.flags]
    given = (*PRETRAIN, *trial.size.pretrain, *own, "--data.valid_fold", str(run.fold))
    words = ("ssl_mae.py", *trial.flags(run.seed, place), *given)
    return Job(f"{run.arm.name}, seed {run.seed}, fold {run.fold}", words, place, "mae")


def write_stage_one(trial: Trial, places: Mapping[Adapted, Path], probes: Probes) -> None:
    """stage_one.txt: how well masked sound is reconstructed, by the way of stage 1, and what the probes have found."""
    lines = list[str]()
    for arm in STAGE_ONE:
        mine = [place for run, place in places.items() if run.arm == arm and is_finished(place / "mae")]
        skills = [float(read_records(place / "mae")[-1]["skill"]) for place in mine]
        if skills:
            spread = f"(of {len(skills)} runs {min(skills):.3f} to {max(skills):.3f})"
            lines.append(f"{arm.name}: skill {np.mean(skills):.3f} {spread}")
    for arm in STAGE_ONE:
        if any(when == arm.name for _, when in probes.values):
            lines += [arm.name, f"{'layers':8}{'before: cmAP, top-1':>22}{'after':>18}{'cmAP':>10}"]
            lines += [probe_line(probes, name, arm.name) for name in layer_names(trial)]
    if lines:
        (trial.out / "stage_one.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def probe_line(probes: Probes, layer: str, arm: str) -> str:
    """A layer before and after an arm of stage 1: means over folds (and seeds)."""
    first, last = (np.mean(probes.values.get((layer, when), [(np.nan, np.nan)]), axis=0) for when in (BEFORE, arm))
    return f"{layer:8}{first[0]:14.3f}{first[1]:8.3f}{last[0]:10.3f}{last[1]:8.3f}{last[0] - first[0]:+10.3f}"


def layer_names(trial: Trial) -> list[str]:
    """Every layer of the encoder by itself, and all together."""
    return [*map(str, range(1, SIZES[trial.size.preset].layers + 1)), "all"]


def read_probes(trial: Trial, pool: ProcessPoolExecutor) -> Probes:
    """The recordings that features are judged on, read once."""
    with redirect_stdout(None):
        taxonomy, recordings = read_labeled(trial.data)
        for fold in trial.size.folds:
            split(recordings, replace(trial.data, valid_fold=fold))  # refuses groups that stand in several folds
    column = {label: index for index, label in enumerate(taxonomy.labels)}
    labels = np.array([column[recording.labels[0]] for recording in recordings])
    folds = np.array([recording.fold for recording in recordings])
    contexts, truth = list(recording_contexts(recordings, AUDIO)), truth_table(recordings, taxonomy.labels, AUDIO)
    return Probes(contexts, truth, labels, folds, pool, threading.Lock(), {})


def probe_before(trial: Trial, probes: Probes, after: Callable[[], None]) -> None:
    """The encoder as it is, with each fold held out."""
    kept = trial.scratch / "before.npz"
    keep_features(trial, probes, trial.weights, kept)
    judge_features(trial, probes, BEFORE, [(kept, fold) for fold in trial.size.folds], after)


def probe_arm(trial: Trial, probes: Probes, places: Mapping[Adapted, Path], after: Callable[[], None]) -> None:
    """The encoders of one arm and seed, those that are there."""
    there = {run: place for run, place in places.items() if is_finished(place / "mae")}
    for place in there.values():
        keep_features(trial, probes, str(place / "mae" / "encoder.safetensors"), place / "after.npz")
    name = next(iter(places)).arm.name
    judge_features(trial, probes, name, [(place / "after.npz", run.fold) for run, place in there.items()], after)


def keep_features(trial: Trial, probes: Probes, weights: str, path: Path) -> None:
    """The features of an encoder, in a file."""
    with probes.device:
        save_features(load_encoder(EncoderSettings(trial.size.preset, weights), AUDIO), probes.contexts, path)


def judge_features(
    trial: Trial, probes: Probes, when: str, work: Sequence[tuple[Path, int]], after: Callable[[], None]
) -> None:
    """Logistic regression on frozen features of every layer.

    work    files of features, each with the fold that is held out
    """
    told = [  # the longest first
        (name, fold, probes.pool.submit(regress, str(path), name, fold, probes.labels, probes.folds))
        for name in reversed(layer_names(trial))
        for path, fold in work
        if has(str(path), name)
    ]
    found = [(name, probes.truth[probes.folds == fold], scores.result()) for name, fold, scores in told]
    with _writing:
        for name, truth, scores in found:
            probes.values.setdefault((name, when), []).append((cmap(truth, scores), top1_accuracy(truth, scores)))
        after()


def has(path: str, layer: str) -> bool:
    """Whether an encoder has a layer: stage 1 may have left out the highest."""
    with np.load(path) as kept:
        return layer == "all" or int(layer) <= kept["features"].shape[1]


@torch.inference_mode()
def save_features(encoder: Encoder, contexts: Sequence[Context], path: Path, batch: int = 64) -> None:
    """Owner (windows,) and features (windows, layers, 3 * width): mean, deviation and maximum over the tokens of each
    layer, layer-normalised without affine parameters."""
    device = the_device()
    encoder = encoder.to(device).eval()
    log_mel = LogMel(AUDIO, encoder.size.mels).to(device)
    rows: list[Table] = []
    for first in range(0, len(contexts), batch):
        waveforms = torch.from_numpy(np.stack([one.samples for one in contexts[first : first + batch]])).to(device)
        states = [functional.layer_norm(layer, layer.shape[2:]) for layer in encoder.layer_states(log_mel(waveforms))]
        parts = [torch.cat([layer.mean(1), layer.std(1), layer.amax(1)], dim=1) for layer in states]
        rows.append(torch.stack(parts, dim=1).cpu().numpy())
    np.savez(path, owner=np.array([one.owner for one in contexts]), features=np.concatenate(rows))


def regress(path: str, layer: str, fold: int, labels: NDArray[np.int64], folds: NDArray[np.int64]) -> Table:
    """(held-out recordings, species): logistic regression on the other folds, windows averaged."""
    with np.load(path) as kept:
        owner: NDArray[np.int64] = kept["owner"]
        features: Table = kept["features"]
    features = features.reshape(len(owner), -1) if layer == "all" else features[:, int(layer) - 1]
    away = folds[owner] == fold
    model = make_pipeline(StandardScaler(), LogisticRegression(C=PROBE_C, max_iter=1000))
    model.fit(features[~away], labels[owner[~away]])
    scores = np.zeros((int(away.sum()), int(labels.max()) + 1), np.float32)
    scores[:, model.classes_] = model.predict_proba(features[away])
    rows = np.searchsorted(np.flatnonzero(folds == fold), owner[away])
    times = np.zeros(len(rows))
    return pool_windows(WindowScores(rows, times, times, scores, scores[:, :0]), int((folds == fold).sum()))


# ---- small things


def the_device() -> torch.device:
    """The GPU, where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def add(path: Path, text: str) -> None:
    """A line more."""
    with path.open("a", encoding="utf-8") as file:
        file.write(text + "\n")


PARTS = {"prepare": prepare, "steps": steps, "table": table, "stage_one": stage_one}

if __name__ == "__main__":
    part, size, *folders = sys.argv[1:]
    pack, scratch, out = map(Path, folders)
    PARTS[part](Trial(TRIALS[size], pack, scratch, out))
