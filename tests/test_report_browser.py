"""The listening report in a real browser, opened from disk: heard, judged by keys, kept, saved, loaded, compared.

`make test-browser` installs what this needs; without it these tests are skipped and say so.
"""

import csv
import io
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from pretend import SPECIES, pitch, read_rows, write_results, write_table
from test_report import HOSTILE

import report
from config import ReportCommand
from evaluation.fitting import wilson_interval
from report import apply_verdicts, write_report
from serving.detections import DETECTION_COLUMNS as COLUMNS
from serving.review import ADDED, LEAST
from sounds.audio import as_mp3
from sounds.clips import Clip, greys, png

pytest.importorskip("playwright.sync_api", reason="playwright is not installed; make test-browser installs it")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if not CHROMIUM:
    pytest.skip("there is no chromium here; make test-browser installs it where apt exists", allow_module_level=True)

from playwright.sync_api import Browser, Page, Request, sync_playwright  # noqa: E402

Scheme = Literal["light", "dark"]
FLAGS = ["--no-sandbox"]  # tests run as root, and the page is our own
READY = "document.documentElement.dataset.ready === 'true'"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-seven windows, nine of each answer, in the order of confidence within each."""
    found = write_results(tmp_path_factory.mktemp("page"), recordings=3)
    assert write_report(ReportCommand(found)) == 0
    return found


def until(page: Page, condition: str, seconds: float = 30.0) -> None:
    """Wait; Playwright's own waiting evaluates text within the page, which the page's policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(f"Boolean({condition})"):
        assert time.monotonic() < end, f"after {seconds:g} s still not {condition}"
        page.wait_for_timeout(20)


class Seen:
    """A page, and what it asked for and complained about."""

    def __init__(
        self,
        browser: Browser,
        path: Path,
        width: int = 1280,
        scheme: Scheme = "light",
        before: str = "",
    ) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("request", self.ask)
        if before:
            self.page.add_init_script(before)
        self.open(path)

    def ask(self, request: Request) -> None:
        self.asked.append(request.url)

    def open(self, path: Path) -> None:
        self.page.goto(path.resolve().as_uri())
        until(self.page, READY)

    def __enter__(self) -> Page:
        return self.page

    def __exit__(self, *_: object) -> None:
        self.context.close()


@pytest.fixture
def page(browser: Browser, folder: Path) -> Iterator[Page]:
    seen = Seen(browser, folder / "report.html")
    with seen as opened:
        yield opened
    assert seen.complaints == [], "no error, no refusal by the policy, nothing on the console"


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def current(page: Page) -> int:
    found: int = page.evaluate("current.number")
    return found


def judged(page: Page) -> list[str]:
    """The verdicts in the order of the cards, blanks where there is none."""
    found: list[str] = page.evaluate("cards.map(card => review.verdicts[card.key]?.verdict ?? '')")
    return found


def saved(page: Page, path: Path, button: str = "#save") -> list[dict[str, str]]:
    page.click("#files-open")
    with page.expect_download() as download:
        page.click(button)
    assert download.value.suggested_filename == "validation.csv"
    download.value.save_as(path)
    press(page, "Escape")
    return read_rows(path)


def load(page: Page, selector: str, path: Path) -> str:
    page.click("#files-open")
    page.set_input_files(selector, path)
    until(page, "$('files-said').textContent !== ''")
    said = page.text_content("#files-said") or ""
    press(page, "Escape")
    return said


# seen and heard


def test_the_page_opens_from_disk_and_asks_for_nothing_else(browser: Browser, folder: Path) -> None:
    seen = Seen(browser, folder / "report.html")
    with seen as page:
        page.evaluate("cards.forEach(showPicture)")
        press(page, "Space")
        until(page, "!audio.paused && audio.currentTime > current.lead")
        page.wait_for_timeout(200)
    elsewhere = [url for url in seen.asked if not url.startswith("data:")]
    assert elsewhere == [(folder / "report.html").resolve().as_uri()] and seen.complaints == []


def test_the_policy_stops_what_is_not_the_pages_own(browser: Browser, folder: Path, tmp_path: Path) -> None:
    """The control to the test above: were there a foreign script, picture or request, it would be refused."""
    text = (folder / "report.html").read_text()
    foreign = '<script>document.title = "owned"</script><img src="https://example.org/x.png">'
    (tmp_path / "foreign.html").write_text(text.replace('<p class="unseen"', foreign + '<p class="unseen"', 1))
    seen = Seen(browser, tmp_path / "foreign.html")
    with seen as page:
        assert page.evaluate("document.title") != "owned"
        page.evaluate("fetch('https://example.org/').catch(() => 0)")
        page.wait_for_timeout(200)
    refused = [complaint for complaint in seen.complaints if "Content Security Policy" in complaint]
    assert len(refused) >= 3, "the script, the picture, the request"


