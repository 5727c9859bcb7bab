"""A classifier as a folder that the hub understands: model card, labels, weights; nothing in it names this machine.

    written = write_folder(folder, classifier, onnx_path, scores, settings, repository)

Writes   README.md (the model card, with front matter in YAML), config.json and model.safetensors (the encoder, for
         transformers), classifier.safetensors, classifier.int8.onnx, labels.csv

What a run knows of its origin is let through by name, never the other way round: what nobody thought of stays here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import onnx

from archive.licences import handed_on, licence_note, teachers_of
from evaluation.calibration import Threshold
from model import BirdClefClassifier, Encoder
from runtime.cells import bare, no_formula, write_sheet
from runtime.files import publish, read_json, scratch, sweep, write_json
from serving.new_heads import write_copy
from serving.scorer import provenance_of, read_facts
from taxonomy import CLASS, FAMILY, ORDER, Taxonomy, from_json, table_rows
from training.checkpoint import ClassifierFacts, save_classifier, save_encoder

CARD, CLASSIFIER, LABELS = "README.md", "classifier.safetensors", "labels.csv"
KEPT = (  # of provenance: figures, terms, and marks of sounds, by which nobody takes for held out what was learnt from
    *("held_out_fold", "epoch", "sound", "seed", "temperature", "held_out", "licenses", "license"),
    *("alarms_per_hour", "trained_on"),
)
OPENAI = re.compile(r"openai/whisper-[\w.-]+")  # any other name could be a folder here
MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~&$@])")
FIGURES = {"macro_auc": "macro AUC", "cmap": "cmAP (class-mean average precision)", "top1": "top-1 accuracy"}
MOST_SPECIES = 300  # rows of the card's table; labels.csv has all
Json = dict[str, Any]


class Story(NamedTuple):
    """What the card says beside the classifier's own facts."""

    repository: str  # owner/name; "" where nobody said
    license: str
    scores: Mapping[str, float]  # of the held-out recordings, with _low and _high where intervals are known
    seconds: float  # of training; 0: not known
    watts: float  # that the machine drew meanwhile; 0: not measured


def write_folder(
    folder: Path, model: BirdClefClassifier, facts: ClassifierFacts, onnx_path: Path | None, story: Story
) -> list[Path]:
    """All files; returns them."""
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    private = secrets(facts.provenance)
    clean = replace(facts, provenance=public_provenance(facts.provenance, story.license))
    save_classifier(folder / CLASSIFIER, model, clean)
    write_json(folder / "config.json", write_encoder(folder, model, clean) | {"wild_whisper": own_config(clean)})
    write_labels(folder / LABELS, clean.taxonomy)
    written = [folder / name for name in (CARD, "config.json", LABELS, CLASSIFIER)]
    written += [folder / "model.safetensors"] if isinstance(model.encoder, Encoder) else []
    if onnx_path:
        written += write_onnx(folder / onnx_path.name, onnx_path, story.license)
    with publish(folder / CARD) as temporary:
        temporary.write_text(model_card(clean, onnx_path.name if onnx_path else "", story), encoding="utf-8")
    refuse_leaks(written, private)
    return written


def public_provenance(provenance: Mapping[str, object], license_name: str) -> dict[str, object]:
    """What may be said of a training to everybody: no path, no name of a run, no weights but OpenAI's by name."""
    found = {name: provenance[name] for name in KEPT if name in provenance}
    weights = str(provenance.get("encoder", ""))
    found["encoder"] = weights if weights == "random" or OPENAI.fullmatch(weights) else "an encoder of its own"
    same = provenance.get("license") == license_name  # else somebody published it before, on other terms
    helpers = teachers_of(provenance) if same else handed_on(provenance, "an earlier publication of it")
    found["teachers"] = [{key: one[key] for key in ("name", "license", "sha256") if key in one} for one in helpers]
    return found | ({"license": license_name} if license_name else {})


