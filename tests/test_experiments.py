"""The table of runs: the newest first, the settings in which they differ, and nothing that a folder holds breaks it."""

import csv
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import forked
import pandas as pd
import pytest

from config import ExperimentsCommand, FinetuneCommand, FinetuneSettings, LossSettings, PretrainCommand, QuantizeCommand
from experiments import (
    Column,
    Experiment,
    columns,
    differing,
    experiments,
    layout,
    read_run,
    read_runs,
    settings_in_words,
    shorten,
)
from runtime.cells import no_formula
from runtime.files import write_json
from runtime.runs import is_dead, open_run, record

HERE = Path(__file__).parents[1]
DEMO = replace(FinetuneCommand.defaults("demo"), train=FinetuneSettings(10, 8, choose="cmap"))
CARD = {"macro_auc": 0.9, "cmap": 0.5, "top1": 0.6, "macro_f1": 0.4, "mistake_distance": 0.3}


def write_run(root: Path, name: str, minute: int, settings: object = DEMO, **facts: object) -> Path:
    """A run folder as open_run leaves it, started at 12:`minute`."""
    folder = root / name
    folder.mkdir(parents=True)
    usual = {"name": name, "status": "finished", "host": "elsewhere", "pid": 1, "seconds": 90.0, "peak_memory_mb": 900}
    started = f"2026-11-21T12:{minute:02d}:00+0000"
    write_json(folder / "run.json", usual | {"settings": settings, "started": started} | facts)
    return folder


