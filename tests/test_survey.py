"""Listening once: nothing is read twice, nothing stops the survey, the same sound is known again in another coat."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

import decoders
import survey
from survey import Spectra, contrast, decode_all, examine, fingerprint, listen, profile_of, same_sounds

HERE = Path(__file__).parents[1]
ANIMALS = HERE.parent / "shared" / "animals"


@pytest.fixture(autouse=True)
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger of one's own."""
    monkeypatch.setattr("survey.LEDGER", tmp_path / "ledger" / "examined.sqlite")
    return tmp_path / "ledger" / "examined.sqlite"


Print = NDArray[np.float32]


def song(seed: int, seconds: float = 6.0, rate: int = 32_000) -> NDArray[np.float32]:
    """Syllables of changing pitch and strength in a little noise."""
    rng, time_axis = np.random.default_rng(seed), np.arange(int(seconds * rate)) / rate
    pitch = np.repeat(rng.uniform(500, 3000, 24), -(-len(time_axis) // 24))[: len(time_axis)]
    level = np.repeat(rng.uniform(0, 0.3, 24), -(-len(time_axis) // 24))[: len(time_axis)]
    sound = level * np.sin(2 * np.pi * np.cumsum(pitch) / rate) + rng.normal(0, 0.003, len(time_axis))
    return sound.astype(np.float32)


def forbidden(*_: object) -> NoReturn:
    pytest.fail("this was done before")


def write(folder: Path, name: str, sound: NDArray[np.float32], rate: int = 32_000, subtype: str | None = None) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "OGG" if path.suffix == ".opus" else None
    soundfile.write(path, sound, rate, format=kind, subtype=subtype)
    return path


def test_a_second_look_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write(tmp_path, f"{number}.wav", song(number)) for number in range(3)]
    first = examine(paths)
    monkeypatch.setattr("survey.decode_all", forbidden)
    assert examine(paths) == first and all(first[path].seconds == 6.0 for path in paths)


def test_a_file_that_changed_is_listened_to_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [write(tmp_path, f"{number}.wav", song(number)) for number in range(3)]
    examine(paths)
    write(tmp_path, "1.wav", song(1, seconds=4.0))
    os.utime(paths[2], ns=(0, 0))
    capsys.readouterr()
    assert examine(paths)[paths[1]].seconds == 4.0
    assert capsys.readouterr().out == "listened to 2 recordings; 1 were known before\n"


def test_what_was_listened_to_before_an_interruption_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write(tmp_path, f"{number}.wav", song(number)) for number in range(4)]

    def interrupted(wanted: list[Path], workers: int) -> object:
        for number, result in enumerate(decode_all(wanted, workers)):
            if number == 2:
                raise KeyboardInterrupt
            yield result

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("survey.decode_all", interrupted)
        examine(paths)
    with sqlite3.connect(survey.LEDGER) as ledger:
        assert ledger.execute(f"SELECT COUNT(*) FROM examined_{survey.VERSION}").fetchone() == (2,)


def test_a_damaged_ledger_is_set_aside(tmp_path: Path, ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "a.wav", song(0))
    ledger.parent.mkdir()
    ledger.write_bytes(b"not a database at all, and long enough to be taken for one" * 100)
    assert examine([path])[path].status == "ok"
    assert "was damaged: set aside" in capsys.readouterr().out and ledger.with_suffix(".damaged").is_file()


@pytest.mark.parametrize(
    ("deed", "guard_seconds", "why"),
    [
        ("os.kill(os.getpid(), 11)", decoders.GUARD_SECONDS, "its decoder died (SIGSEGV)"),
        ("time.sleep(600)", 3.0, "decoding did not end within 3 s"),
    ],
    ids=["dies", "hangs"],
)
def test_a_decoder_that_dies_or_hangs_takes_one_file_with_it(
    deed: str, guard_seconds: float, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write(tmp_path, f"{number}.wav", song(number)) for number in range(4)]
    victim = (
        "import os, survey, time\nlisten = survey.listen\n"
        f"def deadly(path):\n    if path.name == '2.wav': {deed}\n    return listen(path)\n"
        "survey.listen = deadly\nsurvey.serve()"
    )
    replace_decoder(monkeypatch, victim)
    monkeypatch.setattr("decoders.GUARD_SECONDS", guard_seconds)
    started = time.monotonic()
    examined = examine(paths)
    assert [examined[path].status for path in paths] == ["ok", "ok", "unreadable", "ok"]
    assert examined[paths[2]].reason == f"{why}; leave it out" and time.monotonic() - started < 30


def test_what_may_pass_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "a.wav", song(0))
    with monkeypatch.context() as patch:
        replace_decoder(
            patch, "import os, survey\nsurvey.listen = lambda path: os.kill(os.getpid(), 9)\nsurvey.serve()"
        )
        assert examine([path])[path].reason.startswith("its decoder died (SIGKILL)")
    assert examine([path])[path].status == "ok"


def test_without_a_ledger_that_can_be_written_all_is_listened_to_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "a.wav", song(0))
    examine([write(tmp_path, "b.wav", song(1))])
    real = survey.open_ledger

    def read_only() -> sqlite3.Connection:
        opened = real()
        opened.execute("PRAGMA query_only = 1")
        return opened

    monkeypatch.setattr(survey, "open_ledger", read_only)
    assert examine([path])[path].status == "ok"
    assert "what was found out now is not remembered" in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.setattr(survey, "LEDGER", tmp_path)  # a folder: SQLite cannot open it, and it is not damaged
    assert examine([path])[path].status == "ok" and tmp_path.is_dir()
    assert "nothing is remembered this time" in capsys.readouterr().out