def test_every_picture_loads_with_its_axis_and_its_window_bracketed(page: Page) -> None:
    page.evaluate("cards.forEach(showPicture)")
    until(page, "cards.every(card => card.node.querySelector('img').naturalWidth > 0)")
    card = page.evaluate("cards.findIndex(card => card.lead === 2 && card.seconds === 9)")
    page.evaluate(f"go(cards[{card}])")
    width, left, right = page.evaluate(
        f"""(() => {{
            const node = cards[{card}].node, box = name => node.querySelector(name).getBoundingClientRect();
            const whole = box('.picture'), window = box('.window');
            return [whole.width, window.left - whole.left, window.right - whole.left];
        }})()"""
    )
    assert left / width == pytest.approx(2 / 9, abs=0.01) and right / width == pytest.approx(7 / 9, abs=0.01)
    axis = page.evaluate(f"[...cards[{card}].node.querySelectorAll('.hertz span')].map(tick => tick.textContent)")
    assert axis == ["8 kHz", "6", "4", "2", "0"]


def test_a_card_tells_what_the_table_knows(page: Page) -> None:
    for card, name, chip in ((0, "pretend frog", ""), (9, "Strix", "answered as a genus"), (18, "pretend tit", "")):
        cells = {name: page.evaluate(f"cards[{card}].cell({json.dumps(name)})") for name in COLUMNS}
        text = page.text_content(f"#card{card}") or ""
        assert page.text_content(f"#card{card} .common") == name and page.text_content(f"#card{card} .rank") == chip
        assert chip in text and f"{float(cells['Confidence']):.2f}" in text
        second, third = cells["Runners up"].split(", ")
        known = {code: common or scientific for code, scientific, common in SPECIES}
        code, _, share = second.rpartition(" ")
        assert f"2nd guess {known[code]} {share} · 3rd guess {third}" in text, "by its name where that is known"
        assert cells["Site"] in text and cells["Detected at"].replace("T", " ") in text and "dBFS" in text
        start = float(cells["Start (s)"])
        assert f"{Path(cells['File']).name} at 0:{start:04.1f}" in text
        assert page.evaluate(f"cards[{card}].node.querySelector('.file').title") == cells["File"]


def test_the_header_tells_what_was_done(page: Page) -> None:
    pairs = "[...$('figures').children].map(pair => [...pair.children].map(node => node.textContent))"
    figures: dict[str, str] = page.evaluate(f"Object.fromEntries({pairs})")
    assert figures == {
        "detections": "27",
        "species": "3",
        "hours analysed": "0.0",
        "recordings": "4",
        "sites": "2",
        "damaged": "1",
        "to listen to": "27",
    }
    assert "notes.wav" in (page.text_content("#damaged") or "") and "is text" in (page.text_content("#damaged") or "")
    assert "even, seed 0, at most 60 per species" in (page.text_content("#settings") or "")
    assert page.evaluate("[...$('bars').children].map(row => row.innerText.split('\\n').at(-1))") == ["9", "9", "9"]


def test_space_plays_from_the_window_and_the_playhead_follows_the_sound(page: Page) -> None:
    card = page.evaluate("cards.findIndex(card => card.lead === 2 && card.seconds === 9)")
    page.evaluate(f"go(cards[{card}])")
    press(page, "Space")
    until(page, "audio.currentTime > 2.3")
    assert page.evaluate("Math.abs(audio.duration - 9) < 0.06 && !audio.paused && audio.currentTime < 8.9")
    share = page.evaluate(
        f"parseFloat(cards[{card}].node.querySelector('.head').style.left) / 100 - audio.currentTime / 9"
    )
    assert abs(share) < 0.05 and page.is_visible(f"#card{card} .head")
    assert "Pause" in (page.text_content(f"#card{card} .play") or "")
    press(page, "Space")
    until(page, "audio.paused")
    at = page.evaluate("audio.currentTime")
    press(page, "Space")
    until(page, f"!audio.paused && audio.currentTime > {at}")
    press(page, "r")
    until(page, "audio.currentTime < 1.5")


def test_the_sound_that_plays_is_that_of_the_window(page: Page) -> None:
    """Decoded by the browser itself: the beep is as high as its species, wherever the card stands."""
    for card, hertz in ((0, pitch(0)), (9, pitch(2)), (18, pitch(1))):
        found = page.evaluate(
            f"""(async () => {{
                const bytes = Uint8Array.from(atob(clipOf(cards[{card}])[1]), sign => sign.charCodeAt(0));
                const sound = await new OfflineAudioContext(1, 1, 16000).decodeAudioData(bytes.buffer);
                const all = sound.getChannelData(0), {{ lead }} = cards[{card}];
                const samples = all.slice(lead * 16000, (lead + 5) * 16000);
                let best = 0, start = 0;
                for (let place = 0; place + 8000 < samples.length; place += 800) {{
                    const power = samples.slice(place, place + 8000).reduce((sum, x) => sum + x * x, 0);
                    if (power > best) [best, start] = [power, place];
                }}
                let crossings = 0;
                for (let place = start; place < start + 8000; place += 1) {{
                    if (samples[place] < 0 && samples[place + 1] >= 0) crossings += 1;
                }}
                return crossings * 2;
            }})()"""
        )
        assert 0.85 * hertz < found < 1.15 * hertz


