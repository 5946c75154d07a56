"""Speed of the published model, stage by stage; run by ``python -m benchmarks.codec``.

Needs no checkpoint: arithmetic does not depend on the weights' values. Every stage gets a
real-time factor (seconds of work per second of sound), its arithmetic in TFLOP per second of sound
(counted by torch while it runs), and its share of the rate that a large matrix product reaches
on the same device in the same precision.
"""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from codec.base import DecoderWindow, DecodeSettings
from codec.constants import SAMPLES_PER_TOKEN, TOKEN_RATE
from codec.mucodec.codec import MuCodec
from codec.mucodec.config import MuCodecConfig, Precision
from codec.mucodec.model import MuCodecModel
from codec.stream import StreamDecoder, step_together
from codec.torch_backend import array

__all__ = ["StageRow", "listener_bytes", "random_codec", "report", "run"]

RELEASE = DecoderWindow(context=252, hop=768, lookahead=4)
"""The release's windows of 1024 tokens, but for a lookahead of four to crossfade over."""


@dataclass(frozen=True)
class StageRow:
    """One stage: seconds and TFLOP per second of sound, share of the measured matrix rate."""

    name: str
    rtf: float
    tflop: float
    share: float


def random_codec(
    config: MuCodecConfig,
    device: torch.device,
    precision: Precision,
    *,
    compiled: bool | None = None,
    guidance_interval: tuple[float, float] | None = None,
    seed: int = 0,
) -> MuCodec:
    """The model with random weights of a usual size."""
    model = MuCodecModel.unfilled(config).to(device)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("num_batches_tracked"):
                value.zero_()
            elif name.endswith(("running_var", "counts", "sum_x2", "scale_factor", "weight_g")):
                value.fill_(1.0)
            elif name.endswith(("running_mean", "sum_x", "bias")):
                value.zero_()
            else:
                fan = value[0].numel() if value.ndim > 1 else 1
                value.normal_(generator=generator).mul_(fan**-0.5)
    return MuCodec(
        model,
        "random",
        "0" * 64,
        device=device,
        precision=precision,
        compiled=compiled,
        guidance_interval=guidance_interval,
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(task: Callable[[], object], device: torch.device, passes: int) -> float:
    """Median seconds of a call, after one to warm up."""
    task()
    taken = []
    for _ in range(passes):
        _wait(device)
        began = time.perf_counter()
        task()
        _wait(device)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def matrix_rate(device: torch.device, precision: torch.dtype, passes: int) -> float:
    """TFLOP a second of a large square matrix product, the practical limit."""
    size = 8192 if device.type == "cuda" else 2048
    a = torch.randn(size, size, device=device, dtype=precision)
    return 2e-12 * size**3 / timed(lambda: a @ a, device, max(5, passes))


def count(task: Callable[[], object]) -> float:
    """TFLOP of a call."""
    with FlopCounterMode(display=False) as counter:
        task()
    return float(counter.get_total_flops()) * 1e-12


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that are alive, and the most that ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._add(value.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


@torch.inference_mode()
def listener_bytes(window: DecoderWindow, config: MuCodecConfig | None = None) -> tuple[int, int]:
    """Bytes of a listener's weights in half precision, and the most that a window takes beside.

    Counted without a GPU, on tensors that have no memory: what torch would allocate, but for the
    libraries' own work space. Attention counts as a fused kernel, which keeps no scores.
    """
    with torch.device("meta"):
        model = MuCodecModel(config, "decoder")
    codec = MuCodec(model, "none", "0" * 64, device="meta", precision="bfloat16")
    weights = sum(part.nbytes for part in (*model.parameters(), *model.buffers()))
    c = model.config

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.empty_like(q)

    def latents(batch: int, channels: int, tokens: int) -> Tensor:
        return torch.empty(batch, channels, tokens // 2, c.latent_bins, device="meta")

    fade = codec.crossfade_samples // SAMPLES_PER_TOKEN
    rendered = min(window.tokens, window.hop + fade + 2 * codec.render_margin_tokens)
    most = 0
    with mock.patch("torch.nn.functional.scaled_dot_product_attention", attention):
        with _LiveBytes() as counter:
            inputs = [latents(2, c.condition_channels, window.tokens) for _ in range(3)]
            model.flow(*inputs, torch.empty(2, device="meta"))
        most = max(most, counter.most)
        with _LiveBytes() as counter:
            halves = latents(2, c.latent_channels, rendered)
            for part in halves.split(codec.channels_together(rendered // 2)):
                model.first_stage_model.vocoder.wave(
                    model.first_stage_model.decode(part, model.scale_factor)
                )
        most = max(most, counter.most)
    return weights, most


@torch.inference_mode()
def run(
    codec: MuCodec, *, tokens: int, steps: int, guidance: float, passes: int, streams: int = 1
) -> dict[str, object]:
    """Everything measured, for windows of ``tokens`` tokens, as plain values.

    Args:
        streams: live windows of so many streams are also decoded as one batch.
    """
    model, device = codec.model, codec.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    c = model.config
    seconds = tokens / TOKEN_RATE
    frames = tokens // 2
    audio = 0.3 * torch.randn(1, 2, tokens * SAMPLES_PER_TOKEN, device=device).clamp(-3, 3)
    codes = torch.randint(0, c.codebook, (1, tokens), device=device)
    condition = model.condition(codes)
    latents = torch.randn(1, c.condition_channels, frames, c.latent_bins, device=device)
    batch = 1 if guidance == 1.0 else 2
    wide = [x.expand(batch, -1, -1, -1) for x in (latents, latents, condition)]
    times = torch.full((batch,), 0.5, device=device)
    mel = model.mel(latents)
    window = codec.encoder_window
    hop_seconds = window.hop / TOKEN_RATE
    live = array(0.3 * torch.randn(2, window.tokens * SAMPLES_PER_TOKEN).clamp(-3, 3))
    stages: dict[str, tuple[Callable[[], object], float, torch.dtype]] = {
        "encode, one piece": (lambda: model.encode(audio), seconds, torch.float32),
        "flow, one evaluation": (lambda: model.flow(*wide, times), seconds, codec.dtype),
        "VAE": (lambda: model.mel(latents), seconds, codec.dtype),
        "vocoder": (lambda: model.first_stage_model.vocoder(mel), seconds, codec.dtype),
        "encode, live windows": (
            lambda: codec.encode_window(live, window, first_token=0),
            hop_seconds,
            torch.float32,
        ),
    }
    rates = {kind: matrix_rate(device, kind, passes) for kind in {torch.float32, codec.dtype}}
    rows = []
    for name, (task, length, kind) in stages.items():
        work, taken = count(task), timed(task, device, passes)
        rows.append(StageRow(name, taken / length, work / length, work / taken / rates[kind]))
    settings = DecodeSettings(steps, guidance)
    whole = {}
    live_window = live_windows(codec, tokens)
    windows = {"release windows": RELEASE} if tokens >= RELEASE.tokens else {}
    windows["live windows"] = live_window
    for name, decoder_window in windows.items():
        codec.warm_up(decoder_window, settings)
        codec.fast.wait()
        whole[name] = decode_rtf(codec, decoder_window, settings, passes)
    if streams > 1:
        whole[f"live windows, {streams} streams together"] = decode_rtf(
            codec, live_window, settings, passes, streams
        )
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "precision": str(codec.dtype).removeprefix("torch."),
        "flow_layers": c.flow_layers,
        "window_tokens": tokens,
        "live_window": asdict(live_window),
        "steps": steps,
        "guidance": guidance,
        "matrix_tflops": {str(k).removeprefix("torch."): rate for k, rate in rates.items()},
        "stages": [asdict(row) for row in rows],
        "decode_rtf": whole,
        "first_sound_s": first_sound_s(codec, live_window, settings),
        "memory_gib": (
            torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
        ),
    }


def decode_rtf(
    codec: MuCodec,
    window: DecoderWindow,
    settings: DecodeSettings,
    passes: int,
    streams: int = 1,
) -> float:
    """Seconds of work per second of sound in the steady state, when every window has its context.

    With several streams it is the sound of all of them that counts.
    """
    decoders = [
        StreamDecoder(codec, seed=seed, window=window, settings=settings) for seed in range(streams)
    ]
    hops = passes + 2 + -(-window.context // window.hop)
    for decoder in decoders:
        decoder.feed(
            torch.randint(0, codec.model.config.codebook, (hops * window.hop + window.lookahead,))
        )
    for _ in range(hops - passes - 1):  # until the context is whole; timed() takes one more
        step_together(decoders)
    taken = timed(lambda: step_together(decoders), codec.device, passes)
    return taken / (streams * window.hop / TOKEN_RATE)


def live_windows(codec: MuCodec, tokens: int) -> DecoderWindow:
    """The codec's own windows, or on a CPU, for which they are too much, some of ``tokens``."""
    if tokens >= codec.decoder_window.tokens:
        return codec.decoder_window
    part = tokens // 4
    return DecoderWindow(context=tokens - 2 * part, hop=part, lookahead=part)


def first_sound_s(codec: MuCodec, window: DecoderWindow, settings: DecodeSettings) -> float:
    """Seconds from a joining listener's tokens to its first window of sound."""
    decoder = StreamDecoder(codec, window=window, settings=settings)
    decoder.feed(torch.randint(0, codec.model.config.codebook, (window.hop + window.lookahead,)))
    _wait(codec.device)
    began = time.perf_counter()
    decoder.step()
    _wait(codec.device)
    return time.perf_counter() - began


def report(figures: dict[str, object]) -> str:
    """The figures of :func:`run` as a table."""
    lines = [
        f"mucodec on {figures['device']}, {figures['precision']}, {figures['flow_layers']} flow "
        f"layers, windows of {figures['window_tokens']} tokens",
        f"  {'':24}{'RTF':>10}{'TFLOP':>10}{'share':>8}",
    ]
    stages = figures["stages"]
    assert isinstance(stages, list)
    for row in stages:
        lines.append(f"  {row['name']:24}{row['rtf']:10.4f}{row['tflop']:10.3f}{row['share']:8.1%}")
    whole = figures["decode_rtf"]
    assert isinstance(whole, dict)
    for name, rtf in whole.items():
        lines.append(
            f"  decode, {name}, {figures['steps']} steps: RTF {rtf:.4f} "
            f"({1 / rtf:.2g} times real time)"
        )
    window = figures["live_window"]
    assert isinstance(window, dict)
    lines.append(
        f"  live windows: {window['context']} + {window['hop']} + {window['lookahead']} tokens; "
        f"a joining listener's first one: {figures['first_sound_s']:.2f} s"
    )
    if figures["memory_gib"] is not None:
        lines.append(f"  memory: {figures['memory_gib']:.2f} GiB at most")
    measured = figures["matrix_tflops"]
    assert isinstance(measured, dict)
    rates = ", ".join(f"{kind} {rate:.3g} TFLOP/s" for kind, rate in measured.items())
    lines.append(
        f"  TFLOP are per second of sound; share is of what matrix products reach here: {rates}"
    )
    return "\n".join(lines)
