"""How soon a listener is connected, measured with the programs themselves."""

from __future__ import annotations

import json

import pytest

from benchmarks import start


@pytest.mark.system
def test_each_engine_is_started_and_measured(capsys):
    assert start.main(["--runs", "1", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures.keys() == start.ENGINES.keys()
    for engine in figures.values():
        assert engine["connected_s"] > 0
        assert engine["peak_mb"] > 50
    assert figures["onnxruntime"]["peak_mb"] < figures["torch"]["peak_mb"]
