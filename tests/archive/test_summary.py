"""The summary: what is counted is counted once, and whatever the archive, it fits on a screen."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from archive.recordings import Recording
from archive.summary import INDENT, WIDTH, draw_summary, hour_begun, hours, summarise
from taxonomy import Taxonomy

RANKS = ("Animalia", "Chordata", "Aves", "Strigiformes", "Strigidae", "Strix")


def tree(labels: list[str]) -> Taxonomy:
    names = tuple(f"Strix {label}" for label in labels)
    return Taxonomy(tuple(labels), names, names, tuple((*RANKS, name) for name in names), (7,) * len(labels))


def row(name: str, *labels: str, **facts: Any) -> Recording:
    plain = Recording(Path("/a") / name, name, labels, f"file {name}", 0, 1800.0, sample_rate=16_000, channels=1)
    return replace(plain, **facts)


def said(rows: list[Recording], taxonomy: Taxonomy | None, what: str) -> str:
    """The text behind one heading."""
    lines = summarise(rows, taxonomy, folds=5)
    at = next(number for number, line in enumerate(lines) if line.startswith(what))
    more = [line.strip() for line in lines[at + 1 :]]
    count = next((n for n, line in enumerate(lines[at + 1 :]) if not line.startswith(" " * INDENT)), len(more))
    return " ".join([lines[at][INDENT:], *more[:count]])


def test_a_recording_with_many_labelled_stretches_is_one_file_and_its_hours_count_once() -> None:
    rows = [row("a.wav", "x", start=1.0, end=2.0), row("a.wav", "y", start=3.0, end=4.0), row("b.OGG", "x")]
    assert hours(rows) == 1.0
    assert said(rows, tree(["x", "y"]), "files") == "2: 1 .wav, 1 .ogg"
    assert said(rows, tree(["x", "y"]), "species").startswith("2 in 3 labelled rows: Aves 2 (3)")


def test_what_is_set_aside_is_said_with_its_reason_and_not_counted_as_sound() -> None:
    rows = [row("a.wav", "x"), row("b.wav", "x", status="silent", reason="holds digital silence")]
    rows += [row(f"{n}.wav", "x", status="unreadable", reason=f"fault {n}") for n in range(9)]
    lines = "\n".join(summarise(rows, tree(["x"]), 5))
    assert "0.50 h in 1 recordings" in lines
    assert "1 silent: 1 holds digital silence" in lines and "9 unreadable: 0.wav: fault 0" in lines


def test_species_that_cannot_be_held_out_and_those_of_one_collection_are_named() -> None:
    rows = [row(f"{n}.wav", "x", source="XC", fold=n % 5) for n in range(10)]
    rows += [row("c.wav", "cicada", source="CSA", fold=5)]
    assert said(rows, tree(["x", "cicada"]), "never held out") == "1 species that one group alone has: cicada"
    assert said(rows, tree(["x", "cicada"]), "folds") == "0: 2, 1: 2, 2: 2, 3: 2, 4: 2, 5: 1 (5: never held out)"
    assert said(rows, tree(["x", "cicada"]), "beware").startswith("2 species come from one collection alone")


def test_negatives_and_unlabelled_recordings_are_told_apart() -> None:
    rows = [row("a.wav", "x"), row("b.wav", listened=True), row("c.wav"), row("d.wav")]
    assert said(rows, tree(["x"]), "no species").startswith("1 recordings in which none of them was found")
    assert said(rows, tree(["x"]), "unlabelled").startswith("2 recordings, 1.00 h")


def test_however_large_the_archive_the_summary_fits_on_a_screen() -> None:
    labels = [f"species {number} of a rather long and windy name" for number in range(300)]
    rows = [
        row(
            f"{'deep/' * 30}{number}.{('wav', 'flac', 'ogg', 'mp3', 'opus', 'm4a', 'aac')[number % 7]}",
            labels[number % 300],
            author=f"A person with several given names {number % 200}",
            site=f"site {number % 77}",
            license=f"licence {number % 9}",
            source=("XC", "iNat")[number % 2],
            sample_rate=8_000 + number % 13,
            status=("ok", "ok", "ok", "silent", "unreadable", "missing", "refused", "duplicate")[number % 8],
            reason=f"a reason of its own that goes on and on, number {number}, and then some more",
        )
        for number in range(2_000)
    ]
    lines = summarise(rows, tree(labels), 5)
    assert len(lines) <= 40 and max(map(len, lines)) <= WIDTH


@pytest.mark.parametrize(
    ("time", "hour"), [("2026-05-01T04:59:00", 4), ("2026-05-01T23:00:00+10:00", 23), ("2026-05-01", None), ("", None)]
)
def test_the_hour_is_the_recorders(time: str, hour: int | None) -> None:
    assert hour_begun(row("a.wav", recorded_at=time)) == hour


@pytest.mark.parametrize("kind", ["labelled", "unlabelled", "timed", "nothing"])
def test_every_archive_has_a_picture(kind: str, tmp_path: Path) -> None:
    labels = ("x",) if kind == "labelled" else ()
    rows = [row("a.wav", *labels, recorded_at="2026-05-01T04:00:00" if kind == "timed" else "")]
    rows = [replace(rows[0], status="silent")] if kind == "nothing" else rows
    path = draw_summary(rows, tree(["x"]) if labels else None, tmp_path / "summary.png")
    assert path.read_bytes().startswith(b"\x89PNG")
