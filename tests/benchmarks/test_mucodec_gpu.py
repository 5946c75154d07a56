"""The study on a GPU: it runs from end to end, and what it need not run for can be counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import mucodec_gpu
from benchmarks.mucodec import RELEASE, listener_bytes
from codec.mucodec.codec import MuCodec

GIB = 2**30


def test_the_whole_study_can_be_rehearsed(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert mucodec_gpu.main(["--rehearse", "--limit", "1e6", "--json", str(file)]) == 0
    figures = json.loads(file.read_text())
    assert not [name for name in figures if name.endswith((": failed", ": left out"))]
    assert figures["shapes compiled, of 6"] == 6
    assert figures["parity in float32"].startswith("2 of 2")
    for how in ("eager", "fast"):
        assert figures[f"{how}: release windows, 20 steps, times real time"] > 0


def test_no_time_leaves_parts_out_and_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MuCodec, "warm_up", lambda *_: None)
    assert mucodec_gpu.main(["--rehearse", "--limit", "0"]) == 0
    assert "limits: left out: 0 s left, 10 needed" in capsys.readouterr().out.replace("-0", "0")


def test_without_a_gpu_it_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert mucodec_gpu.main([]) == 2
    assert "no GPU" in capsys.readouterr().err


def test_a_listener_fits_a_card_of_six_gigabytes() -> None:
    """Counted in full size: at most 4.5 GiB, the rest is for libraries and the driver."""
    for window in (MuCodec.decoder_window, RELEASE):
        weights, most = listener_bytes(window)
        assert 1.9 * GIB < weights < 2.1 * GIB
        assert most > 0.3 * GIB
        assert weights + most <= 4.5 * GIB
