"""The tour's arithmetic: what counts as found. The tour itself is make demo."""

from pathlib import Path

import pytest

from demo import Interval, draw_answers, meets, overlap, print_answers, read_answers, read_detections, read_names
from demo_data import FieldSeason


def test_half_a_second_in_common_is_enough_and_less_is_not() -> None:
    call = Interval("a", 4.0, 7.0)
    assert overlap(call, Interval("a", 0.0, 5.0)) == 1.0 and meets(call, Interval("a", 0.0, 5.0))
    assert not meets(Interval("a", 4.6, 7.0), Interval("a", 0.0, 5.0))
    assert overlap(call, Interval("a", 10.0, 15.0)) < 0


def test_of_a_short_call_half_is_enough() -> None:
    assert meets(Interval("a", 4.8, 5.2), Interval("a", 0.0, 5.0))


def test_answers_are_counted_as_found_missed_and_false(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taxonomy.csv").write_text("primary_label,common_name\na,first frog\nb,second frog\nc,silent frog\n")
    (tmp_path / "answers.csv").write_text("filename,start,end,primary_label\nx,1,4,a\nx,11,14,a\nx,21,24,b\n")
    (tmp_path / "detections.csv").write_text(
        "Start (s),End (s),Species code,Confidence,File\n"
        "0,5,a,0.9,x\n5,10,a,0.4,x\n20,25,a,0.3,x\n0,5,b,0.5,x\n20,25,b,0.9,another\n"
    )
    names, planted = read_names(tmp_path / "taxonomy.csv"), read_answers(tmp_path / "answers.csv")
    print_answers(names, planted, read_detections(tmp_path / "detections.csv", Path("x")))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["first", "frog", "2", "1", "2", "0.90"]
    assert lines[2] == ["second", "frog", "1", "0", "1", "0.50"]
    assert lines[3][:4] == ["all", "3", "1", "3"] and "33 %" in " ".join(lines[3])


def test_answers_are_a_picture(season: FieldSeason, tmp_path: Path) -> None:
    names, planted = read_names(season.root / "taxonomy.csv"), read_answers(season.answers)
    draw_answers(season.soundscape, names, planted, [Interval(planted[0].label, 0.0, 5.0, 0.7)], tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
