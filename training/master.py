"""Random mastering: turns a clean soundfont render into something like a released recording.

Plain renders have 16-20 dB too little below 300 Hz, too wide a stereo image and too little
movement between frames compared with real recordings. A codec trained on them would spend its
few bits on the wrong things, so each piece gets its own tone, room, width, density and level.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.filters import (
    RATE,
    Sos,
    apply,
    bell,
    convolve,
    highpass,
    lowpass,
    reverb_tail,
    shelf,
    smooth_noise,
)

Audio = NDArray[np.float32]


def master(rng: np.random.Generator, audio: Audio) -> Audio:
    """Stereo in (frames, 2), stereo out with peak at most 1."""
    audio = normalise(audio)
    audio = apply(_tone(rng), audio)
    if rng.random() < 0.45:
        audio = _room(rng, audio)
    audio = _density(rng, normalise(audio))
    if rng.random() < 0.4:
        depth = float(rng.uniform(0.5, 6))
        curve = smooth_noise(rng, len(audio), float(rng.uniform(0.3, 8))) * depth
        audio *= (10 ** (curve / 20))[:, None]
    if rng.random() < 0.15:
        audio = _bandwidth(rng, audio)
    if rng.random() < 0.18:
        audio = _add_noise(rng, audio)
    audio = _image(rng, audio)
    return _fades(rng, _level(rng, audio))


def normalise(audio: Audio, rms: float = 0.1) -> Audio:
    """``audio`` at a level of ``rms``; silence stays silence."""
    power = float(np.sqrt(np.mean(np.square(audio, dtype=np.float32))))
    return audio * np.float32(rms / max(power, 1e-6))


def _tone(rng: np.random.Generator) -> Sos:
    """One cascade of all equaliser sections: a single pass over the samples."""
    sections = [highpass(float(rng.uniform(15, 45)))]
    if rng.random() < 0.88:
        sections.append(shelf(float(rng.uniform(80, 300)), float(rng.uniform(0, 14))))
    if rng.random() < 0.5:
        gain = float(rng.uniform(-12, 4))
        sections.append(shelf(float(rng.uniform(2500, 9000)), gain, high=True))
    if rng.random() < 0.3:
        freq = float(rng.uniform(600, 1500))
        tilt = float(rng.uniform(-2, 6))
        sections += [shelf(freq, tilt), shelf(freq, -tilt, high=True)]
    for _ in range(int(rng.integers(0, 4))):
        freq = 10 ** float(rng.uniform(1.8, 4.1))
        sections.append(bell(freq, float(rng.normal(0, 4)), float(rng.uniform(0.5, 3))))
    return np.concatenate(sections)


def _room(rng: np.random.Generator, audio: Audio) -> Audio:
    short = rng.random() < 0.65
    seconds = float(rng.uniform(0.12, 0.6) if short else rng.uniform(0.8, 3.0))
    wet = float(rng.uniform(0.08, 0.5))
    return audio + np.float32(wet) * convolve(audio, reverb_tail(rng, seconds))


def _density(rng: np.random.Generator, audio: Audio) -> Audio:
    """Bus compression (block envelope, interpolated) and soft clipping."""
    if rng.random() < 0.55:
        audio = _compress(rng, audio)
    if rng.random() < 0.55:
        drive = float(rng.uniform(0.8, 6))
        audio = np.tanh(normalise(audio) * np.float32(drive)) / np.float32(drive)
    elif rng.random() < 0.15:
        audio = np.clip(normalise(audio), -0.25, 0.25)
    return audio


def _compress(rng: np.random.Generator, audio: Audio) -> Audio:
    block = 240
    power = np.square(audio).mean(axis=1)
    count = len(power) // block
    energy = power[: count * block].reshape(count, block).mean(axis=1) + 1e-9
    level = 10 * np.log10(energy)
    release = 1 - np.exp(-block / RATE / float(rng.uniform(0.03, 0.4)))
    attack = 1 - np.exp(-block / RATE / float(rng.uniform(0.004, 0.05)))
    state, track = float(level[0]), np.empty(count)
    for i, value in enumerate(level.tolist()):
        state += (attack if value > state else release) * (value - state)
        track[i] = state
    threshold = float(rng.uniform(-32, -16))
    ratio = float(rng.uniform(1.5, 8))
    gain = -np.maximum(0.0, track - threshold) * (1 - 1 / ratio)
    where = np.arange(len(audio), dtype=np.float32)
    curve = np.interp(where, np.arange(count) * block + block / 2, 10 ** (gain / 20))
    return audio * curve.astype(np.float32)[:, None]


def _bandwidth(rng: np.random.Generator, audio: Audio) -> Audio:
    """Lo-fi, telephone or an encoder's 16 kHz ceiling."""
    kind = rng.random()
    if kind < 0.66:
        audio = apply(lowpass(float(rng.uniform(4000, 12000))), audio)
    else:
        audio = apply(lowpass(float(rng.uniform(14000, 17000)), 8), audio)
    if kind < 0.08:
        audio = apply(highpass(float(rng.uniform(150, 350))), audio)
    return audio