def test_a_click_into_the_picture_plays_from_there(page: Page) -> None:
    card = page.evaluate("cards.findIndex(card => card.seconds === 9)")
    page.evaluate(f"go(cards[{card}])")
    width = page.evaluate(f"cards[{card}].node.querySelector('.picture').clientWidth")
    page.click(f"#card{card} .picture", position={"x": width * 5 / 9, "y": 40})
    until(page, "audio.currentTime > 5.05 && audio.currentTime < 6.5")


def test_half_speed_and_loop_are_a_key_each(page: Page) -> None:
    press(page, "s", "l", "Space")
    assert page.evaluate("[audio.playbackRate, audio.preservesPitch]") == [0.5, False]
    press(page, "s")
    end = page.evaluate("current.lead + 5")
    page.evaluate(f"audio.currentTime = {end} - 0.2")
    until(page, f"audio.currentTime < {end} - 1 && !audio.paused")
    assert page.evaluate("audio.playbackRate") == 1


# judged


def test_every_verdict_is_a_key_and_goes_on_to_the_next(page: Page) -> None:
    press(page, "y", "n", "u")
    assert judged(page)[:4] == ["yes", "no", "unsure", ""] and current(page) == 3
    until(page, "playing_?.number === 3 && !audio.paused")
    press(page, "c")
    page.keyboard.type("pretend tit")
    press(page, "Enter")
    assert page.evaluate("review.verdicts[cards[3].key].species") == "pretend tit" and judged(page)[3] == "no"
    assert "it is pretend tit" in (page.text_content("#card3 .stamp") or "")
    press(page, "c")
    page.click("#correct-nothing")
    assert page.evaluate("review.verdicts[cards[4].key].species") == "nothing"
    assert "5 of 27 judged" in (page.text_content("#judged") or "")
    assert "5 of 27 judged" in (page.text_content("#said") or ""), "a screen reader is told"


def test_every_verdict_is_a_button_too(page: Page) -> None:
    for number, verdict in enumerate(("yes", "no", "unsure")):
        page.click(f'#card{number} [data-verdict="{verdict}"]')
    page.click("#card3 .other")
    page.fill("#correct-name", "pretend frog")
    page.click("#correct-form [type=submit]")
    assert judged(page)[:5] == ["yes", "no", "unsure", "no", ""]
    page.click("#undo")
    assert judged(page)[3] == ""


def test_a_verdict_shows_by_more_than_its_colour(page: Page) -> None:
    press(page, "y", "n", "u")
    stamps = [page.text_content(f"#card{number} .stamp") for number in range(4)]
    assert stamps == ["✓ Yes", "✗ No", "? Unsure", ""]
    pressed = page.evaluate("[...cards[1].node.querySelectorAll('[data-verdict]')].map(b => b.ariaPressed)")
    assert pressed == ["false", "true", "false"]


def test_undo_takes_back_one_verdict_after_the_other(page: Page) -> None:
    press(page, "y", "n", "k", "k", "u")
    assert judged(page)[:2] == ["unsure", "no"]
    press(page, "z")
    assert judged(page)[:2] == ["yes", "no"] and current(page) == 0
    press(page, "z", "z", "z")
    assert not any(judged(page)) and page.evaluate("$('undo').disabled")


def test_keys_move_between_cards_and_the_focus_is_never_lost(page: Page) -> None:
    press(page, "j", "ArrowRight", "k", "ArrowLeft", "ArrowLeft", "j")
    assert current(page) == 1
    for keys in (("y",), ("n", "z"), ("c", "Escape"), ("?", "Escape"), ("j",), ("/", "Escape")):
        press(page, *keys)
        assert page.evaluate("document.activeElement === current.node"), keys


def test_keys_typed_into_a_field_are_text(page: Page) -> None:
    press(page, "/")
    page.keyboard.type("yn uz")
    assert page.evaluate("$('f-text').value") == "yn uz" and not any(judged(page))


def test_space_on_a_button_presses_it(page: Page) -> None:
    page.evaluate("cards[0].node.querySelector('[data-verdict=no]').focus()")
    press(page, "Space")
    assert judged(page)[0] == "no" and page.evaluate("playing_ && playing_.number !== 0")


# filtered and sorted


def shown(page: Page) -> list[int]:
    found: list[int] = page.evaluate(
        "[...document.querySelectorAll('.card')].filter(node => !node.hidden).map(node => Number(node.id.slice(4)))"
    )
    return found


