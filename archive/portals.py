"""What iNaturalist and xeno-canto hand out beside their recordings: the JSON files of iNatSounds, pages of an API.

    found = read_inaturalist(root, sounds, [])
    found = read_xeno_canto(root, sounds, [])

Reads    train.json, val.json, ... of iNatSounds; saved answers of xeno-canto's API v3
Writes   nothing, and opens no sound

Nothing in these files is trusted: names of files are looked up below the root, numbers and dates checked, blanks kept.
"""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

from archive.index import (
    HEAD_BYTES,
    NO_AUTHOR,
    Found,
    NameIndex,
    checked_name,
    degrees,
    extra_files,
    is_plain_file,
    is_there,
    iso_time,
    listed,
    missing,
    other_files,
)
from archive.lineages import UPPER, Row, merged, shipped, with_lineages
from archive.recordings import Recording, path_within
from runtime.files import read_json
from sounds.discovery import SUFFIXES, holds_our_run
from taxonomy import key

MOST_JSON_BYTES = 2 * 2**30
JSON_SIGNS = {
    "xeno-canto": re.compile(r'"(?:numRecordings|recordings)"\s*:|\A\W*"error"\s*:'),
    "inaturalist": re.compile(r'"(?:audio|audio_id|audio_dir_name|category_id)"\s*:'),
}
GROUPS = {  # xeno-canto's, as classes
    "birds": "Aves",
    "frogs": "Amphibia",
    "grasshoppers": "Insecta",
    "bats": "Mammalia",
    "land mammals": "Mammalia",
}
NOBODY = ("mystery mystery", "sonus naturalis")  # xeno-canto's names for the unidentified and for soundscapes
QUALITIES = {"A": "5", "B": "4", "C": "3", "D": "2", "E": "1"}


def read_inaturalist(root: Path, sounds: Sequence[str], searched: Sequence[str], named: bool = False) -> Found:
    """iNatSounds: one JSON per split; the categories that occur are the labels, and their lineage is in it.

    named   somebody says that the layout is this one: a file that begins like a page is one
    """
    pages = find_pages(root, "inaturalist", named)
    assert pages, f"no JSON of iNatSounds in {root} or its annotations/; put train.json there"
    rows: dict[str, Row] = {}
    recordings: list[Recording] = []
    for path in pages:
        document = read_page(path)
        names = {text_of(one.get("id")): text_of(one.get("name")) for one in entries(document, "licenses", path)}
        labels_of = inaturalist_labels(document, path, rows)
        for where, entry in located(document, "audio", path):
            recordings.append(inaturalist_row(root, path.stem, where, entry, labels_of, names))
    notes = [f"{len(pages)} JSON files: {listed(path.name for path in pages)}", *searched]
    return Found(list(rows.values()), recordings, notes + extra_files(sounds, recordings, "JSON"))


def inaturalist_labels(document: dict[str, object], path: Path, rows: dict[str, Row]) -> dict[str, list[str]]:
    """The labels of each audio id; the categories they come from are added to `rows`."""
    categories = {text_of(entry.get("id")): (where, entry) for where, entry in located(document, "categories", path)}
    labels_of: dict[str, list[str]] = {}
    for where, entry in located(document, "annotations", path):
        category = text_of(entry.get("category_id"))
        assert category in categories, f"{where}: category {category!r} is not in the file; download it again"
        where, taxon = categories[category]
        cells = {column: text_of(taxon.get(column)) for column in UPPER if column != "class_name"}
        label = text_of(taxon.get("name"))
        assert label, f"{where}: a category without name; download it again"
        cells |= {"primary_label": label, "scientific_name": label, "common_name": text_of(taxon.get("common_name"))}
        cells |= {"class_name": text_of(taxon.get("class"))}
        rows[label] = (where, merged(rows[label][1], cells) if label in rows else cells)
        labels = labels_of.setdefault(text_of(entry.get("audio_id")), [])
        labels += [label] if label not in labels else []
    return labels_of


