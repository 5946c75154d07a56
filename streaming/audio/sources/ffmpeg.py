"""Whatever ffmpeg decodes, through a pipe from its process."""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import re
import select
import shutil
import struct
import subprocess
import threading
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from codec.constants import CHANNELS
from streaming.audio.sources.channels import to_stereo
from streaming.audio.sources.readers import (
    ENDS_EARLY,
    Feed,
    Reader,
    check_rate,
    quoted,
    tagged_title,
)
from streaming.errors import SourceError
from streaming.support.status_line import printable

__all__ = ["FfmpegReader", "ffmpeg_program"]

logger = logging.getLogger(__name__)

_AU_HEADER: Final = struct.Struct(">4sIIIII")  # magic, offset, size, encoding, rate, channels
_BUFFER_BYTES: Final = 1 << 16
_HURT: Final = "it is corrupt or ends early"
_PIPE_BYTES: Final = 1 << 12
"""By how much a stream, and a title in it, runs ahead of its sound: what the pipe holds."""
_POLL_S: Final = 0.1
_EXIT_TIMEOUT_S: Final = 5.0
# A media file may name other files or addresses to read from; only plain files are followed, and
# from an address only other addresses.
_FILE_PROTOCOLS: Final = "file,pipe,fd"
_WEB_PROTOCOLS: Final = "http,https,httpproxy,tcp,tls,crypto,data"
_TAG: Final = re.compile(r"^(Title|Artist|Album|Track|Genre)=", re.MULTILINE)
# Remarks below an error's level that mean a loss; all others are about what has been put right.
_CUT: Final = ("filesize and duration do not match", "File ended prematurely")


def ffmpeg_program() -> str | None:
    """The path of ffmpeg, or None if it is not installed."""
    return shutil.which("ffmpeg")


class FfmpegReader(Reader):
    """Decodes a file, an address or a stream of bytes with ffmpeg.

    The samples come through a pipe as an AU stream, whose header is short, knows no largest
    length and has room for title and artist; rate and channels stay those of the input. A damaged
    frame is left out, and what follows it is played.

    Args:
        source: a path, an address, or what gives the bytes of a stream, asked by a thread of its
            own until it ends or nobody wants more.
        name: the title if there are no tags.
        stopped: gives up waiting for ffmpeg to find audio in a slow input.
        options: of ffmpeg's for this input.
        shown: what it is, for a message, if the source does not say.

    Raises:
        SourceError: ffmpeg is not there, does not start, or finds no audio (until `stopped`).
    """

    def __init__(
        self,
        source: Path | str | Feed,
        name: str,
        stopped: threading.Event,
        options: tuple[str, ...] = (),
        shown: str = "",
    ) -> None:
        program = ffmpeg_program()
        if program is None:
            raise SourceError("ffmpeg is not installed.")
        protocols, target = _FILE_PROTOCOLS, "pipe:0"
        if isinstance(source, Path):
            target = f"file:{source.resolve()}"
        elif isinstance(source, str):
            protocols, target = _WEB_PROTOCOLS, source
        if not callable(source):
            shown = quoted(source)
        command = [program, "-nostdin", "-hide_banner", "-v", "level+warning"]
        command += ["-protocol_whitelist", protocols, *options, "-i", target]
        command += ["-map", "0:a:0", "-map_metadata", "0", "-map_metadata", "0:s:a:0"]
        command += ["-f", "au", "-c:a", "pcm_f32be"]
        command += ["-flush_packets", "1", "pipe:1"]  # or a live input comes in lumps
        try:
            # A session of its own keeps Ctrl-C for us: we end the process ourselves.
            self._process = subprocess.Popen(
                command,
                bufsize=_BUFFER_BYTES,
                stdin=subprocess.PIPE if callable(source) else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise SourceError(f"ffmpeg does not start: {error.strerror}.") from error
        assert isinstance(self._process.stdout, io.BufferedReader)
        self._stdout = self._process.stdout
        self._rest = b""
        self._problem: str | None = None
        self._listening = threading.Thread(target=self._listen, name="ffmpeg", daemon=True)
        self._listening.start()
        if callable(source):
            threading.Thread(target=self._pump, args=(source,), name="pump", daemon=True).start()
        try:
            while not select.select([self._stdout], [], [], _POLL_S)[0]:
                if stopped.is_set():
                    raise SourceError("Stopped before ffmpeg found audio.")
            header = self._stdout.read(_AU_HEADER.size)
            if len(header) < _AU_HEADER.size:
                raise SourceError(f"{shown} is not audio that can be decoded.")
            _, start, _, _, rate, self._channels = _AU_HEADER.unpack(header)
            check_rate(rate, shown)
            tags = self._stdout.read(start - _AU_HEADER.size)
            super().__init__(rate, _title(tags, name))
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
        self.damage = self.damage or self._explain()
        return np.zeros((CHANNELS, 0), np.float32)

    def _explain(self) -> str | None:
        """What ffmpeg has said of damage, or its exit status says."""
        try:
            status = self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return None
        self._listening.join(_EXIT_TIMEOUT_S)
        return self._problem or (_HURT if status else None)

    def _listen(self) -> None:
        """Hear all that ffmpeg has to say, however much, and keep what matters."""
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            for line in stderr:
                text = printable(line.decode("utf-8", "replace"))
                logger.debug("ffmpeg: %s", text)
                if "[error]" in text or "[fatal]" in text:
                    self._problem = _HURT
                elif any(words in text for words in _CUT):
                    self._problem = self._problem or ENDS_EARLY

    def _pump(self, feed: Feed) -> None:
        """Hand a stream of bytes over to ffmpeg."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError), self._process.stdin as stdin:
            if hasattr(fcntl, "F_SETPIPE_SZ"):
                fcntl.fcntl(stdin, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            while data := feed():
                stdin.write(data)
                stdin.flush()

    def interrupt(self) -> None:
        """Kill ffmpeg, so that a read that waits for it ends."""
        self._process.kill()

    def close(self) -> None:
        """Kill ffmpeg if it still runs, and wait for its end."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._stdout.close()


def _title(annotation: bytes, name: str) -> str:
    """The title from an AU file's annotation, lines of key and value, else `name`."""
    text = annotation.rstrip(b"\0").decode("utf-8", "replace")
    _, *found = _TAG.split(text)
    tags = dict(zip(found[::2], found[1::2], strict=True))
    return tagged_title(tags.get("Title", ""), tags.get("Artist", ""), name)
