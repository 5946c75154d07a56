"""The whole way from nothing to nano's weights: music, features, three trainings, one file.

``python -m training.train_all`` (or ``make train``) takes about two hours on two CPU cores and 4 GB
of disk. Each stage is a program of its own and goes on where it was interrupted, so this one may be
started again at any time; a stage that is complete is passed over quickly.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Plan", "main", "stages"]

HELD_OUT_SEED = 900_000


@dataclass(frozen=True)
class Plan:
    """Where everything goes and how much of it; steps are optimiser steps."""

    folder: Path
    out: Path
    seconds: float = 16_200.0
    held_seconds: float = 720.0
    codec_steps: int = 9000
    vocoder_steps: int = 1500
    fit_steps: int = 800
    flow_steps: int = 1500


Command = list[str]


def stages(plan: Plan) -> list[tuple[str, list[Command]]]:
    """Name and commands of every stage; the commands of one stage run side by side."""
    music, held = plan.folder / "music", plan.folder / "held"
    features, held_features = plan.folder / "music-features", plan.folder / "held-features"
    codec, vocoder, fitted, flow = (
        plan.folder / name for name in ("codec", "vocoder", "vocoder-fitted", "flow")
    )
    codec_weights = codec / "averaged.pt"

    def command(module: str, **options: object) -> Command:
        given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        return [sys.executable, "-m", f"training.{module}", *given]

    return [
        ("rendering the music", [command("render", out=music, seconds_total=plan.seconds)]),
        (
            "rendering music to hold out",
            [command("render", out=held, seconds_total=plan.held_seconds, seed=HELD_OUT_SEED)],
        ),
        (
            "analysing",
            [
                command("dataset", music=music, out=features),
                command("dataset", music=held, out=held_features),
            ],
        ),
        (
            "training codec and vocoder",
            [
                command(
                    "train_codec",
                    features=features,
                    valid=held_features,
                    out=codec,
                    steps=plan.codec_steps,
                    threads=1,
                ),
                command(
                    "train_vocoder",
                    music=music,
                    valid=held,
                    out=vocoder,
                    steps=plan.vocoder_steps,
                    threads=1,
                ),
            ],
        ),
        (
            "training the flow, fitting the vocoder to decoded features",
            [
                command(
                    "train_flow",
                    features=features,
                    valid=held_features,
                    codec=codec_weights,
                    out=flow,
                    steps=plan.flow_steps,
                    threads=1,
                ),
                command(
                    "train_vocoder",
                    music=music,
                    valid=held,
                    features=features,
                    codec=codec_weights,
                    init=vocoder / "averaged.pt",
                    out=fitted,
                    steps=plan.fit_steps,
                    rate=5e-4,
                    threads=1,
                ),
            ],
        ),
        (
            "exporting",
            [
                command(
                    "export",
                    codec=codec_weights,
                    flow=flow / "averaged.pt",
                    vocoder=fitted / "averaged.pt",
                    out=plan.out,
                    gain_db=1.5,  # what brought nano-2 to its originals' level
                )
            ],
        ),
    ]


def run_stage(commands: Sequence[Command]) -> bool:
    """Run commands side by side; whether all succeeded."""
    running = [subprocess.Popen(command) for command in commands]
    try:
        codes = [process.wait() for process in running]
    except BaseException:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
        raise
    return not any(codes)


def main(argv: Sequence[str] | None = None) -> int:
    defaults = Plan(Path(), Path())
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("training", "runs", "nano"))
    parser.add_argument("--out", type=Path, help="weights file (default: in the folder)")
    parser.add_argument("--seconds", type=float, default=defaults.seconds, help="music to render")
    parser.add_argument("--held-seconds", type=float, default=defaults.held_seconds)
    parser.add_argument("--codec-steps", type=int, default=defaults.codec_steps)
    parser.add_argument("--vocoder-steps", type=int, default=defaults.vocoder_steps)
    parser.add_argument("--fit-steps", type=int, default=defaults.fit_steps)
    parser.add_argument("--flow-steps", type=int, default=defaults.flow_steps)
    args = parser.parse_args(argv)
    plan = Plan(
        args.folder,
        args.out or args.folder / "nano.safetensors",
        args.seconds,
        args.held_seconds,
        args.codec_steps,
        args.vocoder_steps,
        args.fit_steps,
        args.flow_steps,
    )
    plan.folder.mkdir(parents=True, exist_ok=True)
    for name, commands in stages(plan):
        print(f"== {name}", flush=True)
        if not run_stage(commands):
            print(f"train_all: {name} failed; start again to go on from there", file=sys.stderr)
            return 1
    print("To use the new weights, copy the file to codec/nano/ and its digest to codec.py there.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
