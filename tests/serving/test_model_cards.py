"""Somebody else's file answers here as it does by hand, window by window; what its card gets wrong is one line."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from foreign_models import (
    BARE,
    BIRDNET_2,
    BIRDNET_3,
    LONE,
    PERCH_2,
    PITCHES,
    by_hand,
    write_card,
    write_foreign,
    write_whistles,
)
from onnx import helper

from config import CountCommand, PredictCommand, RefitCommand, ReportCommand, SearchCommand, parse
from count import count
from predictor import predict
from refit import refit
from report import next_steps, settings_of
from search import search
from serving.model_cards import open_with_card, read_card, shipped_cards
from serving.results import read_results
from serving.vectors import open_store

SHAPES = {"birdnet-v2.4": BIRDNET_2, "birdnet-v3": BIRDNET_3, "perch-v2": PERCH_2, "bare": BARE, "lone": LONE}
LABELS = ["Leptodactylus insularum_San Miguel Island Frog", "Strix aluco_Tawny Owl", "Engine_Engine", "Ficta ficta"]
NAMES = ("Leptodactylus insularum", "Strix aluco", "Engine", "Ficta ficta")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def scored(model: Path, card: object, sound: Path, out: Path, *more: str) -> int:
    words = [str(sound), "--model", str(model), "--card", str(card), "--out", str(out), "--threads", "1", *more]
    return predict(parse(PredictCommand, words))


@pytest.mark.parametrize("name", SHAPES)
def test_a_file_answers_as_it_does_by_hand(name: str, tmp_path: Path) -> None:
    shape = SHAPES[name]
    model, sound = write_foreign(tmp_path / "m.onnx", shape), write_whistles(tmp_path / "a.wav", shape, 1100, 4000, 0)
    named = {"embeddings": shape.embeddings} if name == "lone" else {}  # of three axes: nobody could guess that
    card = write_card(tmp_path / "card.json", shape, LABELS, **named)
    more = ("--scores", "--embeddings", str(tmp_path / "vectors.npz"))
    assert scored(model, card, sound, tmp_path / "out", *more, "--batch_size", "2") == 0
    wanted, vectors = by_hand(model, sound, shape)
    table = rows(tmp_path / "out" / "scores.csv")
    given = np.array([[float(row[label]) for label in NAMES] for row in table])
    assert np.allclose(given, wanted, atol=1e-5) and given.shape == (3, 4)
    assert [(row["start"], row["end"]) for row in table][1] == (f"{shape.seconds:g}", f"{2 * shape.seconds:g}")
    assert wanted[0].argmax() == 1 and wanted[1].argmax() == 3 and wanted[2].max() < 0.3  # control: it is no constant
    with np.load(tmp_path / "vectors.npz") as found:
        assert np.allclose(found["embedding"], vectors, rtol=1e-4) and found["embedding"].shape == vectors.shape


def test_the_tables_name_its_species_and_the_run_its_licence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_foreign(tmp_path / "m.onnx", BIRDNET_2)
    sound = write_whistles(tmp_path / "pond" / "a.wav", BIRDNET_2, 400, 1100)
    card = write_card(tmp_path / "card.json", BIRDNET_2, LABELS, highest_hz=15_000)
    assert scored(model, card, sound.parent, tmp_path / "out", "--min_conf", "0.5") == 0
    found = [
        (row["Scientific name"], row["Common name"], row["Start (s)"]) for row in rows(tmp_path / "out/detections.csv")
    ]
    assert found == [("Leptodactylus insularum", "San Miguel Island Frog", "0"), ("Strix aluco", "Tawny Owl", "3")]
    facts = json.loads((tmp_path / "out" / "run.json").read_text())
    said = {"name": "whistles", "license": "CC-BY-NC-4.0", "citation": "Whistler 2026", "card": str(card)}
    assert said.items() <= facts["model_cards"][0].items() and facts["band_hz"] == [0, 15_000]
    printed = capsys.readouterr().out
    assert "licence of whistles: CC-BY-NC-4.0. Whistler 2026" in printed and "unverified" not in printed
    results = read_results(tmp_path / "out")
    command = parse(ReportCommand, [str(tmp_path / "out")])
    assert ("licence of the model", "CC-BY-NC-4.0") in settings_of(results, command)
    assert f"--card {card}" in next_steps(command, results, tmp_path / "out" / "review")[0]
    assert count(parse(CountCommand, [str(tmp_path / "out")])) == 0
    counted = {row["scientific_name"] for row in rows(tmp_path / "out" / "counts" / "counts.csv")}
    assert counted >= {"Leptodactylus insularum", "Strix aluco"}


def test_another_card_is_another_setting_and_the_same_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, sound = write_foreign(tmp_path / "m.onnx", LONE), write_whistles(tmp_path / "s" / "a.wav", LONE, 400)
    card = write_card(tmp_path / "card.json", LONE, LABELS)
    assert scored(model, card, sound.parent, tmp_path / "out") == 0
    assert scored(model, card, sound.parent, tmp_path / "out") == 0
    assert "1 of 1 recordings are done already" in capsys.readouterr().out
    write_card(card, LONE, LABELS, peak=0.5)
    with pytest.raises(AssertionError, match="other settings"):
        scored(model, card, sound.parent, tmp_path / "out")


# --- labels ---------------------------------------------------------------------------------------------------------


def taxonomy_of(folder: Path, labels: object, **more: object) -> list[tuple[str, str, str, str]]:
    """Label, common name, order and family of each score."""
    model, card = write_foreign(folder / "m.onnx", BARE), write_card(folder / "card.json", BARE, labels, **more)
    names = open_with_card(model, read_card(str(card)), threads=1).taxonomy
    lineages = [(lineage[3], lineage[4]) for lineage in names.lineages]
    return [(a, b, *c) for a, b, c in zip(names.labels, names.common_names, lineages, strict=True)]


def test_labels_of_three_habits_are_names_with_a_lineage_where_it_is_known(tmp_path: Path) -> None:
    frog = ("Leptodactylus insularum", "San Miguel Island Frog", "Anura", "Leptodactylidae")
    found = taxonomy_of(tmp_path, LABELS)
    assert found[0] == frog and found[2][:2] == ("Engine", "Engine")
    assert found[3] == ("Ficta ficta", "Ficta ficta", "?order of Ficta", "?family of Ficta")  # control: not known here
    (tmp_path / "labels.txt").write_text("\n".join(["126247", *LABELS[1:], "", ""]), encoding="utf-8")
    (code, *rest), *_ = taxonomy_of(tmp_path, "labels.txt")  # a code of BirdCLEF's
    assert code == "126247" and rest[1:] == ["Anura", "Leptodactylidae"]
    table = "idx;sci_name;com_name;class;order\n0;Leptodactylus insularum;San Miguel Island Frog;Amphibia;Anura\n"
    table += "1;Morus bassanus;Northern Gannet;Aves;Suliformes\n2;Morus bassanus;a second one;Aves;\n3;Nox;Nox;Aves;\n"
    (tmp_path / "l.csv").write_text(f"\ufeff{table}", encoding="utf-8")
    columns = {"scientific": "sci_name", "common": "com_name", "class": "class", "order": "order"}
    found = taxonomy_of(tmp_path, "l.csv", label_columns=columns)
    assert found[0] == frog and found[1][2] == "Suliformes"
    assert [one[0] for one in found[1:3]] == ["Morus bassanus_Northern Gannet", "Morus bassanus_a second one"]


def test_labels_lie_beside_the_model_or_the_card_and_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "cards").mkdir()
    model = write_foreign(tmp_path / "m.onnx", BARE)
    card = write_card(tmp_path / "cards" / "card.json", BARE, "labels.txt")
    with pytest.raises(AssertionError, match=r"no labels\.txt beside"):
        open_with_card(model, read_card(str(card)), threads=1)
    (tmp_path / "cards" / "labels.txt").write_text("a\nb\nc\nd\n")
    assert open_with_card(model, read_card(str(card)), threads=1).taxonomy.labels == ("a", "b", "c", "d")
    (tmp_path / "labels.txt").write_text("e\nf\ng\nh\n")
    assert open_with_card(model, read_card(str(card)), threads=1).taxonomy.labels == ("e", "f", "g", "h")
    with pytest.raises(AssertionError, match="name of a file beside"):
        read_card(str(write_card(card, BARE, "../../etc/passwd")))


# --- what is refused ------------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, object], str]] = {
    "an unknown key": ({"sampel_rate": 1}, "has the key 'sampel_rate'"),
    "a rate that is no whole number": ({"sample_rate": "16 kHz"}, "sample_rate is '16 kHz', wanted int"),
    "a window that is not the file's": ({"window_seconds": 3.0}, r"takes 32000 samples at a time, 2 s at 16000 Hz"),
    "an activation that nobody knows": ({"activation": "relu"}, "one of none, sigmoid, softmax"),
    "an output that it lacks": (
        {"scores": "label"},
        r"has no output 'label'; scores of .* one of \['vector', 'logits'\]",
    ),
    "too few labels": ({"labels": ["a"]}, r"gives 4 scores, and .* has 1 labels"),
    "a label twice": ({"labels": ["a", "a", "b", "c"]}, "occur more than once"),
    "a blank label": ({"labels": ["a", " ", "b", "c"]}, "line 2 is blank"),
    "a band above its rate": ({"highest_hz": 15_000}, "give 0 to 8000"),
    "no licence": ({"license": ""}, "license is empty"),
    "columns of nothing": ({"labels": "l.csv", "label_columns": {"common": "x"}}, "neither label nor scientific"),
    "NaN": ({"peak": float("nan")}, "peak is 'nan', wanted float"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_card_that_is_wrong_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    model = write_foreign(tmp_path / "m.onnx", BARE)
    more, said = dict(WRONG[name][0]), WRONG[name][1]
    card = write_card(tmp_path / "card.json", BARE, LABELS)
    open_with_card(model, read_card(str(card)), threads=1)  # negative control
    write_card(card, BARE, more.pop("labels", LABELS), **more)
    with pytest.raises(AssertionError, match=said) as refusal:
        open_with_card(model, read_card(str(card)), threads=1)
    assert "\n" not in str(refusal.value)


def test_a_card_that_is_none_and_one_that_lacks_a_fact_are_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    for content, said in (
        ("[1]", "holds no JSON object"),
        ("{", "no JSON"),
        ("{}", "does not say its name, license, sample_rate"),
    ):
        path.write_text(content)
        with pytest.raises(AssertionError, match=said) as refusal:
            read_card(str(path))
        assert "\n" not in str(refusal.value)
    with pytest.raises(AssertionError, match=r"no card nobody.*birdnet-v2\.4, birdnet-v3, perch-v2"):
        read_card("nobody")


def test_logits_taken_for_probabilities_are_found_out(tmp_path: Path) -> None:
    model, sound = write_foreign(tmp_path / "m.onnx", BARE), write_whistles(tmp_path / "a.wav", BARE, 400)
    card = write_card(tmp_path / "card.json", BARE, LABELS, activation="none")
    with pytest.raises(AssertionError, match=r"between -\d.*is the activation in the card"):
        scored(model, card, sound, tmp_path / "out")


def test_a_dangerous_graph_and_another_engine_are_refused(tmp_path: Path) -> None:
    loop = helper.make_node("Loop", ["", ""], ["x"])
    card = read_card(str(write_card(tmp_path / "card.json", BARE, LABELS)))
    with pytest.raises(AssertionError, match="'Loop'"):
        open_with_card(write_foreign(tmp_path / "m.onnx", BARE, extra=[loop]), card)
    sound = write_whistles(tmp_path / "a.wav", BARE, 400)
    with pytest.raises(AssertionError, match="leave it out with --card"):
        scored(
            write_foreign(tmp_path / "m.onnx", BARE),
            tmp_path / "card.json",
            sound,
            tmp_path / "out",
            "--engine",
            "openvino",
        )
    with pytest.raises(AssertionError, match=r"of another origin.*--card"):  # nobody says what it takes
        predict(parse(PredictCommand, [str(sound), "--model", str(tmp_path / "m.onnx")]))


# --- the cards that come with us ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped_cards())
def test_every_fact_of_a_card_that_comes_with_us_has_a_source_or_is_said_to_be_unconfirmed(name: str) -> None:
    facts = json.loads(read_card(name).path.read_text())
    sources, unconfirmed = facts.pop("sources"), facts.pop("unconfirmed")
    known = {key for keys in sources for key in keys.split(", ")} | {line.partition(":")[0] for line in unconfirmed}
    assert facts.keys() - known == set() and all(re.match(r"https://\S+$", url) for url in sources.values())
    assert not known - facts.keys() - {line.partition(":")[0] for line in unconfirmed}


@pytest.mark.parametrize("name", ["birdnet-v2.4", "birdnet-v3", "perch-v2"])
def test_a_card_that_comes_with_us_opens_a_file_of_the_shape_it_describes(name: str, tmp_path: Path) -> None:
    card, shape = read_card(name), SHAPES[name]
    columns = card.facts.label_columns
    lines = [";".join(columns.values()), *(";".join([label, *["Aves"] * (len(columns) - 1)]) for label in NAMES)]
    (tmp_path / str(card.facts.labels)).write_text("\n".join(lines[not columns :]), encoding="utf-8")
    scorer = open_with_card(write_foreign(tmp_path / card.facts.file, shape, name == "birdnet-v3"), card, threads=1)
    assert (scorer.audio.sample_rate, scorer.audio.window_seconds) == (shape.rate, shape.seconds)
    assert scorer.taxonomy.labels == NAMES and scorer.provenance == {"license": card.facts.license}
    answer = scorer.network(np.random.default_rng(0).normal(0, 0.1, (2, shape.samples)).astype(np.float32))
    assert answer["probabilities"].shape == (2, 4) and ("embeddings" in answer) == bool(shape.embeddings)
    assert np.allclose(answer["probabilities"].sum(axis=1), 1) == (name == "perch-v2")


# --- search, and a head of one's own --------------------------------------------------------------------------------

CALLS = {"pond/a.wav": (1100, 2600, 400), "pond/b.wav": (4000, 1100, 2600), "ridge/c.wav": (2600, 400, 1100)}


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """An index with a file in the shape of Perch 2."""
    for name, pitches in CALLS.items():
        write_whistles(tmp_path / "season" / name, PERCH_2, *pitches)
    model, card = write_foreign(tmp_path / "m.onnx", PERCH_2), write_card(tmp_path / "card.json", PERCH_2, "gone.txt")
    words = [
        "index",
        tmp_path / "season",
        "--index",
        tmp_path / "index",
        "--model",
        model,
        "--card",
        card,
        "--threads",
        "1",
    ]
    assert search(parse(SearchCommand, list(map(str, words)))) == 0
    return tmp_path / "index"


def test_an_index_needs_no_labels_and_finds_what_is_alike(index: Path, tmp_path: Path) -> None:
    assert open_store(index).vectors.shape == (9, len(PITCHES))
    call = write_whistles(tmp_path / "call.wav", PERCH_2, 2600)
    assert search(parse(SearchCommand, ["query", str(index), str(call), "--most", "3", "--threads", "1"])) == 0
    found = rows(index / "like-call" / "detections.csv")
    assert {("/".join(Path(row["File"]).parts[-2:]), row["Start (s)"]) for row in found} == {
        ("pond/a.wav", "5"), ("pond/b.wav", "10"), ("ridge/c.wav", "0"),
    }  # fmt: skip
    facts = json.loads((index / "like-call" / "run.json").read_text())
    assert facts["model_cards"][0]["license"] == "CC-BY-NC-4.0"
    write_card(tmp_path / "card.json", PERCH_2, "gone.txt", peak=0.5)
    with pytest.raises(AssertionError, match="is not the one that the index was made with"):
        search(parse(SearchCommand, ["query", str(index), str(call)]))


def test_verdicts_give_somebody_elses_file_a_head_of_ones_own(
    index: Path, tmp_path: Path, verdict_rows: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    table = verdict_rows(index)
    out = tmp_path / "out"
    assert refit(parse(RefitCommand, [str(index), str(table), "--out", str(out), "--next", "0"])) == 0
    assert f"--card {out / 'card.json'}" in capsys.readouterr().out
    more = ("--thresholds", str(out / "thresholds.csv"))
    assert scored(out / "classifier.onnx", out / "card.json", tmp_path / "season", tmp_path / "new", *more) == 0
    found = {
        ("/".join(Path(row["File"]).parts[-2:]), row["Species code"], row["Start (s)"])
        for row in rows(tmp_path / "new/detections.csv")
    }
    assert found == {
        ("/".join(Path(name).parts), label, f"{5 * window}")
        for name, pitches in CALLS.items()
        for window, heard in enumerate(pitches)
        for label, pitch in (("frog", 1100), ("toad", 2600))
        if heard == pitch
    }
    card = json.loads((out / "card.json").read_text())
    assert card["license"] == "CC-BY-NC-4.0" and card["peak"] == PERCH_2.peak and card["embeddings"] == "embedding"
    with pytest.raises(AssertionError, match="--beside"):
        refit(parse(RefitCommand, [str(index), str(table), "--out", str(out), "--beside"]))


@pytest.fixture
def verdict_rows(tmp_path: Path) -> Callable[[Path], Path]:
    """Somebody who listened to every window of an index."""

    def write(index: Path) -> Path:
        columns = ("Start (s)", "End (s)", "Scientific name", "Common name", "Confidence", "File", "Species code")
        with (tmp_path / "validation.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow([*columns, "Verdict", "True species"])
            for name in (row["file"] for row in rows(index / "files.csv")):
                for window, heard in enumerate(CALLS["/".join(Path(name).parts[-2:])]):
                    for label, pitch in (("frog", 1100), ("toad", 2600)):
                        answer = "yes" if heard == pitch else "no"
                        table.writerow([5 * window, 5 * window + 5, "", label, 0.5, name, label, answer, ""])
        return tmp_path / "validation.csv"

    return write
