"""Stage 2: refused early where it cannot work, and a classifier that says of itself what it is."""

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import soundfile
from conftest import Stages

import data_loader
from archive.licences import handed_on, licence_note, teachers_of
from archive.recordings import Recording
from archive.survey import marks_of, sound_marks
from config import PRESETS, FinetuneCommand, parse
from data_loader import labeled_loader, read_labeled, split, synthetic_noise
from demo_data import FieldSeason
from main import (
    Candidate,
    Plan,
    backgrounds_of,
    finetune,
    history_of,
    joint_provenance,
    plan_fold,
    provenance_of,
    refuse_lost_backgrounds,
    unheard_noise,
)
from sounds import negatives
from training.checkpoint import load_classifier


def test_the_file_knows_its_labels_lineage_and_origin(stages: Stages, season: FieldSeason) -> None:
    _, facts = load_classifier(stages.classifier)
    assert len(facts.taxonomy.labels) >= 12 and facts.size == "demo" and facts.audio.sample_rate == 16_000
    assert {lineage[2] for lineage in facts.taxonomy.lineages} == {"Aves", "Amphibia", "Insecta", "Mammalia"}
    assert facts.provenance["data"] == str(season.root) and facts.provenance["run"] == "finetune-001"
    told: dict[str, Any] = dict(facts.provenance)
    assert sum(told["licenses"].values()) > 50


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
    with pytest.raises(
        AssertionError, match=r"was adapted on \d+ of the \d+ recordings that this .*; add --data\.valid_fold 0"
    ):
        finetune(config)


def saying(provenance: dict[str, object]) -> Callable[[str], dict[str, object]]:
    """What any weights say of the run that made them."""
    return lambda weights: provenance if weights else {}


