"""Two processes and gloo: the gradients of one, the records of one, one writer, one summary."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from conftest import Stages
from test_pseudo_label import table_of

from config import PretrainCommand, parse
from demo_data import FieldSeason
from loss import LOSS_KINDS
from runtime import processes
from ssl_mae import pretrain
from training.states import training_run

HERE = Path(__file__).parents[2]
TOGETHER = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
FORKING = ("tests/reliability/forking_torchrun.py", "2")  # the same, in a third of the time
STAGE = {
    "mae": ("ssl_mae.py", "--encoder.weights", "random", "--target", "teacher", "--augment.mixup", "0.3"),
    "finetune": (
        *("main.py", "--encoder.weights", "random", "--head.dropout", "0", "--train.ema", "0.9"),
        *(
            "--augment.mixup",
            "0.5",
            "--train.validate_every",
            "1",
            "--train.accumulate",
            "2",
            "--loss.kind",
            "soft_auc",
        ),
    ),
}


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RANK", "WORLD", "LOCAL_"))}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}


def words(stage: str, season: FieldSeason, root: Path, *more: str) -> list[str]:
    """A command line of a stage, three epochs of it."""
    shared = ("--preset", "demo", "--run.root", str(root), "--run.device", "cpu", "--data.root", str(season.root))
    return [
        *STAGE[stage],
        *shared,
        "--run.precision",
        "float32",
        "--data.cache",
        str(root / "cache"),
        "--train.epochs",
        "3",
        *more,
    ]


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=HERE, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def records(root: Path, stage: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / stage / "metrics.jsonl").read_text().splitlines()]


def agree(one: list[dict[str, Any]], other: list[dict[str, Any]], tolerance: float) -> bool:
    """Whether two runs went the same way, apart from rounding."""
    names = ("epoch", "loss", "held_out_mse", "skill", "cmap", "macro_auc")
    values = [[line[name] for line in lines for name in names if name in line] for lines in (one, other)]
    return values[0] == pytest.approx(values[1], abs=tolerance)


def few(season: FieldSeason) -> tuple[str, ...]:
    """What makes stage one short."""
    return ("--data.root", str(season.root / "unlabeled"), "--data.valid_fold", "1", "--train.epochs", "1")


@pytest.fixture(scope="module")
def together(season: FieldSeason, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Two processes, started once: what they say of each other, and then stage one; and what that printed."""
    root = tmp_path_factory.mktemp("two")
    stage, found = words("mae", season, root / "runs", *few(season)), str(root / "found.json")
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ.keys() - environment().keys():
            patch.delenv(name)
        done = forked.run(HERE, *FORKING, "tests/reliability/two_processes.py", found, *stage, early=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return root, done.stdout


@pytest.fixture(scope="module")
def found(together: tuple[Path, str]) -> dict[str, Any]:
    """What two processes say of each other."""
    told: dict[str, Any] = json.loads((together[0] / "found.json").read_text())
    return told


def test_every_process_hears_what_the_others_have(found: dict[str, Any]) -> None:
    told = found["told"]
    assert told["gathered"] == [0, 1, 2, 3, 4] and told["from one alone"] == [0, 1]
    assert told["steps"] == [False, True, True] and told["summed"] == [2, 1]
    assert told["first says"] == "runs/märz-001" and told["mean"] == pytest.approx([2 / 3])
    assert told["batches"] == 3 and told["keys"] == list(range(7))


def test_two_processes_have_the_gradients_of_one(found: dict[str, Any]) -> None:
    gaps = {name: gap for name, gap in found.items() if "rows" in name or "divided" in name}
    assert len(gaps) == 6 + len(LOSS_KINDS) - 1 + 2 + 5
    assert max(gaps.values()) < 1e-4, gaps
    assert found["each its own loss"] > 0.1  # negative control: a loss that looks at pairs is not a mean of two


def test_the_head_that_two_processes_fit_first_is_that_of_one(found: dict[str, Any]) -> None:
    told = found["head"]
    assert told["gap"] < 1e-4 and told["between processes"] == 0.0, told
    assert told["moved"] > 0.01  # negative control: it was fitted


def test_weights_in_parts_are_pulled_as_far_as_whole_ones(found: dict[str, Any]) -> None:
    told = found["pull"]
    assert told["gap"] < 1e-6, told
    assert told["moved"] == pytest.approx(0.1, abs=1e-4)  # negative control: it was pulled


def test_divided_states_come_together_and_apart_again(found: dict[str, Any]) -> None:
    assert found["states"] == {"same": True, "plain": True}


def test_parts_are_equal_and_leave_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for count in (1, 2, 3, 7):
        monkeypatch.setattr(processes, "count", lambda count=count: count)
        for rows in range(20):
            parts = [list(range(rows)[processes.span(rows, process)]) for process in range(count)]
            assert [row for part in parts for row in part] == list(range(rows))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_without_torchrun_nothing_is_exchanged() -> None:
    rows = torch.arange(3.0)
    assert processes.gathered(rows) is rows and processes.joined(rows, 3) is rows and not processes.anywhere(False)


def test_stage_one_with_torchrun_goes_the_way_of_one_process(
    season: FieldSeason, together: tuple[Path, str], tmp_path: Path
) -> None:
    one, (root, printed) = tmp_path / "one", together
    two = root / "runs"
    assert pretrain(parse(PretrainCommand, words("mae", season, one, *few(season))[1:])) == 0
    assert printed.count("skill_over_mean") == 1 and "2 processes share each batch" in printed
    assert len(records(two, "mae")) == 1 and agree(records(one, "mae"), records(two, "mae"), 2e-3)
    assert {path.name for path in two.iterdir()} == {"cache", "mae", "mae-001"}
    assert json.loads((two / "mae" / "run.json").read_text())["status"] == "finished"
    assert not list(two.rglob("*.part")) and (two / "mae" / "whisper" / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--imitation.reconstruction", "1")])
def test_an_imitation_with_torchrun_goes_the_way_of_one_process(
    more: tuple[str, ...], season: FieldSeason, stages: Stages, tmp_path: Path
) -> None:
    """The teacher is asked by two processes; what it answers is kept for the one after."""
    one, two = tmp_path / "one", tmp_path / "two"
    teacher = shutil.copyfile(stages.float_model, tmp_path / "teacher.onnx")
    taught = (*few(season), "--target", "embeddings", "--teacher", str(teacher), *more)
    printed = run(*TOGETHER, *words("mae", season, two, *taught, "--train.epochs", "2"))
    assert printed.count("skill") and "2 processes share each batch" in printed
    run(sys.executable, *words("mae", season, one, *taught, "--train.epochs", "2"))
    lines = records(two, "mae")
    assert len(lines) == 2 and agree(records(one, "mae"), lines, 2e-3)
    assert [line["cosine"] for line in lines] == pytest.approx(
        [line["cosine"] for line in records(one, "mae")], abs=2e-3
    )
    assert not list(two.rglob("*.part"))


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--train.shard",)])
def test_stage_two_with_torchrun_goes_the_way_of_one_process(
    more: tuple[str, ...], season: FieldSeason, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    run(sys.executable, *words("finetune", season, one))
    run(*TOGETHER, *words("finetune", season, two, *more))
    assert len(records(two, "finetune")) == 3 and agree(records(one, "finetune"), records(two, "finetune"), 2e-2)
    rows = [(root / "finetune" / "held_out_scores.csv").read_text().splitlines() for root in (one, two)]
    assert [row.split(",")[:3] for row in rows[0]] == [row.split(",")[:3] for row in rows[1]]


@pytest.mark.slow
def test_so_does_stage_two_with_pseudo_labels(season: FieldSeason, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    more = ("--data.pseudo", str(table_of(season, tmp_path / "pseudo")))
    run(sys.executable, *words("finetune", season, one, *more))
    run(*TOGETHER, *words("finetune", season, two, *more))
    plain = tmp_path / "plain"  # negative control
    run(sys.executable, *words("finetune", season, plain))
    assert len(records(two, "finetune")) == 3 and agree(records(one, "finetune"), records(two, "finetune"), 2e-2)
    assert not agree(records(plain, "finetune"), records(two, "finetune"), 2e-2)
    facts = [json.loads((root / "finetune" / "run.json").read_text()) for root in (one, two)]
    assert facts[0]["pseudo_labels"] == facts[1]["pseudo_labels"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "more"),
    [("mae", ("--train.shard",)), ("finetune", ())],
)
def test_a_run_of_two_processes_is_stopped_and_goes_on_with_one(
    stage: str, more: tuple[str, ...], season: FieldSeason, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(sys.executable, *words(stage, season, whole, *more))
    with subprocess.Popen(
        [*TOGETHER, *words(stage, season, cut, *more)], cwd=HERE, env=environment(), text=True, stderr=subprocess.PIPE
    ) as child:
        while not (cut / f"{stage}-001" / "metrics.jsonl").is_file():
            assert child.poll() is None, child.stderr
            time.sleep(0.1)
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=120)
    facts = json.loads((cut / f"{stage}-001" / "run.json").read_text())
    assert facts["status"] == "interrupted" and list((cut / f"{stage}-001" / "states").glob("state-*.pt"))
    assert not (cut / stage).exists()
    printed = run(sys.executable, *words(stage, season, cut, *more, "--run.resume", str(cut / f"{stage}-001")))
    assert re.search(r"going on in epoch [123]", printed)  # 1 where the signal met the first validation
    assert agree(records(whole, stage), records(cut, stage), 2e-2)


def test_a_batch_smaller_than_the_number_of_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "count", lambda: 16)
    config = parse(PretrainCommand, ["--preset", "demo", "--train.batch_size", "8"])
    with (
        pytest.raises(AssertionError, match="8 for 16 processes: give each a window or more"),
        training_run("mae", config, "random"),
    ):
        pass
