"""The works that a folder of music, or a file of weights, is made from, and how they are credited.

``training.collect_free`` leaves their list in the folder that it fills; ``training.export`` puts
it into the model card. ``python -m training.works LIST`` prints the credits.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from streaming.audio.sources.readers import quoted
from streaming.errors import SettingsError
from training.program import run_program

__all__ = ["LIST_NAME", "Credit", "Work", "WorkList", "credits_of", "main", "refuse_held_out"]

LIST_NAME = "works.json"


@dataclass(frozen=True)
class Work:
    """One recording of one package.

    Attributes:
        package: the Debian package that it came in.
        version: of the package.
        source: its path in the package; ``ARCHIVE:PATH`` if it lay in an archive there.
        sha256: of the file at that path.
        license: as the package states it.
        copyright: the rights holders as the package states them.
        comment: what else the package says of it.
        title: as the file is tagged.
        artist: as the file is tagged.
        file: the excerpt, from the list's folder; empty if the list is not one of a folder.
        start_s: where in the recording the excerpt begins.
        seconds: how long it is.
    """

    package: str
    version: str
    source: str
    sha256: str
    license: str = ""
    copyright: str = ""
    comment: str = ""
    title: str = ""
    artist: str = ""
    file: str = ""
    start_s: float = 0.0
    seconds: float = 0.0


@dataclass
class WorkList:
    """A list of works as a file.

    Attributes:
        held_out: it is music to measure with, never to be trained on.
        settings: what the music was collected with.
        packages: the works of each package, none for one that has none to offer.
    """

    held_out: bool
    settings: dict[str, object]
    packages: dict[str, list[Work]]

    @property
    def works(self) -> list[Work]:
        """All works of all packages."""
        return [work for works in self.packages.values() for work in works]

    @classmethod
    def read(cls, path: Path) -> WorkList:
        """Raises SettingsError if there is no such list in the file."""
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            packages = {
                str(name): [Work(**row) for row in rows]
                for name, rows in stored["packages"].items()
            }
            return cls(bool(stored["held_out"]), dict(stored["settings"]), packages)
        except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
            raise SettingsError(
                f"{quoted(path)} is no list of works as training.collect_free writes it"
            ) from error

    def write(self, path: Path) -> None:
        """Replace the file by this list, at once or not at all."""
        part = path.with_suffix(".part")
        stored = asdict(self)
        for name, rows in stored["packages"].items():
            stored["packages"][name] = [{k: v for k, v in row.items() if v} for row in rows]
        part.write_text(json.dumps(stored, indent=1, ensure_ascii=False), encoding="utf-8")
        part.replace(path)


@dataclass(frozen=True)
class Credit:
    """Works of one package with the same licence and rights holders."""

    package: str
    version: str
    license: str
    copyright: str
    titles: tuple[str, ...]

    def line(self) -> str:
        """In Markdown, on one line."""
        holders = re.sub(r"\s*<[^<>]*@[^<>]*>", "", self.copyright)  # addresses are for no list
        stated = ", ".join(filter(None, (self.license or "no licence stated", holders)))
        return f"- **{self.package}** {self.version}, {stated}: {'; '.join(self.titles)}"


def credits_of(works: Iterable[Work]) -> list[Credit]:
    """Who is to be credited with what, in the order of the list."""
    titles: dict[tuple[str, str, str, str], list[str]] = {}
    for work in works:
        path = PurePosixPath(work.source.rpartition(":")[2])
        title = work.title or path.stem
        if work.artist:
            title += f" ({work.artist})"
        titles.setdefault((work.package, work.version, work.license, work.copyright), []).append(
            title
        )
    return [Credit(*key, tuple(found)) for key, found in titles.items()]


def refuse_held_out(data: Path) -> None:
    """SettingsError if music below a folder was collected to measure with."""
    for path in sorted(data.rglob(LIST_NAME)):
        if WorkList.read(path).held_out:
            raise SettingsError(
                f"{quoted(path.parent)} holds music that is kept out of training, to measure "
                "with; name another folder"
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.works", description="The credits of a list of works, as Markdown."
    )
    parser.add_argument("list", type=Path, help=f"{LIST_NAME} of training.collect_free, or alike")
    args = parser.parse_args(argv)

    def show() -> None:
        for credit in credits_of(WorkList.read(args.list).works):
            print(credit.line())

    return run_program("works", show)


if __name__ == "__main__":
    sys.exit(main())
