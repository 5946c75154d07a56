"""The published MuCodec as the streaming engine sees it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from codec.base import Codec, DecoderWindow, DecodeSettings, EncoderWindow
from codec.constants import SAMPLES_PER_TOKEN
from codec.errors import SettingError
from codec.mucodec.compatible import release_codes
from codec.mucodec.flow import sample
from codec.mucodec.level import limit_peak
from codec.mucodec.model import MuCodecModel, Part
from codec.mucodec.weights import load_model
from codec.noise import keyed_normal
from codec.sampling import time_grid

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
    since a token turns over on small differences.
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
    ) -> None:
        self.model = model.eval().requires_grad_(False).to(device)
        self.device = torch.device(device)
        self.precision = precision
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
    def encode_window(self, audio: Tensor, window: EncoderWindow, *, first_token: int) -> Tensor:
        self._require("encoder")
        # The published model sees every piece with the peaks of each channel limited so.
        level = limit_peak(audio.unsqueeze(0).to(self.device), _CHUNK_PEAK)
        tokens = self.model.encode(level)[0, window.left : window.left + window.hop]
        return tokens.cpu()

    @torch.inference_mode()
    def decode_window(
        self,
        tokens: Tensor,
        *,
        first_token: int,
        context: Tensor | None,
        seed: int,
        settings: DecodeSettings,
    ) -> Tensor:
        self._require("decoder")
        c = self.model.config
        frames = len(tokens) // self.latent_tokens
        steps = DEFAULT_STEPS if settings.steps is None else max(1, settings.steps)
        guidance = DEFAULT_GUIDANCE if settings.guidance is None else settings.guidance
        temperature = 1.0 if settings.temperature is None else settings.temperature
        # The transformer takes whole patches of frames: an odd one is completed and cut off.
        short = -frames % c.patch
        if short:
            tokens = torch.cat([tokens, tokens[-1:].expand(short * self.latent_tokens)])
        first_frame = first_token // self.latent_tokens
        width = c.condition_channels * c.latent_bins
        noise = keyed_normal(seed, first_frame, frames + short, width, _FLOW_PURPOSE)
        latents = sample(
            self.model.flow,
            self._batch(temperature * noise.unflatten(1, (c.condition_channels, c.latent_bins))),
            None if context is None or not len(context) else self._batch(context),
            self.model.condition(tokens.unsqueeze(0).to(self.device)),
            guidance=guidance,
            times=time_grid(steps, settings.warp),
            solver=settings.solver,
        )
        return latents[0].transpose(0, 1)[:frames]

    def _require(self, part: Part) -> None:
        if self.model.part not in (None, part):
            raise SettingError(
                f"this MuCodec was loaded as {self.model.part} alone and is no {part}; load it "
                "without naming a part"
            )

    def _batch(self, frames: Tensor) -> Tensor:
        """``[frames, channels, bins]`` to a batch of one, ``[1, channels, frames, bins]``."""
        return frames.to(self.device).transpose(0, 1).unsqueeze(0).contiguous()

    @torch.inference_mode()
    def render(self, latents: Tensor, *, first_token: int, seed: int) -> Tensor:
        model = self.model
        samples = len(latents) * self.latent_tokens * SAMPLES_PER_TOKEN
        restored = model.normfeat.restore(self._batch(latents))
        mel = model.mel(restored.to(self.precision))
        # The vocoder gives a few samples more than 480 a frame; they lie at the end.
        return model.first_stage_model.vocoder(mel)[:, :samples].float().cpu()

    def sound2code_release(self, audio: Tensor) -> Tensor:
        """Tokens as the published release makes them of a whole file; see
        :mod:`codec.mucodec.compatible`.
        """
        return release_codes(self.model, self.check_audio(audio).to(self.device)).cpu()


def load_mucodec(
    weights: Path | str | None = None, device: str = "cpu", part: Part | None = None
) -> MuCodec:
    """The published model on a device; in half precision on a GPU, in float32 on a CPU.

    weights, part: see :func:`codec.load`. Raises WeightsError with one sentence.
    """
    loaded = load_model(None if weights is None else Path(weights), part=part)
    on_gpu = torch.device(device).type == "cuda"
    return MuCodec(
        loaded.model,
        loaded.name,
        loaded.digest,
        device=device,
        precision=torch.bfloat16 if on_gpu else torch.float32,
    )
