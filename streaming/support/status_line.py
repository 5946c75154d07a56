"""The status display of both programs: one live line on a terminal, log lines elsewhere.

`StatusLine` is told the present state as often as the caller likes (see `due`) and
redraws one line in place when its stream is a terminal. Where it is none (a file, a
pipe, a service manager), the same text goes to the log every ten seconds.

Titles come from the far end of a connection, so whatever a terminal could take as a
command is removed before it is shown.
"""

from __future__ import annotations

import logging
import shutil
import sys
import time
import unicodedata
from collections.abc import Callable, Sequence
from typing import TextIO

from streaming.wire.messages import clean_text

__all__ = ["StatusLine", "format_bit_rate", "format_seconds", "printable"]

logger = logging.getLogger(__name__)

_CLEAR_LINE = "\r\x1b[K"
_SEPARATOR = " | "
_ELLIPSIS = "…"
_MIN_TITLE_COLUMNS = 8


def printable(text: str, limit: int = 200) -> str:
    """`text` on one line without control and other invisible characters, cut to `limit`.

    Use it on every string from outside that reaches a terminal or a log. Unlike in a message on
    the wire, an ellipsis shows where it was cut.
    """
    kept = clean_text(text, limit + 1)
    return kept if len(kept) <= limit else kept[: limit - 1] + _ELLIPSIS


def format_bit_rate(bits_per_s: float | None) -> str:
    """A bit rate for people: `350 bit/s`, or `- bit/s` while it is unknown."""
    return "- bit/s" if bits_per_s is None else f"{bits_per_s:.0f} bit/s"


def format_seconds(seconds: float | None) -> str:
    """Seconds for people: `4.1 s`, or `- s` while they are unknown."""
    return "- s" if seconds is None else f"{seconds:.1f} s"


class StatusLine:
    """Shows the state of a stream: redrawn in place on a terminal, logged elsewhere.

    Args:
        stream: where to show it; default is stderr, so that stdout can carry audio.
        interval_s: least time between two redraws on a terminal.
        plain_interval_s: least time between two log lines if there is no terminal.
        clock: monotonic seconds.
        columns: width of the terminal; asked for at each redraw when not given.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        interval_s: float = 0.25,
        plain_interval_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        columns: int | None = None,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._columns = columns
        self.live = self._stream.isatty()
        self._plain_interval_s = plain_interval_s
        self._interval_s = interval_s if self.live else plain_interval_s
        self._shown_at: float | None = None if self.live else clock()
        self._line = ""

    def go_plain(self) -> None:
        """Log the state even on a terminal."""
        if self.live:
            self.live = False
            self._interval_s = self._plain_interval_s
            self._shown_at = self._clock()

    def due(self) -> bool:
        """Whether enough time has passed for another `update` to be shown."""
        return self._shown_at is None or self._clock() - self._shown_at >= self._interval_s

    def update(self, title: str, parts: Sequence[str], *, force: bool = False) -> None:
        """Show `title` and the further `parts`, unless the last time was just now.

        Args:
            title: what plays; may come from outside, is cut first when space is short.
            parts: short texts such as `buffer 2.1 s`, most important first.
            force: show it even when it is not yet due.
        """
        if not (force or self.due()):
            return
        self._shown_at = self._clock()
        title = printable(title)
        if self.live:
            self._line = self._fit(title, parts)
            self._write(_CLEAR_LINE + self._line)
        else:
            logger.info("%s", _SEPARATOR.join([title, *parts] if title else parts))

    def clear(self) -> None:
        """Take the line off the terminal, so that something else can be printed there."""
        if self.live and self._line:
            self._write(_CLEAR_LINE)

    def redraw(self) -> None:
        """Put the line back after `clear`."""
        if self.live and self._line:
            self._write(_CLEAR_LINE + self._line)

    def close(self) -> None:
        """Remove the line for good; what follows starts on a clean line."""
        self.clear()
        self._line = ""

    def log_handler(self) -> logging.Handler:
        """A handler for log records that keeps them and the live line apart."""
        return _StatusHandler(self, self._stream)

    def _fit(self, title: str, parts: Sequence[str]) -> str:
        """Title and parts in the width of the terminal: the title shrinks, then parts go."""
        columns = self._columns or shutil.get_terminal_size().columns
        room = max(1, columns - 1)  # the last column would make some terminals wrap
        shown = list(parts)
        while len(shown) > 1 and _width(_SEPARATOR.join(["x" * _MIN_TITLE_COLUMNS, *shown])) > room:
            shown.pop()
        tail = _SEPARATOR.join(shown)
        if not title:
            return _cut(tail, room)
        title = _cut(title, max(_MIN_TITLE_COLUMNS, room - _width(tail) - len(_SEPARATOR)))
        return _cut(_SEPARATOR.join([title, tail]) if tail else title, room)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # the terminal has gone away: nothing left to show on
            self.live = False


class _StatusHandler(logging.StreamHandler[TextIO]):
    """Writes log records above the live line."""

    def __init__(self, status: StatusLine, stream: TextIO) -> None:
        super().__init__(stream)
        self._status = status

    def emit(self, record: logging.LogRecord) -> None:
        self._status.clear()
        super().emit(record)
        self._status.redraw()


def _width(text: str) -> int:
    """Columns that `text` takes on a terminal: East Asian wide characters take two."""
    return sum(
        0
        if unicodedata.category(character) in ("Mn", "Me", "Cf")
        else 2
        if unicodedata.east_asian_width(character) in "WF"
        else 1
        for character in text
    )


def _cut(text: str, columns: int) -> str:
    """`text` shortened to at most `columns` columns, with an ellipsis where cut."""
    if _width(text) <= columns:
        return text
    while text and _width(text) > columns - 1:
        text = text[:-1]
    return text + _ELLIPSIS
