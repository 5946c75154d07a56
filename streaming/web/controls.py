"""What the listener's page asks of the listener, in the listener's words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from streaming.audio.sinks import SoundCardSink
from streaming.receive.listener import Listener
from streaming.stream.timeline import StartAt

__all__ = ["ListenerControls"]

_SHOWN: Final = (
    "buffer_s",
    "latency_s",
    "underruns",
    "lost_tokens",
    "reconnects",
    "payload_bits_per_s",
    "wire_bits_per_s",
    "decode_rtf",
    "speed",
    "clock_s",
    "position_s",
    "title",
)


class ListenerControls:
    """Fulfils :class:`streaming.web.console.Controls` for a listener.

    Args:
        card: the sound card whose volume is set, if there is one.
    """

    def __init__(
        self,
        listener: Listener,
        card: SoundCardSink | None = None,
    ) -> None:
        self._listener = listener
        self._card = card
        self._volume = 1.0 if card is None else min(1.0, card.volume)

    @property
    def volume(self) -> float:
        """Factor on the sound, of the sound card and in the browser alike."""
        return self._volume

    @volume.setter
    def volume(self, volume: float) -> None:
        self._volume = volume
        if self._card is not None:
            self._card.volume = volume

    def figures(self) -> Mapping[str, Any]:
        """A choice of the statistics, numbers kept short, and how the connection stands."""
        listener = self._listener
        figures = listener.figures()
        return {
            **{name: _short(figures[name]) for name in _SHOWN},
            "connected": listener.connected,
            "can_move": listener.can_move,
            "plays": self._card is not None,
            "ended": listener.end_reason,
        }

    def seek(self, seconds: float) -> None:
        """Go back (negative) or forward from what is heard now; beyond the live edge: live."""
        self._listener.seek(seconds)

    def go_live(self) -> None:
        """Go to the live edge."""
        self._listener.go_to(StartAt())


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None
    return value
