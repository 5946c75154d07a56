"""Write nano's decoder as two ONNX graphs and a manifest, for listeners without torch.

    python -m codec.nano.onnx_export --out FOLDER [--weights FILE]

Windows may have any length; :mod:`codec.nano.onnx_run` plays what this writes.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from codec.constants import CODEBOOK_SIZE, SAMPLE_RATE, SAMPLES_PER_TOKEN
from codec.errors import CodecError
from codec.nano.codec import (
    DEFAULT_STEPS,
    DEFAULT_TEMPERATURE,
    FLOW_CONTEXT,
    FLOW_PURPOSE,
    Nano,
    load_nano,
)
from codec.nano.graphs import DecoderGraph, VocoderGraph
from codec.nano.onnx_run import FORMAT, MANIFEST, OnnxDecoder, OnnxNano
from codec.nano.vocoder import NOISE_PURPOSE
from codec.stream import StreamDecoder

__all__ = ["OPSET", "difference", "export", "main"]

OPSET = 18
"""Of the standard operators: layer normalisation came with 17, and every runtime knows 18."""
_HALF_FROM = 1024
"""Weights of fewer numbers are not worth a cast."""


class ExportError(CodecError):
    """The packages that write ONNX are not there."""


def export(nano: Nano, folder: Path) -> dict[str, Any]:
    """Write both graphs and the manifest into ``folder``; returns the manifest.

    Raises ExportError with one sentence where the package onnx is missing.
    """
    if find_spec("onnx") is None:
        raise ExportError("exporting needs the package onnx; run: pip install '.[export]'")
    folder.mkdir(parents=True, exist_ok=True)
    dims, notes = nano.config.feature_dims, nano.config.semitones
    # The lengths of these examples leave no trace in the graphs.
    n, known = 40, 20
    tokens, context = torch.arange(n) * 401, torch.zeros(known, dims)
    example = (tokens, torch.tensor(0), context, torch.zeros(n - known + FLOW_CONTEXT, dims))
    decoder = _write(
        DecoderGraph(nano.models),
        folder / "nano-decoder.onnx",
        {
            "tokens": ["tokens"],
            "first_token": [],
            "context": ["known", dims],
            "noise": ["generated", dims],
        },
        example,
        {"latents": ["tokens", dims]},
    )
    phases = torch.zeros(2 * n + 1, notes)
    vocoder = _write(
        VocoderGraph(nano.models.vocoder),
        folder / "nano-vocoder.onnx",
        {
            "latents": ["tokens", dims],
            "cos": ["segments", notes],
            "sin": ["segments", notes],
            "noise": [2, "samples"],
        },
        (torch.zeros(n, dims), phases, phases, torch.zeros(2, n * SAMPLES_PER_TOKEN)),
        {"sound": [2, "samples"]},
    )
    manifest = _manifest(nano) | {"decoder": decoder, "vocoder": vocoder}
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return manifest


def _manifest(nano: Nano) -> dict[str, Any]:
    """All that a player must know besides the graphs."""
    window, vocoder = nano.decoder_window, nano.models.vocoder
    return {
        "format": FORMAT,
        "weights": nano.weights,
        "digest": nano.digest,
        "opset": OPSET,
        "sample_rate": SAMPLE_RATE,
        "samples_per_token": SAMPLES_PER_TOKEN,
        "feature_dims": nano.config.feature_dims,
        "window": {"context": window.context, "hop": window.hop, "lookahead": window.lookahead},
        "flow_context_tokens": FLOW_CONTEXT,
        "render_margin_tokens": nano.render_margin_tokens,
        "crossfade_samples": nano.crossfade_samples,
        "steps": DEFAULT_STEPS,
        "temperature": DEFAULT_TEMPERATURE,
        "noise": {
            "rule": "a row of width numbers per absolute token: Philox 4x64 with 10 rounds, key "
            "[seed, 0], counter [0, 0, token, purpose], its first word incremented before each "
            "block of four; each 64-bit word gives (its upper 53 bits + 1/2) / 2^53 in float64; "
            "of the row's words the first half u and the second half v give the row's first half "
            "sqrt(-2 ln u) cos(2 pi v) and its second sqrt(-2 ln u) sin(2 pi v); decoder: times "
            "the temperature, from flow_context_tokens before the end of the context on; vocoder: "
            "the first half of each row is one channel's, the second half the other's",
            "decoder": {"purpose": FLOW_PURPOSE, "width": nano.config.feature_dims},
            "vocoder": {"purpose": NOISE_PURPOSE, "width": 2 * SAMPLES_PER_TOKEN},
        },
        "oscillators": {
            "rule": "segment j = 0 ... 2 * tokens starts at sample s = first_token * "
            "samples_per_token * sample_rate / 48000 + (j - 1/2) * segment_samples, at this "
            "sample_rate; cosine and sine of 2 pi (s * hz / sample_rate + start_turns), turns in "
            "float64",
            "sample_rate": nano.config.semitone_rate,
            "segment_samples": vocoder.ramp_hop,
            "hz": vocoder.tone_hz.tolist(),
            "start_turns": vocoder.tone_phase.tolist(),
        },
    }


Shapes = dict[str, list[int | str]]


def _write(
    graph: nn.Module, path: Path, inputs: Shapes, example: tuple[Tensor, ...], outputs: Shapes
) -> dict[str, Any]:
    """One graph as a file; returns its entry in the manifest. Named dimensions are free."""
    import onnx

    shapes = inputs | outputs
    with warnings.catch_warnings():
        # The tracing exporter is the one that writes free lengths without guarding each of them,
        # in seconds and without a further package. That it is the older one is all it warns of:
        # numbers that a trace might have frozen are what the tests look for.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(),
            example,
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={
                name: {axis: size for axis, size in enumerate(shape) if isinstance(size, str)}
                for name, shape in shapes.items()
            },
        )
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
            if isinstance(size, int):  # the exporter does not always know
                dim.dim_value = size
    _halve(model)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    kinds = {"tokens": "int64", "first_token": "int64"}
    described = {
        name: {"type": kinds.get(name, "float32"), "shape": shape} for name, shape in shapes.items()
    }
    return {
        "file": path.name,
        "inputs": {name: described[name] for name in inputs},
        "outputs": {name: described[name] for name in outputs},
    }


def _halve(model: Any) -> None:
    """Store weights that half precision holds exactly, as those of the weights file, that way.

    The graph begins by casting them, which a runtime does once, when it loads the graph.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _HALF_FROM:
            continue
        value = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        if np.array_equal(half.astype(np.float32), value):
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
            casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(casts + nodes)


