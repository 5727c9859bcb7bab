"""Detections for other programs and portals: Camtrap DP, Darwin Core, crowsetta's generic format, AOEF.

    code = write_exchange(folder, config, results, settled)

Writes   camtrap-dp/ (datapackage.json, deployments.csv, media.csv, observations.csv and two tables with the fields for
         sound), occurrence.csv, crowsetta.csv, aoef.json

What a reviewer denied is left out, what one confirmed is said to be a person's. Camtrap DP and Darwin Core know no
observation without time and position: recordings that have none are left out, counted, and the exit code is 2.

Sources  Camtrap DP 1.0.2, https://camtrap-dp.tdwg.org; its proposed fields for sound,
         https://github.com/tdwg/camtrap-dp/issues/437 and /450, lie in tables of their own, since a strict reader knows
         no others in the standard's; Darwin Core, https://dwc.tdwg.org/terms/; AOEF 1.1.0 and the generic format as
         soundevent 2.10 and crowsetta 5.1 read them
"""

from __future__ import annotations

import math
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import NAMESPACE_URL, uuid5

from archive.recordings import is_number
from config import CountCommand
from runtime.cells import no_formula, plain_path, seconds, write_sheet
from runtime.files import write_json
from runtime.terminal import show
from serving.effort import number_in_cell
from serving.inputs import is_moment
from serving.results import Detected, Results, read_results
from serving.review import Verdict, is_rank
from serving.tables import table_name

STANDARD = "https://raw.githubusercontent.com/tdwg/camtrap-dp/1.0.2/"
AOEF_VERSION = "1.1.0"
KM_PER_DEGREE = 111.32
MOST_LATITUDE = 89.0  # degrees: towards the pole a square has no width
MEDIA_TYPES = {"mp3": "mpeg", "m4a": "mp4", "wave": "wav", "opus": "ogg", "oga": "ogg"}  # audio/...
DEPLOYMENTS = (
    *("deploymentID", "locationID", "locationName", "latitude", "longitude", "coordinateUncertainty"),
    *("deploymentStart", "deploymentEnd", "setupBy", "cameraID", "cameraModel", "cameraDelay", "cameraHeight"),
    *("cameraDepth", "cameraTilt", "cameraHeading", "detectionDistance", "timestampIssues", "baitUse", "featureType"),
    *("habitat", "deploymentGroups", "deploymentTags", "deploymentComments"),
)
MEDIA = (
    *("mediaID", "deploymentID", "captureMethod", "timestamp", "filePath", "filePublic", "fileName", "fileMediatype"),
    *("exifData", "favorite", "mediaComments"),
)
OBSERVATIONS = (
    *("observationID", "deploymentID", "mediaID", "eventID", "eventStart", "eventEnd", "observationLevel"),
    *("observationType", "cameraSetupType", "scientificName", "count", "lifeStage", "sex", "behavior"),
    *("individualID", "individualPositionRadius", "individualPositionAngle", "individualSpeed", "bboxX", "bboxY"),
    *("bboxWidth", "bboxHeight", "classificationMethod", "classifiedBy", "classificationTimestamp"),
    *("classificationProbability", "observationTags", "observationComments"),
)
MEDIA_SOUND = {"mediaID": "string", "samplingFrequency": "integer", "duration": "number", "channels": "integer"}
OBSERVATION_SOUND = {"observationID": "string", "frequencyLow": "number", "frequencyHigh": "number"}
OCCURRENCE = (
    *("occurrenceID", "basisOfRecord", "occurrenceStatus", "eventDate", "scientificName", "taxonRank"),
    *("vernacularName", "decimalLatitude", "decimalLongitude", "geodeticDatum", "coordinateUncertaintyInMeters"),
    *("locationID", "samplingProtocol", "sampleSizeValue", "sampleSizeUnit", "identifiedBy"),
    *("identificationVerificationStatus", "identificationRemarks", "associatedMedia", "dataGeneralizations"),
)
GENERIC = ("label", "onset_s", "offset_s", "notated_path", "annot_path", "sequence", "annotation")


