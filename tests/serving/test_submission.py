"""A submission has the rows and columns of the sample, to the byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from serving.submission import read_sample, write_submission

HEADER = "row_id,ani,bat,cat,frog\n"
PUBLIC = HEADER + "".join(f"soundscape_8358733_{end},0.25,0.25,0.25,0.25\n" for end in (5, 10, 15))

LABELS = ("frog", "ani", "owl", "bat")
HERE = Path(__file__).parents[2]
REAL_SAMPLE = HERE.parent / "shared" / "birdclef2025" / "sample_submission.csv"


def test_placeholders_of_the_public_sample_give_way_to_all_soundscapes_in_order(tmp_path: Path) -> None:
    scores = [("set/H9_1.ogg", soundscape(0.5)), ("set/H1_2.ogg", soundscape(0.25))]
    report = write_submission(tmp_path / "submission.csv", read_sample(sampled(tmp_path)), scores, LABELS)
    assert (tmp_path / "submission.csv").read_bytes() == (
        b"row_id,ani,bat,cat,frog\n"
        b"H9_1_5,0.50999999,0.529999971,0.25,0.5\n"
        b"H9_1_10,0.550000012,0.569999993,0.25,0.540000021\n"
        b"H1_2_5,0.25999999,0.280000001,0.25,0.25\n"
        b"H1_2_10,0.300000012,0.319999993,0.25,0.289999992\n"
    )
    assert (report.rows, report.filled_rows, report.filled_labels, report.unasked) == (4, 0, ("cat",), ())


def test_the_samples_rows_are_written_in_the_samples_order_where_it_speaks_of_the_soundscapes(tmp_path: Path) -> None:
    text = HEADER + "".join(f"{row},0.1,0.1,0.1,0.1\n" for row in ("b_10", "gone_5", "a_5", "b_5", "a_15"))
    scores = [("a.ogg", soundscape(0.5)), ("b.ogg", soundscape(0.25))]
    report = write_submission(tmp_path / "out.csv", read_sample(sampled(tmp_path, text)), scores, LABELS)
    table = pd.read_csv(tmp_path / "out.csv", index_col="row_id")
    assert list(table.index) == ["b_10", "gone_5", "a_5", "b_5", "a_15"]
    assert table["frog"].astype(np.float32).tolist() == np.array([0.29, 0.25, 0.5, 0.25, 0.25], np.float32).tolist()
    assert table.to_numpy()[[1, 4]].tolist() == [[0.25] * 4] * 2
    assert (report.rows, report.filled_rows, report.unasked) == (5, 2, ("a_10",))


def test_rows_are_there_and_finite_whatever_could_not_be_scored(tmp_path: Path) -> None:
    sample = read_sample(sampled(tmp_path))
    nothing = write_submission(tmp_path / "nothing.csv", sample, [], LABELS)
    assert (nothing.rows, nothing.filled_rows) == (3, 3)
    assert pd.read_csv(tmp_path / "nothing.csv").equals(pd.read_csv(sampled(tmp_path)))
    spoilt = soundscape(0.5)
    spoilt[1, 2] = np.nan  # of a label that is not even asked for
    report = write_submission(tmp_path / "spoilt.csv", sample, [("a.ogg", spoilt)], LABELS)
    table = pd.read_csv(tmp_path / "spoilt.csv", index_col="row_id")
    assert report.filled_rows == 1 and table.to_numpy()[1].tolist() == [0.25] * 4
    assert table.loc["a_5", "frog"] == 0.5 and bool(np.isfinite(table.to_numpy()).all())


@pytest.mark.parametrize("header", ["\ufeffrow_id,ani,bat\r\n", '"row_id","ani", bat\n', "row_id,ani,bat\n"])
def test_the_header_is_the_samples_byte_for_byte(tmp_path: Path, header: str) -> None:
    end = "\r\n" if header.endswith("\r\n") else "\n"
    sample = read_sample(sampled(tmp_path, f"{header}x_5,0.5,0.5{end}"))
    assert sample.labels == ("ani", "bat") and sample.row_ids == ("x_5",)
    write_submission(tmp_path / "out.csv", sample, [], LABELS)
    assert (tmp_path / "out.csv").read_bytes() == f"{header}x_5,0.5,0.5{end}".encode()


def test_probabilities_read_back_equal_as_float32(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    scores = (random.random((500, 4)) ** 9).astype(np.float32)
    scores[0] = [0.0, 1.0, np.float32(1e-45), np.nextafter(np.float32(1), np.float32(0))]
    sample = read_sample(sampled(tmp_path, "row_id,frog,ani,owl,bat\nx_5,0,0,0,0\n"))
    write_submission(tmp_path / "out.csv", sample, [("a.ogg", scores)], LABELS)
    read = pd.read_csv(tmp_path / "out.csv").drop(columns="row_id").to_numpy(np.float32)
    assert np.array_equal(read, scores)
    assert not np.array_equal(np.round(scores, 6), scores)  # six decimals would not do


def test_what_cannot_be_a_submission_is_refused(tmp_path: Path) -> None:
    sample, out = read_sample(sampled(tmp_path)), tmp_path / "out.csv"
    with pytest.raises(AssertionError, match="two recordings are called a"):
        write_submission(out, sample, [("x/a.ogg", soundscape(0)), ("y/a.ogg", soundscape(0))], LABELS)
    with pytest.raises(AssertionError, match="none of the model's labels"):
        write_submission(out, sample, [("a.ogg", soundscape(0))], ("w", "x", "y", "z"))
    with pytest.raises(AssertionError, match=r"a.ogg: \(2, 4\) scores of 2 labels"):
        write_submission(out, sample, [("a.ogg", soundscape(0))], LABELS[:2])
    with pytest.raises(AssertionError, match="wanted row_id, then labels"):
        read_sample(sampled(tmp_path, "ani,row_id\n0.5,x_5\n"))
    assert not out.exists()


@pytest.mark.skipif(not REAL_SAMPLE.is_file(), reason="../shared/birdclef2025 is not here")
def test_a_submission_is_laid_out_like_that_of_birdclef_2025(tmp_path: Path) -> None:
    sample = read_sample(REAL_SAMPLE)
    assert len(sample.labels) == 206 and all(row_id.startswith("soundscape_") for row_id in sample.row_ids)
    scores = np.random.default_rng(0).random((12, 206), np.float32)
    turned = scores[:, ::-1]  # a model whose labels stand in another order
    report = write_submission(tmp_path / "s.csv", sample, [("x/soundscape_42.ogg", turned)], sample.labels[::-1])
    assert (report.rows, report.filled_rows, report.filled_labels, report.unasked) == (12, 0, (), ())
    assert (tmp_path / "s.csv").read_bytes().split(b"\n")[0] == REAL_SAMPLE.read_bytes().split(b"\n")[0]
    ours, theirs = (pd.read_csv(path) for path in (tmp_path / "s.csv", REAL_SAMPLE))
    assert list(ours.columns) == list(theirs.columns) and not ours.isna().any().any()
    assert list(ours["row_id"]) == [f"soundscape_42_{5 * number}" for number in range(1, 13)]
    np.testing.assert_array_equal(ours[list(sample.labels)].to_numpy(np.float32), scores)


def soundscape(first: float) -> NDArray[np.float32]:
    """Two windows of four labels: first, first + 0.01, ..."""
    return (first + np.arange(8, dtype=np.float32).reshape(2, 4) / 100).astype(np.float32)


def sampled(place: Path, text: str = PUBLIC) -> Path:
    path = place / "sample_submission.csv"
    path.write_bytes(text.encode())
    return path
