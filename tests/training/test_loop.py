"""The training loop and its stages: resuming, samples, curves, devices."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile as sf
import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from codec.constants import SAMPLE_RATE
from codec.nano.codec import NanoModels
from tests.support.tiny_training import TINY, make_features, make_music, make_tiny
from training import curves, device, report, train_codec, train_flow, train_texture, train_vocoder
from training.augment import Augment, Draws
from training.checkpoint import warm_start
from training.losses import feature_losses
from training.train_vocoder import SpectralLoss

Main = Callable[[list[str]], int]
Stage = tuple[Main, list[str]]
STAGES = ["codec", "vocoder", "flow", "texture"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Music, held-out music, their features, and weights of a codec."""
    folder = tmp_path_factory.mktemp("data")
    for name, seed in (("music", 1), ("held", 2)):
        make_music(folder / name, seed)
        make_features(folder / name, folder / f"{name}-features")
    torch.manual_seed(0)
    torch.save(NanoModels(TINY).codec.state_dict(), folder / "codec.pt")
    return folder


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny(monkeypatch)


def stage(name: str, data: Path) -> Stage:
    features = [f"--features={data / 'music-features'}"]
    held = [f"--valid={data / 'held-features'}", f"--listen={data / 'held'}"]
    sound = [f"--music={data / 'music'}", f"--valid={data / 'held'}"]
    codec = [f"--codec={data / 'codec.pt'}"]
    small = ["--batch=2", "--tokens=32", "--threads=1", "--device=cpu"]
    return {
        "codec": (train_codec.main, [*features, *held, *small]),
        "vocoder": (train_vocoder.main, [*sound, *small]),
        "flow": (train_flow.main, [*features, *held, *codec, *small]),
        "texture": (train_texture.main, [*features, *held, *codec, *small]),
    }[name]


def run(name: str, data: Path, out: Path, *more: str) -> None:
    main, arguments = stage(name, data)
    assert main([*arguments, f"--out={out}", *more]) == 0


TIMES = ("seconds", "step_s", "closing_s")


def same(first: Any, second: Any) -> bool:
    """Whether two states are equal to the last bit; times may differ."""
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(
            same(first[key], second[key]) for key in first if key not in TIMES
        )
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


