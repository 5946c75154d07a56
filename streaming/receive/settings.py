"""What a listener may choose."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from streaming.receive.decoding import DecodeOptions
from streaming.stream.timeline import StartAt
from streaming.transports.reconnecting import Backoff

__all__ = ["PRESETS", "CatchUp", "ListenerSettings", "Preset"]


class CatchUp(Enum):
    """What to do when an outage or a late packet has left the sound further behind than need be."""

    SPEED = "speed"
    """Play a little faster until it is where it was."""
    JUMP = "jump"
    """Leave out what was missed and go on live."""
    NONE = "none"
    """Stay behind: everything is heard, at its own pace."""


@dataclass(frozen=True)
class ListenerSettings:
    """What a listener may choose.

    Attributes:
        margin_s: sound that should still be there when the next packet comes.
        most_margin_s: how much of that the listener may want by itself, if packets come unevenly.
        history_tokens: how much of what went before to ask for on joining.
        limit_samples: end after so many; None: never.
        client: name told to the sender.
        auth_token: the secret that lets us in.
        start: where in the stream to begin.
        catch_up: what to do about sound that is heard later than it could be, after an outage.
        backoff: how to come back after one.
        wait: for a sender that is not there yet, as for one that has gone.
        hello_timeout_s: time for the sender's first message.
        decode: how to decode.
    """

    margin_s: float = 0.5
    most_margin_s: float = 8.0
    history_tokens: int = 256
    limit_samples: int | None = None
    client: str = ""
    auth_token: str = field(default="", repr=False)
    start: StartAt = field(default_factory=StartAt)
    catch_up: CatchUp = CatchUp.SPEED
    backoff: Backoff = field(default_factory=Backoff)
    wait: bool = False
    hello_timeout_s: float = 20.0
    decode: DecodeOptions = field(default_factory=DecodeOptions)


@dataclass(frozen=True)
class Preset:
    """What ``--preset`` stands for.

    Attributes:
        margin_s: see :class:`ListenerSettings`.
        hop: of decoder windows, in tokens; None: the codec's own.
        prefill_s: sound in the sound card's ring before it begins to play.
        device_latency_s: what the device is asked for.
    """

    margin_s: float
    hop: int | None
    prefill_s: float
    device_latency_s: float


PRESETS: Final = {
    "default": Preset(margin_s=0.5, hop=None, prefill_s=0.1, device_latency_s=0.1),
    "low-latency": Preset(margin_s=0.2, hop=8, prefill_s=0.02, device_latency_s=0.04),
}
