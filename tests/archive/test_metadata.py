"""What recorders write into their files: read with the right values, never trusted, and compared with the name."""

import struct
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from archive.metadata import Facts, facts_in, read_metadata

GUANO = (
    "GUANO|Version: 1.0\nTimestamp: 2024-05-01T05:30:00.250-04:00\nMake: Titley Scientific\nModel: Swift\n"
    "Serial: 451202\nLoc Position: 37.1878016 -86.1057312\nTemperature Int: 19.5\nNote: one\\nTimestamp: 1999\n"
)
MOTH = (
    "Recorded at 19:22:55 14/12/2020 (UTC-5) by AudioMoth 24E144055DDD3203 at medium gain setting while battery state "
    "was 4.0V and temperature was 24.5C."
)
OAD = "Open Acoustic Devices AudioMoth"


def chunk(name: bytes, body: bytes, length: int | None = None) -> bytes:
    return name + struct.pack("<I", len(body) if length is None else length) + body + bytes(len(body) % 2)


def texts(**words: str) -> bytes:
    """A LIST of INFO, padded as AudioMoth pads it."""
    parts = [chunk(name.encode(), text.encode().ljust(384, b"\0")) for name, text in words.items()]
    return chunk(b"LIST", b"INFO" + b"".join(parts))


def wamd(fields: dict[int, str | bytes]) -> bytes:
    parts = [(number, text.encode() if isinstance(text, str) else text) for number, text in fields.items()]
    return chunk(b"wamd", b"".join(struct.pack("<HI", number, len(text)) + text for number, text in parts))


def wav(path: Path, *chunks: bytes, before: bytes = b"", kind: bytes = b"RIFF", data: int | None = None) -> Path:
    """A second of noise at 8 kHz, some chunks before the samples and some behind them."""
    sound = np.random.default_rng(0).integers(-900, 900, 8_000).astype("<i2").tobytes()
    form = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 8_000, 16_000, 2, 16))
    body = b"WAVE" + before + form + chunk(b"data", sound, data) + b"".join(chunks)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(kind + struct.pack("<I", min(len(body), 2**32 - 1)) + body)
    return path


def test_a_guano_chunk_tells_time_with_zone_position_make_serial_number_and_temperature(tmp_path: Path) -> None:
    due = Facts(
        "2024-05-01T05:30:00.250000-04:00", "37.1878016", "-86.1057312", "Titley Scientific Swift", "451202", "19.5"
    )
    for number, path in enumerate(
        (
            wav(tmp_path / "behind.wav", chunk(b"junk", b"abc"), chunk(b"guan", GUANO.encode())),
            wav(tmp_path / "before.WAV", before=chunk(b"guan", GUANO.replace("\n", "\r\n").encode() + b"\0\0")),
            wav(
                tmp_path / "long.wav",
                chunk(b"guan", GUANO.encode()),
                before=chunk(b"ds64", struct.pack("<QQQI", 0, 16_000, 8_000, 0)),
                kind=b"RF64",
                data=2**32 - 1,
            ),
        )
    ):
        assert read_metadata(path) == due, number
    assert read_metadata(wav(tmp_path / "none.wav")) == Facts()


@pytest.mark.parametrize(
    ("line", "time"),
    [
        ("Timestamp:2022-06-01T10:00:00Z", "2022-06-01T10:00:00+00:00"),
        ("Timestamp: 2022-06-01 10:00:00", "2022-06-01T10:00:00"),
        ("Timestamp: 2022-06-01 10:00:00 +0530", "2022-06-01T10:00:00+05:30"),
        ("Timestamp: 2022-06-01", "2022-06-01"),
        ("Timestamp: yesterday", ""),
        ("Timestamp: 1970-01-01T00:00:10Z", ""),
        ("Timestamp: 2097-01-01T00:00:10Z", ""),
        ("Timestamp:", ""),
    ],
)
def test_a_time_is_taken_as_far_as_it_can_be_right(line: str, time: str, tmp_path: Path) -> None:
    facts = read_metadata(wav(tmp_path / "a.wav", chunk(b"guan", f"GUANO|Version: 1.0\n{line}\nSerial: 7".encode())))
    assert (facts.recorded_at, facts.serial) == (time, "7")


