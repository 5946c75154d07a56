"""The demonstration: a sender and a listener as two programs, and a picture of both sides.

Leaves ``demo.wav`` (what the listener regenerated) and ``demo.png`` (its spectrogram under that of
the source). Plays on the sound card if there is one.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take a second
    from streaming.cli.start import start

    start("scripts.demo", "demo")

import argparse
import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from codec.constants import SAMPLE_RATE, TOKEN_BITS, TOKEN_RATE
from scripts.picture import draw
from scripts.processes import (
    ROOT,
    Program,
    ProgramError,
    Server,
    Stats,
    read_stats,
)
from streaming.audio.devices import find_device, load_sounddevice
from streaming.audio.sources import Playlist
from streaming.errors import UserError
from streaming.support.ending import interruptible

__all__ = ["main", "output_device_problem", "read_source", "summary"]

Audio = NDArray[np.float32]

DEMO_TRACK = ROOT / "streaming" / "data" / "demo.ogg"
_PAST_TOKENS = 4 * TOKEN_RATE
"""The listener joins a stream that already runs, as a listener does."""


def output_device_problem() -> str | None:
    """Why nothing can be heard on this machine, in a sentence; None if there is a sound card."""
    try:
        sounddevice = load_sounddevice()
        device = find_device(None, output=True)
        sounddevice.check_output_settings(device.index, 2, "float32", samplerate=SAMPLE_RATE)
    except UserError as error:
        return str(error)
    except Exception as error:  # PortAudioError, whose class is only there with the library
        return f"The sound card does not take 48 kHz stereo: {error}."
    return None


def read_source(song: Path, first_sample: int, samples: int) -> Audio:
    """What the sender encoded from ``first_sample`` on, looped: float32 ``[2, samples]``."""
    blocks, missing = [], samples
    with Playlist([song], loop=True) as source:
        while first_sample > 0:
            first_sample -= source.read(min(first_sample, SAMPLE_RATE)).shape[1]
        while missing > 0:
            block = source.read(missing)
            blocks.append(block)
            missing -= block.shape[1]
    return np.concatenate(blocks, axis=1)


def check_result(path: Path, seconds: float) -> Audio:
    """The listener's file, float32 ``[2, n]``; raises ProgramError if it cannot be right."""
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    expected = round(seconds * SAMPLE_RATE)
    if rate != SAMPLE_RATE or audio.shape != (expected, 2):
        raise ProgramError(
            f"{path.name} should hold {expected} stereo samples at {SAMPLE_RATE} Hz and holds "
            f"{audio.shape[0]} of {audio.shape[1]} channels at {rate} Hz"
        )
    if not np.isfinite(audio).all() or float(np.sqrt(np.mean(audio**2))) < 1e-4:
        raise ProgramError(f"{path.name} is silent")
    return np.ascontiguousarray(audio.T)


def summary(client: Stats, server: Stats) -> str:
    """The closing line of the demonstration."""
    encode, decode = server.get("encode_rtf"), client.get("decode_rtf")
    return (
        f"Summary: {client['tokens']} tokens, payload {_number(client['payload_bits_per_s'])} "
        f"bit/s, wire {_number(client['wire_bits_per_s'])} bit/s, first audio after "
        f"{_number(client['first_audio_s'], 2)} s, latency {_number(client['latency_s'], 2)} s, "
        f"{client['underruns']} underruns, {client['lost_tokens']} lost tokens, real-time factor "
        f"{_number(encode, 3)} encoding and {_number(decode, 3)} decoding"
    )


def _number(value: float | None, places: int = 0) -> str:
    return "unknown" if value is None else f"{value:.{places}f}"


def run(song: Path, seconds: float, folder: Path, scratch: Path) -> str:
    """Stream ``seconds`` of ``song`` from one program to the other; returns the summary.

    Raises:
        ProgramError: if either program or the result is not as it should be.
    """
    wav, png = folder / "demo.wav", folder / "demo.png"
    stats_path = scratch / "client.jsonl"
    problem = output_device_problem()
    if problem:
        print(f"Not playing aloud, only writing {wav.name}: {problem}")

    print(f"Starting the sender with {song.name} …")
    with Server(scratch, song, "--loop") as server:
        server.wait_for_tokens(_PAST_TOKENS)
        print(f"Starting a listener at {server.url} for {seconds:g} s …", flush=True)
        arguments: list[str | Path] = [
            "client.py",
            server.url,
            "--out",
            wav,
            "--overwrite",
            "--seconds",
            f"{seconds:g}",
        ]
        arguments += ["--stats", stats_path]
        if not problem:
            arguments.append("--play")
        with Program(arguments) as client:
            code = client.wait(2 * seconds + 60.0)
        if code != 0:
            raise ProgramError(f"the listener ended with exit code {code}{server.tail()}")
        if server.process.poll() is not None:
            raise ProgramError(f"the sender ended early{server.tail()}")
        if server.stop() != 0:
            raise ProgramError(f"the sender did not end cleanly{server.tail()}")
        sender_stats = server.stats

    final = read_stats(stats_path)[-1]
    result = check_result(wav, seconds)
    print(f"Drawing {png.name} …", flush=True)
    begin = round(final["position_s"] * SAMPLE_RATE) - int(final["samples"])
    draw(
        png,
        read_source(song, begin, result.shape[1]),
        result,
        title=f"Live music at {TOKEN_RATE * TOKEN_BITS} bit/s",
        source_label=f"Source: {song.name} from {begin / SAMPLE_RATE:.1f} s on, "
        f"{2 * 16 * SAMPLE_RATE // 1000} kbit/s as 16-bit stereo",
        result_label=f"What the listener regenerated from {TOKEN_RATE * TOKEN_BITS} bit/s",
    )
    print(f"Left {wav} and {png}.")
    return summary(final, sender_stats)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to listen")
    parser.add_argument("--out-dir", type=Path, default=Path(), help="where the files go")
    parser.add_argument("--song", type=Path, default=DEMO_TRACK, help="what to stream instead")
    options = parser.parse_args(arguments)
    if options.seconds < 1:
        parser.error("--seconds must be at least 1")
    logging.basicConfig(format="%(message)s")
    folder = options.out_dir.resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            interruptible(),
            tempfile.TemporaryDirectory(prefix="music350-") as scratch,
        ):
            line = run(options.song.resolve(), options.seconds, folder, Path(scratch))
    except (ProgramError, UserError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    print(line)
    return 0
