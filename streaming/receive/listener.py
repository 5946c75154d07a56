"""The listening side: messages in, sound out.

    connection → receive → queue → decode (thread) → play-out buffer → output (threads)

Two tasks on the event loop, beside whoever iterates; the decoder and each sink have a thread of
their own. All that lies between them is bounded, and a part that is full holds up the one before
it:

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
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN, TOKEN_RATE
from streaming.errors import SinkClosed, UserError
from streaming.receive.decoding import Beginning, DecodeThread, Decoding
from streaming.receive.output import Output
from streaming.receive.playout import PlayoutBuffer
from streaming.receive.reserve import Adaptation, ReserveControl
from streaming.receive.settings import CatchUp, ListenerSettings
from streaming.stream.listener_session import CodecIdentity, Event, ListenerSession
from streaming.stream.timeline import StartAt
from streaming.stream.traffic import Traffic
from streaming.support.tasks import beside, cancel
from streaming.support.worker import call_model
from streaming.transports.link import Dial, Link
from streaming.wire.messages import MAX_GAP_TOKENS, End, Gap, Hello, Join, Title, Tokens

if TYPE_CHECKING:
    from codec.base import Codec

__all__ = ["Listener"]

logger = logging.getLogger(__name__)

Audio = NDArray[np.float32]

_BUFFER_S: Final = 4.0
_BLOCK_SAMPLES: Final = SAMPLE_RATE // 10
_KEPT_TITLES: Final = 64


class Listener:
    """Receives one stream and decodes it, within ``async with``; iterate over it for the sound.

    Args:
        dial: makes a connection to the sender, on entering and whenever one breaks. If it does not
            succeed, everything received is still played and the files completed.
        codec: the codec that is expected, loaded beforehand so that sound starts at once.
        output: takes the sound as well; closed on leaving.
        load: fetches another codec by the name in the hello, called on a thread; raises CodecError.
            Without it, a stream of another codec is refused.
        settings: see :class:`ListenerSettings`.
        traffic: counts what arrives.
        observe: told of everything that happens in the stream, such as a recorder.
        begun: told where in it the sound begins, see :class:`Decoding`.
        clock: monotonic seconds.

    Attributes:
        session: what has come, in order.
        link: None before there is a connection.
        decoder: None before the hello.
        end_reason: None until the sender ended the stream.

    Raises:
        UserError: on entering, that there is no connection; while iterating, why there is nothing
            more to hear, after everything was handed on; on leaving, that a file is incomplete.
        CodecError: the stream's codec cannot be loaded.
    """

    def __init__(
        self,
        dial: Dial,
        codec: Codec,
        output: Output | None = None,
        *,
        load: Callable[[str], Codec] | None = None,
        settings: ListenerSettings | None = None,
        traffic: Traffic | None = None,
        observe: Callable[[Event], Awaitable[None]] | None = None,
        begun: Callable[[Hello, int, int], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.output = output or Output(clock=clock)
        self.settings = settings = settings or ListenerSettings()
        join = settings.start.join(settings.history_tokens, settings.client)
        self.session = ListenerSession(_identity(codec), join=join, auth_token=settings.auth_token)
        if traffic is not None:
            self.session.traffic = traffic
        self.decoder: DecodeThread | None = None
        self.end_reason: str | None = None
        self.link: Link | None = None
        self._dial = dial
        self._codec = codec
        self._load = load
        self._observe = observe
        self._begun = begun
        self._clock = clock
        self._start_at = settings.start
        self._moving = False
        self._titles: deque[Title] = deque(maxlen=_KEPT_TITLES)
        self._closed: deque[Gap] = deque()  # gaps that will not be heard, as far as they lie ahead
        self._buffer = PlayoutBuffer(int(_BUFFER_S * SAMPLE_RATE), settings.limit_samples)
        self._adaptation = Adaptation(settings)
        self._connect_at_s = clock()
        self._running: asyncio.Task[None] | None = None
        self._broke: UserError | None = None

    async def __aenter__(self) -> Listener:
        self._connect_at_s = self._clock()
        connection = None if self.settings.wait else await self._dial()
        self.link = Link(
            self.session,
            connection,
            None if self.settings.backoff.attempts == 0 else self._dial,
            meet=self._meet,
            observe=self._observe,
            rejoin=self._rejoin,
            backoff=self.settings.backoff,
            hello_timeout_s=self.settings.hello_timeout_s,
            clock=self._clock,
        )
        self._running = asyncio.create_task(self._run(self.link))
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._running is not None
        assert self.link is not None
        await cancel(self._running)
        try:
            if self.decoder is not None:
                await self.decoder.close()
            await self.output.close()
        finally:
            await self.link.close()

    async def __aiter__(self) -> AsyncIterator[Audio]:
        """Blocks of sound, float32 ``[2, n]`` at 48 kHz, each after the output has taken it."""
        assert self._running is not None
        try:
            while (block := await self._buffer.get(_BLOCK_SAMPLES)) is not None:
                await self.output.write(block.sound, block.due_s)
                yield block.sound
            if self._running.done():
                self._running.result()  # raises what went wrong
            await self.output.drain()
        except SinkClosed:
            logger.info("whoever read the sound has gone")
        if self._broke is not None:
            raise self._broke

    async def play(self) -> None:
        """Hand the sound to the output until the stream ends; raises what iterating does."""
        async for _ in self:
            pass

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
        return self._adaptation.latency_s(self.heard_sample, self._clock())

    @property
    def reserve(self) -> ReserveControl:
        """The reserve of sound and its target."""
        return self._adaptation.reserve

    @property
    def title(self) -> str:
        """Title of what is heard now."""
        heard = self.heard_sample // SAMPLES_PER_TOKEN
        begun = (title.title for title in reversed(self._titles) if title.token <= heard)
        return next(begun, "")

    @property
    def lost_tokens(self) -> int:
        """Tokens that did not come and were replaced."""
        return self.session.lost_tokens

    @property
    def reconnects(self) -> int:
        """How often the connection was lost and made again."""
        return 0 if self.link is None else self.link.reconnects

    @property
    def clock_s(self) -> float | None:
        """Unix time at which what is heard now played at the source, if the sender tells."""
        hello = self.session.hello
        if hello is None or hello.first_at_s is None:
            return None
        first_sample = hello.first_token * SAMPLES_PER_TOKEN
        return hello.first_at_s + (self.heard_sample - first_sample) / SAMPLE_RATE

    @property
    def connected(self) -> bool:
        """Whether there is a connection just now."""
        return self.link is not None and not self.link.away

    @property
    def can_move(self) -> bool:
        """Whether there is a way to another place in the stream."""
        return self.link is not None and self.link.can_move

    def seek(self, seconds: float) -> None:
        """Go back (negative) or forward from what is heard now; beyond the live edge: live."""
        token = self.heard_sample // SAMPLES_PER_TOKEN + round(seconds * TOKEN_RATE)
        live = token + TOKEN_RATE >= self.session.next_token
        self.go_to(StartAt() if live else StartAt(token=max(0, token)))

    def go_to(self, start: StartAt) -> None:
        """Leave the place in the stream for another: what is heard fades out, the other fades in.

        Does nothing if there is no connection, or no way to make another one.
        """
        if self.link is not None and self.can_move:
            self._start_at = start
            self._moving = True
            self.link.go_to(start.join(self.settings.history_tokens, self.settings.client))

    def figures(self) -> dict[str, Any]:
        """The statistics at this moment; None for what is not known (yet).

        ``tokens``: received. ``lost_tokens``: replaced by others. ``payload_bits_per_s`` and
        ``wire_bits_per_s``: over the last minute, without the history sent on joining (see
        :mod:`streaming.support.stats`). ``first_audio_s``: from the start of connecting to the
        first sample handed on. ``latency_s``: from the source to what is heard now, or was
        written to a file last. ``underruns``: of the sound card. ``speed``: at which the sound card
        plays. ``reserve_s``: sound that was left when packets came, smoothed; ``target_s``: how
        much there should be; ``drift_ppm``: by how much the sender's clock is faster.
        ``reconnects``: how often the connection was made again. ``clock_s``: Unix time at which
        what is heard now played at the source, if the sender tells. ``gaps``: runs of lost
        tokens. ``decode_rtf``: computing time per second of sound. ``samples``: handed on.
        ``buffer_s``: received and not yet heard. ``position_s``: where in the stream the next
        sample lies. ``title``: of what is heard now.
        """
        session, now_s = self.session, self._clock()
        first_at_s, reserve = self.output.first_at_s, self.reserve
        return {
            "tokens": session.traffic.tokens,
            "lost_tokens": session.lost_tokens,
            "gaps": session.gaps,
            "payload_bits_per_s": session.traffic.payload_bits_per_s(now_s),
            "wire_bits_per_s": session.traffic.wire_bits_per_s(now_s),
            "first_audio_s": None if first_at_s is None else first_at_s - self._connect_at_s,
            "latency_s": self.latency_s,
            "underruns": self.output.underruns,
            "speed": self.output.speed,
            "reserve_s": reserve.reserve_s,
            "target_s": reserve.target_s,
            "drift_ppm": 1e6 * reserve.drift,
            "reconnects": self.reconnects,
            "clock_s": self.clock_s,
            "decode_rtf": None if self.decoder is None else self.decoder.rtf.value,
            "samples": self.samples,
            "buffer_s": self.buffered_s,
            "position_s": self.position_s,
            "title": self.title,
        }

    async def _run(self, link: Link) -> None:
        """Receive and decode, until the end or until the connection is lost for good."""
        try:
            events = aiter(link)
            hello = await anext(events)
            assert isinstance(hello, Hello)  # the session takes nothing else first
            self.decoder = DecodeThread(self._codec, self.settings.decode)
            beginning = self._welcome(hello)
            decoding = Decoding(beginning, self.decoder, self._buffer, self._clock, self._begun)
            receive = self._receive(events, decoding)
            async with beside(decoding.run()) as decodes, beside(receive) as receives:
                await asyncio.gather(decodes, receives)
        except BaseException:
            self._buffer.cut()
            raise
        finally:
            self._buffer.finish()

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
        self._adaptation.begin(hello, self._clock())
        self._titles.append(Title(hello.title, hello.first_token))
        return self._beginning(hello)

    def _beginning(self, hello: Hello) -> Beginning:
        return Beginning(hello, self._clock(), self._start_at, self.reserve.target_s)

    async def _receive(self, events: AsyncIterator[Event], decoding: Decoding) -> None:
        """Messages on to where they become sound, until the end, or the connection's for good."""
        try:
            async for event in events:
                if isinstance(event, Title):
                    self._titles.append(event)
                elif isinstance(event, Hello):
                    self._leave_place(decoding)
                    await decoding.put(self._welcome(event))
                elif isinstance(event, End):
                    self.end_reason = event.reason
                    break
                else:
                    await decoding.put(event)
                    await self._follow(event, decoding)
        except UserError as error:
            self._broke = error
        await decoding.put(None)

    def _leave_place(self, decoding: Decoding) -> None:
        """Something else begins: on purpose at once, otherwise after all that there is."""
        if self._moving:
            self._moving = False
            self._adaptation.leave(on_purpose=not self._start_at.live)
            self._titles.clear()
            self._let_go(decoding)

    def _let_go(self, decoding: Decoding) -> None:
        """Fade out, and leave what waits to be heard."""
        decoding.abandon()
        self.output.drop()

    async def _follow(self, item: Tokens | Gap, decoding: Decoding) -> None:
        """See what tokens that came in say about time, and jump when it is time to."""
        hello, decoder = self.session.hello, self.decoder
        assert hello is not None
        assert decoder is not None
        end_token = item.end_token if isinstance(item, Tokens) else item.first_token + item.count
        if isinstance(item, Gap) and item.count > MAX_GAP_TOKENS:
            self._closed.append(item)
        plays = self.output.paced and self.output.first_at_s is not None
        heard, now_s = self.heard_sample if plays else None, self._clock()
        self.output.speed = self._adaptation.received(
            item, hello, decoder.decodable(end_token), heard, now_s
        )
        if self._start_at.live and (jump := self._adaptation.jump(hello, now_s)) is not None:
            self._let_go(decoding)
            await decoding.put(self._beginning(jump[0]))
            for tokens in jump[1]:
                await decoding.put(tokens)


def _identity(codec: Codec) -> CodecIdentity:
    return CodecIdentity(codec.name, codec.weights, codec.digest)
