"""Where and when a species is likely: a table of priors, added to the scores of a recording as a weighted logit.

    prior = read_prior(Path("prior.csv"), taxonomy, weight=1.0)
    probabilities = prior.applied(probabilities, entry)

Reads    a csv: species, probability; and site, or latitude and longitude, or neither; week, or not

The score p of a species whose prior is q where and when a recording was made becomes
sigmoid(logit(p) + weight * logit(q)): a prior of .5 changes nothing, and no prior deletes a species, as it counts as
.01 at least and .99 at most. A species without a row for the place and week keeps its score.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.csvs import read_table
from runtime.digests import sha256
from runtime.terminal import show
from serving.inputs import Entry
from taxonomy import Taxonomy, match_species

LEAST = 0.01  # a prior that is lower counts as this, and 1 minus this is the highest
NEAR_KM = 100.0  # a recording further than this from every place of the table has no prior
EARTH_KM = 6371.0
NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?", re.IGNORECASE)
NEEDED = ("species", "probability")
Place = str | tuple[float, float]  # a site; latitude and longitude; "" anywhere


@dataclass(frozen=True)
class Prior:
    """A table of priors."""

    shifts: Mapping[tuple[Place, int], Mapping[int, float]]  # by place and ISO week, 0 any: species -> logit
    species: int
    weight: float
    digest: str

    def shift_at(self, entry: Entry) -> NDArray[np.float64]:
        """(species,) what is added to the logits of a recording; 0 where nothing is known. What is said of its week
        goes before what is said of any, what is said of its place before what is said of anywhere."""
        shift = np.zeros(self.species)
        for key in self.keys_of(entry):
            for column, logit in self.shifts[key].items():
                shift[column] = self.weight * logit
        return shift

    def keys_of(self, entry: Entry) -> list[tuple[Place, int]]:
        """What the table has for a recording, the most particular last."""
        week, places = week_of(entry.recorded_at), list[Place](["", *self.places_of(entry)])
        return [key for place in places for key in ((place, 0), (place, week)) if key in self.shifts]

    def refuse_idle(self, entries: Sequence[Entry]) -> None:
        """Say how many recordings a row is for.

        Errors: none of them, as where a site is spelled in another way, or no recording says when it was made.
        """
        about = sum(bool(self.keys_of(entry)) for entry in entries)
        named = sorted({place for place, _ in self.shifts if place and isinstance(place, str)})
        sites = f"its sites are {', '.join(named[:5])}; " if named else ""
        theirs = ", ".join(sorted({entry.site for entry in entries})[:5]) or "not known"
        timed, placed = (sum(bool(getattr(entry, name)) for entry in entries) for name in ("recorded_at", "latitude"))
        assert about, (
            f"--prior has no row for any of {len(entries)} recordings: {sites}theirs are {theirs}; {timed} say "
            f"when they were made, and {placed} give latitude and longitude; mend the table, or leave the flag out"
        )
        show(f"priors are known for {about} of {len(entries)} recordings")

    def places_of(self, entry: Entry) -> list[Place]:
        """The place of the table that is nearest to a recording, if it is near, and its site."""
        found = list[Place]()
        if entry.latitude and entry.longitude:
            here = float(entry.latitude), float(entry.longitude)
            known = {place for place, _ in self.shifts if isinstance(place, tuple)}
            nearest = min(known, key=lambda place: kilometres(place, here), default=None)
            if nearest is not None and kilometres(nearest, here) <= NEAR_KM:
                found.append(nearest)
        return [*found, entry.site] if entry.site else found

    def applied(self, probabilities: NDArray[np.float32], entry: Entry) -> NDArray[np.float32]:
        """(windows, species) with the priors of a recording."""
        shift = self.shift_at(entry)
        moved = shift != 0
        found, odds = probabilities.copy(), np.exp(shift[moved])
        p = probabilities[:, moved].astype(np.float64)
        found[:, moved] = p * odds / (1 - p + p * odds)
        return found


def read_prior(path: Path, taxonomy: Taxonomy, weight: float) -> Prior:
    """The priors of a table; prints how much of the model's species and of the table they are about.

    Errors: cells that are no probability, no week or no place, two rows for the same, and a table without a species of
    the model, each in a line.
    """
    assert math.isfinite(weight) and weight >= 0, f"--prior_weight {weight}: give a number from 0 on; 1 is the table's"
    shifts = dict[tuple[Place, int], dict[int, float]]()
    strange, known = dict[str, None](), set[int]()
    for where, row in read_table(path, NEEDED):
        columns = match_species([row["species"]], taxonomy)[0]
        probability = number(row["probability"], f"{where}: probability", 0, 1)
        key = place_of(row, where), week_in(row, where)
        if not columns:
            strange[row["species"]] = None
        logit = math.log(clipped(probability) / (1 - clipped(probability)))
        for column in columns:
            rows = shifts.setdefault(key, {})
            assert column not in rows, f"{where}: {row['species']} has a row for this place and week already; keep one"
            rows[column] = logit
            known.add(column)
    assert known, f"{path}: none of its species is one of the model's; write labels, scientific or common names"
    unknown = f"; not in the model: {', '.join(list(strange)[:10])}{' ...' if len(strange) > 10 else ''}"
    places = len({place for place, _ in shifts} - {""})
    where_said = f"at {places} place{'s' if places > 1 else ''}" if places else "everywhere"
    show(
        f"{path}: priors of {len(known)} of {len(taxonomy.labels)} species {where_said}, weight {weight:g}"
        f"{unknown if strange else ''}"
    )
    return Prior(shifts, len(taxonomy.labels), weight, sha256(path))


def place_of(row: Mapping[str, str], where: str) -> Place:
    """What a row is about: a site, a point, or anywhere."""
    site, latitude, longitude = (row.get(name, "") for name in ("site", "latitude", "longitude"))
    assert bool(latitude) == bool(longitude), f"{where}: latitude and longitude go together"
    assert not (site and latitude), f"{where}: give a site, or latitude and longitude, not both"
    if not latitude:
        return site
    return number(latitude, f"{where}: latitude", -90, 90), number(longitude, f"{where}: longitude", -180, 180)


def week_in(row: Mapping[str, str], where: str) -> int:
    """The week of the year, 1 to 53 as ISO 8601 counts them; 0 where none is named."""
    text = row.get("week", "")
    week = number(text, f"{where}: week", 1, 53) if text else 0.0
    assert week == int(week), f"{where}: week {text!r}; write a whole number from 1 to 53"
    return int(week)


def number(text: str, what: str, low: float, high: float) -> float:
    """A cell that must be a number within limits."""
    value = float(text) if NUMBER.fullmatch(text) else math.nan
    assert low <= value <= high, f"{what} {text[:40]!r}; write a number from {low:g} to {high:g}"
    return value


def clipped(probability: float) -> float:
    return min(max(probability, LEAST), 1 - LEAST)


def week_of(recorded_at: str) -> int:
    """The ISO week of a moment in ISO 8601; -1, which no row names, where it is not known."""
    return datetime.fromisoformat(recorded_at).isocalendar().week if recorded_at else -1


def kilometres(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Between two points of latitude and longitude, along a great circle (haversine)."""
    north, east = math.radians(other[0] - one[0]), math.radians(other[1] - one[1])
    across = math.cos(math.radians(one[0])) * math.cos(math.radians(other[0])) * math.sin(east / 2) ** 2
    return 2 * EARTH_KM * math.asin(min(1.0, math.sqrt(math.sin(north / 2) ** 2 + across)))


if __name__ == "__main__":
    kin = ("Animalia", "Chordata", "Amphibia", "Anura", "Fictidae", "Rana")
    frogs = Taxonomy(("41", "42"), ("Rana ficta", "Rana falsa"), ("frog", "toad"), ((*kin, "a"), (*kin, "b")), (7, 7))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prior.csv"
        path.write_text("site,week,species,probability\npond,20,frog,0.1\npond,,toad,0.9\n")
        prior = read_prior(path, frogs, 1.0)
    scores = np.full((1, 2), 0.5, np.float32)
    spring = prior.applied(scores, Entry(Path("a.wav"), "pond", "2026-05-14T05:30:00"))
    away = prior.applied(scores, Entry(Path("b.wav"), "desert"))
    print("at the pond in week 20:", spring[0].round(2).tolist(), "elsewhere:", away[0].tolist())
    assert np.allclose(spring, [[0.1, 0.9]], atol=1e-6) and np.array_equal(away, scores)
