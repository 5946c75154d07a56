"""The quality benchmark runs on a recording and refuses what holds none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import quality
from tests.rendition import SONGS


def test_every_measure_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    quality.main([str(SONGS[0]), "--seconds=3", "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert figures["files"] == [str(SONGS[0])]
    assert figures["mean"].keys() == {"decoded", "copy", "shuffled", "half shuffled"}
    assert all(row.keys() == quality.MEASURES.keys() for row in figures["mean"].values())
    assert figures["mean"]["decoded"]["log_mel"] < figures["mean"]["shuffled"]["log_mel"]


def test_nothing_to_measure_is_said_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in (tmp_path, tmp_path / "none.wav"):
        with pytest.raises(SystemExit) as exit_info:
            quality.main([str(place)])
        assert exit_info.value.code == 2
        assert f"there is no recording (.wav, .flac, .ogg, .mp3, .opus) in {place}" in (
            capsys.readouterr().err
        )
