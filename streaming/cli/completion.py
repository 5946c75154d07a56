"""Completion of a program's commands and options in a shell, from its parser."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from streaming.cli.start import say

__all__ = ["SHELLS", "add_completion_argument"]

SHELLS: Final = ("bash", "zsh", "fish", "tcsh")


class _CompletionAction(argparse.Action):
    """Prints the script for the shell that is named, and ends the program."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Print the script, and end."""
        import shtab

        _offer_files(parser)
        say(shtab.complete(parser, str(values)).rstrip("\n"))
        parser.exit(0)


def add_completion_argument(parser: argparse._ActionsContainer) -> None:
    """The option that prints the script."""
    parser.add_argument(
        "--completion",
        action=_CompletionAction,
        choices=SHELLS,
        help="print a script that completes these options in a shell, and end",
    )


def _offer_files(parser: argparse.ArgumentParser) -> None:
    """Have files completed where they belong: as values of paths, and without an option."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for of_command in action.choices.values():
                _offer_files(of_command)
        elif not action.choices and (action.type is Path or not action.option_strings):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
