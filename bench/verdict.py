"""Does stage 1 help? Whisper base as it is, and after masked autoencoding of several kinds, judged in the same ways.

    make bench-verdict          (or: .venv/bin/python -m bench.verdict --seeds 0 1 2 --ways probe frozen full)

Reads    ../shared/animals: for stage 1 all recordings whatever their labels, half of noise, and of the soundscapes
         those that bench.soundscapes lays nothing into; ../shared/whisper-base, or random weights with --size demo
Writes   runs/verdict/SIZE-FOLD/, where what is done already is not done again, and prints one table

An arm is stage 1 (where it has one) on the folds that train, then up to three ways to judge its encoder on the fold
held out from both stages: `probe`, logistic regression on mean, deviation and maximum over the tokens of each layer, of
each alone and of all together; `frozen`, the head of main.py on the frozen encoder; `full`, main.py's fine-tuning, both
with its defaults. Each is judged on recordings, and window by window on the soundscapes that bench.soundscapes builds
of the same fold. Seeds, data and updates are the same for every arm, differences to the arm without stage 1 paired, the
seeds averaged inside; nothing is chosen on what is held out. The questions that matter most come first.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional

from archive.recordings import Recording, write_recordings
from bench.arms import difference, folder_of, held_out, is_finished
from bench.baseline import ANIMALS, MIN_RECORDINGS, deal_noise, require
from bench.soundscapes import FOLDER as SOUNDSCAPES
from bench.soundscapes import build, kept_answers, quiet_recordings, sites_of, truth_of, windows_of
from bench.teachers import all_sound, command
from bench.whisper import SHARED, WEIGHTS
from config import SIZES, AudioSettings, DataSettings, EncoderSettings, FinetuneCommand, Preset
from data_loader import read_labeled, recording_contexts, split, truth_table
from evaluation.held_out import WindowScores, pool_windows
from evaluation.metrics import cmap
from model import Encoder, LogMel
from runtime.files import publish
from runtime.runs import read_records
from training.checkpoint import load_encoder

RUNS, AUDIO = Path("runs/verdict"), AudioSettings()
PROBE_C = 0.01  # of the logistic regression, for every arm
Scores = NDArray[np.float32]


class Arm(NamedTuple):
    """One way to come by an encoder; the first of several is what the others are compared with."""

    name: str
    stage_one: tuple[str, ...] | None  # flags of ssl_mae.py; None: no stage 1


class Question(NamedTuple):
    """What all arms of one table have in common."""

    size: Preset
    start: tuple[str, ...]  # the encoder that all of them start from
    stage_one: tuple[str, ...]  # flags of ssl_mae.py that come before an arm's own
    stage_two: tuple[str, ...]  # of main.py
    arms: tuple[Arm, ...]

    @property
    def layers(self) -> int:
        """Of the encoder, that main.py takes."""
        return FinetuneCommand.defaults(self.size).encoder.depth or SIZES[self.size].layers


class Found(NamedTuple):
    """What a way of judging says of one arm with one seed."""

    recordings: Scores  # (recordings, species), NaN for those that are not held out
    soundscapes: Scores  # (windows, species)


class Judged(NamedTuple):
    """What is right, and what stays together when an interval is estimated."""

    recordings: Scores  # (recordings, species), of all folds
    groups: NDArray[np.str_]
    soundscapes: Scores  # (windows, species)
    sites: NDArray[np.str_]


ENERGY, SPAN, BLOCK = (("--mask.strategy", kind) for kind in ("energy", "span", "block"))
FEW = ("--run.threads", "1", "--data.workers", "0")
FOUR, ALL = ("--encoder.depth", "4"), ("--encoder.depth", "0")
PULLED, FREE = ("--pull", "0.01"), ("--pull", "0")  # towards the old weights
# rates and passes were set beforehand: 290 updates, a quarter of an hour of one core
WHISPER = Question(
    "base",
    ("--encoder.weights", str(WEIGHTS)),
    (
        *("--train.epochs", "3", "--data.most_windows", "4", "--train.batch_size", "16", "--train.warmup", "0.1"),
        *("--train.encoder_rate", "5e-5", "--train.head_rate", "1e-3"),
    ),
    (),
    (
        Arm("as it is", None),
        Arm("span, pulled", (*FOUR, *SPAN, *PULLED)),
        Arm("span, pulled, time-shuffled (control)", (*FOUR, *SPAN, *PULLED, "--mask.shuffle")),
        Arm("span", (*FOUR, *SPAN, *FREE)),
        Arm("energy", (*FOUR, *ENERGY, *FREE)),
        Arm("span, a running mean's targets", (*FOUR, *SPAN, *FREE, "--target", "teacher")),
        Arm("block", (*FOUR, *BLOCK, *FREE)),
        Arm("span, all six layers", (*ALL, *SPAN, *FREE)),
    ),
)
SCRATCH_WEIGHTS = Question(
    "demo",
    ("--encoder.weights", "random"),
    ("--train.epochs", "10", "--train.batch_size", "8", "--train.encoder_rate", "2e-3", "--train.head_rate", "2e-3"),
    ("--train.epochs", "12", "--train.ema", "0.99", "--train.validate_every", "12"),
    (
        Arm("random start", None),
        Arm("span .65", SPAN),
        Arm("span .65, time-shuffled (control)", (*SPAN, "--mask.shuffle")),
        Arm("energy .65", ENERGY),
        Arm("random .65", ("--mask.strategy", "random")),
        Arm("block .65", BLOCK),
        Arm("span .50", (*SPAN, "--mask.ratio", "0.5")),
        Arm("span .75", (*SPAN, "--mask.ratio", "0.75")),
        Arm("span .65, a running mean's targets", (*SPAN, "--target", "teacher")),
        Arm("span .65, four times as long", (*SPAN, "--train.epochs", "40")),
        Arm(
            "span .65, a running mean's targets, four times as long",
            (*SPAN, "--target", "teacher", "--train.epochs", "40"),
        ),
    ),
)
WAYS = ("probe", "frozen", "full")


def bench(question: Question, fold: int, seeds: Sequence[int], ways: Sequence[str], minutes: float) -> None:
    """Run what is not yet done, as far as the minutes go, then print the table."""
    require(ANIMALS, WEIGHTS)
    deadline = time.monotonic() + 60 * minutes
    place = RUNS / f"{question.size}-{fold}"
    place.mkdir(parents=True, exist_ok=True)
    deal_noise()
    with redirect_stdout(None):
        write_recordings(place / "recordings.csv", all_sound(fold))
        rows = read_labeled(DataSettings(ANIMALS, min_recordings=MIN_RECORDINGS))[1]
        build(fold, [row for row in rows if row.fold == fold], quiet_recordings())
    for seed, arm in ((seed, arm) for seed in seeds for arm in question.arms):
        if time.monotonic() < deadline:
            weights = adapted(question, arm, place, fold, seed)
            for way in ways:
                judge(question, arm, way, weights, place, fold, seed)
    print_table(question, place, fold, seeds, ways)


def adapted(question: Question, arm: Arm, place: Path, fold: int, seed: int) -> str:
    """The weights of an arm's encoder, after stage 1 where it has one."""
    if arm.stage_one is None:
        return question.start[1]
    data = ("--data.root", str(place / "recordings.csv"), "--data.valid_fold", str(fold), "--run.seed", str(seed))
    words = ("--preset", question.size, *question.start, *data, *FEW, *question.stage_one, *arm.stage_one)
    return str(command("ssl_mae.py", folder_of(place, arm.name, seed), "mae", *words) / "encoder.safetensors")


