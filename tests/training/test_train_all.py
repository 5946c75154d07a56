"""The chain of training stages, how long it takes, and the model card at its end."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from codec.nano import load_nano
from codec.nano.codec import NanoModels
from codec.nano.config import NanoConfig
from training import export, plan, train_all
from training.plan import FINE_TUNING, Plan, export_stage, out_of, stages, training_stages
from training.train_all import run_stage
from training.works import Work, WorkList

PLAN = Plan(Path("runs"), Path("nano.safetensors"))
TUNED = replace(PLAN, data=Path("own"), fine_tune=True, steps=FINE_TUNING)


@pytest.mark.parametrize("whole", [PLAN, TUNED])
def test_every_stage_is_a_program_of_this_project(whole: Plan) -> None:
    """And knows every option that it is given."""
    for _, commands in stages(whole):
        for command in commands:
            main = importlib.import_module(command[2]).main
            with pytest.raises(SystemExit) as ended:
                main([*command[3:], "--help"])  # an unknown option would be an error instead
            assert ended.value.code == 0
            with pytest.raises(SystemExit) as ended:
                main([*command[3:], "--no-such-option"])
            assert ended.value.code == 2


def test_held_out_music_has_other_seeds_than_the_training_music() -> None:
    pieces = PLAN.seconds / 30  # pieces are longer than that
    assert pieces < plan.HELD_OUT_SEED


def test_a_stage_fails_when_one_of_its_commands_does() -> None:
    good, bad = ([sys.executable, "-c", f"raise SystemExit({code})"] for code in (0, 3))
    assert run_stage([good, good]) == 0
    assert run_stage([good, bad]) == 3


@pytest.mark.parametrize(("code", "exit_code"), [(1, 1), (-9, 1), (2, 2)])
def test_the_chain_stops_at_a_stage_that_fails(
    code: int,
    exit_code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ran = []

    def failing(commands: list[list[str]]) -> int:
        ran.append(commands)
        return code

    monkeypatch.setattr(train_all, "run_stage", failing)
    assert train_all.main(["--folder", str(tmp_path / "runs")]) == exit_code
    assert len(ran) == 1
    # A stage that ends with 2 has said itself, in one sentence, what is wrong.
    assert ("rendering the music failed" in capsys.readouterr().err) == (code != 2)


def test_fine_tuning_starts_every_training_from_the_bundled_weights() -> None:
    commands = [command for stage in training_stages(TUNED) for command in stage.commands]
    assert [out_of(command).name for command in commands] == ["codec", "texture"]
    assert all("--init=bundled" in command for command in commands)
    assert not any(
        "bundled" in word for stage in stages(PLAN) for c in stage.commands for word in c
    )


def test_a_folder_is_not_used_for_two_different_trainings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_all, "run_stage", lambda commands: 1)
    arguments = ["--folder", str(tmp_path), "--data", str(tmp_path / "mine")]
    assert train_all.main(arguments) == 1
    assert train_all.main(arguments) == 1  # the same again is how one goes on
    capsys.readouterr()
    assert train_all.main([*arguments, "--fine-tune"]) == 2
    error = capsys.readouterr().err
    assert "training from scratch with music from" in error
    assert len(error.splitlines()) == 1


def minutes_of(whole: Plan) -> dict[str, float]:
    """Of each training, by the name of its run."""
    commands = [command for stage in training_stages(whole) for command in stage.commands]
    assert not any(word.startswith("--steps") for command in commands for word in command)
    return {
        out_of(command).name: float(word.removeprefix("--minutes="))
        for command in commands
        for word in command
        if word.startswith("--minutes=")
    }


@pytest.mark.parametrize("minutes", [5, 30, 90])
def test_trainings_one_after_the_other_fill_the_minutes_that_were_given(minutes: float) -> None:
    found = minutes_of(replace(PLAN, minutes=minutes))
    assert found.pop("vocoder") == found["codec"]  # beside it
    assert sum(found.values()) == pytest.approx(minutes, abs=0.001)
    assert found["codec"] > 3 * found["flow"]


def test_a_fine_tuning_by_the_clock_leaves_out_what_it_does_not_train() -> None:
    found = minutes_of(replace(TUNED, minutes=10))
    assert found.keys() == {"codec", "texture"}
    assert sum(found.values()) == pytest.approx(10, abs=0.001)


def test_only_training_music_is_analysed_in_several_versions() -> None:
    (analysing,) = [stage for stage in stages(replace(PLAN, versions=12)) if "analys" in stage.name]
    music, held = analysing.commands
    assert "--versions=12" in music
    assert not any("versions" in word for word in held)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one part of a model and its log, as a training leaves it."""
    folder = tmp_path_factory.mktemp("codec")
    torch.save(NanoModels(NanoConfig()).codec.state_dict(), folder / "averaged.pt")
    (folder / "log.jsonl").write_text('{"step": 250}\n{"step": 400}\n')
    return folder


