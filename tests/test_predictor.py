"""Stage 4: the trainer's scores again, a row for every input, and bad input that stops nothing."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import forked
import numpy as np
import pytest
import soundfile
import soxr
from conftest import Stages
from scipy.special import expit, logit
from test_scorer import present, pretend_openvino, toy
from test_zoo import loudness_model

from archive.recordings import Recording, write_recordings
from config import PredictCommand, TableKind, part_of
from demo_data import FieldSeason
from evaluation.calibration import SILENCED, UNVALIDATED, Threshold, Thresholds, thresholds_to_json
from predictor import predict
from serving.analysis import score_entries
from serving.choices import ChoiceSettings, choose_detections
from serving.contexts import SoundSettings
from serving.detections import Scored
from serving.inputs import Entry, find_entries
from serving.journal import Journal, open_journal
from serving.scorer import Scorer, cpu_name, open_scorer
from sounds.damage import Outcome
from sounds.decoders import Decoder
from taxonomy import RANKS

HERE = Path(__file__).parents[1]
BUZZ = np.resize(np.repeat([0.01, -0.01], 8), 80_000)  # five seconds that are neither silent nor off centre
DAY = sorted((HERE.parent / "shared" / "animals" / "soundscapes").glob("maad_S4A03895_20190522_*.ogg"))


def command(stages: Stages, *inputs: Path, **settings: Any) -> PredictCommand:
    return replace(PredictCommand(inputs, model=(stages.model,), runs=stages.runs), **settings)


def scored_windows(stages: Stages, path: Path, **settings: Any) -> Scored:
    scorer, entry = open_scorer(stages.model), Entry(path)
    ((_, _, (scored,)),) = scored_by([scorer], entry, command(stages, path, **settings))
    return scored


def scored_by(
    scorers: Sequence[Scorer], entry: Entry, config: PredictCommand
) -> list[tuple[Entry, Outcome, list[Scored]]]:
    with Decoder() as decoder:
        return list(score_entries(scorers, [entry], part_of(SoundSettings, config), decoder))


def results(folder: Path) -> dict[str, bytes]:
    """Every table of a folder, byte for byte."""
    tables = [path for path in folder.rglob("*") if path.is_file() and ".parts" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in tables if path.name != "run.json"}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_predictor_gives_the_trainers_scores(stages: Stages, tmp_path: Path) -> None:
    trained = rows(stages.classifier.parent / "held_out_scores.csv")
    files = list(dict.fromkeys(row["file"] for row in trained))[:12]
    config = command(stages, *map(Path, files), model=(stages.float_model,), out=tmp_path, scores=True)
    assert predict(config) == 0
    served = {(row["file"], row["start"]): row for row in rows(tmp_path / "scores.csv")}
    labels = open_scorer(stages.model).taxonomy.labels
    compared = 0
    for row in trained:
        if row["file"] in files:
            again = served[row["file"], row["start"]]
            ours, theirs = ([float(r[label]) for label in labels] for r in (again, row))
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
            compared += 1
    assert compared == len(served) >= 12


def test_one_recording_is_printed_and_nothing_written(
    stages: Stages, season: FieldSeason, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(stages.runs.iterdir())
    assert predict(command(stages, season.soundscape, min_conf=0.05)) == 0
    said = capsys.readouterr().out
    assert "0:00.0 - 0:05.0" in said or "0:05.0 - 0:10.0" in said
    assert "x real time" in said and sorted(stages.runs.iterdir()) == before


@pytest.mark.parametrize("ranks", [False, True])
def test_one_recording_on_the_terminal_and_in_a_table_gets_the_same_answers(
    ranks: bool, stages: Stages, season: FieldSeason, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = command(stages, season.soundscape, ranks=ranks, min_conf=0.9)
    scorer = open_scorer(stages.model)
    assert choose_detections(part_of(ChoiceSettings, config), [scorer]).ranks == (
        scorer.thresholds.ranks if ranks else {}
    )
    assert predict(config) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if re.match(r" *\d+:\d\d\.\d - ", line)]
    assert predict(replace(config, out=tmp_path)) == 0
    table = rows(tmp_path / "detections.csv")
    above = sum(row["Species code"].split()[0] in RANKS for row in table)
    names = [re.split(r" \d\.\d\d  ", line)[1] for line in said]
    assert len(said) == len(table) and sum(name.split()[0] in RANKS for name in names) == above
    assert ranks or not above


def test_the_rows_of_a_table_that_can_be_heard_are_scored(
    stages: Stages, season: FieldSeason, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = sorted((season.root / "unlabeled").rglob("*.flac"))[:3]
    table = [Recording(path, path.name) for path in [*paths, tmp_path / "gone.flac"]]
    table[2] = replace(table[2], status="silent")
    write_recordings(tmp_path / "recordings.csv", table)
    assert predict(command(stages, tmp_path / "recordings.csv", out=tmp_path / "out")) == 2
    told = {row["file"]: row["status"] for row in rows(tmp_path / "out" / "files.csv")}
    assert told == {str(path): "ok" for path in paths[:2]} | {str(tmp_path / "gone.flac"): "unreadable"}
    assert "1 recordings of the table are no longer there" in capsys.readouterr().out


def test_an_archive_becomes_tables_in_a_folder_of_its_name(stages: Stages, season: FieldSeason) -> None:
    assert predict(command(stages, season.root / "unlabeled")) == 0
    folder = stages.runs / "predict" / "unlabeled"
    assert len(rows(folder / "files.csv")) == 8 and (folder / "exports" / "raven.selections.txt").is_file()
    facts = json.loads((folder / "run.json").read_text())
    assert facts["status"] == "finished" and facts["recordings"] == {"ok": 8} and len(facts["model_sha256"]) == 64
    assert facts["working_directory"] == str(Path.cwd())
    assert facts["int8_known_answers"] == ["exact"] and facts["cpu"] == cpu_name()


def test_the_same_command_gives_the_same_bytes_with_one_thread_and_with_two(
    stages: Stages, season: FieldSeason, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    found: list[dict[str, bytes]] = []
    kinds = ("csv", "table", "audacity", "kaleidoscope", "parquet")
    for number, threads in enumerate((1, 1, 2)):
        out = tmp_path / str(number)
        settings: dict[str, Any] = {"rtype": kinds, "scores": True, "merge_gap": 3.0, "min_conf": 0.1}
        inputs = (season.root / "unlabeled", season.soundscape)
        assert predict(command(stages, *inputs, out=out, threads=threads, **settings)) == 0
        found.append(results(out))
    assert found[0] == found[1] == found[2] and len(found[0]) >= len(kinds) + 2
    assert found[0]["detections.csv"].count(b"\n") > 10
    size = sum(map(len, found[0].values()))
    record_property("R20", f"predictor.py twice and with 2 threads: {len(found[0])} tables of {size:,} bytes identical")


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf, 1e30])
def test_samples_that_are_no_numbers_change_no_window_but_their_own(
    strange: float, stages: Stages, tmp_path: Path
) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 25 * 16_000).astype(np.float32)
    soundfile.write(tmp_path / "whole.wav", sound, 16_000, "FLOAT")
    sound[11 * 16_000 : 13 * 16_000] = strange
    soundfile.write(tmp_path / "strange.wav", sound, 16_000, "FLOAT")
    whole, beside = (scored_windows(stages, tmp_path / f"{name}.wav").probabilities for name in ("whole", "strange"))
    changed = [row for row in range(5) if not np.array_equal(whole[row], beside[row])]
    assert changed == [2] and np.isfinite(beside).all()


def test_a_run_that_was_cut_off_goes_on_and_ends_with_the_same_bytes(
    stages: Stages, season: FieldSeason, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it stops: after each recording, and in the middle of writing a part."""
    settings: dict[str, Any] = {"rtype": ("csv", "table", "audacity", "kaleidoscope"), "scores": True, "merge_gap": 3.0}
    inputs = (season.root / "unlabeled", season.root / "damaged")
    assert predict(command(stages, *inputs, out=tmp_path / "whole", **settings)) == 2
    expected = results(tmp_path / "whole")
    assert len(expected) > 10 and b"unreadable" in expected["files.csv"]
    real = Journal.save
    calls = 0

    def cut_off(journal: Journal, entry: Entry, *told: Any) -> None:
        nonlocal calls
        calls += 1
        if calls % 3 == 2:
            journal.path(entry, "json").parent.mkdir(exist_ok=True)
            journal.path(entry, "npz").write_bytes(b"half of a part")  # as a kill between its two files leaves it
            raise KeyboardInterrupt
        real(journal, entry, *told)

    monkeypatch.setattr(Journal, "save", cut_off)
    stops = 0
    while True:
        try:
            assert predict(command(stages, *inputs, out=tmp_path / "cut", **settings)) == 2
            break
        except KeyboardInterrupt:
            stops += 1
            assert not (tmp_path / "cut" / "detections.csv").exists()
    assert stops >= 4 and results(tmp_path / "cut") == expected


