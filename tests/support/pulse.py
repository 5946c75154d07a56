"""A private PulseAudio server with a null sink, for tests that really play and record.

Import the fixture in a test module: `from tests.support.pulse import pulse  # noqa: F401`.
Nothing of it touches the sound set-up of the machine or the user.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pytest
from numpy.typing import NDArray

__all__ = ["PulseServer", "aligned_correlation", "judged_if_served", "pulse", "start_pulse"]

SINK = "test_sink"
_TRIES = 4
_ALSA_UNDERRUN = "snd_pcm_recover) underrun occurred"
_STALL_S = 0.02
"""The null sink wants sound every few hundredths of a second: who is served later than this by a
busy machine may leave it without."""
_ALSA = """
pcm.!default { type pulse }
ctl.!default { type pulse }
"""
_NEEDED = {
    "pulseaudio": "pulseaudio",
    "parec": "pulseaudio-utils",
    "pactl": "pulseaudio-utils",
}


@dataclass
class PulseServer:
    """A running server. Start programs with `env`; their default devices are the null sink's."""

    env: dict[str, str]

    def record(self, path: Path) -> subprocess.Popen[bytes]:
        """Record what the null sink plays, as float32 stereo at 48 kHz, until terminated.

        Recording has begun when this returns.
        """
        with path.open("wb") as file:
            command = ["parec", f"--device={SINK}.monitor", "--format=float32le", "--rate=48000"]
            command += ["--channels=2", "--latency-msec=50", "--raw"]
            process = subprocess.Popen(command, stdout=file, env=self.env)
        deadline = time.monotonic() + 15
        while path.stat().st_size == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        return process

    def play(self, path: Path) -> subprocess.Popen[bytes]:
        """Play a file of float32 stereo samples at 48 kHz into the null sink."""
        command = ["pacat", "--playback", f"--device={SINK}", "--format=float32le"]
        command += ["--rate=48000", "--channels=2", "--raw", str(path)]
        return subprocess.Popen(command, env=self.env)


def read_samples(path: Path) -> NDArray[np.float32]:
    """What `record` wrote, `[2, n]`."""
    samples = np.fromfile(path, "<f4")
    return samples[: len(samples) // 2 * 2].reshape(-1, 2).T.astype(np.float32)


def aligned_correlation(
    reference: NDArray[np.float32], recorded: NDArray[np.float32]
) -> tuple[float, int]:
    """Correlation of `[2, n]` with the best matching place of `[2, m]`, and that place."""
    n = reference.shape[1]
    padded = np.pad(recorded, ((0, 0), (n, n)))
    size = 1 << (padded.shape[1] + n).bit_length()
    cross = np.fft.irfft(np.fft.rfft(padded, size) * np.conj(np.fft.rfft(reference, size)), size)
    place = int(np.argmax(cross.sum(axis=0)[: padded.shape[1] - n]))
    found = padded[:, place : place + n]
    norm = float(np.linalg.norm(found) * np.linalg.norm(reference))
    return float((found * reference).sum()) / max(norm, 1e-12), place - n


def start_pulse(folder: Path) -> Iterator[PulseServer]:
    """Run a server with its sockets and settings in `folder`; skips where packages are missing."""
    missing = sorted({package for program, package in _NEEDED.items() if not shutil.which(program)})
    if not any(Path("/usr/lib").glob("*/alsa-lib/libasound_module_pcm_pulse.so")):
        missing.append("libasound2-plugins")
    if missing:
        pytest.skip(f"needs the packages {', '.join(missing)}")
    for name in ("run", "home", "state"):
        (folder / name).mkdir(mode=0o700, exist_ok=True)
    (folder / "home" / ".asoundrc").write_text(_ALSA)
    socket = folder / "native"
    env = {
        **os.environ,
        "HOME": str(folder / "home"),
        "XDG_RUNTIME_DIR": str(folder / "run"),
        "XDG_CONFIG_HOME": str(folder / "home" / ".config"),
        "PULSE_RUNTIME_PATH": str(folder / "run"),
        "PULSE_STATE_PATH": str(folder / "state"),
        "PULSE_SERVER": f"unix:{socket}",
        "PULSE_LATENCY_MSEC": "60",
    }
    command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"]
    command += ["--disable-shm=yes", "--realtime=no", "--high-priority=no", "--log-level=error"]
    command += ["-L", f"module-native-protocol-unix auth-anonymous=1 socket={socket}"]
    command += ["-L", f"module-null-sink sink_name={SINK} rate=48000 format=float32le channels=2"]
    server_env = {key: value for key, value in env.items() if key != "PULSE_SERVER"}
    log = folder / "pulseaudio.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=server_env, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 15
        while subprocess.run(["pactl", "info"], env=env, capture_output=True).returncode != 0:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"pulseaudio does not start here: {log.read_text()[-300:]}")
            time.sleep(0.1)
        for kind, name in (("sink", SINK), ("source", f"{SINK}.monitor")):
            subprocess.run(["pactl", f"set-default-{kind}", name], env=env, check=True)
        yield PulseServer(env)
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class _Clockwork:
    """Wakes a hundred times a second and notes how late it was. Attributes: `late_s`, the most."""

    def __init__(self) -> None:
        self.late_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._stop.is_set():
            due_s = time.monotonic() + 0.01
            self._stop.wait(0.01)
            self.late_s = max(self.late_s, time.monotonic() - due_s)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()


def judged_if_served(attempt: Callable[[int], None]) -> None:
    """Call `attempt`, a real playing or recording, with its number; again where it fails while the
    machine did not serve everybody in time, and leave the test out where it never does.

    What fails on a machine that served everybody in time is a fault of ours, and raised.
    """
    for number in range(_TRIES):
        with _Clockwork() as clockwork:
            try:
                return attempt(number)
            except AssertionError as error:
                # ALSA tells of an underrun by itself: the thread of the sound was not served.
                if clockwork.late_s < _STALL_S and _ALSA_UNDERRUN not in str(error):
                    raise
    pytest.skip(f"this machine is too busy for sound: {clockwork.late_s:.2f} s late")


@pytest.fixture(scope="module")
def pulse() -> Iterator[PulseServer]:
    """A PulseAudio server whose default output is a null sink, with its monitor as input."""
    # A short path of its own: the name of a unix socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="pulse") as folder:
        yield from start_pulse(Path(folder))
