"""Links as people describe them: ``rate=600bit/s,delay=800ms,jitter=200ms,loss=2%,outage=5s/60s``.

:data:`LINKS` has some by name, each with where its figures come from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

__all__ = ["LINKS", "LinkError", "LinkModel", "NamedLink", "parse_link"]


class LinkError(ValueError):
    """A description of a link that makes no sense; one sentence."""


@dataclass(frozen=True)
class LinkModel:
    """One link, the same both ways but for the rate back.

    rate_bits_per_s: of everything on it, headers too; infinite: no limit. back_bits_per_s: from the
    listener to the sender; None: the same. delay_s: of every packet. jitter_s: mean of what comes
    on top, exponentially distributed; packets keep their order. loss: share of packets lost, in
    bursts of ``burst_packets`` on average. outage_s: nothing passes for so long, once in
    ``outage_every_s``, first after half of that.
    """

    rate_bits_per_s: float = math.inf
    back_bits_per_s: float | None = None
    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    burst_packets: float = 1.0
    outage_s: float = 0.0
    outage_every_s: float = 60.0

    def __post_init__(self) -> None:
        back = self.rate_bits_per_s if self.back_bits_per_s is None else self.back_bits_per_s
        if not (self.rate_bits_per_s > 0 and back > 0):
            raise LinkError("The rate of a link is more than 0.")
        if not (self.delay_s >= 0 and self.jitter_s >= 0):
            raise LinkError("Delay and jitter of a link are not below 0.")
        if not 0 <= self.loss < 1 or not self.burst_packets >= 1:
            raise LinkError("A link loses from 0 to less than 100 %, in bursts of at least 1.")
        if not 0 <= self.outage_s < self.outage_every_s:
            raise LinkError("An outage is shorter than the time from one to the next.")

    def down(self, at_s: float) -> bool:
        """Whether nothing passes at this moment, counted from the link's beginning."""
        if not self.outage_s:
            return False
        return (at_s + self.outage_every_s / 2) % self.outage_every_s < self.outage_s

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it: no limit is None."""
        values = asdict(self)
        if math.isinf(self.rate_bits_per_s):
            values["rate_bits_per_s"] = None
        return values


@dataclass(frozen=True)
class NamedLink:
    """A link, what it stands for, and the source of its figures."""

    link: LinkModel
    what: str
    source: str


LINKS: Final = {
    "lora-sf12": NamedLink(
        LinkModel(293, delay_s=0.05, loss=0.02),
        "LoRa, spreading factor 12, 125 kHz, coding rate 4/5",
        "bit rate from Semtech's formula SF · 4/5 · BW / 2^SF (AN1200.22); without preambles and "
        "duty cycle; delay and loss are assumptions",
    ),
    "lora-sf10": NamedLink(
        LinkModel(977, delay_s=0.05, loss=0.02),
        "LoRa, spreading factor 10, 125 kHz, coding rate 4/5",
        "as lora-sf12",
    ),
    "lora-sf9": NamedLink(
        LinkModel(1758, delay_s=0.05, loss=0.02),
        "LoRa, spreading factor 9, 125 kHz, coding rate 4/5",
        "as lora-sf12",
    ),
    "lora-sf7": NamedLink(
        LinkModel(5469, delay_s=0.05, loss=0.02),
        "LoRa, spreading factor 7, 125 kHz, coding rate 4/5",
        "as lora-sf12",
    ),
    "hf-600": NamedLink(
        LinkModel(600, delay_s=4.8, jitter_s=0.1, loss=0.01),
        "HF modem, serial tone at 600 bit/s with the long interleaver",
        "rates and the long interleaver's 4.8 s: MIL-STD-188-110B; loss is an assumption",
    ),
    "hf-2400": NamedLink(
        LinkModel(2400, delay_s=0.6, jitter_s=0.1, loss=0.02),
        "HF modem, serial tone at 2400 bit/s with the short interleaver",
        "rates and the short interleaver's 0.6 s: MIL-STD-188-110B; loss is an assumption",
    ),
    "iridium": NamedLink(
        LinkModel(2400, delay_s=0.9, jitter_s=0.2, outage_s=10, outage_every_s=600),
        "Iridium, dialled data",
        "2400 bit/s: Iridium Satellite Data Services White Paper (2003); round trips of 1.8 s and "
        "more: M. McMahon and R. Rathburn, Measuring Latency in Iridium Satellite Constellation "
        "Data Services (2005); an outage at a hand-over every ten minutes is an assumption",
    ),
    "gsm-csd": NamedLink(
        LinkModel(9600, delay_s=0.3, jitter_s=0.05),
        "GSM, circuit-switched data",
        "9600 bit/s: 3GPP TS 22.002; half of round trips of 0.6 s, a usual figure",
    ),
    "2g": NamedLink(
        LinkModel(50_000, 20_000, delay_s=0.25, jitter_s=0.1, loss=0.01, burst_packets=2),
        "GPRS",
        "50 and 20 kbit/s, 500 ms there and back: the preset GPRS of browsers' developer tools; "
        "jitter and loss are assumptions",
    ),
    "bad-wifi": NamedLink(
        LinkModel(
            1_000_000,
            delay_s=0.005,
            jitter_s=0.08,
            loss=0.05,
            burst_packets=4,
            outage_s=3,
            outage_every_s=90,
        ),
        "Wi-Fi at the edge of its reach",
        "an assumption: what is left after the radio's own repetitions is lost in bursts",
    ),
    "geo": NamedLink(
        LinkModel(64_000, delay_s=0.27, jitter_s=0.01, loss=0.001),
        "geostationary satellite",
        "35,786 km up and down take 0.24 s, and a terminal some more: ITU-T G.114 plans with 0.26 "
        "s; rate and loss are assumptions",
    ),
}
"""Links by name."""

_TIME_UNITS: Final = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_RATE_UNITS: Final = {"bit/s": 1.0, "kbit/s": 1e3, "Mbit/s": 1e6}
_NUMBER: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(\S*)")


def _quantity(units: dict[str, float], usual: str) -> Callable[[str], float]:
    def parse(text: str) -> float:
        match = _NUMBER.fullmatch(text.strip())
        unit = match[2] or usual if match else ""
        if match is None or unit not in units:
            raise LinkError(f"{text!r} is no number with one of the units {', '.join(units)}.")
        return float(match[1]) * units[unit]

    return parse


_seconds = _quantity(_TIME_UNITS, "s")
_rate = _quantity(_RATE_UNITS, "bit/s")
_share = _quantity({"%": 0.01, "": 1.0}, "")
_count = _quantity({"": 1.0}, "")
_FIELDS: Final[dict[str, tuple[str, Callable[[str], float]]]] = {
    "rate": ("rate_bits_per_s", _rate),
    "back": ("back_bits_per_s", _rate),
    "delay": ("delay_s", _seconds),
    "jitter": ("jitter_s", _seconds),
    "loss": ("loss", _share),
    "burst": ("burst_packets", _count),
}


def parse_link(text: str) -> LinkModel:
    """A link from its name, its description, or a name and what differs (``geo,loss=2%``).

    Keys: rate, back, delay, jitter, loss, burst, outage (how long/how often). Raises LinkError.
    """
    link = LinkModel()
    for number, part in enumerate(filter(None, (part.strip() for part in text.split(",")))):
        key, equals, value = part.partition("=")
        if not equals:
            if number or key not in LINKS:
                raise LinkError(
                    f"There is no link {part!r}; name one of {', '.join(LINKS)}, or describe it: "
                    "rate=600bit/s,delay=800ms,jitter=200ms,loss=2%,outage=5s/60s."
                )
            link = LINKS[key].link
        elif key == "outage":
            long, slash, often = value.partition("/")
            if not slash:
                raise LinkError(f"{part!r} does not say how often; write outage=5s/60s.")
            link = replace(link, outage_s=_seconds(long), outage_every_s=_seconds(often))
        elif key in _FIELDS:
            name, parse = _FIELDS[key]
            link = replace(link, **{name: parse(value)})
        else:
            known = ", ".join([*_FIELDS, "outage"])
            raise LinkError(f"A link has no {key!r}; its figures are {known}.")
    return link
