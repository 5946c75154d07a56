"""The project's site, for any web host: excerpts to listen to, the player and the documentation.

`make site` builds the documentation first. Everything is in one folder, and nothing is from
elsewhere. The excerpts are this project's own music.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

import codec
from benchmarks import opus
from benchmarks.baselines import Version
from benchmarks.listening_page import SWITCHING, ListeningPage, document
from benchmarks.recordings import SHORTEST_S, MusicError, load
from benchmarks.results import Recording
from codec.base import Codec
from codec.constants import SAMPLE_RATE, TOKEN_BITS, TOKEN_RATE
from codec.errors import CodecError
from scripts.processes import ROOT
from streaming.errors import UserError
from streaming.files.muc import MucEncoder, StreamHeader
from streaming.support.compute import use_threads
from streaming.web.export import export_page

__all__ = ["main"]

EXCERPTS = {
    "Demonstration track": ROOT / "streaming" / "data" / "demo.ogg",
    **{f"Held-out piece {n + 1}": ROOT / "tests" / "data" / f"held_{n}.ogg" for n in range(3)},
}
"""By title: what is streamed if nothing else is given, and pieces held out of the training."""

TITLE = "Live music at 350 bits per second"
INTRODUCTION = f"""\
<p>A sender turns 48 kHz stereo into {TOKEN_RATE} tokens of {TOKEN_BITS} bits a second and ships \
them over a WebSocket, an MQTT broker, a serial line or UDP. Every listener regenerates \
continuous 48 kHz stereo from them, in Python, in a browser, or in any player through a \
gateway.</p>
<p>Below are four excerpts of the project's own music: as they were, as the codec <i>nano</i> \
gives them back from 350 bit/s, and as Opus does from the lowest rate that it is specified for. \
{SWITCHING}</p>
"""
NAVIGATION = """\
<nav aria-label="Contents"><ul>
<li><a href="docs/index.html">Documentation</a></li>
<li><a href="player/index.html">Player</a>: decodes these excerpts, and .muc files of your own, \
in this browser</li>
</ul></nav>
"""


def add_excerpt(page: ListeningPage, nano: Codec, title: str, path: Path, seconds: float) -> bytes:
    """Put the start of a recording on the page; returns it as a ``.muc`` file.

    Raises MusicError, OpusError.
    """
    audio = load(path, seconds)
    tokens = nano.sound2code(audio.numpy())
    recording = Recording(title, audio.shape[1] / SAMPLE_RATE, torch.from_numpy(tokens), {}, {})
    decoded = torch.from_numpy(nano.code2sound(tokens))
    versions = [
        Version("decoded", decoded, float(TOKEN_RATE * TOKEN_BITS)),
        Version("opus-6k", *opus.round_trip(audio, opus.SIX_KBIT)),
    ]
    page.add(recording, audio, versions)
    file = MucEncoder(StreamHeader(nano.name, nano.weights, nano.digest, seed=0))
    return file.title(title) + file.tokens(tokens) + file.finish(audio.shape[1])


def build(out: Path, docs: Path, seconds: float) -> Path:
    """Write the site into ``out``; returns its first page.

    Raises MusicError, OpusError, CodecError, UserError, OSError.
    """
    page, nano = ListeningPage(out), codec.load("nano")
    recordings = []
    for number, (title, path) in enumerate(EXCERPTS.items(), 1):
        print(f"{number}/{len(EXCERPTS)} {title}", file=sys.stderr, flush=True)
        recordings.append(out / f"{path.stem}.muc")
        recordings[-1].write_bytes(add_excerpt(page, nano, title, path, seconds))
    export_page(out / "player", recordings)
    for copied in recordings:
        copied.unlink()
    shutil.copytree(docs, out / "docs", ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True)
    index = out / "index.html"
    body = f"{NAVIGATION}<main>\n{page.sections()}</main>\n"
    page_html = document(TITLE, INTRODUCTION, body, icon="player/icon.svg")
    index.write_text(page_html, encoding="utf-8")
    return index


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="make site", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("build/site"), help="where to")
    parser.add_argument(
        "--docs", type=Path, default=Path("build/docs"), help="what `make docs` built"
    )
    parser.add_argument("--seconds", type=float, default=20, help="of each excerpt (20)")
    options = parser.parse_args(argv)
    if options.seconds < SHORTEST_S:
        parser.error(f"--seconds must be at least {SHORTEST_S:g}")
    if not (options.docs / "index.html").is_file():
        parser.error(f"there is no documentation in {options.docs}; run: make docs")
    if said := opus.problem():
        parser.error(said)
    use_threads(1)
    try:
        index = build(options.out, options.docs, options.seconds)
    except (MusicError, opus.OpusError, CodecError, UserError, OSError) as error:
        parser.error(str(error))
    print(index)


if __name__ == "__main__":
    main()
