"""Where a stream is found at a broker: ``mqtt://user:password@host:port/topic``, and its topics.

Under the topic of a stream lie

====================  ========  ===================================================================
``hello``             retained  the hello, as over a WebSocket
``status``            retained  ``online`` or ``offline`` (the sender's last will)
``TAG``                         all else that goes over a WebSocket, message by message
``TAG/window``        retained  the newest tokens as one message of tokens
====================  ========  ===================================================================

TAG is four characters made of what the hello says the stream is (:func:`stream_tag`), so that what
an old sender has left at the broker cannot be taken for a part of the new one's stream.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from streaming.errors import SettingsError
from streaming.wire.messages import StreamIdentity

__all__ = [
    "PASSWORD_VARIABLE",
    "USER_VARIABLE",
    "MqttAddress",
    "is_mqtt",
    "read_credentials",
    "stream_tag",
]

USER_VARIABLE: Final = "MUSIC350_MQTT_USER"
PASSWORD_VARIABLE: Final = "MUSIC350_MQTT_PASSWORD"
_SCHEMES: Final = {"mqtt": 1883, "mqtts": 8883}
_MAX_TOPIC_BYTES: Final = 200
_MAX_PASSWORD_BYTES: Final = 65_535


def is_mqtt(url: str) -> bool:
    """Whether ``url`` names a broker."""
    scheme, colon, _ = url.partition("://")
    return bool(colon) and scheme.lower() in _SCHEMES


def stream_tag(identity: StreamIdentity) -> str:
    """Four characters that two streams share once in a million.

    Tokens mean something only with the codec that made them, sound is the same only with one seed,
    and an index counts only within its stream: so all three are in it.
    """
    named = f"{identity.stream}/{identity.seed}/{identity.digest}"
    return base64.b32encode(hashlib.sha256(named.encode()).digest()).decode()[:4].lower()


@dataclass(frozen=True)
class MqttAddress:
    """A stream at a broker, or the streams under a topic.

    ``str()`` of it leaves out user and password, for logs and messages.

    Attributes:
        user, password: to log in with; None: without.
    """

    host: str
    port: int
    topic: str
    tls: bool = False
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str, *, topic_needed: bool = True) -> MqttAddress:
        """Read ``mqtt://…`` or ``mqtts://…``. Raises SettingsError, which tells no password."""
        address = None
        with contextlib.suppress(ValueError):  # a port that is none, brackets that do not match
            address = cls._parse(url)
        if address is None:
            # What cannot be read may hold a password anywhere.
            raise SettingsError(
                "The address of the broker cannot be read; write mqtt://HOST:PORT/TOPIC, with "
                "characters such as / and # in a user or password as %2F and %23."
            )
        if topic_needed and not address.topic:
            raise SettingsError(f"{address} names no topic; write mqtt://HOST:PORT/TOPIC.")
        topic = address.topic
        if len(topic.encode("utf-8", "replace")) > _MAX_TOPIC_BYTES:
            raise SettingsError(f"The topic of a stream has at most {_MAX_TOPIC_BYTES} bytes.")
        if topic.startswith("$") or not topic.isprintable() or set(topic) & set("+#"):
            raise SettingsError(
                f"{topic!r} is no topic for a stream: it has neither + nor # nor control "
                "characters, and does not begin with $."
            )
        return address

    @classmethod
    def _parse(cls, url: str) -> MqttAddress | None:
        parts = urlsplit(url)
        scheme = parts.scheme.lower()
        if scheme not in _SCHEMES or not parts.hostname or parts.query or parts.fragment:
            return None
        port = _SCHEMES[scheme] if parts.port is None else parts.port
        user = None if parts.username is None else unquote(parts.username, errors="strict")
        password = None if parts.password is None else unquote(parts.password, errors="strict")
        topic = unquote(parts.path, errors="strict").strip("/")
        return cls(parts.hostname, port, topic, scheme == "mqtts", user or None, password)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = "mqtts" if self.tls else "mqtt"
        port = "" if self.port == _SCHEMES[scheme] else f":{self.port}"
        return f"{scheme}://{host}{port}/{self.topic}"

    def at(self, topic: str) -> MqttAddress:
        """Another topic at the same broker."""
        return replace(self, topic=topic)

    @property
    def hello(self) -> str:
        """Topic of the hello."""
        return f"{self.topic}/hello"

    @property
    def status(self) -> str:
        """Topic that says whether the sender is online."""
        return f"{self.topic}/status"

    def live(self, tag: str) -> str:
        """Topic of tokens and all other messages but the hello, as they are published."""
        return f"{self.topic}/{tag}"

    def window(self, tag: str) -> str:
        """Topic of the newest tokens."""
        return f"{self.topic}/{tag}/window"


def read_credentials(
    address: MqttAddress, user: str | None, password_file: Path | None
) -> MqttAddress:
    """``address`` with user and password: its own, else those given, else the environment's.

    Raises:
        SettingsError: the file cannot be read, or there is a password without a user.
    """
    user = address.user or user or os.environ.get(USER_VARIABLE) or None
    password = address.password
    if password is None and password_file is not None:
        try:
            with password_file.open("rb") as file:
                password = file.read(_MAX_PASSWORD_BYTES).decode("utf-8-sig").strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise SettingsError(
                f"Cannot read the broker's password from {password_file} ({reason})."
            ) from None
    if password is None:
        password = os.environ.get(PASSWORD_VARIABLE)
    if password is not None and user is None:
        raise SettingsError(
            f"A password for the broker needs a user: give --mqtt-user, or {USER_VARIABLE} in the "
            "environment."
        )
    return replace(address, user=user, password=password)
