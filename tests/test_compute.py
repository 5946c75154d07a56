"""Threads of the models."""

from __future__ import annotations

import os

import pytest
import torch

from streaming.compute import DEFAULT_THREADS, use_threads


@pytest.mark.parametrize(("before", "after"), [(None, "passive"), ("active", "active")])
def test_threads_are_limited_and_sleep_unless_told_otherwise(
    before: str | None, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setenv("OMP_WAIT_POLICY", before or "")
    if before is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    use_threads(1)
    assert torch.get_num_threads() == 1
    assert os.environ["OMP_WAIT_POLICY"] == after
    torch.set_num_threads(threads)


def test_by_default_two_cores_are_used_where_there_are_two() -> None:
    assert DEFAULT_THREADS in (1, 2)
