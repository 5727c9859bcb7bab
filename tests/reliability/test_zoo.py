"""The zoo through the real commands: one row and one outcome for every kind of path, and none lost on the way."""

import ast
import contextlib
import csv
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import onnx
import pytest
import soundfile
from broken import Kind, write
from onnx import TensorProto, helper
from zoo import calling, chunk, form, silent_flac, wav_bytes, write_whole_zoo

from archive.index import missing
from archive.recordings import Recording, read_recordings, write_recordings
from archive.survey import Examination, with_outcome
from config import DataSettings, PredictCommand, SurveyCommand
from data_loader import read_unlabeled, survey
from predictor import predict
from runtime.terminal import launch
from serving.inputs import find_entries
from serving.journal import Journal
from serving.scorer import FORMAT, METADATA
from sounds import audio, libsndfile
from sounds.audio import open_recording
from sounds.damage import Reading
from sounds.libsndfile import BLOCK_SECONDS
from sounds.windows import Waveform
from taxonomy import Taxonomy, to_json

HERE = Path(__file__).parents[2]
Record = Callable[[str, object], None]
BORROWED = ("System error", "File does not exist", "Garbled", "Format not recognised", "Traceback", "Error opening")


@dataclass(frozen=True)
class Told:
    """What a command said of the zoo."""

    code: int
    stdout: str
    stderr: str
    seconds: float  # of one CPU
    rows: dict[str, list[dict[str, str]]]  # of files.csv or recordings.csv, by name below the zoo as it is written
    calls: dict[str, tuple[float, ...]]  # where detections begin, in seconds, by the same name
    megabytes: int  # most that was in memory


def loudness_model(path: Path) -> Path:
    """A model of one species, which is as likely as the loudest sample of a window."""
    nodes = [
        helper.make_node("ReduceMax", ["waveforms"], ["loudest"], axes=[1]),
        helper.make_node("Clip", ["loudest", "none", "all"], ["probabilities"]),
    ]
    limits = [helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in (("none", 0.0), ("all", 1.0))]
    graph = helper.make_graph(
        nodes,
        "loudness",
        [helper.make_tensor_value_info("waveforms", TensorProto.FLOAT, ["batch", 80_000])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 1])],
        limits,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    lineage = ("a", "b", "c", "d", "e", "f", "g")
    one = Taxonomy(("burst",), ("Sonus clarus",), ("pretend burst",), (lineage,), (7,))
    facts = {"format": FORMAT, "audio": {}, "taxonomy": to_json(one), "precision": "int8", "verified": True}
    helper.set_model_props(model, {METADATA: json.dumps(facts)})
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return loudness_model(tmp_path_factory.mktemp("model") / "loudness.onnx")


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Kind]]:
    folder = tmp_path_factory.mktemp("animals") / "zoo"
    return folder, write_whole_zoo(folder)


@pytest.fixture(scope="session")
def predicted(zoo: tuple[Path, list[Kind]], model: Path, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """`predictor.py` over the zoo, over a file without a suffix, and over a table that names a file that is gone."""
    folder, out = zoo[0], tmp_path_factory.mktemp("predicted")
    write_recordings(out / "recordings.csv", [Recording(folder / "damage/none.wav", "damage/none.wav")])
    inputs = [folder, folder / "damage/data", out / "recordings.csv"]
    words = ["predictor.py", *inputs, "--model", model, "--out", out, "--min_conf", "0.5", "--rtype", "csv"]
    started = cpu_seconds()
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=HERE, capture_output=True, check=False, text=True, errors="replace"
    )
    calls: dict[str, tuple[float, ...]] = {}
    for row in read_csv(out / "detections.csv"):
        name = row["File"].removeprefix(f"{folder}/")
        calls[name] = (*calls.get(name, ()), float(row["Start (s)"]))
    megabytes = json.loads((out / "run.json").read_text())["peak_memory_mb"]
    rows = by_name(read_csv(out / "files.csv"), "file", f"{folder}/")
    return Told(done.returncode, done.stdout, done.stderr, cpu_seconds() - started, rows, calls, megabytes)


