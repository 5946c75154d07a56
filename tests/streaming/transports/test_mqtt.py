"""Streams through a real Mosquitto: joining, coming back, logging in, listing.

Nothing is timed: every wait is for something that happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from streaming.errors import RefusedError, TransportError
from streaming.stream.hub import Hub
from streaming.stream.listener_session import CodecIdentity, ListenerSession, State
from streaming.support.tls import client_context
from streaming.transports.link import Link
from streaming.transports.mqtt import connection as connection_module
from streaming.transports.mqtt import publisher as publisher_module
from streaming.transports.mqtt.address import MqttAddress, stream_tag
from streaming.transports.mqtt.broker import Broker, Received
from streaming.transports.mqtt.catalogue import list_streams
from streaming.transports.mqtt.connection import connect_mqtt
from streaming.transports.mqtt.publisher import Mqtt, MqttPublisher
from streaming.transports.mqtt.view import OFFLINE, ONLINE
from streaming.transports.reconnecting import Backoff
from streaming.transports.websocket import connect
from streaming.transports.websocket.server import WebSocketServer
from streaming.wire.messages import End, Gap, Hello, StreamInfo, Title, Tokens
from tests import ROOT
from tests.support.certificates import make_authority, make_certificate, make_signed
from tests.support.mosquitto import mosquitto

__all__ = ["mosquitto"]

OURS = CodecIdentity("nano", "nano-1", "a" * 64)
PATIENCE_S = 120.0
QUICK = Backoff(first_s=0.02, most_s=0.1)


def make_hub(stream="stream", seed=3):
    return Hub(StreamInfo("nano", "nano-1", "a" * 64, seed, stream, 48))


def publish(hub, count=48):
    """The next packet, whose tokens are their own positions."""
    first = hub.next_token
    hub.publish(np.arange(first, first + count) % 16_384, time.monotonic(), 0.4, time.time())


async def until(condition):
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        await asyncio.sleep(0.005)


class Ear:
    """A listener that keeps what it heard, until the stream ends or :meth:`stop`."""

    def __init__(self, address, tls=None, **session):
        self.session = ListenerSession(OURS, **session)
        self.heard: list[int] = []
        self.events: list[object] = []
        self.link: Link | None = None
        self._address = address
        self._tls = tls
        self._task: asyncio.Task[None] | None = None

    async def _dial(self):
        return await connect_mqtt(self._address, self._tls)

    async def run(self):
        self.link = Link(self.session, await self._dial(), self._dial, backoff=QUICK)
        try:
            async for event in self.link:
                self.events.append(event)
                if isinstance(event, Tokens):
                    wanted = np.arange(event.first_token, event.end_token) % 16_384
                    assert event.tokens.tolist() == wanted.tolist()
                    self.heard += range(event.first_token, event.end_token)
        finally:
            await self.link.close()

    def start(self):
        self._task = asyncio.ensure_future(self.run())
        return self

    async def hears(self, token):
        """Wait until everything before ``token`` was heard."""
        assert self._task is not None
        task, session = self._task, self.session

        def there():
            return session.next_token >= token and session.state is not State.JOINING

        await until(lambda: there() or task.done())
        if task.done():
            task.result()
            assert there(), "the listener ended"

    async def ended(self):
        assert self._task is not None
        await asyncio.wait_for(self._task, PATIENCE_S)

    async def stop(self):
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def kinds(self):
        return [type(event) for event in self.events]


def address_of(broker, topic="radio/jazz", login=""):
    return MqttAddress.parse(broker.url(topic, login))


@contextlib.asynccontextmanager
async def sending(hub, address, **settings) -> AsyncIterator[MqttPublisher]:
    async with MqttPublisher(hub, Mqtt(address, backoff=QUICK, **settings)) as publisher:
        yield publisher


@pytest.fixture
async def hub():
    return make_hub()


async def test_who_joins_late_begins_at_once_with_what_just_played(mosquitto, hub):
    address = address_of(mosquitto())
    async with sending(hub, address) as publisher:
        hub.set_title("Song", 0, time.monotonic())
        for _ in range(10):
            publish(hub)
        await until(lambda: publisher.traffic.tokens)
        ear = Ear(address).start()
        await ear.hears(480)  # nothing was published since: it comes from the retained window
        hello = ear.events[0]
        assert isinstance(hello, Hello)
        assert (hello.first_token, hello.next_token, hello.title) == (480 - 256, 480, "Song")
        publish(hub)
        hub.set_title("Next", hub.next_token, time.monotonic())
        publish(hub)
        hub.end("over", time.monotonic())
        await ear.ended()
    assert ear.heard == list(range(480 - 256, 576))
    assert ear.session.lost_tokens == 0
    assert [h.title for h in ear.events if isinstance(h, Title)] == ["Next"]
    assert ear.events[-1] == End(576, "over")


async def test_any_number_of_listeners_hear_the_same_and_the_sender_sends_once(mosquitto, hub):
    address = address_of(mosquitto())
    async with sending(hub, address) as publisher:
        ears = [Ear(address, history=0).start() for _ in range(8)]
        publish(hub)
        for ear in ears:
            await ear.hears(48)
        sent = publisher.traffic.tokens
        publish(hub)
        for ear in ears:
            await ear.hears(96)
        assert publisher.traffic.tokens == sent + 48
        assert hub.listeners == 0  # the broker knows how many there are, the sender does not
        hub.end("over", time.monotonic())
        for ear in ears:
            await ear.ended()
            assert ear.heard[-48:] == list(range(48, 96))


async def test_websocket_and_broker_serve_the_same_stream_at_once(mosquitto, hub):
    address = address_of(mosquitto())
    async with WebSocketServer(hub, "127.0.0.1", 0) as server, sending(hub, address):
        publish(hub)
        ear = Ear(address).start()
        await ear.hears(48)
        session = ListenerSession(OURS)
        by_socket = []
        async with await connect(server.url) as connection:
            await connection.send(session.join())
            async for data in connection:
                for event in session.receive(data, 0.0):
                    by_socket.append(event)
                    if isinstance(event, Hello):
                        assert hub.listeners == 1
                        publish(hub)
                        hub.skip(10, time.monotonic())
                        publish(hub)
                        hub.end("over", time.monotonic())
        await ear.ended()
    assert ear.events[1:] == by_socket[1:]
    assert Gap(96, 10) in by_socket


async def test_a_gap_is_found_and_counted(mosquitto, hub):
    """Somebody else publishes the stream with a packet left out: QoS 0 may lose one."""
    address = address_of(mosquitto())
    tag = stream_tag(hub.info)
    said = hub.hello(0, time.monotonic()).encode().encode()
    async with Broker(address) as sender:
        await sender.publish(address.hello, said, retain=True)
        ear = Ear(address).start()
        await sender.publish(address.window(tag), Tokens(0, np.arange(48)).encode(), retain=True)
        await ear.hears(48)
        await sender.publish(address.live(tag), Tokens(96, np.arange(96, 144)).encode())
        await ear.hears(144)
    assert Gap(48, 48) in ear.events
    assert (ear.session.gaps, ear.session.lost_tokens) == (1, 48)
    await ear.stop()


async def test_broker_killed_and_restarted_in_the_middle_loses_nothing(mosquitto, hub):
    broker = mosquitto()
    address = address_of(broker)
    async with sending(hub, address) as publisher:
        publish(hub)
        ear = Ear(address).start()
        await ear.hears(48)
        for round_number in range(1, 4):
            broker.kill()
            await until(lambda: publisher.away and ear.link is not None and ear.link.away)
            publish(hub)  # into the void
            broker.start()  # it has forgotten everything that was retained
            await until(lambda: not publisher.away and not ear.link.away)
            publish(hub)
            await ear.hears(hub.next_token)
            assert publisher.reconnects == round_number
        hub.end("over", time.monotonic())
        await ear.ended()
    assert ear.heard == list(range(hub.next_token))
    assert ear.kinds.count(Hello) == 1
    assert ear.session.gaps == 0


async def test_an_outage_longer_than_the_window_is_a_gap_and_not_another_stream(mosquitto, hub):
    broker = mosquitto()
    address = address_of(broker)
    async with sending(hub, address, window_s=4.0) as publisher:
        publish(hub)
        ear = Ear(address).start()
        await ear.hears(48)
        broker.kill()
        await until(lambda: publisher.away)
        for _ in range(5):
            publish(hub)
        broker.start()
        await ear.hears(hub.next_token)
        hub.end("over", time.monotonic())
        await ear.ended()
    assert ear.kinds.count(Hello) == 1
    assert ear.session.lost_tokens == 240 - 100
    assert ear.heard == [*range(48), *range(188, 288)]


async def test_what_a_broker_had_saved_of_an_old_window_is_not_heard_twice(mosquitto, hub):
    broker = mosquitto(persistent=True)
    address = address_of(broker)
    async with sending(hub, address) as publisher:
        publish(hub)
        ear = Ear(address).start()
        await ear.hears(48)
        broker.stop()
        await until(lambda: publisher.away)
        broker.start()
        await until(lambda: not publisher.away and not ear.link.away)
        publish(hub)
        await ear.hears(96)
        hub.end("over", time.monotonic())
        await ear.ended()
    assert ear.heard == list(range(96))
    assert ear.kinds.count(Hello) == 1


async def test_the_window_of_an_old_sender_is_not_mixed_with_a_new_stream(mosquitto):
    broker = mosquitto()
    address = address_of(broker)
    old = make_hub("old")
    async with sending(old, address) as publisher:
        for _ in range(4):
            publish(old)
        await until(lambda: publisher.traffic.tokens == 192)
        retained = Tokens(0, np.arange(192)).encode()
    async with Broker(address) as ghost:  # as if it had had no time to clear up
        await ghost.publish(address.status, ONLINE, retain=True)
        await ghost.publish(address.window(stream_tag(old.info)), retained, retain=True)
        early = Ear(address).start()
        await early.hears(192)
        new = make_hub("new")
        async with sending(new, address):
            publish(new)
            late = Ear(address).start()
            await late.hears(48)
            await until(lambda: early.kinds.count(Hello) == 2)
            await early.hears(48)
            publish(new)
            new.end("over", time.monotonic())
            await early.ended()
            await late.ended()
    assert late.heard == list(range(96))
    assert early.heard == [*range(192), *range(96)]
    hellos = [h for h in early.events if isinstance(h, Hello)]
    assert [h.stream for h in hellos] == ["old", "new"]
    assert early.session.lost_tokens == 0


async def test_the_same_stream_with_another_seed_is_another_stream(mosquitto):
    address = address_of(mosquitto())
    first, second = make_hub(seed=1), make_hub(seed=2)
    async with sending(first, address):
        publish(first)
        ear = Ear(address).start()
        await ear.hears(48)
        async with sending(second, address):
            publish(second)
            await until(lambda: ear.kinds.count(Hello) == 2)
            publish(second)
            await ear.hears(96)
            await ear.stop()
    assert [h.seed for h in ear.events if isinstance(h, Hello)] == [1, 2]
    assert ear.heard == list(range(96))  # the second one's from where it was met


async def test_a_sender_that_vanishes_is_offline_by_its_last_will(mosquitto, hub, caplog):
    broker = mosquitto()
    address = address_of(broker)
    publisher = MqttPublisher(hub, Mqtt(address))
    with caplog.at_level("INFO"):
        connected = await publisher._connect()
        await publisher._say_hello(connected)
        await connected.publish(address.status, ONLINE, retain=True)
        publish(hub)
        await publisher._move_window(connected)
        ear = Ear(address).start()
        await ear.hears(48)
        assert connected._client is not None
        socket: Any = connected._client._client.socket()
        socket.shutdown(2)  # nothing says goodbye
        await until(lambda: "the sender is offline" in caplog.text)
        await connected.close()
    (listing,) = await list_streams(address_of(broker, "radio"), quiet_s=0.3)
    assert not listing.online
    with pytest.raises(TransportError, match="offline"):
        await Ear(address).run()
    async with sending(hub, address):  # the same stream is there again: it goes on
        publish(hub)
        await ear.hears(96)
    await ear.stop()
    assert ear.heard == list(range(96))
    assert ear.link.reconnects == 0


async def test_a_sender_that_goes_and_comes_back_is_waited_for(mosquitto, caplog):
    """As one with a store does: nobody is told of an end, and nobody connects again."""
    address = address_of(mosquitto())
    before, after = make_hub(), make_hub()
    with caplog.at_level("INFO"):
        async with sending(before, address):
            publish(before)
            ear = Ear(address).start()
            await ear.hears(48)
            before.go_away("stopped", time.monotonic())
        await until(lambda: "the sender is offline" in caplog.text)
    after.history.go_on_at(48)
    async with sending(after, address):
        publish(after)
        await ear.hears(96)
        after.end("over", time.monotonic())
        await ear.ended()
    assert ear.heard == list(range(96))
    assert ear.kinds.count(Hello) == 1
    assert ear.link is not None
    assert ear.link.reconnects == 0


async def test_streams_under_a_prefix_are_listed_and_do_not_mix(mosquitto):
    broker = mosquitto()
    rock, jazz = make_hub("one"), make_hub("two")
    anywhere = MqttAddress.parse(broker.url(), topic_needed=False)
    assert await list_streams(anywhere, quiet_s=0.3) == []
    async with Broker(address_of(broker, "x")) as stranger:
        await stranger.publish("radio/noise/hello", b"{}", retain=True)
        await stranger.publish("radio/empty/hello", b"\xff", retain=True)
    rock_at, jazz_at = address_of(broker, "radio/rock"), address_of(broker, "radio/jazz")
    async with sending(rock, rock_at) as publisher:
        async with sending(jazz, jazz_at) as other:
            rock.set_title("Stone", 0, time.monotonic())
            jazz.set_title("Blue", 0, time.monotonic())
            publish(rock)
            publish(jazz)
            publish(jazz)
            await until(lambda: publisher.traffic.tokens == 48 and other.traffic.tokens == 96)
            ear = Ear(rock_at).start()
            await ear.hears(48)
            found = await list_streams(address_of(broker, "radio"), quiet_s=0.3)
            assert [(str(f.address), f.hello.title, f.online) for f in found] == [
                (broker.url("radio/jazz"), "Blue", True),
                (broker.url("radio/rock"), "Stone", True),
            ]
            jazz.end("over", time.monotonic())
        found = await list_streams(address_of(broker, "radio"), quiet_s=0.3)
        assert [f.online for f in found] == [False, True]
        (alone,) = await list_streams(rock_at, quiet_s=0.3)
        assert alone.hello.title == "Stone"
        await ear.stop()
    assert ear.heard == list(range(48))


async def test_nothing_is_left_to_start_from_when_a_stream_has_ended(mosquitto, hub):
    address = address_of(mosquitto())
    async with sending(hub, address):
        publish(hub)
        hub.end("over", time.monotonic())
    async with Broker(address) as broker:
        await broker.subscribe(f"{address.topic}/#")
        kept: dict[str, Received] = {}
        with contextlib.suppress(TimeoutError):
            while True:
                received = await asyncio.wait_for(broker.receive(), 0.3)
                kept[received.topic] = received
    assert set(kept) == {address.hello, address.status}
    assert kept[address.status].payload == OFFLINE
    assert all(0 < (message.left_s or 0) <= 3600 for message in kept.values())


async def test_the_window_expires(mosquitto, hub, monkeypatch):
    """A sender that was cut off leaves nothing that would be taken for a live stream."""
    monkeypatch.setattr(publisher_module, "WINDOW_EXPIRY_S", 1)
    address = address_of(mosquitto())
    async with sending(hub, address), Broker(address) as broker:
        publish(hub)
        topic = address.window(stream_tag(hub.info))
        await broker.subscribe(topic)
        assert (await broker.receive()).left_s == 1
        await broker.unsubscribe(topic)
        while True:
            await broker.subscribe(topic)
            try:
                await asyncio.wait_for(broker.receive(), 0.2)
            except TimeoutError:
                break


async def test_a_stream_that_has_not_begun_is_waited_for(mosquitto, hub, monkeypatch):
    monkeypatch.setattr(connection_module, "WINDOW_WAIT_S", 0.05)
    address = address_of(mosquitto())
    async with sending(hub, address):
        ear = Ear(address).start()
        await ear.hears(0)
        publish(hub)
        hub.end("over", time.monotonic())
        await ear.ended()
    assert ear.heard == list(range(48))


async def test_a_silent_sender_is_waited_for_and_a_silent_broker_is_not(
    mosquitto, hub, monkeypatch
):
    broker = mosquitto()
    address = address_of(broker)
    async with sending(hub, address):
        publish(hub)
        connection = await connect_mqtt(address)
        connection._silence_s = 0.02
        checks = 0
        subscribe = connection._broker.subscribe

        async def count(*topics):
            nonlocal checks
            checks += topics == (address.status,)
            await subscribe(*topics)

        monkeypatch.setattr(connection._broker, "subscribe", count)
        await connection.send(ListenerSession(OURS).join())

        async def consume():
            async for _ in connection:
                pass

        consuming = asyncio.ensure_future(consume())
        await until(lambda: checks > 2)
        assert not consuming.done()
        broker.kill()
        with pytest.raises(TransportError, match="broke"):
            await asyncio.wait_for(consuming, PATIENCE_S)
        await connection.close()
        await connection.close()  # a second time does nothing
        with pytest.raises(TransportError, match="no connection"):
            await connection._broker.publish("x", b"")


async def test_a_publisher_that_lags_takes_up_its_place_again(mosquitto, monkeypatch):
    hub = Hub(StreamInfo("nano", "nano-1", "a" * 64, 3, "stream", 48), max_lag_s=3.0)
    join, joined = hub.join, []

    def watched(*arguments, **options):
        joined.append(join(*arguments, **options))
        return joined[-1]

    monkeypatch.setattr(hub, "join", watched)
    address = address_of(mosquitto())
    async with sending(hub, address):
        publish(hub)
        ear = Ear(address).start()
        await ear.hears(48)
        for _ in range(4):  # in one go, so that nobody can take them
            publish(hub)
        await ear.hears(240)
        hub.end("over", time.monotonic())
        await ear.ended()
    assert [outbox.failure is not None for outbox in joined] == [True, False]
    assert ear.heard == list(range(240))
    assert ear.link is not None
    assert ear.link.reconnects == 0


async def test_a_hub_that_begins_another_stream_is_followed(mosquitto):
    """As a relay's does when the sender that it listens to is started anew."""
    hub = Hub(StreamInfo("nano", "nano-1", "a" * 64, 3, "one", 48), max_lag_s=3.0)
    address = address_of(mosquitto())
    async with sending(hub, address):
        publish(hub)
        ear = Ear(address).start()
        await ear.hears(48)
        hub.history.info = replace(hub.info, stream="two")
        for _ in range(4):
            publish(hub)
        await until(lambda: ear.kinds.count(Hello) == 2)
        await ear.hears(240)
        hub.end("over", time.monotonic())
        await ear.ended()
    hellos = [h for h in ear.events if isinstance(h, Hello)]
    assert [h.stream for h in hellos] == ["one", "two"]
    assert ear.heard[-48:] == list(range(192, 240))