@dataclass(frozen=True)
class SharedRecording:
    """A recording as others get it."""

    file: str
    site: str  # a deployment
    began: datetime | None  # with its zone, UTC where none is known
    zoned: bool
    latitude: float | None
    longitude: float | None
    row: Mapping[str, str]  # of files.csv


@dataclass(frozen=True)
class Shared:
    """What is given away: recordings by name, detections that nobody denied, and what is said of them."""

    recordings: Mapping[str, SharedRecording]
    detections: Sequence[Detected]
    verdicts: Mapping[Detected, Verdict]
    coarsen_km: float
    contributor: str
    model: str
    terms: str  # on which that may be used
    band: tuple[float, float]

    @property
    def placed(self) -> list[Detected]:
        """Detections whose recording has time and position."""
        return [d for d in self.detections if is_placed(self.recordings[d.file])]

    @property
    def uncertainty(self) -> str:
        """Metres from the middle of a square to its corner; blank where nothing is coarsened."""
        return str(math.ceil(self.coarsen_km * 1000 * math.sqrt(0.5))) if self.coarsen_km else ""


def write_exchange(folder: Path, config: CountCommand, results: Results, settled: Mapping[Detected, Verdict]) -> int:
    """Write everything asked for; 2 where something had to be left out."""
    shared = undenied(results, settled, config.coarsen_km, config.contributor)
    if shared.terms:
        show(shared.terms)
    formats: dict[str, Callable[[Path, Shared], list[Path]]] = {
        "camtrap-dp": write_camtrap,
        "darwin-core": write_occurrences,
        "crowsetta": write_generic,
        "aoef": write_aoef,
    }
    placing = {"camtrap-dp", "darwin-core"} & set(config.export)
    unplaced = [r for r in shared.recordings.values() if not is_placed(r)] if placing else []
    if unplaced:
        show(
            f"{len(unplaced)} recordings have no time or no position in files.csv, the first of them "
            f"{unplaced[0].file}: left out of {', '.join(sorted(placing))}; predictor.py takes both from a recorder's "
            "metadata, or from a table beside the recordings"
        )
    if placing and not shared.placed:
        show(f"nothing is left for {', '.join(sorted(placing))}, so they are not written")
    for kind in dict.fromkeys(config.export):
        if kind not in placing or shared.placed:
            show("wrote", *formats[kind](folder, shared))
    if any(not r.zoned for r in shared.recordings.values() if r.began) and placing:
        show(
            "some clocks have no time zone; they are given as UTC and marked (timestampIssues): predictor.py --timezone"
        )
    return 2 if unplaced else 0


def undenied(results: Results, settled: Mapping[Detected, Verdict], coarsen_km: float, contributor: str) -> Shared:
    """Detections that nobody denied, and their recordings; positions coarsened."""
    named = {
        d.file: {"file": d.file, "site": d.cell("Site"), "recorded_at": d.cell("Recorded at")}
        for d in results.detections
    }
    rows = named | {
        row["file"]: row for row in results.files if row.get("status", "ok") not in ("unreadable", "skipped")
    }
    recordings = {file: recording_of(row, coarsen_km) for file, row in rows.items()}
    kept = [d for d in results.detections if d.confidence and not (d in settled and settled[d].answer == "no")]
    band: object = results.facts.get("band_hz")
    lowest: object = cast(list[object], band)[0] if isinstance(band, list) and band else 0
    low = float(lowest) if isinstance(lowest, int | float) and 0 < lowest < results.top_hz else 0.0
    model = Path(results.detections[0].cell("Model")).name
    terms = "; ".join(results.licences)
    return Shared(recordings, kept, settled, coarsen_km, contributor, model, terms, (low, results.top_hz))


