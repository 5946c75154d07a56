"""What each kind of player does with a section: bass, pads, comping, arpeggios, tunes, stabs.

Every player is a function `(stage, part, section, start)` that writes notes into the score, so a
style is just a choice of players and sounds.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from training.score import Score
from training.theory import Chord, Key, nearest, voicing


@dataclass
class Section:
    """A stretch of the form: harmony, loudness and which parts play."""

    name: str
    chords: list[Chord]
    key: Key
    level: float
    active: set[int] = field(default_factory=set)


@dataclass
class Part:
    """One player: a channel, what it plays (`role`), and its habits."""

    channel: int
    role: str
    program: int
    centre: int
    velocity: float
    style: str
    density: float
    tunes: dict[str, list[list[tuple[float, float, int]]]] = field(default_factory=dict)


@dataclass
class Stage:
    """What all players share."""

    score: Score
    rng: random.Random
    beats: float
    human: float

    def hit(self, part: Part, when: float, length: float, pitch: float, level: float) -> None:
        """A note with the player's inaccuracy in time and level."""
        spread = self.rng.uniform(1 - self.human, 1 + self.human)
        self.score.note(part.channel, when, length, pitch, part.velocity * level * spread)


Player = Callable[[Stage, Part, Section, float], None]

BASS_STYLES = ("whole", "roots8", "octaves", "walking", "offbeat", "fifths", "funk", "arpeggio",
               "sixteenths", "dotted", "sub")  # fmt: skip
COMP_STYLES = ("block", "offbeat", "strum", "charleston", "eighths", "oompah", "broken", "alberti",
               "chug", "synco", "montuno", "tremolo")  # fmt: skip
ARP_STYLES = ("up", "down", "updown", "random", "octave")

_SYNCO = ((0, 1.5, 2.5), (0, 0.75, 1.5, 2.5, 3.25), (0, 1.5, 3), (0.5, 1.5, 2, 3.5), (0, 0.75, 2))


def _bars(stage: Stage, section: Section, start: float) -> list[tuple[float, Chord, Chord]]:
    chords = section.chords
    return [
        (start + i * stage.beats, chord, chords[(i + 1) % len(chords)])
        for i, chord in enumerate(chords)
    ]


def _grid(beats: float, step: float) -> list[float]:
    return [i * step for i in range(max(1, round(beats / step)))]


def _strike(stage: Stage, part: Part, when: float, length: float, notes: list[int], level: float,
            strum: float = 0.0) -> None:  # fmt: skip
    order = notes if strum >= 0 else notes[::-1]
    for i, pitch in enumerate(order):
        stage.hit(part, when + i * abs(strum), length, pitch, level * (1 - 0.03 * i))


def _bass_bar(
    stage: Stage, part: Part, chord: Chord, following: Chord
) -> list[tuple[float, float, int]]:
    """Events (beat, length, pitch) of one bar of bass."""
    rng, beats = stage.rng, stage.beats
    root = nearest(chord.root, part.centre)
    fifth = nearest(chord.fifth, root + 4)
    third = nearest(chord.tones[1], root + 4)
    style = part.style
    if style in ("whole", "sub"):
        return [(0, beats * 0.96, root)]
    if style == "roots8":
        return [(t, 0.45, root) for t in _grid(beats, 0.5)]
    if style == "octaves":
        return [(t, 0.4, root + (12 if i % 2 else 0)) for i, t in enumerate(_grid(beats, 0.5))]
    if style == "sixteenths":
        return [(t, 0.2, root) for t in _grid(beats, 0.25) if (t * 4) % 4 or rng.random() < 0.5]
    if style == "offbeat":
        return [(t + 0.5, 0.4, root) for t in _grid(beats, 1)]
    if style == "walking":
        walk = [root, third, fifth, nearest(following.root, root) + rng.choice((-1, 1, 2))]
        return [(t, 0.9, walk[int(t) % 4]) for t in _grid(beats, 1)]
    if style == "fifths":
        return [(t, 0.8, root if i % 2 == 0 else fifth - 12 * (fifth > part.centre + 7))
                for i, t in enumerate(_grid(beats, beats / 2))]  # fmt: skip
    if style == "arpeggio":
        tones = [root, fifth, root + 12, fifth]
        return [(t, 0.45, tones[i % 4]) for i, t in enumerate(_grid(beats, 0.5))]
    if style == "dotted":
        return [(t, 0.6, root) for t in (0, 1.5, 3) if t < beats]
    hits = [t for t in _grid(beats, 0.25) if t == 0 or rng.random() < 0.35]  # funk
    return [(t, rng.choice((0.15, 0.25, 0.5)), rng.choice((root, root, root + 12, fifth, third)))
            for t in hits]  # fmt: skip


