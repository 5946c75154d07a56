"""Write nano as three ONNX graphs whose tensors lie in the packed weights file.

    python -m codec.nano.onnx_export [--out FOLDER]

The graphs come with the program, beside the weights. They know no weights: they hold the layers,
and offsets into whatever packed file (:mod:`codec.nano.weights`) they are run with. So they are
made anew only if the networks' shape or what surrounds them changes. docs/portable.md describes
them.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from codec.constants import SAMPLES_PER_TOKEN
from codec.errors import CodecError
from codec.nano.base import FLOW_CONTEXT
from codec.nano.codec import NanoModels
from codec.nano.graphs import LEAST_SHARED, graphs
from codec.nano.onnx_codec import GRAPHS
from codec.nano.torch_weights import load_models, packed_tensors
from codec.nano.weights import BUNDLED, offsets, read_weights

__all__ = ["OPSET", "export", "main"]

OPSET = 18
"""Of the standard operators: layer normalisation came with 17, and every runtime knows 18."""


class ExportError(CodecError):
    """The packages that write ONNX are not there."""


def export(models: NanoModels, folder: Path) -> list[Path]:
    """Write the graphs into ``folder``; returns their paths.

    Args:
        models: trained ones, since torch makes one tensor of those that are equal.

    Raises:
        ExportError: the package onnx is missing.
    """
    if find_spec("onnx") is None:
        raise ExportError("exporting needs the package onnx; run: pip install '.[export]'")
    folder.mkdir(parents=True, exist_ok=True)
    c = models.codec.config
    dims, notes = c.feature_dims, c.semitones
    # The lengths of these examples leave no trace in the graphs.
    n, known = 40, 20
    first = torch.tensor(0)
    phases = torch.zeros(2 * n + 1, notes)
    examples: dict[str, tuple[Tensor, ...]] = {
        "encoder": (torch.zeros(2, n * SAMPLES_PER_TOKEN), first),
        "decoder": (
            torch.arange(n) * 401,
            first,
            torch.zeros(known, dims),
            torch.zeros(n - known + FLOW_CONTEXT, dims),
        ),
        "vocoder": (
            torch.zeros(n, dims),
            phases,
            phases,
            torch.zeros(2, n * SAMPLES_PER_TOKEN),
        ),
    }
    tensors = packed_tensors(models)
    paths = []
    for name, graph in graphs(models.eval()).items():
        path = folder / f"nano-{name}.onnx"
        inputs, outputs = (
            _shapes(GRAPHS[name].inputs, dims, notes),
            _shapes(GRAPHS[name].outputs, dims, notes),
        )
        _write(graph, path, inputs, examples[name], outputs)
        _refer(path, tensors)
        paths.append(path)
    return paths


Shapes = dict[str, list[int | str]]


def _shapes(shapes: dict[str, tuple[int | str, ...]], dims: int, notes: int) -> Shapes:
    """With the sizes that follow from the configuration in the place of their names."""
    sizes = {"features": dims, "semitones": notes}
    return {
        name: [sizes.get(size, size) if isinstance(size, str) else size for size in shape]
        for name, shape in shapes.items()
    }


def _write(
    graph: nn.Module, path: Path, inputs: Shapes, example: tuple[Tensor, ...], outputs: Shapes
) -> None:
    """One graph as a file. Named dimensions are free."""
    shapes = inputs | outputs
    with warnings.catch_warnings():
        # The tracing exporter is the one that writes free lengths without guarding each of them,
        # in seconds and without a further package. That it is the older one is all it warns of:
        # numbers that a trace might have frozen are what the tests look for.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            example,
            path,
            dynamo=False,
            opset_version=OPSET,
            do_constant_folding=False,  # weights must stay as they are in the file
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={
                name: {axis: size for axis, size in enumerate(shape) if isinstance(size, str)}
                for name, shape in shapes.items()
            },
        )


def _refer(path: Path, tensors: dict[str, Any]) -> None:
    """Have a graph's tensors lie in the weights file, at the places they have in every such file.

    A matrix is taken as int8 and multiplied by its columns' scales, as the graph's first steps.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(path)
    graph = model.graph
    places = offsets(tensors)
    by_content = {
        value.tobytes(): name for name, value in tensors.items() if value.dtype == np.float32
    }
    used: dict[str, Any] = {}
    renamed: dict[str, str] = {}
    unpacking: list[Any] = []

    def refer(name: str) -> None:
        if name in used:
            return
        kind = TensorProto.INT8 if tensors[name].dtype == np.int8 else TensorProto.FLOAT
        tensor = TensorProto(name=name, data_type=kind, dims=tensors[name].shape)
        tensor.data_location = TensorProto.EXTERNAL
        start, length = places[name]
        for key, value in (("location", BUNDLED.name), ("offset", start), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        used[name] = tensor

    for tensor in graph.initializer:
        value = numpy_helper.to_array(tensor)
        name = tensor.name
        scaled = f"{name}.scale"
        if scaled in tensors:  # a matrix; what turns it round falls away below
            refer(name)
            refer(scaled)
            unpacking += [
                helper.make_node("Cast", [name], [f"{name}.float"], to=TensorProto.FLOAT),
                helper.make_node("Mul", [f"{name}.float", scaled], [f"{name}.columns"]),
            ]
            renamed[name] = f"{name}.columns"
        elif name in tensors and value.ndim == 2 and name.endswith(".weight"):
            refer(name)  # a small matrix, stored [in, out] as well
            renamed[name] = name
        elif name in tensors:
            refer(name)
        elif value.dtype == np.float32 and value.size >= LEAST_SHARED:
            raise ValueError(f"{name} {value.shape} is in no weights file")
        else:
            used[name] = tensor
    matrices = set(renamed)
    nodes: list[Any] = []
    again: dict[str, str] = {}
    for node in graph.node:
        if node.op_type == "Transpose" and node.input[0] in matrices:
            again[node.output[0]] = renamed[node.input[0]]
            continue
        if node.op_type == "Constant":
            value = numpy_helper.to_array(node.attribute[0].t)
            if value.dtype == np.float32 and value.size >= LEAST_SHARED:
                found = by_content[value.tobytes()]
                refer(found)
                again[node.output[0]] = found
                continue
        if any(name in matrices for name in node.input):
            raise ValueError(f"{node.op_type} takes a matrix the other way round")
        for place, name in enumerate(node.input):
            node.input[place] = again.get(name) or renamed.get(name, name)
        nodes.append(node)
    del graph.node[:]
    del graph.initializer[:]
    del graph.value_info[:]
    graph.node.extend(unpacking + nodes)
    graph.initializer.extend(used.values())
    model.doc_string = ""
    for node in graph.node:
        node.doc_string = ""
    path.write_bytes(model.SerializeToString())


def main(argv: Sequence[str] | None = None) -> int:
    """Write the graphs of the weights that come with the program; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m codec.nano.onnx_export",
        description="Write nano as ONNX graphs whose tensors lie in the weights file.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=BUNDLED.parent,
        metavar="FOLDER",
        help="default: where the program has them",
    )
    args = parser.parse_args(argv)
    try:
        for path in export(load_models(read_weights()), args.out):
            sys.stdout.write(f"{path}  {path.stat().st_size / 1000:.0f} kB\n")
    except (CodecError, OSError) as error:
        sys.stderr.write(f"onnx_export: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
