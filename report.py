"""The listening report: one HTML file to listen to what was detected, and what the verdicts are worth.

    python report.py results/                                # writes results/report.html; open it, judge, save
    python report.py results/ --apply validation.csv         # writes results/review/

Reads    the folder that predictor.py wrote, and the recordings; report.html, the page's look and behaviour
Writes   report.html; with --apply thresholds.csv for predictor.py, recordings.csv and taxonomy.csv for main.py

The page opens from disk and asks the network for nothing: a policy in its head forbids that, and every script but its
own. Names and paths reach it as JSON and are shown as text.
"""

from __future__ import annotations

import runtime.stopping  # noqa: F401  # pyright: ignore[reportUnusedImport] - Ctrl-C counts from here on

import hashlib
import json
import os
import re
import shlex
import zlib
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import numpy as np
from tqdm import tqdm

from config import ReportCommand, Strategy, Voices
from evaluation.calibration import SILENCED, Threshold, write_thresholds
from runtime.application import own_file
from runtime.cells import no_formula, open_text
from runtime.files import publish
from runtime.terminal import command_line, launch, show
from serving.effort import hours_of, number_in_cell
from serving.results import SITE, Detected, Results, hidden, read_results, sound_finder
from serving.review import (
    ADDED,
    QUIET,
    RANKED,
    is_rank,
    read_verdicts,
    settle,
    training_rows,
    undecided_labels,
    verdict_thresholds,
    write_training,
)
from sounds.audio import examine_header
from sounds.clips import Clip, cut_clip
from sounds.discovery import OURS
from sounds.notes import undo_expansion
from sounds.voices import detector_file, open_detector

TEMPLATE = "report.html"
HERE = "<!-- clips and data -->"  # where they go
EMBEDDED = 400  # clips at most in the page itself
TENTHS = 10  # of the scale of confidence
MODEL_FILE = re.compile(r"[^\s:]+\.(?:onnx|xml)\b")
NAMELESS = re.compile(r"[\d.]+|yes|no|[0-9a-f]{64}|\d{4}-\d\d-\d\dT[\d:.+Z-]+")  # settings that name no place
SHOWN = 5  # troubles shown on the terminal
SPOKEN = "somebody speaks in it"  # why a clip is left out


def report(config: ReportCommand) -> int:
    """The command; returns the exit code."""
    return apply_verdicts(config) if config.apply else write_report(config)


def write_report(config: ReportCommand) -> int:
    """Draw a sample of the detections and write the page; 2 where some of them have no sound."""
    return write_page(config, read_results(config.results))


def write_page(config: ReportCommand, results: Results, chosen: Sequence[int] | None = None) -> int:
    """The page of the detections chosen, or of a sample; 2 where some of them have no sound."""
    undo_expansion(results.time_expansion)
    voices = chosen_voices(config, results)
    drawn = draw_quiet(results, config, voices) if chosen is None else chosen
    shown = hidden(results) if config.hide_paths else results
    page = config.out or results.folder / "report.html"
    folder = config.clips_dir or (page.with_name(f"{page.stem}_clips") if len(drawn) > EMBEDDED else None)
    clips = cut_clips([results.detections[index] for index in drawn], results, config.audio, voices)
    # the page: its head, a card for each clip, its facts
    before, after = page_template(beside=folder is not None).split(HERE)
    cards: list[dict[str, object]] = []
    troubles: list[str] = []
    kept: list[int] = []
    page.parent.mkdir(parents=True, exist_ok=True)
    if folder and not (folder.is_dir() and any(folder.iterdir())):  # clips are no recordings, wherever they lie
        folder.mkdir(parents=True, exist_ok=True)
        (folder / OURS).touch()
    with publish(page) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(before)
        for index, clip in zip(drawn, tqdm(clips, "clips", len(drawn), leave=False, disable=None), strict=True):
            if clip == SPOKEN:
                continue
            kept.append(index)
            d, number = shown.detections[index], len(cards)
            card: dict[str, object] = {"cells": d.cells}
            if isinstance(clip, str):
                card["why"] = "" if config.hide_paths else clip
                troubles.append(f"{d.file} {d.start:g} s: {clip}")
            else:
                card |= {"lead": clip.lead, "seconds": clip.seconds, "top": clip.top_hz, "peak": clip.peak_db}
                card |= {"slowed": clip.slowed} if clip.slowed != 1 else {}
                card |= {"voice": voice_in_words(clip, voices)} if clip.voice else {}
                if folder:
                    card |= write_clip(folder, page, number, d, clip)
                else:
                    file.write(clip_element(number, clip))
            cards.append(card)
        assert kept, f"somebody speaks in all {len(drawn)} windows that were drawn; --voices mute silences them"
        assert len(troubles) < len(kept), f"none of the windows has sound: {troubles[0]}"
        sample = how_drawn(config, results, chosen is not None, voices)
        facts = page_facts(shown, config, kept) | {"sample": sample, "cards": cards}
        file.write(f'<script type="application/json" id="data">{json_for_page(facts)}</script>\n{after}')
    # say what came out
    for line in troubles[:SHOWN]:
        show(line)
    size = page.stat().st_size / 1e6
    show(f"{len(kept)} of {len(results.detections)} detections, {len(troubles)} without sound, seed {config.seed}")
    if len(kept) < len(drawn):
        show(f"{len(drawn) - len(kept)} of the windows drawn are left out because somebody speaks (--voices {voices})")
    show(f"wrote {page} ({size:.1f} MB{f', with the clips in {folder}' if folder else ''}): open it in a browser")
    return 2 if troubles else 0


