"""A bad link, simulated: losses in bursts, uneven delays; seeded and without waiting.

For tests and for listening to what a link does to the music: time is a number that is handed in.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from streaming.errors import SettingsError
from streaming.wire.messages import Tokens

__all__ = ["GilbertElliott", "LossyLink"]


class GilbertElliott:
    """Losses as on a real link: a good state without any, a bad one in which everything is lost.

    (E. N. Gilbert, 1960, with no loss in the good state; E. O. Elliott, 1963.)

    Args:
        loss: share of packets that are lost in the long run, 0 up to but not including 1.
        burst_packets: how many are lost in a row on average, 1 or more.
        seed: same seed, same losses.

    Raises SettingsError if no such link exists.
    """

    def __init__(self, loss: float, burst_packets: float, seed: int = 0) -> None:
        if not 0.0 <= loss < 1.0 or burst_packets < 1.0:
            raise SettingsError(
                f"No link loses a share of {loss:g} in bursts of {burst_packets:g} packets."
            )
        self._leave_bad = 1.0 / burst_packets
        self._leave_good = min(1.0, loss * self._leave_bad / (1.0 - loss))
        self._chance = random.Random(seed)
        self._bad = False

    def lost(self) -> bool:
        """Whether the next packet is lost."""
        leave = self._leave_bad if self._bad else self._leave_good
        if self._chance.random() < leave:
            self._bad = not self._bad
        return self._bad


@dataclass(frozen=True)
class LossyLink:
    """A link with losses and jitter on which packets keep their order.

    delay_s: of every packet, at least. jitter_s: mean of what comes on top, exponentially
    distributed. loss, burst_packets: see :class:`GilbertElliott`.
    """

    delay_s: float = 0.05
    jitter_s: float = 0.0
    loss: float = 0.0
    burst_packets: float = 2.0
    seed: int = 0

    def deliver(self, sent: Iterable[tuple[float, Tokens]]) -> Iterator[tuple[float, Tokens]]:
        """Of packets with the times at which they are sent, those that arrive, and when."""
        losses = GilbertElliott(self.loss, self.burst_packets, self.seed)
        chance = random.Random(self.seed + 1)
        latest_s = float("-inf")
        for sent_s, packet in sent:
            extra_s = chance.expovariate(1.0 / self.jitter_s) if self.jitter_s else 0.0
            if losses.lost():
                continue
            latest_s = max(latest_s, sent_s + self.delay_s + extra_s)
            yield latest_s, packet
