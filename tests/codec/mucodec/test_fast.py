"""Stages made fast in the background: compiled, recorded, and the same sound as before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from codec.base import DecoderWindow, DecodeSettings
from codec.mucodec.codec import MuCodec
from codec.mucodec.fast import FastPath, Stage, replaying
from codec.stream import StreamDecoder, step_together
from tests.support.tiny_mucodec import tiny_model

CPU = torch.device("cpu")
WINDOW = DecoderWindow(context=16, hop=8, lookahead=4)
SETTINGS = DecodeSettings(steps=2)


@pytest.fixture(autouse=True)
def _traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The compiler's first half alone, which traces: what it would generate takes minutes."""
    real = torch.compile

    def trace(function: Callable[..., Tensor], **options: object) -> Callable[..., Tensor]:
        assert options == {"dynamic": False}
        return real(function, dynamic=False, backend="eager", fullgraph=True)

    monkeypatch.setattr(torch, "compile", trace)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Doubler:
    """A stage that counts which of its forms ran; the compiled one can be held back."""

    def __init__(self) -> None:
        self.plain = self.fast = 0
        self.released = threading.Event()
        self.released.set()
        self.fails = False

    def path(self) -> FastPath:
        return FastPath({"double": Stage(self.double, lambda: self.compiled)}, CPU)

    def double(self, x: Tensor) -> Tensor:
        self.plain += 1
        return 2 * x

    def compiled(self, x: Tensor) -> Tensor:
        self.released.wait(30)
        if self.fails:
            raise RuntimeError("no compiler here\nand more")
        self.fast += 1
        return 2 * x


def test_eager_code_serves_until_the_compiled_one_is_ready() -> None:
    stage = Doubler()
    path, x = stage.path(), torch.ones(2, 3)
    stage.released.clear()
    with path.watch():
        path.run("double", x)
    for _ in range(3):
        assert torch.equal(path.run("double", x), 2 * x)
    assert (stage.plain, stage.fast, path.ready) == (4, 0, 0)
    stage.released.set()
    path.wait()
    assert path.ready == 1
    path.run("double", x)
    assert (stage.plain, stage.fast) == (4, 2)  # one to make it ready


def test_other_shapes_run_as_they_are_written() -> None:
    stage = Doubler()
    path = stage.path()
    with path.watch():
        path.run("double", torch.ones(2, 3))
    path.wait()
    path.run("double", torch.ones(2, 4))
    path.run("double", torch.ones(3, 3))  # no multiple of what is fast
    assert stage.plain == 3


def test_a_larger_batch_takes_the_fast_way_in_turns_and_then_its_own() -> None:
    stage = Doubler()
    path, x = stage.path(), torch.randn(6, 3)
    with path.watch():
        path.run("double", x[:2])
    path.wait()
    stage.plain = stage.fast = 0
    stage.released.clear()  # that of six rows is not ready yet: hold it back
    path._ready = {key: lambda part: part * 2 for key in path._ready}
    assert torch.equal(path.run("double", x), 2 * x)
    stage.released.set()
    path.wait()
    assert stage.plain == 0
    assert path.ready == 2


def test_what_cannot_be_compiled_goes_on_without(caplog: pytest.LogCaptureFixture) -> None:
    stage = Doubler()
    stage.fails = True
    path, x = stage.path(), torch.ones(1, 2)
    with path.watch():
        path.run("double", x)
    path.wait()
    assert torch.equal(path.run("double", x), 2 * x)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].endswith("goes on without: no compiler here")


def test_a_closed_path_makes_nothing_fast_any_more() -> None:
    stage = Doubler()
    path, x = stage.path(), torch.ones(1, 2)
    with path.watch():
        path.run("double", x)
    path.wait()
    wanted = path.close()
    with path.watch():
        path.run("double", x)
    path.wait()
    assert path.ready == 0
    # Whoever takes its place knows what was to be fast.
    next_path = FastPath({"double": Stage(stage.double, lambda: stage.compiled)}, CPU, wanted)
    next_path.run("double", x)
    next_path.run("double", torch.ones(1, 5))
    next_path.wait()
    assert next_path.ready == 1


