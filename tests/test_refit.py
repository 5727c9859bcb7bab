"""From verdicts to a classifier: the right windows teach it, the file answers, and what to listen to next is new."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from test_search import encoder, rows, write_calls

from config import PredictCommand, RefitCommand, SearchCommand, parse
from predictor import predict
from refit import recording_finder, refit
from search import search
from serving.detections import Analysed
from serving.results import COLUMNS, Detected
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


def test_the_terms_of_the_model_are_said_again_and_go_with_what_is_to_be_listened_to(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "index"
    shutil.copytree(index, copy)
    facts = json.loads((copy / "run.json").read_text())
    assert "licences" not in facts, "a control"
    terms = {"licences": ["NON-COMMERCIAL: made with the help of BirdNET 2.4"]}
    table = verdicts(tmp_path / "validation.csv", index, ("frog", 1100), ("toad", 2600))
    for said, out in (({}, tmp_path / "free"), (terms, tmp_path / "closed")):
        (copy / "run.json").write_text(json.dumps(facts | said))
        assert refit(parse(RefitCommand, [str(copy), str(table), "--out", str(out), "--next", "3"])) == 0
        assert ("\nNON-COMMERCIAL: made" in f"\n{capsys.readouterr().out}") == bool(said)
        for folder in (out, out / "next"):
            found = json.loads((folder / "run.json").read_text())
            assert {name: found[name] for name in ("licences", "model_cards") if name in found} == said


def told(path: Path, index: Path, *said: tuple[str, int, str, str, str], more: str = "") -> Path:
    """Verdicts: recording, window, label, answer and true species; `more` is a column and its cell."""
    files = {"/".join(Path(row["file"]).parts[-2:]): row["file"] for row in rows(index / "files.csv")}
    column, _, cell = more.partition("=")
    columns = ["Start (s)", "End (s)", "Common name", "Confidence", "File", "Species code", "Verdict", "True species"]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([*columns, column] if column else columns)
        for name, window, label, answer, species in said:
            cells = [5 * window, 5 * window + 5, label, 0.5, files.get(name, name), label, answer, species]
            table.writerow([*cells, cell] if column else cells)
    return path


def judged_by(index: Path, out: Path, *tables: Path) -> dict[str, tuple[int, int]]:
    """How many Yes and No each label has after a refit."""
    assert refit(parse(RefitCommand, [str(index), *map(str, tables), "--out", str(out), "--next", "0"])) in (0, 2)
    return {one["label"]: (one["yes"], one["no"]) for one in json.loads((out / "refit.json").read_text())["judged"]}


def test_verdicts_that_contradict_each_other_count_neither_as_yes_nor_as_no(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = verdicts(tmp_path / "ada.csv", index, ("frog", 1100), windows=2)  # 4 Yes, 4 No
    assert judged_by(index, tmp_path / "out", table) == {"frog": (4, 4)}
    assert "which verdicts contradict" not in capsys.readouterr().out
    ben = told(
        tmp_path / "ben.csv",
        index,
        ("pond/a.wav", 0, "Frog ", "no", ""),  # Ada says yes
        ("pond/a.wav", 1, "frog", "yes", ""),  # Ada says no
        ("pond/b.wav", 0, "newt", "no", "nothing"),  # Ada says that the frog is there
        ("pond/b.wav", 1, "newt", "no", "FROG"),  # Ada says that it is not
        ("ridge/c.wav", 0, "frog", "no", ""),  # they agree
        ("ridge/c.wav", 1, "frog", "unsure", ""),
    )
    for tables in ((table, ben), (ben, table)):
        assert judged_by(index, tmp_path / "out", *tables)["frog" if tables[0] == table else "Frog"] == (2, 2)
        assert "5 labels of windows on which verdicts contradict" in capsys.readouterr().out


def test_two_spellings_of_a_species_are_one_label(index: Path, tmp_path: Path) -> None:
    table = told(
        tmp_path / "v.csv",
        index,
        ("pond/a.wav", 0, "frog", "yes", ""),
        ("pond/a.wav", 1, "frog", "no", "Bufo fictus"),
        ("pond/b.wav", 3, "FROG", "no", "bufo  fictus"),
        ("ridge/c.wav", 0, "frog", "no", "Nothing"),
        ("ridge/c.wav", 2, "Bufo fictus", "no", "nothing"),
    )
    assert judged_by(index, tmp_path / "out", table) == {"Bufo fictus": (2, 3), "frog": (1, 4)}


def test_a_recording_of_the_same_name_at_another_site_is_another(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = verdicts(tmp_path / "good.csv", index, ("frog", 1100), windows=2)
    moved = ("/other/season/d.wav", 2, "frog", "no", "")
    wrong = told(tmp_path / "wrong.csv", index, moved, more="Site=marsh")
    assert judged_by(index, tmp_path / "out", good, wrong) == {"frog": (4, 4)}
    assert "1 verdicts are on windows" in capsys.readouterr().out
    for right in ("Site=ridge", "Site="):  # control: moved, or nobody says where
        assert judged_by(index, tmp_path / "out", good, told(tmp_path / "r.csv", index, moved, more=right)) == {
            "frog": (4, 5)
        }


def test_of_several_recordings_of_a_name_the_one_in_the_same_folders_is_meant(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = verdicts(tmp_path / "good.csv", index, ("frog", 1100), windows=2)  # 4 Yes, 4 No
    here, other = ("/card/ridge/d.wav", 2, "frog", "no", ""), ("/card/marsh/d.wav", 3, "frog", "no", "")
    both = told(tmp_path / "both.csv", index, here, other)
    assert judged_by(index, tmp_path / "out", good, both) == {"frog": (4, 5)}
    assert "1 verdicts are on windows" in capsys.readouterr().out
    strange_one = ("/card/moor/d.wav", 2, "frog", "no", "")
    strange = told(tmp_path / "strange.csv", index, strange_one, other)
    assert judged_by(index, tmp_path / "out", good, strange) == {"frog": (4, 4)}
    unjudged = told(tmp_path / "unjudged.csv", index, strange_one, (*other[:3], "unsure", ""))
    assert judged_by(index, tmp_path / "out", good, unjudged) == {"frog": (4, 4)}, "a table speaks in all of its rows"
    alone = told(tmp_path / "alone.csv", index, other)  # control: it may have been moved
    assert judged_by(index, tmp_path / "out", good, alone) == {"frog": (4, 5)}


def test_of_several_recordings_of_a_name_in_the_index_only_one_in_the_same_folders_will_do() -> None:
    places = ("/arch/siteA/2024-05-01/0500.wav", "/arch/siteB/2024-05-02/0500.wav", "/arch/siteB/2024-05-02/0600.wav")
    recordings = [Analysed(place, "", "", 16_000, 1, 9.0, 9.0, 1, "ok", "", 1, 1) for place in places]

    def found(*written: str) -> list[int | None]:
        find = recording_finder(recordings, set(written))
        cells = [tuple(place if column == "File" else "" for column in COLUMNS) for place in written]
        return [find(Detected(one, 0.0, 5.0, 0.5)) for one in cells]

    assert found("/arch/siteC/2024-05-01/0500.wav") == [None], "the day is the same and the site is not"
    assert found("siteA/2024-05-01/0500.wav", "siteB/2024-05-02/0500.wav") == [0, 1]
    assert found("2024-05-01/0500.wav", "0600.wav") == [0, 2]
    assert found("0500.wav") == [None], "it may be either"
    assert found("/card/0600.wav") == [2], "the only one may have been moved"


def test_a_refit_writes_over_nothing_that_another_command_wrote(index: Path, tmp_path: Path) -> None:
    table = verdicts(tmp_path / "validation.csv", index, ("frog", 1100))
    model = Path(json.loads((index / "store.json").read_text())["model"])
    copy = tmp_path / "models" / "classifier.onnx"
    copy.parent.mkdir()
    copy.write_bytes(model.read_bytes())
    before = copy.read_bytes()
    with pytest.raises(AssertionError, match=r"is the folder of .*classifier\.onnx, which made the index"):
        refit(parse(RefitCommand, [str(index), str(table), "--classifier", str(copy), "--out", str(copy.parent)]))
    assert copy.read_bytes() == before and [path.name for path in copy.parent.iterdir()] == ["classifier.onnx"]
    for name, content in ((".parts", None), ("run.json", {"kind": "quantize"})):
        place = tmp_path / f"of-{name}"
        place.mkdir()
        (place / name).mkdir() if content is None else (place / name).write_text(json.dumps(content))
        with pytest.raises(AssertionError, match=r"holds (an index|what another command wrote)"):
            refit(parse(RefitCommand, [str(index), str(table), "--out", str(place)]))
        assert [path.name for path in place.iterdir()] == [name]
    with pytest.raises(AssertionError, match=r"no file nowhere\.onnx; the index was made with .*whistles\.onnx"):
        refit(parse(RefitCommand, [str(index), str(table), "--classifier", "nowhere.onnx"]))


def test_an_index_of_an_openvino_file_is_refused_with_the_command_that_makes_another(
    index: Path, tmp_path: Path
) -> None:
    table = verdicts(tmp_path / "validation.csv", index, ("frog", 1100))
    facts = json.loads((index / "store.json").read_text())
    (tmp_path / "classifier.xml").write_text("<net/>")
    copied = tmp_path / "index"
    copied.mkdir()
    for path in index.iterdir():
        if path.is_file():
            (copied / path.name).symlink_to(path)
    (copied / "store.json").unlink()
    (copied / "store.json").write_text(json.dumps(facts | {"model": str(tmp_path / "classifier.xml")}))
    with pytest.raises(
        AssertionError, match=r"ONNX file alone; .*search\.py index .*--model \S*classifier\.onnx --index"
    ):
        refit(parse(RefitCommand, [str(copied), str(table)]))


def test_when_all_was_listened_to_nothing_is_left_to_listen_to(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = verdicts(tmp_path / "some.csv", index, ("frog", 1100))
    every = verdicts(tmp_path / "every.csv", index, ("frog", 1100), windows=5)
    words, following = ["--out", str(tmp_path / "out")], tmp_path / "out" / "next"
    assert refit(parse(RefitCommand, [str(index), str(some), *words])) == 0 and (following / "detections.csv").is_file()
    assert "to listen on: " in capsys.readouterr().out
    (following / "validation.csv").write_text("the user's")
    assert refit(parse(RefitCommand, [str(index), str(every), *words])) == 0
    said = capsys.readouterr().out
    assert "every window of the index was listened to" in said and "to listen on: " not in said
    assert [path.name for path in following.iterdir()] == ["validation.csv"]


def test_what_to_listen_to_next_was_not_listened_to(index: Path, tmp_path: Path) -> None:
    table = verdicts(tmp_path / "validation.csv", index, ("frog", 1100))
    assert refit(parse(RefitCommand, [str(index), str(table), "--out", str(tmp_path / "out"), "--next", "99"])) == 0
    following = rows(tmp_path / "out" / "next" / "detections.csv")
    assert {float(row["Start (s)"]) for row in following} == {20.0} and len(following) == 4  # the fifth of each
    assert {row["Species code"] for row in following} == {"frog"}
    sites = [row["Site"] for row in following]
    assert sorted(sites[:2]) == ["pond", "ridge"]  # they take turns
    facts = json.loads((tmp_path / "out" / "next" / "run.json").read_text())
    assert facts["status"] == "finished" and facts["index"] == str(index)
    model, place = tmp_path / "out" / "classifier.onnx", tmp_path / "out" / "next"
    with pytest.raises(AssertionError, match="another command wrote"):
        predict(PredictCommand((index.with_name("season"),), model=(model,), out=place))
    assert not (place / ".parts").exists() and rows(place / "detections.csv") == following


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
    # the table speaks of ridge/d.wav too, so /moved/d.wav is another recording
    assert "3 verdicts are on windows" in capsys.readouterr().out
    moved = told(
        tmp_path / "moved.csv", index, ("/moved/d.wav", 0, "frog", "no", ""), ("/moved/d.wav", 100, "frog", "yes", "")
    )
    words = [str(index), str(table), str(moved), "--out", str(tmp_path / "out"), "--next", "0"]
    assert refit(parse(RefitCommand, words)) == 2
    assert "4 verdicts are on windows" in capsys.readouterr().out  # in a table of its own it is ours, moved


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
