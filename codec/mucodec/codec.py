"""The published MuCodec as the streaming engine sees it."""

from __future__ import annotations

from collections.abc import Sequence
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
from codec.mucodec.flow import Flow, sample
from codec.mucodec.level import limit_peak
from codec.mucodec.model import MuCodecModel, Part
from codec.mucodec.weights import load_model
from codec.noise import keyed_normal
from codec.sampling import time_grid
from codec.torch_backend import array, tensor

__all__ = ["DEFAULT_GUIDANCE", "DEFAULT_STEPS", "MuCodec", "load_mucodec"]

DEFAULT_STEPS = 8
DEFAULT_GUIDANCE = 1.5
_FLOW_PURPOSE = 3
_MEL_FRAMES = 8
"""Mel frames of 10 ms in a latent frame."""
_CHUNK_PEAK = 0.9


class MuCodec(Codec):
    """Latents are the flow's own, normalised: 32 channels by 32 bins in frames of two tokens.

    precision: of the flow transformer, VAE and vocoder. The encoder always computes in float32,
    since a token turns over on small differences. compiled: have the transformer compiled by
    :meth:`warm_up`, for a GPU.
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
        precision: torch.dtype = torch.float32,
        compiled: bool = False,
    ) -> None:
        self.model = model.eval().requires_grad_(False).to(device)
        self.device = torch.device(device)
        self.precision = precision
        self.compiled = compiled
        self._compiled: dict[tuple[int, int], Flow] = {}
        if model.part != "encoder":
            self.model.flow.to(precision)
            self.model.first_stage_model.to(precision)
        if model.part != "encoder" and self.device.type == "cuda":
            self.model.first_stage_model.decoder.to(  # type: ignore[call-overload]
                memory_format=torch.channels_last
            )
        self.longest_window_tokens = model.config.trained_frames * self.latent_tokens
        self.weights = weights
        self.digest = digest

    @torch.inference_mode()
    def encode_window(self, audio: Audio, window: EncoderWindow, *, first_token: int) -> TokenArray:
        self._require("encoder")
        # The published model sees every piece with the peaks of each channel limited so.
        level = limit_peak(tensor(audio, self.device).unsqueeze(0), _CHUNK_PEAK)
        tokens = self.model.encode(level)[0, window.left : window.left + window.hop]
        return array(tokens)

    @torch.inference_mode()
    def decode_window(
        self,
        tokens: TokenArray,
        *,
        first_token: int,
        context: Tensor | None,
        seed: int,
        settings: DecodeSettings,
    ) -> Tensor:
        job = WindowJob(tokens, first_token, context, seed, settings)
        return self.decode_windows([job])[0]

    @torch.inference_mode()
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
            width = c.condition_channels * c.latent_bins
            normal = keyed_normal(job.seed, first_frame, frames + short, width, _FLOW_PURPOSE)
            noise.append(self._frames(temperature * tensor(normal).unflatten(1, shape)))
        context = [self._frames(job.context) for job in jobs if job.context is not None]
        latents = sample(
            self._flow(frames + short, len(jobs) * (1 if guidance == 1.0 else 2)),
            torch.stack(noise),
            torch.stack(context) if known else None,
            self.model.condition(tensor(np.stack(tokens), self.device)),
            guidance=guidance,
            times=time_grid(steps, settings.warp),
            solver=settings.solver,
        )
        return list(latents.transpose(1, 2)[:, :frames])

    def _flow(self, frames: int, batch: int) -> Flow:
        """The transformer for windows of a shape, compiled where that was prepared."""
        return self._compiled.get((frames, batch), self.model.flow)

    @torch.inference_mode()
    def warm_up(
        self, window: EncoderWindow | DecoderWindow, settings: DecodeSettings | None = None
    ) -> None:
        """Run windows of this shape once: the first calls choose kernels and reserve memory.

        Compiles the transformer for the decoder window where that was asked for, which takes a
        minute; the shorter windows at a stream's start are not worth it and run as they are.
        """
        if isinstance(window, EncoderWindow):
            silence = np.zeros((2, window.tokens * SAMPLES_PER_TOKEN), np.float32)
            self.encode_window(silence, window, first_token=0)
            return
        settings = settings or DecodeSettings()
        unit = self.latent_tokens
        guidance = DEFAULT_GUIDANCE if settings.guidance is None else settings.guidance
        if self.compiled:
            frames = -(-window.tokens // unit)
            frames += -frames % self.model.config.patch
            # The next call writes where this one's result lies, which some solvers still need.
            flow = torch.compile(self.model.flow, mode="reduce-overhead", dynamic=False)
            self._compiled[frames, 1 if guidance == 1.0 else 2] = lambda *x: flow(*x).clone()
        tokens = np.zeros(window.tokens // unit * unit, dtype=np.int64)
        context = None
        for _ in range(2):  # without context first, to have one
            job = WindowJob(tokens, 0, context, 0, settings)
            latents = self.decode_windows([job])[0]
            context = latents[: window.context // unit].clone()
        fade = -(-self.crossfade_samples // SAMPLES_PER_TOKEN)
        rendered = window.hop + fade + 2 * self.render_margin_tokens
        self.render(latents[-(rendered // unit) :], first_token=0, seed=0)

    def _require(self, part: Part) -> None:
        if self.model.part not in (None, part):
            raise SettingError(
                f"this MuCodec was loaded as {self.model.part} alone and is no {part}; load it "
                "without naming a part"
            )

    def _frames(self, latents: Tensor) -> Tensor:
        """``[frames, channels, bins]`` to ``[channels, frames, bins]`` on the device."""
        return latents.to(self.device).transpose(0, 1).contiguous()

    @torch.inference_mode()
    def render(self, latents: Tensor, *, first_token: int, seed: int) -> Audio:
        model = self.model
        samples = len(latents) * self.latent_tokens * SAMPLES_PER_TOKEN
        restored = model.normfeat.restore(self._frames(latents).unsqueeze(0))
        mel = model.mel(restored.to(self.precision))
        # The vocoder gives a few samples more than 480 a frame; they lie at the end.
        return array(model.first_stage_model.vocoder(mel)[:, :samples].float())

    def sound2code_release(self, audio: ArrayLike) -> TokenArray:
        """Tokens as the published release makes them of a whole file; see
        :mod:`codec.mucodec.compatible`.
        """
        return array(release_codes(self.model, tensor(self.check_audio(audio), self.device)))


def load_mucodec(
    weights: Path | str | None = None,
    device: str = "cpu",
    part: Part | None = None,
    compiled: bool = False,
) -> MuCodec:
    """The published model on a device; in half precision on a GPU, in float32 on a CPU.

    weights, part, compiled: see :func:`codec.load`. Raises WeightsError with one sentence.
    """
    loaded = load_model(None if weights is None else Path(weights), part=part)
    on_gpu = torch.device(device).type == "cuda"
    return MuCodec(
        loaded.model,
        loaded.name,
        loaded.digest,
        device=device,
        precision=torch.bfloat16 if on_gpu else torch.float32,
        compiled=compiled,
    )
