"""What a cluster costs for each recording, and how near several workers come to as many times the speed.

    make bench-cluster           (or: .venv/bin/python -m bench.cluster 2000)

Reads and writes   nothing that stays

Overhead: recordings of which the answer is there at once, in tasks as predictor.py makes them, through scheduler and
back; in seconds and in CPU time of the process that asks. Workers: recordings of 50 ms each in which a worker only
waits, so that four workers take turns on no core: what is left is what the cluster adds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from runtime.cluster import open_cluster
from serving.analyser import tasks_of
from serving.inputs import Entry

SECONDS, WAITED = 0.05, 400  # of a simulated recording; how many of them
SIZE = 960_044  # bytes: a minute at 8 kHz


def entries_of(count: int) -> list[Entry]:
    return [Entry(Path(f"site/{number:06}.wav"), size=SIZE) for number in range(count)]


def answered(task: Sequence[Entry]) -> list[int]:
    """An answer that is there at once."""
    return [entry.size for entry in task]


def waited(task: Sequence[Entry]) -> list[int]:
    """An answer of a worker that is slow, and costs no core."""
    time.sleep(SECONDS * len(task))
    return answered(task)


def bench(count: int) -> None:
    """Overhead of `count` recordings, then the same work by 1, 2 and 4 workers."""
    print("workers  recordings  seconds  ms a recording  of these CPU here  ideal  of the ideal")
    for workers in (1, 2, 4):
        with open_cluster(f"local:{workers}") as cluster:
            for work, number, ideal in ((answered, count, 0.0), (waited, WAITED, SECONDS * WAITED / workers)):
                entries = entries_of(number)
                list(cluster.results(answered, tasks_of(entries[:64], workers)))  # the first tasks import
                begun, spent, found = time.perf_counter(), time.process_time(), 0
                for _, answers in cluster.results(work, tasks_of(entries, workers)):
                    found += len(answers)
                seconds, cpu = time.perf_counter() - begun, time.process_time() - spent
                assert found == number, f"{found} of {number} recordings were answered"
                share = f"{ideal:5.1f}  {ideal / seconds:.0%}" if ideal else "    -  -"
                print(
                    f"{workers:7}  {number:10}  {seconds:7.2f}  {1000 * seconds / number:14.2f}  "
                    f"{1000 * cpu / number:17.2f}  {share}",
                    flush=True,
                )


if __name__ == "__main__":
    bench(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000)