@pytest.mark.parametrize(
    ("position", "place"),
    [
        ("37.5 -86.25", ("37.5", "-86.25")),
        ("37.5, -86.25", ("37.5", "-86.25")),
        ("0.000000 0.000000", ("", "")),
        ("97.5 1.0", ("", "")),
        ("nan nan", ("", "")),
        ("37.5", ("", "")),
        ("52.5,13.4", ("52.5", "13.4")),
        ("52.5, 13.4", ("52.5", "13.4")),
        ("52,5 13,4", ("52.5", "13.4")),
        ("52,5,13,4", ("", "")),
        ("52.5 13.4 90", ("", "")),
        ("=1+1 2", ("", "")),
    ],
)
def test_a_position_is_one_on_earth_or_none(position: str, place: tuple[str, str], tmp_path: Path) -> None:
    facts = read_metadata(
        wav(tmp_path / "a.wav", chunk(b"guan", f"GUANO|Version: 1\nLoc Position: {position}".encode()))
    )
    assert (facts.latitude, facts.longitude) == place


def test_a_wamd_chunk_of_a_song_meter_is_read(tmp_path: Path) -> None:
    fields: dict[int, str | bytes] = {
        0: b"\1\0",
        1: "SM4BAT-FS",
        2: "S4U01234\0",
        5: "2019-07-04 21:30:00-05:00",
        6: "WGS84,40.12345,S,75.54321,W,120",
        0x11: bytes(3_000),
        0x15: "18.3C",
    }
    path = wav(tmp_path / "a.wav", wamd(fields))
    due = Facts(
        "2019-07-04T21:30:00-05:00", "-40.12345", "-75.54321", "Wildlife Acoustics SM4BAT-FS", "S4U01234", "18.3"
    )
    assert read_metadata(path) == due
    touch = wav(tmp_path / "b.wav", wamd({1: "EMTouch", 5: "2014-04-02 22:59:14.000", 0x14: "WGS84,-40.1,75.5"}))
    assert astuple(read_metadata(touch))[:4] == ("2014-04-02T22:59:14", "-40.1", "75.5", "Wildlife Acoustics EMTouch")
    both = wav(tmp_path / "c.wav", wamd(fields), chunk(b"guan", b"GUANO|Version: 1.0\nSerial: 9\n"))
    assert read_metadata(both).serial == "9" and read_metadata(both).temperature == "18.3", (
        "each fills the other's gaps"
    )


@pytest.mark.parametrize(
    ("comment", "time", "temperature"),
    [
        (MOTH, "2020-12-14T19:22:55-05:00", "24.5"),
        (MOTH.replace("(UTC-5)", "(UTC)"), "2020-12-14T19:22:55+00:00", "24.5"),
        (MOTH.replace("(UTC-5)", "(UTC+5:30)"), "2020-12-14T19:22:55+05:30", "24.5"),
        (MOTH.replace(" (UTC-5)", ""), "2020-12-14T19:22:55", "24.5"),
        (MOTH.replace("55 14", "55.250 14").replace("24.5C", "-3.0C"), "2020-12-14T19:22:55.250000-05:00", "-3.0"),
        (MOTH.partition(" and")[0], "2020-12-14T19:22:55-05:00", ""),
        (MOTH.replace("14/12", "14/13"), "", "24.5"),
    ],
)
def test_audiomoths_comment_has_the_day_before_the_month(
    comment: str, time: str, temperature: str, tmp_path: Path
) -> None:
    path = wav(tmp_path / "a.WAV", before=texts(ICMT=comment, IART="AudioMoth 24E144055DDD3203"))
    assert read_metadata(path) == Facts(time, "", "", OAD, "24E144055DDD3203", temperature)
    assert read_metadata(wav(tmp_path / "b.wav", before=texts(ICMT="Recorded at home", IART="Ada"))) == Facts()


