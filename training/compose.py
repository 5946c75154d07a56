"""Procedural composer: one seed, one complete piece as a MIDI file.

The codec must generalise to music nobody saw in training, so breadth matters more than beauty:
styles, meters, modes, instruments, dynamics and tunings are all drawn at random, while forms,
motifs and grooves repeat as they do in real music.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import mido

from training.drums import CRASH, KITS, RARE_KIT, groove_for, play_fill, play_groove
from training.melody import play_counter, play_lead, play_voice
from training.parts import (
    ARP_STYLES,
    BASS_STYLES,
    COMP_STYLES,
    Part,
    Player,
    Section,
    Stage,
    play_arp,
    play_bass,
    play_comp,
    play_drone,
    play_effect,
    play_pad,
    play_stab,
)
from training.score import DRUM_CHANNEL, Score
from training.styles import POOLS, STYLES, Slot, Style
from training.theory import make_key, make_progression

SECONDS = 75.0

PLAYERS: dict[str, Player] = {
    "bass": play_bass,
    "pad": play_pad,
    "comp": play_comp,
    "arp": play_arp,
    "lead": play_lead,
    "counter": play_counter,
    "voice": play_voice,
    "stab": play_stab,
    "drone": play_drone,
    "effect": play_effect,
}
# Centre pitch and its spread, and base velocity, per role.
RANGES: dict[str, tuple[int, int, int]] = {
    "bass": (37, 4, 98),
    "pad": (59, 7, 72),
    "comp": (60, 6, 82),
    "arp": (66, 9, 78),
    "lead": (73, 7, 98),
    "counter": (64, 7, 82),
    "voice": (60, 10, 84),
    "stab": (64, 6, 100),
    "drone": (44, 9, 80),
    "effect": (60, 12, 70),
}
FORMS = ("iAABAo", "iABABCBo", "AABBAA", "iAABCABo", "ABAC", "iAAAAo", "ABCD", "iABo", "A")
EXTRA_SLOTS: tuple[Slot, ...] = (
    ("pad", "strings", 1), ("arp", "synlead", 1), ("comp", "clean", 1), ("pad", "choir", 1),
    ("stab", "brass", 1), ("counter", "wind", 1), ("comp", "drive", 1), ("lead", "any", 1),
)  # fmt: skip


@dataclass
class Plan:
    """The draw for a whole piece, made before any note is written."""

    style: Style
    beats: float
    bpm: float
    texture: str
    parts: list[Part]
    drums: bool
    sections: list[Section]


def guest_program(seed: int) -> int:
    """The program a piece must feature: consecutive seeds walk through all 128."""
    return (seed * 37 + 11) % 128


def compose(seed: int) -> mido.MidiFile:
    """The piece of this seed, about 75 seconds long."""
    rng = random.Random(f"piece {seed}")
    plan = _plan(rng, seed)
    score = Score(plan.bpm)
    if plan.style.swing and rng.random() < 0.85:
        score.swing = plan.style.swing * rng.uniform(0.6, 1.1)
    elif not plan.style.machine and rng.random() < 0.06:
        score.swing = rng.uniform(0.1, 0.33)
    score.swing_unit = plan.style.swing_unit
    human = 0.02 if plan.style.machine else rng.uniform(0.03, 0.18)
    stage = Stage(score, rng, plan.beats, human)
    _set_up_channels(stage, plan)
    end = _play(stage, plan)
    if plan.style.rubato and rng.random() < 0.7:
        _rubato(score, rng, plan, end)
    return score.to_midi(rng, tail_beats=plan.bpm / 60 * 2.0)


def _plan(rng: random.Random, seed: int) -> Plan:
    style = rng.choices(STYLES, [s.weight for s in STYLES])[0]
    texture = rng.choices(("normal", "sparse", "dense"), (70, 15, 15))[0]
    beats = rng.choice(style.meters)
    bpm = rng.uniform(*style.tempo)
    if rng.random() < 0.1:
        bpm *= rng.uniform(0.8, 1.2)
    bpm = max(50.0, min(195.0, bpm))
    parts = _parts(rng, style, texture, seed)
    chance = {"normal": 0.9, "sparse": 0.25, "dense": 1.0}[texture]
    drums = bool(style.grooves) and (rng.random() < chance or not parts)
    sections = _form(rng, style, beats, bpm, parts)
    return Plan(style, beats, bpm, texture, parts, drums, sections)


def _parts(rng: random.Random, style: Style, texture: str, seed: int) -> list[Part]:
    slots = [s for s in style.slots if texture == "dense" or rng.random() < s[2]]
    if texture == "dense" and slots:
        slots += rng.sample(EXTRA_SLOTS, rng.randrange(2, 6))
    if texture == "sparse" and slots:
        slots = rng.sample(slots, min(len(slots), rng.choice((1, 2))))
    channels = [c for c in range(16) if c != DRUM_CHANNEL]
    parts = [_part(rng, style, slot, c) for slot, c in zip(slots, channels, strict=False)]
    if parts:
        _invite_guest(rng, parts, guest_program(seed))
    return parts


def _part(rng: random.Random, style: Style, slot: Slot, channel: int) -> Part:
    role, pool, _ = slot
    program = rng.choice(POOLS[pool]) if pool != "any" else rng.randrange(120)
    if rng.random() < 0.08:
        program = rng.randrange(120)
    centre, spread, velocity = RANGES[role]
    wild = rng.random() < 0.08
    choices = {
        "bass": BASS_STYLES if wild else style.bass,
        "comp": COMP_STYLES if wild else style.comp,
        "arp": ARP_STYLES,
        "pad": ("long", "long", "bars"),
        "lead": ("solo", "solo", "solo", "solo", "thirds", "sixths", "octaves"),
    }.get(role, ("plain",))
    return Part(channel, role, program, round(rng.gauss(centre, spread / 2)),
                velocity * rng.uniform(0.8, 1.15), rng.choice(choices), rng.random())  # fmt: skip


def _invite_guest(rng: random.Random, parts: list[Part], program: int) -> None:
    """Give one part the guest's sound, so that rare programs are heard as well."""
    part = rng.choice([p for p in parts if p.role != "bass"] or parts)
    part.program = program
    if program >= 120 and len(parts) > 1:  # alone, it would be an almost empty piece
        part.role, part.style = "effect", "plain"
    elif 32 <= program < 40 and rng.random() < 0.7:
        part.role, part.style, part.centre = "bass", rng.choice(BASS_STYLES), 36


