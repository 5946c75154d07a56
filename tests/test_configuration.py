"""Options from a file and from the environment."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest

import client
import server
from streaming.configuration import CONFIG_VARIABLE
from streaming.guard import AUTH_TOKEN_VARIABLE
from streaming.json_log import JsonFormatter


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
        ("[server]\nloop = perhaps\n", "is yes or no, not 'perhaps'"),
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


def test_logs_are_json_objects_on_lines_of_their_own():
    try:
        raise ValueError("no\nway")
    except ValueError:
        record = logging.LogRecord(
            "streaming.hub", logging.WARNING, __file__, 1, "lost %d\n…", (3,), sys.exc_info()
        )
    line = JsonFormatter().format(record)
    assert "\n" not in line
    fields = json.loads(line)
    assert (fields["level"], fields["logger"]) == ("warning", "streaming.hub")
    assert fields["message"] == "lost 3\n…"
    assert fields["time"].endswith("+00:00")
    assert "ValueError" in fields["error"]


def test_errors_of_the_program_are_json_too(tmp_path, capsys):
    missing = tmp_path / "missing.wav"
    assert server.main([str(missing), "--json-log", "--port", "0"]) == 2
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert lines[-1]["level"] == "error"
    assert "missing.wav" in lines[-1]["message"]
