"""Presets as files: ``--preset FILE`` on either side, made by hand or by the lab's tuner.

    [server]
    packet-tokens = 96
    [client]
    hop = 24
    buffer = 1.5

One file has what both programs need, and only what shapes sound and latency: it says nothing of
where to connect and what to write, so that it may come from somebody else.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from streaming.cli.configuration import as_arguments, long_options, read_section
from streaming.errors import SettingsError

__all__ = ["PRESET_NAMES", "preset_arguments", "preset_name"]

PRESET_NAMES: Final = ("default", "low-latency")
_MAY_HOLD: Final = frozenset(
    {
        "buffer",
        "catch-up",
        "codec",
        "context",
        "guidance",
        "hop",
        "lookahead",
        "most-buffer",
        "packet-tokens",
        "solver",
        "steps",
        "temperature",
        "warp",
    }
)


def preset_name(text: str) -> str:
    """For argparse: a preset that both programs know, or a file, which builds on the default."""
    if text in PRESET_NAMES:
        return text
    if Path(text).is_file():
        return PRESET_NAMES[0]
    raise argparse.ArgumentTypeError(f"{text!r} is neither {' nor '.join(PRESET_NAMES)} nor a file")


def preset_arguments(
    parser: argparse.ArgumentParser, section: str, argv: Sequence[str]
) -> list[str]:
    """The options in the file that the last ``--preset`` in ``argv`` names, where it names one.

    Raises SettingsError if the file cannot be read, or holds what a preset may not.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", nargs="?")
    given = first.parse_known_args(list(argv))[0].preset
    if given is None or given in PRESET_NAMES or not Path(given).is_file():
        return []
    options = long_options(parser)
    arguments: list[str] = []
    for name, value in read_section(Path(given), section, "preset").items():
        if name not in _MAY_HOLD or name not in options:
            raise SettingsError(
                f"{name!r} in the preset {given} is none of what it may hold: "
                f"{', '.join(sorted(_MAY_HOLD & options.keys()))}."
            )
        arguments += as_arguments(name, value, options[name], f"{name} in {given}")
    return arguments
