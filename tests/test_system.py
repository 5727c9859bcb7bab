"""Scoring asks the system in one room, and does without what only Linux has. Nobody has tried it on another one: here
one is played, a Python that lacks what Windows lacks."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import forked
import mypy
import pytest
from conftest import Stages
from house import HERE, room

import system
from demo_data import FieldSeason
from pack import needed
from runtime.application import COMMANDS

STUBS = Path(mypy.__file__).parent / "typeshed" / "stdlib"  # which system has what of Python's library
SYSTEMS = ("linux", "darwin", "win32")
LINUX_PATHS = re.compile(r"/(proc|sys|dev|tmp|etc|run|var)\b")
LINUX_FLAGS = frozenset({"preexec_fn", "pass_fds", "dir_fd", "process_group", "umask"})  # of functions of the library
FOREIGN = """
import array, fcntl, importlib, os, pathlib, select, signal, subprocess, sys, types
import psutil
control, ready = fcntl.ioctl, select.select
absent = "getuid geteuid getgid fork killpg setsid nice statvfs sysconf mkfifo pread pwrite getpgid wait4".split()
absent += [name for name in dir(os) if name.startswith(("sched_", "posix_", "O_NOFOLLOW", "O_DIRECT", "WIF"))]
for place, names in ((os, absent), (select, ["poll", "epoll", "select"]), (signal, ["SIGHUP", "SIGUSR1", "SIGPIPE"])):
    for name in names:
        delattr(place, name)
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None  # so that importing it fails


def without_proc(function):
    def ask(self, *words, **more):
        if str(self).startswith(("/proc", "/sys/")):
            raise FileNotFoundError(2, "there is no such thing here", str(self))
        return function(self, *words, **more)
    return ask


pathlib.Path.open, pathlib.Path.stat = without_proc(pathlib.Path.open), without_proc(pathlib.Path.stat)


def peek(pipe, _count):  # as Windows looks into a pipe
    count = array.array("i", [0])
    control(pipe, 0x541B, count)
    if not count[0] and ready([pipe], [], [], 0)[0]:
        raise BrokenPipeError(109, "the pipe has been ended")
    return count[0], 0


sys.modules["_winapi"] = types.SimpleNamespace(PeekNamedPipe=peek)
sys.modules["msvcrt"] = types.SimpleNamespace(get_osfhandle=lambda pipe: pipe)
"""


@cache
def offered(module: str, platform: str) -> frozenset[str]:
    """The names that a module of Python's library has on a system, by its stub."""
    return frozenset(declared(ast.parse(stub(module).read_text(encoding="utf-8")).body, platform))


@cache
def stub(module: str) -> Path:
    path = STUBS / module.replace(".", "/")
    return path / "__init__.pyi" if path.is_dir() else path.with_name(f"{path.name}.pyi")


def declared(body: list[ast.stmt], platform: str) -> Iterator[str]:
    """What the statements of a stub declare on a system, and what they hand on from others."""
    told = {"sys": SimpleNamespace(platform=platform, version_info=sys.version_info), "TYPE_CHECKING": True}
    for node in body:
        if isinstance(node, ast.If):
            yield from declared(node.body if eval(ast.unparse(node.test), told) else node.orelse, platform)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            yield from map(ast.unparse, node.targets if isinstance(node, ast.Assign) else [node.target])
        elif isinstance(node, ast.ImportFrom) and node.names[0].name == "*" and node.module:
            yield from offered(node.module, platform)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.name for alias in node.names if alias.asname == alias.name)


@cache
def is_everywhere(module: str, name: str) -> bool:
    """Whether a module of Python's library has a name on every system; others than Python's own are not asked."""
    if not stub(module).is_file() or stub(f"{module}.{name}").is_file():
        return True
    return all(name in offered(module, platform) for platform in SYSTEMS) or name not in offered(module, "linux")


