"""Drum grooves of many genres, as step strings, with fills and humanised variation.

Drums are the hardest material for a low-rate codec (dense, noisy, transient), so they get
real genre patterns rather than random hits.
"""

from __future__ import annotations

import random

from training.score import DRUM_CHANNEL, Score

KITS = (0, 0, 0, 0, 8, 16, 24, 25, 32, 40, 48)
RARE_KIT = 56

KICK, RIM, SNARE, CLAP, HAT, PEDAL, OPEN = 36, 37, 38, 39, 42, 44, 46
LOW_TOM, MID_TOM, HIGH_TOM, CRASH, RIDE, BELL, TAMB, COWBELL = 41, 45, 48, 49, 51, 53, 54, 56
FLOOR = 43
BONGO_HI, BONGO_LO, CONGA_MUTE, CONGA, CONGA_LO, TIMBALE = 60, 61, 62, 63, 64, 65
AGOGO, CABASA, MARACAS, CLAVES, WOOD, SHAKER, TRIANGLE = 67, 69, 70, 75, 76, 82, 81

# A digit is the loudness of a hit on that sixteenth, '.' a rest.
GROOVES: dict[str, dict[int, str]] = {
    "rock": {KICK: "9.....5.9.......", SNARE: "....9.......9...", HAT: "7.5.7.5.7.5.7.5."},
    "rock2": {KICK: "9..4....9.9.....", SNARE: "....9..2.2..9..3", RIDE: "8.6.8.6.8.6.8.6."},
    "metal": {KICK: "9999999999999999", SNARE: "....9.......9...", CRASH: "8...8...8...8..."},
    "punk": {KICK: "9...9...9...9...", SNARE: "..9...9...9...9.", OPEN: "8.8.8.8.8.8.8.8."},
    "funk": {KICK: "9..5..6...7..5..", SNARE: "....9..3.3..9..2", HAT: "8585858585858585"},
    "disco": {KICK: "9...9...9...9...", SNARE: "....8.......8...", OPEN: "..8...8...8...8.",
              HAT: "6.......6......."},
    "house": {KICK: "9...9...9...9...", CLAP: "....8.......8...", OPEN: "..7...7...7...7.",
              SHAKER: "4353435343534353"},
    "techno": {KICK: "9...9...9...9...", HAT: "..8...8...8...8.", RIM: "...5..4....5..4.",
               COWBELL: "......3......4.."},
    "trance": {KICK: "9...9...9...9...", SNARE: "....8.......8...", OPEN: "..8...8...8...8.",
               HAT: "5.5.5.5.5.5.5.5.", RIDE: "..3...3...3...3."},
    "dnb": {KICK: "9.........8.....", SNARE: "....9..2.3..9...", HAT: "8.6.8.6.8.6.8.66"},
    "breakbeat": {KICK: "9.9.......99....", SNARE: "....9..4.4..9..4", RIDE: "8.8.8.8.8.8.8.8."},
    "hiphop": {KICK: "9......5..9.....", SNARE: "....9.......9...", HAT: "7.5.7.557.5.7.5."},
    "trap": {KICK: "9.....7...9.....", CLAP: "........9.......", HAT: "8.6.8.6.866686.8",
             OPEN: "..............5."},
    "halftime": {KICK: "9.....6.........", SNARE: "........9.......", HAT: "7...5...7...5...",
                 FLOOR: "..............5."},
    "reggae": {KICK: "........9.......", RIM: "........8.......", HAT: "6.8.6.8.6.8.6.8."},
    "ska": {KICK: "9.......9.......", SNARE: "....9.......9...", OPEN: "..7...7...7...7."},
    "bossa": {KICK: "8..58..58..58..5", RIM: "8.....8...8...8.", HAT: "5454545454545454"},
    "samba": {KICK: "8..79..78..79..7", TAMB: "8558855885588558", CONGA: "..6.6...6.66....",
              AGOGO: "7.7..7.7.7..7.7."},
    "salsa": {KICK: "...6....8..6....", COWBELL: "8...7.7.8...7.7.", CONGA: "..5...66..5...66",
              CLAVES: "8..8..8...8.8...", TIMBALE: "....5.......5..5"},
    "afro": {BELL: "8.8.88.8.8.88.8.", CONGA: "..66..6...66..6.", CONGA_LO: "8.....8.8.....8.",
             SHAKER: "6464646464646464", KICK: "9.....9...9....."},
    "swing": {RIDE: "8...8.6.8...8.6.", PEDAL: "....6.......6...", KICK: "4...3...4...3...",
              SNARE: "......2.......4."},
    "brushes": {HAT: "4.3.4.3.4.3.4.3.", SNARE: "3.243.243.243.24", PEDAL: "....4.......4..."},
    "shuffle": {KICK: "9.......9.....6.", SNARE: "....9.......9...", RIDE: "8...8.7.8...8.7."},
    "train": {KICK: "8...8...8...8...", SNARE: "4484448444844484"},
    "march": {KICK: "9.......9.......", SNARE: "7.668.667.668888", CRASH: "8..............."},
    "electro": {KICK: "9.....9...9..9..", SNARE: "....9.......9...", HAT: "7777777777777777",
                CLAP: "....5.......5..5"},
    "tribal": {LOW_TOM: "9..7..8...7..6..", MID_TOM: "..6..5..6...6.6.", KICK: "9.......9.......",
               MARACAS: "5.4.5.4.5.4.5.4."},
    "light": {SHAKER: "5.3.6.3.5.3.6.3.", RIM: "....5.......5...", TRIANGLE: "5..............."},
    "ballad": {KICK: "8.........6.....", RIM: "....7.......7...", HAT: "5.4.5.4.5.4.5.4."},
    "timpani": {KICK: "8...............", CRASH: "5...............", FLOOR: "......4.......46"},
    "latin_perc": {BONGO_HI: "7.557.557.557.55", BONGO_LO: "....6.......6...",
                   CABASA: "6.4.6.4.6.4.6.4.", WOOD: "5...5..5..5.5..."},
    "waltz": {KICK: "9...........", SNARE: "....6...6...", HAT: "5...5...5..."},
    "jazz_waltz": {RIDE: "8...8.6.8...", PEDAL: "....6.......", KICK: "5.......3..."},
    "six_rock": {KICK: "9.......5...", SNARE: "......9.....", HAT: "7.5.5.7.5.5."},
    "jig": {KICK: "8.....8.....", TAMB: "7.4.5.7.4.5.", RIM: "....4.....4."},
}  # fmt: skip
TRIPLE = ("waltz", "jazz_waltz", "six_rock", "jig")


