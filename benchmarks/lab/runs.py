"""Many trials, side by side on all cores; what is done stays done when it is begun again."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.lab.settings import Setting
from benchmarks.lab.trial import Result, Trial, run
from streaming.files.atomic import written_whole
from streaming.support.compute import use_threads

__all__ = ["COLUMNS", "load", "row", "run_all", "write_csv"]

_TRIALS = "trials"
_FIGURES = (
    "packet_s",
    "encoder_window_s",
    "encoder_hop_s",
    "decoder_window_s",
    "decoder_hop_s",
    "start_s",
    "latency_s",
    "latency_most_s",
    "wire_bits_per_s",
    "back_bits_per_s",
    "underruns",
    "silent_s",
    "silent_share",
    "lost_tokens",
    "reconnects",
    "dropped",
    "lost_packets",
    "encode_rtf",
    "decode_rtf",
    "log_mel",
    "stft",
    "sc_8192",
    "chroma",
    "envelope",
    "onset_f",
    "level_db",
    "width_db",
    "image_db",
    "balance_db",
    "time_tx",
    "band_tx",
    "band_hz",
    "seam",
)
_SETTINGS = tuple(field.name for field in fields(Setting))
COLUMNS = ("song", "link", *_SETTINGS, "seconds", "cpu_factor", "seed", *_FIGURES, "problem")
"""Of the table, one row a trial."""


def run_all(
    trials: Sequence[Trial],
    folder: Path,
    *,
    jobs: int | None = None,
    done: Callable[[int, Trial], None] = lambda number, trial: None,
) -> list[Result]:
    """Run trials whose results are not in ``folder`` yet; all results, in the order of the trials.

    jobs: processes, one a core by default; 1 runs them in this process. done: told of each that is
    there, with how many that makes. A trial that cannot run has its reason in ``problem``.
    """
    (folder / _TRIALS).mkdir(parents=True, exist_ok=True)
    missing = [trial for trial in dict.fromkeys(trials) if _read(folder, trial) is None]
    number = len(trials) - len(missing)
    jobs = min(len(missing), jobs or os.cpu_count() or 1)
    if jobs <= 1:
        for trial in missing:
            _run_and_keep(trial, folder)
            number += 1
            done(number, trial)
    else:
        # Not forked: torch's threads and a fork do not go together.
        context = get_context("spawn")
        with ProcessPoolExecutor(jobs, context, initializer=use_threads, initargs=(1,)) as pool:
            running: dict[Future[None], Trial] = {
                pool.submit(_run_and_keep, trial, folder): trial for trial in missing
            }
            try:
                for future in as_completed(running):
                    future.result()
                    number += 1
                    done(number, running[future])
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    results = [_read(folder, trial) for trial in trials]
    return [result for result in results if result is not None]


def load(folder: Path) -> list[Result]:
    """All results in a folder, in no particular order."""
    files = sorted((folder / _TRIALS).glob("*.json"))
    return [Result(**json.loads(file.read_text(encoding="utf-8"))) for file in files]


def row(result: Result) -> dict[str, Any]:
    """A result as a row of the table."""
    trial = result.trial
    return {
        "song": Path(trial["song"]).name,
        "link": trial["link_name"],
        **{name: trial["setting"][name] for name in _SETTINGS},
        "seconds": trial["seconds"],
        "cpu_factor": trial["cpu_factor"],
        "seed": trial["seed"],
        **{name: result.figures.get(name) for name in _FIGURES},
        "problem": result.problem,
    }


def write_csv(results: Iterable[Result], path: Path) -> None:
    """A tidy table: one row a trial, one column a setting or figure; empty: not measured."""
    with written_whole(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(row(result) for result in results)


def stem(folder: Path, trial: Trial) -> Path:
    """Where a trial's files are, but for their suffixes."""
    return folder / _TRIALS / trial.key


def _read(folder: Path, trial: Trial) -> Result | None:
    try:
        text = stem(folder, trial).with_suffix(".json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return Result(**json.loads(text))


def _run_and_keep(trial: Trial, folder: Path) -> None:
    path = stem(folder, trial)
    try:
        result = run(trial, path)
    except Exception as error:  # one trial that cannot run must not cost the others
        told = str(error) or type(error).__name__
        result = Result(trial.as_dict(), trial.setting.label, {}, {}, {}, {}, told)
    with written_whole(path.with_suffix(".json")) as part:
        part.write_text(json.dumps(asdict(result)), encoding="utf-8")
