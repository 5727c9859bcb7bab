"""Self-training: labels are the classifiers' scores window by window, and every brake holds."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest
import soundfile
import torch
from conftest import ExportOnce, Stages
from onnx import numpy_helper
from test_states import FLAGS, cut_off_at, outcome
from test_zoo import loudness_model

import main
import pseudo_label as command
from archive.pseudo_labels import apart_from, read_pseudo_labels
from archive.recordings import Recording, read_recordings, write_recordings
from archive.survey import heard_by, sound_marks, sounds_marked
from config import (
    SIZES,
    SOUNDS,
    AnyEncoderSettings,
    AudioSettings,
    DataSettings,
    FinetuneCommand,
    LabelledSettings,
    PseudoLabelCommand,
    parse,
)
from data_loader import Context, labeled_loader, read_labeled, recording_contexts
from demo_data import FieldSeason
from main import Plan, check_labelling_models, finetune, provenance_of
from model import BirdClefClassifier, Encoder
from pseudo_label import pseudo_label
from runtime.digests import sha256
from runtime.files import as_json
from serving.scorer import Scorer, open_scorer, score
from sounds.discovery import find_recordings
from training.checkpoint import load_any_encoder, load_classifier, save_classifier
from training.frozen import features_key
from training.objective import prepare_loss_inputs
from training.states import begun_with

pytestmark = pytest.mark.usefixtures("undrawn")


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


def test_of_several_classifiers_the_mean_logit_counts(field: Path, model: Path, tmp_path: Path) -> None:
    other = onnx.load(model)
    ceiling = next(one for one in other.graph.initializer if one.name == "all")
    ceiling.CopyFrom(numpy_helper.from_array(np.array(0.5, np.float32), "all"))
    onnx.save(other, tmp_path / "half.onnx")
    found = label(field, model, "--model", tmp_path / "half.onnx")
    assert [scores for _, _, _, scores in found] == [(0.6667,), (0.9087,), (0.5505,)]  # the mean of logits
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


def test_a_judge_that_does_not_say_its_site_is_named(
    field: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("Strix aluco", "Bubo bubo"):
        write_windows(tmp_path / "judge" / folder / "noon.wav", *[0.5] * len(folder))
    (field / "pond").rename(field / "Strix aluco")
    found = label(field, model, "--judge", tmp_path / "judge")
    assert sorted(row[0] for row in found) == ["H21", "H21", "Strix aluco"]
    assert "none of the 2 recordings of" in (said := capsys.readouterr().out) and "says where it was made" in said
    shutil.copyfile(field / "Strix aluco" / "dawn.wav", tmp_path / "judge" / "Bubo bubo" / "copy.wav")
    assert [row[0] for row in label(field, model, "--judge", tmp_path / "judge")] == ["H21", "H21"]
    (tmp_path / "judge" / "Bubo bubo" / "copy.wav").unlink()
    capsys.readouterr()
    write_windows(tmp_path / "judge" / "Bubo bubo" / "H21_20230511_051500.wav", 0.5)
    assert [row[0] for row in label(field, model, "--judge", tmp_path / "judge")] == ["Strix aluco"]
    assert "says where it was made" not in capsys.readouterr().out


def test_windows_of_a_site_that_main_holds_out_are_not_learnt_from_whose_folder_alone_says_it(
    field: Path, model: Path, tmp_path: Path
) -> None:
    label(field, model)
    for site in ("pond", "ridge"):
        write_windows(tmp_path / "annotated" / site / "noon.wav", *[0.5] * len(site))
    table = tmp_path / "annotated" / "annotations.csv"
    table.write_text("filename,start,end,species\npond/noon.wav,0,5,burst\nridge/noon.wav,0,5,burst\n")
    _, rows = read_labeled(DataSettings(tmp_path / "annotated"))
    pseudo = read_pseudo_labels(tmp_path / "pseudo" / "recordings.csv", ("burst",))
    parts = [[row for row in rows if row.path.parent.name == site] for site in ("pond", "ridge")]
    assert [row.site for row in apart_from(pseudo, parts[1], parts[0])] == ["H21", "H21"]
    assert apart_from(pseudo, parts[0], parts[1]) == pseudo


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


def table_of(season: FieldSeason, folder: Path, *others: dict[str, Any], **teacher: object) -> Path:
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
    said = {"status": "finished", "teachers": [teacher or {"model": "an owl's"}, *others]}
    (folder / "run.json").write_text(json.dumps(said))
    return folder / "recordings.csv"


def words_of(season: FieldSeason, root: Path, *more: object) -> list[str]:
    """A quick training: the head alone, on the lowest layer."""
    flags = ["--preset", "demo", "--data.root", season.root, "--data.cache", root / "cache", "--run.device", "cpu"]
    flags += ["--run.root", root, "--train.frozen", "--train.head_updates", 20, "--train.head_passes", 1]
    flags += ["--encoder.depth", 1]
    return [*map(str, flags), "--encoder.weights", "random", *map(str, more)]


def test_training_learns_from_pseudo_labels_says_where_they_are_from_and_hands_on_their_licences(
    few: FieldSeason, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a labelling classifier's own teacher, and of a published classifier that labelled."""
    birdnet = {"name": "BirdNET", "license": "CC BY-NC-SA 4.0", "sha256": "0" * 64}
    scorer = replace(open_scorer(model), provenance={"license": "cc-by-nc-4.0", "held_out_fold": 1})
    (published,) = command.facts_of(scorer)
    table = table_of(few, tmp_path / "pseudo", published, run="finetune-007", seed=3, teachers=[birdnet])
    assert finetune(parse(FinetuneCommand, words_of(few, tmp_path, "--data.pseudo", table))) == 0
    said = capsys.readouterr().out
    assert "of the training windows have pseudo-labels" in said and "do not differ" not in said
    helpers = f"BirdNET (licence: CC BY-NC-SA 4.0), {model.name} (licence: cc-by-nc-4.0)"
    assert f"NON-COMMERCIAL: made with the help of {helpers}" in said
    run = tmp_path / "finetune-001"
    _, facts = load_classifier(run / "classifier.safetensors")
    named = {"table": str(table), "windows": 3, "teachers": ["finetune-007", "unknown"]}
    assert facts.provenance["pseudo_labels"] == named
    known = {"name": model.name, "license": "cc-by-nc-4.0", "sha256": scorer.sha256}
    assert facts.provenance["teachers"] == [birdnet, known]
    learnt = [row.path for row in (*read_recordings(run / "training_recordings.csv"), *read_recordings(table))]
    held_out = [row.path for row in read_recordings(run / "held_out_recordings.csv")]
    written, band = str(facts.provenance["trained_on"]), heard_by(facts.audio)
    assert sounds_marked(held_out, written, band) == [] and sounds_marked(learnt, written, band) == sorted(set(learnt))
    assert json.loads((run / "run.json").read_text())["pseudo_labels"] == sha256(table)


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
    valid = [Recording(season.soundscape, season.soundscape.name)]
    check_labelling_models(config, [Plan(config.data.valid_fold, "random", [], valid)], layers=3)


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


