"""Pretend collections in every layout, and what tests ask of the rows that become of them."""

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from archive.collection import Collection
from archive.layouts import read_collection
from archive.recordings import Recording, write_recordings
from config import DataSettings, Layout
from runtime.csvs import read_table
from taxonomy import RANKS, table_rows

SHARED = Path(__file__).parents[1].parent / "shared"
BIRDCLEF, ANIMALS = SHARED / "birdclef2025", SHARED / "animals"
TAXONOMY = (
    "primary_label,scientific_name,common_name,class_name,order,family\n"
    "greti,Parus major,Great Tit,Aves,Passeriformes,Paridae\n"
    "tawow,Strix aluco,Tawny Owl,Aves,Strigiformes,Strigidae\n"
    "65448,Rana temporaria ,Common Frog,Amphibia,Anura,Ranidae\n"
)
RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)"
HEADER = (
    "primary_label,secondary_labels,type,filename,collection,rating,url,latitude,longitude,scientific_name,"
    "common_name,author,license"
)


def write(root: Path, files: Mapping[str, str | bytes]) -> Path:
    """Files by name; a name that ends with a slash is a folder."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def sounds(root: Path, *names: str) -> Path:
    return write(root, dict.fromkeys(names, b""))


def read(root: Path, layout: Layout = "auto", label_column: str = "") -> Collection:
    return read_collection(DataSettings(root, layout, label_column))


def by_name(collection: Collection) -> dict[str, Recording]:
    """Rows by name, where each recording has one."""
    rows = {recording.name: recording for recording in collection.recordings}
    assert len(rows) == len(collection.recordings)
    return rows


def noted(collection: Collection, *words: str) -> bool:
    """Whether one note has all these words in it."""
    return any(all(word in note for word in words) for note in collection.notes)


def lineage(collection: Collection, label: str) -> dict[str, str]:
    assert collection.taxonomy is not None
    return dict(zip(RANKS, collection.taxonomy.lineages[collection.taxonomy.labels.index(label)], strict=True))


def labels(collection: Collection) -> tuple[str, ...]:
    assert collection.taxonomy is not None
    return collection.taxonomy.labels


def birdclef(root: Path, *rows: str, header: str = HEADER) -> Path:
    return write(root, {"taxonomy.csv": TAXONOMY, "train.csv": "\n".join([header, *rows]) + "\n"})


def line(label: str, name: str, secondary: str = "['']", rating: str = "0.0", author: str = "Ada") -> str:
    page = f"https://xeno-canto.org/{''.join(filter(str.isdecimal, name)) or 1}"
    return f"{label},\"{secondary}\",['song'],{name},XC,{rating},{page},-4.5,,x,y,{author},cc-by-nc 4.0"


def real_birdclef(root: Path) -> list[dict[str, str]]:
    """The competition's own rows over empty files."""
    if not BIRDCLEF.is_dir():
        pytest.skip("the rows of BirdCLEF+ 2025 are not in ../shared")
    root.mkdir(exist_ok=True)
    shutil.copy(BIRDCLEF / "taxonomy.csv", root / "taxonomy.csv")
    shutil.copy(BIRDCLEF / "train_rows.csv", root / "train.csv")
    rows = [row for _, row in read_table(root / "train.csv", ("filename",))]
    sounds(root, *(f"train_audio/{row['filename']}" for row in rows))
    return rows


def inat_category(number: int, name: str, family: str, common: str | None = None) -> dict[str, object]:
    genus, epithet = name.split()
    ranks = {"kingdom": "Animalia", "phylum": "Chordata", "class": "Aves", "order": "Passeriformes", "family": family}
    folder = f"{number:05}_Animalia_Chordata_Aves_Passeriformes_{family}_{genus}_{epithet}"
    names = {"name": name, "common_name": common, "genus": genus, "specific_epithet": epithet}
    facts: dict[str, object] = {"id": number, "supercategory": "Birds", "evaluation": 1, "audio_dir_name": folder}
    return {**facts, **ranks, **names}


def inat_audio(number: int, name: str, **more: object) -> dict[str, object]:
    return {"id": number, "duration": 8.5, "file_name": name, "license": 2, "rights_holder": "Ada"} | more


def inat(audio: Sequence[dict[str, object]], heard: Mapping[int, int]) -> str:
    """A split as the project publishes it, bare NaN and all."""
    return json.dumps(
        {
            "info": {"year": 2024},
            "audio": list(audio),
            "categories": [inat_category(3, "Parus major", "Paridae"), inat_category(4, "Sitta europaea", "Sittidae")],
            "annotations": [{"id": n, "audio_id": a, "category_id": c} for n, (a, c) in enumerate(heard.items())],
            "licenses": [{"id": 2, "name": "CC BY-NC 4.0", "url": "http://example.org"}],
        }
    )


def xc(number: int | str, gen: str, sp: str, **more: object) -> dict[str, object]:
    """A recording as the API v3 describes it: every number is text."""
    return {
        "id": str(number),
        "gen": gen,
        "sp": sp,
        "ssp": "",
        "grp": "birds",
        "en": "Some Bird",
        "rec": "Ada",
        "cnt": "Panama",
        "loc": "Gamboa,  Colón",
        "lat": "9.12",
        "lon": "-79.7",
        "file": f"https://xeno-canto.org/{number}/download",
        "file-name": f"XC{number}-bird.mp3",
        "lic": "//creativecommons.org/licenses/by-nc-sa/4.0/",
        "q": "A",
        "length": "1:02",
        "time": "07:00",
        "date": "2013-05-12",
        "also": [""],
    } | more


def page(*entries: dict[str, object]) -> str:
    head: dict[str, object] = {"numRecordings": str(len(entries)), "numSpecies": "1", "page": 1, "numPages": 1}
    return json.dumps(head | {"recordings": list(entries)})


def own_table(folder: Path, collection: Collection) -> Path:
    """recordings.csv and taxonomy.csv, as data_loader.py leaves them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_recordings(folder / "recordings.csv", collection.recordings)
    if collection.taxonomy is not None:
        rows = table_rows(collection.taxonomy)
        with (folder / "taxonomy.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    return folder / "recordings.csv"
