"""Freely licensed music for training, fetched from Debian's archive through apt.

``python -m training.collect_free --out FOLDER`` downloads the packages of ``free_music.toml``
without root, takes an excerpt of each recording whose licence is one of those asked for, no more
than so many minutes of one package, and lists the works with their authors and licences in
``FOLDER/works.json``. The folder is for ``--data`` of ``training.train_all``. Interrupt it at any
time and start it again: packages that are done are passed over.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from codec.constants import SAMPLE_RATE
from streaming.audio.sources import FileSource
from streaming.audio.sources.readers import quoted
from streaming.cli.common import number
from streaming.errors import SettingsError, SourceError, UserError
from streaming.support.status_line import printable
from training.collect import SHORTEST_S
from training.licences import CopyrightFile, Statement, Terms, terms_of
from training.program import run_program
from training.works import LIST_NAME, Work, WorkList

__all__ = ["LIST", "Package", "Settings", "collect_free", "main", "read_packages", "recordings"]

logger = logging.getLogger(__name__)

LIST: Final = Path(__file__).with_name("free_music.toml")
_LEAST_S: Final = 20.0
"""If a package has more recordings than excerpts of this length fit, some are left out."""
_LARGEST_BYTES: Final = 1 << 28
"""Of one recording; larger files are left out."""
_BLOCK_FRAMES: Final = SAMPLE_RATE
_FORMATS: Final = {"flac": ("FLAC", "PCM_16"), "opus": ("OGG", "OPUS")}


class _PackageError(UserError):
    """A package cannot be had or used; the others can."""


@dataclass(frozen=True)
class Package:
    """An entry of ``free_music.toml``, which says what the fields mean."""

    name: str
    version: str = ""
    use: str = "train"
    why: str = ""
    gpl: bool = False
    root: str = ""
    files: tuple[str, ...] = ()
    source: str = ""
    copyright_sha256: str = ""
    read: tuple[tuple[tuple[str, ...], Statement], ...] = ()

    @property
    def archive(self) -> str | None:
        """The zip archive in the package that holds the recordings, if they are in one."""
        return None if self.root.endswith("/") else self.root

    @property
    def copyright_path(self) -> str:
        """Where the package keeps its licences, without a slash before it."""
        return f"usr/share/doc/{self.name}/copyright"

    def holds(self, path: str) -> bool:
        """Whether a path below the root is one of the recordings."""
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in self.files)

    def statements(self, text: bytes) -> CopyrightFile:
        """What its copyright file says, together with what a person has read of that very file."""
        known = hashlib.sha256(text).hexdigest() == self.copyright_sha256
        if self.read and not known:
            logger.warning(
                "%s: nobody has read the copyright file of this version yet; music whose licence "
                "it states in prose alone is left out",
                self.name,
            )
        return CopyrightFile(text.decode("utf-8", errors="replace"), self.read if known else ())


def read_packages(path: Path) -> dict[str, Package]:
    """The packages of a list like ``free_music.toml``, by name.

    Raises:
        SettingsError: if the file holds something else.
    """
    try:
        packages = {}
        for row in tomllib.loads(path.read_text(encoding="utf-8"))["package"]:
            read = tuple(
                (tuple(said["files"]), Statement(said["license"], said["copyright"]))
                for said in row.pop("read", ())
            )
            package = Package(**{**row, "files": tuple(row.get("files", ())), "read": read})
            if package.use not in ("train", "measure", "never", "refused"):
                raise ValueError(f"{package.name}: {package.use} is no use")
            packages[package.name] = package
        return packages
    except OSError as error:
        raise SettingsError(f"{quoted(path)} cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise SettingsError(
            f"{quoted(path)} is no list of packages like {quoted(LIST)}: {error}"
        ) from error


# ---------------------------------------------------------------- apt and dpkg


def _need_programs() -> None:
    for program in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(program) is None:
            raise SettingsError(
                f"there is no {program} here; the music comes in Debian's packages, so run this "
                "on Debian or Ubuntu and copy the folder to where you train"
            )


def _run(command: Sequence[str], folder: Path) -> str:
    """What a command prints; _PackageError with its last remark if it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        remarks = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in remarks if line.startswith("E:")] or remarks
        raise _PackageError(errors[-1].strip() if errors else f"{command[0]} failed")
    return done.stdout


