"""Ogg streams one after another in one file or connection (RFC 3533: "chained").

A recording of an Internet radio is such a chain, a link for each song, with its own title and
perhaps another codec, sample rate or number of channels. Decoders stop at the first link's end,
or take the next one for more of the same; so each link gets a decoder of its own.
"""

from __future__ import annotations

import zlib
from typing import Final

from streaming.audio.sources.readers import Feed

__all__ = ["OGG_MAGIC", "OggLinks"]

OGG_MAGIC: Final = b"OggS"
_HEAD_BYTES: Final = 27
_BEGINS: Final = 0x02
_ENDS: Final = 0x04
_CHECKSUM: Final = slice(22, 26)
_MIRRORED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_MOST_JUNK_BYTES: Final = 1 << 16


class OggLinks:
    """Cuts a chain into its links, byte for byte.

    What is no page, because it is damaged, stays in its place: to find the next page in it is
    the decoder's affair.

    Attributes:
        intact: whether all of this link so far is pages that are as they were made.
        complete: whether what was read last is whole and marked as its stream's end.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._buffer = bytearray()
        self._held = b""  # a page that belongs to the next link
        self._inside = False
        self._begun = False  # whether more than first pages came: one ends the link from then on
        self.intact = True
        self.complete = False

    def next_link(self) -> bool:
        """Go to the next link, past what was not read of this one; False: there is none."""
        while self.read():
            pass
        self._held = self._held or self._page()
        self._begun = False
        self._inside = bool(self._held)
        self.intact = True
        return self._inside

    def read(self) -> bytes:
        """The next page of this link; `b""` at its end, and before the first `next_link`."""
        if not self._inside:
            return b""
        page, self._held = self._held or self._page(), b""
        begins = page.startswith(OGG_MAGIC) and len(page) > 5 and bool(page[5] & _BEGINS)
        if not page or (begins and self._begun):
            self._held = page
            self._inside = False
            return b""
        self._begun = self._begun or not begins
        self.intact = self.intact and _is_intact(page)
        return page

    def _page(self) -> bytes:
        """A page, or what lies before the next one, or the rest of a stream that was cut."""
        buffer = self._buffer
        if not self._have(_HEAD_BYTES):
            return self._take(len(buffer))
        if not buffer.startswith(OGG_MAGIC):
            while (at := buffer.find(OGG_MAGIC)) < 0:
                if not self._have(len(buffer) + 1):
                    return self._take(len(buffer))
                if len(buffer) > _MOST_JUNK_BYTES:
                    return self._take(len(buffer) - len(OGG_MAGIC))
            return self._take(at)
        size = _HEAD_BYTES + buffer[_HEAD_BYTES - 1]
        if self._have(size):
            size += sum(buffer[_HEAD_BYTES:size])
        whole = self._have(size)
        page = self._take(size)
        self.complete = whole and bool(page[5] & _ENDS)
        return page

    def _have(self, size: int) -> bool:
        """Read until so many bytes are there; False: the stream ends before."""
        while len(self._buffer) < size:
            if not (data := self._feed()):
                return False
            self._buffer += data
        return True

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


def _is_intact(page: bytes) -> bool:
    """Whether it is a page with the right checksum."""
    if not page.startswith(OGG_MAGIC) or len(page) < _HEAD_BYTES:
        return False
    zeroed = page[: _CHECKSUM.start] + bytes(4) + page[_CHECKSUM.stop :]
    # Ogg's CRC-32 is zlib's with the bits of everything the other way round, begun with 0.
    crc = zlib.crc32(zeroed.translate(_MIRRORED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    mirrored = crc.to_bytes(4, "little").translate(_MIRRORED)
    return mirrored == page[_CHECKSUM][::-1]
