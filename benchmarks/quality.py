"""How much of the music survives: ``python -m benchmarks.quality FOLDER_OR_FILE…``.

Decodes each recording from its tokens and compares it with the original, beside yardsticks:

- *copy*: the vocoder fed with the original's features, the ceiling;
- *shuffled*: the same tokens in random order, the floor;
- *half shuffled*: only the learnt twelve bits in random order, the slow channel in place: the right
  long-term spectrum and the wrong music, a harder floor.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
import torch
from torch import Tensor

import codec
from benchmarks import metrics
from codec.base import DecodeSettings
from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN
from codec.nano import Nano
from streaming.compute import DEFAULT_THREADS, use_threads

__all__ = ["main", "measure"]

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus")
FLOORS = ("shuffled", "half shuffled")
MEASURES: dict[str, Callable[[Tensor, Tensor], float]] = {
    "log_mel": metrics.log_mel_distance,
    "chroma": metrics.chroma_correlation,
    "envelope": metrics.envelope_correlation,
    "level_db": metrics.level_difference_db,
    "width_db": metrics.stereo_width_error_db,
    "stft": metrics.stft_distance,
    "onset_f": metrics.onset_f_measure,
    "time_tx": metrics.time_texture,
    "band_tx": metrics.band_texture,
    "band_hz": metrics.bandwidth_error_hz,
}


def load(path: Path, seconds: float) -> Tensor:
    """The first ``seconds`` of a recording as ``[2, samples]`` at 48 kHz, whole tokens only."""
    data, rate = sf.read(path, dtype="float32", always_2d=True)
    data = data[: int(seconds * rate)]
    if rate != SAMPLE_RATE:
        data = soxr.resample(data, rate, SAMPLE_RATE)
    audio = torch.from_numpy(np.ascontiguousarray(data.T))
    audio = audio[:2] if len(audio) > 1 else audio.expand(2, -1)
    return audio[:, : audio.shape[1] // SAMPLES_PER_TOKEN * SAMPLES_PER_TOKEN].contiguous()


def compare(original: Tensor, decoded: Tensor) -> dict[str, float]:
    """All measures of one pair."""
    return {name: function(original, decoded) for name, function in MEASURES.items()}


def decode(nano: Nano, tokens: Tensor, settings: DecodeSettings) -> Tensor:
    """Sound of tokens with the sampler set as asked."""
    return nano.code2sound(
        tokens, settings.steps, settings.guidance, temperature=settings.temperature
    )


@torch.inference_mode()
def measure(nano: Nano, audio: Tensor, settings: DecodeSettings) -> dict[str, dict[str, float]]:
    """Measures of decoded, copied and shuffled sound against the original."""
    tokens = nano.sound2code(audio)
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))
    fast = nano.models.codec.fast_codes
    half = tokens // fast * fast + tokens[order] % fast
    copy = nano.render(nano.features(audio), first_token=0, seed=0)
    return {
        "decoded": compare(audio, decode(nano, tokens, settings)),
        "copy": compare(audio, copy),
        "shuffled": compare(audio, decode(nano, tokens[order], settings)),
        "half shuffled": compare(audio, decode(nano, half, settings)),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("music", type=Path, nargs="+", help="recordings or folders")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--limit", type=int, help="at most this many recordings")
    parser.add_argument("--weights", type=Path, help="another weights file")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    files = [
        file
        for entry in args.music
        for file in (sorted(entry.rglob("*")) if entry.is_dir() else [entry])
        if file.suffix.lower() in SUFFIXES and file.is_file()
    ]
    if not files:
        parser.error(
            f"there is no recording ({', '.join(SUFFIXES)}) in {', '.join(map(str, args.music))}; "
            "give files or folders that hold some"
        )
    use_threads(DEFAULT_THREADS)
    nano = codec.load("nano", args.weights)
    assert isinstance(nano, Nano)
    rows: dict[str, list[dict[str, float]]] = {}
    for file in files[: args.limit]:
        audio = load(file, args.seconds)
        settings = DecodeSettings(args.steps, args.guidance, args.temperature)
        for kind, row in measure(nano, audio, settings).items():
            rows.setdefault(kind, []).append(row)
    medians = {
        kind: {name: float(np.mean([row[name] for row in many])) for name in MEASURES}
        for kind, many in rows.items()
    }
    if args.json:
        print(json.dumps({"files": [str(file) for file in files], "mean": medians, "each": rows}))
        return
    print(f"{'':14}" + "".join(f"{name:>10}" for name in MEASURES))
    for kind, row in medians.items():
        print(f"{kind:14}" + "".join(f"{row[name]:10.3f}" for name in MEASURES))
    ratios = [medians["decoded"]["log_mel"] / medians[k]["log_mel"] for k in FLOORS]
    worst = {
        "chroma": min(row["chroma"] for row in rows["decoded"]),
        "envelope": min(row["envelope"] for row in rows["decoded"]),
        "level_db": max((row["level_db"] for row in rows["decoded"]), key=abs),
    }
    print(
        f"log-mel of decoded over shuffled {ratios[0]:.1%}, over half shuffled {ratios[1]:.1%}, "
        f"{len(rows['decoded'])} recordings"
    )
    print("worst recording: " + ", ".join(f"{k} {v:.3f}" for k, v in worst.items()))


if __name__ == "__main__":
    main()