def _offered(name: str) -> list[str]:
    """The versions that apt's sources have, the newest first."""
    rows = [line.split("|") for line in _run(["apt-cache", "madison", name], Path()).splitlines()]
    return [row[1].strip() for row in rows if len(row) == 3 and "Packages" in row[2]]


def _kept(debs: Path, package: Package, version: str) -> Path | None:
    escaped = version.replace(":", "%3a")  # as apt-get names its files
    return next(iter(sorted(debs.glob(f"{package.name}_{escaped}_*.deb"))), None)


def _fetch(package: Package, debs: Path) -> Path:
    """The package as a file in a folder, downloaded if it is not there yet.

    In the version of the list, or else the newest that there is, with a warning.
    """
    version = package.version
    if kept := _kept(debs, package, version):
        return kept
    offered = _offered(package.name)
    if not offered:
        raise _PackageError(
            "apt does not know it (are Debian's archives among its sources, and has "
            "`sudo apt-get update` been run?)"
        )
    if version not in offered:
        version = offered[0]
        logger.warning(
            "%s: apt's sources no longer have version %s of the list; took %s instead",
            package.name,
            package.version,
            version,
        )
        if kept := _kept(debs, package, version):
            return kept
    with tempfile.TemporaryDirectory(dir=debs, prefix=".download-") as folder:
        _run(["apt-get", "--quiet=2", "download", f"{package.name}={version}"], Path(folder))
        found = sorted(Path(folder).glob("*.deb"))
        if not found:
            raise _PackageError("apt-get download left no file")
        return found[0].rename(debs / found[0].name)


def _unpack(deb: Path, package: Package, folder: Path) -> tuple[bytes, dict[str, Path]]:
    """The copyright file, and the recordings as files in a folder by their path below the root."""
    copyright_text = b""
    found: dict[str, Path] = {}
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as unpacking:
        assert unpacking.stdout is not None
        try:
            with tarfile.open(fileobj=unpacking.stdout, mode="r|") as tar:
                for member in tar:
                    path = member.name.removeprefix("./")
                    data = tar.extractfile(member) if member.isreg() else None
                    if data is None:
                        continue
                    if path == package.copyright_path:
                        copyright_text = data.read(_LARGEST_BYTES)
                    elif path == package.archive:
                        _store(data, folder / "archive.zip")
                        found |= _unzip(folder / "archive.zip", package, folder)
                    elif package.archive is None and path.startswith(package.root):
                        below = path[len(package.root) :]
                        if package.holds(below) and _fits(below, member.size):
                            found[below] = _store(data, folder / f"{len(found)}")
            while unpacking.stdout.read(1 << 20):  # what pads the archive
                pass
            damaged = unpacking.wait() != 0
        except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError):
            unpacking.kill()
            damaged = True
    if damaged:
        raise _PackageError(f"{quoted(deb)} is damaged; delete it and start again")
    if not copyright_text:
        raise _PackageError(f"it has no {package.copyright_path}")
    return copyright_text, found


