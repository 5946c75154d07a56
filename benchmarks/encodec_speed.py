"""nano's speed beside that of EnCodec for 48 kHz stereo: ``python -m benchmarks.encodec_speed``.

EnCodec (Défossez et al., 2022) is what people know as a fast neural codec of music. Its
architecture comes from the package transformers and gets random weights, since arithmetic does not
depend on their values: nothing is downloaded. Both work offline on the whole recording, on the same
threads, and take turns; each figure is the median of several passes, in seconds of work per
second of sound.

EnCodec runs as its authors do it: segments of one second that overlap by a hundredth, normalised,
at its lowest rate (3 kbit/s, two codebooks), which is its fastest.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import codec
from benchmarks.codec import DEMO, medians
from benchmarks.recordings import MusicError, load
from codec.base import Codec
from codec.constants import SAMPLE_RATE
from codec.errors import CodecError
from streaming.compute import DEFAULT_THREADS, use_threads

__all__ = ["main", "random_encodec", "run"]

BITS_PER_S = 3000


def random_encodec() -> Any:
    """EnCodec's published configuration for 48 kHz stereo with random weights.

    Raises ImportError where transformers is missing.
    """
    from transformers import EncodecConfig, EncodecModel

    torch.manual_seed(0)
    config = EncodecConfig(
        audio_channels=2,
        sampling_rate=SAMPLE_RATE,
        normalize=True,
        chunk_length_s=1.0,
        overlap=0.01,
        use_causal_conv=False,
        norm_type="time_group_norm",
        upsampling_ratios=[8, 5, 4, 2],
        target_bandwidths=[3.0, 6.0, 12.0, 24.0],
    )
    model = EncodecModel(config).eval().requires_grad_(False)
    for layer in model.quantizer.layers:  # they start at zero, which is no usual number
        layer.codebook.embed.normal_()
    return model


def run(nano: Codec, encodec: Any, audio: Tensor, passes: int) -> dict[str, Any]:
    """Real-time factors of both codecs both ways and EnCodec's over nano's.

    audio: float32 ``[2, samples]`` at 48 kHz.
    """
    rate = BITS_PER_S / 1000
    guarded = torch.inference_mode()
    tokens = nano.sound2code(audio)
    with torch.inference_mode():
        coded = encodec.encode(audio.unsqueeze(0), bandwidth=rate)
    codes, scales, short = coded.audio_codes, coded.audio_scales, coded.last_frame_pad_length
    tasks: dict[str, Callable[[], object]] = {
        "nano encode": lambda: nano.sound2code(audio),
        "EnCodec encode": guarded(lambda: encodec.encode(audio.unsqueeze(0), bandwidth=rate)),
        "nano decode": lambda: nano.code2sound(tokens),
        "EnCodec decode": guarded(
            lambda: encodec.decode(codes, scales, last_frame_pad_length=short)
        ),
    }
    rows = medians(tasks, passes, audio.shape[1] / SAMPLE_RATE)
    rtf = {row.name: row.value for row in rows}
    return {
        "weights": nano.weights,
        "threads": torch.get_num_threads(),
        "seconds": audio.shape[1] / SAMPLE_RATE,
        "passes": passes,
        "rtf": rtf,
        "encodec_over_nano": {
            way: rtf[f"EnCodec {way}"] / rtf[f"nano {way}"] for way in ("encode", "decode")
        },
    }


def table(figures: dict[str, Any]) -> str:
    """The figures as text."""
    rtf, ratio = figures["rtf"], figures["encodec_over_nano"]
    lines = [
        f"{figures['weights']} beside EnCodec 48 kHz stereo (random weights), real-time factors, "
        f"{figures['threads']} threads, medians of {figures['passes']} passes over "
        f"{figures['seconds']:g} s",
        f"{'':8}{'nano':>9}{'EnCodec':>9}{'EnCodec / nano':>16}",
    ]
    for way in ("encode", "decode"):
        nano, other = rtf[f"nano {way}"], rtf[f"EnCodec {way}"]
        lines.append(f"{way:8}{nano:9.4f}{other:9.4f}{ratio[way]:16.2f}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.encodec_speed", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--music", type=Path, default=DEMO, help="a recording")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--threads", type=int, default=DEFAULT_THREADS)
    parser.add_argument("--weights", type=Path, help="another weights file for nano")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if args.passes < 1:
        parser.error("--passes must be at least 1")
    use_threads(args.threads)
    try:
        encodec = random_encodec()
    except ImportError:
        parser.error(
            "EnCodec's architecture comes from the package transformers, which is not installed; "
            "run: pip install '.[compare]'"
        )
    try:
        nano, audio = codec.load("nano", args.weights), load(args.music, args.seconds)
    except (CodecError, MusicError, OSError) as error:
        parser.error(str(error))
    figures = run(nano, encodec, audio, args.passes)
    print(json.dumps(figures) if args.json else table(figures))


if __name__ == "__main__":
    main()
