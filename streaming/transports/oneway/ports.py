"""Where frames go out and come in: a serial device, or UDP."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from streaming.errors import SettingsError, TransportError, UserError, reason_of

try:
    import serial
except ModuleNotFoundError:  # an extra; whoever needs it is told by check_library
    if not TYPE_CHECKING:
        serial = None

__all__ = ["Address", "Port", "SerialAddress", "SerialPort", "UdpAddress", "UdpPort"]

DEFAULT_BAUD: Final = 9600
_MOST_BAUD: Final = 4_000_000
_BITS_PER_BYTE_8N1: Final = 10
_READ_BYTES: Final = 4096
_UDP_IP_BYTES: Final = 28


class Port(Protocol):
    """An open end of a link. All but close raise TransportError if the link is lost."""

    async def write(self, frame: bytes) -> None:
        """Hand one frame on."""

    async def read(self) -> bytes:
        """Some bytes, at least one; of a datagram link one datagram."""

    def close(self) -> None:
        """Give it up; never raises."""


@dataclass(frozen=True)
class SerialAddress:
    """A serial device, eight bits, no parity, one stop bit."""

    device: str
    baud: int = DEFAULT_BAUD
    datagrams = False
    frame_overhead = 0

    @classmethod
    def parse(cls, text: str) -> SerialAddress:
        """Read ``/dev/ttyUSB0`` or ``/dev/ttyUSB0:600``. Raises SettingsError, UserError."""
        if serial is None:
            raise UserError(
                "--serial needs the Python package pyserial; install it: "
                "pip install 'pyserial>=3.5'."
            )
        device, colon, baud = text.rpartition(":")
        if not colon:
            device, baud = text, str(DEFAULT_BAUD)
        number = int(baud) if baud.isascii() and baud.isdecimal() and len(baud) < 9 else 0
        if not device or not 50 <= number <= _MOST_BAUD:
            raise SettingsError(
                f"{text!r} is no serial device; write DEVICE or DEVICE:BAUD, such as "
                f"/dev/ttyUSB0:9600, with 50 to {_MOST_BAUD} baud."
            )
        return cls(device, number)

    def __str__(self) -> str:
        return f"{self.device} ({self.baud} baud)"

    @property
    def bits_per_s(self) -> float | None:
        """What the line carries, without start and stop bits."""
        return self.baud * 8 / _BITS_PER_BYTE_8N1

    async def open_writer(self) -> Port:
        """Open the device to write. Raises TransportError if it cannot be used."""
        return SerialPort(self)

    async def open_reader(self) -> Port:
        """Open the device to read. Raises TransportError if it cannot be used."""
        return SerialPort(self)


class SerialPort:
    """An open serial device; nobody else who asks for it alone gets it meanwhile."""

    def __init__(self, address: SerialAddress) -> None:
        self._address = address
        try:
            self._serial = serial.Serial(
                address.device, address.baud, timeout=0, write_timeout=0, exclusive=True
            )
        except (OSError, ValueError, OverflowError) as error:
            raise TransportError(_why_not(address, error)) from None

    async def write(self, frame: bytes) -> None:
        """Hand one frame to the device. Raises TransportError if it is gone."""
        loop = asyncio.get_running_loop()
        while frame:
            try:
                frame = frame[os.write(self._serial.fd, frame) :]
            except BlockingIOError:
                await _ready(self._serial.fd, loop.add_writer, loop.remove_writer)
            except OSError as error:
                raise self._lost(error) from None

    async def read(self) -> bytes:
        """What has come. Raises TransportError if the device is gone."""
        loop = asyncio.get_running_loop()
        ready = False
        while True:
            try:
                data = os.read(self._serial.fd, _READ_BYTES)
            except BlockingIOError:
                data = b""
            except OSError as error:
                raise self._lost(error) from None
            if data:
                return data
            if ready:  # a device that is gone is always ready, and has nothing
                raise self._lost(OSError(errno.EIO, ""))
            await _ready(self._serial.fd, loop.add_reader, loop.remove_reader)
            ready = True

    def close(self) -> None:
        """Let the device go."""
        with contextlib.suppress(OSError):
            self._serial.close()

    def _lost(self, error: OSError) -> TransportError:
        return TransportError(f"The device {self._address.device} is gone ({_reason(error)}).")


@dataclass(frozen=True)
class UdpAddress:
    """A host and a port of UDP; a multicast group will do."""

    host: str
    port: int
    datagrams = True
    bits_per_s: float | None = None
    frame_overhead = _UDP_IP_BYTES

    @classmethod
    def parse(cls, text: str, *, host_needed: bool) -> UdpAddress:
        """Read ``HOST:PORT``, or ``[ADDRESS]:PORT`` for IPv6. Raises SettingsError."""
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            host = ""
            colon = ""
        number = int(port) if port.isascii() and port.isdecimal() and len(port) < 6 else 0
        if not colon or not 1 <= number <= 65_535 or (host_needed and not host):
            raise SettingsError(
                f"{text!r} is no place for datagrams; write {'' if host_needed else '[HOST]'}"
                f"{'HOST' if host_needed else ''}:PORT, such as 127.0.0.1:9750."
            )
        return cls(host or "127.0.0.1", number)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"udp {host}:{self.port}"

    async def open_writer(self) -> Port:
        """Open a socket to send from. Raises TransportError if there is no such host."""
        return UdpPort(await _udp_socket(self, listens=False))

    async def open_reader(self) -> Port:
        """Open a socket to listen there. Raises TransportError if that cannot be."""
        return UdpPort(await _udp_socket(self, listens=True))


class UdpPort:
    """An open socket; what is not read in time the system drops."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened

    async def write(self, frame: bytes) -> None:
        """Send one datagram; that nobody is there, or no network, is as a loss on the way."""
        with contextlib.suppress(OSError):
            self._socket.send(frame)

    async def read(self) -> bytes:
        """The next datagram. Raises TransportError."""
        while True:
            try:
                data = await asyncio.get_running_loop().sock_recv(self._socket, _READ_BYTES)
            except OSError as error:
                raise TransportError(f"Nothing can be received ({_reason(error)}).") from None
            if data:
                return data

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


