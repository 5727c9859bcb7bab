"""Stage 4: species probabilities for every 5 seconds of a recording, or of an archive. No torch.

    python predictor.py dawn.ogg
    python predictor.py season-2026/ --out results/

Reads    recordings, classifier.int8.onnx
Writes   detections.csv, files.csv, run.json, on request scores.csv; for a single recording only where --out is given

What is no readable recording becomes a row in files.csv with its reason, and the others go on.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from tqdm import tqdm

from audio import find_recordings, open_recording
from config import PredictCommand
from detections import Detection, Scored, TableFacts, clock, detect, listing, open_tables, write_recording
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
    paths, notes = find_recordings(config.inputs)
    print("\n".join(notes))
    assert paths, f"no recordings in {', '.join(map(str, config.inputs))}"
    facts = TableFacts(scorer.taxonomy, scorer.path.name, window, config.overlap, config.min_conf)
    single = len(paths) == 1 and config.inputs[0].is_file()
    run, tables, started, seconds = None, None, time.time(), 0.0
    found: list[Detection] = []
    statuses: Counter[str] = Counter()
    troubles: list[str] = []
    with ExitStack() as stack:
        if config.out is not None or not single:
            run = stack.enter_context(open_run("predict", config.runs, config, config.out))
            run.facts.update(model=str(scorer.path.resolve()), model_sha256=scorer.sha256)
            tables = stack.enter_context(open_tables(run.folder, facts, config.scores))
            stack.callback(lambda: run.facts.update(recordings=statuses, hours=seconds / 3600, detections=len(found)))
        for path in tqdm(paths, "scoring", unit="file", disable=True if single else None, leave=False):
            scored = score_recording(scorer, path, config.overlap)
            found += write_recording(tables, scored) if tables else detect(scored, scorer.taxonomy, config.min_conf)
            statuses[scored.outcome.status] += 1
            seconds += scored.outcome.seconds
            if scored.outcome.status != "ok":
                troubles.append(f"{path}: {scored.outcome.status}, {scored.outcome.reason}")
        elapsed = time.time() - started
    if single:
        print("\n".join(listing(found, LISTED)) or f"nothing at or above {config.min_conf:g}")
    else:
        print("\n".join(species_table(found)) or f"nothing at or above {config.min_conf:g}")
    for line in troubles[:LISTED]:
        print(line)
    print(
        f"{len(paths)} recordings ({', '.join(f'{count} {status}' for status, count in statuses.items())}), "
        f"{seconds / 3600:.2f} h in {elapsed:.1f} s: {seconds / max(elapsed, 1e-9):.0f} x real time"
    )
    if run:
        names = ["detections.csv", "files.csv", *(["scores.csv"] if config.scores else [])]
        print(f"wrote {', '.join(str(run.folder / name) for name in names)}")
    unreadable = statuses["unreadable"]
    return 0 if not unreadable else 1 if unreadable == len(paths) else 2


def score_recording(scorer: Scorer, path: Path, overlap: float) -> Scored:
    """All windows of one recording, streamed: its length does not matter for memory."""
    recording = open_recording(path, scorer.audio.sample_rate)
    starts, ends = list[float](), list[float]()
    rows = [np.zeros((0, len(scorer.taxonomy.labels)), np.float32)]
    for window in recording.windows(scorer.audio.window_seconds, overlap):
        starts.append(window.start)
        ends.append(window.end)
        rows.append(score(scorer, window.samples[None]))
    return Scored(str(path), recording.outcome, starts, ends, np.concatenate(rows))


def species_table(found: Sequence[Detection]) -> list[str]:
    """What was heard in an archive, the species heard most first."""
    heard: dict[str, list[Detection]] = {}
    for detection in found:
        heard.setdefault(detection.label, []).append(detection)
    lines = [f"{'species':40}{'windows':>9}{'best':>7}  first heard"]
    for mine in sorted(heard.values(), key=len, reverse=True)[:LISTED]:
        first, best = mine[0], max(detection.confidence for detection in mine)
        lines.append(
            f"{first.common_name[:39]:40}{len(mine):9}{best:7.2f}  {Path(first.file).name} {clock(first.start)}"
        )
    return (lines if heard else []) + ([f"... and {len(heard) - LISTED} more"] if len(heard) > LISTED else [])


if __name__ == "__main__":
    launch(predict, PredictCommand)
