"""Find by example: the right windows first, whatever the example; an index that goes on, and nothing half written."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
from conftest import Stages
from onnx import TensorProto, helper, numpy_helper

from config import PredictCommand, SearchCommand, parse
from predictor import predict
from search import search
from serving.journal import Journal
from serving.results import read_results
from serving.scorer import FORMAT, METADATA
from serving.vectors import open_store
from taxonomy import RANKS

RATE, WINDOW = 16_000, 80_000
PITCHES = (400, 700, 1100, 1700, 2600, 4000)  # Hz: six animals that whistle


def whistle_model(path: Path) -> Path:
    """An encoder that knows how loud each pitch is in a window, and no species."""
    angles = 2 * np.pi * np.array(PITCHES) * np.arange(WINDOW)[:, None] / RATE
    tables = {"cos": np.cos(angles).astype(np.float32) / 100, "sin": np.sin(angles).astype(np.float32) / 100}
    nodes = [helper.make_node("MatMul", ["waveforms", name], [f"{name}_sum"]) for name in tables]
    nodes += [helper.make_node("Mul", [f"{name}_sum"] * 2, [f"{name}_power"]) for name in tables]
    nodes += [helper.make_node("Add", ["cos_power", "sin_power"], ["power"])]
    nodes += [helper.make_node("Sqrt", ["power"], ["embeddings"])]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("waveforms", WINDOW), ("embeddings", len(PITCHES)))
    ]
    weights = [numpy_helper.from_array(table, name) for name, table in tables.items()]
    graph = helper.make_graph(nodes, "whistles", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    names = ("labels", "scientific_names", "common_names", "lineages", "finest")
    taxonomy = {"ranks": RANKS} | {name: list[str]() for name in names}
    facts = {"format": FORMAT, "audio": {}, "taxonomy": taxonomy, "precision": "float32", "verified": False}
    helper.set_model_props(model, {METADATA: json.dumps(facts)})
    onnx.save(model, path)
    return path


def write_calls(path: Path, *pitches: float, phase: float = 0.0) -> Path:
    """A recording in which each window of 5 s holds one whistle, or noise alone where the pitch is 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng, time = np.random.default_rng(len(path.name)), np.arange(WINDOW) / RATE
    calls = [0.2 * np.sin(2 * np.pi * pitch * time + phase) * (pitch > 0) for pitch in pitches]
    soundfile.write(path, np.concatenate(calls) + rng.normal(0, 0.02, WINDOW * len(pitches)), RATE)
    return path


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whistle_model(tmp_path_factory.mktemp("encoder") / "whistles.onnx")


@pytest.fixture
def field(tmp_path: Path) -> Path:
    """Two sites; 1100 Hz whistles at 5 s of the pond's dawn and at 10 s of the ridge's."""
    write_calls(tmp_path / "season" / "pond" / "20260514_053000.wav", 400, 1100, 0, 2600, phase=1.0)
    write_calls(tmp_path / "season" / "ridge" / "dawn.wav", 700, 0, 1100, 4000, 1700, phase=2.0)
    return tmp_path / "season"


@pytest.fixture
def run(tmp_path: Path, encoder: Path, field: Path) -> Callable[..., int]:
    """The command, with the index and the model of the test."""

    def given(action: str, *words: object) -> int:
        usual = [field, "--index", tmp_path / "index", "--model", encoder] if action == "index" else []
        usual = [tmp_path / "index"] if action == "query" else usual
        return search(parse(SearchCommand, [action, *map(str, usual), *map(str, words)]))

    return given


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def found(folder: Path) -> list[tuple[str, float]]:
    """Recording and start of what was found, in its order."""
    return [(Path(row["File"]).name, float(row["Start (s)"])) for row in rows(folder / "detections.csv")]


