"""How the nearest of many embeddings are found: comparing all, coarse vectors first, and what libraries offer.

    make bench-stores           (or: .venv/bin/python -m bench.stores 100000; make bench-search first)

Reads    runs/search/features.npz: real embeddings of Whisper base, of which as many as wished are made: two mixed, the
         difference of two more, and noise
Writes   nothing that stays

For each way: seconds to build, megabytes on disk, milliseconds a query of one core's time, and how many of the hundred
nearest are found. Libraries are measured where they can be imported: `pip install --target DIR faiss-cpu usearch
lancedb`, and DIR on PYTHONPATH.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Find = Callable[[Vectors], NDArray[np.integer[Any]]]
FEATURES = Path("runs/search/features.npz")
NEAREST, QUERIES, BLOCK, WIDTH = 100, 10, 10_000, 512


def bench(count: int) -> None:
    """All ways, on so many windows."""
    assert FEATURES.is_file(), f"no {FEATURES}; `make bench-search` makes it"
    blocks = made_up(count + BLOCK)
    queries = next(blocks)[:QUERIES].astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        vectors: NDArray[np.float16] = np.lib.format.open_memmap(path, "w+", np.float16, (count, WIDTH))
        scores = np.empty((count, QUERIES), np.float32)
        for first, block in zip(range(0, count, BLOCK), blocks, strict=False):
            vectors[first : first + BLOCK] = block
            scores[first : first + BLOCK] = block.astype(np.float32) @ queries.T
        truth = [set(top(column, NEAREST).tolist()) for column in scores.T]
        print(f"{count} windows of {WIDTH} values, {path.stat().st_size / 1e6:.0f} MB in float16", flush=True)
        ours(vectors, queries, truth)
        for name, measure in (("faiss", with_faiss), ("usearch", with_usearch), ("lancedb", with_lancedb)):
            if find_spec(name):
                measure(vectors, queries, truth, Path(folder))
            else:
                print(f"{name} is not installed")


def made_up(count: int) -> Iterator[NDArray[np.float16]]:
    """Blocks of unit vectors with the spread of real ones."""
    with np.load(FEATURES) as kept:
        real = kept["layers"][:, :3, :WIDTH].astype(np.float32).mean(axis=1)
    real = (real - real.mean(axis=0)) / np.maximum(real.std(axis=0), 1e-4)
    rng = np.random.default_rng(0)
    for _ in range(0, count, BLOCK):
        one, other, third, fourth = rng.integers(len(real), size=(4, BLOCK))
        share = rng.beta(0.4, 0.4, (BLOCK, 1)).astype(np.float32)
        mixed = share * real[one] + (1 - share) * real[other] + 0.3 * (real[third] - real[fourth])
        mixed += 0.1 * rng.standard_normal((BLOCK, WIDTH), dtype=np.float32)
        yield (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float16)


def top(scores: NDArray[np.floating[Any]], count: int) -> NDArray[np.intp]:
    return np.argpartition(-scores, count)[:count]


def told(name: str, build: float, size: float, queries: Vectors, truth: list[set[int]], find: Find) -> None:
    """Measure a way and print its line."""
    find(queries[0])  # what is read for the first time
    times: list[float] = []
    shares: list[float] = []
    for query, wanted in zip(queries, truth, strict=True):
        started = time.process_time()
        found = find(query)
        times.append(1000 * (time.process_time() - started))
        shares.append(len(wanted & set(found.tolist())) / NEAREST)
    print(
        f"{name:44} built in {build:7.1f} s {size / 1e6:8.0f} MB {statistics.median(times):9.1f} ms "
        f"recall@{NEAREST} {statistics.mean(shares):.4f}",
        flush=True,
    )


def ours(vectors: NDArray[np.float16], queries: Vectors, truth: list[set[int]]) -> None:
    """Comparing all values, and what serving/vectors.py does with several numbers of directions."""
    count = len(vectors)

    def every(query: Vectors) -> NDArray[np.intp]:
        parts = [vectors[first : first + 4096].astype(np.float32) @ query for first in range(0, count, 4096)]
        return top(np.concatenate(parts), NEAREST)

    told("all values, block by block", 0, vectors.nbytes, queries[:3], truth[:3], every)
    for width in (32, 64, 96):
        started = time.process_time()
        sample = vectors[:: max(1, count // 20_000)].astype(np.float32)
        directions = np.ascontiguousarray(np.linalg.eigh(sample.T @ sample)[1][:, : -width - 1 : -1])
        parts = [vectors[first : first + BLOCK].astype(np.float32) @ directions for first in range(0, count, BLOCK)]
        coarse: Vectors = np.concatenate(parts)
        build, size = time.process_time() - started, vectors.nbytes + coarse.nbytes
        for again in (1_000, 4_000, 10_000):

            def find(
                query: Vectors, coarse: Vectors = coarse, directions: Vectors = directions, again: int = again
            ) -> NDArray[np.intp]:
                rows = np.sort(top(coarse @ (directions.T @ query), again))
                return rows[top(vectors[rows].astype(np.float32) @ query, NEAREST)]

            told(f"{width} directions, {again} once more", build, size, queries, truth, find)


def with_faiss(vectors: NDArray[np.float16], queries: Vectors, truth: list[set[int]], folder: Path) -> None:
    """An inverted file of float16 vectors."""
    faiss: Any = import_module("faiss")
    faiss.omp_set_num_threads(1)
    started = time.process_time()
    coarse = faiss.IndexFlatIP(WIDTH)
    kind = faiss.ScalarQuantizer.QT_fp16
    index = faiss.IndexIVFScalarQuantizer(coarse, WIDTH, 512, kind, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = 5
    index.train(vectors[:20_000].astype(np.float32))
    for first in range(0, len(vectors), BLOCK):
        index.add(vectors[first : first + BLOCK].astype(np.float32))
    build = time.process_time() - started
    faiss.write_index(index, str(folder / "faiss"))
    for lists in (16, 64, 256):
        index.nprobe = lists

        def find(query: Vectors) -> NDArray[np.integer[Any]]:
            return np.asarray(index.search(query[None], NEAREST)[1][0])

        told(f"faiss, {lists} of 512 lists", build, (folder / "faiss").stat().st_size, queries, truth, find)


def with_usearch(vectors: NDArray[np.float16], queries: Vectors, truth: list[set[int]], folder: Path) -> None:
    """A graph of neighbours (HNSW) over float16 vectors, mapped from disk."""
    usearch: Any = import_module("usearch.index")
    started = time.process_time()
    index = usearch.Index(ndim=WIDTH, metric="ip", dtype="f16", connectivity=16, expansion_add=64)
    for first in range(0, len(vectors), BLOCK):
        index.add(np.arange(first, first + BLOCK), np.asarray(vectors[first : first + BLOCK]), threads=1)
    build = time.process_time() - started
    index.save(folder / "usearch")
    index = usearch.Index.restore(str(folder / "usearch"), view=True)
    for width in (128, 512, 2048):
        index.expansion_search = width

        def find(query: Vectors) -> NDArray[np.integer[Any]]:
            return np.asarray(index.search(query.astype(np.float16), NEAREST).keys)

        told(f"usearch, {width} candidates", build, (folder / "usearch").stat().st_size, queries, truth, find)


def with_lancedb(vectors: NDArray[np.float16], queries: Vectors, truth: list[set[int]], folder: Path) -> None:
    """Product quantisation in an inverted file, the nearest compared once more."""
    lancedb: Any = import_module("lancedb")
    arrow: Any = import_module("pyarrow")
    started = time.process_time()
    flat = arrow.array(vectors.astype(np.float32).ravel())
    columns = {"id": np.arange(len(vectors)), "vector": arrow.FixedSizeListArray.from_arrays(flat, WIDTH)}
    table = lancedb.connect(str(folder / "lance")).create_table("windows", arrow.table(columns))
    table.create_index(metric="dot", num_partitions=256, num_sub_vectors=64, sample_rate=32)
    build = time.process_time() - started
    size = sum(path.stat().st_size for path in (folder / "lance").rglob("*") if path.is_file())
    for probes, refine in ((20, 5), (60, 10)):

        def find(query: Vectors, probes: int = probes, refine: int = refine) -> NDArray[np.integer[Any]]:
            asked = table.search(query).distance_type("dot").nprobes(probes).refine_factor(refine).limit(NEAREST)
            return np.asarray(asked.to_arrow()["id"].to_numpy())

        told(f"lancedb, {probes} of 256 lists, {refine} x once more", build, size, queries, truth, find)


if __name__ == "__main__":
    bench(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
