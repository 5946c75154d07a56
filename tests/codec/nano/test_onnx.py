"""nano on onnxruntime: the graphs sound as torch does, with any weights that fit them."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.base import DecodeSettings
from codec.constants import CODEBOOK_SIZE, SAMPLES_PER_TOKEN
from codec.errors import WeightsError
from codec.nano import OnnxNano, TorchNano, load_nano, onnx_export
from codec.nano.codec import NanoModels
from codec.nano.config import NanoConfig
from codec.nano.graphs import RealFourier
from codec.nano.onnx_codec import GRAPHS
from codec.nano.torch_weights import load_models, load_torch_nano, packed_tensors, save_nano
from codec.nano.weights import BUNDLED, offsets, read_weights
from codec.noise import keyed_normal
from codec.stream import StreamDecoder
from tests import ROOT

CLOSE = 1e-3
"""What is asked of the graphs."""
A_DAY = 25 * 86_400

Array = NDArray[np.float32]


@torch.no_grad()
def seeded_models() -> NanoModels:
    """Weights in half precision, as shipped ones are, with an audible say for every part."""
    models = NanoModels(NanoConfig())
    generator = torch.Generator().manual_seed(1)

    def draw(value: Tensor, mean: float | Tensor, deviation: float) -> None:
        value.copy_(mean + deviation * torch.randn(value.shape, generator=generator))

    for name, value in models.named_parameters():
        if name.endswith(".scale"):
            draw(value, 0.3, 0.05)
        elif value.ndim > 1:
            draw(value, 0, 1 / math.sqrt(value[0].numel()))
        elif "norm" not in name:
            draw(value, 0, 0.1)
    codec, flow = models.codec, models.flow
    mel, semitone, image = codec.normalizer.mean.split([512, 168, 40])
    draw(mel, -2.5, 0.5)
    draw(semitone, -6.0, 1.0)
    draw(image, -1.0, 0.3)
    for deviation in (codec.normalizer.deviation, flow.deviation):
        deviation.copy_(0.3 + 0.5 * torch.rand(deviation.shape, generator=generator))
    for book, level in zip(codec.level.codebooks, (1.0, 0.0), strict=True):
        draw(book, level + 0.3 * book, 0.3)
    codec.start_from_slow()
    for value in models.state_dict().values():
        if value.is_floating_point():
            value.copy_(value.half())
    return models


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed file with other weights than the bundled ones."""
    path = tmp_path_factory.mktemp("weights") / "seeded.safetensors"
    save_nano(seeded_models(), path, {})
    return path


@pytest.fixture(scope="module")
def onnx_nano(weights: Path) -> OnnxNano:
    nano = load_nano(weights)
    assert isinstance(nano, OnnxNano)
    return nano


@pytest.fixture(scope="module")
def torch_nano(weights: Path) -> TorchNano:
    return load_torch_nano(read_weights(weights))


def tokens_of(n: int, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, CODEBOOK_SIZE, n)


def latents_of(
    nano: OnnxNano | TorchNano, n: int, context: Array | None, first_token: int, seed: int = 5
) -> Array:
    latents: Array = nano.decode_window(
        tokens_of(n), first_token=first_token, context=context, seed=seed, settings=DecodeSettings()
    )
    return latents


@pytest.mark.parametrize("name", list(GRAPHS))
def test_graphs_hold_real_tensors_and_no_fourier_operators(name: str) -> None:
    model = onnx.load(BUNDLED.with_name(f"nano-{name}.onnx"), load_external_data=False)
    assert not {"DFT", "STFT", "Loop", "If", "Scan"} & {node.op_type for node in model.graph.node}
    assert [value.name for value in model.graph.input] == list(GRAPHS[name].inputs)
    assert [value.name for value in model.graph.output] == list(GRAPHS[name].outputs)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", onnx_export.OPSET)]
    assert BUNDLED.with_name(f"nano-{name}.onnx").stat().st_size < 400_000


def test_the_graphs_tensors_lie_where_every_weights_file_has_them(weights: Path) -> None:
    places = offsets(packed_tensors(seeded_models()))
    used = set()
    for name in GRAPHS:
        model = onnx.load(BUNDLED.with_name(f"nano-{name}.onnx"), load_external_data=False)
        for tensor in model.graph.initializer:
            if tensor.external_data:
                said = {entry.key: entry.value for entry in tensor.external_data}
                assert said["location"] == BUNDLED.name
                assert (int(said["offset"]), int(said["length"])) == places[tensor.name]
                used.add(tensor.name)
    assert {name for name in places if name not in used} <= {"flow.absent"}
    assert weights.stat().st_size == BUNDLED.stat().st_size


