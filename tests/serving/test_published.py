"""What is published says what it should, in YAML and Markdown that nobody else's words can break, and no path."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCardData

from config import AudioSettings, HeadSettings, PictureSettings
from evaluation.calibration import Threshold, Thresholds
from serving.published import Story, model_card, plain, public_provenance, refuse_leaks, secrets
from taxonomy import Taxonomy
from training.checkpoint import ClassifierFacts

KIN = ("Animalia", "Chordata", "Amphibia", "Anura", "Ranidae", "Rana", "Rana ficta")
EVIL = 'x"\n---\nlicense: mit\u2028[a](http://b) <script>alert(1)</script> | `c` \x07'
NAMES = Taxonomy(
    ("frog", EVIL), ("Rana ficta", "Rana mala"), ("Frog", EVIL), (KIN, (*KIN[:2], EVIL, *KIN[3:6], "m")), (7, 7)
)
SCORES = {"macro_auc": 0.91, "macro_auc_low": 0.85, "macro_auc_high": 0.95, "cmap": 0.5, "rows": 40.0, "classes": 2.0}
STORY, BARE = Story("owner/frogs", "cc-by-4.0", SCORES, 7200, 0), Story("", "", {}, 0, 0)
TRAINED: dict[str, object] = {
    "run": "finetune-007",
    "data": "/home/jane/frogs",
    "encoder": "/home/jane/runs/mae/encoder.safetensors",
    "pseudo_labels": {"table": "/home/jane/pseudo.csv"},
    "licenses": {"CC BY 4.0": 3, EVIL: 9},
    "teachers": [{"name": EVIL, "license": "CC BY-NC 4.0", "sha256": "ab", "path": "/home/jane/perch.onnx"}],
    "held_out_fold": 0,
    "somebody": "jane",
}
LIMITS = (
    Threshold("frog", 0.5, 0.0, None, 0.7, 0.0, 40, 20, "", precision_high=0.9),
    Threshold(EVIL, 0.5, 0.0, None, 0.0, 0.0, 0, 20, ""),
)


def facts(**more: object) -> ClassifierFacts:
    own = ClassifierFacts(
        "demo", AudioSettings(), HeadSettings(layers=3), NAMES, public_provenance(TRAINED, "cc-by-4.0")
    )
    return replace(own, **more)  # type: ignore[arg-type]


def card(story: Story = STORY, onnx: str = "m.onnx", **more: object) -> str:
    return model_card(facts(**more), onnx, story)


def front(text: str) -> dict[str, Any]:
    """The front matter, as every reader of YAML has it."""
    head, _, _ = text.removeprefix("---\n").partition("\n---\n")
    found: dict[str, Any] = yaml.safe_load(head)
    return found


def test_a_card_says_that_transformers_does_not_pool_tokens_where_the_classifier_does() -> None:
    shown = card(pool=2)
    assert (
        "averages every 2 tokens behind the stem, which `transformers` does not" in shown
        and "every 2 tokens pooled" in shown
    )
    assert "averages every" not in card()


def test_only_what_is_named_is_let_through() -> None:
    clean = public_provenance(TRAINED, "cc-by-4.0")
    assert "jane" not in repr(clean) and "finetune-007" not in repr(clean)
    assert clean["licenses"] == TRAINED["licenses"] and clean["license"] == "cc-by-4.0" and clean["held_out_fold"] == 0
    assert clean["teachers"] == [{"name": EVIL, "license": "CC BY-NC 4.0", "sha256": "ab"}]
    again = public_provenance(clean, "apache-2.0")["teachers"]
    assert "cc-by-4.0" in repr(again) and public_provenance(clean, "cc-by-4.0")["teachers"] == clean["teachers"]
    for weights, said in (
        ("random", "random"),
        ("openai/whisper-base", "openai/whisper-base"),
        ("jane/frogs", "an encoder of its own"),
    ):
        assert public_provenance({"encoder": weights}, "")["encoder"] == said


def test_a_file_that_names_a_folder_of_this_machine_is_not_published(tmp_path: Path) -> None:
    private = secrets({"data": "/home/jane/frogs"})
    assert "/home/jane/frogs" in private and str(Path.cwd()) in private
    good, bad = tmp_path / "good.md", tmp_path / "bad.onnx"
    good.write_bytes(b"\x00frogs of jane")
    bad.write_bytes(b"\x00\xff/home/jane/frogs\x01")
    refuse_leaks([good], private)
    with pytest.raises(AssertionError, match=r"bad\.onnx holds /home/jane/frogs"):
        refuse_leaks([good, bad], private)


def test_the_front_matter_is_read_by_everybody_as_it_was_meant() -> None:
    text = card()
    about = front(text)
    assert about["license"] == "cc-by-4.0" and about["pipeline_tag"] == "audio-classification"
    assert about["library_name"] == "transformers" and "amphibia" in str(about["tags"])
    (result,) = about["model-index"][0]["results"]
    assert [(one["type"], one["value"]) for one in result["metrics"]] == [("macro_auc", 0.91), ("cmap", 0.5)]
    assert result["metrics"][0]["name"] == "macro AUC [0.850, 0.950]"
    assert text.count("\n---\n") == 1  # nobody's words end it early
    assert "license" in front(card(BARE)) and "model-index" not in front(card(BARE))


def test_the_hubs_own_reader_takes_the_card() -> None:
    data = ModelCardData(**front(card()))
    assert data.license == "cc-by-4.0" and data.model_name == "frogs"
    assert [one.metric_value for one in data.eval_results or []] == [0.91, 0.5]


def test_nothing_of_somebody_elses_is_a_mark_a_link_or_html() -> None:
    body = card().partition("\n---\n")[2]
    for mark in ("<script>", "[a](http", "\n---\nlicense", "`c`", "\x07", "\u2028"):
        assert mark not in body, mark
    assert plain(EVIL).startswith("x' \\-\\-\\-") or "\\[a\\]" in plain(EVIL)
    rows = [line for line in body.splitlines() if line.startswith("| ") and "Rana" in line]
    assert [line.replace("\\|", "").count("|") for line in rows] == [8, 8]  # seven cells, whatever is in them


def test_the_card_says_figures_licences_limits_and_energy(capsys: pytest.CaptureFixture[str]) -> None:
    text = card(thresholds=Thresholds(LIMITS))
    assert "macro AUC: 0.910 [0.850, 0.950]" in text and "cmAP (class-mean average precision): 0.500\n" in text
    assert "On 40 recordings that were held out from training, of 2 species" in text
    assert (
        "Trained on 12 recordings" in text
        and "* CC BY 4.0: 3" in text
        and "NON-COMMERCIAL: made with the help of" in text
    )
    assert "| 40 | 0.70 to 0.90 |" in text and "| 0 | never validated |" in text
    assert "1 of 2 species had fewer than 10 held-out recordings" in text
    assert "Training took 2.00 h. Its energy was not measured." in text
    assert "At 100 W that is 0.200 kWh" in card(Story("", "", SCORES, 7200, 100))
    assert "It was not judged on recordings" in card(BARE) and "hf://OWNER/NAME" in card(Story("", "", {}, 0, 0))
    assert "quantize.py" in card(onnx="") and "--model hf://owner/frogs" in text
    other = card(picture=PictureSettings("cnn"))
    assert "WhisperModel" in text and "WhisperModel" not in other and "AudioCNN" in other
    assert capsys.readouterr().out == ""