def recording_of(row: Mapping[str, str], coarsen_km: float) -> SharedRecording:
    """A row of files.csv as others get it."""
    written = row.get("recorded_at", "")
    began = datetime.fromisoformat(written) if "T" in written and is_moment(written) else None
    zoned = began is not None and began.tzinfo is not None
    began = began if began is None or zoned else began.replace(tzinfo=UTC)
    position = row.get("latitude", ""), row.get("longitude", "")
    placed = all(map(is_number, position)) and abs(float(position[0])) <= 90 and abs(float(position[1])) <= 180
    site = row.get("site", "") or "no site"
    if not placed:
        return SharedRecording(row["file"], site, began, zoned, None, None, row)
    latitude, longitude = coarsened(float(position[0]), float(position[1]), coarsen_km)
    return SharedRecording(row["file"], site, began, zoned, latitude, longitude, row)


def coarsened(latitude: float, longitude: float, km: float) -> tuple[float, float]:
    """The middle of the square that a position lies in, of a net that does not depend on the position."""
    if not km:
        return latitude, longitude
    step = km / KM_PER_DEGREE
    north = (math.floor(latitude / step) + 0.5) * step
    north = max(-MOST_LATITUDE, min(MOST_LATITUDE, north))
    wide = min(360.0, step / math.cos(math.radians(north)))
    east = (math.floor(longitude / wide) + 0.5) * wide
    return round(north, 6), round(max(-180.0, min(180.0, east)), 6)


def is_placed(recording: SharedRecording) -> bool:
    return recording.began is not None and recording.latitude is not None


def identifier(*parts: object) -> str:
    """The same words have the same identifier, whenever they are exported."""
    return str(uuid5(NAMESPACE_URL, "\n".join(map(str, parts)).encode("utf-8", "backslashreplace").decode()))


def identifier_of(d: Detected) -> str:
    return identifier(d.file, d.start, d.end, d.label, d.cell("Channel"))


def moment(recording: SharedRecording, second: float = 0.0) -> str:
    """When something was recorded, to the second and with its zone."""
    assert recording.began is not None, f"{recording.file} has no time"
    text = (recording.began + timedelta(seconds=second)).isoformat(timespec="seconds")
    return text.replace("+00:00", "Z")


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> Path:
    """A csv table; what a row does not say is blank."""
    write_sheet(path, [columns, *([no_formula(row.get(column, "")) for column in columns] for row in rows)])
    return path


def write_camtrap(folder: Path, shared: Shared) -> list[Path]:
    """A Camera Trap Data Package: a site is a deployment, a recording a medium, a detection an observation of it."""
    package_folder = folder / "camtrap-dp"
    recordings = [r for r in shared.recordings.values() if is_placed(r)]
    write_table(package_folder / "deployments.csv", DEPLOYMENTS, deployment_rows(recordings, shared))
    write_table(package_folder / "media.csv", MEDIA, [media_row(r) for r in recordings])
    write_table(package_folder / "observations.csv", OBSERVATIONS, [observation_row(d, shared) for d in shared.placed])
    sound = [
        {
            "mediaID": identifier(r.file),
            "samplingFrequency": whole_number(r.row.get("sample_rate", "")),
            "duration": r.row.get("seconds_claimed", ""),
            "channels": whole_number(r.row.get("channels", "")),
        }
        for r in recordings
    ]
    write_table(package_folder / "media-sound.csv", list(MEDIA_SOUND), sound)
    low, high = shared.band
    bands = [
        {"observationID": identifier_of(d), "frequencyLow": f"{low:g}", "frequencyHigh": f"{high:g}" if high else ""}
        for d in shared.placed
    ]
    write_table(package_folder / "observations-sound.csv", list(OBSERVATION_SOUND), bands)
    write_json(package_folder / "datapackage.json", package(recordings, shared))
    return [package_folder / "datapackage.json"]


def whole_number(cell: str) -> str:
    """A number without a fraction, or blank."""
    return str(round(float(cell))) if is_number(cell) and float(cell) > 0 else ""


