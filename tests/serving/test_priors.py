"""Priors: what is likely where and when moves a score by its logit, deletes nothing, and bad tables are refused."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit

from serving.inputs import Entry
from serving.priors import LEAST, kilometres, read_prior
from taxonomy import Taxonomy

KIN = ("Animalia", "Chordata", "Amphibia", "Anura", "Fictidae", "Rana")
FROGS = Taxonomy(("41", "42"), ("Rana ficta", "Rana falsa"), ("frog", "toad"), ((*KIN, "a"), (*KIN, "b")), (7, 7))
MAY, JULY = "2026-05-14T05:30:00", "2026-07-14"  # ISO weeks 20 and 29


def shifts(table: str, entry: Entry, tmp_path: Path, weight: float = 1.0) -> list[float]:
    """The prior that each species gets of a table, as a probability; .5 is none."""
    path = tmp_path / "prior.csv"
    path.write_text(table)
    found: list[float] = expit(read_prior(path, FROGS, weight).shift_at(entry)).round(6).tolist()
    return found


def test_a_prior_is_added_as_a_logit_with_its_weight(tmp_path: Path) -> None:
    path = tmp_path / "prior.csv"
    path.write_text("species,probability\nfrog,0.2\n")
    scores = np.array([[0.9, 0.9], [0.01, 0.01]], np.float32)
    found = read_prior(path, FROGS, 0.5).applied(scores, Entry(Path("a.wav")))
    assert np.allclose(found[:, 0], expit(logit(scores[:, 0].astype(np.float64)) + 0.5 * logit(np.array(0.2))))
    assert np.array_equal(found[:, 1], scores[:, 1])  # without a row it keeps its score
    assert np.array_equal(scores, np.array([[0.9, 0.9], [0.01, 0.01]], np.float32))


def test_a_prior_of_one_half_changes_nothing_and_none_deletes_a_species(tmp_path: Path) -> None:
    assert shifts("species,probability\nfrog,0.5\ntoad,0\n", Entry(Path("a")), tmp_path) == [0.5, LEAST]
    assert shifts("species,probability\nfrog,1\n", Entry(Path("a")), tmp_path) == [1 - LEAST, 0.5]


def test_the_place_goes_before_anywhere_and_the_week_before_any_week(tmp_path: Path) -> None:
    table = "site,week,species,probability\n,,frog,0.1\n,20,frog,0.2\npond,,frog,0.3\npond,20,frog,0.4\n"
    for site, when, wanted in (("", "", 0.1), ("hill", MAY, 0.2), ("pond", JULY, 0.3), ("pond", MAY, 0.4)):
        assert shifts(table, Entry(Path("a"), site, when), tmp_path)[0] == wanted
    assert shifts(table, Entry(Path("a"), "pond", ""), tmp_path)[0] == 0.3  # no time: what is said of any week


def test_the_nearest_place_counts_if_it_is_near(tmp_path: Path) -> None:
    table = "latitude,longitude,species,probability\n47.0,8.0,frog,0.3\n47.5,8.0,frog,0.7\n"
    for latitude, wanted in (("47.1", 0.3), ("47.4", 0.7), ("48.3", 0.7), ("48.5", 0.5)):  # 89 km, 111 km
        entry = Entry(Path("a"), latitude=latitude, longitude="8.0")
        assert shifts(table, entry, tmp_path)[0] == wanted
    assert shifts(table, Entry(Path("a")), tmp_path)[0] == 0.5


def test_distances_are_along_great_circles() -> None:
    assert kilometres((0.0, 0.0), (0.0, 90.0)) == pytest.approx(6371.0 * np.pi / 2)
    assert kilometres((52.52, 13.405), (48.137, 11.575)) == pytest.approx(504, abs=2)  # Berlin, Munich
    assert kilometres((0.0, 179.9), (0.0, -179.9)) == pytest.approx(22.2, abs=0.1)


def test_what_the_table_is_about_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shifts("site,species,probability\npond,Rana ficta,0.2\nhill,unicorn,0.2\n", Entry(Path("a")), tmp_path, 2.0)
    assert "priors of 1 of 2 species at 1 place, weight 2; not in the model: unicorn" in capsys.readouterr().out


def test_a_table_without_a_row_for_any_recording_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "prior.csv"
    entries = [Entry(Path("a"), "pond", MAY), Entry(Path("b"), "hill", latitude="47.0", longitude="8.0")]
    for head, row in (("site", "Pond"), ("week", "29"), ("latitude,longitude", "49,8"), ("site,week", "hill,20")):
        path.write_text(f"{head},species,probability\n{row},frog,0.2\n")
        with pytest.raises(AssertionError, match=r"no row for any of 2 recordings.* theirs are hill, pond; 1 say when"):
            read_prior(path, FROGS, 1.0).refuse_idle(entries)
    for head, row in (("site", "pond"), ("week", "20"), ("latitude,longitude", "47.1,8"), ("site,week", "pond,20")):
        path.write_text(f"{head},species,probability\n{row},frog,0.5\n")
        read_prior(path, FROGS, 1.0).refuse_idle(entries)
        assert "priors are known for 1 of 2 recordings" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("species\nfrog\n", r"no columns \['probability'\]"),
        ("species,probability\nfrog,often\n", r"line 2: probability 'often'; write a number from 0 to 1"),
        ("species,probability\nfrog,1.2\n", r"probability '1.2'"),
        ("species,probability\nfrog,nan\n", r"probability 'nan'"),
        ("week,species,probability\n54,frog,0.2\n", r"week '54'; write a number from 1 to 53"),
        ("week,species,probability\n1.5,frog,0.2\n", r"week '1.5'; write a whole number"),
        ("latitude,species,probability\n47,frog,0.2\n", r"latitude and longitude go together"),
        ("latitude,longitude,species,probability\n97,8,frog,0.2\n", r"latitude '97'"),
        ("site,latitude,longitude,species,probability\na,4,8,frog,0.2\n", r"give a site, or latitude"),
        ("species,probability\nfrog,0.2\nRana ficta,0.3\n", r"line 3: Rana ficta has a row"),
        ("species,probability\nunicorn,0.2\n", r"none of its species is one of the model's"),
    ],
)
def test_bad_tables_are_refused_in_a_line(table: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=said):
        shifts(table, Entry(Path("a")), tmp_path)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_is_a_number_from_0_on(weight: float, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="--prior_weight"):
        shifts("species,probability\nfrog,0.2\n", Entry(Path("a")), tmp_path, weight)
    assert shifts("species,probability\nfrog,0.2\n", Entry(Path("a")), tmp_path, 0.0) == [0.5, 0.5]  # control
