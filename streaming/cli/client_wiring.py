"""The parts of a listener that its arguments name: where it listens, what it plays on, its page."""

from __future__ import annotations

import argparse
import functools

from streaming.audio.sinks import FileSink, RawSink, Sink, SoundCardSink
from streaming.cli.client_arguments import DEFAULT_URL, names_file
from streaming.cli.common import check_address
from streaming.cli.mqtt import broker_of
from streaming.cli.oneway import lean_dial
from streaming.errors import SettingsError
from streaming.files.playback import FileConnection, load_hub, place_in
from streaming.receive.listener import Listener
from streaming.receive.output import Output
from streaming.receive.report import ListenerReport
from streaming.receive.settings import PRESETS
from streaming.stream.timeline import StartAt
from streaming.support.stats import Traffic
from streaming.support.tls import client_context
from streaming.support.worker import call_on_thread
from streaming.transports.link import Dial
from streaming.transports.mqtt.address import is_mqtt
from streaming.transports.websocket import connect
from streaming.web.clock_card import ClockCard
from streaming.web.console import Console
from streaming.web.controls import ListenerControls
from streaming.web.monitor import Monitor

__all__ = ["find_sender", "find_stream", "open_output", "open_page"]


async def find_stream(
    arguments: argparse.Namespace, start: StartAt
) -> tuple[Dial, Traffic, StartAt]:
    """How to connect, how to count what then arrives, and where to begin, which in a recording is a
    token. Raises UserError."""
    if arguments.mqtt is None and names_file(arguments.url):
        hub = await call_on_thread(load_hub, arguments.url, force=arguments.force)

        async def dial() -> FileConnection:
            return FileConnection(hub)

        return dial, Traffic(), place_in(hub, start)
    return *find_sender(arguments), start


def find_sender(arguments: argparse.Namespace) -> tuple[Dial, Traffic]:
    """How to connect to a sender or a broker, and how to count what arrives. Raises UserError."""
    url: str = arguments.url
    elsewhere = url != DEFAULT_URL or arguments.mqtt is not None
    if (lean := lean_dial(arguments, elsewhere=elsewhere)) is not None:
        return lean, lean.traffic
    if arguments.mqtt is not None:
        if url != DEFAULT_URL:
            raise SettingsError("Choose either the address of a sender or --mqtt, not both.")
        url = arguments.mqtt
    if arguments.mqtt is None and not is_mqtt(url):
        check_address(url)
        tls = client_context(url, arguments.ca)
        return functools.partial(connect, url, arguments.timeout, tls=tls), Traffic()
    address, tls = broker_of(url, arguments)
    from streaming.transports.mqtt.connection import connect_mqtt
    from streaming.transports.mqtt.wire import listener_traffic

    return functools.partial(connect_mqtt, address, tls), listener_traffic(address)


def open_output(arguments: argparse.Namespace) -> Output:
    """The sinks that the arguments name. Raises SinkError or DeviceError."""
    if not (arguments.play or arguments.out or arguments.web is not None):
        raise SettingsError(
            "Give --play for the sound card, --web for a browser or --out FILE for a file; or "
            "--save FILE.muc to record without decoding."
        )
    files: list[Sink] = [
        RawSink() if name == "-" else FileSink(name, overwrite=arguments.overwrite)
        for name in arguments.out
    ]
    if not arguments.play:
        return Output(files) if arguments.web is None else Output(files, Monitor(ClockCard()))
    preset = PRESETS[arguments.preset]
    wanted: str | None = arguments.device
    card = SoundCardSink(
        device=int(wanted) if wanted is not None and wanted.isdecimal() else wanted,
        volume=arguments.volume,
        prefill_s=preset.prefill_s,
        device_latency_s=preset.device_latency_s,
    )
    return Output(files, card if arguments.web is None else Monitor(card))


def open_page(
    arguments: argparse.Namespace, output: Output, listener: Listener, report: ListenerReport
) -> Console | None:
    """The page of ``--web``, where it is wanted."""
    monitor = output.card
    if not isinstance(monitor, Monitor):
        return None
    card = monitor.card
    plays = card if isinstance(card, SoundCardSink) else None
    controls = ListenerControls(listener, report, plays)
    return Console(monitor, controls, arguments.web)