def how_drawn(config: ReportCommand, results: Results, planned: bool, voices: Voices) -> str:
    """How the windows of a page were drawn, as its validation.csv says it: count.py has to know."""
    way = RANKED if results.index else "plan" if planned else config.strategy
    return way + (QUIET if voices == "skip" else "")


def apply_verdicts(config: ReportCommand) -> int:
    """Thresholds and a training table out of validation.csv; 2 where some verdicts are of no detection here."""
    results = read_results(config.results)
    assert not results.index, (
        f"{results.folder} holds windows of an index, whose confidence no threshold can be compared with; "
        f"give the verdicts to {command_line('refit.py', results.index, *config.apply)}"
    )
    folder = config.out or results.folder / "review"
    refuse_own_tables(folder)
    read = [read_verdicts(path, results) for path in config.apply]
    verdicts, strangers = [v for found, _ in read for v in found], sum(count for _, count in read)
    assert verdicts, f"no verdict in {', '.join(map(str, config.apply))} is of a detection in {config.results}"
    settled, disputed = settle(verdicts)
    fitted = verdict_thresholds(settled, results.detections, config.precision)
    thresholds = [replace(threshold, label=no_formula(threshold.label)) for threshold in fitted]
    rows, left_out = training_rows(settled, results.detections, sound_finder(results, config.audio))
    folder.mkdir(parents=True, exist_ok=True)
    names = {no_formula(d.label): no_formula(d.cell("Scientific name")) for d in results.detections}
    with open_text(folder / "thresholds.csv") as file:
        scientific = [names[threshold.label] for threshold in thresholds]
        write_thresholds(file, thresholds, scientific, "verdicts", results.model, undecided_labels(thresholds))
    write_training(folder, rows, results.detections, config.training)
    show("\n".join(verdict_table(thresholds, config.precision)))
    above = sum(is_rank(d.label) for d in settled)
    show(f"{len(settled)} verdicts; {len(disputed)} contradicted and left out, {strangers} of no detection here")
    if above:
        show(f"{above} of them are on answers above species, which have no threshold")
    negative = sum(row.listened for row in rows)
    show(
        f"{len(rows) - negative} windows with a species, {negative} hard negatives; left out: "
        f"{left_out['undecided']} in which something is undecided, {left_out['missing']} whose recording is not there"
    )
    show(f"wrote {folder / 'thresholds.csv'}, {folder / 'recordings.csv'}")
    show("\n".join(next_steps(config, results, folder)))
    return 2 if strangers or left_out["missing"] else 0


def refuse_own_tables(folder: Path) -> None:
    """Refuse a folder of somebody's own recordings, whose tables have the same names."""
    taken = [name for name in ("recordings.csv", "taxonomy.csv") if (folder / name).exists()]
    assert not taken or (folder / "thresholds.csv").is_file(), (
        f"--out {folder}: {folder / taken[0]} is not of earlier verdicts and would be written over; give another folder"
    )


