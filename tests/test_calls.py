"""The made-up seasons of bench/calls.py: calls where their answers say, what is found, what chance finds; and whales
found at 2 kHz by a network of their own."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from bench.calls import BAT, WHALE, Animal, Call, Heard, figures, sea, ship, whale_call, windows_of, write_season
from config import FinetuneCommand, parse
from main import finetune
from training.checkpoint import load_classifier

pytestmark = pytest.mark.usefixtures("undrawn")
RATE = 2_000
SURE = 1.7  # a logit: a probability of .85
HERTZ = {"fin": (15, 30), "blue": (44, 56), "humpback": (118, 1_000)}  # where most of a call's sound is


def share_within(sound: NDArray[np.float64], rate: int, low: float, high: float) -> float:
    """Of the energy, between two frequencies."""
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
    hertz = np.fft.rfftfreq(len(sound), 1 / rate)
    return float(power[(hertz >= low) & (hertz <= high)].sum() / power.sum())


@pytest.mark.parametrize("kind", WHALE.kinds)
def test_each_whale_calls_in_its_own_band_and_a_ship_in_no_other(kind: str) -> None:
    rng = np.random.default_rng(0)
    shares = [share_within(whale_call(kind, RATE, rng), RATE, *HERTZ[kind]) for _ in range(10)]
    assert min(shares) > (0.6 if kind == "blue" else 0.95), shares
    wrong = next(HERTZ[other] for other in HERTZ if other != kind)
    assert max(share_within(whale_call(kind, RATE, rng), RATE, *wrong) for _ in range(10)) < 0.3


@pytest.mark.parametrize("animal", [BAT, WHALE])
def test_the_calls_of_a_season_are_where_its_answers_say_and_nowhere_else(animal: Animal, tmp_path: Path) -> None:
    answers = write_season(animal, tmp_path, 2, seed=3)
    assert write_season(animal, tmp_path, 2, seed=4) == answers, "what is there is not made again"
    assert len(answers) == 2 * (1 + len(animal.kinds))
    for path, calls in answers.items():
        assert soundfile.info(path).duration == pytest.approx(animal.seconds)
        assert {call.kind for call in calls} == ({path.parent.name} - {"nothing"})
        assert all(0 <= one.start < one.end <= animal.seconds for one in calls)
        assert all(one.end <= other.start + 1e-9 for one, other in pairwise(calls))


def test_a_call_is_found_where_a_window_near_it_is_above_95_of_100_without_one_in_other_recordings() -> None:
    quiet = np.linspace(0, 1, 101).astype(np.float32)
    loud = np.array([0.97, 0.5], np.float32)
    near = [np.array([[0.1, score]], np.float32) for score in (0.97, 0.96, 0.95, 0.5)]
    calls = [Call(kind, 0, 1) for kind in ("b", "a", "b", "b")]
    calling = Heard(2 * quiet, loud, list(zip(calls, near, strict=True)))  # by its own windows it would find nothing
    faint = Heard(quiet, loud[:0], [(Call("b", 0, 1), np.array([[0.1, 0.5]], np.float32))])
    said = figures([calling, faint], ("a", "b"))
    assert (said["calls"], said["recall"], said["windows"]) == (5, 0.4, 204)
    assert said["right kind"] == 0.5 and said["flagged"] == pytest.approx(53 / 202, abs=0.01)
    assert said["chance"] == pytest.approx(said["flagged"])
    assert said["from"] <= said["recall"] <= said["to"]


@pytest.fixture(scope="module")
def whales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of a small season of whales at their rate: a head on an encoder of random weights."""
    folder = tmp_path_factory.mktemp("whales")
    write_season(WHALE, folder, 5, seed=0)
    words = ["--preset", "demo", "--sound", "whale", "--data.root", str(folder / "season"), "--data.layout", "folders"]
    words += ["--data.no_call", str(folder / "nothing"), "--data.no_call_share", "0.3", "--train.frozen"]
    words += ["--data.cache", str(folder / "cache"), "--run.root", str(folder / "runs"), "--data.folds", "5"]
    assert finetune(parse(FinetuneCommand, [*words, "--train.head_updates", "300"])) == 0
    return folder / "runs" / "finetune" / "classifier.safetensors"


def test_whales_are_found_in_their_own_windows_and_not_in_a_ship(whales: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    sound, planted = sea(180 * RATE, RATE, rng), {15.0: "fin", 60.0: "humpback", 105.0: "blue"}
    sound = sound / sound.std() * 2e-3 + ship(len(sound), RATE, rng) * 0.3
    for start, kind in planted.items():
        for offset in {"fin": (1.0, 7.0, 13.0), "humpback": (1.0, 4.0, 8.0, 12.0), "blue": (0.5,)}[kind]:
            call = whale_call(kind, RATE, rng)[: 13 * RATE]
            first = round((start + offset) * RATE)
            sound[first : first + len(call)] += 0.1 * call / np.abs(call).max()
    soundfile.write(tmp_path / "sea.wav", sound, RATE)
    network, facts = load_classifier(whales)
    assert (facts.audio.sample_rate, facts.audio.window_seconds, facts.audio.top_hz) == (RATE, 15, 1_000)
    middles, logits = windows_of(tmp_path / "sea.wav", network, facts.audio)
    scores = {
        middle - 7.5: dict(zip(facts.taxonomy.labels, row, strict=True))
        for middle, row in zip(middles, logits, strict=True)
    }
    starts = [15.0 * number for number in range(12)]
    assert set(starts) < set(scores), "and those half a window later"
    for start, kind in planted.items():
        assert max(starts, key=lambda at: scores[at][kind]) == start, kind
    found = {
        start: max(scores[start], key=scores[start].__getitem__)
        for start in starts
        if max(scores[start].values()) > SURE
    }
    assert found == planted, "all three and nothing in nine windows of sea and ship"
