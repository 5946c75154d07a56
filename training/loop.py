"""The training loop that every stage shares: schedule, averaging, checkpoints, resume, log.

A run is named by its folder: ``state.pt`` there holds everything needed to go on after an
interruption, ``log.jsonl`` one line per report, ``averaged.pt`` the averaged weights.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm

__all__ = ["Run", "half_precision", "train", "warm_start"]


def half_precision(enabled: bool = True) -> torch.autocast:
    """bfloat16 for matrix products where the processor has it; elsewhere that is far slower."""
    able = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return torch.autocast("cpu", torch.bfloat16, enabled=enabled and able)


@dataclass(frozen=True)
class Run:
    """Length and pace of a training run."""

    folder: Path
    steps: int
    rate: float
    warmup: int = 100
    average: float = 0.999
    report: int = 250
    save: int = 500


def warm_start(model: nn.Module, path: Path, prefix: str) -> str:
    """Take over every tensor of another run that still fits; the rest keeps its fresh values.

    path: ``averaged.pt`` of a run, or an exported file, where names begin with ``prefix``.
    """
    if path.suffix == ".safetensors":
        stored = load_file(path)
        known = {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}
    else:
        known = torch.load(path, weights_only=True)
    own = model.state_dict()
    fitting = {name: v for name, v in known.items() if name in own and own[name].shape == v.shape}
    model.load_state_dict(fitting, strict=False)
    return f"{len(fitting)} of {len(own)} tensors of {path}"


def _rate(run: Run, step: int) -> float:
    if step < run.warmup:
        return run.rate * (step + 1) / run.warmup
    part = (step - run.warmup) / max(1, run.steps - run.warmup)
    return run.rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, part))))


def _average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Exponential averaging that forgets the fresh weights of the beginning quickly."""

    def update(average: Tensor, value: Tensor, count: Tensor | int) -> Tensor:
        part = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
        return average + part * (value - average) if value.is_floating_point() else value

    return update


def train(
    run: Run,
    model: nn.Module,
    losses: Callable[[int], dict[str, Tensor]],
    validate: Callable[[nn.Module], dict[str, float]],
) -> nn.Module:
    """Minimise ``losses(step)["total"]`` over the model's parameters; returns the averaged model.

    ``losses`` draws its own batch. ``validate`` gets the averaged model. Interrupted runs go on
    from the last saved step when called again with the same folder.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    averaged = torch.optim.swa_utils.AveragedModel(
        model,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(run.average),
        use_buffers=True,
    )
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}],
        lr=run.rate,
        betas=(0.9, 0.98),
    )
    state_file = run.folder / "state.pt"
    first = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    (run.folder / "run.json").write_text(json.dumps(asdict(run), default=str, indent=1))
    sums: dict[str, float] = {}
    began = time.monotonic()
    with tqdm(total=run.steps, initial=first, mininterval=5) as bar:
        for step in range(first, run.steps):
            for group in optimizer.param_groups:
                group["lr"] = _rate(run, step)
            terms = losses(step)
            optimizer.zero_grad(set_to_none=True)
            terms["total"].backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            averaged.update_parameters(model)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
            bar.update()
            done = step + 1
            if done % run.report == 0 or done == run.steps:
                row = {name: round(value / run.report, 4) for name, value in sums.items()}
                valid = {f"valid_{k}": round(v, 4) for k, v in validate(averaged.module).items()}
                line = {"step": done, "seconds": round(time.monotonic() - began, 1), **row, **valid}
                with (run.folder / "log.jsonl").open("a") as log:
                    log.write(json.dumps(line) + "\n")
                sums = {}
            if done % run.save == 0 or done == run.steps:
                state = {
                    "model": model.state_dict(),
                    "averaged": averaged.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": done,
                }
                part = state_file.with_suffix(".part")
                torch.save(state, part)
                part.rename(state_file)
                torch.save(averaged.module.state_dict(), run.folder / "averaged.pt")
    return averaged.module