def test_a_prior_moves_every_score_of_its_species_and_no_other(
    stages: Stages, season: FieldSeason, tmp_path: Path
) -> None:
    label, *others = open_scorer(stages.model).taxonomy.labels
    table = tmp_path / "prior.csv"
    table.write_text(f"species,probability\n{label},0.2\n")
    plain = command(stages, season.soundscape, out=tmp_path / "plain", scores=True)
    assert predict(plain) == 0 and predict(replace(plain, out=tmp_path / "moved", prior=table)) == 0
    scores = (rows(tmp_path / name / "scores.csv") for name in ("plain", "moved"))
    for before, after in zip(*scores, strict=True):
        p = float(before[label])
        assert float(after[label]) == pytest.approx(0.25 * p / (1 - p + 0.25 * p), abs=1e-5)
        assert all(before[other] == after[other] for other in others)
    with pytest.raises(AssertionError, match=r"results of other settings \(prior was '', is"):
        predict(replace(plain, prior=table))
    with pytest.raises(AssertionError, match="--prior_weight is about --prior"):
        predict(replace(plain, prior_weight=0.5))


def test_results_of_other_settings_are_never_mixed(stages: Stages, season: FieldSeason, tmp_path: Path) -> None:
    folder = season.root / "unlabeled"
    assert predict(command(stages, folder, out=tmp_path, min_conf=0.1)) == 0
    before = results(tmp_path)
    with pytest.raises(AssertionError, match=r"results of other settings \(thresholds, for .* --restart"):
        predict(command(stages, folder, out=tmp_path, min_conf=0.9))
    with pytest.raises(AssertionError, match=r"overlap was '0\.0', is '2\.5'"):
        predict(command(stages, folder, out=tmp_path, min_conf=0.1, overlap=2.5))
    with pytest.raises(AssertionError, match=r"reading was '\d+', is '\d+, 10 times slower'"):
        predict(command(stages, folder, out=tmp_path, min_conf=0.1, time_expansion=10))
    assert results(tmp_path) == before
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "finished"  # of the run that was not touched
    assert predict(command(stages, folder, out=tmp_path, min_conf=0.1, rtype=("audacity",))) == 0  # formats may change
    assert predict(command(stages, folder, out=tmp_path, min_conf=0.9, restart=True)) == 0
    assert results(tmp_path)["detections.csv"] != before["detections.csv"]


def test_a_recording_that_changed_is_scored_again(stages: Stages, season: FieldSeason, tmp_path: Path) -> None:
    sounds = sorted((season.root / "unlabeled").rglob("*.flac"))
    place = tmp_path / "in" / "a.flac"
    place.parent.mkdir()
    place.write_bytes(sounds[0].read_bytes())
    (tmp_path / "in" / "b.flac").write_bytes(sounds[1].read_bytes())
    assert predict(command(stages, place.parent, out=tmp_path / "out")) == 0
    first = rows(tmp_path / "out" / "files.csv")
    place.write_bytes(sounds[2].read_bytes())
    assert predict(command(stages, place.parent, out=tmp_path / "out")) == 0
    second = rows(tmp_path / "out" / "files.csv")
    assert first[1] == second[1] and first[0]["size"] != second[0]["size"] == str(sounds[2].stat().st_size)


