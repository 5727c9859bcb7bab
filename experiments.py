"""All runs side by side: how each ended, how good it was, and the settings in which they differ.

    python experiments.py --runs runs --kind finetune

Reads    run.json, metrics.jsonl and quantize.json of every folder in --runs
Writes   experiments.csv: every score, every column whole; the terminal shows the chief scores and what fits

Scores are those of the epoch whose weights were kept, or what run.json itself calls its scores (several held-out parts
taken together). What is no run, or not a whole one, is named below the table. No torch.
"""

from __future__ import annotations

import runtime.stopping  # noqa: F401  # pyright: ignore[reportUnusedImport] - Ctrl-C counts from here on

import csv
import json
import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from textwrap import wrap
from typing import Any, cast

from config import (
    PRESETS,
    ExperimentsCommand,
    FinetuneCommand,
    PredictCommand,
    Preset,
    PretrainCommand,
    QuantizeCommand,
    SurveyCommand,
    default_command,
    has_preset,
)
from runtime.cells import NUMBER, no_formula, open_text
from runtime.files import as_json
from runtime.runs import flat, is_dead
from runtime.terminal import launch, show

SCORES = {  # the chief ones of each command: those the terminal shows
    "finetune": ("macro_auc", "cmap", "top1", "macro_f1", "mistake_distance", "epoch"),
    "mae": ("skill", "skill_over_mean"),
    "quantize": ("top1_agreement", "megabytes", "milliseconds_per_window"),
}
COMMANDS: dict[str, type[object]] = {
    "data": SurveyCommand,
    "mae": PretrainCommand,
    "finetune": FinetuneCommand,
    "quantize": QuantizeCommand,
    "predict": PredictCommand,
}
LONGEST = 24  # characters of a cell on the terminal
GAP = "  "


@dataclass(frozen=True)
class Experiment:
    """What one run folder says."""

    run: str
    kind: str  # the command: data, mae, finetune, quantize, predict
    status: str
    started: str  # as in run.json
    moment: float  # the same in seconds, for sorting
    minutes: float | None
    scores: dict[str, float]
    settings: dict[str, str]  # loss.alpha -> 4


@dataclass(frozen=True)
class Column:
    """A column of the table: its cells for the csv file, and for the terminal."""

    name: str
    whole: list[str]
    shown: list[str]


def experiments(config: ExperimentsCommand) -> int:
    """List the runs; returns the exit code."""
    root = config.runs
    assert root.is_dir(), f"{root} is no folder; --runs takes the folder in which the commands put their runs"
    assert not config.out.is_dir(), f"{config.out} is a folder; --out takes the name of a csv file"
    assert config.out.suffix == ".csv", f"--out {config.out}: give the table a name that ends in .csv"
    found, others = read_runs(root)
    chosen = [run for run in found if config.kind in ("all", run.kind)]
    strange = {name: why for name, why in others.items() if config.kind in ("all", kind_of(name))}
    width = shutil.get_terminal_size().columns
    dropped: list[str] = []
    for kind in dict.fromkeys(run.kind for run in chosen):
        lines, left_out = layout(columns([run for run in chosen if run.kind == kind]), width)
        dropped += [name for name in left_out if name not in dropped]
        show("\n".join(lines), end="\n\n")
    for name, why in strange.items():
        show(printable(f"{name}: {why}"))
    wanted = "run" if config.kind == "all" else f"{config.kind} run"
    instead = f" ({len(found)} of other kinds: --kind all)" if found else ""
    assert chosen, (
        f"no {wanted} in {root}{instead}; make one (python main.py --help says how), or name its folder: --runs"
    )
    write_columns(columns(chosen, every_score=True), config.out)
    if dropped:
        names = ", ".join(map(printable, dropped))
        text = f"too wide for this terminal, see the CSV: {names}"
        show("\n".join(wrap(text, width, break_long_words=False, break_on_hyphens=False)))
    show(f"wrote {config.out}: {len(chosen)} run{'s' if len(chosen) > 1 else ''}")
    return 0


def read_runs(root: Path) -> tuple[list[Experiment], dict[str, str]]:
    """The runs of a folder, newest first, and what else lies there: name -> why it is no whole run."""
    found: list[Experiment] = []
    others: dict[str, str] = {}
    for folder in sorted(root.iterdir()):
        if folder.is_symlink() or not folder.is_dir():  # finetune -> finetune-003: that one is listed already
            continue
        try:
            found.append(read_run(folder))
        except AssertionError as error:
            others[folder.name] = str(error)
        except (OSError, ValueError, OverflowError, RecursionError) as error:  # whatever people put there
            others[folder.name] = f"run.json cannot be read: {printable(str(error))[:80]}"
    return sorted(found, key=lambda run: (run.moment, run.run), reverse=True), others


