"""What is written of a journal: what the flags ask for and no more, a row for every recording."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from config import AudioSettings, PredictCommand, part_of
from evaluation.calibration import Thresholds
from serving.contexts import SoundSettings
from serving.detections import Analysed, Detection, Scored
from serving.inputs import Entry
from serving.journal import open_journal
from serving.outputs import TableSettings, check_ledger, write_outputs
from serving.scorer import METADATA, Scorer
from serving.tallies import Totals
from taxonomy import Taxonomy

NAMES = Taxonomy(("41",), ("Rana ficta",), ("frog",), (("a", "b", "c", "d", "e", "f", "g"),), (7,))
SCORER = Scorer(lambda _: {}, Path("toy"), AudioSettings(), NAMES, "float32", True, "", Thresholds(), 1, "")
ENTRIES = [Entry(Path("pond/a.wav")), Entry(Path("pond/b.wav"))]


def written(
    folder: Path, tables: TableSettings, sound: SoundSettings | None = None, scorer: Scorer = SCORER
) -> tuple[list[str], Totals]:
    """The names of what is written of two recordings, each with two windows that touch, and what they came to."""
    frogs = tuple(Detection(at, at + 5, "41", "Rana ficta", "frog", 0.75, 0.5) for at in (0.0, 5.0))
    score = np.array([[0.75], [0.75]], np.float32)
    totals = Totals()
    with open_journal(folder, {}, tables.arrays) as journal:
        for entry in ENTRIES:
            pond = Analysed(str(entry.path), "pond", "", 16_000, 1, 10.0, 10.0, 2, "ok", "", 0, 0, frogs)
            journal.save(entry, pond, [Scored([0.0, 5.0], [5.0, 10.0], score, score, 1)])
        paths = write_outputs(folder, ENTRIES, journal, scorer, sound or SoundSettings(), tables, totals)
    assert all(path.is_file() for path in paths)
    return [path.name for path in paths], totals


def test_nothing_but_what_is_asked_for_is_written(tmp_path: Path) -> None:
    names, totals = written(tmp_path, TableSettings(rtype=("csv",)))
    assert names == ["files.csv", "detections.csv"] and (totals.statuses, totals.detections) == ({"ok": 2}, 4)
    assert written(tmp_path / "none", TableSettings(rtype=()))[0] == ["files.csv"]


def test_neighbouring_windows_are_joined_on_request(tmp_path: Path) -> None:
    assert "events.csv" in written(tmp_path, TableSettings(rtype=(), merge_gap=0.0))[0]
    assert len((tmp_path / "events.csv").read_text().splitlines()) == 1 + 2


def test_scores_and_embeddings_have_a_row_for_every_window_and_a_channel_where_there_are_several(
    tmp_path: Path,
) -> None:
    tables = TableSettings(rtype=(), scores=True, embeddings=tmp_path / "vectors.csv")
    assert written(tmp_path / "mean", tables)[0] == ["files.csv", "scores.csv", "vectors.csv"]
    assert (tmp_path / "mean/scores.csv").read_text().splitlines()[:2] == ["file,start,end,41", "pond/a.wav,0,5,0.75"]
    assert len((tmp_path / "vectors.csv").read_text().splitlines()) == 1 + 4
    written(tmp_path / "each", tables, SoundSettings(channel="each"))
    assert (tmp_path / "each/scores.csv").read_text().splitlines()[0] == "file,start,end,channel,41"


def test_embeddings_hold_the_terms_of_the_model_that_made_them(tmp_path: Path) -> None:
    card = {"name": "BirdNET 2.4", "license": "CC BY-NC-SA 4.0"}
    for said, name in (({}, "toy"), (card, "BirdNET 2.4")):
        scorer = replace(SCORER, provenance={"license": "CC BY-NC-SA 4.0"}, card=said)
        written(tmp_path / name, TableSettings(rtype=(), embeddings=tmp_path / "vectors.npz"), scorer=scorer)
        with np.load(tmp_path / "vectors.npz", allow_pickle=False) as found:
            assert found["model"].item() == name
            assert json.loads(found[METADATA].item()) == {"provenance": {"license": "CC BY-NC-SA 4.0"}}


def test_a_recording_that_is_missing_twice_there_or_out_of_order_is_noticed(tmp_path: Path) -> None:
    files = tmp_path / "files.csv"
    files.write_text("file\npond/a.wav\npond/b.wav\n")
    check_ledger(files, ENTRIES)
    for names in (["a"], ["a", "b", "b"], ["b", "a"], ["a", "c"]):
        files.write_text("\n".join(["file", *(f"pond/{name}.wav" for name in names), ""]))
        with pytest.raises(AssertionError, match=r"should name .* the same command once more mends that"):
            check_ledger(files, ENTRIES)


def test_tables_take_the_flags_of_their_own_names_and_refuse_those_that_make_no_sense() -> None:
    config = PredictCommand((), bom=True, merge_gap=3.0, scores=True)
    assert part_of(TableSettings, config) == TableSettings(bom=True, merge_gap=3.0, scores=True)
    assert part_of(TableSettings, config).arrays and not TableSettings().arrays
    with pytest.raises(AssertionError, match=r"^--merge_gap -1"):
        TableSettings(merge_gap=-1.0)
    with pytest.raises(AssertionError, match=r"^--split_tables"):
        TableSettings(rtype=("csv",), split_tables=True)
