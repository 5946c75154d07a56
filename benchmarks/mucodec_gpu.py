"""mucodec on a graphics card: every figure of docs/mucodec.md, in at most four minutes.

    python -m benchmarks.mucodec_gpu --json figures.json
    python -m benchmarks.mucodec_gpu --rehearse

needs no checkpoint. What does not fit into the time is left out and named; a part that fails says
why, and the others go on. ``--rehearse`` runs all of it with a tiny model on a CPU, where the
figures mean nothing.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from benchmarks import mucodec
from benchmarks.mucodec import RELEASE, random_codec
from codec.base import DecoderWindow, DecodeSettings
from codec.constants import TOKEN_RATE
from codec.mucodec.codec import MuCodec
from codec.mucodec.config import MuCodecConfig, Precision
from codec.mucodec.noise import NoiseAhead
from codec.mucodec.precision import exact_float32
from codec.noise import keyed_normal
from codec.stream import StreamDecoder
from tests import parity
from tests.support.tiny_mucodec import TINY

LIMIT_S = 235.0
PUBLISHED_S = 9.63
"""What the published implementation took on an H200 for 1792 tokens at 20 steps."""
GOLDENS = Path(__file__).parents[1] / "tests" / "goldens"


class Study:
    """The card, the model and what has been measured so far."""

    def __init__(self, rehearse: bool, limit_s: float) -> None:
        self.end = time.monotonic() + limit_s
        self.rehearse = rehearse
        self.device = torch.device("cpu" if rehearse else "cuda")
        # A CPU's convolutions take ages in float16.
        self.precision: Precision = "float32" if rehearse else "float16"
        self.config = TINY if rehearse else MuCodecConfig()
        self.release = DecoderWindow(16, 32, 4) if rehearse else RELEASE
        self.live = DecoderWindow(16, 8, 4) if rehearse else MuCodec.decoder_window
        self.long = DecodeSettings(2 if rehearse else 20, 1.5)
        self.short = DecodeSettings(1 if rehearse else 8, 1.5)
        self.passes = 1 if rehearse else 3
        self.figures: dict[str, object] = {}
        self.rates: dict[torch.dtype, float] = {}

    def left_s(self) -> float:
        """Seconds until the time is up."""
        return self.end - time.monotonic()

    def note(self, name: str, value: object) -> None:
        """Keep a figure and show it."""
        self.figures[name] = value
        shown = f"{value:.4g}" if isinstance(value, float) else value
        print(f"{name}: {shown}", flush=True)

    def part(self, name: str, task: Callable[[], None], need_s: float) -> None:
        """Run a part if there is time; what goes wrong is noted, and the rest goes on."""
        if self.left_s() < need_s:
            self.note(f"{name}: left out", f"{self.left_s():.0f} s left, {need_s:.0f} needed")
            return
        began = time.monotonic()
        try:
            task()
        except Exception as error:
            traceback.print_exc()
            self.note(f"{name}: failed", f"{type(error).__name__}: {error}")
        print(f"  ({name}: {time.monotonic() - began:.1f} s)", flush=True)

    def ms(self, task: Callable[[], object], passes: int = 10) -> float:
        """Median milliseconds of a call."""
        with torch.inference_mode():
            return 1e3 * mucodec.timed(task, self.device, 1 if self.rehearse else passes)

    def build(
        self,
        precision: Precision,
        compiled: bool = True,
        guidance_interval: tuple[float, float] | None = None,
    ) -> MuCodec:
        """The model with the same random weights every time."""
        codec = random_codec(
            self.config,
            self.device,
            precision,
            compiled=compiled,
            guidance_interval=guidance_interval,
        )
        codec.decoder_window = self.live
        return codec

    def flow_inputs(self, window: DecoderWindow, rows: int = 2) -> tuple[Tensor, ...]:
        """What the transformer takes for a window, with and without guidance."""
        c = self.config
        shape = (rows, c.condition_channels, window.tokens // 2, c.latent_bins)
        generator = torch.Generator(self.device).manual_seed(1)
        three = (torch.randn(shape, device=self.device, generator=generator) for _ in range(3))
        return (*three, torch.full((rows,), 0.5, device=self.device))


def limits(study: Study) -> None:
    """What the card can do: products, copies."""
    device, size = study.device, 256 if study.rehearse else 8192
    for kind in (torch.float16, torch.bfloat16, torch.float32):
        a = torch.randn(size, size, device=device, dtype=kind)
        study.rates[kind] = 2e-9 * size**3 / study.ms(functools.partial(torch.matmul, a, a))
        study.note(f"products of {str(kind)[6:]}, TFLOP/s", study.rates[kind])
    if device.type == "cuda" and torch.cuda.get_device_capability() >= (8, 9):
        a8 = torch.randn(size, size, device=device).to(torch.float8_e4m3fn)
        one = torch.ones(size, 1, device=device)
        task = functools.partial(
            torch._scaled_mm, a8, a8.t(), one, one.t(), out_dtype=torch.bfloat16
        )
        study.note("products of fp8 by row, TFLOP/s", 2e-9 * size**3 / study.ms(task))
    source = torch.randn(2**20 if study.rehearse else 2**28, device=device)
    target = torch.empty_like(source)
    ms = study.ms(functools.partial(target.copy_, source))
    study.note("copies, TB/s read and written", 8e-9 * source.numel() / ms)


@torch.inference_mode()
def stages(study: Study, codec: MuCodec, how: str) -> None:
    """Every stage for both windows; by :attr:`MuCodec.fast`, which is eager until it is ready."""
    rate = study.rates.get(codec.dtype, float("nan"))
    for name, window in (("release", study.release), ("live", study.live)):
        # What a hop renders: itself and a crossfade's tail, with what there is of the margins.
        margin, reach, tail = codec.render_margin_tokens, codec._reach_tokens, 4
        before, after = min(margin, window.context), min(margin, window.lookahead - tail)
        tokens = before + window.hop + tail + after
        kept = min(reach, before) + window.hop + tail + min(reach, after)
        latents = torch.randn(
            2, study.config.latent_channels, tokens // 2, study.config.latent_bins
        ).to(study.device)
        latents = latents[: codec.channels_together(tokens // 2)]
        mel = torch.randn(len(latents), 4 * kept, study.config.vae_mels)
        tasks = {
            "flow": study.flow_inputs(window),
            "VAE": (latents,),
            "vocoder": (mel.to(study.device),),
        }
        for stage, inputs in tasks.items():
            plain = functools.partial(codec.fast._stages[stage].plain, *inputs)
            with torch.inference_mode():
                work = mucodec.count(plain)
            ms = study.ms(functools.partial(codec.fast.run, stage, *inputs))
            study.note(f"{how}: {stage}, {name} window, ms", ms)
            study.note(f"{how}: {stage}, {name} window, share of products", 1e3 * work / ms / rate)


def windows(study: Study, codec: MuCodec, how: str) -> None:
    """Times real time of whole decodes, and a joining listener's first sound."""
    rows = [
        ("live windows, 8 evaluations", study.live, study.short),
        ("release windows, 8 evaluations", study.release, study.short),
        ("release windows, 20 steps", study.release, study.long),
    ]
    for name, window, settings in rows:
        rtf = mucodec.decode_rtf(codec, window, settings, study.passes)
        study.note(f"{how}: {name}, times real time", 1 / rtf)
    firsts = [mucodec.first_sound_s(codec, study.live, study.short) for _ in range(3)]
    study.note(f"{how}: first sound, s", max(firsts))


