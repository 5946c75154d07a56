"""Pages without a server: a folder that any web host serves, with the player and recordings."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from streaming.errors import SettingsError
from streaming.files.muc import MucReader
from streaming.web import player
from streaming.web.assets import STATIC

__all__ = ["export_page"]

_PAGE: Final = {
    "index.html": "recordings.html",
    "recordings.js": "recordings.js",
    "overview.js": "overview.js",
    "stream.js": "stream.js",
    "spectrogram.js": "spectrogram.js",
    "pictures.js": "pictures.js",
    "page.css": "page.css",
    "icon.svg": "icon.svg",
}


def export_page(folder: Path, recordings: Sequence[Path]) -> None:
    """Write the page into ``folder``, which may be there already, with copies of ``recordings``.

    A plain host does not say that a file is compressed, so the page unpacks the large ones itself.

    Raises:
        SettingsError: two recordings have one name.
        SourceError: a recording is none.
        OSError: something cannot be written.
    """
    names = [path.name for path in recordings]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise SettingsError(
            f"Two recordings are called {min(doubled)}; give one of them another name."
        )
    listed = [_describe(path) for path in recordings]
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in _PAGE.items():
        shutil.copyfile(STATIC / source, folder / name)
    (folder / "player.json").write_text(json.dumps(list(_player(folder))) + "\n")
    (folder / "recordings").mkdir(exist_ok=True)
    for path in recordings:
        shutil.copyfile(path, folder / "recordings" / path.name)
    (folder / "recordings.json").write_text(json.dumps(listed, ensure_ascii=False) + "\n", "utf-8")


def _describe(path: Path) -> dict[str, Any]:
    info = MucReader(path).describe()
    return {
        "name": path.name,
        "title": info.titles[0].title if info.titles else "",
        "seconds": round(info.seconds, 2),
        "url": f"recordings/{path.name}",
    }


def _player(folder: Path) -> Iterator[dict[str, Any]]:
    """Write the player's files; yields what the manifest says of each."""
    for entry, file in zip(player.manifest(), player.files(), strict=True):
        target = folder / file.url
        target.parent.mkdir(parents=True, exist_ok=True)
        content = file.path.read_bytes()
        if file.script:
            target.write_bytes(gzip.decompress(content) if file.packed else content)
            yield entry
        else:
            packed = content if file.packed else gzip.compress(content, mtime=0)
            target.with_name(f"{file.name}.gz").write_bytes(packed)
            yield entry | {"url": f"{file.url}.gz", "gzip_bytes": len(packed)}
