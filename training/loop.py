"""The training loop that every stage shares: schedule, averaging, checkpoints, resume, reports.

A run is named by its folder: ``state.pt`` there holds everything needed to go on after an
interruption, ``averaged.pt`` the averaged weights, ``log.jsonl`` one line per report and
``curves.png`` the same as a picture; ``samples/`` what it sounded like.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from streaming.errors import SettingsError
from training.checkpoint import Checkpoint, Progress
from training.device import compiled, wait_for
from training.optimizer import optimizers_of
from training.report import Report

__all__ = ["Listen", "Run", "train"]

logger = logging.getLogger(__name__)

Listen = Callable[[int, nn.Module], dict[str, Tensor]]
"""Given a step and a model of one's own on the CPU, writes samples and returns them by name."""

_WARMUP_STEPS, _WARMUP_PART = 100, 0.2
"""The learning rate rises for so many steps, or that share of the run if it is shorter."""
_HOLD = 0.3
"""From this share of the run on it falls in a line, to the next number."""
_LAST_RATE = 0.01
_CLIP = 1.0
_CHECK = 10
"""Steps between looks at the losses and the clock, for which a graphics card has to be waited."""
_RETURNS = 8
"""A run that has gone back to its last average so often, without success, is given up."""


@dataclass(frozen=True)
class Run:
    """Length and pace of a training run.

    It ends after ``steps`` or, if ``minutes`` are given, so long after ``began`` (by
    ``time.monotonic()``), all that it does included. The other numbers are in steps; ``sample`` 0
    writes no samples.

    Attributes:
        average: the longest that weights are averaged, as a decay per step; it is a tenth of the
            run so far at most.
    """

    folder: Path
    steps: int
    rate: float
    minutes: float | None = None
    began: float = field(default_factory=time.monotonic)
    average: float = 0.999
    report: int = 250
    save: int = 500
    sample: int = 0
    compiled: bool = False
    tensorboard: bool = False


def _averaging(most: float) -> Callable[[Any, Any, Any], None]:
    """Exponential averaging, for :class:`AveragedModel`."""

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], count: Any) -> None:
        if averaged[0].is_floating_point():
            decay = min(most, (1 + int(count)) / (10 + int(count)))
            torch._foreach_lerp_(averaged, current, 1 - decay)
        else:
            torch._foreach_copy_(averaged, current)

    return update


