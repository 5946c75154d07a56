"""How a sender runs: presets, settings, and what packets and windows these come to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from streaming.errors import SettingsError
from streaming.stream.hub import MAX_LAG_S

if TYPE_CHECKING:
    from codec.base import Codec, EncoderWindow

__all__ = ["DEFAULT_REWIND_S", "PRESETS", "Preset", "ServiceSettings", "packets"]

DEFAULT_REWIND_S: Final = 86_400.0


@dataclass(frozen=True)
class Preset:
    """``encoder_hop`` in tokens; None leaves the encoder's window as the codec has it."""

    packet_tokens: int
    encoder_hop: int | None = None


PRESETS: Final = {
    "default": Preset(packet_tokens=48),
    "low-latency": Preset(packet_tokens=8, encoder_hop=8),
}


@dataclass(frozen=True)
class ServiceSettings:
    """How to send.

    Attributes:
        packet_tokens, hop: override the preset's, in tokens; each follows from the other if one
            alone is given.
        lookahead: overrides the codec's, in tokens.
        seed: None takes the store's, or 0.
        rewind_s: how much of the stream is held for those who come back or listen to the past.
        store: folder in which it survives the end of the program.
        max_lag_s: who is further behind is dropped.
        entropy_coding: packets in fewer bits for listeners that take them so.
    """

    preset: Preset = PRESETS["default"]
    packet_tokens: int | None = None
    seed: int | None = None
    rewind_s: float = DEFAULT_REWIND_S
    store: Path | None = None
    max_lag_s: float = MAX_LAG_S
    hop: int | None = None
    lookahead: int | None = None
    entropy_coding: bool = False


def packets(settings: ServiceSettings, codec: Codec) -> tuple[int, EncoderWindow]:
    """Tokens of a packet, and the encoder window: a packet is a whole number of hops.

    Otherwise packets would leave unevenly, in bursts where a hop is the longer one, and a listener
    that counts on their interval would run dry. Raises SettingsError.
    """
    window, preset = codec.encoder_window, settings.preset
    if settings.lookahead is not None:
        window = replace(window, lookahead=settings.lookahead)
    packet, hop = settings.packet_tokens, settings.hop
    usual = preset.encoder_hop or window.hop
    if packet is None:
        hop = hop or usual
        packet = -(-preset.packet_tokens // hop) * hop
    elif hop is None:
        around = window.left + window.lookahead
        longest = max(1, (codec.longest_window_tokens or packet + around) - around)
        hops = [n for n in range(1, packet + 1) if packet % n == 0 and n <= longest]
        # Short hops are dear, since every window hears much that is not its own.
        hop = min(hops, key=lambda n: max(n / usual, (usual / n) ** 2))
    elif packet % hop:
        raise SettingsError(
            f"A packet of {packet} tokens is no whole number of hops of {hop}; leave out --hop or "
            f"--packet-tokens, or make it {-(-packet // hop) * hop} tokens."
        )
    return packet, replace(window, hop=hop)
