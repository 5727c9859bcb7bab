"""Recordings at a server: the tables of a folder here, from S3, Google and over HTTP; what fails there is a row, code
2."""

import runtime.privacy  # noqa: F401  # pyright: ignore[reportUnusedImport] - before the engines

import csv
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import soundfile
from pretend import write_beep_model
from served import Served, serving

import data_loader
from archive import survey
from archive.recordings import Recording, write_recordings
from config import CollectionSettings, PlaceSettings, PredictCommand, SearchCommand, SurveyCommand
from predictor import predict
from runtime import addresses
from search import search

WANTED = {"aiohttp", "s3fs", "moto", "flask"}
pytestmark = pytest.mark.skipif(not find_spec("aiohttp"), reason="pip install -r requirements-cluster.txt")
SECRET = "s3cret-Key0000000000"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and a folder with recordings of several kinds, one that is none."""
    folder, rng = tmp_path_factory.mktemp("elsewhere"), np.random.default_rng(0)
    write_beep_model(folder / "beep.onnx", species=2, width=4)
    for number, name in enumerate(("pond/20260514_053000.wav", "pond/a.flac", "ridge/b.ogg", "ridge/c.mp3")):
        sound = rng.normal(0, 0.01, 16_000 * 7)
        sound[16_000 * number : 16_000 * number + 1600] += 0.3 * np.sin(np.pi * 3 / 8 * np.arange(1600))
        path = folder / "season" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, sound, 16_000)
    (folder / "season" / "notes.wav").write_text("The owl called twice, then it rained and I went home.\n")
    (folder / "season" / "notes.txt").write_text("no recording")
    return folder


@pytest.fixture(scope="module")
def bucket(place: Path) -> Iterator[str]:
    """The same folder in a bucket of S3's, on the loopback; credentials in the environment."""
    if absent := sorted(name for name in WANTED if not find_spec(name)):
        pytest.skip(f"{', '.join(absent)}: pip install -r requirements-dev.txt")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        host, port = server.get_host_and_port()
        settings = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "AKIAPRETEND"}
        for name, value in (settings | {"AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}).items():
            patch.setenv(name, value)
        addresses.server_of.cache_clear()
        there: Any = fsspec.filesystem("s3", skip_instance_cache=True)
        there.mkdir("archive")
        there.put(str(place / "season"), "archive/season", recursive=True)
        yield "s3://archive/season"
    addresses.server_of.cache_clear()
    server.stop()


@pytest.fixture(scope="module")
def google(place: Path) -> Iterator[str]:
    """The same folder in a bucket of Google's, on the loopback."""
    if absent := sorted(name for name in ("gcsfs", "gcp_storage_emulator") if not find_spec(name)):
        pytest.skip(f"{', '.join(absent)}: pip install -r requirements-dev.txt")
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="archive")
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        port = server._api._httpd.server_address[1]
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        patch.setenv("NO_GCE_CHECK", "true")  # whether this is a machine of Google's is not asked
        patch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
        addresses.server_of.cache_clear()
        addresses.server_of("gs").put(str(place / "season"), "archive/season", recursive=True)
        yield "gs://archive/season"
    addresses.server_of.cache_clear()
    server.stop()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def command(place: Path, out: Path, *inputs: Path | str, **more: Any) -> PredictCommand:
    usual = PredictCommand(tuple(map(Path, inputs)), model=(place / "beep.onnx",), out=out, min_conf=0.02, scores=True)
    return replace(usual, **more)


def without_roots(folder: Path, root: str) -> dict[str, bytes]:
    """The tables of a folder, with names as they are below the root."""
    found = {path.name: path for path in folder.rglob("*.[ct][sx][vt]") if ".parts" not in path.parts}
    return {name: path.read_bytes().replace(root.encode(), b"ROOT") for name, path in found.items()}


def test_a_bucket_gives_the_tables_of_the_folder_it_is_a_copy_of_and_none_holds_its_credentials(
    place: Path, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(command(place, tmp_path / "here", place / "season")) == 2
    assert predict(command(place, tmp_path / "there", bucket)) == 2
    here, there = without_roots(tmp_path / "here", str(place / "season")), without_roots(tmp_path / "there", bucket)
    assert here.keys() == there.keys() and here["detections.csv"] == there["detections.csv"]
    assert here["scores.csv"] == there["scores.csv"] and here["detections.csv"].count(b"\n") >= 5
    status = {row["file"]: row["status"] for row in rows(tmp_path / "there" / "files.csv")}
    assert status[f"{bucket}/pond/a.flac"] == "ok" and status[f"{bucket}/notes.wav"] == "unreadable"
    assert len(status) == 5 and rows(tmp_path / "there" / "files.csv")[0]["recorded_at"] in ("", "2026-05-14T05:30:00")
    with pytest.raises(AssertionError, match="holds credentials"):
        predict(command(place, tmp_path / "other", f"https://owl:{SECRET}@example.org/a.wav"))
    assert not (tmp_path / "other").exists()
    said = capsys.readouterr()
    texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(texts) > 8 and not [text for text in (*texts, (said.out + said.err).encode()) if SECRET.encode() in text]


def test_a_bucket_of_googles_gives_and_takes_the_same_tables(place: Path, google: str, tmp_path: Path) -> None:
    assert predict(command(place, tmp_path / "here", place / "season")) == 2
    assert predict(command(place, Path("gs://archive/results"), google, runs=tmp_path / "runs")) == 2
    there: Any = addresses.server_of("gs")
    for name in ("detections.csv", "scores.csv", "files.csv", "run.json"):
        sent = there.cat_file(f"archive/results/{name}")
        here = (tmp_path / "here" / name).read_bytes().replace(str(place / "season").encode(), google.encode())
        assert sent.count(b"\n") >= 5 and (sent == here or name in ("files.csv", "run.json"))
    status = {
        row["file"]: row["status"]
        for row in csv.DictReader(there.cat_file("archive/results/files.csv").decode().splitlines())
    }
    assert (
        status[f"{google}/pond/a.flac"] == "ok" and status[f"{google}/notes.wav"] == "unreadable" and len(status) == 5
    )


@pytest.mark.slow
def test_a_run_that_was_cut_off_goes_on_with_what_is_left_in_the_bucket(
    place: Path, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(command(place, tmp_path, f"{bucket}/pond/a.flac")) == 0
    assert predict(command(place, tmp_path, bucket)) == 2
    assert "resuming: 1 of 5 recordings are done already" in capsys.readouterr().out


@pytest.mark.usefixtures("bucket")
def test_tables_that_are_sent_are_those_of_a_folder_here_and_run_json_comes_last(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there: Any = addresses.server_of("s3")
    sent: list[str] = []
    put = there.put_file

    def seen(here: str, name: str) -> None:
        sent.append(name)
        put(here, name)

    monkeypatch.setattr(there, "put_file", seen)
    pond = place / "season" / "pond"
    assert predict(command(place, tmp_path / "here", pond)) == 0
    assert predict(command(place, Path("s3://archive/results/pond"), pond, runs=tmp_path / "runs")) == 0
    here = {path.relative_to(tmp_path / "here").as_posix(): path for path in (tmp_path / "here").rglob("*.[ct]*[vt]")}
    assert {"detections.csv", "files.csv", "scores.csv", "exports/raven.selections.txt"} <= here.keys()
    for name, path in here.items():
        assert there.cat_file(f"archive/results/pond/{name}") == path.read_bytes()
    assert sent[-1] == "archive/results/pond/run.json" and len(sent) == len(here) + 1
    assert f"sent {len(sent)} files to s3://archive/results/pond" in capsys.readouterr().out

    def refused(*_: str) -> None:
        raise RuntimeError(f"403 https://s3/?X-Amz-Signature={SECRET}")

    monkeypatch.setattr(there, "put_file", refused)
    with pytest.raises(AssertionError, match=r"^s3://archive/.* could not be written .* sends it again$") as no:
        predict(command(place, Path("s3://archive/results/pond"), pond, runs=tmp_path / "runs"))
    assert SECRET not in str(no.value)
    with pytest.raises(AssertionError, match=r"a web server takes no files"):
        predict(command(place, Path("https://example.org/results"), pond))
    with pytest.raises(AssertionError, match=r"an index is mapped into memory, so it lies here"):
        search(SearchCommand("index", (pond,), model=place / "beep.onnx", index=Path("s3://archive/index")))


def test_credentials_that_are_refused_are_one_line(
    place: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AssertionError, match=r"^not found: s3://archive/nowhere$"):
        predict(command(place, tmp_path, "s3://archive/nowhere"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    addresses.server_of.cache_clear()
    with pytest.raises(AssertionError, match=r"^s3://archive/season: \w+: .*; look at the address and at your creden"):
        predict(command(place, tmp_path, bucket))
    addresses.server_of.cache_clear()


@pytest.mark.slow
def test_an_index_and_a_survey_of_a_bucket_are_those_of_the_folder(
    place: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[list[tuple[str, ...]]] = []
    for name, root in (("here", place / "season"), ("there", Path(bucket))):
        index = SearchCommand("index", (root,), model=place / "beep.onnx", index=tmp_path / f"{name}.index")
        assert search(index) == 2
        monkeypatch.setattr(survey, "LEDGER", tmp_path / f"{name}.sqlite")
        data = CollectionSettings(root, max_bad=0.5, layout="unlabeled")
        assert data_loader.survey(SurveyCommand(data, run=PlaceSettings(tmp_path / name))) == 2
        table = rows(tmp_path / name / "data" / "recordings.csv")
        found.append([(row["path"], row["seconds"], row["status"], row["recorded_at"]) for row in table])
    assert found[0] == found[1] and len(found[0]) == 5
    vectors = [next((tmp_path / f"{name}.index").glob("vectors-*.npy")).read_bytes() for name in ("here", "there")]
    assert vectors[0] == vectors[1]
    written = tmp_path / "there" / "data" / "recordings.csv"
    assert rows(written)[0]["root"] == bucket
    assert predict(command(place, tmp_path / "again", written)) == 0  # the table, in place of the bucket


@pytest.fixture
def served(place: Path) -> Iterator[Served]:
    season = place / "season"
    files = {path.relative_to(season).as_posix(): path.read_bytes() for path in season.rglob("*") if path.is_file()}
    with serving(files) as server:
        yield server


def test_recordings_over_http_are_read_and_those_that_fail_are_rows(
    place: Path, served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = {"ridge/b.ogg": "error", "ridge/c.mp3": "redirect", "pond/a.flac": "long"}
    served.faults |= faults
    names = ["pond/20260514_053000.wav", *faults]
    assert predict(command(place, tmp_path, *(f"{served.root}/{name}" for name in names))) == 2
    found = {row["file"].removeprefix(f"{served.root}/"): row for row in rows(tmp_path / "files.csv")}
    assert {name: row["status"] for name, row in found.items()} == {
        "pond/20260514_053000.wav": "ok",
        **dict.fromkeys(faults, "unreadable"),
    }
    assert all(row["reason"].startswith("cannot be read (") for name, row in found.items() if name in faults)
    assert "passwd" not in (tmp_path / "detections.csv").read_text()
    served.faults.clear()  # the server is mended
    capsys.readouterr()
    assert predict(command(place, tmp_path, *(f"{served.root}/{name}" for name in names), retry_failed=True)) == 0


def test_a_table_of_recordings_may_name_an_address_as_its_root(place: Path, served: Served, tmp_path: Path) -> None:
    root = addresses.place(Path(served.root))
    table = [Recording(root / name, name, site="S1") for name in ("pond/a.flac", "pond/gone.flac")]
    write_recordings(tmp_path / "recordings.csv", table)
    assert predict(command(place, tmp_path / "out", tmp_path / "recordings.csv")) == 2
    found = rows(tmp_path / "out" / "files.csv")
    assert [(row["file"], row["status"], row["site"]) for row in found] == [
        (f"{served.root}/pond/a.flac", "ok", "S1"),
        (f"{served.root}/pond/gone.flac", "unreadable", "S1"),
    ]
    shutil.rmtree(tmp_path / "out")
