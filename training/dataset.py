"""Training music as features: ``.npy`` files of float16 ``[tokens, feature_dims]``.

The codec and the flow are trained on features alone, so the sound is analysed once.
``python -m training.dataset --music FOLDER --out FOLDER`` skips what is there already. With
``--versions`` every recording is analysed several times, slower or faster and mixed otherwise.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Iterable, Sequence
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

__all__ = [
    "Excerpts",
    "extract",
    "feature_name",
    "fixed_batch",
    "load_audio",
    "load_features",
    "other_version",
    "recordings",
]

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus")
_PIECE = 1500
"""Tokens that are analysed at once: a minute."""
_MARGIN = 3
"""Tokens beyond which the analysis does not reach."""
_GRAIN = 100
"""Pieces are multiples of so many samples, so that every percentage of them is a whole number."""
_SPEEDS = [*range(80, 98), *range(103, 126)]
"""In percent of the duration."""


def load_audio(path: Path) -> Tensor:
    """A 48 kHz recording as float32 ``[2, samples]``, mono doubled.

    Raises:
        SettingsError: at another rate.
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


def feature_name(path: Path, music: Path, version: int = 0) -> str:
    """Name of the feature file of a recording that lies below ``music``."""
    name = path.relative_to(music).as_posix().replace("/", "_")
    return f"{name}.{version}.npy" if version else f"{name}.npy"


def other_version(audio: Tensor, random: np.random.Generator) -> Tensor:
    """Another recording of the same music, ``[2, samples]``: other speed and pitch, another mix.

    Resampled as a whole, so the ends reach round to each other.
    """
    mid, side = (audio[0] + audio[1]) / 2, (audio[0] - audio[1]) / 2
    dice = random.random()
    if dice < 0.45:
        side = side * 10 ** (random.uniform(-10, 6) / 20)
    elif dice < 0.57:
        mid = mid * 10 ** (random.uniform(-16, -3) / 20)
    pair = torch.stack([mid + side, mid - side])
    if 0.57 <= dice < 0.67:  # one channel for both
        pair = audio[[int(random.integers(2))]].expand(2, -1)
    if random.random() < 0.3:
        pair = pair * pair.new_tensor([[10 ** (random.uniform(-4, 0) / 20)], [1.0]])
    before = pair.shape[1] // _GRAIN * _GRAIN
    after = before // _GRAIN * _SPEEDS[int(random.integers(len(_SPEEDS)))]
    spectrum = torch.fft.rfft(pair[:, :before])
    return torch.fft.irfft(spectrum[:, : after // 2 + 1], n=after) * (after / before)


@torch.inference_mode()
def extract(features: Features, audio: Tensor, random: np.random.Generator | None = None) -> Tensor:
    """Features of one recording, float32 ``[tokens, feature_dims]``, on the device of ``features``.

    Args:
        random: of another version of it; each minute of it is then another one.
    """
    place = features.window.device
    tokens = audio.shape[1] // SAMPLES_PER_TOKEN
    rows = []
    for first in range(0, tokens, _PIECE):
        start, end = max(0, first - _MARGIN), min(tokens, first + _PIECE + _MARGIN)
        piece = audio[:, start * SAMPLES_PER_TOKEN : end * SAMPLES_PER_TOKEN].to(place)
        if random is None:
            found = features(piece)[first - start :][:_PIECE]
        else:
            piece = other_version(piece, random)
            whole = piece.shape[1] // SAMPLES_PER_TOKEN * SAMPLES_PER_TOKEN
            found = features(piece[:, :whole])[_MARGIN:-_MARGIN]
        rows.append(found)
    return torch.cat(rows) if rows else torch.zeros(0, NanoConfig().feature_dims, device=place)


class Excerpts:
    """Music one piece after the other in one tensor on the device, and random excerpts of it.

    Args:
        pieces: ``[tokens, …]`` each, of any length.
    """

    def __init__(self, pieces: Iterable[Tensor], device: torch.device | str = "cpu") -> None:
        found = [piece for piece in pieces if len(piece)]
        self.rows = torch.cat(found).to(device)
        length = torch.tensor([len(piece) for piece in found])
        self.length, self.end = length.to(device), length.cumsum(0).to(device)

    def batch(self, size: int, tokens: int, generator: torch.Generator) -> Tensor:
        """Excerpts ``[size, tokens, …]`` from everywhere alike; a shorter piece is repeated."""
        place = self.rows.device
        draws = torch.rand(2, size, dtype=torch.float64, generator=generator, device=place)
        piece = torch.searchsorted(self.end, (draws[0] * len(self.rows)).long(), right=True)
        length = self.length[piece]
        offset = (draws[1] * (length - tokens).clamp_min(1)).long()
        inside = (offset.unsqueeze(1) + torch.arange(tokens, device=place)) % length.unsqueeze(1)
        return self.rows[(self.end[piece] - length).unsqueeze(1) + inside]


def load_features(folder: Path, device: torch.device | str = "cpu") -> Excerpts:
    """All features of a folder, in half precision; SettingsError if it holds none."""
    files = sorted(folder.glob("*.npy"))
    if not files:
        raise SettingsError(f"there are no feature files in {folder}; see training.dataset")
    return Excerpts((torch.from_numpy(np.load(file)) for file in files), device)


def fixed_batch(folder: Path, size: int, tokens: int, device: torch.device) -> Tensor:
    """Excerpts to validate with: always the same ones, float32 ``[size, tokens, feature_dims]``."""
    rows = load_features(folder).batch(size, tokens, torch.Generator().manual_seed(0))
    return rows.to(device).float()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.dataset", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--music", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--versions", type=int, default=1, help="of each recording, itself included (%(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    args = parser.parse_args(argv)
    return run_program("dataset", lambda: analyse(args))


def analyse(args: argparse.Namespace) -> None:
    """Features of everything in the folder of music that has none yet."""
    if args.versions < 1:
        raise SettingsError("--versions must be at least 1")
    torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    files = recordings(args.music)
    if not files:
        raise SettingsError(f"there is no recording ({', '.join(SUFFIXES)}) in {args.music}")
    args.out.mkdir(parents=True, exist_ok=True)
    features = Features(NanoConfig()).to(device)
    for path in tqdm(files, desc="analysing", unit="piece"):
        missing = {
            version: target
            for version in range(args.versions)
            if not (target := args.out / feature_name(path, args.music, version)).exists()
        }
        audio = load_audio(path) if missing else None
        for version, target in missing.items():
            assert audio is not None
            # By name and number, so that a version is the same each time.
            seed = [version, zlib.crc32(target.name.encode())]
            random = np.random.default_rng(seed) if version else None
            rows = extract(features, audio, random).half().cpu().numpy()
            part = target.with_suffix(".part")
            with part.open("wb") as stream:
                np.save(stream, rows)
            part.rename(target)


if __name__ == "__main__":
    sys.exit(main())
