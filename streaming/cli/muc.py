"""The command ``muc``: music to files of tokens and back, and weights before they are needed."""

from __future__ import annotations

import argparse
import functools
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import codec
from codec.constants import SAMPLE_RATE, TOKEN_BITS, TOKEN_RATE
from codec.errors import CodecError, WeightsError
from streaming.cli.common import number, program_name
from streaming.cli.completion import add_completion_argument
from streaming.cli.start import complain, say
from streaming.errors import SettingsError, SourceError, UserError
from streaming.files.muc import MUC_SUFFIX, MucInfo, MucReader, muc_files
from streaming.support.compute import use_threads
from streaming.support.ending import interruptible
from streaming.support.status_line import StatusLine, printable
from streaming.wire.messages import MAX_SEED

if TYPE_CHECKING:
    from codec.base import Codec, DecodeSettings
    from streaming.files.batch import Job
    from streaming.files.convert import Converted, Progress

__all__ = ["main", "make_parser"]

logger = logging.getLogger(__name__)

LoadCodec = Callable[..., "Codec"]


def main(argv: Sequence[str] | None = None, load_codec: LoadCodec = codec.load) -> int:
    """Run a command; returns the exit code: 0, 2 if it failed, 130 on Ctrl-C."""
    arguments = make_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        if arguments.command != "fetch":
            _run(arguments, load_codec)
            return 0
        if arguments.cache is not None:
            os.environ["MUSIC350_CACHE"] = str(arguments.cache)
        path, digest = _fetch(arguments)
        say(str(path))
    except (CodecError, UserError, OSError) as error:
        complain(f"codec: {error}")
        return 2
    except KeyboardInterrupt:
        again = "; the same command continues from here"
        complain(f"codec: interrupted{again if arguments.command == 'fetch' else ''}")
        return 130
    complain(f"{arguments.name} is here (SHA-256 {digest})")
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Every command, with its options."""
    parser = argparse.ArgumentParser(
        prog=program_name("python -m codec"),
        description="Music to files of tokens and back; codecs' weights.",
    )
    add_completion_argument(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_commands(commands)
    fetch = commands.add_parser(
        "fetch",
        help="download, check and convert a codec's weights, or check those that are here",
        description="Afterwards the codec works without a network. Prints the weights file's path.",
    )
    fetch.add_argument("name", choices=tuple(codec.CODECS))
    fetch.add_argument(
        "--weights", type=Path, metavar="PATH", help="take the release's files from this folder"
    )
    fetch.add_argument("--repo", metavar="OWNER/NAME", help="repository on the hub")
    fetch.add_argument("--revision", metavar="REV", help="branch, tag or commit of the repository")
    fetch.add_argument(
        "--replace",
        action="store_true",
        help="take files that differ from those that were there at first",
    )
    fetch.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder for the weights, instead of the user's cache",
    )
    return parser


def _add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    encode = commands.add_parser(
        "encode",
        help="music to tokens: an audio file to a .muc file, or all of a folder to another",
        description="The tokens are those of a live stream, and the exact length is kept.",
    )
    encode.add_argument("source", type=Path, metavar="IN", help="an audio file, or a folder")
    encode.add_argument("out", type=Path, metavar="OUT", help="a .muc file, or a folder")
    encode.add_argument(
        "--codec", choices=codec.CODECS, default="nano", help="default: %(default)s"
    )
    encode.add_argument(
        "--seed",
        type=number(int, 0, MAX_SEED),
        default=0,
        metavar="N",
        help="seed of decoders' noise",
    )
    decode = commands.add_parser(
        "decode",
        help="tokens to music: a .muc file to an audio file, or all of a folder to another",
        description="With the codec and the seed that the file names.",
    )
    decode.add_argument("source", type=Path, metavar="IN", help="a .muc file, or a folder")
    decode.add_argument(
        "out", type=Path, metavar="OUT", help="wav, flac, ogg or opus, by its suffix; or a folder"
    )
    decode.add_argument(
        "--format",
        choices=("wav", "flac", "ogg", "opus"),
        default="wav",
        help="format of the files in a folder (default: %(default)s)",
    )
    decode.add_argument(
        "--seed", type=number(int, 0, MAX_SEED), metavar="N", help="seed, instead of the file's"
    )
    decode.add_argument(
        "--steps", type=number(int, 0, 1000), metavar="N", help="steps of the sampler"
    )
    decode.add_argument(
        "--guidance", type=number(float, 0, 100), metavar="G", help="its guidance scale; 1 is none"
    )
    decode.add_argument(
        "--temperature", type=number(float, 0, 10), metavar="T", help="deviation of its noise"
    )
    decode.add_argument(
        "--force", action="store_true", help="decode a file even if most of it is missing"
    )
    for parser in (encode, decode):
        parser.add_argument("--weights", type=Path, metavar="PATH", help="the codec's weights")
        parser.add_argument(
            "--torch-device", metavar="DEVICE", help="where torch computes: cpu, cuda, cuda:1"
        )
        parser.add_argument(
            "--threads",
            type=number(int, 1, 1024),
            metavar="N",
            help="threads of each process (default: 1, for mucodec its share of the cores)",
        )
        parser.add_argument(
            "--jobs",
            type=number(int, 1, 256),
            default=1,
            metavar="N",
            help="files at a time, each in a process of its own (default: 1)",
        )
    info = commands.add_parser(
        "info",
        help="describe .muc files, or those in folders; needs no model",
        description="Reads all of them, so it also finds what is damaged.",
    )
    info.add_argument(
        "sources", nargs="+", type=Path, metavar="IN", help="a .muc file, or a folder"
    )
    info.add_argument("--json", action="store_true", help="one JSON object a file")
    page = commands.add_parser(
        "export-page",
        help="a folder for any web host: a page that plays .muc files in a browser",
        description="Try it with: python -m http.server --directory FOLDER",
    )
    page.add_argument("folder", type=Path, metavar="FOLDER", help="is made if it is not there")
    page.add_argument(
        "recordings", nargs="*", type=Path, metavar="FILE.muc", help="or a folder of such files"
    )


def _run(arguments: argparse.Namespace, load_codec: LoadCodec) -> None:
    """Do what the arguments ask. Raises UserError or CodecError."""
    if arguments.command == "info":
        _describe(arguments.sources, as_json=arguments.json)
        return
    if arguments.command == "export-page":
        _export_page(arguments.folder, arguments.recordings)
        return
    from streaming.files.batch import run_jobs  # imports libraries for audio files

    status = StatusLine()
    root = logging.getLogger()
    handler = status.log_handler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    root.handlers[:] = [handler]
    try:
        done = run_jobs(_jobs(arguments), _converter(arguments, load_codec), arguments.jobs, status)
    finally:
        status.close()
    seconds = sum(one.samples for one in done) / SAMPLE_RATE
    size = sum(one.muc_bytes for one in done)
    files = "" if len(done) == 1 else f" in {len(done)} files"
    rate = f", {8 * size / seconds:.0f} bit/s" if seconds else ""
    logger.info("%.2f s of music, %d bytes as .muc%s%s", seconds, size, rate, files)


def _export_page(folder: Path, sources: Sequence[Path]) -> None:
    from streaming.web.export import export_page  # imports what serves HTTP

    recordings = muc_files(sources)
    for source in sources:
        if not any(source == path or source in path.parents for path in recordings):
            raise SettingsError(f"{source} is no {MUC_SUFFIX} file and no folder with some.")
    export_page(folder, recordings)
    logger.info("%s has %d recording(s)", folder / "index.html", len(recordings))


def _describe(sources: Sequence[Path], *, as_json: bool) -> None:
    """Say what is in all of them. Raises UserError if some cannot be read, after the others."""
    found: list[Path | UserError] = []
    for source in sources:
        try:
            found += _muc_files(source)
        except UserError as error:
            found.append(error)
    failures: list[UserError] = []
    for one in found:
        try:
            if isinstance(one, UserError):
                raise one
            say(_shown(one, MucReader(one).describe(), as_json=as_json))
        except UserError as error:
            if len(found) == 1:
                raise
            logger.warning("left out: %s", error)
            failures.append(error)
    if failures:
        raise SourceError(f"{len(failures)} of {len(found)} files failed; the last: {failures[-1]}")


def _jobs(arguments: argparse.Namespace) -> list[Job]:
    from streaming.audio.sinks import FileSink
    from streaming.audio.sources.files import audio_files
    from streaming.files.batch import Job, pair_files

    source, out = arguments.source, arguments.out
    encoding = arguments.command == "encode"
    if source.is_dir():
        if out.exists() and not out.is_dir():
            raise SettingsError(f"{source} is a folder, so {out} must be one as well.")
        found = audio_files(source) if encoding else _muc_files(source)
        suffix = MUC_SUFFIX if encoding else f".{arguments.format}"
        jobs = pair_files(source, out, found, suffix)
        for job in jobs:
            job.out.parent.mkdir(parents=True, exist_ok=True)
        return jobs
    if out.is_dir():
        name = source.stem + (MUC_SUFFIX if encoding else f".{arguments.format}")
        out = out / name
    if encoding and out.suffix.lower() != MUC_SUFFIX:
        raise SettingsError(f"{out} must end in {MUC_SUFFIX}, which is what encode writes.")
    if not encoding:
        FileSink(out, overwrite=True).close()  # tells of an unknown suffix before a codec is loaded
    return [Job(source, out)]


@dataclass(frozen=True)
class _Converter:
    """What each process does with its files; loads its codec once."""

    arguments: argparse.Namespace
    load_codec: LoadCodec

    def __call__(self, job: Job, progress: Progress) -> Converted:
        from streaming.files.convert import decode_file, encode_file

        wanted = self.arguments
        if wanted.command == "encode":
            model = self.load(wanted.codec)
            return encode_file(job.source, job.out, model, seed=wanted.seed, progress=progress)
        return decode_file(
            job.source,
            job.out,
            self.load,
            seed=wanted.seed,
            settings=self.settings,
            force=wanted.force,
            progress=progress,
        )

    def load(self, name: str) -> Codec:
        wanted = self.arguments
        part = "encoder" if wanted.command == "encode" else "decoder"
        options: dict[str, Any] = {"part": part, "weights": wanted.weights}
        threads = wanted.threads or codec.default_threads(name, wanted.jobs)
        return _loaded(self.load_codec, name, threads, wanted.torch_device, **options)

    def settings(self) -> DecodeSettings:
        from codec.base import DecodeSettings

        wanted = self.arguments
        return DecodeSettings(wanted.steps, wanted.guidance, wanted.temperature)


def _converter(arguments: argparse.Namespace, load_codec: LoadCodec) -> _Converter:
    return _Converter(arguments, load_codec)


@functools.cache
def _loaded(load: LoadCodec, name: str, threads: int, device: str | None, **options: Any) -> Codec:
    use_threads(threads)
    return load(name, device=device, **options)


def _muc_files(source: Path) -> list[Path]:
    """The file, or all ``.muc`` files under the folder. Raises SettingsError if there is none."""
    if not source.is_dir():
        return [source]
    found = muc_files([source])
    if not found:
        raise SettingsError(f"There are no {MUC_SUFFIX} files in {source}.")
    return found


def _shown(path: Path, info: MucInfo, *, as_json: bool) -> str:
    """What ``info`` says about a file."""
    header = info.header
    rate = 8 * info.file_bytes / info.seconds if info.samples else None
    fields: dict[str, Any] = {
        "file": str(path),
        "codec": header.codec,
        "weights": header.weights,
        "digest": header.digest,
        "seed": header.seed,
        "stream": header.stream,
        "first_token": info.first_token,
        "context_tokens": header.music_from - header.first_token,
        "tokens": info.tokens,
        "seconds": round(info.seconds, 3),
        "samples": info.samples,
        "complete": info.complete,
        "gaps": info.gaps,
        "lost_tokens": info.lost_tokens,
        "damaged_bytes": info.damaged_bytes,
        "bytes": info.file_bytes,
        "bits_per_s": None if rate is None else round(rate, 1),
        "titles": [{"token": title.token, "title": title.title} for title in info.titles],
    }
    if as_json:
        return json.dumps(fields)
    lost = f", {info.lost_tokens} lost in {info.gaps} gaps" if info.gaps else ""
    bits = "" if rate is None else f", {rate:.0f} bit/s ({TOKEN_RATE * TOKEN_BITS} of music)"
    damage = f", {info.damaged_bytes} of them damaged" if info.damaged_bytes else ""
    context = header.music_from - header.first_token
    before = f", {context} of context before them" if context else ""
    lines = [
        printable(str(path), 300),
        f"  codec    {header.codec}, weights {header.weights} (SHA-256 {header.digest[:16]}…)",
        f"  seed     {header.seed}" + (f", stream {header.stream}" if header.stream else ""),
        f"  length   {info.seconds:.3f} s, {info.samples} samples, {info.tokens} tokens"
        f" from {info.first_token} on{before}{lost}",
        f"  size     {info.file_bytes} bytes{damage}{bits}",
        "  end      " + ("complete" if info.complete else "cut off, or still being written"),
    ]
    lines += [
        f"  title    {title.token / TOKEN_RATE:.1f} s: {title.title}" for title in info.titles
    ]
    return "\n".join(lines)


def _fetch(arguments: argparse.Namespace) -> tuple[Path, str]:
    """Path and digest of the weights."""
    if arguments.name == "nano":
        from codec.nano.weights import BUNDLED, read_weights

        if arguments.repo or arguments.revision or arguments.replace:
            raise WeightsError(
                "nano comes with the program and is on no hub; leave out --repo, --revision and "
                "--replace"
            )
        return arguments.weights or BUNDLED, read_weights(arguments.weights).digest
    from codec.mucodec import weights

    with interruptible():
        if arguments.weights is not None:
            if arguments.repo or arguments.revision:
                raise WeightsError("--weights names files here; leave out --repo and --revision")
            return weights.convert_folder(arguments.weights)
        return weights.fetch(
            arguments.repo or weights.REPOSITORY, arguments.revision, replace=arguments.replace
        )
