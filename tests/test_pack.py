"""Scoring in one file gives the same tables as in a folder, holds nothing else, and is the same file each time."""

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import forked
import numpy as np
import pytest
import soundfile
from conftest import Stages
from house import HERE, WINGS
from test_requirements import ONLY, installed_by, modules_of

import pack
from config import PackCommand
from demo_data import FieldSeason
from serving.scorer import open_scorer

OF_TRAINING = {"torch", "torchaudio", "transformers", "timm", "pandas", "safetensors", "onnx"}


@dataclass(frozen=True)
class Applications:
    """Without a model and with one, by themselves in a folder."""

    bare: Path
    bundled: Path
    content: dict[str, bytes]


@pytest.fixture(scope="module")
def applications(stages: Stages, tmp_path_factory: pytest.TempPathFactory) -> Applications:
    folder = tmp_path_factory.mktemp("applications")
    content = pack.contents()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "contents", lambda: dict(content))
        for name, model in (("predictor.pyz", None), ("bundled.pyz", stages.model)):
            assert pack.pack(PackCommand(model, folder / name)) == 0
    return Applications(folder / "predictor.pyz", folder / "bundled.pyz", content)


def started(place: Path, application: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """An application in a process that can import what requirements-score.txt brings, and nothing of this folder."""
    allowed = ",".join(modules_of(installed_by(HERE / "requirements-score.txt")))
    own = ",".join(["__main__", *(path.stem for path in HERE.glob("*.py")), *WINGS])
    alone = ONLY.replace('sys.path.insert(0, ".")\n', "")
    command = [sys.executable, "-c", alone, allowed, own, str(application), *map(str, words)]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)


def tables(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.suffix in (".csv", ".txt")}


def test_one_file_scores_and_makes_the_page_as_the_folder_does(
    applications: Applications, stages: Stages, season: FieldSeason, tmp_path: Path
) -> None:
    words = (season.soundscape, "--model", stages.model, "--scores", "--out")
    here = forked.run(tmp_path, "predictor.py", *words, "here")
    there = started(tmp_path, applications.bare, *words, "there")
    assert here.returncode == there.returncode == 0, there.stderr
    assert tables(tmp_path / "here") == tables(tmp_path / "there") and len(tables(tmp_path / "here")) == 5
    page = started(tmp_path, applications.bare, "report.py", "there")
    assert page.returncode == 0, page.stderr
    assert "pretend" in (tmp_path / "there" / "report.html").read_text(encoding="utf-8")


def test_with_a_model_inside_a_recording_is_all_that_is_needed(
    applications: Applications, stages: Stages, season: FieldSeason, tmp_path: Path
) -> None:
    words = [sys.executable, "-I", str(applications.bundled), str(season.soundscape)]
    inside = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    beside = forked.run(tmp_path, "predictor.py", season.soundscape, "--model", stages.model)
    assert inside.returncode == beside.returncode == 0, inside.stderr
    assert inside.stdout.splitlines()[1:-1] == beside.stdout.splitlines()[1:-1]
    assert "pretend" in inside.stdout and not list(tmp_path.iterdir())


def test_without_one_the_line_says_what_is_missing(applications: Applications, season: FieldSeason) -> None:
    """The control of the test above; and what an application says is as short as what the folder says."""
    place = applications.bare.parent
    words = [sys.executable, "-I", applications.bare.name, str(season.soundscape)]
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: no model at runs/quantize"), done.stderr
    assert done.stderr.count("\n") == 1


def test_a_command_inside_says_what_it_says_in_the_folder(applications: Applications, tmp_path: Path) -> None:
    words = [sys.executable, "-I", str(applications.bare), "search.py", "--help"]
    inside = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    here = forked.run(tmp_path, "search.py", "--help").stdout
    (usage, said), (_, expected) = inside.stdout.split(" [", 1), here.split(" [", 1)
    assert said == expected and usage == " ".join(["usage:", *words[2:-1]])


def test_nothing_of_training_is_inside(applications: Applications) -> None:
    with zipfile.ZipFile(applications.bare) as archive:
        names = archive.namelist()
    assert names == sorted(applications.content) and not [name for name in names if name.startswith("models/")]
    others = ("__main__.py", "runtime/trackers.py")  # which asks for torch where --run.tracker does, in training alone
    sources = [HERE / name for name in names if name.endswith(".py") and name not in others]
    assert not {name.partition(".")[0] for path in sources for name in pack.imports(path)} & OF_TRAINING
    assert {"torch"} < {name.partition(".")[0] for name in pack.imports(HERE / "model.py")}, "the control"
    assert not {"main.py", "model.py", "training/optim.py", "serving/export.py"} & {*names}
    assert {"report.html", "lineages/birdclef2025.csv", "sounds/decoders.py", "sounds/__init__.py"} < {*names}