def judge(question: Question, arm: Arm, way: str, weights: str, place: Path, fold: int, seed: int) -> None:
    """One way of judging an encoder, where that is not done yet."""
    own = folder_of(place, arm.name, seed)
    if way == "probe":
        if not (own / "probe.npz").is_file():
            probe(question, weights, own / "probe.npz", fold, seed)
        return
    flags = ("--preset", question.size, *SHARED, *FEW, *question.stage_two, "--encoder.weights", weights)
    flags += ("--data.valid_fold", str(fold), "--run.seed", str(seed))
    run = command("main.py", own / way, "finetune", *flags, *(["--train.frozen"] if way == "frozen" else []))
    kept_answers(run, fold)


# --- frozen, by layer -----------------------------------------------------------------------------------------------


def probe(question: Question, weights: str, out: Path, fold: int, seed: int) -> None:
    """What logistic regression makes of each of the layers that main.py takes, and of all of them: (layers + 1,
    recordings, species) and (layers + 1, windows, species)."""
    torch.manual_seed(seed)
    data, started = DataSettings(ANIMALS, min_recordings=MIN_RECORDINGS, valid_fold=fold), time.monotonic()
    with redirect_stdout(None):
        encoder = load_encoder(EncoderSettings(question.size, weights, question.layers), AUDIO)
        taxonomy, recordings = read_labeled(data)
        train, valid = split(recordings, data)
    column = {label: index for index, label in enumerate(taxonomy.labels)}
    owners, learnt = layer_statistics(encoder, recording_windows(train))
    others, known = layer_statistics(encoder, recording_windows(valid))
    _, field = layer_statistics(encoder, ((0, window) for window in windows_of(SOUNDSCAPES / str(fold), AUDIO)))
    labels = np.array([column[train[owner].labels[0]] for owner in owners])
    layers = [slice(layer, layer + 1) for layer in range(encoder.size.layers)]
    found = list[tuple[Scores, Scores]]()
    for part in [*layers, slice(None)]:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=PROBE_C, max_iter=1000))
        model.fit(learnt[:, part].reshape(len(learnt), -1), labels)
        scores, answered = (
            model.predict_proba(rows[:, part].reshape(len(rows), -1)).astype(np.float32) for rows in (known, field)
        )
        assert scores.shape[1] == len(taxonomy.labels), "a species has no training recording"
        times = np.zeros(len(others))
        windows = WindowScores(others, times, times, scores, scores[:, :0])
        found.append((pool_windows(windows, len(valid)), answered))
    out.parent.mkdir(parents=True, exist_ok=True)
    with publish(out) as temporary, temporary.open("wb") as file:
        np.savez(file, recordings=np.stack([one for one, _ in found]), soundscapes=np.stack([two for _, two in found]))
    print(f"{out.parent.name}, probe: {(time.monotonic() - started) / 60:.1f} minutes", flush=True)


