"""Where sound goes: a sound card, a file, a pipe."""

from streaming.sinks.base import Sink
from streaming.sinks.file import FileSink
from streaming.sinks.raw import RawSink
from streaming.sinks.soundcard import SoundCardSink

__all__ = ["FileSink", "RawSink", "Sink", "SoundCardSink"]
