"""The commands by the workers of a cluster: the bytes of one machine, whoever dies; one line where it cannot go on."""

import runtime.privacy  # noqa: F401  # pyright: ignore[reportUnusedImport] - before the engines

import os
import signal
import subprocess
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from pretend import write_beep_model

import data_loader
import predictor
from archive import survey
from config import CollectionSettings, PlaceSettings, PredictCommand, SearchCommand, SurveyCommand
from predictor import predict
from runtime.cluster import SETTINGS, Cluster, open_cluster
from search import search
from serving.analyser import Analyser
from serving.detections import Analysed, Scored
from serving.inputs import Entry
from serving.journal import Journal

pytest.importorskip("distributed", reason="pip install -r requirements-cluster.txt")
RATE = 16_000
SQUEUE = ["squeue", "--me", "--noheader", "--format=%A"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and a season of 24 recordings of 5 to 15 s, some with beeps, one that is none."""
    folder, rng = tmp_path_factory.mktemp("cluster"), np.random.default_rng(0)
    write_beep_model(folder / "beep.onnx", species=2, width=4)
    beep = 0.3 * np.sin(2 * np.pi * 3_000 * np.arange(RATE // 10) / RATE)
    for number in range(24):
        sound = rng.normal(0, 0.01, RATE * (5 + 5 * (number % 3)))
        for start in range(number % 4):
            sound[RATE * start : RATE * start + len(beep)] += beep
        path = folder / "season" / f"site{number % 3}" / f"{number:02}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, sound, RATE)
    (folder / "season" / "site0" / "notes.wav").write_text("The owl called twice, then it rained and I went home.\n")
    return folder


@pytest.fixture(scope="module")
def workers() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SETTINGS, "distributed.comm.timeouts.connect", "3s")
        with open_cluster("local:2") as cluster:
            yield cluster


@pytest.fixture
def at_hand(workers: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """What --cluster opens: the workers that are there."""

    def there(_text: str) -> nullcontext[Cluster]:
        return nullcontext(workers)

    for room in (predictor, survey):
        monkeypatch.setattr(room, "open_cluster", there)
    return workers


def files(folder: Path, parts: bool = True) -> dict[str, bytes]:
    """All files, byte for byte, but what a run says of itself."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    left_out = ("run.json", "lock", "summary.png")
    return {
        name: path.read_bytes()
        for name, path in found.items()
        if path.name not in left_out and (parts or ".parts" not in name)
    }


def command(place: Path, out: Path, **more: Any) -> PredictCommand:
    usual = PredictCommand((place / "season",), model=(place / "beep.onnx",), out=out, min_conf=0.05, scores=True)
    return replace(usual, **more)


@pytest.fixture(scope="module")
def one_machine(place: Path) -> dict[str, bytes]:
    """What one machine alone makes of the season."""
    assert predict(command(place, place / "alone")) == 2
    found = files(place / "alone")
    assert found["detections.csv"].count(b"\n") > 15 and len(found) > 50
    return found


def after_saves(monkeypatch: pytest.MonkeyPatch, count: int, happens: Callable[[], None]) -> None:
    """Have something happen once so many recordings are saved."""
    saved, before = 0, Journal.save

    def save(journal: Journal, entry: Entry, analysed: Analysed, scored: Sequence[Scored]) -> None:
        nonlocal saved
        before(journal, entry, analysed, scored)
        saved += 1
        if saved == count:
            happens()

    monkeypatch.setattr(Journal, "save", save)


def test_tables_and_journal_are_those_of_one_machine_though_a_worker_is_killed_in_the_middle(
    place: Path, one_machine: dict[str, bytes], at_hand: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []

    def kill() -> None:
        killed.append(next(iter(at_hand.client.run(os.getpid).values())))
        os.kill(killed[0], signal.SIGKILL)

    after_saves(monkeypatch, 5, kill)
    assert predict(command(place, tmp_path, cluster="local:2")) == 2
    assert killed and files(tmp_path) == one_machine


@pytest.mark.usefixtures("at_hand")
def test_a_disk_that_is_full_where_the_command_runs_is_one_line_and_the_same_command_goes_on(
    place: Path,
    one_machine: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        after_saves(patch, 5, lambda: patch.setattr("serving.journal.json.dumps", full))
        with pytest.raises(AssertionError, match=r"^disk full: .*make room"):
            predict(command(place, tmp_path, cluster="local:2"))
    capsys.readouterr()
    assert predict(command(place, tmp_path, cluster="local:2")) == 2
    assert "resuming: 5 of 25 recordings are done already" in capsys.readouterr().out
    assert files(tmp_path) == one_machine


def full(*_: object, **__: object) -> str:
    raise OSError(28, "No space left on device")


@pytest.mark.slow
@pytest.mark.usefixtures("at_hand")
def test_an_index_has_the_bytes_of_one_machine(place: Path, tmp_path: Path) -> None:
    usual = SearchCommand("index", (place / "season",), model=place / "beep.onnx")
    for name, cluster in (("alone", ""), ("there", "local:2")):
        assert search(replace(usual, index=tmp_path / name, cluster=cluster)) == 2
    assert files(tmp_path / "there") == files(tmp_path / "alone")
    assert "store.json" in files(tmp_path / "there") and any(
        n.startswith("vectors-") for n in files(tmp_path / "there")
    )


@pytest.mark.slow
@pytest.mark.usefixtures("at_hand")
def test_a_survey_has_the_bytes_of_one_machine(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, cluster in (("alone", ""), ("there", "local:2")):
        monkeypatch.setattr(survey, "LEDGER", tmp_path / f"{name}.sqlite")
        data = CollectionSettings(place / "season", max_bad=0.5)
        assert data_loader.survey(SurveyCommand(data, run=PlaceSettings(tmp_path / name), cluster=cluster)) == 2
        assert "listened to 25 recordings" in capsys.readouterr().out
    tables = [(tmp_path / name / "data" / "recordings.csv").read_bytes() for name in ("alone", "there")]
    assert tables[0] == tables[1] and tables[0].count(b"\n") == 26
    assert data_loader.survey(SurveyCommand(data, run=PlaceSettings(tmp_path / "there"), cluster="local:2")) == 2
    assert "listened to 25" not in capsys.readouterr().out  # the ledger here has what the workers found


@pytest.mark.usefixtures("at_hand")
def test_a_model_that_is_another_one_where_the_worker_is_stops_the_run(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a machine had an older file under the same name."""
    facts = Analyser.facts

    def other(analyser: Analyser) -> dict[str, object]:
        return facts(analyser) | {"model": "0123456789abcdef"}

    monkeypatch.setattr(Analyser, "facts", other)
    with pytest.raises(AssertionError, match=r"^a worker at local:2: its model is another one \(\w+, not 0123456789ab"):
        predict(command(place, tmp_path, cluster="local:2"))


def test_recordings_that_workers_do_not_see_stop_the_run_and_become_no_rows(
    place: Path, tmp_path: Path, at_hand: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a disk were not mounted where the workers are: the folder is there, the recordings are not."""
    hidden = place / "hidden"

    def results(_: Cluster, work: Any, tasks: Any) -> Iterator[Any]:
        for task in tasks:
            moved = [replace(entry, where=hidden / entry.path.name) for entry in task]
            yield task, work(moved)

    at_hand.client.wait_for_workers(2, timeout=120)  # one that another test ended comes again
    monkeypatch.setattr(Cluster, "results", results)
    with pytest.raises(AssertionError, match=r"^a worker at local:2 does not see .*; recordings must lie at the same"):
        predict(command(place, tmp_path, cluster="local:2", threads=1))
    assert at_hand.threads() == 2 and not [path for path in files(tmp_path) if path.endswith("0.json")]


@pytest.mark.slow
def test_four_workers_of_which_one_after_the_other_dies(
    place: Path, one_machine: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clusters: list[Cluster] = []

    @contextmanager
    def opened(text: str) -> Generator[Cluster]:
        with open_cluster(text) as cluster:
            clusters.append(cluster)
            yield cluster

    monkeypatch.setattr(predictor, "open_cluster", opened)
    killed: list[int] = []

    def kill() -> None:
        killed.append(next(iter(clusters[0].client.run(os.getpid).values())))
        os.kill(killed[-1], signal.SIGKILL)

    for count in (3, 7, 11, 15):
        after_saves(monkeypatch, count, kill)
    assert predict(command(place, tmp_path, cluster="local:4")) == 2
    assert len(set(killed)) == 4 and files(tmp_path) == one_machine


def has_slurm() -> bool:
    """Whether jobs can be queued here, and a node takes them."""
    try:
        nodes = subprocess.run(["sinfo", "--noheader", "--format=%t"], capture_output=True, text=True, timeout=20)
        return nodes.returncode == 0 and bool({"idle", "mix"} & set(nodes.stdout.split()))
    except (OSError, subprocess.TimeoutExpired):
        return False


@pytest.mark.slow
def test_jobs_of_a_slurm_that_is_there_give_the_bytes_of_one_machine_though_one_is_cancelled(
    place: Path, one_machine: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dask_jobqueue", reason="pip install -r requirements-cluster.txt")
    if not has_slurm():
        pytest.skip("no Slurm with a free node here: docs/clusters.md says how one is tried")
    monkeypatch.chdir(tmp_path)  # where Slurm writes what its jobs say
    before, cancelled = jobs_there(), list[str]()

    def cancel() -> None:
        cancelled.append(sorted(jobs_there() - before)[0])
        subprocess.run(["scancel", *cancelled], check=True)

    after_saves(monkeypatch, 5, cancel)
    assert predict(command(place, tmp_path / "out", cluster="slurm:2")) == 2
    assert cancelled and files(tmp_path / "out") == one_machine
    assert not set(subprocess.run([*SQUEUE, "--states=PD,R"], capture_output=True, text=True).stdout.split()) - before


def jobs_there() -> set[str]:
    return set(subprocess.run(SQUEUE, capture_output=True, text=True, check=True).stdout.split())
