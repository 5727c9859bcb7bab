"""Other people's classifiers: an ONNX file that takes waveforms, and a card with the facts that it does not say itself.

    card = read_card("perch-v2")                       # one that comes with us, or somebody's card.json
    scorer = open_with_card(Path("perch_v2.onnx"), card)

A card is JSON: {"name": "Perch 2.0", "license": "Apache-2.0", "sample_rate": 32000, "window_seconds": 5,
"activation": "softmax", "scores": "label", "labels": "labels.csv"}; docs/hub.md has every key. Those of public models
lie in serving/cards; each says where its facts are from, and what nobody has confirmed.

Reads    the card, and the file of labels beside the model or the card
"""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

import numpy as np
from numpy.typing import NDArray

from archive.lineages import Row, label_row, shipped, with_lineages
from config import HIGHEST_RATE, LOWEST_RATE, MOST_FRAMES, AudioSettings
from evaluation.calibration import Thresholds
from runtime.application import own_file, own_path
from runtime.cells import no_formula, write_sheet
from runtime.csvs import decoded_text, read_table
from runtime.digests import sha256
from runtime.files import read_json, write_json
from serving.foreign import EMBEDDINGS, ForeignFile, check_length, open_foreign, output_of
from serving.scorer import Scorer
from system import cores
from taxonomy import Taxonomy, build_taxonomy, table_rows

Activation = Literal["none", "sigmoid", "softmax"]
CARDS = "serving/cards"  # in this program
SHORTEST_WINDOW, LONGEST_WINDOW = 0.05, 60.0  # seconds
LABELS = "labels.csv"  # of a model with a new head
EXAMPLE = "docs/hub.md has an example"
SCORES = ("probabilities", "predictions", "scores", "logits", "label")  # what an output with them is usually called
COLUMNS = {  # what a table of labels may have, by what build_taxonomy calls it
    "label": "primary_label",
    "scientific": "scientific_name",
    "common": "common_name",
    "class": "class_name",
    "order": "order",
    "family": "family",
    "rank": "finest_rank",
}
Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class CardFacts:
    """The facts of one model; what stands here is what a card.json may say."""

    name: str
    license: str
    sample_rate: int  # Hz
    window_seconds: float
    activation: Activation  # what makes probabilities of its scores; none: they are probabilities
    labels: str | list[str]  # in the order of the scores: a file, or the labels themselves
    label_columns: dict[str, str] = field(default_factory=dict[str, str])  # of a table: what COLUMNS are called in it
    scores: str = ""  # the output with them
    embeddings: str = ""  # the output with those
    peak: float = 0.0  # the largest sample that a window is brought to; 0: windows stay as loud as they are
    lowest_hz: float = 0.0  # the band that it takes
    highest_hz: float = 0.0  # 0: half of the sample rate
    citation: str = ""
    url: str = ""  # where the model is to be had
    file: str = ""  # the ONNX file, of a repository with several
    sources: dict[str, str] = field(default_factory=dict[str, str])  # of each fact
    unconfirmed: list[str] = field(default_factory=list[str])  # in sentences


class Card(NamedTuple):
    """A card, and where it stands."""

    path: Path
    given: str  # what the user called it
    facts: CardFacts
    sha256: str
    ours: bool  # whether it comes with this program, under that name

    @property
    def said(self) -> dict[str, str]:
        """What travels in the run.json of all that is made with the model."""
        facts = self.facts
        found = {"name": facts.name, "license": facts.license, "citation": facts.citation, "url": facts.url}
        where = self.given if self.ours else str(self.path.resolve())
        return {**found, "card": where, "card_sha256": self.sha256}