def deployment_rows(recordings: Sequence[SharedRecording], shared: Shared) -> list[dict[str, str]]:
    """One deployment per site and position, from its first recording to the end of its last."""
    together: defaultdict[str, list[SharedRecording]] = defaultdict(list)
    for r in recordings:
        together[deployment(r)].append(r)
    rows: list[dict[str, str]] = []
    for name, found in together.items():
        first, last = found[0], max(found, key=lambda r: moment_end(r))
        earliest = min(found, key=lambda r: r.began or datetime.max.replace(tzinfo=UTC))
        rows.append(
            {
                "deploymentID": name,
                "locationID": name,
                "locationName": first.site,
                "latitude": f"{first.latitude}",
                "longitude": f"{first.longitude}",
                "coordinateUncertainty": shared.uncertainty,
                "deploymentStart": moment(earliest),
                "deploymentEnd": moment(last, length(last)),
                "cameraID": first.row.get("serial", ""),
                "cameraModel": first.row.get("make", ""),
                "timestampIssues": "false" if all(r.zoned for r in found) else "true",
                "deploymentComments": "an audio recorder, no camera",
            }
        )
    return rows


def deployment(recording: SharedRecording) -> str:
    """A site at its position: a recorder that was moved is another deployment."""
    return identifier(recording.site, recording.latitude, recording.longitude)


def length(recording: SharedRecording) -> float:
    return number_in_cell(recording.row.get("seconds_claimed", ""))


def moment_end(recording: SharedRecording) -> datetime:
    assert recording.began is not None, f"{recording.file} has no time"
    return recording.began + timedelta(seconds=length(recording))


def media_row(recording: SharedRecording) -> dict[str, str]:
    """A recording; its path below the package, wherever it was."""
    suffix = Path(recording.file).suffix.lower().lstrip(".") or "unknown"
    return {
        "mediaID": identifier(recording.file),
        "deploymentID": deployment(recording),
        "timestamp": moment(recording),
        "filePath": shared_path(recording.file),
        "filePublic": "false",
        "fileName": Path(recording.file).name,
        "fileMediatype": f"audio/{MEDIA_TYPES.get(suffix, suffix)}",
    }


def shared_path(file: str) -> str:
    """A relative path that leads nowhere else, as the standard asks for it."""
    return "media/" + table_name(file).replace("..", "_")


def observation_row(d: Detected, shared: Shared) -> dict[str, str]:
    """A detection; who confirmed it counts more than the classifier."""
    recording, verdict = shared.recordings[d.file], shared.verdicts.get(d)
    machine = {"classificationMethod": "machine", "classifiedBy": shared.model}
    human = {"classificationMethod": "human", "classifiedBy": verdict.reviewer if verdict else ""}
    return {
        "observationID": identifier_of(d),
        "deploymentID": deployment(recording),
        "mediaID": identifier(d.file),
        "eventStart": moment(recording, d.start),
        "eventEnd": moment(recording, d.end),
        "observationLevel": "media",
        "observationType": "animal",
        "scientificName": scientific(d),
        **(human if verdict else machine | {"classificationProbability": f"{d.confidence:.4f}"}),
        "observationTags": f"start:{seconds(d.start)} | end:{seconds(d.end)} | confidence:{d.confidence:.4f}",
    }


def scientific(d: Detected) -> str:
    return d.cell("Scientific name") or d.cell("Common name") or d.label


def rank_of(d: Detected) -> str:
    return d.label.partition(" ")[0] if is_rank(d.label) else "species"