def write_epochs(folder: Path, *lines: dict[str, Any]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def with_alpha(alpha: float) -> FinetuneCommand:
    return replace(DEMO, loss=LossSettings(alpha=alpha))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three fine-tuning runs that differ in alpha, a failed and an interrupted one, an adapted encoder, two INT8 files,
    and three folders that are no whole runs."""
    runs = tmp_path / "runs"
    for number, alpha in ((1, 0.0), (2, 1.0), (3, 4.0)):
        folder = write_run(runs, f"finetune-{number:03d}", 10 * number, with_alpha(alpha))
        best = CARD | {"cmap": 0.5 + number / 10}
        write_epochs(folder, {"epoch": 1} | CARD, {"epoch": 2} | best, {"epoch": 3} | CARD | {"top1": 0.9})
    (runs / "finetune").symlink_to("finetune-003")
    write_run(runs, "finetune-004", 40, with_alpha(4.0), status="failed")
    stopped = write_run(runs, "finetune-005", 50, with_alpha(4.0), status="interrupted", seconds=30)
    write_epochs(stopped, {"epoch": 1} | CARD)
    with (stopped / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "cma')
    adapted = write_run(runs, "mae-001", 5, PretrainCommand.defaults("demo"))
    write_epochs(adapted, {"epoch": 1, "skill": 0.2, "skill_over_mean": 0.3}, {"epoch": 2, "skill": 0.1})
    for number, place in ((1, "one"), (2, "two")):
        classifier = Path(f"/a/long/way/to/everything/{place}/that/was/ever/trained/classifier.safetensors")
        small = write_run(runs, f"quantize-{number:03d}", 51 + number, QuantizeCommand((classifier,)))
        card = {"top1_agreement": 0.995, "megabytes": 1.61, "milliseconds_per_window": 5.7}
        write_json(small / "quantize.json", {"float32": {"megabytes": 2.6}, "int8": card})
    (runs / "mae-002").mkdir()
    (runs / "mae-002" / "run.json").write_text('{"name": "mae-002", "status": ')
    (runs / "notes").mkdir()
    (runs / "notes.txt").write_text("not a folder")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    write_run(runs, "mae-003", 6, status="running", host=socket.gethostname(), pid=dead.pid)
    return runs


def call(root: Path, **settings: Any) -> pd.DataFrame:
    """Run the command, and read its CSV as pandas does."""
    config = replace(ExperimentsCommand(root, out=root.parent / "experiments.csv"), **settings)
    assert experiments(config) == 0
    return pd.read_csv(config.out)


def test_the_newest_run_comes_first(root: Path) -> None:
    table = call(root)
    assert list(table.columns[:4]) == ["run", "status", "started", "minutes"]
    assert list(table["run"]) == [
        *("quantize-002", "quantize-001", "finetune-005", "finetune-004", "finetune-003", "finetune-002"),
        *("finetune-001", "mae-001"),
    ]
    assert list(table["status"][2:4]) == ["interrupted", "failed"] and list(table["minutes"][1:3]) == [1.5, 0.5]


def test_time_zones_are_minded_and_of_two_in_one_second_the_higher_number_is_newer(tmp_path: Path) -> None:
    write_run(tmp_path, "mae-001", 0, started="2026-11-21T12:00:00+0000")
    write_run(tmp_path, "mae-002", 0, started="2026-11-21T12:30:00+0100")  # half past eleven
    write_run(tmp_path, "mae-003", 0, started="2026-11-21T12:00:00+0000")
    assert [run.run for run in read_runs(tmp_path)[0]] == ["mae-003", "mae-001", "mae-002"]


def test_only_differing_settings_are_columns(root: Path) -> None:
    table = call(root, kind="finetune")
    scores = ["macro_auc", "cmap", "top1", "macro_f1", "mistake_distance", "epoch"]
    assert list(table.columns[4:]) == [*scores, "loss.alpha"]
    assert list(table["loss.alpha"]) == [4, 4, 4, 1, 0]
    everything = call(root)
    assert list(everything.columns[-2:]) == ["classifier", "loss.alpha"]
    assert everything["loss.alpha"].isna().tolist() == 2 * [True] + 5 * [False] + [True]  # the encoder has no alpha


def test_runs_of_one_kind_that_are_alike_add_no_column_even_if_another_kind_differs(tmp_path: Path) -> None:
    write_run(tmp_path, "mae-001", 1, {"loss": {"alpha": 1.0}})
    write_run(tmp_path, "finetune-001", 2, {"loss": {"alpha": 4.0}})
    assert [column.name for column in columns(read_runs(tmp_path)[0]) if "." in column.name] == []


def test_a_run_older_than_a_setting_counts_as_its_default(tmp_path: Path) -> None:
    old = json.loads((write_run(tmp_path, "finetune-001", 1) / "run.json").read_text())["settings"]
    del old["loss"]["kind"], old["head"]
    write_run(tmp_path, "finetune-002", 2, old | {"preset": "demo"})
    assert differing(read_runs(tmp_path)[0]) == []
    write_run(tmp_path, "finetune-003", 3, replace(DEMO, loss=LossSettings(kind="focal")))
    assert differing(read_runs(tmp_path)[0]) == ["loss.kind"]
    write_run(tmp_path, "finetune-004", 4, old | {"forgotten": 3})  # no default is known: better shown than hidden
    assert differing(read_runs(tmp_path)[0]) == ["forgotten", "loss.kind"]


def test_sections_become_names_with_dots_and_numbers_are_compared_as_numbers() -> None:
    nested = {"a": {"b": {"c": 4.0}, "d": None}, "e": [1.5, -2.0], "f": True, "g": {}, "rate": 2e-05}
    flat = {"a.b.c": "4", "a.d": "", "e": "[1.5, -2.0]", "f": "True", "g": "{}", "rate": "2e-05"}
    assert settings_in_words(nested) == flat


def test_scores_are_those_of_the_kept_epoch(root: Path) -> None:
    scores = {run.run: run.scores for run in read_runs(root)[0]}
    assert scores["finetune-003"] == CARD | {"epoch": 2, "cmap": 0.8}  # not the last one's top1
    assert scores["finetune-005"] == CARD | {"epoch": 1}  # half a line behind it is passed over
    assert scores["finetune-004"] == {}  # failed before the first epoch
    assert scores["mae-001"] == {"epoch": 2, "skill": 0.1}  # the autoencoder keeps the last epoch
    assert scores["quantize-001"]["megabytes"] == 1.61  # of the INT8 file
    table = call(root)
    assert table["epoch"].dropna().tolist() == [1, 2, 2, 2, 2]
    (adapted,) = [run for run in read_runs(root)[0] if run.kind == "mae"]
    assert "epoch" not in [column.name for column in columns([adapted])]  # no column of the autoencoder's on a terminal
    assert table["skill"].dropna().tolist() == [0.1] and table["megabytes"].dropna().tolist() == [1.61, 1.61]


@pytest.mark.parametrize(("choose", "epoch"), [("cmap", 1), ("top1", 2), ("last", 3)])
def test_the_kept_epoch_is_the_one_the_run_chose_by(choose: Any, epoch: int, tmp_path: Path) -> None:
    settings = replace(DEMO, train=FinetuneSettings(3, 8, choose=choose))
    folder = write_run(tmp_path, "finetune-001", 0, settings)
    lines = [{"epoch": 1, "cmap": 0.9, "top1": 0.1}, {"epoch": 2, "cmap": 0.8, "top1": 0.7}]
    write_epochs(folder, *lines, {"epoch": 3, "cmap": 0.9, "top1": 0.6})
    assert read_run(folder).scores["epoch"] == epoch


def test_of_a_run_that_was_stopped_between_two_validations_the_last_scored_epoch_counts(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "finetune-001", 0, replace(DEMO, train=FinetuneSettings(9, 8)), status="interrupted")
    write_epochs(folder, {"epoch": 5} | CARD, {"epoch": 6, "loss": 0.1}, {"epoch": 7, "loss": 0.1})
    assert read_run(folder).scores == {"epoch": 5} | CARD
    write_epochs(folder, {"epoch": 1, "loss": 0.3}, {"epoch": 2, "loss": 0.2})  # none was scored yet
    assert read_run(folder).scores == {"epoch": 2, "loss": 0.2}


def test_scores_in_run_json_go_before_those_of_an_epoch(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "finetune-001", 0, scores={"cmap": 0.7, "top1": None})
    assert read_run(folder).scores == {"cmap": 0.7}  # several parts: their epochs stand in folders of their own
    write_epochs(folder, {"epoch": 1} | CARD, {"epoch": 2} | CARD)
    assert read_run(folder).scores == {"epoch": 1, "cmap": 0.7}  # only the epoch's number joins them
    other = write_run(tmp_path, "finetune-002", 0, scores={})
    write_epochs(other, {"epoch": 1} | CARD)
    assert read_run(other).scores == {"epoch": 1} | CARD


def test_the_csv_has_every_score_and_the_terminal_the_chief_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    scores = CARD | {"auc_family": 0.8, "cmap_low": 0.45, "=1+1": 0.1, "mean": {"auc": {"order": 0.7, "all": "much"}}}
    write_run(tmp_path / "runs", "finetune-001", 0, scores=scores)
    row = call(tmp_path / "runs").iloc[0].to_dict()
    told = {"auc_family": 0.8, "cmap_low": 0.45, "'=1+1": 0.1, "mean_auc_order": 0.7}
    assert row.items() >= (CARD | told).items() and "mean_auc_all" not in row
    shown = capsys.readouterr().out
    assert "0.500" in shown and not any(f"{value:.3f}" in shown for value in told.values())


def test_what_is_no_number_is_no_score(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "finetune-001", 0)
    write_epochs(
        folder, {"epoch": 1, "cmap": 0.5}, {"epoch": 2, "cmap": float("nan"), "top1": "much", "macro_f1": True}
    )
    assert read_run(folder).scores == {"epoch": 1, "cmap": 0.5}


def test_a_run_as_runs_py_writes_it_is_read(tmp_path: Path) -> None:
    with open_run("finetune", tmp_path, DEMO) as run:
        record(run, epoch=1, cmap=0.5)
        alive = read_run(run.folder)
        assert alive.status == "running" and alive.minutes is None
    found, others = read_runs(tmp_path)
    assert [(run.run, run.status, run.scores["cmap"]) for run in found] == [("finetune-001", "finished", 0.5)]
    assert found[0].settings["train.batch_size"] == "8" and others == {}


def test_damaged_and_foreign_folders_are_a_line_each_at_the_end(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(root)
    lines = capsys.readouterr().out.splitlines()
    last = max(number for number, line in enumerate(lines) if "finished" in line)
    told = [next(line for line in lines[last:] if line.startswith(name)) for name in ("mae-002", "mae-003", "notes")]
    assert "cannot be read" in told[0] and "killed" in told[1] and "no run.json" in told[2]
    assert lines[-1].endswith("experiments.csv: 8 runs")


def test_runs_within_a_folder_are_pointed_at(root: Path, tmp_path: Path) -> None:
    root.rename(tmp_path / "inner")
    assert read_runs(tmp_path)[1]["inner"] == f"holds runs itself: --runs {tmp_path / 'inner'}"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"null",
        b"[1, 2]",
        b'"text"',
        b"[" * 100_000,
        b'{"name": 3, "status": [], "started": {}}',
        b'{"name": "mae-001", "status": "finished", "started": "yesterday"}',
        b'{"name": "mae-001", "status": "finished", "started": "0001-01-01T00:00:00"}',
        b'{"name": "m", "status": "finished", "started": "2026-11-21T12:00:00", "seconds": 1' + 400 * b"0" + b"}",
    ],
)
def test_no_run_json_can_break_the_list(content: bytes, root: Path) -> None:
    (root / "mae-002" / "run.json").write_bytes(content)
    found, others = read_runs(root)
    assert len(found) == 8 and "mae-002" in others and "\n" not in others["mae-002"]


@pytest.mark.parametrize("depth", [10, 400, 900, 5000])
def test_settings_may_be_nested_as_deep_as_they_like(depth: int, tmp_path: Path) -> None:
    path = write_run(tmp_path, "mae-001", 1, "PLACE") / "run.json"
    path.write_text(path.read_text().replace('"PLACE"', '{"a":' * depth + "1" + "}" * depth))
    found, others = read_runs(tmp_path)
    assert len(found) + len(others) == 1 and (depth > 10 or found[0].settings == {".".join(depth * "a"): "1"})


def test_odd_values_where_others_are_expected_leave_cells_empty(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path, "finetune-001", 0, [1, 2], seconds="long", scores="many", pid="../..", status="running"
    )
    (folder / "metrics.jsonl").write_bytes(b'\xff\n[]\n3\n{"epoch": "one"}\n' + b"[" * 100_000)
    run = read_run(folder)
    assert (run.minutes, run.scores, run.settings) == (None, {}, {})
    (write_run(tmp_path, "quantize-001", 0) / "quantize.json").write_text("{")
    assert len(call(tmp_path)) == 2


def test_only_a_running_run_of_this_machine_can_be_dead() -> None:
    gone = {"status": "running", "host": socket.gethostname(), "pid": 2**22 + 1}  # above the kernel's largest
    assert is_dead(gone)
    for other in ({"status": "finished"}, {"host": "elsewhere"}, {"pid": os.getppid()}, {"pid": None}):
        assert not is_dead(gone | other)


def test_the_csv_holds_what_the_runs_say(root: Path) -> None:
    call(root)
    table = columns(read_runs(root)[0], every_score=True)
    with (root.parent / "experiments.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [[c.name for c in table], *map(list, zip(*(c.whole for c in table), strict=True))]
    assert rows[1][table.index(next(c for c in table if c.name == "classifier"))].startswith(
        "/a/long/way/to/everything/two"
    )


HOSTILE = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "-inf", 'a",=1\r\n=1', "a\r=1"]


@pytest.mark.parametrize("value", HOSTILE)
def test_no_setting_becomes_a_formula(value: str, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write_run(runs, "finetune-001", 1, {"head": {"pooling": value}, value: 1}, status=value)
    write_run(runs, "finetune-002", 2, {"head": {"pooling": "pooled"}, value: 2})
    assert experiments(ExperimentsCommand(runs, out=tmp_path / "out.csv")) == 0
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert [len(row) for row in rows] == [4 + 6 + 2] * 3
    for cell in (cell for row in rows for cell in row):
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert rows[0][-1].endswith(value) and rows[2][-2].endswith(value)  # whole, all the same


def test_numbers_stay_numbers() -> None:
    for cell in ("-0.008", "+3", "-1e-05", "-.5", "5", "", "mean", "a=b"):
        assert no_formula(cell) == cell
    assert [no_formula(cell) for cell in ("-1-1", "--", "-", "=5", "-1e", "-18 6")] == [
        *("'-1-1", "'--", "'-", "'=5", "'-1e", "'-18 6"),
    ]


def test_text_that_is_no_unicode_and_text_that_steers_terminals_are_harmless(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run(tmp_path, "finetune-001", 1) / "run.json"
    facts = json.loads(path.read_text()) | {"settings": {"a": "\ud800", "b": "\x1b[31mred\nrun"}}
    path.write_text(json.dumps(facts))
    write_run(tmp_path, "finetune-002", 2, {"a": "x", "b": "y"})
    assert list(call(tmp_path)["a"]) == ["x", "\\ud800"]
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "?[31mred?run" in shown


@pytest.mark.parametrize("width", [200, 120, 100, 80, 60, 40, 12, 5, 1])
def test_a_narrow_terminal_drops_columns_from_the_right(width: int, root: Path) -> None:
    table = columns([run for run in read_runs(root)[0] if run.kind == "finetune"])
    lines, dropped = layout(table, width)
    assert all(len(line) <= width for line in lines)
    names = [column.name for column in table]
    assert dropped == names[len(names) - len(dropped) :] and len(dropped) < len(names)
    assert (dropped == []) == (width >= 120)


def test_what_found_no_room_is_named_and_is_in_the_csv(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root.parent)
    monkeypatch.setenv("COLUMNS", "60")
    assert experiments(ExperimentsCommand(Path("runs"), kind="finetune")) == 0
    shown = capsys.readouterr().out
    assert all(len(line) <= 60 for line in shown.splitlines())
    assert "see the CSV" in shown and "loss.alpha" in " ".join(shown.split())
    assert "loss.alpha" in pd.read_csv("experiments.csv").columns
    monkeypatch.setenv("COLUMNS", "200")
    assert experiments(ExperimentsCommand(Path("runs"), kind="finetune")) == 0
    assert "see the CSV" not in capsys.readouterr().out


def test_a_table_looks_like_this() -> None:
    table = [
        Column("run", ["mae-002", "mae-001"], ["mae-002", "mae-001"]),
        Column("minutes", ["", ""], ["", ""]),
        Column("train.encoder_rate", ["0.002", "1e-05"], ["0.002", "1e-05"]),
        Column("mask.strategy", ["span", "energy"], ["span", "energy"]),
    ]
    lines, dropped = layout(table, 80)
    assert dropped == [] and lines == [
        "           train.",
        "         encoder_  mask.",
        "run          rate  strategy",
        "mae-002     0.002  span",
        "mae-001     1e-05  energy",
    ]
    assert layout(table, 27) == (lines, []) and layout(table, 26)[1] == ["mask.strategy"]
    assert layout(table, 10) == (["run", "mae-002", "mae-001"], ["train.encoder_rate", "mask.strategy"])


def test_long_paths_lose_what_they_share_on_the_terminal_alone(root: Path) -> None:
    table = columns([run for run in read_runs(root)[0] if run.kind == "quantize"])
    classifier = next(column for column in table if column.name == "classifier")
    assert [cell[:5] for cell in classifier.shown] == ["…/two", "…/one"] and max(map(len, classifier.shown)) == 24
    assert all(cell.endswith("/that/was/ever/trained/classifier.safetensors") for cell in classifier.whole)
    short = ["runs/a/x.csv", "runs/b/x.csv"]
    assert shorten(short) == short
    assert shorten([f"/{'x' * 30}/a", "relative/b", ""]) == ["/xxxxxxxxxx…xxxxxxxxxx/a", "relative/b", ""]


def test_without_runs_it_says_what_to_do(tmp_path: Path) -> None:
    for arguments in ([], ["--runs", "."], ["--kind", "mae"]):
        done = forked.run(tmp_path, "experiments.py", *arguments)
        assert done.returncode == 1 and "--runs" in done.stderr and done.stderr.count("\n") == 1
        assert not list(tmp_path.iterdir())


def test_a_kind_that_was_never_run_names_the_others(root: Path) -> None:
    with pytest.raises(AssertionError, match=r"no data run.*8 of other kinds: --kind all"):
        experiments(ExperimentsCommand(root, "data", root / "out.csv"))
    with pytest.raises(AssertionError, match=r"run\.json: give the table a name that ends in \.csv"):
        experiments(ExperimentsCommand(root, out=root / "finetune-001" / "run.json"))
    with pytest.raises(AssertionError, match="--out takes the name of a csv file"):
        experiments(ExperimentsCommand(root, out=root))


def test_the_command_starts_without_torch_and_pandas(root: Path) -> None:
    code = (
        "import runpy, sys\n"
        "try:\n    runpy.run_path('experiments.py', run_name='__main__')\n"
        "except SystemExit as leaving:\n    code = leaving.code\n"
        "print(code, [n for n in ('torch', 'transformers', 'pandas', 'numpy', 'soundfile') if n in sys.modules])\n"
    )
    out = root.parent / "out.csv"
    for arguments in (["--help"], ["--runs", str(root), "--out", str(out)]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=HERE, capture_output=True, text=True, check=True
        )
        assert done.stdout.endswith("0 []\n"), done.stderr
    assert out.is_file()


def test_help_teaches(tmp_path: Path) -> None:
    done = forked.run(tmp_path, "experiments.py", "--help")
    assert done.returncode == 0 and "python experiments.py" in done.stdout


def test_a_renamed_run_keeps_its_kind(tmp_path: Path) -> None:
    write_run(tmp_path, "finetune-001", 1).rename(tmp_path / "the best one")
    found: list[Experiment] = read_runs(tmp_path)[0]
    assert [(run.run, run.kind) for run in found] == [("the best one", "finetune")]
