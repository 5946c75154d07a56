"""What tests of the listening side share: a stream of fake tokens, sinks that remember."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable

import numpy as np

from codec.base import Codec
from streaming.audio.sinks import Sink
from streaming.errors import TransportError
from streaming.receive.listener import Listener
from streaming.receive.output import Output
from streaming.receive.settings import ListenerSettings
from streaming.transports.reconnecting import Backoff
from streaming.wire.messages import Hello, Message, Tokens
from streaming.wire.parsing import decode
from tests.support.fake_codec import FakeCodec

__all__ = [
    "BROKEN",
    "QUICK",
    "Dialler",
    "FakeCard",
    "MemorySink",
    "Script",
    "hello",
    "play",
    "scripted",
    "stop",
    "token_messages",
    "tokens",
    "whole_sound",
]


def tokens(count: int, seed: int = 0) -> np.ndarray:
    """Plausible tokens of the fake codec, int64 `[count]`."""
    return np.random.default_rng(seed).integers(0, 16384, count)


def whole_sound(all_tokens: np.ndarray, seed: int = 5) -> np.ndarray:
    """What an uninterrupted decoder makes of `all_tokens`, float32 `[2, n]`."""
    return FakeCodec().code2sound(all_tokens, seed=seed)


def hello(first_token: int = 0, next_token: int = 0, **changes: object) -> str:
    """A hello for the fake codec, as on the wire."""
    fields: dict[str, object] = {
        "codec": FakeCodec.name,
        "weights": FakeCodec.weights,
        "digest": FakeCodec.digest,
        "seed": 5,
        "first_token": first_token,
        "next_token": next_token,
        "age_s": 0.0,
        "delay_s": 0.2,
        "packet_tokens": 48,
        "title": "Song",
    }
    return Hello(**{**fields, **changes}).encode()  # type: ignore[arg-type]


def token_messages(all_tokens: np.ndarray, first: int = 0, size: int = 48) -> list[bytes]:
    """Tokens from index `first` on in packets of `size`."""
    return [
        Tokens(start, all_tokens[start : start + size]).encode()
        for start in range(first, len(all_tokens), size)
    ]


class Script:
    """A connection that plays messages; then it closes, breaks (with an error) or stays silent."""

    def __init__(self, *messages: Message | str | bytes, then: Exception | str = "close") -> None:
        self.queue: asyncio.Queue[Message | str | bytes | Exception | None] = asyncio.Queue()
        self.sent: list[Message] = []
        self.taken = 0
        self.closed = False
        self.add(*messages)
        if isinstance(then, Exception):
            self.queue.put_nowait(then)
        elif then == "close":
            self.queue.put_nowait(None)

    def add(self, *messages: Message | str | bytes) -> None:
        for message in messages:
            self.queue.put_nowait(message)

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def close(self) -> None:
        self.closed = True

    async def __aiter__(self) -> AsyncIterator[Message]:
        while (message := await self.queue.get()) is not None:
            if isinstance(message, Exception):
                raise message
            self.taken += 1
            yield decode(message) if isinstance(message, (str, bytes)) else message


class Dialler:
    """Hands out connections in order."""

    def __init__(self, *connections: Script) -> None:
        self.connections = list(connections)

    async def __call__(self) -> Script:
        return self.connections.pop(0)


QUICK = Backoff(first_s=0.001, most_s=0.001)


def scripted(
    output: Output,
    *connections: Script,
    codec: Codec | None = None,
    load: Callable[[str], Codec] | None = None,
    clock: Callable[[], float] = time.monotonic,
    **settings: object,
) -> Listener:
    """A listener that is told what is in ``connections``, one after the other."""
    backoff = QUICK if len(connections) > 1 else Backoff(attempts=0)
    return Listener(
        Dialler(*connections),
        codec or FakeCodec(),
        output,
        load=load,
        settings=ListenerSettings(**{"backoff": backoff, **settings}),  # type: ignore[arg-type]
        clock=clock,
    )


async def play(listener: Listener) -> None:
    """Listen to the end."""
    async with listener:
        await listener.play()


async def stop(running: asyncio.Task[None]) -> None:
    """Leave a listener that plays."""
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


BROKEN = TransportError("The connection to ws://test broke", "start the listener again")


class MemorySink(Sink):
    """Keeps what is written; can wait, fail, or have its reader gone after some samples."""

    def __init__(self, fail_at: int | None = None, error: Exception | None = None) -> None:
        self.blocks: list[np.ndarray] = []
        self.closed = 0
        self.drained = 0
        self.close_error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.threads: set[int] = set()
        self._fail_at = fail_at
        self._error = error

    @property
    def samples(self) -> int:
        return sum(block.shape[1] for block in self.blocks)

    @property
    def sound(self) -> np.ndarray:
        return np.concatenate([np.zeros((2, 0), np.float32), *self.blocks], axis=1)

    def write(self, block: np.ndarray) -> None:
        self.threads.add(threading.get_ident())
        self.gate.wait()
        if self._error is not None and self.samples >= (self._fail_at or 0):
            raise self._error
        self.blocks.append(np.array(block))

    def drain(self) -> None:
        self.drained += 1

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        self.closed += 1
        if self.close_error is not None:
            raise self.close_error


class FakeCard(MemorySink):
    """A sound card without a clock: `buffered_samples` is what the test says."""

    paces = True

    def __init__(self) -> None:
        super().__init__()
        self.buffered_samples = 0
        self.underruns = 0
        self.dropped = 0
        self.speed = 1.0
        self.drain_gate = threading.Event()
        self.drain_gate.set()

    def drop(self) -> None:
        self.dropped += 1

    def interrupt(self) -> None:
        self.interrupted = True

    def drain(self) -> None:
        super().drain()
        self.drain_gate.wait()
