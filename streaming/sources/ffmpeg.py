"""Whatever ffmpeg decodes, through a pipe from its process."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from codec.constants import CHANNELS, SAMPLE_RATE
from streaming.errors import SourceError
from streaming.sources.channels import to_stereo
from streaming.sources.readers import Reader, tagged_title
from streaming.status import printable

__all__ = ["FfmpegReader", "ffmpeg_program"]

logger = logging.getLogger(__name__)

_FRAME_BYTES: Final = 4 * CHANNELS
_PROBE_TIMEOUT_S: Final = 10.0
_EXIT_TIMEOUT_S: Final = 5.0
# A media file may name other files or addresses to read from; only plain files are followed.
_PROTOCOLS: Final = ("-protocol_whitelist", "file,pipe,fd")


def ffmpeg_program() -> str | None:
    """The path of ffmpeg, or None where it is not installed."""
    return shutil.which("ffmpeg")


class FfmpegReader(Reader):
    """Decodes a file, or what comes in on a descriptor, to 48 kHz stereo with ffmpeg.

    Whether the input is audio shows only when it is read: `damage` then has ffmpeg's reason.

    Args:
        file: a path, or a descriptor that ffmpeg reads from (it is not closed).
        name: the title if the file has no tags.

    Raises:
        SourceError: ffmpeg is not there or does not start.
    """

    def __init__(self, file: Path | int, name: str) -> None:
        program = ffmpeg_program()
        if program is None:
            raise SourceError("ffmpeg is not installed.")
        title = _probe_title(file, name) if isinstance(file, Path) else name
        super().__init__(SAMPLE_RATE, title)
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the reader)
        self._rest = b""
        target = f"file:{file.resolve()}" if isinstance(file, Path) else "pipe:0"
        command = [program, "-v", "error", "-nostdin", *_PROTOCOLS, "-i", target]
        command += ["-map", "0:a:0", "-ac", str(CHANNELS), "-ar", str(SAMPLE_RATE)]
        command += ["-f", "f32le", "pipe:1"]
        try:
            # A session of its own keeps Ctrl-C for us: we end the process ourselves.
            self._process = subprocess.Popen(
                command,
                stdin=file if isinstance(file, int) else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._messages,
                start_new_session=True,
            )
        except OSError as error:
            self._messages.close()
            raise SourceError(f"ffmpeg does not start: {error.strerror}.") from error

    def _read(self, frames: int) -> NDArray[np.float32]:
        stdout = self._process.stdout
        assert stdout is not None
        while not stdout.closed:
            data = stdout.read1(frames * _FRAME_BYTES - len(self._rest))  # type: ignore[attr-defined]
            if not data:
                break
            data = self._rest + data
            whole = len(data) - len(data) % _FRAME_BYTES
            self._rest = data[whole:]
            if whole:
                samples = np.frombuffer(data[:whole], "<f4").astype(np.float32)
                return to_stereo(samples.reshape(-1, CHANNELS))
        self._explain()
        return np.zeros((CHANNELS, 0), np.float32)

    def _explain(self) -> None:
        """Set `damage` from ffmpeg's exit status and its last message."""
        if self.damage is not None or self._messages.closed:
            return
        try:
            status = self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            status = None
        self._messages.seek(0)
        lines = self._messages.read(1 << 16).decode("utf-8", "replace").splitlines()
        if self.frames_read and (lines or status):
            self.damage = "it is corrupt or ends early"
        elif status:
            self.damage = "it is not audio that can be decoded"
        if lines:
            logger.debug("ffmpeg: %s", printable(lines[-1]))

    def interrupt(self) -> None:
        self._process.kill()

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
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
