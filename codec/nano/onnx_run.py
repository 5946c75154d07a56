"""A listener's decoder in numpy and onnxruntime alone: the pattern for one in a browser.

It plays what :mod:`codec.nano.onnx_export` wrote, the same sound as
:class:`codec.stream.StreamDecoder` makes with torch. Whatever it has to know stands in the
manifest beside the graphs. Imports no torch.
"""

from __future__ import annotations

import argparse
import json
import sys
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.constants import CODEBOOK_SIZE, SAMPLE_RATE, SAMPLES_PER_TOKEN
from codec.errors import CodecError, WeightsError
from codec.noise import keyed_normal

__all__ = ["FORMAT", "MANIFEST", "OnnxDecoder", "OnnxNano", "main", "segment_phases"]

FORMAT = "music350-nano-onnx-1"
MANIFEST = "nano-onnx.json"

Array = NDArray[np.float32]


def segment_phases(
    first_token: int, tokens: int, oscillators: dict[str, Any]
) -> tuple[Array, Array]:
    """Cosines and sines of the oscillators' phases, float32 ``[2 * tokens + 1, semitones]`` each.

    Segment j begins half a segment before sample ``j * hop`` of the window, counted at the bank's
    own rate. Turns are counted in float64 from the start of the stream: after minutes, single
    precision has lost their fraction.
    """
    rate, hop = oscillators["sample_rate"], oscillators["segment_samples"]
    first = first_token * SAMPLES_PER_TOKEN * rate // SAMPLE_RATE
    start = first - hop // 2 + hop * np.arange(2 * tokens + 1, dtype=np.float64)[:, None]
    turns = start * np.array(oscillators["hz"]) / rate + np.array(oscillators["start_turns"])
    angle = 2 * np.pi * np.modf(turns)[0]
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


class OnnxNano:
    """The two graphs and their manifest. Keeps nothing between calls, so any number may share it.

    Raises WeightsError with one sentence where onnxruntime, the manifest or a graph is missing.
    """

    def __init__(self, folder: Path | str, threads: int = 1) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise WeightsError(
                "playing exported graphs needs onnxruntime; install it with: pip install "
                "onnxruntime"
            ) from error
        path = Path(folder) / MANIFEST
        try:
            self.manifest = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"{folder} holds no exported decoder ({MANIFEST} cannot be read); make one with: "
                "python -m codec.nano.onnx_export --out FOLDER"
            ) from error
        if not isinstance(self.manifest, dict) or self.manifest.get("format") != FORMAT:
            raise WeightsError(f"{path} is of another format than {FORMAT}; export it again")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self._decoder, self._vocoder = (
                onnxruntime.InferenceSession(Path(folder) / self.manifest[name]["file"], options)
                for name in ("decoder", "vocoder")
            )
        except Exception as error:  # onnxruntime's own, of many kinds
            raise WeightsError(
                f"a graph in {folder} cannot be loaded; export it again ({error})"
            ) from error

    def decode(
        self, tokens: NDArray[np.int64], first_token: int, context: Array, seed: int
    ) -> Array:
        """Latents of a window, ``[n, feature_dims]``; those of its context come first."""
        manifest, noise = self.manifest, self.manifest["noise"]["decoder"]
        start = max(0, len(context) - manifest["flow_context_tokens"])
        rows = keyed_normal(
            seed, first_token + start, len(tokens) - start, noise["width"], noise["purpose"]
        )
        inputs = {
            "tokens": tokens,
            "first_token": np.array(first_token),
            "context": context,
            "noise": rows * np.float32(manifest["temperature"]),
        }
        latents: Array = self._decoder.run(["latents"], inputs)[0]
        return latents

    def render(self, latents: Array, first_token: int, seed: int) -> Array:
        """Sound of latents, ``[2, n * 1920]``."""
        noise = self.manifest["noise"]["vocoder"]
        rows = keyed_normal(seed, first_token, len(latents), noise["width"], noise["purpose"])
        cos, sin = segment_phases(first_token, len(latents), self.manifest["oscillators"])
        inputs = {
            "latents": latents,
            "cos": cos,
            "sin": sin,
            "noise": np.concatenate(np.split(rows, 2, axis=1)).reshape(2, -1),
        }
        sound: Array = self._vocoder.run(["sound"], inputs)[0]
        return sound


