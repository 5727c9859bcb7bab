"""R17: what a stranger may hand over runs no code, opens nothing outside of its folder, and ends in one clear line."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import forked
import hostile
import pytest

TABLE = {kind.name: kind for kind in hostile.kinds()}
STEERING = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # of a terminal, and \r


def told(output: str) -> dict[str, hostile.Outcome]:
    return {one["name"]: hostile.Outcome(**one) for one in map(json.loads, output.splitlines())}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, hostile.Outcome]:
    """Every kind tried, in a process that has started nothing before it forks."""
    folder = tmp_path_factory.mktemp("hostile")
    done = forked.start(folder, hostile.__file__, folder, early=True).ended(580)
    assert done.returncode == 0, done.stderr
    return told(done.stdout)


def faults(kind: hostile.Kind, outcome: hostile.Outcome) -> list[str]:
    """In what an outcome is not what the table says, or broke a promise."""
    lines = [line for line in outcome.error.splitlines() if line.startswith(("error:", "unexpected", "Traceback"))]
    codes = {"refused": (1,), "row": (0, 2), "harmless": (0,)}[kind.verdict]
    said = outcome.error if kind.verdict == "refused" else outcome.out
    checks = {
        f"exit code {outcome.code}": outcome.code in codes,
        f"says {outcome.error[-500:]!r}": len(lines) == (kind.verdict == "refused"),
        "not foreseen": not re.search(r"^unexpected: |\(unexpected; please|Traceback", outcome.error, re.MULTILINE),
        f"not {kind.words!r} in {said[-800:]!r}": bool(re.search(kind.words, said)),
        "its code ran": not outcome.marker,
        f"opened or started {outcome.opened}": not outcome.opened,
        "steers the terminal": not STEERING.search(outcome.out + (lines[0] if lines else "")),
        f"{outcome.seconds} s": outcome.seconds < hostile.SECONDS,
    }
    return [fault for fault, fine in checks.items() if not fine]


def test_there_are_sixty_kinds_and_more_and_each_was_tried(outcomes: dict[str, hostile.Outcome]) -> None:
    assert len(TABLE) >= 60 and set(outcomes) == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_a_hostile_thing_is_refused_or_harmless(name: str, outcomes: dict[str, hostile.Outcome]) -> None:
    assert not faults(TABLE[name], outcomes[name])


def test_r17_is_met(outcomes: dict[str, hostile.Outcome], record_property: Callable[[str, object], None]) -> None:
    verdicts = [kind.verdict for kind in TABLE.values()]
    ran = sum(outcome.marker for outcome in outcomes.values())
    opened = sum(bool(outcome.opened) for outcome in outcomes.values())
    bad = [name for name in TABLE if faults(TABLE[name], outcomes[name])]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))
    ends = f"{len(bad)} otherwise, {ran} ran code, {opened} opened a file outside"
    record_property("R17", f"{len(outcomes)} hostile kinds: {counts}; {ends}")
    assert not bad


def naive(what: str) -> Callable[[Path], int]:
    """What a program does that trusts its input."""

    def run(place: Path) -> int:
        import pickle
        import tarfile

        import torch

        if what == "pickle":
            pickle.loads((place / "classifier.safetensors").read_bytes())
        elif what == "torch":
            torch.load(next((place / "states").iterdir()), weights_only=False)
        elif what == "path":
            cell = (place / "data" / "train.csv").read_text().splitlines()[2].split('"')[1]
            print(len((place / "data" / cell).read_bytes()))
        elif what == "name":
            print("could not read", *(path.name for path in (place / "in").iterdir()))
        elif what == "archive":
            with tarfile.open(place / "in" / "sound.wav") as file:
                file.extractall(place / "in")
        return 0

    return run


def test_a_program_that_trusts_its_input_would_be_caught(tmp_path: Path) -> None:
    """The control: the same harness around what such programs do."""
    import tarfile

    hostile.write_good(tmp_path / "good")
    for what, name, fault in (
        ("pickle", "pickle_as_classifier", "its code ran"),
        ("torch", "state_reduce", "its code ran"),
        ("path", "path_absolute", "opened or started read"),
        ("name", "name_escape", "steers the terminal"),
        ("archive", "archive_tar", "its code ran"),
    ):
        if what == "archive" and hasattr(tarfile, "data_filter") and sys.version_info >= (3, 14):
            continue  # from there on it is the library's own default not to leave the folder
        trusting = TABLE[name]._replace(meet=naive(what), verdict="harmless", words="")
        found = faults(trusting, hostile.attempt(trusting, tmp_path / what, tmp_path / "good"))
        assert any(one.startswith(fault) for one in found), (what, found)


@pytest.mark.slow
def test_nor_does_what_is_written_in_c_or_rust_open_anything_outside(tmp_path: Path) -> None:
    """Python's audit hook sees nothing of ONNX Runtime, libsndfile, FFmpeg and safetensors: strace does."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("no strace here")
    log = tmp_path / "calls.txt"
    watched = [strace, "-f", "-qq", "-e", "trace=open,openat,execve,connect", "-o", str(log)]
    words = [sys.executable, hostile.__file__, str(tmp_path / "kinds")]
    done = subprocess.run([*watched, *words], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=1200)
    if "ptrace" in done.stderr or "PTRACE" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0 and len(told(done.stdout)) == len(TABLE), done.stderr[-2000:]
    calls = log.read_text(errors="replace").splitlines()
    assert len(calls) > 1000
    secret = [line for line in calls if "outside/secret" in line and "O_RDONLY" in line]
    assert not secret, secret[:5]
    shells = [line for line in calls if "execve" in line and ("touch" in line or '"sh"' in line)]
    assert not shells, shells[:5]
