"""What recorders write into their files beside the sound: GUANO, WAMD, AudioMoth's comment; and what is known in all.

    read_metadata(Path("20240501_053000.WAV"))   # time with its zone, position, make, serial number, temperature
    facts_of(Path("20240501_053000.WAV"))        # the name asked too: the file counts, and where both differ is said

Reads    the chunks of WAV files, the comments of FLAC files; never their sound

Nothing in a file is trusted: a number that is none and a time that cannot be right are left out. The package `guano`
reads the first of the three only, and refuses a whole file for one bad value in it.

source    https://github.com/riggsd/guano-spec, wa_meta.h of Wildlife Acoustics (in the documents of
          https://github.com/QutEcoacoustics/emu), setHeaderComment of
          https://github.com/OpenAcousticDevices/AudioMoth-Firmware-Basic
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from archive.recorders import EARLIEST, LONGEST, NameFacts, doubt, on_earth, read_name
from runtime.addresses import Address
from sounds.notes import chunks, plain_text

SAME_TIME = timedelta(minutes=1)  # names count in minutes, some
SAME_PLACE = Decimal("0.01")  # degrees
WAMD_MODEL, WAMD_SERIAL, WAMD_TIME, WAMD_GPS, WAMD_POSITION, WAMD_INSIDE, WAMD_OUTSIDE = 1, 2, 5, 6, 20, 21, 22
AUDIOMOTH_TIME = re.compile(
    r"Recorded at (\d\d):(\d\d):(\d\d)(?:\.(\d{3}))? (\d\d)/(\d\d)/(\d{4})"
    r"(?: (\(UTC(?:([+-])(\d{1,2})(?::(\d\d))?)?\)))?",
    re.ASCII,
)
AUDIOMOTH = re.compile(r"(\w*Moth) ([0-9A-F]{16})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the recorder says of a recording; blank where it says nothing."""

    recorded_at: str = ""  # ISO 8601, with an offset where that is known
    latitude: str = ""  # decimal degrees
    longitude: str = ""
    make: str = ""  # of the recorder, and its model
    serial: str = ""
    temperature: str = ""  # degrees Celsius, outside of the device where it measures there
    warning: str = ""  # why a time is not believed


def facts_in(path: Path) -> tuple[Facts, list[str]]:
    """What is known of a recording from its file and its name, and what to say where these are doubtful."""
    return combined(read_name("/".join(path.parts[-2:])), read_metadata(path))


def combined(named: NameFacts, written: Facts) -> tuple[Facts, list[str]]:
    """What name and file say together. The file counts; where it has no zone or no clock, a name that agrees has."""
    said = [f"the clock in the file {written.warning}"] if written.warning and not written.recorded_at else []
    said += [f"the name {named.warning}"] if named.warning and not written.recorded_at else []
    when = written.recorded_at or named.recorded_at
    if same_time(named.recorded_at, written.recorded_at):
        when = max((written.recorded_at, named.recorded_at), key=precision)
    else:
        said.append(f"its name says {named.recorded_at}, the file {written.recorded_at}, which is taken")
    coordinates, other = (written.latitude, written.longitude), (named.latitude, named.longitude)
    if not same_coordinates(other, coordinates):
        said.append(f"its name says {', '.join(other)}, the file {', '.join(coordinates)}, which is taken")
    coordinates = coordinates if coordinates[0] else other
    return Facts(when, *coordinates, written.make, written.serial, written.temperature), said


def doubts(said: Sequence[str], most: int = 5) -> list[str]:
    """What to say of names and files that contradict each other or themselves, in one line."""
    if not said:
        return []
    more = f" and {len(said) - most} more" if len(said) > most else ""
    return [f"{len(said)} times or positions are doubtful: {'; '.join(said[:most])}{more}"]


def precision(written: str) -> tuple[bool, bool, bool]:
    """What a time has: a date, a clock, a zone. Of equals the first is taken, that of the file."""
    return bool(written), "T" in written, "T" in written and datetime.fromisoformat(written).tzinfo is not None


def same_time(named: str, written: str) -> bool:
    """Whether two times may be the same, as far as both are known: a naive one is local or in UTC, nobody knows."""
    if not (named and written):
        return True
    readings = [
        {clock.replace(tzinfo=None), clock.astimezone(UTC).replace(tzinfo=None)} if clock.tzinfo else {clock}
        for clock in (datetime.fromisoformat(named), datetime.fromisoformat(written))
    ]
    if "T" not in named or "T" not in written:
        return bool({when.date() for when in readings[0]} & {when.date() for when in readings[1]})
    if all(datetime.fromisoformat(time).tzinfo for time in (named, written)):
        return abs(datetime.fromisoformat(named) - datetime.fromisoformat(written)) < SAME_TIME
    return any(abs(one - other) < SAME_TIME for one in readings[0] for other in readings[1])


def same_coordinates(named: tuple[str, str], written: tuple[str, str]) -> bool:
    """Whether two positions are within a kilometre or so, as far as both are known."""
    if not (named[0] and written[0]):
        return True
    return all(abs(Decimal(one) - Decimal(other)) <= SAME_PLACE for one, other in zip(named, written, strict=True))


