"""Which recordings hold the same sound: equal samples, another encoding, a piece of a longer one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from archive.index import is_there
from archive.recordings import Recording
from archive.survey import BIRDS, Band, Examination, compared_table, examine, open_ledger, remember
from runtime.terminal import show
from sounds.audio import open_recording, read_samples
from sounds.damage import HIGHEST_RATE
from sounds.windows import SILENCE

JOINED = " + "  # between the licences of recordings with the same samples

SAME_LENGTH = 0.1  # seconds by which encoding changes a length
ALIKE = 0.85  # correlation of fingerprints from which on two recordings are worth comparing
SAME_SOUND = 0.6  # correlation of two recordings in a band of a piece, from which on they agree there (LOG.md)
PIECES, FEWEST_PIECES, PIECE_SECONDS = 12, 4, 2.5  # that are compared, spread over a recording
MOST_PIECES = 0.75  # of the pieces with sound in them must agree
BANDS = (150, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 500_000)  # Hz, edges
LOW, HIGH = 4_000, 8_000  # Hz: below the one every encoding keeps the waveform, above the other many do not; of what
# is heard above LOW alone, all counts, for ultrasound is kept without loss
FAINT = 1e-4  # of a piece's strength: a band that holds less in both pieces says nothing
MOST_HELD = 2**23  # samples of a recording that are held at once to compare it
SHIFTED = 3  # every third piece is asked how far one recording is behind the other
LAG_SECONDS = 0.2  # by which one recording may begin earlier
NUDGES = np.arange(-1, 1.01, 0.5)  # samples by which a piece may be off besides
CHUNK, MOST_COLUMNS = 512, 8192  # recordings whose fingerprints are compared at once
MOST_ALIKE = 8  # later recordings whose waveforms one recording is compared with
CROWD = 10_000  # recordings of one length from which on not each is compared with each, but with its
ORDERS, SIGNS, NEIGHBOURS = 32, 32, 16  # neighbours in so many orders, each by the signs of so many projections
Likeness = Literal["equal", "same", "low"]  # same samples; same sound in another encoding; only the lower bands agree
LIKENESSES: tuple[Likeness | None, ...] = (None, "low", "same")  # as they are remembered
Alike = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]  # earlier, later, correlation


class Same(NamedTuple):
    """Two recordings that hold one sound, as positions in a list; `one` is the earlier."""

    one: int
    other: int
    likeness: Likeness


def same_sounds(paths: Sequence[Path], examined: Mapping[Path, Examination], band: Band = BIRDS) -> list[Same]:
    """The pairs in `paths` that hold the same sound, perhaps encoded or resampled anew.

    band   where they were examined, and are compared
    Equal digests are certain. Else fingerprints propose, within one length, and pieces of the waveforms decide.
    """
    pairs: list[Same] = []
    first: dict[str, int] = {}
    prints: list[tuple[float, int, NDArray[np.float32]]] = []
    for index, path in enumerate(paths):
        known = examined[path]
        if not known.digest:
            continue
        if known.digest in first:
            pairs.append(Same(first[known.digest], index, "equal"))
            continue
        first[known.digest] = index
        if known.fingerprint:
            prints.append((known.seconds, index, print_of(known)))
    # of fingerprints much alike the waveforms are compared, once and for all
    prints.sort(key=lambda entry: entry[:2])
    candidates = list(alike([entry[2] for entry in prints], [entry[0] for entry in prints]))
    chosen = [sorted((prints[one][1], prints[other][1])) for one, other in candidates]
    digests = [(examined[paths[one]].digest, examined[paths[other]].digest) for one, other in chosen]
    with closing(open_ledger(band)) as ledger:
        verdict_of = f"SELECT same FROM {compared_table(band)} WHERE one = ? AND other = ?"
        verdicts: dict[tuple[str, str], int] = {
            key: row[0] for key in digests if (row := ledger.execute(verdict_of, key).fetchone())
        }
        new = [number for number, key in enumerate(digests) if key not in verdicts]
        ones, others = ([paths[chosen[number][side]] for number in new] for side in (0, 1))
        with ThreadPoolExecutor() as pool:
            pairs_of_files = ([(path, examined[path]) for path in side] for side in (ones, others))
            work = pool.map(partial(likeness_of, band=band), *pairs_of_files)
            bar = tqdm(work, "comparing", len(new), unit="pair", disable=None, leave=False)
            verdicts |= {digests[number]: verdict for number, verdict in zip(new, bar, strict=True)}
        rows = [(*digests[number], verdicts[digests[number]]) for number in new]
        remember(ledger, f"INSERT OR REPLACE INTO {compared_table(band)} VALUES (?, ?, ?)", rows)
    for (one, other), key in zip(chosen, digests, strict=True):
        likeness = LIKENESSES[verdicts[key]]
        if likeness:
            pairs.append(Same(one, other, likeness))
    return sorted(pairs)


def print_of(known: Examination) -> NDArray[np.float32]:
    """The fingerprint of a recording that has one, of length 1: the product of two is their correlation."""
    values = np.frombuffer(bytes.fromhex(known.fingerprint), np.int8).astype(np.float32)
    return values / np.float32(np.linalg.norm(values))


def copies_of(others: Sequence[Path], paths: Sequence[Path], band: Band = BIRDS) -> set[Path]:
    """Those of some recordings that hold the same sound as one of others, perhaps encoded anew (`same_sounds`).

    A longer recording from which one of the others was cut is not found.
    """
    examined = examine(sorted({*others, *paths}), band)
    digests = {examined[path].digest for path in others} - {""}
    printed = [path for path in sorted(set(others)) if examined[path].fingerprint]
    lengths = np.array([examined[path].seconds for path in printed])
    table = np.stack([print_of(examined[path]) for path in printed]) if printed else np.zeros((0, 0), np.float32)
    found: set[Path] = set()
    for path in sorted(set(paths)):
        known = examined[path]
        if known.digest in digests:
            found.add(path)
        elif known.fingerprint and printed:
            likeness = np.where(abs(lengths - known.seconds) <= SAME_LENGTH, table @ print_of(known), 0)
            order: list[int] = np.argsort(-likeness, kind="stable")[:MOST_ALIKE].tolist()
            near = [printed[at] for at in order if likeness[at] >= ALIKE]
            pairs = same_sounds([path, *near], examined, band) if near else []
            found |= {path} if any(pair.one == 0 for pair in pairs) else set()
    return found


def alike(prints: Sequence[NDArray[np.float32]], seconds: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Pairs of recordings of one length, in the order of their lengths, whose fingerprints correlate.

    Each recording is paired with the MOST_ALIKE later ones that are most like it, at most: in a season from one site
    many sound much the same, and every pair costs two recordings decoded.
    """
    if not prints:
        return
    table, lengths = np.stack(prints), np.array(seconds, np.float64)
    ends = np.searchsorted(lengths, lengths + SAME_LENGTH, "right")
    crowded = ends - np.arange(len(ends)) > CROWD  # too many of one length to compare each with each
    few = np.flatnonzero(~crowded)
    for start in range(0, len(few), CHUNK):
        rows = few[start : start + CHUNK]
        found: list[Alike] = []
        for first in range(int(rows[0]), int(ends[rows[-1]]), MOST_COLUMNS):
            scores = table[rows] @ table[first : min(first + MOST_COLUMNS, ends[rows[-1]])].T
            at, columns = (scores >= ALIKE).nonzero()
            one, other = rows[at], columns + first
            right = (one < other) & (other < ends[one])
            found.append(most_alike(one[right], other[right], scores[at[right], columns[right]]))
        yield from pairs_of(found)
    many = np.flatnonzero(crowded)
    if len(many):
        change = np.zeros(len(table) + 1, np.int64)
        np.add.at(change, many, 1)
        np.add.at(change, ends[many], -1)
        members = np.flatnonzero(change.cumsum()[:-1])  # the crowd, and what its last ones reach
        yield from alike_in_crowd(table, ends, members, crowded)


