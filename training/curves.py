"""Loss curves of training runs as pictures: ``python -m training.curves RUN…``.

Each run's ``log.jsonl`` becomes ``curves.png`` beside it, one panel per loss term: what was trained
on, and the averaged model on the fixed validation set. Trainings draw it themselves at each save.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["draw_curves", "main", "read_log"]

_VALID = "valid_"
_NO_TERMS = frozenset({"step", "seconds", "step_s"})
_COLUMNS = 4


def read_log(run: Path) -> list[dict[str, float]]:
    """The lines of a run's log; a last line that was cut off is left out."""
    rows = []
    for line in (run / "log.jsonl").read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def draw_curves(run: Path) -> Path | None:
    """Draw a run's log to ``curves.png`` in its folder; None if there is nothing to draw yet."""
    rows = read_log(run)
    names = dict.fromkeys(key.removeprefix(_VALID) for row in rows for key in row)
    terms = sorted(name for name in names if name not in _NO_TERMS)
    if not terms:
        return None
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    terms.sort(key=lambda name: name != "total")  # the sum first, then by name
    lines = math.ceil(len(terms) / _COLUMNS)
    columns = min(_COLUMNS, len(terms))
    figure, axes = plt.subplots(
        lines, columns, figsize=(4 * columns, 3 * lines), squeeze=False, layout="constrained"
    )
    for axis, name in zip(axes.flat, terms, strict=False):
        for key, label, color in (
            (name, "trained on", "C0"),
            (_VALID + name, "validation, averaged model", "C1"),
        ):
            points = [(row["step"], row[key]) for row in rows if key in row]
            if points:
                x, y = zip(*points, strict=True)
                axis.plot(x, y, color, label=label, marker="." if len(points) == 1 else "")
        axis.set_title(name, fontsize=11)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(terms) :]:
        axis.set_visible(False)
    axes[0, 0].legend(fontsize=8)
    figure.suptitle(run.name)
    path = run / "curves.png"
    figure.savefig(path, dpi=90)
    plt.close(figure)
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.curves", description=(__doc__ or "").split(":")[0]
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a training")
    for run in parser.parse_args(argv).runs:
        try:
            path = draw_curves(run)
        except OSError as error:
            print(f"curves: {run} holds no log of a training: {error.strerror}", file=sys.stderr)
            return 2
        print(path or f"{run}: nothing logged yet")
    return 0


if __name__ == "__main__":
    sys.exit(main())
