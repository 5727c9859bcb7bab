"""A folder of sound, what lies in it, and all there is once its layout has been read."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from archive.annotations import RAVEN_NAME, table_kind
from archive.index import NameIndex, other_files, sounds_below
from archive.recordings import Recording
from taxonomy import Taxonomy


@dataclass(frozen=True)
class Collection:
    """All there is, for the rooms above."""

    taxonomy: Taxonomy | None  # None where nothing is labelled
    recordings: list[Recording]  # sorted by name and start; what cannot be used is refused or missing, with a reason
    notes: list[str]  # one line each, to be printed


class SourceFolder:
    """A folder of sound, and what lies in it, looked for no sooner than somebody asks."""

    def __init__(self, root: Path, label_column: str = "", named: bool = False) -> None:
        self.root = root
        self.label_column = label_column
        self.named = named  # its layout was named, and not looked for
        self.predictions: set[str] = set()  # tables like annotations that a model wrote, seen while looking for those
        self.orphans: set[str] = set()  # tables of times that neither name a recording nor bear the name of one

    @cached_property
    def sounds(self) -> tuple[list[str], list[str]]:
        """Names of all sound files below, relative to the root, and notes on the search."""
        return sounds_below(self.root, self.root)

    @cached_property
    def names(self) -> list[str]:
        return self.sounds[0]

    @cached_property
    def index(self) -> NameIndex:
        return NameIndex(self.names)

    @cached_property
    def tables(self) -> list[Path]:
        """Annotation tables, those of the deeper folders last."""
        found = [path for path in other_files(self.root, {".txt", ".csv", ".tsv"}) if self.is_annotated(path)]
        return sorted(found, key=lambda path: (len(path.parts), path))

    def is_annotated(self, path: Path) -> bool:
        """Whether a table says where in a recording somebody found something."""
        kind = table_kind(path, self.label_column)
        name = path.relative_to(self.root)
        if kind == "predicted":
            self.predictions.add(name.as_posix())
        if kind == "labels" and not self.index.find(RAVEN_NAME.sub("", path.name), name.parent.as_posix()):
            self.orphans.add(name.as_posix())
            return False
        return kind in ("annotated", "labels")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "dawn.wav").touch()
        (Path(folder) / "dawn.txt").write_text("Begin Time (s)\tEnd Time (s)\tSpecies\n3.5\t4.25\tParus major\n")
        source = SourceFolder(Path(folder))
        print(source.names, [table.name for table in source.tables])
        assert source.names == ["dawn.wav"] and [table.name for table in source.tables] == ["dawn.txt"]
