"""What a program that others connect to lets them: encryption, proxies, limits, and web pages."""

from __future__ import annotations

import argparse
import ssl
from pathlib import Path
from typing import NamedTuple

from streaming.cli.common import number
from streaming.support.forwarded import Proxies
from streaming.support.guard import Limits
from streaming.support.tls import server_context

__all__ = ["Serving", "add_serving_arguments", "make_serving"]


class Serving(NamedTuple):
    """What the options come to.

    Attributes:
        origins: of web pages that may listen besides our own.
    """

    tls: ssl.SSLContext | None
    origins: list[str]
    proxies: Proxies
    limits: Limits


def add_serving_arguments(parser: argparse._ArgumentGroup) -> None:
    """The options of :func:`make_serving`."""
    parser.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="encrypt, with this certificate chain, PEM"
    )
    parser.add_argument(
        "--tls-key", type=Path, metavar="FILE", help="its private key, unless in the same file"
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let a web page listen, such as https://radio.example; may be given more than once",
    )
    parser.add_argument(
        "--trust-proxy",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="a reverse proxy, or its network, whose X-Forwarded-For or Forwarded header counts; "
        "may be given more than once",
    )
    parser.add_argument(
        "--max-listeners",
        type=number(int, 1, 100_000),
        default=Limits.connections,
        metavar="N",
        help="connections at once, in total (default: %(default)s)",
    )
    parser.add_argument(
        "--max-per-address",
        type=number(int, 1, 100_000),
        default=Limits.per_address,
        metavar="N",
        help="connections at once from one address, or one /64 of IPv6 (default: %(default)s)",
    )


def make_serving(arguments: argparse.Namespace) -> Serving:
    """What the options ask for. Raises SettingsError."""
    return Serving(
        server_context(arguments.tls_cert, arguments.tls_key),
        arguments.allow_origin,
        Proxies(arguments.trust_proxy),
        Limits(arguments.max_listeners, arguments.max_per_address),
    )