@pytest.mark.parametrize("facts", [{"data": "/elsewhere"}, {"held_out_fold": 0}, {"data": "runs/data/recordings.csv"}])
def test_a_classifier_that_was_trained_on_what_is_held_out_is_known_by_its_recordings(
    facts: dict[str, object], season: FieldSeason, tmp_path: Path
) -> None:
    band = heard_by(parse(FinetuneCommand, words_of(season, tmp_path)).audio)
    others = sorted((season.root / "unlabeled").glob("*.flac"))
    teacher = {"data": str(season.root), "held_out_fold": 1, "trained_on": sound_marks(others, band), **facts}
    checked(season, tmp_path, **teacher)
    teacher["trained_on"] = sound_marks([*others, season.soundscape], band)
    with pytest.raises(AssertionError, match=r"trained on 1 of the 1 recordings that this run would hold out, such as"):
        checked(season, tmp_path, **teacher)


def test_of_an_ensemble_every_member_is_remembered() -> None:
    members = [{"run": f"finetune-00{fold}", "held_out_fold": fold, "trained_on": f"0{fold}" * 5} for fold in (1, 2)]

    def facts_of(provenance: dict[str, object]) -> list[dict[str, Any]]:
        facts = SimpleNamespace(provenance=provenance, path=Path("e.onnx"), sha256="0", encoder="demo")
        return command.facts_of(cast(Scorer, facts))

    found = facts_of({"members": members})
    assert [{name: one[name] for name in members[0]} for one in found] == members
    assert {one["encoder"] for one in found} == {"one of several"}, "none of them is the teacher by itself"
    refitted = facts_of({"members": members, "trained_on": "ff" * 5})
    assert [one["trained_on"] for one in refitted] == ["ff" * 5 + str(one["trained_on"]) for one in members]
    assert facts_of({"run": "finetune-003"}) == [
        {"model": "e.onnx", "sha256": "0", "encoder": "demo", "weights": "", "run": "finetune-003"}
    ]


