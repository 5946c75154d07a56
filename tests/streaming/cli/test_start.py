"""How programs begin and end: signals at any moment, streams, encodings, what is missing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codec.nano.weights import BUNDLED, BUNDLED_SHA256
from streaming.files.muc import MucEncoder, StreamHeader
from streaming.support.ending import end_on_signals, interruptible, undone
from tests import ROOT
from tests.support.fake_codec import FakeCodec

SONG = ROOT / "streaming" / "data" / "demo.ogg"
PATIENCE_S = 120.0
TITLE = "日本語 – “título” 🎵"


@pytest.fixture(scope="module")
def muc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of tokens whose title no eight bits can hold."""
    header = StreamHeader("fake", "fake-1", FakeCodec.digest)
    return write_muc(tmp_path_factory.mktemp("start") / "title.muc", header)


@pytest.fixture(scope="module")
def nano_muc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for the listener as it is; decoding it takes seconds."""
    header = StreamHeader("nano", BUNDLED.stem, BUNDLED_SHA256)
    return write_muc(tmp_path_factory.mktemp("start") / "nano.muc", header)


def write_muc(path: Path, header: StreamHeader) -> Path:
    encoder = MucEncoder(header)
    tokens = encoder.title(TITLE) + encoder.tokens(np.arange(2500) % 16_384)
    path.write_bytes(tokens + encoder.finish(2500 * 1920))
    return path


def run(
    *arguments: object, redirect: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """A Python program by the shell, with redirections as people write them."""
    return subprocess.run(
        ["bash", "-c", f'exec "$@" {redirect}', "bash", sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=PATIENCE_S,
        check=False,
    )


@contextmanager
def running(*arguments: object, **options: object) -> Iterator[subprocess.Popen[str]]:
    """The same, still at work; killed at the end where it has not ended."""
    command = [sys.executable, *map(str, arguments)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
        **options,  # type: ignore[call-overload]
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(happened: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.01)


def catches(process: subprocess.Popen[str], number: signal.Signals) -> bool:
    """Whether a process has a handler of its own for a signal."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    (caught,) = re.findall(r"SigCgt:\s*(\w+)", status)
    return bool(int(caught, 16) >> (number - 1) & 1)


def ended(process: subprocess.Popen[str]) -> str:
    """What a program said that has ended as one does that was interrupted."""
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode in (0, 130), said
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    assert "nanobind" not in said
    return said


PROGRAMS = {
    "server": ("server.py", SONG, "--port", "0"),
    "station": ("server.py", "TITLE", "--port", "0"),
    "listener": ("client.py", "TITLE", "--out", "OUT.wav"),
    "recorder": ("client.py", "ws://127.0.0.1:9", "--wait", "--save", "OUT.muc"),
    "encode": ("-m", "codec", "encode", SONG, "OUT.muc"),
    "demo": ("-m", "scripts.demo", "--out-dir", "OUT"),
}


@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.3, 0.7, 1.5])
@pytest.mark.parametrize("program", PROGRAMS)
def test_ctrl_c_ends_a_program_at_any_moment(
    program: str, after_s: float, nano_muc: Path, tmp_path: Path
) -> None:
    words = [
        nano_muc if word == "TITLE" else str(word).replace("OUT", str(tmp_path / "out"))
        for word in PROGRAMS[program]
    ]
    with running(*words) as process:
        # Before its first line a program is Python's alone. Python does not catch SIGHUP.
        until(lambda: process.poll() is not None or catches(process, signal.SIGHUP))
        time.sleep(after_s)
        process.send_signal(signal.SIGINT)
        ended(process)
    assert not list(tmp_path.glob("**/*.part*"))


# What never ends by itself must end all the same.

