"""Where a training computes: the processor or a graphics card, in half precision, compiled."""

from __future__ import annotations

import torch
from torch import nn

from codec.nano.blocks import Block
from streaming.errors import SettingsError

__all__ = ["compile_blocks", "half_precision", "pick_device"]


def pick_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is a graphics card where torch can use one, else the CPU.

    Raises SettingsError where torch cannot.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError(
            "torch finds no graphics card that it can use; train with --device cpu, or install a "
            "build of torch for the card"
        )
    return torch.device(name)


def half_precision(device: torch.device, enabled: bool = True) -> torch.autocast:
    """bfloat16 for matrix products where the device has it; elsewhere that is far slower."""
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled and able)


def compile_blocks(model: nn.Module) -> None:
    """Compile the blocks that every model consists of, in place; state and names stay the same.

    Block by block, since they are where the time goes, are alike, and so compile once each kind.
    Copies of the model are not compiled.
    """
    for module in model.modules():
        if isinstance(module, Block):
            module.compile()
