"""The player's reader of .muc files against Python's, with whole and with damaged files."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streaming.errors import SourceError
from streaming.files.muc import MucReader
from streaming.files.muc.messages import Clock, Finish, StreamHeader
from streaming.files.muc.writer import MucEncoder, MucMuxer
from streaming.wire.messages import Gap, Title, Tokens
from tests.streaming.web.test_player_modules import run  # noqa: F401
from tests.support.browser import browser  # noqa: F401

DIGEST = "0123456789abcdef" * 4


def whole_file() -> bytes:
    file = MucEncoder(StreamHeader("nano", "nano-6", DIGEST, 5))
    tokens = np.random.default_rng(0).integers(0, 16384, 700)
    return file.title("Song") + file.tokens(tokens) + file.finish(700 * 1920 - 600)


def recording() -> bytes:
    """With context, holes, a long hole, what came twice, titles and a clock."""
    muxer = MucMuxer(StreamHeader("nano", "nano-6", DIGEST, 7, "s", 1000, 1100))
    some = np.random.default_rng(1).integers(0, 16384, 200)
    records: list[Any] = [
        Tokens(1000, some[:90]),
        Title("One", 1090),
        Tokens(1090, some[:30]),
        Tokens(1110, some[:48]),
        Gap(1158, 12),
        Clock(1170, 1764028800.5),
        Tokens(1170, some[:4]),
        Title("Two", 30_000),
        Tokens(30_000, some),
        Tokens(30_205, some[:25]),
        Finish(30_235, 77),
    ]
    return b"".join(muxer.push(record) for record in records)


def read_by_python(content: bytes, path: Path) -> dict[str, Any] | None:
    path.write_bytes(content)
    try:
        reader = MucReader(path)
        info = reader.describe()
        info.check_silence("it")
        items = list(reader.items(context=True))
    except SourceError:
        return None
    return {
        "seed": reader.header.seed,
        "samples": info.samples,
        "lost": info.lost_tokens,
        "complete": info.complete,
        "items": [
            ["tokens", item.first_token, item.tokens.tolist()]
            if isinstance(item, Tokens)
            else ["gap", item.first_token, item.count]
            if isinstance(item, Gap)
            else ["title", item.token, item.title]
            for item in items
        ],
    }


READ = """
const { readMuc } = await get("muc");
return given[0].map((text) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  let file;
  try {
    file = readMuc(bytes);
  } catch {
    return null;
  }
  const row = (item) => ({
    tokens: () => [item.first, Array.from(item.tokens)],
    gap: () => [item.first, item.count],
    title: () => [item.token, item.title],
  })[item.type]();
  const { header, samples, lost, complete } = file;
  const items = file.items.map((item) => [item.type, ...row(item)]);
  return { seed: header.seed, samples, lost, complete, items };
});
"""


@pytest.mark.parametrize("made", [whole_file, recording])
def test_files_are_read_as_by_python_whole_or_damaged(run, tmp_path, made):  # noqa: F811
    random = np.random.default_rng(9)
    content = made()
    files = [content, content[: len(content) // 2], content[8:], b"", content + content]
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(int(random.integers(1, 5))):
            at = int(random.integers(0, len(damaged)))
            kind = int(random.integers(0, 4))
            if kind == 0:
                damaged[at] ^= 1 << int(random.integers(0, 8))
            elif kind == 1:
                del damaged[at : at + int(random.integers(1, 600))]
            elif kind == 2:
                damaged[at:at] = random.bytes(int(random.integers(1, 40)))
            else:
                damaged[at:at] = damaged[: int(random.integers(1, 400))]
        files.append(bytes(damaged))
    found = run(READ, [b64encode(file).decode() for file in files])
    expected = [read_by_python(file, tmp_path / "file.muc") for file in files]
    assert expected[0] is not None
    assert expected[0]["complete"]
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert one == other, number
