"""Where a training computes: the processor or a graphics card, in half precision, compiled."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from streaming.errors import SettingsError

__all__ = ["compiled", "half_precision", "has_bfloat16", "pick_device", "wait_for"]

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


def pick_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is a graphics card if torch can use one, otherwise the CPU.

    Raises:
        SettingsError: if torch cannot.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError(
            "torch finds no graphics card that it can use; train with --device cpu, or install a "
            "build of torch for the card"
        )
    return torch.device(name)


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies matrices in bfloat16 itself; elsewhere that is far slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def half_precision(device: torch.device, enabled: bool = True) -> torch.autocast:
    """bfloat16 for matrix products if the device has it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled and has_bfloat16(device))


def wait_for(device: torch.device) -> None:
    """Wait until a graphics card has done all that it was given, so that clocks are right."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compiled(step: Callable[P, R]) -> Callable[P, R]:
    """A training step, from the batch to the losses, compiled as a whole with its gradients.

    If the compiler fails, for instance since the machine has none for C++, the step runs as it is
    written, with a warning: a run must not end for that.
    """
    from torch._dynamo.exc import TorchDynamoException

    chosen = torch.compile(step, dynamic=False)

    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal chosen
        try:
            return chosen(*args, **kwargs)
        except TorchDynamoException as error:
            said = str(error).strip().splitlines()
            logger.warning("the step cannot be compiled, and runs as it is: %s", said[0])
            chosen = step
            return step(*args, **kwargs)

    return run
