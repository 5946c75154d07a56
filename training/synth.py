"""A simple numpy synthesiser for timbres no sampled General MIDI bank has.

It plays the notes of a composed piece with detuned saws through a moving filter, with frequency
modulated bells, or as noise sweeps, so the codec does not only ever hear the same samples.
"""

from __future__ import annotations

import mido
import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt

from training.filters import RATE, one_pole_sweep

Audio = NDArray[np.float32]
Event = tuple[float, float, int, int, int]  # start s, length s, pitch, velocity, channel
MAX_NOTES = 900


def note_events(midi: mido.MidiFile) -> list[Event]:
    """Notes in seconds, tempo changes applied, drums left out."""
    now = 0.0
    open_notes: dict[tuple[int, int], tuple[float, int]] = {}
    events: list[Event] = []
    for message in midi:
        now += message.time
        if message.type not in ("note_on", "note_off") or message.channel == 9:
            continue
        where = (message.channel, message.note)
        if where in open_notes:
            start, velocity = open_notes.pop(where)
            events.append((start, now - start, where[1], velocity, where[0]))
        if message.type == "note_on" and message.velocity:
            open_notes[where] = (now, message.velocity)
    return events


def _saw_voice(rng: np.random.Generator, freq: float, count: int, shape: str) -> Audio:
    """Naive waves are fine below 2 kHz; aliasing there is itself a synthetic timbre."""
    time = np.arange(count, dtype=np.float32) / RATE
    out = np.zeros(count, np.float32)
    for detune in rng.normal(0, 6, 3):
        phase = (time * np.float32(freq * 2 ** (detune / 1200)) + np.float32(rng.random())) % 1.0
        out += (2 * phase - 1) if shape == "saw" else np.where(phase < 0.3, 1.0, -0.6)
    return out / np.float32(3)


def _fm_voice(freq: float, count: int, ratio: float, depth: float) -> Audio:
    time = np.arange(count, dtype=np.float32) / RATE
    decay = np.exp(-time * 3)
    turn = np.float32(2 * np.pi * freq)
    modulator = np.sin(turn * np.float32(ratio) * time) * decay * np.float32(depth)
    return (np.sin(turn * time + modulator) * np.exp(-time * 1.2)).astype(np.float32)


def _envelope(count: int, attack: float, release: float) -> Audio:
    env = np.ones(count, np.float32)
    a, r = min(count // 2, int(attack * RATE) + 1), min(count // 2, int(release * RATE) + 1)
    env[:a] = np.linspace(0, 1, a, dtype=np.float32)
    env[count - r :] *= np.linspace(1, 0, r, dtype=np.float32)
    return env


def synth_layer(rng: np.random.Generator, midi: mido.MidiFile, frames: int) -> Audio:
    """Stereo layer (frames, 2) playing one or two of the piece's channels."""
    events = note_events(midi)
    out = np.zeros((frames, 2), np.float32)
    channels = sorted({e[4] for e in events})
    if channels:
        chosen = rng.choice(channels, size=min(2, len(channels)), replace=False)
        for channel in chosen:
            out += _play_channel(rng, [e for e in events if e[4] == channel][:MAX_NOTES], frames)
    if not channels or rng.random() < 0.4:
        out += noise_risers(rng, frames)
    return out


def _play_channel(rng: np.random.Generator, events: list[Event], frames: int) -> Audio:
    kind = rng.choice(["saw", "pulse", "fm"])
    attack, release = float(rng.choice([0.003, 0.02, 0.2])), float(rng.uniform(0.02, 0.3))
    ratio, depth = float(rng.choice([1, 1.41, 2, 3.5, 7])), float(rng.uniform(0.5, 8))
    shift = int(rng.choice([-12, 0, 0, 12]))
    mono = np.zeros(frames, np.float32)
    for start, length, pitch, velocity, _ in events:
        first = int(start * RATE)
        ring = 0.6 if kind == "fm" else 0.0
        count = min(frames - first, int((min(length, 4.0) + release + ring) * RATE))
        if count < 64:
            continue
        freq = 440 * 2 ** ((pitch + shift - 69) / 12)
        if kind == "fm":
            voice = _fm_voice(freq, count, ratio, depth)
        else:
            voice = _saw_voice(rng, freq, count, str(kind))
        mono[first : first + count] += voice * _envelope(count, attack, release) * (velocity / 127)
    if kind != "fm":
        mono = one_pole_sweep(rng, mono)
    pan = float(rng.normal(0.5, 0.12))
    delay = int(rng.integers(1, 900))  # a short delay on one side widens the sound
    right = np.concatenate([np.zeros(delay, np.float32), mono[:-delay]])
    return np.stack([mono * (1 - pan), right * pan], axis=1).astype(np.float32)


def noise_risers(rng: np.random.Generator, frames: int) -> Audio:
    """Filtered noise swelling up to a moment, then cut."""
    out = np.zeros((frames, 2), np.float32)
    for _ in range(int(rng.integers(1, 5))):
        count = min(int(rng.uniform(1, 6) * RATE), frames // 2)
        first = int(rng.integers(0, frames - count))
        noise = rng.standard_normal((count, 2), dtype=np.float32) * 0.15
        low = float(rng.uniform(200, 4000))
        from_bell = _band(low, low * float(rng.uniform(1.5, 4)))
        ramp = np.linspace(0, 1, count, dtype=np.float32)[:, None] ** 2
        if rng.random() < 0.3:
            ramp = ramp[::-1]
        out[first : first + count] += sosfilt(from_bell, noise, axis=0).astype(np.float32) * ramp
    return out


def _band(low: float, high: float) -> NDArray[np.float64]:
    return np.asarray(butter(1, [low, min(high, 20000)], "bandpass", fs=RATE, output="sos"))
