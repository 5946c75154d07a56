"""What a sink is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Sink"]


class Sink(ABC):
    """Takes 48 kHz stereo, `[2, n]` float32, in blocks of any size.

    One thread writes and closes. `write` may wait, so call it from a worker thread.
    """

    paces = False
    """Whether `write` lets through one second of sound a second, as a sound card does."""

    @abstractmethod
    def write(self, block: NDArray[np.float32]) -> None:
        """Take all of `block`.

        Raises:
            SinkError: the sink no longer takes anything.
            SinkClosed: whoever read from it has gone.
        """

    @abstractmethod
    def drain(self) -> None:
        """Wait until everything written has arrived: was heard, or was handed to the system.

        Raises:
            SinkError: as in `write`.
        """

    @abstractmethod
    def close(self) -> None:
        """Release everything; safe to call twice. A sound card falls silent; `drain` first to wait.

        Raises:
            SinkError: the last of it could not be written.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
