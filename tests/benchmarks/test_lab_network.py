"""The lab's clock, network and links."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.lab.links import LINKS, LinkError, LinkModel, parse_link
from benchmarks.lab.network import DOWN, UP, Network
from benchmarks.lab.simulated_time import SimulatedLoop, StandstillError, simulate
from streaming.support.worker import Worker


class _Kept(asyncio.Protocol):
    """Keeps what comes, and when."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.data = b""
        self.times_s: list[float] = []
        self.ended = False
        self.lost: list[Exception | None] = []
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.times_s.append(self._loop.time())

    def eof_received(self) -> None:
        self.ended = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


async def _connected(loop: SimulatedLoop) -> tuple[_Kept, _Kept]:
    """Both ends of a connection: the listener's, the sender's."""
    made: list[_Kept] = []

    def serve() -> _Kept:
        made.append(_Kept(loop))
        return made[-1]

    await loop.create_server(serve, "192.0.2.1", 8765)
    client = _Kept(loop)
    await loop.create_connection(lambda: client, "192.0.2.1", 8765)
    return client, made[0]


def test_an_hour_of_sleep_passes_at_once() -> None:
    async def main(loop: SimulatedLoop) -> float:
        before_s = loop.time()
        await asyncio.gather(asyncio.sleep(3600), asyncio.sleep(10))
        return loop.time() - before_s

    assert simulate(main, Network(LinkModel())) == pytest.approx(3600)


def test_parts_that_ask_for_the_time_are_told_the_simulated_one() -> None:
    async def main(loop: SimulatedLoop) -> float:
        await asyncio.sleep(100)
        return time.monotonic() - loop.time()

    assert simulate(main, Network(LinkModel())) == 0
    assert time.monotonic() != 1100  # and afterwards the real one again


def test_waiting_for_each_other_is_told_instead_of_hanging() -> None:
    async def main(loop: SimulatedLoop) -> None:
        await asyncio.Event().wait()

    with pytest.raises(StandstillError):
        simulate(main, Network(LinkModel()))


def test_computing_takes_simulated_time_by_the_processor_s_factor() -> None:
    def compute() -> int:
        until_s = time.thread_time() + 0.02
        while time.thread_time() < until_s:
            pass
        return 7

    async def main(loop: SimulatedLoop) -> tuple[int, float, float]:
        worker = Worker("compute")
        before_s = loop.time()
        result = await worker.run(compute)
        await worker.close()
        return result, loop.time() - before_s, loop.busy_s["compute"]

    result, passed_s, busy_s = simulate(main, Network(LinkModel()), cpu_factor=50)
    assert result == 7
    assert busy_s >= 0.02
    assert passed_s == pytest.approx(50 * busy_s)


def test_a_worker_s_fault_reaches_who_awaits_it() -> None:
    async def main(loop: SimulatedLoop) -> None:
        worker = Worker("faulty")
        try:
            await worker.run(lambda: 1 / 0)
        finally:
            assert await worker.close()

    with pytest.raises(ZeroDivisionError):
        simulate(main, Network(LinkModel()))


def test_bytes_take_as_long_as_rate_and_delay_say() -> None:
    async def main(loop: SimulatedLoop) -> None:
        client, server = await _connected(loop)
        sent_s = loop.time()
        server.transport.write(bytes(100))
        await asyncio.sleep(60)
        # 152 bytes with headers at 8000 bit/s, and a fifth of a second on the way.
        assert client.times_s == [pytest.approx(sent_s + 152 * 8 / 8000 + 0.2)]
        way = loop.network.ways[DOWN]
        assert (way.sent["data"], way.sent["headers"]) == (100, 52)
        assert loop.network.ways[UP].sent["acknowledgements"] == 52

    simulate(main, Network(LinkModel(8000, delay_s=0.2)))


@given(
    loss=st.floats(0, 0.4),
    burst=st.floats(1, 4),
    seed=st.integers(0, 1000),
    sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=12),
    outage_s=st.sampled_from([0.0, 3.0]),
)
@settings(max_examples=60)
def test_whatever_the_link_loses_all_bytes_arrive_in_order(
    loss: float, burst: float, seed: int, sizes: list[int], outage_s: float
) -> None:
    link = LinkModel(
        50_000, delay_s=0.1, jitter_s=0.05, loss=loss, burst_packets=burst, outage_s=outage_s,
        outage_every_s=17.3,  # no divisor of a timeout
    )  # fmt: skip
    wanted = b"".join(bytes([number]) * size for number, size in enumerate(sizes))

    async def main(loop: SimulatedLoop) -> None:
        try:
            client, server = await _connected(loop)
        except TimeoutError:  # every packet that would connect was lost
            return
        for number, size in enumerate(sizes):
            server.transport.write(bytes([number]) * size)
            await asyncio.sleep(1)
        server.transport.close()
        await asyncio.sleep(3000)
        assert wanted.startswith(client.data)
        if not any(isinstance(end.lost[0], OSError) for end in (client, server) if end.lost):
            assert client.data == wanted
            assert client.ended
            assert server.lost == [None]
        else:  # a connection is given up after a quarter of an hour
            assert loss > 0.1

    simulate(main, Network(link, seed))


