"""What an archive came to, in lines for a terminal."""

from dataclasses import replace

from serving.detections import Analysed, Detection
from serving.tallies import Totals, species_table, status_counts

FROG = Detection(5.0, 10.0, "41", "Rana ficta", "frog", 0.5, 0.25)
POND = Analysed("a/x.ogg", "a", "", 32_000, 1, 60.0, 60.0, 12, "ok", "", 1, 1)


def test_the_species_table_is_empty_when_nothing_was_detected() -> None:
    assert species_table({}) == [] and Totals().lines()[0] == "nothing reaches its threshold"


def test_the_species_table_counts_windows_and_names_the_first() -> None:
    totals = Totals()
    totals.add(replace(POND, found=(FROG, replace(FROG, start=10.0, confidence=0.9))))
    owl = replace(FROG, label="7", common_name="owl", detected_at="2026-05-14T05:30:05")
    totals.add(replace(POND, file="b/y.ogg", found=(owl,)))
    assert [line.split() for line in species_table(totals.species)[1:]] == [
        ["frog", "2", "0.90", "x.ogg", "0:05.0"],
        ["owl", "1", "0.50", "2026-05-14T05:30:05"],
    ]


def test_recordings_hours_and_troubles_are_summed_up() -> None:
    totals = Totals()
    totals.add(replace(POND, seconds_analysed=5400.0, found=(FROG,)))
    totals.add(
        replace(POND, file="b.wav", seconds_analysed=0.0, seconds_silent=1800.0, status="silent", reason="zeros")
    )
    assert totals.lines()[-2:] == [
        "b.wav: silent, zeros",
        "2 recordings (1 ok, 1 silent), 1.50 h and 0.50 h without sound, 1 detections",
    ]


def test_so_little_silence_that_it_rounds_to_nothing_is_not_mentioned() -> None:
    totals = Totals()
    totals.add(replace(POND, seconds_silent=10.0))
    assert "without sound" not in totals.lines()[-1] and status_counts(totals.statuses) == "1 ok"
