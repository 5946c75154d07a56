"""The player's reader of .muc files against Python's: vectors, and the fuzz corpus mutated."""

from __future__ import annotations

import io
import json
import random
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streaming.errors import SourceError
from streaming.files.muc import MucReader
from streaming.files.muc.framing import MAGIC, frame, scan
from streaming.files.muc.messages import Clock, Finish, StreamHeader
from streaming.files.muc.writer import MucEncoder, MucMuxer
from streaming.wire.messages import Gap, Title, Tokens
from tests import vectors
from tests.fuzz import corpus, mutate
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


def scattered() -> bytes:
    """A few tokens with more than an hour missing between them."""
    muxer = MucMuxer(StreamHeader("nano", "nano-6", DIGEST, 5))
    some = np.arange(8)
    return b"".join(muxer.push(Tokens(14_000 * part, some)) for part in range(8))


REASONS = {
    "is no .muc file": "none",
    "later version": "version",
    "is of version": "version",
    "missing": "silence",
}
"""What errors say, and what they come to."""


def why(sentence: str) -> str:
    return next(reason for words, reason in REASONS.items() if words in sentence)


def read_by_python(content: bytes, path: Path) -> dict[str, Any] | str:
    """What is in a file, or why it cannot be played."""
    path.write_bytes(content)
    try:
        reader = MucReader(path)
        info = reader.describe()
        info.check_silence("it")
        return vectors.muc_contents(path)
    except SourceError as error:
        return why(str(error))


READ = """
const { readMuc } = await get("muc");
return given[0].map((text) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  let file;
  try {
    file = readMuc(bytes);
  } catch (error) {
    return error.message;
  }
  const row = (item) => ({
    tokens: () => [item.first, Array.from(item.tokens)],
    gap: () => [item.first, item.count],
    title: () => [item.token, item.title],
  })[item.type]();
  const { header, start, samples, lost, complete } = file;
  const { codec, weights, digest, seed, stream } = header;
  const items = file.items.map((item) => [item.type, ...row(item)]);
  const first_token = header.first, start_token = start;
  return { codec, weights, digest, seed, stream, first_token, start_token,
           samples, lost, complete, items };
});
"""


def read_by_page(run: Any, files: list[bytes]) -> list[dict[str, Any] | str]:  # noqa: F811
    found = run(READ, [b64encode(file).decode() for file in files])
    return [why(file) if isinstance(file, str) else file for file in found]


def reframed(chance: random.Random, seeds: list[bytes]) -> bytes:
    """Wrong messages in records that are whole: none of it is caught by a checksum."""
    messages = [message for message, _ in scan(io.BytesIO(chance.choice(seeds)))]
    out = [MAGIC]
    for message in messages:
        kind = chance.randrange(12)
        if kind > 1:
            out.append(frame(mutate(chance, [message])[:2048] or b"{") if kind < 6 else b"")
            out.append(frame(message) if kind > 4 else b"")
    return b"".join(out)


def test_files_are_read_as_by_python_whole_or_damaged(run, tmp_path):  # noqa: F811
    chance = random.Random(1)
    seeds = [whole_file(), recording(), scattered(), *corpus("muc")]
    files = [*seeds, b"", *(part for seed in seeds for part in (seed[: len(seed) // 2], seed[8:]))]
    files += [mutate(chance, seeds) for _ in range(400)]
    files += [reframed(chance, seeds) for _ in range(800)]
    expected = [read_by_python(file, tmp_path / "file.muc") for file in files]
    assert {"none", "version", "silence"} <= {one for one in expected if isinstance(one, str)}
    for number, (one, other) in enumerate(zip(read_by_page(run, files), expected, strict=True)):
        assert one == other, (number, files[number])


FIELDS = [
    '"first_token":1e0',
    '"first_token":-0',
    '"seed":9007199254740992',
    '"seed":true',
    '"start_token":null',
    '"start_token":0',
    '"start_token":4096',
    '"start_token":4097',
    '"stream":null',
    '"stream":"  a\\u0007\\u200d b\\u2028c\\ud800 "',
    f'"codec":"{"x" * 70}"',
    f'"digest":["{DIGEST}"]',
    f'"digest":"{DIGEST}0"',
    '"later":NaN',
    '"later":[1.5,{}]',
    '"version":1.0',
]


@pytest.mark.parametrize("field", FIELDS)
def test_a_header_is_read_or_passed_over_as_by_python(run, tmp_path, field):  # noqa: F811
    plain = StreamHeader("nano", "nano-6", DIGEST, 5).encode()
    odd = plain.removesuffix(b"}") + f",{field}}}".encode()
    end = Finish(0).encode()
    files = [
        MAGIC + frame(odd) + frame(end),
        MAGIC + frame(plain) + frame(odd) + frame(Tokens(0, np.arange(3)).encode()) + frame(end),
    ]
    expected = [read_by_python(file, tmp_path / "file.muc") for file in files]
    assert read_by_page(run, files) == expected


TITLES = ["  a\tb\u2028 c\x07 ", "\u200d\ufeff\u00ad", "é" * 300, "👩‍🚀" * 100, "\ud800x", ""]


def test_titles_are_shown_as_by_python(run, tmp_path):  # noqa: F811
    head = MAGIC + frame(StreamHeader("nano", "nano-6", DIGEST, 5).encode())
    files = []
    for title in TITLES:
        event = {"type": "title", "title": title, "token": 0}
        message = json.dumps(event, ensure_ascii=title.startswith("\ud800")).encode()
        files.append(head + frame(message) + frame(Finish(0).encode()))
    expected = [read_by_python(file, tmp_path / "file.muc") for file in files]
    assert all(isinstance(file, dict) and len(file["items"]) == 1 for file in expected)
    assert read_by_page(run, files) == expected


def test_the_vector_is_read_as_it_says(run):  # noqa: F811
    vector = json.loads(vectors.PATH.read_text(encoding="utf-8"))["muc"]
    (found,) = read_by_page(run, [bytes.fromhex(vector["hex"])])
    assert found == vector["holds"]
