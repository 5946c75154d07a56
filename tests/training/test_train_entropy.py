"""Training of the model of entropy coding, on streams that are easy to tell."""

from __future__ import annotations

import numpy as np
import soundfile
import torch

from codec.constants import SAMPLE_RATE
from codec.nano.entropy.coder import CONTEXT
from codec.nano.entropy.features import DIGITS, SIZES
from codec.nano.entropy.network import EntropyNetwork
from training.train_entropy import EntropyModel, Examples, main, train


def regular(count, seed):
    """Tokens of which each follows from the one before, but for two bits."""
    rng = np.random.default_rng(seed)
    tokens = np.zeros(count, dtype=np.int64)
    for index in range(1, count):
        tokens[index] = (5 * (tokens[index - 1] >> 6 & 7) % 8) << 6 | int(rng.integers(4))
    return tokens


def integer_bits(network: EntropyNetwork, examples: Examples):
    """Of each digit, ``[n, 6]``, by the frequencies that the coder uses."""
    middle, outputs = network.begin(examples.rows.numpy().astype(np.int64))
    digits, bits = examples.digits.numpy(), []
    for place in range(DIGITS):
        table = network.frequencies(middle, outputs, place)
        chosen = np.take_along_axis(table, digits[:, [place]], axis=1)[:, 0]
        bits.append(-np.log2(chosen / table.sum(axis=1)))
        middle, outputs = network.advance(middle, outputs, place, digits[:, place])
    return np.stack(bits, axis=1)


def test_what_is_regular_is_learnt_and_survives_rounding():
    pieces = [regular(600, seed) for seed in range(3)]
    model = train(pieces[1:], pieces[:1], steps=60, rate=2e-2, seed=0).eval()
    examples = Examples(pieces[:1], [CONTEXT], 0)
    with torch.no_grad():
        bits = model(examples.rows, examples.digits).numpy()
    assert bits.sum(axis=1).mean() < 4  # 2 are news
    rounded = integer_bits(model.integers(), examples)
    assert abs(rounded.mean() - bits.mean()) < 0.01
    assert np.abs(rounded - bits).max() < 0.2


def test_a_digit_is_told_from_those_before_it_alone():
    torch.manual_seed(0)
    model = EntropyModel().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    examples = Examples([regular(20, 0)], [CONTEXT], 0)
    before = model(examples.rows, examples.digits)
    for place in range(DIGITS):
        changed = examples.digits.clone()
        changed[:, place] = (changed[:, place] + 1) % SIZES[place]
        bits = model(examples.rows, changed)
        torch.testing.assert_close(bits[:, :place], before[:, :place])
        assert (bits[:, place] != before[:, place]).any()


def test_the_program_makes_a_model_of_music(tmp_path, capsys):
    music = tmp_path / "music"
    music.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        sound = 0.1 * rng.standard_normal((2 * SAMPLE_RATE, 2))
        soundfile.write(music / f"{name}.wav", sound, SAMPLE_RATE)
    out = tmp_path / "model.npz"
    options = ["--music", str(music), "--tokens", str(tmp_path / "tokens"), "--out", str(out)]
    assert main([*options, "--steps", "2", "--variants", "2"]) == 0
    assert len(list((tmp_path / "tokens").iterdir())) == 4
    EntropyNetwork.load(out)
    (music / "b.wav").unlink()
    assert main([*options, "--steps", "2"]) == 2
    assert main([*options, "--steps", "0"]) == 2
    errors = capsys.readouterr().err
    assert "give two at least" in errors
    assert "--steps must be at least 1" in errors
