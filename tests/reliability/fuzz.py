"""Good small files, damaged at random, through the doors they would come in by.

    python tests/fuzz.py 2000 1              # COUNT SEED: one line of JSON: how many were tried, and what was found

A damaged file may be refused with a message, or read as far as it goes; anything else is a finding: another exception,
a signal, a hang, samples that are no numbers. Findings are kept in /tmp/wildwhisper/fuzz. Batches are read in forked
processes with limits on memory and time.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(HERE), str(HERE / "tests")] if str(HERE) not in sys.path else []

KEPT = Path("/tmp/wildwhisper/fuzz")
BATCH, SECONDS, MEMORY = 50, 20, 2 * 2**30  # files per process, seconds per file, bytes
SHARES = {"audio": 0.7, "tables": 0.2, "models": 0.1}
EXTREMES = (0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
WORDS = (b"-1", b"nan", b"1e999", b"99999999999999999999", b"", b'"', b"\0", b"\xff\xfe", b"=1+1", b"../..", b"null")

Reader = Callable[[Path], str]  # a word for what came of it; an AssertionError with a message is one, too


@dataclass
class Seed:
    """A good file, and who reads it."""

    name: str
    content: bytes
    read: Reader


@dataclass
class Report:
    """What a run has shown."""

    seed: int
    tried: dict[str, int] = field(default_factory=dict[str, int])
    outcomes: dict[str, int] = field(default_factory=dict[str, int])
    findings: list[str] = field(default_factory=list[str])


def fuzz(families: Mapping[str, Sequence[Seed]], counts: Mapping[str, int], seed: int, folder: Path) -> Report:
    """Damaged copies of the seeds of each family in turn, as many as asked for."""
    report = Report(seed)
    for number, (family, seeds) in enumerate(families.items()):
        for first in range(0, counts[family], BATCH):
            last = min(first + BATCH, counts[family])
            cases = [(place, seeds[place % len(seeds)]) for place in range(first, last)]
            while cases:
                cases = batch(cases, report, (seed, number), folder)
        report.tried[family] = counts[family]
    return report


def batch(
    cases: Sequence[tuple[int, Seed]], report: Report, origin: tuple[int, int], folder: Path
) -> list[tuple[int, Seed]]:
    """Read some files in a child; returns those that are left where one of them ended it."""
    log = folder / "log.txt"
    log.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        faulthandler.disable()  # how it ends is told below
        try:
            read_all(cases, origin, folder, log)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    lines = [line.split("\t", 1) for line in log.read_text("utf-8").splitlines()] if log.is_file() else []
    for (place, seed), line in zip(cases, lines, strict=False):
        said = line[1] if len(line) > 1 else f"ended the process ({os.waitstatus_to_exitcode(status)})"
        fine = said.startswith(("ok", "salvaged", "silent", "short", "unreadable", "refused"))
        word = said.split(" ")[0] if fine else "finding"
        report.outcomes[word] = report.outcomes.get(word, 0) + 1
        if not fine:
            KEPT.mkdir(parents=True, exist_ok=True)
            kept = KEPT / f"finding-{origin[0]}-{origin[1]}-{place}-{seed.name}"
            kept.write_bytes(damaged(seed.content, np.random.default_rng([*origin, place])))
            report.findings.append(f"{kept}: {said}")
    return list(cases[max(1, len(lines)) :])


def read_all(cases: Sequence[tuple[int, Seed]], origin: tuple[int, int], folder: Path, log: Path) -> None:
    """In the child: a line for each file, begun before it is read and ended after."""
    memory = int(Path("/proc/self/statm").read_text().split()[0]) * 4096 + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    silence = os.open(os.devnull, os.O_WRONLY)  # decoders speak their mind there
    for number in (1, 2):
        os.dup2(silence, number)
    file = os.open(log, os.O_WRONLY | os.O_CREAT)
    for place, seed in cases:
        path = folder / seed.name
        path.write_bytes(damaged(seed.content, np.random.default_rng([*origin, place])))
        os.write(file, str(place).encode())
        signal.alarm(SECONDS)
        try:
            said = seed.read(path)
        except AssertionError as refusal:
            message = str(refusal).strip()
            said = "refused" if message and "\n" not in message else f"refused without one line: {message!r}"
            said = said if said == "refused" else f"finding: {said}"
        except Exception as error:  # this is what is looked for
            said = f"{type(error).__name__}: {error}"
        os.write(file, f"\t{' '.join(said.split())[:300]}\n".encode("utf-8", "replace"))


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """One to three kinds of damage; the beginning, where headers are, is hit half of the time."""
    made = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        if len(made) < 8:
            break
        reach = len(made) if rng.random() < 0.5 else min(len(made), 256)
        place = int(rng.integers(0, reach))
        length = int(rng.integers(1, max(2, min(len(made) // 3, 2_000))))
        kind = rng.integers(0, 7)
        if kind == 0:
            for _ in range(rng.integers(1, 17)):
                made[int(rng.integers(0, reach))] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            del made[max(place, 1) :]
        elif kind == 2:
            made[place:place] = made[place : place + length]
        elif kind == 3:
            other = int(rng.integers(0, len(made)))
            one, two = made[place : place + length], made[other : other + length]
            made[place : place + length], made[other : other + length] = two, one
        elif kind == 4:
            size = int(rng.choice([1, 2, 4, 8]))
            value = EXTREMES[int(rng.integers(0, len(EXTREMES)))] % 2 ** (8 * size)
            made[place : place + size] = value.to_bytes(size, "big" if rng.random() < 0.5 else "little")
        elif kind == 5:
            numbers = list(re.finditer(rb"\d+", bytes(made[:100_000])))
            if numbers:
                found = numbers[int(rng.integers(0, len(numbers)))]
                made[found.start() : found.end()] = WORDS[int(rng.integers(0, len(WORDS)))]
        else:
            del made[place : place + length]
    return bytes(made)


# ---- who reads what -----------------------------------------------------------------------------------------------


def families(folder: Path) -> dict[str, list[Seed]]:
    """Seeds of every kind, made anew."""
    folder.mkdir(parents=True, exist_ok=True)
    return {"audio": audio_seeds(folder), "tables": table_seeds(), "models": model_seeds(folder)}


def audio_seeds(folder: Path) -> list[Seed]:
    import broken

    names = [*broken.SOUNDFILE_KINDS, *broken.FFMPEG_KINDS]
    sound = broken.noise(1.5)
    return [Seed(name, broken.sample(folder, name, sound).read_bytes(), heard) for name in names]


def heard(path: Path) -> str:
    """Through the border: streamed, by seeking, and looked at."""
    from sounds.audio import examine_header, open_recording, read_window

    recording, frames = open_recording(path, 16_000), 0
    for window in recording.windows(5.0):
        assert len(window.samples) == 80_000, "a window of another length"
        if not np.isfinite(window.samples).all():
            return "finding: samples that are no numbers"
        frames += len(window.samples)
    one = read_window(path, 0.5, 0.5, 16_000)
    if not np.isfinite(one).all() or len(one) not in (0, 8_000):
        return f"finding: a window of {len(one)} samples"
    looked = examine_header(path)
    outcome = recording.outcome
    empty = outcome.status in ("unreadable", "silent", "short")
    sane = outcome.seconds >= 0 and not (frames and empty) and "\n" not in outcome.reason
    sane = sane and (frames > 0 or outcome.status != "ok")  # of what was salvaged all may be without sound
    explained = outcome.status == "ok" or outcome.reason
    statuses = {outcome.status, looked.status} <= {"ok", "salvaged", "silent", "short", "unreadable"}
    return outcome.status if sane and explained and statuses else f"finding: {outcome}, {frames} frames"


def table_seeds() -> list[Seed]:
    from archive.annotations import read_annotation_table, segment_times, table_kind, time_columns
    from archive.birdclef import parse_labels
    from archive.portals import located, read_page
    from archive.recordings import read_recordings
    from evaluation.calibration import read_thresholds
    from runtime.csvs import read_table
    from serving.results import NEEDED, detected, rows_of
    from serving.submission import read_sample
    from taxonomy import pairwise_distances, read_taxonomy

    def taxonomy(path: Path) -> str:
        assert np.isfinite(pairwise_distances(read_taxonomy(path))).all()
        return "ok"

    def train(path: Path) -> str:
        for where, row in read_table(path, ("primary_label", "filename"), unique="filename"):
            parse_labels(row.get("secondary_labels", ""), where)
        return "ok"

    def raven(path: Path) -> str:
        if table_kind(path):
            for _, line in read_annotation_table(path)[0]:
                if any(time_columns(line)):  # else the table is refused before
                    segment_times(line)
        return "ok"

    def page(path: Path) -> str:
        return f"ok {len(list(located(read_page(path), 'recordings', path)))}"

    def found(path: Path) -> str:
        return f"ok {len([detected(where, row) for where, row in rows_of(path, NEEDED)])}"

    taxa = "primary_label,scientific_name,common_name,class_name,order,family\n"
    taxa += (
        "greti,Parus major,Great Tit,Aves,Passeriformes,Paridae\n65448,Rana temporaria,Frog,Amphibia,Anura,Ranidae\n"
    )
    rows = "primary_label,secondary_labels,filename,rating\ngreti,\"['65448', 'x']\",a/1.ogg,4.5\n65448,[],b/2.ogg,0\n"
    own = "root,path,start,end,labels,keep,fold,seconds\n/d,a.wav,0.5,5,greti;x,0.9-7.3;8-9,1,61.5\n/d,b.wav,,,,,,\n"
    times = (
        "Selection\tView\tBegin Time (s)\tEnd Time (s)\tSpecies\n1\tWaveform 1\t3.5\t4.25\tparus major\n2\tS\t9\t8\tx\n"
    )
    listened = "label,scientific_name,threshold,model\ngreti,Parus major,0.55,\n65448,Rana temporaria,,abc\n"
    heard_rows = "Start (s),End (s),Scientific name,Common name,Confidence,File\n0,5,Parus major,Great Tit,0.91,a.wav\n"
    heard_rows += '5,10,Rana temporaria,Frog,0.2,"b, c.wav"\n'
    sample = "row_id,greti,65448\nH02_1_5,0.5,0.5\nH02_1_10,0.5,0.5\n"
    saved = json.dumps({"numRecordings": "1", "recordings": [{"id": "7", "gen": "Parus", "also": [""], "lat": "9.1"}]})
    readers: dict[str, tuple[str, Reader]] = {
        "taxonomy.csv": (taxa, taxonomy),
        "train.csv": (rows, train),
        "recordings.csv": (own, lambda path: f"ok {len(read_recordings(path))}"),
        "dawn.Table.1.selections.txt": (times, raven),
        "thresholds.csv": (listened, lambda path: f"ok {len(read_thresholds(path, 'abc', ['greti', '65448']))}"),
        "detections.csv": (heard_rows, found),
        "sample_submission.csv": (sample, lambda path: f"ok {len(read_sample(path).row_ids)}"),
        "page.json": (saved, page),
    }
    return [Seed(name, content.encode(), read) for name, (content, read) in readers.items()]


def model_seeds(folder: Path) -> list[Seed]:
    import hostile
    import torch
    from safetensors import safe_open

    from config import AudioSettings, HeadSettings, from_facts
    from serving.scorer import open_scorer, score
    from taxonomy import from_json
    from training.checkpoint import read_tensors, write_tensors
    from training.states import load_state

    hostile.write_good(folder / "good")
    hostile.toy()(folder, folder / "good")
    torch.save(hostile.good_state(), folder / "state.pt")
    with safe_open(folder / "good" / "classifier.safetensors", framework="pt") as file:
        facts = json.loads((file.metadata() or {})["wild_whisper"])
    write_tensors(folder / "small.safetensors", {"x": torch.zeros(8), "y": torch.ones(2, 3)}, facts)

    def weights(path: Path) -> str:
        _, told = read_tensors(path, "classifier", "make it again")
        from_facts(HeadSettings, told["head"], path)
        from_facts(AudioSettings, told["audio"], path)
        return f"ok {len(from_json(told['taxonomy']).labels)}"

    def graph(path: Path) -> str:
        return f"ok {len(score(open_scorer(path, threads=1), np.zeros((1, 80_000), np.float32)))}"

    return [
        Seed("model.onnx", (folder / "model.onnx").read_bytes(), graph),
        Seed("small.safetensors", (folder / "small.safetensors").read_bytes(), weights),
        Seed("state.pt", (folder / "state.pt").read_bytes(), lambda path: f"ok {len(load_state(path))}"),
    ]


def main(count: int, seed: int, shares: Mapping[str, float]) -> Report:
    import torch

    torch.set_num_threads(1)  # what OpenMP has begun does not survive a fork
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    counts = {family: round(share * count) for family, share in shares.items()}
    report = fuzz(families(folder / "seeds"), counts, seed, folder)
    shutil.rmtree(folder)
    return report


if __name__ == "__main__":
    shares = json.loads(sys.argv[3]) if len(sys.argv) > 3 else SHARES
    print(json.dumps(asdict(main(int(sys.argv[1]), int(sys.argv[2]), shares))))
