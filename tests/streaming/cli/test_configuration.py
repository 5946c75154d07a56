"""Options from a file and from the environment."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest

from streaming.cli import client, server
from streaming.cli.configuration import CONFIG_VARIABLE
from streaming.cli.preset_file import PRESET_NAMES
from streaming.receive import settings as listener_settings
from streaming.send import settings as service_settings
from streaming.support.guard import AUTH_TOKEN_VARIABLE, SERVE_TOKEN_VARIABLE
from streaming.support.json_log import JsonFormatter


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Write a configuration; returns where."""
    for variable in (CONFIG_VARIABLE, "MUSIC350_PORT", "MUSIC350_LOOP", AUTH_TOKEN_VARIABLE):
        monkeypatch.delenv(variable, raising=False)

    def write(text: str) -> Path:
        path = tmp_path / "radio.ini"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_file_is_read_below_environment_and_command_line(config, monkeypatch):
    path = config("[both]\nverbose = yes\n[server]\nport = 1\nhost = ::1\nmax_lag = 9\nloop = on\n")
    arguments = ["--config", str(path)]
    parsed = server.parse_arguments(arguments)
    assert (parsed.port, parsed.host, parsed.max_lag) == (1, "::1", 9.0)
    assert parsed.loop is True
    assert parsed.verbose is True
    monkeypatch.setenv("MUSIC350_PORT", "2")
    monkeypatch.setenv("MUSIC350_LOOP", "no")
    parsed = server.parse_arguments(arguments)
    assert (parsed.port, parsed.loop) == (2, False)
    assert server.parse_arguments([*arguments, "--port", "3"]).port == 3
    assert client.parse_arguments(arguments).verbose is True


def test_a_file_as_windows_writes_it_is_read(config):
    path = config("")
    path.write_bytes(b"\xef\xbb\xbf[server]\r\nport = 1\r\nsongs =\r\n  a.flac\r\n  b.flac\r\n")
    parsed = server.parse_arguments(["--config", str(path)])
    assert (parsed.port, parsed.songs) == (1, ["a.flac", "b.flac"])


def test_the_environment_names_the_file(config, monkeypatch):
    monkeypatch.setenv(
        CONFIG_VARIABLE, str(config("[client]\nurl = wss://radio.example\nplay=1\n"))
    )
    parsed = client.parse_arguments([])
    assert (parsed.url, parsed.play) == ("wss://radio.example", True)
    assert client.parse_arguments(["ws://other"]).url == "ws://other"


def test_several_values_stand_on_lines_of_their_own(config):
    path = config(
        "[server]\nsongs =\n  a song.flac\n  albums/\nallow-origin =\n  https://a\n  https://b\n"
    )
    parsed = server.parse_arguments(["--config", str(path), "--allow-origin", "https://c"])
    assert parsed.songs == ["a song.flac", "albums/"]
    assert parsed.allow_origin == ["https://a", "https://b", "https://c"]
    assert server.parse_arguments(["--config", str(path), "other.flac"]).songs == ["other.flac"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[server]\ncolour = blue\n", "'colour' in"),
        ("[server]\nloop = perhaps\n", "must be yes or no, not 'perhaps'"),
        ("[server]\nport = many\n", "is not a number from 0 to 65535"),
        ("port = 1\n", "makes no sense"),
        ("[server]\nport = 1\nport = 2\n", "makes no sense"),
        ("[server]\nconfig = other\n", "'config' in"),
    ],
)
def test_what_a_file_cannot_mean_is_one_sentence(config, capsys, text, told):
    with pytest.raises(SystemExit) as end:
        server.parse_arguments(["--config", str(config(text))])
    assert end.value.code == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


def test_a_file_that_is_not_there_or_no_text_is_one_sentence(config, capsys):
    path = config("")
    path.write_bytes(b"\xff\xfe\x00")
    for name, told in ((path, "it is no text"), (path / "x", "Cannot read the configuration")):
        with pytest.raises(SystemExit):
            server.parse_arguments(["--config", str(name)])
        assert told in capsys.readouterr().err


def test_the_secret_in_the_environment_does_not_become_an_argument(config, monkeypatch):
    monkeypatch.setenv(AUTH_TOKEN_VARIABLE, "correct horse")
    assert server.parse_arguments([]).auth_token is None
    monkeypatch.setenv(SERVE_TOKEN_VARIABLE, "correct horse")
    assert client.parse_arguments(["--serve", "8000"]).serve_token is None


def test_logs_are_json_objects_on_lines_of_their_own():
    try:
        raise ValueError("no\nway")
    except ValueError:
        record = logging.LogRecord(
            "streaming.stream.hub", logging.WARNING, __file__, 1, "lost %d\n…", (3,), sys.exc_info()
        )
    line = JsonFormatter().format(record)
    assert "\n" not in line
    fields = json.loads(line)
    assert (fields["level"], fields["logger"]) == ("warning", "streaming.stream.hub")
    assert fields["message"] == "lost 3\n…"
    assert fields["time"].endswith("+00:00")
    assert "ValueError" in fields["error"]


def test_errors_of_the_program_are_json_too(tmp_path, capsys):
    missing = tmp_path / "missing.wav"
    assert server.main([str(missing), "--json-log", "--port", "0"]) == 2
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert lines[-1]["level"] == "error"
    assert "missing.wav" in lines[-1]["message"]


PRESET = """
# of a bad link
[server]
packet-tokens = 96
hop = 24
[client]
hop = 48
buffer = 1.5
most-buffer = 3
catch-up = jump
"""


def test_a_preset_is_a_file_for_both_programs_below_all_else(config, tmp_path, monkeypatch):
    path = tmp_path / "preset.ini"
    path.write_text(PRESET, encoding="utf-8")
    parsed = server.parse_arguments(["--preset", str(path)])
    assert (parsed.packet_tokens, parsed.hop, parsed.preset) == (96, 24, "default")
    heard = client.parse_arguments(["--play", f"--preset={path}"])
    assert (heard.hop, heard.buffer, heard.most_buffer, heard.catch_up) == (48, 1.5, 3.0, "jump")
    settings = config(f"[client]\npreset = {path}\nbuffer = 2\n")
    heard = client.parse_arguments(["--play", "--config", str(settings), "--hop", "16"])
    assert (heard.hop, heard.buffer, heard.most_buffer) == (16, 2.0, 3.0)
    monkeypatch.setenv("MUSIC350_PRESET", str(path))
    assert server.parse_arguments([]).packet_tokens == 96
    assert server.parse_arguments(["--preset", "low-latency"]).packet_tokens is None


def test_both_programs_know_the_presets_that_are_no_files():
    assert set(listener_settings.PRESETS) == set(service_settings.PRESETS) == set(PRESET_NAMES)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nhost = 0.0.0.0\n", "'host' in the preset"),
        ("[server]\nbuffer = 3\n", "'buffer' in the preset"),
        ("[server]\nhop = many\n", "hop"),
        ("hop = 3\n", "makes no sense"),
    ],
)
def test_a_preset_that_cannot_be_used_is_told(config, tmp_path, capsys, text, said):
    path = tmp_path / "preset.ini"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        server.parse_arguments(["--preset", str(path)])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_preset_that_is_not_there_is_told(config, capsys):
    with pytest.raises(SystemExit) as ended:
        client.parse_arguments(["--play", "--preset", "missing.ini"])
    assert ended.value.code == 2
    assert "neither default nor low-latency nor a file" in capsys.readouterr().err