def next_steps(config: ReportCommand, results: Results, folder: Path) -> list[str]:
    """What to do with thresholds and table: commands that can be copied, as far as what they need is there."""
    base = Path(str(results.facts.get("working_directory", "")))
    inputs, models = (paths_below(base, results.facts.get(name)) for name in ("inputs", "models"))
    limits, table = folder / "thresholds.csv", folder / "recordings.csv"
    if inputs and models and all(Path(path).exists() for path in (*inputs, *models)):
        words = [*inputs, *(word for model in models for word in ("--model", model))]
        words += ["--card", results.card["card"]] if results.card else []
        out = results.folder.with_name(f"{results.folder.resolve().name}-reviewed")
        lines = [f"next: {command_line('predictor.py', *words, '--thresholds', limits, '--out', out)}"]
    else:
        lines = [f"next: predictor.py with these recordings, their model, and --thresholds {limits}"]
    if config.training:
        return [*lines, f"      {command_line('main.py', '--data.root', table)}"]
    given: object = results.facts.get("settings")
    runs = str(cast(dict[str, object], given).get("runs", "runs")) if isinstance(given, dict) else "runs"
    earlier = base / runs / "data" / "recordings.csv"
    why = "      to train on the verdicts, main.py needs the recordings of the training so far too: "
    if not earlier.is_file():
        return [*lines, why + "give --training their recordings.csv (data_loader.py writes one)"]
    words = [str(config.results), "--apply", *map(str, config.apply), "--training", str(earlier)]
    return [*lines, why + command_line("report.py", *words)]


def paths_below(base: Path, listed: object) -> list[str]:
    """Paths that run.json lists, from where its command ran; none where it lists none."""
    return [str(base / str(path)) for path in cast(list[object], listed)] if isinstance(listed, list) else []


def chosen_voices(config: ReportCommand, results: Results) -> Voices:
    """What becomes of people's voices: what a flag says, else what was done when the results were made."""
    if config.voices != "as_scored":
        return config.voices
    return "mute" if results.muted else "skip" if results.searched else "off"


def draw_quiet(results: Results, config: ReportCommand, voices: Voices) -> list[int]:
    """Indices of the detections to be listened to, without those in which somebody is known to speak, if that is asked
    for."""
    quiet = [index for index, d in enumerate(results.detections) if voices != "skip" or not d.voice]
    assert quiet, "somebody speaks in every window of these results; --voices mute silences that, off plays it"
    if len(quiet) < len(results.detections):
        show(f"{len(results.detections) - len(quiet)} detections are left out because somebody speaks (--voices skip)")
    found = [results.detections[index] for index in quiet]
    drawn = draw_sample(found, config.strategy, config.per_species, config.max_clips, config.seed)
    return [quiet[number] for number in drawn]


def voice_in_words(clip: Clip, voices: Voices) -> str:
    """What a card says of the voices in it."""
    return f"a voice of {clip.voice:.1f} s{' is silenced' if voices == 'mute' else ''}"


def draw_sample(
    detections: Sequence[Detected], strategy: Strategy, per_species: int, most: int, seed: int
) -> list[int]:
    """Indices of the detections to be listened to: by species, those detected most first, the surest first in each.

    Each species is drawn by itself, so what is drawn of it does not depend on the others; where all together are too
    many, the species take turns.
    """
    indices: dict[str, list[int]] = {}
    for index, d in enumerate(detections):
        indices.setdefault(d.label, []).append(index)
    most_first = sorted(indices, key=lambda label: (-len(indices[label]), label))
    queues: list[list[int]] = []
    for label in most_first:
        rng = np.random.default_rng([seed, zlib.crc32(label.encode())])
        queue = draw_species(indices[label], detections, strategy, rng)
        queues.append(queue if strategy == "all" else queue[:per_species])
    turns = sorted((turn, number) for number, queue in enumerate(queues) for turn in range(len(queue)))[:most]
    taken = Counter(number for _, number in turns)
    return [
        index
        for number, queue in enumerate(queues)
        for index in sorted(queue[: taken[number]], key=lambda index: -detections[index].confidence)
    ]


def draw_species(
    indices: Sequence[int], detections: Sequence[Detected], strategy: Strategy, rng: np.random.Generator
) -> list[int]:
    """All detections of one species, those to be listened to first in front."""
    drawn: list[int] = rng.permutation(np.array(indices)).tolist()
    if strategy == "top":
        return sorted(drawn, key=lambda index: -detections[index].confidence)
    if strategy != "even":
        return drawn
    seen: Counter[int] = Counter()
    order: dict[int, tuple[int, int]] = {}  # its turn, and the tenth, the highest first
    for index in drawn:
        tenth = min(int(detections[index].confidence * TENTHS + 1e-9), TENTHS - 1)
        order[index] = (seen[tenth], -tenth)
        seen[tenth] += 1
    return sorted(drawn, key=order.__getitem__)


