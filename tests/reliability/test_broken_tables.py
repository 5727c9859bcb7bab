"""R18: tables as spreadsheets, other countries and tired people leave them, each refused with file, row and remedy."""

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from layouts import HEADER, TAXONOMY, line, read, write

from archive.layouts import read_collection
from archive.recordings import read_recordings
from config import DataSettings
from evaluation.calibration import read_thresholds
from serving.results import read_results
from serving.review import read_verdicts
from serving.submission import read_sample

TRAIN = f"{HEADER}\n{line('greti', 'a.ogg')}\n{line('65448', 'b.ogg')}\n"
OWN = "root,path,start,end,labels,fold,seconds\n{root},a.ogg,0,5,greti,1,60\n{root},b.ogg,,,65448,0,61.5\n"
KEEP = "filename,start,end\na.ogg,0.5,7\nb.ogg,1:00,2:00\n"
TIMES = "filename,start,end,label\na.ogg,0,5,greti\nb.ogg,5,10,65448\n"
LIMITS = "label,scientific_name,threshold,model\ngreti,Parus major,0.55,\n65448,Rana temporaria,0.2,\n"
FOUND = "Start (s),End (s),Confidence,File,Species code\n0,5,0.9,a.ogg,greti\n5,10,0.8,b.ogg,65448\n"
SAMPLE = "row_id,greti,65448\nH_1_5,0.5,0.5\nH_1_10,0.5,0.5\n"
GOOD = {
    "taxonomy.csv": TAXONOMY, "train.csv": TRAIN, "recordings.csv": OWN, "keep.csv": KEEP, "times.csv": TIMES,
    "thresholds.csv": LIMITS, "detections.csv": FOUND, "validation.csv": FOUND, "sample.csv": SAMPLE,
}  # fmt: skip
Change = Callable[[str], str | bytes]


def meet(root: Path, name: str) -> None:
    """A table goes to the command that reads it."""
    path = root / name
    match name:
        case "recordings.csv":
            read_recordings(path)
        case "thresholds.csv":
            read_thresholds(path, "abc", ["greti", "65448"])
        case "detections.csv":
            read_results(root)
        case "validation.csv":
            write(root, {"detections.csv": FOUND})
            read_verdicts(path, read_results(root))
        case "sample.csv":
            read_sample(path)
        case "times.csv":
            read_collection(DataSettings(root, "annotations"))
        case _:
            read_collection(DataSettings(root, "birdclef"))


def broken(root: Path, name: str, change: Change) -> Path:
    """A folder of good tables and recordings, one table spoilt."""
    sounds = {"train_audio/a.ogg": b"", "train_audio/b.ogg": b"", "a.ogg": b"", "b.ogg": b""}
    others = ("taxonomy.csv",) if name in ("times.csv", "taxonomy.csv") else ("taxonomy.csv", "train.csv")
    tables = {each: GOOD[each] for each in {name, *others, *(("train.csv",) if name == "taxonomy.csv" else ())}}
    write(root, {**sounds, **{each: text.replace("{root}", str(root)) for each, text in tables.items()}})
    spoilt = change((root / name).read_text(encoding="utf-8"))
    (root / name).write_bytes(spoilt if isinstance(spoilt, bytes) else spoilt.encode())
    return root


def row(number: int, old: str, new: str) -> Change:
    """One line of a table, changed."""

    def change(text: str) -> str:
        lines = text.split("\n")
        assert old in lines[number - 1], (old, lines[number - 1])
        lines[number - 1] = lines[number - 1].replace(old, new, 1)
        return "\n".join(lines)

    return change


def column(*cells: str) -> Change:
    """One column more, at the right."""
    return lambda text: "".join(f"{each},{cell}\n" for each, cell in zip(text.split("\n"), cells, strict=False))


def commas(text: str) -> str:
    """A comma at the end of each row but not of the header, as some programs write it."""
    first, *rest = text.rstrip("\n").split("\n")
    return "\n".join([first, *(f"{each}," for each in rest)]) + "\n"


def bars(text: str) -> str:
    return text.replace(",", "|")


def twice(text: str) -> str:
    return text + text.rstrip("\n").split("\n")[-1] + "\n"


def opened(text: str) -> str:
    """A quote that opens the last cell of the first row and never closes."""
    lines = text.split("\n")
    cells = lines[1].split(",")
    lines[1] = ",".join([*cells[:-1], '"' + cells[-1]])
    return "\n".join(lines)


def doubled(text: str) -> str:
    """The last column a second time."""
    return "\n".join(f"{each},{each.split(',')[-1]}" if each else "" for each in text.split("\n"))


def shorter(text: str) -> str:
    """The last row lacks its last cell."""
    return text.rstrip("\n").rpartition(",")[0] + "\n"