def test_an_exported_file_loads_and_its_card_says_what_it_is(parts: Path, tmp_path: Path) -> None:
    figures = {"mean": {"decoded": {"log_mel": 0.7, "other": None}, "copy": {"log_mel": 0.2}}}
    (tmp_path / "figures.json").write_text(json.dumps(figures))
    out = tmp_path / "choir.safetensors"
    arguments = [f"--codec={parts / 'averaged.pt'}", f"--out={out}", "--license=CC0"]
    assert export.main([*arguments, f"--figures={tmp_path / 'figures.json'}"]) == 0
    nano = load_nano(out)
    assert nano.weights == "choir"
    page = out.with_suffix(".md").read_text()
    for words in ("# choir", nano.digest, "CC0", "codec 400", "| log-mel distance | 0.7 | 0.2 |"):
        assert words in page
    with safe_open(out, framework="pt") as file:
        card = json.loads(file.metadata()["card"])
    assert card["name"] == "choir"
    assert card["license"] == "CC0"
    assert json.loads(card["steps"]) == {"codec": 400}
    assert json.loads(card["figures"])["copy"] == {"log_mel": 0.2}


def test_the_card_credits_the_authors_of_the_works(parts: Path, tmp_path: Path) -> None:
    holder = "2010 Anna <anna@example.org>"
    first = Work("game", "1.0-1", "usr/share/game/a.ogg", "0", "CC-BY-3.0", holder)
    second = replace(first, source="usr/share/game/data.zip:music/b.ogg")
    first = replace(first, title="First", artist="Otto")
    works = WorkList(False, {}, {"game": [first, second]})
    works.write(tmp_path / "works.json")
    out = tmp_path / "game.safetensors"
    codec = f"--codec={parts / 'averaged.pt'}"
    assert export.main([codec, f"--out={out}", f"--works={tmp_path / 'works.json'}"]) == 0
    credit = "- **game** 1.0-1, CC-BY-3.0, 2010 Anna: First (Otto); b"
    assert credit in out.with_suffix(".md").read_text().splitlines()
    with safe_open(out, framework="pt") as file:
        card = json.loads(file.metadata()["card"])
    assert card["works"] == credit
    assert card["license"] == "MIT"


def test_what_goes_on_from_the_bundled_weights_has_their_licence(
    parts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "own.safetensors"
    codec = f"--codec={parts / 'averaged.pt'}"
    assert export.main([codec, "--vocoder=bundled", f"--out={out}"]) == 0
    assert "| licence | CC-BY-SA-4.0 |" in out.with_suffix(".md").read_text()
    assert train_all._card(replace(TUNED, data=None), [])["license"] == "CC-BY-SA-4.0"


def test_lists_of_works_in_the_music_reach_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_all, "extent", lambda folder: (12, 7200.0))
    lists = [tmp_path / "free" / "works.json", tmp_path / "more" / "works.json"]
    whole = replace(TUNED, data=tmp_path)
    card = train_all._card(whole, lists)
    assert card["license"].startswith("CC-BY-SA-4.0, as far as the rights")
    assert "the user's own" not in card["data"]
    (command,) = export_stage(whole, works=lists, **card).commands
    assert [word for word in command if word.startswith("--works=")] == [
        f"--works={path}" for path in lists
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out=nano.bin"], "must be named"),
        (["--works=nothing.json"], "is no list of works"),
        (["--figures=nothing.json"], "does not hold figures"),
        (["--flow=nothing.pt"], "does not hold the weights"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(
    arguments: list[str],
    words: str,
    parts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "nano.safetensors"
    codec = f"--codec={parts / 'averaged.pt'}"
    assert export.main([codec, f"--out={out}", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
    assert not out.exists()


def test_the_card_does_not_say_where_the_music_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_all, "extent", lambda folder: (12, 7200.0))
    card = train_all._card(replace(TUNED, data=tmp_path / "secret"), [])
    assert "12 recordings of the user's own, 2.0 hours" in card["data"]
    assert "--data FOLDER --fine-tune" in card["command"]
    assert "secret" not in json.dumps(card)