async def test_signs_of_life_are_repeated(mosquitto, hub, monkeypatch):
    monkeypatch.setattr(publisher_module, "_SIGN_OF_LIFE_S", 0.05)
    address = address_of(mosquitto())
    async with sending(hub, address), Broker(address) as broker:
        await broker.subscribe(address.hello)
        for _ in range(4):
            assert b'"stream":"stream"' in (await broker.receive()).payload


async def test_a_listener_says_nothing_but_that_it_joins(mosquitto):
    async with await connect_mqtt(address_of(mosquitto())) as connection:
        with pytest.raises(ValueError, match="join message"):
            await anext(aiter(connection))
        with pytest.raises(ValueError, match="join message"):
            await connection.send(End(1))


async def test_a_bridged_broker_serves_the_same_stream(mosquitto, hub):
    """As docs/scaling.md sets it up: retained messages and their expiry come through."""
    origin = mosquitto()
    leaf = mosquitto(
        "connection origin",
        f"address 127.0.0.1:{origin.port}",
        "bridge_protocol_version mqttv50",
        "cleansession true",
        "topic radio/# in 0",
    )
    async with sending(hub, address_of(origin)):
        publish(hub)
        publish(hub)
        async with Broker(address_of(leaf)) as watcher:
            await watcher.subscribe("radio/jazz/+/window")
            while (received := await watcher.receive()).left_s is None:
                pass
            assert received.left_s <= 30
        ear = Ear(address_of(leaf)).start()
        await ear.hears(96)
        publish(hub)
        await ear.hears(144)
        hub.end("over", time.monotonic())
        await ear.ended()
    assert ear.heard == list(range(144))


