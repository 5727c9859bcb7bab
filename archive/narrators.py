"""Where people speak in an archive's recordings, each searched once; and the recordings without that.

    rows = with_voices(rows, cut=True)          # what is left is what they keep: recordings.csv hands it on

Reads    recordings
Writes   what was found, into the ledger of archive/survey.py: nothing is searched again

Many recordings that people share begin or end with a narrator, who is no animal. No torch.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

from tqdm import tqdm

from archive.recordings import Recording, overlaps
from archive.survey import SAVE_SECONDS, file_stamp, open_ledger, remember
from runtime.terminal import show
from sounds.audio import reading_version
from sounds.voices import Segments, VoiceFinder, outside
from sounds.windows import SHORTEST_SECONDS

AT_LEAST = 8  # recordings that are worth a process of their own


def with_voices(rows: Sequence[Recording], cut: bool) -> list[Recording]:
    """The rows with what was found of voices in each.

    cut   these are no longer part of what a recording keeps; one that would keep nothing is refused. Segments that
          somebody labelled stay as they are
    Errors: the detector is not installed: one line with the remedy.
    """
    speech = speech_in(sorted({row.path for row in rows if row.sound}))
    found = [with_speech(row, speech.get(row.path, ()), cut) for row in rows]
    voiced = {row.path: row for row in found if row.voices}
    minutes = sum(end - start for row in voiced.values() for start, end in row.voices) / 60
    done = ", which are cut out" if cut else ""
    show(f"voices in {len(voiced):,} of {len(speech):,} recordings, {minutes:.1f} minutes{done}")
    refused = {row.path for row, before in zip(found, rows, strict=True) if before.sound and not row.sound}
    if refused:
        show(f"{len(refused):,} of them keep nothing and are refused, such as {min(refused).name}")
    return found


def with_speech(row: Recording, speech: Segments, cut: bool) -> Recording:
    """A row with what was found of voices in its recording."""
    if not row.sound:
        return row
    voices = overlaps(speech, ((0.0, row.seconds),))
    found = replace(row, voices=voices)
    if not cut or not voices or row.start is not None:
        return found
    quiet = outside(voices, row.seconds)
    parts = overlaps(row.keep, quiet) if row.keep else quiet
    rest = replace(found, keep=tuple((start, end) for start, end in parts if end - start >= SHORTEST_SECONDS))
    if not rest.keep or not rest.usable:
        return replace(found, status="refused", reason="somebody speaks throughout; leave out --data.voices to keep it")
    return rest


def speech_in(paths: Sequence[Path]) -> dict[Path, Segments]:
    """Where somebody speaks in each recording, from the ledger where it was searched before."""
    with closing(open_ledger()) as ledger, ExitStack() as stack:
        finders = [stack.enter_context(VoiceFinder())]
        detector = f"{finders[0].digest} {reading_version()}"
        query = "SELECT size, mtime, segments FROM spoken WHERE path = ? AND detector = ?"
        stamps = {path: file_stamp(path) for path in paths}
        known = dict[Path, Segments]()
        for path, stamp in stamps.items():
            row = ledger.execute(query, (os.fsencode(path.resolve()), detector)).fetchone()
            if row and row[:2] == stamp:
                known[path] = tuple((start, end) for start, end in json.loads(row[2]))
        missing = [path for path in paths if path not in known]
        count = min(os.cpu_count() or 1, -(-len(missing) // AT_LEAST))
        finders += [stack.enter_context(VoiceFinder()) for _ in range(count - 1)]
        fresh, saved = list[tuple[object, ...]](), time.monotonic()
        bar = tqdm(searched_by(finders, missing), "voices", len(missing), unit="file", disable=None, leave=False)
        for path, segments in bar:
            known[path] = segments
            if not segments or math.isfinite(segments[-1][1]):  # else it could not be searched to its end
                fresh.append((os.fsencode(path.resolve()), detector, *stamps[path], json.dumps(segments)))
            if time.monotonic() - saved > SAVE_SECONDS or len(known) == len(paths):
                remember(ledger, "INSERT OR REPLACE INTO spoken VALUES (?, ?, ?, ?, ?)", fresh)
                fresh, saved = [], time.monotonic()
        return known


def searched_by(finders: Sequence[VoiceFinder], paths: Sequence[Path]) -> Iterator[tuple[Path, Segments]]:
    """Each path with what was found there, several searched at a time."""
    idle = SimpleQueue[VoiceFinder]()
    for finder in finders:
        idle.put(finder)

    def search(path: Path) -> tuple[Path, Segments]:
        own = idle.get()
        try:
            return path, own.find(path)
        finally:
            idle.put(own)

    with ThreadPoolExecutor(len(finders)) as pool:
        try:
            yield from pool.map(search, paths)
        finally:
            for finder in finders:  # whoever stops listening stops the work
                finder.decoder.stop()
            pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        owl = Recording(Path(folder) / "owl.ogg", "owl.ogg", ("tawow",), seconds=60.0)
    narrated, talk = (with_speech(owl, speech, cut=True) for speech in (((0.0, 7.5), (58.0, 61.0)), ((0.0, 60.0),)))
    print(f"of {owl.seconds:g} s is kept: {narrated.keep}; all of it spoken: {talk.status}, {talk.reason}")
    assert narrated.keep == ((7.5, 58.0),) and narrated.usable == narrated.keep and not talk.sound