def most_alike(one: NDArray[np.int64], other: NDArray[np.int64], scores: NDArray[np.float32]) -> Alike:
    """Of each earlier recording, the MOST_ALIKE later ones that are most like it; each pair once."""
    _, once = np.unique((one << 32) + other, return_index=True)
    one, other, scores = one[once], other[once], scores[once]
    order = np.lexsort((other, -scores.round(4), one))  # of equals the nearest
    one, other, scores = one[order], other[order], scores[order]
    rank = np.arange(len(one)) - np.searchsorted(one, one)
    kept = rank < MOST_ALIKE
    return one[kept], other[kept], scores[kept]


def pairs_of(found: Sequence[Alike]) -> Iterator[tuple[int, int]]:
    one, other, _ = most_alike(*(np.concatenate(column) for column in zip(*found, strict=True)))
    order = np.lexsort((other, one))
    yield from zip(one[order].tolist(), other[order].tolist(), strict=True)


def alike_in_crowd(
    table: NDArray[np.float32], ends: NDArray[np.int64], members: NDArray[np.int64], crowded: NDArray[np.bool_]
) -> Iterator[tuple[int, int]]:
    """The pairs of `alike` among very many recordings of one length, in linear time.

    Sorted by the signs of random projections, what is alike comes to lie close together, in one of several such orders
    at least. Copies that correlate at .95 are found, one in thirty at .86 is missed (LOG.md).
    source    https://doi.org/10.1145/509907.509965 (signs), https://doi.org/10.1145/223784.223807 (sorted neighbours)
    """
    rng = np.random.default_rng(0)
    found: list[Alike] = []
    for _ in range(ORDERS):
        planes = rng.standard_normal((table.shape[1], SIGNS)).astype(np.float32)
        codes = (table[members] @ planes > 0) @ (1 << np.arange(SIGNS, dtype=np.int64))
        order = members[np.argsort(codes, kind="stable")]
        sorted_prints = table[order]
        for step in range(1, NEIGHBOURS + 1):
            scores = np.einsum("ij,ij->i", sorted_prints[:-step], sorted_prints[step:])
            at = np.flatnonzero(scores >= ALIKE)
            one, other = np.minimum(order[at], order[at + step]), np.maximum(order[at], order[at + step])
            right = crowded[one] & (other < ends[one])
            found.append((one[right], other[right], scores[at[right]]))
        found = [most_alike(*(np.concatenate(column) for column in zip(*found, strict=True)))]
    yield from pairs_of(found)


