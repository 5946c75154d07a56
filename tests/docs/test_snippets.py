"""README's and the documentation's snippets do what they say: they are run, on this machine alone.

The commands of a block run one after the other in a folder of their own, as if somebody typed them.
Servers run beside what follows them until the block ends; a listener whose block starts none finds
a station. What the snippets leave open comes from the environment: listeners that hear one second,
free ports in place of those that are named, and a file in place of the sound card.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import codec
from scripts.processes import ROOT, free_port
from streaming import MucEncoder, StreamHeader
from streaming.cli import client_arguments, muc, server_arguments
from tests.docs.snippets import PAGES, commands, snippets

_PATIENCE_S = 240.0
_CLIENT = re.compile(r"(python client\.py|muc-client)\b")
_SERVER = re.compile(r"([A-Z0-9_]+=\S* )*(python server\.py|muc-server) ?")
_PARSERS: dict[str, Callable[[list[str]], object]] = {
    "server.py": functools.partial(server_arguments.read_arguments, None),
    "muc-server": functools.partial(server_arguments.read_arguments, None),
    "client.py": functools.partial(client_arguments.read_arguments, None),
    "muc-client": functools.partial(client_arguments.read_arguments, None),
    "muc": muc.make_parser().parse_args,
}


RUN = [s for page in PAGES for s in snippets(page, "sh") if not s.reason]
PROGRAMS = [page for page in PAGES if any(not s.reason for s in snippets(page, "python"))]


def test_every_snippet_is_run_or_says_why_not():
    every = [s for page in PAGES for language in ("sh", "python") for s in snippets(page, language)]
    assert len(every) > 20
    unexplained = [str(snippet) for snippet in every if snippet.note and not snippet.reason]
    assert not unexplained, "the fence says neither nothing nor 'not-run: REASON'"


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_our_programs_understand_every_command(page, capsys):
    """Also those that are not run: none has an option that is called otherwise by now."""
    for snippet in snippets(page, "sh"):
        for command in commands(snippet):
            for part in re.split(r"\s\|\s", command):
                # Without assignments before the program, and files that would have to be there.
                bare = re.sub(r"^([A-Z0-9_]+=\S*\s+)+|--(preset|config) \S+\.ini", "", part)
                program, *arguments = shlex.split(bare.removeprefix("python ")) or [""]
                if program == "-m" and arguments[0] == "codec":
                    program, *arguments = "muc", *arguments[1:]
                if program not in _PARSERS:
                    continue
                refused = ""
                try:
                    _PARSERS[program](arguments)
                except SystemExit as leaving:
                    refused = f"{snippet}: {command}\n{capsys.readouterr().err}" * bool(
                        leaving.code
                    )
                assert not refused


class Terminal:
    """A shell in a folder of its own, in which the programs' names mean those of this checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.played = 0
        self.ports: dict[str, int] = {}
        self.servers: list[tuple[subprocess.Popen[bytes], Path]] = []
        for name in ("server.py", "client.py", "codec", "streaming", "benchmarks"):
            (folder / name).symlink_to(ROOT / name)
        sound, rate = soundfile.read(ROOT / "streaming" / "data" / "demo.ogg", stop=4 * 48_000)
        (folder / "albums").mkdir()
        for path in ("song.flac", "song.wav", "albums/first.flac", "albums/second.flac"):
            soundfile.write(folder / path, sound, rate)
        (folder / "muc").mkdir()
        for path in ("song.muc", "muc/first.muc"):
            (folder / path).write_bytes(_encoded())
        settings = folder / "settings.ini"
        port = self.port("8765")
        settings.write_text(f"[server]\nport = {port}\n[client]\nurl = ws://127.0.0.1:{port}\n")
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "MUSIC350_CONFIG": str(settings),
            "MUSIC350_SECONDS": "1",
            "MUSIC350_THREADS": "1",
        }

    def run(self, command: str) -> None:
        """Run a command, a server until :meth:`close`."""
        if not self.servers and _CLIENT.match(command) and ".muc" not in command:
            self.run("python server.py song.muc --loop")
        command = re.sub(r"(?<=[: ])(87\d\d)\b", lambda found: str(self.port(found[1])), command)
        command = re.sub(r"--seconds \d+", "--seconds 1", command)
        self.played += command.count("--play")
        command = command.replace("--play", f"--out played-{self.played}.wav")
        if _SERVER.match(command):
            if "--port" not in command:
                self.close()  # it takes the place of the one before
            log = self.folder / f"server-{len(self.servers)}.log"
            with log.open("wb") as opened:
                process = subprocess.Popen(
                    ["bash", "-c", f"exec env {command}"],
                    cwd=self.folder,
                    env=self.environment,
                    stderr=opened,
                )
            self.servers.append((process, log))
            self.until_it_listens(process, log)
            return
        ended = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
        assert ended.returncode == 0, f"{command}\n{ended.stderr}{ended.stdout}"

    def port(self, written: str) -> int:
        """The free port that stands for one that a page names."""
        if written not in self.ports:
            self.ports[written] = free_port()
        return self.ports[written]

    def until_it_listens(self, process: subprocess.Popen[bytes], log: Path) -> None:
        deadline_s = time.monotonic() + _PATIENCE_S
        while "listening on" not in (said := log.read_text(errors="replace")):
            assert process.poll() is None, said
            assert time.monotonic() < deadline_s, said
            time.sleep(0.05)

    def close(self) -> None:
        """End the servers, in good order."""
        for process, log in self.servers:
            process.send_signal(signal.SIGTERM)
            assert process.wait(_PATIENCE_S) == 0, log.read_text(errors="replace")
        self.servers.clear()

    def kill(self) -> None:
        """End what still runs after a failure."""
        for process, _ in self.servers:
            process.kill()
            process.wait()


def _encoded() -> bytes:
    """A file of tokens, made without a model: it sounds like nothing, and can be played."""
    ((name, weights, digest),) = codec.bundled()
    encoder = MucEncoder(StreamHeader(name, weights, digest))
    tokens = np.random.default_rng(0).integers(0, codec.CODEBOOK_SIZE, 100)
    return encoder.tokens(tokens) + encoder.finish(100 * codec.SAMPLES_PER_TOKEN)


@pytest.fixture
def terminal(tmp_path):
    opened = Terminal(tmp_path)
    yield opened
    opened.kill()


@pytest.mark.system
@pytest.mark.timeout(1800)  # many programs, one after the other
@pytest.mark.parametrize("snippet", RUN, ids=str)
def test_the_commands_work(snippet, terminal):
    for command in commands(snippet):
        terminal.run(command)
    terminal.close()
    sounds = [path for path in terminal.folder.iterdir() if path.suffix in (".wav", ".flac")]
    assert all(soundfile.info(path).frames > 0 for path in sounds)


@pytest.mark.system
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", PROGRAMS, ids=[page.name for page in PROGRAMS])
def test_the_python_of_a_page_works(page, terminal):
    """All of a page's Python is one program, beside a station where it names one."""
    text = "\n".join(s.text for s in snippets(page, "python") if not s.reason)
    if ":8765" in text:
        terminal.run("python server.py song.muc --loop")
    program = text.replace(":8765", f":{terminal.port('8765')}")
    (terminal.folder / "program.py").write_text(program, encoding="utf-8")
    terminal.run("python program.py")
    terminal.close()
