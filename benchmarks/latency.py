"""From source to ear: rates, delays, memory and stalls of both programs on this machine.

``python -m benchmarks.latency`` runs `server.py` and `client.py` as processes on the loopback
interface, several times for each preset, and prints medians. What is measured:

- *latency*: the time at which a sample is due in the source (the sender reads a file in real time,
  as a sound input would) to the time at which a player hears it that starts with the first sample
  handed to it and then never pauses. Both programs' clocks are the system's monotonic clock, so
  their statistics can be compared. The sound is thrown away as it comes and the player reckoned
  with; with ``--play`` the sound card is the player, and its delay the listener's own figure.
- *memory*: the listener's peak resident size, and how much it grew from a quarter of the run to its
  end (``--minutes 10`` makes that mean something).
- *stall*: the longest time that either event loop was held up.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from codec.constants import SAMPLE_RATE, TOKEN_RATE
from scripts.processes import Program, ProgramError, Server, Stats, exit_on_sigterm, read_stats

__all__ = ["REACH", "Figures", "analyse", "main", "median", "table"]

PRESETS = ("default", "low-latency")
_PAST_TOKENS = 12 * TOKEN_RATE
"""The server has been running for a while when the listeners come."""


@dataclass(frozen=True)
class Figures:
    """What one run shows; rates in bit/s, times as the names say, memory in MB (10**6 bytes)."""

    payload_bits_per_s: float
    wire_bits_per_s: float
    connected_s: float
    first_audio_s: float
    latency_s: float
    listener_peak_mb: float
    listener_growth_mb: float
    loop_stall_ms: float
    decode_rtf: float
    encode_rtf: float
    lost_tokens: float
    underruns: float


LABELS = {
    "payload_bits_per_s": ("payload", "bit/s", 0),
    "wire_bits_per_s": ("on the wire, one way", "bit/s", 0),
    "connected_s": ("client start to connected", "s", 2),
    "first_audio_s": ("connect to first sample", "s", 2),
    "latency_s": ("source sample to play-out", "s", 2),
    "listener_peak_mb": ("listener memory, peak", "MB", 0),
    "listener_growth_mb": ("listener memory, growth", "MB", 1),
    "loop_stall_ms": ("longest event-loop stall", "ms", 1),
    "decode_rtf": ("decoding, real-time factor", "", 3),
    "encode_rtf": ("encoding, real-time factor", "", 3),
    "lost_tokens": ("lost tokens", "", 0),
    "underruns": ("underruns", "", 0),
}
REACH: dict[str, dict[str, float]] = {
    "default": {
        "payload_bits_per_s": 350,
        "wire_bits_per_s": 650,
        "connected_s": 4.0,
        "first_audio_s": 1.5,
        "latency_s": 6.0,
        "listener_peak_mb": 900,
        "loop_stall_ms": 50,
    },
    "low-latency": {
        "payload_bits_per_s": 350,
        "connected_s": 4.0,
        "first_audio_s": 1.5,
        "latency_s": 2.0,
        "listener_peak_mb": 900,
        "loop_stall_ms": 50,
    },
}


def analyse(
    client: Sequence[Stats],
    server: Sequence[Stats],
    *,
    started_s: float,
    memory: Sequence[tuple[float, float]],
    played: bool,
) -> Figures:
    """The figures of one run.

    Args:
        client, server: lines of both statistics.
        started_s: when the client process was started.
        memory: peak and present resident size of the client in MB, again and again.
        played: whether a sound card set the pace.

    Raises:
        ProgramError: if nothing was heard.
    """
    final = client[-1]
    lines = [line for line in client[:-1] if line["samples"] > 0]
    if not lines or final["first_audio_s"] is None or final["connected_s"] is None:
        raise ProgramError("the listener heard nothing, so there is nothing to measure")
    # The sender reads blocks just after their last sample was due: the least offset is the truest.
    during = [line for line in server if line["time_s"] >= started_s] or server
    source_zero_s = min(line["time_s"] - line["source_samples"] / SAMPLE_RATE for line in during)
    if played:
        latency_s = statistics.median(line["latency_s"] for line in lines)
    else:
        begin_s = final["position_s"] - final["samples"] / SAMPLE_RATE
        first_s = started_s + final["connected_s"] + final["first_audio_s"]
        # What the player would have had to wait, had the sound not been there in time.
        late_s = max(line["time_s"] - first_s - line["samples"] / SAMPLE_RATE for line in lines)
        latency_s = first_s - source_zero_s - begin_s + max(0.0, late_s)
    resident = [now for _, now in memory]
    quarter = len(resident) // 4
    return Figures(
        payload_bits_per_s=_known(final["payload_bits_per_s"]),
        wire_bits_per_s=_known(final["wire_bits_per_s"]),
        connected_s=final["connected_s"],
        first_audio_s=final["first_audio_s"],
        latency_s=latency_s,
        listener_peak_mb=max(peak for peak, _ in memory),
        listener_growth_mb=resident[-1] - resident[quarter],
        loop_stall_ms=max(final["max_loop_stall_ms"], server[-1]["max_loop_stall_ms"]),
        decode_rtf=_known(final["decode_rtf"]),
        encode_rtf=_known(server[-1]["encode_rtf"]),
        lost_tokens=final["lost_tokens"],
        underruns=final["underruns"],
    )


def _known(value: float | None) -> float:
    if value is None:
        raise ProgramError("the run was too short to measure a rate: make --seconds longer")
    return value


def memory_mb(pid: int) -> tuple[float, float] | None:
    """Peak and present resident size of a process in MB; None once it has gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        fields = dict(line.split(":", 1) for line in status.splitlines())
        peak, now = (int(fields[key].split()[0]) for key in ("VmHWM", "VmRSS"))
    except (OSError, KeyError):  # a process that is ending has no sizes any more
        return None
    return peak * 1024 / 1e6, now * 1024 / 1e6


