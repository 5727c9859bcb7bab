"""Stage 4: species probabilities for every 5 seconds of a recording, or of an archive. No torch.

    python predictor.py dawn.ogg
    python predictor.py season-2026/ --out results/

Reads    recordings, folders of them or a recordings.csv; classifier.int8.onnx
Writes   detections.csv, files.csv, run.json, on request scores.csv; for a single recording only where --out is given

What is no readable recording becomes a row in files.csv with its reason, and the others go on.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from audio import find_recordings, open_recording
from config import PredictCommand
from detections import Detection, Scored, TableFacts, clock, detect, listing, open_tables, write_recording
from recordings import read_recordings
from runs import launch, open_run
from scorer import Scorer, open_scorer, score

LISTED = 40  # detections shown on the terminal


def predict(config: PredictCommand) -> int:
    """The whole of stage 4; returns the exit code: 0 all analysed, 1 nothing, 2 some inputs could not be read."""
    assert config.inputs, "no recordings given; for example: python predictor.py dawn.ogg (or a folder)"
    absent = [str(path) for path in config.inputs if not path.exists()]
    assert not absent, f"not found: {', '.join(absent[:5])}"
    scorer = open_scorer(config.model, config.threads)
    window = scorer.audio.window_seconds
    assert 0 <= config.overlap < window, f"--overlap {config.overlap}: give 0 to less than {window:g} seconds"
    assert 0 <= config.min_conf <= 1, f"--min_conf {config.min_conf}: give a probability, 0 to 1"
    print(
        f"model {scorer.path} ({scorer.precision}, {len(scorer.taxonomy.labels)} species, sha256 {scorer.sha256[:12]})"
    )
    if not scorer.verified:
        print("this model was never compared with the trained network on real recordings: unverified")
    paths, notes = find_recordings(listed_in_tables(config.inputs))
    print("\n".join(notes))
    assert paths, f"no recordings in {', '.join(map(str, config.inputs))}"
    facts = TableFacts(scorer.taxonomy, scorer.path.name, window, config.overlap, config.min_conf)
    single = len(paths) == 1 and paths[0] in config.inputs
    started, seconds, count = time.time(), 0.0, 0
    heard: dict[str, Heard] = {}
    shown: list[Detection] = []
    statuses: Counter[str] = Counter()
    troubles: list[str] = []
    with ExitStack() as stack:
        run = None
        if config.out is not None or not single:
            run = stack.enter_context(open_run("predict", config.runs, config, config.out))
            run.facts.update(model=str(scorer.path.resolve()), model_sha256=scorer.sha256)
        with open_tables(run.folder, facts, config.scores) if run else nullcontext() as tables:
            for path in tqdm(paths, "scoring", unit="file", disable=True if single else None, leave=False):
                scored = score_recording(scorer, path, config.overlap)
                found = write_recording(tables, scored) if tables else detect(scored, scorer.taxonomy, config.min_conf)
                count += len(found)
                tally(heard, found)
                shown += found if single else []
                statuses[scored.outcome.status] += 1
                seconds += scored.outcome.seconds
                if scored.outcome.status != "ok":
                    troubles.append(f"{path}: {scored.outcome.status}, {scored.outcome.reason}")
        elapsed = time.time() - started
        lines = listing(shown, LISTED) if single else species_table(heard)
        print("\n".join(lines) or f"nothing at or above {config.min_conf:g}")
        for line in troubles[:LISTED]:
            print(line)
        print(
            f"{len(paths)} recordings ({', '.join(f'{number} {status}' for status, number in statuses.items())}), "
            f"{seconds / 3600:.2f} h in {elapsed:.1f} s: {seconds / max(elapsed, 1e-9):.0f} x real time"
        )
        if run:
            run.facts.update(recordings=statuses, hours=seconds / 3600, detections=count)
            names = ["detections.csv", "files.csv", *(["scores.csv"] if config.scores else [])]
            print(f"wrote {', '.join(str(run.folder / name) for name in names)}")
        assert statuses["unreadable"] < len(paths), f"none of the {len(paths)} recordings could be read"
    return 2 if statuses["unreadable"] else 0


def listed_in_tables(inputs: Sequence[Path]) -> list[Path]:
    """The inputs, a recordings.csv of data_loader.py among them replaced by the files it names that can be heard."""
    found: list[Path] = []
    for path in inputs:
        is_table = path.is_file() and path.suffix.lower() == ".csv"
        found += dict.fromkeys(row.path for row in read_recordings(path) if row.sound) if is_table else [path]
    gone = [path for path in found if not path.exists()]
    if gone:
        print(f"{len(gone)} recordings of the table are no longer there: {', '.join(map(str, gone[:5]))}")
    return [path for path in found if path.exists()]


def score_recording(scorer: Scorer, path: Path, overlap: float) -> Scored:
    """All windows of one recording; its sound is streamed, its probabilities are kept until they are written."""
    recording = open_recording(path, scorer.audio.sample_rate)
    times = list[tuple[float, float]]()
    rows = [np.zeros((0, len(scorer.taxonomy.labels)), np.float32)]
    for heard, windows in recording.contexts(scorer.audio.context_seconds, scorer.audio.window_seconds, overlap):
        times += windows
        rows.append(score(scorer, heard.samples[None])[: len(windows)])
    order = sorted(range(len(times)), key=lambda row: times[row])
    starts, ends = [times[row][0] for row in order], [times[row][1] for row in order]
    return Scored(str(path), recording.outcome, starts, ends, np.concatenate(rows)[order])


@dataclass
class Heard:
    """What is remembered of a species over a whole archive."""

    name: str
    windows: int
    best: float
    first: str  # where it was heard first


def tally(heard: dict[str, Heard], found: Sequence[Detection]) -> None:
    """Add the detections of one recording."""
    for d in found:
        mine = heard.setdefault(d.label, Heard(d.common_name, 0, 0.0, f"{Path(d.file).name} {clock(d.start)}"))
        mine.windows += 1
        mine.best = max(mine.best, d.confidence)


def species_table(heard: Mapping[str, Heard]) -> list[str]:
    """What was heard in an archive, the species heard most first."""
    if not heard:
        return []
    lines = [f"{'species':40}{'windows':>9}{'best':>7}  first heard"]
    for mine in sorted(heard.values(), key=lambda species: species.windows, reverse=True)[:LISTED]:
        lines.append(f"{mine.name[:39]:40}{mine.windows:9}{mine.best:7.2f}  {mine.first}")
    return lines + ([f"... and {len(heard) - LISTED} more"] if len(heard) > LISTED else [])


if __name__ == "__main__":
    launch(predict, PredictCommand)
