"""The demonstration's parts: spectrograms, programs as processes, checks, the closing line."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import pytest
import soundfile

from codec.constants import SAMPLE_RATE
from scripts import branches, demo
from scripts.picture import draw, log_spectrogram
from scripts.processes import Program, ProgramError, free_port, read_stats


def sine(hertz: float, seconds: float = 1.0, level: float = 0.5) -> np.ndarray:
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    wave = level * np.sin(2 * np.pi * hertz * t)
    return np.stack([wave, wave]).astype(np.float32)


@pytest.mark.parametrize("hertz", [55.0, 440.0, 990.0, 3520.0, 12_000.0])
def test_spectrogram_shows_a_tone_at_its_place_and_level(hertz):
    edges, levels = log_spectrogram(sine(hertz))
    middle = levels[:, levels.shape[1] // 2]
    band = int(middle.argmax())
    width = 48_000 / 8192 if hertz < 1000 else 48_000 / 2048
    assert edges[band] - width <= hertz <= edges[band + 1] + width
    assert middle[band] == pytest.approx(-6.0, abs=1.5)


def test_spectrogram_has_a_hundred_frames_a_second_and_hears_antiphase():
    audio = sine(440.0, 0.5)
    audio[1] *= -1
    _, levels = log_spectrogram(audio)
    assert levels.shape[1] == 50
    assert levels.max() > -10.0


def test_picture_is_drawn(tmp_path):
    labels = {"title": "title", "source_label": "source", "result_label": "result"}
    draw(tmp_path / "picture.png", sine(440.0), sine(880.0), **labels)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_source_is_read_from_the_position_asked_for_and_loops(tmp_path):
    song = tmp_path / "song.wav"
    ramp = np.linspace(-0.5, 0.5, 6000, dtype=np.float32)
    soundfile.write(song, np.stack([ramp, ramp], axis=1), SAMPLE_RATE, subtype="FLOAT")
    part = demo.read_source(song, 5000, 3000)
    np.testing.assert_array_equal(part[0], np.concatenate([ramp[5000:], ramp[:2000]]))


def test_result_of_the_right_length_passes(tmp_path):
    path = tmp_path / "demo.wav"
    soundfile.write(path, sine(440.0).T, SAMPLE_RATE)
    assert demo.check_result(path, 1.0).shape == (2, SAMPLE_RATE)


@pytest.mark.parametrize(
    ("audio", "problem"),
    [(sine(440.0, 0.5), "should hold"), (sine(440.0, level=0.0), "silent")],
)
def test_result_that_cannot_be_right_is_reported(tmp_path, audio, problem):
    path = tmp_path / "demo.wav"
    soundfile.write(path, audio.T, SAMPLE_RATE)
    with pytest.raises(ProgramError, match=problem):
        demo.check_result(path, 1.0)


def test_summary_names_every_figure():
    client = {
        "tokens": 500,
        "payload_bits_per_s": 350.2,
        "wire_bits_per_s": 603.6,
        "first_audio_s": 0.123,
        "latency_s": None,
        "underruns": 0,
        "lost_tokens": 0,
        "decode_rtf": 0.2,
    }
    line = demo.summary(client, {"encode_rtf": 0.04})
    for part in ("500 tokens", "350 bit/s", "604 bit/s", "0.12 s", "unknown", "0.040", "0.200"):
        assert part in line


def test_missing_song_ends_with_one_sentence(tmp_path, capsys):
    assert demo.main(["--song", str(tmp_path / "none.ogg"), "--out-dir", str(tmp_path)]) == 1
    assert "none.ogg" in capsys.readouterr().err


def test_statistics_are_read_without_the_line_being_written(tmp_path):
    path = tmp_path / "stats.jsonl"
    assert read_stats(path) == []
    path.write_text(json.dumps({"tokens": 1}) + '\n{"tok')
    assert read_stats(path) == [{"tokens": 1}]


def test_program_that_ends_early_is_noticed_with_its_last_words(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("print('no luck')")
    with (
        Program([script], log=tmp_path / "log") as program,
        pytest.raises(ProgramError, match=r"before anything\s+no luck"),
    ):
        program.wait_for(lambda: False, "anything")


def test_program_that_does_not_get_there_is_noticed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import time; time.sleep(60)")
    with Program([script], log=tmp_path / "log") as program:
        with pytest.raises(ProgramError, match="within 0 s"):
            program.wait_for(lambda: False, "anything", timeout_s=0.0)
        with pytest.raises(ProgramError, match="did not end"):
            program.wait(0.0)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to ignore")
def test_program_that_ignores_ctrl_c_and_sigterm_is_ended_all_the_same(tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text(
        "import signal, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr("scripts.processes._PATIENCE_S", 0.1)
    with Program([script], log=tmp_path / "log") as program:
        while "ready" not in program.tail():
            time.sleep(0.01)
    assert program.process.returncode != 0


def test_program_cannot_be_used_before_it_is_started():
    with pytest.raises(RuntimeError, match="not started"):
        _ = Program(["server.py"]).process


def test_free_port_can_be_listened_on():
    assert 0 < free_port() < 65_536


@pytest.mark.parametrize(("covered", "code"), [(95, 0), (94, 1), (0, 1)])
def test_too_few_covered_branches_fail(tmp_path, capsys, covered, code):
    report = tmp_path / "coverage.json"
    report.write_text(json.dumps({"totals": {"covered_branches": covered, "num_branches": 100}}))
    assert branches.main([str(report), "95"]) == code
    assert f"{covered} of 100" in capsys.readouterr().out


@pytest.mark.slow
def test_the_whole_demonstration(tmp_path, capfd):
    assert demo.main(["--seconds", "5", "--out-dir", str(tmp_path)]) == 0
    assert soundfile.info(tmp_path / "demo.wav").frames == 5 * SAMPLE_RATE
    assert (tmp_path / "demo.png").exists()
    assert "Summary: " in capfd.readouterr().out.splitlines()[-1]
