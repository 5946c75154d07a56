"""What a run of the quality benchmark found, over all its recordings: means, goals, tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from benchmarks.baselines import DESCRIPTIONS
from benchmarks.measures import MEASURES, Figures
from benchmarks.metrics import code_entropy_bits
from codec.constants import CODEBOOK_SIZE

__all__ = ["Entropy", "Goal", "Outcome", "Recording", "Results"]


@dataclass(frozen=True)
class Recording:
    """One recording's figures, by version; rates in bit/s, None if there is no bit stream."""

    file: str
    seconds: float
    tokens: Tensor
    figures: dict[str, Figures]
    rates: dict[str, float | None]


@dataclass(frozen=True)
class Entropy:
    """Entropy of ``tokens`` tokens in bits, and the most that so few can show."""

    bits: float
    most_bits: float
    tokens: int

    @classmethod
    def of(cls, tokens: Tensor) -> Entropy:
        """The entropies of tokens, int64 ``[n]``, in bits a token."""
        most = math.log2(min(len(tokens), CODEBOOK_SIZE))
        # If all tokens differ, rounding takes the sum of their shares past what is possible.
        return cls(min(code_entropy_bits(tokens), most), most, len(tokens))


@dataclass(frozen=True)
class Goal:
    """What is aimed at: a figure of the results, and where it should lie on either kind of music.

    Attributes:
        renders, real: lowest and highest value on held-out renders and on real music; None: no aim.

    The figure is None if the recordings are too few or too short to tell.
    """

    label: str
    figure: Callable[[Results], float | None]
    renders: tuple[float, float] | None = None
    real: tuple[float, float] | None = None


@dataclass(frozen=True)
class Outcome:
    """A goal and what was reached, None if that cannot be told."""

    label: str
    value: float | None
    renders: str
    real: str


