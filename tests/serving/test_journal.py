"""Parts: whole or not there, never of other settings, and read back as they were."""

import hashlib
import io
import json
import tracemalloc
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from serving.detections import Analysed, Detection, Scored
from serving.inputs import Entry
from serving.journal import EARLIER, kept_settings, open_journal, write_signed
from serving.scored_windows import Windows, packed, unpacked
from serving.scorer import Answer

ENTRY = Entry(Path("pond/dawn\udce9.wav"), "pond", "2026-05-14T05:30:00", 1_000, 17)
FROG = Detection(0.0, 5.0, "41", "Rana ficta", 'the "frog"', 0.1 + 0.2, 0.5, 2, "2026-05-14T05:30:00", "42 0.31")
DAWN = Analysed(
    str(ENTRY.path), "pond", ENTRY.recorded_at, 32_000, 1, 60.0, 1 / 3, 12, "ok", "", 1_000, 17, (FROG, FROG)
)
LEFT = Scored([0.0, 2.5], [5.0, 7.5], np.array([[0.1], [1 / 3]], np.float32), np.ones((2, 4), np.float32), 1)


def test_what_was_kept_is_recalled_to_the_last_digit(tmp_path: Path) -> None:
    with open_journal(tmp_path, {}, arrays=True) as journal:
        assert not journal.is_done(ENTRY)
        journal.save(ENTRY, DAWN, [LEFT, replace(LEFT, channel=2)])
        assert journal.is_done(ENTRY) and journal.is_settled(ENTRY)
        assert list(journal.recall([ENTRY, replace(ENTRY, where=Path("other.wav"))])) == [DAWN]
        ((entry, (left, right)),) = journal.recall_arrays([ENTRY])
    assert entry == ENTRY and (left.starts, left.ends, left.channel, right.channel) == ([0.0, 2.5], [5.0, 7.5], 1, 2)
    np.testing.assert_array_equal(left.probabilities, LEFT.probabilities)
    np.testing.assert_array_equal(left.embeddings, LEFT.embeddings)


def test_a_day_in_half_seconds_is_kept_without_a_second_one_in_memory(tmp_path: Path) -> None:
    """Of a bat's day there are 172,800 windows; with embeddings of Whisper base these are 350 MB."""
    windows, answer = Windows(), Answer(np.zeros((100, 8), np.float32), np.ones((100, 512), np.float32))
    for start in range(0, 20_000, 100):
        windows.take([(start, start + 1)] * 100, range(100), answer, embeddings=True)
    size = len(windows.embeddings) * 4
    with open_journal(tmp_path, {}, arrays=True) as journal:
        tracemalloc.start()
        journal.save_begun(ENTRY, packed({(0, False): windows}, 20_000, {(0, False): 20_000}))
        begun = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        journal.save(ENTRY, DAWN, [windows.scored(0, 8)])
        done = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert max(begun, done) < size / 2, f"{begun / 1e6:.0f} and {done / 1e6:.0f} MB beside {size / 1e6:.0f}"


def test_what_is_begun_is_recalled_as_it_was_or_not_at_all(tmp_path: Path) -> None:
    windows = Windows()
    windows.take([(0.0, 5.0)], [0], Answer(np.ones((1, 3), np.float32), np.ones((1, 4), np.float32)), embeddings=True)
    with open_journal(tmp_path, {}, arrays=True) as journal:
        assert journal.recall_begun(ENTRY) is None
        journal.save_begun(ENTRY, packed({(0, False): windows}, 1, {(0, False): 1}))
        kept = journal.recall_begun(ENTRY)
        assert kept is not None and unpacked(kept) == ({(0, False): windows}, 1)
        path = journal.path(ENTRY, "begun")
        earlier = io.BytesIO()
        np.savez(earlier, allow_pickle=False, kept=np.array([True]), **kept)  # as an earlier version wrote it
        path.write_bytes(hashlib.sha256(earlier.getvalue()).digest() + earlier.getvalue())
        kept = journal.recall_begun(ENTRY)
        assert kept is not None and unpacked(kept) == ({(0, False): windows}, 1)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        assert journal.recall_begun(ENTRY) is None