def read_run(folder: Path) -> Experiment:
    """One run; raises where it is none."""
    path = folder / "run.json"
    if not path.is_file():
        nested = any(folder.glob("*/run.json"))
        raise AssertionError(f"holds runs itself: --runs {folder}" if nested else "no run.json, so no run")
    facts = as_object(json.loads(path.read_bytes()))
    name, status, started = (facts.get(key) for key in ("name", "status", "started"))
    assert isinstance(name, str) and isinstance(status, str) and isinstance(started, str), (
        "its run.json lacks name, status or started: none of ours"
    )
    assert not is_dead(facts), f"says it is running, but its process {facts['pid']} is gone: it was killed"
    settings = settings_in_words(as_object(facts.get("settings")))
    kind, seconds = kind_of(name), finite(facts.get("seconds"))
    return Experiment(
        run=folder.name,
        kind=kind,
        status=status,
        started=started,
        moment=datetime.fromisoformat(started).timestamp(),
        minutes=None if seconds is None else round(seconds / 60, 1),
        scores=read_scores(folder, kind, facts, settings.get("train.choose", "cmap")),
        settings=settings,
    )


def read_scores(folder: Path, kind: str, facts: Mapping[str, Any], choose: str) -> dict[str, float]:
    """The scores of a run: those of run.json, of the INT8 file, or of the kept epoch, and never a mixture of them; of
    the epoch, its number stays. What is no number is left out."""
    scores = numbers(as_object(facts.get("scores")))
    if kind == "quantize":
        cards = json_objects(folder / "quantize.json", by_line=False)
        return scores or (numbers(as_object(cards[0].get("int8"))) if cards else {})
    epoch = kept_epoch(folder / "metrics.jsonl", choose)
    return {"epoch": epoch["epoch"]} | scores if scores and "epoch" in epoch else scores or epoch


def kept_epoch(path: Path, choose: str) -> dict[str, float]:
    """The line of the epoch that is best by a measure, of equals the first, as in training; without it the last one
    whose held-out recordings were scored, or the last."""
    epochs = [numbers(line) for line in json_objects(path, by_line=True)]
    measured = [line for line in epochs if choose in line]
    if measured:
        return max(measured, key=lambda line: line[choose])
    scored = [line for line in epochs if line.keys() & {"cmap", "top1"}]
    return (scored or epochs or [{}])[-1]


def json_objects(path: Path, by_line: bool) -> list[dict[str, Any]]:
    """The JSON objects of a file. A run that was killed leaves half a line: what is no JSON is passed over."""
    if not path.is_file():
        return []
    content = path.read_bytes()
    found: list[dict[str, Any]] = []
    for text in content.splitlines() if by_line else [content]:
        try:
            found.append(as_object(json.loads(text)))
        except (ValueError, RecursionError):
            continue
    return found


def as_object(value: Any) -> dict[str, Any]:
    """A JSON object; anything else is an empty one."""
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def numbers(values: Mapping[str, Any], above: str = "") -> dict[str, float]:
    """Those values that are finite numbers, those of objects within by joined names: {"a": {"b": 0.9}} -> a_b."""
    flat: dict[str, float] = {}
    for name, value in values.items():
        flat |= numbers(as_object(value), f"{above}{name}_")
        found = finite(value)
        flat |= {} if found is None else {above + name: found}
    return flat


def finite(value: Any) -> float | None:
    """A finite number, or none."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None


def kind_of(name: str) -> str:
    """finetune for finetune-012."""
    return re.sub(r"-[0-9]+$", "", name)


def settings_in_words(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings by their flags, as text: {"loss": {"alpha": 4.0}} -> {"loss.alpha": "4"}."""
    return {name: as_text(value) for name, value in flat(settings).items()}


def as_text(value: Any) -> str:
    """A setting as text: 4.0 and 4 are the same, none is empty, lists stay JSON, but for those of a single text."""
    several = cast(list[object], value) if isinstance(value, list) else []
    if len(several) == 1 and isinstance(several[0], str):
        return several[0]
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)


