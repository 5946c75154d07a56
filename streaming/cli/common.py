"""What the two programs' command lines have in common."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import codec
from codec.errors import CodecError
from streaming.cli.completion import add_completion_argument
from streaming.cli.configuration import add_config_argument, with_configuration
from streaming.cli.preset_file import preset_arguments
from streaming.cli.start import complain, program_name
from streaming.errors import SettingsError, UserError
from streaming.support.compute import use_threads
from streaming.support.guard import AUTH_TOKEN_VARIABLE
from streaming.support.json_log import JsonFormatter
from streaming.support.status_line import StatusLine

if TYPE_CHECKING:
    from codec.base import Codec
    from codec.mucodec.model import Part

__all__ = [
    "add_auth_arguments",
    "add_common_arguments",
    "add_decoder_arguments",
    "add_token_arguments",
    "check_wait",
    "codec_loader",
    "is_address",
    "number",
    "parse",
    "program_name",
    "run_program",
]


def number(kind: Callable[[str], float], low: float, high: float) -> Callable[[str], float]:
    """A parser of numbers from ``low`` to ``high``; what compares false, as NaN does, is none."""

    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            if low <= (value := kind(text)) <= high:
                return value
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low:g} to {high:g}")

    return parse


def is_address(text: str) -> bool:
    """Whether ``text`` looks like the address of a stream and not like a file."""
    return text.lower().startswith(("ws://", "wss://", "mqtt://", "mqtts://"))


def check_wait(arguments: argparse.Namespace) -> None:
    """Raise SettingsError if the program may wait for a sender but not reconnect to it."""
    if arguments.wait and arguments.reconnect == 0:
        raise SettingsError("--wait needs more than --reconnect 0 allows; leave one of them out.")


def add_common_arguments(parser: argparse.ArgumentParser, purpose: str) -> None:
    """Codec, weights, device, threads, statistics and verbosity; ``purpose`` is what torch does."""
    codecs = parser.add_argument_group("the codec")
    codecs.add_argument(
        "--codec",
        choices=codec.CODECS,
        default="nano",
        help="nano comes with the program; mucodec is the published model (default: %(default)s)",
    )
    codecs.add_argument(
        "--weights",
        type=Path,
        metavar="PATH",
        help="the codec's weights: a file, or for mucodec the folder of the release's checkpoints",
    )
    codecs.add_argument(
        "--torch-device",
        metavar="DEVICE",
        help=f"where torch does the {purpose}: cpu, cuda, cuda:1 (default: by the codec)",
    )
    codecs.add_argument(
        "--threads",
        type=number(int, 1, 1024),
        metavar="N",
        help=f"threads for {purpose} on a CPU (default: 1, for mucodec as many as there are cores)",
    )
    program = parser.add_argument_group("the program")
    program.add_argument(
        "--stats", type=Path, metavar="FILE", help="write statistics as JSON lines, one a second"
    )
    program.add_argument("--verbose", action="store_true", help="log more")
    program.add_argument(
        "--json-log", action="store_true", help="log one JSON object a line, no status line"
    )
    add_config_argument(program)
    add_completion_argument(program)


def _interval(text: str) -> tuple[float, float]:
    """Two times of a flow, such as ``0.1:0.6``."""
    low, _, high = text.partition(":")
    time = number(float, 0, 1)
    if time(low) > time(high):
        raise argparse.ArgumentTypeError(f"{text!r} ends before it begins")
    return float(low), float(high)


_DECODER_OPTIONS = ("precision", "guidance_interval", "compiled")
"""What :func:`add_decoder_arguments` adds, by the names that :func:`codec.load` has for it."""


def add_decoder_arguments(parser: argparse._ActionsContainer) -> None:
    """How mucodec's decoder computes; nano has nothing of the kind."""
    parser.add_argument(
        "--precision",
        choices=codec.PRECISIONS,
        help="of mucodec's decoder; fp8 is the fastest and the least exact (default: float16 on a "
        "GPU, float32 on a CPU)",
    )
    parser.add_argument(
        "--guidance-interval",
        type=_interval,
        metavar="FROM:TO",
        help="guide mucodec's flow between these of its times alone, 0 being noise and 1 music: "
        "faster and less exact (default: 0:1)",
    )
    parser.add_argument(
        "--no-compile",
        dest="compiled",
        action="store_false",
        default=None,
        help="do not compile mucodec's decoder, which happens on a GPU while it already plays",
    )


def add_auth_arguments(parser: argparse._ArgumentGroup, purpose: str) -> None:
    """Add the options for access tokens; ``purpose`` says what the token does here."""
    parser.add_argument(
        "--auth-token",
        metavar="SECRET",
        help=f"{purpose}; others on this machine can see it here, so better use "
        f"--auth-token-file or the environment's {AUTH_TOKEN_VARIABLE}",
    )
    parser.add_argument(
        "--auth-token-file", type=Path, metavar="FILE", help="a file of access tokens, one a line"
    )


def add_token_arguments(
    parser: argparse._ArgumentGroup, option: str, purpose: str, variable: str
) -> None:
    """Add ``option`` for another token, and ``option``-file.

    Args:
        purpose: what the token does.
        variable: of the environment, which may hold it instead.
    """
    parser.add_argument(
        option,
        metavar="SECRET",
        help=f"{purpose}; better in the environment's {variable} or in {option}-file",
    )
    parser.add_argument(
        f"{option}-file", type=Path, metavar="FILE", help="the same from a file, one a line"
    )


def parse(parser: argparse.ArgumentParser, section: str, argv: Sequence[str]) -> argparse.Namespace:
    """Read ``argv``, file and environment; exits with 2 and one sentence on what is wrong."""
    try:
        arguments = with_configuration(parser, section, argv)
        arguments = [*preset_arguments(parser, section, arguments), *arguments]
    except SettingsError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    return parser.parse_args(arguments)


def codec_loader(
    arguments: argparse.Namespace, load_codec: Callable[..., Codec], part: Part
) -> Callable[[str], Codec]:
    """A function that loads a codec by name as the arguments ask, for a thread to call.

    Args:
        part: the half of the codec that the program needs.
    """

    def load(name: str) -> Codec:
        use_threads(arguments.threads or codec.default_threads(name))
        options: dict[str, Any] = {"part": part}
        for option in _DECODER_OPTIONS:
            if (value := getattr(arguments, option, None)) is not None:
                options[option] = value
        if arguments.torch_device is not None:
            options["device"] = arguments.torch_device
        if arguments.weights is not None and name == arguments.codec:
            options["weights"] = arguments.weights
        return load_codec(name, **options)

    return load


def run_program(
    name: str, arguments: argparse.Namespace, status: StatusLine, body: Callable[[], None]
) -> int:
    """Call ``body`` with logging set up; its errors become one sentence and an exit code."""
    if arguments.json_log:
        status.go_plain()
    handler = status.log_handler()
    plain = logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
    handler.setFormatter(JsonFormatter() if arguments.json_log else plain)
    level = logging.DEBUG if arguments.verbose else logging.INFO
    logging.basicConfig(level=level, handlers=[handler], force=True)
    try:
        body()
    except (UserError, CodecError) as error:
        status.close()
        if arguments.json_log:
            logging.getLogger(name).error("%s", error)
        else:
            complain(f"{name}: {error}")
        return 2
    except KeyboardInterrupt:  # the second one: the first ends the stream in good order
        return 130
    return 0
