"""What a listener tells about itself, and how a program shows it."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest

from streaming.cli import client, watching
from streaming.cli.watching import process_age_s
from streaming.receive.listener import Listener
from streaming.receive.output import Output
from streaming.support.stats import StatsWriter
from streaming.support.status_line import StatusLine
from streaming.wire.messages import End
from tests.support.listening import (
    MemorySink,
    Script,
    hello,
    play,
    scripted,
    token_messages,
    tokens,
)

KEYS = {
    "tokens",
    "lost_tokens",
    "payload_bits_per_s",
    "wire_bits_per_s",
    "first_audio_s",
    "latency_s",
    "underruns",
    "gaps",
    "reconnects",
    "speed",
    "reserve_s",
    "target_s",
    "drift_ppm",
    "clock_s",
    "decode_rtf",
    "samples",
    "buffer_s",
    "position_s",
    "title",
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def finished_listener(*messages: str | bytes) -> Listener:
    listener = scripted(Output([MemorySink()]), Script(*messages))
    await play(listener)
    return listener


async def test_before_anything_came_what_is_unknown_is_none() -> None:
    output = Output([])
    figures = scripted(output).figures()
    assert set(figures) == KEYS
    for key in ("payload_bits_per_s", "wire_bits_per_s", "first_audio_s", "latency_s"):
        assert figures[key] is None
    assert figures["decode_rtf"] is None
    assert (figures["tokens"], figures["samples"], figures["underruns"]) == (0, 0, 0)
    await output.close()


async def test_afterwards_everything_is_known_and_summed_up_in_one_line() -> None:
    messages = token_messages(tokens(96))
    listener = await finished_listener(hello(), *messages, End(96, "the album is over").encode())
    figures = listener.figures()
    assert figures["tokens"] == 96
    assert figures["samples"] == 96 * 1920
    assert figures["position_s"] == 96 / 25
    assert figures["first_audio_s"] > 0
    assert figures["decode_rtf"] > 0
    assert figures["title"] == "Song"
    assert figures["payload_bits_per_s"] == pytest.approx(350, abs=1)
    summary = client.summary(listener, figures)
    assert "\n" not in summary
    assert summary.startswith("3.8 s of sound, 96 tokens received, 350 bit/s, ")
    assert summary.endswith("ended: the album is over")
    assert "lost" not in summary


async def test_lost_tokens_are_not_kept_quiet() -> None:
    all_tokens = tokens(144)
    listener = await finished_listener(
        hello(), token_messages(all_tokens)[0], token_messages(all_tokens)[2], End(144).encode()
    )
    figures = listener.figures()
    assert "lost tokens 48" in client.parts(listener, figures)
    assert "96 tokens received, 48 lost" in client.summary(listener, figures)


async def test_status_and_statistics_are_written_while_it_runs_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(watching, "_TICK_S", 0.01)
    monkeypatch.setattr(watching, "_STATS_INTERVAL_S", 0.05)
    terminal, path = Terminal(), tmp_path / "stats.jsonl"
    with StatsWriter(path) as stats:
        async with watching.watched(
            lambda: {"title": "Song", "tokens": 7},
            lambda figures: [f"{figures['tokens']} tokens"],
            lambda figures: f"{figures['tokens']} tokens in all",
            StatusLine(terminal, columns=200),
            stats,
        ):
            while path.read_text().count("\n") < 3 or "Song" not in terminal.getvalue():
                await asyncio.sleep(0.01)
    assert "Song | 7 tokens" in terminal.getvalue()
    *lines, last = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        assert set(line) == {"time_s", "title", "tokens"}
    assert last["final"] is True
    assert "7 tokens in all" in caplog.text


def test_the_age_of_the_process_counts_from_before_its_imports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    age_s = process_age_s()
    assert age_s is not None
    assert 0 < age_s < 86_400
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "nonsense")
    assert process_age_s() is None
