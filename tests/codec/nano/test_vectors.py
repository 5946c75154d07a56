"""The vectors for listeners in other languages are what this program computes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tests.vectors import PATH, muc_contents, vectors


def same(got: Any, wanted: Any, where: str = "") -> None:
    """Numbers within what two runtimes may differ by, all else as it is."""
    if isinstance(wanted, dict):
        assert got.keys() == wanted.keys(), where
        for name in wanted:
            same(got[name], wanted[name], f"{where}/{name}")
    elif isinstance(wanted, list) and wanted and isinstance(wanted[0], float):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-3, err_msg=where)
    elif isinstance(wanted, list) and wanted and isinstance(wanted[0], dict):
        for index, (one, other) in enumerate(zip(got, wanted, strict=True)):
            same(one, other, f"{where}/{index}")
    else:
        assert got == wanted, where


def test_the_vectors_are_what_the_program_computes() -> None:
    same(vectors(), json.loads(PATH.read_text(encoding="utf-8")))


def test_the_file_is_read_as_the_vectors_say(tmp_path) -> None:
    vector = json.loads(PATH.read_text(encoding="utf-8"))["muc"]
    path = tmp_path / "vector.muc"
    path.write_bytes(bytes.fromhex(vector["hex"]))
    assert muc_contents(path) == vector["holds"]