def test_what_was_not_learnt_from_is_not_said_to_be(season: FieldSeason, tmp_path: Path) -> None:
    marks = "0" * 10
    table = table_of(season, tmp_path / "pseudo", run="finetune-007", trained_on=marks, teachers=[{"name": "BirdNET"}])
    config = parse(FinetuneCommand, words_of(season, tmp_path, "--data.pseudo", table))
    without = provenance_of(Plan(0, "random", [], []), config, "finetune-001", 3)
    assert "pseudo_labels" not in without and without["teachers"] == [] and without["trained_on"] == ""
    learnt = provenance_of(Plan(0, "random", [], [], read_recordings(table)), config, "finetune-001", 3)
    assert learnt["pseudo_labels"] == {"table": str(table), "windows": 8, "teachers": ["finetune-007"]}
    assert learnt["teachers"] == [{"name": "BirdNET"}]
    assert marks in str(learnt["trained_on"]), "what the teacher was trained on counts too"


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


def pretend_rounds(figures: Sequence[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The teachers of each round that is begun from now on, of trainings that would get these figures."""
    runs = [tmp_path / f"finetune-{number}" for number in range(len(figures))]
    for run in runs:
        run.mkdir()
        (run / "run.json").write_text('{"status": "finished"}')
        (run / "classifier.safetensors").touch()
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
    return teachers


def self_trained(tmp_path: Path, *flags: str) -> list[str]:
    """The rows of rounds.csv after three rounds or fewer."""
    words = [str(tmp_path), "--out", str(tmp_path / "out"), "--rounds", "3", *flags]
    assert pseudo_label(parse(PseudoLabelCommand, words)) == 0
    return (tmp_path / "out" / "rounds.csv").read_text().splitlines()[1:]


def rounds(
    figures: Sequence[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *flags: str
) -> tuple[list[str], list[str]]:
    """The rows of rounds.csv and the teachers of each round, of trainings that would get these figures."""
    teachers = pretend_rounds(figures, tmp_path, monkeypatch)
    return self_trained(tmp_path, "--student", str(tmp_path / "finetune-0"), *flags), teachers


def test_the_link_to_the_newest_run_leads_to_the_best_round_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python quantize.py` without more takes what runs/finetune leads to."""
    pretend_rounds([0.5, 0.6, 0.55], tmp_path, monkeypatch)
    link = tmp_path / "finetune"
    for newest, best in ((2, 1), (7, 7)):  # of these rounds; of a training that somebody began since
        (tmp_path / f"finetune-{newest}").mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(f"finetune-{newest}")
        self_trained(tmp_path, "--student", str(tmp_path / "finetune-0"))
        assert link.is_symlink() and link.readlink() == Path(f"finetune-{best}")


def test_the_same_command_goes_on_with_its_round_0_though_the_link_to_the_newest_run_has_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    teachers, link = pretend_rounds([0.5, 0.6, 0.55], tmp_path, monkeypatch), tmp_path / "finetune"
    link.symlink_to("finetune-0")

    def stopped(_config: PseudoLabelCommand) -> tuple[int, int]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(command, "label_recordings", stopped)
        self_trained(tmp_path, "--student", str(link))
    link.unlink()
    link.symlink_to("finetune-1")
    rows = self_trained(tmp_path, "--student", str(link))
    assert "finetune is finetune-1 now; going on with finetune-0" in capsys.readouterr().out
    assert [Path(row.split(",")[1]).name for row in rows] == ["finetune-0", "finetune-1", "finetune-2"]
    assert self_trained(tmp_path, "--student", str(link), "--restart") == rows, "nor does --restart make it round 0"
    assert teachers == ["of-finetune-0", "of-finetune-1"] * 2
    with pytest.raises(AssertionError, match=r"rounds\.csv began with .*finetune-0, and --student is .*finetune-1"):
        self_trained(tmp_path, "--student", str(tmp_path / "finetune-1"))
    assert self_trained(tmp_path, "--student", str(tmp_path / "finetune-0")) == rows


def test_the_rounds_end_when_the_figure_falls_and_name_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, teachers = rounds([0.5, 0.6, 0.55, 0.9], tmp_path, monkeypatch)
    assert [row.split(",")[0] for row in rows] == ["0", "1", "2"] and rows[2].endswith("0.550000,10")
    assert teachers == ["of-finetune-0", "of-finetune-1"], "each is labelled by the one before"
    said = capsys.readouterr().out
    assert "round 2 is worse than round 1: stopping" in said and "the best is round 1; next:" in said
    assert "labelled soundscapes judge that (--judge)" in said


def test_the_rounds_go_on_while_it_does_not_fall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, teachers = rounds([0.5, 0.6, 0.6, 0.7], tmp_path, monkeypatch, "--model", "first.onnx")
    assert len(rows) == 4 and teachers == ["first.onnx", "of-finetune-1", "of-finetune-2"]
    said = capsys.readouterr().out
    assert "stopping" not in said and "the best is round 3" in said


@pytest.fixture(scope="module")
def student(few: FieldSeason, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a seed of its own."""
    root = tmp_path_factory.mktemp("student")
    assert finetune(parse(FinetuneCommand, words_of(few, root, "--run.seed", 5))) == 0
    return root / "finetune-001"


@pytest.fixture
def exported_once(export_once: ExportOnce, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.export.write_float", export_once)


@pytest.mark.usefixtures("exported_once")
def test_a_round_is_an_ordinary_run_with_another_seed_and_is_not_trained_twice(
    student: Path, few: FieldSeason, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(few.root / "unlabeled"), "--out", str(tmp_path / "out"), "--sure", "0", "--lowest", "0"]
    words += ["--rounds", "1", "--student", str(student)]
    assert pseudo_label(parse(PseudoLabelCommand, words)) == 0
    run = json.loads((student.with_name("finetune-002") / "run.json").read_text())
    assert run["settings"]["run"]["seed"] == 6 and run["settings"]["train"]["frozen"]
    assert run["settings"]["data"]["pseudo"] == str(tmp_path / "out" / "round-1" / "recordings.csv")
    teachers = json.loads((tmp_path / "out" / "round-1" / "run.json").read_text())["teachers"]
    told = {name: teachers[0][name] for name in ("run", "weights", "seed", "held_out_fold")}
    assert told == {"run": "finetune-001", "weights": "random", "seed": 5, "held_out_fold": 0}
    assert teachers[0]["encoder"] == "demo, the lowest 1 of 3 layers"
    table = (tmp_path / "out" / "round-1" / "recordings.csv").read_bytes()
    capsys.readouterr()
    assert pseudo_label(parse(PseudoLabelCommand, words)) == 0
    said = capsys.readouterr().out
    assert "round 1 is trained already" in said and not student.with_name("finetune-003").exists()
    assert (tmp_path / "out" / "round-1" / "recordings.csv").read_bytes() == table


def test_what_is_called_runs_mae_stays_the_encoder_that_a_run_began_with(
    student: Path, few: FieldSeason, stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever goes on with the run, and in the rounds that learn from it, though stage 1 has been run again since."""

    def told(weights: str) -> FinetuneCommand:
        return parse(FinetuneCommand, ["--preset", "demo", "--encoder.weights", weights])

    assert "weights" not in json.loads((student / "run.json").read_text()), "random weights are no file"
    assert begun_with(student, told("random")) == "random"
    first, link = tmp_path / "mae-001", tmp_path / "mae"
    for folder in (first, tmp_path / "mae-002"):
        shutil.copytree((stages.runs / "mae").resolve(), folder)
    (first / "blob").write_bytes((first / "encoder.safetensors").read_bytes())
    (first / "encoder.safetensors").unlink()
    (first / "encoder.safetensors").symlink_to("blob")  # as in a cache of the hub
    link.symlink_to(first)
    given, own = str(link / "encoder.safetensors"), str(first / "encoder.safetensors")
    asked, real = list[str](), load_any_encoder

    def load(settings: AnyEncoderSettings, audio: AudioSettings) -> Any:
        asked.append(settings.weights)
        return real(settings, audio)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "load_any_encoder", load)
    with monkeypatch.context() as patch:
        patch.setattr(main, "train_plan", stopped)
        with pytest.raises(KeyboardInterrupt):
            finetune(parse(FinetuneCommand, words_of(few, tmp_path / "runs", "--encoder.weights", given)))
    run = tmp_path / "runs" / "finetune-001"
    assert begun_with(run, told(given)) == given, "nothing has moved yet"
    link.unlink()
    link.symlink_to(tmp_path / "mae-002")
    # whoever goes on
    assert finetune(parse(FinetuneCommand, ["--run.resume", str(run)])) == 0
    facts = json.loads((run / "run.json").read_text())
    assert asked == [given, own] and facts["weights"] == own and facts["settings"]["encoder"]["weights"] == given
    assert load_classifier(run / "classifier.safetensors")[1].provenance["encoder"] == own
    # the rounds
    wanted = list[str]()

    def begun(config: FinetuneCommand) -> int:
        wanted.append(config.encoder.weights)
        return 1

    monkeypatch.setattr(main, "finetune", begun)
    table = table_of(few, tmp_path / "pseudo")
    config = parse(PseudoLabelCommand, [str(few.root), "--rounds", "1", "--student", str(run)])
    with pytest.raises(AssertionError, match="round 1 was not trained"):
        command.trained(config, run, 1, table)
    assert wanted == [own]
    # what is gone is said
    (run / "run.json").write_text(json.dumps(facts | {"weights": str(tmp_path / "nowhere"), "status": "failed"}))
    with pytest.raises(AssertionError, match=r"nowhere, which finetune-001 was begun with, is gone, and .*start a new"):
        begun_with(run, told(given))
    with pytest.raises(AssertionError, match=r"nowhere, which finetune-001 was begun with, is gone"):
        finetune(parse(FinetuneCommand, ["--run.resume", str(run)]))


def test_a_judge_is_listened_to_as_the_classifier_hears_and_at_the_speed_of_the_season(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[object] = []

    def load_classifier(_path: Path) -> tuple[None, SimpleNamespace]:
        return None, SimpleNamespace(audio=SOUNDS["bat"], provenance={})

    def read(data: LabelledSettings, band: object) -> None:
        asked.extend((data.root, data.time_expansion, band))
        raise KeyboardInterrupt

    monkeypatch.setattr("training.checkpoint.load_classifier", load_classifier)
    monkeypatch.setattr("data_loader.read_labeled", read)
    with pytest.raises(KeyboardInterrupt):
        command.judged_by(replace(PseudoLabelCommand(), judge=tmp_path, time_expansion=10), tmp_path)
    assert asked == [tmp_path, 10, heard_by(SOUNDS["bat"])] and heard_by(SOUNDS["bat"]) != heard_by(AudioSettings())


def test_a_begun_round_goes_on_if_it_learns_from_the_same_table(
    season: FieldSeason, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, table = tmp_path / "runs", table_of(season, tmp_path / "round-1")
    first = parse(FinetuneCommand, words_of(season, root))
    asked: list[FinetuneCommand] = []

    def write_run(number: int, config: FinetuneCommand, status: str, learnt: str) -> Path:
        facts = {"name": f"finetune-{number:03}", "status": status, "settings": config, "pseudo_labels": learnt}
        facts |= {"host": "", "pid": 1, "started": ""}
        (root / f"finetune-{number:03}").mkdir(parents=True)
        (root / f"finetune-{number:03}" / "run.json").write_text(json.dumps(facts, default=as_json))
        return root / f"finetune-{number:03}"

    def pretend(config: FinetuneCommand) -> int:
        asked.append(config)
        write_run(10 + len(asked), replace(config, run=replace(config.run, resume=None)), "finished", sha256(table))
        return 0

    monkeypatch.setattr("main.finetune", pretend)
    begun_from = write_run(1, first, "finished", "")
    wanted = replace(first, data=replace(first.data, pseudo=table), run=replace(first.run, seed=first.run.seed + 1))
    other = write_run(2, wanted, "interrupted", "of another table")
    command.trained(PseudoLabelCommand(), begun_from, 1, table)
    assert asked.pop().run.resume is None, "that of another table is left alone"
    shutil.rmtree(root / "finetune-011")
    own = write_run(3, wanted, "interrupted", sha256(table))
    assert command.trained(PseudoLabelCommand(), begun_from, 1, table) == root / "finetune-011"
    assert asked.pop().run.resume == own and other != own
    assert command.trained(PseudoLabelCommand(), begun_from, 1, table) == root / "finetune-011" and not asked
    path = root / "finetune-011" / "run.json"  # of an earlier version, which did not know a flag
    facts = json.loads(path.read_text())
    assert facts["settings"]["data"].pop("pseudo_place") == "added"
    path.write_text(json.dumps(facts))
    assert command.trained(PseudoLabelCommand(), begun_from, 1, table) == root / "finetune-011" and not asked
    del facts["settings"]["data"]["pseudo"]  # nor does a flag that is given become one that came later
    path.write_text(json.dumps(facts))
    path.parent.rename(root / "finetune-004")
    shutil.rmtree(own)
    command.trained(PseudoLabelCommand(), begun_from, 1, table)
    assert asked


@pytest.mark.usefixtures("exported_once")
def test_a_judge_is_not_what_a_run_was_trained_on(student: Path, few: FieldSeason, tmp_path: Path) -> None:
    judge = tmp_path / "judge"
    with pytest.raises(AssertionError, match=r"was trained on \d+ of the \d+ recordings of --judge, such as"):
        command.judged_by(replace(PseudoLabelCommand(), judge=few.root), student)
    judge.mkdir()
    shutil.copyfile(few.root / "taxonomy.csv", judge / "taxonomy.csv")
    write_recordings(judge / "recordings.csv", read_recordings(student / "held_out_recordings.csv"))
    as_held_out = command.judged_by(replace(PseudoLabelCommand(), judge=judge / "recordings.csv"), student)
    assert command.judged_by(PseudoLabelCommand(), student) == pytest.approx(as_held_out, abs=1e-4)
    model = command.exported(student, tmp_path)
    words = [str(few.root / "unlabeled"), "--model", str(model), "--out", str(tmp_path / "out")]
    with pytest.raises(AssertionError, match=r"teacher-.*onnx, which labels, was trained on \d+ of the \d+ recordings"):
        pseudo_label(parse(PseudoLabelCommand, [*words, "--judge", str(few.root)]))
    # of a classifier of an earlier version its table of recordings says it
    network, facts = load_classifier(student / "classifier.safetensors")
    del facts.provenance["trained_on"]
    save_classifier(tmp_path / "classifier.safetensors", network, facts)
    shutil.copyfile(student / "training_recordings.csv", tmp_path / "training_recordings.csv")
    with pytest.raises(AssertionError, match=r"was trained on \d+ of the \d+ recordings of --judge"):
        command.judged_by(replace(PseudoLabelCommand(), judge=few.root), tmp_path)
