"""Seeded weights and test signals that the golden numbers in ``tests/goldens`` were computed with.

NumPy's legacy generator is frozen, so the same key gives the same numbers everywhere.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

__all__ = ["fill_model", "seeded_parameter", "test_signal"]

Array = NDArray[np.float32]


def _normal(key: str, shape: tuple[int, ...]) -> Array:
    """Standard normal numbers seeded by the CRC-32 of the key."""
    rng = np.random.RandomState(zlib.crc32(key.encode()))
    return np.asarray(rng.standard_normal(shape or None), dtype=np.float32)


def seeded_parameter(key: str, shape: tuple[int, ...]) -> Array:
    """Value of a learnt parameter or statistic, by its name in the published checkpoints."""
    name = key.rsplit(".", 1)[-1]
    if key == "normfeat.counts":
        return np.full(shape, 1000, np.float32)
    if key == "normfeat.sum_x":
        return np.float32(1000 * 0.1) * _normal(key, shape)
    if key == "normfeat.sum_x2":
        return (1000 * (1 + 0.1 * np.abs(_normal(key, shape)))).astype(np.float32)
    if name == "running_var":
        return (1 + 0.1 * np.abs(_normal(key, shape))).astype(np.float32)
    if name == "weight_g":
        return np.ones(shape, np.float32)
    if key.endswith(("bias", "running_mean")):
        return (0.02 * _normal(key, shape)).astype(np.float32)
    if "codebook.weight" in key:
        return _normal(key, shape)
    if name in ("weight", "weight_v") and len(shape) >= 2:
        return (_normal(key, shape) / np.sqrt(int(np.prod(shape[1:])))).astype(np.float32)
    if name == "weight":
        return (1 + 0.05 * _normal(key, shape)).astype(np.float32)
    if name == "scale_shift_table":
        return (_normal(key, shape) / np.sqrt(shape[-1])).astype(np.float32)
    return (0.5 * _normal(key, shape)).astype(np.float32)


@torch.no_grad()
def fill_model(model: nn.Module) -> None:
    """Fill every parameter and stored statistic but ``scale_factor`` and counters of batches."""
    for key, value in model.state_dict().items():
        if not key.endswith(("scale_factor", "num_batches_tracked")):
            value.copy_(torch.from_numpy(seeded_parameter(key, tuple(value.shape))))


def test_signal(samples: int, seed: int) -> Array:
    """48 kHz stereo test signal, float32 ``[2, samples]``: wobbling partials, a little noise."""
    time = np.arange(samples) / 48_000
    rng = np.random.RandomState(seed)
    channels = []
    for channel in range(2):
        sound = np.zeros(samples)
        for hz in (110, 330.0, 440, 1318.5, 3520):
            # The order of the draws is part of the signal.
            level = rng.uniform(0.03, 0.12)
            angle = 2 * np.pi * hz * (1 + 0.01 * channel) * time + rng.uniform(0, 6.28)
            beat = 0.6 + 0.4 * np.sin(2 * np.pi * rng.uniform(0.3, 3) * time)
            sound += level * np.sin(angle) * beat
        sound += 0.01 * rng.standard_normal(samples)
        channels.append(sound)
    return np.stack(channels).astype(np.float32)


test_signal.__test__ = False  # type: ignore[attr-defined]  # no test, whatever its name says