def replace_decoder(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let the decoding processes run other code."""
    real = subprocess.Popen

    def start(command: list[str], **options: Any) -> Any:
        return real([*command[:-1], code], **options)

    monkeypatch.setattr("decoders.subprocess.Popen", start)


def test_an_interrupted_survey_leaves_no_process_behind(tmp_path: Path) -> None:
    minute = write(tmp_path, "0.wav", song(0, seconds=60.0))
    for number in range(1, 400):  # enough to be at it for seconds on any machine
        (tmp_path / f"{number}.wav").hardlink_to(minute)
    code = (
        "import signal, survey\nfrom pathlib import Path\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's & leaves it ignored
        f"survey.LEDGER = Path({str(tmp_path / 'ledger.sqlite')!r})\n"
        f"survey.examine(sorted(Path({str(tmp_path)!r}).glob('*.wav')))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=HERE, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not children(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    decoders = children(process.pid)
    assert decoders
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    time.sleep(0.5)
    assert not [pid for pid in decoders if Path(f"/proc/{pid}").exists() and state(pid) != "Z"]


def children(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return found


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_silence_and_what_is_no_sound_say_so(tmp_path: Path) -> None:
    silent = write(tmp_path, "silent.wav", np.zeros(64_000, np.float32))
    (tmp_path / "text.wav").write_text("The owl called twice, then it rained and I went home.\n")
    examined = examine([silent, tmp_path / "text.wav", tmp_path / "gone.wav"])
    assert examined[silent].status == "silent" and "holds no sound" in examined[silent].reason
    assert examined[tmp_path / "text.wav"].status == "unreadable"
    assert "cannot be found" in examined[tmp_path / "gone.wav"].reason


def coats(folder: Path, sound: NDArray[np.float32]) -> list[Path]:
    """One sound in many encodings, rates and levels."""

    def at(rate: int) -> NDArray[np.float32]:
        return soxr.resample(sound, 32_000, rate)

    late = np.concatenate([np.zeros(1_600, np.float32), sound])
    return [
        write(folder, "same.flac", sound),
        write(folder, "quiet.wav", 0.2 * sound),
        write(folder, "lossy.ogg", sound),
        write(folder, "lossy.mp3", at(22_050), 22_050),
        write(folder, "voice.opus", at(48_000), 48_000, "OPUS"),
        write(folder, "phone.wav", at(8_000), 8_000),
        write(folder, "late.wav", late),
        write(folder, "upside_down.wav", -sound),
    ]


def test_the_same_sound_is_known_again_whatever_its_coat(tmp_path: Path) -> None:
    original = write(tmp_path, "a.wav", song(0))
    others = [write(tmp_path, f"other{seed}.wav", song(seed)) for seed in range(1, 9)]
    paths = [original, *others, *coats(tmp_path / "coats", song(0))]
    pairs = same_sounds(paths, examine(paths))
    joined = {paths[index].name for one, other, _ in pairs for index in (one, other)}
    assert joined == {path.name for path in paths} - {path.name for path in others}


def test_the_same_melody_sung_again_is_another_recording(tmp_path: Path) -> None:
    """What fingerprints alone would take for one sound, the waveforms tell apart."""
    rng = np.random.default_rng(5)
    one = song(0) + rng.normal(0, 0.001, 192_000).astype(np.float32)
    shift = np.interp(np.arange(192_000) * 1.003, np.arange(192_000), song(0)).astype(np.float32)
    paths = [write(tmp_path, "one.wav", one), write(tmp_path, "two.wav", shift)]
    examined = examine(paths)
    prints = [np.frombuffer(bytes.fromhex(examined[path].fingerprint), np.int8).astype(float) for path in paths]
    assert np.corrcoef(prints)[0, 1] > survey.ALIKE
    assert same_sounds(paths, examined) == []


def survey_with_a_tape(folder: Path, tape: NDArray[np.float32], at: float = 2.0) -> list[Path]:
    """Three recordings of 30 s with weather of their own, each with the same loud sound at the same second."""
    paths: list[Path] = []
    for number in range(3):
        sound = np.random.default_rng(number).normal(0, 0.004, 30 * 16_000)
        sound[int(at * 16_000) :][: len(tape)] += tape
        paths.append(write(folder, f"{number}.wav", sound.astype(np.float32), 16_000))
    return paths


@pytest.mark.parametrize("seconds", [0.3, 3.0, 8.0])
def test_a_tape_or_a_beep_at_the_same_second_makes_no_duplicates(seconds: float, tmp_path: Path) -> None:
    """Loud as it is, it is one piece of several; a control shows that the loudest part alone would have decided."""
    count = int(seconds * 16_000)
    tape = (0.1 * np.sin(np.arange(count) ** 1.3 / 30) * (np.arange(count) // 4_000 % 2)).astype(np.float32)
    paths = survey_with_a_tape(tmp_path, tape)
    examined = examine(paths)
    assert same_sounds(paths, examined) == []
    first, second = (soundfile.read(path, dtype="float32")[0] for path in paths[:2])
    assert first @ second > 0.6 * np.linalg.norm(first) * np.linalg.norm(second) or seconds < 1, "control"
    copies = [
        write(tmp_path, f"copy{path.stem}.flac", 0.5 * soundfile.read(path, dtype="float32")[0], 16_000)
        for path in paths
    ]
    both = [*paths, *copies]
    assert same_sounds(both, examine(both)) == [(one, one + 3, "same") for one in range(3)]


def test_a_hum_and_a_beginning_in_common_make_no_duplicates(tmp_path: Path) -> None:
    seconds = np.arange(40 * 16_000) / 16_000
    hum = 0.2 * sum(np.sin(2 * np.pi * 50 * k * seconds) / k for k in range(1, 12))
    speech = song(3, 30.0, 16_000)
    paths: list[Path] = []
    for number in range(3):
        weather = np.random.default_rng(number).normal(0, 0.01, len(seconds))
        paths.append(write(tmp_path, f"hum{number}.wav", (hum + weather).astype(np.float32), 16_000))
        begun = np.concatenate([speech, np.zeros(3 * len(seconds) - len(speech))]) + np.tile(weather, 3)
        paths.append(write(tmp_path, f"speech{number}.wav", begun.astype(np.float32), 16_000))
    assert same_sounds(paths, examine(paths)) == []


def test_recordings_that_differ_only_above_8_khz_are_different(tmp_path: Path) -> None:
    """Bats over the same wind: neither the digest nor the comparison may end where a model's band does."""
    rng, rate = np.random.default_rng(0), 96_000
    wind = soxr.resample(song(4, 6.0, 16_000), 16_000, rate)
    bats = [soxr.resample(rng.normal(0, 0.05, 6 * 48_000).astype(np.float32), 48_000, rate) for _ in range(2)]
    spectra = [np.fft.rfft(bat) for bat in bats]
    above = np.fft.rfftfreq(len(bats[0]), 1 / rate) > 9_000
    high = [np.fft.irfft(spectrum * above, len(wind)).astype(np.float32) for spectrum in spectra]
    paths = [write(tmp_path, f"{n}.wav", (wind + bat).astype(np.float32), rate) for n, bat in enumerate(high)]
    examined = examine(paths)
    assert len({examined[path].digest for path in paths}) == 2
    assert same_sounds(paths, examined) == [(0, 1, "low")], "they may not be parted, and both stay"
    quiet = write(tmp_path, "quiet.flac", (0.5 * (wind + high[0])).astype(np.float32), rate)
    assert (0, 2, "same") in same_sounds([*paths, quiet], examine([*paths, quiet]))


def test_all_channels_count_for_equal_samples(tmp_path: Path) -> None:
    left, right = song(0) * np.float32(0.5), song(1) * np.float32(0.5)
    one = write(tmp_path, "one.wav", np.stack([left, right], axis=1).astype(np.float32))
    other = write(tmp_path, "other.wav", np.stack([right, left], axis=1).astype(np.float32))
    same = tmp_path / "same.flac"
    soundfile.write(same, np.rint(soundfile.read(one, dtype="float32")[0] * 32_768).astype(np.int16), 32_000)
    digests = [examine([one, other, same])[path].digest for path in (one, other, same)]
    assert digests[0] == digests[2] != digests[1]


def test_comparing_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write(tmp_path, "a.wav", song(0)), write(tmp_path, "b.wav", 0.5 * song(0))]
    examined = examine(paths)
    pairs = same_sounds(paths, examined)
    monkeypatch.setattr("survey.compare", forbidden)
    assert same_sounds(paths, examined) == pairs == [(0, 1, "same")]


