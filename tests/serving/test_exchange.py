"""What is given away: read back by the programs it is for, positions coarsened, what was denied left out."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pretend import write_table

from config import CountCommand, Exchange
from serving.detections import DETECTION_COLUMNS
from serving.exchange import coarsened, shared_path, write_exchange
from serving.results import Results, read_results
from serving.review import Verdict
from serving.tables import FILE_COLUMNS

KINDS: tuple[Exchange, ...] = ("camtrap-dp", "darwin-core", "crowsetta", "aoef")
HOSTILE = '=cmd(),"quoted"\nnew line'
# Camtrap DP 1.0.2: the columns that must be filled, and those with a list of words or a type of their own
TYPES = {
    **dict.fromkeys(("latitude", "longitude", "classificationProbability"), "number"),
    **dict.fromkeys(("coordinateUncertainty", "count"), "integer"),
    **dict.fromkeys(("timestampIssues", "filePublic", "favorite"), "boolean"),
    **dict.fromkeys(("deploymentStart", "deploymentEnd", "timestamp", "eventStart", "eventEnd"), "datetime"),
}
REQUIRED = {
    *("deploymentID", "latitude", "longitude", "deploymentStart", "deploymentEnd", "timestamp", "filePath"),
    *("filePublic", "fileMediatype", "observationID", "eventStart", "eventEnd", "observationLevel", "observationType"),
}
WORDS = {"observationLevel": ["media", "event"], "classificationMethod": ["human", "machine"]}
PATTERNS = {
    "filePath": r"^https?:\/\/.*|(^(?=[^.\/~])(^((?!\.{2}).)*$).*$)",
    "fileMediatype": r"^(image|video|audio)/.*$",
}


@pytest.fixture
def season(tmp_path: Path) -> Results:
    """Two recordings with a time and a position, one without, and one that nobody could read."""
    files = [
        {"file": "card/pond/dawn.wav", "site": "pond", "latitude": "4.6012", "longitude": "-74.0734"},
        {"file": "/mnt/../card/wood.flac", "site": HOSTILE, "latitude": "4.7", "longitude": "-74.1"},
        {"file": "nowhere.wav", "site": "", "recorded_at": "", "latitude": "", "longitude": ""},
        {"file": "notes.wav", "status": "unreadable", "recorded_at": ""},
    ]
    usual = {"recorded_at": "2026-05-14T05:30:00-05:00", "sample_rate": "48000", "channels": "1", "status": "ok"}
    usual |= {"seconds_claimed": "60", "seconds_analysed": "60", "windows": "12", "serial": "247", "make": "AudioMoth"}
    write_table(tmp_path / "files.csv", FILE_COLUMNS, [usual | row for row in files])
    found = [
        {"File": file, "Start (s)": str(start), "End (s)": str(start + 5), "Scientific name": name, "Confidence": "0.5"}
        for file, start, name in (
            ("card/pond/dawn.wav", 0, "Rana ficta"),
            ("card/pond/dawn.wav", 0, "Parus fictus"),
            ("card/pond/dawn.wav", 5, "Rana ficta"),
            ("/mnt/../card/wood.flac", 10, HOSTILE),
            ("nowhere.wav", 15, "Rana ficta"),
        )
    ]
    rows = [row | {"Species code": row["Scientific name"], "Model": "pretend.onnx"} for row in found]
    write_table(tmp_path / "detections.csv", DETECTION_COLUMNS, rows)
    return read_results(tmp_path)


def exported(results: Results, *kinds: Exchange, **settings: Any) -> tuple[int, Path]:
    command = CountCommand(results.folder, export=kinds, **settings)
    verdicts = {
        d: Verdict(d, answer, "", "Ada")
        for d, answer in zip(results.detections[:2], ("yes", "no"), strict=True)  # the frog is there, the tit is not
    }
    return write_exchange(results.folder / "exchange", command, results, verdicts), results.folder / "exchange"


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_what_was_denied_is_left_out_and_who_confirmed_is_named(season: Results) -> None:
    code, folder = exported(season, *KINDS)
    assert code == 2, "a recording without time and position is left out of two of them"
    rows = read(folder / "occurrence.csv")
    assert [row["scientificName"] for row in rows] == ["Rana ficta", "Rana ficta", f"'{HOSTILE}"]
    assert [row["identifiedBy"] for row in rows] == ["Ada", "pretend.onnx", "pretend.onnx"]
    assert rows[1]["eventDate"] == "2026-05-14T05:30:05-05:00/2026-05-14T05:30:10-05:00"
    found = read(folder / "camtrap-dp" / "observations.csv")
    assert [row["classificationMethod"] for row in found] == ["human", "machine", "machine"]
    assert [row["classificationProbability"] for row in found] == ["", "0.5000", "0.5000"]
    assert len({row["observationID"] for row in found}) == 3
    sound = read(folder / "camtrap-dp" / "media-sound.csv")
    assert [row["samplingFrequency"] for row in sound] == ["48000", "48000"]


def test_the_terms_of_the_model_are_said_and_stand_where_others_get_the_detections(
    season: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    terms = "NON-COMMERCIAL: made with the help of BirdNET 2.4 (licence: CC BY-NC-SA 4.0)"
    for said in ([], [terms]):
        _, folder = exported(replace(season, facts={"licences": said}), *KINDS)
        about = json.loads((folder / "camtrap-dp" / "datapackage.json").read_text())["description"]
        remarks = [row["identificationRemarks"] for row in read(folder / "occurrence.csv")]
        for text in (capsys.readouterr().out, about, *remarks):
            assert (terms in text) == bool(said)


def test_positions_are_those_of_squares(season: Results) -> None:
    _, folder = exported(season, "darwin-core", coarsen_km=10.0)
    row = read(folder / "occurrence.csv")[0]
    north, east = float(row["decimalLatitude"]), float(row["decimalLongitude"])
    away = math.hypot((north - 4.6012) * 111.32, (east + 74.0734) * 111.32 * math.cos(math.radians(4.6)))
    assert (north, east) == coarsened(4.6012, -74.0734, 10) and 0 < away * 1000 <= 7072
    assert row["coordinateUncertaintyInMeters"] == "7072" and "10 km" in row["dataGeneralizations"]
    assert "4.6012" not in "".join(path.read_text() for path in folder.rglob("*") if path.is_file())
    _, folder = exported(season, "darwin-core")  # control
    row = read(folder / "occurrence.csv")[0]
    assert (row["decimalLatitude"], row["coordinateUncertaintyInMeters"]) == ("4.6012", "")


@pytest.mark.parametrize("latitude", [-90.0, -33.9, 0.0, 4.6, 89.99, 90.0])
@pytest.mark.parametrize("longitude", [-180.0, 0.01, 179.99])
def test_every_position_of_a_square_has_the_same_middle_near_it(latitude: float, longitude: float) -> None:
    north, east = coarsened(latitude, longitude, 50)
    assert -90 <= north <= 90 and -180 <= east <= 180
    assert abs(north - latitude) <= 25 / 111.32 + 1e-6 or abs(latitude) > 89
    assert coarsened(north, east, 50) == (north, east) or abs(latitude) > 89 or abs(longitude) > 179


def test_where_nothing_has_a_position_the_package_is_not_written(season: Results) -> None:
    bare = [{**row, "latitude": "", "longitude": ""} for row in season.files]
    code, folder = exported(Results(season.folder, season.detections, tuple(bare), {}, ""), *KINDS)
    assert code == 2 and not (folder / "camtrap-dp").exists()
    assert len(read(folder / "crowsetta.csv")) == 4 and (folder / "aoef.json").is_file()


def test_paths_lead_nowhere_else() -> None:
    for path in ("/etc/passwd", "../../a.wav", "~/a.wav", "./a..b.wav", "a/b.wav"):
        shared = shared_path(path)
        assert shared.startswith("media/") and ".." not in shared and "//" not in shared
    assert shared_path("a/b.wav") == "media/a/b.wav"


def test_the_package_is_valid_for_frictionless(season: Results) -> None:
    """The standard's own schemas lie in the network; here are the columns that it requires, and their types."""
    frictionless = pytest.importorskip("frictionless", reason="requirements-dev.txt has it")
    _, folder = exported(season, "camtrap-dp", coarsen_km=1.0)
    path = folder / "camtrap-dp" / "datapackage.json"
    package = json.loads(path.read_text())
    assert package["profile"].endswith("/1.0.2/camtrap-dp-profile.json")
    del package["profile"]
    for resource in package["resources"][:3]:
        assert resource["schema"].endswith(f"/1.0.2/{resource['name']}-table-schema.json")
        resource["schema"] = schema_of(resource["name"], folder / "camtrap-dp" / resource["path"])
    path.write_text(json.dumps(package))
    report = frictionless.validate(str(path))
    assert report.valid, report.flatten(["title", "fieldName", "message"])
    table = folder / "camtrap-dp" / "observations.csv"
    table.write_text(table.read_text().replace(",animal,", ",,", 1))  # control: a required cell is empty
    assert not frictionless.validate(str(path)).valid


