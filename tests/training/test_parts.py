"""What trainings are made of: losses, augmentation, critics, optimisers, the loop itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codec.nano.blocks import Block
from codec.nano.config import NanoConfig
from codec.nano.level import mel_widths
from streaming.errors import SettingsError
from training import curves, loop, report
from training.augment import Augment, Draws
from training.critic import Critics, critic_loss, generator_losses
from training.loop import Run
from training.losses import feature_losses, unused_bits
from training.optimizer import Muon, optimizers_of, orthogonal
from training.train_codec import WEIGHTS
from training.train_texture import power, rough
from training.train_vocoder import SpectralLoss

CONFIG = NanoConfig()


def some_music(seed: int = 0, rows: int = 3, tokens: int = 60) -> Tensor:
    """Features of no music in particular: spectra that move, with attacks every eight tokens."""
    random = torch.Generator().manual_seed(seed)
    c = CONFIG
    shape = 2 * torch.randn(rows, 1, 1, c.mels, generator=random)
    drift = torch.randn(rows, tokens, 1, 8, generator=random).cumsum(dim=1) / 8
    drift = drift.repeat_interleave(c.mels // 8, dim=-1)
    fine = 0.5 * torch.randn(rows, tokens, 1, c.mels, generator=random)
    attack = 2.0 * (torch.arange(tokens) % 8 == 0).view(1, -1, 1, 1)
    attack = attack * torch.tensor([0.0, 1.0, 0.5, 0.2]).view(1, 1, -1, 1)
    mel = (shape + drift + fine + attack - 4).flatten(2)
    notes = torch.randn(rows, tokens, c.semitone_dims, generator=random) - 4
    image = 0.3 * torch.randn(rows, tokens, 2 * c.stereo_bands, generator=random)
    return torch.cat([mel, notes, image], dim=-1)


def losses(guess: Tensor, truth: Tensor) -> dict[str, float]:
    terms = feature_losses(guess, truth, CONFIG, mel_widths(CONFIG.mels))
    return {name: float(value) for name, value in terms.items()}


def with_mels(features: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Features whose mels, ``[batch, tokens, 4, mels]``, are others."""
    mel = features[..., : CONFIG.mel_dims].unflatten(-1, (CONFIG.mel_frames, CONFIG.mels))
    return torch.cat([change(mel).flatten(-2), features[..., CONFIG.mel_dims :]], dim=-1)


def test_what_is_right_costs_nothing() -> None:
    truth = some_music()
    found = losses(truth, truth)
    assert set(found) | {"unused"} == set(WEIGHTS)
    for name, value in found.items():
        assert value == pytest.approx(0, abs=0.02 if name == "bands" else 1e-4), name


def test_attacks_may_be_neither_elsewhere_nor_soft() -> None:
    truth = some_music()
    moved = losses(with_mels(truth, lambda mel: mel.roll(4, dims=1)), truth)
    soft = with_mels(truth, lambda mel: 0.5 * mel + 0.5 * mel.mean(dim=(1, 2), keepdim=True))
    softened = losses(soft, truth)
    assert moved["onset"] > 0.5
    assert softened["onset"] < 0.05  # they are where they were
    assert softened["flux"] > 0.3


def test_spectra_may_neither_stand_still_nor_be_smooth() -> None:
    truth = some_music()
    still = losses(
        with_mels(truth, lambda mel: mel.mean(dim=1, keepdim=True).expand_as(mel)), truth
    )

    def blurred(mel: Tensor) -> Tensor:
        rows = nn.functional.pad(mel.flatten(0, 2).unsqueeze(1), (4, 4), mode="replicate")
        return nn.functional.avg_pool1d(rows, 9, 1).squeeze(1).view_as(mel)

    smooth = losses(with_mels(truth, blurred), truth)
    assert still["bands"] > 2 * smooth["bands"]
    assert smooth["detail"] > 0.7


def test_no_loss_has_a_gradient_that_is_not_finite() -> None:
    """Silence is where logarithms, roots and correlations go wrong."""
    silence = some_music()
    silence[..., : CONFIG.mel_dims] = math.log(CONFIG.mel_floor)
    silence[..., CONFIG.mel_dims : -2 * CONFIG.stereo_bands] = math.log(CONFIG.semitone_floor)
    for truth in (silence, some_music()):
        for first in (silence, some_music(1)):
            guess = first.clone().requires_grad_()
            terms = feature_losses(guess, truth, CONFIG, mel_widths(CONFIG.mels))
            torch.stack(list(terms.values())).sum().backward()
            assert guess.grad is not None
            assert guess.grad.isfinite().all()