HANGING = {
    "an import": "import time; time.sleep(3600)",
    "a model that is being loaded": """
        import time; from streaming.cli import client
        def load(name, **options):
            print("now", file=sys.stderr, flush=True)
            time.sleep(3600)
        def main():
            return client.main([FILE, "--out", OUT + ".wav"], load)
    """,
    "an encoder that is being loaded": """
        import time; from streaming.cli import server
        def load(name, **options):
            print("now", file=sys.stderr, flush=True)
            time.sleep(3600)
        def main():
            return server.main(["--port", "0"], load)
    """,
    "a name that is being looked up": """
        import socket, time; from streaming.cli import client
        def look_up(*arguments, **options):
            print("now", file=sys.stderr, flush=True)
            time.sleep(3600)
        socket.getaddrinfo = look_up
        def main():
            return client.main(["ws://radio.example:8765", "--save", OUT])
    """,
}


def hanging(what: str, muc: Path, folder: Path) -> list[object]:
    """A program that says when it hangs."""
    lines = [line[8:] if line.startswith("        ") else line for line in what.split("\n")]
    text = f"import sys\nFILE, OUT = {str(muc)!r}, {str(folder / 'out.muc')!r}\n" + "\n".join(lines)
    if "def main" not in what:
        text = text.replace("import time", "print('now', file=sys.stderr, flush=True); import time")
    (folder / "hanging.py").write_text(text, encoding="utf-8")
    start = "from streaming.cli.start import start; start('hanging', 'hanging.py')"
    return ["-c", f"import sys; sys.path[:0] = [{str(folder)!r}, {str(ROOT)!r}]; {start}"]


@pytest.mark.parametrize("what", HANGING)
def test_ctrl_c_ends_a_program_that_waits_for_ever(what: str, muc: Path, tmp_path: Path) -> None:
    with running(*hanging(HANGING[what], muc, tmp_path)) as process:
        assert process.stderr is not None
        while process.stderr.readline() != "now\n":
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        ended(process)


def test_a_second_ctrl_c_ends_a_program_that_takes_its_time(muc: Path, tmp_path: Path) -> None:
    what = """
        import asyncio
        from streaming.support.signals import run_loop, set_on_signals
        async def run():
            stop = asyncio.Event()
            with set_on_signals(stop):
                print("now", file=sys.stderr, flush=True)
                await stop.wait()
                print("again", file=sys.stderr, flush=True)
                await asyncio.sleep(3600)
        def main():
            run_loop(run())
    """
    with running(*hanging(what, muc, tmp_path)) as process:
        assert process.stderr is not None
        for line in ("now\n", "again\n"):
            assert process.stderr.readline() == line
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert said == ""