def test_an_example_finds_its_like_first_and_the_tables_say_where(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("index") == 0
    call = write_calls(tmp_path / "call.wav", 1100)
    assert run("query", call, "--most", 4) == 0
    out = tmp_path / "index" / "like-call"
    assert sorted(found(out)[:2]) == [("20260514_053000.wav", 5), ("dawn.wav", 10)]
    table = rows(out / "detections.csv")
    scores = [float(row["Confidence"]) for row in table]
    assert scores == sorted(scores, reverse=True) and scores[1] > 0.9 > 0.5 > scores[2]
    assert {row["Common name"] for row in table} == {"like call"} and {row["Species code"] for row in table} == {"call"}
    pond = next(row for row in table if row["File"].endswith("053000.wav"))
    assert (pond["Site"], pond["Detected at"]) == ("pond", "2026-05-14T05:30:05")
    assert [row["windows"] for row in rows(out / "files.csv")] == ["4", "5"]
    said = capsys.readouterr().out
    assert "9 windows of 2 recordings" in said and f"report.py {out}" in said


def test_several_examples_find_all_of_them_and_a_counter_example_takes_its_like_away(
    run: Callable[..., int], tmp_path: Path
) -> None:
    run("index")
    one, other = write_calls(tmp_path / "one.wav", 1100), write_calls(tmp_path / "other.wav", 4000)
    assert run("query", one, other, "--most", 3, "--name", "Rana ficta", "--out", tmp_path / "both") == 0
    assert sorted(found(tmp_path / "both")) == [("20260514_053000.wav", 5), ("dawn.wav", 10), ("dawn.wav", 15)]
    assert {row["Scientific name"] for row in rows(tmp_path / "both" / "detections.csv")} == {"Rana ficta"}
    assert run("query", one, other, "--not", other, "--out", tmp_path / "one", "--rtype", "table") == 0
    assert (tmp_path / "one" / "exports" / "raven.selections.txt").is_file()  # and detections.csv, which is read next
    assert read_results(tmp_path / "one").facts["index"] == str(tmp_path / "index")
    assert ("dawn.wav", 15) not in found(tmp_path / "one") and ("dawn.wav", 10) in found(tmp_path / "one")


@pytest.mark.parametrize("name", ["a/b", "a\\b", "..", " frog", "frog\n", "x" * 101, "what?"])
def test_a_name_that_would_lead_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(AssertionError, match=r"--name .* is no plain name"):
        SearchCommand("query", (Path("season.index"), Path("call.wav")), name=name)
    assert SearchCommand("query", name="Rana sp. (évora) 2").name


def test_at_names_the_window_whose_middle_is_nearest(run: Callable[..., int], tmp_path: Path) -> None:
    run("index")
    long = write_calls(tmp_path / "long.wav", 400, 4000, 400)
    assert run("query", long, "--at", 8, "--most", 1) == 0
    assert found(tmp_path / "index" / "like-long") == [("dawn.wav", 15)]
    assert run("query", long, "--most", 2) == 0  # control: without it all windows are examples
    assert sorted(found(tmp_path / "index" / "like-long")) == [("20260514_053000.wav", 0), ("dawn.wav", 15)]
    with pytest.raises(AssertionError, match=r"--at 15: .*ends at 15 s"):
        run("query", long, "--at", 15)


def embedded_again(*_given: object) -> None:
    pytest.fail("embedded again")


def test_an_index_goes_on_takes_new_recordings_and_ends_as_if_made_at_once(
    run: Callable[..., int], field: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, saved = Journal.save, list[Path]()

    def counted(journal: Journal, entry: Any, *rest: Any) -> None:
        if len(saved) == 1:
            raise KeyboardInterrupt
        saved.append(entry.path)
        save(journal, entry, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "save", counted)
        with pytest.raises(KeyboardInterrupt):
            run("index")
    assert not (tmp_path / "index" / "store.json").exists() and run("index") == 0
    monkeypatch.setattr(Journal, "save", embedded_again)
    assert run("index") == 0
    monkeypatch.undo()
    write_calls(field / "pond" / "noon.wav", 1100)
    assert run("index") == 0
    again = {path.name: path.read_bytes() for path in (tmp_path / "index").glob("*.npy")}
    assert run("index", "--index", tmp_path / "anew") == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "anew").glob("*.npy")} == again
    assert len(open_store(tmp_path / "anew").vectors) == 10