def test_unused_bits_are_none_of_an_even_spread_and_all_of_one_code() -> None:
    levels = CONFIG.levels
    grids = [(torch.arange(size) + 0.5) / size for size in levels]
    even = torch.cartesian_prod(*grids)
    assert float(unused_bits(even, levels)) == pytest.approx(0, abs=1e-5)
    assert float(unused_bits(even[:1].expand(64, -1), levels)) == pytest.approx(1, abs=1e-5)
    halved = even[even[:, 0] < 0.5]
    assert float(unused_bits(halved, levels)) == pytest.approx(1 / 11, abs=1e-5)


def test_chance_comes_from_the_draws_alone() -> None:
    augment, music = Augment(CONFIG), some_music(rows=8)
    first, second = (augment.draw(8, torch.Generator().manual_seed(seed)) for seed in (1, 2))
    assert torch.equal(augment(music, first), augment(music, first))
    changed = (augment(music, first) - augment(music, second)).abs().mean(dim=(1, 2))
    assert (changed > 0.05).all()


def test_rows_are_augmented_each_by_its_own_draw() -> None:
    """But for mixing and splicing, each of which takes from the row before."""
    augment, music = Augment(CONFIG), some_music(rows=6)
    draws = augment.draw(6, torch.Generator().manual_seed(3))
    whole = augment(music, draws)
    other = Draws(draws.uniform.clone(), draws.normal.clone())
    other.uniform[2], other.normal[2] = 0.77, 1.0
    changed = (augment(music, other) - whole).abs().amax(dim=(1, 2)) > 1e-3
    assert changed[2]
    assert not changed[[0, 1, 5]].any()


def test_a_shift_of_an_octaves_third_moves_notes_and_spectrum_alike() -> None:
    augment = Augment(CONFIG)
    draws = Draws(torch.full((1, 27), 0.99), torch.zeros(1, 1))  # highest shift, nothing else
    draws.uniform[0, 0] = 8.5 / 9
    music = torch.full((1, 8, CONFIG.feature_dims), -9.0)
    mel, notes, image = augment.split(music)
    notes[..., 30] = 1.0
    peak = 60
    mel[..., peak] = 1.0
    moved_mel, moved_notes, _ = augment.split(augment(augment.join(mel, notes, image), draws))
    assert (moved_notes.argmax(dim=-1) == 34).all()
    octave = augment.octave[0, : CONFIG.mels]
    by = octave[moved_mel.argmax(dim=-1)] - octave[peak]
    torch.testing.assert_close(by, torch.full_like(by, 4 / 12), atol=0.1, rtol=0)


def test_critics_learn_and_teach() -> None:
    critics = Critics(CONFIG.mels)
    real, fake, expected = (torch.randn(2, 40, CONFIG.mels) for _ in range(3))
    fake.requires_grad_()
    seen, shown = critics(real, expected), critics(fake, expected)
    assert len(seen) == 2
    assert float(critic_loss(seen, shown).detach()) > 0
    fooled, unlike = generator_losses(seen, shown)
    (fooled + unlike).backward()
    assert fake.grad is not None
    assert fake.grad.abs().sum() > 0
    same = generator_losses(seen, [[x.detach() for x in layers] for layers in seen])
    assert float(same[1].detach()) == 0


def test_roughness_is_missed_and_not_minded_elsewhere() -> None:
    real, free = torch.randn(2, 80, CONFIG.mels), torch.ones(2, 80, 1)
    again = torch.randn(2, 80, CONFIG.mels)
    assert float(rough(real, real, free)) == 0
    assert float(rough(real, again, free)) < 0.1
    assert float(rough(real, 0.3 * again, free)) > 1
    free[:, 40:] = 0
    spoiled = torch.cat([again[:, :40], 9 * again[:, 40:]], dim=1)
    assert float(rough(real, spoiled, free)) == float(rough(real, again, free))


def test_a_spectrum_without_peaks_has_too_little_power() -> None:
    real, free = 2 * torch.randn(2, 80, CONFIG.mels), torch.ones(2, 80, 1)
    assert float(power(real, real, free)) == 0
    again, smooth = 2 * torch.randn(2, 80, CONFIG.mels), torch.zeros_like(real)  # the mean of real
    assert 2 * float(power(real, again, free)) < float(power(real, smooth, free))


def test_flatness_tells_lines_from_noise() -> None:
    loss = SpectralLoss(CONFIG)
    time = torch.arange(48_000) / 48_000
    line, noise, other = (
        torch.sin(2 * torch.pi * 440 * time),
        torch.randn(48_000),
        torch.randn(48_000),
    )
    pair = noise.expand(1, 2, -1)
    same, unlike = (float(loss(0.3 * x.unsqueeze(0), 0.3 * pair)["flat"]) for x in (other, line))
    assert same < 0.2
    assert unlike > 1


