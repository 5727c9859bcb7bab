"""What recorders write into file names: when, where, by which device.

    read_name("H21_20230510_051500.ogg")    # recorded_at 2023-05-10T05:15:00, site H21

A time without an offset is what the recorder's clock said, in no known zone: AudioMoth counts in UTC unless set
otherwise, Song Meter in local time. A time that cannot be right is left out and the reason given. The examples
in tests/test_recorders.py are the specification.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

LONGEST = 255  # characters; no file system has longer names
EARLIEST = 1990  # field recordings before were dated by somebody, not by a clock
FIRST_AUDIOMOTH = 2017  # eight hex digits that mean an earlier time are a number, not a time

DAY = r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)"
CLOCK = r"(?P<hour>\d\d)[-:](?P<minute>\d\d)[-:](?P<second>\d\d)(?!\d)"
FIRST, LAST = r"(?<![0-9A-Za-z])", r"(?![0-9A-Za-z])"  # in a token
FRACTION = r"(?:(?:\.|_(?=\d{3}(?:\.|$)))(?P<fraction>\d{3}|\d{6})(?![0-9A-Ya-z]))?"  # .982648, or _010 at the end
OFFSET = r"(?:(?:_(?=[+-]))?(?P<offset>Z|[+-](?:0\d|1[0-4]):?(?:00|15|30|45))(?![0-9A-Za-z]|\.\d))?"

STYLES = [  # the surest first
    re.compile(pattern, re.ASCII)
    for pattern in (
        # 20240501_053000, 20190626T160000+1000, 20070415051314; Frontier Labs: S before it, a day with a space for 0
        rf"(?:{FIRST}S)?(?<!\d)(?P<year>\d{{4}})(?P<month>\d\d)(?P<day>[ \d]\d)[T_$ -]?"
        rf"(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)(?!\d){FRACTION}{OFFSET}",
        # BirdNET-Pi: 2024-03-19-birdnet-09:48:32; cut out of it, species and confidence stand before
        rf"^(?:.*-)?{DAY}-birdnet-(?:RTSP_\d+-)?{CLOCK}",
        # OwlSense: 2024-11-27_T16-47-33
        rf"(?<!\d){DAY}(?:_T|[T_ -]){CLOCK}{FRACTION}{OFFSET}",
        # SoundTrap: its serial number before it, as in 671629352.181204100002
        rf"(?<=\d\.)(?P<yy>\d\d)(?P<month>\d\d)(?P<day>\d\d)(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d){LAST}",
        # Arbimon: 2016-09-10_07-30
        rf"(?<!\d){DAY}(?:_T|[T_ ])(?P<hour>\d\d)[-:](?P<minute>\d\d){LAST}(?![-:]\d)",
        # Zoom, Tascam: 240501_0007, the seventh recording of that day
        rf"(?:^(?P<yy>\d\d)(?P<month>\d\d)(?P<day>\d\d)_\d{{3,4}}){LAST}",
        rf"{FIRST}(?P<yy>\d\d)(?P<month>\d\d)(?P<day>\d\d)_00\d\d{LAST}",
        # short_180801_1630
        rf"{FIRST}(?P<yy>\d\d)(?P<month>\d\d)(?P<day>\d\d)_(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)?{LAST}",
        # a date alone: 2024-03-19, 20240501; four digits behind it may be a time or a counter
        rf"{FIRST}(?P<year>(?:19|20)\d\d)(?P<dash>-?)(?P<month>\d\d)(?P=dash)(?P<day>\d\d){LAST}",
        # AudioMoth, old firmware: 5B07FAC0 is Unix time; of eight decimal digits nobody knows
        r"^(?=0{8}|\d{0,7}[A-F])(?P<unix>[0-9A-F]{8})(?=\.(?i:wav|flac)$|$)",
    )
]
FOLDER_OF_A_DAY = re.compile(r"(?:^|[/\\])(\d{8})[/\\](\d{6}T?(?:\.\w{1,9})?)$", re.ASCII)  # 20240501/053000.WAV
COORDINATES = re.compile(  # -27.3888+152.8808, [-27.3866 152.8761]
    r"[\[_ ](?P<latitude>[+-]?\d{1,2}\.\d{3,10})(?: |(?=[+-]))(?P<longitude>[+-]?\d{1,3}\.\d{3,10})(?!\d)", re.ASCII
)
MARKER = re.compile(r"[\d+]*", re.ASCII)  # channels and gain, as in 0+1_0
DEGREES = re.compile(r"[+-]?\d{1,3}(?:\.\d{1,12})?", re.ASCII)


@dataclass(frozen=True)
class NameFacts:
    """What a file name says; blank where it says nothing."""

    recorded_at: str = ""  # ISO 8601: 2019-06-26T16:00:00+10:00, naive where the offset is not known, or a date alone
    site: str = ""  # of the site or the device, what stands before the date: H21, SMM09889
    latitude: str = ""  # decimal degrees
    longitude: str = ""
    warning: str = ""  # why a time that seems to be in the name is not believed


def read_name(name: str, today: date | None = None) -> NameFacts:
    """What stands in the name of a recording.

    name     with or without folders and suffix; only the last part counts, except in 20240501/053000.WAV
    today    a recording made later than the day after is not believed; the present day where it is not given
    """
    in_folder = FOLDER_OF_A_DAY.search(name[-LONGEST:])
    last = "_".join(in_folder.groups()) if in_folder else name.replace("\\", "/").rpartition("/")[2]
    if len(last) > LONGEST:
        return NameFacts()
    for match in (match for style in STYLES for match in style.finditer(last)):
        part = match.groupdict()
        when = time_in(part)
        if when is None:
            continue
        warning = doubt(when, FIRST_AUDIOMOTH if "unix" in part else EARLIEST, today or date.today())
        written = when if "unix" in part or "hour" in part else when.date()
        return NameFacts(
            "" if warning else written.isoformat(),
            site(last[: match.start()]),
            *coordinates_in(last[match.end() :]),
            warning,
        )
    return NameFacts()


def time_in(part: Mapping[str, str | None]) -> datetime | None:
    """The time that the named groups of a match spell, or None where the calendar or the clock has no such time."""
    if unix := part.get("unix"):
        return datetime.fromtimestamp(int(unix, 16), UTC)
    year = int(part.get("year") or f"20{part['yy']}")
    month, day, hour, minute, second = (int(part.get(u) or 0) for u in ("month", "day", "hour", "minute", "second"))
    midnight = (hour, minute, second) == (24, 0, 0)  # at the end of the day
    fraction = (part.get("fraction") or "").ljust(6, "0")
    offset = part.get("offset")
    zone = datetime.strptime(offset, "%z").tzinfo if offset else None
    try:
        start = datetime(year, month, day, 0 if midnight else hour, minute, second, int(fraction), zone)
        return start + timedelta(days=midnight)
    except (ValueError, OverflowError):  # month 13, the end of the year 9999
        return None


def doubt(when: datetime, earliest: int, today: date) -> str:
    """Why nothing was recorded at that time, blank where it may have been."""
    if when.year == 1970:
        return f"says {when.date()}: the recorder's clock was not set"
    if when.year < earliest:
        return f"says {when.date()}: no recorder wrote such a name before {earliest}"
    if (when.date() - today).days > 1:
        return f"says {when.date()}: that is in the future"
    return ""


def site(before: str) -> str:
    """The last token before the date that is no marker of channel or gain: S01 of BC2026_Train_1_S01_."""
    tokens = [token.strip(" -.") for token in before.split("_")]
    return next((token for token in reversed(tokens) if not MARKER.fullmatch(token)), "")


def coordinates_in(behind: str) -> tuple[str, str]:
    """Latitude and longitude behind the time; blank where there are none on Earth, or both 0: no satellite was seen."""
    match = COORDINATES.search(behind)
    if match is None:
        return "", ""
    return on_earth(match["latitude"], match["longitude"])


def on_earth(latitude: str, longitude: str) -> tuple[str, str]:
    """Two numbers as decimal degrees, blank where they lie nowhere on Earth."""
    if not (DEGREES.fullmatch(latitude) and DEGREES.fullmatch(longitude)):
        return "", ""
    north, east = Decimal(latitude), Decimal(longitude)
    return (f"{north:f}", f"{east:f}") if abs(north) <= 90 and abs(east) <= 180 and (north or east) else ("", "")


if __name__ == "__main__":
    for name in (
        "SMM09889_20230625_211402.wav",
        "20190626T160000+1000_REC_-27.3888+152.8808.flac",
        "20240501/053000.WAV",
        "5B07FAC0.WAV",
        "2024-03-19-birdnet-09:48:32.wav",
        "H21_19700101_000000.WAV",
        "soundscape_8358733.ogg",
    ):
        facts = read_name(name)
        print(
            f"{name:50}", facts.recorded_at or facts.warning or "no time", facts.site, facts.latitude, facts.longitude
        )
    assert read_name("H21_20230510_051500.ogg") == NameFacts("2023-05-10T05:15:00", site="H21")