def test_a_folder_whose_name_begins_a_formula_is_analysed_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = toy(tmp_path / "m.onnx", "Sigmoid")
    monkeypatch.chdir(tmp_path)
    for name in ("+site", "=1+1", "-x", "@home"):
        Path(name).mkdir()
        soundfile.write(f"{name}/a.wav", BUZZ, 16_000)
        assert predict(PredictCommand((Path(name),), model=(model,), out=Path("out"), restart=True)) == 0
        assert [row["file"] for row in rows(Path("out/files.csv"))] == [f"./{name}/a.wav"]


def test_archives_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    model = toy(tmp_path / "m.onnx", "Sigmoid")
    for place in ("A", "B"):
        (tmp_path / place / "audio").mkdir(parents=True)
        soundfile.write(tmp_path / place / "audio" / "a.wav", BUZZ, 16_000)
    first, second = (
        PredictCommand((tmp_path / place / "audio",), model=(model,), runs=tmp_path / "runs") for place in ("A", "B")
    )
    assert predict(first) == 0 and predict(first) == 0
    with pytest.raises(AssertionError, match=r"holds the results of .*/A/audio; give --out a folder for these"):
        predict(second)
    assert predict(replace(second, out=tmp_path / "other")) == 0


def test_what_vanishes_after_it_was_found_is_a_row_and_is_read_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card that is pulled out: one recording, then the whole folder."""
    model, card, drawer = toy(tmp_path / "m.onnx", "Sigmoid"), tmp_path / "card", tmp_path / "drawer"
    card.mkdir()
    for name in ("a.wav", "b.wav", "c.wav"):
        soundfile.write(card / name, BUZZ, 16_000)
    config = PredictCommand((card,), model=(model,), out=tmp_path / "out")
    found = find_entries([card])

    def pulled_out(what: Path, where: Path) -> Callable[..., object]:
        def find(*_: object) -> object:
            what.rename(where)
            return found

        return find

    with monkeypatch.context() as patch:
        patch.setattr("predictor.find_entries", pulled_out(card / "b.wav", tmp_path / "b.wav"))
        assert predict(config) == 2
        told = {Path(row["file"]).name: row for row in rows(tmp_path / "out" / "files.csv")}
        assert [told[name]["status"] for name in ("a.wav", "b.wav", "c.wav")] == ["ok", "unreadable", "ok"]
        assert "cannot be found" in told["b.wav"]["reason"]
        patch.setattr("predictor.find_entries", pulled_out(card, drawer))
        with pytest.raises(AssertionError, match="none of the 3 recordings could be analysed"):
            predict(replace(config, restart=True))
        assert len(rows(tmp_path / "out" / "files.csv")) == 3
    drawer.rename(card)
    (tmp_path / "b.wav").rename(card / "b.wav")
    assert predict(replace(config, retry_failed=True)) == 0
    assert {row["status"] for row in rows(tmp_path / "out" / "files.csv")} == {"ok"}


def test_a_time_that_is_none_is_left_out_with_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = toy(tmp_path / "m.onnx", "Sigmoid")
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, BUZZ, 16_000)
    told = [
        Recording(tmp_path / name, name, recorded_at=when)
        for name, when in (("a.wav", "Tue 14 May 2026"), ("b.wav", "2026-05-14T05:30:00"))
    ]
    write_recordings(tmp_path / "recordings.csv", told)
    config = PredictCommand((tmp_path / "recordings.csv",), model=(model,), out=tmp_path / "out", min_conf=0.1)
    assert predict(config) == 0
    assert "1 rows have a recorded_at that is no time" in capsys.readouterr().out
    assert [row["recorded_at"] for row in rows(tmp_path / "out" / "files.csv")] == ["", "2026-05-14T05:30:00"]


def test_as_one_of_several_processes_it_is_refused_before_any_work(tmp_path: Path) -> None:
    model = toy(tmp_path / "m.onnx", "Sigmoid")
    soundfile.write(tmp_path / "a.wav", BUZZ, 16_000)
    words = [sys.executable, "predictor.py", str(tmp_path / "a.wav"), "--model", str(model)]
    done = subprocess.run(words, cwd=HERE, env=os.environ | {"RANK": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "unset RANK" in done.stderr and not done.stdout


def test_shards_are_disjoint_and_end_as_one_machine_would(
    stages: Stages, season: FieldSeason, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = season.root / "unlabeled"
    assert predict(command(stages, folder, out=tmp_path / "one", scores=True)) == 0
    done: list[set[Path]] = []
    for shard in ("1/4", "2/4", "3/4", "4/4"):
        before = set((tmp_path / "four").rglob("*.json"))
        assert predict(command(stages, folder, out=tmp_path / "four", scores=True, shard=shard)) == 0
        done.append({path for path in (tmp_path / "four").rglob("*.json") if path.parent.name != ".parts"} - before)
        assert not (tmp_path / "four" / "detections.csv").exists()
    assert sum(len({path for path in part if path.name != "run.json"}) for part in done) == 8
    capsys.readouterr()
    assert predict(command(stages, folder, out=tmp_path / "four", scores=True)) == 0
    assert "resuming: 8 of 8" in capsys.readouterr().out
    assert results(tmp_path / "four") == results(tmp_path / "one")


def test_four_processes_at_once_end_as_one_would(stages: Stages, season: FieldSeason, tmp_path: Path) -> None:
    words = ("predictor.py", season.root / "unlabeled", "--model", stages.model, "--threads", "1", "--out")
    assert forked.run(tmp_path, *words, tmp_path / "one").returncode == 0
    four = (*words, tmp_path / "four")
    processes = [forked.start(tmp_path, *four, "--shard", f"{part}/4") for part in (1, 2, 3, 4)]
    assert [process.ended().returncode for process in processes] == [0, 0, 0, 0]
    done = forked.run(tmp_path, *four)
    assert done.returncode == 0 and "resuming: 8 of 8" in done.stdout
    assert results(tmp_path / "four") == results(tmp_path / "one")


def test_two_processes_do_not_share_a_folder(stages: Stages, season: FieldSeason, tmp_path: Path) -> None:
    with (
        open_journal(tmp_path, {}, arrays=False),
        pytest.raises(AssertionError, match=r"another predictor\.py is at work"),
    ):
        predict(command(stages, season.root / "unlabeled", out=tmp_path))


def test_damaged_recordings_are_rows_with_a_reason_and_exit_code_2(
    stages: Stages, season: FieldSeason, tmp_path: Path
) -> None:
    assert predict(command(stages, season.root / "damaged", season.soundscape, out=tmp_path)) == 2
    files = {Path(row["file"]).name: row for row in rows(tmp_path / "files.csv")}
    assert files["text_not_sound.wav"]["status"] == "unreadable" and files["text_not_sound.wav"]["reason"]
    assert (
        files["cut_in_half.flac"]["status"] == "salvaged" and float(files["cut_in_half.flac"]["seconds_analysed"]) > 1
    )
    assert files["silent.flac"]["status"] == "silent" and files[season.soundscape.name]["status"] == "ok"


def test_nothing_but_unreadable_input_is_a_failed_run_and_no_default(
    stages: Stages, season: FieldSeason, tmp_path: Path
) -> None:
    text = season.root / "damaged" / "text_not_sound.wav"
    with pytest.raises(AssertionError, match="has 40 bytes, no room for sound"):
        predict(command(stages, text))
    with pytest.raises(AssertionError, match="none of the 1 recordings"):
        predict(command(stages, text, out=tmp_path / "out"))
    assert rows(tmp_path / "out" / "files.csv")[0]["status"] == "unreadable"  # the reason is kept all the same
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(b"no sound " * 20)
    with pytest.raises(AssertionError, match="none of the 2 recordings"):
        predict(command(stages, tmp_path / "a.wav", tmp_path / "b.wav", runs=tmp_path / "runs"))
    place = tmp_path / "runs" / "predict" / "a.wav-and-1-more"
    assert json.loads((place / "run.json").read_text())["status"] == "failed"


def test_what_could_not_be_read_is_tried_again_on_request(stages: Stages, season: FieldSeason, tmp_path: Path) -> None:
    bad, good = tmp_path / "in" / "bad.wav", tmp_path / "in" / "good.flac"
    bad.parent.mkdir()
    bad.write_bytes(b"no sound " * 20)
    sound = sorted((season.root / "unlabeled").rglob("*.flac"))[0]
    good.write_bytes(sound.read_bytes())
    assert predict(command(stages, bad.parent, out=tmp_path / "out")) == 2
    real = bad.stat()
    bad.write_bytes(b"no sound " * 20)
    os.utime(bad, ns=(real.st_atime_ns, real.st_mtime_ns))
    assert predict(command(stages, bad.parent, out=tmp_path / "out", retry_failed=True)) == 2
    with pytest.raises(AssertionError, match=r"bad\.wav"):
        predict(command(stages, bad.parent, out=tmp_path / "other", fail_fast=True))


def test_overlapping_windows_start_a_hop_apart(stages: Stages, season: FieldSeason) -> None:
    plain, dense = (scored_windows(stages, season.soundscape, overlap=overlap) for overlap in (0.0, 2.5))
    assert [s for s in dense.starts if s % 5 == 0] == list(plain.starts) and dense.starts[1] == 2.5
    np.testing.assert_array_equal(dense.probabilities[::2][: len(plain.starts)], plain.probabilities)


def test_shifted_windows_are_averaged_with_those_between_them(stages: Stages, season: FieldSeason) -> None:
    plain, dense = (scored_windows(stages, season.soundscape, overlap=overlap) for overlap in (0.0, 2.5))
    averaged = scored_windows(stages, season.soundscape, tta=True)
    assert averaged.starts == plain.starts and averaged.ends == plain.ends
    p = dense.probabilities
    np.testing.assert_allclose(averaged.probabilities[0], (2 * p[0] + p[1]) / 3, atol=1e-6)
    np.testing.assert_allclose(averaged.probabilities[2], (p[3] + 2 * p[4] + p[5]) / 4, atol=1e-6)
    assert np.abs(averaged.probabilities - plain.probabilities).max() > 0.01


def test_each_channel_is_heard_by_itself(stages: Stages, season: FieldSeason, tmp_path: Path) -> None:
    left, rate = soundfile.read(season.soundscape, dtype="float32")
    right = np.resize(BUZZ, left.shape).astype(np.float32)
    soundfile.write(tmp_path / "two.wav", np.stack([left, right], axis=1), rate, "FLOAT")
    soundfile.write(tmp_path / "left.wav", left, rate, "FLOAT")
    path, alone = tmp_path / "two.wav", scored_windows(stages, tmp_path / "left.wav")
    first, second = (scored_windows(stages, path, channel=channel) for channel in ("1", "2"))
    np.testing.assert_array_equal(first.probabilities, alone.probabilities)
    assert np.abs(second.probabilities - first.probabilities).max() > 0.1 and second.channel == 2
    assert np.ptp(second.probabilities[1:-1], axis=0).max() < 1e-4  # the same throughout, but for its ends
    config = command(stages, path, channel="each", min_conf=0.1, out=tmp_path / "out")
    assert predict(config) == 0
    table = rows(tmp_path / "out" / "detections.csv")
    assert {row["Channel"] for row in table} >= {"1"} and all(row["Channel"] in ("1", "2") for row in table)
    assert rows(tmp_path / "out" / "files.csv")[0]["windows"] == str(2 * len(alone.starts))
    with pytest.raises(AssertionError, match="has 2 channels, channel 3 was asked for"):
        predict(command(stages, path, channel="3"))
    arrays: dict[str, Any] = {"scores": True, "out": tmp_path / "arrays", "embeddings": tmp_path / "e.csv"}
    assert predict(command(stages, path, channel="each", **arrays)) == 0
    scores, vectors = rows(tmp_path / "arrays" / "scores.csv"), rows(tmp_path / "e.csv")
    due = [str(channel) for channel in (1, 2) for _ in alone.starts]
    assert [row["channel"] for row in scores] == [row["channel"] for row in vectors] == due
    label = open_scorer(stages.model).taxonomy.labels[0]
    served = [float(row[label]) for row in scores if row["channel"] == "2"]
    np.testing.assert_allclose(served, second.probabilities[:, 0], rtol=1e-5)
    assert predict(command(stages, path, channel="each", **(arrays | {"embeddings": tmp_path / "e.npz"}))) == 0
    assert np.load(tmp_path / "e.npz")["channel"].tolist() == [int(channel) for channel in due]
    assert predict(command(stages, path, **(arrays | {"out": tmp_path / "mean"}))) == 0
    assert "channel" not in rows(tmp_path / "mean" / "scores.csv")[0], "of the mean there is but one"


def test_several_models_are_averaged_as_logits(stages: Stages, season: FieldSeason) -> None:
    entry, config = Entry(season.soundscape), command(stages, season.soundscape)
    one, other = open_scorer(stages.model), open_scorer(stages.float_model)
    ((_, _, (both,)),) = scored_by([one, other], entry, config)
    singles = [scored_by([scorer], entry, config)[0][2][0] for scorer in (one, other)]
    mean = expit(np.mean([logit(s.probabilities.astype(np.float64)) for s in singles], axis=0))
    np.testing.assert_allclose(both.probabilities, mean, atol=1e-6)


def doubtful(folder: Path, positives: int = 0) -> PredictCommand:
    """Three windows of .75, .95 and 1, and a model whose only species has so many held-out recordings."""
    (folder / "in").mkdir(parents=True)
    sound = np.concatenate([loudness * BUZZ / 0.01 for loudness in (0.0038, 0.0106, 0.3)])
    soundfile.write(folder / "in" / "a.wav", sound, 16_000, "FLOAT")
    note, strict = (UNVALIDATED, 0.9) if not positives else ("", 0.0)
    limit = Threshold("41", 0.5, 0.0, None, 0.0, 0.0, positives, 20, note, least=strict)
    facts = {"precision": "float32", **thresholds_to_json(Thresholds((limit,)))}
    toy(folder / "m.onnx", "Sigmoid", facts=facts, reduce="ReduceL2")
    config = PredictCommand((folder / "in",), model=(folder / "m.onnx",), runs=folder / "runs", out=folder / "out")
    return replace(config, rtype=get_args(TableKind), merge_gap=0.0, split_tables=True)


def test_a_species_that_was_never_validated_is_marked_in_every_table_and_has_a_strict_threshold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(doubtful(tmp_path)) == 0
    said = capsys.readouterr().out
    assert "of 1 species 1 were never validated: they are marked in every table, and have strict thresholds" in said
    assert "(never validated)" in said.split("species  ")[-1]
    found = rows(tmp_path / "out" / "detections.csv")
    assert [(row["Start (s)"], row["Validated"]) for row in found] == [("5", "never"), ("10", "never")]
    written = [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".csv", ".txt", ".parquet")]
    place = str(tmp_path).encode()  # is named after this test
    unmarked = [path.name for path in written if b"never" not in path.read_bytes().replace(place, b"")]
    assert sorted(unmarked) == ["files.csv", "raven.list.txt"] and len(written) >= 7, "they name no species"


def test_a_species_that_was_validated_is_not_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Negative control."""
    assert predict(doubtful(tmp_path, positives=40)) == 0
    assert "validated" not in capsys.readouterr().out
    assert [row["Validated"] for row in rows(tmp_path / "out" / "detections.csv")] == ["yes"] * 3


