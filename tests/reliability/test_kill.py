"""Killed with SIGKILL and resumed: the same files as a run that nobody killed; bench/kill.py in small."""

import mmap
import os
import pkgutil
import re
import signal
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import file_system

from bench.kill import (
    BEGUN,
    KILLS,
    LOOPS,
    STEPS,
    Loop,
    Tally,
    attempt,
    awaited,
    begin,
    facts_of,
    is_finished,
    killed_and_resumed,
    left_over,
    outcome,
    words,
    write_sounds,
)

Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    write_sounds(folder, recordings=25)
    return folder


def told(loop: Loop, tally: Tally) -> str:
    return (
        f"{loop}: {tally.kills} kills, {tally.within_a_save} of them within a save: {tally.identical} of {tally.runs} "
        f"runs end identical, {tally.damaged} files damaged, {tally.done_twice} things done twice"
    )


@pytest.mark.parametrize("loop", LOOPS)
def test_what_is_killed_and_resumed_ends_as_if_nobody_had_killed_it(
    loop: Loop, sounds: Path, record_property: Record
) -> None:
    tally = killed_and_resumed(loop, sounds, sounds / loop, kills=2)
    record_property("R3" if loop == "predict" else "R4", told(loop, tally))
    assert tally.kills == 2 and tally.identical == tally.runs == 1
    assert not tally.damaged and not tally.done_twice and not tally.left_over


def test_without_its_random_states_a_resumed_run_ends_with_other_weights(sounds: Path) -> None:
    """Negative control: the comparison has teeth. Several kills of two runs: on a busy machine all of one run may fall
    before there is anything to resume."""
    tally = killed_and_resumed("finetune", sounds, sounds / "finetune", 8, with_random_states=False, aimed=True)
    assert tally.kills == 8 and tally.begun_anew < tally.runs
    assert tally.identical <= tally.begun_anew, "a run that was resumed ended with the same weights"


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_fifty_kills_change_nothing(loop: Loop, tmp_path: Path, record_property: Record) -> None:
    write_sounds(tmp_path)
    tally = killed_and_resumed(loop, tmp_path, tmp_path / loop, KILLS)
    record_property("R3" if loop == "predict" else "R4", told(loop, tally))
    assert tally.kills == KILLS and tally.identical == tally.runs and tally.within_a_save > 0
    assert not tally.damaged and not tally.done_twice and not tally.left_over


def stopped(
    loop: Loop,
    sounds: Path,
    folder: Path,
    moment: float = 0.0,
    number: int = signal.SIGTERM,
    times: int = 0,
    at: tuple[str, int] | None = None,
) -> tuple[int, float, int]:
    """Tell a command to stop, once or twice; returns its exit code, the seconds that took, the steps it had done.

    Its state is not due for an hour: what is there afterwards was kept because of the signal.

    at   a function, by name, and which of its calls: the command is told when it makes that one
    """
    folder.mkdir(parents=True, exist_ok=True)
    shared = mmap.mmap(-1, mmap.PAGESIZE)
    child = os.fork()
    if not child:
        told = [word if before != "--run.save_minutes" else "60" for before, word in pairs(loop, sounds, folder)]
        if at:
            tell_at(*at)
        begin(loop, told, folder / "log.txt", shared, True)
    while not shared[BEGUN]:
        time.sleep(0.001)
    time.sleep(moment)
    sent = time.monotonic()
    for _ in range(times):
        os.kill(child, number)
        time.sleep(0.02)
    return os.waitstatus_to_exitcode(awaited(child, 60)), time.monotonic() - sent, shared[STEPS]


def whole(loop: Loop, sounds: Path, root: Path) -> Path:
    """A run that nobody stops."""
    if not is_finished(loop, root / "whole"):
        attempt(loop, sounds, root / "whole", 0, mmap.mmap(-1, mmap.PAGESIZE), None)
    return root / "whole"


