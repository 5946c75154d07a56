"""The nano codec as the engine sees it, and its weights file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from codec.base import (
    Audio,
    Codec,
    DecoderWindow,
    DecodeSettings,
    EncoderWindow,
    Latents,
    TokenArray,
)
from codec.constants import SAMPLES_PER_TOKEN
from codec.errors import WeightsError
from codec.nano.config import NanoConfig
from codec.nano.dsp import mel_centres, soft_limit
from codec.nano.features import Features
from codec.nano.flow import FlowDecoder, sample
from codec.nano.level import mel_level
from codec.nano.model import Autoencoder
from codec.nano.vocoder import Vocoder
from codec.nano.weights import BUNDLED, BUNDLED_SHA256
from codec.noise import keyed_normal
from codec.sampling import time_grid
from codec.torch_backend import array, tensor

__all__ = [
    "DEFAULT_STEPS",
    "DEFAULT_TEMPERATURE",
    "FLOW_CONTEXT",
    "FLOW_PURPOSE",
    "Nano",
    "NanoModels",
    "load_nano",
    "save_nano",
    "with_texture",
]

_FORMAT = "music350-nano"
FLOW_PURPOSE = 1
FLOW_CONTEXT = 16
"""Tokens of known latents that the flow sees: its reach to the left."""
DEFAULT_STEPS = 1
"""Evaluations of the flow: it was trained to need no more (training/train_texture.py)."""
DEFAULT_TEMPERATURE = 1.0
_LEAST_TEXTURE, _TEXTURE_FROM_HZ = 0.4, 1800.0
"""How much of the flow's texture goes into low mels, and from where on all of it does: what is
guessed there costs harmony, and it is heard less than in the treble."""


class NanoModels(nn.Module):
    """Everything that is trained, under one roof for one weights file."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.codec = Autoencoder(config)
        self.flow = FlowDecoder(config)
        self.vocoder = Vocoder(config)
        self.register_buffer("texture", _texture_amount(config), persistent=False)

    texture: Tensor
    """How much of each feature's residual is taken, ``[feature_dims]``."""


def _texture_amount(config: NanoConfig) -> Tensor:
    high = torch.sigmoid(4 * torch.log2(mel_centres(config.mels) / _TEXTURE_FROM_HZ))
    amount = (_LEAST_TEXTURE + (1 - _LEAST_TEXTURE) * high).float().repeat(config.mel_frames)
    return torch.cat([amount, amount.new_zeros(config.feature_dims - config.mel_dims)])


class Nano(Codec):
    """Latents are the codec's features themselves: mels, semitones and stereo image of a token."""

    name = "nano"
    encoder_window = EncoderWindow(left=30, hop=24, lookahead=8)
    decoder_window = DecoderWindow(context=128, hop=24, lookahead=8)
    latent_tokens = 1
    render_margin_tokens = Vocoder.reach_tokens
    crossfade_samples = SAMPLES_PER_TOKEN // 2

    def __init__(self, models: NanoModels, weights: str, digest: str) -> None:
        self.models = models.eval().requires_grad_(False)
        self.config = models.codec.config
        self.features = Features(self.config)
        self.weights = weights
        self.digest = digest

    @torch.inference_mode()
    def encode_window(self, audio: Audio, window: EncoderWindow, *, first_token: int) -> TokenArray:
        features = self.features(tensor(audio)).unsqueeze(0)
        tokens: Tensor = self.models.codec.encode(features, first_token - window.left)[0]
        return array(tokens[window.left : window.left + window.hop])

    @torch.inference_mode()
    def decode_window(
        self,
        tokens: TokenArray,
        *,
        first_token: int,
        context: Latents | None,
        seed: int,
        settings: DecodeSettings,
    ) -> Latents:
        codec, flow = self.models.codec, self.models.flow
        steps = DEFAULT_STEPS if settings.steps is None else settings.steps
        guidance = 1.0 if settings.guidance is None else settings.guidance
        temperature = DEFAULT_TEMPERATURE if settings.temperature is None else settings.temperature
        expected, hidden = (
            row[0] for row in codec.decode(tensor(tokens).unsqueeze(0), first_token)
        )
        latents = expected.clone()
        if context is None:
            known, start = None, 0
        else:
            # The token decoder remembers seconds; for texture the last few tokens are enough.
            known, start = len(context), max(0, len(context) - FLOW_CONTEXT)
            latents[:known] = tensor(context)
        if steps:
            unit = codec.normalizer.deviation * flow.deviation
            residual = (latents[start:] - expected[start:]) / unit
            noise = keyed_normal(
                seed,
                first_token + start,
                len(tokens) - start,
                self.config.feature_dims,
                FLOW_PURPOSE,
            )
            residual = sample(
                flow,
                hidden[start:],
                temperature * tensor(noise),
                None if known is None else residual[: known - start],
                guidance=guidance,
                times=time_grid(steps, settings.warp),
                solver=settings.solver,
            )
            new = start if known is None else known
            residual = residual * unit * self.models.texture
            latents[new:] = with_texture(codec, expected[new:], residual[new - start :])
        return array(latents)

    def render(self, latents: Latents, *, first_token: int, seed: int) -> Audio:
        sound = self.models.vocoder.render(tensor(latents), first_token, seed)
        return array(soft_limit(sound))