def likeness_of(one: tuple[Path, Examination], other: tuple[Path, Examination], band: Band = BIRDS) -> int:
    """Whether two recordings hold one sound: 2 yes, 1 as far as both reach up to LOW but not above HIGH, 0 no. What
    lies below all that is heard says nothing.

    Pieces spread over both are compared band by band, so that neither a loud moment nor a hum decides for the rest:
    most pieces must agree, in most of their bands, one recording a little earlier than the other perhaps.
    """
    rate = min(one[1].sample_rate, other[1].sample_rate)
    seconds = min(one[1].seconds, other[1].seconds)
    count = min(PIECES, max(FEWEST_PIECES, int(seconds / PIECE_SECONDS)))
    length, lag = round(min(PIECE_SECONDS, seconds / count) * rate), round(LAG_SECONDS * rate)
    first, second = reader_of(*one, rate), reader_of(*other, rate)
    starts = np.linspace(0, max(0, round(seconds * rate) - length), count).astype(int).tolist()
    pairs: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []  # of the second more on both sides
    for start in starts:
        piece = first(start, length)
        early = min(lag, start)
        wider = second(start - early, length + early + lag)
        around = np.zeros(length + 2 * lag, np.float32)
        around[lag - early :][: len(wider)] = wider[: len(around) - lag + early]
        pairs.append((np.pad(piece, (0, length - len(piece))), around))
    shifts = [best_shift(piece, around, rate, band.lowest) for piece, around in pairs[::SHIFTED]]
    shift = max(shifts, default=(0.0, 0))[1]
    low, high = list[bool](), list[bool]()
    decisive = LOW if band.lowest < LOW else HIGHEST_RATE
    for piece, around in pairs:
        values = band_correlations(piece, around[shift : shift + length], rate, band.lowest)
        lower = [value for edge, value in values.items() if edge < decisive]
        upper = [value for edge, value in values.items() if edge >= max(HIGH, decisive)]
        for verdicts, similarities in ((low, lower), (high, upper)):
            if similarities:
                verdicts.append(sum(value >= SAME_SOUND for value in similarities) * 2 >= len(similarities))
        if low.count(False) > (1 - MOST_PIECES) * count:
            return 0
    if not low or np.mean(low) < MOST_PIECES:
        return 0
    return 1 if high and np.mean(high) < MOST_PIECES else 2