def groove_for(rng: random.Random, names: tuple[str, ...], beats: float) -> dict[int, str]:
    """A groove fitted to the bar length, sometimes with a changed or added voice."""
    triple = abs(beats - 3) < 0.01
    fitting = [n for n in names if (n in TRIPLE) == triple]
    if not fitting:
        fitting = list(TRIPLE) if triple else [n for n in GROOVES if n not in TRIPLE]
    steps = max(1, round(beats * 4))
    groove = {}
    for voice, pattern in GROOVES[rng.choice(fitting)].items():
        groove[voice] = (pattern * 4)[:steps]
    if rng.random() < 0.35:
        voice = rng.choice((SHAKER, TAMB, COWBELL, CABASA, CLAP, CONGA, BONGO_HI, WOOD, RIDE))
        groove[voice] = "".join(rng.choice("....46") for _ in range(steps))
    if rng.random() < 0.03:
        groove[rng.randrange(35, 82)] = "".join(rng.choice(".....57") for _ in range(steps))
    return groove


def play_groove(score: Score, rng: random.Random, groove: dict[int, str], start: float,
                beats: float, level: float, thin: float) -> None:  # fmt: skip
    """One bar; `thin` is the chance of leaving out a weak hit."""
    for voice, pattern in groove.items():
        for step, mark in enumerate(pattern):
            when = step / 4
            if mark == "." or when >= beats:
                continue
            strength = int(mark)
            if strength < 7 and rng.random() < thin:
                continue
            velocity = level * (strength / 9) ** 0.8 * rng.uniform(0.88, 1.08)
            score.note(DRUM_CHANNEL, start + when, 0.2, voice, velocity)


def play_fill(score: Score, rng: random.Random, start: float, beats: float, level: float) -> None:
    """A tom or snare roll filling `beats`."""
    step = rng.choice((0.25, 0.25, 1 / 3, 0.5, 0.125))
    voices = rng.choice((
        (HIGH_TOM, MID_TOM, LOW_TOM, FLOOR), (SNARE,), (SNARE, HIGH_TOM, LOW_TOM), (KICK, SNARE),
        (TIMBALE, 66), (CONGA, CONGA_LO),
    ))  # fmt: skip
    count = max(1, int(beats / step))
    for i in range(count):
        voice = voices[min(len(voices) - 1, i * len(voices) // count)]
        velocity = level * (0.6 + 0.4 * i / count) * rng.uniform(0.85, 1.1)
        if rng.random() < 0.92:
            score.note(DRUM_CHANNEL, start + i * step, step, voice, velocity)
