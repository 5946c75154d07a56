"""Whatever ffmpeg decodes, through a pipe from its process."""

from __future__ import annotations

import io
import json
import logging
import select
import shutil
import struct
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from codec.constants import CHANNELS
from streaming.errors import SourceError
from streaming.sources.channels import to_stereo
from streaming.sources.readers import Reader, quoted, tagged_title
from streaming.status import printable

__all__ = ["FfmpegReader", "ffmpeg_program"]

logger = logging.getLogger(__name__)

_AU_HEADER: Final = struct.Struct(">4sIIIII")  # magic, offset, size, encoding, rate, channels
_BUFFER_BYTES: Final = 1 << 16
_POLL_S: Final = 0.1
_PROBE_TIMEOUT_S: Final = 10.0
_EXIT_TIMEOUT_S: Final = 5.0
# A media file may name other files or addresses to read from; only plain files are followed.
_PROTOCOLS: Final = ("-protocol_whitelist", "file,pipe,fd")


def ffmpeg_program() -> str | None:
    """The path of ffmpeg, or None where it is not installed."""
    return shutil.which("ffmpeg")


class FfmpegReader(Reader):
    """Decodes a file, or what comes in on a descriptor, with ffmpeg.

    The samples come through a pipe as an AU stream, whose header is short and knows no
    largest length; rate and channels stay those of the input.

    Args:
        file: a path, or a descriptor that ffmpeg reads from (it is not closed).
        name: the title if the file has no tags.
        stopped: gives up waiting for ffmpeg to find audio in a slow input.

    Raises:
        SourceError: ffmpeg is not there, does not start, or finds no audio (until `stopped`).
    """

    def __init__(self, file: Path | int, name: str, stopped: threading.Event | None = None) -> None:
        program = ffmpeg_program()
        if program is None:
            raise SourceError("ffmpeg is not installed.")
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the reader)
        target = f"file:{file.resolve()}" if isinstance(file, Path) else "pipe:0"
        command = [program, "-v", "error", "-nostdin", *_PROTOCOLS, "-i", target]
        command += ["-map", "0:a:0", "-f", "au", "-c:a", "pcm_f32be"]
        command += ["-flush_packets", "1", "pipe:1"]  # or a live input comes in lumps
        try:
            # A session of its own keeps Ctrl-C for us: we end the process ourselves.
            self._process = subprocess.Popen(
                command,
                bufsize=_BUFFER_BYTES,
                stdin=file if isinstance(file, int) else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._messages,
                start_new_session=True,
            )
        except OSError as error:
            self._messages.close()
            raise SourceError(f"ffmpeg does not start: {error.strerror}.") from error
        assert isinstance(self._process.stdout, io.BufferedReader)
        self._stdout = self._process.stdout
        self._rest = b""
        try:
            while stopped and not select.select([self._stdout], [], [], _POLL_S)[0]:
                if stopped.is_set():
                    raise SourceError("Stopped before ffmpeg found audio.")
            header = self._stdout.read(_AU_HEADER.size)
            if len(header) < _AU_HEADER.size:
                logger.debug("ffmpeg: %s", self._last_message())
                shown = quoted(file) if isinstance(file, Path) else name.capitalize()
                raise SourceError(f"{shown} is not audio that can be decoded.")
            _, start, _, _, rate, self._channels = _AU_HEADER.unpack(header)
            self._stdout.read(start - _AU_HEADER.size)
            title = _probe_title(file, name) if isinstance(file, Path) else name
            super().__init__(rate, title)
        except BaseException:
            self.close()
            raise

    def _read(self, frames: int) -> NDArray[np.float32]:
        frame_bytes = 4 * self._channels
        while not self._stdout.closed:
            data = self._stdout.read1(frames * frame_bytes - len(self._rest))
            if not data:
                break
            data = self._rest + data
            whole = len(data) - len(data) % frame_bytes
            self._rest = data[whole:]
            if whole:
                samples = np.frombuffer(data[:whole], ">f4").astype(np.float32)
                return to_stereo(samples.reshape(-1, self._channels))
        self._explain()
        return np.zeros((CHANNELS, 0), np.float32)

    def _explain(self) -> None:
        """Set `damage` from ffmpeg's exit status and its last message."""
        if self._messages.closed:
            return
        try:
            status = self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return
        message = self._last_message()
        if message or status:
            self.damage = "it is corrupt or ends early"
            logger.debug("ffmpeg: %s", message)

    def _last_message(self) -> str:
        self._messages.seek(0)
        lines = self._messages.read(_BUFFER_BYTES).decode("utf-8", "replace").splitlines()
        return printable(lines[-1]) if lines else ""

    def interrupt(self) -> None:
        self._process.kill()

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._stdout.close()
        self._messages.close()


def _probe_title(path: Path, name: str) -> str:
    """The title from the tags that ffprobe finds, else `name`."""
    program = shutil.which("ffprobe")
    if program is None:
        return tagged_title("", "", name)
    command = [program, "-v", "quiet", *_PROTOCOLS, "-of", "json"]
    command += ["-show_entries", "format_tags=title,artist", f"file:{path.resolve()}"]
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_TIMEOUT_S
        )
        tags = json.loads(result.stdout)["format"]["tags"]
        found = {str(key).lower(): str(value) for key, value in tags.items()}
    except (OSError, subprocess.TimeoutExpired, ValueError, LookupError, AttributeError, TypeError):
        found = {}
    return tagged_title(found.get("title", ""), found.get("artist", ""), name)
