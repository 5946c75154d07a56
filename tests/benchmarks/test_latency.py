"""What the benchmark of the way from source to ear makes of statistics."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.latency import LABELS, REACH, Figures, analyse, median, memory_mb, table
from codec.constants import SAMPLE_RATE
from scripts.processes import ProgramError

ZERO_S = 1000.0  # when the source's first sample was due
STARTED_S = 1020.0
FIRST_S = 1022.1  # connected after 2 s, first sample 0.1 s later
BEGIN_S = 19.1  # position of the first sample heard


def server_lines() -> list[dict[str, Any]]:
    return [
        {
            "time_s": ZERO_S + second + 0.03,
            "source_samples": second * SAMPLE_RATE,
            "max_loop_stall_ms": 12.0,
            "encode_rtf": 0.04,
        }
        for second in range(10, 40)
    ]


def client_lines(late_s: float = 0.0) -> list[dict[str, Any]]:
    """Sound comes as it is due, `late_s` too late from the third second on."""
    lines = []
    for second in range(10):
        heard_s = second - (late_s if second >= 3 else 0.0)
        lines.append(
            {
                "time_s": FIRST_S + second,
                "samples": round((heard_s + 0.5) * SAMPLE_RATE),
                "position_s": BEGIN_S + heard_s + 0.5,
                "first_audio_s": 0.1,
                "connected_s": 2.0,
                "latency_s": 3.2,
                "payload_bits_per_s": 350.0,
                "wire_bits_per_s": 604.0,
                "max_loop_stall_ms": 20.0,
                "decode_rtf": 0.2,
                "lost_tokens": 0,
                "underruns": 0,
            }
        )
    return [*lines, {**lines[-1], "final": True}]


def analysed(client, played=False) -> Figures:
    memory = [(400.0, 300.0 + second) for second in range(8)]
    server = server_lines()
    return analyse(client, server, started_s=STARTED_S, memory=memory, played=played)


def test_latency_is_from_the_source_sample_to_a_player_that_never_pauses():
    figures = analysed(client_lines())
    assert figures.latency_s == pytest.approx(FIRST_S - (ZERO_S + BEGIN_S) - 0.03, abs=0.001)


def test_sound_that_comes_late_counts_as_latency():
    on_time, late = analysed(client_lines()), analysed(client_lines(late_s=2.0))
    assert late.latency_s == pytest.approx(on_time.latency_s + 1.5, abs=0.001)


def test_on_a_sound_card_the_listener_s_own_figure_counts():
    assert analysed(client_lines(), played=True).latency_s == 3.2


def test_memory_and_stall_are_the_worst_seen():
    figures = analysed(client_lines())
    assert figures.listener_peak_mb == 400.0
    assert figures.listener_growth_mb == 5.0
    assert figures.loop_stall_ms == 20.0


@pytest.mark.parametrize(
    ("field", "value"),
    [("first_audio_s", None), ("connected_s", None), ("payload_bits_per_s", None)],
)
def test_a_run_without_sound_or_rates_is_refused(field, value):
    lines = [{**line, field: value} for line in client_lines()]
    with pytest.raises(ProgramError):
        analysed(lines)


def test_median_goes_figure_by_figure():
    one = analysed(client_lines())
    other = dataclasses.replace(one, decode_rtf=one.decode_rtf + 1.0)
    assert median([one, other]).decode_rtf == pytest.approx(one.decode_rtf + 0.5)


def test_table_has_a_row_for_every_figure_and_marks_what_is_missed():
    figures = dataclasses.replace(analysed(client_lines()), listener_peak_mb=901.0)
    text = table({"default": figures})
    assert len(text.splitlines()) == 2 + len(LABELS)
    missed = [line for line in text.splitlines() if "missed" in line]
    assert len(missed) == 1
    assert "901 MB | ≤ 900 (missed)" in missed[0]
    assert set(REACH["default"]) <= set(LABELS)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells it in /proc")
def test_memory_of_a_process_is_read():
    sizes = memory_mb(os.getpid())
    assert sizes is not None
    peak, now = sizes
    assert peak >= now > 1.0
    assert memory_mb(2**30) is None
