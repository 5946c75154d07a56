"""Fetching, checking, converting and loading the published weights, against a hub on loopback."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import codec
from codec.errors import SettingError, WeightsError
from codec.mucodec import weights
from codec.mucodec.checkpoints import RELEASE
from codec.mucodec.codec import MuCodec
from codec.mucodec.weights import REPOSITORY, convert_folder, fetch, load_model
from streaming.cli import muc as program
from tests.support.fake_hub import FakeHub, serve_hub
from tests.support.seeded import test_signal
from tests.support.tiny_mucodec import TINY, tiny_model

WHOLE, ENCODER, VAE = RELEASE


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("MUSIC350_CACHE", str(folder))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    return folder


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return dict(tiny_model().state_dict())


class _Settings:
    """Stands for a class of the training framework, which this machine does not have."""

    def __init__(self, rate: float) -> None:
        self.rate = rate


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> _Settings:
    module = ModuleType("fairseq.settings")
    module._Settings = _Settings  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fairseq", ModuleType("fairseq"))
    monkeypatch.setitem(sys.modules, "fairseq.settings", module)
    monkeypatch.setattr(_Settings, "__module__", "fairseq.settings")
    return _Settings(25.0)


def pickled(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def release(
    state: Mapping[str, Tensor], *, apart: bool = False, settings: object = None
) -> dict[str, Any]:
    """What the three files hold; ``apart``: the encoder in its own file alone."""
    vae = {k: v for k, v in state.items() if k.startswith("first_stage_model.")}
    encoder = {k: v for k, v in state.items() if k.startswith("muencoder.")}
    encoder["muencoder.model.cls_token"] = torch.zeros(3)
    encoder["muencoder.model.conformer.layers.9.anything"] = torch.zeros(3)
    rest = {k: v for k, v in state.items() if k not in vae and k not in encoder}
    rest |= {"zero_cond_embedding1": torch.zeros(3)}
    scale = {"scale_factor": rest.pop("scale_factor")}
    return {
        WHOLE: rest if apart else rest | encoder,
        ENCODER: {
            "cfg": settings,
            "model": {k.removeprefix("muencoder."): v for k, v in encoder.items()},
        },
        VAE: {"state_dict": vae | scale | {"cond_stage_model.other": torch.zeros(5)}},
    }


def write(content: Mapping[str, Any], folder: Path) -> Path:
    for name, value in content.items():
        path = folder / RELEASE[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value if isinstance(value, bytes) else pickled(value))
    return folder


@pytest.fixture
def hub(state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    files = {RELEASE[name]: pickled(value) for name, value in release(state).items()}
    with serve_hub(FakeHub(REPOSITORY, files)) as running:
        yield running


def fetched(hub: FakeHub, **options: Any) -> weights.WeightsFile:
    return fetch(config=TINY, endpoint=hub.endpoint, **options)


def left_over(cache: Path) -> list[str]:
    """Weights and half-written files in the cache."""
    return [p.name for p in cache.rglob("*") if p.suffix in (".safetensors", ".part")]


# ---------------------------------------------------------------------------------------- the hub


def test_weights_come_from_the_hub_once_and_are_exact(
    hub: FakeHub, cache: Path, state: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    file = fetched(hub)
    assert "CC-BY-NC-4.0" in caplog.text
    assert RELEASE[ENCODER] not in hub.ranges  # the whole model's file brings the encoder along
    assert not list(cache.rglob("*.pt"))
    loaded = load_model(file.path, config=TINY)
    assert loaded.digest == file.digest
    assert {k: v.tolist() for k, v in loaded.model.state_dict().items()} == {
        k: v.tolist() for k, v in state.items()
    }
    asked = hub.requests
    caplog.clear()
    assert fetched(hub) == file
    assert hub.requests == asked
    assert not caplog.text


def test_cached_weights_need_no_network(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    file = fetched(hub)
    monkeypatch.setattr(weights, "_download", None)
    loaded = load_model(config=TINY)
    assert loaded.digest == file.digest


def test_encoder_is_fetched_where_it_is_in_a_file_of_its_own(
    hub: FakeHub, state: dict[str, Tensor], foreign: _Settings
) -> None:
    content = release(state, apart=True, settings={"task": foreign})
    # On a hub the files may lie side by side as well.
    hub.files = {name: pickled(value) for name, value in content.items()}
    loaded = load_model(fetched(hub).path, config=TINY)
    name = "muencoder.model.conformer.layers.0.ffn1.intermediate_dense.weight"
    assert torch.equal(loaded.model.state_dict()[name], state[name])


def test_broken_download_goes_on_within_a_run(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1024)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    hub.breaks[RELEASE[WHOLE]] = [50 * 1024]
    fetched(hub)
    assert hub.ranges[RELEASE[WHOLE]] == [0, 50 * 1024]


def test_broken_download_goes_on_in_the_next_run(
    hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1024)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    hub.breaks[RELEASE[WHOLE]] = [50 * 1024] + [0] * 30
    with pytest.raises(WeightsError, match="to go on where it stopped"):
        fetched(hub)
    assert [name for name in left_over(cache) if not name.endswith(f"{WHOLE}.part")] == []
    hub.breaks.clear()
    hub.ranges.clear()
    fetched(hub)
    assert hub.ranges[RELEASE[WHOLE]] == [50 * 1024]


def test_spoiled_download_is_not_used(hub: FakeHub, cache: Path) -> None:
    name = RELEASE[WHOLE]
    hub.spoilt.add(name)
    with pytest.raises(WeightsError, match=f"{WHOLE} did not arrive as the hub has it"):
        fetched(hub)
    assert not left_over(cache)
    hub.spoilt.clear()
    fetched(hub)


def test_changed_file_on_the_hub_is_refused_until_it_is_meant(
    hub: FakeHub, state: dict[str, Tensor]
) -> None:
    first = fetched(hub)
    first.path.unlink()
    changed = release(state)
    changed[VAE]["state_dict"]["scale_factor"] = torch.tensor(0.5)
    hub.files[RELEASE[VAE]] = pickled(changed[VAE])
    hub.commit = "b" * 40
    with pytest.raises(WeightsError, match=f"{VAE}.* is not the file that was there at first"):
        fetched(hub)
    second = fetched(hub, replace=True)
    assert second.digest != first.digest
    assert load_model(second.path, config=TINY).model.scale_factor == 0.5


@pytest.mark.parametrize(
    ("repository", "revision", "words"),
    [
        ("nobody/nothing", None, "no repository 'nobody/nothing'"),
        (REPOSITORY, "v9", "no revision 'v9'"),
        ("no repository", None, "write it as OWNER/NAME"),
    ],
)
def test_wrong_place_on_the_hub_is_named(
    hub: FakeHub, repository: str, revision: str | None, words: str
) -> None:
    with pytest.raises(WeightsError, match=words):
        fetched(hub, repository=repository, revision=revision)


def test_revision_has_weights_of_its_own(hub: FakeHub) -> None:
    by_branch, by_commit = fetched(hub), fetched(hub, revision=hub.commit)
    assert by_branch == by_commit  # the same files are converted once


def test_repository_of_something_else_is_refused(hub: FakeHub) -> None:
    hub.files = {"README.md": b"#"}
    with pytest.raises(WeightsError, match=f"holds no {WHOLE} and no {VAE}"):
        fetched(hub)


def test_unreachable_hub_is_named() -> None:
    with pytest.raises(WeightsError, match=r"could not be fetched .* give --weights"):
        fetch(config=TINY, endpoint="http://127.0.0.1:9")


# ----------------------------------------------------------------------------------- local files


def test_folder_of_the_release_is_converted_once(
    tmp_path: Path, cache: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(release(state), tmp_path / "release")
    first = convert_folder(folder, config=TINY)
    content = first.path.read_bytes()
    monkeypatch.setattr(weights, "convert", None)
    assert convert_folder(folder, config=TINY) == first
    monkeypatch.undo()
    monkeypatch.setenv("MUSIC350_CACHE", str(tmp_path / "other"))
    again = convert_folder(folder, config=TINY)
    assert again.path.read_bytes() == content  # the digest names the weights on every machine


def test_foreign_classes_are_read_without_their_packages(
    tmp_path: Path, state: dict[str, Tensor], foreign: _Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(release(state, apart=True, settings=[foreign]), tmp_path / "release")
    monkeypatch.delitem(sys.modules, "fairseq.settings")
    load_model(folder, config=TINY)


class _Trap:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_pickle_that_would_run_something_is_refused(
    tmp_path: Path, cache: Path, state: dict[str, Tensor]
) -> None:
    content = release(state, apart=True, settings=_Trap(tmp_path / "trap"))
    folder = write(content, tmp_path / "release")
    with pytest.raises(WeightsError, match=r"mkdir, which no checkpoint of tensors needs"):
        load_model(folder, config=TINY)
    assert not (tmp_path / "trap").exists()
    assert not left_over(cache)


KEY = "cond_muencoder_emb.bias"


def _spoil(content: dict[str, Any], fault: str) -> None:
    if fault == "missing":
        del content[WHOLE][KEY]
    elif fault == "unknown":
        content[WHOLE]["something.else"] = torch.zeros(1)
    elif fault == "shape":
        content[WHOLE][KEY] = torch.zeros(7)
    elif fault == "cut short":
        content[WHOLE] = pickled(content[WHOLE])[:-3000]
    elif fault == "text":
        content[WHOLE] = b"version https://git-lfs.github.com/spec/v1\n"
    elif fault == "empty":
        content[WHOLE] = b""
    elif fault == "list":
        content[WHOLE] = [1, 2, 3]
    elif fault == "no state":
        content[VAE] = content[VAE]["state_dict"] | {"state_dict": None}
    elif fault == "no vae":
        del content[VAE]
    elif fault == "no encoder":
        content[WHOLE] = {k: v for k, v in content[WHOLE].items() if "muencoder." not in k}
        del content[ENCODER]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("missing", f"{WHOLE} lacks {KEY};"),
        ("unknown", f"{WHOLE} holds, unknown to this program, something.else;"),
        ("shape", rf"{WHOLE} has {KEY} with the shape \[7\] where the published model has \[16\]"),
        ("cut short", f"{WHOLE} is no readable checkpoint .*cut short"),
        ("text", f"{WHOLE} is no readable checkpoint"),
        ("empty", f"{WHOLE} is no readable checkpoint"),
        ("list", f"{WHOLE} holds no tensors;"),
        ("no state", f"{VAE} holds no tensors under 'state_dict'"),
        ("no vae", f"holds no {VAE}; give the folder"),
        ("no encoder", f"{WHOLE} does not hold the encoder, and {ENCODER} is not there"),
    ],
)
def test_wrong_files_are_named(
    tmp_path: Path, cache: Path, state: dict[str, Tensor], fault: str, words: str
) -> None:
    content = release(state)
    _spoil(content, fault)
    folder = write(content, tmp_path / "release")
    with pytest.raises(WeightsError, match=words) as caught:
        load_model(folder, config=TINY)
    assert "\n" not in str(caught.value)
    assert not left_over(cache)


def test_converted_file_is_held_to_its_digest(tmp_path: Path, state: dict[str, Tensor]) -> None:
    folder = write(release(state), tmp_path / "release")
    file = convert_folder(folder, config=TINY)
    content = bytearray(file.path.read_bytes())
    content[-5] ^= 1
    file.path.write_bytes(content)
    with pytest.raises(WeightsError, match="is damaged"):
        load_model(folder, config=TINY)
    file.path.unlink()
    assert load_model(folder, config=TINY).digest == file.digest


def test_other_weights_files_are_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match="there is no"):
        load_model(tmp_path / "none", config=TINY)
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other)
    with pytest.raises(WeightsError, match="was not converted from the MuCodec release"):
        load_model(other, config=TINY)
    file = convert_folder(write(release(state), tmp_path / "release"), config=TINY)
    with pytest.raises(WeightsError, match="of other sizes"):
        codec.load("mucodec", file.path)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="no readable safetensors file"):
        load_model(cut, config=TINY)


def test_unreadable_memory_is_named(cache: Path) -> None:
    (cache / "mucodec").mkdir(parents=True)
    (cache / "mucodec" / "known.json").write_text("{")
    with pytest.raises(WeightsError, match=r"known.json cannot be read .*delete it"):
        load_model(config=TINY)


def test_full_disk_leaves_nothing(
    tmp_path: Path, cache: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(files: object, config: object, out: Path) -> None:
        out.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "convert", half)
    with pytest.raises(WeightsError, match=r"No space left on device.*make room"):
        convert_folder(write(release(state), tmp_path / "release"), config=TINY)
    assert not left_over(cache)


# ------------------------------------------------------------------------------------- the halves


def test_halves_compute_what_the_whole_does(tmp_path: Path, state: dict[str, Tensor]) -> None:
    folder = write(release(state), tmp_path / "release")
    whole, sender, listener = (
        MuCodec(load_model(folder, config=TINY, part=part).model, "tiny", "0" * 64)
        for part in (None, "encoder", "decoder")
    )
    sound = test_signal(8 * 48_000, 3)
    tokens = whole.sound2code(sound)
    assert np.array_equal(sender.sound2code(sound), tokens)
    heard = listener.code2sound(tokens, steps=1)
    assert np.array_equal(heard, whole.code2sound(tokens, steps=1))
    with pytest.raises(SettingError, match="loaded as encoder alone"):
        sender.code2sound(tokens)
    with pytest.raises(SettingError, match="loaded as decoder alone"):
        listener.sound2code(sound)


# ------------------------------------------------------------------------------------ the command


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's weights have the tests' sizes."""
    monkeypatch.setattr(weights, "MuCodecConfig", lambda: TINY)


