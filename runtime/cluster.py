"""An existing engine for archives: Dask's workers, on this machine, behind a scheduler, or as jobs of Slurm.

    with open_cluster("local:4") as cluster:
        for task, result in cluster.results(work, tasks): ...        # in the order in which they are done

`work` is a function of a module that the workers can import, a task a few things that it takes at a time. Workers only
answer: who asked writes down what they answer, so that a task which two of them did counts once.

Reads    the configuration of Dask's user, for tcp:// and slurm: alone
Writes   nothing

Dask's own processes talk in pickles: whoever reaches its scheduler can run code. That of `local` and `slurm` is started
here, speaks TLS with a certificate that is made for this run, and has no dashboard; that of `tcp://` is its owner's.
A worker that dies is begun anew and its task given to another one; one that gives no sign of life ends itself. A job
of Slurm that ends, as each does at its limit of time, is queued anew.
"""

from __future__ import annotations

import atexit
import faulthandler
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from runtime.terminal import show
from system import APART, end_group

if TYPE_CHECKING:  # imported where it is asked for
    from dask_jobqueue import SLURMCluster
    from distributed import Client, Future, Security

Item = TypeVar("Item")
Result = TypeVar("Result")
Key = TypeVar("Key")
Opened = TypeVar("Opened")

HERE = Path(__file__).resolve().parents[1]
FORMS = "local:4, tcp://scheduler:8786, tls://scheduler:8786 or slurm:32"
LOOPBACK = "127.0.0.1"
LOG, LOGS = "workers.log", "slurm-*.out (or what log-directory of jobqueue.yaml holds)"
STUCK_SECONDS = 600.0  # without a sign of life, after which a worker is taken to hang
TRIES = 10  # workers that may die of a task before it is given up
LOOK_SECONDS = 5.0  # between two looks at how many workers there are
RENEW_SECONDS = 60.0  # between two questions to Slurm
OWN = "runtime.cluster"  # what workers must be able to import: one that cannot read a task ends itself
FIRST_SECONDS, LOCAL_SECONDS = 60.0, 300.0  # that the first worker of a running scheduler, and our own, may take
CONNECT_SECONDS = 10.0
NO_PAGE = {"dashboard": False, "dashboard_address": f"{LOOPBACK}:0"}
SETTINGS: dict[str, Any] = {  # of Dask, for what is started here
    "distributed.scheduler.allowed-failures": TRIES,
    "distributed.scheduler.worker-saturation": 1.0,  # what a worker waits with would be lost with it
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.http.routes": [],  # no page says anything
    "distributed.comm.timeouts.connect": "10s",  # to a worker that has just died, and had an answer ready
}


