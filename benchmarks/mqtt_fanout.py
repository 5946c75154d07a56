"""How many listeners one Mosquitto carries: sender, broker and ``--listeners`` subscribers here.

    python -m benchmarks.mqtt_fanout --listeners 5000 --seconds 20

The sender is the real one; the subscribers are plain sockets that say as little as MQTT allows, in
a process of their own. What they take from the machine is missing to the broker, so every figure is
a lower bound of what the broker can do on a machine of its own. Delivery is timed from the moment
at which a packet is due.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.crowd import UNDER_WAY_S, Arrivals, lateness, percentile_ms, raise_file_limit
from benchmarks.mqtt_load import MqttLoad
from streaming.stream.hub import Hub
from streaming.transports.mqtt.address import MqttAddress, stream_tag
from streaming.transports.mqtt.publisher import Mqtt, MqttPublisher
from streaming.wire.messages import StreamInfo

__all__ = ["Result", "measure"]

_PACKET_TOKENS: Final = 25
_TOPIC: Final = "radio/jazz"


@dataclass
class Result:
    """What one run measured.

    Attributes:
        listeners: subscribers.
        dropped: of these, those that were lost or missed a packet.
        p50_ms, p99_ms: from the sender's hub to a subscriber.
        join_p99_ms: from dialling to the window.
        broker_cpu_s: of the broker, for a second of stream.
        load_cpu_s: the same of the subscribers.
        rss_per_listener_bytes: of the broker.
    """

    listeners: int
    dropped: int
    packets: int
    p50_ms: float
    p99_ms: float
    join_p99_ms: float
    joins_per_s: float
    broker_cpu_s: float
    load_cpu_s: float
    rss_per_listener_bytes: int


def cpu_s(pid: int) -> float:
    """Seconds of computing of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid: int) -> int:
    """Memory that a process has in use."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def measure(port: int, pid: int, listeners: int, seconds: float, joins: float) -> Result:
    """Stream to ``listeners`` subscribers at the broker on ``port``, which is process ``pid``."""
    hub = Hub(StreamInfo("nano", "nano-1", "a" * 64, 0, "benchmark", _PACKET_TOKENS))
    address = MqttAddress.parse(f"mqtt://127.0.0.1:{port}/{_TOPIC}")
    tag = stream_tag(hub.info)
    published: dict[int, float] = {}
    loop = asyncio.get_running_loop()

    async def play() -> None:
        due_s = time.monotonic()
        while True:
            published[hub.next_token // _PACKET_TOKENS] = due_s
            tokens = np.arange(hub.next_token, hub.next_token + _PACKET_TOKENS) % 16_384
            hub.publish(tokens, time.monotonic(), 0.3, time.time())
            due_s += 1.0
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    def answer() -> Any:
        try:
            return ours.recv()
        except EOFError:
            raise SystemExit("mqtt_fanout: the process of subscribers has ended early.") from None

    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    arguments = (theirs, port, listeners, joins, address.live(tag), address.window(tag))
    crowd = context.Process(target=_subscribe, args=arguments, daemon=True)
    async with MqttPublisher(hub, Mqtt(address)):
        playing = asyncio.ensure_future(play())
        try:
            await asyncio.sleep(0.5)
            empty_bytes = rss_bytes(pid)
            crowd.start()
            theirs.close()  # so that we notice when the other process ends
            await loop.run_in_executor(None, answer)
            await asyncio.sleep(2.0)
            first, before = hub.next_token // _PACKET_TOKENS, cpu_s(pid)
            await asyncio.sleep(seconds)
            busy = cpu_s(pid) - before
            measured = range(first, hub.next_token // _PACKET_TOKENS)
            full_bytes = rss_bytes(pid)
            await asyncio.sleep(UNDER_WAY_S)
            ours.send("stop")
            arrivals: Arrivals = await loop.run_in_executor(None, answer)
        finally:
            playing.cancel()
            if crowd.pid is not None:
                crowd.terminate()
                crowd.join()
        hub.end("over", time.monotonic())
    late_s, complete = lateness([arrivals], published, measured)
    return Result(
        listeners=listeners,
        dropped=listeners - complete,
        packets=len(measured),
        p50_ms=round(percentile_ms(late_s, 50), 1),
        p99_ms=round(percentile_ms(late_s, 99), 1),
        join_p99_ms=round(percentile_ms(np.array(arrivals.welcomes_s), 99), 1),
        joins_per_s=round(listeners / arrivals.joined_s, 1),
        broker_cpu_s=round(busy / seconds, 4),
        load_cpu_s=round(arrivals.cpu_s / seconds, 4),
        rss_per_listener_bytes=round((full_bytes - empty_bytes) / listeners),
    )


def _subscribe(
    pipe: Connection, port: int, count: int, joins_per_s: float, live: str, window: str
) -> None:
    """Be the subscribers, in a process of their own."""
    load = MqttLoad(
        port, count, joins_per_s, live=live, window=window, packet_tokens=_PACKET_TOKENS
    )
    load.join_all()
    pipe.send("joined")
    load.run(stop=pipe.poll)
    pipe.recv()
    pipe.send(load.arrivals())


def main() -> None:
    """Start a broker, measure, end it."""
    parser = argparse.ArgumentParser(prog="benchmarks.mqtt_fanout", description=__doc__)
    parser.add_argument("--listeners", type=int, nargs="+", default=[1000], metavar="N")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S")
    parser.add_argument("--joins", type=float, default=200.0, metavar="N", help="a second")
    parser.add_argument("--json", action="store_true", help="one object a line")
    arguments = parser.parse_args()
    raise_file_limit(max(arguments.listeners) + 256)
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None:
        raise SystemExit("This needs the Mosquitto broker: apt-get install mosquitto.")
    for listeners in arguments.listeners:
        with tempfile.TemporaryDirectory() as folder:
            result = _with_broker(program, Path(folder), listeners, arguments)
        values = asdict(result)
        if arguments.json:
            print(json.dumps(values))
        else:
            print(", ".join(f"{name} {value}" for name, value in values.items()))


def _with_broker(
    program: str, folder: Path, listeners: int, arguments: argparse.Namespace
) -> Result:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "mosquitto.conf"
    user = "user root\n" if os.geteuid() == 0 else ""
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n{user}log_dest none\n")
    broker = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        time.sleep(1.0)
        return asyncio.run(measure(port, broker.pid, listeners, arguments.seconds, arguments.joins))
    finally:
        broker.terminate()
        broker.wait()


if __name__ == "__main__":
    main()
