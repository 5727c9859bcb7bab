"""A training loop's whole state, kept now and then and when it has to stop, so that it goes on as if nothing was.

    writer = StateWriter(run.folder / "states", {"model": model, "optimizer": optimizer}, generator, minutes=10)
    progress = writer.restore()
    with writer.listening(progress):               # signals wait until the state can be kept
        for step in range(progress.step, steps): ...
            writer.save_if_due(progress)
        with writer.guarding(progress): ...        # what takes long and teaches nothing: they do not wait

Weights, optimiser, schedule, running means, every random state and the loop's own counters go into one file, whose name
holds a digest of its content: a file that was cut off or has a flipped bit is passed over for the one before it. With
sampling that depends on seed and step alone, what follows is bit-identical on the same CPU, threads and versions.
"""

from __future__ import annotations

import copy
import math
import re
import signal
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, cast

import torch
from torch import nn

from config import FinetuneCommand, PretrainCommand
from runtime import processes
from runtime.digests import sha256
from runtime.files import FIRST, place_of, publish, read_json
from runtime.runs import Run, add_facts, open_run
from runtime.terminal import interrupt, show
from system import sync
from training.optim import cosine_schedule, update

MOST_SPOILED = 10  # updates that may be thrown away in a row
KEPT = 2  # states: the newest, and one to fall back on
MOST_TIME = 0.05  # share of the time that keeping may take
PATIENCE = 10.0  # seconds in which a step should end; only then does a second signal end it
STATE = frozenset({"progress", "data", "parts", "generator", "torch", "cuda"})
NAME = re.compile(r"state-(\d{9}|\d{15})-([0-9a-f]{16})\.pt")  # nine digits: of an earlier version


