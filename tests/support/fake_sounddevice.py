"""A stand-in for the `sounddevice` module: devices by our choice, callbacks by hand."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

__all__ = ["FakeSoundDevice", "install"]

DEFAULT_DEVICES = [
    {"name": "Microphone", "max_input_channels": 1, "max_output_channels": 0},
    {"name": "Speakers (front)", "max_input_channels": 0, "max_output_channels": 2},
    {"name": "Headset", "max_input_channels": 2, "max_output_channels": 1},
    {"name": "Head", "max_input_channels": 2, "max_output_channels": 6},
]


class PortAudioError(Exception):
    pass


class FakeStream:
    def __init__(self, module: FakeSoundDevice, **settings: Any) -> None:
        if module.open_error:
            raise PortAudioError(module.open_error, -9999)
        self.module = module
        self.settings = settings
        self.channels = settings["channels"]
        self.active = False
        self.latency = 0.02
        self.closed = False
        self.aborted = False
        module.streams.append(self)

    def start(self) -> None:
        self.active = True

    def stop(self) -> None:
        self.active = False

    def abort(self) -> None:
        self.active = False
        self.aborted = True

    def close(self) -> None:
        self.active = False
        self.closed = True

    def play(self, frames: int, *, underflow: bool = False) -> np.ndarray:
        """Run the output callback once, too late on `underflow`; returns `[channels, frames]`."""
        out = np.full((frames, self.channels), np.nan, np.float32)
        status = SimpleNamespace(output_underflow=True) if underflow else None
        self.settings["callback"](out, frames, None, status)
        return out.T

    def capture(self, frames: np.ndarray) -> None:
        """Run the input callback once with `[n, channels]`."""
        self.settings["callback"](frames.astype(np.float32), len(frames), None, None)


class FakeSoundDevice(ModuleType):
    PortAudioError = PortAudioError

    def __init__(self) -> None:
        super().__init__("sounddevice")
        self.devices = [
            {"hostapi": 0, "default_samplerate": 44_100.0, **device} for device in DEFAULT_DEVICES
        ]
        self.default = SimpleNamespace(device=(0, 1))
        self.streams: list[FakeStream] = []
        self.rates = {44_100, 48_000}
        self.open_error = ""
        self.query_error = ""

    def query_hostapis(self) -> list[dict[str, Any]]:
        return [{"name": "Fake API"}]

    def query_devices(self) -> list[dict[str, Any]]:
        if self.query_error:
            raise PortAudioError(self.query_error)
        return [{**device, "index": index} for index, device in enumerate(self.devices)]

    def check_output_settings(
        self, device: int, channels: int, dtype: str, samplerate: int
    ) -> None:
        if samplerate not in self.rates:
            raise PortAudioError("Invalid sample rate")

    check_input_settings = check_output_settings

    def OutputStream(self, **settings: Any) -> FakeStream:  # noqa: N802
        return FakeStream(self, **settings)

    def InputStream(self, **settings: Any) -> FakeStream:  # noqa: N802
        return FakeStream(self, **settings)


def install(monkeypatch: pytest.MonkeyPatch) -> FakeSoundDevice:
    """Put a fresh stand-in where `import sounddevice` finds it."""
    module = FakeSoundDevice()
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return module