def inaturalist_row(
    root: Path,
    split: str,
    where: str,
    entry: dict[str, object],
    labels_of: Mapping[str, list[str]],
    names: dict[str, str],
) -> Recording:
    """One audio entry; its file may lie in the folder of its split, whether its name says so or not."""
    written = file_text(entry.get("file_name"))
    inner = Path(os.path.normpath(written.removeprefix(f"{split}/"))).as_posix() if written else ""
    bases = [root / split, root]  # the folder of a split may be a link to another disk
    paths = [path for base in bases if (path := path_within(base, inner)) is not None]
    assert paths, f"{where}: file_name {written!r} leaves {root}; paths must stay below it"
    path = next((path for path in paths if is_there(path)), paths[0])
    number = text_of(entry.get("id"))
    recording = Recording(
        path,
        path.relative_to(root).as_posix(),
        tuple(labels_of.get(number, ())),
        source="inaturalist",
        recording_id=f"{split}/{number}" if number else "",  # every split counts anew
        author=signed(entry.get("rights_holder")),
        latitude=degrees(text_of(entry.get("latitude")), 90),
        longitude=degrees(text_of(entry.get("longitude")), 180),
        recorded_at=iso_time(text_of(entry.get("date"))),
        license=names.get(text_of(entry.get("license")), "") or text_of(entry.get("license")),
    )
    return recording if is_there(path) else missing(recording)


def read_xeno_canto(root: Path, sounds: Sequence[str], searched: Sequence[str], named: bool = False) -> Found:
    """Saved pages of the API v3, and the recordings they name, which may lie anywhere below under several names.

    named   somebody says that the layout is this one: a file that begins like a page is one
    """
    pages = find_pages(root, "xeno-canto", named)
    pages = pages or [path for path in other_files(root, {".json"}) if json_layout(path) == "xeno-canto"]
    assert pages, f"no pages of xeno-canto's API below {root}; save its answers there as *.json"
    names, by_id = NameIndex(sounds), xeno_canto_files(sounds)
    rows: dict[str, Row] = {}
    recordings: dict[str, Recording] = {}
    guarded: list[str] = []
    for path in pages:
        document = read_page(path)
        assert "error" not in document, (
            f"{path} holds no recordings but xeno-canto's answer {text_of(document.get('error'))!r} "
            f"({text_of(document.get('message'))}); delete it, or download it again"
        )
        for where, entry in located(document, "recordings", path):
            number = text_of(entry.get("id")).removeprefix("XC")
            assert number.isascii() and number.isdecimal(), f"{where}: id {number[:20]!r} is no number"
            there = names.find(file_text(entry.get("file-name"))) or by_id.get(f"XC{number}", [])
            if not there and not text_of(entry.get("file")):
                guarded.append(f"XC{number}")
            elif f"XC{number}" not in recordings:
                label = xeno_canto_label(where, entry, rows)
                folder = path.parent.relative_to(root).as_posix()
                recording = xeno_canto_row(root, there[0] if there else "", folder, f"XC{number}", entry, label)
                recordings[f"XC{number}"] = recording
    notes = [f"{len(pages)} pages: {listed(path.name for path in pages)}", *searched]
    if guarded:
        notes.append(f"{len(guarded)} recordings of protected species are not offered: {listed(guarded)}")
    done, shipping = with_lineages(list(rows.values()), [shipped()])
    found_here = list(recordings.values())
    return Found(done, found_here, notes + shipping + extra_files(sounds, found_here, "pages"))


def xeno_canto_files(names: Iterable[str]) -> dict[str, list[str]]:
    """Files by the number their names begin with: XC941297.mp3, XC941297 - Great Tit - Parus major.mp3."""
    found: dict[str, list[str]] = {}
    for name in names:
        if number := re.match(r"XC\d+", name.rpartition("/")[2]):
            found.setdefault(number.group(), []).append(name)
    return found


def xeno_canto_label(where: str, entry: dict[str, object], rows: dict[str, Row]) -> str:
    """The species in the foreground, blank where nobody knows it; its row is added to `rows`."""
    label = f"{text_of(entry.get('gen'))} {text_of(entry.get('sp'))}".strip()
    if not label or key(label) in NOBODY:
        return ""
    class_name = GROUPS.get(text_of(entry.get("grp")).casefold(), "")
    cells = {"primary_label": label, "scientific_name": label, "common_name": text_of(entry.get("en"))}
    rows.setdefault(label, (where, cells | {"class_name": class_name}))
    return label


