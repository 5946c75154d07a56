"""The listener's command line: its options, and what they come to."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from codec.constants import SAMPLE_RATE
from codec.sampling import SOLVERS
from streaming.audio.sinks.soundcard import MAX_VOLUME
from streaming.cli.common import (
    add_auth_arguments,
    add_common_arguments,
    add_decoder_arguments,
    add_token_arguments,
    number,
    parse,
    program_name,
)
from streaming.cli.mqtt import add_broker_arguments
from streaming.cli.oneway import add_oneway_arguments
from streaming.cli.preset_file import PRESET_NAMES, preset_name
from streaming.cli.serving import add_serving_arguments
from streaming.receive.decoding import DecodeOptions
from streaming.receive.settings import PRESETS, CatchUp, ListenerSettings
from streaming.stream.timeline import StartAt
from streaming.support.guard import SERVE_TOKEN_VARIABLE, read_auth_tokens
from streaming.transports.reconnecting import Backoff
from streaming.transports.websocket.client import TIMEOUT_S
from streaming.wire.messages import MAX_SEED

__all__ = ["DEFAULT_URL", "make_parser", "make_settings", "read_arguments"]

DEFAULT_URL: Final = "ws://127.0.0.1:8765"
_WEB_PORT: Final = 8766
_MOST_PORT: Final = 65_535


def read_arguments(description: str | None, argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; exits with 2 and one sentence on what it cannot mean."""
    parser = make_parser(description)
    return parse(parser, "client", _join_values(sys.argv[1:] if argv is None else argv))


def make_parser(description: str | None = None) -> argparse.ArgumentParser:
    """Every option of the listener, in groups."""
    parser = argparse.ArgumentParser(prog=program_name("client.py"), description=description)
    _add_ends(parser.add_argument_group("from where, and where to"))
    _add_serving(parser.add_argument_group("any player, and who may listen with one"))
    _add_place(parser.add_argument_group("from when, until when, and after an outage"))
    _add_sound(parser.add_argument_group("the sound card, and the reserve for it"))
    _add_decoder(parser.add_argument_group("the decoder and its windows"))
    _add_access(parser.add_argument_group("access and trust"))
    add_broker_arguments(parser, sends=False)
    add_oneway_arguments(parser, sends=False)
    add_common_arguments(parser, "decoding")
    return parser


def _add_ends(parser: argparse._ArgumentGroup) -> None:
    """Where the stream comes from, and where it goes."""
    parser.add_argument(
        "url",
        nargs="?",
        default=DEFAULT_URL,
        metavar="URL|FILE.muc",
        help="a sender's address, or a recording (default: %(default)s)",
    )
    parser.add_argument("--play", action="store_true", help="play on the sound card")
    parser.add_argument(
        "--out",
        action="append",
        default=[],
        metavar="FILE",
        help="write a file (wav, flac, ogg, opus); - writes bare float32 samples, left and right "
        "in turns, to standard output",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="write over files of --out that are there already"
    )
    parser.add_argument(
        "--web",
        nargs="?",
        const=_WEB_PORT,
        type=number(int, 0, 65_535),
        metavar="PORT",
        help="a page on this machine to watch, to control and to listen in a browser "
        f"(port {_WEB_PORT}, 0 for any free one); works without a sound card",
    )
    parser.add_argument(
        "--save",
        type=Path,
        metavar="FILE.muc",
        help="record the tokens; alone it needs no model. Goes on where the file ends, if that is "
        "of the same stream",
    )


def _add_serving(parser: argparse._ArgumentGroup) -> None:
    """Any player, and who may listen with one."""
    parser.add_argument(
        "--serve",
        type=_port,
        metavar="[HOST:]PORT",
        help="let any player hear it as an Internet radio, in Opus, MP3 or FLAC: "
        "http://HOST:PORT/, on this machine alone if no other host is given; needs ffmpeg",
    )
    add_token_arguments(
        parser,
        "--serve-token",
        "let in only players that name it as the password of a user of any name",
        SERVE_TOKEN_VARIABLE,
    )
    add_serving_arguments(parser)


