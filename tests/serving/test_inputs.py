"""What is analysed: place and time of every recording, and a fair share for each machine."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from test_metadata import chunk, wav

from archive.recordings import Recording, write_recordings
from runtime.addresses import place
from serving.inputs import Entry, find_entries, in_shard, read_shard


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"sound")


def test_time_and_site_come_from_the_name_and_the_folder(tmp_path: Path) -> None:
    make(tmp_path, "pond/20260514_053000.WAV", "ridge/SwiftOne_20220719_000000_-0400.wav", "ridge/noon.flac")
    entries, notes = find_entries([tmp_path])
    assert [(e.path.name, e.site, e.recorded_at) for e in entries] == [
        ("20260514_053000.WAV", "pond", "2026-05-14T05:30:00"),
        ("SwiftOne_20220719_000000_-0400.wav", "ridge", "2022-07-19T00:00:00-04:00"),
        ("noon.flac", "ridge", ""),
    ]
    assert entries[0].size == 5 and entries[0].mtime_ns > 0 and notes[0].startswith("found 3 audio files")


def test_a_time_zone_is_that_of_clocks_that_tell_none(tmp_path: Path) -> None:
    make(tmp_path, "a/20260514_053000.wav", "a/SwiftOne_20220719_000000_-0400.wav", "a/2024-03-19.wav")
    entries, _ = find_entries([tmp_path], timezone="America/Bogota")
    assert {e.recorded_at for e in entries} == {"2026-05-14T05:30:00-05:00", "2022-07-19T00:00:00-04:00", "2024-03-19"}


def test_an_hour_that_came_twice_is_said(tmp_path: Path) -> None:
    make(tmp_path, "20251026_023000.wav")
    entries, notes = find_entries([tmp_path], timezone="Europe/Berlin")
    assert entries[0].recorded_at == "2025-10-26T02:30:00+02:00" and any("clocks were changed" in n for n in notes)


def test_an_entry_keeps_a_path_as_text_and_an_address_as_it_is(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path / "dawn") + b"\xe9.wav"))
    entry = Entry(odd, size=3)
    assert isinstance(entry.where, str) and entry.path == odd and type(entry.path) is type(odd)
    assert replace(entry, site="pond").path == odd and entry.key == Entry(str(odd), size=3).key != Entry(odd).key
    far = place(Path("memory://season/dawn.wav"))
    assert Entry(far).path is far and str(Entry(far).path) == "memory://season/dawn.wav"


def test_a_pattern_finds_the_site_in_the_path(tmp_path: Path) -> None:
    make(tmp_path, "card7/H21_20260514_053000.wav", "card7/other.wav")
    entries, _ = find_entries([tmp_path], site_regex=r"(H\d+)_")
    assert [e.site for e in entries] == ["H21", ""]


def test_a_table_brings_its_own_places_and_times(tmp_path: Path) -> None:
    make(tmp_path, "x/a.wav", "x/20260514_053000.wav", "x/unlisted.wav")
    rows = [
        Recording(tmp_path / "x/a.wav", "x/a.wav", site="pond", recorded_at="2020-01-01T00:00:00"),
        Recording(tmp_path / "x/20260514_053000.wav", "x/20260514_053000.wav"),
        Recording(tmp_path / "x/gone.wav", "x/gone.wav"),
    ]
    write_recordings(tmp_path / "recordings.csv", rows)
    entries, notes = find_entries([tmp_path / "recordings.csv"])
    assert [(e.path.name, e.site, e.recorded_at) for e in entries] == [
        ("20260514_053000.wav", "x", "2026-05-14T05:30:00"),
        ("a.wav", "pond", "2020-01-01T00:00:00"),
        ("gone.wav", "x", ""),
    ]
    assert any("1 recordings of the table are no longer there" in note for note in notes)


def test_a_file_counts_more_than_its_name_and_less_than_a_table(tmp_path: Path) -> None:
    guano = chunk(
        b"guan",
        b"GUANO|Version:1.0\nTimestamp:2024-05-01T06:30:00+02:00\nMake:Titley\nSerial:45\n"
        b"Loc Position:47.5 8.25\nTemperature Int:7.5\n",
    )
    one, other = (wav(tmp_path / name, guano) for name in ("20240501_063000.wav", "20240501_053000.wav"))
    entries, notes = find_entries([tmp_path], timezone="America/Bogota")
    assert {e.recorded_at for e in entries} == {"2024-05-01T06:30:00+02:00"}, "its own zone, not that of --timezone"
    assert {(e.latitude, e.longitude, e.make, e.serial, e.temperature) for e in entries} == {
        ("47.5", "8.25", "Titley", "45", "7.5")
    }
    (doubt,) = (note for note in notes if "doubtful" in note)
    assert (
        "1 times or positions are doubtful: 20240501_053000.wav: its name says 2024-05-01T05:30:00, the file" in doubt
    )
    rows = [Recording(one, one.name, recorded_at="2020-01-01T00:00:00", latitude="1.5", longitude="2.5", serial="46")]
    write_recordings(tmp_path / "recordings.csv", [*rows, Recording(other, other.name)])
    told = {e.path: e for e in find_entries([tmp_path / "recordings.csv"])[0]}
    assert (told[one].recorded_at, told[one].latitude, told[one].serial) == ("2020-01-01T00:00:00", "1.5", "46")
    assert (told[one].make, told[other].latitude, told[other].serial) == ("Titley", "47.5", "45")


def test_the_same_file_under_another_path_is_another_entry_and_the_same_one_the_same(tmp_path: Path) -> None:
    make(tmp_path, "a.wav")
    first, again = find_entries([tmp_path])[0][0], find_entries([tmp_path])[0][0]
    assert first.key == again.key
    shutil.copy2(tmp_path / "a.wav", tmp_path / "b.wav")
    assert len({entry.key for entry in find_entries([tmp_path])[0]}) == 2
    os.utime(tmp_path / "a.wav", ns=(1, 1))
    assert find_entries([tmp_path])[0][0].key != first.key


def test_every_recording_is_in_one_shard_and_shards_are_even() -> None:
    paths = [Path(f"season/{number}.wav") for number in range(4_000)]
    shards = [{path for path in paths if in_shard(path, part, 8)} for part in range(1, 9)]
    assert set.union(*shards) == set(paths) and sum(map(len, shards)) == len(paths)
    assert all(400 < len(shard) < 600 for shard in shards)


def test_a_shard_is_the_same_on_every_machine() -> None:
    assert [in_shard(Path("season/0.wav"), part, 3) for part in (1, 2, 3)].count(True) == 1
    assert [part for part in range(1, 9) if in_shard(Path("season/0.wav"), part, 8)] == [expected_shard("season/0.wav")]


def expected_shard(path: str) -> int:
    import hashlib

    return int(hashlib.sha256(path.encode()).hexdigest()[:16], 16) % 8 + 1


def test_shards_are_read_from_the_flag_or_from_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_shard("") == (1, 1) and read_shard("3/8") == (3, 8)
    for name, value in (("ID", "3"), ("MIN", "1"), ("MAX", "4"), ("COUNT", "4")):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    assert read_shard("slurm") == (3, 4)
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID")
    with pytest.raises(AssertionError, match="use sbatch --array"):
        read_shard("slurm")
    for wrong in ("0/3", "4/3", "a/b", "3"):
        with pytest.raises(AssertionError, match="write 3/8"):
            read_shard(wrong)


@pytest.mark.parametrize(
    ("number", "first", "last", "count"),
    [(3, 3, 3, 1), (3, 3, 5, 2), (1, 1, 5, 2), (3, 1, 9, 5), (0, 0, 7, 8)],
    ids=["3", "3,5", "1,5", "1-9:2", "0-7"],
)
def test_an_array_that_does_not_run_from_1_to_n_is_refused_with_the_remedy(
    number: int, first: int, last: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--array 3`, to do the third of eight again, would be taken for the whole archive by its one task."""
    for name, value in (("ID", number), ("MIN", first), ("MAX", last), ("COUNT", count)):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    with pytest.raises(AssertionError, match=rf"sbatch --array 1-8 .*--shard {number}/8"):
        read_shard("slurm")


def test_the_page_for_many_machines_starts_slurms_shards_as_an_array() -> None:
    """Without one there is nothing that tells a task which shard is its own."""
    page = (Path(__file__).parents[2] / "docs" / "many_machines.md").read_text(encoding="utf-8")
    (line,) = (line for line in page.splitlines() if "--shard slurm" in line)
    assert line.startswith("sbatch --array ")
