"""Stage 2: refused early where it cannot work, and a classifier that says of itself what it is."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Stages

from checkpoint import load_classifier
from config import FinetuneCommand
from demo_data import FieldSeason
from main import finetune


def test_the_file_knows_its_labels_lineage_and_origin(stages: Stages, season: FieldSeason) -> None:
    _, facts = load_classifier(stages.classifier)
    assert len(facts.taxonomy.labels) >= 12 and facts.size == "demo" and facts.audio.sample_rate == 16_000
    assert {lineage[2] for lineage in facts.taxonomy.lineages} == {"Aves", "Amphibia", "Insecta", "Mammalia"}
    assert facts.provenance["data"] == str(season.root) and facts.provenance["run"] == "finetune-001"


def test_the_run_holds_settings_curves_and_scores(stages: Stages) -> None:
    folder = stages.classifier.parent
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    facts = json.loads((folder / "run.json").read_text())
    assert facts["status"] == "finished" and facts["settings"]["loss"]["alpha"] == 1.0
    assert (folder / "held_out_scores.csv").is_file()


def test_without_an_encoder_it_says_where_to_get_one_before_any_run_is_opened(
    season: FieldSeason, tmp_path: Path
) -> None:
    config = FinetuneCommand.defaults("demo")
    config = replace(
        config,
        data=replace(config.data, root=season.root),
        encoder=replace(config.encoder, weights=str(tmp_path / "encoder.safetensors")),
        run=replace(config.run, root=tmp_path / "runs"),
    )
    with pytest.raises(AssertionError, match=r"python ssl_mae\.py"):
        finetune(config)
    assert not (tmp_path / "runs").exists()


def test_what_stage_one_heard_is_not_held_out(stages: Stages, season: FieldSeason, tmp_path: Path) -> None:
    config = FinetuneCommand.defaults("demo")
    config = replace(
        config,
        data=replace(config.data, root=season.root, valid_fold=1),
        encoder=replace(config.encoder, weights=str(stages.encoder)),
        run=replace(config.run, root=tmp_path / "runs"),
    )
    with pytest.raises(AssertionError, match=r"was adapted on what this run would hold out; add --data\.valid_fold 0"):
        finetune(config)