@pytest.mark.parametrize(
    ("provenance", "refused"),
    [
        ({"held_out_fold": 1}, True),
        ({"held_out_fold": 0}, False),
        ({"held_out_fold": 1, "data": "/elsewhere"}, False),
        ({"held_out_fold": 1, "trained_on": ""}, False),  # it says so itself
    ],
)
def test_of_an_encoder_that_does_not_say_which_sounds_it_heard_the_fold_counts(
    provenance: dict[str, object], refused: bool, season: FieldSeason, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("main.stage_one", saying({"data": str(season.root.resolve()), **provenance}))
    data = replace(FinetuneCommand.defaults("demo").data, root=season.root)
    config = replace(FinetuneCommand.defaults("demo"), data=data)
    taxonomy, rows = read_labeled(data)
    if refused:
        with pytest.raises(
            AssertionError, match=r"was adapted on (\d+) of the \1 recordings that this run would hold out"
        ):
            plan_fold(config, 0, taxonomy, rows)
    else:
        assert plan_fold(config, 0, taxonomy, rows).fold == 0


def test_recorders_with_equal_names_are_told_apart_by_their_sound(
    season: FieldSeason, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stage 1 has heard a file of another site whose name and size are those of a held-out one."""
    data = replace(FinetuneCommand.defaults("demo").data, root=season.root)
    taxonomy, rows = read_labeled(data)
    held_out = split(rows, data)[1][0]
    other = tmp_path / "siteB" / held_out.path.name
    other.parent.mkdir()
    sound, rate = soundfile.read(held_out.path, dtype="float32")
    soundfile.write(other, sound[::-1], rate)
    copy = (tmp_path / "renamed.flac").resolve()
    copy.write_bytes(held_out.path.read_bytes())
    config = replace(FinetuneCommand.defaults("demo"), data=data)
    monkeypatch.setattr("main.stage_one", saying({"trained_on": sound_marks([other])}))
    assert plan_fold(config, 0, taxonomy, rows).valid
    monkeypatch.setattr("main.stage_one", saying({"trained_on": sound_marks([other, copy]), "held_out_fold": 1}))
    with pytest.raises(
        AssertionError, match=r"was adapted on 1 of the \d+ recordings .*, such as .*add --data\.valid_fold 1"
    ):
        plan_fold(config, 0, taxonomy, rows)


@pytest.mark.usefixtures("undrawn")
def test_each_recording_is_judged_once_by_a_classifier_that_never_heard_it(few: FieldSeason, tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    noise.mkdir()
    rng = np.random.default_rng(0)
    for name in ("rain", "wind", "engine"):
        soundfile.write(noise / f"{name}.wav", rng.normal(0, 0.1, 8 * 16_000), 16_000)
    flags = ["--preset", "demo", "--data.root", str(few.root), "--data.cache", str(tmp_path / "cache")]
    flags += ["--encoder.weights", "random", "--train.epochs", "1", "--train.folds", "0", "1", "--train.ema", "0.9"]
    flags += ["--run.root", str(tmp_path / "runs")]
    flags += ["--data.noise", str(noise), "--data.no_call", str(noise), "--encoder.pool", "2"]
    assert finetune(parse(FinetuneCommand, flags)) == 0
    run = tmp_path / "runs" / "finetune"
    taxonomy, recordings = read_labeled(parse(FinetuneCommand, flags).data)
    held_out = {str(row.path.resolve()): row.fold for row in recordings if row.fold in (0, 1)}
    judged: list[str] = []
    for fold in (0, 1):
        with (run / f"fold-{fold}" / "held_out_scores.csv").open(encoding="utf-8", newline="") as file:
            mine = {row["file"] for row in csv.DictReader(file)}
        assert {held_out[name] for name in mine} == {fold}
        judged += mine
    assert sorted(judged) == sorted(held_out)
    facts = json.loads((run / "run.json").read_text())
    assert facts["scores"]["cmap_low"] <= facts["scores"]["cmap"] <= facts["scores"]["cmap_high"]
    assert facts["scores"]["false_alarms_per_hour_at_0.5"] >= 0
    told = [load_classifier(run / f"fold-{fold}" / "classifier.safetensors") for fold in (0, 1)]
    assert [about.provenance["held_out_fold"] for _, about in told] == [0, 1]
    assert all(model.whisper_encoder.size.pool == about.pool == 2 for model, about in told)
    assert [limit.label for limit in told[0][1].thresholds.species] == list(taxonomy.labels)
    assert told[0][1].thresholds == told[1][1].thresholds
    assert told[0][1].provenance["alarms_per_hour"] == 20.0  # for the ensemble that they may become
    assert told[0][0].temperature.item() == pytest.approx(facts["scores"]["temperature"])
    scores = np.load(run / "embeddings.npz", allow_pickle=False)
    assert set(scores["recording"].tolist()) == set(judged) and set(scores["fold"].tolist()) == {0, 1}
    of_both = json.loads(scores["wild_whisper"].item())["provenance"]
    assert marks_of(of_both) == [str(about.provenance["trained_on"]) for _, about in told]


@pytest.mark.usefixtures("undrawn")
def test_one_species_and_noise_are_trained_to_the_end_and_get_thresholds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for folder, count in (("data/frog", 20), ("noise", 20)):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(count):
            samples = rng.normal(0, 0.1, 16_000)
            if folder != "noise":
                samples += 0.5 * np.sin(2 * np.pi * 2000 * np.arange(16_000) / 16_000)
            soundfile.write(tmp_path / folder / f"{number}.wav", samples, 16_000)
    flags = ["--preset", "demo", "--data.root", str(tmp_path / "data"), "--data.cache", str(tmp_path / "cache")]
    flags += ["--encoder.weights", "random", "--train.epochs", "1", "--data.layout", "folders"]
    alone = [*flags, "--run.root", str(tmp_path / "alone")]
    assert finetune(parse(FinetuneCommand, alone)) == 0, "without noise there is nothing to tell, and no error either"
    assert "macro_auc            not defined" in capsys.readouterr().out
    flags += ["--data.no_call", str(tmp_path / "noise"), "--run.root", str(tmp_path / "runs")]
    assert finetune(parse(FinetuneCommand, flags)) == 0
    run = tmp_path / "runs" / "finetune"
    figures = json.loads((run / "run.json").read_text())["scores"]
    assert figures["macro_auc_low"] <= figures["macro_auc"] <= figures["macro_auc_high"] and figures["top1"] == 1.0
    assert [limit.label for limit in load_classifier(run / "classifier.safetensors")[1].thresholds.species] == ["frog"]
    assert "nan" not in capsys.readouterr().out


def test_the_terms_of_timms_weights_go_with_the_classifier() -> None:
    def of(name: str, weights: str) -> dict[str, object]:
        words = ["--encoder.kind", "timm", "--encoder.name", name, "--encoder.weights", weights]
        return history_of(weights, parse(FinetuneCommand, words))

    closed = "convnextv2_atto.fcmae_ft_in1k"
    assert of(closed, "hub") == of(closed, "weights.pth") == {"license": "cc-by-nc-4.0"}
    assert licence_note(handed_on(of(closed, "hub"), closed)).startswith("NON-COMMERCIAL")
    assert of("resnet18.a1_in1k", "hub") == {"license": "apache-2.0"}
    assert of(closed, "random") == {}, "nobody's weights"
    assert history_of("random", parse(FinetuneCommand, ["--encoder.kind", "cnn"])) == {}


def test_a_classifier_has_heard_what_its_encoder_had_when_it_began(
    season: FieldSeason, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = replace(FinetuneCommand.defaults("demo").data, root=season.root)
    config = replace(FinetuneCommand.defaults("demo"), data=data)
    taxonomy, rows = read_labeled(data)
    heard = sound_marks([split(rows, data)[0][0].path])
    monkeypatch.setattr("main.stage_one", saying({"trained_on": heard, "license": "cc-by-nc-4.0"}))
    plan = plan_fold(config, 0, taxonomy, rows)
    monkeypatch.setattr("main.stage_one", saying({}))  # runs/mae is a link, which the next run of stage 1 moves
    told = provenance_of(plan._replace(train=[]), config, "finetune-001", 1)
    assert told["trained_on"] == heard and [one["license"] for one in teachers_of(told)] == ["cc-by-nc-4.0"]
    told = provenance_of(Plan(0, "random", [], []), config, "finetune-001", 1)
    assert told["trained_on"] == "" and told["teachers"] == []


def test_answers_of_several_folds_owe_to_all_who_helped_and_are_of_all_that_was_heard() -> None:
    birdnet, perch = ({"name": name, "license": "", "sha256": ""} for name in ("BirdNET 2.4", "Perch"))
    told: list[dict[str, object]] = [
        {"trained_on": "ab" * 5, "teachers": [birdnet]},
        {"trained_on": "cd" * 5, "teachers": [birdnet, perch]},
    ]
    candidates = [cast(Candidate, SimpleNamespace(facts=SimpleNamespace(provenance=one))) for one in told]
    assert joint_provenance(candidates[:1]) == told[0]
    both = joint_provenance(candidates)
    assert marks_of(both) == ["ab" * 5, "cd" * 5] and teachers_of(both) == [birdnet, perch]


def test_false_alarms_are_counted_on_noise_that_was_never_heard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("trained", "judged", "guessed", "under", "new")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "rain.wav").touch()
    every = [Recording(tmp_path / name / "rain.wav", name) for name in names]
    trained, judged, guessed, under, new = every
    window = replace(guessed, start=5.0, end=10.0, labels=("frog",), scores=(0.8,))  # with a pseudo-label: it was heard
    plan = Plan(0, "random", [trained], [judged], [window])
    assert unheard_noise(every, plan, tmp_path / "under") == [new]
    assert "4 of 5 recordings of --data.noise are left out of it: they are in --data.root" in capsys.readouterr().out
    assert unheard_noise(every, plan, None) == [under, new]


def test_recordings_without_a_species_train_as_such_and_are_dealt_out_to_the_folds(
    season: FieldSeason, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for number in range(12):
        soundfile.write(tmp_path / f"rain {number}.wav", rng.normal(0, 0.1, 16_000), 16_000)
    data = replace(FinetuneCommand.defaults("demo").data, root=season.root)
    _, plain = read_labeled(data)
    _, rows = read_labeled(replace(data, no_call=tmp_path))
    added = [row for row in rows if not row.labels]
    assert len(rows) == len(plain) + 12 and all(row.listened and row.labeled for row in added)
    assert len({row.fold for row in added}) > 1 and {row.fold for row in added} <= {row.fold for row in plain}
    assert [row.fold for row in read_labeled(replace(data, no_call=tmp_path))[1] if not row.labels] == [
        row.fold for row in added
    ]


@pytest.fixture
def little_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Made-up noise of a second each, eight of every kind, and the folder of it."""
    monkeypatch.setattr(negatives, "SCRATCH", tmp_path / "scratch")
    monkeypatch.setattr(negatives, "EACH", 8)
    for room, name in ((negatives, "SECONDS"), (data_loader, "NEGATIVE_SECONDS")):
        monkeypatch.setattr(room, name, 1.0)
    return negatives.negatives_place() / "32000-1"


def test_made_up_noise_is_held_out_kind_by_kind_and_judges_no_animal(
    little_noise: Path, season: FieldSeason, capsys: pytest.CaptureFixture[str]
) -> None:
    config = parse(FinetuneCommand, ["--preset", "demo", "--data.root", str(season.root)])
    config = replace(
        config, data=replace(config.data, synthetic_noise=0.1), encoder=replace(config.encoder, weights="random")
    )
    taxonomy, rows = read_labeled(config.data)
    rows += synthetic_noise(rows, config.audio)
    plan = plan_fold(config, 0, taxonomy, rows)
    made_up = [row for row in rows if row.path.parent == little_noise]
    assert len(made_up) == 88 and not any(row.labels for row in made_up)
    assert sorted(row.path for row in plan.quiet) == sorted(row.path for row in made_up if row.fold == 0)
    parts = plan.quiet, [row for row in plan.train if row in made_up]
    held_out, trained = ({row.path.stem.partition("-")[0] for row in part} for part in parts)
    assert held_out == {"rain", "hum", "hiss"} and trained == set(negatives.KINDS) - held_out
    assert not set(plan.valid) & set(made_up) and not set(plan.train) & set(plan.quiet)
    labeled_loader(plan.train, taxonomy, config.data, config.audio, 8, 0)
    assert "10.0% of the training windows are made-up noise (--data.synthetic_noise)" in capsys.readouterr().out
    bank = backgrounds_of(plan, replace(config, augment=replace(config.augment, noise=0.5)))
    assert bank is not None and len(bank) == len(parts[1]) == 64


@pytest.mark.usefixtures("undrawn")
def test_without_real_noise_false_alarms_are_counted_and_thresholds_fitted_on_made_up_noise(
    little_noise: Path, few: FieldSeason, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--preset", "demo", "--data.root", str(few.root), "--encoder.weights", "random", "--train.epochs", "1"]
    words += ["--data.synthetic_noise", "0.1", "--run.root", str(tmp_path), "--data.cache", str(tmp_path / "cache")]
    assert finetune(parse(FinetuneCommand, words)) == 0
    said = capsys.readouterr().out
    assert "no real noise is held out: false alarms are those in made-up noise" in said and "none below" in said
    assert re.search(r"false alarms +[0-9.]+ per hour at thresholds \(cross-fitted\), on 0\.0\d h", said)
    held_out = (tmp_path / "finetune" / "held_out_recordings.csv").read_text()
    assert str(little_noise) not in held_out and str(few.root) in held_out


def test_noise_is_made_up_by_default_where_nobody_brings_real_noise_and_never_in_the_demo() -> None:
    for preset in PRESETS:
        data = parse(FinetuneCommand, ["--preset", preset]).data
        real = parse(FinetuneCommand, ["--preset", preset, "--data.no_call", "noise"]).data
        both = parse(FinetuneCommand, ["--data.no_call", "noise", "--data.synthetic_noise", "0.05"]).data
        assert (data.made_up, real.made_up, both.made_up) == (0.0 if preset == "demo" else 0.1, 0.0, 0.05)


def test_backgrounds_are_those_recordings_without_a_call_that_are_trained_on(tmp_path: Path) -> None:
    """Those that are held out measure false alarms; recordings of the archive without a species are none of them."""
    (tmp_path / "noise").mkdir()
    paths = [tmp_path / "noise" / "rain.wav", tmp_path / "noise" / "wind.wav", tmp_path / "pond.wav"]
    for level, path in zip((0.1, 0.2, 0.3), paths, strict=True):
        soundfile.write(path, np.tile([level, -level], 40_000), 16_000)
    rain, wind, pond = (Recording(path, path.name, seconds=5.0) for path in paths)
    words = ["--data.root", str(tmp_path), "--data.no_call", str(tmp_path / "noise"), "--data.synthetic_noise", "0"]
    config = parse(FinetuneCommand, words)
    bank = backgrounds_of(Plan(0, "random", [wind, pond], [rain]), config)
    assert bank is not None and bank.shape == (1, 80_000) and abs(float(bank.abs().max()) - 0.2) < 1e-3
    assert backgrounds_of(Plan(0, "random", [pond], [rain, wind]), config) is None, "all are held out"
    named = parse(FinetuneCommand, [*words, "--augment.background", words[3]])
    both = backgrounds_of(Plan(0, "random", [pond], []), named)
    assert both is not None and len(both) == 2, "a folder that is named is taken whole"
    bank = backgrounds_of(Plan(0, "random", [pond], [rain]), named)
    assert bank is not None and len(bank) == 1, "but for what judges: alarms are counted on it"
    with pytest.raises(AssertionError, match=r"every recording below .* is held out to judge by \(fold 3\)"):
        refuse_lost_backgrounds(named, 3, [rain, wind, pond])
    for judges in ([rain], []):
        refuse_lost_backgrounds(named, 3, judges)
    (tmp_path / "empty").mkdir()
    empty = parse(FinetuneCommand, [*words, "--augment.background", str(tmp_path / "empty")])
    refuse_lost_backgrounds(empty, 3, [rain])
    with pytest.raises(AssertionError, match="found no audio files"):
        backgrounds_of(Plan(0, "random", [pond], [rain]), empty)
    assert (
        backgrounds_of(Plan(0, "random", [wind], [rain]), parse(FinetuneCommand, [*words, "--augment.noise", "0"]))
        is None
    )
