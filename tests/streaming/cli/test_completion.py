"""The completion that the programs print, tried in a shell."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from streaming.cli import client, server
from streaming.cli.muc import main as codec_main


def completed(script: str, function: str, *words: str) -> list[str]:
    """What bash offers for the last of ``words``."""
    line = " ".join(f"'{word}'" for word in words)
    trial = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; {function}"
    code = f'{script}\n{trial}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    run = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_options_and_their_choices_are_completed(capsys):
    with pytest.raises(SystemExit) as end:
        server.parse_arguments(["--completion", "bash"])
    assert end.value.code == 0
    script = capsys.readouterr().out
    assert completed(script, "_server_py", "server.py", "--allow") == ["--allow-origin"]
    assert completed(script, "_server_py", "server.py", "--preset", "l") == ["low-latency"]
    assert "--max-lag" in completed(script, "_server_py", "server.py", "--max")


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_commands_and_what_belongs_to_each_are_completed(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["/usr/bin/muc"])
    with pytest.raises(SystemExit) as end:
        codec_main(["--completion", "bash"])
    assert end.value.code == 0
    script = capsys.readouterr().out
    assert script.endswith("-F _muc muc\n")
    commands = {"encode", "decode", "info", "fetch", "export-page"}
    assert set(completed(script, "_muc", "muc", "")) == commands
    assert completed(script, "_muc", "muc", "--c") == ["--completion"]
    assert completed(script, "_muc", "muc", "decode", "a.muc", "--gui") == ["--guidance"]
    assert completed(script, "_muc", "muc", "decode", "--format", "f") == ["flac"]
    assert completed(script, "_muc", "muc", "encode", "--format") == []
    assert completed(script, "_muc", "muc", "fetch", "m") == ["mucodec"]
    (tmp_path / "song.flac").touch()
    monkeypatch.chdir(tmp_path)
    assert completed(script, "_muc", "muc", "encode", "so") == ["song.flac"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_every_program_offers_files_where_files_belong(capsys, monkeypatch, tmp_path):
    (tmp_path / "song.flac").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        server.parse_arguments(["--completion", "bash"])
    assert completed(capsys.readouterr().out, "_server_py", "server.py", "so") == ["song.flac"]


def test_zsh_gets_the_same_through_its_bash_emulation(capsys):
    with pytest.raises(SystemExit):
        client.parse_arguments(["--completion", "zsh"])
    assert capsys.readouterr().out.startswith("autoload -U +X bashcompinit && bashcompinit\n")
