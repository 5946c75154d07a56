"""Coming back, without a connection: when it is tried again, after how long, and who is told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from streaming.errors import ProtocolError, RefusedError, SettingsError, TransportError, UserError
from streaming.transports.reconnecting import LASTING_S, Backoff, Reconnecting, passing

BROKEN = TransportError("It broke.")
AWAY = RefusedError("away", "Come back later.")
WRONG = ProtocolError("That is no message.")


class Story:
    """Attempts that go as written: ``connects`` says when there is a connection, an error is
    raised, a number is how many seconds pass, and what ends with ``done`` is done."""

    def __init__(self, *attempts: Sequence[object], **options) -> None:
        self.now_s = 0.0
        self.slept: list[float] = []
        self.told: list[tuple[UserError, bool]] = []
        self.attempts = list(attempts)
        self.reconnecting = Reconnecting(
            options.pop("backoff", Backoff(first_s=1.0, most_s=4.0)),
            lambda error: self.told.append((error, self.reconnecting.away)),
            clock=lambda: self.now_s,
            sleep=self._sleep,
            chance=lambda: 1.0,
            **options,
        )

    async def _sleep(self, seconds: float) -> None:
        assert self.reconnecting.away
        self.slept.append(seconds)

    async def happens(self) -> None:
        async for attempt in self.reconnecting:
            with attempt:
                for event in self.attempts.pop(0):
                    if event == "done":
                        return
                    if event == "connects":
                        attempt.connected()
                    elif event == "at once":
                        attempt.at_once()
                    elif isinstance(event, BaseException):
                        raise event
                    elif isinstance(event, float):
                        self.now_s += event


LASTED = ["connects", LASTING_S, BROKEN]


async def test_the_first_attempt_is_made_at_once_and_its_end_is_the_end() -> None:
    story = Story(["connects", "done"])
    assert story.reconnecting.away
    await story.happens()
    assert not story.reconnecting.away
    assert (story.slept, story.told, story.reconnecting.reconnects) == ([], [], 0)


async def test_waits_grow_until_a_connection_has_lasted() -> None:
    failing = [[BROKEN]] * 5
    story = Story(*failing, LASTED, [BROKEN], ["connects", "done"])
    await story.happens()
    assert story.slept == [1.0, 1.5, 2.25, 3.375, 4.0, 1.0, 1.5]
    assert story.reconnecting.reconnects == 1


async def test_a_connection_that_breaks_at_once_is_one_more_failed_attempt() -> None:
    story = Story(*[["connects", LASTING_S / 2, BROKEN]] * 4, ["connects", "done"])
    await story.happens()
    assert story.slept == [1.0, 1.5, 2.25, 3.375]
    assert story.reconnecting.reconnects == 4


async def test_a_connection_that_lasts_and_is_of_no_use_is_one_more_too() -> None:
    story = Story(LASTED, LASTED, ["done"], useful=lambda: False)
    await story.happens()
    assert story.slept == [1.0, 1.5]


async def test_time_before_there_is_a_connection_does_not_count() -> None:
    story = Story([BROKEN], [9.0, BROKEN], [9.0, "connects", BROKEN], ["done"])
    await story.happens()
    assert story.slept == [1.0, 1.5, 2.25]


async def test_attempts_that_failed_before_count() -> None:
    story = Story([BROKEN], ["done"], failed=2)
    await story.happens()
    assert story.slept == [2.25]


async def test_each_error_is_told_with_whether_a_connection_was_lost() -> None:
    story = Story([BROKEN], ["connects", AWAY], [BROKEN], ["done"])
    await story.happens()
    assert story.told == [(BROKEN, True), (AWAY, False), (BROKEN, True)]


async def test_an_attempt_that_just_ends_is_followed_by_another_and_nobody_is_told() -> None:
    story = Story(["connects"], ["done"])
    await story.happens()
    assert (story.slept, story.told) == ([1.0], [])


async def test_what_is_given_up_on_purpose_is_followed_at_once_and_then_with_patience() -> None:
    once = Backoff(first_s=1.0, attempts=1)
    story = Story([BROKEN], ["connects", "at once", BROKEN], [BROKEN], ["done"], backoff=once)
    with pytest.raises(TransportError):
        await story.happens()
    assert story.slept == [1.0]
    assert len(story.told) == 2


async def test_giving_up_before_there_is_a_connection_does_not_last_beyond_it() -> None:
    story = Story(["at once", "connects", BROKEN], ["done"])
    await story.happens()
    assert story.slept == [1.0]


async def test_attempts_to_come_back_can_be_limited() -> None:
    story = Story(LASTED, [BROKEN], [BROKEN], backoff=Backoff(1.0, 4.0, attempts=2))
    with pytest.raises(TransportError, match="It broke"):
        await story.happens()
    assert story.slept == [1.0, 1.5]
    assert story.reconnecting.away


@pytest.mark.parametrize("error", [WRONG, SettingsError("No."), ValueError("no"), KeyError("no")])
async def test_what_is_not_passing_ends_it_and_is_not_told(error: Exception) -> None:
    story = Story([error])
    with pytest.raises(type(error)):
        await story.happens()
    assert story.told == []


async def test_what_is_passing_can_be_said() -> None:
    story = Story([WRONG], ["done"], passing=lambda error: error is WRONG)
    await story.happens()
    assert story.told == [(WRONG, True)]
    picky = Story([BROKEN], passing=lambda error: False)
    with pytest.raises(TransportError):
        await picky.happens()
    anything = Story([SettingsError("No.")], passing=lambda error: True)
    with pytest.raises(SettingsError):  # it is about no connection
        await anything.happens()


@pytest.mark.parametrize("waiting", [True, False], ids=["while it waits", "while connected"])
async def test_who_is_cancelled_does_not_try_again(waiting: bool) -> None:
    attempts = 0

    async def use() -> None:
        nonlocal attempts
        async for attempt in Reconnecting(Backoff(3600.0, 3600.0), lambda error: None):
            with attempt:
                attempts += 1
                if waiting:
                    raise BROKEN
                await asyncio.Event().wait()

    using = asyncio.create_task(use())
    while not attempts:
        await asyncio.sleep(0)
    using.cancel()
    with pytest.raises(asyncio.CancelledError):
        await using
    assert attempts == 1


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (BROKEN, True),
        (AWAY, True),
        (RefusedError("busy", "Somebody else is here."), True),
        (RefusedError("auth", "No."), False),
        (WRONG, False),
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
