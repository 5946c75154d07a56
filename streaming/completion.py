"""Completion of a program's options in a shell, from its parser."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import Any, Final

__all__ = ["SHELLS", "CompletionAction", "completion_script"]

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
        sys.stdout.write(completion_script(parser, str(values)))
        parser.exit(0)


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """A script to be sourced: options after a hyphen, their choices after them, files elsewhere.

    It completes the command ``parser.prog``; zsh reads the same through its ``bashcompinit``.
    """
    actions = [action for action in parser._actions if action.option_strings]
    words = sorted({word for action in actions for word in action.option_strings})
    cases = "".join(
        f"        {'|'.join(action.option_strings)})\n"
        f'            COMPREPLY=($(compgen -W {_quoted(map(str, action.choices))} -- "$word"))\n'
        "            return ;;\n"
        for action in actions
        if action.choices
    )
    name = "_" + "".join(c if c.isalnum() else "_" for c in parser.prog)
    first = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return (
        f"{first}{name}() {{\n"
        '    local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"\n'
        f'    case "$before" in\n{cases}    esac\n'
        '    if [[ "$word" == -* ]]; then\n'
        f'        COMPREPLY=($(compgen -W {_quoted(words)} -- "$word"))\n'
        "    else\n"
        '        COMPREPLY=($(compgen -f -- "$word"))\n'
        "    fi\n"
        "}\n"
        f"complete -o filenames -F {name} {shlex.quote(parser.prog)}\n"
    )


def _quoted(words: Any) -> str:
    return shlex.quote(" ".join(words))
