"""Windows and stitching: what any codec's stream must hold, shown with the fake codec."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.base import (
    Audio,
    DecoderWindow,
    DecodeSettings,
    EncoderWindow,
    Latents,
    TokenArray,
)
from codec.constants import SAMPLES_PER_TOKEN
from codec.noise import keyed_normal
from codec.stream import StreamDecoder, StreamEncoder
from tests.support.fake_codec import FakeCodec

CODEC = FakeCodec()


def music(samples: int, seed: int = 0) -> Audio:
    """Noise whose level and balance wander, ``[2, samples]``."""
    rng = np.random.default_rng(seed)
    wander = rng.random((2, samples // 3000 + 2))
    places = np.arange(samples) / 3000
    level = np.stack([np.interp(places, np.arange(len(row)), row) for row in wander])
    return (0.5 * level * rng.standard_normal((2, samples))).astype(np.float32)


def encode(audio: Audio, sizes: list[int]) -> TokenArray:
    """Tokens of audio pushed in blocks of the given sizes, over and over."""
    encoder, tokens, at, turn = StreamEncoder(CODEC), [], 0, 0
    while at < audio.shape[1]:
        size = sizes[turn % len(sizes)]
        tokens.append(encoder.push(audio[:, at : at + size]))
        at, turn = at + size, turn + 1
    return np.concatenate([*tokens, encoder.finish()])


def decode(tokens: TokenArray, sizes: list[int], **options: object) -> Audio:
    """Sound of tokens pushed in packets of the given sizes, over and over."""
    decoder, blocks, at, turn = StreamDecoder(CODEC, **options), [], 0, 0  # type: ignore[arg-type]
    while at < len(tokens):
        size = sizes[turn % len(sizes)]
        blocks.append(decoder.push(tokens[at : at + size]))
        at, turn = at + size, turn + 1
    decoder.finish()
    return np.concatenate([*blocks, *decoder], axis=1)


@pytest.mark.parametrize("size", [1, 480, 1920, 4801, 48_000])
def test_tokens_do_not_depend_on_block_size(size: int) -> None:
    audio = music(40_000 if size == 1 else 200_000)
    assert np.array_equal(encode(audio, [size]), CODEC.sound2code(audio))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 30_000), min_size=1, max_size=8), st.integers(1, 120_000))
def test_tokens_do_not_depend_on_random_blocks(sizes: list[int], samples: int) -> None:
    audio = music(samples)
    tokens = encode(audio, sizes)
    assert np.array_equal(tokens, CODEC.sound2code(audio))
    assert len(tokens) == -(-samples // SAMPLES_PER_TOKEN)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 70))
def test_sound_does_not_depend_on_packets(sizes: list[int], count: int) -> None:
    tokens = CODEC.sound2code(music(count * SAMPLES_PER_TOKEN))
    whole = CODEC.code2sound(tokens, seed=3)
    assert whole.shape == (2, count * SAMPLES_PER_TOKEN)
    assert np.array_equal(decode(tokens, sizes, seed=3), whole)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 60))
def test_output_starts_where_asked_and_is_complete(first: int, skip: int, more: int) -> None:
    start, end = first + skip, first + skip + more
    tokens = CODEC.sound2code(music(end * SAMPLES_PER_TOKEN))
    sound = decode(tokens[first:], [7], first_token=first, start_token=start)
    assert sound.shape == (2, more * SAMPLES_PER_TOKEN)


def test_late_joiner_hears_the_same_as_everyone() -> None:
    tokens = CODEC.sound2code(music(90 * SAMPLES_PER_TOKEN))
    whole = CODEC.code2sound(tokens)
    joined = decode(tokens[13:], [8], first_token=13, start_token=37)
    assert np.array_equal(joined, whole[:, 37 * SAMPLES_PER_TOKEN :])


def test_sound_leaves_as_soon_as_the_lookahead_is_there() -> None:
    window = CODEC.decoder_window
    decoder = StreamDecoder(CODEC)
    tokens = np.zeros(window.hop + window.lookahead, np.int64)
    assert decoder.push(tokens[:-1]).shape[1] == 0
    assert decoder.push(tokens[-1:]).shape[1] == window.hop * SAMPLES_PER_TOKEN
    assert decoder.next_output_sample == window.hop * SAMPLES_PER_TOKEN
    assert window.decodable(len(tokens)) == window.hop
    assert window.decodable(0) == 0


def test_windows_sit_at_absolute_positions() -> None:
    """Tokens of hop k see the samples of their window and no other."""
    audio = music(100 * SAMPLES_PER_TOKEN)
    window = CODEC.encoder_window
    changed = audio.copy()
    changed[:, : 30 * SAMPLES_PER_TOKEN] = 0
    before, after = CODEC.sound2code(audio), CODEC.sound2code(changed)
    assert not np.array_equal(before[:30], after[:30])
    safe = -(-(30 + window.left) // window.hop) * window.hop
    assert np.array_equal(before[safe:], after[safe:])


def test_seams_are_smooth_when_noise_differs_between_windows() -> None:
    """The crossfade joins what is left of the difference: no step at a boundary."""
    tokens = np.full(64, 500 * 16 + 8)
    sound = CODEC.code2sound(tokens, temperature=5.0)
    change = np.abs(np.diff(sound, axis=1)).max(axis=0)
    seams = np.arange(1, 8) * CODEC.decoder_window.hop * SAMPLES_PER_TOKEN - 1
    assert change[seams].max() <= change.max() * 1.001
    assert change.max() < 0.08  # a 440 Hz tone at this level moves no faster


def test_state_is_bounded() -> None:
    encoder, decoder = StreamEncoder(CODEC), StreamDecoder(CODEC)
    for _ in range(50):
        decoder.push(encoder.push(music(9_600)))
    window = CODEC.encoder_window
    assert encoder._buffer.shape[1] <= window.tokens * SAMPLES_PER_TOKEN
    assert len(decoder._tokens) <= 3 * CODEC.decoder_window.hop


def test_empty_stream() -> None:
    assert len(CODEC.sound2code(np.zeros((2, 0)))) == 0
    assert CODEC.code2sound(np.zeros(0, np.int64)).shape == (2, 0)
    assert CODEC.sound2sound(music(5_000)).shape == (2, 5_000)
    encoder = StreamEncoder(CODEC)
    assert len(encoder.finish()) == len(encoder.finish()) == 0


def test_misuse_is_refused() -> None:
    encoder, decoder = StreamEncoder(CODEC), StreamDecoder(CODEC)
    with pytest.raises(ValueError, match=r"\[2, samples\]"):
        encoder.push(np.zeros((3, 100)))
    with pytest.raises(ValueError, match=r"0 \.\.\. 16383"):
        decoder.feed([16384])
    with pytest.raises(ValueError, match=r"\[n\]"):
        decoder.feed(np.zeros((1, 2)))
    with pytest.raises(RuntimeError, match="no window ready"):
        decoder.step()
    encoder.finish()
    decoder.finish()
    with pytest.raises(RuntimeError, match="after finish"):
        encoder.push(np.zeros((2, 1)))
    with pytest.raises(RuntimeError, match="after finish"):
        decoder.feed([0])
    with pytest.raises(ValueError, match="lies before"):
        StreamDecoder(CODEC, first_token=5, start_token=4)
    with pytest.raises(ValueError, match="crossfade"):
        StreamDecoder(CODEC, window=DecoderWindow(4, 8, 0))
    with pytest.raises(ValueError, match="hop >= 1"):
        EncoderWindow(1, 0, 1)
    with pytest.raises(ValueError, match="hop >= 1"):
        DecoderWindow(-1, 1, 1)


def test_nan_and_infinity_are_silenced() -> None:
    audio = music(48_000)
    audio[:, 100:200] = float("nan")
    audio[:, 300:310] = float("inf")
    assert np.isfinite(CODEC.sound2sound(audio)).all()
    assert len(StreamEncoder(CODEC).push(np.full((2, 60_000), np.nan, np.float32))) > 0


class PairedCodec(FakeCodec):
    """Latent frames of two tokens, as the published model has them."""

    latent_tokens = 2

    def decode_window(
        self,
        tokens: TokenArray,
        *,
        first_token: int,
        context: Latents | None,
        seed: int,
        settings: DecodeSettings,
    ) -> Latents:
        assert len(tokens) % 2 == 0
        assert first_token % 2 == 0
        frames = np.stack([tokens[::2], tokens[1::2]], axis=1).astype(np.float32)
        if context is not None:
            frames[: len(context)] = context
        return frames

    def render(self, latents: Latents, *, first_token: int, seed: int) -> Audio:
        row = latents.ravel().repeat(SAMPLES_PER_TOKEN) / np.float32(16384)
        return np.stack([row, row])


def test_latent_frames_of_several_tokens() -> None:
    codec = PairedCodec()
    tokens = np.arange(51) * 100
    sound = codec.code2sound(tokens)
    assert sound.shape == (2, 51 * SAMPLES_PER_TOKEN)
    assert np.allclose(sound[0, ::SAMPLES_PER_TOKEN][1:] * 16384, tokens[1:], atol=60)
    late = StreamDecoder(codec, first_token=5)
    late.feed(tokens[5:])
    late.finish()
    assert np.concatenate(list(late), axis=1).shape == (2, 45 * SAMPLES_PER_TOKEN)


def test_noise_is_keyed_to_absolute_frames() -> None:
    whole = keyed_normal(7, -3, 40, 33)
    assert np.array_equal(whole[10:20], keyed_normal(7, 7, 10, 33))
    assert not np.array_equal(whole, keyed_normal(8, -3, 40, 33))
    assert not np.array_equal(whole, keyed_normal(7, -3, 40, 33, purpose=1))
    many = keyed_normal(0, 0, 400, 500)
    assert abs(float(many.mean())) < 0.01
    assert abs(float(many.std()) - 1) < 0.01
    # Philox is specified bit by bit: these numbers must never change, or streams would.
    pinned = np.array([0.773984, -0.305176, -1.421198, 0.568578])
    assert np.allclose(keyed_normal(1, 2, 1, 4)[0], pinned, atol=1e-5)
