"""The snippets of the documentation, found by their fences.

A block of `sh` or `python` is run by the tests, unless its fence says why it cannot be:

    ```sh not-run: it needs a sound card
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.processes import ROOT

__all__ = ["PAGES", "Snippet", "commands", "snippets"]

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"^( *)```(sh|python)\b([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_REASON = "not-run:"


@dataclass(frozen=True)
class Snippet:
    """A block of commands or of Python.

    Attributes:
        page: file that it stands in.
        line: of its fence, from 1.
        language: "sh" or "python".
        note: what the fence says after the language.
        text: what is inside.
    """

    page: Path
    line: int
    language: str
    note: str
    text: str

    @property
    def reason(self) -> str:
        """Why it is not run; empty if it is."""
        return self.note.removeprefix(_REASON).strip() if self.note.startswith(_REASON) else ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def snippets(page: Path, language: str) -> list[Snippet]:
    """Those of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Snippet(page, text.count("\n", 0, found.start()) + 1, found[2], found[3].strip(), found[4])
        for found in _FENCE.finditer(text)
        if found[2] == language
    ]


def commands(snippet: Snippet) -> Iterator[str]:
    """Its commands, each on one line, without comments."""
    for line in snippet.text.replace("\\\n", " ").splitlines():
        comment = re.search(r"(^|\s)#\s.*$", line)
        command = (line[: comment.start()] if comment else line).strip()
        if command:
            yield command
