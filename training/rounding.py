"""Rounding the token decoder's matrices to int8 so that their errors cancel on music.

What the token decoder says of the music goes straight into the sound, so its rounding is what is
heard of int8. One input of a layer after the other is rounded, and what that changes is made up for
by those still to come, as far as the inputs go together on music (Frantar et al., "GPTQ", 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from codec.nano.codec import NanoModels
from codec.nano.weights import column_scales, is_packed

__all__ = ["rounded"]

_DAMPING = 0.03


@torch.inference_mode()
def rounded(models: NanoModels, music: Sequence[NDArray[np.int64]]) -> dict[str, NDArray[np.int8]]:
    """Matrices of the token decoder by name, ``[in, out]``, for :func:`codec.nano.weights.pack`.

    music: tokens ``[n]`` of some pieces from their start, a minute or more together.
    """
    layers = {
        f"codec.decoder.{name}.weight": layer
        for name, layer in models.codec.decoder.named_modules()
        if isinstance(layer, nn.Linear)
    }
    products: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def see(_: nn.Module, inputs: tuple[Tensor]) -> None:
            rows = inputs[0].flatten(0, -2).double()
            products[name] = products.get(name, 0) + rows.T @ rows

        return see

    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    for tokens in music:
        models.eval().codec.decode(torch.from_numpy(tokens).unsqueeze(0), 0)
    for hook in hooks:
        hook.remove()
    return {
        name: _round(layer.weight.double(), products[name])
        for name, layer in layers.items()
        if is_packed(name, layer.weight.numel())
    }


def _round(weight: Tensor, products: Tensor) -> NDArray[np.int8]:
    """int8 ``[in, out]`` of ``[out, in]``, given the products of the inputs with each other."""
    weight = weight.clone()
    scale = torch.from_numpy(column_scales(weight.T.float().numpy())).double()
    inputs = len(products)
    products = products + torch.eye(inputs) * _DAMPING * products.diag().mean()
    share = torch.linalg.cholesky(torch.linalg.inv(products), upper=True)
    out = torch.zeros(inputs, len(weight), dtype=torch.int8)
    for i in range(inputs):
        level = (weight[:, i] / scale).round().clamp(-127, 127)
        out[i] = level.to(torch.int8)
        error = (weight[:, i] - level * scale) / share[i, i]
        weight[:, i:] -= error.unsqueeze(1) * share[i, i:]
    return out.numpy()