def xeno_canto_row(root: Path, name: str, folder: str, number: str, entry: dict[str, object], label: str) -> Recording:
    """A recording as a page has it; of what it says of the file, only the suffix is used."""
    suffix = Path(file_text(entry.get("file-name"))).suffix.lower()
    expected = Path(folder, f"{number}{suffix if suffix in SUFFIXES else '.mp3'}").as_posix()
    background = entry.get("also")
    also = [text_of(species) for species in cast(list[object], background)] if isinstance(background, list) else []
    recording = Recording(
        root / (name or expected),
        name or expected,
        tuple(dict.fromkeys([label, *(species for species in also if species)])) if label else (),
        source="xeno-canto",
        recording_id=number,
        author=signed(entry.get("rec")),
        site=text_of(entry.get("loc")),
        latitude=degrees(text_of(entry.get("lat")), 90),
        longitude=degrees(text_of(entry.get("lon")) or text_of(entry.get("lng")), 180),
        recorded_at=iso_time(text_of(entry.get("date")), text_of(entry.get("time"))),
        rating=QUALITIES.get(text_of(entry.get("q")), ""),
        license=license_name(text_of(entry.get("lic"))),
    )
    return checked_name(recording) if name else missing(recording)


def license_name(address: str) -> str:
    """//creativecommons.org/licenses/by-nc-sa/4.0/ -> cc-by-nc-sa 4.0."""
    kind = re.search(r"licenses/([a-z-]+)/(\d\.\d)", address)
    free = re.search(r"publicdomain/zero/(\d\.\d)", address)
    return f"cc-{kind.group(1)} {kind.group(2)}" if kind else f"cc-0 {free.group(1)}" if free else address


def find_pages(root: Path, layout: str, named: bool = False) -> list[Path]:
    """JSON files of a layout, in the root or in annotations/.

    named   somebody says that it is this layout: what has its lists is a page; where nothing has, what begins like one
            is, so that its fault is reported
    """
    files = [path for path in json_files(root) if json_sign(path) == layout]
    pages = [path for path in files if json_layout(path) or (named and may_be_page(path, layout))]
    return pages or (files if named else [])


def may_be_page(path: Path, layout: str) -> bool:
    """Whether a JSON file has the lists of a layout, whatever its entries are; what this program wrote has not."""
    return json_sign(path) == layout and bool(json_layout(path, whole=False)) and not is_own_record(path)


def is_own_record(path: Path) -> bool:
    """Whether a JSON file is what this program wrote of a run."""
    return path.name == "run.json" and holds_our_run(path.parent)


def json_files(root: Path) -> list[Path]:
    folders = (root, root / "annotations")
    return [path for folder in folders for path in sorted(folder.glob("*.json")) if is_plain_file(path)]


def strange_pages(folders: Iterable[Path], named: str = "") -> list[str]:
    """A note on JSON files that begin like a page of some portal and are none; what this program wrote is known.

    named   the layout that --data.layout names: what begins like its pages was taken for them
    """
    folders = list(folders)
    files = dict.fromkeys(path for folder in folders for path in json_files(folder))
    taken = {path for folder in folders for path in find_pages(folder, named, bool(named))} if named else set[Path]()
    strange = [path for path in files if json_sign(path) and not json_layout(path) and not is_own_record(path)]
    strange = [path for path in strange if path not in taken]
    if not strange:
        return []
    kinds = sorted({json_sign(path) for path in strange})
    note = f"{len(strange)} JSON files are no pages of {' or '.join(kinds)} as a whole, and ignored: "
    note += listed(path.name for path in strange)
    remedies = [
        kind for kind in kinds if any(set(strange) & set(find_pages(folder, kind, named=True)) for folder in folders)
    ]
    return [f"{note}; --data.layout {' or '.join(remedies)} takes them for such" if remedies else note]


