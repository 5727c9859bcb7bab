"""Pictures: what is dark, what is grey, what is white, and names that are no markup."""

from xml.etree.ElementTree import fromstring

from serving.charts import NONE, Panel, lines, maps, shade

HOSTILE = '<script>alert(1)</script> & \x1b[2J\udcff "quoted"'


def fills(picture: str) -> list[str]:
    return [found.get("fill", "") for found in fromstring(picture).iter() if found.tag.endswith("rect")][1:]


def test_the_most_is_dark_nothing_is_grey_and_what_was_not_analysed_is_white() -> None:
    panel = Panel("frog", ["1", "2"], ["05"], {("1", "05"): 8.0, ("2", "05"): 0.0})
    assert fills(maps("", [panel])) == [shade(1.0), NONE]
    half = Panel("frog", ["1", "2"], ["05"], {("1", "05"): 8.0, ("2", "05"): 4.0})
    assert fills(maps("", [half])) == [shade(1.0), shade(0.5)] != [shade(0.5), shade(1.0)]


def test_a_hostile_name_is_text() -> None:
    panel = Panel(HOSTILE, [HOSTILE], [HOSTILE], {(HOSTILE, HOSTILE): 1.0})
    for picture in (maps(HOSTILE, [panel]), lines(HOSTILE, HOSTILE, {HOSTILE: [(0, 0), (1, 1)]})):
        tags = {found.tag.rpartition("}")[2] for found in fromstring(picture).iter()}
        assert tags <= {"svg", "rect", "text", "title", "path", "polyline"} and "\x1b" not in picture
        assert "<script>alert(1)</script> &" in "".join(fromstring(picture).itertext())


def test_a_curve_begins_at_the_lower_left_and_ends_at_the_upper_right() -> None:
    picture = lines("hours", "species", {"detected": [(0, 0), (5, 1), (10, 4)]})
    points = next(found.get("points", "") for found in fromstring(picture).iter() if found.tag.endswith("polyline"))
    (x0, y0), _, (x2, y2) = (tuple(map(float, point.split(","))) for point in points.split())
    assert x2 - x0 == 630 and y0 - y2 == 285


def test_a_picture_of_nothing_is_a_picture() -> None:
    assert fills(maps("", [Panel("frog", [], [], {})])) == [] and fromstring(lines("", "", {})) is not None
