"""Threads of the models."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap

import pytest
import torch

from streaming.support.compute import settle, use_threads
from tests import ROOT


def test_as_many_threads_compute_as_are_asked_for() -> None:
    before = torch.get_num_threads()
    use_threads(3)
    assert torch.get_num_threads() == 3
    use_threads(before)


@pytest.mark.parametrize(("before", "after"), [(None, "passive"), ("active", "active")])
def test_the_programs_threads_sleep_while_they_wait_unless_told_otherwise(
    before: str | None, after: str
) -> None:
    env = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    if before is not None:
        env["OMP_WAIT_POLICY"] = before
    code = (
        "import os, sys, streaming.cli.client; "
        "print(os.environ['OMP_WAIT_POLICY'], 'sounddevice' in sys.modules)"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=env, text=True)
    assert printed.split() == [after, "False"]


def test_what_is_loaded_is_no_longer_looked_at_for_garbage():
    before = gc.get_freeze_count()
    try:
        kept: list[list[int]] = [[] for _ in range(1000)]
        settle()
        assert gc.get_freeze_count() >= before + 1000
        assert len(gc.get_objects()) < gc.get_freeze_count()
        del kept
    finally:
        gc.unfreeze()


def test_no_extension_complains_of_leaks_when_the_interpreter_ends():
    code = """
        import soxr
        from streaming.support.compute import settle

        class Held:
            def __init__(self):
                self.itself = self
                self.stream = soxr.ResampleStream(44100, 48000, 2)

        held = Held()
        settle()
        del held
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")