class OnnxDecoder:
    """Tokens in packets of any size to sound, one window at a time.

    Windows sit at multiples of the hop, counted from the start of the stream: see
    :class:`codec.stream.StreamDecoder`, whose sound this is.
    """

    def __init__(self, nano: OnnxNano, *, seed: int = 0, first_token: int = 0) -> None:
        self.nano = nano
        self.seed = seed
        window = nano.manifest["window"]
        self._left, self._hop = window["context"], window["hop"]
        self._lookahead = window["lookahead"]
        self._base = self._begin = first_token  # of the tokens that are kept; of the next window
        self._tokens = np.zeros(0, np.int64)
        self._context = np.zeros((0, nano.manifest["feature_dims"]), np.float32)
        self._tail = np.zeros((2, 0), np.float32)

    def push(self, tokens: NDArray[np.integer[Any]] | Sequence[int]) -> Array:
        """Take tokens ``[n]``; returns the sound that became ready, float32 ``[2, samples]``."""
        new = np.asarray(tokens, dtype=np.int64)
        if new.ndim != 1 or (new.size and not (new.min() >= 0 and new.max() < CODEBOOK_SIZE)):
            raise ValueError(f"tokens must be a row of numbers 0 ... {CODEBOOK_SIZE - 1}")
        self._tokens = np.concatenate([self._tokens, new])
        return self._decode(self._lookahead)

    def finish(self) -> Array:
        """No more tokens will come: the sound of those that are left."""
        return self._decode(0)

    def _decode(self, lookahead: int) -> Array:
        sound = [np.zeros((2, 0), np.float32)]
        while True:
            fed = self._base + len(self._tokens)
            grid_end = (self._begin // self._hop + 1) * self._hop
            if self._begin >= fed or (lookahead and fed < grid_end + lookahead):
                return np.concatenate(sound, axis=1)
            sound.append(self._window(min(grid_end, fed), min(grid_end + self._lookahead, fed)))

    def _window(self, end: int, stop: int) -> Array:
        """Sound up to token ``end``, from tokens up to ``stop``."""
        base, begin, margin = self._base, self._begin, self.nano.manifest["render_margin_tokens"]
        latents = self.nano.decode(self._tokens[: stop - base], base, self._context, self.seed)
        fade = self.nano.manifest["crossfade_samples"] if stop > end else 0
        left = max(base, begin - margin)
        right = min(end + -(-fade // SAMPLES_PER_TOKEN) + margin, stop)
        sound = self.nano.render(latents[left - base : right - base], left, self.seed)
        first, last = ((place - left) * SAMPLES_PER_TOKEN for place in (begin, end))
        audio = sound[:, first:last].copy()
        # The window before rendered the same latents on the same span, so they add in amplitude.
        n = min(self._tail.shape[1], audio.shape[1])
        ramp = (np.arange(n, dtype=np.float32) + np.float32(0.5)) / np.float32(max(n, 1))
        audio[:, :n] = self._tail[:, :n] * (1 - ramp) + audio[:, :n] * ramp
        self._tail = sound[:, last : last + fade]
        kept = max(base, end - self._left)
        self._context = latents[kept - base : end - base]
        self._tokens, self._base, self._begin = self._tokens[kept - base :], kept, end
        return audio


def _write_wav(path: Path, sound: Array) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((sound.T * 32767).round().astype("<i2").tobytes())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m codec.nano.onnx_run", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="with the exported graphs")
    parser.add_argument("tokens", type=Path, metavar="TOKENS", help="text file of numbers")
    parser.add_argument("out", type=Path, metavar="OUT", help="wav file to write")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    args = parser.parse_args(argv)
    try:
        tokens = [int(word) for word in args.tokens.read_text(encoding="utf-8").split()]
        decoder = OnnxDecoder(OnnxNano(args.folder), seed=args.seed)
        _write_wav(args.out, np.concatenate([decoder.push(tokens), decoder.finish()], axis=1))
    except (CodecError, OSError, ValueError, OverflowError) as error:
        sys.stderr.write(f"onnx_run: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