@pytest.mark.usefixtures("small")
def test_command_fetches_from_the_hub(
    hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    place = cache.with_name("elsewhere")
    options = ["--cache", str(place), "--repo", REPOSITORY, "--revision", hub.commit]
    assert program.main(["fetch", "mucodec", *options]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path.is_relative_to(place)
    assert load_model(path, config=TINY).name == "mucodec"


@pytest.mark.usefixtures("small")
def test_command_takes_a_folder(
    tmp_path: Path, state: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(release(state), tmp_path / "release")
    assert program.main(["fetch", "mucodec", "--weights", str(folder)]) == 0
    shown = capsys.readouterr()
    known = json.loads((Path(os.environ["MUSIC350_CACHE"]) / "mucodec/known.json").read_text())
    (entry,) = known["local"].values()
    assert shown.out.strip().endswith(entry["converted"])
    assert entry["sha256"] in shown.err


def test_command_checks_nano(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["fetch", "nano"]) == 0
    shown = capsys.readouterr()
    assert Path(shown.out.strip()).is_file()
    assert codec.load().digest in shown.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nano", "--repo", "a/b"],
        ["mucodec", "--weights", "no such folder"],
        ["mucodec", "--weights", ".", "--revision", "x"],
    ],
)
def test_command_says_what_is_wrong(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(["fetch", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("codec: ")
    assert shown.err.count("\n") == 1
