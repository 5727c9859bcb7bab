"""Find by example: every window of an archive that sounds like a call that you have. No torch, and no labels needed.

    python search.py index season-2026/ --model M --index season.index
    python search.py query season.index call.wav --at 12.5
    python search.py query season.index call.wav more.wav --not wrong.wav --name "Rana ficta"
    python report.py season.index/like-call

Reads    recordings, folders of them or a recordings.csv; an ONNX file of ours that gives embeddings; examples of a call
Writes   index: the folder --index, with files.csv and run.json; query: detections.csv, ranked, files.csv and the other
         tables asked for

Windows are cut, read and kept as predictor.py does it: an index that was cut off goes on where it stopped, new
recordings are added by the same command, and several machines share one by --shard or --cluster.
"""

from __future__ import annotations

import runtime.stopping  # noqa: F401  # pyright: ignore[reportUnusedImport] - Ctrl-C counts from here on

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from config import SearchCommand
from predictor import check_windows, exit_code, finish_shard, run_facts, score_waiting, still_to_do
from runtime.addresses import Address, place, places
from runtime.application import bundled_model
from runtime.cluster import read_cluster
from runtime.digests import sha256
from runtime.runs import open_run, refuse_others
from runtime.terminal import command_line, launch, show
from serving.analyser import AnalyserSettings, open_analyser, open_models
from serving.analysis import NOTHING
from serving.contexts import SoundSettings, context_pieces
from serving.detections import TableFacts, clock_text
from serving.hub import is_address
from serving.inputs import Entry, find_entries, in_shard, read_shard
from serving.journal import Journal, open_journal, refuse_parts
from serving.outputs import KINDS, TableSettings, check_ledger
from serving.ranked import FILES, Like, indexed_recordings, write_ranked_tables
from serving.review import NOTHING as NO_ANIMAL
from serving.review import is_rank, plain_label
from serving.scorer import Scorer, answers_of, context_samples, stream
from serving.tables import write_tables
from serving.tallies import status_counts
from serving.vectors import Nearest, Store, open_store, write_store
from sounds.audio import examine_header
from sounds.decoders import Decoder
from sounds.notes import undo_expansion
from taxonomy import key

MANY = 12  # windows of an example without --at that are worth a word
SHOWN = 5  # windows named on the terminal
OF_MODEL = ("reading", "model", "card", "engine")  # facts of an analyser that change an index
OF_ENTRIES = ("overlap", "shortest", "channel", "site_regex", "timezone", "time_expansion")
Vectors = NDArray[np.float32]


def search(config: SearchCommand) -> int:
    """The command; returns the exit code: 0 done, 1 nothing could be done, 2 some recordings could not be read."""
    return write_index(config) if config.action == "index" else query(config)


# --- index ----------------------------------------------------------------------------------------------------------


def write_index(config: SearchCommand) -> int:
    """Embed what is not yet embedded, then write the store of everything; a shard leaves that to the last command."""
    assert config.inputs, "no recordings given; for example: python search.py index season-2026/ --model M"
    config = replace(config, inputs=places(config.inputs))
    assert not isinstance(place(config.index), Address), (
        f"--index {config.index}: an index is mapped into memory, so it lies here; copy it where it belongs"
    )
    absent = [str(path) for path in config.inputs if not path.exists()]
    assert not absent, f"not found: {', '.join(absent[:5])}"
    refuse_others(config.index, "index", [FILES])
    # what the index is made of and with
    sound = SoundSettings(overlap=config.overlap, shortest=config.shortest, channel=config.channel)
    shard, shards = read_shard(config.shard)
    label = f"{shard}/{shards}" if shards > 1 else ""
    if config.cluster:
        read_cluster(config.cluster)
    model = (config.model == SearchCommand.model and bundled_model()) or config.model
    wanted = AnalyserSettings(
        (model,),
        config.threads,
        sound=sound,
        time_expansion=config.time_expansion,
        species=False,
        card=config.card,
    )
    with open_analyser(wanted) as analyser:
        scorer = analyser.scorers[0]
        check_windows(sound, TableSettings(), scorer)
        refuse_without_embeddings(scorer)
        # the recordings, and those of this machine
        entries, notes = find_entries(config.inputs, config.site_regex, config.timezone)
        show("\n".join(notes))
        assert entries, f"no recordings in {', '.join(map(str, config.inputs))}"
        own = [entry for entry in entries if in_shard(entry.path, shard, shards)]
        settings: dict[str, object] = {name: getattr(config, name) for name in OF_ENTRIES}
        if scorer.path.suffix == ".xml":
            show(f"refit.py takes no index made with an .xml; for that, name {scorer.path.with_suffix('.onnx')}")
        settings |= {name: value for name, value in analyser.facts().items() if name in OF_MODEL}
        # embed what is not yet embedded
        remark = "what is embedded is kept: the same command goes on"
        with (
            open_journal(config.index, settings, True, label, config.restart, "search.py index", "--index") as journal,
            open_run("index", config.index, config, config.index, kept=remark) as run,
        ):
            run.facts.update(run_facts(analyser.scorers, config.inputs))
            waiting = still_to_do(own, journal, config.retry_failed, not config.cluster)
            show(f"the index goes to {config.index}; if this is stopped, the same command goes on where it was")
            score_waiting(analyser, waiting, journal, fail_fast=False, cluster=config.cluster)
            if label:
                return finish_shard(label, own, len(entries), journal, config.index)
            return finish_index(config, scorer, entries, journal)


