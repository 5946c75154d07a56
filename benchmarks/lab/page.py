"""The lab's report: one page with all pictures, tables and players, which needs nothing else.

Sound and spectrograms lie beside it, in the folder of the trials.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np
import soundfile as sf
import torch

from benchmarks.lab.charts import QUALITY, Group, charts, grouped
from benchmarks.lab.trial import Result
from benchmarks.measures import MEASURES
from benchmarks.plots import spectrograms
from streaming.files.atomic import written_whole

__all__ = ["write_report"]

_BESIDE = Path(__file__).parent.parent / "listening_page"
_TABLE = (
    ("start_s", "start, s", 2),
    ("latency_s", "latency, s", 2),
    ("wire_bits_per_s", "wire, bit/s", 0),
    ("back_bits_per_s", "back, bit/s", 0),
    ("underruns", "underruns", 1),
    ("silent_s", "silence, s", 1),
    ("lost_tokens", "lost tokens", 0),
    ("reconnects", "reconnects", 1),
    ("encode_rtf", "encode RTF", 3),
    ("decode_rtf", "decode RTF", 3),
    *((name, MEASURES[name].label, 3) for name in QUALITY),
    ("seam", "seam", 2),
)
_MEANINGS = (
    ("start", "from dialling to the first sample at the sound card"),
    ("latency", "median time from a sample at the source to the ear"),
    ("wire, back", "everything on the link towards the listener and from it, headers included"),
    ("underruns, silence", "how often the sound ran out, and how long nothing was heard"),
    (
        "RTF",
        "processor seconds for a second of sound, on one thread of the machine that ran the trials",
    ),
    ("seam", "steps between samples at the seams of windows over those elsewhere: 1 is none"),
    (
        "reserve",
        "sound that waits in the play-out buffer; what the other terms leave of the latency",
    ),
)


def write_report(results: Sequence[Result], stems: Sequence[Path], folder: Path) -> Path:
    """Write ``index.html`` into ``folder``; returns its path. Raises ImportError, OSError.

    stems: where each result's files are, but for their suffixes.
    """
    style = _BESIDE.with_suffix(".css").read_text(encoding="utf-8")
    script = _BESIDE.with_suffix(".js").read_text(encoding="utf-8")
    groups = grouped(results)
    pictures = "".join(
        f'<section><h2>{escape(title)}</h2><div class="picture" role="img" '
        f'aria-label="{escape(title)}; the figures are in the table">{svg}</div></section>\n'
        for title, svg in charts(results).items()
    )
    title = "What each setting costs, and how it sounds"
    players = "".join(_players(results, stems, folder))
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{style}.picture svg {{ display: block; width: 100%; "
        "height: auto; font-family: inherit; }\nh3, tbody th { overflow-wrap: anywhere; }\n"
        "</style>\n</head>\n<body>\n"
        f"<header><h1>{title}</h1><p>{_about(results, groups)}</p></header>\n<main>\n"
        f'<section><h2>Figures</h2>{_table(groups)}<p class="soft">Every trial by itself, with all '
        f'figures: <a href="results.csv">results.csv</a>.</p>{_problems(results)}</section>\n'
        f"{pictures}{players}{_meanings()}</main>\n<script>\n{script}</script>\n</body>\n</html>\n"
    )
    path = folder / "index.html"
    with written_whole(path) as part:
        part.write_text(page, encoding="utf-8")
    return path


def _about(results: Sequence[Result], groups: Sequence[Group]) -> str:
    songs = len({r.trial["song"] for r in results})
    links = len({r.trial["link_name"] for r in results})
    minutes = sum(r.trial["seconds"] for r in results) / 60
    settings = len({group.label for group in groups})
    return (
        f"{_count(len(results), 'trial')}: {_count(songs, 'song')}, {_count(links, 'link')}, "
        f"{_count(settings, 'setting')}; {minutes:.0f} minutes of stream. The sender, the listener "
        "and all between are the program's own; the link, the sound card and the clock are "
        "simulated."
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _table(groups: Sequence[Group]) -> str:
    head = "".join(f'<th scope="col">{escape(label)}</th>' for _, label, _ in _TABLE)
    rows = []
    for group in groups:
        cells = "".join(
            f"<td>{'–' if (value := group.mean(name)) is None else f'{value:.{places}f}'}</td>"
            for name, _, places in _TABLE
        )
        rows.append(f'<tr><th scope="row">{escape(group.name)}</th>{cells}</tr>')
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Figures"><table>'
        "<caption>Means over the songs</caption><thead><tr>"
        f'<th scope="col">setting</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _problems(results: Iterable[Result]) -> str:
    told = dict.fromkeys(
        f"{r.label} · {r.trial['link_name']}: {r.problem}" for r in results if r.problem
    )
    silent = dict.fromkeys(
        f"{r.label} · {r.trial['link_name']}: no sound within {r.trial['seconds']:g} s"
        for r in results
        if not r.problem and r.figures.get("start_s") is None
    )
    items = "".join(f"<li>{escape(line)}</li>" for line in (*told, *silent))
    return f"<h3>What did not play</h3><ul>{items}</ul>" if items else ""


def _players(results: Sequence[Result], stems: Sequence[Path], folder: Path) -> Iterable[str]:
    """A section for each song: the original, and what was heard with each setting."""
    songs: dict[str, list[tuple[Result, Path]]] = {}
    for result, stem in zip(results, stems, strict=True):
        songs.setdefault(result.trial["song"], []).append((result, stem))
    for song, members in songs.items():
        name = escape(Path(song).stem)
        cards = []
        for number, (result, stem) in enumerate(members):
            label = f"{result.label} · {result.trial['link_name']}".removesuffix(" · ")
            if not number:
                cards.append(_card("Original", stem.with_name(f"{stem.name}-original.ogg"), folder))
            cards.append(_card(label, stem.with_name(f"{stem.name}-heard.ogg"), folder))
        shown = "".join(cards)
        if shown:
            yield (
                f'<section class="recording"><h2>{name}</h2><p class="soft">As it was, and as it '
                f'left the sound card, gaps and all.</p><ol class="versions">{shown}</ol>'
                "</section>\n"
            )


def _card(label: str, sound: Path, folder: Path) -> str:
    if not sound.is_file():
        return ""
    picture = sound.with_suffix(".png")
    if not picture.is_file():
        frames, _ = sf.read(sound, dtype="float32", always_2d=True)
        spectrograms({picture: torch.from_numpy(np.ascontiguousarray(frames.T))})
    place = sound.relative_to(folder).as_posix()
    return (
        f'<li class="version"><h3>{escape(label)}</h3><audio controls preload="none" src="{place}" '
        f'aria-label="{escape(label)}"></audio><img loading="lazy" width="784" height="392" '
        f'src="{picture.relative_to(folder).as_posix()}" alt="Spectrogram: {escape(label)}"></li>\n'
    )


def _meanings() -> str:
    measured = [(MEASURES[name].label, MEASURES[name].meaning) for name in QUALITY]
    rows = "".join(
        f'<tr><th scope="row">{escape(term)}</th><td>{escape(meaning)}</td></tr>'
        for term, meaning in (*_MEANINGS, *measured)
    )
    return (
        '<section><h2>What the words mean</h2><div class="scroll" tabindex="0" role="region" '
        f'aria-label="Words"><table class="words"><tbody>{rows}</tbody></table></div></section>\n'
    )
