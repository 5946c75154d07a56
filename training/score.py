"""A small score: notes and controllers in beats, written out as a MIDI file.

Composing in beats keeps the pattern code readable; swing, human timing and the clean-up of
overlapping notes are applied once, here, when the score becomes MIDI ticks.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import mido

TICKS = 480
DRUM_CHANNEL = 9


@dataclass
class Note:
    """A note: beats for times, MIDI numbers for the rest."""

    channel: int
    start: float
    length: float
    pitch: int
    velocity: int


@dataclass
class Score:
    """Everything a piece contains before it is turned into MIDI."""

    bpm: float
    swing: float = 0.0
    swing_unit: float = 0.5
    notes: list[Note] = field(default_factory=list)
    controls: list[tuple[float, mido.Message]] = field(default_factory=list)
    tempi: list[tuple[float, float]] = field(default_factory=list)
    jitter: dict[int, float] = field(default_factory=dict)

    def note(self, channel: int, start: float, length: float, pitch: float, vel: float) -> None:
        """Add a note; one before the start or without a length is left out."""
        if start < 0 or length <= 0:
            return
        value = int(pitch)
        while value > 120:
            value -= 12
        while value < 12:
            value += 12
        velocity = max(8, min(127, int(vel)))
        self.notes.append(Note(channel, start, length, value, velocity))

    def control(self, channel: int, when: float, number: int, value: float) -> None:
        """Add a controller's change."""
        message = mido.Message(
            "control_change", channel=channel, control=number, value=max(0, min(127, int(value)))
        )
        self.controls.append((max(0.0, when), message))

    def bend(self, channel: int, when: float, semitones: float, reach: float = 2.0) -> None:
        """Add a pitch bend; ``reach`` is the instrument's range in semitones."""
        value = max(-8192, min(8191, int(8192 * semitones / reach)))
        message = mido.Message("pitchwheel", channel=channel, pitch=value)
        self.controls.append((max(0.0, when), message))

    def program(self, channel: int, number: int) -> None:
        """Choose a channel's instrument."""
        self.controls.append((0.0, mido.Message("program_change", channel=channel, program=number)))

    def fine_tune(self, channel: int, cents: float) -> None:
        """Registered parameter 1: the whole channel off standard pitch."""
        value = max(0, min(16383, int(8192 + 8192 * cents / 100)))
        for number, data in ((101, 0), (100, 1), (6, value >> 7), (38, value & 127)):
            self.control(channel, 0.0, number, data)

    def _swung(self, beat: float) -> float:
        if not self.swing:
            return beat
        pair = 2 * self.swing_unit
        whole, rest = divmod(beat, pair)
        middle = self.swing_unit * (1 + self.swing)
        if rest < self.swing_unit:
            warped = rest * middle / self.swing_unit
        else:
            warped = middle + (rest - self.swing_unit) * (pair - middle) / self.swing_unit
        return whole * pair + warped

    def _timed(self, rng: random.Random, note: Note) -> Note:
        """The note with swing and human timing."""
        shift = rng.gauss(0.0, self.jitter.get(note.channel, 0.0)) * self.bpm / 60
        start = max(0.0, self._swung(note.start) + shift)
        length = max(0.03, self._swung(note.start + note.length) + shift - start)
        return Note(note.channel, start, length, note.pitch, note.velocity)

    def to_midi(self, rng: random.Random, tail_beats: float) -> mido.MidiFile:
        """Write all events to one track, sorted; note-offs sort before note-ons."""
        events: list[tuple[int, int, mido.Message | mido.MetaMessage]] = []
        last = 0
        for note in _without_overlaps([self._timed(rng, note) for note in self.notes]):
            start = round(note.start * TICKS)
            end = max(start + 1, round((note.start + note.length) * TICKS))
            where = {"channel": note.channel, "note": note.pitch}
            # Values were limited in `note`; mido's own checks would take most of the time.
            on = mido.Message("note_on", skip_checks=True, velocity=note.velocity, **where)
            off = mido.Message("note_off", skip_checks=True, velocity=64, **where)
            events += [(start, 3, on), (end, 1, off)]
            last = max(last, end)
        for when, message in self.controls:
            order = 0 if message.type == "program_change" else 2
            events.append((round(self._swung(when) * TICKS), order, message))
        for when, bpm in [(0.0, self.bpm), *self.tempi]:
            tempo = mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(max(20.0, bpm)))
            events.append((round(when * TICKS), 0, tempo))
        return _to_file(events, last + round(tail_beats * TICKS))


def _without_overlaps(notes: list[Note]) -> list[Note]:
    """Cut a note at the next start of the same pitch; its note-off would end both."""
    following: dict[tuple[int, int], float] = {}
    kept = []
    for note in sorted(notes, key=lambda n: (-n.start, n.channel, n.pitch)):
        limit = following.get((note.channel, note.pitch))
        following[(note.channel, note.pitch)] = note.start
        length = note.length if limit is None else min(note.length, limit - note.start - 0.02)
        if length > 0.01:
            kept.append(Note(note.channel, note.start, length, note.pitch, note.velocity))
    kept.reverse()
    return kept


def _to_file(
    events: list[tuple[int, int, mido.Message | mido.MetaMessage]], end: int
) -> mido.MidiFile:
    events.sort(key=lambda e: (e[0], e[1]))
    track = mido.MidiTrack()
    now = 0
    for tick, _, message in events:
        message.time = max(0, tick - now)
        track.append(message)
        now = max(now, tick)
    track.append(mido.MetaMessage("end_of_track", time=max(0, end - now)))
    midi = mido.MidiFile(ticks_per_beat=TICKS)
    midi.tracks.append(track)
    return midi
