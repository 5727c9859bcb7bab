"""Waveforms kept ready: recordings decoded and resampled once, so that a window costs a read instead of a decode.

    cache = fill_cache(recordings, sample_rate=16_000, folder=Path("/tmp/wildwhisper/cache"), gigabytes=20)
    samples = window_of(path, cache, start_seconds=61.5, window_seconds=5.0, sample_rate=16_000)

Writes   one .npy of int16 for each recording that is kept, 115 MB for an hour at 16 kHz; may be deleted at any time

Kept in part where space is short, the largest gain first; what is not kept is decoded as ever. The format was chosen by
measurement (bench/cache_formats.py, LOG.md). No torch.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from archive.recordings import Recording
from runtime.terminal import show
from sounds.audio import open_recording, read_samples
from sounds.libsndfile import BLOCK_SECONDS
from sounds.notes import assumed_expansion
from sounds.windows import network_input

VERSION = 4  # raise it whenever the same file would be kept differently
HEADER = 128  # bytes before the samples of a .npy of one dimension
LEAVE_BYTES = 5e9  # of the disk stay free whatever is asked for
MOST_SAMPLES = 7200 * 16_000  # a longer recording is not kept: it would be held in memory once, and gains least
FULL_SCALE = 2**15
# milliseconds for a window of 5 s by seeking, and more for each second of the recording where seeking means decoding
# from the beginning (measured on 2 cores, LOG.md)
SEEK_MS = {
    ".wav": (0.4, 0.0),
    ".aif": (0.4, 0.0),
    ".aiff": (0.4, 0.0),
    ".flac": (2.2, 0.0),
    ".ogg": (4.2, 0.0),
    ".mp3": (4.6, 0.036),
    ".opus": (13.5, 0.0),
}
STREAM_MS = (3.0, 1.5)  # any other


def fill_cache(recordings: Sequence[Recording], sample_rate: int, folder: Path, gigabytes: float) -> dict[Path, Path]:
    """Keep as many of the recordings as fit, and say where.

    gigabytes   how much these recordings may take (10^9 bytes), 0 for nothing
    returns     path of a recording -> path of its .npy, for those that are kept
    Errors: none; a disk that is full or a recording that has vanished ends or skips the keeping, not the run.
    """
    files = {recording.path: recording for recording in recordings if recording.seconds > 0}
    if not files or gigabytes <= 0:
        return {}
    short = [path for path, recording in files.items() if recording.seconds * sample_rate <= MOST_SAMPLES]
    worth = sorted(short, key=lambda path: -gain(files[path]))
    targets = {path: cache_path(path, sample_rate, folder) for path in worth}
    kept, wanted, room = dict[Path, Path](), list[Path](), gigabytes * 1e9
    for path in worth:
        size = HEADER + 2 * (files[path].seconds * sample_rate + 1)
        if room >= size:
            room -= size
            if is_cached(targets[path], size, sample_rate):
                kept[path] = targets[path]
            else:
                wanted.append(path)
    if wanted:
        with ThreadPoolExecutor() as pool:
            work = pool.map(
                partial(write_waveform, sample_rate=sample_rate), wanted, [targets[path] for path in wanted]
            )
            bar = tqdm(work, "caching", len(wanted), unit="file", disable=None, leave=False)
            kept |= {path: targets[path] for path, done in zip(wanted, bar, strict=True) if done}
    hours = sum(recording.seconds for recording in files.values())
    share = sum(files[path].seconds for path in kept) / hours
    rest = "" if len(kept) == len(files) else ", the rest is decoded on the fly"
    show(f"cache: {len(kept):,} of {len(files):,} recordings ({share:.0%} of hours) in {folder}{rest}")
    return kept


def cached_samples(kept: Path, start: int, length: int) -> NDArray[np.float32]:
    """Samples start to start + length of a recording, fewer at its end, none where the file is gone."""
    try:
        with kept.open("rb") as file:
            file.seek(HEADER)
            exponent = np.fromfile(file, np.int16, 1)
            samples = np.fromfile(file, np.int16, length, offset=2 * start)
    except OSError:
        return np.zeros(0, np.float32)
    if not len(samples) or not len(exponent):
        return np.zeros(0, np.float32)
    return samples.astype(np.float32) * np.float32(2.0 ** int(exponent[0]) / FULL_SCALE)


def window_of(
    path: Path, kept: Mapping[Path, Path], start_seconds: float, window_seconds: float, sample_rate: int
) -> NDArray[np.float32]:
    """What `audio.read_window` gives, (window_samples,) or (0,) where the recording has ended: from the cache, within
    one step of int16 below the recording's peak, else from the recording itself."""
    length = round(window_seconds * sample_rate)
    samples = samples_of(path, kept, start_seconds, window_seconds, sample_rate)
    return network_input(samples, length) if len(samples) else samples