def test_real_recordings_are_known_again_after_a_lossy_codec(tmp_path: Path) -> None:
    if not ANIMALS.is_dir():
        pytest.skip("the recordings of ../shared/animals are not here")
    sources = sorted(ANIMALS.glob("audio/*/*.ogg"))[::40]
    examined = examine(sources)
    sources = [path for path in sources if examined[path].seconds >= 1.5]
    copies: list[Path] = []
    for path in sources:
        sound, rate = soundfile.read(path, dtype="float32")
        copies.append(write(tmp_path, f"{path.stem}.mp3", soxr.resample(sound, rate, 22_050), 22_050))
    paths = [*sources, *copies]
    pairs = {pair[:2] for pair in same_sounds(paths, examine(paths))}
    found = [(number, number + len(sources)) in pairs for number in range(len(sources))]
    assert len(sources) >= 15 and np.mean(found) >= 0.9
    assert not [pair for pair in pairs if pair[1] - pair[0] != len(sources)]


def test_real_duplicates_under_two_names_are_found() -> None:
    if not ANIMALS.is_dir():
        pytest.skip("the recordings of ../shared/animals are not here")
    paths = sorted(ANIMALS.glob("audio/bos_taurus/*.ogg"))
    pairs = {(paths[one].name, paths[other].name) for one, other, _ in same_sounds(paths, examine(paths))}
    assert pairs == {("4670b750.ogg", "475b6d84.ogg"), ("5bd40f46.ogg", "abbb622a.ogg")}


