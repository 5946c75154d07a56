"""The published model in our code: layout, parity with golden numbers, windows, solvers."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from codec.base import DecoderWindow, DecodeSettings, EncoderWindow
from codec.constants import SAMPLES_PER_TOKEN
from codec.errors import SettingError
from codec.mucodec.codec import MuCodec
from codec.mucodec.compatible import release_codes
from codec.mucodec.config import MuCodecConfig, Precision
from codec.mucodec.dsp import halve_rate, htk_filterbank, resampling_kernel
from codec.mucodec.flow import velocity_field
from codec.mucodec.model import UNUSED, MuCodecModel, unused
from codec.mucodec.vae import attend, norm_silu
from codec.mucodec.vocoder import DilatedBlock, HifiGan, convolve, reach_frames
from codec.sampling import integrate, time_grid
from codec.stream import StreamDecoder, StreamEncoder, step_together
from tests import ROOT, parity
from tests.support.seeded import fill_model, test_signal
from tests.support.tiny_mucodec import TINY, tiny_model

GOLDENS = ROOT / "tests" / "goldens"
SHORT = DecodeSettings(steps=2)


@pytest.fixture(scope="module")
def tiny() -> MuCodec:
    return MuCodec(tiny_model(), "tiny", "0" * 64)


@pytest.fixture(scope="module")
def sound() -> torch.Tensor:
    return torch.from_numpy(test_signal(13 * 48_000 + 777, 5))


# ------------------------------------------------------------------------------------- layout


def test_keys_and_shapes_are_those_of_the_published_checkpoints() -> None:
    manifest = json.loads((GOLDENS / "manifest.json").read_text())
    published = {k: tuple(shape) for k, (shape, _) in manifest["mucodec"].items()}
    for key, (shape, _) in manifest["audioldm_first_stage"].items():
        published[f"first_stage_model.{key}"] = tuple(shape)
    with torch.device("meta"):
        model = MuCodecModel()
    own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    del own["scale_factor"]  # stored beside the VAE, not in it
    assert {key: published.get(key) for key in own} == own
    left_over = set(published) - set(own)
    assert all(unused(key, model.config) for key in left_over)
    assert not any(unused(key, model.config) for key in own)


def test_every_kind_of_key_that_is_left_out_is_in_the_published_checkpoint() -> None:
    manifest = json.loads((GOLDENS / "manifest.json").read_text())
    nothing = MuCodecConfig(hidden_layer=99)
    seen = [key for key in manifest["mucodec"] if unused(key, nothing)]
    assert all(any(re.fullmatch(pattern, key) for key in seen) for pattern, _ in UNUSED)


def test_missing_and_unknown_keys_are_told_apart(tiny: MuCodec) -> None:
    given = [*tiny.model.state_dict(), "something.else", "muencoder.model.cls_token"]
    given.remove("normfeat.sum_x")
    missing, unknown = tiny.model.checkpoint_keys(given)
    assert missing == ["normfeat.sum_x"]
    assert unknown == ["something.else"]


# ------------------------------------------------------------------------------------- parity


def test_stages_compute_what_the_published_model_computes() -> None:
    """All golden files but those that take minutes."""
    fast = [
        "condition",
        "muq_conv",
        "muq_features",
        "muq_hidden6",
        "normfeat",
        "rvq",
        "vae_encode",
        "vae_mel",
        "vocoder",
    ]
    results = parity.check_folder(GOLDENS, flow_layers=1, seed=100, only=fast)
    assert [result.name for result in results] == sorted(fast)
    assert [result for result in results if not result.ok] == []


@pytest.mark.slow
def test_everything_computes_what_the_published_model_computes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--conformer-layers", "7", "--flow-layers", "2", "--seed", "100"]
    assert parity.main([str(GOLDENS), *arguments]) == 0
    assert capsys.readouterr().out.count("ok\n") == 17


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float16", "bfloat16", "fp8"])
def test_half_precision_computes_nearly_the_same(
    precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Latents within the precision's tolerance, tokens as ever: the encoder stays in float32."""
    assert parity.main([str(GOLDENS), "--precision", precision]) == 0
    assert capsys.readouterr().out.count("ok\n") == 17


@pytest.mark.slow
def test_the_whole_depth_is_stable_in_half_precision() -> None:
    """All 24 blocks, guided, with context: latents of eight steps."""
    model = MuCodecModel.unfilled(part="decoder")
    fill_model(model)
    tokens = np.random.default_rng(1).integers(0, 16_384, 64)
    known = torch.randn(8, 32, 32, generator=torch.Generator().manual_seed(2))

    def latents(precision: Precision) -> torch.Tensor:
        codec = MuCodec(model, "seeded", "0" * 64, precision=precision)
        return codec.decode_window(
            tokens, first_token=0, context=known, seed=0, settings=DecodeSettings()
        )

    exact = latents("float32")
    kinds: tuple[Precision, ...] = ("float16", "bfloat16")  # each has less than the one before
    for precision in kinds:
        half = latents(precision)
        assert torch.equal(half[:8], known)
        error = float((half - exact).norm() / exact.norm())
        assert error <= parity.TOLERANCES[precision]


