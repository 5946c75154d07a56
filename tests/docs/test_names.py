"""Files and folders that the documentation names are there."""

from __future__ import annotations

import re

import pytest

from scripts.processes import ROOT
from tests.docs.snippets import PAGES

_FILES = [
    f"/{path.relative_to(ROOT).as_posix()}"
    for folder in (
        "benchmarks",
        "codec",
        "docs",
        "packaging",
        "scripts",
        "streaming",
        "tests",
        "training",
    )
    for path in (ROOT / folder).rglob("*")
    if "__pycache__" not in path.parts
] + [f"/{path.name}" for path in ROOT.iterdir()]
_NAMED = re.compile(r"`([\w./-]*\w\.(?:py|js)|(?:codec|streaming|tests)/[\w/]*)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_a_page_names_are_there(page):
    named = {name.rstrip("/") for name in _NAMED.findall(page.read_text(encoding="utf-8"))}
    assert [name for name in sorted(named) if not any(f.endswith(f"/{name}") for f in _FILES)] == []
