"""nano on onnxruntime: what programs compute with, since it starts fast and takes little room.

Three graphs (:mod:`codec.nano.onnx_export`) do the work; noise, and phases of the oscillators in
double precision, come in from here. Settings of the flow that the graphs lack are computed by
:class:`~codec.nano.codec.TorchNano`, if torch is installed. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

import codec
from codec.base import Audio, DecoderWindow, DecodeSettings, EncoderWindow, Latents, TokenArray
from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN
from codec.errors import WeightsError
from codec.nano.base import (
    DEFAULT_STEPS,
    DEFAULT_TEMPERATURE,
    FLOW_CONTEXT,
    FLOW_PURPOSE,
    NOISE_PURPOSE,
    SIDE_PERIOD,
    Nano,
)
from codec.nano.config import NanoConfig
from codec.nano.weights import BUNDLED, Weights
from codec.noise import keyed_normal
from codec.threads import threads

if TYPE_CHECKING:
    from codec.nano.codec import TorchNano

__all__ = ["GRAPHS", "OnnxNano", "segment_phases"]

Array = NDArray[np.float32]
_CONFIG: Final = NanoConfig()


@dataclass(frozen=True)
class Graph:
    """Shapes of what goes in and comes out, by name.

    Sizes that are words are free, but for ``features`` (720) and ``semitones`` (84).
    """

    inputs: dict[str, tuple[int | str, ...]]
    outputs: dict[str, tuple[int | str, ...]]


GRAPHS: Final = {
    "encoder": Graph({"audio": (2, "samples"), "first_token": ()}, {"tokens": ("tokens",)}),
    "decoder": Graph(
        {
            "tokens": ("tokens",),
            "first_token": (),
            "context": ("known", "features"),
            "noise": ("generated", "features"),
        },
        {"latents": ("tokens", "features")},
    ),
    "vocoder": Graph(
        {
            "latents": ("tokens", "features"),
            "cos": ("segments", "semitones"),
            "sin": ("segments", "semitones"),
            "noise": (2, "samples"),
        },
        {"sound": (2, "samples")},
    ),
}
"""Tokens and first_token are int64, all else float32."""


def segment_phases(first_token: int, tokens: int) -> tuple[Array, Array]:
    """Cosines and sines of the oscillators' phases, float32 ``[2 * tokens + 1, semitones]`` each.

    Segment j begins half a segment before sample ``j * hop`` of the window, counted at the bank's
    own rate. Turns are counted in float64 from the start of the stream: after minutes, single
    precision has lost their fraction.
    """
    c = _CONFIG
    hop = SAMPLES_PER_TOKEN // c.decimation // c.semitone_frames
    notes = np.arange(c.semitones) + c.semitone_low
    hz = 440 * 2 ** ((notes - 69) / 12)
    first = first_token * SAMPLES_PER_TOKEN * c.semitone_rate // SAMPLE_RATE
    start = first - hop // 2 + hop * np.arange(2 * tokens + 1, dtype=np.float64)[:, None]
    # Fixed start phases, spread by the golden ratio so that octaves do not line up.
    turns = start * hz / c.semitone_rate + np.modf(notes * 0.6180339887498949)[0]
    angle = 2 * np.pi * np.modf(turns)[0]
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


class OnnxNano(Nano):
    """nano with the graphs that come with the program and any packed weights file.

    A graph is loaded when it is first run, so a listener has no encoder in memory, and the reverse.
    """

    def __init__(self, weights: Weights) -> None:
        self._file = weights
        self.weights = weights.name
        self.digest = weights.digest

    def _session(self, name: str) -> Any:
        """Raises WeightsError with one sentence if graph and weights do not go together."""
        import onnxruntime  # takes a third of a second

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Looking for more to optimise makes the start longer, and nothing faster.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        # What a window needs is let go again. Weights stay int8 and are unpacked where they are
        # used: a fiftieth more work, and a third of the memory.
        options.enable_cpu_mem_arena = False
        graph = BUNDLED.with_name(f"nano-{name}.onnx")
        if self._file.path != BUNDLED:  # where the graph looks by itself
            data = np.memmap(self._file.path, mode="r")
            options.add_external_initializers_from_files_in_memory(
                [BUNDLED.name], [data], [data.size]
            )
        try:
            return onnxruntime.InferenceSession(
                graph,
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=["ConstantFolding"],
            )
        except Exception as error:  # onnxruntime's own, of many kinds
            raise WeightsError(
                f"{self._file.path} and {graph.name} do not go together; use the program version "
                f"that the weights were made with ({error})"
            ) from error

    @cached_property
    def _encoder(self) -> Any:
        return self._session("encoder")

    @cached_property
    def _decoder(self) -> Any:
        return self._session("decoder")

    @cached_property
    def _vocoder(self) -> Any:
        return self._session("vocoder")

    @cached_property
    def _torch(self) -> TorchNano:
        """The same weights in torch, for settings that the graphs lack."""
        codec.require_torch("nano with another number of steps, guidance or another solver")
        from codec.nano.torch_weights import load_torch_nano

        return load_torch_nano(self._file)

    def warm_up(
        self, window: EncoderWindow | DecoderWindow, settings: DecodeSettings | None = None
    ) -> None:
        """Load the graphs that this window takes, or torch if the settings need it."""
        if isinstance(window, EncoderWindow):
            _ = self._encoder
        elif _in_graphs(settings or DecodeSettings()):
            _ = self._decoder, self._vocoder
        else:
            _ = self._torch, self._vocoder

    def encode_window(self, audio: Audio, window: EncoderWindow, *, first_token: int) -> TokenArray:
        """See the base."""
        first = (first_token - window.left) % SIDE_PERIOD  # the graph takes no negative numbers
        inputs = {"audio": audio, "first_token": np.array(first)}
        tokens: TokenArray = self._encoder.run(["tokens"], inputs)[0]
        return tokens[window.left : window.left + window.hop]

    def decode_window(
        self,
        tokens: TokenArray,
        *,
        first_token: int,
        context: Latents | None,
        seed: int,
        settings: DecodeSettings,
    ) -> Latents:
        """See the base."""
        if not _in_graphs(settings):
            return self._torch.decode_window(
                tokens, first_token=first_token, context=context, seed=seed, settings=settings
            )
        dims = _CONFIG.feature_dims
        if context is None:
            context = np.zeros((0, dims), np.float32)
        temperature = DEFAULT_TEMPERATURE if settings.temperature is None else settings.temperature
        start = max(0, len(context) - FLOW_CONTEXT)
        noise = keyed_normal(seed, first_token + start, len(tokens) - start, dims, FLOW_PURPOSE)
        inputs = {
            "tokens": tokens,
            "first_token": np.array(first_token),
            "context": context,
            "noise": np.float32(temperature) * noise,
        }
        return self._decoder.run(["latents"], inputs)[0]

    def render(self, latents: Latents, *, first_token: int, seed: int) -> Audio:
        """See the base."""
        width = 2 * SAMPLES_PER_TOKEN
        rows = keyed_normal(seed, first_token, len(latents), width, NOISE_PURPOSE)
        cos, sin = segment_phases(first_token, len(latents))
        inputs = {
            "latents": latents,
            "cos": cos,
            "sin": sin,
            "noise": np.concatenate(np.split(rows, 2, axis=1)).reshape(2, -1),
        }
        sound: Audio = self._vocoder.run(["sound"], inputs)[0]
        return sound


def _in_graphs(settings: DecodeSettings) -> bool:
    """Whether the graphs can do it: the flow in one step of Euler's, without guidance."""
    steps = DEFAULT_STEPS if settings.steps is None else settings.steps
    return (
        steps == DEFAULT_STEPS and settings.guidance in (None, 1.0) and settings.solver == "euler"
    )