def samples_of(
    path: Path, kept: Mapping[Path, Path], start_seconds: float, seconds: float, sample_rate: int
) -> NDArray[np.float32]:
    """What `window_of` makes a window of: the samples as they are, fewer where the recording ends earlier."""
    start, length = round(start_seconds * sample_rate), round(seconds * sample_rate)
    samples = cached_samples(kept[path], start, length) if path in kept else np.zeros(0, np.float32)
    return samples if len(samples) else read_samples(path, start, length, sample_rate)


def waveform_of(path: Path, kept: Mapping[Path, Path], sample_rate: int) -> Iterator[NDArray[np.float32]]:
    """A recording in blocks (samples,) from its beginning: from the cache where it is kept, else by decoding it."""
    count, length = 0, BLOCK_SECONDS * sample_rate
    while path in kept and len(block := cached_samples(kept[path], count, length)):
        count += len(block)
        yield block
    if not count:
        yield from open_recording(path, sample_rate).waveform()


def kept_bytes(kept: Mapping[Path, Path]) -> int:
    """What the waveforms of some recordings take of the disk."""
    return sum(path.stat().st_size for path in kept.values() if path.exists())


def gain(recording: Recording) -> float:
    """Milliseconds that keeping a recording saves each time it is read, for each second that is kept."""
    base, each = SEEK_MS.get(recording.path.suffix.lower(), STREAM_MS)
    return (base + each * recording.seconds) / recording.seconds


def cache_path(path: Path, sample_rate: int, folder: Path) -> Path:
    """Where a recording is kept: another file, size, time of change or rate is another file here."""
    try:
        facts = path.stat()
        known = (
            f"{VERSION} {sample_rate} {assumed_expansion()} {facts.st_size} {facts.st_mtime_ns} ".encode()
            + os.fsencode(path.resolve())
        )
    except OSError:
        known = os.fsencode(path)
    name = hashlib.blake2b(known, digest_size=16).hexdigest()
    return folder / name[:2] / f"{name[2:]}.npy"


def is_cached(kept: Path, size: float, sample_rate: int) -> bool:
    """Whether a file is there and as long as its recording, to a tenth of a second."""
    try:
        return abs(kept.stat().st_size - size) < 0.2 * sample_rate
    except OSError:
        return False


def write_waveform(path: Path, target: Path, sample_rate: int) -> bool:
    """Decode a recording into its file, whole or not at all; the first number is the power of two of full scale."""
    samples = np.concatenate([np.zeros(0, np.float32), *open_recording(path, sample_rate).waveform()])
    peak = float(np.abs(samples).max(initial=0.0))
    exponent = math.frexp(peak)[1] if peak else 0
    values = np.empty(len(samples) + 1, np.int16)
    values[0] = exponent
    values[1:] = np.clip(np.rint(samples * (FULL_SCALE / 2.0**exponent)), -FULL_SCALE, FULL_SCALE - 1)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not len(samples) or shutil.disk_usage(target.parent).free < LEAVE_BYTES + values.nbytes:
            return False
        handle, name = tempfile.mkstemp(".part", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, values)
            Path(name).replace(target)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    import soundfile

    from sounds.audio import read_window

    with tempfile.TemporaryDirectory() as somewhere:
        root = Path(somewhere)
        rows = [Recording(root / f"{seconds}.flac", f"{seconds}.flac", seconds=seconds) for seconds in (60.0, 10.0)]
        for row in rows:
            soundfile.write(row.path, np.random.default_rng(0).normal(0, 0.02, round(32_000 * row.seconds)), 32_000)
        some = fill_cache(rows, 16_000, root / "cache", gigabytes=0.001)
        everything = fill_cache(rows, 16_000, root / "cache", gigabytes=1)
        direct = read_window(rows[0].path, 31.25, 5.0, 16_000)
        quick = window_of(rows[0].path, everything, 31.25, 5.0, 16_000)
    print(f"largest difference of a window: {np.abs(direct - quick).max():.2g}")
    assert list(some) == [rows[1].path], "of the same format, more short recordings than long ones fit"
    assert len(everything) == 2 and np.abs(direct - quick).max() < np.abs(direct).max() / 2**14