def test_a_recorded_call_returns_what_the_next_one_leaves_alone() -> None:
    """As with a CUDA graph, whose memory every replay writes anew."""
    places = [torch.zeros(3), torch.zeros(3)]
    result = torch.zeros(3)

    def replay() -> None:
        torch.add(places[0], places[1], out=result)

    call = replaying(replay, places, result)
    first = call(torch.ones(3), torch.ones(3))
    second = call(torch.full((3,), 5.0), torch.ones(3))
    assert first.tolist() == [2, 2, 2]
    assert second.tolist() == [6, 6, 6]


def test_compiled_stages_compute_what_eager_ones_do() -> None:
    """Every stage, fused as the compiler gets it, traced as a whole without a break."""
    plain = MuCodec(tiny_model(), "tiny", "0" * 64)
    fast = MuCodec(tiny_model(), "tiny", "0" * 64, compiled=True)
    codes = np.random.default_rng(1).integers(0, 16_384, 60)
    fast.warm_up(WINDOW, SETTINGS)
    fast.fast.wait()
    assert fast.fast.ready == 3  # flow, VAE, vocoder
    eager: list[str] = []
    for name, stage in fast.fast._stages.items():
        object.__setattr__(stage, "plain", _noting(eager, name, stage.plain))
    sounds = []
    for codec in (plain, fast):
        decoder = StreamDecoder(codec, seed=3, window=WINDOW, settings=SETTINGS)
        decoder.feed(codes)
        sounds.append([decoder.step() for _ in range(5)])
    # The first two windows have less context, and the first one no margin for the vocoder either;
    # the others are what was warmed up.
    assert eager == ["flow", "flow", "VAE", "vocoder", "flow", "flow", "VAE"]
    for one, other in zip(*sounds, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-4)


def _noting(seen: list[str], name: str, call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def noted(*inputs: Tensor) -> Tensor:
        seen.append(name)
        return call(*inputs)

    return noted


def test_blocks_share_one_compiled_function(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Tensor]:
        compiled.append(len(inputs))
        return graph.forward

    from codec.mucodec.config import MuCodecConfig
    from codec.mucodec.flow import FlowTransformer, TransformerBlock
    from tests.support.seeded import fill_model
    from tests.support.tiny_mucodec import TINY

    monkeypatch.undo()
    config = MuCodecConfig(**{**TINY.__dict__, "flow_layers": 4})
    flow = FlowTransformer(config)
    fill_model(flow)
    flow.requires_grad_(False).prepare(torch.float32)
    block = torch.compile(TransformerBlock.forward, dynamic=False, backend=backend)
    x = torch.randn(2, 8, 4, 4)
    times = torch.tensor([0.2, 0.2])
    with torch.inference_mode():
        got = flow(x, x, x, times, block=block)
        torch.testing.assert_close(got, flow(x, x, x, times))
    assert len(compiled) == 1


def test_several_streams_use_the_compiled_path() -> None:
    codec = MuCodec(tiny_model(), "tiny", "0" * 64, compiled=True)
    codec.warm_up(WINDOW, SETTINGS)
    codec.fast.wait()
    codes = np.random.default_rng(1).integers(0, 16_384, (2, 60))

    def decoders() -> list[StreamDecoder]:
        made = [StreamDecoder(codec, seed=s, window=WINDOW, settings=SETTINGS) for s in (1, 2)]
        for decoder, row in zip(made, codes, strict=True):
            decoder.feed(row)
        return made

    apart = [[decoder.step() for _ in range(4)] for decoder in decoders()]
    streams = decoders()
    ready = codec.fast.ready
    together = [step_together(streams) for _ in range(4)]
    codec.fast.wait()
    assert codec.fast.ready == ready + 1  # the flow of two streams has its own by now
    for stream, blocks in enumerate(apart):
        for turn, block in enumerate(blocks):
            np.testing.assert_allclose(together[turn][stream], block, atol=1e-4, rtol=1e-4)
