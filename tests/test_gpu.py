"""bench/gpu.py: what it takes along can be read again, and it ends in time."""

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from pretend import read_rows
from safetensors.torch import load_file, save_file

from bench.gpu import LIMITS, LONGEST, PATIENCE, wait
from bench.gpu_pack import LONGEST as LONGEST_RECORDING
from bench.gpu_pack import RATE, ROOM, pack, size_of, write_table
from bench.gpu_parts import (
    ARMS,
    PARTS,
    STAGE_ONE,
    TEACHER,
    TRIALS,
    Adapted,
    Trial,
    figures,
    finetune_job,
    offered,
    stage_one_job,
    steps,
    table_lines,
    timed,
)
from config import DataSettings, FinetuneCommand, PretrainCommand, parse
from data_loader import read_labeled, read_noise
from demo_data import FieldSeason

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
    child = "import time, pathlib; time.sleep(1.5); pathlib.Path('late').touch()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    slow = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, start_new_session=True)
    assert wait(slow, 0.7) is None
    time.sleep(2)
    assert not (tmp_path / "late").exists()
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
    lines = table_lines(arrays | {"good|0": right, "bad|0": half, "bad|1": right}, intervals=True)
    assert len(lines) == 3 and lines[1].split()[:2] == ["good", "1"] and lines[2].split()[:2] == ["bad", "2"]
    assert "[" not in lines[1] and "   -" in lines[2]  # the first is what the others are compared with