def _form(rng: random.Random, style: Style, beats: float, bpm: float,
          parts: list[Part]) -> list[Section]:  # fmt: skip
    """Sections filling the wanted duration; a letter always brings back the same music."""
    key = make_key(rng, style.scales)
    total = max(4, round(SECONDS * bpm / 60 / beats))
    form = rng.choice(FORMS)
    length = rng.choice((4, 8, 8)) if total >= 24 else 4
    chromatic = rng.choice((0.0, 0.0, 0.05, 0.25))
    harmony = {
        letter: make_progression(rng, key, length, style.chords, chromatic)
        for letter in sorted(set(form))
    }
    base = rng.uniform(0.75, 1.05)
    masks = {letter: _mask(rng, letter, parts) for letter in harmony}
    levels = {letter: base * rng.uniform(0.7, 1.1) for letter in harmony}
    modulation = rng.choice((0, 0, 0, 1, 2, 5, -2))
    sections: list[Section] = []
    bars = 0
    while bars < total:
        for letter in form:
            if bars >= total:
                break
            step = modulation if bars > total * 0.6 else 0
            chords = [type(c)(tuple((t + step) % 12 for t in c.tones)) for c in harmony[letter]]
            chords = chords[: total - bars]
            mask = masks[letter] if rng.random() < 0.7 else _mask(rng, letter, parts)
            sections.append(Section(letter, chords, key.moved(step), levels[letter], mask))
            bars += len(chords)
    return sections


def _mask(rng: random.Random, letter: str, parts: list[Part]) -> set[int]:
    """Which channels play; intros and outros are thinner."""
    chance = {"i": 0.45, "o": 0.5, "C": 0.65}.get(letter, 0.85)
    active = {p.channel for p in parts if rng.random() < chance}
    drum_chance = {"i": 0.5, "o": 0.6, "C": 0.7}.get(letter, 0.93)
    if rng.random() < drum_chance or not parts:
        active.add(DRUM_CHANNEL)
    if parts and not active - {DRUM_CHANNEL}:
        active.add(rng.choice(parts).channel)
    return active


