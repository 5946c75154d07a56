"""The site's configuration: `make docs` builds these pages into build/docs."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING

from pygments.lexers.special import TextLexer
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docutils import nodes
    from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, not another one

project = "Live music at 350 bits per second"
author = copyright = "live-music-350 contributors"
version = release = version_of("music350")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4  # those that links on GitHub use
smartquotes = False  # "--loop" is no dash
suppress_warnings = ["toc.not_included"]

html_theme = "furo"
html_title = project
html_copy_source = False

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False


class Options(SphinxDirective):
    """The options of a command line, from the parser that the program itself uses.

    The argument names a function that makes the parser, as ``package.module:function``.
    """

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """What stands in the directive's place."""
        module, _, function = self.arguments[0].partition(":")
        parser = getattr(importlib.import_module(module), function)()
        return self.parse_text_to_nodes("\n".join(_described(parser)), allow_section_headings=True)


def _described(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A parser as Markdown: a heading for each group or command, and its options below."""
    for group in parser._action_groups:
        commands = [a for a in group._group_actions if isinstance(a, argparse._SubParsersAction)]
        actions = [a for a in group._group_actions if a not in commands and a.dest != "help"]
        if actions:
            if group.title is not None and group.title not in ("options", "positional arguments"):
                yield from ("", f"### {group.title[:1].upper()}{group.title[1:]}", "")
            for action in actions:
                expanded = parser._get_formatter()._expand_help(action) if action.help else ""
                yield from (_invocation(action), f": {_marked(expanded)}", "")
        for command in commands:
            help_of = {choice.dest: choice.help or "" for choice in command._choices_actions}
            for name, subparser in command.choices.items():
                yield from ("", f"### `{name}`", "", _marked(help_of[name]), "")
                if subparser.description:
                    yield from (_marked(subparser.description), "")
                yield from _described(subparser)


def _invocation(action: argparse.Action) -> str:
    """How the option is written, such as ``--port PORT``."""
    value = str(action.metavar or ("|".join(map(str, action.choices)) if action.choices else ""))
    if not action.option_strings:
        return f"`{value or action.dest}`"
    value = value or ("" if action.nargs == 0 else action.dest.upper())
    value = f"[{value}]" if action.nargs == "?" else value
    return ", ".join(f"`{f'{option} {value}'.strip()}`" for option in action.option_strings)


def _marked(text: str) -> str:
    """Plain text as Markdown: what is typed as code, and nothing else as markup."""
    typed = re.compile(r"(--[a-z][a-z-]+|\b\w+://[^\s,;]*[\w/…]|\bMUSIC350_\w+)")
    parts = typed.split(text)
    return "".join(
        f"`{part}`" if number % 2 else re.sub(r"([\\`*_{}\[\]<>#|$])", r"\\\1", part)
        for number, part in enumerate(parts)
    )


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_directive("options", Options)
    app.add_lexer("hex", TextLexer)  # of test vectors
