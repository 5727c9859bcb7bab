"""The table of systems: flags that say what their names say, runs of another bench read where they are, blends."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench import systems
from bench.systems import (
    CNN,
    MEMBERS,
    SYSTEMS,
    Found,
    System,
    Truth,
    collect,
    milliseconds,
    minutes,
    print_blend,
    run_of,
)
from bench.whisper import SHARED
from config import FinetuneCommand, QuantizeCommand, parse

ROWS, SPECIES = 60, 4
LABELS = tuple("abcd")
BY_NAME = {system.name: system for system in SYSTEMS}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both benches' runs in a folder of the test's."""
    monkeypatch.setattr(systems, "RUNS", tmp_path / "systems")
    monkeypatch.setattr(systems, "WHISPER", tmp_path / "whisper")
    return tmp_path


def truth() -> Truth:
    """Each species in turn, the first half in fold 0, groups of five rows."""
    due = np.eye(SPECIES, dtype=np.float32)[np.arange(ROWS) % SPECIES]
    paths = [f"/sound/{row}.wav" for row in range(ROWS)]
    fold = (np.arange(ROWS) >= ROWS // 2).astype(np.int64)
    return Truth(due, paths, LABELS, np.array([str(row // 5) for row in range(ROWS)]), fold, [])


def finished(run: Path, scores: float | None = None, fold: int = 0) -> Path:
    """A run's folder as main.py leaves it; every score of the rows of a fold is the same."""
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"status": "finished", "seconds": 60, "scores": {}}))
    lines = ["file,start,end,a,b,c,d"]
    lines += [f"/sound/{row}.wav,0,5" + f",{scores}" * SPECIES for row in np.flatnonzero(truth().fold == fold)]
    if scores is not None:
        (run / "held_out_scores.csv").write_text("\n".join(lines) + "\n")
    return run


def test_each_system_differs_in_what_it_is_named_after_and_all_have_the_same_recordings() -> None:
    parsed = {one.name: parse(FinetuneCommand, [*one.flags, *SHARED]) for one in SYSTEMS}
    assert len({repr(one) for one in parsed.values()}) == len(SYSTEMS) and set(MEMBERS) <= set(parsed)
    assert len({repr(one.data) for one in parsed.values()}) == 1
    for name, config in parsed.items():
        kind, _, more = name.partition("-")
        assert config.encoder.kind == {"cnn": "cnn", "vit": "vit", "whisper": "whisper"}.get(kind, "timm"), name
        assert config.loss.class_weights == (more if more in ("inverse", "sqrt") else "none"), name
        assert (config.audio.compression == "pcen") == (more == "pcen"), name
        assert config.train.frozen == (more == "frozen"), name
    same = [parsed[f"vit{more}"] for more in ("", "-inverse", "-sqrt")]
    assert len({repr((one.train, one.augment, one.head, one.audio)) for one in same}) == 1
    assert {one.loss.kind for one in same} == {"ce"}


def test_a_run_of_bench_whisper_is_taken_where_it_holds_the_fold_out_and_ours_where_there_is_none(here: Path) -> None:
    frozen = BY_NAME["whisper-frozen"]
    assert run_of(frozen, 1) is None
    ours = finished(systems.of(frozen, 1) / "trained" / "finetune")
    assert run_of(frozen, 1) == ours
    finished(here / "whisper" / "c-0-0" / "finetune")
    assert run_of(frozen, 1) == ours  # of another fold
    run = finished(here / "whisper" / "c-0-1-3" / "finetune")
    assert run_of(frozen, 1) == run / "fold-1" and run_of(frozen, 0) == here / "whisper" / "c-0-0" / "finetune"
    assert run_of(BY_NAME["whisper"], 1) is None  # row d is not there
    (run / "run.json").write_text('{"status": "failed"}')
    assert run_of(frozen, 1) == ours


def test_a_system_is_found_where_all_its_folds_are_there_and_each_fold_has_its_own_answers(here: Path) -> None:
    system, due = System("cnn", "a network", CNN), truth()
    for fold in (0, 1):
        trained = systems.of(system, fold) / "trained"
        finished(trained / "finetune-001", 0.2 + 0.5 * fold, fold)
        (trained / "finetune").symlink_to("finetune-001")
        assert collect(system, (0, 1), due) is None
        np.save(systems.of(system, fold) / "soundscapes.npy", np.full((3, SPECIES), fold, np.float32))
    both, second = (collect(system, folds, due) for folds in ((0, 1), (1,)))
    assert both and second and (here / "systems" / "cnn-0").is_dir()
    assert np.allclose(both.recordings[:30], 0.2) and np.allclose(both.recordings[30:], 0.7)
    assert second.recordings.shape == (30, SPECIES) and np.allclose(second.recordings, 0.7)
    assert both.soundscapes[:, 0].tolist() == [0, 0, 0, 1, 1, 1] and [one["seconds"] for one in both.facts] == [60, 60]


def answered(name: str, clear: slice, letter: str = "") -> Found:
    """Answers that are right for some species and chance for the others."""
    rng = np.random.default_rng(len(name))
    due = truth().recordings
    logits = rng.normal(0, 1, due.shape)
    logits[:, clear] += 4 * due[:, clear]
    scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return Found(System(name, name, (), letter), scores, scores, {}, [])


def test_a_blend_is_compared_with_each_alone_and_the_better_of_the_other_networks_is_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def field(_folds: object, _labels: object) -> tuple[systems.Table, NDArray[np.str_]]:
        return truth().recordings, truth().groups

    monkeypatch.setattr(systems, "field_truth", field)
    whisper, good, bad = answered("w", slice(0, 2), "d"), answered("good", slice(2, 4)), answered("bad", slice(0, 0))
    print_blend([whisper, bad, good], truth(), (0, 1))
    said = capsys.readouterr().out
    assert "w and good, blended" in said
    (line,) = (line for line in said.splitlines() if line.startswith("| recordings"))
    gains = [cell.split()[0] for cell in line.split("|")[3:5]]
    assert all(float(gained) > 0.1 for gained in gains)  # each knows what the other does not
    print_blend([good, bad], truth(), (0, 1))
    assert "no blend" in capsys.readouterr().out


def test_members_are_blended_with_equal_weights_as_fitted_ones_would_be_judged_on_what_they_were_fitted_on(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(words: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        config = parse(QuantizeCommand, words[2:])
        assert config.blend.weights == "equal" and len(config.classifier) == 2 and config.gate.allow_worse
        card = config.run.root / "quantize-001" / "quantize.json"
        card.parent.mkdir()
        card.write_text('{"gate": "passed"}')
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(subprocess, "run", run)
    found = systems.quantised([here / "one", here / "other"], here / "ensemble")
    assert found["gate"] == "passed" and Path(found["path"]).name == "classifier.int8.onnx"


def test_minutes_are_of_a_fold_and_what_the_gate_refuses_is_marked_beside_its_milliseconds() -> None:
    runs = [{"seconds": 1200, "settings": {"train": {"folds": folds}}} for folds in ([], [0, 1, 2, 3])]
    assert [minutes(run) for run in runs] == [20.0, 5.0]
    card = {"gate": "passed", "int8": {"milliseconds_per_window": 3.14}}
    assert (milliseconds(card), milliseconds(card | {"gate": "refused"}), milliseconds(None)) == (
        "3.1",
        "3.1, refused",
        "",
    )
