"""nano beside what users would pick instead: ``python -m benchmarks.side_by_side [MUSIC…]``.

One table of Opus, Codec2 and the architectures of EnCodec, DAC and Mimi with random weights: bit
rate, real-time factors (seconds of work per second of sound) on one thread and more, processor time
of both ways on one thread, algorithmic latency, peak memory, and for those that need no downloaded
weights some measures of quality.

Speed and memory are measured over the first recording; the codecs take turns, and each figure is
the median of several passes. Bit rate and quality are means over all recordings. Resampling to a
codec's own rate is not timed. docs/comparison.md has a run of it and says what the figures mean.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import Tensor

import codec
from benchmarks.analysis import Analysis
from benchmarks.codec import DEMO
from benchmarks.contestants import CONTESTANTS, NANO_WINDOWS
from benchmarks.measures import MEASURES, Figures, compare
from benchmarks.opus import OpusError
from benchmarks.programs import ProgramError
from benchmarks.recordings import SHORTEST_S, MusicError, find, load
from benchmarks.runners import Facts, Network, NetworkError, Program, Work
from codec.errors import CodecError
from codec.nano import TorchNano
from streaming.support.compute import use_threads

__all__ = ["Row", "main", "present", "quality", "run", "table"]

SHOWN = ("log_mel", "chroma", "envelope", "onset_f", "level_db")
"""Measures that the table has room for."""


@dataclass(frozen=True)
class Speed:
    """What both ways take on so many threads, medians, and peak memory."""

    threads: int
    encode: Work
    decode: Work
    peak_mb: float | None


@dataclass
class Row:
    """All figures of one codec.

    Attributes:
        bits_per_s: None until it is known.
        quality: empty if the weights are random.
    """

    label: str
    sound: str
    bits_per_s: float | None = None
    facts: Facts | None = None
    speeds: list[Speed] = field(default_factory=list)
    quality: Figures = field(default_factory=dict)


def present(names: Iterable[str]) -> list[str]:
    """Those of the names that can be measured here; says on stderr why the others cannot."""
    problems = {name: CONTESTANTS[name].problem() for name in names}
    for sentence in dict.fromkeys(filter(None, problems.values())):
        print(sentence, file=sys.stderr)
    return [name for name, problem in problems.items() if problem is None]


def quality(name: str, nano: TorchNano, recordings: Sequence[Tensor]) -> tuple[float, Figures]:
    """Mean bits a second and mean measures over recordings ``[2, samples]`` at 48 kHz."""
    round_trip = CONTESTANTS[name].round_trip
    assert round_trip is not None
    rates, figures = [], []
    for audio in recordings:
        sound, rate = round_trip(nano, audio)
        rates.append(rate)
        figures.append(compare(Analysis(audio), Analysis(sound)))
    means = {measure: statistics.fmean(each[measure] for each in figures) for measure in MEASURES}
    return statistics.fmean(rates), means


def median(works: Iterable[Work]) -> Work:
    """Wall and processor time each for itself."""
    walls, cpus = zip(*((work.wall, work.cpu) for work in works), strict=True)
    return Work(statistics.median(walls), statistics.median(cpus))


def speeds(
    names: Sequence[str],
    music: Path,
    seconds: float,
    threads: int,
    passes: int,
    weights: Path | None,
) -> dict[str, tuple[Facts, Speed]]:
    """Facts and speed of each codec; they take turns, after one pass to warm up.

    Raises MusicError, NetworkError, OpusError, ProgramError.
    """
    with ExitStack() as stack:
        runners: dict[str, Network | Program] = {}
        for name in names:
            if CONTESTANTS[name].threaded:
                rest = []
                if weights is not None and name in NANO_WINDOWS:
                    rest = [f"--weights={weights.resolve()}"]
                network = Network(name, threads, music, seconds, *rest)
                runners[name] = stack.enter_context(network)
            else:
                runners[name] = Program(name, load(music, seconds))
        taken: dict[str, list[tuple[Work, Work]]] = {name: [] for name in names}
        for number in range(passes + 1):
            print(f"threads: {threads}, pass {number}/{passes}", file=sys.stderr, flush=True)
            for name, runner in runners.items():
                both = runner.encode(), runner.decode()
                if number:
                    taken[name].append(both)
        measured = {}
        for name, runner in runners.items():
            encode, decode = map(median, zip(*taken[name], strict=True))
            measured[name] = runner.facts, Speed(threads, encode, decode, runner.peak_mb())
        return measured


def run(args: argparse.Namespace) -> list[Row]:
    """Measure everything that the arguments ask for.

    Raises:
        MusicError, CodecError, NetworkError, OpusError, ProgramError, OSError: with a sentence
            each.
    """
    files = find(args.music)
    recordings = [load(file, args.seconds) for file in files]
    nano = codec.load("nano", args.weights, device="cpu")
    assert isinstance(nano, TorchNano)
    names = present(dict.fromkeys(args.only or CONTESTANTS))
    rows = {name: Row(CONTESTANTS[name].label, CONTESTANTS[name].sound) for name in names}
    for name, row in rows.items():
        if CONTESTANTS[name].round_trip is not None:
            row.bits_per_s, row.quality = quality(name, nano, recordings)
    for number, threads in enumerate(dict.fromkeys(args.threads)):
        # Programs that use one thread need no second measurement.
        measured = [name for name in names if number == 0 or CONTESTANTS[name].threaded]
        if not measured:
            break
        found = speeds(
            measured,
            files[0],
            seconds=args.seconds,
            threads=threads,
            passes=args.passes,
            weights=args.weights,
        )
        for name, (facts, speed) in found.items():
            rows[name].facts = facts
            rows[name].speeds.append(speed)
            if rows[name].bits_per_s is None:
                rows[name].bits_per_s = facts.bits_per_s
    return list(rows.values())


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table; a dash if there is no figure."""
    threads = [speed.threads for speed in max((row.speeds for row in rows), key=len)]
    ways = [f"{way}, {count} thr." for count in threads for way in ("encode", "decode")]
    head = ["codec", "sound", "bit/s", *ways, "CPU, s/s", "latency, ms", "memory, MB"]
    head += [MEASURES[name].label for name in SHOWN]
    lines = []
    for row in rows:
        speeds = {speed.threads: speed for speed in row.speeds}
        peaks = [speed.peak_mb for speed in row.speeds if speed.peak_mb is not None]
        cells = [row.label, row.sound, "–" if row.bits_per_s is None else f"{row.bits_per_s:.0f}"]
        for count in threads:
            speed = speeds.get(count)
            cells += (
                [f"{speed.encode.wall:.3g}", f"{speed.decode.wall:.3g}"] if speed else ["–", "–"]
            )
        alone = speeds.get(threads[0])
        cells.append(f"{alone.encode.cpu + alone.decode.cpu:.3g}" if alone else "–")
        cells.append("–" if row.facts is None else f"{1000 * row.facts.latency_s:.4g}")
        cells.append(f"{max(peaks):.0f}" if peaks else "–")
        cells += [MEASURES[name].show(row.quality[name]) if row.quality else "–" for name in SHOWN]
        lines.append(cells)
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
        return f"| {' | '.join(padded)} |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([line(head), f"|{rule}|", *map(line, lines)])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.side_by_side", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "music", type=Path, nargs="*", help="recordings or folders of them (the demo track)"
    )
    parser.add_argument("--seconds", type=float, default=20, help="of each, from its start (20)")
    parser.add_argument("--passes", type=int, default=3, help="of which medians are taken (3)")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], metavar="N", help="counts (1 2)"
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(CONTESTANTS), metavar="NAME", help=", ".join(CONTESTANTS)
    )
    parser.add_argument("--weights", type=Path, help="another weights file for nano")
    parser.add_argument("--json", action="store_true", help="all figures")
    args = parser.parse_args(argv)
    if args.seconds < SHORTEST_S:
        parser.error(f"--seconds must be at least {SHORTEST_S:g}")
    if args.passes < 1:
        parser.error("--passes must be at least 1")
    if min(args.threads) < 1:
        parser.error("--threads must be at least 1")
    args.music = args.music or [DEMO]
    use_threads(1)
    try:
        rows = run(args)
    except (MusicError, CodecError, NetworkError, OpusError, ProgramError, OSError) as error:
        parser.error(str(error))
    if not rows:
        parser.error("none of the codecs asked for can be measured here, see above")
    if args.json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        print(table(rows))


if __name__ == "__main__":
    main()