@pytest.mark.parametrize("name", STAGES)
def test_an_interrupted_run_ends_as_one_that_was_not(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ("--steps=6", "--save-every=3", "--report-every=2", "--sample-every=0")
    monkeypatch.setattr(report, "draw_curves", lambda folder: None)
    run(name, data, tmp_path / "straight", *common)

    clip, calls = nn.utils.clip_grad_norm_, iter(range(100))

    def interrupt(*arguments: Any) -> Tensor:
        if next(calls) == 4:  # in the fifth step, two steps after the last save
            raise KeyboardInterrupt
        return clip(*arguments)

    main, arguments = stage(name, data)
    with monkeypatch.context() as patch:
        patch.setattr(nn.utils, "clip_grad_norm_", interrupt)
        assert main([*arguments, f"--out={tmp_path / 'resumed'}", *common]) == 130
    assert len(curves.read_log(tmp_path / "resumed")) == 3
    run(name, data, tmp_path / "resumed", *common)

    straight, resumed = (tmp_path / which for which in ("straight", "resumed"))
    for file in ("state.pt", "averaged.pt"):
        assert same(*(torch.load(where / file, weights_only=True) for where in (straight, resumed)))
    log = curves.read_log(straight)
    assert [row["step"] for row in log] == [0, 2, 4, 6]
    assert same(log, curves.read_log(resumed))


def test_the_vocoder_learns_from_decoded_features_as_well(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(NanoModels(TINY).state_dict(), tmp_path / "all.pt")
    common = ("--steps=1", "--sample-every=0")
    run("vocoder", data, tmp_path / "run", *common, f"--decoded={tmp_path / 'all.pt'}")
    row = curves.read_log(tmp_path / "run")[-1]
    assert row["decoded_flat"] > row["flat"] > 0
    assert row["valid_decoded_mel"] > 0
    main, arguments = stage("vocoder", data)
    assert main([*arguments, f"--out={tmp_path / 'two'}", f"--decoded={data / 'codec.pt'}"]) == 2


def test_another_seed_trains_something_else(data: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        run("codec", data, tmp_path / str(seed), "--steps=1", "--sample-every=0", f"--seed={seed}")
    first, second = (torch.load(tmp_path / n / "averaged.pt", weights_only=True) for n in "12")
    assert not same(first, second)


def test_a_state_of_another_training_is_refused_in_one_sentence(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("codec", data, tmp_path, "--steps=1", "--sample-every=0")
    main, arguments = stage("flow", data)
    assert main([*arguments, f"--out={tmp_path}"]) == 2
    assert "holds a training of another kind" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("name", STAGES)
def test_samples_and_curves_are_written(name: str, data: Path, tmp_path: Path) -> None:
    run(name, data, tmp_path, "--steps=2", "--sample-every=1")
    names = sorted(file.name for file in (tmp_path / "samples").iterdir())
    steps = [f"00000-step-00000{step}.{kind}" for step in (0, 1, 2) for kind in ("flac", "png")]
    assert names == ["00000-original.flac", *steps]
    for file in names:
        if file.endswith("flac"):
            sound, rate = sf.read(tmp_path / "samples" / file)
            assert rate == SAMPLE_RATE
            assert sound.shape == (SAMPLE_RATE, 2)
            assert 0.01 < abs(sound).max() <= 1
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_looking_at_samples_changes_nothing(data: Path, tmp_path: Path) -> None:
    for every in (0, 1):
        run("flow", data, tmp_path / str(every), "--steps=3", f"--sample-every={2 * every}")
    assert not (tmp_path / "0" / "samples").exists()
    states = (torch.load(tmp_path / every / "state.pt", weights_only=True) for every in "01")
    assert same(*states)


def test_curves_are_drawn_of_any_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"step": s, "seconds": s, "total": 1 / s, "valid_total": 2 / s} for s in (1, 2)]
    lines = [json.dumps(row) for row in rows]
    (tmp_path / "log.jsonl").write_text("\n".join([*lines, '{"step": 3, "to']))  # cut off
    assert curves.main([str(tmp_path)]) == 0
    assert (tmp_path / "curves.png").exists()
    assert curves.main([str(tmp_path / "nothing")]) == 2
    assert "holds no log of a training" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps=0"], "--steps must be at least 1"),
        (["--features=nowhere"], "no feature files in nowhere"),
        (["--init=nowhere.safetensors"], "nowhere.safetensors does not exist"),
        (["--init=bundled"], "holds the weights of another model"),
        (["--device=cuda"], "no graphics card"),
        (["--tensorboard"], "pip install '.[tensorboard]'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(
    arguments: list[str],
    words: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    main, rest = stage("codec", data)
    assert main([*rest, f"--out={tmp_path}", *arguments]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert words in errors[-1]
    assert "Traceback" not in "".join(errors)


def test_weights_to_start_from_are_taken_over(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    wanted = NanoModels(TINY).flow
    torch.save(wanted.state_dict(), tmp_path / "flow.pt")
    fresh = NanoModels(TINY).flow
    taken, own = warm_start(fresh, tmp_path / "flow.pt", "flow.")
    assert taken == own
    assert same(fresh.state_dict(), wanted.state_dict())


def test_the_log_of_a_resumed_run_loses_what_was_not_saved(tmp_path: Path) -> None:
    log = report.Report(tmp_path, 0)
    for step in (1, 2, 3):
        log.row({"step": step, "total": 1.0})
    report.Report(tmp_path, 2)
    assert [row["step"] for row in curves.read_log(tmp_path)] == [1, 2]


class OneDevice(TorchDispatchMode):
    """Fails where an operation mixes devices, as it does with a graphics card in the machine.

    Numbers (no dimensions) and copies are allowed to. Reading a number gives 1: the device without
    memory has none.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        places = {
            leaf.device.type
            for leaf in tree_leaves((args, kwargs))
            if isinstance(leaf, Tensor) and leaf.ndim > 0
        }
        assert len(places) < 2 or "copy" in str(func), f"{func} mixes {places}"
        if func is torch.ops.aten._local_scalar_dense.default:
            return 1.0
        return func(*args, **(kwargs or {}))


def test_the_watch_for_mixed_devices_sees_them() -> None:
    with OneDevice(), pytest.raises(AssertionError, match="mixes"):
        torch.zeros(2, device="meta").gather(0, torch.zeros(2, dtype=torch.int64))


def test_everything_in_a_step_is_on_the_models_device() -> None:
    """The device without memory stands in for a graphics card, which test machines lack."""
    place = torch.device("meta")
    models = NanoModels(TINY).to(place)
    codec, flow, vocoder = models.codec, models.flow, models.vocoder
    augment = Augment(TINY).to(place)
    draws = Draws(torch.zeros(2, 27, device=place), torch.zeros(2, 1, device=place))
    criterion = SpectralLoss(TINY).to(place)
    with OneDevice():
        batch = augment(torch.zeros(2, 40, TINY.feature_dims, device=place), draws)
        places = torch.zeros(2, dtype=torch.int64, device=place)
        guess, _, _ = codec(batch, places)
        terms = feature_losses(guess, batch, TINY, codec.widths)
        torch.stack(list(terms.values())).sum().backward()
        expected, hidden = codec.decode(codec.encode(batch, places), places)
        t = torch.zeros(2, 40, device=place)
        flow(batch - expected.detach(), t, hidden.detach()).sum().backward()
        mel = batch[..., : TINY.mel_dims].reshape(2, -1, TINY.mels)
        notes = batch[..., TINY.mel_dims : TINY.mel_dims + TINY.semitone_dims]
        bank = vocoder.oscillators(notes.reshape(2, -1, TINY.semitones), places)
        noise = torch.zeros(2, 2, 40 * 1920, device=place)
        pair = vocoder(
            mel,
            notes.reshape(2, -1, TINY.semitones),
            vocoder.spectrum(bank, TINY.decimation),
            vocoder.spectrum(noise, 1),
        )
        sound = vocoder.level(vocoder.to_signal(pair), mel)
        criterion(sound[:, 0], noise)["total"].backward()


class Unwaiting(TorchDispatchMode):
    """Fails if an operation's result is read, for which a graphics card would have to be waited."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        waits = ("_local_scalar_dense", "nonzero", "masked_select", "unique")
        assert not any(name in str(func) for name in waits), f"{func} waits"
        return func(*args, **(kwargs or {}))


def test_the_watch_for_waiting_sees_it() -> None:
    with Unwaiting(), pytest.raises(AssertionError, match="waits"):
        float(torch.zeros(1))


@pytest.mark.parametrize("name", STAGES)
def test_no_step_waits_for_the_device(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []

    def step(
        run: Any, model: nn.Module, draw: Callable[[], Any], losses: Callable[..., Any], *rest: Any
    ) -> None:
        with Unwaiting():
            for _ in range(2):
                losses(*draw())["total"].backward()
                steps.append(name)

    main, arguments = stage(name, data)
    monkeypatch.setattr(sys.modules[main.__module__], "train", step)
    assert main([*arguments, f"--out={tmp_path}"]) == 0
    assert steps == [name, name]


def test_the_device_is_picked_by_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, wanted in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert device.pick_device("auto").type == wanted
        assert device.pick_device("cpu").type == "cpu"


@pytest.mark.parametrize("name", STAGES)
def test_a_compiled_training_keeps_names_and_averages(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiling itself takes minutes; what must hold is that it is the whole step, and that alone.

    So the compiler is replaced by its first half, which traces the step and would say what it
    cannot trace.
    """
    compiled = []

    def tracing(step: Callable[..., Any], dynamic: bool) -> Callable[..., Any]:
        compiled.append(step)
        return compile_(step, dynamic=dynamic, backend="eager", fullgraph=True)

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", tracing)
    run(name, data, tmp_path, "--steps=1", "--compile", "--sample-every=0")
    assert [step.__name__ for step in compiled] == ["losses"]
    plain = tmp_path / "plain"
    run(name, data, plain, "--steps=1", "--sample-every=0")
    traced, written = (
        torch.load(folder / "averaged.pt", weights_only=True) for folder in (tmp_path, plain)
    )
    assert traced.keys() == written.keys()
    first, second = (curves.read_log(folder)[-1] for folder in (tmp_path, plain))
    for term in {"total", "norm", "valid_total"} & first.keys():
        assert first[term] == pytest.approx(second[term], rel=0.02)


def test_a_training_goes_on_without_a_compiler_that_fails(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(step: Callable[..., Any], dynamic: bool) -> Callable[..., Any]:
        def fail(*arguments: Any) -> Any:
            raise TorchDynamoException("no C++ compiler\nand much more")

        return fail

    monkeypatch.setattr(torch, "compile", failing)
    run("codec", data, tmp_path, "--steps=2", "--compile", "--sample-every=0")
    assert [record.getMessage() for record in caplog.records] == [
        "the step cannot be compiled, and runs as it is: no C++ compiler"
    ]


def test_threads_of_a_training_sleep_while_they_wait() -> None:
    code = "import training, os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    environment = {"PATH": "", "PYTHONPATH": ":".join(p for p in sys.path if p)}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["passive", "False"]
