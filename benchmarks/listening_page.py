"""A page to listen to: originals and what became of them, with spectrograms and figures.

One folder with ``index.html``, which needs nothing from elsewhere, and beside it the sound (flac),
the pictures (png) and all figures (``figures.json``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import soundfile as sf
from torch import Tensor

from benchmarks.baselines import DESCRIPTIONS, Version
from benchmarks.measures import MEASURES, Figures
from benchmarks.plots import DARK, LIGHT, charts, spectrograms
from benchmarks.results import Recording, Results
from codec.constants import CHANNELS, SAMPLE_RATE

__all__ = ["HEARD", "ListeningPage", "document"]

HEARD = ("decoded", "copy", "opus-lowest", "opus-default", "opus-6k")
"""Versions that can be listened to, after the original."""
TITLES = {
    "original": "Original",
    "decoded": "Decoded",
    "copy": "Copy",
    "opus-lowest": "Opus, lowest",
    "opus-default": "Opus, default",
    "opus-6k": "Opus",
}
_DESCRIPTIONS = {"original": "as 16-bit stereo", **DESCRIPTIONS}
SWITCHING = (
    "Starting a version stops the one that plays and goes on at the same place; within a recording "
    "the number keys do it too."
)


@dataclass(frozen=True)
class _Player:
    """What one version of a recording is heard and seen by; names of files in the page's folder."""

    name: str
    rate: str
    sound: str
    picture: str


class ListeningPage:
    """Takes recordings one by one, so that only one is in memory, and writes the page at the end.

    Files of an earlier page in the same folder are overwritten if they have the same name.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._recordings: list[tuple[Recording, list[_Player]]] = []

    def add(self, recording: Recording, original: Tensor, versions: Iterable[Version]) -> None:
        """Write sound and spectrograms of a recording, float32 ``[2, samples]`` at 48 kHz."""
        number = len(self._recordings) + 1
        stem = f"{number:02}-{re.sub(r'[^a-z0-9]+', '-', Path(recording.file).stem.lower())}"
        bits_per_s = float(SAMPLE_RATE * CHANNELS * 16)
        heard = [Version("original", original, bits_per_s)]
        heard += [version for version in versions if version.name in HEARD]
        players, pictures = [], {}
        for version in heard:
            name = f"{stem}-{version.name}"
            player = _Player(
                version.name, show_rate(version.bits_per_s), f"{name}.flac", f"{name}.png"
            )
            samples = version.sound.clamp(-1, 1).t().numpy()
            sf.write(self.folder / player.sound, samples, SAMPLE_RATE, subtype="PCM_16")
            pictures[self.folder / player.picture] = version.sound
            players.append(player)
        spectrograms(pictures)
        self._recordings.append((recording, players))

    def write(self, results: Results) -> Path:
        """Write the charts, the figures and the page itself; returns the path of the page."""
        charts(self.folder / "charts-light.png", results, LIGHT)
        charts(self.folder / "charts-dark.png", results, DARK)
        figures = json.dumps(results.json(), indent=1)
        (self.folder / "figures.json").write_text(figures, encoding="utf-8")
        index = self.folder / "index.html"
        index.write_text(self._html(results), encoding="utf-8")
        return index

    def sections(self) -> str:
        """What was added, as HTML: a section with players for each recording."""
        return "".join(
            _section(number, recording, players)
            for number, (recording, players) in enumerate(self._recordings, 1)
        )

    def _html(self, results: Results) -> str:
        names = [_name(recording) for recording in results.recordings]
        links = "".join(f'<li><a href="#r{n}">{name}</a></li>' for n, name in enumerate(names, 1))
        return document(
            f"{escape(results.weights)} at 350 bit/s, to listen to",
            "<p>Every recording as it was, as nano gives it back from 25 tokens of 14 bits a "
            "second, and beside that the ceiling and what Opus makes of it at its lowest rates. "
            f"{SWITCHING}</p>\n",
            f'<nav aria-label="Contents"><ul>{links}'
            '<li><a href="#figures">Figures</a></li></ul></nav>\n'
            f"<main>\n{self.sections()}{_figures_section(results)}</main>\n",
        )


def document(title: str, introduction: str, body: str, *, icon: str | None = None) -> str:
    """A page of its own with the style and the script of players; the first three are HTML."""
    link = "" if icon is None else f'<link rel="icon" href="{icon}">\n'
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n{link}<style>\n{_beside('css')}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{title}</h1>\n{introduction}</header>\n{body}"
        f"<script>\n{_beside('js')}</script>\n</body>\n</html>\n"
    )


def show_rate(bits_per_s: float | None) -> str:
    """A bit rate as people read it."""
    if bits_per_s is None:
        return "no bit stream"
    if bits_per_s < 1000:
        return f"{bits_per_s:.0f} bit/s"
    return f"{bits_per_s / 1000:.{1 if bits_per_s < 100_000 else 0}f} kbit/s"


def _beside(suffix: str) -> str:
    return Path(__file__).with_suffix(f".{suffix}").read_text(encoding="utf-8")


def _kind(name: str) -> str:
    """A version's name, as a class in CSS."""
    return name.replace(" ", "-")


