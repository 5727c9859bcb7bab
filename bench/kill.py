"""Killed at random moments, resumed, and held against a run that nobody killed: both training loops, the predictor.

    make bench-kill          (or: .venv/bin/python -m bench.kill [kills] [--without-random-states])

Writes   /tmp/wildwhisper/bench-kill/: two pretend species and 200 short recordings; prints a line for each of the three

Each attempt is a fork of this process, in a session of its own, that parses its own command line; SIGKILL takes its
workers with it. States are kept after nearly every step, and every second kill waits for the next save. Half of the
attempts read with two workers; pictures are left blank. With --without-random-states, the control, what is resumed ends
with other weights.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import soundfile
import torch
from matplotlib.figure import Figure
from onnx import TensorProto, helper

import data_loader
from archive import survey
from config import SCRATCH, FinetuneCommand, PredictCommand, PretrainCommand
from main import finetune
from predictor import predict
from runtime.digests import state_of
from runtime.terminal import launch
from serving.detections import Analysed, Scored
from serving.inputs import Entry
from serving.journal import Journal
from serving.scorer import FORMAT, METADATA
from ssl_mae import pretrain
from taxonomy import Taxonomy, to_json
from training import states
from training.states import StateWriter, TrainingProgress, digest_in_name, state_digest

Loop = Literal["mae", "finetune", "predict"]
LOOPS: tuple[Loop, ...] = ("mae", "finetune", "predict")
FOLDER, KILLS, SEED = SCRATCH / "bench-kill", 50, 0
RATE, RECORDINGS, PLANNED = 16_000, 200, 5  # kills of one run, at most
RESULT = {"mae": "encoder.safetensors", "finetune": "classifier.safetensors"}
TIMES = ("seconds", "windows_per_second", "memory_mb")
LONGEST = 300.0  # seconds that an attempt may take
PATIENCE = 10.0  # seconds that a kill waits for a save
BEGUN, SAVING, AGAIN, STEPS = 0, 1, 2, 3  # places in the memory shared with an attempt


@dataclass
class Tally:
    """What became of the attempts."""

    kills: int = 0
    within_a_save: int = 0
    resumes: int = 0
    damaged: int = 0  # states or parts that a kill left, with a digest that is not theirs
    done_twice: int = 0  # recordings scored again though they were done
    left_over: int = 0  # temporary files and states that a finished run left behind
    runs: int = 0
    begun_anew: int = 0  # runs of a training of which no kill left a state, so that nothing was resumed
    identical: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{field.name.replace('_', ' ')} {getattr(self, field.name)}" for field in fields(self))


def bench(kills: int, with_random_states: bool = True) -> None:
    """A line for each."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    survey.LEDGER = FOLDER / "examined.sqlite"
    write_sounds(FOLDER)
    for loop in LOOPS if with_random_states else LOOPS[:2]:
        started = time.time()
        tally = killed_and_resumed(loop, FOLDER, FOLDER / loop, kills, with_random_states)
        print(f"{loop}: {tally}; {time.time() - started:.0f} s", flush=True)
        same = tally.identical == tally.runs if with_random_states else tally.identical <= tally.begun_anew < tally.runs
        assert same and not tally.damaged and not tally.done_twice, f"{loop}: see {FOLDER / loop}"


def killed_and_resumed(
    loop: Loop,
    sounds: Path,
    root: Path,
    kills: int,
    with_random_states: bool = True,
    seed: int = SEED,
    aimed: bool = False,
) -> Tally:
    """Runs that are killed and resumed until there were so many kills, each held against one that was left alone.

    aimed    every kill waits for a save; else every second one
    """
    rng, tally = np.random.default_rng(seed), Tally()
    shared = mmap.mmap(-1, mmap.PAGESIZE)
    if not is_finished(loop, root / "whole"):
        attempt(loop, sounds, root / "whole", 0, shared, None)
    seconds, expected = float(facts_of(loop, root / "whole")["seconds"]), outcome(loop, root / "whole")
    while tally.kills < kills:
        name = f"run-{tally.runs}" if with_random_states else f"control-{tally.runs}"
        folder, planned = root / name, min(PLANNED, kills - tally.kills)
        finished, workers, kept = False, 0, False
        while not finished:
            moment = float(rng.uniform(0.02, 0.6 * seconds)) if planned else None
            within = aimed or tally.kills % 2 == 1
            killed = attempt(loop, sounds, folder, workers, shared, moment, with_random_states, within)
            finished, workers = is_finished(loop, folder), 2 - workers
            if killed:
                planned -= 1
                tally.kills += 1
                tally.resumes += 1
                tally.within_a_save += shared[SAVING]
                tally.damaged += damaged(folder)
                kept |= any(folder.rglob("state-*.pt"))
            else:
                assert finished, f"an attempt ended with 0 and is not finished: {folder / 'log.txt'}"
            tally.done_twice += shared[AGAIN]
        tally.runs += 1
        tally.begun_anew += loop != "predict" and not kept
        tally.left_over += left_over(folder)
        tally.identical += outcome(loop, folder) == expected
    return tally


