"""What self-training is worth on soundscapes, with its brakes and without: rounds of labelling and training, judged on
sites that were never labelled.

    make bench-self-training          (or: .venv/bin/python -m bench.self_training [folds] [arms])

Reads    ../shared/animals: labels with at least 8 recordings, folds 0 to 3; ../shared/whisper-base
Writes   /tmp/wildwhisper/self-training/<fold>/: soundscapes made up as in bench.soundscapes; runs/self-training/, where
         what is done already is not done again; then prints one table of what is there

Half of a fold's recordings, group by group, are laid into some sites, whose sound is given to pseudo_label.py without
answers; the other half into other sites, over other backgrounds, which judge. No classifier was trained on either.
Each classifier is the head of frozen Whisper base, as row c of bench.whisper: round 0 is trained on recordings alone,
each further one on what the one before it makes of the given sites too.

`python -m bench.self_training 0 2` does two folds, so that two processes may share the work; arms are named by their
letters: b with all brakes, n without any, m without the limit of mass, s with windows drawn evenly over all sites, t
with the seed of the teacher, r with epochs as long as without pseudo-labels, c without pseudo-labels at all: what
another seed alone changes. Intervals are over the sites that judge; differences to round 0 are paired.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from archive.recordings import Recording
from bench.arms import is_finished, start_finetune
from bench.baseline import ANIMALS, MIN_RECORDINGS, deal_noise
from bench.folds import FOLDS, Table, Weighted, gain_in_words
from bench.soundscapes import (
    SEED,
    Judged,
    answers,
    at_thresholds,
    make_site,
    quiet_recordings,
    recall_at_one_alarm,
    write_soundscapes,
)
from bench.whisper import BASE, SHARED
from config import SCRATCH, AudioSettings, DataSettings
from data_loader import read_labeled, truth_table
from evaluation.held_out import deal_out
from evaluation.metrics import bootstrap_interval, cmap, macro_roc_auc, weighted_cmap, weighted_macro_roc_auc
from pseudo_label import exported

RUNS, FOLDER = Path("runs/self-training"), SCRATCH / "self-training"
ROUNDS = 5
GIVEN, JUDGING = "given", "judging"
SITES, MINUTES = 8, {GIVEN: 6, JUDGING: 4}  # of either kind in each fold; soundscapes of a minute at each site
SITE = r"/([^/]+)-\d+\.flac$"  # in the name of a file
MEASURES: tuple[tuple[str, Callable[[Table, Table], float], Weighted], ...] = (
    ("cmAP", cmap, weighted_cmap),
    ("macro AUC", macro_roc_auc, weighted_macro_roc_auc),
)
FALSE_ALARMS = ("at its thresholds: false alarms an hour, recall", "recall at one an hour")
FREE_MASS, EVEN_SITES = ("--data.pseudo_mass", "0"), ("--data.pseudo_sites", "0")


class Arm(NamedTuple):
    """A way to go through the rounds."""

    letter: str
    name: str
    flags: tuple[str, ...]
    other_seed: bool  # whether each round has a seed of its own


ARMS = (
    Arm("b", "with brakes", (), True),
    Arm("n", "without brakes", (*FREE_MASS, *EVEN_SITES), False),
    Arm("m", "without the limit of mass", FREE_MASS, True),
    Arm("s", "windows drawn evenly", EVEN_SITES, True),
    Arm("t", "the teacher's seed", (), False),
    Arm("r", "in the place of recordings", ("--data.pseudo_place", "taken"), True),
    Arm("c", "recordings alone, other seeds (control)", (), True),
)
USUAL, CONTROL, BRAKED = "bnc", "c", "b"


def bench(folds: tuple[int, ...], letters: str) -> None:
    """Do what is not done yet, then print the table."""
    deal_noise()
    with redirect_stdout(None):
        taxonomy, rows = read_labeled(DataSettings(ANIMALS, min_recordings=MIN_RECORDINGS))
    arms = [arm for arm in ARMS if arm.letter in letters]
    for fold in folds:
        for kind, recordings in halves(fold, rows, taxonomy.labels).items():
            build(fold, kind, recordings)
        for arm in arms:
            for number in range(ROUNDS + 1):
                train(fold, arm, number)
    print_table(folds, arms)


def halves(fold: int, rows: Sequence[Recording], labels: tuple[str, ...]) -> dict[str, list[Recording]]:
    """The recordings of a fold, group by group: those that are laid into the given sites, and the others."""
    own = [row for row in rows if row.fold == fold]
    part = deal_out(np.array([row.group for row in own]), truth_table(own, labels, AudioSettings()), parts=2)
    return {
        kind: [row for row, half in zip(own, part, strict=True) if half == number]
        for number, kind in enumerate(MINUTES)
    }


def build(fold: int, kind: str, recordings: Sequence[Recording]) -> None:
    """The soundscapes of the sites of one kind; made where they are not there."""
    place = FOLDER / str(fold) / kind
    if (place / "answers.csv").is_file():
        return
    place.mkdir(parents=True, exist_ok=True)
    backgrounds, which = quiet_recordings(), list(MINUTES).index(kind)
    order: list[int] = np.random.default_rng([SEED, fold]).permutation(len(backgrounds)).tolist()
    order = order[which :: len(MINUTES)]
    rng = np.random.default_rng([SEED, fold, which])
    names = [f"{fold}-{kind}-{number:02}" for number in range(SITES)]
    sites = [make_site(name, backgrounds[order[at % len(order)]], rng) for at, name in enumerate(names)]
    write_soundscapes(place, sites, MINUTES[kind], recordings, rng)


def train(fold: int, arm: Arm, number: int) -> None:
    """A round: label the given sites with the classifier of the round before, and train; round 0 only trains."""
    place = place_of(fold, arm, number)
    if is_finished(place / "finetune"):
        return
    place.mkdir(parents=True, exist_ok=True)
    more: tuple[str, ...] = ()
    if number and arm.letter != CONTROL:
        with redirect_stdout(None):
            model = exported((place_of(fold, arm, number - 1) / "finetune").resolve(), place)
        more = ("--data.pseudo", str(label_sites(model, fold, place)), *arm.flags)
    seed = str(number if arm.other_seed else 0)
    flags = (*BASE, "--train.frozen", *SHARED, "--data.valid_fold", str(fold), "--run.seed", seed, *more)
    code = start_finetune(place, *flags).wait()
    assert code == 0, f"main.py left with {code}; what it printed is in {place / 'printed.txt'}"
    print(f"fold {fold}, {arm.name}, round {number}: trained", flush=True)


def label_sites(model: Path, fold: int, place: Path) -> Path:
    """The table that pseudo_label.py makes of the given sites of a fold with an ONNX file."""
    words = ("--model", str(model), "--out", str(place / "pseudo"), "--site_regex", SITE, "--threads", "1")
    with (place / "labelled.txt").open("w", encoding="utf-8") as file:
        command = [sys.executable, "pseudo_label.py", str(FOLDER / str(fold) / GIVEN), *words]
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    assert code == 0, f"pseudo_label.py left with {code}; what it printed is in {place / 'labelled.txt'}"
    return place / "pseudo" / "recordings.csv"


def print_table(folds: tuple[int, ...], arms: Sequence[Arm]) -> None:
    """Every round of every arm on the sites that judge; its differences to round 0, and to the arm with all brakes."""
    first = judged(folds, arms[0], 0)
    hours = len(first.truth) * 5 / 3600
    print(f"\nfolds {', '.join(map(str, folds))}: {hours:.2f} h of {len(set(first.sites))} sites that judge")
    names = [name for name, _, _ in MEASURES]
    more = (*(f"{name} - round 0" for name in names), f"{names[0]} - with brakes")
    print("| | " + " | ".join([*names, *more, *FALSE_ALARMS, "windows labelled"]) + " |")
    print("|---" * (2 + len(names) + len(more) + len(FALSE_ALARMS)) + "|")
    braked = next((arm for arm in arms if arm.letter == BRAKED), None)
    rounds = [(arm, number) for arm in arms for number in range(1, ROUNDS + 1) if is_there(folds, arm, number)]
    for arm, number in [(arms[0], 0), *rounds]:
        found = judged(folds, arm, number)
        others = [first] * bool(number)
        if number and braked and arm != braked and is_there(folds, braked, number):
            others.append(judged(folds, braked, number))
        assert all(np.array_equal(found.truth, other.truth) for other in others), "judged on other windows"
        pairs = [(other, weighted) for other in others[:1] for _, _, weighted in MEASURES]
        pairs += [(other, MEASURES[0][2]) for other in others[1:]]
        differences = [gain_in_words(by, found.truth, found.scores, other.scores, found.sites) for other, by in pairs]
        differences += [""] * (len(more) - len(differences))
        recall, alarms = at_thresholds(found, hours)
        told = [f"{alarms:.0f}, {recall:.3f}", f"{recall_at_one_alarm(found, hours):.3f}"]
        tables = [place_of(fold, arm, number) / "pseudo" / "recordings.csv" for fold in folds]
        windows = sum(len(table.read_text(encoding="utf-8").splitlines()) - 1 for table in tables if table.is_file())
        name = f"{arm.name}, round {number}" if number else "round 0: recordings alone"
        cells = [in_words(found, statistic, weighted) for _, statistic, weighted in MEASURES]
        print(f"| {name} | " + " | ".join([*cells, *differences, *told, str(windows or "")]) + " |", flush=True)


def in_words(found: Judged, statistic: Callable[[Table, Table], float], weighted: Weighted) -> str:
    """A figure with its interval over sites."""
    low, high = bootstrap_interval(partial(weighted, found.truth, found.scores), found.sites)
    return f"{statistic(found.truth, found.scores):.3f} [{low:.3f}, {high:.3f}]"


@cache
def judged(folds: tuple[int, ...], arm: Arm, number: int) -> Judged:
    """The answers of a round to the sites that judge, of all folds."""
    parts = [
        answers(
            place_of(fold, arm, number) / "finetune" / "classifier.safetensors",
            FOLDER / str(fold) / JUDGING,
            place_of(fold, arm, number) / "judged.onnx",
        )
        for fold in folds
    ]
    return Judged(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def is_there(folds: Sequence[int], arm: Arm, number: int) -> bool:
    """Whether a round has been trained on all folds."""
    return all(is_finished(place_of(fold, arm, number) / "finetune") for fold in folds)


def place_of(fold: int, arm: Arm, number: int) -> Path:
    """Where a round is kept; round 0 is common to all arms."""
    return RUNS / str(fold) / (f"{arm.letter}-{number}" if number else "0")


if __name__ == "__main__":
    numbers = tuple(int(word) for word in sys.argv[1:] if word.isdecimal())
    bench(numbers or FOLDS, "".join(word for word in sys.argv[1:] if not word.isdecimal()) or USUAL)
