"""``python -m benchmarks.lab SONG… --sweep hop=0.32,0.64 --sweep steps=0,1 --link iridium``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from benchmarks import lab
from benchmarks.lab.charts import Group, grouped
from benchmarks.recordings import MusicError, find
from codec.errors import CodecError
from streaming.errors import UserError
from streaming.support.compute import use_threads

__all__ = ["main"]

_SHOWN = (
    ("latency_s", "latency s", 2),
    ("start_s", "start s", 2),
    ("wire_bits_per_s", "wire bit/s", 0),
    ("underruns", "underruns", 1),
    ("silent_s", "silence s", 1),
    ("encode_rtf", "enc RTF", 3),
    ("decode_rtf", "dec RTF", 3),
    ("log_mel", "log-mel", 3),
    ("chroma", "chroma", 3),
    ("seam", "seam", 2),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lab",
        description="Run the real sender and listener over a simulated link in simulated time, "
        "with every combination of the settings swept.",
    )
    parser.add_argument("songs", type=Path, nargs="*", help="recordings or folders of them")
    parser.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="NAME=VALUE,…",
        help=f"times in seconds; names: {', '.join(lab.SWEEPABLE)}",
    )
    parser.add_argument(
        "--link",
        action="append",
        metavar="LINK",
        help="a name (--links lists them) or rate=600bit/s,delay=800ms,jitter=200ms,loss=2%%,"
        "outage=5s/60s; may be given more than once (default: a perfect link)",
    )
    parser.add_argument("--links", action="store_true", help="list the links that have a name")
    parser.add_argument("--seconds", type=float, default=60, help="of stream in each trial (60)")
    parser.add_argument(
        "--compared", type=float, default=20, help="seconds to compare and to listen to (20)"
    )
    parser.add_argument(
        "--cpu-factor",
        type=float,
        default=1.0,
        help="how many times as long as here computing takes (1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the link's lots (0)")
    parser.add_argument("--jobs", type=int, help="processes (default: one a core)")
    parser.add_argument(
        "--out", type=Path, default=Path("lab-out"), help="folder; what is in it is not run again"
    )
    args = parser.parse_args(argv)
    if args.links:
        print("\n".join(_describe(name, named) for name, named in lab.LINKS.items()))
        return
    if not args.songs:
        parser.error("name a recording, or a folder of them")
    if args.seconds < 10 or args.compared < 1 or args.cpu_factor < 0 or (args.jobs or 1) < 1:
        parser.error("--seconds is at least 10, --compared and --jobs 1, --cpu-factor 0")
    use_threads(1)
    try:
        _run(args)
    except (MusicError, CodecError, UserError, OSError, ValueError) as error:
        parser.error(str(error))


def _run(args: argparse.Namespace) -> None:
    songs = find(args.songs)
    sweeps = dict(lab.parse_sweep(text) for text in args.sweep)
    links = args.link or [""]
    options = {
        "seconds": args.seconds,
        "compared_s": min(args.compared, args.seconds),
        "cpu_factor": args.cpu_factor,
        "seed": args.seed,
    }
    total = len(lab.trials(songs, sweeps, links, **options))
    began_s = time.monotonic()

    def done(number: int, trial: lab.Trial) -> None:
        link = f" on {trial.link_name}" if trial.link_name else ""
        print(
            f"{number}/{total} after {time.monotonic() - began_s:.0f} s: {trial.song.name}, "
            f"{trial.setting.label}{link}",
            file=sys.stderr,
            flush=True,
        )

    results = lab.sweep(
        songs, sweeps, link=links, out=args.out, jobs=args.jobs, done=done, **options
    )
    print(_table(grouped(results)))
    for problem in dict.fromkeys(f"{r.label}: {r.problem}" for r in results if r.problem):
        print(problem, file=sys.stderr)
    print(f"\nAll figures: {args.out / 'results.csv'}", file=sys.stderr)
    if find_spec("matplotlib") is None:
        print("For the page, install matplotlib: pip install '.[demo]'", file=sys.stderr)
    else:
        page = lab.report(results, args.out)
        print(f"Open {page.resolve().as_uri()} in a browser.", file=sys.stderr)


def _table(groups: Sequence[Group]) -> str:
    rows = [["", *(label for _, label, _ in _SHOWN)]]
    for group in groups:
        cells = [
            "–" if (value := group.mean(name)) is None else f"{value:.{places}f}"
            for name, _, places in _SHOWN
        ]
        rows.append([group.name, *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            f"{cell:<{width}}" if not number else f"{cell:>{width}}"
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _describe(name: str, named: lab.links.NamedLink) -> str:
    return f"{name:10} {named.what}\n{'':10} {named.source}"


if __name__ == "__main__":
    main()
