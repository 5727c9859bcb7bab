"""How far the recording at work is: on a bar, and in the journal, from which a run that is cut off goes on.

    with ScoringProgress(journal, total, batch_size) as progress:
        progress.moved(piece, answered, contexts)
        progress.finished(entry, seconds)

A whole number of batches is saved: which contexts share one decides the last digit of their scores.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from serving.contexts import Piece
from serving.inputs import Entry
from serving.journal import Journal, open_journal
from serving.scored_windows import ByChannel, Windows, contexts_of, packed

SAVED_SECONDS, MOST_TIME = 20.0, 0.05  # of work between two states of a long recording, and the share saving may take


class ScoringProgress:
    """The bar and the state of one run; also a context manager, which saves the state when Ctrl-C ends it."""

    def __init__(self, journal: Journal | None, total: int, batch_size: int) -> None:
        form = "{l_bar}{bar}| {n_fmt}/{total_fmt} {postfix} {elapsed} + {remaining}"
        self.bar: tqdm[None] = tqdm(total=total, unit="B", unit_scale=True, bar_format=form, disable=None, leave=False)
        self.journal, self.batch_size = journal, batch_size
        self.started = self.saved = time.monotonic()
        self.took = 0.0  # to save the last state
        self.before, self.seconds = 0, 0.0  # bytes of the recordings that are finished, and seconds that were scored
        self.shown = 0  # bytes on the bar
        self.earlier = self.contexts = 0  # of the one at work: answered by an earlier run, and by now
        self.state: tuple[Entry, ByChannel, int, dict[tuple[int, bool], int]] | None = None

    def __enter__(self) -> ScoringProgress:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.bar.__exit__(kind, *rest)
        if kind is KeyboardInterrupt:
            self.save()

    def moved(self, piece: Piece, answered: ByChannel, contexts: int) -> None:
        """A context has its answer; so many of this recording have."""
        self.earlier, self.contexts = self.earlier if self.contexts else contexts - 1, contexts
        if contexts % self.batch_size == 0:  # one assignment: a signal falls before it or after it
            rows = {key: len(windows.starts) for key, windows in answered.items()}
            self.state = piece.entry, answered, contexts, rows
        self.show(piece.entry.size * min(piece.share, 1.0), piece.windows[-1][1] if piece.windows else 0.0)
        if time.monotonic() - self.saved > max(SAVED_SECONDS, self.took / MOST_TIME):
            self.save()

    def finished(self, entry: Entry, seconds: float) -> None:
        """A recording is done, and the journal has all of it."""
        self.state, self.saved = None, time.monotonic()
        self.before += entry.size
        self.seconds += seconds * (1 - self.earlier / max(self.contexts, 1))  # what this run has scored of it
        self.earlier = self.contexts = 0
        self.show(0.0, 0.0)

    def show(self, size: float, seconds: float) -> None:
        """Move the bar to so many bytes and seconds of the recording at work."""
        scored, elapsed = self.seconds + seconds, max(time.monotonic() - self.started, 1e-9)
        self.bar.set_postfix_str(f"{scored / 3600:.1f} h, {scored / elapsed:.0f} x real time", refresh=False)
        more = max(0, self.before + int(size) - self.shown)
        self.shown += more
        self.bar.update(more)

    def save(self) -> None:
        """What the recording at work has so far, into the journal."""
        if self.journal and self.state:
            started = time.monotonic()
            entry, answered, contexts, rows = self.state
            self.journal.save_begun(entry, packed(answered, contexts, rows))
            self.saved = time.monotonic()
            self.took = self.saved - started


if __name__ == "__main__":
    entry, windows = Entry(Path("pond/long.flac"), size=1_000), Windows([0.0], [5.0])
    with tempfile.TemporaryDirectory() as folder, open_journal(Path(folder), {}, arrays=False) as journal:
        progress = ScoringProgress(journal, total=1_000, batch_size=1)
        progress.moved(Piece(entry, windows=((0.0, 5.0),), share=0.25), {(0, False): windows}, 1)
        progress.save()
        kept = contexts_of(journal.recall_begun(entry))
        print(f"stopped after {progress.shown} of {entry.size} bytes; {kept} context is kept")
    assert (progress.shown, kept) == (250, 1)