def reader_of(path: Path, known: Examination, rate: int) -> Callable[[int, int], NDArray[np.float32]]:
    """What gives samples of a recording from a first one on, so many: a short one is decoded once for all pieces."""
    if known.seconds * rate > MOST_HELD:
        return lambda start, length: read_samples(path, start, length, rate)
    whole = np.concatenate([np.zeros(0, np.float32), *open_recording(path, rate).waveform()])
    return lambda start, length: whole[start : start + length]


def best_shift(
    piece: NDArray[np.float32], around: NDArray[np.float32], rate: int, lowest: int = 0
) -> tuple[float, int]:
    """How well a piece fits into a longer one, every band counting alike, and from which sample on."""
    size = 1 << len(around).bit_length()  # no shift that is looked at wraps round
    first, second = np.fft.rfft(piece, size), np.fft.rfft(around, size)
    whitened = np.zeros(len(first), np.complex128)
    for bins in band_bins(size, rate, lowest).values():
        strength = float(np.linalg.norm(first[bins]) * np.linalg.norm(second[bins]))
        if strength > 0:
            whitened[bins] = np.conj(first[bins]) * second[bins] / strength
    fits = np.abs(np.fft.irfft(whitened, size)[: len(around) - len(piece) + 1])
    best = int(fits.argmax())
    return float(fits[best]), best


def band_correlations(
    piece: NDArray[np.float32], other: NDArray[np.float32], rate: int, lowest: int = 0
) -> dict[int, float]:
    """Lower edge in Hz of each band that holds sound -> correlation there, a little out of step perhaps."""
    peaks = [float(np.abs(sound).max(initial=0)) for sound in (piece, other)]
    if max(peaks) < SILENCE:
        return {}
    bands = band_bins(len(piece), rate, lowest)
    if min(peaks) < SILENCE:  # one recording has ended, or its microphone has died
        return dict.fromkeys(bands, 0.0)
    first, second = np.fft.rfft(piece), np.fft.rfft(other)
    turns = np.exp(2j * np.pi * np.arange(len(first)) / len(piece) * NUDGES[:, None])
    above = round(lowest * len(piece) / rate)
    whole = float(np.linalg.norm(first[above:])), float(np.linalg.norm(second[above:]))
    found = dict[int, float]()
    for edge, bins in bands.items():
        strengths = float(np.linalg.norm(first[bins])), float(np.linalg.norm(second[bins]))
        if max(strengths[0] / whole[0], strengths[1] / whole[1]) >= FAINT:
            fits = turns[:, bins] @ (np.conj(first[bins]) * second[bins])
            found[edge] = float(np.abs(fits).max()) / max(strengths[0] * strengths[1], 1e-30)
    return found


def band_bins(size: int, rate: int, lowest: int = 0) -> dict[int, slice]:
    """Lower edge of each band below half the rate in Hz -> its bins in a transform of so many samples.

    lowest   Hz that a band must reach beyond
    """
    edges = [edge for edge in BANDS if edge < 0.45 * rate]
    ends = [*edges[1:], min(BANDS[len(edges)], round(0.45 * rate))] if edges else []
    bins = {
        edge: slice(round(edge * size / rate), round(end * size / rate)) for edge, end in zip(edges, ends, strict=True)
    }
    reached = {edge for edge, end in zip(edges, ends, strict=True) if end > lowest}
    return {edge: found for edge, found in bins.items() if edge in reached and found.stop - found.start >= 8}


def considered_again(rows: Sequence[Recording]) -> tuple[list[Recording], set[Path]]:
    """The rows of a table, and the files that it sets aside as duplicates and that are there: whether they still are
    duplicates is for what is asked for today, and for the other rows, to say."""
    aside = {row.path for row in rows if row.status == "duplicate" and is_there(row.path)}
    return [replace(row, status="ok", reason="") if row.path in aside else row for row in rows], aside


