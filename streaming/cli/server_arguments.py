"""The sender's command line: its options, and what they come to."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from streaming.cli.common import (
    add_auth_arguments,
    add_common_arguments,
    add_token_arguments,
    number,
    parse,
    program_name,
)
from streaming.cli.mqtt import add_broker_arguments, mqtt_outlet
from streaming.cli.oneway import add_oneway_arguments, oneway_outlet
from streaming.cli.preset_file import PRESET_NAMES, preset_name
from streaming.cli.push import add_push_arguments, publish_tokens, push_outlet
from streaming.cli.serving import add_serving_arguments, make_serving
from streaming.send.settings import PRESETS, ServiceSettings
from streaming.stream.hub import MAX_LAG_S
from streaming.stream.timeline import parse_duration_s
from streaming.support.guard import UPSTREAM_TOKEN_VARIABLE, AuthTokens, read_auth_tokens
from streaming.transports.outlet import Outlet
from streaming.transports.push.intake import Intake
from streaming.transports.websocket.outlet import WebSocket
from streaming.wire.messages import MAX_SEED, MAX_TOKENS_PER_MESSAGE

__all__ = ["make_outlets", "make_parser", "make_settings", "read_arguments"]


def read_arguments(description: str | None, argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; exits with 2 and one sentence on what it cannot mean."""
    parser = make_parser(description)
    return parse(parser, "server", sys.argv[1:] if argv is None else argv)


def make_parser(description: str | None = None) -> argparse.ArgumentParser:
    """Every option of the sender, in groups."""
    parser = argparse.ArgumentParser(prog=program_name("server.py"), description=description)
    _add_sources(parser.add_argument_group("what to stream"))
    _add_address(parser.add_argument_group("where to listen"))
    _add_encoding(parser.add_argument_group("packets and windows"))
    _add_past(parser.add_argument_group("what is kept of the stream"))
    access = parser.add_argument_group("who may listen")
    add_auth_arguments(access, "admit only listeners that have this access token")
    _add_access(access)
    _add_upstream(parser.add_argument_group("relaying another sender"))
    add_push_arguments(parser)
    add_broker_arguments(parser, sends=True)
    add_oneway_arguments(parser, sends=True)
    add_common_arguments(parser, "encoding")
    return parser


def make_settings(arguments: argparse.Namespace) -> ServiceSettings:
    """What the arguments ask of the sender. Raises SettingsError."""
    return ServiceSettings(
        preset=PRESETS[arguments.preset],
        packet_tokens=arguments.packet_tokens,
        seed=arguments.seed,
        rewind_s=parse_duration_s(arguments.rewind),
        store=arguments.store,
        max_lag_s=arguments.max_lag,
        hop=arguments.hop,
        lookahead=arguments.lookahead,
        entropy_coding=arguments.entropy_coding,
    )


def make_outlets(arguments: argparse.Namespace) -> list[Outlet]:
    """Where the arguments want the stream to go, WebSocket listeners first. Raises UserError."""
    publishers = publish_tokens(arguments)
    serving = make_serving(arguments)
    websocket = WebSocket(
        arguments.host,
        arguments.port,
        read_auth_tokens(arguments.auth_token, arguments.auth_token_file),
        serving.limits,
        serving.origins,
        serving.proxies,
        serving.tls,
        arguments.web_player,
        Intake(AuthTokens(publishers)) if publishers else None,
    )
    others = (mqtt_outlet(arguments), push_outlet(arguments), oneway_outlet(arguments))
    return [websocket, *(outlet for outlet in others if outlet is not None)]


def _web_player(text: str) -> str:
    """Where pages load the player."""
    if text in ("here", "off"):
        return text
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither here, off nor an address such as https://radio.example/radio"
        )
    return text