@pytest.fixture(scope="module")
def long_song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten minutes, which take longer to encode than anybody wants to wait."""
    path = tmp_path_factory.mktemp("long") / "long.wav"
    noise = np.random.default_rng(0).integers(-9999, 9999, (48_000, 2), dtype=np.int16)
    with soundfile.SoundFile(path, "w", 48_000, 2, "PCM_16") as file:
        for _ in range(600):
            file.write(noise)
    return path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_is_half_written_is_removed(
    number: signal.Signals, long_song: Path, tmp_path: Path
) -> None:
    with running("-m", "codec", "encode", long_song, tmp_path / "a.muc") as process:
        until(lambda: list(tmp_path.glob(".a.*.part.muc")) or process.poll() is not None)
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == (130 if number is signal.SIGINT else -number)
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ["Ctrl-C", "SIGTERM", "kill -9"])
def test_processes_of_a_batch_end_with_it(ending: str, long_song: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a", "b"):
        (source / f"{name}.wav").symlink_to(long_song)
    command = ("-m", "codec", "encode", source, out, "--jobs", "2")
    with running(*command) as process:
        until(lambda: len(list(out.glob(".*.part.muc"))) == 2 or process.poll() is not None)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if ending == "Ctrl-C":  # a terminal sends it to all of them
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGKILL if ending == "kill -9" else signal.SIGTERM)
        _, said = process.communicate(timeout=PATIENCE_S)
        if ending != "kill -9":
            assert process.returncode == (130 if ending == "Ctrl-C" else 143)
            assert "Traceback" not in said
            assert "leaked" not in said
        assert len(children) >= 2
        until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    assert not list(out.iterdir())


def test_signals_that_are_ignored_stay_ignored() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)]
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        end_on_signals()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) not in (before[0], signal.SIG_IGN)
        with pytest.raises(KeyboardInterrupt), interruptible():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGHUP, before[1])
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with undone(pytest.fail):
        pass  # nothing is undone where nothing happens


# Standard streams.


@pytest.mark.parametrize(
    ("redirect", "arguments", "code", "sentence"),
    [
        ("<&-", ["server.py", "-"], 2, "Standard input cannot be read"),
        ("<&-", ["server.py", "-", "--raw", "s16"], 2, "Standard input cannot be read"),
        (">&-", ["-m", "codec", "info", "FILE"], 2, "Standard output cannot be written"),
        (">/dev/full", ["-m", "codec", "info", "FILE"], 2, "Standard output cannot be written"),
        (">/dev/full", ["client.py", "--list-devices"], 2, "Standard output cannot be written"),
        (">/dev/full", ["server.py", "--completion", "bash"], 2, "Standard output cannot be"),
        (">/dev/full", ["-m", "codec", "fetch", "nano"], 2, "Standard output cannot be written"),
        ("> >(true)", ["-m", "codec", "info", "FILE"], 0, ""),
        (">&-", ["client.py", "FILE", "--out", "-"], 2, "Standard output cannot be written"),
        ("2>&-", ["-m", "codec", "info", "FILE"], 0, ""),
        ("2>&-", ["server.py", "none.ogg"], 2, ""),
        ("2>/dev/full", ["server.py", "none.ogg"], 2, ""),
        ("2>/dev/full", ["server.py", "--nonsense"], 2, ""),
        ("2>/dev/full", ["-m", "codec", "info", "none.muc"], 2, ""),
        ("<&- >&- 2>&-", ["-m", "codec", "encode", "none.ogg", "OUT"], 2, ""),
    ],
)
def test_a_stream_that_is_closed_or_full_is_no_traceback(
    redirect: str, arguments: list[str], code: int, sentence: str, muc: Path, tmp_path: Path
) -> None:
    words = [{"FILE": str(muc), "OUT": str(tmp_path / "x.muc")}.get(w, w) for w in arguments]
    if "client.py" in words[0]:
        words[0:1] = ["-m", "tests.support.fake_client"] if "--out" in words else words[0:1]
    for buffered in ("", "1") if ">" in redirect and "info" in words else ("",):
        result = run(*words, redirect=redirect, PYTHONUNBUFFERED=buffered)
        assert (result.returncode, "Traceback" in result.stderr) == (code, False), result.stderr
        assert sentence in result.stderr


@pytest.mark.parametrize("redirect", ["2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_files_are_written_without_anybody_to_tell(
    redirect: str, muc: Path, tmp_path: Path
) -> None:
    heard, saved = tmp_path / "heard.wav", tmp_path / "saved.muc"
    listen = (
        "-m",
        "tests.support.fake_client",
        muc,
        "--out",
        heard,
        "--save",
        saved,
        "--seconds",
        "4",
    )
    assert run(*listen, redirect=redirect).returncode == 0
    # Nothing of what was meant for the missing streams has gone into them.
    assert soundfile.info(heard).frames == 4 * 48_000
    assert heard.stat().st_size - 2 * 2 * 4 * 48_000 < 200
    facts = json.loads(run("-m", "codec", "info", "--json", saved).stdout)
    assert (facts["tokens"], facts["damaged_bytes"]) == (100, 0)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252:strict", "utf-8"])
def test_any_text_can_be_shown_in_any_encoding(encoding: str, muc: Path) -> None:
    shown = run("-m", "codec", "info", muc, PYTHONIOENCODING=encoding)
    assert shown.returncode == 0, shown.stderr
    assert "title    0.0 s: " in shown.stdout
    wanted = TITLE if encoding == "utf-8" else "\\u65e5\\u672c\\u8a9e"
    assert wanted in shown.stdout
    fields = json.loads(run("-m", "codec", "info", "--json", muc, PYTHONIOENCODING=encoding).stdout)
    assert fields["titles"] == [{"token": 0, "title": TITLE}]
    for program in (["server.py"], ["client.py"], ["-m", "codec"]):
        helped = run(*program, "--help", PYTHONIOENCODING=encoding)
        assert helped.returncode == 0, helped.stderr
        assert helped.stdout.startswith("usage: ")
    missing = run("server.py", f"{TITLE}.ogg", PYTHONIOENCODING=encoding)
    assert missing.returncode == 2
    assert "Traceback" not in missing.stderr


def test_log_lines_are_json_in_any_encoding(muc: Path, tmp_path: Path) -> None:
    missing = run("server.py", f"{TITLE}.ogg", "--json-log", PYTHONIOENCODING="ascii")
    (line,) = missing.stderr.splitlines()
    assert TITLE in json.loads(line)["message"]


# What is missing.


def start_without(package: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    words = ["server.py", *map(str, arguments)]
    name = Path(words[1]).stem if words[1].endswith(".py") else "muc"
    module = f"streaming.cli.{name}"
    code = (
        f"import sys; sys.modules[{package!r}] = None; sys.argv = {words[1:]!r}; "
        f"from streaming.cli.start import start; start({module!r}, {words[1]!r})"
    )
    return run("-c", code)


@pytest.mark.parametrize(
    ("package", "arguments", "install"),
    [
        ("onnxruntime", ["server.py", SONG, "--port", "0"], "pip install 'onnxruntime'"),
        ("onnxruntime", ["client.py", "FILE", "--out", "OUT"], "pip install 'onnxruntime'"),
        ("onnxruntime", ["codec", "encode", SONG, "OUT"], "pip install 'onnxruntime'"),
        ("torch", ["server.py", SONG, "--codec", "mucodec"], "pip install 'torch'"),
        ("torch", ["client.py", "FILE", "--out", "OUT", "--steps", "4"], "pip install 'torch'"),
        ("soundfile", ["server.py", SONG, "--port", "0"], "pip install 'soundfile'"),
        ("soxr", ["codec", "encode", SONG, "OUT"], "pip install 'soxr'"),
        ("safetensors", ["codec", "fetch", "nano"], "pip install 'safetensors'"),
        ("websockets", ["server.py", SONG], "pip install 'websockets'"),
        ("numpy", ["codec", "info", "FILE"], "pip install 'numpy'"),
        ("sounddevice", ["client.py", "--list-devices"], "pip install 'music350[play]'"),
        ("aiomqtt", ["client.py", "--mqtt", "mqtt://127.0.0.1/a", "--save", "OUT"], "aiomqtt"),
        ("serial", ["client.py", "--serial", "/dev/null", "--save", "OUT"], "pyserial"),
    ],
)
def test_a_missing_package_is_one_sentence(
    package: str, arguments: list[object], install: str, muc: Path, tmp_path: Path
) -> None:
    names = {"FILE": muc, "OUT": tmp_path / "x.muc"}
    if arguments[0] == "client.py" and "--out" in arguments:
        names["OUT"] = tmp_path / "x.wav"
    result = start_without(package, *(names.get(str(word), word) for word in arguments))
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert install in result.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_fault_of_ours_is_not_taken_for_a_missing_package(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text("from streaming.cli.start import no_such_name\n")
    code = "from streaming.cli.start import start; start('faulty', 'faulty.py')"
    path = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; "
    result = run("-c", path + code)
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_an_old_python_is_told_in_one_sentence() -> None:
    code = (
        "import sys; sys.version_info = (3, 10, 13); sys.argv = ['server.py']; "
        "from streaming.cli.start import start; start('server', 'server.py')"
    )
    result = run("-c", code)
    assert result.returncode == 2
    assert result.stderr == "server.py: This needs Python 3.11 or newer, not 3.10.13.\n"
