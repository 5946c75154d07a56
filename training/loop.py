"""The training loop that every stage shares: schedule, averaging, checkpoints, resume, reports.

A run is named by its folder: ``state.pt`` there holds everything needed to go on after an
interruption, ``averaged.pt`` the averaged weights, ``log.jsonl`` one line per report and
``curves.png`` the same as a picture; ``samples/`` what it sounded like.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from training.checkpoint import Checkpoint, Progress, Randoms
from training.device import compile_blocks
from training.report import Report

__all__ = ["Listen", "Run", "train"]

Listen = Callable[[int, nn.Module], dict[str, Tensor]]
"""Given a step and a model of one's own on the CPU, writes samples and returns them by name."""


@dataclass(frozen=True)
class Run:
    """Length and pace of a training run, all in steps; ``sample`` 0 writes no samples."""

    folder: Path
    steps: int
    rate: float
    warmup: int = 100
    average: float = 0.999
    report: int = 250
    save: int = 500
    sample: int = 0
    compiled: bool = False
    tensorboard: bool = False


def _rate(run: Run, step: int) -> float:
    if step < run.warmup:
        return run.rate * (step + 1) / run.warmup
    part = (step - run.warmup) / max(1, run.steps - run.warmup)
    return run.rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, part))))


def _optimizer(run: Run, model: nn.Module) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}],
        lr=run.rate,
        betas=(0.9, 0.98),
        fused=True,
    )


def train(
    run: Run,
    model: nn.Module,
    losses: Callable[[int], dict[str, Tensor]],
    validate: Callable[[nn.Module], dict[str, float]],
    randoms: Randoms,
    listen: Listen | None = None,
) -> nn.Module:
    """Minimise ``losses(step)["total"]`` over the model's parameters; returns the averaged model.

    ``losses`` draws its own batch, with the generators ``randoms`` and no others. ``validate`` gets
    the averaged model. Called again with the same folder, an interrupted run goes on from the last
    saved step, on a CPU to the same result as one that was never interrupted.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    # Made before the model is compiled: the average is a copy, and copies are not.
    averaged = AveragedModel(
        model, multi_avg_fn=get_ema_multi_avg_fn(run.average), use_buffers=True
    )
    if run.compiled:
        compile_blocks(model)
    optimizer = _optimizer(run, model)
    checkpoint = Checkpoint(run.folder, model, averaged, optimizer, randoms)
    progress = checkpoint.load()
    report = Report(run.folder, progress.step, run.tensorboard)
    (run.folder / "run.json").write_text(json.dumps(asdict(run), default=str, indent=1))
    name = run.folder.name
    with tqdm(total=run.steps, initial=progress.step, mininterval=5, desc=name) as bar:
        pace = _Pace(progress.seconds)
        sums = {k: torch.tensor(v, dtype=torch.float64) for k, v in progress.sums.items()}
        counted = progress.counted
        for step in range(progress.step, run.steps):
            for group in optimizer.param_groups:
                group["lr"] = _rate(run, step)
            terms = losses(step)
            optimizer.zero_grad(set_to_none=True)
            terms["total"].backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            averaged.update_parameters(model)
            for term, value in terms.items():  # summed where they are: reading makes a GPU wait
                sums[term] = sums.get(term, 0.0) + value.detach().double()
            counted += 1
            bar.update()
            pace.stepped()
            done = step + 1
            last = done == run.steps
            if done % run.report == 0 or last:
                row = {k: round(float(v) / counted, 4) for k, v in sums.items()}
                times = pace.row()
                valid = {f"valid_{k}": round(v, 4) for k, v in validate(averaged.module).items()}
                report.row({"step": done} | times | row | valid)
                bar.set_postfix(total=row["total"], valid=valid.get("valid_total", math.nan))
                sums, counted = {}, 0
            if listen is not None and run.sample and (done % run.sample == 0 or last):
                own = copy.deepcopy(averaged.module).cpu().eval()
                report.sounds(done, listen(done, own))
            if done % run.save == 0 or last:
                values = {k: float(v) for k, v in sums.items()}
                checkpoint.save(Progress(done, pace.seconds, values, counted))
                report.saved()
    report.close()
    return averaged.module


class _Pace:
    """Seconds since the run began, over all its parts, and those of a step since the last report.

    The first step after a report is left out: it waits for memory, kernels and compilers.
    """

    def __init__(self, before: float) -> None:
        self._before = before
        self._started = self._warm = time.monotonic()
        self._steps = 0

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._started

    def stepped(self) -> None:
        self._steps += 1
        if self._steps == 1:
            self._warm = time.monotonic()

    def row(self) -> dict[str, float]:
        """For the log; call it when a graphics card has done all that it was given."""
        step_s = (time.monotonic() - self._warm) / max(1, self._steps - 1)
        self._steps = 0
        return {"seconds": round(self.seconds, 1), "step_s": round(step_s, 4)}
