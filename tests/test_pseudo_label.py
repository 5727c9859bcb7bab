"""Self-training: labels are the classifiers' scores window by window, and every brake holds."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
import torch
from conftest import Stages
from onnx import numpy_helper
from test_states import FLAGS, cut_off_at, outcome
from test_zoo import loudness_model

import pseudo_label as command
from archive.recordings import Recording, read_recordings, write_recordings
from config import SIZES, FinetuneCommand, PseudoLabelCommand, parse
from data_loader import Context, labeled_loader, read_labeled, recording_contexts
from demo_data import FieldSeason
from main import Plan, check_labelling_models, finetune
from model import BirdClefClassifier, Encoder
from pseudo_label import pseudo_label
from runtime.digests import sha256
from serving.scorer import open_scorer, score
from sounds.discovery import find_recordings
from training.checkpoint import load_classifier
from training.frozen import features_key
from training.objective import prepare_loss_inputs


def write_windows(path: Path, *levels: float) -> None:
    """A recording in which each window of 5 s is as loud as said."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = np.sin(2 * np.pi * 1000 * np.arange(80_000) / 16_000)
    soundfile.write(path, np.concatenate([level * tone for level in levels]), 16_000, subtype="FLOAT")


@pytest.fixture
def field(tmp_path: Path) -> Path:
    """Two sites, of the one in the name of a file, of the other in that of a folder."""
    write_windows(tmp_path / "field" / "card" / "H21_20230510_051500.wav", 0.8, 0.3, 0.99)
    write_windows(tmp_path / "field" / "pond" / "dawn.wav", 0.6, 0.05)
    return tmp_path / "field"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A species that is as likely as a window is loud."""
    return loudness_model(tmp_path / "loud.onnx")


def label(field: Path, model: Path, *flags: object) -> list[tuple[str, float, float, tuple[float, ...]]]:
    """Site, start, end and scores of every window that is labelled."""
    out = field.parent / "pseudo"
    words = [str(field), "--model", str(model), "--out", str(out), *map(str, flags)]
    assert pseudo_label(parse(PseudoLabelCommand, words)) == 0
    return [(row.site, row.start or 0, row.end or 0, row.scores) for row in read_recordings(out / "recordings.csv")]


def test_a_window_has_the_score_of_the_classifier_within_the_limits(field: Path, model: Path) -> None:
    assert label(field, model) == [("H21", 0, 5, (0.8,)), ("H21", 10, 15, (0.95,)), ("pond", 0, 5, (0.6,))]
    rows = read_recordings(field.parent / "pseudo" / "recordings.csv")
    assert [(row.path, row.name) for row in rows[1:]] == [
        (field / "card/H21_20230510_051500.wav", "card/H21_20230510_051500.wav"),
        (field / "pond/dawn.wav", "pond/dawn.wav"),
    ]
    assert all(row.labels == ("burst",) and row.seconds in (10, 15) for row in rows)


def test_other_limits_need_no_other_scoring(
    field: Path, model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    label(field, model)
    first = (tmp_path / "pseudo" / "recordings.csv").read_bytes()
    assert "resuming" not in capsys.readouterr().out
    found = label(field, model, "--sure", "0.2", "--lowest", "0.2", "--highest", "1")
    assert [scores for _, _, _, scores in found] == [(0.8,), (0.3,), (0.99,), (0.6,)]
    assert "resuming: 2 of 2 recordings are done already" in capsys.readouterr().out
    label(field, model)
    assert (tmp_path / "pseudo" / "recordings.csv").read_bytes() == first
    (tmp_path / "limits.csv").write_text("label,lowest,highest\nburst,0.7,0.75\n")
    found = label(field, model, "--limits", tmp_path / "limits.csv")
    assert [scores for _, _, _, scores in found] == [(0.75,), (0.75,)]


def test_of_several_classifiers_the_mean_counts(field: Path, model: Path, tmp_path: Path) -> None:
    other = onnx.load(model)
    ceiling = next(one for one in other.graph.initializer if one.name == "all")
    ceiling.CopyFrom(numpy_helper.from_array(np.array(0.5, np.float32), "all"))
    onnx.save(other, tmp_path / "half.onnx")
    found = label(field, model, "--model", tmp_path / "half.onnx")
    assert [scores for _, _, _, scores in found] == [(0.65,), (0.745,), (0.55,)]
    facts = json.loads((tmp_path / "pseudo" / "run.json").read_text())
    assert [Path(teacher["model"]).name for teacher in facts["teachers"]] == ["loud.onnx", "half.onnx"]


def test_windows_are_read_as_the_predictor_and_validation_read_them(
    stages: Stages, season: FieldSeason, tmp_path: Path
) -> None:
    words = [str(season.root / "unlabeled"), "--model", str(stages.float_model), "--out", str(tmp_path / "pseudo")]
    words += ["--lowest", "0", "--highest", "1", "--sure", "0"]
    assert pseudo_label(parse(PseudoLabelCommand, words)) == 0
    rows = read_recordings(tmp_path / "pseudo" / "recordings.csv")
    scorer = open_scorer(stages.float_model)
    paths = find_recordings([season.root / "unlabeled"])[0]
    expected: list[Context] = list(recording_contexts([Recording(path, path.name) for path in paths], scorer.audio))
    assert [(row.path, round(row.start or 0, 3)) for row in rows] == [
        (paths[context.owner], round(context.windows[0][0], 3)) for context in expected
    ]
    for row, scores in zip(rows, score(scorer, (context.samples for context in expected)), strict=True):
        assert row.scores == tuple(sorted((round(float(one), 4) for one in scores), reverse=True)[: len(row.scores)])
        assert len(row.scores) == (scores.round(4) > 0).sum()
        assert row.labels[0] == scorer.taxonomy.labels[int(scores.argmax())]


def test_nothing_of_a_site_that_is_held_out_or_judges_is_labelled(field: Path, model: Path, tmp_path: Path) -> None:
    assert [row[0] for row in label(field, model, "--held_out", "H21")] == ["pond"]
    write_windows(tmp_path / "annotated" / "pond" / "noon.wav", 0.5)
    assert [row[0] for row in label(field, model, "--judge", tmp_path / "annotated")] == ["H21", "H21"]
    assert [row[0] for row in label(field, model, "--site_regex", "/(field)/")] == ["field"] * 3


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--held_out", "H22"), r"--held_out H22: no such site; there are H21, pond"),
        (("--held_out", "H21", "pond"), r"all 2 recordings are of sites that are held out \(H21, pond\); give others"),
        (("--sure", "0.995"), r"in none of 2 recordings a window has a species with a score of 0\.995 or more"),
        (("--lowest", "0.96"), r"--lowest 0\.96 --highest 0\.95: give scores from 0 to 1, the lowest first"),
        (("--judge", "nowhere"), "not found: nowhere"),
        (("--rounds", "1", "--student", "nowhere"), "nowhere is no finished run of main.py with one classifier"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(flags: Sequence[str], complaint: str, field: Path, model: Path) -> None:
    with pytest.raises(AssertionError, match=complaint) as caught:
        label(field, model, *flags)
    assert "\n" not in str(caught.value)


def test_an_empty_season_is_named_and_a_damaged_recording_among_others_is_counted(
    field: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AssertionError, match=r"no recordings in .*empty"):
        label(tmp_path / "empty", model)
    (field / "pond" / "broken.wav").write_text("rain")
    words = [str(field), "--model", str(model), "--out", str(tmp_path / "pseudo")]
    assert pseudo_label(parse(PseudoLabelCommand, words)) == 2
    assert "3 windows of 2 sites" in capsys.readouterr().out


# --- training -------------------------------------------------------------------------------------------------------


def table_of(season: FieldSeason, folder: Path, **teacher: object) -> Path:
    """A table of made-up labels, and who is said to have given them."""
    paths = sorted((season.root / "unlabeled").rglob("*.flac"))
    labels = sorted(path.name for path in (season.root / "train_audio").iterdir())
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        Recording(
            path, path.name, (label, labels[0]), seconds=5.0, start=0.0, end=4.0, scores=(0.75, 0.25), site=path.stem
        )
        for path, label in zip(paths, labels[1:], strict=False)
    ]
    write_recordings(folder / "recordings.csv", rows)
    (folder / "run.json").write_text(json.dumps({"teachers": [teacher]} if teacher else {}))
    return folder / "recordings.csv"


def words_of(season: FieldSeason, root: Path, *more: object) -> list[str]:
    """A quick training: the head alone."""
    flags = ["--preset", "demo", "--data.root", season.root, "--data.cache", root / "cache", "--run.device", "cpu"]
    flags += ["--run.root", root, "--train.frozen", "--train.head_updates", 20, "--train.head_passes", 1]
    return [*map(str, flags), "--encoder.weights", "random", *map(str, more)]


def test_training_learns_from_pseudo_labels_and_says_where_they_are_from(
    season: FieldSeason, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = table_of(season, tmp_path / "pseudo", run="finetune-007", seed=3)
    assert finetune(parse(FinetuneCommand, words_of(season, tmp_path, "--data.pseudo", table))) == 0
    said = capsys.readouterr().out
    assert "of the training windows have pseudo-labels" in said and "do not differ" not in said
    run = tmp_path / "finetune-001"
    _, facts = load_classifier(run / "classifier.safetensors")
    assert facts.provenance["pseudo_labels"] == {"table": str(table), "windows": 8, "teachers": ["finetune-007"]}
    assert json.loads((run / "run.json").read_text())["pseudo_labels"] == sha256(table)


def test_the_licence_of_a_labelling_classifiers_own_teacher_goes_with_the_student(
    season: FieldSeason, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    birdnet = {"name": "BirdNET", "license": "CC BY-NC-SA 4.0", "sha256": "0" * 64}
    table = table_of(season, tmp_path / "pseudo", run="finetune-007", seed=3, teachers=[birdnet])
    assert finetune(parse(FinetuneCommand, words_of(season, tmp_path, "--data.pseudo", table))) == 0
    assert "NON-COMMERCIAL: made with the help of BirdNET" in capsys.readouterr().out
    _, facts = load_classifier(tmp_path / "finetune-001" / "classifier.safetensors")
    assert facts.provenance["teachers"] == [birdnet]


def test_the_licence_of_a_published_classifier_that_labelled_goes_with_the_student(
    season: FieldSeason, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scorer = replace(open_scorer(model), provenance={"license": "cc-by-nc-4.0", "held_out_fold": 1})
    table = table_of(season, tmp_path / "pseudo", **command.facts_of(scorer))
    assert finetune(parse(FinetuneCommand, words_of(season, tmp_path, "--data.pseudo", table))) == 0
    assert f"NON-COMMERCIAL: made with the help of {model.name} (licence: cc-by-nc-4.0)" in capsys.readouterr().out
    _, facts = load_classifier(tmp_path / "finetune-001" / "classifier.safetensors")
    assert facts.provenance["teachers"] == [{"name": model.name, "license": "cc-by-nc-4.0", "sha256": scorer.sha256}]


def test_features_of_other_pseudo_labels_are_other_features(season: FieldSeason, tmp_path: Path) -> None:
    config = parse(FinetuneCommand, words_of(season, tmp_path))
    taxonomy, recordings = read_labeled(config.data)
    pseudo = read_recordings(table_of(season, tmp_path / "pseudo"))
    inputs = prepare_loss_inputs(taxonomy, recordings, config.loss, None, torch.device("cpu"))
    network = BirdClefClassifier(Encoder(SIZES["demo"]), config.audio, len(taxonomy.labels), config.head)

    def key(rows: Sequence[Recording], asked: FinetuneCommand = config) -> str:
        loader = labeled_loader(recordings, taxonomy, config.data, config.audio, 8, 0, rows)
        return features_key(network, loader, inputs, asked, torch.device("cpu"))

    others = [replace(pseudo[0], scores=(0.75, 0.5)), *pseudo[1:]]
    assert key(pseudo) == key(list(pseudo)) and len({key(pseudo), key(others), key(pseudo[1:]), key([])}) == 4
    pooled = replace(config, encoder=replace(config.encoder, pool=2))
    assert key(pseudo) != key(pseudo, pooled), "nor are those of pooled tokens the same"


def checked(season: FieldSeason, tmp_path: Path, *flags: object, **teacher: object) -> None:
    """A run with these flags on labels of this teacher, as far as both are compared."""
    table = table_of(season, tmp_path / "pseudo", run="finetune-007", **teacher)
    config = parse(FinetuneCommand, words_of(season, tmp_path, "--data.pseudo", table, *flags))
    check_labelling_models(config, [Plan(config.data.valid_fold, "random", [], [])], layers=3)


@pytest.mark.parametrize(
    ("flags", "other"),
    [((), {}), (("--run.seed", 1), {}), ((), {"encoder": "base"}), ((), {"weights": "mae"}), ((), {"seed": 7})],
)
def test_a_student_that_is_its_teacher_is_told_so(
    flags: Sequence[object],
    other: dict[str, object],
    season: FieldSeason,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checked(season, tmp_path, *flags, **({"encoder": "demo", "weights": "random", "seed": 0} | other))
    said = capsys.readouterr().out
    same = not flags and not other
    assert ("teacher and student do not differ: finetune-007" in said) == ("add --run.seed 1" in said) == same


def test_labels_of_a_classifier_that_was_trained_on_what_is_held_out_are_refused(
    season: FieldSeason, tmp_path: Path
) -> None:
    teacher = {"data": str(season.root), "held_out_fold": 1}
    with pytest.raises(
        AssertionError, match=r"trained on fold 0 that this run would hold out; add --data\.valid_fold 1"
    ):
        checked(season, tmp_path, **teacher)
    checked(season, tmp_path, "--data.valid_fold", 1, **teacher)
    checked(season, tmp_path, **(teacher | {"data": "elsewhere"}))


@pytest.mark.slow
def test_a_run_with_pseudo_labels_that_was_cut_off_ends_with_the_same_weights(
    season: FieldSeason, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of(season, tmp_path / "pseudo")
    shared = ["--preset", "demo", "--run.device", "cpu", "--data.root", str(season.root), "--data.pseudo", str(table)]
    shared += ["--data.cache", str(tmp_path / "cache"), *FLAGS["finetune"], "--run.root"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert finetune(parse(FinetuneCommand, [*shared, str(whole)])) == 0
    with monkeypatch.context() as patch:
        cut_off_at(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            finetune(parse(FinetuneCommand, [*shared, str(cut)]))
    resumed = parse(FinetuneCommand, ["--run.resume", str(cut / "finetune-001")])
    before = table.read_text()
    table.write_text(before.replace("0.75;0.25", "0.75;0.5", 1))
    with pytest.raises(AssertionError, match="the recordings are not those that this run began with"):
        finetune(resumed)
    table.write_text(before)
    assert finetune(resumed) == 0
    assert outcome(cut, "finetune") == outcome(whole, "finetune")


# --- rounds ---------------------------------------------------------------------------------------------------------


def rounds(
    figures: Sequence[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *flags: str
) -> tuple[list[str], list[str]]:
    """The rows of rounds.csv and the teachers of each round, of trainings that would get these figures."""
    runs = [tmp_path / f"finetune-{number}" for number in range(len(figures))]
    runs[0].mkdir()
    (runs[0] / "run.json").write_text('{"status": "finished"}')
    (runs[0] / "classifier.safetensors").touch()
    teachers: list[str] = []

    def label_recordings(config: PseudoLabelCommand) -> tuple[int, int]:
        teachers.append(" ".join(path.name for path in config.model))
        return 0, 10

    def trained(_config: PseudoLabelCommand, _first: Path, number: int, _table: Path) -> Path:
        return runs[number]

    def judged_by(_config: PseudoLabelCommand, run: Path) -> float:
        return figures[runs.index(run)]

    def exported(run: Path, _place: Path) -> Path:
        return Path(f"of-{run.name}")

    replaced: dict[str, Callable[..., Any]] = {
        "label_recordings": label_recordings,
        "trained": trained,
        "judged_by": judged_by,
        "exported": exported,
    }
    for name, function in replaced.items():
        monkeypatch.setattr(command, name, function)
    words = [str(tmp_path), "--out", str(tmp_path / "out"), "--student", str(runs[0]), "--rounds", "3", *flags]
    assert pseudo_label(parse(PseudoLabelCommand, words)) == 0
    return (tmp_path / "out" / "rounds.csv").read_text().splitlines()[1:], teachers


def test_the_rounds_end_when_the_figure_falls_and_name_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, teachers = rounds([0.5, 0.6, 0.55, 0.9], tmp_path, monkeypatch)
    assert [row.split(",")[0] for row in rows] == ["0", "1", "2"] and rows[2].endswith("0.550000,10")
    assert teachers == ["of-finetune-0", "of-finetune-1"], "each is labelled by the one before"
    said = capsys.readouterr().out
    assert "round 2 is worse than round 1: stopping" in said and "the best is round 1; next:" in said


def test_the_rounds_go_on_while_it_does_not_fall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, teachers = rounds([0.5, 0.6, 0.6, 0.7], tmp_path, monkeypatch, "--model", "first.onnx")
    assert len(rows) == 4 and teachers == ["first.onnx", "of-finetune-1", "of-finetune-2"]
    said = capsys.readouterr().out
    assert "stopping" not in said and "the best is round 3" in said


def test_a_round_is_an_ordinary_run_with_another_seed_and_is_not_trained_twice(
    season: FieldSeason, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finetune(parse(FinetuneCommand, words_of(season, tmp_path, "--run.seed", 5))) == 0
    words = [str(season.root / "unlabeled"), "--out", str(tmp_path / "out"), "--sure", "0", "--lowest", "0"]
    words += ["--rounds", "1", "--student", str(tmp_path / "finetune-001")]
    assert pseudo_label(parse(PseudoLabelCommand, words)) == 0
    run = json.loads((tmp_path / "finetune-002" / "run.json").read_text())
    assert run["settings"]["run"]["seed"] == 6 and run["settings"]["train"]["frozen"]
    assert run["settings"]["data"]["pseudo"] == str(tmp_path / "out" / "round-1" / "recordings.csv")
    teachers = json.loads((tmp_path / "out" / "round-1" / "run.json").read_text())["teachers"]
    told = {name: teachers[0][name] for name in ("run", "encoder", "weights", "seed", "held_out_fold")}
    assert told == {"run": "finetune-001", "encoder": "demo", "weights": "random", "seed": 5, "held_out_fold": 0}
    table = (tmp_path / "out" / "round-1" / "recordings.csv").read_bytes()
    capsys.readouterr()
    assert pseudo_label(parse(PseudoLabelCommand, words)) == 0
    assert "round 1 is trained already" in capsys.readouterr().out and not (tmp_path / "finetune-003").exists()
    assert (tmp_path / "out" / "round-1" / "recordings.csv").read_bytes() == table


def test_a_judge_scores_labelled_recordings_with_the_classifier_of_a_run(season: FieldSeason, stages: Stages) -> None:
    """The recordings that the run was trained on are known to it, and labelled the other way round they are not."""
    config = replace(PseudoLabelCommand(), judge=season.root)
    known = command.judged_by(config, stages.classifier.parent)
    held_out = command.judged_by(PseudoLabelCommand(), stages.classifier.parent)
    figures = json.loads((stages.classifier.parent / "run.json").read_text())["scores"]
    assert held_out == figures["cmap"] and 0.5 < known <= 1 and not math.isclose(known, held_out)