def test_the_same_seed_loses_the_same() -> None:
    async def main(loop: SimulatedLoop) -> list[float]:
        client, server = await _connected(loop)
        for _ in range(50):
            server.transport.write(bytes(50))
            await asyncio.sleep(1)
        await asyncio.sleep(100)
        return client.times_s

    link = LinkModel(9600, loss=0.2, jitter_s=0.3)
    assert simulate(main, Network(link, 3)) == simulate(main, Network(link, 3))
    assert simulate(main, Network(link, 3)) != simulate(main, Network(link, 4))


def test_who_does_not_read_holds_up_the_writer() -> None:
    async def main(loop: SimulatedLoop) -> None:
        client, server = await _connected(loop)
        client.transport.pause_reading()
        server.transport.write(bytes(300_000))
        await asyncio.sleep(100)
        assert client.data == b""
        assert server.transport.get_write_buffer_size() > 0
        client.transport.resume_reading()
        await asyncio.sleep(100)
        assert len(client.data) == 300_000
        assert server.transport.get_write_buffer_size() == 0

    simulate(main, Network(LinkModel(10e6)))


def test_an_aborted_connection_breaks_at_the_other_end() -> None:
    async def main(loop: SimulatedLoop) -> None:
        client, server = await _connected(loop)
        server.transport.abort()
        await asyncio.sleep(1)
        assert isinstance(client.lost[0], ConnectionResetError)

    simulate(main, Network(LinkModel(delay_s=0.1)))


def test_nobody_there_refuses_and_a_dead_link_times_out() -> None:
    async def refused(loop: SimulatedLoop) -> None:
        await loop.create_connection(lambda: _Kept(loop), "192.0.2.1", 1)

    with pytest.raises(ConnectionRefusedError):
        simulate(refused, Network(LinkModel()))
    with pytest.raises(TimeoutError):
        simulate(refused, Network(LinkModel(loss=0.999, burst_packets=1000), seed=1))


def test_a_peer_that_has_vanished_is_given_up() -> None:
    async def main(loop: SimulatedLoop) -> None:
        _, server = await _connected(loop)
        loop.network.link = LinkModel(outage_s=9999, outage_every_s=10_000)
        server.transport.write(b"?")
        await asyncio.sleep(2000)
        assert isinstance(server.lost[0], TimeoutError)

    simulate(main, Network(LinkModel()))


def test_a_description_of_a_link_becomes_its_figures() -> None:
    described = "rate=600bit/s, delay=800ms,jitter=200ms,loss=2%,outage=5s/1min"
    assert parse_link(described) == LinkModel(
        600, delay_s=0.8, jitter_s=0.2, loss=0.02, outage_s=5, outage_every_s=60
    )
    assert parse_link("") == LinkModel(math.inf)
    assert parse_link("geo,rate=1kbit/s").rate_bits_per_s == 1000
    assert parse_link("geo,rate=1kbit/s").delay_s == LINKS["geo"].link.delay_s
    assert parse_link("rate=2Mbit/s,back=9.6kbit/s,burst=3,loss=0.1").burst_packets == 3


@pytest.mark.parametrize(
    "text",
    [
        "moon",
        "rate=fast",
        "rate=0",
        "delay=-1s",
        "delay=3kg",
        "loss=100%",
        "loss=2%,burst=0.5",
        "outage=5s",
        "outage=9s/3s",
        "colour=red",
        "rate=1,geo",
    ],
)
def test_a_link_that_makes_no_sense_is_told_in_a_sentence(text: str) -> None:
    with pytest.raises(LinkError, match=r"^[A-Z'\d].*\.$"):
        parse_link(text)


def test_every_named_link_says_where_its_figures_come_from() -> None:
    assert {"hf-600", "iridium", "gsm-csd", "2g", "bad-wifi", "geo"} <= set(LINKS)
    assert all(named.source and named.what for named in LINKS.values())
    assert 293 <= LINKS["lora-sf12"].link.rate_bits_per_s < 5500


def test_an_outage_comes_back_in_its_turn() -> None:
    link = LinkModel(outage_s=5, outage_every_s=60)
    down = [second for second in range(180) if link.down(second)]
    assert down == [*range(30, 35), *range(90, 95), *range(150, 155)]
