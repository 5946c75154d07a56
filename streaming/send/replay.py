"""Serves ``.muc`` files: a sender without a codec.

    files ─► tokens, renumbered as one stream ─► packets, each when it is due ─► hub

An old laptop can be the radio station: no model is loaded, and torch is not imported.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from codec.constants import TOKEN_RATE
from streaming.errors import SettingsError, SourceError
from streaming.files.muc import Item, MucReader, StreamHeader
from streaming.send.pacing import RealTimePacer
from streaming.send.publisher import Publisher
from streaming.support.worker import Worker
from streaming.wire.messages import Gap, Title, Tokens

__all__ = ["MucPlaylist", "Replay"]

logger = logging.getLogger(__name__)


class MucPlaylist:
    """Files of one codec, one after another as one stream. Blocking calls, for a worker thread.

    A file that cannot be read is left out with a warning.

    Args:
        paths: of the files.
        loop: start over at the end, without end.
        shuffle: play each round in a random order.
        title: shown instead of the files' own titles.
        chance: draws the order.

    Attributes:
        header: the first file's: what all of them have in common, and the seed.

    Raises:
        SourceError: nothing can be read.
        SettingsError: codecs or weights differ.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        loop: bool = False,
        shuffle: bool = False,
        title: str | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self._loop = loop
        self._shuffle = shuffle
        self._title = title
        self._chance = chance or random.Random()
        self._readers: list[MucReader] = []
        for path in paths:
            try:
                self._readers.append(MucReader(path))
            except SourceError as error:
                if len(paths) == 1:
                    raise
                logger.warning("Skipped: %s", error)
        if not self._readers:
            raise SourceError(f"Nothing to play: none of {len(paths)} .muc files can be read.")
        self.header: StreamHeader = self._readers[0].header
        for reader in self._readers:
            self._check(reader)

    def items(self, first_token: int = 0) -> Iterator[Item]:
        """What plays, numbered from ``first_token`` on; titles before what they name.

        Raises SourceError if nothing is left that can be read.
        """
        place = first_token
        while True:
            begun = place
            if self._shuffle:
                self._chance.shuffle(self._readers)
            for reader in list(self._readers):
                try:
                    for item in self._renumbered(reader, place):
                        yield item
                        place = max(place, _end(item))
                except SourceError as error:
                    logger.warning("%s", error)
                    self._readers.remove(reader)
            if not self._loop:
                return
            if place == begun:
                raise SourceError("Nothing to play: there is no music in these .muc files.")

    def _renumbered(self, reader: MucReader, place: int) -> Iterator[Item]:
        shift = place - reader.header.music_from
        titled = False
        for item in reader.items():
            if isinstance(item, Title):
                item = Title(item.title, max(place, item.token + shift))
                if self._title is not None:
                    continue
            elif not titled:
                yield Title(self._title or reader.path.stem, place)
            titled = True
            if isinstance(item, Tokens):
                item = Tokens(item.first_token + shift, item.tokens)
            elif isinstance(item, Gap):
                item = Gap(item.first_token + shift, item.count)
            yield item

    def _check(self, reader: MucReader) -> None:
        first, other = self.header, reader.header
        if (first.codec, first.digest) != (other.codec, other.digest):
            raise SettingsError(
                f"{reader.name} is of {other.codec} ({other.digest[:12]}…) and "
                f"{self._readers[0].name} of {first.codec} ({first.digest[:12]}…); one stream has "
                "one codec, so serve them apart."
            )


class Replay:
    """Publishes a playlist in real time. Needs a running event loop.

    Args:
        playlist: read on a thread of its own.
        publisher: takes the tokens; the stream goes on where its hub stands.
        clock: monotonic seconds. sleep: waits.
    """

    encode_rtf: float | None = None
    reconnects = 0

    def __init__(
        self,
        playlist: MucPlaylist,
        publisher: Publisher,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._playlist = playlist
        self._publisher = publisher
        self._packet_tokens = publisher.hub.info.packet_tokens
        self._clock = clock
        self._sleep = sleep
        self._first_token = publisher.hub.next_token
        self._pending = np.zeros(0, dtype=np.int64)
        self._pacer: RealTimePacer | None = None

    @property
    def source_samples(self) -> int:
        """Samples that the tokens published so far stand for."""
        return self._publisher.samples

    async def run(self) -> None:
        """Publish until the last file ends, and tell the listeners. Raises SourceError."""
        worker = Worker("replay")
        items = self._playlist.items(self._first_token)
        # The first packet goes out at once: who listens first need not wait for it.
        lead_s = self._packet_tokens / TOKEN_RATE
        self._pacer = RealTimePacer(self._clock, TOKEN_RATE, lead_s=lead_s)
        try:
            while (item := await worker.run(next, items, None)) is not None:
                if isinstance(item, Title):
                    await self._publisher.title(item.title, item.token)
                elif isinstance(item, Gap):
                    await self._release(everything=True)
                    await self._wait(item.count)
                    await self._publisher.gap(item.count)
                else:
                    self._pending = np.concatenate([self._pending, item.tokens])
                    await self._release()
            await self._release(everything=True)
        except SourceError:
            self._publisher.end("the source failed")
            raise
        finally:
            await worker.close()
        self._publisher.end("the source has ended")

    async def _release(self, *, everything: bool = False) -> None:
        """Publish the packets that are complete, and the last incomplete one on ``everything``."""
        while len(self._pending):
            done = self._publisher.hub.next_token - self._first_token
            count = self._packet_tokens - done % self._packet_tokens
            if len(self._pending) < count and not everything:
                return
            packet, self._pending = self._pending[:count], self._pending[count:]
            await self._wait(len(packet))
            await self._publisher.tokens(packet)

    async def _wait(self, tokens: int) -> None:
        """Until so many more tokens are due."""
        assert self._pacer is not None
        await self._sleep(self._pacer.wait_s(tokens))
        self._pacer.due()  # what is too late is forgiven: the stream goes on at its own pace
        self._pacer.take(tokens)


def _end(item: Item) -> int:
    """One past the last token; 0 for a title."""
    if isinstance(item, Gap):
        return item.first_token + item.count
    return item.end_token if isinstance(item, Tokens) else 0