def _port(text: str) -> tuple[str, int]:
    """Host and port of ``[HOST:]PORT``; without a host this machine."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if colon else "127.0.0.1"
    if not host or not port.isdecimal() or int(port) > _MOST_PORT:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no place to serve at; write 8000, 0.0.0.0:8000 or [::]:8000"
        )
    return host, int(port)


def _add_place(parser: argparse._ArgumentGroup) -> None:
    """Where in the stream to begin and to end, and how to stay in it."""
    parser.add_argument(
        "--seconds",
        type=number(float, 0, 1e9),
        metavar="N",
        help="end after so many seconds of sound (default: when the stream ends)",
    )
    parser.add_argument(
        "--from",
        dest="start",
        default="live",
        metavar="PLACE",
        help="begin at live, -10m, 2026-11-22T20:00 or token:12345 (default: %(default)s); "
        "SIGUSR1 goes back to live",
    )
    parser.add_argument(
        "--force", action="store_true", help="play a recording even if most of it is missing"
    )
    parser.add_argument(
        "--reconnect",
        type=number(int, 0, 1_000_000),
        metavar="N",
        help="give up after N failed attempts in a row to reconnect; 0: at once (default: never)",
    )
    parser.add_argument(
        "--wait",
        action="store_true",
        help="wait for a sender that is not there yet, as for one that was lost",
    )
    parser.add_argument(
        "--timeout",
        type=number(float, 0.1, 3600),
        default=TIMEOUT_S,
        metavar="S",
        help="seconds to connect and to get an answer; slow links need more (default: %(default)g)",
    )
    parser.add_argument(
        "--catch-up",
        choices=[way.value for way in CatchUp],
        help="after an outage play a little faster, jump to live, or stay behind "
        "(default: speed; with --from none)",
    )


def _add_sound(parser: argparse._ArgumentGroup) -> None:
    """The sound card, and what is kept in reserve for it."""
    parser.add_argument("--device", help="sound output: number or part of its name")
    parser.add_argument("--list-devices", action="store_true", help="show sound devices and end")
    parser.add_argument(
        "--volume",
        type=number(float, 0, MAX_VOLUME),
        default=1.0,
        metavar="V",
        help="volume of the sound card, a factor (default: %(default)s)",
    )
    parser.add_argument(
        "--preset",
        type=preset_name,
        choices=PRESET_NAMES,
        default="default",
        metavar="NAME",
        help="default, low-latency (keeps less in reserve and decodes shorter windows), or a "
        "file made by benchmarks.lab.tune",
    )
    parser.add_argument(
        "--buffer",
        type=number(float, 0, 60),
        metavar="S",
        help="least reserve of sound against late packets, in seconds (default: by the preset)",
    )
    parser.add_argument(
        "--most-buffer",
        type=number(float, 0, 60),
        default=8.0,
        metavar="S",
        help="largest reserve, if packets come unevenly (default: %(default)g)",
    )


def _add_decoder(parser: argparse._ArgumentGroup) -> None:
    """The decoder and its windows."""
    parser.add_argument(
        "--seed",
        type=number(int, 0, MAX_SEED),
        metavar="N",
        help="seed of the decoder's noise (default: the sender's)",
    )
    parser.add_argument(
        "--steps", type=number(int, 0, 1000), metavar="N", help="steps of the flow-matching decoder"
    )
    parser.add_argument(
        "--guidance", type=number(float, 0, 100), metavar="G", help="its guidance scale; 1 is none"
    )
    parser.add_argument(
        "--temperature",
        type=number(float, 0, 10),
        metavar="T",
        help="deviation of the noise it starts from",
    )
    parser.add_argument(
        "--solver",
        choices=sorted(SOLVERS),
        default="euler",
        help="its solver; all but euler take two evaluations a step (default: %(default)s)",
    )
    parser.add_argument(
        "--warp",
        type=number(float, 0.1, 10),
        default=1.0,
        metavar="W",
        help="above 1, its time steps near noise are smaller; below 1, those near music "
        "(default: 1, uniform)",
    )
    add_decoder_arguments(parser)
    for name, lowest, what in (
        ("hop", 1, "sound made at a time"),
        ("context", 0, "known sound before it"),
        ("lookahead", 0, "provisional sound after it"),
    ):
        parser.add_argument(
            f"--{name}",
            type=number(int, lowest, 1024),
            metavar="N",
            help=f"decoder windows: {what}, in tokens of 40 ms (default: by preset and codec)",
        )


def _add_access(parser: argparse._ArgumentGroup) -> None:
    """What lets the listener in, and whom it trusts."""
    add_auth_arguments(parser, "access token, for a sender that asks for one")
    parser.add_argument(
        "--ca",
        type=Path,
        metavar="FILE",
        help="trust these certificates of wss:// senders and mqtts:// brokers, PEM",
    )


def _join_values(argv: Sequence[str]) -> list[str]:
    """``--from -10m`` as ``--from=-10m``.

    argparse would take the place for another option, and a word after ``--web`` for its port.
    """
    words = list(argv)
    for index, word in enumerate(words[:-1]):
        if word == "--from" and words[index + 1][:2].lstrip("-").isdecimal():
            words[index : index + 2] = [f"--from={words[index + 1]}"]
            break
    if "--web" in words[:-1] and not words[words.index("--web") + 1].isdecimal():
        words[words.index("--web")] = f"--web={_WEB_PORT}"
    return words


def make_settings(arguments: argparse.Namespace) -> ListenerSettings:
    """What the arguments ask of the listener."""
    preset = PRESETS[arguments.preset]
    seconds: float | None = arguments.seconds
    start = StartAt.parse(arguments.start)
    catch_up = arguments.catch_up or ("speed" if start.live else "none")
    return ListenerSettings(
        start=start,
        auth_token=next(
            iter(read_auth_tokens(arguments.auth_token, arguments.auth_token_file)), ""
        ),
        catch_up=CatchUp(catch_up),
        backoff=Backoff(attempts=arguments.reconnect),
        wait=arguments.wait,
        hello_timeout_s=arguments.timeout,
        margin_s=preset.margin_s if arguments.buffer is None else arguments.buffer,
        most_margin_s=arguments.most_buffer,
        limit_samples=None if seconds is None else round(seconds * SAMPLE_RATE),
        client="client.py",
        decode=DecodeOptions(
            seed=arguments.seed,
            steps=arguments.steps,
            guidance=arguments.guidance,
            temperature=arguments.temperature,
            solver=arguments.solver,
            warp=arguments.warp,
            hop=preset.hop if arguments.hop is None else arguments.hop,
            context=arguments.context,
            lookahead=arguments.lookahead,
        ),
    )
