"""Sound as players want it: encoded once a format by ffmpeg, and handed to any number of listeners.

What ffmpeg writes is cut where a listener can begin: an Ogg stream at its pages, whose headers each
listener gets first; MP3 at its frames. The newest of it is kept, so that who comes has something to
play at once, and who reads slowly can do so for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import struct
import subprocess
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from codec.constants import CHANNELS, SAMPLE_RATE
from streaming.support.tasks import cancel

__all__ = [
    "BURST_S",
    "FORMATS",
    "EncodedStream",
    "Format",
    "Mp3Frames",
    "OggPages",
    "Unit",
    "encoders",
]

logger = logging.getLogger(__name__)

BURST_S: Final = 4.0
"""Seconds of sound that a listener gets at once: its reserve from then on."""
_KEPT_S: Final = 20.0
"""Who falls this far behind is dropped."""
_LINGER_S: Final = 20.0
"""A format that nobody hears is encoded no longer."""
_PIECE_BYTES: Final = 1 << 16
_MOST_UNITS: Final = 64
_MOST_WAITING: Final = 512
_OPUS_BITS_PER_S: Final = 96_000
_MP3_BITS_PER_S: Final = 160_000
_MP3_FRAME_SAMPLES: Final = 1152
_MP3_FRAME_BYTES: Final = _MP3_FRAME_SAMPLES // 8 * _MP3_BITS_PER_S // SAMPLE_RATE
_PAGE_MICROSECONDS: Final = 200_000
_OGG_HEAD: Final = struct.Struct("<4sBBqIIIB")  # magic, version, kind, granule, ..., segments


@dataclass
class Link:
    """One run of the encoder.

    Attributes:
        head: what every listener of it gets first.
    """

    head: bytes = b""


@dataclass(frozen=True)
class Unit:
    """A piece with which a listener can begin.

    Attributes:
        seconds: of sound in it.
    """

    link: Link
    data: bytes
    seconds: float


class Framing(Protocol):
    """Cuts what an encoder writes into units."""

    def feed(self, data: bytes) -> list[Unit]:
        """The units that are whole with ``data``."""


class OggPages:
    """Pages of one Ogg stream whose granule positions count samples at 48 kHz."""

    def __init__(self) -> None:
        self._link = Link()
        self._buffer = b""
        self._granule = 0

    def feed(self, data: bytes) -> list[Unit]:
        """See :class:`Framing`."""
        self._buffer += data
        units = []
        while page := self._page():
            granule = _OGG_HEAD.unpack_from(page)[3]
            if granule <= 0 and not self._granule:
                self._link.head += page
                continue
            seconds = max(0, granule - self._granule) / SAMPLE_RATE
            self._granule = max(granule, self._granule)
            units.append(Unit(self._link, page, seconds))
        return units

    def _page(self) -> bytes:
        """The next page; empty if it is not whole yet."""
        if len(self._buffer) < _OGG_HEAD.size:
            return b""
        segments = _OGG_HEAD.unpack_from(self._buffer)[-1]
        table = self._buffer[_OGG_HEAD.size : _OGG_HEAD.size + segments]
        size = _OGG_HEAD.size + segments + sum(table)
        if len(table) < segments or len(self._buffer) < size:
            return b""
        page, self._buffer = self._buffer[:size], self._buffer[size:]
        return page


class Mp3Frames:
    """Frames of MP3 at a constant rate, which at 48 kHz are all of one size."""

    def __init__(self) -> None:
        self._link = Link()
        self._buffer = b""

    def feed(self, data: bytes) -> list[Unit]:
        """See :class:`Framing`."""
        data = self._buffer + data
        frames, rest = divmod(len(data), _MP3_FRAME_BYTES)
        whole = len(data) - rest
        self._buffer = data[whole:]
        if not frames:
            return []
        return [Unit(self._link, data[:whole], frames * _MP3_FRAME_SAMPLES / SAMPLE_RATE)]


@dataclass(frozen=True)
class Format:
    """A format that players may ask for.

    Attributes:
        name: the end of its address.
        kind: the content type.
        encoder, options: ffmpeg's.
        framing: cuts what ffmpeg writes.
        titled: whether a new title begins a new stream in it, chained to the one before.
        bits_per_s: of ffmpeg's encoder; None: whatever it takes.
    """

    name: str
    kind: str
    encoder: str
    options: tuple[str, ...]
    framing: type[OggPages] | type[Mp3Frames]
    titled: bool
    bits_per_s: int | None = None

    def command(self, title: str) -> list[str]:
        """What encodes bare samples into this format, without a delay that can be spared."""
        return [
            *("ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error"),
            *("-probesize", "32", "-analyzeduration", "0"),
            *("-f", "f32le", "-ar", str(SAMPLE_RATE), "-ac", str(CHANNELS), "-i", "pipe:0"),
            *("-c:a", self.encoder, *self.options),
            *(("-metadata", f"title={title}") if self.titled and title else ()),
            *("-flush_packets", "1", "pipe:1"),
        ]


_MP3: Final = ("-reservoir", "0", "-write_xing", "0", "-id3v2_version", "0", "-f", "mp3")
_OGG: Final = ("-page_duration", str(_PAGE_MICROSECONDS), "-f", "ogg")

FORMATS: Final = (
    Format(
        "opus",
        "audio/ogg",
        "libopus",
        ("-b:a", str(_OPUS_BITS_PER_S), *_OGG),
        OggPages,
        titled=True,
        bits_per_s=_OPUS_BITS_PER_S,
    ),
    Format(
        "mp3",
        "audio/mpeg",
        "libmp3lame",
        # No frame needs bits of another, and nothing stands before the first one.
        ("-b:a", str(_MP3_BITS_PER_S), *_MP3),
        Mp3Frames,
        titled=False,
        bits_per_s=_MP3_BITS_PER_S,
    ),
    Format("flac", "audio/ogg; codecs=flac", "flac", ("-sample_fmt", "s16", *_OGG), OggPages, True),
)
"""The default first."""


def encoders() -> frozenset[str]:
    """Names of the encoders that ffmpeg has; empty if it is not installed. Takes a moment."""
    program = shutil.which("ffmpeg")
    if program is None:
        return frozenset()
    command = [program, "-hide_banner", "-loglevel", "error", "-encoders"]
    listed = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return frozenset(words[1] for line in listed.stdout.splitlines() if (words := line.split())[1:])


class EncodedStream:
    """One format: its encoder while anybody listens, and what it made last.

    Attributes:
        listeners: how many there are.
        most: how many there were at once.
        dropped: how many read too slowly.
    """

    def __init__(self, made: Format) -> None:
        self.format = made
        self.listeners = self.most = self.dropped = 0
        self._units: list[Unit] = []
        self._first = 0  # number of the first unit that is kept
        self._more = asyncio.Event()
        self._sound: asyncio.Queue[bytes | str | None] = asyncio.Queue(_MOST_WAITING)
        self._encoding: asyncio.Task[None] | None = None
        self._ended = False

    @property
    def encodes(self) -> bool:
        """Whether it is being encoded."""
        return self._encoding is not None and not self._encoding.done()

    def begin(self, recent: Iterable[bytes], title: str) -> None:
        """Encode from now on; if nobody listens yet, the last seconds as well."""
        if self.encodes or self._ended:
            return
        self._sound = asyncio.Queue(_MOST_WAITING)
        if not self.listeners:
            self._first += len(self._units)
            self._units.clear()
            for pcm in recent:
                self._sound.put_nowait(pcm)
        self._encoding = asyncio.create_task(self._encode(self._sound, title))
        self._encoding.add_done_callback(lambda _: self._wake())

    def push(self, pcm: bytes) -> None:
        """Samples, float32, left and right in turns, as they come."""
        self._put(pcm)

    def turn(self, title: str) -> None:
        """What comes now has another title."""
        if self.format.titled:
            self._put(title)

    def end(self) -> None:
        """Nothing more comes: listeners get the rest."""
        self._ended = True
        self._put(None)

    async def close(self) -> None:
        """Stop at once."""
        self._ended = True
        if self._encoding is not None:
            await cancel(self._encoding)
        self._wake()

    async def listen(self) -> AsyncGenerator[bytes, None]:
        """What a new listener gets. Raises ConnectionAbortedError if it reads too slowly."""
        self.listeners += 1
        self.most = max(self.most, self.listeners)
        at, link = self._beginning(), None
        try:
            while True:
                if at < self._first:
                    self.dropped += 1
                    raise ConnectionAbortedError("a listener of the gateway reads too slowly")
                out: list[bytes] = []
                for unit in self._units[at - self._first :][:_MOST_UNITS]:
                    if unit.link is not link:
                        link = unit.link
                        out.append(link.head)
                    out.append(unit.data)
                    at += 1
                if out:
                    yield b"".join(out)
                elif self._ended and not self.encodes:
                    return
                else:
                    await self._more.wait()
        finally:
            self.listeners -= 1

    def _beginning(self) -> int:
        """Number of the unit with which a listener begins that comes now."""
        at, seconds = self._first + len(self._units), 0.0
        for unit in reversed(self._units):
            if seconds >= BURST_S:
                break
            at -= 1
            seconds += unit.seconds
        return at

    async def _encode(self, sound: asyncio.Queue[bytes | str | None], title: str) -> None:
        """Run ffmpeg until the end, until nobody listens, or until it fails; for titles anew."""
        running: list[Process] = []
        reading: asyncio.Task[None] | None = None
        following: str | None = title
        try:
            while following is not None:
                command = self.format.command(following)
                process = await asyncio.create_subprocess_exec(
                    *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True
                )
                running.append(process)
                reading = asyncio.create_task(self._read(process, reading))
                following = await self._feed(process, sound)
            if reading is not None:
                await reading
        except OSError as error:
            logger.warning(
                "ffmpeg has failed with %s (%s); it begins anew", self.format.name, error
            )
        finally:
            if reading is not None:
                reading.cancel()
            for process in running:
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                    await process.wait()

    async def _feed(self, process: Process, sound: asyncio.Queue[bytes | str | None]) -> str | None:
        """Hand samples over until there is a new title, which is returned, or no more is wanted."""
        assert process.stdin is not None
        loop = asyncio.get_running_loop()
        wanted_s = loop.time()
        item: bytes | str | None = b""
        while isinstance(item, bytes):
            process.stdin.write(item)
            await process.stdin.drain()
            wanted_s = loop.time() if self.listeners else wanted_s
            item = await sound.get() if loop.time() - wanted_s < _LINGER_S else None
        process.stdin.close()
        return item

    async def _read(self, process: Process, before: asyncio.Task[None] | None) -> None:
        """Publish what a process writes, after all that the one before it writes."""
        assert process.stdout is not None
        if before is not None:
            await before
        framing = self.format.framing()
        while data := await process.stdout.read(_PIECE_BYTES):
            self._publish(framing.feed(data))
        await process.wait()

    def _publish(self, units: Sequence[Unit]) -> None:
        self._units += units
        kept_s = sum(unit.seconds for unit in self._units)
        while self._units and kept_s - self._units[0].seconds > _KEPT_S:
            kept_s -= self._units.pop(0).seconds
            self._first += 1
        self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()

    def _put(self, item: bytes | str | None) -> None:
        if not self.encodes:
            return
        try:
            self._sound.put_nowait(item)
        except asyncio.QueueFull:
            logger.warning("ffmpeg does not keep up with %s; it begins anew", self.format.name)
            assert self._encoding is not None
            self._encoding.cancel()
