"""Two minutes on a sound card, through a link that is cut again and again: what is really heard."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from streaming.stream.hub import Hub
from streaming.transports.websocket.server import WebSocketServer
from streaming.wire.messages import StreamInfo
from tests import ROOT
from tests.support.fake_codec import BALANCES, LEVELS, FakeCodec
from tests.support.fault_proxy import FaultProxy
from tests.support.pulse import PulseServer, pulse, read_samples

__all__ = ["pulse"]

INFO = StreamInfo("fake", FakeCodec.weights, FakeCodec.digest, 5, "interrupted", 8)
LOUD = (LEVELS // 4) * BALANCES + BALANCES // 2
"""A steady tone, so that every hole in the sound shows."""
WINDOW = 480
SECONDS = 125.0
LONG_OUTAGE_AT_S = 60.0
LONG_OUTAGE_S = 12.0
RESERVE_S = 3.0


def holes_s(sound: np.ndarray) -> list[float]:
    """Lengths in seconds of the silences between the first sound and the last."""
    level = np.abs(sound).max(axis=0)
    level = level[: len(level) // WINDOW * WINDOW].reshape(-1, WINDOW).max(axis=1)
    loud = np.flatnonzero(level > 0.02)
    assert len(loud), "nothing was heard"
    gaps = np.diff(loud) - 1
    return [float(gap) * WINDOW / 48_000 for gap in gaps if gap > 0]


@pytest.mark.slow
async def test_short_outages_are_not_heard_and_a_long_one_once(
    pulse: PulseServer, tmp_path: Path
) -> None:
    hub = Hub(INFO, history_tokens=100_000)
    recorded, stats = tmp_path / "heard.f32", tmp_path / "stats.jsonl"
    async with (
        WebSocketServer(hub, "127.0.0.1", 0) as server,
        FaultProxy(server.port) as proxy,
    ):
        started_s = 0.0
        away_s: list[float] = []

        async def publish() -> None:
            while (passed_s := time.monotonic() - started_s) < SECONDS:
                while hub.next_token < 25 * passed_s:
                    hub.publish(np.full(8, LOUD), time.monotonic())
                await asyncio.sleep(0.02)
            hub.end("over", time.monotonic())

        async def interrupt() -> None:
            await asyncio.sleep(15)
            for number in range(20):
                if time.monotonic() - started_s > SECONDS - 15:
                    return
                proxy.refusing = True
                proxy.kill()
                long = number == 9
                cut_s = time.monotonic()
                await asyncio.sleep(LONG_OUTAGE_S if long else 0.5)
                proxy.refusing = False
                while not proxy.connections:  # until the listener tries again
                    await asyncio.sleep(0.01)
                if long:
                    away_s.append(time.monotonic() - cut_s)
                await asyncio.sleep(25.0 if long else 4.5)

        recorder = pulse.record(recorded)
        player = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.support.fake_client", proxy.url, "--play", "--buffer", str(RESERVE_S)),
            *("--stats", str(stats), "--verbose"),
            cwd=ROOT,
            env=pulse.env,
            stderr=asyncio.subprocess.PIPE,
        )
        while not hub.listeners:
            assert player.returncode is None
            await asyncio.sleep(0.05)
        started_s = time.monotonic()
        publishing = asyncio.create_task(publish())
        interrupting = asyncio.create_task(interrupt())
        _, log = await player.communicate()
        await publishing
        interrupting.cancel()
        recorder.terminate()
        recorder.wait()
    assert player.returncode == 0, log.decode()
    final = json.loads(stats.read_text().splitlines()[-1])
    assert final["lost_tokens"] == 0
    assert final["reconnects"] >= 10
    holes = holes_s(read_samples(recorded))
    print(holes, away_s, {key: final[key] for key in ("underruns", "reconnects", "latency_s")})  # noqa: T201
    # The long outage is one hole, shorter than it by what was in reserve.
    long = [hole for hole in holes if hole > 1.0]
    assert len(long) == 1
    assert away_s[0] - RESERVE_S - 2 < long[0] < away_s[0] - RESERVE_S + 2
    assert sum(holes) - sum(long) < 0.5  # what a busy machine's sound server skips
