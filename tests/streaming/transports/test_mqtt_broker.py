"""The connection to a broker, against one that answers as it is told: what Mosquitto never says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from streaming.errors import RefusedError, TransportError
from streaming.transports.mqtt import broker as broker_module
from streaming.transports.mqtt.address import MqttAddress
from streaming.transports.mqtt.broker import Broker

WELCOME = b"\x20\x03\x00\x00\x00"
CONNECT, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT = 1, 3, 8, 10, 14


@contextlib.asynccontextmanager
async def answering(answers: dict[int, bytes]) -> AsyncIterator[MqttAddress]:
    """A server that answers each kind of packet with fixed bytes; to b"" by hanging up.

    A packet number of 1 is what a client begins with.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                kind = (await reader.readexactly(1))[0] >> 4
                length, shift = 0, 0
                while True:
                    byte = (await reader.readexactly(1))[0]
                    length |= (byte & 127) << shift
                    shift += 7
                    if byte < 128:
                        break
                await reader.readexactly(length)
                if answers.get(kind) == b"":
                    break
                writer.write(answers.get(kind, b""))
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield MqttAddress.parse(f"mqtt://127.0.0.1:{port}/radio")


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (0x84, TransportError, "no MQTT 5"),
        (0x86, RefusedError, "does not let us in"),
        (0x87, RefusedError, "does not let us in"),
        (0x89, TransportError, "try again later"),
    ],
)
async def test_a_broker_that_turns_us_away_says_why(code, error, words):
    async with answering({CONNECT: bytes([0x20, 3, 0, code, 0])}) as address:
        with pytest.raises(error, match=words):
            async with Broker(address):
                pass


async def test_a_subscription_that_is_refused_is_said():
    refused = b"\x90\x04\x00\x01\x00\x87"
    async with answering({CONNECT: WELCOME, SUBSCRIBE: refused}) as address, Broker(address) as one:
        with pytest.raises(RefusedError, match=r"broker closed the connection: .*may not be read"):
            await one.subscribe("radio/hello")


async def test_a_connection_that_breaks_during_a_call_is_noticed_at_once():
    lost = asyncio.Event()
    for kind in (PUBLISH, SUBSCRIBE, UNSUBSCRIBE):
        lost.clear()
        async with (
            answering({CONNECT: WELCOME, kind: b""}) as address,
            Broker(address, on_lost=lost.set) as one,
        ):
            one.check()
            calls = {
                PUBLISH: one.publish("radio/hello", b"x", qos=1),
                SUBSCRIBE: one.subscribe("radio/hello"),
                UNSUBSCRIBE: one.unsubscribe("radio/hello"),
            }
            call = calls.pop(kind)
            for other in calls.values():
                other.close()
            with pytest.raises(TransportError, match="broke"):
                await call
            assert lost.is_set()
            with pytest.raises(TransportError):
                one.check()
            for _ in range(2):
                with pytest.raises(TransportError):
                    await one.receive()


async def test_a_broker_that_answers_no_call_is_given_up(monkeypatch):
    monkeypatch.setattr(broker_module, "_TIMEOUT_S", 0.1)
    async with answering({CONNECT: WELCOME}) as address:
        with pytest.raises(TransportError, match="broke"):
            async with Broker(address) as one:
                await one.subscribe("radio/hello")


async def test_messages_that_nobody_took_do_not_hold_up_the_end():
    message = b"\x30\x09\x00\x05radio\x00x"
    async with answering({CONNECT: WELCOME, SUBSCRIBE: message * 50}) as address:
        async with Broker(address) as one:
            subscribing = asyncio.ensure_future(one.subscribe("radio"))
            assert (await one.receive()).payload == b"x"
            subscribing.cancel()
        assert await asyncio.gather(subscribing, return_exceptions=True)


SUBSCRIBED = b"\x90\x04\x00\x01\x00\x00"


def published(count, payload):
    """So many messages at the topic t, of QoS 2."""
    return b"".join(
        bytes([0x34, 6 + len(payload)]) + b"\0\1t" + number.to_bytes(2, "big") + b"\0" + payload
        for number in range(1, count + 1)
    )


@pytest.mark.parametrize(
    "flood",
    [
        b"\x30\xff\xff\xff\x7f\x00\x01t\x00",  # one of 256 MB
        b"\x30\x81\x40\x00\x01t\x00" + bytes(8189),  # one byte too long
        published(1500, bytes(100)),  # which the library would hold until they are released
    ],
    ids=["a long message", "a little too long", "messages that are never released"],
)
async def test_a_broker_that_sends_more_than_we_take_is_left(flood):
    answers = {CONNECT: WELCOME, SUBSCRIBE: SUBSCRIBED + flood}
    async with answering(answers) as address, Broker(address) as broker:
        await broker.subscribe("t")
        with pytest.raises(TransportError, match="sends more than it was told"):
            await asyncio.wait_for(broker.receive(), 60)


async def test_the_longest_message_that_we_take_is_taken():
    payload = bytes(8188)
    packet = b"\x30\x80\x40\x00\x01t\x00" + payload
    answers = {CONNECT: WELCOME, SUBSCRIBE: SUBSCRIBED + packet}
    async with answering(answers) as address, Broker(address) as broker:
        await broker.subscribe("t")
        assert (await asyncio.wait_for(broker.receive(), 60)).payload == payload
