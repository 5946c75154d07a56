#!/usr/bin/env python3
"""Streams music at 350 bits per second over a WebSocket, and to an MQTT broker: files, a pipe, a
sound input, or a stream that there is already.

What is encoded already, in ``.muc`` files or by another sender, is sent on without a model.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import codec
from streaming.cli import (
    add_auth_arguments,
    add_common_arguments,
    check_address,
    codec_loader,
    is_address,
    number,
    parse,
    program_name,
    run_program,
)
from streaming.errors import SettingsError
from streaming.guard import UPSTREAM_TOKEN_VARIABLE, Limits, read_auth_tokens
from streaming.hub import MAX_LAG_S
from streaming.lean.cli import add_lean_arguments, lean_settings
from streaming.mqtt.cli import add_broker_arguments, publisher_settings
from streaming.muc import MUC_SUFFIX, muc_files
from streaming.protocol import MAX_SEED, MAX_TOKENS_PER_MESSAGE
from streaming.service import PRESETS, ServiceSettings, serve
from streaming.signals import set_on_signals
from streaming.stats import StatsWriter
from streaming.status import StatusLine
from streaming.timeline import parse_duration_s
from streaming.tls import client_context, server_context

if TYPE_CHECKING:
    from codec.base import Codec
    from streaming.forwarding import Upstream
    from streaming.replay import MucPlaylist
    from streaming.sources import Source

Send = Callable[[ServiceSettings, StatsWriter, StatusLine, asyncio.Event], Awaitable[None]]

DEMO_TRACK = Path(__file__).parent / "streaming" / "data" / "demo.ogg"


def main(argv: Sequence[str] | None = None, load_codec: Callable[..., Codec] = codec.load) -> int:
    """Run the sender; returns the exit code: 0, or 2 where it could not go on."""
    arguments = parse_arguments(argv)
    status = StatusLine()
    return run_program(
        program_name("server.py"),
        arguments,
        status,
        lambda: asyncio.run(run(arguments, load_codec, status)),
    )


async def run(
    arguments: argparse.Namespace, load_codec: Callable[..., Codec], status: StatusLine
) -> None:
    """Wire source, codec and server together, and end them on Ctrl-C or SIGTERM."""
    settings = ServiceSettings(
        host=arguments.host,
        port=arguments.port,
        preset=PRESETS[arguments.preset],
        packet_tokens=arguments.packet_tokens,
        seed=arguments.seed,
        rewind_s=parse_duration_s(arguments.rewind),
        store=arguments.store,
        max_lag_s=arguments.max_lag,
        auth_tokens=read_auth_tokens(arguments.auth_token, arguments.auth_token_file),
        limits=Limits(arguments.max_listeners, arguments.max_per_address),
        origins=arguments.allow_origin,
        tls=server_context(arguments.tls_cert, arguments.tls_key),
        hop=arguments.hop,
        lookahead=arguments.lookahead,
        mqtt=publisher_settings(arguments),
        lean=lean_settings(arguments),
    )
    send = make_sender(arguments, load_codec)
    stop = asyncio.Event()
    with StatsWriter(arguments.stats) as stats, set_on_signals(stop):
        await send(settings, stats, status, stop)


def make_sender(arguments: argparse.Namespace, load_codec: Callable[..., Codec]) -> Send:
    """What runs until the stream ends, by what the arguments name; nothing is opened yet."""
    if any(is_address(song) for song in arguments.songs):
        from streaming.forwarding import serve_upstream

        return functools.partial(serve_upstream, make_upstream(arguments))
    if any(holds_tokens(song) for song in arguments.songs):
        from streaming.forwarding import serve_files

        return functools.partial(serve_files, make_playlist(arguments))
    load = codec_loader(arguments, load_codec, "encoder")
    return functools.partial(serve, make_source(arguments), lambda: load(arguments.codec))


def make_upstream(arguments: argparse.Namespace) -> Upstream:
    """The other sender that the arguments name."""
    from streaming.forwarding import Upstream
    from streaming.link import Backoff
    from streaming.websocket import connect

    own = ("loop", "shuffle", "title", "seed", "packet_tokens")
    refuse_beside(arguments, "the address of another sender", *own)
    if len(arguments.songs) > 1:
        raise SettingsError("Another sender's stream cannot be mixed with anything else.")
    (url,) = arguments.songs
    check_address(url)
    secrets = read_auth_tokens(
        arguments.upstream_token, arguments.upstream_token_file, UPSTREAM_TOKEN_VARIABLE
    )
    return Upstream(
        functools.partial(connect, url, tls=client_context(url, arguments.ca)),
        next(iter(secrets), ""),
        Backoff(attempts=arguments.reconnect),
    )


def make_playlist(arguments: argparse.Namespace) -> Callable[[], MucPlaylist]:
    """Opens the .muc files that the arguments name."""
    from streaming.replay import MucPlaylist

    refuse_beside(arguments, ".muc files")
    if not all(holds_tokens(song) for song in arguments.songs):
        raise SettingsError(
            "Files of tokens (.muc) and of sound cannot be mixed; encode the others first: "
            "python -m codec encode."
        )
    return functools.partial(
        MucPlaylist,
        muc_files(arguments.songs),
        loop=arguments.loop,
        shuffle=arguments.shuffle,
        title=arguments.title,
    )


def holds_tokens(song: str) -> bool:
    """Whether it is a .muc file, or a folder with such files and no other music."""
    path = Path(song)
    if not path.is_dir():
        return path.suffix.lower() == MUC_SUFFIX
    if not muc_files([path]):
        return False
    from streaming.sources.files import audio_files

    return not audio_files(path)


def refuse_beside(arguments: argparse.Namespace, what: str, *names: str) -> None:
    """Raise SettingsError where an option was given that means nothing beside ``what``."""
    for name in ("capture", "raw", "hop", "lookahead", "weights", *names):
        given = getattr(arguments, name)
        if given is not None and given is not False:  # a seed of 0 is given
            option = name.replace("_", "-")
            raise SettingsError(f"--{option} means nothing beside {what}; leave it out.")


def make_source(arguments: argparse.Namespace) -> Source:
    """The source of sound that the arguments name; nothing is opened yet."""
    # Here and not above, since these bring libraries along that a stream of tokens does not need.
    from streaming.sources import CaptureSource, Playlist, RawFormat, StdinSource

    songs: list[str] = arguments.songs
    if arguments.capture is not None:
        if songs:
            raise SettingsError("Choose either songs or --capture, not both.")
        wanted = arguments.capture
        return CaptureSource(int(wanted) if wanted.isdecimal() else wanted or None, arguments.title)
    if "-" in songs:
        if len(songs) > 1:
            raise SettingsError("Standard input (-) cannot be mixed with songs.")
        raw = RawFormat.parse(arguments.raw) if arguments.raw else None
        return StdinSource(raw, arguments.title)
    if not songs:
        return Playlist([DEMO_TRACK], loop=True, title=arguments.title)
    return Playlist(songs, loop=arguments.loop, shuffle=arguments.shuffle, title=arguments.title)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; exits with 2 and one sentence on what it cannot mean."""
    parser = argparse.ArgumentParser(prog=program_name("server.py"), description=__doc__)
    parser.add_argument(
        "songs",
        nargs="*",
        metavar="SONG|FOLDER|FILE.muc|ws://…|-",
        help="what to stream; .muc files and another sender's stream need no model; - is standard "
        "input; nothing is the demo track, looped",
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
    parser.add_argument("--host", default="127.0.0.1", help="listen here (default: %(default)s)")
    parser.add_argument(
        "--port",
        type=number(int, 0, 65_535),
        default=8765,
        help="listen here, 0 for any free port (default: %(default)s)",
    )
    parser.add_argument(
        "--preset",
        choices=sorted(PRESETS),
        default="default",
        help="low-latency sends a packet every 0.32 s instead of every 1.92 s",
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
        help="of encoder windows, tokens made at a time (default: by preset and codec)",
    )
    parser.add_argument(
        "--lookahead",
        type=number(int, 0, 1024),
        metavar="N",
        help="of encoder windows, tokens of sound heard beyond the hop (default: by the codec)",
    )
    parser.add_argument(
        "--seed",
        type=number(int, 0, MAX_SEED),
        metavar="N",
        help="of the decoders' noise: same tokens and seed, same sound (default: the store's or 0)",
    )
    parser.add_argument(
        "--rewind",
        default="24h",
        metavar="DURATION",
        help="keep so much of the stream for listeners who come back or listen to the past: 90s, "
        "10m, 24h (default: %(default)s, 4.3 MB)",
    )
    parser.add_argument(
        "--store",
        type=Path,
        metavar="FOLDER",
        help="keep it on disk as well, and go on there when started again",
    )
    add_auth_arguments(parser, "let in only listeners that name it")
    parser.add_argument(
        "--upstream-token",
        metavar="SECRET",
        help="name it to the sender whose stream is served; better in the environment's "
        f"{UPSTREAM_TOKEN_VARIABLE} or in --upstream-token-file",
    )
    parser.add_argument(
        "--upstream-token-file", type=Path, metavar="FILE", help="the same from a file"
    )
    parser.add_argument(
        "--reconnect",
        type=number(int, 0, 1_000_000),
        metavar="N",
        help="give another sender up after N vain attempts in a row to come back (default: never)",
    )
    parser.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="encrypt (wss://): certificate chain, PEM"
    )
    parser.add_argument(
        "--tls-key", type=Path, metavar="FILE", help="its private key, unless in the same file"
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let a web page listen, such as https://radio.example; may be given more than once",
    )
    parser.add_argument(
        "--max-listeners",
        type=number(int, 1, 100_000),
        default=Limits.connections,
        metavar="N",
        help="connections at once (default: %(default)s)",
    )
    parser.add_argument(
        "--max-per-address",
        type=number(int, 1, 100_000),
        default=Limits.per_address,
        metavar="N",
        help="connections at once from one address (default: %(default)s)",
    )
    parser.add_argument(
        "--max-lag",
        type=number(float, 1, 3600),
        default=MAX_LAG_S,
        metavar="S",
        help="drop a listener that falls so many seconds behind (default: %(default)g)",
    )
    add_broker_arguments(parser, sends=True)
    add_lean_arguments(parser, sends=True)
    add_common_arguments(parser, "encoding")
    return parse(parser, "server", sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