def test_a_table_that_was_corrected_meanwhile_tells_site_and_time(tmp_path: Path) -> None:
    with open_journal(tmp_path, {}, arrays=False) as journal:
        journal.save(ENTRY, DAWN, [])
        (told,) = journal.recall([replace(ENTRY, site="ridge", recorded_at="2026-05-15T06:00:00")])
    assert (told.site, told.recorded_at) == ("ridge", "2026-05-15T06:00:00")
    assert {one.detected_at for one in told.found} == {"2026-05-15T06:00:00"}


def test_nothing_is_forgotten_while_a_shard_is_at_work(tmp_path: Path) -> None:
    with open_journal(tmp_path, {}, arrays=False, shard="1/2") as journal:
        journal.save(ENTRY, DAWN, [])
        with (
            pytest.raises(AssertionError, match="shard 1-of-2 is at work"),
            open_journal(tmp_path, {}, arrays=False, restart=True),
        ):
            pass
        assert journal.is_done(ENTRY)
    with open_journal(tmp_path, {}, arrays=False, restart=True) as journal:
        assert not journal.is_done(ENTRY)


def test_what_may_pass_is_not_settled(tmp_path: Path) -> None:
    died = replace(DAWN, status="salvaged", reason="30.0 s were read, then its decoder died (SIGKILL)")
    with open_journal(tmp_path, {}, arrays=False) as journal:
        for told, settled in ((DAWN, True), (died, False), (replace(DAWN, status="unreadable"), False)):
            journal.save(ENTRY, told, [])
            assert journal.is_settled(ENTRY) == settled


def test_a_recording_is_done_in_one_state_and_under_one_path(tmp_path: Path) -> None:
    with open_journal(tmp_path, {}, arrays=False) as journal:
        journal.save(ENTRY, DAWN, [])
        others = [replace(ENTRY, size=1_001), replace(ENTRY, mtime_ns=18), replace(ENTRY, where=Path("noon.wav"))]
        assert journal.is_done(ENTRY) and not any(map(journal.is_done, others))
        assert journal.is_done(replace(ENTRY, site="elsewhere"))


def test_without_its_arrays_a_recording_is_not_done_for_those_who_want_them(tmp_path: Path) -> None:
    with open_journal(tmp_path, {}, arrays=False) as journal:
        journal.save(ENTRY, DAWN, [])
    with open_journal(tmp_path, {}, arrays=True) as journal:
        assert not journal.is_done(ENTRY) and not list(journal.recall([ENTRY]))