def test_filters_show_what_they_say(page: Page) -> None:
    assert shown(page) == list(range(27))
    page.select_option("#f-species", "greti")
    assert shown(page) == list(range(18, 27)) and current(page) == 18
    page.fill("#f-low", "0.5")
    assert all(page.evaluate("order.map(card => card.confidence >= 0.5)")) and 0 < len(shown(page)) < 9
    page.click("#clear")
    assert len(shown(page)) == 27
    page.fill("#f-text", "site b")
    assert {page.evaluate(f"cards[{number}].cell('Site')") for number in shown(page)} == {"site B"}
    press(page, "Escape", "y")
    assert page.evaluate("[$('f-text').value, order.length]") == ["site b", 9], "Escape clears nothing"
    page.fill("#f-text", "no such thing")
    assert shown(page) == [] and page.is_visible("#nothing")


def test_what_is_judged_leaves_the_unjudged_and_the_next_one_is_at_hand(page: Page) -> None:
    page.select_option("#f-verdict", "open")
    page.evaluate("go(cards[0])")
    press(page, "y", "n")
    assert shown(page) == list(range(2, 27)) and current(page) == 2
    assert page.evaluate("document.activeElement === current.node")
    page.select_option("#f-verdict", "no")
    assert shown(page) == [1]
    press(page, "Escape", "z")
    assert current(page) == 1 and page.is_visible("#card1"), "what was taken back is shown, whatever the filter says"


def test_orders_are_as_they_are_called(page: Page) -> None:
    for order, key in (("high", "-card.confidence"), ("low", "card.confidence"), ("file", "card.cell('File')")):
        page.select_option("#f-sort", order)
        found = page.evaluate(f"order.map(card => {key})")
        assert found == sorted(found) and shown(page) == page.evaluate("order.map(card => card.number)")
    page.select_option("#f-sort", "time")
    assert page.evaluate("order.map(card => card.cell('Detected at'))") == sorted(
        page.evaluate("cards.map(card => card.cell('Detected at'))")
    )
    page.select_option("#f-sort", "species")
    assert shown(page) == list(range(27))


def test_a_species_in_the_list_filters_and_colours_the_hours(page: Page) -> None:
    total = "[...document.querySelectorAll('#heat .call')].reduce((sum, box) => sum + Number(box.dataset.count), 0)"
    assert page.evaluate(total) == 27
    page.click("#species li:nth-child(2) button")
    assert shown(page) == list(range(9, 18)) and page.evaluate(total) == 9
    assert page.text_content("#heat-title") == "Hour by day: Strix"
    assert page.evaluate("document.querySelector('#heat svg').ariaLabel").startswith("Detections by hour and day")


# numbers


def test_a_species_that_nobody_validated_is_marked_on_its_cards_and_in_the_lists(
    browser: Browser, tmp_path: Path
) -> None:
    found = write_results(tmp_path, 1, 9)
    cells = read_rows(found / "detections.csv")
    marks = dict(zip(dict.fromkeys(row["Species code"] for row in cells), ("never", "too few", "yes"), strict=True))
    write_table(found / "detections.csv", COLUMNS, [row | {"Validated": marks[row["Species code"]]} for row in cells])
    assert write_report(ReportCommand(found)) == 0
    seen = Seen(browser, found / "report.html")
    words = {"never": "never validated", "too few": "hardly validated", "yes": ""}
    for number in range(9):
        told = seen.page.evaluate(f"cards[{number}].cell('Validated')")
        mark = f"document.querySelector('#card{number} .doubt')"
        assert seen.page.evaluate(f"{mark}.textContent") == words[told]
        assert seen.page.evaluate(f"{mark}.hidden") == (told == "yes")
    assert (seen.page.text_content("#bars") or "").count("validated") == 2
    assert (seen.page.text_content("#species") or "").count("validated") == 2
    assert (seen.page.text_content("#doubts") or "").startswith("2 of these species")
    assert seen.page.evaluate("lowestThreshold(Array(20).fill([0.9, false]), 0.9).note") == "never right: silenced"
    assert seen.page.evaluate("lowestThreshold(Array(19).fill([0.9, false]), 0.9).note") == "too few to say, 1 more"
    assert not seen.complaints


def test_wilsons_interval_is_that_of_calibration(page: Page) -> None:
    for hits, trials in ((0, 0), (0, 7), (3, 7), (7, 7), (54, 60)):
        low, high = page.evaluate(f"wilson({hits}, {trials})")
        assert (low, high) == pytest.approx(wilson_interval(hits, trials, 0.95), abs=1e-6)


