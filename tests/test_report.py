"""The listening report: which detections are drawn, a page that is one safe file, and a loop that closes."""

import base64
import csv
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import soundfile
from pretend import SPECIES, read_rows, write_results

import report
from archive.recordings import read_recordings
from config import DataSettings, ReportCommand, parse
from data_loader import read_labeled
from evaluation.calibration import read_thresholds
from report import apply_verdicts, draw_sample, effort, json_for_page, page_template, settings_of, write_report
from serving.detections import DETECTION_COLUMNS as COLUMNS
from serving.results import Detected, read_results
from serving.review import ADDED
from sounds.audio import as_mp3
from sounds.clips import Clip, png

HERE = Path(__file__).parents[1]
HOSTILE = (
    "<script>document.title='owned'</script>",
    "</script><script>document.title='owned'</script>",
    "<!--<script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "=cmd()",
    "new\nline",
    "\u202egnp.kcab",
    "&lt;b&gt; & 'quotes' \"too\"",
    "{{policy}}<!-- clips and data -->",
)


PICTURE, SOUND = png(np.zeros((2, 2), np.uint8)), as_mp3(np.zeros(240, np.float32), 24_000)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips are the slow part; where they are not what a test is about, all are one."""

    def cut(*_: object) -> Clip:
        return Clip(PICTURE, SOUND, 2.0, 9.0, 8_000, -12.0)

    monkeypatch.setattr(report, "cut_clip", cut)


def command(folder: Path, **settings: Any) -> ReportCommand:
    return replace(ReportCommand(folder), **settings)


def facts_in(page: Path) -> dict[str, Any]:
    """What the page is told."""
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert len(found) == 1
    told: dict[str, Any] = json.loads(found[0])
    return told


class Tags(HTMLParser):
    """The elements and attributes of a page, as a browser would make them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(f"{tag} {sorted(name for name, _ in attrs)}")


def tags(text: str) -> list[str]:
    parser = Tags()
    parser.feed(text)
    return parser.seen


def detections(*confidences: float, label: str = "a", start: float = 0.0) -> list[Detected]:
    cells = [
        *[""] * COLUMNS.index("Species code"),
        label,
        *[""] * (len(COLUMNS) - COLUMNS.index("Species code") - 1),
    ]
    return [Detected(tuple(cells), start + n, start + n + 5, c) for n, c in enumerate(confidences)]


# what is drawn


def test_even_takes_as_many_from_each_tenth_as_there_are() -> None:
    many = detections(*[0.05 + 0.1 * tenth for tenth in range(10) for _ in range(4 if tenth < 8 else 1)])
    drawn = draw_sample(many, "even", 20, 400, 0)
    counts = [sum(int(many[place].confidence * 10) == tenth for place in drawn) for tenth in range(10)]
    assert len(drawn) == 20 and counts[8:] == [1, 1] and set(counts[:8]) == {2, 3}
    proportional = draw_sample(many, "random", 20, 400, 0)
    assert [sum(int(many[place].confidence * 10) == tenth for place in proportional) for tenth in range(10)] != counts


def test_a_full_score_is_in_the_highest_tenth_and_an_edge_in_the_upper_one() -> None:
    many = detections(*[1.0] * 3, *[0.3] * 3, *[0.35] * 3)
    drawn = draw_sample(many, "even", 4, 400, 0)
    assert sorted(many[place].confidence == 1.0 for place in drawn) == [False, False, True, True]


def test_top_takes_the_surest_and_all_takes_everything() -> None:
    many = detections(0.1, 0.9, 0.5, 0.7)
    assert draw_sample(many, "top", 2, 400, 0) == [1, 3]
    assert draw_sample(many, "all", 2, 400, 0) == [1, 3, 2, 0]


def test_the_seed_decides_and_nothing_else() -> None:
    many = detections(*[n / 100 for n in range(100)])
    assert draw_sample(many, "random", 10, 400, 1) == draw_sample(many, "random", 10, 400, 1)
    assert draw_sample(many, "random", 10, 400, 1) != draw_sample(many, "random", 10, 400, 2)
    beside = [*many, *detections(0.5, 0.6, label="b")]
    assert draw_sample(beside, "random", 10, 400, 1)[:10] == draw_sample(many, "random", 10, 400, 1)


def test_species_take_turns_where_all_together_are_too_many() -> None:
    many = [*detections(*[0.5] * 50, label="common"), *detections(0.9, 0.8, label="rare")]
    drawn = draw_sample(many, "even", 60, 10, 0)
    assert [many[place].label for place in drawn] == ["common"] * 8 + ["rare"] * 2
    assert len(draw_sample(many, "even", 3, 400, 0)) == 5


