"""How soon a listener is connected after it was started, and how much memory it takes at most.

``python -m benchmarks.start [--runs N] [--json]`` has ``server.py`` stream the demonstration track
with nano, and starts ``client.py`` again and again: on onnxruntime, as programs run nano, and in
turns on torch (``--torch-device cpu``), if that is installed. Each listens for some seconds. What
is measured of each engine:

- *connected*: from the start of the process, Python itself and imports included, to the sender's
  greeting, with the weights loaded and the models ready (``connected_s`` of ``--stats``); median.
- *memory*: the peak of what was resident; the largest of all runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.programs import peak_mb
from codec.constants import SAMPLE_RATE, TOKEN_RATE
from scripts.processes import Program, ProgramError, Server, exit_on_sigterm, read_stats

__all__ = ["ENGINES", "Start", "main", "measure"]

ENGINES = {"onnxruntime": (), "torch": ("--torch-device", "cpu")}
"""Options of ``client.py`` by what it computes with."""
_LISTEN_S = 4.0
_PAST_TOKENS = 12 * TOKEN_RATE
"""The server has been running for a while when the listeners come."""


@dataclass(frozen=True)
class Start:
    """One run: seconds from the process's start to connected, and its peak in MB (10**6 bytes)."""

    connected_s: float
    peak_mb: float


def measure(url: str, folder: Path, options: Sequence[str]) -> Start:
    """Start one listener and end it again. Raises ProgramError."""
    path = folder / "client.jsonl"
    path.unlink(missing_ok=True)
    options = ["--out", "-", "--threads", "1", "--stats", str(path), *options]
    log = folder / "client.log"
    with Program(["client.py", url, *options], log=log, discard_stdout=True) as client:

        def heard() -> bool:
            stats = read_stats(path)
            return bool(stats) and stats[-1]["samples"] >= _LISTEN_S * SAMPLE_RATE

        client.wait_for(heard, "sound")
        peak = peak_mb(client.process.pid)
    connected_s = read_stats(path)[-1]["connected_s"]
    if connected_s is None or peak is None:
        raise ProgramError("this system does not tell when a process began, or its memory")
    return Start(connected_s, peak)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.start", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--runs", type=int, default=7, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args(argv)
    exit_on_sigterm()
    engines = [name for name in ENGINES if find_spec(name) is not None]
    runs: dict[str, list[Start]] = {name: [] for name in engines}
    try:
        with tempfile.TemporaryDirectory() as name, Server(Path(name), "--loop") as server:
            server.wait_for_tokens(_PAST_TOKENS)
            for _ in range(args.runs):
                for engine in engines:
                    runs[engine].append(measure(server.url, Path(name), ENGINES[engine]))
    except ProgramError as error:
        print(f"start: {error}", file=sys.stderr)
        return 2
    figures = {
        engine: Start(
            round(statistics.median(run.connected_s for run in done), 2),
            round(max(run.peak_mb for run in done)),
        )
        for engine, done in runs.items()
    }
    if args.json:
        print(json.dumps({engine: asdict(start) for engine, start in figures.items()}))
        return 0
    print("| engine | start to connected, s | memory, peak, MB |\n|---|---|---|")
    for engine, start in figures.items():
        print(f"| {engine} | {start.connected_s:.2f} | {start.peak_mb:.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
