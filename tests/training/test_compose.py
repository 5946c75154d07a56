"""The composer of training music: repeatable, varied, and renderable."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")
mido = pytest.importorskip("mido", reason="needs the `train` extra")
pytest.importorskip("scipy", reason="needs the `train` extra")
pytest.importorskip("tqdm", reason="needs the `train` extra")
soundfile = pytest.importorskip("soundfile")

from tests import ROOT  # noqa: E402
from training import render  # noqa: E402
from training.compose import compose, guest_program  # noqa: E402
from training.drums import GROOVES, TRIPLE  # noqa: E402
from training.master import master  # noqa: E402
from training.score import DRUM_CHANNEL, Score  # noqa: E402
from training.styles import POOLS, STYLES  # noqa: E402
from training.synth import note_events, synth_layer  # noqa: E402

MANY = 320


@functools.cache
def piece(seed: int):
    return compose(seed)


def programs(seed: int) -> set[int]:
    return {
        m.program
        for m in piece(seed).tracks[0]
        if m.type == "program_change" and m.channel != DRUM_CHANNEL
    }


def kits(seed: int) -> set[int]:
    return {
        m.program
        for m in piece(seed).tracks[0]
        if m.type == "program_change" and m.channel == DRUM_CHANNEL
    }


def fonts_present() -> bool:
    try:
        render.find_soundfonts()
    except render.MissingToolError:
        return False
    return True


@pytest.mark.parametrize("seed", [0, 7, 1_000_000])
def test_same_seed_same_piece(seed):
    first, second = compose(seed).tracks[0], compose(seed).tracks[0]
    assert list(first) == list(second)


def test_different_seeds_differ():
    assert list(piece(1).tracks[0]) != list(piece(2).tracks[0])


def test_every_program_and_kit_is_reached():
    seen = set().union(*(programs(s) for s in range(MANY)))
    assert seen == set(range(128))
    assert set().union(*(kits(s) for s in range(MANY))) >= {0, 8, 16, 24, 25, 32, 40, 48}


def test_guests_walk_through_all_programs():
    assert {guest_program(s) for s in range(128)} == set(range(128))


def test_pieces_are_long_enough_and_not_empty():
    for seed in range(60):
        midi = piece(seed)
        notes = sum(m.type == "note_on" for m in midi.tracks[0])
        assert 60 < midi.length < 120, seed
        assert notes >= 20, seed


def test_every_note_is_released():
    for seed in range(30):
        sounding = set()
        for message in piece(seed).tracks[0]:
            if message.type == "note_on":
                assert (message.channel, message.note) not in sounding, seed
                sounding.add((message.channel, message.note))
            elif message.type == "note_off":
                sounding.discard((message.channel, message.note))
        assert not sounding


def test_variety_of_tempo_and_texture():
    tempi = [next(m.tempo for m in piece(s).tracks[0] if m.type == "set_tempo") for s in range(200)]
    bpm = [mido.tempo2bpm(t) for t in tempi]
    assert min(bpm) < 65
    assert max(bpm) > 165
    assert any(not programs(s) for s in range(MANY)), "drums alone"
    assert any(len(programs(s)) == 1 for s in range(MANY)), "one instrument alone"
    assert any(len(programs(s)) >= 7 for s in range(MANY)), "many instruments"


def test_catalogue_is_consistent():
    used = {pool for style in STYLES for _, pool, _ in style.slots}
    assert used <= {*POOLS, "any"}
    for style in STYLES:
        assert set(style.grooves) <= set(GROOVES), style.name
        assert style.tempo[0] < style.tempo[1]
    for name, groove in GROOVES.items():
        lengths = {len(pattern) for pattern in groove.values()}
        assert lengths == {12 if name in TRIPLE else 16}, name


def test_swing_delays_offbeats_and_keeps_beats():
    score = Score(120, swing=0.33)
    assert score._swung(2.0) == pytest.approx(2.0)
    assert score._swung(2.5) == pytest.approx(2.665)
    assert score._swung(2.99) < 3.0


@pytest.mark.parametrize("seed", range(8))
def test_master_is_finite_and_within_full_scale(seed):
    rng = np.random.default_rng(seed)
    time = np.arange(4 * 48000) / 48000
    tone = np.sin(2 * np.pi * 220 * time)[:, None] * [0.3, 0.2]
    audio = master(rng, (tone + rng.normal(0, 0.02, tone.shape)).astype(np.float32))
    level = 20 * np.log10(np.sqrt(np.mean(audio**2)))
    assert audio.shape == (4 * 48000, 2)
    assert audio.dtype == np.float32
    assert np.isfinite(audio).all()
    assert np.abs(audio).max() <= 1.0
    assert -60 < level < -6


def test_silence_stays_finite():
    audio = master(np.random.default_rng(3), np.zeros((48000, 2), np.float32))
    assert np.isfinite(audio).all()


def test_synth_layer_follows_the_piece():
    midi = piece(5)
    assert note_events(midi)
    layer = synth_layer(np.random.default_rng(5), midi, 20 * 48000)
    assert layer.shape == (20 * 48000, 2)
    assert np.isfinite(layer).all()
    assert np.abs(layer).max() > 0


def test_missing_fluidsynth_is_one_sentence(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert render.main(["--out", str(tmp_path / "set")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "apt install fluidsynth" in lines[0]
    assert not (tmp_path / "set").exists()


def test_missing_soundfont_names_its_package(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda _: "/bin/true")
    monkeypatch.setattr(render, "SOUND_FOLDERS", (tmp_path,))
    assert render.main(["--out", str(tmp_path / "set")]) == 2
    assert "fluid-soundfont-gm" in capsys.readouterr().err


def test_existing_files_are_skipped(monkeypatch, tmp_path):
    (tmp_path / "00000.wav").write_bytes(b"kept")
    assert render.render_set(tmp_path, 75, 0, 1) == 0
    assert (tmp_path / "00000.wav").read_bytes() == b"kept"


@pytest.mark.skipif(not fonts_present(), reason="fluidsynth or a soundfont is not installed")
def test_rendered_piece_is_written_whole(tmp_path: Path):
    assert render.render_set(tmp_path, 75, 2_000_000, 1) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["00000.wav"]
    audio, rate = soundfile.read(tmp_path / "00000.wav", always_2d=True)
    assert rate == 48000
    assert audio.shape[1] == 2
    assert len(audio) > 30 * rate
    assert np.isfinite(audio).all()
    assert 0.003 < np.sqrt(np.mean(audio**2)) < 0.5


def test_bundled_track_is_as_promised():
    path = ROOT / "streaming" / "data" / "demo.ogg"
    audio, rate = soundfile.read(path, always_2d=True)
    level = 20 * np.log10(np.sqrt(np.mean(audio**2)))
    assert rate == 48000
    assert audio.shape[1] == 2
    assert 60 <= len(audio) / rate <= 90
    assert path.stat().st_size < 2_000_000
    assert -18 < level < -14
    assert np.abs(audio[-480:]).max() < 0.01
