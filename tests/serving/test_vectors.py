"""The nearest windows are those that comparing all of them finds, and a store is whole or not there."""

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import file_system
from numpy.typing import NDArray

from serving.detections import Analysed, Scored
from serving.inputs import Entry
from serving.journal import Journal, open_journal
from serving.vectors import RERANKED, Store, open_store, write_store

Vectors = NDArray[np.float32]
NONE = np.zeros((0, 24), np.float32)


def animals(windows: int, kinds: int = 40, seed: int = 0) -> Vectors:
    """Windows of some animals, much alike, on top of what all windows share."""
    rng = np.random.default_rng(seed)
    each = 5 + rng.normal(size=(kinds, 24)) * np.linspace(3, 0.1, 24)
    return (each[np.arange(windows) % kinds] + rng.normal(0, 0.4, (windows, 24))).astype(np.float32)


def kept(folder: Path, parts: Sequence[Vectors]) -> tuple[Journal, list[Entry]]:
    """A journal of recordings with these embeddings."""
    entries = [Entry(folder / f"{number}.wav") for number in range(len(parts))]
    with open_journal(folder, {}, arrays=True) as journal:
        for entry, vectors in zip(entries, parts, strict=True):
            starts = [5.0 * row for row in range(len(vectors))]
            scored = Scored(starts, [start + 5 for start in starts], np.zeros((len(vectors), 0), np.float32), vectors)
            facts = Analysed(str(entry.path), "", "", 16_000, 1, 60, 60, len(vectors), "ok", "", 0, 0)
            journal.save(entry, facts, [scored])
    return journal, entries


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder, vectors = tmp_path_factory.mktemp("store"), animals(12_000)
    journal, entries = kept(folder, np.split(vectors, 3))
    assert write_store(folder, journal, entries, {"what": "animals"}) == 12_000
    return open_store(folder)


def cosines(vectors: Vectors, example: Vectors) -> Vectors:
    """Of all windows to one, in units of deviation, by the textbook."""
    mean, deviation = vectors.mean(axis=0), vectors.std(axis=0)
    standard, wanted = (vectors - mean) / deviation, (example - mean) / deviation
    found: Vectors = standard @ wanted / np.linalg.norm(standard, axis=1) / np.linalg.norm(wanted)
    return found


def test_the_nearest_are_those_of_comparing_all(store: Store) -> None:
    vectors, example = animals(12_000), animals(41, seed=0)[40]
    expected = cosines(vectors, example)
    found = store.nearest(example[None], NONE, most=100)
    assert len(store.vectors) > RERANKED  # so the coarse vectors have to choose
    assert set(found.rows) == set(np.argsort(-expected)[:100])
    assert np.allclose(found.similarity, np.sort(expected)[::-1][:100], atol=2e-3)
    assert (np.diff(found.similarity) <= 0).all()
    assert set(found.rows) != set(np.argsort(-(vectors @ example))[:100])  # control: products alone find others


def test_of_several_examples_the_nearest_counts(store: Store) -> None:
    both = animals(2)
    found = store.nearest(both, NONE, most=200)
    apart = [set(store.nearest(one[None], NONE, most=100).rows) for one in both]
    assert {int(row) % 40 for row in found.rows} == {0, 1}
    assert set(found.rows) <= {row for row in range(12_000) if row % 40 < 2} and apart[0].isdisjoint(apart[1])


def test_what_is_more_like_a_counter_example_is_left_out(store: Store) -> None:
    vectors, both = animals(12_000), animals(2)
    like = np.maximum(*(cosines(vectors, one) for one in both))
    expected = np.flatnonzero(like > cosines(vectors, both[1]) + 1e-3)
    found = store.nearest(both, both[1:], most=100)
    assert set(found.rows) <= set(expected) and len(found.rows) == 100
    assert np.mean(found.rows % 40 == 1) < 0.05
    assert np.mean(store.nearest(both, NONE, most=100).rows % 40 == 1) > 0.3  # control


def test_standardised_embeddings_come_back(store: Store) -> None:
    vectors, rows = animals(12_000), np.array([3, 11_000])
    expected = (vectors[rows] - vectors.mean(axis=0)) / vectors.std(axis=0)
    assert np.allclose(store.standard(rows), expected, atol=5e-3)


def test_each_row_knows_its_window(store: Store) -> None:
    place = store.places[11_999]
    assert (place["recording"], place["start"], place["end"], place["channel"]) == (2, 19_995, 20_000, 0)
    assert store.facts["what"] == "animals" and store.facts["windows"] == 12_000


