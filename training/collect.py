"""One's own music for training: any files, as recordings at 48 kHz, a part of them held out.

``python -m training.collect --data FOLDER --music FOLDER --held FOLDER`` reads whatever the
programs can play, skips with a warning what it cannot, and passes over what is there already.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import soundfile as sf
from tqdm import tqdm

from codec.constants import SAMPLE_RATE
from streaming.audio.sources import FileSource
from streaming.audio.sources.files import AUDIO_SUFFIXES, audio_files
from streaming.audio.sources.readers import quoted
from streaming.errors import SettingsError, SourceError
from training.program import run_program
from training.works import refuse_held_out

__all__ = ["SHORTEST_S", "collect", "extent", "is_held_out", "main"]

logger = logging.getLogger(__name__)

HELD_SHARE = 0.1
SHORTEST_S = 4.0
"""Shorter files are skipped: excerpts that are trained on are of this order."""
_BLOCK_FRAMES = SAMPLE_RATE


def _number(name: str) -> float:
    """0 to 1, spread evenly over names and the same for a name each time."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32


def is_held_out(name: str) -> bool:
    """Whether a file of that path below the folder is for validation: a tenth of all are.

    By its name alone, so that it does not move when others are added.
    """
    return _number(name) < HELD_SHARE


def _target_name(name: str) -> str:
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    readable = re.sub(r"[^A-Za-z0-9]+", "-", Path(name).stem).strip("-")[:40]
    return f"{digest}-{readable}.wav"  # by digest first: samples come from a mix of albums


def extent(folder: Path) -> tuple[int, float]:
    """How many recordings a folder of :func:`collect` holds, and their seconds together."""
    lengths = [sf.info(path).frames / SAMPLE_RATE for path in sorted(folder.glob("*.wav"))]
    return len(lengths), sum(lengths)


def _convert(path: Path, target: Path) -> None:
    """Write a file as 16-bit WAV at 48 kHz; SourceError if it cannot be used."""
    part = target.with_suffix(".part")
    frames = 0
    try:
        with (
            FileSource(path) as source,
            sf.SoundFile(part, "w", SAMPLE_RATE, 2, subtype="PCM_16", format="WAV") as out,
        ):
            while (block := source.read(_BLOCK_FRAMES)).shape[1]:
                out.write(block.T)
                frames += block.shape[1]
        if frames < SHORTEST_S * SAMPLE_RATE:
            raise SourceError(f"{quoted(path)} is shorter than {SHORTEST_S:g} seconds.")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _balance(music: Path, held: Path) -> None:
    """If names put all files on one side, move one to the other."""
    for full, empty in ((music, held), (held, music)):
        found = sorted(full.glob("*.wav"))
        if len(found) > 1 and not any(empty.glob("*.wav")):
            found[0].rename(empty / found[0].name)


def collect(data: Path, music: Path, held: Path, needed_s: float) -> None:
    """Convert all music below ``data`` to recordings in ``music`` and, to hold out, in ``held``.

    Raises:
        SettingsError: if there is no such folder, nothing in it can be read, it is music to measure
            with, or it is too little: ``needed_s`` seconds of training music and two files are
            needed.
    """
    if not data.is_dir():
        raise SettingsError(f"there is no folder {quoted(data)}; name one with music in it")
    refuse_held_out(data)
    files = audio_files(data, onerror=lambda error: logger.warning("skipped: %s", error))
    if not files:
        raise SettingsError(
            f"there is no music in {quoted(data)}; files of these kinds are looked for: "
            + ", ".join(sorted(suffix[1:] for suffix in AUDIO_SUFFIXES))
        )
    for folder in (music, held):
        folder.mkdir(parents=True, exist_ok=True)
    for path in tqdm(files, desc="reading the music", unit="file"):
        name = path.relative_to(data).as_posix()
        target = _target_name(name)
        if (music / target).exists() or (held / target).exists():
            continue
        try:
            _convert(path, (held if is_held_out(name) else music) / target)
        except SourceError as error:
            logger.warning("skipped: %s", error)
    _balance(music, held)
    (count, seconds), (held_count, held_seconds) = extent(music), extent(held)
    if count + held_count == 0:
        raise SettingsError(f"none of the {len(files)} files in {quoted(data)} can be used")
    if held_count == 0 or count == 0:
        raise SettingsError(
            f"there is only one file in {quoted(data)} that can be used; two are needed, since one "
            "is kept apart for validation (a long one may be cut in two)"
        )
    if seconds < needed_s:
        raise SettingsError(
            f"{quoted(data)} has too little music: {seconds / 60:.1f} minutes to train on, where "
            f"at least {needed_s / 60:g} are needed and an hour or more is better"
        )
    print(
        f"{count} recordings to train on, {seconds / 60:.1f} minutes; "
        f"{held_count} held out, {held_seconds / 60:.1f} minutes"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.collect", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of music, all levels")
    parser.add_argument("--music", type=Path, required=True, help="for recordings to train on")
    parser.add_argument("--held", type=Path, required=True, help="for recordings to hold out")
    parser.add_argument(
        "--needed-seconds", type=float, default=120.0, help="less than this is refused"
    )
    args = parser.parse_args(argv)
    logging.basicConfig(format="collect: %(message)s", level=logging.WARNING)
    return run_program(
        "collect", lambda: collect(args.data, args.music, args.held, args.needed_seconds)
    )


if __name__ == "__main__":
    sys.exit(main())
