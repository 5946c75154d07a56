"""The lab's pictures, as SVG that takes its ink from the page around it."""

from __future__ import annotations

import io
import itertools
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final, cast

from benchmarks.lab.settings import Setting
from benchmarks.lab.trial import Result
from benchmarks.measures import MEASURES

__all__ = ["QUALITY", "TERM_COLOURS", "WIRE_COLOURS", "Group", "charts", "grouped"]

_INK: Final = "#010203"  # stands for the page's own, see _svg()
TERM_COLOURS: Final = {
    "packet": "#4477aa",
    "encoder lookahead": "#66ccee",
    "encoding": "#228833",
    "link": "#ee6677",
    "decoder lookahead": "#ccbb44",
    "decoding": "#aa3377",
    "reserve": "#9aa3ad",
}
"""Terms of the latency, from the source to the ear."""
WIRE_COLOURS: Final = {
    "tokens": "#228833",
    "index": "#ccbb44",
    "framing": "#66ccee",
    "headers": "#4477aa",
    "repeated": "#ee6677",
    "connecting": "#aa3377",
}
"""Kinds of bits on the wire."""
QUALITY: Final = ("log_mel", "chroma", "envelope", "onset_f")
_LINES: Final = ("#4477aa", "#ee6677", "#228833", "#aa3377", "#ccbb44", "#66ccee")
_NUMERIC: Final = (
    "steps",
    "guidance",
    "temperature",
    "hop",
    "lookahead",
    "context",
    "encoder_hop",
    "encoder_lookahead",
    "decoder_hop",
    "decoder_lookahead",
    "packet",
    "margin",
    "most_margin",
)
_MOST_COURSES: Final = 24
_MOST_BARS: Final = 40


@dataclass(frozen=True)
class Group:
    """All songs with one setting on one link."""

    label: str
    link: str
    results: Sequence[Result]

    @property
    def name(self) -> str:
        """Setting and link."""
        return f"{self.label} · {self.link}" if self.link else self.label

    @property
    def short(self) -> str:
        """The same on lines that fit beside a picture."""
        return "\n".join(textwrap.wrap(self.name.replace(",", ", "), 42))

    def mean(self, figure: str) -> float | None:
        """Mean of a figure over the songs; None where none has it."""
        values = [r.figures.get(figure) for r in self.results]
        known = [value for value in values if value is not None]
        return fmean(known) if known else None

    def means(self, what: str) -> dict[str, float]:
        """Means of ``terms_s`` or ``wire``, over the songs that have them."""
        tables = [table for r in self.results if (table := getattr(r, what))]
        names = dict.fromkeys(itertools.chain.from_iterable(tables))
        return {name: fmean(t.get(name, 0.0) for t in tables) for name in names}

    def value(self, setting: str) -> float | None:
        """What a setting was set to."""
        given = self.results[0].trial["setting"].get(setting)
        return None if given is None else float(given)


def grouped(results: Sequence[Result]) -> list[Group]:
    """Groups in the order in which their first results come."""
    found: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        found.setdefault((result.label, result.trial["link_name"]), []).append(result)
    return [Group(label, link, members) for (label, link), members in found.items()]


@contextmanager
def _pyplot() -> Iterator[Any]:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    settings: dict[str, Any] = {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "legend.frameon": False,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color"), _INK),
        "ytick.color": _INK,
    }
    with plt.rc_context(cast("Any", settings)):
        yield plt