def crowd_with_copies(rows: int, likeness: float) -> tuple[list[Print], list[float], set[tuple[int, int]]]:
    """Fingerprints, lengths, and which row holds the copy of which: every tenth row has one, in the second part."""
    rng = np.random.default_rng(7)
    prints = rng.standard_normal((rows, 128)).astype(np.float32)
    chosen = np.arange(0, rows, 10)
    noise = rng.standard_normal((len(chosen), 128)).astype(np.float32)
    unit = prints[chosen] / np.linalg.norm(prints[chosen], axis=1, keepdims=True)
    noise -= (noise * unit).sum(axis=1, keepdims=True) * unit
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    both = np.concatenate([prints, likeness * unit + np.sqrt(1 - likeness**2) * noise])
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    expected = {(int(one), rows + place) for place, one in enumerate(chosen)}
    return list(both.astype(np.float32)), [60.0] * len(both), expected


def test_in_a_crowd_of_one_length_copies_are_found_without_comparing_each_with_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prints, seconds, expected = crowd_with_copies(3_000, 0.97)
    assert set(survey.alike(prints, seconds)) == expected, "each with each"
    monkeypatch.setattr(survey, "CROWD", 100)
    assert set(survey.alike(prints, seconds)) == expected
    monkeypatch.setattr(survey, "ORDERS", 1)
    monkeypatch.setattr(survey, "NEIGHBOURS", 1)
    found = set(survey.alike(prints, seconds))
    assert found < expected and len(found) < 0.8 * len(expected), "control: one order, one neighbour"