def test_the_lowest_threshold_can_be_counted_by_hand(page: Page) -> None:
    """Nineteen right from 0.10 to 0.28, one wrong at 0.05 and one at 0.30: 19 of 20 are right from 0.10 on."""
    right = [[0.1 + n / 100, True] for n in range(19)]
    scored = json.dumps([*right, [0.05, False], [0.30, False]])
    assert page.evaluate(f"lowestThreshold({scored}, 0.95)") == {"from": 0.1}
    assert page.evaluate(f"lowestThreshold({scored}, 0.9)") == {"from": 0.05}, "19 of 21 are .905"
    assert page.evaluate(f"lowestThreshold({scored}, 0.96)") == {"note": "never that precise"}
    assert "too few to say, 1 more" in page.evaluate(f"lowestThreshold({scored}.slice(2), 0.9)")["note"]
    assert "yes alone" in page.evaluate(f"lowestThreshold({json.dumps([[0.5, True]] * 30)}, 0.9)")["note"]
    assert page.evaluate("LEAST") == LEAST, "the page and --apply ask for as many"
    assert page.evaluate(f"lowestThreshold({json.dumps([[0.5, True], [0.5, False]] * 20)}, 0.5)") == {"from": 0.5}


def test_kappa_is_that_of_the_textbook(page: Page) -> None:
    """Cohen 1960's form: 20 and 15 alike of 50, 5 and 10 not: agreement .7, by chance .5, kappa .4."""
    pairs = [["yes", "yes"]] * 20 + [["no", "no"]] * 15 + [["yes", "no"]] * 5 + [["no", "yes"]] * 10
    found = page.evaluate(f"kappa({json.dumps(pairs)})")
    assert found == {"n": 50, "agreement": pytest.approx(0.7), "kappa": pytest.approx(0.4)}
    assert page.evaluate("kappa([['yes', 'yes']]).kappa") == 1 and page.evaluate("kappa([]).kappa") is None


def test_precision_is_told_while_one_judges(page: Page) -> None:
    press(page, *"yyyn")
    told = page.text_content("#species li:nth-child(1)") or ""
    assert "4/9" in told and "75 % right [95 %: 30 to 95]" in told and "too few to say, 16 more" in told


def test_a_threshold_is_told_from_twenty_verdicts_on(browser: Browser, tmp_path: Path) -> None:
    found = write_results(tmp_path, recordings=4, windows=6, species=SPECIES[:1])
    write_report(ReportCommand(found))
    with Seen(browser, found / "report.html") as page:
        press(page, *("y" * 19))
        assert "too few to say, 1 more" in (page.text_content("#species") or "")
        press(page, "n")
        lowest = page.evaluate("cards[19].confidence.toFixed(2)")
        assert f"90 % from {lowest}" in (page.text_content("#species") or ""), "19 of 20 are right there"
        page.fill("#wanted", "0.96")
        assert f"96 % from {page.evaluate('cards[18].confidence.toFixed(2)')}" in (page.text_content("#species") or "")


# kept, saved, loaded, compared


def test_verdicts_are_there_again_after_a_reload(page: Page) -> None:
    press(page, "y", "n", "u")
    page.click("#files-open")
    page.fill("#reviewer", "Ada")
    page.reload()
    until(page, READY)
    assert judged(page)[:4] == ["yes", "no", "unsure", ""] and page.evaluate("review.reviewer") == "Ada"
    assert current(page) == 3, "the first that is not judged yet"


def test_verdicts_are_saved_as_a_table_and_loaded_again(browser: Browser, folder: Path, tmp_path: Path) -> None:
    with Seen(browser, folder / "report.html") as page:
        press(page, "y", "n", "u", "c")
        page.keyboard.type("owl, great")
        press(page, "Enter")
        page.click("#files-open")
        page.fill("#reviewer", "Ada")
        press(page, "Escape")
        rows = saved(page, tmp_path / "validation.csv")
        plain = saved(page, tmp_path / "plain.csv", "#save-plain")
    assert list(rows[0]) == [*COLUMNS, *ADDED]
    assert [(r["validation"], r["Verdict"], r["True species"], r["Reviewer"]) for r in rows] == [
        ("1", "yes", "", "Ada"),
        ("0", "no", "", "Ada"),
        ("", "unsure", "", "Ada"),
        ("0", "no", "owl, great", "Ada"),
    ]
    assert [row["validation"] for row in plain] == ["1", "0", "0"], "what R takes"
    detected = [tuple(row[name] for name in COLUMNS) for row in read_rows(folder / "detections.csv")]
    assert all(tuple(row[name] for name in COLUMNS) in detected for row in rows)
    with Seen(browser, folder / "report.html") as page:
        assert not any(judged(page)), "another browser knows nothing"
        assert load(page, "#load", tmp_path / "validation.csv") == "4 verdicts loaded"
        assert judged(page)[:5] == ["yes", "no", "unsure", "no", ""] and page.evaluate("review.reviewer") == "Ada"
        assert page.evaluate("review.verdicts[cards[3].key].species") == "owl, great"
        press(page, "z")
        assert not any(judged(page)), "loading is one step, and can be taken back"