@dataclass(frozen=True)
class Cluster:
    """Workers, and the way to them."""

    client: Client
    name: str  # as the flag says it
    jobs: SLURMCluster | None = None  # what was given to Slurm

    def threads(self) -> int:
        """How many threads all workers have together, 0 while there is none."""
        try:
            return sum(self.client.nthreads().values())
        except (CancelledError, OSError):
            raise AssertionError(self.gone()) from None

    def renew(self) -> None:
        """Queue jobs anew that have ended, as at their limit of time: Dask does not miss them."""
        if self.jobs and (there := queued()) is not None:
            for name in [name for name, job in self.jobs.workers.items() if job.job_id not in there]:
                self.jobs.workers.pop(name, None)
            self.jobs.scale(jobs=int(self.name.partition(":")[2]))

    def is_waiting(self) -> bool:
        """Whether a job may still come."""
        there = queued() if self.jobs else set[str]()
        jobs = self.jobs.workers.values() if self.jobs else ()
        return there is None or any(job.job_id in there for job in jobs)

    def gone(self) -> str:
        return f"the scheduler at {self.name} is gone; what is done is kept: the same command goes on once it is back"

    def results(
        self, work: Callable[[Sequence[Item]], Result], tasks: Iterable[Sequence[Item]]
    ) -> Iterator[tuple[Sequence[Item], Result]]:
        """Each task with what `work` makes of it, each once, as they are done; no more than two for each thread are on
        their way, so that neither they nor their results need memory.

        Errors: one line where the scheduler is gone, no worker is left, or one says what is wrong with its machine; and
        at the end, where some tasks ended every worker that tried them.
        """
        tasks, done = iter(tasks), SimpleQueue["Future"]()
        running: dict[str, tuple[Future, Sequence[Item]]] = {}  # one that nobody holds would be forgotten
        fatal: list[Item] = []
        again: list[Sequence[Item]] = []
        room, looked = 2 * max(1, self.threads()), time.monotonic()
        renewed = looked
        while True:
            while len(running) < room and (task := again.pop() if again else next(tasks, None)) is not None:
                future = self.client.submit(at_work, work, STUCK_SECONDS, task, pure=False)
                running[future.key] = future, task
                future.add_done_callback(done.put)
            if not running:
                break
            future = self.next_done(done)
            _, task = running.pop(future.key)
            result = self.result_of(future)
            if result:
                yield task, result[0]
            elif len(task) == 1:
                fatal += task
            else:  # one of them is to blame
                again += [[item] for item in task]
            if time.monotonic() - looked > LOOK_SECONDS:  # workers come and go
                room, looked = 2 * max(1, self.threads()), time.monotonic()
            if time.monotonic() - renewed > RENEW_SECONDS:
                self.renew()
                renewed = time.monotonic()
        assert not fatal, (
            f"{len(fatal)} recordings ended every worker that tried them, all others are done: "
            f"{', '.join(str(getattr(item, 'path', item)) for item in fatal[:3])}; leave them out, or give workers "
            "more memory and the same command again"
        )

    def next_done(self, done: SimpleQueue[Future]) -> Future:
        """The next task that is done, however long it takes, as long as somebody is there to do it."""
        alone, renewed = 0.0, False
        while True:
            try:
                return done.get(timeout=LOOK_SECONDS)
            except Empty:
                if self.threads():
                    alone, renewed = 0.0, False
                    continue
            if not alone:
                show(f"no worker is left at {self.name}; waiting for others")
            alone = alone + LOOK_SECONDS
            if alone < FIRST_SECONDS or self.is_waiting():
                continue
            assert self.jobs and not renewed, (
                f"no worker was left at {self.name} for {alone:.0f} s; what is done is kept: "
                f"{'look at what the jobs said' if self.jobs else 'start some'} and give the same command again"
            )
            self.renew()
            alone, renewed = LOOK_SECONDS, True

    def result_of(self, future: Future) -> list[Any]:
        """What a task gave, in a list; an empty one where it ended all workers that tried it."""
        from distributed import KilledWorker

        assert future.status != "cancelled", self.gone()
        try:
            return [future.result()]
        except KilledWorker:
            return []
        except AssertionError as error:  # what was found on a worker's machine
            raise AssertionError(f"a worker at {self.name}: {error}") from None
        except (CancelledError, OSError) as error:
            assert future.status == "error", self.gone()
            raise AssertionError(f"a worker at {self.name}: {error or type(error).__name__}; mend that there") from None


# --- where we are ---------------------------------------------------------------------------------------------------


def read_cluster(text: str) -> tuple[str, str]:
    """local:4 -> (local, 4); tcp://host:8786 -> (tcp, tcp://host:8786). What is missing for it is said here."""
    counted, reached = re.fullmatch(r"(local|slurm):([1-9]\d{0,4})", text), re.fullmatch(r"(tcp|tls)://[^\s/]+", text)
    assert counted or reached, f"--cluster {text}: write {FORMS}"
    needed = ["distributed", *(["dask_jobqueue"] if text.startswith("slurm") else [])]
    needed += ["cryptography"] if counted else []
    absent = [name for name in needed if not find_spec(name)]
    assert not absent, (
        f"--cluster {text}: {' and '.join(absent)} is not installed here; `pip install -r requirements-cluster.txt`, "
        "or leave the flag out"
    )
    return (counted[1], counted[2]) if counted else ((reached[1] if reached else ""), text)