def test_shards_make_together_what_one_makes(run: Callable[..., int], tmp_path: Path) -> None:
    for shard in ("1/2", "2/2"):
        assert run("index", "--shard", shard) == 0
        assert not (tmp_path / "index" / "store.json").exists()
    assert run("index") == 0 and run("index", "--index", tmp_path / "whole") == 0
    stores = [{path.name for path in (tmp_path / name).glob("*.npy")} for name in ("index", "whole")]
    assert stores[0] == stores[1] and len(stores[0]) == 6


def test_what_cannot_be_read_is_a_row_and_exit_code_2(run: Callable[..., int], field: Path, tmp_path: Path) -> None:
    (field / "ridge" / "broken.wav").write_text("no sound")
    assert run("index") == 2
    assert [row["status"] for row in rows(tmp_path / "index" / "files.csv")] == ["ok", "unreadable", "ok"]
    call = write_calls(tmp_path / "call.wav", 4000)
    assert run("query", call, "--most", 1) == 0 and found(tmp_path / "index" / "like-call") == [("dawn.wav", 15)]


def test_an_index_is_asked_with_the_file_that_made_it(run: Callable[..., int], tmp_path: Path) -> None:
    run("index")
    call = write_calls(tmp_path / "call.wav", 1100)
    other = tmp_path / "other.onnx"
    model = onnx.load(whistle_model(other))
    model.doc_string = "another"
    onnx.save(model, other)
    with pytest.raises(AssertionError, match="not the file that the index was made with"):
        run("query", call, "--model", other)
    table = json.loads((tmp_path / "index" / "store.json").read_text())
    (tmp_path / "index" / "store.json").write_text(json.dumps(table | {"model": "/gone.onnx"}))
    with pytest.raises(AssertionError, match=r"/gone\.onnx, which is not there; say with --model"):
        run("query", call)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("query", "index"), "give an index and an example"),
        (("query", "nothing", "call.wav"), "no index in nothing"),
        (("index", "nothing"), "not found: nothing"),
        (("index",), "no recordings given"),
        (("query", "index", "call.wav", "--restart"), "--restart does nothing with query"),
        (("index", "season", "--at", "3"), "--at does nothing with index"),
        (("query", "index", "call.wav", "--most", "0"), "--most 0"),
    ],
)
def test_bad_words_are_one_line_each(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        search(parse(SearchCommand, list(words)))


def test_examples_that_are_missing_or_hold_no_sound_are_named(run: Callable[..., int], tmp_path: Path) -> None:
    run("index")
    with pytest.raises(AssertionError, match=r"not found: .*gone\.wav"):
        run("query", tmp_path / "gone.wav")
    soundfile.write(tmp_path / "silent.wav", np.zeros(WINDOW), RATE)
    with pytest.raises(AssertionError, match=r"silent\.wav: "):
        run("query", tmp_path / "silent.wav")
    call = write_calls(tmp_path / "call.wav", 1100)
    with pytest.raises(AssertionError, match="2 times --at for 1 examples"):
        run("query", call, "--at", 1, "--at", 2)
    with pytest.raises(AssertionError, match="is the index itself"):
        run("query", call, "--out", tmp_path / "index")


def test_an_encoder_without_species_predicts_nothing(encoder: Path, field: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"knows no species; `python search\.py index`"):
        predict(PredictCommand((field,), model=(encoder,), out=tmp_path / "out"))


def test_a_classifier_of_ours_makes_an_index(stages: Stages, field: Path, tmp_path: Path) -> None:
    words = ["index", str(field), "--index", str(tmp_path / "index"), "--model", str(stages.model)]
    assert search(parse(SearchCommand, words)) == 0
    store = open_store(tmp_path / "index")
    assert store.vectors.shape[0] == 9 and store.facts["model_name"] == "classifier.int8.onnx"
    pond = field / "pond" / "20260514_053000.wav"  # a recording of the index finds itself
    assert search(parse(SearchCommand, ["query", str(tmp_path / "index"), str(pond), "--most", "4"])) == 0
    table = rows(tmp_path / "index" / "like-20260514_053000" / "detections.csv")
    assert [(Path(row["File"]).name, row["Confidence"]) for row in table] == [(pond.name, "1.0000")] * 4


def test_a_mono_example_asks_an_index_of_the_second_channel(
    run: Callable[..., int], field: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls, _ = soundfile.read(field / "ridge" / "dawn.wav", dtype="float32")
    other, _ = soundfile.read(write_calls(tmp_path / "other.wav", 4000, 4000, 4000, 4000, 4000), dtype="float32")
    for path in field.rglob("*.wav"):
        soundfile.write(path, np.stack([other, calls], axis=1), RATE)
    assert run("index", "--channel", 2) == 0
    call = write_calls(tmp_path / "call.wav", 1100)
    assert run("query", call, "--most", 2) == 0
    assert {start for _, start in found(tmp_path / "index" / "like-call")} == {10.0}
    assert "call.wav has 1 channels, and the index is of channel 2: the mean of all is taken" in capsys.readouterr().out
    two = tmp_path / "two.wav"  # control: of an example that has it, the second channel counts
    soundfile.write(two, np.stack([other[:WINDOW], calls[2 * WINDOW : 3 * WINDOW]], axis=1), RATE)
    assert run("query", two, "--most", 2) == 0
    assert found(tmp_path / "index" / "like-two") == found(tmp_path / "index" / "like-call")
    assert "the mean of all is taken" not in capsys.readouterr().out


def test_what_a_query_refuses_it_refuses_before_anything_is_written(run: Callable[..., int], tmp_path: Path) -> None:
    run("index")
    call = write_calls(tmp_path / "call.wav", 1100)
    for name in ("species a", "class 3", "genus Rana", "Nothing"):
        with pytest.raises(AssertionError, match=f"'{name}' would be read as no species.*--name"):
            run("query", call, "--name", name)
    odd = write_calls(tmp_path / "species a.wav", 1100)  # and so is a file's name
    with pytest.raises(AssertionError, match="would be read as no species"):
        run("query", odd)
    assert run("query", odd, "--name", "specious frog", "--out", tmp_path / "out") == 0  # control
    with pytest.raises(AssertionError, match=r"no file nowhere\.onnx; the index was made with .*whistles\.onnx"):
        run("query", call, "--model", "nowhere.onnx")
    results = tmp_path / "results"  # of predictor.py, whose tables have the same names
    (results / ".parts").mkdir(parents=True)
    (results / "files.csv").write_text("the user's")
    with pytest.raises(AssertionError, match=r"results holds an index, or the results of predictor\.py"):
        run("query", call, "--out", results)
    (results / ".parts").rmdir()
    (results / "run.json").write_text(json.dumps({"kind": "predict"}))
    with pytest.raises(AssertionError, match="another command wrote"):
        run("query", call, "--out", results)
    with pytest.raises(AssertionError, match="another command wrote"):
        run("index", "--index", tmp_path / "out")
    assert not (tmp_path / "out" / ".parts").exists() and (results / "files.csv").read_text() == "the user's"
    assert not list((tmp_path / "index").glob("like-*"))


def test_an_index_killed_between_its_files_names_no_wrong_recording(
    run: Callable[..., int], field: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One recording goes, another comes: as many rows in files.csv as before, and the store is still the old one."""
    run("index")
    (field / "pond" / "20260514_053000.wav").unlink()
    write_calls(field / "ridge" / "noon.wav", 400)

    def killed(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("search.write_store", killed)
        with pytest.raises(KeyboardInterrupt):
            run("index")
    call = write_calls(tmp_path / "call.wav", 1100)
    with pytest.raises(AssertionError, match=r"files\.csv is not the table .*search\.py index"):
        run("query", call)
    assert run("index") == 0 and run("query", call, "--most", 1) == 0
    assert found(tmp_path / "index" / "like-call") == [("dawn.wav", 10)]
