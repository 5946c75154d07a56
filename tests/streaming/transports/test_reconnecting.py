"""Coming back, without a connection: how long it takes until it is tried again."""

from __future__ import annotations

import asyncio

import pytest

from streaming.errors import ProtocolError, RefusedError, TransportError
from streaming.transports.reconnecting import LASTING_S, Backoff, Reconnecting, passing


class Story(Reconnecting):
    """Attempts that go as written: "connects" says that there is a connection, a number how many
    seconds pass, "at once" that it is left on purpose, and "done" that no other is wanted."""

    def __init__(self, *attempts: list[str | float]) -> None:
        super().__init__(Backoff(1.0, 4.0), lambda: self.now_s, self._pass, lambda: 1.0)
        self.now_s = 0.0
        self.slept: list[float] = []
        self.attempts = list(attempts)

    async def _pass(self, seconds: float) -> None:
        assert self.away
        self.slept.append(seconds)

    async def happens(self) -> None:
        async for _ in self._attempts():
            for event in self.attempts.pop(0):
                if event == "done":
                    return
                if event == "connects":
                    self._connected()
                elif event == "at once":
                    self._at_once = True
                elif isinstance(event, float):
                    self.now_s += event


async def test_the_first_attempt_is_made_at_once_and_may_be_the_last() -> None:
    story = Story(["connects", "done"])
    assert story.away
    await story.happens()
    assert not story.away
    assert (story.slept, story.reconnects) == ([], 0)


async def test_waits_grow_until_a_connection_has_lasted() -> None:
    failed: list[list[str | float]] = [[]] * 5
    story = Story(*failed, ["connects", LASTING_S], [], ["connects", "done"])
    await story.happens()
    assert story.slept == [1.0, 1.5, 2.25, 3.375, 4.0, 1.0, 1.5]
    assert story.reconnects == 1


async def test_a_connection_that_breaks_at_once_is_one_more_failed_attempt() -> None:
    brief: list[list[str | float]] = [["connects", LASTING_S / 2]] * 4
    story = Story(*brief, ["connects", "done"])
    await story.happens()
    assert story.slept == [1.0, 1.5, 2.25, 3.375]
    assert story.reconnects == 4


async def test_a_connection_that_lasts_and_is_of_no_use_is_one_more_too() -> None:
    class Useless(Story):
        def _lasted(self) -> bool:
            return False

    story = Useless(["connects", LASTING_S], ["connects", LASTING_S], ["done"])
    await story.happens()
    assert story.slept == [1.0, 1.5]


async def test_time_before_there_is_a_connection_does_not_count() -> None:
    story = Story([], [9.0], [9.0, "connects"], ["done"])
    await story.happens()
    assert story.slept == [1.0, 1.5, 2.25]


async def test_what_is_left_on_purpose_is_come_back_to_at_once_and_then_with_patience() -> None:
    story = Story([], ["connects", "at once"], [], ["done"])
    await story.happens()
    assert story.slept == [1.0, 2.25]  # the attempt in between counts


async def test_leaving_before_there_is_a_connection_does_not_last_beyond_it() -> None:
    story = Story(["at once", "connects"], ["done"])
    await story.happens()
    assert story.slept == [1.0]


@pytest.mark.parametrize("waiting", [True, False], ids=["while it waits", "while connected"])
async def test_who_is_cancelled_does_not_try_again(waiting: bool) -> None:
    attempts = 0

    class Waiting(Reconnecting):
        async def use(self) -> None:
            nonlocal attempts
            async for _ in self._attempts():
                attempts += 1
                if not waiting:
                    await asyncio.Event().wait()

    using = asyncio.create_task(Waiting(Backoff(3600.0, 3600.0)).use())
    while not attempts:
        await asyncio.sleep(0)
    using.cancel()
    with pytest.raises(asyncio.CancelledError):
        await using
    assert attempts == 1


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (TransportError("It broke."), True),
        (RefusedError("away", "Come back later."), True),
        (RefusedError("busy", "Somebody else is here."), True),
        (RefusedError("auth", "No."), False),
        (ProtocolError("That is no message."), False),
        (ValueError(), False),
    ],
)
def test_what_waiting_may_mend(error: Exception, passes: bool) -> None:
    assert passing(error) is passes


def test_waiting_grows_is_spread_and_bounded() -> None:
    backoff = Backoff(first_s=1.0, most_s=30.0)
    assert [backoff.wait_s(n, 1.0) for n in range(4)] == [1, 1.5, 2.25, 3.375]
    assert backoff.wait_s(9, 1.0) == backoff.wait_s(10**6, 1.0) == 30.0
    assert backoff.wait_s(0, 0.0) == 0.25
    assert backoff.wait_s(10_000, 0.0) == 7.5
