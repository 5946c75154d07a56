"""Coming back: from one connection to the next without losing a token."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from streaming.errors import ProtocolError, RefusedError, TransportError
from streaming.stream.listener_session import CodecIdentity, ListenerSession
from streaming.transports.link import Link
from streaming.transports.reconnecting import LASTING_S, Backoff
from streaming.wire.messages import End, Failure, Gap, Hello, Join, Title, Tokens
from tests.support.fake_codec import FakeCodec
from tests.support.listening import BROKEN, Script, hello, token_messages, tokens

OURS = CodecIdentity(FakeCodec.name, FakeCodec.weights, FakeCodec.digest)


class Dialler:
    """Hands out connections in order; an exception among them is raised instead."""

    def __init__(self, *connections: Script | Exception) -> None:
        self.connections = list(connections)
        self.slept: list[float] = []

    async def __call__(self) -> Script:
        connection = self.connections.pop(0)
        if isinstance(connection, Exception):
            raise connection
        return connection

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def link(first: Script | None, dial: Dialler | None = None, **options) -> Link:
    sleep = dial.sleep if dial else asyncio.sleep
    clock = itertools.count(step=LASTING_S).__next__  # connections last
    options = {"chance": lambda: 1.0, "sleep": sleep, "clock": clock, **options}
    return Link(ListenerSession(OURS), first, dial, **options)


async def collect(link: Link):
    return [event async for event in link]


def script(all_tokens, first, end, *more, **options):
    begin = hello(first, end, stream="s")
    return Script(begin, *token_messages(all_tokens[:end], first), *more, **options)


async def test_after_a_break_it_goes_on_with_the_next_token() -> None:
    all_tokens = tokens(300)
    second = script(all_tokens, 96, 192, then=BROKEN)
    third = script(all_tokens, 192, 300, End(300, "over").encode())
    dial = Dialler(second, BROKEN, BROKEN, third)
    first = script(all_tokens, 0, 96, then=BROKEN)
    several = link(first, dial)
    events = await collect(several)
    assert [type(h) for h in events].count(Hello) == 1
    place = 0
    for event in events:
        if isinstance(event, Tokens):
            assert event == Tokens(place, all_tokens[place : event.end_token])
            place = event.end_token
    assert place == 300
    assert events[-1] == End(300, "over")
    joins = [connection.sent[0] for connection in (first, second, third)]
    assert joins == [
        Join(kinds=(2,)),
        Join(next_token=96, stream="s", kinds=(2,)),
        Join(next_token=192, stream="s", kinds=(2,)),
    ]
    assert several.reconnects == 2
    assert not several.away
    assert first.closed
    # The third attempt after the second break has waited longest.
    assert dial.slept == [0.5, 0.5, 0.75, 1.125]


@pytest.mark.parametrize("messages", [[], token_messages(tokens(48))], ids=["hello", "music"])
@pytest.mark.parametrize("renamed", [True, False])
async def test_who_lets_us_in_and_fails_at_once_is_asked_less_and_less(messages, renamed) -> None:
    scripts = [
        Script(hello(stream=str(n) if renamed else "s"), *messages, then=BROKEN) for n in range(8)
    ]
    last = Script(hello(stream="s"), Failure("auth", "Enough.").encode())
    dial = Dialler(*scripts[1:], last)
    with pytest.raises(RefusedError):
        await collect(link(scripts[0], dial, clock=lambda: 0.0))
    assert dial.slept == [0.5 * 1.5**n for n in range(8)]


async def test_a_silent_connection_is_no_progress_however_long() -> None:
    dial = Dialler(Script(hello(), then=BROKEN), Script(hello(), Failure("auth", "No.").encode()))
    with pytest.raises(RefusedError):
        await collect(link(Script(hello(), then=BROKEN), dial))
    assert dial.slept == [0.5, 0.75]


async def test_a_sender_that_hangs_up_without_an_end_is_called_again() -> None:
    all_tokens = tokens(96)
    dial = Dialler(script(all_tokens, 48, 96, End(96).encode()))
    events = await collect(link(script(all_tokens, 0, 48), dial))
    assert events[-1] == End(96)


async def test_without_a_way_to_dial_the_first_break_is_the_end() -> None:
    with pytest.raises(TransportError, match="broke"):
        await collect(link(script(tokens(48), 0, 48, then=BROKEN)))


async def test_a_sender_that_never_said_hello_is_not_called_again() -> None:
    with pytest.raises(TransportError, match="without a word"):
        await collect(link(Script(), Dialler()))


async def test_a_sender_that_is_not_there_yet_can_be_waited_for(caplog) -> None:
    all_tokens = tokens(96)
    silent, away = Script(), Script(Failure("away", "Not yet.").encode())
    there = script(all_tokens, 0, 96, End(96).encode())
    waiting = link(None, dial := Dialler(BROKEN, BROKEN, silent, away, BROKEN, there))
    events = await collect(waiting)
    assert [type(h) for h in events] == [Hello, Tokens, Tokens, End]
    assert [c.sent[0] for c in (silent, away, there)] == [Join(kinds=(2,))] * 3
    # The first attempt is made at once.
    assert dial.slept == [0.75, 1.125, 1.6875, 2.53125, 3.796875]
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    # Without the advice for who does not come back: it comes back by itself.
    assert told[0] == "waiting for the sender: the connection to ws://test broke"
    assert str(BROKEN) == "The connection to ws://test broke; start the listener again."


async def test_who_waits_and_is_refused_for_good_waits_no_longer() -> None:
    refusing = Script(Failure("auth", "Wrong key.").encode())
    with pytest.raises(RefusedError, match="Wrong key"):
        await collect(link(None, Dialler(BROKEN, refusing)))


async def test_waiting_can_be_limited_and_needs_a_way_to_dial() -> None:
    dial = Dialler(BROKEN, BROKEN, BROKEN)
    with pytest.raises(TransportError, match="broke"):
        await collect(link(None, dial, backoff=Backoff(attempts=3)))
    with pytest.raises(ValueError, match="dial"):
        await collect(link(None))


async def test_attempts_can_be_limited() -> None:
    dial = Dialler(BROKEN, BROKEN, BROKEN)
    limited = link(
        script(tokens(48), 0, 48, then=BROKEN), dial, backoff=Backoff(first_s=2, attempts=3)
    )
    with pytest.raises(TransportError, match="broke"):
        await collect(limited)
    assert dial.slept == [2.0, 3.0, 4.5]
    assert limited.away


@pytest.mark.parametrize("code", ["away", "lag", "timeout", "busy"])
async def test_who_was_dropped_for_a_passing_reason_comes_back(code: str) -> None:
    all_tokens = tokens(96)
    dropped = script(all_tokens, 0, 48, Failure(code, "Too slow.").encode())
    dial = Dialler(script(all_tokens, 48, 96, End(96).encode()))
    events = await collect(link(dropped, dial))
    assert events[-1] == End(96)


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        (Failure("auth", "Wrong key.").encode(), RefusedError, "Wrong key"),
        (hello(codec="other"), ProtocolError, "codec"),
        (b"\xff", ProtocolError, "kind 255"),
    ],
)
async def test_what_waiting_cannot_mend_ends_it(answer, error, told) -> None:
    first = script(tokens(48), 0, 48, then=BROKEN)
    with pytest.raises(error, match=told):
        await collect(link(first, Dialler(Script(answer))))


async def test_another_stream_in_its_place_is_told_by_a_second_hello() -> None:
    first = script(tokens(48), 0, 48, then=BROKEN)
    other = Script(hello(0, 48, stream="t"), *token_messages(tokens(48, 1)), End(48).encode())
    events = await collect(link(first, Dialler(other)))
    assert [type(h) for h in events] == [Hello, Tokens, Hello, Tokens, End]


async def test_what_is_no_longer_held_is_a_gap() -> None:
    all_tokens = tokens(200)
    first = script(all_tokens, 0, 48, then=BROKEN)
    events = await collect(link(first, Dialler(script(all_tokens, 100, 200, End(200).encode()))))
    assert Gap(48, 52) in events


async def test_one_can_leave_the_place_for_another() -> None:
    all_tokens = tokens(200)
    first = script(all_tokens, 0, 96, then="wait")
    second = script(all_tokens, 10, 96, Title("x", 96).encode(), End(96).encode())
    dial = Dialler(BROKEN, second)
    moving = link(first, dial)
    seen = []
    async for event in moving:
        seen.append(event)
        if isinstance(event, Tokens) and event.end_token == 96 and not moving.reconnects:
            moving.go_to(Join(next_token=10))
    assert second.sent[0] == Join(next_token=10, kinds=(2,))
    assert [type(h) for h in seen] == [Hello, Tokens, Tokens, Hello, Tokens, Tokens, Title, End]
    assert dial.slept == [0.75]  # at once, and only then with patience


async def test_going_elsewhere_needs_a_way_to_dial() -> None:
    nailed = link(Script())
    assert not nailed.can_move
    with pytest.raises(ValueError, match="dial"):
        nailed.go_to(Join())


async def test_who_comes_back_may_decide_to_begin_anew() -> None:
    first = script(tokens(48), 0, 48, then=BROKEN)
    second = script(tokens(96), 40, 96, End(96).encode())
    events = await collect(link(first, Dialler(second), rejoin=lambda: Join(8)))
    assert second.sent[0] == Join(8, kinds=(2,))
    assert [type(h) for h in events].count(Hello) == 2


@pytest.mark.parametrize("turns", range(6))
async def test_who_leaves_at_the_moment_a_message_comes_has_left(turns: int) -> None:
    """However far the message has come by then: a cancellation that is lost is a task for ever."""
    connection = Script(then="stay")
    following = asyncio.create_task(collect(link(connection)))
    while not connection.sent:
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    connection.add(hello(stream="s"))
    for _ in range(turns):
        await asyncio.sleep(0)
    following.cancel()
    done, _ = await asyncio.wait({following}, timeout=60)
    assert done
    assert following.cancelled()