def without_duplicates(
    rows: Sequence[Recording],
    examined: Mapping[Path, Examination],
    own_times: Collection[Path] = (),
    keep_all: bool = False,
    band: Band = BIRDS,
) -> tuple[list[Recording], list[tuple[Path, Path]]]:
    """One sound, one recording: of several files with the same sound one stays, the labelled before the unlabelled.

    Only equal samples join the labels of several species. Of a sound in two encodings, one is set aside where both have
    the same labels, or it has none; else both stay.

    own_times   files with labelled segments or kept segments, which all stay: their times are their own
    keep_all    all of them stay
    band        where they were examined, and are compared
    returns     the rows, and the pairs of files that stay though they hold the same sound; no split may part them
    """
    order = {row.path: row for row in sorted(rows, key=lambda row: (not row.labels, not row.labeled, row.name))}
    known = [row for row in order.values() if row.sound]  # the rows change below, their places do not
    pairs = same_sounds([row.path for row in known], examined, band)
    kept = set(own_times)
    settled = [row.path in kept for row in known]  # what is not set aside, or is already
    stays_for: dict[int, int] = {}  # what is set aside -> what stays
    # equal samples first, since they join labels; then other encodings, where labels agree
    for stays, goes, likeness in sorted(pairs, key=lambda pair: pair.likeness != "equal"):
        if keep_all or likeness == "low" or settled[stays] or settled[goes]:
            continue
        one, other = known[stays], known[goes]
        if likeness == "same" and other.labels and set(one.labels) != set(other.labels):
            continue
        labels = tuple(dict.fromkeys(one.labels + other.labels))
        licenses = JOINED.join(dict.fromkeys(licenses_of(one) + licenses_of(other)))
        reason = f"the same samples as {one.name}" if likeness == "equal" else f"the same sound as {one.name}"
        if (labels, licenses) != (one.labels, one.license):
            known[stays] = replace(one, labels=labels, license=licenses)
        known[goes] = replace(other, status="duplicate", reason=reason)
        stays_for[goes] = stays
        settled[goes] = True
    for goes, stays in stays_for.items():  # what stays may have been set aside itself, behind another encoding
        while stays in stays_for:
            stays = stays_for[stays]
        if stays != stays_for[goes]:
            known[goes] = replace(known[goes], reason=f"the same sound as {known[stays].name}")
            stays_for[goes] = stays
    count = len(stays_for)
    if count:
        show(f"{count:,} recordings are duplicates of others: set aside")
    changed = {known[index].path: known[index] for index in {*stays_for, *stays_for.values()}}
    ends = [(stays_for.get(one, one), stays_for.get(other, other)) for one, other, _ in pairs]
    left = [(known[one].path, known[other].path) for one, other in ends if one != other]
    return [changed.get(row.path, row) for row in rows], left


def licenses_of(row: Recording) -> list[str]:
    """The licences of a recording, and of its duplicates that an earlier run has set aside."""
    return row.license.split(JOINED) if row.license else []


def beside_twins(
    rows: Sequence[Recording], pairs: Sequence[tuple[Path, Path]], aside: Collection[Path]
) -> list[Recording]:
    """What a table had set aside and is used after all has the group and the fold of what it sounds like, in place of
    the ones in its row, which were of no use before."""
    used = {path for pair in pairs for path in pair if path in aside}
    return [replace(row, group=f"file {row.name}", fold=-1) if row.path in used else row for row in rows]


def duplicates_of(rows: Sequence[Recording]) -> list[Recording]:
    """The rows of recordings that stay, each followed by its duplicates."""
    twins: dict[str, list[Recording]] = {}
    for row in rows:
        if row.status == "duplicate":
            twins.setdefault(row.reason.partition(" as ")[2], []).append(row)
    return [one for row in rows if row.name in twins for one in (row, *twins[row.name])]


if __name__ == "__main__":
    import tempfile

    import soundfile

    rng = np.random.default_rng(0)
    owl, rain = np.repeat(rng.uniform(0, 0.3, 40), 1600) * rng.normal(0, 1, 64_000), rng.normal(0, 0.1, 64_000)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("owl.wav", "again.mp3", "rain.flac")]
        for path, sound in zip(paths, (owl, 0.5 * owl, rain), strict=True):
            soundfile.write(path, sound, 16_000)
        pairs = same_sounds(paths, examine(paths))
        assert copies_of(paths[:1], paths[1:]) == {paths[1]}
    print("the same sound:", [(paths[one].name, paths[other].name) for one, other, _ in pairs])
    assert pairs == [(0, 1, "same")]