def _svg(plt: Any, figure: Any) -> str:
    """The figure as an element for a page; ink becomes the page's."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Names within a picture would meet those of the next one on the same page.
    mark = f"p{abs(hash(svg)) % 10**8}-"
    svg = re.sub(r'(id="|url\(#|href="#)', lambda match: match[1] + mark, svg)
    # No wider than it was drawn: text is then as large in one picture as in the next.
    return re.sub(
        r'(<svg[^>]*?) width="([^"]*)"',
        r'\1 style="max-width: \2"',
        re.sub(r' height="[^"]*pt"', "", svg, count=1),
        count=1,
    )


def charts(results: Sequence[Result]) -> dict[str, str]:
    """Title and SVG of every picture that these results make; raises ImportError."""
    groups = grouped(results)
    heard = [group for group in groups if group.mean("latency_s") is not None]
    made: dict[str, str] = {}
    with _pyplot() as plt:
        if heard:
            made["Latency, from the source to the ear"] = _latency(plt, heard)
        if any(group.means("wire") for group in groups):
            made["Rate on the wire against the packet's length"] = _wire(plt, groups)
        for name in _swept(groups):
            made[f"Quality against {name.replace('_', ' ')}"] = _quality(plt, groups, name)
        if any(group.mean("decode_rtf") is not None for group in groups):
            made["Computing against the window's length"] = _computing(plt, groups)
        if any(group.mean("seam") is not None for group in groups):
            made["Seams against the decoder's hop"] = _seams(plt, groups)
        if heard:
            made["Sound in reserve over time"] = _courses(plt, heard)
    return made


def _swept(groups: Sequence[Group]) -> list[str]:
    usual = Setting()
    found = []
    for name in _NUMERIC:
        values = {group.value(name) for group in groups} - {None, getattr(usual, name)}
        if len(values) > 1:
            found.append(name)
    return found


def _latency(plt: Any, groups: Sequence[Group]) -> str:
    groups = groups[:_MOST_BARS]
    figure, axis = plt.subplots(figsize=(9, 1.1 + 0.34 * len(groups)), layout="constrained")
    left = [0.0] * len(groups)
    for term, colour in TERM_COLOURS.items():
        widths = [group.means("terms_s").get(term, 0.0) for group in groups]
        axis.barh(range(len(groups)), widths, left=left, color=colour, label=term, height=0.7)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    measured = [group.mean("latency_s") for group in groups]
    axis.plot(measured, range(len(groups)), "|", color=_INK, markersize=11, label="measured")
    axis.set_yticks(range(len(groups)), [group.short for group in groups], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("seconds")
    figure.legend(loc="outside upper center", ncols=4, fontsize=8)
    return _svg(plt, figure)


def _wire(plt: Any, groups: Sequence[Group]) -> str:
    links = list(dict.fromkeys(group.link for group in groups))
    figure, axes = plt.subplots(
        1, len(links), figsize=(max(5.0, 3.4 * len(links)), 3.4), layout="constrained",
        sharey=True, squeeze=False,
    )  # fmt: skip
    for axis, link in zip(axes[0], links, strict=True):
        by_packet: dict[float, list[dict[str, float]]] = {}
        for group in groups:
            packet_s, wire = group.mean("packet_s"), group.means("wire")
            if group.link == link and packet_s is not None and wire:
                by_packet.setdefault(packet_s, []).append(wire)
        packets = sorted(by_packet)
        bottom = [0.0] * len(packets)
        for kind, colour in WIRE_COLOURS.items():
            heights = [fmean(wire.get(kind, 0.0) for wire in by_packet[p]) for p in packets]
            axis.bar(range(len(packets)), heights, bottom=bottom, color=colour, label=kind)
            bottom = [a + b for a, b in zip(bottom, heights, strict=True)]
        axis.set_xticks(range(len(packets)), [f"{packet:g}" for packet in packets])
        axis.set_xlabel("seconds of sound in a packet")
        axis.set_title("\n".join(textwrap.wrap(link.replace(",", ", ") or "link", 38)), fontsize=8)
    axes[0][0].set_ylabel("bit/s to the listener")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=6, fontsize=8)
    return _svg(plt, figure)


def _curves(groups: Sequence[Group], x: str, y: str) -> list[tuple[float, float]]:
    """Points of figure ``y`` against the setting or figure ``x``, one for each value of ``x``."""
    points: dict[float, list[float]] = {}
    for group in groups:
        at = group.value(x) if x in _NUMERIC else group.mean(x)
        value = group.mean(y)
        if at is not None and value is not None:
            points.setdefault(at, []).append(value)
    return [(at, fmean(values)) for at, values in sorted(points.items())]


def _quality(plt: Any, groups: Sequence[Group], name: str) -> str:
    figure, axes = plt.subplots(1, len(QUALITY), figsize=(11, 2.6), layout="constrained")
    for axis, measure, colour in zip(axes, QUALITY, _LINES, strict=False):
        points = _curves(groups, name, measure)
        axis.plot(*zip(*points, strict=True) if points else ((), ()), "o-", color=colour)
        better = "lower" if MEASURES[measure].good == 0 else "higher"
        axis.set_title(f"{MEASURES[measure].label} ({better} is better)", fontsize=8.5)
        axis.set_xlabel(name.replace("_", " "))
        if name == "steps" or (any(at > 0 for at, _ in points) and len(points) > 3):
            axis.set_xscale("symlog" if any(at == 0 for at, _ in points) else "log", base=2)
            axis.set_xticks([at for at, _ in points], [f"{at:g}" for at, _ in points])
            axis.minorticks_off()
    return _svg(plt, figure)


def _computing(plt: Any, groups: Sequence[Group]) -> str:
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for axis, side, colour in zip(axes, ("encode", "decode"), _LINES, strict=False):
        for what, style in (("window", "o-"), ("hop", "s--")):
            points = _curves(groups, f"{side}r_{what}_s", f"{side}_rtf")
            if points:
                axis.plot(*zip(*points, strict=True), style, color=colour, label=what)
                colour = _LINES[_LINES.index(colour) + 2]
        axis.axhline(1.0, color=_INK, linewidth=0.8)
        axis.set_yscale("log")
        axis.set_title(f"{side[:-1]}ing", fontsize=9)
        axis.set_xlabel("length in seconds")
        axis.legend(fontsize=8)
    axes[0].set_ylabel("work per second of sound, in seconds")
    return _svg(plt, figure)


def _seams(plt: Any, groups: Sequence[Group]) -> str:
    figure, axis = plt.subplots(figsize=(5.5, 2.8), layout="constrained")
    points = _curves(groups, "decoder_hop_s", "seam")
    axis.plot(*zip(*points, strict=True), "o-", color=_LINES[0])
    axis.axhline(1.0, color=_INK, linewidth=0.8)
    axis.set_xlabel("decoder hop in seconds")
    axis.set_ylabel("step at seams over steps elsewhere")
    axis.set_ylim(bottom=0)
    return _svg(plt, figure)


def _courses(plt: Any, groups: Sequence[Group]) -> str:
    groups = groups[:_MOST_COURSES]
    columns = min(3, len(groups))
    rows = -(-len(groups) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4 * columns, 0.5 + 1.9 * rows), layout="constrained",
        sharex=True, squeeze=False,
    )  # fmt: skip
    for axis in axes.flat[len(groups) :]:
        axis.set_visible(False)
    lines = (("buffer", _LINES[0], "-"), ("target", _LINES[1], "--"), ("latency", _LINES[2], "-"))
    for axis, group in zip(axes.flat, groups, strict=False):
        series = group.results[0].series
        times = cast("list[float]", series["t"])
        for name, colour, style in lines:
            values = [float("nan") if v is None else v for v in series[name]]
            axis.plot(times, values, style, color=colour, linewidth=1, label=name)
        down = [bool(value) for value in series["down"]]
        axis.fill_between(
            times, 0, 1, where=down, transform=axis.get_xaxis_transform(), color=_INK, alpha=0.15,
            linewidth=0, label="outage",
        )  # fmt: skip
        axis.set_title(group.short, fontsize=7.5)
        axis.set_ylim(bottom=0)
    for axis in axes[-1]:
        axis.set_xlabel("seconds")
    for axis in axes[:, 0]:
        axis.set_ylabel("seconds of sound")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=8)
    return _svg(plt, figure)
