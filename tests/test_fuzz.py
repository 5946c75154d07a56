"""Parsers and garbage: the kept corpus, mutations of it, and what hypothesis thinks of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import TARGETS, Finding, corpus, fuzz, run_one


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_and_mutations_of_it_do_no_harm(target):
    seeds = corpus(target)
    assert seeds
    for data in seeds:
        run_one(target, data)
    assert fuzz(target, 300, seed=1) == 300


@pytest.mark.parametrize("target", TARGETS)
@given(data=st.binary(max_size=400))
def test_bytes_that_are_nothing_do_no_harm(target, data):
    run_one(target, data)


def test_a_parser_that_breaks_is_found(monkeypatch):
    def broken(data: bytes) -> None:
        if b"\xff" in data:
            raise IndexError("out of range")

    monkeypatch.setitem(TARGETS, "packing", broken)
    with pytest.raises(Finding, match="packing: IndexError"):
        fuzz("packing", 100_000, seed=1)


def test_a_parser_that_hangs_is_found(monkeypatch):
    monkeypatch.setattr("tests.fuzz.SLOW_S", -1.0)
    with pytest.raises(Finding, match="too slow"):
        run_one("packing", b"")