def read_card(given: str) -> Card:
    """A card, by its path, or by its name where it comes with us.

    Errors: no such card, no JSON object, a key that is missing, unknown, or of another kind or range: a line each.
    """
    names, path = shipped_cards(), Path(given)
    ours = given in names and not path.is_file()
    path = own_path(f"{CARDS}/{given}.json") if ours else path
    assert path.is_file(), (
        f"no card {given}; give a card.json (docs/hub.md), or one that comes with us: {', '.join(names)}"
    )
    stored, known = read_json(path, EXAMPLE), {one.name: one for one in fields(CardFacts)}
    strange = sorted(set(stored) - set(known))
    assert not strange, f"{path} has the key {strange[0][:40]!r}; a card has {', '.join(known)}"
    needed = [name for name, one in known.items() if one.default is MISSING and one.default_factory is MISSING]
    lacking = [name for name in needed if name not in stored]
    assert not lacking, f"{path} does not say its {', '.join(lacking)}; {EXAMPLE}"
    for key, value in stored.items():
        wanted = str(known[key].type)
        assert is_of_kind(value, wanted), f"{path}: {key} is {str(value)[:40]!r}, wanted {wanted}; {EXAMPLE}"
    facts = CardFacts(**stored)
    check_facts(path, facts)
    return Card(path, given, facts, sha256(path), ours)


def shipped_cards() -> list[str]:
    """The names of the cards that come with this program."""
    return sorted(one.name.removesuffix(".json") for one in own_file(CARDS).iterdir() if one.name.endswith(".json"))


def is_of_kind(value: object, kind: str) -> bool:
    """Whether a value of a JSON file is of the kind that a field of CardFacts is annotated with."""
    if kind == "int":
        return type(value) is int
    if kind == "float":
        return type(value) in (int, float) and math.isfinite(cast(float, value))
    if kind == "dict[str, str]":
        return isinstance(value, dict) and all(isinstance(one, str) for one in cast(dict[str, object], value).values())
    words = isinstance(value, list) and all(isinstance(one, str) for one in cast(list[object], value))
    return words if kind == "list[str]" else isinstance(value, str) or ("list" in kind and words)


def check_facts(path: Path, facts: CardFacts) -> None:
    """Refuse facts that no model can have."""
    empty = [key for key in ("name", "license", "labels") if not getattr(facts, key)]
    assert not empty, f"{path}: {empty[0]} is empty; {EXAMPLE}"
    file = facts.labels if isinstance(facts.labels, str) else ""
    assert Path(file).name == file, f"{path}: labels {file[:40]!r}; give the name of a file beside the model, or a list"
    known, half = get_args(Activation), facts.sample_rate / 2
    assert facts.activation in known, f"{path}: activation {facts.activation[:40]!r}; one of {', '.join(known)}"
    assert LOWEST_RATE <= facts.sample_rate <= HIGHEST_RATE, (
        f"{path}: sample_rate {facts.sample_rate}; give Hz, {LOWEST_RATE} to {HIGHEST_RATE}"
    )
    assert SHORTEST_WINDOW <= facts.window_seconds <= LONGEST_WINDOW, (
        f"{path}: window_seconds {facts.window_seconds:g}; give {SHORTEST_WINDOW:g} to {LONGEST_WINDOW:g}"
    )
    assert 0 <= facts.peak <= 1, f"{path}: peak {facts.peak:g}; give a share of full scale, 0 to 1"
    assert 0 <= facts.lowest_hz < (facts.highest_hz or half) <= half, (
        f"{path}: lowest_hz {facts.lowest_hz:g} and highest_hz {facts.highest_hz:g}; give 0 to {half:g}, the lowest "
        "first"
    )
    strange = sorted(set(facts.label_columns) - set(COLUMNS))
    assert not strange, f"{path}: label_columns has {strange[0][:40]!r}; it may have {', '.join(COLUMNS)}"
    named = not facts.label_columns or {"label", "scientific"} & set(facts.label_columns)
    assert named, f"{path}: label_columns has neither label nor scientific; say which column names the animal"


def write_card(path: Path, card: Card, taxonomy: Taxonomy, embeddings: str) -> None:
    """The card of a model that got a new head (refit.py), and labels.csv beside it: what is not new is as it was.

    embeddings   what the file calls them
    """
    columns = ["primary_label", "scientific_name", "common_name", "class_name", "order", "family", "finest_rank"]
    rows = [[no_formula(row[column]) for column in columns] for row in table_rows(taxonomy)]
    write_sheet(path.with_name(LABELS), [columns, *rows])
    names = {name: column for name, column in COLUMNS.items() if column in columns}
    new = replace(card.facts, name=f"{card.facts.name}, with a head of refit.py", activation="none", labels=LABELS)
    new = replace(new, label_columns=names, scores="probabilities", embeddings=embeddings, file="", unconfirmed=[])
    write_json(path, asdict(new))