class Stateful(Protocol):
    """Anything with a state: networks, optimisers, schedules."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object: ...


@dataclass
class TrainingProgress:
    """How far a loop has come."""

    epoch: int = 1
    step: int = 0  # batches of this epoch that are done
    moved: int = 0  # updates of the weights so far
    records: int = 0  # lines of metrics.jsonl so far
    losses: list[float] = field(default_factory=list[float])  # of this epoch
    pending: list[torch.Tensor] = field(default_factory=list[torch.Tensor])  # losses that are still on the device
    spoiled: int = 0  # updates thrown away in a row
    best: float = float("-inf")
    best_epoch: int = 0

    def fetch(self) -> None:
        """Losses that are still on the device become numbers: asked for in every step, a GPU would stand still in each.

        Of several processes the mean counts; all of them must ask together.
        """
        if self.pending:
            own = [float(loss) for loss in torch.stack(self.pending).cpu()]
            values = processes.summed(*own)
            self.losses += [value / processes.count() for value in values]
            self.pending = []

    def next_epoch(self) -> None:
        """What was recorded of this one is a line of metrics.jsonl."""
        self.epoch, self.step, self.losses, self.records = self.epoch + 1, 0, [], self.records + 1

    def watch(self, norm: float, names: Callable[[], list[str]]) -> None:
        """Say which recordings gave a gradient that is not finite; stop when many do in a row.

        norm     of the gradient; nan where the update was thrown away
        names    of the recordings in the batch
        """
        self.spoiled = self.spoiled + 1 if math.isnan(norm) else 0
        if self.spoiled:
            show(
                f"epoch {self.epoch}, step {self.step}: no finite gradient, left out; recordings: {', '.join(names())}"
            )
        assert self.spoiled < MOST_SPOILED, (
            f"{MOST_SPOILED} steps in a row without a finite gradient; lower --train.encoder_rate and --train.head_rate"
        )


class StateWriter:
    """Saves the state of a loop, and puts it back.

    folder   for the states
    parts    all that has a state of its own, by name
    minutes  between two states; longer where keeping would take more than a twentieth of the time
    data     what is learnt from and judged by, in a word: a state of a loop over others is refused
    """

    def __init__(
        self,
        folder: Path,
        parts: Mapping[str, Stateful],
        generator: torch.Generator,
        minutes: float = 1.0,
        data: str = "",
    ) -> None:
        self.folder, self.parts, self.generator, self.minutes, self.data = folder, parts, generator, minutes, data
        self.kept, self.took = time.monotonic(), 0.0
        self.stop_asked = 0.0  # when the signal to stop came
        self.at_once = False  # whether it need not wait

    @contextmanager
    def listening(self, progress: TrainingProgress) -> Generator[None]:
        """The whole of a loop: a signal to stop waits until the state can be kept; after a while a second one does not.

        Wherever the signal comes, no step is lost: between two epochs and while a state is being written too.
        """
        before = {number: signal.signal(number, self.note_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
            if processes.anywhere(self.stop_asked > 0):  # since the last step
                self.save(progress)
                interrupt()
        except KeyboardInterrupt:
            if self.at_once and processes.count() == 1:  # on the way into `guarding`, or out of it
                self.save(progress)
            raise
        finally:
            self.at_once = False
            for number, handler in before.items():
                if not self.stop_asked:
                    signal.signal(number, handler)
        if self.stop_asked:  # since they were asked
            if processes.count() == 1:  # others do not come along
                self.save(progress)
            interrupt()

    def note_signal(self, _signal: int, _frame: FrameType | None) -> None:
        """A signal to stop."""
        first, self.stop_asked = not self.stop_asked, self.stop_asked or time.monotonic()
        if self.at_once or time.monotonic() - self.stop_asked > PATIENCE:
            interrupt()
        if first and FIRST:
            show("\nstopping as soon as this step is done and its state is kept", error=True)

    @contextmanager
    def guarding(self, progress: TrainingProgress) -> Generator[None]:
        """While this lasts nothing is learnt, and a signal to stop does not wait: the state as it was is kept then."""
        before, many = copy.deepcopy(progress), processes.count() > 1
        if many:  # a later signal would find them in the midst of an exchange
            self.save(before)
        try:
            self.at_once = True
            if processes.anywhere(self.stop_asked > 0):  # since the last step
                interrupt()
            yield
        except KeyboardInterrupt:
            self.at_once = False
            if not many:
                self.save(before)
            raise
        finally:
            self.at_once = False

    def save_if_due(self, progress: TrainingProgress) -> None:
        """Keep the state where it is time to, or where a signal to stop has come, which it then does."""
        waited = time.monotonic() - self.kept
        due = processes.rank() == 0 and waited > max(60 * self.minutes, self.took / MOST_TIME)
        stop, due_now = processes.summed(float(self.stop_asked > 0), float(due))  # all of them, in the same step
        if stop or due_now:
            self.save(progress)
        if stop:
            interrupt()

    def save(self, progress: TrainingProgress) -> Path:
        """Write a state, read it back, and only then let go of older ones."""
        started = time.monotonic()
        progress.fetch()
        cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
        state: dict[str, Any] = {
            "progress": asdict(progress),
            "data": self.data,
            "parts": {name: processes.whole(part.state_dict()) for name, part in self.parts.items()},
            "generator": self.generator.get_state(),
            "torch": list(processes.gathered(torch.get_rng_state()[None])),  # of each process
            "cuda": [one for own in cuda for one in processes.gathered(own[None])],
        }
        if not FIRST:
            self.kept, self.took = time.monotonic(), time.monotonic() - started
            return self.folder
        self.folder.mkdir(exist_ok=True)
        plain = self.folder / f"state-{self.number(progress):015}.pt"
        as_before = max((old.stat().st_size for old in self.states()), default=0)
        with publish(plain, as_before) as temporary, temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
        path = plain.with_name(f"{plain.stem}-{state_digest(plain)}.pt")
        plain.replace(path)
        sync(self.folder)  # before anything older goes
        for old in [*self.states()[KEPT:], *(other for other in self.folder.glob("state-*.pt") if not is_state(other))]:
            old.unlink()
        self.kept, self.took = time.monotonic(), time.monotonic() - started
        return path

    def restore(self) -> TrainingProgress:
        """Put everything back as the newest sound state has it; the beginning where none was ever kept."""
        states = self.states()
        processes.wait()  # for what all see, before one of them removes any
        for number, path in enumerate(states):
            if state_digest(path) != digest_in_name(path):
                show(f"{path} is damaged; taking the state before it")
                continue
            state = load_state(path)
            assert state["data"] == self.data, (
                "the recordings are not those that this run began with, or their split or species are others; give it "
                "those, or start a new run"
            )
            progress = self.put_back(state, path)
            show(f"going on in epoch {progress.epoch} after {progress.step} steps")
            for damaged in states[:number]:  # or it would be taken for a newer one
                damaged.unlink(missing_ok=True)
            return progress
        assert not states, f"no state in {self.folder} is sound; start again without --run.resume"
        return TrainingProgress()

    def put_back(self, state: Mapping[str, Any], path: Path) -> TrainingProgress:
        """Weights, optimiser, schedule, random states and counters as they were."""
        try:
            for name, part in self.parts.items():
                processes.fill(part, state["parts"][name])
            self.generator.set_state(state["generator"])
            rank = processes.rank()
            if rank < len(state["torch"]):  # with more processes than before the new ones draw as they began
                torch.set_rng_state(state["torch"][rank])
            if rank < len(state["cuda"]) and torch.cuda.is_available():
                torch.cuda.set_rng_state(state["cuda"][rank])
            return TrainingProgress(**state["progress"])
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:  # another program's
            said = str(error).split("\n")[0][:200]
            raise AssertionError(f"{path} is no state of this loop ({said}); start a new run") from error

    def states(self) -> list[Path]:
        """The states in the folder, the newest first."""
        found = (path for path in self.folder.glob("state-*.pt") if is_state(path))
        return sorted(found, key=lambda path: (len(path.name), path.name), reverse=True)

    def number(self, progress: TrainingProgress) -> int:
        """Of a state, higher for a later one."""
        return progress.epoch * 10**9 + min(progress.step, 10**9 - 1)


@contextmanager
def training_run(name: str, config: PretrainCommand | FinetuneCommand, weights: str) -> Generator[Run]:
    """The run of a training command, opened by the first process and known to all.

    weights   the encoder that it begins with, as `begun_with` has it where it is gone on with
    """
    assert config.train.batch_size >= processes.count(), (
        f"--train.batch_size {config.train.batch_size} for {processes.count()} processes: give each a window or more"
    )
    opened = open_run(name, config.run.root, config, resume=config.run.resume, tracker=config.run.tracker)
    with opened if FIRST else nullcontext(Run(Path(), time.time(), {})) as run:
        if place := place_of_weights(weights):
            add_facts(run, weights=place)
        folder = Path(processes.first_says(str(run.folder)))
        yield run if FIRST else Run(folder, run.started, run.facts)  # which records nothing


def place_of_weights(weights: str) -> str:
    """Where the file or folder of an encoder lies, by no link that the next run of stage 1 moves; nothing of what is no
    file of one's own."""
    path = Path(weights)
    return str(place_of(path)) if weights not in ("random", "hub") and path.exists() else ""


