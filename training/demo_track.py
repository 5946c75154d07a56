"""Makes the bundled demonstration track: a short song with a written tune and form.

The demo needs music that is pleasant, free of anyone's rights and reproducible. Harmony and
melody are written out here; the accompaniment uses the composer's players with a fixed seed.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from training.drums import CRASH, GROOVES, play_fill, play_groove
from training.filters import RATE, apply, bell, highpass, reverb_tail, shelf
from training.filters import convolve as convolve_with
from training.master import limit, normalise
from training.parts import Part, Player, Section, Stage, play_arp, play_bass, play_comp, play_pad
from training.render import MissingToolError, find_soundfonts, synthesize
from training.score import DRUM_CHANNEL, Score
from training.theory import PARENT_SCALES, Key, make_chord

Audio = NDArray[np.float32]
Tune = tuple[tuple[tuple[float, float, int], ...], ...]  # bars of (beat, length, pitch)

SEED = 350
BPM = 104.0
BARS = 32
LEVEL_DB = -16.0
OUT = Path(__file__).resolve().parent.parent / "streaming" / "data" / "demo.ogg"

VERSE: Tune = (
    ((0, 1.5, 76), (1.5, 0.5, 74), (2, 1, 72), (3, 1, 69)),
    ((0, 1, 72), (1, 0.5, 69), (1.5, 0.5, 72), (2, 2, 77)),
    ((0, 1.5, 76), (1.5, 0.5, 79), (2, 1, 76), (3, 1, 74)),
    ((0, 2, 74), (2, 1, 71), (3, 1, 67)),
    ((0, 0.5, 69), (0.5, 0.5, 72), (1, 1.5, 76), (2.5, 0.5, 74), (3, 1, 72)),
    ((0, 1.5, 72), (1.5, 0.5, 74), (2, 1, 76), (3, 1, 77)),
    ((0, 2, 79), (2, 1, 76), (3, 1, 72)),
    ((0, 3, 74),),
)
CHORUS: Tune = (
    ((0, 1.5, 81), (1.5, 0.5, 79), (2, 1, 77), (3, 1, 76)),
    ((0, 1.5, 79), (1.5, 0.5, 77), (2, 1, 74), (3, 0.5, 76), (3.5, 0.5, 77)),
    ((0, 1.5, 79), (1.5, 0.5, 76), (2, 2, 71)),
    ((0, 1, 72), (1, 1, 76), (2, 1.5, 81), (3.5, 0.5, 79)),
    ((0, 1.5, 77), (1.5, 0.5, 76), (2, 1, 77), (3, 1, 81)),
    ((0, 1, 83), (1, 1, 79), (2, 1.5, 74), (3.5, 0.5, 79)),
    ((0, 2.5, 76), (2.5, 0.5, 74), (3, 1, 72)),
    ((0, 3, 79),),
)
BRIDGE: Tune = (
    ((0, 2, 77), (2, 1, 76), (3, 1, 74)),
    ((0, 2, 79), (2, 1, 76), (3, 1, 71)),
    ((0, 1.5, 72), (1.5, 1.5, 77), (3, 1, 81)),
    ((0, 2, 79), (2, 0.5, 74), (2.5, 0.5, 76), (3, 0.5, 77), (3.5, 0.5, 79)),
)


@dataclass(frozen=True)
class Voice:
    """An accompanying part: what plays it and how it sits in the mix."""

    player: Player
    program: int
    centre: int
    velocity: float
    style: str
    density: float
    volume: int
    pan: int


VOICES: dict[str, Voice] = {
    "bass": Voice(play_bass, 33, 36, 100, "dotted", 0.0, 108, 64),
    "pad": Voice(play_pad, 89, 60, 70, "long", 0.4, 84, 58),
    "strings": Voice(play_pad, 48, 64, 78, "bars", 0.5, 88, 72),
    "choir": Voice(play_pad, 52, 60, 74, "bars", 0.3, 84, 64),
    "epiano": Voice(play_comp, 4, 60, 78, "charleston", 0.3, 88, 74),
    "guitar": Voice(play_comp, 25, 57, 70, "strum", 0.5, 78, 46),
    "piano": Voice(play_comp, 0, 62, 80, "broken", 0.4, 96, 68),
    "arp": Voice(play_arp, 11, 69, 66, "updown", 0.3, 84, 84),
}
TUNES: dict[str, tuple[int, float]] = {"flute": (73, 92), "sax": (65, 84), "synth": (81, 46)}


@dataclass(frozen=True)
class Verse:
    """A section of the song: harmony as scale degrees of C major, tune and who plays."""

    degrees: tuple[int, ...]
    kind: str
    level: float
    voices: tuple[str, ...]
    tune: Tune
    leads: tuple[str, ...]
    groove: str


_VERSE = (5, 3, 0, 4, 5, 3, 0, 4)
_CHORUS = (3, 4, 2, 5, 3, 4, 0, 0)
_FULL = ("bass", "strings", "guitar", "epiano", "arp")
_QUIET = ("piano", "choir", "strings")
SONG: tuple[Verse, ...] = (
    Verse((5, 3, 0, 4), "seventh", 1.2, ("pad", "arp", "epiano", "strings"), (), (), "light"),
    Verse(_VERSE, "triad", 0.88, ("bass", "pad", "epiano", "guitar"), VERSE, ("flute",), "hiphop"),
    Verse(_CHORUS, "triad", 1.05, _FULL, CHORUS, ("sax", "synth"), "rock2"),
    Verse((1, 2, 3, 4), "seventh", 1.15, _QUIET, BRIDGE, ("flute",), "light"),
    Verse(_CHORUS[:7], "triad", 1.08, (*_FULL, "choir"), CHORUS[:7], ("sax", "synth"), "rock2"),
)  # fmt: skip


def build_score() -> tuple[Score, random.Random]:
    """The piece as notes, and the generator that it was drawn from."""
    rng = random.Random(SEED)
    score = Score(BPM, swing=0.08, swing_unit=0.25)
    stage = Stage(score, rng, beats=4.0, human=0.07)
    key = Key(0, PARENT_SCALES["major"], PARENT_SCALES["major"])
    channels = _channels(score)
    now = 0.0
    for verse in SONG:
        chords = [make_chord(key, d, verse.kind) for d in verse.degrees]
        section = Section("song", chords, key, verse.level)
        for name in verse.voices:
            voice = VOICES[name]
            part = Part(channels[name], "accompaniment", voice.program, voice.centre,
                        voice.velocity, voice.style, voice.density)  # fmt: skip
            voice.player(stage, part, section, now)
        for lead in verse.leads:
            _play_tune(stage, channels[lead], TUNES[lead][1] * verse.level, verse.tune, now)
        _play_drums(stage, verse, now)
        now += 4.0 * len(chords)
    _last_chord(stage, channels, now)
    return score, rng


def _channels(score: Score) -> dict[str, int]:
    """Assign channels and set sound, volume, position and reverb."""
    free = [c for c in range(16) if c != DRUM_CHANNEL]
    channels = dict(zip([*VOICES, *TUNES], free, strict=False))
    for name, channel in channels.items():
        voice = VOICES.get(name)
        score.program(channel, voice.program if voice else TUNES[name][0])
        score.control(channel, 0.0, 7, voice.volume if voice else 104)
        score.control(channel, 0.0, 10, voice.pan if voice else 64)
        score.control(channel, 0.0, 91, 20 if name == "bass" else 55)
        score.jitter[channel] = 0.004
    score.program(DRUM_CHANNEL, 8)
    score.control(DRUM_CHANNEL, 0.0, 7, 104)
    score.control(DRUM_CHANNEL, 0.0, 91, 30)
    return channels


def _play_tune(stage: Stage, channel: int, velocity: float, tune: Tune, start: float) -> None:
    for bar, notes in enumerate(tune):
        for beat, length, pitch in notes:
            when = start + 4 * bar + beat
            accent = 1.05 if beat in (0, 2) else 0.93
            stage.score.note(channel, when, length * 0.95, pitch, velocity * accent)
            if length >= 1.5:
                stage.score.control(channel, when + 0.5, 1, 50)
                stage.score.control(channel, when + length, 1, 0)


def _play_drums(stage: Stage, verse: Verse, start: float) -> None:
    level = 96 * min(1.0, verse.level)
    if verse.groove == "rock2":
        stage.score.note(DRUM_CHANNEL, start, 1.0, CRASH, 96)
    for bar in range(len(verse.degrees)):
        last = bar == len(verse.degrees) - 1
        fill = 1.0 if last and verse.groove != "light" else 0.0
        when = start + 4 * bar
        play_groove(stage.score, stage.rng, GROOVES[verse.groove], when, 4 - fill, level, 0.0)
        if fill:
            play_fill(stage.score, stage.rng, when + 4 - fill, fill, level)


def _last_chord(stage: Stage, channels: dict[str, int], start: float) -> None:
    """One bar that rings out, so that the loop's seam falls into near silence."""
    for name, pitches in (("bass", (36,)), ("epiano", (60, 64, 67)), ("strings", (55, 64, 72)),
                          ("arp", (84,)), ("guitar", (52, 55, 60)), ("flute", (79,))):  # fmt: skip
        for i, pitch in enumerate(pitches):
            stage.score.note(channels[name], start + 0.04 * i, 2.2, pitch, 84)
    stage.score.note(DRUM_CHANNEL, start, 1.0, CRASH, 80)
    stage.score.note(DRUM_CHANNEL, start, 0.3, 36, 100)


