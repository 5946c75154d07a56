"""Recordings to ``.muc`` files and back, as fast as the machine can.

The same windows as a live stream, hence the same tokens and the same sound. Blocking calls; what
they return says how much there was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import soundfile
from numpy.typing import NDArray

from codec.constants import CHANNELS, SAMPLE_RATE, SAMPLES_PER_TOKEN
from streaming.audio.level import sanitise
from streaming.audio.sinks import FileSink
from streaming.audio.sources import FileSource
from streaming.errors import SettingsError
from streaming.files.atomic import written_whole
from streaming.files.muc import MucEncoder, MucReader, StreamHeader
from streaming.receive.concealment import Concealment
from streaming.wire.messages import Title

if TYPE_CHECKING:
    from codec.base import Codec, DecodeSettings

__all__ = ["Converted", "Progress", "check_fits", "decode_file", "encode_file"]

Progress = Callable[[float, float | None], None]
"""Told the seconds done, and those that there are if that is known."""

_BLOCK_SAMPLES: Final = SAMPLE_RATE
_MOST_S: Final = 1e6
"""What is longer than that does not know how long it is."""


@dataclass(frozen=True)
class Converted:
    """One file: length in samples at 48 kHz, size of the ``.muc`` file; lost: tokens replaced."""

    samples: int
    muc_bytes: int
    lost_tokens: int = 0


def check_fits(name: str, header: StreamHeader, codec: Codec) -> None:
    """Raises SettingsError if ``codec`` is not what the file ``name`` was made with."""
    if header.codec != codec.name:
        raise SettingsError(f"{name} is made with the codec {header.codec!r}, not {codec.name!r}.")
    if header.digest != codec.digest:
        raise SettingsError(
            f"{name} is made with the weights {header.weights!r} ({header.digest[:12]}…) and this "
            f"program has {codec.weights!r} ({codec.digest[:12]}…); use the version that made it, "
            "or name its weights file with --weights."
        )


def encode_file(
    path: Path,
    out: Path,
    codec: Codec,
    *,
    seed: int = 0,
    progress: Progress = lambda done_s, total_s: None,
) -> Converted:
    """Encode an audio file of any kind to ``out``, which is there whole or not at all.

    Args:
        seed: of the decoders' noise.

    Raises:
        UserError: why that fails.
    """
    from codec.stream import StreamEncoder

    encoder = StreamEncoder(codec)
    muc = MucEncoder(StreamHeader(codec.name, codec.weights, codec.digest, seed))
    total_s = _duration_s(path)
    samples, title = 0, ""
    with FileSource(path) as source, written_whole(out) as part, part.open("wb") as file:
        while (block := source.read(_BLOCK_SAMPLES)).shape[1]:
            if source.title != title:
                title = source.title
                file.write(muc.title(title))
            samples += block.shape[1]
            file.write(muc.tokens(encoder.push(sanitise(block))))
            progress(samples / SAMPLE_RATE, total_s)
        file.write(muc.tokens(encoder.finish()))
        file.write(muc.finish(samples))
        size = file.tell()
    return Converted(samples, size)


def decode_file(
    path: Path,
    out: Path,
    load: Callable[[str], Codec],
    *,
    seed: int | None = None,
    settings: Callable[[], DecodeSettings] | None = None,
    force: bool = False,
    progress: Progress = lambda done_s, total_s: None,
) -> Converted:
    """Decode a ``.muc`` file to an audio file, whose suffix says of which kind.

    What is missing in a damaged file is replaced, as a listener does, so that everything stays in
    its place; what is cut off at the end is not.

    Args:
        load: gives a codec by the name in the file.
        seed: instead of the file's.
        settings: of the sampler.
        force: also if most of it is missing.

    Raises:
        UserError: why that fails.
        CodecError: the file's codec cannot be loaded.
    """
    reader = MucReader(path)
    info = reader.describe()
    if not force:
        info.check_silence(reader.name)
    codec = load(reader.header.codec)
    check_fits(reader.name, reader.header, codec)
    left = info.samples
    with written_whole(out) as part:
        sink = FileSink(part, overwrite=True)
        try:
            sink.write(np.zeros((CHANNELS, 0), np.float32))  # a file without music is one as well
            for block in _sound(reader, codec, seed, settings() if settings else None):
                sink.write(block[:, :left])
                left -= min(left, block.shape[1])
                progress((info.samples - left) / SAMPLE_RATE, info.seconds)
        finally:
            sink.close()
    return Converted(info.samples, info.file_bytes, info.lost_tokens)


def _sound(
    reader: MucReader, codec: Codec, seed: int | None, settings: DecodeSettings | None
) -> Iterator[NDArray[np.float32]]:
    """Sound of all that can be read, float32 ``[2, n]`` at a time."""
    from codec.stream import StreamDecoder

    header = reader.header
    begin, unit = header.music_from, codec.latent_tokens
    start = -(-begin // unit) * unit
    if start > begin:  # the decoder begins at a whole latent frame
        yield np.zeros((CHANNELS, (start - begin) * SAMPLES_PER_TOKEN), np.float32)
    decoder = StreamDecoder(
        codec,
        seed=header.seed if seed is None else seed,
        first_token=header.first_token,
        start_token=start,
        settings=settings,
    )
    concealment = Concealment(start * SAMPLES_PER_TOKEN)

    def ready() -> Iterator[NDArray[np.float32]]:
        for block in decoder:
            concealment.shape(block)
            yield block

    for item in reader.items(context=True):
        if not isinstance(item, Title):
            for tokens in concealment.pieces(item):
                decoder.feed(tokens)
                yield from ready()
    decoder.finish()
    yield from ready()


def _duration_s(path: Path) -> float | None:
    """Seconds of an audio file, if libsndfile knows them; of a pipe nobody does."""
    try:
        seconds = float(soundfile.info(str(path)).duration) if path.is_file() else 0.0
    except (soundfile.SoundFileError, OSError, ValueError, TypeError):
        return None
    return seconds if 0 < seconds < _MOST_S else None