def json_sign(path: Path) -> str:
    """Which layout a JSON file seems to belong to, as far as its beginning says; blank for none."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES).decode("latin-1")
    return next((layout for layout, sign in JSON_SIGNS.items() if sign.search(head)), "")


def json_layout(path: Path, whole: bool = True) -> str:
    """Which layout a JSON file belongs to by its whole shape, or else by its lists alone; blank for none."""
    facts = path.stat()
    return shape_of(path, facts.st_size, facts.st_mtime_ns, whole)


@cache
def shape_of(path: Path, size: int, _changed: int, whole: bool) -> str:
    """The layout of a JSON file in this state; of one that is too large to be read, what its beginning says."""
    layout = json_sign(path)
    if not layout or size > MOST_JSON_BYTES:
        return layout
    try:
        content: object = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return ""
    document = cast(dict[str, object], content) if isinstance(content, dict) else dict[str, object]()
    if layout == "xeno-canto":
        answer = str(document.get("error", "")).endswith("_error") and isinstance(document.get("message"), str)
        empty = {"numRecordings", "numPages"} <= set(document)
        keys = {"id", "gen", "sp"} if whole else set[str]()
        return layout if answer or all_have(document.get("recordings"), keys, empty) else ""
    lists = {"annotations": {"audio_id", "category_id"}, "categories": {"id", "name"}, "audio": {"id", "file_name"}}
    given = {"annotations": list[object]()} | document  # the split that is to be predicted has none
    fits = all(all_have(given.get(name), keys if whole else set(), True) for name, keys in lists.items())
    return layout if fits else ""


def all_have(value: object, keys: set[str], empty: bool) -> bool:
    """Whether something out of JSON is a list of objects with these keys.

    empty   whether it may have none
    """
    if not isinstance(value, list):
        return False
    things = cast(list[object], value)
    return all(isinstance(thing, dict) and keys <= set(cast(Any, thing)) for thing in things) and (
        empty or bool(things)
    )


def read_page(path: Path) -> dict[str, object]:
    size = path.stat().st_size
    assert size <= MOST_JSON_BYTES, f"{path} has {size / 2**30:.1f} GiB; split it, at most 2 are read"
    return read_json(path, "download it again")


def located(document: dict[str, object], name: str, path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """The entries of one list of a JSON file, each with its position."""
    return ((f"{path} {name}[{number}]", entry) for number, entry in enumerate(entries(document, name, path)))


def entries(document: dict[str, object], name: str, path: Path) -> list[dict[str, object]]:
    """The entries of one list of a JSON file; a list that is not there is empty."""
    value = document.get(name, list[object]())
    assert isinstance(value, list), f"{path}: {name} is no list; download it again"
    things = cast(list[object], value)
    wrong = next((number for number, thing in enumerate(things) if not isinstance(thing, dict)), None)
    assert wrong is None, f"{path}: {name}[{wrong}] is no object; download it again"
    return [cast(dict[str, object], thing) for thing in things]


def text_of(value: object) -> str:
    """A cell out of JSON: null, NaN and lists are blank, white space is single, half characters become a ?."""
    if not isinstance(value, (str, int, float)) or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return " ".join(str(value).encode("utf-8", "replace").decode().split())


def signed(value: object) -> str:
    """An author out of JSON, blank where nobody is known: the unknown are not one person."""
    author = text_of(value)
    return "" if author.casefold() in NO_AUTHOR else author


def file_text(value: object) -> str:
    """A file name out of JSON, blanks and all."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        entry = {"gen": "Boana", "sp": "boans", "grp": "frogs", "rec": "Ada", "q": "A", "date": "2024-05-01"}
        there, gone = ({"id": number, "file": "there", "file-name": f"XC{number}.mp3"} for number in ("7", "8"))
        (root / "page1.json").write_text(
            json.dumps({"numRecordings": "2", "recordings": [entry | there, entry | gone]})
        )
        found = read_xeno_canto(root, ["frogs/XC7.mp3"], [])
    print("\n".join(found.notes))
    for row in found.recordings:
        print(f"  {row.name:14} {row.labels} {row.recorded_at} rated {row.rating}, by {row.author}: {row.status}")
    assert [row.status for row in found.recordings] == ["ok", "missing"]
    assert found.rows[0][1]["family"] == "Hylidae", "from the lineages of this program"