@contextmanager
def open_cluster(text: str) -> Generator[Cluster]:
    """The workers that a flag speaks of, until the block ends; those that were started for it end with it."""
    kind, where = read_cluster(text)
    import dask
    from distributed import Client

    openers = {"local": local_scheduler, "slurm": slurm_scheduler}
    address, security, jobs = where, None, None
    with dask.config.set(SETTINGS), ExitStack() as stack:
        for name in ("distributed", "distributed.client", "distributed.scheduler", "tornado.application"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what the user needs to know is said in our words
        if kind in openers:
            address, security, jobs = stack.enter_context(openers[kind](int(where)))
        try:
            client = stack.enter_context(
                Client(address, security=security, timeout=CONNECT_SECONDS, set_as_default=False)
            )
        except (OSError, ValueError) as error:
            raise AssertionError(
                f"no scheduler answers at {text} ({str(error).splitlines()[0][:120]}); start it with `dask scheduler`"
            ) from None
        cluster = Cluster(client, text, jobs)
        wait_for_workers(cluster, kind, int(where) if kind == "local" else 1)
        refuse_strangers(cluster)
        show(f"{cluster.threads()} threads of workers at {text}")
        yield cluster


def wait_for_workers(cluster: Cluster, kind: str, count: int) -> None:
    """Until so many threads of workers are there; for as long as it takes where they are in Slurm's queue."""
    limit = LOCAL_SECONDS if kind == "local" else FIRST_SECONDS
    ends = time.monotonic() + limit
    if kind == "slurm":
        show("waiting for the first job to start; Ctrl-C takes them all back")
    while cluster.threads() < count:
        if time.monotonic() > ends:
            assert kind != "slurm" or cluster.is_waiting(), (
                f"every job of {cluster.name} has ended, and none has a worker; {LOGS} in {Path.cwd()} say why"
            )
            assert kind == "slurm", (
                f"no worker came to {cluster.name} within {limit:.0f} s; start some with `dask worker`, or take fewer "
                "of local"
            )
            ends += limit
        time.sleep(0.05)


def refuse_strangers(cluster: Cluster) -> None:
    """Refuse workers that cannot import this program before they are given a task of it."""
    try:
        absent = not all(cluster.client.run(find_spec, OWN).values())
    except ImportError:
        absent = True
    assert not absent, (
        f"the workers at {cluster.name} do not find this program; start them in an environment like this one, with "
        f"PYTHONPATH={HERE}"
    )


@contextmanager
def local_scheduler(count: int) -> Generator[tuple[str, Security, None]]:
    """A scheduler in this process and so many workers of one thread; nobody else on this machine can talk to them."""
    from distributed import LocalCluster, Security

    security = Security.temporary()
    with (
        tempfile.TemporaryDirectory(prefix="wildwhisper-dask-") as folder,
        LocalCluster(
            n_workers=0,
            host=LOOPBACK,
            protocol="tls://",
            security=security,
            dashboard_address=f"{LOOPBACK}:0",
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,
        ) as scheduler,
    ):
        process = start_workers(scheduler.scheduler_address, count, Path(folder), security)
        try:
            yield scheduler.scheduler_address, security, None
        finally:
            end_group(process)  # they have nothing to keep


def start_workers(address: str, count: int, folder: Path, security: Security | None) -> subprocess.Popen[bytes]:
    """Workers as Dask's own command starts them, in a group of their own: Ctrl-C is for who asked.

    folder   for their files, closed to others
    """
    words = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nworkers", str(count), "--nthreads", "1"]
    words += ["--host", LOOPBACK, "--no-dashboard", "--dashboard-address", f"{LOOPBACK}:0"]
    words += ["--memory-limit", "0", "--local-directory", str(folder)]
    words += ["--death-timeout", f"{FIRST_SECONDS:.0f}"]
    if security:
        for flag in ("ca-file", "worker-cert", "worker-key"):
            path = folder / flag
            path.write_text(str(getattr(security, f"tls_{flag.replace('-', '_')}")))
            words += [f"--tls-{flag.removeprefix('worker-')}", str(path)]
    with (folder / LOG).open("wb") as log:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env=os.environ | workers_environment(),
            start_new_session=True,
            creationflags=APART,
        )


