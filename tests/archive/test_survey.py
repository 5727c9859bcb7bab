"""Listening once: nothing is read twice, nothing stops the survey, the same sound is known again in another coat."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from archive import survey
from archive.recordings import Recording
from archive.segments import draw_segment
from archive.survey import (
    BAND_EDGES,
    BIRDS,
    FRAME,
    Band,
    Spectra,
    contrast,
    decode_all,
    edge_bins,
    examine,
    heard_by,
    listen,
    profile_of,
    sound_fingerprint,
    sound_marks,
    sounds_marked,
)
from config import SOUNDS
from sounds import decoders

HERE = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger of one's own."""
    monkeypatch.setattr("archive.survey.LEDGER", tmp_path / "ledger" / "examined.sqlite")
    return tmp_path / "ledger" / "examined.sqlite"


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
    monkeypatch.setattr("archive.survey.decode_all", forbidden)
    assert examine(paths) == first and all(first[path].seconds == 6.0 for path in paths)


def bats_and_rattle(rate: int = 256_000, seconds: float = 8.0) -> NDArray[np.float32]:
    """A rattle below 6 kHz from 1 to 2 s, and ten faint calls of a bat, 5 ms each, from 6 to 7 s."""
    rng, length = np.random.default_rng(0), round(0.005 * rate)
    sound = 0.003 * rng.normal(0, 1, round(seconds * rate))
    low = rng.normal(0, 1, rate // 16).repeat(16) * (np.arange(rate) // (rate // 20) % 2)  # held: mostly below 8 kHz
    sound[rate : 2 * rate] += 0.3 * np.convolve(low, np.hanning(64) / 32, "same")
    share = np.linspace(0, 1, length)
    sweep = np.sin(2 * np.pi * np.cumsum(70_000 - 40_000 * share) / rate) * np.hanning(length)
    for start in np.arange(6.0, 7.0, 0.1):
        sound[round(start * rate) :][:length] += 0.03 * sweep
    return sound.astype(np.float32)


def test_what_stands_out_is_looked_for_where_the_network_hears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "night.wav", bats_and_rattle(), 256_000)
    bats = heard_by(SOUNDS["bat"])
    known = {band: examine([path], band)[path] for band in (bats, BIRDS)}
    assert known[bats].digest == known[BIRDS].digest and known[bats].fingerprint != known[BIRDS].fingerprint
    heard = dict[object, float]()
    for band, examination in known.items():
        rng, row = np.random.default_rng(1), Recording(path, path.name, seconds=8.0)
        starts = [draw_segment(row, 0.5, profile_of(examination), rng)[0] for _ in range(400)]
        heard[band] = float(np.mean([5.5 < start < 7.0 for start in starts]))
    assert heard[bats] > 0.5 and heard[BIRDS] < 0.2, f"{heard}; at random 0.2"
    monkeypatch.setattr("archive.survey.decode_all", forbidden)
    assert {band: examine([path], band)[path] for band in known} == known, "each band is remembered by itself"


def test_every_kind_of_sound_has_bands_of_its_own() -> None:
    assert edge_bins(BIRDS) == [round(edge * FRAME / BIRDS.rate) for edge in BAND_EDGES]
    assert heard_by(SOUNDS["bird"]) == BIRDS
    for sound, audio in SOUNDS.items():
        band = heard_by(audio)
        bins = edge_bins(band)
        hertz = np.array(bins) * band.rate / FRAME
        assert len(bins) == len(BAND_EDGES) and all(one < other for one, other in pairwise(bins)), sound
        grain = band.rate / FRAME
        assert hertz[0] >= audio.lowest_hz - grain and 0.9 * audio.top_hz < hertz[-1] <= audio.top_hz, sound


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

    def interrupted(wanted: list[Path], workers: int, band: Band) -> object:
        for number, result in enumerate(decode_all(wanted, workers, band)):
            if number == 2:
                raise KeyboardInterrupt
            yield result

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("archive.survey.decode_all", interrupted)
        examine(paths)
    with sqlite3.connect(survey.LEDGER) as ledger:
        assert ledger.execute(f"SELECT COUNT(*) FROM examined_{survey.VERSION}").fetchone() == (2,)


