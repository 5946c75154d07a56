"""What the measures look at: spectra, chroma, level and stereo image of one sound, each made once.

Channels are seen through their powers, so antiphase does not cancel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from codec.constants import SAMPLE_RATE
from codec.nano.dsp import mel_filterbank

__all__ = ["OCTAVES_HZ", "Analysis", "OctaveBands", "Sound", "StereoCells", "analysis"]

FRAME = (2048, 480)
"""n_fft and hop of mels and of everything that is looked at 100 times a second."""
FRAME_RATE = SAMPLE_RATE // FRAME[1]
IMAGE_EDGES_HZ = (0, 125, 250, 500, 1000, 2000, 4000, 8000, 24_000)
IMAGE_STEP_S = 0.5
OCTAVES_HZ = (200, 400, 800, 1600, 3200, 5000, 10_000, 20_000)
"""Edges of the bands whose tonality is looked at; the fifth ends where nano's tones do."""
LINES = (8192, 2048)
"""n_fft and hop of what tells lines from noise: bins of 6 Hz, frames of 43 ms."""
MODULATION_EDGES_HZ = (2, 4, 8, 20)
WIDTH_LIMIT_DB = 30.0
"""Side this far below mid is mono, this far above it antiphase: nothing beyond is told apart."""


Samples: TypeAlias = Tensor | NDArray[np.float32]


@cache
def _mel_filters() -> Tensor:
    return mel_filterbank(FRAME[0], 128)


def _stft(audio: Tensor, n_fft: int, hop: int) -> Tensor:
    return torch.stft(audio, n_fft, hop, window=torch.hann_window(n_fft), return_complex=True)


def _ratio_db(numerator: Tensor, denominator: Tensor, silence_db: float) -> Tensor:
    """Ratio of powers in decibels, held within ±30 dB; silence over silence is ``silence_db``."""
    floor = 1e-12
    ratio = 10 * torch.log10((numerator + floor * 10 ** (silence_db / 10)) / (denominator + floor))
    return ratio.clamp(-WIDTH_LIMIT_DB, WIDTH_LIMIT_DB)


def _width_db(side: Tensor, mid: Tensor) -> Tensor:
    return _ratio_db(side, mid, silence_db=-WIDTH_LIMIT_DB)


def _decibels(log_power: Tensor) -> Tensor:
    return 10 / math.log(10) * log_power


@dataclass(frozen=True)
class OctaveBands:
    """What seven bands (octaves from 200 Hz on, half of one from 3200 to 5000 Hz) are like.

    Attributes:
        flatness_db: geometric over arithmetic mean of the bins' powers, ``[7, frames]``: −1 to −3
            for noise, −30 for a few lines.
        peak_db: strongest bin over the median one, ``[7, frames]``.
        power: mean over bins and time, ``[7]``.
    """

    flatness_db: Tensor
    peak_db: Tensor
    power: Tensor


@dataclass(frozen=True)
class StereoCells:
    """Stereo image in eight bands (octaves from 125 Hz on) and steps of 0.5 s, ``[8, steps]``.

    Attributes:
        width_db: side over mid power, L − R over L + R, held within ±30 dB.
        balance_db: left over right power, held within ±30 dB.
        amplitude: root of the power of both channels together.
    """

    width_db: Tensor
    balance_db: Tensor
    amplitude: Tensor


