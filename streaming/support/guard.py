"""Who may listen, and how much of the server anybody can take.

Plain objects: times and addresses are handed in, except for :meth:`Guesses.turn`, which waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import Final

from streaming.errors import SettingsError
from streaming.wire.messages import MAX_AUTH_TOKEN

__all__ = [
    "AUTH_TOKEN_VARIABLE",
    "PUBLISH_TOKEN_VARIABLE",
    "PUSH_TOKEN_VARIABLE",
    "SERVE_TOKEN_VARIABLE",
    "UPSTREAM_TOKEN_VARIABLE",
    "AuthTokens",
    "ByteBudget",
    "Gate",
    "Guesses",
    "Limits",
    "Place",
    "address_group",
    "fit_to_files",
    "is_loopback",
    "parse_address",
    "read_auth_tokens",
]

AUTH_TOKEN_VARIABLE: Final = "MUSIC350_AUTH_TOKEN"
UPSTREAM_TOKEN_VARIABLE: Final = "MUSIC350_UPSTREAM_TOKEN"
PUBLISH_TOKEN_VARIABLE: Final = "MUSIC350_PUBLISH_TOKEN"
PUSH_TOKEN_VARIABLE: Final = "MUSIC350_PUSH_TOKEN"
SERVE_TOKEN_VARIABLE: Final = "MUSIC350_SERVE_TOKEN"
_SHORTEST: Final = 8
_MOST_FILE_BYTES: Final = 1 << 20
_RESERVED_EACH: Final = 2


_OWN_FILES: Final = 64
"""Open files that a server may need besides its connections."""


@dataclass(frozen=True)
class Limits:
    """What one server and one connection may take.

    Attributes:
        connections, per_address: open at once.
        reserve: further ones, at most two from an address, which may only ask for ``/healthz``.
        handshake_s: from the moment at which a connection is accepted, for the TLS and the
            WebSocket handshake together, which a link with seconds of delay makes long.
        reserve_s: the same of a reserved one.
        burst_bytes, bytes_per_s: what a listener may send; it has nothing to say but a handshake,
            one message and an answer to a ping once a minute.
    """

    connections: int = 256
    per_address: int = 32
    handshake_s: float = 15.0
    burst_bytes: int = 32_768
    bytes_per_s: float = 64.0
    reserve: int = 8
    reserve_s: float = 3.0


class AuthTokens:
    """The secrets with which one may listen, or publish; none of them lets everybody in."""

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        # Digests are all of one length, so that comparing takes the same time for any guess.
        self._digests = [_digest(token) for token in tokens]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def admit(self, token: str) -> bool:
        """Whether ``token`` is one of them, in a time that tells nothing about those."""
        given, found = _digest(token), not self._digests
        for digest in self._digests:
            found |= hmac.compare_digest(digest, given)
        return found


class Gate:
    """Counts open connections, in all and from each address group.

    Args:
        is_proxy: whether an address is that of a trusted proxy, whose connections count only in all
            until it has told for whom each of them is (:meth:`Place.move`).

    Attributes:
        open: how many there are, without reserved ones.
        refused: how many were.
    """

    def __init__(
        self, limits: Limits, is_proxy: Callable[[str], bool] = lambda address: False
    ) -> None:
        self._limits = limits
        self._is_proxy = is_proxy
        self._by_group: Counter[str] = Counter()
        self._reserved: Counter[str] = Counter()
        self.open = 0
        self.refused = 0

    def enter(self, address: str) -> Place | None:
        """A place for one more connection from ``address``; None if there is none for it."""
        group = "" if self._is_proxy(address) else address_group(address)
        limits = self._limits
        if self.open < limits.connections and self._fits(group):
            self.open += 1
            self._by_group[group] += 1
            return Place(self, group)
        self.refused += 1
        if self._reserved.total() >= limits.reserve:
            return None
        if group and self._reserved[group] >= _RESERVED_EACH:
            return None
        self._reserved[group] += 1
        return Place(self, group, reserved=True)

    def _fits(self, group: str) -> bool:
        return not group or self._by_group[group] < self._limits.per_address

    def _move(self, group: str, address: str) -> str | None:
        new = address_group(address)
        if new == group:
            return group
        if not self._fits(new):
            self.refused += 1
            return None
        _less(self._by_group, group)
        self._by_group[new] += 1
        return new

    def _leave(self, group: str, *, reserved: bool) -> None:
        if reserved:
            _less(self._reserved, group)
        else:
            self.open -= 1
            _less(self._by_group, group)


class Place:
    """What an open connection takes up at a :class:`Gate`, until :meth:`leave`.

    Attributes:
        reserved: whether it is beyond the limits and may only ask for health.
    """

    def __init__(self, gate: Gate, group: str, *, reserved: bool = False) -> None:
        self._gate = gate
        self._group = group
        self.reserved = reserved

    def move(self, address: str) -> bool:
        """From now on it counts for ``address``; False if that has no place left for it."""
        group = self._group if self.reserved else self._gate._move(self._group, address)
        self._group = self._group if group is None else group
        return group is not None

    def leave(self) -> None:
        """The connection has gone."""
        self._gate._leave(self._group, reserved=self.reserved)


class Guesses:
    """Slows down whoever guesses secrets, by address group.

    Each secret that is named takes one from a store, and one that is right puts it back. When the
    store is empty, secrets from there are looked at one after the other, one every ``pause_s``,
    right or wrong: so listeners who share an address with somebody who guesses are late, and not
    shut out. If it would have to wait longer than ``patience_s``, it is refused for now.

    Args:
        free: how many wrong ones the store holds; one comes back every ``pause_s``.
        most: how many address groups are remembered, those that were heard of last.
        clock, sleep: monotonic seconds; how to let some pass.
    """

    def __init__(
        self,
        free: int = 10,
        pause_s: float = 1.0,
        patience_s: float = 8.0,
        most: int = 4096,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._free_s = free * pause_s
        self._pause_s = pause_s
        self._patience_s = patience_s
        self._most = most
        self._clock = clock
        self._sleep = sleep
        self._full_s: dict[str, float] = {}  # when the store is full again

    async def turn(self, address: str) -> bool:
        """Wait until a secret from ``address`` may be looked at; False if that takes too long."""
        wait_s = self.take(address, self._clock())
        if wait_s:
            await self._sleep(wait_s)
        return wait_s is not None

    def take(self, address: str, now_s: float) -> float | None:
        """Seconds to wait before a secret from ``address`` is looked at; None: too many."""
        group = address_group(address)
        full_s = max(now_s, self._full_s.pop(group, now_s))
        wait_s = max(0.0, full_s + self._pause_s - self._free_s - now_s)
        if wait_s <= self._patience_s:
            full_s += self._pause_s
        self._full_s[group] = full_s  # the newest last
        if len(self._full_s) > self._most:
            del self._full_s[next(iter(self._full_s))]
        return wait_s if wait_s <= self._patience_s else None

    def right(self, address: str) -> None:
        """What was named last from ``address`` was right, or was no guess."""
        group = address_group(address)
        if group in self._full_s:
            self._full_s[group] -= self._pause_s


class ByteBudget:
    """How much a connection may still send: a burst, filled up again slowly."""

    def __init__(self, limits: Limits, now_s: float) -> None:
        self._limits = limits
        self._left = float(limits.burst_bytes)
        self._at_s = now_s

    def spend(self, count: int, now_s: float) -> bool:
        """Whether ``count`` more bytes are within it."""
        limits = self._limits
        filled = self._left + max(0.0, now_s - self._at_s) * limits.bytes_per_s
        self._left = min(float(limits.burst_bytes), filled) - count
        self._at_s = now_s
        return self._left >= 0


def read_auth_tokens(
    given: str | None, file: Path | None, variable: str = AUTH_TOKEN_VARIABLE
) -> list[str]:
    """Secrets from the command line, from a file, or if neither is given from the environment.

    A file has one secret a line; # begins a comment. Raises SettingsError if the file cannot be
    read or a secret is too short or too long.
    """
    tokens = [] if given is None else [given]
    if file is not None:
        try:
            with file.open(encoding="utf-8-sig") as lines:
                stripped = [line.strip() for line in lines.read(_MOST_FILE_BYTES).splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise SettingsError(f"Cannot read access tokens from {file} ({reason}).") from None
        found = [line for line in stripped if line and not line.startswith("#")]
        if not found:
            raise SettingsError(f"There is no access token in {file}; write one a line.")
        tokens += found
    if given is None and file is None and (from_environment := os.environ.get(variable)):
        tokens = [from_environment]
    if not all(_SHORTEST <= len(token) <= MAX_AUTH_TOKEN for token in tokens):
        raise SettingsError(
            f"An access token has {_SHORTEST} to {MAX_AUTH_TOKEN} characters; "
            "`openssl rand -hex 16` makes a good one."
        )
    return tokens


def fit_to_files(limits: Limits) -> tuple[Limits, str]:
    """Limits that this process has enough open files for, and a sentence if those are lower.

    Raises the soft limit of open files as far as needed and allowed.
    """
    try:
        import resource
    except ImportError:  # not on Windows, which has no such limit
        return limits, ""
    wanted = limits.connections + limits.reserve + _OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or soft >= wanted:
        return limits, ""
    allowed = wanted if hard == unlimited else min(wanted, hard)
    if allowed > soft:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            soft = allowed
    if soft >= wanted:
        return limits, ""
    room = max(1, soft - limits.reserve - min(_OWN_FILES, soft // 2))
    return replace(limits, connections=room), (
        f"the limit of {soft} open files leaves room for {room} connections instead of "
        f"{limits.connections}: raise it (ulimit -n {wanted}), or lower --max-listeners"
    )


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """An IP address, an IPv4 one also if it is written as IPv6; None if it is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def address_group(address: str) -> str:
    """Whose an address is: itself, or of an IPv6 address its /64, which one customer has whole."""
    parsed = parse_address(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((parsed, 64), strict=False))
    return address if parsed is None else str(parsed)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    address = parse_address(host)
    return host == "localhost" if address is None else address.is_loopback


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _less(counter: Counter[str], name: str) -> None:
    """One less of ``name``, which is forgotten with the last one."""
    counter[name] -= 1
    if counter[name] <= 0:
        del counter[name]