def _cell(text: str, kind: str = "") -> str:
    return f'<td class="{_kind(kind)}">{escape(text)}</td>'


def _name(recording: Recording) -> str:
    return escape(Path(recording.file).stem)


def _section(number: int, recording: Recording, players: Sequence[_Player]) -> str:
    """One recording: its players and spectrograms, its figures, if it has any, folded away."""
    name, cards, figures = _name(recording), [], ""
    for place, player in enumerate(players, 1):
        title = TITLES[player.name]
        cards.append(
            f'<li class="version"><h3><kbd>{place}</kbd> {title} '
            f'<span class="rate">{player.rate}</span></h3>'
            f'<p class="soft">{escape(_DESCRIPTIONS[player.name])}</p>'
            f'<audio controls preload="metadata" src="{player.sound}" '
            f'aria-label="{name}: {title}, {player.rate}"></audio>'
            f'<img src="{player.picture}" loading="lazy" width="784" height="392" '
            f'alt="Spectrogram of {name}, {title.lower()}: 40 Hz to 20 kHz over '
            f'{recording.seconds:.0f} seconds"></li>\n'
        )
    if recording.figures:
        table = _measures_table(recording.figures, recording.rates, f"Figures of {name}")
        figures = f"<details><summary>Figures of this recording</summary>{table}</details>"
    return (
        f'<section class="recording" id="r{number}" aria-labelledby="h{number}">'
        f'<h2 id="h{number}">{name}</h2><p class="soft">the first {recording.seconds:.0f} s</p>'
        f'<ol class="versions">\n{"".join(cards)}</ol>{figures}</section>\n'
    )


def _measures_table(
    figures: dict[str, Figures], rates: dict[str, float | None], caption: str
) -> str:
    """Measures by version."""

    def row(label: str, meaning: str, cells: dict[str, str]) -> str:
        shown = "".join(_cell(text, name) for name, text in cells.items())
        return f'<tr><th scope="row" title="{escape(meaning)}">{escape(label)}</th>{shown}</tr>'

    head = "".join(f'<th scope="col" class="{_kind(name)}">{name}</th>' for name in figures)
    rows = [row("bit rate", "Bits a second", {name: show_rate(rates[name]) for name in figures})]
    for key, measure in MEASURES.items():
        cells = {name: measure.show(values[key]) for name, values in figures.items()}
        rows.append(row(measure.label, measure.meaning, cells))
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}"><table>'
        f'<caption>{caption}</caption><thead><tr><th scope="col">measure</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _figures_section(results: Results) -> str:
    """Means of all recordings, charts, goals, and what everything means."""
    names = results.versions
    means = {name: {key: results.mean(name, key) for key in MEASURES} for name in names}
    rates = {name: results.rate(name) for name in names}
    caption = f"Means over {len(results.recordings)} recordings"
    return (
        '<section id="figures" aria-labelledby="figures-heading">'
        '<h2 id="figures-heading">Figures</h2>'
        f"<p>{escape(results.entropy_line.capitalize())}. All figures, each recording's among "
        'them, are in <a href="figures.json">figures.json</a>.</p>'
        f"{_measures_table(means, rates, caption)}"
        f"{_goals_table(results)}"
        '<picture class="charts"><source srcset="charts-dark.png" '
        'media="(prefers-color-scheme: dark)"><img src="charts-light.png" loading="lazy" '
        'alt="Bar charts of the table above, with a dot for each recording"></picture>'
        f"{_words_table('Measures', [(m.label, m.meaning) for m in MEASURES.values()])}"
        f"{_words_table('Versions', [(name, DESCRIPTIONS[name]) for name in names])}"
        "</section>\n"
    )


def _goals_table(results: Results) -> str:
    rows = []
    for outcome in results.outcomes:
        value = "–" if outcome.value is None else f"{outcome.value:.3f}"
        aims = "".join(
            _cell(aim, "missed" if "missed" in aim else "")
            for aim in (outcome.renders, outcome.real)
        )
        rows.append(
            f'<tr><th scope="row">{escape(outcome.label)}</th>{_cell(value, "number")}{aims}</tr>'
        )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="What is aimed at">'
        '<table class="words"><caption>What is aimed at</caption><thead><tr>'
        '<th scope="col">figure</th><th scope="col">reached</th><th scope="col">for renders</th>'
        f'<th scope="col">for real music</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
        "</div>"
    )


def _words_table(caption: str, pairs: Iterable[tuple[str, str]]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(term)}</th><td>{escape(meaning)}</td></tr>'
        for term, meaning in pairs
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}">'
        f'<table class="words"><caption>{caption}</caption><tbody>{rows}</tbody></table></div>'
    )
