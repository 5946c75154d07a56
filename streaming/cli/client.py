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
from streaming.cli.client_arguments import make_settings, read_arguments
from streaming.cli.client_wiring import find_stream, open_gateway, open_output, open_page
from streaming.cli.common import (
    check_wait,
    codec_loader,
    program_name,
    run_program,
)
from streaming.cli.mqtt import list_broker
from streaming.cli.start import say
from streaming.cli.watching import Figures, process_age_s, watched
from streaming.files.recorder import Recorder
from streaming.files.recording import Recording, record
from streaming.listening import Origin, tokens
from streaming.receive.listener import Listener
from streaming.receive.settings import ListenerSettings
from streaming.stream.listener_session import CodecIdentity
from streaming.stream.timeline import StartAt
from streaming.support.compute import settle
from streaming.support.signals import run_loop, set_on_signals, unless
from streaming.support.stats import StatsWriter
from streaming.support.status_line import (
    StatusLine,
    format_bit_rate,
    format_seconds,
    printable,
)
from streaming.support.worker import call_model
from streaming.transports.oneway.connection import LeanDial

if TYPE_CHECKING:
    from codec.base import Codec
    from streaming.web.gateway import Gateway


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
        recording = None if recorder is None else Recording(recorder)
        try:
            expected = await unless(stop, call_model(load, arguments.codec))
            if expected is None:
                return
            if isinstance(origin.dial, LeanDial):
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
            async with (
                watched(
                    lambda: {**listener.figures(), "connected_s": connected_s},
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
    join = settings.start.join(settings.history_tokens, settings.client)
    if settings.start.live:
        join = recorder.join(join)
    async with contextlib.AsyncExitStack() as stack:
        entering = stack.enter_async_context(tokens(origin, settings, join=join))
        if (stream := await unless(stop, entering)) is not None:
            await record(stream, Recording(recorder), stats, status, stop)


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
