"""Writes ``tests/data/vectors.json``: what a listener in another language must compute.

    python -m tests.vectors

docs/portable.md says what each part is. ``tests/codec/nano/test_vectors.py`` holds the file to the
code, so it changes only if what it describes does.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np

import codec
from codec.base import DecodeSettings
from codec.nano.base import FLOW_PURPOSE, NOISE_PURPOSE
from codec.nano.onnx_codec import segment_phases
from codec.noise import keyed_normal
from codec.packing import pack_tokens
from codec.stream import StreamDecoder
from streaming.files.muc import MucReader
from streaming.files.muc.messages import Finish, Record, StreamHeader
from streaming.files.muc.writer import MucMuxer
from streaming.wire.messages import Gap, Title, Tokens
from tests import DATA

__all__ = ["PATH", "muc_contents", "vectors"]

PATH: Final = DATA / "vectors.json"
_LATE: Final = 25 * 86_400 * 30
"""A token thirty days into a stream."""
_TOKENS: Final = 60
_EVERY: Final = 997
"""Samples between two that are written down."""


def vectors() -> dict[str, Any]:
    """All vectors, in plain types."""
    nano = codec.load("nano")
    tokens = np.random.default_rng(1).integers(0, codec.CODEBOOK_SIZE, _TOKENS)
    latents = nano.decode_window(
        tokens[:32], first_token=7, context=None, seed=3, settings=DecodeSettings()
    )
    decoder = StreamDecoder(nano, seed=3, first_token=7)
    decoder.feed(tokens)
    decoder.finish()
    sound = np.concatenate(list(decoder), axis=1)
    return {
        "weights": nano.digest,
        "packing": {"tokens": tokens[:25].tolist(), "hex": pack_tokens(tokens[:25]).hex()},
        "noise": [
            {
                "seed": seed,
                "token": token,
                "width": width,
                "purpose": purpose,
                "first": _rounded(keyed_normal(seed, token, 1, width, purpose)[0, :8]),
                "middle": _rounded(
                    keyed_normal(seed, token, 1, width, purpose)[0, width // 2 :][:8]
                ),
            }
            for seed, token in ((0, 0), (3, 7), (2**63 + 11, _LATE))
            for width, purpose in ((720, FLOW_PURPOSE), (3840, NOISE_PURPOSE))
        ],
        "phases": [
            {
                "first_token": first,
                "cos": _rounded(segment_phases(first, 1)[0][:, ::12].ravel()),
                "sin": _rounded(segment_phases(first, 1)[1][:, ::12].ravel()),
            }
            for first in (0, 7, _LATE)
        ],
        "windows": _windows(nano),
        "window": {
            "tokens": tokens[:32].tolist(),
            "first_token": 7,
            "seed": 3,
            "latents_every_97th": _rounded(latents.ravel()[::97]),
        },
        "stream": {
            "tokens": tokens.tolist(),
            "first_token": 7,
            "seed": 3,
            "samples": sound.shape[1],
            "every": _EVERY,
            "left": _rounded(sound[0, ::_EVERY]),
            "right": _rounded(sound[1, ::_EVERY]),
        },
        "muc": _muc(nano),
    }


def _windows(nano: codec.base.Codec) -> dict[str, Any]:
    """Which tokens each window of the stream below decodes, and which latents it renders."""
    rows: list[list[int]] = []
    rendered: list[list[int]] = []

    class Watched(type(nano)):  # type: ignore[misc]
        def decode_window(self, tokens: Any, **options: Any) -> Any:
            known = 0 if options["context"] is None else len(options["context"])
            rows.append([options["first_token"], len(tokens), known])
            return np.zeros((len(tokens), 720), np.float32)

        def render(self, latents: Any, **options: Any) -> Any:
            rendered.append([options["first_token"], len(latents)])
            return np.zeros((2, len(latents) * 1920), np.float32)

    decoder = StreamDecoder(Watched.__new__(Watched), first_token=7)
    decoder.feed(np.zeros(200, np.int64))
    decoder.finish()
    list(decoder)
    return {"first_token": 7, "tokens": 200, "decoded": rows, "rendered": rendered}


def _muc(nano: codec.base.Codec) -> dict[str, Any]:
    """A damaged recording with context, a hole, tokens that came twice, and an end."""
    muxer = MucMuxer(StreamHeader("nano", nano.weights, nano.digest, 3, "vectors", 100, 116))
    tokens = np.random.default_rng(2).integers(0, codec.CODEBOOK_SIZE, 120)
    records: list[Record] = [
        Tokens(100, tokens[:30]),
        Title("Über\tone", 116),
        Tokens(124, tokens[24:48]),
        Tokens(148, tokens[48:60]),
        Tokens(160, tokens[60:80]),
        Title("Two", 192),
        Tokens(192, tokens[92:115]),
        Finish(220, 600),
    ]
    parts = [muxer.push(record) for record in records]
    parts[3] = parts[3].replace(b"\x01", b"\x00", 1)
    content = b"".join(parts)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vector.muc"
        path.write_bytes(content)
        return {"hex": content.hex(), "holds": muc_contents(path)}


def muc_contents(path: Path) -> dict[str, Any]:
    """What a reader makes of a ``.muc`` file, in plain types; context is among its items."""
    reader = MucReader(path)
    header, info = reader.header, reader.describe()
    return {
        "codec": header.codec,
        "weights": header.weights,
        "digest": header.digest,
        "seed": header.seed,
        "stream": header.stream,
        "first_token": header.first_token,
        "start_token": header.music_from,
        "samples": info.samples,
        "lost": info.lost_tokens,
        "complete": info.complete,
        "items": [
            ["tokens", item.first_token, item.tokens.tolist()]
            if isinstance(item, Tokens)
            else ["gap", item.first_token, item.count]
            if isinstance(item, Gap)
            else ["title", item.token, item.title]
            for item in reader.items(context=True)
        ],
    }


def _rounded(values: np.ndarray[Any, Any]) -> list[float]:
    return [round(float(value), 6) for value in values]


if __name__ == "__main__":
    PATH.write_text(json.dumps(vectors(), indent=1) + "\n", encoding="utf-8")