def asks_the_system(path: Path) -> list[str]:
    """What a file does that only some systems know, by its line; its demo left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    body = [node for node in tree.body if not (isinstance(node, ast.If) and "__name__" in ast.unparse(node.test))]
    nodes = list(ast.walk(ast.Module(body, [])))
    texts = {node.value for node in nodes if isinstance(node, ast.Expr)}  # docstrings
    modules = {alias.asname or alias.name: alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    found: list[tuple[int, str]] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            lone = [alias.name for alias in node.names if stub(alias.name).is_file() and is_lonely(alias.name)]
            found += [(node.lineno, name) for name in lone]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [alias.name for alias in node.names if not is_everywhere(node.module, alias.name)]
            found += [(node.lineno, f"{node.module}.{name}") for name in names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            module = modules[node.value.id]
            found += [(node.lineno, f"{module}.{node.attr}")] * (not is_everywhere(module, node.attr))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in texts:
            found += [(node.lineno, node.value)] * bool(LINUX_PATHS.match(node.value))
        elif isinstance(node, ast.keyword) and node.arg in LINUX_FLAGS:
            found += [(node.lineno, node.arg)]
    return [f"{path.name}, line {line}: {what}" for line, what in found]


def is_lonely(module: str) -> bool:
    """Whether a module is empty on some system, or waits for other things there: select knows no pipes on Windows."""
    return module == "select" or not all(offered(module, platform) for platform in SYSTEMS)


def test_scoring_asks_the_system_in_one_room() -> None:
    files = [path for path in needed(COMMANDS) if room(path) != "system"]
    assert len(files) > 50 and {"predictor", "report", "sounds.decoders", "serving.journal"} < set(map(room, files))
    assert [what for path in files for what in asks_the_system(path)] == []
    assert len(asks_the_system(HERE / "system.py")) >= 3, "the search finds what is there"


@pytest.mark.parametrize(
    "line",
    [
        "import fcntl",
        "import resource",
        "import select",
        "import os\ncount = len(os.sched_getaffinity(0))",
        "import os as o\no.getuid()",
        "def late():\n    from os import O_DIRECT",
        "import signal\nsignal.SIGKILL",
        "from signal import SIGHUP",
        "import os\nif os.fork(): pass",
        "path = '/proc/cpuinfo'",
        "import subprocess\nsubprocess.run(words, preexec_fn=print)",
        "import mmap\nmmap.PROT_READ",
        "import time\ntime.tzset()",
    ],
)
def test_a_line_that_only_linux_knows_would_be_seen(line: str, tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(
        "import os, signal, mmap\nos.getpid(), os.cpu_count(), signal.SIGTERM, mmap.ACCESS_READ, '/proceed'\n"
    )
    assert not asks_the_system(path)
    path.write_text(line)
    assert len(asks_the_system(path)) == 1


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of processes that lack what Windows lacks, in which decoding processes are begun too."""
    psutil = pytest.importorskip("psutil", reason="psutil is what scoring uses where there is no /proc")
    place = tmp_path_factory.mktemp("foreign")
    (place / "sitecustomize.py").write_text(FOREIGN)
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(place), str(Path(psutil.__file__).parents[1])])}


def tables(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".csv", ".txt")}