def workers_environment() -> dict[str, str]:
    """How workers find this program, and what they leave out."""
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    left_out = {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False", "DASK_DISTRIBUTED__WORKER__HTTP__ROUTES": "[]"}
    return {"PYTHONPATH": path, **left_out}


@contextmanager
def slurm_scheduler(count: int) -> Generator[tuple[str, Security, SLURMCluster]]:
    """A scheduler in this process and so many jobs of Slurm, each a worker; queue, account, time and memory are those
    of ~/.config/dask/jobqueue.yaml."""
    import dask
    from dask_jobqueue import SLURMCluster
    from distributed import Security

    own: Mapping[str, Any] = dask.config.get("jobqueue.slurm", {})
    exports = [f"export {name}={shlex.quote(value)}" for name, value in workers_environment().items()]
    security = Security.temporary()
    jobs = SLURMCluster(
        cores=own.get("cores") or 1,
        processes=own.get("processes") or 1,
        memory=own.get("memory") or "4 GB",
        protocol="tls://",
        security=security,
        shared_temp_directory=own.get("shared-temp-directory") or str(Path.cwd()),
        scheduler_options={**(own.get("scheduler-options") or {}), **NO_PAGE},
        job_script_prologue=[*(own.get("job-script-prologue") or []), *exports],
        worker_extra_args=[*(own.get("worker-extra-args") or []), "--no-dashboard"],
        silence_logs=logging.CRITICAL,
    )
    try:
        refuse_unqueued(jobs.job_script())
        jobs.scale(jobs=count)
        yield jobs.scheduler_address, security, jobs
    finally:
        with suppress(AssertionError):  # Dask's, of a job that Slurm has not taken, as beyond somebody's share of them
            jobs.close()
        for kept in [kept for name, kept in vars(jobs).items() if name.startswith("_job_") and hasattr(kept, "close")]:
            kept.close()  # the files of this run's certificate, which would stay until this process ends


def refuse_unqueued(script: str) -> None:
    """Refuse a job that Slurm would not take, in Slurm's words: Dask would wait for it."""
    sbatch = shutil.which("sbatch")
    assert sbatch, "--cluster slurm: no sbatch here; give the command on a machine from which jobs can be queued"
    said = subprocess.run([sbatch, "--test-only"], input=script, capture_output=True, text=True, check=False)
    words = " ".join(said.stderr.split()) or f"exit code {said.returncode}"
    assert said.returncode == 0, (
        f"Slurm takes no such job ({words[:200]}); mend ~/.config/dask/jobqueue.yaml (docs/clusters.md)"
    )


def queued() -> set[str] | None:
    """The numbers of one's jobs that wait or run; None where Slurm does not say."""
    squeue = shutil.which("squeue")
    if squeue is None:
        return None
    words = [squeue, "--me", "--noheader", "--format=%A %t"]
    said = subprocess.run(words, capture_output=True, text=True, check=False)
    rows = [line.split() for line in said.stdout.splitlines()]
    return {row[0] for row in rows if len(row) == 2 and row[1] != "CG"} if said.returncode == 0 else None


# --- where a worker is ----------------------------------------------------------------------------------------------


@dataclass
class AtWork:
    """What a worker remembers between its tasks."""

    lock: threading.Lock = field(default_factory=threading.Lock)  # one task at a time
    seconds: float = 0.0  # without a sign of life that end this process; 0: nothing is being done
    key: object = None
    opened: Any = None
    stack: ExitStack = field(default_factory=ExitStack)


WORKER = AtWork()
atexit.register(WORKER.stack.close)  # while Python is still whole; a worker that is killed has no say


def at_work(work: Callable[[Sequence[Item]], Result], seconds: float, task: Sequence[Item]) -> Result:
    """A task, on a worker: nothing else beside it, and the process ends where it gives no sign of life.

    Another one takes its place then (Dask's nanny), and the scheduler gives the task away once more.
    """
    with WORKER.lock:
        WORKER.seconds = seconds
        alive()
        try:
            return work(task)
        finally:
            WORKER.seconds = 0.0
            faulthandler.cancel_dump_traceback_later()


def alive() -> None:
    """A sign of life: the time begins anew. It is watched by a thread that needs nothing of Python."""
    if WORKER.seconds:
        faulthandler.dump_traceback_later(WORKER.seconds, exit=True)


def kept_open(key: Key, opener: Callable[[Key], AbstractContextManager[Opened]]) -> Opened:
    """What a worker has open: opened by the first task that wants it, closed by the first that wants another one."""
    if key != WORKER.key:
        WORKER.key = None
        WORKER.stack.close()
        WORKER.opened = WORKER.stack.enter_context(opener(key))
        WORKER.key = key
    return WORKER.opened  # type: ignore[no-any-return]


def threads_of_worker() -> int:
    """How many threads this worker was given."""
    from distributed import get_worker

    return int(get_worker().state.nthreads)


if __name__ == "__main__":

    @contextmanager
    def scale(factor: int) -> Generator[Callable[[int], int]]:
        print(f"opened for a factor of {factor}")
        yield lambda number: factor * number

    def scaled(task: Sequence[int]) -> list[int]:
        return [kept_open(3, scale)(number) for number in task]

    found = [at_work(scaled, 60.0, task) for task in ([1, 2], [3])]  # as a worker does it
    print(found)
    assert found == [[3, 6], [9]] and WORKER.seconds == 0
    try:
        read_cluster("local:0")
    except AssertionError as refusal:
        print(refusal)
