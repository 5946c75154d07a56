"""Where sound goes: a sound card, a file, a pipe."""

from streaming.audio.sinks.base import Sink
from streaming.audio.sinks.file import FileSink
from streaming.audio.sinks.raw import RawSink
from streaming.audio.sinks.soundcard import SoundCardSink

__all__ = ["FileSink", "RawSink", "Sink", "SoundCardSink"]
