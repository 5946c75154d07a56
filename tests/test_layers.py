"""Imports go one way: from the command lines down to the wire, and below all to the codec."""

import ast
from pathlib import Path

import pytest

from tests import ROOT

LAYERS = [
    {"streaming.cli"},
    {"streaming.listening", "streaming.send"},
    {"streaming.receive", "streaming.web", "streaming.files"},
    {"streaming.transports"},
    {"streaming.stream"},
    {"streaming.audio"},
    {"streaming.support"},
    {"streaming.wire"},
    {"streaming.errors"},
    {"codec"},
]
"""From the top: each may import what lies in the same layer or below."""


def layer(module: str) -> int:
    """Number of the layer, 0 on top; of the longest name that fits."""
    found = [
        (len(name), number)
        for number, names in enumerate(LAYERS)
        for name in names
        if module == name or module.startswith(f"{name}.")
    ]
    assert found, f"{module} is in no layer: name it in LAYERS"
    return max(found)[1]


def imports(path: Path):
    """The modules of ours that ``path`` imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in ("codec", "streaming"))


@pytest.mark.parametrize("package", ["codec", "streaming"])
def test_imports_go_down(package):
    front_doors = {ROOT / "streaming/__init__.py", ROOT / "codec/__main__.py"}
    up = []
    for path in sorted((ROOT / package).rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if path not in front_doors:
            up += [f"{module} → {name}" for name in imports(path) if layer(name) < layer(module)]
    assert not up, "imports that go up: " + ", ".join(up)