def secrets(provenance: Mapping[str, object]) -> list[str]:
    """Texts that must be in no file: folders of this machine, and what the training says of its recordings."""
    data = Path(str(provenance.get("data", "")))
    every = {str(Path.home()), str(Path.cwd()), str(data) if data.is_absolute() else "", str(data.resolve())}
    return sorted(one for one in every if len(one) > len("/tmp") and one.count("/") > 0)


def refuse_leaks(paths: Sequence[Path], private: Sequence[str]) -> None:
    """Look through every byte that would be pushed: what was overlooked above is found here."""
    for path in paths:
        content = path.read_bytes()
        found = [text for text in private if text.encode() in content]
        assert not found, f"{path} holds {found[0]}, a folder of this machine; nothing is pushed: please report this"


def write_encoder(folder: Path, model: BirdClefClassifier, facts: ClassifierFacts) -> Json:
    """model.safetensors, as transformers names its tensors, and what its config.json says; nothing of other kinds."""
    if not isinstance(model.encoder, Encoder):
        return {}
    with scratch(folder, "publish") as temporary_folder:
        save_encoder(temporary_folder / "encoder.safetensors", model.encoder, facts.size, facts.audio, facts.provenance)
        with publish(folder / "model.safetensors") as temporary:
            (temporary_folder / "whisper" / "model.safetensors").replace(temporary)
        return read_json(temporary_folder / "whisper" / "config.json", "publish again")


def own_config(facts: ClassifierFacts) -> Json:
    """What config.json says beside the encoder's dimensions."""
    return {
        "encoder": facts.words,
        "audio": asdict(facts.audio),
        "species": len(facts.taxonomy.labels),
        "labels": LABELS,
        "classifier": CLASSIFIER,
    }


def write_labels(path: Path, taxonomy: Taxonomy) -> None:
    """labels.csv: a row for each species, in the order of the probabilities, with its lineage."""
    rows = table_rows(taxonomy)
    write_sheet(path, [list(rows[0]), *([no_formula(cell) for cell in row.values()] for row in rows)])


def write_onnx(path: Path, source: Path, license_name: str) -> list[Path]:
    """The ONNX file without what it says of this machine; returns it and its weights, where they lie beside it."""
    graph = onnx.load(source, load_external_data=False)
    facts = read_facts({entry.key: entry.value for entry in graph.metadata_props}, source)
    facts |= {"provenance": public_provenance(provenance_of(facts), license_name)}
    write_copy(source, path, graph, facts)
    return [path, *path.parent.glob(f"{path.name}.*.data")]


def is_of(onnx_path: Path, facts: ClassifierFacts) -> bool:
    """Whether an ONNX file was made of a classifier: both say the same of its training and its species."""
    graph = onnx.load(onnx_path, load_external_data=False)
    said = read_facts({entry.key: entry.value for entry in graph.metadata_props}, onnx_path)
    same = json.dumps(provenance_of(said), sort_keys=True) == json.dumps(facts.provenance, sort_keys=True)
    return same and from_json(said["taxonomy"]) == facts.taxonomy


# --- the model card -------------------------------------------------------------------------------------------------


def model_card(facts: ClassifierFacts, onnx_name: str, story: Story) -> str:
    """README.md: front matter, then sentences."""
    name = (story.repository or "OWNER/NAME").partition("/")[2]
    parts = [
        f"# {plain(name)}",
        what_it_is(facts),
        "## Use\n\n" + usage(facts, onnx_name, story),
        "## Species\n\n" + species_in_markdown(facts),
        "## How good it is\n\n" + figures(story),
        "## Data and licences\n\n" + data_and_licences(facts, story),
        "## Intended use and limits\n\n" + limits(facts),
        "## Energy\n\n" + energy(story),
    ]
    return front_matter(facts, story, name) + "\n\n".join(parts) + "\n"


