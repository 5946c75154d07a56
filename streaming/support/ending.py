"""How a signal ends one of our programs, until it is ready to end in good order.

The first thing that a program imports (:mod:`streaming.cli.start`), so it imports next to nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

__all__ = ["end_on_signals", "interruptible", "undone"]

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_undo: list[Callable[[], object]] = []


def end_on_signals() -> None:
    """Have Ctrl-C, SIGTERM and SIGHUP end this process at once.

    This holds until the process is ready to end in good order
    (:func:`streaming.support.signals.set_on_signals`). Signals that it was told to ignore stay
    ignored.
    """
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end_at_once)


@contextlib.contextmanager
def undone(undo: Callable[[], object]) -> Iterator[None]:
    """Within, a signal that ends this process at once has ``undo`` called before."""
    _undo.append(undo)
    try:
        yield
    finally:
        _undo.remove(undo)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within, the first signal raises KeyboardInterrupt or SystemExit instead.

    This is for work that runs in Python alone and has more to clean up than :func:`undone` can.
    """
    raising = [number for number in _ENDING if signal.getsignal(number) is _end_at_once]
    for number in raising:
        signal.signal(number, _raise)
    try:
        yield
    finally:
        for number in raising:
            signal.signal(number, _end_at_once)


def _raise(number: int, frame: FrameType | None) -> None:
    signal.signal(number, _end_at_once)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    # Not by an exception: one that is raised in the middle of an import, or of a callback, comes
    # out as another one, as a traceback, or not at all.
    for undo in reversed(_undo):
        undo()
    if number == signal.SIGINT:
        os._exit(128 + number)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
