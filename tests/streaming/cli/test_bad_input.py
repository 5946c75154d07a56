"""What the programs say, as processes, where they cannot go on: one sentence and exit code 2."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from codec.nano.weights import BUNDLED
from tests.support.programs import Programs, Running, programs
from tests.support.rendition import SONGS

__all__ = ["programs"]

COMMANDS = {
    "server.py {folder}/none.wav": r"none\.wav' does not exist",
    "server.py {folder}/text.wav": r"text\.wav' ",
    "server.py {folder}/empty": "no audio files",
    "server.py {song} --port {taken}": "in use",
    "server.py {song} --port 0 --host no-such-host.invalid": "unknown host",
    "server.py -": "Standard input",
    "server.py --capture nonsense --port 0": "'nonsense'|PortAudio|device",
    "server.py --codec none": "'none'",
    "server.py damaged {song} --port 0": "damaged",
    "client.py ws://no-such-host.invalid --out {out}": "unknown",
    "client.py ws://127.0.0.1:{unused} --out {out}": "Nothing listens",
    "client.py http://127.0.0.1:{taken} --out {out}": "ws://HOST:PORT",
    "client.py {other_codec} --out {out}": "codec 'fake'",
    "client.py damaged {other_codec} --out {out}": "damaged",
    "client.py --play --device nonsense": "'nonsense'|PortAudio|device",
    "client.py": "--play",
}

# `damaged` above: a program that finds another weights file in the place of its own.
DAMAGED = """
import sys
from pathlib import Path
from codec.nano import weights
weights.BUNDLED = Path(sys.argv.pop(1))
from streaming.cli import {0}
sys.exit({0}.main())
"""
NO_SENTENCE = re.compile(r"\d\d:\d\d:\d\d |usage: |  ")  # log lines, and argparse's help


@pytest.fixture(scope="module")
def ended(programs: Programs) -> Iterator[dict[str, Future[Running]]]:
    """The programs of all commands, two at a time; `Future.result` waits for their ends."""
    folder = programs.folder
    (folder / "text.wav").write_text("This is no music.")
    (folder / "empty").mkdir()
    weights = bytearray(BUNDLED.read_bytes())
    weights[len(weights) // 2] ^= 1
    (folder / "weights").write_bytes(weights)
    other = programs.start(
        "other", "-m", "tests.support.fake_server", *SONGS, "--loop", "--port", "0"
    )
    other.until(lambda: "listening on" in other.log)
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        socket.socket() as unused,
        ThreadPoolExecutor(2) as pool,
    ):
        unused.bind(("127.0.0.1", 0))  # and nothing listens there
        words = {
            "folder": folder,
            "out": folder / "out.wav",
            "song": SONGS[0],
            "taken": taken.getsockname()[1],
            "unused": unused.getsockname()[1],
            "other_codec": other.log.split("listening on ")[1].split()[0],
        }

        def run(number: int, command: str) -> Running:
            running = programs.start(f"bad{number}", *arguments(command.format(**words), folder))
            running.ends()
            return running

        yield {command: pool.submit(run, n, command) for n, command in enumerate(COMMANDS)}


def arguments(command: str, folder: Path) -> list[str]:
    program, *rest = command.split()
    if "damaged" not in rest:
        return [program, *rest]
    module = program.removesuffix(".py")
    return ["-c", DAMAGED.format(module), f"{folder}/weights", *rest[1:]]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_cannot_work_is_said_in_one_sentence(
    ended: dict[str, Future[Running]], command: str
) -> None:
    running = ended[command].result()
    assert running.process.returncode == 2
    lines = [line for line in running.log.splitlines() if not NO_SENTENCE.match(line)]
    assert len(lines) == 1
    assert lines[0].startswith(f"{command.split()[0]}: ")
    assert re.search(COMMANDS[command], lines[0])
    assert not (running.base.parent / "out.wav").exists()