def test_the_same_recordings_make_the_same_bytes_and_old_arrays_go(tmp_path: Path) -> None:
    journal, entries = kept(tmp_path, np.split(animals(120), 4))
    write_store(tmp_path, journal, entries, {})
    first = {path.name: path.read_bytes() for path in tmp_path.glob("*.npy")}
    write_store(tmp_path, journal, entries, {})
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.npy")} == first
    write_store(tmp_path, journal, entries[:3], {})
    assert len(list(tmp_path.glob("*.npy"))) == 6 and len(open_store(tmp_path).vectors) == 90


def test_a_long_recording_is_stored_in_parts_and_the_store_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, entries = kept(tmp_path, [animals(301), animals(40, seed=1)])
    write_store(tmp_path, journal, entries, {})
    whole = open_store(tmp_path)
    before: list[NDArray[Any]] = [np.array(array) for array in (whole.vectors, whole.coarse, whole.places)]
    monkeypatch.setattr("serving.vectors.AT_A_TIME", 64)
    write_store(tmp_path, journal, entries, {})
    parts = open_store(tmp_path)
    for name, expected in zip(("vectors", "coarse"), before, strict=False):
        assert np.allclose(getattr(parts, name), expected, atol=2e-3), name
    assert all(np.array_equal(parts.places[name], before[2][name]) for name in ("recording", "start", "end"))


def test_a_store_that_is_cut_off_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, entries = kept(tmp_path, np.split(animals(120), 4))
    write_store(tmp_path, journal, entries[:2], {})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("serving.vectors.write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        write_store(tmp_path, journal, entries, {})
    assert len(open_store(tmp_path).vectors) == 60


def test_what_is_no_store_is_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"no index in .*search\.py index"):
        open_store(tmp_path)
    journal, entries = kept(tmp_path, [animals(30)])
    write_store(tmp_path, journal, entries, {})
    (vectors,) = tmp_path.glob("vectors-*.npy")
    vectors.write_bytes(vectors.read_bytes()[:-2])
    with pytest.raises(AssertionError, match="missing or damaged"):
        open_store(tmp_path)
    write_store(tmp_path, journal, entries, {})
    (vectors,) = tmp_path.glob("vectors-*.npy")
    whole = vectors.read_bytes()
    for position in range(128):  # its header
        vectors.write_bytes(whole[:position] + bytes([whole[position] ^ 255]) + whole[position + 1 :])
        with pytest.raises(AssertionError, match=r"damaged.*search\.py index"):
            open_store(tmp_path)
    table = json.loads((tmp_path / "store.json").read_text())
    (tmp_path / "store.json").write_text(json.dumps(table | {"format": 99}))
    with pytest.raises(AssertionError, match="has the format 99"):
        open_store(tmp_path)


def test_no_windows_and_no_embeddings_are_refused(tmp_path: Path) -> None:
    journal, entries = kept(tmp_path / "a", [animals(0)])
    with pytest.raises(AssertionError, match="has a window"):
        write_store(tmp_path / "a", journal, entries, {})
    journal, entries = kept(tmp_path / "b", [np.zeros((3, 0), np.float32)])
    with pytest.raises(AssertionError, match="no embeddings"):
        write_store(tmp_path / "b", journal, entries, {})


def test_a_full_disk_is_one_line_and_never_a_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 MB of store; a process that maps what the disk has no room for would end by SIGBUS."""
    journal, entries = kept(tmp_path / "kept", [animals(12_000)])
    with file_system(tmp_path / "disk", 1) as disk:
        (disk / "store.json").write_text("the old one")

        def refused() -> tuple[int, str]:
            read, write = os.pipe()
            child = os.fork()
            if not child:
                code = 2
                try:
                    write_store(disk, journal, entries, {})
                    code = 0
                except AssertionError as refusal:
                    os.write(write, str(refusal).encode())
                    code = 1
                finally:
                    os._exit(code)
            os.close(write)
            with os.fdopen(read, "rb") as said:
                return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said.read().decode()

        code, line = refused()
        assert code == 1, (code, line)
        assert re.search(r"disk full: .*store\.json needs 2\.\d MB or more, 1\.0 MB are free", line), line
        usage = shutil.disk_usage

        def usage_of_another(_: Path) -> object:
            return usage(tmp_path)

        with monkeypatch.context() as patch:  # what was free when it began is gone a moment later
            patch.setattr("runtime.files.shutil.disk_usage", usage_of_another)
            code, line = refused()
        assert code == 1 and "disk full" in line, (code, line)
        assert [path.name for path in disk.iterdir()] == ["store.json"]
        assert (disk / "store.json").read_text() == "the old one"
    with file_system(tmp_path / "larger", 3) as disk:  # control: it fits
        assert write_store(disk, journal, entries, {}) == 12_000