def measure(server: Server, preset: str, seconds: float, folder: Path, *, play: bool) -> Figures:
    """One listener of ``seconds`` on a running server."""
    stats_path = folder / "client.jsonl"
    arguments = ["client.py", server.url, "--preset", preset, "--seconds", f"{seconds:g}"]
    arguments += ["--stats", str(stats_path), *(["--play"] if play else ["--out", "-"])]
    memory: list[tuple[float, float]] = []
    with Program(arguments, log=folder / "client.log", discard_stdout=True) as client:
        deadline_s = time.monotonic() + 2 * seconds + 60
        while client.process.poll() is None:
            if (sizes := memory_mb(client.process.pid)) is not None:
                memory.append(sizes)
            if time.monotonic() > deadline_s:
                raise ProgramError(f"the listener did not end{client.tail()}")
            time.sleep(0.2)
        if client.process.returncode != 0:
            raise ProgramError(f"the listener failed{client.tail()}")
    return analyse(
        read_stats(stats_path),
        read_stats(server.stats_path),
        started_s=client.started_s,
        memory=memory,
        played=play,
    )


def median(runs: Sequence[Figures]) -> Figures:
    """The median of each figure."""
    rows = [asdict(run) for run in runs]
    return Figures(**{name: statistics.median(row[name] for row in rows) for name in rows[0]})


def table(results: dict[str, Figures]) -> str:
    """The results as Markdown: a row for each figure, what is to be reached beside it."""
    lines = [
        "| what | " + " | ".join(f"{preset} | reach" for preset in results) + " |",
        "|---|" + "---|---|" * len(results),
    ]
    for name, (label, unit, places) in LABELS.items():
        cells = [label]
        for preset, figures in results.items():
            value, reach = getattr(figures, name), REACH[preset].get(name)
            cells.append(f"{value:.{places}f} {unit}".strip())
            # Rates fluctuate by a fraction of a bit with the moment of the last packet.
            missed = reach is not None and round(value, places) > reach
            cells.append("" if reach is None else f"≤ {reach:g}{' (missed)' if missed else ''}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def run(preset: str, runs: int, seconds: float, *, play: bool) -> Figures:
    """Medians of several listeners, one after another, on one server."""
    with tempfile.TemporaryDirectory(prefix="music350-") as scratch:
        folder = Path(scratch)
        with Server(folder, "--preset", preset) as server:
            server.wait_for_tokens(_PAST_TOKENS)
            return median(
                [measure(server, preset, seconds, folder, play=play) for _ in range(runs)]
            )


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--runs", type=int, default=3, help="listeners a preset (default: 3)")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of each (default: 15)")
    parser.add_argument("--minutes", type=float, help="one long listener a preset instead")
    parser.add_argument("--preset", choices=PRESETS, help="this preset alone")
    parser.add_argument("--play", action="store_true", help="on the sound card")
    options = parser.parse_args(arguments)
    if options.runs < 1 or options.seconds < 8:
        parser.error("needs at least one run of 8 s")
    runs, seconds = options.runs, options.seconds
    if options.minutes is not None:
        runs, seconds = 1, 60 * options.minutes
    presets = [options.preset] if options.preset else PRESETS
    try:
        results = {preset: run(preset, runs, seconds, play=options.play) for preset in presets}
    except ProgramError as error:
        print(f"benchmarks.latency: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({preset: asdict(figures) for preset, figures in results.items()}))
    else:
        print(table(results))
    return 0


if __name__ == "__main__":
    exit_on_sigterm()
    sys.exit(main())
