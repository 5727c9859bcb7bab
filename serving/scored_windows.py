"""The answers to a recording's windows: gathered channel by channel, packed for the journal, put in the order of time.

    windows = answered.setdefault((channel, shifted), Windows())
    windows.take(times, rows, answer, embeddings=False)
    windows.scored(channel, species=206)                   # in the order of time

No torch, and no files: serving/journal.py writes what is packed here.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from serving.detections import Scored
from serving.scorer import Answer

ARRAYS = ("starts", "ends", "probabilities", "embeddings", "unfamiliar")
Numbers = np.ndarray[tuple[int, ...], np.dtype[np.generic]]
NONE = np.zeros(0, np.float32)  # of what an earlier version did not keep


@dataclass
class Windows:
    """What was answered to one channel of a recording, window by window, in as little memory as its numbers need."""

    starts: list[float] = field(default_factory=list[float])  # seconds
    ends: list[float] = field(default_factory=list[float])
    probabilities: array[float] = field(default_factory=lambda: array("f"))  # row after row
    embeddings: array[float] = field(default_factory=lambda: array("f"))
    unfamiliar: array[float] = field(default_factory=lambda: array("f"))  # of models that tell it
    width: int = 0  # of the embeddings
    species: int = 0

    def take(self, times: Sequence[tuple[float, float]], rows: Sequence[int], answer: Answer, embeddings: bool) -> None:
        """Add windows by their start and end in seconds, and the rows of an answer that belong to them."""
        chosen = list(rows)
        self.species = answer.probabilities.shape[1]
        self.starts += [start for start, _ in times]
        self.ends += [end for _, end in times]
        self.probabilities.frombytes(answer.probabilities[chosen].tobytes())
        if embeddings:
            self.embeddings.frombytes(answer.embeddings[chosen].tobytes())
            self.width = answer.embeddings.shape[1]
        if answer.unfamiliar is not None:
            self.unfamiliar.frombytes(answer.unfamiliar[chosen].tobytes())

    def arrays(self, rows: int) -> dict[str, Numbers]:
        """The first so many windows, as the journal saves them; nothing is copied, so nothing can be taken until they
        are let go."""
        probabilities, embeddings, unfamiliar = (
            np.frombuffer(each, np.float32) for each in (self.probabilities, self.embeddings, self.unfamiliar)
        )
        return {
            "starts": np.array(self.starts[:rows], np.float64),
            "ends": np.array(self.ends[:rows], np.float64),
            "probabilities": probabilities[: rows * self.species],
            "embeddings": embeddings[: rows * self.width],
            "unfamiliar": unfamiliar[:rows],
            "widths": np.array([self.width, self.species]),
        }

    def scored(self, channel: int, species: int) -> Scored:
        """All windows in the order of time; those of contexts that take turns do not come in it.

        species   of the model: a recording without a single window has none of its own
        """
        count = len(self.starts)
        probabilities = np.frombuffer(self.probabilities, np.float32).reshape(count, species)
        embeddings = np.frombuffer(self.embeddings, np.float32).reshape(count, self.width)
        unfamiliar = np.frombuffer(self.unfamiliar, np.float32)
        order = sorted(range(count), key=self.starts.__getitem__)
        if order == list(range(count)):  # what is in order need not be copied
            return Scored(self.starts, self.ends, probabilities, embeddings, channel, unfamiliar)
        starts, ends = ([times[row] for row in order] for times in (self.starts, self.ends))
        unfamiliar = unfamiliar[order] if len(unfamiliar) else unfamiliar
        return Scored(starts, ends, probabilities[order], embeddings[order], channel, unfamiliar)


ByChannel = dict[tuple[int, bool], Windows]  # of one recording, by channel and, for --tta, whether shifted


def packed(answered: ByChannel, contexts: int, rows: Mapping[tuple[int, bool], int]) -> dict[str, Numbers]:
    """What was answered so far, as flat arrays: so many contexts, and so many rows of each channel."""
    arrays: dict[str, Numbers] = {"contexts": np.array([contexts])}
    for (channel, shifted), count in rows.items():
        own = answered[channel, shifted].arrays(count)
        arrays |= {f"{channel} {int(shifted)} {name}": values for name, values in own.items()}
    return arrays


def unpacked(arrays: Mapping[str, Numbers]) -> tuple[ByChannel, int]:
    """The reverse of `packed`; of nothing: nothing is answered yet."""
    answered: ByChannel = {}
    for name in arrays:
        if name.endswith(" starts"):
            channel, shifted, _ = name.split()
            own = {key: arrays.get(f"{channel} {shifted} {key}", NONE) for key in ARRAYS}
            windows = Windows(own["starts"].tolist(), own["ends"].tolist())
            windows.probabilities.frombytes(own["probabilities"].tobytes())
            windows.embeddings.frombytes(own["embeddings"].tobytes())
            windows.unfamiliar.frombytes(own["unfamiliar"].tobytes())
            windows.width, windows.species = map(int, arrays[f"{channel} {shifted} widths"])
            answered[int(channel), shifted == "1"] = windows
    return answered, contexts_of(arrays)


def contexts_of(arrays: Mapping[str, Numbers] | None) -> int:
    """How many contexts of a recording an earlier run had the answers to."""
    return int(arrays["contexts"][0]) if arrays else 0


if __name__ == "__main__":
    answers = [Answer(np.full((1, 2), 0.25 * k, np.float32), np.zeros((1, 0), np.float32)) for k in (1, 2)]
    answered: ByChannel = {(0, False): Windows()}
    for time, answer in zip([(5.0, 10.0), (0.0, 5.0)], answers, strict=True):
        answered[0, False].take([time], [0], answer, embeddings=False)
    again, contexts = unpacked(packed(answered, 2, {(0, False): 2}))
    scored = again[0, False].scored(channel=0, species=2)
    print(f"{contexts} contexts, windows from {scored.starts} s: {scored.probabilities.tolist()}")
    assert list(scored.starts) == [0.0, 5.0] and scored.probabilities[0].tolist() == [0.5, 0.5]