def test_verdicts_validate_a_species_and_silence_another(tmp_path: Path) -> None:
    config, table = doubtful(tmp_path), tmp_path / "thresholds.csv"
    for number, (row, validated) in enumerate(
        [("41,0.6,,verdicts,", ["yes"] * 3), ("41,0.6,,,", ["never"] * 3), (f"41,1,,verdicts,{SILENCED}", [])]
    ):
        table.write_text(f"label,threshold,model,source,note\n{row}\n")
        assert predict(replace(config, thresholds=table, out=tmp_path / str(number))) == 0
        found = rows(tmp_path / str(number) / "detections.csv")
        assert [one["Validated"] for one in found] == validated, row


def test_a_flag_about_tables_is_refused_where_none_are_written(tmp_path: Path) -> None:
    config = replace(doubtful(tmp_path), inputs=(tmp_path / "in" / "a.wav",), out=None)
    told = replace(config, rtype=PredictCommand().rtype, merge_gap=None, split_tables=False)
    assert predict(told) == 0
    for changed in (replace(told, rtype=("csv",)), replace(told, merge_gap=0.0), replace(told, split_tables=True)):
        with pytest.raises(AssertionError, match=r"--\w+ is about tables, .* add --out FOLDER"):
            predict(changed)
    with pytest.raises(AssertionError, match="--strict is about the lines of --slist"):
        predict(replace(config, strict=True))


