"""A student and its teacher: which window it is given, what it should answer, and how near it comes.

    imitated = prepare_imitation(rows, vectors, held_out_rows, held_out_vectors, 3.0, config.data, config.audio)
    vectors, inside = imitated.wanted(batch, tokens=250)
    loss = imitation_loss(student(log_mel(batch.waveforms), inside), vectors)

A window of the student's is longer than the teacher's, or as long: it holds that somewhere, and the student answers
from the tokens inside, as far as there is sound: what a short recording is filled with, its teacher did not hear.
Vectors are imitated in units of the teacher's own: each value less its mean over the training windows, over its spread:
what all vectors of a teacher have in common teaches nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from archive.recordings import Recording
from config import AudioSettings, WindowSettings
from data_loader import Batch, SegmentWindows, collate
from model import LogMel
from training.device import autocast

HELD_OUT_WINDOWS = 256  # windows the imitation is measured on
QUIETEST_SPREAD, USUAL = 0.1, 0.75  # a value that hardly varies is not blown up beyond this share of a usual spread
VERSION = 2  # raise it whenever the same vectors would be imitated differently
Predict = Callable[[Tensor, Tensor], Tensor]  # log-mel pictures and the tokens inside -> (batch, values)


@dataclass(frozen=True)
class Imitated:
    """All that an imitation is taught and judged by."""

    rows: list[Recording]  # the teacher's windows of the training recordings, as labelled segments
    vectors: Tensor  # (rows, values) in units of their spread
    held_out: Batch  # windows that are the same in every epoch and run; targets as of SegmentWindows
    held_out_vectors: Tensor  # (held-out rows, values) in the same units
    digest: str  # of all vectors and their windows
    tokens_a_second: float = 50.0  # of the student

    def wanted(self, batch: Batch, tokens: int) -> tuple[Tensor, Tensor]:
        """What the teacher makes of a batch, (batch, values), and the tokens it is about, (batch, tokens) bool."""
        index = batch.targets[:, 0].long().cpu()
        return self.vectors[index].to(batch.waveforms.device), inside(batch, tokens, self.tokens_a_second)


def prepare_imitation(
    rows: Sequence[Recording],
    vectors: NDArray[np.float32],
    held_out_rows: Sequence[Recording],
    held_out_vectors: NDArray[np.float32],
    seconds: float,
    data: WindowSettings,
    audio: AudioSettings,
) -> Imitated:
    """What a teacher makes of training and of held-out recordings, ready for a loop.

    rows        each with start and end of the teacher's window; vectors (rows, values)
    seconds     of the teacher's windows
    Errors: windows longer than the student's context, vectors of other lengths here and there, vectors all alike.
    """
    assert seconds <= audio.context_seconds, (
        f"the teacher's windows are {seconds:g} s long, and the student gets {audio.context_seconds:g} s at once; give "
        f"--audio.context_seconds and --audio.window_seconds {seconds:g} or more"
    )
    assert vectors.shape[1] == held_out_vectors.shape[1], (
        f"the teacher gives {vectors.shape[1]} values for training, {held_out_vectors.shape[1]} for held-out recordings"
    )
    mean, spread = vectors.mean(axis=0, dtype=np.float64), vectors.std(axis=0, dtype=np.float64)
    assert spread.any(), f"the teacher's {len(vectors)} vectors are all the same; choose another output or teacher"
    usual = np.quantile(spread[spread > 0], USUAL, method="lower")  # the mean would be that of one huge value
    spread = np.maximum(spread, QUIETEST_SPREAD * usual)
    drawn: list[int] = np.random.default_rng(0).permutation(len(held_out_rows))[:HELD_OUT_WINDOWS].tolist()
    chosen = sorted(drawn)
    windows = SegmentWindows([held_out_rows[index] for index in chosen], replace(data, cache_gb=0.0), audio, seed=0)
    items = [windows[0, number, number] for number in range(len(chosen))]
    batch = collate(items, round(audio.context_seconds * audio.sample_rate), 2)
    assert len(batch.waveforms), "no held-out recording can be read; choose another --data.valid_fold"
    sha = hashlib.sha256(str(VERSION).encode())
    for own, values in ((rows, vectors), (held_out_rows, held_out_vectors)):
        sha.update(repr([(row.name, row.start, row.end) for row in own]).encode("utf-8", "surrogateescape"))
        sha.update(np.ascontiguousarray(values).data)
    return Imitated(
        list(rows),
        torch.from_numpy(((vectors - mean) / spread).astype(np.float32)),
        batch,
        torch.from_numpy(((held_out_vectors[chosen] - mean) / spread).astype(np.float32)),
        sha.hexdigest()[:16],
        audio.sample_rate / (2 * audio.hop),
    )


def inside(batch: Batch, tokens: int, tokens_a_second: float) -> Tensor:
    """(batch, tokens) bool: which tokens of windows lie in their segments, at least one in each row.

    batch    of SegmentWindows
    """
    first = (batch.targets[:, 1:2] * tokens_a_second).round().long().clamp(0, tokens - 1)
    last = (batch.secondary[:, 1:2] * tokens_a_second).round().long().clamp(max=tokens).maximum(first + 1)
    position = torch.arange(tokens, device=first.device)
    return (position >= first) & (position < last)


@torch.no_grad()
def measure_imitation(predict: Predict, log_mel: LogMel, imitated: Imitated, device: torch.device) -> dict[str, float]:
    """How near the student comes on held-out windows.

    returns  cosine to the teacher's vectors; trivial_cosine, of the one vector that is best for all training windows;
             skill, the share of that one's distance (1 - cosine) that is gone: 0 is worthless, 1 is perfect
    """
    best = F.normalize(F.normalize(imitated.vectors, dim=1).mean(dim=0), dim=0).to(device)
    ours = trivial = 0.0
    count = len(imitated.held_out.waveforms)
    for start in range(0, count, 32):
        part = Batch(*(rows[start : start + 32].to(device) for rows in imitated.held_out))
        mel = log_mel(part.waveforms)
        wanted = imitated.held_out_vectors[part.targets[:, 0].long().cpu()].to(device)
        with autocast(device):
            within = inside(part, mel.shape[2] // 2, imitated.tokens_a_second)
            answer = predict(mel, within)
        ours += float(F.cosine_similarity(answer.float(), wanted, dim=1).sum())
        trivial += float(F.cosine_similarity(best[None], wanted, dim=1).sum())
    cosine, trivial = ours / count, trivial / count
    return {"skill": 1 - (1 - cosine) / max(1 - trivial, 1e-9), "cosine": cosine, "trivial_cosine": trivial}


if __name__ == "__main__":
    import tempfile
    from pathlib import Path

    import soundfile

    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        path = Path(folder) / "dusk.wav"
        soundfile.write(path, rng.normal(0, 0.1, 8 * 16_000), 16_000)
        dusk = Recording(path, "dusk.wav", seconds=8.0)
        rows = [replace(dusk, start=float(start), end=float(start + 3)) for start in range(0, 6, 1)]
        vectors = rng.normal(5.0, [1.0, 0.0, 3.0], (6, 3)).astype(np.float32)
        data = WindowSettings(Path(folder), cache_gb=0.0)
        imitated = prepare_imitation(rows, vectors, rows, vectors, 3.0, data, AudioSettings())
        perfect = iter([imitated.held_out_vectors])
        cpu = torch.device("cpu")
        measured = measure_imitation(lambda _mel, _inside: next(perfect), LogMel(AudioSettings(), 80), imitated, cpu)
    within = inside(imitated.held_out, 250, imitated.tokens_a_second)
    print("a student that says what its teacher says:", {name: round(value, 3) for name, value in measured.items()})
    assert within.sum(dim=1).tolist() == [150] * 6 and abs(measured["skill"] - 1) < 1e-6