def schema_of(name: str, table: Path) -> dict[str, Any]:
    """What the standard says of a table, in short."""
    fields: list[dict[str, Any]] = []
    for column in table.read_text().splitlines()[0].split(","):
        limits: dict[str, Any] = {"required": column in REQUIRED or column == f"{name.rstrip('s')}ID"}
        limits |= {"enum": WORDS[column]} if column in WORDS else {}
        limits |= {"pattern": PATTERNS[column]} if column in PATTERNS else {}
        kind = TYPES.get(column, "string")
        form = {"format": "%Y-%m-%dT%H:%M:%S%z"} if kind == "datetime" else {}
        fields.append({"name": column, "type": kind, "constraints": limits} | form)
    own = {"deployments": "deploymentID", "media": "mediaID", "observations": "observationID"}[name]
    others = {"media": ["deployments"], "observations": ["deployments", "media"]}.get(name, [])
    key = {"deployments": "deploymentID", "media": "mediaID"}
    foreign = [{"fields": key[one], "reference": {"resource": one, "fields": key[one]}} for one in others]
    return {"fields": fields, "primaryKey": own, "foreignKeys": foreign}


def test_crowsetta_reads_its_generic_format_back(season: Results) -> None:
    crowsetta = pytest.importorskip("crowsetta", reason="requirements-dev.txt has it")
    _, folder = exported(season, "crowsetta")
    found = crowsetta.formats.seq.GenericSeq.from_file(folder / "crowsetta.csv").to_annot()
    dawn = next(each for each in found if str(each.notated_path) == "card/pond/dawn.wav")
    segments = [(each.label, each.onset_s, each.offset_s) for each in dawn.seq.segments]
    assert segments == [("Rana ficta", 0.0, 5.0), ("Rana ficta", 5.0, 10.0)] and len(found) == 3


def test_soundevent_reads_the_exchange_format_back(season: Results) -> None:
    io = pytest.importorskip("soundevent.io", reason="requirements-dev.txt has it")
    _, folder = exported(season, "aoef")
    found = io.load(folder / "aoef.json")
    first = next(each for each in found.clip_predictions if str(each.clip.recording.path) == "card/pond/dawn.wav")
    assert (first.clip.start_time, first.clip.end_time, first.clip.recording.samplerate) == (0.0, 5.0, 48_000)
    assert [(tag.tag.value, tag.score) for tag in first.tags] == [("Rana ficta", 0.5)]
    assert first.clip.recording.latitude == 4.6012 and len(found.clip_predictions) == 4