# --- the model ------------------------------------------------------------------------------------------------------


def open_with_card(path: Path, card: Card, threads: int = 0, species: bool = True) -> Scorer:
    """Open the file that a card is about.

    threads   contexts scored at a time, 0: as many as there are cores
    species   False: only what it makes of a window is wanted, its labels and scores are left alone
    Errors: those of `open_foreign`; a window, an output or a number of labels that is not the file's.
    """
    file, facts = open_foreign(path), card.facts
    check_length(file, facts.sample_rate, facts.window_seconds, f"sample_rate or window_seconds of {card.path}")
    scores = output_of(file, facts.scores, SCORES, f"scores of {card.path}") if species else ""
    embeddings = embeddings_output(file, facts, scores, card.path)
    taxonomy = taxonomy_of(card, file, scores) if species else Taxonomy((), (), (), (), ())
    hop = max(round(0.01 * facts.sample_rate), math.ceil(facts.window_seconds * facts.sample_rate / MOST_FRAMES))
    audio = AudioSettings(
        *(facts.sample_rate, facts.window_seconds, facts.window_seconds, hop / facts.sample_rate),
        fft=4,  # no picture is made of the sound here
        lowest_hz=facts.lowest_hz,
        highest_hz=facts.highest_hz,
    )
    return Scorer(
        ForeignNetwork(file, facts, scores, embeddings),
        path,
        audio,
        taxonomy,
        "as it came",
        False,
        file.sha256,
        Thresholds(),
        threads or cores(),
        "not asked",
        facts.name,
        provenance={"license": facts.license},
        card=card.said,
    )


def embeddings_output(file: ForeignFile, facts: CardFacts, scores: str, where: Path) -> str:
    """The output with embeddings: what the card calls it, or the one of a usual name, or the only one of (batch,
    values) beside the scores; "" where there is none."""
    if facts.embeddings:
        return output_of(file, facts.embeddings, (), f"embeddings of {where}")
    others = [output for output in file.session.get_outputs() if output.name != scores]
    likely = [one.name for one in others if one.name in EMBEDDINGS] or [o.name for o in others if len(o.shape) == 2]
    return likely[0] if len(likely) == 1 else ""


@dataclass(frozen=True)
class ForeignNetwork:
    """A file as scorer.py asks networks: (contexts, samples) -> probabilities and embeddings by name."""

    file: ForeignFile
    facts: CardFacts
    scores: str  # "" where none are wanted
    embeddings: str  # "" of a file that gives none

    def __call__(self, samples: Numbers) -> dict[str, Numbers]:
        names = {"probabilities": self.scores, "embeddings": self.embeddings}
        wanted = {name: output for name, output in names.items() if output}
        every = [self.file.ask(at_peak(one, self.facts.peak), list(wanted.values())) for one in samples]
        columns = [np.stack([answer.ravel() for answer in column]) for column in zip(*every, strict=True)]
        found = dict(zip(wanted, columns, strict=True))
        if self.scores:
            found["probabilities"] = activated(found["probabilities"], self.facts.activation)
        return found


def at_peak(samples: Numbers, peak: float) -> Numbers:
    """A window (samples,) brought to its largest sample; as it is for 0, or without any sound. That a window has no
    mean is true of every window that a network gets here (sounds/windows.py)."""
    largest = float(np.abs(samples).max())
    return samples * np.float32(peak / largest) if peak and largest else samples


def activated(scores: Numbers, activation: str) -> Numbers:
    """(windows, species) probabilities of scores."""
    if activation == "none":
        return scores
    wide = scores.astype(np.float64)
    if activation == "sigmoid":
        return np.exp(-np.logaddexp(0, -wide)).astype(np.float32)
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    found: Numbers = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return found


# --- labels ---------------------------------------------------------------------------------------------------------


