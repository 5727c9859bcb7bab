"""Voices are found where they are, at any rate and however sound is cut; what is muted holds none."""

import runtime.privacy  # noqa: F401  # pyright: ignore[reportUnusedImport] - before the engines

import math
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
from pretend_voices import not_installed, sound, write_package, write_sound

from runtime.guard import FOREIGN, OPERATORS, check_graph
from sounds import voices
from sounds.audio import open_recording
from sounds.decoders import Lost
from sounds.negatives import KINDS, negative
from sounds.voices import (
    AROUND_SECONDS,
    FADE_SECONDS,
    FRAME,
    RATE,
    Detector,
    VoiceFinder,
    detector_file,
    muted,
    open_detector,
    outside,
    searched,
    seconds_in,
)

HERE = Path(__file__).parents[2]
STEP = FRAME / RATE
SPEAKER = shutil.which("espeak-ng")
INSTALLED = find_spec("silero_vad")
real = pytest.mark.skipif(INSTALLED is None, reason="no Silero: pip install --no-deps -r requirements-voices.txt")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a pretend package, which is found before the real one."""
    folder = tmp_path_factory.mktemp("package")
    write_package(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder


@pytest.fixture(scope="module")
def detector(package: Path) -> Detector:
    assert detector_file().is_relative_to(package)
    return open_detector(detector_file())


@pytest.fixture(scope="module")
def finder(package: Path) -> Iterator[VoiceFinder]:
    with VoiceFinder() as found:
        assert found.path.is_relative_to(package)
        yield found


@pytest.fixture(scope="module")
def silero() -> Detector:
    """The real one."""
    assert INSTALLED and INSTALLED.submodule_search_locations
    return open_detector(Path(INSTALLED.submodule_search_locations[0]) / "data" / voices.FILE)


def segments(*probabilities: float) -> list[tuple[float, float]]:
    """Where somebody speaks, by the probabilities of frames in two answers."""
    answer = np.array(probabilities, np.float32)
    return [segment for _, known in searched([answer[:7], answer[7:]]) for segment in known]


# --- where somebody speaks


@pytest.mark.parametrize("rate", [8_000, 16_000, 96_000])
def test_speech_is_found_at_any_rate_and_a_beep_is_none(rate: int, finder: VoiceFinder, tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", 12, [(4, 6), (9, 10)], [(1, 2), (7.5, 8)], rate)
    due = [(4 - AROUND_SECONDS, 6 + AROUND_SECONDS), (9 - AROUND_SECONDS, 10 + AROUND_SECONDS)]
    np.testing.assert_allclose(finder.find(path), due, atol=2 * STEP)
    assert finder.find(write_sound(tmp_path / "b.wav", 12, [], [(1, 2), (7.5, 8)], rate)) == ()


def test_each_channel_is_searched_by_itself_and_their_mean_too(finder: VoiceFinder, tmp_path: Path) -> None:
    path = tmp_path / "two.wav"
    soundfile.write(path, np.stack([sound(6), sound(6, [(2, 4)])], axis=1), RATE, "FLOAT")
    found = [finder.find(path, channel) for channel in (0, 1, 2)]
    assert [len(one) for one in found] == [1, 0, 1]


def test_what_is_no_recording_holds_no_voice(finder: VoiceFinder, tmp_path: Path) -> None:
    (tmp_path / "notes.wav").write_text("The owl called twice, then it rained and I went home.\n")
    assert finder.find(tmp_path / "notes.wav") == finder.find(tmp_path / "gone.wav") == ()


def test_what_could_not_be_searched_counts_as_speech_to_its_end(
    finder: VoiceFinder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> Iterator[tuple[bool, bytes]]:
        yield False, b"[16.0, [[1.0, 2.0]]]"
        raise Lost("its decoder died (SIGSEGV)")

    monkeypatch.setattr(finder.decoder, "answer", dies)
    assert finder.find(tmp_path / "a.wav") == ((1.0, 2.0), (16.0, math.inf))


def test_speech_that_goes_on_when_the_decoder_dies_is_not_lost(
    finder: VoiceFinder, detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def died(*talks: tuple[float, float]) -> tuple[tuple[float, float], ...]:
        """What is found where the decoder dies after 48 s, three answers."""
        path = write_sound(tmp_path / "long.wav", 50, talks)
        told = list(voices.speech_messages(str(path), 0, str(detector.path)))

        def dies(*_: object) -> Iterator[tuple[bool, bytes]]:
            yield from told[:3]
            raise Lost("its decoder died (SIGSEGV)")

        monkeypatch.setattr(finder.decoder, "answer", dies)
        return finder.find(path)

    (found,) = died((0.0, 50.0))
    assert found == (0.0, math.inf)  # nothing of 48 s of speech may be left
    before, after = died((10.0, 11.0), (30.0, 50.0))
    np.testing.assert_allclose(before, (10 - AROUND_SECONDS, 11 + AROUND_SECONDS), atol=2 * STEP)
    assert after[0] == pytest.approx(30 - AROUND_SECONDS, abs=2 * STEP) and math.isinf(after[1])
    (still,) = died()  # control: nobody was speaking
    assert still == (48.0, math.inf)


def test_a_segment_begins_when_sure_and_goes_on_when_less_sure() -> None:
    low = [0.4] * 20
    ((start, end),) = segments(*[0.0] * 20, *[0.9] * 5, *low, *[0.0] * 40)
    np.testing.assert_allclose((start, end), (20 * STEP - AROUND_SECONDS, 45 * STEP + AROUND_SECONDS))
    assert segments(*[0.0] * 20, *low, *[0.0] * 40) == []


def test_pauses_are_speech_and_a_blink_is_none() -> None:
    assert len(segments(*[0.9] * 10, *[0.0] * 15, *[0.9] * 10)) == 1
    assert len(segments(*[0.9] * 10, *[0.0] * 17, *[0.9] * 10)) == 2
    assert segments(*[0.9] * 7) == [] and segments(*[0.9] * 8) == [(0.0, 8 * STEP + AROUND_SECONDS)]


@pytest.mark.parametrize("cuts", [[1], [511, 512, 513], [16_000, 32_000], [250_000, 256_000, 256_001]])
def test_however_sound_is_cut_each_frame_gets_the_same_answer(cuts: list[int], detector: Detector) -> None:
    samples = sound(20, [(3, 3.1), (15.9, 16.1)])
    whole = np.concatenate(list(detector.probabilities([samples])))
    assert len(whole) == math.ceil(len(samples) / FRAME) and (whole > 0.5).sum() >= 8
    pieces = np.concatenate(list(detector.probabilities(np.split(samples, cuts))))
    np.testing.assert_array_equal(pieces, whole)


def test_the_detector_remembers_what_came_before(detector: Detector) -> None:
    memory = np.zeros((1, 1, 128), np.float32), np.ones((1, 1, 128), np.float32)
    for _ in range(3):
        _, memory = detector.asked(sound(1)[: 64 + 2 * FRAME], memory)
    assert memory[0].max() == 3 and memory[1].max() == 1  # the pretend one counts how often it is asked


def test_memory_does_not_grow_with_a_recording(detector: Detector) -> None:
    def peak(minutes: int) -> int:
        block = sound(60, [(10, 20)])
        tracemalloc.start()
        found = [one for _, known in searched(detector.probabilities(block for _ in range(minutes))) for one in known]
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(found) == minutes
        return most

    assert peak(9) < peak(3) + 100_000


# --- sound without it


@pytest.mark.parametrize("rate", [1_000, 44_100])
def test_muted_sound_is_silent_where_somebody_speaks_and_untouched_elsewhere(rate: int) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 10 * rate).astype(np.float32)
    speech = ((0.0, 1.0), (3.25, 4.5), (8.0, math.inf))
    for cuts in ([rate], list(range(rate // 3, 10 * rate, rate // 3))):
        blocks = list(muted(np.split(samples, cuts), rate, speech))
        again = np.concatenate(blocks)
        assert [len(block) for block in blocks] == [len(block) for block in np.split(samples, cuts)]
        times = np.arange(len(samples)) / rate
        for start, end in speech:
            assert not again[(times >= start) & (times <= end)].any()
        far = np.ones(len(times), np.bool_)
        for start, end in speech:
            far &= (times < start - FADE_SECONDS) | (times > end + FADE_SECONDS)
        np.testing.assert_array_equal(again[far], samples[far])
        assert 0.4 < far.mean() < 0.7 and np.abs(again).max() <= np.abs(samples).max()


def test_sound_in_which_nobody_speaks_is_handed_on_as_it_is() -> None:
    block = sound(1)
    (again,) = muted([block], RATE, ())
    assert again is block


def test_seconds_of_speech_are_counted_in_each_window() -> None:
    speech = ((1.0, 2.0), (4.5, 6.0), (20.0, math.inf))
    starts, ends = np.array([0.0, 5.0, 2.0, 15.0]), np.array([5.0, 10.0, 4.5, 25.0])
    np.testing.assert_allclose(seconds_in(speech, starts, ends), [1.5, 1.0, 0.0, 5.0], atol=1e-9)
    assert seconds_in((), starts, ends).tolist() == [0, 0, 0, 0]


def test_what_is_left_is_all_but_speech() -> None:
    assert outside(((0.0, 1.0), (4.5, 6.0), (20.0, math.inf)), 30.0) == ((1.0, 4.5), (6.0, 20.0))
    assert outside((), 30.0) == ((0.0, 30.0),) and outside(((0.0, 30.0),), 30.0) == ()


# --- the detector's file


def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voices, "find_spec", not_installed)
    with pytest.raises(AssertionError, match=r"is not installed here; `pip install --no-deps -r requirements-voices"):
        detector_file()


def test_another_version_of_the_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_package(tmp_path)
    path.rename(path.with_name("silero_vad.onnx"))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AssertionError, match=f"has no {voices.FILE} here"):
        detector_file()


def test_a_detector_of_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="not what Silero 6 takes") as refusal:
        open_detector(write_package(tmp_path / "narrow", width=512 - 64 + 64 - 1))
    assert "\n" not in str(refusal.value)
    path = write_package(tmp_path / "more")
    model = onnx.load(path)
    model.graph.input[1].name = "state"
    for node in model.graph.node:
        node.input[:] = ["state" if name == "h" else name for name in node.input]
    onnx.save(model, path)
    with pytest.raises(AssertionError, match="not what Silero 6 takes"):
        open_detector(path)


def test_a_detector_that_could_run_for_ever_or_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="'Loop'"):
        open_detector(write_package(tmp_path, operator="Loop"))
    (tmp_path / "m.onnx").write_bytes(b"a detector")
    with pytest.raises(AssertionError, match="damaged or no ONNX file"):
        open_detector(tmp_path / "m.onnx")


def test_no_code_of_the_package_is_imported_nor_torch(package: Path, tmp_path: Path) -> None:
    """The pretend package's code refuses to be imported; a control shows that it does."""
    path = write_sound(tmp_path / "a.wav", 3, [(1, 2)])
    program = (
        f"import sys; sys.path.insert(0, {str(package)!r}); import predictor; from pathlib import Path\n"
        "from sounds.voices import VoiceFinder\n"
        f"with VoiceFinder() as finder: assert len(finder.find(Path({str(path)!r}))) == 1\n"
        "print(sorted({'torch', 'silero_vad'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=HERE, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    control = subprocess.run([sys.executable, "-c", "import silero_vad"], cwd=package, capture_output=True, check=False)
    assert b"is not to be imported" in control.stderr


# --- the real one


@real
def test_the_real_file_only_computes(silero: Detector) -> None:
    check_graph(silero.path, None, FOREIGN)
    with pytest.raises(AssertionError):
        check_graph(silero.path, None, OPERATORS)
    assert (silero.width, silero.state) == (576, (1, 1, 128))


@real
def test_the_real_one_takes_no_weather_and_no_machine_for_speech(silero: Detector) -> None:
    """But some of the babble, which is meant to be like speech: the control."""
    taken: dict[str, int] = {}
    for kind in KINDS:
        seeds = range(3 if kind == "babble" else 1)
        takes = [negative(kind, 5.0, RATE, np.random.default_rng(seed)) for seed in seeds]
        taken[kind] = sum(bool(silero.speech(take)) for take in takes)
    assert {kind for kind, count in taken.items() if count} == {"babble"}, taken


@real
@pytest.mark.skipif(not SPEAKER, reason="no espeak-ng here: apt-get install espeak-ng")
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_the_real_one_finds_what_a_synthesiser_says(rate: int, silero: Detector, tmp_path: Path) -> None:
    assert SPEAKER
    words = "Recorded at the pond near the old mill, at half past five in the morning"
    subprocess.run([SPEAKER, "-w", str(tmp_path / "words.wav"), words], check=True)
    spoken = np.concatenate(list(open_recording(tmp_path / "words.wav", rate).waveform()))
    hiss = np.random.default_rng(0).normal(0, 0.003, len(spoken) + 10 * rate).astype(np.float32)
    hiss[5 * rate : 5 * rate + len(spoken)] += spoken
    soundfile.write(tmp_path / "field.wav", hiss, rate, "FLOAT")
    blocks = open_recording(tmp_path / "field.wav", RATE).waveform()
    found = [segment for _, known in searched(silero.probabilities(blocks)) for segment in known]
    due = len(spoken) / rate
    assert 4.5 <= found[0][0] <= 5.5 and 5 + due - 1 <= found[-1][1] <= 5 + due + 1
    assert sum(end - start for start, end in found) > 0.8 * due
