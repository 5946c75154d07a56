"""What is float32 stays so, half precision is near it, and its range is watched."""

from __future__ import annotations

import copy
import threading

import numpy as np
import pytest
import torch

from codec.base import DecodeSettings
from codec.errors import SettingError
from codec.mucodec.codec import MuCodec
from codec.mucodec.config import Precision
from codec.mucodec.float8 import Float8Product
from codec.mucodec.flow import FlowTransformer
from codec.mucodec.precision import exact_float32
from tests.support.tiny_mucodec import tiny_model

SHORT = DecodeSettings(steps=2)
TOKENS = np.arange(16) * 99


def flags() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def error(guess: torch.Tensor, truth: torch.Tensor) -> float:
    return float((guess.float() - truth).norm() / truth.norm())


def latents(codec: MuCodec) -> torch.Tensor:
    result = codec.decode_window(TOKENS, first_token=0, context=None, seed=1, settings=SHORT)
    assert isinstance(result, torch.Tensor)
    return result


def sound(codec: MuCodec) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(8, 8, 4, generator=generator)
    return torch.from_numpy(codec.render(latents, first_token=0, seed=0))


def test_tf32_is_off_inside_and_as_before_outside() -> None:
    before = flags()
    with exact_float32():
        assert flags() == (False, False)
        with exact_float32():
            pass
        assert flags() == (False, False)
    assert flags() == before


def test_tf32_stays_off_until_the_last_thread_has_left() -> None:
    before = flags()
    inside, leave = threading.Event(), threading.Event()
    seen: list[tuple[bool, bool]] = []

    def other() -> None:
        with exact_float32():
            inside.set()
            leave.wait(30)
            seen.append(flags())

    thread = threading.Thread(target=other)
    with exact_float32():
        thread.start()
        assert inside.wait(30)
    leave.set()
    thread.join(30)
    assert seen == [(False, False)]
    assert flags() == before


def test_tokens_are_computed_without_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = MuCodec(tiny_model(), "tiny", "0" * 64)
    encode, seen = codec.model.encode, []

    def spy(audio: torch.Tensor) -> torch.Tensor:
        seen.append(flags())
        return encode(audio)

    monkeypatch.setattr(codec.model, "encode", spy)
    codec.encode_window(np.zeros((2, 256 * 1920), np.float32), codec.encoder_window, first_token=0)
    codec.sound2code_release(np.zeros((2, 1920)))
    assert seen
    assert set(seen) == {(False, False)}


@pytest.mark.parametrize(
    ("precision", "most"), [("float16", 4e-3), ("bfloat16", 3e-2), ("fp8", 1e-1)]
)
def test_half_precision_is_near_float32(precision: Precision, most: float) -> None:
    exact = MuCodec(tiny_model(), "tiny", "0" * 64)
    half = MuCodec(tiny_model(), "tiny", "0" * 64, precision=precision)
    assert 0 < error(latents(half), latents(exact)) < most
    assert 0 < error(sound(half), sound(exact)) < most


def test_what_is_added_up_stays_in_float32() -> None:
    model = tiny_model()
    model.prepare("float16")
    seen = []
    block = model.flow.transformer_blocks[0]
    block.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    x = torch.randn(2, 8, 4, 4)
    model.flow(x, x, x, torch.tensor([0.5, 0.5]))
    assert {part.dtype for part in seen[0]} == {torch.float32}
    assert model.first_stage_model.encoder.conv_in.weight.dtype == torch.float32
    assert model.cond_muencoder_emb.weight.dtype == torch.float32
    assert model.flow.positions.dtype == torch.float32


def test_a_number_too_large_for_float16_turns_the_decoder_to_bfloat16(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A value in the middle of the flow, then one in the middle of the vocoder."""
    for stage in ("flow", "vocoder"):
        caplog.clear()
        model = tiny_model().requires_grad_(False)
        weights = model.state_dict()
        if stage == "flow":
            block = "cfm_wrapper.estimator.transformer_blocks.0"
            weights[f"{block}.ff.net.2.bias"].fill_(6e4)
            weights[f"{block}.ff.net.0.proj.bias"].fill_(3e3)
        else:
            vocoder = "first_stage_model.vocoder"
            weights[f"{vocoder}.conv_pre.bias"].fill_(6e4)
            weights[f"{vocoder}.ups.0.weight"].mul_(1e2)
        exact = MuCodec(copy.deepcopy(model), "tiny", "0" * 64)
        half = MuCodec(model, "tiny", "0" * 64, precision="float16")
        assert half.dtype == torch.float16
        compute = latents if stage == "flow" else sound
        result = compute(half)
        assert half.dtype == torch.bfloat16
        assert caplog.messages == ["a number is too large for float16: mucodec goes on in bfloat16"]
        # The vocoder clips, so that a sample is right or wrong altogether.
        assert error(result, compute(exact)) < (5e-2 if stage == "flow" else 0.5)


def test_a_weight_too_large_for_float16_makes_it_bfloat16_from_the_start() -> None:
    model = tiny_model().requires_grad_(False)
    model.first_stage_model.vocoder.conv_pre.weight[0, 0, 0] = 1e5
    assert MuCodec(model, "tiny", "0" * 64, precision="float16").dtype == torch.bfloat16


def test_products_in_eight_bits_round_each_row_by_itself() -> None:
    linear = torch.nn.Linear(32, 16)
    x = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(1))
    x[1] *= 1e4
    with torch.no_grad():
        linear.weight[3] *= 1e-3
        got, expected = Float8Product(linear)(x), linear(x)
        assert got.dtype == torch.bfloat16
        assert got.shape == expected.shape
        for row in range(3):
            assert 0 < error(got[row], expected[row]) < 5e-2
        assert 0 < error(got[0, :, 3], expected[0, :, 3]) < 5e-2


def test_fp8_makes_eight_bits_of_the_blocks_alone() -> None:
    model = tiny_model()
    model.prepare("fp8")
    count = sum(isinstance(module, Float8Product) for module in model.modules())
    assert count == 4 * len(model.flow.transformer_blocks)  # q, k, v as one; out; two of the MLP
    assert model.flow.proj_out.weight.dtype == torch.float16


def test_one_product_for_queries_keys_and_values_is_the_same() -> None:
    plain, fused = tiny_model().flow, tiny_model().flow
    fused.prepare(torch.float32)
    assert isinstance(fused, FlowTransformer)
    x = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(2))
    times = torch.tensor([0.3, 0.8])
    torch.testing.assert_close(fused(x, x, x, times), plain(x, x, x, times))
    assert not any("to_q." in key or "to_k." in key for key in fused.state_dict())


def test_fp8_is_refused_where_a_gpu_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codec.mucodec.codec.has_float8", lambda device: False)
    with pytest.raises(SettingError, match="cannot compute in fp8"):
        MuCodec(tiny_model(), "tiny", "0" * 64, precision="fp8")
