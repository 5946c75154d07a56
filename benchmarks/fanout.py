"""One server and many listeners on one machine: what arrives, how late, and what it costs.

``python -m benchmarks.fanout --listeners 5000`` starts the WebSocket server with made-up tokens, a
packet a second, and listeners that decode nothing in a process of their own: plain sockets that
speak as much of the protocol as it takes. One more listener joins and then reads nothing. Delivery
is timed from the moment at which a packet is due to be published, whether or not the server gets to
it by then, to that at which a listener has read it, on the clock that all processes of a machine
share.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.crowd import UNDER_WAY_S, lateness, percentile_ms, raise_file_limit
from benchmarks.fanout_load import Load
from codec.constants import TOKEN_RATE
from streaming.stream.hub import Hub
from streaming.support.compute import settle
from streaming.support.guard import Limits
from streaming.support.stats import LoopStall
from streaming.support.tasks import beside
from streaming.support.timing import Timing
from streaming.transports.websocket.server import WebSocketServer
from streaming.wire.messages import StreamInfo

__all__ = ["fan_out", "main"]

_PACKET_TOKENS: Final = TOKEN_RATE
_SETTLE_S: Final = 3.0
_PATIENCE_S: Final = 600.0
_MORE_FILES: Final = 256


def fan_out(
    listeners: int, seconds: float, *, joins_per_s: float, processes: int, stuck: int = 1
) -> dict[str, float]:
    """Measure once.

    ``dropped`` counts the listeners that were lost or missed a packet, and ``sent_away`` those that
    the server let go for a fault or a lag. ``p50_ms``, ``p99_ms`` and ``most_ms`` are of
    deliveries, ``join_p99_ms`` is from a call to its welcome. ``server_cpu_s`` and
    ``loop_late_most_ms`` are of the server in ``seconds``, ``join_cpu_s`` and
    ``join_loop_late_most_ms`` before that. ``rss_per_listener_bytes`` is by how much its memory
    grew for each that joined.
    """
    raise_file_limit(listeners + _MORE_FILES)
    context = multiprocessing.get_context("spawn")
    server, server_end = context.Pipe()
    serving = context.Process(target=_serve, args=(server_end, listeners + stuck), daemon=True)
    serving.start()
    server_end.close()  # so that we notice when the other process ends
    started: list[Any] = [serving]
    try:
        port = _answer(server)
        before = _ask(server, "mark")
        shares = [listeners // processes + (n < listeners % processes) for n in range(processes)]
        loads: list[Connection] = []
        for number, share in enumerate(shares):
            ours, theirs = context.Pipe()
            idle = stuck if number == 0 else 0
            arguments = (theirs, port, share, joins_per_s * share / listeners, idle)
            load = context.Process(target=_load, args=arguments, daemon=True)
            load.start()
            theirs.close()
            started.append(load)
            loads.append(ours)
        for connection in loads:
            _answer(connection)
        time.sleep(_SETTLE_S)
        first = _ask(server, "mark")
        time.sleep(seconds)
        last = _ask(server, "mark")
        time.sleep(UNDER_WAY_S)
        arrivals = [_ask(connection, "stop") for connection in loads]
        published = _ask(server, "stop")
    finally:
        for process in started:
            process.terminate()
            process.join()
    packets = range(first["packets"], last["packets"])
    late_s, complete = lateness(arrivals, published, packets)
    grown = first["rss_bytes"] - before["rss_bytes"]
    return {
        "listeners": listeners,
        "seconds": seconds,
        "packets": len(packets),
        "delivered": len(late_s),
        "dropped": listeners - complete,
        "p50_ms": percentile_ms(late_s, 50),
        "p99_ms": percentile_ms(late_s, 99),
        "most_ms": percentile_ms(late_s, 100),
        "server_cpu_s": last["cpu_s"] - first["cpu_s"],
        "rss_per_listener_bytes": grown / (listeners + stuck),
        "cpu_per_delivery_us": 1e6 * (last["cpu_s"] - first["cpu_s"]) / max(1, len(late_s)),
        "joins_per_s": (listeners + stuck) / max(arrival.joined_s for arrival in arrivals),
        "join_p99_ms": percentile_ms(np.concatenate([a.welcomes_s for a in arrivals]), 99),
        "join_cpu_s": first["cpu_s"] - before["cpu_s"],
        "join_loop_late_most_ms": first["loop_late_most_ms"],
        "loop_late_most_ms": last["loop_late_most_ms"],
        "load_cpu_s": sum(arrival.cpu_s for arrival in arrivals),
        "stuck": stuck,
        "sent_away": last["sent_away"],
    }


def _ask(connection: Connection, what: str) -> Any:
    connection.send(what)
    return _answer(connection)


def _answer(connection: Connection) -> Any:
    if not connection.poll(_PATIENCE_S):
        raise SystemExit("fanout: a process does not answer.")
    try:
        return connection.recv()
    except EOFError:
        raise SystemExit("fanout: a process has ended early.") from None


# The server's process


def _serve(pipe: Connection, most: int) -> None:
    asyncio.run(_serving(pipe, most))


async def _serving(pipe: Connection, most: int) -> None:
    """Publish a packet a second until told to stop."""
    settle()  # as a sender does
    hub = Hub(StreamInfo("nano", "nano-0", "0" * 64, 0, "fanout", _PACKET_TOKENS))
    limits = Limits(connections=most + 16, per_address=most + 16, handshake_s=60.0)
    tokens = np.random.default_rng(0).integers(0, 16384, _PACKET_TOKENS)
    published: dict[int, float] = {}
    asked = asyncio.Event()
    asyncio.get_running_loop().add_reader(pipe.fileno(), asked.set)
    stall = LoopStall()
    serving = WebSocketServer(hub, "127.0.0.1", 0, limits=limits)
    async with serving as server, beside(stall.watch()):
        pipe.send(server.port)
        due_s = time.monotonic()
        while True:
            due_s += _PACKET_TOKENS / TOKEN_RATE
            while (left_s := due_s - time.monotonic()) > 0:
                try:
                    async with asyncio.timeout(left_s):
                        await asked.wait()
                except TimeoutError:
                    break
                asked.clear()
                while pipe.poll():
                    if pipe.recv() == "stop":
                        pipe.send(published)
                        os._exit(0)  # thousands of closing handshakes are not what is measured
                    pipe.send(_figures(hub, stall))
                    stall.timing = Timing()
            published[hub.next_token // _PACKET_TOKENS] = due_s
            hub.publish(tokens, time.monotonic())


def _figures(hub: Hub, stall: LoopStall) -> dict[str, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {
        "packets": hub.next_token // _PACKET_TOKENS,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "rss_bytes": pages * os.sysconf("SC_PAGE_SIZE"),
        "loop_late_most_ms": stall.longest_ms,
        "sent_away": hub.drops.total(),
    }


# A process of listeners


def _load(pipe: Connection, port: int, count: int, joins_per_s: float, stuck: int) -> None:
    load = Load(port, count, joins_per_s, stuck, packet_tokens=_PACKET_TOKENS)
    load.join_all()
    pipe.send("joined")
    load.run(stop=pipe.poll)
    pipe.recv()
    pipe.send(load.arrivals())


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fanout", description=__doc__)
    parser.add_argument("--listeners", type=int, nargs="+", default=[1000], metavar="N")
    parser.add_argument("--seconds", type=float, default=30.0, metavar="S")
    parser.add_argument("--joins-per-s", type=float, default=200.0, metavar="N")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="of listeners")
    parser.add_argument("--json", action="store_true", help="one JSON object a run, no table")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="all runs in a picture")
    arguments = parser.parse_args(argv)
    if min(*arguments.listeners, arguments.processes) < 1 or arguments.seconds < 1:
        parser.error("there must be listeners and processes, and a second or more")
    if not arguments.joins_per_s > 0:
        parser.error("listeners must join at some rate")
    for most in arguments.listeners:
        raise_file_limit(most + _MORE_FILES)  # before anything is measured
    results = []
    for listeners in arguments.listeners:
        result = fan_out(
            listeners,
            arguments.seconds,
            joins_per_s=arguments.joins_per_s,
            processes=min(arguments.processes, listeners),
        )
        results.append(result)
        shown = {name: round(value, 3) for name, value in result.items()}
        print(json.dumps(shown) if arguments.json else _row(shown), flush=True)
    if arguments.plot:
        plot(results, arguments.plot)
    return 0


def _row(result: dict[str, float]) -> str:
    return (
        f"{result['listeners']:6.0f} listeners, {result['dropped']:.0f} dropped, delivery "
        f"{result['p50_ms']:.0f} ms (99 %: {result['p99_ms']:.0f} ms), server "
        f"{result['server_cpu_s'] / result['seconds']:.1%} of a core, "
        f"{result['cpu_per_delivery_us']:.0f} us a delivery, event loop held up for "
        f"{result['loop_late_most_ms']:.0f} ms at most, "
        f"{result['rss_per_listener_bytes'] / 1024:.1f} KiB a listener, "
        f"{result['joins_per_s']:.0f} joins a second"
    )


def plot(results: Sequence[dict[str, float]], path: Path) -> None:
    """Cost and delay against the number of listeners."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    listeners = [result["listeners"] for result in results]
    figure, (cost, delay) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    load = [100 * result["server_cpu_s"] / result["seconds"] for result in results]
    cost.loglog(listeners, load, "o-")
    cost.set(xlabel="listeners", ylabel="server, % of a core", title="Cost")
    for key, name in (("p50_ms", "median"), ("p99_ms", "99 %")):
        delay.loglog(listeners, [result[key] for result in results], "o-", label=name)
    delay.set(xlabel="listeners", ylabel="delivery, ms", title="Delay")
    delay.legend()
    for axes in (cost, delay):
        axes.grid(True, which="both", alpha=0.3)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
