"""Stage 4: species probabilities for every 5 seconds of a recording, or of an archive. No torch.

    python predictor.py dawn.ogg
    python predictor.py season-2026/ --out results/
    python predictor.py season-2026/ --out results/ --shard 3/8      # on the third of eight machines
    python predictor.py season-2026/ --out results/ --cluster local:4      # or by the workers of a cluster

Reads    recordings, folders of them or a recordings.csv; classifier.int8.onnx
Writes   files.csv, detections.csv and the other tables asked for, run.json; for a single recording only where --out is
         given

What is no readable recording becomes a row in files.csv with its reason, and the others go on. A run that was cut off
goes on where it stopped when the same command is given again, in the middle of a long recording too, and ends with the
same tables.
"""

from __future__ import annotations

import runtime.stopping  # noqa: F401  # pyright: ignore[reportUnusedImport] - Ctrl-C counts from here on

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from config import Engine, PredictCommand, part_of
from runtime.addresses import Address, place, places, send_folder
from runtime.application import bundled_model
from runtime.cluster import open_cluster, read_cluster
from runtime.files import read_json
from runtime.runs import Run, open_run, peak_memory_mb, refuse_others
from runtime.terminal import launch, show
from serving.analyser import Analyser, AnalyserSettings, analysed_there, licence_of, open_analyser
from serving.analysis import NOTHING
from serving.choices import ChoiceSettings, model_hash
from serving.contexts import SoundSettings
from serving.detections import detection_lines
from serving.inputs import Entry, find_entries, in_shard, read_shard
from serving.journal import Journal, kept_settings, open_journal
from serving.outputs import TableSettings, write_outputs
from serving.progress import ScoringProgress
from serving.scorer import Scorer, cpu_name
from serving.tallies import LISTED, Totals, status_counts

MODEL = Path("runs/quantize/classifier.int8.onnx")
OF_TABLES = ("rtype", "split_tables", "bom", "merge_gap", "shard", "cluster", "restart", "retry_failed")
OF_RESULTS = (  # flags that change what is found; formats, threads and verbosity do not
    *("overlap", "shortest", "channel", "tta", "smooth", "file_weight"),
    *("top_n", "ranks", "site_regex", "timezone", "batch_size"),
)


def predict(config: PredictCommand) -> int:
    """The whole of stage 4; returns the exit code: 0 all analysed, 1 nothing, 2 some inputs could not be read."""
    assert config.inputs, "no recordings given; for example: python predictor.py dawn.ogg (or a folder)"
    config = replace(config, inputs=places(config.inputs), out=place(config.out) if config.out else None)
    refuse_out(config)
    absent = [str(path) for path in config.inputs if not path.exists()]
    assert not absent, f"not found: {', '.join(absent[:5])}"
    tables = part_of(TableSettings, config)
    if config.cluster:
        read_cluster(config.cluster)
    with open_analyser(analyser_settings(config)) as analyser:
        check_windows(analyser.sound, tables, analyser.scorers[0])
        entries, notes = find_entries(config.inputs, config.site_regex, config.timezone)
        show("\n".join(notes))
        assert entries or config.submission, f"no recordings in {', '.join(map(str, config.inputs))}"
        if analyser.prior and entries:
            analyser.prior.refuse_idle(entries)
        single = len(entries) == 1 and entries[0].path in config.inputs
        if single and config.out is None and not tables.arrays:
            refuse_table_flags(config)
            return predict_one(analyser, entries[0])
        code = predict_archive(config, analyser, tables, entries)
    if isinstance(config.out, Address):
        sent = send_folder(results_folder(config), config.out)
        show(f"sent {sent} files to {config.out}; what the same command goes on with stays here")
    return code


def analyser_settings(config: PredictCommand) -> AnalyserSettings:
    """What the flags say of how a recording is analysed."""
    return AnalyserSettings(
        config.model or (bundled_model() or MODEL,),
        config.threads,
        chosen_engine(config),
        part_of(SoundSettings, config),
        part_of(ChoiceSettings, config),
        config.prior,
        config.prior_weight,
        config.time_expansion,
        card=config.card,
    )


def predict_one(analyser: Analyser, entry: Entry) -> int:
    """The detections of one recording, on the terminal alone."""
    started = time.time()
    with ScoringProgress(None, entry.size, analyser.sound.batch_size) as progress:
        ((_, outcome, analysed, _),) = analyser.analysed([entry], progress)
    assert outcome.status not in NOTHING, f"{entry.path}: {outcome.reason}"
    show("\n".join(detection_lines(analysed.found, LISTED)) or "nothing reaches its threshold")
    if analysed.seconds_voice:
        totals = Totals()
        totals.add(analysed)
        show(totals.voices())
    if outcome.status != "ok":
        show(f"{outcome.status}: {outcome.reason}")
    show(pace(outcome.seconds, time.time() - started))
    return 0