def columns(runs: Sequence[Experiment], every_score: bool = False) -> list[Column]:
    """The table of some runs: what every run has, the chief scores or behind these all of them, then the settings
    that runs of one kind do not share."""
    kinds = dict.fromkeys(run.kind for run in runs)
    scores = dict.fromkeys(name for kind in kinds for name in SCORES.get(kind, ()))
    scores |= dict.fromkeys(name for run in runs for name in run.scores) if every_score else {}
    unequal = {kind: differing([run for run in runs if run.kind == kind]) for kind in kinds}
    days = [run.started[:16].replace("T", " ") for run in runs]
    minutes = ["" if run.minutes is None else f"{run.minutes:.1f}" for run in runs]
    table = [
        Column("run", [run.run for run in runs], shorten([run.run for run in runs])),
        Column("status", [run.status for run in runs], shorten([run.status for run in runs])),
        Column("started", [run.started for run in runs], days),
        Column("minutes", minutes, minutes),
    ]
    for name in scores:
        values = [run.scores.get(name) if every_score or name in SCORES.get(run.kind, ()) else None for run in runs]
        whole = ["" if value is None else str(value) for value in values]
        shown = [
            f"{value:.3f}" if isinstance(value, float) else text for value, text in zip(values, whole, strict=True)
        ]
        table.append(Column(name, whole, shown))
    for name in dict.fromkeys(name for names in unequal.values() for name in names):
        whole = [run.settings.get(name, "") if name in unequal[run.kind] else "" for run in runs]
        table.append(Column(name, whole, shorten(whole)))
    return table


def differing(runs: Sequence[Experiment]) -> list[str]:
    """Names of the settings that runs of one kind do not share, in the order of the newest run.

    A setting that a run is too old to know counts there as it is by default.
    """
    known = [default_settings(run) | run.settings for run in runs]
    names = dict.fromkeys(name for run in runs for name in run.settings)
    return [name for name in names if len({settings.get(name) for settings in known}) > 1]


def default_settings(run: Experiment) -> dict[str, str]:
    """What the run's command and preset would have set, as far as they are known."""
    command = COMMANDS.get(run.kind)
    named = run.settings.get("preset")
    presets: list[Preset] = [preset for preset in PRESETS if preset == named]
    if command is None or (has_preset(command) and not presets):
        return {}
    settings = default_command(command, presets[0]) if presets else default_command(command)
    return settings_in_words(as_object(json.loads(json.dumps(settings, default=as_json))))


def shorten(cells: Sequence[str]) -> list[str]:
    """Cells for a terminal: without the folders that all long paths share, and none longer than LONGEST."""
    paths = [cell for cell in cells if "/" in cell]
    shared = os.path.commonpath(paths) + "/" if longest(cells) > LONGEST and same_kind(paths) else ""
    short = [
        f"…/{cell.removeprefix(shared)}" if len(shared) > 2 and cell.startswith(shared) else cell for cell in cells
    ]
    tail = LONGEST // 2
    return [
        printable(cell if len(cell) <= LONGEST else f"{cell[: LONGEST - tail - 1]}…{cell[-tail:]}") for cell in short
    ]


def same_kind(paths: Sequence[str]) -> bool:
    """Whether paths can share folders: several, and all from the root or none of them."""
    return len(set(paths)) > 1 and len({path.startswith("/") for path in paths}) == 1


def longest(cells: Sequence[str]) -> int:
    """Characters of the longest cell."""
    return max((len(cell) for cell in cells), default=0)


def printable(text: str) -> str:
    """Text that cannot move the cursor, change colours or break a line."""
    return "".join(character if character.isprintable() else "?" for character in text)


def layout(table: Sequence[Column], width: int) -> tuple[list[str], list[str]]:
    """The lines of a table, none wider than `width`, and the names of the columns that found no room.

    Headings are stacked (train. / encoder_ / rate); columns without any value are left out.
    """
    filled = [column for column in table if any(column.whole)]
    headings = [re.findall(r"[^._]*[._]?", printable(column.name))[:-1] for column in filled]
    sizes = [longest([*heading, *column.shown]) for heading, column in zip(headings, filled, strict=True)]
    edges = accumulate(len(GAP) + size for size in sizes)
    count = max(1, sum(edge - len(GAP) <= width for edge in edges))
    tallest = max(map(len, headings[:count]))
    blocks: list[list[str]] = []
    for column, heading, size in zip(filled[:count], headings, sizes, strict=False):
        cells = [*[""] * (tallest - len(heading)), *heading, *column.shown]
        right = all(NUMBER.fullmatch(cell) for cell in column.shown if cell)
        blocks.append([cell.rjust(size) if right else cell.ljust(size) for cell in cells])
    lines = [GAP.join(cells).rstrip() for cells in zip(*blocks, strict=True)]
    fitting = [line if len(line) <= width else line[: max(width - 1, 0)] + "…" for line in lines]
    return fitting, [column.name for column in filled[count:]]


def write_columns(table: Sequence[Column], path: Path) -> None:
    """experiments.csv: every column, every cell whole."""
    with open_text(path) as file:
        writer = csv.writer(file, lineterminator="\r\n")  # with "\n" alone Python 3.11 leaves "\r" in a cell unquoted
        writer.writerow([no_formula(column.name) for column in table])
        for cells in zip(*(column.whole for column in table), strict=True):
            writer.writerow([no_formula(cell) for cell in cells])


if __name__ == "__main__":
    launch(experiments, ExperimentsCommand)