def train(
    run: Run,
    model: nn.Module,
    draw: Callable[[], tuple[Any, ...]],
    losses: Callable[..., dict[str, Tensor]],
    validate: Callable[[nn.Module], dict[str, float]],
    generator: torch.Generator,
    listen: Listen | None = None,
) -> nn.Module:
    """Minimise ``losses(*draw())["total"]`` over the model's parameters; returns their average.

    ``draw`` takes all chance from ``generator``; ``losses`` is a pure function of tensors on the
    model's device, and is what is compiled. ``validate`` gets the averaged model. Called again
    with the same folder, an interrupted run goes on from the last saved step, on a CPU and by
    steps to the same result as one that was never interrupted. If the losses are not finite, the
    weights go back to their last average, and the learning rate is halved; raises SettingsError
    if that does not help.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    averaged = AveragedModel(model, multi_avg_fn=_averaging(run.average), use_buffers=True)
    optimizers = optimizers_of(model, run.rate)
    checkpoint = Checkpoint(run.folder, model, averaged, optimizers, generator)
    progress = checkpoint.load()
    report = Report(run.folder, progress.step, run.tensorboard)
    (run.folder / "run.json").write_text(json.dumps(asdict(run), default=str, indent=1))
    step_of = compiled(losses) if run.compiled else losses
    clock = _Clock(run, progress, generator.device)
    sums = _Sums(progress)
    good = _snapshot(averaged.module)
    returns = 0
    bar = tqdm(total=None if run.minutes else run.steps, initial=progress.step, mininterval=5)
    bar.set_description(run.folder.name)

    def look(reporting: bool, sampling: bool, saving: bool) -> None:
        began = time.monotonic()
        if reporting:
            row = clock.row() | sums.means()
            valid = {f"valid_{k}": round(v, 4) for k, v in validate(averaged.module).items()}
            report.row({"step": progress.step} | row | valid)
            bar.set_postfix(total=row.get("total"), valid=valid.get("valid_total"))
            sums.clear()
        if sampling and listen is not None:
            own = copy.deepcopy(averaged.module).cpu().eval()
            report.sounds(progress.step, listen(progress.step, own))
        if saving:
            progress.seconds = clock.seconds
            sums.store(progress)
            checkpoint.save(progress)
            report.saved()
        if reporting and saving:  # as at the end of the run
            progress.closing_s = max(progress.closing_s, time.monotonic() - began)
        clock.go_on()

    if progress.step == 0:
        look(reporting=True, sampling=run.sample > 0, saving=True)
    looked = True
    while not progress.complete and (part := clock.part(progress.step)) < 1:
        rate = run.rate * progress.slower * _shape(progress.step, part)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
        terms = step_of(*draw())
        terms["total"].backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
        for optimizer in optimizers:
            optimizer.step()
        averaged.update_parameters(model)
        sums.add({**terms, "norm": norm})
        progress.step += 1
        bar.update()
        due = [n > 0 and progress.step % n == 0 for n in (run.report, run.sample, run.save)]
        looked = False
        if progress.step % _CHECK == 0 or any(due) or clock.part(progress.step) >= 1:
            clock.check(progress.step)
            if sums.finite():
                good, returns = _snapshot(averaged.module), 0
            else:
                returns += 1
                if returns > _RETURNS:
                    raise SettingsError(
                        f"the losses in {run.folder} are not finite even at a learning rate of "
                        f"{rate:.2g}; look at the music (python -m training.curves) and at --init"
                    )
                logger.warning("losses are not finite: back to the last average, half the rate")
                progress.slower /= 2
                for module in (model, averaged.module):
                    module.load_state_dict(good)
                for optimizer in optimizers:
                    optimizer.state.clear()
                sums.clear()
        if any(due) and clock.leaves_time():
            look(*due)
            looked = all(due) or (due[0] and due[2] and not run.sample)
    progress.complete = run.minutes is not None
    if not looked:
        look(reporting=True, sampling=run.sample > 0, saving=True)
    bar.close()
    report.close()
    return averaged.module


def _shape(step: int, part: float) -> float:
    """The learning rate at a step, over its highest: up, level, down."""
    rise = max((step + 1) / _WARMUP_STEPS, part / _WARMUP_PART)
    fall = min(1.0, (1 - part) / (1 - _HOLD))
    return min(1.0, rise) * (_LAST_RATE + (1 - _LAST_RATE) * fall)


def _snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


class _Sums:
    """Losses since the last report, summed where they are: reading makes a graphics card wait."""

    def __init__(self, progress: Progress) -> None:
        self._names = list(progress.sums)
        self._values = torch.tensor(list(progress.sums.values()), dtype=torch.float64)
        self._count = progress.counted

    def add(self, terms: dict[str, Tensor]) -> None:
        values = torch.stack([value.detach() for value in terms.values()]).double()
        self._names = list(terms)
        self._values = self._values.to(values.device) + values if self._count else values
        self._count += 1

    def finite(self) -> bool:
        return math.isfinite(float(self._values.sum()))

    def means(self) -> dict[str, float]:
        values = self._values.tolist()
        pairs = zip(self._names, values, strict=True) if self._count else ()
        return {name: round(value / self._count, 4) for name, value in pairs}

    def clear(self) -> None:
        self._count = 0

    def store(self, progress: Progress) -> None:
        pairs = zip(self._names, self._values.tolist(), strict=True) if self._count else ()
        progress.sums, progress.counted = dict(pairs), self._count


class _Clock:
    """Seconds since the run began, over all its parts, how much of it is over, and those of a step.

    A run of so many minutes keeps back what its end took at its beginning. Of steps the first one
    of the program is left out: it waits for memory, kernels and compilers.
    """

    def __init__(self, run: Run, progress: Progress, device: torch.device) -> None:
        self._run, self._progress, self._device = run, progress, device
        self._began = run.began - progress.seconds
        self._since, self._first = time.monotonic(), progress.step + 1
        self._steps = progress.step
        self._step_s = 0.0
        self._reported = [0.0, 0]

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def part(self, step: int) -> float:
        """0 to 1; from 1 on it is time to end."""
        if self._run.minutes is None:
            return step / self._run.steps
        end = 60 * self._run.minutes - self._progress.closing_s - self._step_s
        return self.seconds / end if end > 0 else 1.0

    def leaves_time(self) -> bool:
        """Whether a report and a checkpoint fit in before those at the end of the run."""
        if self._run.minutes is None:
            return True
        return self.seconds + 2 * self._progress.closing_s < 60 * self._run.minutes

    def check(self, step: int) -> None:
        """Measure the steps since the last check."""
        wait_for(self._device)
        now = time.monotonic()
        steps = step - self._steps
        if steps:
            self._step_s = (now - self._since) / steps
            if self._steps >= self._first:
                self._reported[0] += now - self._since
                self._reported[1] += steps
        self._since, self._steps = now, step

    def go_on(self) -> None:
        """What was done meanwhile was no step."""
        self._since = time.monotonic()

    def row(self) -> dict[str, float]:
        """For the log."""
        spent, steps = self._reported
        self._reported = [0.0, 0]
        return {"seconds": round(self.seconds, 1), "step_s": round(spent / max(1, steps), 4)}
