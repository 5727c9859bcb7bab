"""How unlike anything in training a window is: the distance of its embedding from those of the training windows.

    familiarity = fit_familiarity(embeddings, species, held_out)     # of training windows, and of held-out ones
    unfamiliar(familiarity, embeddings)                              # (windows,) 0 to 1

The distance is that to the nearest species: one less the cosine between the embedding and the mean of the species'
training windows, both seen from the mean of all and in units of how windows of one species differ among themselves.
What is reported is the share of held-out windows of known species that lie nearer; so one window in twenty of what the
classifier does know is above 0.95. Chosen by measurement (LOG.md); serving/export.py writes the same into the graph.

source    cosine and distance as scores of the unknown: https://arxiv.org/abs/2204.06507, whitening by the differences
          within classes: https://arxiv.org/abs/1807.03888, of which https://arxiv.org/abs/2106.09022 is a refinement
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHRINKAGE = 0.1  # of the covariance towards a sphere: there are fewer windows than dimensions squared
STEPS = 100  # of the scale
FEWEST = 30  # held-out windows without which there is no scale
LEAST = 1e-6  # the least length of a step, or of an embedding

Vectors = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Familiarity:
    """What there is to know of the training windows, as it travels in the served file."""

    mean: NDArray[np.float32]  # (width,) of all
    whitening: NDArray[np.float32]  # (width, width)
    directions: NDArray[np.float32]  # (species, width) of length 1: where the species lie from the mean, whitened
    levels: NDArray[np.float32]  # (STEPS + 1,) quantiles of the distances of held-out windows, each above the last


def fit_familiarity(vectors: Vectors, species: NDArray[np.int64], held_out: Vectors) -> Familiarity:
    """Fit it on the embeddings of training windows (windows, width), each with the index of its species (windows,), and
    scale it by those of held-out windows of known species.

    Errors: fewer than two species, or FEWEST held-out windows, are refused.
    """
    known = np.unique(species)
    assert len(known) > 1, f"{len(known)} species in the training windows; two or more give differences"
    assert len(held_out) >= FEWEST, f"{len(held_out)} held-out windows; {FEWEST} are the fewest that give a scale"
    exact = vectors.astype(np.float64)
    means = np.stack([exact[species == one].mean(axis=0) for one in known])
    within = exact - means[np.searchsorted(known, species)]
    values, axes = np.linalg.eigh(within.T @ within / len(within))
    values = (1 - SHRINKAGE) * values.clip(0) + SHRINKAGE * values.mean()
    mean, whitening = exact.mean(axis=0), axes / np.sqrt(values.clip(LEAST**2))
    directions = unit((means - mean) @ whitening)
    kept = [part.astype(np.float32) for part in (mean, whitening, directions)]
    fitted = Familiarity(kept[0], kept[1], kept[2], np.zeros(0, np.float32))
    levels = np.quantile(distances(fitted, held_out), np.linspace(0, 1, STEPS + 1))
    levels = levels + LEAST * np.arange(STEPS + 1)  # so that no step is without length
    return replace(fitted, levels=levels.astype(np.float32))


def unfamiliar(fitted: Familiarity, vectors: Vectors) -> NDArray[np.float32]:
    """(windows, width) -> (windows,) the share of held-out windows of known species that lie nearer, 0 to 1."""
    low, high = fitted.levels[:-1], fitted.levels[1:]
    passed = (distances(fitted, vectors)[:, None] - low) / (high - low)
    share: NDArray[np.float64] = passed.clip(0, 1).mean(axis=1)
    return share.astype(np.float32)


def distances(fitted: Familiarity, vectors: Vectors) -> NDArray[np.float64]:
    """(windows, width) -> (windows,) from the nearest species, 0 to 2."""
    seen = unit((vectors - fitted.mean).astype(np.float64) @ fitted.whitening)
    nearest: NDArray[np.float64] = (seen @ fitted.directions.T).max(axis=1)
    return 1 - nearest


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each row at length 1."""
    ones: NDArray[np.float64] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), LEAST)
    return ones


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    where = 3 * rng.normal(size=(4, 32))  # three species, and one that nobody has trained on
    spread = rng.uniform(0.1, 2, 32)

    def windows(species: int, count: int) -> NDArray[np.float64]:
        made: NDArray[np.float64] = where[species] + spread * rng.normal(size=(count, 32))
        return made

    trained = np.concatenate([windows(one, 50) for one in range(3)])
    held_out = np.concatenate([windows(one, 40) for one in range(3)])
    fitted = fit_familiarity(trained, np.repeat(np.arange(3), 50), held_out)
    known, unknown = unfamiliar(fitted, windows(2, 200)), unfamiliar(fitted, windows(3, 200))
    print(f"unfamiliar: a known species {known.mean():.2f} in the mean, an unknown one {unknown.mean():.2f}")
    assert 0.3 < known.mean() < 0.8 and unknown.mean() > 0.95
