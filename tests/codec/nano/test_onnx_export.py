"""nano's decoder as ONNX graphs: what is in them, and that they sound as torch does.

With a model of seeded weights in which every part is heard, so that nothing here hangs on what
was trained.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.base import DecodeSettings
from codec.constants import CODEBOOK_SIZE
from codec.errors import WeightsError
from codec.nano import onnx_export
from codec.nano.codec import Nano, NanoModels, save_nano
from codec.nano.config import NanoConfig
from codec.nano.graphs import RealFourier
from codec.nano.onnx_run import MANIFEST, OnnxDecoder, OnnxNano
from codec.noise import keyed_normal
from codec.stream import StreamDecoder
from tests import ROOT

CLOSE = 1e-3
"""What is asked of the exported decoder."""
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
def nano() -> Nano:
    return Nano(seeded_models(), "seeded", "0" * 64)


@pytest.fixture(scope="module")
def folder(nano: Nano, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("onnx") / "exported"
    onnx_export.export(nano, out)
    return out


@pytest.fixture(scope="module")
def player(folder: Path) -> OnnxNano:
    return OnnxNano(folder)


def tokens_of(n: int, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, CODEBOOK_SIZE, n)


def torch_sound(nano: Nano, tokens: NDArray[np.int64], first_token: int, seed: int) -> Array:
    decoder = StreamDecoder(nano, seed=seed, first_token=first_token)
    decoder.feed(tokens)
    decoder.finish()
    return np.concatenate(list(decoder), axis=1)


def torch_latents(nano: Nano, n: int, known: int, first_token: int) -> tuple[Array, Array]:
    """A window's context and its latents, both from torch."""
    tokens = tokens_of(n)
    settings = DecodeSettings()
    context = nano.decode_window(
        tokens[:known] if known else tokens[:1],
        first_token=first_token,
        context=None,
        seed=9,
        settings=settings,
    )[:known]
    latents = nano.decode_window(
        tokens,
        first_token=first_token,
        context=context if known else None,
        seed=5,
        settings=settings,
    )
    return context, latents


@pytest.mark.parametrize("name", ["decoder", "vocoder"])
def test_graphs_hold_real_tensors_and_no_fourier_operators(player: OnnxNano, folder: Path, name):
    entry = player.manifest[name]
    model = onnx.shape_inference.infer_shapes(onnx.load(folder / entry["file"]))
    assert not {"DFT", "STFT", "Loop", "If", "Scan"} & {node.op_type for node in model.graph.node}
    values = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    kinds = {value.type.tensor_type.elem_type for value in values}
    kinds |= {tensor.data_type for tensor in model.graph.initializer}
    assert len(values) > 100
    assert not {onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128} & kinds
    assert onnx.TensorProto.DOUBLE not in {v.type.tensor_type.elem_type for v in model.graph.input}


@pytest.mark.parametrize("name", ["decoder", "vocoder"])
def test_the_manifest_says_what_the_graphs_are(player: OnnxNano, folder: Path, name):
    entry = player.manifest[name]
    model = onnx.load(folder / entry["file"])
    assert [(o.domain, o.version) for o in model.opset_import] == [("", player.manifest["opset"])]
    for said, are in ((entry["inputs"], model.graph.input), (entry["outputs"], model.graph.output)):
        assert list(said) == [value.name for value in are]
        for value in are:
            kind = {1: "float32", 7: "int64"}[value.type.tensor_type.elem_type]
            shape = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            assert said[value.name] == {"type": kind, "shape": shape}
    assert (player.manifest["weights"], player.manifest["digest"]) == ("seeded", "0" * 64)


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
def test_latents_are_those_of_torch(
    nano: Nano, player: OnnxNano, n: int, known: int, first_token: int
):
    context, wanted = torch_latents(nano, n, known, first_token)
    got = player.decode(tokens_of(n), first_token, context, seed=5)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=CLOSE)


@pytest.mark.parametrize(("n", "first_token"), [(37, 0), (31, A_DAY + 5), (9, 123), (1, 2)])
def test_sound_is_that_of_torch(nano: Nano, player: OnnxNano, n: int, first_token: int):
    _, latents = torch_latents(nano, n, 0, first_token)
    wanted = nano.render(latents, first_token=first_token, seed=5)
    assert wanted.std() > 0.005
    got = player.render(latents, first_token, seed=5)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=CLOSE)


