"""Streams music at 350 bits per second over a WebSocket, and to an MQTT broker: files, an Internet
radio, a pipe, a sound input, or a stream that there is already, at a sender or at a broker.

What is encoded already, in ``.muc`` files or by another sender, is sent on without a model.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import codec
from streaming.cli.common import (
    check_wait,
    codec_loader,
    is_address,
    program_name,
    run_program,
)
from streaming.cli.mqtt import broker_of
from streaming.cli.server_arguments import make_settings, read_arguments
from streaming.errors import SettingsError
from streaming.files.muc import MUC_SUFFIX, muc_files
from streaming.send.service import serve
from streaming.send.settings import ServiceSettings
from streaming.support.guard import UPSTREAM_TOKEN_VARIABLE, read_auth_tokens
from streaming.support.signals import run_loop, set_on_signals
from streaming.support.stats import StatsWriter
from streaming.support.status_line import StatusLine
from streaming.support.tls import client_context
from streaming.transports.mqtt.address import MqttAddress, is_mqtt
from streaming.transports.websocket import check_address

if TYPE_CHECKING:
    from codec.base import Codec
    from streaming.audio.sources import Source
    from streaming.send.forwarding import Upstream
    from streaming.send.replay import MucPlaylist
    from streaming.transports.link import Dial

Send = Callable[[ServiceSettings, StatsWriter, StatusLine, asyncio.Event], Awaitable[None]]

DEMO_TRACK = Path(__file__).parents[1] / "data" / "demo.ogg"


def main(argv: Sequence[str] | None = None, load_codec: Callable[..., Codec] = codec.load) -> int:
    """Run the sender; returns the exit code: 0, or 2 where it could not go on."""
    arguments = parse_arguments(argv)
    status = StatusLine()
    return run_program(
        program_name("server.py"),
        arguments,
        status,
        lambda: run_loop(run(arguments, load_codec, status)),
    )


async def run(
    arguments: argparse.Namespace, load_codec: Callable[..., Codec], status: StatusLine
) -> None:
    """Wire source, codec and server together, and end them on Ctrl-C or SIGTERM."""
    settings = make_settings(arguments)
    send = make_sender(arguments, load_codec)
    stop = asyncio.Event()
    with StatsWriter(arguments.stats) as stats, set_on_signals(stop):
        await send(settings, stats, status, stop)


def make_sender(arguments: argparse.Namespace, load_codec: Callable[..., Codec]) -> Send:
    """What runs until the stream ends, by what the arguments name; nothing is opened yet."""
    own = ("loop", "shuffle", "title", "seed", "packet_tokens")
    if arguments.accept_push:
        from streaming.send.forwarding import serve_publisher

        refuse_beside(arguments, "--accept-push", "reconnect", "upstream_token", *own)
        return serve_publisher
    if any(is_address(song) for song in arguments.songs):
        from streaming.send.forwarding import serve_upstream

        refuse_beside(arguments, "the address of another sender", *own)

        return functools.partial(serve_upstream, make_upstream(arguments))
    if any(holds_tokens(song) for song in arguments.songs):
        from streaming.send.forwarding import serve_files

        return functools.partial(serve_files, make_playlist(arguments))
    load = codec_loader(arguments, load_codec, "encoder")
    return functools.partial(serve, make_source(arguments), lambda: load(arguments.codec))


def make_upstream(arguments: argparse.Namespace) -> Upstream:
    """The other sender that the arguments name."""
    from streaming.send.forwarding import Upstream
    from streaming.transports.link import Backoff

    if len(arguments.songs) > 1:
        raise SettingsError("Another sender's stream cannot be mixed with anything else.")
    check_wait(arguments)
    secrets = read_auth_tokens(
        arguments.upstream_token, arguments.upstream_token_file, UPSTREAM_TOKEN_VARIABLE
    )
    return Upstream(
        dial_upstream(arguments),
        next(iter(secrets), ""),
        Backoff(attempts=arguments.reconnect),
        waits=arguments.wait,
    )


def dial_upstream(arguments: argparse.Namespace) -> Dial:
    """How to connect to it, directly or through a broker. Raises UserError."""
    (url,) = arguments.songs
    if not is_mqtt(url):
        from streaming.transports.websocket import connect

        check_address(url)
        return functools.partial(connect, url, tls=client_context(url, arguments.ca))
    address, tls = broker_of(url, arguments)
    if arguments.mqtt is not None and str(MqttAddress.parse(arguments.mqtt)) == str(address):
        raise SettingsError(
            f"{address} cannot be both where the stream comes from and where it goes; give --mqtt "
            "another topic, or leave it out."
        )
    from streaming.transports.mqtt.connection import connect_mqtt

    return functools.partial(connect_mqtt, address, tls)


def make_playlist(arguments: argparse.Namespace) -> Callable[[], MucPlaylist]:
    """Opens the .muc files that the arguments name."""
    from streaming.send.replay import MucPlaylist

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
    if "://" in song:
        return False
    path = Path(song)
    if not path.is_dir():
        return path.suffix.lower() == MUC_SUFFIX
    if not muc_files([path]):
        return False
    from streaming.audio.sources.files import audio_files

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
    from streaming.audio.sources import CaptureSource, Playlist, RawFormat, StdinSource

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
    return read_arguments(__doc__, argv)
