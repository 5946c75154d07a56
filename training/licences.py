"""What the copyright file of a Debian package says of each of its files, and what that allows."""

from __future__ import annotations

import enum
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from debian.copyright import Copyright, FilesParagraph, License, NotMachineReadableError

__all__ = ["CopyrightFile", "Statement", "Terms", "terms_of"]

_FREE = re.compile(
    r"(CC0|CC-BY(-SA)?)([- ]\d[\d.]*)?\+?|BSD(-[234]-clause)?|Expat|MIT|X11|ISC|zlib"
    r"|PD|public[- ]domain",
    re.IGNORECASE,
)
_GPL = re.compile(r"L?GPL([- ]\d[\d.]*)?\+?( with .* exception)?", re.IGNORECASE)
_SEPARATORS = (", and ", ", or ", " or ", " and ")  # what binds least comes first


class Terms(enum.IntEnum):
    """What a licence allows us, the more the higher."""

    OTHER = 0
    """Something else, or nothing that is stated."""
    GPL = 1
    """The GNU licences for programs, and nothing besides."""
    FREE = 2
    """Public domain, CC0, CC-BY, CC-BY-SA, BSD, MIT, ISC or zlib."""


def terms_of(expression: str) -> Terms:
    """Terms of a licence as ``debian/copyright`` names it, with ``and`` and ``or`` between names.

    Of alternatives the best counts, of licences that hold together the worst.
    """
    expression = " ".join(expression.split())
    for separator in _SEPARATORS:
        parts = re.split(separator, expression, flags=re.IGNORECASE)
        if len(parts) > 1:
            return (max if "or" in separator else min)(map(terms_of, parts))
    if _FREE.fullmatch(expression):
        return Terms.FREE
    return Terms.GPL if _GPL.fullmatch(expression) else Terms.OTHER


@dataclass(frozen=True)
class Statement:
    """What is stated of a file: its licence by name, its rights holders, and what is remarked."""

    license: str
    copyright: str
    comment: str = ""


class CopyrightFile:
    """The paragraphs of a machine-readable ``debian/copyright``, and those that a person adds.

    Text that is not machine-readable has no paragraphs of its own.

    Args:
        text: of the file.
        read: patterns of files and what a person has read of them elsewhere; these come last,
            and of paragraphs that match a file the last one holds, as the format has it.
    """

    def __init__(self, text: str, read: Sequence[tuple[Sequence[str], Statement]] = ()) -> None:
        self._paragraphs: list[tuple[FilesParagraph, Statement]] = []
        for paragraph in _paragraphs(text):
            # Fields are descriptors, which mypy takes for what they describe.
            license = cast(License | None, paragraph.license)
            if license is not None:  # python-debian lets a paragraph without one pass
                lines = cast(str, paragraph.copyright or "").splitlines()
                holders = "; ".join(" ".join(line.split()).strip(",;") for line in lines if line)
                comment = cast(str, paragraph.comment or "").replace("\n .\n", "\n")
                # "Public Domain" on a line of its own is text to the format, not a name.
                name = license.synopsis or license.text.strip().partition("\n")[0]
                said = Statement(name, holders, " ".join(comment.split()))
                self._add(paragraph.files, said)
        for files, statement in read:
            self._add(files, statement)

    def _add(self, files: Sequence[str], statement: Statement) -> None:
        patterns = [pattern.removeprefix("./") for pattern in files]
        paragraph = FilesParagraph.create(patterns, statement.copyright, License(statement.license))
        self._paragraphs.append((paragraph, statement))

    def statement(self, path: str) -> Statement | None:
        """What is stated of the file at a path of the source package; None if nothing is."""
        found = (said for paragraph, said in reversed(self._paragraphs) if paragraph.matches(path))
        return next(found, None)


def _paragraphs(text: str) -> list[FilesParagraph]:
    logging.getLogger("debian.copyright").setLevel(logging.ERROR)  # remarks on older formats
    try:
        return list(Copyright(text.splitlines(keepends=True), strict=False).all_files_paragraphs())
    except (NotMachineReadableError, ValueError):
        return []