@pytest.mark.parametrize("crowd", [10_000, 100], ids=["each with each", "neighbours"])
def test_only_what_is_of_one_length_is_compared_and_the_most_alike_first(
    monkeypatch: pytest.MonkeyPatch, crowd: int
) -> None:
    monkeypatch.setattr(survey, "CROWD", crowd)
    prints, seconds, expected = crowd_with_copies(1_000, 0.97)
    apart = [second + 0.2 * (row >= 1_000) for row, second in enumerate(seconds)]
    assert set(survey.alike(prints, apart)) == set()
    steps = [60 + 0.02 * row / len(prints) for row in range(len(prints))]
    assert set(survey.alike(prints, steps)) == expected
    one = [prints[0]] * 300  # a microphone that hears one hum all night
    pairs = list(survey.alike(one, [60.0] * 300))
    assert len(pairs) == len(set(pairs)) <= 300 * survey.MOST_ALIKE < 300 * 299 / 2
    reached = {0}
    for first, second in sorted(pairs):
        reached |= {first, second} if {first, second} & reached else set()
    assert reached == set(range(300)), "still one after the other leads from the first to the last"


def test_blocks_of_any_size_give_the_same_spectra() -> None:
    sound = song(3, seconds=40.0, rate=16_000).astype(np.float32)
    whole, parts = Spectra(), Spectra()
    whole.add(sound)
    for start, end in pairwise([0, 100, 5_000, 5_001, 300_000, len(sound)]):
        parts.add(sound[start:end])
    assert np.allclose(whole.bands(), parts.bands(), rtol=1e-4)
    assert fingerprint(whole.bands()) == fingerprint(parts.bands())


def test_a_long_recording_is_remembered_in_a_coarser_grain() -> None:
    spectra = Spectra()
    for _ in range(40):
        spectra.add(np.random.default_rng(0).normal(0, 0.1, 480_000).astype(np.float32))
    assert survey.MOST_FRAMES / 2 <= len(spectra.bands()) <= 2 * survey.MOST_FRAMES


def test_the_profile_points_to_what_stands_out(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).normal(0, 0.01, 320_000).astype(np.float32)
    sound[192_000:208_000] += (0.3 * np.sin(2 * np.pi * 3_000 * np.arange(16_000) / 16_000)).astype(
        np.float32
    )  # 12 to 13 s
    profile = profile_of(listen(write(tmp_path, "a.wav", sound, 16_000)))
    assert len(profile) == 40 and profile.max() == 1.0
    assert set(np.flatnonzero(profile > 0.5)) == {24, 25} and profile[:23].max() < 0.2


def test_an_empty_recording_has_an_empty_profile() -> None:
    assert contrast(np.zeros((0, 12), np.float32), 0.2) == bytes(1)
