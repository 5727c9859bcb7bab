"""What a pretend field season promises: the same bytes, a consistent lineage, honest folds and true answers."""

import ast
import csv
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.random import default_rng
from numpy.typing import NDArray

from demo_data import (
    GENERA,
    SAMPLE_RATE,
    SPECIES,
    FieldSeason,
    PretendSpecies,
    band_hz,
    band_rms,
    plant,
    sing,
    weather,
    write_field_season,
    write_labelled,
    write_soundscape,
)

BY_LABEL = {species.label: species for species in SPECIES}


def write_small(root: Path) -> FieldSeason:
    return write_field_season(root, seed=0, recordings_per_species=8, unlabeled_recordings=6, soundscape_seconds=90)


@pytest.fixture(scope="module")
def season(tmp_path_factory: pytest.TempPathFactory) -> FieldSeason:
    return write_small(tmp_path_factory.mktemp("season") / "season")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def listen(path: Path) -> NDArray[np.float32]:
    return np.asarray(soundfile.read(path, dtype="float32")[0], np.float32)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_same_seed_gives_the_same_bytes(season: FieldSeason, tmp_path: Path) -> None:
    train = rows(season.root / "train.csv")
    for index in (0, 9, 70):
        assert write_labelled(tmp_path, 0, index, SPECIES[index // 8], index % 8) == train[index]
    assert write_soundscape(tmp_path / "train_soundscapes" / season.soundscape.name, 0, 90) == rows(season.answers)
    again = contents(tmp_path)
    assert len(again) == 4 and again.items() <= contents(season.root).items()


def test_another_seed_gives_other_bytes_of_the_same_species(season: FieldSeason, tmp_path: Path) -> None:
    row = write_labelled(tmp_path, 1, 0, SPECIES[0], 0)
    other = (tmp_path / "train_audio" / row["filename"]).read_bytes()
    assert other != (season.root / "train_audio" / row["filename"]).read_bytes()
    assert write_soundscape(tmp_path / "1.flac", 1, 20) != write_soundscape(tmp_path / "2.flac", 2, 20)


def test_a_finished_season_is_left_alone(season: FieldSeason) -> None:
    before = {path: path.stat().st_mtime_ns for path in season.root.rglob("*")}
    assert write_small(season.root) == season
    assert {path: path.stat().st_mtime_ns for path in season.root.rglob("*")} == before


def test_a_half_written_season_is_rewritten(season: FieldSeason, tmp_path: Path) -> None:
    (tmp_path / "train_audio" / "ghost").mkdir(parents=True)
    (tmp_path / "train_audio" / "ghost" / "left_over.flac").write_bytes(b"fLaC")
    (tmp_path / "train.csv").write_text("primary_label\n")
    (tmp_path / "PRETEND.txt").write_text("written first")
    assert contents(write_small(tmp_path).root) == contents(season.root)


def test_real_recordings_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("years of work\n")
    with pytest.raises(AssertionError, match="give an empty folder"):
        write_small(tmp_path)
    assert (tmp_path / "train.csv").read_text() == "years of work\n"


def test_a_name_has_one_lineage_above_it(season: FieldSeason) -> None:
    taxonomy = rows(season.root / "taxonomy.csv")
    ranks = ["kingdom", "phylum", "class", "order", "family", "genus", "species"]
    parents: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for row in taxonomy:
        assert all(row[rank] for rank in ranks)
        assert row["species"] == row["scientific_name"] and row["species"].startswith(row["genus"] + " ")
        assert row["class_name"] == row["class"]
        for above, rank in pairwise(ranks):
            parents[rank, row[rank]].add(row[above])
    assert all(len(above) == 1 for above in parents.values())
    for name in ("primary_label", "inat_taxon_id", "scientific_name", "common_name"):
        assert len({row[name] for row in taxonomy}) == len(taxonomy) >= 16


def test_birds_have_ebird_codes_and_all_others_have_digits(season: FieldSeason) -> None:
    taxonomy = rows(season.root / "taxonomy.csv")
    assert [row["primary_label"] for row in taxonomy] == sorted(row["primary_label"] for row in taxonomy)
    for row in taxonomy:
        is_bird = row["class_name"] == "Aves"
        assert row["primary_label"].isdigit() != is_bird
        assert row["ebird_code"] == (row["primary_label"] if is_bird else "")
        assert (row["inat_taxon_id"] == row["primary_label"]) != is_bird


def test_a_group_stays_in_one_fold_and_every_fold_has_each_species_twice(season: FieldSeason) -> None:
    train = rows(season.root / "train.csv")
    folds: defaultdict[str, set[str]] = defaultdict(set)
    for row in train:
        folds[row["group"]].add(row["fold"])
        folds[row["author"]].add(row["fold"])
    assert all(len(of_group) == 1 for of_group in folds.values())
    for label in BY_LABEL:
        in_folds = [row["fold"] for row in train if row["primary_label"] == label]
        assert all(in_folds.count(fold) >= 2 for fold in "0123") and set(in_folds) == set("0123")


def test_every_row_has_its_recording_and_every_recording_its_row(season: FieldSeason) -> None:
    train = rows(season.root / "train.csv")
    audio = season.root / "train_audio"
    assert sorted(row["filename"] for row in train) == sorted(
        path.relative_to(audio).as_posix() for path in audio.rglob("*.*")
    )
    for row in train:
        assert 3 * SAMPLE_RATE <= len(listen(audio / row["filename"])) <= 9 * SAMPLE_RATE
        others: list[str] = ast.literal_eval(row["secondary_labels"])
        assert others == [""] or (set(others) <= set(BY_LABEL) - {row["primary_label"]})
    assert 0 < sum(row["secondary_labels"] != "['']" for row in train) < len(train) / 3


def test_answers_lie_inside_the_soundscape_and_some_species_stay_silent(season: FieldSeason) -> None:
    answers = rows(season.answers)
    assert len(listen(season.soundscape)) == 90 * SAMPLE_RATE
    assert len(answers) == 18
    for row in answers:
        assert row["filename"] == season.soundscape.name
        assert 0 <= float(row["start"]) < float(row["end"]) <= 90
    assert 12 <= len({row["primary_label"] for row in answers}) < len(SPECIES)


def test_a_planted_bout_is_louder_in_its_band_than_the_moments_around_it(season: FieldSeason) -> None:
    soundscape = listen(season.soundscape)
    bouts = [(float(row["start"]), float(row["end"]), row["primary_label"]) for row in rows(season.answers)]
    gains: list[float] = []
    for start, end, label in bouts:
        band = band_hz(BY_LABEL[label])
        inside = band_rms(soundscape[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)], *band)
        for begin in (start - 0.6, end + 0.1):  # half a second before, half a second after, where nobody else calls
            if 0 <= begin <= 89.5 and all(begin > until or begin + 0.5 < since for since, until, _ in bouts):
                outside = band_rms(soundscape[int(begin * SAMPLE_RATE) : int((begin + 0.5) * SAMPLE_RATE)], *band)
                gains.append(20 * np.log10(inside / outside))
    assert len(gains) > 20
    assert min(gains) > 4, "decibels"
    assert np.median(gains) > 8, "decibels"


@pytest.mark.parametrize("seed", range(3))
def test_a_bout_lasts_two_to_four_and_a_half_seconds(seed: int, tmp_path: Path) -> None:
    bouts = write_soundscape(tmp_path / "soundscape.flac", seed, 90)
    assert all(2 <= float(row["end"]) - float(row["start"]) <= 4.5 for row in bouts)


@pytest.mark.parametrize("species", SPECIES, ids=lambda species: species.label)
def test_a_song_stands_as_far_above_the_noise_as_asked(species: PretendSpecies) -> None:
    rng = default_rng(0)
    noise = weather(4 * SAMPLE_RATE, np.full((1, 3), 0.5), rng)
    song = sing(species, 3 * SAMPLE_RATE, rng)
    mixture = noise.copy()
    plant(mixture, noise, song, 0, species, snr_db=20)
    added = (mixture - noise)[: len(song)][song != 0]
    decibels = 20 * np.log10(np.sqrt(np.mean(added**2)) / band_rms(noise[: len(song)], *band_hz(species)))
    assert decibels == pytest.approx(20, abs=0.01)


def test_an_individual_is_never_silent_for_long() -> None:
    for species in SPECIES:
        song = sing(species, 9 * SAMPLE_RATE, default_rng(0))
        sounding = np.flatnonzero(song)
        assert np.diff(sounding).max() < 1.5 * SAMPLE_RATE
        assert len(song) > 7 * SAMPLE_RATE


def test_what_identifies_a_species_is_heard_at_a_sample_rate_of_16_khz() -> None:
    for species in SPECIES:
        low, high = band_hz(species)
        assert 150 < low < high < 7800
        song = sing(species, 4 * SAMPLE_RATE, default_rng(0))
        assert band_rms(song, low, high) > 0.75 * band_rms(song, 0, SAMPLE_RATE / 2)


def test_band_rms_of_a_sine_is_its_amplitude_over_root_two() -> None:
    sine = np.sin(2 * np.pi * 1000 * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    assert band_rms(sine, 900, 1100) == pytest.approx(0.5**0.5, rel=0.01)
    assert band_rms(sine, 2000, 3000) < 0.001


def test_species_are_told_apart_by_their_mean_spectrum(season: FieldSeason) -> None:
    train = rows(season.root / "train.csv")
    spectra = np.stack([mean_log_spectrum(listen(season.root / "train_audio" / row["filename"])) for row in train])
    labels, folds = np.array([row["primary_label"] for row in train]), np.array([row["fold"] for row in train])
    names = np.array(list(BY_LABEL))
    guesses = np.empty_like(labels)
    for fold in "0123":
        centroids = np.stack([spectra[(labels == name) & (folds != fold)].mean(axis=0) for name in names])
        held_out = folds == fold
        distances = np.square(spectra[held_out, None] - centroids).sum(axis=-1)
        guesses[held_out] = names[distances.argmin(axis=1)]
    genus = {name: BY_LABEL[name].genus for name in BY_LABEL}
    pairs: list[tuple[str, str]] = list(zip(guesses.tolist(), labels.tolist(), strict=True))
    right = sum(guess == label for guess, label in pairs) / len(pairs)
    right_genus = sum(genus[guess] == genus[label] for guess, label in pairs) / len(pairs)
    assert right > 0.6
    assert right_genus >= right and set(genus.values()) == set(GENERA)


def mean_log_spectrum(recording: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over time of the log power below 8 kHz (256,), its own mean taken off."""
    frames = np.lib.stride_tricks.sliding_window_view(recording, 1024)[::512] * np.hanning(1024).astype(np.float32)
    spectrum = np.log(np.square(np.abs(np.fft.rfft(frames)[:, :256])) + 1e-9).mean(axis=0)
    return np.asarray(spectrum - spectrum.mean(), np.float32)


def test_the_damaged_folder_holds_half_a_file_a_text_and_silence(season: FieldSeason) -> None:
    damaged = season.root / "damaged"
    whole = (season.root / "train_audio" / SPECIES[0].label / "FS100000.flac").read_bytes()
    assert (damaged / "cut_in_half.flac").read_bytes() == whole[: len(whole) // 2]
    assert not listen(damaged / "silent.flac").any()
    with pytest.raises(RuntimeError):
        listen(damaged / "text_not_sound.wav")


def test_unlabelled_recordings_come_from_three_sites(season: FieldSeason) -> None:
    unlabeled = season.root / "unlabeled"
    assert {path.name for path in unlabeled.iterdir()} == {"site_A", "site_B", "site_C"}
    assert len(list(unlabeled.rglob("*.flac"))) == 6
