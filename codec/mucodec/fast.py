"""The decoder's stages, made fast on a GPU for the shapes that come again and again.

Eager code is slow there in two ways: every small operation reads and writes the whole map, and
live windows are so short that a CPU cannot launch their kernels as fast as they end. A compiler
mends the first, a CUDA graph, which launches a whole stage at once, the second. Both take time, so
they are made on a thread of their own while the eager stage plays.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from codec.mucodec.precision import exact_float32

__all__ = ["FastPath", "Key", "Stage"]

_log = logging.getLogger(__name__)

Call = Callable[..., Tensor]
Key = tuple[str, tuple[tuple[int, ...], ...]]
"""A stage's name and the shapes of its inputs."""
_MOST_ROWS = 8
"""Items of a batch up to which a larger one gets a graph of its own: four streams, guided."""


@dataclass(frozen=True)
class Stage:
    """One stage of the decoder, whose inputs and result are batches of rows that are independent.

    Attributes:
        plain: as it is written.
        compiled: makes the same of compiled parts, called once.
    """

    plain: Call
    compiled: Callable[[], Call]


class FastPath:
    """Runs stages by name; those that were asked for in :meth:`watch` become fast by themselves.

    Args:
        wanted: shapes to make fast as soon as they are run, such as :meth:`close` of another path
            gave.
    """

    def __init__(
        self, stages: Mapping[str, Stage], device: torch.device, wanted: Collection[Key] = ()
    ) -> None:
        self._wanted = frozenset(wanted)
        self._stages, self._device = stages, device
        self._compiled: dict[str, Call] = {}
        self._ready: dict[Key, Call] = {}
        self._asked: set[Key] = set()
        self._jobs: list[tuple[Key, Sequence[Tensor]]] = []
        self._thread: threading.Thread | None = None
        self._watching = False
        self._closed = False
        self._queue_lock = threading.Lock()
        self._recorder = _GraphRecorder(device) if device.type == "cuda" else None
        # A graph has one place for its inputs, and no stage may run while one is recorded.
        self._run_lock: AbstractContextManager[object] = (
            nullcontext() if self._recorder is None else threading.Lock()
        )

    @property
    def ready(self) -> int:
        """How many shapes are fast by now."""
        return len(self._ready)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Have every shape that is run inside made fast, in the background."""
        self._watching = True
        try:
            yield
        finally:
            self._watching = False

    def wait(self, timeout_s: float | None = None) -> None:
        """Until all that was asked for is fast, or could not be made so."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while (thread := self._thread) is not None:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
            if end is not None and time.monotonic() >= end:
                break

    def close(self) -> Collection[Key]:
        """Make nothing fast any more: what the stages compute with is about to change.

        Returns the shapes that were to be fast.
        """
        with self._queue_lock:
            self._closed = True
            self._jobs.clear()
            self._ready = {}
            return self._asked

    def run(self, name: str, *inputs: Tensor) -> Tensor:
        """A stage's result, by the fast way for this shape if there is one.

        A batch for which there is none goes through that of a smaller one in several turns.
        """
        key = _key(name, inputs)
        if self._watching or key in self._wanted:
            self._ask(key, inputs)
        if (call := self._ready.get(key)) is not None:
            with self._run_lock:
                return call(*inputs)
        if rows := self._divisor(key):
            if len(inputs[0]) <= _MOST_ROWS:
                self._ask(key, inputs)
            parts = zip(*(x.split(rows) for x in inputs), strict=True)
            return torch.cat([self.run(name, *part) for part in parts])
        with self._run_lock:
            return self._stages[name].plain(*inputs)

    def _divisor(self, key: Key) -> int:
        """Rows of the largest batch that is fast and divides this one; 0 if there is none."""
        name, shapes = key
        rows = shapes[0][0]
        for part in range(rows // 2, 0, -1):
            smaller = (name, tuple((part, *shape[1:]) for shape in shapes))
            if rows % part == 0 and smaller in self._ready:
                return part
        return 0

    def _ask(self, key: Key, inputs: Sequence[Tensor]) -> None:
        with self._queue_lock:
            if self._closed or key in self._asked:
                return
            self._asked.add(key)
            self._jobs.append((key, [x.clone() for x in inputs]))
            if self._thread is None:
                # A daemon: nobody waits for a compiler when the program ends.
                self._thread = threading.Thread(target=self._work, name="compile", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            with self._queue_lock:
                if not self._jobs:
                    self._thread = None
                    break
                (name, shapes), inputs = self._jobs.pop(0)
            try:
                with nullcontext() if self._recorder is None else torch.cuda.device(self._device):
                    call = self._make(name, inputs)
            except Exception as error:
                self._complain(name, error)
                continue
            with self._queue_lock:
                if not self._closed:
                    self._ready[name, shapes] = call
        if self._recorder is not None:
            torch.cuda.empty_cache()  # what eager calls needed

    @torch.inference_mode()
    @exact_float32()
    def _make(self, name: str, inputs: Sequence[Tensor]) -> Call:
        """A stage for one shape; one that no compiler can do is recorded as it is written."""
        recorder = self._recorder
        warm_up = recorder.warm_up if recorder is not None else _call
        try:
            if name not in self._compiled:
                self._compiled[name] = self._stages[name].compiled()
            warm_up(self._compiled[name], inputs)
        except Exception as error:
            self._complain(name, error)
            self._compiled[name] = self._stages[name].plain
            warm_up(self._compiled[name], inputs)
        call = self._compiled[name]
        if recorder is None:
            return call
        with self._run_lock:
            return recorder.record(call, inputs)

    def _complain(self, name: str, error: Exception) -> None:
        if self._closed:  # what it worked with was changed under its hands
            return
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        _log.warning("mucodec's %s could not be compiled and goes on without: %s", name, reason)


class _GraphRecorder:
    """Records calls as CUDA graphs, which share the memory of what they compute in between."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)

    def warm_up(self, call: Call, inputs: Sequence[Tensor]) -> None:
        """Let a call choose its kernels, which takes what a graph cannot hold."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for _ in range(2):
                call(*inputs)
        self._stream.synchronize()

    def record(self, call: Call, inputs: Sequence[Tensor]) -> Call:
        """The same call as a graph, which computes from its own copy of ``inputs``."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            result = call(*inputs)
        return replaying(graph.replay, inputs, result)


def replaying(replay: Callable[[], None], inputs: Sequence[Tensor], result: Tensor) -> Call:
    """A call of a recorded stage, which reads ``inputs`` and writes ``result`` where they lie."""

    def call(*given: Tensor) -> Tensor:
        for place, value in zip(inputs, given, strict=True):
            place.copy_(value)
        replay()
        return result.clone()  # the next call writes there

    return call


def _call(call: Call, inputs: Sequence[Tensor]) -> None:
    call(*inputs)


def _key(name: str, inputs: Sequence[Tensor]) -> Key:
    return name, tuple(tuple(x.shape) for x in inputs)