def documented(text: str, first_line: str) -> str:
    """The block of a page that begins with ``first_line``."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return next(block for block in blocks if block.startswith(first_line))


async def test_the_documented_broker_lets_everybody_listen_and_one_publish(
    mosquitto, tmp_path, hub
):
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    _, *lines = documented(page, "listener 1883\nallow").splitlines()
    (tmp_path / "acl").write_text(documented(page, "topic read"))
    command = ["mosquitto_passwd", "-b", "-c", str(tmp_path / "passwords"), "station", "right"]
    subprocess.run(command, check=True, capture_output=True)
    broker = mosquitto(*(line.replace("/etc/mosquitto", str(tmp_path)) for line in lines))
    async with sending(hub, address_of(broker, login="station:right@")) as publisher:
        publish(hub)
        await until(lambda: publisher.traffic.tokens == 48)
        async with Broker(address_of(broker)) as stranger:
            topic = address_of(broker).live(stream_tag(hub.info))
            await stranger.publish(topic, b"nonsense")
            await stranger.publish(f"{topic}/window", b"nonsense", retain=True)
            ear = Ear(address_of(broker)).start()
            await ear.hears(48)
            await stranger.publish(topic, b"nonsense")
            publish(hub)
            await ear.hears(96)
            await ear.stop()
    assert ear.heard == list(range(96))


PASSWORDS = ("allow_anonymous false", "password_file {folder}/passwords", "acl_file {folder}/acl")


@pytest.fixture
def guarded(mosquitto, tmp_path):
    """A broker that lets in a sender, a listener, and one who may nothing."""
    for user in ("sender", "listener", "nobody"):
        options = ["-b"] if (tmp_path / "passwords").exists() else ["-b", "-c"]
        command = ["mosquitto_passwd", *options, str(tmp_path / "passwords"), user, f"{user}-key"]
        subprocess.run(command, check=True, capture_output=True)
    (tmp_path / "acl").write_text(
        "user sender\ntopic readwrite radio/#\nuser listener\ntopic read radio/#\n"
    )
    return mosquitto(*(line.format(folder=tmp_path) for line in PASSWORDS))


async def test_user_and_password_let_in_and_nobody_else(guarded, hub):
    async with sending(hub, address_of(guarded, login="sender:sender-key@")) as publisher:
        publish(hub)
        await until(lambda: publisher.traffic.tokens == 48)
        ear = Ear(address_of(guarded, login="listener:listener-key@")).start()
        await ear.hears(48)
        await ear.stop()
        for login, why in (
            ("", "wants a user"),
            ("listener:wrong@", "is wrong"),
            ("stranger:listener-key@", "is wrong"),
        ):
            with pytest.raises(RefusedError, match=why) as caught:
                await Ear(address_of(guarded, login=login)).run()
            assert "key" not in str(caught.value)


async def test_a_sender_that_is_refused_ends_before_it_begins(guarded, hub):
    with pytest.raises(RefusedError):
        async with sending(hub, address_of(guarded, login="sender:wrong@")):
            pass


async def test_a_sender_that_may_not_publish_is_warned(guarded, hub, monkeypatch, caplog):
    monkeypatch.setattr(publisher_module, "_ECHO_S", 0.05)
    async with sending(hub, address_of(guarded, login="listener:listener-key@")):
        await until(lambda: "let this user publish" in caplog.text)


async def test_two_senders_at_one_topic_are_warned_of_each_other(mosquitto, caplog):
    address = address_of(mosquitto())
    async with sending(make_hub("one"), address):
        await asyncio.sleep(0)
        async with sending(make_hub("two"), address):
            await until(lambda: "another sender" in caplog.text)


async def test_a_sender_alone_is_warned_of_nothing(mosquitto, hub, caplog):
    address = address_of(mosquitto())
    async with sending(hub, address) as publisher:
        publish(hub)
        await until(lambda: publisher.traffic.tokens == 48)
        ear = Ear(address).start()
        await ear.hears(48)
        await ear.stop()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_listener_that_may_not_read_is_told(guarded, hub):
    with pytest.raises((RefusedError, TransportError), match=r"may not be read|no stream"):
        await Ear(address_of(guarded, login="nobody:nobody-key@")).run()


@pytest.fixture
def encrypted(mosquitto, tmp_path):
    """A broker that speaks TLS, and its certificate."""
    cert, key = make_certificate(tmp_path)
    return mosquitto(f"certfile {cert}", f"keyfile {key}"), cert


async def test_encrypted_where_the_certificate_is_trusted(encrypted, hub):
    broker, cert = encrypted
    url = broker.url("radio", scheme="mqtts")
    address = MqttAddress.parse(url)
    tls = client_context(url, cert)
    async with sending(hub, address, tls=tls):
        publish(hub)
        ear = Ear(address, tls).start()
        await ear.hears(48)
        await ear.stop()
        with pytest.raises(TransportError, match="cannot be trusted"):
            await Ear(address, client_context(url, None)).run()
        assert [s.online for s in await list_streams(address, tls, quiet_s=0.3)] == [True]


async def test_tls_with_a_broker_that_speaks_none(mosquitto):
    url = mosquitto().url("radio", scheme="mqtts")
    with pytest.raises(TransportError, match="No TLS"):
        await Ear(MqttAddress.parse(url), client_context(url, None)).run()


async def test_a_broker_may_ask_for_a_certificate_of_ours(mosquitto, tmp_path, hub, monkeypatch):
    server_cert, server_key = make_certificate(tmp_path)
    authority = make_authority(tmp_path)
    mine, my_key = make_signed(tmp_path, "listener", authority)
    broker = mosquitto(
        f"certfile {server_cert}",
        f"keyfile {server_key}",
        f"cafile {authority[0]}",
        "require_certificate true",
    )
    url = broker.url("radio", scheme="mqtts")
    address = MqttAddress.parse(url)
    tls = client_context(url, server_cert, mine, my_key)
    async with sending(hub, address, tls=tls):
        publish(hub)
        ear = Ear(address, tls).start()
        await ear.hears(48)
        await ear.stop()
        monkeypatch.setattr("streaming.transports.mqtt.broker._TIMEOUT_S", 1.0)
        with pytest.raises(TransportError, match="--mqtt-cert"):
            await Ear(address, client_context(url, server_cert)).run()


async def test_what_is_not_there_is_said(mosquitto, monkeypatch):
    broker = mosquitto()
    monkeypatch.setattr(connection_module, "HELLO_WAIT_S", 0.05)
    with pytest.raises(TransportError, match="no stream"):
        await Ear(address_of(broker, "nothing")).run()
    broker.kill()
    for url, why in (
        (broker.url("x"), "No broker listens"),
        ("mqtt://no-such-host.invalid/x", "unknown"),
        (f"mqtt://{'x' * 300}/x", r"no name of a host|unknown"),
    ):
        with pytest.raises(TransportError, match=why):
            await Ear(MqttAddress.parse(url)).run()


async def test_what_answers_and_is_no_broker(monkeypatch):
    monkeypatch.setattr("streaming.transports.mqtt.broker._TIMEOUT_S", 0.2)
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(TransportError, match="does not greet us"):
            await Ear(MqttAddress.parse(f"mqtt://127.0.0.1:{port}/x")).run()


async def test_leaving_before_the_end_says_offline_too(mosquitto, hub):
    broker = mosquitto()
    address = address_of(broker)
    async with sending(hub, address):
        publish(hub)
    (listing,) = await list_streams(address, quiet_s=0.3)
    assert not listing.online


async def test_leaving_while_the_broker_is_away_takes_no_time(mosquitto, hub):
    broker = mosquitto()
    async with sending(hub, address_of(broker)) as publisher:
        broker.kill()
        await until(lambda: publisher.away)
        hub.end("over", time.monotonic())