def test_a_marked_sound_is_known_under_any_name_and_another_of_its_name_and_size_is_not(tmp_path: Path) -> None:
    paths = [write(tmp_path / site, "20240501_053000.wav", song(seed)) for seed, site in enumerate(("a", "b", "c"))]
    assert len({path.stat().st_size for path in paths}) == 1
    written = sound_marks([*paths[:1], *paths[:1]], before=[sound_marks(paths[2:])])
    moved = paths[0].rename(tmp_path / "moved.wav")
    assert len(written) == 20 and sounds_marked([moved, *paths[1:]], written) == [paths[2], moved]
    assert sounds_marked(paths[1:], "") == []


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
        ("time.sleep(600)", 3.0, "decoding did not go on within 3 s"),
    ],
    ids=["dies", "hangs"],
)
def test_a_decoder_that_dies_or_hangs_takes_one_file_with_it(
    deed: str, guard_seconds: float, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write(tmp_path, f"{number}.wav", song(number)) for number in range(4)]
    victim = (
        "import os, time; from archive import survey\nlisten = survey.listen\n"
        f"def deadly(path, band):\n    if path.name == '2.wav': {deed}\n    return listen(path, band)\n"
        "survey.listen = deadly\nsurvey.serve_examinations()"
    )
    replace_decoder(monkeypatch, victim)
    monkeypatch.setattr("sounds.decoders.GUARD_SECONDS", guard_seconds)
    started = time.monotonic()
    examined = examine(paths)
    assert [examined[path].status for path in paths] == ["ok", "ok", "unreadable", "ok"]
    assert examined[paths[2]].reason == f"{why}; leave it out" and time.monotonic() - started < 30


def test_what_may_pass_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "a.wav", song(0))
    with monkeypatch.context() as patch:
        replace_decoder(
            patch,
            "import os; from archive import survey\n"
            "survey.listen = lambda path, band: os.kill(os.getpid(), 9)\nsurvey.serve_examinations()",
        )
        assert examine([path])[path].reason.startswith("its decoder died (SIGKILL)")
    assert examine([path])[path].status == "ok"


def test_without_a_ledger_that_can_be_written_all_is_listened_to_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "a.wav", song(0))
    examine([write(tmp_path, "b.wav", song(1))])
    real = survey.open_ledger

    def read_only(band: Band) -> sqlite3.Connection:
        opened = real(band)
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
    real = decoders.start_process

    def start(_code: str) -> subprocess.Popen[bytes]:
        return real(code)

    monkeypatch.setattr("sounds.decoders.start_process", start)


def test_an_interrupted_survey_leaves_no_process_behind(tmp_path: Path) -> None:
    minute = write(tmp_path, "0.wav", song(0, seconds=60.0))
    for number in range(1, 400):  # enough to be at it for seconds on any machine
        (tmp_path / f"{number}.wav").hardlink_to(minute)
    code = (
        "import signal; from archive import survey\nfrom pathlib import Path\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's & leaves it ignored
        f"survey.LEDGER = Path({str(tmp_path / 'ledger.sqlite')!r})\n"
        f"survey.examine(sorted(Path({str(tmp_path)!r}).glob('*.wav')))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=HERE, stderr=subprocess.DEVNULL)
    deadline, workers = time.monotonic() + 60, min(len(os.sched_getaffinity(0)), 50)
    while len(children(process.pid)) < workers and time.monotonic() < deadline:
        time.sleep(0.02)
    decoders = children(process.pid)
    assert len(decoders) >= workers
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    assert gone(decoders, 60.0)
    assert not gone([os.getpid()], 0.1)  # negative control


def gone(pids: Sequence[int], seconds: float) -> bool:
    """Whether all these processes end within some seconds."""
    deadline = time.monotonic() + seconds
    while [pid for pid in pids if Path(f"/proc/{pid}").exists() and state(pid) != "Z"]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


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


def test_blocks_of_any_size_give_the_same_spectra() -> None:
    sound = song(3, seconds=40.0, rate=16_000).astype(np.float32)
    whole, parts = Spectra(), Spectra()
    whole.add(sound)
    for start, end in pairwise([0, 100, 5_000, 5_001, 300_000, len(sound)]):
        parts.add(sound[start:end])
    assert np.allclose(whole.bands(), parts.bands(), rtol=1e-4)
    assert sound_fingerprint(whole.bands()) == sound_fingerprint(parts.bands())


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
