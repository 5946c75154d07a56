#!/usr/bin/env python3
"""Listens to music at 350 bits per second: from a WebSocket or an MQTT broker to the sound card, a
file or a pipe.

With --save alone it records the stream as it is, and needs no model.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import codec
from codec.constants import SAMPLE_RATE
from codec.sampling import SOLVERS
from streaming.cli import (
    add_auth_arguments,
    add_common_arguments,
    check_address,
    codec_loader,
    number,
    parse,
    program_name,
    run_program,
)
from streaming.compute import settle
from streaming.decoding import DecodeOptions
from streaming.devices import list_devices
from streaming.errors import SettingsError
from streaming.guard import read_auth_tokens
from streaming.hub import Hub
from streaming.lean.cli import add_lean_arguments, lean_dial
from streaming.lean.connection import LeanDial
from streaming.link import Backoff, Dial, Link, Messages
from streaming.listener import Listener
from streaming.listener_settings import CatchUp, ListenerSettings
from streaming.mqtt.address import is_mqtt
from streaming.mqtt.cli import add_broker_arguments, broker_of, list_broker
from streaming.muc import MUC_SUFFIX, MucReader
from streaming.output import Output
from streaming.playback import FileConnection, load_hub
from streaming.protocol import MAX_SEED
from streaming.recorder import Recorder
from streaming.recording import Recording, record
from streaming.report import ListenerReport, process_age_s
from streaming.session import CodecIdentity, ListenerSession
from streaming.signals import set_on_signals, unless
from streaming.sinks import FileSink, RawSink, Sink, SoundCardSink
from streaming.sinks.soundcard import MAX_VOLUME
from streaming.stats import StatsWriter, Traffic
from streaming.status import StatusLine
from streaming.timeline import StartAt
from streaming.tls import client_context
from streaming.web.clock_card import ClockCard
from streaming.web.console import DEFAULT_PORT, Console
from streaming.web.controls import ListenerControls
from streaming.web.monitor import Monitor
from streaming.websocket import connect
from streaming.worker import call_on_thread

if TYPE_CHECKING:
    from codec.base import Codec

logger = logging.getLogger(__name__)

DEFAULT_URL: Final = "ws://127.0.0.1:8765"


@dataclass(frozen=True)
class Preset:
    """What ``--preset`` stands for; times in seconds, hop in tokens (None: the codec's own)."""

    margin_s: float
    hop: int | None
    prefill_s: float
    device_latency_s: float


PRESETS: Final = {
    "default": Preset(margin_s=0.5, hop=None, prefill_s=0.1, device_latency_s=0.1),
    "low-latency": Preset(margin_s=0.2, hop=8, prefill_s=0.02, device_latency_s=0.04),
}


def main(argv: Sequence[str] | None = None, load_codec: Callable[..., Codec] = codec.load) -> int:
    """Run the listener; returns the exit code: 0, or 2 where it could not go on."""
    arguments = parse_arguments(argv)
    status = StatusLine()

    def body() -> None:
        if arguments.list_devices:
            print("\n".join(map(str, list_devices())) or "There is no sound device.")
        elif arguments.list:
            print(asyncio.run(list_broker(arguments.mqtt or arguments.url, arguments)))
        else:
            asyncio.run(run(arguments, load_codec, status))

    return run_program(program_name("client.py"), arguments, status, body)


async def run(
    arguments: argparse.Namespace, load_codec: Callable[..., Codec], status: StatusLine
) -> None:
    """Wire connection, codec and sinks together, and end them on Ctrl-C or SIGTERM."""
    if arguments.wait and arguments.reconnect == 0:
        raise SettingsError("--wait needs more than --reconnect 0 allows; leave one of them out.")
    dial, traffic = find_sender(arguments)
    stop = asyncio.Event()
    settings = make_settings(arguments)
    recorder = None if arguments.save is None else Recorder(arguments.save, settings.limit_samples)
    if recorder is not None and not (arguments.play or arguments.out or arguments.web is not None):
        with StatsWriter(arguments.stats) as stats, set_on_signals(stop):
            await record_stream(recorder, dial, traffic, arguments, settings, stats, status, stop)
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
        output = open_output(arguments)
        recording = None if recorder is None else Recording(recorder)
        try:
            expected = await unless(stop, call_on_thread(load, arguments.codec))
            if expected is None:
                return
            if isinstance(dial, LeanDial):
                dial.known.append(CodecIdentity(expected.name, expected.weights, expected.digest))
            observe = None if recording is None else recording.take
            listener = Listener(output, expected, load=load, settings=settings, observe=observe)
            listener.session.traffic = traffic
            connect_at_s = time.monotonic()
            connection = None if arguments.wait else await unless(stop, dial())
            if connection is not None or (arguments.wait and not stop.is_set()):
                connected_s = None if connection is None else process_age_s()
                report = ListenerReport(listener, connect_at_s, connected_s)
                retry = dial if arguments.reconnect != 0 else None
                page = open_page(arguments, output, listener, report)
                async with page or contextlib.nullcontext():
                    with go_live_on_signal(listener):
                        await listen(listener, connection, retry, report, stats, status, stop)
        finally:
            if recording is not None:
                await recording.close("the recording was stopped")
            await output.close()


async def record_stream(
    recorder: Recorder,
    dial: Dial,
    traffic: Traffic,
    arguments: argparse.Namespace,
    settings: ListenerSettings,
    stats: StatsWriter,
    status: StatusLine,
    stop: asyncio.Event,
) -> None:
    """Record and decode nothing; goes on in a file that is there already."""
    join = settings.start.join(settings.history_tokens, settings.client)
    if settings.start.live:
        join = recorder.join(join)
    session = ListenerSession(None, join=join, auth_token=settings.auth_token)
    session.traffic = traffic
    connection = None if arguments.wait else await unless(stop, dial())
    if connection is not None or (arguments.wait and not stop.is_set()):
        retry = dial if arguments.reconnect != 0 else None
        link = Link(session, connection, retry, backoff=settings.backoff)
        await record(link, Recording(recorder), stats, status, stop)


async def listen(
    listener: Listener,
    connection: Messages | None,
    dial: Dial | None,
    report: ListenerReport,
    stats: StatsWriter,
    status: StatusLine,
    stop: asyncio.Event,
) -> None:
    """Listen until the end or until ``stop``, and report meanwhile and afterwards."""
    reporting = asyncio.ensure_future(report.run(status, stats))
    listening = asyncio.ensure_future(listener.run(connection, dial))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({listening, stopping}, return_when=asyncio.FIRST_COMPLETED)
        listener.stop()
        await listening
    finally:
        figures, summary = report.figures(), report.summary()
        reporting.cancel()
        stopping.cancel()
        await asyncio.gather(reporting, stopping, return_exceptions=True)
        status.close()
        logger.info("%s", summary)
        stats.write(figures, final=True)


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


def open_output(arguments: argparse.Namespace) -> Output:
    """The sinks that the arguments name. Raises SinkError or DeviceError."""
    if not (arguments.play or arguments.out or arguments.web is not None):
        raise SettingsError(
            "Give --play for the sound card, --web for a browser or --out FILE for a file; or "
            "--save FILE.muc to record without decoding."
        )
    files: list[Sink] = [RawSink() if name == "-" else FileSink(name) for name in arguments.out]
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


def make_settings(arguments: argparse.Namespace) -> ListenerSettings:
    """What the arguments ask of the listener."""
    preset = PRESETS[arguments.preset]
    seconds: float | None = arguments.seconds
    start = StartAt.parse(arguments.start)
    if start.live and arguments.mqtt is None and names_file(arguments.url):
        start = StartAt(token=0)  # a file is the past from its beginning on
    catch_up = arguments.catch_up or ("speed" if start.live else "none")
    return ListenerSettings(
        start=start,
        auth_token=next(
            iter(read_auth_tokens(arguments.auth_token, arguments.auth_token_file)), ""
        ),
        catch_up=CatchUp(catch_up),
        backoff=Backoff(attempts=arguments.reconnect),
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


def find_sender(arguments: argparse.Namespace) -> tuple[Dial, Traffic]:
    """How to connect, and how to count what then arrives. Raises UserError."""
    url: str = arguments.url
    elsewhere = url != DEFAULT_URL or arguments.mqtt is not None
    if (lean := lean_dial(arguments, elsewhere=elsewhere)) is not None:
        return lean, lean.traffic
    if arguments.mqtt is not None:
        if url != DEFAULT_URL:
            raise SettingsError("Choose either the address of a sender or --mqtt, not both.")
        url = arguments.mqtt
    elif names_file(url):
        return dial_file(url), Traffic()
    if arguments.mqtt is None and not is_mqtt(url):
        check_address(url)
        return functools.partial(connect, url, tls=client_context(url, arguments.ca)), Traffic()
    address, tls = broker_of(url, arguments)
    from streaming.mqtt.connection import connect_mqtt
    from streaming.mqtt.wire import listener_traffic

    return functools.partial(connect_mqtt, address, tls), listener_traffic(address)


def names_file(url: str) -> bool:
    """Whether it is a recording and no address."""
    return "://" not in url and Path(url).suffix.lower() == MUC_SUFFIX


def dial_file(path: str) -> Dial:
    """Hands a .muc file out as if it came from a sender. Raises SourceError where it is none."""
    MucReader(path)
    loaded: list[Hub] = []

    async def dial() -> FileConnection:
        if not loaded:
            loaded.append(await call_on_thread(load_hub, path))
        return FileConnection(loaded[0])

    return dial


def join_place(argv: Sequence[str]) -> list[str]:
    """``--from -10m`` as ``--from=-10m``: argparse would take the place for another option, and a
    word after ``--web`` for its port."""
    words = list(argv)
    for index, word in enumerate(words[:-1]):
        if word == "--from" and words[index + 1][:2].lstrip("-").isdecimal():
            words[index : index + 2] = [f"--from={words[index + 1]}"]
            break
    if "--web" in words[:-1] and not words[words.index("--web") + 1].isdecimal():
        words[words.index("--web")] = f"--web={DEFAULT_PORT}"
    return words


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; exits with 2 and one sentence on what it cannot mean."""
    parser = argparse.ArgumentParser(prog=program_name("client.py"), description=__doc__)
    parser.add_argument(
        "url",
        nargs="?",
        default=DEFAULT_URL,
        metavar="URL|FILE.muc",
        help="of the sender, or a recording: %(default)s",
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
        "--web",
        nargs="?",
        const=DEFAULT_PORT,
        type=number(int, 0, 65_535),
        metavar="PORT",
        help="a page on this machine to watch, to control and to listen in a browser "
        f"(port {DEFAULT_PORT}, 0 for any free one); works without a sound card",
    )
    parser.add_argument(
        "--save",
        type=Path,
        metavar="FILE.muc",
        help="record the tokens; alone it needs no model. Goes on where the file ends, if that is "
        "of the same stream",
    )
    parser.add_argument(
        "--seconds",
        type=number(float, 0, 1e9),
        metavar="N",
        help="end after so much sound (default: play until the stream ends)",
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
        "--reconnect",
        type=number(int, 0, 1_000_000),
        metavar="N",
        help="give up after N vain attempts in a row to come back (default: never)",
    )
    parser.add_argument(
        "--wait",
        action="store_true",
        help="wait for a sender that is not there yet, as for one that has gone",
    )
    parser.add_argument(
        "--catch-up",
        choices=[way.value for way in CatchUp],
        help="after an outage play a little faster, jump to live, or stay behind "
        "(default: speed; with --from none)",
    )
    parser.add_argument("--device", help="sound output: number or part of its name")
    parser.add_argument("--list-devices", action="store_true", help="show sound devices and end")
    parser.add_argument(
        "--volume",
        type=number(float, 0, MAX_VOLUME),
        default=1.0,
        metavar="V",
        help="of the sound card, a factor (default: %(default)s)",
    )
    parser.add_argument(
        "--preset",
        choices=sorted(PRESETS),
        default="default",
        help="low-latency keeps less in reserve and decodes shorter windows",
    )
    parser.add_argument(
        "--buffer",
        type=number(float, 0, 60),
        metavar="S",
        help="seconds of sound in reserve against late packets, at least (default: by the preset)",
    )
    parser.add_argument(
        "--most-buffer",
        type=number(float, 0, 60),
        default=8.0,
        metavar="S",
        help="and at most, where packets come unevenly (default: %(default)g)",
    )
    parser.add_argument(
        "--seed",
        type=number(int, 0, MAX_SEED),
        metavar="N",
        help="of the decoder's noise (default: the sender's)",
    )
    parser.add_argument(
        "--steps", type=number(int, 0, 1000), metavar="N", help="of the flow-matching decoder"
    )
    parser.add_argument(
        "--guidance", type=number(float, 0, 100), metavar="G", help="scale; 1 is none"
    )
    parser.add_argument(
        "--temperature", type=number(float, 0, 10), metavar="T", help="of the decoder's noise"
    )
    parser.add_argument(
        "--solver",
        choices=sorted(SOLVERS),
        default="euler",
        help="of the flow-matching decoder; all but euler take two evaluations a step",
    )
    parser.add_argument(
        "--warp",
        type=number(float, 0.1, 10),
        default=1.0,
        metavar="W",
        help="of its time steps; above 1, those near noise are smaller (default: 1, uniform)",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile mucodec's decoder before listening: a minute, then faster on a GPU",
    )
    for name, lowest, what in (
        ("hop", 1, "sound made at a time"),
        ("context", 0, "known sound before it"),
        ("lookahead", 0, "provisional sound after it"),
    ):
        parser.add_argument(
            f"--{name}",
            type=number(int, lowest, 1024),
            metavar="N",
            help=f"of decoder windows, {what}, in tokens of 40 ms (default: by preset and codec)",
        )
    add_auth_arguments(parser, "name it to a sender that asks for it")
    parser.add_argument(
        "--ca",
        type=Path,
        metavar="FILE",
        help="trust these certificates of wss:// senders and mqtts:// brokers, PEM",
    )
    add_broker_arguments(parser, sends=False)
    add_lean_arguments(parser, sends=False)
    add_common_arguments(parser, "decoding")
    return parse(parser, "client", join_place(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
