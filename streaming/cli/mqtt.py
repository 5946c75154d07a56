"""The options about brokers that both programs have, and what they come to.

aiomqtt is imported where a broker is asked for, and not before.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from streaming.cli.common import is_address, number
from streaming.errors import SettingsError
from streaming.support.tls import client_context
from streaming.transports.mqtt.address import (
    PASSWORD_VARIABLE,
    USER_VARIABLE,
    MqttAddress,
    is_mqtt,
    read_credentials,
)

if TYPE_CHECKING:
    import ssl

    from streaming.transports.mqtt.publisher import Mqtt

__all__ = ["add_broker_arguments", "broker_of", "list_broker", "mqtt_outlet"]


def add_broker_arguments(parser: argparse.ArgumentParser, *, sends: bool) -> None:
    """Where the broker is and how to get in.

    Args:
        sends: for the sender, not for a listener.
    """
    group = parser.add_argument_group("through an MQTT broker")
    purpose = "publish there as well" if sends else "listen to what is published there"
    group.add_argument(
        "--mqtt",
        metavar="URL",
        help=f"{purpose}: mqtt://HOST:PORT/TOPIC, or mqtts:// encrypted; may hold USER:PASSWORD@, "
        "which others on this machine can see",
    )
    if sends:
        group.add_argument(
            "--mqtt-window",
            type=number(float, 0.04, 40.96),
            metavar="S",
            help="seconds of the stream that the broker keeps for new listeners (default: 10.24)",
        )
        group.add_argument(
            "--ca",
            type=Path,
            metavar="FILE",
            help="trust these certificates of mqtts:// brokers and wss:// senders, PEM",
        )
    else:
        group.add_argument(
            "--list", action="store_true", help="show the streams under that topic and end"
        )
    group.add_argument(
        "--mqtt-user",
        metavar="NAME",
        help=f"login at the broker; or {USER_VARIABLE} in the environment",
    )
    group.add_argument(
        "--mqtt-password-file",
        type=Path,
        metavar="FILE",
        help=f"file with the password; or {PASSWORD_VARIABLE} in the environment",
    )
    group.add_argument(
        "--mqtt-cert", type=Path, metavar="FILE", help="show the broker this certificate, PEM"
    )
    group.add_argument(
        "--mqtt-key", type=Path, metavar="FILE", help="its private key, unless in the same file"
    )


def broker_of(
    url: str, arguments: argparse.Namespace, *, topic_needed: bool = True
) -> tuple[MqttAddress, ssl.SSLContext | None]:
    """Address and login, and how to encrypt. Raises SettingsError."""
    address = MqttAddress.parse(url, topic_needed=topic_needed)
    address = read_credentials(address, arguments.mqtt_user, arguments.mqtt_password_file)
    tls = client_context(url, arguments.ca, arguments.mqtt_cert, arguments.mqtt_key)
    return address, tls


def mqtt_outlet(arguments: argparse.Namespace) -> Mqtt | None:
    """Where a sender publishes; None if it does not. Raises SettingsError."""
    if arguments.mqtt is None:
        needed = {"mqtt_window", "mqtt_user", "mqtt_password_file", "ca"}
        # Who dials another sender, or a relay, has a use for --ca itself.
        if arguments.push is not None or any(is_address(song) for song in arguments.songs):
            needed.remove("ca")
        if any(is_mqtt(song) for song in arguments.songs):
            needed -= {"mqtt_user", "mqtt_password_file"}
        for name in sorted(needed):
            if getattr(arguments, name) is not None:
                raise SettingsError(f"--{name.replace('_', '-')} needs the broker: give --mqtt.")
        return None
    address, tls = broker_of(arguments.mqtt, arguments)
    from streaming.transports.mqtt.publisher import DEFAULT_WINDOW_S, Mqtt

    window_s = DEFAULT_WINDOW_S if arguments.mqtt_window is None else arguments.mqtt_window
    return Mqtt(address, tls, window_s)


async def list_broker(url: str, arguments: argparse.Namespace) -> str:
    """The streams under a topic, one a line, for people. Raises UserError."""
    if not is_mqtt(url):
        raise SettingsError("--list needs a broker: give --mqtt mqtt://HOST:PORT/TOPIC.")
    address, tls = broker_of(url, arguments, topic_needed=False)
    from streaming.transports.mqtt.catalogue import list_streams

    streams = await list_streams(address, tls)
    if not streams:
        return f"There is no stream under {address}."
    width = max(len(str(stream.address)) for stream in streams)
    return "\n".join(
        f"{stream.address!s:{width}}  {'online' if stream.online else 'offline':7}  "
        f"{stream.hello.codec}  {stream.hello.title}".rstrip()
        for stream in streams
    )
