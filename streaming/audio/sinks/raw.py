"""Bare samples into a pipe."""

from __future__ import annotations

import os
import sys
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from streaming.audio.sinks.base import Sink
from streaming.errors import SinkClosed, SinkError

__all__ = ["RawSink"]


class RawSink(Sink):
    """Writes interleaved little-endian float32 stereo frames at 48 kHz.

    A reader that goes away ends the sink quietly: `write` raises `SinkClosed`.

    Args:
        stream: a binary stream, standard output by default. It is flushed, not closed.

    Raises:
        SinkError: the stream is a terminal.
    """

    def __init__(self, stream: BinaryIO | None = None) -> None:
        self._stream: BinaryIO = sys.stdout.buffer if stream is None else stream
        self._broken = False
        self.samples = 0
        if self._stream.isatty():
            raise SinkError(
                "Standard output is a terminal; send the samples to a program or a file."
            )

    def write(self, block: NDArray[np.float32]) -> None:
        """Write a block's samples. Raises SinkError, or SinkClosed if the reader has gone."""
        if self._broken:
            raise SinkClosed("the reader has gone")
        try:
            self._stream.write(np.ascontiguousarray(block.T, dtype="<f4").tobytes())
            self._stream.flush()
        except BrokenPipeError as error:
            self._abandon()
            raise SinkClosed("the reader has gone") from error
        except OSError as error:
            self._abandon()
            raise SinkError(f"Standard output cannot be written: {error.strerror}.") from error
        self.samples += block.shape[1]

    def drain(self) -> None:
        """Every `write` has already handed all to the system."""

    def close(self) -> None:
        """Flush what was written."""
        if self._broken:
            return
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._abandon()
        except OSError as error:
            self._abandon()
            raise SinkError(f"Standard output cannot be written: {error.strerror}.") from error

    def _abandon(self) -> None:
        """Discard what is left in the buffer, or the interpreter complains at its end."""
        self._broken = True
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, self._stream.fileno())
        os.close(devnull)
