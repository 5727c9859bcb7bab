"""What a whole archive came to: recordings by status, hours, detections, the species detected most.

totals = Totals()
for analysed in journal.recall(entries): ...           # totals.add(analysed)
totals.lines()                                         # for a terminal
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serving.detections import Analysed, Detection, clock_text, validation_mark

LISTED = 40  # species, and recordings in which something is wrong


@dataclass
class Tally:
    """What is remembered of a species."""

    name: str
    windows: int
    best: float
    first: str  # where it was detected first
    validated: str = ""


@dataclass
class Totals:
    """What is remembered of all recordings."""

    statuses: Counter[str] = field(default_factory=Counter[str])
    hours: float = 0.0
    hours_silent: float = 0.0
    minutes_voice: float = 0.0
    minutes_skipped: float = 0.0
    with_voices: int = 0  # recordings
    detections: int = 0
    species: dict[str, Tally] = field(default_factory=dict[str, Tally])  # by label
    troubles: list[str] = field(default_factory=list[str])

    def add(self, analysed: Analysed) -> None:
        """Add one recording."""
        self.statuses[analysed.status] += 1
        self.hours += analysed.seconds_analysed / 3600
        self.hours_silent += analysed.seconds_silent / 3600
        self.minutes_voice += analysed.seconds_voice / 60
        self.minutes_skipped += analysed.seconds_skipped / 60
        self.with_voices += analysed.seconds_voice > 0
        self.detections += len(analysed.found)
        for detection in analysed.found:
            first = Tally(detection.common_name, 0, 0.0, where_first(detection, analysed.file), detection.validated)
            tally = self.species.setdefault(detection.label, first)
            tally.windows += 1
            tally.best = max(tally.best, detection.confidence)
        if analysed.status != "ok" and len(self.troubles) < LISTED:
            self.troubles.append(f"{analysed.file}: {analysed.status}, {analysed.reason}")

    def lines(self) -> list[str]:
        """For a terminal: species, troubles, and the sum."""
        silent = f" and {self.hours_silent:.2f} h without sound" if self.hours_silent >= 0.005 else ""
        counts = status_counts(self.statuses) or "none"
        return [
            *(species_table(self.species) or ["nothing reaches its threshold"]),
            *self.troubles,
            f"{self.statuses.total()} recordings ({counts}), {self.hours:.2f} h{silent}, {self.detections} detections",
            *([self.voices()] if self.with_voices else []),
        ]

    def voices(self) -> str:
        """How much there is of people's voices, and what is not scored because of them."""
        skipped = f"; {self.minutes_skipped:.1f} minutes are not scored" if self.minutes_skipped else ""
        return f"voices in {self.with_voices} recordings, {self.minutes_voice:.1f} minutes{skipped}"


def where_first(detection: Detection, file: str) -> str:
    """When a window was recorded, as far as that is known; else where in which file it is."""
    return detection.detected_at or f"{Path(file).name} {clock_text(detection.start)}"


def species_table(species: Mapping[str, Tally]) -> list[str]:
    """The species detected most first."""
    if not species:
        return []
    lines = [f"{'species':40}{'windows':>9}{'best':>7}  first detected"]
    for tally in sorted(species.values(), key=lambda tally: tally.windows, reverse=True)[:LISTED]:
        lines.append(
            f"{tally.name[:39]:40}{tally.windows:9}{tally.best:7.2f}  {tally.first}{validation_mark(tally.validated)}"
        )
    return lines + ([f"... and {len(species) - LISTED} more"] if len(species) > LISTED else [])


def status_counts(statuses: Mapping[str, int]) -> str:
    """How many recordings have which status: 12 ok, 1 unreadable."""
    return ", ".join(f"{number} {status}" for status, number in statuses.items())


if __name__ == "__main__":
    frog = Detection(0.0, 5.0, "41", "Rana ficta", "frog", 0.9, 0.5)
    totals = Totals()
    for name, status, found in (("dawn.wav", "ok", (frog, frog)), ("noon.wav", "silent", ())):
        totals.add(Analysed(name, "", "", 32_000, 1, 60.0, 60.0, 12, status, "holds no sound", 1, 1, found))
    print("\n".join(totals.lines()))
    assert totals.species["41"].windows == totals.detections == 2 and status_counts(totals.statuses) == "1 ok, 1 silent"
