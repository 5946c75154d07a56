"""Options from a file and from the environment, as if they stood before those on the command line.

    [server]
    host = 0.0.0.0
    loop = yes
    allow-origin =
        https://radio.example
        https://other.example

Every long option of a program is a name in its section, without the hyphens before it; ``both`` is
a section for either program. In the environment it is ``MUSIC350_`` and the name in capitals, such
as ``MUSIC350_MAX_LISTENERS``. What stands on the command line counts most, then the environment,
then the file; an option that may be given more than once adds to them. All of this becomes
arguments, so it is checked as they are.
"""

from __future__ import annotations

import argparse
import configparser
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from streaming.errors import SettingsError
from streaming.support.guard import (
    AUTH_TOKEN_VARIABLE,
    PUBLISH_TOKEN_VARIABLE,
    PUSH_TOKEN_VARIABLE,
    SERVE_TOKEN_VARIABLE,
    UPSTREAM_TOKEN_VARIABLE,
)

__all__ = [
    "CONFIG_VARIABLE",
    "add_config_argument",
    "as_arguments",
    "long_options",
    "read_section",
    "with_configuration",
]

CONFIG_VARIABLE: Final = "MUSIC350_CONFIG"
_PREFIX: Final = "MUSIC350_"
_APART: Final = frozenset(  # read where they are used
    {
        AUTH_TOKEN_VARIABLE,
        PUBLISH_TOKEN_VARIABLE,
        PUSH_TOKEN_VARIABLE,
        SERVE_TOKEN_VARIABLE,
        UPSTREAM_TOKEN_VARIABLE,
    }
)
_MOST_FILE_BYTES: Final = 1 << 20
_SHARED: Final = "both"


def add_config_argument(parser: argparse._ArgumentGroup) -> None:
    """The option that names the file."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"read options from here as well (default: the environment's {CONFIG_VARIABLE}); "
        f"others may be in the environment too, such as {_PREFIX}VERBOSE=yes",
    )


def with_configuration(
    parser: argparse.ArgumentParser,
    section: str,
    argv: Sequence[str],
    environment: Mapping[str, str] | None = None,
) -> list[str]:
    """The options of file and environment, followed by ``argv``.

    A positional argument in the file becomes the parser's default.

    Raises:
        SettingsError: if the file cannot be read, or if it names an option that does not exist.
    """
    environment = os.environ if environment is None else environment
    options = long_options(parser)
    named: dict[str, tuple[str, str]] = {}  # values, and where they come from
    path = _config_path(argv, environment)
    for name, value in read_section(path, section).items() if path is not None else ():
        if (positional := _positional(parser, name)) is not None:
            lines = _lines(value)
            positional.default = lines if positional.nargs == "*" else " ".join(lines)
        elif name in options:
            named[name] = (value, f"{name} in {path}")
        else:
            raise SettingsError(f"{name!r} in {path} is not an option; --help lists them.")
    for name in options:
        variable = _PREFIX + name.replace("-", "_").upper()
        if variable in environment and variable not in _APART:
            named[name] = (environment[variable], variable)
    arguments: list[str] = []
    for name, (value, where) in named.items():
        arguments += as_arguments(name, value, options[name], where)
    return [*arguments, *argv]


def long_options(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Every option that a file may name, without the hyphens before it."""
    return {
        word.removeprefix("--"): action
        for action in parser._actions
        for word in action.option_strings
        if word.startswith("--") and word not in ("--help", "--config", "--completion")
    }


def _config_path(argv: Sequence[str], environment: Mapping[str, str]) -> Path | None:
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", nargs="?")
    given = first.parse_known_args(list(argv))[0].config or environment.get(CONFIG_VARIABLE)
    return Path(given) if given else None


def read_section(path: Path, section: str, what: str = "configuration") -> dict[str, str]:
    """Names and values in a file for one program. Raises SettingsError.

    Args:
        what: what messages call the file.
    """
    parser = configparser.ConfigParser(interpolation=None, empty_lines_in_values=False)
    try:
        with path.open(encoding="utf-8-sig") as file:
            parser.read_string(file.read(_MOST_FILE_BYTES))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise SettingsError(f"Cannot read the {what} {path} ({reason}).") from None
    except configparser.Error as error:
        first = str(error).splitlines()[0]
        raise SettingsError(f"The {what} {path} makes no sense: {first}") from None
    sections = [name for name in (_SHARED, section) if parser.has_section(name)]
    return {key.replace("_", "-"): value for name in sections for key, value in parser.items(name)}


def _positional(parser: argparse.ArgumentParser, name: str) -> argparse.Action | None:
    found = (a for a in parser._actions if not a.option_strings and a.dest == name)
    return next(found, None)


def as_arguments(name: str, value: str, action: argparse.Action, where: str) -> list[str]:
    """A value as arguments of the command line. Raises SettingsError, which names ``where``."""
    if action.nargs == 0:
        states = configparser.ConfigParser.BOOLEAN_STATES
        if value.lower() not in states:
            raise SettingsError(f"{where} must be yes or no, not {value!r}.")
        return [f"--{name}"] if states[value.lower()] else []
    if isinstance(action, argparse._AppendAction):
        return [f"--{name}={line}" for line in _lines(value)]
    return [f"--{name}={value}"]


def _lines(value: str) -> list[str]:
    return [line.strip() for line in value.splitlines() if line.strip()]
