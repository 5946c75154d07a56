"""The vocoder: log-mels to 48 kHz sound (Kong et al., "HiFi-GAN", 2020).

Names of submodules are those of the published checkpoint, in which weight norm is removed already.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codec.mucodec.config import MuCodecConfig

__all__ = ["HifiGan", "reach_frames"]

_SLOPE = 0.1


def convolve(module: nn.Conv1d | nn.ConvTranspose1d, x: Tensor) -> Tensor:
    """A layer's convolution of ``[batch, channels, 1, time]``.

    As an image of one line it can lie in memory channels last, which is what the fast kernels of a
    GPU want; sequences are copied there and back by every layer.
    """
    weight, step = module.weight.unsqueeze(2), module.stride[0]
    padding, dilation = int(module.padding[0]), module.dilation[0]
    if isinstance(module, nn.ConvTranspose1d):
        return F.conv_transpose2d(x, weight, module.bias, (1, step), (0, padding))
    return F.conv2d(x, weight, module.bias, (1, step), (0, padding), (1, dilation))


class DilatedBlock(nn.Module):
    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, dilation=d, padding=d * (kernel - 1) // 2)
            for d in dilations
        )
        self.convs2 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, padding=(kernel - 1) // 2) for _ in dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            assert isinstance(dilated, nn.Conv1d)
            assert isinstance(plain, nn.Conv1d)
            y = convolve(dilated, F.leaky_relu(x, _SLOPE))
            x = x + convolve(plain, F.leaky_relu(y, _SLOPE))
        return x


class HifiGan(nn.Module):
    """Log-mels ``[batch, frames, mels]`` to sound ``[batch, 480 * frames + a few]`` in -1 ... 1."""

    def __init__(self, config: MuCodecConfig) -> None:
        super().__init__()
        c = config
        self.conv_pre = nn.Conv1d(c.vae_mels, c.vocoder_channels, 7, padding=3)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        width = c.vocoder_channels
        for rate, kernel in zip(c.vocoder_rates, c.vocoder_kernels, strict=True):
            self.ups.append(
                nn.ConvTranspose1d(
                    width, width // 2, kernel, stride=rate, padding=(kernel - rate) // 2
                )
            )
            width //= 2
            self.resblocks.extend(
                DilatedBlock(width, size, c.vocoder_dilations) for size in c.vocoder_block_kernels
            )
        self.conv_post = nn.Conv1d(width, 1, 7, padding=3)
        self.branches = len(c.vocoder_block_kernels)

    def prepare(self, dtype: torch.dtype) -> None:
        """Compute in ``dtype``, with weights that lie channels last."""
        self.to(dtype)
        for module in self.modules():
            if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
                last = module.weight.transpose(1, 2).contiguous().transpose(1, 2)
                module.weight = nn.Parameter(last, requires_grad=False)

    def forward(self, mel: Tensor) -> Tensor:
        """The sound of ``mel``, in -1 ... 1."""
        return torch.tanh(self.wave(mel).float())

    def wave(self, mel: Tensor) -> Tensor:
        """The sound before its tanh, which would hide that a number has left its range."""
        x = mel.to(self.conv_pre.weight.dtype).transpose(1, 2).unsqueeze(2)
        x = convolve(self.conv_pre, x.contiguous(memory_format=torch.channels_last))
        for index, up in enumerate(self.ups):
            assert isinstance(up, nn.ConvTranspose1d)
            x = convolve(up, F.leaky_relu(x, _SLOPE))
            first = index * self.branches
            total = self.resblocks[first](x)
            for branch in self.resblocks[first + 1 : first + self.branches]:
                total = total + branch(x)
            x = total / self.branches
        # The default slope, not the one above: as it was trained.
        return convolve(self.conv_post, F.leaky_relu(x))[:, 0, 0]


def reach_frames(config: MuCodecConfig) -> int:
    """Mel frames on either side that a sample of :class:`HifiGan` depends on, rounded up."""
    c = config
    reach = 3.0  # in mel frames
    scale = 1.0  # samples of the present layer in one mel frame
    for rate, kernel in zip(c.vocoder_rates, c.vocoder_kernels, strict=True):
        reach += (kernel / 2) / rate / scale
        scale *= rate
        widest = max(c.vocoder_block_kernels) - 1
        reach += sum((d + 1) * widest / 2 for d in c.vocoder_dilations) / scale
    return int(reach + 3 / scale) + 1
