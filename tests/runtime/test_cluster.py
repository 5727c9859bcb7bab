"""Workers that die, hang and refuse: every task is answered once, or one line says why not; nobody else gets in."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import cluster_work
import pytest
from pretend_voices import not_installed

from runtime import cluster as rooms
from runtime.cluster import Cluster, at_work, kept_open, open_cluster, read_cluster, refuse_strangers

distributed = pytest.importorskip("distributed", reason="pip install -r requirements-cluster.txt")
HERE = Path(__file__).parents[2]
TASKS = [[number, number + 1] for number in range(0, 40, 2)]
DUE = {number: 2 * number for number in range(40)}


@pytest.fixture(scope="module")
def workers() -> Iterator[Cluster]:
    """Two workers, of which a task may end two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
        patch.setitem(rooms.SETTINGS, "distributed.scheduler.allowed-failures", 1)
        patch.setitem(rooms.SETTINGS, "distributed.comm.timeouts.connect", "3s")
        with open_cluster("local:2") as cluster:
            yield cluster


def answers(cluster: Cluster, work: Any, tasks: Sequence[Sequence[int]] = TASKS) -> dict[int, int]:
    """What was answered to each number; one that is answered twice is an error."""
    found: dict[int, int] = {}
    for task, result in cluster.results(work, tasks):
        for number, answer in zip(task, result, strict=True):
            assert number not in found
            found[number] = answer
    return found


def test_a_worker_that_is_killed_in_the_middle_costs_no_answer_and_gives_none_twice(
    workers: Cluster, tmp_path: Path
) -> None:
    assert answers(workers, partial(cluster_work.killed_at_first, tmp_path / "killed")) == DUE
    assert (tmp_path / "killed").exists()


def test_a_worker_that_hangs_ends_itself_and_another_one_answers(
    workers: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "STUCK_SECONDS", 1.0)
    assert answers(workers, partial(cluster_work.stuck_at_first, tmp_path / "stuck")) == DUE
    assert (tmp_path / "stuck").exists()


@pytest.mark.slow
def test_what_ends_every_worker_is_named_once_all_else_is_done(workers: Cluster) -> None:
    found: dict[int, int] = {}
    with pytest.raises(AssertionError, match=r"^1 recordings ended every worker .*, all others are done: 7; "):
        for task, result in workers.results(cluster_work.always_killed, TASKS):
            found |= dict(zip(task, result, strict=True))
    assert found == {number: answer for number, answer in DUE.items() if number != 7}  # 6 was in one task with it


def test_what_a_worker_refuses_is_one_line(workers: Cluster) -> None:
    with pytest.raises(AssertionError, match=r"^a worker at local:2: it has no model for 0$"):
        answers(workers, cluster_work.refused)


def test_a_disk_that_is_full_where_a_worker_is_is_said_to_be_there(workers: Cluster) -> None:
    with pytest.raises(AssertionError, match=r"^a worker at local:2: .*No space left on device: '/scratch.*mend that"):
        answers(workers, cluster_work.without_room)


