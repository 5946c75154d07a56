"""Sources that are no ordinary music, through sender, codec and listener: sane sound comes out."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

import codec
from benchmarks.metrics import level_difference_db
from streaming.audio.sinks import FileSink
from streaming.audio.sources import Playlist
from streaming.receive.output import Output
from streaming.send.sender import PacedSource, Sender
from streaming.stream.hub import Hub
from streaming.support.worker import Worker
from streaming.wire.messages import Join, StreamInfo
from tests.support.listening import MemorySink, Script, play, scripted
from tests.support.rendition import MOST_LEVEL_DIFFERENCE_DB, SONGS, heard, sent

Audio = NDArray[np.float32]

RATE = 48_000
MOST_MAGNITUDE = 2.0
LOUDEST_SILENCE = 0.003  # -50 dB
NAMES = ["mono", "antiphase", "silence", "clipping", "not finite"]


@dataclass
class Odd:
    """A source, the sound that came of it, and that sound as a file has it; edges cut off."""

    source: Audio
    sound: Audio
    written: Audio


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Odd]:
    """All sources, three seconds each, one after the other in one stream."""
    folder = tmp_path_factory.mktemp("odd")
    music = heard(SONGS[0])[:, RATE : 4 * RATE].T
    mono = music.mean(axis=1)
    broken = music.copy()
    broken[::1000] = np.nan
    broken[30_000:40_000, 0] = np.inf
    opposite = np.stack([mono, -mono], axis=1)
    songs = [folder / f"{name}.wav" for name in NAMES]
    sources = (mono, opposite, np.zeros_like(music), 20 * music, broken)
    for song, audio in zip(songs, sources, strict=True):
        soundfile.write(song, audio, RATE, subtype="FLOAT")

    sound = asyncio.run(stream(songs, folder / "out.wav"))
    source, written = sent(songs, 0, len(songs) * 3 * RATE), heard(folder / "out.wav")
    assert sound.shape == written.shape == source.shape
    inside = [
        slice(start + RATE // 2, start + 5 * RATE // 2) for start in range(0, 15 * RATE, 3 * RATE)
    ]
    return {
        name: Odd(source[:, part], sound[:, part], written[:, part])
        for name, part in zip(NAMES, inside, strict=True)
    }


async def stream(songs: list[Path], out: Path) -> Audio:
    """All that lies between source and sinks but real time and sockets, into `out` and an array."""
    torch.set_num_threads(1)
    nano = codec.load("nano")
    hub = Hub(StreamInfo(nano.name, nano.weights, nano.digest, 0, packet_tokens=48), max_lag_s=1e9)
    outbox = hub.join(Join(), 0.0)
    now_s = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds
        await asyncio.sleep(0)

    source, worker = PacedSource(Playlist(songs), lambda: now_s, sleep), Worker("encoder")
    await source.open()
    await Sender(source, nano, hub, worker).run()
    await source.close()
    await worker.close()
    sink = MemorySink()
    script = Script(then="silence")
    while (message := outbox.take()) is not None:
        script.add(message)
    await play(scripted(Output([sink, FileSink(out)]), script, codec=nano))
    return sink.sound


@pytest.mark.parametrize("name", NAMES)
def test_sound_is_sane_whatever_the_source(odd: dict[str, Odd], name: str) -> None:
    part = odd[name]
    assert np.isfinite(part.sound).all()
    assert np.abs(part.sound).max() < MOST_MAGNITUDE
    # Clipped in the file at worst, never wrapped.
    assert np.abs(part.written - np.clip(part.sound, -1, 1)).max() < 2 / 32_768


@pytest.mark.parametrize("name", [name for name in NAMES if name != "silence"])
def test_level_is_that_of_the_source(odd: dict[str, Odd], name: str) -> None:
    source, sound = torch.from_numpy(odd[name].source), torch.from_numpy(odd[name].sound)
    assert abs(level_difference_db(source, sound)) <= MOST_LEVEL_DIFFERENCE_DB


def test_silence_stays_silent(odd: dict[str, Odd]) -> None:
    assert np.sqrt(np.mean(odd["silence"].sound ** 2)) < LOUDEST_SILENCE


def test_mono_stays_near_the_middle(odd: dict[str, Odd]) -> None:
    left, right = odd["mono"].sound
    assert np.linalg.norm(left - right) < 0.6 * np.linalg.norm(left + right)