def with_texture(codec: Autoencoder, expected: Tensor, residual: Tensor) -> Tensor:
    """Expected latents with the flow's residual on their mels, both ``[..., feature_dims]``.

    Each frame keeps the power that is expected there: texture moves power between bands and leaves
    loudness to the token decoder, which knows better; random movements of the level are heard as
    pumping. Semitones and stereo image stay at their expected values: the residual of semitones
    leans towards silence (its mean would take tones 4 dB down), that of the image is as good as
    unpredictable, and added noise only widens it.
    """
    c = codec.config
    plain, rest = expected[..., : c.mel_dims], expected[..., c.mel_dims :]
    plain = plain.unflatten(-1, (c.mel_frames, c.mels))
    textured = plain + residual[..., : c.mel_dims].unflatten(-1, (c.mel_frames, c.mels))
    change = mel_level(plain, codec.widths) - mel_level(textured, codec.widths)
    return torch.cat([(textured + change.unsqueeze(-1)).flatten(-2), rest], dim=-1)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save_nano(models: NanoModels, path: Path, card: dict[str, str]) -> str:
    """Write weights in half precision with a card of plain strings; returns the file's SHA-256."""
    tensors = {
        name: value.half().contiguous() if value.is_floating_point() else value.contiguous()
        for name, value in models.state_dict().items()
    }
    save_file(tensors, path, metadata={"format": _FORMAT, "card": json.dumps(card)})
    return _digest(path)


def load_nano(weights: Path | str | None = None, device: str = "cpu") -> Nano:
    """Load the weights that come with the program, or another file of the same layout.

    The bundled file must have the digest that this program was made with. Any other file is named
    in the hello by its own digest, so that a listener without it refuses.
    Raises WeightsError with one sentence for a missing, damaged or foreign file.
    """
    path = BUNDLED if weights is None else Path(weights)
    if not path.is_file():
        raise WeightsError(f"the nano weights are missing: there is no file {path}; restore it")
    digest = _digest(path)
    if weights is None and digest != BUNDLED_SHA256:
        raise WeightsError(
            f"the nano weights in {path} are damaged (SHA-256 {digest[:12]}…, expected "
            f"{BUNDLED_SHA256[:12]}…); restore the file from the repository"
        )
    models = NanoModels(NanoConfig())
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("format") != _FORMAT:
                raise WeightsError(f"{path} does not hold nano weights; give a file that does")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        models.load_state_dict(state)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is no readable safetensors file: {error}") from error
    except RuntimeError as error:
        raise WeightsError(
            f"{path} holds nano weights of another shape; use the program version it was made with"
        ) from error
    name = BUNDLED.stem if digest == BUNDLED_SHA256 else path.stem
    return Nano(models.to(device), name, digest)
