"""The codec benchmark runs and says what it promises; how fast it is, is not tested."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import codec, mucodec
from codec.mucodec.codec import MuCodec
from codec.mucodec.config import Precision
from tests.support.tiny_mucodec import TINY


def test_codec_benchmark_prints_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    codec.main(["--seconds=2", "--passes=1", "--engine=torch", "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert figures["codec"] == "nano"
    assert {"encode, default windows", "decode, default windows"} <= figures["rtf"].keys()
    assert {"features", "flow, one evaluation", "vocoder"} <= figures["rtf"].keys()
    assert all(value > 0 for value in figures["rtf"].values())


def test_codec_benchmark_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    codec.main(["--seconds=2", "--passes=1", "--codec=nano", "--steps=1"])
    assert "encode + decode, default" in capsys.readouterr().out


@pytest.fixture
def tiny_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published layout at a size that takes no time; what is measured stays the same."""
    real = mucodec.random_codec

    def small(
        _: object, device: torch.device, precision: Precision, compiled: bool | None
    ) -> MuCodec:
        return real(TINY, device, precision, compiled=compiled)

    monkeypatch.setattr(mucodec, "random_codec", small)


MUCODEC = ["--codec=mucodec", "--random-weights", "--passes=1", "--steps=1", "--torch-device=cpu"]


@pytest.mark.usefixtures("tiny_weights")
def test_mucodec_benchmark_measures_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    codec.main([*MUCODEC, "--streams=2", "--json"])
    figures = json.loads(capsys.readouterr().out)
    stages = {row["name"]: row for row in figures["stages"]}
    assert {"flow, one evaluation", "VAE", "vocoder", "encode, live windows"} <= stages.keys()
    assert all(row["rtf"] > 0 and row["tflop"] > 0 and row["share"] > 0 for row in stages.values())
    assert figures["decode_rtf"].keys() == {
        "live windows",
        "live windows, 2 streams together",
    }
    assert figures["first_sound_s"] > 0


@pytest.mark.usefixtures("tiny_weights")
def test_mucodec_benchmark_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    codec.main([*MUCODEC, "--window-tokens=1024"])
    table = capsys.readouterr().out
    assert "float32, 1 flow layers" in table
    assert "decode, release windows, 1 steps" in table
