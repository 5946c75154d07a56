"""The published MuCodec as the streaming engine sees it."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from codec.base import (
    Audio,
    Codec,
    DecoderWindow,
    DecodeSettings,
    EncoderWindow,
    TokenArray,
    WindowJob,
)
from codec.constants import SAMPLES_PER_TOKEN
from codec.errors import SettingError
from codec.mucodec.compatible import release_codes
from codec.mucodec.config import Precision
from codec.mucodec.fast import FastPath, Key, Stage
from codec.mucodec.float8 import has_float8
from codec.mucodec.flow import Flow, TransformerBlock, sample
from codec.mucodec.level import limit_peak
from codec.mucodec.model import MuCodecModel, Part
from codec.mucodec.noise import NoiseAhead
from codec.mucodec.precision import exact_float32
from codec.mucodec.vocoder import reach_frames
from codec.mucodec.weights import load_model
from codec.sampling import time_grid
from codec.torch_backend import array, tensor

__all__ = ["DEFAULT_GUIDANCE", "DEFAULT_STEPS", "MuCodec", "load_mucodec"]

_log = logging.getLogger(__name__)

DEFAULT_STEPS = 8
DEFAULT_GUIDANCE = 1.5
_FLOW_PURPOSE = 3
_MEL_FRAMES = 8
"""Mel frames of 10 ms in a latent frame."""
_CHUNK_PEAK = 0.9
_STEREO_FRAMES = 128
"""Latent frames, 10 s of them, up to which both channels are rendered as one batch."""


class MuCodec(Codec):
    """Latents are the flow's own, normalised: 32 channels by 32 bins in frames of two tokens.

    Args:
        precision: of the flow transformer, VAE and vocoder. The encoder always computes in float32,
            since a token turns over on small differences. Numbers that leave float16's range are
            noticed, and the decoder goes on in bfloat16.
        compiled: have :meth:`warm_up` make the decoder fast in the background; None: on a GPU.
        guidance_interval: times of the flow, from 0 (noise) to 1 (music), between which guidance is
            applied; outside, an evaluation costs half. None: everywhere.
    """

    name = "mucodec"
    encoder_window = EncoderWindow(left=96, hop=128, lookahead=32)
    decoder_window = DecoderWindow(context=248, hop=64, lookahead=40)
    latent_tokens = 2
    render_margin_tokens = 32
    crossfade_samples = 4 * SAMPLES_PER_TOKEN

    def __init__(
        self,
        model: MuCodecModel,
        weights: str,
        digest: str,
        *,
        device: torch.device | str = "cpu",
        precision: Precision = "float32",
        compiled: bool | None = None,
        guidance_interval: tuple[float, float] | None = None,
    ) -> None:
        self.device = torch.device(device)
        if precision == "fp8" and not has_float8(self.device):
            raise SettingError(
                "this GPU cannot compute in fp8, which takes one of NVIDIA's Ada or Hopper "
                "generations or a later one; choose float16"
            )
        if guidance_interval is not None and not 0 <= guidance_interval[0] <= guidance_interval[1]:
            raise SettingError(
                "a guidance interval goes from a time of the flow to a later one, not from "
                f"{guidance_interval[0]:g} to {guidance_interval[1]:g}"
            )
        self.model = model.eval().requires_grad_(False).to(device)
        self.dtype = self.model.prepare(precision)
        self.compiled = self.device.type == "cuda" if compiled is None else compiled
        if self.compiled and model.part != "encoder":
            model.first_stage_model.decoder.to(  # type: ignore[call-overload]
                memory_format=torch.channels_last
            )
        self.guidance_interval = guidance_interval
        self.fast = self._fast_path()
        width = model.config.condition_channels * model.config.latent_bins
        self._noise = NoiseAhead(width, _FLOW_PURPOSE)
        self.longest_window_tokens = model.config.trained_frames * self.latent_tokens
        self._reach_tokens = -(-reach_frames(model.config) * self.latent_tokens // _MEL_FRAMES)
        self.weights = weights
        self.digest = digest

    def _fast_path(self, wanted: Collection[Key] = ()) -> FastPath:
        """The decoder's stages; blocks of the flow share one compiled function."""
        if self.model.part == "encoder":
            return FastPath({}, self.device, wanted)
        model, vocoder = self.model, self.model.first_stage_model.vocoder

        def blockwise() -> Flow:
            block = torch.compile(TransformerBlock.forward, dynamic=False)
            return functools.partial(model.flow.__call__, block=block)

        def mel(halves: Tensor) -> Tensor:
            return model.first_stage_model.decode(halves, model.scale_factor)

        return FastPath(
            {
                "flow": Stage(model.flow, blockwise),
                "VAE": Stage(mel, lambda: torch.compile(mel, dynamic=False)),
                "vocoder": Stage(vocoder.wave, lambda: torch.compile(vocoder.wave, dynamic=False)),
            },
            self.device,
            wanted,
        )

    def _in_range(self, compute: Callable[[], Tensor]) -> Tensor:
        """What ``compute`` gives; again in bfloat16 where a number left float16's range."""
        result = compute()
        if self.dtype == torch.float16 and not bool(torch.isfinite(result).all()):
            _log.warning("a number is too large for float16: mucodec goes on in bfloat16")
            wanted = self.fast.close()
            self.dtype = self.model.prepare("bfloat16")
            self.fast = self._fast_path(wanted)
            result = compute()
        return result

    @torch.inference_mode()
    @exact_float32()
    def encode_window(self, audio: Audio, window: EncoderWindow, *, first_token: int) -> TokenArray:
        """See the base."""
        self._require("encoder")
        # The published model sees every piece with the peaks of each channel limited so.
        level = limit_peak(tensor(audio, self.device).unsqueeze(0), _CHUNK_PEAK)
        tokens = self.model.encode(level)[0, window.left : window.left + window.hop]
        return array(tokens)

    def decode_window(
        self,
        tokens: TokenArray,
        *,
        first_token: int,
        context: Tensor | None,
        seed: int,
        settings: DecodeSettings,
    ) -> Tensor:
        """See the base."""
        job = WindowJob(tokens, first_token, context, seed, settings)
        return self.decode_windows([job])[0]

    @torch.inference_mode()
    @exact_float32()
    def decode_windows(self, jobs: Sequence[WindowJob]) -> list[Tensor]:
        """See the base; jobs of one shape and the same settings run as one batch."""
        self._require("decoder")
        groups: dict[tuple[int, int, DecodeSettings], list[int]] = {}
        for index, job in enumerate(jobs):
            known = 0 if job.context is None else len(job.context)
            groups.setdefault((len(job.tokens), known, job.settings), []).append(index)
        latents: dict[int, Tensor] = {}
        for (length, known, settings), members in groups.items():
            batch = self._decode([jobs[index] for index in members], length, known, settings)
            latents |= dict(zip(members, batch, strict=True))
        return [latents[index] for index in range(len(jobs))]

    def _decode(
        self, jobs: Sequence[WindowJob], length: int, known: int, settings: DecodeSettings
    ) -> list[Tensor]:
        """Latents of windows of ``length`` tokens whose first ``known`` frames are given."""
        c = self.model.config
        frames = length // self.latent_tokens
        steps = DEFAULT_STEPS if settings.steps is None else max(1, settings.steps)
        guidance = DEFAULT_GUIDANCE if settings.guidance is None else settings.guidance
        temperature = 1.0 if settings.temperature is None else settings.temperature
        # The transformer takes whole patches of frames: an odd one is completed and cut off.
        short = -frames % c.patch
        shape = (c.condition_channels, c.latent_bins)
        tokens, noise = [], []
        for job in jobs:
            tail = job.tokens[-1:].repeat(short * self.latent_tokens)
            tokens.append(np.concatenate([job.tokens, tail]))
            first_frame = job.first_token // self.latent_tokens
            normal = self._noise.rows(job.seed, first_frame, frames + short)
            noise.append(self._frames(temperature * tensor(normal).unflatten(1, shape)))
        context = [self._frames(job.context) for job in jobs if job.context is not None]
        known_latents = torch.stack(context) if known else None
        condition = self.model.condition(tensor(np.stack(tokens), self.device))

        def compute() -> Tensor:
            latents = sample(
                functools.partial(self.fast.run, "flow"),
                torch.stack(noise),
                known_latents,
                condition,
                guidance=guidance,
                interval=self.guidance_interval,
                times=time_grid(steps, settings.warp),
                solver=settings.solver,
            )
            if self.device.type == "cuda":  # which has been told all of it, and is busy now
                for job in jobs:
                    self._noise.draw_ahead(job.seed)
            return latents

        latents = self._in_range(compute)
        return list(latents.transpose(1, 2)[:, :frames])

    def warm_up(
        self, window: EncoderWindow | DecoderWindow, settings: DecodeSettings | None = None
    ) -> None:
        """Run every shape of window that a stream will have.

        On a GPU, the first calls choose kernels and reserve memory. Those of a stream's steady
        state are then made fast in the background, which takes a minute or two (:attr:`fast`);
        whoever decodes meanwhile is served by the eager code.
        """
        from codec.stream import StreamDecoder

        if isinstance(window, EncoderWindow):
            silence = np.zeros((2, window.tokens * SAMPLES_PER_TOKEN), np.float32)
            self.encode_window(silence, window, first_token=0)
            return
        if self.device.type == "cpu" and not self.compiled:
            return
        decoder = StreamDecoder(self, window=window, settings=settings)
        start = -(-window.context // window.hop)  # windows whose context is not whole yet
        decoder.feed(np.zeros((start + 1) * window.hop + window.lookahead, np.int64))
        for _ in range(start):
            decoder.step()
        with self.fast.watch() if self.compiled else contextlib.nullcontext():
            decoder.step()

    def _require(self, part: Part) -> None:
        if self.model.part not in (None, part):
            raise SettingError(
                f"this MuCodec was loaded as {self.model.part} alone and is no {part}; load it "
                "without naming a part"
            )

    def _frames(self, latents: Tensor) -> Tensor:
        """``[frames, channels, bins]`` to ``[channels, frames, bins]`` on the device."""
        return latents.to(self.device).transpose(0, 1).contiguous()

    def render(self, latents: Tensor, *, first_token: int, seed: int) -> Audio:
        """See the base."""
        return self.render_inside(latents, (0, 0), first_token=first_token, seed=seed)

    @torch.inference_mode()
    @exact_float32()
    def render_inside(
        self, latents: Tensor, margins: tuple[int, int], *, first_token: int, seed: int
    ) -> Audio:
        """See the base. The VAE sees all of the latents, the vocoder the tokens that it reaches."""
        restored = self.model.normfeat.restore(self._frames(latents).unsqueeze(0))
        halves = restored.unflatten(1, (2, -1)).flatten(0, 1)  # left and right
        tokens = len(latents) * self.latent_tokens
        begin, end = margins[0], tokens - margins[1]
        low, high = max(0, begin - self._reach_tokens), min(tokens, end + self._reach_tokens)
        per_token = _MEL_FRAMES // self.latent_tokens
        parts = halves.split(self.channels_together(len(latents)))

        def waves() -> Tensor:
            mels = (self.fast.run("VAE", part) for part in parts)
            cut = (mel[:, low * per_token : high * per_token].contiguous() for mel in mels)
            return torch.cat([self.fast.run("vocoder", mel) for mel in cut])

        # The vocoder gives a few samples more than 480 a frame; they lie at the end.
        first = (begin - low) * SAMPLES_PER_TOKEN
        last = first + (end - begin) * SAMPLES_PER_TOKEN
        return array(torch.tanh(self._in_range(waves)[:, first:last].float()))

    @staticmethod
    def channels_together(frames: int) -> int:
        """1 for long windows, whose maps are large: left after right takes half the memory."""
        return 1 if frames > _STEREO_FRAMES else 2

    def sound2code_release(self, audio: ArrayLike) -> TokenArray:
        """Tokens as the published release makes them of a whole file, by :func:`release_codes`."""
        return array(release_codes(self.model, tensor(self.check_audio(audio), self.device)))


def load_mucodec(
    weights: Path | str | None = None,
    device: str = "cpu",
    part: Part | None = None,
    *,
    compiled: bool | None = None,
    precision: Precision | None = None,
    guidance_interval: tuple[float, float] | None = None,
) -> MuCodec:
    """The published model on a device; by default in float16 on a GPU, in float32 on a CPU.

    See :func:`codec.load` and :class:`MuCodec`.

    Raises:
        WeightsError: see :func:`codec.mucodec.weights.load_model`.
        SettingError: a precision that the device lacks, or an interval that is none.
    """
    loaded = load_model(None if weights is None else Path(weights), part=part)
    on_gpu = torch.device(device).type == "cuda"
    return MuCodec(
        loaded.model,
        loaded.name,
        loaded.digest,
        device=device,
        precision=precision or ("float16" if on_gpu else "float32"),
        compiled=compiled,
        guidance_interval=guidance_interval,
    )
