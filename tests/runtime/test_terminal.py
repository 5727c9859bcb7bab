"""What a person in front of the terminal sees when a command ends, whatever ended it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, get_type_hints

import forked
import numpy as np
import pytest

from config import (
    ExperimentsCommand,
    FinetuneCommand,
    PredictCommand,
    PretrainCommand,
    QuantizeCommand,
    ReportCommand,
    SurveyCommand,
)
from runtime.terminal import is_our_file, remedy_for_memory, show

HERE = Path(__file__).parents[2]


def code_of(body: str) -> str:
    return f"""
from runtime.terminal import launch
from config import QuantizeCommand
def command(config):
{body}
launch(command, QuantizeCommand)
"""


def launching(body: str, *flags: str) -> list[str]:
    return [sys.executable, *flags, "-c", code_of(body)]


def launched(body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return forked.run(HERE, "-c", code_of(body), *arguments)


@pytest.mark.parametrize("both", [False, True])
def test_a_reader_who_leaves_early_ends_no_work(both: bool, tmp_path: Path) -> None:
    """As in `python predictor.py season/ | head -3`, and with 2>&1 before it."""
    body = f"""
    from runtime.terminal import show
    for number in range(20_000):
        show("line", number)
    show("a warning", error=True)
    open({str(tmp_path / "table.csv")!r}, "w").write("whole")
    return 2
"""
    errors = subprocess.STDOUT if both else subprocess.DEVNULL
    child = subprocess.Popen(launching(body), cwd=HERE, stdout=subprocess.PIPE, stderr=errors)
    assert child.stdout is not None and child.stdout.readline() == b"line 0\n"
    child.stdout.close()
    assert child.wait(60) == 2 and (tmp_path / "table.csv").read_text() == "whole"


def test_a_reader_who_leaves_the_help_early_sees_no_error() -> None:
    child = subprocess.Popen(
        [sys.executable, "main.py", "--help"], cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None and child.stderr is not None
    child.stdout.close()
    assert child.stderr.read() == b"" and child.wait(60) == 0
    child.stderr.close()


@pytest.mark.parametrize(("encoding", "printed"), [("utf-8", "Größe"), ("ascii", r"Gr\xf6\xdfe")])
def test_what_a_terminal_cannot_write_or_would_obey_is_escaped(encoding: str, printed: str) -> None:
    body = r"    from runtime.terminal import show; show('Gr\xf6\xdfe \x1b[2J \udce9'); return 0"
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(launching(body), cwd=HERE, env=environment, capture_output=True, check=True)
    assert done.stdout == rf"{printed} \x1b[2J \udce9".encode() + b"\n"


def test_a_mistake_of_the_user_is_one_line_and_exit_code_1() -> None:
    done = launched("    assert False, 'no recordings here; point --data.root elsewhere'")
    assert done.returncode == 1 and done.stderr == "error: no recordings here; point --data.root elsewhere\n"


def test_a_script_that_is_started_by_a_link_is_ours(tmp_path: Path) -> None:
    (tmp_path / "listen").symlink_to(HERE / "predictor.py")
    (tmp_path / "there").symlink_to(HERE)
    ours = (HERE / "main.py", f"/{HERE / 'main.py'}", tmp_path / "listen", tmp_path / "there" / "main.py")
    assert [is_our_file(str(name)) for name in ours] == [True] * 4
    assert not is_our_file(np.__file__) and not is_our_file(str(tmp_path / "main.py"))


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
    done = launched("    return 0", "--clasifier", "x")
    assert done.returncode == 1 and "--classifier" in done.stdout + done.stderr


def test_exit_codes_are_the_commands() -> None:
    assert launched("    return 0").returncode == 0
    assert launched("    return 2").returncode == 2


def test_a_surprise_is_one_line_and_the_traceback_lies_in_a_file() -> None:
    done = launched("    return {}['nothing']")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "KeyError" in done.stderr
    path = Path(done.stderr.split("report it with ")[1].rstrip(")\n"))
    assert "Traceback" in path.read_text()


@pytest.mark.parametrize("done_to", ["mkdir(file)", "replace(file, folder)"])
def test_a_file_where_a_folder_is_wanted_or_the_other_way_round_is_no_surprise(done_to: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    body = f"    file, folder = {str(tmp_path / 'file')!r}, {str(tmp_path / 'folder')!r}\n    import os; os.{done_to}"
    done = launched(body)
    meant = tmp_path / ("file" if "mkdir" in done_to else "folder")
    assert done.returncode == 1 and done.stderr.startswith(f"error: {meant}: ") and "give another name" in done.stderr


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
    words = launching("    return 0", "-O")
    done = subprocess.run(words, cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "python -O" in done.stderr


def test_sigterm_is_treated_like_ctrl_c() -> None:
    code = """
import time
from runtime.terminal import launch
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


def test_without_a_stream_nothing_is_shown_and_nothing_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with redirect_stdout(None):
        show("into nothing")
    show("into the stream")
    assert capsys.readouterr().out == "into the stream\n"