# the page


@pytest.mark.usefixtures("quick")
def test_the_page_is_one_file_that_asks_for_nothing(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    assert write_report(command(folder)) == 0
    assert {path.name for path in folder.iterdir()} == {"report.html", "detections.csv", "files.csv", "run.json"}
    text = (folder / "report.html").read_text()
    addresses = set(re.findall(r"[a-z]+://[^\s\"'`<>]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}, "the name of a namespace, never fetched"
    assert not re.search(r"<(?:script|img|audio|link|iframe)[^>]*\s(?:src|href)=(?!\"data:,\")", text)
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "fetch("):
        assert word not in text, word


@pytest.mark.usefixtures("quick")
def test_its_policy_allows_its_own_script_and_style_and_nothing_else(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    write_report(command(folder))
    text = (folder / "report.html").read_text()
    found = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert found
    policy = dict(part.strip().split(" ", 1) for part in found[1].split(";"))
    for tag in ("script", "style"):
        bodies = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in bodies]
        assert len(bodies) == 1 and policy[f"{tag}-src"] == f"'sha256-{digests[0]}'"
    assert policy["default-src"] == "'none'" and policy["img-src"] == policy["media-src"] == "data:"
    assert not re.search(r"\sstyle=|\son[a-z]+=", text.split("<script>")[0]), "the policy would refuse those"


def test_every_card_has_its_cells_its_picture_and_its_sound(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    write_report(command(folder))
    told, rows = facts_in(folder / "report.html"), read_rows(folder / "detections.csv")
    assert sorted(card["cells"] for card in told["cards"]) == sorted([row[name] for name in COLUMNS] for row in rows)
    clips = dict(
        re.findall(r'<script type="text/plain" id="clip(\d+)">(.*?)</script>', (folder / "report.html").read_text())
    )
    assert len(clips) == len(told["cards"]) == 18
    for number, card in enumerate(told["cards"]):
        picture, sound = (base64.b64decode(part) for part in clips[str(number)].split(" "))
        assert picture[:8] == b"\x89PNG\r\n\x1a\n" and sound[:2] in (b"\xff\xf3", b"\xff\xfb", b"ID")
        assert card["lead"] == (0 if card["cells"][0] == "0" else 2) and card["top"] == 8_000


@pytest.mark.usefixtures("quick")
def test_the_header_counts_what_the_tables_hold(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    write_report(command(folder, seed=7, per_species=2))
    told = facts_in(folder / "report.html")
    assert told["species"] == [[code, common, scientific, 6, ""] for code, scientific, common in sorted(SPECIES)]
    assert (told["detections"], told["recordings"], told["sites"], told["drawn"]) == (18, 3, 2, 6)
    assert told["hours"] == pytest.approx(2 * 45 / 3600)
    assert told["damaged"] == [["card/site_A/notes.wav", "unreadable", "named .wav, is text; copy it again"]]
    assert sorted(told["calls"]) == [["2026-05-14", hour, n, 3] for hour in (3, 4) for n in range(3)]
    assert told["effort"] == [["2026-05-14", 3, 45], ["2026-05-14", 4, 45]]
    settings = dict(told["settings"])
    assert settings["sample"] == "even, seed 7, at most 2 per species, at most 400 in all"
    assert settings["min_conf"] == "0.01" and settings["model sha256"] == "ab" * 32


def test_hours_are_counted_across_midnight_and_only_where_the_clock_is_known() -> None:
    rows = [
        {"recorded_at": "2026-05-14T22:30:00+02:00", "seconds_analysed": "7200"},
        {"recorded_at": "2026-05-15T00:10:00", "seconds_analysed": "60"},
        {"recorded_at": "2026-05-15", "seconds_analysed": "60"},
        {"recorded_at": "", "seconds_analysed": "60"},
        {"recorded_at": "2026-13-45T99:00:00", "seconds_analysed": "60"},
        {"recorded_at": "2026-05-16T00:00:00", "seconds_analysed": "many"},
    ]
    assert effort(rows) == {("2026-05-14", 22): 1800, ("2026-05-14", 23): 3600, ("2026-05-15", 0): 1860}
    assert len(effort([rows[0] | {"seconds_analysed": "1e300"}])) < 200, "a length that nobody recorded"


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.usefixtures("quick")
def test_no_name_becomes_markup(tmp_path: Path, name: str) -> None:
    harmless, hostile = (tmp_path / "harmless", tmp_path / "hostile")
    write_report(command(write_results(harmless, 1, 3), title="harmless"))
    species = [
        (f"{code}{name}", f"{scientific} {name}", f"{name}{n}") for n, (code, scientific, _) in enumerate(SPECIES)
    ]
    file = f"card/{name.replace('/', '_')}.wav"
    folder = write_results(hostile, 1, 3, species, [file], {"Site": name, "Runners up": f"{name} 0.3", "Model": name})
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(run | {"settings": {name: name}, "model": name}))
    with (folder / "files.csv").open("a", newline="") as table:
        csv.writer(table).writerow([name, name, name, *["0"] * 6, name, name, "0", "0"])
    assert write_report(command(folder, title=name)) == 0
    page = (folder / "report.html").read_text()
    assert tags(page) == tags((harmless / "results" / "report.html").read_text())
    assert facts_in(folder / "report.html")["cards"][0]["cells"][COLUMNS.index("Site")] == name


def test_names_that_were_not_escaped_would_be_seen() -> None:
    facts = {"name": "</script><img src=x>"}
    plain = f"<script>{json.dumps(facts)}</script>"
    assert "img ['src']" in tags(plain) and "img ['src']" not in tags(f"<script>{json_for_page(facts)}</script>")
    assert json.loads(json_for_page(facts)) == facts


@pytest.mark.usefixtures("quick")
def test_hidden_paths_are_nowhere_in_the_page(tmp_path: Path) -> None:
    folder = write_results(tmp_path, rows={"Model": "/home/ada/secret_valley/pretend.onnx"})
    words = ("card/", "site_A", "site A", "A1_2026", ".wav", str(tmp_path), tmp_path.name, "secret_valley", "is text")
    write_report(command(folder))
    plain = (folder / "report.html").read_text().split('id="data"')[1].split("</script>")[0]
    write_report(command(folder, hide_paths=True, clips_dir=folder / "clips"))
    page = (folder / "report.html").read_text()
    hidden = page.split('id="data"')[1].split("</script>")[0] + " ".join(
        path.name for path in (folder / "clips").iterdir()
    )
    for word in words:
        assert word in plain and word not in hidden, word
    assert "recording 1" in hidden and "site 1" in hidden and "pretend frog" in hidden


def test_hidden_settings_keep_numbers_and_drop_what_may_be_a_place(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path))
    plain, hidden = (dict(settings_of(results, command(results.folder, hide_paths=hide))) for hide in (False, True))
    assert (
        plain["inputs"] == "card"
        and plain["model"] == "runs/quantize/pretend.onnx"
        and "inputs" not in hidden
        and "tables" not in hidden
    )
    assert hidden["min_conf"] == plain["min_conf"] == "0.01" and hidden["model sha256"] == "ab" * 32


def test_hidden_settings_keep_the_licence_of_the_model_and_not_its_name(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    run = json.loads((folder / "run.json").read_text())
    terms = ["licence of lynx den.onnx: CC BY-NC 4.0", "licence of site_A.int8.onnx: CC0-1.0"]
    (folder / "run.json").write_text(json.dumps(run | {"model": "/home/ada/lynx den.onnx", "licences": terms}))
    results = read_results(folder)
    plain, hidden = (dict(settings_of(results, command(folder, hide_paths=hide))) for hide in (False, True))
    assert plain["licence of the model"] == "; ".join(terms)
    assert hidden["licence of the model"] == "licence of the model: CC BY-NC 4.0; licence of the model: CC0-1.0"


def test_clips_go_beside_the_page_where_they_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_results(tmp_path)
    monkeypatch.setattr(report, "EMBEDDED", 17)
    write_report(command(folder))
    clips = folder / "report_clips"
    told = facts_in(folder / "report.html")
    assert len(list(clips.glob("[!.]*"))) == 36 and 'id="clip0"' not in (folder / "report.html").read_text()
    first = told["cards"][0]
    assert re.fullmatch(
        r"report_clips/0\.\d{3}_pretend-frog_A1_\w+_\d+\.00s_\d+\.00s_2026-05-14T04-30-30_0\.mp3", first["mp3"]
    )
    for card in told["cards"]:
        sound, rate = soundfile.read(folder / card["mp3"], dtype="float32")
        assert (folder / card["png"]).is_file() and len(sound) / rate == pytest.approx(card["seconds"], abs=0.01)
    assert "img-src data: file: 'self'" in (folder / "report.html").read_text()
    monkeypatch.setattr(report, "EMBEDDED", 18)
    write_report(command(folder, out=folder / "small.html"))
    assert not (folder / "small_clips").exists() and "file:" not in page_policy(folder / "small.html")


def page_policy(page: Path) -> str:
    found = re.search(r'Content-Security-Policy" content="([^"]+)"', page.read_text())
    assert found
    return found[1]


@pytest.mark.parametrize("name", [*HOSTILE, "../../../../tmp/owned", "a" * 300, ".."])
@pytest.mark.usefixtures("quick")
def test_clips_never_leave_their_folder(tmp_path: Path, name: str) -> None:
    species = [(code, scientific, name) for code, scientific, _ in SPECIES]
    folder = write_results(tmp_path / "deep" / "er", 1, 3, species, rows={"Detected at": name})
    before = {path for path in tmp_path.rglob("*") if folder / "clips" not in path.parents}
    assert write_report(command(folder, clips_dir=folder / "clips")) == 0
    added = {path for path in tmp_path.rglob("*") if folder / "clips" not in path.parents} - before
    assert added == {folder / "report.html", folder / "clips"}
    assert len(list((folder / "clips").glob("[!.]*"))) == 6


def test_moved_recordings_are_found_and_lost_ones_are_cards_without_sound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_results(tmp_path)
    (tmp_path / "card").rename(tmp_path / "disk")
    with pytest.raises(AssertionError, match=r"none of the windows has sound: card/.*--audio says where"):
        write_report(command(folder))
    assert not (folder / "report.html").exists()
    assert write_report(command(folder, audio=tmp_path / "disk")) == 0
    next((tmp_path / "disk" / "site_A").iterdir()).unlink()
    assert write_report(command(folder, audio=tmp_path / "disk")) == 2
    cards = facts_in(folder / "report.html")["cards"]
    assert sum("why" in card for card in cards) == 9 and "9 without sound" in capsys.readouterr().out
    assert write_report(command(folder, audio=tmp_path / "disk", hide_paths=True)) == 2
    assert {card.get("why", "") for card in facts_in(folder / "report.html")["cards"]} == {""}


@pytest.mark.usefixtures("quick")
def test_a_table_of_an_older_predictor_will_do(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    columns = ["Start (s)", "End (s)", "Scientific name", "Common name", "Confidence", "File", "Species code"]
    rows = read_rows(folder / "detections.csv")
    with (folder / "detections.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, columns, extrasaction="ignore")
        table.writeheader()
        table.writerows(row | {"File": str(tmp_path / row["File"])} for row in rows)
    (folder / "files.csv").unlink()
    (folder / "run.json").unlink()
    assert write_report(command(folder)) == 0
    told = facts_in(folder / "report.html")
    assert (
        told["calls"] == told["effort"] == told["damaged"] == []
        and told["recordings"] == 2
        and len(told["cards"]) == 18
    )


@pytest.mark.usefixtures("quick")
def test_the_same_results_and_seed_give_the_same_page(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    pages: list[bytes] = []
    for seed in (1, 1, 2):
        write_report(command(folder, seed=seed, per_species=3))
        pages.append((folder / "report.html").read_bytes())
    assert pages[0] == pages[1] != pages[2]


def test_a_template_without_its_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "report.html").write_text("<html></html>")
    monkeypatch.setattr(report, "TEMPLATE", tmp_path / "report.html")
    with pytest.raises(AssertionError, match="lost the line for its data"):
        page_template(beside=False)


# the loop


def say(page: Path, path: Path, wrong_below: float, reviewer: str = "Ada") -> Path:
    """A validation.csv as the page hands it out, by a reviewer who hears nothing below a confidence."""
    told = facts_in(page)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*told["columns"], *told["added"]])
        for card in told["cards"]:
            right = float(card["cells"][COLUMNS.index("Confidence")]) >= wrong_below
            answer = "yes" if right else "no"
            said = [int(right), answer, "", reviewer, "2026-06-01T08:00:00Z", told["sample"]]
            table.writerow([*card["cells"], *said])
    return path


@pytest.mark.usefixtures("quick")
def test_the_page_says_what_takes_the_verdicts(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    write_report(command(folder))
    words, made = facts_in(folder / "report.html")["then"]
    assert words.endswith(f"report.py {folder} --apply validation.csv") and "training data" in made
    told = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(told | {"index": "/field/season 1.index"}))  # windows of an index
    write_report(command(folder))
    words, made = facts_in(folder / "report.html")["then"]
    assert words.endswith("refit.py '/field/season 1.index' validation.csv") and made.startswith(
        "makes a classifier of it;"
    )
    write_report(command(folder, hide_paths=True))
    assert facts_in(folder / "report.html")["then"][0] == "python refit.py INDEX validation.csv"


@pytest.mark.usefixtures("quick")
def test_verdicts_on_windows_of_an_index_make_no_thresholds(tmp_path: Path) -> None:
    """Their confidence is a cosine, or of a head that no file had."""
    folder = write_results(tmp_path, recordings=8)
    assert write_report(command(folder)) == 0
    assert facts_in(folder / "report.html")["sample"] == "even"
    facts = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(facts | {"index": "/field/season.index"}))
    assert write_report(command(folder)) == 0
    assert facts_in(folder / "report.html")["sample"] == "ranked"
    path = say(folder / "report.html", tmp_path / "validation.csv", wrong_below=0.5)
    with pytest.raises(AssertionError, match=r"windows of an index.* refit.py /field/season.index"):
        report.report(command(folder, apply=(path,)))
    assert not (folder / "review").exists()


@pytest.mark.usefixtures("quick")
def test_verdicts_become_thresholds_and_training_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_results(tmp_path, recordings=8)
    assert write_report(command(folder)) == 0
    assert tuple(facts_in(folder / "report.html")["added"]) == ADDED
    path = say(folder / "report.html", tmp_path / "validation.csv", wrong_below=0.5)
    assert report.report(command(folder, apply=(path,))) == 0
    said = capsys.readouterr().out
    assert "72 verdicts; 0 contradicted" in said and "24 windows with a species, 36 hard negatives" in said
    thresholds = read_thresholds(folder / "review" / "thresholds.csv", "ab" * 32, ["9000117", "greti"])
    assert set(thresholds) == {"9000117", "greti"} and all(0.4 < share < 0.6 for share in thresholds.values())
    taxonomy, rows = read_labeled(DataSettings(folder / "review" / "recordings.csv", folds=2))
    assert set(taxonomy.labels) == {"9000117", "greti"}
    assert sum(row.listened and not row.labels for row in rows) == 36 and sum(bool(row.labels) for row in rows) == 24


@pytest.mark.usefixtures("quick")
def test_verdicts_write_over_nobodys_own_tables_and_count_once_however_often_they_are_applied(tmp_path: Path) -> None:
    folder = write_results(tmp_path, recordings=8)
    write_report(command(folder))
    path = say(folder / "report.html", tmp_path / "validation.csv", wrong_below=0.5)
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / "taxonomy.csv").write_text("mine")
    with pytest.raises(AssertionError, match=r"archive/taxonomy\.csv is not of earlier verdicts"):
        apply_verdicts(command(folder, apply=(path,), out=archive))
    assert [one.name for one in archive.iterdir()] == ["taxonomy.csv"] and (
        archive / "taxonomy.csv"
    ).read_text() == "mine"
    assert apply_verdicts(command(folder, apply=(path,))) == 0
    table = folder / "review" / "recordings.csv"
    first = read_recordings(table)
    assert apply_verdicts(command(folder, apply=(path,), training=table)) == 0
    assert {(row.name, row.start, row.labels) for row in read_recordings(table)} == {
        (row.name, row.start, row.labels) for row in first
    }
    assert len(read_recordings(table)) == len(first)
    with pytest.raises(AssertionError, match=r"--out .*detections\.csv: give the page a name that ends in \.html"):
        command(folder, out=folder / "detections.csv")


@pytest.mark.usefixtures("quick")
def test_two_reviewers_count_where_they_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_results(tmp_path, recordings=8)
    write_report(command(folder))
    ada = say(folder / "report.html", tmp_path / "ada.csv", wrong_below=0.5)
    ben = say(folder / "report.html", tmp_path / "ben.csv", wrong_below=0.6, reviewer="Ben")
    assert apply_verdicts(command(folder, apply=(ada, ben), out=tmp_path / "both")) == 0
    assert "65 verdicts; 7 contradicted" in capsys.readouterr().out
    assert (tmp_path / "both" / "thresholds.csv").is_file() and not (folder / "review").exists()


@pytest.mark.usefixtures("quick")
def test_too_few_verdicts_leave_the_predictors_own_threshold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_results(tmp_path)
    write_report(command(folder))
    path = say(folder / "report.html", tmp_path / "validation.csv", wrong_below=0.5)
    assert apply_verdicts(command(folder, apply=(path,))) == 0
    assert capsys.readouterr().out.count("too few to say") == 2
    assert read_thresholds(folder / "review" / "thresholds.csv", "ab" * 32, ["9000117", "greti"]) == {}


@pytest.mark.usefixtures("quick")
def test_verdicts_of_hidden_recordings_are_applied_too(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    write_report(command(folder, hide_paths=True))
    path = say(folder / "report.html", tmp_path / "validation.csv", wrong_below=0.5)
    assert "card" not in path.read_text()
    assert apply_verdicts(command(folder, apply=(path,))) == 0
    assert {row["path"] for row in read_rows(folder / "review" / "recordings.csv")} == {
        str(Path(row["File"]).relative_to("card")) for row in read_rows(folder / "detections.csv")
    }


@pytest.mark.usefixtures("quick")
def test_verdicts_on_other_results_are_refused_and_some_strangers_are_exit_code_2(tmp_path: Path) -> None:
    folder, other = write_results(tmp_path / "a"), write_results(tmp_path / "b", 1, 3, names=["card/else.wav"])
    write_report(command(folder))
    path = say(folder / "report.html", tmp_path / "validation.csv", wrong_below=0.5)
    with pytest.raises(AssertionError, match=r"no verdict in .* is of a detection in"):
        apply_verdicts(command(other, apply=(path,)))
    text = path.read_text()
    path.write_text(text.replace("\n5,10,", "\n5,11,", 1))
    assert apply_verdicts(command(folder, apply=(path,))) == 2


@pytest.mark.usefixtures("quick")
def test_no_cell_that_leaves_is_a_formula(tmp_path: Path) -> None:
    species = [("=cmd()", "=1+1", "@sum")]
    folder = write_results(tmp_path, species=species, recordings=4)
    write_report(command(folder))
    path = say(folder / "report.html", tmp_path / "validation.csv", wrong_below=0.5)
    assert apply_verdicts(command(folder, apply=(path,))) == 0
    for name in ("thresholds.csv", "recordings.csv", "taxonomy.csv"):
        for row in read_rows(folder / "review" / name):
            assert not any(cell.startswith(("=", "+", "@")) for cell in row.values()), (name, row)


# the command


def test_the_command_says_what_it_did_and_what_it_lacks(tmp_path: Path) -> None:
    folder, run = write_results(tmp_path), partial(forked.run, tmp_path, "report.py")
    done = run(folder, "--per_species", "3", "--out", "page.html")
    assert done.returncode == 0 and "9 of 18 detections, 0 without sound, seed 0" in done.stdout, done.stderr
    assert (tmp_path / "page.html").is_file()
    (tmp_path / "empty").mkdir()
    lacking = run(tmp_path / "empty")
    assert lacking.returncode == 1 and "name the folder that predictor.py wrote" in lacking.stderr
    assert "Traceback" not in lacking.stderr
    assert run("--per_species", "0").returncode == 1


def test_settings_that_make_no_sense_name_their_flag() -> None:
    assert parse(ReportCommand, ["r", "--apply", "a.csv", "b.csv"]).apply == (Path("a.csv"), Path("b.csv"))
    assert parse(ReportCommand, []).results == Path("runs/predict")
    wrong: list[dict[str, Any]] = [{"per_species": 0}, {"max_clips": 0}, {"seed": -1}, {"precision": 1.0}]
    for settings in wrong:
        with pytest.raises(AssertionError, match=f"--{next(iter(settings))}"):
            command(Path("r"), **settings)


def test_the_report_needs_neither_torch_nor_pandas() -> None:
    code = "import sys, report; print([name for name in ('torch', 'transformers', 'pandas') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.usefixtures("quick")
def test_how_unfamiliar_a_window_is_reaches_the_page_where_a_table_tells_it_and_no_other(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    assert write_report(command(folder)) == 0
    plain = facts_in(folder / "report.html")
    assert "Unfamiliar" not in plain["columns"] and {len(card["cells"]) for card in plain["cards"]} == {len(COLUMNS)}
    table = folder / "detections.csv"
    first, *rest = table.read_text().splitlines()
    table.write_text("\n".join([f"{first},Unfamiliar", *(f"{line},0.97" for line in rest)]) + "\n")
    assert write_report(command(folder)) == 0
    told = facts_in(folder / "report.html")
    assert told["columns"] == [*COLUMNS, "Unfamiliar"] and {card["cells"][-1] for card in told["cards"]} == {"0.97"}
