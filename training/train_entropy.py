"""Trains the model by which tokens are coded in fewer bits (docs/entropy.md).

Encodes music with nano, trains a small network in floating point to tell each digit of a token
from what came before it, and writes its weights as integers: what codes and decodes is
:mod:`streaming.entropy`, which never sees a floating-point number.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from codec.constants import SAMPLE_RATE
from codec.nano import load_nano
from codec.nano.entropy.coder import CONTEXT
from codec.nano.entropy.features import DIGITS, ROWS, SIZES, features, split_digits
from codec.nano.entropy.network import FRACTION_BITS, OUTPUTS, EntropyNetwork
from streaming.errors import SettingsError
from training.dataset import feature_name, load_audio, recordings
from training.program import run_program

__all__ = ["EntropyModel", "Examples", "encode_music", "main", "train"]

logger = logging.getLogger(__name__)

Ints = NDArray[np.int64]

PACKET = 48
MOST_SHIFT_S = 5
BATCH = 512
_ENDS = [0, *np.cumsum(SIZES).tolist()]


def encode_music(folder: Path, cache: Path, variants: int) -> list[list[Ints]]:
    """Tokens of each recording below ``folder``, as it is and changed; kept in ``cache``.

    Each variant but the first begins up to ``MOST_SHIFT_S`` later and is up to 18 dB quieter: so
    what is said of the same music differs.
    """
    cache.mkdir(parents=True, exist_ok=True)
    nano = None
    pieces: list[list[Ints]] = []
    for file in recordings(folder):
        pieces.append([])
        for variant in range(variants):
            kept = cache / f"{variant}-{feature_name(file, folder)}"
            if not kept.exists():
                nano = nano or load_nano()
                audio = _changed(load_audio(file), variant, file.stem)
                np.save(kept, nano.sound2code(audio))
                logger.info("encoded %s, variant %d", file.name, variant)
            pieces[-1].append(np.load(kept).astype(np.int64))
    return pieces


def _changed(audio: Tensor, variant: int, name: str) -> Tensor:
    if not variant:
        return audio
    rng = np.random.default_rng([variant, *name.encode()])
    shift = min(int(rng.integers(MOST_SHIFT_S * SAMPLE_RATE)), audio.shape[1] // 2)
    return audio[:, shift:] * float(10 ** (rng.uniform(-18, 0) / 20))


class Examples:
    """What is known before each token of many pieces (``rows``), and its digits."""

    def __init__(self, pieces: Sequence[Ints], contexts: Sequence[int], seed: int) -> None:
        """contexts: of each packet one of these numbers of tokens is drawn as its context."""
        rng = np.random.default_rng(seed)
        rows, digits = [], []
        for tokens in pieces:
            places = np.arange(len(tokens))
            packet = places // PACKET
            context = rng.choice(contexts, packet[-1] + 1)[packet]
            starts = (packet * PACKET - context).clip(0)
            digits.append(split_digits(tokens))
            rows.append(features(digits[-1], 0, places, starts).astype(np.int32))
        self.rows = torch.from_numpy(np.concatenate(rows))
        self.digits = torch.from_numpy(np.concatenate(digits))


class EntropyModel(nn.Module):
    """The same network as :class:`~codec.nano.entropy.network.EntropyNetwork`, to be trained."""

    def __init__(self, hidden: int = 80, width: int = 32, dropout: float = 0.3) -> None:
        super().__init__()
        self.hidden, self.width = hidden, width
        self.table = nn.EmbeddingBag(ROWS, hidden + OUTPUTS, mode="sum", padding_idx=0)
        with torch.no_grad():
            self.table.weight[:, :hidden] *= 0.05
            self.table.weight[:, hidden:] = 0
        self.bias = nn.Parameter(torch.zeros(hidden + OUTPUTS))
        self.middle = nn.Linear(hidden, DIGITS * width)
        self.earlier = nn.Parameter(torch.zeros(OUTPUTS, DIGITS * width))
        self.direct = nn.Parameter(torch.zeros(OUTPUTS, OUTPUTS))
        self.outward = nn.Parameter(torch.randn(OUTPUTS, width) * width**-0.5)
        self.dropout = nn.Dropout(dropout)
        # A digit knows of those before it, and of no others.
        order = torch.repeat_interleave(torch.arange(DIGITS), torch.tensor(SIZES))
        of_middle = torch.arange(DIGITS).repeat_interleave(width)
        self.register_buffer("before_middle", (order[:, None] < of_middle).float())
        self.register_buffer("before", (order[:, None] < order).float())

    before_middle: Tensor
    before: Tensor

    def forward(self, rows: Tensor, digits: Tensor) -> Tensor:
        """Bits of each digit, ``[batch, 6]``."""
        sums = self.table(rows) + self.bias
        hidden = self.dropout(torch.relu(sums[:, : self.hidden]))
        known = torch.cat(
            [nn.functional.one_hot(digits[:, k], size) for k, size in enumerate(SIZES)], dim=1
        ).float()
        middle = torch.relu(self.middle(hidden) + known @ (self.earlier * self.before_middle))
        outputs = sums[:, self.hidden :] + known @ (self.direct * self.before)
        bits = []
        for k, (start, end) in enumerate(itertools.pairwise(_ENDS)):
            values = middle[:, k * self.width : (k + 1) * self.width]
            logits = values @ self.outward[start:end].T + outputs[:, start:end]
            bits.append(nn.functional.cross_entropy(logits, digits[:, k], reduction="none"))
        return torch.stack(bits, dim=1) / np.log(2)

    def integers(self) -> EntropyNetwork:
        """The weights as the coder's whole numbers."""

        def whole(values: Tensor) -> Ints:
            limit = 2**15 - 1
            scaled = (values.detach().double() * 2**FRACTION_BITS).round()
            return scaled.clamp(-limit, limit).long().numpy()

        table = whole(self.table.weight)
        table[0] = 0
        steps = np.arange(256 * 12)
        return EntropyNetwork(
            table=table,
            bias=whole(self.bias),
            middle=whole(self.middle.weight.T),
            middle_bias=whole(self.middle.bias),
            earlier=whole(self.earlier * self.before_middle),
            direct=whole(self.direct * self.before),
            outward=whole(self.outward),
            powers=np.round(65536 * np.exp(-steps / 256)).astype(np.int64),
        )


