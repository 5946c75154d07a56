"""The comparison with EnCodec's architecture runs and says what it promises, never how fast."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from benchmarks import encodec_speed


def test_both_codecs_are_measured_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers", reason="the extra `compare` is not installed")
    encodec_speed.main(["--seconds=1", "--passes=1", "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert figures["rtf"].keys() == {
        f"{who} {way}" for who in ("nano", "EnCodec") for way in ("encode", "decode")
    }
    assert all(value > 0 for value in figures["rtf"].values())
    for way, ratio in figures["encodec_over_nano"].items():
        rtf = figures["rtf"]
        assert ratio == pytest.approx(rtf[f"EnCodec {way}"] / rtf[f"nano {way}"])


def test_the_architecture_is_the_published_one() -> None:
    pytest.importorskip("transformers", reason="the extra `compare` is not installed")
    model = encodec_speed.random_encodec()
    assert model.config.hop_length == 320
    assert model.config.chunk_stride == 47_520
    with torch.inference_mode():
        coded = model.encode(torch.randn(1, 2, 96_000), bandwidth=3.0)
    # Three segments (one second each, overlapping by a hundredth), two codebooks, 150 a second.
    assert list(coded.audio_codes.shape) == [3, 1, 2, 150]


def test_figures_become_a_table() -> None:
    rtf = {"nano encode": 0.1, "EnCodec encode": 0.2, "nano decode": 0.1, "EnCodec decode": 0.05}
    text = encodec_speed.table(
        {
            "weights": "nano-0",
            "threads": 1,
            "seconds": 20,
            "passes": 5,
            "rtf": rtf,
            "encodec_over_nano": {"encode": 2.0, "decode": 0.5},
        }
    )
    lines = text.splitlines()
    assert "nano-0 beside EnCodec" in lines[0]
    assert lines[2].split() == ["encode", "0.1000", "0.2000", "2.00"]
    assert lines[3].split() == ["decode", "0.1000", "0.0500", "0.50"]


def test_without_the_extra_one_sentence_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(SystemExit) as exit_info:
        encodec_speed.main(["--seconds=1"])
    assert exit_info.value.code == 2
    assert "pip install '.[compare]'" in capsys.readouterr().err.splitlines()[-1]
