"""A one-way link in the simulated network."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

from benchmarks.lab.network import DOWN, IP_UDP_BYTES, Network

__all__ = ["SimulatedLine"]


@dataclass(frozen=True)
class SimulatedLine:
    """In the place of :class:`streaming.transports.oneway.ports.SerialAddress` or ``UdpAddress``.

    datagrams: each frame travels in one, with headers of UDP and IP; otherwise frames are on the
    link by themselves, as on a radio or a serial line.
    """

    network: Network
    datagrams: bool
    _arrived: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)

    @property
    def frame_overhead(self) -> int:
        """Bytes beside each frame."""
        return IP_UDP_BYTES if self.datagrams else 0

    @property
    def bits_per_s(self) -> float | None:
        """What a line without headers carries, by which the sender paces itself."""
        rate = self.network.link.rate_bits_per_s
        return None if self.datagrams or math.isinf(rate) else rate

    async def open_writer(self) -> SimulatedLine:
        """The sender's end."""
        return self

    async def open_reader(self) -> SimulatedLine:
        """The listener's end; what came before nobody heard."""
        while not self._arrived.empty():
            self._arrived.get_nowait()
        return self

    async def write(self, frame: bytes) -> None:
        """Put a frame on the link."""
        kinds = {"data": len(frame)}
        if self.frame_overhead:
            kinds["headers"] = self.frame_overhead
        self.network.ways[DOWN].transmit(kinds, lambda: self._arrived.put_nowait(frame))

    async def read(self) -> bytes:
        """The next frame that comes through."""
        return await self._arrived.get()

    def close(self) -> None:
        """Nothing to release."""
