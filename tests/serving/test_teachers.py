"""A teacher is asked about each recording once, at its own rate; what is wrong with one is said in a line."""

import json
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pandas as pd
import pytest
import soundfile
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from pyarrow.parquet import read_table, write_table

from archive.licences import licence_note, teachers_of
from archive.recordings import Recording
from archive.survey import marks_of, sound_marks, sounds_marked
from config import ImitationSettings
from runtime.cells import open_text, write_row
from runtime.guard import FOREIGN, OPERATORS, check_graph
from serving import teachers
from serving.embeddings import Embedded, write_vectors
from serving.scorer import METADATA
from serving.teachers import Network, holds_sound, open_teacher, targets_of
from sounds.audio import OpenRecording
from sounds.damage import Outcome
from sounds.decoders import PASSING

PLAIN = ImitationSettings()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    """Two recordings at 8 kHz: 4 s in which each second is louder than the one before, and 2 s."""
    root, rng = tmp_path_factory.mktemp("sound"), np.random.default_rng(0)
    found: list[Recording] = []
    for name, levels in (("pond/a.wav", (0.1, 0.2, 0.3, 0.4)), ("b.wav", (0.4, 0.1))):
        sound = np.concatenate([level * np.sign(rng.normal(size=8_000)) for level in levels])
        (root / name).parent.mkdir(exist_ok=True)
        soundfile.write(root / name, sound, 8_000, subtype="FLOAT")
        found.append(Recording(root / name, name, seconds=float(len(levels)), fold=0))
    return found


