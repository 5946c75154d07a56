"""Finding sound devices, and the capture source on a stand-in for one."""

import importlib
import logging
import os
import threading

import numpy as np
import pytest

from streaming.audio import devices
from streaming.audio.devices import find_device, list_devices, load_sounddevice, quiet_stderr
from streaming.audio.sources import CaptureSource
from streaming.audio.sources import capture as capture_module
from streaming.errors import DeviceError
from tests.support.fake_sounddevice import install


@pytest.fixture
def fake(monkeypatch):
    return install(monkeypatch)


@pytest.mark.usefixtures("fake")
def test_devices_are_listed_with_their_defaults():
    lines = [str(device) for device in list_devices()]
    assert lines == [
        "  0  Microphone [Fake API]  1 in, 0 out, 44100 Hz (default input)",
        "  1  Speakers (front) [Fake API]  0 in, 2 out, 44100 Hz (default output)",
        "  2  Headset [Fake API]  2 in, 1 out, 44100 Hz",
        "  3  Head [Fake API]  2 in, 6 out, 44100 Hz",
    ]


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("wanted", "output", "index"),
    [
        (None, True, 1),
        ("", False, 0),
        (3, True, 3),
        ("2", False, 2),
        ("head", True, 3),  # an exact name goes before a longer one
        ("speak", True, 1),
        ("SET", False, 2),
    ],
)
def test_a_device_is_found_by_index_or_name(wanted, output, index):
    assert find_device(wanted, output).index == index


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(("wanted", "output"), [("9", True), ("0", True), ("organ", False)])
def test_a_device_that_is_not_there_is_told_with_those_that_are(wanted, output):
    with pytest.raises(
        DeviceError, match=r"There is no sound (in|out)put '.+'; those .* 3: Head\."
    ):
        find_device(wanted, output)


def test_a_machine_without_devices_or_defaults(fake):
    fake.default.device = (-1, -1)
    with pytest.raises(DeviceError, match="No sound output is the default; name one of: 1:"):
        find_device(None, output=True)
    fake.devices = []
    with pytest.raises(DeviceError, match="There is no sound output on this machine"):
        find_device(None, output=True)
    with pytest.raises(DeviceError, match="those there are: none"):
        find_device("any", output=True)
    fake.query_error = "Host error."
    with pytest.raises(DeviceError, match=r"cannot be listed: Host error\.$"):
        list_devices()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ImportError("no module"), r"package sounddevice: pip install 'music350\[play\]'"),
        (OSError("PortAudio library not found"), "apt install libportaudio2"),
    ],
)
def test_missing_libraries_are_one_sentence(monkeypatch, error, sentence):
    def fail(name):
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(DeviceError, match=sentence):
        load_sounddevice()


def test_chatter_of_the_libraries_is_kept_back_unless_debugging(capfd, monkeypatch):
    with quiet_stderr():
        os.write(2, b"hidden")
    os.write(2, b"shown")
    monkeypatch.setattr(devices.logger, "level", logging.DEBUG)
    devices.logger.manager._clear_cache()  # type: ignore[attr-defined]
    with quiet_stderr():
        os.write(2, b" too")
    devices.logger.manager._clear_cache()  # type: ignore[attr-defined]
    assert capfd.readouterr().err == "shown too"


def test_what_the_microphone_hears_comes_out_in_stereo(fake):
    with CaptureSource() as source:
        (stream,) = fake.streams
        assert source.live
        assert source.title == "Microphone"
        assert stream.settings["samplerate"] == 48_000
        sound = np.linspace(-0.5, 0.5, 960)[:, None]
        stream.capture(sound)
        block = source.read(960)
        np.testing.assert_allclose(block, np.repeat(sound, 2, axis=1).T, atol=1e-6)
    assert stream.closed
    source.close()
    assert source.read(10).shape == (2, 0)


def test_a_device_at_another_rate_is_resampled(fake):
    fake.rates = {44_100}
    with CaptureSource("Headset", title="Live") as source:
        stream = fake.streams[0]
        assert stream.settings["samplerate"] == 44_100
        assert source.title == "Live"
        for _ in range(50):
            stream.capture(np.zeros((882, 2)))
        total = 0
        while total < 47_000:
            total += source.read(4800).shape[1]


def test_a_slow_reader_loses_the_oldest_sound_and_is_told(fake, caplog):
    with CaptureSource(queue_s=0.1) as source:
        for number in range(8):
            fake.streams[0].capture(np.full((960, 1), number / 10))
        assert source.dropped_samples == 3 * 960
        with caplog.at_level(logging.WARNING):
            assert source.read(1)[0, 0] == pytest.approx(0.3)
            source.read(960)
            source.read(960)
        assert [record.getMessage() for record in caplog.records] == [
            "The encoder cannot keep up with the sound input: dropped 2880 samples."
        ]


def test_waiting_for_sound_can_be_stopped(fake):
    with CaptureSource() as source:
        threading.Timer(0.3, source.stop).start()
        assert source.read(10).shape == (2, 0)


def test_an_input_that_is_lost_is_silence_in_time_and_comes_back(fake, monkeypatch, caplog):
    monkeypatch.setattr(capture_module, "_POLL_S", 0.001)
    now = [100.0]
    caplog.set_level(logging.INFO)
    with CaptureSource(clock=lambda: now[0]) as source:
        fake.streams[0].capture(np.full((960, 1), 0.5))
        assert source.read(960).shape == (2, 960)
        fake.streams[0].active = False
        fake.open_error = "Device unavailable"
        total = 0
        for _ in range(30):
            now[0] += 0.1
            while total < round((now[0] - 100.0) * 48_000):
                block = source.read(48_000)
                assert not block.any()
                total += block.shape[1]
        assert total == pytest.approx(3 * 48_000, abs=30)
        fake.open_error = ""
        now[0] += 1.0
        source.read(48_000)
        assert len(fake.streams) == 2
        fake.streams[1].capture(np.full((960, 1), 0.25))
        block = source.read(48_000)
        while not block.any():
            block = source.read(48_000)
        assert block[0, -1] == pytest.approx(0.25)
        assert source.losses == 1
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "The sound input 'Microphone' has stopped delivering sound; waiting for it.",
        "The sound input 'Microphone' is back.",
    ]


def test_an_input_that_goes_silent_is_opened_again(fake, monkeypatch):
    monkeypatch.setattr(capture_module, "_POLL_S", 0.001)
    now = [100.0]
    with CaptureSource(clock=lambda: now[0]) as source:
        now[0] += 3.0
        assert source.read(200_000).shape == (2, 3 * 48_000)
        assert (len(fake.streams), source.losses) == (2, 1)
        assert fake.streams[0].closed


def test_an_input_that_does_not_open_is_one_sentence(fake):
    fake.open_error = "Device unavailable"
    source = CaptureSource()
    message = r"^The sound input 'Microphone' cannot be used: Device unavailable\.$"
    with pytest.raises(DeviceError, match=message), source:
        pass
