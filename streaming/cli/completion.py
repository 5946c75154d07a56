"""Completion of a program's commands and options in a shell, from its parser."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from streaming.cli.start import say

__all__ = ["SHELLS", "CompletionAction", "add_completion_argument", "completion_script"]

SHELLS: Final = ("bash", "zsh")


class CompletionAction(argparse.Action):
    """Prints the script for the shell that is named, and ends the program."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Print the script, and end."""
        say(completion_script(parser, str(values)).rstrip("\n"))
        parser.exit(0)


def add_completion_argument(parser: argparse._ActionsContainer) -> None:
    """The option that prints the script."""
    parser.add_argument(
        "--completion",
        action=CompletionAction,
        choices=SHELLS,
        help="print a script that completes these options in a shell, and end",
    )


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """A script, to be sourced, that completes the command line of ``parser``.

    It offers options after a hyphen, their choices after them, commands in their place, and files
    elsewhere. The command is ``parser.prog``. zsh reads the same through its ``bashcompinit``.
    """
    name = "_" + "".join(c if c.isalnum() else "_" for c in parser.prog)
    first = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    commands = _commands(parser)
    body = _completing(parser, commands)
    if commands:
        branches = "".join(
            f"{word})\n{_completing(of_command, {})};;\n" for word, of_command in commands.items()
        )
        body = f'case "${{COMP_WORDS[1]}}" in\n{branches}*)\n{body};;\nesac\n'
    return (
        f"{first}{name}() {{\n"
        'local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"\n'
        f"{body}"
        "}\n"
        f"complete -o filenames -F {name} {shlex.quote(parser.prog)}\n"
    )


def _completing(
    parser: argparse.ArgumentParser, commands: Mapping[str, argparse.ArgumentParser]
) -> str:
    """Shell code that completes ``word`` after ``before`` as ``parser`` takes it."""
    options = [action for action in parser._actions if action.option_strings]
    words = sorted({word for action in options for word in action.option_strings})
    cases = "".join(
        f"{'|'.join(action.option_strings)})\n{_offer(map(str, action.choices))}return ;;\n"
        for action in options
        if action.choices
    )
    named = [  # what may stand without an option: commands, or names that are known beforehand
        *commands,
        *(
            str(choice)
            for action in parser._actions
            if not action.option_strings and not commands
            for choice in action.choices or ()
        ),
    ]
    elsewhere = _offer(named) if named else 'COMPREPLY=($(compgen -f -- "$word"))\n'
    return (
        f'case "$before" in\n{cases}esac\n'
        f'if [[ "$word" == -* ]]; then\n{_offer(words)}else\n{elsewhere}fi\n'
    )


def _commands(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices
    return {}


def _offer(words: Iterable[str]) -> str:
    return f'COMPREPLY=($(compgen -W {shlex.quote(" ".join(words))} -- "$word"))\n'