def _set_up_channels(stage: Stage, plan: Plan) -> None:
    rng, score = stage.rng, stage.score
    cents = rng.uniform(-50, 50) if rng.random() < 0.3 else 0.0
    reverb = rng.uniform(0, 90)
    spread = rng.choice((0.0, 10.0, 10.0, 18.0, 40.0))
    tight = plan.style.machine
    for part in plan.parts:
        channel = part.channel
        score.program(channel, part.program)
        if cents:
            score.fine_tune(channel, cents)
        volume = rng.gauss(96, 14) if part.program < 120 else rng.uniform(50, 80)
        pan = 64 + (0 if part.role == "bass" else rng.gauss(0, spread))
        score.control(channel, 0.0, 7, max(40, volume))
        score.control(channel, 0.0, 10, pan)
        score.control(channel, 0.0, 91, reverb * rng.uniform(0.4, 1.3))
        score.control(channel, 0.0, 93, rng.choice((0, 0, 10, 30, 70)))
        score.jitter[channel] = 0.0 if tight else rng.uniform(0.0, 0.012)
        if plan.style.pedal and rng.random() < 0.85:
            _pedal(stage, plan, channel)
    kit = rng.choice(plan.style.kits) if rng.random() < 0.75 else rng.choice(KITS)
    score.program(DRUM_CHANNEL, RARE_KIT if rng.random() < 0.01 else kit)
    score.control(DRUM_CHANNEL, 0.0, 7, max(50, rng.gauss(100, 14)))
    score.control(DRUM_CHANNEL, 0.0, 91, reverb * rng.uniform(0.1, 0.8))
    score.jitter[DRUM_CHANNEL] = 0.0 if tight else rng.uniform(0.0, 0.008)


def _pedal(stage: Stage, plan: Plan, channel: int) -> None:
    bars = sum(len(s.chords) for s in plan.sections)
    for bar in range(bars):
        stage.score.control(channel, bar * plan.beats + 0.05, 64, 127)
        stage.score.control(channel, (bar + 1) * plan.beats - 0.05, 64, 0)


def _play(stage: Stage, plan: Plan) -> float:
    """Play all sections one after another; returns the end in beats."""
    rng = stage.rng
    now = 0.0
    grooves = {s.name: groove_for(rng, plan.style.grooves or ("rock",), plan.beats)
               for s in plan.sections}  # fmt: skip
    level = rng.uniform(70, 118)
    thin = rng.choice((0.0, 0.1, 0.3))
    for section in plan.sections:
        for part in plan.parts:
            if part.channel in section.active:
                PLAYERS[part.role](stage, part, section, now)
                if rng.random() < 0.1:
                    _crescendo(stage, part, section, now)
        if plan.drums and DRUM_CHANNEL in section.active:
            _drum_section(stage, section, grooves[section.name], now, level, thin)
        now += len(section.chords) * plan.beats
        if rng.random() < 0.05:
            now += plan.beats * rng.choice((0.5, 1, 1))  # a general pause
    return now


def _crescendo(stage: Stage, part: Part, section: Section, start: float) -> None:
    length = len(section.chords) * stage.beats
    low = stage.rng.randrange(30, 90)
    first, last = (low, 120) if stage.rng.random() < 0.6 else (120, low)
    for i in range(25):
        value = first + (last - first) * i / 24
        stage.score.control(part.channel, start + length * i / 24, 11, value)
    stage.score.control(part.channel, start + length, 11, 115)


def _drum_section(stage: Stage, section: Section, groove: dict[int, str], start: float,
                  level: float, thin: float) -> None:  # fmt: skip
    rng, beats = stage.rng, stage.beats
    bars = len(section.chords)
    if rng.random() < 0.5:
        stage.score.note(DRUM_CHANNEL, start, 1.0, CRASH, level * section.level)
    for bar in range(bars):
        when = start + bar * beats
        loud = level * section.level
        fill = 0.0
        if bar == bars - 1 and rng.random() < 0.7:
            fill = min(beats, rng.choice((0.5, 1.0, 1.0, 2.0, beats)))
        elif bar % 4 == 3 and rng.random() < 0.2:
            fill = min(beats, 1.0)
        play_groove(stage.score, rng, groove, when, beats - fill, loud, thin)
        if fill:
            play_fill(stage.score, rng, when + beats - fill, fill, loud)


def _rubato(score: Score, rng: random.Random, plan: Plan, end: float) -> None:
    """Breathe with the tempo and slow down at the end."""
    depth = rng.uniform(0.01, 0.08)
    beat, drift = 0.0, 1.0
    while beat < end:
        drift = 1 + (drift - 1) * 0.7 + rng.gauss(0, depth)
        slow = 0.75 if end - beat < plan.beats else 1.0
        score.tempi.append((beat, plan.bpm * max(0.7, min(1.3, drift)) * slow))
        beat += plan.beats / 2
