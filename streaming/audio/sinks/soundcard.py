"""A sound card's output."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from codec.constants import CHANNELS, SAMPLE_RATE
from streaming.audio.devices import (
    AudioDevice,
    choose_rate,
    device_error,
    find_device,
    load_sounddevice,
    quiet_stderr,
    refresh_devices,
)
from streaming.audio.resample import VariableResampler
from streaming.audio.sinks.base import Sink
from streaming.audio.sinks.player import FADE_S, Player
from streaming.errors import DeviceError, SettingsError, SinkError

__all__ = ["MAX_VOLUME", "SoundCardSink"]

logger = logging.getLogger(__name__)

MAX_VOLUME: Final = 4.0
_POLL_S: Final = 0.01
_STALL_S: Final = 5.0
_RETRY_S: Final = 1.0
_MAX_MONO_BLOCK: Final = 1 << 16


class SoundCardSink(Sink):
    """Plays on a sound output; `write` waits while the buffer is full.

    The device's callback only copies from a ring buffer (see `Player`, also for what happens
    when the sound runs out); it never waits and never raises. A device that is lost is waited for:
    `write` goes on when it, or another that fits, is there again. What is written passes a
    resampler, for devices that do not run at 48 kHz and for `speed`, by which the listener keeps up
    with a sender whose clock differs.

    Args:
        device: an index, a part of a name, or None for the default output.
        volume: factor from 0 to `MAX_VOLUME`; samples beyond ±1 after it are clipped.
        buffer_s: seconds of sound that `write` takes without waiting.
        prefill_s: seconds that must be there before sound starts or, after an underrun, resumes.
        device_latency_s: what to ask of the device's own buffer.

    Attributes:
        speed: a factor on how fast what is written next is played.
        losses: how often the device was lost.
        faults: how often the callback failed and played silence.

    Raises:
        DeviceError: no such device, or it cannot be opened.
        SettingsError: the volume is out of range.
    """

    paces = True
    speed: float

    def __init__(
        self,
        device: str | int | None = None,
        volume: float = 1.0,
        buffer_s: float = 4.0,
        prefill_s: float = 0.1,
        device_latency_s: float = 0.1,
    ) -> None:
        _check_volume(volume)
        self._wanted = device
        self._device_latency_s = device_latency_s
        self._buffer = (buffer_s, prefill_s, volume)
        self._closed = False
        self._interrupted = threading.Event()
        self._late_callbacks = 0
        self._callbacks = 0
        self.faults = 0
        self.losses = 0
        self.speed = 1.0
        # Only a device with a single channel needs this; its blocks are far shorter.
        self._mono = np.zeros((CHANNELS, _MAX_MONO_BLOCK), np.float32)
        self._player = Player(SAMPLE_RATE, *self._buffer)
        self._resampler = VariableResampler(SAMPLE_RATE, SAMPLE_RATE)
        self.rate = SAMPLE_RATE
        self._open()

    def _open(self) -> None:
        """Open the device; what the player still holds is played on, if it runs at that rate."""
        sounddevice = load_sounddevice()
        self.device: AudioDevice = find_device(self._wanted, output=True)
        self._channels = min(CHANNELS, self.device.outputs)
        try:
            with quiet_stderr():
                rate = choose_rate(self.device, self._channels, output=True)
                if rate != self.rate:
                    underruns, volume = self._player.underruns, self._player.volume
                    self._player = Player(rate, *self._buffer)
                    self._player.underruns, self._player.volume = underruns, volume
                    self._resampler = VariableResampler(SAMPLE_RATE, rate)
                    self.rate = rate
                self._player.pause()
                self._stream: Any = sounddevice.OutputStream(
                    samplerate=self.rate,
                    device=self.device.index,
                    channels=self._channels,
                    dtype="float32",
                    latency=self._device_latency_s,
                    callback=self._callback,
                )
                self._stream.start()
        except (sounddevice.PortAudioError, ValueError) as error:
            raise device_error(self.device, error, output=True) from error

    def _callback(self, frames: NDArray[np.float32], count: int, when: Any, status: Any) -> None:
        player = self._player
        self._callbacks += 1
        try:
            if status and status.output_underflow and not player.silent:
                self._late_callbacks += 1
            if self._channels == CHANNELS:
                player.fill(frames.T)
                return
            for start in range(0, count, _MAX_MONO_BLOCK):
                part = frames[start : start + _MAX_MONO_BLOCK]
                both = self._mono[:, : len(part)]
                player.fill(both)
                np.add(both[0], both[1], out=part[:, 0])
                part *= np.float32(0.5)
        except Exception:  # whatever it is: PortAudio would end the stream, noise would be worse
            self.faults += 1
            frames.fill(0.0)

    @property
    def volume(self) -> float:
        """Factor on the samples, 0 to `MAX_VOLUME`; a change is smoothed."""
        return self._player.volume

    @volume.setter
    def volume(self, volume: float) -> None:
        _check_volume(volume)
        self._player.volume = volume

    @property
    def underruns(self) -> int:
        """How often the sound ran out before it was told to end, in our buffer or the device's."""
        return self._player.underruns + self._late_callbacks

    @property
    def latency_s(self) -> float:
        """Seconds until a sample written now is heard: our buffer and the device's."""
        device_s = 0.0 if self._closed else float(self._stream.latency)
        return self._player.buffered / self.rate + device_s

    @property
    def buffered_samples(self) -> int:
        """48 kHz samples that were written and have not been heard yet."""
        return round(self.latency_s * SAMPLE_RATE)

    @property
    def free_samples(self) -> int:
        """48 kHz samples that `write` takes without waiting."""
        return self._player.free * SAMPLE_RATE // self.rate

    def write(self, block: NDArray[np.float32]) -> None:
        """Resample a block and queue it; waits while the ring is full."""
        if self._closed:
            raise ValueError("write() after close()")
        self._resampler.speed = self.speed
        self._queue(self._resampler.push(block))

    def _queue(self, block: NDArray[np.float32]) -> None:
        patience = time.monotonic() + _STALL_S
        while block.shape[1]:
            count = self._player.write(block)
            block = block[:, count:]
            if count:
                patience = time.monotonic() + _STALL_S
            elif not self._stream.active or time.monotonic() > patience:
                self._wait_for_device()
                patience = time.monotonic() + _STALL_S
            else:
                time.sleep(_POLL_S)

    def _wait_for_device(self) -> None:
        """Wait until there is a device again. Raises SinkError when nobody waits any more."""
        logger.warning("The sound output '%s' has stopped; waiting for it.", self.device.name)
        self.losses += 1
        self._give_up_stream()
        while not self._interrupted.wait(_RETRY_S):
            try:
                refresh_devices()
                self._open()
            except DeviceError as error:
                logger.debug("not yet: %s", error)
            else:
                logger.info("The sound output '%s' is back.", self.device.name)
                return
        raise SinkError(f"The sound output '{self.device.name}' has stopped playing.")

    def _give_up_stream(self) -> None:
        with contextlib.suppress(load_sounddevice().PortAudioError), quiet_stderr():
            self._stream.abort()  # to wait for a device that stands still may take for ever
            self._stream.close()

    def interrupt(self) -> None:
        """Wait no longer for a device that is lost; from any thread."""
        self._interrupted.set()

    def drop(self) -> None:
        """Fade out what was written and has not been played, and let it go; from any thread."""
        self._player.drop()

    def drain(self) -> None:
        """Wait until everything queued has been played."""
        self._queue(self._resampler.finish())
        self._resampler = VariableResampler(SAMPLE_RATE, self.rate)
        self._player.finish()
        patience = time.monotonic() + self._player.buffered / self.rate + _STALL_S
        while self._player.buffered or not self._player.silent:
            if not self._stream.active or time.monotonic() > patience:
                raise SinkError(f"The sound output '{self.device.name}' has stopped playing.")
            time.sleep(_POLL_S)
        time.sleep(min(float(self._stream.latency), 1.0))  # until the device has played it too

    def close(self) -> None:
        """Stop the device; what is queued is not played."""
        if self._closed:
            return
        before = self._callbacks
        self._player.cut()
        patience = time.monotonic() + 0.5
        while (
            (self._callbacks == before or not self._player.silent)
            and self._stream.active
            and time.monotonic() < patience
        ):
            time.sleep(FADE_S)
        self._closed = True
        with quiet_stderr():
            if self._callbacks == before:
                self._stream.abort()  # to wait for a device that stands still may take for ever
            else:
                self._stream.stop()  # plays what the device still holds
            self._stream.close()


def _check_volume(volume: float) -> None:
    if not 0.0 <= volume <= MAX_VOLUME:
        raise SettingsError(f"The volume must be between 0 and {MAX_VOLUME:g}, not {volume:g}.")