def test_comments_survive_the_way_to_flac(tmp_path: Path) -> None:
    with soundfile.SoundFile(tmp_path / "a.flac", "w", 8_000, 1) as file:
        file.comment, file.artist = MOTH, "AudioMoth 24E144055DDD3203"
        file.write(np.zeros(8_000))
    assert read_metadata(tmp_path / "a.flac").serial == "24E144055DDD3203"
    plain = tmp_path / "b.flac"
    soundfile.write(plain, np.zeros(8_000), 8_000)
    whole = plain.read_bytes()
    length = len(b"riff" + chunk(b"guan", GUANO.encode()))
    block = bytes([2, *length.to_bytes(3, "big")]) + b"riff" + chunk(b"guan", GUANO.encode())  # flac --keep-foreign-...
    plain.write_bytes(whole[:42] + block + whole[42:])
    comment = MOTH.encode()
    vorbis = struct.pack("<I", 3) + b"ada" + struct.pack("<II", 1, len(comment) + 8) + b"comment=" + comment
    mine = tmp_path / "c.flac"
    mine.write_bytes(whole[:42] + bytes([4, *len(vorbis).to_bytes(3, "big")]) + vorbis + whole[42:])
    assert read_metadata(plain).serial == "451202"
    assert read_metadata(mine).recorded_at == "2020-12-14T19:22:55-05:00"


def test_the_file_counts_and_a_name_that_says_otherwise_is_named(tmp_path: Path) -> None:
    said: dict[str, tuple[str, list[str]]] = {}
    comment = texts(ICMT=MOTH.replace("19:22:55 14/12/2020 (UTC-5)", "05:30:00 01/05/2024 (UTC+2)"))
    for name in ("20240501_053000", "20240501_033000", "20240501_063000", "20240501", "20240502", "owl", "240501_0530"):
        facts, told = facts_in(wav(tmp_path / f"{name}.WAV", before=comment))
        said[name] = facts.recorded_at, told
    assert {time for time, _ in said.values()} == {"2024-05-01T05:30:00+02:00"}
    assert [name for name, (_, told) in said.items() if told] == ["20240501_063000", "20240502"]
    assert said["20240502"][1] == ["its name says 2024-05-02, the file 2024-05-01T05:30:00+02:00, which is taken"]


def test_what_the_file_does_not_know_the_name_may(tmp_path: Path) -> None:
    naive = chunk(b"guan", b"GUANO|Version:1.0\nTimestamp:2019-06-26T16:00:00\n")
    facts, told = facts_in(wav(tmp_path / "20190626T160000+1000_REC_-27.3888+152.8808.wav", naive))
    assert (facts.recorded_at, facts.latitude, told) == ("2019-06-26T16:00:00+10:00", "-27.3888", [])
    dead = chunk(b"guan", b"GUANO|Version:1.0\nTimestamp:1970-01-01T00:00:02\n")
    facts, told = facts_in(wav(tmp_path / "20240501_053000.wav", dead))
    assert facts.recorded_at == "2024-05-01T05:30:00" and told[0].startswith("the clock in the file says 1970-01-01")
    there = chunk(b"guan", b"GUANO|Version:1.0\nLoc Position: 10.5 20.5\n")
    facts, told = facts_in(wav(tmp_path / "20190626T160000+1000_REC_-27.3888+152.8808.wav", there))
    assert facts.latitude == "10.5" and told == [
        "its name says -27.3888, 152.8808, the file 10.5, 20.5, which is taken"
    ]


def test_what_is_no_file_of_a_recorder_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "text.wav").write_text("RIFF and the owl called twice")
    (tmp_path / "empty.flac").touch()
    for name in ("folder.wav", "text.wav", "empty.flac", "gone.wav", "x" * 300 + ".wav", "a\0b.wav"):
        assert read_metadata(tmp_path / name) == Facts()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@example(b"LIST" + struct.pack("<I", 16) + b"INFOICMT" + struct.pack("<I", 2**32 - 1), b"")
@example(b"wamd" + struct.pack("<I", 12) + struct.pack("<HI", 1, 2**32 - 1), b"\xff" * 9)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_whatever_stands_in_a_file_nothing_breaks(tmp_path: Path, one: bytes, other: bytes) -> None:
    for name in (b"guan", b"wamd", b"LIST"):
        path = wav(tmp_path / "20240501_053000.wav", one, chunk(name, other), before=chunk(name, one))
        facts, _ = facts_in(path)
        assert all(cell == "" or cell.isprintable() for cell in astuple(facts))
    (tmp_path / "a.flac").write_bytes(b"fLaC\4\0\0" + bytes([len(one)]) + one + other)
    read_metadata(tmp_path / "a.flac")
