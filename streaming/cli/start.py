"""How our programs begin and end: standard streams, signals, packages that are missing, exit codes.

A program calls :func:`start` on its first line, before anything that takes time to import, so that
Ctrl-C ends it without a traceback from then on. So this imports next to nothing itself.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys

from streaming.support.ending import end_on_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn, TextIO

__all__ = [
    "client",
    "complain",
    "muc",
    "program_name",
    "say",
    "server",
    "start",
]

_OLDEST = (3, 11)
_EXTRAS = {
    "aiomqtt": "mqtt",
    "huggingface_hub": "mucodec",
    "matplotlib": "demo",
    "paho": "mqtt",
    "prometheus_client": "metrics",
    "reedsolo": "radio",
    "serial": "radio",
    "sounddevice": "play",
}
"""What brings a package along that not everybody needs."""
_OURS = frozenset({"codec", "scripts", "streaming"})


def server() -> NoReturn:
    """The command ``muc-server``."""
    start("streaming.cli.server", "server.py")


def client() -> NoReturn:
    """The command ``muc-client``."""
    start("streaming.cli.client", "client.py")


def muc() -> NoReturn:
    """The command ``muc``."""
    start("streaming.cli.muc", "python -m codec")


def start(module: str, script: str) -> NoReturn:
    """Import ``module``, call its ``main()`` and end this process with the exit code it returns.

    Args:
        script: the program's name, unless it was installed under another one.
    """
    name = program_name(script)
    end_on_signals()
    _open_streams()
    _reach_this_machine_directly()
    code: object = 0
    try:
        if sys.version_info < _OLDEST:
            needed, here = (".".join(map(str, v)) for v in (_OLDEST, sys.version_info[:3]))
            raise SystemExit(f"This needs Python {needed} or newer, not {here}.")
        code = importlib.import_module(module).main()
    except SystemExit as leaving:
        code = leaving.code
    except Exception as error:
        if isinstance(error, ImportError) and (error.name or "").split(".")[0] not in _OURS:
            code = _import_failure(error)
        else:
            sys.excepthook(type(error), error, error.__traceback__)  # a fault of ours
            code = 1
    _end(name, code)


def say(text: str) -> None:
    """Print ``text`` on standard output; ends the program if that cannot be written."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError as error:
        _flush(sys.stdout)
        raise SystemExit(_unwritable(error)) from None


def complain(text: str) -> None:
    """Print ``text`` on standard error; if that fails, there is nobody to tell."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{text}\n")


def program_name(script: str) -> str:
    """What this program was called by: a name that was installed, or its ``script``."""
    called = os.path.basename(sys.argv[0])  # noqa: PTH119 (pathlib takes time to import)
    return called if called.startswith("muc") else script


def _open_streams() -> None:
    """Have all three standard streams, and let them take any text.

    One that was closed fails when it is used, and no file that is opened later can take its place.
    """
    for number, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDWR)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _reach_this_machine_directly() -> None:
    """Keep what libraries do on this machine's own addresses from the environment's proxies."""
    spared = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    if spared != "*":
        ours = "localhost,127.0.0.1,::1"
        os.environ["no_proxy"] = f"{spared},{ours}" if spared else ours


def _import_failure(error: ImportError) -> str:
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return f"A Python package cannot be loaded ({error}); install it again."
    package = error.name.split(".")[0]
    wanted = f"music350[{_EXTRAS[package]}]" if package in _EXTRAS else package
    return f"The Python package {package} is missing; install it: pip install '{wanted}'."


def _end(name: str, code: object) -> NoReturn:
    """End with ``code``: a number, a sentence for the user, which is 2, or None, which is 0."""
    if (problem := _flush(sys.stdout)) and not code:
        code = _unwritable(problem)
    if isinstance(code, str):
        complain(f"{name}: {code}")
        code = 2
    _flush(sys.stderr)
    number = code if isinstance(code, int) else 0
    threading = sys.modules.get("threading")
    if threading is not None and threading.active_count() > 1:
        # One is still importing or computing, waits for a name server, or writes into a pipe that
        # nobody reads: the interpreter would wait for it, or fall down under it.
        os._exit(number)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # too late: all is done, and the code stands
    sys.exit(number)


def _unwritable(error: OSError) -> str | int:
    """What to say and to end with; a reader that has gone had enough."""
    if isinstance(error, BrokenPipeError):
        return 0
    return f"Standard output cannot be written ({error.strerror})."


def _flush(stream: TextIO) -> OSError | None:
    """Write out what ``stream`` holds; what cannot be written is let go."""
    try:
        stream.flush()
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        return error
    return None
