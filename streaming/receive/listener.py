"""The listening side: messages in, sound out.

    connection → receive → queue → decode (thread) → play-out buffer → play → output (threads)

Three tasks on the event loop; the decoder and each sink have a thread of their own. All that
lies between them is bounded, and a part that is full holds up the one before it:

- the sound card's ring is full most of the time: sound waits in the play-out buffer;
- the play-out buffer is full: decoding pauses, tokens wait in the queue;
- the queue is full: nothing is read from the connection, so the sender sees a listener that lags
  and drops it in the end. It takes a day of what was missed, so that is rare.

Nothing is thrown away on this side, unless the listener leaves its place in the stream on purpose.
What a connection that comes and goes does to the sound is little: tokens that were missed arrive
late, in order and once (:mod:`streaming.transports.link`); a sound card that ran dry meanwhile has
faded out and fades in again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN
from streaming.errors import SinkClosed, UserError
from streaming.receive.decoding import DecodeThread
from streaming.receive.jitter import JitterBuffer
from streaming.receive.output import Output
from streaming.receive.pace import Pace
from streaming.receive.playout import PlayoutBuffer
from streaming.receive.rendering import Beginning, Rendering
from streaming.receive.settings import CatchUp, ListenerSettings
from streaming.stream.listener_session import CodecIdentity, Happening, ListenerSession
from streaming.stream.timeline import StartAt
from streaming.support.worker import call_model
from streaming.transports.link import Dial, Link, Messages
from streaming.wire.messages import MAX_GAP_TOKENS, End, Gap, Hello, Join, Title, Tokens

if TYPE_CHECKING:
    from codec.base import Codec

__all__ = ["Listener"]

logger = logging.getLogger(__name__)

_BUFFER_S: Final = 4.0
_BLOCK_SAMPLES: Final = SAMPLE_RATE // 10
_KEPT_TITLES: Final = 64


class Listener:
    """Receives one stream, decodes it and hands the sound to ``output``.

    Args:
        output: takes the sound; :meth:`run` closes it.
        codec: the codec that is expected, loaded beforehand so that sound starts at once.
        load: fetches another codec by the name in the hello, called on a thread; raises CodecError.
            Without it, a stream of another codec is refused.
        settings: see :class:`ListenerSettings`.
        observe: told of everything that happens in the stream, such as a recorder.
        begun: told where in it the sound begins, see :class:`Rendering`.
        clock: monotonic seconds.

    Attributes: ``session``, ``decoder`` (None before the hello), ``end_reason`` (None until the
    sender ended the stream).
    """

    def __init__(
        self,
        output: Output,
        codec: Codec,
        *,
        load: Callable[[str], Codec] | None = None,
        settings: ListenerSettings | None = None,
        observe: Callable[[Happening], Awaitable[None]] | None = None,
        begun: Callable[[Hello, int, int], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.output = output
        self.settings = settings or ListenerSettings()
        self.session = self._new_session(codec)
        self.decoder: DecodeThread | None = None
        self.end_reason: str | None = None
        self._codec = codec
        self._load = load
        self._observe = observe
        self._begun = begun
        self._clock = clock
        self.link: Link | None = None
        self._start_at = self.settings.start
        self._moving = False
        self._titles: deque[Title] = deque(maxlen=_KEPT_TITLES)
        self._closed: deque[Gap] = deque()  # gaps that will not be heard, as far as they lie ahead
        self._buffer = PlayoutBuffer(int(_BUFFER_S * SAMPLE_RATE), self.settings.limit_samples)
        self._pace = Pace(self.settings)
        self._broke: UserError | None = None
        self._stop = asyncio.Event()

    @property
    def samples(self) -> int:
        """Samples handed to the output so far."""
        return self._buffer.samples

    @property
    def position_s(self) -> float:
        """Where in the stream the next sample for the output lies, in seconds."""
        return self._buffer.position_sample / SAMPLE_RATE

    @property
    def heard_sample(self) -> int:
        """Absolute index of the sample that is heard now, or goes into a file next."""
        buffer = self._buffer
        return max(buffer.start_sample, buffer.position_sample - self.output.unheard_samples)

    @property
    def buffered_s(self) -> float:
        """Seconds of sound received, as tokens or decoded, and not yet heard."""
        heard = self.heard_sample
        while self._closed and self._closed[0].first_token * SAMPLES_PER_TOKEN < heard:
            self._closed.popleft()
        closed = sum(gap.count for gap in self._closed)
        waiting = (self.session.next_token - closed) * SAMPLES_PER_TOKEN - heard
        return max(0, waiting) / SAMPLE_RATE

    @property
    def latency_s(self) -> float | None:
        """How far what is heard now is behind the source; None before the first sample."""
        if self.output.first_at_s is None:
            return None
        return self._pace.latency_s(self.heard_sample, self._clock())

    @property
    def jitter(self) -> JitterBuffer:
        """The reserve of sound and its target."""
        return self._pace.jitter

    @property
    def title(self) -> str:
        """Title of what is heard now."""
        heard = self.heard_sample // SAMPLES_PER_TOKEN
        begun = (title.title for title in reversed(self._titles) if title.token <= heard)
        return next(begun, "")

    @property
    def reconnects(self) -> int:
        """How often the connection was lost and made again."""
        return 0 if self.link is None else self.link.reconnects

    @property
    def clock_s(self) -> float | None:
        """Unix time at which what is heard now played at the source, where the sender tells."""
        hello = self.session.hello
        if hello is None or hello.first_at_s is None:
            return None
        first_sample = hello.first_token * SAMPLES_PER_TOKEN
        return hello.first_at_s + (self.heard_sample - first_sample) / SAMPLE_RATE

    def go_to(self, start: StartAt) -> None:
        """Leave the place in the stream for another: what is heard fades out, the other fades in.

        Does nothing where there is no connection, or no way to make another one.
        """
        if self.link is not None and self.link.can_move:
            self._start_at = start
            self._moving = True
            self.link.go_to(start.join(self.settings.history_tokens, self.settings.client))

    def stop(self) -> None:
        """End soon: what was handed over stays, the rest is let go, :meth:`run` returns."""
        self._stop.set()

    async def run(self, connection: Messages | None, dial: Dial | None = None) -> None:
        """Join and play until the stream ends, the limit is reached or :meth:`stop` is called.

        connection: to the sender; None: wait for one with ``dial``.
        dial: makes further connections when this one breaks. Without it, or when it does not
        succeed, everything received is still played and the files completed.

        Raises:
            UserError: why there is nothing more to hear, after everything was closed.
            CodecError: the stream's codec cannot be loaded.
        """
        self.link = link = Link(
            self.session,
            connection,
            dial,
            meet=self._meet,
            observe=self._observe,
            rejoin=self._rejoin,
            backoff=self.settings.backoff,
            hello_timeout_s=self.settings.hello_timeout_s,
            clock=self._clock,
        )
        playing = asyncio.create_task(self._join_and_play(link))
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({playing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if playing.done():
                playing.result()  # raises what ended it
        finally:
            await _cancel(playing, stopping)
            if self.decoder is not None:
                await self.decoder.close()
            await self.output.close()
            await link.close()
        if self._broke is not None and not self._stop.is_set():
            raise self._broke

    async def _join_and_play(self, link: Link) -> None:
        happenings = aiter(link)
        hello = await anext(happenings)
        assert isinstance(hello, Hello)  # the session takes nothing else first
        self.decoder = decoder = DecodeThread(self._codec, self.settings.decode)
        rendering = Rendering(
            self._welcome(hello),
            decoder,
            self._buffer,
            self._clock,
            self._begun,
        )
        tasks = [
            playing := asyncio.create_task(self._play()),
            asyncio.create_task(rendering.run()),
            asyncio.create_task(self._receive(happenings, rendering)),
        ]
        running = set(tasks)
        try:
            while not playing.done():
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # raises what ended it
            await self.output.drain()
        except SinkClosed:
            logger.info("whoever read the sound has gone")
        finally:
            await _cancel(*tasks)

    async def _meet(self, hello: Hello) -> None:
        """Make sure that the stream can be decoded, before the session looks at its hello."""
        if self.decoder is None and hello.codec != self._codec.name and self._load:
            self._codec = await call_model(self._load, hello.codec)
            self.session.expect(_identity(self._codec))

    def _rejoin(self) -> Join | None:
        """Where to go on after an outage, unless it is where we were."""
        if self.settings.catch_up is not CatchUp.JUMP or not self._start_at.live:
            return None
        if self.buffered_s > 0:
            return None  # nothing was missed yet
        self._moving = True
        return self._start_at.join(self.settings.history_tokens, self.settings.client)

    def _welcome(self, hello: Hello) -> Beginning:
        """Something begins."""
        self._closed.clear()
        self._pace.begin(hello, self._clock())
        self._titles.append(Title(hello.title, hello.first_token))
        return self._beginning(hello)

    def _beginning(self, hello: Hello) -> Beginning:
        return Beginning(hello, self._clock(), self._start_at, self.jitter.target_s)

    async def _receive(self, happenings: AsyncIterator[Happening], rendering: Rendering) -> None:
        """Messages on to where they become sound, until the end, or the connection's for good."""
        try:
            async for happening in happenings:
                if isinstance(happening, Title):
                    self._titles.append(happening)
                elif isinstance(happening, Hello):
                    self._leave_place(rendering)
                    await rendering.put(self._welcome(happening))
                elif isinstance(happening, End):
                    self.end_reason = happening.reason
                    break
                else:
                    await rendering.put(happening)
                    await self._follow(happening, rendering)
        except UserError as error:
            self._broke = error
        await rendering.put(None)

    def _leave_place(self, rendering: Rendering) -> None:
        """Something else begins: on purpose at once, otherwise after all that there is."""
        if self._moving:
            self._moving = False
            self._pace.leave(on_purpose=not self._start_at.live)
            self._titles.clear()
            self._let_go(rendering)

    def _let_go(self, rendering: Rendering) -> None:
        """Fade out, and leave what waits to be heard."""
        rendering.abandon()
        self.output.drop()

    async def _follow(self, item: Tokens | Gap, rendering: Rendering) -> None:
        """See what tokens that came in say about time, and jump where it is time to."""
        hello, decoder = self.session.hello, self.decoder
        assert hello is not None
        assert decoder is not None
        end_token = item.end_token if isinstance(item, Tokens) else item.first_token + item.count
        if isinstance(item, Gap) and item.count > MAX_GAP_TOKENS:
            self._closed.append(item)
        plays = self.output.paced and self.output.first_at_s is not None
        heard, now_s = self.heard_sample if plays else None, self._clock()
        self.output.speed = self._pace.received(
            item, hello, decoder.decodable(end_token), heard, now_s
        )
        if self._start_at.live and (jump := self._pace.jump(hello, now_s)) is not None:
            self._let_go(rendering)
            await rendering.put(self._beginning(jump[0]))
            for tokens in jump[1]:
                await rendering.put(tokens)

    async def _play(self) -> None:
        """From the play-out buffer to the output, until nothing more comes."""
        while (block := await self._buffer.get(_BLOCK_SAMPLES)) is not None:
            await self.output.write(block.sound, block.due_s)

    def _new_session(self, codec: Codec) -> ListenerSession:
        settings = self.settings
        join = settings.start.join(settings.history_tokens, settings.client)
        return ListenerSession(_identity(codec), join=join, auth_token=settings.auth_token)


def _identity(codec: Codec) -> CodecIdentity:
    return CodecIdentity(codec.name, codec.weights, codec.digest)


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they are over; what they raise is of no interest any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
