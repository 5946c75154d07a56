"""The chain of training stages."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from training import train_all
from training.train_all import Plan, run_stage, stages

PLAN = Plan(Path("runs"), Path("nano.safetensors"))


def test_every_stage_is_a_program_of_this_project():
    modules = {command[2] for _, commands in stages(PLAN) for command in commands}
    for module in modules:
        assert callable(importlib.import_module(module).main)


def test_held_out_music_has_other_seeds_than_the_training_music():
    pieces = PLAN.seconds / 30  # pieces are longer than that
    assert pieces < train_all.HELD_OUT_SEED


def test_a_stage_fails_when_one_of_its_commands_does():
    good, bad = ([sys.executable, "-c", f"raise SystemExit({code})"] for code in (0, 1))
    assert run_stage([good, good])
    assert not run_stage([good, bad])


def test_the_chain_stops_at_a_stage_that_fails(tmp_path, monkeypatch, capsys):
    ran = []

    def failing(commands):
        ran.append(commands)
        return False

    monkeypatch.setattr(train_all, "run_stage", failing)
    assert train_all.main(["--folder", str(tmp_path / "runs")]) == 1
    assert len(ran) == 1
    assert "rendering the music failed" in capsys.readouterr().err
