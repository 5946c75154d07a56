"""Addresses of streams at a broker: what they mean, and that they tell no secret."""

from __future__ import annotations

import pytest

from streaming.errors import SettingsError
from streaming.transports.mqtt.address import (
    PASSWORD_VARIABLE,
    USER_VARIABLE,
    MqttAddress,
    is_mqtt,
    read_credentials,
    stream_tag,
)
from streaming.wire.messages import StreamInfo


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    monkeypatch.delenv(USER_VARIABLE, raising=False)
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)


def test_ports_follow_the_scheme_and_topics_the_path():
    plain = MqttAddress.parse("mqtt://radio.example/music/jazz")
    assert (plain.host, plain.port, plain.topic, plain.tls) == (
        "radio.example",
        1883,
        "music/jazz",
        False,
    )
    safe = MqttAddress.parse("MQTTS://[::1]:9000/music/")
    assert (safe.host, safe.port, safe.topic, safe.tls) == ("::1", 9000, "music", True)
    assert MqttAddress.parse("mqtts://h/x").port == 8883
    assert str(plain) == "mqtt://radio.example/music/jazz"
    assert str(safe) == "mqtts://[::1]:9000/music"


def test_topics_of_a_stream_lie_under_its_own():
    address = MqttAddress.parse("mqtt://h/music/jazz")
    assert address.hello == "music/jazz/hello"
    assert address.status == "music/jazz/status"
    assert address.live("abcd") == "music/jazz/abcd"
    assert address.window("abcd") == "music/jazz/abcd/window"
    assert address.at("other").hello == "other/hello"


def test_login_in_the_address_is_decoded_and_never_shown():
    address = MqttAddress.parse("mqtt://us%40er:pass%2Fword%23@h/x")
    assert (address.user, address.password) == ("us@er", "pass/word#")
    for shown in (str(address), repr(address)):
        assert "pass" not in shown
        assert "us@er" not in shown


@pytest.mark.parametrize(
    "url",
    [
        "mqtt://",
        "mqtt:///topic",
        "ws://host/topic",
        "mqtt://host:port/topic",
        "mqtt://host:99999/topic",
        "mqtt://[::1/topic",
        "mqtt://host/topic?retain=1",
        "mqtt://host/topic#part",
        "mqtt://host",
        "mqtt://host/",
        "mqtt://host/music/%23",
        "mqtt://host/+/music",
        "mqtt://host/$SYS",
        "mqtt://host/%00",
        "mqtt://host/%ff",
        "mqtt://host/" + "x" * 201,
    ],
)
def test_what_is_no_address_of_a_stream_is_refused_in_one_sentence(url):
    with pytest.raises(SettingsError) as caught:
        MqttAddress.parse(url)
    assert "\n" not in str(caught.value)


def test_an_address_that_cannot_be_read_tells_no_password():
    with pytest.raises(SettingsError) as caught:
        MqttAddress.parse("mqtt://user:hunter2#@host/topic")
    assert "hunter2" not in str(caught.value)


def test_a_list_needs_no_topic():
    assert MqttAddress.parse("mqtt://host", topic_needed=False).topic == ""


def test_only_addresses_of_brokers_are_taken_for_such():
    assert is_mqtt("mqtt://h/x")
    assert is_mqtt("MQTTS://h/x")
    assert not is_mqtt("ws://h")
    assert not is_mqtt("mqtt")  # no scheme: a file of that name


def test_the_addresss_login_goes_before_the_given_and_that_before_the_environment(
    tmp_path, monkeypatch
):
    monkeypatch.setenv(USER_VARIABLE, "from-env")
    monkeypatch.setenv(PASSWORD_VARIABLE, "env-secret")
    file = tmp_path / "password"
    file.write_text("file-secret\n")
    bare = MqttAddress.parse("mqtt://h/x")
    full = MqttAddress.parse("mqtt://own:secret@h/x")

    def login(address):
        return address.user, address.password

    assert login(read_credentials(bare, None, None)) == ("from-env", "env-secret")
    assert login(read_credentials(bare, "given", file)) == ("given", "file-secret")
    assert login(read_credentials(full, "given", file)) == ("own", "secret")


def test_a_password_file_as_windows_writes_it_is_read(tmp_path):
    file = tmp_path / "password"
    file.write_bytes(b"\xef\xbb\xbfs\xc3\xa9cret\r\n")
    address = read_credentials(MqttAddress.parse("mqtt://127.0.0.1/a"), "me", file)
    assert address.password == "s\u00e9cret"


def test_a_password_without_a_user_or_a_file_is_refused(tmp_path, monkeypatch):
    bare = MqttAddress.parse("mqtt://h/x")
    assert read_credentials(bare, None, None) == bare
    with pytest.raises(SettingsError, match="none"):
        read_credentials(bare, "given", tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="no text"):
        read_credentials(bare, "given", tmp_path / "bytes")
    monkeypatch.setenv(PASSWORD_VARIABLE, "secret")
    with pytest.raises(SettingsError, match="--mqtt-user") as caught:
        read_credentials(bare, None, None)
    assert "secret" not in str(caught.value)


def test_streams_that_differ_in_anything_have_different_tags():
    info = StreamInfo("nano", "nano-1", "a" * 64, 3, "stream", 48)
    others = [
        StreamInfo("nano", "nano-1", "a" * 64, 3, "other", 48),
        StreamInfo("nano", "nano-1", "a" * 64, 4, "stream", 48),
        StreamInfo("nano", "nano-1", "b" * 64, 3, "stream", 48),
    ]
    tags = {stream_tag(each) for each in (info, *others)}
    assert len(tags) == 4
    assert all(len(tag) == 4 and tag.isalnum() for tag in tags)
    # What only says how it is sent is no part of it.
    assert stream_tag(StreamInfo("nano", "nano-2", "a" * 64, 3, "stream", 8)) == stream_tag(info)
