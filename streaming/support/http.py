"""Plain HTTP beside the WebSockets: answers as values, headers, and who may ask from where.

Nothing here opens a socket; the adapters hand requests in and send the answers.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from websockets.datastructures import Headers
from websockets.http11 import Response

__all__ = [
    "FULL_HOUSE",
    "HEALTH",
    "METHOD_NOT_ALLOWED",
    "POLICY",
    "TOO_MANY_GUESSES",
    "Answer",
    "Pieces",
    "bearer",
    "host_is_known",
    "is_upgrade",
    "one",
    "origin_hosts",
    "origin_may",
    "part",
    "route",
    "takes_gzip",
    "text",
]

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Nothing comes from anywhere else, and no other page may show ours in a frame."""
_ALWAYS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Connection": "close",
}
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_REFUSED: Final = re.compile(r"q=0(\.0*)?")

HEALTH: Final = "/healthz"
"""What is answered even if there is no room for anything else."""
TOO_MANY_GUESSES: Final = (
    "Too many wrong secrets come from your address; try again in a few seconds."
)

Pieces = Callable[[], AsyncGenerator[bytes, None]]
"""Makes a long body bit by bit, as it is taken."""


@dataclass(frozen=True)
class Answer:
    """What is sent back: a status, a body and what kind of text that is.

    Attributes:
        headers: further ones, as names and values.
        pieces: makes the body, in place of ``body``.
        length: bytes that the pieces have; None if they end when the connection does.
    """

    status: HTTPStatus
    body: bytes = b""
    kind: str = "text/plain; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)
    pieces: Pieces | None = None
    length: int | None = None

    def response(self) -> Response:
        """As the WebSocket library knows it; of a body in pieces, the headers."""
        fields = {
            "Content-Type": self.kind,
            "Cache-Control": "no-store",
            **_ALWAYS,
            **self.headers,
        }
        length = len(self.body) if self.pieces is None else self.length
        if length is not None and self.status is not HTTPStatus.NOT_MODIFIED:
            fields["Content-Length"] = str(length)
        headers = Headers(list(fields.items()))
        return Response(self.status.value, self.status.phrase, headers, self.body)


def text(status: HTTPStatus, sentence: str, **headers: str) -> Answer:
    """One sentence as plain text; underscores in the names of headers stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, f"{sentence}\n".encode(), headers=named)


FULL_HOUSE: Final = text(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "There is no room for another connection just now; try again later.",
    Retry_After="10",
)
METHOD_NOT_ALLOWED: Final = text(
    HTTPStatus.METHOD_NOT_ALLOWED, "Here one can GET, and nothing else.", Allow="GET, HEAD"
)


def one(headers: Headers, name: str) -> str:
    """The value of a header; empty if there is none, or if there are several."""
    values = headers.get_all(name)
    return values[0] if len(values) == 1 else ""


def takes_gzip(headers: Headers) -> bool:
    """Whether a body may be sent compressed."""
    for coding in ",".join(headers.get_all("Accept-Encoding")).split(","):
        name, _, weight = coding.partition(";")
        if name.strip().lower() == "gzip":
            return not _REFUSED.fullmatch(weight.strip())
    return False


def part(headers: Headers, etag: str, size: int) -> range | None:
    """Which bytes of ``size`` are asked for; None: all of them, an empty range: none that exist.

    One range alone is understood: who asks for several gets everything, as is allowed.
    """
    asked = _RANGE.fullmatch(one(headers, "Range").strip())
    condition = one(headers, "If-Range")
    if asked is None or not any(asked.groups()) or condition not in ("", etag):
        return None
    first, last = asked.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(size, int(last) + 1) if last else size)


def bearer(headers: Headers) -> str:
    """The secret in ``Authorization: Bearer SECRET``; empty if there is none."""
    kind, _, given = one(headers, "Authorization").partition(" ")
    return given.strip() if kind.lower() == "bearer" else ""


def route(path: str) -> str:
    """The part of a request's path that names what is wanted; empty if it makes no sense."""
    try:
        return urlsplit(path).path
    except ValueError:
        return ""


def is_upgrade(headers: Headers) -> bool:
    """Whether a request wants a WebSocket rather than an answer."""
    return any("websocket" in value.lower() for value in headers.get_all("Upgrade"))


def host_is_known(headers: Headers, names: Iterable[str] = ()) -> bool:
    """Whether the request was sent to an address, to this machine, or to one of ``names``.

    A page somewhere else can let its own name point at this machine's address and would then pass
    for a page of ours. A browser tells by which name it came; only addresses cannot be forged so.
    """
    try:
        host = urlsplit(f"//{one(headers, 'Host')}").hostname or ""
    except ValueError:
        return False
    if host == "localhost" or host in {name.lower() for name in names}:
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def origin_may(headers: Headers, origins: Iterable[str], names: Iterable[str] = ()) -> bool:
    """Whether whatever asks may open a WebSocket: no web page, one of ``origins``, or our own."""
    given = headers.get_all("Origin")
    if not given:
        return True
    if len(given) > 1:
        return False
    if given[0] in origins:
        return True
    try:
        parts = urlsplit(given[0])
    except ValueError:
        return False
    ours = parts.scheme in ("http", "https") and parts.netloc == one(headers, "Host")
    return ours and host_is_known(headers, names)


def origin_hosts(origins: Sequence[str]) -> list[str]:
    """The hosts of origins such as ``https://radio.example``."""
    hosts = []
    for origin in origins:
        with contextlib.suppress(ValueError):
            hosts.append(urlsplit(origin).hostname or "")
    return hosts