def test_a_species_list_keeps_its_species_and_says_what_it_did_not_know(
    stages: Stages, season: FieldSeason, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taxonomy = open_scorer(stages.model).taxonomy
    wanted = f"{taxonomy.scientific_names[2]}_{taxonomy.common_names[2]}"
    (tmp_path / "list.txt").write_text(f"{wanted}\n\n  {taxonomy.labels[5]} \nDodo raphus_dodo\n")
    config = command(stages, season.soundscape, slist=tmp_path / "list.txt", min_conf=0.0, out=tmp_path / "out")
    assert predict(config) == 0
    assert "2 species of the model; not in it: Dodo raphus_dodo" in capsys.readouterr().out
    found = {row["Species code"] for row in rows(tmp_path / "out" / "detections.csv")}
    assert found == {taxonomy.labels[2], taxonomy.labels[5]}
    with pytest.raises(AssertionError, match="--strict: 1 lines"):
        predict(replace(config, strict=True))
    for encoding in ("utf-8-sig", "cp1252", "utf-16", "utf-16-be"):
        (tmp_path / "list.txt").write_bytes(f"{wanted}\r\nNumenius arquata_Großer Brachvogel\r\n".encode(encoding))
        choices = choose_detections(part_of(ChoiceSettings, config), [open_scorer(stages.model)])
        assert np.flatnonzero(choices.wanted).tolist() == [2]
        said = capsys.readouterr().out
        assert "not in it: Numenius arquata_Großer Brachvogel" in said
        assert ("is not in UTF-8, read as" in said) == (encoding != "utf-8-sig")
    (tmp_path / "list.txt").write_text("Dodo raphus\n")
    with pytest.raises(AssertionError, match="no line of"):
        predict(config)


def test_a_submission_has_the_samples_header_and_a_row_for_every_five_seconds(
    stages: Stages, season: FieldSeason, tmp_path: Path
) -> None:
    labels = open_scorer(stages.model).taxonomy.labels
    header = ",".join(["row_id", *reversed(labels), "dodo"])
    numbers = ",".join(["0.1"] * (len(labels) + 1))
    (tmp_path / "sample.csv").write_text(f"{header}\nsoundscape_1_5,{numbers}\n")
    settings: dict[str, Any] = {"submission": tmp_path / "sample.csv", "out": tmp_path / "out", "scores": True}
    assert predict(command(stages, season.soundscape, **settings)) == 0
    text = (tmp_path / "out" / "submission.csv").read_text()
    assert text.splitlines()[0] == header
    table, scores = rows(tmp_path / "out" / "submission.csv"), rows(tmp_path / "out" / "scores.csv")
    assert [row["row_id"] for row in table] == [f"{season.soundscape.stem}_{5 * n + 5}" for n in range(len(scores))]
    for row, score in zip(table, scores, strict=True):
        assert all(float(row[label]) == pytest.approx(float(score[label]), rel=1e-5) for label in labels)
        assert float(row["dodo"]) == pytest.approx(1 / (len(labels) + 1))


def test_an_empty_test_folder_gets_the_samples_rows_so_that_a_notebook_can_be_handed_in(
    stages: Stages, tmp_path: Path
) -> None:
    (tmp_path / "test_soundscapes").mkdir()
    (tmp_path / "test_soundscapes" / "readme.txt").write_text("filled when you submit\n")
    label = open_scorer(stages.model).taxonomy.labels[0]
    (tmp_path / "sample.csv").write_text(
        f"row_id,{label},b,c,d\nsoundscape_1_5,0.5,0.5,0.5,0.5\nsoundscape_1_10,1,1,1,1\n"
    )
    config = command(stages, tmp_path / "test_soundscapes", out=tmp_path / "out")
    assert predict(replace(config, submission=tmp_path / "sample.csv")) == 0
    table = rows(tmp_path / "out" / "submission.csv")
    assert [row.pop("row_id") for row in table] == ["soundscape_1_5", "soundscape_1_10"]
    assert {cell for row in table for cell in row.values()} == {"0.25"}
    with pytest.raises(AssertionError, match="no recordings in"):
        predict(config)


def test_embeddings_are_those_of_the_windows_in_the_tables(stages: Stages, season: FieldSeason, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"embeddings": tmp_path / "e.npz", "out": tmp_path / "out", "scores": True}
    assert predict(command(stages, season.root / "unlabeled", **settings)) == 0
    kept, scores = np.load(tmp_path / "e.npz", allow_pickle=False), rows(tmp_path / "out" / "scores.csv")
    assert kept["embedding"].shape[0] == len(scores) and kept["embedding"].dtype == np.float32
    assert list(kept["file"]) == [row["file"] for row in scores]
    assert [f"{start:g}" for start in kept["start"]] == [row["start"] for row in scores]


def test_detections_have_a_clock_time_and_a_site(stages: Stages, season: FieldSeason, tmp_path: Path) -> None:
    place = tmp_path / "ridge" / "20260514_053000.flac"
    place.parent.mkdir()
    place.write_bytes(season.soundscape.read_bytes())
    config = command(stages, place, out=tmp_path / "out", min_conf=0.05, timezone="America/Bogota")
    assert predict(config) == 0
    row = next(row for row in rows(tmp_path / "out" / "detections.csv") if row["Start (s)"] == "10")
    assert (row["Site"], row["Recorded at"]) == ("ridge", "2026-05-14T05:30:00-05:00")
    assert row["Detected at"] == "2026-05-14T05:30:10-05:00"


@pytest.mark.skipif(not DAY, reason="../shared/animals is not here")
@pytest.mark.parametrize(("rate", "apart_by"), [(16_000, 1e-4), (22_000, 0.03)])
def test_a_day_of_real_recordings_gives_the_same_detections_at_the_same_times_in_one_file(
    rate: int, apart_by: float, stages: Stages, tmp_path: Path
) -> None:
    """24 recordings of ten seconds, named as if one followed the other, and all of them joined. At the network's own
    rate the windows are the same samples; at another, resampling mixes a little of the neighbour into either end of a
    joint. Each begins and ends in 10 ms of fade: strangers glued together would click, as no long recording does."""
    recorded = [soundfile.read(path, dtype="float32") for path in DAY]
    assert len(recorded) == 24 and {(len(sound), own) for sound, own in recorded} == {(220_000, 22_000)}
    sounds = [soxr.resample(sound, own, rate) if own != rate else sound for sound, own in recorded]
    ramp = np.linspace(0, 1, rate // 100, dtype=np.float32)
    for sound in sounds:
        sound[: len(ramp)] *= ramp
        sound[-len(ramp) :] *= ramp[::-1]
    for number, sound in enumerate(sounds):
        place = tmp_path / "apart" / f"20190522_00{number // 6:02}{number % 6}0.wav"
        place.parent.mkdir(exist_ok=True)
        soundfile.write(place, sound, rate, "FLOAT")
    (tmp_path / "joined").mkdir()
    soundfile.write(tmp_path / "joined/20190522_000000.wav", np.concatenate(sounds), rate, "FLOAT")
    told: list[dict[str, tuple[str, float]]] = []
    for name in ("apart", "joined"):
        config = command(stages, tmp_path / name, out=tmp_path / "out" / name, top_n=1, timezone="UTC")
        assert predict(config) == 0
        table = rows(tmp_path / "out" / name / "detections.csv")
        told.append({row["Detected at"]: (row["Species code"], float(row["Confidence"])) for row in table})
    apart, joined = told
    assert list(apart) == list(joined) and len(apart) == 48
    assert list(apart)[-1] == "2019-05-22T00:03:55+00:00"
    for when, (label, confidence) in apart.items():
        assert joined[when][1] == pytest.approx(confidence, abs=apart_by)
        assert joined[when][0] == label or confidence < 0.3
    assert len({label for label, _ in apart.values()}) > 1


def test_a_run_that_is_killed_at_any_moment_ends_with_the_same_bytes(
    stages: Stages, season: FieldSeason, tmp_path: Path
) -> None:
    sound = sorted((season.root / "unlabeled").rglob("*.flac"))[0].read_bytes()
    (tmp_path / "in").mkdir()
    for number in range(40):
        (tmp_path / "in" / f"{number:03}.flac").write_bytes(sound)
    words = (tmp_path / "in", "--model", stages.model, "--scores", "--out")
    assert forked.run(tmp_path, "predictor.py", *words, tmp_path / "whole").returncode == 0
    parts, kills = tmp_path / "cut" / ".parts", 0
    for wanted in (1, 5, 12, 22):
        child = forked.start(tmp_path, "predictor.py", *words, tmp_path / "cut")
        while not child.is_over() and len(list(parts.rglob("*.npz"))) < wanted:
            time.sleep(0.005)
        os.kill(child.pid, signal.SIGKILL)
        kills += child.ended().returncode == -signal.SIGKILL
    assert kills == 4 and not (tmp_path / "cut" / "files.csv").exists()
    assert forked.run(tmp_path, "predictor.py", *words, tmp_path / "cut").returncode == 0
    assert results(tmp_path / "cut") == results(tmp_path / "whole")


def peak_megabytes(place: Path, hours: float) -> int:
    """Largest memory of predictor.py over a file of so many hours, with a model that costs nothing."""
    noise = np.random.default_rng(0).integers(-99, 99, 16_000 * 60, np.int16)
    with soundfile.SoundFile(place / "long.flac", "w", 16_000, 1, "PCM_16") as file:
        for _ in range(round(60 * hours)):
            file.write(noise)
    words = [sys.executable, "predictor.py", str(place / "long.flac"), "--model", str(toy(place / "m.onnx", "Sigmoid"))]
    subprocess.run([*words, "--out", str(place / "out")], cwd=HERE, check=True, capture_output=True)
    assert rows(place / "out" / "files.csv")[0]["windows"] == str(round(720 * hours))
    return int(json.loads((place / "out" / "run.json").read_text())["peak_memory_mb"])


@pytest.mark.parametrize("hours", [2, pytest.param(24, marks=pytest.mark.slow)])
def test_a_long_file_costs_little_more_memory_than_a_minute(hours: int, tmp_path: Path) -> None:
    peaks: list[int] = []
    for name, length in (("minute", 1 / 60), ("long", float(hours))):
        (tmp_path / name).mkdir()
        peaks.append(peak_megabytes(tmp_path / name, length))
    assert peaks[1] - peaks[0] < 200, peaks


def test_batches_change_no_score_of_a_float_file_and_are_refused_for_int8(stages: Stages, season: FieldSeason) -> None:
    settings: dict[str, Any] = {"model": (stages.float_model,)}
    entry, scorer = Entry(season.soundscape), open_scorer(stages.float_model)
    one, four = (
        scored_by([scorer], entry, command(stages, entry.path, batch_size=size, **settings))[0][2][0] for size in (1, 4)
    )
    np.testing.assert_allclose(one.probabilities, four.probabilities, atol=1e-6)
    with pytest.raises(AssertionError, match="INT8 takes one at a time"):
        predict(command(stages, entry.path, batch_size=4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overlap": 5.0}, "--overlap 5"),
        ({"min_conf": 1.5}, "--min_conf"),
        ({"model": (Path("none.onnx"),)}, "quantize.py"),
        ({"channel": "0"}, "--channel 0"),
        ({"channel": "left"}, "--channel left"),
        ({"shard": "4/3", "out": Path("nowhere")}, "--shard 4/3"),
        ({"timezone": "Bogota"}, "--timezone Bogota"),
        ({"site_regex": "("}, "--site_regex"),
        ({"site_regex": "H21"}, "put the site"),
        ({"top_n": -1}, "--top_n"),
        ({"merge_gap": -1.0}, "--merge_gap"),
        ({"submission": Path("s.csv"), "overlap": 2.5}, "--submission"),
        ({"slist": Path("nowhere.txt")}, "--slist nowhere.txt"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_flag(
    stages: Stages, season: FieldSeason, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        predict(command(stages, season.soundscape, **settings))


def test_missing_input_is_named(stages: Stages) -> None:
    with pytest.raises(AssertionError, match=r"not found: nowhere\.ogg"):
        predict(command(stages, Path("nowhere.ogg")))
    with pytest.raises(AssertionError, match="no recordings given"):
        predict(command(stages))


# ---- what is no sound ---------------------------------------------------------------------------------------------


def season_with_faults(folder: Path) -> dict[str, Any]:
    """A microphone that is dead, dies, has one dead channel, is clipped throughout; stubs; and a whole recording."""
    rate = 16_000
    sound = np.random.default_rng(0).normal(0, 0.25, 60 * rate).astype(np.float32)
    dies = np.where(np.arange(len(sound)) < 30 * rate, sound, 0)
    recordings = {
        "dead.wav": 0 * sound,
        "stuck.wav": 0 * sound + 0.4,
        "dies.wav": dies,
        "clipped.wav": np.clip(100 * sound, -1, 1),
        "channel.wav": np.stack([0 * sound, sound], axis=1),
        "stub.wav": sound[: rate // 5],
        "whole.wav": sound,
    }
    folder.mkdir()
    for name, samples in recordings.items():
        soundfile.write(folder / name, samples, rate)
    return recordings


def test_where_there_is_no_sound_nothing_is_detected_and_no_effort_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    season_with_faults(tmp_path / "season")
    model, out = loudness_model(tmp_path / "loudness.onnx"), tmp_path / "out"
    base = PredictCommand((tmp_path / "season",), model=(model,), runs=tmp_path / "runs", min_conf=0.1, out=out)
    assert predict(base) == 2, "done, but some microphones were dead"
    told = {Path(row["file"]).name: row for row in rows(out / "files.csv")}
    due = {  # status, seconds of sound, of none, windows
        "dead.wav": ("silent", "0", "60", "0"),
        "stuck.wav": ("silent", "0", "60", "0"),
        "dies.wav": ("ok", "30", "30", "6"),
        "clipped.wav": ("silent", "0", "60", "0"),
        "channel.wav": ("ok", "60", "0", "12"),
        "stub.wav": ("short", "0", "0.2", "0"),
        "whole.wav": ("ok", "60", "0", "12"),
    }
    names = ("status", "seconds_analysed", "seconds_silent", "windows")
    assert {name: tuple(row[column] for column in names) for name, row in told.items()} == due
    assert all(bool(row["reason"]) == (name != "whole.wav") for name, row in told.items())
    found = {(Path(row["File"]).name, float(row["Start (s)"])) for row in rows(out / "detections.csv")}
    windows = {("dies.wav", 5.0 * n) for n in range(6)} | {("whole.wav", 5.0 * n) for n in range(12)}
    assert found == windows | {("channel.wav", 5.0 * n) for n in range(12)}
    assert "0.04 h and 0.06 h without sound" in capsys.readouterr().out


def test_of_several_channels_heard_alone_the_dead_one_is_named(tmp_path: Path) -> None:
    season_with_faults(tmp_path / "season")
    model, out = loudness_model(tmp_path / "loudness.onnx"), tmp_path / "out"
    base = PredictCommand((tmp_path / "season/channel.wav",), model=(model,), runs=tmp_path / "runs", min_conf=0.1)
    assert predict(replace(base, out=out, channel="each")) == 0
    (told,) = rows(out / "files.csv")
    assert (told["status"], told["windows"]) == ("ok", "12") and "no sound for a while in channel 1" in told["reason"]
    assert {row["Channel"] for row in rows(out / "detections.csv")} == {"2"}


def test_one_recording_without_sound_is_a_refusal_and_a_stub_is_analysed_on_request(tmp_path: Path) -> None:
    season_with_faults(tmp_path / "season")
    model = loudness_model(tmp_path / "loudness.onnx")
    base = PredictCommand((tmp_path / "season/dead.wav",), model=(model,), runs=tmp_path / "runs")
    with pytest.raises(AssertionError, match="holds no sound"):
        predict(base)
    stub = replace(base, inputs=(tmp_path / "season/stub.wav",))
    with pytest.raises(AssertionError, match=r"0\.20 s are too short to analyse, at least 0\.3 s"):
        predict(stub)
    assert predict(replace(stub, shortest=0.0)) == 0


def test_results_of_one_engine_are_not_gone_on_with_by_another(
    stages: Stages,
    season: FieldSeason,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("serving.scorer.find_spec", present)
    monkeypatch.setattr("serving.scorer.open_openvino", pretend_openvino)
    monkeypatch.setattr("serving.scorer.cpu_flags", lambda: ["amx_bf16"])
    times = {"onnxruntime": 0.2, "openvino in bfloat16": 0.1}

    def seconds(scorer: Scorer, _contexts: object) -> float:
        return times[scorer.engine]

    monkeypatch.setattr("serving.scorer.seconds_to_score", seconds)
    model, config = (stages.float_model,), command(stages, season.soundscape, out=tmp_path, min_conf=0.1)
    config = replace(config, model=model)
    assert predict(config) == 0
    with pytest.raises(AssertionError, match="engine was 'onnxruntime', is 'openvino in bfloat16'") as refusal:
        predict(replace(config, engine="openvino"))
    assert "model was" not in str(refusal.value), "of the same file, it is the engine alone"
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["engines"] == ["onnxruntime"] and facts["status"] == "finished", "what is refused touches nothing"
    assert predict(replace(config, engine="auto")) == 0, "auto goes on with the engine of the results, the slower one"
    assert predict(replace(config, engine="auto", restart=True)) == 0  # and takes the quicker one for new ones
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["engines"] == ["openvino in bfloat16"] and "threads, openvino in bfloat16)" in capsys.readouterr().out
    times["onnxruntime"] = 0.01
    assert predict(replace(config, engine="auto")) == 0
    with pytest.raises(AssertionError, match="engine was 'openvino in bfloat16', is 'onnxruntime'"):
        predict(config)