def test_a_part_cut_off_between_its_files_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    with open_journal(tmp_path, {}, arrays=True) as journal:
        monkeypatch.setattr("serving.journal.json.dumps", full)
        with pytest.raises(AssertionError, match="disk full"):
            journal.save(ENTRY, DAWN, [LEFT])
        assert not journal.is_done(ENTRY)
        assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overlap": 2.5, "thresholds": {"a": "1", "b": "1"}}, "overlap was '0.0', is '2.5'"),
        ({"overlap": 0.0, "thresholds": {"a": "2", "b": "1"}}, "thresholds of a"),
        ({"overlap": 0.0, "thresholds": {"a": "2", "c": "1"}}, "thresholds, for a and 2 more"),
        ({"thresholds": {"a": "1", "b": "1"}}, "overlap was '0.0', is 'None'"),
    ],
)
def test_other_settings_are_refused_and_named(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    with open_journal(tmp_path, {"overlap": 0.0, "thresholds": {"a": "1", "b": "1"}}, arrays=False) as journal:
        journal.save(ENTRY, DAWN, [])
    with pytest.raises(AssertionError, match=message), open_journal(tmp_path, settings, arrays=False):
        pass
    with open_journal(tmp_path, settings, arrays=False, restart=True) as journal:
        assert not journal.is_done(ENTRY)


def test_what_is_refused_names_the_command_and_its_flag(tmp_path: Path) -> None:
    opened = partial(open_journal, tmp_path, arrays=False, command="search.py index", flag="--index")
    with opened({"overlap": 0.0}):
        for settings, said in (
            ({"overlap": 0.0}, "another search.py index is at work in .*give another --index"),
            ({"overlap": 1.0}, "another search.py index"),
        ):
            with pytest.raises(AssertionError, match=said), opened(settings):
                pass
    with (
        pytest.raises(AssertionError, match=r"overlap was '0\.0'.*give another --index, or --restart"),
        opened({"overlap": 1.0}),
    ):
        pass
    (tmp_path / ".parts" / "settings.json").write_text("{")
    with (
        pytest.raises(AssertionError, match=r"is damaged.*give another --index"),
        opened({"overlap": 0.0}),
    ):
        pass


def test_one_folder_has_one_writer_for_each_shard(tmp_path: Path) -> None:
    first, second = (open_journal(tmp_path, {}, arrays=False, shard=shard) for shard in ("1/2", "2/2"))
    again = open_journal(tmp_path, {}, arrays=False, shard="1/2")
    with first, second, pytest.raises(AssertionError, match="is at work"), again:
        pass
    with open_journal(tmp_path, {}, arrays=False, shard="1/2"):
        pass


def test_to_start_again_forgets_nothing_that_another_process_or_shard_is_at_work_on(tmp_path: Path) -> None:
    with open_journal(tmp_path, {}, arrays=False) as journal:
        journal.save(ENTRY, DAWN, [])
        refused = open_journal(tmp_path, {}, arrays=False, restart=True)
        with pytest.raises(AssertionError, match="is at work"), refused:
            pass
        sharded = open_journal(tmp_path, {}, arrays=False, shard="1/2", restart=True)
        with pytest.raises(AssertionError, match="without --shard"), sharded:
            pass
        assert journal.is_done(ENTRY)
    with open_journal(tmp_path, {}, arrays=False, restart=True) as journal:
        assert not journal.is_done(ENTRY)


def test_a_part_holds_no_pickle(tmp_path: Path) -> None:
    with open_journal(tmp_path, {}, arrays=True) as journal:
        journal.save(ENTRY, DAWN, [LEFT])
        with np.load(journal.path(ENTRY, "npz"), allow_pickle=False) as columns:
            assert {columns[name].dtype.kind for name in columns.files} <= {"f", "i"}
        assert json.loads(journal.path(ENTRY, "json").read_text())["analysed"]["file"] == str(ENTRY.path)


def test_recordings_come_back_in_the_order_that_was_asked_for(tmp_path: Path) -> None:
    entries = [replace(ENTRY, where=Path(f"{name}.wav")) for name in "dbca"]
    with open_journal(tmp_path, {}, arrays=False) as journal:
        for entry in entries:
            journal.save(entry, replace(DAWN, file=str(entry.path)), [])
        assert [one.file for one in journal.recall(sorted(entries, key=lambda e: e.path))] == [
            "a.wav", "b.wav", "c.wav", "d.wav",
        ]  # fmt: skip


def test_a_damaged_part_is_made_again_and_damaged_settings_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_journal(tmp_path, {"overlap": 0.0}, arrays=False) as journal:
        journal.save(ENTRY, DAWN, [])
        place = journal.path(ENTRY, "json")
        for content in (place.read_bytes()[:-7], b"", b"{}", b"\xff\xfe"):
            place.write_bytes(content)
            assert not journal.is_done(ENTRY) and not list(journal.recall([ENTRY]))
            assert "is damaged, or of an earlier version; it is analysed again" in capsys.readouterr().out
        journal.save(ENTRY, DAWN, [])
        assert list(journal.recall([ENTRY])) == [DAWN]
    (tmp_path / ".parts" / "settings.json").write_text('{"overlap": 0.')
    with (
        pytest.raises(AssertionError, match=r"settings\.json is damaged, or .* --restart"),
        open_journal(tmp_path, {"overlap": 0.0}, arrays=False),
    ):
        pass


def test_results_of_a_version_that_knew_one_engine_are_gone_on_with(tmp_path: Path) -> None:
    with open_journal(tmp_path, {"overlap": 0.0}, arrays=False):
        pass
    write_signed(tmp_path / ".parts" / "settings.json", {"settings": {"overlap": 0.0}})  # as earlier versions wrote it
    assert kept_settings(tmp_path) == EARLIER | {"overlap": 0.0}
    with open_journal(tmp_path, EARLIER | {"overlap": 0.0}, arrays=False):
        pass
    with (
        pytest.raises(AssertionError, match="engine was 'onnxruntime', is 'openvino in float32'"),
        open_journal(tmp_path, EARLIER | {"overlap": 0.0, "engine": "openvino in float32"}, arrays=False),
    ):
        pass
    assert kept_settings(tmp_path / "elsewhere") == {}