def test_parity_says_so_where_the_numbers_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(GOLDENS / "vae_mel.npz") as golden:
        np.savez(tmp_path / "vae_mel.npz", mel=golden["mel"] + 0.01)
    assert parity.main([str(tmp_path), "--flow-layers", "0"]) == 1
    assert "OUT OF TOLERANCE" in capsys.readouterr().out


def test_parity_refuses_a_folder_without_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parity.main([str(tmp_path)]) == 2
    assert "no golden files" in capsys.readouterr().err
    assert parity.main([str(GOLDENS), "--conformer-layers", "5"]) == 2
    assert "conformer layers" in capsys.readouterr().err


def test_the_resampler_is_the_published_kernel() -> None:
    kernel = resampling_kernel()
    assert len(kernel) == 28
    assert float(kernel.sum()) == pytest.approx(1.0, abs=2e-3)
    time = torch.arange(9600) / 48_000
    tone = torch.sin(2 * torch.pi * 1000 * time).unsqueeze(0)
    half = halve_rate(tone)
    assert half.shape == (1, 4800)
    assert torch.allclose(half[0, 100:-100], tone[0, ::2][100:-100], atol=2e-3)
    assert halve_rate(torch.zeros(1, 7)).shape == (1, 4)


def test_the_resampler_and_mels_agree_with_torchaudio() -> None:
    try:
        import torchaudio
    except (ImportError, OSError):
        pytest.skip("torchaudio does not load beside this build of torch")
    audio = torch.from_numpy(test_signal(4801, 1))
    expected = torchaudio.functional.resample(audio, 48_000, 24_000)
    assert torch.allclose(halve_rate(audio), expected, atol=1e-6)
    filters = torchaudio.functional.melscale_fbanks(1025, 0.0, 12_000.0, 128, 24_000)
    assert torch.allclose(htk_filterbank(24_000, 2048, 128), filters.T, atol=1e-6)