def recording_windows(recordings: Sequence[Recording]) -> Iterator[tuple[int, Scores]]:
    """Every window with the index of its recording."""
    for context in recording_contexts(recordings, AUDIO):
        yield context.owner, context.samples


@torch.inference_mode()
def layer_statistics(encoder: Encoder, windows: Iterator[tuple[int, Scores]]) -> tuple[NDArray[np.int64], Scores]:
    """The owner of each window, and (windows, layers, 3 * width) statistics of its tokens, each layer-normalised."""
    encoder.eval()
    log_mel, owners, rows = LogMel(AUDIO, encoder.size.mels), list[int](), list[Tensor]()
    for owner, samples in windows:
        states = encoder.layer_states(log_mel(torch.from_numpy(samples)[None]))
        normal = [functional.layer_norm(state[0], state.shape[2:]) for state in states]
        rows.append(torch.stack([torch.cat([s.mean(0), s.std(0), s.amax(0)]) for s in normal]))
        owners.append(owner)
    return np.array(owners), torch.stack(rows).numpy()


# --- the table ------------------------------------------------------------------------------------------------------


def print_table(question: Question, place: Path, fold: int, seeds: Sequence[int], ways: Sequence[str]) -> None:
    """cmAP of every arm on both kinds of held-out sound, the distances to the first arm, and what may be said of it."""
    with redirect_stdout(None):
        taxonomy, rows = read_labeled(DataSettings(ANIMALS, min_recordings=MIN_RECORDINGS))
    files = [path.name for path in sorted((SOUNDSCAPES / str(fold)).glob("*.flac"))]
    right = Judged(
        truth_table(rows, taxonomy.labels, AUDIO),
        np.array([row.group for row in rows]),
        truth_of(SOUNDSCAPES / str(fold) / "answers.csv", files, taxonomy.labels),
        sites_of(files),
    )
    print(f"\n{question.size}, fold {fold}: {sum(row.fold == fold for row in rows)} recordings, {len(files)} minutes")
    print("| stage 1 | judged | seeds | skill | recordings, cmAP | difference | soundscapes, cmAP | difference |")
    print("|---|---|---|---|---|---|---|---|")
    for way in ways:
        kinds = (
            [*(f"probe, layer {layer + 1}" for layer in range(question.layers)), "probe, all"]
            if way == "probe"
            else [way]
        )
        for number, kind in enumerate(kinds):
            found = [scores_of(place, arm, way, number, seeds, rows, fold, taxonomy.labels) for arm in question.arms]
            for arm, own in zip(question.arms, found, strict=True):
                if own:
                    print(line(arm, kind, own, found[0], right, place))
    print("\nAn interval that holds 0 says that this sound cannot tell; it does not say that there is no difference.")


