"""A TCP proxy on loopback that does to a connection what bad networks do."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from types import TracebackType
from typing import Final

__all__ = ["FaultProxy"]

_CHUNK: Final = 4096


class FaultProxy:
    """Forwards connections to ``127.0.0.1:port`` within ``async with``, until told to misbehave.

    Attributes: ``port``, where it listens; ``delay_s`` and ``bytes_per_s``, of every byte that goes
    from the sender to the listener (None: as fast as can be); ``refusing``, whether new connections
    are closed at once; ``kills`` so far.
    """

    def __init__(self, port: int, chance: random.Random | None = None) -> None:
        self.target = port
        self.port = 0
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None
        self.refusing = False
        self.kills = 0
        self._chance = chance or random.Random(0)
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.StreamWriter, asyncio.StreamWriter] = {}
        self._frozen = asyncio.Event()
        self._frozen.set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where listeners connect to."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    async def __aenter__(self) -> FaultProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.kill()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def kill(self) -> None:
        """Cut every connection: by a reset, or quietly in the middle of a message."""
        for near, far in list(self._open.items()):
            self.kills += 1
            if self._chance.random() < 0.5:
                raw = near.get_extra_info("socket")
                linger = struct.pack("ii", 1, 0)  # a reset instead of an orderly end
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            near.transport.abort()
            far.transport.abort()
        self._open.clear()

    def freeze(self) -> None:
        """Swallow everything and stay connected: a half-open connection."""
        self._frozen.clear()

    def thaw(self) -> None:
        """Forward again."""
        self._frozen.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._open[writer] = far_writer
        directions = [self._pump(reader, far_writer), self._pump(far_reader, writer, faulty=True)]
        tasks = [asyncio.ensure_future(direction) for direction in directions]
        self._tasks.update(tasks)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open.pop(writer, None)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._tasks.difference_update(tasks)
            writer.transport.abort()
            far_writer.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, faulty: bool = False
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._frozen.wait()
                if faulty and self.delay_s:
                    await asyncio.sleep(self._chance.uniform(0, self.delay_s))
                if faulty and self.bytes_per_s is not None:
                    await asyncio.sleep(len(data) / self.bytes_per_s)
                writer.write(data)
                await writer.drain()
