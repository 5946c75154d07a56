"""The options about pushing that a sender has, and what they come to."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from streaming.cli.common import add_token_arguments, is_address
from streaming.errors import SettingsError
from streaming.support.guard import PUBLISH_TOKEN_VARIABLE, PUSH_TOKEN_VARIABLE, read_auth_tokens
from streaming.support.tls import client_context
from streaming.transports.websocket import check_address

if TYPE_CHECKING:
    from streaming.transports.push.pusher import Push

__all__ = ["add_push_arguments", "publish_tokens", "push_outlet"]


def add_push_arguments(parser: argparse.ArgumentParser) -> None:
    """Both ends: a relay that waits for publishers, and a sender that is one."""
    group = parser.add_argument_group("to a relay that waits for it")
    group.add_argument(
        "--push",
        metavar="URL",
        help="push the stream there as well, to a relay that was started with --accept-push: "
        "ws://HOST:PORT, or wss:// encrypted",
    )
    add_token_arguments(group, "--push-token", "publish token of that relay", PUSH_TOKEN_VARIABLE)
    group.add_argument(
        "--accept-push",
        action="store_true",
        help="be such a relay: serve what a sender pushes, one at a time",
    )
    add_token_arguments(
        group,
        "--publish-token",
        "admit only publishers that have this token",
        PUBLISH_TOKEN_VARIABLE,
    )


def push_outlet(arguments: argparse.Namespace) -> Push | None:
    """Where a sender pushes; None if it does not. Raises UserError."""
    given, file = arguments.push_token, arguments.push_token_file
    if arguments.push is None:
        if given is not None or file is not None:
            raise SettingsError("--push-token needs the relay to push to: give --push.")
        return None
    check_address(arguments.push)
    secrets = read_auth_tokens(given, file, PUSH_TOKEN_VARIABLE)
    if not secrets:
        raise SettingsError(
            "--push needs the publish token of the relay: give --push-token-file or "
            f"{PUSH_TOKEN_VARIABLE}."
        )
    # Whoever else dials has a use for --ca too.
    others = arguments.mqtt is not None or any(is_address(song) for song in arguments.songs)
    encrypted = arguments.push.lower().startswith("wss:")
    tls = client_context(arguments.push, arguments.ca if encrypted or not others else None)
    from streaming.transports.push.pusher import Push

    return Push(arguments.push, secrets[0], tls)


def publish_tokens(arguments: argparse.Namespace) -> list[str]:
    """The secrets of those who may publish here; none where nobody may. Raises SettingsError."""
    given, file = arguments.publish_token, arguments.publish_token_file
    if not arguments.accept_push:
        if given is not None or file is not None:
            raise SettingsError("--publish-token is for a relay that waits: give --accept-push.")
        return []
    if arguments.songs:
        raise SettingsError("--accept-push serves what is pushed; leave out what else to stream.")
    secrets = read_auth_tokens(given, file, PUBLISH_TOKEN_VARIABLE)
    if not secrets:
        raise SettingsError(
            "--accept-push needs a publish token: give --publish-token-file or "
            f"{PUBLISH_TOKEN_VARIABLE}."
        )
    listeners = read_auth_tokens(arguments.auth_token, arguments.auth_token_file)
    if set(listeners) & set(secrets):
        raise SettingsError(
            "A token that lets listeners in must not let publishers in; choose another one."
        )
    return secrets
