"""When each token was played at the source: arithmetic, since 25 tokens are a second.

A stream that runs on in real time needs one pair of index and wall-clock time. Another pair is
kept only where the source has slipped, or the sender was down for a while and has gone on counting
where it had stopped. Wall-clock time is for people who name an hour; nothing else here uses it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from codec.constants import TOKEN_RATE
from streaming.errors import SettingsError
from streaming.wire.messages import MAX_INDEX, MAX_UNIX_S, Join

__all__ = ["StartAt", "Timeline", "parse_duration_s"]

_TOLERANCE_S: Final = 1.0
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+|\d+(?:\.\d+)?", re.ASCII)
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)", re.ASCII)
CONTEXT_TOKENS: Final = 256
"""Heard by the decoder before the place where a rewound listener starts."""


class Timeline:
    """Token indices to Unix times and back; times in seconds."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._times_s: list[float] = []

    def note(self, token: int, unix_s: float) -> bool:
        """The source was at ``token`` at ``unix_s``; tokens come in order.

        Returns whether that was news. A time that no calendar has is none.
        """
        if not 0 <= unix_s <= MAX_UNIX_S:
            return False
        expected_s = self._reckon(token)
        news = expected_s is None or abs(unix_s - expected_s) > _TOLERANCE_S
        if news:
            self._tokens.append(token)
            self._times_s.append(unix_s)
        return news

    def time_of(self, token: int) -> float | None:
        """When ``token`` began at the source; None while nothing is known."""
        unix_s = self._reckon(token)
        return unix_s if unix_s is not None and 0 <= unix_s <= MAX_UNIX_S else None

    def _reckon(self, token: int) -> float | None:
        if not self._tokens:
            return None
        index = max(0, bisect_right(self._tokens, token) - 1)
        return self._times_s[index] + (token - self._tokens[index]) / TOKEN_RATE

    def token_at(self, unix_s: float) -> int | None:
        """The token that played at ``unix_s``, 0 or above; between two runs, the later's first."""
        if not self._tokens:
            return None
        index = len(self._tokens) - 1
        while index and self._times_s[index] > unix_s:
            index -= 1
        token = self._tokens[index] + round((unix_s - self._times_s[index]) * TOKEN_RATE)
        if index + 1 < len(self._tokens):
            token = min(token, self._tokens[index + 1])
        return max(0, token)

    def forget_before(self, token: int) -> None:
        """Drop what only tells of tokens before ``token``."""
        keep = max(0, bisect_right(self._tokens, token) - 1)
        del self._tokens[:keep], self._times_s[:keep]


@dataclass(frozen=True)
class StartAt:
    """Where a listener wants to begin; one of the three, or none of them for live.

    Attributes:
        behind_s: seconds before the live edge.
        unix_s: a moment.
        token: an index.
    """

    behind_s: float | None = None
    unix_s: float | None = None
    token: int | None = None

    @property
    def live(self) -> bool:
        """Whether this is the live edge."""
        return self.behind_s is None and self.unix_s is None and self.token is None

    @classmethod
    def parse(cls, text: str) -> StartAt:
        """Read ``live``, ``-10m``, ``2026-11-22T20:00`` or ``token:12345``. Raises SettingsError.

        A date without a zone is one of this machine.
        """
        if text == "live":
            return cls()
        if text.startswith("token:") and text[6:].isascii() and text[6:].isdecimal():
            if (token := int(text[6:])) <= MAX_INDEX:
                return cls(token=token)
        elif text.startswith("-"):
            return cls(behind_s=parse_duration_s(text[1:]))
        else:
            try:
                return cls(unix_s=datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp())
            except (ValueError, OverflowError, OSError):
                pass
        raise SettingsError(
            f"{text!r} is no place in a stream; write live, -10m, 2026-11-22T20:00 or token:12345."
        )

    def join(self, history: int, client: str) -> Join:
        """The first message of a listener that begins here, with context for its decoder."""
        if self.behind_s is not None:
            tokens = round(self.behind_s * TOKEN_RATE) + CONTEXT_TOKENS
            return Join(min(MAX_INDEX, tokens), client)
        if self.unix_s is not None:
            at_s = max(0.0, self.unix_s - CONTEXT_TOKENS / TOKEN_RATE)
            return Join(history, client, at_s=at_s)
        if self.token is not None:
            return Join(history, client, next_token=max(0, self.token - CONTEXT_TOKENS))
        return Join(history, client)

    def first_heard(self, first_token: int) -> int:
        """The token at which the sound begins, where the tokens sent begin at ``first_token``."""
        if self.token is not None:
            return max(first_token, self.token)
        return first_token + CONTEXT_TOKENS if first_token else 0

    def in_the_past(self, first_token: int, next_token: int) -> bool:
        """Whether the sound begins before the live edge ``next_token``."""
        return not self.live and self.first_heard(first_token) < next_token


def parse_duration_s(text: str) -> float:
    """Seconds of ``90``, ``90s``, ``10m``, ``24h``, ``1h30m`` or ``7d``. Raises SettingsError."""
    if len(text) <= 32 and _DURATION.fullmatch(text):
        seconds = sum(float(n) * _UNITS_S[unit or "s"] for n, unit in _PART.findall(text))
        if seconds <= MAX_INDEX / TOKEN_RATE:
            return seconds
    raise SettingsError(f"{text!r} is no duration; write 90s, 10m, 24h or 1h30m.")