@pytest.mark.parametrize("shape", [(3, 20, 60), (3, 60, 20)])
def test_what_muon_takes_a_step_along_has_no_preferred_direction(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    x[:, 0] *= 100
    values = torch.linalg.svdvals(orthogonal(x, 5))
    assert values.min() > 0.5
    assert values.max() < 1.4


def test_muon_takes_the_blocks_matrices_and_adam_the_rest() -> None:
    model = nn.Sequential(nn.Linear(4, 8), Block(8, (1, 1), 2), Block(8, (1, 1), 2))
    muon, adam = optimizers_of(model, 1e-3)
    assert isinstance(muon, Muon)
    hidden = {id(p) for group in muon.param_groups for p in group["params"]}
    rest = {id(p) for group in adam.param_groups for p in group["params"]}
    assert len(hidden) == 4
    assert not hidden & rest
    assert len(hidden | rest) == len(list(model.parameters()))
    before = [p.detach().clone() for p in model.parameters()]
    model(torch.randn(2, 5, 4)[..., :4]).square().sum().backward()
    for optimizer in (muon, adam):
        optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


class Clock(SimpleNamespace):
    """A clock that stands still but for what is said to take time."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


def train(
    folder: Path, monkeypatch: pytest.MonkeyPatch, losses: Callable[[Tensor], Tensor], **run: Any
) -> tuple[nn.Linear, Clock]:
    """Train a line; a step takes a second, a validation seven, a checkpoint five."""
    clock = Clock()
    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr(report, "draw_curves", lambda folder: setattr(clock, "now", clock.now + 5))
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    generator = torch.Generator().manual_seed(0)

    def step(x: Tensor) -> dict[str, Tensor]:
        clock.now += 1
        return {"total": losses(model(x))}

    def validate(averaged: nn.Module) -> dict[str, float]:
        clock.now += 7
        return {"total": 1.0}

    settings = {"steps": 10, "rate": 0.01, "began": clock.now - 20, **run}
    loop.train(
        Run(folder, **settings),
        model,
        lambda: (torch.randn(4, 2, generator=generator),),
        step,
        validate,
        generator,
    )
    return model, clock


@pytest.mark.parametrize("minutes", [1.0, 5.0])
def test_a_run_by_the_clock_ends_when_it_is_told_to(
    minutes: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what was before its first step, and with its last report and checkpoint."""
    _, clock = train(tmp_path, monkeypatch, lambda y: y.square().mean(), minutes=minutes)
    spent = clock.now - 80
    assert 60 * minutes - 2 <= spent <= 60 * minutes
    log = curves.read_log(tmp_path)
    assert log[-1]["step"] == pytest.approx(60 * minutes - 20 - 12 - 12, abs=2)
    assert log[-1]["seconds"] <= 60 * minutes


def test_a_run_by_the_clock_that_is_complete_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = train(tmp_path, monkeypatch, lambda y: y.square().mean(), minutes=1.0)
    again, clock = train(tmp_path, monkeypatch, lambda y: y.square().mean(), minutes=1.0)
    assert clock.now == 100
    assert torch.equal(first.weight, again.weight)


def test_losses_that_are_not_finite_take_the_weights_back_to_their_average(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = iter(range(1000))

    def once_infinite(y: Tensor) -> Tensor:
        loss = y.square().mean()
        return loss * math.inf if next(calls) == 35 else loss

    model, _ = train(tmp_path, monkeypatch, once_infinite, steps=80, report=20, save=40)
    assert model.weight.isfinite().all()
    assert [record.getMessage() for record in caplog.records] == [
        "losses are not finite: back to the last average, half the rate"
    ]
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["progress"]["slower"] == 0.5
    averaged = torch.load(tmp_path / "averaged.pt", weights_only=True)
    assert all(value.isfinite().all() for value in averaged.values())
    totals = [row["total"] for row in curves.read_log(tmp_path) if "total" in row]
    assert len(totals) == 3  # at the step in between nothing was left to report
    assert all(map(math.isfinite, totals))


def test_gradients_that_are_not_finite_are_seen_before_they_are_averaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(1000))

    def steep(y: Tensor) -> Tensor:
        """A root at zero: finite, with a gradient that is not."""
        loss = y.square().mean()
        return loss + (y - y).abs().sqrt().sum() if next(calls) == 29 else loss

    model, _ = train(tmp_path, monkeypatch, steep, steps=40)
    assert model.weight.isfinite().all()


def test_losses_that_are_never_finite_are_said_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match="are not finite even at a learning rate of"):
        train(tmp_path, monkeypatch, lambda y: y.sum() * math.nan, steps=1000)