def difference(nano: Nano, folder: Path, tokens: int = 70, first_token: int = 25 * 86_400) -> float:
    """Largest difference of the sound from torch's, over some windows far into a stream."""
    codes = np.random.default_rng(0).integers(0, CODEBOOK_SIZE, tokens)
    reference = StreamDecoder(nano, first_token=first_token)
    reference.feed(codes)
    reference.finish()
    wanted = np.concatenate(list(reference), axis=1)
    decoder = OnnxDecoder(OnnxNano(folder), first_token=first_token)
    heard = np.concatenate([decoder.push(codes), decoder.finish()], axis=1)
    return float(np.abs(heard - wanted).max())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m codec.nano.onnx_export",
        description="Write nano's decoder as ONNX graphs with a manifest.",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("nano-onnx"), metavar="FOLDER", help="default: nano-onnx"
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="other weights of nano")
    args = parser.parse_args(argv)
    try:
        nano = load_nano(args.weights)
        manifest = export(nano, args.out)
        for name in ("decoder", "vocoder"):
            path = args.out / manifest[name]["file"]
            sys.stdout.write(f"{path}  {path.stat().st_size / 2**20:.1f} MiB\n")
        sys.stdout.write(f"{args.out / MANIFEST}  {nano.weights}, opset {OPSET}\n")
        if find_spec("onnxruntime") is None:
            sys.stdout.write("not compared with torch: onnxruntime is not installed\n")
        else:
            sys.stdout.write(f"largest difference from torch  {difference(nano, args.out):.1e}\n")
    except (CodecError, OSError) as error:
        sys.stderr.write(f"onnx_export: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
