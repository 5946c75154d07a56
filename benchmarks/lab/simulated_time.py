"""An asyncio event loop whose time is a number: nothing sleeps, an hour passes in minutes.

The loop runs what is ready; when nothing is, it moves its clock on to the next timer instead of
waiting for it. Blocking calls that the program makes on threads
(:class:`streaming.support.worker.Worker`) are made at once, and the processor time that they took,
times a factor, passes on the loop's clock: so computing costs simulated time as it would cost real
time, on this processor or on a slower one. Connections are made through a simulated network
(:mod:`benchmarks.lab.network`).
"""

from __future__ import annotations

import asyncio
import inspect
import selectors
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from unittest import mock

from benchmarks.lab.network import Network, SimulatedServer

__all__ = ["SimulatedLoop", "StandstillError", "simulate"]

T = TypeVar("T")

_START_S = 1000.0  # not 0: "never" is that to some parts of a program


class StandstillError(RuntimeError):
    """Nothing is ready and nothing will ever be: everybody waits for somebody else."""


class _NoWaiting(selectors.DefaultSelector):
    """Asks the system what is ready, and moves time on where it would have waited."""

    now_s = _START_S

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise StandstillError("every task waits, and no timer is set")
            self.now_s += max(0.0, timeout)
        return ready


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Use :func:`simulate`.

    Args:
        network: over which everything connects.
        cpu_factor: how many times as long as here computing takes; 0: no time at all.

    Attributes: ``busy_s``, processor time of blocking calls by the name of their worker, here.
    """

    def __init__(self, network: Network, cpu_factor: float = 1.0) -> None:
        self._no_waiting = _NoWaiting()
        super().__init__(self._no_waiting)
        self._clock_resolution = 1e-9  # asyncio's own name: timers this close are due together
        self.cpu_factor = cpu_factor
        self.busy_s: dict[str, float] = defaultdict(float)
        self.network = network
        network.attach(self)

    def time(self) -> float:
        """Simulated seconds."""
        return self._no_waiting.now_s

    async def blocking_call(
        self, worker: str, call: Callable[..., T], *args: Any, **kwargs: Any
    ) -> T:
        """Make a call that a worker's thread would make; takes as long as it computes."""
        began_s = time.thread_time()
        result = call(*args, **kwargs)
        busy_s = time.thread_time() - began_s
        self.busy_s[worker] += busy_s
        await asyncio.sleep(busy_s * self.cpu_factor)
        # What would sit and wait on a thread, such as a sound card, is a coroutine here.
        return await result if inspect.isawaitable(result) else result

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.Protocol], *args: Any, **options: Any
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """Connect through the simulated network; host and port as in asyncio."""
        host, port = (*args, options.get("host"), options.get("port"))[:2]
        return await self.network.connect(protocol_factory, str(host), int(str(port)))

    async def create_server(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.Protocol],
        host: Any = None,
        port: Any = None,
        *,
        sock: Any = None,
        **options: Any,
    ) -> SimulatedServer:
        """Listen in the simulated network."""
        if sock is not None:
            _, port = sock.getsockname()
        return self.network.listen(protocol_factory, int(port or 0))


@contextmanager
def _clocks_of(loop: SimulatedLoop) -> Iterator[None]:
    """Have parts that ask for the time themselves be told the loop's."""
    with mock.patch("time.monotonic", loop.time):
        yield


def simulate(
    main: Callable[[SimulatedLoop], Coroutine[Any, Any, T]],
    network: Network,
    cpu_factor: float = 1.0,
) -> T:
    """Run ``main(loop)`` to its end in simulated time."""
    loop = SimulatedLoop(network, cpu_factor)
    try:
        with _clocks_of(loop):
            return loop.run_until_complete(main(loop))
    finally:
        try:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        finally:
            loop.close()