def refuse_without_embeddings(scorer: Scorer) -> None:
    """A file of an earlier version gives probabilities alone."""
    noise = np.random.default_rng(0).normal(0, 0.01, (1, context_samples(scorer.audio))).astype(np.float32)
    remedy = f"name their output in {scorer.card['card']}" if scorer.card else "make it anew with quantize.py"
    assert answers_of(scorer, noise)[0].embeddings.shape[1], f"{scorer.path} gives no embeddings; {remedy}"


def finish_index(config: SearchCommand, scorer: Scorer, entries: Sequence[Entry], journal: Journal) -> int:
    """files.csv and the store, of all recordings."""
    audio = scorer.audio
    facts = TableFacts(scorer.path.name, audio.window_seconds, config.overlap, audio.top_hz, audio.lowest_hz)
    write_tables(config.index, journal.recall(entries), facts, ())
    check_ledger(config.index / FILES, entries)
    said = {
        "model": str(scorer.path.resolve()),
        "model_name": scorer.path.name,
        "model_sha256": scorer.sha256,
        "window_seconds": audio.window_seconds,
        "overlap": config.overlap,
        "channel": config.channel,
        "top_hz": audio.top_hz,
        "lowest_hz": audio.lowest_hz,
        "files_sha256": sha256(config.index / FILES),
        "working_directory": str(Path.cwd()),
        "inputs": [str(path.resolve()) for path in config.inputs],
        "time_expansion": config.time_expansion,
        "card": dict(scorer.card),
    }
    windows = write_store(config.index, journal, entries, said)
    statuses = Counter(str(journal.read_facts(entry)["status"]) for entry in entries)
    show(f"{windows} windows of {len(entries)} recordings ({status_counts(statuses)}) are in {config.index}")
    lost = sum(statuses[status] for status in NOTHING)
    if lost:
        show(f"{lost} recordings have none: {config.index / FILES} says why")
    show(f"next: {command_line('search.py', 'query', config.index, 'CALL.wav')}, a recording of what you look for")
    return exit_code(statuses)


# --- query ----------------------------------------------------------------------------------------------------------


class Example(NamedTuple):
    """The windows of a recording that are looked for, or that are not meant."""

    path: Path
    times: list[tuple[float, float]]  # start and end in seconds
    embeddings: Vectors  # (windows, width)


def query(config: SearchCommand) -> int:
    """Find what sounds like the examples, and write the tables."""
    assert len(config.inputs) > 1, (
        "give an index and an example, the recordings first; for example: python search.py query season.index call.wav"
    )
    folder, *paths = config.inputs
    store = open_store(folder)
    like, out = called(config, folder)
    undo_expansion(int(store.facts["time_expansion"]))
    absent = [str(path) for path in (*paths, *config.unlike) if not path.is_file()]
    assert not absent, f"not found: {', '.join(absent[:5])}"
    assert len(config.at) <= len(paths), f"{len(config.at)} times --at for {len(paths)} examples; give one for each"
    with Decoder() as decoder:
        scorer = scorer_of(config, store)
        times = [*config.at, *[None] * (len(paths) - len(config.at))]
        examples = [embedded(path, at, scorer, store, decoder) for path, at in zip(paths, times, strict=True)]
        unlike = [embedded(path, None, scorer, store, decoder) for path in config.unlike]
    for example in examples:
        show(example_in_words(example))
    begun = time.perf_counter()
    vectors = [joined_rows([one.embeddings for one in some], store) for some in (examples, unlike)]
    nearest = store.nearest(vectors[0], vectors[1], config.most)
    milliseconds = 1000 * (time.perf_counter() - begun)
    assert len(nearest.rows), "every window is more like a counter-example than like an example; leave some --not out"
    show(f"{len(nearest.rows)} of {len(store.vectors)} windows, found in {milliseconds:.0f} ms")
    return write_found(config, store, nearest, scorer, like, out)


def called(config: SearchCommand, folder: Path) -> tuple[Like, Path]:
    """What the windows are called in the tables, and the folder for these.

    Errors: a name that stands for something else in verdicts; a folder in which something else lies.
    """
    stem = config.inputs[1].stem
    like = Like(config.name or stem, config.name, config.name or f"like {stem}")
    label = plain_label(like.label)
    assert label and not is_rank(label) and key(label) != NO_ANIMAL, (
        f"{like.label!r} would be read as no species, but as {NO_ANIMAL!r} or a taxon above; "
        'say with --name how it is called: --name "Rana ficta"'
    )
    out = config.out or folder / f"like-{config.name.replace(' ', '-') or stem}"
    assert out.resolve() != folder.resolve(), f"--out {out} is the index itself; give another folder"
    refuse_parts(out)
    refuse_others(out, "query", ["detections.csv", FILES])
    return like, out