@pytest.fixture(scope="session")
def surveyed(zoo: tuple[Path, list[Kind]], tmp_path_factory: pytest.TempPathFactory) -> Told:
    """`data_loader.py` over the zoo, from the command line to the exit code, in this process: torch is here already."""
    folder, runs = zoo[0], tmp_path_factory.mktemp("surveyed")
    flags = ["--data.root", folder, "--data.layout", "unlabeled", "--data.max_bad", "0.9", "--run.root", runs]
    before, said, errors, started = signal.getsignal(signal.SIGTERM), io.StringIO(), io.StringIO(), cpu_seconds()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as left:
        patch.setattr(sys, "argv", ["data_loader.py", *map(str, flags)])
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
            launch(survey, SurveyCommand)
    signal.signal(signal.SIGTERM, before)
    rows = by_name(read_csv(runs / "data" / "recordings.csv"), "path", "")
    code, seconds = int(str(left.value.code)), cpu_seconds() - started
    return Told(code, said.getvalue(), errors.getvalue(), seconds, rows, {}, 0)


def cpu_seconds() -> float:
    """Of this process and those it has waited for."""
    return sum(os.times()[:4])


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def by_name(table: list[dict[str, str]], column: str, prefix: str) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for row in table:
        found.setdefault(row[column].removeprefix(prefix).removeprefix("'"), []).append(row)
    return found


def written(name: str, how: str) -> str:
    """A name as a table can hold it."""
    return (
        os.fsencode(name).decode("utf-8", how)
        if how == "backslashreplace"
        else name.encode("utf-8", "backslashreplace").decode()
    )


# ---- every kind ---------------------------------------------------------------------------------------------------


def only_row(told: Told, name: str, due: str) -> tuple[dict[str, str], list[str]]:
    """The row of a name, none where it should have been skipped; and what is wrong with how many there are."""
    rows = told.rows.get(name, [])
    return rows[0] if rows else {}, [f"{len(rows)} rows"] * (len(rows) != (due != "skipped"))


def faults_of_prediction(kind: Kind, told: Told) -> list[str]:
    """What is not as it should be in the row of a kind in files.csv."""
    name, due = written(kind.name, ""), kind.predicted or kind.status
    row, faults = only_row(told, name, due)
    if faults or not row:
        return faults
    calls = told.calls.get(name, ())
    faults = faults_of_row(
        kind, row["status"], due, row["reason"], float(row["seconds_analysed"]) + float(row["seconds_silent"])
    )
    if kind.calls is not None and calls != kind.calls:
        faults.append(f"calls at {calls}, not {kind.calls}")
    return faults


def faults_of_survey(kind: Kind, told: Told) -> list[str]:
    """The same in recordings.csv; the kinds of broken.py are one sound, of which one copy stays."""
    due = kind.surveyed or kind.status
    row, faults = only_row(told, written(kind.name, "backslashreplace"), due)
    if faults or not row:
        return faults
    if row["status"] == "duplicate" and due in ("ok", "salvaged") and kind.name.startswith("damage/"):
        stays = told.rows[row["reason"].partition(" as ")[2]]
        return [] if stays[0]["status"] in ("ok", "salvaged") else [f"its twin is {stays[0]}"]
    if due in ("refused", "duplicate", "silent"):  # the reason is the archive's, not the reader's
        words = {"refused": "a link out of|not UTF-8", "duplicate": "the same samples as", "silent": "no sound|clipped"}
        right = row["status"] == due and re.search(words[due], row["reason"])
        return [] if right else [f"{row['status']}, {row['reason']}"]
    return faults_of_row(kind, row["status"], due, row["reason"], float(row["seconds"]))


def faults_of_row(kind: Kind, status: str, due: str, reason: str, seconds: float) -> list[str]:
    faults = [] if status == due else [f"{status}, not {due}"]
    if not re.search(kind.words, reason) or bool(reason) != bool(kind.words) or "\n" in reason:
        faults.append(f"reason {reason!r}, not {kind.words!r}")
    if not kind.least_seconds - 0.001 <= seconds <= kind.most_seconds + 0.001:
        faults.append(f"{seconds} s, not {kind.least_seconds} to {kind.most_seconds} s")
    return faults


