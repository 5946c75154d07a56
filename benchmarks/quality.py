"""How much of the music survives: ``python -m benchmarks.quality FOLDER_OR_FILE…``.

Decodes each recording from its tokens and compares it with the original, beside yardsticks
(:data:`benchmarks.baselines.DESCRIPTIONS` says what each is). Prints a table of means; with ``--out
FOLDER`` it also leaves a page with players, spectrograms and charts, all files beside it (`make
listen`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

import codec
from benchmarks import opus
from benchmarks.analysis import Analysis
from benchmarks.baselines import Version, versions
from benchmarks.measures import compare
from benchmarks.recordings import SHORTEST_S, MusicError, find, load
from benchmarks.results import Recording, Results
from codec.base import DecodeSettings
from codec.constants import SAMPLE_RATE
from codec.errors import CodecError
from codec.nano import TorchNano
from codec.torch_backend import tensor
from streaming.support.compute import use_threads

if TYPE_CHECKING:
    from benchmarks.listening_page import ListeningPage

__all__ = ["main", "measure"]


class MissingError(Exception):
    """A package that is not installed; one sentence."""


def measure(
    nano: TorchNano,
    file: str,
    audio: Tensor,
    settings: DecodeSettings,
    *,
    finer_steps: int | None = None,
) -> tuple[Recording, list[Version]]:
    """Figures of all versions of one recording, and the versions themselves."""
    tokens = tensor(nano.sound2code(audio))
    original = Analysis(audio)
    made = list(versions(nano, audio, tokens, settings, finer_steps=finer_steps))
    figures = {version.name: compare(original, Analysis(version.sound)) for version in made}
    rates = {version.name: version.bits_per_s for version in made}
    return Recording(file, audio.shape[1] / SAMPLE_RATE, tokens, figures, rates), made


def begin_page(folder: Path) -> ListeningPage:
    """A page in a folder; raises MissingError if nothing can draw its pictures."""
    if find_spec("matplotlib") is None:
        raise MissingError(
            "--out draws with matplotlib, which is not installed; run: pip install '.[demo]'"
        )
    from benchmarks.listening_page import ListeningPage

    return ListeningPage(folder)


def run(args: argparse.Namespace) -> tuple[Results, Path | None]:
    """Measure everything that the arguments ask for; returns the page too if one is asked for.

    Raises:
        MusicError, MissingError, CodecError, OpusError, OSError: with a sentence each.
    """
    nano = codec.load("nano", args.weights, device="cpu")
    assert isinstance(nano, TorchNano)
    settings = DecodeSettings(args.steps, args.guidance, args.temperature)
    files = find(args.music)[: args.limit]
    if said := opus.problem():
        print(said, file=sys.stderr)
    page = None if args.out is None else begin_page(args.out)
    recordings = []
    for number, file in enumerate(files, 1):
        print(f"{number}/{len(files)} {file.name}", file=sys.stderr, flush=True)
        audio = load(file, args.seconds)
        recording, made = measure(nano, str(file), audio, settings, finer_steps=args.finer_steps)
        recordings.append(recording)
        if page is not None:
            page.add(recording, audio, made)
    results = Results(nano.weights, recordings)
    return results, None if page is None else page.write(results)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("music", type=Path, nargs="+", help="recordings or folders of them")
    parser.add_argument("--seconds", type=float, default=30, help="of each, from its start (30)")
    parser.add_argument("--limit", type=int, help="at most this many recordings")
    parser.add_argument("--weights", type=Path, help="another weights file")
    parser.add_argument("--steps", type=int, help="evaluations of the flow")
    parser.add_argument("--temperature", type=float, help="of the noise that the flow starts from")
    parser.add_argument("--guidance", type=float, help="guidance scale of the flow")
    parser.add_argument(
        "--finer-steps", type=int, metavar="N", help="also decode with so many evaluations"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="leave a page to listen to")
    parser.add_argument("--json", action="store_true", help="all figures, not only their means")
    args = parser.parse_args(argv)
    if args.seconds < SHORTEST_S:
        parser.error(f"--seconds must be at least {SHORTEST_S:g}")
    if args.limit is not None and args.limit < 1:
        parser.error("--limit must be at least 1")
    use_threads(1)
    try:
        results, page = run(args)
    except (MusicError, MissingError, CodecError, opus.OpusError, OSError) as error:
        parser.error(str(error))
    print(json.dumps(results.json()) if args.json else results.table(), flush=True)
    if page is not None:  # beside what is printed, so that it does not end up in the JSON
        print(f"\nOpen {page.resolve().as_uri()} in a browser.", file=sys.stderr)


if __name__ == "__main__":
    main()
