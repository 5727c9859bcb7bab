"""Who helped to make a file is handed on with all that comes of it, and what keeps it from commercial use is loud."""

from archive.licences import handed_on, licence_note, teachers_of

CLOSED = (
    *("cc-by-nc-4.0", "non_commercial", "research/academic use only", "for research use only", "Research-only licence"),
    *("only for academic research", "educational and research purposes only", "not for commercial use"),
)
OPEN = ("Apache-2.0", "cc-by-4.0", "commercial use allowed", "cite our research", "only with the author's name")
PERCH = {"name": "Perch 2", "license": "Apache-2.0", "sha256": "ab"}


def test_a_non_commercial_teacher_is_said_loudly_and_any_other_plainly() -> None:
    assert licence_note([]) == ""
    assert licence_note([PERCH]) == "made with the help of Perch 2 (licence: Apache-2.0)"
    for closed in ("CC BY-NC-SA 4.0", "cc-by-nc", "Non-Commercial", "for noncommercial use", "CC BY-NC 4.0", *CLOSED):
        note = licence_note([PERCH, {"name": "BirdNET", "license": closed}])
        assert note.startswith("NON-COMMERCIAL: ") and f"BirdNET (licence: {closed})" in note and "\n" not in note
    for open_one in ("CC BY-SA 4.0", "MIT", "licence of the Nancy council", "once", *OPEN):
        assert not licence_note([{"name": "one", "license": open_one}]).startswith("NON")
    assert "--imitation.license" in licence_note([{"name": "one", "license": "unknown"}])


def test_teachers_are_read_from_a_provenance_whatever_stands_there() -> None:
    assert teachers_of({"teachers": [PERCH]}) == [PERCH]
    assert teachers_of({}) == teachers_of({"teachers": "BirdNET"}) == teachers_of({"teachers": [1, "x"]}) == []
    assert teachers_of({"teachers": [{"name": 3, 4: None}]}) == [{"name": "3", "4": "None"}]


def test_a_published_file_is_a_helper_itself_of_what_is_made_of_it() -> None:
    published = {"license": "cc-by-nc-4.0", "teachers": [PERCH, PERCH]}
    own = {"name": "frogs.onnx", "license": "cc-by-nc-4.0", "sha256": "ff"}
    assert handed_on(published, "frogs.onnx", "ff") == [PERCH, own]
    assert handed_on({"teachers": [PERCH]}, "frogs.onnx", "ff") == [PERCH]  # nobody said on what terms
    for nothing in ({}, {"license": ""}, {"license": 3}, {"license": None, "teachers": "Perch"}):
        assert handed_on(nothing, "frogs.onnx") == []
    assert len(handed_on({"license": "x" * 10_000}, "frogs.onnx")[0]["license"]) == 200


def test_terms_far_down_in_a_licence_are_handed_on() -> None:
    words = "Permission is granted to whoever likes birds. " * 9 + "For non-commercial use."
    (alone,) = handed_on({"license": words}, "frogs.onnx")
    (helper,) = handed_on({"teachers": [{"name": "Frogs", "license": words}]}, "frogs.onnx")
    assert [len(one["license"]) for one in (alone, helper)] == [200, 200]
    assert all(licence_note([one]).startswith("NON-COMMERCIAL") for one in (alone, helper))
    (free,) = handed_on({"license": words.replace("non-commercial", "any")}, "frogs.onnx")
    assert not licence_note([free]).startswith("NON-COMMERCIAL") and words.startswith(free["license"])
