"""What a page hands to the audio thread is, sample by sample, what ``client.py --out`` writes."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from benchmarks.metrics import signal_to_noise_db
from codec.constants import SAMPLE_RATE
from tests.streaming.web.test_player_export import SAMPLES, page, write_song  # noqa: F401
from tests.streaming.web.test_player_page import Player, player, station  # noqa: F401
from tests.support.browser import browser  # noqa: F401
from tests.support.firefox import firefox, pulse  # noqa: F401
from tests.support.programs import Programs, programs  # noqa: F401

pytestmark = pytest.mark.system

Sound = NDArray[np.float32]

# Between the decoder and the audio thread sits the page's own thread, and keeps what passes since
# the decoder last began anew.
TAP = """
const Direct = window.MessageChannel;
window.tapped = [];
window.MessageChannel = class {
  constructor() {
    const [decoder, sound] = [new Direct(), new Direct()];
    sound.port1.onmessage = ({ data }) => decoder.port1.postMessage(data);
    decoder.port1.onmessage = ({ data }) => {
      if (data.flush) window.tapped = [];
      if (data.pcm) window.tapped.push(data.pcm);
      sound.port1.postMessage(data);
    };
    this.port1 = sound.port2;
    this.port2 = decoder.port2;
  }
};
"""
LENGTH = "return window.tapped.reduce((sum, pcm) => sum + pcm.length / 2, 0)"
READ = """
const bytes = new Uint8Array(await new Blob(window.tapped).arrayBuffer());
let text = "";
for (const byte of bytes) text += String.fromCharCode(byte);
return btoa(text);
"""


def tapped(player: Player, samples: int) -> Sound:  # noqa: F811
    """At least so much of what the page plays, float32 ``[2, n]``."""
    player.until(lambda: player.page.value(LENGTH) >= samples)
    pcm = np.frombuffer(base64.b64decode(player.page.value(READ)), "<i2")
    sound: Sound = (pcm.reshape(-1, 2).T / 32767).astype(np.float32)
    return sound


def written(programs: Programs, out: Path, url: object, *limits: object) -> Sound:  # noqa: F811
    """What ``client.py`` writes into a file, float32 ``[2, n]``."""
    client = programs.start("listener", "client.py", url, *limits, "--out", out)
    assert client.ends() == 0, client.log
    sound: Sound = soundfile.read(out, dtype="float32")[0].T
    return sound


def place_of(part: Sound, whole: Sound) -> int:
    """Where ``part`` fits best into ``whole``, in samples."""
    size = part.shape[1] + whole.shape[1]
    spectra = [np.fft.rfft(sound[0], size) for sound in (whole, part)]
    fit = np.fft.irfft(spectra[0] * spectra[1].conj(), size)
    return int(fit[: whole.shape[1] - part.shape[1] + 1].argmax())


def test_a_recording_sounds_as_in_python(player, page, programs, tmp_path):  # noqa: F811
    write_song(tmp_path / "song.muc")
    expected = written(programs, tmp_path / "out.wav", tmp_path / "song.muc")
    player.page.open(page)
    player.page.value(TAP)
    button = "#recordings button"
    player.until(lambda: player.page.value(f"return !!document.querySelector({button!r})"))
    player.press(button)
    heard = tapped(player, SAMPLES)
    assert heard.shape == (2, SAMPLES)
    assert expected.shape == (2, 150 * 1920)  # a stream ends with a whole token
    assert signal_to_noise_db(expected[:, :SAMPLES], heard) >= 40


def test_a_stream_sounds_as_in_python(player, station, programs, tmp_path):  # noqa: F811
    """The page begins near the live edge, the program before that, with other windows."""
    player.open(station)
    player.page.value(TAP)
    player.press("#play")
    heard = tapped(player, 5 * SAMPLE_RATE)
    token = int(player.place())
    player.press("#play")
    begin = max(0, token - 500)
    url = station.replace("http://", "ws://").rstrip("/")
    limits = ("--from", f"token:{begin}", "--seconds", (token - begin) / 25 + 8)
    expected = written(programs, tmp_path / "out.wav", url, *limits)
    at = place_of(heard, expected)
    same = expected[:, at : at + heard.shape[1]]
    assert signal_to_noise_db(same, heard) >= 40
