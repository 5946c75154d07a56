"""Both programs with a real broker: what they say and do, and what cannot work."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codec.constants import SAMPLES_PER_TOKEN
from streaming.cli import client, server
from streaming.cli.mqtt import mqtt_outlet
from streaming.errors import SettingsError, UserError
from streaming.stream.hub import Hub
from streaming.support.status_line import StatusLine
from streaming.support.tls import client_context
from streaming.transports.mqtt import broker as broker_module
from streaming.transports.mqtt.address import PASSWORD_VARIABLE, USER_VARIABLE, MqttAddress
from streaming.transports.mqtt.publisher import Mqtt, MqttPublisher
from streaming.transports.mqtt.wire import listener_traffic, wire_bytes
from streaming.wire.messages import StreamInfo
from tests import ROOT
from tests.support.certificates import make_certificate
from tests.support.fake_codec import FakeCodec
from tests.support.mosquitto import mosquitto
from tests.support.programs import Programs, programs

__all__ = ["mosquitto", "programs"]


def load_fake(name, **options):
    return FakeCodec()


@pytest.fixture
def song(tmp_path):
    """Four seconds of noise."""
    path = tmp_path / "song.wav"
    random = np.random.default_rng(0)
    soundfile.write(path, random.uniform(-0.5, 0.5, (4 * 48_000, 2)), 48_000)
    return path


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    monkeypatch.delenv(USER_VARIABLE, raising=False)
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)


def test_a_stream_goes_through_a_broker_from_program_to_program(
    mosquitto, song: Path, programs: Programs
) -> None:
    broker = mosquitto()
    url = broker.url("radio/noise")
    stats = programs.folder / "sender.jsonl"
    sending = ("--loop", "--title", "Noise", "--port", "0", "--preset", "low-latency")
    sender = programs.start(
        "sender", "-m", "tests.support.fake_server", song, *sending, "--mqtt", url, "--stats", stats
    )
    sender.until(lambda: f"publishing to {url}" in sender.log and "listening on" in sender.log)
    sender.until(lambda: sender.latest("mqtt_bits_per_s"))
    listed = subprocess.run(
        [sys.executable, "client.py", "--mqtt", broker.url("radio"), "--list"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert re.fullmatch(rf"{url}  online   fake  Noise\n", listed)
    out = programs.folder / "heard.wav"
    listener = programs.start(
        *(
            "listener",
            "-m",
            "tests.support.fake_client",
            "--mqtt",
            url,
            "--out",
            out,
            "--seconds",
            "3",
        ),
        *("--stats", programs.folder / "listener.jsonl"),
    )
    assert listener.ends() == 0, listener.log
    assert soundfile.info(out).frames == 3 * 48_000
    final = listener.final
    assert (final["lost_tokens"], final["gaps"], final["reconnects"]) == (0, 0, 0)
    assert final["title"] == "Noise"
    assert final["first_audio_s"] > 0
    assert sender.interrupt() == 0
    assert "Traceback" not in sender.log
    assert sender.final["listeners"] == 0
    assert "to the broker" in sender.log.splitlines()[-1]
    assert sender.final["mqtt_bits_per_s"] > sender.final["payload_bits_per_s"]


async def test_the_program_listens_by_the_address_alone_and_counts_what_mqtt_costs(
    mosquitto, tmp_path
):
    url = mosquitto().url("radio/noise")
    hub = Hub(StreamInfo("fake", "fake-1", FakeCodec.digest, 5, "stream", 48))
    out, stats = tmp_path / "out.wav", tmp_path / "stats.jsonl"
    async with MqttPublisher(hub, Mqtt(MqttAddress.parse(url))):
        hub.publish(np.arange(48), time.monotonic(), 0.3, time.time())
        parsed = client.parse_arguments([url, "--out", str(out), "--stats", str(stats)])
        running = asyncio.create_task(client.run(parsed, load_fake, StatusLine(io.StringIO())))
        while not stats.exists() or '"tokens": 48' not in stats.read_text():
            assert not running.done()
            await asyncio.sleep(0.02)
        for first in (48, 96, 144):
            hub.publish(np.arange(first, first + 48), time.monotonic(), 0.3, time.time())
        hub.end("over", time.monotonic())
        await running
    assert soundfile.info(out).frames == 192 * SAMPLES_PER_TOKEN
    final = json.loads(stats.read_text().splitlines()[-1])
    assert (final["tokens"], final["lost_tokens"]) == (192, 0)


def test_what_a_packet_costs_with_all_headers():
    # Fixed header and length 2, topic 2 + 15, no properties 1, index and kind 5, 48 tokens 84.
    assert wire_bytes("radio/jazz/abcd", 89) == 2 + 2 + 15 + 1 + 89 + 52
    assert wire_bytes("t", 0, expires=True, acknowledged=True) == 2 + 3 + 2 + 1 + 5 + 52
    assert wire_bytes("t", 200) == 1 + 2 + 3 + 1 + 200 + 52
    assert wire_bytes("t", 20_000) == 1 + 3 + 3 + 1 + 20_000 + 14 * 52
    traffic = listener_traffic(MqttAddress.parse("mqtt://h/radio/jazz"))
    for number in range(3):
        traffic.add(89, 1.92 * number, tokens=48, end_token=48 * (number + 1))
    rate = traffic.wire_bits_per_s(3.84)
    assert rate == pytest.approx(161 * 8 / 1.92 + 54 * 8 / 60)
    assert traffic.payload_bits_per_s(3.84) == pytest.approx(350)


def free_port() -> int:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as probe:
        return int(probe.getsockname()[1])


NO_BROKER = "mqtt://user:hunter2@127.0.0.1:{free}/radio"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--mqtt", NO_BROKER], "No broker listens at mqtt://127"),
        (["--mqtt", "mqtt://127.0.0.1"], "names no topic"),
        (["--mqtt", "mqtt://user:hunter2#@h/x"], "cannot be read; write mqtt://HOST:PORT/TOPIC"),
        (["--mqtt", "ws://127.0.0.1/x"], "cannot be read; write mqtt://HOST:PORT/TOPIC"),
        (["--mqtt", "mqtt://no-such-host.invalid/x"], "unknown"),
        (["--mqtt", "mqtt://h/x", "--mqtt-password-file", "{tmp}/none"], "none"),
        (["--mqtt", "mqtt://h/x", "--ca", "{tmp}/none"], "--ca is for"),
        (["--mqtt", "mqtt://h/x", "--mqtt-key", "{tmp}/none"], "--mqtt-cert"),
        (["--mqtt", "mqtts://h/x", "--mqtt-key", "{tmp}/none"], "give --mqtt-cert"),
        (["--mqtt", "mqtts://h/x", "--mqtt-cert", "{tmp}/none"], "no file"),
    ],
)
@pytest.mark.parametrize("program", ["client.py", "server.py"])
def test_what_cannot_work_is_said_in_one_sentence_with_exit_code_2(
    program, arguments, words, tmp_path, song, capsys
):
    filled = [word.format(tmp=tmp_path, free=free_port()) for word in arguments]
    rest = ["--out", f"{tmp_path}/a.wav"] if program == "client.py" else [str(song), "--port", "0"]
    main = client.main if program == "client.py" else server.main
    assert main([*filled, *rest], load_fake) == 2
    errors = capsys.readouterr().err
    lines = [line for line in errors.splitlines() if line.startswith(f"{program}: ")]
    assert len(lines) == 1
    assert re.search(words, lines[0])
    assert "hunter2" not in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ws://h:1", "--mqtt", "mqtt://h/x", "--out", "a.wav"], "Choose either"),
        (["--list"], "--list needs a broker"),
        (["--list", "--mqtt", "ws://h/x"], "--list needs a broker"),
        (["--mqtt", NO_BROKER, "--list"], "No broker listens"),
    ],
)
def test_what_a_listener_cannot_mean(arguments, words, capsys):
    filled = [word.format(free=free_port()) for word in arguments]
    assert client.main(filled, load_fake) == 2
    assert re.search(words, capsys.readouterr().err)


def test_a_refused_password_is_said_and_not_shown(mosquitto, tmp_path, song, capsys, monkeypatch):
    command = ["mosquitto_passwd", "-b", "-c", str(tmp_path / "passwords"), "me", "right"]
    subprocess.run(command, check=True, capture_output=True)
    broker = mosquitto(f"password_file {tmp_path}/passwords")
    monkeypatch.setenv(USER_VARIABLE, "me")
    monkeypatch.setenv(PASSWORD_VARIABLE, "hunter2")
    url = broker.url("radio")
    assert client.main(["--mqtt", url, "--out", f"{tmp_path}/a.wav", "--verbose"], load_fake) == 2
    assert server.main(["--mqtt", url, str(song), "--port", "0", "--verbose"], load_fake) == 2
    assert client.main(["--mqtt", url, "--list"]) == 2
    monkeypatch.setenv(PASSWORD_VARIABLE, "right")
    assert client.main(["--mqtt", url, "--list"]) == 0
    said = capsys.readouterr()
    assert said.err.count("user or password is wrong") == 3
    assert said.out == f"There is no stream under {url}.\n"
    assert "hunter2" not in said.err + said.out


def test_certificates_are_checked_before_anything_is_loaded(tmp_path):
    cert, key = make_certificate(tmp_path)
    assert client_context("mqtts://h/x", cert, cert, key) is not None
    (tmp_path / "text").write_text("no certificate")
    for ours, why in ((tmp_path / "text", "cannot be used"), (tmp_path, "Cannot read")):
        with pytest.raises(SettingsError, match=why):
            client_context("mqtts://h/x", None, ours)


def test_the_window_of_a_sender_is_what_is_asked_for(tmp_path):
    def settings(*arguments):
        return mqtt_outlet(server.parse_arguments(arguments))

    assert settings() is None
    usual = settings("--mqtt", "mqtt://h/x")
    assert usual is not None
    assert usual.window_s == 10.24
    longer = settings("--mqtt", "mqtt://h/x", "--mqtt-window", "20")
    assert longer is not None
    assert longer.window_s == 20.0
    with pytest.raises(SettingsError, match="--mqtt-window needs the broker"):
        settings("--mqtt-window", "20")


async def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setattr(broker_module, "aiomqtt", None)
    with pytest.raises(UserError, match="pip install"):
        async with broker_module.Broker(MqttAddress.parse("mqtt://h/x")):
            pass


def test_programs_that_need_no_broker_load_no_aiomqtt():
    code = "import sys, client, server; sys.exit('aiomqtt' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