def memory(study: Study, codec: MuCodec) -> None:
    """Of the process, at most, for each kind of window."""
    if study.device.type != "cuda":
        return
    for name, window in (("live", study.live), ("release", study.release)):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        mucodec.decode_rtf(codec, window, study.short, 1)
        encoder = sum(p.nbytes for p in codec.model.muencoder.parameters())
        used = torch.cuda.max_memory_reserved() - encoder  # a listener has none
        study.note(f"memory of a listener, {name} windows, GiB", used / 2**30)


def chain(study: Study, codec: MuCodec) -> None:
    """The sound that the published implementation was timed with."""
    tokens = study.release.tokens * 7 // 4
    codes = np.random.default_rng(0).integers(0, study.config.codebook, tokens)

    def decode() -> None:
        decoder = StreamDecoder(codec, window=study.release, settings=study.long)
        decoder.feed(codes)
        decoder.finish()
        assert sum(block.shape[1] for block in decoder) == tokens * 1920

    seconds = study.ms(decode, 1) / 1e3
    study.note("whole chain, 1792 tokens, 20 steps, s", seconds)
    study.note("against the published implementation on an H200", PUBLISHED_S / seconds)


def together(study: Study, codec: MuCodec) -> None:
    """Four streams as one batch, once that has been compiled too."""
    mucodec.decode_rtf(codec, study.live, study.short, 1, 4)
    codec.fast.wait(max(0.0, min(40.0, study.left_s() - 30)))
    rtf = mucodec.decode_rtf(codec, study.live, study.short, study.passes, 4)
    study.note("live windows, 4 streams together, times real time in all", 1 / rtf)


def noise(study: Study) -> None:
    """Drawing a window's noise whole, and what is left of it if most is there already."""
    frames, hop = study.release.tokens // 2, study.release.hop // 2
    width = study.config.condition_channels * study.config.latent_bins
    whole = study.ms(lambda: keyed_normal(1, 0, frames, width))
    kept = NoiseAhead(width, 3)
    kept.rows(1, 0, frames)
    kept.rows(1, hop, frames)
    kept.draw_ahead(1)
    began = time.perf_counter()
    kept.rows(1, 2 * hop, frames)
    study.note("noise of a release window, ms", whole)
    study.note("noise of a release window, drawn ahead, ms", 1e3 * (time.perf_counter() - began))