def test_the_cards_that_come_with_us_are_inside(
    applications: Applications, season: FieldSeason, tmp_path: Path
) -> None:
    """The last line of a missing card names them; with one of them it is the model that is missing."""
    for card, expected in (("crow", "birdnet-v2.4, birdnet-v3, perch-v2"), ("perch-v2", "no model at nobody.onnx")):
        words = [str(season.soundscape), "--model", "nobody.onnx", "--card", card]
        done = started(tmp_path, applications.bare, *words)
        assert done.returncode == 1 and expected in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_same_files_give_the_same_bytes(applications: Applications, tmp_path: Path) -> None:
    pack.write_application(tmp_path / "again.pyz", dict(reversed(applications.content.items())))
    assert (tmp_path / "again.pyz").read_bytes() == applications.bare.read_bytes()
    assert pack.contents() == applications.content, "compiled again, with sets in another order"


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("absent.onnx", None, "no model at"),
        ("classifier.xml", b"<net>", "is no ONNX file"),
        ("classifier.int8.onnx", b"of somebody else", "no file of quantize.py's"),
    ],
)
def test_what_is_no_model_of_ours_does_not_go_inside(
    name: str, content: bytes | None, why: str, tmp_path: Path
) -> None:
    model = tmp_path / name
    if content:
        model.write_bytes(content)
    with pytest.raises(AssertionError, match=why):
        pack.pack(PackCommand(model, tmp_path / "predictor.pyz"))
    assert not (tmp_path / "predictor.pyz").exists()
    with pytest.raises(AssertionError, match=r"give the application a name that ends in \.pyz"):
        PackCommand(model, model)


def test_what_scoring_imports_is_found_in_functions_and_not_in_demos(tmp_path: Path) -> None:
    (tmp_path / "wing").mkdir()
    (tmp_path / "first.py").write_text("import json\ndef late():\n    from wing import second\n")
    (tmp_path / "wing" / "__init__.py").touch()
    (tmp_path / "wing" / "second.py").write_text("from third import x\nif __name__ == '__main__':\n    import demo\n")
    for name in ("third", "demo", "other"):
        (tmp_path / f"{name}.py").write_text("x = 1\n")
    found = [path.relative_to(tmp_path).as_posix() for path in pack.needed(["first"], tmp_path)]
    assert found == ["first.py", "third.py", "wing/__init__.py", "wing/second.py"]


@pytest.fixture
def competition(applications: Applications, stages: Stages, season: FieldSeason, tmp_path: Path) -> Path:
    """What Kaggle attaches, in small: two soundscapes of a minute, a sample with a label that the model lacks."""
    place = tmp_path / "input"
    soundscapes = place / "birdclef-2025" / "test_soundscapes"
    soundscapes.mkdir(parents=True)
    (place / "wild-whisper").mkdir()
    shutil.copy(applications.bundled, place / "wild-whisper" / "predictor.pyz")
    shutil.copy(HERE / "requirements-score.txt", place / "wild-whisper")
    (place / "wheels").mkdir()
    samples, rate = soundfile.read(season.soundscape, dtype="float32")
    for number in (1, 2):
        minute = np.resize(np.roll(samples, number * rate), 60 * rate)
        soundfile.write(soundscapes / f"soundscape_{number}.flac", minute, rate)
    labels = [*open_scorer(stages.model).taxonomy.labels[1:], "unheard1"]
    lines = [f"row_id,{','.join(labels)}", f"soundscape_8358733_5,{','.join(['0.5'] * len(labels))}"]
    (place / "birdclef-2025" / "sample_submission.csv").write_text("\n".join(lines) + "\n")
    return place


def test_the_notebook_makes_a_submission_of_soundscapes_without_internet(
    competition: Path, stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    working, here = tmp_path / "working", tmp_path / "here"
    working.mkdir()
    monkeypatch.setenv("KAGGLE_INPUT", str(competition))
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody answers
    notebook = nbformat.read(HERE / "notebooks" / "birdclef.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(working)}}).execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    sample = competition / "birdclef-2025" / "sample_submission.csv"
    words = (competition / "birdclef-2025" / "test_soundscapes", "--submission", sample, "--out", here)
    assert forked.run(tmp_path, "predictor.py", *words, "--model", stages.model).returncode == 0
    submission = (working / "submission.csv").read_bytes()
    assert submission == (here / "submission.csv").read_bytes()
    rows = submission.decode().splitlines()
    assert [row.partition(",")[0] for row in rows[1:]] == [
        f"soundscape_{n}_{5 * k}" for n in (1, 2) for k in range(1, 13)
    ]
    assert all(row.endswith(f",{1 / len(rows[0].split(',')[1:]):.9g}") for row in rows[1:])
    assert "submission.csv: 24 rows, 16 labels" in said and "of 90 minutes are used" in said, said


def test_the_notebook_keeps_no_outputs_and_its_first_failure_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = json.loads((HERE / "notebooks" / "birdclef.ipynb").read_text(encoding="utf-8"))
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell.get("outputs") for cell in notebook["cells"]) and len(code) == 4
    monkeypatch.setenv("KAGGLE_INPUT", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code[0]], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "no predictor.pyz below" in done.stderr and "attach the data set" in done.stderr
