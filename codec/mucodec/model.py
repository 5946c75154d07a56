"""The whole published model: encoder, quantiser, condition, flow transformer, VAE and vocoder.

One module per stage of the sound's way, each under the key that the published checkpoints have it
under, so that their tensors are taken over by name. What inference does not need is listed in
:data:`UNUSED`; any other key that is missing, left over or of another shape is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from codec.mucodec.config import MuCodecConfig, Precision
from codec.mucodec.dsp import halve_rate
from codec.mucodec.encoder import MuqEncoder
from codec.mucodec.flow import FlowTransformer
from codec.mucodec.precision import DTYPES, fits
from codec.mucodec.quantizer import Quantizer
from codec.mucodec.vae import MelVae, vae_log_mel
from codec.mucodec.vocoder import HifiGan

__all__ = ["UNUSED", "MuCodecModel", "Part", "unused"]

Part = Literal["encoder", "decoder"]

UNUSED: tuple[tuple[str, str], ...] = (
    (
        r"zero_cond_embedding1",
        "of training with dropped conditions",
    ),
    (r"normfeat\.sum_target_x2", "of training"),
    (r"(rsp48toclap|rsq48towav2vec|rsq48tomuencoder)\.kernel", "resamplers, made anew"),
    (r"muencoder\.model\.cls_token", "of the encoder's training"),
    (r"muencoder\.model\.preprocessor_melspec_2048\..*", "window and mel filters, made anew"),
    (r"muencoder\.model\.rvq\..*", "targets of the encoder's training"),
    (r"muencoder\.model\.linear\..*", "prediction of those targets"),
    (r"muencoder\.model\.conformer\.embed_positions\.inv_freq", "rotary rates, made anew"),
    (r"muencoder\.model\.conformer\.pos_conv_embed\..*", "another kind of position, never run"),
    (r"muencoder\.model\.conformer\.layer_norm\..*", "after the last layer"),
    (r"rvq_muencoder_emb\.quantizers\.0\.stale_counter", "of training"),
)
"""Patterns of checkpoint keys that inference does not need, and what they are."""

_LAYER = re.compile(r"muencoder\.model\.conformer\.layers\.(\d+)\.")


def unused(key: str, config: MuCodecConfig) -> bool:
    """Whether a checkpoint's key belongs to nothing that is built."""
    if (layer := _LAYER.match(key)) is not None:
        return int(layer[1]) >= config.hidden_layer
    return any(re.fullmatch(pattern, key) for pattern, _ in UNUSED)


class FeatureStatistics(nn.Module):
    """Mean and deviation of latents per channel and bin, from running sums of the training."""

    def __init__(self, config: MuCodecConfig) -> None:
        super().__init__()
        shape = (config.condition_channels, config.latent_bins)
        self.register_buffer("counts", torch.ones(1))
        self.register_buffer("sum_x", torch.zeros(shape))
        self.register_buffer("sum_x2", torch.ones(shape))

    counts: Tensor
    sum_x: Tensor
    sum_x2: Tensor

    def moments(self) -> tuple[Tensor, Tensor]:
        """``[1, channels, 1, bins]`` each."""
        mean = self.sum_x / self.counts
        deviation = (self.sum_x2 / self.counts - mean.square()).clamp_min(1e-12).sqrt()
        return mean[None, :, None], deviation[None, :, None]

    def project(self, latents: Tensor) -> Tensor:
        mean, deviation = self.moments()
        return (latents - mean) / deviation

    def restore(self, latents: Tensor) -> Tensor:
        mean, deviation = self.moments()
        return latents * deviation + mean


class Estimator(nn.Module):
    """A name of the checkpoint's, around the transformer."""

    def __init__(self, config: MuCodecConfig) -> None:
        super().__init__()
        self.estimator = FlowTransformer(config)


class EncoderModel(nn.Module):
    """The same around the encoder."""

    def __init__(self, config: MuCodecConfig) -> None:
        super().__init__()
        self.model = MuqEncoder(config)


class FirstStage(MelVae):
    """VAE and vocoder in one, as AudioLDM stores them."""

    def __init__(self, config: MuCodecConfig, decoder_only: bool = False) -> None:
        super().__init__(config, decoder_only)
        self.vocoder = HifiGan(config)