def play_bass(stage: Stage, part: Part, section: Section, start: float) -> None:
    """A bass line over a section's chords, from beat ``start`` on."""
    for when, chord, following in _bars(stage, section, start):
        for beat, length, pitch in _bass_bar(stage, part, chord, following):
            accent = 1.0 if beat == 0 else 0.9
            stage.hit(part, when + beat, length, pitch, section.level * accent)
        if stage.rng.random() < 0.1 * part.density:  # a slide into the next bar
            end = when + stage.beats
            for i in range(9):
                stage.score.bend(part.channel, end - 0.5 + i * 0.055, 2 * i / 8)
            stage.score.bend(part.channel, end, 0)


def play_pad(stage: Stage, part: Part, section: Section, start: float) -> None:
    """Held chords with swells; `long` ties equal chords over the bar line."""
    bars = _bars(stage, section, start)
    voices = 3 + int(part.density * 3)
    index = 0
    while index < len(bars):
        when, chord, _ = bars[index]
        span = 1
        limit = 4 if part.style == "long" else 1
        while span < limit and index + span < len(bars) and bars[index + span][1] == chord:
            span += 1
        length = span * stage.beats
        for pitch in voicing(chord, part.centre, voices):
            stage.hit(part, when, length * 0.98, pitch, section.level * 0.85)
        if stage.rng.random() < 0.5:
            swell(stage, part, when, length)
        index += span


def swell(stage: Stage, part: Part, when: float, length: float) -> None:
    """Expression (CC11) up, down, or up and down over `length`."""
    low, high = stage.rng.randrange(40, 90), 122
    shape = stage.rng.randrange(3)
    for i in range(13):
        x = i / 12
        amount = (x, 1 - x, 1 - abs(2 * x - 1))[shape]
        stage.score.control(part.channel, when + x * length, 11, low + (high - low) * amount)


def _comp_hits(stage: Stage, style: str) -> list[tuple[float, float]]:
    beats, rng = stage.beats, stage.rng
    if style == "offbeat":
        return [(t + 0.5, 0.3) for t in _grid(beats, 1)]
    if style == "charleston":
        return [(0, 1.2), (1.5, 0.4)]
    if style in ("eighths", "chug"):
        short = 0.22 if style == "chug" else 0.42
        return [(t, short) for t in _grid(beats, 0.5)]
    if style == "tremolo":
        return [(t, 0.24) for t in _grid(beats, 0.25)]
    if style in ("synco", "montuno"):
        return [(t, 0.4) for t in rng.choice(_SYNCO) if t < beats]
    if style == "strum":
        pattern = rng.choice(((0, 1, 1.5, 2.5, 3), (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5), (0, 2), (0,)))
        hits = [t for t in pattern if t < beats]
        ends = [*hits[1:], beats]
        return [(t, e - t) for t, e in zip(hits, ends, strict=True)]
    return [(t, 0.9) for t in _grid(beats, rng.choice((1, 1, 2)))]