@dataclass(frozen=True)
class Results:
    """All recordings of a run."""

    weights: str
    recordings: Sequence[Recording]

    @property
    def versions(self) -> list[str]:
        """Versions that every recording has, in the order of the tables."""
        return [
            name
            for name in DESCRIPTIONS
            if all(name in recording.figures for recording in self.recordings)
        ]

    def mean(self, version: str, measure: str) -> float:
        """Mean over the recordings."""
        return fmean(r.figures[version][measure] for r in self.recordings)

    def mean_size(self, version: str, measure: str) -> float:
        """Mean of the absolute values over the recordings."""
        return fmean(abs(r.figures[version][measure]) for r in self.recordings)

    def worst(self, version: str, measure: str) -> float:
        """The value farthest from that of a perfect copy."""
        good = MEASURES[measure].good
        values = (r.figures[version][measure] for r in self.recordings)
        return max(values, key=lambda value: abs(value - good))

    def rate(self, version: str) -> float | None:
        """Mean bits a second, None if the version is made from no bit stream."""
        rates = [r.rates[version] for r in self.recordings]
        known = [rate for rate in rates if rate is not None]
        return fmean(known) if known else None

    @property
    def entropy(self) -> Entropy:
        """Of the tokens of all recordings together."""
        return Entropy.of(torch.cat([r.tokens for r in self.recordings]))

    @property
    def outcomes(self) -> list[Outcome]:
        """Every goal that this run can tell about."""
        goals = [*GOALS, *([FINER] if "finer" in self.versions else [])]
        return [
            Outcome(
                goal.label,
                value := goal.figure(self),
                _judged(value, goal.renders),
                _judged(value, goal.real),
            )
            for goal in goals
        ]

    def json(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        names = self.versions
        return {
            "weights": self.weights,
            "files": [r.file for r in self.recordings],
            "seconds": [r.seconds for r in self.recordings],
            "mean": {v: {m: self.mean(v, m) for m in MEASURES} for v in names},
            "each": {v: [r.figures[v] for r in self.recordings] for v in names},
            "bits_per_s": {v: [r.rates[v] for r in self.recordings] for v in names},
            "entropy": {
                "all": asdict(self.entropy),
                "each": [asdict(Entropy.of(r.tokens)) for r in self.recordings],
            },
            "goals": [asdict(outcome) for outcome in self.outcomes],
        }

    def table(self) -> str:
        """Means as text, a measure a line, then the worst recording, the entropy and the goals."""
        names = self.versions
        rows = [
            ["", *names, "worst decoded"],
            ["bit/s", *("–" if (r := self.rate(n)) is None else f"{r:.0f}" for n in names), ""],
        ]
        for key, measure in MEASURES.items():
            means = (measure.show(self.mean(name, key)) for name in names)
            rows.append([measure.label, *means, measure.show(self.worst("decoded", key))])
        goals = [["", "reached", "renders", "real music"]]
        for o in self.outcomes:
            goals.append([o.label, "–" if o.value is None else f"{o.value:.3f}", o.renders, o.real])
        return "\n".join(
            [
                f"{self.weights}, means over {len(self.recordings)} recordings",
                *_aligned(rows, "<" + ">" * (len(names) + 1)),
                "",
                self.entropy_line,
                "",
                *_aligned(goals, "<><<"),
            ]
        )

    @property
    def entropy_line(self) -> str:
        """The entropy in words, with what bounds it."""
        found = self.entropy
        return (
            f"code entropy {found.bits:.2f} bits, of at most {found.most_bits:.2f} that "
            f"{found.tokens} tokens can show"
        )


def _aligned(rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    """Rows as lines of columns; ``sides``: < or > for each column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def _judged(value: float | None, aim: tuple[float, float] | None) -> str:
    """The aim in words, and whether it was missed."""
    if aim is None:
        return ""
    low, high = aim
    if math.isinf(low):
        words = f"≤ {high:g}"
    elif math.isinf(high):
        words = f"≥ {low:g}"
    else:
        words = f"{low:g} to {high:g}"
    if value is None:
        return f"{words} (too little music to tell)"
    return words if low <= value <= high else f"{words} (missed)"


def _least(value: float) -> tuple[float, float]:
    return value, math.inf


def _most(value: float) -> tuple[float, float]:
    return -math.inf, value


def _over(measure: str, version: str, yardstick: str) -> Callable[[Results], float]:
    """Mean of one version over that of another."""
    return lambda r: r.mean(version, measure) / max(r.mean(yardstick, measure), 1e-9)


def _code_entropy(results: Results) -> float | None:
    found = results.entropy
    return found.bits if found.most_bits > LEAST_ENTROPY_BITS else None


LEAST_ENTROPY_BITS = 12.0
TONALITY = (
    ("lit", "lit semitones, mean size", _most(0.1)),
    ("peaks", "tonal peaks, mean size", _most(3)),
    ("flat_db", "flatness error, dB", _most(2.5)),
    ("peak_db", "peak error, dB", _most(4)),
    ("treble_db", "level of 5–10 kHz, mean size, dB", _most(1.5)),
    ("air_db", "level of 10–20 kHz, mean size, dB", _most(1.5)),
)
"""Whether tones are tones and noise is noise: aims on real music, for the copy as well."""
GOALS = (
    Goal("log-mel distance", lambda r: r.mean("decoded", "log_mel"), _most(0.66), _most(0.66)),
    Goal("log-mel over shuffled", _over("log_mel", "decoded", "shuffled"), _most(0.45), _most(0.5)),
    Goal("log-mel over half shuffled", _over("log_mel", "decoded", "half shuffled")),
    Goal("log-mel over mean-mel", _over("log_mel", "decoded", "mean-mel")),
    Goal("log-mel over copy", _over("log_mel", "decoded", "copy"), _most(1.8)),
    Goal("chroma correlation", lambda r: r.mean("decoded", "chroma"), _least(0.92), _least(0.93)),
    Goal("chroma correlation of copy", lambda r: r.mean("copy", "chroma"), _least(0.98)),
    Goal(
        "envelope correlation", lambda r: r.mean("decoded", "envelope"), _least(0.95), _least(0.97)
    ),
    Goal("onset F-measure", lambda r: r.mean("decoded", "onset_f"), _least(0.87)),
    Goal("level, mean size, dB", lambda r: r.mean_size("decoded", "level_db"), _most(1.0)),
    Goal("texture in time", lambda r: r.mean("decoded", "time_tx"), (0.8, 1.25)),
    Goal("texture across bands", lambda r: r.mean("decoded", "band_tx"), (0.8, 1.25), (0.8, 1.25)),
    *(
        Goal(f"{label}{of}", partial(Results.mean_size, version=version, measure=key), real=bound)
        for key, label, bound in TONALITY
        for version, of in (("decoded", ""), ("copy", " of copy"))
    ),
    # "Well below that of a mono decoder" is read as half of it.
    Goal("width error over mono decoder's", _over("width_db", "decoded", "mono"), _most(0.5)),
    # A decoder that guesses one width for everything passes the line above; these it does not.
    Goal("image error over half shuffled's", _over("image_db", "decoded", "half shuffled")),
    Goal("balance error over mono decoder's", _over("balance_db", "decoded", "mono")),
    Goal("code entropy, bits", _code_entropy, _least(LEAST_ENTROPY_BITS)),
    Goal("convergence at 8192 of copy", lambda r: r.mean("copy", "sc_8192"), _most(0.45)),
    Goal("onset F-measure of copy", lambda r: r.mean("copy", "onset_f"), _least(0.9)),
)
FINER = Goal("log-mel over that of finer", _over("log_mel", "decoded", "finer"), _most(1.05))
