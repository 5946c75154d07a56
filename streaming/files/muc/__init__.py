"""``.muc``: a stream of tokens in a file (docs/format.md). Needs no torch and no model."""

from streaming.files.muc.files import MUC_SUFFIX, muc_files
from streaming.files.muc.messages import Clock, Finish, StreamHeader
from streaming.files.muc.reader import Item, MucInfo, MucReader
from streaming.files.muc.writer import MucEncoder, MucMuxer

__all__ = [
    "MUC_SUFFIX",
    "Clock",
    "Finish",
    "Item",
    "MucEncoder",
    "MucInfo",
    "MucMuxer",
    "MucReader",
    "StreamHeader",
    "muc_files",
]
