"""How many listeners one Mosquitto carries: sender, broker and ``--listeners`` subscribers here.

    python -m benchmarks.mqtt_fanout --listeners 5000 --seconds 20

The sender is the real one; the subscribers are plain sockets that say as little as MQTT allows, all
in this process. What they take from the machine is missing to the broker, so every figure is a
lower bound of what the broker can do on a machine of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import socket
import statistics
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from streaming.errors import TransportError
from streaming.hub import Hub, StreamInfo
from streaming.mqtt.address import MqttAddress, stream_tag
from streaming.mqtt.publisher import MqttPublisher, MqttSettings

__all__ = ["Result", "measure"]

_PACKET_TOKENS: Final = 25
_TOPIC: Final = "radio/jazz"
_CONNACK, _PUBLISH, _SUBACK, _UNSUBACK = 2, 3, 9, 11


@dataclass
class Result:
    """listeners, dropped: subscribers, and packets that did not reach one. p50_ms, p99_ms: from the
    sender's hub to a subscriber. join_p99_ms: from dialling to the window. broker_cpu_s: a second
    of stream; load_cpu_s: the same of this process, sender included. rss_per_listener_bytes: of the
    broker.
    """

    listeners: int
    dropped: int
    packets: int
    p50_ms: float
    p99_ms: float
    join_p99_ms: float
    broker_cpu_s: float
    load_cpu_s: float
    rss_per_listener_bytes: int


def packet(kind: int, body: bytes) -> bytes:
    """An MQTT packet; its length takes as many bytes as it needs."""
    length, left = bytearray(), len(body)
    while True:
        left, low = divmod(left, 128)
        length.append(low | (128 if left else 0))
        if not left:
            return bytes([kind]) + bytes(length) + body


def text(value: str) -> bytes:
    """A string as MQTT writes it."""
    return struct.pack(">H", len(value)) + value.encode()


class Subscriber(asyncio.Protocol):
    """Connects, takes the retained window, then counts what comes live.

    arrived: called with the index of each packet's first token.
    """

    def __init__(self, live: str, window: str, arrived: Callable[[int], None]) -> None:
        self._live = live
        self._window = window
        self._arrived = arrived
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        # Version 5, a clean start, no keepalive, no properties, a name that the broker makes.
        transport.write(packet(0x10, text("MQTT") + bytes([5, 2, 0, 0, 0]) + text("")))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if not self.ready.done():
            self.ready.set_exception(TransportError("The broker hung up."))

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= 2:
            length, size, shift = 0, 1, 0
            while True:
                if size >= len(buffer):
                    return
                length |= (buffer[size] & 127) << shift
                shift += 7
                size += 1
                if not buffer[size - 1] & 128:
                    break
            if len(buffer) < size + length:
                return
            self._take(buffer[0] >> 4, bytes(buffer[size : size + length]))
            del buffer[: size + length]

    def _take(self, kind: int, body: bytes) -> None:
        assert self._transport is not None
        if kind == _CONNACK:
            wanted = b"".join(text(topic) + b"\0" for topic in (self._live, self._window))
            self._transport.write(packet(0x82, b"\0\1\0" + wanted))
        elif kind == _PUBLISH:
            (topic_bytes,) = struct.unpack_from(">H", body)
            topic = body[2 : 2 + topic_bytes].decode()
            payload = body[3 + topic_bytes + body[2 + topic_bytes] :]
            if topic == self._live:
                if payload[0] == 1:  # tokens, not an event
                    self._arrived(struct.unpack_from(">I", payload, 1)[0])
            elif not self.ready.done():
                self._transport.write(packet(0xA2, b"\0\2\0" + text(self._window)))
                self.ready.set_result(None)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()


def cpu_s(pid: int) -> float:
    """Seconds of computing of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid: int) -> int:
    """Memory that a process has in use."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def measure(port: int, pid: int, listeners: int, seconds: float, joins: float) -> Result:
    """Stream to ``listeners`` subscribers at the broker on ``port``, which is process ``pid``."""
    hub = Hub(StreamInfo("nano", "nano-1", "a" * 64, 0, _PACKET_TOKENS, "benchmark"))
    address = MqttAddress.parse(f"mqtt://127.0.0.1:{port}/{_TOPIC}")
    tag = stream_tag(hub.info)
    published_s: dict[int, float] = {}
    delays_s: list[float] = []
    join_s: list[float] = []
    measured_from = 1 << 32
    loop = asyncio.get_running_loop()

    def publish() -> None:
        published_s[hub.next_token] = time.perf_counter()
        tokens = np.arange(hub.next_token, hub.next_token + _PACKET_TOKENS) % 16_384
        hub.publish(tokens, time.monotonic(), 0.3, time.time())

    def arrived(first_token: int) -> None:
        if first_token >= measured_from:
            delays_s.append(time.perf_counter() - published_s[first_token])

    async def play() -> None:
        due_s = loop.time()
        while True:
            publish()
            due_s += 1.0
            await asyncio.sleep(max(0.0, due_s - loop.time()))

    def subscriber() -> Subscriber:
        return Subscriber(address.live(tag), address.window(tag), arrived)

    async def join() -> Subscriber:
        start_s = time.perf_counter()
        _, joined = await loop.create_connection(subscriber, "127.0.0.1", port)
        await joined.ready
        join_s.append(time.perf_counter() - start_s)
        return joined

    async with MqttPublisher(hub, MqttSettings(address)):
        playing = asyncio.ensure_future(play())
        await asyncio.sleep(0.5)
        empty_bytes = rss_bytes(pid)
        joining = []
        for _ in range(listeners):
            joining.append(asyncio.ensure_future(join()))
            await asyncio.sleep(1 / joins)
        everyone = await asyncio.gather(*joining)
        await asyncio.sleep(2.0)
        measured_from = hub.next_token
        before, load = cpu_s(pid), time.process_time()
        await asyncio.sleep(seconds)
        playing.cancel()
        busy, load = cpu_s(pid) - before, time.process_time() - load
        packets = (hub.next_token - measured_from) // _PACKET_TOKENS
        full_bytes = rss_bytes(pid)
        await asyncio.sleep(1.0)  # what is still under way
        hub.end("over", time.monotonic())
    for one in everyone:
        one.close()
    cuts = statistics.quantiles(delays_s, n=100)
    return Result(
        listeners=listeners,
        dropped=listeners * packets - len(delays_s) + sum(one.lost for one in everyone),
        packets=packets,
        p50_ms=round(1000 * cuts[49], 1),
        p99_ms=round(1000 * cuts[98], 1),
        join_p99_ms=round(1000 * statistics.quantiles(join_s, n=100)[98], 1),
        broker_cpu_s=round(busy / seconds, 4),
        load_cpu_s=round(load / seconds, 4),
        rss_per_listener_bytes=round((full_bytes - empty_bytes) / listeners),
    )


def main() -> None:
    """Start a broker, measure, end it."""
    parser = argparse.ArgumentParser(prog="benchmarks.mqtt_fanout", description=__doc__)
    parser.add_argument("--listeners", type=int, nargs="+", default=[1000], metavar="N")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S")
    parser.add_argument("--joins", type=float, default=200.0, metavar="N", help="a second")
    parser.add_argument("--json", action="store_true", help="one object a line")
    arguments = parser.parse_args()
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
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