def test_what_goes_into_the_graphs_is_heard(player: OnnxNano):
    """Else the comparisons above would hold of graphs that leave it out."""
    tokens, none = tokens_of(32), np.zeros((0, 720), np.float32)
    latents = player.decode(tokens, 3, none, seed=5)

    def differs(one: Array, other: Array) -> bool:
        return float(np.abs(one - other).max()) > 20 * CLOSE

    assert differs(latents, player.decode(tokens, 4, none, seed=5))
    assert differs(latents, player.decode(tokens, 3, none, seed=6))
    context = latents[:16].copy()
    continued = player.decode(tokens, 3, context, seed=5)
    context[:, :512] += 1
    assert differs(continued[16:], player.decode(tokens, 3, context, seed=5)[16:])
    sound = player.render(latents, 3, seed=5)
    assert differs(sound, player.render(latents, 4, seed=5))
    for part in (slice(0, 512), slice(512, 680), slice(680, 720)):
        other = latents.copy()
        other[:, part] += 1
        assert differs(sound, player.render(other, 3, seed=5))


@pytest.mark.parametrize(("first_token", "seed"), [(0, 1), (A_DAY + 3, 2)])
def test_a_stream_sounds_as_the_stream_decoder_does(
    nano: Nano, player: OnnxNano, first_token: int, seed: int
):
    tokens = tokens_of(160, seed)
    decoder = OnnxDecoder(player, seed=seed, first_token=first_token)
    parts = [decoder.push(tokens[start : start + 21]) for start in range(0, len(tokens), 21)]
    assert sum(part.shape[1] > 0 for part in parts) >= 4
    got = np.concatenate([*parts, decoder.finish()], axis=1)
    wanted = torch_sound(nano, tokens, first_token, seed)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=0, atol=CLOSE)


def test_the_player_needs_no_torch(nano: Nano, folder: Path, tmp_path: Path):
    tokens = tokens_of(3)
    (tmp_path / "tokens.txt").write_text(" ".join(map(str, tokens)))
    program = (
        "import sys; sys.modules['torch'] = None; from codec.nano.onnx_run import main; "
        "sys.exit(main(sys.argv[1:]))"
    )
    out = tmp_path / "sound.wav"
    arguments = [folder, tmp_path / "tokens.txt", out, "--seed", "4"]
    result = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    with wave.open(str(out)) as file:
        assert (file.getframerate(), file.getnchannels()) == (48_000, 2)
        heard = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2).T
    wanted = torch_sound(nano, tokens, 0, 4)
    np.testing.assert_allclose(heard / 32767, wanted, rtol=0, atol=CLOSE)


def test_weights_in_half_precision_stay_so_in_the_files(nano: Nano, folder: Path):
    decoding = (nano.models.codec.decoder, nano.models.flow, nano.models.vocoder)
    numbers = sum(p.numel() for part in decoding for p in part.parameters())
    size = sum(path.stat().st_size for path in folder.glob("*.onnx"))
    assert size < 2.5 * numbers


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


def test_noise_follows_the_rule_in_the_manifest():
    """Written out again from that rule, as a browser will have to."""
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


def test_the_program_exports_and_compares(nano: Nano, tmp_path: Path, capsys):
    weights = tmp_path / "other.safetensors"
    digest = save_nano(nano.models, weights, {})
    out = tmp_path / "out"
    assert onnx_export.main(["--weights", str(weights), "--out", str(out)]) == 0
    assert json.loads((out / MANIFEST).read_text())["digest"] == digest
    said = capsys.readouterr().out
    assert "nano-decoder.onnx" in said
    assert float(said.rsplit(maxsplit=1)[-1]) < CLOSE


def test_missing_packages_are_one_sentence(nano: Nano, tmp_path: Path, monkeypatch, capsys):
    weights = tmp_path / "other.safetensors"
    save_nano(nano.models, weights, {})
    monkeypatch.setattr(onnx_export, "find_spec", lambda _name: None)
    assert onnx_export.main(["--weights", str(weights), "--out", str(tmp_path)]) == 2
    assert "pip install '.[export]'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(WeightsError, match="pip install onnxruntime"):
        OnnxNano(tmp_path)


def test_missing_weights_end_with_code_2(tmp_path: Path, capsys):
    assert onnx_export.main(["--weights", str(tmp_path / "none"), "--out", str(tmp_path)]) == 2
    assert "there is no file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "holds no exported decoder"),
        ("{", "holds no exported decoder"),
        ('{"format": "music350-nano-onnx-0"}', "another format"),
    ],
)
def test_the_player_refuses_what_it_does_not_know(tmp_path: Path, text: Any, says: str):
    if text is not None:
        (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(WeightsError, match=says):
        OnnxNano(tmp_path)


def test_the_player_refuses_a_damaged_graph(folder: Path, tmp_path: Path):
    (tmp_path / MANIFEST).write_text((folder / MANIFEST).read_text())
    (tmp_path / "nano-decoder.onnx").write_bytes(b"\0\1\2")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        OnnxNano(tmp_path)


def test_the_player_refuses_tokens_of_more_than_14_bits(player: OnnxNano):
    with pytest.raises(ValueError, match="tokens must be"):
        OnnxDecoder(player).push([CODEBOOK_SIZE])
