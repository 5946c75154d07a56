"""Every exception that `streaming` raises on purpose, in one tree.

StreamingError
├── UserError            one clear sentence for whoever runs the program; exit code 2
│   ├── SourceError
│   │   └── FormatVersionError  a file of a version that this program does not read
│   ├── SinkError
│   ├── DeviceError
│   ├── ProtocolError
│   │   └── RefusedError  the far end told us why it closes the connection
│   ├── TransportError
│   └── SettingsError
└── SinkClosed           the reader of a pipe has gone: an end, not a fault
"""

import os

__all__ = [
    "DeviceError",
    "FormatVersionError",
    "ProtocolError",
    "RefusedError",
    "SettingsError",
    "SinkClosed",
    "SinkError",
    "SourceError",
    "StreamingError",
    "TransportError",
    "UserError",
    "reason_of",
]


class StreamingError(Exception):
    """Anything that `streaming` raises on purpose."""


class UserError(StreamingError):
    """Says in one sentence what is wrong and what to do; the programs print it and exit with 2.

    Args:
        message: what is wrong; the whole sentence if there is no ``advice``.
        advice: what to do about it, for who does not try again by itself.
    """

    def __init__(self, message: str = "", advice: str = "") -> None:
        super().__init__(f"{message}; {advice}." if advice else message)
        self.message = message
        self.advice = advice

    @property
    def cause(self) -> str:
        """What is wrong, as a clause: without the advice, for who tries again by itself."""
        return self.message[:1].lower() + self.message[1:].rstrip(".")


class SourceError(UserError):
    """A source cannot be opened, or nothing in it can be played."""


class FormatVersionError(SourceError):
    """A ``.muc`` file of another version of the format; the sentence lacks the file's name."""


class SinkError(UserError):
    """A sink cannot be opened, or no longer takes what it is given."""


class DeviceError(UserError):
    """A sound device, or the library that drives it, is missing or unusable."""


class ProtocolError(UserError):
    """The far end said something that the protocol does not allow or that we cannot decode."""


class RefusedError(ProtocolError):
    """The far end let us not in, or no longer, and said why; ``code`` is its word for programs.

    Args:
        by: who the far end is.
    """

    def __init__(self, code: str, message: str, by: str = "sender") -> None:
        super().__init__(f"The {by} closed the connection: {message}")
        self.code = code


class TransportError(UserError):
    """A connection cannot be made, was refused, or broke."""


class SettingsError(UserError):
    """An argument or a setting has no meaning; raised before anything is started."""


class SinkClosed(StreamingError):  # noqa: N818 (an end, not an error)
    """The reader of a pipe has gone, so the sink ends quietly."""


def reason_of(error: Exception) -> str:
    """What the system says is wrong, without number and file name."""
    from socket import gaierror  # here: programs begin with this module

    if isinstance(error, gaierror):  # its numbers are others
        return str(error.strerror)
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else str(error)