def test_without_what_only_linux_has_the_tables_are_the_same(
    stages: Stages, season: FieldSeason, foreign: dict[str, str], tmp_path: Path
) -> None:
    words = (season.soundscape, "--model", stages.model, "--scores", "--out")
    assert forked.run(tmp_path, "predictor.py", *words, "here").returncode == 0
    command = [sys.executable, str(HERE / "predictor.py"), *map(str, words), "there"]
    done = subprocess.run(command, cwd=tmp_path, env=foreign, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    here = tables(tmp_path / "here")
    assert here == tables(tmp_path / "there") and {"detections.csv", "scores.csv"} < here.keys()
    assert here["scores.csv"].count(b"\n") > 5


@pytest.mark.parametrize(
    ("line", "lacks"),
    [
        ("import os; os.sched_getaffinity(0)", "AttributeError"),
        ("import fcntl", "ModuleNotFoundError"),
        ("import resource", "ModuleNotFoundError"),
        ("from pathlib import Path; Path('/proc/cpuinfo').read_text()", "FileNotFoundError"),
        ("import select", ""),
    ],
)
def test_the_system_that_is_played_lacks_what_it_should(line: str, lacks: str, foreign: dict[str, str]) -> None:
    """The control of the test above."""
    done = subprocess.run([sys.executable, "-c", line], env=foreign, capture_output=True, text=True, check=False)
    assert lacks in done.stderr and (done.returncode == 0) == (not lacks)


PORTABLE = """
import os, subprocess, sys
from pathlib import Path
import system
place = Path(sys.argv[1])
with system.locked(place / "lock") as mine:
    code = f"import system; from pathlib import Path\\nwith system.locked(Path({str(place / 'lock')!r})) as m: print(m)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
with system.locked(place / "lock") as again:
    pass
child = subprocess.Popen([sys.executable, "-c", "input(); print(1); input()"], stdin=-1, stdout=-1)
pipe = child.stdout.fileno()
silent = system.readable(pipe, 0.05)
child.stdin.write(b"\\n"); child.stdin.flush()
speaks, said = system.readable(pipe, 20), os.read(pipe, 9)
child.kill(); child.wait()
ended, rest = system.readable(pipe, 20), os.read(pipe, 9)
system.sync(place)
system.limit_memory("RLIMIT_AS", 2**20)
print(mine, other.split(), again, silent, speaks, said, ended, rest)
print(system.cores() >= 1, system.memory() > 2**28, system.peak_memory() > 2**20, system.peak_memory(2**22 + 1))
own, other = system.birth(os.getpid()), system.birth(os.getppid())
print(own == system.birth(os.getpid()) != other, system.birth(2**22 + 1) == "")
print(system.cpu_facts(), system.scratch_folder())
"""
HELD = "True ['False'] True False True b'1\\n' True b''\nTrue True True 0\nTrue True\n"


def test_the_portable_form_of_each_part_does_the_same(foreign: dict[str, str], tmp_path: Path) -> None:
    words = [sys.executable, "-c", PORTABLE, str(tmp_path)]
    done = subprocess.run(words, cwd=HERE, env=foreign, capture_output=True, text=True, check=False)
    assert done.stdout == f"{HELD}{{}} {Path(os.environ.get('TMPDIR', '/tmp')) / 'wildwhisper'}\n", done.stderr


def test_the_limit_is_that_of_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(system, "CGROUP", limit)
    whole = system.memory()
    limit.write_text("max\n")
    assert system.memory() == whole > 10**8
    limit.write_text("1000000\n")
    assert system.memory() == 1_000_000


def test_intermediates_go_to_a_folder_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("/tmp/wildwhisper").mkdir(exist_ok=True)
    assert system.scratch_folder() == Path("/tmp/wildwhisper")
    monkeypatch.setattr("os.getuid", lambda: 12_345)
    assert system.scratch_folder() == Path("/tmp/wildwhisper-12345")


def test_a_process_is_known_by_more_than_its_number() -> None:
    assert system.birth(os.getpid()) == system.birth(os.getpid()) != system.birth(1) and not system.birth(2**22 + 1)
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked how
    assert Path(f"/proc/{child}").exists() and not system.birth(child)
    os.waitpid(child, 0)


def test_a_process_that_was_started_apart_ends_with_those_that_it_has_started() -> None:
    words = ["sh", "-c", "sleep 100 & echo $!; wait"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout
    child = int(process.stdout.readline())
    system.end_group(process)
    assert process.returncode == -9 and process.stdout.read() == b"" and not system.birth(process.pid)
    process.stdout.close()
    assert child != process.pid  # its end of the pipe is closed too: it has ended


def test_only_one_process_has_a_file_and_its_end_frees_it(tmp_path: Path) -> None:
    code = "import sys, system; from pathlib import Path\n"
    code += "with system.locked(Path(sys.argv[1])) as mine: print(mine, flush=True); input()"
    words = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with subprocess.Popen(words, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout and child.stdout.readline() == b"True\n"
        with system.locked(tmp_path / "lock") as mine:
            assert not mine
        child.kill()
        child.wait()
        with system.locked(tmp_path / "lock") as mine:
            assert mine