def _add_noise(rng: np.random.Generator, audio: Audio) -> Audio:
    """Tape hiss, mains hum or vinyl crackle."""
    frames = len(audio)
    level = 0.1 * 10 ** (float(rng.uniform(-55, -28)) / 20)
    kind = rng.choice(["hiss", "hiss", "hum", "vinyl"])
    if kind == "hiss":
        noise = apply(lowpass(float(rng.uniform(3000, 16000)), 1),
                      rng.standard_normal((frames, 2), dtype=np.float32))  # fmt: skip
    elif kind == "hum":
        base = float(rng.choice([50.0, 60.0]))
        time = np.arange(frames, dtype=np.float64) / RATE
        wave = sum(np.sin(2 * np.pi * base * k * time) / k for k in (1, 2, 3, 5))
        noise = np.repeat(np.asarray(wave, np.float32)[:, None], 2, axis=1)
    else:
        crackle = np.zeros((frames, 2), np.float32)
        clicks = rng.integers(0, frames, int(frames / RATE * rng.uniform(3, 25)))
        crackle[clicks] = rng.normal(0, 12, (len(clicks), 1))
        noise = apply(lowpass(5000, 1), crackle)
        noise += rng.standard_normal((frames, 2), dtype=np.float32) * 0.3
    return audio + noise * np.float32(level)


def _image(rng: np.random.Generator, audio: Audio) -> Audio:
    """Stereo width and balance; recordings are narrower than panned renders."""
    mid = audio.mean(axis=1)
    side: Audio = (audio[:, 0] - audio[:, 1]) / np.float32(2)
    kind = rng.random()
    width = 0.0 if kind < 0.08 else float(rng.uniform(0.1, 1.0))
    if width and rng.random() < 0.5:
        side = apply(highpass(float(rng.uniform(80, 250)), 1), side)  # mono bass, as on records
    out = np.stack([mid + width * side, mid - width * side], axis=1).astype(np.float32)
    if 0.08 <= kind < 0.11:
        out[:, 1] *= -1
    elif 0.11 <= kind < 0.14:
        out[:, int(rng.integers(2))] *= np.float32(rng.choice([0.0, 0.1, 0.3]))
    elif kind < 0.3 and width:
        out[:, int(rng.integers(2))] *= np.float32(10 ** (-rng.uniform(0, 4) / 20))
    return out


def _level(rng: np.random.Generator, audio: Audio) -> Audio:
    target = float(np.clip(rng.normal(-18, 5), -36, -8))
    return limit(normalise(audio, 10 ** (target / 20)))


def limit(audio: Audio) -> Audio:
    """Round off peaks near full scale; a limiter, not a fader, so loud masters stay loud."""
    if float(np.abs(audio).max()) <= 0.9:
        return audio
    knee, room = np.float32(0.6), np.float32(0.35)
    over = np.abs(audio) - knee
    squeezed = knee + room * np.tanh(over / room)
    return np.where(over > 0, np.sign(audio) * squeezed, audio).astype(np.float32)


def _fades(rng: np.random.Generator, audio: Audio) -> Audio:
    if rng.random() < 0.25:
        first = min(int(rng.uniform(0.2, 6) * RATE), len(audio))
        audio[:first] *= np.linspace(0, 1, first, dtype=np.float32)[:, None]
    if rng.random() < 0.35:
        last = min(int(rng.uniform(1, 12) * RATE), len(audio))
        audio[-last:] *= np.linspace(1, 0, last, dtype=np.float32)[:, None]
    return audio
