"""What the codec hears: log-mels, semitone amplitudes and the stereo image, per token.

Everything is computed from the powers of the left and the right channel, never from their sum, so
that antiphase material is heard at its full level.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codec.constants import SAMPLES_PER_TOKEN
from codec.nano.config import NanoConfig
from codec.nano.dsp import band_matrix, frame, lowpass_kernel, mel_filterbank

__all__ = ["Features", "decimate", "image_from_shares", "shares_from_image"]

_DECIMATION_TAPS = 127
_WIDEST = 0.996


def decimate(audio: Tensor, factor: int, kernel: Tensor) -> Tensor:
    """Low-pass and keep every ``factor``-th sample, aligned so that output n is input n·factor.

    Args:
        audio: ``[channels, samples]``.

    Returns:
        ``[channels, samples / factor]``.
    """
    half = len(kernel) // 2
    padded = F.pad(audio, (half, half)).unsqueeze(1)
    return F.conv1d(padded, kernel.view(1, 1, -1), stride=factor).squeeze(1)


def image_from_shares(shares: Tensor) -> Tensor:
    """(a - b)/(a + b) of two powers, in -1 ... 1, to the ln of their magnitudes' ratio.

    What is 27 dB down counts as that far down: nobody hears the rest, and mono has a finite value.
    """
    part = shares.clamp(-1, 1) * _WIDEST
    return 0.5 * torch.log((1 + part) / (1 - part))


def shares_from_image(image: Tensor) -> Tensor:
    """The inverse of :func:`image_from_shares`."""
    return (torch.tanh(image) / _WIDEST).clamp(-1, 1)


class Features(nn.Module):
    """Audio ``[2, 1920 * n]`` to the features of n tokens, ``[n, feature_dims]``.

    Reaches 85 ms (the semitone window) past a token on both sides.
    """

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.config = c = config

        def constant(name: str, value: Tensor) -> None:
            self.register_buffer(name, value, persistent=False)

        constant("window", torch.hann_window(c.n_fft))
        constant("mel_filters", mel_filterbank(c.n_fft, c.mels))
        constant("bands", band_matrix(c.n_fft, c.stereo_bands))
        constant("lowpass", lowpass_kernel(5500, _DECIMATION_TAPS))

        n, rate = c.semitone_n_fft, c.semitone_rate
        phase = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
        constant("semitone_window", (0.5 - 0.5 * torch.cos(phase)).float())
        # Derivative of the Hann window per sample, for the instantaneous frequency.
        constant("semitone_derivative", (math.pi / n * torch.sin(phase)).float())
        low = 440 * 2 ** ((c.semitone_low - 0.5 - 69) / 12)
        self.first_bin = max(1, math.floor(low * n / rate) - 1)
        high = 440 * 2 ** ((c.semitone_low + c.semitones - 0.5 - 69) / 12)
        self.last_bin = math.ceil(high * n / rate) + 2
        # A sine of amplitude A spreads A^2/4 · N · sum(w^2) over the bins of its main lobe.
        self.semitone_scale = 4 / (n * float(self.semitone_window.square().sum()))

    window: Tensor
    mel_filters: Tensor
    bands: Tensor
    lowpass: Tensor
    semitone_window: Tensor
    semitone_derivative: Tensor

    def forward(self, audio: Tensor) -> Tensor:
        """Features of all tokens of ``audio``."""
        tokens = audio.shape[1] // SAMPLES_PER_TOKEN
        mel, stereo = self.spectral(audio, tokens)
        semitones = self.semitones(audio, tokens)
        return torch.cat([mel.flatten(1), semitones.flatten(1), stereo.flatten(1)], dim=1)

    def spectral(self, audio: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        """ln mel magnitudes ``[tokens, 4, mels]`` and stereo ``[tokens, 2, bands]``.

        Stereo: ln of left over right and of side over mid, in magnitude; 27 dB at most.
        """
        c = self.config
        frames = frame(audio, c.n_fft, c.hop, c.hop // 2, tokens * c.mel_frames)
        spectrum = torch.fft.rfft(frames * self.window)
        return self.of_spectrum(spectrum.real, spectrum.imag)

    def of_spectrum(self, real: Tensor, imag: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`spectral` from the two channels' spectra, ``[2, frames, bins]``."""
        c = self.config
        power_left, power_right = real.square() + imag.square()
        total = power_left + power_right
        magnitude = (0.5 * total).sqrt()
        mel = torch.log(magnitude @ self.mel_filters.T + c.mel_floor)

        cross = 2 * (real[0] * real[1] + imag[0] * imag[1])
        parts = torch.stack([power_left - power_right, cross, total])  # [3, frames, bins]
        parts = (parts @ self.bands.T).unflatten(1, (-1, c.mel_frames)).sum(dim=2)
        part = parts[:2] / (parts[2] + 1e-4)
        stereo = image_from_shares(torch.stack([part[0], -part[1]]))
        return mel.unflatten(0, (-1, c.mel_frames)), stereo.transpose(0, 1)

    def semitones(self, audio: Tensor, tokens: int) -> Tensor:
        """ln amplitudes of the sines in each semitone, ``[tokens, 2, semitones]``.

        Each bin's power goes to the semitone of its instantaneous frequency, from a derivative
        window and hence without phase unwrapping (Auger and Flandrin, 1995).
        """
        c = self.config
        low = decimate(audio, c.decimation, self.lowpass)
        hop = SAMPLES_PER_TOKEN // c.decimation // c.semitone_frames
        frames = frame(low, c.semitone_n_fft, hop, hop // 2, tokens * c.semitone_frames)
        keep = slice(self.first_bin, self.last_bin)
        direct = torch.fft.rfft(frames * self.semitone_window)[..., keep]
        derived = torch.fft.rfft(frames * self.semitone_derivative)[..., keep]
        return self.of_pair(direct.real, direct.imag, derived.real, derived.imag)

    def of_pair(self, real: Tensor, imag: Tensor, d_real: Tensor, d_imag: Tensor) -> Tensor:
        """:meth:`semitones` from spectra with the window and with its derivative.

        All ``[2, frames, bins]``, of the bins that matter alone.
        """
        c = self.config
        power = real.square() + imag.square()
        shift = d_imag * real - d_real * imag
        bins = torch.arange(self.first_bin, self.last_bin, device=real.device)
        hz = (bins / c.semitone_n_fft - shift / (power + 1e-12) / (2 * math.pi)) * c.semitone_rate
        note = torch.round(69 + 12 * torch.log2(hz.clamp_min(1.0) / 440)).long() - c.semitone_low
        inside = (note >= 0) & (note < c.semitones)
        total = 0 * power[..., : c.semitones]  # of a length that graphs do not freeze
        total.scatter_add_(-1, note.clamp(0, c.semitones - 1), power * inside)
        amplitude = (total.mean(dim=0) * self.semitone_scale).sqrt()
        ln = torch.log(amplitude + c.semitone_floor)
        return ln.unflatten(0, (-1, c.semitone_frames))