def predict_archive(config: PredictCommand, analyser: Analyser, tables: TableSettings, entries: Sequence[Entry]) -> int:
    """Score what is not yet done, then write the tables of everything; a shard leaves the tables to the others."""
    folder = results_folder(config)
    refuse_others(folder, "predict", ["detections.csv", "files.csv"])
    refuse_other_inputs(config, folder)
    shard, shards = read_shard(config.shard)
    own = [entry for entry in entries if in_shard(entry.path, shard, shards)]
    label = f"{shard}/{shards}" if shards > 1 else ""
    remark = "what is scored is kept: the same command goes on"
    with (  # the journal first: what it refuses must not touch the run.json of the results that are there
        open_journal(folder, settings(config, analyser), tables.arrays, label, config.restart) as journal,
        open_run("predict", config.runs, config, folder, kept=remark) as run,
    ):
        run.facts.update(run_facts(analyser.scorers, config.inputs))
        waiting = still_to_do(own, journal, config.retry_failed, not config.cluster)
        show(f"results go to {folder}; if this is stopped, the same command goes on where it was")
        score_waiting(analyser, waiting, journal, config.fail_fast, config.cluster)
        run.facts.update(decoder_peak_memory_mb=peak_memory_mb(analyser.decoder.process.pid))
        if label:
            return finish_shard(label, own, len(entries), journal, folder)
        return finish_results(analyser, tables, entries, journal, run)


def still_to_do(own: Sequence[Entry], journal: Journal, retry_failed: bool, here: bool = True) -> list[Entry]:
    """The recordings that are not done, then those that may be read better another time, if that is asked for.

    here   not by the workers of a cluster, who begin each recording at its beginning
    """
    waiting = [entry for entry in own if not journal.is_done(entry)]
    if retry_failed:
        waiting += [entry for entry in own if journal.is_done(entry) and not journal.is_settled(entry)]
    if len(waiting) < len(own):
        show(f"resuming: {len(own) - len(waiting)} of {len(own)} recordings are done already")
    for entry in waiting:
        if here and journal.has_begun(entry):
            show(f"resuming in the middle of {entry.path}")
    return waiting


def score_waiting(
    analyser: Analyser, waiting: Sequence[Entry], journal: Journal, fail_fast: bool, cluster: str = ""
) -> None:
    """Score recordings and save what is found, with a bar that knows by their sizes how long the rest will take.

    cluster   whose workers do it, if any do; what they answer is saved here
    """
    if not waiting:
        return
    with ExitStack() as stack:
        there = stack.enter_context(open_cluster(cluster)) if cluster else None
        started, size = time.time(), sum(entry.size for entry in waiting)
        progress = stack.enter_context(ScoringProgress(journal, size, analyser.sound.batch_size))
        answers = (
            analysed_there(there, analyser, waiting, journal.arrays) if there else analyser.analysed(waiting, progress)
        )
        for entry, outcome, analysed, scored in answers:
            journal.save(entry, analysed, scored if journal.arrays else [])
            progress.finished(entry, outcome.seconds)
            assert not (fail_fast and outcome.status == "unreadable"), f"{entry.path}: {outcome.reason}"
        show(pace(progress.seconds, time.time() - started))


def finish_shard(label: str, own: Sequence[Entry], count: int, journal: Journal, folder: Path) -> int:
    """What a shard reports at its end; `count` is the number of recordings of all shards."""
    statuses = Counter(analysed.status for analysed in journal.recall(own))
    assert statuses.total() == len(own), (
        f"{len(own) - statuses.total()} of the {len(own)} recordings of this shard are not in {folder}; was "
        "something removed from its folder .parts meanwhile? the same command once more mends that"
    )
    show(f"shard {label}: {len(own)} of {count} recordings are done ({status_counts(statuses) or 'none is its own'});")
    show("when all shards are, the same command without --shard writes the tables")
    return exit_code(statuses)


def finish_results(
    analyser: Analyser, tables: TableSettings, entries: Sequence[Entry], journal: Journal, run: Run
) -> int:
    """All tables, and what they say in short."""
    totals = Totals()
    written = write_outputs(run.folder, entries, journal, analyser.scorers[0], analyser.sound, tables, totals)
    show("\n".join(totals.lines()))
    run.facts.update(recordings=totals.statuses, hours=totals.hours, detections=totals.detections)
    show(f"wrote {', '.join(map(str, written))}")
    lost = sum(totals.statuses[status] for status in NOTHING)
    assert not entries or lost < len(entries), (
        f"none of the {len(entries)} recordings could be analysed; files.csv says why"
    )
    return exit_code(totals.statuses)


