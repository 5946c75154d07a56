"""The listening side: messages in, sound out.

    connection → receive → queue → decode (thread) → play-out buffer → play → output (threads)

Three tasks on the event loop; the decoder and each sink have a thread of their own. All that
lies between them is bounded, and a part that is full holds up the one before it:

- the sound card's ring is full most of the time: sound waits in the play-out buffer;
- the play-out buffer is full: decoding pauses, tokens wait in the queue;
- the queue is full: nothing is read from the connection, so the sender sees a listener that lags
  and drops it in the end. Nothing is thrown away on this side.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN
from streaming.decoding import DecodeOptions, DecodeThread, Regenerator
from streaming.errors import SinkClosed, TransportError, UserError
from streaming.output import Output
from streaming.playout import LiveEdge, PlayoutBuffer
from streaming.protocol import Gap, Hello, Title, Tokens, decode
from streaming.session import CodecIdentity, ListenerSession
from streaming.worker import call_on_thread

if TYPE_CHECKING:
    from codec.base import Codec

__all__ = ["Listener", "ListenerSettings", "Messages"]

logger = logging.getLogger(__name__)

_QUEUED_MESSAGES: Final = 256
_BUFFER_S: Final = 4.0
_BLOCK_SAMPLES: Final = SAMPLE_RATE // 10
_KEPT_TITLES: Final = 64


class Messages(Protocol):
    """A connection to a sender, such as :class:`streaming.websocket.Connection`."""

    async def send(self, message: str | bytes) -> None:
        """Send one message. Raises TransportError."""
        ...

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        """What arrives, until the sender closes; raises TransportError where the link breaks."""
        ...


@dataclass(frozen=True)
class ListenerSettings:
    """What a listener may choose.

    margin_s: sound that should still be there when the next packet comes. history_tokens: how
    much of what went before to ask for on joining. limit_samples: end after so many; None: never.
    client: name told to the sender. hello_timeout_s: time for the sender's first message.
    """

    margin_s: float = 0.5
    history_tokens: int = 256
    limit_samples: int | None = None
    client: str = ""
    hello_timeout_s: float = 10.0
    decode: DecodeOptions = field(default_factory=DecodeOptions)


class Listener:
    """Receives one stream, decodes it and hands the sound to ``output``.

    Args:
        output: takes the sound; :meth:`run` closes it.
        codec: the codec that is expected, loaded beforehand so that sound starts at once.
        load: fetches another codec by the name in the hello, called on a thread; raises CodecError.
            Without it, a stream of another codec is refused.
        settings: see :class:`ListenerSettings`.
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.output = output
        self.settings = settings or ListenerSettings()
        self.session = self._new_session(codec)
        self.decoder: DecodeThread | None = None
        self.end_reason: str | None = None
        self._codec = codec
        self._load = load
        self._clock = clock
        self._hello_at_s = 0.0
        self._edge = LiveEdge()
        self._titles: deque[Title] = deque(maxlen=_KEPT_TITLES)
        self._queue: asyncio.Queue[Tokens | Gap | None] = asyncio.Queue(_QUEUED_MESSAGES)
        self._buffer = PlayoutBuffer(0, int(_BUFFER_S * SAMPLE_RATE), self.settings.limit_samples)
        self._broke: UserError | None = None
        self._stop = asyncio.Event()
        self._pushed = asyncio.Event()

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
        waiting = self.session.next_token * SAMPLES_PER_TOKEN - self.heard_sample
        return max(0, waiting) / SAMPLE_RATE

    @property
    def latency_s(self) -> float | None:
        """How far what is heard now is behind the source; None before the first sample."""
        if self.output.first_at_s is None:
            return None
        return self._edge.latency_s(self.heard_sample / SAMPLE_RATE, self._clock())

    @property
    def title(self) -> str:
        """Title of what is heard now."""
        heard = self.heard_sample // SAMPLES_PER_TOKEN
        begun = (title.title for title in reversed(self._titles) if title.token <= heard)
        return next(begun, "")

    def stop(self) -> None:
        """End soon: what was handed over stays, the rest is let go, :meth:`run` returns."""
        self._stop.set()

    async def run(self, connection: Messages) -> None:
        """Join and play until the stream ends, the limit is reached or :meth:`stop` is called.

        When the connection breaks, everything received is still played and the files completed.

        Raises:
            UserError: why there is nothing more to hear, after everything was closed.
            CodecError: the stream's codec cannot be loaded.
        """
        playing = asyncio.create_task(self._join_and_play(connection))
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
        if self._broke is not None and not self._stop.is_set():
            raise self._broke

    async def _join_and_play(self, connection: Messages) -> None:
        messages = aiter(connection)
        await connection.send(self.session.join())
        hello = await self._meet(messages)
        self.decoder = decoder = DecodeThread(self._codec, self.settings.decode)
        tasks = [
            playing := asyncio.create_task(self._play()),
            asyncio.create_task(self._decode(hello, decoder)),
            asyncio.create_task(self._receive(messages, hello)),
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

    async def _meet(self, messages: AsyncIterator[str | bytes]) -> Hello:
        """Wait for the hello and make sure that the stream can be decoded."""
        timeout_s = self.settings.hello_timeout_s
        while True:
            try:
                data = await asyncio.wait_for(anext(messages), timeout_s)
            except (TimeoutError, asyncio.TimeoutError):  # two classes until Python 3.11
                raise TransportError(
                    f"The sender said nothing for {timeout_s:.0f} s; check the address."
                ) from None
            except StopAsyncIteration:
                raise TransportError("The sender hung up without a word; try again.") from None
            now_s = self._clock()
            message = decode(data)
            if isinstance(message, Hello) and message.codec != self._codec.name and self._load:
                self._codec = await call_on_thread(self._load, message.codec)
                self.session = self._new_session(self._codec)
            for hello in self.session.receive(data, now_s):
                assert isinstance(hello, Hello)  # the session takes nothing else first
                self._hello_at_s = now_s
                self._titles.append(Title(hello.title, hello.first_token))
                if hello.next_token > hello.first_token:
                    self._note_arrival(hello.next_token, hello, hello.age_s)
                return hello

    async def _receive(self, messages: AsyncIterator[str | bytes], hello: Hello) -> None:
        """Messages into the queue; None at the end, also when the connection broke."""
        try:
            async for data in messages:
                for happening in self.session.receive(data, self._clock()):
                    if isinstance(happening, Title):
                        self._titles.append(happening)
                    elif isinstance(happening, Tokens | Gap):
                        if isinstance(happening, Tokens) and happening.end_token > hello.next_token:
                            self._note_arrival(happening.end_token, hello)
                        await self._queue.put(happening)
                    else:
                        self.end_reason = getattr(happening, "reason", "")
                        await self._queue.put(None)
                        return
            raise TransportError(
                "The sender hung up in the middle of the stream; start the listener again."
            )
        except UserError as error:
            self._broke = error
            await self._queue.put(None)

    def _note_arrival(self, end_token: int, hello: Hello, age_s: float = 0.0) -> None:
        self._edge.arrived(end_token, self._clock(), delay_s=hello.delay_s, age_s=age_s)

    async def _decode(self, hello: Hello, decoder: DecodeThread) -> None:
        """From the queue into the play-out buffer."""
        regenerator = Regenerator(decoder, self._buffer, self._pushed)
        history: list[Tokens | Gap] = []
        started = False
        while True:
            item = await self._queue.get()
            if item is not None:
                history.append(item)
            if not started and history and (item is None or _end(item) >= hello.next_token):
                # The history is complete, or as complete as it will ever be.
                await self._start(hello, decoder, _end(history[-1]))
                started = True
            if started:
                for received in history:
                    await regenerator.feed(received)
                history.clear()
            if item is None:
                break
        if started:
            await regenerator.finish()
        self._buffer.finish()
        self._pushed.set()

    async def _start(self, hello: Hello, decoder: DecodeThread, next_token: int) -> None:
        """Choose the place where the sound begins, see `plan_start`."""
        live = next_token > hello.next_token or hello.next_token == hello.first_token
        age_s = 0.0 if live else hello.age_s + self._clock() - self._hello_at_s
        plan = decoder.plan(
            next_token, hello.first_token, hello.packet_tokens, age_s, self.settings.margin_s
        )
        self._buffer.start_sample = plan.start_token * SAMPLES_PER_TOKEN
        self.output.hold_until_s = self._clock() + plan.hold_s
        logger.debug("starting at token %d, in %.2f s", plan.start_token, plan.hold_s)
        await decoder.start(
            first_token=hello.first_token, start_token=plan.start_token, stream_seed=hello.seed
        )

    async def _play(self) -> None:
        """From the play-out buffer to the output, until nothing more comes."""
        while not self._buffer.exhausted:
            self._pushed.clear()
            block = self._buffer.pull(_BLOCK_SAMPLES)
            if block is None:
                await self._pushed.wait()
            else:
                await self.output.write(block)

    def _new_session(self, codec: Codec) -> ListenerSession:
        return ListenerSession(
            CodecIdentity(codec.name, codec.weights, codec.digest),
            history=self.settings.history_tokens,
            client=self.settings.client,
        )


def _end(item: Tokens | Gap) -> int:
    """Index one past the last token."""
    return item.end_token if isinstance(item, Tokens) else item.first_token + item.count


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they are over; what they raise is of no interest any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
