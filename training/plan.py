"""What a whole training consists of: its stages, each of one or more commands."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
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
    """Optimiser steps of each training; a fine-tuning leaves vocoder and plain flow alone."""

    codec: int = 9500
    vocoder: int = 1500
    flow: int = 1500
    texture: int = 1500


FINE_TUNING = Steps(codec=2000, vocoder=0, flow=0, texture=400)
_SHARES = {"codec": 0.6, "flow": 0.12, "texture": 0.28}
"""Of the time, if that is what is given; the vocoder's training runs beside the codec's."""


@dataclass(frozen=True)
class Plan:
    """Where everything goes, what it is made of and how much of it.

    Attributes:
        data: a folder of the user's music; None renders music.
        fine_tune: start from the bundled weights.
        minutes: for all trainings together, instead of steps.
        versions: in which every recording is analysed.
    """

    folder: Path
    out: Path
    seconds: float = 16_200.0
    held_seconds: float = 720.0
    steps: Steps = Steps()
    minutes: float | None = None
    versions: int = 1
    data: Path | None = None
    fine_tune: bool = False
    device: str = "auto"
    compiled: bool | None = None
    tensorboard: bool = False
    sample_every: int = 1000

    @property
    def music(self) -> Path:
        """Where the training music is."""
        return self.folder / "music"

    @property
    def held(self) -> Path:
        """Where the held-out music is."""
        return self.folder / "held"

    @property
    def needed_s(self) -> float:
        """Less music of the user's own than this is refused."""
        return 120.0 if self.fine_tune else 1200.0

    def length(self, name: str) -> dict[str, object]:
        """Options that say how long one of the trainings takes."""
        if self.minutes is None:
            return {"steps": getattr(self.steps, name)}
        share = {k: v for k, v in _SHARES.items() if getattr(self.steps, k)}
        mine = share["codec" if name == "vocoder" else name]
        return {"minutes": round(self.minutes * mine / sum(share.values()), 4)}


def _command(module: str, **options: object) -> Command:
    """A program of this package.

    Options that are True are flags, those that are False or None left out, lists given once an
    item.
    """
    words = [sys.executable, "-m", f"training.{module}"]
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif value is not False and value is not None:
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
    analysis = {"device": plan.device}
    analyse = [
        _command(
            "dataset",
            music=music,
            out=plan.folder / "music-features",
            **analysis,
            versions=plan.versions,
        ),
        _command("dataset", music=held, out=plan.folder / "held-features", **analysis),
    ]
    return [*made, Stage("analysing", analyse)]


def training_stages(plan: Plan) -> list[Stage]:
    """The trainings, from scratch or from the bundled weights."""
    tune = plan.fine_tune
    codec = plan.folder / "codec" / "averaged.pt"
    vocoder: object = "bundled" if tune else plan.folder / "vocoder" / "averaged.pt"
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
    threads = min(2, os.cpu_count() or 1)

    def training(name: str, **options: object) -> Command:
        out = plan.folder / name
        return _command(f"train_{name}", out=out, **plan.length(name), **options, **shared)

    after = {**features, "codec": codec, "vocoder": vocoder, "threads": threads}
    if tune:
        tuned = training(
            "codec", **features, vocoder=vocoder, init="bundled", rate=3e-4, threads=threads
        )
        return [
            Stage("fine-tuning the codec", [tuned]),
            Stage("fine-tuning the flow", [training("texture", **after, init="bundled")]),
        ]
    sound = {"music": plan.music, "valid": plan.held}
    side_by_side = [
        training("codec", **features, threads=1),
        training("vocoder", **sound, threads=1),
    ]
    flow = plan.folder / "flow" / "averaged.pt"
    return [
        Stage("training codec and vocoder", side_by_side),
        Stage("training the flow", [training("flow", **after)]),
        Stage(
            "training the flow to need one evaluation", [training("texture", **after, init=flow)]
        ),
    ]


def export_stage(plan: Plan, **card: object) -> Stage:
    """One file of it all; ``card`` is what the model card says."""
    vocoder: object = "bundled" if plan.fine_tune else plan.folder / "vocoder" / "averaged.pt"
    export = _command(
        "export",
        codec=plan.folder / "codec" / "averaged.pt",
        flow=plan.folder / "texture" / "averaged.pt",
        vocoder=vocoder,
        out=plan.out,
        **card,
    )
    return Stage("exporting", [export])


def stages(plan: Plan) -> list[Stage]:
    """Everything in order."""
    return [*data_stages(plan), *training_stages(plan), export_stage(plan)]
