"""On what terms a file may be used: the licences of those who helped to make it, handed on with all that comes of it.

    teachers = handed_on(provenance, "classifier.safetensors")        # what is made of that file owes to them
    show(licence_note(teachers))

Whose embeddings were imitated, who labelled, and what training began with once somebody had published it stands in the
provenance of every file, under `teachers`: name, license and sha256 of each. No torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import cast

FACTS = "wild_whisper"  # the name under which ONNX files and tables of arrays hold what they say of themselves
NON_COMMERCIAL = re.compile(
    r"(?<![a-z])nc(?![a-z])|(?<![a-z])no[nt]?[ _-]*(for[ _-]*)?commercial"
    r"|(research|academic|educational)[a-z /,&_-]{0,30}(?<![a-z])only(?![a-z])"
    r"|(?<![a-z])only[ _-]+for[a-z /,&_-]{0,30}(research|academic|education)",
    re.IGNORECASE,
)
MOST_CHARACTERS, MOST_READ = 200, 100_000  # of a licence: what is handed on, what is looked at


def teachers_of(provenance: Mapping[str, object]) -> list[dict[str, str]]:
    """Who helped on the way to a file, as its provenance has it; what is no such list is none."""
    found = provenance.get("teachers")
    every = cast(list[object], found) if isinstance(found, list) else []
    facts = [cast(dict[object, object], one) for one in every if isinstance(one, dict)]
    return [{str(key)[:40]: shortened(str(value)) for key, value in one.items()} for one in facts]


def handed_on(provenance: Mapping[str, object], name: str, sha256: str = "") -> list[dict[str, str]]:
    """Whose licences hold for what is made of a file: those who helped to make it, and the file itself where somebody
    published it under a licence.

    name, sha256    of the file
    """
    own = provenance.get("license")
    itself = {"name": name, "license": shortened(own) if isinstance(own, str) else "", "sha256": sha256}
    found = [*teachers_of(provenance), *([itself] if itself["license"] else [])]
    return [one for number, one in enumerate(found) if one not in found[:number]]


def shortened(licence: str) -> str:
    """As much of a licence, or of a name, as is handed on; that it is non-commercial stays to be seen."""
    short = licence[:MOST_CHARACTERS]
    hidden = not is_non_commercial(short) and is_non_commercial(licence[:MOST_READ])
    return f"non-commercial: {short}"[:MOST_CHARACTERS] if hidden else short


def as_facts(provenance: Mapping[str, object]) -> dict[str, str]:
    """What a table of a model's answers holds beside its columns: the provenance of that model, as its file does."""
    return {FACTS: json.dumps({"provenance": provenance})}


def is_non_commercial(licence: str) -> bool:
    """Whether a licence keeps its work from commercial use, by its name or its words."""
    return NON_COMMERCIAL.search(licence) is not None


def licence_note(teachers: Sequence[Mapping[str, str]]) -> str:
    """A line on the licences of teachers, loud where one is non-commercial; nothing where there was no teacher."""
    if not teachers:
        return ""
    names = ", ".join(f"{one.get('name', 'unknown')} (licence: {one.get('license', 'unknown')})" for one in teachers)
    unknown = any(one.get("license", "unknown") == "unknown" for one in teachers)
    note = f"made with the help of {names}"
    if any(is_non_commercial(one.get("license", "")) for one in teachers):
        return f"NON-COMMERCIAL: {note}; use what comes of it on those terms alone"
    return f"{note}; find out what that licence allows, and give it: --imitation.license" if unknown else note


if __name__ == "__main__":
    birdnet = {"name": "BirdNET 2.4", "license": "CC BY-NC-SA 4.0", "sha256": "0" * 64}
    frogs = {"license": "cc-by-4.0", "teachers": [birdnet]}  # a classifier that somebody published
    student = handed_on(frogs, "frogs.onnx", "1" * 64)
    print(licence_note(student))
    assert student[0] == birdnet and student[1]["license"] == "cc-by-4.0" and len(student) == 2
    assert licence_note(student).startswith("NON-COMMERCIAL") and not licence_note([])
