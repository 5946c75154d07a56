"""Pictures of the quality benchmark: a spectrogram for each version, a chart of every measure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor

from benchmarks.measures import MEASURES
from benchmarks.results import Results
from scripts.picture import log_spectrogram, loudest_db, paint

__all__ = ["DARK", "LIGHT", "Theme", "charts", "spectrograms"]


@dataclass(frozen=True)
class Theme:
    """Colours of a picture: ink for text and lines, paper behind, colours for bars and dots."""

    ink: str
    paper: str
    bar: str
    highlight: str
    dot: str


LIGHT = Theme(ink="#22262b", paper="#ffffff", bar="#9fb3c8", highlight="#b5451c", dot="#22262b")
DARK = Theme(ink="#d7dce2", paper="#191c20", bar="#4a6079", highlight="#f08a5d", dot="#f2f4f7")


@contextmanager
def _pyplot(theme: Theme) -> Iterator[Any]:
    """Matplotlib in a theme, drawing to files alone."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    settings = {
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.edgecolor": theme.ink,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
        "axes.facecolor": theme.paper,
        "figure.facecolor": theme.paper,
    }
    with plt.rc_context(cast("Any", settings)):
        yield plt


def spectrograms(sounds: Mapping[Path, Tensor]) -> None:
    """Write a PNG for each sound ``[2, samples]``, all on the same scale.

    They are dark in either theme, since dark is what silence looks like in them.
    """
    pictures = {path: log_spectrogram(sound.numpy()) for path, sound in sounds.items()}
    top_db = loudest_db(pictures.values())
    with _pyplot(DARK) as plt:
        for path, picture in pictures.items():
            figure, axis = plt.subplots(figsize=(5.6, 2.8), layout="constrained")
            paint(axis, picture, top_db)
            axis.set_xlabel("seconds")
            figure.savefig(path, dpi=140)
            plt.close(figure)


def charts(path: Path, results: Results, theme: Theme) -> None:
    """Write a PNG with a panel for each measure: bars are means, dots the recordings."""
    names, columns = results.versions, 3
    rows = -(-len(MEASURES) // columns)
    size = (12, rows * (0.9 + 0.26 * len(names)))
    with _pyplot(theme) as plt:
        figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained")
        for axis in axes.flat[len(MEASURES) :]:
            axis.set_visible(False)
        for number, key in enumerate(MEASURES):
            _chart(axes.flat[number], results, key, theme, named=number % columns == 0)
        figure.savefig(path, dpi=120)
        plt.close(figure)


def _chart(axis: Any, results: Results, key: str, theme: Theme, *, named: bool) -> None:
    """One panel; named: whether it names the versions."""
    names, measure = results.versions, MEASURES[key]
    places = np.arange(len(names))[::-1]  # the first version on top
    means = np.array([results.mean(name, key) for name in names])
    colours = [theme.highlight if name == "decoded" else theme.bar for name in names]
    # Bars begin at the perfect copy's value, so that a short bar is a good one everywhere.
    axis.barh(places, means - measure.good, left=measure.good, color=colours, height=0.7)
    for place, name in zip(places, names, strict=True):
        values = [recording.figures[name][key] for recording in results.recordings]
        axis.plot(values, [place] * len(values), ".", color=theme.dot, markersize=3, alpha=0.6)
    axis.axvline(measure.good, color=theme.ink, linewidth=1)
    axis.set_yticks(places, names if named else [""] * len(names), fontsize=9)
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=8)
    axis.set_title(measure.label, fontsize=10, loc="left")
    axis.spines[["top", "right", "left"]].set_visible(False)
