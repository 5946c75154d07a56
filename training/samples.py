"""What a training sounds like: excerpts of held-out music, decoded now and then.

``samples/`` in a run's folder gets, for each excerpt, the original once and at every such step the
decoded sound and a picture of both spectrograms. Nothing in here draws from the training's random
generators, so looking does not change what is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from torch import Tensor, nn

from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN
from codec.nano.codec import NanoModels, TorchNano
from codec.nano.config import NanoConfig
from codec.nano.dsp import soft_limit
from codec.torch_backend import tensor
from scripts.picture import draw
from streaming.errors import SettingsError
from training.checkpoint import warm_start
from training.dataset import recordings

__all__ = ["Excerpt", "Samples", "excerpts", "listen_to_codec", "listen_to_vocoder"]

COUNT = 3
SECONDS = 8.0


@dataclass(frozen=True)
class Excerpt:
    """Some held-out music, float32 ``[2, samples]``, whole tokens."""

    name: str
    audio: Tensor


def excerpts(folder: Path) -> list[Excerpt]:
    """From the first recordings of a folder, from a third of each on; always the same ones."""
    found = []
    for path in recordings(folder)[:COUNT]:
        info = sf.info(path)
        if info.samplerate != SAMPLE_RATE:
            raise SettingsError(f"{path} is not at {SAMPLE_RATE} Hz; convert it first")
        frames = min(int(SECONDS * SAMPLE_RATE), info.frames)
        frames -= frames % SAMPLES_PER_TOKEN
        start = (info.frames - frames) // 3
        data, _ = sf.read(path, frames, start, dtype="float32", always_2d=True)
        if frames:
            pair = np.ascontiguousarray(data.T[[0, -1]])
            found.append(Excerpt(path.stem, torch.from_numpy(pair)))
    return found


class Samples:
    """Writes what a model makes of excerpts; called by the training loop."""

    def __init__(
        self,
        run: Path,
        music: list[Excerpt],
        decode: Callable[[nn.Module, Tensor], Tensor],
    ) -> None:
        self.folder = run / "samples"
        self.music = music
        self.decode = decode

    @torch.inference_mode()
    def __call__(self, step: int, model: nn.Module) -> dict[str, Tensor]:
        """model: on the CPU and not used otherwise. Returns the sounds by name."""
        self.folder.mkdir(exist_ok=True)
        sounds = {}
        for excerpt in self.music:
            original = self.folder / f"{excerpt.name}-original.flac"
            if not original.exists():
                _write(original, excerpt.audio)
            sound = self.decode(model, excerpt.audio)
            stem = f"{excerpt.name}-step-{step:06d}"
            _write(self.folder / f"{stem}.flac", sound)
            draw(
                self.folder / f"{stem}.png",
                excerpt.audio.numpy(),
                sound.numpy(),
                title=f"{excerpt.name}, step {step}",
                source_label="original",
                result_label="decoded",
            )
            sounds[excerpt.name] = sound
        return sounds


def _write(path: Path, sound: Tensor) -> None:
    sf.write(path, soft_limit(sound).T.numpy(), SAMPLE_RATE, format="FLAC", subtype="PCM_16")


def _models(config: NanoConfig, **files: Path | None) -> NanoModels:
    """Models from files as far as there are any; the others are untrained.

    The vocoder may be: untrained, it leaves the excitations as they are and already sounds like
    the music.
    """
    models = NanoModels(config)
    for part, path in files.items():
        if path is not None:
            warm_start(models.get_submodule(part), path, f"{part}.")
    return models


def listen_to_codec(
    part: str, config: NanoConfig, *, codec: Path | None = None, vocoder: Path | None = None
) -> Callable[[nn.Module, Tensor], Tensor]:
    """Through tokens and back, as a listener hears it, with the trained model as ``part``.

    Without a trained flow, that is with the codec as ``part``, the expected features are rendered.
    """
    models = _models(config, codec=codec, vocoder=vocoder)

    def decode(model: nn.Module, audio: Tensor) -> Tensor:
        models.add_module(part, model)
        nano = TorchNano(models, "in training", "")
        return tensor(nano.code2sound(nano.sound2code(audio), steps=None if part == "flow" else 0))

    return decode


def listen_to_vocoder(config: NanoConfig) -> Callable[[nn.Module, Tensor], Tensor]:
    """The vocoder on the original's features."""
    models = _models(config)

    def decode(model: nn.Module, audio: Tensor) -> Tensor:
        models.add_module("vocoder", model)
        nano = TorchNano(models, "in training", "")
        return tensor(nano.render(nano.features(audio), first_token=0, seed=0))

    return decode
