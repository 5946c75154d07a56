"""Critics of log-mel spectrograms: does a patch look like music or like an average of music?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Critic", "Critics", "critic_loss", "generator_losses"]

_CRITICS = (
    (48, ((1, 2), (2, 2), (2, 2), (1, 1))),
    (32, ((1, 1), (1, 2), (2, 2), (1, 2))),
)
"""Width and strides in time and frequency: one sees large patches, one every frame and band."""


class Critic(nn.Module):
    """Scores of patches of a mel spectrogram, seen beside the expected one it was made from.

    A patch discriminator (Isola et al., "Image-to-Image Translation with Conditional Adversarial
    Networks", 2017). It is told the band, since music's treble does not look like its bass.
    """

    def __init__(self, mels: int, width: int, strides: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.register_buffer("place", torch.linspace(-1, 1, mels), persistent=False)
        sizes = [3, width, 2 * width, 3 * width, 3 * width]
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, (3, 5), stride, padding=(1, 2))
            for a, b, stride in zip(sizes, sizes[1:], strides, strict=False)
        )
        self.score = nn.Conv2d(sizes[-1], 1, 3, padding=1)

    place: Tensor

    def forward(self, mel: Tensor, expected: Tensor) -> list[Tensor]:
        """Both normalised ``[batch, frames, mels]``; the layers' outputs, the scores at last."""
        x = torch.stack([mel, expected, self.place.expand_as(mel)], dim=1)
        x = x.to(memory_format=torch.channels_last)
        found = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            found.append(x)
        return [*found, self.score(x)]


class Critics(nn.ModuleList):
    """All critics; each one's layers, one after the other."""

    def __init__(self, mels: int) -> None:
        super().__init__(Critic(mels, width, strides) for width, strides in _CRITICS)

    def forward(self, mel: Tensor, expected: Tensor) -> list[list[Tensor]]:
        """What each critic finds at each of its layers."""
        return [critic(mel, expected) for critic in self]


def critic_loss(real: list[list[Tensor]], fake: list[list[Tensor]]) -> Tensor:
    """Squared error of the scores, 1 for real and 0 for made (Mao et al., "LSGAN", 2017)."""
    losses = [
        (a[-1].float() - 1).square().mean() + b[-1].float().square().mean()
        for a, b in zip(real, fake, strict=True)
    ]
    return torch.stack(losses).sum()


def generator_losses(real: list[list[Tensor]], fake: list[list[Tensor]]) -> tuple[Tensor, Tensor]:
    """How far the critics are from taking it for real, and how unlike their layers find the two.

    Means over critics. The second is the feature matching of Kumar et al., "MelGAN", 2019, over
    the layers' spread.
    """
    fooled = [(layers[-1].float() - 1).square().mean() for layers in fake]
    unlike = []
    for seen, shown in zip(real, fake, strict=True):
        for a, b in zip(seen[:-1], shown[:-1], strict=True):
            a = a.detach().float()
            unlike.append((a - b.float()).abs().mean() / (a.abs().mean() + 1e-4))
    return torch.stack(fooled).mean(), torch.stack(unlike).mean()