def network(path: Path, facts: dict[str, str] | None = None, samples: int = 8_000, *more: onnx.NodeProto) -> Path:
    """A teacher whose vectors are (loudness, twice the loudness): sums of magnitudes."""
    two = numpy_helper.from_array(np.array([[1.0, 2.0]], np.float32), "two")
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    nodes = [
        helper.make_node("ReduceL1", ["sound", "axes"], ["sum"]),
        helper.make_node("MatMul", ["sum", "two"], ["v"]),
    ]
    graph = helper.make_graph(
        [*nodes, *more],
        "loudness",
        [helper.make_tensor_value_info("sound", TensorProto.FLOAT, ["batch", samples])],
        [helper.make_tensor_value_info("v", TensorProto.FLOAT, ["batch", 2])],
        [two, axes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, {"sample_rate": "8000", "license": "CC0"} if facts is None else facts)
    onnx.save(model, path)
    return path


def test_each_window_gets_the_answer_to_its_own_sound(recordings: list[Recording], tmp_path: Path) -> None:
    teacher = open_teacher(network(tmp_path / "t.onnx"), PLAIN, recordings)
    targets = targets_of(teacher, recordings)
    assert teacher.seconds == 1.0 and teacher.facts["license"] == "CC0" and teacher.facts["name"] == "t.onnx"
    assert [(row.name, row.start, row.end) for row in targets.rows] == [
        *(("pond/a.wav", float(second), second + 1.0) for second in range(4)),
        *(("b.wav", float(second), second + 1.0) for second in range(2)),
    ]
    levels = 8_000 * np.array([0.1, 0.2, 0.3, 0.4, 0.4, 0.1])
    assert targets.vectors == pytest.approx(np.stack([levels, 2 * levels], axis=1), rel=0.02)  # less the mean
    assert targets.vectors.dtype == np.float32


def test_a_teacher_of_another_rate_gets_sound_of_its_own(recordings: list[Recording], tmp_path: Path) -> None:
    path = network(tmp_path / "t.onnx", {}, samples=32_000)
    targets = targets_of(open_teacher(path, ImitationSettings(sample_rate=16_000), recordings), recordings)
    assert [(row.start, row.end) for row in targets.rows] == [(0.0, 2.0), (2.0, 4.0), (0.0, 2.0)]
    slower = open_teacher(path, ImitationSettings(sample_rate=32_000), recordings)
    assert slower.seconds == 1.0 and len(targets_of(slower, recordings).rows) == 6


def test_a_recording_is_asked_about_once_until_it_or_the_teacher_changes(
    recordings: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    computed = Network.computed

    def counted(self: Network, sound: OpenRecording) -> teachers.Answers:
        asked.append(sound.path.name)
        return computed(self, sound)

    monkeypatch.setattr(Network, "computed", counted)
    monkeypatch.setattr(teachers, "SCRATCH", tmp_path / "scratch")
    path = network(tmp_path / "t.onnx")
    first = targets_of(open_teacher(path, PLAIN, recordings), recordings)
    again = targets_of(open_teacher(path, PLAIN, recordings), recordings)
    assert sorted(asked) == ["a.wav", "b.wav"] and np.array_equal(first.vectors, again.vectors)
    copy = tmp_path / "copy.wav"
    copy.write_bytes(recordings[1].path.read_bytes())
    targets_of(open_teacher(path, PLAIN, recordings), [replace(recordings[1], path=copy)])
    assert len(asked) == 3
    targets_of(open_teacher(network(path, {"sample_rate": "8000"}), PLAIN, recordings), recordings)
    assert len(asked) == 5
    for kept in (tmp_path / "scratch").rglob("*.npz"):  # damage is found, and mended
        kept.write_bytes(kept.read_bytes()[:-40])
    mended = targets_of(open_teacher(path, PLAIN, recordings), recordings)
    assert len(asked) == 7 and np.array_equal(mended.vectors, first.vectors)


def test_what_was_answered_before_it_was_stopped_is_not_asked_again(
    recordings: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teachers, "SCRATCH", tmp_path / "scratch")
    path, computed = network(tmp_path / "t.onnx"), Network.computed

    def stopped(self: Network, sound: OpenRecording) -> teachers.Answers:
        if sound.path.name == "b.wav":
            raise KeyboardInterrupt
        return computed(self, sound)

    monkeypatch.setattr(Network, "computed", stopped)
    with pytest.raises(KeyboardInterrupt):
        targets_of(open_teacher(path, PLAIN, recordings), recordings)

    def only_b(self: Network, sound: OpenRecording) -> teachers.Answers:
        assert sound.path.name == "b.wav"
        return computed(self, sound)

    monkeypatch.setattr(Network, "computed", only_b)
    assert len(targets_of(open_teacher(path, PLAIN, recordings), recordings).rows) == 6


def test_what_could_not_be_read_this_time_is_asked_again(
    recordings: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teachers, "SCRATCH", tmp_path / "scratch")
    path, waveform = network(tmp_path / "t.onnx"), OpenRecording.waveform

    def cut_off(self: OpenRecording) -> Iterator[np.ndarray]:
        yield next(waveform(self))[: 2 * self.sample_rate]
        self.outcome = Outcome("salvaged", f"only 2 s could be read: {PASSING[0]}", 2.0, self.sample_rate, 1)

    monkeypatch.setattr(OpenRecording, "waveform", cut_off)
    with pytest.raises(
        AssertionError, match=rf"2 of 2 .*a\.wav for one: only 2 s could be read: {PASSING[0]}; give the"
    ):
        targets_of(open_teacher(path, PLAIN, recordings), recordings)
    monkeypatch.setattr(OpenRecording, "waveform", waveform)
    assert len(targets_of(open_teacher(path, PLAIN, recordings), recordings[:1]).rows) == 4


def test_vectors_that_no_memory_holds_are_refused(
    recordings: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teachers, "SCRATCH", tmp_path / "scratch")
    wide = np.ones((1, 20_000), np.float32)
    np.savez(tmp_path / "t.npz", filename=["b.wav"], start=[0.0], end=[1.0], embedding=wide)
    with pytest.raises(AssertionError, match="vectors of 20,000 values; 16,384 at most"):
        open_teacher(tmp_path / "t.npz", PLAIN, recordings)
    monkeypatch.setattr(teachers, "MOST_VALUES", 1)
    with pytest.raises(AssertionError, match=r"answers \(1, 2\) .* at most 1 values"):
        targets_of(open_teacher(network(tmp_path / "t.onnx"), PLAIN, recordings), recordings)


def test_a_long_recording_that_the_teacher_hardly_heard_is_no_target() -> None:
    def at(seconds: float, *alive: tuple[float, float]) -> Recording:
        return Recording(Path("a.wav"), "a.wav", seconds=seconds, alive=alive)

    assert holds_sound(58.5, 61.5, at(60.0)) and not holds_sound(59.0, 62.0, at(60.0))
    assert holds_sound(0.0, 3.0, at(1.0)) and not holds_sound(3.0, 6.0, at(3.5))
    assert holds_sound(9.0, 12.0, at(60.0, (0.0, 11.0))) and not holds_sound(9.0, 12.0, at(60.0, (0.0, 10.2)))
    assert holds_sound(3.0, 6.0, at(60.0, (4.0, 5.0), (20.0, 20.5))), "the longest sound is a second"
    assert not holds_sound(30.0, 33.0, at(60.0, (4.0, 5.0)))


REFUSED: dict[str, tuple[dict[str, str], ImitationSettings, str]] = {
    "another rate than it says": ({"sample_rate": "8000"}, ImitationSettings(sample_rate=16_000), "leave the flag out"),
    "no rate": ({}, PLAIN, "add --imitation.sample_rate"),
    "a rate that is none": ({"sample_rate": "fast"}, PLAIN, "is no number"),
    "a window that its input is not": ({"sample_rate": "8000", "window_seconds": "3"}, PLAIN, "not 3 s"),
    "an output that it has not": ({"sample_rate": "8000"}, ImitationSettings(output="logits"), "one of"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_contradicts_itself_or_a_flag_is_refused(name: str, tmp_path: Path) -> None:
    facts, settings, said = REFUSED[name]
    with pytest.raises(AssertionError, match=said) as refusal:
        open_teacher(network(tmp_path / "t.onnx", facts), settings, [])
    assert "\n" not in str(refusal.value) and str(tmp_path / "t.onnx") in str(refusal.value)
    open_teacher(network(tmp_path / "t.onnx"), PLAIN, [])  # negative control


def test_a_dangerous_or_damaged_file_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    path = network(tmp_path / "t.onnx", None, 8_000, helper.make_node("If", ["sum"], ["x"]))
    with pytest.raises(AssertionError, match="'If'"):
        open_teacher(path, PLAIN, [])
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(AssertionError, match="damaged"):
        open_teacher(path, PLAIN, [])
    with pytest.raises(AssertionError, match="no teacher at"):
        open_teacher(tmp_path / "nobody.onnx", PLAIN, [])


def constant(path: Path, location: str) -> Path:
    """A teacher with a tensor inside of a node, whose values lie in another file where one is named."""
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "zeros")
    path = network(path, None, 8_000, helper.make_node("Constant", [], ["zeros"], value=tensor))
    model = onnx.load(path)
    if location:
        inner = model.graph.node[-1].attribute[0].t
        inner.data_location = TensorProto.EXTERNAL
        inner.ClearField("raw_data")
        inner.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())
    return path


def test_constants_of_others_are_let_through_and_their_files_are_not(tmp_path: Path) -> None:
    check_graph(constant(tmp_path / "t.onnx", ""), None, FOREIGN)
    with pytest.raises(AssertionError, match="a tensor of its own"):  # our own files have none
        check_graph(tmp_path / "t.onnx", None)
    with pytest.raises(AssertionError, match="/etc/passwd"):
        check_graph(constant(tmp_path / "t.onnx", "/etc/passwd"), None, FOREIGN)
    assert OPERATORS < FOREIGN and FOREIGN.isdisjoint({"Loop", "Scan", "If", "SequenceMap", "Optional", "RandomNormal"})


def test_a_file_of_this_project_says_itself_what_it_takes_and_whom_it_imitated(
    recordings: list[Recording], tmp_path: Path
) -> None:
    audio = {"sample_rate": 8_000, "window_seconds": 1.0, "context_seconds": 1.0}
    perch = [{"name": "Perch", "license": "Apache-2.0", "sha256": "ab"}]
    facts = json.dumps({"audio": audio, "provenance": {"teachers": perch}})
    teacher = open_teacher(network(tmp_path / "t.onnx", {METADATA: facts}), PLAIN, recordings)
    assert teacher.seconds == 1.0 and teacher.provenance == {"teachers": perch}
    assert teacher.facts["license"] == "unknown"
    assert len(targets_of(teacher, recordings).rows) == 6


def test_a_published_classifier_teaches_on_the_terms_it_was_published_on(tmp_path: Path) -> None:
    audio = {"sample_rate": 8_000, "window_seconds": 1.0, "context_seconds": 1.0}
    for said, expected in (("cc-by-nc-4.0", "cc-by-nc-4.0"), ("", "unknown"), (3, "unknown")):
        facts = json.dumps({"audio": audio, "provenance": {"license": said}})
        path = network(tmp_path / "t.onnx", {METADATA: facts})
        assert open_teacher(path, PLAIN, []).facts["license"] == expected
    assert open_teacher(path, ImitationSettings(license="MIT"), []).facts["license"] == "MIT", "nothing was said"


def test_a_flag_takes_no_terms_away_from_what_a_teachers_file_says(tmp_path: Path) -> None:
    path = network(tmp_path / "t.onnx", {"sample_rate": "8000", "license": "CC BY-NC-SA 4.0"})
    facts = open_teacher(path, ImitationSettings(license="MIT"), []).facts
    assert facts["license"] == "MIT; its file says CC BY-NC-SA 4.0"
    assert licence_note([facts]).startswith("NON-COMMERCIAL")
    same = open_teacher(path, ImitationSettings(license="cc by-nc-sa 4.0 "), []).facts
    assert same["license"] == "cc by-nc-sa 4.0"
    path = network(tmp_path / "t.onnx", {"sample_rate": "8000", "license": "x" * 300 + " noncommercial"})
    long = open_teacher(path, ImitationSettings(license="MIT " * 100), []).facts
    assert len(long["license"]) <= 200 and licence_note([long]).startswith("NON-COMMERCIAL")


def tables_of(provenance: object, folder: Path, name: str = "taught.onnx") -> list[Path]:
    """The tables that a model of this provenance may leave: as predictor.py writes them, and turned into Parquet."""
    rows = [Embedded("b.wav", [0.0, 1.0], [1.0, 2.0], np.eye(2, dtype=np.float32))]
    for path in (folder / "t.npz", folder / "t.csv"):
        write_vectors(path, rows, name, provenance=cast(dict[str, object], provenance))
    frame = pd.DataFrame({"file": "b.wav", "start": [0.0, 1.0], "end": [1.0, 2.0], "embedding": list(np.eye(2))})
    frame.attrs = {"name": name, METADATA: json.dumps({"provenance": provenance})}
    frame.to_parquet(folder / "t.parquet")
    return [folder / "t.npz", folder / "t.csv", folder / "t.parquet"]


def test_a_table_hands_on_what_the_file_that_left_it_does(recordings: list[Recording], tmp_path: Path) -> None:
    """A classifier that BirdNET taught and that was trained on a recording: its student may not be judged by that."""
    audio = {"sample_rate": 8_000, "window_seconds": 1.0, "context_seconds": 1.0}
    heard, other = ([row.path] for row in recordings)
    birdnet = {"name": "BirdNET 2.4", "license": "CC BY-NC-SA 4.0", "sha256": "ab"}
    for said in ({"license": "MIT"}, {"members": [{"trained_on": ""}, {"trained_on": sound_marks(heard)}]}, {}):
        provenance = {"teachers": [birdnet], "trained_on": sound_marks(heard), **said}
        file = network(tmp_path / "taught.onnx", {METADATA: json.dumps({"audio": audio, "provenance": provenance})})
        from_file = open_teacher(file, PLAIN, recordings)
        for path in tables_of(provenance, tmp_path):
            teacher = open_teacher(path, PLAIN, recordings)
            assert teacher.provenance == from_file.provenance == provenance
            assert {**teacher.facts, "sha256": ""} == {**from_file.facts, "sha256": ""}
            assert licence_note([*teachers_of(teacher.provenance), teacher.facts]).startswith("NON-COMMERCIAL: made")
            known = "".join(marks_of(teacher.provenance))
            assert [sounds_marked(paths, known) for paths in (heard, other)] == [heard, []]


def test_a_model_of_somebody_else_teaches_by_its_table_on_its_own_terms(
    recordings: list[Recording], tmp_path: Path
) -> None:
    for path in tables_of({"license": "CC BY-NC-SA 4.0"}, tmp_path, "BirdNET 2.4"):
        facts = open_teacher(path, PLAIN, recordings).facts
        assert (facts["name"], facts["license"]) == ("BirdNET 2.4", "CC BY-NC-SA 4.0")
        assert licence_note([facts]).startswith("NON-COMMERCIAL")
        more = open_teacher(path, ImitationSettings(license="MIT"), recordings).facts
        assert more["license"] == "MIT; its file says CC BY-NC-SA 4.0"


def test_what_a_table_says_of_itself_is_believed_or_refused_as_that_of_a_file(
    recordings: list[Recording], tmp_path: Path
) -> None:
    wrong_types: dict[str, object] = {"teachers": 3, "trained_on": [1], "license": {}}
    every: tuple[object, ...] = ("?", 3, None, ["x"], wrong_types, {"license": "x" * 10**6})
    for hostile in every:
        for path in tables_of(hostile, tmp_path):
            teacher = open_teacher(path, PLAIN, recordings)
            assert teacher.provenance == (hostile if isinstance(hostile, dict) else {})
            assert teacher.facts["license"] in ("unknown", "x" * 200) and marks_of(teacher.provenance) == []
            assert teachers_of(teacher.provenance) == []
    columns = {"file": np.array(["b.wav"]), "start": np.zeros(1), "end": np.ones(1), "embedding": VECTORS[:1]}
    for text in ("{", "[" * 10**6, "9" * 10_000):
        for facts in (np.array(text), np.array([text, text])):
            with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
                for name, values in {**columns, METADATA: facts}.items():
                    with archive.open(f"{name}.npy", "w") as member:
                        np.lib.format.write_array(member, values, allow_pickle=False)
            refused_in_a_line(tmp_path / "t.npz", tmp_path / "t.npz", recordings)
        (tmp_path / "t.csv.json").write_text(text)
        refused_in_a_line(tmp_path / "t.csv", tmp_path / "t.csv.json", recordings)
        frame = pd.DataFrame({name: list(values) for name, values in columns.items()})
        frame.attrs[METADATA] = text
        frame.to_parquet(tmp_path / "t.parquet")
        refused_in_a_line(tmp_path / "t.parquet", tmp_path / "t.parquet", recordings)


def refused_in_a_line(path: Path, named: Path, recordings: list[Recording]) -> None:
    with pytest.raises(AssertionError, match=r"damaged|no JSON object") as refusal:
        open_teacher(path, PLAIN, recordings)
    assert "\n" not in str(refusal.value) and str(named) in str(refusal.value) and len(str(refusal.value)) < 500


FILES, TIMES = ("/else/pond/a.wav", "/else/pond/a.wav", "b.wav"), ((0.0, 2.0), (1.0, 3.0), (0.0, 2.0))
VECTORS = np.array([[1.0, 2.0], [3.0, 4.5], [5.0, 6.0]], np.float32)


def npz(path: Path, vectors: NDArray[np.float32], files: tuple[str, ...] = FILES) -> Path:
    write_vectors(
        path.with_suffix(".npz"),
        [
            Embedded(file, [start], [end], vector[None])
            for file, (start, end), vector in zip(files, TIMES, vectors, strict=True)
        ],
        "BirdNET",
    )
    return path.with_suffix(".npz")


def csv(path: Path, vectors: NDArray[np.float32], files: tuple[str, ...] = FILES) -> Path:
    with open_text(path.with_suffix(".csv")) as file:
        write_row(file, ("file_path", "start", "end", "embedding"))
        for name, (start, end), vector in zip(files, TIMES, vectors, strict=True):
            write_row(file, (name, str(start), str(end), ",".join(map(str, vector))))
    return path.with_suffix(".csv")


def parquet(path: Path, vectors: NDArray[np.float32], files: tuple[str, ...] = FILES) -> Path:
    starts, ends = zip(*TIMES, strict=True)
    table = pd.DataFrame({"filename": files, "start_s": starts, "end_s": ends, "embedding": list(vectors)})
    table.attrs["license"] = "CC BY-NC-SA 4.0"
    table.to_parquet(path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


Writer = Callable[..., Path]


@pytest.mark.parametrize("write", [npz, csv, parquet])
def test_a_table_is_read_as_it_was_written(write: Writer, recordings: list[Recording], tmp_path: Path) -> None:
    teacher = open_teacher(write(tmp_path / "t", VECTORS), PLAIN, recordings)
    targets = targets_of(teacher, recordings)
    assert [(row.name, row.start, row.end) for row in targets.rows] == [
        ("pond/a.wav", 0.0, 2.0), ("pond/a.wav", 1.0, 3.0), ("b.wav", 0.0, 2.0),
    ]  # fmt: skip
    assert np.array_equal(targets.vectors, VECTORS) and teacher.seconds == 2.0
    assert all(row.path.is_file() for row in targets.rows)
    assert teacher.facts["license"] == ("CC BY-NC-SA 4.0" if write is parquet else "unknown")
    named = open_teacher(teacher.path, ImitationSettings(name="BirdNET 2.4", license="NC"), recordings)
    assert named.facts["name"] == "BirdNET 2.4"
    assert named.facts["license"] == ("NC; its file says CC BY-NC-SA 4.0" if write is parquet else "NC")


@pytest.mark.parametrize("write", [npz, csv, parquet])
def test_recordings_that_are_not_there_are_counted_and_a_table_of_nothing_else_is_refused(
    write: Writer, recordings: list[Recording], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = open_teacher(write(tmp_path / "t", VECTORS, ("gone.wav", "a.wav", "a.wav")), PLAIN, recordings)
    assert "1 of 2 recordings in" in capsys.readouterr().out
    targets = targets_of(teacher, recordings)
    assert np.array_equal(targets.vectors, VECTORS[1:])
    assert "1 of 2 recordings are not in" in capsys.readouterr().out
    with pytest.raises(AssertionError, match=r"none of the 1 recordings .* gone\.wav .* point --data\.root"):
        open_teacher(write(tmp_path / "t", VECTORS, ("gone.wav",) * 3), PLAIN, recordings)


def test_no_recording_gets_the_vectors_of_another_sites_recording_of_its_name(
    recordings: list[Recording], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = recordings[1].path.parent.name  # the folder that --data.root is
    path = npz(tmp_path / "t", VECTORS, (f"season/{own}/b.wav", "season/ridge/b.wav", "season/moor/b.wav"))
    targets = targets_of(open_teacher(path, PLAIN, recordings), recordings)
    assert np.array_equal(targets.vectors, VECTORS[:1])
    assert "2 of 3 recordings in" in capsys.readouterr().out
    path = npz(tmp_path / "t", VECTORS, ("moor/b.wav", "ridge/b.wav", "a.wav"))
    targets = targets_of(open_teacher(path, PLAIN, recordings), recordings)
    assert np.array_equal(targets.vectors, VECTORS[2:]), "nobody can say whose b.wav it is"


def test_a_few_vectors_of_nan_are_left_out_and_many_are_refused(
    recordings: list[Recording], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    starts = np.arange(0, 3, 0.1)
    vectors = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    vectors[7, 1] = np.nan
    path = tmp_path / "t.npz"
    write_vectors(path, [Embedded("a.wav", starts.tolist(), (starts + 1).tolist(), vectors)], "toy")
    targets = targets_of(open_teacher(path, PLAIN, recordings), recordings)
    assert np.array_equal(targets.vectors, np.delete(vectors, 7, axis=0)) and len(targets.rows) == 29
    assert "1 vectors of" in (said := capsys.readouterr().out) and "pond/a.wav at 0.7 s" in said
    vectors[:5] = np.inf
    write_vectors(path, [Embedded("a.wav", starts.tolist(), (starts + 1).tolist(), vectors)], "toy")
    with pytest.raises(AssertionError, match=r"6 of 30 vectors .* NaN"):
        targets_of(open_teacher(path, PLAIN, recordings), recordings)


def windows(path: Path, starts: list[float], ends: list[float], name: str = "b.wav") -> Path:
    """A table of one recording; b.wav is of two seconds."""
    vectors = np.arange(2.0, 2 + 2 * len(starts), dtype=np.float32).reshape(-1, 2)
    write_vectors(path, [Embedded(name, starts, ends, vectors)], "toy")
    return path


def test_windows_at_the_end_of_a_recording_may_be_cut_there_or_go_on_behind_it(
    recordings: list[Recording], tmp_path: Path
) -> None:
    for ends in ([1.5, 2.5, 3.0], [1.5, 2.0, 2.0]):
        path = windows(tmp_path / "t.npz", [0.0, 1.0, 1.5], ends)
        teacher = open_teacher(path, PLAIN, recordings)
        targets = targets_of(teacher, recordings)
        # of the last there are .5 s of sound in b.wav's 2 s: mostly silence that the teacher was given
        assert [(row.start, row.end) for row in targets.rows] == [(0.0, 1.5), (1.0, 2.5)]
        assert open_teacher(path, ImitationSettings(window_seconds=1.5), recordings).seconds == teacher.seconds == 1.5
    path = windows(tmp_path / "t.npz", [0.0, 1.0, 2.005], [1.0, 2.0, 3.005])  # all of it behind the end
    assert len(targets_of(open_teacher(path, PLAIN, recordings), recordings).rows) == 2


CONTRADICTED: dict[str, tuple[list[float], list[float], float, str]] = {
    "the flag is shorter": ([0.0, 1.0], [1.0, 2.0], 0.5, r"2 of 2 windows, .* are not 0\.5 s long"),
    "the flag is longer": ([0.0, 0.5, 1.0], [0.5, 1.0, 1.5], 0.75, r"2 of 3 windows, .* are not 0\.75 s long"),
    "one window is longer": ([0.0, 0.5, 1.0], [0.5, 1.0, 2.0], 0.0, r"2 of 3 windows, .* are not 1 s long"),
    "one is short in the middle": ([0.0, 0.5, 1.0], [1.0, 0.7, 2.0], 0.0, r"1 of 3 windows, .* from 0\.5 s of b\.wav"),
    "one ends before it begins": ([0.0, 1.0], [1.0, 0.0], 0.0, "1 of 2 windows, .* from 1 s of b.wav, end before"),
    "one is there twice": (
        [0.0, 0.5, 0.5],
        [0.5, 1.0, 1.0],
        0.5,
        r"1 of 3 windows, .* begin where another of the same rec",
    ),
    "one ends where it begins": ([0.0, 1.0], [1.0, 1.0], 1.0, "1 of 2 windows, .* end before"),
    "it is of a longer recording": ([0.0, 3.5, 7.0], [1.0, 4.5, 8.0], 0.0, "2 of 3 windows, .* of other recordings"),
}


@pytest.mark.parametrize("name", CONTRADICTED)
def test_a_table_whose_windows_contradict_the_flag_one_another_or_the_sound_is_refused(
    name: str, recordings: list[Recording], tmp_path: Path
) -> None:
    starts, ends, given, said = CONTRADICTED[name]
    path = windows(tmp_path / "t.npz", starts, ends)
    with pytest.raises(AssertionError, match=said) as refusal:
        open_teacher(path, ImitationSettings(window_seconds=given), recordings)
    assert "\n" not in str(refusal.value) and str(path) in str(refusal.value)


def test_the_windows_of_recordings_that_are_not_there_contradict_nothing(
    recordings: list[Recording], tmp_path: Path
) -> None:
    rows = [Embedded(name, [0.0], [end], VECTORS[:1]) for name, end in (("b.wav", 1.0), ("gone.wav", 5.0))]
    write_vectors(tmp_path / "t.npz", rows, "toy")
    assert open_teacher(tmp_path / "t.npz", PLAIN, recordings).seconds == 1.0


def test_a_table_of_the_wrong_kind_is_refused_in_a_line(recordings: list[Recording], tmp_path: Path) -> None:
    uneven = [np.zeros(2), np.zeros(3), np.zeros(2)]
    frame = pd.DataFrame({"file": FILES, "start": [0, 1, 0], "end": [2, 3, 2], "embedding": uneven})
    frame.to_parquet(tmp_path / "uneven.parquet")
    frame.drop(columns="start").to_parquet(tmp_path / "startless.parquet")
    frame.drop(columns="end").assign(embedding=list(VECTORS)).to_parquet(tmp_path / "endless.parquet")
    frame.assign(embedding=["x", "y", "z"]).to_parquet(tmp_path / "words.parquet")
    np.savez(tmp_path / "pickled.npz", filename=np.array(FILES, object), start=np.zeros(3), embedding=VECTORS)
    with np.load(npz(tmp_path / "good", VECTORS)) as good:
        arrays = {name: good[name] for name in good.files if name != "file"}
    np.savez(tmp_path / "short.npz", allow_pickle=False, filename=np.array(FILES[:2]), **arrays)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:99])
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "t.txt").write_text("0 3 1,2,3")
    np.save(tmp_path / "array.npy", VECTORS)
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    holed: list[Any] = [[1.0, 2.0], None, [3.0, 4.0]]
    frame.assign(embedding=holed).to_parquet(tmp_path / "hole.parquet")
    frame.iloc[:0].to_parquet(tmp_path / "empty.parquet")
    said = {
        "uneven.parquet": "vectors of 2, 3 values", "startless.parquet": "no column start",
        "endless.parquet": "add --imitation.window_seconds", "words.parquet": "holds more than numbers",
        "pickled.npz": "no .npz of plain arrays", "short.npz": "2 files", "cut.npz": "damaged",
        "array.npz": "no .npz of plain arrays", "hole.parquet": "1 of 3 rows have no vector, such as row 2",
        "empty.parquet": "has no rows", "cut.parquet": "damaged", "t.txt": "a teacher is an .onnx file",
    }  # fmt: skip
    for name, words in said.items():
        with pytest.raises(AssertionError, match=words) as refusal:
            open_teacher(tmp_path / name, PLAIN, recordings)
        assert "\n" not in str(refusal.value) and name in str(refusal.value)
    open_teacher(tmp_path / "endless.parquet", ImitationSettings(window_seconds=2.0), recordings)  # negative controls
    open_teacher(tmp_path / "good.npz", PLAIN, recordings)
    with pytest.raises(AssertionError, match="for ONNX files"):
        open_teacher(tmp_path / "good.npz", ImitationSettings(sample_rate=48_000), recordings)


SPOILT = (  # notes beside a Parquet table, by key
    (b"pandas", b"not json"),
    (b"pandas", b"\xff\xfe\x00"),
    (b"pandas", b"[]"),
    (b"pandas", b"3"),
    (b"pandas", b"[" * 100_000),
    (b"pandas", b"1" * 5_000),
    (b"pandas", b'{"attributes": 3}'),
    (b"pandas", b'{"attributes": ["license"]}'),
    (b"ARROW:schema", b"no base64"),
    (b"ARROW:schema", b"aGVsbG8="),
)
STRANGE = (  # what pandas says of the columns, which nobody here needs to know
    b"{}",
    b'{"columns": 1, "index_columns": 2}',
    b'{"columns": [], "index_columns": [{"kind": "range"}], "column_indexes": [1]}',
    b'{"columns": [{"name": null}], "index_columns": ["gone"], "column_indexes": []}',
    b'{"columns": [{"name": "start_s", "field_name": "start_s", "numpy_type": "no type", "metadata": null}],'
    b' "index_columns": [], "column_indexes": []}',
)


@pytest.mark.parametrize(("key", "note"), SPOILT)
def test_a_parquet_table_with_spoilt_notes_is_refused_in_a_line(
    key: bytes, note: bytes, recordings: list[Recording], tmp_path: Path
) -> None:
    path = parquet(tmp_path / "t", VECTORS)
    write_table(read_table(path).replace_schema_metadata({key: note}), path)
    with pytest.raises(AssertionError, match=r"write it again$") as refusal:
        open_teacher(path, PLAIN, recordings)
    said = str(refusal.value)
    assert str(path) in said and "\n" not in said and ("damaged" in said or "holds no JSON object" in said)


@pytest.mark.parametrize("note", STRANGE)
def test_a_parquet_table_is_read_by_its_columns_whatever_is_noted_of_them(
    note: bytes, recordings: list[Recording], tmp_path: Path
) -> None:
    path = parquet(tmp_path / "t", VECTORS)
    write_table(read_table(path).replace_schema_metadata({b"pandas": note}), path)
    teacher = open_teacher(path, PLAIN, recordings)
    assert np.array_equal(targets_of(teacher, recordings).vectors, VECTORS)
    assert teacher.facts["license"] == "unknown"


def test_a_parquet_table_that_names_a_column_twice_is_refused(recordings: list[Recording], tmp_path: Path) -> None:
    path = parquet(tmp_path / "t", VECTORS)
    table = read_table(path)
    write_table(table.append_column("start_s", table.column("end_s")), path)
    with pytest.raises(AssertionError, match=r"start_s.*2 times") as refusal:
        open_teacher(path, PLAIN, recordings)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("header", ["'descr': (), 'shape': (3,)", f"'descr': '<f4', 'shape': ({10**30},)"])
def test_an_array_with_an_impossible_header_is_refused_in_a_line(
    header: str, recordings: list[Recording], tmp_path: Path
) -> None:
    text = f"{{{header}, 'fortran_order': False}}".encode()
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as arrays:
        arrays.writestr("file.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    with pytest.raises(AssertionError, match=r"t\.npz is damaged or no \.npz of plain arrays \(.+\); write it again"):
        open_teacher(tmp_path / "t.npz", PLAIN, recordings)


@dataclass
class HopliteWindow:
    """As perch-hoplite has it: start and end are its offsets, the embedding is in half precision."""

    recording_id: int
    offsets: list[float]
    embedding: NDArray[np.float16]


class HopliteDatabase:
    """What its interface says of recordings and windows; its names are relative to a folder of its own."""

    def get_all_recordings(self) -> list[SimpleNamespace]:
        names = ("pond/a.wav", "b.wav", "gone.wav")
        return [SimpleNamespace(id=number, filename=name) for number, name in enumerate(names)]

    def get_all_windows(self, include_embedding: bool = False) -> list[HopliteWindow]:
        assert include_embedding
        starts = [(0, 0.0), (0, 1.5), (0, 3.0), (1, 0.0), (1, 1.5), (2, 0.0)]  # the last ones go on behind the end
        return [HopliteWindow(own, [start, start + 1.5], np.array([start, 1], np.float16)) for own, start in starts]


def test_a_database_of_perch_hoplite_becomes_a_table_as_the_documentation_says(
    recordings: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "get_all_windows" in block)
    monkeypatch.chdir(tmp_path)
    exec(code, {"db": HopliteDatabase()})
    teacher = open_teacher(tmp_path / "perch.parquet", PLAIN, recordings)
    targets = targets_of(teacher, recordings)
    rows = [("pond/a.wav", 0.0), ("pond/a.wav", 1.5), ("pond/a.wav", 3.0), ("b.wav", 0.0)]  # b.wav has 2 s of sound
    assert teacher.seconds == 1.5 and [(row.name, row.start) for row in targets.rows] == rows
    assert targets.vectors.tolist() == [[start, 1.0] for _, start in rows]


def test_a_table_of_an_earlier_version_needs_the_length_of_a_window(
    recordings: list[Recording], tmp_path: Path
) -> None:
    frame = pd.DataFrame({"source_id": ["a.wav", "b.wav"], "offset_s": [1.5, 0.0], "embedding": list(VECTORS[:2])})
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(AssertionError, match=r"add --imitation\.window_seconds"):
        open_teacher(tmp_path / "t.parquet", PLAIN, recordings)
    targets = targets_of(
        open_teacher(tmp_path / "t.parquet", ImitationSettings(window_seconds=1.5), recordings), recordings
    )
    assert [(row.name, row.start, row.end) for row in targets.rows] == [("pond/a.wav", 1.5, 3.0), ("b.wav", 0.0, 1.5)]


def test_no_flipped_byte_of_a_table_is_a_traceback(recordings: list[Recording], tmp_path: Path) -> None:
    path, (starts, ends) = tmp_path / "t.npz", zip(*TIMES, strict=True)
    arrays = {"filename": np.array(FILES), "start": np.array(starts), "end": np.array(ends), "embedding": VECTORS}
    refused = 0
    for save in (np.savez, np.savez_compressed):
        save(path, allow_pickle=False, **arrays)
        whole = path.read_bytes()
        for position in range(0, len(whole), 2):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 255]) + whole[position + 1 :])
            try:
                open_teacher(path, PLAIN, recordings)
            except AssertionError as refusal:
                refused += 1
                assert "\n" not in str(refusal) and str(path) in str(refusal)
    assert refused > len(whole) / 2, "most of a file can be damaged so that it is found"


def test_a_kept_answer_with_a_flipped_byte_is_asked_again(recordings: list[Recording], tmp_path: Path) -> None:
    path, kept = network(tmp_path / "t.onnx"), tmp_path / "kept"
    ask = open_teacher(path, PLAIN, recordings, kept).answers
    first = ask(recordings[1])
    assert first is not None
    (file,) = kept.rglob("*.npz")
    whole = file.read_bytes()
    for position in range(0, len(whole), 3):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 32]) + whole[position + 1 :])
        again = ask(recordings[1])
        assert again is not None and np.array_equal(again.times, first.times)
        assert np.array_equal(again.vectors, first.vectors)


def test_names_may_be_bytes(recordings: list[Recording], tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", filename=np.array([b"b.wav"]), start=[0.0], end=[2.0], embedding=VECTORS[:1])
    assert len(targets_of(open_teacher(tmp_path / "t.npz", PLAIN, recordings), recordings).rows) == 1
    frame = pd.DataFrame({"file": [b"b.wav"], "start": [0.0], "end": [2.0], "embedding": [[1.0, 2.0]]})
    frame.to_parquet(tmp_path / "t.parquet")
    assert len(targets_of(open_teacher(tmp_path / "t.parquet", PLAIN, recordings), recordings).rows) == 1
