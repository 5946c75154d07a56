"""Running other programs: what they write, what they need, what goes wrong."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from benchmarks import programs

HAS_PROC = Path("/proc/self/status").exists()


def test_bytes_go_in_and_come_out() -> None:
    done = programs.run(("tr", "a-z", "A-Z"), b"music" * 100_000)
    assert done.output == b"MUSIC" * 100_000
    assert done.seconds > 0


@pytest.mark.skipif(not HAS_PROC, reason="only Linux has /proc")
def test_the_peak_is_that_of_the_program_and_not_ours() -> None:
    ours = bytearray(300_000_000)
    ours[::4096] = b"x" * len(ours[::4096])
    small = programs.run((sys.executable, "-S", "-c", "import time; time.sleep(0.1)"), b"")
    code = "import time; held = b'x' * 100_000_000; time.sleep(0.1)"
    large = programs.run((sys.executable, "-S", "-c", code), b"")
    assert small.peak_mb is not None
    assert large.peak_mb is not None
    assert small.peak_mb < 50
    assert 100 < large.peak_mb < 150
    own = programs.peak_mb()
    assert own is not None
    assert own > 300
    assert programs.peak_mb(os.getpid()) == pytest.approx(own, rel=0.1)


def test_processor_time_is_that_of_the_program() -> None:
    waiting = programs.run(("sleep", "0.3"), b"")
    code = "import time\nwhile time.process_time() < 0.3: pass"
    working = programs.run((sys.executable, "-S", "-c", code), b"")
    assert waiting.cpu_s < 0.1
    assert 0.3 <= working.cpu_s < 1.5


def test_who_is_not_there_has_no_peak() -> None:
    assert programs.peak_mb("no such process") is None


def test_a_program_that_is_not_there_is_an_error() -> None:
    with pytest.raises(programs.ProgramError, match="no-such-program could not be run"):
        programs.run(("no-such-program",), b"")


def test_what_a_program_says_when_it_fails_is_said() -> None:
    with pytest.raises(programs.ProgramError, match="ended with exit code 3 and said: no luck"):
        programs.run(("sh", "-c", "echo no luck >&2; exit 3"), b"")


def test_a_program_that_takes_no_input_and_ends_well_is_no_error() -> None:
    assert programs.run(("sh", "-c", "echo done"), b"x" * 1_000_000).output == b"done\n"


def test_a_program_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_TIMEOUT_S", 0.2)
    with pytest.raises(programs.ProgramError, match=r"sleep did not end within 0\.2 s"):
        programs.run(("sleep", "600"), b"")