def exit_code(statuses: Mapping[str, int]) -> int:
    return 2 if statuses["unreadable"] + statuses["silent"] else 0


def chosen_engine(config: PredictCommand) -> Engine:
    """What --engine asks for; `auto` goes on with the engine of the results that are there, which must not be mixed."""
    kept = {} if config.engine != "auto" or config.restart else kept_settings(results_folder(config))
    if not kept:
        return config.engine
    return "openvino" if str(kept["engine"]).startswith("openvino") else "onnxruntime"


def check_windows(sound: SoundSettings, tables: TableSettings, scorer: Scorer) -> None:
    """Refuse flags that do not go with the model's windows, by name."""
    window = scorer.audio.window_seconds
    assert 0 <= sound.overlap < window, f"--overlap {sound.overlap}: give 0 to less than {window:g} seconds"
    assert sound.batch_size == 1 or scorer.precision != "int8", (
        f"--batch_size {sound.batch_size}: INT8 takes one at a time, else scores depend on their neighbours"
    )
    assert not tables.submission or (window == 5 and sound.overlap == 0 and sound.channel != "each"), (
        "--submission wants windows of 5 s without overlap, of one channel or the mean"
    )


def refuse_table_flags(config: PredictCommand) -> None:
    """Flags about tables do nothing where none are written."""
    usual = PredictCommand()
    idle = [name for name in OF_TABLES if getattr(config, name) != getattr(usual, name)]
    assert not idle, f"--{idle[0]} is about tables, and one recording is only printed: add --out FOLDER"


def refuse_other_inputs(config: PredictCommand, folder: Path) -> None:
    """Two archives that are called the same must not overwrite each other's results where nobody named a folder."""
    if config.out is not None or not (folder / "run.json").is_file():
        return
    earlier = read_json(folder / "run.json", "give another --out").get("inputs")
    inputs = [str(path.resolve()) for path in config.inputs]
    assert earlier in (None, inputs), (
        f"{folder} holds the results of {', '.join(map(str, earlier or [])) or 'other recordings'}; give --out a "
        "folder for these"
    )


def settings(config: PredictCommand, analyser: Analyser) -> dict[str, object]:
    """All that changes what is found: results of other settings are never mixed with these."""
    return {name: getattr(config, name) for name in OF_RESULTS} | analyser.facts()


def run_facts(scorers: Sequence[Scorer], inputs: Sequence[Path]) -> dict[str, object]:
    """What run.json says of the models, the recordings and the machine."""
    found: dict[str, object] = {
        "model": str(scorers[0].path.resolve()),
        "model_sha256": model_hash(scorers),
        "models": [str(scorer.path) for scorer in scorers],
        "working_directory": str(Path.cwd()),
        "inputs": [str(path.resolve()) for path in inputs],
        "engines": [scorer.engine for scorer in scorers],
        "band_hz": [scorers[0].audio.lowest_hz, scorers[0].audio.top_hz],
        "cpu": cpu_name(),
        "int8_known_answers": [scorer.known_answer for scorer in scorers],
    }
    more = {  # of models that say so
        "hub": [scorer.origin for scorer in scorers if scorer.origin],
        "licences": [licence for licence in map(licence_of, scorers) if licence],
        "model_cards": [scorer.card for scorer in scorers if scorer.card],
    }
    return found | {name: values for name, values in more.items() if values}


def refuse_out(config: PredictCommand) -> None:
    """An address takes what one command has made of all recordings, and not every server takes anything."""
    if isinstance(config.out, Address):
        assert not config.out.is_web(), f"--out {config.out}: a web server takes no files; give s3:// or the like"
        assert not config.shard, f"--shard and --out {config.out}: shards meet in a folder that all machines see"


def results_folder(config: PredictCommand) -> Path:
    """Where the tables go: --out, else a folder named after the inputs, or after an address that they are sent to."""
    if isinstance(config.out, Address):
        return config.runs / "predict" / "-".join([config.out.parts[0][:-1], *config.out.parts[1:]])
    name = config.inputs[0].resolve().name or "root"
    more = f"-and-{len(config.inputs) - 1}-more" if len(config.inputs) > 1 else ""
    return config.out or config.runs / "predict" / f"{name}{more}"


def pace(seconds: float, elapsed: float) -> str:
    return f"{seconds / 3600:.2f} h in {elapsed:.1f} s: {seconds / max(elapsed, 1e-9):.0f} x real time"


if __name__ == "__main__":
    launch(predict, PredictCommand)
