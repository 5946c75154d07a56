"""The status line: what a terminal shows, what a log gets, and what never reaches either."""

from __future__ import annotations

import io
import logging

import pytest

from streaming.support.status_line import StatusLine, format_bit_rate, format_seconds, printable


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def last_line(terminal: Terminal) -> str:
    return terminal.getvalue().rsplit("\x1b[K", 1)[-1]


def test_terminal_line_is_redrawn_in_place_without_line_feeds() -> None:
    terminal, clock = Terminal(), Clock()
    status = StatusLine(terminal, clock=clock, columns=80)
    status.update("Song", ["buffer 1.0 s", "underruns 0"])
    clock.now += 1
    status.update("Song", ["buffer 2.0 s", "underruns 0"])
    assert "\n" not in terminal.getvalue()
    assert last_line(terminal) == "Song | buffer 2.0 s | underruns 0"


def test_updates_that_come_too_soon_are_not_shown_unless_forced() -> None:
    terminal, clock = Terminal(), Clock()
    status = StatusLine(terminal, clock=clock, columns=80)
    status.update("one", ["a"])
    assert not status.due()
    status.update("two", ["a"])
    assert last_line(terminal) == "one | a"
    status.update("three", ["a"], force=True)
    assert last_line(terminal) == "three | a"


def test_long_titles_are_cut_before_figures_are() -> None:
    terminal = Terminal()
    status = StatusLine(terminal, columns=40)
    status.update("a very long title that goes on and on", ["buffer 1.0 s"])
    line = last_line(terminal)
    assert len(line) <= 39
    assert line.endswith("… | buffer 1.0 s")


def test_narrow_terminal_drops_the_last_figures_first() -> None:
    terminal = Terminal()
    StatusLine(terminal, columns=30).update("title here", ["first", "second", "third"])
    line = last_line(terminal)
    assert "first" in line
    assert "third" not in line
    assert len(line) <= 29


def test_tiny_terminal_still_gets_one_short_line() -> None:
    terminal = Terminal()
    StatusLine(terminal, columns=5).update("title", ["figures"])
    assert len(last_line(terminal)) <= 4


def test_without_title_only_the_figures_are_shown() -> None:
    terminal = Terminal()
    status = StatusLine(terminal, columns=80)
    status.update("", ["a", "b"])
    assert last_line(terminal) == "a | b"
    status.update("only", [], force=True)
    assert last_line(terminal) == "only"


def test_wide_characters_count_twice_and_combining_ones_not_at_all() -> None:
    terminal = Terminal()
    StatusLine(terminal, columns=21).update("音楽音楽音楽音楽", ["e\u0301tat"])
    assert last_line(terminal) == "音楽音楽音楽… | e\u0301tat"


def test_clear_and_redraw_make_room_for_other_text() -> None:
    terminal = Terminal()
    status = StatusLine(terminal, columns=80)
    status.clear()
    status.redraw()
    assert terminal.getvalue() == ""
    status.update("a", ["b"])
    status.clear()
    assert last_line(terminal) == ""
    status.redraw()
    assert last_line(terminal) == "a | b"
    status.close()
    status.redraw()
    assert last_line(terminal) == ""


def test_log_records_are_written_above_the_live_line() -> None:
    terminal = Terminal()
    status = StatusLine(terminal, columns=80)
    status.update("a", ["b"])
    handler = status.log_handler()
    handler.emit(logging.LogRecord("x", logging.WARNING, "", 0, "careful", None, None))
    assert "careful\n" in terminal.getvalue()
    assert last_line(terminal) == "a | b"


def test_no_terminal_means_plain_log_lines_every_ten_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stream, clock = io.StringIO(), Clock()
    caplog.set_level(logging.INFO, "streaming.support.status_line")
    status = StatusLine(stream, clock=clock)
    for _ in range(30):
        clock.now += 1
        status.update("Song", ["buffer 1.0 s"])
    status.update("", ["buffer 1.0 s"], force=True)
    status.clear()
    status.redraw()
    status.close()
    assert caplog.messages == ["Song | buffer 1.0 s"] * 3 + ["buffer 1.0 s"]
    assert stream.getvalue() == ""


def test_a_terminal_that_has_gone_away_does_no_harm() -> None:
    terminal = Terminal()
    status = StatusLine(terminal, columns=80)
    terminal.close()
    status.update("a", ["b"])
    assert not status.live


def test_terminal_commands_in_titles_are_removed() -> None:
    assert printable("a\x1b[2Jb\r\nc\x07\u202e\ud800\t d") == "a[2Jb c d"
    terminal = Terminal()
    StatusLine(terminal, columns=80).update("\x1b]0;evil\x07", ["b"])
    assert last_line(terminal) == "]0;evil | b"


def test_printable_text_is_bounded() -> None:
    assert printable("x" * 10_000, 20) == "x" * 19 + "…"


def test_figures_are_written_for_people() -> None:
    assert format_bit_rate(349.6) == "350 bit/s"
    assert format_bit_rate(None) == "- bit/s"
    assert format_seconds(4.14) == "4.1 s"
    assert format_seconds(None) == "- s"


def test_default_stream_is_stderr_and_width_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "12")
    StatusLine().update("long long title", ["part"])
    assert len(last_line(terminal)) <= 11
