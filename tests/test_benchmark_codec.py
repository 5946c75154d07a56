"""The codec benchmark runs and says what it promises; how fast it is, is not tested."""

from __future__ import annotations

import json

import pytest

from benchmarks import codec


def test_codec_benchmark_prints_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    codec.main(["--seconds=2", "--passes=1", "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert figures["codec"] == "nano"
    assert {"encode, default windows", "decode, default windows"} <= figures["rtf"].keys()
    assert {"features", "flow, one evaluation", "vocoder"} <= figures["rtf"].keys()
    assert all(value > 0 for value in figures["rtf"].values())


def test_codec_benchmark_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    codec.main(["--seconds=2", "--passes=1", "--codec=nano", "--steps=1"])
    assert "encode + decode, default" in capsys.readouterr().out
