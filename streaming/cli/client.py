"""Listens to music at 350 bits per second, on the sound card, to a file or to a pipe.

It comes from a WebSocket server, an MQTT broker, a one-way link or a recording. With --save alone
it is recorded as it is, which needs no model.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import codec
from codec.constants import SAMPLE_RATE
from streaming.audio.devices import list_devices
from streaming.audio.sinks import FileSink, RawSink, Sink, SoundCardSink
from streaming.cli.client_arguments import DEFAULT_URL, make_settings, read_arguments
from streaming.cli.common import (
    check_wait,
    codec_loader,
    program_name,
    run_program,
)
from streaming.cli.mqtt import list_broker
from streaming.cli.oneway import oneway_dial
from streaming.cli.serving import make_serving
from streaming.cli.start import say
from streaming.cli.watching import Figures, process_age_s, watched
from streaming.errors import SettingsError
from streaming.listening import Origin, find, tokens
from streaming.receive.listener import Listener
from streaming.receive.output import Output, SoundCard
from streaming.receive.settings import PRESETS, ListenerSettings
from streaming.stream.listener_session import CodecIdentity
from streaming.stream.timeline import StartAt
from streaming.support.compute import settle
from streaming.support.guard import SERVE_TOKEN_VARIABLE, AuthTokens, read_auth_tokens
from streaming.support.signals import run_loop, set_on_signals
from streaming.support.stats import LoopStall, StatsWriter
from streaming.support.status_line import (
    StatusLine,
    format_bit_rate,
    format_seconds,
    printable,
)
from streaming.support.tasks import beside, unless
from streaming.support.worker import call_model
from streaming.transports.link import Link
from streaming.transports.mqtt.address import MqttAddress

if TYPE_CHECKING:
    from codec.base import Codec
    from streaming.files.recorder import Recorder
    from streaming.web.console import Console
    from streaming.web.gateway import Gateway

# What not every listener needs is imported where it is used: so it is connected sooner.


def main(argv: Sequence[str] | None = None, load_codec: Callable[..., Codec] = codec.load) -> int:
    """Run the listener; returns the exit code: 0, or 2 where it could not go on."""
    arguments = parse_arguments(argv)
    status = StatusLine()

    def body() -> None:
        if arguments.list_devices:
            say("\n".join(map(str, list_devices())) or "There is no sound device.")
        elif arguments.list:
            say(run_loop(list_broker(arguments.mqtt or arguments.url, arguments)))
        else:
            run_loop(run(arguments, load_codec, status))

    return run_program(program_name("client.py"), arguments, status, body)


async def run(
    arguments: argparse.Namespace, load_codec: Callable[..., Codec], status: StatusLine
) -> None:
    """Listen or record as the arguments say, with the gateway open meanwhile if there is one."""
    gateway = open_gateway(arguments)
    async with gateway or contextlib.nullcontext():
        await _run(arguments, load_codec, status, gateway)


async def _run(
    arguments: argparse.Namespace,
    load_codec: Callable[..., Codec],
    status: StatusLine,
    gateway: Gateway | None,
) -> None:
    """Wire connection, codec and sinks together, and end them on Ctrl-C or SIGTERM."""
    check_wait(arguments)
    stop = asyncio.Event()
    settings = make_settings(arguments)
    origin = await find_stream(arguments, settings.start)
    settings = replace(settings, start=origin.start)
    recorder = None
    plays = bool(arguments.play or arguments.out or arguments.web is not None or gateway)
    if arguments.save is not None:
        from streaming.files.recorder import Recorder

        limit, start = settings.limit_samples, settings.start
        recorder = Recorder(arguments.save, limit, start=start, waits=plays)
    if recorder is not None and not plays:
        with StatsWriter(arguments.stats) as stats, set_on_signals(stop):
            await record_stream(recorder, origin, settings, stats, status, stop)
        return
    fetch = codec_loader(arguments, load_codec, "decoder")

    def load(name: str) -> Codec:
        if arguments.torch_device is None:
            codec.require_live_decoding(name)
        loaded = fetch(name)
        loaded.warm_up(settings.decode.window(loaded), settings.decode.settings())
        settle()
        return loaded

    with StatsWriter(arguments.stats) as stats, set_on_signals(stop):
        output = open_output(arguments, gateway)
        recording = None
        if recorder is not None:
            from streaming.files.recording import Recording

            recording = Recording(recorder)
        try:
            expected = await unless(stop, call_model(load, arguments.codec))
            if expected is None:
                return
            if arguments.serial is not None or arguments.udp is not None:
                from streaming.transports.oneway.connection import OneWayDial

                assert isinstance(origin.dial, OneWayDial)
                origin.dial.known.append(
                    CodecIdentity(expected.name, expected.weights, expected.digest)
                )
            listener = Listener(
                origin.dial,
                expected,
                output,
                load=load,
                settings=settings,
                traffic=origin.traffic,
                observe=None if recording is None else recording.take,
                begun=None if recording is None else recording.hear,
            )
            if gateway is not None:
                gateway.title = lambda: listener.title
            entered = contextlib.AsyncExitStack()
            if await unless(stop, entered.enter_async_context(listener)) is None:
                return
            connected_s = None if settings.wait else process_age_s()
            stall = LoopStall()
            async with (
                beside(stall.watch()),
                watched(
                    lambda: {
                        **listener.figures(),
                        "connected_s": connected_s,
                        "max_loop_stall_ms": stall.longest_ms,
                    },
                    functools.partial(parts, listener),
                    functools.partial(summary, listener),
                    status,
                    stats,
                ),
                open_page(arguments, output, listener) or contextlib.nullcontext(),
                entered,  # left first: the last figures are those of a listener that has ended
            ):
                with go_live_on_signal(listener):
                    await unless(stop, listener.play())
        finally:
            if recording is not None:
                await recording.close("the recording was stopped")
            await output.close()


async def record_stream(
    recorder: Recorder,
    origin: Origin,
    settings: ListenerSettings,
    stats: StatsWriter,
    status: StatusLine,
    stop: asyncio.Event,
) -> None:
    """Record and decode nothing; goes on in a file that is there already."""
    from streaming.files.recording import Recording, record

    join = settings.start.join(settings.history_tokens, settings.client)
    if settings.start.live:
        join = recorder.join(join)
    async with contextlib.AsyncExitStack() as stack:
        entering = stack.enter_async_context(tokens(origin, settings, join=join))
        if (stream := await unless(stop, entering)) is None:
            return
        recording = Recording(recorder)
        stall = LoopStall()
        async with (
            beside(stall.watch()),
            watched(
                lambda: {**recording.figures(stream), "max_loop_stall_ms": stall.longest_ms},
                functools.partial(recorded_parts, stream),
                functools.partial(recorded_summary, stream, recorder),
                status,
                stats,
            ),
        ):
            await record(stream, recording, stop)


def parts(listener: Listener, figures: Figures) -> list[str]:
    """What the status line shows of a listener, the most important first."""
    rtf = figures["decode_rtf"]
    shown = [
        f"buffer {format_seconds(figures['buffer_s'])}",
        f"{format_bit_rate(figures['payload_bits_per_s'])}",
        f"wire {format_bit_rate(figures['wire_bits_per_s'])}",
        f"underruns {figures['underruns']}",
        f"real-time factor {'-' if rtf is None else f'{rtf:.2f}'}",
        f"latency {format_seconds(figures['latency_s'])}",
    ]
    if figures["reconnects"]:
        shown.insert(1, f"reconnects {figures['reconnects']}")
    if not listener.connected:
        shown.insert(0, "no connection")
    if figures["lost_tokens"]:
        shown.insert(1, f"lost tokens {figures['lost_tokens']}")
    return shown


def summary(listener: Listener, figures: Figures) -> str:
    """One line about all that was heard."""
    played = format_seconds(figures["samples"] / SAMPLE_RATE)
    lost = figures["lost_tokens"]
    received = f"{figures['tokens']} tokens received" + (f", {lost} lost" if lost else "")
    ended = printable(listener.end_reason or "")
    return ", ".join(
        [
            f"{played} of sound",
            received,
            *parts(listener, figures)[1:],
            *([f"ended: {ended}"] if ended else []),
        ]
    )


def recorded_parts(link: Link, figures: Figures) -> list[str]:
    """What the status line shows of a recording, the most important first."""
    shown = [
        f"recorded {format_seconds(figures['samples'] / SAMPLE_RATE)}",
        f"{figures['bytes']} bytes",
        format_bit_rate(figures["payload_bits_per_s"]),
        f"wire {format_bit_rate(figures['wire_bits_per_s'])}",
    ]
    if link.away:
        shown.insert(0, "no connection")
    if figures["lost_tokens"]:
        shown.append(f"lost tokens {figures['lost_tokens']}")
    if figures["reconnects"]:
        shown.append(f"reconnects {figures['reconnects']}")
    return shown


def recorded_summary(link: Link, recorder: Recorder, figures: Figures) -> str:
    """One line about the whole recording."""
    parts = ", ".join(recorded_parts(link, figures))
    return f"{parts}, in {printable(str(recorder.path), 300)}"


@contextlib.contextmanager
def go_live_on_signal(listener: Listener) -> Iterator[None]:
    """SIGUSR1 brings a listener that is behind back to the live edge."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError, AttributeError):
        loop.add_signal_handler(signal.SIGUSR1, listener.go_to, StartAt())
    try:
        yield
    finally:
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError, AttributeError):
            loop.remove_signal_handler(signal.SIGUSR1)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; exits with 2 and one sentence on what it cannot mean."""
    return read_arguments(__doc__, argv)


async def find_stream(arguments: argparse.Namespace, start: StartAt) -> Origin:
    """Where the stream comes from. Raises UserError."""
    url: str = arguments.url
    elsewhere = url != DEFAULT_URL or arguments.mqtt is not None
    if (oneway := oneway_dial(arguments, elsewhere=elsewhere)) is not None:
        return Origin(oneway, oneway.traffic, start)
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
    serving = make_serving(arguments)
    if arguments.serve is None:
        if serving.tls or serving.origins or serving.proxies:
            raise SettingsError(
                "--tls-cert, --allow-origin and --trust-proxy are for --serve; give that as well, "
                "or leave them out."
            )
        return None
    secrets = read_auth_tokens(
        arguments.serve_token, arguments.serve_token_file, SERVE_TOKEN_VARIABLE
    )
    host, port = arguments.serve
    from streaming.web.gateway import Gateway

    return Gateway(
        host,
        port,
        AuthTokens(secrets),
        serving.limits,
        serving.origins,
        serving.proxies,
        serving.tls,
    )


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
    card: SoundCard | None = None
    if arguments.play:
        preset = PRESETS[arguments.preset]
        wanted: str | None = arguments.device
        card = SoundCardSink(
            device=int(wanted) if wanted is not None and wanted.isdecimal() else wanted,
            volume=arguments.volume,
            prefill_s=preset.prefill_s,
            device_latency_s=preset.device_latency_s,
        )
    elif gateway is not None or arguments.web is not None:
        from streaming.web.clock_card import ClockCard

        card = ClockCard()
    if card is not None and arguments.web is not None:
        from streaming.web.monitor import Monitor

        card = Monitor(card)
    return Output(files, card)


def open_page(arguments: argparse.Namespace, output: Output, listener: Listener) -> Console | None:
    """The page of ``--web``, if it is wanted."""
    if arguments.web is None:
        return None
    from streaming.web.console import Console
    from streaming.web.controls import ListenerControls
    from streaming.web.monitor import Monitor

    monitor = output.card
    assert isinstance(monitor, Monitor)
    card = monitor.card
    plays = card if isinstance(card, SoundCardSink) else None
    controls = ListenerControls(listener, plays)
    return Console(monitor, controls, arguments.web)