def write_found(config: SearchCommand, store: Store, nearest: Nearest, scorer: Scorer, like: Like, out: Path) -> int:
    """The tables of what was found, and what to do with them."""
    folder = config.inputs[0]
    remark = "nothing is half written: give the same command again"
    with open_run("query", out, config, out, kept=remark) as run:
        facts = run_facts([scorer], [Path(path) for path in store.facts["inputs"]])
        del facts["models"]  # no model of species: report.py names no command for it
        run.facts.update(facts | {"working_directory": store.facts["working_directory"]})
        run.facts["settings"] = asdict(config) | {"time_expansion": store.facts["time_expansion"]}
        run.facts["index"] = str(folder.resolve())
        kinds = {KINDS[kind] for kind in ("csv", *config.rtype)}  # the next commands read detections.csv
        names = [like] * len(nearest.rows)
        written = write_ranked_tables(out, folder, store, nearest.rows, nearest.similarity, names, kinds)
    recordings = indexed_recordings(folder, store)
    for row, similarity in list(zip(nearest.rows, nearest.similarity, strict=True))[:SHOWN]:
        place = store.places[row]
        show(f"{similarity:6.3f}  {recordings[int(place['recording'])].file}, {clock_text(float(place['start']))}")
    show(f"wrote {', '.join(map(str, written))}")
    show(f"next: {command_line('report.py', out)}, to listen")
    return 0


def scorer_of(config: SearchCommand, store: Store) -> Scorer:
    """The file that the index was made with, and no other: vectors of two networks cannot be compared."""
    known = Path(str(store.facts["model"]))
    path = known if config.model == SearchCommand.model else config.model
    assert path.is_file() or path == known or is_address(path), (
        f"no file {path}; the index was made with {known}: give that, or leave --model out"
    )
    assert path.is_file() or is_address(path), (
        f"the index was made with {known}, which is not there; say with --model where it is now"
    )
    card = config.card or str(store.facts.get("card", {}).get("card", ""))
    (scorer,) = open_models((path,), config.threads, "onnxruntime", species=False, card=card)
    assert scorer.sha256 == store.facts["model_sha256"], (
        f"{path} is not the file that the index was made with ({known}, sha256 {store.facts['model_sha256'][:12]}); "
        "vectors of two networks cannot be compared"
    )
    digest = store.facts.get("card", {}).get("card_sha256", "")
    assert scorer.card.get("card_sha256", "") == digest, (
        f"the card {card} is not the one that the index was made with (sha256 {digest[:12]}); give that with --card"
    )
    return scorer


def embedded(path: Path, at: float | None, scorer: Scorer, store: Store, decoder: Decoder) -> Example:
    """The windows of an example: all of them, or with `at` seconds the one whose middle is nearest to it."""
    window = scorer.audio.window_seconds
    channel = channel_of(path, store)
    sound = SoundSettings(overlap=0.0 if at is None else window / 2, shortest=0.0, channel=channel)
    times: list[tuple[float, float]] = []
    vectors: list[Vectors] = []
    reason = ""
    for piece, answer in stream([scorer], context_pieces([Entry(path)], scorer.audio, sound, decoder)):
        if answer is not None:
            times += piece.windows
            vectors.append(answer.embeddings[list(piece.rows)])
        if piece.outcome is not None and piece.outcome.status in NOTHING:
            reason = piece.outcome.reason
    assert times and not reason, f"{path}: {reason or 'it holds no sound'}; give another example"
    if at is None:
        return Example(path, times, np.concatenate(vectors))
    end = max(end for _, end in times)
    assert 0 <= at < end, f"--at {at:g}: {path} ends at {end:g} s; give a time in it"
    row = min(range(len(times)), key=lambda row: abs(sum(times[row]) / 2 - at))
    return Example(path, [times[row]], np.concatenate(vectors)[row : row + 1])


def channel_of(path: Path, store: Store) -> str:
    """The channel of an example that is looked for: that of the index, the mean where it has each or the example lacks
    it."""
    channel = str(store.facts["channel"])
    if not channel.isdecimal() or int(channel) == 1:
        return channel if channel.isdecimal() else "mean"
    count = examine_header(path).channels
    if not 0 < count < int(channel):
        return channel
    show(f"{path} has {count} channels, and the index is of channel {channel}: the mean of all is taken")
    return "mean"


def example_in_words(example: Example) -> str:
    """Which windows of a recording are looked for."""
    if len(example.times) == 1:
        start, end = example.times[0]
        return f"example {example.path}: {start:g} to {end:g} s"
    hint = "; say with --at SECONDS where the call is, if not everywhere" if len(example.times) > MANY else ""
    return f"example {example.path}: all {len(example.times)} windows{hint}"


def joined_rows(parts: Sequence[Vectors], store: Store) -> Vectors:
    """(rows, width) of several examples, or of none."""
    return np.concatenate([np.zeros((0, store.vectors.shape[1]), np.float32), *parts])


if __name__ == "__main__":
    launch(search, SearchCommand)