def test_every_kind_is_one_row_with_its_outcome_in_files_csv(
    zoo: tuple[Path, list[Kind]], predicted: Told, record_property: Record
) -> None:
    kinds = zoo[1]
    wrong = {kind.name: found for kind in kinds if (found := faults_of_prediction(kind, predicted))}
    assert not wrong, "\n".join(f"{name!r}: {'; '.join(found)}" for name, found in wrong.items())
    due = {written(kind.name, "") for kind in kinds if kind.predicted != "skipped"}
    assert predicted.rows.keys() == due and len(kinds) >= 150
    called = sum(bool(kind.calls) for kind in kinds if kind.predicted != "skipped")
    record_property(
        "R1",
        f"{len(kinds)} kinds of paths through predictor.py: {len(wrong)} without the outcome they should have, "
        f"{called} calls where they were planted; {predicted.seconds:.0f} s of CPU, {predicted.megabytes} MB",
    )
    record_property("R2", f"files.csv: {len(due)} rows for {len(due)} inputs, {len(kinds) - len(due)} skipped by name")


def test_every_kind_is_one_row_with_its_outcome_in_recordings_csv(
    zoo: tuple[Path, list[Kind]], surveyed: Told, record_property: Record
) -> None:
    kinds = zoo[1]
    wrong = {kind.name: found for kind in kinds if (found := faults_of_survey(kind, surveyed))}
    assert not wrong, "\n".join(f"{name!r}: {'; '.join(found)}" for name, found in wrong.items())
    due = {written(kind.name, "backslashreplace") for kind in kinds if kind.surveyed != "skipped"}
    assert surveyed.rows.keys() == due
    record_property(
        "R1",
        f"{len(kinds)} kinds in data_loader.py: {len(wrong)} without their outcome, {surveyed.seconds:.0f} s of CPU",
    )


def test_the_commands_end_with_2_within_bounds_and_without_a_traceback(predicted: Told, surveyed: Told) -> None:
    for told in (predicted, surveyed):
        assert told.code == 2 and told.seconds < 60
        assert "Traceback" not in told.stderr and "Traceback" not in told.stdout
    assert predicted.megabytes < 700


def test_names_that_are_skipped_are_counted_aloud(predicted: Told, surveyed: Told) -> None:
    """Two hidden or without a known suffix, a link to a folder, a file named twice: none of them is lost in silence."""
    for told, others in ((predicted, 4), (surveyed, 4)):
        assert f"ignored 1 hidden, {others} other, 1 links to folders, " in told.stdout


def test_no_reason_repeats_a_librarys_wrong_words(predicted: Told, surveyed: Told, record_property: Record) -> None:
    reasons = {row["reason"] for told in (predicted, surveyed) for rows in told.rows.values() for row in rows}
    assert len(reasons) > 60 and not [reason for reason in reasons if any(words in reason for words in BORROWED)]
    record_property("R22", f"{len(reasons)} different reasons, none in the words of libsndfile")


