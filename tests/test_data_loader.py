"""Archives: read, checked, split without leaks, and fed as windows that depend on a seed alone."""

import csv
import json
import math
import multiprocessing
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pretend_voices import write_package, write_sound
from test_segments import event, of_length
from torch.utils.data import DataLoader

from archive.cache import HEADER, fill_cache
from archive.draws import counted_windows, expected_draws
from archive.recordings import Recording, read_recordings
from archive.segments import draw_segment
from archive.summary import hours
from archive.survey import examined_table, open_ledger
from config import (
    AudioSettings,
    CollectionSettings,
    DataSettings,
    PlaceSettings,
    PretrainCommand,
    SurveyCommand,
    TrainSettings,
    parse,
)
from data_loader import (
    Batch,
    EpochBatches,
    RandomWindows,
    batches_of,
    collate,
    fingerprint,
    kept_beside,
    labeled_loader,
    noise_bank,
    of_all,
    read_archive,
    read_labeled,
    read_noise,
    read_unlabeled,
    recording_contexts,
    set_epoch,
    split,
    survey,
    truth_table,
    unlabeled_loader,
    window_loader,
)
from demo_data import FieldSeason
from runtime.csvs import read_table
from serving.contexts import SoundSettings
from serving.contexts import context_pieces as pieces_of_predictor
from serving.inputs import Entry
from sounds.audio import open_recording, read_window
from sounds.decoders import Decoder
from taxonomy import RANKS, Taxonomy, read_taxonomy

AUDIO = AudioSettings()
ANIMALS = Path(__file__).parents[1].parent / "shared" / "animals"


@pytest.fixture
def copy(season: FieldSeason, tmp_path: Path) -> Path:
    """Tables of one's own to spoil, over the same recordings, of which the ledger knows what it knows of those."""
    root = tmp_path / "season"
    root.mkdir()
    for name in ("train.csv", "taxonomy.csv"):
        shutil.copy(season.root / name, root / name)
    links: list[tuple[bytes, bytes]] = []
    for sound in (season.root / "train_audio").rglob("*.flac"):
        place = root / sound.relative_to(season.root)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(sound, place)
        links.append((os.fsencode(place.resolve()), os.fsencode(sound.resolve())))
    read_labeled(settings(season.root))
    table = examined_table()
    with closing(open_ledger()) as ledger, ledger:
        ledger.executemany(f"INSERT INTO {table} SELECT ?, size, mtime, examination FROM {table} WHERE path = ?", links)
    return root


def rewrite(path: Path, change: Callable[[dict[str, str]], dict[str, str]], rows: slice = slice(None)) -> None:
    """Change some rows of a table."""
    with path.open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    table[rows] = [change(row) for row in table[rows]]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)


def edit(path: Path, **changes: str) -> None:
    """Change cells of the first row."""
    rewrite(path, lambda row: row | changes, slice(0, 1))


def without_columns(path: Path, *columns: str) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        table = [{k: v for k, v in row.items() if k not in columns} for row in csv.DictReader(file)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)


def settings(root: Path, **changes: Any) -> DataSettings:
    """Settings that keep nothing."""
    return replace(DataSettings(root, cache_gb=0.0), **changes)


def test_labels_are_text_in_the_order_of_the_taxonomy(season: FieldSeason) -> None:
    taxonomy, recordings = read_labeled(settings(season.root))
    rows = read_table(season.root / "taxonomy.csv", ("primary_label",), "primary_label")
    assert taxonomy.labels == tuple(row["primary_label"] for _, row in rows)
    assert any(label.isdecimal() for label in taxonomy.labels) and any(label.isalnum() for label in taxonomy.labels)
    assert len(recordings) == 8 * len(taxonomy.labels) and min(r.seconds for r in recordings) > 1