# ------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize("block", [480, 4801, 48_000, 10**6])
def test_tokens_do_not_depend_on_block_sizes(
    tiny: MuCodec, sound: torch.Tensor, block: int
) -> None:
    encoder = StreamEncoder(tiny)
    parts = [encoder.push(part) for part in sound.split(block, dim=1)]
    tokens = np.concatenate([*parts, encoder.finish()])
    assert len(tokens) == -(-sound.shape[1] // SAMPLES_PER_TOKEN)
    assert np.array_equal(tokens, tiny.sound2code(sound))
    assert len(np.unique(tokens)) > 3


@pytest.mark.parametrize("packet", [1, 37])
def test_sound_does_not_depend_on_packets(tiny: MuCodec, packet: int) -> None:
    tokens = torch.randint(0, 16_384, (150,), generator=torch.Generator().manual_seed(0))
    decoder = StreamDecoder(tiny, settings=SHORT, seed=3)
    parts = [decoder.push(part) for part in tokens.split(packet)]
    decoder.finish()
    streamed = np.concatenate([*parts, *decoder], axis=1)
    whole = tiny.code2sound(tokens, steps=2, seed=3)
    assert streamed.shape == (2, 150 * SAMPLES_PER_TOKEN)
    assert np.array_equal(streamed, whole)
    assert float(whole.std()) > 1e-4
    assert not np.array_equal(whole, tiny.code2sound(tokens, steps=2, seed=4))


def test_an_odd_number_of_tokens_gives_as_much_sound(tiny: MuCodec) -> None:
    for count in (1, 2, 3, 65):
        tokens = torch.arange(count)
        assert tiny.code2sound(tokens, steps=1).shape == (2, count * SAMPLES_PER_TOKEN)


def test_windows_longer_than_the_trained_one_are_refused(tiny: MuCodec) -> None:
    with pytest.raises(SettingError, match="1024 tokens long, not 1025"):
        StreamEncoder(tiny, EncoderWindow(900, 100, 25))
    with pytest.raises(SettingError, match="1024 tokens long"):
        StreamDecoder(tiny, window=DecoderWindow(1000, 64, 40))
    with pytest.raises(SettingError, match="lookahead of at least 4"):
        StreamDecoder(tiny, window=DecoderWindow(64, 64, 3))


def test_context_is_kept_as_it_is(tiny: MuCodec) -> None:
    tokens = np.arange(64) * 7
    known = torch.randn(20, 8, 4, generator=torch.Generator().manual_seed(1))
    latents = tiny.decode_window(tokens, first_token=8, context=known, seed=0, settings=SHORT)
    assert latents.shape == (32, 8, 4)
    assert torch.equal(latents[:20], known)


def test_noise_belongs_to_absolute_frames(tiny: MuCodec) -> None:
    """Two windows that overlap start from the same noise where they do."""
    tokens = np.full(64, 77)
    nothing = DecodeSettings(steps=1, guidance=0.0)  # the condition plays no part

    def latents(first: int) -> torch.Tensor:
        return tiny.decode_window(tokens, first_token=first, context=None, seed=9, settings=nothing)

    early, late = latents(0), latents(16)
    assert torch.allclose(early[8:], late[:-8], atol=0.5)
    assert not torch.allclose(early, late, atol=0.5)


def test_the_renderer_reaches_no_further_than_it_says() -> None:
    vocoder = HifiGan(TINY)
    frames, reach = 200, reach_frames(TINY)
    mel = torch.zeros(1, frames, TINY.vae_mels)
    with torch.no_grad():
        plain = vocoder(mel)
        mel[0, 100] = 5.0
        change = (vocoder(mel) - plain)[0].abs()
    touched = torch.nonzero(change > 1e-9).flatten()
    assert int(touched[0]) >= (100 - reach) * 480
    assert int(touched[-1]) < (101 + reach) * 480
    assert int(touched[-1]) - int(touched[0]) > 480


def test_the_vocoder_need_not_see_the_margins(
    tiny: MuCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sees the tokens that it reaches, and what is kept is the same."""
    latents = torch.randn(50, 8, 4, generator=torch.Generator().manual_seed(1))
    whole = tiny.render(latents, first_token=0, seed=0)
    seen: list[int] = []
    wave = HifiGan.wave

    def spy(vocoder: HifiGan, mel: torch.Tensor) -> torch.Tensor:
        seen.append(mel.shape[1])
        return wave(vocoder, mel)

    monkeypatch.setattr(HifiGan, "wave", spy)
    watched = MuCodec(tiny.model, "tiny", "0" * 64)
    reach = -(-reach_frames(TINY) // 4)
    for left, right in ((32, 32), (0, 32), (32, 1), (3, 0)):
        part = watched.render_inside(latents, (left, right), first_token=0, seed=0)
        kept = whole[:, left * SAMPLES_PER_TOKEN : (100 - right) * SAMPLES_PER_TOKEN]
        assert part.shape == kept.shape
        np.testing.assert_allclose(part, kept, atol=1e-6)
        assert seen.pop() == 4 * (100 - max(0, left - reach) - max(0, right - reach))


def test_long_windows_are_rendered_one_channel_after_the_other(
    tiny: MuCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = torch.randn(12, 8, 4, generator=torch.Generator().manual_seed(1))
    together = tiny.render(latents, first_token=0, seed=0)
    monkeypatch.setattr("codec.mucodec.codec._STEREO_FRAMES", 8)
    apart = tiny.render(latents, first_token=0, seed=0)
    np.testing.assert_allclose(apart, together, atol=1e-6)
    assert not np.allclose(together[0], together[1])


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_attention_in_blocks_of_rows_is_attention(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codec.mucodec.vae._ATTENTION_ROWS", rows)
    generator = torch.Generator().manual_seed(1)
    q, k, v = torch.randn(3, 2, 40, 16, generator=generator)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(attend(q, k, v), expected)


def test_norm_and_silu_are_the_same_in_the_compilers_hands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    norm = torch.nn.GroupNorm(4, 12, eps=1e-6)
    with torch.no_grad():
        norm.weight.normal_(generator=torch.Generator().manual_seed(1))
        norm.bias.normal_(generator=torch.Generator().manual_seed(2))
        x = 3 + torch.randn(2, 12, 5, 6, generator=torch.Generator().manual_seed(3))
        expected = torch.nn.functional.silu(norm(x))
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        got = norm_silu(norm, x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(got, expected)
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_the_vocoder_in_channels_last_is_what_its_layers_compute() -> None:
    vocoder = HifiGan(TINY)
    x = torch.randn(2, TINY.vocoder_channels, 20, generator=torch.Generator().manual_seed(1))
    up = vocoder.ups[0]
    block = vocoder.resblocks[0]
    assert isinstance(up, torch.nn.ConvTranspose1d)
    assert isinstance(block, DilatedBlock)
    layer = block.convs1[1]
    assert isinstance(layer, torch.nn.Conv1d)
    with torch.no_grad():
        half = up(x)
        dilated = layer(half)
        vocoder.prepare(torch.float32)
        torch.testing.assert_close(convolve(up, x.unsqueeze(2)).squeeze(2), half)
        got = convolve(layer, half.unsqueeze(2))
        torch.testing.assert_close(got.squeeze(2), dilated)
    weight = up.weight.unsqueeze(2)
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_guidance_can_be_limited_to_an_interval() -> None:
    """Outside, the conditional half runs alone."""
    rows: list[tuple[float, int]] = []

    def flow(
        x: torch.Tensor, given: torch.Tensor, condition: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        rows.append((round(float(t[0]), 2), len(x)))
        return condition

    field = velocity_field(flow, torch.zeros(1, 2), torch.ones(1, 2), 1.5, (0.2, 0.6))
    values = [float(field(torch.zeros(1, 2), t)[0, 0]) for t in (0.0, 0.2, 0.4, 0.6, 0.8)]
    assert rows == [(0.0, 1), (0.2, 2), (0.4, 2), (0.6, 2), (0.8, 1)]
    assert values == [1, 1.5, 1.5, 1.5, 1]
    with pytest.raises(SettingError, match="guidance interval goes from"):
        MuCodec(tiny_model(), "tiny", "0" * 64, guidance_interval=(0.6, 0.2))


def test_the_releases_own_chunking_keeps_its_faults(tiny: MuCodec) -> None:
    audio = torch.from_numpy(test_signal(48_000 * 42, 3))
    codes = release_codes(tiny.model, audio)
    assert len(codes) == 42 * 25 + 1
    short = release_codes(tiny.model, audio[:, : 48_000 * 5])
    assert len(short) == 5 * 25 + 1
    assert np.array_equal(tiny.sound2code_release(audio[:, : 48_000 * 5]), short)
    assert len(release_codes(tiny.model, audio[:, :0])) == 0


# ------------------------------------------------------------------------------------- sampler


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
def test_solvers_converge_at_their_order(solver: str, order: int) -> None:
    """dx/dt = x from 1: the error at t = 1 falls with the step's power."""

    def error(steps: int) -> float:
        end = integrate(
            lambda x, t: x, torch.ones(1, dtype=torch.float64), time_grid(steps), solver
        )
        return abs(float(end) - math.e)

    assert error(16) / error(32) == pytest.approx(2**order, rel=0.1)


def test_time_grids_run_from_zero_to_one() -> None:
    assert time_grid(4) == [0, 0.25, 0.5, 0.75, 1]
    warped = time_grid(4, 2.0)
    assert warped[0] == 0
    assert warped[-1] == 1
    assert warped[1] < 0.25


def test_solvers_and_warps_that_do_not_exist_are_refused() -> None:
    with pytest.raises(SettingError, match="no solver 'runge'"):
        DecodeSettings(solver="runge")
    with pytest.raises(SettingError, match="warp must be positive"):
        DecodeSettings(warp=0.0)


# ------------------------------------------------------------- several streams, ready beforehand


def test_several_streams_decode_as_one_batch(tiny: MuCodec) -> None:
    codes = torch.randint(0, 16_384, (3, 700), generator=torch.Generator().manual_seed(1))
    window = DecoderWindow(context=64, hop=32, lookahead=8)

    def decoders() -> list[StreamDecoder]:
        made = [
            StreamDecoder(tiny, seed=seed, window=window, settings=SHORT, start_token=start)
            for seed, start in ((1, 0), (2, 32), (3, 0))
        ]
        for decoder, row in zip(made, codes, strict=True):
            decoder.feed(row[:200])
        return made

    apart = [[decoder.step() for _ in range(4)] for decoder in decoders()]
    streams = decoders()
    sizes: list[int] = []
    flow = tiny.model.flow
    hook = flow.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    together = [step_together(streams) for _ in range(4)]
    hook.remove()
    assert max(sizes) == 6  # three streams, with and without guidance
    assert 2 in sizes  # the second begins late, so that its window is of another length at first
    for stream, blocks in enumerate(apart):
        for turn, block in enumerate(blocks):
            np.testing.assert_allclose(together[turn][stream], block, atol=1e-4, rtol=1e-4)
    assert step_together([]) == []


def test_warm_up_changes_nothing(tiny: MuCodec, sound: torch.Tensor) -> None:
    fresh = MuCodec(tiny_model(), "tiny", "0" * 64)
    fresh.warm_up(tiny.encoder_window)
    fresh.warm_up(tiny.decoder_window, SHORT)
    tokens = fresh.sound2code(sound)
    assert np.array_equal(tokens, tiny.sound2code(sound))
    assert np.array_equal(fresh.code2sound(tokens, steps=2), tiny.code2sound(tokens, steps=2))