def test_stage_1_hears_what_the_survey_says_can_be_heard(
    zoo: tuple[Path, list[Kind]], surveyed: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is decoded a second time: the survey has just listened to all of it."""
    heard = read_unlabeled(DataSettings(root=zoo[0], layout="unlabeled", max_bad=0.9))
    told = {name for name, rows in surveyed.rows.items() if rows[0]["status"] in ("ok", "salvaged")}
    assert {row.name for row in heard} == told and len(told) > 100
    assert "were known before" in capsys.readouterr().out


def test_a_plain_reader_is_silently_wrong_where_the_commands_are_not(
    zoo: tuple[Path, list[Kind]], record_property: Record
) -> None:
    """The zoo has teeth: soundfile alone returns sound, and no error, where sound is lost, made up or no number."""
    folder, kinds = zoo
    wrong: list[str] = []
    for kind in kinds:
        path = folder / kind.name
        if not path.is_file() or kind.name.startswith("bombs/"):
            continue
        try:
            sound, rate = soundfile.read(path, dtype="float32")
        except (soundfile.LibsndfileError, ValueError, MemoryError):
            continue
        seconds = len(sound) / rate
        lost = not kind.least_seconds <= seconds <= kind.most_seconds
        wrong += [kind.name] if lost or kind.status == "unreadable" or not np.isfinite(sound).all() else []
    assert len(wrong) >= 14, wrong
    record_property("R1", f"soundfile alone is silently wrong on {len(wrong)} of the same kinds")


def test_a_plain_reader_waits_for_a_pipe_for_ever(zoo: tuple[Path, list[Kind]]) -> None:
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            soundfile.read(zoo[0] / "damage/pipe.wav", dtype="float32")
        os._exit(0)
    time.sleep(0.5)
    ended, _ = os.waitpid(child, os.WNOHANG)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert ended == 0, "it came back"


def test_what_is_locked_is_a_row_and_a_locked_folder_is_said() -> None:
    """Seen by someone who is not root, to whom nothing is locked."""
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    place.chmod(0o755)
    (place / "locked.wav").write_bytes(wav_bytes(calling(1)))
    (place / "closed").mkdir()
    (place / "listed").mkdir()
    (place / "listed/owl.wav").write_bytes(wav_bytes(calling(2)))
    for name, mode in (("locked.wav", 0), ("closed", 0), ("listed", 0o444)):
        (place / name).chmod(mode)
    (receive, send) = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            if os.getuid() == 0:
                os.setgid(65_534)
                os.setuid(65_534)
            entries, notes = find_entries([place])
            outcomes: list[str] = []
            for entry in entries:
                recording = open_recording(entry.path, 16_000)
                list(recording.waveform())
                outcomes.append(f"{entry.path.name}: {recording.outcome.status}, {recording.outcome.reason}")
            os.write(send, "\n".join([*outcomes, *notes]).encode())
        os._exit(0)
    os.close(send)
    with os.fdopen(receive) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    for name in ("closed", "listed"):
        (place / name).chmod(0o755)
    shutil.rmtree(place)
    assert "locked.wav: unreadable, cannot be read (Permission denied); check the disk and the permissions" in said
    assert "owl.wav: unreadable, cannot be found (" in said
    assert "could not search: " in said and "closed" in said


# ---- what changes while it is read --------------------------------------------------------------------------------


def shortened(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 4)


def lengthened(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(200_000))


def replaced(path: Path) -> None:
    other = path.with_suffix(".new")
    write(other, calling(3), format="WAV")
    other.replace(path)


class DecoderHere:
    """One without a process of its own, so that a test can look over its shoulder."""

    def __init__(self) -> None:
        self.process = SimpleNamespace(pid=os.getpid())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def waveform(self, recording: audio.OpenRecording) -> Iterator[Waveform]:
        return recording.waveform()


@pytest.mark.parametrize(
    ("name", "change", "status", "words"),
    [
        ("a.wav", shortened, "salvaged", "it changed while it was read, read it again"),
        ("a.flac", shortened, "salvaged", "it changed while it was read, read it again"),
        ("a.wav", lengthened, "salvaged", "it changed while it was read, read it again"),
        ("a.wav", replaced, "ok", "^$"),
        ("a.wav", Path.unlink, "ok", "^$"),
    ],
)
def test_what_changes_while_it_is_read_says_so_and_is_read_again_the_next_time(
    name: str,
    change: Callable[[Path], None],
    status: str,
    words: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file under its name is one thing, what was opened another: a replaced or removed file is read to its end."""
    path = tmp_path / "in" / name
    path.parent.mkdir()
    write(path, calling(4, seconds=70.0))
    write(path.with_name("b.wav"), calling(5))
    real = libsndfile.soundfile_blocks
    moved: list[bool] = []

    def moving(file: Any, reading: Reading) -> Any:
        blocks = real(file, reading)
        yield next(blocks)
        if not moved:
            moved.append(True)
            change(path)
        return (yield from blocks)

    config = PredictCommand((path.parent,), model=(model,), out=tmp_path / "out", min_conf=0.5, threads=1)
    with monkeypatch.context() as patch:
        patch.setattr(audio, "soundfile_blocks", moving)
        patch.setattr("serving.analyser.Decoder", DecoderHere)
        assert predict(config) == 0
    first, other = read_csv(tmp_path / "out" / "files.csv")
    assert first["status"] == status and re.search(words, first["reason"]) and other["status"] == "ok"
    assert status == "salvaged" or float(first["seconds_analysed"]) == 70.0
    read: list[Path] = []

    def noted(path: Path, sample_rate: int, channel: int, shortest: float) -> audio.OpenRecording:
        read.append(path)
        return open_recording(path, sample_rate, channel, shortest)

    with monkeypatch.context() as patch:
        patch.setattr("serving.analyser.Decoder", DecoderHere)
        patch.setattr("serving.contexts.open_recording", noted)
        predict(config)
    assert read == ([path] if path.exists() else [])
    assert len(read_csv(tmp_path / "out" / "files.csv")) == 1 + path.exists()


# ---- the ledger ---------------------------------------------------------------------------------------------------


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Forty files, every tenth of them no sound."""
    folder = tmp_path / "in"
    folder.mkdir()
    for place in range(40):
        content = b"no sound\n" * 20 if place % 10 == 3 else wav_bytes(calling(place, seconds=2.0))
        (folder / f"{place:02}.wav").write_bytes(content)
    return folder


def in_child(command: Callable[[], object]) -> int:
    """Start a command in a process of its own; it writes nothing here."""
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException), Path(os.devnull).open("w") as nowhere:
            os.setsid()
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
            command()
        os._exit(0)
    return child


def test_after_kills_every_recording_is_in_files_csv_once(
    many: Path, model: Path, tmp_path: Path, record_property: Record
) -> None:
    def config(place: str) -> PredictCommand:
        return PredictCommand((many,), model=(model,), out=tmp_path / place, min_conf=0.5, threads=1)

    def parts() -> int:
        return sum(1 for _ in (tmp_path / "cut" / ".parts").glob("*/*.json"))

    def cut_after(saves: int, within: bool) -> None:
        real, replaced, kept = Journal.save, Path.replace, list[int]()

        def deadly(*told: Any) -> None:
            kept.append(1)
            if len(kept) == saves + within and within:
                patch.setattr(Path, "replace", die)  # its part is written, and does not have its name yet
            real(*told)
            if len(kept) == saves and not within:
                die()

        def die(*_: Any) -> None:
            os.killpg(0, signal.SIGKILL)

        assert replaced is Path.replace
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Journal, "save", deadly)
            predict(config("cut"))

    cuts = [(1, False), (8, True), (13, False)]
    kills = [os.waitpid(in_child(partial(cut_after, *cut)), 0)[1] for cut in cuts]
    assert kills == [signal.SIGKILL] * 3 and 22 <= parts() < 40 and not (tmp_path / "cut" / "files.csv").exists()
    assert predict(config("cut")) == 2 and predict(config("whole")) == 2
    rows = read_csv(tmp_path / "cut" / "files.csv")
    assert Counter(row["status"] for row in rows) == {"ok": 36, "unreadable": 4}
    assert [Path(row["file"]).name for row in rows] == [f"{place:02}.wav" for place in range(40)]
    for table in ("files.csv", "detections.csv"):
        assert (tmp_path / "cut" / table).read_bytes() == (tmp_path / "whole" / table).read_bytes()
    record_property(
        "R2", f"{len(kills)} times kill -9 among {len(rows)} recordings: each in files.csv once, same bytes"
    )


def test_after_a_kill_every_recording_is_in_recordings_csv_once(
    many: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    record_property: Record,
) -> None:
    from archive import survey as listening
    from config import parse

    monkeypatch.setattr(listening, "LEDGER", tmp_path / "examined.sqlite")
    monkeypatch.setattr(listening, "SAVE_SECONDS", 0.0)
    config = parse(
        SurveyCommand,
        [f"--data.root={many}", "--data.layout=unlabeled", "--data.max_bad=0.5", f"--run.root={tmp_path / 'runs'}"],
    )

    real, kept = listening.note_down, list[int]()

    def deadly(*told: Any) -> None:
        real(*told)
        kept.append(1)
        if len(kept) == 5:
            os.killpg(0, signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(listening, "note_down", deadly)
        assert os.waitpid(in_child(lambda: survey(config)), 0)[1] == signal.SIGKILL
    assert survey(config) == 2 and re.search(
        r"listened to (\d+) recordings; \d+ were known before", capsys.readouterr().out
    )
    rows = read_recordings(tmp_path / "runs" / "data" / "recordings.csv")
    assert [row.name for row in rows] == [f"{place:02}.wav" for place in range(40)]
    assert Counter(row.status for row in rows) == {"ok": 36, "unreadable": 4}
    record_property("R2", f"kill -9 of data_loader.py: {len(rows)} of {len(rows)} recordings in recordings.csv once")


def test_a_recording_lost_on_the_way_ends_in_a_refusal(
    many: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger has teeth: a part that somebody removes, or one that is told of twice, is noticed."""
    config = PredictCommand((many,), model=(model,), out=tmp_path / "out", min_conf=0.5, threads=1)
    real = Journal.recall

    def forgetful(journal: Journal, entries: Any) -> Iterator[Any]:
        return (one for place, one in enumerate(real(journal, entries)) if place != 7)

    def doubling(journal: Journal, entries: Any) -> Iterator[Any]:
        return (one for entry in entries for one in [*real(journal, [entry])] * (1 + (entry.path.name == "07.wav")))

    for recall, words in (
        (forgetful, r"07\.wav where it names .*08\.wav"),
        (doubling, r"08\.wav where it names .*07\.wav"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "recall", recall)
            with pytest.raises(AssertionError, match=words):
                predict(config)
    assert predict(config) == 2  # the same command once more mends it


def test_a_table_with_a_name_too_long_for_any_file_stops_nothing(many: Path, model: Path, tmp_path: Path) -> None:
    rows = [Recording(many / name, name) for name in ("00.wav", "w" * 300 + ".wav", "gone.wav")]
    write_recordings(tmp_path / "recordings.csv", rows)
    config = PredictCommand((tmp_path / "recordings.csv",), model=(model,), out=tmp_path / "out", threads=1)
    assert predict(config) == 2
    told = read_csv(tmp_path / "out" / "files.csv")
    assert [row["status"] for row in told] == ["ok", "unreadable", "unreadable"]
    assert all("cannot be found" in row["reason"] for row in told[1:])


# ---- every reason -------------------------------------------------------------------------------------------------

SAYING = {  # the functions that say what is wrong with a recording
    "sounds/audio.py": "__init__ decoded_blocks",
    "sounds/damage.py": "outcome all_faults dead_notes channel_notes other_notes refusal unfit what_instead",
    "sounds/decoders.py": "waveform why_silent",
    "sounds/ffmpeg.py": "ffmpeg_pieces stream_pieces",
    "sounds/libsndfile.py": "soundfile_blocks",
    "sounds/ogg.py": "ogg_fault",
    "archive/survey.py": "listen examine_there with_outcome",
    "archive/index.py": "checked_name missing stranger",
    "archive/duplicates.py": "without_duplicates",
    "archive/narrators.py": "with_speech",
}
NO_REASONS = ("an HTML page", "named without a suffix", "\u2026")


def reasons_in_code() -> set[str]:
    """Every sentence of these functions up to its semicolon, with an ellipsis for what changes."""
    found: set[str] = set()
    for file, names in SAYING.items():
        tree = ast.parse((HERE / file).read_text(encoding="utf-8"))
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef) and function.name in names.split():
                found |= {text.split(";")[0] for text in sentences(function)}
    return found - {*NO_REASONS}


def sentences(function: ast.FunctionDef) -> Iterator[str]:
    """Texts of three words and more, other than docstrings and what is asserted or printed."""
    aside: list[ast.AST] = [node for node in function.body if isinstance(node, ast.Expr)]
    for node in ast.walk(function):
        printed = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "show"
        aside += [node] if printed or isinstance(node, ast.Assert) else []
        aside += node.values if isinstance(node, ast.JoinedStr) else []
    known = {id(part) for node in aside for part in ast.walk(node)}
    for node in ast.walk(function):
        text = ""
        if isinstance(node, ast.JoinedStr) and id(node) not in known:
            text = "".join(str(value.value) if isinstance(value, ast.Constant) else "\u2026" for value in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in known:
            text = node.value
        if len(text.split()) >= 3:
            yield text


def test_reasons_that_no_file_can_bring_about_are_given_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.wav", calling(6, seconds=70.0))
    recording = open_recording(path, 16_000)
    next(recording.windows(5.0))
    assert recording.outcome.reason == "was not read to its end; exhaust its windows"
    real = libsndfile.soundfile_blocks

    def failing(file: Any, reading: Reading) -> Any:
        yield next(real(file, reading))
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(audio, "soundfile_blocks", failing)
        list(recording.waveform())
    assert recording.outcome.status == "salvaged" and recording.outcome.seconds == BLOCK_SECONDS
    assert recording.outcome.reason.startswith("reading broke off (Input/output error)")
    heard = Examination("ok", "", 2.0, 16_000, 1, "", "", "")
    row = with_outcome(Recording(path, "a.wav", keep=((5.0, 6.0),)), heard)
    assert (row.status, row.reason) == ("refused", "keeps nothing of its 2.0 s; mend keep.csv")
    gone = missing(Recording(path, "a.wav"))
    assert (gone.status, gone.reason) == ("missing", "it is not there; copy it, or take its row out")


def reasons_in_docs() -> list[str]:
    page = (HERE / "docs" / "reasons.md").read_text(encoding="utf-8")
    return [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ") and line[2] != "*"]


def test_every_reason_that_the_code_can_give_has_a_line_in_the_docs_and_the_reverse() -> None:
    told = reasons_in_docs()
    assert len(set(told)) == len(told) and set(told) == reasons_in_code()


def test_every_reason_is_given_by_the_zoo_or_asked_for_in_another_test(
    predicted: Told, surveyed: Told, record_property: Record
) -> None:
    given = "\n".join({row["reason"] for told in (predicted, surveyed) for rows in told.rows.values() for row in rows})
    others = "\n".join(path.read_text(encoding="utf-8") for path in (HERE / "tests").rglob("*.py"))
    untold: list[str] = []
    shown = 0
    for reason in reasons_in_docs():
        words = re.escape(reason).replace("\u2026", ".*")
        by_zoo = bool(re.search(words, given))
        shown += by_zoo
        longest = max(reason.split("\u2026"), key=len).strip(" ,()")
        untold += [] if by_zoo or longest in others else [reason]
    assert not untold
    record_property(
        "R22",
        f"{len(reasons_in_docs())} reasons, each with a line in docs/reasons.md; {shown} given by the zoo itself, "
        f"{len(reasons_in_docs()) - shown} in other tests, {len(untold)} untested",
    )


# ---- many and large -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Watched:
    """A command seen from outside, while it ran."""

    code: int
    stdout: str
    seconds: float
    kilobytes: list[int]  # resident, several times a second
    files: list[int]  # open, at the same times


def watch(words: list[str], place: Path) -> Watched:
    started, kilobytes, files = time.monotonic(), list[int](), list[int]()
    with (place / "said.txt").open("w+") as said:
        process = subprocess.Popen([sys.executable, *words], cwd=HERE, stdout=said, stderr=subprocess.DEVNULL)
        try:
            while process.poll() is None:
                with contextlib.suppress(OSError, IndexError):
                    status = Path(f"/proc/{process.pid}/status").read_text()
                    kilobytes.append(int(status.split("VmRSS:")[1].split()[0]))
                    files.append(len(list(Path(f"/proc/{process.pid}/fd").iterdir())))
                time.sleep(0.05)
        finally:
            process.kill()
        said.seek(0)
        return Watched(process.returncode, said.read(), time.monotonic() - started, kilobytes, files)


def ten_thousand(folder: Path, count: int) -> Path:
    """Links to a recording of 1 s; every tenth file is none."""
    folder.mkdir()
    (folder / "0.wav").write_bytes(wav_bytes(calling(1, 8_000, seconds=1.0), 8_000))
    for place in range(1, count):
        path = folder / f"{place}.wav"
        if place % 10 == 3:
            path.write_bytes(b"no sound\n" * 20)
        else:
            path.hardlink_to(folder / "0.wav")
    return folder


@pytest.mark.slow
def test_a_thousand_bad_among_ten_thousand_cost_a_thousand_rows(
    model: Path, tmp_path: Path, record_property: Record
) -> None:
    few, all_of_them = ten_thousand(tmp_path / "few", 1_000), ten_thousand(tmp_path / "many", 10_000)

    def run(folder: Path, out: str) -> Watched:
        flags = ["--model", str(model), "--out", str(tmp_path / out), "--rtype", "csv", "--threads", "1"]
        return watch(["predictor.py", str(folder), *flags], tmp_path)

    small, large = run(few, "few_out"), run(all_of_them, "many_out")
    assert small.code == large.code == 2
    rows = read_csv(tmp_path / "many_out" / "files.csv")
    assert len({row["file"] for row in rows}) == len(rows) == 10_000
    statuses = Counter(row["status"] for row in rows)
    assert statuses == {"ok": 9_000, "unreadable": 1_000} and "9000 ok, 1000 unreadable" in large.stdout
    each = (max(large.kilobytes) - max(small.kilobytes)) / 9_000
    settled = large.kilobytes[len(large.kilobytes) // 5 : len(large.kilobytes) * 4 // 5]
    grown = (max(settled) - settled[0]) / 6_000
    record_property(
        "R2",
        f"predictor.py, {statuses['unreadable']:,} bad among {len(rows):,}: all in files.csv once, "
        f"{large.seconds:.0f} s",
    )
    record_property(
        "R12",
        f"predictor.py over 10,000 files: {each:.2f} kB more for each than over 1,000, {grown:.2f} kB a file "
        f"while it runs, at most {max(large.files)} open files ({max(small.files)} over 1,000)",
    )
    assert grown < 1 and each < 1 and max(large.files) <= max(small.files) + 2


@pytest.mark.slow
def test_data_loader_counts_a_thousand_bad_among_ten_thousand(tmp_path: Path, record_property: Record) -> None:
    few, all_of_them = ten_thousand(tmp_path / "few", 1_000), ten_thousand(tmp_path / "many", 10_000)

    def run(folder: Path, out: str) -> Watched:
        ledger = (
            "from archive import survey; from pathlib import Path; "
            f"survey.LEDGER = Path({str(tmp_path / f'{out}.sqlite')!r})"
        )
        flags = ["--data.root", str(folder), "--data.layout", "unlabeled", "--data.max_bad", "0.2"]
        code = f"{ledger}; import runpy; runpy.run_path('data_loader.py', run_name='__main__')"
        return watch(["-c", code, *flags, "--run.root", str(tmp_path / out)], tmp_path)

    small, large = run(few, "few_out"), run(all_of_them, "many_out")
    assert small.code == large.code == 2
    rows = read_csv(tmp_path / "many_out" / "data" / "recordings.csv")
    assert len({row["path"] for row in rows}) == len(rows) == 10_000
    statuses = Counter(row["status"] for row in rows)
    assert statuses == {"ok": 1, "duplicate": 8_999, "unreadable": 1_000}
    each = (max(large.kilobytes) - max(small.kilobytes)) / 9_000
    record_property(
        "R2",
        f"data_loader.py, {statuses['unreadable']:,} bad among {len(rows):,}: all in recordings.csv once, "
        f"{large.seconds:.0f} s",
    )
    record_property(
        "R12",
        f"data_loader.py over 10,000 files: {each:.2f} kB more for each than over 1,000, at most "
        f"{max(large.files)} open files ({max(small.files)} over 1,000)",
    )
    assert each < 20 and max(large.files) <= max(small.files) + 2  # the table itself is in memory, row by row


PROBING = "FFmpeg's probing of 64 channels at 1 MHz alone takes 92 s of CPU for 60 MB and gigabytes of memory for 6 GB"


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["RF64", pytest.param("RIFF", marks=pytest.mark.xfail(run=False, reason=PROBING)), "FLAC"]
)
def test_giants_are_read_in_blocks(kind: str, model: Path, tmp_path: Path, record_property: Record) -> None:
    """6 GB as RF64, the same as a WAV file whose 32-bit size ran over, a day of silence in a file of 300 kB."""
    folder = tmp_path / "in"
    folder.mkdir()
    size, channels, rate = 6_000_000_000, 64, 1_000_000
    path, seconds = folder / "giant.wav", size / (rate * channels * 4)
    if kind == "FLAC":
        path, seconds = folder / "day.flac", 86_400.0
        path.write_bytes(silent_flac(seconds, 8_000, 1))
    else:
        path.write_bytes(giant(kind.encode(), size, channels, rate))
        os.truncate(path, size)  # a hole, no disk is filled
    words = ["predictor.py", str(folder), "--model", str(model), "--out", str(tmp_path / "out"), "--rtype", "csv"]
    seen = watch(words, tmp_path)
    (row,) = read_csv(tmp_path / "out" / "files.csv")
    assert (seen.code, row["status"]) == (1, "silent") and abs(float(row["seconds_silent"]) - seconds) < 5
    assert max(seen.kilobytes) < 900_000
    record_property(
        "R1", f"{kind}, {seconds:.0f} s of sound: {seen.seconds:.0f} s, at most {max(seen.kilobytes) // 1000} MB"
    )


def giant(kind: bytes, size: int, channels: int, rate: int) -> bytes:
    """The header of a WAV file of 32-bit floats whose sizes do not fit into 32 bits."""
    fmt = form(3, channels, rate, 32)
    if kind == b"RF64":
        sizes = chunk(b"ds64", struct.pack("<QQQI", size - 8, size - 80 - len(fmt), 0, 0))
        return b"RF64" + b"\xff" * 4 + b"WAVE" + sizes + fmt + b"data" + b"\xff" * 4
    return b"RIFF" + struct.pack("<I", size % 2**32) + b"WAVE" + fmt + b"data" + struct.pack("<I", (size - 44) % 2**32)
