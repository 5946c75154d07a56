"""Windows and stitching: live audio to tokens and tokens to continuous sound.

These two classes know samples and tokens, never clocks or sockets. Offline calls use them as
well, so a file encoded at once and the same file streamed in any blocks give the same result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from codec.base import (
    Audio,
    Codec,
    DecoderWindow,
    DecodeSettings,
    EncoderWindow,
    Latents,
    TokenArray,
    WindowJob,
)
from codec.constants import SAMPLES_PER_TOKEN

__all__ = ["StreamDecoder", "StreamEncoder", "step_together"]

_NO_TOKENS: Final = np.zeros(0, np.int64)


def _silence(samples: int) -> Audio:
    return np.zeros((2, samples), np.float32)


class StreamEncoder:
    """Audio in blocks of any size to tokens, one hop at a time.

    Tokens of hop k depend on the samples of ``[kH - left, (k+1)H + lookahead)`` alone (in tokens
    of 1920 samples; silence before the start and after the end).
    """

    def __init__(self, codec: Codec, window: EncoderWindow | None = None) -> None:
        self.codec = codec
        self.window = window or codec.encoder_window
        codec.check_window(self.window)
        self._buffer = _silence(self.window.left * SAMPLES_PER_TOKEN)
        self._blocks: list[Audio] = []  # pushed, and not yet appended to the buffer
        self._held = self._buffer.shape[1]
        self._samples = 0
        self._tokens = 0
        self._finished = False

    @property
    def next_token(self) -> int:
        """Index of the next token that will come out."""
        return self._tokens

    def push(self, audio: ArrayLike) -> TokenArray:
        """Take float32 ``[2, n]``; returns the tokens that became ready, int64 ``[k]``."""
        if self._finished:
            raise RuntimeError("push() after finish(): start a new StreamEncoder")
        block = self.codec.check_audio(audio)
        self._samples += block.shape[1]
        self._blocks.append(block)
        self._held += block.shape[1]
        if self._held < self.window.tokens * SAMPLES_PER_TOKEN:
            return _NO_TOKENS
        return self._encode_ready()

    def finish(self) -> TokenArray:
        """End of the stream: the remaining tokens, so that every sample is in a token."""
        if self._finished:
            return _NO_TOKENS
        self._finished = True
        total = -(-self._samples // SAMPLES_PER_TOKEN)
        missing = total - self._tokens
        hops = -(-missing // self.window.hop)
        need = (
            hops * self.window.hop + self.window.left + self.window.lookahead
        ) * SAMPLES_PER_TOKEN
        self._blocks.append(_silence(max(0, need - self._held)))
        tokens = self._encode_ready(hops)
        self._tokens = total
        return tokens[:missing]

    def _encode_ready(self, hops: int | None = None) -> TokenArray:
        self._buffer = np.concatenate([self._buffer, *self._blocks], axis=1)
        self._blocks.clear()
        window, step = self.window, self.window.hop * SAMPLES_PER_TOKEN
        length = window.tokens * SAMPLES_PER_TOKEN
        ready = max(0, (self._buffer.shape[1] - length) // step + 1)
        out = [_NO_TOKENS]
        start = 0
        for _ in range(ready if hops is None else min(ready, hops)):
            audio = np.ascontiguousarray(self._buffer[:, start : start + length])
            out.append(self.codec.encode_window(audio, window, first_token=self._tokens))
            start += step
            self._tokens += window.hop
        self._buffer = self._buffer[:, start:].copy()
        self._held = self._buffer.shape[1]
        return np.concatenate(out)


class _Span(NamedTuple):
    """Tokens of a window: its context from ``start``, new sound ``begin`` to ``end``, lookahead."""

    start: int
    begin: int
    end: int
    stop: int


class StreamDecoder:
    """Tokens in packets of any size to sound, one window at a time.

    Windows sit at multiples of the hop, counted from the start of the stream. Window k generates
    the latents of ``[kH, (k+1)H)`` and provisional ones of the lookahead, given those of the
    context; it renders its hop with the margin that the renderer needs, and a tail over which the
    next window is crossfaded on the same span of time. Exactly 1920 samples come out for each
    token from ``start_token`` on.

    Use: :meth:`feed` tokens, then :meth:`step` while :meth:`ready`; or iterate; or :meth:`push`.
    """

    def __init__(
        self,
        codec: Codec,
        *,
        seed: int = 0,
        first_token: int = 0,
        start_token: int | None = None,
        window: DecoderWindow | None = None,
        settings: DecodeSettings | None = None,
    ) -> None:
        self.codec = codec
        self.seed = seed
        self.window = window or codec.decoder_window
        self.settings = settings or DecodeSettings()
        codec.check_window(self.window)
        # A latent frame may be several tokens long: begin at a whole one.
        self._base = -(-first_token // codec.latent_tokens) * codec.latent_tokens
        self._skip = self._base - first_token
        start = self._base if start_token is None else start_token
        if start < self._base:
            raise ValueError(f"start_token {start} lies before the first token {self._base}")
        self._tokens = _NO_TOKENS
        self._hop_index = start // self.window.hop
        self._emitted = start * SAMPLES_PER_TOKEN
        self._context: Latents | None = None
        self._tail: Audio | None = None
        self._finished = False

    @property
    def fed_tokens(self) -> int:
        """Absolute index one past the last token fed."""
        return self._base + len(self._tokens)

    @property
    def next_output_sample(self) -> int:
        """Absolute index of the next sample that will come out."""
        return self._emitted

    def feed(self, tokens: ArrayLike) -> None:
        """Append tokens ``[n]`` that follow those already fed; raises ValueError on bad ones."""
        if self._finished:
            raise RuntimeError("feed() after finish(): start a new StreamDecoder")
        new = self.codec.check_tokens(tokens)
        if self._skip:
            dropped = min(self._skip, len(new))
            self._skip -= dropped
            new = new[dropped:]
        self._tokens = np.concatenate([self._tokens, new])
        self._forget(self._hop_index * self.window.hop - self.window.context)

    def _forget(self, token: int) -> None:
        """Let go of tokens before this one, which no window to come needs."""
        if (drop := min(token - self._base, len(self._tokens))) > 0:
            self._tokens, self._base = self._tokens[drop:].copy(), self._base + drop

    def finish(self) -> None:
        """No more tokens will come: the rest can be decoded without lookahead."""
        self._finished = True

    def ready(self) -> bool:
        """Whether :meth:`step` has a window to decode."""
        hop = self.window.hop
        if self._finished:
            return self._emitted < self.fed_tokens * SAMPLES_PER_TOKEN
        return self.fed_tokens >= (self._hop_index + 1) * hop + self.window.lookahead

    def __iter__(self) -> Iterator[Audio]:
        while self.ready():
            yield self.step()

    def push(self, tokens: ArrayLike) -> Audio:
        """:meth:`feed`, then every window that is ready: float32 ``[2, n]``, n >= 0."""
        self.feed(tokens)
        return np.concatenate([_silence(0), *self], axis=1)

    def step(self) -> Audio:
        """Decode one window; returns its sound, float32 ``[2, n]``, n <= hop · 1920."""
        return step_together([self])[0]

    def _span(self) -> _Span:
        """Where the next window lies."""
        if not self.ready():
            raise RuntimeError("step() with no window ready: feed more tokens")
        hop = self.window.hop
        grid_end = (self._hop_index + 1) * hop
        begin = max(grid_end - hop, self._base)  # a stream may begin in the middle of a hop
        return _Span(
            start=max(begin - self.window.context, self._base),
            begin=begin,
            end=min(grid_end, self.fed_tokens),
            stop=min(grid_end + self.window.lookahead, self.fed_tokens),
        )

    def _job(self) -> WindowJob:
        """What the codec is to decode next."""
        span = self._span()
        tokens = self._tokens[span.start - self._base : span.stop - self._base]
        if short := -len(tokens) % self.codec.latent_tokens:  # it ends inside a latent frame
            tokens = np.concatenate([tokens, tokens[-1:].repeat(short)])
        return WindowJob(tokens, span.start, self._context, self.seed, self.settings)

    def _take(self, latents: Latents) -> Audio:
        """Sound of the window that :meth:`_job` gave, from its latents."""
        start, begin, end, stop = self._span()
        unit = self.codec.latent_tokens
        audio = self._render(latents, start, begin, end, stop)
        kept = max(start, end - self.window.context)
        self._context = latents[(kept - start) // unit : (end - start) // unit]
        self._forget(kept)
        self._hop_index += 1
        offset = self._emitted - begin * SAMPLES_PER_TOKEN
        self._emitted = end * SAMPLES_PER_TOKEN
        return audio[:, offset:]

    def _render(self, latents: Latents, start: int, begin: int, end: int, stop: int) -> Audio:
        """Sound of tokens ``[begin, end)``, crossfaded with the tail of the window before."""
        unit, margin = self.codec.latent_tokens, self.codec.render_margin_tokens
        fade = self.codec.crossfade_samples if stop > end else 0
        tail_tokens = -(-fade // SAMPLES_PER_TOKEN)
        left = max(start, (begin - margin) // unit * unit)
        right = min(end + tail_tokens + margin, stop)
        piece = latents[(left - start) // unit : -(-(right - start) // unit)]
        margins = (begin - left, max(0, left + len(piece) * unit - end - tail_tokens))
        sound = self.codec.render_inside(piece, margins, first_token=left, seed=self.seed)
        last = (end - begin) * SAMPLES_PER_TOKEN
        audio = sound[:, :last].copy()
        if self._tail is not None:
            n = min(self._tail.shape[1], audio.shape[1])
            # Both sides render the same latents on the same span, so they add in amplitude.
            ramp = (np.arange(n, dtype=np.float32) + np.float32(0.5)) / np.float32(max(n, 1))
            audio[:, :n] = self._tail[:, :n] * (1 - ramp) + audio[:, :n] * ramp
        self._tail = sound[:, last : last + fade].copy() if fade else None
        return audio


def step_together(decoders: Sequence[StreamDecoder]) -> list[Audio]:
    """:meth:`StreamDecoder.step` for streams that share a codec, their windows as one batch.

    Every one must be ready. Which windows can be batched (those of one shape) is the codec's
    matter; the sound is that of stepping each alone, up to rounding.
    """
    if not decoders:
        return []
    latents = decoders[0].codec.decode_windows([decoder._job() for decoder in decoders])
    return [decoder._take(own) for decoder, own in zip(decoders, latents, strict=True)]
