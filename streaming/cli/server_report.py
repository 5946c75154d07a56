"""What the sender's program says of a broadcast: status line and summary."""

from __future__ import annotations

from codec.constants import SAMPLE_RATE
from streaming.cli.watching import Figures
from streaming.support.status_line import format_bit_rate

__all__ = ["parts", "summary"]


def summary(figures: Figures) -> str:
    """One line about the whole broadcast."""
    seconds = figures["source_samples"] / SAMPLE_RATE
    most = f"listeners at once: at most {figures['most_listeners']}"
    told = ", ".join([*parts(figures)[1:], most])
    return f"sent {seconds:.1f} s of sound in {figures['tokens']} tokens; {told}"


def parts(figures: Figures) -> list[str]:
    """For a status line, the most important first."""
    listeners = figures["listeners"]
    told = [
        "1 listener" if listeners == 1 else f"{listeners} listeners",
        f"payload {format_bit_rate(figures['payload_bits_per_s'])}",
        f"wire {format_bit_rate(figures['wire_bits_per_s'])}",
    ]
    if figures["encode_rtf"] is not None:
        told.append(f"encode RTF {figures['encode_rtf']:.3f}")
    if figures["reconnects"]:
        told.append(f"reconnects {figures['reconnects']}")
    for outlet in figures["outlets"]:
        away = " (away)" if outlet.get("away") else ""
        if outlet["kind"] == "mqtt":
            told.append(f"to the broker {format_bit_rate(outlet['bits_per_s'])}{away}")
        elif outlet["kind"] == "push":
            back = f", reconnects {outlet['reconnects']}" if outlet["reconnects"] else ""
            told.append(f"pushed{away}{back}")
    return told