def finish(audio: Audio) -> Audio:
    """Trim to whole bars, warm up the tone, narrow the stereo image and set the level."""
    frames = round(BARS * 4 * 60 / BPM * RATE)
    audio = np.pad(audio, ((0, max(0, frames - len(audio))), (0, 0)))[:frames]
    warm = [highpass(28), shelf(160, 7), bell(450, -1.5, 0.9), shelf(7000, 1.5, high=True)]
    audio = apply(np.concatenate(warm), audio)
    rng = np.random.default_rng(SEED)
    audio = audio + np.float32(0.06) * convolve_with(audio, reverb_tail(rng, 0.9))
    mid, side = audio.mean(axis=1), (audio[:, 0] - audio[:, 1]) * np.float32(0.2)
    audio = np.stack([mid + side, mid - side], axis=1)
    ramp, release = int(0.004 * RATE), int(0.7 * RATE)
    audio[:ramp] *= np.linspace(0, 1, ramp, dtype=np.float32)[:, None]
    audio[-release:] *= np.linspace(1, 0, release, dtype=np.float32)[:, None] ** 2
    # Headroom after the limiter, because lossy encoding moves peaks.
    return limit(normalise(audio, 10 ** ((LEVEL_DB + 1) / 20))) * np.float32(10 ** (-1 / 20))


def render_demo() -> Audio:
    """The piece as sound, float32 ``[samples, 2]``."""
    score, rng = build_score()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "demo.mid"
        score.to_midi(rng, tail_beats=4.0).save(path)
        return finish(synthesize(path, find_soundfonts()[0][0]))


def write_ogg(path: Path, audio: Audio) -> None:
    """Vorbis, in blocks: the encoder overflows its stack on one very long write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(path, "w", RATE, 2, format="OGG", subtype="VORBIS") as file:
        for first in range(0, len(audio), RATE):
            file.write(audio[first : first + RATE])


def main(argv: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(description="Render the bundled demonstration track.")
    parser.add_argument("--out", type=Path, default=OUT, help="OGG file to write")
    args = parser.parse_args(argv)
    try:
        audio = render_demo()
    except MissingToolError as error:
        print(error, file=sys.stderr)
        return 2
    write_ogg(args.out, audio)
    print(f"{args.out}: {len(audio) / RATE:.1f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