def test_rare_species_are_left_out_on_request(copy: Path) -> None:
    lines = (copy / "train.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (copy / "train.csv").write_text("".join(lines[:-5]), encoding="utf-8")  # the last species keeps three recordings
    everyone, _ = read_labeled(settings(copy))
    common, recordings = read_labeled(settings(copy, min_recordings=4))
    assert len(common.labels) == len(everyone.labels) - 1
    assert {label for r in recordings for label in r.labels} <= set(common.labels)


def test_a_missing_recording_is_counted_and_named_and_the_others_go_on(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, before = read_labeled(settings(copy))
    edit(copy / "train.csv", filename="lost.flac")
    _, recordings = read_labeled(settings(copy))
    assert len(recordings) == len(before) - 1
    said = capsys.readouterr().out
    assert f"set aside 1 of {len(before)} recordings" in said and "lost.flac: missing" in said


def test_damaged_silent_and_mislabelled_files_become_rows_with_a_reason(copy: Path) -> None:
    paths = sorted((copy / "train_audio").rglob("*.flac"))[:4]
    sound, rate = soundfile.read(paths[0], dtype="float32")
    broken = {
        paths[0]: paths[0].read_bytes()[: paths[0].stat().st_size // 2],
        paths[1]: b"The owl called twice, then it rained and I went home.\n",
        paths[2]: b"",
    }
    for path, content in broken.items():
        path.unlink()
        path.write_bytes(content)
    paths[3].unlink()
    soundfile.write(paths[3], np.zeros_like(sound), rate)
    rows = {row.path: row for row in read_archive(settings(copy)).recordings}
    assert [rows[path].status for path in paths] == ["salvaged", "unreadable", "unreadable", "silent"]
    assert 0 < rows[paths[0]].seconds < len(sound) / rate and all(rows[path].reason for path in paths)
    _, usable = read_labeled(settings(copy))
    assert {row.path for row in usable} & set(paths) == {paths[0]}


def test_too_many_bad_recordings_stop_the_command_and_the_worst_are_shown(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted((copy / "train_audio").rglob("*.flac"))[:20]:
        path.unlink()
        path.write_text("The owl called twice, then it rained and I went home.\n")
    with pytest.raises(
        AssertionError, match=r"20 of 128 recordings \(16%\) cannot be used, more than --data.max_bad 0.1"
    ):
        read_archive(settings(copy))
    assert capsys.readouterr().out.count(": unreadable, named .flac, is text") == 10
    assert len(read_labeled(settings(copy, max_bad=0.2))[1]) == 108


def test_when_nothing_can_be_used_the_first_reason_is_told(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.wav").write_text("The owl called twice, then it rained and I went home.\n")
    with pytest.raises(AssertionError, match=r"none of 3 recordings can be used; the first: named \.wav, is text"):
        read_archive(settings(tmp_path, max_bad=1.0))


def test_settings_that_cannot_work_name_their_flag() -> None:
    for changes in ({"folds": 1}, {"workers": -1}, {"max_bad": 2.0}, {"balance": -1}, {"most_draws": 0.5},
                    {"most_windows": 0}, {"no_call_share": 1.0}):  # fmt: skip
        with pytest.raises(AssertionError, match=r"--data\."):
            settings(Path(), **changes)
    with pytest.raises(AssertionError, match=r"--data\.cache_gb -1"):
        DataSettings(Path(), cache_gb=-1)
    with pytest.raises(AssertionError, match=r"--train\.epochs 0"):
        TrainSettings(0, 8)


def test_the_tables_folds_are_taken_as_given(season: FieldSeason) -> None:
    _, recordings = read_labeled(settings(season.root))
    train, valid = split(recordings, settings(season.root, valid_fold=2))
    assert {r.fold for r in valid} == {2} and {r.fold for r in train} == {0, 1, 3}
    assert not {r.group for r in train} & {r.group for r in valid}


def test_a_group_on_both_sides_is_refused() -> None:
    one = Recording(Path("a"), "a", ("x",), "g1", 0, 1.0)
    with pytest.raises(AssertionError, match="1 groups stand in several folds"):
        split([one, replace(one, fold=1), replace(one, group="g2", fold=2)], settings(Path()))


def test_a_fold_that_nobody_is_in_is_refused(season: FieldSeason) -> None:
    _, recordings = read_labeled(settings(season.root))
    with pytest.raises(AssertionError, match=r"--data\.valid_fold 9"):
        split(recordings, settings(season.root, valid_fold=9))


def test_without_folds_they_are_drawn_with_people_whole_and_species_spread(copy: Path) -> None:
    without_columns(copy / "train.csv", "fold", "group")
    data = settings(copy, folds=4)
    _, recordings = read_labeled(data)
    assert all(r.group.startswith("by ") for r in recordings)
    _, valid = split(recordings, data)
    assert len({r.labels[0] for r in valid}) >= 8
    assert [r.fold for r in recordings] == [r.fold for r in read_labeled(data)[1]]


def test_both_stages_hold_out_the_same_recordings_whatever_is_left_out(copy: Path) -> None:
    without_columns(copy / "train.csv", "fold", "group")
    lines = (copy / "train.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (copy / "train.csv").write_text("".join(lines[:-5]), encoding="utf-8")  # the last species keeps three recordings
    data = settings(copy, min_recordings=4, folds=3)
    first = {r.name: r.fold for r in read_unlabeled(data)}
    second = {r.name: r.fold for r in read_labeled(data)[1]}
    assert len(second) < len(first) and all(first[name] == fold for name, fold in second.items())


def test_what_one_person_alone_recorded_trains_and_is_never_held_out(copy: Path) -> None:
    without_columns(copy / "train.csv", "fold", "group")
    rows = [row for _, row in read_table(copy / "train.csv", ())]
    loner = rows[0]["primary_label"]
    rewrite(copy / "train.csv", lambda row: row | ({"author": "A. Lone"} if row["primary_label"] == loner else {}))
    _, recordings = read_labeled(settings(copy, folds=3))
    assert {r.fold for r in recordings if r.labels[0] == loner} == {3}
    assert {r.fold for r in recordings} == {0, 1, 2, 3}


def test_too_few_groups_for_the_folds_are_said_and_nothing_can_be_held_out(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without_columns(copy / "train.csv", "fold")
    data = settings(copy, folds=500)
    _, rows = read_labeled(data)
    assert "cannot be divided into 500 folds, so none can be held out; lower --data.folds" in capsys.readouterr().out
    with pytest.raises(AssertionError, match=r"0 to validate on; folds are \[500\]; choose another, or lower"):
        split(rows, data)


def test_an_unknown_author_is_not_one_person(copy: Path) -> None:
    without_columns(copy / "train.csv", "fold", "group")
    rewrite(copy / "train.csv", lambda row: row | {"author": "Unknown"})
    _, recordings = read_labeled(settings(copy))
    assert len({r.group for r in recordings}) == len(recordings)


def folders_of(root: Path, sounds: dict[str, NDArray[np.float32]]) -> DataSettings:
    """Recordings at 16 kHz, each in the folder of its species."""
    for name, sound in sounds.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, np.rint(sound * 32_767).astype(np.int16), 16_000)
    return settings(root, layout="folders", max_bad=1.0)


def changing(seed: int, seconds: float = 8.0) -> NDArray[np.float32]:
    """Noise whose strength changes ten times a second."""
    rng, count = np.random.default_rng(seed), round(seconds * 16_000)
    strength = np.repeat(rng.uniform(0.05, 1, 400), 1_600)[:count]
    return (rng.normal(0, 0.1, count) * strength).astype(np.float32)


def test_of_equal_samples_one_stays_with_the_labels_of_all(tmp_path: Path) -> None:
    sounds = {"Asio otus/a.wav": changing(0), "Strix aluco/b.flac": changing(0), "Strix aluco/c.wav": changing(1)}
    data = folders_of(tmp_path, sounds)
    table = {row.name: row for row in read_archive(data).recordings}
    stays, goes = table["Asio otus/a.wav"], table["Strix aluco/b.flac"]
    assert (stays.status, goes.status, table["Strix aluco/c.wav"].status) == ("ok", "duplicate", "ok")
    assert goes.reason == f"the same samples as {stays.name}" and set(stays.labels) == {"Asio otus", "Strix aluco"}


def test_a_duplicate_from_another_collection_is_set_aside_and_its_labels_and_licence_are_kept(
    copy: Path, tmp_path: Path
) -> None:
    without_columns(copy / "train.csv", "fold", "group")
    with (copy / "train.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    first, other = rows[0], next(row for row in rows if row["primary_label"] != rows[0]["primary_label"])
    sound, rate = soundfile.read(copy / "train_audio" / first["filename"], dtype="float32")
    added = {"author": "Somebody else", "license": "cc-by 4.0", "secondary_labels": "['']"}
    soundfile.write(copy / "train_audio" / "iNat1.wav", sound, rate)  # the same samples
    soundfile.write(copy / "train_audio" / "iNat2.ogg", 0.7 * sound[:-200], rate)  # the same sound
    twins = [other | added | {"filename": "iNat1.wav"}]
    twins += [first | added | {"filename": "iNat2.ogg", "license": "cc-by-nc 4.0"}]
    rows[0] = first | {"license": "cc-0", "secondary_labels": "['']"}

    def table_with(*more: dict[str, str]) -> dict[str, Recording]:
        with (copy / "train.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(first))
            writer.writeheader()
            writer.writerows([*rows, *more])
        return {row.name: row for row in read_archive(settings(copy)).recordings}

    for twin, reason in zip(twins, ("the same samples as", "the same sound as"), strict=True):
        table = table_with(twin)
        pair = [table[f"train_audio/{first['filename']}"], table[f"train_audio/{twin['filename']}"]]
        stays, goes = sorted(pair, key=lambda row: row.status == "duplicate")
        assert (stays.status, goes.status, goes.reason) == ("ok", "duplicate", f"{reason} {stays.name}")
        assert set(stays.labels) == {first["primary_label"], twin["primary_label"]}
        assert set(stays.license.split(" + ")) == {"cc-0", twin["license"]}
    unequal = table_with(twins[1] | {"primary_label": other["primary_label"]})
    assert {row.status for row in unequal.values()} == {"ok"}, "labels are joined where all samples are equal alone"
    assert {row.license for row in unequal.values()} == {"cc-0", "cc-by-nc 4.0"}
    table = table_with(twins[0], twins[1] | {"secondary_labels": f"['{other['primary_label']}']"})
    (stays,) = [row for row in table.values() if "+" in row.license]
    assert sorted(stays.license.split(" + ")) == ["cc-0", "cc-by 4.0", "cc-by-nc 4.0"]
    assert surveyed(copy, tmp_path / "runs") == 0
    again = read_archive(settings(tmp_path / "runs/data/recordings.csv")).recordings
    assert {row.name: row.license for row in again} == {row.name: row.license for row in table.values()}, "each once"


def pair_of_owls(root: Path) -> DataSettings:
    """One owl under two names, and eight other recordings."""
    sounds = {"Asio otus/a.wav": changing(0), "Asio otus/b.flac": changing(0)}
    for place, name in enumerate(("Asio otus", "Strix aluco")):
        sounds |= {f"{name}/{number}.wav": changing(10 * place + number) for number in range(1, 5)}
    return replace(folders_of(root, sounds), folds=2)


Outlook = list[tuple[str, str, str, tuple[str, ...], int]]


def outlook(data: DataSettings) -> Outlook:
    """What an archive comes to."""
    rows = read_archive(data).recordings
    return sorted((row.name, row.status, row.reason, row.labels, row.fold) for row in rows)


def test_duplicates_of_an_earlier_table_are_kept_or_set_aside_as_is_asked_today(tmp_path: Path) -> None:
    data = pair_of_owls(tmp_path / "owls")
    tables = dict[str, Path]()
    for asked in ("set_aside", "keep"):
        flags = ["--data.layout", "folders", "--data.folds", "2", "--data.duplicates", asked]
        assert surveyed(data.root, tmp_path / asked, *flags) == 0
        tables[asked] = tmp_path / asked / "data" / "recordings.csv"
    statuses = {asked: {row.name: row.status for row in read_recordings(table)} for asked, table in tables.items()}
    assert {name for name, status in statuses["set_aside"].items() if status != "ok"} == {"Asio otus/b.flac"}
    assert set(statuses["keep"].values()) == {"ok"}, "the tables differ"
    for table in tables.values():
        today = {row.name: row for row in read_archive(replace(settings(table), duplicates="keep")).recordings}
        assert {row.status for row in today.values()} == {"ok"} and not any(row.reason for row in today.values())
        one, other = today["Asio otus/a.wav"], today["Asio otus/b.flac"]
        assert (one.group, one.fold) == (other.group, other.fold)
        split(list(today.values()), settings(table))
        today = {row.name: row for row in read_archive(settings(table)).recordings}
        assert {name: row.status for name, row in today.items()} == statuses["set_aside"]
        assert today["Asio otus/b.flac"].reason == "the same samples as Asio otus/a.wav"
    for asked in ("set_aside", "keep"):
        direct = replace(data, duplicates=cast(Any, asked))
        assert outlook(replace(settings(tables[asked]), duplicates=cast(Any, asked))) == outlook(direct)


def test_a_duplicate_that_is_kept_after_all_is_held_out_with_what_it_sounds_like(tmp_path: Path) -> None:
    data = pair_of_owls(tmp_path / "owls")
    flags = ["--data.layout", "folders", "--data.folds", "2"]
    assert surveyed(data.root, tmp_path, *flags) == 0
    table = tmp_path / "data" / "recordings.csv"
    fold = {row.name: row.fold for row in read_recordings(table)}["Asio otus/a.wav"]

    def elsewhere(row: dict[str, str]) -> dict[str, str]:
        mine = row["status"] == "duplicate" or row["path"] == "Strix aluco/1.wav"
        return row | ({"group": "by Bob", "fold": str(1 - fold)} if mine else {})

    rewrite(table, elsewhere)
    rows = {row.name: row for row in read_archive(replace(settings(table), duplicates="keep")).recordings}
    one, other, bob = rows["Asio otus/a.wav"], rows["Asio otus/b.flac"], rows["Strix aluco/1.wav"]
    assert (one.fold, other.fold, bob.fold) == (fold, fold, 1 - fold)
    assert one.group == other.group != bob.group == "by Bob"
    split(list(rows.values()), settings(table))


def test_a_duplicate_whose_other_copy_has_gone_is_one_no_more_and_one_that_has_gone_is_no_loss(tmp_path: Path) -> None:
    data = pair_of_owls(tmp_path / "owls")
    assert surveyed(data.root, tmp_path, "--data.layout", "folders", "--data.folds", "2") == 0
    table = tmp_path / "data" / "recordings.csv"
    whole = table.read_text(encoding="utf-8")
    table.write_text("".join(line for line in whole.splitlines(True) if "a.wav" not in line.split(",")[1]), "utf-8")
    rows = read_archive(settings(table)).recordings
    assert len(rows) == 9 and {row.status for row in rows} == {"ok"}
    table.write_text(whole, encoding="utf-8")
    (data.root / "Asio otus/b.flac").unlink()
    for asked in ("set_aside", "keep"):
        rows = read_archive(replace(settings(table), duplicates=cast(Any, asked))).recordings
        assert Counter(row.status for row in rows) == {"ok": 9, "duplicate": 1}


def test_of_one_sound_in_two_encodings_one_is_set_aside_only_where_the_labels_agree(tmp_path: Path) -> None:
    sounds = {
        "Asio otus/a.wav": changing(0),
        "Asio otus/again.ogg": 0.7 * changing(0),
        "Strix aluco/b.wav": 0.5 * changing(0),
        "Strix aluco/c.wav": changing(1),
    }
    data = folders_of(tmp_path, sounds)
    table = {row.name: row for row in read_archive(data).recordings}
    assert [row.status for row in table.values()].count("duplicate") == 1
    assert table["Asio otus/again.ogg"].reason == "the same sound as Asio otus/a.wav"
    assert table["Asio otus/a.wav"].labels == ("Asio otus",) and table["Strix aluco/b.wav"].labels == ("Strix aluco",)
    assert table["Asio otus/a.wav"].group == table["Strix aluco/b.wav"].group, "no split may part them"
    assert table["Strix aluco/c.wav"].group != table["Strix aluco/b.wav"].group
    every = read_archive(replace(data, duplicates="keep")).recordings
    assert {row.status for row in every} == {"ok"} and len({row.group for row in every}) == 2
    (tmp_path / "keep.csv").write_text("filename,start,end\nAsio otus/again.ogg,0,100\n", encoding="utf-8")
    assert {row.status for row in read_archive(data).recordings} == {"ok"}


def test_the_command_lists_duplicates_behind_what_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sounds = {"Asio otus/a.wav": changing(0), "Asio otus/b.flac": changing(0), "Asio otus/c.wav": changing(1)}
    data = folders_of(tmp_path / "owls", sounds)
    flags = ["--data.root", str(data.root), "--data.layout", "folders", "--run.root", str(tmp_path / "runs")]
    assert survey(parse(SurveyCommand, flags)) == 0
    listed = read_recordings(tmp_path / "runs/data/duplicates.csv")
    assert [(row.name, row.status) for row in listed] == [("Asio otus/a.wav", "ok"), ("Asio otus/b.flac", "duplicate")]
    assert "--data.duplicates keep" in capsys.readouterr().out


def test_nothing_is_learnt_from_a_dead_microphone_and_its_hours_are_not_counted(tmp_path: Path) -> None:
    sound, half = changing(2, 40.0), changing(3, 40.0)
    half[20 * 16_000 :] = 0
    data = folders_of(
        tmp_path, {"Asio otus/whole.wav": sound, "Asio otus/half.wav": half, "Asio otus/dead.wav": 0 * sound}
    )
    table = {row.name.split("/")[1]: row for row in read_archive(data).recordings}
    assert [table[name].status for name in ("whole.wav", "half.wav", "dead.wav")] == ["ok", "ok", "silent"]
    half_row, whole_row = table["half.wav"], table["whole.wav"]
    assert half_row.alive == ((0.0, 20.0),) and "20.0 s of it, the first at 20.0 s" in half_row.reason
    assert (
        half_row.keep == whole_row.keep == whole_row.alive == ()
        and hours([row for row in table.values() if row.sound]) * 3600 == 60.0
    )
    (tmp_path / "keep.csv").write_text("filename,start,end\nAsio otus/half.wav,25,35\n", encoding="utf-8")
    kept = next(row for row in read_archive(data).recordings if "half" in row.name)
    assert kept.status == "silent" and kept.reason.startswith("holds no sound where it is kept")
    loader = labeled_loader(
        [table["half.wav"]],
        Taxonomy(("Asio otus",), ("Asio otus",), ("",), (("a",) * 7,), (7,)),
        data,
        AudioSettings(),
        4,
        0,
    )
    assert all(
        batch.waveforms.abs().amax(dim=1).min() > 0.01 for epoch in range(9) for batch in [*epochs(loader, epoch)]
    )
    contexts = list(recording_contexts([table["half.wav"], table["whole.wav"]], AudioSettings()))
    assert [context.owner for context in contexts].count(0) == 4 and [c.owner for c in contexts].count(1) == 8


def with_dead_borders(path: Path) -> Recording:
    """40 s without sound from 0 to 7.3, from 14.95 to 20.2 and from 30.2 on, as the survey leaves it."""
    sound = changing(6, 40.0)
    for start, end in ((0.0, 7.3), (14.95, 20.2), (30.2, 40.0)):
        sound[round(start * 16_000) : round(end * 16_000)] = 0
    data = folders_of(path, {"Asio otus/a.wav": sound})
    (row,) = read_archive(data).recordings
    return row


def predictor_windows(path: Path, audio: AudioSettings) -> list[tuple[float, float, NDArray[np.float32]]]:
    """Start, end and context of every window that predictor.py scores, in the order of time."""
    with Decoder() as decoder:
        heard = [
            (start, end, samples)
            for piece, samples in pieces_of_predictor([Entry(path)], audio, SoundSettings(), decoder)
            if samples is not None
            for start, end in piece.windows
        ]
    return sorted(heard, key=lambda window: window[:2])


@pytest.mark.parametrize("context", [5.0, 10.0, 15.0, 20.0])
@pytest.mark.parametrize("cached", [False, True])
def test_held_out_windows_beside_dead_sound_are_those_of_the_predictor(
    context: float, cached: bool, tmp_path: Path
) -> None:
    row, audio = with_dead_borders(tmp_path / "owls"), replace(AUDIO, context_seconds=context)
    assert row.keep == () and row.alive == ((7.0, 15.0), (20.0, 31.0)), "in whole seconds; not a multiple of 5"
    kept = fill_cache([row], 16_000, tmp_path / "cache", 1.0) if cached else {}
    contexts = list(recording_contexts([row], audio, kept))
    held_out = sorted((*window, number) for number, one in enumerate(contexts) for window in one.windows)
    windows = [(start, end) for start, end, _ in held_out]
    assert windows == [(5.0, 10.0), (10.0, 15.0), (20.0, 25.0), (25.0, 30.0)], "0.2 s from 30 on are too little"
    due = predictor_windows(row.path, audio)
    assert windows == [(start, end) for start, end, _ in due]
    for (_, _, number), (_, _, samples) in zip(held_out, due, strict=True):
        assert np.abs(contexts[number].samples - samples).max() <= (2.0**-15 if cached else 1e-6)
    for one in contexts:  # each answer is that of its window
        begin = one.windows[0][0] - one.rows[0] * 5.0
        assert [begin + 5.0 * place for place in one.rows] == [start for start, _ in one.windows]


@pytest.mark.parametrize("seconds", [5.0, 15.0])
def test_training_windows_never_come_from_dead_sound(seconds: float, tmp_path: Path) -> None:
    row, audio = with_dead_borders(tmp_path / "owls"), replace(AUDIO, context_seconds=seconds)
    sound, _ = soundfile.read(row.path, dtype="float32")
    own = (3.0, 12.0), (25.0, 60.0)
    kept = replace(row, keep=own)
    assert row.usable == row.alive and kept.usable == ((7.0, 12.0), (25.0, 31.0)) and kept.keep == own
    assert (counted_windows(row, AUDIO, 99), counted_windows(kept, AUDIO, 99)) == (3.8, 2.2)
    call = replace(row, start=5.0, end=9.0)  # half of it before the sound begins
    assert call.usable == ((7.0, 9.0),) and counted_windows(call, AUDIO, 99) == 1.0
    rng, starts = np.random.default_rng(0), dict[str, list[float]]()
    for name, one, ranges in (("all", row, row.alive), ("kept", kept, kept.usable), ("call", call, row.alive[:1])):
        for _ in range(200):
            start, end = draw_segment(one, seconds, None, rng)
            assert any(low <= start < end <= high for low, high in ranges), (name, start, end)
            assert np.ptp(sound[round(start * 16_000) :][:16_000]) > 0.01, "within a second there is sound"
            starts.setdefault(name, []).append(start)
    assert min(starts["all"]) < 7.5 and (seconds > 5 or max(starts["all"]) > 25.5), "all that lives is drawn from"
    alive_before = replace(row, alive=())  # the control: nobody told
    dead = [draw_segment(alive_before, seconds, None, rng) for _ in range(200)]
    assert any(np.ptp(sound[round(start * 16_000) :][:16_000]) == 0 for start, _ in dead)
    dataset = RandomWindows([row, kept, call], ("Asio otus",), settings(tmp_path), audio, seed=0)
    for index in range(3):
        for draw in range(20):
            samples, _ = dataset[0, draw, index]
            moves = np.array([np.ptp(piece) for piece in samples.reshape(-1, 1_600)])
            assert (moves < 0.001).mean() < 0.2, (index, draw)


def test_a_label_on_dead_sound_teaches_and_tests_nothing(tmp_path: Path) -> None:
    sound = with_dead_borders(tmp_path / "owls").path
    table = "filename,start,end,species\na.wav,1,3,Asio otus\na.wav,6,9,Asio otus\na.wav,21,23,Asio otus\n"
    (tmp_path / "calls").mkdir()
    sound.rename(tmp_path / "calls" / "a.wav")
    (tmp_path / "calls" / "calls.csv").write_text(table, encoding="utf-8")
    rows = read_archive(settings(tmp_path / "calls", layout="annotations", max_bad=1.0)).recordings
    assert [(row.start, row.status) for row in rows] == [(1.0, "refused"), (6.0, "ok"), (21.0, "ok")]
    assert rows[0].reason.startswith("holds no sound where it is labelled; ")
    windows = [(one.owner, *one.windows[0]) for one in recording_contexts(rows, AUDIO)]
    assert windows == [(1, 5.0, 10.0), (2, 20.0, 25.0)], "the predictor hears nothing from 0 to 5"


def test_what_the_user_keeps_stays_as_it_was_written(tmp_path: Path) -> None:
    sound, data = with_dead_borders(tmp_path / "owls"), settings(tmp_path / "owls", layout="folders", max_bad=1.0)
    own = ((3.0, 12.0), (25.0, 100.0))
    (data.root / "keep.csv").write_text("filename,start,end\na.wav,3,12\na.wav,25,100\n", encoding="utf-8")
    assert surveyed(data.root, tmp_path, "--data.layout", "folders") == 0
    table = tmp_path / "data" / "recordings.csv"
    (written,) = read_recordings(table)
    assert written.keep == own and written.alive == sound.alive
    (again,) = read_archive(settings(table)).recordings
    assert again == written
    starts = [one.windows[0] for one in recording_contexts([again], AUDIO)]
    assert starts == [(3.0, 8.0), (8.0, 12.0), (25.0, 30.0)], "begun where the user says; the last 0.2 s are too little"
    rewrite(table, lambda row: row | {"alive": "0-1"})
    assert read_archive(settings(table)).recordings == [written], "what lives is for the survey to say"
    rewrite(table, lambda row: row | {"keep": ""})
    (everything,) = read_archive(settings(table)).recordings
    assert everything.keep == () and everything.usable == sound.alive
    sound.path.write_bytes(b"The owl called twice, then it rained and I went home.\n" * 9)
    rewrite(table, lambda row: row | {"keep": "3-12"})
    with pytest.raises(AssertionError, match=r"the first: named \.wav, is text"):  # not: mend keep.csv
        read_archive(settings(table))


def test_narrators_are_cut_once_and_stay_cut_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_package(tmp_path / "package")
    monkeypatch.syspath_prepend(tmp_path / "package")
    folder, rain = tmp_path / "birds", tmp_path / "rain"
    told = write_sound(folder / "Asio otus" / "told.wav", 20, [(0, 4)], [(9, 10), (14, 15)])
    shutil.copy(told, told.with_name("twice.wav"))
    write_sound(folder / "Asio otus" / "lecture.wav", 8, [(0, 8)])
    write_sound(folder / "Strix aluco" / "alone.wav", 20, [], [(3, 4), (11, 13)])
    write_sound(rain / "people.wav", 20, [(0, 4)])
    data = CollectionSettings(folder, layout="folders", voices="skip")
    assert survey(SurveyCommand(data, run=PlaceSettings(tmp_path / "runs"))) == 0
    first = {Path(row.name).stem: row for row in read_archive(data).recordings}
    table = tmp_path / "runs" / "data" / "recordings.csv"
    again = {Path(row.name).stem: row for row in read_archive(CollectionSettings(table)).recordings}  # needs no flag
    for rows in (first, again):
        assert {name: row.status for name, row in rows.items()} == {
            "alone": "ok",
            "lecture": "refused",
            "told": "ok",
            "twice": "duplicate",
        }
        ((begin, end),) = rows["told"].keep
        assert begin == pytest.approx(4.2, abs=0.07) and end == 20 and rows["alone"].keep == ()
    noisy = DataSettings(folder, layout="folders", voices="skip", no_call=rain, cache_gb=0.0)
    assert [row.keep for row in read_labeled(noisy)[1] if not row.labels] == [()], "people are no animals: learn that"
    plain = read_archive(replace(data, voices="off")).recordings  # negative control
    assert Counter(row.status for row in plain) == {"ok": 3, "duplicate": 1} and not any(row.keep for row in plain)
    listed = read_archive(replace(data, voices="report")).recordings
    assert {Path(row.name).stem for row in listed if row.voices} == {"told", "lecture"}
    assert not any(row.keep for row in listed)


def epochs(loader: DataLoader[Any], epoch: int) -> list[Any]:
    set_epoch(loader, epoch)
    return list(loader)


def test_a_stub_is_set_aside_and_a_call_that_somebody_cut_out_is_not(tmp_path: Path) -> None:
    sounds = {"Asio otus/call.wav": changing(4, 0.2), "Asio otus/long.wav": changing(5, 6.0)}
    data = folders_of(tmp_path, sounds)
    assert [row.status for row in read_archive(data).recordings] == ["ok", "ok"]
    short, long = read_archive(replace(data, layout="unlabeled")).recordings
    assert (short.status, long.status) == ("short", "ok") and short.reason.startswith("0.20 s are too short to analyse")
    (call,) = [row for row in read_archive(data).recordings if "call" in row.name]
    ((_, samples, _, windows),) = recording_contexts([call], AudioSettings())
    assert windows == ((0.0, 0.2),) and np.array_equal(samples, read_window(call.path, 0.0, 5.0, 16_000))


def test_a_batch_holds_windows_and_labels(season: FieldSeason) -> None:
    data = settings(season.root)
    taxonomy, recordings = read_labeled(data)
    loader = labeled_loader(recordings, taxonomy, data, AUDIO, 8, seed=0)
    batches = list(loader)
    windows = sum(counted_windows(row, AUDIO, data.most_windows) for row in recordings)
    assert len(recordings) < sum(len(batch.targets) for batch in batches) == round(windows)
    assert len(batches) == len(loader) == math.ceil(round(windows) / 8)
    assert all(torch.equal(batch.targets.sum(dim=1), torch.ones(len(batch.targets))) for batch in batches)
    assert sum(float(batch.secondary.sum()) for batch in batches) > 0
    assert batches[0].waveforms.shape == (8, 80_000)


@pytest.mark.parametrize("window", ["random", pytest.param("energy", marks=pytest.mark.slow)])
def test_windows_depend_on_seed_and_epoch_alone(
    window: Literal["random", "energy"], season: FieldSeason, tmp_path: Path
) -> None:
    taxonomy, recordings = read_labeled(settings(season.root))

    def first(seed: int, epoch: int, workers: int = 0, gigabytes: float = 0.0) -> torch.Tensor:
        data = DataSettings(season.root, workers=workers, window=window, cache=tmp_path, cache_gb=gigabytes)
        loader = labeled_loader(recordings[:16], taxonomy, data, AUDIO, 8, seed)
        set_epoch(loader, epoch)
        return torch.cat([batch.waveforms for batch in loader])

    assert torch.equal(first(0, 3), first(0, 3))
    assert not torch.equal(first(0, 3), first(0, 4)) and not torch.equal(first(0, 3), first(1, 3))
    assert torch.equal(first(0, 3), first(0, 3, workers=2))
    kept = first(0, 3, gigabytes=1.0)
    assert torch.allclose(first(0, 3), kept, atol=1e-4) and not torch.equal(first(0, 3), kept)


def allow_cores(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    """As if this process had so many."""

    def affinity(_process: int) -> set[int]:
        return set(range(cores))

    monkeypatch.setattr("os.sched_getaffinity", affinity)


def test_batches_are_the_same_with_and_without_workers(
    season: FieldSeason, record_property: Callable[[str, object], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_cores(monkeypatch, 2)
    taxonomy, recordings = read_labeled(settings(season.root))

    def batches(workers: int, epoch: int) -> list[torch.Tensor]:
        loader = labeled_loader(recordings[:16], taxonomy, DataSettings(season.root, workers=workers), AUDIO, 4, 0)
        set_epoch(loader, epoch)
        return [tensor for batch in loader for tensor in batch]

    alone, again, helped, other = batches(0, 3), batches(0, 3), batches(2, 3), batches(0, 4)
    assert len(alone) == len(again) == len(helped) >= 12
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(alone, again, helped, strict=True))
    assert not torch.equal(alone[0], other[0])
    record_property("R20", f"{len(alone) // 3} batches of the loader are the same with 0 and 2 workers, bit for bit")


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow), "forkserver"])
def test_workers_of_every_kind_come_to_an_end(method: str, season: FieldSeason, tmp_path: Path) -> None:
    data = DataSettings(season.root, cache=tmp_path, cache_gb=1.0)
    _, recordings = read_labeled(data)
    dataset = RandomWindows(recordings[:24], (), data, AUDIO, seed=0)
    loader = window_loader(dataset, EpochBatches(np.ones(24), 4, 0), 2, method)
    for epoch in (1, 2):
        set_epoch(loader, epoch)
        assert sum(len(batch.waveforms) for batch in loader) == 24
    del loader
    deadline = time.monotonic() + 20  # a spawned one takes its time to leave
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


def test_no_more_processes_decode_than_there_are_cores(
    season: FieldSeason, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    _, recordings = read_labeled(DataSettings(season.root))
    dataset = RandomWindows(recordings[:4], (), DataSettings(season.root), AUDIO, seed=0)

    def workers(cores: int, asked: int) -> int:
        allow_cores(monkeypatch, cores)
        return window_loader(dataset, EpochBatches(np.ones(4), 4, 0), asked).num_workers

    assert [workers(1, 2), workers(2, 2), workers(4, 2), workers(1, 0)] == [1, 2, 2, 0]
    assert not [warning for warning in recwarn if "worker" in str(warning.message)]  # torch's, of too many


@given(st.lists(st.floats(0.01, 4), min_size=1, max_size=50), st.integers(0, 5))
def test_every_epoch_draws_each_as_often_as_expected_rounded(expected: list[float], epoch: int) -> None:
    batches = EpochBatches(np.array(expected), 7, seed=1)
    batches.epoch = epoch
    drawn = Counter(index for batch in batches for _, _, index in batch)
    assert drawn.total() == batches.draws == max(1, round(sum(expected)))
    assert [len(batch) for batch in batches] == [7] * (batches.draws // 7) + [batches.draws % 7] * (
        batches.draws % 7 > 0
    )
    assert len(batches) == len(list(batches))
    scale = batches.draws / sum(expected)
    assert all(abs(drawn[n] - scale * wanted) < 1 + 1e-6 for n, wanted in enumerate(expected))


def test_over_many_epochs_the_mean_is_what_was_expected() -> None:
    expected = expected_draws([("a",)] * 90 + [("b",)] * 10, 0.5, 4.0)
    batches, drawn = EpochBatches(expected, 7, seed=0), Counter[int]()
    for epoch in range(300):
        batches.epoch = epoch
        drawn.update(index for batch in batches for _, _, index in batch)
    found = np.array([drawn[n] for n in range(100)]) / 300
    assert np.abs(found - expected).max() < 0.12


def test_the_energy_option_hears_the_call_more_often(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).normal(0, 0.01, 60 * 16_000)
    sound[40 * 16_000 : 42 * 16_000] += 0.3 * np.sin(2 * np.pi * 3_000 * np.arange(32_000) / 16_000)
    soundfile.write(tmp_path / "a.wav", sound, 16_000)
    data = settings(tmp_path)
    rows = read_unlabeled(data)
    shares_heard = {}
    for window in ("random", "energy"):
        dataset = RandomWindows(rows, (), replace(data, window=window), AUDIO, seed=0)
        loud = [np.abs(dataset[0, draw, 0][0]).max() > 0.2 for draw in range(200)]
        shares_heard[window] = np.mean(loud)
    assert shares_heard["random"] < 0.25 and shares_heard["energy"] > 0.5


SWITCHING = np.tile([1.0, -1.0], 480_000)  # of no mean, and of one strength


def second_of(value: float) -> int:
    """The second of a recording of `annotated` to which a sample belongs."""
    return round(abs(float(value)) * 200) - 1


def annotated(folder: Path) -> list[Recording]:
    """A minute in which each second holds its own number, and three labelled stretches."""
    steps = np.repeat((np.arange(60) + 1) / 200, 16_000) * SWITCHING[: 60 * 16_000]  # the second, by its strength
    soundfile.write(folder / "a.wav", steps, 16_000, subtype="FLOAT")
    spans = [(12.0, 13.0, "owl"), (12.5, 14.0, "frog"), (31.0, 33.0, "owl")]
    path = folder / "a.wav"
    return [Recording(path, "a.wav", (label,), seconds=60.0, start=a, end=b) for a, b, label in spans]


def test_a_window_has_the_labels_of_all_annotations_it_shares_enough_with(tmp_path: Path) -> None:
    rows = annotated(tmp_path)
    dataset = RandomWindows(rows, ("frog", "owl"), settings(tmp_path), AUDIO, seed=0)
    for draw in range(40):
        samples, labels = dataset[0, draw, 0]
        first = second_of(samples[0])
        assert labels[0, 1] == 1 and labels[1].sum() == 0 and 7 <= first <= 12
        heard = {second_of(value) for value in samples}
        assert labels[0, 0] == 1 or 13 not in heard
    assert {float(dataset[0, draw, 2][1][0, 0]) for draw in range(40)} == {0.0}


def test_of_a_labelled_stretch_validation_hears_the_predictor_s_windows(tmp_path: Path) -> None:
    rows = annotated(tmp_path)
    heard = [(context.owner, *context.windows[0]) for context in recording_contexts(rows, AUDIO)]
    assert heard == [(0, 10.0, 15.0), (1, 10.0, 15.0), (2, 30.0, 35.0)]
    whole = {window.start: window.samples for window in open_recording(rows[0].path, 16_000).windows(5.0)}
    for context in recording_contexts(rows, AUDIO):
        assert np.allclose(context.samples, whole[context.windows[0][0]], atol=1e-6)


def test_nothing_outside_the_kept_stretches_is_heard(tmp_path: Path) -> None:
    row = replace(annotated(tmp_path)[0], start=None, end=None, keep=((3.0, 9.0), (40.0, 42.0)))
    brief = replace(AUDIO, window_seconds=2.0, context_seconds=2.0)  # nothing is repeated
    dataset = RandomWindows([row], ("owl",), settings(tmp_path), brief, seed=0)
    heard = {second_of(value) for draw in range(60) for value in dataset[0, draw, 0][0]}
    assert heard <= {*range(3, 9), 40, 41} and {3, 8, 40, 41} <= heard
    windows = [context.windows[0] for context in recording_contexts([row], AUDIO)]
    assert windows == [(3.0, 8.0), (8.0, 9.0), (40.0, 42.0)]


@pytest.mark.parametrize("seconds", [0.5, 1.23456, 3.7, 4.99999, 6.1])
def test_training_fills_a_short_recording_as_the_predictor_does(seconds: float, tmp_path: Path) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, round(seconds * 32_000))
    soundfile.write(tmp_path / "a.wav", sound, 32_000)
    data = settings(tmp_path, cache=tmp_path / "cache")
    rows = [replace(row, labels=("owl",)) for row in read_unlabeled(data)]
    first = next(iter(open_recording(rows[0].path, 16_000).windows(5.0))).samples
    stretch = replace(rows[0], start=0.1, end=rows[0].seconds)
    for gigabytes in (0.0, 1.0):
        dataset = RandomWindows([rows[0], stretch], ("owl",), replace(data, cache_gb=gigabytes), AUDIO, seed=0)
        for index in (0, 1) if seconds < 5 else ():
            assert np.abs(dataset[1, 2, index][0] - first).max() < 2e-4
    (context, *_) = recording_contexts([stretch], AUDIO)
    assert np.abs(context.samples - first).max() < 2e-4


def test_unlabelled_sound_is_found_wherever_it_lies(season: FieldSeason) -> None:
    everything = read_unlabeled(settings(season.root))
    names = {r.name.split("/")[0] for r in everything}
    assert names == {"train_audio", "unlabeled", "train_soundscapes"}
    plain = read_unlabeled(settings(season.root / "unlabeled", folds=2))
    assert len(plain) == 8 and {r.fold for r in plain} == {0, 1}
    assert len({r.name for r in everything}) == len(everything)


def test_an_epoch_of_stage_one_hears_all_of_long_recordings_up_to_the_cap(tmp_path: Path) -> None:
    hours = [of_length(3600.0, name=str(number)) for number in range(100)]
    stage_one = replace(PretrainCommand.defaults("base").data, root=tmp_path, cache_gb=0.0, workers=0)
    assert len(unlabeled_loader(hours, stage_one, AUDIO, 256, seed=0)) == math.ceil(72_000 / 256)
    assert len(unlabeled_loader(hours, replace(stage_one, most_windows=6), AUDIO, 256, seed=0)) == 3
    week = of_length(7 * 24 * 3600.0, name="week")
    loader = unlabeled_loader([*hours[:1], week], stage_one, AUDIO, 1, seed=0)
    drawn = Counter(index for _, _, index in epoch_keys(loader, 0))
    assert drawn == {0: 720, 1: 720}, "a week of one recorder counts for an hour"


def test_an_epoch_of_stage_two_draws_by_length_and_its_batches_are_counted_before(tmp_path: Path) -> None:
    rows = [of_length(5.0, "a"), of_length(20.0, "a"), of_length(600.0, "a")]
    taxonomy = species("a", "b")
    loader = labeled_loader(rows, taxonomy, settings(tmp_path, balance=0.0), AUDIO, 4, seed=0)
    drawn = [Counter(index for _, _, index in epoch_keys(loader, epoch)) for epoch in range(3)]
    assert drawn == [{0: 1, 1: 4, 2: 4}] * 3 and len(loader) == 3
    balanced = labeled_loader([*rows, of_length(5.0, "b")], taxonomy, settings(tmp_path, balance=1.0), AUDIO, 4, 0)
    assert batches_of(balanced).expected.tolist() == pytest.approx([2 / 3, 8 / 3, 8 / 3, 4.0]), "most_draws"
    assert len(balanced) == 3  # of ten draws five were to be of b, whose only window is drawn four times at most


def test_an_epoch_taken_up_in_its_middle_has_the_rest_of_its_batches(tmp_path: Path) -> None:
    rows = [of_length(seconds, "a") for seconds in (0.5, 12.0, 31.0, 600.0, 3600.0)]
    loader = labeled_loader(rows, species("a"), settings(tmp_path), AUDIO, 4, seed=0)
    set_epoch(loader, 2)
    whole = list(batches_of(loader))
    set_epoch(loader, 2, done=3)
    assert list(batches_of(loader)) == whole[3:] and len(whole) == len(loader) == 4


@pytest.mark.parametrize(("silent", "share"), [(100, 0.15), (1, 4 / 104), (0, 0.0)])
def test_recordings_without_a_species_are_a_set_share_of_the_windows_unless_they_are_few(
    silent: int, share: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [of_length(1.0, "a", name=str(n)) for n in range(60)] + [of_length(1.0, "b", name=str(n)) for n in range(40)]
    rows += [of_length(1.0, name=f"wind {n}") for n in range(silent)]
    loader = labeled_loader(rows, species("a", "b"), settings(tmp_path), AUDIO, 8, seed=0)
    expected = batches_of(loader).expected
    assert expected[:100].sum() == pytest.approx(100), "the share of the species is not touched"
    assert expected[100:].sum() / expected.sum() == pytest.approx(share)
    assert expected[100:].max(initial=0.0) <= 4.0
    assert len(loader) == math.ceil(round(100 / (1 - share)) / 8)
    said = capsys.readouterr().out
    assert (f"{share:.1%} of the training windows are without a species" in said) == bool(silent)


def test_an_hour_of_wind_counts_for_no_more_than_the_cap_and_a_share_of_nothing_hears_none(tmp_path: Path) -> None:
    rows = [*(of_length(5.0, "a") for _ in range(100)), of_length(3600.0), of_length(2.0)]
    loader = labeled_loader(rows, species("a"), settings(tmp_path), AUDIO, 8, seed=0)
    hour, blink = batches_of(loader).expected[100:]
    assert hour == pytest.approx(4 * blink) and hour + blink == pytest.approx(100 * 0.15 / 0.85)
    loader = labeled_loader(rows, species("a"), settings(tmp_path, no_call_share=0.0), AUDIO, 8, seed=0)
    assert batches_of(loader).expected[100:].sum() == 0
    assert {index for _, _, index in epoch_keys(loader, 0)} == set(range(100))


def epoch_keys(loader: DataLoader[Batch], epoch: int) -> list[tuple[int, int, int]]:
    set_epoch(loader, epoch)
    return list(batches_of(loader).keys())


def species(*labels: str) -> Taxonomy:
    """A taxonomy of some species without relatives."""
    lineages = tuple(tuple(f"{label} {rank}" for rank in RANKS) for label in labels)
    return Taxonomy(labels, labels, labels, lineages, (7,) * len(labels))


def weather(folder: Path) -> None:
    """A minute in which every window of 5 s holds its own number, 10 s and 5 s of one number each, and no sound."""
    soundfile.write(
        folder / "minute.wav", np.repeat(np.arange(1, 13) / 100, 80_000) * SWITCHING, 16_000, subtype="FLOAT"
    )
    for name, value, seconds in (("ten.wav", 0.4, 10), ("five.wav", 0.45, 5)):
        soundfile.write(folder / name, value * SWITCHING[: seconds * 16_000], 16_000, subtype="FLOAT")
    (folder / "notes.wav").write_text("The owl called twice, then it rained and I went home.\n")


def test_no_call_recordings_of_one_sites_day_stay_in_one_fold(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for site in ("nz", "pond", "ridge", "road", "creek", "hill"):
        for hour in (1, 2, 3):
            path = tmp_path / f"{site}_20230615_{hour:02}0000.wav"
            soundfile.write(path, rng.normal(0, 0.1, 16_000), 16_000)
    rows = read_noise(tmp_path, DataSettings(tmp_path), folds=(0, 1, 2, 3))
    folds = {row.group: {other.fold for other in rows if other.group == row.group} for row in rows}
    assert len(rows) == 18 and len(folds) == 6 and all(len(found) == 1 for found in folds.values())
    assert len({row.fold for row in rows}) > 1
    train, valid = split(rows, DataSettings(tmp_path, valid_fold=rows[0].fold))
    assert train and valid


def test_few_no_call_recordings_however_short_are_spread_over_the_folds_and_one_alone_is_learnt_from(
    tmp_path: Path,
) -> None:
    sounds = np.random.default_rng(0).normal(0, 0.1, (4, 6_400))  # four tenths of a second
    folds: dict[int, list[int]] = {}
    for count, sound in enumerate(sounds, 1):
        soundfile.write(tmp_path / f"wind {count}.wav", sound, 16_000)
        for held_out in range(4):
            data = settings(tmp_path, valid_fold=held_out)
            folds[held_out] = sorted(row.fold for row in read_noise(tmp_path, data, folds=(0, 1, 2, 3)))
        assert all(len(set(found)) == count for found in folds.values())
        assert all((held_out in found) == (count == 4) for held_out, found in folds.items())
    rows = [of_length(5.0, "a", name=str(number)) for number in range(20)]
    noise = read_noise(tmp_path, settings(tmp_path), folds=(0, 1, 2, 3))
    loader = labeled_loader([*rows, *noise[:1]], species("a"), settings(tmp_path), AUDIO, 4, seed=0)
    samples, labels = cast(RandomWindows, loader.dataset)[0, 0, 20]
    assert samples.shape == (80_000,) and not labels.any() and np.abs(samples).max() > 0.1
    assert noise_bank(tmp_path, AUDIO).shape == (4, 80_000)


def test_a_bank_of_noise_takes_one_window_of_each_recording_in_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weather(tmp_path)
    banks = [noise_bank(tmp_path, AUDIO, most=6, seed=seed) for seed in (0, 0, 1)]
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 6 and said[0].startswith("left out 1 of 4 recordings") and "notes.wav: named .wav" in said[0]
    heard = [sorted(round(abs(float(row[0])), 2) for row in bank) for bank in banks]
    assert all(bank.shape == (6, 80_000) and torch.allclose(bank.abs(), bank[:, :1].abs(), atol=1e-6) for bank in banks)
    assert all(values[3:] == [0.4, 0.4, 0.45] and len(set(values[:3])) == 3 and values[2] < 0.13 for values in heard)
    assert torch.equal(banks[0], banks[1]) and heard[0] != heard[2]  # any of a recording, not its first
    assert len(noise_bank(tmp_path, AUDIO)) == 15  # there are no more
    assert noise_bank(tmp_path, replace(AUDIO, context_seconds=30.0)).shape == (4, 480_000)
    for seed in range(8):
        first, second = noise_bank(tmp_path, AUDIO, most=2, seed=seed)[:, 0].abs()
        assert max(float(first), float(second)) >= 0.39 and first != second  # never two of one recording


def test_a_bank_of_noise_holds_none_of_the_recordings_that_it_may_not_have(tmp_path: Path) -> None:
    """Those that false alarms are counted on lie in the same folder."""
    weather(tmp_path)
    every = noise_bank(tmp_path, AUDIO)
    sound = [path for path in sorted(tmp_path.rglob("*.wav")) if path.name != "notes.wav"]
    counts = [len(noise_bank(tmp_path, AUDIO, only={path.resolve()})) for path in sound]
    assert sum(counts) == len(every) > max(counts) and min(counts) > 0


def test_a_bank_of_noise_without_any_sound_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"found no audio files.* point --augment\.background at a folder"):
        noise_bank(tmp_path, AUDIO)
    (tmp_path / "notes.wav").write_text("The owl called twice, then it rained and I went home.\n")
    with pytest.raises(AssertionError, match=r"notes\.wav: named \.wav, is text; .* point --augment\.background"):
        noise_bank(tmp_path, AUDIO)


def test_validation_hears_what_the_predictor_hears(season: FieldSeason) -> None:
    _, recordings = read_labeled(settings(season.root))
    heard = list(recording_contexts(recordings[:3], AUDIO))
    direct = [w for r in recordings[:3] for w in open_recording(r.path, 16_000).windows(5.0)]
    assert [context.windows for context in heard] == [((w.start, w.end),) for w in direct]
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(heard, direct, strict=True))


@pytest.mark.parametrize("context", [5.0, 15.0])
def test_validation_from_the_cache_hears_the_same_windows_within_one_step_of_int16(
    context: float, season: FieldSeason, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = replace(AUDIO, context_seconds=context)
    _, rows = read_labeled(settings(season.root))
    rows = rows[:4]
    rows[1] = replace(rows[1], start=1.0, end=4.0)
    rows[2] = replace(rows[2], keep=((0.5, 3.0), (4.0, rows[2].seconds)))
    kept = fill_cache(rows, AUDIO.sample_rate, tmp_path, 1.0)
    direct = list(recording_contexts(rows, audio))
    with monkeypatch.context() as patch:
        patch.setattr("sounds.audio.decoded", None)  # nothing is decoded, whole or in part
        patch.setattr("sounds.audio.sought", None)
        cached = list(recording_contexts(rows, audio, kept))
        with pytest.raises(TypeError):
            list(recording_contexts(rows, audio))
    assert [one[:1] + one[2:] for one in cached] == [one[:1] + one[2:] for one in direct] and len(direct) > 4
    for one, other in zip(cached, direct, strict=True):
        assert one.samples.shape == other.samples.shape
        assert np.abs(one.samples - other.samples).max() <= 2.0**-15
    assert any(not np.array_equal(one.samples, other.samples) for one, other in zip(cached, direct, strict=True))
    for place in kept.values():
        place.unlink()
    again = list(recording_contexts(rows, audio, kept))
    assert all(np.array_equal(one.samples, other.samples) for one, other in zip(again, direct, strict=True))


def test_held_out_waveforms_are_kept_in_the_room_that_training_leaves(season: FieldSeason, tmp_path: Path) -> None:
    _, rows = read_labeled(settings(season.root))
    size = [HEADER + 2 * (row.seconds * AUDIO.sample_rate + 1) for row in rows[:8]]
    room = (sum(size[:4]) + 1.5 * max(size[4:])) / 1e9
    data = settings(season.root, cache=tmp_path, cache_gb=room)
    loader = unlabeled_loader(rows[:4], data, AUDIO, 4, seed=0)
    assert 1 <= len(kept_beside(loader, rows[4:8], AUDIO, data)) < 4
    assert kept_beside(loader, rows[4:8], AUDIO, replace(data, cache_gb=0.0)) == {}
    assert len(kept_beside(loader, rows[4:8], AUDIO, replace(data, cache_gb=1.0))) == 4


def test_the_truth_has_all_labels_of_a_recording() -> None:
    both = Recording(Path("a"), "a", ("x", "z"), "g", 0, 1.0)
    rows = [both, replace(both, labels=("y",))]
    assert truth_table(rows, ("x", "y", "z"), AUDIO).tolist() == [[1, 0, 1], [0, 1, 0]]


def test_the_truth_of_a_stretch_is_that_of_its_windows_as_in_training(tmp_path: Path) -> None:
    rows = annotated(tmp_path)
    assert truth_table(rows, ("frog", "owl"), AUDIO).tolist() == [[1, 1], [1, 1], [0, 1]]
    dataset = RandomWindows([replace(row, seconds=15.0) for row in rows[:2]], ("frog", "owl"), settings(tmp_path),
                            replace(AUDIO, context_seconds=15.0), seed=0)  # fmt: skip
    assert [dataset[0, 0, index][1][0].tolist() for index in range(2)] == [[1, 1], [1, 1]]
    tit, crow = event(0.0, 3.0, "tit"), event(1.0, 4.0, "crow")
    later, aside, brief = event(4.0, 9.0, "crow"), replace(crow, path=Path("/b.wav")), event(4.7, 9.0, "crow")
    named = ("tit", "crow")
    assert truth_table([tit, crow], named, AUDIO).tolist() == [[1, 1], [1, 1]]
    assert truth_table([tit, later], named, AUDIO).tolist() == [[1, 1], [1, 1]], "of two windows they share the first"
    for other in (aside, brief):  # another recording; less than half a second in the window
        assert truth_table([tit, other], named, AUDIO).tolist() == [[1, 0], [0, 1]]
    denied = replace(tit, labels=(), listened=True)
    assert truth_table([denied, crow], named, AUDIO).tolist() == [[0, 1], [0, 1]]


def test_a_fingerprint_tells_parts_and_lineages_apart(season: FieldSeason) -> None:
    taxonomy, rows = read_labeled(settings(season.root))
    cousins = replace(taxonomy, lineages=(taxonomy.lineages[1], *taxonomy.lineages[1:]))
    told = {
        fingerprint(rows[:3], rows[3:], taxonomy=taxonomy),
        fingerprint(rows[:3], rows[3:], taxonomy=cousins),
        fingerprint(rows[:3], rows[3:]),
        fingerprint(rows[:3], rows[4:]),
        fingerprint(rows[1:3], rows[3:]),
        fingerprint(rows[:4], rows[4:]),
        fingerprint(rows),
    }
    assert len(told) == 7
    renamed = replace(taxonomy, common_names=tuple("?" for _ in taxonomy.labels))  # nothing is learnt from these
    assert fingerprint(rows, taxonomy=renamed) == fingerprint(list(rows), taxonomy=taxonomy)


def test_windows_that_have_gone_are_left_out_of_a_batch_and_a_batch_without_any_is_an_error() -> None:
    def item(length: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return np.ones(length, np.float32), np.ones((2, 3), np.float32)

    batch = collate([item(5), item(0), item(5)], samples=5, species=3)
    assert batch.waveforms.shape == (2, 5) and batch.targets.shape == batch.secondary.shape == (2, 3)
    assert of_all(batch, torch.device("cpu")).waveforms.shape == (2, 5)
    nothing = collate([item(0)], samples=5, species=3)
    assert nothing.waveforms.shape == (0, 5) and nothing.targets.shape == nothing.secondary.shape == (0, 3)
    with pytest.raises(AssertionError, match="none of a batch's recordings can be read any more"):
        of_all(nothing, torch.device("cpu"))


def surveyed(root: Path, runs: Path, *flags: str) -> int:
    return survey(parse(SurveyCommand, ["--data.root", str(root), "--run.root", str(runs), *flags]))


def test_the_command_writes_a_table_that_takes_the_place_of_the_root(
    season: FieldSeason, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert surveyed(season.root, tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 40 and max(map(len, lines)) < 250
    table = tmp_path / "data" / "recordings.csv"
    frame = pd.read_csv(table)
    assert len(frame) == len(read_recordings(table)) > 128 and (frame["status"] == "ok").all()
    assert (tmp_path / "data" / "summary.png").stat().st_size > 10_000
    for again, before in (
        (read_labeled(settings(table)), read_labeled(settings(season.root))),
        ((None, read_unlabeled(settings(table))), (None, read_unlabeled(settings(season.root)))),
    ):
        assert again[0] == before[0]
        assert sorted((r.name, r.fold, r.labels, r.seconds) for r in again[1]) == sorted(
            (r.name, r.fold, r.labels, round(r.seconds, 4)) for r in before[1]
        )


def test_rows_taken_out_of_the_table_are_left_out(season: FieldSeason, tmp_path: Path) -> None:
    surveyed(season.root, tmp_path)
    frame = pd.read_csv(tmp_path / "data" / "recordings.csv", dtype=str, keep_default_na=False)
    frame[frame["author"] != "Ada"].to_csv(tmp_path / "data" / "mine.csv", index=False)
    _, rows = read_labeled(settings(tmp_path / "data" / "mine.csv"))
    assert rows and not [row for row in rows if row.author == "Ada"]


def test_the_command_leaves_with_2_where_something_was_set_aside(copy: Path, tmp_path: Path) -> None:
    edit(copy / "train.csv", filename="lost.flac")
    assert surveyed(copy, tmp_path / "runs") == 2
    facts = json.loads((tmp_path / "runs" / "data" / "run.json").read_text())
    assert facts["statuses"] == {"ok": 127, "missing": 1}


def test_the_taxonomy_beside_the_table_is_the_same_tree(season: FieldSeason, tmp_path: Path) -> None:
    surveyed(season.root, tmp_path)
    assert read_taxonomy(tmp_path / "data" / "taxonomy.csv") == read_taxonomy(season.root / "taxonomy.csv")


def test_real_recordings_are_read_and_split_whole() -> None:
    if not ANIMALS.is_dir():
        pytest.skip("the recordings of ../shared/animals are not here")
    data = settings(ANIMALS, min_recordings=8)
    taxonomy, recordings = read_labeled(data)
    train, valid = split(recordings, data)
    assert (len(taxonomy.labels), len(recordings)) == (30, 653)  # two of 655 are the same sound as another
    assert {r.fold for r in valid} == {0} and not {r.group for r in train} & {r.group for r in valid}


def test_pseudo_labels_are_targets_as_they_were_scored_and_a_share_of_the_windows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weather(tmp_path)
    real = [replace(of_length(5.0, "a"), path=tmp_path / "five.wav")] * 12
    minute = Recording(tmp_path / "minute.wav", "minute.wav", ("b", "a"), seconds=60.0, site="pond")
    pseudo = [
        replace(minute, start=5.0, end=10.0, scores=(0.75, 0.25)),
        replace(minute, start=10.0, end=15.0, scores=(0.5, 0.125)),
    ]
    loose = settings(tmp_path, pseudo_mass=0.0, balance=0.0)
    loader = labeled_loader([*real, of_length(5.0, "b")], species("a", "b"), loose, AUDIO, 8, 0, pseudo)
    assert "38.1% of the training windows have pseudo-labels" in capsys.readouterr().out, "8 of 21: each four times"
    windows = cast(RandomWindows, loader.dataset)
    for index, level, expected in ((13, 0.02, [0.25, 0.75]), (14, 0.03, [0.125, 0.5]), (0, 0.45, [1, 0])):
        samples, labels = windows[0, 0, index]
        assert np.abs(samples).max() == pytest.approx(level, rel=1e-3) and labels.tolist() == [expected, [0, 0]]
    set_epoch(loader, 1)
    drawn = Counter(index for _, _, index in batches_of(loader).keys())  # noqa: SIM118
    assert drawn[13] == drawn[14] == 4 and sum(drawn.values()) == 21
    instead = replace(loose, pseudo_place="taken")
    loader = labeled_loader([*real, of_length(5.0, "b")], species("a", "b"), instead, AUDIO, 8, 0, pseudo)
    assert "38.1% of the training windows have pseudo-labels" in capsys.readouterr().out
    set_epoch(loader, 1)
    drawn = Counter(index for _, _, index in batches_of(loader).keys())  # noqa: SIM118
    assert sum(drawn.values()) == 13 and 4 <= drawn[13] + drawn[14] <= 6, "5 of 13 are 38 %"
    strict = replace(loose, pseudo_mass=1.0)
    labeled_loader([*real, of_length(5.0, "b")], species("a", "b"), strict, AUDIO, 8, 0, pseudo)
    assert "11.0% of the training windows have pseudo-labels" in capsys.readouterr().out, "a fifth: 5 of b for 1"


def test_a_context_has_the_highest_score_of_its_windows(tmp_path: Path) -> None:
    weather(tmp_path)
    minute = Recording(tmp_path / "minute.wav", "minute.wav", seconds=60.0, site="pond")
    pseudo = [
        replace(minute, labels=("a", "b"), start=5.0, end=10.0, scores=(0.75, 0.25)),
        replace(minute, labels=("b",), start=10.0, end=15.0, scores=(0.5,)),
    ]
    long = replace(AUDIO, context_seconds=20.0)
    windows = RandomWindows(pseudo, ("a", "b"), settings(tmp_path), long, seed=0)
    assert windows[0, 0, 1][1].tolist() == [[0.75, 0.5], [0, 0]]
    alone = RandomWindows(pseudo[1:], ("a", "b"), settings(tmp_path), long, seed=0)
    assert alone[0, 0, 0][1].tolist() == [[0, 0.5], [0, 0]]


def test_scores_and_sites_of_pseudo_labels_are_in_the_fingerprint() -> None:
    row = replace(event(0, 5), scores=(0.5,), site="pond")
    same = fingerprint([row])
    assert same == fingerprint([replace(row, author="Ada")])
    assert len({same, fingerprint([replace(row, scores=(0.6,))]), fingerprint([replace(row, site="ridge")])}) == 3
    assert fingerprint([replace(row, scores=())]) == fingerprint([replace(row, scores=(), site="ridge")])
