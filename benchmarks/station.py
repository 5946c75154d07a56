"""How soon a station without a model listens, and how much memory it takes.

``python -m benchmarks.station [FILE.muc] [--runs N] [--json]`` starts ``server.py FILE.muc`` again
and again, until it says that it listens, and looks at its memory after a second of streaming.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from streaming.files.muc import MucEncoder, StreamHeader

ROOT = Path(__file__).parent.parent


def example(folder: Path) -> Path:
    """An hour of made-up tokens, to be streamed and never decoded."""
    encoder = MucEncoder(StreamHeader("nano", "none", "0" * 64))
    tokens = np.random.default_rng(0).integers(0, 16_384, 90_000)
    path = folder / "hour.muc"
    path.write_bytes(encoder.tokens(tokens) + encoder.finish(90_000 * 1920))
    return path


def measure(path: Path) -> tuple[float, float, float]:
    """Seconds until it listens, and of computing until then; resident megabytes a second later."""
    began_s = time.monotonic()
    command = [sys.executable, "server.py", str(path), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            listening_s = time.monotonic() - began_s
            if "listening on" not in line:
                raise SystemExit(f"the server did not start: {line}")
            ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            cpu_s = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
            time.sleep(1.0)
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
            resident_kib = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])
        finally:
            process.terminate()
            process.communicate()
    return listening_s, cpu_s, resident_kib / 1024


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.station", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE.muc")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.file or example(Path(folder))
        runs = [measure(path.resolve()) for _ in range(options.runs)]
    seconds, computing, megabytes = zip(*runs, strict=True)
    figures = {
        "listening_s": round(statistics.median(seconds), 3),
        "longest_listening_s": round(max(seconds), 3),
        "cpu_s": round(statistics.median(computing), 2),
        "resident_mb": round(max(megabytes), 1),
        "runs": options.runs,
    }
    if options.json:
        print(json.dumps(figures))
    else:
        print(f"listening after {figures['listening_s']} s (at most {max(seconds):.2f} s)")
        print(f"of these, computing {figures['cpu_s']} s")
        print(f"resident memory at most {figures['resident_mb']} MB")


if __name__ == "__main__":
    main()
