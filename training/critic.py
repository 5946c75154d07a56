"""A critic of log-mel spectrograms: does a patch look like music or like an average of music?"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Critic", "critic_loss", "generator_losses"]


class Critic(nn.Module):
    """Scores of patches of a mel spectrogram, seen beside the expected one it was made from.

    A patch discriminator (Isola et al., "Image-to-Image Translation with Conditional Adversarial
    Networks", 2017). It is told the band, since music's treble does not look like its bass.
    """

    def __init__(self, mels: int, width: int = 24) -> None:
        super().__init__()
        self.register_buffer("place", torch.linspace(-1, 1, mels), persistent=False)
        sizes = [3, width, 2 * width, 4 * width, 4 * width]
        strides = [(1, 2), (2, 2), (2, 2), (1, 1)]
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, (3, 5), stride, padding=(1, 2))
            for a, b, stride in zip(sizes, sizes[1:], strides, strict=False)
        )
        self.score = nn.Conv2d(sizes[-1], 1, 3, padding=1)

    place: Tensor

    def forward(self, mel: Tensor, expected: Tensor) -> list[Tensor]:
        """Both normalised ``[batch, frames, mels]``; the layers' outputs, the scores at last."""
        x = torch.stack([mel, expected, self.place.expand_as(mel)], dim=1)
        found = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            found.append(x)
        return [*found, self.score(x)]


def critic_loss(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """Squared error of the scores, 1 for real and 0 for made (Mao et al., "LSGAN", 2017)."""
    return (real[-1].float() - 1).square().mean() + fake[-1].float().square().mean()


def generator_losses(real: list[Tensor], fake: list[Tensor]) -> tuple[Tensor, Tensor]:
    """How far the critic is from taking it for real, and how unlike its layers find the two.

    The second is the feature matching of Kumar et al., "MelGAN", 2019, over the layers' spread.
    """
    fooled = (fake[-1].float() - 1).square().mean()
    unlike = fooled.new_zeros(())
    for a, b in zip(real[:-1], fake[:-1], strict=True):
        a = a.detach().float()
        unlike = unlike + (a - b.float()).abs().mean() / (a.abs().mean() + 1e-4)
    return fooled, unlike / (len(real) - 1)
