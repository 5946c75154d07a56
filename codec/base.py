"""The interface that every codec fulfils, so that the streaming engine never asks which it drives.

A codec knows sound, tokens and models. It works on windows at absolute positions that the engine
(:mod:`codec.stream`) chooses; it keeps no state between calls, so one object serves any number
of streams.

Terms: a *token* is one 14-bit code, 1920 samples long. A *latent frame* is the unit the decoder
generates, ``latent_tokens`` tokens long. Positions count from the start of the stream.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codec.constants import CODEBOOK_SIZE, SAMPLES_PER_TOKEN
from codec.errors import SettingError
from codec.sampling import SOLVERS

__all__ = [
    "Audio",
    "Codec",
    "DecodeSettings",
    "DecoderWindow",
    "EncoderWindow",
    "Latents",
    "TokenArray",
    "WindowJob",
]

Audio: TypeAlias = NDArray[np.float32]
"""Sound, ``[2, samples]`` at 48 kHz."""
TokenArray: TypeAlias = NDArray[np.int64]
"""Tokens 0 ... 16383, ``[n]``."""
Latents: TypeAlias = Any
"""Latent frames, ``[frames, ...]``, in whatever array the codec computes with: on a GPU they stay
there. The engine takes their length and slices of them, and changes nothing."""


@dataclass(frozen=True)
class EncoderWindow:
    """Encoder window in tokens: hop k comes from ``[kH - left, (k+1)H + lookahead)``."""

    left: int
    hop: int
    lookahead: int

    def __post_init__(self) -> None:
        if self.hop < 1 or self.left < 0 or self.lookahead < 0:
            raise SettingError(
                f"an encoder window needs hop >= 1, left and lookahead >= 0: got {self}"
            )

    @property
    def tokens(self) -> int:
        """Length of the whole window in tokens."""
        return self.left + self.hop + self.lookahead


@dataclass(frozen=True)
class DecoderWindow:
    """Decoder window in tokens: known context, new hop, provisional lookahead."""

    context: int
    hop: int
    lookahead: int

    def __post_init__(self) -> None:
        if self.hop < 1 or self.context < 0 or self.lookahead < 0:
            raise SettingError(
                f"a decoder window needs hop >= 1, context and lookahead >= 0: got {self}"
            )

    @property
    def tokens(self) -> int:
        """Length of the whole window in tokens."""
        return self.context + self.hop + self.lookahead

    def decodable(self, tokens: int) -> int:
        """How many tokens of sound can be made once ``tokens`` tokens (from 0) have arrived."""
        return max(0, (tokens - self.lookahead) // self.hop * self.hop)


@dataclass(frozen=True)
class DecodeSettings:
    """How the flow-matching sampler runs. ``None`` takes the codec's own default.

    Attributes:
        steps: of the solver; 0: the deterministic decoder alone, if there is one.
        guidance: classifier-free guidance scale; 1 is none and costs one evaluation instead of two.
        temperature: standard deviation of the starting noise.
        solver, warp: see :mod:`codec.sampling`.

    Raises:
        SettingError: an unknown solver, or a warp that is not positive.
    """

    steps: int | None = None
    guidance: float | None = None
    temperature: float | None = None
    solver: str = "euler"
    warp: float = 1.0

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise SettingError(
                f"there is no solver {self.solver!r}; choose one of: {', '.join(SOLVERS)}"
            )
        if not self.warp > 0:
            raise SettingError(f"the time grid's warp must be positive, got {self.warp}")


@dataclass(frozen=True)
class WindowJob:
    """One window to decode: the arguments of :meth:`Codec.decode_window`."""

    tokens: TokenArray
    first_token: int
    context: Latents | None
    seed: int
    settings: DecodeSettings


class Codec(ABC):
    """A codec of 25 tokens a second for 48 kHz stereo."""

    name: str
    """What ``--codec`` and the hello message call it."""
    weights: str
    """Name of the weights, e.g. ``nano-2``."""
    digest: str
    """SHA-256 of the weights, 64 hexadecimal digits."""
    encoder_window: EncoderWindow
    decoder_window: DecoderWindow
    longest_window_tokens: int | None = None
    """What the models can take in one window; None where any length will do."""
    latent_tokens: int
    """Tokens per latent frame."""
    render_margin_tokens: int
    """Latents that :meth:`render` needs on both sides of what is kept (its receptive field)."""
    crossfade_samples: int
    """Length of the crossfade between neighbouring windows; less than the lookahead's samples."""

    @abstractmethod
    def encode_window(self, audio: Audio, window: EncoderWindow, *, first_token: int) -> TokenArray:
        """Tokens of one window's hop.

        Args:
            audio: float32 ``[2, window.tokens * 1920]``, finite.
            first_token: absolute index of the hop's first token.

        Returns:
            int64 ``[window.hop]``.
        """

    @abstractmethod
    def decode_window(
        self,
        tokens: TokenArray,
        *,
        first_token: int,
        context: Latents | None,
        seed: int,
        settings: DecodeSettings,
    ) -> Latents:
        """Latents of a window. The noise depends on ``seed`` and the absolute latent frame alone.

        Args:
            tokens: int64 ``[n]``, absolute positions ``first_token ...``.
            context: latents of the window's first frames, already decided, or None.

        Returns:
            ``[n / latent_tokens, ...]``, the context's frames unchanged.
        """

    def decode_windows(self, jobs: Sequence[WindowJob]) -> list[Latents]:
        """Latents of several windows, of any streams; as one batch where a codec gains by that."""
        return [
            self.decode_window(
                job.tokens,
                first_token=job.first_token,
                context=job.context,
                seed=job.seed,
                settings=job.settings,
            )
            for job in jobs
        ]

    @abstractmethod
    def render(self, latents: Latents, *, first_token: int, seed: int) -> Audio:
        """Sound of latents, float32 ``[2, frames * latent_tokens * 1920]``, exact inside."""

    def render_inside(
        self, latents: Latents, margins: tuple[int, int], *, first_token: int, seed: int
    ) -> Audio:
        """What :meth:`render` gives but for ``margins``: tokens at the beginning and at the end.

        A codec overrides it that can do with less work if nobody hears the margins.
        """
        sound = self.render(latents, first_token=first_token, seed=seed)
        first, last = (margin * SAMPLES_PER_TOKEN for margin in margins)
        return sound[:, first : sound.shape[1] - last]

    def warm_up(  # noqa: B027 - most codecs have nothing to do
        self, window: EncoderWindow | DecoderWindow, settings: DecodeSettings | None = None
    ) -> None:
        """Get ready for windows of this shape, where the first one would take long otherwise."""

    # Offline calls: the same windows as a live stream, hence the same result.

    def sound2code(self, audio: ArrayLike) -> TokenArray:
        """Encode a whole recording.

        Args:
            audio: float32 ``[2, samples]`` at 48 kHz.

        Returns:
            int64 ``[ceil(samples / 1920)]``; the last token is completed with silence.

        Raises:
            ValueError: another shape.
        """
        from codec.stream import StreamEncoder

        encoder = StreamEncoder(self)
        return np.concatenate([encoder.push(audio), encoder.finish()])

    def code2sound(
        self,
        tokens: ArrayLike,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int = 0,
        temperature: float | None = None,
    ) -> Audio:
        """Decode tokens, int64 ``[n]``, to sound, float32 ``[2, 1920 * n]``."""
        from codec.stream import StreamDecoder

        decoder = StreamDecoder(
            self, seed=seed, settings=DecodeSettings(steps, guidance, temperature)
        )
        decoder.feed(tokens)
        decoder.finish()
        return np.concatenate([np.zeros((2, 0), np.float32), *decoder], axis=1)

    def sound2sound(
        self,
        audio: ArrayLike,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int = 0,
        temperature: float | None = None,
    ) -> Audio:
        """Encode and decode: float32 ``[2, samples]`` in and out, cut to the input's length."""
        sound = self.code2sound(self.sound2code(audio), steps, guidance, seed, temperature)
        return sound[:, : np.shape(audio)[1]]

    def check_window(self, window: EncoderWindow | DecoderWindow) -> None:
        """Raise SettingError if a window is too long, or too short for the crossfade."""
        longest = self.longest_window_tokens
        if longest is not None and window.tokens > longest:
            raise SettingError(
                f"windows of {self.name} can be {longest} tokens long, not {window.tokens}; choose "
                "a shorter hop, context or lookahead"
            )
        if isinstance(window, DecoderWindow):
            fade = -(-self.crossfade_samples // SAMPLES_PER_TOKEN)
            if window.lookahead < fade:
                raise SettingError(
                    f"the crossfade of {self.name} needs a decoder lookahead of at least "
                    f"{fade} tokens, not {window.lookahead}"
                )

    def check_tokens(self, tokens: ArrayLike) -> TokenArray:
        """``tokens`` as int64 ``[n]``; raises ValueError for anything but 14-bit codes."""
        given = np.asarray(tokens)
        if given.ndim != 1:
            raise ValueError(f"tokens must have shape [n], got {list(given.shape)}")
        given = given.astype(np.int64)
        if given.size and not (given.min() >= 0 and given.max() < CODEBOOK_SIZE):
            raise ValueError(f"tokens must lie in 0 ... {CODEBOOK_SIZE - 1}")
        return given

    def check_audio(self, audio: ArrayLike) -> Audio:
        """``audio`` as finite float32 ``[2, samples]``; raises ValueError on another shape."""
        given = np.asarray(audio)
        if given.ndim != 2 or given.shape[0] != 2:
            raise ValueError(f"audio must have shape [2, samples], got {list(given.shape)}")
        return np.nan_to_num(given.astype(np.float32), nan=0.0, posinf=1.0, neginf=-1.0)
