"""What is recorded is tracked too, epoch by epoch, over resumptions; nothing is imported for whoever did not ask."""

import os
import subprocess
import sys
import types
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from runtime import trackers
from runtime.runs import keep_records, open_run, read_records, record, subfolder
from runtime.trackers import end_tracking, require, track

HERE = Path(__file__).parents[2]
needs_tensorboard = pytest.mark.skipif(
    not find_spec("tensorboard"), reason="tensorboard is not installed: pip install -r requirements-trackers.txt"
)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    end_tracking()


class PretendRun:
    """A run of wandb's that remembers."""

    def __init__(self, **given: object) -> None:
        self.given, self.logged, self.ended = given, list[tuple[int, dict[str, float]]](), False

    def log(self, data: dict[str, float], step: int) -> None:
        self.logged.append((step, data))

    def finish(self) -> None:
        self.ended = True


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> list[PretendRun]:
    """In place of the library: the runs that were begun."""
    begun, module = list[PretendRun](), types.ModuleType("wandb")

    def init(**given: object) -> PretendRun:
        begun.append(PretendRun(**given))
        return begun[-1]

    module.init = init  # type: ignore[attr-defined]
    module.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setenv("WANDB_MODE", "online")  # so that whatever a test leaves is taken back
    monkeypatch.delenv("WANDB_MODE")
    return begun


def test_a_run_is_tracked_offline_and_goes_on_as_the_same_one(wandb: list[PretendRun], tmp_path: Path) -> None:
    for epochs in ((1, 2), (3,)):
        with open_run("demo", tmp_path, {}, folder=tmp_path / "run", tracker="wandb") as run:
            for epoch in epochs:
                record(run, epoch=epoch, loss=1 / epoch, remark="few", auc=None)
    first, second = wandb
    assert first.logged == [(1, {"epoch": 1.0, "loss": 1.0}), (2, {"epoch": 2.0, "loss": 0.5})]
    assert [step for step, _ in second.logged] == [3] and first.ended and second.ended
    assert first.given == second.given and set(first.given) == {"project", "name", "id", "dir", "resume", "settings"}
    assert (first.given["resume"], first.given["dir"]) == ("allow", str(tmp_path / "run"))
    assert os.environ["WANDB_MODE"] == "offline"
    assert len(read_records(tmp_path / "run")) == 3  # our own file has all, as ever


def test_whoever_chose_a_mode_of_wandb_keeps_it(
    wandb: list[PretendRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    track("wandb", tmp_path, 1, {"loss": 1.0})
    assert os.environ["WANDB_MODE"] == "online" and len(wandb) == 1


def test_a_run_that_fails_is_closed_too(wandb: list[PretendRun], tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_run("demo", tmp_path, {}, tracker="wandb") as run:
        record(run, epoch=1, loss=1.0)
        raise ZeroDivisionError
    assert wandb[0].ended and not trackers.OPEN


def test_a_tracker_that_is_not_installed_is_a_line_before_anything_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", dict[str, None]().get)
    with (
        pytest.raises(AssertionError, match=r"`pip install -r requirements-trackers\.txt`") as refusal,
        open_run("demo", tmp_path, {}, tracker="tensorboard"),
    ):
        pytest.fail("began")
    assert "\n" not in str(refusal.value) and list(tmp_path.iterdir()) == []
    require("none")  # negative control


def test_nothing_is_imported_for_whoever_did_not_ask(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from runtime.runs import open_run, record\n"
        "with open_run('demo', Path(sys.argv[1]), {}) as run: record(run, epoch=1, loss=1.0)\n"
        "print([name for name in ('torch', 'tensorboard', 'wandb') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], cwd=HERE, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@needs_tensorboard
def test_a_run_that_goes_on_continues_its_curves(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "run"
    for kept, epochs, loss in ((0, (1, 2, 3), 1.0), (2, (3, 4), 0.5)):  # stopped in 4, the state was of epoch 2
        with open_run("demo", tmp_path, {}, folder=folder, tracker="tensorboard") as run:
            keep_records(folder, kept)
            for epoch in epochs:
                record(run, epoch=epoch, loss=loss / epoch, remark="few")
    seen = EventAccumulator(str(folder / "tensorboard"))
    seen.Reload()
    assert set(seen.Tags()["scalars"]) == {"epoch", "loss"}
    given = {event.step: event.value for event in seen.Scalars("loss")}
    assert given == pytest.approx({1: 1.0, 2: 0.5, 3: 0.5 / 3, 4: 0.125})  # epoch 3 is that of the second time
    assert [event.step for event in seen.Scalars("loss")] == [1, 2, 3, 4]
    assert [line["epoch"] for line in read_records(folder)] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["mae", "finetune"])
def test_the_flag_of_both_trainings_reaches_what_they_record(
    name: str, wandb: list[PretendRun], tmp_path: Path
) -> None:
    from config import FinetuneCommand, PretrainCommand, parse
    from training.states import training_run

    words = ["--preset", "demo", "--run.root", str(tmp_path), "--run.tracker", "wandb"]
    config = parse(PretrainCommand, words) if name == "mae" else parse(FinetuneCommand, words)
    with training_run(name, config, "random") as run:
        record(run, epoch=7, loss=1.0)
        record(subfolder(run, "fold-1"), epoch=8, loss=2.0)
    assert [[step for step, _ in one.logged] for one in wandb] == [[7], [8]]


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("wandb"), reason="wandb is not installed: pip install -r requirements-trackers.txt")
def test_wandb_itself_writes_numbers_and_nothing_of_this_machine(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from runtime.runs import open_run, record\n"
        "folder = Path(sys.argv[1])\n"
        "with open_run('demo', folder.parent, {}, folder=folder, tracker='wandb') as run:\n"
        "    record(run, epoch=int(sys.argv[2]), loss=0.25, remark='of the pond')"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    for epoch in ("1", "2"):
        words = [sys.executable, "-c", program, str(tmp_path / "run"), epoch]
        done = subprocess.run(
            words, cwd=HERE, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0 and "wandb:" not in done.stdout + done.stderr, done.stderr
    kept = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(kept) == 2 and kept[0].name == kept[1].name  # two parts of one run
    content = b"".join(path.read_bytes() for path in kept)
    assert b"loss" in content and b"of the pond" not in content
    for private in (str(tmp_path), sys.executable, os.uname().nodename + '"', "onnxruntime=="):
        assert private.encode() not in content, private
    assert not list((tmp_path / "run" / "wandb").rglob("requirements.txt"))