async def _udp_socket(address: UdpAddress, *, listens: bool) -> socket.socket:
    loop = asyncio.get_running_loop()
    what = "listen on" if listens else "send to"
    opened: socket.socket | None = None
    try:
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, place = found[0]
        opened = socket.socket(family, kind, protocol)
        opened.setblocking(False)
        if not listens:
            opened.connect(place)
        else:
            group = ipaddress.ip_address(place[0])
            if group.is_multicast:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(place)
            if group.is_multicast:
                _join_group(opened, group)
    except OSError as error:
        if opened is not None:
            opened.close()
        raise TransportError(
            f"Cannot {what} {address} ({_reason(error)}); choose another address."
        ) from None
    return opened


def _join_group(
    opened: socket.socket, group: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> None:
    if group.version == 4:
        request = group.packed + ipaddress.IPv4Address(0).packed
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
    else:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group.packed + bytes(4))


Address = SerialAddress | UdpAddress


async def _ready(fd: int, add: Callable[..., None], remove: Callable[[int], Any]) -> None:
    """Wait until a file descriptor can be read or written."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle() -> None:
        if not future.done():
            future.set_result(None)

    add(fd, settle)
    try:
        await future
    finally:
        remove(fd)


def _why_not(address: SerialAddress, error: Exception) -> str:
    number = getattr(error, "errno", None)
    device = address.device
    if number == errno.ENOENT:
        return f"There is no device {device}; see which there are: ls /dev/tty*."
    if number in (errno.EACCES, errno.EPERM):
        return f"This user may not use {device}; add it to the device's group (often dialout)."
    if number in (errno.EAGAIN, errno.EBUSY):
        return f"The device {device} is in use; end the program that has it, or choose another."
    if isinstance(error, (ValueError, OverflowError)) or "baud" in str(error).lower():
        return f"{device} cannot be set to {address.baud} baud; choose another rate."
    return f"{device} is no serial device ({_reason(error)}); choose another."


def _reason(error: Exception) -> str:
    return reason_of(error).rstrip(".")
