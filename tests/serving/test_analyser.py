"""An analyser is the same wherever it is opened, or is refused; tasks hold every recording once, in its order."""

import runtime.privacy  # noqa: F401  # pyright: ignore[reportUnusedImport] - before the engines

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from pretend import write_beep_model

from archive.licences import licence_note
from config import PredictCommand
from predictor import run_facts
from runtime.cluster import WORKER
from serving.analyser import (
    MOST_BYTES,
    MOST_OF_A_TASK,
    Analyser,
    AnalyserSettings,
    analyse_here,
    licence_of,
    open_analyser,
    tasks_of,
)
from serving.choices import ChoiceSettings
from serving.inputs import Entry, find_entries


@pytest.fixture(scope="module")
def analyser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Analyser]:
    """Of a model that finds beeps, over a folder with two recordings."""
    folder = tmp_path_factory.mktemp("analyser")
    model = write_beep_model(folder / "beep.onnx", species=2, width=4)
    (folder / "card").mkdir()
    for name in ("one", "two"):
        sound = np.random.default_rng(len(name)).normal(0, 0.01, 80_000)
        sound[:1600] += 0.3 * np.sin(2 * np.pi * 3_000 * np.arange(1600) / 16_000)
        soundfile.write(folder / "card" / f"{name}.wav", sound, 16_000)
    with open_analyser(AnalyserSettings((model,), threads=1, choice=ChoiceSettings(min_conf=0.05))) as opened:
        yield opened
    WORKER.stack.close()


def entries_of(analyser: Analyser) -> list[Entry]:
    return find_entries([analyser.settings.models[0].parent / "card"])[0]


def test_a_worker_makes_of_recordings_what_the_analyser_itself_makes_of_them(analyser: Analyser) -> None:
    entries, where = entries_of(analyser), (Path.cwd(), analyser.settings)
    here = list(analyser.analysed(entries, embeddings=True))
    there = analyse_here(where, analyser.facts(), True, entries)
    assert [(one.outcome, one.analysed) for one in here] == [(outcome, analysed) for outcome, analysed, _ in there]
    assert all(analysed.found for _, analysed, _ in there)
    for one, (_, _, (scored,)) in zip(here, there, strict=True):
        assert np.array_equal(one.scored[0].embeddings, scored.embeddings) and scored.embeddings.shape[1] == 4
    assert [scored for _, _, scored in analyse_here(where, analyser.facts(), False, entries)] == [[], []]


def test_models_with_other_front_ends_are_averaged_and_those_of_other_rates_refused(tmp_path: Path) -> None:
    log = write_beep_model(tmp_path / "log.onnx", lowest_hz=150.0)
    pcen = write_beep_model(tmp_path / "pcen.onnx", compression="pcen", lowest_hz=50.0)
    with open_analyser(AnalyserSettings((log, pcen), threads=1)) as opened:
        assert [scorer.audio.lowest_hz for scorer in opened.scorers] == [50.0, 50.0]
    other = write_beep_model(tmp_path / "other.onnx", sample_rate=32_000)
    more = write_beep_model(tmp_path / "more.onnx", species=2)
    for path, said in ((other, "takes sound with sample_rate 32000"), (more, "differ in their species")):
        with pytest.raises(AssertionError, match=said), open_analyser(AnalyserSettings((log, path), threads=1)):
            raise SystemExit("models were averaged that do not agree")


def test_a_worker_opens_its_models_once(analyser: Analyser, capsys: pytest.CaptureFixture[str]) -> None:
    where = Path.cwd(), replace(analyser.settings, choice=ChoiceSettings(min_conf=0.06))
    facts = {name: value for name, value in analyser.facts().items() if name != "thresholds"}
    for entry in entries_of(analyser):
        analyse_here(where, facts, False, [entry])
    assert capsys.readouterr().out.count("model ") == 1


@pytest.mark.parametrize("name", ["reading", "model", "card", "engine", "thresholds", "voices", "prior", "species"])
def test_a_worker_where_anything_is_another_thing_refuses(name: str, analyser: Analyser) -> None:
    where, facts = (Path.cwd(), analyser.settings), analyser.facts()
    assert set(facts) == {"reading", "model", "card", "engine", "thresholds", "voices", "prior", "species"}
    with pytest.raises(AssertionError, match=f"^its {name} is another one "):
        analyse_here(where, facts | {name: "of another machine"}, False, entries_of(analyser))


def test_a_worker_without_the_folder_in_which_the_command_was_given_refuses(analyser: Analyser, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"^it has no folder .*; all machines need the same folders$"):
        analyse_here((tmp_path / "not there", analyser.settings), analyser.facts(), False, entries_of(analyser))


@pytest.mark.parametrize("count", [0, 1, 7, 63, 64, 1000])
@pytest.mark.parametrize("workers", [0, 1, 4, 100])
def test_every_recording_is_in_one_task_in_the_order_there_is(count: int, workers: int) -> None:
    sizes = np.random.default_rng(count).integers(0, MOST_BYTES, count)
    entries = [Entry(Path(f"{number}.wav"), size=int(size)) for number, size in enumerate(sizes)]
    tasks = list(tasks_of(entries, workers))
    assert [entry for task in tasks for entry in task] == entries and all(tasks)
    assert all(len(task) == 1 or sum(entry.size for entry in task) <= MOST_BYTES for task in tasks)
    assert max(map(len, tasks), default=0) <= MOST_OF_A_TASK
    assert len(tasks) >= min(count, 8 * workers) // 2


def test_what_is_opened_is_the_same_thing_to_be_opened_for_the_same_flags() -> None:
    settings = AnalyserSettings((Path("m.onnx"),), choice=ChoiceSettings(only=("frogs",)))
    assert settings == AnalyserSettings((Path("m.onnx"),), choice=ChoiceSettings(only=("frogs",)))
    assert settings != replace(settings, time_expansion=10) and hash(settings)
    assert settings.threads == PredictCommand().threads and settings.engine == PredictCommand().engine


def test_whoever_uses_a_model_reads_on_what_terms_and_who_helped_to_make_it(analyser: Analyser) -> None:
    (scorer,) = analyser.scorers
    birdnet = {"name": "BirdNET", "license": "CC BY-NC-SA 4.0", "sha256": "ab"}
    note = licence_note([birdnet])
    own = "licence of beep.onnx: cc-by-4.0"
    for provenance, said in (
        ({}, ""),
        ({"license": "cc-by-4.0"}, own),
        ({"teachers": [birdnet]}, f"beep.onnx. {note}"),
        ({"license": "cc-by-4.0", "teachers": [birdnet]}, f"{own}. {note}"),
    ):
        taught = replace(scorer, provenance=provenance)
        assert licence_of(taught) == said
        assert run_facts([taught], []).get("licences", []) == [said] * bool(said)
    assert note.startswith("NON-COMMERCIAL")
