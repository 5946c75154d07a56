"""The parts of a listener that its arguments name: where it listens, what it plays on, its page."""

from __future__ import annotations

import argparse

from streaming.audio.sinks import FileSink, RawSink, Sink, SoundCardSink
from streaming.cli.client_arguments import DEFAULT_URL
from streaming.cli.oneway import lean_dial
from streaming.errors import SettingsError
from streaming.listening import Origin, find
from streaming.receive.listener import Listener
from streaming.receive.output import Output
from streaming.receive.settings import PRESETS
from streaming.stream.timeline import StartAt
from streaming.support.guard import SERVE_TOKEN_VARIABLE, AuthTokens, read_auth_tokens
from streaming.transports.mqtt.address import MqttAddress
from streaming.web.clock_card import ClockCard
from streaming.web.console import Console
from streaming.web.controls import ListenerControls
from streaming.web.gateway import Gateway
from streaming.web.monitor import Monitor

__all__ = ["find_stream", "open_gateway", "open_output", "open_page"]


async def find_stream(arguments: argparse.Namespace, start: StartAt) -> Origin:
    """Where the stream comes from. Raises UserError."""
    url: str = arguments.url
    elsewhere = url != DEFAULT_URL or arguments.mqtt is not None
    if (lean := lean_dial(arguments, elsewhere=elsewhere)) is not None:
        return Origin(lean, lean.traffic, start)
    if arguments.mqtt is not None:
        if url != DEFAULT_URL:
            raise SettingsError("Choose either the address of a sender or --mqtt, not both.")
        url = arguments.mqtt
        MqttAddress.parse(url)
    return await find(
        url,
        start,
        timeout_s=arguments.timeout,
        ca=arguments.ca,
        cert=arguments.mqtt_cert,
        key=arguments.mqtt_key,
        user=arguments.mqtt_user,
        password_file=arguments.mqtt_password_file,
        force=arguments.force,
    )


def open_gateway(arguments: argparse.Namespace) -> Gateway | None:
    """What ``--serve`` asks for; to be entered before it is written to. Raises SettingsError."""
    if arguments.serve is None:
        return None
    tokens = read_auth_tokens(
        arguments.serve_token, arguments.serve_token_file, SERVE_TOKEN_VARIABLE
    )
    host, port = arguments.serve
    return Gateway(host, port, AuthTokens(tokens))


def open_output(arguments: argparse.Namespace, gateway: Gateway | None = None) -> Output:
    """The sinks that the arguments name. Raises SinkError or DeviceError."""
    if not (arguments.play or arguments.out or arguments.web is not None or gateway):
        raise SettingsError(
            "Give --play for the sound card, --web for a browser, --serve PORT for any player or "
            "--out FILE for a file; or --save FILE.muc to record without decoding."
        )
    files: list[Sink] = [
        RawSink() if name == "-" else FileSink(name, overwrite=arguments.overwrite)
        for name in arguments.out
    ]
    if gateway is not None:
        files.append(gateway)
    if not arguments.play:
        paced = ClockCard() if gateway is not None or arguments.web is not None else None
        return Output(files, paced if paced is None or arguments.web is None else Monitor(paced))
    preset = PRESETS[arguments.preset]
    wanted: str | None = arguments.device
    card = SoundCardSink(
        device=int(wanted) if wanted is not None and wanted.isdecimal() else wanted,
        volume=arguments.volume,
        prefill_s=preset.prefill_s,
        device_latency_s=preset.device_latency_s,
    )
    return Output(files, card if arguments.web is None else Monitor(card))


def open_page(arguments: argparse.Namespace, output: Output, listener: Listener) -> Console | None:
    """The page of ``--web``, where it is wanted."""
    monitor = output.card
    if not isinstance(monitor, Monitor):
        return None
    card = monitor.card
    plays = card if isinstance(card, SoundCardSink) else None
    controls = ListenerControls(listener, plays)
    return Console(monitor, controls, arguments.web)
