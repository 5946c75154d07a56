"""The model card: what a weights file is, beside it as a page and inside it as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from streaming.errors import SettingsError
from training.works import Work, credits_of

__all__ = ["BUNDLED_LICENSE", "LIMITS", "OWN_DATA", "ModelCard", "read_figures", "steps_of"]

BUNDLED_LICENSE = "CC-BY-SA-4.0"
"""Of the weights that come with the program, and so of whatever goes on from them."""
OWN_DATA = "procedural music of this project (training/), rendered with FluidSynth; no recordings"
LIMITS = (
    "Made for music at 350 bit/s: rhythm, harmony, loudness and the kind of sound are kept, the "
    "words of songs are not. Pitch is held to semitones at 440 Hz; the stereo image is rough."
)
_WORKS = (
    "It was trained on excerpts of these recordings, by Debian package: version, licence, rights "
    "holders as the package states them, works."
)
_LABELS = {
    "log_mel": "log-mel distance",
    "chroma": "chroma correlation",
    "envelope": "loudness-envelope correlation",
    "level_db": "level, dB",
    "width_db": "stereo-width error, dB",
    "stft": "STFT distance",
    "onset_f": "onset F-measure",
    "time_tx": "texture in time, decoded over original",
    "band_tx": "texture across bands, decoded over original",
    "band_hz": "bandwidth error, Hz",
}
_TEMPLATE = """# {name}

Weights of the nano codec: 48 kHz stereo at 25 tokens of 14 bits a second, 350 bit/s.

| | |
|---|---|
| file | `{file}`, {mib:.1f} MiB, SHA-256 `{digest}` |
| trained on | {data} |
| licence | {license} |
| made with | `{command}` |
| optimiser steps | {steps} |

## Figures

{figures}

{works}## Limits

{limits}

## Use

```
python server.py SONG --weights {file}
python client.py --weights {file} --play
```

Sender and listener need the same file: its SHA-256 is part of a stream's greeting, and a listener
with other weights refuses with one sentence. Of tokens that were made with other weights this file
makes no music.
"""


def read_figures(path: Path) -> dict[str, dict[str, float | None]]:
    """Means by version and measure, from the JSON of ``python -m benchmarks.quality --json``.

    Raises:
        SettingsError: for anything else.
    """
    try:
        means = json.loads(path.read_text())["mean"]
        return {
            str(version): {
                str(k): None if v is None else round(float(v), 4) for k, v in row.items()
            }
            for version, row in means.items()
        }
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise SettingsError(
            f"{path} does not hold figures; make it with "
            f"python -m benchmarks.quality FOLDER --weights FILE --json > {path}"
        ) from error


def steps_of(run: Path) -> int | None:
    """How many steps a run has made, by its log; None without one."""
    try:
        lines = (run / "log.jsonl").read_text().splitlines()
        return int(json.loads(lines[-1])["step"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


@dataclass(frozen=True)
class ModelCard:
    """All in plain words.

    Attributes:
        figures: means by version and measure.
        works: the recordings that it was trained on, as far as they have authors to be credited.
    """

    name: str
    data: str
    license: str
    command: str
    limits: str = LIMITS
    steps: dict[str, int] = field(default_factory=dict)
    figures: dict[str, dict[str, float | None]] = field(default_factory=dict)
    works: tuple[Work, ...] = ()

    def strings(self) -> dict[str, str]:
        """For the metadata of a safetensors file, which knows strings only."""
        card = {
            "name": self.name,
            "data": self.data,
            "license": self.license,
            "command": self.command,
            "limits": self.limits,
        }
        for key, value in (("steps", self.steps), ("figures", self.figures)):
            if value:
                card[key] = json.dumps(value)
        if self.works:
            card["works"] = self._credits()
        return card

    def markdown(self, file: Path, digest: str) -> str:
        """The page for a file that is there already."""
        steps = ", ".join(f"{name} {count}" for name, count in self.steps.items())
        return _TEMPLATE.format(
            name=self.name,
            file=file.name,
            mib=file.stat().st_size / 2**20,
            digest=digest,
            data=self.data,
            license=self.license,
            command=self.command,
            steps=steps or "not recorded",
            figures=self._table(),
            works=f"## Works\n\n{_WORKS}\n\n{self._credits()}\n\n" if self.works else "",
            limits=self.limits,
        )

    def _credits(self) -> str:
        return "\n".join(credit.line() for credit in credits_of(self.works))

    def _table(self) -> str:
        if not self.figures:
            return "Not measured. `python -m benchmarks.quality FOLDER --weights FILE` does."
        versions = list(self.figures)
        measures = dict.fromkeys(key for row in self.figures.values() for key in row)
        lines = ["| | " + " | ".join(versions) + " |", "|---" * (len(versions) + 1) + "|"]
        for key in measures:
            values = (self.figures[version].get(key) for version in versions)
            shown = ("–" if value is None else f"{value:.3g}" for value in values)
            lines.append(f"| {_LABELS.get(key, key)} | " + " | ".join(shown) + " |")
        return "\n".join(["Means, as `benchmarks.quality` defines them:", "", *lines])
