"""A short soak: the long ones run with ``make soak``."""

from __future__ import annotations

from pathlib import Path

from tests.soak import soak


async def test_a_minute_of_stream_with_cuts_loses_nothing(tmp_path: Path) -> None:
    figures = await soak(seconds=3.0, speed=20.0, kill_every_s=0.5, folder=tmp_path)
    assert figures["tokens_sent"] >= 48
    assert figures["tokens_heard"] == figures["tokens_sent"]
    assert figures["lost_tokens"] == 0
    assert figures["kills"] > 0