EVERYWHERE: list[tuple[str, Change, str]] = [
    ("trailing commas", commas, r"line 2: \d+ cells, not \d+"),
    ("short row", shorter, r"line [34]: \d+ cells, not \d+"),
    ("a column twice", doubled, "a column occurs twice"),
    ("open quote", opened, "a quote is left open"),
    ("bars", bars, "no columns"),
    ("UTF-16", lambda text: text.encode("utf-16"), "UTF-8|no columns"),
    ("Latin-1", lambda text: text.replace("a.ogg", "\xe4.ogg").replace("Parus", "P\xe4rus").encode("latin-1"), "UTF-8"),
]
STRICT = ("taxonomy.csv", "train.csv", "recordings.csv", "keep.csv", "thresholds.csv", "detections.csv", "sample.csv")
CASES: list[tuple[str, str, Change, str]] = [
    *((f"{what}", name, change, words) for name in STRICT for what, change, words in EVERYWHERE
      if not (what == "Latin-1" and name == "sample.csv")),
    ("empty", "train.csv", lambda _: "", "no columns"),
    ("header alone", "train.csv", lambda text: text.split("\n")[0] + "\n", "no rows"),
    ("row twice", "train.csv", twice, r"line 4: filename b\.ogg stands at .*line 3 already; keep one"),
    ("label twice", "taxonomy.csv", twice, "line 5: primary_label 65448 stands at .*line 4 already"),
    ("no label", "taxonomy.csv", row(2, "greti", ""), "line 2: no primary_label; give"),
    ("no class", "taxonomy.csv", row(2, "Aves", ""), "line 2: no class_name .*; write one"),
    ("unknown rank", "taxonomy.csv", lambda _: "primary_label,scientific_name,common_name,class_name,finest_rank\n"
     "greti,Parus major,Great Tit,Aves,tribe\n", "line 2: finest_rank 'tribe'; choose"),
    ("two classes", "taxonomy.csv", lambda _: "primary_label,scientific_name,common_name,class_name,class\n"
     "greti,Parus major,Great Tit,Aves,Mammalia\n", "line 2: class_name Aves but class Mammalia; make them agree"),
    ("list of code", "train.csv", row(2, "['']", "[open('x')]"), r"line 2: secondary labels .*; expected \['a', 'b'\]"),
    ("nested list", "train.csv", row(2, "['']", "[" * 50), "line 2: secondary labels"),
    ("list of 5 kB", "train.csv", row(2, "['']", f"['{'a' * 5_000}']"), "line 2: secondary labels"),
    ("list of numbers", "train.csv", row(2, "['']", "[1, 2]"), "line 2: secondary labels"),
    ("set", "train.csv", row(2, "['']", "{'a'}"), "line 2: secondary labels"),
    ("path up", "train.csv", row(2, "a.ogg", "../a.ogg"), "line 2: '../a.ogg' leaves .*stay below"),
    ("absolute path", "train.csv", row(2, "a.ogg", "/etc/a.ogg"), "line 2: '/etc/a.ogg' leaves"),
    ("fold of words", "train.csv", column("fold", "one", "2"), "line 2: fold 'one' is no whole number"),
    ("start of words", "recordings.csv", row(2, ",0,5,", ",soon,5,"), "line 2: start 'soon' is no number"),
    ("decimal comma", "recordings.csv", row(2, ",0,5,", ',"0,5",5,'), "line 2: start '0,5' is no number"),
    ("not a number", "recordings.csv", row(2, ",0,5,", ",nan,5,"), "line 2: start 'nan' is no number"),
    ("fold of 1.5", "recordings.csv", row(2, ",1,60", ",1.5,60"), "line 2: fold '1.5' is no whole number"),
    ("path up", "recordings.csv", row(2, "a.ogg", "../a.ogg"), "line 2: '../a.ogg' leaves"),
    ("no path", "recordings.csv", row(2, "a.ogg", ""), "line 2: '' leaves"),
    ("end before start", "keep.csv", row(2, "0.5,7", "7,0.5"), "line 2: '7' to '0.5' is no segment; write"),
    ("times of words", "keep.csv", row(2, "0.5", "dawn"), "line 2: 'dawn' to '7' is no segment; write"),
    ("unknown label", "thresholds.csv", row(2, "greti", "gretl"), "line 2: 'gretl' is no label .*; remove"),
    ("label twice", "thresholds.csv", twice, "line 4: label 65448 stands at .* already"),
    ("decimal comma", "thresholds.csv", row(2, "0.55", '"0,55"'), "line 2: threshold '0,55' .*; write a number"),
    ("percent", "thresholds.csv", row(2, "0.55", "55"), "line 2: threshold '55' .*; write a number"),
    ("another model", "thresholds.csv", row(2, "0.55,", "0.55,ffff"), "line 2: fitted for the model ffff"),
    ("confidence of words", "detections.csv", row(2, "0.9", "sure"), "line 2: .* are not all numbers; mend"),
    ("confidence of 90", "detections.csv", row(2, "0.9", "90"), "line 2: .*; mend"),
    ("time backwards", "detections.csv", row(2, "0,5", "5,0"), "line 2: .*; mend"),
    ("no File", "detections.csv", row(1, "File", "Datei"), "no columns"),
    ("verdict", "validation.csv", column("Verdict", "perhaps", "no"), "line 2: the verdict 'perhaps' is none of yes"),
    ("row twice", "sample.csv", twice, "line 4: row_id H_1_10 stands at .* already"),
    ("no row_id", "sample.csv", row(1, "row_id", "id"), "no columns"),
    ("too many cells", "times.csv", row(2, "greti", "greti,x"), "line 2: 5 cells, not 4; take out"),
    ("open quote", "times.csv", opened, "a quote is left open"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "name", "change", "words"), CASES, ids=[f"{c[1]}: {c[0]}" for c in CASES])