class MuCodecModel(nn.Module):
    """Audio to codes, codes to latents, latents to audio. Audio is 48 kHz, latents 12.5 Hz.

    Args:
        part: build one half alone, a sixth or five sixths of the weights; the other half's methods
            cannot be called then.
    """

    def __init__(self, config: MuCodecConfig | None = None, part: Part | None = None) -> None:
        super().__init__()
        self.config = c = config or MuCodecConfig()
        self.part = part
        self.rvq_muencoder_emb = Quantizer(c)
        if part != "decoder":
            self.muencoder = EncoderModel(c)
        if part == "encoder":
            return
        self.cond_muencoder_emb = nn.Linear(c.hidden, c.latent_channels * c.latent_bins)
        self.normfeat = FeatureStatistics(c)
        self.cfm_wrapper = Estimator(c)
        self.first_stage_model = FirstStage(c, decoder_only=part == "decoder")
        self.register_buffer("scale_factor", torch.ones(()))

    scale_factor: Tensor

    @property
    def flow(self) -> FlowTransformer:
        """The flow transformer, which lies deeper in the checkpoint's layout."""
        return self.cfm_wrapper.estimator

    def prepare(self, precision: Precision) -> torch.dtype:
        """Fuse products of the decoder and lay out its weights, in the given precision.

        MuQ, the quantiser, the condition and the VAE's encoder stay in float32. May be called
        again, for less precision.

        Returns:
            What flow, VAE and vocoder compute in: bfloat16 instead of float16 if a weight is too
            large for that.
        """
        dtype = DTYPES[precision]
        if self.part == "encoder":
            return dtype
        first = self.first_stage_model
        stages = (self.flow, first.decoder, first.post_quant_conv, first.vocoder)
        if dtype == torch.float16 and not all(fits(stage, dtype) for stage in stages):
            dtype = torch.bfloat16
        self.flow.prepare(dtype, precision == "fp8")
        first.decoder.to(dtype)
        first.post_quant_conv.to(dtype)
        first.vocoder.prepare(dtype)
        return dtype

    def encode(self, audio: Tensor) -> Tensor:
        """48 kHz stereo ``[batch, 2, samples]`` to codes ``[batch, samples / 1920]``.

        Left and right are mixed to one channel first: the codes hold nothing of the stereo image.
        """
        mono = halve_rate(audio.mean(dim=1))
        mono = mono[:, : mono.shape[1] // 960 * 960]
        return self.rvq_muencoder_emb.encode(self.muencoder.model(mono))

    def condition(self, codes: Tensor) -> Tensor:
        """Codes ``[batch, 2 * frames]`` to the condition ``[batch, channels, frames, bins]``."""
        c = self.config
        rows = self.cond_muencoder_emb(self.rvq_muencoder_emb.decode(codes))
        # [batch, frames, token of the pair, channels, bins]
        rows = rows.unflatten(2, (c.latent_channels, c.latent_bins)).unflatten(1, (-1, 2))
        out: Tensor = rows.transpose(1, 2).transpose(2, 3).flatten(1, 2)
        return out

    def mel(self, latents: Tensor) -> Tensor:
        """Latents ``[batch, channels, frames, bins]`` to mels ``[2 * batch, 8 * frames, mels]``.

        Left and right lie side by side in the channels; here they become two items of the batch.
        """
        halves = latents.unflatten(1, (2, -1)).flatten(0, 1)
        return self.first_stage_model.decode(halves, self.scale_factor)

    def latents(self, audio: Tensor) -> Tensor:
        """48 kHz stereo ``[batch, 2, samples]`` to latents (posterior means) of whole frames."""
        mel = vae_log_mel(audio.flatten(0, 1), self.config.vae_mels)
        mel = mel[:, : audio.shape[-1] // 3840 * 8]
        mean, _ = self.first_stage_model.encode(mel)
        return (mean * self.scale_factor).unflatten(0, (-1, 2)).flatten(1, 2)

    @classmethod
    def unfilled(
        cls, config: MuCodecConfig | None = None, part: Part | None = None
    ) -> MuCodecModel:
        """A model on the CPU whose constants are right and whose weights are yet to be written.

        Spares the drawing of a billion random numbers that nobody wants.
        """
        with torch.device("meta"):
            model = cls(config, part)
        model = model.to_empty(device="cpu")
        model.restore_constants()
        return model

    def restore_constants(self) -> None:
        """Compute what is not stored (mel filters, position table), after ``to_empty``."""
        with torch.device("cpu"):
            fresh = {
                "muencoder.model.mel_filters": MuqEncoder.filters,
                "cfm_wrapper.estimator.positions": FlowTransformer.table,
            }
            for name, buffer in self.named_buffers():
                if name in fresh:
                    buffer.copy_(fresh[name](self.config))

    def checkpoint_keys(self, given: Iterable[str]) -> tuple[list[str], list[str]]:
        """Keys of this model that ``given`` lacks, and those of ``given`` that nobody knows."""
        own, others = set(self.state_dict()), set(given)
        unknown = {key for key in others - own if not unused(key, self.config)}
        return sorted(own - others), sorted(unknown)
