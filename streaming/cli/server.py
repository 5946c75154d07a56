"""Streams music at 350 bits per second over a WebSocket, and to an MQTT broker: files, an Internet
radio, a pipe, a sound input, or a stream that there is already, at a sender or at a broker.

What is encoded already, in ``.muc`` files or by another sender, is sent on without a model.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
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
from streaming.cli.server_arguments import make_outlets, make_settings, read_arguments
from streaming.cli.server_report import parts, summary
from streaming.cli.watching import watched
from streaming.errors import SettingsError
from streaming.files.muc import MUC_SUFFIX, muc_files
from streaming.send.broadcast import Broadcast
from streaming.send.forwarding import Upstream
from streaming.send.settings import ServiceSettings
from streaming.stream.hub import Hub
from streaming.support.guard import UPSTREAM_TOKEN_VARIABLE, read_auth_tokens
from streaming.support.signals import run_loop, set_on_signals
from streaming.support.stats import StatsWriter
from streaming.support.status_line import StatusLine
from streaming.support.tls import client_context
from streaming.transports.mqtt.address import MqttAddress, is_mqtt
from streaming.transports.reconnecting import Backoff
from streaming.transports.websocket import check_address
from streaming.transports.websocket.outlet import WebSocket
from streaming.wire.messages import StreamInfo

if TYPE_CHECKING:
    from codec.base import Codec
    from streaming.audio.sources import Source
    from streaming.send.replay import MucPlaylist
    from streaming.transports.link import Dial
    from streaming.transports.outlet import Outlet

logger = logging.getLogger(__name__)

_OWN = ("loop", "shuffle", "title", "seed", "packet_tokens")  # of a stream that begins here
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
    """Wire source, codec and outlets together, and end them on Ctrl-C or SIGTERM."""
    settings, outlets = make_settings(arguments), make_outlets(arguments)
    stop = asyncio.Event()
    with StatsWriter(arguments.stats) as stats, set_on_signals(stop):
        if arguments.accept_push:
            refuse_beside(arguments, "--accept-push", "reconnect", "upstream_token", *_OWN)
            await serve_publishers(outlets, settings, stats, status, stop)
            return
        source, load = make_source(arguments), codec_loader(arguments, load_codec, "encoder")
        encoder = functools.partial(load, arguments.codec)
        await air(Broadcast(source, encoder, outlets, settings, stop=stop), stats, status)


async def air(broadcast: Broadcast, stats: StatsWriter, status: StatusLine) -> None:
    """Broadcast until the end, and report on it meanwhile and afterwards."""
    async with broadcast as on_air:
        if on_air.figures():  # otherwise it was stopped before it was on the air
            async with watched(on_air.figures, parts, summary, status, stats):
                await on_air.finished()


async def serve_publishers(
    outlets: Sequence[Outlet],
    settings: ServiceSettings,
    stats: StatsWriter,
    status: StatusLine,
    stop: asyncio.Event,
) -> None:
    """Broadcast what is pushed here, stream after stream."""
    websocket, *others = outlets
    assert isinstance(websocket, WebSocket)
    assert websocket.intake is not None
    silence = Hub(StreamInfo("", "", "", packet_tokens=1), max_lag_s=settings.max_lag_s)
    async with websocket(silence) as server:
        # The intake itself waits, so that nothing else has to.
        backoff = Backoff(0.0, 0.0)
        publisher = Upstream(websocket.intake.dial, backoff=backoff, anybody=True)
        while not stop.is_set():
            logger.info("waiting for a publisher")
            on_air = [replace(websocket, server=server), *others]
            await air(Broadcast(publisher, None, on_air, settings, stop=stop), stats, status)


def make_source(
    arguments: argparse.Namespace,
) -> Source | Callable[[], MucPlaylist] | Upstream:
    """What the arguments want to be streamed; nothing is opened yet."""
    if any(is_address(song) for song in arguments.songs):
        refuse_beside(arguments, "the address of another sender", *_OWN)
        return make_upstream(arguments)
    if any(holds_tokens(song) for song in arguments.songs):
        return make_playlist(arguments)
    return make_sound(arguments)


def make_upstream(arguments: argparse.Namespace) -> Upstream:
    """The other sender that the arguments name."""
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
    """Raise SettingsError if an option was given that means nothing beside ``what``."""
    for name in ("capture", "raw", "hop", "lookahead", "weights", *names):
        given = getattr(arguments, name)
        if given is not None and given is not False:  # a seed of 0 is given
            option = name.replace("_", "-")
            raise SettingsError(f"--{option} means nothing beside {what}; leave it out.")


def make_sound(arguments: argparse.Namespace) -> Source:
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
