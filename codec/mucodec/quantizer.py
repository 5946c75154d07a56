"""The quantiser: hidden states to one of 16384 codes and back.

Nearest entry by cosine, after a projection to a few dimensions (van den Oord et al., "VQ-VAE",
2017, with the factorised, normalised codes of Yu et al., "Improved VQGAN", 2022, as Kumar et al.,
"Improved RVQGAN", 2023, use them).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codec.mucodec.config import MuCodecConfig

__all__ = ["Quantizer"]


class Projection(nn.Module):
    """A 1x1 convolution with weight norm, as the checkpoint stores it: gain and direction apart."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(outputs, 1, 1))
        self.weight_v = nn.Parameter(torch.ones(outputs, inputs, 1))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        direction = self.weight_v[..., 0]
        weight = direction * (self.weight_g[..., 0] / direction.norm(dim=1, keepdim=True))
        return F.linear(x, weight, self.bias)


class Codebook(nn.Module):
    def __init__(self, config: MuCodecConfig) -> None:
        super().__init__()
        self.in_proj = Projection(config.hidden, config.code_dims)
        self.out_proj = Projection(config.code_dims, config.hidden)
        self.codebook = nn.Embedding(config.codebook, config.code_dims)

    def encode(self, hidden: Tensor) -> Tensor:
        """Hidden states ``[..., hidden]`` to codes, int64 ``[...]``."""
        latents = F.normalize(self.in_proj(hidden), dim=-1)
        likeness: Tensor = latents @ F.normalize(self.codebook.weight, dim=-1).T
        return likeness.argmax(dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``[...]`` to vectors ``[..., hidden]``, from the entries as they are."""
        out: Tensor = self.out_proj(self.codebook(codes))
        return out


class Quantizer(nn.Module):
    """A residual quantiser of one stage, in the checkpoint's layout."""

    def __init__(self, config: MuCodecConfig) -> None:
        super().__init__()
        self.quantizers = nn.ModuleList([Codebook(config)])

    @property
    def only(self) -> Codebook:
        """The one stage."""
        stage = self.quantizers[0]
        assert isinstance(stage, Codebook)
        return stage

    def encode(self, hidden: Tensor) -> Tensor:
        """See :meth:`Codebook.encode`; in float32, since near ties decide the code."""
        return self.only.encode(hidden.float())

    def decode(self, codes: Tensor) -> Tensor:
        """See :meth:`Codebook.decode`."""
        return self.only.decode(codes)