def read_metadata(path: Path) -> Facts:
    """What the recorder wrote into the file, blank where it wrote nothing, or where the file cannot be read; and of one
    at a server, which would be asked for each of a million."""
    if path.suffix.lower() not in (".wav", ".flac") or isinstance(path, Address):
        return Facts()
    try:
        if not path.is_file():  # a pipe would never end
            return Facts()
        with path.open("rb", buffering=2048) as file:
            texts = dict(reversed(list(chunks(file))))
    except (OSError, ValueError):  # a name that is none
        return Facts()
    found: list[Facts] = []
    comment = plain_text(texts["comment"]) if "comment" in texts else ""
    if guano := plain_text(texts["guan"]) if "guan" in texts else comment if comment.startswith("GUANO|") else "":
        found.append(read_guano(guano))
    if "wamd" in texts:
        found.append(read_wamd(texts["wamd"]))
    if comment:
        found.append(read_comment(comment, plain_text(texts.get("artist", b""))))
    if len(found) < 2:
        return found[0] if found else Facts()
    return Facts(*(next((value for value in values if value), "") for values in zip(*map(astuple, found), strict=True)))


def read_guano(text: str) -> Facts:
    """A chunk `guan`: lines of key and value; where a converter joined them, between semicolons."""
    lines = text.split("\n" if "\n" in text else ";")
    cell = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    device = make_and_model(cell.get("Make", ""), cell.get("Model", ""))
    temperature = cell.get("Temperature Ext", "") or cell.get("Temperature Int", "")
    degrees = two_numbers(cell.get("Loc Position", ""))
    return checked_facts(cell.get("Timestamp", ""), degrees, device, cell.get("Serial", ""), temperature)


def two_numbers(text: str) -> list[str]:
    """Latitude and longitude: 52.5 13.4, 52.5,13.4 or 52,5 13,4; blank where there are not exactly two."""
    parts = text.replace(", ", " ").split()
    parts = parts[0].split(",") if len(parts) == 1 else [part.replace(",", ".") for part in parts]
    return parts if len(parts) == 2 else ["", ""]


def read_wamd(body: bytes) -> Facts:
    """A chunk `wamd` of Wildlife Acoustics: numbered fields, texts in ASCII."""
    field: dict[int, str] = {}
    offset = 0
    while offset + 6 <= len(body):
        number, length = (
            int.from_bytes(body[offset : offset + 2], "little"),
            int.from_bytes(body[offset + 2 : offset + 6], "little"),
        )
        field.setdefault(number, plain_text(body[offset + 6 : offset + 6 + length]).strip() if length < LONGEST else "")
        offset += 6 + length
    where = [part.strip() for part in (field.get(WAMD_GPS) or field.get(WAMD_POSITION, "")).split(",")][1:]
    if len(where) >= 4 and where[1] in ("N", "S") and where[3] in ("E", "W"):
        signs = "-" if where[1] == "S" else "", "-" if where[3] == "W" else ""
        where = [signs[0] + where[0], signs[1] + where[2]]
    model = field.get(WAMD_MODEL, "")
    temperature = field.get(WAMD_OUTSIDE, "") or field.get(WAMD_INSIDE, "")
    make = make_and_model("Wildlife Acoustics", model) if model else ""
    return checked_facts(field.get(WAMD_TIME, ""), [*where, "", ""][:2], make, field.get(WAMD_SERIAL, ""), temperature)


def read_comment(comment: str, artist: str) -> Facts:
    """AudioMoth's comment: Recorded at 19:22:55 14/12/2020 (UTC-5) by AudioMoth 24E144055DDD3203 at medium gain ..."""
    when, device = AUDIOMOTH_TIME.search(comment), AUDIOMOTH.search(comment) or AUDIOMOTH.search(artist)
    if not when or not device:
        return Facts()
    hour, minute, second, fraction, day, month, year, zone, sign, hours, minutes = when.groups()
    offset = f"{sign}{int(hours):02}:{minutes or '00'}" if sign else "+00:00" if zone else ""
    time = f"{year}-{month}-{day}T{hour}:{minute}:{second}{f'.{fraction}' if fraction else ''}{offset}"
    warmth = re.search(r"temperature was (-?\d+(?:\.\d+)?)C", comment)
    return checked_facts(time, ["", ""], f"Open Acoustic Devices {device[1]}", device[2], warmth[1] if warmth else "")


def checked_facts(time: str, degrees: Sequence[str], make: str, serial: str, temperature: str) -> Facts:
    """Facts as a file spells them, blank where they cannot be."""
    try:
        clock = datetime.fromisoformat(re.sub(r"\s+(?=[+-]\d)", "", time))
    except ValueError:
        clock = None
    warning = doubt(clock, EARLIEST, date.today()) if clock else ""
    alone = len(time) <= 10  # a date without a clock
    when = "" if clock is None or warning else clock.date().isoformat() if alone else clock.isoformat()
    warmth = re.fullmatch(r"([+-]?\d{1,2}(?:\.\d{1,4})?) ?C?", temperature)
    make, serial = (" ".join(text.split())[:LONGEST] for text in (make, serial))
    return Facts(when, *on_earth(*degrees), make, serial, warmth[1] if warmth else "", warning)


def make_and_model(make: str, model: str) -> str:
    """Make and model of a device in one: Wildlife Acoustics SM4, and not Titley Titley Swift."""
    return model if model.startswith(make) else f"{make} {model}".strip()


if __name__ == "__main__":
    guano = b"GUANO|Version:1.0\nTimestamp:2024-05-01T05:30:00+02:00\nMake:Titley Scientific\nSerial:451\n"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "20240501_043000.wav")
        path.write_bytes(b"RIFF\0\0\0\0WAVEguan" + len(guano).to_bytes(4, "little") + guano)
        found, said = facts_in(path)
    print(found, *said, sep="\n")
    assert found.recorded_at == "2024-05-01T05:30:00+02:00" and "043000" not in said[0] and "04:30:00" in said[0]
