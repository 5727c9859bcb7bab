"""Every demo runs in a process of its own, from another folder: a demo that nobody runs is a comment."""

from pathlib import Path

import forked
import pytest
from house import HERE, rooms

COMMANDS = {  # have tests of their own
    *("data_loader", "ssl_mae", "main", "quantize", "predictor", "report", "demo", "experiments", "probe"),
    *("pseudo_label", "search", "refit", "count", "pack", "publish"),
}
ROOMS = [room for room in rooms() if room not in COMMANDS]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where each demo has run, and that of a room that is not there."""
    found = {room: tmp_path_factory.mktemp(room) for room in [*ROOMS, "nothing"]}
    words = [f"{room}={folder}" for room, folder in found.items()]
    done = forked.start(HERE, "tests/demo_nursery.py", *words, early=True).ended(600)
    assert done.returncode == 0, done.stderr
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_the_demo_runs_and_says_something(room: str, folders: dict[str, Path]) -> None:
    folder = folders[room]
    assert (folder / "code.txt").read_text() == "0", (folder / "complained.txt").read_text()
    assert (folder / "printed.txt").read_text().strip()


def test_a_demo_that_fails_is_noticed(folders: dict[str, Path]) -> None:
    """Negative control."""
    folder = folders["nothing"]
    assert (folder / "code.txt").read_text() == "1" and "nothing" in (folder / "complained.txt").read_text()


@pytest.mark.parametrize("room", ROOMS)
def test_the_demo_ends_in_an_assert(room: str) -> None:
    text = (HERE / f"{room.replace('.', '/')}.py").read_text(encoding="utf-8")
    assert "assert " in text.split('if __name__ == "__main__":')[1]
