"""The completion that the programs print, tried in shells."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

import pytest

from streaming.cli import client, muc, server
from streaming.cli.completion import SHELLS

PROGRAMS: dict[str, Callable[[list[str]], object]] = {
    "muc-server": server.parse_arguments,
    "muc-client": client.parse_arguments,
    "muc": muc.main,
}

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
needs_zsh = pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh")


@pytest.fixture
def script_of(capsys, monkeypatch):
    """What a program prints for a shell."""

    def script_of(program: str, shell: str) -> str:
        monkeypatch.setattr("sys.argv", [f"/usr/bin/{program}"])
        with pytest.raises(SystemExit) as end:
            PROGRAMS[program](["--completion", shell])
        assert end.value.code == 0
        return capsys.readouterr().out

    return script_of


@pytest.fixture
def completed(script_of):
    """What bash offers for the last of some words."""

    def completed(*words: str) -> list[str]:
        code = f"""{script_of(words[0], "bash")}
            [[ "$(complete -p "$1")" =~ -F\\ ([^ ]+) ]]
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
            "${{BASH_REMATCH[1]}}"
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        command = ["bash", "-c", code, "bash", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    return completed


@needs_bash
def test_options_and_their_choices_are_completed(completed):
    assert completed("muc-server", "--allow") == ["--allow-origin"]
    assert completed("muc-server", "--preset", "l") == ["low-latency"]
    assert "--max-lag" in completed("muc-server", "--loop", "--max")
    assert completed("muc-client", "--catch-up", "j") == ["jump"]


@needs_bash
def test_commands_and_what_belongs_to_each_are_completed(completed):
    commands = {"encode", "decode", "info", "fetch", "export-page"}
    assert set(completed("muc", "")) == commands
    assert completed("muc", "--c") == ["--completion"]
    assert completed("muc", "decode", "a.muc", "--gui") == ["--guidance"]
    assert completed("muc", "decode", "--format", "f") == ["flac"]
    assert completed("muc", "encode", "--format") == []
    assert completed("muc", "fetch", "m") == ["mucodec"]


@needs_bash
def test_files_are_offered_where_they_belong(completed, monkeypatch, tmp_path):
    (tmp_path / "song.flac").touch()
    monkeypatch.chdir(tmp_path)
    assert completed("muc", "encode", "so") == ["song.flac"]
    assert completed("muc-server", "--loop", "so") == ["song.flac"]
    assert completed("muc-server", "--weights", "so") == ["song.flac"]
    assert completed("muc-client", "so") == ["song.flac"]
    assert completed("muc-server", "--port", "so") == []


@needs_zsh
@pytest.mark.parametrize("program", PROGRAMS)
def test_zsh_completes_a_program_once_its_script_was_evaluated(program, script_of):
    code = 'autoload -U compinit && compinit -D && eval "$1" && print $_comps[$2] && $_comps[$2]'
    command = ["zsh", "-fc", code, "zsh", script_of(program, "zsh"), program]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.stdout.split() == [f"_shtab_{program.replace('-', '_')}"]
    assert "can only be called from completion function" in run.stderr  # and is no syntax error


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_has_a_script_for_every_shell(program, shell, script_of):
    script = script_of(program, shell)
    assert program in script
    assert "completion" in script
