"""How fast a codec is with live windows: ``python -m benchmarks.codec --codec nano``.

Real-time factors: seconds of work per second of sound, so 0.1 is ten times faster than real time.
Windows are those of a live stream, so their overlap is counted. Each figure is the median of
several passes over the same sound; encoder and decoder take turns, so that a noisy machine
disturbs both alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from numpy.typing import ArrayLike

import codec
from benchmarks.metrics import seam_jump
from codec.base import (
    Audio,
    Codec,
    DecoderWindow,
    DecodeSettings,
    EncoderWindow,
    TokenArray,
)
from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN
from codec.nano import TorchNano
from codec.stream import StreamDecoder, StreamEncoder
from codec.torch_backend import tensor
from streaming.support.compute import use_threads

__all__ = ["DEMO", "Row", "main", "medians", "run"]

DEMO = Path(__file__).parents[1] / "streaming" / "data" / "demo.ogg"


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, and its value in seconds per second of sound."""

    name: str
    value: float


def timed(function: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def medians(tasks: dict[str, Callable[[], object]], passes: int, seconds: float) -> list[Row]:
    """Median real-time factor of each task; the tasks take turns, after one pass to warm up."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(passes + 1):
        for name, task in tasks.items():
            taken = timed(task)
            if number:
                times[name].append(taken / seconds)
    return [Row(name, statistics.median(values)) for name, values in times.items()]


def encode(model: Codec, audio: ArrayLike, window: EncoderWindow) -> TokenArray:
    """Tokens of a recording through live windows."""
    encoder = StreamEncoder(model, window)
    return np.concatenate([encoder.push(audio), encoder.finish()])


def decode(
    model: Codec, tokens: TokenArray, window: DecoderWindow, settings: DecodeSettings
) -> Audio:
    """Sound of tokens through live windows."""
    decoder = StreamDecoder(model, window=window, settings=settings)
    decoder.feed(tokens)
    decoder.finish()
    return np.concatenate(list(decoder), axis=1)


def stages(nano: TorchNano, sound: Audio, codes: TokenArray) -> dict[str, Callable[[], object]]:
    """nano's parts over the whole recording at once: what each costs without any overlap."""
    models, audio, tokens = nano.models, tensor(sound), tensor(codes)
    with torch.inference_mode():
        features = nano.features(audio)
        batch = features.unsqueeze(0)
        levels = models.codec.levels(batch)
        hidden = models.codec.decode(tokens.unsqueeze(0), 0)[1]
        noisy = torch.randn_like(batch)
        t = torch.zeros(noisy.shape[:2])
    guarded = torch.inference_mode()
    return {
        "features": guarded(lambda: nano.features(audio)),
        "token encoder": guarded(lambda: models.codec.values(batch, levels)),
        "token decoder": guarded(lambda: models.codec.decode(tokens.unsqueeze(0), 0)),
        "flow, one evaluation": guarded(lambda: models.flow(noisy, t, hidden)),
        "vocoder": lambda: nano.render(features, first_token=0, seed=0),
    }


def run(model: Codec, audio: Audio, passes: int, settings: DecodeSettings) -> list[Row]:
    """All rows for one recording ``[2, samples]``."""
    seconds = audio.shape[1] / SAMPLE_RATE
    wide, narrow = model.encoder_window, EncoderWindow(model.encoder_window.left, 8, 8)
    long, short = model.decoder_window, DecoderWindow(model.decoder_window.context, 8, 8)
    tokens = encode(model, audio, wide)
    tasks: dict[str, Callable[[], object]] = {
        "encode, default windows": lambda: encode(model, audio, wide),
        "decode, default windows": lambda: decode(model, tokens, long, settings),
        "encode, low latency": lambda: encode(model, audio, narrow),
        "decode, low latency": lambda: decode(model, tokens, short, settings),
    }
    if isinstance(model, TorchNano):
        tasks |= stages(model, audio, tokens)
    return medians(tasks, passes, seconds)


def measure_mucodec(args: argparse.Namespace) -> None:
    """Stage by stage; see :mod:`benchmarks.mucodec`."""
    from benchmarks import mucodec
    from codec.mucodec.config import MuCodecConfig, Precision

    device = torch.device(args.torch_device or ("cuda" if torch.cuda.is_available() else "cpu"))
    on_cpu = device.type == "cpu"
    precision: Precision = args.precision or ("float32" if on_cpu else "float16")
    layers = args.flow_layers or (2 if on_cpu else MuCodecConfig.flow_layers)
    model = mucodec.random_codec(
        MuCodecConfig(flow_layers=layers), device, precision, compiled=args.compiled
    )
    figures = mucodec.run(
        model,
        tokens=max(16, args.window_tokens or (16 if on_cpu else 1024)),
        steps=args.steps or 8,
        guidance=args.guidance,
        passes=args.passes,
        streams=args.streams,
    )
    print(json.dumps(figures) if args.json else mucodec.report(figures))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codec", default="nano")
    parser.add_argument("--weights", type=Path)
    parser.add_argument(
        "--engine", choices=["onnx", "torch"], default="onnx", help="of nano (default: onnx)"
    )
    parser.add_argument("--music", type=Path, default=DEMO, help="a 48 kHz stereo recording")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, help="evaluations of the flow")
    parser.add_argument("--json", action="store_true")
    group = parser.add_argument_group("mucodec alone")
    group.add_argument("--random-weights", action="store_true", help="needs no checkpoint")
    group.add_argument("--torch-device", default=None, help="cpu or cuda (default: what is there)")
    group.add_argument("--precision", choices=codec.PRECISIONS, help="default: by the device")
    group.add_argument("--flow-layers", type=int, help="default: 24, on a CPU 2")
    group.add_argument("--window-tokens", type=int, help="default: 1024, on a CPU 16")
    group.add_argument("--guidance", type=float, default=1.5)
    group.add_argument(
        "--no-compile", dest="compiled", action="store_false", default=None, help="eager alone"
    )
    group.add_argument("--streams", type=int, default=1, help="also decode so many as one batch")
    args = parser.parse_args(argv)
    use_threads(args.threads)
    if args.codec == "mucodec" and args.random_weights:
        measure_mucodec(args)
        return
    began = time.perf_counter()
    model = codec.load(args.codec, args.weights, "cpu" if args.engine == "torch" else None)
    load_s = time.perf_counter() - began
    data, _ = sf.read(args.music, dtype="float32", always_2d=True)
    samples = int(args.seconds * SAMPLE_RATE) // SAMPLES_PER_TOKEN * SAMPLES_PER_TOKEN
    audio = np.ascontiguousarray(data.T[:, :samples])
    settings = DecodeSettings(steps=args.steps)
    rows = run(model, audio, args.passes, settings)
    both = rows[0].value + rows[1].value
    tokens = encode(model, audio, model.encoder_window)
    sound = decode(model, tokens, model.decoder_window, settings)
    jump = seam_jump(sound, model.decoder_window.hop * SAMPLES_PER_TOKEN)
    if args.json:
        print(
            json.dumps(
                {
                    "codec": model.name,
                    "weights": model.weights,
                    "engine": args.engine,
                    "threads": args.threads,
                    "load_s": load_s,
                    "rtf": {row.name: row.value for row in rows},
                    "rtf_encode_and_decode": both,
                    "seam_jump": jump,
                }
            )
        )
        return
    print(
        f"{model.weights}, {args.threads} threads, {args.seconds:g} s of sound, "
        f"loaded in {load_s:.2f} s"
    )
    for row in rows:
        print(f"  {row.name:28} {row.value:8.4f}")
    print(f"  {'encode + decode, default':28} {both:8.4f}")
    print(f"  {'change at seams / elsewhere':28} {jump:8.3f}")


if __name__ == "__main__":
    main()
