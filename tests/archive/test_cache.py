"""The cache: the same windows, quicker; in part where space is short; never a reason to fail."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from archive.cache import HEADER, fill_cache, gain, window_of
from archive.recordings import Recording
from sounds.audio import read_samples, read_window
from sounds.windows import fill_window


@pytest.fixture
def rows(tmp_path: Path) -> list[Recording]:
    """Ten seconds in two formats, quiet and far too loud."""
    rng = np.random.default_rng(0)
    made: list[Recording] = []
    for name, rate, level in (("quiet.wav", 48_000, 1e-4), ("loud.wav", 22_050, 5.0), ("plain.ogg", 32_000, 0.1)):
        subtype = "FLOAT" if name.endswith("wav") else "VORBIS"
        soundfile.write(tmp_path / name, rng.normal(0, level, 10 * rate), rate, subtype=subtype)
        made.append(Recording(tmp_path / name, name, seconds=10.0))
    return made


def test_a_cached_window_is_the_decoded_one_within_one_step_of_int16(rows: list[Recording], tmp_path: Path) -> None:
    kept = fill_cache(rows, 16_000, tmp_path / "cache", 1.0)
    assert set(kept) == {row.path for row in rows}
    for row in rows:
        whole = read_samples(row.path, 0, 160_000, 16_000)
        step = 2.0 ** np.ceil(np.log2(np.abs(whole).max())) / 2**15
        for start in (0.0, 3.21, 5.0, 8.0):
            direct = read_window(row.path, start, 5.0, 16_000)
            cached = window_of(row.path, kept, start, 5.0, 16_000)
            assert cached.shape == direct.shape and cached.dtype == np.float32
            plain = fill_window(read_samples(row.path, round(start * 16_000), 80_000, 16_000), 80_000)
            raised = float(direct.std() / plain.std())  # 1, but for a faint recording
            assert raised > 0.999 and np.abs(cached - direct).max() <= 1.01 * raised * step


def test_the_largest_gain_is_kept_first_and_the_rest_is_decoded(rows: list[Recording], tmp_path: Path) -> None:
    one = HEADER + 2 * (10 * 16_000 + 1)
    kept = fill_cache(rows, 16_000, tmp_path / "cache", 1.5 * one / 1e9)
    assert list(kept) == [tmp_path / "plain.ogg"], "Vorbis is dearer to decode than wav"
    windows = [window_of(row.path, kept, 1.0, 5.0, 16_000) for row in rows]
    assert all(len(window) == 80_000 for window in windows)
    assert np.array_equal(windows[0], read_window(rows[0].path, 1.0, 5.0, 16_000))


def test_an_mp3_of_an_hour_is_worth_more_a_byte_than_one_that_is_as_long_in_ogg() -> None:
    assert gain(Recording(Path("a.mp3"), "", seconds=3600)) > gain(Recording(Path("a.ogg"), "", seconds=3600))
    assert gain(Recording(Path("a.ogg"), "", seconds=10)) > gain(Recording(Path("a.ogg"), "", seconds=100))
    assert gain(Recording(Path("a.m4a"), "", seconds=60)) > gain(Recording(Path("a.opus"), "", seconds=60))


def test_what_is_kept_is_not_decoded_again_until_it_changes(rows: list[Recording], tmp_path: Path) -> None:
    first = fill_cache(rows, 16_000, tmp_path / "cache", 1.0)
    times = {path: file.stat().st_mtime_ns for path, file in first.items()}
    assert fill_cache(rows, 16_000, tmp_path / "cache", 1.0) == first
    assert {path: file.stat().st_mtime_ns for path, file in first.items()} == times
    os.utime(rows[0].path, (1, 1))
    again = fill_cache(rows, 16_000, tmp_path / "cache", 1.0)
    assert again[rows[0].path] != first[rows[0].path] and again[rows[1].path] == first[rows[1].path]
    assert fill_cache(rows, 8_000, tmp_path / "cache", 1.0)[rows[1].path] != first[rows[1].path]


def test_what_would_fill_the_memory_at_its_rate_is_not_kept(
    rows: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each recording is held once to be kept: an hour is 230 MB at 16 kHz, and 4 GB at a bat's rate."""
    monkeypatch.setattr("archive.cache.MOST_SAMPLES", 10 * 16_000)
    assert set(fill_cache(rows, 16_000, tmp_path / "cache", 1.0)) == {row.path for row in rows}
    assert fill_cache(rows, 64_000, tmp_path / "cache", 1.0) == {}


def test_nothing_is_kept_where_nothing_is_asked_for_or_nothing_can_be(rows: list[Recording], tmp_path: Path) -> None:
    assert fill_cache(rows, 16_000, tmp_path / "cache", 0.0) == {}
    (tmp_path / "file").write_text("in the way")
    assert fill_cache(rows, 16_000, tmp_path / "file", 1.0) == {}
    rows[0].path.unlink()
    assert set(fill_cache(rows, 16_000, tmp_path / "cache", 1.0)) == {rows[1].path, rows[2].path}


def test_the_disk_is_never_filled(
    rows: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("archive.cache.LEAVE_BYTES", 1e18)
    assert fill_cache(rows, 16_000, tmp_path / "cache", 1.0) == {}
    assert "cache: 0 of 3 recordings (0% of hours)" in capsys.readouterr().out


def test_a_cache_that_vanishes_or_is_cut_short_costs_time_alone(rows: list[Recording], tmp_path: Path) -> None:
    kept = fill_cache(rows, 16_000, tmp_path / "cache", 1.0)
    direct = read_window(rows[2].path, 1.0, 5.0, 16_000)
    kept[rows[2].path].write_bytes(kept[rows[2].path].read_bytes()[:HEADER])
    assert np.array_equal(window_of(rows[2].path, kept, 1.0, 5.0, 16_000), direct)
    kept[rows[2].path].unlink()
    assert np.array_equal(window_of(rows[2].path, kept, 1.0, 5.0, 16_000), direct)
    kept[rows[1].path].write_bytes(kept[rows[1].path].read_bytes()[:100_000])  # not by us: we rename
    again = fill_cache(rows, 16_000, tmp_path / "cache", 1.0)
    assert all(file.stat().st_size > 300_000 for file in again.values())


def test_no_half_written_file_is_left_behind(
    rows: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("archive.cache.np.save", fail)
    assert fill_cache(rows, 16_000, tmp_path / "cache", 1.0) == {}
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