class Analysis:
    """One sound, float32 ``[2, samples]`` at 48 kHz. What has been computed once is kept."""

    def __init__(self, audio: Samples) -> None:
        self.audio = torch.as_tensor(audio)
        self._magnitudes: dict[tuple[int, int], Tensor] = {}

    def magnitude(self, n_fft: int, hop: int) -> Tensor:
        """Root of the channels' mean power, ``[bins, frames]``; Hann window, centred frames."""
        if (n_fft, hop) not in self._magnitudes:
            power = _stft(self.audio, n_fft, hop).abs().square().mean(dim=0)
            self._magnitudes[n_fft, hop] = power.sqrt()
        return self._magnitudes[n_fft, hop]

    @cached_property
    def mel(self) -> Tensor:
        """128 Slaney mel magnitudes, ``[128, frames]``; n_fft 2048, hop 480."""
        return _mel_filters() @ self.magnitude(*FRAME)

    @cached_property
    def log_mel(self) -> Tensor:
        """ln(m + 1e-5) of :attr:`mel`."""
        return torch.log(self.mel + 1e-5)

    @cached_property
    def chroma(self) -> Tensor:
        """Power per pitch class between 80 and 2500 Hz, ``[12, frames]``; n_fft 8192, hop 1920."""
        n_fft = 8192
        power = self.magnitude(n_fft, 1920).square()
        hz = torch.arange(n_fft // 2 + 1) * SAMPLE_RATE / n_fft
        inside = (hz >= 80) & (hz <= 2500)
        note = torch.round(69 + 12 * torch.log2(hz[inside] / 440)).long() % 12
        return torch.zeros(12, power.shape[1]).index_add_(0, note, power[inside])

    @cached_property
    def envelope(self) -> Tensor:
        """Root-mean-square level in steps of 50 ms, ``[steps]``."""
        size = SAMPLE_RATE // 20
        steps = self.audio.shape[1] // size
        return (
            self.audio[:, : steps * size].reshape(2, steps, size).square().mean(dim=(0, 2)).sqrt()
        )

    @cached_property
    def onsets(self) -> list[float]:
        """Times of onsets in seconds: peaks of the spectral flux (Böck et al., DAFx 2012).

        Flux is the mean over 128 mels of the rise of ln(1 + 1000 m) over 20 ms. A peak is the
        highest of 60 ms and stands out from the mean of 200 ms around it. The first and last 30 ms,
        where the analysis window hangs over, are left out.
        """
        level = torch.log1p(1000 * self.mel)
        flux = (level[:, 2:] - level[:, :-2]).clamp_min(0).mean(dim=0)
        row = flux.view(1, 1, -1)
        highest = F.max_pool1d(row, 7, stride=1, padding=3).flatten()
        around = F.avg_pool1d(row, 21, stride=1, padding=10, count_include_pad=False).flatten()
        peaks = (flux >= highest) & (flux > around + 0.15)
        peaks[:3] = peaks[-3:] = False
        return [(int(frame) + 1) / FRAME_RATE for frame in peaks.nonzero().flatten()]

    @cached_property
    def _lines(self) -> Tensor:
        """ln of power, ``[4097, frames]``, at the resolution of :data:`LINES`."""
        return torch.log(self.magnitude(*LINES).square() + 1e-9 * LINES[0])

    @cached_property
    def octaves(self) -> OctaveBands:
        """Flatness, peaks and power, band by band."""
        hz = torch.arange(LINES[0] // 2 + 1) * SAMPLE_RATE / LINES[0]
        flatness, peak, power = [], [], []
        for low, high in pairwise(OCTAVES_HZ):
            band = self._lines[(hz >= low) & (hz < high)]
            flatness.append(band.mean(dim=0) - band.exp().mean(dim=0).log())
            peak.append(band.amax(dim=0) - band.median(dim=0).values)
            power.append(band.exp().mean())
        return OctaveBands(
            _decibels(torch.stack(flatness)), _decibels(torch.stack(peak)), torch.stack(power)
        )

    @cached_property
    def lit(self) -> float:
        """Share of semitones that stand out, mean over time.

        A semitone from 392 to 4978 Hz stands out if it is 6 dB above the quarter tones on either
        side. The strongest of three bins speaks for each.
        """
        strongest = F.max_pool1d(self._lines.T, 3, stride=1, padding=1).T
        steps = torch.arange(66.5, 112, 0.5)  # MIDI numbers, quarter tone by quarter tone
        bins = torch.round(440 * 2 ** ((steps - 69) / 12) * LINES[0] / SAMPLE_RATE).long()
        between, keys = strongest[bins[::2]], strongest[bins[1::2]]
        above = keys - torch.maximum(between[:-1], between[1:])
        return float((above > math.log(4)).float().mean())

    @cached_property
    def tonal_peaks(self) -> float:
        """Lasting peaks a frame between 200 and 8200 Hz.

        A peak is the highest of five bins and 9 dB above the median of the 41 around it. It lasts
        if there is one within a bin of it 170 ms before and after as well.
        """
        first, last = (round(hz * LINES[0] / SAMPLE_RATE) for hz in (200, 8200))
        rows = self._lines[first:last].T
        # A median every fourth bin is enough; between them it is interpolated.
        around = F.pad(rows.unsqueeze(1), (20, 20), mode="replicate").unfold(-1, 41, 4)
        median = around.median(dim=-1).values
        floor = F.interpolate(median, size=rows.shape[1], mode="linear").squeeze(1)
        peaks = (rows >= F.max_pool1d(rows, 5, stride=1, padding=2)) & (rows > floor + math.log(8))
        near = F.max_pool1d(peaks.float(), 3, stride=1, padding=1) > 0
        ago = round(0.17 * SAMPLE_RATE / LINES[1])
        lasting = peaks[ago:-ago] & near[: -2 * ago] & near[2 * ago :]
        return float(lasting.sum() / max(1, len(lasting)))

    @cached_property
    def groups(self) -> Tensor:
        """Power of each four neighbouring mels, ``[32, frames]``."""
        return self.mel.square().unflatten(0, (32, 4)).sum(dim=1)

    @cached_property
    def modulation_db(self) -> Tensor:
        """How strongly each of :attr:`groups` moves at 2–4, 4–8 and 8–20 Hz, ``[32, 3]``.

        Mean power of its spectrum over the whole time, in decibels over its mean level.
        """
        power = self.groups + 1e-9
        power = power / power.mean(dim=1, keepdim=True)
        frames = power.shape[1]
        spectrum = torch.fft.rfft(power * torch.hann_window(frames)).abs().square()
        hz = torch.arange(spectrum.shape[1]) * FRAME_RATE / frames
        bands = [
            spectrum[:, (hz >= low) & (hz < high)].mean(dim=1)
            for low, high in pairwise(MODULATION_EDGES_HZ)
        ]
        return _decibels(torch.log(torch.stack(bands, dim=1) + 1e-6))

    @cached_property
    def bandwidth_hz(self) -> float:
        """The frequency below which 99 % of the magnitude lies."""
        share = self.magnitude(*FRAME).mean(dim=1).cumsum(0)
        return float((share < 0.99 * share[-1]).sum()) * SAMPLE_RATE / FRAME[0]

    @cached_property
    def width_db(self) -> float:
        """Side over mid power of the whole sound, within ±30 dB; mono is −30 dB."""
        left, right = self.audio
        side, mid = (left - right).square().mean(), (left + right).square().mean()
        return float(_width_db(side, mid))

    @cached_property
    def stereo_cells(self) -> StereoCells:
        """Width and balance band by band and step by step."""
        left, right = _stft(self.audio, *FRAME)
        parts = torch.stack([left - right, left + right, left, right]).abs().square()
        hz = torch.arange(parts.shape[1]) * SAMPLE_RATE / FRAME[0]
        edges = torch.tensor(IMAGE_EDGES_HZ[1:-1], dtype=hz.dtype)
        bands = torch.zeros(4, len(edges) + 1, parts.shape[2])
        bands.index_add_(1, torch.bucketize(hz, edges, right=True), parts)
        size = round(IMAGE_STEP_S * FRAME_RATE)
        # Frames beyond the last whole step are left out, but for a sound that has no whole step.
        steps = max(1, bands.shape[2] // size)
        cells = bands[:, :, : steps * size].unflatten(2, (steps, -1)).mean(dim=3)
        cells = cells / FRAME[0] ** 2  # on the scale of samples, which the floor is meant for
        side, mid, left, right = cells
        balance_db = _ratio_db(left, right, silence_db=0.0)
        return StereoCells(_width_db(side, mid), balance_db, (left + right).sqrt())


Sound: TypeAlias = Samples | Analysis
"""Samples ``[2, n]``, or the analysis of them where several measures look at the same sound."""


def analysis(sound: Sound) -> Analysis:
    """The analysis of a sound."""
    return sound if isinstance(sound, Analysis) else Analysis(sound)