def test_a_broken_table_is_refused_with_its_place_and_the_remedy(
    what: str, name: str, change: Change, words: str, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError) as refusal:
        meet(broken(tmp_path, name, change), name)
    message = str(refusal.value)
    assert re.search(words, message) and name in message and "\n" not in message, message
    assert re.search(r"[;,] ", message), f"no remedy after {what}: {message}"


@pytest.mark.parametrize("name", GOOD)
def test_the_same_tables_are_read_where_nothing_is_broken(name: str, tmp_path: Path) -> None:
    """The control: it is the damage that is refused. A byte order mark and Windows' line ends are none."""
    meet(broken(tmp_path / "plain", name, lambda text: text), name)
    meet(broken(tmp_path / "windows", name, lambda text: ("\ufeff" + text.replace("\n", "\r\n")).encode()), name)


@pytest.mark.parametrize("label", ["1e5", "007", "TRUE", "41663", "NA", "None", "1.0", "nan", "+1", "2024-05-01"])
def test_labels_like_numbers_stay_text(label: str, tmp_path: Path) -> None:
    taxa = f"primary_label,scientific_name,common_name,class_name\n{label},Parus major,Great Tit,Aves\n"
    root = write(tmp_path, {"taxonomy.csv": taxa, "train.csv": f"{HEADER}\n{line(label, 'a.ogg')}\n"})
    found = read(write(root, {"train_audio/a.ogg": b""}))
    assert found.taxonomy and found.taxonomy.labels == (label,) and found.recordings[0].labels == (label,)


@pytest.mark.parametrize(
    "written",
    [unicodedata.normalize("NFD", "Grünspecht"), "Grünspecht\u00a0", " Grünspecht ", "Gr\u00fcnspecht"],
)
def test_one_label_written_in_two_ways_is_one_and_said_so(written: str, tmp_path: Path) -> None:
    taxa = "primary_label,scientific_name,common_name,class_name\nGrünspecht,Picus viridis,x,Aves\n"
    root = write(tmp_path, {"taxonomy.csv": taxa, "train.csv": f"{HEADER}\n{line(written, 'a.ogg')}\n"})
    found = read(write(root, {"train_audio/a.ogg": b""}))
    assert found.recordings[0].labels == ("Grünspecht",), found.notes
    changed = written.strip() != "Grünspecht"
    assert any("written in another way" in note for note in found.notes) == changed


def test_a_label_with_a_no_break_blank_inside_is_the_same_label(tmp_path: Path) -> None:
    taxa = "primary_label,scientific_name,common_name,class_name\nParus major,Parus major,x,Aves\n"
    odd = "Parus\u00a0 major"
    root = write(tmp_path, {"taxonomy.csv": taxa, "train.csv": f"{HEADER}\n{line(odd, 'a.ogg')}\n"})
    found = read(write(root, {"train_audio/a.ogg": b""}))
    assert found.recordings[0].labels == ("Parus major",)


def test_r18_is_met(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    placed = 0
    for number, (_, name, change, words) in enumerate(CASES):
        with pytest.raises(AssertionError, match=words) as refusal:
            meet(broken(tmp_path / str(number), name, change), name)
        placed += bool(re.search(r" line \d+", str(refusal.value)))
    assert len(CASES) >= 40
    record_property("R18", f"{len(CASES)} of {len(CASES)} broken tables refused in one line, {placed} of them by row")


def test_a_reader_that_fills_and_guesses_would_be_silent(tmp_path: Path) -> None:
    """The control: what pandas makes of them without a word."""
    pandas = pytest.importorskip("pandas")
    silent = 0
    for number, (_, name, change, _) in enumerate(CASES):
        root = broken(tmp_path / str(number), name, change)
        try:
            pandas.read_csv(root / name)
        except Exception:  # whatever it refuses with, it is not silent
            continue
        silent += 1
    assert silent > len(CASES) // 2
