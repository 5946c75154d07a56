"""The options about one-way links that both programs have, and what they come to."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from streaming.cli.common import number
from streaming.errors import SettingsError

if TYPE_CHECKING:
    from streaming.transports.oneway.connection import OneWayDial
    from streaming.transports.oneway.ports import Address
    from streaming.transports.oneway.publisher import OneWay

__all__ = ["add_oneway_arguments", "oneway_dial", "oneway_outlet"]

_LEAST_KEY_BYTES: Final = 16
_MOST_KEY_FILE: Final = 4096


def add_oneway_arguments(parser: argparse.ArgumentParser, *, sends: bool) -> None:
    """The link and how to use it.

    Args:
        sends: for the sender, not for a listener.
    """
    group = parser.add_argument_group("over a serial line, a radio or UDP, one way")
    purpose = "send there as well" if sends else "listen to what comes from there"
    group.add_argument(
        "--serial",
        metavar="DEVICE[:BAUD]",
        help=f"{purpose}, such as /dev/ttyUSB0:600 (default: 9600 baud)",
    )
    group.add_argument(
        "--udp",
        metavar="HOST:PORT" if sends else "[ADDRESS]:PORT",
        help=f"{purpose}, a frame a datagram; may be a multicast group",
    )
    group.add_argument(
        "--link-key-file",
        type=Path,
        metavar="FILE",
        help="a secret of both ends, 32 to 64 hexadecimal digits, that proves frames to be the "
        "sender's; takes 18 bit/s with packets of 48 tokens",
    )
    if sends:
        group.add_argument(
            "--fec",
            metavar="DATA/PARITY",
            help="parity: with 10/2, two frames for every ten packets, and any two of these "
            "twelve may be lost",
        )
        group.add_argument(
            "--line-rate",
            type=number(float, 100, 1e9),
            metavar="BIT/S",
            help="never send faster, for a radio behind the line (default: the serial line's rate)",
        )


def oneway_outlet(arguments: argparse.Namespace) -> OneWay | None:
    """Where a sender sends; None if it does not. Raises UserError."""
    address = _address(arguments, host_needed=True)
    if address is None:
        _refuse_without_link(arguments, "fec", "line_rate", "link_key_file")
        return None
    from streaming.transports.oneway.fec import check_library
    from streaming.transports.oneway.hello import MAX_SEED, Fec
    from streaming.transports.oneway.publisher import OneWay

    if arguments.seed is not None and arguments.seed > MAX_SEED:
        raise SettingsError(
            f"--serial and --udp have room for a seed up to {MAX_SEED}; choose a smaller --seed."
        )
    fec = None if arguments.fec is None else Fec.parse(arguments.fec)
    if fec is not None:
        check_library()
    return OneWay(address, fec, arguments.line_rate, _link_key(arguments.link_key_file))


def oneway_dial(arguments: argparse.Namespace, *, elsewhere: bool) -> OneWayDial | None:
    """How a listener hears the link; None if it does not. Raises UserError.

    Args:
        elsewhere: whether it was told to listen to something else.
    """
    address = _address(arguments, host_needed=False)
    if address is None:
        _refuse_without_link(arguments, "link_key_file")
        return None
    if elsewhere:
        raise SettingsError(
            "Choose one of a sender's address, --mqtt, --serial and --udp, not several."
        )
    if arguments.start != "live":
        raise SettingsError("--from means nothing on a one-way link; leave it out.")
    from streaming.transports.oneway.connection import OneWayDial

    return OneWayDial(address, key=_link_key(arguments.link_key_file))


def _refuse_without_link(arguments: argparse.Namespace, *names: str) -> None:
    for name in names:
        if getattr(arguments, name) is not None:
            option = name.replace("_", "-")
            raise SettingsError(f"--{option} needs a link: give --serial or --udp.")


def _link_key(file: Path | None) -> bytes:
    """The key in a file; empty if none is named. Raises SettingsError."""
    if file is None:
        return b""
    from streaming.transports.oneway.framing import MAX_KEY_BYTES

    try:
        with file.open(encoding="utf-8-sig") as opened:
            text = opened.read(_MOST_KEY_FILE).strip()
        key = bytes.fromhex(text) if text.isalnum() else b""
    except OSError as error:
        raise SettingsError(f"Cannot read the key in {file} ({error.strerror}).") from None
    except ValueError:  # other letters, an odd number of digits, or no text at all
        key = b""
    if not _LEAST_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        raise SettingsError(
            f"There is no key in {file}: it has {2 * _LEAST_KEY_BYTES} to {2 * MAX_KEY_BYTES} "
            "hexadecimal digits; `openssl rand -hex 32` makes a good one."
        )
    return key


def _address(arguments: argparse.Namespace, *, host_needed: bool) -> Address | None:
    if arguments.serial is not None and arguments.udp is not None:
        raise SettingsError("Choose either --serial or --udp, not both.")
    if arguments.serial is not None:
        from streaming.transports.oneway.ports import SerialAddress

        return SerialAddress.parse(arguments.serial)
    if arguments.udp is not None:
        from streaming.transports.oneway.ports import UdpAddress

        return UdpAddress.parse(arguments.udp, host_needed=host_needed)
    return None
