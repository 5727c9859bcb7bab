"""Verdicts: who said what of which detection, the threshold they bear out, and windows that main.py can train on."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pretend import SPECIES, read_rows, write_recording, write_results, write_table

from archive.recordings import Recording, read_recordings, write_recordings
from config import AudioSettings, DataSettings
from data_loader import RandomWindows, read_labeled, recording_contexts, split, truth_table
from evaluation.calibration import NEVER, SILENCED, TOO_FEW, read_thresholds, write_thresholds
from evaluation.fitting import wilson_interval
from serving.detections import DETECTION_COLUMNS as COLUMNS
from serving.results import Detected, Results, hidden, read_results, sound_finder
from serving.review import (
    ADDED,
    Verdict,
    is_rank,
    plain_label,
    read_verdicts,
    settle,
    training_rows,
    undecided_labels,
    verdict_threshold,
    verdict_thresholds,
    write_training,
)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return read_results(write_results(tmp_path))


def judged(results: Results, path: Path, *said: tuple[int, str, str], reviewer: str = "Ada") -> Path:
    """A validation.csv: place of the detection, verdict, true species."""
    rows: list[dict[str, str]] = []
    for place, verdict, species in said:
        said_of_it = ({"yes": "1", "no": "0"}.get(verdict, ""), verdict, species, reviewer, "2026-06-01", "even")
        cells = (*results.detections[place].cells, *said_of_it)
        rows.append(dict[str, str](zip((*COLUMNS, *ADDED), cells, strict=True)))
    write_table(path, (*COLUMNS, *ADDED), rows)
    return path


def detection(confidence: float, label: str = "greti", start: float = 0.0, file: str = "a.wav") -> Detected:
    cells = dict.fromkeys(COLUMNS, "") | {"File": file, "Species code": label, "Channel": "mean"}
    return Detected(tuple(cells.values()), start, start + 5, confidence)


def verdicts(scores: Sequence[float], answers: Sequence[bool]) -> list[Verdict]:
    pairs = enumerate(zip(scores, answers, strict=True))
    return [Verdict(detection(s, start=5.0 * n), "yes" if right else "no", "", "") for n, (s, right) in pairs]


# what was said


def test_verdicts_find_their_detections(results: Results, tmp_path: Path) -> None:
    path = judged(results, tmp_path / "v.csv", (0, "yes", ""), (4, "no", "pretend frog"), (7, "unsure", ""))
    found, strangers = read_verdicts(path, results)
    assert [(results.detections.index(v.detected), v.answer, v.species, v.reviewer) for v in found] == [
        (0, "yes", "", "Ada"),
        (4, "no", "pretend frog", "Ada"),
        (7, "unsure", "", "Ada"),
    ]
    assert strangers == 0


def test_a_spreadsheet_may_have_rewritten_the_numbers(results: Results, tmp_path: Path) -> None:
    path = judged(results, tmp_path / "v.csv", (1, "yes", ""))
    path.write_text(path.read_text().replace("\n5,10,", "\n5.00,10.0,"))
    assert len(read_verdicts(path, results)[0]) == 1


def test_ones_and_zeros_of_another_program_will_do(results: Results, tmp_path: Path) -> None:
    path = judged(results, tmp_path / "v.csv", (0, "yes", ""), (1, "no", ""), (2, "unsure", ""))
    columns = [*COLUMNS, "validation"]
    write_table(path, columns, [{name: row[name] for name in columns} for row in read_rows(path)])
    assert [v.answer for v in read_verdicts(path, results)[0]] == ["yes", "no"]


@pytest.mark.parametrize("cells", [("1.0", "0.0", ""), ("TRUE", "FALSE", "NA"), ("1 ", "0", "nan")])
def test_what_r_and_pandas_make_of_ones_and_zeros_is_not_lost(
    cells: tuple[str, ...], results: Results, tmp_path: Path
) -> None:
    path = judged(results, tmp_path / "v.csv", (0, "yes", ""), (1, "no", ""), (2, "unsure", ""))
    columns = [*COLUMNS, "validation"]
    rows = [{name: row[name] for name in columns} for row in read_rows(path)]
    write_table(path, columns, [row | {"validation": cell} for row, cell in zip(rows, cells, strict=True)])
    assert [v.answer for v in read_verdicts(path, results)[0]] == ["yes", "no"]
    write_table(path, columns, [row | {"validation": "x"} for row in rows])
    with pytest.raises(AssertionError, match=r"v\.csv line 2: validation 'x' is none of 1, 0 and nothing"):
        read_verdicts(path, results)


def test_a_table_in_utf_16_says_so(results: Results, tmp_path: Path) -> None:
    path = judged(results, tmp_path / "v.csv", (0, "yes", ""))
    path.write_text(path.read_text(), encoding="utf-16")
    with pytest.raises(AssertionError, match=r"v\.csv line 1 is not in UTF-8; save the table as UTF-8"):
        read_verdicts(path, results)


def test_rows_of_no_detection_are_counted(results: Results, tmp_path: Path) -> None:
    path = judged(results, tmp_path / "v.csv", (0, "yes", ""), (1, "yes", ""))
    path.write_text(path.read_text().replace("greti,site A", "other,site A"))
    found, strangers = read_verdicts(path, results)
    assert (len(found), strangers) == (1, 1)


def test_verdicts_on_hidden_recordings_find_their_way_back(results: Results, tmp_path: Path) -> None:
    path = judged(hidden(results), tmp_path / "v.csv", (0, "yes", ""), (9, "no", ""))
    assert "recording 2" in path.read_text() and "card" not in path.read_text()
    assert [v.detected for v in read_verdicts(path, results)[0]] == [results.detections[0], results.detections[9]]
    other = replace(results, detections=results.detections[9:])  # another run, whose recordings have other numbers
    assert read_verdicts(path, other)[1] == 2


def test_a_verdict_that_is_none_is_named_by_its_line(results: Results, tmp_path: Path) -> None:
    path = judged(results, tmp_path / "v.csv", (0, "perhaps", ""))
    with pytest.raises(AssertionError, match=r"line 2.*perhaps"):
        read_verdicts(path, results)
    with pytest.raises(AssertionError, match="name the validation"):
        read_verdicts(tmp_path / "none.csv", results)


def test_what_reviewers_disagree_on_is_left_out_and_unsure_contradicts_nobody() -> None:
    first, second, third = detection(0.1), detection(0.2), detection(0.3)
    said = [
        Verdict(first, "yes", "", "Ada"),
        Verdict(first, "no", "", "Ben"),
        Verdict(second, "yes", "", "Ada"),
        Verdict(second, "unsure", "", "Ben"),
        Verdict(third, "unsure", "", "Ada"),
    ]
    settled, disputed = settle(said)
    assert list(settled) == [second] and disputed == [first]


def test_a_true_species_stands_unless_another_is_named() -> None:
    d = detection(0.5)
    ada, ben = Verdict(d, "no", "owl", "Ada"), Verdict(d, "no", "", "Ben")
    assert settle([ada, ben])[0][d].species == "owl"
    assert settle([ada, replace(ben, species="frog")])[0][d].species == ""


# thresholds


def test_scores_that_part_right_from_wrong_have_their_threshold_where_they_do() -> None:
    scores = np.linspace(0.05, 0.95, 20)
    threshold = verdict_threshold("greti", verdicts(scores.tolist(), (scores > 0.5).tolist()), scores.tolist(), 0.9)
    assert threshold.precise is not None and 0.4 < threshold.precise < 0.5, "10 of 11 are right"
    assert (threshold.positives, threshold.negatives) == (10, 10)
    assert threshold.precision_low < 0.9 < threshold.precision_high, "ten verdicts are ten verdicts"


def test_under_twenty_verdicts_or_with_yes_alone_nothing_is_said() -> None:
    scores = np.linspace(0.05, 0.95, 20).tolist()
    answers = [score > 0.5 for score in scores]
    assert verdict_threshold("greti", verdicts(scores, answers), scores, 0.9).note == ""
    for those, right in ((scores[:19], answers[:19]), (scores, [True] * 20), (scores[:19], [False] * 19)):
        threshold = verdict_threshold("greti", verdicts(those, right), scores, 0.9)
        assert threshold.note == TOO_FEW and threshold.precise is None


def test_twenty_verdicts_of_no_silence_a_species() -> None:
    scores = np.linspace(0.05, 0.95, 20).tolist()
    found = [*scores, 0.9876, 0.3]  # 0.9876 was .98764 before it was rounded
    threshold = verdict_threshold("greti", verdicts(scores, [False] * 20), found, 0.9)
    assert threshold.note == SILENCED and threshold.applied == 0.9877 and threshold.target == "strict"
    assert (threshold.precision_low, threshold.precision_high) == wilson_interval(0, 20, 0.95)
    one_yes = verdict_threshold("greti", verdicts(scores, [False] * 19 + [True]), found, 0.9)
    assert one_yes.note != SILENCED and one_yes.applied < 0.98, "negative control"
    sure = verdict_threshold("greti", verdicts([1.0] * 20, [False] * 20), [1.0], 0.9)
    assert sure.applied == 1.0, "which predictor.py takes for never"


def test_scores_that_say_nothing_are_never_precise() -> None:
    scores = np.linspace(0.05, 0.95, 40).tolist()
    threshold = verdict_threshold("greti", verdicts(scores, [n % 2 == 0 for n in range(40)]), scores, 0.9)
    assert threshold.note == NEVER and threshold.precise is None


def test_honest_scores_get_the_threshold_that_arithmetic_gives() -> None:
    """Uniform scores that are right as often as they say: from t on, (1 + t) / 2 are right, so 0.9 needs 0.8."""
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.01, 0.99, 4000)
    threshold = verdict_threshold(
        "greti", verdicts(scores.tolist(), (rng.random(4000) < scores).tolist()), scores.tolist(), 0.9
    )
    assert threshold.precise == pytest.approx(0.8, abs=0.03)


def test_a_sample_with_too_many_low_scores_gives_the_threshold_of_all_detections() -> None:
    """Most detections are sure; a sample even over the scale is not, and its own precision would ask for more."""
    rng = np.random.default_rng(0)
    found = 1 - rng.uniform(0.01, 1, 20_000) ** 3 * 0.98
    right = rng.random(len(found)) < found
    even = [int(n) for tenth in range(10) for n in np.flatnonzero((found * 10).astype(int) == tenth)[:60]]
    from_even = verdict_threshold("a", verdicts(found[even].tolist(), right[even].tolist()), found.tolist(), 0.9)
    alone = verdict_threshold("a", verdicts(found[even].tolist(), right[even].tolist()), found[even].tolist(), 0.9)
    true = min(t for t in np.linspace(0.02, 0.9, 89) if right[found >= t].mean() >= 0.9)
    assert from_even.precise == pytest.approx(true, abs=0.06)
    assert alone.precise is not None and alone.precise > true + 0.1, "the sample alone misleads"


def test_nothing_is_said_below_the_lowest_score_that_was_judged() -> None:
    scores = np.linspace(0.5, 0.95, 40)
    answers = [score > 0.52 for score in scores]
    threshold = verdict_threshold("a", verdicts(scores.tolist(), answers), [0.1, 0.2, *scores.tolist()], 0.6)
    assert threshold.precise is not None and threshold.precise >= 0.2, "the next lower score is 0.2"
    assert threshold.precise > 0.2


def test_answers_above_species_have_no_threshold() -> None:
    settled = {v.detected: v for v in verdicts([0.2, 0.8], [False, True])}
    rank = Verdict(detection(0.9, "genus Strix"), "yes", "", "")
    found = verdict_thresholds(settled | {rank.detected: rank}, list(settled), 0.9)
    assert [threshold.label for threshold in found] == ["greti"]
    assert is_rank("genus Strix") and is_rank("order Anura")
    assert not any(map(is_rank, ("greti", "Strix aluco", "genus", "bird (unspecified)", "genus ")))


def test_the_table_is_one_that_predictor_takes_and_another_model_refuses(tmp_path: Path) -> None:
    scores = np.linspace(0.05, 0.95, 20)
    fitted = verdict_threshold("greti", verdicts(scores.tolist(), (scores > 0.5).tolist()), scores.tolist(), 0.9)
    few = replace(verdict_threshold("tawow", verdicts([0.9], [True]), [0.9], 0.9), label="tawow")
    with (tmp_path / "thresholds.csv").open("w", encoding="utf-8", newline="") as file:
        write_thresholds(
            file, [fitted, few], ["Parus", "Strix"], "verdicts", "ab" * 32, undecided_labels([fitted, few])
        )
    labels = ["greti", "tawow"]
    assert read_thresholds(tmp_path / "thresholds.csv", "ab" * 32, labels) == {"greti": fitted.applied}
    assert read_rows(tmp_path / "thresholds.csv")[1]["note"] == TOO_FEW
    with pytest.raises(AssertionError, match="fitted for the model abab"):
        read_thresholds(tmp_path / "thresholds.csv", "cd" * 32, labels)


# a table to train on


def rows_after(results: Results, *said: tuple[int, str, str]) -> tuple[list[Recording], dict[str, int]]:
    settled = settle([Verdict(results.detections[n], answer, species, "") for n, answer, species in said])[0]
    return training_rows(settled, results.detections, sound_finder(results, None))


def test_a_confirmed_window_is_a_labelled_stretch(results: Results, tmp_path: Path) -> None:
    rows, left_out = rows_after(results, (1, "yes", ""))
    assert [(r.labels, r.start, r.end, r.listened, r.source, r.site) for r in rows] == [
        (("greti",), 5.0, 10.0, False, "verdicts", "site A")
    ]
    assert rows[0].path == (tmp_path / results.detections[1].file).resolve()
    assert left_out == {"undecided": 0, "missing": 0}


def test_a_denied_window_is_a_hard_negative(results: Results) -> None:
    rows, _ = rows_after(results, (1, "no", ""), (4, "no", "nothing"))
    assert [(r.labels, r.absent, r.listened) for r in rows] == [((), ("greti",), True)] * 2


def test_a_corrected_window_is_of_the_species_that_was_named(results: Results) -> None:
    rows, _ = rows_after(results, (1, "no", "Pretend  FROG"), (4, "no", "Strix nova"))
    assert [(r.labels, r.absent, r.listened) for r in rows] == [
        (("9000117",), ("greti",), False),
        (("Strix nova",), ("greti",), False),
    ]


def test_two_spellings_of_a_new_species_are_one_label_and_so_are_those_of_nothing(
    results: Results, tmp_path: Path
) -> None:
    rows, _ = rows_after(results, (1, "no", "Strix nova"), (4, "no", "strix  NOVA"))
    assert [row.labels for row in rows] == [("Strix nova",), ("Strix nova",)]
    path = judged(results, tmp_path / "v.csv", (1, "no", "Nothing"), (4, "no", "Nothing else"))
    assert [verdict.species for verdict in read_verdicts(path, results)[0]] == ["nothing", "Nothing else"]
    d = results.detections[1]
    said = [Verdict(d, "no", "Strix nova", "Ada"), Verdict(d, "no", "strix NOVA", "Ben")]
    assert settle(said)[0][d].species == "Strix nova"  # they agree


def test_a_window_in_which_another_detection_is_unjudged_is_no_negative(results: Results) -> None:
    other = detection(0.4, "9000117")
    cells = list(results.detections[1].cells)
    cells[COLUMNS.index("Species code")] = "9000117"
    other = replace(results.detections[1], cells=tuple(cells))
    both = replace(results, detections=(*results.detections, other))
    assert rows_after(both, (1, "no", "")) == ([], {"undecided": 1, "missing": 0})
    assert rows_after(both, (1, "no", ""), (len(both.detections) - 1, "no", ""))[0][0].listened
    assert rows_after(both, (1, "no", "nothing"))[0][0].listened, "the reviewer says that nothing is there"
    assert rows_after(both, (1, "no", ""), (len(both.detections) - 1, "yes", ""))[0][0].labels == ("9000117",)


def test_a_confirmed_answer_above_species_is_no_label_and_no_negative(results: Results) -> None:
    assert rows_after(results, (2, "yes", "")) == ([], {"undecided": 1, "missing": 0})
    assert rows_after(results, (2, "no", ""))[0][0].absent == (), "nor is a genus a label that is absent"


def test_a_recording_that_is_gone_is_counted(results: Results, tmp_path: Path) -> None:
    (tmp_path / results.detections[1].file).unlink()
    assert rows_after(results, (1, "yes", "")) == ([], {"undecided": 0, "missing": 1})


def test_the_training_table_is_read_and_taught_by_the_data_layer(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path, recordings=6))
    said = [(n, "yes", "") for n in range(54) if n % 3 < 2 and n % 9 < 6] + [(n, "no", "") for n in (6, 16, 34)]
    rows, _ = rows_after(results, *said)
    folder = tmp_path / "review"
    folder.mkdir()
    write_training(folder, rows, results.detections, None)
    data = DataSettings(folder / "recordings.csv", folds=3, cache_gb=0)
    taxonomy, table = read_labeled(data)
    assert set(taxonomy.labels) == {"9000117", "greti"} and taxonomy.common_names[taxonomy.labels.index("greti")]
    negatives = [row for row in table if not row.labels]
    assert len(table) == len(said) and len(negatives) == 3 and all(row.listened and row.sound for row in negatives)
    train, valid = split(table, data)
    assert {(row.site, row.day) for row in train}.isdisjoint({(row.site, row.day) for row in valid})
    audio = AudioSettings()
    windows = RandomWindows(table, taxonomy.labels, data, audio, seed=0)
    for index, row in enumerate(table):
        samples, labels = windows[0, 0, index]
        assert len(samples) == 5 * audio.sample_rate
        assert {taxonomy.labels[c] for c in np.flatnonzero(labels[0])} == set(row.labels), "a negative is all zeros"
    heard = [context.windows for context in recording_contexts(negatives, audio)]
    assert heard == [((row.start, row.end),) for row in negatives], "and judged as the window that was denied"
    assert truth_table(negatives, taxonomy.labels, audio).sum() == 0


def old_training(root: Path) -> Path:
    """A recordings.csv with folds, as data_loader.py writes it, and its taxonomy.csv."""
    rows: list[Recording] = []
    for number, label in enumerate(("greti", "tawow") * 5):
        path = root / "old" / f"{label}{number}.wav"
        write_recording(path, 2, 100 + number)
        rows.append(Recording(path, path.name, (label,), f"group {number}", number % 5, 10.0))
    write_recordings(root / "old" / "recordings.csv", rows)
    (root / "old" / "taxonomy.csv").write_text(
        "primary_label,scientific_name,common_name,class_name,order,family\n"
        "greti,Parus fictus,pretend tit,Aves,Passeriformes,Paridae\n"
        "tawow,Strix ficta,pretend owl,Aves,Strigiformes,Strigidae\n"
    )
    return root / "old" / "recordings.csv"


def test_old_and_new_recordings_are_trained_together(results: Results, tmp_path: Path) -> None:
    training = old_training(tmp_path)
    rows, _ = rows_after(results, (0, "yes", ""), (1, "yes", ""), (4, "no", ""), (10, "yes", ""))
    (tmp_path / "review").mkdir()
    write_training(tmp_path / "review", rows, results.detections, training)
    data = DataSettings(tmp_path / "review" / "recordings.csv")
    taxonomy, table = read_labeled(data)
    assert set(taxonomy.labels) == {"greti", "tawow", "9000117"} and len(table) == 14
    before = read_recordings(training)
    assert {(row.path, row.fold) for row in before} <= {(row.path, row.fold) for row in table}
    assert all(0 <= row.fold < 5 for row in table)
    train, valid = split(table, data)
    assert {row.group for row in train}.isdisjoint({row.group for row in valid})
    assert len({row.fold for row in table if row.site == "site A"}) == 1, "a site stays whole"


def test_windows_of_a_recording_that_was_trained_on_stay_in_its_fold(results: Results, tmp_path: Path) -> None:
    training = old_training(tmp_path)
    rows, _ = rows_after(results, (1, "yes", ""))
    known = replace(read_recordings(training)[3], path=rows[0].path, name=rows[0].path.as_posix().lstrip("/"))
    write_recordings(training, [*read_recordings(training), known])
    (tmp_path / "review").mkdir()
    write_training(tmp_path / "review", rows, results.detections, training)
    new = read_recordings(tmp_path / "review" / "recordings.csv")[-1]
    assert (new.start, new.group, new.fold) == (5.0, "group 3", 3)


@pytest.mark.parametrize("name", ["=cmd()", "a;b", "x\ny", '"><img src=x>', "\u202egnp.exe", "'quoted"])
def test_a_hostile_true_species_is_one_plain_label(results: Results, tmp_path: Path, name: str) -> None:
    path = judged(results, tmp_path / "v.csv", (1, "no", name))
    settled = settle(read_verdicts(path, results)[0])[0]
    rows, _ = training_rows(settled, results.detections, sound_finder(results, None))
    (tmp_path / "review").mkdir()
    write_training(tmp_path / "review", rows, results.detections, None)
    assert plain_label(name) and len(rows[0].labels) == 1
    taxonomy, table = read_labeled(DataSettings(tmp_path / "review" / "recordings.csv"))
    assert taxonomy.labels == table[0].labels == rows[0].labels
    for file in ("recordings.csv", "taxonomy.csv"):
        for row in read_rows(tmp_path / "review" / file):
            assert not any(cell.startswith(("=", "+", "@")) for cell in row.values())


def test_the_pretend_species_cover_every_kind_of_answer() -> None:
    assert [is_rank(code) for code, _, _ in SPECIES] == [False, False, True]