def tell_at(name: str, time: int) -> None:
    """In the child: the signal comes when a function is called for the last of so many times."""
    real, calls = pkgutil.resolve_name(name), 0

    def telling(*words: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == time:
            signal.raise_signal(signal.SIGTERM)  # in this thread: it is told now, not soon
        return real(*words, **named)

    owner, _, attribute = name.rpartition(".")
    setattr(pkgutil.resolve_name(owner), attribute, telling)


def gone_on(folder: Path) -> int:
    """The steps after which a run went on, by what it said when it was resumed last."""
    found = re.findall(r"going on in epoch (\d+) after (\d+) steps", (folder / "log.txt").read_text())
    return 4 * (int(found[-1][0]) - 1) + int(found[-1][1]) if found else 0


def pairs(loop: Loop, sounds: Path, folder: Path) -> list[tuple[str, str]]:
    told = words(loop, sounds, folder, 0)
    return list(zip(["", *told], told, strict=False))


def stop_and_go_on(loop: Loop, sounds: Path, root: Path, moments: int, seed: int) -> str:
    """Runs that are told to stop at random moments and resumed; what is to be said about them."""
    expected = outcome(loop, whole(loop, sounds, root))
    rng, slowest, lost, twice, stops = np.random.default_rng(seed), 0.0, 0, 0, 0
    seconds = float(facts_of(loop, root / "whole")["seconds"])
    for run in range(moments):
        folder, times = root / f"stopped-{run}", 1 + run % 2
        moment = 0.3 + float(rng.uniform(0, 0.9)) * seconds
        code, took, steps = stopped(loop, sounds, folder, moment, (signal.SIGTERM, signal.SIGINT)[run // 2 % 2], times)
        if code == 130:
            stops, twice, slowest = stops + 1, twice + (times == 2), max(slowest, took)
            if not is_finished(loop, folder):  # or the signal came when nothing was left to do
                attempt(loop, sounds, folder, 2, mmap.mmap(-1, mmap.PAGESIZE), None)
                lost += steps - gone_on(folder) if loop != "predict" else 0
        else:
            assert code == 0, (folder / "log.txt").read_text()[-2_000:]
        assert outcome(loop, folder) == expected, f"{folder} ended otherwise"
    assert slowest < 10 and not lost
    return (
        f"{loop}: {stops} stops of {moments}, {twice} with two signals: exit 130 after {slowest:.1f} s at most, "
        f"{lost} steps lost, all identical in the end"
    )


@pytest.fixture
def disk(tmp_path: Path) -> Generator[Path]:
    """A file system of 64 MB."""
    with file_system(tmp_path / "disk", 64) as place:
        yield place


@pytest.mark.parametrize(
    ("loop", "room"), [("mae", (0.1, 4, 12)), ("finetune", (0.1, 4, 12)), ("predict", (0.01, 0.05, 0.1))]
)
def test_a_run_whose_disk_is_full_says_so_and_ends_as_if_there_had_been_room(
    loop: Loop, room: Sequence[float], sounds: Path, disk: Path, record_property: Record
) -> None:
    """room   megabytes that are free when it is begun, and each time it goes on"""
    if not is_finished(loop, sounds / loop / "whole"):
        attempt(loop, sounds, sounds / loop / "whole", 0, mmap.mmap(-1, mmap.PAGESIZE), None)
    folder, log, ballast = disk / loop, sounds / f"{loop}-full.txt", disk / "ballast"
    folder.mkdir()
    codes: list[int] = []
    for megabytes in room:
        ballast.unlink(missing_ok=True)
        space = os.statvfs(disk)
        ballast.write_bytes(bytes(int(space.f_bavail * space.f_bsize - 1e6 * megabytes)))
        codes.append(run_to_its_end(loop, sounds, folder, log))
        last = log.read_text().strip().splitlines()[-1]
        assert "disk full" in last or "No space left" in last, last
    ballast.unlink()
    codes.append(run_to_its_end(loop, sounds, folder, log))
    assert codes == [1] * len(room) + [0], codes
    assert "Traceback" not in log.read_text()
    assert outcome(loop, folder) == outcome(loop, sounds / loop / "whole")
    assert not left_over(folder)
    record_property("R6", f"{loop}: out of room {codes.count(1)} times, one line each, identical in the end")


def run_to_its_end(loop: Loop, sounds: Path, folder: Path, log: Path) -> int:
    """The exit code of a command that is begun, or gone on with."""
    child = os.fork()
    if not child:
        begin(loop, words(loop, sounds, folder, 0), log, mmap.mmap(-1, mmap.PAGESIZE), True)
    return os.waitstatus_to_exitcode(awaited(child))


def test_told_to_stop_a_run_leaves_with_130_and_loses_no_step(sounds: Path, record_property: Record) -> None:
    record_property("R7", stop_and_go_on("finetune", sounds, sounds / "finetune", moments=1, seed=2))


MOMENTS = [
    # what is about to be called, and for which time, when the signal comes
    pytest.param("finetune", "training.states.TrainingProgress.fetch", 1, id="finetune, the epoch's steps are done"),
    pytest.param("finetune", "torch.save", 1, id="finetune, in the midst of the only save"),
    pytest.param("mae", "ssl_mae.save_encoder", 1, id="mae, all epochs are done"),
    pytest.param("finetune", "trainer.set_epoch", 2, id="finetune, between two epochs"),
    pytest.param("mae", "training.states.TrainingProgress.fetch", 1, id="mae, the epoch's steps are done"),
]


@pytest.mark.parametrize(("loop", "name", "time"), MOMENTS)
def test_told_to_stop_between_two_steps_a_run_loses_none(loop: Loop, name: str, time: int, sounds: Path) -> None:
    folder = sounds / f"{loop} {name}"
    code, _, steps = stopped(loop, sounds, folder, at=(name, time))
    assert code == 130 and steps in (4, 5, 8), (folder / "log.txt").read_text()
    assert len(list(folder.rglob("states/state-*.pt"))) == 1
    attempt(loop, sounds, folder, 2, mmap.mmap(-1, mmap.PAGESIZE), None)
    assert gone_on(folder) == steps and outcome(loop, folder) == outcome(loop, whole(loop, sounds, sounds / loop))


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_told_to_stop_at_twenty_moments_no_step_is_lost(loop: Loop, tmp_path: Path, record_property: Record) -> None:
    write_sounds(tmp_path)
    record_property("R7", stop_and_go_on(loop, tmp_path, tmp_path / loop, moments=20, seed=0))
