"""Warnings about what strangers do: one line a minute, however much of it they do."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

__all__ = ["SparseLog"]


class SparseLog:
    """Hands on a warning unless it has handed on another less than ``interval_s`` ago.

    Those that are left out are counted, and the next one says how many they were; at the level
    DEBUG nothing is left out. One instance for each kind of event.
    """

    def __init__(
        self,
        logger: logging.Logger,
        interval_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._interval_s = interval_s
        self._clock = clock
        self._next_s = float("-inf")
        self._left_out = 0

    def warning(self, message: str, *arguments: object) -> None:
        """As :meth:`logging.Logger.warning`."""
        now_s = self._clock()
        if now_s < self._next_s:
            self._left_out += 1
            self._logger.debug(message, *arguments)
            return
        if self._left_out:
            message += " (and %d more like this since the last line about it)"
            arguments += (self._left_out,)
        self._next_s, self._left_out = now_s + self._interval_s, 0
        self._logger.warning(message, *arguments)