def _add_sources(parser: argparse._ArgumentGroup) -> None:
    """What to stream."""
    parser.add_argument(
        "songs",
        nargs="*",
        metavar="SONG|FOLDER|http://…|FILE.muc|ws://…|mqtt://…|-",
        help="what to stream; http:// is an Internet radio, a file or a playlist on the web; .muc "
        "files and another sender's stream need no model; - is standard input; nothing is the demo "
        "track, looped",
    )
    parser.add_argument(
        "--capture",
        nargs="?",
        const="",
        metavar="DEVICE",
        help="stream a sound input: number or part of its name, the default one if not given",
    )
    parser.add_argument(
        "--raw",
        metavar="FORMAT",
        help="standard input is bare samples: s16 or f32, then rate and channels (s16:44100:2)",
    )
    parser.add_argument("--loop", action="store_true", help="start over at the end")
    parser.add_argument("--shuffle", action="store_true", help="play in random order")
    parser.add_argument("--title", help="announce this title instead of the songs' own")


def _add_address(parser: argparse._ArgumentGroup) -> None:
    """Where to listen."""
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--port",
        type=number(int, 0, 65_535),
        default=8765,
        help="port to listen on, 0 for any free one (default: %(default)s)",
    )


def _add_encoding(parser: argparse._ArgumentGroup) -> None:
    """Packets, windows and seed."""
    parser.add_argument(
        "--preset",
        type=preset_name,
        choices=PRESET_NAMES,
        default="default",
        metavar="NAME",
        help="default, low-latency (sends a packet every 0.32 s instead of every 1.92 s), or a "
        "file made by benchmarks.lab.tune",
    )
    parser.add_argument(
        "--packet-tokens",
        type=number(int, 1, MAX_TOKENS_PER_MESSAGE),
        metavar="N",
        help="tokens in a packet, 25 a second (default: by the preset)",
    )
    parser.add_argument(
        "--hop",
        type=number(int, 1, 1024),
        metavar="N",
        help="encoder windows: tokens made at a time (default: by preset and codec)",
    )
    parser.add_argument(
        "--lookahead",
        type=number(int, 0, 1024),
        metavar="N",
        help="encoder windows: tokens of sound seen beyond the hop (default: by the codec)",
    )
    parser.add_argument(
        "--seed",
        type=number(int, 0, MAX_SEED),
        metavar="N",
        help="seed of the decoders' noise: same tokens and seed, same sound "
        "(default: the store's, or 0)",
    )
    parser.add_argument(
        "--entropy-coding",
        action="store_true",
        help="send packets in fewer bits to listeners that accept them (nano's bundled weights, "
        "up to 128 tokens a packet; not through a broker)",
    )


def _add_past(parser: argparse._ArgumentGroup) -> None:
    """What is kept of the stream."""
    parser.add_argument(
        "--rewind",
        default="24h",
        metavar="DURATION",
        help="keep so much of the stream for listeners that reconnect or listen to the past: 90s, "
        "10m, 24h (default: %(default)s, 4.3 MB)",
    )
    parser.add_argument(
        "--store",
        type=Path,
        metavar="FOLDER",
        help="keep it on disk as well (5 MB a day), and resume there after a restart",
    )


def _add_upstream(parser: argparse._ArgumentGroup) -> None:
    """The way to another sender."""
    add_token_arguments(
        parser,
        "--upstream-token",
        "access token for the sender whose stream is served",
        UPSTREAM_TOKEN_VARIABLE,
    )
    parser.add_argument(
        "--reconnect",
        type=number(int, 0, 1_000_000),
        metavar="N",
        help="give up the other sender after N failed attempts in a row (default: never)",
    )
    parser.add_argument(
        "--wait",
        action="store_true",
        help="wait for another sender that is not there yet, as for one that was lost",
    )


def _add_access(parser: argparse._ArgumentGroup) -> None:
    """Who may listen, how many, and what their browsers load."""
    parser.add_argument(
        "--web-player",
        type=_web_player,
        default="here",
        metavar="here|off|URL",
        help="where the page loads what it takes to play, some 20 MB: from here (default); from "
        "nowhere, so that it does not play; from another station or web server with the same files",
    )
    add_serving_arguments(parser)
    parser.add_argument(
        "--max-lag",
        type=number(float, 1, 3600),
        default=MAX_LAG_S,
        metavar="S",
        help="drop a listener that falls this many seconds behind (default: %(default)g)",
    )
