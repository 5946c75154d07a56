"""What can be varied: one :class:`Setting` is what sender and listener are told, in seconds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final

from codec.constants import TOKEN_RATE
from streaming.receive.settings import CatchUp, ListenerSettings

if TYPE_CHECKING:
    from codec.base import Codec, DecoderWindow, EncoderWindow

__all__ = ["SWEEPABLE", "Setting", "SettingError", "expand", "parse_sweep", "tokens"]


class SettingError(ValueError):
    """A setting that makes no sense; one sentence."""


@dataclass(frozen=True)
class Setting:
    """One way to run sender and listener; None: as codec and preset have it.

    preset: whose packets and margins are the beginning. hop, lookahead: of encoder and decoder
    windows both; those of one of them override it. context: of the decoder. packet: sound in a
    packet. margin, most_margin: sound in reserve, at least and at most. All of these in seconds,
    whole tokens of 40 ms but for the margins. steps, guidance, temperature: of the sampler.
    transport: websocket, or one-way udp or serial; fec: on these, such as 10/2. catch_up: after
    outages. timeout: to connect and to be answered.
    """

    codec: str = "nano"
    preset: str = "default"
    hop: float | None = None
    packet: float | None = None
    lookahead: float | None = None
    encoder_hop: float | None = None
    encoder_lookahead: float | None = None
    decoder_hop: float | None = None
    decoder_lookahead: float | None = None
    context: float | None = None
    steps: int | None = None
    guidance: float | None = None
    temperature: float | None = None
    margin: float | None = None
    most_margin: float = ListenerSettings.most_margin_s
    transport: str = "websocket"
    fec: str | None = None
    catch_up: str = CatchUp.SPEED.value
    timeout: float = ListenerSettings.hello_timeout_s

    @property
    def label(self) -> str:
        """What differs from the defaults, in a few words."""
        usual = Setting()
        parts = [
            f"{field.name.replace('_', '-')} {_show(getattr(self, field.name))}"
            for field in fields(self)
            if getattr(self, field.name) != getattr(usual, field.name)
        ]
        return ", ".join(parts) or "default"

    def encoder(self, codec: Codec) -> tuple[int, EncoderWindow]:
        """Tokens in a packet and the encoder's window, as the sender works them out.

        Raises SettingError, SettingsError or CodecError with a sentence.
        """
        from streaming.send.settings import PRESETS, ServiceSettings, packets

        first = _first(self.encoder_hop, self.hop)
        settings = ServiceSettings(
            preset=_named(PRESETS, self.preset),
            packet_tokens=tokens(self.packet),
            hop=tokens(first),
            lookahead=tokens(_first(self.encoder_lookahead, self.lookahead)),
        )
        packet_tokens, window = packets(settings, codec)
        codec.check_window(window)
        return packet_tokens, window

    def decoder(self, codec: Codec) -> DecoderWindow:
        """The decoder's window. Raises as :meth:`encoder` does."""
        low_latency = self.preset == "low-latency"
        hop = tokens(_first(self.decoder_hop, self.hop)) or (8 if low_latency else None)
        wanted = {
            "hop": hop,
            "lookahead": tokens(_first(self.decoder_lookahead, self.lookahead)),
            "context": tokens(self.context),
        }
        window = replace(codec.decoder_window, **{k: v for k, v in wanted.items() if v is not None})
        codec.check_window(window)
        return window

    @property
    def margin_s(self) -> float:
        """Sound that is still to be there when the next packet comes, at least."""
        if self.margin is not None:
            return self.margin
        return 0.2 if self.preset == "low-latency" else 0.5


def tokens(seconds: float | None) -> int | None:
    """Whole tokens; raises SettingError where ``seconds`` are no whole number of them."""
    if seconds is None:
        return None
    count = round(seconds * TOKEN_RATE)
    if abs(count / TOKEN_RATE - seconds) > 1e-6:
        raise SettingError(
            f"{seconds:g} s are no whole number of tokens; the next are {count / TOKEN_RATE:g} s."
        )
    return count


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _named(presets: Mapping[str, Any], name: str) -> Any:
    if name not in presets:
        raise SettingError(f"There is no preset {name!r}; choose one of {', '.join(presets)}.")
    return presets[name]


def _show(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(text: str) -> float:
    return float(text.strip().removesuffix("s"))


_PARSERS: Final[dict[str, Callable[[str], Any]]] = {
    "codec": str,
    "preset": str,
    "catch_up": str,
    "transport": str,
    "fec": str,
    "steps": int,
}
SWEEPABLE: Final = tuple(field.name.replace("_", "-") for field in fields(Setting))
"""Names that can be swept."""


def parse_sweep(text: str) -> tuple[str, list[Any]]:
    """``hop=0.32,0.64`` as a field of :class:`Setting` and its values. Raises SettingError."""
    name, equals, values = text.partition("=")
    field = name.strip().replace("-", "_")
    if not equals or field.replace("_", "-") not in SWEEPABLE:
        raise SettingError(
            f"{text!r} is no sweep; write NAME=VALUE,VALUE with one of {', '.join(SWEEPABLE)}."
        )
    parse = _PARSERS.get(field, _number)
    try:
        return field, [parse(value.strip()) for value in values.split(",")]
    except ValueError:
        raise SettingError(f"{values!r} are no values of {name}.") from None


def expand(sweeps: Mapping[str, Sequence[Any]], base: Setting | None = None) -> list[Setting]:
    """Every combination of the values, each Setting once."""
    base = base or Setting()
    unknown = [name for name in sweeps if name.replace("_", "-") not in SWEEPABLE]
    if unknown:
        raise SettingError(f"There is no setting {unknown[0]!r}; sweep {', '.join(SWEEPABLE)}.")
    combinations = itertools.product(*sweeps.values())
    made = (replace(base, **dict(zip(sweeps, values, strict=True))) for values in combinations)
    return list(dict.fromkeys(made))
