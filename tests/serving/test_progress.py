"""How far a recording is: on the bar, and in the journal when it is time or when somebody stops it."""

from pathlib import Path

import pytest

from serving import progress as room
from serving.contexts import Piece
from serving.inputs import Entry
from serving.journal import open_journal
from serving.progress import ScoringProgress
from serving.scored_windows import Windows, contexts_of

ENTRY = Entry(Path("long.flac"), size=1_000)
PIECE = Piece(ENTRY, windows=((0.0, 5.0),), share=0.25)


def saved(folder: Path, error: type[BaseException] | None, batch: int = 1, contexts: int = 4) -> int:
    """How many contexts the journal has when something ends a run after so many."""
    with open_journal(folder, {}, arrays=False) as journal:
        try:
            with ScoringProgress(journal, 1_000, batch) as progress:
                for count in range(1, contexts + 1):
                    progress.moved(PIECE, {(0, False): Windows([0.0], [5.0])}, count)
                if error:
                    raise error
        except (KeyboardInterrupt, ValueError):
            pass
        return contexts_of(journal.recall_begun(ENTRY))


def test_ctrl_c_saves_the_recording_at_work_and_nothing_else_does(tmp_path: Path) -> None:
    assert saved(tmp_path / "stopped", KeyboardInterrupt) == 4
    assert saved(tmp_path / "failed", ValueError) == saved(tmp_path / "ended", None) == 0


def test_whole_batches_alone_are_saved(tmp_path: Path) -> None:
    assert saved(tmp_path, KeyboardInterrupt, batch=3, contexts=5) == 3


def test_it_is_saved_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SAVED_SECONDS", 0.0)
    monkeypatch.setattr(room, "MOST_TIME", 1e9)
    assert saved(tmp_path, None) == 4


def test_the_bar_moves_by_bytes_and_never_back() -> None:
    progress = ScoringProgress(None, 1_000, 1)
    shown = list[int]()
    for share in (0.25, 0.75, 0.5, 2.0):
        progress.moved(Piece(ENTRY, share=share), {}, len(shown) + 1)
        shown.append(progress.shown)
    progress.finished(ENTRY, 60.0)
    assert shown == [250, 750, 750, 1_000] and progress.shown == 1_000


def test_what_an_earlier_run_scored_is_not_counted_as_work_of_this_one() -> None:
    progress = ScoringProgress(None, 1_000, 1)
    for contexts in (10, 11, 12):  # nine were answered before
        progress.moved(PIECE, {}, contexts)
    progress.finished(ENTRY, 60.0)
    assert progress.seconds == 15.0
