"""Features to sound: an oscillator bank and noise, shaped by a small network.

The sound is X = G_tone · O + G_noise · N in the short-time spectrum. O is a bank of one sine per
semitone whose phase is a pure function of the absolute sample index, so it is coherent from frame
to frame and from window to window; N is noise keyed to absolute tokens. The network predicts both
gains per bin and frame, real and positive, from the features; so it never has to invent a phase.
Harmonic plus noise synthesis after Serra and Smith (1990) and Engel et al., "DDSP" (2020). Sines
play only what stands out as a tone; the rest of the semitones' power is noise.

The stereo image needs two uncorrelated renderings: noise has a second draw, the bank a second one
in quadrature. They are mixed by the square root of each band's covariance matrix. At last the
sound is measured and brought to the level that was asked for.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN
from codec.nano.base import NOISE_PURPOSE, RENDER_MARGIN
from codec.nano.blocks import Stack
from codec.nano.config import NanoConfig
from codec.nano.dsp import (
    band_edges,
    frame,
    interpolation_matrix,
    mel_centres,
    mel_filterbank,
    overlap_add,
)
from codec.nano.features import shares_from_image
from codec.nano.level import mel_widths
from codec.noise import keyed_normal

__all__ = ["Vocoder", "noise_excitation"]

_LEVEL_BANDS = 14
"""Of eight mels each, but for the lowest: up to 765 Hz they are one. What a token says of narrower
bands there is too rough to be worth the harmony that following it costs."""
_LEVEL_LIMIT = math.log(8)
_NEIGHBOURS = 6
"""So many semitones on either side make the mean that a tone has to stand out from."""
_STANDS_OUT, _STEEPNESS = 0.3, 4.0
"""A semitone that is so far above that mean (ln) counts half as a tone, up to MIDI 50; from there
to MIDI 100 ever less is asked of it."""
_REST = 0.1
"""Noise gets this share of the power of what is no tone: the network and the level correction make
up for the rest."""


def noise_excitation(seed: int, first_token: int, tokens: int) -> Tensor:
    """Two rows of unit noise keyed by absolute tokens, float32 ``[2, tokens * 1920]``."""
    rows = keyed_normal(seed, first_token, tokens, 2 * SAMPLES_PER_TOKEN, NOISE_PURPOSE)
    return torch.from_numpy(rows).unflatten(1, (2, SAMPLES_PER_TOKEN)).transpose(0, 1).flatten(1)


class Vocoder(nn.Module):
    """Features of n tokens to sound; reaches :attr:`reach_tokens` tokens to both sides."""

    reach_tokens = RENDER_MARGIN

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.config = c = config
        inputs = 2 * c.mels + c.semitones
        # Gains are predicted per band below and expanded to bins: fine where partials are apart.
        self.net = Stack(
            inputs, c.vocoder_width, 2 * c.bins, c.vocoder_blocks, c.vocoder_reach, c.expansion
        )
        nn.init.zeros_(self.net.outward.weight)
        nn.init.zeros_(self.net.outward.bias)

        def constant(name: str, value: Tensor) -> None:
            self.register_buffer(name, value, persistent=False)

        hz = torch.arange(c.bins, dtype=torch.float64) * SAMPLE_RATE / c.n_fft
        constant("window", torch.hann_window(c.n_fft))
        constant("low_window", torch.hann_window(c.n_fft // c.decimation))
        constant("mel_to_bin", interpolation_matrix(mel_centres(c.mels), hz))
        constant("mel_filters", mel_filterbank(c.n_fft, c.mels))
        constant("mel_width", mel_widths(c.mels))
        band = (torch.arange(c.mels) // 8 - 2).clamp(0, _LEVEL_BANDS - 1)
        constant("mel_to_level", torch.nn.functional.one_hot(band, _LEVEL_BANDS).float())
        constant("level_to_bin", self.mel_to_bin @ self.mel_to_level)
        # What a mel filter reads for a flat unit magnitude: the way back from mels to bins.
        constant("mel_area", torch.log(self.mel_filters.sum(dim=1)))
        edges = band_edges(c.stereo_bands)
        constant("band_to_bin", interpolation_matrix((edges[1:] + edges[:-1]) / 2, hz))
        notes = torch.arange(c.semitones, dtype=torch.float64) + c.semitone_low
        constant("tone_hz", 440 * 2 ** ((notes - 69) / 12))
        constant("threshold", (_STANDS_OUT * ((100 - notes) / 50).clamp(0, 1)).float())
        # Noise power per bin for the squared amplitude of a semitone, spread over its width.
        log_tone, log_bin = torch.log2(self.tone_hz), torch.log2(hz.clamp_min(1.0))
        beyond = 1 / 24  # half a semitone, in octaves
        inside = (log_bin > log_tone[0] - beyond) & (log_bin < log_tone[-1] + beyond)
        width_hz = self.tone_hz * (2**beyond - 2**-beyond)
        spread = interpolation_matrix(log_tone, log_bin) * inside.unsqueeze(1)
        constant("semitone_to_noise", (spread * _REST * SAMPLE_RATE / 4 / width_hz).float())
        # Fixed start phases, spread by the golden ratio so that octaves do not line up.
        constant("tone_phase", torch.frac(notes * 0.6180339887498949))
        # Within a segment each tone turns by the same angles and its amplitude is a ramp: one
        # matrix makes all samples of both phases from the tones' complex amplitudes and their
        # rises.
        self.ramp_hop = hop = SAMPLES_PER_TOKEN // c.decimation // c.semitone_frames
        time = torch.arange(hop, dtype=torch.float64)
        angle = 2 * math.pi * self.tone_hz.unsqueeze(1) * time / c.semitone_rate
        cos, sin = angle.cos(), angle.sin()
        turn = torch.cat([torch.cat([sin, cos], 1), torch.cat([cos, -sin], 1)])
        constant("rotation", torch.cat([turn, turn * (time / hop).repeat(2)]).float())
        energy = float(self.window.square().sum())
        # Overlapped squared Hann windows at a quarter hop sum to 1.5.
        self.window_sum = energy / c.hop
        self.noise_unit = 1 / math.sqrt(energy)  # unit noise has unit power in each bin

    window: Tensor
    low_window: Tensor
    mel_to_bin: Tensor
    mel_filters: Tensor
    mel_area: Tensor
    mel_width: Tensor
    mel_to_level: Tensor
    level_to_bin: Tensor
    band_to_bin: Tensor
    tone_hz: Tensor
    tone_phase: Tensor
    threshold: Tensor
    semitone_to_noise: Tensor
    rotation: Tensor

    def oscillators(self, semitones: Tensor, first_sample: int | Tensor) -> Tensor:
        """The bank and its quadrature at 12 kHz, ``[batch, 2, samples]``.

        Args:
            semitones: ln amplitudes ``[batch, 2 * tokens, semitones]``.
            first_sample: absolute index at 12 kHz.
        """
        hop, segments = self.ramp_hop, semitones.shape[1] + 1
        # Start phases in double precision: after minutes, single precision has lost the fraction.
        place = semitones.device
        first = torch.as_tensor(first_sample, dtype=torch.float64, device=place).reshape(-1, 1, 1)
        segment = torch.arange(segments, dtype=torch.float64, device=place).view(1, -1, 1)
        start = first - hop // 2 + hop * segment
        turns = torch.frac(start * self.tone_hz / self.config.semitone_rate + self.tone_phase)
        angle = 2 * math.pi * turns.float()
        return self.oscillate(semitones, angle.cos(), angle.sin())

    def oscillate(self, semitones: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """:meth:`oscillators` from the phases at the start of each segment between two frames.

        Args:
            semitones: ln amplitudes ``[batch, 2 * tokens, semitones]``.
            cos, sin: of the phases, ``[batch, 2 * tokens + 1, semitones]``; the first segment
                begins half a frame before the window.
        """
        hop = self.ramp_hop
        amplitude, _ = self.tones(semitones)
        knots = torch.cat([amplitude[:, :1], amplitude, amplitude[:, -1:]], dim=1)
        # Segment j leads from knot j to knot j + 1.
        begin, rise = knots[:, :-1], knots[:, 1:] - knots[:, :-1]
        rows = torch.cat([begin * cos, begin * sin, rise * cos, rise * sin], dim=-1)
        sound = (rows @ self.rotation).unflatten(-1, (2, hop)).transpose(1, 2).flatten(2)
        return sound[..., hop // 2 : -(hop // 2)]

    def tones(self, semitones: Tensor) -> tuple[Tensor, Tensor]:
        """Amplitudes of what of the semitones is tones; powers of the rest, which is noise.

        A semitone has whatever power lies within 50 cents of it, so noise gives an amplitude to
        every one of them, and a bank that plays them all is an organ. A tone is what stands out
        from its neighbours.

        Args:
            semitones: ln amplitudes ``[..., frames, semitones]``.
        """
        size = 2 * _NEIGHBOURS + 1
        around = nn.functional.avg_pool1d(
            semitones, size, stride=1, padding=_NEIGHBOURS, count_include_pad=False
        )
        tonal = torch.sigmoid(_STEEPNESS * (semitones - around - self.threshold))
        amplitude = (torch.exp(semitones) - self.config.semitone_floor).clamp_min(0)
        return amplitude * tonal, amplitude.square() * (1 - tonal.square())

    def spectrum(self, signal: Tensor, decimation: int) -> Tensor:
        """Short-time spectrum ``[..., frames, bins]`` on the render grid, at either sample rate."""
        c = self.config
        size, hop = c.n_fft // decimation, c.hop // decimation
        window = self.window if decimation == 1 else self.low_window
        frames = frame(signal, size, hop, hop // 2, signal.shape[-1] // hop)
        spectrum = torch.fft.rfft(frames * window)
        if decimation > 1:
            # Leave out the decimated Nyquist region; the bank ends below it.
            spectrum = nn.functional.pad(spectrum * decimation, (0, c.bins - spectrum.shape[-1]))
        return spectrum

    def forward(self, mel: Tensor, semitones: Tensor, bank: Tensor, noise: Tensor) -> Tensor:
        """The two renderings' spectra, complex ``[batch, 2, frames, bins]``.

        Args:
            mel: ln, ``[batch, frames, mels]``.
            semitones: ln, ``[batch, frames / 2, semitones]``.
            bank, noise: spectra of the excitations, ``[batch, 2, frames, bins]``.
        """
        # Power of the quadrature pair: free of the beating of one draw.
        tone_power = 0.5 * (bank.real.square() + bank.imag.square()).sum(dim=1)
        tone_gain, noise_gain = self.gains(mel, semitones, tone_power)
        return tone_gain.unsqueeze(1) * bank + noise_gain.unsqueeze(1) * noise

    def gains(self, mel: Tensor, semitones: Tensor, tone_power: Tensor) -> tuple[Tensor, Tensor]:
        """Of bank and noise, ``[batch, frames, bins]`` each, from the bank's power there."""
        c = self.config
        tone_mel = torch.log(tone_power.sqrt() @ self.mel_filters.T + c.mel_floor)
        tones, rest = self.tones(
            nn.functional.interpolate(
                semitones.transpose(1, 2), scale_factor=2.0, mode="linear"
            ).transpose(1, 2)
        )
        notes = torch.log(tones + c.semitone_floor)
        inputs = torch.cat([mel / 3 + 1, tone_mel / 3 + 1, notes / 3 + 2], dim=-1)
        tone_delta, noise_delta = self.net(inputs).float().chunk(2, dim=-1)
        # Without the network: tones as they are where the mels allow, noise filling up the rest.
        excess = (tone_mel - mel) @ self.mel_to_bin.T
        share = torch.sigmoid(-4 * excess)
        tone_gain = torch.exp(-nn.functional.relu(excess) + 2 * torch.tanh(tone_delta / 2))
        envelope = (mel - self.mel_area) @ self.mel_to_bin.T
        noise_level = envelope + torch.log(0.05 + 0.95 * share) + 4 * torch.tanh(noise_delta / 4)
        noise_gain = torch.exp(noise_level) * self.noise_unit
        rest_power = tone_gain.square() * (rest @ self.semitone_to_noise.T)
        return tone_gain, (noise_gain.square() + rest_power).sqrt()

    def to_signal(self, spectrum: Tensor) -> Tensor:
        """Inverse short-time spectrum, ``[..., frames, bins]`` to ``[..., frames * hop]``."""
        c = self.config
        frames = torch.fft.irfft(spectrum, n=c.n_fft) * self.window
        signal = overlap_add(frames, c.hop) / self.window_sum
        start = c.n_fft // 2 - c.hop // 2
        return signal[..., start : start + spectrum.shape[-2] * c.hop]

    def level(self, sound: Tensor, mel: Tensor) -> Tensor:
        """Sound with its bands' powers frame by frame as the mels want them.

        Noise fluctuates and neighbouring tones beat: what comes out of the excitations is never
        quite as loud as its gains say. Here it is analysed again and corrected, by 18 dB at most,
        in 14 bands.

        Args:
            sound: ``[..., 2, samples]``.
            mel: ``[..., frames, mels]``.
        """
        spectrum = self.spectrum(sound, 1)
        power = 0.5 * (spectrum.real.square() + spectrum.imag.square()).sum(dim=-3)
        return self.to_signal(spectrum * self.correction(power, mel).unsqueeze(-3))

    def correction(self, power: Tensor, mel: Tensor) -> Tensor:
        """Gain that :meth:`level` gives to each bin of this power, both ``[..., frames, bins]``."""
        c = self.config
        heard = torch.log((power + 1e-12).sqrt() @ self.mel_filters.T + c.mel_floor)
        wanted, given = (((2 * x).exp() * self.mel_width) @ self.mel_to_level for x in (mel, heard))
        gain = 0.5 * torch.log((wanted + 1e-9) / (given + 1e-9))
        return (gain.clamp(-_LEVEL_LIMIT, _LEVEL_LIMIT) @ self.level_to_bin.T).exp()

    def stereo(self, spectra: Tensor, image: Tensor) -> Tensor:
        """Mix two uncorrelated renderings to left and right.

        The matrix is the root of [[1 + b, c], [c, 1 - b]], with balance b and correlation c.

        Args:
            spectra: ``[2, frames, bins]`` of equal power.
            image: ln of left over right and of side over mid per band, ``[tokens, 2, bands]``,
                which give b and c.
        """
        left, across, right = self.mixing(image)
        return torch.stack(
            [left * spectra[0] + across * spectra[1], across * spectra[0] + right * spectra[1]]
        )

    def mixing(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The matrix of :meth:`stereo`, ``[frames, bins]`` each: first row, then its last entry."""
        tokens = image.shape[0]
        shares = shares_from_image(image) * image.new_tensor([1.0, -1.0]).view(1, 2, 1)
        rows = nn.functional.interpolate(
            shares.flatten(1).T.unsqueeze(0),
            size=tokens * self.config.mel_frames,
            mode="linear",
            align_corners=False,
        )[0].T.unflatten(1, (2, self.config.stereo_bands))
        norm = rows.square().sum(dim=1, keepdim=True).sqrt().clamp_min(1.0)
        balance, correlation = ((rows / norm) @ self.band_to_bin.T).unbind(dim=1)
        root = (1 - balance.square() - correlation.square()).clamp_min(0).sqrt()
        scale = torch.rsqrt(2 + 2 * root)
        return (1 + balance + root) * scale, correlation * scale, (1 - balance + root) * scale

    @torch.inference_mode()
    def render(self, features: Tensor, first_token: int, seed: int) -> Tensor:
        """Features ``[tokens, feature_dims]`` to sound, float32 ``[2, tokens * 1920]``."""
        c = self.config
        tokens = len(features)
        mel, notes, image = self.split(features)
        first_low = first_token * SAMPLES_PER_TOKEN // c.decimation
        bank = self.spectrum(self.oscillators(notes, first_low), c.decimation)
        excitation = noise_excitation(seed, first_token, tokens).to(features.device)
        noise = self.spectrum(excitation, 1).unsqueeze(0)
        spectra = self(mel, notes, bank, noise)[0]
        return self.level(self.to_signal(self.stereo(spectra, image)), mel[0])

    def split(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features ``[tokens, feature_dims]`` by kind.

        Returns:
            Mels ``[1, 4 * tokens, mels]``, semitones ``[1, 2 * tokens, semitones]`` and image
            ``[tokens, 2, bands]``.
        """
        c = self.config
        mel, notes, image = features.split([c.mel_dims, c.semitone_dims, 2 * c.stereo_bands], dim=1)
        return (
            mel.reshape(1, -1, c.mels),
            notes.reshape(1, -1, c.semitones),
            image.reshape(-1, 2, c.stereo_bands),
        )