def package(recordings: Sequence[SharedRecording], shared: Shared) -> dict[str, Any]:
    """datapackage.json."""
    # when, where, what
    days = sorted([r.began for r in recordings if r.began] + [moment_end(r) for r in recordings])
    places = [(r.longitude, r.latitude) for r in recordings if r.longitude is not None and r.latitude is not None]
    west, south = (min(place[axis] for place in places) for axis in (0, 1))
    east, north = (max(place[axis] for place in places) for axis in (0, 1))
    corners = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    taxa = {scientific(d): d for d in shared.placed}
    # the columns that the standard does not have
    own = [
        {"name": name, "type": kind} | ({"constraints": {"required": True}} if kind == "string" else {})
        for name, kind in MEDIA_SOUND.items()
    ]
    bands = [
        {"name": name, "type": kind} | ({"constraints": {"required": True}} if kind == "string" else {})
        for name, kind in OBSERVATION_SOUND.items()
    ]
    return {
        "profile": f"{STANDARD}camtrap-dp-profile.json",
        "name": "acoustic-season",
        "id": identifier(*sorted(r.file for r in recordings)),
        "created": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "title": "Detections in a season of sound",
        "description": f"Detections of {shared.model} in recordings; what a reviewer denied is left out."
        + (f" On the terms of the model: {shared.terms}" if shared.terms else ""),
        "contributors": [{"title": shared.contributor, "role": "contributor"}],
        "keywords": ["bioacoustics", "passive acoustic monitoring"],
        "project": {
            "title": "a season of sound",
            "samplingDesign": "opportunistic",
            "captureMethod": ["timeLapse"],
            "individualAnimals": False,
            "observationLevel": ["media"],
        },
        **({"coordinatePrecision": round(shared.coarsen_km / KM_PER_DEGREE, 6)} if shared.coarsen_km else {}),
        "spatial": {"type": "Polygon", "bbox": [west, south, east, north], "coordinates": [corners]},
        "temporal": {"start": days[0].date().isoformat(), "end": days[-1].date().isoformat()},
        "taxonomic": [taxon(name, d) for name, d in sorted(taxa.items())],
        "resources": [
            *(
                resource(name, f"{STANDARD}{name}-table-schema.json")
                for name in ("deployments", "media", "observations")
            ),
            resource("media-sound", {"fields": own, "primaryKey": "mediaID"}),
            resource("observations-sound", {"fields": bands, "primaryKey": "observationID"}),
        ],
    }


def taxon(name: str, d: Detected) -> dict[str, object]:
    """What the package says of a species."""
    common = d.cell("Common name")
    about: dict[str, object] = {"scientificName": name, "taxonRank": rank_of(d)}
    return about | ({"vernacularNames": {"eng": common}} if common else {})


def resource(name: str, schema: object) -> dict[str, object]:
    """A table of the package."""
    about = {"profile": "tabular-data-resource", "format": "csv", "mediatype": "text/csv", "encoding": "utf-8"}
    return {"name": name, "path": f"{name}.csv", **about, "schema": schema}


def write_occurrences(folder: Path, shared: Shared) -> list[Path]:
    """Darwin Core: one occurrence per detection."""
    return [write_table(folder / "occurrence.csv", OCCURRENCE, [occurrence(d, shared) for d in shared.placed])]


def occurrence(d: Detected, shared: Shared) -> dict[str, str]:
    """A detection as Darwin Core has it."""
    recording, verdict = shared.recordings[d.file], shared.verdicts.get(d)
    squares = f"positions are those of squares of {shared.coarsen_km:g} km" if shared.coarsen_km else ""
    return {
        "occurrenceID": identifier_of(d),
        "basisOfRecord": "MachineObservation",
        "occurrenceStatus": "present",
        "eventDate": f"{moment(recording, d.start)}/{moment(recording, d.end)}",
        "scientificName": scientific(d),
        "taxonRank": rank_of(d),
        "vernacularName": d.cell("Common name"),
        "decimalLatitude": f"{recording.latitude}",
        "decimalLongitude": f"{recording.longitude}",
        "geodeticDatum": "WGS84",
        "coordinateUncertaintyInMeters": shared.uncertainty,
        "locationID": recording.site,
        "samplingProtocol": "passive acoustic monitoring",
        "sampleSizeValue": seconds(d.end - d.start),
        "sampleSizeUnit": "second",
        "identifiedBy": verdict.reviewer if verdict else shared.model,
        "identificationVerificationStatus": "verified by human" if verdict else "unverified",
        "identificationRemarks": "; ".join(
            part for part in (f"confidence {d.confidence:.4f} of {shared.model}", shared.terms) if part
        ),
        "associatedMedia": Path(d.file).name,
        "dataGeneralizations": squares,
    }


