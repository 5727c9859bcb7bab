"""People near the recorder: reported, skipped or muted, in the predictor's tables and in the report's clips."""

import runtime.privacy  # noqa: F401  # pyright: ignore[reportUnusedImport] - before the engines

import base64
import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from pretend import write_beep_model
from pretend_voices import loudness, not_installed, write_package, write_sound

from config import PredictCommand, ReportCommand, Voices
from predictor import predict
from report import write_report
from serving.detections import DETECTION_COLUMNS, VOICE
from serving.tables import FILE_COLUMNS, VOICE_COLUMNS
from sounds import voices

TALKS, BEEPS = [(7.0, 9.0)], [(2.0, 2.5), (5.3, 5.6), (8.0, 8.5), (12.0, 12.5)]  # in windows of 5 s
SPOKEN = 2 + 2 * voices.AROUND_SECONDS
NEAR = 4 * voices.FRAME / voices.RATE  # seconds to which a segment's edges are known, both together


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a pretend detector, a model, and two recordings: with somebody in it and without."""
    folder = tmp_path_factory.mktemp("voices")
    write_package(folder / "package")
    write_beep_model(folder / "beep.onnx", species=2, width=4)
    write_sound(folder / "card" / "talk.wav", 15, TALKS, BEEPS)
    write_sound(folder / "card" / "then.wav", 10, [], [(6.0, 6.5)])
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder / "package")
        yield folder


def command(place: Path, out: Path, mode: Voices, *inputs: Path, **more: Any) -> PredictCommand:
    usual = PredictCommand(inputs or (place / "card",), model=(place / "beep.onnx",), out=out, voices=mode)
    return replace(usual, min_conf=0.01, **more)


@pytest.fixture(scope="module")
def results(place: Path) -> dict[Voices, Path]:
    """What the predictor leaves, each way."""
    found: dict[Voices, Path] = {}
    for mode in ("off", "report", "skip", "mute"):
        assert predict(command(place, place / mode, mode, scores=True, rtype=("csv", "table", "parquet"))) == 0
        found[mode] = place / mode
    return found


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def found_in(folder: Path, name: str = "talk.wav") -> list[tuple[float, float]]:
    """Start and confidence of the detections in a recording."""
    table = rows(folder / "detections.csv")
    return [(float(row["Start (s)"]), float(row["Confidence"])) for row in table if row["File"].endswith(name)]


def file_row(folder: Path, name: str = "talk.wav") -> dict[str, str]:
    return next(row for row in rows(folder / "files.csv") if row["file"].endswith(name))


# --- tables


def test_without_the_flag_tables_are_as_ever_and_no_detector_is_needed(
    results: dict[Voices, Path], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tuple(rows(results["off"] / "detections.csv")[0]) == DETECTION_COLUMNS
    assert tuple(rows(results["off"] / "files.csv")[0]) == FILE_COLUMNS
    monkeypatch.setattr(voices, "find_spec", not_installed)
    assert predict(command(place, tmp_path, "off")) == 0
    for name in ("detections.csv", "files.csv"):
        assert (tmp_path / name).read_bytes() == (results["off"] / name).read_bytes()
    with pytest.raises(AssertionError, match=r"pip install --no-deps -r requirements-voices\.txt") as refusal:
        predict(command(place, tmp_path / "other", "report"))
    assert "\n" not in str(refusal.value) and not (tmp_path / "other").exists()


def test_report_says_where_somebody_speaks_and_changes_nothing_else(results: dict[Voices, Path]) -> None:
    table, before = (rows(results[mode] / "detections.csv") for mode in ("report", "off"))
    spoken = {float(row["Start (s)"]): float(row.pop(VOICE)) for row in table if row["File"].endswith("talk.wav")}
    assert spoken[0] == spoken[10] == 0 and spoken[5] == pytest.approx(SPOKEN, abs=NEAR)
    assert [{name: cell for name, cell in row.items() if name != VOICE} for row in table] == before
    talk, then = (file_row(results["report"], name) for name in ("talk.wav", "then.wav"))
    assert (talk["voice"], talk["seconds_skipped"], talk["seconds_analysed"]) == ("found", "0", "15")
    assert float(talk["seconds_voice"]) == pytest.approx(SPOKEN, abs=NEAR)
    assert [then[name] for name in VOICE_COLUMNS] == ["", "0", "0"]
    assert (results["report"] / "scores.csv").read_bytes() == (results["off"] / "scores.csv").read_bytes()


def test_skip_scores_no_window_in_which_somebody_speaks_and_says_so(results: dict[Voices, Path]) -> None:
    assert [start for start, _ in found_in(results["skip"])] == [0, 10]
    assert [start for start, _ in found_in(results["off"])] == [0, 5, 10]  # negative control
    scored = [float(row["start"]) for row in rows(results["skip"] / "scores.csv") if row["file"].endswith("talk.wav")]
    assert scored == [0, 10]
    talk = file_row(results["skip"])
    assert [talk[name] for name in ("voice", "windows", "seconds_skipped", "seconds_analysed")] == [
        "skipped",
        "2",
        "5",
        "10",
    ]
    selections = (results["skip"] / "exports" / "raven.selections.txt").read_text().splitlines()
    assert [line.split("\t")[3] for line in selections[1:]] == ["0.0", "10.0", "20.0"]  # the next file begins at 15 s


def test_mute_scores_what_is_left_of_a_window(results: dict[Voices, Path], place: Path, tmp_path: Path) -> None:
    assert [start for start, _ in found_in(results["mute"])] == [0, 5, 10]  # the beep before somebody speaks
    talk = file_row(results["mute"])
    assert talk["voice"] == "muted" and float(talk["seconds_skipped"]) == pytest.approx(SPOKEN, abs=NEAR)
    assert float(talk["seconds_analysed"]) + float(talk["seconds_skipped"]) == pytest.approx(15)
    path = write_sound(tmp_path / "a.wav", 15, TALKS, [(8.0, 8.5)])  # an animal is only there while somebody speaks
    both: tuple[tuple[Voices, list[float]], ...] = (("mute", []), ("off", [5.0]))
    for mode, due in both:
        assert predict(command(place, tmp_path / mode, mode, path)) == 0
        assert [start for start, _ in found_in(tmp_path / mode, "a.wav")] == due


def test_results_of_another_treatment_of_voices_are_never_mixed(results: dict[Voices, Path], place: Path) -> None:
    with pytest.raises(AssertionError, match=r"holds results of other settings .*voices was 'skip"):
        predict(command(place, results["skip"], "mute"))


@pytest.mark.parametrize("flag", ["tta", "smooth"])
def test_neighbours_are_not_averaged_where_some_are_left_out(flag: str, place: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="--voices mute"):
        predict(command(place, tmp_path, "skip", **{flag: True}))
    assert predict(command(place, tmp_path, "mute", **{flag: True})) == 0


def test_a_recording_in_which_somebody_speaks_throughout_has_no_window(place: Path, tmp_path: Path) -> None:
    path = write_sound(tmp_path / "lecture.wav", 10, [(0, 10)], [(2, 3)])
    for mode in ("skip", "mute"):
        assert predict(command(place, tmp_path / mode, mode, path, write_sound(tmp_path / "b.wav", 5))) == 0
        row = file_row(tmp_path / mode, "lecture.wav")
        assert (row["windows"], row["detections"], row["status"]) == ("0", "0", "ok")
        assert float(row["seconds_analysed"]) == pytest.approx(0, abs=1e-6)


def test_one_recording_on_the_terminal_says_it_too(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = place / "card" / "talk.wav"
    assert predict(replace(command(place, place, "report", path), out=None)) == 0
    said = capsys.readouterr().out
    assert re.search(r"0:05\.0 - 0:10\.0 .* beep \(2\.4 s of voices\)", said), said
    assert "voices in 1 recordings, 0.0 minutes" in said


# --- clips


def page_of(folder: Path, **settings: Any) -> dict[str, Any]:
    """The facts of a report's page, with the sound of each of its clips."""
    page = folder / "report.html"
    assert write_report(replace(ReportCommand(folder, out=page), **settings)) == 0
    text = page.read_text(encoding="utf-8")
    (told,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    facts: dict[str, Any] = json.loads(told)
    for number, card in enumerate(facts["cards"]):
        (clip,) = re.findall(rf'id="clip{number}">(.*?)</script>', text)
        card["sound"] = soundfile.read(io.BytesIO(base64.b64decode(clip.split()[1])), dtype="float32")
    return facts


def spoken_in(card: dict[str, Any]) -> float:
    """How loud a voice is in a clip from 7.2 to 8.8 s of the recording, of the loudest; -1: that is not in it."""
    samples: NDArray[np.float32]
    samples, rate = card["sound"]
    begin = float(card["cells"][0]) - card["lead"]
    if not begin <= 7.2 or begin + card["seconds"] < 8.8 or not card["cells"][5].endswith("talk.wav"):
        return -1.0
    return loudness(samples, rate, 7.2 - begin, 8.8 - begin) / float(np.abs(samples).max())


def starts(facts: dict[str, Any]) -> list[str]:
    return sorted(card["cells"][0] for card in facts["cards"] if card["cells"][5].endswith("talk.wav"))


def test_a_report_leaves_clips_with_voices_out_and_silences_those_around(results: dict[Voices, Path]) -> None:
    for mode in ("report", "skip"):
        facts = page_of(results[mode])
        assert starts(facts) == ["0", "10"] and len(facts["cards"]) == 3 == facts["drawn"]
    heard = [spoken_in(card) for card in page_of(results["report"], voices="off")["cards"]]
    assert max(heard) > 0.2  # negative control: asked for, it is played
    assert starts(page_of(results["off"], voices="skip")) == ["0", "10"]  # of results that know of no voices


def test_a_muted_clip_holds_no_voice_in_the_window_nor_around_it(results: dict[Voices, Path]) -> None:
    for folder, more in ((results["mute"], {}), (results["off"], {"voices": "mute"})):
        facts = page_of(folder, **more)
        assert starts(facts) == ["0", "10", "5"]
        heard = [spoken_in(card) for card in facts["cards"]]
        assert 0 <= max(heard) < 0.003
        assert sorted("is silenced" in card.get("voice", "") for card in facts["cards"]) == [False] * 3 + [True]
    facts = page_of(results["off"])  # negative control
    assert max(spoken_in(card) for card in facts["cards"]) > 0.2
    assert not any("voice" in card for card in facts["cards"])


def test_a_report_names_what_to_install_or_leave(results: dict[Voices, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voices, "find_spec", not_installed)
    with pytest.raises(AssertionError, match=r"pip install .* or --voices off leaves"):
        page_of(results["report"])
    assert starts(page_of(results["report"], voices="off")) == ["0", "10", "5"]
