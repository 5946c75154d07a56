"""Many files to convert: which goes where, in how many processes, and what went wrong."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import queue
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from codec.errors import CodecError
from streaming.errors import SourceError, UserError
from streaming.files.convert import Converted, Progress
from streaming.support.ending import end_on_signals, interruptible
from streaming.support.progress import ProgressBar
from streaming.support.status_line import StatusLine, printable

__all__ = ["Convert", "Job", "pair_files", "run_jobs"]

logger = logging.getLogger(__name__)

_POLL_S = 0.1


@dataclass(frozen=True)
class Job:
    """One file to read and one to write."""

    source: Path
    out: Path


class Convert(Protocol):
    """What is done with each file; must be picklable if there are several processes."""

    def __call__(self, job: Job, progress: Progress) -> Converted:
        """Raises UserError or CodecError."""
        ...


def pair_files(source: Path, out: Path, found: Sequence[Path], suffix: str) -> list[Job]:
    """For the files ``found`` under the folder ``source``: the same places under ``out``.

    Args:
        suffix: instead of their own. If that makes two of them one, they keep both.

    Raises:
        SourceError: there are no files.
    """
    if not found:
        raise SourceError(f"There are no files to convert in '{printable(str(source), 300)}'.")
    wanted = Counter(path.with_suffix(suffix) for path in found)
    jobs = []
    for path in found:
        short = path.with_suffix(suffix)
        name = short if wanted[short] == 1 else path.with_name(path.name + suffix)
        jobs.append(Job(path, out / name.relative_to(source)))
    return jobs


def run_jobs(
    jobs: Sequence[Job], convert: Convert, processes: int, status: StatusLine
) -> list[Converted]:
    """Convert all files; one that fails is told and does not keep the others from it.

    Raises the failure if there was one file, and SourceError with a count if there were more.
    """
    bar = ProgressBar(len(jobs), status)
    run = _one_by_one if min(processes, len(jobs)) <= 1 else _side_by_side
    done: list[Converted] = []
    failures: list[Exception] = []
    for index, result in run(jobs, convert, processes, bar):
        bar.finished(index, jobs[index].source.name)
        if isinstance(result, Converted):
            done.append(result)
            if result.lost_tokens:
                logger.warning(
                    "%s: %d tokens are damaged or missing and were replaced",
                    printable(str(jobs[index].source)),
                    result.lost_tokens,
                )
        elif len(jobs) == 1:
            raise result
        else:
            failures.append(result)
            logger.warning("left out: %s", result)
    if failures:
        raise SourceError(f"{len(failures)} of {len(jobs)} files failed; the last: {failures[-1]}")
    return done


def _one_by_one(
    jobs: Sequence[Job], convert: Convert, processes: int, bar: ProgressBar
) -> Iterator[tuple[int, Converted | Exception]]:
    for index, job in enumerate(jobs):
        name = job.source.name

        def progress(done_s: float, total_s: float | None, at: int = index, n: str = name) -> None:
            bar.update(at, n, done_s, total_s)

        yield index, _attempt(convert, job, progress)


def _side_by_side(
    jobs: Sequence[Job], convert: Convert, processes: int, bar: ProgressBar
) -> Iterator[tuple[int, Converted | Exception]]:
    with interruptible():
        # A fork would copy the threads' locks of a process that may have used torch already.
        context = multiprocessing.get_context("spawn")
        told: Any = context.Queue()
        pool = ProcessPoolExecutor(
            min(processes, len(jobs)), context, _begin_process, (told, logging.getLogger().level)
        )
        try:
            with _ctrl_c_is_ours():
                waiting = {
                    pool.submit(_in_process, convert, n, job): n for n, job in enumerate(jobs)
                }
            while waiting:
                with contextlib.suppress(queue.Empty):
                    index, done_s, total_s = told.get(timeout=_POLL_S)
                    bar.update(index, jobs[index].source.name, done_s, total_s)
                for future in [future for future in waiting if future.done()]:
                    yield waiting.pop(future), _result(future)
        except BaseException:  # Ctrl-C, for one: do not wait until their files are done
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            told.close()


@contextlib.contextmanager
def _ctrl_c_is_ours() -> Iterator[None]:
    """Processes that are started within are not interrupted by a terminal: this one ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _attempt(convert: Convert, job: Job, progress: Progress) -> Converted | Exception:
    try:
        return convert(job, progress)
    except (UserError, CodecError) as error:
        return error
    except OSError as error:
        name = printable(str(error.filename or job.out), 300)
        return UserError(f"'{name}' cannot be written or read: {error.strerror or error}.")


def _result(future: Future[Converted | Exception]) -> Converted | Exception:
    try:
        return future.result()
    except BrokenProcessPool:
        return UserError("A process that converted it ended all at once; is there enough memory?")


# In the processes:

_told: Any = None


def _begin_process(told: Any, level: int) -> None:
    global _told
    _told = told
    logging.basicConfig(level=level, format="%(message)s", force=True)
    end_on_signals()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Nobody else would end this process where the one that started it was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _in_process(convert: Convert, index: int, job: Job) -> Converted | Exception:
    def progress(done_s: float, total_s: float | None) -> None:
        _told.put((index, done_s, total_s))

    return _attempt(convert, job, progress)