def train(
    pieces: Sequence[Ints], held: Sequence[Ints], steps: int, rate: float, seed: int
) -> EntropyModel:
    """A model of ``pieces``; of those seen on the way the one that was best on ``held``."""
    torch.manual_seed(seed)
    model = EntropyModel()
    optimizer = torch.optim.Adam(model.parameters(), rate)
    whole, partial = [CONTEXT], list(range(0, CONTEXT + 1, PACKET))
    valid = Examples(held, whole, seed)
    music = Examples(pieces, [*whole * 8, *partial], seed)
    best, best_state = float("inf"), model.state_dict()
    for step in range(steps):
        if step and step % 2000 == 0:
            music = Examples(pieces, [*whole * 8, *partial], seed + step)
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps) + 1e-5
        batch = torch.randint(len(music.rows), (BATCH,))
        loss = model(music.rows[batch], music.digits[batch]).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.table.weight *= 1 - 0.02 * optimizer.param_groups[0]["lr"]
        if step % 200 == 199 or step == steps - 1:
            model.eval()
            with torch.no_grad():
                bits = model(valid.rows, valid.digits).sum(dim=1).mean().item()
            model.train()
            logger.info("step %d: %.3f bits a token, held out %.3f", step + 1, loss.item(), bits)
            if bits < best:
                best = bits
                best_state = {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(best_state)
    return model


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.train_entropy", description=__doc__)
    parser.add_argument("--music", type=Path, required=True, help="a folder of recordings")
    parser.add_argument("--tokens", type=Path, required=True, help="folder to keep tokens in")
    parser.add_argument("--out", type=Path, required=True, help="the model, an .npz file")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--variants", type=int, default=3, help="of each recording (%(default)s)")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    return run_program("train_entropy", lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in ("steps", "variants"):
        if getattr(args, name) < 1:
            raise SettingsError(f"--{name} must be at least 1, got {getattr(args, name)}")
    pieces = encode_music(args.music, args.tokens, args.variants)
    if len(pieces) < 2:
        raise SettingsError(f"{args.music} holds {len(pieces)} recordings; give two at least")
    held = max(1, len(pieces) // 20)
    learnt = [tokens for variants in pieces[held:] for tokens in variants]
    valid = [variants[0] for variants in pieces[:held]]
    train(learnt, valid, args.steps, args.rate, args.seed).integers().save(args.out)


if __name__ == "__main__":
    sys.exit(main())
