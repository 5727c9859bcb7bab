"""Embeddings open where they are wanted, without pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_tables import files_below

from serving.embeddings import Embedded, write_vectors


def test_embeddings_open_without_pickle(tmp_path: Path) -> None:
    path = tmp_path / "new/embeddings.npz"
    assert write_vectors(path, embedded(["=a.wav", "Größe/b.wav"]), "toy.onnx") == 4
    with np.load(path, allow_pickle=False) as found:
        assert sorted(found) == ["embedding", "end", "file", "model", "start", "wild_whisper"]
        assert found["embedding"].dtype == np.float32 and found["embedding"].shape == (4, 3)
        assert found["embedding"][2].tolist() == np.array([1, -0.1, 1e-8], np.float32).tolist()
        assert found["file"].tolist() == ["./=a.wav"] * 2 + ["Größe/b.wav"] * 2
        assert found["start"].tolist() == [0, 5, 0, 5] and found["end"].tolist() == [5, 7.3, 5, 7.3]
        assert found["model"].item() == "toy.onnx"


def test_embeddings_in_a_csv_have_analyzers_layout(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.csv"
    assert write_vectors(path, embedded(["a, b.wav"]), "toy.onnx") == 2
    assert path.read_bytes() == (
        b'file_path,start,end,embedding\n"a, b.wav",0,5,"0,-0.100000001,9.99999994e-09"\n'
        b'"a, b.wav",5,7.3,"0,0.200000003,3"\n'
    )
    cell = pd.read_csv(path)["embedding"][0]
    assert np.array([float(value) for value in str(cell).split(",")], np.float32).tolist() == (
        np.array([0, -0.1, 1e-8], np.float32).tolist()
    )


def test_no_embeddings_are_an_empty_file_and_not_none(tmp_path: Path) -> None:
    assert [write_vectors(tmp_path / name, [], "toy.onnx") for name in ("e.npz", "e.csv")] == [0, 0]
    with np.load(tmp_path / "e.npz", allow_pickle=False) as found:
        assert [len(found[name]) for name in ("embedding", "file", "start", "end")] == [0] * 4
    assert (tmp_path / "e.csv").read_text() == "file_path,start,end,embedding\n"


def test_a_table_says_of_which_model_it_is_and_where_that_is_from(tmp_path: Path) -> None:
    taught = {"teachers": [{"name": "Größe", "license": "CC BY-NC 4.0"}], "trained_on": "ab" * 5}
    for name in ("e.npz", "e.csv"):
        write_vectors(tmp_path / name, embedded(["a.wav"]), "toy.onnx", provenance=taught)
    with np.load(tmp_path / "e.npz", allow_pickle=False) as found:
        assert json.loads(found["wild_whisper"].item()) == {"provenance": taught}
    assert json.loads((tmp_path / "e.csv.json").read_text()) == {"model": "toy.onnx", "provenance": taught}


@pytest.mark.parametrize("name", ["e.npz", "e.csv"])
def test_embeddings_are_whole_or_not_there(tmp_path: Path, name: str) -> None:
    def dying() -> Iterator[Embedded]:
        yield from embedded(["a.wav"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_vectors(tmp_path / name, dying(), "toy.onnx")
    assert files_below(tmp_path) == []
    with pytest.raises(AssertionError, match=r"as \.npz or \.csv, not to e\.pkl"):
        write_vectors(tmp_path / "e.pkl", [], "toy.onnx")


def embedded(files: Sequence[str]) -> Iterator[Embedded]:
    for number, file in enumerate(files):
        vectors = np.array([[number, -0.1, 1e-8], [number, 0.2, 3.0]], np.float32)
        yield Embedded(file, [0.0, 5.0], [5.0, 7.3], vectors)
