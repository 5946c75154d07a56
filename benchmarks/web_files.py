"""What readers of the player's files cost a station: who gets them, its memory, its event loop.

``python -m benchmarks.web_files`` starts ``server.py`` with made-up tokens, loads the largest file
once at full speed, and then lets 20 readers load it at 100 kB/s each, and one more at 8 kB/s, who
is only to be still there when the others have everything.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.station import ROOT, example
from streaming.support.tasks import cancel
from streaming.web.player import files

_SLOWEST_BYTES_PER_S: Final = 8_000
_READ_S: Final = 0.1
_IDLE_S: Final = 20.0
"""Nobody reads for so long, which shows what the machine alone does to the event loop."""
_RECEIVE_BYTES: Final = 65_536


class Reader:
    """Loads a file at a rate. Attributes: ``got``, bytes of the body so far; ``whole``."""

    def __init__(self, port: int, path: str, bytes_per_s: float) -> None:
        self._port = port
        self._path = path
        self._bytes_per_s = bytes_per_s
        self.got = 0
        self.whole = False

    async def run(self) -> None:
        """Read to the end, whether that is the file's or the connection's."""
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", self._port))
        reader, writer = await asyncio.open_connection(sock=raw, limit=_RECEIVE_BYTES)
        try:
            writer.write(
                f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                "Accept-Encoding: gzip\r\n\r\n".encode()
            )
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(re.findall(r"(?i)content-length: (\d+)", head)[0])
            if " 200 " not in head.partition("\r\n")[0]:
                return
            began_s = time.monotonic()
            while piece := await reader.read(max(1, round(self._bytes_per_s * _READ_S))):
                self.got += len(piece)
                due_s = began_s + self.got / self._bytes_per_s
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            self.whole = self.got == length
        except (OSError, asyncio.IncompleteReadError):
            return  # which shows in what it got
        finally:
            writer.close()


async def measure(readers: int, bytes_per_s: float, name: str | None) -> dict[str, Any]:
    """Start a station, and load a file from it; the largest if no name is given."""
    with tempfile.TemporaryDirectory() as folder:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "server.py", str(example(Path(folder))), "--port", "0"),
            cwd=ROOT,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stderr is not None
            line = (await process.stderr.readline()).decode()
            port = int(re.findall(r"ws://[^:]+:(\d+)", line)[0])
            return await _load(process.pid, port, readers, bytes_per_s, name)
        finally:
            process.terminate()
            await process.communicate()


async def _load(
    pid: int, port: int, readers: int, bytes_per_s: float, name: str | None
) -> dict[str, Any]:
    started_mb = _resident_mb(pid)
    await _get(port, "/player.json")  # reads the files
    named = [file for file in files() if name in (None, file.name)]
    file = max(named, key=lambda file: file.gzip_bytes)
    first = Reader(port, f"/{file.url}", 1e12)
    await first.run()
    alone_mb = _resident_mb(pid)
    await asyncio.sleep(_IDLE_S)
    before = json.loads(await _get(port, "/status.json"))["timings"]
    crowd = [Reader(port, f"/{file.url}", bytes_per_s) for _ in range(readers)]
    slowest = Reader(port, f"/{file.url}", _SLOWEST_BYTES_PER_S)
    crawling = asyncio.create_task(slowest.run())
    loading = asyncio.gather(*(reader.run() for reader in crowd))
    most_mb = alone_mb
    while not loading.done():
        await asyncio.sleep(0.2)
        most_mb = max(most_mb, _resident_mb(pid))
    figures = json.loads(await _get(port, "/status.json"))
    still_there = slowest.whole or not crawling.done()
    await cancel(crawling)
    return {
        "file": file.name,
        "bytes": file.gzip_bytes,
        "readers": readers,
        "bytes_per_s": bytes_per_s,
        "complete": sum(reader.whole for reader in crowd),
        "slowest_not_cut": still_there,
        "slowest_got_bytes": slowest.got,
        "started_mb": round(started_mb, 1),
        "after_one_mb": round(alone_mb, 1),
        "most_mb": round(most_mb, 1),
        "loop_late_before_ms": round(1000 * before["loop_late_most_s"], 1),
        "loop_late_p99_ms": round(1000 * figures["timings"]["loop_late_p99_s"], 1),
        "loop_late_most_ms": round(1000 * figures["timings"]["loop_late_most_s"], 1),
    }


async def _get(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    _, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return body


def _resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is 0 if all got everything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.web_files", description=__doc__)
    parser.add_argument("--readers", type=int, default=20, metavar="N")
    parser.add_argument("--rate", type=float, default=100_000.0, metavar="BYTES/S")
    parser.add_argument("--file", metavar="NAME", help="of one of the files (default: largest)")
    options = parser.parse_args(argv)
    result = asyncio.run(measure(options.readers, options.rate, options.file))
    print(json.dumps(result, indent=2))
    return 0 if result["complete"] == options.readers and result["slowest_not_cut"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
