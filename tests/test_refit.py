"""From verdicts to a classifier: the right windows teach it, the file answers, and what to listen to next is new."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from test_search import encoder, rows, write_calls

from config import RefitCommand, SearchCommand, parse
from refit import refit
from search import search
from serving.scorer import answers_of, open_scorer
from serving.vectors import open_store

__all__ = ("encoder",)
CALLS = {  # of each recording, window by window
    "pond/a.wav": (1100, 2600, 0, 1100, 0),
    "pond/b.wav": (1100, 0, 700, 2600, 0),
    "ridge/c.wav": (2600, 1100, 0, 0, 1100),
    "ridge/d.wav": (0, 1100, 2600, 2600, 0),
}


@pytest.fixture(scope="module")
def index(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refit")
    for number, (name, pitches) in enumerate(CALLS.items()):
        write_calls(folder / "season" / name, *pitches, phase=float(number))
    words = ["index", str(folder / "season"), "--index", str(folder / "index"), "--model", str(encoder)]
    assert search(parse(SearchCommand, words)) == 0
    return folder / "index"


def verdicts(path: Path, index: Path, *labels: tuple[str, int], windows: int = 4, species: str = "") -> Path:
    """Somebody who listened to the first windows of every recording and knows each label's pitch."""
    files = [row["file"] for row in rows(index / "files.csv")]
    columns = (
        "Start (s)",
        "End (s)",
        "Scientific name",
        "Common name",
        "Confidence",
        "File",
        "Species code",
        "Verdict",
    )
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([*columns, "True species"])
        for name in files:
            for window in range(windows):
                for label, pitch in labels:
                    right = CALLS["/".join(Path(name).parts[-2:])][window] == pitch
                    table.writerow(
                        [
                            5 * window,
                            5 * window + 5,
                            "",
                            label,
                            0.5,
                            name,
                            label,
                            "yes" if right else "no",
                            "" if right else species,
                        ]
                    )
    return path


def test_verdicts_become_a_classifier_that_knows_windows_nobody_judged(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = verdicts(tmp_path / "validation.csv", index, ("frog", 1100), ("toad", 2600))
    assert refit(parse(RefitCommand, [str(index), str(table), "--out", str(tmp_path / "out"), "--next", "3"])) == 0
    scorer = open_scorer(tmp_path / "out" / "classifier.onnx", threads=1)
    assert scorer.taxonomy.labels == ("frog", "toad")
    time = np.arange(80_000) / 16_000
    noise = np.random.default_rng(9).normal(0, 0.02, (3, 80_000))
    sound = np.stack([0.2 * np.sin(2 * np.pi * pitch * time) for pitch in (1100, 2600, 0)]).astype(np.float32)
    sound += noise.astype(np.float32)
    given = np.concatenate([one.probabilities for one in answers_of(scorer, sound)])
    limits = scorer.thresholds.applied
    assert (given >= limits).tolist() == [[True, False], [False, True], [False, False]]
    card = json.loads((tmp_path / "out" / "refit.json").read_text())
    assert [(one["label"], one["yes"], one["no"]) for one in card["judged"]] == [("frog", 5, 11), ("toad", 5, 11)]
    assert all(one["average_precision"] == 1 for one in card["judged"]) and card["windows"] == 16
    assert [row["label"] for row in rows(tmp_path / "out" / "thresholds.csv")] == ["frog", "toad"]
    said = capsys.readouterr().out
    assert "other recordings" in said and "predictor.py" in said and "report.py" in said


def test_what_to_listen_to_next_was_not_listened_to(index: Path, tmp_path: Path) -> None:
    table = verdicts(tmp_path / "validation.csv", index, ("frog", 1100))
    assert refit(parse(RefitCommand, [str(index), str(table), "--out", str(tmp_path / "out"), "--next", "99"])) == 0
    following = rows(tmp_path / "out" / "next" / "detections.csv")
    assert {float(row["Start (s)"]) for row in following} == {20.0} and len(following) == 4  # the fifth of each
    assert {row["Species code"] for row in following} == {"frog"}
    sites = [row["Site"] for row in following]
    assert sorted(sites[:2]) == ["pond", "ridge"]  # they take turns
    assert json.loads((tmp_path / "out" / "next" / "run.json").read_text())["status"] == "finished"


def test_a_species_named_instead_of_a_denied_one_is_there(index: Path, tmp_path: Path) -> None:
    denied = verdicts(tmp_path / "a.csv", index, ("frog", 1100), windows=1, species="nothing")
    named = verdicts(tmp_path / "b.csv", index, ("toad", 2600), windows=1, species="frog")
    assert refit(parse(RefitCommand, [str(index), str(named), "--out", str(tmp_path / "out"), "--next", "0"])) == 0
    card = json.loads((tmp_path / "out" / "refit.json").read_text())
    assert {one["label"]: (one["yes"], one["no"]) for one in card["judged"]} == {"frog": (3, 1), "toad": (1, 3)}
    assert refit(parse(RefitCommand, [str(index), str(denied), "--out", str(tmp_path / "out"), "--next", "0"])) == 0
    card = json.loads((tmp_path / "out" / "refit.json").read_text())
    assert {one["label"]: (one["yes"], one["no"]) for one in card["judged"]} == {"frog": (2, 2)}


def test_verdicts_on_other_windows_are_counted_and_exit_code_2(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = verdicts(tmp_path / "validation.csv", index, ("frog", 1100), windows=3)
    with table.open("a", encoding="utf-8") as file:
        file.write("0,5,,frog,0.5,elsewhere/z.wav,frog,yes,\n0,5,,frog,0.5,/moved/d.wav,frog,no,\n")
        file.write("500,505,,frog,0.5,/moved/d.wav,frog,yes,\n")
    assert refit(parse(RefitCommand, [str(index), str(table), "--out", str(tmp_path / "out"), "--next", "0"])) == 2
    assert "2 verdicts are on windows" in capsys.readouterr().out  # a moved recording of the same name is known


def test_verdicts_that_teach_nothing_are_one_line(index: Path, tmp_path: Path) -> None:
    table = verdicts(tmp_path / "validation.csv", index, ("frog", 4000))
    with pytest.raises(AssertionError, match=r"no label has a Yes and a No \(frog\)"):
        refit(parse(RefitCommand, [str(index), str(table), "--out", str(tmp_path / "out")]))
    with pytest.raises(AssertionError, match="give an index and verdicts"):
        refit(parse(RefitCommand, [str(index)]))
    with pytest.raises(AssertionError, match=r"no .*nowhere\.csv"):
        refit(parse(RefitCommand, [str(index), str(tmp_path / "nowhere.csv")]))
    good = verdicts(tmp_path / "good.csv", index, ("frog", 1100))
    with pytest.raises(AssertionError, match="is the index itself"):
        refit(parse(RefitCommand, [str(index), str(good), "--out", str(index)]))
    with pytest.raises(AssertionError, match="its embeddings are others"):
        refit(parse(RefitCommand, [str(index), str(good), "--classifier", str(good)]))
    assert not (tmp_path / "out").exists() and len(open_store(index).vectors) == 20
