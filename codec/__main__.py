"""``python -m codec``: music to files of tokens and back, and weights before they are needed.

``encode``, ``decode`` and ``info`` are in :mod:`streaming.file_commands`; ``fetch`` is here.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take a second
    from streaming.start import start

    start("codec.__main__", "python -m codec")

import argparse
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import codec
from codec.errors import CodecError, WeightsError
from streaming.cli import program_name
from streaming.completion import add_completion_argument
from streaming.errors import UserError
from streaming.file_commands import add_commands, run_command
from streaming.start import complain, interruptible, say

if TYPE_CHECKING:
    from codec.base import Codec

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program_name("python -m codec"),
        description="Music to files of tokens and back; codecs' weights.",
    )
    add_completion_argument(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_commands(commands)
    fetch = commands.add_parser(
        "fetch",
        help="download, check and convert a codec's weights, or check those that are here",
        description="Afterwards the codec works without a network. Prints the weights file's path.",
    )
    fetch.add_argument("name", choices=codec.CODECS)
    fetch.add_argument(
        "--weights", type=Path, metavar="PATH", help="take the release's files from this folder"
    )
    fetch.add_argument("--repo", metavar="OWNER/NAME", help="repository on the hub")
    fetch.add_argument("--revision", metavar="REV", help="branch, tag or commit of the repository")
    fetch.add_argument(
        "--replace",
        action="store_true",
        help="take files that differ from those that were there at first",
    )
    fetch.add_argument("--cache", type=Path, metavar="DIR", help="instead of the user's cache")
    return parser


def main(argv: Sequence[str] | None = None, load_codec: Callable[..., Codec] = codec.load) -> int:
    """Run a command; returns the exit code: 0, 2 where it could not be done, 130 on Ctrl-C."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        if arguments.command != "fetch":
            run_command(arguments, load_codec)
            return 0
        if arguments.cache is not None:
            os.environ["MUSIC350_CACHE"] = str(arguments.cache)
        path, digest = _fetch(arguments)
        say(str(path))
    except (CodecError, UserError, OSError) as error:
        complain(f"codec: {error}")
        return 2
    except KeyboardInterrupt:
        again = "; the same command goes on where this one stopped"
        complain(f"codec: interrupted{again if arguments.command == 'fetch' else ''}")
        return 130
    complain(f"{arguments.name} is here (SHA-256 {digest})")
    return 0


def _fetch(arguments: argparse.Namespace) -> tuple[Path, str]:
    """Path and digest of the weights."""
    if arguments.name == "nano":
        from codec.nano.codec import load_nano
        from codec.nano.weights import BUNDLED

        if arguments.repo or arguments.revision or arguments.replace:
            raise WeightsError(
                "nano comes with the program and is on no hub; leave out --repo, --revision and "
                "--replace"
            )
        return arguments.weights or BUNDLED, load_nano(arguments.weights).digest
    from codec.mucodec import weights

    with interruptible():
        if arguments.weights is not None:
            if arguments.repo or arguments.revision:
                raise WeightsError("--weights names files here; leave out --repo and --revision")
            return weights.convert_folder(arguments.weights)
        return weights.fetch(
            arguments.repo or weights.REPOSITORY, arguments.revision, replace=arguments.replace
        )
