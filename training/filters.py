"""Audio filters used in mastering: shelves, bells, moving lowpass, reverb tails.

All work on float32 arrays and whole pieces at once; mastering has to stay much faster than the
soundfont rendering it follows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, oaconvolve, sosfilt

RATE = 48000
Audio = NDArray[np.float32]
Sos = NDArray[np.float64]


def shelf(freq: float, gain_db: float, high: bool = False) -> Sos:
    """Second-order low (or high) shelf after the well-known audio EQ formulas."""
    a = 10 ** (gain_db / 40)
    w = 2 * np.pi * freq / RATE
    cos, alpha = np.cos(w), np.sin(w) / np.sqrt(2)
    root = 2 * np.sqrt(a) * alpha
    sign = -1.0 if high else 1.0
    b0 = a * ((a + 1) - sign * (a - 1) * cos + root)
    b1 = sign * 2 * a * ((a - 1) - sign * (a + 1) * cos)
    b2 = a * ((a + 1) - sign * (a - 1) * cos - root)
    a0 = (a + 1) + sign * (a - 1) * cos + root
    a1 = -sign * 2 * ((a - 1) + sign * (a + 1) * cos)
    a2 = (a + 1) + sign * (a - 1) * cos - root
    return np.array([[b0 / a0, b1 / a0, b2 / a0, 1.0, a1 / a0, a2 / a0]])


def bell(freq: float, gain_db: float, q: float) -> Sos:
    """A peaking equaliser at ``freq`` Hz."""
    a = 10 ** (gain_db / 40)
    w = 2 * np.pi * freq / RATE
    cos, alpha = np.cos(w), np.sin(w) / (2 * q)
    a0 = 1 + alpha / a
    row = [1 + alpha * a, -2 * cos, 1 - alpha * a, a0, -2 * cos, 1 - alpha / a]
    return np.array([[value / a0 for value in row]])


def lowpass(freq: float, order: int = 4) -> Sos:
    """A Butterworth low-pass at ``freq`` Hz."""
    return np.asarray(butter(order, freq, "lowpass", fs=RATE, output="sos"))


def highpass(freq: float, order: int = 2) -> Sos:
    """A Butterworth high-pass at ``freq`` Hz."""
    return np.asarray(butter(order, freq, "highpass", fs=RATE, output="sos"))


def apply(sos: Sos, audio: Audio) -> Audio:
    """Filter along time; float32 coefficients keep scipy in single precision.

    Second-order sections of low shelves stay stable in single precision at these corner
    frequencies, and it halves the memory traffic.
    """
    return np.asarray(sosfilt(sos, audio, axis=0), dtype=np.float32)


def smooth_noise(rng: np.random.Generator, frames: int, seconds: float) -> Audio:
    """A random curve in about [-1, 1] with one knot every `seconds`."""
    knots = rng.uniform(-1, 1, int(frames / RATE / seconds) + 3)
    where = np.linspace(0, len(knots) - 1.001, frames, dtype=np.float32)
    curve: Audio = np.interp(where, np.arange(len(knots)), knots).astype(np.float32)
    return curve


def one_pole_sweep(rng: np.random.Generator, mono: Audio) -> Audio:
    """A lowpass whose cutoff moves, made by crossfading three fixed filters."""
    ranges = ((200, 500), (900, 2000), (4000, 9000))
    cuts = [float(rng.uniform(*r)) for r in ranges]
    bands = [apply(lowpass(c, 2), mono) for c in cuts]
    place = smooth_noise(rng, len(mono), float(rng.uniform(0.5, 5))) + 1
    out = sum(b * np.clip(1 - np.abs(place - i), 0, 1) for i, b in enumerate(bands))
    return np.asarray(out, dtype=np.float32)


def reverb_tail(rng: np.random.Generator, seconds: float) -> Audio:
    """Two decorrelated exponentially decaying noises, darker as they decay."""
    count = int(seconds * RATE)
    time = np.arange(count, dtype=np.float32)[:, None] / RATE
    noise = rng.standard_normal((count, 2), dtype=np.float32)
    decay = np.exp(-6.9 * time / seconds)
    dark = apply(lowpass(float(rng.uniform(1500, 5000)), 1), noise)
    tail = dark * decay + noise * decay**3 * 0.5
    pre = int(rng.uniform(0, 0.03) * RATE)
    tail[:pre] = 0
    return np.asarray(tail / np.sqrt(np.sum(tail**2, axis=0, keepdims=True) + 1e-9), np.float32)


def convolve(audio: Audio, tail: Audio) -> Audio:
    """``audio`` through an impulse response, both ``[samples, 2]``, as long as ``audio``."""
    return np.asarray(oaconvolve(audio, tail, axes=0)[: len(audio)], dtype=np.float32)