def encoder(study: Study, codec: MuCodec) -> None:
    """What exact float32 costs the encoder, and what it is for."""
    tokens = study.release.tokens
    audio = (0.3 * torch.randn(1, 2, tokens * 1920)).to(study.device)
    results = {}
    for name, scope in (("without TF32", exact_float32), ("with TF32", nullcontext)):
        with scope(), torch.inference_mode():
            results[name] = codec.model.encode(audio)
            study.note(
                f"encoder {name}, {tokens / TOKEN_RATE:.0f} s of sound, ms",
                study.ms(lambda: codec.model.encode(audio), 3),
            )
    changed = (results["with TF32"] != results["without TF32"]).float().mean()
    study.note("tokens that TF32 changes, share", float(changed))


def goldens(study: Study) -> None:
    """Parity on this device: 17 of 17 in each precision."""
    only = ["condition", "muq_features"] if study.rehearse else None
    model = parity.filled_model(0 if study.rehearse else 2, str(study.device))
    kinds: tuple[Precision, ...] = ("float32", "float16", "bfloat16")
    for precision in kinds:
        results = parity.check_model(model, GOLDENS, 100, only, precision)
        good = sum(result.ok for result in results)
        worst = max(results, key=lambda result: result.error)
        study.note(
            f"parity in {precision}",
            f"{good} of {len(results)}; worst {worst.error:.1e} ({worst.name})",
        )


def precisions(study: Study) -> None:
    """A velocity's relative error at full depth, random weights."""
    inputs = study.flow_inputs(study.live)
    truth: Tensor | None = None
    kinds: tuple[Precision, ...] = ("float32", "float16", "bfloat16", "fp8")
    for precision in kinds:
        codec = study.build(precision, compiled=False)
        with torch.inference_mode(), exact_float32():
            velocity = codec.model.flow(*inputs)
        if truth is None:
            truth = velocity
        else:
            error = float((velocity - truth).norm() / truth.norm())
            study.note(f"velocity's error in {precision}", error)


def setting(study: Study, name: str, codec: MuCodec) -> None:
    """Live windows with one setting changed, once they are compiled."""
    codec.warm_up(study.live, study.short)
    codec.fast.wait(max(0.0, study.left_s() - 8))
    study.note(f"{name}: shapes compiled", codec.fast.ready)
    inputs = study.flow_inputs(study.live)
    study.note(f"{name}: flow, live window, ms", study.ms(lambda: codec.fast.run("flow", *inputs)))
    rtf = mucodec.decode_rtf(codec, study.live, study.short, study.passes)
    study.note(f"{name}: live windows, 8 evaluations, times real time", 1 / rtf)


def measure(study: Study) -> None:
    """All parts, the most important first; compiling goes on beside what times nothing."""
    on_gpu = study.device.type == "cuda"
    name = torch.cuda.get_device_name() if on_gpu else "cpu"
    study.note("device", name)
    study.note("torch", torch.__version__)
    study.part("limits", lambda: limits(study), 10)
    codec = study.build(study.precision)
    study.part("eager stages", lambda: stages(study, codec, "eager"), 20)
    study.part("eager windows", lambda: windows(study, codec, "eager"), 20)
    study.part("encoder", lambda: encoder(study, codec), 5)
    study.part("noise", lambda: noise(study), 5)
    began = time.monotonic()
    for window in (study.live, study.release):
        codec.warm_up(window, study.short)
    study.part("parity", lambda: goldens(study), 60)
    codec.fast.wait(max(0.0, study.left_s() - 60))
    study.note("compiling, beside parity, s", time.monotonic() - began)
    study.note("shapes compiled, of 6", codec.fast.ready)
    study.part("fast stages", lambda: stages(study, codec, "fast"), 15)
    study.part("fast windows", lambda: windows(study, codec, "fast"), 15)
    study.part("whole chain", lambda: chain(study, codec), 8)
    study.part("memory", lambda: memory(study, codec), 8)
    study.part("precisions", lambda: precisions(study), 15)
    study.part("streams together", lambda: together(study, codec), 20)
    study.part("fp8", lambda: setting(study, "fp8", study.build("fp8")), 25)
    study.part(
        "guidance interval",
        lambda: setting(
            study, "guidance 0:0.5", study.build(study.precision, guidance_interval=(0.0, 0.5))
        ),
        25,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; returns 1 if a part failed, 2 without a GPU."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--rehearse", action="store_true", help="a tiny model on a CPU")
    parser.add_argument("--limit", type=float, default=LIMIT_S, metavar="SECONDS")
    args = parser.parse_args(argv)
    if not args.rehearse and not torch.cuda.is_available():
        print("mucodec_gpu: torch sees no GPU here; --rehearse tries it out", file=sys.stderr)
        return 2
    study = Study(args.rehearse, args.limit)
    # Without a GPU the compiler's first half, which traces, has to do.
    traced = functools.partial(torch.compile, backend="eager")
    with mock.patch("torch.compile", traced) if args.rehearse else nullcontext():
        measure(study)
    if args.json is not None:
        args.json.write_text(json.dumps(study.figures, indent=2) + "\n")
    return 1 if any(name.endswith(": failed") for name in study.figures) else 0


if __name__ == "__main__":
    sys.exit(main())
