"""Tables and batches: traps of BirdCLEF's files, groups that stay whole, and windows that depend on a seed alone."""

import csv
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from audio import open_recording
from config import AudioSettings, DataSettings, TrainSettings
from data_loader import (
    SAMPLING,
    EpochSampler,
    RandomWindows,
    Recording,
    labeled_loader,
    parse_labels,
    read_labeled,
    read_unlabeled,
    recording_windows,
    set_epoch,
    split,
    truth_table,
    unlabeled_loader,
)
from demo_data import FieldSeason
from taxonomy import read_table

AUDIO = AudioSettings()
ANIMALS = Path(__file__).parents[1].parent / "shared" / "animals"


@pytest.fixture
def copy(season: FieldSeason, tmp_path: Path) -> Path:
    """Tables of one's own to spoil, over the same recordings."""
    for name in ("train.csv", "taxonomy.csv"):
        shutil.copy(season.root / name, tmp_path / name)
    (tmp_path / "train_audio").symlink_to(season.root / "train_audio")
    return tmp_path


def edit(path: Path, **changes: str) -> None:
    """Change cells of the first row."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0] |= changes
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def without_column(path: Path, column: str) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        rows = [{k: v for k, v in row.items() if k != column} for row in csv.DictReader(file)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_labels_are_text_in_the_order_of_the_taxonomy(season: FieldSeason) -> None:
    taxonomy, recordings = read_labeled(DataSettings(season.root))
    rows = read_table(season.root / "taxonomy.csv", ("primary_label",), "primary_label")
    assert taxonomy.labels == tuple(row["primary_label"] for _, row in rows)
    assert any(label.isdecimal() for label in taxonomy.labels) and any(label.isalnum() for label in taxonomy.labels)
    assert len(recordings) == 8 * len(taxonomy.labels) and min(r.seconds for r in recordings) > 1


def test_rare_species_are_left_out_on_request(copy: Path) -> None:
    with (copy / "train.csv").open(encoding="utf-8") as file:
        lines = file.readlines()
    (copy / "train.csv").write_text("".join(lines[:-5]), encoding="utf-8")  # the last species keeps three recordings
    everyone, _ = read_labeled(DataSettings(copy))
    common, recordings = read_labeled(DataSettings(copy, min_recordings=4))
    assert len(common.labels) == len(everyone.labels) - 1
    assert {label for r in recordings for label in r.labels} <= set(common.labels)


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("['']", []),
        ("[]", []),
        ("", []),
        ("['65448', '22976']", ["65448", "22976"]),
        ('["a"]', ["a"]),
        ("['a ']", ["a"]),
    ],
)
def test_lists_of_secondary_labels_are_read(cell: str, labels: list[str]) -> None:
    assert parse_labels(cell) == labels


@pytest.mark.parametrize(
    "cell", ["__import__('os')", "[1, 2]", "['a' 'b'", "{'a'}", "['a'] * 9", "nan", "['" + "a" * 5000 + "']"]
)
def test_anything_else_in_that_cell_is_refused(cell: str) -> None:
    with pytest.raises(AssertionError, match="secondary labels"):
        parse_labels(cell)


def test_a_path_that_leaves_its_root_is_refused(copy: Path) -> None:
    edit(copy / "train.csv", filename="../../etc/passwd")
    with pytest.raises(AssertionError, match=r"line 2: '\.\./\.\./etc/passwd' leaves"):
        read_labeled(DataSettings(copy))


def test_an_unknown_label_is_named(copy: Path) -> None:
    edit(copy / "train.csv", primary_label="nobody1")
    with pytest.raises(AssertionError, match="nobody1"):
        read_labeled(DataSettings(copy))


def test_a_row_of_another_length_is_named_with_its_line(copy: Path) -> None:
    with (copy / "train.csv").open("a", encoding="utf-8") as file:
        file.write("one,two\n")
    with pytest.raises(AssertionError, match=r"line \d+: 2 cells, not 15"):
        read_labeled(DataSettings(copy))


def test_a_missing_column_and_a_missing_table_are_named(copy: Path) -> None:
    without_column(copy / "train.csv", "filename")
    with pytest.raises(AssertionError, match=r"no columns \['filename'\]"):
        read_labeled(DataSettings(copy))
    (copy / "train.csv").unlink()
    with pytest.raises(AssertionError, match=r"no train\.csv in"):
        read_labeled(DataSettings(copy))
    with pytest.raises(AssertionError, match=r"no folder .*nowhere"):
        read_labeled(DataSettings(copy / "nowhere"))


def test_a_missing_recording_is_counted_and_named_and_the_others_go_on(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, before = read_labeled(DataSettings(copy))
    edit(copy / "train.csv", filename="lost.flac")
    _, recordings = read_labeled(DataSettings(copy))
    assert len(recordings) == len(before) - 1
    said = capsys.readouterr().out
    assert f"left out 1 of {len(before)}" in said and "lost.flac" in said


def test_settings_that_cannot_work_name_their_flag() -> None:
    for settings in ({"folds": 1}, {"workers": -1}):
        with pytest.raises(AssertionError, match=r"--data\."):
            DataSettings(Path(), **settings)
    with pytest.raises(AssertionError, match=r"--train\.epochs 0"):
        TrainSettings(0, 8)


def test_the_tables_folds_are_taken_as_given(season: FieldSeason) -> None:
    _, recordings = read_labeled(DataSettings(season.root))
    train, valid = split(recordings, DataSettings(season.root, valid_fold=2))
    assert {r.fold for r in valid} == {2} and {r.fold for r in train} == {0, 1, 3}
    assert not {r.group for r in train} & {r.group for r in valid}


def test_a_group_on_both_sides_is_refused() -> None:
    one = Recording(Path("a"), "a", ("x",), "g1", 0, 1.0)
    with pytest.raises(AssertionError, match="1 groups stand in several folds"):
        split([one, replace(one, fold=1), replace(one, group="g2", fold=2)], DataSettings(Path()))


def test_a_fold_that_nobody_is_in_is_refused(season: FieldSeason) -> None:
    _, recordings = read_labeled(DataSettings(season.root))
    with pytest.raises(AssertionError, match=r"--data\.valid_fold 9"):
        split(recordings, DataSettings(season.root, valid_fold=9))


def test_without_folds_they_are_drawn_with_authors_whole_and_species_spread(copy: Path) -> None:
    for column in ("fold", "group"):
        without_column(copy / "train.csv", column)
    data = DataSettings(copy, folds=4)
    _, recordings = read_labeled(data)
    assert all(r.group.startswith("by ") for r in recordings)
    _, valid = split(recordings, data)
    assert len({r.labels[0] for r in valid}) >= 8
    assert [r.fold for r in recordings] == [r.fold for r in read_labeled(data)[1]]


def test_both_stages_hold_out_the_same_recordings_whatever_is_left_out(copy: Path) -> None:
    for column in ("fold", "group"):
        without_column(copy / "train.csv", column)
    with (copy / "train.csv").open(encoding="utf-8") as file:
        lines = file.readlines()
    (copy / "train.csv").write_text("".join(lines[:-5]), encoding="utf-8")  # the last species keeps three recordings
    data = DataSettings(copy, min_recordings=4, folds=3)
    first = {r.name: r.fold for r in read_unlabeled(data)}
    second = {r.name: r.fold for r in read_labeled(data)[1]}
    assert len(second) < len(first) and all(first[name] == fold for name, fold in second.items())


def test_what_one_person_alone_recorded_trains_and_is_never_held_out(copy: Path) -> None:
    for column in ("fold", "group"):
        without_column(copy / "train.csv", column)
    rows = [row for _, row in read_table(copy / "train.csv", (), "filename")]
    loner = rows[0]["primary_label"]
    for row in rows:
        if row["primary_label"] == loner:
            row["author"] = "A. Lone"
    with (copy / "train.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    _, recordings = read_labeled(DataSettings(copy, folds=3))
    assert {r.fold for r in recordings if r.labels[0] == loner} == {3}
    assert {r.fold for r in recordings} == {0, 1, 2, 3}


def test_too_few_groups_for_the_folds_is_one_clear_line(copy: Path) -> None:
    without_column(copy / "train.csv", "fold")
    with pytest.raises(AssertionError, match=r"lower --data\.folds"):
        read_labeled(DataSettings(copy, folds=500))


def test_a_recording_that_stands_twice_is_named(copy: Path) -> None:
    with (copy / "train.csv").open(encoding="utf-8") as file:
        lines = file.readlines()
    (copy / "train.csv").write_text("".join([*lines, lines[1]]), encoding="utf-8")
    with pytest.raises(AssertionError, match=r"filename .* stands at .* line 2 already"):
        read_labeled(DataSettings(copy))


def test_a_blank_last_line_is_no_row_and_another_encoding_is_named(copy: Path) -> None:
    with (copy / "train.csv").open("a", encoding="utf-8") as file:
        file.write("\n")
    assert len(read_labeled(DataSettings(copy))[1]) == 128
    (copy / "train.csv").write_bytes((copy / "train.csv").read_bytes() + "Müller\n".encode("latin-1"))
    with pytest.raises(AssertionError, match=r"line \d+ is not in UTF-8"):
        read_labeled(DataSettings(copy))


def test_an_unknown_author_is_not_one_person(copy: Path) -> None:
    for column in ("fold", "group"):
        without_column(copy / "train.csv", column)
    text = (copy / "train.csv").read_text(encoding="utf-8")
    rows = read_table(copy / "train.csv", ("author",), "filename")
    for author in {row["author"] for _, row in rows}:
        text = text.replace(author, "Unknown")
    (copy / "train.csv").write_text(text, encoding="utf-8")
    _, recordings = read_labeled(DataSettings(copy))
    assert len({r.group for r in recordings}) == len(recordings)


def test_a_batch_holds_windows_and_labels(season: FieldSeason) -> None:
    taxonomy, recordings = read_labeled(DataSettings(season.root))
    loader = labeled_loader(recordings, taxonomy, AUDIO, 8, seed=0, workers=0)
    batches = list(loader)
    assert sum(len(batch.targets) for batch in batches) == len(recordings)
    assert all(torch.equal(batch.targets.sum(dim=1), torch.ones(len(batch.targets))) for batch in batches)
    assert sum(float(batch.secondary.sum()) for batch in batches) > 0
    assert batches[0].waveforms.shape == (8, 80_000)


def test_windows_depend_on_seed_and_epoch_alone(season: FieldSeason) -> None:
    taxonomy, recordings = read_labeled(DataSettings(season.root))

    def first(seed: int, epoch: int, workers: int = 0) -> torch.Tensor:
        loader = labeled_loader(recordings[:16], taxonomy, AUDIO, 8, seed, workers)
        set_epoch(loader, epoch)
        return torch.cat([batch.waveforms for batch in loader])

    assert torch.equal(first(0, 3), first(0, 3))
    assert not torch.equal(first(0, 3), first(0, 4)) and not torch.equal(first(0, 3), first(1, 3))
    assert torch.equal(first(0, 3), first(0, 3, workers=2))


def test_rare_species_are_drawn_more_often_by_the_square_root() -> None:
    counts = np.repeat([0, 1], [90, 10])
    weights = np.array([90, 10])[counts] ** -SAMPLING
    drawn: Counter[int] = Counter()
    sampler = EpochSampler(np.arange(100), weights / weights.sum(), seed=0)
    for epoch in range(200):
        sampler.epoch = epoch
        drawn.update(int(counts[index]) for _, _, index in sampler)
    assert drawn[1] / drawn.total() == pytest.approx(10**0.5 / (10**0.5 + 90**0.5), abs=0.01)


def test_unlabelled_sound_is_found_wherever_it_lies(season: FieldSeason) -> None:
    everything = read_unlabeled(DataSettings(season.root))
    names = {r.name.split("/")[0] for r in everything}
    assert names == {"train_audio", "unlabeled", "train_soundscapes"}
    plain = read_unlabeled(DataSettings(season.root / "unlabeled", folds=2))
    assert len(plain) == 8 and {r.fold for r in plain} == {0, 1}
    assert len({r.name for r in everything}) == len(everything)


def test_stage_one_hears_each_recording_once_and_long_ones_twice(season: FieldSeason) -> None:
    recordings = read_unlabeled(DataSettings(season.root))
    loader = unlabeled_loader(recordings, AUDIO, 4, seed=0, workers=0)
    assert isinstance(loader.dataset, RandomWindows)
    once = [recording for recording in recordings if recording.seconds < 10]
    assert 0 < len(once) < len(recordings)
    assert sum(len(batch.waveforms) for batch in loader) == 2 * len(recordings) - len(once)


def test_validation_hears_what_the_predictor_hears(season: FieldSeason) -> None:
    _, recordings = read_labeled(DataSettings(season.root))
    heard = list(recording_windows(recordings[:3], AUDIO))
    direct = [w for r in recordings[:3] for w in open_recording(r.path, 16_000).windows(5.0)]
    assert [w.start for _, w in heard] == [w.start for w in direct]
    assert all(np.array_equal(a.samples, b.samples) for (_, a), b in zip(heard, direct, strict=True))


def test_the_truth_has_all_labels_of_a_recording() -> None:
    both = Recording(Path("a"), "a", ("x", "z"), "g", 0, 1.0)
    assert truth_table([both, replace(both, labels=("y",))], ("x", "y", "z")).tolist() == [[1, 0, 1], [0, 1, 0]]


def test_real_recordings_are_read_and_split_whole() -> None:
    if not ANIMALS.is_dir():
        pytest.skip("the recordings of ../shared/animals are not here")
    data = DataSettings(ANIMALS, min_recordings=8)
    taxonomy, recordings = read_labeled(data)
    train, valid = split(recordings, data)
    assert (len(taxonomy.labels), len(recordings)) == (30, 655)
    assert {r.fold for r in valid} == {0} and not {r.group for r in train} & {r.group for r in valid}
