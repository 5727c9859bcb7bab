"""Clips: the right moment, an axis that is true, sound that plays, and a reason where there is none."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from PIL import Image
from pretend_voices import write_package, write_sound

from sounds.audio import examine_header
from sounds.clips import GREYS, ROWS, Clip, cut_clip, greys, png, spectrogram
from sounds.damage import Outcome
from sounds.voices import open_detector


def recording(
    path: Path, seconds: float = 20.0, rate: int = 32_000, beep_at: float = 7.0, hertz: float = 3_000
) -> Path:
    samples = np.random.default_rng(0).normal(0, 0.005, round(seconds * rate)).astype(np.float32)
    start = round(beep_at * rate)
    tone = 0.25 * np.sin(2 * np.pi * hertz * np.arange(rate // 2) / rate)
    samples[start : start + rate // 2] += tone[: max(0, len(samples) - start)].astype(np.float32)
    soundfile.write(path, samples, rate)
    return path


def cut(path: Path, start: float, end: float) -> Clip:
    clip = cut_clip(path, start, end)
    assert isinstance(clip, Clip), clip
    return clip


def pixels(clip: Clip) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(clip.png)).convert("L"))


def test_a_window_has_two_seconds_around_it_as_far_as_there_is_sound(tmp_path: Path) -> None:
    path = recording(tmp_path / "a.wav")
    assert [(c.lead, c.seconds) for c in (cut(path, 5, 10), cut(path, 0, 5), cut(path, 15, 20), cut(path, 1, 6))] == [
        (2.0, 9.0),
        (0.0, 7.0),
        (2.0, 7.0),
        (1.0, 8.0),
    ]


@pytest.mark.parametrize(("rate", "hertz"), [(32_000, 3_000), (48_000, 12_000), (16_000, 6_000), (22_050, 1_000)])
def test_a_beep_is_dark_at_its_time_and_its_frequency(tmp_path: Path, rate: int, hertz: float) -> None:
    clip = cut(recording(tmp_path / "a.wav", rate=rate, hertz=hertz), 5, 10)
    assert clip.top_hz == min(rate, 32_000) // 2
    picture = pixels(clip).astype(float)
    row = int(picture[:, 250:281].mean(axis=1).argmin())  # 4.0 to 4.5 s of 9
    assert abs((ROWS - row - 0.5) * clip.top_hz / ROWS - hertz) <= clip.top_hz / ROWS
    columns = np.flatnonzero(picture[row] < 64)
    seconds = (columns + 0.5) * clip.seconds / picture.shape[1] - clip.lead + 5
    assert 6.95 <= seconds.min() <= 7.05 and 7.45 <= seconds.max() <= 7.55


def test_the_sound_is_that_stretch_made_loud(tmp_path: Path) -> None:
    clip = cut(recording(tmp_path / "a.wav"), 5, 10)
    samples, rate = soundfile.read(io.BytesIO(clip.mp3), dtype="float32")
    assert rate == 24_000 and len(samples) == 9 * rate
    assert 0.8 < np.abs(samples).max() < 1.0
    loud = np.flatnonzero(np.abs(samples) > 0.5) / rate - clip.lead + 5
    assert 6.98 < loud.min() < 7.02 and 7.48 < loud.max() < 7.52
    assert clip.peak_db is not None and -13 < clip.peak_db < -11, "the beep has a quarter of full scale, -12 dB"


def test_a_clip_is_the_recording_as_it_is_and_not_as_a_network_is_given_it(tmp_path: Path) -> None:
    """Faint sound is not raised, a constant stays, and what ends early is not repeated."""
    rate = 16_000
    for gain, offset, due in ((1e-3, 0.0, -66.0), (0.5, 0.0, -12.0), (0.5, 0.5, -2.5)):
        tone = gain * 0.5 * np.sin(2 * np.pi * 1_000 * np.arange(20 * rate) / rate) + offset
        soundfile.write(tmp_path / "a.wav", tone.astype(np.float32), rate, subtype="FLOAT")
        clip = cut(tmp_path / "a.wav", 5, 10)
        assert clip.peak_db == pytest.approx(due, abs=0.1)
        samples = soundfile.read(io.BytesIO(clip.mp3), dtype="float32")[0]
        steady = samples[rate:-rate]  # the codec needs a moment for a tone that begins at once
        assert np.abs(steady).max() == pytest.approx(0.891, rel=0.05) and len(samples) == 9 * rate
        assert steady.mean() == pytest.approx(0.891 * offset / (offset + 0.5 * gain), abs=0.01)
    known = Outcome("ok", "", 30.0, rate, 1)  # as a header says that claims too much
    last = cut_clip(tmp_path / "a.wav", 15, 20, known)
    assert isinstance(last, Clip) and len(soundfile.read(io.BytesIO(last.mp3), dtype="float32")[0]) == 7 * rate


def test_song_above_8_khz_stays_audible(tmp_path: Path) -> None:
    clip = cut(recording(tmp_path / "a.wav", hertz=10_000), 5, 10)
    samples, rate = soundfile.read(io.BytesIO(clip.mp3), dtype="float32")
    spectrum = np.abs(np.fft.rfft(samples[4 * rate : 4 * rate + rate // 2]))
    assert abs(float(spectrum.argmax()) * 2 - 10_000) < 20


def test_a_clip_is_small(tmp_path: Path) -> None:
    """Noise is the worst case: 49 kB for 5 s were the plan, in base64; a clip is 9 s of the same."""
    clip = cut(recording(tmp_path / "a.wav"), 5, 10)
    assert len(clip.mp3) < 50_000 and len(clip.png) < 25_000


def test_silence_is_white_and_has_no_level(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(32_000 * 9, np.float32), 32_000)
    clip = cut(tmp_path / "a.wav", 2, 7)
    assert clip.peak_db is None and pixels(clip).min() == 255


def test_noise_alone_stays_pale_and_a_call_does_not(tmp_path: Path) -> None:
    quiet = pixels(cut(recording(tmp_path / "a.wav", beep_at=19), 2, 7))
    assert np.median(quiet) > 200 and (quiet < 64).mean() < 0.02
    assert (pixels(cut(recording(tmp_path / "b.wav"), 5, 10)) < 64).any()


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 250_000])
def test_recordings_of_any_rate_become_clips(tmp_path: Path, rate: int) -> None:
    clip = cut(recording(tmp_path / "a.wav", seconds=6, rate=rate, beep_at=2, hertz=1_000), 0, 5)
    assert clip.top_hz == min(rate, 32_000) // 2 and soundfile.read(io.BytesIO(clip.mp3), dtype="float32")[1] <= 24_000


@pytest.mark.parametrize("seconds", [0.05, 0.3, 3.0])
def test_a_recording_shorter_than_its_window_becomes_a_clip_of_its_length(tmp_path: Path, seconds: float) -> None:
    clip = cut(recording(tmp_path / "a.wav", seconds=seconds, beep_at=0), 0, 5)
    assert clip.seconds == pytest.approx(seconds) and pixels(clip).shape[0] == ROWS


def test_what_cannot_be_heard_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("This is a note about an owl, whatever its name says.\n")
    assert "is text" in str(cut_clip(tmp_path / "text.wav", 0, 5))
    assert "cannot be found" in str(cut_clip(tmp_path / "none.wav", 0, 5))
    assert "begins at 40 s" in str(cut_clip(recording(tmp_path / "a.wav"), 40, 45))
    assert cut_clip(tmp_path / "a.wav", 5, 10, Outcome("unreadable", "damaged", 0, 0, 0)) == "damaged"


def test_half_a_file_is_heard_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = recording(tmp_path / "whole.flac")
    (tmp_path / "half.flac").write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    known = examine_header(tmp_path / "half.flac")
    assert known.status == "salvaged" and 10 < known.seconds < 13
    clip = cut_clip(tmp_path / "half.flac", 5, 10, known)
    assert isinstance(clip, Clip) and 7 < clip.seconds <= 9.0


def test_the_png_is_read_back_pixel_for_pixel() -> None:
    picture = np.random.default_rng(0).integers(0, GREYS, (7, 10), dtype=np.uint8)
    image = Image.open(io.BytesIO(png(picture)))
    image.load()
    assert image.size == (10, 7) and (np.asarray(image.convert("L")) == picture * 17).all()


def test_greys_are_the_darker_the_louder_and_hold_the_extremes() -> None:
    levels = greys(np.linspace(-80, 0, 1000).reshape(10, 100))
    assert (np.diff(levels.ravel().astype(int)) <= 0).all() and levels.min() == 0 and levels.max() == GREYS - 1


def test_a_spectrogram_has_an_even_number_of_columns() -> None:
    for seconds in (0.001, 0.5, 1.017, 9.0):
        assert spectrogram(np.zeros(round(32_000 * seconds), np.float32), 32_000).shape[1] % 2 == 0


@pytest.mark.parametrize(
    ("rate", "hertz", "top", "slowed"), [(256_000, 60_000, 120_000, 10), (96_000, 20_000, 48_000, 4)]
)
def test_ultrasound_is_played_slower_and_drawn_up_to_where_the_band_ends(
    tmp_path: Path, rate: int, hertz: float, top: float, slowed: int
) -> None:
    path = tmp_path / "bat.wav"
    samples = np.random.default_rng(0).normal(0, 0.002, 3 * rate)
    call = np.arange(rate // 100)  # 10 ms, 1.1 s after the beginning
    samples[11 * rate // 10 :][: len(call)] += 0.25 * np.sin(2 * np.pi * hertz * call / rate) * np.hanning(len(call))
    soundfile.write(path, samples, rate)
    clip = cut_clip(path, 1.0, 1.5, None, top)
    assert isinstance(clip, Clip) and clip.slowed == slowed and clip.top_hz == top
    assert clip.lead == pytest.approx(2 / slowed) and clip.seconds == pytest.approx(0.5 + 4 / slowed), "as it was"
    sound, played = soundfile.read(io.BytesIO(clip.mp3), dtype="float32")
    assert played == 24_000 and len(sound) == pytest.approx(clip.seconds * slowed * played, abs=2), "as it is played"
    at = np.flatnonzero(np.abs(sound) > 0.4) / played / slowed - clip.lead + 1.0
    assert at.min() > 1.095 and at.max() < 1.115
    piece = sound[round((clip.lead + 0.1) * slowed * played) :][: round(0.01 * slowed * played)]
    heard = np.abs(np.fft.rfft(piece * np.hanning(len(piece)))).argmax() * played / len(piece)
    assert heard == pytest.approx(hertz / slowed, rel=0.03)
    picture = pixels(clip).astype(float)
    row, column = (float(places.mean()) for places in np.nonzero(picture == 0))
    assert abs((ROWS - row - 0.5) * top / ROWS - hertz) <= top / ROWS
    assert abs((column + 0.5) * clip.seconds / picture.shape[1] - clip.lead - 0.105) < 0.005
    audible = cut_clip(path, 1.0, 1.5)  # negative control: where nobody says that it is a bat's
    assert isinstance(audible, Clip) and audible.slowed == 1 and audible.top_hz == 16_000


def test_whales_are_played_faster(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", 0.1 * np.sin(2 * np.pi * 100 * np.arange(2_000 * 20) / 2_000), 2_000)
    clip = cut_clip(tmp_path / "a.wav", 0.0, 15.0, None, 1_000.0)
    assert isinstance(clip, Clip) and clip.slowed == 1 / 8 and clip.seconds == 17.0 and clip.top_hz == 1_000
    sound, played = soundfile.read(io.BytesIO(clip.mp3), dtype="float32")
    assert len(sound) / played == pytest.approx(17 / 8, abs=0.01)
    heard = np.abs(np.fft.rfft(sound)).argmax() * played / len(sound)
    assert heard == pytest.approx(800, rel=0.02)


@pytest.mark.parametrize(("rate", "top"), [(16_000, 0.0), (96_000, 48_000.0), (2_000, 1_000.0)])
def test_a_voice_is_silenced_however_quickly_a_clip_is_played(rate: int, top: float, tmp_path: Path) -> None:
    """From 8 to 9 s somebody talks; the window from 8.8 to 9.5 s begins while he does."""
    detector = open_detector(write_package(tmp_path))
    path = write_sound(tmp_path / "a.wav", 20, [(8.0, 9.0)], rate=rate)
    speaks, still = (cut_clip(path, 8.8, 9.5, None, top, detector, mute) for mute in (False, True))
    assert isinstance(speaks, Clip) and isinstance(still, Clip) and speaks.slowed == still.slowed
    assert speaks.voice == still.voice == pytest.approx(0.4, abs=0.07)  # 0.2 s behind it count as speech
    until = (still.lead + 0.3) * still.slowed
    peaks = []
    for clip in (speaks, still):
        sound, played = soundfile.read(io.BytesIO(clip.mp3), dtype="float32")
        begin = max(0.0, clip.lead - 0.7) * clip.slowed
        loudest = float(np.abs(sound).max())
        peaks.append(float(np.abs(sound[round(begin * played) : round(until * played)]).max()) / loudest)
    assert peaks[0] > 0.8 and peaks[1] < 0.05
    assert pixels(speaks).min() < pixels(still)[:, : int(0.1 * pixels(still).shape[1])].min()
