"""Sizes of the nano codec. One place for every number that training and inference must share."""

from __future__ import annotations

from dataclasses import dataclass

from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN

__all__ = ["NanoConfig"]


@dataclass(frozen=True)
class NanoConfig:
    """Analysis grid and model widths.

    A token's feature vector is ``[mel_frames x mels, semitone_frames x semitones, 2 x
    stereo_bands]``.
    """

    # Analysis: log-mel and stereo at 100 frames a second, semitones at 50.
    n_fft: int = 1920
    hop: int = 480
    mels: int = 128
    mel_floor: float = 1e-5
    semitone_low: int = 28  # MIDI note, 41 Hz
    semitones: int = 84  # up to MIDI 111, 4978 Hz
    semitone_floor: float = 1e-4
    semitone_rate: int = 12_000  # semitones are analysed and synthesised at this sample rate
    semitone_n_fft: int = 2048
    stereo_bands: int = 20

    # Quantiser: 8 * 8 * 8 * 4 = 2 ** 11. The other three bits of a token are the level channel's
    # (level.py) and the slow channel's (slow.py).
    levels: tuple[int, ...] = (8, 8, 8, 4)

    # Models. Kernels are (left, right) taps around the present token, per block.
    encoder_width: int = 256
    encoder_blocks: int = 5
    encoder_reach: tuple[int, int] = (3, 1)
    decoder_width: int = 256
    decoder_blocks: int = 8
    decoder_reach: tuple[int, int] = (2, 1)
    decoder_memory: tuple[int, ...] = (8, 24)  # dilations of blocks that look back
    flow_width: int = 320
    flow_blocks: int = 8
    flow_reach: tuple[int, int] = (2, 1)
    vocoder_width: int = 256
    vocoder_blocks: int = 6
    vocoder_reach: tuple[int, int] = (3, 3)  # in frames of 10 ms
    expansion: int = 3

    @property
    def mel_frames(self) -> int:
        """Mel frames per token."""
        return SAMPLES_PER_TOKEN // self.hop

    @property
    def semitone_frames(self) -> int:
        """Semitone frames per token."""
        return 2

    @property
    def mel_dims(self) -> int:
        """How many of a token's features are mels."""
        return self.mel_frames * self.mels

    @property
    def semitone_dims(self) -> int:
        """How many of a token's features are semitones."""
        return self.semitone_frames * self.semitones

    @property
    def feature_dims(self) -> int:
        """Length of a token's feature vector."""
        return self.mel_dims + self.semitone_dims + 2 * self.stereo_bands

    @property
    def bins(self) -> int:
        """Bins of the render spectrum."""
        return self.n_fft // 2 + 1

    @property
    def decimation(self) -> int:
        """The sample rate over that at which semitones are looked for."""
        return SAMPLE_RATE // self.semitone_rate