@pytest.mark.parametrize(("n", "first"), [(62, 0), (46, 24), (8, 3), (1, A_DAY)])
def test_tokens_are_those_of_torch(
    onnx_nano: OnnxNano, torch_nano: TorchNano, n: int, first: int
) -> None:
    rng = np.random.default_rng(0)
    audio = rng.standard_normal((2, 62 * SAMPLES_PER_TOKEN), np.float32)
    audio *= np.linspace(0.001, 0.3, audio.shape[1], dtype=np.float32)
    got, wanted = (
        nano.encode_window(audio, nano.encoder_window, first_token=first)
        for nano in (onnx_nano, torch_nano)
    )
    assert len(got) == onnx_nano.encoder_window.hop
    assert (got == wanted).mean() >= 0.95


@pytest.mark.parametrize(
    ("n", "known", "first_token"),
    [
        (32, 0, 0),
        (160, 128, A_DAY - 1),
        (48, 24, 3),
        (20, 1, 17),
        (30, 29, 4),
        (3, 0, 1),
        (1, 0, 0),
    ],
)
def test_latents_and_sound_are_those_of_torch(
    onnx_nano: OnnxNano, torch_nano: TorchNano, n: int, known: int, first_token: int
) -> None:
    context = latents_of(torch_nano, n, None, first_token, seed=9)[:known] if known else None
    wanted = latents_of(torch_nano, n, context, first_token)
    got = latents_of(onnx_nano, n, context, first_token)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=CLOSE)
    heard, sound = (
        nano.render(wanted, first_token=first_token, seed=5) for nano in (onnx_nano, torch_nano)
    )
    assert sound.std() > 0.003
    np.testing.assert_allclose(heard, sound, rtol=0, atol=CLOSE)


def test_what_goes_into_the_graphs_is_heard(onnx_nano: OnnxNano) -> None:
    """Else the comparisons above would hold of graphs that leave it out."""
    latents = latents_of(onnx_nano, 32, None, 3)

    def differs(one: Array, other: Array) -> bool:
        return float(np.abs(one - other).max()) > 20 * CLOSE

    assert differs(latents, latents_of(onnx_nano, 32, None, 4))
    assert differs(latents, latents_of(onnx_nano, 32, None, 3, seed=6))
    sound = onnx_nano.render(latents, first_token=3, seed=5)
    assert differs(sound, onnx_nano.render(latents, first_token=4, seed=5))
    for part in (slice(0, 512), slice(512, 680), slice(680, 720)):
        other = latents.copy()
        other[:, part] += 1
        assert differs(sound, onnx_nano.render(other, first_token=3, seed=5))


def test_a_stream_sounds_as_in_torch(onnx_nano: OnnxNano, torch_nano: TorchNano) -> None:
    sounds = []
    for nano in (onnx_nano, torch_nano):
        decoder = StreamDecoder(nano, seed=2, first_token=A_DAY + 3)
        decoder.feed(tokens_of(160))
        decoder.finish()
        sounds.append(np.concatenate(list(decoder), axis=1))
    np.testing.assert_allclose(sounds[0], sounds[1], rtol=0, atol=CLOSE)


def test_int8_sounds_as_half_precision_does(tmp_path: Path) -> None:
    """What the graphs play is what the file says: matrices times scales, all else as it is."""
    models, packed = seeded_models(), packed_tensors(seeded_models())
    matrix = packed["flow.outward.weight"] * packed["flow.outward.weight.scale"]
    exact = models.flow.outward.weight.detach().numpy().T
    assert packed["flow.outward.weight"].dtype == np.int8
    assert np.abs(matrix - exact).max() <= np.abs(exact).max() / 127
    loaded = TorchNano(models, "", "")
    path = tmp_path / "packed.safetensors"
    save_nano(models, path, {})
    again = load_torch_nano(read_weights(path))
    one, other = (n.code2sound(tokens_of(60)) for n in (loaded, again))
    assert 0 < np.square(one - other).mean() < 1e-3 * np.square(one).mean()


