"""bench/gpu.py: what it takes along can be read again, and it ends in time."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pretend import read_rows
from safetensors.torch import load_file, save_file

from bench.gpu import LIMITS, LONGEST, PATIENCE, wait
from bench.gpu_pack import LONGEST as LONGEST_RECORDING
from bench.gpu_pack import RATE, ROOM, pack, size_of, write_table
from bench.gpu_parts import (
    AFTER,
    ARMS,
    FROZEN,
    PARTS,
    STAGE_ONE,
    TEACHER,
    TRIALS,
    Adapted,
    Job,
    Probes,
    Task,
    Trial,
    figures,
    finetune_job,
    offered,
    probe_arm,
    probe_before,
    run_tasks,
    stage_one_job,
    stage_one_tasks,
    steps,
    table_lines,
    timed,
    write_stage_one,
)
from config import SIZES, AudioSettings, DataSettings, FinetuneCommand, PretrainCommand, parse
from data_loader import Context, read_labeled, read_noise
from demo_data import FieldSeason
from model import Encoder
from runtime.files import write_json
from system import birth

SHARED = Path(__file__).parents[1].parent / "shared"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A folder in the hub's layout, in float32."""
    folder = tmp_path / "whisper"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({"model.encoder.conv1.bias": torch.linspace(-1, 1, 1001)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def archive(season: FieldSeason, tmp_path: Path) -> Path:
    """Of the season's tables the first five species, with three recordings each, but the last, which has two."""
    root = tmp_path / "archive"
    tables = {name: read_rows(season.root / name) for name in ("taxonomy.csv", "train.csv")}
    tables["taxonomy.csv"] = tables["taxonomy.csv"][:5]
    labels = [row["primary_label"] for row in tables["taxonomy.csv"]]
    alone = [row for row in tables["train.csv"] if row["secondary_labels"] == "['']"]
    found = {label: [row for row in alone if row["primary_label"] == label] for label in labels}
    tables["train.csv"] = [row for label in labels for row in found[label][: 2 if label == labels[-1] else 3]]
    for row in tables["train.csv"]:
        path = root / "train_audio" / row["filename"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(season.root / "train_audio" / row["filename"])
    for name, rows in tables.items():
        write_table(root / name, rows)
    return root


def nothing(*_: object) -> None:
    """In the place of work that takes too long here."""


def test_the_pack_is_read_as_the_archive_it_was_made_of(
    archive: Path, season: FieldSeason, weights: Path, tmp_path: Path
) -> None:
    folder, noise = tmp_path / "pack", tmp_path / "noise"
    noise.mkdir()
    for path in sorted((season.root / "unlabeled").rglob("*.flac"))[:2]:
        (noise / path.name).hardlink_to(path)
    pack(archive, noise, weights, 3, folder, whole=False)
    before, rows = read_labeled(DataSettings(archive, min_recordings=3))
    after, packed = read_labeled(DataSettings(folder / "animals", min_recordings=3))
    assert after == before and len(before.labels) == 4 and len(packed) == len(rows) == 12
    facts = {Path(row.name).stem: (row.labels, row.group, row.fold) for row in rows}
    assert facts == {Path(row.name).stem: (row.labels, row.group, row.fold) for row in packed}
    lengths = {Path(row.name).stem: min(row.seconds, LONGEST_RECORDING) for row in rows}
    for row in packed:
        assert row.path.suffix == ".ogg" and row.sample_rate == RATE and row.channels == 1 and row.status == "ok"
        assert row.seconds == pytest.approx(lengths[Path(row.name).stem], abs=0.05)
    assert len(read_noise(folder / "noise", DataSettings(folder / "noise"))) == 2
    kept = load_file(folder / "whisper" / "model.safetensors")["model.encoder.conv1.bias"]
    assert kept.dtype == torch.float16 and torch.allclose(kept.float(), torch.linspace(-1, 1, 1001), atol=1e-3)
    assert size_of(folder) < ROOM


@pytest.mark.slow
def test_the_pack_of_the_real_recordings_is_below_its_limit(tmp_path: Path) -> None:
    if not (SHARED / "animals").is_dir():
        pytest.skip("no ../shared/animals")
    pack(SHARED / "animals", SHARED / "animals" / "noise", SHARED / "whisper-base", 8, tmp_path / "pack", whole=False)
    assert size_of(tmp_path / "pack") < ROOM - 2_500_000  # and the wheels


def test_the_parts_end_before_a_call_must() -> None:
    assert tuple(LIMITS) == tuple(PARTS) and min(LIMITS.values()) > 0
    assert sum(LIMITS.values()) + 30 <= LONGEST == 600
    assert PATIENCE["base"] == 1 and PATIENCE.keys() == TRIALS.keys()


def test_what_is_too_slow_is_ended_with_all_it_started(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    child = "import os, time, pathlib; pathlib.Path('half').write_text(str(os.getpid())); "
    child += "pathlib.Path('half').rename('begun'); time.sleep(600)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    slow = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, start_new_session=True)
    deadline = time.monotonic() + 60
    while not begun.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    number = int(begun.read_text())
    assert birth(number), "control: it is there"
    assert wait(slow, 0.0) is None
    deadline = time.monotonic() + 60
    while birth(number) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not birth(number), "what it had started outlives it"
    quick = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"], start_new_session=True)
    assert wait(quick, 60.0) == 3  # control: one that ends by itself says how


def test_flags_of_the_arms_are_known_to_the_command(tmp_path: Path) -> None:
    assert all(offered(arm.flags) for arm in ARMS)
    trial = Trial(TRIALS["base"], tmp_path, tmp_path, tmp_path)
    for arm in ARMS:
        config = parse(FinetuneCommand, finetune_job(trial, arm, 2).words[1:])
        assert config.run.seed == 2 and config.data.min_recordings == 8
    assert not offered(("--encoder.width", "3"))  # control


def test_every_way_of_stage_one_is_a_command_with_a_place_of_its_own(tmp_path: Path) -> None:
    trial = Trial(TRIALS["base"], tmp_path, tmp_path, tmp_path)
    runs = [Adapted(arm, seed, fold) for arm in STAGE_ONE for seed in trial.size.seeds for fold in trial.size.folds]
    jobs = [stage_one_job(trial, run, trial.place(f"{run.arm.name} {run.fold}", run.seed)) for run in runs]
    assert len({job.place for job in jobs}) == len(jobs) == 9 * 3 * 4
    changing = ("--data.valid_fold", "--run.seed", "--run.root")
    known = set[tuple[str, ...]]()
    for run, job in zip(runs, jobs, strict=True):
        pairs = zip(["", *job.words], job.words, strict=False)
        same = tuple(word for before, word in pairs if before not in changing and str(tmp_path) not in word)
        if same in known and run.arm is not STAGE_ONE[0]:
            continue  # but for fold, seed and place it is a command that was parsed
        known.add(same)
        config = parse(PretrainCommand, job.words[1:])
        assert (config.data.valid_fold, config.run.seed) == (run.fold, run.seed)
        assert config.encoder.depth == (0 if "all layers" in run.arm.name else 4)
        assert config.mask.shuffle == ("shuffled" in run.arm.name)
        assert config.teacher == (tmp_path / TEACHER if "imitates" in run.arm.name else None)
        assert (config.imitation.reconstruction > 0) == ("beside" in run.arm.name)
        assert (config.target == "teacher") == ("running mean" in run.arm.name)
        masks = next((kind for kind in ("span", "energy", "block") if f"{kind} masks" in run.arm.name), None)
        assert masks is None or config.mask.strategy == masks


def as_if_done(trial: Trial, job: Job, after: Callable[[], None]) -> None:
    """In place of a run: what one leaves that has ended well."""
    folder = job.place / job.kind
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text(json.dumps({"skill": 0.1}) + "\n")
    # whole or not at all, as a run does: others read it meanwhile
    write_json(folder / "run.json", {"status": "finished"})
    with (trial.out / "order.txt").open("a") as file:
        file.write(f"{job.name}\n")
    after()


def no_probes(contexts: list[Context], truth: NDArray[np.float32], labels: NDArray[np.int64]) -> Probes:
    """With a pool of threads in place of one of processes."""
    pool = cast(ProcessPoolExecutor, ThreadPoolExecutor(2))
    return Probes(contexts, truth, labels, np.arange(len(labels)) % 2, pool, threading.Lock(), {})


def places_of(trial: Trial) -> dict[Adapted, Path]:
    return {
        Adapted(arm, seed, fold): trial.place(f"{arm.name} {fold}", seed)
        for seed in trial.size.seeds
        for arm in STAGE_ONE
        for fold in trial.size.folds
    }


def test_each_way_of_stage_one_is_judged_before_the_next_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a call that is cut off leaves whole rows."""
    (tmp_path / TEACHER).touch()
    trial = Trial(TRIALS["base"], tmp_path, tmp_path, tmp_path)

    def probed(trial: Trial, _probes: Probes, places: dict[Adapted, Path], after: Callable[[], None]) -> None:
        arm, seed, _ = next(iter(places))
        place = trial.place(f"{arm.name} probed", seed)
        as_if_done(trial, Job(f"{arm.name}, seed {seed}, probed", (), place, "probe"), after)

    monkeypatch.setattr("bench.gpu_parts.run_job", as_if_done)
    monkeypatch.setattr("bench.gpu_parts.probe_arm", probed)
    monkeypatch.setattr("bench.gpu_parts.probe_before", nothing)
    monkeypatch.setattr("bench.gpu_parts.write_scores", nothing)
    probes = no_probes([], np.zeros((0, 1), np.float32), np.zeros(0, np.int64))
    run_tasks(stage_one_tasks(trial, places_of(trial), probes), at_once=1)
    due = list[str]()
    for seed in (0, 1, 2):
        for arm in STAGE_ONE:
            due += [f"{arm.name}, seed {seed}, fold {fold}" for fold in (0, 1, 2, 3)]
            due += [f"{arm.name}, seed {seed}, probed", f"fine-tuned after {arm.name}, seed {seed}"]
    assert (tmp_path / "order.txt").read_text().splitlines() == due
    assert (tmp_path / "stage_one.txt").read_text().splitlines()[0] == (
        f"{STAGE_ONE[0].name}: skill 0.100 (of 12 runs 0.100 to 0.100)"
    )


def test_an_arm_with_a_fold_that_failed_is_not_fine_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(TRIALS["demo"], tmp_path, tmp_path, tmp_path)
    begun = list[str]()

    def run_job(trial: Trial, job: Job, after: Callable[[], None]) -> None:
        begun.append(job.name)
        if job.name != f"{STAGE_ONE[0].name}, seed 0, fold 1":
            as_if_done(trial, job, after)

    monkeypatch.setattr("bench.gpu_parts.run_job", run_job)
    for name in ("probe_arm", "probe_before", "write_scores"):
        monkeypatch.setattr(f"bench.gpu_parts.{name}", nothing)
    probes = no_probes([], np.zeros((0, 1), np.float32), np.zeros(0, np.int64))
    run_tasks(stage_one_tasks(trial, places_of(trial), probes), at_once=3)
    assert f"fine-tuned after {STAGE_ONE[0].name}, seed 0" not in begun
    assert f"fine-tuned after {STAGE_ONE[1].name}, seed 0" in begun and len(begun) == 9 * 2 + 8


def test_what_is_first_in_the_list_is_begun_as_soon_as_what_it_needs_has_ended() -> None:
    begun, slow = list[str](), threading.Event()

    def work(name: str, waits: bool = False) -> None:
        begun.append(name)
        assert not waits or slow.wait(60)
        if name == "free 1":
            slow.set()

    def fail() -> None:
        raise ZeroDivisionError

    needed = Task(partial(work, "needed", True))
    tasks = [needed, Task(partial(work, "needing"), (needed,)), *(Task(partial(work, f"free {n}")) for n in (0, 1))]
    run_tasks(tasks, 2)  # a free place is filled with what may be begun
    assert sorted(begun[:2]) == ["free 0", "needed"], "two at a time, in any order"
    assert begun[2:] == ["free 1", "needing"]
    with pytest.raises(ZeroDivisionError):
        run_tasks([Task(fail), Task(fail), *(Task(partial(work, f"rest {n}")) for n in (0, 1))], 1)
    assert begun[-2:] == ["rest 0", "rest 1"]


def test_probes_find_species_that_differ_in_pitch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the table says so before and after."""

    def untrained(*_: object) -> Encoder:
        return Encoder(SIZES["demo"], AudioSettings())

    monkeypatch.setattr("bench.gpu_parts.load_encoder", untrained)
    trial, rng, audio = Trial(TRIALS["demo"], tmp_path, tmp_path, tmp_path), np.random.default_rng(0), AudioSettings()
    times, labels = np.arange(round(audio.context_seconds * audio.sample_rate)) / audio.sample_rate, np.arange(12) // 2
    labels = labels % 2  # two recordings each, one in either fold
    sounds = [np.sin(2 * np.pi * (500, 3_000)[label] * times) + 0.1 * rng.normal(size=len(times)) for label in labels]
    contexts = [Context(owner, sound.astype(np.float32), (0,), ((0.0, 5.0),)) for owner, sound in enumerate(sounds)]
    probes = no_probes(contexts, np.eye(2, dtype=np.float32)[labels], labels)
    places = {run: place for run, place in places_of(trial).items() if run.arm == STAGE_ONE[0]}
    tell = partial(write_stage_one, trial, places, probes)
    probe_before(trial, probes, tell)
    assert not (tmp_path / "stage_one.txt").exists()  # nothing has been adapted
    for run, place in places.items():
        as_if_done(trial, stage_one_job(trial, run, place), lambda: None)
    probe_arm(trial, probes, places, tell)
    lines = (tmp_path / "stage_one.txt").read_text().splitlines()
    assert lines[0].endswith("(of 2 runs 0.100 to 0.100)") and lines[1] == STAGE_ONE[0].name
    assert [line.split()[1:3] for line in lines[3:]] == [["1.000", "1.000"]] * (len(lines) - 3)


def test_training_steps_of_both_stages_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.gpu_parts.timed", partial(timed, repeats=1))
    steps(Trial(TRIALS["demo"], tmp_path, tmp_path, tmp_path))
    lines = (tmp_path / "steps.txt").read_text().splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [["demo", "1"]] * 2 + [["demo", "2"]] * 2
    assert all(float(line.split()[6]) > 0 for line in lines[2:])  # windows a second
    assert "aten::mm" in (tmp_path / "profile.txt").read_text()


def test_the_table_judges_each_run_over_what_was_held_out_from_it() -> None:
    truth = np.eye(2, dtype=np.float32)[[0, 1, 0, 1, 0, 1]]
    folds = np.array([0, 0, 1, 1, 2, 2])
    right, half = truth.copy(), truth.copy()
    right[4:] = np.nan  # fold 2 was not held out
    half[2:4] = 1 - half[2:4]
    assert figures(truth, folds, right) == (1.0, 1.0, 1.0, 1.0)
    assert figures(truth, folds, half)[3] == pytest.approx(4 / 6)
    arrays = {"truth": truth, "folds": folds, "groups": np.arange(6)}
    lines = table_lines(arrays | {f"{FROZEN}|0": right, "bad|0": half, "bad|1": right}, intervals=True)
    assert len(lines) == 3 and lines[1].startswith(f"{FROZEN:40}     1 ") and lines[2].split()[:2] == ["bad", "2"]
    assert "[" not in lines[1] and "   -" in lines[2]  # the first is what the others are compared with


def test_all_arms_are_compared_with_the_frozen_one_whichever_ended_first() -> None:
    truth = np.eye(2, dtype=np.float32)[[0, 1, 0, 1]]
    arrays = {"truth": truth, "folds": np.array([0, 0, 1, 1]), "groups": np.arange(4)}
    last, early = ARMS[-1].name, ARMS[1].name
    ended = {f"{AFTER[0]}|0": truth, f"{last}|0": 1 - truth, f"{early}|0": truth}
    lines = table_lines(arrays | ended | {f"{FROZEN}|0": truth}, intervals=True)
    assert [line[:40].rstrip() for line in lines[1:]] == [FROZEN, early, last, AFTER[0]]
    assert f"minus that of '{FROZEN}'" in lines[0] and "not been run" not in lines[0]
    assert ["[" in line for line in lines[1:]] == [False, True, True, True] and "   -" in lines[3]
    alone = table_lines(arrays | ended, intervals=True)  # control: no other takes its place
    assert "which has not been run to its end" in alone[0] and not any("[" in line for line in alone[1:])
