"""The experimenter's bench: what a setting costs, and how it sounds, on a link as bad as yours.

    from benchmarks import lab

    results = lab.sweep(
        ["song.flac"], {"hop": [0.32, 0.96], "steps": [0, 1]}, link="iridium", out="lab-out"
    )
    for row in lab.rows(results):
        print(row["hop"], row["latency_s"], row["wire_bits_per_s"], row["chroma"])
    lab.report(results, "lab-out")

``python -m benchmarks.lab`` does the same from the command line; docs/lab.md has all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.lab.links import LINKS, LinkError, LinkModel, parse_link
from benchmarks.lab.runs import load, run_all, stem, write_csv
from benchmarks.lab.runs import row as _row
from benchmarks.lab.settings import SWEEPABLE, Setting, SettingError, expand, parse_sweep
from benchmarks.lab.trial import Result, Trial, run

__all__ = [
    "LINKS",
    "SWEEPABLE",
    "LinkError",
    "LinkModel",
    "Result",
    "Setting",
    "SettingError",
    "Trial",
    "expand",
    "load",
    "parse_link",
    "parse_sweep",
    "report",
    "rows",
    "run",
    "run_all",
    "sweep",
    "trial_of",
    "trials",
]


def trials(
    songs: Sequence[str | Path],
    sweeps: Mapping[str, Sequence[Any]] | None = None,
    links: Sequence[str] = ("",),
    base: Setting | None = None,
    **options: Any,
) -> list[Trial]:
    """Every song with every combination of settings on every link.

    options: further fields of :class:`Trial`. Raises LinkError, SettingError, FileNotFoundError.
    """
    settings = expand(sweeps or {}, base)
    models = {name: parse_link(name) for name in links}
    paths = [Path(song) for song in songs]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path}.")
    return [
        Trial(path, setting, model, name, **options)
        for path in paths
        for name, model in models.items()
        for setting in settings
    ]


def sweep(
    songs: Sequence[str | Path],
    sweeps: Mapping[str, Sequence[Any]] | None = None,
    *,
    link: str | Sequence[str] = "",
    out: str | Path = "lab-out",
    jobs: int | None = None,
    base: Setting | None = None,
    done: Callable[[int, Trial], None] = lambda number, trial: None,
    **options: Any,
) -> list[Result]:
    """Run :func:`trials`, those that are not in ``out`` yet, and write ``results.csv`` there.

    link: a name or a description, or several of them. jobs: processes, one a core by default.
    """
    links = [link] if isinstance(link, str) else list(link)
    folder = Path(out)
    results = run_all(trials(songs, sweeps, links, base, **options), folder, jobs=jobs, done=done)
    write_csv(results, folder / "results.csv")
    return results


def rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """A flat dictionary for each result, as in ``results.csv``: made for ``pandas.DataFrame``."""
    return [_row(result) for result in results]


def report(results: Sequence[Result], out: str | Path = "lab-out") -> Path:
    """Write the page ``index.html`` into the folder of :func:`sweep`; returns its path.

    Raises ImportError if matplotlib is missing.
    """
    from benchmarks.lab.page import write_report

    folder = Path(out)
    stems = [stem(folder, trial_of(result)) for result in results]
    return write_report(results, stems, folder)


def trial_of(result: Result) -> Trial:
    """The trial that a result came from."""
    values = dict(result.trial)
    link = dict(values.pop("link"))
    if link["rate_bits_per_s"] is None:
        link["rate_bits_per_s"] = float("inf")
    song, setting = Path(values.pop("song")), Setting(**values.pop("setting"))
    return Trial(song, setting, LinkModel(**link), **values)
