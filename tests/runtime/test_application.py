"""The program finds its own files in a folder and in a zip application, and a model inside is put where it is whole."""

import sys
import zipfile
from pathlib import Path

import pytest
from house import HERE

from runtime import application, terminal
from runtime.application import bundled_model, named_inside, own_file, own_path


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An application with a model, in which this process seems to be."""
    model, made = tmp_path / "frogs.int8.onnx", tmp_path / "predictor.pyz"
    model.write_bytes(b"a network of frogs")
    with zipfile.ZipFile(made, "w") as archive:
        archive.write(model, named_inside(model))
        archive.writestr("report.html", "a page")
    monkeypatch.setattr(application, "HERE", made)
    monkeypatch.setattr(terminal, "HERE", made)
    return made


def test_files_of_the_program_come_out_of_a_folder_and_of_an_application(
    request: pytest.FixtureRequest,
) -> None:
    assert "<html" in own_file("report.html").read_text(encoding="utf-8") and not application.is_packed()
    request.getfixturevalue("packed")
    assert own_file("report.html").read_text(encoding="utf-8") == "a page" and application.is_packed()


def test_a_file_of_the_program_has_a_path_in_a_folder_and_out_of_an_application(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    assert own_path("report.html", tmp_path) == HERE / "report.html"
    request.getfixturevalue("packed")
    path = own_path("report.html", tmp_path)
    assert path.is_relative_to(tmp_path) and path.name == "report.html" and path.read_text() == "a page"
    path.write_text("another page")
    assert own_path("report.html", tmp_path) == path and path.read_text() == "a page"


def test_there_is_no_model_inside_a_folder_nor_in_an_application_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bundled_model(tmp_path) is None
    with zipfile.ZipFile(tmp_path / "bare.pyz", "w") as archive:
        archive.writestr("__main__.py", "")
    monkeypatch.setattr(application, "HERE", tmp_path / "bare.pyz")
    assert bundled_model(tmp_path) is None


def test_the_model_inside_is_whole_again_when_what_was_put_down_is_not(packed: Path, tmp_path: Path) -> None:
    path = bundled_model(tmp_path)
    assert path and path.name == "frogs.int8.onnx" and path.read_bytes() == b"a network of frogs"
    before = path.stat().st_mtime_ns
    assert bundled_model(tmp_path) == path and path.stat().st_mtime_ns == before
    path.write_bytes(b"a network of birds")
    assert bundled_model(tmp_path) == path and path.read_bytes() == b"a network of frogs"
    path.unlink()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(f"models/{'0' * 16}/frogs.int8.onnx", b"another network")
    with pytest.raises(AssertionError, match=r"predictor\.pyz is damaged; copy it again"):
        bundled_model(tmp_path)


@pytest.mark.parametrize(
    ("words", "module", "rest"),
    [
        (["dawn.ogg"], "predictor", ["dawn.ogg"]),
        ([], "predictor", []),
        (["report.py", "results"], "report", ["results"]),
        (["search.py", "query"], "search", ["query"]),
        (["main.py"], "predictor", ["main.py"]),
        (["dawn.ogg", "report.py"], "predictor", ["dawn.ogg", "report.py"]),
    ],
)
def test_a_script_that_is_named_first_is_the_one_that_runs(
    words: list[str], module: str, rest: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = list[str]()

    def run(name: str, **_: object) -> None:
        ran.append(name)

    monkeypatch.setattr(sys, "argv", ["predictor.pyz", *words])
    monkeypatch.setattr("runpy.run_module", run)
    application.begin()
    assert ran == [module] and sys.argv[1:] == rest


def test_next_steps_name_the_application(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(packed.parent)
    assert terminal.command_line("report.py", "results").endswith(" predictor.pyz report.py results")
    assert terminal.command_line("predictor.py", "dawn.ogg").endswith(" predictor.pyz dawn.ogg")
    assert terminal.command_line("main.py").endswith(" main.py") and ".pyz" not in terminal.command_line("main.py")