def front_matter(facts: ClassifierFacts, story: Story, name: str) -> str:
    """The YAML on top, each value as JSON, which YAML reads as it stands."""
    classes = sorted({lineage[CLASS] for lineage in facts.taxonomy.lineages if not lineage[CLASS].startswith("?")})
    metrics = [
        {
            "type": key,
            "name": f"{words}{interval_in_words(story.scores, key)}",
            "value": round(float(story.scores[key]), 4),
        }
        for key, words in FIGURES.items()
        if key in story.scores
    ]
    task = {"type": "audio-classification", "name": "Audio Classification"}
    data = {"type": "held-out-recordings", "name": "recordings held out from training"}
    result = {"task": task, "dataset": data, "metrics": metrics}
    about: Json = {
        "license": story.license or "other",
        "library_name": "transformers" if facts.picture is None else "onnx",
        "pipeline_tag": "audio-classification",
        "tags": ["audio", "bioacoustics", "wildlife", "species-identification", "onnx", *map(str.lower, classes)],
    } | ({"model-index": [{"name": name, "results": [result]}]} if metrics else {})
    lines = [f"{key}: {json.dumps(safe(value), ensure_ascii=False)}" for key, value in about.items()]
    return "\n".join(["---", *lines, "---", "", ""])


def safe(value: object) -> object:
    """The same without characters that YAML breaks a line at, or that no text should hold."""
    if isinstance(value, str):
        return bare(value).replace("\ufeff", "")
    if isinstance(value, list):
        return [safe(one) for one in cast(list[object], value)]
    if isinstance(value, dict):
        return {str(safe(key)): safe(one) for key, one in cast(dict[object, object], value).items()}
    return value


def plain(text: object) -> str:
    """A text of somebody else's in Markdown: nothing in it is a mark, a link or HTML."""
    return MARKDOWN.sub(r"\\\1", bare(str(text)))


def what_it_is(facts: ClassifierFacts) -> str:
    audio, count = facts.audio, len(facts.taxonomy.labels)
    encoder = f"Whisper's ({plain(facts.words)})" if facts.picture is None else plain(facts.words)
    return (
        f"Recognises {count} kinds of animals by their sound: a probability for each in every "
        f"{audio.window_seconds:g} s of a recording, from sound at {audio.sample_rate:,} Hz "
        f"({audio.lowest_hz:g} to {audio.top_hz:g} Hz). The encoder is {encoder}, fine-tuned with Wild Whisper; "
        "probabilities are calibrated on recordings that were held out."
    )


def usage(facts: ClassifierFacts, onnx_name: str, story: Story) -> str:
    where = story.repository or "OWNER/NAME"
    lines = ["```bash", f"python predictor.py recordings/ --model hf://{where} --out results/", "```"]
    if not onnx_name:
        lines = [f"`{CLASSIFIER}` is the network as it was trained; `quantize.py` makes an ONNX file of it."]
    if facts.picture is None:
        lines += ["", "The encoder alone, with transformers:", "", "```python", "from transformers import WhisperModel"]
        lines += [f'encoder = WhisperModel.from_pretrained("{where}").encoder', "```"]
    if facts.pool > 1:
        lines += [
            "",
            f"The classifier averages every {facts.pool} tokens behind the stem, which `transformers` does not.",
        ]
    return "\n".join(lines)


