"""Serves another sender's stream: a listener that sends, and never decodes.

    upstream ─► Link ─► what happens, in order, once ─► hub ─► listeners

The stream keeps its name, seed and token numbers, so a listener may come here after it was
elsewhere and goes on where it was. When the upstream is lost, listeners stay connected and wait;
what was missed comes to them late, in order, and what is gone for good as a gap. Where another
stream takes its place, they are asked to come again. Its end is theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from codec.constants import TOKEN_RATE
from streaming.errors import UserError
from streaming.send.publisher import Publisher
from streaming.stream.listener_session import Event
from streaming.stream.titles import TitleSieve
from streaming.transports.link import Link
from streaming.wire.messages import End, Gap, Hello, Title, Tokens

__all__ = ["Relay"]

logger = logging.getLogger(__name__)

_FILL_S: Final = 5.0
"""Time for the history that was asked for, before listeners are let in without it."""


class Relay:
    """Hands on what :class:`streaming.transports.link.Link` receives. Needs a running event loop.

    Use: :meth:`meet`, make a hub for what it returns, then :meth:`run`.

    Args:
        link: not iterated over yet; its session accepts every codec.
        clock: monotonic seconds. wall: Unix time in seconds.
    """

    encode_rtf: float | None = None

    def __init__(
        self,
        link: Link,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._link = link
        self._clock = clock
        self._wall = wall
        self._events: AsyncIterator[Event] = aiter(link)
        self._publisher: Publisher | None = None
        self._hello: Hello | None = None
        self._hello_at_s = 0.0
        self._wall_offset_s = 0.0
        self._titles = TitleSieve()
        self.filled = asyncio.Event()

    @property
    def source_samples(self) -> int:
        """Samples that the tokens received so far stand for."""
        return 0 if self._publisher is None else self._publisher.samples

    @property
    def reconnects(self) -> int:
        """How often the upstream was lost and found again."""
        return self._link.reconnects

    async def meet(self) -> Hello:
        """Join the upstream. Raises UserError if that fails."""
        hello = await anext(self._events)
        assert isinstance(hello, Hello)  # a session takes nothing else first
        self._welcome(hello)
        return hello

    async def wait_filled(self, timeout_s: float = _FILL_S) -> None:
        """Wait until the history is here, or for ``timeout_s``: so nobody joins far from live."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.filled.wait()

    async def run(self, publisher: Publisher) -> None:
        """Hand on until the upstream's end. Raises UserError if there is no way back to it."""
        assert self._hello is not None
        self._publisher = publisher
        try:
            await self._begin(self._hello)
            async for event in self._events:
                if isinstance(event, End):
                    publisher.end(event.reason or "the source has ended")
                    return
                await self._hand_on(event)
        except UserError:
            publisher.go_away("This relay has lost its sender.")
            raise
        finally:
            self.filled.set()

    async def _begin(self, hello: Hello) -> None:
        """Make the hub stand where ``hello`` begins: further on in its stream, or in another."""
        publisher = self._publisher
        assert publisher is not None
        self._titles = TitleSieve()
        hub = publisher.hub
        same = (hello.stream, hello.seed) == (hub.info.stream, hub.info.seed)
        if not hub.next_token and (same or not hello.stream):
            hub.history.go_on_at(hello.first_token)
        elif not same or hello.next_token < hub.next_token:
            logger.warning("another stream has taken the place of this one")
            await publisher.drop_store()
            hub.begin_anew(hello.info, hello.first_token)
        elif hello.first_token > hub.next_token:
            await publisher.gap(hello.first_token - hub.next_token)
        if hello.title:
            await publisher.title(hello.title, hello.first_token)
        self._note_filled()

    async def _hand_on(self, event: Event) -> None:
        publisher = self._publisher
        assert publisher is not None
        hello = self._link.session.hello
        if hello is not None and hello is not self._hello:  # the upstream was lost and is back
            self._welcome(hello)
        if isinstance(event, Hello):
            await self._begin(event)
        elif isinstance(event, Title):
            if self._titles.passes(event):
                await publisher.title(event.title, event.token)
        elif isinstance(event, Gap):
            await publisher.gap(event.count)
        elif isinstance(event, Tokens):
            if (title := self._titles.music()) is not None:
                await publisher.title(title.title, title.token)
            known = publisher.hub.next_token - event.first_token  # from a store
            tokens = event.tokens[max(0, known) :]
            if len(tokens):
                await self._publish(tokens, event.end_token)
        self._note_filled()

    async def _publish(self, tokens: NDArray[np.int64], end_token: int) -> None:
        """Hand on tokens, int64 ``[n]``, as old as they are."""
        hello, publisher = self._hello, self._publisher
        assert hello is not None
        assert publisher is not None
        age_s = 0.0
        if end_token <= hello.next_token:  # it was released before we joined
            behind_s = (hello.next_token - end_token) / TOKEN_RATE
            age_s = hello.age_s + behind_s + self._clock() - self._hello_at_s
        ended_s = self._wall() + self._wall_offset_s - age_s - hello.delay_s
        await publisher.tokens(tokens, delay_s=hello.delay_s, age_s=age_s, ended_s=ended_s)

    def _welcome(self, hello: Hello) -> None:
        """A connection stands, and the upstream has said where it is."""
        self._hello = hello
        self._hello_at_s = self._clock()
        self._wall_offset_s = 0.0
        if hello.first_at_s is not None:
            # Hours of the past are named by the clock of the first sender.
            edge_s = hello.first_at_s + (hello.next_token - hello.first_token) / TOKEN_RATE
            self._wall_offset_s = edge_s + hello.delay_s + hello.age_s - self._wall()

    def _note_filled(self) -> None:
        """Say when all that the upstream had before we joined is here."""
        hello, publisher = self._hello, self._publisher
        assert hello is not None
        assert publisher is not None
        if publisher.hub.next_token >= hello.next_token:
            self.filled.set()