def attempt(
    loop: Loop,
    sounds: Path,
    folder: Path,
    workers: int,
    shared: mmap.mmap,
    moment: float | None,
    with_random_states: bool = True,
    within: bool = False,
) -> bool:
    """Start a command, or go on with it; returns whether it was killed.

    moment   seconds after which it is killed, unless it has ended by then
    within   the next save, if there is one in time
    """
    folder.mkdir(parents=True, exist_ok=True)
    shared[:4] = bytes(4)
    child = os.fork()
    if not child:
        begin(loop, words(loop, sounds, folder, workers), folder / "log.txt", shared, with_random_states)
    while not shared[BEGUN]:
        time.sleep(0.001)
    time.sleep(moment or 0.0)
    if moment is not None:
        until = time.monotonic() + PATIENCE
        while within and not shared[SAVING] and time.monotonic() < until and not is_over(child):
            time.sleep(0.0002)
        time.sleep(moment % 0.005 if within else 0.0)
        os.killpg(child, signal.SIGKILL)
    status = awaited(child)
    if os.WIFSIGNALED(status):
        return True
    code = os.waitstatus_to_exitcode(status)
    assert code == 0, f"{loop} left with {code}: {(folder / 'log.txt').read_text(errors='replace')[-2_000:]}"
    return False


def is_over(child: int) -> bool:
    """Whether a child has ended; its status can still be asked for."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def awaited(child: int, seconds: float = LONGEST) -> int:
    """How a child ended, as `os.waitpid` tells it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.005)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"an attempt took longer than {seconds:.0f} s")


def begin(loop: Loop, arguments: Sequence[str], log: Path, shared: mmap.mmap, with_random_states: bool) -> None:
    """In the child: the command as from the command line; it never returns."""
    code = 70
    try:
        os.setsid()
        sys.stdout = sys.stderr = log.open("a", encoding="utf-8", buffering=1)
        torch.set_num_threads(1)
        often(shared)
        if not with_random_states:
            forget_random_states()
        sys.argv = [loop, *arguments]
        shared[BEGUN] = 1
        if loop == "mae":
            launch(pretrain, PretrainCommand)
        elif loop == "finetune":
            launch(finetune, FinetuneCommand)
        else:
            launch(predict, PredictCommand)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 70
    finally:
        os._exit(code)


def often(shared: mmap.mmap) -> None:
    """Keep the state at nearly every step; say in shared memory when a save is on, and when something is done twice.

    Methods are replaced in this process alone, a child that ends soon: mypy calls that an assignment to a method.
    """
    states.MOST_TIME = 1e9
    Figure.savefig = blank_picture  # type: ignore[method-assign, assignment]  # in this process alone
    data_loader.window_loader = partial(data_loader.window_loader, start_method="fork")
    keep_state: Callable[[StateWriter, TrainingProgress], Path] = StateWriter.save
    keep_part = Journal.save

    def marked_state(self: StateWriter, progress: TrainingProgress) -> Path:
        shared[SAVING] = 1
        path = keep_state(self, progress)
        shared[SAVING] = 0
        return path

    def marked_part(self: Journal, entry: Entry, analysed: Analysed, scored: Sequence[Scored]) -> None:
        shared[AGAIN] = shared[AGAIN] or self.is_done(entry)
        shared[SAVING] = 1
        keep_part(self, entry, analysed, scored)
        shared[SAVING] = 0

    save_if_due: Callable[[StateWriter, TrainingProgress], None] = StateWriter.save_if_due

    def counted(self: StateWriter, progress: TrainingProgress) -> None:
        shared[STEPS] += 1
        save_if_due(self, progress)

    StateWriter.save_if_due = counted  # type: ignore[method-assign]  # in this process alone
    StateWriter.save, Journal.save = marked_state, marked_part  # type: ignore[method-assign]  # in this process alone


def blank_picture(_figure: Figure, path: Path, **_: object) -> None:
    """Two thirds of the time of such a small run would go into pictures."""
    path.write_bytes(b"")


def forget_random_states() -> None:
    """The control: what is resumed has everything but the states of its random numbers (replaced as in `often`)."""
    restore: Callable[[StateWriter], TrainingProgress] = StateWriter.restore

    def restored(self: StateWriter) -> TrainingProgress:
        ours, everyones = self.generator.get_state(), torch.get_rng_state()
        progress = restore(self)
        self.generator.set_state(ours)
        torch.set_rng_state(everyones)
        return progress

    StateWriter.restore = restored  # type: ignore[method-assign]  # in this process alone


