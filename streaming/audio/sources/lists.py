"""Playlists of others: M3U and PLS, which name files and addresses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

__all__ = ["LIST_SUFFIXES", "is_hls", "list_entries", "local_entries"]

LIST_SUFFIXES: Final = (".m3u", ".m3u8", ".pls")
_PLS_ENTRY: Final = re.compile(r"^\s*File(\d+)\s*=\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE)


def is_hls(data: bytes) -> bool:
    """Whether it is M3U that names the pieces of one stream (RFC 8216): ffmpeg's affair."""
    return b"#EXT-X-" in data


def list_entries(data: bytes) -> list[str]:
    """What an M3U or PLS file names, in its order."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    if text.lstrip().lower().startswith("[playlist]"):
        found = sorted((int(number), entry) for number, entry in _PLS_ENTRY.findall(text))
        return [entry for _, entry in found]
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def local_entries(path: Path, data: bytes) -> list[str]:
    """The same of a list on disk: addresses, and paths from its folder on."""
    entries = []
    for entry in list_entries(data):
        if entry.lower().startswith("file://"):
            entry = unquote(urlsplit(entry).path)
        entries.append(entry if "://" in entry else str(path.parent / entry))
    return entries
