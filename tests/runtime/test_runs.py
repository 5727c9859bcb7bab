"""Run folders: numbered, marked by how they ended, linked when they finished; and files that are whole or absent."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config import (
    FinetuneCommand,
)
from runtime import runs
from runtime.files import HOST
from runtime.runs import (
    add_facts,
    draw_curves,
    mark_dead_runs,
    number_in_words,
    open_run,
    read_records,
    record,
    refuse_others,
)

HERE = Path(__file__).parents[2]


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


def test_a_fact_that_is_added_is_there_while_the_run_goes_on_and_when_it_has_failed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_run("mae", tmp_path, {}) as run:
        add_facts(run, pseudo_labels="abc")
        assert status(run.folder) == "running"  # as a process that is killed now would leave it
        assert json.loads((run.folder / "run.json").read_text())["pseudo_labels"] == "abc"
        _ = 1 / 0
    assert json.loads((run.folder / "run.json").read_text())["pseudo_labels"] == "abc"


def test_ctrl_c_marks_a_run_as_interrupted(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_run("mae", tmp_path, {}) as run:
        raise KeyboardInterrupt
    assert status(run.folder) == "interrupted" and not (tmp_path / "mae").exists()


def test_a_training_that_another_command_began_is_resumed_with_the_command_that_trains(tmp_path: Path) -> None:
    """As pseudo_label.py begins those of main.py; of a run without a state the same command goes on."""
    with pytest.raises(KeyboardInterrupt) as caught, open_run("finetune", tmp_path, {}) as run:
        (run.folder / "states").mkdir()
        (run.folder / "states" / "state-1.pt").touch()
        raise KeyboardInterrupt
    assert re.search(r"go on with: \S+ \S*main\.py --run\.resume \S+finetune-001$", str(caught.value))
    with pytest.raises(KeyboardInterrupt) as caught, open_run("finetune", tmp_path, {}):
        raise KeyboardInterrupt
    assert str(caught.value).endswith("give the same command again")


def test_a_killed_run_is_marked_by_the_next_one(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path; import time
from runtime.runs import open_run
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


def test_what_a_killed_run_left_half_written_goes_with_the_next_wherever_it_was_killed(tmp_path: Path) -> None:
    def half(name: str, process: int) -> Path:
        return tmp_path / f".{name}.{HOST}-{process}.part"

    gone, other = 2**22 + 1, os.getppid()
    (tmp_path / "mae-001").mkdir()  # in which run.json was begun
    (tmp_path / "mae-001" / half("run.json", gone).name).touch()
    half("mae", gone).symlink_to("mae-001")
    half("mae", other).symlink_to("mae-001")  # of one that is at it
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / half("x", gone).name).touch()  # nothing of ours
    with open_run("mae", tmp_path, {}) as run:
        assert run.folder.name == "mae-002"
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.part"))
    assert left == [half("mae", other).name, f"notes/{half('x', gone).name}"]


def test_a_run_that_finished_while_it_was_looked_at_is_not_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_run("mae", tmp_path, {}) as run:
        facts = json.loads((run.folder / "run.json").read_text()) | {"pid": 2**22 + 1, "born": "long ago"}
    told: list[dict[str, Any]] = [facts, facts | {"status": "finished"}]

    def read(_path: Path, _advice: str) -> dict[str, Any]:
        return told.pop(0)

    with monkeypatch.context() as patch:
        patch.setattr("runtime.runs.read_json", read)
        mark_dead_runs(tmp_path, "mae")
    assert not told and status(run.folder) == "finished"
    (run.folder / "run.json").write_text(json.dumps(facts))
    mark_dead_runs(tmp_path, "mae")  # control
    assert status(run.folder) == "interrupted"


def test_a_place_of_ones_own_has_no_number_and_no_link(tmp_path: Path) -> None:
    with open_run("predict", tmp_path / "runs", {}, tmp_path / "results") as run:
        assert run.folder == tmp_path / "results"
    assert status(tmp_path / "results") == "finished" and not (tmp_path / "runs").exists()


def test_a_place_that_another_command_wrote_into_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    with open_run("predict", tmp_path / "runs", {}, tmp_path / "place"):
        pass
    before = (tmp_path / "place" / "run.json").read_bytes()
    with (
        pytest.raises(AssertionError, match=r"another command wrote \(run\.json: 'predict'\); give another folder"),
        open_run("query", tmp_path / "runs", {}, tmp_path / "place"),
    ):
        pass
    assert (tmp_path / "place" / "run.json").read_bytes() == before
    with open_run("predict", tmp_path / "runs", {}, tmp_path / "place"):  # control: the same command again
        pass


def test_a_table_of_somebody_elses_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "recordings.csv").write_text("mine")
    refuse_others(tmp_path, "pseudo")  # control: nothing was said of tables
    refuse_others(tmp_path, "pseudo", ["detections.csv"])
    with pytest.raises(AssertionError, match=r"recordings\.csv would be written over, and no run\.json says"):
        refuse_others(tmp_path, "pseudo", ["recordings.csv"])
    with open_run("pseudo", tmp_path / "runs", {}, tmp_path):
        pass
    refuse_others(tmp_path, "pseudo", ["recordings.csv"])


def test_each_printed_line_is_a_json_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_run("mae", tmp_path, {}) as run:
        record(run, epoch=1, loss=0.123456, note="first")
        record(run, epoch=2, loss=None)
    assert "epoch 1  loss 0.1235  note first" in capsys.readouterr().out
    lines = read_records(run.folder)
    assert [(line["epoch"], line["loss"]) for line in lines] == [(1, 0.123456), (2, None)]
    assert number_in_words(None) == "-"


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


def test_the_memory_of_a_process_that_has_ended_is_nothing() -> None:
    assert runs.peak_memory_mb() > 10 and runs.peak_memory_mb(os.getpid()) > 10
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has taken notice
    assert runs.peak_memory_mb(child.pid) == 0
    child.wait()
    assert runs.peak_memory_mb(child.pid) == 0
