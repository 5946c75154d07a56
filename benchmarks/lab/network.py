"""A simulated network for asyncio: TCP over a link with a rate, delay, jitter, losses and outages.

What programs write goes into segments with headers, takes its time on the link, may be lost, is
acknowledged and sent again, as TCP does it (RFC 9293, 5681 and 6298 with Linux's figures: a first
window of ten segments, a least retransmission timeout of 0.2 s, every segment acknowledged at
once, round trips measured by timestamps). Not simulated: selective acknowledgements and window
scaling.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from collections.abc import Callable
from typing import Final, cast

from benchmarks.lab.links import LinkModel
from benchmarks.lab.lossy import GilbertElliott

__all__ = ["DOWN", "IP_UDP_BYTES", "TCP_HEADER_BYTES", "UP", "Network", "SimulatedServer"]

TCP_HEADER_BYTES: Final = 52
"""IPv4 20, TCP 20, its timestamps 12."""
SYN_BYTES: Final = 60
IP_UDP_BYTES: Final = 28
DOWN: Final = "down"
"""From the sender to the listener."""
UP: Final = "up"
_QUEUE_BYTES: Final = 65_536
"""What waits before the link; more is dropped at its tail."""
_CONNECT_TRIES: Final = 6
_FIRST_PORT: Final = 40_000


class Way:
    """One direction of the link.

    Attributes: ``sent``, bytes by kind, of what was put on the link, lost or not; ``lost`` packets.
    """

    def __init__(self, network: Network, rate_bits_per_s: float, seed: int) -> None:
        self._network = network
        self._rate_bits_per_s = rate_bits_per_s
        link = network.link
        self._losses = GilbertElliott(link.loss, link.burst_packets, seed)
        self._chance = random.Random(seed + 1)
        self._free_at_s = 0.0
        self._last_arrival_s = 0.0
        self.sent: Counter[str] = Counter()
        self.packets: Counter[str] = Counter()
        self.lost = 0

    def transmit(self, kinds: dict[str, int], arrived: Callable[[], None]) -> None:
        """Put a packet of so many bytes, by kind, on the link; ``arrived`` is called if it does."""
        network, link = self._network, self._network.link
        now_s = network.now_s
        size = sum(kinds.values())
        waiting_bytes = max(0.0, self._free_at_s - now_s) * self._rate_bits_per_s / 8
        if waiting_bytes + size > _QUEUE_BYTES:
            self.lost += 1
            return
        self.sent.update(kinds)
        self.packets.update(kinds.keys())
        self._free_at_s = max(now_s, self._free_at_s) + 8 * size / self._rate_bits_per_s
        jitter_s = self._chance.expovariate(1 / link.jitter_s) if link.jitter_s else 0.0
        if self._losses.lost() or link.down(self._free_at_s - network.began_s):
            self.lost += 1
            return
        arrival_s = self._free_at_s + link.delay_s + jitter_s
        self._last_arrival_s = max(self._last_arrival_s, arrival_s)
        network.loop.call_at(self._last_arrival_s, arrived)


class SimulatedServer:
    """What asyncio's server is to those who made one."""

    def __init__(self, network: Network, port: int) -> None:
        self._network = network
        self.port = port
        self.sockets = [FakeSocket((network.server_host, port))]

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The simulated loop."""
        return self._network.loop

    def is_serving(self) -> bool:
        """Whether new connections are taken."""
        return self.port in self._network.listening

    async def start_serving(self) -> None:
        """Does so already."""

    def close(self) -> None:
        """Take no more."""
        self._network.listening.pop(self.port, None)

    async def wait_closed(self) -> None:
        """Nothing is left to wait for."""


class FakeSocket:
    """Knows its name, and takes options without effect but for what TCP looks up here."""

    family = socket.AF_INET

    def __init__(self, name: tuple[str, int]) -> None:
        self._name = name
        self.options: dict[tuple[int, int], int] = {}
        self.changed: Callable[[], None] = lambda: None

    def fileno(self) -> int:
        return -1

    def getsockname(self) -> tuple[str, int]:
        return self._name

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self.options[level, option] = value
        self.changed()

    def getsockopt(self, level: int, option: int) -> int:
        return self.options.get((level, option), 0)


class Network:
    """One link between a sender, who listens for connections, and those who connect.

    seed: of all chances; the same seed, the same losses.
    """

    server_host: Final = "192.0.2.1"  # an address for examples, RFC 5737
    client_host: Final = "192.0.2.2"

    def __init__(self, link: LinkModel, seed: int = 0) -> None:
        self.link = link
        back = link.rate_bits_per_s if link.back_bits_per_s is None else link.back_bits_per_s
        self.ways = {
            DOWN: Way(self, link.rate_bits_per_s, 2 * seed),
            UP: Way(self, back, 2 * seed + 1_000_003),
        }
        self.listening: dict[int, Callable[[], asyncio.Protocol]] = {}
        self.loop: asyncio.AbstractEventLoop
        self.began_s = 0.0
        self._next_port = _FIRST_PORT
        self.connections = 0

    @property
    def now_s(self) -> float:
        """Simulated seconds."""
        return self.loop.time()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Work for this loop, from now on."""
        self.loop = loop
        self.began_s = loop.time()

    def listen(self, factory: Callable[[], asyncio.Protocol], port: int) -> SimulatedServer:
        """Take connections at a port, 0: any. Raises OSError if one is taken."""
        if not port:
            self._next_port += 1
            port = self._next_port
        if port in self.listening:
            raise OSError(98, "the port is taken")
        self.listening[port] = factory
        return SimulatedServer(self, port)

    async def sockets(self, host: str, port: int, door: object) -> list[socket.socket]:
        """What a server listens on in this network, in the place of real sockets."""
        return [cast(socket.socket, FakeSocket((host, port)))]

    async def connect(
        self, factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """Connect to who listens; takes a round trip or more. Raises OSError."""
        from benchmarks.lab.tcp import TcpTransport

        answered = asyncio.Event()

        def reached() -> None:
            self.ways[DOWN].transmit({"handshake": SYN_BYTES}, answered.set)

        attempt = 0
        began_s = self.now_s
        for attempt in range(_CONNECT_TRIES):
            self.ways[UP].transmit({"handshake": SYN_BYTES}, reached)
            try:
                async with asyncio.timeout(2.0**attempt):
                    await answered.wait()
                break
            except TimeoutError:
                continue
        else:
            raise TimeoutError(110, "Connection timed out")
        serve = self.listening.get(port)
        if serve is None:
            raise ConnectionRefusedError(111, "Connection refused")
        self.connections += 1
        self._next_port += 1
        names = (self.client_host, self._next_port), (host, port)
        client = TcpTransport(self, UP, *names)
        server = TcpTransport(self, DOWN, *reversed(names))
        client.peer, server.peer = server, client
        for end in (client, server):
            # RFC 6298, 5.7: a handshake that had to be repeated has measured nothing.
            end.know_round_trip(None if attempt else self.now_s - began_s)
        self.ways[UP].transmit({"handshake": TCP_HEADER_BYTES}, lambda: None)
        server.begin(serve())
        protocol = factory()
        client.begin(protocol)
        return client, protocol
