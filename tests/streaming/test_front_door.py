"""What ``import streaming`` offers."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import streaming


def test_every_public_name_is_there():
    for name in streaming.__all__:
        assert getattr(streaming, name) is not None
    assert set(streaming.__all__) <= set(dir(streaming))


def test_what_types_are_checked_with_is_what_is_imported():
    tree = ast.parse(Path(streaming.__file__).read_text())
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = {
        alias.name: node.module
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    del imports["Any"], imports["Final"]
    assert imports == streaming._HOMES
    assert sorted(imports) == streaming.__all__


def test_a_name_that_is_not_offered_is_none():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = streaming.nonsense


def loaded_with(module: str) -> set[str]:
    """What a new interpreter has loaded after it imported a module."""
    code = f"import sys, {module}; print(*sys.modules)"
    # Measuring coverage imports modules of its own into every process.
    bare = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=bare
    )
    return set(done.stdout.split())


def test_importing_it_costs_nothing():
    loaded = {name.split(".")[0] for name in loaded_with("streaming")}
    assert not loaded & {
        "numpy",
        "torch",
        "typing",
        "asyncio",
        "websockets",
        "onnxruntime",
        "soundfile",
    }


def test_a_listener_begins_without_what_few_need():
    assert not loaded_with("streaming.cli.client") & {
        "onnxruntime",
        "streaming.files.recorder",
        "streaming.transports.oneway.connection",
        "streaming.transports.websocket.server",
        "streaming.web.console",
        "streaming.web.gateway",
        "torch",
    }


def test_errors_are_one_tree():
    errors = [getattr(streaming, name) for name in streaming.__all__ if name.endswith("Error")]
    assert all(issubclass(error, streaming.StreamingError) for error in errors)