def test_two_reviewers_are_compared(browser: Browser, folder: Path, tmp_path: Path) -> None:
    for name, keys in (("Ada", "yyyynnnnyy"), ("Ben", "yyynnnnyyy")):
        with Seen(browser, folder / "report.html") as page:
            press(page, *keys)
            page.click("#files-open")
            page.fill("#reviewer", name)
            press(page, "Escape")
            saved(page, tmp_path / f"{name}.csv")
    with Seen(browser, folder / "report.html") as page:
        load(page, "#load", tmp_path / "Ada.csv")
        assert load(page, "#compare", tmp_path / "Ben.csv") == "10 verdicts of Ben to compare with"
        told = page.text_content("#agreement") or ""
        assert told == "Ben: 10 judged by both, 80 % alike, Cohen's kappa 0.58"  # by chance .6 x .6 + .4 x .4 = .52
        assert "Ben: ✗ No" in (page.text_content("#card3 .others") or "")
        page.select_option("#f-verdict", "disagree")
        assert shown(page) == [3, 7]


def test_a_file_of_other_results_is_said_to_be_one(page: Page, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text(",".join([*COLUMNS, *ADDED]) + "\n" + ",".join(["1"] * 18 + ["x"] * 3) + "\n")
    assert load(page, "#load", tmp_path / "other.csv") == "No verdict in other.csv is of a window in this page."
    (tmp_path / "empty.csv").write_text("")
    assert "No verdict" in load(page, "#load", tmp_path / "empty.csv")


def test_a_browser_that_keeps_nothing_is_said_to_be_one(browser: Browser, folder: Path) -> None:
    broken = "Object.defineProperty(window, 'localStorage', { get() { throw new Error('no'); } });"
    with Seen(browser, folder / "report.html", before=broken) as page:
        press(page, "y")
        assert page.is_visible("#unkept") and judged(page)[0] == "yes"
    with Seen(browser, folder / "report.html") as page:
        assert not page.is_visible("#unkept")


def test_the_loop_closes_from_keys_to_thresholds_and_training_data(browser: Browser, tmp_path: Path) -> None:
    """predictor's table -> page -> keys -> validation.csv -> thresholds.csv and recordings.csv."""
    found = write_results(tmp_path, recordings=4, windows=12, species=SPECIES[:2])
    write_report(ReportCommand(found))
    with Seen(browser, found / "report.html") as page:
        for _ in range(48):
            press(page, "y" if page.evaluate("current.confidence > 0.5") else "n")
        assert all(judged(page))
        rows = saved(page, tmp_path / "validation.csv")
    assert len(rows) == 48
    assert apply_verdicts(ReportCommand(found, apply=(tmp_path / "validation.csv",))) == 0
    thresholds = {row["label"]: row for row in read_rows(found / "review" / "thresholds.csv")}
    assert set(thresholds) == {"9000117", "greti"} and {row["model"] for row in thresholds.values()} == {"ab" * 32}
    assert all(0.4 < float(row["threshold"]) < 0.55 for row in thresholds.values())
    table = read_rows(found / "review" / "recordings.csv")
    assert sum(row["listened"] == "yes" for row in table) == sum(row["Verdict"] == "no" for row in rows)


# hostile, hidden, beside, many


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text_and_come_back_unharmed(browser: Browser, tmp_path: Path, name: str) -> None:
    species = [(f"{code}{name}", f"{scientific}{name}", f"{name}{code}") for code, scientific, _ in SPECIES]
    file = f"card/{name.replace('/', '_')}.wav"
    found = write_results(tmp_path, 1, 3, species, [file], {"Site": name, "Runners up": f"{name} 0.3"})
    write_report(ReportCommand(found, title=name))
    seen = Seen(browser, found / "report.html")
    with seen as page:
        assert page.evaluate("document.title") == " ".join(name.split()), "a title is one line"
        assert page.evaluate("$('title').textContent") == name
        assert page.evaluate("cards[0].node.querySelector('.common').textContent").startswith(name)
        assert page.evaluate("document.images.length === cards.length && document.scripts.length === cards.length + 2")
        press(page, "y", "c")
        page.fill("#correct-name", name.replace("\n", " "))
        press(page, "Enter")
        page.click("#files-open")
        page.fill("#reviewer", name.replace("\n", " "))
        press(page, "Escape")
        rows = saved(page, tmp_path / "validation.csv")
        assert load(page, "#compare", tmp_path / "validation.csv").startswith("2 verdicts of")
    assert seen.complaints == []
    for row in rows:
        assert not any(cell.startswith(("=", "+", "@")) for cell in row.values())
    assert rows[0]["File"] == file and rows[0]["Site"] in (name, f"'{name}")
    assert apply_verdicts(ReportCommand(found, apply=(tmp_path / "validation.csv",))) == 0


def test_hidden_recordings_are_numbers_and_their_verdicts_are_loaded_again(browser: Browser, tmp_path: Path) -> None:
    found = write_results(tmp_path)
    write_report(ReportCommand(found, hide_paths=True))
    with Seen(browser, found / "report.html") as page:
        assert (page.text_content("#card0 .file") or "").startswith("recording ")
        press(page, "y")
        rows = saved(page, tmp_path / "validation.csv")
    assert rows[0]["File"].startswith("recording ") and rows[0]["Site"].startswith("site ")
    with Seen(browser, found / "report.html") as page:
        assert load(page, "#load", tmp_path / "validation.csv") == "1 verdicts loaded"


def test_clips_beside_the_page_are_seen_and_heard(browser: Browser, tmp_path: Path) -> None:
    found = write_results(tmp_path, names=["card/50 % of #1?.wav", "card/ü & ñ.wav"])
    write_report(ReportCommand(found, clips_dir=found / "clips & more"))
    seen = Seen(browser, found / "report.html")
    with seen as page:
        page.evaluate("cards.forEach(showPicture)")
        until(page, "cards.every(card => card.node.querySelector('img').naturalWidth > 0)")
        press(page, "Space")
        until(page, "audio.currentTime > 2.1 || audio.currentTime > current.lead + 0.1")
    assert seen.complaints == []


def test_a_card_without_sound_says_why_and_can_be_judged(browser: Browser, tmp_path: Path) -> None:
    found = write_results(tmp_path)
    next((tmp_path / "card" / "site_A").glob("*")).unlink()
    assert write_report(ReportCommand(found)) == 2
    with Seen(browser, found / "report.html") as page:
        silent = page.evaluate("cards.findIndex(card => card.seconds === undefined)")
        assert "--audio says where it is" in (page.text_content(f"#card{silent} .silent") or "")
        page.evaluate(f"go(cards[{silent}])")
        press(page, "Space", "u")
        assert judged(page)[silent] == "unsure"


def many(root: Path, windows: int) -> Path:
    """A table of so many windows of a few recordings."""
    folder = write_results(root, recordings=2, windows=6)
    rows = read_rows(folder / "detections.csv")
    rng = np.random.default_rng(0)
    found: list[dict[str, str]] = []
    for number in range(windows):
        start, confidence = 0.02 * number, rng.random()
        times = {"Start (s)": f"{start:g}", "End (s)": f"{start + 5:g}", "Confidence": f"{confidence:.4f}"}
        found.append(rows[number % len(rows)] | times)
    write_table(folder / "detections.csv", COLUMNS, found)
    return folder


@pytest.mark.parametrize("beside", [False, True])
def test_a_thousand_detections_open_within_seconds(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    """Clips as large as real ones, and no two alike; what is measured is the page."""
    rng = np.random.default_rng(0)
    sound = as_mp3(rng.normal(0, 0.1, 9 * 24_000).astype(np.float32), 24_000)

    def cut(*_: object) -> Clip:
        return Clip(png(greys(rng.normal(0, 8, (128, 562)))), sound, 2.0, 9.0, 12_000, -20.0)

    monkeypatch.setattr(report, "cut_clip", cut)
    found = many(tmp_path, 1_000)
    config = ReportCommand(found, strategy="all", max_clips=1_000, clips_dir=found / "clips" if beside else None)
    monkeypatch.setattr(report, "EMBEDDED", 1_000)
    write_report(config)
    size = (found / "report.html").stat().st_size / 1e6
    started = time.perf_counter()
    with Seen(browser, found / "report.html") as page:
        opened = time.perf_counter() - started
        started = time.perf_counter()
        press(page, "y")
        until(page, "current.number === 1")
        judging = time.perf_counter() - started
        started = time.perf_counter()
        page.select_option("#f-sort", "high")
        sorting = time.perf_counter() - started
        assert len(shown(page)) == 1_000
        assert page.evaluate("cards.filter(card => card.node.querySelector('img').src).length") < 100, "seen, not all"
    print(f"1,000 windows: {size:.1f} MB, {opened:.2f} s to open, {judging:.2f} s a verdict, {sorting:.2f} s to sort")
    assert (size < 2) if beside else (20 < size < 120)
    assert opened < 20 and judging < 2 and sorting < 5


# for everybody


@pytest.mark.parametrize("width", [360, 768, 1280, 1920])
def test_nothing_is_cut_off_at_any_width(browser: Browser, folder: Path, width: int) -> None:
    with Seen(browser, folder / "report.html", width) as page:
        press(page, "y")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        outside = page.evaluate(
            """[...document.querySelectorAll('button, select, input, h3, .picture')]
                .filter(node => node.checkVisibility() && !node.closest('dialog'))
                .map(node => node.getBoundingClientRect())
                .filter(box => box.left < -0.5 || box.right > innerWidth + 0.5).length"""
        )
        assert outside == 0
        small = page.evaluate(
            """[...document.querySelectorAll('.buttons button, .bench button')].map(node => node.offsetHeight)"""
        )
        assert min(small) >= 32


CONTRAST = """() => {
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const rgb = colour => {
        canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
    };
    const linear = x => x / 255 <= 0.03928 ? x / 255 / 12.92 : ((x / 255 + 0.055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const behind = node => {
        const colour = node ? rgb(getComputedStyle(node).backgroundColor) : [255, 255, 255, 1];
        return colour[3] > 0.9 ? colour : behind(node.parentElement);
    };
    const found = [], left_out = 'script, style, template, option, .unseen, :disabled';
    for (const node of document.querySelectorAll('body *')) {
        const text = [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim());
        if (!text || !node.checkVisibility() || node.closest(left_out)) continue;
        const style = getComputedStyle(node), front = node instanceof SVGElement ? style.fill : style.color;
        const [one, other] = [light(rgb(front)), light(behind(node))].sort((a, b) => b - a);
        const ratio = (one + 0.05) / (other + 0.05);
        if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${node.outerHTML.slice(0, 80)}`);
    }
    return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_a_contrast_of_four_and_a_half(browser: Browser, folder: Path, scheme: Scheme) -> None:
    with Seen(browser, folder / "report.html", scheme=scheme) as page:
        page.evaluate("$('auto').checked = false")
        press(page, "y", "n", "u", "j")
        for dialog in ("", "help", "files", "correct"):
            if dialog:
                page.evaluate(f"$('{dialog}').showModal()")
            assert page.evaluate(CONTRAST) == []
            if dialog:
                page.evaluate(f"$('{dialog}').close()")
        page.evaluate("document.documentElement.style.setProperty('--soft', 'light-dark(#999, #555)')")
        assert page.evaluate(CONTRAST) != [], "a paler grey would be seen"


def test_the_theme_can_be_chosen_and_stays(page: Page) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.click("#theme")
    page.click("#theme")
    dark = page.evaluate(ground)
    assert dark != light and page.evaluate("getComputedStyle(cards[0].node.querySelector('img')).filter") == "invert(1)"
    page.reload()
    until(page, READY)
    assert page.evaluate(ground) == dark and page.text_content("#theme") == "Theme: dark"


def test_everything_that_can_be_pressed_has_a_name_and_every_picture_a_text(page: Page) -> None:
    nameless = page.evaluate(
        """[...document.querySelectorAll('button, input, select, [role=img], [role=progressbar]')]
            .filter(node => !node.textContent.trim() && !node.ariaLabel && !node.labels?.length)
            .map(node => node.outerHTML)"""
    )
    assert nameless == []
    assert all(text.startswith("Spectrogram of ") for text in page.evaluate("[...document.images].map(i => i.alt)"))
    assert page.evaluate("document.querySelectorAll('main').length") == 1


def test_the_printed_page_has_all_pictures_and_no_buttons(page: Page) -> None:
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    until(page, "cards.every(card => card.node.querySelector('img').naturalWidth > 0)")
    assert not page.is_visible("#card0 .buttons") and not page.is_visible("#files-open")
    assert page.is_visible("#card26 .common")


def test_tables_with_every_sign_are_parsed_as_python_writes_them(page: Page) -> None:
    rows: Sequence[dict[str, str]] = [
        {"a": 'quote " and , comma', "b": "new\nline"},
        {"a": "", "b": " blank "},
        {"a": "ü\u202e", "b": '""'},
    ]
    for ending in ("\n", "\r\n"):
        file = io.StringIO()
        table = csv.DictWriter(file, ["a", "b"], lineterminator=ending)
        table.writeheader()
        table.writerows(rows)
        found: list[dict[str, str]] = page.evaluate("text => parseCsv(text)", "\ufeff" + file.getvalue())
        assert found == list(rows)


def test_no_verdict_is_lost_between_two_tabs(browser: Browser, folder: Path) -> None:
    seen = Seen(browser, folder / "report.html")
    with seen as page:
        other = seen.context.new_page()
        other.goto((folder / "report.html").resolve().as_uri())
        until(other, READY)
        press(page, "y")
        until(other, "review.verdicts[cards[0].key]?.verdict === 'yes'")


def test_pages_of_other_results_keep_their_own_verdicts(browser: Browser, folder: Path, tmp_path: Path) -> None:
    other = write_results(tmp_path, windows=6)
    write_report(ReportCommand(other))
    seen = Seen(browser, folder / "report.html")
    with seen as page:
        press(page, "y")
        seen.open(other / "report.html")
        assert not any(judged(page))
        seen.open(folder / "report.html")
        assert judged(page)[0] == "yes"
