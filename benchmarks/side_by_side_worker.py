"""One network in a process of its own, for ``benchmarks.side_by_side``.

``python -m benchmarks.side_by_side_worker NAME RECORDING --threads N --seconds S`` writes
:class:`benchmarks.runners.Facts` as a line of JSON when it is ready, then answers each line that it
reads: ``encode`` and ``decode`` with :class:`benchmarks.runners.Work`, ``peak`` with the most
memory that it ever had, in MB.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import soxr
import torch
from torch import Tensor

import codec
from benchmarks.architectures import ARCHITECTURES, Architecture
from benchmarks.codec import decode, encode
from benchmarks.contestants import NANO_WINDOWS
from benchmarks.programs import peak_mb
from benchmarks.recordings import load
from benchmarks.runners import Facts, Work
from codec.base import DecodeSettings
from codec.constants import SAMPLE_RATE
from codec.nano import TorchNano
from streaming.support.compute import use_threads

__all__ = ["main"]


class Task:
    """Encoding of one recording, and decoding of what came of it.

    Args:
        seconds: of sound that one pass covers.
    """

    def __init__(
        self, encode: Callable[[], Any], decode: Callable[[Any], object], seconds: float
    ) -> None:
        self._encode, self._decode, self._seconds = encode, decode, seconds
        self._coded: Any = None

    def encode(self) -> Work:
        """One pass over the recording."""
        begin = self._now()
        self._coded = self._encode()
        return self._since(begin)

    def decode(self) -> Work:
        """The same over what was encoded last."""
        begin = self._now()
        self._decode(self._coded)
        return self._since(begin)

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def _since(self, begin: tuple[float, float]) -> Work:
        wall_s, cpu_s = self._now()
        return Work((wall_s - begin[0]) / self._seconds, (cpu_s - begin[1]) / self._seconds)


def nano_task(name: str, weights: Path | None, audio: Tensor) -> tuple[Task, Facts]:
    """nano through its live windows."""
    nano, windows = codec.load("nano", weights, device="cpu"), NANO_WINDOWS[name]
    assert isinstance(nano, TorchNano)
    parameters = sum(weights.numel() for weights in nano.models.parameters())
    task = Task(
        lambda: encode(nano, audio, windows.encoder),
        lambda tokens: decode(nano, tokens, windows.decoder, DecodeSettings()),
        audio.shape[1] / SAMPLE_RATE,
    )
    return task, Facts(windows.latency_s, parameters=parameters)


def prepared(audio: Tensor, network: Architecture) -> Tensor:
    """``[2, samples]`` at 48 kHz as ``[1, channels, samples]`` at the network's own rate."""
    audio = audio[:, : round(min(network.most_s * SAMPLE_RATE, audio.shape[1]))]
    if network.channels == 1:
        audio = audio.mean(dim=0, keepdim=True)
    if network.sample_rate != SAMPLE_RATE:
        resampled = soxr.resample(audio.t().numpy(), SAMPLE_RATE, network.sample_rate)
        audio = torch.from_numpy(resampled).t()
    return audio.unsqueeze(0).contiguous()


def architecture_task(name: str, audio: Tensor) -> tuple[Task, Facts]:
    """An architecture with random weights."""
    torch.manual_seed(0)
    network = ARCHITECTURES[name]()
    heard = prepared(audio, network)
    guarded = torch.inference_mode()
    task = Task(
        guarded(lambda: network.encode(heard)),
        guarded(lambda codes: network.decode(codes)),
        heard.shape[2] / network.sample_rate,
    )
    return task, Facts(network.latency_s, network.bits_per_s, network.parameters)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.side_by_side_worker")
    parser.add_argument("name", choices=[*NANO_WINDOWS, *ARCHITECTURES])
    parser.add_argument("recording", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--weights", type=Path)
    args = parser.parse_args(argv)
    use_threads(args.threads)
    audio = load(args.recording, args.seconds)
    if args.name in NANO_WINDOWS:
        task, facts = nano_task(args.name, args.weights, audio)
    else:
        task, facts = architecture_task(args.name, audio)
    answers: dict[str, Callable[[], object]] = {
        "encode": lambda: asdict(task.encode()),
        "decode": lambda: asdict(task.decode()),
        "peak": peak_mb,
    }
    print(json.dumps(asdict(facts)), flush=True)
    for line in sys.stdin:
        print(json.dumps(answers[line.strip()]()), flush=True)


if __name__ == "__main__":
    main()
