"""Who may listen, and how much of the server anybody can take.

Plain objects: times and addresses are handed in.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from streaming.errors import SettingsError
from streaming.protocol import MAX_AUTH_TOKEN

__all__ = [
    "AUTH_TOKEN_VARIABLE",
    "PUBLISH_TOKEN_VARIABLE",
    "PUSH_TOKEN_VARIABLE",
    "UPSTREAM_TOKEN_VARIABLE",
    "AuthTokens",
    "ByteBudget",
    "Gate",
    "Limits",
    "is_loopback",
    "read_auth_tokens",
]

AUTH_TOKEN_VARIABLE: Final = "MUSIC350_AUTH_TOKEN"
UPSTREAM_TOKEN_VARIABLE: Final = "MUSIC350_UPSTREAM_TOKEN"
PUBLISH_TOKEN_VARIABLE: Final = "MUSIC350_PUBLISH_TOKEN"
PUSH_TOKEN_VARIABLE: Final = "MUSIC350_PUSH_TOKEN"
_SHORTEST: Final = 8
_MOST_FILE_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What one server and one connection may take.

    connections, per_address: open at once. handshake_s: for the WebSocket (and TLS) handshake,
    which a link with seconds of delay makes long.
    burst_bytes, bytes_per_s: what a listener may send; it has nothing to say but a handshake, one
    message and an answer to a ping once a minute.
    """

    connections: int = 256
    per_address: int = 32
    handshake_s: float = 15.0
    burst_bytes: int = 32_768
    bytes_per_s: float = 64.0


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
    """Counts open connections, in all and from each address."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open: Counter[str] = Counter()
        self.refused = 0

    @property
    def open(self) -> int:
        """How many there are."""
        return self._open.total()

    def enter(self, address: str) -> bool:
        """Whether one more from ``address`` may come in; if so it has, until :meth:`leave`."""
        limits = self._limits
        if self.open >= limits.connections or self._open[address] >= limits.per_address:
            self.refused += 1
            return False
        self._open[address] += 1
        return True

    def leave(self, address: str) -> None:
        """One that has entered has gone."""
        self._open[address] -= 1
        if self._open[address] <= 0:
            del self._open[address]


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
    """Secrets from the command line, from a file (one a line; # begins a remark) or, where neither
    is given, from the environment.

    Raises SettingsError where the file cannot be read or a secret is too short or too long.
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


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