def cut_clips(
    drawn: Sequence[Detected], results: Results, audio: Path | None, voices: Voices = "off"
) -> Iterator[Clip | str]:
    """Picture and sound of each detection, in order, made on all cores; or why there is none.

    voices   skip leaves a window out in which somebody speaks, and silences what is said around it
    """
    detector = open_detector(detector_file("--voices off leaves clips as they are")) if voices != "off" else None
    find, top = sound_finder(results, audio), results.top_hz
    paths = {d.file: find(d.file) for d in drawn}
    known = {path: examine_header(path) for path in dict.fromkeys(paths.values()) if path}

    def cut(d: Detected) -> Clip | str:
        path = paths[d.file]
        if not path:
            return "is not there; --audio says where it is"
        clip = cut_clip(path, d.start, d.end, known[path], top, detector, voices in ("skip", "mute"))
        if isinstance(clip, Clip):
            unknown_where = voices == "mute" and d.voice > 0 and not clip.voice
            return SPOKEN if unknown_where or (voices == "skip" and clip.voice) else clip
        return clip

    with ThreadPoolExecutor() as pool:
        yield from pool.map(cut, drawn)


def page_template(beside: bool) -> str:
    """The page without its data, and with a policy that lets its own style and script work and nothing else.

    beside   clips lie in files beside the page
    """
    text = own_file(TEMPLATE).read_text(encoding="utf-8")
    assert text.count(HERE) == 1, f"{TEMPLATE} has lost the line for its data; take it from the repository again"
    own = " file: 'self'" if beside else ""
    policy = [
        "default-src 'none'",
        *(f"{tag}-src {hashes(text, tag)}" for tag in ("script", "style")),
        f"img-src data:{own}",
        f"media-src data:{own}",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return text.replace("{{policy}}", "; ".join(policy))


def hashes(text: str, tag: str) -> str:
    """The scripts or styles in a page, as its policy names them."""
    bodies = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return " ".join(f"'sha256-{b64encode(hashlib.sha256(body.encode()).digest()).decode()}'" for body in bodies)


def clip_element(number: int, clip: Clip) -> str:
    """A clip inside the page, where no browser looks at it before the page asks."""
    return f'<script type="text/plain" id="clip{number}">{base64(clip.png)} {base64(clip.mp3)}</script>\n'


def base64(content: bytes) -> str:
    return b64encode(content).decode()


def write_clip(folder: Path, page: Path, number: int, d: Detected, clip: Clip) -> dict[str, object]:
    """A clip as two files beside the page, named after what is in them; returns how the page calls them."""
    times = [f"{d.start:.2f}s", f"{d.end:.2f}s", d.cell("Detected at")]
    words = [f"{d.confidence:.3f}", d.cell("Common name") or d.label, Path(d.file).stem[:60], *times]
    stem = "_".join(re.sub(r"[^\w.+-]+", "-", word).strip(".-") for word in words if word)[:150]
    found: dict[str, object] = {}
    for kind, content in (("png", clip.png), ("mp3", clip.mp3)):
        path = folder / f"{stem}_{number}.{kind}"
        with publish(path) as temporary:
            temporary.write_bytes(content)
        found[kind] = quote(Path(os.path.relpath(path, page.parent)).as_posix())
    return found


def json_for_page(facts: Mapping[str, object]) -> str:
    """JSON that no HTML parser takes for markup, whatever names are in it."""
    text = json.dumps(facts, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def page_facts(results: Results, config: ReportCommand, drawn: Sequence[int]) -> dict[str, object]:
    """Everything on the page besides its cards."""
    counts = Counter(d.label for d in results.detections)
    first = {d.label: d for d in reversed(results.detections)}
    labels = sorted(counts, key=lambda label: (-counts[label], label))
    column = {label: number for number, label in enumerate(labels)}
    calls = Counter(
        (*hour, column[d.label]) for d in results.detections if (hour := recorded_hour(d.cell("Detected at")))
    )
    title = config.title or ("Listening report" if config.hide_paths else f"Listening report: {results.folder.name}")
    return {
        "report": results.digest[:16],
        "title": title,
        "columns": results.columns,
        "added": ADDED,
        "species": [
            [label, d.cell("Common name"), d.cell("Scientific name"), counts[label], d.cell("Validated")]
            for label, d in ((label, first[label]) for label in labels)
        ],
        "calls": [[*hour, count] for hour, count in calls.items()],
        "effort": [[*where, round(seconds)] for where, seconds in effort(results.files).items()],
        "detections": len(results.detections),
        "sites": len({d.cells[SITE] for d in results.detections} - {""}),
        "recordings": len(results.files) or len({d.file for d in results.detections}),
        "hours": sum(number_in_cell(row.get("seconds_analysed", "")) for row in results.files) / 3600,
        "then": then_of(results, config.hide_paths),
        "damaged": [
            [row["file"], row.get("status", ""), row.get("reason", "")]
            for row in results.files
            if row.get("status", "ok") != "ok"
        ],
        "settings": settings_of(results, config),
        "drawn": len(drawn),
    }


def then_of(results: Results, hide_paths: bool) -> tuple[str, str]:
    """The command that takes the verdicts, and what it makes of them: of windows of an index a classifier."""
    searched = bool(results.index)
    script, where = ("refit.py", results.index) if searched else ("report.py", str(results.folder))
    more = ["validation.csv"] if searched else ["--apply", "validation.csv"]
    hidden_words = ["python", script, "INDEX" if searched else "RESULTS", *more]
    words = shlex.join(hidden_words) if hide_paths else command_line(script, where, *more)
    made = (
        "a classifier of it; name the tables of earlier rounds too"
        if searched
        else "thresholds and training data of it"
    )
    return words, f"makes {made}."


def settings_of(results: Results, config: ReportCommand) -> list[tuple[str, str]]:
    """How the detections and the sample came about, without a path where paths are to be hidden."""
    first = results.detections[0]
    limit = "no limit per species" if config.strategy == "all" else f"at most {config.per_species} per species"
    shown = {
        "model": str(results.facts.get("model") or first.cell("Model")),
        "model sha256": str(results.facts.get("model_sha256", "")),
        "licence of the model": results.card.get("license") or "; ".join(results.licences),
        "predicted": str(results.facts.get("started", "")),
        "window, s": first.cell("Window (s)"),
        "overlap, s": first.cell("Overlap (s)"),
        "tables": str(results.folder.resolve()),
    }
    given: Any = results.facts.get("settings")
    if isinstance(given, dict):
        shown = {str(name): setting_in_words(value) for name, value in cast(dict[str, object], given).items()} | shown
    if config.hide_paths:
        named = Path(shown["model"]).name or "m.onnx"
        terms = MODEL_FILE.sub("the model", shown["licence of the model"].replace(named, "m.onnx"))
        shown = {name: value for name, value in shown.items() if NAMELESS.fullmatch(value)}
        shown["licence of the model"] = terms  # whoever sees the page has to keep to it
    sample = f"{config.strategy}, seed {config.seed}, {limit}, at most {config.max_clips} in all"
    return [("sample", sample), *((name, value) for name, value in shown.items() if value)]


def setting_in_words(value: object) -> str:
    """A setting as people write it; nothing for one that is left at nothing."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(setting_in_words, cast(list[object], value)))
    return "" if value is None else str(value)


def recorded_hour(moment: str) -> tuple[str, int] | None:
    """Day and hour of an ISO time, as the recorder's clock had them; None for a date alone, or for nothing."""
    found = re.match(r"(\d{4}-\d\d-\d\d)[T ](\d\d)", moment)
    return (found[1], int(found[2])) if found else None


def effort(files: Sequence[Mapping[str, str]]) -> dict[tuple[str, int], float]:
    """Seconds that were listened to in each hour of each day, of the recordings whose beginning is known."""
    found: dict[tuple[str, int], float] = {}
    for row in files:
        for moment, seconds in hours_of(row):
            if hour := recorded_hour(moment):
                found[hour] = found.get(hour, 0.0) + seconds
    return found


def verdict_table(thresholds: Sequence[Threshold], wanted: float) -> list[str]:
    """What was judged of each species, on a screen."""
    lines = [f"{'species':32}{'yes':>5}{'no':>5}  {'right there, 95 %':18}{f'{wanted:.0%} right from':>16}"]
    for t in sorted(thresholds, key=lambda t: -(t.positives + t.negatives)):
        bounds = f"{t.precision_low:.2f} to {t.precision_high:.2f}"
        said = f"{t.precise:g}" if t.precise is not None else t.note
        said += f" (from {t.applied:g} on)" if t.note == SILENCED else ""
        lines.append(f"{t.label[:31]:32}{t.positives:5}{t.negatives:5}  {bounds:18}{said:>16}")
    return lines


if __name__ == "__main__":
    launch(report, ReportCommand)
