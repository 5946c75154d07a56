"""The whole way from nothing to nano's weights: music, features, trainings, one file.

``python -m training.train_all`` (or ``make train``) takes two to three hours on two CPU cores, and
5 GB of disk. Each stage is its own program and resumes where it was interrupted, so this one
may be started again at any time; a stage that is complete is passed over quickly. ``--data FOLDER``
trains on music of one's own, ``--fine-tune`` from the bundled weights on. docs/training.md says
more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from streaming.cli.common import number
from streaming.errors import SettingsError, UserError
from training.card import BUNDLED_LICENSE
from training.collect import extent
from training.plan import (
    FINE_TUNING,
    Command,
    Plan,
    Stage,
    Steps,
    data_stages,
    export_stage,
    training_stages,
)
from training.works import LIST_NAME

__all__ = ["StageFailed", "main", "run_stage"]

_RUNS = Path("training", "runs")


class StageFailed(Exception):  # noqa: N818 (it has said itself what the fault is)
    """A stage ended with an exit code other than 0."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(name)
        self.code = code


def run_stage(commands: Sequence[Command]) -> int:
    """Run commands side by side; 0, or the exit code of one that failed."""
    running = [subprocess.Popen(command) for command in commands]
    try:
        codes = [process.wait() for process in running]
    except BaseException:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
        raise
    return next((code for code in codes if code), 0)


def _perform(stage: Stage) -> None:
    print(f"== {stage.name}", flush=True)
    if code := run_stage(stage.commands):
        raise StageFailed(stage.name, code)


def _same_run(plan: Plan) -> None:
    """Refuse to go on in a folder with something else; SettingsError says with what."""
    file = plan.folder / "plan.json"
    own = {
        "data": None if plan.data is None else str(plan.data.resolve()),
        "fine_tune": plan.fine_tune,
    }
    if not file.exists():
        file.write_text(json.dumps(own, indent=1))
        return
    begun = json.loads(file.read_text())
    if begun != own:
        what = f"music from {begun['data']}" if begun["data"] else "rendered music"
        how = "fine-tuning" if begun["fine_tune"] else "training from scratch"
        raise SettingsError(
            f"{plan.folder} holds a {how} with {what}; go on with that, or name another --folder"
        )


def _card(plan: Plan, works: Sequence[Path]) -> dict[str, str]:
    """What the model card says about the music; never its path on the user's disk."""
    words = ["python -m training.train_all"]
    data: dict[str, str] = {}
    if plan.data is not None:
        count, seconds = extent(plan.music)
        whose = "with those listed as works among them" if works else "of the user's own"
        words.append("--data FOLDER")
        data["data"] = f"{count} recordings {whose}, {seconds / 3600:.1f} hours"
        data["license"] = "as far as the rights to the music that it was trained on allow"
    if plan.fine_tune:
        words.append("--fine-tune")
        data["data"] = data.get("data", "rendered music") + ", going on from the bundled weights"
        data["license"] = ", ".join([BUNDLED_LICENSE, *filter(None, [data.get("license")])])
    if plan.minutes is not None:
        words.append(f"--minutes {plan.minutes:g}")
    else:
        words += [f"--{key}-steps {value}" for key, value in asdict(plan.steps).items() if value]
    return {"command": " ".join(words), **data}


def train_all(plan: Plan) -> None:
    """Everything in order; StageFailed or SettingsError say what was in the way."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    _same_run(plan)
    for stage in data_stages(plan):
        _perform(stage)
    works = [] if plan.data is None else sorted(plan.data.rglob(LIST_NAME))
    export = export_stage(plan, works=works, **_card(plan, works))
    for stage in [*training_stages(plan), export]:
        _perform(stage)
    print(f"\nListen to what {plan.out} makes of music:")
    print(f"  python server.py SONG --weights {plan.out}")
    print(f"  python client.py --weights {plan.out} --play")


def _parser() -> argparse.ArgumentParser:
    defaults, default = Plan(Path(), Path()), Steps()
    parser = argparse.ArgumentParser(
        prog="python -m training.train_all", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--folder", type=Path, help="of all that is made (training/runs/…)")
    parser.add_argument("--out", type=Path, help="weights file (default: in the folder)")
    own = parser.add_argument_group("music of one's own")
    own.add_argument("--data", type=Path, metavar="FOLDER", help="train on the music in there")
    own.add_argument("--fine-tune", action="store_true", help="start from the bundled weights")
    length = parser.add_argument_group("length")
    length.add_argument(
        "--minutes",
        type=number(float, 1, 100_000),
        metavar="N",
        help="let the trainings together take exactly that long, instead of:",
    )
    for name, count in asdict(default).items():
        tuned = getattr(FINE_TUNING, name)
        text = f"({count}; fine-tuning: {tuned or 'none'})"
        length.add_argument(f"--{name}-steps", type=number(int, 1, 10**7), metavar="N", help=text)
    length.add_argument(
        "--seconds", type=float, default=defaults.seconds, help="music to render (%(default)g)"
    )
    length.add_argument("--held-seconds", type=float, default=defaults.held_seconds)
    length.add_argument(
        "--versions",
        type=number(int, 1, 100),
        default=defaults.versions,
        metavar="N",
        help="analyse every recording at so many speeds and mixes (%(default)s)",
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument(
        "--compile", action="store_const", const=True, help="compile, on a CPU as well"
    )
    parser.add_argument("--tensorboard", action="store_true", help="log for TensorBoard as well")
    parser.add_argument("--sample-every", type=int, default=defaults.sample_every, metavar="STEPS")
    return parser


def _plan(args: argparse.Namespace) -> Plan:
    steps = FINE_TUNING if args.fine_tune else Steps()
    given = {name: getattr(args, f"{name}_steps") for name in asdict(steps)}
    name = "own" if args.data is not None else "tuned" if args.fine_tune else "nano"
    folder = args.folder or _RUNS / name
    return Plan(
        folder,
        args.out or folder / f"{folder.name}.safetensors",
        args.seconds,
        args.held_seconds,
        replace(steps, **{name: count for name, count in given.items() if count is not None}),
        args.minutes,
        args.versions,
        args.data,
        args.fine_tune,
        args.device,
        args.compile,
        args.tensorboard,
        args.sample_every,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        train_all(_plan(args))
    except UserError as error:
        print(f"train_all: {error}", file=sys.stderr)
        return 2
    except StageFailed as failure:
        if failure.code == 2:  # it has said in a sentence what to do
            return 2
        print(f"train_all: {failure} failed; start again to go on from there", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("train_all: interrupted; start again to go on from there", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
