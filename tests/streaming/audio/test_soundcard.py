"""The sound card's sink and source against a real sound server with a null sink."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests import ROOT
from tests.support.pulse import (
    PulseServer,
    aligned_correlation,
    judged_if_served,
    pulse,
    read_samples,
)

__all__ = ["pulse"]

RATE = 48_000
PATIENCE_S = 180.0

_PLAY = """
import sys
import numpy as np
from streaming.audio.sinks import SoundCardSink

samples = np.fromfile(sys.argv[1], "<f4").reshape(-1, 2).T
with SoundCardSink(buffer_s=1.0) as sink:
    for start in range(0, samples.shape[1], 1920):
        sink.write(samples[:, start : start + 1920])
    sink.drain()
    print(sink.underruns, sink.rate)
"""

_CAPTURE = """
import sys
import numpy as np
from streaming.audio.sources import CaptureSource

with CaptureSource() as source, open(sys.argv[1], "wb") as file:
    print(source.title, flush=True)
    taken = 0
    while taken < 3 * 48000:
        block = source.read(1920)
        file.write(np.ascontiguousarray(block.T).tobytes())
        taken += block.shape[1]
    print(source.dropped_samples)
"""


def melody(seconds: float) -> np.ndarray:
    """Stereo `[2, n]` whose alignment is unmistakable: two sweeps, different left and right.

    It starts and ends in silence, since the monitor of a null sink may lack the moments in
    which a stream joins or leaves.
    """
    t = np.arange(round(seconds * RATE)) / RATE
    left = 0.4 * np.sin(2 * np.pi * (200 * t + 300 * t**2))
    right = 0.4 * np.sin(2 * np.pi * (1500 * t - 150 * t**2))
    return np.pad(np.stack([left, right]), ((0, 0), (RATE // 4, RATE // 4))).astype(np.float32)


def run_python(code: str, *arguments: str, env: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=env,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_what_the_sound_card_plays_is_what_was_written(pulse: PulseServer, tmp_path: Path):
    signal = melody(2.0)
    source = tmp_path / "in.f32"
    np.ascontiguousarray(signal.T).tofile(source)

    def play(number: int) -> None:
        recorded = tmp_path / f"out{number}.f32"
        recorder = pulse.record(recorded)
        try:
            time.sleep(0.3)
            player = run_python(_PLAY, str(source), env=pulse.env)
            output, errors = player.communicate(timeout=PATIENCE_S)
            time.sleep(0.3)
        finally:
            recorder.terminate()
            recorder.wait()
        assert (player.returncode, errors) == (0, "")
        assert output.split() == ["0", "48000"]
        heard = read_samples(recorded)
        correlation, place = aligned_correlation(signal, heard)
        assert correlation > 0.95
        found = heard[:, place : place + signal.shape[1]]
        # Sample for sample, unless a busy machine made the sound server skip.
        assert np.mean(np.abs(found - signal[:, : found.shape[1]]) < 1e-3) > 0.9

    judged_if_served(play)


def test_the_capture_source_hears_what_is_played(pulse: PulseServer, tmp_path: Path):
    signal = melody(2.0)
    source = tmp_path / "in.f32"
    np.ascontiguousarray(signal.T).tofile(source)

    def hear(number: int) -> None:
        captured = tmp_path / f"captured{number}.f32"
        capture = run_python(_CAPTURE, str(captured), env=pulse.env)
        assert capture.stdout is not None
        title = capture.stdout.readline().strip()
        player = pulse.play(source)
        output, errors = capture.communicate(timeout=PATIENCE_S)
        player.wait(PATIENCE_S)
        assert capture.returncode == 0, errors
        assert title == "default"
        assert output.strip() == "0"
        correlation, _ = aligned_correlation(signal, read_samples(captured))
        assert correlation > 0.95

    judged_if_served(hear)


@pytest.mark.parametrize(
    "direction", ["SoundCardSink('nonsense')", "CaptureSource('nonsense').open()"]
)
def test_an_unknown_device_is_one_sentence(pulse: PulseServer, direction: str):
    code = (
        "from streaming.audio.sinks import SoundCardSink\n"
        "from streaming.audio.sources import CaptureSource\n"
        "from streaming.errors import UserError\n"
        f"try: {direction}\n"
        "except UserError as error: print(error)\n"
    )
    process = run_python(code, env=pulse.env)
    output, errors = process.communicate(timeout=PATIENCE_S)
    assert errors == ""
    assert "'nonsense'" in output
    assert "default" in output