def write_generic(folder: Path, shared: Shared) -> list[Path]:
    """crowsetta's generic-seq: one annotation per recording, its segments in the order of time."""
    numbers: dict[str, int] = {}
    rows: list[dict[str, str]] = []
    for d in sorted(shared.detections, key=lambda d: (d.file, d.start, d.label)):
        number = numbers.setdefault(d.file, len(numbers))
        label, path = scientific(d), plain_path(d.file)
        times = {"onset_s": f"{d.start:.4f}", "offset_s": f"{d.end:.4f}"}
        paths = {"notated_path": path, "annot_path": "detections.csv"}
        rows.append({"label": label, **times, **paths, "sequence": "0", "annotation": str(number)})
    return [write_table(folder / "crowsetta.csv", GENERIC, rows)]


def write_aoef(folder: Path, shared: Shared) -> list[Path]:
    """AOEF: a set of predictions, one clip per window."""
    tags = {name: number for number, name in enumerate(dict.fromkeys(map(scientific, shared.detections)))}
    used = dict.fromkeys(d.file for d in shared.detections)
    windows: defaultdict[tuple[str, float, float], list[Detected]] = defaultdict(list)
    for d in shared.detections:
        windows[d.file, d.start, d.end].append(d)
    clips = {window: identifier("clip", *window) for window in windows}
    content = {
        "uuid": identifier("aoef", *used),
        "collection_type": "prediction_set",
        "name": shared.model,
        "tags": [{"id": number, "key": "scientific_name", "value": name} for name, number in tags.items()],
        "recordings": [aoef_recording(shared.recordings[file]) for file in used],
        "clips": [
            {"uuid": clips[window], "recording": identifier(window[0]), "start_time": window[1], "end_time": window[2]}
            for window in windows
        ],
        "clip_predictions": [
            {
                "uuid": identifier("prediction", *window),
                "clip": clips[window],
                "tags": [[tags[scientific(d)], d.confidence] for d in found],
            }
            for window, found in windows.items()
        ],
    }
    path = folder / "aoef.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(path, {"version": AOEF_VERSION, "created_on": now, "data": content})
    return [path]


def aoef_recording(recording: SharedRecording) -> dict[str, object]:
    """A recording, with what is known of it."""
    facts: dict[str, object] = {
        "uuid": identifier(recording.file),
        "path": recording.file.encode("utf-8", "backslashreplace").decode(),
        "duration": length(recording),
        "channels": int(whole_number(recording.row.get("channels", "")) or 1),
        "samplerate": int(whole_number(recording.row.get("sample_rate", "")) or 1),
    }
    if recording.began:
        facts |= {"date": recording.began.date().isoformat(), "time": recording.began.time().isoformat()}
    if recording.latitude is not None:
        facts |= {"latitude": recording.latitude, "longitude": recording.longitude}
    return facts


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        season = Path(folder)
        (season / "detections.csv").write_text(
            "Start (s),End (s),Scientific name,Common name,Confidence,File,Site,Recorded at\n"
            "0,5,Rana ficta,pretend frog,0.91,dawn.wav,pond,2026-05-14T05:30:00+02:00\n"
        )
        (season / "files.csv").write_text(
            "file,site,recorded_at,sample_rate,channels,seconds_claimed,seconds_analysed,windows,status,latitude,longitude\n"
            "dawn.wav,pond,2026-05-14T05:30:00+02:00,48000,1,60,60,12,ok,4.6012,-74.0734\n"
        )
        asked = CountCommand(season, export=("camtrap-dp", "darwin-core", "crowsetta", "aoef"), coarsen_km=10)
        code = write_exchange(season / "exchange", asked, read_results(season), {})
        print((season / "exchange" / "occurrence.csv").read_text())
    north, east = coarsened(4.6012, -74.0734, 10)
    assert code == 0 and abs(north - 4.6012) < 0.0899 and (north, east) == coarsened(4.6112, -74.0634, 10)
