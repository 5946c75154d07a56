"""A sound card's input."""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections.abc import Callable
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
from streaming.audio.resample import Resampler
from streaming.audio.sources.base import Source
from streaming.audio.sources.channels import to_stereo
from streaming.errors import DeviceError

__all__ = ["CaptureSource"]

logger = logging.getLogger(__name__)

_BLOCK_S: Final = 0.02
_POLL_S: Final = 0.1
_SILENT_DEVICE_S: Final = 2.0
_RETRY_S: Final = 1.0
_MOST_SILENCE_S: Final = 5.0  # a machine that slept has nothing to make up for
_WARN_EVERY_S: Final = 10.0


class CaptureSource(Source):
    """Plays what a sound input hears, live.

    The device's callback only copies each block into a bounded queue and never waits. When
    the reader falls behind by `queue_s`, the oldest blocks are dropped: the stream skips and
    stays live. `dropped_samples` counts them, at the device's rate.

    A device that is lost (unplugged, or silent for `_SILENT_DEVICE_S`) is waited for: silence takes
    its place, second by second, so that the stream keeps time, until a device that fits is there
    again. `losses` counts that.

    Args:
        device: an index, a part of a name, or None for the default input.
        title: shown while it plays; the device's name by default.
        queue_s: seconds of sound that may wait to be read.
        clock: monotonic seconds.
    """

    live = True

    def __init__(
        self,
        device: str | int | None = None,
        title: str | None = None,
        queue_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(title)
        self._clock = clock
        self._covered_s = 0.0  # up to when sound, or silence in its place, was delivered
        self._retry_s = 0.0
        self.losses = 0
        self._wanted = device
        self._capacity = max(1, round(queue_s / _BLOCK_S))
        # SimpleQueue.put() is implemented in C without waiting, so a callback may use it.
        self._queue: queue.SimpleQueue[NDArray[np.float32]] = queue.SimpleQueue()
        self._device: AudioDevice | None = None
        self._stream: Any = None
        self._resampler = Resampler(SAMPLE_RATE, SAMPLE_RATE)
        self._warned_at = -_WARN_EVERY_S
        self._warned_samples = 0
        self.dropped_samples = 0

    def _open(self) -> None:
        self._open_stream()
        self._covered_s = self._clock()

    def _open_stream(self) -> None:
        sounddevice = load_sounddevice()
        self._device = find_device(self._wanted, output=False)
        channels = min(CHANNELS, self._device.inputs)
        try:
            with quiet_stderr():
                rate = choose_rate(self._device, channels, output=False)
                self._stream = sounddevice.InputStream(
                    samplerate=rate,
                    blocksize=round(rate * _BLOCK_S),
                    device=self._device.index,
                    channels=channels,
                    dtype="float32",
                    callback=self._callback,
                )
                self._stream.start()
        except (sounddevice.PortAudioError, ValueError) as error:
            self._close_stream()
            raise device_error(self._device, error, output=False) from error
        self._resampler = Resampler(rate, SAMPLE_RATE)
        self._set_title(self._device.name)

    def _callback(self, frames: NDArray[np.float32], count: int, when: Any, status: Any) -> None:
        if self._queue.qsize() >= self._capacity:
            with contextlib.suppress(queue.Empty):  # the reader was quicker
                self.dropped_samples += len(self._queue.get_nowait())
        self._queue.put(frames.copy())

    def _produce(self) -> NDArray[np.float32] | None:
        while not self._stopped.is_set():
            try:
                frames = self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                if self._stream is not None:
                    silent_s = self._clock() - self._covered_s
                    if self._stream.active and silent_s < _SILENT_DEVICE_S:
                        continue
                return self._stand_in()
            self._covered_s = self._clock()
            self._report_drops()
            return self._resampler.push(to_stereo(frames))
        return None

    def _stand_in(self) -> NDArray[np.float32]:
        """Silence for the time without a device, and one attempt to have it back."""
        assert self._device is not None
        tail = np.zeros((CHANNELS, 0), np.float32)
        now_s = self._clock()
        if self._stream is not None:
            logger.warning(
                "The sound input '%s' has stopped delivering sound; waiting for it.",
                self._device.name,
            )
            self.losses += 1
            self._close_stream()
            tail = self._resampler.finish()
        if now_s >= self._retry_s:
            self._retry_s = now_s + _RETRY_S
            try:
                refresh_devices()
                self._open_stream()
                logger.info("The sound input '%s' is back.", self._device.name)
            except DeviceError as error:
                logger.debug("not yet: %s", error)
        missing_s = min(max(0.0, now_s - self._covered_s), _MOST_SILENCE_S)
        self._covered_s = now_s
        silence = np.zeros((CHANNELS, round(missing_s * SAMPLE_RATE)), np.float32)
        return np.concatenate([tail, silence], axis=1)

    def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(load_sounddevice().PortAudioError), quiet_stderr():
                stream.close()

    def _report_drops(self) -> None:
        now = time.monotonic()
        fresh = self.dropped_samples - self._warned_samples
        if fresh and now - self._warned_at >= _WARN_EVERY_S:
            self._warned_at = now
            self._warned_samples = self.dropped_samples
            logger.warning(
                "The encoder cannot keep up with the sound input: dropped %d samples.", fresh
            )

    def _close(self) -> None:
        self._close_stream()
