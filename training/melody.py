"""Tunes: leads, counter melodies and chamber voices built from repeated and varied motifs.

Real melodies repeat; random walks do not. A part therefore keeps its motif per section name and
returns to it, with small changes, whenever the section comes back.
"""

from __future__ import annotations

from training.parts import Part, Section, Stage
from training.theory import Chord, nearest, voicing

Motif = list[tuple[float, float, int]]  # (beat, length, step relative to the phrase's anchor)


def _motif(stage: Stage, density: float) -> Motif:
    """One bar: rhythm first, then a contour of mostly small steps."""
    rng = stage.rng
    lengths = (0.25, 0.5, 0.5, 1.0) if density > 0.6 else (0.5, 1.0, 1.0, 1.5, 2.0)
    if density < 0.25:
        lengths = (1.0, 2.0, 3.0, 4.0)
    triplets = rng.random() < 0.1
    events: Motif = []
    beat, step = 0.0, rng.choice((-2, 0, 0, 2, 4))
    while beat < stage.beats - 0.01:
        length = 1 / 3 if triplets and rng.random() < 0.7 else rng.choice(lengths)
        length = min(length, stage.beats - beat)
        if rng.random() > 0.18:
            events.append((beat, length, step))
        step += rng.choice((-3, -2, -1, -1, -1, 0, 1, 1, 1, 2, 4))
        step = max(-6, min(7, step))
        beat += length
    return events


def _varied(stage: Stage, motif: Motif) -> Motif:
    rng = stage.rng
    kind = rng.random()
    if kind < 0.4:
        return motif
    if kind < 0.6:
        shift = rng.choice((-2, -1, 1, 2))
        return [(b, n, s + shift) for b, n, s in motif]
    if kind < 0.75:
        return [(b, n, -s) for b, n, s in motif]
    return [(b, n, s + (rng.choice((-1, 0, 1)) if i else 0)) for i, (b, n, s) in enumerate(motif)]


def _phrase(stage: Stage, part: Part, section: Section) -> list[Motif]:
    """Bars of motifs for a section, remembered under the section's name."""
    if section.name not in part.tunes:
        ideas = [_motif(stage, part.density) for _ in range(stage.rng.choice((1, 2, 2, 3)))]
        plan = stage.rng.choice(((0, 0, 1, 0), (0, 1, 0, 2), (0, 1), (0, 0, 0, 1), (0, 1, 2, 3)))
        part.tunes[section.name] = [
            _varied(stage, ideas[plan[i % len(plan)] % len(ideas)])
            for i in range(len(section.chords))
        ]
    return part.tunes[section.name]


def _pitch(scale: list[int], chord: Chord, anchor: int, step: int, strong: bool) -> int:
    near = min(range(len(scale)), key=lambda i: abs(scale[i] - anchor))
    pitch = scale[max(0, min(len(scale) - 1, near + step))]
    if strong:
        pitch = min((nearest(t, pitch) for t in chord.tones), key=lambda p: abs(p - pitch))
    return pitch


def _ornament(stage: Stage, part: Part, when: float, length: float) -> None:
    """Vibrato, a scoop or a fall on a longer note."""
    rng, score, channel = stage.rng, stage.score, part.channel
    kind = rng.random()
    if kind < 0.4:
        score.control(channel, when + length * 0.3, 1, rng.randrange(30, 110))
        score.control(channel, when + length, 1, 0)
        return
    for i in range(9):
        x = i / 8
        if kind < 0.75:
            score.bend(channel, when + 0.3 * x * min(1.0, length), -rng.choice((1, 2)) * (1 - x))
        else:
            score.bend(channel, when + length * (0.7 + 0.25 * x), -2 * x)
    score.bend(channel, when + length, 0)


def play_lead(stage: Stage, part: Part, section: Section, start: float) -> None:
    """A melody over a section's chords, from beat ``start`` on."""
    rng = stage.rng
    scale = section.key.pitches(part.centre - 14, part.centre + 16)
    legato = rng.uniform(0.6, 1.05)
    harmony = {"thirds": 2, "sixths": 5, "octaves": len(section.key.melodic)}.get(part.style, 0)
    for i, (motif, chord) in enumerate(
        zip(_phrase(stage, part, section), section.chords, strict=False)
    ):
        when = start + i * stage.beats
        if i % 4 == 3 and rng.random() < 0.25:
            continue  # breathe at the end of a phrase
        anchor = nearest(chord.root, part.centre)
        for beat, length, step in motif:
            strong = beat % 1 == 0 and (length >= 1 or beat == 0)
            pitch = _pitch(scale, chord, anchor, step, strong)
            if rng.random() < 0.03:
                stage.hit(part, when + beat, 0.12, pitch - 1, section.level * 0.7)
            stage.hit(part, when + beat, length * legato, pitch, section.level)
            if harmony:
                other = _pitch(scale, chord, anchor, step - harmony, strong)
                stage.hit(part, when + beat, length * legato, other, section.level * 0.85)
            if length >= 0.75 and rng.random() < 0.3:
                _ornament(stage, part, when + beat, length)


def play_counter(stage: Stage, part: Part, section: Section, start: float) -> None:
    """Slow answering line on chord tones, moving by the nearest tone."""
    rng = stage.rng
    pitch = part.centre
    for i, chord in enumerate(section.chords):
        when = start + i * stage.beats
        pieces = rng.choice((1, 1, 2, 2, 3))
        length = stage.beats / pieces
        for k in range(pieces):
            tone = nearest(rng.choice(chord.tones), pitch + rng.choice((-2, 0, 2)))
            pitch = max(part.centre - 12, min(part.centre + 12, tone))
            if pitch % 12 not in chord.tones:
                pitch = nearest(chord.root, pitch)
            if rng.random() > 0.12:
                stage.hit(part, when + k * length, length * 0.97, pitch, section.level * 0.85)


def play_voice(stage: Stage, part: Part, section: Section, start: float) -> None:
    """One line of a small ensemble: a chord tone, held, repeated or decorated."""
    rng = stage.rng
    scale = section.key.pitches(part.centre - 12, part.centre + 12)
    rhythm = rng.choice((1.0, 0.5, 2.0, stage.beats, stage.beats))
    for i, chord in enumerate(section.chords):
        when = start + i * stage.beats
        pitch = voicing(chord, part.centre, 3)[rng.randrange(3)]
        beat = 0.0
        while beat < stage.beats - 0.01:
            length = min(rhythm, stage.beats - beat)
            step = rng.choice((-1, 0, 0, 1))
            value = pitch if beat == 0 else _pitch(scale, chord, pitch, step, False)
            stage.hit(part, when + beat, length * 0.95, value, section.level * 0.9)
            beat += length
