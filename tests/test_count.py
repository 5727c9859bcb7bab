"""The command: what it says with and without verdicts, its plan, and what it refuses."""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pretend import SPECIES, read_rows, write_results, write_table

import count
import report
from config import CountCommand, ReportCommand, parse
from serving.detections import DETECTION_COLUMNS
from serving.results import Detected, read_results
from serving.review import ADDED
from sounds.audio import as_mp3
from sounds.clips import Clip, png

FROG = "9000117"
PICTURE, SOUND = png(np.zeros((2, 2), np.uint8)), as_mp3(np.zeros(240, np.float32), 24_000)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return write_results(tmp_path, recordings=4, windows=30)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[Detected]:
    """Clips are the slow part; returns what is asked for."""
    asked = list[Detected]()

    def cut(drawn: Sequence[Detected], *_: object) -> list[Clip]:
        asked.extend(drawn)
        return [Clip(PICTURE, SOUND, 2.0, 9.0, 8_000, -12.0)] * len(drawn)

    monkeypatch.setattr(report, "cut_clips", cut)
    return asked


def command(folder: Path, **settings: Any) -> CountCommand:
    return replace(CountCommand(folder), **settings)


def say(found: Sequence[Detected], path: Path, wrong_below: float = 0.0, drawn: str = "plan") -> Path:
    """The validation.csv of somebody who listened: Yes from a confidence on."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow([*DETECTION_COLUMNS, *ADDED])
        for d in found:
            answer = "yes" if d.confidence >= wrong_below else "no"
            table.writerow([*d.cells, "", answer, "", "Ada", "2026-06-01", drawn])
    return path


def test_without_verdicts_it_says_what_cannot_be_said(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert count.count(command(results)) == 0
    printed = capsys.readouterr().out
    assert "cannot be said" in printed and "--plan" in printed and "not known" in printed
    rows = read_rows(results / "counts" / "counts.csv")
    assert {row["density"] + row["presence_low"] for row in rows} == {""}
    assert {row["species_code"] for row in rows} == {FROG, "greti"}, "an answer above species is none"
    first = next(row for row in rows if row["species_code"] == FROG)
    assert (first["site"], first["period"], first["hours"], first["windows"]) == (
        "site A",
        "2026-05-14",
        "0.0417",
        "30",
    )
    assert sum(int(row["detections"]) for row in rows) == 80
    assert {path.name for path in (results / "counts").iterdir()} == {
        *("counts.csv", "season.csv", "hours.svg", "weeks.svg", "species.svg"),
    }


def test_with_verdicts_the_truth_lies_in_the_interval(results: Path, tmp_path: Path) -> None:
    found = [d for d in read_results(results).detections if d.label == FROG]
    path = say(found[::2], tmp_path / "validation.csv", wrong_below=0.4)
    assert count.count(command(results, verdicts=(path,))) == 0
    rows = {row["species_code"]: row for row in read_rows(results / "counts" / "season.csv") if row["site"][0] == "("}
    truth = sum(d.confidence >= 0.4 for d in found) / 120
    low, high = (float(rows[FROG][f"density_{end}"]) for end in ("low", "high"))
    assert low <= truth <= high and high - low < 0.1 and rows[FROG]["counted"] == "detections"
    assert rows["greti"]["density"] == "" and rows["greti"]["counted"] == "no verdicts"
    before = (results / "counts" / "counts.csv").read_bytes()
    count.count(command(results, verdicts=(path,)))
    assert (results / "counts" / "counts.csv").read_bytes() == before, "the same seed says the same"


@pytest.mark.parametrize(
    ("drawn", "said", "code"),
    [
        ("even", None, 0),
        ("", "40 verdicts do not say how their windows were drawn", 0),
        ("top", "40 verdicts are left out: their windows are no random sample (drawn: top)", 2),
        ("even, without voices", "(drawn: even, without voices)", 2),
        ("ranked", "(drawn: ranked)", 2),
    ],
)
def test_only_windows_drawn_at_random_are_counted_from(
    drawn: str, said: str | None, code: int, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [d for d in read_results(results).detections if d.label == FROG]
    path = say(found, tmp_path / "validation.csv", drawn=drawn)
    assert count.count(command(results, verdicts=(path,))) == code
    printed = capsys.readouterr().out
    assert said in printed if said else "windows were drawn" not in printed and "(drawn:" not in printed
    rows = {row["species_code"]: row for row in read_rows(results / "counts" / "season.csv") if row["site"][0] == "("}
    assert (rows[FROG]["density"] == "") == (code == 2)


def test_what_is_denied_is_given_to_nobody_however_its_window_was_drawn(results: Path, tmp_path: Path) -> None:
    """Counted from it is not: such windows are no random sample."""
    found = [d for d in read_results(results).detections if d.label == FROG]
    denied = sum(d.confidence < 0.4 for d in found)
    given: list[int] = []
    for drawn in ("plan", "top"):
        path = say(found, tmp_path / f"{drawn}.csv", wrong_below=0.4, drawn=drawn)
        count.count(command(results, verdicts=(path,), export=("crowsetta",)))
        rows = read_rows(results / "counts" / "exchange" / "crowsetta.csv")
        given.append(sum("Rana" in row["label"] or row["label"] == FROG for row in rows))
    assert denied > 0 and given == [len(found) - denied] * 2


def test_windows_chosen_from_an_index_are_not_counted(results: Path) -> None:
    facts = json.loads((results / "run.json").read_text())
    (results / "run.json").write_text(json.dumps(facts | {"index": "/field/season.index"}))
    with pytest.raises(AssertionError, match=r"windows of an index .* refit.py /field/season.index"):
        count.count(command(results))


def test_sites_at_which_other_things_are_taken_for_a_species_are_noticed(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        row | {"Confidence": f"{(number % 30 + 1) / 31:.4f}"}
        for number, row in enumerate(read_rows(results / "detections.csv"))
    ]
    write_table(results / "detections.csv", DETECTION_COLUMNS, rows)
    found = [d for d in read_results(results).detections if d.label == FROG]
    for first, second, expected in ((0.5, 0.5, False), (0.0, 2.0, True)):  # what is below that is wrong at a site
        paths = [
            say([d for d in found if d.cell("Site") == site], tmp_path / f"{site}.csv", wrong_below)
            for site, wrong_below in (("site A", first), ("site B", second))
        ]
        count.count(command(results, verdicts=tuple(paths)))
        assert ("sites differ in what is taken for pretend frog" in capsys.readouterr().out) == expected


def test_periods_are_hours_days_or_weeks(results: Path) -> None:
    periods = {}
    for by in ("hour", "day", "week"):
        count.count(command(results, by=by))
        periods[by] = {row["period"] for row in read_rows(results / "counts" / "counts.csv")}
    assert periods["day"] == {"2026-05-14", "2026-05-15"} and periods["week"] == {"2026-W20"}
    assert "2026-05-14T03" in periods["hour"]


def test_a_plan_is_a_page_and_its_verdicts_count(
    results: Path, tmp_path: Path, quick: list[Detected], capsys: pytest.CaptureFixture[str]
) -> None:
    assert count.count(command(results, plan=True, width=0.3, missed=6)) == 0
    plan = read_rows(results / "counts" / "plan.csv")
    assert sum(int(row["to_listen"]) for row in plan) == len(quick)
    assert (results / "counts" / "listen.html").is_file() and "to listen to" in capsys.readouterr().out
    missed = [d for d in quick if d.confidence == 0]
    known = {(d.file, d.start, d.label) for d in read_results(results).detections}
    assert len(missed) == 12 and not known & {(d.file, d.start, d.label) for d in missed}
    path = say(quick, tmp_path / "validation.csv", wrong_below=0.5)
    assert count.count(command(results, verdicts=(path,))) == 0
    whole = [row for row in read_rows(results / "counts" / "season.csv") if row["site"][0] == "("]
    assert {row["counted"] for row in whole} == {"all windows"}
    assert all(float(row["density_low"]) > 0 for row in whole)


@pytest.mark.parametrize("channel", ["mean", "2", "each"])
def test_windows_without_a_detection_are_drawn_from_all_there_are(channel: str, tmp_path: Path) -> None:
    """Of recordings of 12 s that are 0-5, 5-10 and 10-12 s, whatever the first detection is like."""
    folder, numbers = tmp_path / "results", {"mean": ["mean"], "2": ["2"], "each": ["1", "2"]}[channel]
    write_results(tmp_path, 2, 3, (SPECIES[0],))
    facts = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(facts | {"settings": {"channel": channel}}))
    files = [row for row in read_rows(folder / "files.csv") if row["status"] == "ok"]
    short = {"seconds_claimed": "12", "seconds_analysed": "7", "seconds_silent": "5", "channels": "2"}
    results = read_results(folder)
    last = max(results.detections, key=lambda d: (d.file, d.start))
    cells = ["10", "12", *last.cells[2:]]
    cells[DETECTION_COLUMNS.index("Channel")] = numbers[-1]
    only = replace(last, cells=tuple(cells), start=10.0, end=12.0)
    results = replace(results, detections=(only,), files=tuple(row | short for row in files))
    generator, grid = np.random.default_rng(0), count.Grid(results)
    times_of_all = [(0.0, 5.0), (5.0, 10.0), (10.0, 12.0)]
    windows = [d.window for d in count.missed_windows(grid, [only], 99, generator)]
    everything = {(row["file"], *times, number) for row in files for times in times_of_all for number in numbers}
    assert sorted(windows) == sorted(everything - {only.window}), "each once, and what was detected is none of them"
    first = [count.missed_windows(grid, [only], 1, generator)[0].window for _ in range(600)]
    shares = np.array(list(Counter(first).values())) / 600
    assert len(shares) == len(windows) and abs(shares - 1 / len(windows)).max() < 0.08, "any as likely as another"


def test_a_plan_leaves_no_window_out_because_somebody_speaks(results: Path) -> None:
    found = read_results(results)
    for searched, settings, flags, expected in (
        (False, {}, {}, "off"),
        (True, {}, {}, "report"),
        (True, {"voices": "mute"}, {}, "mute"),
        (True, {}, {"voices": "off"}, "off"),
    ):
        these = replace(found, searched=searched, facts={"settings": settings})
        assert count.plan_voices(command(results, plan=True, **flags), these) == expected
    assert report.chosen_voices(ReportCommand(results), replace(found, searched=True)) == "skip", "as a page does else"


def test_a_rare_species_all_of_whose_detections_were_judged_is_known(tmp_path: Path) -> None:
    results = write_results(tmp_path, 2, 2, (SPECIES[0],))
    found = read_results(results).detections
    count.count(command(results, verdicts=(say(found, tmp_path / "v.csv", wrong_below=0.5),)))
    season = read_rows(results / "counts" / "season.csv")[-1]
    truth = sum(d.confidence >= 0.5 for d in found) / 4
    assert {float(season[name]) for name in ("density", "density_low", "density_high")} == {truth}
    count.count(command(results, verdicts=(say(found[1:], tmp_path / "v.csv"),)))
    assert read_rows(results / "counts" / "season.csv")[-1]["density"] == "", "three of four are too few"


def test_the_curves_of_species_rise_on_the_day_of_the_first_detection(tmp_path: Path) -> None:
    results = write_results(tmp_path, 6, 9, (SPECIES[0],))
    found = read_results(results)
    frogs = {FROG: [*found.detections[20:], replace(found.detections[0], confidence=0.0)]}
    for by, day in (("day", "2026-05-15"), ("week", "2026-W20")):
        curves = count.accumulated(found, frogs, {FROG: {("site A", day): 1.0}})
        assert [height for _, height in curves["detected"]] == [0, 0, 1, 1], "a window listened to is no detection"
        sure = [height for name, curve in curves.items() if name != "detected" for _, height in curve]
        assert sure == ([0, 0, 1, 1] if by == "day" else [0, 0, 0, 0]), "a week counts from its end"


def test_a_plan_for_answers_above_species_alone_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = write_results(tmp_path, 2, 3, (("genus Rana", "Rana", ""),))
    assert count.count(command(results, plan=True)) == 0
    assert "nothing more needs listening to" in capsys.readouterr().out


def test_verdicts_of_something_else_are_counted_and_make_the_code_2(
    results: Path, tmp_path: Path, quick: list[Detected], capsys: pytest.CaptureFixture[str]
) -> None:
    found = read_results(results).detections
    strange = replace(found[0], start=1.25, end=6.25)
    cells = list(strange.cells)
    cells[0], cells[1] = "1.25", "6.25"
    path = say([*found[1:3], replace(strange, cells=tuple(cells))], tmp_path / "validation.csv")
    for plan in (False, True):
        assert count.count(command(results, verdicts=(path,), plan=plan)) == 2
        assert "1 verdicts are of no detection here" in capsys.readouterr().out
    assert quick


def test_without_files_csv_there_is_no_effort(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (results / "files.csv").unlink()
    assert count.count(command(results)) == 0
    assert "effort is not known" in capsys.readouterr().out
    assert {row["hours"] for row in read_rows(results / "counts" / "counts.csv")} == {"0"}
    with pytest.raises(AssertionError, match="needs files"):
        count.count(command(results, plan=True, missed=5))


def test_names_that_are_formulas_or_markup_are_neither(tmp_path: Path) -> None:
    name = "=cmd()<script>"
    results = write_results(tmp_path, 2, 9, (("a", "Rana ficta", name),), rows={"Site": name})
    count.count(command(results))
    assert read_rows(results / "counts" / "counts.csv")[0]["common_name"] == f"'{name}"
    assert "<script>" not in (results / "counts" / "hours.svg").read_text()


def test_flags_that_would_do_nothing_are_refused() -> None:
    for words in (["--missed", "5"], ["--coarsen_km", "5"], ["--plan", "--export", "aoef"], ["--width", "0"]):
        with pytest.raises(AssertionError, match=words[0]):
            parse(CountCommand, ["results", *words])
    assert parse(CountCommand, ["results", "--plan", "--missed", "5"]).missed == 5