def _unzip(archive: Path, package: Package, folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    with zipfile.ZipFile(archive) as zipped:
        for info in zipped.infolist():
            if package.holds(info.filename) and _fits(info.filename, info.file_size):
                with zipped.open(info) as data:
                    found[info.filename] = _store(data, folder / f"{len(found)}")
    archive.unlink()
    return found


def _store(data: IO[bytes], path: Path) -> Path:
    with path.open("wb") as file:
        shutil.copyfileobj(data, file)
    return path


def _fits(path: str, size: int) -> bool:
    if size > _LARGEST_BYTES:
        logger.warning("skipped: %s is larger than %d MiB", path, _LARGEST_BYTES >> 20)
    return size <= _LARGEST_BYTES


# ---------------------------------------------------------------- excerpts


def _shares(lengths: Sequence[float], most_s: float) -> list[float]:
    """How many seconds of each recording to take, so that there are no more than so many in all.

    Short recordings whole, and of the others equal parts, none under `_LEAST_S`: if there are
    more recordings than that allows, some in between get none.
    """
    count = len(lengths)
    fit = max(1, int(most_s / _LEAST_S))
    chosen = range(count) if count <= fit else [i * count // fit for i in range(fit)]
    shares = [0.0] * count
    left_s, left = most_s, len(chosen)
    for index in sorted(chosen, key=lambda i: lengths[i]):
        shares[index] = min(lengths[index], left_s / left)
        left_s, left = left_s - shares[index], left - 1
    return shares


def _length(path: Path) -> float:
    """Seconds of a recording; SourceError if it cannot be played."""
    try:
        return float(sf.info(path).duration)
    except sf.SoundFileError:
        with FileSource(path) as source:  # its length is known once it has been decoded
            return sum(block.shape[1] for block in _blocks(source)) / SAMPLE_RATE


def _blocks(source: FileSource) -> Iterator[NDArray[np.float32]]:
    while (block := source.read(_BLOCK_FRAMES)).shape[1]:
        yield block


def _tags(path: Path) -> tuple[str, str]:
    """Title and artist, as far as the file is tagged."""
    try:
        with sf.SoundFile(path) as file:
            return printable(file.title, 200).strip(), printable(file.artist, 200).strip()
    except sf.SoundFileError:
        return "", ""


def _cut(path: Path, start_s: float, seconds: float, out: Path, kind: str) -> float:
    """Write a part of a recording at 48 kHz in stereo; how many seconds it has."""
    skip, left = round(start_s * SAMPLE_RATE), round(seconds * SAMPLE_RATE)
    container, subtype = _FORMATS[kind]
    part = out.with_suffix(".part")
    out.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    try:
        with (
            FileSource(path) as source,
            sf.SoundFile(part, "w", SAMPLE_RATE, 2, subtype, format=container) as file,
        ):
            for block in _blocks(source):
                taken = block[:, skip : skip + left - written]
                skip = max(0, skip - block.shape[1])
                file.write(taken.T)
                written += taken.shape[1]
                if written >= left:
                    break
        part.replace(out)
    except sf.SoundFileError as error:
        raise SettingsError(f"{quoted(out)} cannot be written; is the disk full?") from error
    finally:
        part.unlink(missing_ok=True)
    return written / SAMPLE_RATE


# ---------------------------------------------------------------- the program


@dataclass(frozen=True)
class Settings:
    """What to collect, and how.

    Attributes:
        minutes: no more than so many of one package.
        format: of the excerpts, ``flac`` or ``opus``.
        gpl: take music that is under the GPL alone, too.
        held_out: collect the packages that are kept out of training, to measure with.
    """

    minutes: float = 8.0
    format: str = "flac"
    gpl: bool = False
    held_out: bool = False

    def allows(self, license: str) -> bool:
        """Whether recordings under a licence are taken; measuring asks for none."""
        return self.held_out or terms_of(license) >= (Terms.GPL if self.gpl else Terms.FREE)


def recordings(package: Package, deb: Path, folder: Path) -> tuple[bytes, list[tuple[Work, Path]]]:
    """The copyright file of a package and its recordings, unpacked into a folder.

    Raises _PackageError (a UserError) if the package is damaged or not as its entry says.
    """
    text, found = _unpack(deb, package, folder)
    version = _run(["dpkg-deb", "--field", str(deb.resolve()), "Version"], folder).strip()
    statements = package.statements(text)
    unstated = Statement("", "")
    works = []
    for path in sorted(found):
        said = statements.statement(package.source + path) or unstated
        title, artist = _tags(found[path])
        with found[path].open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        source = f"{package.root}:{path}" if package.archive else package.root + path
        work = Work(
            package.name,
            version,
            source,
            digest,
            said.license,
            said.copyright,
            said.comment,
            title,
            artist,
        )
        works.append((work, found[path]))
    if not works:
        raise _PackageError(f"version {version} has no recordings where they are looked for")
    return text, works


@contextlib.contextmanager
def _skipping(work: Work) -> Iterator[None]:
    """Go on with a warning if a recording cannot be played."""
    try:
        yield
    except SourceError as error:
        logger.warning("skipped: %s of %s: %s", work.source, work.package, error)


def _excerpts(package: Package, deb: Path, out: Path, settings: Settings) -> list[Work]:
    """Cut what the settings ask for out of a package; what cannot be played is left out.

    Raises _PackageError if none of it can be played.
    """
    with tempfile.TemporaryDirectory(dir=out, prefix=".unpacked-") as folder:
        text, found = recordings(package, deb, Path(folder))
        allowed = [(work, path) for work, path in found if settings.allows(work.license)]
        playable = []
        for work, path in allowed:
            with _skipping(work):
                playable.append((work, path, _length(path)))
        shares = _shares([length for _, _, length in playable], settings.minutes * 60)
        works = []
        for (work, path, length), share in zip(playable, shares, strict=True):
            if share >= SHORTEST_S:
                start_s = (length - share) / 2
                file = f"{package.name}/{_file_name(work.source)}.{settings.format}"
                with _skipping(work):
                    seconds = _cut(path, start_s, share, out / file, settings.format)
                    excerpt = replace(work, file=file, start_s=round(start_s, 3))
                    works.append(replace(excerpt, seconds=round(seconds, 3)))
        if allowed and not works:
            raise _PackageError("none of its recordings can be played here, or all are too short")
        (out / "copyright").mkdir(exist_ok=True)
        (out / "copyright" / package.name).write_bytes(text)
    return works


def _file_name(source: str) -> str:
    digest = hashlib.sha256(source.encode()).hexdigest()[:6]
    readable = re.sub(r"[^A-Za-z0-9]+", "-", Path(source).stem).strip("-")[:40]
    return f"{readable}-{digest}"


def _chosen(packages: Path, names: Sequence[str], settings: Settings) -> list[Package]:
    """The packages to collect; SettingsError for names that are not to be had, saying why."""
    listed = read_packages(packages)
    use = "measure" if settings.held_out else "train"
    for name in names:
        if name not in listed:
            raise SettingsError(f"{name} is not in {quoted(packages)}, the list of packages")
        package = listed[name]
        if package.use == "refused":
            raise SettingsError(f"{name} is not taken: {package.why}")
        if package.use == "never":
            raise SettingsError(f"{name} is held out, of training and of measuring, and stays so")
        if package.use != use:
            raise SettingsError(
                f"{name} is for training; leave --held out"
                if settings.held_out
                else f"{name} is held out of training; --held fetches it to measure with"
            )
        if package.gpl and not settings.gpl and not settings.held_out:
            raise SettingsError(f"all music of {name} is under the GPL alone; give --gpl too")
    return [
        package
        for package in listed.values()
        if package.use == use
        and (settings.gpl or settings.held_out or not package.gpl)
        and (not names or package.name in names)
    ]


def _begun(path: Path, settings: Settings) -> WorkList:
    """The list of a folder, or a new one; SettingsError if it was begun with other settings."""
    own = {"minutes": settings.minutes, "format": settings.format, "gpl": settings.gpl}
    if not path.exists():
        return WorkList(settings.held_out, own, {})
    begun = WorkList.read(path)
    if (begun.held_out, begun.settings) != (settings.held_out, own):
        was = " ".join(f"{name} {value}" for name, value in begun.settings.items())
        raise SettingsError(
            f"{quoted(path.parent)} was begun with other settings ({was}, "
            f"{'held out' if begun.held_out else 'for training'}); name another --out"
        )
    return begun


def collect_free(
    out: Path,
    settings: Settings,
    names: Sequence[str] = (),
    packages: Path = LIST,
    debs: Path | None = None,
) -> None:
    """Fill a folder with excerpts and their list.

    Args:
        out: the folder.
        settings: what to collect.
        names: of packages, instead of all.
        packages: the list of packages.
        debs: where downloaded packages are kept and looked for; without it they are deleted.

    Raises:
        SettingsError: the settings make no sense, the folder holds something else or cannot be
            written, or no package at all can be used.
    """
    chosen = _chosen(packages, names, settings)
    _need_programs()
    try:
        out.mkdir(parents=True, exist_ok=True)
        listed = _begun(out / LIST_NAME, settings)
        for folder in [*out.glob(".unpacked-*"), *out.glob(".debs-*")]:
            shutil.rmtree(folder, ignore_errors=True)  # left over by a run that was killed
        failed = 0
        for package in chosen:
            if package.name in listed.packages:
                continue
            try:
                works = _one(package, out, settings, debs)
            except _PackageError as error:
                failed += 1
                logger.warning("skipped: %s: %s", package.name, error)
                continue
            listed.packages[package.name] = works
            listed.write(out / LIST_NAME)
            minutes = sum(work.seconds for work in works) / 60
            print(f"{package.name}: {len(works)} recordings, {minutes:.1f} minutes", flush=True)
    except OSError as error:
        raise SettingsError(
            f"{quoted(error.filename or out)} cannot be written: {error.strerror}"
        ) from error
    works = listed.works
    if not works:
        raise SettingsError("no package could be used; the lines above say why")
    print(
        f"{len(works)} recordings of {sum(map(bool, listed.packages.values()))} packages, "
        f"{sum(work.seconds for work in works) / 60:.0f} minutes; their authors and licences are "
        f"in {out / LIST_NAME}"
    )
    if failed:
        print(f"{failed} packages were skipped; start it again to try them once more")


def _one(package: Package, out: Path, settings: Settings, debs: Path | None) -> list[Work]:
    if debs is not None:
        debs.mkdir(parents=True, exist_ok=True)
        return _excerpts(package, _fetch(package, debs), out, settings)
    with tempfile.TemporaryDirectory(dir=out, prefix=".debs-") as folder:
        return _excerpts(package, _fetch(package, Path(folder)), out, settings)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    default = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m training.collect_free", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the music")
    parser.add_argument(
        "--minutes",
        type=number(float, 0.1, 10_000),
        default=default.minutes,
        metavar="N",
        help="no more than N of one package (%(default)g)",
    )
    parser.add_argument(
        "--format",
        choices=sorted(_FORMATS),
        default=default.format,
        help="of the excerpts: flac as they are, opus to carry far (%(default)s)",
    )
    parser.add_argument(
        "--gpl", action="store_true", help="take music that is under the GPL alone, too"
    )
    parser.add_argument(
        "--held",
        action="store_true",
        help="instead, the packages that are kept out of training, to measure with",
    )
    parser.add_argument(
        "--packages", nargs="+", default=(), metavar="NAME", help="these alone of the list"
    )
    parser.add_argument(
        "--list", type=Path, default=LIST, metavar="FILE", help="of packages (free_music.toml)"
    )
    parser.add_argument(
        "--debs", type=Path, metavar="FOLDER", help="keep the downloaded packages there"
    )
    args = parser.parse_args(argv)
    logging.basicConfig(format="collect_free: %(message)s", level=logging.WARNING)
    settings = Settings(args.minutes, args.format, args.gpl, args.held)
    return run_program(
        "collect_free",
        lambda: collect_free(args.out, settings, args.packages, args.list, args.debs),
    )


if __name__ == "__main__":
    sys.exit(main())
