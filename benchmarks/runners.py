"""How a codec is made to encode and decode a recording over and over, and what that takes.

A network runs in a process of its own, so that threads and memory are its alone; several such
processes may be there at once and take turns, so that a noisy machine disturbs all of them alike.
Opus and Codec2 are programs anyway.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks import codec2, opus
from benchmarks.contestants import CODEC2_MODES
from benchmarks.programs import Done
from codec.constants import SAMPLE_RATE

__all__ = ["Facts", "Network", "NetworkError", "Program", "Work"]

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Work:
    """What encoding or decoding took, in seconds per second of sound.

    Attributes:
        wall: the real-time factor.
        cpu: processor time, which other programs on the machine disturb less.
    """

    wall: float
    cpu: float


class NetworkError(Exception):
    """A measuring process that ended before its time; one sentence."""


@dataclass(frozen=True)
class Facts:
    """What a codec's own numbers say. bits_per_s: nominal; None if it has to be measured."""

    latency_s: float
    bits_per_s: float | None = None
    parameters: int | None = None


class Network:
    """A measuring process for nano or an architecture; a context manager.

    Every call raises NetworkError if the process has ended.
    """

    def __init__(self, name: str, threads: int, music: Path, seconds: float, *rest: str) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.side_by_side_worker"),
                *(name, str(music.resolve()), f"--threads={threads}", f"--seconds={seconds}"),
                *rest,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.facts = Facts(**self._answer())

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise NetworkError(
                f"the process that measures {self.name} ended with exit code {code}, see above"
            )
        return json.loads(line)

    def _ask(self, what: str) -> Any:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the answer will be missing, which says why
            print(what, file=self._process.stdin, flush=True)
        return self._answer()

    def encode(self) -> Work:
        """One pass over the recording."""
        return Work(**self._ask("encode"))

    def decode(self) -> Work:
        """The same over what was encoded last."""
        return Work(**self._ask("decode"))

    def peak_mb(self) -> float | None:
        """The most memory that the process has had so far."""
        peak = self._ask("peak")
        return None if peak is None else float(peak)

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


class Program:
    """Opus or Codec2 over one recording; starting the programs is part of what is timed.

    Every call raises OpusError or ProgramError if they fail.
    """

    def __init__(self, name: str, audio: Tensor) -> None:
        self._seconds = audio.shape[1] / SAMPLE_RATE
        self._peak_mb: float | None = None
        if name == "opus":
            self._encode = lambda: opus.encode_timed(audio, opus.SIX_KBIT)
            self._decode = lambda coded: opus.decode_timed(coded)
            self._coded = self._encode().output
            self.facts = Facts(opus.latency_s(self._coded))
        else:
            mode, speech = CODEC2_MODES[name], codec2.to_speech(audio)
            self._encode = lambda: codec2.encode(speech, mode)
            self._decode = lambda coded: codec2.decode(coded, mode)
            self._coded = self._encode().output
            self.facts = Facts(mode.latency_s)

    def _work(self, done: Done) -> Work:
        if done.peak_mb is not None:
            self._peak_mb = max(self._peak_mb or 0.0, done.peak_mb)
        return Work(done.seconds / self._seconds, done.cpu_s / self._seconds)

    def encode(self) -> Work:
        """Encode the recording; what comes of it is kept for :meth:`decode`."""
        done = self._encode()
        self._coded = done.output
        return self._work(done)

    def decode(self) -> Work:
        """Decode what :meth:`encode` left."""
        return self._work(self._decode(self._coded))

    def peak_mb(self) -> float | None:
        """The largest resident set of the programs so far, in MB; None if it is unknown."""
        return self._peak_mb
