"""Where sound comes from: files and playlists, standard input, a sound card's input.

Every source yields 48 kHz stereo float32 blocks, sane and within ±1, at whatever speed it
can; keeping real time is the sender's work (see `streaming.send.pacing`).
"""

from streaming.audio.sources.base import Source
from streaming.audio.sources.capture import CaptureSource
from streaming.audio.sources.playlist import FileSource, Playlist
from streaming.audio.sources.stdin import RawFormat, StdinSource

__all__ = ["CaptureSource", "FileSource", "Playlist", "RawFormat", "Source", "StdinSource"]
