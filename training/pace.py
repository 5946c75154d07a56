"""How long the trainings will take on this machine, from a few steps of each."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from streaming.errors import SettingsError
from training.curves import read_log
from training.plan import Plan, Stage, Steps, out_of, training_stages

__all__ = ["Pace", "measure", "steps_within"]

PROBE_STEPS = 6
_MARGIN = 1.15
"""For what a few steps do not show: validation, samples, checkpoints."""
_LONGEST = 3.0
"""Given much time, trainings become longer by this factor at most; beyond, little is learnt."""
_LEAST = 20


@dataclass(frozen=True)
class Pace:
    """Seconds before the first step and of each step, by run."""

    setup_s: dict[str, float]
    step_s: dict[str, float]

    def seconds(self, plan: Plan) -> float:
        """All trainings of a plan; those of one stage run side by side."""
        total = 0.0
        for stage in training_stages(plan):
            total += max(self._command(command) for command in stage.commands)
        return total * _MARGIN

    def _command(self, command: list[str]) -> float:
        run = out_of(command).name
        steps = next(int(word[8:]) for word in command if word.startswith("--steps="))
        return self.setup_s[run] + steps * self.step_s[run]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> Pace:
        return cls(**json.loads(path.read_text()))


def measure(plan: Plan, perform: Callable[[Stage], None]) -> Pace:
    """Let ``perform`` run a few steps of every training.

    What was measured once is kept in ``pace.json``, so that a training that is started again keeps
    its number of steps.
    """
    file = plan.folder / "pace.json"
    if file.exists():
        return Pace.load(file)
    probe = plan.probe(PROBE_STEPS)
    shutil.rmtree(plan.folder / "pace", ignore_errors=True)
    pace = Pace({}, {})
    for stage in training_stages(probe):
        began = time.monotonic()
        perform(stage)
        taken = time.monotonic() - began
        for command in stage.commands:
            out = out_of(command)
            step_s = read_log(out)[-1]["step_s"]
            pace.step_s[out.name] = step_s
            pace.setup_s[out.name] = round(max(0.0, taken - PROBE_STEPS * step_s), 1)
    pace.save(file)
    shutil.rmtree(plan.folder / "pace", ignore_errors=True)
    return pace


def steps_within(minutes: float, plan: Plan, pace: Pace) -> Steps:
    """The plan's steps, all longer or shorter by one factor, to fill that time.

    Raises SettingsError where it is too short for anything.
    """

    def seconds(factor: float) -> float:
        return pace.seconds(replace(plan, steps=plan.steps.scaled(factor, _LEAST)))

    if seconds(0) > 60 * minutes:
        least = seconds(0) / 60
        raise SettingsError(
            f"{minutes:g} minutes are too few on this machine; give at least {least * 1.5:.0f}"
        )
    low, high = 0.0, _LONGEST
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if seconds(middle) <= 60 * minutes else (low, middle)
    return plan.steps.scaled(low, _LEAST)
