"""What a run records, for TensorBoard or Weights & Biases too; nothing of either is imported unless it is asked for.

    require("tensorboard")                                  # before the run: one line where it is not installed
    track("tensorboard", run.folder, 3, {"loss": 0.31})     # of epoch 3
    end_tracking()

Writes   tensorboard/ or wandb/ in the run's folder, beside metrics.jsonl, which stays what a run goes on from

A run that goes on continues its curves: what was tracked of epochs that it does again is purged by the first of them.
Weights & Biases gets numbers alone, and sends nothing: it is offline unless WANDB_MODE says otherwise.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from config import TrackerKind

Value = float | int | str | None
NUMBERS_ALONE: dict[str, Any] = {  # of wandb's settings: else the terminal's text, paths, names and packages go along
    "console": "off",
    "silent": True,
    "host": "",
    "x_save_requirements": False,
    **dict.fromkeys(("disable_code", "disable_git", "disable_job_creation", "x_disable_meta"), True),
    **dict.fromkeys(("x_disable_stats", "x_disable_machine_info"), True),
}
OPEN = dict[Path, "Writer"]()  # of the runs of this process, by their folder


class Writer(NamedTuple):
    """A tracker of one run."""

    write: Callable[[int, Mapping[str, float]], None]  # the values of an epoch
    close: Callable[[], None]


def require(kind: TrackerKind) -> None:
    """Refuse a tracker that is not installed, in one line."""
    assert kind == "none" or find_spec(kind), (
        f"--run.tracker {kind}: {kind} is not installed here; `pip install -r requirements-trackers.txt`, or leave the "
        "flag out: metrics.jsonl and curves.png are written anyway"
    )


def track(kind: TrackerKind, folder: Path, epoch: int, values: Mapping[str, Value]) -> None:
    """Show what was recorded of an epoch, its numbers."""
    if kind == "none":
        return
    if folder not in OPEN:
        OPEN[folder] = tensorboard_writer(folder, epoch) if kind == "tensorboard" else wandb_writer(folder)
    numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
    OPEN[folder].write(epoch, numbers)


def end_tracking() -> None:
    """Close what this process has open."""
    while OPEN:
        OPEN.popitem()[1].close()


def tensorboard_writer(folder: Path, epoch: int) -> Writer:
    """Event files; those of epochs from this one on, which an earlier start of the run left, are purged."""
    from torch.utils.tensorboard import SummaryWriter

    events = SummaryWriter(str(folder / "tensorboard"), purge_step=epoch)

    def write(step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            events.add_scalar(name, value, step)
        events.flush()

    return Writer(write, events.close)


def wandb_writer(folder: Path) -> Writer:
    """A run of Weights & Biases, the same one whenever the run goes on."""
    os.environ.setdefault("WANDB_MODE", "offline")
    import wandb

    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
    run = wandb.init(
        project="wild-whisper", name=folder.name, id=name, dir=str(folder), resume="allow", settings=NUMBERS_ALONE
    )

    def write(step: int, numbers: Mapping[str, float]) -> None:
        run.log(dict(numbers), step=step)

    return Writer(write, run.finish)


if __name__ == "__main__":
    seen = list[tuple[int, dict[str, float]]]()

    def remember(step: int, numbers: Mapping[str, float]) -> None:
        seen.append((step, dict(numbers)))

    with tempfile.TemporaryDirectory() as folder:
        OPEN[Path(folder)] = Writer(remember, lambda: print("closed"))
        track("tensorboard", Path(folder), 1, {"epoch": 1, "loss": 0.5, "note": "too few", "auc": None})
        track("none", Path(folder), 2, {"loss": 0.4})
        end_tracking()
    print(seen)
    assert seen == [(1, {"epoch": 1.0, "loss": 0.5})] and not OPEN
