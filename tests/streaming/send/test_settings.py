"""How long packets and encoder windows are: a packet is a whole number of hops."""

from __future__ import annotations

import pytest

from codec.base import EncoderWindow
from streaming.errors import SettingsError
from streaming.send.settings import PRESETS, ServiceSettings, packets
from tests.support.fake_codec import FakeCodec


class Nanolike(FakeCodec):
    encoder_window = EncoderWindow(left=18, hop=24, lookahead=8)


class MuCodeclike(FakeCodec):
    encoder_window = EncoderWindow(left=96, hop=128, lookahead=32)
    longest_window_tokens = 1024


@pytest.mark.parametrize(
    ("codec", "preset", "packet", "hop", "expected"),
    [
        (Nanolike, "default", None, None, (48, 24)),
        (Nanolike, "low-latency", None, None, (8, 8)),
        (MuCodeclike, "default", None, None, (128, 128)),  # not 48: three would leave at once
        (MuCodeclike, "low-latency", None, None, (8, 8)),
        (Nanolike, "default", 25, None, (25, 25)),
        (Nanolike, "default", 250, None, (250, 25)),
        (Nanolike, "default", 8, None, (8, 8)),
        (Nanolike, "default", 1, None, (1, 1)),
        (Nanolike, "default", 997, None, (997, 997)),  # a prime
        (MuCodeclike, "default", 1024, None, (1024, 128)),
        (MuCodeclike, "default", 997, None, (997, 1)),  # one window cannot hold so many
        (Nanolike, "default", None, 32, (64, 32)),
        (Nanolike, "default", None, 100, (100, 100)),
        (Nanolike, "low-latency", None, 4, (8, 4)),
        (Nanolike, "default", 50, 10, (50, 10)),
    ],
)
def test_a_packet_is_a_whole_number_of_hops(
    codec: type[FakeCodec],
    preset: str,
    packet: int | None,
    hop: int | None,
    expected: tuple[int, int],
) -> None:
    settings = ServiceSettings(preset=PRESETS[preset], packet_tokens=packet, hop=hop)
    tokens, window = packets(settings, codec())
    assert (tokens, window.hop) == expected
    assert window.left == codec.encoder_window.left
    assert window.lookahead == codec.encoder_window.lookahead


def test_the_lookahead_can_be_chosen() -> None:
    assert packets(ServiceSettings(lookahead=2), Nanolike())[1] == EncoderWindow(18, 24, 2)
    _, window = packets(ServiceSettings(packet_tokens=1000, lookahead=500), MuCodeclike())
    assert window == EncoderWindow(96, 125, 500)


def test_packets_and_hops_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"50 tokens is no whole number of hops of 24.*72"):
        packets(ServiceSettings(packet_tokens=50, hop=24), Nanolike())