def line(arm: Arm, kind: str, own: dict[int, Found], first: dict[int, Found], right: Judged, place: Path) -> str:
    """One row of the table."""
    records = [read_records(folder_of(place, arm.name, seed) / "mae") for seed in own if arm.stage_one is not None]
    skill = f"{np.mean([record[-1]['skill'] for record in records]):.3f}" if records else ""
    cells = [arm.name, kind, str(len(own)), skill]
    both, same = sorted(set(own) & set(first)), own is first
    for truth, groups, name in (
        (right.recordings, right.groups, "recordings"),
        (right.soundscapes, right.sites, "soundscapes"),
    ):
        mine, others = ([getattr(arm[seed], name) for seed in both] for arm in (own, first))
        judged = [~np.isnan(scores[:, 0]) for scores in mine]
        values = [cmap(truth[rows], scores[rows]) for rows, scores in zip(judged, mine, strict=True)]
        cells.append(f"{np.mean(values):.3f}")
        low, middle, high = (0.0, 0.0, 0.0) if same else difference(truth, mine, others, groups)
        verdict = " **better**" if low > 0 else " **worse**" if high < 0 else ""
        cells.append("" if same else f"{middle:+.3f} [{low:+.3f}, {high:+.3f}]{verdict}")
    return f"| {' | '.join(cells)} |"


def scores_of(
    place: Path,
    arm: Arm,
    way: str,
    number: int,
    seeds: Sequence[int],
    rows: Sequence[Recording],
    fold: int,
    labels: tuple[str, ...],
) -> dict[int, Found]:
    """Seed -> scores, of what is done.

    number   of the layer that a probe looked at, or the last one for all together
    """
    found: dict[int, Found] = {}
    for seed in seeds:
        own = folder_of(place, arm.name, seed)
        if way == "probe" and (own / "probe.npz").is_file():
            stored = np.load(own / "probe.npz", allow_pickle=False)
            table = np.full((len(rows), len(labels)), np.nan, np.float32)
            table[[index for index, row in enumerate(rows) if row.fold == fold]] = stored["recordings"][number]
            found[seed] = Found(table, stored["soundscapes"][number])
        field = own / way / "soundscapes.npz"
        if way != "probe" and is_finished(own / way / "finetune") and field.is_file():
            paths = [str(row.path.resolve()) for row in rows]
            scores = held_out(own / way / "finetune" / "held_out_scores.csv", paths, labels)
            found[seed] = Found(scores, np.load(field, allow_pickle=False)["scores"])
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("base", "demo"), default="base", help="Whisper base, or random weights")
    parser.add_argument("--fold", type=int, default=0, help="that is held out from both stages")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=list(WAYS))
    parser.add_argument("--minutes", type=float, default=1e9, help="begin nothing later than that; 0: the table alone")
    given = parser.parse_args()
    asked = WHISPER if given.size == "base" else SCRATCH_WEIGHTS
    bench(asked, given.fold, given.seeds, given.ways, given.minutes)
