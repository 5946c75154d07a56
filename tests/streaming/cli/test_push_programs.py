"""Pushing between programs: what they say and do, and what makes no sense."""

from __future__ import annotations

import re

import numpy as np
import pytest

from streaming.cli import server
from streaming.cli.push import publish_tokens, push_outlet
from streaming.files.muc import MucEncoder, MucReader, StreamHeader
from streaming.support.guard import PUBLISH_TOKEN_VARIABLE, PUSH_TOKEN_VARIABLE
from streaming.wire.messages import Tokens
from tests.support.certificates import make_certificate
from tests.support.fake_codec import FakeCodec, load_none
from tests.support.listening import tokens
from tests.support.programs import Programs, programs

__all__ = ["programs"]

ALL = tokens(300)
SECRET = "the publishers' secret"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    monkeypatch.delenv(PUBLISH_TOKEN_VARIABLE, raising=False)
    monkeypatch.delenv(PUSH_TOKEN_VARIABLE, raising=False)


@pytest.fixture
def file(tmp_path):
    """Twelve seconds of a file."""
    encoder = MucEncoder(StreamHeader("fake", "fake-1", FakeCodec.digest, seed=5))
    path = tmp_path / "song.muc"
    path.write_bytes(encoder.title("Song") + encoder.tokens(ALL) + encoder.finish(300 * 1920 - 9))
    return path


def test_a_station_pushes_to_a_relay_that_is_heard(file, tmp_path, programs: Programs):
    secret = tmp_path / "secret"
    secret.write_text(f"# of the station\n{SECRET}\n")
    relay, url = programs.server("relay", "--accept-push", "--publish-token-file", secret)
    relay.until(lambda: "waiting for a publisher" in relay.log)
    copy = tmp_path / "copy.muc"
    listener = programs.client("listener", url, "--wait", "--save", copy, "--seconds", "3.01")
    listener.until(
        lambda: "waiting for the sender" in listener.log or "coming back" in listener.log
    )
    station, _ = programs.server(
        "station", file, "--loop", "--packet-tokens", "25", "--push", url, "--push-token", SECRET
    )
    station.until(lambda: f"pushing to {url}" in station.log)
    assert listener.ends() == 0
    assert station.interrupt() == 0
    relay.until(lambda: relay.log.count("waiting for a publisher") == 2)  # for the next one
    assert relay.interrupt() == 0
    reader = MucReader(copy)
    info = reader.describe()
    assert (info.header.seed, info.header.digest) == (5, FakeCodec.digest)
    assert (info.samples, info.lost_tokens) == (144_480, 0)
    saved = np.concatenate([item.tokens for item in reader.items() if isinstance(item, Tokens)])
    begin = info.first_token
    assert np.array_equal(saved, np.resize(ALL, begin + 76)[begin:])
    assert "pushed" in station.log  # in the summary
    for log in (relay.log, station.log, listener.log):
        assert SECRET not in log
        assert "Traceback" not in log


def test_a_secret_that_is_refused_ends_the_sender_with_one_sentence(
    file, tmp_path, programs: Programs
):
    relay, url = programs.server("strict", "--accept-push", "--publish-token", SECRET)
    pushing = ("--push", url, "--push-token", "something else")
    sender = programs.start("refused", "server.py", file, "--loop", "--port", "0", *pushing)
    assert sender.ends() == 2
    last = sender.log.splitlines()[-1]
    assert last == (
        "server.py: The relay closed the connection: This relay needs a publish token, "
        "and yours is not right."
    )
    assert "Traceback" not in sender.log
    assert relay.interrupt() == 0


PUBLISH = ("--publish-token", SECRET)
PUSH = ("--push-token", SECRET)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--accept-push"], "--accept-push needs a publish token"),
        (["--accept-push", "--publish-token", "short"], "8 to 1024 characters"),
        (["--accept-push", "--publish-token-file", "{}/none"], "Cannot read access tokens"),
        (["--accept-push", *PUBLISH, "{}/a.wav"], "leave out what else to stream"),
        (["--accept-push", *PUBLISH, "--capture"], "--capture means nothing beside --accept-push"),
        (["--accept-push", *PUBLISH, "--seed", "0"], "--seed means nothing"),
        (["--accept-push", *PUBLISH, "--reconnect", "3"], "--reconnect means nothing"),
        (["--accept-push", *PUBLISH, "--auth-token", SECRET], "must not let publishers in"),
        (["--accept-push", *PUBLISH, "--ca", "{}/a.pem"], "--ca needs the broker"),
        ([*PUBLISH], "give --accept-push"),
        (["--publish-token-file", "{}/none"], "give --accept-push"),
        (["--push", "ws://127.0.0.1:1"], "--push needs the publish token"),
        (["--push", "ws://", *PUSH], "ws://HOST:PORT"),
        (["--push", "mqtt://broker/topic", *PUSH], "ws://HOST:PORT"),
        (["--push", "ws://127.0.0.1:1", "--push-token", "short"], "8 to 1024 characters"),
        (["--push", "ws://127.0.0.1:1", *PUSH, "--ca", "{}/a.pem"], "--ca is for wss://"),
        (["--push", "wss://127.0.0.1:1", *PUSH, "--ca", "{}/none.pem"], "none.pem"),
        ([*PUSH], "give --push"),
        (["--push-token-file", "{}/none"], "give --push"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_sentence(tmp_path, capsys, arguments, told):
    words = [word.format(tmp_path) for word in arguments]
    assert server.main([*words, "--port", "0"], load_none) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("server.py: ")
    assert re.search(told, line)


def test_secrets_come_from_the_environment_as_well(monkeypatch, tmp_path):
    monkeypatch.setenv(PUBLISH_TOKEN_VARIABLE, SECRET)
    monkeypatch.setenv(PUSH_TOKEN_VARIABLE, "the next relay's secret")
    arguments = server.parse_arguments(["--accept-push", "--push", "ws://127.0.0.1:1"])
    assert publish_tokens(arguments) == [SECRET]
    settings = push_outlet(arguments)
    assert settings is not None
    assert settings.auth_token == "the next relay's secret"
    # Without the options they are nothing to complain of: an environment is for many programs.
    assert publish_tokens(server.parse_arguments([])) == []
    assert push_outlet(server.parse_arguments([])) is None


def test_options_come_from_a_file_as_well(tmp_path):
    config = tmp_path / "relay.ini"
    config.write_text(f"[server]\naccept-push = yes\npublish-token = {SECRET}\n")
    arguments = server.parse_arguments(["--config", str(config)])
    assert publish_tokens(arguments) == [SECRET]


def test_one_authority_serves_a_relay_and_another_sender(tmp_path):
    cert, _ = make_certificate(tmp_path)
    words = ["wss://127.0.0.1:1", "--push", "ws://127.0.0.1:2", *PUSH, "--ca", str(cert)]
    settings = push_outlet(server.parse_arguments(words))
    assert settings is not None
    assert settings.tls is None
    words[2] = "wss://127.0.0.1:2"
    settings = push_outlet(server.parse_arguments(words))
    assert settings is not None
    assert settings.tls is not None