def words(loop: Loop, sounds: Path, folder: Path, workers: int) -> list[str]:
    """The command line; where there is a run to go on with, it says so."""
    if loop == "predict":
        told = [str(sounds / "archive"), "--model", str(sounds / "toy.onnx"), "--out", str(folder / "results")]
        return [*told, "--runs", str(folder / "runs"), "--threads", "1", "--scores", "--rtype", "csv", "table"]
    told = ["--preset", "demo", "--data.root", str(sounds / "species"), "--data.folds", "2", "--data.cache_gb", "0"]
    told += ["--encoder.weights", "random", "--train.epochs", "2", "--train.batch_size", "2", "--run.device", "cpu"]
    told += ["--run.threads", "1", "--run.save_minutes", "0", "--run.root", str(folder / "runs")]
    told += ["--data.workers", str(workers), "--encoder.depth", "1"]
    if loop == "mae":
        told += ["--target", "teacher"]
    else:
        told += ["--head.dropout", "0.1", "--augment.mixup", "0.5", "--train.ema", "0.9", "--train.choose", "last"]
    run = newest(loop, folder)
    return [*told, "--run.resume", str(run)] if run else told


def newest(loop: Loop, folder: Path) -> Path | None:
    """The folder of the run that was begun last; one that was killed before it said what it is does not count."""
    found = sorted((folder / "runs").glob(f"{loop}-*/run.json"))
    return found[-1].parent if found else None


def is_finished(loop: Loop, folder: Path) -> bool:
    return bool(facts_of(loop, folder).get("status") == "finished")


def facts_of(loop: Loop, folder: Path) -> dict[str, Any]:
    """run.json of the run that was begun last; nothing where there is none."""
    run = folder / "results" if loop == "predict" else newest(loop, folder)
    if run is None or not (run / "run.json").is_file():
        return {}
    facts: dict[str, Any] = json.loads((run / "run.json").read_text(encoding="utf-8"))
    return facts


def outcome(loop: Loop, folder: Path) -> dict[str, Any]:
    """What a run left behind, without what a clock says and what differs by the name of the run."""
    if loop == "predict":
        files = [path for path in (folder / "results").rglob("*") if path.is_file() and ".parts" not in path.parts]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name != "run.json"}
    run = newest(loop, folder)
    assert run is not None, f"no run in {folder}"
    content = (run / RESULT[loop]).read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    facts = json.loads(json.loads(content[8:start])["__metadata__"]["wild_whisper"])
    facts["provenance"].pop("run")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    records = [{name: value for name, value in line.items() if name not in TIMES} for line in lines]
    return {"weights": content[start:], "facts": facts, "records": records}


def damaged(folder: Path) -> int:
    """Files with a digest that is not theirs."""
    kept = [path for path in folder.rglob("state-*.pt") if digest_in_name(path)]
    parts = [path for path in folder.rglob("*.json") if path.parent.parent.name == ".parts"]
    return sum(state_digest(path) != digest_in_name(path) for path in kept) + sum(
        state_of(path) != "sound" for path in parts
    )


def left_over(folder: Path) -> int:
    return sum(path.name.endswith(".part") or path.name.startswith("state-") for path in folder.rglob("*"))


def write_sounds(folder: Path, recordings: int = RECORDINGS) -> None:
    """species/: two, of eight recordings each; archive/: recordings of a window each; toy.onnx: hears how loud."""
    rng = np.random.default_rng(0)
    for number in range(16):
        path = folder / "species" / ("Rana ficta", "Parus fictus")[number % 2] / f"{number:02}.wav"
        write_sound(path, rng, 1_000.0 + 3_000.0 * (number % 2))
    for number in range(recordings):
        write_sound(folder / "archive" / f"{number:03}.wav", rng, 500.0 + 30.0 * number)
    write_toy(folder / "toy.onnx")


def write_sound(path: Path, rng: np.random.Generator, hertz: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = np.sin(2 * np.pi * hertz * np.arange(5 * RATE) / RATE)
    soundfile.write(path, rng.uniform(0.05, 0.5) * tone + rng.normal(0, 0.01, 5 * RATE), RATE)


def write_toy(path: Path) -> None:
    """A model of one species, which is present as far as it is loud."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceL1", ["waveforms"], ["sum"], axes=[1]),
            helper.make_node("Mul", ["sum", "share"], ["loudness"]),
            helper.make_node("Tanh", ["loudness"], ["probabilities"]),
        ],
        "loudness",
        [helper.make_tensor_value_info("waveforms", TensorProto.FLOAT, ["batch", 5 * RATE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor("share", TensorProto.FLOAT, [1], [4.0 / (5 * RATE)])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    one = Taxonomy(("noise1",), ("Sonus clarus",), ("pretend noise",), (("a", "b", "c", "d", "e", "f", "g"),), (7,))
    facts = {"format": FORMAT, "audio": {}, "taxonomy": to_json(one), "precision": "float32", "verified": True}
    helper.set_model_props(model, {METADATA: json.dumps(facts)})
    onnx.save(model, path)


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word.isdecimal()]
    bench(numbers[0] if numbers else KILLS, "--without-random-states" not in sys.argv)
