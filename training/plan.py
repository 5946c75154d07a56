"""What a whole training consists of: its stages, each of one or more commands."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "HELD_OUT_SEED",
    "Command",
    "Plan",
    "Stage",
    "Steps",
    "data_stages",
    "export_stage",
    "out_of",
    "stages",
    "training_stages",
]

HELD_OUT_SEED = 900_000
Command = list[str]


class Stage(NamedTuple):
    """A name for the user and commands that run side by side."""

    name: str
    commands: list[Command]


@dataclass(frozen=True)
class Steps:
    """Optimiser steps of each training; a fine-tuning leaves the vocoder alone."""

    codec: int = 9500
    vocoder: int = 1500
    flow: int = 1500
    texture: int = 1500

    def scaled(self, factor: float, least: int = 20) -> Steps:
        """All of them longer or shorter by a factor, none shorter than ``least``."""
        values = (self.codec, self.vocoder, self.flow, self.texture)
        return Steps(*(max(least, round(value * factor)) for value in values))


FINE_TUNING = Steps(codec=2000, vocoder=0, flow=600, texture=400)


@dataclass(frozen=True)
class Plan:
    """Where everything goes, what it is made of and how much of it.

    data: a folder of the user's music; None renders music. fine_tune: start from the bundled
    weights. runs: where the trainings' folders are, if not beside the music.
    """

    folder: Path
    out: Path
    seconds: float = 16_200.0
    held_seconds: float = 720.0
    steps: Steps = Steps()
    data: Path | None = None
    fine_tune: bool = False
    device: str = "auto"
    compiled: bool = False
    tensorboard: bool = False
    sample_every: int = 1000
    runs: Path | None = None

    @property
    def music(self) -> Path:
        return self.folder / "music"

    @property
    def held(self) -> Path:
        return self.folder / "held"

    @property
    def needed_s(self) -> float:
        """Less music of the user's own than this is refused."""
        return 120.0 if self.fine_tune else 1200.0

    def run(self, name: str) -> Path:
        """The folder of one of the trainings."""
        return (self.runs or self.folder) / name

    def probe(self, steps: int) -> Plan:
        """The same trainings for a few steps elsewhere, to see how long a step takes."""
        few = Steps(steps, steps, steps, steps)
        return replace(
            self, runs=self.folder / "pace", steps=few, sample_every=0, tensorboard=False
        )


def _command(module: str, **options: object) -> Command:
    """A program of this package.

    Options that are True are flags, those that are False left out, lists given once an item.
    """
    words = [sys.executable, "-m", f"training.{module}"]
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif value is not False:
            words += [
                f"{option}={item}" for item in (value if isinstance(value, list) else [value])
            ]
    return words


def out_of(command: Command) -> Path:
    """The folder or file that a command writes."""
    return next(Path(word[6:]) for word in command if word.startswith("--out="))


def data_stages(plan: Plan) -> list[Stage]:
    """Music and its features."""
    music, held = plan.music, plan.held
    if plan.data is not None:
        collect = _command(
            "collect", data=plan.data, music=music, held=held, needed_seconds=plan.needed_s
        )
        made = [Stage("reading the music", [collect])]
    else:
        rest = _command("render", out=held, seconds_total=plan.held_seconds, seed=HELD_OUT_SEED)
        made = [
            Stage(
                "rendering the music", [_command("render", out=music, seconds_total=plan.seconds)]
            ),
            Stage("rendering music to hold out", [rest]),
        ]
    analyse = [
        _command("dataset", music=folder, out=features, device=plan.device)
        for folder, features in (
            (music, plan.folder / "music-features"),
            (held, plan.folder / "held-features"),
        )
    ]
    return [*made, Stage("analysing", analyse)]


def training_stages(plan: Plan) -> list[Stage]:
    """The trainings, from scratch or from the bundled weights."""
    steps, tune = plan.steps, plan.fine_tune
    codec = plan.run("codec") / "averaged.pt"
    vocoder: object = "bundled" if tune else plan.run("vocoder") / "averaged.pt"
    shared = {
        "device": plan.device,
        "compile": plan.compiled,
        "tensorboard": plan.tensorboard,
        "sample_every": plan.sample_every,
    }
    features = {
        "features": plan.folder / "music-features",
        "valid": plan.folder / "held-features",
        "listen": plan.held,
    }
    sound = {"music": plan.music, "valid": plan.held}

    def training(module: str, name: str, count: int, **options: object) -> Command:
        if tune:
            options = {"init": "bundled", **options}
        if tune or steps != Steps():
            # Averaged over about the last tenth; over 1000 steps, what is short would hardly move.
            options["average"] = min(0.999, round(1 - 10 / max(count, 20), 5))
        out = plan.run(name)
        return _command(module, out=out, steps=count, **{"threads": 1, **options, **shared})

    threads = min(2, os.cpu_count() or 1)
    flow = training(
        "train_flow",
        "flow",
        steps.flow,
        **features,
        codec=codec,
        vocoder=vocoder,
        threads=threads,
        **({"rate": 2e-4} if tune else {}),
    )
    texture = training(
        "train_texture",
        "texture",
        steps.texture,
        **features,
        codec=codec,
        vocoder=vocoder,
        init=plan.run("flow") / "averaged.pt",
        threads=threads,
    )
    rest = [
        Stage("training the flow", [flow]),
        Stage("training the flow to need one evaluation", [texture]),
    ]
    if tune:
        first = training(
            "train_codec",
            "codec",
            steps.codec,
            **features,
            vocoder=vocoder,
            rate=3e-4,
            threads=threads,
        )
        return [Stage("fine-tuning the codec", [first]), *rest]
    side_by_side = [
        training("train_codec", "codec", steps.codec, **features),
        training("train_vocoder", "vocoder", steps.vocoder, **sound),
    ]
    return [Stage("training codec and vocoder", side_by_side), *rest]


def export_stage(plan: Plan, **card: object) -> Stage:
    """One file of it all; ``card`` is what the model card says."""
    vocoder: object = "bundled" if plan.fine_tune else plan.run("vocoder") / "averaged.pt"
    export = _command(
        "export",
        codec=plan.run("codec") / "averaged.pt",
        flow=plan.run("texture") / "averaged.pt",
        vocoder=vocoder,
        out=plan.out,
        **card,
    )
    return Stage("exporting", [export])


def stages(plan: Plan) -> list[Stage]:
    """Everything in order."""
    return [*data_stages(plan), *training_stages(plan), export_stage(plan)]