def taxonomy_of(card: Card, file: ForeignFile, scores: str) -> Taxonomy:
    """The labels of a card, one for each score; their lineages as far as the table or this program knows them."""
    facts, path = card.facts, card.path
    if isinstance(facts.labels, list):
        rows = label_rows(facts.labels, str(path))
    else:
        beside = [folder / facts.labels for folder in (file.path.parent, path.parent)]
        path = next((one for one in beside if one.is_file()), path)
        assert path != card.path, f"no {facts.labels} beside {file.path}; copy it there: it has the labels of {path}"
        rows = column_rows(path, facts.label_columns) if facts.label_columns else label_rows(lines_of(path), str(path))
    width = file.session.get_outputs()[file.outputs.index(scores)].shape[-1:]
    count = width[0] if width and isinstance(width[0], int) else len(rows)
    assert rows and count == len(rows), f"{file.path} gives {count} scores, and {path} has {len(rows)} labels; one each"
    return build_taxonomy(with_lineages(rows, [shipped()])[0])


def lines_of(path: Path) -> list[str]:
    """The lines of a list, blank ones at its end left out."""
    lines = [line.strip() for line in decoded_text(path.read_bytes())[0].splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def label_rows(labels: Sequence[str], where: str) -> list[Row]:
    """Rows of a taxonomy for labels: `Genus species_Common name` as BirdNET has them, a scientific name, a code."""
    rows: list[Row] = []
    for number, label in enumerate(labels, 1):
        assert label.strip(), f"{where} line {number} is blank; give each score its label"
        scientific, _, common = label.partition("_")
        both = common and (" " in scientific or scientific == common)
        rows.append((f"{where} line {number}", label_row(scientific, "", common) if both else label_row(label)))
    return distinct(rows, labels)


def column_rows(path: Path, columns: Mapping[str, str]) -> list[Row]:
    """The same of a table with a row for each score; `columns`: what those of COLUMNS are called in it."""
    rows: list[Row] = []
    for where, cells in read_table(path, columns.values()):
        given = {COLUMNS[name]: cells[column] for name, column in columns.items()}
        label = given.get("primary_label") or given.get("scientific_name", "")
        assert label, f"{where}: no name; give each score its label"
        rows.append((where, given | label_row(label, given.get("scientific_name", ""), given.get("common_name", ""))))
    return distinct(rows, [f"{row['primary_label']}_{row['common_name']}" for _, row in rows])


def distinct(rows: Sequence[Row], longer: Sequence[str]) -> list[Row]:
    """Rows of which no label stands twice: such take a longer one."""
    times = Counter(row["primary_label"] for _, row in rows)
    return [
        (where, row | {"primary_label": more} if times[row["primary_label"]] > 1 else row)
        for (where, row), more in zip(rows, longer, strict=True)
    ]


if __name__ == "__main__":
    import onnx
    from onnx import TensorProto, helper

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "loudness.onnx"
        nodes = [
            helper.make_node("ReduceMax", ["input"], ["loudest"], axes=[1]),
            helper.make_node("ReduceMean", ["input"], ["level"], axes=[1]),
            helper.make_node("Concat", ["loudest", "level"], ["logits"], axis=1),
        ]
        given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 8_000])
        found = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
        graph = helper.make_graph(nodes, "loudness", [given], [found])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
        facts = {"name": "loudness", "license": "CC0-1.0", "sample_rate": 8_000, "window_seconds": 1, "peak": 1}
        facts |= {"activation": "sigmoid", "labels": ["Rana temporaria_Common Frog", "Engine_Engine"]}
        (Path(folder) / "card.json").write_text(json.dumps(facts))
        scorer = open_with_card(path, read_card(str(Path(folder) / "card.json")), threads=1)
        noise = np.random.default_rng(0).normal(0, 0.01, (1, 8_000)).astype(np.float32)
        noise[0, 99] = 0.5  # a click, which becomes 1
        answer = scorer.network(noise)["probabilities"]
    print(scorer.encoder, scorer.taxonomy.common_names, answer.round(3).tolist())
    assert scorer.taxonomy.labels[0] == "Rana temporaria" and abs(answer[0, 0] - 1 / (1 + np.exp(-1))) < 1e-6