def test_finer_settings_are_torchs(onnx_nano: OnnxNano, torch_nano: TorchNano) -> None:
    for settings in ({"steps": 2}, {"steps": 0}, {"guidance": 1.5}):
        got, wanted = (n.code2sound(tokens_of(40), **settings) for n in (onnx_nano, torch_nano))
        np.testing.assert_allclose(got, wanted, rtol=0, atol=CLOSE)


def test_exporting_anew_gives_the_graphs_that_are_there(tmp_path: Path) -> None:
    """Of the same operators and tensors; another version of torch may name them otherwise."""
    for path in onnx_export.export(load_models(read_weights()), tmp_path):
        made, there = (
            onnx.load(p, load_external_data=False) for p in (path, BUNDLED.with_name(path.name))
        )
        tensors = [{t.name: t.external_data for t in m.graph.initializer} for m in (made, there)]
        assert tensors[0].keys() == tensors[1].keys()
        assert [n.op_type for n in made.graph.node] == [n.op_type for n in there.graph.node]


def test_missing_packages_are_one_sentence(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(onnx_export, "find_spec", lambda _name: None)
    assert onnx_export.main(["--out", str(tmp_path)]) == 2
    assert "pip install '.[export]'" in capsys.readouterr().err


WITHOUT_TORCH = """
import sys; sys.modules["torch"] = None
import numpy as np, codec
from codec.errors import DeviceError
nano = codec.load("nano")
tokens = nano.sound2code(np.zeros((2, 30_000), np.float32))
assert nano.code2sound(tokens).shape == (2, 16 * 1920)
for wanted in (
    lambda: codec.load("mucodec"),
    lambda: codec.load("nano", device="cuda"),
    lambda: nano.code2sound(tokens, steps=2),
):
    try:
        wanted()
    except DeviceError as error:
        print(error)
"""


def test_nano_needs_no_torch_and_says_what_does() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == 3
    assert all("needs torch, which is not installed; run: pip install" in line for line in said)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "short.safetensors"
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3, np.float32)}, other, metadata={"format": "music350-nano-int8"})
    nano = load_nano(other)
    with pytest.raises(WeightsError, match="do not go together"):
        nano.warm_up(nano.decoder_window)


def test_transforms_are_those_of_the_fft():
    fourier = RealFourier(torch.hann_window(480))
    signal = torch.randn(2, 10 * 120, generator=torch.Generator().manual_seed(0))
    real, imag = fourier.analyse(signal)
    frames = torch.nn.functional.pad(signal, (180, 180)).unfold(-1, 480, 120)
    wanted = torch.fft.rfft(frames * fourier.window)
    torch.testing.assert_close(torch.complex(real, imag), wanted, rtol=0, atol=1e-4)
    inside = slice(360, -360)  # where four frames overlap
    again = fourier.synthesise(torch.stack([real, imag]))
    torch.testing.assert_close(again[:, inside], signal[:, inside], rtol=0, atol=1e-5)


def philox(key: int, counter: list[int]) -> list[int]:
    """Four words of Philox 4x64 with 10 rounds (Salmon et al., 2011)."""
    mask, keys = (1 << 64) - 1, [key, 0]
    for _ in range(10):
        left, right = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
        counter = [
            (right >> 64) ^ counter[1] ^ keys[0],
            right & mask,
            (left >> 64) ^ counter[3] ^ keys[1],
            left & mask,
        ]
        keys = [(keys[0] + 0x9E3779B97F4A7C15) & mask, (keys[1] + 0xBB67AE8584CAA73B) & mask]
    return counter


def test_noise_follows_the_rule_in_the_documents():
    """Written out again from that rule (docs/portable.md), as other languages have to."""
    width, token, purpose, seed = 12, A_DAY, 2, 77
    words = [w for block in range(3) for w in philox(seed, [block + 1, 0, token, purpose])]
    unit = [((word >> 11) + 0.5) / 2**53 for word in words]
    pairs = list(zip(unit[:6], unit[6:], strict=True))
    wanted = [
        math.sqrt(-2 * math.log(u)) * turn(2 * math.pi * v)
        for turn in (math.cos, math.sin)
        for u, v in pairs
    ]
    np.testing.assert_allclose(keyed_normal(seed, token, 1, width, purpose)[0], wanted, rtol=1e-6)