def begun_with(run: Path, config: PretrainCommand | FinetuneCommand) -> str:
    """The encoder that a run with these settings began with: runs/mae leads to another one once stage 1 has been run
    again."""
    known, weights = read_json(run / "run.json", "start a new run").get("weights", ""), config.encoder.weights
    if not isinstance(known, str) or known in ("", place_of_weights(weights)):
        return weights
    assert Path(known).exists(), (
        f"{known}, which {run.name} was begun with, is gone, and {weights} is another encoder; start a new run"
    )
    return known


def load_state(path: Path) -> dict[str, Any]:
    """Plain types and tensors, none of them larger than the file: a digest only says that it is the file it names.

    Errors: anything else, as another program might write it, is refused in one line.
    """
    try:
        loaded: object = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zipfile and torch share no narrower type
        raise AssertionError(
            f"{path} is no state of this program ({type(error).__name__}); start again without --run.resume"
        ) from None
    state = cast(dict[str, Any], loaded) if isinstance(loaded, dict) else dict[str, Any]()
    lacking = STATE - state.keys()
    assert not lacking, f"{path} lacks {', '.join(sorted(lacking))}; start again without --run.resume"
    size = path.stat().st_size
    largest = max((tensor.numel() * tensor.element_size() for tensor in tensors_in(state)), default=0)
    assert largest <= size, f"{path} has {size} bytes and a tensor of {largest}; start again without --run.resume"
    return state


def tensors_in(state: object) -> list[torch.Tensor]:
    """All tensors, however deep."""
    if isinstance(state, torch.Tensor):
        return [state]
    inner: list[Any] = list(cast(dict[object, object], state).values()) if isinstance(state, dict) else []
    inner += list(cast(list[Any], state)) if isinstance(state, list | tuple) else []
    return [tensor for part in inner for tensor in tensors_in(part)]


def forget(folder: Path) -> None:
    """The loop is done and its result is published: states are needed no more."""
    if not FIRST:
        return
    for path in folder.glob("state-*.pt"):
        path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def is_state(path: Path) -> bool:
    return NAME.fullmatch(path.name) is not None


def digest_in_name(path: Path) -> str:
    found = NAME.fullmatch(path.name)
    return found[2] if found else ""


def state_digest(path: Path) -> str:
    """The digest in the name of a state: the first quarter of the file's sha256."""
    return sha256(path)[:16]


if __name__ == "__main__":

    def loop(folder: Path, stop_after: int) -> list[float]:
        """Ten noisy steps, cut off after some of them."""
        torch.manual_seed(0)
        model, generator = nn.Linear(3, 1), torch.Generator().manual_seed(0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        schedule = cosine_schedule(optimizer, steps=10, warmup=0.1)
        writer = StateWriter(folder, {"model": model, "optimizer": optimizer, "schedule": schedule}, generator)
        progress = writer.restore()
        for step in range(progress.step + 1, min(10, stop_after) + 1):
            loss = nn.functional.dropout(model(torch.randn(8, 3, generator=generator))).square().mean()
            update(loss, model.parameters(), optimizer, schedule, clip=1.0)
            progress.step = step
            progress.pending.append(loss.detach())
            writer.save(progress)
        return progress.losses

    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        whole = loop(Path(one), 10)
        loop(Path(two), 4)
        newest = max(Path(two).iterdir())
        content = bytearray(newest.read_bytes())
        content[len(content) // 2] ^= 1
        newest.write_bytes(content)
        resumed = loop(Path(two), 10)
    print("cut off, damaged and resumed:", [round(loss, 4) for loss in resumed])
    assert resumed == whole, "not a bit of difference"
