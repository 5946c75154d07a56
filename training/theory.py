"""Scales, chords and progressions used by the procedural composer.

Harmony is kept apart from rhythm and instrumentation so that every style can meet every mode:
the codec should learn pitch relations in general, not those of a few favourite keys.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

PARENT_SCALES: dict[str, tuple[int, ...]] = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "harmonic_minor": (0, 2, 3, 5, 7, 8, 11),
    "double_harmonic": (0, 1, 4, 5, 7, 8, 11),
}
# Melodic subsets: the harmony below a pentatonic or blues tune still uses the parent scale.
MELODIC_SCALES: dict[str, tuple[str, tuple[int, ...]]] = {
    "major_pentatonic": ("major", (0, 2, 4, 7, 9)),
    "minor_pentatonic": ("minor", (0, 3, 5, 7, 10)),
    "blues": ("mixolydian", (0, 3, 5, 6, 7, 10)),
    "hirajoshi": ("minor", (0, 2, 3, 7, 8)),
}
ALL_SCALES = (*PARENT_SCALES, *MELODIC_SCALES)

PROGRESSIONS: tuple[tuple[int, ...], ...] = (
    (0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (0, 3, 4, 0), (1, 4, 0, 0), (0, 6, 5, 4),
    (0, 5, 1, 4), (0, 2, 3, 4), (0, 3, 0, 4), (0, 6, 3, 0), (0, 0, 3, 4), (3, 4, 2, 5),
    (0, 0, 0, 0), (0, 1, 0, 1), (0, 6, 0, 6), (0, 5, 0, 5), (0, 2, 5, 4), (0, 4, 3, 3),
    (0, 4, 5, 2, 3, 0, 3, 4), (0, 3, 6, 2, 5, 1, 4, 0), (0, 6, 5, 6, 0, 2, 3, 4),
)  # fmt: skip
BLUES = (0, 0, 0, 0, 3, 3, 0, 0, 4, 3, 0, 4)


@dataclass(frozen=True)
class Key:
    """A tonic with the scale for harmony (`parent`) and the one for tunes (`melodic`)."""

    tonic: int
    parent: tuple[int, ...]
    melodic: tuple[int, ...]

    def moved(self, semitones: int) -> Key:
        """The key so many semitones higher."""
        return Key((self.tonic + semitones) % 12, self.parent, self.melodic)

    def pitches(self, low: int, high: int) -> list[int]:
        """All pitches of the melodic scale in [low, high]."""
        classes = {(self.tonic + s) % 12 for s in self.melodic}
        return [p for p in range(low, high + 1) if p % 12 in classes]


@dataclass(frozen=True)
class Chord:
    """A chord as pitch classes, root first."""

    tones: tuple[int, ...]

    @property
    def root(self) -> int:
        """Its lowest tone."""
        return self.tones[0]

    @property
    def fifth(self) -> int:
        """Its third tone, or its last if it has fewer."""
        return self.tones[2] if len(self.tones) > 2 else self.tones[-1]


def make_key(rng: random.Random, scales: tuple[str, ...]) -> Key:
    """A key by chance, in one of the scales."""
    name = rng.choice(scales)
    tonic = rng.randrange(12)
    if name in MELODIC_SCALES:
        parent, melodic = MELODIC_SCALES[name]
        return Key(tonic, PARENT_SCALES[parent], melodic)
    return Key(tonic, PARENT_SCALES[name], PARENT_SCALES[name])


def make_chord(key: Key, degree: int, kind: str) -> Chord:
    """Stack scale steps on a degree; `kind` is triad, seventh, ninth, sus2, sus4, power."""
    steps = {
        "triad": (0, 2, 4),
        "seventh": (0, 2, 4, 6),
        "ninth": (0, 2, 4, 6, 8),
        "sus2": (0, 1, 4),
        "sus4": (0, 3, 4),
        "power": (0, 4),
    }[kind]
    size = len(key.parent)
    return Chord(tuple((key.tonic + key.parent[(degree + s) % size]) % 12 for s in steps))


def make_progression(rng: random.Random, key: Key, bars: int, kinds: tuple[str, ...],
                     chromatic: float) -> list[Chord]:  # fmt: skip
    """One chord per bar; `chromatic` is the chance to replace one by a borrowed chord."""
    roll = rng.random()
    degrees: tuple[int, ...]
    if roll < 0.08 and bars >= 8:
        degrees = BLUES
    elif roll < 0.25:
        degrees = (0, *(rng.randrange(7) for _ in range(3)))
    else:
        degrees = rng.choice(PROGRESSIONS)
    base = [make_chord(key, d, rng.choice(kinds)) for d in degrees]
    chords = []
    for bar in range(bars):
        chord = base[bar % len(base)]
        if rng.random() < chromatic:
            chord = _borrowed(rng, chord)
        chords.append(chord)
    return chords


def _borrowed(rng: random.Random, chord: Chord) -> Chord:
    root = chord.root
    shapes = ((0, 4, 7, 10), (0, 3, 6, 9), (0, 4, 8), (0, 3, 7), (1, 5, 8, 11), (0, 3, 6, 10))
    return Chord(tuple((root + i) % 12 for i in rng.choice(shapes)))


def nearest(pitch_class: int, centre: int) -> int:
    """The pitch of that class nearest to `centre`."""
    return centre + (pitch_class - centre + 6) % 12 - 6


def voicing(chord: Chord, centre: int, voices: int) -> list[int]:
    """Chord tones packed around `centre`, ascending, with at least `voices` notes."""
    notes = sorted({nearest(t, centre) for t in chord.tones})
    octave = 12
    while len(notes) < voices:
        extra = [n + octave for n in notes[: voices - len(notes)]]
        notes = sorted(set(notes) | set(extra))
        octave += 12
    return notes[: max(voices, len(chord.tones))]
