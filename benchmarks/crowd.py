"""Many connections in one process, as light as can be: sockets, epoll, and arithmetic.

They note when each packet arrives; nothing is decoded. Between two looks at its sockets the process
rests for some milliseconds, so that it looks at many at once: on a machine that the server shares,
waking it for every packet would be most of the work. The rest counts as delay.
"""

from __future__ import annotations

import resource
import select
import socket
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

__all__ = [
    "UNDER_WAY_S",
    "Arrivals",
    "Crowd",
    "Member",
    "lateness",
    "percentile_ms",
    "raise_file_limit",
]

UNDER_WAY_S: Final = 5.0
"""What has not arrived so long after the last packet counts as lost."""
_JOIN_PATIENCE_S: Final = 120.0
_REST_S: Final = 0.004


@dataclass
class Arrivals:
    """What the listeners of one process have got: three columns, a row a packet of one of them.

    Attributes:
        count: how many listeners there are.
        cpu_s: computing since all had joined.
        joined_s: time from the first call to the last welcome.
        welcomes_s: of each listener, from its call to its welcome.
    """

    count: int
    listeners: array[int]
    packets: array[int]
    times_s: array[float]
    cpu_s: float
    joined_s: float
    welcomes_s: array[float]


class Member:
    """One connection: what of it has been read and not understood yet, and how far it is."""

    __slots__ = ("called_s", "greeted", "held", "number", "open", "raw", "ready")

    def __init__(self, raw: socket.socket, number: int, called_s: float) -> None:
        self.raw = raw
        self.number = number
        self.called_s = called_s
        self.held = b""
        self.greeted = False
        self.open = False  # the handshake is over
        self.ready = False  # it has been welcomed


class Crowd:
    """``count`` listeners, and ``stuck`` more that join and then read nothing.

    Args:
        greeting: what each says first.
        joins_per_s: how fast they come.
        packet_tokens: tells packets apart by their first token.
    """

    def __init__(
        self,
        port: int,
        greeting: bytes,
        count: int,
        joins_per_s: float,
        stuck: int = 0,
        *,
        packet_tokens: int,
    ) -> None:
        self.count = count
        self.ready = 0
        self.lost = 0
        self._port = port
        self._greeting = greeting
        self._pause_s = 1 / joins_per_s
        self._stuck = stuck
        self._packet_tokens = packet_tokens
        self._epoll = select.epoll()
        self._by_file: dict[int, Member] = {}
        self._listeners = array("i")
        self._packets = array("i")
        self._times_s = array("d")
        self._welcomes_s = array("d")
        self._joined_s = 0.0
        self._cpu_from_s = _cpu_s()

    def join_all(self) -> None:
        """Connect one after the other, and wait until all have been welcomed."""
        began_s = due_s = time.monotonic()
        for number in range(self.count + self._stuck):
            while (left_s := due_s - time.monotonic()) > 0:
                time.sleep(min(left_s, _REST_S))
                self.turn(0.0)
            due_s += self._pause_s
            self._connect(number)
        deadline_s = time.monotonic() + _JOIN_PATIENCE_S
        while self.ready + self.lost < self.count + self._stuck:
            if time.monotonic() > deadline_s:
                break
            self.turn(0.1)
            time.sleep(_REST_S)
        self._joined_s = time.monotonic() - began_s
        self._cpu_from_s = _cpu_s()

    def turn(self, timeout_s: float) -> None:
        """Wait until something has come, for ``timeout_s`` at most, and read it."""
        for file, _ in self._epoll.poll(timeout_s):
            member = self._by_file[file]
            if member.greeted:
                self._read(member)
            else:
                self._greet(member)

    def run(self, stop: Callable[[], bool]) -> None:
        """Read what comes until ``stop``."""
        while not stop():
            self.turn(0.05)
            time.sleep(_REST_S)
        self.turn(0.0)

    def arrivals(self) -> Arrivals:
        """What has come so far."""
        cpu_s = _cpu_s() - self._cpu_from_s
        return Arrivals(
            self.count,
            self._listeners,
            self._packets,
            self._times_s,
            cpu_s,
            self._joined_s,
            self._welcomes_s,
        )

    def _connect(self, number: int) -> None:
        called_s = time.monotonic()
        raw = socket.socket()
        raw.setblocking(False)
        raw.connect_ex(("127.0.0.1", self._port))
        self._by_file[raw.fileno()] = Member(raw, number, called_s)
        self._epoll.register(raw.fileno(), select.EPOLLOUT)

    def _greet(self, listener: Member) -> None:
        """It has been connected, or refused."""
        try:
            listener.raw.send(self._greeting)
        except OSError:
            self.lose(listener)
            return
        listener.greeted = True
        self._epoll.modify(listener.raw.fileno(), select.EPOLLIN)

    def _read(self, listener: Member) -> None:
        try:
            data = listener.raw.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        now_s = time.monotonic()
        if not data:
            self.lose(listener)
            return
        try:
            self.take(listener, data, now_s)
        except OSError:  # it was hung up on, and had an answer to give
            self.lose(listener)

    def take(self, listener: Member, data: bytes, now_s: float) -> None:
        """Understand what ``listener`` has just read."""
        raise NotImplementedError

    def welcome(self, listener: Member, now_s: float) -> None:
        """``listener`` has been let in; one that is stuck reads nothing from now on."""
        listener.ready = True
        self.ready += 1
        self._welcomes_s.append(now_s - listener.called_s)
        if listener.number >= self.count:
            self._epoll.unregister(listener.raw.fileno())

    def note(self, listener: Member, first_token: int, now_s: float) -> None:
        """A packet of tokens has come."""
        self._listeners.append(listener.number)
        self._packets.append(first_token // self._packet_tokens)
        self._times_s.append(now_s)

    def lose(self, listener: Member) -> None:
        """It is gone."""
        self.lost += 1
        file = listener.raw.fileno()
        self._epoll.unregister(file)
        del self._by_file[file]
        listener.raw.close()


def raise_file_limit(wanted: int) -> None:
    """Let this process and its children open so many files, or exit if they may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted and hard != resource.RLIM_INFINITY and hard < wanted:
        sys.stderr.write(
            f"{wanted} open files are needed, and {hard} are allowed: raise the limit with "
            "`ulimit -n`, or measure fewer listeners.\n"
        )
        raise SystemExit(2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def lateness(
    arrivals: Sequence[Arrivals], published: dict[int, float], packets: range
) -> tuple[np.ndarray, int]:
    """Seconds of every delivery of ``packets``, and how many listeners got all of them."""
    late: list[np.ndarray] = []
    complete = 0
    for arrival in arrivals:
        listener, packet = np.array(arrival.listeners, int), np.array(arrival.packets, int)
        at_s = np.array(arrival.times_s)
        wanted = (packet >= packets.start) & (packet < packets.stop)
        listener, packet, at_s = listener[wanted], packet[wanted], at_s[wanted]
        sent_s = np.array([published.get(n, np.nan) for n in range(packets.stop)])
        late.append(at_s - sent_s[packet])
        came = np.zeros((arrival.count, len(packets)), bool)
        came[listener, packet - packets.start] = True
        complete += int(came.all(axis=1).sum())
    return np.concatenate(late) if late else np.zeros(0), complete


def percentile_ms(late_s: np.ndarray, share: float) -> float:
    """In milliseconds, what ``share`` percent of ``late_s`` do not exceed; NaN of nothing."""
    return float(1000 * np.percentile(late_s, share)) if len(late_s) else float("nan")


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
