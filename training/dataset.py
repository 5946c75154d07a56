"""Training music as features: one ``.npy`` of float16 ``[tokens, feature_dims]`` per recording.

The codec and the flow are trained on features alone, so the sound is analysed once.
``python -m training.dataset --music FOLDER --out FOLDER`` skips what is there already.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from torch import Tensor
from tqdm import tqdm

from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN
from codec.nano.config import NanoConfig
from codec.nano.features import Features
from streaming.errors import SettingsError
from training.device import pick_device
from training.program import run_program

__all__ = ["FeatureSet", "extract", "feature_name", "load_audio", "recordings"]

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus")


def load_audio(path: Path) -> Tensor:
    """A 48 kHz recording as float32 ``[2, samples]``, mono doubled.

    Raises SettingsError at another rate.
    """
    data, rate = sf.read(path, dtype="float32", always_2d=True)
    if rate != SAMPLE_RATE:
        raise SettingsError(
            f"{path} has {rate} samples a second; let training.collect convert it to {SAMPLE_RATE}"
        )
    audio = torch.from_numpy(data.T.copy())
    return audio[:2] if audio.shape[0] >= 2 else audio.expand(2, -1)


def recordings(folder: Path) -> list[Path]:
    """All sound files below a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def feature_name(path: Path, music: Path) -> str:
    """Name of the feature file of a recording that lies below ``music``."""
    return f"{path.relative_to(music).as_posix().replace('/', '_')}.npy"


@torch.inference_mode()
def extract(features: Features, path: Path, device: torch.device) -> Tensor:
    """Features of one recording, float32 ``[tokens, feature_dims]``, on the device."""
    audio = load_audio(path).to(device)
    whole = audio.shape[1] // SAMPLES_PER_TOKEN * SAMPLES_PER_TOKEN
    out: Tensor = features(audio[:, :whole])
    return out


class FeatureSet:
    """Random excerpts of a folder of feature files, drawn with a seeded generator.

    Raises SettingsError where the folder holds none.
    """

    def __init__(self, folder: Path, seed: int, device: torch.device | str = "cpu") -> None:
        files = sorted(folder.glob("*.npy"))
        if not files:
            raise SettingsError(f"there are no feature files in {folder}; see training.dataset")
        self.device = device
        self.pieces = [torch.from_numpy(np.load(file)) for file in files]
        self.random = np.random.default_rng(seed)
        lengths = np.array([len(piece) for piece in self.pieces], dtype=np.float64)
        self.shares = lengths / lengths.sum()

    def batch(self, size: int, tokens: int) -> Tensor:
        """Excerpts ``[size, tokens, feature_dims]``, float32; a shorter piece is repeated."""
        chosen = self.random.choice(len(self.pieces), size=size, p=self.shares)
        rows = []
        for index in chosen:
            piece = self.pieces[index]
            start = int(self.random.integers(0, max(1, len(piece) - tokens)))
            row = piece[start : start + tokens]
            rows.append(
                row if len(row) == tokens else row.repeat(-(-tokens // len(row)), 1)[:tokens]
            )
        return torch.stack(rows).to(self.device).float()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.dataset", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--music", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    args = parser.parse_args(argv)
    return run_program("dataset", lambda: analyse(args))


def analyse(args: argparse.Namespace) -> None:
    """Features of everything in the folder of music that has none yet."""
    torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    files = recordings(args.music)
    if not files:
        raise SettingsError(f"there is no recording ({', '.join(SUFFIXES)}) in {args.music}")
    args.out.mkdir(parents=True, exist_ok=True)
    features = Features(NanoConfig()).to(device)
    for path in tqdm(files, desc="analysing", unit="piece"):
        target = args.out / feature_name(path, args.music)
        if not target.exists():
            rows = extract(features, path, device).half().cpu().numpy()
            part = target.with_suffix(".part")
            with part.open("wb") as stream:
                np.save(stream, rows)
            part.rename(target)


if __name__ == "__main__":
    sys.exit(main())