def _comp_broken(stage: Stage, part: Part, when: float, chord: Chord, level: float) -> None:
    notes = voicing(chord, part.centre, 4)
    if part.style == "oompah":
        stage.hit(part, when, 0.8, nearest(chord.root, part.centre - 16), level)
        for t in _grid(stage.beats, 1)[1:]:
            _strike(stage, part, when + t, 0.5, notes[:3], level * 0.85)
        return
    order = (0, 2, 1, 2) if part.style == "alberti" else (0, 1, 2, 3, 2, 1)
    for i, t in enumerate(_grid(stage.beats, 0.5)):
        stage.hit(part, when + t, 0.6, notes[order[i % len(order)] % len(notes)], level)


def play_comp(stage: Stage, part: Part, section: Section, start: float) -> None:
    """Chords in a rhythm over a section, from beat ``start`` on."""
    voices = 3 + int(part.density * 2.5)
    hits = _comp_hits(stage, part.style)
    for when, chord, _ in _bars(stage, section, start):
        if part.style in ("broken", "alberti", "oompah"):
            _comp_broken(stage, part, when, chord, section.level)
            continue
        if stage.rng.random() < 0.15:  # mostly repeat the bar's rhythm: grooves are loops
            hits = _comp_hits(stage, part.style)
        notes = voicing(chord, part.centre, voices)
        for i, (beat, length) in enumerate(hits):
            strum = (0.03 if i % 2 == 0 else -0.02) if part.style == "strum" else 0.004
            accent = 1.0 if beat % 1 == 0 else 0.88
            _strike(stage, part, when + beat, length, notes, section.level * accent, strum)


def play_arp(stage: Stage, part: Part, section: Section, start: float) -> None:
    """Broken chords over a section, from beat ``start`` on."""
    step = 0.25 if part.density > 0.5 else (1 / 3 if part.density > 0.4 else 0.5)
    for when, chord, _ in _bars(stage, section, start):
        notes = voicing(chord, part.centre, 4)
        notes = notes + [n + 12 for n in notes] if part.density > 0.7 else notes
        orders = {
            "down": notes[::-1],
            "updown": notes + notes[-2:0:-1],
            "octave": [n + o for n in notes for o in (0, 12)],
        }
        order = orders.get(part.style, notes)
        for i, t in enumerate(_grid(stage.beats, step)):
            pitch = stage.rng.choice(notes) if part.style == "random" else order[i % len(order)]
            accent = 1.0 if i % 4 == 0 else 0.82
            stage.hit(part, when + t, step * 0.9, pitch, section.level * accent)


def play_stab(stage: Stage, part: Part, section: Section, start: float) -> None:
    """Short chords off the beat over a section, from beat ``start`` on."""
    rng = stage.rng
    rhythm = [t for t in rng.choice(_SYNCO) if t < stage.beats]
    for i, (when, chord, _) in enumerate(_bars(stage, section, start)):
        if i % 2 == 1 and rng.random() < 0.6:
            continue
        for t in rhythm:
            if rng.random() < 0.8:
                length = rng.choice((0.2, 0.3, 0.8))
                notes = voicing(chord, part.centre, 3)
                _strike(stage, part, when + t, length, notes, section.level)


def play_drone(stage: Stage, part: Part, section: Section, start: float) -> None:
    """One held chord over a section, from beat ``start`` on."""
    length = stage.beats * len(section.chords)
    root = nearest(section.key.tonic, part.centre)
    for interval in (0, 7, 12)[: 1 + int(part.density * 3)]:
        stage.hit(part, start, length * 0.99, root + interval, section.level)
    swell(stage, part, start, length)


def play_effect(stage: Stage, part: Part, section: Section, start: float) -> None:
    """Sound effects: now and then one long note."""
    for when, chord, _ in _bars(stage, section, start):
        if stage.rng.random() < 0.12:
            length = stage.beats * stage.rng.choice((0.5, 1, 2))
            stage.hit(part, when, length, nearest(chord.root, part.centre), section.level * 0.7)
