"""One end of a simulated TCP connection, as an asyncio transport."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import Any, Final

from benchmarks.lab.network import DOWN, TCP_HEADER_BYTES, UP, FakeSocket, Network

__all__ = ["TcpTransport"]

_SEGMENT_BYTES: Final = 1448
_FIRST_WINDOW: Final = 10 * _SEGMENT_BYTES
_SEND_BUFFER_BYTES: Final = 87_040
_RECEIVE_BUFFER_BYTES: Final = 131_072
_FIRST_TIMEOUT_S: Final = 1.0
_CAREFUL_TIMEOUT_S: Final = 3.0
_LEAST_TIMEOUT_S: Final = 0.2
_MOST_TIMEOUT_S: Final = 120.0
_GIVE_UP_S: Final = 924.0
"""Linux gives up after fifteen repetitions, about this long."""
_DUPLICATES: Final = 3


class _Segment:
    """Bytes on their way; ``end`` of the stream where they are its last."""

    def __init__(self, start: int, data: bytes, sent_s: float, *, end: bool) -> None:
        self.start = start
        self.data = data
        self.first_sent_s = sent_s
        self.sent_s = sent_s
        self.again = False
        self.end = end

    @property
    def stop(self) -> int:
        """The number after its last; the end of the stream counts as one."""
        return self.start + len(self.data) + self.end


class TcpTransport(asyncio.Transport):
    """Writes into one way of the network; what arrives on the other goes to the protocol."""

    peer: TcpTransport

    def __init__(
        self, network: Network, way: str, name: tuple[str, int], peer_name: tuple[str, int]
    ) -> None:
        self._socket = FakeSocket(name)
        super().__init__({"sockname": name, "peername": peer_name, "socket": self._socket})
        self._socket.changed = self._send
        self._network = network
        self._loop = network.loop
        self._out = network.ways[way]
        self._back = network.ways[UP if way == DOWN else DOWN]
        self._protocol: asyncio.BaseProtocol | None = None
        self._dead = False
        self._lingers = False
        # Sending
        self._unsent = bytearray()
        self._ending = False
        self._end_sent = False
        self._next = 0
        self._flying: deque[_Segment] = deque()
        self._window = float(_FIRST_WINDOW)
        self._threshold = float("inf")
        self._smoothed_s: float | None = None
        self._variation_s = 0.0
        self._timeout_s = _FIRST_TIMEOUT_S
        self._timer: asyncio.TimerHandle | None = None
        self._same_answers = 0
        self._lost_to, self._lost_at_s = 0, 0.0
        self._high, self._low = 65_536, 16_384
        self._paused_writing = False
        # Receiving
        self._expected = 0
        self._early: dict[int, _Segment] = {}
        self._unread: deque[bytes] = deque()
        self._reading = True
        self._end_read = False
        self._closing = False

    def know_round_trip(self, round_trip_s: float | None) -> None:
        """What the handshake has measured; None: nothing."""
        if round_trip_s is None:
            self._timeout_s = _CAREFUL_TIMEOUT_S
        else:
            self._measure(round_trip_s)

    # What asyncio's protocols use

    def begin(self, protocol: asyncio.BaseProtocol) -> None:
        """The connection stands."""
        self._protocol = protocol
        protocol.connection_made(self)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._dead or self._ending:
            return
        self._unsent += data
        self._send()
        self._mind_writer()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._ending = True
        self._send()

    def close(self) -> None:
        if not self._closing and not self._dead:
            self._closing = True
            self.write_eof()
            self._maybe_over()

    def abort(self) -> None:
        if not self._dead:
            self._out.transmit({"control": TCP_HEADER_BYTES}, self.peer._reset)
            self._die(None)

    def is_closing(self) -> bool:
        return self._closing or self._dead

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._loop.call_soon(self._hand_over)

    def is_reading(self) -> bool:
        return self._reading

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = (65_536 if low is None else 4 * low) if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        """What the system's buffer has no room for."""
        flying = sum(len(segment.data) for segment in self._flying)
        size = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        return max(0, len(self._unsent) + flying - (size or _SEND_BUFFER_BYTES))

    # Sending

    @property
    def _corked(self) -> bool:
        """Whether the system is to wait for more before it sends (Linux)."""
        cork = getattr(socket, "TCP_CORK", None)
        return cork is not None and bool(self._socket.getsockopt(socket.IPPROTO_TCP, cork))

    def _send(self) -> None:
        """As many segments as the window has room for."""
        while not self._dead and (self._unsent or (self._ending and not self._end_sent)):
            flying = self._next - (self._flying[0].start if self._flying else self._next)
            wanted = min(len(self._unsent), _SEGMENT_BYTES)
            if _RECEIVE_BUFFER_BYTES - self.peer._unread_bytes - flying < wanted:
                break
            if self._flying and self._window - flying < wanted:
                break
            if self._corked and not self._ending and len(self._unsent) < _SEGMENT_BYTES:
                break
            data = bytes(self._unsent[:_SEGMENT_BYTES])
            del self._unsent[:_SEGMENT_BYTES]
            end = self._ending and not self._unsent
            segment = _Segment(self._next, data, self._network.now_s, end=end)
            self._end_sent = end
            self._next = segment.stop
            self._flying.append(segment)
            self._put(segment)
        self._set_timer()

    def _put(self, segment: _Segment) -> None:
        kinds = {"headers": TCP_HEADER_BYTES}
        if segment.again:
            kinds = {"repeated": TCP_HEADER_BYTES + len(segment.data)}
        elif segment.data:
            kinds["data"] = len(segment.data)
        sent_s = segment.sent_s
        self._out.transmit(kinds, lambda: self.peer._arrived(segment, sent_s))

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._flying and not self._dead:
            due_s = self._flying[0].sent_s + self._timeout_s
            self._timer = self._loop.call_at(max(due_s, self._network.now_s), self._late)

    def _late(self) -> None:
        """The oldest segment has not been acknowledged in time."""
        if self._dead or not self._flying:
            return
        oldest = self._flying[0]
        patience_s = _GIVE_UP_S
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            given_ms = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            patience_s = given_ms / 1000 or patience_s
        if self._network.now_s - oldest.first_sent_s > patience_s:
            self._die(TimeoutError(110, "Connection timed out"))
            return
        self._threshold = max(2 * _SEGMENT_BYTES, (self._next - oldest.start) / 2)
        self._window = float(_SEGMENT_BYTES)
        self._timeout_s = min(_MOST_TIMEOUT_S, 2 * self._timeout_s)
        self._lost_to, self._lost_at_s = self._next, self._network.now_s
        self._repeat(oldest)
        self._set_timer()

    def _repeat(self, segment: _Segment) -> None:
        segment.again = True
        segment.sent_s = self._network.now_s
        self._put(segment)

    def _acknowledged(self, up_to: int, sent_s: float) -> None:
        """All before ``up_to`` has arrived, lastly what was sent at ``sent_s`` (its timestamp)."""
        if self._dead:
            return
        if not self._flying or up_to <= self._flying[0].start:
            self._same_answers += bool(self._flying)
            if self._same_answers == _DUPLICATES:
                self._threshold = self._window = max(2 * _SEGMENT_BYTES, self._window / 2)
                self._repeat(self._flying[0])
                self._set_timer()
            return
        self._same_answers = 0
        self._measure(self._network.now_s - sent_s)
        while self._flying and self._flying[0].stop <= up_to:
            self._flying.popleft()
            slow_start = self._window < self._threshold
            step = _SEGMENT_BYTES if slow_start else _SEGMENT_BYTES**2 / self._window
            self._window = min(self._window + step, 1e6)
        self._repeat_the_rest()
        self._send()
        self._mind_writer()
        self._maybe_over()

    def _repeat_the_rest(self) -> None:
        """What was on its way when the timeout struck is taken for lost, and goes again in turn."""
        room = self._window
        for segment in self._flying:
            room -= len(segment.data)
            if segment.start >= self._lost_to or room < 0:
                break
            if segment.sent_s <= self._lost_at_s:
                self._repeat(segment)

    def _measure(self, round_trip_s: float) -> None:
        """RFC 6298, section 2."""
        if self._smoothed_s is None:
            self._smoothed_s, self._variation_s = round_trip_s, round_trip_s / 2
        else:
            off_s = abs(self._smoothed_s - round_trip_s)
            self._variation_s += (off_s - self._variation_s) / 4
            self._smoothed_s += (round_trip_s - self._smoothed_s) / 8
        wanted_s = self._smoothed_s + max(_LEAST_TIMEOUT_S, 4 * self._variation_s)
        self._timeout_s = min(_MOST_TIMEOUT_S, wanted_s)

    def _mind_writer(self) -> None:
        protocol = self._protocol
        if not isinstance(protocol, asyncio.Protocol) or self._dead:
            return
        waiting = self.get_write_buffer_size()
        if waiting > self._high and not self._paused_writing:
            self._paused_writing = True
            protocol.pause_writing()
        elif waiting <= self._low and self._paused_writing:
            self._paused_writing = False
            protocol.resume_writing()

    # Receiving

    @property
    def _unread_bytes(self) -> int:
        return sum(map(len, self._unread))

    def _arrived(self, segment: _Segment, sent_s: float) -> None:
        """A segment of the other end has come."""
        if self._dead and not self._lingers:
            self._out.transmit({"control": TCP_HEADER_BYTES}, self.peer._reset)
            return
        if segment.start >= self._expected:
            self._early[segment.start] = segment
        while (ready := self._early.pop(self._expected, None)) is not None:
            self._expected = ready.stop
            self._end_read |= ready.end
            if ready.data:
                self._unread.append(ready.data)
        expected = self._expected
        self._out.transmit(
            {"acknowledgements": TCP_HEADER_BYTES},
            lambda: self.peer._acknowledged(expected, sent_s),
        )
        self._hand_over()

    def _hand_over(self) -> None:
        protocol = self._protocol
        assert isinstance(protocol, asyncio.Protocol)
        was_full = self._unread_bytes > _RECEIVE_BUFFER_BYTES // 2
        while self._reading and self._unread and not self._dead:
            protocol.data_received(self._unread.popleft())
        if was_full and not self._unread and not self._dead:
            # The other end is told that there is room again; that this gets lost is not simulated.
            self._out.transmit({"acknowledgements": TCP_HEADER_BYTES}, lambda: None)
            self._loop.call_later(self._network.link.delay_s, self.peer._send)
        if self._end_read and not self._unread and not self._dead:
            self._end_read = False
            if not protocol.eof_received():
                self.close()
            self._maybe_over()

    # The end

    def _maybe_over(self) -> None:
        """Closed here, and all that was to be sent has arrived."""
        if self._closing and self._end_sent and not self._flying and not self._dead:
            self._lingers = True  # what comes again is acknowledged again (TIME-WAIT)
            self._die(None)

    def _reset(self) -> None:
        self._die(ConnectionResetError(104, "Connection reset by peer"))

    def _die(self, error: Exception | None) -> None:
        if self._dead:
            return
        self._dead = True
        self._unsent.clear()
        self._flying.clear()
        self._set_timer()
        if self._protocol is not None:
            self._loop.call_soon(self._protocol.connection_lost, error)
