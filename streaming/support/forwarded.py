"""For whom a reverse proxy asks: the headers ``X-Forwarded-For`` and ``Forwarded`` (RFC 7239)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from websockets.datastructures import Headers

from streaming.errors import SettingsError
from streaming.support.guard import parse_address

__all__ = ["Proxies"]

_MOST_HOPS: Final = 32
_MOST_FORWARDED: Final = 1024
_PART: Final = r'(?:[^",;]|"(?:[^"\\]|\\.)*")'
_ELEMENTS: Final = re.compile(rf"(?:{_PART}|;)+")
_PARAMETERS: Final = re.compile(rf"{_PART}+")
_WITH_PORT: Final = re.compile(r"\[([^\]]*)\](?::\w+)?|([^:]*)(?::\w+)?")


class Proxies:
    """The reverse proxies whose word counts.

    Each proxy adds the address that it was asked from at the right end. So the client is the first
    address from the right that is no trusted proxy's: what stands left of it the client may have
    made up. If a hop has no address (``unknown``, a name in its place, a Unix socket, nonsense),
    or if the two headers tell of different clients, it is the trusted proxy itself.

    Args:
        texts: addresses such as ``127.0.0.1`` or networks such as ``10.0.0.0/8``.

    Raises:
        SettingsError: a text is neither.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._networks = [_network(text) for text in texts]

    def __bool__(self) -> bool:
        return bool(self._networks)

    def trusts(self, address: str) -> bool:
        """Whether ``address`` is one of theirs."""
        parsed = parse_address(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def client(self, peer: str, headers: Headers) -> str:
        """Who asks: ``peer``, the other end of the connection, unless it is a trusted proxy."""
        if not self.trusts(peer):
            return peer
        hops = [
            [hop.strip() for hop in ",".join(headers.get_all("X-Forwarded-For")).split(",")],
            _forwarded_for(",".join(headers.get_all("Forwarded"))),
        ]
        clients = {self._walk(peer, told) for told in hops if any(told)}
        return clients.pop() if len(clients) == 1 else peer

    def _walk(self, peer: str, hops: Sequence[str]) -> str:
        at = peer
        for hop in reversed(hops[-_MOST_HOPS:]):
            host = _WITH_PORT.fullmatch(hop)
            address = parse_address((host[1] or host[2] or "") if host else hop)
            if address is None:
                break
            at = str(address)
            if not self.trusts(at):
                break
        return at


def _forwarded_for(header: str) -> list[str]:
    """What each element of a ``Forwarded`` header names behind ``for=``; empty if nothing."""
    hops: list[str] = []
    if len(header) > _MOST_FORWARDED:  # somebody means us to work on it
        return hops
    for element in _ELEMENTS.findall(header):
        named = ""
        for parameter in _PARAMETERS.findall(element):
            name, _, value = parameter.strip().partition("=")
            if name.lower() == "for":
                named = re.sub(r"\\(.)", r"\1", value.strip().strip('"'))
        hops.append(named)
    return hops


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise SettingsError(
            f"{text!r} is no address of a proxy; write one such as 127.0.0.1, or a network such as "
            "10.0.0.0/8."
        ) from None