def test_workers_without_this_program_are_refused_before_they_get_a_task(
    workers: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_strangers(workers)
    for other in ("runtime.not_there", "not_there.either"):
        monkeypatch.setattr(rooms, "OWN", other)
        with pytest.raises(AssertionError, match=f"^the workers at local:2 do not find this .* PYTHONPATH={HERE}$"):
            refuse_strangers(workers)


def test_no_more_tasks_are_on_their_way_than_two_for_each_thread(workers: Cluster) -> None:
    drawn, done, most = 0, 0, 0

    def tasks() -> Iterator[list[int]]:
        nonlocal drawn
        for number in range(60):
            drawn += 1
            yield [number]

    for _ in workers.results(cluster_work.doubled, tasks()):
        most, done = max(most, drawn - done), done + 1
    assert done == drawn == 60 and 2 <= most <= 2 * 2 + 1


def listening() -> dict[str, str]:
    """The address of every port that is listened to on this machine, by the number of its socket."""
    found: dict[str, str] = {}
    for table in ("tcp", "tcp6"):
        lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        found |= {line.split()[9]: line.split()[1].split(":")[0] for line in lines if line.split()[3] == "0A"}
    return found


def sockets_of(processes: set[int]) -> set[str]:
    """Numbers of the sockets that some processes have open."""
    found = set[str]()
    for process in processes:
        for file in Path(f"/proc/{process}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed since
                found |= set(re.findall(r"socket:\[(\d+)\]", str(file.readlink())))
    return found


def test_all_of_it_listens_on_this_machine_alone_and_to_nobody_without_its_certificate(workers: Cluster) -> None:
    workers.client.wait_for_workers(2, timeout=120)  # one that another test ended comes again
    pids = workers.client.run(os.getpid, nanny=True) | {"workers": 0, "here": os.getpid()}
    processes = {pid for pid in pids.values() if pid} | set(workers.client.run(os.getpid).values())
    theirs = sockets_of(processes)
    own = [address for socket, address in listening().items() if socket in theirs]
    assert len(own) >= 6 and set(own) == {"0100007F"}  # 127.0.0.1: two of the scheduler, two of each worker
    stranger = distributed.Security.temporary()
    address = workers.client.scheduler.address
    assert address.startswith("tls://127.0.0.1:")
    with pytest.raises(OSError, match=r"(?i)timed out|certificate|connect"):
        distributed.Client(address, security=stranger, timeout=1.0, set_as_default=False)
    with distributed.Client(address, security=workers.client.security, set_as_default=False) as known:  # control
        assert sum(known.nthreads().values()) == 2


def test_a_worker_opens_the_same_once_and_something_else_in_its_place() -> None:
    said: list[str] = []

    @contextmanager
    def opener(key: str) -> Generator[str]:
        said.append(f"open {key}")
        yield key.upper()
        said.append(f"close {key}")

    def work(task: Sequence[str]) -> list[str]:
        return [kept_open(key, opener) for key in task]

    assert at_work(work, 60.0, ["a", "a", "b"]) == ["A", "A", "B"]
    assert said == ["open a", "close a", "open b"]


def test_what_a_worker_has_open_is_closed_before_python_is_taken_apart() -> None:
    program = """
from contextlib import contextmanager
from runtime.cluster import at_work, kept_open

@contextmanager
def opener(key):
    yield key
    import select
    print("closed", select.select([], [], [], 0))

at_work(lambda task: [kept_open(key, opener) for key in task], 60.0, ["a"])
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=HERE, capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("closed ([], [], [])\n", "")


@pytest.mark.parametrize(
    "text", ["", "local", "local:0", "local:two", "slurm:", "http://host:1", "tcp://", "tcp://a b"]
)
def test_what_is_no_cluster_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(AssertionError, match=r"--cluster .*: write local:4, tcp://"):
        read_cluster(text)


def test_what_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_cluster("local:4") == ("local", "4") and read_cluster("tcp://a:1") == ("tcp", "tcp://a:1")
    monkeypatch.setattr(rooms, "find_spec", not_installed)
    for text in ("local:4", "tcp://scheduler:8786", "slurm:32"):
        with pytest.raises(
            AssertionError, match=r"distributed.* is not installed here; `pip install -r requirements-cl"
        ):
            read_cluster(text)


def test_a_scheduler_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "CONNECT_SECONDS", 0.3)
    with (
        pytest.raises(AssertionError, match=r"^no scheduler answers at tcp://127\.0\.0\.1:9 .*`dask scheduler`"),
        open_cluster("tcp://127.0.0.1:9"),
    ):
        pass


def started(module: str, *words: str) -> subprocess.Popen[bytes]:
    """A scheduler or a worker as Dask's own commands start them."""
    command = [sys.executable, "-m", f"distributed.cli.{module}", *words]
    path = os.pathsep.join([str(Path(__file__).parent), str(HERE), os.environ.get("PYTHONPATH", "")])
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, stdout=quiet, stderr=quiet)


@pytest.mark.slow
def test_a_scheduler_that_goes_is_one_line_and_the_next_one_answers(tmp_path: Path) -> None:
    usual = ["--host", "127.0.0.1", "--no-show", "--dashboard-address", "127.0.0.1:0", "--port"]
    scheduler = started("dask_scheduler", *usual, "38786")
    place = ["--host", "127.0.0.1", "--no-dashboard", "--nthreads", "1", "--local-directory", str(tmp_path)]
    worker = started("dask_worker", "tcp://127.0.0.1:38786", *place)
    try:
        with (
            pytest.raises(AssertionError, match=r"the scheduler at tcp://127\.0\.0\.1:38786 is gone; what"),
            open_cluster("tcp://127.0.0.1:38786") as cluster,
        ):
            for number, _ in enumerate(cluster.results(cluster_work.slowly, TASKS)):
                if number == 5:
                    scheduler.kill()
                    scheduler.wait()
        scheduler = started("dask_scheduler", *usual, "38786")
        again = started("dask_worker", "tcp://127.0.0.1:38786", *place)
        time.sleep(2)
        with open_cluster("tcp://127.0.0.1:38786") as cluster:
            assert answers(cluster, cluster_work.slowly) == DUE
        again.terminate()
        again.wait()
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_worker_that_stands_still_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGSTOP, as of a machine that is there and does nothing: not even its own watch goes on."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setitem(rooms.SETTINGS, "distributed.scheduler.worker-ttl", "2s")
    with open_cluster("local:2") as cluster:
        process, *_ = cluster.client.run(os.getpid).values()
        found: dict[int, int] = {}
        for number, (task, result) in enumerate(cluster.results(cluster_work.slowly, TASKS)):
            found |= dict(zip(task, result, strict=True))
            if number == 5:
                os.kill(process, signal.SIGSTOP)
        assert found == DUE


SBATCH = """#!/bin/sh
[ "$1" = --test-only ] && exit 0
for job; do :; done
cp "$job" {folder}/script
cp "$job" {folder}/script-$$  # as Slurm does: who gives it a script takes it away at once
setsid bash {folder}/script-$$ > {folder}/said 2>&1 &
echo $! >> {folder}/jobs
echo "Submitted batch job $!"
"""


SQUEUE = """#!/bin/sh
for job in $(cat {folder}/jobs); do kill -0 $job 2>/dev/null && echo $job R; done
exit 0
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pretend Slurm whose jobs are processes here: the folder with its programs, jobs and what these say."""
    pytest.importorskip("dask_jobqueue", reason="pip install -r requirements-cluster.txt")
    (tmp_path / "sbatch").write_text(SBATCH.format(folder=tmp_path))
    (tmp_path / "squeue").write_text(SQUEUE.format(folder=tmp_path))
    (tmp_path / "scancel").write_text('#!/bin/sh\nkill -- "-$1"\n')
    for name in ("sbatch", "squeue", "scancel"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    return tmp_path


@pytest.mark.slow
def test_jobs_of_slurm_are_workers_and_are_taken_back_at_the_end(
    slurm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_cluster("slurm:2") as cluster:
        assert cluster.client.scheduler.address.startswith("tls://")
        assert answers(cluster, cluster_work.slowly) == DUE
    jobs = (slurm / "jobs").read_text().split()
    assert len(jobs) == 2 and f"PYTHONPATH={HERE}" in (slurm / "script").read_text().replace("'", "")
    ends = time.monotonic() + 20
    while any(Path(f"/proc/{job}").exists() for job in jobs) and time.monotonic() < ends:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{job}").exists() for job in jobs)
    assert [path.name for path in slurm.iterdir() if path.name.startswith(".")] == []  # no certificate stays
    assert "waiting for the first job to start" in capsys.readouterr().out


@pytest.mark.slow
def test_a_job_that_ends_before_the_work_does_is_queued_anew(slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As at its limit of time, half an hour unless somebody says otherwise."""
    monkeypatch.setattr(rooms, "LOOK_SECONDS", 1.0)
    with open_cluster("slurm:1") as cluster:
        found: dict[int, int] = {}
        for number, (task, result) in enumerate(cluster.results(cluster_work.slowly, TASKS)):
            found |= dict(zip(task, result, strict=True))
            if number == 5:
                subprocess.run([slurm / "scancel", (slurm / "jobs").read_text().split()[0]], check=True)
        assert found == DUE
    assert len((slurm / "jobs").read_text().split()) == 2


@pytest.mark.usefixtures("slurm")
def test_jobs_that_end_without_a_worker_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    dask = pytest.importorskip("dask")
    monkeypatch.setattr(rooms, "FIRST_SECONDS", 2.0)
    with (
        dask.config.set({"jobqueue.slurm.python": "/nowhere/python"}),
        pytest.raises(AssertionError, match=r"^every job of slurm:2 has ended, and none has a worker; slurm-\*\.out"),
        open_cluster("slurm:2"),
    ):
        pass


def test_what_slurm_says_of_a_job_that_it_takes_not_is_one_line(slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (slurm / "sbatch").write_text("#!/bin/sh\ncat > /dev/null\necho sbatch: error: no such partition >&2\nexit 1\n")
    with pytest.raises(AssertionError, match=r"^Slurm takes no such job \(sbatch: error: no such partition\); mend"):
        open_cluster("slurm:2").__enter__()
    monkeypatch.setenv("PATH", str(slurm / "nothing"))
    with pytest.raises(AssertionError, match=r"^--cluster slurm: no sbatch here"):
        open_cluster("slurm:2").__enter__()
