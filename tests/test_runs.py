"""Run folders: numbered, marked by how they ended, linked when they finished; and files that are whole or absent."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

import runs
from config import (
    ExperimentsCommand,
    FinetuneCommand,
    PredictCommand,
    PretrainCommand,
    QuantizeCommand,
    ReportCommand,
    SurveyCommand,
    scratch,
)
from runs import birth, draw_curves, open_run, publish, read_records, readable, record, remedy_for_memory

HERE = Path(__file__).parents[1]


def status(folder: Path) -> str:
    return str(json.loads((folder / "run.json").read_text())["status"])


def test_runs_are_numbered_and_the_link_follows_the_newest_that_finished(tmp_path: Path) -> None:
    for number in (1, 2):
        with open_run("mae", tmp_path, {}) as run:
            assert run.folder == tmp_path / f"mae-{number:03d}" and status(run.folder) == "running"
        assert status(run.folder) == "finished" and (tmp_path / "mae").resolve() == run.folder
    assert str((tmp_path / "mae").readlink()) == "mae-002"  # relative: the folder of runs can be moved


def test_a_failed_run_is_marked_and_never_becomes_the_default(tmp_path: Path) -> None:
    with open_run("mae", tmp_path, {}) as good:
        pass
    with pytest.raises(ZeroDivisionError), open_run("mae", tmp_path, {}) as bad:
        _ = 1 / 0
    assert status(bad.folder) == "failed" and (tmp_path / "mae").resolve() == good.folder


def test_ctrl_c_marks_a_run_as_interrupted(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_run("mae", tmp_path, {}) as run:
        raise KeyboardInterrupt
    assert status(run.folder) == "interrupted" and not (tmp_path / "mae").exists()


def test_a_killed_run_is_marked_by_the_next_one(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path; import time
from runs import open_run
with open_run("mae", Path({str(tmp_path)!r}), {{}}):
    print("ready", flush=True); time.sleep(60)
"""
    child = subprocess.Popen([sys.executable, "-c", code], cwd=HERE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    while child.stdout.readline() != "ready\n":
        pass
    child.kill()
    child.wait()
    child.stdout.close()
    assert status(tmp_path / "mae-001") == "running"
    with open_run("mae", tmp_path, {}) as run:
        assert run.folder.name == "mae-002"
    assert status(tmp_path / "mae-001") == "interrupted"


def test_a_place_of_ones_own_has_no_number_and_no_link(tmp_path: Path) -> None:
    with open_run("predict", tmp_path / "runs", {}, tmp_path / "results") as run:
        assert run.folder == tmp_path / "results"
    assert status(tmp_path / "results") == "finished" and not (tmp_path / "runs").exists()


def test_each_printed_line_is_a_json_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_run("mae", tmp_path, {}) as run:
        record(run, epoch=1, loss=0.123456, note="first")
        record(run, epoch=2, loss=None)
    assert "epoch 1  loss 0.1235  note first" in capsys.readouterr().out
    lines = read_records(run.folder)
    assert [(line["epoch"], line["loss"]) for line in lines] == [(1, 0.123456), (2, None)]
    assert readable(None) == "-"


def test_settings_versions_and_memory_are_kept(tmp_path: Path) -> None:
    with open_run("finetune", tmp_path, FinetuneCommand.defaults("tiny")) as run:
        run.facts["extra"] = int(np.int64(5))
    facts = json.loads((run.folder / "run.json").read_text())
    assert facts["settings"]["train"]["epochs"] == 3 and facts["settings"]["data"]["root"] == "data/birdclef-2025"
    assert facts["versions"]["numpy"].startswith("2.") and facts["peak_memory_mb"] > 0 and facts["extra"] == 5


def test_curves_are_a_picture(tmp_path: Path) -> None:
    with open_run("mae", tmp_path, {}) as run:
        for epoch in (1, 2, 3):
            record(run, epoch=epoch, loss=1.0 / epoch, skill=None if epoch == 1 else 0.1)
        path = draw_curves(run, {"loss": ["loss"], "skill": ["skill", "absent"]})
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_file_is_published_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"), publish(path) as temporary:
        temporary.write_text("half of the n")
        raise OSError("disk full")
    assert path.read_text() == "old" and [entry.name for entry in tmp_path.iterdir()] == ["table.csv"]
    with publish(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and [entry.name for entry in tmp_path.iterdir()] == ["table.csv"]


def test_a_full_disk_is_known_by_the_words_of_a_database_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runs.is_full(sqlite3.OperationalError("database or disk is full"))
    assert not runs.is_full(sqlite3.OperationalError("attempt to write a readonly database"))
    (tmp_path / "file").touch()
    monkeypatch.setattr(runs, "SCRATCH", tmp_path / "file")
    try:
        raise ValueError("who would have thought")
    except ValueError:
        assert "who would have thought" in runs.written_traceback()


def test_intermediates_go_to_a_folder_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("/tmp/wildwhisper").mkdir(exist_ok=True)
    assert scratch() == Path("/tmp/wildwhisper")
    monkeypatch.setattr("config.os.getuid", lambda: 12_345)
    assert scratch() == Path("/tmp/wildwhisper-12345")


def test_the_memory_of_a_process_that_has_ended_is_nothing() -> None:
    assert runs.peak_memory_mb() > 10 and runs.peak_memory_mb(os.getpid()) > 10
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has taken notice
    assert runs.peak_memory_mb(child.pid) == 0
    child.wait()
    assert runs.peak_memory_mb(child.pid) == 0


def test_a_process_is_known_by_more_than_its_number() -> None:
    assert birth(os.getpid()) == birth(os.getpid()) != birth(1) and not birth(2**22 + 1)


def launching(body: str, *flags: str) -> list[str]:
    code = f"""
from runs import launch
from config import QuantizeCommand
def command(config):
{body}
launch(command, QuantizeCommand)
"""
    return [sys.executable, *flags, "-c", code]


def launched(body: str, *flags: str, arguments: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    words = [*launching(body, *flags), *arguments]
    return subprocess.run(words, cwd=HERE, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("both", [False, True])
def test_a_reader_who_leaves_early_ends_no_work(both: bool, tmp_path: Path) -> None:
    """As in `python predictor.py season/ | head -3`, and with 2>&1 before it."""
    body = f"""
    import sys
    for number in range(20_000):
        print("line", number, flush=number % 2 == 0)
    print("a warning", file=sys.stderr)
    open({str(tmp_path / "table.csv")!r}, "w").write("whole")
    return 2
"""
    errors = subprocess.STDOUT if both else subprocess.DEVNULL
    child = subprocess.Popen(launching(body), cwd=HERE, stdout=subprocess.PIPE, stderr=errors)
    assert child.stdout is not None and child.stdout.readline() == b"line 0\n"
    child.stdout.close()
    assert child.wait(60) == 2 and (tmp_path / "table.csv").read_text() == "whole"


def test_a_mistake_of_the_user_is_one_line_and_exit_code_1() -> None:
    done = launched("    assert False, 'no recordings here; point --data.root elsewhere'")
    assert done.returncode == 1 and done.stderr == "error: no recordings here; point --data.root elsewhere\n"


def test_an_assertion_of_a_library_is_no_mistake_of_the_user_and_keeps_its_traceback() -> None:
    done = launched("    import numpy; numpy.testing.assert_array_equal([1], [2])")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith("error: AssertionError: ") and "please report it" in line
    told = Path(line.rpartition(" with ")[2].rstrip(")")).read_text(encoding="utf-8")
    assert told.startswith("Traceback") and "assert_array_equal" in told


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        ("assert False, 'dawn.ogg is gone; copy it again'", r"error: dawn\.ogg is gone; copy it again"),
        ("import numpy; numpy.testing.assert_array_equal([1], [2])", r"error: AssertionError: .* please report it .*"),
    ],
    ids=["ours", "of a library"],
)
def test_an_assertion_in_a_process_that_loads_data_is_told_as_one_in_the_command_is(broken: str, line: str) -> None:
    body = "    from torch.utils.data import DataLoader\n    class Rows:\n        def __len__(self): return 1\n"
    body += f"        def __getitem__(self, _): {broken}\n"
    body += "    next(iter(DataLoader(Rows(), num_workers=1, multiprocessing_context='fork')))"
    done = launched(body)
    assert done.returncode == 1 and re.fullmatch(line, done.stderr.strip()), done.stderr


def test_a_mistyped_flag_leaves_with_1_and_not_with_2() -> None:
    done = launched("    return 0", arguments=("--clasifier", "x"))
    assert done.returncode == 1 and "--classifier" in done.stdout + done.stderr


def test_exit_codes_are_the_commands() -> None:
    assert launched("    return 0").returncode == 0
    assert launched("    return 2").returncode == 2


def test_a_surprise_is_one_line_and_the_traceback_lies_in_a_file() -> None:
    done = launched("    return {}['nothing']")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "KeyError" in done.stderr
    path = Path(done.stderr.split("report it with ")[1].rstrip(")\n"))
    assert "Traceback" in path.read_text()


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (PretrainCommand, ("train.batch_size", "train.accumulate", "train.checkpointing", "preset")),
        (FinetuneCommand, ("train.batch_size", "train.accumulate", "train.checkpointing", "preset")),
        (QuantizeCommand, ("max_windows",)),
        (PredictCommand, ("threads", "batch_size")),
        (ReportCommand, ("max_clips", "per_species", "clips_dir")),
        (SurveyCommand, ()),
        (ExperimentsCommand, ()),
    ],
)
def test_where_memory_is_short_a_command_names_flags_that_it_has(command: type[Any], named: tuple[str, ...]) -> None:
    remedy = remedy_for_memory(command)
    assert remedy and tuple(re.findall(r"--([\w.]+)", remedy)) == named
    for flag in named:
        owner: Any = command
        for name in flag.split("."):
            assert name in get_type_hints(owner, include_extras=False)
            owner = get_type_hints(owner)[name]


@pytest.mark.parametrize(
    "body",
    ["raise MemoryError", "import torch; torch.empty(10**15)", "raise OSError(12, 'Cannot allocate memory')"],
)
def test_short_memory_is_one_line_whoever_runs_short_of_it(body: str) -> None:
    done = launched(f"    {body}")
    assert done.returncode == 1 and done.stderr == "error: out of memory; lower --max_windows\n"


def test_python_minus_o_is_refused() -> None:
    done = launched("    return 0", "-O")
    assert done.returncode == 1 and "python -O" in done.stderr


def test_sigterm_is_treated_like_ctrl_c() -> None:
    code = """
import time
from runs import launch
from config import QuantizeCommand
def command(config):
    print("ready", flush=True); time.sleep(60); return 0
launch(command, QuantizeCommand)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code], cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    started = time.time()
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=20) == 130 and time.time() - started < 10
    child.stdout.close()
