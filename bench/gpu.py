"""What only a GPU can answer in minutes, in one call of at most ten on a machine without network.

    .venv/bin/python -m bench.gpu pack                       here: makes gpu-pack/, under 60 MB, ignored by git
    python3 -m bench.gpu run --out results                   there, in a copy of the project with gpu-pack/ in it
    .venv/bin/python -m bench.gpu run --out results --size demo     the same on a CPU in minutes, to try it
    .venv/bin/python -m bench.gpu table results              anywhere: the table again, with paired intervals

Reads    gpu-pack/ (see bench.gpu_pack); that machine's torch, transformers, torchaudio, pandas and scikit-learn
Writes   to --out, each file as soon as a line of it is known, so a call that is cut off leaves what it had: steps.txt,
         profile.txt, table.txt, scores.npz, stage_one.txt, failed.txt and printed.txt; runs go to a scratch folder

The parts follow each other, each in a process of its own that is ended at its time limit with all it has started; what
a part leaves over goes to those behind it. This file needs nothing but Python: the parts are in bench.gpu_parts.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

PACK = Path("gpu-pack")
LONGEST = 600  # seconds that a call may take
LIMITS = {"prepare": 45, "steps": 75, "table": 170, "stage_one": 185}  # seconds; the rest is margin
PATIENCE = {"base": 1, "demo": 4}  # how many times as long: at demo size it is a trial, perhaps on a busy machine
FROM_WHEELS = ("soundfile", "soxr", "tyro")  # what such a machine may lack


def run(pack: Path, out: Path, size: str, parts: tuple[str, ...] = tuple(LIMITS)) -> int:
    """Some parts, within their limits; returns how many of them did not come to their end."""
    assert pack.is_dir(), f"no {pack}; `python -m bench.gpu pack` makes it where ../shared is"
    out.mkdir(parents=True, exist_ok=True)
    started, unfinished = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="wildwhisper-gpu-") as scratch, (out / "printed.txt").open("ab") as log:
        environment = prepared(pack, Path(scratch) / "site")
        limits = {part: LIMITS[part] for part in LIMITS if part in parts}
        limits[list(limits)[-1]] += sum(LIMITS.values()) - sum(limits.values())  # the last has what others leave over
        for part, end in zip(limits, accumulate(PATIENCE[size] * limit for limit in limits.values()), strict=True):
            words = [sys.executable, "-m", "bench.gpu_parts", part, size, str(pack), scratch, str(out)]
            process = subprocess.Popen(words, stdout=log, stderr=log, env=environment, start_new_session=True)
            code = wait(process, started + end - time.monotonic())
            unfinished += code != 0
            how = {0: "done", None: "cut off at its time limit"}.get(code, f"failed with {code}, see {out}/printed.txt")
            print(f"{part}: {how}, {time.monotonic() - started:.0f} s after the start", flush=True)
    for path in sorted(out.glob("*.txt")):
        if path.name not in ("printed.txt", "profile.txt"):
            print(f"\n{path.name}\n{path.read_text(encoding='utf-8')}", flush=True)
    return unfinished


def prepared(pack: Path, site: Path) -> dict[str, str]:
    """The environment of the parts: threads that do not wait for each other, no network, packages from wheels."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    absent = [name for name in FROM_WHEELS if importlib.util.find_spec(name) is None]
    if absent:
        wheels = sorted(map(str, (pack / "wheels").glob("*.whl")))
        words = ["pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--target", str(site), *wheels]
        subprocess.run([sys.executable, "-m", *words], check=True)
        paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        print(f"{', '.join(absent)} taken from {pack}/wheels", flush=True)
    return environment


def wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit code of a process, or None where it had to be ended, with all that it had started."""
    try:
        return process.wait(max(seconds, 1))
    except subprocess.TimeoutExpired:
        return None
    finally:
        with suppress(ProcessLookupError):  # nothing of it is left
            os.killpg(process.pid, signal.SIGKILL)  # a process group of its own, made in `run`
        process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pack", "run", "table"))
    parser.add_argument("results", nargs="?", type=Path, default=Path("runs/gpu"), help="of table: what run wrote")
    parser.add_argument("--pack", type=Path, default=PACK)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--parts", nargs="+", choices=tuple(LIMITS), default=tuple(LIMITS), help="only these")
    parser.add_argument("--size", choices=("base", "demo"), default="base")
    given = parser.parse_args()
    if given.what == "run":
        return run(given.pack, given.out, given.size, tuple(given.parts))
    if given.what == "table":
        from bench.gpu_parts import print_table

        print_table(given.results)
        return 0
    from bench.baseline import ANIMALS, MIN_RECORDINGS
    from bench.gpu_pack import pack

    pack(ANIMALS, ANIMALS / "noise", ANIMALS.parent / "whisper-base", MIN_RECORDINGS, given.pack)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
