"""The measures of the quality benchmark by name, with what they mean and what is good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks import metrics
from benchmarks.analysis import Analysis
from codec.constants import SAMPLES_PER_TOKEN
from codec.nano import Nano

__all__ = ["MEASURES", "Figures", "Measure", "compare"]

Figures = dict[str, float]
"""A value for each of :data:`MEASURES`."""


@dataclass(frozen=True)
class Measure:
    """label: what tables call it. good: the value of a perfect copy. meaning: one sentence.

    Attributes:
        places: decimal places worth showing.
    """

    label: str
    good: float
    meaning: str
    function: Callable[[Analysis, Analysis], float]
    places: int = 3

    def show(self, value: float) -> str:
        """A value as text, with a proper minus sign."""
        return f"{value:.{self.places}f}".replace("-", "−")


def _seam_jump(_: Analysis, decoded: Analysis) -> float:
    """At the seams of the windows that offline and live decoding use by default."""
    return metrics.seam_jump(decoded, Nano.decoder_window.hop * SAMPLES_PER_TOKEN)


MEASURES: dict[str, Measure] = {
    "log_mel": Measure(
        "log-mel distance",
        0,
        "Mean difference of ln(mel + 1e-5), 128 mels, 100 frames a second.",
        metrics.log_mel_distance,
    ),
    "stft": Measure(
        "STFT distance",
        0,
        "Spectral convergence, mean of n_fft 512, 2048 and 8192: 0 a copy, 1 silence.",
        metrics.stft_distance,
    ),
    "sc_8192": Measure(
        "convergence at 8192",
        0,
        "Spectral convergence at n_fft 8192 alone: shows buzz and unsteady partials.",
        metrics.spectral_convergence,
    ),
    "chroma": Measure(
        "chroma correlation",
        1,
        "Correlation of pitch-class powers, 80 to 2500 Hz, weighted by energy: harmony.",
        metrics.chroma_correlation,
    ),
    "envelope": Measure(
        "envelope correlation",
        1,
        "Correlation of the loudness in steps of 50 ms.",
        metrics.envelope_correlation,
    ),
    "onset_f": Measure(
        "onset F-measure",
        1,
        "Attacks that both have within 50 ms: 1 all and no others.",
        metrics.onset_f_measure,
    ),
    "level_db": Measure(
        "level, dB",
        0,
        "Decoded over original level.",
        metrics.level_difference_db,
        places=2,
    ),
    "width_db": Measure(
        "width error, dB",
        0,
        "Difference of side-to-mid power ratios within ±30 dB, over the whole excerpt.",
        metrics.stereo_width_error_db,
        places=2,
    ),
    "image_db": Measure(
        "image error, dB",
        0,
        "The same band by band and every half second, weighted by the original's amplitude.",
        metrics.image_width_error_db,
        places=2,
    ),
    "balance_db": Measure(
        "balance error, dB",
        0,
        "Difference of left-to-right power ratios, likewise band by band and step by step.",
        metrics.balance_error_db,
        places=2,
    ),
    "time_tx": Measure(
        "texture in time",
        1,
        "Change of log-mels from frame to frame, decoded over original: below 1 too smooth.",
        metrics.time_texture,
    ),
    "band_tx": Measure(
        "texture across bands",
        1,
        "Change of log-mels from band to band, decoded over original: below 1 too smooth.",
        metrics.band_texture,
    ),
    "band_hz": Measure(
        "bandwidth, Hz",
        0,
        "Difference of the frequencies below which 99 % of the magnitude lies.",
        metrics.bandwidth_error_hz,
        places=0,
    ),
    "lit": Measure(
        "lit semitones",
        0,
        "Decoded minus original share of semitones, 392 Hz to 5 kHz, that stand 6 dB above the "
        "quarter tones beside them: above 0 an organ.",
        metrics.lit_difference,
    ),
    "peaks": Measure(
        "tonal peaks",
        0,
        "Decoded minus original peaks of the spectrum, 200 Hz to 8.2 kHz, that last for a third of "
        "a second.",
        metrics.tonal_peaks_difference,
        places=1,
    ),
    "flat_db": Measure(
        "flatness error, dB",
        0,
        "Difference of geometric over arithmetic mean power, octave by octave: noise or lines.",
        metrics.flatness_error_db,
        places=2,
    ),
    "peak_db": Measure(
        "peak error, dB",
        0,
        "Difference of the strongest bin over the median one, octave by octave.",
        metrics.peak_error_db,
        places=2,
    ),
    "mod_db": Measure(
        "modulation error, dB",
        0,
        "Difference of how strongly 32 bands move at 2 to 20 Hz.",
        metrics.modulation_error_db,
        places=2,
    ),
    "treble_db": Measure(
        "level of 5–10 kHz, dB",
        0,
        "Decoded over original level in that octave.",
        partial(metrics.band_level_db, low_hz=5000),
        places=2,
    ),
    "air_db": Measure(
        "level of 10–20 kHz, dB",
        0,
        "Decoded over original level in that octave.",
        partial(metrics.band_level_db, low_hz=10_000),
        places=2,
    ),
    "seam": Measure(
        "jump at seams",
        1,
        "Change from sample to sample where decoder windows meet, over that elsewhere, both over "
        "the local level.",
        _seam_jump,
    ),
}


def compare(original: Analysis, decoded: Analysis) -> Figures:
    """All measures of one pair of sounds of the same length."""
    return {name: measure.function(original, decoded) for name, measure in MEASURES.items()}