def species_in_markdown(facts: ClassifierFacts) -> str:
    """Every species with how many held-out recordings of it there were, and how precise its threshold is."""
    names, own = facts.taxonomy, {one.label: one for one in facts.thresholds.species}
    lines = ["| label | scientific name | name | order | family | held out | precision at its threshold |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row, label in list(enumerate(names.labels))[:MOST_SPECIES]:
        lineage = ["" if taxon.startswith("?") else taxon for taxon in names.lineages[row]]
        cells = [label, names.scientific_names[row], names.common_names[row], lineage[ORDER], lineage[FAMILY]]
        lines.append("| " + " | ".join([*map(plain, cells), *threshold_cells(own.get(label))]) + " |")
    rest = len(names.labels) - MOST_SPECIES
    return "\n".join([*lines, *(["", f"and {rest} more in {LABELS}"] if rest > 0 else [])])


def threshold_cells(threshold: Threshold | None) -> list[str]:
    """How many held-out recordings have a species, and the 95 % interval of the precision at its threshold."""
    if threshold is None:
        return ["", ""]
    low, high = threshold.precision_low, threshold.precision_high
    return [str(threshold.positives), f"{low:.2f} to {high:.2f}" if threshold.positives else "never validated"]


def figures(story: Story) -> str:
    """What is known of its quality, with intervals where there are any."""
    found = [
        f"* {words}: {story.scores[key]:.3f}{interval_in_words(story.scores, key)}"
        for key, words in FIGURES.items()
        if key in story.scores
    ]
    if not found:
        return "It was not judged on recordings held out from training."
    rows, classes = (int(story.scores.get(key, 0)) for key in ("rows", "classes"))
    head = f"On {rows} recordings that were held out from training, of {classes} species"
    return "\n".join([f"{head}; in brackets 95 % intervals, over groups of recordings:", "", *found])


def interval_in_words(scores: Mapping[str, float], key: str) -> str:
    low, high = scores.get(f"{key}_low"), scores.get(f"{key}_high")
    return f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""


def data_and_licences(facts: ClassifierFacts, story: Story) -> str:
    """The recordings that it was trained on, counted by their licences, and whose embeddings were imitated."""
    stored = facts.provenance.get("licenses")
    counts = cast(dict[str, int], stored) if isinstance(stored, dict) else {}
    lines = [f"The classifier: {plain(story.license) or 'no licence was chosen; ask before you use it'}.", ""]
    lines += [f"Trained on {sum(counts.values())} recordings, by their licence:", ""] if counts else []
    lines += [f"* {plain(name)}: {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1])]
    note = licence_note(teachers_of(facts.provenance))
    lines += ["", plain(note)] if note else []
    return "\n".join([*lines, "", f"It began with {plain(facts.provenance.get('encoder', 'weights of its own'))}."])


def limits(facts: ClassifierFacts) -> str:
    few = sum(one.positives < 10 for one in facts.thresholds.species)
    return "\n".join(
        [
            "For surveys of wildlife by recordings: to find where and when species call, with somebody who listens to "
            "a part of what is found.",
            "",
            f"* It knows the {len(facts.taxonomy.labels)} labels above and nothing else; any other sound may be taken "
            "for one of them.",
            "* The figures are of recordings like those that it was trained on. At other sites, with other recorders, "
            "expect less, and listen to a sample before you count.",
            f"* {few} of {len(facts.thresholds.species)} species had fewer than 10 held-out recordings: too few to say "
            "how often their detections are right."
            if facts.thresholds.species
            else "* It has no thresholds.",
            "* That nothing is detected does not mean that nothing was there.",
            "* It is not made to recognise people, or what they say.",
        ]
    )


def energy(story: Story) -> str:
    """What the training took."""
    took = f"Training took {story.seconds / 3600:.2f} h." if story.seconds else "How long training took is not known."
    if not story.watts or not story.seconds:
        return f"{took} Its energy was not measured."
    kilowatt_hours = story.seconds * story.watts / 3.6e6
    return f"{took} At {story.watts:g} W that is {kilowatt_hours:.3f} kWh; the watts are as its author gave them."


if __name__ == "__main__":
    from config import AudioSettings, HeadSettings

    kin = ("Animalia", "Chordata", "Amphibia", "Anura", "Ranidae", "Rana", "Rana ficta")
    frog = Taxonomy(("frog",), ("Rana ficta",), ("<b>Frog</b> | toad",), (kin,), (7,))
    made = {"licenses": {"CC BY 4.0": 12}, "data": "/home/jane/frogs", "encoder": "/home/jane/e.safetensors"}
    clean = public_provenance(made, "cc-by-4.0")
    facts = ClassifierFacts("demo", AudioSettings(), HeadSettings(layers=3), frog, clean)
    scores = {"macro_auc": 0.91, "macro_auc_low": 0.85, "macro_auc_high": 0.95, "rows": 40, "classes": 1}
    card = model_card(facts, "", Story("owner/frogs", "cc-by-4.0", scores, 7200, 50))
    print(card)
    assert "jane" not in card and "<b>" not in card and "0.910 [0.850, 0.950]" in card and "0.100 kWh" in card
