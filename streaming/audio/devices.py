"""Sound devices: PortAudio through `sounddevice`, loaded only when it is needed."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from codec.constants import SAMPLE_RATE
from streaming.errors import DeviceError
from streaming.support.status_line import printable

__all__ = [
    "AudioDevice",
    "choose_rate",
    "device_error",
    "find_device",
    "list_devices",
    "load_sounddevice",
    "quiet_stderr",
    "refresh_devices",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AudioDevice:
    """One sound device as PortAudio sees it."""

    index: int
    name: str
    api: str
    inputs: int
    outputs: int
    rate: int
    default_input: bool
    default_output: bool

    def __str__(self) -> str:
        marks = [
            mark
            for mark, present in (
                ("default input", self.default_input),
                ("default output", self.default_output),
            )
            if present
        ]
        suffix = f" ({', '.join(marks)})" if marks else ""
        return (
            f"{self.index:3d}  {self.name} [{self.api}]  "
            f"{self.inputs} in, {self.outputs} out, {self.rate} Hz{suffix}"
        )


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keep what PortAudio, ALSA and JACK print to the process's stderr from the user.

    They report every device that they fail to find while looking around; what matters comes
    back as an exception. With logging at DEBUG the remarks are let through.
    """
    if logger.isEnabledFor(logging.DEBUG):
        yield
        return
    saved = os.dup(2)
    try:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 2)
        os.close(devnull)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def load_sounddevice() -> ModuleType:
    """The `sounddevice` module.

    Raises:
        DeviceError: it or the PortAudio library is missing.
    """
    try:
        with quiet_stderr():
            return importlib.import_module("sounddevice")
    except ImportError as error:
        raise DeviceError(
            "Sound devices need the Python package sounddevice: pip install 'music350[play]'."
        ) from error
    except OSError as error:  # what sounddevice raises when it finds no library
        raise DeviceError(
            "Sound devices need the PortAudio library; install it (on Debian and Ubuntu: "
            "apt install libportaudio2)."
        ) from error


def refresh_devices() -> None:
    """Have PortAudio look again: it knows only the devices that were there when it was started.

    No stream may be open in this process.
    """
    sounddevice = load_sounddevice()
    with contextlib.suppress(AttributeError, sounddevice.PortAudioError), quiet_stderr():
        sounddevice._terminate()
        sounddevice._initialize()


def list_devices() -> list[AudioDevice]:
    """All sound devices, inputs and outputs.

    Raises:
        DeviceError: no PortAudio, or it does not answer.
    """
    sounddevice = load_sounddevice()
    try:
        apis = sounddevice.query_hostapis()
        devices = sounddevice.query_devices()
    except sounddevice.PortAudioError as error:
        raise DeviceError(f"The sound devices cannot be listed: {_reason(error)}.") from error
    default_input, default_output = sounddevice.default.device
    return [_describe(info, apis, default_input, default_output) for info in devices]


def find_device(wanted: str | int | None, output: bool) -> AudioDevice:
    """The device with this index, or whose name holds this text (any case), or the default one.

    An exact name is preferred, then a device of the default API, then the lowest index.

    Raises:
        DeviceError: there is none such with the inputs or outputs asked for.
    """
    kind = "output" if output else "input"
    usable = [device for device in list_devices() if (device.outputs if output else device.inputs)]
    if wanted is None or wanted == "":
        for device in usable:
            if device.default_output if output else device.default_input:
                return device
        if usable:
            raise DeviceError(f"No sound {kind} is the default; name one of: {_names(usable)}.")
        raise DeviceError(f"There is no sound {kind} on this machine.")
    text = str(wanted)
    if text.isdecimal():
        matches = [device for device in usable if device.index == int(text)]
    else:
        matches = [device for device in usable if device.name.lower() == text.lower()] or [
            device for device in usable if text.lower() in device.name.lower()
        ]
    if not matches:
        raise DeviceError(
            f"There is no sound {kind} '{printable(text)}'; those there are: {_names(usable)}."
        )
    return matches[0]


def choose_rate(device: AudioDevice, channels: int, output: bool) -> int:
    """48000 if the device takes it, else the device's own rate."""
    sounddevice = load_sounddevice()
    check = sounddevice.check_output_settings if output else sounddevice.check_input_settings
    try:
        check(device.index, channels, "float32", samplerate=SAMPLE_RATE)
    except sounddevice.PortAudioError:
        return device.rate  # opening says what is wrong if this fails too
    return SAMPLE_RATE


def device_error(device: AudioDevice, error: Exception, output: bool) -> DeviceError:
    """One sentence for a device that does not open or breaks down."""
    kind = "output" if output else "input"
    return DeviceError(
        f"The sound {kind} '{printable(device.name)}' cannot be used: {_reason(error)}."
    )


def _names(devices: list[AudioDevice]) -> str:
    return printable(", ".join(f"{device.index}: {device.name}" for device in devices)) or "none"


def _reason(error: Exception) -> str:
    text = printable(str(error.args[0] if error.args else error))
    return text.rstrip(".")


def _describe(info: Any, apis: Any, default_input: int, default_output: int) -> AudioDevice:
    index = int(info["index"])
    return AudioDevice(
        index=index,
        name=printable(str(info["name"])),
        api=str(apis[info["hostapi"]]["name"]),
        inputs=int(info["max_input_channels"]),
        outputs=int(info["max_output_channels"]),
        rate=round(info["default_samplerate"]),
        default_input=index == default_input,
        default_output=index == default_output,
    )
