"""Renders composed pieces to a folder of WAV files for training.

Each piece is rendered by the FluidSynth command with a soundfont drawn per seed, sometimes
layered with a second piece or a synthetic layer, then mastered at random. Files that already
exist are skipped, so an interrupted run can simply be started again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from tqdm import tqdm

from training.compose import SECONDS, compose
from training.filters import RATE
from training.master import master
from training.synth import synth_layer

Audio = NDArray[np.float32]

PACKAGES = "fluidsynth fluid-soundfont-gm musescore-general-soundfont"
SOUND_FOLDERS = (Path("/usr/share/sounds/sf2"), Path("/usr/share/sounds/sf3"))
# (possible file names, share of pieces)
SOUNDFONTS: tuple[tuple[tuple[str, ...], float], ...] = (
    (("FluidR3_GM.sf2",), 0.55),
    (("MuseScore_General_Full.sf3", "MuseScore_General.sf3"), 0.45),
)
# Second layers must not repeat a piece that is in the set on its own.
LAYER_OFFSET = 500_000_000


class MissingToolError(RuntimeError):
    """FluidSynth or a soundfont is not installed."""


def find_soundfonts() -> list[tuple[Path, float]]:
    """The soundfonts with their shares; raises MissingToolError with what to install."""
    if shutil.which("fluidsynth") is None:
        raise MissingToolError(f"fluidsynth is missing: apt install {PACKAGES}")
    found = []
    for names, share in SOUNDFONTS:
        paths = [folder / name for folder in SOUND_FOLDERS for name in names]
        path = next((p for p in paths if p.exists()), None)
        if path is None:
            raise MissingToolError(f"soundfont {names[0]} is missing: apt install {PACKAGES}")
        found.append((path, share))
    return found


def synthesize(midi_path: Path, soundfont: Path, wet: bool = True) -> Audio:
    """One FluidSynth run, as float32 stereo."""
    out = midi_path.with_suffix(".render.wav")
    command = [
        "fluidsynth", "-ni", "-q", "-F", str(out), "-r", str(RATE), "-T", "wav", "-O", "float",
        "-g", "0.5", "-o", "synth.dynamic-sample-loading=1", "-o", "synth.polyphony=160",
        "-o", f"synth.reverb.active={int(wet)}", "-o", f"synth.chorus.active={int(wet)}",
        str(soundfont), str(midi_path),
    ]  # fmt: skip
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if result.returncode != 0 or not out.exists():
            raise RuntimeError(f"fluidsynth failed: {result.stderr.strip()[-300:]}")
        audio, _ = soundfile.read(out, dtype="float32", always_2d=True)
    finally:
        out.unlink(missing_ok=True)
    return _without_dead_end(np.asarray(audio, dtype=np.float32))


def _without_dead_end(audio: Audio) -> Audio:
    """Cut the silence FluidSynth leaves while the last voices die away."""
    loud = np.flatnonzero(np.abs(audio).max(axis=1) > 0.002 * np.abs(audio).max())
    last = int(loud[-1]) if len(loud) else 0
    return audio[: max(last + RATE // 2, 10 * RATE)]


def _fluid(seed: int, rng: np.random.Generator, folder: Path) -> Audio:
    fonts = find_soundfonts()
    shares = np.array([share for _, share in fonts])
    font = fonts[int(rng.choice(len(fonts), p=shares / shares.sum()))][0]
    path = folder / f"{seed}.mid"
    compose(seed).save(path)
    return synthesize(path, font, wet=bool(rng.random() < 0.75))


def _level(audio: Audio) -> float:
    return float(np.sqrt(np.mean(np.square(audio)))) + 1e-6


def _mix(base: Audio, layer: Audio, gain_db: float) -> Audio:
    """Add a layer at a level relative to the base's own."""
    frames = min(len(base), len(layer))
    gain = _level(base) / _level(layer) * 10 ** (gain_db / 20)
    base[:frames] += layer[:frames] * np.float32(gain)
    return base


def render_piece(seed: int) -> Audio:
    """The finished, mastered piece of this seed."""
    rng = np.random.default_rng((seed, 7))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        audio = _fluid(seed, rng, folder)
        if rng.random() < 0.25:
            other = _fluid(LAYER_OFFSET + seed, rng, folder)
            audio = _mix(audio, other, float(rng.uniform(-14, -2)))
    if rng.random() < 0.13:
        layer = synth_layer(rng, compose(seed), len(audio))
        audio = _mix(audio, layer, float(rng.uniform(-12, 3)))
    return master(rng, audio)


def _write_piece(job: tuple[int, Path]) -> float:
    """Render to a temporary name, then rename: a reader never sees half a file."""
    seed, path = job
    audio = render_piece(seed)
    partial = path.with_suffix(".part")
    soundfile.write(partial, audio, RATE, subtype="PCM_16", format="WAV")
    partial.replace(path)
    return len(audio) / RATE


def render_set(out: Path, seconds_total: float, seed: int, workers: int) -> int:
    """Render enough pieces for `seconds_total`; returns how many were new."""
    out.mkdir(parents=True, exist_ok=True)
    count = max(1, round(seconds_total / SECONDS))
    jobs = [(seed + i, out / f"{i:05d}.wav") for i in range(count)]
    todo = [job for job in jobs if not job[1].exists()]
    context = multiprocessing.get_context("spawn")
    with context.Pool(max(1, workers)) as pool:
        results = pool.imap_unordered(_write_piece, todo)
        for _ in tqdm(results, total=len(todo), desc="rendering", unit="piece"):
            pass
    return len(todo)


def main(argv: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder for the WAV files")
    parser.add_argument("--seconds-total", type=float, default=16200, help="audio to make (s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first piece")
    parser.add_argument("--workers", type=int, default=2, help="parallel processes")
    args = parser.parse_args(argv)
    try:
        find_soundfonts()
    except MissingToolError as error:
        print(error, file=sys.stderr)
        return 2
    made = render_set(args.out, args.seconds_total, args.seed, args.workers)
    print(f"{made} new pieces in {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
